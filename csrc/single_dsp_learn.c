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

/* Inputs as words, for rounding at random: e 2^(30-k) fits for k of 12 and more, whatever e of 14
 * bits, and the upper word of its product with an input 2^18 x is e x 2^(16-k). */
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

/* What follows clips nothing, in assembly, as the compiler loads word by word. Rows and x are
 * padded to pairs with zeros, which learn nothing. */

/* A row that learns, of a chunk of rows, from a piece of the inputs to the next. */
typedef struct {
    int32_t own; /* e, shifted for its kernel */
    int16_t *w;
    union {
        int32_t nothing;    /* nearest: only an |x| up to this may give no update */
        const uint32_t *up; /* at random: words */
    } by;
} planned;

/* Zeros among four updates: t is 1 where one of the first two is 0, d becomes 0xfffe where one
 * of the others is 0, else 0xffff, and the sum of what bytes differ by is 1020 less the zeros. */
#define ZEROS_FIRST(t, d) "uqsub16 " t ", %[ones], " d "\n\t"
#define ZEROS_SECOND(t, d)                                 \
    "uqadd16 " d ", " d ", %[less]\n\t"                    \
    "usada8 %[sum], " t ", " d ", %[sum]\n\t"
/* Where there are but two. */
#define ZEROS_NO_SECOND(t, d) "mov " d ", #-1\n\t" ZEROS_SECOND(t, d)
enum { FULL = 1020, LESS = (int32_t)0xfffefffe };

#define LOAD "ldmia %[w], {r4-r6, r8}\n\t"
#define STORE "stmia %[w]!, {r4-r6, r8}\n\t"

/* Two weights in `w`, own: e 2^(32-k); `x` is lost. */
#define NEAREST(w, x)                                      \
    "smlawb %[d], %[own], " x ", %[half]\n\t"              \
    "smlawt " x ", %[own], " x ", %[half]\n\t"             \
    "pkhtb %[d], " x ", %[d], asr #16\n\t"                 \
    "qadd16 " w ", " w ", %[d]\n\t"
#define NEAREST_EIGHT                                      \
    LOAD                                                   \
    "ldmia %[x]!, {r9-r12}\n\t"                            \
    NEAREST("r4", "r9") NEAREST("r5", "r10")               \
    NEAREST("r6", "r11") NEAREST("r8", "r12")              \
    STORE
#define RUN_NEAREST(words)                                                                \
    __asm__ volatile(words : [w] "+r"(w), [x] "+r"(x), [d] "=&r"(d)                       \
                     : [own] "r"(own), [half] "r"(0x8000)                                 \
                     : "r4", "r5", "r6", "r8", "r9", "r10", "r11", "r12", "memory")
#define COUNTED(w, v)                                      \
    "ldrd r9, r10, [%[x]], #8\n\t"                         \
    NEAREST(w, "r9") ZEROS_FIRST("r9", "%[d]")             \
    NEAREST(v, "r10") ZEROS_SECOND("r9", "%[d]")
#define COUNTED_EIGHT LOAD COUNTED("r4", "r5") COUNTED("r6", "r8") STORE
#define RUN_COUNTED(words)                                                                \
    __asm__ volatile(words : [w] "+r"(w), [x] "+r"(x), [d] "=&r"(d), [sum] "+r"(sum)      \
                     : [own] "r"(own), [half] "r"(0x8000), [ones] "r"(ONES),              \
                       [less] "r"(LESS)                                                   \
                     : "r4", "r5", "r6", "r8", "r9", "r10", "memory")
#define TIMES_8(eight) eight eight eight eight eight eight eight eight

/* PIECE inputs, or what is left of them, an even number. Of those that are not 0 `first` is the
 * smallest |x|, and none but first and second is below `others`, so that up to two updates that
 * are 0 need no counting. A power of two, where a tie rounds to 0 or does not, is never known. */
enum { PIECE = 64 };
typedef struct {
    int32_t first, second, others;
    uint32_t zeros; /* what bytes of all fours add up to, less inputs that are 0, padding too */
} piece;

/* How many updates are 0 where x is not, if it is known: else -1. */
INLINE int32_t known(const piece *some, int32_t nothing)
{
    if (some->first > nothing) {
        return 0;
    }
    return some->others <= nothing ? -1 : 1 + (some->second <= nothing);
}

/* A piece of the rows p .. last - 1. Returns how many updates are 0 where x is not. All rows in
 * one, as all registers are taken: the row's prologue would cost twice as much. To count, the
 * register of p holds the sum. */
static __attribute__((noinline)) uint32_t piece_nearest(planned *p, const planned *last,
                                                        const int16_t *inputs,
                                                        const piece *some)
{
    const int32_t second = some->second, others = some->others;
    const uint32_t zeros = some->zeros;
    const struct {
        int32_t first;
        const int16_t *inputs;
    } both = {some->first, inputs}; /* one load */
    const int16_t *x;
    int16_t *w;
    planned *row;
    uint32_t sum = 0;
    int32_t own, d;
    register uint32_t ones __asm__("r11"), less __asm__("r12");

    __asm__ volatile(
        "1:\n\t"
        "ldrd %[own], %[w], [%[sum]], #8\n\t"
        "ldr %[d], [%[sum]], #4\n\t"
        "ldrd r4, %[x], %[both]\n\t"
        "cmp %[d], r4\n\t"
        "bge 3f\n"
        "2:\n\t" TIMES_8(NEAREST_EIGHT)
        "ldr r4, %[last]\n\t"
        "str %[w], [%[sum], #-8]\n\t"
        "cmp %[sum], r4\n\t"
        "bne 1b\n\t"
        "b 5f\n"
        "3:\n\t" /* some may be 0 */
        "ldr r4, %[others]\n\t"
        "ldr r5, %[total]\n\t"
        "ldr r6, %[second]\n\t"
        "cmp %[d], r4\n\t"
        "bge 4f\n\t"
        "cmp %[d], r6\n\t"
        "ite lt\n\t"
        "addlt r5, r5, #1\n\t"
        "addge r5, r5, #2\n\t"
        "str r5, %[total]\n\t"
        "b 2b\n"
        "4:\n\t" /* counted */
        "ldr r4, %[zeros]\n\t"
        "str %[sum], %[row]\n\t"
        "add %[sum], r4, r5\n\t"
        "rsb %[sum], %[sum], #0\n\t"
        "mov %[ones], #0x00010001\n\t"
        "mvn %[less], #0x00010001\n\t" TIMES_8(COUNTED_EIGHT)
        "rsb r4, %[sum], #0\n\t"
        "str r4, %[total]\n\t"
        "ldr %[sum], %[row]\n\t"
        "ldr r4, %[last]\n\t"
        "str %[w], [%[sum], #-8]\n\t"
        "cmp %[sum], r4\n\t"
        "bne 1b\n"
        "5:\n\t"
        : [sum] "+r"(p), [w] "=&r"(w), [x] "=&r"(x), [own] "=&r"(own), [d] "=&r"(d),
          [ones] "=&r"(ones), [less] "=&r"(less), [total] "+m"(sum), [row] "=m"(row)
        : [half] "r"(0x8000), [both] "m"(both), [second] "m"(second), [others] "m"(others),
          [zeros] "m"(zeros), [last] "m"(last)
        : "r4", "r5", "r6", "r8", "r9", "r10", "cc", "memory");
    return sum;
}

/* The same for the last piece, of m. */
static __attribute__((noinline)) uint32_t rest_nearest(const planned *p, const planned *last,
                                                       const int16_t *inputs, int32_t m,
                                                       const piece *some)
{
    uint32_t sum = 0;
    int32_t d;

    for (; p != last; p++) {
        const int32_t own = p->own, zeros = known(some, p->by.nothing);
        const int16_t *x = inputs;
        int16_t *w = p->w;
        const int16_t *const end = w + m, *const eights = w + (m & -8);
        if (zeros >= 0) {
            sum -= (uint32_t)zeros;
            while (w != eights) {
                RUN_NEAREST(NEAREST_EIGHT);
            }
            while (w != end) {
                RUN_NEAREST("ldr r4, [%[w]]\n\t"
                            "ldr r9, [%[x]], #4\n\t" NEAREST("r4", "r9")
                            "str r4, [%[w]], #4\n\t");
            }
            continue;
        }
        sum -= some->zeros;
        while (w != eights) {
            RUN_COUNTED(COUNTED_EIGHT);
        }
        while (w != end) {
            RUN_COUNTED("ldr r4, [%[w]]\n\t"
                        "ldr r9, [%[x]], #4\n\t" NEAREST("r4", "r9")
                        ZEROS_FIRST("r9", "%[d]") ZEROS_NO_SECOND("r9", "%[d]")
                        "str r4, [%[w]], #4\n\t");
        }
    }
    return 0u - sum;
}

/* Two weights in v, a word of theirs in r. */
#define RANDOM(r, v, first, second)                        \
    "lsr %[t], " r ", #16\n\t"                             \
    "uxth " r ", " r "\n\t"                                \
    first second                                           \
    "pkhtb " r ", %[t], " r ", asr #16\n\t"                \
    "qadd16 " v ", " v ", " r "\n\t"
/* k <= 16, where what SMLAWB drops is 0; x: two in a word; own: e 2^(32-k) */
#define NARROW(r, v, x)                                    \
    RANDOM(r, v, "smlawb " r ", %[own], " x ", " r "\n\t", \
           "smlawt %[t], %[own], " x ", %[t]\n\t")
/* Any k: SMMLAR rounds to 16 bits what is dropped, as gle_rng_upper wants it; inputs as words,
 * x 2^WIDE_X; own: e 2^(30-k) */
#define WIDE(r, v)                                         \
    "ldrd %[p], %[q], [%[x]], #8\n\t"                      \
    RANDOM(r, v, "smmlar " r ", %[own], %[p], " r "\n\t",  \
           "smmlar %[t], %[own], %[q], %[t]\n\t")
#define FOUR(x, first, second)                             \
    "ldrd %[a], %[b], [%[up]], #8\n\t" x                   \
    "ldrd %[v], %[z], [%[w]]\n\t"                          \
    first ZEROS_FIRST("%[a]", "%[a]")                      \
    second ZEROS_SECOND("%[a]", "%[b]")                    \
    "strd %[v], %[z], [%[w]], #8\n\t"
#define TWO(x, first)                                      \
    "ldr %[a], [%[up]], #4\n\t" x                          \
    "ldr %[v], [%[w]]\n\t"                                 \
    first ZEROS_FIRST("%[a]", "%[a]")                      \
    ZEROS_NO_SECOND("%[a]", "%[b]")                        \
    "str %[v], [%[w]], #4\n\t"
#define NARROW_FOUR                                        \
    FOUR("ldrd %[p], %[q], [%[x]], #8\n\t", NARROW("%[a]", "%[v]", "%[p]"), \
         NARROW("%[b]", "%[z]", "%[q]"))
#define NARROW_TWO TWO("ldr %[p], [%[x]], #4\n\t", NARROW("%[a]", "%[v]", "%[p]"))
#define WIDE_FOUR FOUR("", WIDE("%[a]", "%[v]"), WIDE("%[b]", "%[z]"))
#define WIDE_TWO TWO("", WIDE("%[a]", "%[v]"))
#define RUN_RANDOM(words)                                                                 \
    __asm__ volatile(words : [w] "+r"(w), [x] "+r"(x), [up] "+r"(up), [sum] "+r"(sum),    \
                       [a] "=&r"(a), [b] "=&r"(b), [p] "=&r"(p0), [q] "=&r"(q),           \
                       [v] "=&r"(v), [z] "=&r"(z), [t] "=&r"(t)                           \
                     : [own] "r"(own), [ones] "r"(ONES), [less] "r"(LESS)                 \
                     : "memory")
/* A piece of m of the rows p .. last - 1. Returns how many updates are 0 where x is not. */
#define PIECE_RANDOM(type, four, two)                                                     \
    uint32_t sum = 0;                                                                     \
    int32_t a, b, p0, q, v, z, t;                                                         \
                                                                                          \
    for (; p != last; p++) {                                                              \
        const int32_t own = p->own;                                                       \
        int16_t *w = p->w;                                                                \
        const uint32_t *up = p->by.up;                                                       \
        type x = inputs;                                                                  \
        sum -= zeros;                                                                     \
        if (m == PIECE) {                                                                 \
            RUN_RANDOM(TIMES_8(four four));                                               \
            p->w = w;                                                                     \
            p->by.up = up;                                                                   \
            continue;                                                                     \
        }                                                                                 \
        for (const int16_t *const fours = w + (m & -4); w != fours;) {                    \
            RUN_RANDOM(four);                                                             \
        }                                                                                 \
        if ((m & 2) != 0) {                                                               \
            RUN_RANDOM(two);                                                              \
        }                                                                                 \
    }                                                                                     \
    return 0u - sum;

static __attribute__((noinline)) uint32_t piece_narrow(planned *p, const planned *last,
                                                       const int16_t *inputs, int32_t m,
                                                       uint32_t zeros)
{
    PIECE_RANDOM(const int16_t *, NARROW_FOUR, NARROW_TWO)
}

static __attribute__((noinline)) uint32_t piece_wide(planned *p, const planned *last,
                                                     const int32_t *inputs, int32_t m,
                                                     uint32_t zeros)
{
    PIECE_RANDOM(const int32_t *, WIDE_FOUR, WIDE_TWO)
}

/* What all rows of a layer have in common. */
typedef struct {
    const gle_update *how;
    gle_layer *layer;
    const int16_t *x;
    int32_t shift, m;
    int32_t most;         /* of |x| */
    int32_t reach;        /* largest update that is not clipped */
    uint32_t idle;        /* how many of x are 0 */
    uint32_t of_row;      /* roots */
    int32_t narrow;       /* of rounding at random: all shifts are 16 at most */
    uint32_t rows, under; /* that learn in the fast way; updates that are 0 in them */
    const uint32_t *words; /* of the first row of a chunk, */
    uint32_t so_many;      /* and of each */
    int32_t from;          /* see reach_of */
    uint32_t span;
    uint32_t near;         /* bits of the rows of a chunk that have a weight near its limit */
    gle_update_count *count;
} lesson;

/* |x| of two: into the two largest, how many are 0, and less 1, so that 0 becomes the largest
 * there is, into the smallest and the next of either half. */
#define SEE_INPUTS(two)                                    \
    "ssub16 %[t], %[zero], " two "\n\t" /* -x; GE: not below 0 */ \
    "sel " two ", %[t], " two "\n\t"                       \
    "usub16 %[t], %[most], " two "\n\t"                    \
    "sel %[most], %[most], " two "\n\t"                    \
    "uqsub16 %[t], %[ones], " two "\n\t"                   \
    "add %[zeros], %[zeros], %[t]\n\t"                     \
    "ssub16 " two ", " two ", %[ones]\n\t"                 \
    "usub16 %[t], " two ", %[less]\n\t"                    \
    "sel %[t], " two ", %[less]\n\t"                       \
    "sel %[less], %[less], " two "\n\t"                    \
    "usub16 " two ", %[t], %[next]\n\t"                    \
    "sel %[next], %[next], %[t]\n\t"
#define RUN_INPUTS(words)                                                                 \
    __asm__ volatile(words : [x] "+r"(x), [t] "=&r"(t), [most] "+r"(most),                \
                       [zeros] "+r"(zeros), [less] "+r"(less), [next] "+r"(next)          \
                     : [zero] "r"(0), [ones] "r"(ONES)                                    \
                     : "r4", "r5", "r6", "r8", "cc", "memory")

INLINE int32_t smaller(int32_t a, int32_t b) { return a < b ? a : b; }

/* m inputs, padded to an even number, in pieces. */
static __attribute__((noinline)) void see_inputs(lesson *y, piece *to, const int16_t *x,
                                                 int32_t m)
{
    uint32_t most = 0, t;

    y->idle = 0;
    for (; m > 0; m -= PIECE, to++) {
        const int32_t some = m < PIECE ? m : PIECE, rest = some % 8;
        const int32_t fours = some / 8 * 2 + (y->how->stochastic ? (rest + 2) / 4 : rest / 2);
        const int16_t *const eights = x + some / 8 * 8, *const end = x + some;
        uint32_t zeros = 0, less = 0x7ffe7ffe, next = less;
        int32_t low, high;
        while (x != eights) {
            RUN_INPUTS("ldmia %[x]!, {r4-r6, r8}\n\t" SEE_INPUTS("r4") SEE_INPUTS("r5")
                       SEE_INPUTS("r6") SEE_INPUTS("r8"));
        }
        while (x != end) {
            RUN_INPUTS("ldr r4, [%[x]], #4\n\t" SEE_INPUTS("r4"));
        }
        low = (int32_t)(less & 0xffffu) + 1;
        high = (int32_t)(less >> 16) + 1;
        to->first = smaller(low, high);
        to->second = low + high - to->first;
        to->others = smaller((int32_t)(next & 0xffffu), (int32_t)(next >> 16)) + 1;
        if ((to->second & (to->second - 1)) == 0) {
            to->others = smaller(to->second, to->others);
        }
        if ((to->first & (to->first - 1)) == 0) {
            to->others = to->first;
        }
        zeros = both_halves(zeros);
        y->idle += zeros;
        to->zeros = (uint32_t)(FULL * fours) - zeros;
    }
    y->most = (int32_t)((most & 0xffffu) > most >> 16 ? most & 0xffffu : most >> 16);
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

/* Inputs as words. */
static void widen(int32_t *to, const int16_t *x, int32_t m)
{
    for (int32_t j = 0; j < m; j++) {
        to[j] = x[j] * (1 << WIDE_X);
    }
}

/* A row whose bound does not say that none of its weights reaches the limit. */
static __attribute__((noinline)) void look_at(lesson *y, int32_t row, uint32_t bit, uint16_t *top,
                                              int32_t most)
{
    if (!out_of_reach(top, y->layer->w + row * y->layer->stride, y, most)) {
        y->near |= bit;
    }
}

/* Those of `some` rows from `row` on that learn; returns the end of the plan. Here in general:
 * where updates may be too large for 16 bits a row learns at once. */
static __attribute__((noinline)) planned *plan_any(lesson *y, int32_t row, int32_t some,
                                                   planned *p)
{
    const gle_layer *const layer = y->layer;
    const gle_update *const how = y->how;

    for (int32_t r = 0, i = row; r < some; r++, i++) {
        const int32_t e = layer->e[i], size = e < 0 ? -e : e, reach = size * y->most;
        const int32_t k = y->shift - (layer->rows ? (int32_t)layer->rows[i] : 0);
        const int32_t room = k >= 1 && k <= 30 && size >> (k - 1) == 0; /* for e 2^(32-k) */
        const int32_t most = k >= 1 && k <= 30 ? (reach >> k) + 1 : INT32_MAX;
        int16_t *const w = layer->w + i * layer->stride;
        uint16_t none = (uint16_t)(how->limit + PINNED);
        uint16_t *const top = layer->tops == NULL ? &none : layer->tops + i;
        if (e == 0) {
            continue; /* rounds to nothing either way, and asks for nothing */
        }
        if (most > y->reach || (!room && (!how->stochastic || y->narrow)) ||
            (how->stochastic && !y->narrow && k < WIDE_LEAST)) {
            *top = (uint16_t)how->limit; /* any */
            gle_learn_one_dsp(w, e, y->x, y->m, how, k, (uint32_t)i * y->of_row, y->count);
            continue;
        }
        if (!how->stochastic && reach < 1 << (k - 1)) {
            y->rows++; /* none learns */
            y->under += (uint32_t)y->m - y->idle;
            continue;
        }
        p->own = (int32_t)((uint32_t)e << (!how->stochastic || y->narrow ? 32 - k : 30 - k));
        p->by.nothing = (1 << (k - 1)) / size;
        p->w = w;
        p->by.up = y->words + (uint32_t)r * y->so_many;
        p++;
        if (*top + most <= how->limit) {
            *top = (uint16_t)(*top + most);
        } else {
            look_at(y, i, UINT32_C(1) << r, top, most);
        }
    }
    return p;
}

/* Row r of a chunk whose rows are alike, whatever it is. Returns the end of the plan. */
static __attribute__((noinline)) planned *plan_row(lesson *y, int32_t row, int32_t r, planned *p)
{
    gle_layer *const layer = y->layer;
    const int32_t i = row + r, k = y->shift, stochastic = y->how->stochastic;
    const int32_t e = layer->e[i], size = e < 0 ? -e : e, reach = size * y->most;
    const int32_t most = (reach >> k) + 1;
    int16_t *const w = layer->w + i * layer->stride;
    uint16_t *const top = layer->tops + i;

    if (e != 0 && reach < y->from) {
        y->rows++; /* none learns */
        y->under += (uint32_t)y->m - y->idle;
    } else if (e != 0 && (uint32_t)(reach - y->from) >= y->span) {
        *top = (uint16_t)y->how->limit; /* any */
        gle_learn_one_dsp(w, e, y->x, y->m, y->how, k, (uint32_t)i * y->of_row, y->count);
    } else if (e != 0) {
        p->own = (int32_t)((uint32_t)e << (!stochastic || y->narrow ? 32 - k : 30 - k));
        p->w = w;
        if (stochastic) {
            p->by.up = y->words + (uint32_t)r * y->so_many;
        } else {
            p->by.nothing = y->from / size; /* from is the half */
        }
        p++;
        if (*top + most <= y->how->limit) {
            *top = (uint16_t)(*top + most);
        } else {
            look_at(y, i, UINT32_C(1) << r, top, most);
        }
    }
    return p;
}

/* Where rows are alike: |e| times the largest |x| tells it all. It is to be within y->from and
 * y->span more. */
static void reach_of(lesson *y)
{
    const int32_t k = y->shift, one = 1 << 27; /* |e x| < 2^26 */
    const int32_t room = k > 14 ? one : y->most << (k - 1);
    const int32_t reach = k > 26 ? one : (y->reach < one >> k ? y->reach : one >> k) << k;
    const int32_t end = (!y->how->stochastic || y->narrow) && room < reach ? room : reach;

    y->from = y->how->stochastic ? 1 : 1 << (k - 1);
    y->span = end > y->from ? (uint32_t)(end - y->from) : 0;
}

/* Rows that are alike: those that need nothing special here. */
static __attribute__((noinline)) planned *plan_random(lesson *y, int32_t row, int32_t some,
                                                      planned *p)
{
    gle_layer *const layer = y->layer;
    const int32_t k = y->shift, most = y->most, limit = y->how->limit - 1, stride = layer->stride;
    const int32_t own = y->narrow ? 32 - k : 30 - k;
    const uint32_t so_many = y->so_many, span = y->span;
    const int16_t *const e = layer->e + row;
    uint16_t *const top = layer->tops + row;
    int16_t *w = layer->w + row * stride;
    const uint32_t *up = y->words;

    for (int32_t r = 0; r != some; r++, w += stride, up += so_many) {
        const int32_t one = e[r], sign = one >> 31, reach = ((one ^ sign) - sign) * most;
        const int32_t bound = top[r] + (reach >> k);
        if ((uint32_t)(reach - 1) >= span || bound > limit) {
            p = plan_row(y, row, r, p);
            continue;
        }
        top[r] = (uint16_t)(bound + 1);
        p->own = (int32_t)((uint32_t)one << own);
        p->w = w;
        p->by.up = up;
        p++;
    }
    return p;
}

/* The same for nearest, in assembly, as the compiler spills half of this. */
static __attribute__((noinline)) planned *plan_nearest(lesson *y, int32_t row, int32_t some,
                                                       planned *p)
{
    gle_layer *const layer = y->layer;
    const int16_t *e = layer->e + row;
    const int16_t *const begin = e, *const end = e + some;
    const int32_t apart = (int32_t)((uintptr_t)(layer->tops + row) - (uintptr_t)e);
    const int32_t step = 2 * layer->stride, limit = y->how->limit;
    register int16_t *w __asm__("r5") = layer->w + row * layer->stride;
    register int32_t one __asm__("r4"), size __asm__("r6");
    int32_t reach, t;

    while (e != end) {
        __asm__ volatile(
            "1:\n\t"
            "ldrsh %[one], [%[e]]\n\t"
            "eor %[size], %[one], %[one], asr #31\n\t"
            "sub %[size], %[size], %[one], asr #31\n\t"
            "mul %[reach], %[size], %[most]\n\t"
            "sub %[t], %[reach], %[from]\n\t"
            "cmp %[t], %[span]\n\t"
            "bhs 2f\n\t"
            "ldrh %[t], [%[e], %[apart]]\n\t"
            "asr %[reach], %[reach], %[k]\n\t"
            "add %[t], %[t], #1\n\t"
            "add %[t], %[t], %[reach]\n\t"
            "ldr %[reach], %[limit]\n\t"
            "cmp %[t], %[reach]\n\t"
            "bgt 2f\n\t"
            "strh %[t], [%[e], %[apart]]\n\t"
            "rsb %[t], %[k], #32\n\t"
            "lsl %[one], %[one], %[t]\n\t"
            "udiv %[size], %[from], %[size]\n\t"
            "stmia %[p]!, {%[one], %[w], %[size]}\n\t"
            "ldr %[t], %[step]\n\t"
            "ldr %[reach], %[end]\n\t"
            "add %[w], %[w], %[t]\n\t"
            "add %[e], %[e], #2\n\t"
            "cmp %[e], %[reach]\n\t"
            "bne 1b\n"
            "2:\n\t"
            : [e] "+r"(e), [p] "+r"(p), [w] "+r"(w), [one] "=&r"(one), [size] "=&r"(size),
              [reach] "=&r"(reach), [t] "=&r"(t)
            : [most] "r"(y->most), [from] "r"(y->from), [span] "r"(y->span), [k] "r"(y->shift),
              [apart] "r"(apart), [limit] "m"(limit), [step] "m"(step), [end] "m"(end)
            : "cc", "memory");
        if (e != end) {
            p = plan_row(y, row, (int32_t)(e - begin), p);
            w += layer->stride;
            e++;
        }
    }
    return p;
}

/* As planned. wide: the inputs as words, where that is how they are taken. */
static void learn_rows(lesson *y, planned *plan, const planned *last, const piece *some,
                       const int32_t *wide, int32_t m)
{
    const int16_t *x = y->x;

    for (; m > 0; m -= PIECE, x += PIECE, wide += PIECE, some++) {
        const int32_t now = m < PIECE ? m : PIECE;
        if (y->how->stochastic) {
            y->under += y->narrow ? piece_narrow(plan, last, x, now, some->zeros)
                                  : piece_wide(plan, last, wide, now, some->zeros);
        } else if (now == PIECE) {
            y->under += piece_nearest(plan, last, x, some);
        } else {
            y->under += rest_nearest(plan, last, x, now, some);
        }
    }
}

void gle_learn_layer_dsp(gle_layer *layer, const int16_t *x, const gle_update *how, int32_t shift,
                         int32_t *scratch, gle_update_count *count)
{
    enum { CHUNK = 32 }; /* bits of y.near */
    const int32_t m = (layer->m + 1) & -2, least = shift - (layer->rows ? 7 : 0);
    const int32_t pieces = (m + PIECE - 1) / PIECE * (int32_t)(sizeof(piece) / sizeof *scratch);
    const int32_t narrow = how->stochastic && least >= 1 && shift <= 16;
    piece *const some = (piece *)scratch;
    int32_t *const wide = scratch + pieces;
    uint32_t few[GLE_RNG_WORDS], *words = narrow ? (uint32_t *)wide : (uint32_t *)wide + m;
    lesson y = {.how = how, .layer = layer, .x = x, .shift = shift, .m = layer->m,
                .reach = how->most < INT16_MAX ? how->most : INT16_MAX,
                .of_row = gle_rng_roots(layer->m), .narrow = narrow, .words = words,
                .count = count};
    const int alike = layer->rows == NULL && layer->tops != NULL && shift >= 1 && shift <= 30 &&
                      (!how->stochastic || narrow || shift >= WIDE_LEAST);
    int32_t chunk = CHUNK;
    planned plan[CHUNK];

    y.so_many = y.of_row * GLE_RNG_WORDS;
    see_inputs(&y, some, x, m);
    y.idle -= (uint32_t)(m - layer->m); /* padding */
    if (alike) {
        reach_of(&y);
    }
    if (how->stochastic) { /* a root may have more than all the scratch of rows of two */
        const int32_t left = 4 * layer->stride - pieces - (narrow ? 0 : m);
        const int32_t fit = left / (int32_t)y.so_many;
        y.words = fit <= 0 ? few : words;
        words = fit <= 0 ? few : words;
        chunk = fit <= 0 ? 1 : fit < CHUNK ? fit : CHUNK;
        if (!narrow) {
            widen(wide, x, m);
        }
    }
    for (int32_t i = 0; i < layer->n; i += chunk) {
        const int32_t rows = layer->n - i < chunk ? layer->n - i : chunk;
        const planned *last;
        y.near = 0;
        last = !alike ? plan_any(&y, i, rows, plan)
                      : (how->stochastic ? plan_random : plan_nearest)(&y, i, rows, plan);
        if (last == plan) {
            continue;
        }
        y.rows += (uint32_t)(last - plan);
        if (how->stochastic) {
            draw_words(words, (uint32_t)i * y.of_row, (uint32_t)rows * y.of_row, how->key);
        }
        learn_rows(&y, plan, last, some, wide, m);
        for (int16_t *w = layer->w + i * layer->stride; y.near != 0; y.near >>= 1) {
            if ((y.near & 1u) != 0) {
                count->clipped += clip_row(w, y.m, how->limit);
            }
            w += layer->stride;
        }
    }
    count->asked += y.rows * ((uint32_t)y.m - y.idle);
    count->under += y.under;
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
