/* Adam on the host, chip in the loop: read the gradient, keep float32 weights, write
 * them back as the array can hold them. Adam at every time step, as in the paper. */
#include <math.h>
#include <string.h>

#include "../topology.h"
#include "crew.h"
#include "loop.h"

enum {
    WEIGHT = 1 << 7, /* multiply-accumulates that take as long as a weight here */
    TOGETHER = 1024  /* weights */
};

int64_t gle_adam_size(const gle_chip *chip)
{
    int64_t size = 0;

    for (int32_t l = 0; l < chip->layers; l++) {
        const int32_t learn = chip->layer[l].image->learn;
        if ((learn & GLE_LEARNS_WEIGHTS) != 0) {
            size += (int64_t)chip->layer[l].n * (chip->layer[l].m + 1);
        }
        if ((learn & GLE_LEARNS_TAU) != 0) {
            size += chip->layer[l].n;
        }
    }
    return size;
}

/* Elementwise IEEE float32 without contraction: compiled for wider vectors the bits stay. */
#define GLE_TARGET
#define GLE_ADAM(name) name##_plain
#include "adam.inc"
#undef GLE_TARGET
#undef GLE_ADAM
#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)
#define GLE_TARGET __attribute__((target("avx2")))
#define GLE_ADAM(name) name##_avx2
#include "adam.inc"
#endif

typedef struct {
    void (*values)(float *w, float *m, float *v, const int32_t *gradient, int32_t count,
                   float scale, float rate, float root_correction, float limit,
                   const gle_adam *adam);
    int32_t (*store)(int16_t *to, const float *w, int32_t count, float scale, int32_t limit,
                     int32_t shift);
} adam_loops;

static adam_loops loops_of_this_machine(void)
{
#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)
    if (__builtin_cpu_supports("avx2")) {
        return (adam_loops){values_avx2, store_avx2};
    }
#endif
    return (adam_loops){values_plain, store_plain};
}

/* The update that `values` has just given to a row of weights, for their feedback. */
static void follow(float *back, const float *m, const float *v, int32_t count, float rate,
                   float root_correction, float limit, float epsilon)
{
    for (int32_t j = 0; j < count; j++) {
        float next = back[j] + rate * m[j] / (sqrtf(v[j]) * root_correction + epsilon);
        next = next > limit ? limit : next;
        back[j] = next < -limit ? -limit : next;
    }
}

/* A multiplier of 15 significant bits, as hwgle/packing.py makes it. */
static gle_coef coefficient(float value)
{
    int exponent, shift, mantissa;

    value = value < 8192.0f ? value : 8192.0f;
    (void)frexpf(value, &exponent);
    shift = 15 - exponent < 31 ? 15 - exponent : 31;
    mantissa = (int)rintf(ldexpf(value, shift));
    if (mantissa > 32767) {
        mantissa >>= 1;
        shift--;
    }
    return (gle_coef)mantissa << 8 | (gle_coef)shift;
}

/* Where a layer's parameters begin. */
typedef struct {
    float *w, *m, *v, *back;
    int32_t times; /* index of its first tau_m among those that are learned */
} place;

static void passed(place *at, int32_t count)
{
    at->w += count;
    at->m += count;
    at->v += count;
}

/* A layer's weights and what they learn with, from its first row on. */
typedef struct {
    gle_layer *layer;
    const adam_loops *loops;
    const gle_adam *adam;
    place at;
    float scale, rate, root, limit, seen;
    int32_t most; /* that is stored, as the array sees it */
    int32_t clipped[CREW_MOST];
} weights_job;

/* Adam's arrays hold a layer's rows without gaps, the chip pads them: short rows are learned many
 * at a time, so that vectors have one tail in a thousand weights and not one in a row. */
static void gather(int32_t *to, const gle_layer *layer, int32_t i, int32_t rows)
{
    const int32_t *const from = layer->gradient + (size_t)i * (size_t)layer->stride;

    for (int32_t r = 0; r < rows; r++) {
        memcpy(to + r * layer->m, from + (size_t)r * (size_t)layer->stride,
               (size_t)layer->m * sizeof *to);
    }
}

/* Rows from i on, of one scale, as they are stored; how many clipped. */
static int32_t kept(int16_t *to, const weights_job *y, const float *w, int32_t stride, int32_t rows,
                    float scale)
{
    const int32_t m = y->layer->m, shift = y->layer->image->w_shift;
    int16_t close[TOGETHER];
    int32_t clipped;

    if (rows == 1) {
        return y->loops->store(to, w, m, scale, y->most, shift);
    }
    clipped = y->loops->store(close, w, rows * m, scale, y->most, shift);
    for (int32_t r = 0; r < rows; r++) {
        memcpy(to + (size_t)r * (size_t)stride, close + r * m, (size_t)m * sizeof *to);
    }
    return clipped;
}

/* `rows` > 1 only where they are TOGETHER weights at most. */
static int32_t learn_rows(const weights_job *y, const place *at, int32_t i, int32_t rows)
{
    const gle_layer *const layer = y->layer;
    const int32_t m = layer->m, stride = layer->stride;
    int16_t *const to = layer->w + (size_t)i * (size_t)stride;
    const int32_t *gradient = layer->gradient + (size_t)i * (size_t)stride;
    int32_t close[TOGETHER], clipped = 0;

    if (rows > 1) {
        gather(close, layer, i, rows);
        gradient = close;
    }
    y->loops->values(at->w, at->m, at->v, gradient, rows * m, y->scale, y->rate, y->root,
                     y->limit, y->adam);
    if (layer->rows == NULL) {
        clipped += kept(to, y, at->w, stride, rows, y->seen);
    } else {
        for (int32_t r = 0; r < rows; r++) {
            clipped += kept(to + (size_t)r * (size_t)stride, y, at->w + r * m, stride, 1,
                            ldexpf(y->seen, (int32_t)layer->rows[i + r]));
        }
    }
    if (at->back != NULL) {
        follow(at->back, at->m, at->v, rows * m, y->rate, y->root, y->limit, y->adam->epsilon);
        clipped += kept(layer->back->w + (size_t)i * (size_t)layer->back->stride, y, at->back,
                        layer->back->stride, rows, y->seen);
    }
    return clipped;
}

static void weights_piece(void *what, int32_t part, int32_t parts)
{
    weights_job *const y = what;
    const gle_layer *const layer = y->layer;
    const int32_t first = crew_row(layer->n, part, parts), m = layer->m;
    const int32_t last = crew_row(layer->n, part + 1, parts);
    const int32_t most = m < TOGETHER ? TOGETHER / m : 1;
    const size_t before = (size_t)first * (size_t)m;
    const int follows = y->at.back != NULL && layer->back != NULL;
    place at = {y->at.w + before, y->at.m + before, y->at.v + before,
                follows ? y->at.back + before : NULL, 0};
    int32_t clipped = 0, rows;

    for (int32_t i = first; i < last; i += rows) {
        rows = last - i < most ? last - i : most;
        clipped += learn_rows(y, &at, i, rows);
        passed(&at, rows * m);
        at.back = follows ? at.back + rows * m : NULL;
    }
    y->clipped[part] = clipped;
}

static void learn_weights(gle_chip *chip, int32_t l, const adam_loops *loops, float rate,
                          float root, gle_adam *adam, place *at)
{
    gle_layer *layer = &chip->layer[l];
    const int32_t shift = layer->image->w_shift;
    weights_job y = {layer, loops, adam, *at, 0, rate, root, INFINITY, 0, 0, {0}};
    float scale_bias, unit;
    int32_t clipped = 0;
    gle_formats f;

    gle_formats_of(chip, l, &f);
    y.scale = ldexpf(1.0f, -f.gradient_frac) / (float)chip->batch;
    y.limit = adam->weight_limit == NULL ? INFINITY : adam->weight_limit[l];
    y.seen = ldexpf(1.0f, layer->w_frac - shift);
    y.most = layer->image->w_max >> shift;
    scale_bias = ldexpf(1.0f, -f.gradient_bias_frac) / (float)chip->batch;
    unit = ldexpf(1.0f, f.u_frac);
    crew_share((int64_t)layer->n * layer->m * WEIGHT, weights_piece, &y);
    for (int32_t k = 0; k < CREW_MOST; k++) {
        clipped += y.clipped[k];
    }
    if (at->back != NULL && layer->back != NULL) {
        layer->back->stale = 1;
        at->back += layer->n * layer->m;
    }
    passed(at, layer->n * layer->m);
    layer->window.sat_w += (uint32_t)clipped;
    layer->counters.sat_w += (uint32_t)clipped;
    adam->clipped += (uint32_t)clipped;
    if ((layer->image->learn & GLE_HOLDS_BIAS) == 0) {
        loops->values(at->w, at->m, at->v, layer->gradient_bias, layer->n, scale_bias, rate, root,
                      INFINITY, adam);
        for (int32_t i = 0; i < layer->n; i++) {
            const float x = floorf(at->w[i] * unit + 0.5f);
            layer->bias[i] = gle_clamp64((int64_t)x, GLE_STATE_MAX);
        }
    }
    passed(at, layer->n);
    layer->stale = 1;
    gle_absent_weights(layer);
}

/* tau_m of a layer, and the multipliers that follow from it. */
static void learn_times(gle_chip *chip, int32_t l, const adam_loops *loops, float rate,
                        float root, const gle_adam *adam, place *at)
{
    const gle_layer *layer = &chip->layer[l];
    const int32_t frac = layer->gradient_bias_frac + layer->u_frac - GLE_TAU_DROP;
    const float scale = ldexpf(-1.0f, -frac) / ((float)chip->batch * adam->dt);

    loops->values(at->w, at->m, at->v, layer->gradient_tau, layer->n, scale, rate, root,
                  INFINITY, adam);
    for (int32_t i = 0; i < layer->n; i++) {
        const float least = adam->tau_least[at->times + i], most = adam->tau_most[at->times + i];
        const float tau_r = adam->tau_r[at->times + i];
        gle_neuron y = layer->times[i];
        float tau = at->w[i];
        tau = tau < least ? least : tau;
        tau = tau > most ? most : tau;
        at->w[i] = tau;
        y.leak_u = coefficient(adam->dt / tau);
        y.ratio_u = coefficient(tau_r / tau);
        y.ratio_v = coefficient(tau / tau_r);
        (void)gle_times_write(chip, l, i, 1, &y);
    }
    at->times += layer->n;
    passed(at, layer->n);
}

void gle_adam_step(gle_chip *chip, gle_adam *adam)
{
    const adam_loops loops = loops_of_this_machine();
    place at = {adam->weight, adam->m, adam->v, adam->feedback, 0};
    float rate, root;

    adam->beta1_power *= (double)adam->beta1;
    adam->beta2_power *= (double)adam->beta2;
    rate = (float)((double)adam->rate / (1.0 - adam->beta1_power));
    root = (float)(1.0 / sqrt(1.0 - adam->beta2_power));
    for (int32_t l = 0; l < chip->layers; l++) {
        const int32_t learn = chip->layer[l].image->learn;
        const float own = adam->layer_rate == NULL ? rate : rate * adam->layer_rate[l];
        if ((learn & GLE_LEARNS_WEIGHTS) != 0) {
            learn_weights(chip, l, &loops, own, root, adam, &at);
        }
        if ((learn & GLE_LEARNS_TAU) != 0) {
            learn_times(chip, l, &loops, own * adam->tau_rate, root, adam, &at);
        }
    }
}
