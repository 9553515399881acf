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
       BITS = 16, /* random bits of a weight; the one behind them (gle_rng_upper) rounds e x */
       /* shifts from which an update fits 16 bits, and e x 2^(BITS - shift) 32: |e x| < 2^26;
        * and from which none is left but what random bits below their last one make, which is 0 */
       SHIFT_LEAST = 12, SHIFT_MOST = 44,
       BIAS_SHIFT_MOST = 62 };

/* A layer's rows, which all ask by `shift` less their own of layer->rows. `mixed`: some are by
 * less than BITS. Counts how many weights moved, and those that could not for their limit.
 *
 * round(e x 2^-shift) = floor((z + random) 2^-BITS), z: e x 2^(BITS - shift) to the nearest, as
 * random bits are whole numbers of 2^(shift - BITS) and a half of one: a carry into the upper
 * half of a sum. */
LANES void learn_rows(const gle_layer *layer, const gle_learning *job, const int32_t mixed,
                      const int32_t bounded, uint32_t *moved, uint32_t *clipped)
{
    const gle_update *how = job->how;
    const int32_t n = layer->n, m = layer->m, stride = layer->stride, shift = job->shift;
    const int32_t largest = how->most < 32767 ? how->most : 32767;
    const uint32_t own_roots = gle_rng_roots(m), *const rows = layer->rows;
    const int16_t *const errors = layer->e, *const x = job->below;
    int32_t *const sums = job->sums;
    const __m512i limit = held(_mm512_set1_epi16((int16_t)how->limit));
    const __m512i least = held(_mm512_set1_epi16((int16_t)(-how->limit)));
    const __m512i most = held(_mm512_set1_epi16((int16_t)largest));
    const __m512i least_delta = held(_mm512_set1_epi16((int16_t)(-largest)));
    const __m512i key_a = all((int32_t)how->key.a), key_b = all((int32_t)how->key.b);
    const __m512i first = held(_mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1));
    const __m512i next_two = held(all(WIDE / GLE_RNG_SHARE));
    const __m512i low = held(all(0xffff));
    __m512i roots = rng_roots(key_a, key_b, 0); /* rows that are short share sixteen */
    uint32_t have = 0, root = 0, moves = 0, clips = 0;
    int16_t *w = layer->w;

    for (int32_t i = 0; i < n; i++, w += stride, root += own_roots) {
        const int32_t e = errors[i];
        const int32_t wanted = shift - (rows ? (int32_t)rows[i] : 0);
        const int32_t by = (wanted < SHIFT_MOST ? wanted : SHIFT_MOST) - BITS;
        const __m512i e_even = all(e & 0xffff), e_odd = all((int32_t)((uint32_t)e << 16));
        const __m512i right = all(by > 0 ? by : 0), left = all(by < 0 ? -by : 0);
        const __m512i half = all(by > 0 ? 1 << (by - 1) : 0);
        __m512i at;

        sums[i] = e;
        if (e == 0) {
            continue; /* asks for nothing */
        }
        if (root - have + own_roots > ROOTS) {
            roots = rng_roots(key_a, key_b, root);
            have = root;
        }
        at = _mm512_add_epi32(first, all((int32_t)(root - have)));
        for (int32_t j = 0; j < m; j += WIDE) {
            const __m512i below = load(x + j), old = load(w + j);
            __m512i words, even, odd, delta, next, kept;

            /* a long row; of `at` four bits count */
            if (j != 0 && (j & (ROOTS * GLE_RNG_SHARE - 1)) == 0) {
                have = root + (uint32_t)j / GLE_RNG_SHARE;
                roots = rng_roots(key_a, key_b, have);
            }
            words = rng_pairs(roots, at);
            even = add_product(half, below, e_even);
            odd = add_product(half, below, e_odd);
            if (mixed) {
                even = _mm512_sllv_epi32(even, left);
                odd = _mm512_sllv_epi32(odd, left);
            }
            even = _mm512_srav_epi32(even, right);
            odd = _mm512_srav_epi32(odd, right);
            even = _mm512_add_epi32(even, _mm512_and_si512(words, low));
            odd = _mm512_add_epi32(odd, _mm512_srli_epi32(words, BITS));
            /* upper halves of both, the ones in lower ones */
            delta = _mm512_ternarylogic_epi32(low, _mm512_srli_epi32(even, BITS), odd, 0xca);
            if (bounded) {
                delta = _mm512_max_epi16(least_delta, _mm512_min_epi16(most, delta));
            }
            next = _mm512_adds_epi16(old, delta); /* the limit is below what fits 16 bits */
            kept = _mm512_max_epi16(least, _mm512_min_epi16(limit, next));
            moves += (uint32_t)_mm_popcnt_u32(_mm512_test_epi16_mask(delta, delta));
            clips += (uint32_t)_mm_popcnt_u32(_mm512_cmpneq_epi16_mask(next, kept));
            store(w + j, kept);
            at = _mm512_add_epi32(at, next_two);
        }
    }
    *moved = moves;
    *clipped = clips;
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

/* Rows that ask for anything. */
LANES uint32_t asking(const int16_t *e, int32_t n)
{
    uint32_t count = 0;

    for (int32_t i = 0; i < n; i++) {
        count += (uint32_t)(e[i] != 0);
    }
    return count;
}

AVX512 int32_t gle_learn_stream_vnni(gle_layer *layer, const gle_learning *job,
                                     gle_update_count *count)
{
    const int32_t least = job->shift - (layer->rows ? 7 : 0);
    uint32_t asked, moved, clipped;

    if (!job->how->stochastic || least < SHIFT_LEAST) {
        return 0; /* row by row, then */
    }
    if (least <= 26 && job->how->most <= 1 << 26 >> least) { /* else no update is larger */
        learn_rows(layer, job, 1, 1, &moved, &clipped);
    } else if (least < BITS) {
        learn_rows(layer, job, 1, 0, &moved, &clipped);
    } else {
        learn_rows(layer, job, 0, 0, &moved, &clipped);
    }
    asked = not_zero(job->below, layer->m) * asking(layer->e, layer->n);
    count->asked += asked;
    count->under += asked - moved;
    count->clipped += clipped;
    return 1;
}

AVX512 int32_t gle_learn_biases_vnni(gle_layer *layer, const int32_t *sums, int32_t shift,
                                     gle_key key)
{
    const __m512i key_a = all((int32_t)key.a), key_b = all((int32_t)key.b);
    const int32_t before = shift > 31 ? (shift > BIAS_SHIFT_MOST ? 31 : shift - 31) : 0;
    const int32_t k = shift > 31 ? 31 : shift; /* as in plasticity.c */
    const __m128i by = _mm_cvtsi32_si128(k), rest = _mm_cvtsi32_si128(32 - k);
    const __m512i mask = _mm512_srl_epi32(all(-1), rest); /* where k is 1 and more */
    __m512i at = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);

    if (shift < 1) {
        return 0;
    }
    for (int32_t i = 0; i < layer->n; i += 16) {
        const __mmask16 live = live_of(layer->n, i);
        __m512i x = rng_word(rng_root_of(key_a, key_b, at), GLE_RNG_FIRST);

        const __m512i sum = _mm512_sra_epi32(_mm512_maskz_loadu_epi32(live, sums + i),
                                             _mm_cvtsi32_si128(before));
        x = _mm512_add_epi32(_mm512_srl_epi32(x, rest), _mm512_and_si512(sum, mask));
        x = _mm512_add_epi32(_mm512_srl_epi32(x, by), _mm512_sra_epi32(sum, by));
        x = _mm512_add_epi32(x, _mm512_maskz_loadu_epi32(live, layer->bias + i));
        _mm512_mask_storeu_epi32(layer->bias + i, live, clamp(x, GLE_STATE_MAX));
        at = _mm512_add_epi32(at, all(16));
    }
    return 1;
}

#else
typedef int gle_no_learn_one_vnni; /* ISO C wants one declaration a file */
#endif
