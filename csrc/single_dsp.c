/* One stream on a microcontroller with the DSP extension (Cortex-M4, M7, M33): SMLALD adds
 * two products of 16 bits to a sum of 64, which no layer can overflow, so that nothing is
 * ever spilled. The same integers as matvec_scalar.c.
 *
 * Rows of weights are padded to pairs with a zero, and arrays begin at multiples of 8 bytes:
 * a pair is one aligned word, and behind the last of an odd number stands a zero.
 */
#include "single.h"

#if defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_SIMD32)

#include <arm_acle.h>

#define INLINE static inline __attribute__((always_inline))

INLINE int32_t pair_at(const int16_t *p)
{
    int32_t two;
    __builtin_memcpy(&two, __builtin_assume_aligned(p, 4), sizeof two);
    return two;
}

/* Two weights as the array sees them: round(w 2^-shift) as repeated halving, of which the
 * last rounds: floor((floor(w / 2) + 1) / 2) is floor((w + 2) / 4). */
INLINE int32_t seen2(int32_t two, const int32_t shift)
{
    if (shift == 2) {
        return __shadd16(__shadd16(two, 0), 0x00010001);
    }
    return two;
}

INLINE int32_t low_halves(int32_t a, int32_t b)
{
    return (int32_t)(((uint32_t)a & 0xffffu) | (uint32_t)b << 16);
}

INLINE int32_t high_halves(int32_t a, int32_t b)
{
    return (int32_t)((uint32_t)a >> 16 | ((uint32_t)b & 0xffff0000u));
}

INLINE int32_t stored(int64_t sum, int32_t shift)
{
    return gle_clamp64(gle_round64(sum, shift), GLE_SUM_MAX);
}

/* Up to GLE_EXACT products of two rows, which stay in 32 bits each. Returned in a pair of
 * registers; a function of its own, so that everything of the loop finds one. */
INLINE uint64_t block(const int16_t *a, const int16_t *b, const int16_t *x, int32_t count,
                      const int32_t shift)
{
    int32_t sa = 0, sb = 0;

    for (; count >= 8; count -= 8, a += 8, b += 8, x += 8) {
#pragma GCC unroll 4
        for (int32_t k = 0; k < 8; k += 2) {
            const int32_t two = pair_at(x + k);
            sa = __smlad(seen2(pair_at(a + k), shift), two, sa);
            sb = __smlad(seen2(pair_at(b + k), shift), two, sb);
        }
    }
    for (; count > 0; count -= 2, a += 2, b += 2, x += 2) {
        const int32_t two = pair_at(x);
        sa = __smlad(seen2(pair_at(a), shift), two, sa);
        sb = __smlad(seen2(pair_at(b), shift), two, sb);
    }
    return (uint32_t)sa | (uint64_t)(uint32_t)sb << 32;
}

static __attribute__((noinline)) uint64_t block_0(const int16_t *a, const int16_t *b,
                                                  const int16_t *x, int32_t count)
{
    return block(a, b, x, count, 0);
}

static __attribute__((noinline)) uint64_t block_2(const int16_t *a, const int16_t *b,
                                                  const int16_t *x, int32_t count)
{
    return block(a, b, x, count, 2);
}

static void two_rows(int64_t sum[2], const int16_t *w, int32_t stride, const int16_t *x,
                     int32_t shift)
{
    sum[0] = sum[1] = 0;
    for (int32_t j = 0; j < stride; j += GLE_EXACT) {
        const int32_t count = stride - j < GLE_EXACT ? stride - j : GLE_EXACT;
        const uint64_t both = shift == 0 ? block_0(w + j, w + stride + j, x + j, count)
                                         : block_2(w + j, w + stride + j, x + j, count);
        sum[0] += (int32_t)(uint32_t)both;
        sum[1] += (int32_t)(uint32_t)(both >> 32);
    }
}

static void forward(int32_t *out, const gle_layer *layer, const int16_t *x, int32_t by,
                    const int32_t shift)
{
    const int32_t stride = layer->stride, n = layer->n;
    int64_t sum[2];

    for (int32_t i = 0; i < n; i += 2) {
        const int16_t *w = layer->w + (size_t)i * (size_t)stride;
        const int32_t rows = i + 1 < n ? 2 : 1;
        if (rows == 1) { /* there is no row behind the last */
            sum[0] = 0;
            for (int32_t j = 0; j < stride; j += 2) {
                sum[0] = __smlald(seen2(pair_at(w + j), shift), pair_at(x + j), sum[0]);
            }
        } else {
            two_rows(sum, w, stride, x, shift);
        }
        for (int32_t r = 0; r < rows; r++) {
            out[i + r] = stored(sum[r], by + (layer->rows ? (int32_t)layer->rows[i + r] : 0));
        }
    }
}

void gle_product_one_dsp(int32_t *out, const gle_layer *layer, const int16_t *x, int32_t shift)
{
    if (layer->gains != NULL || layer->image->w_left != 0) {
        gle_product_one(out, layer, x, shift);
    } else if (layer->image->w_shift == 2) {
        forward(out, layer, x, shift, 2);
    } else if (layer->image->w_shift == 0) {
        forward(out, layer, x, shift, 0);
    } else {
        gle_product_one(out, layer, x, shift);
    }
}

/* Four columns at a time, two rows a turn. */
INLINE void back(int32_t *out, const gle_layer *layer, int32_t by, const int32_t shift)
{
    const int32_t stride = layer->stride, n = layer->n, m = layer->m;

    for (int32_t j = 0; j < m; j += 4) {
        const int32_t two_more = j + 2 < stride ? 2 : 0; /* else the same again, not stored */
        const int16_t *w = layer->w + j, *e = layer->e;
        int64_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
        for (int32_t i = 0; i < n; i += 2, e += 2, w += 2 * stride) {
            const int16_t *next = i + 1 < n ? w + stride : w; /* times the zero behind e */
            const int32_t a = seen2(pair_at(w), shift), b = seen2(pair_at(next), shift);
            const int32_t c = seen2(pair_at(w + two_more), shift);
            const int32_t d = seen2(pair_at(next + two_more), shift);
            const int32_t two = pair_at(e);
            s0 = __smlald(low_halves(a, b), two, s0);
            s1 = __smlald(high_halves(a, b), two, s1);
            s2 = __smlald(low_halves(c, d), two, s2);
            s3 = __smlald(high_halves(c, d), two, s3);
        }
        out[j] = stored(s0, by);
        if (j + 1 < m) {
            out[j + 1] = stored(s1, by);
        }
        if (j + 2 < m) {
            out[j + 2] = stored(s2, by);
        }
        if (j + 3 < m) {
            out[j + 3] = stored(s3, by);
        }
    }
}

void gle_product_one_back_dsp(int32_t *out, const gle_layer *layer, int32_t shift)
{
    if (layer->gains != NULL || layer->rows != NULL || layer->image->w_left != 0) {
        gle_product_one_back(out, layer, shift);
    } else if (layer->image->w_shift == 2) {
        back(out, layer, shift, 2);
    } else if (layer->image->w_shift == 0) {
        back(out, layer, shift, 0);
    } else {
        gle_product_one_back(out, layer, shift);
    }
}

/* `most`: clip updates too, where they can be larger. Zeros are counted, as that is one
 * instruction each: an update was asked for where x is not 0 (e is not), and rounded to
 * nothing where it is 0 all the same. */
INLINE void learn(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                  int32_t shift, uint32_t first, const int stochastic, const int32_t most,
                  gle_update_count *count)
{
    const gle_key key = how->key;
    const int32_t limit = how->limit, rest = 32 - shift, half = 1 << (shift - 1);
    const int16_t *const end = w + m;
    uint32_t still = 0, idle = 0, clipped = 0;

    for (; w < end; w++, x++, first++) {
        const int32_t g = e * *x;
        const int32_t up = stochastic ? (int32_t)(gle_rng(key, first) >> rest) : half;
        int32_t delta = (g + up) >> shift, next;
        if (most != 0) {
            delta = gle_clamp(delta, most);
        }
        next = *w + delta;
        still += (uint32_t)(delta == 0);
        idle += (uint32_t)(g == 0);
        if ((uint32_t)(next + limit) > 2u * (uint32_t)limit) {
            next = gle_clamp(next, limit);
            clipped++;
        }
        *w = (int16_t)next;
    }
    count->asked += (uint32_t)m - idle;
    count->under += still - idle;
    count->clipped += clipped;
}

void gle_learn_one_dsp(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                       int32_t shift, uint32_t first, gle_update_count *count)
{
    if (e == 0) {
        return; /* rounds to nothing either way, and asks for nothing */
    }
    /* |g| < 2^26, so that g and what rounds it up fit an int32 */
    if (shift < 1 || shift > 30) {
        gle_learn_one(w, e, x, m, how, shift, first, count);
    } else if ((GLE_ARRAY_MAX * GLE_ARRAY_MAX >> shift) + 1 > how->most) {
        learn(w, e, x, m, how, shift, first, how->stochastic, how->most, count);
    } else if (how->stochastic) {
        learn(w, e, x, m, how, shift, first, 1, 0, count);
    } else {
        learn(w, e, x, m, how, shift, first, 0, 0, count);
    }
}

#else
typedef int gle_no_single_dsp; /* ISO C wants one declaration a file */
#endif
