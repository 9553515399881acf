/* What clips weights that have learned, and bounds of rows that say that nothing can. */
#ifndef GLE_SINGLE_DSP_BOUNDS_H
#define GLE_SINGLE_DSP_BOUNDS_H

#include "fixed.h"
#include "single_dsp_rows.h"

/* Steps that a row near its limit is not looked at again. */
enum { PINNED = 16 };

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
static __attribute__((noinline)) int out_of_reach(uint16_t *top, const int16_t *w, int32_t m,
                                                  int32_t limit, int32_t most)
{
    if (*top > limit) {
        (*top)--;
        return 0;
    }
    *top = (uint16_t)largest(w, m);
    if (*top + most > limit) {
        *top = (uint16_t)(limit + PINNED);
        return 0;
    }
    *top = (uint16_t)(*top + most);
    return 1;
}

#endif
