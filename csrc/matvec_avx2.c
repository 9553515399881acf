/* The kernels for AVX2: register tiles of pmaddwd, which multiplies pairs of int16
 * and adds each pair into an int32. Same bits as matvec_scalar.c: the sums are exact.
 *
 * A tile is R rows by V vectors of 8 columns. Up to 16 pairs (32 products of 14-bit
 * factors) stay in int32; longer sums are spilled as 2^16 high + low, both int32, so
 * that everything including the one rounding stays in 32-bit lanes.
 */
#include "kernels.h"

#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)

#include <immintrin.h>
#include <string.h>

#include "learner.h"
#include "neurons.h"
#include "single.h"

#define AVX2 __attribute__((target("avx2")))
#define TILE static inline __attribute__((always_inline, target("avx2")))

enum { PAIRS = GLE_EXACT / 2 };

TILE __m256i pair_at(const int16_t *p)
{
    int32_t two;
    memcpy(&two, p, sizeof two);
    return _mm256_set1_epi32(two);
}

TILE __m256i clamp_to(__m256i x, int32_t low, int32_t high)
{
    return _mm256_max_epi32(_mm256_set1_epi32(low), _mm256_min_epi32(_mm256_set1_epi32(high), x));
}

/* round(x * 2^-shift) clipped to GLE_SUM_MAX, for sums that fit int32. */
TILE __m256i round_sum(__m256i x, int32_t shift)
{
    if (shift > 0) {
        const __m128i k = _mm_cvtsi32_si128(shift);
        const __m128i k1 = _mm_cvtsi32_si128(shift - 1);
        const __m256i bit = _mm256_and_si256(_mm256_sra_epi32(x, k1), _mm256_set1_epi32(1));
        x = _mm256_add_epi32(_mm256_sra_epi32(x, k), bit);
    } else if (shift < 0) {
        const int32_t most = GLE_SUM_MAX >> -shift;
        x = _mm256_sll_epi32(clamp_to(x, -most, most), _mm_cvtsi32_si128(-shift));
    }
    return clamp_to(x, -GLE_SUM_MAX, GLE_SUM_MAX);
}

/* round((2^16 high + low) * 2^-shift) clipped to GLE_SUM_MAX; 0 <= low < 2^31. */
TILE __m256i round_wide(__m256i high, __m256i low, int32_t shift)
{
    high = _mm256_add_epi32(high, _mm256_srli_epi32(low, 16));
    low = _mm256_and_si256(low, _mm256_set1_epi32(0xffff));
    if (shift > 16) {
        const __m256i half = _mm256_set1_epi32(1 << (shift - 17));
        high = _mm256_sra_epi32(_mm256_add_epi32(high, half), _mm_cvtsi32_si128(shift - 16));
    } else {
        /* Clip first, one beyond what survives the last clip, so that nothing overflows. */
        const int32_t up = 16 - shift;
        const int32_t most = up < 30 ? GLE_SUM_MAX >> up : 1;
        const __m256i half = _mm256_set1_epi32(shift > 0 ? 1 << (shift - 1) : 0);
        const __m256i inside = clamp_to(high, -most - 1, most);
        const __m256i exact = _mm256_cmpeq_epi32(inside, high);
        low = _mm256_and_si256(low, exact);
        if (shift >= 0) {
            low = _mm256_srl_epi32(_mm256_add_epi32(low, half), _mm_cvtsi32_si128(shift));
        } else {
            low = _mm256_sll_epi32(low, _mm_cvtsi32_si128(-shift));
        }
        high = _mm256_add_epi32(_mm256_sll_epi32(inside, _mm_cvtsi32_si128(up)), low);
    }
    return clamp_to(high, -GLE_SUM_MAX, GLE_SUM_MAX);
}

TILE void product_tile(const int R, const int V, const int wide, int32_t *out, const int16_t *w,
                       int32_t stride, int32_t pairs_in, const int16_t *x, int32_t columns,
                       int32_t shift, const uint32_t *rows)
{
    __m256i sum[4][3], high[4][3], low[4][3];
    const int32_t chunk = wide ? PAIRS : pairs_in;

#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 3
        for (int c = 0; c < V; c++) {
            sum[r][c] = high[r][c] = low[r][c] = _mm256_setzero_si256();
        }
    }
    for (int32_t k = 0; k < pairs_in;) {
        const int32_t end = pairs_in - k <= chunk ? pairs_in : k + chunk;
        for (; k < end; k++) {
            const int16_t *panel = x + (size_t)k * (size_t)columns * 2;
            __m256i xs[3];
#pragma GCC unroll 3
            for (int c = 0; c < V; c++) {
                xs[c] = _mm256_loadu_si256((const __m256i *)(const void *)(panel + 16 * c));
            }
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                const __m256i ws = pair_at(w + (size_t)r * (size_t)stride + 2 * (size_t)k);
#pragma GCC unroll 3
                for (int c = 0; c < V; c++) {
                    sum[r][c] = _mm256_add_epi32(sum[r][c], _mm256_madd_epi16(ws, xs[c]));
                }
            }
        }
        if (wide) {
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
#pragma GCC unroll 3
                for (int c = 0; c < V; c++) {
                    const __m256i mask = _mm256_set1_epi32(0xffff);
                    high[r][c] = _mm256_add_epi32(high[r][c], _mm256_srai_epi32(sum[r][c], 16));
                    low[r][c] = _mm256_add_epi32(low[r][c], _mm256_and_si256(sum[r][c], mask));
                    sum[r][c] = _mm256_setzero_si256();
                }
            }
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        const int32_t k = shift + (rows ? (int32_t)rows[r] : 0);
#pragma GCC unroll 3
        for (int c = 0; c < V; c++) {
            const __m256i y = wide ? round_wide(high[r][c], low[r][c], k)
                                   : round_sum(sum[r][c], k);
            int32_t *to = out + (size_t)r * (size_t)columns + 8 * (size_t)c;
            _mm256_storeu_si256((__m256i *)(void *)to, y);
        }
    }
}

TILE void product_rows(const int V, const int wide, int32_t *out, const int16_t *w, int32_t stride,
                       int32_t n, int32_t pairs_in, const int16_t *x, int32_t columns,
                       int32_t shift, const uint32_t *rows)
{
    int32_t i = 0;

    for (; i + 4 <= n; i += 4) {
        product_tile(4, V, wide, out + (size_t)i * (size_t)columns,
                     w + (size_t)i * (size_t)stride, stride, pairs_in, x, columns, shift,
                     rows ? rows + i : NULL);
    }
    for (; i < n; i++) {
        product_tile(1, V, wide, out + (size_t)i * (size_t)columns,
                     w + (size_t)i * (size_t)stride, stride, pairs_in, x, columns, shift,
                     rows ? rows + i : NULL);
    }
}

TILE void product_columns(const int wide, int32_t *out, const int16_t *w, int32_t stride, int32_t n,
                          int32_t pairs_in, const int16_t *x, int32_t columns, int32_t shift,
                          const uint32_t *rows)
{
    int32_t b = 0;

    for (; columns - b >= 24; b += 24) {
        product_rows(3, wide, out + b, w, stride, n, pairs_in, x + 2 * (size_t)b, columns, shift,
                     rows);
    }
    for (; columns - b >= 16; b += 16) {
        product_rows(2, wide, out + b, w, stride, n, pairs_in, x + 2 * (size_t)b, columns, shift,
                     rows);
    }
    for (; columns - b >= 8; b += 8) {
        product_rows(1, wide, out + b, w, stride, n, pairs_in, x + 2 * (size_t)b, columns, shift,
                     rows);
    }
}

AVX2 static void product(int32_t *out, const int16_t *w, int32_t stride, int32_t n, int32_t m,
                         const int16_t *pairs, int32_t columns, int32_t shift, const uint32_t *rows,
                         int32_t fits)
{
    const int32_t pairs_in = (m + 1) / 2;

    if (fits || pairs_in <= PAIRS) {
        product_columns(0, out, w, stride, n, pairs_in, pairs, columns, shift, rows);
    } else {
        product_columns(1, out, w, stride, n, pairs_in, pairs, columns, shift, rows);
    }
}

/* Sums over streams: rows of e by 8 inputs a vector. */
TILE void outer_tile(const int R, const int V, const int wide, int32_t *out, const int16_t *e,
                     int32_t columns, const int16_t *turned, int32_t stride, int32_t shift)
{
    __m256i sum[4][3], high[4][3], low[4][3];
    const int32_t pairs_in = columns / 2;

    for (int r = 0; r < R; r++) {
        for (int c = 0; c < V; c++) {
            sum[r][c] = high[r][c] = low[r][c] = _mm256_setzero_si256();
        }
    }
    for (int32_t k = 0; k < pairs_in;) {
        const int32_t end = pairs_in - k <= PAIRS ? pairs_in : k + PAIRS;
        for (; k < end; k++) {
            const int16_t *panel = turned + (size_t)k * (size_t)stride * 2;
            __m256i xs[3];
#pragma GCC unroll 3
            for (int c = 0; c < V; c++) {
                xs[c] = _mm256_loadu_si256((const __m256i *)(const void *)(panel + 16 * c));
            }
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                const __m256i es = pair_at(e + (size_t)r * (size_t)columns + 2 * (size_t)k);
#pragma GCC unroll 3
                for (int c = 0; c < V; c++) {
                    sum[r][c] = _mm256_add_epi32(sum[r][c], _mm256_madd_epi16(es, xs[c]));
                }
            }
        }
        if (wide) {
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
#pragma GCC unroll 3
                for (int c = 0; c < V; c++) {
                    const __m256i mask = _mm256_set1_epi32(0xffff);
                    high[r][c] = _mm256_add_epi32(high[r][c], _mm256_srai_epi32(sum[r][c], 16));
                    low[r][c] = _mm256_add_epi32(low[r][c], _mm256_and_si256(sum[r][c], mask));
                    sum[r][c] = _mm256_setzero_si256();
                }
            }
        }
    }
    /* shift <= 16 here, and the result fits int32 (gle_gradient_shift) */
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 3
        for (int c = 0; c < V; c++) {
            __m256i y = sum[r][c];
            if (wide) {
                const __m256i half = _mm256_set1_epi32(shift > 0 ? 1 << (shift - 1) : 0);
                const __m256i up = _mm256_sll_epi32(high[r][c], _mm_cvtsi32_si128(16 - shift));
                y = _mm256_add_epi32(
                    up, _mm256_srl_epi32(_mm256_add_epi32(low[r][c], half),
                                         _mm_cvtsi32_si128(shift)));
            }
            int32_t *to = out + (size_t)r * (size_t)stride + 8 * (size_t)c;
            _mm256_storeu_si256((__m256i *)(void *)to, y);
        }
    }
}

TILE void outer_rows(const int V, const int wide, int32_t *out, const int16_t *e, int32_t rows,
                     int32_t columns, const int16_t *turned, int32_t stride, int32_t shift)
{
    int32_t i = 0;

    for (; i + 4 <= rows; i += 4) {
        outer_tile(4, V, wide, out + (size_t)i * (size_t)stride, e + (size_t)i * (size_t)columns,
                   columns, turned, stride, shift);
    }
    for (; i < rows; i++) {
        outer_tile(1, V, wide, out + (size_t)i * (size_t)stride, e + (size_t)i * (size_t)columns,
                   columns, turned, stride, shift);
    }
}

TILE void outer_columns(const int wide, int32_t *out, const int16_t *e, int32_t rows,
                        const int16_t *turned, int32_t stride, int32_t m, int32_t columns,
                        int32_t shift)
{
    int32_t j = 0;

    for (; m - j > 16; j += 24) {
        outer_rows(3, wide, out + j, e, rows, columns, turned + 2 * (size_t)j, stride, shift);
    }
    for (; m - j > 8; j += 16) {
        outer_rows(2, wide, out + j, e, rows, columns, turned + 2 * (size_t)j, stride, shift);
    }
    for (; m - j > 0; j += 8) {
        outer_rows(1, wide, out + j, e, rows, columns, turned + 2 * (size_t)j, stride, shift);
    }
}

AVX2 static void outer(int32_t *out, const int16_t *e, int32_t rows, const int16_t *turned,
                       int32_t stride, int32_t m, int32_t columns, int32_t shift)
{
    if (columns / 2 <= PAIRS) {
        outer_columns(0, out, e, rows, turned, stride, m, columns, shift);
    } else {
        outer_columns(1, out, e, rows, turned, stride, m, columns, shift);
    }
}

AVX2 int32_t gle_pairs_avx2(int16_t *pairs, const int16_t *x, int32_t n, int32_t columns)
{
    __m128i most = _mm_setzero_si128();

    for (int32_t j = 0; j < n; j += 2) {
        const int16_t *even = x + (size_t)j * (size_t)columns;
        int16_t *to = pairs + (size_t)j * (size_t)columns;
        for (int32_t b = 0; b < columns; b += 8) {
            const __m128i a = _mm_loadu_si128((const __m128i *)(const void *)(even + b));
            const __m128i c = j + 1 < n ? _mm_loadu_si128((const __m128i *)(const void *)(
                                              even + columns + b))
                                        : _mm_setzero_si128();
            __m128i *out = (__m128i *)(void *)(to + 2 * (size_t)b);
            _mm_storeu_si128(out, _mm_unpacklo_epi16(a, c));
            _mm_storeu_si128(out + 1, _mm_unpackhi_epi16(a, c));
            most = _mm_max_epi16(most, _mm_max_epi16(_mm_abs_epi16(a), _mm_abs_epi16(c)));
        }
    }
    /* minpos finds the least: of what is left to 0xffff */
    most = _mm_minpos_epu16(_mm_xor_si128(most, _mm_set1_epi16(-1)));
    return 0xffff - _mm_extract_epi16(most, 0);
}

/* A transposition of 32-bit elements (two streams each): 8 by 4 at a time. */
AVX2 void gle_turned_avx2(int16_t *turned, const int16_t *x, int32_t n, int32_t stride,
                          int32_t columns)
{
    for (int32_t j = 0; j < stride; j += 4) {
        for (int32_t b = 0; b < columns; b += 8) {
            __m128i row[4];
            for (int32_t r = 0; r < 4; r++) {
                const int16_t *from = x + (size_t)(j + r) * (size_t)columns + (size_t)b;
                row[r] = j + r < n ? _mm_loadu_si128((const __m128i *)(const void *)from)
                                   : _mm_setzero_si128();
            }
            const __m128i a = _mm_unpacklo_epi32(row[0], row[1]);
            const __m128i c = _mm_unpackhi_epi32(row[0], row[1]);
            const __m128i d = _mm_unpacklo_epi32(row[2], row[3]);
            const __m128i f = _mm_unpackhi_epi32(row[2], row[3]);
            const size_t step = (size_t)stride * 2;
            int16_t *to = turned + (size_t)(b / 2) * step + 2 * (size_t)j;
            _mm_storeu_si128((__m128i *)(void *)to, _mm_unpacklo_epi64(a, d));
            _mm_storeu_si128((__m128i *)(void *)(to + step), _mm_unpackhi_epi64(a, d));
            _mm_storeu_si128((__m128i *)(void *)(to + 2 * step), _mm_unpacklo_epi64(c, f));
            _mm_storeu_si128((__m128i *)(void *)(to + 3 * step), _mm_unpackhi_epi64(c, f));
        }
    }
}

/* 8 by 8; rows and columns beyond n and m are padding and become 0. */
TILE void turn_8(int16_t *to, const int16_t *from, int32_t n, int32_t m, int32_t stride,
                 int32_t stride_t, int32_t i, int32_t j)
{
    __m128i a[8], b[8];

    for (int32_t r = 0; r < 8; r++) {
        const int16_t *row = from + (size_t)(i + r) * (size_t)stride + (size_t)j;
        a[r] = i + r < n ? _mm_loadu_si128((const __m128i *)(const void *)row)
                         : _mm_setzero_si128();
    }
    for (int32_t r = 0; r < 4; r++) {
        b[2 * r] = _mm_unpacklo_epi16(a[r], a[r + 4]);
        b[2 * r + 1] = _mm_unpackhi_epi16(a[r], a[r + 4]);
    }
    for (int32_t r = 0; r < 4; r++) {
        a[2 * r] = _mm_unpacklo_epi16(b[r], b[r + 4]);
        a[2 * r + 1] = _mm_unpackhi_epi16(b[r], b[r + 4]);
    }
    for (int32_t r = 0; r < 4; r++) {
        b[2 * r] = _mm_unpacklo_epi16(a[r], a[r + 4]);
        b[2 * r + 1] = _mm_unpackhi_epi16(a[r], a[r + 4]);
    }
    for (int32_t r = 0; r < 8 && j + r < m; r++) {
        int16_t *row = to + (size_t)(j + r) * (size_t)stride_t + (size_t)i;
        _mm_storeu_si128((__m128i *)(void *)row, b[r]);
    }
}

/* Blocks of 32 by 32, so that of both sides whole cache lines are used while they are near. */
AVX2 void gle_turn_avx2(int16_t *to, const int16_t *from, int32_t n, int32_t m, int32_t stride,
                        int32_t stride_t)
{
    enum { BLOCK = 32 };

    for (int32_t j0 = 0; j0 < m; j0 += BLOCK) {
        for (int32_t i0 = 0; i0 < n; i0 += BLOCK) {
            for (int32_t j = j0; j < m && j < j0 + BLOCK; j += 8) {
                for (int32_t i = i0; i < n && i < i0 + BLOCK; i += 8) {
                    turn_8(to, from, n, m, stride, stride_t, i, j);
                }
            }
        }
    }
}

#define GLE_TARGET AVX2
#define GLE_UPDATE(name) name##_row
#define GLE_ROOTS 4
#include "update.inc"
#define GLE_SEE see
#include "see.inc"
#define GLE_READ read_out
#include "read_out.inc"

void gle_learn_one_any_avx2(int16_t *w, int32_t e, const int16_t *x, int32_t m,
                            const gle_update *how, int32_t shift, uint32_t root,
                            gle_update_count *count)
{
    learn_row(w, e, x, m, how, shift, root, count);
}

const gle_kernels gle_kernels_avx2 = {"avx2",          product, outer,         gle_pairs_avx2,
                                      gle_turned_avx2, update_row, vary_row, gle_product_one_avx2,
                                      gle_product_one_back_avx2, gle_learn_one_avx2, NULL, see,
                                      read_out, gle_turn_avx2,
                                      gle_neurons_avx2, &gle_rules_avx2, NULL, NULL, NULL};

#else
typedef int gle_no_avx2; /* ISO C wants one declaration a file */
#endif
