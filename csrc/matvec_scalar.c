/* The kernels in plain C: what every other table must equal, bit for bit.
 *
 * Products of 14-bit factors are added up to GLE_EXACT at a time in int32, then in
 * int64; the sum is exact and is rounded once.
 */
#include "kernels.h"

#include "learner.h"
#include "neurons.h"
#include "single.h"

static void product(int32_t *out, const int16_t *w, int32_t stride, int32_t n, int32_t m,
                    const int16_t *pairs, int32_t columns, int32_t shift, const uint32_t *rows,
                    int32_t fits)
{
    (void)fits;
    for (int32_t i = 0; i < n; i++) {
        const int16_t *row = w + (size_t)i * (size_t)stride;
        const int32_t k = shift + (rows ? (int32_t)rows[i] : 0);
        for (int32_t b = 0; b < columns; b++) {
            int64_t sum = 0;
            for (int32_t j = 0; j < m; j++) {
                const size_t at = ((size_t)(j / 2) * (size_t)columns + (size_t)b) * 2;
                sum += (int32_t)row[j] * pairs[at + (size_t)(j & 1)];
            }
            out[(size_t)i * (size_t)columns + (size_t)b] =
                gle_clamp64(gle_round64(sum, k), GLE_SUM_MAX);
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

static int32_t pack_pairs(int16_t *pairs, const int16_t *x, int32_t n, int32_t columns)
{
    for (int32_t j = 0; j < n + (n & 1); j++) {
        for (int32_t b = 0; b < columns; b++) {
            const size_t at = ((size_t)(j / 2) * (size_t)columns + (size_t)b) * 2;
            pairs[at + (size_t)(j & 1)] =
                j < n ? x[(size_t)j * (size_t)columns + (size_t)b] : (int16_t)0;
        }
    }
    return GLE_ARRAY_MAX; /* sums are of 64 bits here */
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

/* The gains of a row of synapses, or NULL. */
static inline const uint32_t *gains_of(const gle_layer *layer, int32_t i)
{
    return layer->gains ? layer->gains + (size_t)i * (size_t)layer->gain_words : NULL;
}

static inline int32_t gained(int32_t code, int32_t w_left, const uint32_t *gains, int32_t j)
{
    return gle_synapse(code * (1 << w_left), gle_half_word(gains[j >> 1], j & 1));
}

void gle_see_one(int16_t *seen, const int16_t *w, int32_t m, const gle_seeing *how,
                 const uint32_t *gains)
{
    for (int32_t j = 0; j < m; j++) {
        const int32_t code = gle_round(w[j], how->w_shift);
        seen[j] = (int16_t)(gains == NULL ? code * (1 << how->w_left)
                                          : gained(code, how->w_left, gains, j));
    }
}

static int64_t row_sum(const int16_t *row, const int16_t *x, int32_t m, int32_t w_shift)
{
    int64_t sum = 0;

    for (int32_t j = 0; j < m;) {
        const int32_t end = m - j < GLE_EXACT ? m : j + GLE_EXACT;
        int32_t part = 0;
        for (; j < end; j++) {
            part += gle_round(row[j], w_shift) * x[j];
        }
        sum += part;
    }
    return sum;
}

static int64_t row_sum_gained(const int16_t *row, const int16_t *x, int32_t m, int32_t w_shift,
                              int32_t w_left, const uint32_t *gains)
{
    int64_t sum = 0;

    for (int32_t j = 0; j < m;) {
        const int32_t end = m - j < GLE_EXACT ? m : j + GLE_EXACT;
        int32_t part = 0;
        for (; j < end; j++) {
            part += gained(gle_round(row[j], w_shift), w_left, gains, j) * x[j];
        }
        sum += part;
    }
    return sum;
}

/* Boards look at what a layer was lent room for; elsewhere this is to differ from kernels that
 * keep what is seen. */
static int lent(const gle_layer *layer) { return GLE_ALIGN < 64 && layer->seen != layer->w; }

void gle_product_one(int32_t *out, const gle_layer *layer, const int16_t *x, int32_t shift)
{
    const int32_t w_shift = lent(layer) ? 0 : layer->image->w_shift;
    const int32_t w_left = lent(layer) ? 0 : layer->image->w_left;
    const int16_t *const w = lent(layer) ? layer->seen : layer->w;

    for (int32_t i = 0; i < layer->n; i++) {
        const int16_t *row = w + (size_t)i * (size_t)layer->stride;
        const uint32_t *gains = lent(layer) ? NULL : gains_of(layer, i);
        const int32_t k = shift + (layer->rows ? (int32_t)layer->rows[i] : 0);
        const int64_t sum = gains ? row_sum_gained(row, x, layer->m, w_shift, w_left, gains)
                                  : row_sum(row, x, layer->m, w_shift) * (1 << w_left);
        out[i] = gle_clamp64(gle_round64(sum, k), GLE_SUM_MAX);
    }
}

/* Column j of the weights, times the errors. */
static int64_t column_sum(const gle_layer *layer, int32_t j, int32_t w_shift)
{
    const int16_t *w = (lent(layer) ? layer->seen : layer->w) + j;
    const int16_t *const e = layer->e;
    const int32_t n = layer->n, stride = layer->stride;
    int64_t sum = 0;

    for (int32_t i = 0; i < n; i++) {
        sum += gle_round(w[(size_t)i * (size_t)stride], w_shift) * e[i];
    }
    return sum;
}

/* The same with gains and scales of their own. */
static int64_t column_sum_gained(const gle_layer *layer, int32_t j, int32_t w_shift,
                                 int32_t w_left)
{
    const int16_t *w = layer->w + j;
    int64_t sum = 0;

    for (int32_t i = 0; i < layer->n; i++, w += layer->stride) {
        const int32_t e = gle_round(layer->e[i], layer->rows ? (int32_t)layer->rows[i] : 0);
        const int32_t code = gle_round(*w, w_shift);
        const uint32_t *gains = gains_of(layer, i);
        sum += (gains ? gained(code, w_left, gains, j) : code * (1 << w_left)) * e;
    }
    return sum;
}

void gle_product_one_back(int32_t *out, const gle_layer *layer, int32_t shift)
{
    const int plain = (layer->gains == NULL || lent(layer)) && layer->rows == NULL;
    const int32_t w_shift = plain && lent(layer) ? 0 : layer->image->w_shift;
    const int32_t w_left = plain && lent(layer) ? 0 : layer->image->w_left;

    for (int32_t j = 0; j < layer->m; j++) {
        const int64_t sum = plain ? column_sum(layer, j, w_shift) * (1 << w_left)
                                  : column_sum_gained(layer, j, w_shift, w_left);
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
#define GLE_UPDATE(name) name##_row
#define GLE_ROOTS 1
#include "update.inc"
#define GLE_SEE see
#include "see.inc"
#define GLE_READ read_out
#include "read_out.inc"

void gle_learn_one(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                   int32_t shift, uint32_t root, gle_update_count *count)
{
    learn_row(w, e, x, m, how, shift, root, count);
}

const gle_kernels gle_kernels_scalar = {"scalar",    product, outer,     pack_pairs,
                                        pack_turned, update_row, vary_row, GLE_ONE(product_one),
                                        GLE_ONE(product_one_back), GLE_ONE(learn_one), NULL, see,
                                        read_out, transpose,
                                        gle_neurons_scalar, &gle_rules_scalar, NULL, NULL, NULL};
