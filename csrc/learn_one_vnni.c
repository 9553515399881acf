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
       NEAR_MOST = 14, /* shift - BITS up to which a random number 2^(shift - BITS) fits */
       MADE = 2 * GLE_MAX_SIZE / GLE_RNG_SHARE, /* roots at once */
       COUNTED = INT16_MAX, /* vectors, of which an int16 counts one each */
       BIAS_SHIFT_MOST = 62 };

/* Where a scalar goes into all lanes, the port for shuffles has less to do from memory. */
LANES __m512i from_memory(const int32_t *x)
{
    __m512i y;
    __asm__("vpbroadcastd %1, %0" : "=v"(y) : "m"(*x));
    return y;
}

/* Written out, as gcc copies registers about otherwise. */
LANES void one_more(__m512i *count, __mmask32 where, __m512i minus_one)
{
    __asm__("vpsubw %2, %0, %0%{%1%}" : "+v"(*count) : "Yk"(where), "v"(minus_one));
}

/* What `count` has in lanes of 16 bits, which then have nothing. */
LANES uint32_t taken(__m512i *count)
{
    const __m512i sums = _mm512_madd_epi16(*count, _mm512_set1_epi16(1));

    *count = _mm512_setzero_si512();
    return (uint32_t)_mm512_reduce_add_epi32(sums);
}

/* A layer that learns, from row i on. moved, clipped: weights that moved, and those that could not
 * for their limit. roots: of rows up to `ready`, the first of which is number `have`; made for
 * many rows at once, as each takes a core long but it can make several side by side. */
typedef struct {
    const gle_layer *layer;
    const gle_learning *job;
    uint32_t have, moved, clipped;
    int32_t i, ready;
    _Alignas(64) uint32_t roots[MADE + ROOTS];
} streamer;

LANES void make_roots(streamer *s, int32_t i)
{
    const uint32_t own = gle_rng_roots(s->layer->m), some = MADE / own;
    const uint32_t rows = (uint32_t)(s->layer->n - i) < some ? (uint32_t)(s->layer->n - i) : some;
    const __m512i a = all((int32_t)s->job->how->key.a), b = all((int32_t)s->job->how->key.b);

    s->have = (uint32_t)i * own;
    s->ready = i + (int32_t)rows;
    for (uint32_t k = 0; k < rows * own; k += ROOTS) {
        store(s->roots + k, rng_roots(a, b, s->have + k));
    }
}

/* `by`: what a row asks by, less BITS. */
LANES int32_t asks_by(const streamer *s, int32_t i)
{
    const uint32_t *const rows = s->layer->rows;
    const int32_t shift = s->job->shift - (rows ? (int32_t)rows[i] : 0);

    return (shift < SHIFT_MOST ? shift : SHIFT_MOST) - BITS;
}

/* It is below 0, up to NEAR_MOST, or beyond. */
enum { LEFT, NEAR, FAR };

LANES int kind_of(int32_t by) { return by < 0 ? LEFT : by <= NEAR_MOST ? NEAR : FAR; }

/* Of rows that ask by as much: what products begin with, how far they are shifted, those of even
 * weights further, and what random bits are multiplied with. */
typedef struct {
    __m512i start, shifted, further, up_even, up_odd;
} asker;

LANES asker asker_of(const int kind, int32_t by)
{
    const int32_t half = by > 0 ? 1 << (by - 1) : 0;
    const __m512i up = held(all(kind == NEAR ? 1 << by : 0));
    const asker a = {held(all(kind == NEAR ? half + (1 << (by + BITS - 1)) : half)),
                     held(all(kind == LEFT ? -by : by)), held(all(by + BITS)), up,
                     held(_mm512_slli_epi32(up, BITS))};
    return a;
}

/* Rows that all ask in the way of the first.
 *
 * round(e x 2^-shift) = floor((z + random) 2^-BITS), z: e x 2^-by to the nearest, as random bits
 * are whole numbers of 2^by and a half of one: a carry into the upper half of a sum. NEAR, all
 * of it fits at once: floor((e x + 2^(by - 1) + random 2^by) 2^(-by - BITS)). */
LANES void learn_alike(const int kind, const int32_t bounded, streamer *s)
{
    const gle_layer *const layer = s->layer;
    const gle_update *const how = s->job->how;
    const int32_t n = layer->n, m = layer->m;
    const int32_t largest = how->most < 32767 ? how->most : 32767;
    const int32_t vectors = (m + WIDE - 1) / WIDE;
    const uint32_t own_roots = gle_rng_roots(m);
    const int16_t *const x = s->job->below;
    const __m512i limit = held(_mm512_set1_epi16((int16_t)how->limit));
    const __m512i least = held(_mm512_set1_epi16((int16_t)(-how->limit)));
    const __m512i most = held(_mm512_set1_epi16((int16_t)largest));
    const __m512i least_delta = held(_mm512_set1_epi16((int16_t)(-largest)));
    const __m512i first = held(_mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1));
    const __m512i low = held(all(0xffff));
    const __m512i minus_one = held(_mm512_set1_epi16(-1));
    __m512i moves = _mm512_setzero_si512(), clips = moves;
    int32_t i = s->i, left = COUNTED, by = asks_by(s, i);
    int16_t *w = layer->w + (size_t)i * (size_t)layer->stride;
    asker ask = asker_of(kind, by);

    for (; i < n; i++, w += layer->stride) {
        const int32_t e = layer->e[i];
        const int32_t halves[2] = {e & 0xffff, (int32_t)((uint32_t)e << 16)};
        const __m512i e_even = from_memory(&halves[0]), e_odd = from_memory(&halves[1]);
        const int32_t own = asks_by(s, i);
        const uint32_t *root;

        if (own != by) {
            if (kind_of(own) != kind) {
                break;
            }
            by = own;
            ask = asker_of(kind, by);
        }
        s->job->sums[i] = e;
        if (e == 0) {
            continue; /* asks for nothing */
        }
        if (i >= s->ready) {
            make_roots(s, i);
        }
        left -= vectors;
        if (left < 0) {
            s->moved += taken(&moves);
            s->clipped += taken(&clips);
            left = COUNTED - vectors;
        }
        root = s->roots + ((uint32_t)i * own_roots - s->have);
        for (int32_t j = 0; j < m; j += WIDE, root += WIDE / GLE_RNG_SHARE) {
            const __m512i below = load(x + j), old = load(w + j);
            __m512i even = add_product(ask.start, below, e_even);
            __m512i odd = add_product(ask.start, below, e_odd);
            __m512i delta, next, kept;

            if (kind == NEAR) {
                const __m512i words = rng_centred_pairs(load(root), first);
                even = _mm512_srav_epi32(add_product(even, words, ask.up_even), ask.further);
                odd = _mm512_srav_epi32(add_product(odd, words, ask.up_odd), ask.shifted);
            } else {
                const __m512i words = rng_pairs(load(root), first);
                even = kind == LEFT ? _mm512_sllv_epi32(even, ask.shifted)
                                    : _mm512_srav_epi32(even, ask.shifted);
                odd = kind == LEFT ? _mm512_sllv_epi32(odd, ask.shifted)
                                   : _mm512_srav_epi32(odd, ask.shifted);
                even = _mm512_add_epi32(even, _mm512_and_si512(words, low));
                odd = _mm512_add_epi32(odd, _mm512_srli_epi32(words, BITS));
                even = _mm512_srli_epi32(even, BITS);
            }
            /* upper halves of odd ones, lower ones of even ones */
            delta = _mm512_ternarylogic_epi32(low, even, odd, 0xca);
            if (bounded) {
                delta = _mm512_max_epi16(least_delta, _mm512_min_epi16(most, delta));
            }
            next = _mm512_adds_epi16(old, delta); /* the limit is below what fits 16 bits */
            kept = _mm512_max_epi16(least, _mm512_min_epi16(limit, next));
            one_more(&moves, _mm512_test_epi16_mask(delta, delta), minus_one);
            one_more(&clips, _mm512_cmpneq_epi16_mask(next, kept), minus_one);
            store(w + j, kept);
        }
    }
    s->moved += taken(&moves);
    s->clipped += taken(&clips);
    s->i = i;
}

/* All rows. */
LANES void learn_rows(const int32_t bounded, streamer *s)
{
    while (s->i < s->layer->n) {
        const int kind = kind_of(asks_by(s, s->i));
        if (kind == LEFT) {
            learn_alike(LEFT, bounded, s);
        } else if (kind == NEAR) {
            learn_alike(NEAR, bounded, s);
        } else {
            learn_alike(FAR, bounded, s);
        }
    }
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
    streamer s;
    uint32_t asked;

    if (!job->how->stochastic || least < SHIFT_LEAST) {
        return 0; /* row by row, then */
    }
    s.layer = layer;
    s.job = job;
    s.have = s.moved = s.clipped = 0;
    s.i = s.ready = 0;
    if (least <= 26 && job->how->most <= 1 << 26 >> least) { /* else no update is larger */
        learn_rows(1, &s);
    } else {
        learn_rows(0, &s);
    }
    asked = not_zero(job->below, layer->m) * asking(layer->e, layer->n);
    count->asked += asked;
    count->under += asked - s.moved;
    count->clipped += s.clipped;
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
