// Drives the compiled model of a trainer at the two pins of its serial line, as the host's end does.

#include "simulation.h"

extern "C" {

struct Line {
    const uint8_t* sent;  // bytes that are to go in
    uint64_t count;       // of them
    uint64_t low;         // clock cycles for which the line is held low before them
    uint64_t bit;         // of the host, in clock cycles / 65536
    uint8_t* heard;
    uint64_t room;        // bytes of it; nothing more is done once it is full
    uint64_t wanted;      // bytes to wait for
    uint64_t received;
    uint64_t patience;    // cycles in which nothing is heard before giving up
    uint64_t bad;         // bytes without a stop bit, since the start
    // The host's receiver, from call to call.
    uint64_t left;        // bits of a byte that are still to come
    uint64_t timer;       // to the next one, in clock cycles / 65536
    uint64_t byte;
};

// Sends all there is, and goes on until it has heard what is wanted or nothing more comes.
void st_line(Simulation* s, Line* line) {
    constexpr uint64_t CYCLE = 65536;
    const uint64_t sending = 10 * line->count * line->bit;
    uint64_t sent = 0, low = line->low, quiet = 0;
    line->received = 0;
    while (line->received < line->room) {
        const bool busy = low != 0 || sent < sending;
        if (!busy && (line->received >= line->wanted || quiet > line->patience)) break;
        if (low != 0) {
            s->top.rx = 0;
            --low;
        } else if (sent < sending) {
            const uint64_t place = sent / line->bit, in_byte = place % 10;
            s->top.rx = in_byte == 0 ? 0 : in_byte == 9 ? 1 : line->sent[place / 10] >> (in_byte - 1) & 1;
            sent += CYCLE;
        } else {
            s->top.rx = 1;
        }
        s->settle();
        ++quiet;
        if (line->left == 0) {
            if (!s->top.tx) {
                line->left = 9;
                line->timer = line->bit + line->bit / 2;
            }
        } else if (line->timer >= CYCLE) {
            line->timer -= CYCLE;
        } else {
            line->timer += line->bit - CYCLE;
            if (--line->left != 0) {
                line->byte = line->byte >> 1 | (s->top.tx ? 0x80 : 0);
            } else if (s->top.tx) {
                line->heard[line->received++] = line->byte;
            } else {
                ++line->bad;
            }
            quiet = 0;
        }
        s->edge();
    }
    s->top.rx = 1;
}

}  // extern "C"
