/* Arithmetic of neurons on sixteen lanes of AVX-512, shared by the kernels for batches
 * (lanes are streams) and for one stream (lanes are neurons). The same integers as phi.h,
 * analog.h and fixed.h. */
#ifndef GLE_LANES_VNNI_H
#define GLE_LANES_VNNI_H

#include "neurons.h"

#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,popcnt")))
#define LANES static inline __attribute__((always_inline, target("avx512f,avx512bw,avx512vl,avx512vnni,popcnt")))

LANES __m512i all(int32_t x) { return _mm512_set1_epi32(x); }

LANES __m512i clamp(__m512i x, int32_t limit)
{
    return _mm512_max_epi32(all(-limit), _mm512_min_epi32(all(limit), x));
}

/* Of sixteen lanes from the b-th on, those below `count`. */
LANES __mmask16 live_of(int32_t count, int32_t b)
{
    const int32_t left = count - b;
    return left >= 16 ? (__mmask16)0xffff : left > 0 ? (__mmask16)((1u << left) - 1u) : (__mmask16)0;
}

/* By lane, which costs half of a shift of all lanes by one count. */
LANES __m512i sra(__m512i x, int32_t k) { return _mm512_srav_epi32(x, all(k)); }
LANES __m512i sll(__m512i x, int32_t k) { return _mm512_sllv_epi32(x, all(k)); }

/* Constants that stay in memory: compilers make them anew in each turn of a loop, on the port
 * that has the most to do. */
static const int32_t gle_fixed[] = {4, 0x1fff, 0x8000, 0xffff};
enum { FIXED_4, FIXED_1FFF, FIXED_8000, FIXED_FFFF };

LANES __m512i fixed(int32_t which)
{
    __m512i x;
    __asm__("vpbroadcastd %1, %0" : "=v"(x) : "m"(gle_fixed[which]));
    return x;
}

/* The same of what is the same throughout a loop. */
LANES __m512i held(__m512i x)
{
    __asm__("" : "+v"(x));
    return x;
}

/* gle_scale on lanes. */
LANES __m512i scale(__m512i d, const gle_mul *f)
{
    const __m512i m = all(f->m);
    const __m512i half = _mm512_set1_epi64(1LL << (f->k - 1));
    __m512i even, high;

    if (f->one) {
        return d;
    }
    even = _mm512_add_epi64(_mm512_mul_epi32(d, m), half);
    high = _mm512_add_epi64(_mm512_mul_epi32(_mm512_srli_epi64(d, 32), m), half);

    even = _mm512_srl_epi64(even, _mm_cvtsi32_si128(f->k));
    high = _mm512_sll_epi64(high, _mm_cvtsi32_si128(32 - f->k));
    return _mm512_mask_mov_epi32(even, 0xaaaa, high);
}

/* a b + c in the lower words of lanes whose upper ones are 0 in b. Written out, as gcc copies
 * registers about otherwise. */
LANES __m512i add_product(__m512i c, __m512i a, __m512i b)
{
    __asm__("vpdpwssd %2, %1, %0" : "+v"(c) : "v"(a), "v"(b));
    return c;
}

/* How gle_scale is done for one multiplier m 2^-k where |d| < 2^29 and |d| < 2^(15 + k): d is
 * split so that both parts fit 16 bits, and no product needs 64.
 *
 *     k <= 15: d = 2^k h + l,    y = h m + round(l m 2^-k)
 *     k >= 16: 2^s d = 2^16 h + l, y = (h m + half + (l m >> 16)) >> (k + s - 16), s = 1 or 0
 *
 * The latter are the halves of a lane as they stand; m is in the half that each is to meet.
 */
typedef struct {
    __m512i m, m_high, half, by, left;
    __mmask16 twice;
    const gle_mul *plain;
} factor;

/* How a multiplier is applied; PLAIN where d may be larger, as in a leak with few bits. */
enum { FACTOR_ONE, FACTOR_FINE, FACTOR_COARSE, FACTOR_PLAIN };

/* `any`: |d| may be 2^(15 + k) and more. */
LANES int32_t factor_kind(const gle_mul *f, int32_t any)
{
    return f->one ? FACTOR_ONE : any && f->k < 14 ? FACTOR_PLAIN : f->k <= 15 ? FACTOR_FINE : FACTOR_COARSE;
}

LANES factor factor_of(const gle_mul *f, int32_t kind)
{
    const int32_t k = f->k, s = k == 16;
    factor q;

    q.plain = f;
    q.m = all(f->m);
    q.m_high = q.half = q.by = q.left = q.m;
    q.twice = 0;
    if (kind == FACTOR_FINE) {
        q.half = all(0x7fff); /* the mask of l */
        q.by = all(k);
        q.left = all(15 - k);
    } else if (kind == FACTOR_COARSE) {
        q.m_high = all((int32_t)((uint32_t)f->m << 16));
        q.half = all((int32_t)(UINT32_C(1) << (k + s - 17)));
        q.by = all(k + s - 16);
        q.twice = s ? (__mmask16)0xffff : (__mmask16)0;
    }
    return q;
}

LANES __m512i scaled(__m512i d, const factor *f, int32_t kind)
{
    __m512i low;

    if (kind == FACTOR_ONE) {
        return d;
    }
    if (kind == FACTOR_PLAIN) {
        return scale(d, f->plain);
    }
    if (kind == FACTOR_FINE) {
        low = _mm512_and_si512(_mm512_sllv_epi32(d, f->left), f->half);
        low = _mm512_mulhrs_epi16(low, f->m);
        return add_product(low, _mm512_srav_epi32(d, f->by), f->m);
    }
    d = _mm512_mask_add_epi32(d, f->twice, d, d);
    low = _mm512_add_epi32(_mm512_mulhi_epu16(d, f->m), f->half);
    return _mm512_srav_epi32(add_product(low, d, f->m_high), f->by);
}

/* x + (y - x) f */
LANES __m512i towards(__m512i x, __m512i y, const factor *f, int32_t kind)
{
    return kind == FACTOR_ONE ? y : _mm512_add_epi32(x, scaled(_mm512_sub_epi32(y, x), f, kind));
}

/* gle_scale_q15 on lanes, slopes 0 .. GLE_PHI_ONE: x = 2^15 h + l, so that both parts have 16 bits.
 * 2^30 counts as one less: what that may change is clipped to GLE_STATE_MAX. */
LANES __m512i scale_q15(__m512i above, __m512i slope)
{
    const __m512i x = _mm512_min_epi32(above, all(GLE_SUM_MAX - 1));
    const __m512i low = _mm512_mulhrs_epi16(_mm512_and_si512(x, all(GLE_PHI_ONE - 1)), slope);
    const __m512i y = add_product(low, _mm512_srai_epi32(x, 15), slope);

    /* GLE_PHI_ONE is a negative number of 16 bits */
    return _mm512_mask_mov_epi32(y, _mm512_cmpeq_epi32_mask(slope, all(GLE_PHI_ONE)), above);
}

LANES __m512i load(const void *p) { return _mm512_loadu_si512(p); }
LANES void store(void *p, __m512i x) { _mm512_storeu_si512(p, x); }
/* The lower words of all lanes; one instruction less than vpmovdw. */
LANES void store16(void *p, __m512i x)
{
    const __m512i words = _mm512_setr_epi32(
        0x20000, 0x60004, 0xa0008, 0xe000c, 0x120010, 0x160014, 0x1a0018, 0x1e001c, 0, 0, 0, 0, 0,
        0, 0, 0);
    _mm256_storeu_si256(p, _mm512_castsi512_si256(_mm512_permutexvar_epi16(words, x)));
}

LANES __m512i entries(const uint32_t *table, __m512i position)
{
    return _mm512_i32gather_epi32(_mm512_srli_epi32(position, 16), table, 4);
}

/* step * part + half of a table's entry at a position */
LANES __m512i within(__m512i entry, __m512i position, __m512i half)
{
    const __m512i step = _mm512_and_si512(entry, fixed(FIXED_1FFF));
    const __m512i part = _mm512_and_si512(position, fixed(FIXED_FFFF));
    return _mm512_add_epi32(_mm512_mullo_epi32(step, part), half);
}

LANES __m512i tanh_from(__m512i entry, __m512i position)
{
    return _mm512_add_epi32(_mm512_srli_epi32(entry, 13),
                            _mm512_srli_epi32(within(entry, position, fixed(FIXED_8000)), 16));
}

LANES __m512i tanh_at(__m512i position)
{
    return tanh_from(entries(gle_tanh_table, position), position);
}

LANES __m512i softplus_at(__m512i position)
{
    const __m512i entry = entries(gle_softplus_table, position);
    return _mm512_sub_epi32(_mm512_slli_epi32(_mm512_srli_epi32(entry, 13), 4),
                            _mm512_srli_epi32(within(entry, position, all(0x800)), 12));
}

LANES __m512i tanh_slope(__m512i y)
{
    const __m512i y15 = _mm512_srai_epi32(_mm512_add_epi32(y, fixed(FIXED_4)), 3);
    const __m512i square = add_product(all(0x4000), y15, y15); /* 2^15 is -2^15 there */
    return _mm512_sub_epi32(fixed(FIXED_8000), _mm512_srli_epi32(square, 15)); /* of GLE_PHI_ONE */
}

LANES __m512i signed_as(__m512i y, __mmask16 negative)
{
    return _mm512_mask_sub_epi32(y, negative, _mm512_setzero_si512(), y);
}

/* Where tanh's table is to be read, and the rate and its slope from what is found there. */
LANES __m512i tanh_position(__m512i uhat, const gle_phi_format *f)
{
    return sll(_mm512_min_epi32(_mm512_abs_epi32(uhat), all(f->end8)), f->align);
}

LANES __m512i tanh_rate(__m512i y, __m512i uhat, const gle_phi_format *f, __m512i *slope)
{
    *slope = tanh_slope(y);
    y = sra(_mm512_add_epi32(y, all(f->tanh_half)), f->tanh_shift);
    return signed_as(y, _mm512_cmplt_epi32_mask(uhat, _mm512_setzero_si512()));
}

/* gle_phi_rate on lanes. */
LANES __m512i rate(const int32_t phi, __m512i uhat, const gle_phi_format *f, __m512i *slope)
{
    const __m512i size = _mm512_abs_epi32(uhat);
    const __mmask16 negative = _mm512_cmplt_epi32_mask(uhat, _mm512_setzero_si512());

    if (phi == GLE_TANH) {
        return tanh_rate(tanh_at(tanh_position(uhat, f)), uhat, f, slope);
    }
    if (phi == GLE_SIGMOID || phi == GLE_SOFTPLUS) {
        const __m512i end = _mm512_min_epi32(size, all(f->end16));
        const __m512i position =
            f->align > 0 ? sll(end, f->align - 1) : _mm512_srai_epi32(end, 1);
        __m512i y = tanh_at(position);
        const __m512i z = _mm512_add_epi32(all(1 << 18), signed_as(y, negative));
        if (phi == GLE_SIGMOID) {
            *slope = _mm512_srai_epi32(_mm512_add_epi32(tanh_slope(y), all(2)), 2);
            return sra(_mm512_add_epi32(z, all(f->sigmoid_half)), f->sigmoid_shift);
        }
        *slope = _mm512_srai_epi32(z, 4);
        y = softplus_at(position);
        y = sra(_mm512_add_epi32(y, all(f->soft_half)), f->soft_shift);
        y = _mm512_mask_add_epi32(y, (__mmask16)~negative, y, uhat);
        return sra(_mm512_add_epi32(y, all(f->linear_half)), f->linear_shift);
    }
    *slope = all(GLE_PHI_ONE);
    if (phi == GLE_RELU) {
        const __mmask16 on = _mm512_cmpgt_epi32_mask(uhat, _mm512_setzero_si512());
        *slope = _mm512_maskz_mov_epi32(on, *slope);
        uhat = _mm512_maskz_mov_epi32(on, uhat);
    }
    return sra(_mm512_add_epi32(uhat, all(f->linear_half)), f->linear_shift);
}

/* gle_rng_root and gle_rng_word on lanes; a, b: the key. */
LANES __m512i rng_root_of(__m512i a, __m512i b, __m512i index)
{
    __m512i x = _mm512_xor_si512(index, a);
    x = _mm512_mullo_epi32(_mm512_xor_si512(x, _mm512_srli_epi32(x, 16)), all(0x7feb352d));
    x = _mm512_add_epi32(_mm512_xor_si512(x, _mm512_srli_epi32(x, 15)), b);
    x = _mm512_mullo_epi32(x, all((int32_t)0x846ca68bu));
    return _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
}

LANES __m512i rng_root(gle_key key, __m512i index)
{
    return rng_root_of(all((int32_t)key.a), all((int32_t)key.b), index);
}

LANES __m512i rng_word(__m512i root, uint32_t which)
{
    const __m512i x = _mm512_mullo_epi32(root, all((int32_t)which));
    return _mm512_xor_si512(x, _mm512_srli_epi32(x, 15));
}

/* The noise of neuron i: what is the same for all its streams. */
typedef struct {
    __m512i signs, mean, m, half, right;
} noiser;

LANES noiser noiser_of(const gle_noise *f, int32_t i)
{
    noiser z;

    z.signs = all((int32_t)gle_noise_signs(i, f->left));
    z.mean = all(-gle_noise_mean(i, f->left));
    z.m = all(f->m);
    z.half = all(f->half);
    z.right = all(f->right);
    return z;
}

/* gle_noise_at on lanes: bytes are summed by one dot product; the factors have 16 bits. */
LANES __m512i noise(const noiser *z, __m512i word)
{
    const __m512i unit = _mm512_dpbusd_epi32(z->mean, word, z->signs);
    return _mm512_srav_epi32(_mm512_dpwssd_epi32(z->half, unit, z->m), z->right);
}

/* The words of neuron i and its neighbours, for each stream of a batch: those of membranes,
 * then those of errors, where there is noise there. */
LANES void draw_words(const gle_neuron_job *job, int32_t i)
{
    const __m512i streams = _mm512_mullo_epi32(
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
        all(GLE_MAX_SIZE / 4));

    for (int32_t b = 0; b < job->columns; b += 16) {
        const uint32_t first = gle_noise_index(job->first + (uint32_t)b, i);
        const __m512i root = rng_root(job->key, _mm512_add_epi32(streams, all((int32_t)first)));
        store(job->words + b, rng_word(root, GLE_RNG_FIRST));
        if (job->noise_e.m != 0) {
            store(job->words + job->columns + b, rng_word(root, GLE_RNG_SECOND));
        }
    }
}

/* The sum of each of sixteen vectors, in order. */
LANES __m512i sums_of_lanes(__m512i x[16])
{
#pragma GCC unroll 8
    for (int k = 0; k < 8; k++) {
        x[k] = _mm512_add_epi32(_mm512_unpacklo_epi32(x[2 * k], x[2 * k + 1]),
                                _mm512_unpackhi_epi32(x[2 * k], x[2 * k + 1]));
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        x[k] = _mm512_add_epi32(_mm512_unpacklo_epi64(x[2 * k], x[2 * k + 1]),
                                _mm512_unpackhi_epi64(x[2 * k], x[2 * k + 1]));
    }
#pragma GCC unroll 2
    for (int n = 2; n > 0; n--) {
#pragma GCC unroll 2
        for (int k = 0; k < n; k++) {
            x[k] = _mm512_add_epi32(_mm512_shuffle_i32x4(x[2 * k], x[2 * k + 1], 0x88),
                                    _mm512_shuffle_i32x4(x[2 * k], x[2 * k + 1], 0xdd));
        }
    }
    return x[0];
}

LANES uint32_t count(__mmask16 mask) { return (uint32_t)_mm_popcnt_u32((uint32_t)mask); }

#endif
