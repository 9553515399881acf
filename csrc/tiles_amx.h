/* Matrix tiles of AMX: tdpbssd adds the products of 16 rows of 64 int8 with 64 rows of 16 to 16 by
 * 16 sums of int32, 1024 multiplications a cycle.
 *
 * A factor of 14 significant bits is 128 high + low, -64 <= high < 64, 0 <= low < 128, so that
 *
 *     sum a b = 2^14 sum ah bh + 2^7 sum (ah bl + al bh) + sum al bl
 *
 * is exact in three int32 sums of up to 2^16 products, with four of these instructions where
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
    AMX_DEEP = 64,                  /* products that one instruction adds to a sum */
    AMX_BYTES = AMX_SIDE * AMX_DEEP,
    AMX_LONGEST = 1 << 16           /* products of a sum */
};

#define TILE_ZERO(t) __asm__ volatile("tilezero %%tmm" #t : : : "memory")
#define TILE_LOAD(t, from) \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t : : "r"(from), "r"((size_t)AMX_DEEP) : "memory")
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

/* 64 numbers, or those of them that are left. */
AMX_INLINE void split(__m512i *high, __m512i *low, const int16_t *x, int32_t left)
{
    const __mmask32 first = left >= 32 ? 0xffffffffu : (1u << left) - 1u;
    const __mmask32 second = left >= 64   ? 0xffffffffu
                             : left <= 32 ? 0u
                                          : (1u << (left - 32)) - 1u;
    const __m512i some = _mm512_set1_epi16(127);
    const __m512i a = _mm512_maskz_loadu_epi16(first, x);
    const __m512i b = _mm512_maskz_loadu_epi16(second, x + 32);

    *high = _mm512_packs_epi16(_mm512_srai_epi16(a, 7), _mm512_srai_epi16(b, 7));
    *low = _mm512_packs_epi16(_mm512_and_si512(a, some), _mm512_and_si512(b, some));
}

/* The k-th 64 of 16 rows; of those there are `rows`. */
AMX_INLINE void split_rows(amx_pair *to, const int16_t *w, int32_t stride, int32_t rows,
                           int32_t k, int32_t count)
{
    const int32_t left = count - k * AMX_DEEP;

    for (int32_t r = 0; r < AMX_SIDE; r++) {
        __m512i high = _mm512_setzero_si512(), low = high;
        if (r < rows) {
            split(&high, &low, w + (size_t)r * (size_t)stride + (size_t)k * AMX_DEEP, left);
        }
        _mm512_store_si512(to->high + r * AMX_DEEP, high);
        _mm512_store_si512(to->low + r * AMX_DEEP, low);
    }
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

/* layouts: pack_amx.c */
void gle_pairs_amx(int16_t *pairs, const int16_t *x, int32_t n, int32_t columns);
void gle_turned_amx(int16_t *turned, const int16_t *x, int32_t n, int32_t stride,
                    int32_t columns);

/* Whether sums of `count` products go by tiles: what is packed goes by the same. */
enum { AMX_LEAST = 64, AMX_STREAMS = 64 };
static inline int amx_pays(int32_t count)
{
    return count >= AMX_LEAST && count <= AMX_LONGEST;
}
static inline int amx_learns(int32_t inputs, int32_t columns)
{
    return inputs >= AMX_LEAST && columns >= AMX_STREAMS && columns <= AMX_LONGEST;
}

#endif
