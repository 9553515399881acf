/* Adam on the host, chip in the loop: read the gradient, keep float32 weights, write
 * them back as the array can hold them. Adam at every time step, as in the paper. */
#include <math.h>

#include "../chip.h"
#include "loop.h"

int64_t gle_adam_size(const gle_chip *chip)
{
    int64_t size = 0;

    for (int32_t l = 0; l < chip->layers; l++) {
        if (chip->layer[l].image->learn) {
            size += (int64_t)chip->layer[l].n * (chip->layer[l].m + 1);
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
                   float scale, float rate, float root_correction, const gle_adam *adam);
    int32_t (*store)(int16_t *to, const float *w, int32_t count, float scale, float limit,
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

void gle_adam_step(gle_chip *chip, gle_adam *adam)
{
    float *w = adam->weight, *m = adam->m, *v = adam->v;
    const adam_loops loops = loops_of_this_machine();
    float rate, root;

    adam->beta1_power *= (double)adam->beta1;
    adam->beta2_power *= (double)adam->beta2;
    rate = (float)((double)adam->rate / (1.0 - adam->beta1_power));
    root = (float)(1.0 / sqrt(1.0 - adam->beta2_power));
    for (int32_t l = 0; l < chip->layers; l++) {
        gle_layer *layer = &chip->layer[l];
        gle_formats f;
        const int32_t shift = layer->image->w_shift;
        const float layer_rate = adam->layer_rate == NULL ? rate : rate * adam->layer_rate[l];
        float scale, scale_bias, unit, seen;
        int32_t clipped = 0;
        if (!layer->image->learn) {
            continue;
        }
        gle_formats_of(chip, l, &f);
        scale = ldexpf(1.0f, -f.gradient_frac) / (float)chip->batch;
        scale_bias = ldexpf(1.0f, -f.gradient_bias_frac) / (float)chip->batch;
        unit = ldexpf(1.0f, f.u_frac);
        seen = ldexpf(1.0f, layer->w_frac - shift);
        for (int32_t i = 0; i < layer->n; i++) {
            const size_t row = (size_t)i * (size_t)layer->stride;
            const float fine = layer->rows ? ldexpf(seen, (int32_t)layer->rows[i]) : seen;
            loops.values(w, m, v, layer->gradient + row, layer->m, scale, layer_rate, root,
                         adam);
            clipped += loops.store(layer->w + row, w, layer->m, fine,
                                   (float)(layer->image->w_max >> shift), shift);
            w += layer->m;
            m += layer->m;
            v += layer->m;
        }
        layer->window.sat_w += (uint32_t)clipped;
        layer->counters.sat_w += (uint32_t)clipped;
        adam->clipped += (uint32_t)clipped;
        loops.values(w, m, v, layer->gradient_bias, layer->n, scale_bias, layer_rate, root,
                     adam);
        for (int32_t i = 0; i < layer->n; i++) {
            const float x = floorf(w[i] * unit + 0.5f);
            layer->bias[i] = gle_clamp64((int64_t)x, GLE_STATE_MAX);
        }
        w += layer->n;
        m += layer->n;
        v += layer->n;
        layer->stale = 1;
    }
}
