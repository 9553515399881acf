/* Layouts that the batch kernels read, made with AVX-512: pairs of neurons, pairs of streams
 * turned, and stored weights as the array sees them. The same as in matvec_scalar.c and see.inc.
 */
#include "single.h"

#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)

#include "lanes_vnni.h"

enum { WIDE = 32 /* int16 a vector */ };

LANES __m256i load_half(const int16_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

AVX512 int32_t gle_pairs_vnni(int16_t *pairs, const int16_t *x, int32_t n, int32_t columns)
{
    const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    const __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    __m512i most = _mm512_setzero_si512();

    for (int32_t j = 0; j < n; j += 2) {
        const int16_t *even = x + (size_t)j * (size_t)columns;
        const int16_t *odd = even + columns;
        const __mmask32 both = j + 1 < n ? 0xffffffffu : 0;
        int16_t *to = pairs + (size_t)j * (size_t)columns;
        for (int32_t b = 0; b < columns; b += WIDE) {
            const __mmask32 some = columns - b < WIDE ? 0xffffu : 0xffffffffu;
            const __m512i a = _mm512_maskz_loadu_epi16(some, even + b);
            const __m512i c = _mm512_maskz_loadu_epi16(some & both, odd + b);
            const __m512i low = _mm512_unpacklo_epi16(a, c);
            const __m512i high = _mm512_unpackhi_epi16(a, c);
            store(to + 2 * (size_t)b, _mm512_permutex2var_epi64(low, first, high));
            most = _mm512_max_epi16(most, _mm512_max_epi16(_mm512_abs_epi16(a), _mm512_abs_epi16(c)));
            if (columns - b >= WIDE) {
                store(to + 2 * (size_t)b + WIDE, _mm512_permutex2var_epi64(low, second, high));
            }
        }
    }
    most = _mm512_max_epi32(_mm512_and_si512(most, all(0xffff)), _mm512_srli_epi32(most, 16));
    return _mm512_reduce_max_epi32(most);
}

/* A transposition of 32-bit elements (two streams each): sixteen rows, 8 of them in each half
 * of a vector, by 8 elements. */
AVX512 void gle_turned_vnni(int16_t *turned, const int16_t *x, int32_t n, int32_t stride,
                            int32_t columns)
{
    const __m512i even = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    const __m512i odd = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    const size_t step = (size_t)stride * 2;

    for (int32_t j = 0; j < stride; j += 16) {
        for (int32_t b = 0; b < columns; b += 16) {
            int16_t *const to = turned + (size_t)(b / 2) * step + 2 * (size_t)j;
            __m512i p[8], q[8];
#pragma GCC unroll 8
            for (int32_t r = 0; r < 8; r++) {
                const int16_t *from = x + (size_t)(j + r) * (size_t)columns + (size_t)b;
                const __m256i one = j + r < n ? load_half(from) : _mm256_setzero_si256();
                const __m256i two = j + r + 8 < n ? load_half(from + 8 * (size_t)columns)
                                                  : _mm256_setzero_si256();
                p[r] = _mm512_inserti64x4(_mm512_castsi256_si512(one), two, 1);
            }
#pragma GCC unroll 4
            for (int32_t r = 0; r < 4; r++) {
                q[2 * r] = _mm512_unpacklo_epi32(p[2 * r], p[2 * r + 1]);
                q[2 * r + 1] = _mm512_unpackhi_epi32(p[2 * r], p[2 * r + 1]);
            }
            /* p[k]: element k and, in the other halves of 256 bits, k + 4, of 4 rows */
#pragma GCC unroll 2
            for (int32_t r = 0; r < 2; r++) {
                p[4 * r] = _mm512_unpacklo_epi64(q[4 * r], q[4 * r + 2]);
                p[4 * r + 1] = _mm512_unpackhi_epi64(q[4 * r], q[4 * r + 2]);
                p[4 * r + 2] = _mm512_unpacklo_epi64(q[4 * r + 1], q[4 * r + 3]);
                p[4 * r + 3] = _mm512_unpackhi_epi64(q[4 * r + 1], q[4 * r + 3]);
            }
#pragma GCC unroll 4
            for (int32_t k = 0; k < 4; k++) {
                store(to + (size_t)k * step, _mm512_permutex2var_epi64(p[k], even, p[4 + k]));
                store(to + (size_t)(k + 4) * step, _mm512_permutex2var_epi64(p[k], odd, p[4 + k]));
            }
        }
    }
}

#define GLE_TARGET AVX512
#define GLE_SEE see_any
#include "see.inc"

/* gle_synapse of 14-bit codes: 2^2 of them as vpmulhrsw rounds products. */
LANES __m512i synapses(__m512i code, const int16_t *gains, int32_t left)
{
    const __mmask32 there = left >= WIDE ? UINT32_MAX : (UINT32_C(1) << left) - 1u;
    const __m512i gain = _mm512_maskz_loadu_epi16(there, gains);
    const __m512i most = _mm512_set1_epi16(GLE_ARRAY_MAX), least = _mm512_set1_epi16(-GLE_ARRAY_MAX);
    const __m512i y = _mm512_mulhrs_epi16(_mm512_slli_epi16(code, 2), gain);
    const __m512i stuck = _mm512_sub_epi16(_mm512_set1_epi16(-(GLE_ARRAY_MAX + 1)), gain);

    return _mm512_mask_mov_epi16(_mm512_max_epi16(least, _mm512_min_epi16(most, y)),
                                 _mm512_movepi16_mask(gain), stuck);
}

AVX512 int32_t gle_see_vnni(int16_t *seen, const int16_t *w, int32_t m, const gle_seeing *how,
                            const uint32_t *gains, int32_t *columns)
{
    const __m128i left = _mm_cvtsi32_si128(how->w_left);
    /* 2^-w_shift of vpmulhrsw, which rounds as gle_round does */
    const __m512i by = _mm512_set1_epi16((int16_t)(how->w_shift > 0 ? 1 << (15 - how->w_shift) : 0));
    __m512i sum = _mm512_setzero_si512();

    if (gains == NULL && m % 16 != 0) {
        return see_any(seen, w, m, how, gains, columns);
    }
    /* rows of gains end within a vector; behind them there are no weights, and no gain */
    /* no masks: what a masked store has left cannot be loaded at once in the next row */
    for (int32_t j = 0; j < m; j += WIDE) {
        const int two = m - j > 16;
        __m512i x = two ? load(w + j) : _mm512_castsi256_si512(load_half(w + j));
        x = how->w_shift == 0 ? x : _mm512_mulhrs_epi16(x, by);
        x = _mm512_sll_epi16(x, left);
        x = gains == NULL ? x : synapses(x, (const int16_t *)(const void *)gains + j, m - j);
        const __m256i low = _mm256_abs_epi16(_mm512_castsi512_si256(x));
        _mm256_storeu_si256((__m256i *)(void *)(seen + j), _mm512_castsi512_si256(x));
        store(columns + j, _mm512_add_epi32(load(columns + j), _mm512_cvtepu16_epi32(low)));
        sum = _mm512_add_epi32(sum, _mm512_cvtepu16_epi32(low));
        if (two) {
            const __m256i y = _mm512_extracti64x4_epi64(x, 1);
            const __m512i high = _mm512_cvtepu16_epi32(_mm256_abs_epi16(y));
            _mm256_storeu_si256((__m256i *)(void *)(seen + j + 16), y);
            store(columns + j + 16, _mm512_add_epi32(load(columns + j + 16), high));
            sum = _mm512_add_epi32(sum, high);
        }
    }
    return _mm512_reduce_add_epi32(sum);
}

#else
typedef int gle_no_pack_vnni; /* ISO C wants one declaration a file */
#endif
