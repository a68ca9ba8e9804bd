// Drives the compiled model of a design with memory behind it: register accesses, and the memory itself,
// which watches that its master keeps AXI's rules. The generated design.h says how wide the data are.
//
// The memory is the most awkward that the rules allow. A read gets what was there when its address was
// taken; what is written is there when its response is given, and not before.

#include <cstdarg>
#include <cstdio>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "simulation.h"

#include "design.h"

namespace {

constexpr uint32_t ONE = 65536;  // rates and probabilities are of this
constexpr uint32_t OKAY = 0, DECERR = 3, INCR = 1, PAGE = 4096;
constexpr uint32_t SIZE = __builtin_ctz(DATA_BYTES);

template <typename T>
void get_bytes(const T& port, uint8_t* bytes) {
    uint32_t words[DATA_BYTES / 4];
    get(port, words);
    std::memcpy(bytes, words, DATA_BYTES);
}

// An address channel as it is in one cycle.
struct Address {
    uint64_t address, id;
    uint32_t length, size, burst, cache, prot;
    bool operator==(const Address& other) const {
        return address == other.address && id == other.id && length == other.length &&
               size == other.size && burst == other.burst && cache == other.cache &&
               prot == other.prot;
    }
    uint32_t beats() const { return length + 1; }
};

struct Word {
    uint8_t data[DATA_BYTES];
    uint64_t strobes;
    bool last;
    bool operator==(const Word& other) const {
        return std::memcmp(data, other.data, DATA_BYTES) == 0 && strobes == other.strobes &&
               last == other.last;
    }
};

struct Read {
    Address asked;
    uint64_t cycle;             // of its first beat, at the earliest
    std::vector<uint8_t> data;
    uint32_t sent = 0;          // beats
};

struct Write {
    Address asked;
    std::vector<Word> words;
    uint64_t cycle = 0;         // of its response, at the earliest
};

// Lets through a fraction of all cycles.
struct Budget {
    uint32_t rate = ONE, saved = 0;
    void step() { saved = saved + rate < ONE + rate ? saved + rate : ONE + rate - 1; }
    bool enough(uint32_t beats = 1) const { return saved >= beats * ONE; }
    void spend() { saved -= ONE; }
};

}  // namespace

extern "C" {

struct Settings {
    uint64_t read_latency;   // cycles from an address to its first beat
    uint64_t write_latency;  // cycles from the last beat to the response
    uint32_t read_rate;      // beats per cycle, of 65536
    uint32_t write_rate;
    uint32_t shared_rate;    // of both together
    uint32_t stall;          // probability of a pause on each channel, of 65536
};

struct Counts {
    uint64_t cycles;
    uint64_t read_bursts, read_beats;
    uint64_t read_busy;      // cycles with a read whose address was taken and whose data were not
    uint64_t read_blocked;   // cycles with RVALID and without RREADY
    uint64_t write_bursts, write_beats;
    uint64_t write_busy;     // cycles with a write whose address was taken and that was not answered
    uint64_t write_starved;  // cycles with an address, WREADY and no WVALID
};

struct Memory {
    uint8_t* bytes;
    uint64_t base, size;
    Random random;
    Settings settings{};
    Counts counts{};
    std::map<uint64_t, uint32_t> errors;  // response by address
    std::string broken;                   // rule, and how

    Budget read_budget, write_budget, shared_budget;
    bool writes_next = false;  // if reads and writes share what is enough for one
    std::deque<Read> reads;
    std::deque<Write> writes;    // whose beats have not all come
    std::deque<Write> written;   // whose response has not been given
    bool fresh = true;           // just reset
    bool had_ar = false, had_aw = false, had_w = false;  // offered, and not taken
    Address ar{}, aw{};
    Word w{};
    bool offer_r = false, offer_b = false;

    void forget() {
        reads.clear();
        writes.clear();
        written.clear();
        had_ar = had_aw = had_w = offer_r = offer_b = false;
        fresh = true;
    }

    bool holds(const Address& burst) const {
        const uint64_t bytes = static_cast<uint64_t>(burst.beats()) * DATA_BYTES;
        return burst.address >= base && burst.address - base < size &&
               bytes <= size - (burst.address - base);
    }

    uint32_t response(uint64_t address, uint64_t bytes) const {
        const auto error = errors.lower_bound(address);
        return error != errors.end() && error->first - address < bytes ? error->second : OKAY;
    }

    // Of a beat of a read.
    uint32_t response(const Address& burst, uint32_t beat) const {
        if (!holds(burst)) return DECERR;
        return response(burst.address + static_cast<uint64_t>(beat) * DATA_BYTES, DATA_BYTES);
    }

    void commit(const Write& write) {
        uint8_t* to = bytes + (write.asked.address - base);
        for (const Word& word : write.words) {
            for (uint32_t byte = 0; byte < DATA_BYTES; ++byte)
                if (word.strobes >> byte & 1) to[byte] = word.data[byte];
            to += DATA_BYTES;
        }
    }
};

}  // extern "C"

namespace {

__attribute__((format(printf, 3, 4)))
void breaks(Simulation* s, Memory* memory, const char* format, ...) {
    if (!memory->broken.empty()) return;
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    memory->broken = "cycle " + std::to_string(s->cycle) + ", m_axi: " + text;
}

unsigned long long big(uint64_t number) { return number; }

// The rules of an address channel, AR or AW.
void watch_address(Simulation* s, Memory* memory, const char* name, bool valid, const Address& now,
                   bool had, const Address& before) {
    if (had && !valid) breaks(s, memory, "%sVALID went away before %sREADY came", name, name);
    if (!valid) return;
    if (memory->fresh) breaks(s, memory, "%sVALID is high right after reset", name);
    if (had && !(now == before))
        breaks(s, memory, "%s changed before %sREADY came: address 0x%llx, LEN %u became 0x%llx, %u",
               name, name, big(before.address), before.length, big(now.address), now.length);
    if (now.burst != INCR)
        breaks(s, memory, "%sBURST is %u, and the memory knows only INCR (1)", name, now.burst);
    if (now.size != SIZE)
        breaks(s, memory, "%sSIZE is %u, and the memory knows only whole beats (%u)", name, now.size,
               SIZE);
    if (now.address % DATA_BYTES != 0)
        breaks(s, memory, "%sADDR 0x%llx is no beat's address (%d bytes)", name, big(now.address),
               DATA_BYTES);
    const uint64_t bytes = static_cast<uint64_t>(now.beats()) * DATA_BYTES;
    if (now.address % PAGE + bytes > PAGE)
        breaks(s, memory, "the burst of %u beats at %sADDR 0x%llx crosses a page of 4 KB", now.beats(),
               name, big(now.address));
}

void watch_word(Simulation* s, Memory* memory, bool valid, const Word& now) {
    if (memory->had_w && !valid) breaks(s, memory, "WVALID went away before WREADY came");
    if (!valid) return;
    if (memory->fresh) breaks(s, memory, "WVALID is high right after reset");
    if (memory->had_w && !(now == memory->w)) breaks(s, memory, "W changed before WREADY came");
    if (memory->writes.empty()) return;
    const Write& write = memory->writes.front();
    const uint32_t beats = write.asked.beats();
    const uint32_t number = static_cast<uint32_t>(write.words.size()) + 1;
    if (now.last != (number == beats))
        breaks(s, memory, "WLAST is %d on beat %u of the %u at AWADDR 0x%llx", now.last, number, beats,
               big(write.asked.address));
}

// One clock cycle.
void advance(Simulation* s, Memory* memory) {
    Vst& top = s->top;
    const Settings& set = memory->settings;
    const uint64_t now = s->cycle;
    const auto pause = [&] { return memory->random.below(set.stall); };
    Budget &reading = memory->read_budget, &writing = memory->write_budget;
    Budget& shared = memory->shared_budget;
    reading.step();
    writing.step();
    shared.step();

    // Data go out as soon as both budgets and the latency allow it, and stay until they are taken.
    const bool can_read = !memory->offer_r && !memory->reads.empty() &&
                          memory->reads.front().cycle <= now && reading.enough() &&
                          shared.enough() && !pause();
    // What the master showed at the last clock edge: a hint at who wants to share.
    const bool can_write = !memory->writes.empty() && writing.enough() && shared.enough() && !pause();
    const bool wants_write = can_write && top.m_axi_wvalid;
    const bool one_only = can_read && wants_write && !shared.enough(2);
    if (can_read && !(one_only && memory->writes_next)) {
        memory->offer_r = true;
        reading.spend();
        shared.spend();
        if (one_only) memory->writes_next = true;
    }
    top.m_axi_wready = can_write && shared.enough();
    if (one_only && top.m_axi_wready) memory->writes_next = false;
    if (!memory->offer_b && !memory->written.empty() && memory->written.front().cycle <= now &&
        !pause())
        memory->offer_b = true;
    top.m_axi_arready = !pause();
    top.m_axi_awready = !pause();
    top.m_axi_rvalid = memory->offer_r;
    if (memory->offer_r) {
        const Read& read = memory->reads.front();
        uint32_t words[DATA_BYTES / 4];
        std::memcpy(words, read.data.data() + read.sent * DATA_BYTES, DATA_BYTES);
        put(top.m_axi_rdata, words);
        top.m_axi_rid = read.asked.id;
        top.m_axi_rresp = memory->response(read.asked, read.sent);
        top.m_axi_rlast = read.sent == read.asked.length;
    }
    top.m_axi_bvalid = memory->offer_b;
    if (memory->offer_b) {
        const Write& write = memory->written.front();
        const uint64_t bytes = static_cast<uint64_t>(write.asked.beats()) * DATA_BYTES;
        top.m_axi_bid = write.asked.id;
        top.m_axi_bresp =
            memory->holds(write.asked) ? memory->response(write.asked.address, bytes) : DECERR;
    }
    s->settle();

    // What the master does.
    const Address ar{top.m_axi_araddr, top.m_axi_arid, top.m_axi_arlen, top.m_axi_arsize,
                     top.m_axi_arburst, top.m_axi_arcache, top.m_axi_arprot};
    const Address aw{top.m_axi_awaddr, top.m_axi_awid, top.m_axi_awlen, top.m_axi_awsize,
                     top.m_axi_awburst, top.m_axi_awcache, top.m_axi_awprot};
    const bool arvalid = top.m_axi_arvalid, awvalid = top.m_axi_awvalid, wvalid = top.m_axi_wvalid;
    Word w{};
    if (wvalid) {
        get_bytes(top.m_axi_wdata, w.data);
        w.strobes = top.m_axi_wstrb;
        w.last = top.m_axi_wlast;
    }
    watch_address(s, memory, "AR", arvalid, ar, memory->had_ar, memory->ar);
    watch_address(s, memory, "AW", awvalid, aw, memory->had_aw, memory->aw);
    watch_word(s, memory, wvalid, w);
    memory->fresh = false;

    Counts& counts = memory->counts;
    ++counts.cycles;
    counts.read_busy += !memory->reads.empty();
    counts.write_busy += !memory->writes.empty() || !memory->written.empty();
    counts.read_blocked += memory->offer_r && !top.m_axi_rready;
    counts.write_starved += top.m_axi_wready && !wvalid;

    // What is taken in this cycle.
    if (memory->offer_r && top.m_axi_rready) {
        memory->offer_r = false;
        ++counts.read_beats;
        Read& read = memory->reads.front();
        if (++read.sent == read.asked.beats()) memory->reads.pop_front();
    }
    if (wvalid && top.m_axi_wready) {
        writing.spend();
        shared.spend();
        ++counts.write_beats;
        Write& write = memory->writes.front();
        write.words.push_back(w);
        if (write.words.size() == write.asked.beats()) {
            write.cycle = now + set.write_latency;
            memory->written.push_back(std::move(write));
            memory->writes.pop_front();
        }
    }
    // A rule that is broken ends the run; what broke it must touch no byte.
    if (arvalid && top.m_axi_arready && memory->broken.empty()) {
        ++counts.read_bursts;
        Read read{ar, now + set.read_latency, {}};
        read.data.resize(static_cast<size_t>(ar.beats()) * DATA_BYTES);
        if (memory->holds(ar))
            std::memcpy(read.data.data(), memory->bytes + (ar.address - memory->base),
                        read.data.size());
        memory->reads.push_back(std::move(read));
    }
    if (awvalid && top.m_axi_awready && memory->broken.empty()) {
        ++counts.write_bursts;
        memory->writes.push_back(Write{aw, {}});
    }
    // Behind the addresses: one that was taken with the response has not waited for it.
    if (memory->offer_b && top.m_axi_bready) {
        memory->offer_b = false;
        if (top.m_axi_bresp == OKAY) memory->commit(memory->written.front());
        memory->written.pop_front();
    }
    memory->had_ar = arvalid && !top.m_axi_arready;
    memory->had_aw = awvalid && !top.m_axi_awready;
    memory->had_w = wvalid && !top.m_axi_wready;
    memory->ar = ar;
    memory->aw = aw;
    memory->w = w;
    s->edge();
}

}  // namespace

extern "C" {

Memory* st_memory_new(Simulation*, uint8_t* bytes, uint64_t base, uint64_t size, uint64_t seed) {
    Memory* memory = new Memory{bytes, base, size, Random{seed * 2 + 1}};
    return memory;
}

void st_memory_free(Simulation*, Memory* memory) { delete memory; }

void st_memory_set(Simulation*, Memory* memory, const Settings* settings) {
    memory->settings = *settings;
    memory->read_budget = Budget{settings->read_rate};
    memory->write_budget = Budget{settings->write_rate};
    memory->shared_budget = Budget{settings->shared_rate};
}

void st_memory_fail(Simulation*, Memory* memory, uint64_t address, uint32_t response) {
    memory->errors.erase(address);
    if (response != OKAY) memory->errors[address] = response;
}

void st_memory_counts(Simulation*, Memory* memory, Counts* counts) { *counts = memory->counts; }

// Transactions that were under way when the design was reset are gone.
void st_memory_forget(Simulation*, Memory* memory) { memory->forget(); }

// What rule was broken, and how; empty if none was.
const char* st_broken(Simulation*, Memory* memory) { return memory->broken.c_str(); }

// Lets cycles pass, until an interrupt if that is wanted. Returns how many passed.
uint64_t st_wait(Simulation* s, Memory* memory, uint64_t cycles, int until_irq) {
    uint64_t passed = 0;
    while (passed < cycles && memory->broken.empty() && !(until_irq && s->top.irq)) {
        advance(s, memory);
        ++passed;
    }
    return passed;
}

int st_irq(Simulation* s) {
    s->settle();
    return s->top.irq;
}

// Returns the response, or -1 if there is none within `patience` cycles.
int st_access(Simulation* s, Memory* memory, int write, uint32_t address, uint32_t* data,
              uint32_t strobe, uint64_t patience) {
    Vst& top = s->top;
    if (write) {
        top.s_axi_ctrl_awaddr = address;
        top.s_axi_ctrl_wdata = *data;
        top.s_axi_ctrl_wstrb = strobe;
        top.s_axi_ctrl_awvalid = top.s_axi_ctrl_wvalid = 1;
        top.s_axi_ctrl_bready = 1;
    } else {
        top.s_axi_ctrl_araddr = address;
        top.s_axi_ctrl_arvalid = 1;
        top.s_axi_ctrl_rready = 1;
    }
    int response = -1;
    bool asked = false;
    for (uint64_t waited = 0; response < 0 && waited < patience && memory->broken.empty(); ++waited) {
        s->settle();
        // The register file takes address and data of a write in the same cycle.
        const bool taken = !asked && (write ? top.s_axi_ctrl_awready : top.s_axi_ctrl_arready);
        if (write && top.s_axi_ctrl_bvalid) response = top.s_axi_ctrl_bresp;
        if (!write && top.s_axi_ctrl_rvalid) {
            response = top.s_axi_ctrl_rresp;
            *data = top.s_axi_ctrl_rdata;
        }
        advance(s, memory);
        if (taken) {
            asked = true;
            top.s_axi_ctrl_awvalid = top.s_axi_ctrl_wvalid = top.s_axi_ctrl_arvalid = 0;
        }
    }
    top.s_axi_ctrl_bready = top.s_axi_ctrl_rready = 0;
    return response;
}

}  // extern "C"
