/* Products of a batch with stored weights that change at every step: sixteen rows or columns of
 * what the array sees at a time are made where the tiles of matvec_vnni.c find them, in the first
 * cache, instead of two copies of all weights that would each be read once.
 */
#include "single.h"

#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)

#include "lanes_vnni.h"

enum {
    SIDE = 16,      /* rows or columns that are made at once */
    WIDE = 32,      /* int16 a vector */
    LONGEST = 2048, /* products of a sum, beyond which all of it would leave the second cache */
    AHEAD = 16      /* rows that are asked for before they are read */
};

typedef struct {
    __m512i by; /* 2^-w_shift of vpmulhrsw, which rounds as gle_round does */
    __m128i left;
    int32_t shifts;
} looker;

LANES looker looker_of(const gle_layer *y)
{
    const int32_t shift = y->image->w_shift;
    const looker k = {_mm512_set1_epi16((int16_t)(shift > 0 ? 1 << (15 - shift) : 0)),
                      _mm_cvtsi32_si128(y->image->w_left), shift > 0};
    return k;
}

LANES __m512i looked_at(__m512i w, const looker *k)
{
    return _mm512_sll_epi16(k->shifts ? _mm512_mulhrs_epi16(w, k->by) : w, k->left);
}

/* *sum += |x|, by pairs */
LANES void add_sizes(__m512i *sum, __m512i x)
{
    *sum = _mm512_dpwssd_epi32(*sum, _mm512_abs_epi16(x), _mm512_set1_epi16(1));
}

/* seen[pitch] of a row. Returns the sum of |seen|. */
LANES int32_t see_row(int16_t *seen, const int16_t *w, int32_t m, const looker *k)
{
    __m512i sum = _mm512_setzero_si512();

    for (int32_t j = 0; j < m; j += WIDE) {
        const __mmask32 there = m - j < WIDE ? (UINT32_C(1) << (m - j)) - 1u : UINT32_MAX;
        const __m512i x = looked_at(_mm512_maskz_loadu_epi16(there, w + j), k);
        add_sizes(&sum, x);
        store(seen + j, x);
    }
    return _mm512_reduce_add_epi32(sum);
}

/* Up to sixteen columns of n rows, pairs of rows in order: seen[n / 2][SIDE][2]. Returns the
 * largest sum of |seen| of a column. */
LANES int32_t see_columns(int16_t *seen, const int16_t *w, int32_t stride, int32_t n,
                          int32_t count, const looker *k)
{
    const __mmask16 there = count < SIDE ? (__mmask16)((1u << count) - 1u) : (__mmask16)0xffff;
    const __m512i order = _mm512_setr_epi32(0x200000, 0x210001, 0x220002, 0x230003, 0x240004,
                                            0x250005, 0x260006, 0x270007, 0x280008, 0x290009,
                                            0x2a000a, 0x2b000b, 0x2c000c, 0x2d000d, 0x2e000e,
                                            0x2f000f);
    __m512i sum = _mm512_setzero_si512();

    for (int32_t i = 0; i < n; i += 2, w += 2 * (size_t)stride, seen += 2 * SIDE) {
        const __mmask16 second = i + 1 < n ? there : 0;
        const __m512i even = _mm512_castsi256_si512(_mm256_maskz_loadu_epi16(there, w));
        const __m512i odd = _mm512_castsi256_si512(_mm256_maskz_loadu_epi16(second, w + stride));
        const __m512i x = looked_at(_mm512_permutex2var_epi16(even, order, odd), k);
        if (i + AHEAD + 1 < n) {
            _mm_prefetch((const char *)(w + AHEAD * (size_t)stride), _MM_HINT_T0);
            _mm_prefetch((const char *)(w + (AHEAD + 1) * (size_t)stride), _MM_HINT_T0);
        }
        add_sizes(&sum, x);
        store(seen, x);
    }
    return _mm512_reduce_max_epi32(sum);
}

static int32_t reads(const gle_layer *y)
{
    return y->gains == NULL && y->m <= LONGEST && y->n <= LONGEST;
}

AVX512 static void forward(int32_t *out, const gle_layer *y, const int16_t *pairs, int32_t columns,
                           int32_t shift, int32_t largest)
{
    _Alignas(64) int16_t seen[SIDE * (LONGEST + WIDE)];
    const int32_t pitch = (y->m + WIDE - 1) / WIDE * WIDE + WIDE; /* no power of 2 */
    const looker k = looker_of(y);

    for (int32_t i = 0; i < y->n; i += SIDE) {
        const int32_t rows = y->n - i < SIDE ? y->n - i : SIDE;
        int32_t most = 0;
        for (int32_t r = 0; r < rows; r++) {
            const int32_t sum = see_row(seen + r * pitch,
                                        y->w + (size_t)(i + r) * (size_t)y->stride, y->m, &k);
            most = sum > most ? sum : most;
        }
        gle_product_tiles_vnni(out + (size_t)i * (size_t)columns, seen, pitch, 2, rows, y->m,
                               pairs, columns, shift, y->rows ? y->rows + i : NULL,
                               (int64_t)most * largest <= INT32_MAX);
    }
}

AVX512 static void back(int32_t *out, const gle_layer *y, int32_t first, int32_t count,
                        const int16_t *pairs, int32_t columns, int32_t shift, int32_t largest)
{
    _Alignas(64) int16_t seen[SIDE * (LONGEST + WIDE)];
    const looker k = looker_of(y);

    for (int32_t j = 0; j < count; j += SIDE) {
        const int32_t some = count - j < SIDE ? count - j : SIDE;
        const int32_t most = see_columns(seen, y->w + first + j, y->stride, y->n, some, &k);
        gle_product_tiles_vnni(out + (size_t)j * (size_t)columns, seen, 2, 2 * SIDE, some, y->n,
                               pairs, columns, shift, NULL, (int64_t)most * largest <= INT32_MAX);
    }
}

const gle_stored_kernels gle_stored_vnni = {reads, forward, back, 0};

#else
typedef int gle_no_stored_vnni; /* ISO C wants one declaration a file */
#endif
