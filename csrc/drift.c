/* Stored weights relax towards 0, as charges and conductances do: every so many steps each
 * loses 2^-shift of itself, rounded at random so that small ones drift as well. */
#include "analog.h"
#include "chip.h"

void gle_drift(gle_chip *chip)
{
    const int32_t shift = chip->image->drift_shift;

    for (int32_t l = 0; l < chip->layers; l++) {
        gle_layer *layer = &chip->layer[l];
        const gle_key key =
            gle_rng_key(chip->seed, GLE_RNG_DRIFT, (uint32_t)layer->first, chip->step);
        uint32_t index = 0;
        for (int32_t i = 0; i < layer->n; i++) {
            int16_t *w = layer->w + (size_t)i * (size_t)layer->stride;
            for (int32_t j = 0; j < layer->m; j++, index++) {
                const int32_t random = (int32_t)(gle_rng(key, index) >> (32 - shift));
                w[j] = (int16_t)(w[j] - ((w[j] + random) >> shift));
            }
        }
        layer->stale = 1;
    }
}
