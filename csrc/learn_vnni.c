/* A whole layer learns, with AVX-512: the tiles of e r^T become updates while they are still in
 * registers. The same integers as the kernels outer and update one after the other; see
 * update.inc, and learn_one_vnni.c for one stream.
 *
 * Padding: rates there are 0, so that nothing is asked of those weights, and 0 with random
 * bits below its last one is rounded to 0.
 */
#include "chip.h"
#include "kernels.h"
#include "single.h"

#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)

#include "share_vnni.h"
#include "tiles_amx.h"
#include "tiles_vnni.h"

/* Sum of |e| of a row up to which no sum of e r, rounding included, leaves int32. */
enum { NARROW = (INT32_MAX - (1 << 16)) / GLE_ARRAY_MAX };

/* What is the same for all weights of a layer, and what they count. */
typedef struct {
    __m512i limit, least, most, least_delta, key_a, key_b;
    __m512i limit_16, least_16, most_16, least_delta_16; /* in lanes of 16 bits */
    int32_t bounded; /* the largest update may be less than any weight can take */
    int32_t stochastic;
    __m512i asked, under, clipped; /* by lane */
    __m512i asked_16;              /* in pairs of vectors, and which of those moved or clipped */
    uint32_t moved_16, clipped_16;
} learner;

/* A shift of 1 and more as update.inc splits it: at most 31 bits at random. */
typedef struct {
    __m512i mask, half;
    __m128i before, by, rest;
} dropped;

LANES learner learner_of(const gle_update *how)
{
    const __m512i zero = _mm512_setzero_si512();
    const int32_t largest = how->most < 32767 ? how->most : 32767;
    learner l;

    l.limit = all(how->limit);
    l.least = all(-how->limit);
    l.most = all(how->most);
    l.least_delta = all(-how->most);
    l.limit_16 = _mm512_set1_epi16((int16_t)how->limit);
    l.least_16 = _mm512_set1_epi16((int16_t)(-how->limit));
    l.most_16 = _mm512_set1_epi16((int16_t)largest);
    l.least_delta_16 = _mm512_set1_epi16((int16_t)(-largest));
    l.key_a = all((int32_t)how->key.a);
    l.key_b = all((int32_t)how->key.b);
    l.bounded = how->most <= 2 * how->limit; /* from one end to the other clips nothing */
    l.stochastic = how->stochastic;
    l.asked = l.under = l.clipped = l.asked_16 = zero;
    l.moved_16 = l.clipped_16 = 0;
    return l;
}

LANES void counted(const learner *l, gle_update_count *count)
{
    const uint32_t asked_16 = (uint32_t)_mm512_reduce_add_epi32(l->asked_16);

    count->asked += (uint32_t)_mm512_reduce_add_epi32(l->asked) + asked_16;
    count->under += (uint32_t)_mm512_reduce_add_epi32(l->under) + asked_16 - l->moved_16;
    count->clipped += (uint32_t)_mm512_reduce_add_epi32(l->clipped) + l->clipped_16;
}

LANES dropped dropped_of(int32_t shift)
{
    const int32_t before = shift > 31 ? (shift > 62 ? 31 : shift - 31) : 0;
    const int32_t k = shift > 31 ? 31 : shift;
    dropped d;

    d.mask = all((int32_t)((UINT32_C(1) << k) - 1u));
    d.half = all((int32_t)(UINT32_C(1) << (k - 1)));
    d.before = _mm_cvtsi32_si128(before);
    d.by = _mm_cvtsi32_si128(k);
    d.rest = _mm_cvtsi32_si128(32 - k);
    return d;
}

/* Sixteen weights and their root, see rng.h. */
LANES void sixteen(int16_t *w, __m512i g, learner *l, const dropped *d, const uint32_t *root)
{
    const __m512i one = all(-1), zero = _mm512_setzero_si512();
    const __m512i old =
        _mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)w));
    const __m512i x = _mm512_sra_epi32(g, d->before);
    __m512i up = d->half, delta, next, kept;
    __mmask16 asked;

    if (l->stochastic) {
        up = _mm512_srl_epi32(rng_share(all((int32_t)*root)), d->rest);
    }
    up = _mm512_srl_epi32(_mm512_add_epi32(_mm512_and_si512(x, d->mask), up), d->by);
    delta = _mm512_add_epi32(_mm512_sra_epi32(x, d->by), up);
    if (l->bounded) {
        delta = _mm512_max_epi32(l->least_delta, _mm512_min_epi32(l->most, delta));
    }
    next = _mm512_add_epi32(old, delta);
    kept = _mm512_max_epi32(l->least, _mm512_min_epi32(l->limit, next));
    asked = _mm512_test_epi32_mask(g, g);
    l->asked = _mm512_mask_sub_epi32(l->asked, asked, l->asked, one);
    asked = _mm512_mask_cmpeq_epi32_mask(asked, delta, zero);
    l->under = _mm512_mask_sub_epi32(l->under, asked, l->under, one);
    asked = _mm512_cmpneq_epi32_mask(next, kept);
    l->clipped = _mm512_mask_sub_epi32(l->clipped, asked, l->clipped, one);
    store16(w, kept);
}

/* A shift of PAIRED and more, for two vectors at a time. */
enum { RANDOM = 16 /* bits */, PAIRED = RANDOM + 1, NO_CARRY = RANDOM + 15 };

typedef struct {
    __m512i first, up, second;
} rounding;

LANES rounding rounding_of(int32_t shift)
{
    const int32_t by = shift - RANDOM;
    const int32_t far = shift > NO_CARRY;
    rounding d;

    d.first = all(by - 1); /* 32 and more leave the sign */
    d.up = all(far ? 1 : 1 << (by - 1));
    d.second = all(far ? 1 : by);
    return d;
}

/* g 2^-by to the nearest. Up to NO_CARRY what is added fits: |g| <= 2^31 - 2^17. */
LANES __m512i to_nearest(__m512i g, const rounding *d, int32_t far)
{
    g = far ? _mm512_srav_epi32(g, d->first) : g;
    return _mm512_srav_epi32(_mm512_add_epi32(g, d->up), d->second);
}

/* 32 weights, whose gradients are a and b, with a pair of random numbers in each word:
 * floor((z + random) 2^-RANDOM) as in learn_one_vnni.c. From PAIRED on it fits 16 bits. */
LANES void thirty_two(int16_t *w, __m512i a, __m512i b, learner *l, const rounding *d,
                      const int32_t far, __m512i words)
{
    const __m512i evens =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odds = _mm512_add_epi32(evens, all(1));
    const __m512i low = all(0xffff), one = all(-1), old = load(w);
    __m512i even = to_nearest(_mm512_permutex2var_epi32(a, evens, b), d, far);
    __m512i odd = to_nearest(_mm512_permutex2var_epi32(a, odds, b), d, far);
    __m512i delta, next, kept;

    even = _mm512_add_epi32(even, _mm512_and_si512(words, low));
    odd = _mm512_add_epi32(odd, _mm512_srli_epi32(words, RANDOM));
    /* upper halves of both, the even ones in lower ones */
    delta = _mm512_ternarylogic_epi32(low, _mm512_srli_epi32(even, RANDOM), odd, 0xca);
    if (l->bounded) {
        delta = _mm512_max_epi16(l->least_delta_16, _mm512_min_epi16(l->most_16, delta));
    }
    next = _mm512_adds_epi16(old, delta); /* the limit is below what fits 16 bits */
    kept = _mm512_max_epi16(l->least_16, _mm512_min_epi16(l->limit_16, next));
    l->asked_16 = _mm512_mask_sub_epi32(l->asked_16, _mm512_test_epi32_mask(a, a), l->asked_16, one);
    l->asked_16 = _mm512_mask_sub_epi32(l->asked_16, _mm512_test_epi32_mask(b, b), l->asked_16, one);
    l->moved_16 += (uint32_t)_mm_popcnt_u32(_mm512_test_epi16_mask(delta, delta));
    l->clipped_16 += (uint32_t)_mm_popcnt_u32(_mm512_cmpneq_epi16_mask(next, kept));
    store(w, kept);
}

/* Row by row the sum of e, and that of |e|, of eight rows at a time. */
LANES void error_sums(int32_t *sum, int32_t *size, const gle_layer *layer, int32_t columns)
{
    enum { ROWS = 8 };
    const __m512i one = _mm512_set1_epi16(1);
    const __m512i apart =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);

    for (int32_t i = 0; i < layer->n; i += ROWS) {
        const int32_t rows = layer->n - i < ROWS ? layer->n - i : ROWS;
        const __mmask8 there = (__mmask8)((1u << rows) - 1u);
        const int16_t *const e = layer->e + (size_t)i * (size_t)columns;
        __m512i both[2 * ROWS];
#pragma GCC unroll 16
        for (int32_t k = 0; k < 2 * ROWS; k++) {
            both[k] = _mm512_setzero_si512();
        }
        for (int32_t b = 0; b < columns; b += 32) {
            const __mmask32 some = columns - b < 32 ? 0xffffu : UINT32_MAX;
#pragma GCC unroll 8
            for (int32_t r = 0; r < ROWS; r++) {
                const size_t row = (size_t)(r < rows ? r : 0) * (size_t)columns;
                const __m512i x = _mm512_maskz_loadu_epi16(some, e + row + b);
                both[2 * r] = _mm512_dpwssd_epi32(both[2 * r], x, one);
                both[2 * r + 1] = _mm512_dpwssd_epi32(both[2 * r + 1], _mm512_abs_epi16(x), one);
            }
        }
        const __m512i sums = _mm512_permutexvar_epi32(apart, sums_of_lanes(both));
        _mm256_mask_storeu_epi32(sum + i, there, _mm512_castsi512_si256(sums));
        _mm256_mask_storeu_epi32(size + i, there, _mm512_extracti64x4_epi64(sums, 1));
    }
}

/* Whether all sums of some rows fit int32. */
LANES int32_t rows_fit(const int32_t *size, int32_t rows)
{
    int32_t most = 0;

    for (int32_t r = 0; r < rows; r++) {
        most = size[r] > most ? size[r] : most;
    }
    return most <= NARROW;
}

/* The first vectors of a row, two at a time, as far as there are two. Returns how many. Sixteen
 * weights of a vector share a root, of which those of the row are at[first] and on. */
LANES int32_t learn_pairs(int16_t *w, const __m512i *g, int32_t V, learner *l, const rounding *d,
                          const int32_t far, __m512i roots, int32_t first)
{
    __m512i pair = _mm512_add_epi32(
        _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1), all(first));
    int32_t c = 0;

    for (; V - c > 1; c += 2) {
        const __m512i a = _mm512_loadu_si512(g + c), b = _mm512_loadu_si512(g + c + 1);
        thirty_two(w + 16 * c, a, b, l, d, far, rng_pairs(roots, pair));
        pair = _mm512_add_epi32(pair, all(2));
    }
    return c;
}

/* The others. */
LANES void learn_others(int16_t *w, const __m512i *g, int32_t c, int32_t V, int32_t shift,
                        learner *l, __m512i roots, int32_t first)
{
    const dropped d = dropped_of(shift);
    uint32_t each[ROOTS];

    _mm512_storeu_si512(each, roots);
#pragma GCC unroll 1
    for (; c < V; c++) {
        sixteen(w + 16 * c, _mm512_loadu_si512(g + c), l, &d, each + first + c);
    }
}

/* Roots of R rows from i on, MOST_V of each from input j on. All of them at once: each takes a core
 * long, but it can make several side by side. */
LANES void tile_roots(__m512i *roots, int32_t R, const gle_layer *layer, const gle_learning *job,
                      int32_t i, int32_t j, const learner *l)
{
    const uint32_t of_row = gle_rng_roots(layer->m);
    const __m512i numbers = /* of four rows */
        _mm512_add_epi32(_mm512_setr_epi32(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3),
                         _mm512_mullo_epi32(_mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2,
                                                              3, 3, 3, 3),
                                            all((int32_t)of_row)));

    for (int32_t r = 0; r < R; r += 4) {
        const uint32_t first =
            (uint32_t)(job->first + i + r) * of_row + (uint32_t)j / GLE_RNG_SHARE;
        roots[r / 4] =
            rng_root_of(l->key_a, l->key_b, _mm512_add_epi32(numbers, all((int32_t)first)));
    }
}

/* R rows from i on and V vectors of inputs from j on, whose gradients are g[R][V]. Rolled, and
 * one function for all tiles, as it is long. */
APART void learn_from(const __m512i *g, int32_t R, int32_t V, gle_layer *layer,
                      const gle_learning *job, int32_t i, int32_t j, learner *state)
{
    __m512i roots[AMX_SIDE / 4];
    learner l = *state;
    int32_t known = PAIRED; /* what d is of */
    rounding d = rounding_of(known);

    if (l.stochastic) {
        tile_roots(roots, R, layer, job, i, j, &l);
    }
    for (int32_t r = 0; r < R; r++) {
        int16_t *const w = layer->w + (size_t)(i + r) * (size_t)layer->stride + (size_t)j;
        const int32_t shift = job->shift - (layer->rows ? (int32_t)layer->rows[i + r] : 0);
        const __m512i own = l.stochastic ? roots[r / 4] : all(0);
        int32_t c = 0;

        if (l.stochastic && shift >= PAIRED) {
            if (shift != known) {
                d = rounding_of(shift);
                known = shift;
            }
            c = shift > NO_CARRY ? learn_pairs(w, g + r * V, V, &l, &d, 1, own, r % 4 * MOST_V)
                                 : learn_pairs(w, g + r * V, V, &l, &d, 0, own, r % 4 * MOST_V);
        }
        if (c < V) {
            learn_others(w, g + r * V, c, V, shift, &l, own, r % 4 * MOST_V);
        }
    }
    state->asked = l.asked;
    state->under = l.under;
    state->clipped = l.clipped;
    state->asked_16 = l.asked_16;
    state->moved_16 = l.moved_16;
    state->clipped_16 = l.clipped_16;
}

/* Updates vary from one to the next: the same as vary in update.inc, tile by tile. */
APART void vary_tile(__m512i *g, int32_t R, int32_t V, const gle_layer *layer,
                     const gle_update *how, int32_t i, int32_t j)
{
    const __m512i numbers =
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i words[MOST_V] = {0};

    for (int32_t r = 0; r < R; r++) {
        const uint32_t first = (uint32_t)((i + r) >> 2) * (uint32_t)layer->m + (uint32_t)j;
        const noiser more = noiser_of(&how->noise, i + r);
        for (int32_t c = 0; c < V; c++, g++) {
            if (r == 0 || (i + r) % 4 == 0) {
                const __m512i index =
                    _mm512_add_epi32(numbers, all((int32_t)(first + 16u * (uint32_t)c)));
                words[c] = rng_word(rng_root(how->key_noise, index), GLE_RNG_FIRST);
            }
            const __m512i d = clamp(noise(&more, words[c]), GLE_GAIN_ONE - 1);
            const __m512i x = clamp(_mm512_loadu_si512(g), 1 << 30);
            const __m512i low = _mm512_and_si512(x, all(GLE_GAIN_ONE - 1));
            const __m512i part = _mm512_dpwssd_epi32(all(GLE_GAIN_ONE / 2), low, d);
            const __m512i whole = _mm512_mullo_epi32(_mm512_srai_epi32(x, GLE_GAIN_BITS), d);
            _mm512_storeu_si512(g, _mm512_add_epi32(_mm512_add_epi32(x, whole),
                                                    _mm512_srai_epi32(part, GLE_GAIN_BITS)));
        }
    }
}

/* Rows of weights are too far apart for a processor to foresee. */
LANES void weights_nearer(const int R, const int V, const gle_layer *layer, int32_t i, int32_t j)
{
    for (int r = 0; r < R; r++) {
        const int16_t *w = layer->w + (size_t)(i + r) * (size_t)layer->stride + (size_t)j;
        _mm_prefetch((const char *)w, _MM_HINT_T0);
        _mm_prefetch((const char *)(w + 16 * V - 1), _MM_HINT_T0);
        if (V > 2) {
            _mm_prefetch((const char *)(w + 32), _MM_HINT_T0);
        }
    }
}

LANES void learn_tile(const int R, const int V, const int wide, gle_layer *layer,
                      const gle_learning *job, int32_t i, int32_t j, learner *l)
{
    __m512i sum[MOST_R][MOST_V], half;
    tile_high high, gradients;
    __m512i *g = gradients.at;

    weights_nearer(R, V, layer, i, j);
    __asm__("" : "+r"(g) : : "memory"); /* or the sums were kept in memory themselves */
    sums_of(R, V, wide, PAIRS, layer->e + (size_t)i * (size_t)job->columns, job->columns, 2,
            (job->streams + 1) / 2, job->turned + 2 * (size_t)j, layer->stride, NULL, sum, &high,
            NULL);
    half = all(job->drop > 0 ? 1 << (job->drop - 1) : 0);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
        for (int c = 0; c < V; c++) {
            _mm512_storeu_si512(g + r * V + c,
                                wide ? sum[r][c] : sra(_mm512_add_epi32(sum[r][c], half), job->drop));
        }
    }
    if (wide) {
#pragma GCC unroll 1
        for (int k = 0; k < R * V; k++) {
            const __m512i up = _mm512_loadu_si512(high.at + k);
            _mm512_storeu_si512(g + k, round_outer(up, _mm512_loadu_si512(g + k), job->drop));
        }
    }
    if (job->how->noise.m != 0) {
        vary_tile(g, R, V, layer, job->how, job->first + i, j);
    }
    learn_from(g, R, V, layer, job, i, j, l);
}

#define LEARN_TILE(R)                                        \
    {                                                        \
        if (rows_fit(size + i, R)) {                         \
            learn_tile(R, V, 0, layer, job, i, j, l);        \
        } else {                                             \
            learn_tile(R, V, 1, layer, job, i, j, l);        \
        }                                                    \
    }

#define LEARN_ROWS(name, vectors)                                                              \
    APART void name(gle_layer *layer, const gle_learning *job, const int32_t *size, int32_t j, \
                    learner *l)                                                                \
    {                                                                                          \
        const int V = vectors;                                                                 \
        int32_t i = 0;                                                                         \
        FOR_TILES(V, i, layer->n, LEARN_TILE)                                                  \
    }

LEARN_ROWS(learn_1, 1)
LEARN_ROWS(learn_2, 2)
LEARN_ROWS(learn_3, 3)
LEARN_ROWS(learn_4, 4)

/* Pairs of vectors of a tile that are yet to learn. They do while the next tile is multiplied: what
 * they need waits for nothing then, and for AMD's cores leaves products half of their units. */
typedef struct {
    tile_high g;
    __m512i roots[MOST_R / 4];
    int16_t *w[MOST_R * MOST_V / 2]; /* of a pair */
    rounding by;
    int32_t next, count;
} woven;

/* Pairs of streams that are multiplied between two pairs of vectors that learn. */
enum { EACH = 4 };

LANES void weave(woven *p, learner *l)
{
    static const int32_t halves[16] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1};
    const int32_t k = p->next++, root = 2 * k; /* MOST_V of them a row, and as many vectors */
    const __m512i at = _mm512_add_epi32(load(halves), all(root % ROOTS));

    thirty_two(p->w[k], load(p->g.at + 2 * k), load(p->g.at + 2 * k + 1), l, &p->by, 0,
               rng_pairs(p->roots[root / ROOTS], at));
}

LANES void unweave(woven *p, learner *l)
{
    while (p->next < p->count) {
        weave(p, l);
    }
}

/* learn_tile of MOST_V vectors whose sums fit, as far as their gradients. */
LANES void woven_tile(const int R, gle_layer *layer, const gle_learning *job, int32_t i, int32_t j,
                      woven *p, learner *l)
{
    const int32_t count = (job->streams + 1) / 2;
    const int16_t *const e = layer->e + (size_t)i * (size_t)job->columns;
    const int16_t *panel = job->turned + 2 * (size_t)j;
    __m512i sum[MOST_R][MOST_V], half;
    __m512i *g = p->g.at;

    weights_nearer(R, MOST_V, layer, i, j);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
        for (int c = 0; c < MOST_V; c++) {
            sum[r][c] = _mm512_setzero_si512();
        }
    }
    for (int32_t k = 0; k < count;) {
        const int32_t end = count - k <= EACH ? count : k + EACH;
        for (; k < end; k++, panel += 2 * (size_t)layer->stride) {
            add_pair(R, MOST_V, e + 2 * (size_t)k, job->columns, panel, sum);
        }
        if (p->next < p->count) {
            weave(p, l);
        }
    }
    unweave(p, l);
    half = all(job->drop > 0 ? 1 << (job->drop - 1) : 0);
    __asm__("" : "+r"(g) : : "memory"); /* as in learn_tile */
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        int16_t *const w = layer->w + (size_t)(i + r) * (size_t)layer->stride + (size_t)j;
        p->w[2 * r] = w;
        p->w[2 * r + 1] = w + 32;
#pragma GCC unroll 4
        for (int c = 0; c < MOST_V; c++) {
            store(g + r * MOST_V + c, sra(_mm512_add_epi32(sum[r][c], half), job->drop));
        }
    }
    tile_roots(p->roots, R, layer, job, i, j, l);
    p->next = 0;
    p->count = R * MOST_V / 2;
}

#define WOVEN_TILE(R)                                        \
    {                                                        \
        if (rows_fit(size + i, R)) {                         \
            woven_tile(R, layer, job, i, j, &p, l);          \
        } else {                                             \
            learn_tile(R, V, 1, layer, job, i, j, l);        \
        }                                                    \
    }

APART void learn_woven(gle_layer *layer, const gle_learning *job, const int32_t *size, int32_t j,
                       learner *l)
{
    const int V = MOST_V;
    woven p = {.by = rounding_of(job->shift)};
    int32_t i = 0;

    FOR_TILES(V, i, layer->n, WOVEN_TILE)
    unweave(&p, l);
}

/* Whether all rows learn two vectors at a time, in one way. */
static int32_t weaves(const gle_layer *layer, const gle_learning *job)
{
    return job->how->stochastic && job->how->noise.m == 0 && layer->rows == NULL &&
           job->shift >= PAIRED && job->shift <= NO_CARRY;
}

AVX512 static void learn_batch(gle_layer *layer, const gle_learning *job, gle_update_count *count)
{
    typedef void some_rows(gle_layer *, const gle_learning *, const int32_t *, int32_t, learner *);
    static some_rows *const by_vectors[MOST_V] = {learn_1, learn_2, learn_3, learn_4};
    const int32_t weave_them = weaves(layer, job);
    int32_t *const size = job->sums + layer->n;
    learner l = learner_of(job->how);
    int32_t V;

    error_sums(job->sums, size, layer, job->columns);
    for (int32_t j = 0; j < layer->m; j += 16 * V) {
        const int32_t left = (layer->m - j + 15) / 16;
        V = left == 6 ? 4 : tile_vectors(left); /* two vectors at a time learn in less */
        (V == MOST_V && weave_them ? learn_woven : by_vectors[V - 1])(layer, job, size, j, &l);
    }
    counted(&l, count);
}

/* Of the next step, what is too far apart for a processor to foresee: a row of weights, and a
 * part of what the tiles multiply with. */
AMX_INLINE void look_ahead(const int16_t *w, const int8_t *panels, size_t bytes, int32_t r)
{
    const size_t part = bytes / AMX_SIDE;
    const int8_t *from = panels + (size_t)r * part;

    _mm_prefetch((const char *)w, _MM_HINT_T0);
    _mm_prefetch((const char *)(w + 32), _MM_HINT_T0);
    _mm_prefetch((const char *)(w + 63), _MM_HINT_T0);
    for (size_t at = 0; at < part; at += AMX_DEEP) {
        _mm_prefetch((const char *)(from + at), _MM_HINT_T0);
    }
}

/* Gradients g[rows][V] of two blocks of 16 inputs, or one. */
AMX_INLINE void gradients_of(__m512i *g, int32_t V, const amx_sums *s, int32_t rows, int two,
                             int narrow, int32_t drop)
{
    const __m512i half = all(drop > 0 ? 1 << (drop - 1) : 0);

    for (int32_t r = 0; r < rows; r++, g += V) {
        for (int c = 0; c <= two; c++) {
            if (narrow) {
                g[c] = sra(_mm512_add_epi32(amx_sum(s, c, r), half), drop);
            } else {
                __m512i low;
                const __m512i high = amx_wide_sum(s, c, r, &low);
                g[c] = round_outer(high, low, drop);
            }
        }
    }
}

/* learn_batch with the tiles of AMX. */
AMX static void learn_by_tiles(gle_layer *layer, const gle_learning *job, gle_update_count *count)
{
    enum { KEPT = GLE_MAX_BATCH / AMX_DEEP };
    static const amx_seeing as_it_is = {0, 0};
    const int32_t blocks = amx_blocks(job->columns);
    const size_t panel = (size_t)blocks * 2 * AMX_BYTES;
    const int far = (size_t)layer->n * (size_t)layer->stride * sizeof *layer->w > AMX_NEAR;
    int32_t *const size = job->sums + layer->n;
    learner l = learner_of(job->how);
    amx_pair a[KEPT];
    amx_sums s;
    __m512i g[MOST_V * AMX_SIDE];

    error_sums(job->sums, size, layer, job->columns);
    amx_begin();
    for (int32_t i = 0; i < layer->n; i += AMX_SIDE) {
        const int16_t *e = layer->e + (size_t)i * (size_t)job->columns;
        const int32_t rows = layer->n - i < AMX_SIDE ? layer->n - i : AMX_SIDE;
        const int8_t *x = (const int8_t *)job->turned;
        const int32_t fits = rows_fit(size + i, rows);
        for (int32_t k = 0; k < blocks; k++) {
            split_rows(&a[k], e, job->columns, rows, k, job->columns, &as_it_is);
        }
        for (int32_t j = 0; j < layer->m; j += MOST_V * AMX_SIDE) {
            const int32_t left = (layer->m - j + AMX_SIDE - 1) / AMX_SIDE;
            const int32_t V = left < MOST_V ? left : MOST_V;
            for (int32_t v = 0; v < V; v += 2, x += 2 * panel) {
                const int two = V - v > 1;
                amx_zero();
                for (int32_t k = 0; k < blocks; k++) {
                    if (two) {
                        amx_add_two(&a[k], x + (size_t)k * 2 * AMX_BYTES, panel);
                    } else {
                        amx_add_one(&a[k], x + (size_t)k * 2 * AMX_BYTES);
                    }
                }
                if (two) {
                    amx_store_two(&s);
                } else {
                    amx_store_one(&s);
                }
                gradients_of(g + v, V, &s, rows, two, fits, job->drop);
            }
            for (int32_t r = 0; far && left > 2 * MOST_V && r < rows; r++) {
                look_ahead(layer->w + (size_t)(i + r) * (size_t)layer->stride + (size_t)j +
                               MOST_V * AMX_SIDE,
                           x, MOST_V * panel, r);
            }
            if (job->how->noise.m != 0) {
                vary_tile(g, rows, V, layer, job->how, job->first + i, j);
            }
            learn_from(g, rows, V, layer, job, i, j, &l);
        }
    }
    amx_end();
    counted(&l, count);
}

AVX512 int32_t gle_learn_vnni(gle_layer *layer, const gle_learning *job, gle_update_count *count)
{
    const int32_t least = job->shift - (layer->rows ? 7 : 0);

    if (least < 1) {
        return 0;
    }
    if (job->columns == 1 && job->how->noise.m != 0) {
        return 0;
    }
    if (job->columns == 1) {
        return gle_learn_stream_vnni(layer, job, count);
    }
    learn_batch(layer, job, count);
    return 1;
}

AMX int32_t gle_learn_amx(gle_layer *layer, const gle_learning *job, gle_update_count *count)
{
    const int32_t least = job->shift - (layer->rows ? 7 : 0);

    if (least < 1 || !amx_learns(layer->m, job->columns)) {
        return gle_learn_vnni(layer, job, count);
    }
    learn_by_tiles(layer, job, count);
    return 1;
}

#else
typedef int gle_no_learn_vnni; /* ISO C wants one declaration a file */
#endif
