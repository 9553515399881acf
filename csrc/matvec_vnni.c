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

/* round(x * 2^-shift), shift >= 1, for sums that fit int32: 2^30 at most. */
TILE __m512i round_down(__m512i x, int32_t shift)
{
    const __m128i k = _mm_cvtsi32_si128(shift);
    const __m128i k1 = _mm_cvtsi32_si128(shift - 1);
    const __m512i bit = _mm512_and_si512(_mm512_sra_epi32(x, k1), _mm512_set1_epi32(1));
    return _mm512_add_epi32(_mm512_sra_epi32(x, k), bit);
}

/* The same clipped to GLE_SUM_MAX, for any shift. */
TILE __m512i round_sum(__m512i x, int32_t shift)
{
    if (shift > 0) {
        return round_down(x, shift);
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

TILE void store_tile(const int R, const int V, int32_t *out, int32_t step,
                     __m512i sum[MOST_R][MOST_V])
{
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
        for (int c = 0; c < V; c++) {
            _mm512_storeu_si512(out + (size_t)r * (size_t)step + 16 * (size_t)c, sum[r][c]);
        }
    }
}

/* Rolled, one vector after the other from memory: `out` holds the sums. */
TILE void round_tile(const int R, const int V, const int wide, int32_t *out, int32_t columns,
                     const __m512i *high, int32_t shift, const uint32_t *rows)
{
#pragma GCC unroll 1
    for (int r = 0; r < R; r++) {
        const int32_t k = shift + (int32_t)rows[r];
        int32_t *const to = out + (size_t)r * (size_t)columns;
#pragma GCC unroll 1
        for (int c = 0; c < V; c++) {
            const __m512i x = _mm512_loadu_si512(to + 16 * c);
            const __m512i y =
                wide ? round_wide(_mm512_loadu_si512(high + r * V + c), x, k) : round_sum(x, k);
            _mm512_storeu_si512(to + 16 * c, y);
        }
    }
}

TILE void product_tile(const int R, const int V, const int wide, int32_t *out, const int16_t *w,
                       int32_t stride, int32_t count, const int16_t *x, int32_t columns,
                       int32_t shift, const uint32_t *rows)
{
    static const uint32_t none[MOST_R] = {0};
    const uint32_t *const by = rows ? rows : none;
    __m512i sum[MOST_R][MOST_V];
    tile_high high;

    sums_of(R, V, wide, w, stride, count, x, columns, sum, &high);
    if (wide || shift < 1) {
        store_tile(R, V, out, columns, sum);
        round_tile(R, V, wide, out, columns, high.at, shift, by);
        return;
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        const int32_t k = shift + (int32_t)by[r];
#pragma GCC unroll 4
        for (int c = 0; c < V; c++) {
            _mm512_storeu_si512(out + (size_t)r * (size_t)columns + 16 * (size_t)c,
                                round_down(sum[r][c], k));
        }
    }
}

#define PRODUCT_TILE(R)                                                                        \
    product_tile(R, V, wide, out + (size_t)i * (size_t)columns, w + (size_t)i * (size_t)stride, \
                 stride, count, x, columns, shift, rows ? rows + i : NULL)

/* A function for each width of tiles: what a compiler needs grows faster than a function. */
#define PRODUCT_ROWS(name, vectors, is_wide)                                                  \
    APART void name(int32_t *out, const int16_t *w, int32_t stride, int32_t n, int32_t count, \
                    const int16_t *x, int32_t columns, int32_t shift, const uint32_t *rows)   \
    {                                                                                         \
        const int V = vectors, wide = is_wide;                                                \
        int32_t i = 0;                                                                        \
        FOR_TILES(V, i, n, PRODUCT_TILE)                                                      \
    }

PRODUCT_ROWS(product_1, 1, 0)
PRODUCT_ROWS(product_2, 2, 0)
PRODUCT_ROWS(product_3, 3, 0)
PRODUCT_ROWS(product_4, 4, 0)
PRODUCT_ROWS(product_1_wide, 1, 1)
PRODUCT_ROWS(product_2_wide, 2, 1)
PRODUCT_ROWS(product_3_wide, 3, 1)
PRODUCT_ROWS(product_4_wide, 4, 1)

VNNI static void product(int32_t *out, const int16_t *w, int32_t stride, int32_t n, int32_t m,
                         const int16_t *pairs, int32_t columns, int32_t shift, const uint32_t *rows,
                         int32_t fits)
{
    typedef void some_rows(int32_t *, const int16_t *, int32_t, int32_t, int32_t, const int16_t *,
                           int32_t, int32_t, const uint32_t *);
    static some_rows *const by_vectors[2][MOST_V] = {
        {product_1, product_2, product_3, product_4},
        {product_1_wide, product_2_wide, product_3_wide, product_4_wide},
    };
    const int32_t count = (m + 1) / 2;
    const int wide = !fits && count > PAIRS;
    int32_t V;

    for (int32_t b = 0; b < columns; b += 16 * V) {
        V = tile_vectors((columns - b) / 16);
        by_vectors[wide][V - 1](out + b, w, stride, n, count, pairs + 2 * (size_t)b, columns, shift,
                                rows);
    }
}

/* Sums over streams: rows of e by 16 inputs a vector; see outer_tile in matvec_avx2.c. */
TILE void outer_tile(const int R, const int V, const int wide, int32_t *out, const int16_t *e,
                     int32_t columns, const int16_t *turned, int32_t stride, int32_t shift)
{
    __m512i sum[MOST_R][MOST_V];
    tile_high high;

    sums_of(R, V, wide, e, columns, columns / 2, turned, stride, sum, &high);
    store_tile(R, V, out, stride, sum);
    if (wide) {
#pragma GCC unroll 1
        for (int k = 0; k < R * V; k++) {
            int32_t *const to = out + (size_t)(k / V) * (size_t)stride + 16 * (size_t)(k % V);
            const __m512i up = _mm512_loadu_si512(high.at + k);
            _mm512_storeu_si512(to, round_outer(up, _mm512_loadu_si512(to), shift));
        }
    }
}

#define OUTER_TILE(R)                                                                          \
    outer_tile(R, V, wide, out + (size_t)i * (size_t)stride, e + (size_t)i * (size_t)columns, \
               columns, turned, stride, shift)

#define OUTER_ROWS(name, vectors, is_wide)                                                       \
    APART void name(int32_t *out, const int16_t *e, int32_t rows, int32_t columns,               \
                    const int16_t *turned, int32_t stride, int32_t shift)                        \
    {                                                                                            \
        const int V = vectors, wide = is_wide;                                                   \
        int32_t i = 0;                                                                           \
        FOR_TILES(V, i, rows, OUTER_TILE)                                                        \
    }

OUTER_ROWS(outer_1, 1, 0)
OUTER_ROWS(outer_2, 2, 0)
OUTER_ROWS(outer_3, 3, 0)
OUTER_ROWS(outer_4, 4, 0)
OUTER_ROWS(outer_1_wide, 1, 1)
OUTER_ROWS(outer_2_wide, 2, 1)
OUTER_ROWS(outer_3_wide, 3, 1)
OUTER_ROWS(outer_4_wide, 4, 1)

VNNI static void outer(int32_t *out, const int16_t *e, int32_t rows, const int16_t *turned,
                       int32_t stride, int32_t m, int32_t columns, int32_t shift)
{
    typedef void some_rows(int32_t *, const int16_t *, int32_t, int32_t, const int16_t *, int32_t,
                           int32_t);
    static some_rows *const by_vectors[2][MOST_V] = {
        {outer_1, outer_2, outer_3, outer_4},
        {outer_1_wide, outer_2_wide, outer_3_wide, outer_4_wide},
    };
    const int wide = columns / 2 > PAIRS;
    int32_t V;

    for (int32_t j = 0; j < m; j += 16 * V) {
        V = tile_vectors((m - j + 15) / 16);
        by_vectors[wide][V - 1](out + j, e, rows, columns, turned + 2 * (size_t)j, stride, shift);
    }
}

#define GLE_TARGET VNNI
#define GLE_UPDATE(name) name##_row
#define GLE_ROOTS 4
#include "update.inc"
#define GLE_READ read_out
#include "read_out.inc"

void gle_update_wide(int16_t *w, const int32_t *gradient, int32_t m, const gle_update *how,
                     int32_t shift, uint32_t root, gle_update_count *count)
{
    update_row(w, gradient, m, how, shift, root, count);
}

void gle_learn_one_wide(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                        int32_t shift, uint32_t root, gle_update_count *count)
{
    learn_row(w, e, x, m, how, shift, root, count);
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
                                      read_out,
                                      gle_turn_avx2, /* bound by the memory */
                                      gle_neurons_vnni,
                                      &gle_rules_vnni,
                                      gle_learn_biases_vnni,
                                      gle_target_error_vnni};

#else
typedef int gle_no_vnni; /* ISO C wants one declaration a file */
#endif
