/* One stream with AVX2: the vectors run over neurons, as there are no streams for them.
 *
 * The same integers as matvec_scalar.c. Rows of weights are padded to whole vectors with
 * zeros, and so are rates and errors (the arena is aligned to 64 bytes): where something is
 * read beyond a row's end, it is 0 and stays so.
 */
#include "neurons.h"
#include "single.h"

#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)

#include "lanes_avx2.h"

enum { WIDE = 16 /* int16 a vector */, SPILL = GLE_EXACT / 2 /* pairs a lane can add */ };

/* What the array sees is round(stored 2^-w_shift): a rounded product with 2^-w_shift in Q15. */
LANES __m256i seeing(int32_t w_shift)
{
    return _mm256_set1_epi16((int16_t)(w_shift > 0 ? 1 << (15 - w_shift) : 0));
}

LANES __m256i seen(const int16_t *w, const int shifted, __m256i by)
{
    const __m256i x = load(w);
    return shifted ? _mm256_mulhrs_epi16(x, by) : x;
}

/* A sum of products in two int32: 2^16 high + low, from lanes that hold an int32 each. */
typedef struct {
    __m256i high, low;
} split;

LANES void spill(split *s, __m256i *sum)
{
    s->high = _mm256_add_epi32(s->high, _mm256_srai_epi32(*sum, 16));
    s->low = _mm256_add_epi32(s->low, _mm256_and_si256(*sum, all(0xffff)));
    *sum = _mm256_setzero_si256();
}

/* The four sums of four vectors of lanes. */
LANES __m128i sums4(__m256i a, __m256i b, __m256i c, __m256i d)
{
    const __m256i x = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));

    return _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
}

LANES __m256i least(__m256i a, __m256i b)
{
    return _mm256_blendv_epi8(a, b, _mm256_cmpgt_epi64(a, b));
}

/* round((2^16 high + low) 2^-shift) clipped to GLE_SUM_MAX; shifts by lane, negative to the
 * left. The sum is below 2^47. */
LANES __m128i rounded(__m128i high, __m128i low, __m128i shift)
{
    const __m128i zero = _mm_setzero_si128();
    const __m256i right = _mm256_cvtepi32_epi64(_mm_max_epi32(shift, zero));
    const __m256i left = _mm256_cvtepi32_epi64(_mm_max_epi32(_mm_sub_epi32(zero, shift), zero));
    const __m256i half = _mm256_srli_epi64(_mm256_sllv_epi64(_mm256_set1_epi64x(1), right), 1);
    /* there is no arithmetic shift: with this added nothing is negative */
    const __m256i most = _mm256_set1_epi64x(1LL << 48);
    __m256i x = _mm256_add_epi64(_mm256_slli_epi64(_mm256_cvtepi32_epi64(high), 16),
                                 _mm256_cvtepi32_epi64(low));

    x = _mm256_srlv_epi64(_mm256_add_epi64(_mm256_add_epi64(x, half), most), right);
    x = _mm256_sllv_epi64(_mm256_sub_epi64(x, _mm256_srlv_epi64(most, right)), left);
    x = least(x, _mm256_set1_epi64x(GLE_SUM_MAX));
    x = _mm256_blendv_epi8(x, _mm256_set1_epi64x(-GLE_SUM_MAX),
                           _mm256_cmpgt_epi64(_mm256_set1_epi64x(-GLE_SUM_MAX), x));
    return _mm256_castsi256_si128(
        _mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6)));
}

/* Lanes of which `left` exist. */
LANES __m128i first4(int32_t left)
{
    return _mm_cmpgt_epi32(_mm_set1_epi32(left), _mm_setr_epi32(0, 1, 2, 3));
}

LANES void store4(int32_t *to, __m128i x, int32_t left)
{
    if (left >= 4) {
        _mm_storeu_si128((__m128i *)(void *)to, x);
    } else {
        _mm_maskstore_epi32(to, first4(left), x);
    }
}

/* Four rows at most: `rows` of them are stored. */
LANES void product_rows(int32_t *out, const int16_t *w, int32_t stride, int32_t rows,
                        const int16_t *x, const int shifted, __m256i by, __m128i shift)
{
    const __m256i zero = _mm256_setzero_si256();
    split s[4] = {{zero, zero}, {zero, zero}, {zero, zero}, {zero, zero}};
    __m256i sum[4] = {zero, zero, zero, zero};
    const int16_t *row[4];

#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
        row[r] = w + (size_t)(r < rows ? r : 0) * (size_t)stride;
    }
    for (int32_t j = 0; j < stride;) {
        const int32_t end = stride - j <= SPILL * WIDE ? stride : j + SPILL * WIDE;
        for (; j < end; j += WIDE) {
            const __m256i below = load(x + j);
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++) {
                sum[r] = _mm256_add_epi32(
                    sum[r], _mm256_madd_epi16(seen(row[r] + j, shifted, by), below));
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++) {
            spill(&s[r], &sum[r]);
        }
    }
    store4(out,
           rounded(sums4(s[0].high, s[1].high, s[2].high, s[3].high),
                   sums4(s[0].low, s[1].low, s[2].low, s[3].low), shift),
           rows);
}

LANES void product(int32_t *out, const gle_layer *layer, const int16_t *x, int32_t shift,
                   const int shifted)
{
    const __m256i seen_by = seeing(gle_single_shift(layer));
    const int16_t *w = gle_single_weights(layer);

    for (int32_t i = 0; i < layer->n; i += 4) {
        const int32_t rows = layer->n - i < 4 ? layer->n - i : 4;
        __m128i by = _mm_set1_epi32(shift);
        if (layer->rows != NULL) {
            const int *finer = (const int *)(const void *)(layer->rows + i);
            by = _mm_add_epi32(by, _mm_maskload_epi32(finer, first4(rows)));
        }
        product_rows(out + i, w + (size_t)i * (size_t)layer->stride, layer->stride, rows, x,
                     shifted, seen_by, by);
    }
}

AVX2 void gle_product_one_avx2(int32_t *out, const gle_layer *layer, const int16_t *x,
                               int32_t shift)
{
    if (gle_single_shift(layer) != 0) {
        product(out, layer, x, shift, 1);
    } else {
        product(out, layer, x, shift, 0);
    }
}

/* Two errors for a pair of rows; the second row of the last may be missing. */
LANES __m256i error_pair(const gle_layer *layer, int32_t i)
{
    int32_t a = layer->e[i], b = i + 1 < layer->n ? layer->e[i + 1] : 0;

    if (layer->rows != NULL) {
        a = gle_round(a, (int32_t)layer->rows[i]);
        b = i + 1 < layer->n ? gle_round(b, (int32_t)layer->rows[i + 1]) : 0;
    }
    return all((int32_t)(((uint32_t)a & 0xffffu) | (uint32_t)b << 16));
}

/* Two vectors of 16 inputs, over all neurons: no sum across lanes is needed. */
LANES void back_columns(int32_t *out, const gle_layer *layer, const int16_t *w, int32_t left,
                        const int shifted, __m256i by, int32_t shift)
{
    const __m256i zero = _mm256_setzero_si256();
    split s[4] = {{zero, zero}, {zero, zero}, {zero, zero}, {zero, zero}};
    __m256i sum[4] = {zero, zero, zero, zero};
    const size_t stride = (size_t)layer->stride;

    for (int32_t i = 0; i < layer->n;) {
        const int32_t end = layer->n - i <= GLE_EXACT ? layer->n : i + GLE_EXACT;
        for (; i < end; i += 2) {
            const int16_t *first = w + (size_t)i * stride;
            const int16_t *second = i + 1 < layer->n ? first + stride : first; /* times 0 */
            const __m256i e = error_pair(layer, i);
#pragma GCC unroll 2
            for (int c = 0; c < 2; c++) {
                const __m256i a = seen(first + WIDE * c, shifted, by);
                const __m256i b = seen(second + WIDE * c, shifted, by);
                sum[2 * c] = _mm256_add_epi32(
                    sum[2 * c], _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), e));
                sum[2 * c + 1] = _mm256_add_epi32(
                    sum[2 * c + 1], _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), e));
            }
        }
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++) {
            spill(&s[c], &sum[c]);
        }
    }
    /* of 16 inputs the low halves of both 128 bits come first in sum[0], the high in sum[1] */
#pragma GCC unroll 8
    for (int q = 0; q < 8; q++) {
        const split *from = &s[q / 4 * 2 + (q & 1)];
        const int upper = q & 2;
        const __m128i high = upper ? _mm256_extracti128_si256(from->high, 1)
                                   : _mm256_castsi256_si128(from->high);
        const __m128i low = upper ? _mm256_extracti128_si256(from->low, 1)
                                  : _mm256_castsi256_si128(from->low);
        if (left > 4 * q) {
            store4(out + 4 * q, rounded(high, low, _mm_set1_epi32(shift)), left - 4 * q);
        }
    }
}

AVX2 void gle_product_one_back_avx2(int32_t *out, const gle_layer *layer, int32_t shift)
{
    const int32_t w_shift = gle_single_shift(layer);
    const int16_t *w = gle_single_weights(layer);
    const __m256i by = seeing(w_shift);

    for (int32_t j = 0; j < layer->m; j += 2 * WIDE) {
        if (w_shift != 0) {
            back_columns(out + j, layer, w + j, layer->m - j, 1, by, shift);
        } else {
            back_columns(out + j, layer, w + j, layer->m - j, 0, by, shift);
        }
    }
}

/* What a row of updates counts, in lanes of 16 bits: as many as a row has vectors. */
typedef struct {
    __m256i idle, under, kept; /* -1 for each gradient that is 0, update that is 0, no clip */
} row_count;

LANES uint32_t ones(__m256i x)
{
    return total(_mm256_madd_epi16(x, _mm256_set1_epi16(-1)));
}

/* Sixteen updates onto their weights. */
LANES void apply(int16_t *w, __m256i below, __m256i delta, __m256i most, __m256i limit,
                 row_count *n)
{
    const __m256i zero = _mm256_setzero_si256();
    __m256i next, kept;

    delta = _mm256_max_epi16(_mm256_sub_epi16(zero, most), _mm256_min_epi16(most, delta));
    next = _mm256_adds_epi16(load(w), delta);
    kept = _mm256_max_epi16(_mm256_sub_epi16(zero, limit), _mm256_min_epi16(limit, next));
    n->idle = _mm256_add_epi16(n->idle, _mm256_cmpeq_epi16(below, zero));
    n->under = _mm256_add_epi16(n->under, _mm256_cmpeq_epi16(delta, zero));
    n->kept = _mm256_add_epi16(n->kept, _mm256_cmpeq_epi16(next, kept));
    store(w, kept);
}

LANES void counted(gle_update_count *count, const row_count *n, int32_t padded)
{
    const uint32_t idle = ones(n->idle);

    count->asked += (uint32_t)padded - idle;    /* e is not 0 */
    count->under += ones(n->under) - idle;
    count->clipped += (uint32_t)padded - ones(n->kept);
}

/* To nearest, for shifts of 13 and more. Where 17 or more bits are dropped, the lower half
 * of a product e x does not matter: its upper one is rounded, 16 bits wide. Smaller shifts
 * become 17 by factors of 4 at most, as these have 14 bits. */
LANES void nearest(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                   int32_t shift, gle_update_count *count)
{
    const int32_t up = shift < 17 ? 17 - shift : 0, up_e = up < 2 ? up : 2;
    const int32_t drop = shift < 17 ? 1 : shift < 31 ? shift - 16 : 15;
    const __m256i error = _mm256_set1_epi16((int16_t)(e * (1 << up_e)));
    const __m256i by = _mm256_set1_epi16((int16_t)(1 << (15 - drop)));
    const __m256i most = _mm256_set1_epi16((int16_t)(how->most < 32767 ? how->most : 32767));
    const __m256i limit = _mm256_set1_epi16((int16_t)how->limit);
    const __m128i up_x = _mm_cvtsi32_si128(up - up_e);
    row_count n = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
    int32_t j = 0;

    for (; j < m; j += WIDE) {
        const __m256i below = load(x + j);
        const __m256i high = _mm256_mulhi_epi16(_mm256_sll_epi16(below, up_x), error);
        apply(w + j, below, _mm256_mulhrs_epi16(high, by), most, limit, &n);
    }
    counted(count, &n, j);
}

/* At random, for 12 <= shift <= 30: every update fits an int16, and a gradient and its random
 * bits an int32. Even weights and odd ones make a vector of products each, of which word k of
 * their root has bits for the k-th. */
LANES void stochastic(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                      int32_t shift, uint32_t root, gle_update_count *count)
{
    static const uint32_t factors[GLE_RNG_SHARE / 2] = GLE_RNG_FACTORS;
    const __m256i zero = _mm256_setzero_si256(), one = all(0x8000), upper = all(-0x10000);
    const __m256i e_even = all(e & 0xffff), e_odd = all((int32_t)((uint32_t)e << 16));
    const __m256i each = load((const int16_t *)(const void *)factors);
    const __m128i k = _mm_cvtsi32_si128(shift), rest = _mm_cvtsi32_si128(32 - shift);
    const __m256i most = _mm256_set1_epi16((int16_t)(how->most < 32767 ? how->most : 32767));
    const __m256i limit = _mm256_set1_epi16((int16_t)how->limit);
    row_count n = {zero, zero, zero};
    int32_t j = 0;

    for (; j < m; j += WIDE) {
        const __m256i below = load(x + j);
        __m256i word = _mm256_mullo_epi32(all((int32_t)gle_rng_root(how->key, root++)), each);
        __m256i even, odd;
        word = _mm256_xor_si256(word, _mm256_srli_epi32(word, 15));
        even = _mm256_or_si256(_mm256_slli_epi32(word, 16), one);
        odd = _mm256_or_si256(_mm256_and_si256(word, upper), one);
        even = _mm256_add_epi32(_mm256_srl_epi32(even, rest), _mm256_madd_epi16(below, e_even));
        odd = _mm256_add_epi32(_mm256_srl_epi32(odd, rest), _mm256_madd_epi16(below, e_odd));
        odd = _mm256_slli_epi32(_mm256_sra_epi32(odd, k), 16);
        apply(w + j, below, _mm256_blend_epi16(_mm256_sra_epi32(even, k), odd, 0xaa), most, limit,
              &n);
    }
    counted(count, &n, j);
}

AVX2 void gle_learn_one_avx2(int16_t *w, int32_t e, const int16_t *x, int32_t m,
                             const gle_update *how, int32_t shift, uint32_t root,
                             gle_update_count *count)
{
    if (e == 0) {
        return; /* rounds to nothing either way, and asks for nothing */
    }
    if (!how->stochastic && shift >= 13) {
        nearest(w, e, x, m, how, shift, count);
    } else if (how->stochastic && shift >= 12 && shift <= 30) {
        stochastic(w, e, x, m, how, shift, root, count);
    } else {
        gle_learn_one_any_avx2(w, e, x, m, how, shift, root, count);
    }
}

#else
typedef int gle_no_single_avx2; /* ISO C wants one declaration a file */
#endif
