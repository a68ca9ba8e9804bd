// What the harnesses of all compiled models share: ports of any width, the clock, waveforms, noise.
// The compiler is told which ports are clock and reset: CLOCK, RESET, RESET_ACTIVE.

#pragma once

#include <cstdint>
#include <cstring>
#include <memory>

#include "verilated.h"
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif
#include "Vst.h"
#include "Vst___024root.h"

namespace {

// Ports and memory words are integers up to 64 bits and arrays of 32-bit words beyond.
template <typename T>
void put(T& port, const uint32_t* words) {
    if constexpr (sizeof(T) <= 4) {
        port = static_cast<T>(words[0]);
    } else if constexpr (sizeof(T) == 8 && std::is_integral_v<T>) {
        port = static_cast<uint64_t>(words[0]) | static_cast<uint64_t>(words[1]) << 32;
    } else {
        std::memcpy(&port[0], words, sizeof(T));
    }
}

template <typename T>
uint32_t* get(const T& port, uint32_t* words) {
    if constexpr (sizeof(T) <= 4) {
        words[0] = static_cast<uint32_t>(port);
        return words + 1;
    } else if constexpr (sizeof(T) == 8 && std::is_integral_v<T>) {
        words[0] = static_cast<uint32_t>(port);
        words[1] = static_cast<uint32_t>(static_cast<uint64_t>(port) >> 32);
        return words + 2;
    } else {
        std::memcpy(words, &port[0], sizeof(T));
        return words + sizeof(T) / 4;
    }
}

template <typename T, std::size_t Depth>
void get_all(const VlUnpacked<T, Depth>& memory, uint32_t* words) {
    for (std::size_t address = 0; address < Depth; ++address) words = get(memory[address], words);
}

template <typename T, std::size_t Depth>
void get_one(const VlUnpacked<T, Depth>& memory, uint32_t address, uint32_t* words) {
    get(memory[address], words);
}

struct Simulation {
    VerilatedContext context;
    // Verilator asks the thread for its context, and that may be another simulation's, long gone.
    bool current = (Verilated::threadContextp(&context), true);
    Vst top{&context, "streamtrain"};
#if VM_TRACE
    VerilatedVcdC trace;
    uint64_t dumped = 0;
#endif
    uint64_t cycle = 0;

    ~Simulation() { Verilated::threadContextp(&context); }

    void edge() {
        top.CLOCK = 1;
        top.eval();
        dump(5);
        top.CLOCK = 0;
        ++cycle;
    }

    void dump(uint64_t offset) {
#if VM_TRACE
        const uint64_t now = cycle * 10 + offset;
        if (trace.isOpen() && now > dumped) trace.dump(dumped = now);
#else
        (void)offset;
#endif
    }

    // Inputs are set and outputs are valid after this.
    void settle() {
        top.eval();
        dump(0);
    }
};

struct Random {  // xorshift64*
    uint64_t state;
    bool below(uint32_t threshold) {  // of 65536
        if (threshold == 0) return false;
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        return (state * 2685821657736338717ull >> 48) < threshold;
    }
};

}  // namespace

extern "C" {

Simulation* st_new() { return new Simulation; }

void st_free(Simulation* s) { delete s; }

uint64_t st_cycle(Simulation* s) { return s->cycle; }

void st_reset(Simulation* s) {
    s->top.RESET = RESET_ACTIVE;
    s->top.CLOCK = 0;
    for (int n = 0; n < 2; ++n) {
        s->settle();
        s->edge();
    }
    s->top.RESET = !RESET_ACTIVE;
    s->settle();
}

int st_trace(Simulation* s, const char* path) {
#if VM_TRACE
    if (path == nullptr) {
        s->trace.close();
    } else {
        s->context.traceEverOn(true);
        s->top.trace(&s->trace, 99);
        s->trace.open(path);
        return s->trace.isOpen() ? 0 : 1;
    }
    return 0;
#else
    (void)s;
    (void)path;
    return 2;
#endif
}

}  // extern "C"
