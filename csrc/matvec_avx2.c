/* The kernels for AVX2: register tiles of pmaddwd, which multiplies pairs of int16
 * and adds each pair into an int32. Same bits as matvec_scalar.c: the sums are exact.
 *
 * A tile is R rows by two vectors of 8 columns: a cache line of pairs, so that what a deep tile
 * reads of them stays in the first cache, and with six rows as many sums as registers allow. Up
 * to 16 pairs (32 products of 14-bit factors) stay in int32 and leave room for 16 bits more; of
 * longer sums, what is above the lower 16 bits is moved to a second one every 16 pairs, so that
 * everything including the one rounding stays in 32-bit lanes.
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

enum { PAIRS = GLE_EXACT / 2, MOST_R = 6, V = 2, WIDE = 8 * V /* columns of a tile */ };

/* All tiles of rows i .. n: tile(R) for each, the last with what is left. */
#define FOR_TILES(i, n, tile)                          \
    for (; (n) - (i) >= MOST_R; (i) += MOST_R) {       \
        tile(6);                                       \
    }                                                  \
    switch ((n) - (i)) {                               \
    case 5:                                            \
        tile(5);                                       \
        break;                                         \
    case 4:                                            \
        tile(4);                                       \
        break;                                         \
    case 3:                                            \
        tile(3);                                       \
        break;                                         \
    case 2:                                            \
        tile(2);                                       \
        break;                                         \
    case 1:                                            \
        tile(1);                                       \
        break;                                         \
    default:                                           \
        break;                                         \
    }

/* Upper parts of a tile's sums, in memory: the registers are for the lower ones. */
typedef struct {
    __m256i at[MOST_R * V];
} tile_high;

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

/* The same as 2^16 high + low with 0 <= low < 2^16. */
TILE void carried(__m256i *high, __m256i *low)
{
    *high = _mm256_add_epi32(*high, _mm256_srai_epi32(*low, 16));
    *low = _mm256_and_si256(*low, _mm256_set1_epi32(0xffff));
}

/* round((2^16 high + low) * 2^-shift) clipped to GLE_SUM_MAX. */
TILE __m256i round_wide(__m256i high, __m256i low, int32_t shift)
{
    carried(&high, &low);
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

/* *sum += the products of two pairs. Written out, as gcc multiplies them all first and has no
 * registers left for the sums. */
TILE void add_products(__m256i *sum, __m256i a, __m256i b)
{
    __m256i both;
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(*sum), "=&x"(both) : "x"(a), "x"(b));
}

/* A tile's exact sums over `count` pairs; `wide`: 2^16 high + sum, |sum| < 2^31. */
TILE void sums_of(const int R, const int wide, const int16_t *w, int32_t stride, int32_t count,
                  const int16_t *x, int32_t step, __m256i sum[MOST_R][V], tile_high *high)
{
    const __m256i mask = _mm256_set1_epi32(0xffff);
    const int32_t chunk = wide ? PAIRS : count;
    __m256i *up = high->at;

    if (wide) {
        __asm__("" : "+r"(up) : : "memory"); /* compilers would keep it in registers */
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 2
        for (int c = 0; c < V; c++) {
            sum[r][c] = _mm256_setzero_si256();
            if (wide) {
                _mm256_storeu_si256(up + r * V + c, sum[r][c]);
            }
        }
    }
    for (int32_t k = 0; k < count;) {
        const int32_t end = count - k <= chunk ? count : k + chunk;
        for (; k < end; k++) {
            const int16_t *panel = x + (size_t)k * (size_t)step * 2;
            __m256i xs[V];
#pragma GCC unroll 2
            for (int c = 0; c < V; c++) {
                xs[c] = _mm256_loadu_si256((const __m256i *)(const void *)(panel + 16 * c));
            }
#pragma GCC unroll 6
            for (int r = 0; r < R; r++) {
                const __m256i ws = pair_at(w + (size_t)r * (size_t)stride + 2 * (size_t)k);
#pragma GCC unroll 2
                for (int c = 0; c < V; c++) {
                    add_products(&sum[r][c], ws, xs[c]);
                }
            }
        }
        if (wide && k < count) {
#pragma GCC unroll 6
            for (int r = 0; r < R; r++) {
#pragma GCC unroll 2
                for (int c = 0; c < V; c++) {
                    __m256i *const to = up + r * V + c;
                    _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to),
                                                             _mm256_srai_epi32(sum[r][c], 16)));
                    sum[r][c] = _mm256_and_si256(sum[r][c], mask);
                }
            }
        }
    }
}

TILE void product_tile(const int R, const int wide, int32_t *out, const int16_t *w, int32_t stride,
                       int32_t count, const int16_t *x, int32_t columns, int32_t shift,
                       const uint32_t *rows)
{
    __m256i sum[MOST_R][V];
    tile_high high;

    sums_of(R, wide, w, stride, count, x, columns, sum, &high);
#pragma GCC unroll 6
    for (int r = 0; r < R; r++) {
        const int32_t k = shift + (rows ? (int32_t)rows[r] : 0);
#pragma GCC unroll 2
        for (int c = 0; c < V; c++) {
            const __m256i y = wide ? round_wide(high.at[r * V + c], sum[r][c], k)
                                   : round_sum(sum[r][c], k);
            int32_t *to = out + (size_t)r * (size_t)columns + 8 * (size_t)c;
            _mm256_storeu_si256((__m256i *)(void *)to, y);
        }
    }
}

#define PRODUCT_TILE(R)                                                                      \
    product_tile(R, wide, out + (size_t)i * (size_t)columns, w + (size_t)i * (size_t)stride, \
                 stride, count, x, columns, shift, rows ? rows + i : NULL)

TILE void product_rows(const int wide, int32_t *out, const int16_t *w, int32_t stride, int32_t n,
                       int32_t count, const int16_t *x, int32_t columns, int32_t shift,
                       const uint32_t *rows)
{
    int32_t i = 0;

    FOR_TILES(i, n, PRODUCT_TILE)
}

AVX2 static void product(int32_t *out, const int16_t *w, int32_t stride, int32_t n, int32_t m,
                         const int16_t *pairs, int32_t columns, int32_t shift, const uint32_t *rows,
                         int32_t fits)
{
    const int32_t count = (m + 1) / 2;

    for (int32_t b = 0; b < columns; b += WIDE) {
        const int16_t *x = pairs + 2 * (size_t)b;
        if (fits || count <= PAIRS) {
            product_rows(0, out + b, w, stride, n, count, x, columns, shift, rows);
        } else {
            product_rows(1, out + b, w, stride, n, count, x, columns, shift, rows);
        }
    }
}

/* Sums over streams: rows of e by 8 inputs a vector. */
TILE void outer_tile(const int R, const int wide, int32_t *out, const int16_t *e, int32_t columns,
                     const int16_t *turned, int32_t stride, int32_t shift)
{
    __m256i sum[MOST_R][V];
    tile_high high;

    sums_of(R, wide, e, columns, columns / 2, turned, stride, sum, &high);
    /* shift <= 16 here, and the result fits int32 (gle_gradient_shift) */
#pragma GCC unroll 6
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 2
        for (int c = 0; c < V; c++) {
            __m256i y = sum[r][c];
            if (wide) {
                const __m256i half = _mm256_set1_epi32(shift > 0 ? 1 << (shift - 1) : 0);
                __m256i up = high.at[r * V + c];
                carried(&up, &y);
                up = _mm256_sll_epi32(up, _mm_cvtsi32_si128(16 - shift));
                y = _mm256_srl_epi32(_mm256_add_epi32(y, half), _mm_cvtsi32_si128(shift));
                y = _mm256_add_epi32(up, y);
            }
            int32_t *to = out + (size_t)r * (size_t)stride + 8 * (size_t)c;
            _mm256_storeu_si256((__m256i *)(void *)to, y);
        }
    }
}

#define OUTER_TILE(R)                                                                       \
    outer_tile(R, wide, out + (size_t)i * (size_t)stride, e + (size_t)i * (size_t)columns, \
               columns, turned, stride, shift)

TILE void outer_rows(const int wide, int32_t *out, const int16_t *e, int32_t rows, int32_t columns,
                     const int16_t *turned, int32_t stride, int32_t shift)
{
    int32_t i = 0;

    FOR_TILES(i, rows, OUTER_TILE)
}

/* Rows of `stride` are whole tiles (GLE_LANES). */
AVX2 static void outer(int32_t *out, const int16_t *e, int32_t rows, const int16_t *turned,
                       int32_t stride, int32_t m, int32_t columns, int32_t shift)
{
    for (int32_t j = 0; j < m; j += WIDE) {
        const int16_t *x = turned + 2 * (size_t)j;
        if (columns / 2 <= PAIRS) {
            outer_rows(0, out + j, e, rows, columns, x, stride, shift);
        } else {
            outer_rows(1, out + j, e, rows, columns, x, stride, shift);
        }
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
