/* Target error of a cross entropy over a batch, with AVX-512: sixteen streams at a time. The
 * same integers as softmax.c, where what they mean stands. Products that need 64 bits there are
 * split in two here: floor((2^8 a + b) 2^-(8 + k)) = floor((a + floor(b 2^-8)) 2^-k).
 */
#include "chip.h"
#include "exp2_table.h"
#include "single.h"

#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)

#include "lanes_vnni.h"

enum { EXP_FRAC = 20, P_FRAC = 24, R_FRAC = 15,
       FAR = 15 << R_FRAC /* e^-15 is less than half of 2^-EXP_FRAC */ };

/* 2^-t in EXP_FRAC of t = d log2(e), d >= 0 in R_FRAC. */
LANES __m512i exp_minus(__m512i d)
{
    const __m512i log2e = all(94548), near = _mm512_min_epu32(d, all(FAR));
    const __m512i high = _mm512_mullo_epi32(_mm512_srli_epi32(near, 8), log2e);
    const __m512i low = _mm512_mullo_epi32(_mm512_and_si512(near, all(0xff)), log2e);
    const __m512i t =
        _mm512_srli_epi32(_mm512_add_epi32(high, _mm512_srli_epi32(low, 8)), R_FRAC - 8);
    const __m512i whole = _mm512_srli_epi32(t, 16), part = _mm512_and_si512(t, all(0xff));
    const __m512i at = _mm512_and_si512(_mm512_srli_epi32(t, 8), all(0xff));
    const __m512i y = _mm512_i32gather_epi32(at, gle_exp2_table, 4);
    const __m512i next = _mm512_i32gather_epi32(at, gle_exp2_table + 1, 4);
    const __m512i step = _mm512_mullo_epi32(_mm512_sub_epi32(y, next), part);
    const __m512i p =
        _mm512_sub_epi32(y, _mm512_srai_epi32(_mm512_add_epi32(step, all(128)), 8));

    return _mm512_maskz_srlv_epi32(_mm512_cmple_epi32_mask(whole, all(EXP_FRAC)), p, whole);
}

/* round(x 2^-shift) clipped to GLE_SUM_MAX; |x| < 2^40 where -20 <= shift <= 0, else < 2^62. */
LANES __m256i rounded(__m512i x, int32_t shift)
{
    const __m512i most = _mm512_set1_epi64(GLE_SUM_MAX);

    if (shift > 0) {
        x = _mm512_add_epi64(x, _mm512_set1_epi64(1LL << (shift - 1)));
        x = _mm512_sra_epi64(x, _mm_cvtsi32_si128(shift));
    } else {
        x = _mm512_sll_epi64(x, _mm_cvtsi32_si128(-shift));
    }
    x = _mm512_max_epi64(_mm512_set1_epi64(-GLE_SUM_MAX), _mm512_min_epi64(most, x));
    return _mm512_cvtepi64_epi32(x);
}

/* round(a b 2^-shift), clipped in the same way. */
LANES __m512i product(__m512i a, __m512i b, int32_t shift)
{
    const __m512i first = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(a));
    const __m512i second = _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(a, 1));

    return _mm512_inserti64x4(_mm512_castsi256_si512(rounded(_mm512_mul_epi32(first, b), shift)),
                              rounded(_mm512_mul_epi32(second, b), shift), 1);
}

/* 2^32 over the sums, 16 bits of each, and what these were shifted by. */
LANES void inverses(__m512i sum, __m512i *inverse, __m512i *norm)
{
    uint32_t s[16], y[16], k[16];

    store(s, sum);
    for (int b = 0; b < 16; b++) {
        const int bits = 32 - __builtin_clz(s[b] | 1u);
        k[b] = bits > 16 ? (uint32_t)(bits - 16) : 0;
        y[b] = UINT32_C(0xffffffff) / (s[b] >> k[b]); /* the largest has 2^-0: none is 0 */
    }
    *inverse = load(y);
    *norm = load(k);
}

/* Streams b .. b + 15, of which `live` have a label; `to`: their column of `above`. */
LANES void sixteen(const int32_t phi, const gle_chip *chip, const gle_layer *top, int32_t b,
                   __mmask16 live, __m512i label, int32_t *to)
{
    const size_t columns = (size_t)chip->columns;
    const int32_t frac = top->u_frac < R_FRAC ? top->u_frac : R_FRAC;
    const gle_phi_format format = gle_phi_format_of(top->u_frac, frac);
    const __m512i beta = _mm512_set1_epi64(gle_coef_m(chip->image->beta));
    const int32_t shift = P_FRAC + gle_coef_k(chip->image->beta) - top->v_frac;
    const __m512i zero = _mm512_setzero_si512();
    __m512i peak = all(INT32_MIN), sum = zero, inverse, norm, slope;

    for (int32_t i = 0; i < top->n; i++) {
        const size_t at = (size_t)i * columns;
        const __m512i z = load(top->uhat + at + (size_t)b);
        __m512i y = zero;
        if (chip->step != 0 && top->analog == NULL) {
            y = rate(phi, z, &format, &slope);
        } else if (chip->step != 0) {
            const gle_analog *own = &top->analog[i];
            y = rate(phi, _mm512_add_epi32(z, all(own->offset)), &format, &slope);
            y = product(y, _mm512_set1_epi64(own->gain), GLE_GAIN_BITS);
        }
        peak = _mm512_max_epi32(peak, y);
        store(to + at, y);
    }
    for (int32_t i = 0; i < top->n; i++) {
        const size_t at = (size_t)i * columns;
        const __m512i d = _mm512_sub_epi32(peak, load(to + at));
        const __m512i p = exp_minus(sll(_mm512_min_epu32(d, all(FAR >> (R_FRAC - frac))),
                                        R_FRAC - frac));
        sum = _mm512_add_epi32(sum, p);
        store(to + at, p);
    }
    inverses(sum, &inverse, &norm);
    for (int32_t i = 0; i < top->n; i++) {
        const size_t at = (size_t)i * columns;
        const __m512i p = load(to + at);
        const __m512i high = _mm512_mullo_epi32(_mm512_srli_epi32(p, 8), inverse);
        const __m512i low = _mm512_mullo_epi32(_mm512_and_si512(p, all(0xff)), inverse);
        __m512i e = _mm512_srlv_epi32(_mm512_add_epi32(high, _mm512_srli_epi32(low, 8)), norm);
        const __mmask16 own = _mm512_cmpeq_epi32_mask(label, all(i));
        e = _mm512_sub_epi32(_mm512_maskz_mov_epi32(own, all(1 << P_FRAC)), e);
        store(to + at, _mm512_maskz_mov_epi32(live, product(e, beta, shift)));
    }
}

#define SOFTMAX(phi) sixteen(phi, chip, top, b, live, label, above + b)

AVX512 int32_t gle_target_error_vnni(const gle_chip *chip, const gle_layer *top,
                                     const int16_t *labels, int32_t *above)
{
    const int32_t shift = P_FRAC + gle_coef_k(chip->image->beta) - top->v_frac;

    if (shift < -20 || shift > 62 || top->n > 2048) { /* sums of 32 bits */
        return 0;
    }
    for (int32_t b = 0; b < chip->columns; b += 16) {
        __mmask16 live = live_of(chip->batch, b);
        const __m512i label = _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(live, labels + b));
        live = _mm512_mask_cmpge_epi32_mask(live, label, _mm512_setzero_si512());
        GLE_WITH_PHI(top->image->phi, SOFTMAX)
    }
    return 1;
}

#else
typedef int gle_no_softmax_vnni; /* ISO C wants one declaration a file */
#endif
