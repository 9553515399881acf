/* Products of one stream on a microcontroller with the DSP extension (Cortex-M4, M7, M33):
 * SMLALD adds two products of 16 bits to a sum of 64, which no layer can overflow, so that
 * nothing is ever spilled. The same integers as matvec_scalar.c; updates: single_dsp_learn.c.
 *
 * Rows of weights are padded to pairs with a zero, and arrays begin at multiples of 8 bytes:
 * a pair is one aligned word, and behind the last of an odd number stands a zero.
 *
 * What counts is the number of instructions: four words a load (LDM), whole groups in
 * assembly, as the compiler loads word by word. For w_shift 2 a weight is seen as
 * (w + 2) & ~3, which is 4 round(w / 4): one addition and one mask for a pair, and the sum is
 * shifted once at its end, exactly. |w| <= 32764 (image.c), so that w + 2 fits.
 */
#include "single.h"

#if defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_SIMD32)

#include <arm_acle.h>

#include "single_dsp.h"

enum { SEEN_HALF = 0x00020002, SEEN_MASK = 0x00030003, GROUP = 32 };

/* Two weights, times 2^shift, as the array sees them; shift is 0 or 2. */
INLINE int32_t seen2(int32_t two, const int32_t shift)
{
    return shift == 2 ? __sadd16(two, SEEN_HALF) & ~SEEN_MASK : two;
}

/* Eight weights, as the array sees them for w_shift 2: half, and half of that. */
#define SEEN_EIGHT                             \
    "ldmia %[w]!, {r4-r6, r8}\n\t"             \
    "shadd16 r4, r4, %[half]\n\t"              \
    "shadd16 r5, r5, %[half]\n\t"              \
    "shadd16 r6, r6, %[half]\n\t"              \
    "shadd16 r8, r8, %[half]\n\t"              \
    "shadd16 r4, r4, %[zero]\n\t"              \
    "shadd16 r5, r5, %[zero]\n\t"              \
    "shadd16 r6, r6, %[zero]\n\t"              \
    "shadd16 r8, r8, %[zero]\n\t"              \
    "stmia %[seen]!, {r4-r6, r8}\n\t"
#define RUN_SEEN(eights)                                                \
    __asm__ volatile(eights : [w] "+r"(w), [seen] "+r"(seen)            \
                     : [half] "r"(SEEN_HALF), [zero] "r"(0)             \
                     : "r4", "r5", "r6", "r8", "memory")

static void see_quarters(int16_t *seen, const int16_t *w, int32_t m)
{
    const int16_t *const end = w + m, *const eights = w + (m & -8), *const groups = w + (m & -32);

    while (w != groups) {
        RUN_SEEN(SEEN_EIGHT SEEN_EIGHT SEEN_EIGHT SEEN_EIGHT);
    }
    while (w != eights) {
        RUN_SEEN(SEEN_EIGHT);
    }
    for (; w < end; w += 2, seen += 2) {
        pair_to(seen, __shadd16(__shadd16(pair_at(w), SEEN_HALF), 0));
    }
}

void gle_see_one_dsp(int16_t *seen, const int16_t *w, int32_t m, const gle_seeing *how,
                     const uint32_t *gains)
{
    if (gains == NULL && how->w_shift == 2 && how->w_left == 0) {
        see_quarters(seen, w, m);
    } else {
        gle_see_one(seen, w, m, how, gains);
    }
}

/* From an exact sum, 2^see times too large, to the result: shift and see are one shift. */
typedef struct {
    int32_t shift, see;
    uint32_t k, rest, half, quarter, whole;
} rounding;

static rounding rounding_of(int32_t shift, int32_t see)
{
    const int32_t k = shift + see;
    rounding y = {shift, see, 0, 0, 0, 0, 0}; /* whole 0: none of what follows is within */

    if (shift >= 1 && k >= 2 && k <= 31) {
        y.k = (uint32_t)k;
        y.rest = (uint32_t)(32 - k);
        y.half = UINT32_C(1) << (k - 1);
        y.quarter = y.half >> 1;
        y.whole = y.half;
    }
    return y;
}

static __attribute__((noinline)) int32_t rounded_far(int64_t sum, const rounding *y)
{
    return gle_clamp64(gle_round64(sum >> y->see, y->shift), GLE_SUM_MAX);
}

/* No 64-bit shift on a board, see gle_scale. */
INLINE int32_t rounded(int64_t sum, const rounding *y)
{
    const uint64_t up = (uint64_t)sum + y->half;
    const uint32_t low = (uint32_t)up, high = (uint32_t)(up >> 32);

    if (high + y->quarter < y->whole) { /* below 2^30 */
        return (int32_t)(low >> y->k | high << y->rest);
    }
    return rounded_far(sum, y);
}

#define EIGHT_0                               \
    "ldmia %[w]!, {r4-r6, r8}\n\t"            \
    "ldmia %[x]!, {r9-r12}\n\t"               \
    "smlald %Q[sum], %R[sum], r4, r9\n\t"     \
    "smlald %Q[sum], %R[sum], r5, r10\n\t"    \
    "smlald %Q[sum], %R[sum], r6, r11\n\t"    \
    "smlald %Q[sum], %R[sum], r8, r12\n\t"
#define SEE(r)                                \
    "sadd16 " r ", " r ", %[half]\n\t"        \
    "bic " r ", " r ", #0x00030003\n\t"
#define EIGHT_2                               \
    "ldmia %[w]!, {r4-r6, r8}\n\t"            \
    "ldmia %[x]!, {r9-r12}\n\t"               \
    SEE("r4") SEE("r5") SEE("r6") SEE("r8")   \
    "smlald %Q[sum], %R[sum], r4, r9\n\t"     \
    "smlald %Q[sum], %R[sum], r5, r10\n\t"    \
    "smlald %Q[sum], %R[sum], r6, r11\n\t"    \
    "smlald %Q[sum], %R[sum], r8, r12\n\t"
#define EIGHTS "r4", "r5", "r6", "r8", "r9", "r10", "r11", "r12", "memory"

#define ROW_0(eights) \
    __asm__ volatile(eights : [sum] "+r"(sum), [w] "+r"(w), [x] "+r"(x)::EIGHTS)
#define ROW_2(eights)                                             \
    __asm__ volatile(eights                                       \
                     : [sum] "+r"(sum), [w] "+r"(w), [x] "+r"(x)  \
                     : [half] "r"(SEEN_HALF)                      \
                     : EIGHTS)

/* The exact sum of a row, times 2^see. */
INLINE int64_t row_sum(const int16_t *w, const int16_t *x, int32_t stride, const int32_t see)
{
    const int16_t *const end = w + stride, *const eights = w + (stride & -8);
    const int16_t *const groups = w + (stride & -GROUP);
    int64_t sum = 0;

    while (w != groups) {
        if (see == 0) {
            ROW_0(EIGHT_0 EIGHT_0 EIGHT_0 EIGHT_0);
        } else {
            ROW_2(EIGHT_2 EIGHT_2 EIGHT_2 EIGHT_2);
        }
    }
    while (w != eights) {
        if (see == 0) {
            ROW_0(EIGHT_0);
        } else {
            ROW_2(EIGHT_2);
        }
    }
    for (; w != end; w += 2, x += 2) {
        sum = __smlald(seen2(pair_at(w), see), pair_at(x), sum);
    }
    return sum;
}

static __attribute__((noinline)) int64_t row_sum_0(const int16_t *w, const int16_t *x,
                                                   int32_t stride)
{
    return row_sum(w, x, stride, 0);
}

static __attribute__((noinline)) int64_t row_sum_2(const int16_t *w, const int16_t *x,
                                                   int32_t stride)
{
    return row_sum(w, x, stride, 2);
}

/* Whether the kernels here can multiply with what the layer has. */
static int can(const gle_layer *layer, int32_t see)
{
    return (see == 0 || see == 2) &&
           (layer->seen != layer->w || (layer->gains == NULL && layer->image->w_left == 0));
}

void gle_product_one_dsp(int32_t *out, const gle_layer *layer, const int16_t *x, int32_t shift)
{
    const int32_t see = gle_single_shift(layer), stride = layer->stride;
    int32_t *const end = out + layer->n;
    const uint32_t *rows = layer->rows;
    const int16_t *w = gle_single_weights(layer);
    rounding how = rounding_of(shift, see);

    if (!can(layer, see)) {
        gle_product_one(out, layer, x, shift);
        return;
    }
    for (; out != end; out++, w += stride) {
        const int64_t sum = see == 0 ? row_sum_0(w, x, stride) : row_sum_2(w, x, stride);
        if (rows != NULL) {
            how = rounding_of(shift + (int32_t)*rows++, see);
        }
        *out = rounded(sum, &how);
    }
}

/* Two columns of two rows in r4 and r5: their halves side by side, times two errors. */
#define ADD_ROWS(e)                            \
    "pkhbt r8, r4, r5, lsl #16\n\t"            \
    "pkhtb r5, r5, r4, asr #16\n\t"            \
    "smlald %Q[s0], %R[s0], r8, " e "\n\t"     \
    "smlald %Q[s1], %R[s1], r5, " e "\n\t"
#define LOAD_BOTH                              \
    "ldr r4, [%[w]]\n\t"                       \
    "ldr r5, [%[w], %[next]]\n\t"
#define TWO_ROWS(see)                          \
    LOAD_BOTH                                  \
    "add %[w], %[w], %[next], lsl #1\n\t"      \
    "ldr r6, [%[e]], #4\n\t" see ADD_ROWS("r6")
#define FOUR_ROWS_0                            \
    "ldrd r6, r9, [%[e]], #8\n\t"              \
    LOAD_BOTH ADD_ROWS("r6")                   \
    "ldr r4, [%[w], %[next], lsl #1]\n\t"      \
    "ldr r5, [%[w], %[next3]]\n\t"             \
    "add %[w], %[w], %[next], lsl #2\n\t"      \
    ADD_ROWS("r9")
/* Here no register is left for three rows ahead. */
#define FOUR_ROWS_2                            \
    "ldrd r6, r9, [%[e]], #8\n\t"              \
    LOAD_BOTH SEE_BOTH ADD_ROWS("r6")          \
    "add %[w], %[w], %[next], lsl #1\n\t"      \
    LOAD_BOTH SEE_BOTH ADD_ROWS("r9")          \
    "add %[w], %[w], %[next], lsl #1\n\t"
#define SEE_BOTH SEE("r4") SEE("r5")
#define ROWS_0(rows)                                                                     \
    __asm__ volatile(rows : [s0] "+r"(s0), [s1] "+r"(s1), [w] "+r"(w), [e] "+r"(e)       \
                     : [next] "r"(next), [next3] "r"(3 * next)                           \
                     : "r4", "r5", "r6", "r8", "r9", "memory")
#define ROWS_2(rows)                                                                     \
    __asm__ volatile(rows : [s0] "+r"(s0), [s1] "+r"(s1), [w] "+r"(w), [e] "+r"(e)       \
                     : [next] "r"(next), [half] "r"(SEEN_HALF)                           \
                     : "r4", "r5", "r6", "r8", "r9", "memory")

/* n rows, `next` bytes from each other; s: the exact sums of two columns, times 2^see. */
INLINE void two_columns(int64_t *s, const int16_t *w, const int16_t *e, int32_t n, int32_t next,
                        const int32_t see)
{
    const int16_t *const fours = e + (n & -4), *const groups = e + (n & -16);
    int64_t s0 = 0, s1 = 0;

    while (e != groups) {
        if (see == 0) {
            ROWS_0(FOUR_ROWS_0 FOUR_ROWS_0 FOUR_ROWS_0 FOUR_ROWS_0);
        } else {
            ROWS_2(FOUR_ROWS_2 FOUR_ROWS_2 FOUR_ROWS_2 FOUR_ROWS_2);
        }
    }
    while (e != fours) {
        if (see == 0) {
            ROWS_0(FOUR_ROWS_0);
        } else {
            ROWS_2(FOUR_ROWS_2);
        }
    }
    if ((n & 2) != 0) {
        if (see == 0) {
            ROWS_0(TWO_ROWS());
        } else {
            ROWS_2(TWO_ROWS(SEE_BOTH));
        }
    }
    if ((n & 1) != 0) {
        const int32_t a = seen2(pair_at(w), see);
        s0 = __smlald(a & 0xffff, *e, s0);
        s1 = __smlald((int32_t)((uint32_t)a >> 16), *e, s1);
    }
    s[0] = s0;
    s[1] = s1;
}

static __attribute__((noinline)) void two_columns_0(int64_t *s, const int16_t *w,
                                                    const int16_t *e, int32_t n, int32_t next)
{
    two_columns(s, w, e, n, next, 0);
}

static __attribute__((noinline)) void two_columns_2(int64_t *s, const int16_t *w,
                                                    const int16_t *e, int32_t n, int32_t next)
{
    two_columns(s, w, e, n, next, 2);
}

void gle_product_one_back_dsp(int32_t *out, const gle_layer *layer, int32_t shift)
{
    const int32_t see = gle_single_shift(layer);
    const int32_t n = layer->n, m = layer->m, next = 2 * layer->stride;
    const rounding how = rounding_of(shift, see);
    const int16_t *w = gle_single_weights(layer), *const e = layer->e;
    int64_t s[2];

    if (layer->rows != NULL || !can(layer, see)) {
        gle_product_one_back(out, layer, shift);
        return;
    }
    for (int32_t j = 0; j < m; j += 2, w += 2) {
        if (see == 0) {
            two_columns_0(s, w, e, n, next);
        } else {
            two_columns_2(s, w, e, n, next);
        }
        out[j] = rounded(s[0], &how);
        if (j + 1 < m) {
            out[j + 1] = rounded(s[1], &how);
        }
    }
}

#else
typedef int gle_no_single_dsp; /* ISO C wants one declaration a file */
#endif
