/* Updates of one stream on a microcontroller with the DSP extension. The same integers as
 * update.inc, for two weights in a word:
 *
 *     SMLAWB, SMLAWT   d = (e 2^(32-k)) x >> 16 + 2^15: the update is the upper half of d
 *     PKHTB            two updates in a word
 *     QADD16           two weights learn
 *     UQSUB16, ADD     1 where an update is 0: counts those that round to nothing
 *
 * That is all where no weight of the row can reach its limit: `tops` holds a bound of each
 * row, which grows with every update and is found again when it comes near the limit. A row
 * that is near, or of which there is no bound, is looked through afterwards: the limit is below
 * INT16_MAX, where QADD16 stops, so that a weight beyond it can still be told.
 */
#include "single.h"

#if defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_SIMD32)

#include <arm_acle.h>

#include "single_dsp.h"
#include "single_dsp_random.h"

enum { ONES = 0x00010001 };

/* Steps that a row near its limit is not looked at again. */
enum { PINNED = 16 };

/* Inputs and errors have 14 bits, so that both fit 32 times 2^18, and e x 2^(16-k) is the upper
 * word of e 2^(30-k) x 2^18, for k of 12 and more. */
enum { WIDE_X = 18, WIDE_LEAST = 12 };

/* One by one, for updates that may be too large for 16 bits. Zeros are counted, as that is one
 * instruction each: an update was asked for where x is not 0 (e is not), and rounded to
 * nothing where it is 0 all the same. */
static __attribute__((noinline)) void learn_some(int16_t *w, int32_t e, const int16_t *x,
                                                 int32_t m, const gle_update *how, int32_t shift,
                                                 uint32_t root, gle_update_count *count)
{
    const int32_t limit = how->limit, rest = 32 - shift, most = how->most;
    uint32_t bits[GLE_RNG_SHARE], still = 0, idle = 0, clipped = 0;

    for (int32_t j = 0; j < GLE_RNG_SHARE && !how->stochastic; j++) {
        bits[j] = UINT32_C(1) << 31; /* the half */
    }
    for (int32_t j = 0; j < m; j++) {
        const int32_t g = e * x[j];
        int32_t delta, next;
        if (how->stochastic && j % GLE_RNG_SHARE == 0) {
            gle_rng_share(bits, gle_rng_root(how->key, root++));
        }
        delta = (g + (int32_t)(bits[j % GLE_RNG_SHARE] >> rest)) >> shift;
        delta = gle_clamp(delta, most);
        next = w[j] + delta;
        still += (uint32_t)(delta == 0);
        idle += (uint32_t)(g == 0);
        if ((uint32_t)(next + limit) > 2u * (uint32_t)limit) {
            next = gle_clamp(next, limit);
            clipped++;
        }
        w[j] = (int16_t)next;
    }
    count->asked += (uint32_t)m - idle;
    count->under += still - idle;
    count->clipped += clipped;
}

/* Of counts in halves. */
static uint32_t both_halves(uint32_t halves) { return (halves & 0xffffu) + (halves >> 16); }

/* What follows clips nothing, in assembly, as the compiler loads word by word. `own` is
 * e 2^(32-k). Rows and x are padded to pairs with zeros, which learn nothing. */

/* Zeros among four updates, of which t knows two and d has two: t is 1 where one of its own was
 * 0, d becomes 0xfffe where it is 0, else 0xffff, and the sum of what bytes differ by is 1020
 * less the zeros. */
#define ZEROS_FIRST(t, d) "uqsub16 " t ", %[ones], " d "\n\t"
#define ZEROS_SECOND(t, d)                                 \
    "uqadd16 " d ", " d ", %[less]\n\t"                    \
    "usada8 %[sum], " t ", " d ", %[sum]\n\t"
enum { FULL = 1020, LESS = (int32_t)0xfffefffe };

/* Two weights in `w`; `x` is lost. */
#define NEAREST(w, x)                                      \
    "smlawb %[d], %[own], " x ", %[half]\n\t"              \
    "smlawt " x ", %[own], " x ", %[half]\n\t"             \
    "pkhtb %[d], " x ", %[d], asr #16\n\t"                 \
    "qadd16 " w ", " w ", %[d]\n\t"
#define LOAD "ldmia %[w], {r4-r6, r8}\n\t"
#define STORE "stmia %[w]!, {r4-r6, r8}\n\t"
#define NEAREST_EIGHT                                      \
    LOAD                                                   \
    "ldmia %[x]!, {r9-r12}\n\t"                            \
    NEAREST("r4", "r9") NEAREST("r5", "r10")               \
    NEAREST("r6", "r11") NEAREST("r8", "r12")              \
    STORE
#define RUN_NEAREST(words)                                                                \
    __asm__ volatile(words : [w] "+r"(w), [x] "+r"(x), [d] "=&r"(d)                       \
                     : [own] "r"(own), [half] "r"(half)                                   \
                     : "r4", "r5", "r6", "r8", "r9", "r10", "r11", "r12", "memory")

/* Where all of x that are not 0 give an update. */
static __attribute__((noinline)) void nearest(int16_t *w, const int16_t *x, int32_t own, int32_t m)
{
    const int16_t *const end = w + m, *const eights = w + (m & -8), *const groups = w + (m & -32);
    const int32_t half = 0x8000;
    int32_t d;

    while (w != groups) {
        RUN_NEAREST(NEAREST_EIGHT NEAREST_EIGHT NEAREST_EIGHT NEAREST_EIGHT);
    }
    while (w != eights) {
        RUN_NEAREST(NEAREST_EIGHT);
    }
    while (w < end) {
        RUN_NEAREST("ldr r4, [%[w]]\n\t"
                    "ldr r9, [%[x]], #4\n\t" NEAREST("r4", "r9") "str r4, [%[w]], #4\n\t");
    }
}

#define NEAREST_COUNT(w, v)                                \
    "ldrd %[t], %[u], [%[x]], #8\n\t"                      \
    NEAREST(w, "%[t]") ZEROS_FIRST("%[t]", "%[d]")         \
    NEAREST(v, "%[u]") ZEROS_SECOND("%[t]", "%[d]")
#define NEAREST_COUNT_EIGHT LOAD NEAREST_COUNT("r4", "r5") NEAREST_COUNT("r6", "r8") STORE
#define RUN_NEAREST_COUNT(words)                                                          \
    __asm__ volatile(words : [w] "+r"(w), [x] "+r"(x), [d] "=&r"(d), [t] "=&r"(t),        \
                       [u] "=&r"(u), [sum] "+r"(sum)                                      \
                     : [own] "r"(own), [half] "r"(half), [ones] "r"(ONES), [less] "r"(LESS) \
                     : "r4", "r5", "r6", "r8", "memory")

/* Returns how many updates are 0, with those of the padding. */
static __attribute__((noinline)) uint32_t nearest_count(int16_t *w, const int16_t *x, int32_t own,
                                                        int32_t m)
{
    const int16_t *const end = w + m, *const eights = w + (m & -8), *const groups = w + (m & -32);
    const int32_t half = 0x8000;
    uint32_t sum = 0, fours = ((uint32_t)m & ~UINT32_C(7)) / 4;
    int32_t d, t, u;

    while (w != groups) {
        RUN_NEAREST_COUNT(NEAREST_COUNT_EIGHT NEAREST_COUNT_EIGHT NEAREST_COUNT_EIGHT
                          NEAREST_COUNT_EIGHT);
    }
    while (w != eights) {
        RUN_NEAREST_COUNT(NEAREST_COUNT_EIGHT);
    }
    for (; w < end; fours++) { /* the same pair for both; its second pair is none that is 0 */
        RUN_NEAREST_COUNT("ldr r4, [%[w]]\n\t"
                          "ldr %[t], [%[x]], #4\n\t" NEAREST("r4", "%[t]")
                          ZEROS_FIRST("%[t]", "%[d]")
                          "mov %[d], #-1\n\t" ZEROS_SECOND("%[t]", "%[d]")
                          "str r4, [%[w]], #4\n\t");
    }
    return FULL * fours - sum;
}

/* A pair of weights in `w`, their random bits in `r`: t, u get updates in their upper halves. */
#define ROUNDED(r)                                         \
    "pkhtb " r ", %[t], " r ", asr #16\n\t"
/* k <= 16: what SMLAWB drops is 0. x: two in a word */
#define NARROW(r, x)                                       \
    "lsr %[t], " r ", #16\n\t"                             \
    "uxth " r ", " r "\n\t"                                \
    "smlawb " r ", %[own], " x ", " r "\n\t"               \
    "smlawt %[t], %[own], " x ", %[t]\n\t" ROUNDED(r)
#define NARROW_FOUR                                        \
    "ldrd %[a], %[b], [%[up]], #8\n\t"                     \
    "ldrd %[p], %[q], [%[x]], #8\n\t"                      \
    "ldrd %[v], %[z], [%[w]]\n\t"                          \
    NARROW("%[a]", "%[p]")                                 \
    "qadd16 %[v], %[v], %[a]\n\t"                          \
    ZEROS_FIRST("%[a]", "%[a]")                            \
    NARROW("%[b]", "%[q]")                                 \
    "qadd16 %[z], %[z], %[b]\n\t"                          \
    ZEROS_SECOND("%[a]", "%[b]")                           \
    "strd %[v], %[z], [%[w]], #8\n\t"
#define NARROW_TWO                                         \
    "ldr %[a], [%[up]], #4\n\t"                            \
    "ldr %[p], [%[x]], #4\n\t"                             \
    "ldr %[v], [%[w]]\n\t"                                 \
    NARROW("%[a]", "%[p]")                                 \
    "qadd16 %[v], %[v], %[a]\n\t"                          \
    ZEROS_FIRST("%[a]", "%[a]")                            \
    "mov %[b], #-1\n\t" ZEROS_SECOND("%[a]", "%[b]")       \
    "str %[v], [%[w]], #4\n\t"
/* Any k: SMMLAR rounds what is dropped to 16 bits, as gle_rng_upper wants it. x: a word each */
#define WIDE(r)                                            \
    "ldrd %[p], %[q], [%[x]], #8\n\t"                      \
    "lsr %[t], " r ", #16\n\t"                             \
    "uxth " r ", " r "\n\t"                                \
    "smmlar " r ", %[own], %[p], " r "\n\t"                \
    "smmlar %[t], %[own], %[q], %[t]\n\t" ROUNDED(r)
#define WIDE_FOUR                                          \
    "ldrd %[a], %[b], [%[up]], #8\n\t"                     \
    "ldrd %[v], %[z], [%[w]]\n\t"                          \
    WIDE("%[a]")                                           \
    "qadd16 %[v], %[v], %[a]\n\t"                          \
    ZEROS_FIRST("%[a]", "%[a]")                            \
    WIDE("%[b]")                                           \
    "qadd16 %[z], %[z], %[b]\n\t"                          \
    ZEROS_SECOND("%[a]", "%[b]")                           \
    "strd %[v], %[z], [%[w]], #8\n\t"
#define WIDE_TWO                                           \
    "ldr %[a], [%[up]], #4\n\t"                            \
    "ldr %[v], [%[w]]\n\t"                                 \
    WIDE("%[a]")                                           \
    "qadd16 %[v], %[v], %[a]\n\t"                          \
    ZEROS_FIRST("%[a]", "%[a]")                            \
    "mov %[b], #-1\n\t" ZEROS_SECOND("%[a]", "%[b]")       \
    "str %[v], [%[w]], #4\n\t"
#define RUN_STOCHASTIC(words)                                                             \
    __asm__ volatile(words : [w] "+r"(w), [x] "+r"(x), [up] "+r"(up), [sum] "+r"(sum),    \
                       [a] "=&r"(a), [b] "=&r"(b), [p] "=&r"(p), [q] "=&r"(q),            \
                       [v] "=&r"(v), [z] "=&r"(z), [t] "=&r"(t)                           \
                     : [own] "r"(own), [ones] "r"(ONES), [less] "r"(LESS)                 \
                     : "memory")
/* Of m weights, an even number. Returns zeros; `two` has a pair that is not 0 as its second. */
#define STOCHASTIC(four, two)                                                             \
    const int16_t *const fours = w + (m & -4), *const groups = w + (m & -16);             \
    uint32_t sum = 0;                                                                     \
    int32_t a, b, p, q, v, z, t;                                                          \
                                                                                          \
    while (w != groups) {                                                                 \
        RUN_STOCHASTIC(four four four four);                                              \
    }                                                                                     \
    while (w != fours) {                                                                  \
        RUN_STOCHASTIC(four);                                                             \
    }                                                                                     \
    if ((m & 2) != 0) {                                                                   \
        RUN_STOCHASTIC(two);                                                              \
    }                                                                                     \
    return FULL * (((uint32_t)m + 3) / 4) - sum;

static __attribute__((noinline)) uint32_t narrow_count(int16_t *w, const int16_t *x, int32_t own,
                                                       int32_t m, const uint32_t *up)
{
    STOCHASTIC(NARROW_FOUR, NARROW_TWO)
}

static __attribute__((noinline)) uint32_t wide_count(int16_t *w, const int32_t *x, int32_t own,
                                                     int32_t m, const uint32_t *up)
{
    STOCHASTIC(WIDE_FOUR, WIDE_TWO)
}

/* What all rows of a layer have in common. */
typedef struct {
    const gle_update *how;
    const int16_t *x;
    const int32_t *wide;          /* x 2^WIDE_X, or NULL */
    int32_t m, odd;               /* odd: 1 where a row ends in padding */
    int32_t most, least;          /* of |x|, least: of those that are not 0 */
    int32_t reach;                /* largest update that is not clipped */
    uint32_t idle;                /* how many of x are 0 */
} lesson;

static lesson lesson_of(const gle_update *how, const int16_t *x, int32_t m)
{
    lesson y;
    uint32_t most = 0, less = 0x7fff7fff, zeros = 0; /* less: the least, minus 1 */

    for (int32_t j = 0; j < m; j += 2) {
        const uint32_t two = (uint32_t)pair_at(x + j);
        uint32_t size, t;
        __asm__("ssub16 %[t], %[zero], %[two]\n\t" /* -x; GE: not below 0 */
                "sel %[size], %[t], %[two]\n\t"
                "usub16 %[t], %[most], %[size]\n\t"
                "sel %[most], %[most], %[size]\n\t"
                "uqsub16 %[t], %[ones], %[size]\n\t"
                "add %[zeros], %[zeros], %[t]\n\t"
                "ssub16 %[size], %[size], %[ones]\n\t" /* 0 becomes the largest there is */
                "usub16 %[t], %[size], %[less]\n\t"
                "sel %[less], %[less], %[size]\n\t"
                : [t] "=&r"(t), [size] "=&r"(size), [most] "+r"(most), [zeros] "+r"(zeros),
                  [less] "+r"(less)
                : [two] "r"(two), [zero] "r"(0), [ones] "r"(ONES)
                : "cc");
    }
    y.how = how;
    y.x = x;
    y.m = m;
    y.odd = m & 1;
    y.reach = how->most < INT16_MAX ? how->most : INT16_MAX;
    y.idle = both_halves(zeros) - (uint32_t)y.odd;
    y.most = (int32_t)(most & 0xffffu);
    y.most = y.most < (int32_t)(most >> 16) ? (int32_t)(most >> 16) : y.most;
    y.least = (int32_t)(less & 0xffffu);
    y.least = (y.least > (int32_t)(less >> 16) ? (int32_t)(less >> 16) : y.least) + 1;
    return y;
}

/* Two weights in `r` into the two largest in `most`. */
#define MOST(r)                                            \
    "ssub16 %[t], %[zero], " r "\n\t"                      \
    "sel " r ", %[t], " r "\n\t"                           \
    "usub16 %[t], %[most], " r "\n\t"                      \
    "sel %[most], %[most], " r "\n\t"
#define RUN_MOST(words)                                                       \
    __asm__ volatile(words : [w] "+r"(w), [most] "+r"(most), [t] "=&r"(t)     \
                     : [zero] "r"(0)                                          \
                     : "r4", "r5", "r6", "r8", "memory", "cc")

/* Of a row, with its padding. */
static int32_t largest(const int16_t *w, int32_t m)
{
    const int16_t *const end = w + m, *const eights = w + (m & -8);
    uint32_t most = 0, t;

    while (w != eights) {
        RUN_MOST("ldmia %[w]!, {r4-r6, r8}\n\t" MOST("r4") MOST("r5") MOST("r6") MOST("r8"));
    }
    while (w < end) {
        RUN_MOST("ldr r4, [%[w]], #4\n\t" MOST("r4"));
    }
    return (int32_t)((most & 0xffffu) > most >> 16 ? most & 0xffffu : most >> 16);
}

static uint32_t clip(int16_t *w, int32_t m, int32_t limit)
{
    uint32_t clipped = 0;

    for (int32_t j = 0; j < m; j++) {
        const int32_t kept = gle_clamp(w[j], limit);
        clipped += (uint32_t)(kept != w[j]);
        w[j] = (int16_t)kept;
    }
    return clipped;
}

/* Not 0 where one of two weights is beyond the limit. */
#define BEYOND(r)                                          \
    "uadd16 " r ", " r ", %[both]\n\t"                     \
    "uqsub16 " r ", " r ", %[twice]\n\t"

/* Of a row that has learned; returns how many. */
static __attribute__((noinline)) uint32_t clip_row(int16_t *w, int32_t m, int32_t limit)
{
    const uint32_t both = (uint32_t)limit * ONES, twice = 2u * both;
    const int16_t *const eights = w + (m & -8), *const end = w + m;
    uint32_t clipped = 0;

    while (w != eights) {
        uint32_t beyond;
        __asm__ volatile("ldmia %[w]!, {r4-r6, r8}\n\t"
                         BEYOND("r4") BEYOND("r5") BEYOND("r6") BEYOND("r8")
                         "orr r4, r4, r5\n\t"
                         "orr r6, r6, r8\n\t"
                         "orr %[beyond], r4, r6\n\t"
                         : [w] "+r"(w), [beyond] "=r"(beyond)
                         : [both] "r"(both), [twice] "r"(twice)
                         : "r4", "r5", "r6", "r8", "memory");
        if (beyond != 0) {
            clipped += clip(w - 8, 8, limit);
        }
    }
    return clipped + clip(w, (int32_t)(end - w), limit);
}

/* Whether no weight of a row reaches the limit with an update of at most `most`, where its
 * bound does not say so. */
static __attribute__((noinline)) int out_of_reach(uint16_t *top, const int16_t *w, const lesson *y,
                                                  int32_t most)
{
    const int32_t limit = y->how->limit;

    if (*top > limit) {
        (*top)--;
        return 0;
    }
    *top = (uint16_t)largest(w, y->m);
    if (*top + most > limit) {
        *top = (uint16_t)(limit + PINNED);
        return 0;
    }
    *top = (uint16_t)(*top + most);
    return 1;
}

/* Words that were drawn, of roots first .. last - 1. */
typedef struct {
    uint32_t *words;
    uint32_t first, last, end; /* end: of the layer's */
    uint32_t of_row, room;     /* whole rows */
    gle_key key;
} drawn;

static __attribute__((noinline)) void draw(drawn *d, uint32_t root)
{
    const uint32_t left = d->end - root, some = left < d->room ? left : d->room;

    draw_words(d->words, root, some, d->key);
    d->first = root;
    d->last = root + some;
}

/* Inputs as SMMLAR takes them. */
static void widen(int32_t *to, const int16_t *x, int32_t m)
{
    for (int32_t j = 0; j < m; j++) {
        to[j] = x[j] * (1 << WIDE_X);
    }
}

/* Where an update is random. `root`: the row's first. */
INLINE uint32_t learn_row_random(int16_t *w, int32_t e, const lesson *y, int32_t shift, drawn *d,
                                 uint32_t root, int32_t narrow)
{
    const uint32_t *up;

    if (root >= d->last) {
        draw(d, root);
    }
    up = d->words + (root - d->first) * GLE_RNG_WORDS;
    if (narrow) {
        return narrow_count(w, y->x, (int32_t)((uint32_t)e << (32 - shift)), y->m + y->odd, up);
    }
    return wide_count(w, y->wide, e * (1 << (48 - WIDE_X - shift)), y->m + y->odd, up);
}

void gle_learn_layer_dsp(gle_layer *layer, const int16_t *x, const gle_update *how, int32_t shift,
                         int32_t *scratch, gle_update_count *count)
{
    lesson y = lesson_of(how, x, layer->m);
    const int32_t limit = how->limit, n = layer->n, stochastic = how->stochastic;
    const uint32_t of_row = gle_rng_roots(y.m);
    uint32_t few[GLE_RNG_WORDS];
    drawn d = {few, 0, 0, (uint32_t)n * of_row, of_row, of_row, how->key};
    uint16_t none, *top = layer->tops == NULL ? &none : layer->tops;
    int16_t *w = layer->w;
    uint32_t rows = 0, zeros = 0, root = 0;

    y.wide = NULL;
    if (stochastic) {
        const uint32_t room = 3u * (uint32_t)layer->stride / (of_row * GLE_RNG_WORDS);
        if (room > 0) {
            d.words = (uint32_t *)scratch + layer->stride;
            d.room = room * of_row;
        }
    }
    for (int32_t i = 0; i < n; i++, w += layer->stride, root += of_row,
                 top += layer->tops != NULL) {
        const int32_t e = layer->e[i], size = e < 0 ? -e : e, reach = size * y.most;
        const int32_t k = shift - (layer->rows ? (int32_t)layer->rows[i] : 0);
        int32_t most, far = 1, narrow;
        if (e == 0) {
            continue; /* rounds to nothing either way, and asks for nothing */
        }
        most = k >= 1 && k <= 30 ? (reach >> k) + 1 : INT32_MAX;
        narrow = size >> ((k - 1) & 31) == 0; /* e has room for its shift */
        if (most > y.reach || (!narrow && (!stochastic || k < WIDE_LEAST))) {
            *top = (uint16_t)limit; /* any */
            gle_learn_one_dsp(w, e, x, y.m, how, k, root, count);
            continue;
        }
        if (layer->tops == NULL) {
            none = (uint16_t)(limit + PINNED);
        }
        rows++;
        if (!stochastic && reach < 1 << (k - 1)) {
            zeros += (uint32_t)y.m; /* none learns */
            continue;
        }
        if (*top + most <= limit) {
            *top = (uint16_t)(*top + most);
        } else {
            far = out_of_reach(top, w, &y, most);
        }
        if (stochastic) {
            narrow = narrow && k <= 16;
            if (!narrow && y.wide == NULL) {
                widen(scratch, x, layer->stride);
                y.wide = scratch;
            }
            zeros += learn_row_random(w, e, &y, k, &d, root, narrow) - (uint32_t)y.odd;
        } else if (size * y.least > 1 << (k - 1)) {
            nearest(w, x, (int32_t)((uint32_t)e << (32 - k)), y.m);
            zeros += y.idle;
        } else {
            zeros += nearest_count(w, x, (int32_t)((uint32_t)e << (32 - k)), y.m) -
                     (uint32_t)y.odd;
        }
        if (!far) {
            count->clipped += clip_row(w, y.m, limit);
        }
    }
    count->asked += rows * ((uint32_t)y.m - y.idle);
    count->under += zeros - rows * y.idle;
}

void gle_learn_one_dsp(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                       int32_t shift, uint32_t root, gle_update_count *count)
{
    if (e == 0) {
        return; /* rounds to nothing either way, and asks for nothing */
    }
    /* |g| < 2^26, so that g and what rounds it up fit an int32 */
    if (shift < 1 || shift > 30) {
        gle_learn_one(w, e, x, m, how, shift, root, count);
    } else {
        learn_some(w, e, x, m, how, shift, root, count);
    }
}

#else
typedef int gle_no_single_dsp_learn; /* ISO C wants one declaration a file */
#endif
