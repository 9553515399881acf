/* Plain SGD: stored += round(gradient * 2^-k), stochastic or to nearest, where 2^-k holds the
 * learning rate, the mean over the batch and the scales. A power of two is what a plasticity
 * circuit can shift by.
 *
 * Without momentum or accumulation nothing is kept beside the weights. */
#include "learner.h"
#include "single.h"
#include "topology.h"

enum { ROWS = 4 };

static void learn_one_stream(const gle_chip *chip, gle_layer *layer, const int16_t *below,
                             const gle_update *how, int32_t shift, gle_update_count *count)
{
#ifdef GLE_LEARN_LAYER
    GLE_LEARN_LAYER(layer, below, how, shift, chip->rows, count);
#else
    for (int32_t i = 0; i < layer->n; i++) {
        chip->kernels->learn_one(layer->w + (size_t)i * (size_t)layer->stride, layer->e[i], below,
                                 layer->m, how,
                                 shift - (layer->rows ? (int32_t)layer->rows[i] : 0),
                                 (uint32_t)i * gle_rng_roots(layer->m), count);
    }
#endif
}

void gle_layer_sgd(gle_chip *chip, gle_layer *layer, const int16_t *below, int32_t below_frac,
                   const gle_lesson *lesson)
{
    const int32_t stochastic = chip->image->stochastic;
    const int32_t rate = gle_rate_of(layer, lesson);
    const int32_t shift =
        layer->e_frac + below_frac - gle_gradient_shift(chip->batch) + rate - layer->w_frac;
    const int32_t shift_bias = layer->e_frac + rate - layer->u_frac;
    const gle_key key_bias =
        gle_rng_key(chip->seed, GLE_RNG_BIAS_UPDATE, (uint32_t)layer->first, chip->step);
    const gle_update how = gle_update_of(chip, layer, chip->step);
    /* whole rows and layers at once know of no synapse that is absent; nor does a row of one
     * stream of updates that vary */
    const int whole = layer->mask == NULL;
    const int one = chip->columns == 1 && whole && how.noise.m == 0;
    const gle_learning all = {&how, below, chip->turned, chip->columns, chip->batch,
                              gle_gradient_shift(chip->batch), shift, chip->rows, 0};
    gle_update_count count = {0, 0, 0};
    const int32_t stale = layer->stale;
    const int at_once =
        whole && chip->kernels->learn != NULL && chip->kernels->learn(layer, &all, &count);

    if (one && !at_once) {
        learn_one_stream(chip, layer, below, &how, shift, &count);
    }
    for (int32_t i = 0; i < layer->n && !one && !at_once; i += ROWS) {
        const int32_t rows = layer->n - i < ROWS ? layer->n - i : ROWS;
        gle_outer_rows(chip, layer, i, rows, below, chip->rows);
        gle_absent_sums(layer, i, rows, chip->rows); /* asks for nothing, counts for nothing */
        gle_vary_rows(chip, layer, i, rows, chip->rows, &how);
        for (int32_t r = 0; r < rows; r++) {
            gle_update_row(chip, layer, i + r, chip->rows + (size_t)r * (size_t)layer->stride,
                           &how, shift, &count);
        }
    }
    gle_count_updates(layer, &count);
#ifdef GLE_LEARN_LAYER
    if (one && !at_once) {
        layer->stale = stale | GLE_TOPS_HOLD;
    }
#else
    (void)stale;
#endif
    if ((layer->image->learn & GLE_HOLDS_BIAS) != 0 ||
        (at_once && stochastic && chip->kernels->learn_biases != NULL &&
         chip->kernels->learn_biases(layer, all.sums, shift_bias, key_bias))) {
        return;
    }
    for (int32_t i = 0; i < layer->n; i++) {
        gle_update_bias(layer, i, at_once ? all.sums[i] : gle_error_sum(chip, layer, i),
                        shift_bias, stochastic, key_bias);
    }
}

uint32_t gle_sgd_row(int32_t *row, int32_t *memory, uint8_t *norm, int32_t m,
                     const gle_recall *how, uint32_t first)
{
    uint32_t clipped = 0;

    (void)norm;
    (void)first;
    for (int32_t j = 0; j < m; j++) {
        const int32_t a = gle_remember(&memory[j], row[j], how->drop, &clipped);
        row[j] = a;
        memory[j] = gle_decayed(a, how->momentum);
    }
    return clipped;
}
