/* What learns: the gradient read-out and plain SGD on the chip.
 *
 * dW = e below^T, summed over the batch as an exact integer and rounded once into an
 * int32 (with up to GLE_EXACT streams nothing is dropped at all).
 *
 * SGD on the chip: stored += round(gradient * 2^-k), stochastic or to nearest, where
 * 2^-k holds the learning rate, the mean over the batch and the scales. A power of
 * two is what a plasticity circuit can shift by.
 */
#include "chip.h"

enum { ROWS = 4 };

/* x * 2^-k for biases; what update.inc does for weights. */
static int32_t rounded(int32_t x, int32_t k, int32_t stochastic, gle_key key, uint32_t index)
{
    if (k <= 0) {
        return gle_clamp64(gle_round64(x, k < -31 ? -31 : k), INT32_MAX);
    }
    if (!stochastic) {
        return k > 31 ? 0 : (int32_t)gle_round64(x, k);
    }
    if (k > 31) {
        x >>= k - 31 > 31 ? 31 : k - 31;
        k = 31;
    }
    return (int32_t)(((int64_t)x + (int64_t)(gle_rng(key, index) >> (32 - k))) >> k);
}

static void outer_rows(const gle_chip *chip, const gle_layer *layer, int32_t first, int32_t rows,
                       const int16_t *below, int32_t *to)
{
    const int32_t columns = chip->columns;
    const int16_t *e = layer->e + (size_t)first * (size_t)columns;

    if (columns == 1) {
        for (int32_t i = 0; i < rows; i++) {
            for (int32_t j = 0; j < layer->m; j++) {
                to[(size_t)i * (size_t)layer->stride + (size_t)j] = (int32_t)e[i] * below[j];
            }
        }
        return;
    }
    chip->kernels->outer(to, e, rows, chip->turned, layer->stride, layer->m, columns,
                         gle_gradient_shift(chip->batch));
}

static int32_t error_sum(const gle_chip *chip, const gle_layer *layer, int32_t i)
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
    outer_rows(chip, layer, 0, layer->n, below, layer->gradient);
    for (int32_t i = 0; i < layer->n; i++) {
        layer->gradient_bias[i] = error_sum(chip, layer, i);
    }
}

void gle_layer_sgd(gle_chip *chip, gle_layer *layer, const int16_t *below, int32_t below_frac)
{
    const int32_t stochastic = chip->image->stochastic;
    const int32_t rate = layer->rate_shift;
    const int32_t shift =
        layer->e_frac + below_frac - gle_gradient_shift(chip->batch) + rate - layer->w_frac;
    const int32_t shift_bias = layer->e_frac + rate - layer->u_frac;
    const uint32_t where = (uint32_t)layer->first;
    const gle_key key = gle_rng_key(chip->seed, GLE_RNG_WEIGHT_UPDATE, where, chip->step);
    const gle_key key_bias = gle_rng_key(chip->seed, GLE_RNG_BIAS_UPDATE, where, chip->step);

    gle_update_count count = {0, 0, 0};

    for (int32_t i = 0; i < layer->n; i += ROWS) {
        const int32_t rows = layer->n - i < ROWS ? layer->n - i : ROWS;
        outer_rows(chip, layer, i, rows, below, chip->rows);
        for (int32_t r = 0; r < rows; r++) {
            const uint32_t first = (uint32_t)(i + r) * (uint32_t)layer->m;
            chip->kernels->update(layer->w + (size_t)(i + r) * (size_t)layer->stride,
                                  chip->rows + (size_t)r * (size_t)layer->stride, layer->m, shift,
                                  layer->image->w_max, stochastic, key, first, &count);
        }
    }
    for (int32_t i = 0; i < layer->n; i++) {
        const int32_t delta =
            rounded(error_sum(chip, layer, i), shift_bias, stochastic, key_bias, (uint32_t)i);
        layer->bias[i] = gle_clamp64((int64_t)layer->bias[i] + delta, GLE_STATE_MAX);
    }
    layer->counters.updates += count.asked;
    layer->counters.under_w += count.under;
    layer->counters.sat_w += count.clipped;
    layer->window.sat_w += count.clipped;
    layer->stale = 1;
}
