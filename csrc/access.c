/* Reading and writing what a chip holds: weights, gradients, signals, counters. */
#include "chip.h"

static int layer_bad(const gle_chip *chip, int32_t layer)
{
    return layer < 0 || layer >= chip->layers;
}

static int range_bad(int32_t first, int32_t count, int32_t have)
{
    return first < 0 || count < 0 || first > have || count > have - first;
}

gle_status gle_weights_write(gle_chip *chip, int32_t l, int32_t first, int32_t count,
                             const int16_t *from)
{
    gle_layer *y;

    if (layer_bad(chip, l)) {
        return GLE_BAD_ARGUMENT;
    }
    y = &chip->layer[l];
    if (range_bad(first, count, y->n * y->m)) {
        return GLE_BAD_ARGUMENT;
    }
    for (int32_t k = 0; k < count; k++) {
        const int32_t at = first + k;
        y->w[(size_t)(at / y->m) * (size_t)y->stride + (size_t)(at % y->m)] =
            (int16_t)gle_clamp(from[k], y->image->w_max);
    }
    y->stale = 1;
    return GLE_OK;
}

gle_status gle_weights_read(const gle_chip *chip, int32_t l, int32_t first, int32_t count,
                            int16_t *to)
{
    const gle_layer *y;

    if (layer_bad(chip, l)) {
        return GLE_BAD_ARGUMENT;
    }
    y = &chip->layer[l];
    if (range_bad(first, count, y->n * y->m)) {
        return GLE_BAD_ARGUMENT;
    }
    for (int32_t k = 0; k < count; k++) {
        const int32_t at = first + k;
        to[k] = y->w[(size_t)(at / y->m) * (size_t)y->stride + (size_t)(at % y->m)];
    }
    return GLE_OK;
}

gle_status gle_bias_write(gle_chip *chip, int32_t l, int32_t first, int32_t count,
                          const int32_t *from)
{
    if (layer_bad(chip, l) || range_bad(first, count, chip->layer[l].n)) {
        return GLE_BAD_ARGUMENT;
    }
    for (int32_t k = 0; k < count; k++) {
        chip->layer[l].bias[first + k] = gle_clamp(from[k], GLE_STATE_MAX);
    }
    return GLE_OK;
}

gle_status gle_bias_read(const gle_chip *chip, int32_t l, int32_t first, int32_t count,
                         int32_t *to)
{
    if (layer_bad(chip, l) || range_bad(first, count, chip->layer[l].n)) {
        return GLE_BAD_ARGUMENT;
    }
    for (int32_t k = 0; k < count; k++) {
        to[k] = chip->layer[l].bias[first + k];
    }
    return GLE_OK;
}

gle_status gle_gradient(const gle_chip *chip, int32_t l, int32_t *weight, int32_t *bias)
{
    const gle_layer *y;

    if (layer_bad(chip, l) || chip->layer[l].gradient == NULL) {
        return GLE_BAD_ARGUMENT;
    }
    y = &chip->layer[l];
    for (int32_t i = 0; i < y->n; i++) {
        for (int32_t j = 0; j < y->m; j++) {
            *weight++ = y->gradient[(size_t)i * (size_t)y->stride + (size_t)j];
        }
        bias[i] = y->gradient_bias[i];
    }
    return GLE_OK;
}

static int32_t signal_at(const gle_layer *y, int32_t signal, size_t at)
{
    switch (signal) {
    case GLE_SIGNAL_R:
        return y->r[at];
    case GLE_SIGNAL_U:
        return y->u[at];
    case GLE_SIGNAL_UHAT:
        return y->uhat[at];
    case GLE_SIGNAL_V:
        return y->v[at];
    default:
        return y->e[at];
    }
}

gle_status gle_read(const gle_chip *chip, int32_t l, int32_t signal, int32_t *to)
{
    const gle_layer *y;

    if (layer_bad(chip, l) || signal < 0 || signal >= GLE_SIGNAL_COUNT ||
        (signal == GLE_SIGNAL_UHAT && chip->layer[l].uhat == NULL)) {
        return GLE_BAD_ARGUMENT;
    }
    y = &chip->layer[l];
    for (int32_t b = 0; b < chip->batch; b++) {
        for (int32_t i = 0; i < y->n; i++) {
            *to++ = signal_at(y, signal, (size_t)i * (size_t)chip->columns + (size_t)b);
        }
    }
    return GLE_OK;
}

gle_status gle_set_rate(gle_chip *chip, int32_t shift)
{
    if (shift < -32 || shift > 64) {
        return GLE_BAD_ARGUMENT;
    }
    for (int32_t l = 0; l < chip->layers; l++) {
        chip->layer[l].rate_shift = shift;
    }
    return GLE_OK;
}

gle_status gle_formats_of(const gle_chip *chip, int32_t l, gle_formats *formats)
{
    const gle_layer *y;

    if (layer_bad(chip, l)) {
        return GLE_BAD_ARGUMENT;
    }
    y = &chip->layer[l];
    formats->w_frac = y->w_frac;
    formats->u_frac = y->u_frac;
    formats->r_frac = y->r_frac;
    formats->e_frac = y->e_frac;
    formats->v_frac = y->v_frac;
    formats->gradient_frac = y->gradient_frac;
    formats->gradient_bias_frac = y->gradient_bias_frac;
    return GLE_OK;
}

gle_status gle_counters_of(const gle_chip *chip, int32_t l, gle_counters *counters)
{
    if (layer_bad(chip, l)) {
        return GLE_BAD_ARGUMENT;
    }
    *counters = chip->layer[l].counters;
    return GLE_OK;
}

void gle_counters_clear(gle_chip *chip)
{
    static const gle_counters none = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};

    for (int32_t l = 0; l < chip->layers; l++) {
        chip->layer[l].counters = none;
    }
}
