/* A whole layer learns from one stream with AVX-512, rounded at random: 32 weights at a time in
 * lanes of 16 bits, of which only products and random bits need 32. Biases, of any batch, too.
 * The same integers as learn_one and gle_update_bias; see update.inc.
 *
 * Weights with even numbers and those with odd ones make a vector of products each, as
 * vpmaddwd takes either with no shuffle. What is asked is counted beforehand (e x is 0 where
 * one of them is), and what has rounded to nothing is what was asked and did not move.
 *
 * Padding: inputs there are 0, so that nothing is asked of those weights, and 0 with random
 * bits below its last one is rounded to 0.
 */
#include "chip.h"
#include "kernels.h"
#include "single.h"

#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)

#include "share_vnni.h"

enum { WIDE = 32,
       /* shifts for which an update fits 16 bits, and e x with random bits below its last
        * one 32: |e x| < 2^26 */
       SHIFT_LEAST = 12, SHIFT_MOST = 30 };

/* What is the same for all rows. */
typedef struct {
    __m512i limit, least, most, least_delta;
    __m512i key_a, key_b, at; /* which roots of 16 the first vector's words are of */
    int32_t bounded;          /* the largest update may be less than any weight can take */
} learner;

/* One row. Returns how many weights were to move; adds those that could not for their limit. */
LANES uint32_t learn_row(const learner *l, int16_t *w, const int16_t *x, int32_t e, int32_t m,
                         int32_t shift, uint32_t root, uint32_t *clipped)
{
    const __m512i e_even = all(e & 0xffff), e_odd = all((int32_t)((uint32_t)e << 16));
    const __m128i by = _mm_cvtsi32_si128(shift), rest = _mm_cvtsi32_si128(32 - shift);
    __m512i roots = all(0), at = l->at;
    uint32_t moved = 0;

    for (int32_t j = 0; j < m; j += WIDE) {
        const __m512i below = load(x + j), old = load(w + j);
        __m512i words, even, odd, delta, next, kept;

        if ((j & (ROOTS * GLE_RNG_SHARE - 1)) == 0) {
            roots = rng_roots(l->key_a, l->key_b, root + (uint32_t)j / GLE_RNG_SHARE);
            at = l->at;
        }
        words = rng_pairs(roots, at);
        even = _mm512_srl_epi32(rng_upper(_mm512_slli_epi32(words, 16)), rest);
        odd = _mm512_srl_epi32(rng_upper(words), rest);
        even = _mm512_add_epi32(even, _mm512_madd_epi16(below, e_even));
        odd = _mm512_add_epi32(odd, _mm512_madd_epi16(below, e_odd));
        even = _mm512_sra_epi32(even, by);
        odd = _mm512_slli_epi32(_mm512_sra_epi32(odd, by), 16);
        delta = _mm512_mask_blend_epi16(0xaaaaaaaau, even, odd);
        if (l->bounded) {
            delta = _mm512_max_epi16(l->least_delta, _mm512_min_epi16(l->most, delta));
        }
        next = _mm512_adds_epi16(old, delta); /* the limit is below what fits 16 bits */
        kept = _mm512_max_epi16(l->least, _mm512_min_epi16(l->limit, next));
        moved += (uint32_t)_mm_popcnt_u32(_mm512_test_epi16_mask(delta, delta));
        *clipped += (uint32_t)_mm_popcnt_u32(_mm512_cmpneq_epi16_mask(next, kept));
        store(w + j, kept);
        at = _mm512_add_epi32(at, all(WIDE / GLE_RNG_SHARE));
    }
    return moved;
}

LANES uint32_t not_zero(const int16_t *x, int32_t m)
{
    uint32_t count = 0;

    for (int32_t j = 0; j < m; j += WIDE) {
        const __m512i y = load(x + j);
        count += (uint32_t)_mm_popcnt_u32(_mm512_test_epi16_mask(y, y));
    }
    return count;
}

AVX512 int32_t gle_learn_stream_vnni(gle_layer *layer, const gle_learning *job,
                                     gle_update_count *count)
{
    const gle_update *how = job->how;
    const int32_t least = job->shift - (layer->rows ? 7 : 0);
    const uint32_t inputs = not_zero(job->below, layer->m);
    uint32_t asked = 0, moved = 0;
    learner l;

    if (!how->stochastic || least < SHIFT_LEAST || job->shift > SHIFT_MOST) {
        return 0; /* row by row, then */
    }
    l.limit = _mm512_set1_epi16((int16_t)how->limit);
    l.least = _mm512_set1_epi16((int16_t)(-how->limit));
    l.most = _mm512_set1_epi16((int16_t)(how->most < 32767 ? how->most : 32767));
    l.least_delta = _mm512_sub_epi16(_mm512_setzero_si512(), l.most);
    l.key_a = all((int32_t)how->key.a);
    l.key_b = all((int32_t)how->key.b);
    l.at = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    l.bounded = how->most <= 1 << 26 >> least; /* else no update is larger */
    for (int32_t i = 0; i < layer->n; i++) {
        const int32_t e = layer->e[i];
        job->sums[i] = e;
        if (e == 0) {
            continue; /* asks for nothing */
        }
        asked += inputs;
        moved += learn_row(&l, layer->w + (size_t)i * (size_t)layer->stride, job->below, e,
                           layer->m, job->shift - (layer->rows ? (int32_t)layer->rows[i] : 0),
                           (uint32_t)i * gle_rng_roots(layer->m), &count->clipped);
    }
    count->asked += asked;
    count->under += asked - moved;
    return 1;
}

AVX512 int32_t gle_learn_biases_vnni(gle_layer *layer, const int32_t *sums, int32_t shift,
                                     gle_key key)
{
    const __m512i key_a = all((int32_t)key.a), key_b = all((int32_t)key.b);
    const __m128i by = _mm_cvtsi32_si128(shift), rest = _mm_cvtsi32_si128(32 - shift);
    __m512i at = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);

    if (shift < 1 || shift > SHIFT_MOST) {
        return 0;
    }
    for (int32_t i = 0; i < layer->n; i += 16) {
        const int32_t left = layer->n - i;
        const __mmask16 live = left >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1u);
        __m512i x = rng_word(rng_root_of(key_a, key_b, at), GLE_RNG_FIRST);

        /* a sum over 4096 streams has 26 bits */
        x = _mm512_add_epi32(_mm512_srl_epi32(x, rest),
                             _mm512_maskz_loadu_epi32(live, sums + i));
        x = _mm512_add_epi32(_mm512_sra_epi32(x, by),
                             _mm512_maskz_loadu_epi32(live, layer->bias + i));
        _mm512_mask_storeu_epi32(layer->bias + i, live, clamp(x, GLE_STATE_MAX));
        at = _mm512_add_epi32(at, all(16));
    }
    return 1;
}

#else
typedef int gle_no_learn_one_vnni; /* ISO C wants one declaration a file */
#endif
