/* The matrix kernels for AVX-512 VNNI, in the tiles of tiles_vnni.h. Same bits as
 * matvec_scalar.c: the sums are exact.
 */
#include "learner.h"
#include "neurons.h"
#include "single.h"

#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)

#include "tiles_vnni.h"

TILE __m512i clamp_to(__m512i x, int32_t low, int32_t high)
{
    return _mm512_max_epi32(_mm512_set1_epi32(low), _mm512_min_epi32(_mm512_set1_epi32(high), x));
}

/* round(x * 2^-shift) clipped to GLE_SUM_MAX, for sums that fit int32. */
TILE __m512i round_sum(__m512i x, int32_t shift)
{
    if (shift > 0) {
        const __m128i k = _mm_cvtsi32_si128(shift);
        const __m128i k1 = _mm_cvtsi32_si128(shift - 1);
        const __m512i bit = _mm512_and_si512(_mm512_sra_epi32(x, k1), _mm512_set1_epi32(1));
        return _mm512_add_epi32(_mm512_sra_epi32(x, k), bit); /* 2^30 at most */
    } else if (shift < 0) {
        const int32_t most = GLE_SUM_MAX >> -shift;
        x = _mm512_sll_epi32(clamp_to(x, -most, most), _mm_cvtsi32_si128(-shift));
    }
    return clamp_to(x, -GLE_SUM_MAX, GLE_SUM_MAX);
}

/* round((2^16 high + low) * 2^-shift) clipped to GLE_SUM_MAX. */
TILE __m512i round_wide(__m512i high, __m512i low, int32_t shift)
{
    carried(&high, &low);
    if (shift > 16) {
        const __m512i half = _mm512_set1_epi32(1 << (shift - 17));
        high = _mm512_sra_epi32(_mm512_add_epi32(high, half), _mm_cvtsi32_si128(shift - 16));
    } else {
        /* Clip first, one beyond what survives the last clip, so that nothing overflows. */
        const int32_t up = 16 - shift;
        const int32_t most = up < 30 ? GLE_SUM_MAX >> up : 1;
        const __m512i half = _mm512_set1_epi32(shift > 0 ? 1 << (shift - 1) : 0);
        const __m512i inside = clamp_to(high, -most - 1, most);
        low = _mm512_maskz_mov_epi32(_mm512_cmpeq_epi32_mask(inside, high), low);
        if (shift >= 0) {
            low = _mm512_srl_epi32(_mm512_add_epi32(low, half), _mm_cvtsi32_si128(shift));
        } else {
            low = _mm512_sll_epi32(low, _mm_cvtsi32_si128(-shift));
        }
        high = _mm512_add_epi32(_mm512_sll_epi32(inside, _mm_cvtsi32_si128(up)), low);
    }
    return clamp_to(high, -GLE_SUM_MAX, GLE_SUM_MAX);
}

TILE void product_tile(const int R, const int V, const int wide, int32_t *out, const int16_t *w,
                       int32_t stride, int32_t count, const int16_t *x, int32_t columns,
                       int32_t shift, const uint32_t *rows)
{
    __m512i sum[MOST_R][MOST_V];
    tile_high high;

    sums_of(R, V, wide, w, stride, count, x, columns, sum, &high);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        const int32_t k = shift + (rows ? (int32_t)rows[r] : 0);
#pragma GCC unroll 4
        for (int c = 0; c < V; c++) {
            const __m512i y = wide ? round_wide(high.at[r * V + c], sum[r][c], k)
                                   : round_sum(sum[r][c], k);
            _mm512_storeu_si512(out + (size_t)r * (size_t)columns + 16 * (size_t)c, y);
        }
    }
}

TILE void product_rows(const int V, const int wide, int32_t *out, const int16_t *w, int32_t stride,
                       int32_t n, int32_t count, const int16_t *x, int32_t columns, int32_t shift,
                       const uint32_t *rows)
{
    int32_t i = 0;

#define PRODUCT_TILE(R)                                                                        \
    product_tile(R, V, wide, out + (size_t)i * (size_t)columns, w + (size_t)i * (size_t)stride, \
                 stride, count, x, columns, shift, rows ? rows + i : NULL)
    FOR_TILES(V, i, n, PRODUCT_TILE)
}

TILE void product_columns(const int wide, int32_t *out, const int16_t *w, int32_t stride, int32_t n,
                          int32_t count, const int16_t *x, int32_t columns, int32_t shift,
                          const uint32_t *rows)
{
    int32_t V;

    for (int32_t b = 0; b < columns; b += 16 * V) {
        V = tile_vectors((columns - b) / 16);
        const int16_t *const from = x + 2 * (size_t)b;
        switch (V) {
        case 4:
            product_rows(4, wide, out + b, w, stride, n, count, from, columns, shift, rows);
            break;
        case 3:
            product_rows(3, wide, out + b, w, stride, n, count, from, columns, shift, rows);
            break;
        case 2:
            product_rows(2, wide, out + b, w, stride, n, count, from, columns, shift, rows);
            break;
        default:
            product_rows(1, wide, out + b, w, stride, n, count, from, columns, shift, rows);
            break;
        }
    }
}

VNNI static void product(int32_t *out, const int16_t *w, int32_t stride, int32_t n, int32_t m,
                         const int16_t *pairs, int32_t columns, int32_t shift, const uint32_t *rows,
                         int32_t fits)
{
    const int32_t count = (m + 1) / 2;

    if (fits || count <= PAIRS) {
        product_columns(0, out, w, stride, n, count, pairs, columns, shift, rows);
    } else {
        product_columns(1, out, w, stride, n, count, pairs, columns, shift, rows);
    }
}

/* Sums over streams: rows of e by 16 inputs a vector; see outer_tile in matvec_avx2.c. */
TILE void outer_tile(const int R, const int V, const int wide, int32_t *out, const int16_t *e,
                     int32_t columns, const int16_t *turned, int32_t stride, int32_t shift)
{
    __m512i sum[MOST_R][MOST_V];
    tile_high high;

    sums_of(R, V, wide, e, columns, columns / 2, turned, stride, sum, &high);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
        for (int c = 0; c < V; c++) {
            __m512i y = sum[r][c];
            if (wide) {
                y = round_outer(high.at[r * V + c], y, shift);
            }
            _mm512_storeu_si512(out + (size_t)r * (size_t)stride + 16 * (size_t)c, y);
        }
    }
}

TILE void outer_rows(const int V, const int wide, int32_t *out, const int16_t *e, int32_t rows,
                     int32_t columns, const int16_t *turned, int32_t stride, int32_t shift)
{
    int32_t i = 0;

#define OUTER_TILE(R)                                                                           \
    outer_tile(R, V, wide, out + (size_t)i * (size_t)stride, e + (size_t)i * (size_t)columns,  \
               columns, turned, stride, shift)
    FOR_TILES(V, i, rows, OUTER_TILE)
}

TILE void outer_columns(const int wide, int32_t *out, const int16_t *e, int32_t rows,
                        const int16_t *turned, int32_t stride, int32_t m, int32_t columns,
                        int32_t shift)
{
    int32_t V;

    for (int32_t j = 0; j < m; j += 16 * V) {
        V = tile_vectors((m - j + 15) / 16);
        const int16_t *const from = turned + 2 * (size_t)j;
        switch (V) {
        case 4:
            outer_rows(4, wide, out + j, e, rows, columns, from, stride, shift);
            break;
        case 3:
            outer_rows(3, wide, out + j, e, rows, columns, from, stride, shift);
            break;
        case 2:
            outer_rows(2, wide, out + j, e, rows, columns, from, stride, shift);
            break;
        default:
            outer_rows(1, wide, out + j, e, rows, columns, from, stride, shift);
            break;
        }
    }
}

VNNI static void outer(int32_t *out, const int16_t *e, int32_t rows, const int16_t *turned,
                       int32_t stride, int32_t m, int32_t columns, int32_t shift)
{
    if (columns / 2 <= PAIRS) {
        outer_columns(0, out, e, rows, turned, stride, m, columns, shift);
    } else {
        outer_columns(1, out, e, rows, turned, stride, m, columns, shift);
    }
}

#define GLE_TARGET VNNI
#define GLE_UPDATE(name) name##_row
#include "update.inc"

void gle_update_wide(int16_t *w, const int32_t *gradient, int32_t m, const gle_update *how,
                     int32_t shift, uint32_t first, gle_update_count *count)
{
    update_row(w, gradient, m, how, shift, first, count);
}

void gle_learn_one_wide(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                        int32_t shift, uint32_t first, gle_update_count *count)
{
    learn_row(w, e, x, m, how, shift, first, count);
}

const gle_kernels gle_kernels_vnni = {"vnni",
                                      product,
                                      outer,
                                      gle_pairs_vnni,
                                      gle_turned_vnni,
                                      gle_update_vnni,
                                      vary_row,
                                      gle_product_one_vnni,
                                      gle_product_one_back_vnni,
                                      gle_learn_one_vnni,
                                      gle_learn_vnni,
                                      gle_see_vnni,
                                      gle_turn_avx2, /* bound by the memory */
                                      gle_neurons_vnni,
                                      &gle_rules_vnni,
                                      gle_learn_biases_vnni,
                                      gle_target_error_vnni};

#else
typedef int gle_no_vnni; /* ISO C wants one declaration a file */
#endif
