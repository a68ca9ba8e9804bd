// Drives the compiled model: feeds samples, commands and weights, collects results, and watches
// memories. The generated design.h says how wide the ports are and which memories there are.

#include "simulation.h"

#include "design.h"

extern "C" {

struct Job {
    uint64_t commands;          // how many
    const uint32_t* command;    // COMMAND_WORDS each
    uint64_t beats;             // of all samples
    const uint32_t* beat;       // BEAT_WORDS each
    uint64_t weights_in;
    const uint32_t* weight_in;  // WEIGHT_IN_WORDS each
    uint64_t weights_out;
    uint32_t* weight_out;       // WEIGHT_OUT_WORDS each
    uint64_t results;
    uint32_t* result;           // RESULT_WORDS each
    uint64_t* result_cycle;
    uint64_t updates;           // of each stage that are recorded
    uint64_t* update_cycle;     // of each update, STAGES each
    uint32_t* snapshot;         // null, or the weights after each update: SNAPSHOT_WORDS each
    uint64_t* updates_seen;     // by stage
    uint32_t stall;             // probability of a stall at each port, of 65536
    uint64_t seed;
    uint64_t patience;          // cycles without progress before giving up
    int32_t watch_memory;       // -1: none
    uint32_t watch_address;
    uint32_t watch_word;
    uint64_t watch_cycle;       // when that word changed last
};

void st_memory(Simulation* s, int memory, uint32_t* words) {
    copy_memory(*s->top.rootp, memory, words);
}

void st_saturations(Simulation* s, uint32_t* counts) { copy_saturations(s->top, counts); }

// Returns 0 when all is done and the hardware is idle, 1 when it stopped making progress.
int st_run(Simulation* s, Job* job) {
    Vst& top = s->top;
    Random random{job->seed | 1};
    uint64_t commands = 0, beats = 0, weights_in = 0, weights_out = 0, results = 0;
    uint64_t quiet = 0;
    bool offer_command = false, offer_beat = false, offer_weight = false;
    uint32_t watched[MAX_MEMORY_WORDS] = {}, before = 0;
    if (job->watch_memory >= 0) {
        copy_word(*top.rootp, job->watch_memory, job->watch_address, watched);
        before = watched[job->watch_word];
    }
    for (;;) {
        // A stream that offers something goes on offering it; otherwise it may pause.
        offer_command = commands < job->commands && (offer_command || !random.below(job->stall));
        offer_beat = beats < job->beats && (offer_beat || !random.below(job->stall));
        offer_weight = weights_in < job->weights_in && (offer_weight || !random.below(job->stall));
        top.COMMAND_VALID = offer_command;
        if (offer_command) put(top.COMMAND_PAYLOAD, job->command + commands * COMMAND_WORDS);
        top.BEAT_VALID = offer_beat;
        if (offer_beat) put(top.BEAT_PAYLOAD, job->beat + beats * BEAT_WORDS);
        top.WEIGHT_IN_VALID = offer_weight;
        if (offer_weight) put(top.WEIGHT_IN_PAYLOAD, job->weight_in + weights_in * WEIGHT_IN_WORDS);
        top.RESULT_READY = results < job->results && !random.below(job->stall);
        top.WEIGHT_OUT_READY = weights_out < job->weights_out && !random.below(job->stall);
        s->settle();

        ++quiet;
        if (offer_command && top.COMMAND_READY) {
            ++commands;
            offer_command = false;
            quiet = 0;
        }
        if (offer_beat && top.BEAT_READY) {
            ++beats;
            offer_beat = false;
            quiet = 0;
        }
        if (offer_weight && top.WEIGHT_IN_READY) {
            ++weights_in;
            offer_weight = false;
            quiet = 0;
        }
        if (top.RESULT_READY && top.RESULT_VALID) {
            get(top.RESULT_PAYLOAD, job->result + results * RESULT_WORDS);
            job->result_cycle[results++] = s->cycle;
            quiet = 0;
        }
        if (top.WEIGHT_OUT_READY && top.WEIGHT_OUT_VALID) {
            get(top.WEIGHT_OUT_PAYLOAD, job->weight_out + weights_out * WEIGHT_OUT_WORDS);
            ++weights_out;
            quiet = 0;
        }
        if (job->updates != 0 && top.updated != 0) {
            for (int stage = 0; stage < STAGES; ++stage) {
                if ((top.updated >> stage & 1) == 0) continue;
                const uint64_t number = job->updates_seen[stage]++;
                if (number >= job->updates) continue;
                job->update_cycle[number * STAGES + stage] = s->cycle;
                if (job->snapshot != nullptr)
                    copy_weights(*top.rootp, stage, job->snapshot + number * SNAPSHOT_WORDS);
            }
        }
        const bool done = commands == job->commands && beats == job->beats &&
                          weights_in == job->weights_in && weights_out == job->weights_out &&
                          results == job->results && top.idle;
        s->edge();
        if (job->watch_memory >= 0) {
            copy_word(*top.rootp, job->watch_memory, job->watch_address, watched);
            if (watched[job->watch_word] != before) {
                before = watched[job->watch_word];
                job->watch_cycle = s->cycle;
            }
        }
        if (done) return 0;
        if (quiet > job->patience) return 1;
    }
}

}  // extern "C"
