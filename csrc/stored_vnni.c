/* Products of a batch with stored weights that change at every step: sixteen rows or columns of
 * what the array sees at a time are made where the tiles of matvec_vnni.c find them, in the first
 * cache, instead of two copies of all weights that would each be read once.
 */
#include "single.h"

#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)

#include "lanes_vnni.h"

enum {
    SIDE = 16,      /* rows or columns that are made at once, and streams of a vector */
    WIDE = 32,      /* int16 a vector */
    LONGEST = 2048, /* products of a sum: of what is made, 100 KB stand on the stack */
    CHUNK = 32,     /* pairs that sums are looked at for */
    AHEAD = 16,     /* rows that are asked for before they are read */
    MANY = 128,     /* products of a sum, from which on few streams go apart */
    MANY_AMD = 64   /* the same where a core starts one product of vectors a cycle, not two */
};

typedef struct {
    __m512i by; /* 2^-w_shift of vpmulhrsw, which rounds as gle_round does */
    __m128i left;
    int32_t right, any_left;
} looker;

LANES looker looker_of(const gle_layer *y)
{
    const int32_t shift = y->image->w_shift;
    const looker k = {_mm512_set1_epi16((int16_t)(shift > 0 ? 1 << (15 - shift) : 0)),
                      _mm_cvtsi32_si128(y->image->w_left), shift > 0, y->image->w_left > 0};
    return k;
}

LANES __m512i looked_at(__m512i w, const looker *k)
{
    w = k->right ? _mm512_mulhrs_epi16(w, k->by) : w;
    return k->any_left ? _mm512_sll_epi16(w, k->left) : w;
}

/* Sums of |seen| of rows or columns, one a lane: the largest of CHUNK pairs, and of two such chunks
 * side by side, and of all. */
typedef struct {
    __m512i most, most_two, last, all;
} sizes;

LANES sizes no_sizes(void)
{
    const __m512i zero = _mm512_setzero_si512();
    const sizes s = {zero, zero, zero, zero};
    return s;
}

LANES void add_sizes(__m512i *sum, __m512i x)
{
    *sum = _mm512_dpwssd_epi32(*sum, _mm512_abs_epi16(x), _mm512_set1_epi16(1));
}

LANES void end_chunk(sizes *s, __m512i sum)
{
    s->most = _mm512_max_epi32(s->most, sum);
    s->most_two = _mm512_max_epi32(s->most_two, _mm512_add_epi32(s->last, sum));
    s->last = sum;
    s->all = _mm512_add_epi32(s->all, sum);
}

/* How many times a sum that is at most `size` times `largest` fits, with room for 16 bits. */
LANES int64_t times(__m512i size, int32_t largest)
{
    const int64_t most = (int64_t)_mm512_reduce_max_epi32(size) * largest;

    return (INT32_MAX - 0xffff) / (most > 0 ? most : 1);
}

/* Whether all sums fit, see gle_sums_fit. */
LANES int32_t all_fit(const sizes *s, int32_t largest, int32_t shift, const uint32_t *rows)
{
    return gle_sums_fit(_mm512_reduce_max_epi32(s->all), largest, shift, rows);
}

/* How many pairs a sum may have before it is carried, where not all fit. */
LANES int32_t chunk_of(const sizes *s, int32_t largest)
{
    const int64_t two = times(s->most_two, largest);

    if (two > 0) {
        return two < LONGEST ? 2 * CHUNK * (int32_t)two : LONGEST;
    }
    return times(s->most, largest) > 0 ? CHUNK : GLE_EXACT / 2;
}

/* Up to sixteen rows: seen[count][pitch]. */
LANES sizes see_rows(int16_t *seen, int32_t pitch, const int16_t *w, int32_t stride, int32_t count,
                     int32_t m, const looker *k)
{
    sizes s = no_sizes();

    for (int32_t j = 0; j < m; j += 2 * CHUNK) {
        const __mmask64 there = m - j < 2 * CHUNK ? (UINT64_C(1) << (m - j)) - 1u : UINT64_MAX;
        __m512i sums[SIDE] = {0};
        for (int32_t r = 0; r < count; r++) {
            const int16_t *from = w + (size_t)r * (size_t)stride + (size_t)j;
            int16_t *to = seen + r * pitch + j;
            const __m512i x = looked_at(_mm512_maskz_loadu_epi16((__mmask32)there, from), k);
            const __m512i y = looked_at(
                _mm512_maskz_loadu_epi16((__mmask32)(there >> WIDE), from + WIDE), k);
            add_sizes(&sums[r], x);
            add_sizes(&sums[r], y);
            store(to, x);
            store(to + WIDE, y);
        }
        end_chunk(&s, sums_of_lanes(sums));
    }
    return s;
}

/* Up to sixteen columns of n rows, pairs of rows in order: seen[n / 2][SIDE][2]. */
LANES sizes see_columns(int16_t *seen, const int16_t *w, int32_t stride, int32_t n, int32_t count,
                        const looker *k)
{
    const __mmask16 there = count < SIDE ? (__mmask16)((1u << count) - 1u) : (__mmask16)0xffff;
    const __m512i order = _mm512_setr_epi32(
        0x100000, 0x110001, 0x120002, 0x130003, 0x140004, 0x150005, 0x160006, 0x170007, 0x180008,
        0x190009, 0x1a000a, 0x1b000b, 0x1c000c, 0x1d000d, 0x1e000e, 0x1f000f);
    sizes s = no_sizes();

    for (int32_t i = 0; i < n;) {
        const int32_t end = n - i < 2 * CHUNK ? n : i + 2 * CHUNK;
        __m512i sum = _mm512_setzero_si512();
        for (; i < end; i += 2, w += 2 * (size_t)stride, seen += 2 * SIDE) {
            const __mmask16 second = i + 1 < n ? there : 0;
            const __m256i even = _mm256_maskz_loadu_epi16(there, w);
            const __m256i odd = _mm256_maskz_loadu_epi16(second, w + stride);
            const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(even), odd, 1);
            const __m512i x = looked_at(_mm512_permutexvar_epi16(order, both), k);
            if (i + AHEAD + 1 < n) {
                _mm_prefetch((const char *)(w + AHEAD * (size_t)stride), _MM_HINT_T0);
                _mm_prefetch((const char *)(w + (AHEAD + 1) * (size_t)stride), _MM_HINT_T0);
            }
            add_sizes(&sum, x);
            store(seen, x);
        }
        end_chunk(&s, sum);
    }
    return s;
}

static int32_t reads(const gle_layer *y)
{
    return y->gains == NULL && y->m <= LONGEST && y->n <= LONGEST;
}

/* Streams of the last vector that go apart, if any: up to half of it, see few_vnni.c. */
static int32_t few_of(int32_t m, int32_t columns, int32_t streams)
{
    const int32_t last = streams - (columns - SIDE);
    const int32_t many = __builtin_cpu_is("amd") ? MANY_AMD : MANY;

    return m >= many && columns > SIDE && last <= GLE_FEW_MOST ? last : 0;
}

AVX512 static void forward(int32_t *out, const gle_layer *y, const int16_t *pairs, int32_t columns,
                           int32_t streams, int32_t shift, int32_t largest)
{
    _Alignas(64) int16_t seen[SIDE * (LONGEST + WIDE)];
    _Alignas(64) int16_t turned[GLE_FEW_MOST * (LONGEST + WIDE)];
    const int32_t whole = (y->m + 2 * CHUNK - 1) / (2 * CHUNK) * (2 * CHUNK);
    const int32_t pitch = whole + WIDE; /* no power of 2 */
    const int32_t few = few_of(y->m, columns, streams), many = few ? columns - SIDE : columns;
    const size_t row = (size_t)y->stride * sizeof *y->w;
    const looker k = looker_of(y);

    if (few) {
        gle_few_turned_vnni(turned, pitch, pairs + 2 * (size_t)many, y->m, columns);
    }
    for (int32_t i = 0; i < y->n; i += SIDE) {
        const int32_t rows = y->n - i < SIDE ? y->n - i : SIDE;
        const sizes s = see_rows(seen, pitch, y->w + (size_t)i * (size_t)y->stride, y->stride, rows,
                                 y->m, &k);
        /* sixteen rows have 32 bytes for each pair of one */
        const int16_t *next = y->w + (size_t)(y->n - i > SIDE ? i + SIDE : 0) * (size_t)y->stride;
        const gle_ahead ahead = {(const char *)next, SIDE / 2 * row, SIDE * sizeof *y->w};
        const uint32_t *more = y->rows ? y->rows + i : NULL;
        const int32_t fits = all_fit(&s, largest, shift, more);
        int32_t *to = out + (size_t)i * (size_t)columns;
        gle_product_tiles_vnni(to, seen, pitch, 2, rows, y->m, pairs, columns, many, shift, more,
                               fits, fits ? LONGEST : chunk_of(&s, largest), &ahead);
        if (few) {
            gle_few_rows_vnni(to + many, columns, seen, pitch, rows, y->m, turned, few, shift, more,
                              fits, largest);
        }
    }
}

AVX512 static void back(int32_t *out, const gle_layer *y, int32_t first, int32_t count,
                        const int16_t *pairs, int32_t columns, int32_t streams, int32_t shift,
                        int32_t largest)
{
    _Alignas(64) int16_t seen[SIDE * (LONGEST + WIDE)];
    const int32_t few = few_of(y->n, columns, streams), many = few ? columns - SIDE : columns;
    const gle_ahead none = {(const char *)y->w, 0, 0}; /* a layer's own are near since `forward` */
    const looker k = looker_of(y);

    for (int32_t j = 0; j < count; j += SIDE) {
        const int32_t some = count - j < SIDE ? count - j : SIDE;
        const sizes s = see_columns(seen, y->w + first + j, y->stride, y->n, some, &k);
        const int32_t fits = all_fit(&s, largest, shift, NULL);
        const int32_t chunk = fits ? LONGEST : chunk_of(&s, largest);
        int32_t *to = out + (size_t)j * (size_t)columns;
        gle_product_tiles_vnni(to, seen, 2, 2 * SIDE, some, y->n, pairs, columns, many, shift, NULL,
                               fits, chunk, &none);
        if (few) {
            gle_few_columns_vnni(to + many, columns, seen, some, y->n, pairs + 2 * (size_t)many,
                                 few, shift, chunk);
        }
    }
}

const gle_stored_kernels gle_stored_vnni = {reads, forward, back, 0};

#else
typedef int gle_no_stored_vnni; /* ISO C wants one declaration a file */
#endif
