/* From stored weights to what the array multiplies with, and the proof that sums fit.
 *
 * With several streams the core keeps two copies of the weights as the array sees
 * them, one of them transposed, made again only when stored weights changed.
 */
#include "chip.h"

void gle_layer_effective(gle_layer *layer, int32_t columns, int32_t below_max)
{
    const int32_t shift = layer->image->w_shift;
    const int32_t e_max = layer->image->e_max;
    int64_t largest = 0, largest_t = 0;

    layer->stale = 0;
    if (columns == 1) {
        return;
    }
    for (int32_t i = 0; i < layer->n; i++) {
        const int16_t *w = layer->w + (size_t)i * (size_t)layer->stride;
        int16_t *seen = layer->seen + (size_t)i * (size_t)layer->stride;
        int32_t sum = 0;
        for (int32_t j = 0; j < layer->m; j++) {
            const int32_t x = gle_round(w[j], shift);
            seen[j] = (int16_t)x;
            sum += x < 0 ? -x : x;
        }
        largest = sum > largest ? sum : largest;
    }
    for (int32_t j = 0; j < layer->m; j++) {
        int16_t *to = layer->seen_t + (size_t)j * (size_t)layer->stride_t;
        int32_t sum = 0;
        for (int32_t i = 0; i < layer->n; i++) {
            const int16_t x = layer->seen[(size_t)i * (size_t)layer->stride + (size_t)j];
            to[i] = x;
            sum += x < 0 ? -x : x;
        }
        largest_t = sum > largest_t ? sum : largest_t;
    }
    layer->fits = largest * below_max <= INT32_MAX;
    layer->fits_t = largest_t * e_max <= INT32_MAX;
}
