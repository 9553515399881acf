/* Random bits for stochastic rounding with the DSP extension: those of rng.h, a row and more at
 * a time. */
#ifndef GLE_SINGLE_DSP_RANDOM_H
#define GLE_SINGLE_DSP_RANDOM_H

#include "rng.h"

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

#endif
