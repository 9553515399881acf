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

INLINE void forward(int32_t *out, const gle_layer *layer, const int16_t *x, int32_t by,
                    const int32_t shift)
{
    const int32_t stride = layer->stride, n = layer->n;
    const int16_t *w = layer->w;
    int32_t i = 0;

    for (; i + 3 < n; i += 4, w += 4 * stride) {
        const int16_t *a = w, *b = a + stride, *c = b + stride, *d = c + stride;
        const int16_t *below = x, *const end = a + stride;
        int64_t sa = 0, sb = 0, sc = 0, sd = 0;
#pragma GCC unroll 2
        while (a < end) {
            const int32_t two = pair_at(below);
            below += 2;
            sa = __smlald(seen2(pair_at(a), shift), two, sa);
            sb = __smlald(seen2(pair_at(b), shift), two, sb);
            sc = __smlald(seen2(pair_at(c), shift), two, sc);
            sd = __smlald(seen2(pair_at(d), shift), two, sd);
            a += 2, b += 2, c += 2, d += 2;
        }
        out[i] = stored(sa, by + (layer->rows ? (int32_t)layer->rows[i] : 0));
        out[i + 1] = stored(sb, by + (layer->rows ? (int32_t)layer->rows[i + 1] : 0));
        out[i + 2] = stored(sc, by + (layer->rows ? (int32_t)layer->rows[i + 2] : 0));
        out[i + 3] = stored(sd, by + (layer->rows ? (int32_t)layer->rows[i + 3] : 0));
    }
    for (; i < n; i++, w += stride) {
        int64_t sum = 0;
        for (int32_t j = 0; j < stride; j += 2) {
            sum = __smlald(seen2(pair_at(w + j), shift), pair_at(x + j), sum);
        }
        out[i] = stored(sum, by + (layer->rows ? (int32_t)layer->rows[i] : 0));
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

/* One weight; `down` is the rounding of an update, already shifted. */
INLINE int32_t moved(int32_t w, int32_t g, int32_t down, int32_t limit, gle_update_count *count)
{
    const int32_t next = w + down;
    const int32_t kept = gle_clamp(next, limit);

    count->asked += (uint32_t)(g != 0);
    count->under += (uint32_t)(down == 0) & (uint32_t)(g != 0);
    count->clipped += (uint32_t)(next != kept);
    return kept;
}

INLINE void learn(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                  int32_t shift, uint32_t first, const int stochastic, gle_update_count *total)
{
    const gle_key key = how->key;
    const int32_t limit = how->limit, most = how->most, half = 1 << (shift - 1);
    const int32_t rest = 32 - shift;
    gle_update_count count = {0, 0, 0};

    for (int32_t j = 0; j < m; j++) {
        const int32_t g = e * x[j];
        const int32_t up = stochastic ? (int32_t)(gle_rng(key, first + (uint32_t)j) >> rest) : half;
        w[j] = (int16_t)moved(w[j], g, gle_clamp((g + up) >> shift, most), limit, &count);
    }
    total->asked += count.asked;
    total->under += count.under;
    total->clipped += count.clipped;
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
    } else if (how->stochastic) {
        learn(w, e, x, m, how, shift, first, 1, count);
    } else {
        learn(w, e, x, m, how, shift, first, 0, count);
    }
}

#else
typedef int gle_no_single_dsp; /* ISO C wants one declaration a file */
#endif
