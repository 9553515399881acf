/* Memory of the rules with AVX2, eight weights at a time: the integers of rule_*.c. Scratch
 * rows may be read and written beyond their end, memory may not. */
#include "learner.h"

#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)

#include <string.h>

#include "lanes_avx2.h"

enum { WIDE = 8 };

LANES __m256i round_all(__m256i x, int32_t k)
{
    const __m256i last = _mm256_and_si256(sra(x, k - 1), all(1));
    return k == 0 ? x : _mm256_add_epi32(sra(x, k), last);
}

/* Lanes of the first n weights. */
LANES __m256i live(int32_t n)
{
    return _mm256_cmpgt_epi32(all(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

LANES __m256i remember(const int32_t *memory, __m256i g, __m256i lanes, uint32_t *clipped)
{
    const __m256i sum = _mm256_add_epi32(_mm256_maskload_epi32(memory, lanes), g);
    const __m256i kept = clamp(sum, GLE_MEMORY_MAX);

    *clipped += (uint32_t)WIDE - count(_mm256_cmpeq_epi32(kept, sum));
    return kept;
}

LANES __m256i decayed(__m256i a, int32_t momentum)
{
    const __m256i positive = _mm256_cmpgt_epi32(a, _mm256_setzero_si256());
    const __m256i up = _mm256_and_si256(positive, all((1 << momentum) - 1));
    return _mm256_sub_epi32(a, sra(_mm256_add_epi32(a, up), momentum));
}

/* 8 log2(x) + 4, 0 for 0. With the bit behind the first cleared, a float cannot round up. */
LANES __m256i first_mean(__m256i x)
{
    const __m256i top = _mm256_andnot_si256(_mm256_srli_epi32(x, 1), x);
    const __m256i power = _mm256_srli_epi32(_mm256_castps_si256(_mm256_cvtepi32_ps(top)), 23);
    const __m256i c =
        _mm256_add_epi32(_mm256_slli_epi32(_mm256_sub_epi32(power, all(127)), 3), all(4));
    return _mm256_and_si256(c, _mm256_cmpgt_epi32(x, _mm256_setzero_si256()));
}

/* See rule_normalised.c; shifts by counts that are negative give 0. */
LANES __m256i heard(__m256i c, __m256i x, int32_t n, __m256i random)
{
    const __m256i table = _mm256_setr_epi32 GLE_NORM_TABLE_LIST;
    const __m256i o = _mm256_srli_epi32(c, 3), none = _mm256_cmpeq_epi32(c, all(0));
    const __m256i most = _mm256_min_epi32(_mm256_add_epi32(o, all(10)), all(30));
    const __m256i less = _mm256_min_epi32(x, _mm256_sllv_epi32(all(1), most));
    const __m256i right = _mm256_sub_epi32(o, all(6)), left = _mm256_sub_epi32(all(6), o);
    const __m256i t =
        _mm256_or_si256(_mm256_srlv_epi32(less, right), _mm256_sllv_epi32(less, left));
    const int32_t k = 16 + n;
    __m256i d = _mm256_mullo_epi32(t, _mm256_permutevar8x32_epi32(table, c));

    d = _mm256_sub_epi32(d, all(GLE_NORM_ONE));
    if (k < 27) {
        d = _mm256_min_epi32(d, all(8 << k));
    }
    d = _mm256_add_epi32(d, _mm256_srl_epi32(random, _mm_cvtsi32_si128(32 - k)));
    d = _mm256_add_epi32(c, sra(d, k));
    d = _mm256_max_epi32(all(1), _mm256_min_epi32(all(255), d));
    return _mm256_movemask_epi8(none) ? _mm256_blendv_epi8(d, first_mean(x), none) : d;
}

LANES __m256i ratio(__m256i a, int32_t momentum, __m256i c)
{
    const __m256i k =
        _mm256_add_epi32(_mm256_srli_epi32(_mm256_add_epi32(c, all(4)), 3), all(momentum));
    const __m256i most = _mm256_sllv_epi32(
        all(1), _mm256_min_epi32(_mm256_add_epi32(k, all(GLE_RATIO_MOST)), all(30)));
    const __m256i less =
        _mm256_max_epi32(_mm256_min_epi32(a, most), _mm256_sub_epi32(all(0), most));
    const __m256i right = _mm256_sub_epi32(k, all(GLE_RATIO_BITS));
    const __m256i last = _mm256_srav_epi32(less, _mm256_sub_epi32(right, all(1)));
    const __m256i rounded =
        _mm256_add_epi32(_mm256_srav_epi32(less, right), _mm256_and_si256(last, all(1)));
    const __m256i shifted = _mm256_sllv_epi32(less, _mm256_sub_epi32(all(0), right));
    return _mm256_blendv_epi8(shifted, rounded, _mm256_cmpgt_epi32(right, all(0)));
}

LANES __m256i means(const uint8_t *norm, int32_t n)
{
    uint64_t some = 0;

    memcpy(&some, norm, n < WIDE ? (size_t)n : WIDE);
    return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)some));
}

LANES void keep_means(uint8_t *norm, __m256i c, int32_t n)
{
    const __m128i half =
        _mm_packs_epi32(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1));
    const uint64_t some = (uint64_t)_mm_cvtsi128_si64(_mm_packus_epi16(half, half));

    memcpy(norm, &some, n < WIDE ? (size_t)n : WIDE);
}

LANES uint32_t learn(const int rule, int32_t *row, int32_t *memory, uint8_t *norm, int32_t m,
                     const gle_recall *how, uint32_t first)
{
    const int32_t momentum = how->momentum;
    __m256i index =
        _mm256_add_epi32(all((int32_t)first), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    uint32_t clipped = 0;

    for (int32_t j = 0; j < m; j += WIDE) {
        const __m256i lanes = live(m - j), zero = _mm256_setzero_si256();
        const __m256i g = clamp(round_all(load(row + j), how->drop), GLE_MEMORY_MAX);
        const __m256i a = remember(memory + j, _mm256_and_si256(g, lanes), lanes, &clipped);
        if (rule == GLE_SGD) {
            store(row + j, a);
        } else if (rule == GLE_SIGN) {
            store(row + j, _mm256_sub_epi32(_mm256_cmpgt_epi32(zero, a),
                                            _mm256_cmpgt_epi32(a, zero)));
        } else {
            const __m256i x = how->each ? _mm256_abs_epi32(g)
                                        : sra(_mm256_abs_epi32(a), momentum);
            const __m256i random = rng_word(rng_root(how->key, index), GLE_RNG_FIRST);
            const __m256i c = heard(means(norm + j, m - j), x, how->norm, random);
            store(row + j, ratio(a, momentum, c));
            keep_means(norm + j, c, m - j);
            index = _mm256_add_epi32(index, all(WIDE));
        }
        _mm256_maskstore_epi32(memory + j, lanes, decayed(a, momentum));
    }
    return clipped;
}

AVX2 static uint32_t add(int32_t *memory, const int32_t *row, int32_t m, int32_t drop)
{
    uint32_t clipped = 0;

    for (int32_t j = 0; j < m; j += WIDE) {
        const __m256i lanes = live(m - j);
        const __m256i g = clamp(round_all(load(row + j), drop), GLE_MEMORY_MAX);
        const __m256i a = remember(memory + j, _mm256_and_si256(g, lanes), lanes, &clipped);
        _mm256_maskstore_epi32(memory + j, lanes, a);
    }
    return clipped;
}

AVX2 static uint32_t sgd(int32_t *row, int32_t *memory, uint8_t *norm, int32_t m,
                         const gle_recall *how, uint32_t first)
{
    return learn(GLE_SGD, row, memory, norm, m, how, first);
}

AVX2 static uint32_t sign(int32_t *row, int32_t *memory, uint8_t *norm, int32_t m,
                          const gle_recall *how, uint32_t first)
{
    return learn(GLE_SIGN, row, memory, norm, m, how, first);
}

AVX2 static uint32_t normalised(int32_t *row, int32_t *memory, uint8_t *norm, int32_t m,
                                const gle_recall *how, uint32_t first)
{
    return learn(GLE_NORMALISED, row, memory, norm, m, how, first);
}

const struct gle_rule_kernels gle_rules_avx2 = {add, {sgd, normalised, sign}};

#else
typedef int gle_no_rule_avx2; /* ISO C wants one declaration a file */
#endif
