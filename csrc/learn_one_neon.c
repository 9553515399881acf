/* A row of weights learns from one stream with NEON, sixteen weights at a time: the integers of
 * update.inc, with updates that fit 16 bits.
 *
 * The words of a root are in memory what the weights take of them: 16 bits each, in order.
 * Padding: inputs there are 0, so that nothing is asked of those weights, and 0 with random
 * bits below its last one is rounded to 0.
 */
#include "neurons.h"
#include "single.h"

#if defined(__aarch64__) && !defined(GLE_SCALAR_ONLY)

#include "lanes_neon.h"

enum { WIDE = GLE_RNG_SHARE,
       NEAREST_LEAST = 11, /* |e x| < 2^26 */
       STOCHASTIC_LEAST = 12, STOCHASTIC_MOST = 30 };

/* What a row of updates counts, in lanes of 16 bits: as many as a row has vectors. */
typedef struct {
    uint16x8_t idle, under, kept; /* -1 for each gradient that is 0, update that is 0, no clip */
} row_count;

/* What bounds weights and updates. */
typedef struct {
    int16x8_t limit, most;
    int32_t bounded; /* the largest update may be less than what is asked */
} bounds;

LANES bounds bounds_of(const gle_update *how, int32_t shift)
{
    bounds b;

    b.limit = vdupq_n_s16((int16_t)how->limit);
    b.most = vdupq_n_s16((int16_t)(how->most < 32767 ? how->most : 32767));
    b.bounded = how->most <= (shift < 27 ? 1 << 26 >> shift : 1);
    return b;
}

LANES uint32_t ones(uint16x8_t x)
{
    return vaddlvq_u16(vsubq_u16(vdupq_n_u16(0), x));
}

/* Eight updates onto their weights. */
LANES void apply(int16_t *w, int16x8_t below, int16x8_t delta, const bounds *b, row_count *n)
{
    int16x8_t next, kept;

    if (b->bounded) {
        delta = vmaxq_s16(vminq_s16(delta, b->most), vnegq_s16(b->most));
    }
    next = vqaddq_s16(vld1q_s16(w), delta); /* the limit is below what fits 16 bits */
    kept = vmaxq_s16(vminq_s16(next, b->limit), vnegq_s16(b->limit));
    n->idle = vaddq_u16(n->idle, vceqzq_s16(below));
    n->under = vaddq_u16(n->under, vceqzq_s16(delta));
    n->kept = vaddq_u16(n->kept, vceqq_s16(next, kept));
    vst1q_s16(w, kept);
}

LANES void counted(gle_update_count *count, const row_count *n, int32_t padded)
{
    const uint32_t idle = ones(n->idle);

    count->asked += (uint32_t)padded - idle; /* e is not 0 */
    count->under += ones(n->under) - idle;
    count->clipped += (uint32_t)padded - ones(n->kept);
}

LANES int16x8_t narrow(int32x4_t low, int32x4_t high)
{
    return vuzp1q_s16(vreinterpretq_s16_s32(low), vreinterpretq_s16_s32(high));
}

/* To nearest. */
LANES void nearest(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                   int32_t shift, gle_update_count *count)
{
    const int32x4_t by = all(shift < 32 ? -shift : -32);
    const bounds b = bounds_of(how, shift - 1);
    row_count n = {vdupq_n_u16(0), vdupq_n_u16(0), vdupq_n_u16(0)};
    int32_t j = 0;

    for (; j < m; j += 8) {
        const int16x8_t below = vld1q_s16(x + j);
        const int32x4_t low = vmull_n_s16(vget_low_s16(below), (int16_t)e);
        const int32x4_t high = vmull_high_n_s16(below, (int16_t)e);
        apply(w + j, below, narrow(vrshlq_s32(low, by), vrshlq_s32(high, by)), &b, &n);
    }
    counted(count, &n, j);
}

/* Random bits of four weights, see gle_rng_upper: as many of them as are dropped. */
LANES int32x4_t bits(uint16x4_t word, int32x4_t by)
{
    return as_signed(vshlq_u32(vorrq_u32(vshll_n_u16(word, 16), vdupq_n_u32(0x8000)), by));
}

/* At random: every update fits an int16, and a gradient and its random bits an int32. */
LANES void stochastic(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                      int32_t shift, uint32_t root, gle_update_count *count)
{
    static const uint32_t factors[GLE_RNG_SHARE / 2] = GLE_RNG_FACTORS;
    const uint32x4_t each[2] = {vld1q_u32(factors), vld1q_u32(factors + 4)};
    const int32x4_t by = all(-shift), rest = all(shift - 32);
    const int16x4_t error = vdup_n_s16((int16_t)e);
    const bounds b = bounds_of(how, shift);
    row_count n = {vdupq_n_u16(0), vdupq_n_u16(0), vdupq_n_u16(0)};
    int32_t j = 0;

    for (; j < m; j += WIDE) {
        const uint32_t own = gle_rng_root(how->key, root++);
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            const int16x8_t below = vld1q_s16(x + j + 8 * h);
            const uint32x4_t product = vmulq_n_u32(each[h], own);
            const uint16x8_t word =
                vreinterpretq_u16_u32(veorq_u32(product, vshrq_n_u32(product, 15)));
            const int32x4_t low =
                vmlal_s16(bits(vget_low_u16(word), rest), vget_low_s16(below), error);
            const int32x4_t high =
                vmlal_s16(bits(vget_high_u16(word), rest), vget_high_s16(below), error);
            apply(w + j + 8 * h, below, narrow(vshlq_s32(low, by), vshlq_s32(high, by)), &b, &n);
        }
    }
    counted(count, &n, j);
}

void gle_learn_one_neon(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                        int32_t shift, uint32_t root, gle_update_count *count)
{
    if (e == 0) {
        return; /* rounds to nothing either way, and asks for nothing */
    }
    if (!how->stochastic && shift >= NEAREST_LEAST) {
        nearest(w, e, x, m, how, shift, count);
    } else if (how->stochastic && shift >= STOCHASTIC_LEAST && shift <= STOCHASTIC_MOST) {
        stochastic(w, e, x, m, how, shift, root, count);
    } else {
        gle_learn_one_any_neon(w, e, x, m, how, shift, root, count);
    }
}

#else
typedef int gle_no_learn_one_neon; /* ISO C wants one declaration a file */
#endif
