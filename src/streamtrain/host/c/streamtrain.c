#include "streamtrain.h"

/* Define these for other processors, or to watch. */
#ifndef STREAMTRAIN_READ32
#define STREAMTRAIN_READ32(address) (*(volatile uint32_t *)(address))
#endif
#ifndef STREAMTRAIN_WRITE32
#define STREAMTRAIN_WRITE32(address, value) (*(volatile uint32_t *)(address) = (value))
#endif
/* All writes to memory in front of it are seen by the DMA before those behind it. */
#ifndef STREAMTRAIN_BARRIER
#if defined(__arm__) || defined(__aarch64__)
#define STREAMTRAIN_BARRIER() __asm__ volatile("dsb sy" ::: "memory")
#else
#define STREAMTRAIN_BARRIER() __asm__ volatile("" ::: "memory")
#endif
#endif

#define EVENTS                                                                                         \
    (STREAMTRAIN_EVENTS_SHORT_MASK | STREAMTRAIN_EVENTS_LONG_MASK | STREAMTRAIN_EVENTS_KEEP_MASK |     \
     STREAMTRAIN_EVENTS_LABEL_MASK | STREAMTRAIN_EVENTS_REFUSED_MASK)
#define HEAD_BYTES 8u
#define SETTLE_FLUSHES 100u

/* What a field takes if it takes everything. */
#ifndef STREAMTRAIN_RATE_SHIFT_MAX
#define STREAMTRAIN_RATE_SHIFT_MAX (STREAMTRAIN_RATE_SHIFT_MASK >> STREAMTRAIN_RATE_SHIFT_SHIFT)
#endif

static uint32_t get(streamtrain *trainer, uint32_t offset)
{
    return trainer->read(trainer->context, offset);
}

static void put(streamtrain *trainer, uint32_t offset, uint32_t value)
{
    trainer->write(trainer->context, offset, value);
}

static int wait_for(streamtrain *trainer, uint32_t mask, uint32_t value)
{
    for (uint32_t look = 0; look <= trainer->patience; ++look)
        if ((get(trainer, STREAMTRAIN_STATUS_OFFSET) & mask) == value) return STREAMTRAIN_OK;
    return STREAMTRAIN_TIMEOUT;
}

static int flush(streamtrain *trainer)
{
    return trainer->flush ? trainer->flush(trainer->context) : STREAMTRAIN_OK;
}

int streamtrain_init(streamtrain *trainer)
{
    int status = flush(trainer);
    if (status != STREAMTRAIN_OK) return status;
    if (get(trainer, STREAMTRAIN_ID_OFFSET) != STREAMTRAIN_ID_ID) return STREAMTRAIN_NO_TRAINER;
    if (get(trainer, STREAMTRAIN_HASH_OFFSET) != STREAMTRAIN_HASH_LOW ||
        get(trainer, STREAMTRAIN_HASH_HIGH_OFFSET) != STREAMTRAIN_HASH_HIGH_HIGH)
        return STREAMTRAIN_OTHER_DESIGN;
    return streamtrain_reset(trainer);
}

int streamtrain_reset(streamtrain *trainer)
{
    static const uint64_t zeros[8] = {0};
    int status = flush(trainer);
    if (status == STREAMTRAIN_NO_TRAINER || status == STREAMTRAIN_NO_DRAIN) return status;
    /* Whole samples that are inside are worked off, so that no update is cut short. A window that was left
     * open waits for whoever opened it. */
    for (uint32_t times = 0; status == STREAMTRAIN_OK && times < SETTLE_FLUSHES; ++times) {
        const uint32_t now = get(trainer, STREAMTRAIN_STATUS_OFFSET);
        if (!(now & STREAMTRAIN_STATUS_BUSY_MASK) || now & STREAMTRAIN_STATUS_WINDOW_BUSY_MASK) break;
        status = flush(trainer);
    }
    put(trainer, STREAMTRAIN_CONTROL_OFFSET, STREAMTRAIN_CONTROL_RESET_MASK | STREAMTRAIN_CONTROL_CLEAR_MASK);
    if (status == STREAMTRAIN_OK) status = flush(trainer);
    if (status != STREAMTRAIN_OK) return status;
    /* The rest of a packet is dropped up to its end, but whoever sent it is gone. */
    if (get(trainer, STREAMTRAIN_STATUS_OFFSET) & STREAMTRAIN_STATUS_RECEIVING_MASK)
        status = trainer->exchange(trainer->context, trainer->spare ? trainer->spare : zeros,
                                   STREAMTRAIN_FEATURES_BYTES, NULL, 0);
    put(trainer, STREAMTRAIN_EVENTS_OFFSET, EVENTS | STREAMTRAIN_EVENTS_DONE_MASK);
    return status;
}

int streamtrain_set_rate(streamtrain *trainer, uint32_t mantissa, uint32_t shift)
{
    if (mantissa > STREAMTRAIN_RATE_MANTISSA_MAX || shift > STREAMTRAIN_RATE_SHIFT_MAX)
        return STREAMTRAIN_OUT_OF_RANGE;
    put(trainer, STREAMTRAIN_RATE_OFFSET,
        mantissa << STREAMTRAIN_RATE_MANTISSA_SHIFT | shift << STREAMTRAIN_RATE_SHIFT_SHIFT);
    return STREAMTRAIN_OK;
}

int streamtrain_set_batch(streamtrain *trainer, uint32_t samples)
{
    if (samples < STREAMTRAIN_BATCH_SAMPLES_MIN || samples > STREAMTRAIN_BATCH_SAMPLES_MAX)
        return STREAMTRAIN_OUT_OF_RANGE;
    put(trainer, STREAMTRAIN_BATCH_OFFSET, samples << STREAMTRAIN_BATCH_SAMPLES_SHIFT);
    return STREAMTRAIN_OK;
}

static int run(streamtrain *trainer, uint32_t mode, const void *samples, uint32_t count, void *results)
{
    if (count < STREAMTRAIN_PACKET_SAMPLES_MIN || count > STREAMTRAIN_PACKET_SAMPLES_MAX)
        return STREAMTRAIN_OUT_OF_RANGE;
    put(trainer, STREAMTRAIN_PACKET_OFFSET, count << STREAMTRAIN_PACKET_SAMPLES_SHIFT);
    put(trainer, STREAMTRAIN_CONTROL_OFFSET,
        STREAMTRAIN_CONTROL_RUN_MASK | mode << STREAMTRAIN_CONTROL_MODE_SHIFT);
    const int status = trainer->exchange(trainer->context, samples, (size_t)count * STREAMTRAIN_SAMPLE_BYTES_BYTES,
                                         results, (size_t)count * STREAMTRAIN_RESULT_BYTES_BYTES);
    if (get(trainer, STREAMTRAIN_EVENTS_OFFSET) & EVENTS) return STREAMTRAIN_DAMAGED;
    return status;
}

int streamtrain_train(streamtrain *trainer, const void *samples, uint32_t count, void *results)
{
    return run(trainer, STREAMTRAIN_CONTROL_MODE_TRAIN, samples, count, results);
}

int streamtrain_evaluate(streamtrain *trainer, const void *samples, uint32_t count, void *results)
{
    return run(trainer, STREAMTRAIN_CONTROL_MODE_EVALUATE, samples, count, results);
}

int streamtrain_infer(streamtrain *trainer, const void *samples, uint32_t count, void *results)
{
    return run(trainer, STREAMTRAIN_CONTROL_MODE_INFER, samples, count, results);
}

void streamtrain_set_label(void *sample, uint16_t label)
{
    uint8_t *bytes = sample;
    bytes[0] = (uint8_t)label;
    if (STREAMTRAIN_FEATURES_BYTES > 1u) bytes[1] = (uint8_t)(label >> 8);
}

streamtrain_result streamtrain_get_result(const void *results, uint32_t number)
{
    const uint8_t *bytes = (const uint8_t *)results + (size_t)number * STREAMTRAIN_RESULT_BYTES_BYTES;
    streamtrain_result result;
    result.predicted = (uint16_t)(bytes[0] | bytes[1] << 8);
    result.label = (uint16_t)(bytes[2] | bytes[3] << 8);
    result.loss = bytes[4] | (uint32_t)bytes[5] << 8 | (uint32_t)bytes[6] << 16 | (uint32_t)bytes[7] << 24;
    result.scores = bytes + HEAD_BYTES;
    return result;
}

/* Open the window, and see that it is as wide as the caller thinks. */
static int open_window(streamtrain *trainer, uint32_t layer, uint32_t target, uint32_t write, uint32_t count)
{
    /* Some processors do not survive an access that is refused. */
    if (layer > STREAMTRAIN_WINDOW_LAYER_MAX || target > STREAMTRAIN_RANDOM) return STREAMTRAIN_OUT_OF_RANGE;
    if (target == STREAMTRAIN_VELOCITIES && !STREAMTRAIN_FEATURES_MOMENTUM) return STREAMTRAIN_OUT_OF_RANGE;
    if (target == STREAMTRAIN_RANDOM && (!STREAMTRAIN_FEATURES_RANDOM || layer)) return STREAMTRAIN_OUT_OF_RANGE;
    if (wait_for(trainer, STREAMTRAIN_STATUS_WINDOW_BUSY_MASK, 0) != STREAMTRAIN_OK) return STREAMTRAIN_TIMEOUT;
    put(trainer, STREAMTRAIN_WINDOW_OFFSET,
        layer << STREAMTRAIN_WINDOW_LAYER_SHIFT | target << STREAMTRAIN_WINDOW_TARGET_SHIFT |
            write << STREAMTRAIN_WINDOW_WRITE_SHIFT);
    const int status =
        wait_for(trainer, STREAMTRAIN_STATUS_WINDOW_OPEN_MASK, STREAMTRAIN_STATUS_WINDOW_OPEN_MASK);
    if (status == STREAMTRAIN_OK && get(trainer, STREAMTRAIN_WINDOW_LEFT_OFFSET) == count) return STREAMTRAIN_OK;
    streamtrain_reset(trainer); /* closes it */
    return status == STREAMTRAIN_OK ? STREAMTRAIN_OUT_OF_RANGE : status;
}

int streamtrain_read_window(streamtrain *trainer, uint32_t layer, uint32_t target, int32_t *numbers,
                            uint32_t count)
{
    const int status = open_window(trainer, layer, target, 0, count);
    if (status != STREAMTRAIN_OK) return status;
    for (uint32_t number = 0; number < count; ++number)
        numbers[number] = (int32_t)get(trainer, STREAMTRAIN_WINDOW_DATA_OFFSET);
    return STREAMTRAIN_OK;
}

int streamtrain_write_window(streamtrain *trainer, uint32_t layer, uint32_t target, const int32_t *numbers,
                             uint32_t count)
{
    const int status = open_window(trainer, layer, target, 1, count);
    if (status != STREAMTRAIN_OK) return status;
    for (uint32_t number = 0; number < count; ++number)
        put(trainer, STREAMTRAIN_WINDOW_DATA_OFFSET, (uint32_t)numbers[number]);
    return STREAMTRAIN_OK;
}

uint64_t streamtrain_wide(streamtrain *trainer, uint32_t offset)
{
    const uint32_t low = get(trainer, offset); /* captures the upper half */
    return low | (uint64_t)get(trainer, offset + 4u) << 32;
}

/* AXI DMA in simple mode (AMD PG021): registers of a channel, from its base. */
enum { MM2S = 0x00, S2MM = 0x30 };
enum { DMACR = 0x00, DMASR = 0x04, ADDRESS = 0x18, ADDRESS_HIGH = 0x1c, LENGTH = 0x28 };
enum { DMACR_RUN = 1u << 0, DMACR_RESET = 1u << 2 };
enum { DMASR_HALTED = 1u << 0, DMASR_IDLE = 1u << 1, DMASR_ERRORS = 7u << 4 };

#define LENGTH_BITS 26
#define DRAIN_LOOKS 1000u

static uint32_t axi_read(void *context, uint32_t address)
{
    const streamtrain_axi *axi = context;
    return STREAMTRAIN_READ32(axi->control + address);
}

static void axi_write(void *context, uint32_t address, uint32_t value)
{
    const streamtrain_axi *axi = context;
    STREAMTRAIN_WRITE32(axi->control + address, value);
}

static int axi_dma_reset(const streamtrain_axi *axi)
{
    STREAMTRAIN_WRITE32(axi->dma + MM2S + DMACR, DMACR_RESET); /* of both channels */
    for (uint32_t look = 0; look <= axi->patience; ++look)
        if (!(STREAMTRAIN_READ32(axi->dma + MM2S + DMACR) & DMACR_RESET)) return STREAMTRAIN_OK;
    return STREAMTRAIN_TIMEOUT;
}

static void axi_dma_start(const streamtrain_axi *axi, uint32_t channel, const void *memory, size_t bytes)
{
    const uint64_t address = axi->physical ? axi->physical(memory) : (uint64_t)(uintptr_t)memory;
    STREAMTRAIN_WRITE32(axi->dma + channel + DMACR, DMACR_RUN);
    STREAMTRAIN_WRITE32(axi->dma + channel + ADDRESS, (uint32_t)address);
    if (address >> 32) STREAMTRAIN_WRITE32(axi->dma + channel + ADDRESS_HIGH, (uint32_t)(address >> 32));
    STREAMTRAIN_WRITE32(axi->dma + channel + LENGTH, (uint32_t)bytes); /* this is what starts it */
}

static int axi_dma_wait(const streamtrain_axi *axi, uint32_t channel)
{
    uint32_t samples = 0;
    for (uint32_t look = 0; look <= axi->patience; ++look) {
        const uint32_t status = STREAMTRAIN_READ32(axi->dma + channel + DMASR);
        const uint32_t now = STREAMTRAIN_READ32(axi->control + STREAMTRAIN_SAMPLES_OFFSET);
        if (status & (DMASR_ERRORS | DMASR_HALTED)) return STREAMTRAIN_DMA_ERROR;
        if (status & DMASR_IDLE) return STREAMTRAIN_OK;
        if (now != samples) look = 0;
        samples = now;
    }
    return STREAMTRAIN_TIMEOUT;
}

static int axi_exchange(void *context, const void *packet, size_t bytes, void *results, size_t result_bytes)
{
    const streamtrain_axi *axi = context;
    if (bytes >> LENGTH_BITS || result_bytes >> LENGTH_BITS) return STREAMTRAIN_OUT_OF_RANGE;
    if (axi->flush_cache) axi->flush_cache(packet, bytes);
    /* Lines that are written back later would overwrite results. */
    if (axi->flush_cache && result_bytes) axi->flush_cache(results, result_bytes);
    STREAMTRAIN_BARRIER();
    if (result_bytes) axi_dma_start(axi, S2MM, results, result_bytes);
    axi_dma_start(axi, MM2S, packet, bytes);
    int status = axi_dma_wait(axi, MM2S);
    if (status != STREAMTRAIN_OK || !result_bytes) return status;
    status = axi_dma_wait(axi, S2MM);
    if (status != STREAMTRAIN_OK) return status;
    if (STREAMTRAIN_READ32(axi->dma + S2MM + LENGTH) != (uint32_t)result_bytes) return STREAMTRAIN_DMA_ERROR;
    STREAMTRAIN_BARRIER();
    if (axi->invalidate_cache) axi->invalidate_cache(results, result_bytes);
    return STREAMTRAIN_OK;
}

static int axi_flush(void *context)
{
    const streamtrain_axi *axi = context;
    if (!axi->drain) return STREAMTRAIN_NO_DRAIN;
    /* Where no trainer is, the DMA's address may be another's, too. */
    if (STREAMTRAIN_READ32(axi->control + STREAMTRAIN_ID_OFFSET) != STREAMTRAIN_ID_ID)
        return STREAMTRAIN_NO_TRAINER;
    int status = axi_dma_reset(axi);
    if (status != STREAMTRAIN_OK) return status;
    axi_dma_start(axi, S2MM, axi->drain, STREAMTRAIN_DRAIN_BYTES);
    for (uint32_t look = 0; look < DRAIN_LOOKS; ++look)
        if (STREAMTRAIN_READ32(axi->dma + S2MM + DMASR) & (DMASR_IDLE | DMASR_ERRORS)) break;
    return axi_dma_reset(axi);
}

streamtrain streamtrain_over_axi(streamtrain_axi *axi)
{
    streamtrain trainer = {
        .read = axi_read,
        .write = axi_write,
        .exchange = axi_exchange,
        .flush = axi_flush,
        .context = axi,
        .patience = axi->patience,
        .spare = axi->drain,
    };
    return trainer;
}
