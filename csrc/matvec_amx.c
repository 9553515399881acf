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

static const amx_seeing AS_IT_IS = {0, 0};

AMX static int32_t pack_pairs(int16_t *pairs, const int16_t *x, int32_t n, int32_t columns)
{
    const size_t panel = panel_bytes(amx_blocks(n));

    if (!amx_pays(n)) {
        return gle_pairs_vnni(pairs, x, n, columns);
    }
    for (int32_t j = 0; j < n; j += 4) {
        int8_t *to = (int8_t *)pairs + (size_t)(j / AMX_DEEP) * 2 * AMX_BYTES +
                     (size_t)quad_at(j % AMX_DEEP / 4) * AMX_DEEP;
        for (int32_t b = 0; b < columns; b += AMX_SIDE, to += panel) {
            __m512i high, low;
            split_quads(&high, &low, x + (size_t)j * (size_t)columns + (size_t)b, columns, n - j,
                        0xffff, &AS_IT_IS);
            _mm512_storeu_si512(to, high);
            _mm512_storeu_si512(to + AMX_BYTES, low);
        }
    }
    return GLE_ARRAY_MAX; /* the tiles' sums are looked at */
}

AMX static void pack_turned(int16_t *turned, const int16_t *x, int32_t n, int32_t stride,
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
                          columns - k * AMX_DEEP, &AS_IT_IS);
                }
            }
            turn_16(to, high);
            turn_16(to + AMX_BYTES, low);
        }
    }
}

/* A factor whose rows are split 16 at a time; `turned`: its columns are. */
typedef struct {
    const int16_t *w;
    int32_t stride, rows, count; /* rows of `count` numbers, transposed or not */
    amx_seeing how;
} amx_factor;

/* Sixteen rows from i on: the k-th 64 of them. */
AMX_INLINE void split_one(amx_pair *to, const amx_factor *f, int turned, int32_t i, int32_t k)
{
    const int32_t left = f->rows - i < AMX_SIDE ? f->rows - i : AMX_SIDE;

    if (turned) {
        split_columns(to, f->w + i, f->stride, left, k, f->count, &f->how);
    } else {
        split_rows(to, f->w + (size_t)i * (size_t)f->stride, f->stride, left, k, f->count,
                   &f->how);
    }
}

AMX_INLINE void split_all(amx_pair *a, const amx_factor *f, int turned, int32_t i)
{
    const int32_t blocks = amx_blocks(f->count);

    for (int32_t k = 0; k < blocks && blocks <= KEPT; k++) {
        split_one(&a[k], f, turned, i, k);
    }
}

/* The next 16 rows, a few at a time: what a processor does not foresee, as they are read at
 * once after a while in which others are multiplied. */
typedef struct {
    const char *at;
    size_t step, left, some; /* bytes from one line to the next, lines, lines at a time */
} amx_ahead;

AMX_INLINE amx_ahead ahead_of(const amx_factor *f, int turned, int32_t i, int32_t columns)
{
    const int32_t next = i + AMX_SIDE;
    const size_t stride = (size_t)f->stride * sizeof *f->w;
    const size_t rows = (size_t)(f->rows - next < AMX_SIDE ? f->rows - next : AMX_SIDE);
    const size_t steps = (size_t)(columns + 2 * AMX_SIDE - 1) / (2 * AMX_SIDE) *
                         (size_t)amx_blocks(f->count);
    amx_ahead a = {NULL, 0, 0, 0};

    if (next < f->rows && amx_blocks(f->count) <= KEPT &&
        (size_t)f->rows * (size_t)f->count * sizeof *f->w > AMX_NEAR) {
        a.at = (const char *)(turned ? f->w + next : f->w + (size_t)next * (size_t)f->stride);
        a.step = turned ? stride : AMX_DEEP;
        a.left = turned ? (size_t)f->count : (rows * stride + AMX_DEEP - 1) / AMX_DEEP;
        a.some = (a.left + steps - 1) / steps;
    }
    return a;
}

AMX_INLINE void look_ahead(amx_ahead *a)
{
    for (size_t k = 0; k < a->some && a->left > 0; k++, a->left--, a->at += a->step) {
        _mm_prefetch(a->at, _MM_HINT_T1);
    }
}

/* Sums of 16 rows with one or two blocks of 16 columns from `panel` on. `a`: what split_all
 * left, or where there are more than KEPT of them, room for one at a time. */
AMX_INLINE void sums_16(amx_sums *s, amx_pair *a, const amx_factor *f, int turned, int32_t i,
                        const int8_t *panel, int two, amx_ahead *ahead)
{
    const int32_t blocks = amx_blocks(f->count);
    const size_t next = panel_bytes(blocks);

    amx_zero();
    for (int32_t k = 0; k < blocks; k++, panel += 2 * AMX_BYTES) {
        const amx_pair *from = a + (blocks > KEPT ? 0 : k);
        if (blocks > KEPT) {
            split_one(a, f, turned, i, k);
        }
        look_ahead(ahead);
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

/* Sums of 16 by 16 or 32, rounded. `fits`: for certain in int32, else if a look says so. */
AMX_INLINE void round_16(int32_t *out, int32_t columns, const amx_sums *s, int32_t rows, int two,
                         int32_t shift, const uint32_t *by, int fits)
{
    for (int c = 0; c <= two; c++, out += AMX_SIDE) {
        const int narrow = fits || amx_fits(s, c);
        for (int32_t r = 0; r < rows; r++) {
            const int32_t k = shift + (by ? (int32_t)by[r] : 0);
            __m512i x;
            if (narrow) {
                x = round_sum(amx_sum(s, c, r), k);
            } else {
                const __m512i high = amx_wide_sum(s, c, r, &x);
                x = round_wide(high, x, k);
            }
            _mm512_storeu_si512(out + (size_t)r * (size_t)columns, x);
        }
    }
}

AMX_INLINE void product_of(int32_t *out, const amx_factor *f, int turned, const int16_t *pairs,
                           int32_t columns, int32_t shift, const uint32_t *by, int fits)
{
    const size_t panel = panel_bytes(amx_blocks(f->count));
    amx_pair a[KEPT];
    amx_sums s;

    amx_begin();
    for (int32_t i = 0; i < f->rows; i += AMX_SIDE) {
        const int32_t rows = f->rows - i < AMX_SIDE ? f->rows - i : AMX_SIDE;
        const int8_t *x = (const int8_t *)pairs;
        amx_ahead ahead = ahead_of(f, turned, i, columns);
        split_all(a, f, turned, i);
        for (int32_t b = 0; b < columns; b += 2 * AMX_SIDE, x += 2 * panel) {
            const int two = columns - b > AMX_SIDE;
            sums_16(&s, a, f, turned, i, x, two, &ahead);
            round_16(out + (size_t)i * (size_t)columns + (size_t)b, columns, &s, rows, two, shift,
                     by ? by + i : NULL, fits);
        }
    }
    amx_end();
}

AMX static void product(int32_t *out, const int16_t *w, int32_t stride, int32_t n, int32_t m,
                        const int16_t *pairs, int32_t columns, int32_t shift, const uint32_t *rows,
                        int32_t fits)
{
    const amx_factor f = {w, stride, n, m, {0, 0}};

    if (amx_pays(m)) {
        product_of(out, &f, 0, pairs, columns, shift, rows, fits);
    } else {
        gle_product_vnni(out, w, stride, n, m, pairs, columns, shift, rows, fits);
    }
}

static int32_t stored_reads(const gle_layer *y)
{
    return y->gains == NULL && amx_pays(y->m) && amx_pays(y->n);
}

AMX static void stored_forward(int32_t *out, const gle_layer *y, const int16_t *pairs,
                               int32_t columns, int32_t streams, int32_t shift, int32_t largest)
{
    const amx_factor f = {y->w, y->stride, y->n, y->m, {y->image->w_shift, y->image->w_left}};

    (void)streams;
    (void)largest;
    product_of(out, &f, 0, pairs, columns, shift, y->rows, 0);
}

AMX static void stored_back(int32_t *out, const gle_layer *y, int32_t first, int32_t count,
                            const int16_t *pairs, int32_t columns, int32_t streams, int32_t shift,
                            int32_t largest)
{
    const amx_factor f = {y->w + first, y->stride, count, y->n,
                          {y->image->w_shift, y->image->w_left}};

    (void)streams;
    (void)largest; /* the tiles' sums are looked at */
    product_of(out, &f, 1, pairs, columns, shift, NULL, 0);
}

static const gle_stored_kernels STORED = {stored_reads, stored_forward, stored_back, 1};

AMX static void outer(int32_t *out, const int16_t *e, int32_t rows, const int16_t *turned,
                      int32_t stride, int32_t m, int32_t columns, int32_t shift)
{
    const size_t panel = panel_bytes(amx_blocks(columns));
    const amx_factor f = {e, columns, rows, columns, {0, 0}};
    amx_ahead none = {NULL, 0, 0, 0};
    amx_pair a[KEPT];
    amx_sums s;

    if (!amx_learns(m, columns)) {
        gle_outer_vnni(out, e, rows, turned, stride, m, columns, shift);
        return;
    }
    amx_begin();
    for (int32_t i = 0; i < rows; i += AMX_SIDE) {
        const int32_t some = rows - i < AMX_SIDE ? rows - i : AMX_SIDE;
        const int8_t *x = (const int8_t *)turned;
        split_all(a, &f, 0, i);
        for (int32_t j = 0; j < m; j += 2 * AMX_SIDE, x += 2 * panel) {
            const int two = m - j > AMX_SIDE;
            sums_16(&s, a, &f, 0, i, x, two, &none);
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

const gle_kernels gle_kernels_amx = GLE_AVX512_TABLE("amx", product, outer, pack_pairs,
                                                     pack_turned, gle_learn_amx, &STORED);

#else
typedef int gle_no_amx; /* ISO C wants one declaration a file */
#endif
