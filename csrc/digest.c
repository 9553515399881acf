/* Digests: equal if and only if (but for a chance of 2^-32 a step) every state of
 * every neuron was equal at every step, and all weights and formats are.
 *
 * Each stream has its own, so that a batch of streams and the same streams one after
 * another give the same list. the neuron kernels hashes a step's states; here the steps are
 * chained.
 */
#include "chip.h"

uint64_t gle_digest_mix(uint64_t digest, uint64_t word)
{
    return gle_mix64((digest ^ word) + UINT64_C(0x9e3779b97f4a7c15));
}

uint64_t gle_stream_digest(const gle_chip *chip, int32_t stream)
{
    return stream >= 0 && stream < chip->batch ? chip->digest[stream] : 0;
}

static uint64_t with_memory(uint64_t d, const gle_layer *layer)
{
    for (int32_t i = 0; i < layer->n; i++) {
        const size_t first = (size_t)i * (size_t)layer->stride;
        uint64_t row = (uint32_t)layer->memory_bias[i];
        row |= (uint64_t)(layer->norm_bias == NULL ? 0 : layer->norm_bias[i]) << 32;
        for (int32_t j = 0; j < layer->m; j++) {
            const size_t at = first + (size_t)j;
            const uint64_t c = layer->norm == NULL ? 0 : layer->norm[at];
            row = row * UINT64_C(0xd6e8feb86659fd93) + (c << 32 | (uint32_t)layer->memory[at]);
        }
        d = gle_digest_mix(d, row);
    }
    return d;
}

static uint64_t digest_of_weights(const gle_chip *chip)
{
    uint64_t d = 0;

    for (int32_t l = 0; l < chip->layers; l++) {
        const gle_layer *layer = &chip->layer[l];
        for (int32_t i = 0; i < layer->n; i++) {
            const int16_t *w = layer->w + (size_t)i * (size_t)layer->stride;
            uint64_t row = (uint32_t)layer->bias[i];
            for (int32_t j = 0; j < layer->m; j++) {
                row = row * UINT64_C(0xd6e8feb86659fd93) + (uint16_t)w[j];
            }
            d = gle_digest_mix(d, row);
            if (layer->times != NULL) {
                const gle_neuron *t = &layer->times[i];
                d = gle_digest_mix(d, (uint64_t)t->leak_u << 32 | t->ratio_u);
                d = gle_digest_mix(d, (uint64_t)t->leak_v << 32 | t->ratio_v);
            }
        }
        if (layer->memory != NULL) {
            d = with_memory(d, layer);
        }
        for (int32_t i = 0; layer->back != NULL && i < layer->back->n; i++) {
            const int16_t *w = layer->back->w + (size_t)i * (size_t)layer->back->stride;
            uint64_t row = 0;
            for (int32_t j = 0; j < layer->back->m; j++) {
                row = row * UINT64_C(0xd6e8feb86659fd93) + (uint16_t)w[j];
            }
            d = gle_digest_mix(d, row);
        }
        d = gle_digest_mix(d, (uint64_t)(uint32_t)layer->w_frac << 32 | (uint32_t)layer->u_frac);
        d = gle_digest_mix(d, (uint64_t)(uint32_t)layer->r_frac << 32 | (uint32_t)layer->e_frac);
    }
    return chip->learner.counts ? gle_digest_mix(d, chip->learned) : d;
}

/* Whoever changes weights marks their layer stale, until the next step notes it; whoever
 * changes biases or formats alone says so in digest_known. */
static int known(const gle_chip *chip)
{
    for (int32_t l = 0; l < chip->layers; l++) {
        const gle_layer *y = &chip->layer[l];
        if (y->stale || (y->back != NULL && y->back->stale)) {
            return 0;
        }
    }
    return chip->digest_known;
}

uint64_t gle_weights_digest(const gle_chip *chip)
{
    if (!known(chip)) {
        gle_chip *kept = (gle_chip *)(uintptr_t)chip; /* a memory of what it says anyway */
        kept->weights_digest = digest_of_weights(chip);
        kept->digest_known = 1;
    }
    return chip->weights_digest;
}

uint64_t gle_digest(const gle_chip *chip)
{
    uint64_t d = gle_digest_mix(gle_weights_digest(chip), chip->step);

    for (int32_t b = 0; b < chip->batch; b++) {
        d = gle_digest_mix(d, chip->digest[b]);
    }
    return d;
}
