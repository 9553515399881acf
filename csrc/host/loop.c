#include "loop.h"

#include <string.h>

#include "../chip.h"
#include "amx.h"
#include "crew.h"

static void vote(const gle_chip *chip, int64_t *votes)
{
    const gle_layer *top = &chip->layer[chip->layers - 1];

    enum { SOME = 64 };
    gle_reader how = gle_reader_of(chip, chip->layers - 1);
    int32_t rates[SOME];

    for (int32_t b = 0; b < chip->batch; b += SOME) {
        const int32_t some = chip->batch - b < SOME ? chip->batch - b : SOME;
        for (int32_t i = 0; i < top->n; i++) {
            gle_read_rates(chip, &how, chip->layers - 1, i, b, some, rates);
            for (int32_t k = 0; k < some; k++) {
                votes[(size_t)(b + k) * (size_t)top->n + (size_t)i] += rates[k];
            }
        }
    }
}

static void record(const gle_chip *chip, const gle_block *block, int32_t t)
{
    for (int32_t k = 0; k < block->records; k++) {
        const int32_t l = block->record_layer[k];
        const size_t size = (size_t)chip->layer[l].n * (size_t)chip->batch;
        gle_read(chip, l, block->record_signal[k], block->record_to[k] + (size_t)t * size);
    }
    if (block->fracs != NULL) {
        for (int32_t l = 0; l < chip->layers; l++) {
            int8_t *to = block->fracs + ((size_t)t * (size_t)chip->layers + (size_t)l) * 2;
            to[0] = (int8_t)chip->layer[l].r_frac;
            to[1] = (int8_t)chip->layer[l].e_frac;
        }
    }
    if (block->votes != NULL) {
        vote(chip, block->votes);
    }
}

static int32_t steps_of(gle_chip *chip, const gle_block *block, gle_adam *adam,
                        const volatile int32_t *stop)
{
    const size_t input_size = (size_t)chip->batch * (size_t)chip->image->inputs;

    for (int32_t t = 0; t < block->steps; t++) {
        const int16_t *target =
            block->target == NULL ? NULL : block->target + (size_t)t * (size_t)block->target_stride;
        if (stop != NULL && *stop != 0) {
            return t;
        }
        if (gle_step(chip, block->input + (size_t)t * input_size, target,
                     block->flags | (adam != NULL ? GLE_READ_GRADIENT : 0u)) != GLE_OK) {
            return -1;
        }
        if (adam != NULL) {
            gle_adam_step(chip, adam);
        }
        record(chip, block, t);
    }
    return block->steps;
}

int32_t gle_run(gle_chip *chip, const gle_block *block, gle_adam *adam, const volatile int32_t *stop)
{
    crew *const c = crew_begin(chip, block->threads);
    const int32_t done = steps_of(chip, block, adam, stop);

    crew_end(c, chip);
    return done;
}

const struct gle_kernels *gle_kernels_named(const char *name)
{
#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)
    const int avx512 = __builtin_cpu_supports("avx512vnni") &&
                       __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");

    if ((name == NULL || strcmp(name, "amx") == 0) && avx512 && gle_amx_granted()) {
        return &gle_kernels_amx;
    }
    if ((name == NULL || strcmp(name, "vnni") == 0) && avx512) {
        return &gle_kernels_vnni;
    }
    if ((name == NULL || strcmp(name, "avx2") == 0) && __builtin_cpu_supports("avx2")) {
        return &gle_kernels_avx2;
    }
#elif defined(__aarch64__) && !defined(GLE_SCALAR_ONLY)
    if (name == NULL || strcmp(name, "neon") == 0) {
        return &gle_kernels_neon; /* every aarch64 has it */
    }
#endif
    if (name == NULL || strcmp(name, "scalar") == 0) {
        return &gle_kernels_scalar;
    }
    return NULL;
}

const char *gle_kernels_name(const struct gle_kernels *kernels) { return kernels->name; }
