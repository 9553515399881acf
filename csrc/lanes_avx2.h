/* Arithmetic of neurons on eight lanes of AVX2, shared by the kernels for batches (lanes are
 * streams) and for one stream (lanes are neurons). The same integers as phi.h, analog.h and
 * fixed.h.
 *
 * Products of a state with a multiplier are 32 x 32 -> 64 bits for even and odd lanes; since
 * results fit 32 bits, a logical 64-bit shift will do (AVX2 has no arithmetic one).
 */
#ifndef GLE_LANES_AVX2_H
#define GLE_LANES_AVX2_H

#include "neurons.h"

#include <immintrin.h>

#define AVX2 __attribute__((target("avx2,popcnt")))
#define LANES static inline __attribute__((always_inline, target("avx2,popcnt")))

LANES __m256i all(int32_t x) { return _mm256_set1_epi32(x); }

LANES __m256i clamp(__m256i x, int32_t limit)
{
    return _mm256_max_epi32(all(-limit), _mm256_min_epi32(all(limit), x));
}

LANES __m256i sra(__m256i x, int32_t k) { return _mm256_sra_epi32(x, _mm_cvtsi32_si128(k)); }
LANES __m256i sll(__m256i x, int32_t k) { return _mm256_sll_epi32(x, _mm_cvtsi32_si128(k)); }

/* gle_scale on lanes; m has its factor in every lane. */
LANES __m256i scale_by(__m256i d, __m256i m, int32_t k)
{
    const __m256i half = _mm256_set1_epi64x(1LL << (k - 1));
    const __m256i odd = _mm256_srli_epi64(d, 32);
    __m256i even = _mm256_add_epi64(_mm256_mul_epi32(d, m), half);
    __m256i high = _mm256_add_epi64(_mm256_mul_epi32(odd, m), half);

    even = _mm256_srl_epi64(even, _mm_cvtsi32_si128(k));
    high = _mm256_sll_epi64(high, _mm_cvtsi32_si128(32 - k));
    return _mm256_blend_epi32(even, high, 0xaa);
}

LANES __m256i scale(__m256i d, const gle_mul *f)
{
    return f->one ? d : scale_by(d, all(f->m), f->k);
}

LANES __m256i scale_q15(__m256i d, __m256i slope)
{
    const __m256i half = _mm256_set1_epi64x(16384);
    __m256i even = _mm256_add_epi64(_mm256_mul_epi32(d, slope), half);
    __m256i high = _mm256_add_epi64(
        _mm256_mul_epi32(_mm256_srli_epi64(d, 32), _mm256_srli_epi64(slope, 32)), half);

    even = _mm256_srli_epi64(even, 15);
    high = _mm256_slli_epi64(high, 17);
    return _mm256_blend_epi32(even, high, 0xaa);
}

LANES __m256i load(const void *p) { return _mm256_loadu_si256(p); }
LANES void store(void *p, __m256i x) { _mm256_storeu_si256(p, x); }

/* Low halves of eight lanes as eight 16-bit numbers. */
LANES void store16(void *p, __m256i x)
{
    const __m256i pick = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1,
                                          0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m256i y = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(x, pick), 0x08);
    _mm_storeu_si128(p, _mm256_castsi256_si128(y));
}

LANES __m256i entries(const uint32_t *table, __m256i position)
{
    return _mm256_i32gather_epi32((const int *)(const void *)table,
                                                 _mm256_srli_epi32(position, 16), 4);
}

/* step * part + half of a table's entry at a position */
LANES __m256i within(__m256i entry, __m256i position, int32_t half)
{
    const __m256i step = _mm256_and_si256(entry, all(0x1fff));
    const __m256i part = _mm256_and_si256(position, all(0xffff));
    return _mm256_add_epi32(_mm256_mullo_epi32(step, part), all(half));
}

LANES __m256i tanh_at(__m256i position)
{
    const __m256i entry = entries(gle_tanh_table, position);
    return _mm256_add_epi32(_mm256_srli_epi32(entry, 13),
                            _mm256_srli_epi32(within(entry, position, 0x8000), 16));
}

LANES __m256i softplus_at(__m256i position)
{
    const __m256i entry = entries(gle_softplus_table, position);
    return _mm256_sub_epi32(_mm256_slli_epi32(_mm256_srli_epi32(entry, 13), 4),
                            _mm256_srli_epi32(within(entry, position, 0x800), 12));
}

LANES __m256i tanh_slope(__m256i y)
{
    const __m256i y15 = _mm256_srai_epi32(_mm256_add_epi32(y, all(4)), 3);
    const __m256i square = _mm256_add_epi32(_mm256_mullo_epi32(y15, y15), all(0x4000));
    return _mm256_sub_epi32(all(GLE_PHI_ONE), _mm256_srli_epi32(square, 15));
}

/* Rounded, by a shift of its own in each lane. */
LANES __m256i round_each(__m256i x, __m256i k)
{
    const __m256i half = _mm256_srli_epi32(_mm256_sllv_epi32(all(1), k), 1);
    return _mm256_srav_epi32(_mm256_add_epi32(x, half), k);
}

/* gle_phi_rate on lanes; `drop` is gle_phi_drop, lane by lane. */
LANES __m256i rate_each(const int32_t phi, __m256i uhat, const gle_phi_format *f, __m256i drop,
                        __m256i *slope)
{
    const __m256i size = _mm256_abs_epi32(uhat);
    const __m256i negative = _mm256_srai_epi32(uhat, 31);

    if (phi == GLE_TANH) {
        __m256i y = sll(_mm256_min_epi32(size, all(f->end8)), f->align);
        y = tanh_at(y);
        *slope = tanh_slope(y);
        y = round_each(y, drop);
        return _mm256_sub_epi32(_mm256_xor_si256(y, negative), negative);
    }
    if (phi == GLE_SIGMOID || phi == GLE_SOFTPLUS) {
        const __m256i end = _mm256_min_epi32(size, all(f->end16));
        const __m256i position =
            f->align > 0 ? sll(end, f->align - 1) : _mm256_srai_epi32(end, 1);
        __m256i y = tanh_at(position);
        const __m256i z = _mm256_add_epi32(
            all(1 << 18), _mm256_sub_epi32(_mm256_xor_si256(y, negative), negative));
        if (phi == GLE_SIGMOID) {
            *slope = _mm256_srai_epi32(_mm256_add_epi32(tanh_slope(y), all(2)), 2);
            return round_each(z, drop);
        }
        *slope = _mm256_srai_epi32(z, 4);
        y = softplus_at(position);
        y = sra(_mm256_add_epi32(y, all(f->soft_half)), f->soft_shift);
        return round_each(_mm256_add_epi32(y, _mm256_andnot_si256(negative, uhat)), drop);
    }
    *slope = all(GLE_PHI_ONE);
    if (phi == GLE_RELU) {
        *slope = _mm256_and_si256(*slope, _mm256_cmpgt_epi32(uhat, _mm256_setzero_si256()));
        uhat = _mm256_andnot_si256(negative, uhat);
    }
    return round_each(uhat, drop);
}

/* The same, all lanes alike. */
LANES __m256i rate(const int32_t phi, __m256i uhat, const gle_phi_format *f, __m256i *slope)
{
    return rate_each(phi, uhat, f, all(gle_phi_drop(phi, f)), slope);
}

LANES uint32_t count(__m256i mask)
{
    return (uint32_t)_mm_popcnt_u32((uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(mask)));
}

LANES uint32_t largest(__m256i x)
{
    __m128i y = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    y = _mm_max_epi32(y, _mm_shuffle_epi32(y, 0x4e));
    y = _mm_max_epi32(y, _mm_shuffle_epi32(y, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(y);
}

/* gle_rng_root and gle_rng_word on lanes. */
LANES __m256i rng_root(gle_key key, __m256i index)
{
    __m256i x = _mm256_xor_si256(index, all((int32_t)key.a));
    x = _mm256_mullo_epi32(_mm256_xor_si256(x, _mm256_srli_epi32(x, 16)), all(0x7feb352d));
    x = _mm256_add_epi32(_mm256_xor_si256(x, _mm256_srli_epi32(x, 15)), all((int32_t)key.b));
    x = _mm256_mullo_epi32(x, all((int32_t)0x846ca68bu));
    return _mm256_xor_si256(x, _mm256_srli_epi32(x, 16));
}

LANES __m256i rng_word(__m256i root, uint32_t which)
{
    const __m256i x = _mm256_mullo_epi32(root, all((int32_t)which));
    return _mm256_xor_si256(x, _mm256_srli_epi32(x, 15));
}

/* Bytes are summed in pairs and fours. */
LANES __m256i noise_sum(__m256i word, __m256i signs)
{
    return _mm256_madd_epi16(_mm256_maddubs_epi16(word, signs), all(0x00010001));
}

/* gle_noise_at of neuron i on lanes that are its streams; the factors have 16 bits. */
LANES __m256i noise(const gle_noise *f, int32_t i, __m256i word)
{
    const __m256i sum = noise_sum(word, all((int32_t)gle_noise_signs(i, f->left)));
    const __m256i half = all(f->half - gle_noise_mean(i, f->left) * f->m);
    return sra(_mm256_add_epi32(_mm256_madd_epi16(sum, all(f->m)), half), f->right);
}

/* gle_noise_unit on lanes that are neurons, from the first of four on. */
LANES __m256i noise_units(__m256i word)
{
    const __m256i signs = _mm256_setr_epi32(
        (int32_t)gle_noise_signs(0, 0), (int32_t)gle_noise_signs(1, 0),
        (int32_t)gle_noise_signs(2, 0), (int32_t)gle_noise_signs(3, 0),
        (int32_t)gle_noise_signs(0, 0), (int32_t)gle_noise_signs(1, 0),
        (int32_t)gle_noise_signs(2, 0), (int32_t)gle_noise_signs(3, 0));
    const __m256i mean =
        _mm256_setr_epi32(GLE_NOISE_MEAN, 0, 0, 0, GLE_NOISE_MEAN, 0, 0, 0);
    return _mm256_sub_epi32(noise_sum(word, signs), mean);
}

/* The same noise in all neurons; then with a noise word (gle_noise) for each. */
LANES __m256i noise_alike(const gle_noise *f, __m256i word)
{
    const __m256i x = _mm256_madd_epi16(noise_units(word), all(f->m));
    return sra(_mm256_add_epi32(sll(x, f->left), all(f->half)), f->right);
}

LANES __m256i noise_each(__m256i packed, __m256i word)
{
    const __m256i zero = _mm256_setzero_si256();
    const __m256i k = _mm256_sub_epi32(_mm256_and_si256(packed, all(0xff)), all(GLE_NOISE_BIAS));
    const __m256i x = _mm256_madd_epi16(noise_units(word), _mm256_srli_epi32(packed, 8));
    const __m256i left = _mm256_sllv_epi32(x, _mm256_max_epi32(_mm256_sub_epi32(zero, k), zero));
    return round_each(left, _mm256_max_epi32(k, zero));
}

/* The words of neuron i and its neighbours, for each stream of a batch: those of membranes,
 * then those of errors, where there is noise there. */
LANES void draw_words(const gle_neuron_job *job, int32_t i)
{
    const __m256i streams = _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
                                               all(GLE_MAX_SIZE / 4));

    for (int32_t b = 0; b < job->columns; b += 8) {
        const uint32_t first = gle_noise_index(job->first + (uint32_t)b, i);
        const __m256i root = rng_root(job->key, _mm256_add_epi32(streams, all((int32_t)first)));
        store(job->words + b, rng_word(root, GLE_RNG_FIRST));
        if (job->noise_e.m != 0) {
            store(job->words + job->columns + b, rng_word(root, GLE_RNG_SECOND));
        }
    }
}

LANES uint32_t total(__m256i x)
{
    x = _mm256_hadd_epi32(x, x);
    x = _mm256_hadd_epi32(x, x);
    return (uint32_t)_mm256_extract_epi32(x, 0) + (uint32_t)_mm256_extract_epi32(x, 4);
}

#endif
