/* Random words for stochastic rounding with the DSP extension: those of rng.h, many at a time. */
#ifndef GLE_SINGLE_DSP_RANDOM_H
#define GLE_SINGLE_DSP_RANDOM_H

#include "rng.h"

/* Words at a time, and what is drawn for them at most: whole fours. */
enum { GLE_PIECE = 64, GLE_DRAWN = GLE_PIECE + 8 };

/* gle_rng(key, index) >> rest for indices within 2^16 of each other: there index and key give
 * the first mixing as one exclusive or, which eight indices in a row share but for their last
 * bits, and the second key goes into a multiply-accumulate. */
#define RANDOM(t, k)                               \
    "eor " t ", %[base], #" k "\n\t"               \
    "mul " t ", " t ", %[c1]\n\t"                  \
    "eor " t ", " t ", " t ", lsr #15\n\t"         \
    "mla " t ", " t ", %[c2], %[bc2]\n\t"          \
    "eor " t ", " t ", " t ", lsr #16\n\t"         \
    "mul " t ", " t ", %[first]\n\t"               \
    "eor " t ", " t ", " t ", lsr #15\n\t"         \
    "lsr " t ", " t ", %[rest]\n\t"
#define RANDOM_FOUR(k0, k1, k2, k3)                                               \
    RANDOM("r4", k0) RANDOM("r5", k1) RANDOM("r6", k2) RANDOM("r8", k3)           \
    "stmia %[to]!, {r4-r6, r8}\n\t"
#define RANDOM_LOW RANDOM_FOUR("0", "1", "2", "3")
#define RANDOM_HIGH RANDOM_FOUR("4", "5", "6", "7")
#define DRAW(index, words)                                                                \
    __asm__ volatile(words : [to] "+r"(to)                                                \
                     : [base] "r"((index) ^ mixed), [c1] "r"(c1), [c2] "r"(c2),           \
                       [bc2] "r"(bc2), [first] "r"(GLE_RNG_FIRST), [rest] "r"(rest) \
                     : "r4", "r5", "r6", "r8", "memory")

/* `count` of them, at most GLE_PIECE, from `first` on; returns where in `to`, which has room
 * for GLE_DRAWN, they begin. */
static __attribute__((noinline)) const uint32_t *random_words(uint32_t *to, uint32_t count,
                                                              gle_key key, uint32_t first,
                                                              uint32_t rest)
{
    const uint32_t c1 = UINT32_C(0x7feb352d), c2 = UINT32_C(0x846ca68b);
    const uint32_t mixed = key.a ^ (first ^ key.a) >> 16, bc2 = key.b * c2, last = first + count;
    const uint32_t *const begin = to + (first & 3u);
    uint32_t index = first & ~UINT32_C(7);

    if ((first ^ last) >> 16 != 0) {
        for (uint32_t k = 0; k < count; k++) {
            to[k] = gle_rng(key, first + k) >> rest;
        }
        return to;
    }
    if ((first & 4u) != 0) {
        DRAW(index, RANDOM_HIGH);
        index += 8;
    }
    for (; index + 4 < last; index += 8) {
        DRAW(index, RANDOM_LOW RANDOM_HIGH);
    }
    if (index < last) {
        DRAW(index, RANDOM_LOW);
    }
    return begin;
}

#endif
