/* Random bits of the weights of a row with AVX-512; see rng.h. */
#ifndef GLE_SHARE_VNNI_H
#define GLE_SHARE_VNNI_H

#include "lanes_vnni.h"

enum { ROOTS = 16 }; /* in a vector: of 256 weights */

/* Those from `root` on; a, b: the key. */
LANES __m512i rng_roots(__m512i a, __m512i b, uint32_t root)
{
    const __m512i numbers =
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);

    return rng_root_of(a, b, _mm512_add_epi32(numbers, all((int32_t)root)));
}

/* gle_rng_upper on lanes. */
LANES __m512i rng_upper(__m512i words)
{
    /* (words & mask) | one */
    return _mm512_ternarylogic_epi32(words, all((int32_t)0xffff0000u), all(0x8000), 0xea);
}

/* gle_rng_share: sixteen weights in order, whose root is in every lane. */
LANES __m512i rng_share(__m512i root)
{
    static const uint32_t f[GLE_RNG_SHARE / 2] = GLE_RNG_FACTORS;
    const __m512i factors = _mm512_setr_epi32(
        (int32_t)f[0], (int32_t)f[0], (int32_t)f[1], (int32_t)f[1], (int32_t)f[2], (int32_t)f[2],
        (int32_t)f[3], (int32_t)f[3], (int32_t)f[4], (int32_t)f[4], (int32_t)f[5], (int32_t)f[5],
        (int32_t)f[6], (int32_t)f[6], (int32_t)f[7], (int32_t)f[7]);
    const __m512i left = _mm512_set1_epi64(16); /* the first of a pair has the lower half */
    __m512i x = _mm512_mullo_epi32(root, factors);

    x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 15));
    return rng_upper(_mm512_sllv_epi32(x, left));
}

/* What makes the words of two roots, root at[0] of `roots` and root at[8]: a pair of weights
 * each. */
LANES __m512i rng_multiplied(__m512i roots, __m512i at)
{
    static const uint32_t factors[8] = GLE_RNG_FACTORS;
    const __m512i twice =
        _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(const void *)factors));

    return _mm512_mullo_epi32(_mm512_permutexvar_epi32(at, roots), twice);
}

/* The words: of root at[0] those in the lower half. */
LANES __m512i rng_pairs(__m512i roots, __m512i at)
{
    const __m512i x = rng_multiplied(roots, at);

    return _mm512_xor_si512(x, _mm512_srli_epi32(x, 15));
}

/* The same with 2^15 less of each half, which then is an int16. */
LANES __m512i rng_centred_pairs(__m512i roots, __m512i at)
{
    const __m512i x = rng_multiplied(roots, at);

    return _mm512_ternarylogic_epi32(x, _mm512_srli_epi32(x, 15), all((int32_t)0x80008000u), 0x96);
}

#endif
