/* The matrix kernels for AVX-512 VNNI, in the tiles of tiles_vnni.h. Same bits as
 * matvec_scalar.c: the sums are exact.
 */
#include "learner.h"
#include "neurons.h"
#include "single.h"

#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)

#include "tiles_vnni.h"

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
                       int32_t stride, int32_t along, int32_t count, int32_t chunk,
                       const int16_t *x, int32_t columns, int32_t shift, const uint32_t *rows,
                       gle_ahead ahead)
{
    static const uint32_t none[MOST_R] = {0};
    const uint32_t *const by = rows ? rows : none;
    const int plain = !wide && shift > 0; /* half of what is dropped is added first */
    __m512i sum[MOST_R][MOST_V], half[MOST_R];
    tile_high high;

#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        half[r] = _mm512_set1_epi32(plain ? 1 << (shift + (int32_t)by[r] - 1) : 0);
    }
    sums_of(R, V, wide, chunk, w, stride, along, count, x, columns, wide ? NULL : half, sum, &high,
            &ahead);
    if (!plain) {
        store_tile(R, V, out, columns, sum);
        round_tile(R, V, wide, out, columns, high.at, shift, by);
        return;
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        const __m128i k = _mm_cvtsi32_si128(shift + (int32_t)by[r]);
#pragma GCC unroll 4
        for (int c = 0; c < V; c++) {
            _mm512_storeu_si512(out + (size_t)r * (size_t)columns + 16 * (size_t)c,
                                _mm512_sra_epi32(sum[r][c], k));
        }
    }
}

#define PRODUCT_TILE(R)                                                                        \
    product_tile(R, V, wide, out + (size_t)i * (size_t)columns, w + (size_t)i * (size_t)stride, \
                 stride, along, count, chunk, x, columns, shift, rows ? rows + i : NULL,       \
                 i > 0 ? second : *ahead)

/* A function for each width of tiles: what a compiler needs grows faster than a function. */
#define PRODUCT_ROWS(name, vectors, is_wide)                                                  \
    APART void name(int32_t *out, const int16_t *w, int32_t stride, int32_t along, int32_t n, \
                    int32_t count, int32_t chunk, const int16_t *x, int32_t columns,          \
                    int32_t shift, const uint32_t *rows, const gle_ahead *ahead)              \
    {                                                                                         \
        const int V = vectors, wide = is_wide;                                                \
        const gle_ahead second = {ahead->at + ahead->half, ahead->half, ahead->pair};         \
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

/* Sums of PAIRS leave room for half of what is dropped up to this shift: 2^31 - 2^18 at most. */
enum { SHORT = 17 };

VNNI void gle_product_tiles_vnni(int32_t *out, const int16_t *w, int32_t stride, int32_t along,
                                 int32_t n, int32_t m, const int16_t *pairs, int32_t columns,
                                 int32_t some, int32_t shift, const uint32_t *rows, int32_t fits,
                                 int32_t chunk, const gle_ahead *ahead)
{
    typedef void some_rows(int32_t *, const int16_t *, int32_t, int32_t, int32_t, int32_t, int32_t,
                           const int16_t *, int32_t, int32_t, const uint32_t *,
                           const gle_ahead *);
    static some_rows *const by_vectors[2][MOST_V] = {
        {product_1, product_2, product_3, product_4},
        {product_1_wide, product_2_wide, product_3_wide, product_4_wide},
    };
    const int32_t count = (m + 1) / 2, most = shift + (rows ? GLE_ROWS_MOST : 0);
    const int wide = !fits && (count > PAIRS || most > SHORT);
    int32_t V;

    for (int32_t b = 0; b < some; b += 16 * V) {
        V = tile_vectors((some - b) / 16);
        by_vectors[wide][V - 1](out + b, w, stride, along, n, count, chunk, pairs + 2 * (size_t)b,
                                columns, shift, rows, ahead);
    }
}

void gle_product_vnni(int32_t *out, const int16_t *w, int32_t stride, int32_t n, int32_t m,
                      const int16_t *pairs, int32_t columns, int32_t shift, const uint32_t *rows,
                      int32_t fits)
{
    const gle_ahead none = {(const char *)w, 0, 0};

    gle_product_tiles_vnni(out, w, stride, 2, n, m, pairs, columns, columns, shift, rows, fits,
                           PAIRS, &none);
}

/* Sums over streams: rows of e by 16 inputs a vector; see outer_tile in matvec_avx2.c. */
TILE void outer_tile(const int R, const int V, const int wide, int32_t *out, const int16_t *e,
                     int32_t columns, const int16_t *turned, int32_t stride, int32_t shift)
{
    __m512i sum[MOST_R][MOST_V];
    tile_high high;

    sums_of(R, V, wide, PAIRS, e, columns, 2, columns / 2, turned, stride, NULL, sum, &high,
            NULL);
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

VNNI void gle_outer_vnni(int32_t *out, const int16_t *e, int32_t rows, const int16_t *turned,
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

void gle_vary_vnni(int32_t *rows, int32_t stride, int32_t count, int32_t m, const gle_update *how,
                   uint32_t first)
{
    vary_row(rows, stride, count, m, how, first);
}

uint32_t gle_read_out_vnni(int32_t *to, const int16_t *r, int32_t count, const gle_reader *how,
                           uint32_t stream, int32_t i)
{
    return read_out(to, r, count, how, stream, i);
}

const gle_kernels gle_kernels_vnni = GLE_AVX512_TABLE("vnni", gle_product_vnni, gle_outer_vnni,
                                                      gle_pairs_vnni, gle_turned_vnni,
                                                      gle_learn_vnni, &gle_stored_vnni);

#else
typedef int gle_no_vnni; /* ISO C wants one declaration a file */
#endif
