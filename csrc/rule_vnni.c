/* Memory of the rules with AVX-512, sixteen weights at a time: the integers of rule_*.c.
 * Scratch rows may be read and written beyond their end, memory may not. */
#include "learner.h"

#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)

#include "lanes_vnni.h"

enum { WIDE = 16 };

LANES __m512i round_all(__m512i x, int32_t k)
{
    const __m512i last = _mm512_and_si512(sra(x, k - 1), all(1));
    return k == 0 ? x : _mm512_add_epi32(sra(x, k), last);
}

LANES __mmask16 live(int32_t n)
{
    return n < WIDE ? (__mmask16)((1u << n) - 1u) : (__mmask16)0xffff;
}

LANES __m512i remember(const int32_t *memory, __m512i g, __mmask16 lanes, uint32_t *clipped)
{
    const __m512i sum = _mm512_add_epi32(_mm512_maskz_loadu_epi32(lanes, memory), g);
    const __m512i kept = clamp(sum, GLE_MEMORY_MAX);

    *clipped += count(_mm512_mask_cmpneq_epi32_mask(lanes, kept, sum));
    return kept;
}

LANES __m512i decayed(__m512i a, int32_t momentum)
{
    const __mmask16 positive = _mm512_cmpgt_epi32_mask(a, _mm512_setzero_si512());
    const __m512i up = _mm512_mask_add_epi32(a, positive, a, all((1 << momentum) - 1));
    return _mm512_sub_epi32(a, sra(up, momentum));
}

/* 8 log2(x) + 4, 0 for 0. With the bit behind the first cleared, a float cannot round up. */
LANES __m512i first_mean(__m512i x)
{
    const __m512i top = _mm512_andnot_si512(_mm512_srli_epi32(x, 1), x);
    const __m512i power = _mm512_srli_epi32(_mm512_castps_si512(_mm512_cvtepi32_ps(top)), 23);
    const __m512i c = _mm512_slli_epi32(_mm512_sub_epi32(power, all(127)), 3);
    const __mmask16 any = _mm512_cmpgt_epi32_mask(x, _mm512_setzero_si512());
    return _mm512_maskz_add_epi32(any, c, all(4));
}

/* See rule_normalised.c; shifts by counts that are negative give 0. */
LANES __m512i heard(__m512i c, __m512i x, int32_t n, __m512i random)
{
    const __m512i table = _mm512_castsi256_si512(_mm256_setr_epi32 GLE_NORM_TABLE_LIST);
    const __m512i o = _mm512_srli_epi32(c, 3);
    const __mmask16 none = _mm512_cmpeq_epi32_mask(c, _mm512_setzero_si512());
    const __m512i most = _mm512_min_epi32(_mm512_add_epi32(o, all(10)), all(30));
    const __m512i less = _mm512_min_epi32(x, _mm512_sllv_epi32(all(1), most));
    const __m512i right = _mm512_sub_epi32(o, all(6)), left = _mm512_sub_epi32(all(6), o);
    const __m512i t =
        _mm512_or_si512(_mm512_srlv_epi32(less, right), _mm512_sllv_epi32(less, left));
    const int32_t k = 16 + n;
    __m512i d = _mm512_permutexvar_epi32(_mm512_and_si512(c, all(7)), table);

    d = _mm512_sub_epi32(_mm512_mullo_epi32(t, d), all(GLE_NORM_ONE));
    if (k < 27) {
        d = _mm512_min_epi32(d, all(8 << k));
    }
    d = _mm512_add_epi32(d, _mm512_srl_epi32(random, _mm_cvtsi32_si128(32 - k)));
    d = _mm512_add_epi32(c, sra(d, k));
    d = _mm512_max_epi32(all(1), _mm512_min_epi32(all(255), d));
    return none ? _mm512_mask_mov_epi32(d, none, first_mean(x)) : d;
}

LANES __m512i ratio(__m512i a, int32_t momentum, __m512i c)
{
    const __m512i k =
        _mm512_add_epi32(_mm512_srli_epi32(_mm512_add_epi32(c, all(4)), 3), all(momentum));
    const __m512i most = _mm512_sllv_epi32(
        all(1), _mm512_min_epi32(_mm512_add_epi32(k, all(GLE_RATIO_MOST)), all(30)));
    const __m512i less =
        _mm512_max_epi32(_mm512_min_epi32(a, most), _mm512_sub_epi32(all(0), most));
    const __m512i right = _mm512_sub_epi32(k, all(GLE_RATIO_BITS));
    const __m512i last = _mm512_srav_epi32(less, _mm512_sub_epi32(right, all(1)));
    const __m512i rounded =
        _mm512_add_epi32(_mm512_srav_epi32(less, right), _mm512_and_si512(last, all(1)));
    const __m512i shifted = _mm512_sllv_epi32(less, _mm512_sub_epi32(all(0), right));
    return _mm512_mask_mov_epi32(shifted, _mm512_cmpgt_epi32_mask(right, all(0)), rounded);
}

LANES uint32_t learn(const int rule, int32_t *row, int32_t *memory, uint8_t *norm, int32_t m,
                     const gle_recall *how, uint32_t first)
{
    const int32_t momentum = how->momentum;
    __m512i index = _mm512_add_epi32(
        all((int32_t)first),
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    uint32_t clipped = 0;

    for (int32_t j = 0; j < m; j += WIDE) {
        const __mmask16 lanes = live(m - j);
        const __m512i zero = _mm512_setzero_si512();
        const __m512i g = clamp(round_all(load(row + j), how->drop), GLE_MEMORY_MAX);
        const __m512i a = remember(memory + j, g, lanes, &clipped);
        if (rule == GLE_SGD) {
            store(row + j, a);
        } else if (rule == GLE_SIGN) {
            const __m512i up = _mm512_maskz_mov_epi32(_mm512_cmpgt_epi32_mask(a, zero), all(1));
            store(row + j,
                  _mm512_mask_mov_epi32(up, _mm512_cmpgt_epi32_mask(zero, a), all(-1)));
        } else {
            const __m512i x = how->each ? _mm512_abs_epi32(g)
                                        : sra(_mm512_abs_epi32(a), momentum);
            const __m512i random = rng_word(rng_root(how->key, index), GLE_RNG_FIRST);
            const __m512i old = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(lanes, norm + j));
            const __m512i c = heard(old, x, how->norm, random);
            store(row + j, ratio(a, momentum, c));
            _mm512_mask_cvtepi32_storeu_epi8(norm + j, lanes, c);
            index = _mm512_add_epi32(index, all(WIDE));
        }
        _mm512_mask_storeu_epi32(memory + j, lanes, decayed(a, momentum));
    }
    return clipped;
}

AVX512 static uint32_t add(int32_t *memory, const int32_t *row, int32_t m, int32_t drop)
{
    uint32_t clipped = 0;

    for (int32_t j = 0; j < m; j += WIDE) {
        const __mmask16 lanes = live(m - j);
        const __m512i g = clamp(round_all(load(row + j), drop), GLE_MEMORY_MAX);
        _mm512_mask_storeu_epi32(memory + j, lanes, remember(memory + j, g, lanes, &clipped));
    }
    return clipped;
}

AVX512 static uint32_t sgd(int32_t *row, int32_t *memory, uint8_t *norm, int32_t m,
                           const gle_recall *how, uint32_t first)
{
    return learn(GLE_SGD, row, memory, norm, m, how, first);
}

AVX512 static uint32_t sign(int32_t *row, int32_t *memory, uint8_t *norm, int32_t m,
                            const gle_recall *how, uint32_t first)
{
    return learn(GLE_SIGN, row, memory, norm, m, how, first);
}

AVX512 static uint32_t normalised(int32_t *row, int32_t *memory, uint8_t *norm, int32_t m,
                                  const gle_recall *how, uint32_t first)
{
    return learn(GLE_NORMALISED, row, memory, norm, m, how, first);
}

const struct gle_rule_kernels gle_rules_vnni = {add, {sgd, normalised, sign}};

#else
typedef int gle_no_rule_vnni; /* ISO C wants one declaration a file */
#endif
