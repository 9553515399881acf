/* The matrix kernels for AMX, in the tiles of tiles_amx.h, and the layouts that they read. Same
 * bits as matvec_scalar.c: the sums are exact. Sums of few products are those of AVX-512.
 */
#include "kernels.h"

#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)

#include "learner.h"
#include "neurons.h"
#include "single.h"
#include "tiles_amx.h"
#include "tiles_vnni.h"

/* Blocks of 64 that are split once for all columns: 32 KB, which stay in the first cache. */
enum { KEPT = 16 };

/* What is packed: for each 16 columns all blocks of 64, the high bytes of each, then the low. */
AMX_INLINE size_t panel_bytes(int32_t blocks) { return (size_t)blocks * 2 * AMX_BYTES; }

/* Bytes of four vectors of int16, next to each other. */
AMX_INLINE __m512i quads(__m256i a, __m256i b, __m256i c, __m256i d)
{
    const __m256i byte = _mm256_set1_epi16(0xff);
    const __m256i ab = _mm256_or_si256(_mm256_and_si256(a, byte), _mm256_slli_epi16(b, 8));
    const __m256i cd = _mm256_or_si256(_mm256_and_si256(c, byte), _mm256_slli_epi16(d, 8));

    return _mm512_or_si512(_mm512_cvtepu16_epi32(ab),
                           _mm512_slli_epi32(_mm512_cvtepu16_epi32(cd), 16));
}

AMX void gle_pairs_amx(int16_t *pairs, const int16_t *x, int32_t n, int32_t columns)
{
    const size_t panel = panel_bytes(amx_blocks(n));
    const __m256i some = _mm256_set1_epi16(127);

    if (!amx_pays(n)) {
        gle_pairs_vnni(pairs, x, n, columns);
        return;
    }
    for (int32_t j = 0; j < n; j += 4) {
        int8_t *to = (int8_t *)pairs + (size_t)(j / AMX_DEEP) * 2 * AMX_BYTES +
                     (size_t)quad_at(j % AMX_DEEP / 4) * AMX_DEEP;
        for (int32_t b = 0; b < columns; b += AMX_SIDE, to += panel) {
            __m256i row[4], low[4];
            for (int32_t k = 0; k < 4; k++) {
                const int16_t *from = x + (size_t)(j + k) * (size_t)columns + (size_t)b;
                row[k] = j + k < n ? _mm256_loadu_si256((const __m256i *)(const void *)from)
                                   : _mm256_setzero_si256();
                low[k] = _mm256_and_si256(row[k], some);
                row[k] = _mm256_srai_epi16(row[k], 7);
            }
            _mm512_storeu_si512(to, quads(row[0], row[1], row[2], row[3]));
            _mm512_storeu_si512(to + AMX_BYTES, quads(low[0], low[1], low[2], low[3]));
        }
    }
}

/* Sixteen vectors of 32-bit elements, transposed. */
AMX_INLINE void turn_16(int8_t *to, const __m512i x[AMX_SIDE])
{
    __m512i p[AMX_SIDE], q[AMX_SIDE];

#pragma GCC unroll 8
    for (int r = 0; r < AMX_SIDE; r += 2) {
        p[r] = _mm512_unpacklo_epi32(x[r], x[r + 1]);
        p[r + 1] = _mm512_unpackhi_epi32(x[r], x[r + 1]);
    }
    /* q[4 k + e]: element e of each 128 bits, of rows 4 k .. 4 k + 3 */
#pragma GCC unroll 4
    for (int r = 0; r < AMX_SIDE; r += 4) {
        q[r] = _mm512_unpacklo_epi64(p[r], p[r + 2]);
        q[r + 1] = _mm512_unpackhi_epi64(p[r], p[r + 2]);
        q[r + 2] = _mm512_unpacklo_epi64(p[r + 1], p[r + 3]);
        q[r + 3] = _mm512_unpackhi_epi64(p[r + 1], p[r + 3]);
    }
#pragma GCC unroll 4
    for (int e = 0; e < 4; e++) {
        const __m512i a = _mm512_shuffle_i32x4(q[e], q[4 + e], 0x88);
        const __m512i b = _mm512_shuffle_i32x4(q[8 + e], q[12 + e], 0x88);
        const __m512i c = _mm512_shuffle_i32x4(q[e], q[4 + e], 0xdd);
        const __m512i d = _mm512_shuffle_i32x4(q[8 + e], q[12 + e], 0xdd);
        _mm512_storeu_si512(to + e * AMX_DEEP, _mm512_shuffle_i32x4(a, b, 0x88));
        _mm512_storeu_si512(to + (8 + e) * AMX_DEEP, _mm512_shuffle_i32x4(a, b, 0xdd));
        _mm512_storeu_si512(to + (4 + e) * AMX_DEEP, _mm512_shuffle_i32x4(c, d, 0x88));
        _mm512_storeu_si512(to + (12 + e) * AMX_DEEP, _mm512_shuffle_i32x4(c, d, 0xdd));
    }
}

AMX void gle_turned_amx(int16_t *turned, const int16_t *x, int32_t n, int32_t stride,
                        int32_t columns)
{
    const int32_t blocks = amx_blocks(columns);
    int8_t *to = (int8_t *)turned;

    if (!amx_learns(n, columns)) {
        gle_turned_vnni(turned, x, n, stride, columns);
        return;
    }
    for (int32_t j = 0; j < stride; j += AMX_SIDE) {
        for (int32_t k = 0; k < blocks; k++, to += 2 * AMX_BYTES) {
            __m512i high[AMX_SIDE], low[AMX_SIDE];
            for (int32_t r = 0; r < AMX_SIDE; r++) {
                high[r] = low[r] = _mm512_setzero_si512();
                if (j + r < n) {
                    split(&high[r], &low[r],
                          x + (size_t)(j + r) * (size_t)columns + (size_t)k * AMX_DEEP,
                          columns - k * AMX_DEEP);
                }
            }
            turn_16(to, high);
            turn_16(to + AMX_BYTES, low);
        }
    }
}

/* Sums of 16 rows with one or two blocks of 16 columns from `panel` on. `a`: the rows, split, or
 * where there are more than KEPT of them, room for one at a time. */
AMX_INLINE void sums_16(amx_sums *s, amx_pair *a, const int16_t *w, int32_t stride, int32_t rows,
                        int32_t count, const int8_t *panel, int two)
{
    const int32_t blocks = amx_blocks(count);
    const size_t next = panel_bytes(blocks);

    amx_zero();
    for (int32_t k = 0; k < blocks; k++, panel += 2 * AMX_BYTES) {
        const amx_pair *from = a + (blocks > KEPT ? 0 : k);
        if (blocks > KEPT) {
            split_rows(a, w, stride, rows, k, count);
        }
        if (two) {
            amx_add_two(from, panel, next);
        } else {
            amx_add_one(from, panel);
        }
    }
    if (two) {
        amx_store_two(s);
    } else {
        amx_store_one(s);
    }
}

AMX_INLINE void split_all(amx_pair *a, const int16_t *w, int32_t stride, int32_t rows,
                          int32_t count)
{
    const int32_t blocks = amx_blocks(count);

    for (int32_t k = 0; k < blocks && blocks <= KEPT; k++) {
        split_rows(&a[k], w, stride, rows, k, count);
    }
}

AMX static void product(int32_t *out, const int16_t *w, int32_t stride, int32_t n, int32_t m,
                        const int16_t *pairs, int32_t columns, int32_t shift, const uint32_t *rows,
                        int32_t fits)
{
    const size_t panel = panel_bytes(amx_blocks(m));
    const int narrow = fits || m <= GLE_EXACT;
    amx_pair a[KEPT];
    amx_sums s;

    if (!amx_pays(m)) {
        gle_product_vnni(out, w, stride, n, m, pairs, columns, shift, rows, fits);
        return;
    }
    amx_begin();
    for (int32_t i = 0; i < n; i += AMX_SIDE) {
        const int16_t *from = w + (size_t)i * (size_t)stride;
        const int32_t some = n - i < AMX_SIDE ? n - i : AMX_SIDE;
        const int8_t *x = (const int8_t *)pairs;
        split_all(a, from, stride, some, m);
        for (int32_t b = 0; b < columns; b += 2 * AMX_SIDE, x += 2 * panel) {
            const int two = columns - b > AMX_SIDE;
            sums_16(&s, a, from, stride, some, m, x, two);
            for (int32_t r = 0; r < some; r++) {
                const int32_t k = shift + (rows ? (int32_t)rows[i + r] : 0);
                int32_t *to = out + (size_t)(i + r) * (size_t)columns + (size_t)b;
                for (int c = 0; c <= two; c++) {
                    __m512i low;
                    if (narrow) {
                        low = round_sum(amx_sum(&s, c, r), k);
                    } else {
                        const __m512i high = amx_wide_sum(&s, c, r, &low);
                        low = round_wide(high, low, k);
                    }
                    _mm512_storeu_si512(to + c * AMX_SIDE, low);
                }
            }
        }
    }
    amx_end();
}

AMX static void outer(int32_t *out, const int16_t *e, int32_t rows, const int16_t *turned,
                      int32_t stride, int32_t m, int32_t columns, int32_t shift)
{
    const size_t panel = panel_bytes(amx_blocks(columns));
    amx_pair a[KEPT];
    amx_sums s;

    if (!amx_learns(m, columns)) {
        gle_outer_vnni(out, e, rows, turned, stride, m, columns, shift);
        return;
    }
    amx_begin();
    for (int32_t i = 0; i < rows; i += AMX_SIDE) {
        const int16_t *from = e + (size_t)i * (size_t)columns;
        const int32_t some = rows - i < AMX_SIDE ? rows - i : AMX_SIDE;
        const int8_t *x = (const int8_t *)turned;
        split_all(a, from, columns, some, columns);
        for (int32_t j = 0; j < m; j += 2 * AMX_SIDE, x += 2 * panel) {
            const int two = m - j > AMX_SIDE;
            sums_16(&s, a, from, columns, some, columns, x, two);
            for (int32_t r = 0; r < some; r++) {
                int32_t *to = out + (size_t)(i + r) * (size_t)stride + (size_t)j;
                for (int c = 0; c <= two; c++) {
                    __m512i low;
                    const __m512i high = amx_wide_sum(&s, c, r, &low);
                    _mm512_storeu_si512(to + c * AMX_SIDE, round_outer(high, low, shift));
                }
            }
        }
    }
    amx_end();
}

const gle_kernels gle_kernels_amx = GLE_AVX512_TABLE("amx", product, outer, gle_pairs_amx,
                                                     gle_turned_amx, gle_learn_amx);

#else
typedef int gle_no_amx; /* ISO C wants one declaration a file */
#endif
