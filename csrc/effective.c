/* From stored weights to what the array multiplies with, and the proof that sums fit.
 *
 * With several streams the core keeps two copies of the weights as the array sees
 * them, one of them transposed, made again only when stored weights changed. A single
 * stream has one where synapses differ and the machine has vectors (and memory).
 */
#include "chip.h"

enum { TURNED = 32 /* rows at a time */ };

static int32_t largest(const int32_t *x, int32_t count)
{
    int32_t most = 0;

    for (int32_t j = 0; j < count; j++) {
        most = x[j] > most ? x[j] : most;
    }
    return most;
}

void gle_layer_effective(gle_chip *chip, gle_layer *layer, int32_t below_max, int32_t e_max)
{
    const gle_seeing how = {layer->image->w_shift, layer->image->w_left};
    int32_t *const columns = chip->rows; /* sums of |w| over the neurons */
    int32_t most = 0, most_t;

    if (layer->stale != GLE_TOPS_HOLD && layer->tops != NULL) {
        for (int32_t i = 0; i < layer->n; i++) {
            layer->tops[i] = (uint16_t)layer->image->w_max; /* not known */
        }
    }
    layer->stale = 0;
    if (chip->columns == 1 && layer->seen == layer->w) {
        return; /* looked at as it goes */
    }
    for (int32_t j = 0; j < layer->stride; j++) {
        columns[j] = 0;
    }
    for (int32_t i = 0; i < layer->n; i++) {
        const int16_t *w = layer->w + (size_t)i * (size_t)layer->stride;
        int16_t *seen = layer->seen + (size_t)i * (size_t)layer->stride;
        const uint32_t *gains =
            layer->gains ? layer->gains + (size_t)i * (size_t)layer->gain_words : NULL;
        /* padding stays 0, and whole vectors are quicker than rows that end within one */
        const int32_t count = gains ? layer->m : layer->stride;
        const int32_t sum = chip->kernels->see(seen, w, count, &how, gains, columns);
        most = sum > most ? sum : most;
        if (chip->columns > 1 && ((i + 1) % TURNED == 0 || i + 1 == layer->n)) {
            /* while they are near */
            const int32_t first = i / TURNED * TURNED;
            chip->kernels->transpose(layer->seen_t + first,
                                     layer->seen + (size_t)first * (size_t)layer->stride,
                                     i + 1 - first, layer->m, layer->stride, layer->stride_t);
        }
    }
    if (chip->columns == 1) {
        return;
    }
    most_t = largest(columns, layer->m);
    layer->fits = (int64_t)most * below_max <= INT32_MAX;
    layer->fits_t = (int64_t)most_t * e_max <= INT32_MAX;
}
