/* Host side of the emulator: many steps a call, records, and Adam.
 *
 * Not part of the chip: this is what a PC beside a chip would do, in C for speed. It is
 * the only place with floating point; -ffp-contract=off and a fixed order keep its
 * results the same on every machine with IEEE arithmetic.
 */
#ifndef GLE_HOST_LOOP_H
#define GLE_HOST_LOOP_H

#include "../gle.h"

/* One block of steps. Arrays are C-contiguous, time first. */
typedef struct {
    int32_t steps;
    uint32_t flags;           /* of gle_step */
    const int16_t *input;     /* [steps][batch][inputs] */
    const int16_t *target;    /* NULL, or what gle_step takes */
    int32_t target_stride;    /* numbers from one step's target to the next; 0: held */
    int32_t records;
    const int32_t *record_layer, *record_signal; /* [records] */
    int32_t *const *record_to;                   /* [records] of [steps][batch][n] */
    int8_t *fracs;            /* NULL or [steps][layers][2]: r_frac, e_frac */
    int64_t *votes;           /* NULL or [batch][outputs]: sums of r of the output layer */
    int32_t threads;          /* of the kernels, see crew.h; 0 and 1: the one that asks */
} gle_block;

/* Adam, Kingma and Ba, arXiv 1412.6980, algorithm 1, as ascent. All arrays are one
 * after another for all layers: weights row by row, then biases, of those that learn
 * weights; then tau_m of those that learn it. */
typedef struct {
    float *weight, *m, *v;
    double beta1_power, beta2_power; /* of the steps done so far */
    float rate, beta1, beta2, epsilon;
    const float *layer_rate;         /* NULL, or a factor on the rate for each layer */
    const float *weight_limit;       /* NULL, or the largest size of a weight of each layer */
    float *feedback;                 /* Kolen-Pollack: feedback weights of all learning layers that
                                        have some, which get the weights' updates; else NULL */
    uint64_t clipped;                /* weights that did not fit their format */
    /* of layers that learn tau_m, in the same order, in the network's unit of time */
    const float *tau_r, *tau_least, *tau_most;
    float dt, tau_rate;              /* tau_rate: factor on the rate */
} gle_adam;

int64_t gle_adam_size(const gle_chip *chip);
/* After a step that read the gradient. */
void gle_adam_step(gle_chip *chip, gle_adam *adam);

/* Returns the number of steps done; stops before the next step when *stop is not 0. */
int32_t gle_run(gle_chip *chip, const gle_block *block, gle_adam *adam, const volatile int32_t *stop);

/* The table for a name (scalar, avx2, vnni, amx, neon), for NULL the fastest of this machine; NULL
 * if not to be had. */
const struct gle_kernels *gle_kernels_named(const char *name);
const char *gle_kernels_name(const struct gle_kernels *kernels);

#endif
