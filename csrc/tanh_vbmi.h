/* tanh's table by permutations of bytes, 64 entries at once, for cores whose gathers take longer:
 * AMD's.
 */
#ifndef GLE_TANH_VBMI_H
#define GLE_TANH_VBMI_H

#include "lanes_vnni.h"
#include "tanh_bytes.h"

#define VBMI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi,popcnt")))
#define BYTES static inline __attribute__((always_inline, target("avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi,popcnt")))

enum { GLE_TANH_TOGETHER = 4 /* vectors */ };

static inline int32_t gle_tanh_by_bytes(void)
{
    return __builtin_cpu_is("amd") && __builtin_cpu_supports("avx512vbmi");
}

/* Byte `which` of 64 entries: their numbers' lower eight bits, and where the eighth and the ninth
 * are set. */
BYTES __m512i tanh_byte(int32_t which, __m512i number, __mmask64 eighth, __mmask64 ninth)
{
    const uint8_t *const t = gle_tanh_bytes[which];
    __m512i q[4];

#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) { /* seven bits of a number count */
        q[k] = _mm512_permutex2var_epi8(load(t + 128 * k), number, load(t + 128 * k + 64));
    }
    q[0] = _mm512_mask_mov_epi8(q[0], eighth, q[1]);
    q[2] = _mm512_mask_mov_epi8(q[2], eighth, q[3]);
    return _mm512_mask_mov_epi8(q[0], ninth, q[2]);
}

/* Entries of tanh's table at four vectors of positions. What is packed and unpacked by 128 bits
 * comes back in its order. */
BYTES void tanh_entries(__m512i entry[4], const __m512i position[4])
{
    const __m512i low = _mm512_set1_epi16(0xff);
    const __m512i a = _mm512_packus_epi32(_mm512_srli_epi32(position[0], 16),
                                          _mm512_srli_epi32(position[1], 16));
    const __m512i b = _mm512_packus_epi32(_mm512_srli_epi32(position[2], 16),
                                          _mm512_srli_epi32(position[3], 16));
    const __m512i number =
        _mm512_packus_epi16(_mm512_and_si512(a, low), _mm512_and_si512(b, low));
    const __m512i upper =
        _mm512_packus_epi16(_mm512_srli_epi16(a, 8), _mm512_srli_epi16(b, 8));
    const __mmask64 eighth = _mm512_movepi8_mask(number);
    const __mmask64 ninth = _mm512_test_epi8_mask(upper, upper);
    __m512i byte[4], words[4];

#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        byte[k] = tanh_byte(k, number, eighth, ninth);
    }
    words[0] = _mm512_unpacklo_epi8(byte[0], byte[1]);
    words[1] = _mm512_unpackhi_epi8(byte[0], byte[1]);
    words[2] = _mm512_unpacklo_epi8(byte[2], byte[3]);
    words[3] = _mm512_unpackhi_epi8(byte[2], byte[3]);
    entry[0] = _mm512_unpacklo_epi16(words[0], words[2]);
    entry[1] = _mm512_unpackhi_epi16(words[0], words[2]);
    entry[2] = _mm512_unpacklo_epi16(words[1], words[3]);
    entry[3] = _mm512_unpackhi_epi16(words[1], words[3]);
}

#endif
