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

enum { SEEN_HALF = 0x00020002, SEEN_MASK = 0x00030003, GROUP = 16 };

/* Two weights, times 2^shift, as the array sees them; shift is 0 or 2. */
INLINE int32_t seen2(int32_t two, const int32_t shift)
{
    return shift == 2 ? __sadd16(two, SEEN_HALF) & ~SEEN_MASK : two;
}

INLINE int32_t low_halves(int32_t a, int32_t b)
{
    return (int32_t)(((uint32_t)a & 0xffffu) | (uint32_t)b << 16);
}

INLINE int32_t high_halves(int32_t a, int32_t b)
{
    return (int32_t)((uint32_t)a >> 16 | ((uint32_t)b & 0xffff0000u));
}

INLINE int32_t stored(int64_t sum, int32_t shift)
{
    return gle_clamp64(gle_round64(sum, shift), GLE_SUM_MAX);
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

/* The exact sum of a row, times 2^see. */
INLINE int64_t row_sum(const int16_t *w, const int16_t *x, int32_t stride, const int32_t see)
{
    const int16_t *const end = w + stride, *const groups = w + (stride & -GROUP);
    int64_t sum = 0;

    while (w != groups) {
        if (see == 0) {
            __asm__ volatile(EIGHT_0 EIGHT_0 : [sum] "+r"(sum), [w] "+r"(w), [x] "+r"(x)::EIGHTS);
        } else {
            __asm__ volatile(EIGHT_2 EIGHT_2
                             : [sum] "+r"(sum), [w] "+r"(w), [x] "+r"(x)
                             : [half] "r"(SEEN_HALF)
                             : EIGHTS);
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

void gle_product_one_dsp(int32_t *out, const gle_layer *layer, const int16_t *x, int32_t shift)
{
    const int32_t see = gle_single_shift(layer), stride = layer->stride, n = layer->n;
    const uint32_t *const rows = layer->rows;
    const int16_t *w = gle_single_weights(layer);

    if ((layer->seen == layer->w && (layer->gains != NULL || layer->image->w_left != 0)) ||
        (see != 0 && see != 2)) {
        gle_product_one(out, layer, x, shift);
        return;
    }
    for (int32_t i = 0; i < n; i++, w += stride) {
        const int64_t sum = see == 0 ? row_sum_0(w, x, stride) : row_sum_2(w, x, stride) >> 2;
        out[i] = stored(sum, shift + (rows != NULL ? (int32_t)rows[i] : 0));
    }
}

/* Four columns of two rows: their halves side by side, times two errors. A weight is seen as
 * ((w + 2) >> 1) & ~1, which is 2 round(w / 4). */
#define LOAD_ROWS                              \
    "ldrd r4, r5, [%[w]]\n\t"                  \
    "add %[w], %[w], %[next]\n\t"              \
    "ldrd r6, r8, [%[w]]\n\t"                  \
    "add %[w], %[w], %[next]\n\t"              \
    "ldr r9, [%[e]], #4\n\t"
#define ADD_ROWS                               \
    "pkhbt r10, r4, r6, lsl #16\n\t"           \
    "pkhtb r4, r6, r4, asr #16\n\t"            \
    "smlad %[s0], r10, r9, %[s0]\n\t"          \
    "smlad %[s1], r4, r9, %[s1]\n\t"           \
    "pkhbt r10, r5, r8, lsl #16\n\t"           \
    "pkhtb r5, r8, r5, asr #16\n\t"            \
    "smlad %[s2], r10, r9, %[s2]\n\t"          \
    "smlad %[s3], r5, r9, %[s3]\n\t"
#define HALVE(r)                               \
    "shadd16 " r ", " r ", %[half]\n\t"        \
    "bic " r ", " r ", #0x00010001\n\t"
#define ROWS_0 LOAD_ROWS ADD_ROWS
#define ROWS_2 LOAD_ROWS HALVE("r4") HALVE("r5") HALVE("r6") HALVE("r8") ADD_ROWS
#define SUMS [s0] "+r"(s[0]), [s1] "+r"(s[1]), [s2] "+r"(s[2]), [s3] "+r"(s[3])
#define RUN(rows, half)                                                 \
    __asm__ volatile(rows : SUMS, [w] "+r"(w), [e] "+r"(e)              \
                     : [next] "r"(next), half                           \
                     : "r4", "r5", "r6", "r8", "r9", "r10", "memory")

/* `rows`, even, of four columns. At most 32, or 16 where they are seen, so that sums fit:
 * 32 8191^2 and 16 8191^2 2 are less than 2^31. */
INLINE void four_columns(int32_t *sums, const int16_t *w, const int16_t *e, int32_t rows,
                         int32_t next, const int32_t see)
{
    const int16_t *const end = e + rows, *const fours = e + (rows & -8);
    int32_t s[4] = {0, 0, 0, 0};

    while (e != fours) {
        if (see == 0) {
            RUN(ROWS_0 ROWS_0 ROWS_0 ROWS_0, "r"(0));
        } else {
            RUN(ROWS_2 ROWS_2 ROWS_2 ROWS_2, [half] "r"(SEEN_HALF));
        }
    }
    while (e != end) {
        if (see == 0) {
            RUN(ROWS_0, "r"(0));
        } else {
            RUN(ROWS_2, [half] "r"(SEEN_HALF));
        }
    }
    for (int32_t k = 0; k < 4; k++) {
        sums[k] = s[k];
    }
}

static __attribute__((noinline)) void four_columns_0(int32_t *sums, const int16_t *w,
                                                     const int16_t *e, int32_t rows, int32_t next)
{
    four_columns(sums, w, e, rows, next, 0);
}

static __attribute__((noinline)) void four_columns_2(int32_t *sums, const int16_t *w,
                                                     const int16_t *e, int32_t rows, int32_t next)
{
    four_columns(sums, w, e, rows, next, 2);
}

/* Two columns from row i on, added to s[2], times 2^see. */
INLINE void two_columns(int64_t *s, const gle_layer *layer, const int16_t *w, int32_t i,
                        const int32_t see)
{
    const int32_t stride = layer->stride, n = layer->n;

    for (w += i * stride; i < n; i += 2, w += 2 * stride) {
        const int32_t a = seen2(pair_at(w), see);
        const int32_t b = i + 1 < n ? seen2(pair_at(w + stride), see) : 0;
        const int32_t two = pair_at(layer->e + i);
        s[0] = __smlald(low_halves(a, b), two, s[0]);
        s[1] = __smlald(high_halves(a, b), two, s[1]);
    }
}

static void back(int32_t *out, const gle_layer *layer, int32_t by, const int32_t see)
{
    const int16_t *const w = gle_single_weights(layer);
    const int32_t stride = layer->stride, m = layer->m, even = layer->n & -2;
    const int32_t most = see == 0 ? 32 : 16;
    int32_t j = 0;

    for (; j + 4 <= stride; j += 4) {
        int64_t s[4] = {0, 0, 0, 0}, rest[4] = {0, 0, 0, 0};
        for (int32_t i = 0; i < even; i += most) {
            const int16_t *const from = w + i * stride + j;
            const int32_t rows = even - i < most ? even - i : most;
            int32_t part[4];
            if (see == 0) {
                four_columns_0(part, from, layer->e + i, rows, 2 * stride);
            } else {
                four_columns_2(part, from, layer->e + i, rows, 2 * stride);
            }
            for (int32_t k = 0; k < 4; k++) {
                s[k] += part[k];
            }
        }
        if (even != layer->n) {
            two_columns(rest, layer, w + j, even, see);
            two_columns(rest + 2, layer, w + j + 2, even, see);
        }
        for (int32_t k = 0; k < 4 && j + k < m; k++) {
            const int64_t sum = see == 0 ? s[k] + rest[k] : (s[k] * 2 + rest[k]) >> 2;
            out[j + k] = stored(sum, by);
        }
    }
    if (j < m) {
        int64_t s[2] = {0, 0};
        two_columns(s, layer, w + j, 0, see);
        for (int32_t k = 0; k < 2 && j + k < m; k++) {
            out[j + k] = stored(s[k] >> see, by);
        }
    }
}

void gle_product_one_back_dsp(int32_t *out, const gle_layer *layer, int32_t shift)
{
    const int32_t see = gle_single_shift(layer);

    if (layer->rows != NULL || (see != 0 && see != 2) ||
        (layer->seen == layer->w && (layer->gains != NULL || layer->image->w_left != 0))) {
        gle_product_one_back(out, layer, shift);
    } else {
        back(out, layer, shift, see);
    }
}

#else
typedef int gle_no_single_dsp; /* ISO C wants one declaration a file */
#endif
