/* Time constants that are learned: the gradient of each neuron's tau_m, and writing them.
 *
 * dtau_m = -e (x - u_old) / tau_m, and u - u_old is dt/tau_m (x - u_old) as the neuron itself
 * integrated it: e (u - u_old), summed over the batch, is -dt dtau_m, with nothing to be
 * divided and nothing that the neuron does not have at hand.
 */
#include "chip.h"
#include "image.h"

/* Before the neurons step. */
void gle_layer_note_u(const gle_chip *chip, gle_layer *layer)
{
    const size_t cells = (size_t)layer->n * (size_t)chip->columns;

    for (size_t k = 0; k < cells; k++) {
        layer->u_old[k] = layer->u[k];
    }
}

/* 14 bits times 30, times 2^12 streams: fits 56. */
static int64_t tau_sum(const gle_chip *chip, const gle_layer *layer, int32_t i)
{
    const size_t at = (size_t)i * (size_t)chip->columns;
    int64_t sum = 0;

    for (int32_t b = 0; b < chip->batch; b++) {
        const size_t k = at + (size_t)b;
        sum += (int64_t)layer->e[k] * (layer->u[k] - layer->u_old[k]);
    }
    return sum;
}

void gle_layer_tau_gradient(const gle_chip *chip, gle_layer *layer)
{
    uint32_t clipped = 0;

    layer->gradient_bias_frac = layer->e_frac;
    for (int32_t i = 0; i < layer->n; i++) {
        layer->gradient_tau[i] = 0;
        clipped += gle_accumulate(&layer->gradient_tau[i], tau_sum(chip, layer, i), GLE_TAU_DROP);
    }
    layer->counters.sat_gradient += clipped;
}

void gle_layer_tau_gradient_add(const gle_chip *chip, gle_layer *layer)
{
    const int32_t shift = layer->e_frac - layer->gradient_bias_frac + GLE_TAU_DROP;
    uint32_t clipped = 0;

    for (int32_t i = 0; i < layer->n; i++) {
        clipped += gle_accumulate(&layer->gradient_tau[i], tau_sum(chip, layer, i), shift);
    }
    layer->counters.sat_gradient += clipped;
}

gle_status gle_times_write(gle_chip *chip, int32_t l, int32_t first, int32_t count,
                           const gle_neuron *from)
{
    gle_layer *layer;

    if (l < 0 || l >= chip->layers) {
        return GLE_BAD_ARGUMENT;
    }
    layer = &chip->layer[l];
    if (layer->times == NULL || first < 0 || count < 0 || first > layer->n ||
        count > layer->n - first) {
        return GLE_BAD_ARGUMENT;
    }
    for (int32_t i = 0; i < count; i++) {
        if (!gle_neuron_ok(&from[i])) {
            return GLE_BAD_ARGUMENT;
        }
    }
    for (int32_t i = 0; i < count; i++) {
        layer->times[first + i] = from[i];
    }
    chip->digest_known = 0;
    return GLE_OK;
}
