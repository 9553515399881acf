/* How a chip learns by itself: the rules of gle_rule, what they keep beside the weights, and
 * when it is applied.
 *
 * With G the gradient of a learning step, summed over the batch (the format of the read-out:
 * e_frac + below_frac - gle_gradient_shift), each weight has an accumulator A that doubles as
 * momentum, int32 in a format with `drop` bits fewer:
 *
 *     g  = clip(round(G 2^-drop), 2^30 - 1)         every learning step
 *     A  = clip(A + g, 2^30 - 1)                    what clips is counted in sat_gradient
 *
 * and in every apply_every-th learning step since gle_blank
 *
 *     sgd         y = A, in units of 2^-momentum_shift of an accumulator's
 *     sign        y = 1, 0 or -1, the sign of A
 *     normalised  y = A 2^-momentum_shift / V, 16 fraction bits, clipped at 2^GLE_RATIO_MOST
 *     stored     += round(y 2^-k), clipped, noisy and counted as plain SGD is
 *     A          -= ceil(|A| 2^-momentum_shift), with A's sign: running sums that do reach 0;
 *                   momentum_shift 0 clears
 *
 * so that A 2^-momentum_shift is the running mean of the gradient. V is a running mean of
 * x = |g| where each gradient is applied, else of x = |A| >> momentum_shift, kept as one byte
 * c, V = 2^(c/8), 0: none yet. Where x is the first that is not 0, c = 8 log2(x) + 4, rounded
 * down to whole octaves before the 4; else, rounded at random,
 *
 *     c += (8 / ln 2) (x / V - 1) 2^-n, at most 8 (an octave),   1 <= c <= 255
 *
 * with n = norm_shift, in the first applications less (gle_lesson_of). Then y divides by the
 * power of two nearest to V, 2^((c + 4) >> 3).
 *
 * Biases have the same beside them, from sums of e. Of a synapse that is absent G is 0, and so is
 * A. Feedback that learns (GLE_KOLEN_POLLACK) is for sgd with nothing to remember: other images
 * are refused. When auto-ranging moves a scale, A and V of the gradients that go by it move as
 * well: below_frac is that of the coarsest source. Random bits go by the count of learning steps.
 *
 * The rate is 2^-(rate_shift + slower + rises), where slower is the layer's (GLE_SLOWER_AT) and
 * rises goes up by one every rate_every learning steps, as far as the image says.
 */
#ifndef GLE_LEARNER_H
#define GLE_LEARNER_H

#include "chip.h"

enum { GLE_MEMORY_MAX = (1 << 30) - 1, GLE_RATIO_MOST = 4, GLE_RATIO_BITS = 16,
       GLE_NORM_FIRST = 4, GLE_RATE_MOST = 64 };

/* The image's words. */
static inline gle_learner gle_learner_of(const gle_image *image)
{
    gle_learner y;

    y.rule = (int32_t)(image->learner & 0xffu);
    y.momentum = (int32_t)(image->learner >> 8 & 0xffu);
    y.norm = (int32_t)(image->learner >> 16 & 0xffu);
    y.rises = (int32_t)(image->learner >> 24);
    y.apply_every = image->apply_every == 0 ? 1 : (uint32_t)image->apply_every;
    y.rate_every = (uint32_t)image->rate_every;
    y.remembers = y.rule != GLE_SGD || y.momentum != 0 || y.apply_every > 1;
    y.counts = y.remembers || y.rate_every != 0;
    return y;
}

/* What holds for one learning step. */
typedef struct {
    int32_t apply, rises, norm;
} gle_lesson;

gle_lesson gle_lesson_of(const gle_chip *chip);
int32_t gle_rate_of(const gle_layer *layer, const gle_lesson *lesson);

/* How a row of accumulators is applied. */
typedef struct {
    int32_t drop, momentum;
    int32_t each;  /* every gradient is applied, so that V is of the gradient itself */
    int32_t norm;  /* n */
    gle_key key;   /* of V's rounding */
} gle_recall;

/* plasticity.c: one learning step of a layer. */
void gle_layer_learn(gle_chip *chip, gle_layer *layer, const int16_t *below, int32_t below_frac,
                     const gle_lesson *lesson);
/* A scale of the gradients moved by one bit. */
void gle_memory_moved(gle_layer *layer, int32_t weights, int32_t biases, int32_t finer);

/* rule_sgd.c: with nothing to remember. */
void gle_layer_sgd(gle_chip *chip, gle_layer *layer, const int16_t *below, int32_t below_frac,
                   const gle_lesson *lesson);
/* gradient.c: rows of e below^T, in the format of the read-out; sums of e. */
void gle_outer_rows(const gle_chip *chip, const gle_layer *layer, int32_t first, int32_t rows,
                    const int16_t *below, int32_t *to);
int32_t gle_error_sum(const gle_chip *chip, const gle_layer *layer, int32_t i);

/* How the weights of a layer are updated, all rules; `count`: of steps, for the random bits. */
gle_update gle_update_of(const gle_chip *chip, const gle_layer *layer, uint64_t count);
/* Noise of at most four rows of updates, from row i on, a multiple of four; rounding of one. */
void gle_vary_rows(const gle_chip *chip, const gle_layer *layer, int32_t i, int32_t count,
                   int32_t *rows, const gle_update *how);
void gle_update_row(const gle_chip *chip, const gle_layer *layer, int32_t i, int32_t *row,
                    const gle_update *how, int32_t shift, gle_update_count *count);
/* bias += round(x 2^-shift) */
void gle_update_bias(gle_layer *layer, int32_t i, int32_t x, int32_t shift, int32_t stochastic,
                     gle_key key);
void gle_count_updates(gle_layer *layer, const gle_update_count *count);

/* The memory of one row: what kernels may do with vectors. Both return what clipped.
 * add: A += g. apply: the same, then row[m] = y, and A decays. */
typedef uint32_t gle_apply_row(int32_t *row, int32_t *memory, uint8_t *norm, int32_t m,
                               const gle_recall *how, uint32_t first);
struct gle_rule_kernels {
    uint32_t (*add)(int32_t *memory, const int32_t *row, int32_t m, int32_t drop);
    gle_apply_row *apply[GLE_RULE_COUNT]; /* of gle_rule */
};

extern const struct gle_rule_kernels gle_rules_scalar;
#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)
extern const struct gle_rule_kernels gle_rules_avx2, gle_rules_vnni;
#endif
#if defined(__aarch64__) && !defined(GLE_SCALAR_ONLY)
extern const struct gle_rule_kernels gle_rules_neon;
#endif
uint32_t gle_add_row(int32_t *memory, const int32_t *row, int32_t m, int32_t drop);
gle_apply_row gle_sgd_row, gle_sign_row, gle_normalised_row;

static inline int32_t gle_remember(int32_t *memory, int32_t gradient, int32_t drop,
                                   uint32_t *clipped)
{
    const int32_t sum = *memory + gle_clamp(gle_round(gradient, drop), GLE_MEMORY_MAX);
    const int32_t kept = gle_clamp(sum, GLE_MEMORY_MAX);

    *clipped += (uint32_t)(kept != sum);
    return kept;
}

static inline int32_t gle_decayed(int32_t a, int32_t momentum)
{
    return a - ((a + (a > 0 ? (1 << momentum) - 1 : 0)) >> momentum);
}

/* Of 8/ln 2 2^(-f/8), 10 fraction bits. */
#define GLE_NORM_TABLE_LIST (11819, 10838, 9938, 9113, 8357, 7663, 7027, 6444)
#define GLE_NORM_ONE (11819 << 6)

#endif
