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

void gle_adam_step(gle_chip *chip, gle_adam *adam);

/* Values of a run of weights; plain elementwise float32, so that vectorising cannot
 * change a bit. `scale` turns the integer gradient into the mean over the batch. */
static void values(float *restrict w, float *restrict m, float *restrict v,
                   const int32_t *restrict gradient, int32_t count, float scale, float rate,
                   float root_correction, const gle_adam *adam)
{
    const float beta1 = adam->beta1, beta2 = adam->beta2, epsilon = adam->epsilon;

    for (int32_t k = 0; k < count; k++) {
        const float g = (float)gradient[k] * scale;
        const float mk = beta1 * m[k] + (1.0f - beta1) * g;
        const float vk = beta2 * v[k] + (1.0f - beta2) * (g * g);
        m[k] = mk;
        v[k] = vk;
        w[k] += rate * mk / (sqrtf(vk) * root_correction + epsilon);
    }
}

/* Nearest value that the array can tell apart (ties up), as it is stored. */
static uint64_t store(gle_layer *layer, int32_t i, const float *restrict w)
{
    int16_t *restrict to = layer->w + (size_t)i * (size_t)layer->stride;
    const int32_t shift = layer->image->w_shift;
    const float scale = ldexpf(1.0f, layer->w_frac - shift);
    const float limit = (float)(layer->image->w_max >> shift);
    int32_t clipped = 0;

    for (int32_t j = 0; j < layer->m; j++) {
        float x = floorf(w[j] * scale + 0.5f);
        clipped += x > limit || x < -limit;
        x = x > limit ? limit : x;
        x = x < -limit ? -limit : x;
        to[j] = (int16_t)((int32_t)x * (1 << shift));
    }
    layer->window.sat_w += (uint32_t)clipped;
    layer->counters.sat_w += (uint32_t)clipped;
    return (uint64_t)clipped;
}

void gle_adam_step(gle_chip *chip, gle_adam *adam)
{
    float *w = adam->weight, *m = adam->m, *v = adam->v;
    float rate, root;

    adam->beta1_power *= (double)adam->beta1;
    adam->beta2_power *= (double)adam->beta2;
    rate = (float)((double)adam->rate / (1.0 - adam->beta1_power));
    root = (float)(1.0 / sqrt(1.0 - adam->beta2_power));
    for (int32_t l = 0; l < chip->layers; l++) {
        gle_layer *layer = &chip->layer[l];
        gle_formats f;
        float scale, scale_bias, unit;
        if (!layer->image->learn) {
            continue;
        }
        gle_formats_of(chip, l, &f);
        scale = ldexpf(1.0f, -f.grad_frac) / (float)chip->batch;
        scale_bias = ldexpf(1.0f, -f.e_frac) / (float)chip->batch;
        unit = ldexpf(1.0f, f.u_frac);
        for (int32_t i = 0; i < layer->n; i++) {
            values(w, m, v, layer->gradient + (size_t)i * (size_t)layer->stride, layer->m, scale,
                   rate, root, adam);
            adam->clipped += store(layer, i, w);
            w += layer->m;
            m += layer->m;
            v += layer->m;
        }
        values(w, m, v, layer->gradient_bias, layer->n, scale_bias, rate, root, adam);
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
