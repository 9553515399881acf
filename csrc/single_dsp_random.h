/* Updates at random, for rows that are planned, with the DSP extension: the random bits of
 * rng.h, those of a row and more at a time, and what is done with them. */
#ifndef GLE_SINGLE_DSP_RANDOM_H
#define GLE_SINGLE_DSP_RANDOM_H

#include "rng.h"
#include "single_dsp_rows.h"

/* Words of a root: two weights each. */
enum { GLE_RNG_WORDS = GLE_RNG_SHARE / 2 };

/* A root in t and its words. For indices within 2^16 of each other index and key give the first
 * mixing as one exclusive or; the second key goes into a multiply-accumulate. */
#define ROOT                                       \
    "eor %[t], %[index], %[mixed]\n\t"             \
    "add %[index], %[index], #1\n\t"               \
    "mul %[t], %[t], %[c1]\n\t"                    \
    "eor %[t], %[t], %[t], lsr #15\n\t"            \
    "mla %[t], %[t], %[c2], %[bc2]\n\t"            \
    "eor %[t], %[t], %[t], lsr #16\n\t"
#define WORD(r) "eor " r ", %[t], %[t], lsr #15\n\t"
#define NEXT(r)                                    \
    "mul %[t], %[t], %[f]\n\t" WORD(r)
#define KEEP "stmia %[to]!, {r4-r6, r8}\n\t"
#define DRAW                                                        \
    ROOT WORD("r4") NEXT("r5") NEXT("r6") NEXT("r8") KEEP           \
    NEXT("r4") NEXT("r5") NEXT("r6") NEXT("r8") KEEP
#define RUN_DRAW(words)                                                                     \
    __asm__ volatile(words : [to] "+r"(to), [index] "+r"(index), [t] "=&r"(t)               \
                     : [mixed] "r"(mixed), [c1] "r"(c1), [c2] "r"(c2), [bc2] "r"(bc2),      \
                       [f] "r"(GLE_RNG_FACTOR)                                              \
                     : "r4", "r5", "r6", "r8", "memory")

/* The words of `count` roots from `index` on. */
static __attribute__((noinline)) void draw_words(uint32_t *to, uint32_t index, uint32_t count,
                                                 gle_key key)
{
    const uint32_t c1 = UINT32_C(0x7feb352d), c2 = UINT32_C(0x846ca68b);
    const uint32_t mixed = key.a ^ (index ^ key.a) >> 16, bc2 = key.b * c2, last = index + count;
    uint32_t t;

    if ((index ^ (last - 1)) >> 16 != 0) { /* one by one: each in a block of its own */
        for (uint32_t k = 0; k < count; k++) {
            draw_words(to + k * GLE_RNG_WORDS, index + k, 1, key);
        }
        return;
    }
    if ((count & 1u) != 0) {
        RUN_DRAW(DRAW);
    }
    while (index != last) {
        RUN_DRAW(DRAW DRAW);
    }
}

/* Inputs as words, for rounding at random: e 2^(30-k) fits for k of 12 and more, whatever e of 14
 * bits, and the upper word of its product with an input 2^18 x is e x 2^(16-k). */
enum { WIDE_X = 18, WIDE_LEAST = 12 };

/* Inputs as words. */
static void widen(int32_t *to, const int16_t *x, int32_t m)
{
    for (int32_t j = 0; j < m; j++) {
        to[j] = x[j] * (1 << WIDE_X);
    }
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

#endif
