/* Updates to nearest, for rows that are planned, with the DSP extension. */
#ifndef GLE_SINGLE_DSP_NEAREST_H
#define GLE_SINGLE_DSP_NEAREST_H

#include "single_dsp_rows.h"

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

#endif
