// Drives the compiled model of the IP as a bus does: register accesses, packets in and out.
// The generated design.h says how wide the streams are.

#include "simulation.h"

#include "design.h"

namespace {

// Ports take 32-bit words; the streams are bytes.
template <typename T>
void put_bytes(T& port, const uint8_t* bytes) {
    uint32_t words[(STREAM_BYTES + 3) / 4] = {};
    std::memcpy(words, bytes, STREAM_BYTES);
    put(port, words);
}

template <typename T>
void get_bytes(const T& port, uint8_t* bytes) {
    uint32_t words[(STREAM_BYTES + 3) / 4] = {};
    get(port, words);
    std::memcpy(bytes, words, STREAM_BYTES);
}

template <typename T>
void put_keep(T& port, uint64_t keep) {
    const uint32_t words[2] = {static_cast<uint32_t>(keep), static_cast<uint32_t>(keep >> 32)};
    put(port, words);
}

}  // namespace

extern "C" {

struct Exchange {
    uint64_t sent;          // words of the stream that are to go in
    const uint8_t* data;    // STREAM_BYTES each
    const uint64_t* keep;   // one each
    const uint8_t* last;    // one each
    uint64_t expected;      // words that are to come out
    uint8_t* result;        // STREAM_BYTES each
    uint8_t* result_last;   // one each
    uint64_t* result_cycle; // one each
    uint64_t received;      // words that came out
    uint64_t accepted;      // words that went in
    uint32_t stall;         // probability of a pause at either stream, of 65536
    uint64_t seed;
    uint64_t patience;      // cycles without progress before giving up
};

// Returns 0 when all is done, 1 when nothing moved any more.
int st_exchange(Simulation* s, Exchange* job) {
    Vst& top = s->top;
    Random random{job->seed | 1};
    bool offer = false;
    uint64_t quiet = 0;
    job->received = job->accepted = 0;
    while (job->accepted < job->sent || job->received < job->expected) {
        offer = job->accepted < job->sent && (offer || !random.below(job->stall));
        top.s_axis_tvalid = offer;
        if (offer) {
            put_bytes(top.s_axis_tdata, job->data + job->accepted * STREAM_BYTES);
            put_keep(top.s_axis_tkeep, job->keep[job->accepted]);
            top.s_axis_tlast = job->last[job->accepted];
        }
        top.m_axis_tready = job->received < job->expected && !random.below(job->stall);
        s->settle();
        ++quiet;
        if (offer && top.s_axis_tready) {
            ++job->accepted;
            offer = false;
            quiet = 0;
        }
        if (top.m_axis_tready && top.m_axis_tvalid) {
            get_bytes(top.m_axis_tdata, job->result + job->received * STREAM_BYTES);
            job->result_last[job->received] = top.m_axis_tlast;
            job->result_cycle[job->received++] = s->cycle;
            quiet = 0;
        }
        s->edge();
        if (quiet > job->patience) break;
    }
    top.s_axis_tvalid = 0;
    top.m_axis_tready = 0;
    return job->accepted < job->sent || job->received < job->expected;
}

// Lets cycles pass in which nothing is asked.
void st_wait(Simulation* s, uint64_t cycles) {
    for (; cycles != 0; --cycles) {
        s->settle();
        s->edge();
    }
}

int st_irq(Simulation* s) {
    s->settle();
    return s->top.irq;
}

// Returns the response, or -1 if there is none within `patience` cycles.
int st_access(Simulation* s, int write, uint32_t address, uint32_t* data, uint32_t strobe,
              uint64_t patience) {
    Vst& top = s->top;
    bool asked = false;
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
    for (uint64_t waited = 0; response < 0 && waited < patience; ++waited) {
        s->settle();
        // The trainer takes address and data of a write in the same cycle.
        const bool taken = !asked && (write ? top.s_axi_ctrl_awready : top.s_axi_ctrl_arready);
        if (write && top.s_axi_ctrl_bvalid) response = top.s_axi_ctrl_bresp;
        if (!write && top.s_axi_ctrl_rvalid) {
            response = top.s_axi_ctrl_rresp;
            *data = top.s_axi_ctrl_rdata;
        }
        s->edge();
        if (taken) {
            asked = true;
            top.s_axi_ctrl_awvalid = top.s_axi_ctrl_wvalid = top.s_axi_ctrl_arvalid = 0;
        }
    }
    top.s_axi_ctrl_bready = top.s_axi_ctrl_rready = 0;
    return response;
}

}  // extern "C"
