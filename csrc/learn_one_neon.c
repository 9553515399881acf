/* Weights learn from one stream with NEON, eight at a time, by row or by layer: the integers of
 * update.inc, where updates fit 16 bits. Only products need 32.
 *
 * Where k bits of a product q are dropped at random, a weight has 16 random bits h, and behind
 * them a one (gle_rng_upper): (q + h 2^(k-16) + 2^(k-17)) >> k. As h 2^(k-16) is a multiple of
 * what the rest is rounded to, this is (round(q 2^(16-k)) + h) >> 16, for k below 16 as well:
 * the upper half of a sum.
 *
 * The words of a root are in memory what the weights take of them: 16 bits each, in order.
 * What is asked is counted beforehand (e x is 0 where one of them is), and what has rounded to
 * nothing is what was asked and did not move. Padding: inputs there are 0, so that nothing is
 * asked of those weights, and (0 + h) >> 16 is 0.
 */
#include "neurons.h"
#include "single.h"

#if defined(__aarch64__) && !defined(GLE_SCALAR_ONLY)

#include "lanes_neon.h"

enum { GROUP = 4, /* roots at a time */
       NEAREST_LEAST = 11, /* |e x| < 2^26 */
       STOCHASTIC_LEAST = 12, STOCHASTIC_MOST = 31 };

/* What is the same for all rows, and what they count. */
typedef struct {
    gle_key key;
    int16x8_t limit, most;
    int32_t bounded;          /* the largest update may be less than what is asked */
    uint32x4_t factors[2];    /* from a root to its eight words */
    uint32x4_t moved, inside; /* weights that moved; those that did not clip, padding too */
} learner;

LANES learner learner_of(const gle_update *how, int32_t least)
{
    static const uint32_t factors[GLE_RNG_SHARE / 2] = GLE_RNG_FACTORS;
    learner l;

    l.key = how->key;
    l.limit = vdupq_n_s16((int16_t)how->limit);
    l.most = vdupq_n_s16((int16_t)(how->most < 32767 ? how->most : 32767));
    l.bounded = how->most <= (least < 27 ? 1 << 26 >> least : 1) + 1;
    l.factors[0] = vld1q_u32(factors);
    l.factors[1] = vld1q_u32(factors + 4);
    l.moved = l.inside = vdupq_n_u32(0);
    return l;
}

/* Whether updates by these shifts fit 16 bits, with no noise of their own. */
LANES int fits(const gle_update *how, int32_t least, int32_t most)
{
    return how->noise.m == 0 && (how->stochastic ? least >= STOCHASTIC_LEAST &&
                                                       most <= STOCHASTIC_MOST
                                                 : least >= NEAREST_LEAST);
}

/* Eight updates onto their weights; counts are -1 for each. */
LANES void apply(learner *l, int16_t *w, int16x8_t delta, uint16x8_t *moved, uint16x8_t *inside)
{
    int16x8_t next, kept;

    if (l->bounded) {
        delta = vmaxq_s16(vminq_s16(delta, l->most), vnegq_s16(l->most));
    }
    next = vqaddq_s16(vld1q_s16(w), delta); /* the limit is below what fits 16 bits */
    kept = vmaxq_s16(vminq_s16(next, l->limit), vnegq_s16(l->limit));
    *moved = vaddq_u16(*moved, vtstq_s16(delta, delta));
    *inside = vaddq_u16(*inside, vceqq_s16(next, kept));
    vst1q_s16(w, kept);
}

/* Roots of the next weights of a row, sixteen each. */
LANES void next_roots(uint32_t roots[GROUP], gle_key key, uint32_t first)
{
    static const uint32_t lanes[GROUP] = {0, 1, 2, 3};
    vst1q_u32(roots, rng_root(key, vaddq_u32(vdupq_n_u32(first), vld1q_u32(lanes))));
}

/* Sixteen weights. */
LANES void sixteen(const int stochastic, learner *l, int16_t *w, const int16_t *x, int16x8_t e,
                   int32x4_t by, uint32_t root, uint16x8_t *moved, uint16x8_t *inside)
{
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        const int16x8_t below = vld1q_s16(x + 8 * h);
        uint32x4_t low = as_bits(vrshlq_s32(vmull_s16(vget_low_s16(below), vget_low_s16(e)), by));
        uint32x4_t high = as_bits(vrshlq_s32(vmull_high_s16(below, e), by));
        int16x8_t delta;
        if (stochastic) {
            const uint32x4_t product = vmulq_n_u32(l->factors[h], root);
            const uint16x8_t word =
                vreinterpretq_u16_u32(veorq_u32(product, vshrq_n_u32(product, 15)));
            low = vaddw_u16(low, vget_low_u16(word));
            high = vaddw_high_u16(high, word);
            delta = vuzp2q_s16(vreinterpretq_s16_u32(low), vreinterpretq_s16_u32(high));
        } else {
            delta = vuzp1q_s16(vreinterpretq_s16_u32(low), vreinterpretq_s16_u32(high));
        }
        apply(l, w + 8 * h, delta, moved, inside);
    }
}

LANES void learn_row(const int stochastic, learner *l, int16_t *w, int32_t e, const int16_t *x,
                     int32_t m, int32_t shift, uint32_t root)
{
    const int32x4_t by = all(stochastic ? 16 - shift : (shift < 32 ? -shift : -32));
    const int16x8_t error = vdupq_n_s16((int16_t)e);
    uint16x8_t moved = vdupq_n_u16(0), inside = moved; /* as many as a row has vectors */
    uint32_t roots[GROUP] = {0, 0, 0, 0};

    for (int32_t j = 0; j < m;) {
        const int32_t end = m - j < GROUP * GLE_RNG_SHARE ? m : j + GROUP * GLE_RNG_SHARE;
        if (stochastic) {
            next_roots(roots, l->key, root);
            root += GROUP;
        }
        for (int32_t k = 0; j < end; j += GLE_RNG_SHARE, k++) {
            sixteen(stochastic, l, w + j, x + j, error, by, roots[k], &moved, &inside);
        }
    }
    l->moved = vpadalq_u16(l->moved, vsubq_u16(vdupq_n_u16(0), moved));
    l->inside = vpadalq_u16(l->inside, vsubq_u16(vdupq_n_u16(0), inside));
}

LANES uint32_t not_zero(const int16_t *x, int32_t m)
{
    uint16x8_t zeros = vdupq_n_u16(0);
    int32_t j = 0;

    for (; j < m; j += 8) {
        zeros = vsubq_u16(zeros, vceqzq_s16(vld1q_s16(x + j)));
    }
    return (uint32_t)j - vaddlvq_u16(zeros);
}

LANES void counted(const learner *l, uint32_t rows, uint32_t inputs, int32_t m,
                   gle_update_count *count)
{
    const uint32_t padded = gle_rng_roots(m) * GLE_RNG_SHARE;

    count->asked += rows * inputs;
    count->under += rows * inputs - vaddvq_u32(l->moved);
    count->clipped += rows * padded - vaddvq_u32(l->inside);
}

void gle_learn_one_neon(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                        int32_t shift, uint32_t root, gle_update_count *count)
{
    learner l;

    if (e == 0) {
        return; /* rounds to nothing either way, and asks for nothing */
    }
    if (!fits(how, shift, shift)) {
        gle_learn_one_any_neon(w, e, x, m, how, shift, root, count);
        return;
    }
    l = learner_of(how, shift);
    if (how->stochastic) {
        learn_row(1, &l, w, e, x, m, shift, root);
    } else {
        learn_row(0, &l, w, e, x, m, shift, root);
    }
    counted(&l, 1, not_zero(x, m), m, count);
}

LANES uint32_t learn_rows(const int stochastic, learner *l, gle_layer *layer,
                          const gle_learning *job)
{
    uint32_t rows = 0;

    for (int32_t i = 0; i < layer->n; i++) {
        const int32_t e = layer->e[i];
        job->sums[i] = e;
        if (e != 0) {
            learn_row(stochastic, l, layer->w + (size_t)i * (size_t)layer->stride, e, job->below,
                      layer->m, job->shift - (layer->rows ? (int32_t)layer->rows[i] : 0),
                      (uint32_t)i * gle_rng_roots(layer->m));
            rows++;
        }
    }
    return rows;
}

int32_t gle_learn_stream_neon(gle_layer *layer, const gle_learning *job, gle_update_count *count)
{
    const int32_t least = job->shift - (layer->rows ? 7 : 0);
    uint32_t rows;
    learner l;

    if (job->columns != 1 || !fits(job->how, least, job->shift)) {
        return 0; /* row by row, then, or tiles and their rows */
    }
    l = learner_of(job->how, least);
    rows = job->how->stochastic ? learn_rows(1, &l, layer, job) : learn_rows(0, &l, layer, job);
    counted(&l, rows, not_zero(job->below, layer->m), layer->m, count);
    return 1;
}

#else
typedef int gle_no_learn_one_neon; /* ISO C wants one declaration a file */
#endif
