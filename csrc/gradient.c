/* The gradient: dW = e below^T, summed over the batch as an exact integer and rounded once
 * into an int32 (with up to GLE_EXACT streams nothing is dropped at all); its read-out, and
 * its sum over steps for a host. */
#include "learner.h"
#include "topology.h"

enum { ROWS = 4 };

/* By itself, so that a compiler sees factors of 16 bits and no aliases: it has vectors for that. */
static void outer_row(int32_t *restrict to, const int16_t *restrict below, int32_t m, int16_t e)
{
    for (int32_t j = 0; j < m; j++) {
        to[j] = (int32_t)e * below[j];
    }
}

void gle_outer_rows(const gle_chip *chip, const gle_layer *layer, int32_t first, int32_t rows,
                    const int16_t *below, int32_t *to)
{
    const int32_t columns = chip->columns;
    const int16_t *e = layer->e + (size_t)first * (size_t)columns;

    if (columns == 1) {
        for (int32_t i = 0; i < rows; i++) {
            outer_row(to + (size_t)i * (size_t)layer->stride, below, layer->m, e[i]);
        }
        return;
    }
    chip->kernels->outer(to, e, rows, chip->turned, layer->stride, layer->m, columns,
                         gle_gradient_shift(chip->batch));
}

int32_t gle_error_sum(const gle_chip *chip, const gle_layer *layer, int32_t i)
{
    const int16_t *e = layer->e + (size_t)i * (size_t)chip->columns;
    int32_t sum = 0;

    for (int32_t b = 0; b < chip->batch; b++) {
        sum += e[b];
    }
    return sum;
}

void gle_layer_gradient(gle_chip *chip, gle_layer *layer, const int16_t *below,
                        int32_t below_frac)
{
    /* noted here: auto-ranging may move the scales before anybody reads */
    layer->gradient_frac = layer->e_frac + below_frac - gle_gradient_shift(chip->batch);
    layer->gradient_bias_frac = layer->e_frac;
    gle_outer_rows(chip, layer, 0, layer->n, below, layer->gradient);
    for (int32_t i = 0; i < layer->n; i++) {
        layer->gradient_bias[i] = gle_error_sum(chip, layer, i);
    }
}

/* Dropped bits of an accumulated bias: 2^drop sums of 14-bit errors fit int32. */
static int32_t bias_drop(int32_t batch, int32_t drop)
{
    int32_t spare = 18;

    while (spare > 0 && (batch - 1) >> (18 - spare) > 0) {
        spare--;
    }
    return drop > spare ? drop - spare : 0;
}

gle_status gle_gradient_clear(gle_chip *chip, int32_t drop)
{
    if ((chip->options & GLE_WITH_GRADIENT) == 0 || drop < 0 || drop > 31) {
        return GLE_BAD_ARGUMENT;
    }
    for (int32_t l = 0; l < chip->layers; l++) {
        gle_layer *layer = &chip->layer[l];
        const int32_t below_frac = gle_heard_frac(chip, layer);
        const size_t count = (size_t)layer->n * (size_t)layer->stride;
        for (size_t k = 0; k < count; k++) {
            layer->gradient[k] = 0;
        }
        for (int32_t i = 0; i < layer->n; i++) {
            layer->gradient_bias[i] = 0;
        }
        for (int32_t i = 0; i < layer->n && layer->gradient_tau != NULL; i++) {
            layer->gradient_tau[i] = 0;
        }
        layer->gradient_frac =
            layer->e_frac + below_frac - gle_gradient_shift(chip->batch) - drop;
        layer->gradient_bias_frac = layer->e_frac - bias_drop(chip->batch, drop);
    }
    return GLE_OK;
}

uint32_t gle_accumulate(int32_t *sum, int64_t x, int32_t shift)
{
    const int64_t beyond = INT64_C(1) << 40; /* clips whatever it is added to */
    int64_t y;

    if (shift >= 0) {
        y = gle_round64(x, shift);
    } else if (x > beyond >> (shift < -40 ? 40 : -shift)) {
        y = beyond;
    } else if (-x > beyond >> (shift < -40 ? 40 : -shift)) {
        y = -beyond;
    } else {
        y = x == 0 ? 0 : gle_round64(x, shift);
    }
    y += *sum;
    *sum = gle_clamp64(y, INT32_MAX);
    return y != *sum;
}

/* Whether a kernel's one rounding can be that of the accumulators. */
static int kernel_rounds(const gle_chip *chip, int32_t shift)
{
    return chip->columns > GLE_EXACT && shift >= gle_gradient_shift(chip->batch) && shift <= 16;
}

/* Where no kernel can: sums of many streams in a format finer than its own. */
static uint32_t add_row_exactly(const gle_chip *chip, gle_layer *layer, int32_t i,
                                const int16_t *below, int32_t shift)
{
    const size_t columns = (size_t)chip->columns;
    const int16_t *e = layer->e + (size_t)i * columns;
    int32_t *sum = layer->gradient + (size_t)i * (size_t)layer->stride;
    uint32_t clipped = 0;

    for (int32_t j = 0; j < layer->m; j++) {
        int64_t exact = 0;
        for (int32_t b = 0; b < chip->batch; b++) {
            exact += (int32_t)e[b] * below[(size_t)j * columns + (size_t)b];
        }
        clipped += gle_accumulate(&sum[j], exact, shift);
    }
    return clipped;
}

void gle_layer_gradient_add(gle_chip *chip, gle_layer *layer, const int16_t *below,
                            int32_t below_frac)
{
    const int32_t shift = layer->e_frac + below_frac - layer->gradient_frac;
    const int32_t shift_bias = layer->e_frac - layer->gradient_bias_frac;
    const int32_t by_kernel = kernel_rounds(chip, shift);
    uint32_t clipped = 0;

    for (int32_t i = 0; i < layer->n; i += ROWS) {
        const int32_t rows = layer->n - i < ROWS ? layer->n - i : ROWS;
        if (by_kernel) {
            chip->kernels->outer(chip->rows, layer->e + (size_t)i * (size_t)chip->columns, rows,
                                 chip->turned, layer->stride, layer->m, chip->columns, shift);
        } else if (chip->columns <= GLE_EXACT) {
            gle_outer_rows(chip, layer, i, rows, below, chip->rows); /* drops nothing */
        }
        for (int32_t r = 0; r < rows; r++) {
            const size_t stride = (size_t)layer->stride;
            const int32_t *const from = chip->rows + (size_t)r * stride;
            int32_t *const sum = layer->gradient + (size_t)(i + r) * stride;
            if (!by_kernel && chip->columns > GLE_EXACT) {
                clipped += add_row_exactly(chip, layer, i + r, below, shift);
                continue;
            }
            for (int32_t j = 0; j < layer->m; j++) {
                clipped += gle_accumulate(&sum[j], from[j], by_kernel ? 0 : shift);
            }
        }
    }
    for (int32_t i = 0; i < layer->n; i++) {
        clipped += gle_accumulate(&layer->gradient_bias[i], gle_error_sum(chip, layer, i),
                                  shift_bias);
    }
    layer->counters.sat_gradient += clipped;
}
