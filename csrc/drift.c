/* Stored weights relax towards 0, as charges and conductances do: every so many steps each
 * loses 2^-shift of itself, rounded at random so that small ones drift as well. */
#include "analog.h"
#include "topology.h"

void gle_relax(int16_t *w, int32_t n, int32_t m, int32_t stride, int32_t shift, gle_key key)
{
    uint32_t index = 0;

    for (int32_t i = 0; i < n; i++, w += stride) {
        for (int32_t j = 0; j < m; j++, index++) {
            const int32_t random = (int32_t)(gle_rng(key, index) >> (32 - shift));
            w[j] = (int16_t)(w[j] - ((w[j] + random) >> shift));
        }
    }
}

void gle_drift(gle_chip *chip)
{
    const int32_t shift = chip->image->drift_shift;

    for (int32_t l = 0; l < chip->layers; l++) {
        gle_layer *y = &chip->layer[l];
        const uint32_t where = (uint32_t)y->first;
        gle_relax(y->w, y->n, y->m, y->stride, shift,
                  gle_rng_key(chip->seed, GLE_RNG_DRIFT, where, chip->step));
        y->stale = 1;
        if (y->back != NULL) {
            gle_relax(y->back->w, y->back->n, y->back->m, y->back->stride, shift,
                      gle_rng_key(chip->seed, GLE_RNG_FEEDBACK_DRIFT, where, chip->step));
            y->back->stale = 1;
        }
    }
}
