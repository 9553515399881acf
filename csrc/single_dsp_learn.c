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

/* `most`: clip updates too, where they can be larger. Zeros are counted, as that is one
 * instruction each: an update was asked for where x is not 0 (e is not), and rounded to
 * nothing where it is 0 all the same. */
INLINE void learn(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                  int32_t shift, uint32_t first, const int stochastic, const int32_t most,
                  gle_update_count *count)
{
    const gle_key key = how->key;
    const int32_t limit = how->limit, rest = 32 - shift, half = 1 << (shift - 1);
    const int16_t *const end = w + m;
    uint32_t still = 0, idle = 0, clipped = 0;

    for (; w < end; w++, x++, first++) {
        const int32_t g = e * *x;
        const int32_t up = stochastic ? (int32_t)(gle_rng(key, first) >> rest) : half;
        int32_t delta = (g + up) >> shift, next;
        if (most != 0) {
            delta = gle_clamp(delta, most);
        }
        next = *w + delta;
        still += (uint32_t)(delta == 0);
        idle += (uint32_t)(g == 0);
        if ((uint32_t)(next + limit) > 2u * (uint32_t)limit) {
            next = gle_clamp(next, limit);
            clipped++;
        }
        *w = (int16_t)next;
    }
    count->asked += (uint32_t)m - idle;
    count->under += still - idle;
    count->clipped += clipped;
}

static __attribute__((noinline)) void learn_some(int16_t *w, int32_t e, const int16_t *x,
                                                 int32_t m, const gle_update *how, int32_t shift,
                                                 uint32_t first, gle_update_count *count)
{
    if (how->stochastic) {
        learn(w, e, x, m, how, shift, first, 1, how->most, count);
    } else {
        learn(w, e, x, m, how, shift, first, 0, how->most, count);
    }
}

/* Of counts in halves. */
static uint32_t both_halves(uint32_t halves) { return (halves & 0xffffu) + (halves >> 16); }

/* What follows clips nothing, in assembly, as the compiler loads word by word. `own` is
 * e 2^(32-k). Rows and x are padded to pairs with zeros, which learn nothing. */

/* Two weights in `w`; `x` is lost. */
#define NEAREST(w, x)                                      \
    "smlawb %[d], %[own], " x ", %[half]\n\t"              \
    "smlawt " x ", %[own], " x ", %[half]\n\t"             \
    "pkhtb %[d], " x ", %[d], asr #16\n\t"                 \
    "qadd16 " w ", " w ", %[d]\n\t"
#define COUNT(t, d)                                        \
    "uqsub16 " t ", %[ones], " d "\n\t"                    \
    "add %[zeros], %[zeros], " t "\n\t"
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
    const int16_t *const end = w + m, *const eights = w + (m & -8), *const groups = w + (m & -16);
    const int32_t half = 0x8000;
    int32_t d;

    while (w != groups) {
        RUN_NEAREST(NEAREST_EIGHT NEAREST_EIGHT);
    }
    if (w != eights) {
        RUN_NEAREST(NEAREST_EIGHT);
    }
    while (w < end) {
        RUN_NEAREST("ldr r4, [%[w]]\n\t"
                    "ldr r9, [%[x]], #4\n\t" NEAREST("r4", "r9") "str r4, [%[w]], #4\n\t");
    }
}

#define NEAREST_COUNT(w, x) NEAREST(w, x) COUNT(x, "%[d]")
#define NEAREST_COUNT_EIGHT                                \
    LOAD                                                   \
    "ldrd r9, r10, [%[x]], #8\n\t"                         \
    NEAREST_COUNT("r4", "r9") NEAREST_COUNT("r5", "r10")   \
    "ldrd r9, r10, [%[x]], #8\n\t"                         \
    NEAREST_COUNT("r6", "r9") NEAREST_COUNT("r8", "r10")   \
    STORE
#define RUN_NEAREST_COUNT(words)                                                          \
    __asm__ volatile(words : [w] "+r"(w), [x] "+r"(x), [d] "=&r"(d), [zeros] "+r"(zeros)  \
                     : [own] "r"(own), [half] "r"(half), [ones] "r"(ONES)                 \
                     : "r4", "r5", "r6", "r8", "r9", "r10", "memory")

/* Returns how many updates are 0, with those of the padding. */
static __attribute__((noinline)) uint32_t nearest_count(int16_t *w, const int16_t *x, int32_t own,
                                                        int32_t m)
{
    const int16_t *const end = w + m, *const eights = w + (m & -8), *const groups = w + (m & -16);
    const int32_t half = 0x8000;
    uint32_t zeros = 0;
    int32_t d;

    while (w != groups) {
        RUN_NEAREST_COUNT(NEAREST_COUNT_EIGHT NEAREST_COUNT_EIGHT);
    }
    if (w != eights) {
        RUN_NEAREST_COUNT(NEAREST_COUNT_EIGHT);
    }
    while (w < end) {
        RUN_NEAREST_COUNT("ldr r4, [%[w]]\n\t"
                          "ldr r9, [%[x]], #4\n\t" NEAREST_COUNT("r4", "r9")
                          "str r4, [%[w]], #4\n\t");
    }
    return both_halves(zeros);
}

/* Two weights in `w`, two words in v0 and v1. WIDE: as it is for k > 16, where bits count
 * that SMLAWB drops. */
#define NARROW(x, v0, v1)                                  \
    "smlawb " v0 ", %[own], " x ", " v0 "\n\t"             \
    "smlawt " v1 ", %[own], " x ", " v1 "\n\t"             \
    "pkhtb " v0 ", " v1 ", " v0 ", asr #16\n\t"
#define WIDE(x, v0, v1)                                    \
    "smlabb " v0 ", %[own], " x ", " v0 "\n\t"             \
    "smlabt " v1 ", %[own], " x ", " v1 "\n\t"             \
    "asr " v0 ", " v0 ", %[shift]\n\t"                     \
    "asr " v1 ", " v1 ", %[shift]\n\t"                     \
    "pkhbt " v0 ", " v0 ", " v1 ", lsl #16\n\t"
#define STOCHASTIC(form, w, v0, v1)                        \
    "ldr r9, [%[x]], #4\n\t" form("r9", v0, v1)            \
    "qadd16 " w ", " w ", " v0 "\n\t" COUNT(v1, v0)
#define NARROW_FOUR                                        \
    "ldmia %[up]!, {r4-r6, r8}\n\t"                        \
    "ldrd r11, r12, [%[w]]\n\t"                            \
    STOCHASTIC(NARROW, "r11", "r4", "r5")                  \
    STOCHASTIC(NARROW, "r12", "r6", "r8")                  \
    "strd r11, r12, [%[w]], #8\n\t"
#define WIDE_FOUR                                          \
    "ldrd r11, r12, [%[w]]\n\t"                            \
    "ldrd r4, r5, [%[up]], #8\n\t"                         \
    STOCHASTIC(WIDE, "r11", "r4", "r5")                    \
    "ldrd r4, r5, [%[up]], #8\n\t"                         \
    STOCHASTIC(WIDE, "r12", "r4", "r5")                    \
    "strd r11, r12, [%[w]], #8\n\t"
#define STOCHASTIC_TWO(form)                               \
    "ldrd r4, r5, [%[up]], #8\n\t"                         \
    "ldr r11, [%[w]]\n\t" STOCHASTIC(form, "r11", "r4", "r5") \
    "str r11, [%[w]], #4\n\t"
#define RUN_NARROW(words)                                                                 \
    __asm__ volatile(words : [w] "+r"(w), [x] "+r"(x), [up] "+r"(up), [zeros] "+r"(zeros) \
                     : [own] "r"(own), [ones] "r"(ONES)                                   \
                     : "r4", "r5", "r6", "r8", "r9", "r11", "r12", "memory")
#define RUN_WIDE(words)                                                                   \
    __asm__ volatile(words : [w] "+r"(w), [x] "+r"(x), [up] "+r"(up), [zeros] "+r"(zeros) \
                     : [own] "r"(own), [ones] "r"(ONES), [shift] "r"(shift)               \
                     : "r4", "r5", "r9", "r11", "r12", "memory")
#define STOCHASTIC_ALL(run, four, two)                                                    \
    while (w != groups) {                                                                 \
        run(four four four four);                                                         \
    }                                                                                     \
    while (w != fours) {                                                                  \
        run(four);                                                                        \
    }                                                                                     \
    while (w < end) {                                                                     \
        run(two);                                                                         \
    }

static __attribute__((noinline)) uint32_t narrow_count(int16_t *w, const int16_t *x, int32_t own,
                                                       int32_t m, const uint32_t *up)
{
    const int16_t *const end = w + m, *const fours = w + (m & -4), *const groups = w + (m & -16);
    uint32_t zeros = 0;

    STOCHASTIC_ALL(RUN_NARROW, NARROW_FOUR, STOCHASTIC_TWO(NARROW))
    return both_halves(zeros);
}

static __attribute__((noinline)) uint32_t wide_count(int16_t *w, const int16_t *x, int32_t own,
                                                     int32_t m, const uint32_t *up, int32_t shift)
{
    const int16_t *const end = w + m, *const fours = w + (m & -4), *const groups = w + (m & -16);
    uint32_t zeros = 0;

    STOCHASTIC_ALL(RUN_WIDE, WIDE_FOUR, STOCHASTIC_TWO(WIDE))
    return both_halves(zeros);
}

/* Every update with a word of its own, or, where e has no room for its shift, the half. */
static uint32_t with_words(int16_t *w, const int16_t *x, int32_t e, int32_t m, int32_t shift,
                           int32_t wide, const gle_update *how, uint32_t first)
{
    const int32_t own = wide ? e : (int32_t)((uint32_t)e << (32 - shift));
    const uint32_t rest = wide ? (uint32_t)(32 - shift) : 16;
    uint32_t bits[GLE_DRAWN], zeros = 0;
    const uint32_t *up = bits;

    for (int32_t k = 0; k < GLE_PIECE && !how->stochastic; k++) {
        bits[k] = UINT32_C(1) << (shift - 1);
    }
    for (int32_t j = 0; j < m; j += GLE_PIECE) {
        const int32_t some = m - j < GLE_PIECE ? m - j : GLE_PIECE;
        if (how->stochastic) { /* one for the padding too */
            up = random_words(bits, (uint32_t)(some + (some & 1)), how->key,
                              first + (uint32_t)j, rest);
        }
        zeros += wide ? wide_count(w + j, x + j, own, some, up, shift)
                      : narrow_count(w + j, x + j, own, some, up);
    }
    return zeros;
}

/* What all rows of a layer have in common. */
typedef struct {
    const gle_update *how;
    const int16_t *x;
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

/* A row, unclipped. Returns how many updates are 0. `size`: |e|. */
INLINE uint32_t learn_row(int16_t *w, int32_t e, int32_t size, const lesson *y, int32_t shift,
                          uint32_t first)
{
    const gle_update *const how = y->how;
    const int32_t no_room = size >> (shift - 1) != 0;

    if (how->stochastic || no_room) {
        const int32_t wide = no_room || shift > 16;
        return with_words(w, y->x, e, y->m, shift, wide, how, first) - (uint32_t)y->odd;
    }
    e = (int32_t)((uint32_t)e << (32 - shift));
    if (size * y->least > 1 << (shift - 1)) {
        nearest(w, y->x, e, y->m);
        return y->idle;
    }
    return nearest_count(w, y->x, e, y->m) - (uint32_t)y->odd;
}

void gle_learn_layer_dsp(gle_layer *layer, const int16_t *x, const gle_update *how, int32_t shift,
                         gle_update_count *count)
{
    const lesson y = lesson_of(how, x, layer->m);
    const int32_t limit = how->limit, n = layer->n;
    uint16_t none, *top = layer->tops == NULL ? &none : layer->tops;
    int16_t *w = layer->w;
    uint32_t first = 0, rows = 0, zeros = 0;

    for (int32_t i = 0; i < n; i++, w += layer->stride, first += (uint32_t)y.m,
                 top += layer->tops != NULL) {
        const int32_t e = layer->e[i], size = e < 0 ? -e : e;
        const int32_t k = shift - (layer->rows ? (int32_t)layer->rows[i] : 0);
        int32_t most;
        if (e == 0) {
            continue; /* rounds to nothing either way, and asks for nothing */
        }
        most = k >= 1 && k <= 30 ? (size * y.most >> k) + 1 : INT32_MAX;
        if (most > y.reach) {
            *top = (uint16_t)limit; /* any */
            gle_learn_one_dsp(w, e, x, y.m, how, k, first, count);
            continue;
        }
        if (layer->tops == NULL) {
            none = (uint16_t)(limit + PINNED);
        }
        rows++;
        if (!how->stochastic && size * y.most < 1 << (k - 1)) {
            zeros += (uint32_t)y.m; /* none learns */
            continue;
        }
        if (*top + most <= limit) {
            *top = (uint16_t)(*top + most);
            zeros += learn_row(w, e, size, &y, k, first);
        } else {
            const int far = out_of_reach(top, w, &y, most);
            zeros += learn_row(w, e, size, &y, k, first);
            count->clipped += far ? 0 : clip_row(w, y.m, limit);
        }
    }
    count->asked += rows * ((uint32_t)y.m - y.idle);
    count->under += zeros - rows * y.idle;
}

void gle_learn_one_dsp(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                       int32_t shift, uint32_t first, gle_update_count *count)
{
    if (e == 0) {
        return; /* rounds to nothing either way, and asks for nothing */
    }
    /* |g| < 2^26, so that g and what rounds it up fit an int32 */
    if (shift < 1 || shift > 30) {
        gle_learn_one(w, e, x, m, how, shift, first, count);
    } else {
        learn_some(w, e, x, m, how, shift, first, count);
    }
}

#else
typedef int gle_no_single_dsp_learn; /* ISO C wants one declaration a file */
#endif
