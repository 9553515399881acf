/* What is connected to what: sources of a layer, masks, feedback paths. hwgle/topology.py
 * says what they mean, gle.h how an image has them.
 *
 * A chain, where each layer hears the one before it, pays for none of it. Where layers have
 * other sources, what a layer hears is gathered into one array, in the coarsest scale of its
 * sources, so that W below is one exact sum rounded once; W^T e is a sum for each source,
 * each rounded once, and what several layers send to one is added there.
 */
#ifndef GLE_TOPOLOGY_H
#define GLE_TOPOLOGY_H

#include "chip.h"

enum { GLE_SOURCE_WORDS = 3, GLE_INPUT = -1 };

/* Whether layer l hears source s, GLE_INPUT or a layer; `words` are its own, NULL: a chain. */
static inline int gle_hears(const uint32_t *words, int32_t l, int32_t s)
{
    const uint32_t bit = (uint32_t)(s + 1);
    return words == NULL ? s == l - 1 : (int)(words[bit >> 5] >> (bit & 31u) & 1u);
}

static inline int gle_synapse_there(const uint32_t *mask, int32_t j)
{
    return mask == NULL || (mask[j >> 5] >> (j & 31) & 1u) != 0;
}

static inline const uint32_t *gle_mask_row(const gle_layer *layer, int32_t i)
{
    return layer->mask == NULL ? NULL : layer->mask + (size_t)i * (size_t)((layer->m + 31) / 32);
}

/* What a layer hears in this step: old rates, [m][columns]. */
typedef struct {
    const int16_t *rates;
    int32_t frac, max; /* their fraction bits, and none is larger */
} gle_heard;

int32_t gle_heard_frac(const gle_chip *chip, const gle_layer *layer);
gle_heard gle_hear(gle_chip *chip, const gle_layer *layer);

/* Fraction bits from errors of `from`, through weights of `owner`, to error neurons of `to`. */
int32_t gle_shift_errors(const gle_layer *owner, const gle_layer *from, const gle_layer *to);
/* Before the first layer steps: who sends errors in this step. */
void gle_errors_begin(gle_chip *chip, const int16_t *target);
/* Where a layer's neurons find what they hear of errors. Called from the top layer down,
 * when the layer's weights are what the array sees and its errors are still the old ones. */
const int32_t *gle_errors(gle_chip *chip, gle_layer *layer);

/* Whether all products have a shift that the kernels can do; `noted`: with the formats that
 * a snapshot's check has noted in the layers. */
int gle_shifts_possible(const gle_chip *chip, int noted);

/* Absent synapses to 0: of stored weights, of rows of sums. */
void gle_absent_weights(gle_layer *layer);
void gle_absent_sums(const gle_layer *layer, int32_t first, int32_t rows, int32_t *sums);

/* A stored weight by its number: the layer's n * m, then its feedback's; `absent`: it is a
 * synapse that is not there. */
int16_t *gle_weight_at(const gle_layer *layer, int32_t number, int *absent);
int32_t gle_weight_count(const gle_layer *layer);

/* feedback.c: Kolen-Pollack. What a layer's weights have just learned, its feedback learns, at
 * the same rate (gle_rate_of); they learn by plain SGD, as images that remember are refused. */
void gle_feedback_learn(gle_chip *chip, gle_layer *layer, const int16_t *below,
                        int32_t below_frac, int32_t rate);
/* After all layers have learned: weights and feedback decay together. */
void gle_feedback_decay(gle_chip *chip);

/* drift.c: all weights of a matrix lose 2^-shift of themselves, rounded at random. */
void gle_relax(int16_t *w, int32_t n, int32_t m, int32_t stride, int32_t shift, gle_key key);

#endif
