/* The kernels in plain C: what every other table must equal, bit for bit.
 *
 * Products of 14-bit factors are added up to GLE_EXACT at a time in int32, then in
 * int64; the sum is exact and is rounded once.
 */
#include "kernels.h"

#include "neurons.h"

static void product(int32_t *out, const int16_t *w, int32_t stride, int32_t n, int32_t m,
                    const int16_t *pairs, int32_t columns, int32_t shift, int32_t fits)
{
    (void)fits;
    for (int32_t i = 0; i < n; i++) {
        const int16_t *row = w + (size_t)i * (size_t)stride;
        for (int32_t b = 0; b < columns; b++) {
            int64_t sum = 0;
            for (int32_t j = 0; j < m; j++) {
                const size_t at = ((size_t)(j / 2) * (size_t)columns + (size_t)b) * 2;
                sum += (int32_t)row[j] * pairs[at + (size_t)(j & 1)];
            }
            out[(size_t)i * (size_t)columns + (size_t)b] =
                gle_clamp64(gle_round64(sum, shift), GLE_SUM_MAX);
        }
    }
}

static void outer(int32_t *out, const int16_t *e, int32_t rows, const int16_t *turned,
                  int32_t stride, int32_t m, int32_t columns, int32_t shift)
{
    for (int32_t i = 0; i < rows; i++) {
        const int16_t *error = e + (size_t)i * (size_t)columns;
        for (int32_t j = 0; j < m; j++) {
            int64_t sum = 0;
            for (int32_t b = 0; b < columns; b++) {
                const size_t at = ((size_t)(b / 2) * (size_t)stride + (size_t)j) * 2;
                sum += (int32_t)error[b] * turned[at + (size_t)(b & 1)];
            }
            out[(size_t)i * (size_t)stride + (size_t)j] = (int32_t)gle_round64(sum, shift);
        }
    }
}

static void pack_pairs(int16_t *pairs, const int16_t *x, int32_t n, int32_t columns)
{
    for (int32_t j = 0; j < n + (n & 1); j++) {
        for (int32_t b = 0; b < columns; b++) {
            const size_t at = ((size_t)(j / 2) * (size_t)columns + (size_t)b) * 2;
            pairs[at + (size_t)(j & 1)] =
                j < n ? x[(size_t)j * (size_t)columns + (size_t)b] : (int16_t)0;
        }
    }
}

static void pack_turned(int16_t *turned, const int16_t *x, int32_t n, int32_t stride,
                        int32_t columns)
{
    for (int32_t b = 0; b < columns; b++) {
        for (int32_t j = 0; j < stride; j++) {
            const size_t at = ((size_t)(b / 2) * (size_t)stride + (size_t)j) * 2;
            turned[at + (size_t)(b & 1)] =
                j < n ? x[(size_t)j * (size_t)columns + (size_t)b] : (int16_t)0;
        }
    }
}

static inline int32_t seen(int16_t stored, int32_t w_shift)
{
    return gle_round(stored, w_shift);
}

void gle_product_one(int32_t *out, const int16_t *w, int32_t stride, int32_t n, int32_t m,
                     const int16_t *x, int32_t w_shift, int32_t shift)
{
    for (int32_t i = 0; i < n; i++) {
        const int16_t *row = w + (size_t)i * (size_t)stride;
        int64_t sum = 0;
        for (int32_t j = 0; j < m;) {
            const int32_t end = m - j < GLE_EXACT ? m : j + GLE_EXACT;
            int32_t part = 0;
            for (; j < end; j++) {
                part += seen(row[j], w_shift) * x[j];
            }
            sum += part;
        }
        out[i] = gle_clamp64(gle_round64(sum, shift), GLE_SUM_MAX);
    }
}

void gle_product_one_back(int32_t *out, const int16_t *w, int32_t stride, int32_t n, int32_t m,
                          const int16_t *e, int32_t w_shift, int32_t shift)
{
    for (int32_t j = 0; j < m; j++) {
        int64_t sum = 0;
        for (int32_t i = 0; i < n; i++) {
            sum += seen(w[(size_t)i * (size_t)stride + (size_t)j], w_shift) * e[i];
        }
        out[j] = gle_clamp64(gle_round64(sum, shift), GLE_SUM_MAX);
    }
}

static void transpose(int16_t *to, const int16_t *from, int32_t n, int32_t m, int32_t stride,
                      int32_t stride_t)
{
    for (int32_t j = 0; j < m; j++) {
        for (int32_t i = 0; i < n; i++) {
            to[(size_t)j * (size_t)stride_t + (size_t)i] =
                from[(size_t)i * (size_t)stride + (size_t)j];
        }
    }
}

#define GLE_TARGET
#define GLE_UPDATE update
#include "update.inc"
#define GLE_SEE see
#include "see.inc"

const gle_kernels gle_kernels_scalar = {"scalar",    product, outer,     pack_pairs,
                                        pack_turned, update,  see,       transpose,
                                        gle_neurons_scalar};
