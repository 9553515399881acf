/* Kolen-Pollack on the chip: feedback weights learn by the local product that the weights
 * themselves learn by, e below^T, with a rounding of their own, and both decay. The
 * difference of the two, which is what they began with, decays with them.
 */
#include "analog.h"
#include "learner.h"
#include "topology.h"

enum { ROWS = 4 };

static int learns(const gle_chip *chip)
{
    return chip->feedback != NULL && chip->feedback->kind == GLE_KOLEN_POLLACK;
}

void gle_feedback_learn(gle_chip *chip, gle_layer *layer, const int16_t *below,
                        int32_t below_frac, int32_t rate)
{
    const uint32_t where = (uint32_t)layer->first;
    const int32_t shift = layer->e_frac + below_frac - gle_gradient_shift(chip->batch) + rate -
                          layer->w_frac;
    const gle_update how = {
        layer->image->w_max,
        chip->image->update_max,
        chip->image->stochastic,
        gle_rng_key(chip->seed, GLE_RNG_FEEDBACK_UPDATE, where, chip->step),
        gle_rng_key(chip->seed, GLE_RNG_FEEDBACK_NOISE, where, chip->step),
        gle_noise_of(chip->image->update_noise),
    };
    gle_layer *const back = layer->back;
    gle_update_count count = {0, 0, 0};

    if (!learns(chip) || back == NULL) {
        return;
    }
    for (int32_t i = 0; i < layer->n; i += ROWS) {
        const int32_t rows = layer->n - i < ROWS ? layer->n - i : ROWS;
        gle_outer_rows(chip, layer, i, rows, below, chip->rows);
        gle_absent_sums(layer, i, rows, chip->rows);
        gle_vary_rows(chip, layer, i, rows, chip->rows, &how);
        for (int32_t r = 0; r < rows; r++) {
            int32_t *const sums = chip->rows + (size_t)r * (size_t)layer->stride;
            chip->kernels->update(back->w + (size_t)(i + r) * (size_t)back->stride, sums,
                                  layer->m, &how, shift,
                                  (uint32_t)(i + r) * gle_rng_roots(layer->m), &count);
        }
    }
    layer->counters.updates += count.asked;
    layer->counters.under_w += count.under;
    layer->counters.sat_w += count.clipped;
    layer->window.sat_w += count.clipped;
    back->stale = 1;
}

void gle_feedback_decay(gle_chip *chip)
{
    const gle_feedback *how = chip->feedback;

    if (!learns(chip) || how->decay_every == 0 ||
        (chip->step + 1) % (uint64_t)(uint32_t)how->decay_every != 0) {
        return;
    }
    for (int32_t l = 0; l < chip->layers; l++) {
        gle_layer *y = &chip->layer[l];
        const uint32_t where = (uint32_t)y->first;
        if ((y->image->learn & GLE_LEARNS_WEIGHTS) == 0) {
            continue;
        }
        gle_relax(y->w, y->n, y->m, y->stride, how->decay_shift,
                  gle_rng_key(chip->seed, GLE_RNG_DECAY, where, chip->step));
        y->stale = 1;
        if (y->back != NULL) {
            gle_relax(y->back->w, y->back->n, y->back->m, y->back->stride, how->decay_shift,
                      gle_rng_key(chip->seed, GLE_RNG_FEEDBACK_DECAY, where, chip->step));
            y->back->stale = 1;
        }
    }
}
