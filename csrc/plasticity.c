/* What learns: what the rules (rule_*.c) have in common. See learner.h for what they do. */
#include "learner.h"
#include "topology.h"

enum { ROWS = 4 };

static int32_t bits(uint64_t x)
{
    int32_t k = 0;

    while (x != 0) {
        x >>= 1;
        k++;
    }
    return k;
}

/* V begins as a mean over few gradients and soon reaches further back. */
gle_lesson gle_lesson_of(const gle_chip *chip)
{
    const gle_learner *y = &chip->learner;
    gle_lesson lesson = {1, 0, 0};

    if (y->remembers) {
        const uint64_t applied = y->apply_every == 1 ? chip->learned
                                                     : chip->learned / y->apply_every;
        lesson.norm = GLE_NORM_FIRST + bits(applied);
        lesson.norm = lesson.norm < y->norm ? lesson.norm : y->norm;
        lesson.apply = y->apply_every == 1 || (chip->learned + 1) % y->apply_every == 0;
    }
    if (y->rate_every != 0) {
        const uint64_t rises = chip->learned / y->rate_every;
        lesson.rises = rises < (uint32_t)y->rises ? (int32_t)rises : y->rises;
    }
    return lesson;
}

int32_t gle_rate_of(const gle_layer *layer, const gle_lesson *lesson)
{
    const int32_t slower = layer->image->learn >> GLE_SLOWER_AT;
    const int32_t rate = layer->rate_shift + slower + lesson->rises;
    return rate > GLE_RATE_MOST ? GLE_RATE_MOST : rate;
}

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

void gle_update_bias(gle_layer *layer, int32_t i, int32_t x, int32_t shift, int32_t stochastic,
                     gle_key key)
{
    const int32_t delta = rounded(x, shift, stochastic, key, (uint32_t)i);
    layer->bias[i] = gle_clamp64((int64_t)layer->bias[i] + delta, GLE_STATE_MAX);
}

gle_update gle_update_of(const gle_chip *chip, const gle_layer *layer, uint64_t count)
{
    const uint32_t where = (uint32_t)layer->first;
    const gle_update how = {
        layer->image->w_max,
        chip->image->update_max,
        chip->image->stochastic,
        gle_rng_key(chip->seed, GLE_RNG_WEIGHT_UPDATE, where, count),
        gle_rng_key(chip->seed, GLE_RNG_UPDATE_NOISE, where, count),
        gle_noise_of(chip->image->update_noise),
    };
    return how;
}

void gle_vary_rows(const gle_chip *chip, const gle_layer *layer, int32_t i, int32_t count,
                   int32_t *rows, const gle_update *how)
{
    if (how->noise.m != 0) {
        chip->kernels->vary(rows, layer->stride, count, layer->m, how,
                            (uint32_t)(i >> 2) * (uint32_t)layer->m);
    }
}

void gle_update_row(const gle_chip *chip, const gle_layer *layer, int32_t i, int32_t *row,
                    const gle_update *how, int32_t shift, gle_update_count *count)
{
    chip->kernels->update(layer->w + (size_t)i * (size_t)layer->stride, row, layer->m, how,
                          shift - (layer->rows ? (int32_t)layer->rows[i] : 0),
                          (uint32_t)i * gle_rng_roots(layer->m), count);
}

void gle_count_updates(gle_layer *layer, const gle_update_count *count)
{
    layer->counters.updates += count->asked;
    layer->counters.under_w += count->under;
    layer->counters.sat_w += count->clipped;
    layer->window.sat_w += count->clipped;
    layer->stale = 1;
}

/* Bits of a gradient that the accumulators do not hold: a full-scale gradient fits when it is
 * of one sign for the square root of the steps that are summed, as sums of any sign grow. */
static int32_t drop_of(const gle_chip *chip, int32_t factor_bits)
{
    const gle_learner *y = &chip->learner;
    const int32_t steps = y->momentum + bits(y->apply_every - 1);
    const int32_t drop = factor_bits + (steps + 1) / 2 - 30;

    return drop > 0 ? drop : 0;
}

/* Products of two 14-bit factors, so many streams, less what the read-out drops. */
static int32_t drop_weights(const gle_chip *chip)
{
    return drop_of(chip, 26 + bits((uint32_t)chip->batch - 1) - gle_gradient_shift(chip->batch));
}

static int32_t drop_biases(const gle_chip *chip)
{
    return drop_of(chip, 13 + bits((uint32_t)chip->batch - 1));
}

/* Fraction bits of y, with the scale of the accumulators. */
static int32_t frac_of(const gle_learner *y, int32_t frac)
{
    return y->rule == GLE_SGD ? frac + y->momentum : (y->rule == GLE_SIGN ? 0 : GLE_RATIO_BITS);
}

static gle_key recall_key(const gle_chip *chip, const gle_layer *layer, uint32_t purpose)
{
    const gle_key none = {0, 0};
    return chip->learner.rule == GLE_NORMALISED
               ? gle_rng_key(chip->seed, purpose, (uint32_t)layer->first, chip->learned)
               : none;
}

static uint32_t learn_biases(gle_chip *chip, gle_layer *layer, const gle_lesson *lesson)
{
    const struct gle_rule_kernels *k = chip->kernels->rules;
    const gle_learner *y = &chip->learner;
    const gle_recall how = {drop_biases(chip), y->momentum, y->apply_every == 1, lesson->norm,
                            recall_key(chip, layer, GLE_RNG_NORM_BIAS)};
    const int32_t shift =
        frac_of(y, layer->e_frac - how.drop) + gle_rate_of(layer, lesson) - layer->u_frac;
    const gle_key key =
        gle_rng_key(chip->seed, GLE_RNG_BIAS_UPDATE, (uint32_t)layer->first, chip->learned);
    uint32_t clipped;

    for (int32_t i = 0; i < layer->n; i++) {
        chip->rows[i] = gle_error_sum(chip, layer, i);
    }
    if (!lesson->apply) {
        return k->add(layer->memory_bias, chip->rows, layer->n, how.drop);
    }
    clipped = k->apply[y->rule](chip->rows, layer->memory_bias, layer->norm_bias, layer->n, &how,
                                0);
    for (int32_t i = 0; i < layer->n; i++) {
        gle_update_bias(layer, i, chip->rows[i], shift, chip->image->stochastic, key);
    }
    return clipped;
}

static void learn_from_memory(gle_chip *chip, gle_layer *layer, const int16_t *below,
                              int32_t below_frac, const gle_lesson *lesson)
{
    const struct gle_rule_kernels *k = chip->kernels->rules;
    const gle_learner *y = &chip->learner;
    const gle_recall recall = {drop_weights(chip), y->momentum, y->apply_every == 1, lesson->norm,
                               recall_key(chip, layer, GLE_RNG_NORM)};
    const int32_t frac = layer->e_frac + below_frac - gle_gradient_shift(chip->batch) - recall.drop;
    const int32_t shift = frac_of(y, frac) + gle_rate_of(layer, lesson) - layer->w_frac;
    const gle_update how = gle_update_of(chip, layer, chip->learned);
    gle_update_count count = {0, 0, 0};
    uint32_t clipped = 0;

    for (int32_t i = 0; i < layer->n; i += ROWS) {
        const int32_t rows = layer->n - i < ROWS ? layer->n - i : ROWS;
        gle_outer_rows(chip, layer, i, rows, below, chip->rows);
        gle_absent_sums(layer, i, rows, chip->rows); /* nothing is remembered, nor asked for */
        for (int32_t r = 0; r < rows; r++) {
            const size_t at = (size_t)(i + r) * (size_t)layer->stride;
            int32_t *const row = chip->rows + (size_t)r * (size_t)layer->stride;
            uint8_t *const norm = layer->norm == NULL ? NULL : layer->norm + at;
            if (!lesson->apply) {
                clipped += k->add(layer->memory + at, row, layer->m, recall.drop);
                continue;
            }
            clipped += k->apply[y->rule](row, layer->memory + at, norm, layer->m, &recall,
                                         (uint32_t)(i + r) * (uint32_t)layer->m);
        }
        if (lesson->apply) {
            gle_vary_rows(chip, layer, i, rows, chip->rows, &how);
        }
        for (int32_t r = 0; r < rows && lesson->apply; r++) {
            gle_update_row(chip, layer, i + r, chip->rows + (size_t)r * (size_t)layer->stride,
                           &how, shift, &count);
        }
    }
    if ((layer->image->learn & GLE_HOLDS_BIAS) == 0) {
        clipped += learn_biases(chip, layer, lesson);
    }
    layer->counters.sat_gradient += clipped;
    if (lesson->apply) {
        gle_count_updates(layer, &count);
    }
}

void gle_layer_learn(gle_chip *chip, gle_layer *layer, const int16_t *below, int32_t below_frac,
                     const gle_lesson *lesson)
{
    if (chip->learner.remembers) {
        learn_from_memory(chip, layer, below, below_frac, lesson);
    } else {
        gle_layer_sgd(chip, layer, below, below_frac, lesson);
    }
}

/* --- memory ------------------------------------------------------------------------------- */

uint32_t gle_add_row(int32_t *memory, const int32_t *row, int32_t m, int32_t drop)
{
    uint32_t clipped = 0;

    for (int32_t j = 0; j < m; j++) {
        memory[j] = gle_remember(&memory[j], row[j], drop, &clipped);
    }
    return clipped;
}

static void moved(int32_t *memory, uint8_t *norm, size_t count, int32_t finer)
{
    for (size_t k = 0; k < count; k++) {
        const int32_t a = finer ? memory[k] * 2 : gle_round(memory[k], 1);
        memory[k] = gle_clamp(a, GLE_MEMORY_MAX);
    }
    for (size_t k = 0; norm != NULL && k < count; k++) {
        const int32_t c = norm[k] + (finer ? 8 : -8);
        norm[k] = norm[k] == 0 ? 0 : (uint8_t)(c < 1 ? 1 : (c > 255 ? 255 : c));
    }
}

void gle_memory_moved(gle_layer *layer, int32_t weights, int32_t biases, int32_t finer)
{
    if (layer->memory == NULL) {
        return;
    }
    if (weights) {
        moved(layer->memory, layer->norm, (size_t)layer->n * (size_t)layer->stride, finer);
    }
    if (biases) {
        moved(layer->memory_bias, layer->norm_bias, (size_t)layer->n, finer);
    }
}

const struct gle_rule_kernels gle_rules_scalar = {gle_add_row,
                                                  {gle_sgd_row, gle_normalised_row, gle_sign_row}};
