/* Train with a streamtrain IP from C: bare metal, or Linux with memory that is mapped.
 *
 * streamtrain_regs.h is made for each design; streamtrain_init() checks that hardware and header belong
 * together. Samples and results are laid out as README.md beside this file says.
 *
 *     static uint8_t drain[STREAMTRAIN_DRAIN_BYTES] __attribute__((aligned(64)));
 *     streamtrain_axi axi = {
 *         .control = 0x43c00000, .dma = 0x40400000, .patience = 100000000, .drain = drain};
 *     streamtrain trainer = streamtrain_over_axi(&axi);
 *     if (streamtrain_init(&trainer) != STREAMTRAIN_OK) ...
 *     streamtrain_set_label(sample, 7);
 *     streamtrain_train(&trainer, sample, 1, result);
 */
#ifndef STREAMTRAIN_H
#define STREAMTRAIN_H

#include <stddef.h>
#include <stdint.h>

#include "streamtrain_regs.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What functions return. */
enum {
    STREAMTRAIN_OK = 0,
    STREAMTRAIN_NO_TRAINER,    /* the register ID reads something else: address, or no bitstream */
    STREAMTRAIN_OTHER_DESIGN,  /* streamtrain_regs.h is of another design */
    STREAMTRAIN_OUT_OF_RANGE,  /* an argument; nothing was done */
    STREAMTRAIN_TIMEOUT,       /* nothing moved any more; call streamtrain_reset() */
    STREAMTRAIN_DMA_ERROR,     /* the DMA reports an error; call streamtrain_reset() */
    /* Samples were dropped, and results are missing: the register EVENTS says why, until
     * streamtrain_reset(), which has to be called. */
    STREAMTRAIN_DAMAGED,
    STREAMTRAIN_NO_DRAIN       /* streamtrain_axi.drain is NULL; nothing was done */
};

/* What the window looks at; STREAMTRAIN_FEATURES_MOMENTUM and _RANDOM say what there is. */
enum { STREAMTRAIN_WEIGHTS = 0, STREAMTRAIN_VELOCITIES = 1, STREAMTRAIN_RANDOM = 2 };

/* A trainer, and the way to it. Each function gets `context`. */
typedef struct {
    uint32_t (*read)(void *context, uint32_t address);
    void (*write)(void *context, uint32_t address, uint32_t value);
    /* Send a packet and receive one; none if result_bytes is 0. */
    int (*exchange)(void *context, const void *packet, size_t bytes, void *results, size_t result_bytes);
    /* Give up what is under way, and drop what the trainer sends. May be NULL. */
    int (*flush)(void *context);
    void *context;
    uint32_t patience; /* looks at a register before giving up */
    /* A packet of one word to end one with, where exchange() takes not just any memory; its content does
     * not matter. May be NULL. */
    const void *spare;
} streamtrain;

/* What came of a sample. */
typedef struct {
    uint16_t predicted; /* class */
    uint16_t label;
    uint32_t loss;      /* in steps of 1/4096 */
    const void *scores; /* codes of the last layer's output, STREAMTRAIN_SHAPE_CLASSES of them */
} streamtrain_result;

/* Check that the trainer is there and the one of streamtrain_regs.h, and reset it. Weights stay. */
int streamtrain_init(streamtrain *trainer);

/* Forget samples, and set events and counters to 0. Weights and settings stay; random bits begin anew. */
int streamtrain_reset(streamtrain *trainer);

/* For samples from now on: the learning rate, for which README.md has the formula, and samples between updates. */
int streamtrain_set_rate(streamtrain *trainer, uint32_t mantissa, uint32_t shift);
int streamtrain_set_batch(streamtrain *trainer, uint32_t samples);

/* Send `count` samples, STREAMTRAIN_SAMPLE_BYTES_BYTES each, and wait for as many results,
 * STREAMTRAIN_RESULT_BYTES_BYTES each. */
int streamtrain_train(streamtrain *trainer, const void *samples, uint32_t count, void *results);
int streamtrain_evaluate(streamtrain *trainer, const void *samples, uint32_t count, void *results);
int streamtrain_infer(streamtrain *trainer, const void *samples, uint32_t count, void *results);

/* Put a label into a sample. */
void streamtrain_set_label(void *sample, uint16_t label);

/* Result `number` of those that came. */
streamtrain_result streamtrain_get_result(const void *results, uint32_t number);

/* Read or write all numbers of a layer, in the hardware's order; `count` has to be how many there are. Random bits
 * are of layer 0. A layer that is frozen in the network has no velocities. */
int streamtrain_read_window(streamtrain *trainer, uint32_t layer, uint32_t target, int32_t *numbers,
                            uint32_t count);
int streamtrain_write_window(streamtrain *trainer, uint32_t layer, uint32_t target, const int32_t *numbers,
                             uint32_t count);

/* A counter of 64 bits, by the offset of its lower half. */
uint64_t streamtrain_wide(streamtrain *trainer, uint32_t offset);

/* As much as a trainer may have ready, and what the next samples make of it. */
#define STREAMTRAIN_DRAIN_BYTES (4u * STREAMTRAIN_RESULT_BYTES_BYTES + 64u)

/* Registers in memory, and an AXI DMA in simple mode whose lengths have 26 bits. The DMA reads and writes
 * samples and results where the caller has them: they have to be physically contiguous, and begin at
 * multiples of 64 bytes. */
typedef struct {
    uintptr_t control; /* address of the trainer's registers */
    uintptr_t dma;     /* address of the DMA's */
    /* Address for the DMA of one for the processor; NULL: they are the same. */
    uint64_t (*physical)(const void *address);
    /* Write a range of the cache to memory, or forget it; NULL: there is none, or it is coherent. */
    void (*flush_cache)(const void *address, size_t bytes);
    void (*invalidate_cache)(void *address, size_t bytes);
    uint32_t patience; /* looks at a register in which no sample is worked off, before giving up */
    /* STREAMTRAIN_DRAIN_BYTES, where samples and results are, for what nobody waits for any more. */
    void *drain;
} streamtrain_axi;

/* A trainer there; `axi` has to outlive it. */
streamtrain streamtrain_over_axi(streamtrain_axi *axi);

#ifdef __cplusplus
}
#endif

#endif
