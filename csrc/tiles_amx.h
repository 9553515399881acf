/* Matrix tiles of AMX: tdpbssd adds the products of 16 rows of 64 int8 with 64 rows of 16 to 16 by
 * 16 sums of int32, 1024 multiplications a cycle.
 *
 * A factor of 14 significant bits is 128 high + low, -64 <= high < 64, 0 <= low < 128, so that
 *
 *     sum a b = 2^14 sum ah bh + 2^7 sum (ah bl + al bh) + sum al bl
 *
 * is exact in three int32 sums of up to 2^15 products, with four of these instructions where
 * vpdpwssd takes sixteen times as long.
 *
 * Both factors are split by packing vectors, which mixes the order within 64: what a sum runs
 * over stands in the same, odd order in both. Of groups of four it is quad_at.
 *
 * A compiler knows nothing of what is in tiles; all of them are free between these functions.
 */
#ifndef GLE_TILES_AMX_H
#define GLE_TILES_AMX_H

#include "kernels.h"

#include <immintrin.h>

#define AMX_TARGET "avx512f,avx512bw,avx512vl,avx512vnni,popcnt,amx-tile,amx-int8"
#define AMX __attribute__((target(AMX_TARGET)))
#define AMX_INLINE static inline __attribute__((always_inline, target(AMX_TARGET)))

enum {
    AMX_SIDE = 16,                  /* rows of a tile, and columns of sums */
    AMX_DEEP = GLE_DEEP,            /* products that one instruction adds to a sum */
    AMX_BYTES = AMX_SIDE * AMX_DEEP,
    AMX_LONGEST = 1 << 15           /* products of a sum */
};

/* What a compiler does not see being read, its sanitizer shall. */
#if defined(__SANITIZE_ADDRESS__)
AMX_INLINE void amx_seen(const int8_t *from)
{
    for (int32_t at = 0; at < AMX_BYTES; at += AMX_DEEP / 2) {
        (void)*(const volatile int8_t *)(from + at);
        (void)*(const volatile int8_t *)(from + at + AMX_DEEP / 2 - 1);
    }
}
#else
#define amx_seen(from) ((void)0)
#endif

#define TILE_ZERO(t) __asm__ volatile("tilezero %%tmm" #t : : : "memory")
#define TILE_LOAD(t, from)                                                           \
    do {                                                                             \
        amx_seen(from);                                                              \
        __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t                             \
                         : : "r"(from), "r"((size_t)AMX_DEEP) : "memory");           \
    } while (0)
#define TILE_STORE(t, to) \
    __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" : : "r"(to), "r"((size_t)64) : "memory")
#define TILE_ADD(sum, a, b) \
    __asm__ volatile("tdpbssd %%tmm" #b ", %%tmm" #a ", %%tmm" #sum : : : "memory")

typedef int8_t amx_tile[AMX_BYTES];

/* Sixteen rows of one factor, split: high and low, 64 products each. */
typedef struct {
    _Alignas(64) amx_tile high, low;
} amx_pair;

/* Three sums of 16 by 16, of two blocks side by side. */
typedef struct {
    _Alignas(64) int32_t high[2][AMX_SIDE][AMX_SIDE];
    _Alignas(64) int32_t mid[2][AMX_SIDE][AMX_SIDE];
    _Alignas(64) int32_t low[2][AMX_SIDE][AMX_SIDE];
} amx_sums;

AMX_INLINE void amx_begin(void)
{
    struct {
        uint8_t palette, start, none[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } how = {0};

    how.palette = 1;
    for (int t = 0; t < 8; t++) {
        how.bytes[t] = AMX_DEEP;
        how.rows[t] = AMX_SIDE;
    }
    __asm__ volatile("ldtilecfg %0" : : "m"(how));
}

AMX_INLINE void amx_end(void) { __asm__ volatile("tilerelease" : : : "memory"); }

AMX_INLINE int32_t amx_blocks(int32_t count) { return (count + AMX_DEEP - 1) / AMX_DEEP; }

/* Where four successive ones of 64, the q-th four, stand after a split. */
AMX_INLINE int32_t quad_at(int32_t q) { return (q & 6) * 2 + (q & 1) + (q & 8) / 4; }

/* Stored weights become what the array sees, as in see.inc, on the way; of other factors
 * nothing is dropped. vpmulhrsw by 2^(15-k) rounds as gle_round by k does. */
typedef struct {
    int32_t drop, left;
} amx_seeing;

AMX_INLINE __m512i seen_512(__m512i x, const amx_seeing *how)
{
    if (how->drop > 0) {
        x = _mm512_mulhrs_epi16(x, _mm512_set1_epi16((int16_t)(1 << (15 - how->drop))));
    }
    return how->left > 0 ? _mm512_sll_epi16(x, _mm_cvtsi32_si128(how->left)) : x;
}

AMX_INLINE __m256i seen_256(__m256i x, const amx_seeing *how)
{
    if (how->drop > 0) {
        x = _mm256_mulhrs_epi16(x, _mm256_set1_epi16((int16_t)(1 << (15 - how->drop))));
    }
    return how->left > 0 ? _mm256_sll_epi16(x, _mm_cvtsi32_si128(how->left)) : x;
}

/* 64 numbers, or those of them that are left. */
AMX_INLINE void split(__m512i *high, __m512i *low, const int16_t *x, int32_t left,
                      const amx_seeing *how)
{
    const __mmask32 first = left >= 32 ? 0xffffffffu : (1u << left) - 1u;
    const __mmask32 second = left >= 64   ? 0xffffffffu
                             : left <= 32 ? 0u
                                          : (1u << (left - 32)) - 1u;
    const __m512i some = _mm512_set1_epi16(127);
    const __m512i a = seen_512(_mm512_maskz_loadu_epi16(first, x), how);
    const __m512i b = seen_512(_mm512_maskz_loadu_epi16(second, x + 32), how);

    *high = _mm512_packs_epi16(_mm512_srai_epi16(a, 7), _mm512_srai_epi16(b, 7));
    *low = _mm512_packs_epi16(_mm512_and_si512(a, some), _mm512_and_si512(b, some));
}

/* The k-th 64 of 16 rows; of those there are `rows`. */
AMX_INLINE void split_rows(amx_pair *to, const int16_t *w, int32_t stride, int32_t rows,
                           int32_t k, int32_t count, const amx_seeing *how)
{
    const int32_t left = count - k * AMX_DEEP;

    for (int32_t r = 0; r < AMX_SIDE; r++) {
        __m512i high = _mm512_setzero_si512(), low = high;
        if (r < rows) {
            split(&high, &low, w + (size_t)r * (size_t)stride + (size_t)k * AMX_DEEP, left, how);
        }
        _mm512_store_si512(to->high + r * AMX_DEEP, high);
        _mm512_store_si512(to->low + r * AMX_DEEP, low);
    }
}

/* Bytes of four vectors of int16, next to each other. */
AMX_INLINE __m512i quads(__m256i a, __m256i b, __m256i c, __m256i d)
{
    const __m256i byte = _mm256_set1_epi16(0xff);
    const __m256i ab = _mm256_or_si256(_mm256_and_si256(a, byte), _mm256_slli_epi16(b, 8));
    const __m256i cd = _mm256_or_si256(_mm256_and_si256(c, byte), _mm256_slli_epi16(d, 8));

    return _mm512_or_si512(_mm512_cvtepu16_epi32(ab),
                           _mm512_slli_epi32(_mm512_cvtepu16_epi32(cd), 16));
}

/* Four rows of 16 columns, of which there are `rows` and those that `some` has. */
AMX_INLINE void split_quads(__m512i *high, __m512i *low, const int16_t *x, int32_t stride,
                            int32_t rows, __mmask16 some, const amx_seeing *how)
{
    __m256i up[4], down[4];

#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        const __m256i y = _mm256_maskz_loadu_epi16(k < rows ? some : 0,
                                                   x + (size_t)k * (size_t)stride);
        const __m256i z = seen_256(y, how);
        down[k] = _mm256_and_si256(z, _mm256_set1_epi16(127));
        up[k] = _mm256_srai_epi16(z, 7);
    }
    *high = quads(up[0], up[1], up[2], up[3]);
    *low = quads(down[0], down[1], down[2], down[3]);
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

/* The k-th 64 of 16 columns of a matrix with `count` rows: as split_rows of the transposed. */
AMX_INLINE void split_columns(amx_pair *to, const int16_t *w, int32_t stride, int32_t columns,
                              int32_t k, int32_t count, const amx_seeing *how)
{
    const __mmask16 some = columns >= AMX_SIDE ? 0xffff : (__mmask16)((1u << columns) - 1u);
    __m512i high[AMX_SIDE], low[AMX_SIDE];

    for (int32_t q = 0; q < AMX_SIDE; q++) {
        const int32_t i = k * AMX_DEEP + 4 * q, at = quad_at(q);
        split_quads(&high[at], &low[at], w + (size_t)i * (size_t)stride, stride, count - i, some,
                    how);
    }
    turn_16(to->high, high);
    turn_16(to->low, low);
}

/* Of two blocks of columns: `b` and, `next` behind it, another. */
AMX_INLINE void amx_add_two(const amx_pair *a, const int8_t *b, size_t next)
{
    TILE_LOAD(6, a->high);
    TILE_LOAD(7, b);
    TILE_ADD(0, 6, 7);
    TILE_LOAD(7, b + next);
    TILE_ADD(3, 6, 7);
    TILE_LOAD(7, b + AMX_BYTES);
    TILE_ADD(1, 6, 7);
    TILE_LOAD(7, b + next + AMX_BYTES);
    TILE_ADD(4, 6, 7);
    TILE_LOAD(6, a->low);
    TILE_ADD(5, 6, 7);
    TILE_LOAD(7, b + AMX_BYTES);
    TILE_ADD(2, 6, 7);
    TILE_LOAD(7, b);
    TILE_ADD(1, 6, 7);
    TILE_LOAD(7, b + next);
    TILE_ADD(4, 6, 7);
}

/* Of one, in four sums, as each waits for itself. */
AMX_INLINE void amx_add_one(const amx_pair *a, const int8_t *b)
{
    TILE_LOAD(6, a->high);
    TILE_LOAD(7, b);
    TILE_ADD(0, 6, 7);
    TILE_LOAD(5, b + AMX_BYTES);
    TILE_ADD(1, 6, 5);
    TILE_LOAD(6, a->low);
    TILE_ADD(3, 6, 7);
    TILE_ADD(2, 6, 5);
}

AMX_INLINE void amx_zero(void)
{
    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
    TILE_ZERO(4);
    TILE_ZERO(5);
}

AMX_INLINE void amx_store_two(amx_sums *to)
{
    TILE_STORE(0, to->high[0]);
    TILE_STORE(1, to->mid[0]);
    TILE_STORE(2, to->low[0]);
    TILE_STORE(3, to->high[1]);
    TILE_STORE(4, to->mid[1]);
    TILE_STORE(5, to->low[1]);
}

AMX_INLINE void amx_store_one(amx_sums *to)
{
    TILE_STORE(0, to->high[0]);
    TILE_STORE(1, to->mid[0]);
    TILE_STORE(2, to->low[0]);
    TILE_STORE(3, to->mid[1]);
    for (int r = 0; r < AMX_SIDE; r++) {
        _mm512_store_si512(to->mid[0][r], _mm512_add_epi32(_mm512_load_si512(to->mid[0][r]),
                                                           _mm512_load_si512(to->mid[1][r])));
    }
}

/* A row of sums modulo 2^32. */
AMX_INLINE __m512i amx_sum(const amx_sums *s, int block, int r)
{
    return _mm512_add_epi32(
        _mm512_add_epi32(_mm512_slli_epi32(_mm512_load_si512(s->high[block][r]), 14),
                         _mm512_slli_epi32(_mm512_load_si512(s->mid[block][r]), 7)),
        _mm512_load_si512(s->low[block][r]));
}

/* Whether the sums of a block are seen to fit int32: |2^14 high| <= 2^30, |2^7 mid| <= 2^29, and
 * 0 <= low < 2^14 2^15 where there are that many products. */
AMX_INLINE int amx_fits(const amx_sums *s, int block)
{
    const __m512i one = _mm512_set1_epi32(1 << 16), two = _mm512_set1_epi32(1 << 22);
    __m512i beyond = _mm512_setzero_si512();

    for (int r = 0; r < AMX_SIDE; r++) {
        const __m512i a = _mm512_add_epi32(_mm512_load_si512(s->high[block][r]), one);
        const __m512i b = _mm512_add_epi32(_mm512_load_si512(s->mid[block][r]), two);
        /* bits above those of a number from 0 to 2^17 - 1, or 2^23 - 1 */
        beyond = _mm512_or_si512(beyond, _mm512_or_si512(_mm512_srli_epi32(a, 17),
                                                         _mm512_srli_epi32(b, 23)));
    }
    return _mm512_test_epi32_mask(beyond, beyond) == 0;
}

/* The same exactly, as 2^16 high + low with 0 <= low < 2^18. */
AMX_INLINE __m512i amx_wide_sum(const amx_sums *s, int block, int r, __m512i *low)
{
    const __m512i a = _mm512_load_si512(s->high[block][r]);
    const __m512i b = _mm512_load_si512(s->mid[block][r]);
    const __m512i c = _mm512_load_si512(s->low[block][r]);
    const __m512i a2 = _mm512_slli_epi32(_mm512_and_si512(a, _mm512_set1_epi32(3)), 14);
    const __m512i b9 = _mm512_slli_epi32(_mm512_and_si512(b, _mm512_set1_epi32(511)), 7);
    const __m512i c16 = _mm512_and_si512(c, _mm512_set1_epi32(0xffff));

    *low = _mm512_add_epi32(_mm512_add_epi32(a2, b9), c16);
    return _mm512_add_epi32(_mm512_add_epi32(_mm512_srai_epi32(a, 2), _mm512_srai_epi32(b, 9)),
                            _mm512_srai_epi32(c, 16));
}

/* Whether sums of `count` products go by tiles: what is packed goes by the same. */
enum {
    AMX_LEAST = GLE_DEEP_LEAST, /* measured: at 90 vpdpwssd is as fast */
    AMX_STREAMS = 64,
    AMX_NEAR = 1 << 17 /* bytes of weights that are near all the time */
};
static inline int amx_pays(int32_t count)
{
    return count >= AMX_LEAST && count <= AMX_LONGEST;
}
static inline int amx_learns(int32_t inputs, int32_t columns)
{
    return inputs >= AMX_LEAST && columns >= AMX_STREAMS && columns <= AMX_LONGEST;
}

#endif
