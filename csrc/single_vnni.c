/* One stream with AVX-512 VNNI: the vectors run over neurons, as there are no streams for them.
 *
 * The same integers as matvec_scalar.c and neurons_scalar.c. Rows of weights are padded to
 * whole vectors with zeros, and so are rates and errors (the arena is aligned to 64 bytes).
 */
#include "neurons.h"
#include "single.h"

#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)

#include "share_vnni.h"

enum { WIDE = 32 /* int16 a vector */, SPILL = GLE_EXACT / 2 /* pairs a lane can add */ };

/* What rounds stored weights to what the array sees: vpmulhrsw with 2^(15 - shift), which rounds
 * as gle_round does. Nothing is to be done for a shift of 0. */
LANES __m512i seeing(int32_t w_shift)
{
    return _mm512_set1_epi16((int16_t)(w_shift > 0 ? 1 << (15 - w_shift) : 0));
}

LANES __m512i seen(const int16_t *w, int32_t w_shift, __m512i by)
{
    return w_shift == 0 ? load(w) : _mm512_mulhrs_epi16(load(w), by);
}

/* A sum of products in two int32: 2^16 high + low, from lanes that hold an int32 each. */
typedef struct {
    __m512i high, low;
} split;

LANES void spill(split *s, __m512i *sum)
{
    s->high = _mm512_add_epi32(s->high, _mm512_srai_epi32(*sum, 16));
    s->low = _mm512_add_epi32(s->low, _mm512_and_si512(*sum, all(0xffff)));
    *sum = _mm512_setzero_si512();
}

LANES __m256i halves(__m512i x)
{
    return _mm256_add_epi32(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1));
}

/* The four sums of four vectors of lanes. */
LANES __m128i sums4(__m512i a, __m512i b, __m512i c, __m512i d)
{
    const __m256i ab = _mm256_hadd_epi32(halves(a), halves(b));
    const __m256i cd = _mm256_hadd_epi32(halves(c), halves(d));
    const __m256i x = _mm256_hadd_epi32(ab, cd);

    return _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
}

/* The same of lanes that hold 4 products each at most: both halves of 32 products fit. */
LANES __m512i sums4_wide(__m512i a, __m512i b, __m512i c, __m512i d)
{
    const __m256i ab = _mm256_hadd_epi32(halves(a), halves(b));
    const __m256i cd = _mm256_hadd_epi32(halves(c), halves(d));
    const __m512i x = _mm512_cvtepi32_epi64(_mm256_hadd_epi32(ab, cd));

    return _mm512_add_epi64(x, _mm512_shuffle_i64x2(x, x, 0xee)); /* in the lower half */
}

/* round(x 2^-shift) clipped to GLE_SUM_MAX; shifts by lane, negative to the left. |x| < 2^47. */
LANES __m256i rounded(__m512i x, __m512i shift)
{
    const __m512i zero = _mm512_setzero_si512();
    const __m512i right = _mm512_max_epi64(shift, zero);
    const __m512i left = _mm512_max_epi64(_mm512_sub_epi64(zero, shift), zero);
    const __m512i half = _mm512_srli_epi64(_mm512_sllv_epi64(_mm512_set1_epi64(1), right), 1);
    __m512i y = _mm512_srav_epi64(_mm512_add_epi64(x, half), right);

    y = _mm512_sllv_epi64(y, left);
    y = _mm512_max_epi64(_mm512_set1_epi64(-GLE_SUM_MAX),
                         _mm512_min_epi64(_mm512_set1_epi64(GLE_SUM_MAX), y));
    return _mm512_cvtepi64_epi32(y);
}

/* Four rows at most: `rows` of them are stored. */
LANES void product_rows(int32_t *out, const int16_t *w, int32_t stride, int32_t rows,
                        const int16_t *x, int32_t w_shift, __m256i shift)
{
    const __m512i zero = _mm512_setzero_si512(), by = seeing(w_shift);
    split s[4] = {{zero, zero}, {zero, zero}, {zero, zero}, {zero, zero}};
    __m512i sum[4] = {zero, zero, zero, zero};
    const int16_t *row[4];
    __m512i total;

#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
        row[r] = w + (size_t)(r < rows ? r : 0) * (size_t)stride;
    }
    for (int32_t j = 0; j < stride;) {
        const int32_t end = stride - j <= SPILL * WIDE ? stride : j + SPILL * WIDE;
        for (; j < end; j += WIDE) {
            const __m512i below = load(x + j);
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++) {
                sum[r] = _mm512_dpwssd_epi32(sum[r], seen(row[r] + j, w_shift, by), below);
            }
        }
        if (stride > 2 * WIDE) {
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++) {
                spill(&s[r], &sum[r]);
            }
        }
    }
    if (stride > 2 * WIDE) {
        const __m256i high =
            _mm256_castsi128_si256(sums4(s[0].high, s[1].high, s[2].high, s[3].high));
        const __m256i low = _mm256_castsi128_si256(sums4(s[0].low, s[1].low, s[2].low, s[3].low));
        total = _mm512_add_epi64(_mm512_slli_epi64(_mm512_cvtepi32_epi64(high), 16),
                                 _mm512_cvtepi32_epi64(low));
    } else {
        total = sums4_wide(sum[0], sum[1], sum[2], sum[3]);
    }
    _mm_mask_storeu_epi32(out, (__mmask8)((1u << rows) - 1u),
                          _mm256_castsi256_si128(rounded(total, _mm512_cvtepi32_epi64(shift))));
}

AVX512 void gle_product_one_vnni(int32_t *out, const gle_layer *layer, const int16_t *x,
                               int32_t shift)
{
    const int32_t w_shift = gle_single_shift(layer);
    const int16_t *w = gle_single_weights(layer);

    for (int32_t i = 0; i < layer->n; i += 4) {
        const int32_t rows = layer->n - i < 4 ? layer->n - i : 4;
        __m128i by = _mm_set1_epi32(shift);
        if (layer->rows != NULL) {
            by = _mm_add_epi32(by, _mm_maskz_loadu_epi32((__mmask8)((1u << rows) - 1u),
                                                         layer->rows + i));
        }
        product_rows(out + i, w + (size_t)i * (size_t)layer->stride, layer->stride, rows, x,
                     w_shift, _mm256_castsi128_si256(by));
    }
}

/* Two errors for a pair of rows; the second row of the last may be missing. */
LANES __m512i error_pair(const gle_layer *layer, int32_t i)
{
    int32_t a = layer->e[i], b = i + 1 < layer->n ? layer->e[i + 1] : 0;

    if (layer->rows != NULL) {
        a = gle_round(a, (int32_t)layer->rows[i]);
        b = i + 1 < layer->n ? gle_round(b, (int32_t)layer->rows[i + 1]) : 0;
    }
    return all((int32_t)(((uint32_t)a & 0xffffu) | (uint32_t)b << 16));
}

/* V vectors of 32 inputs each, over all neurons: no sum across lanes is needed. */
LANES void back_columns(const int V, int32_t *out, const gle_layer *layer, const int16_t *w,
                        int32_t left, int32_t w_shift, int32_t shift)
{
    const __m512i zero = _mm512_setzero_si512(), by_see = seeing(w_shift);
    split s[4] = {{zero, zero}, {zero, zero}, {zero, zero}, {zero, zero}};
    __m512i sum[4] = {zero, zero, zero, zero};
    const size_t stride = (size_t)layer->stride;

    for (int32_t i = 0; i < layer->n;) {
        const int32_t end = layer->n - i <= GLE_EXACT ? layer->n : i + GLE_EXACT;
        for (; i < end; i += 2) {
            const int16_t *first = w + (size_t)i * stride;
            const int16_t *second = i + 1 < layer->n ? first + stride : first; /* times 0 */
            const __m512i e = error_pair(layer, i);
#pragma GCC unroll 2
            for (int c = 0; c < V; c++) {
                const __m512i a = seen(first + WIDE * c, w_shift, by_see);
                const __m512i b = seen(second + WIDE * c, w_shift, by_see);
                sum[2 * c] = _mm512_dpwssd_epi32(sum[2 * c], _mm512_unpacklo_epi16(a, b), e);
                sum[2 * c + 1] =
                    _mm512_dpwssd_epi32(sum[2 * c + 1], _mm512_unpackhi_epi16(a, b), e);
            }
        }
#pragma GCC unroll 4
        for (int c = 0; c < 2 * V; c++) {
            spill(&s[c], &sum[c]);
        }
    }
#pragma GCC unroll 2
    for (int c = 0; c < V; c++) {
        /* unpacked halves of 128 bits back into their order, 16 inputs at a time */
        const __m512i one = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
        const __m512i two = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
        const __m512i by = _mm512_set1_epi64(shift);
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            const __m512i pick = h ? two : one;
            const __m512i high = _mm512_permutex2var_epi64(s[2 * c].high, pick, s[2 * c + 1].high);
            const __m512i low = _mm512_permutex2var_epi64(s[2 * c].low, pick, s[2 * c + 1].low);
#pragma GCC unroll 2
            for (int q = 0; q < 2; q++) {
                const __m256i high8 = q ? _mm512_extracti64x4_epi64(high, 1)
                                        : _mm512_castsi512_si256(high);
                const __m256i low8 = q ? _mm512_extracti64x4_epi64(low, 1)
                                       : _mm512_castsi512_si256(low);
                const __m512i total =
                    _mm512_add_epi64(_mm512_slli_epi64(_mm512_cvtepi32_epi64(high8), 16),
                                     _mm512_cvtepi32_epi64(low8));
                const int32_t at = WIDE * c + 16 * h + 8 * q, here = left - at;
                const __mmask8 some = here >= 8  ? (__mmask8)0xff
                                      : here > 0 ? (__mmask8)((1u << here) - 1u)
                                                 : (__mmask8)0;
                _mm256_mask_storeu_epi32(out + at, some, rounded(total, by));
            }
        }
    }
}

AVX512 void gle_product_one_back_vnni(int32_t *out, const gle_layer *layer, int32_t shift)
{
    const int32_t w_shift = gle_single_shift(layer);
    const int16_t *w = gle_single_weights(layer);
    int32_t j = 0;

    for (; layer->m - j > WIDE; j += 2 * WIDE) {
        back_columns(2, out + j, layer, w + j, layer->m - j, w_shift, shift);
    }
    if (layer->m - j > 0) {
        back_columns(1, out + j, layer, w + j, layer->m - j, w_shift, shift);
    }
}

/* To nearest, for 12 <= shift <= 30: every update fits an int16. 32 weights at a time. */
LANES void nearest(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                   int32_t shift, gle_update_count *count)
{
    const __m512i error = all(e & 0xffff), zero = _mm512_setzero_si512();
    const __m512i half = all(1 << (shift - 1));
    const __m128i k = _mm_cvtsi32_si128(shift);
    const __m512i most = _mm512_set1_epi16((int16_t)(how->most < 32767 ? how->most : 32767));
    const __m512i limit = _mm512_set1_epi16((int16_t)how->limit);

    for (int32_t j = 0; j < m; j += WIDE) {
        const __m512i below = load(x + j), old = load(w + j);
        __m512i low = _mm512_madd_epi16(_mm512_unpacklo_epi16(below, zero), error);
        __m512i high = _mm512_madd_epi16(_mm512_unpackhi_epi16(below, zero), error);
        __m512i delta, next, kept;
        __mmask32 asked;
        low = _mm512_sra_epi32(_mm512_add_epi32(low, half), k);
        high = _mm512_sra_epi32(_mm512_add_epi32(high, half), k);
        delta = _mm512_packs_epi32(low, high);
        delta = _mm512_max_epi16(_mm512_sub_epi16(zero, most), _mm512_min_epi16(most, delta));
        next = _mm512_adds_epi16(old, delta);
        kept = _mm512_max_epi16(_mm512_sub_epi16(zero, limit), _mm512_min_epi16(limit, next));
        asked = _mm512_cmpneq_epi16_mask(below, zero); /* e is not 0 */
        count->asked += (uint32_t)_mm_popcnt_u32(asked);
        count->under += (uint32_t)_mm_popcnt_u32(asked & _mm512_cmpeq_epi16_mask(delta, zero));
        count->clipped += (uint32_t)_mm_popcnt_u32(_mm512_cmpneq_epi16_mask(next, kept));
        _mm512_storeu_si512(w + j, kept);
    }
}

/* A right shift of 1 and more as update.inc splits it: at most 31 bits at random. */
typedef struct {
    int32_t k;
    __m128i before, by;
} dropped;

LANES dropped dropped_of(int32_t shift)
{
    const int32_t before = shift > 31 ? (shift > 62 ? 31 : shift - 31) : 0;
    const int32_t k = shift > 31 ? 31 : shift;
    const dropped d = {k, _mm_cvtsi32_si128(before), _mm_cvtsi32_si128(k)};

    return d;
}

/* See update.inc; sixteen weights at a time, `live` of them. */
LANES void sixteen(int16_t *w, __m512i g, __mmask16 live, const gle_update *how, dropped by,
                   uint32_t root, gle_update_count *count)
{
    const __m512i mask = all((int32_t)((UINT32_C(1) << by.k) - 1u)), zero = _mm512_setzero_si512();
    const __m512i old = _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(live, w));
    const __m512i x = _mm512_sra_epi32(g, by.before);
    __m512i up, delta, next, kept;
    __mmask16 asked;

    if (how->stochastic) {
        up = rng_share(all((int32_t)gle_rng_root(how->key, root)));
        up = _mm512_srl_epi32(up, _mm_cvtsi32_si128(32 - by.k));
    } else {
        up = all((int32_t)(UINT32_C(1) << (by.k - 1)));
    }
    up = _mm512_srl_epi32(_mm512_add_epi32(_mm512_and_si512(x, mask), up), by.by);
    delta = clamp(_mm512_add_epi32(_mm512_sra_epi32(x, by.by), up), how->most);
    next = _mm512_add_epi32(old, delta);
    kept = clamp(next, how->limit);
    asked = _mm512_mask_cmpneq_epi32_mask(live, g, zero);
    count->asked += (uint32_t)_mm_popcnt_u32(asked);
    count->under += (uint32_t)_mm_popcnt_u32(_mm512_mask_cmpeq_epi32_mask(asked, delta, zero));
    count->clipped +=
        (uint32_t)_mm_popcnt_u32(_mm512_mask_cmpneq_epi32_mask(live, next, kept));
    _mm512_mask_cvtepi32_storeu_epi16(w, live, kept);
}

LANES __mmask16 lanes_of(int32_t count)
{
    return count >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << count) - 1u);
}

/* One stream: the gradient is e x. */
LANES void stochastic(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                      int32_t shift, uint32_t root, gle_update_count *count)
{
    const __m512i error = all(e & 0xffff);
    const dropped by = dropped_of(shift);

    for (int32_t j = 0; j < m; j += 16) {
        const __mmask16 live = lanes_of(m - j);
        const __m512i below = _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(live, x + j));
        sixteen(w + j, _mm512_madd_epi16(below, error), live, how, by, root++, count);
    }
}

AVX512 void gle_update_vnni(int16_t *w, const int32_t *gradient, int32_t m, const gle_update *how,
                            int32_t shift, uint32_t root, gle_update_count *count)
{
    dropped by;

    if (shift < 1) {
        gle_update_wide(w, gradient, m, how, shift, root, count);
        return;
    }
    by = dropped_of(shift);
    for (int32_t j = 0; j < m; j += 16) {
        const __mmask16 live = lanes_of(m - j);
        sixteen(w + j, _mm512_maskz_loadu_epi32(live, gradient + j), live, how, by,
                root++, count);
    }
}

AVX512 void gle_learn_one_vnni(int16_t *w, int32_t e, const int16_t *x, int32_t m,
                             const gle_update *how, int32_t shift, uint32_t root,
                             gle_update_count *count)
{
    if (e == 0) {
        return; /* rounds to nothing either way, and asks for nothing */
    }
    if (!how->stochastic && shift >= 12) {
        nearest(w, e, x, m, how, shift < 30 ? shift : 30, count); /* |e x| < 2^26: all 0 there */
    } else if (how->stochastic && shift >= 1) {
        stochastic(w, e, x, m, how, shift, root, count);
    } else {
        gle_learn_one_wide(w, e, x, m, how, shift, root, count);
    }
}

#else
typedef int gle_no_single_vnni; /* ISO C wants one declaration a file */
#endif
