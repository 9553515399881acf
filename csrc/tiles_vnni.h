/* Register tiles of AVX-512 VNNI, shared by the products (matvec_vnni.c) and by what learns
 * (learn_vnni.c): vpdpwssd multiplies pairs of int16 and adds both products to an int32 in one
 * instruction, two of which a core may start each cycle. A tile is R rows by V vectors of 16;
 * it holds as many sums as registers allow, since each step of it loads R + V operands.
 *
 * 32 products of 14-bit factors fit an int32 and leave room for 16 bits more. Where more are
 * to be added, what a sum has above its lower 16 bits is moved to a second one every 16 pairs, or
 * so many as are known to fit: exact = 2^16 high + sum, |sum| < 2^31.
 */
#ifndef GLE_TILES_VNNI_H
#define GLE_TILES_VNNI_H

#include "single.h"

#include <immintrin.h>
#include <string.h>

#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,popcnt")))
#define TILE static inline __attribute__((always_inline, target("avx512f,avx512bw,avx512vl,avx512vnni,popcnt")))
/* A function of its own, of many tiles. */
#define APART VNNI static __attribute__((noinline))

enum { PAIRS = GLE_EXACT / 2, MOST_R = 8, MOST_V = 4 };

/* Rows of the largest tile of V vectors. */
#define TILE_ROWS(V) ((V) > 3 ? 6 : 8)

/* All tiles of V vectors over rows i .. n: tile(R) for each, the last with what is left. */
#define FOR_TILES(V, i, n, tile)                     \
    for (; (n) - (i) >= TILE_ROWS(V); (i) += TILE_ROWS(V)) { \
        tile(TILE_ROWS(V));                          \
    }                                                \
    switch ((n) - (i)) {                             \
    case 7:                                          \
        tile((TILE_ROWS(V) > 7 ? 7 : 1));            \
        break;                                       \
    case 6:                                          \
        tile((TILE_ROWS(V) > 6 ? 6 : 1));            \
        break;                                       \
    case 5:                                          \
        tile(5);                                     \
        break;                                       \
    case 4:                                          \
        tile(4);                                     \
        break;                                       \
    case 3:                                          \
        tile(3);                                     \
        break;                                       \
    case 2:                                          \
        tile(2);                                     \
        break;                                       \
    case 1:                                          \
        tile(1);                                     \
        break;                                       \
    default:                                         \
        break;                                       \
    }

/* Vectors of the next tile, of `left`: as even as can be. */
TILE int32_t tile_vectors(int32_t left)
{
    return left == 5 || left == 6 || left == 3 ? 3 : left < 4 ? left : 4;
}

TILE __m512i pair_at(const int16_t *p)
{
    int32_t two;
    memcpy(&two, p, sizeof two);
    return _mm512_set1_epi32(two);
}

/* *sum += the products of two pairs. Written out, as gcc copies the sums about otherwise. */
TILE void add_products(__m512i *sum, __m512i a, __m512i b)
{
    __asm__("vpdpwssd %2, %1, %0" : "+v"(*sum) : "v"(a), "v"(b));
}

/* *high += the upper 16 bits of a sum, which keeps the lower ones: as one factor, times 1. What is
 * the same for all stays in memory; compilers would keep sums there instead. */
TILE void carry(__m512i *high, __m512i *sum)
{
    static const int32_t upper = 0x10000, lower = 0xffff;

    __asm__("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(*high) : "v"(*sum), "m"(upper));
    __asm__("vpandd %1%{1to16%}, %0, %0" : "+v"(*sum) : "m"(lower));
}

/* Upper parts of a tile's sums, in memory: the registers are for the lower ones. */
typedef struct {
    __m512i at[MOST_R * 3];
} tile_high;

/* A tile's sums += the products of one pair. */
TILE void add_pair(const int R, const int V, const int16_t *w, int32_t stride, const int16_t *panel,
                   __m512i sum[MOST_R][MOST_V])
{
    __m512i xs[MOST_V];

#pragma GCC unroll 4
    for (int c = 0; c < V; c++) {
        xs[c] = _mm512_loadu_si512(panel + 32 * c);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        const __m512i ws = pair_at(w + (size_t)r * (size_t)stride);
#pragma GCC unroll 4
        for (int c = 0; c < V; c++) {
            add_products(&sum[r][c], ws, xs[c]);
        }
    }
}

/* A tile's exact sums over `count` pairs; `wide`: `high` is used, every `chunk` pairs. Sums of row
 * r begin with start[r], or NULL: 0. A row of w begins `stride` behind the one before, a pair
 * `along`. `ahead`: from where a cache line for each pair is brought nearer; NULL: none. */
TILE void sums_of(const int R, const int V, const int wide, int32_t chunk, const int16_t *w,
                  int32_t stride, int32_t along, int32_t count, const int16_t *x, int32_t step,
                  const __m512i *start, __m512i sum[MOST_R][MOST_V], tile_high *high,
                  const gle_ahead *ahead)
{
    const char *line = ahead != NULL ? ahead->at : NULL;
    __m512i *up = high->at;

    if (wide) {
        __asm__("" : "+r"(up) : : "memory"); /* compilers would keep it in registers */
    }

#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
        for (int c = 0; c < V; c++) {
            sum[r][c] = start != NULL ? start[r] : _mm512_setzero_si512();
            if (wide) {
                _mm512_storeu_si512(up + r * V + c, _mm512_setzero_si512());
            }
        }
    }
    for (int32_t k = 0; k < count;) {
        const int32_t end = !wide || count - k <= chunk ? count : k + chunk;
        for (; k < end; k++) {
            if (ahead != NULL) {
                _mm_prefetch(line, _MM_HINT_T1);
                line += ahead->pair;
            }
            add_pair(R, V, w + (size_t)k * (size_t)along, stride, x + (size_t)k * (size_t)step * 2,
                     sum);
        }
        if (wide && k < count) {
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
                for (int c = 0; c < V; c++) {
                    __m512i more = _mm512_loadu_si512(up + r * V + c);
                    carry(&more, &sum[r][c]);
                    _mm512_storeu_si512(up + r * V + c, more);
                }
            }
        }
    }
}

/* The same as 2^16 high + low with 0 <= low < 2^16. */
TILE void carried(__m512i *high, __m512i *low)
{
    *high = _mm512_add_epi32(*high, _mm512_srai_epi32(*low, 16));
    *low = _mm512_and_si512(*low, _mm512_set1_epi32(0xffff));
}

/* round((2^16 high + low) 2^-shift) of a gradient: 0 <= shift <= 16, and it fits int32
 * (gle_gradient_shift). */
TILE __m512i round_outer(__m512i high, __m512i low, int32_t shift)
{
    const __m512i half = _mm512_set1_epi32(shift > 0 ? 1 << (shift - 1) : 0);

    carried(&high, &low);
    high = _mm512_sll_epi32(high, _mm_cvtsi32_si128(16 - shift));
    low = _mm512_srl_epi32(_mm512_add_epi32(low, half), _mm_cvtsi32_si128(shift));
    return _mm512_add_epi32(high, low);
}

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

#endif
