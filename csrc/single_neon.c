/* One stream with NEON: the vectors run over inputs, as there are no streams for them.
 *
 * The same integers as matvec_scalar.c. Rows of weights are padded to whole vectors with
 * zeros, and so are rates and errors (the arena is aligned to 64 bytes): where something is
 * read beyond a row's end, it is 0 and stays so.
 */
#include "neurons.h"
#include "single.h"

#if defined(__aarch64__) && !defined(GLE_SCALAR_ONLY)

#include "lanes_neon.h"

enum { WIDE = 16 /* int16 at a time */, TALL = 4 /* rows */, BLOCK = 32 /* columns */,
       LANES_OF_ROW = 8 /* sums that a row is spread over */ };

/* What the array sees is round(stored 2^-w_shift). */
LANES int16x8_t seen(const int16_t *w, const int shifted, int16x8_t by)
{
    const int16x8_t x = vld1q_s16(w);
    return shifted ? vrshlq_s16(x, by) : x;
}

/* Four sums of 64 bits, rounded by a shift of each lane and clipped to GLE_SUM_MAX. */
LANES int32x4_t rounded(int64x2_t low, int64x2_t high, int32x4_t shift)
{
    const int32x4_t by = vnegq_s32(shift);

    low = vrshlq_s64(low, vmovl_s32(vget_low_s32(by)));
    high = vrshlq_s64(high, vmovl_high_s32(by));
    return clamp(vqmovn_high_s64(vqmovn_s64(low), high), GLE_SUM_MAX);
}

/* Four rows at most: `rows` of them are stored. */
LANES void product_rows(int32_t *out, const int16_t *w, int32_t stride, int32_t rows,
                        const int16_t *x, const int shifted, int16x8_t by, int32x4_t shift)
{
    int64x2_t exact[TALL];
    const int16_t *row[TALL];

#pragma GCC unroll 4
    for (int r = 0; r < TALL; r++) {
        exact[r] = vdupq_n_s64(0);
        row[r] = w + (size_t)(r < rows ? r : 0) * (size_t)stride;
    }
    for (int32_t j = 0; j < stride;) {
        const int32_t most = GLE_EXACT * LANES_OF_ROW;
        const int32_t end = stride - j <= most ? stride : j + most;
        int32x4_t sum[TALL], more[TALL];
#pragma GCC unroll 4
        for (int r = 0; r < TALL; r++) {
            sum[r] = more[r] = vdupq_n_s32(0);
        }
        for (; j < end; j += WIDE) {
#pragma GCC unroll 2
            for (int c = 0; c < WIDE; c += 8) {
                const int16x8_t below = vld1q_s16(x + j + c);
#pragma GCC unroll 4
                for (int r = 0; r < TALL; r++) {
                    const int16x8_t ws = seen(row[r] + j + c, shifted, by);
                    sum[r] = vmlal_s16(sum[r], vget_low_s16(ws), vget_low_s16(below));
                    more[r] = vmlal_high_s16(more[r], ws, below);
                }
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < TALL; r++) {
            exact[r] = vpadalq_s32(vpadalq_s32(exact[r], sum[r]), more[r]);
        }
    }
    store_some(out, rounded(vpaddq_s64(exact[0], exact[1]), vpaddq_s64(exact[2], exact[3]), shift),
               rows);
}

LANES void product(int32_t *out, const gle_layer *layer, const int16_t *x, int32_t shift,
                   const int shifted)
{
    const int16x8_t by = vdupq_n_s16((int16_t)-gle_single_shift(layer));
    const int16_t *w = gle_single_weights(layer);

    for (int32_t i = 0; i < layer->n; i += TALL) {
        const int32_t rows = layer->n - i < TALL ? layer->n - i : TALL;
        int32x4_t finer = all(shift);
        if (layer->rows != NULL) {
            finer = vaddq_s32(finer, load_some((const int32_t *)(const void *)(layer->rows + i),
                                               rows));
        }
        product_rows(out + i, w + (size_t)i * (size_t)layer->stride, layer->stride, rows, x,
                     shifted, by, finer);
    }
}

void gle_product_one_neon(int32_t *out, const gle_layer *layer, const int16_t *x, int32_t shift)
{
    if (gle_single_shift(layer) != 0) {
        product(out, layer, x, shift, 1);
    } else {
        product(out, layer, x, shift, 0);
    }
}

/* As many inputs, over all neurons: no sum across lanes is needed. */
LANES void back_columns(int32_t *out, const gle_layer *layer, const int16_t *w, int32_t left,
                        const int shifted, int16x8_t by, int32_t shift)
{
    int64x2_t exact[BLOCK / 2];

#pragma GCC unroll 16
    for (int c = 0; c < BLOCK / 2; c++) {
        exact[c] = vdupq_n_s64(0);
    }
    for (int32_t i = 0; i < layer->n;) {
        const int32_t end = layer->n - i <= GLE_EXACT ? layer->n : i + GLE_EXACT;
        int32x4_t sum[BLOCK / 4];
#pragma GCC unroll 8
        for (int c = 0; c < BLOCK / 4; c++) {
            sum[c] = all(0);
        }
        for (; i < end; i++, w += layer->stride) {
            const int32_t own = layer->e[i];
            const int32_t finer = layer->rows ? gle_round(own, (int32_t)layer->rows[i]) : own;
            const int16x8_t e = vdupq_n_s16((int16_t)finer);
#pragma GCC unroll 4
            for (int c = 0; c < BLOCK / 8; c++) {
                const int16x8_t ws = seen(w + 8 * c, shifted, by);
                sum[2 * c] = vmlal_s16(sum[2 * c], vget_low_s16(ws), vget_low_s16(e));
                sum[2 * c + 1] = vmlal_high_s16(sum[2 * c + 1], ws, e);
            }
        }
#pragma GCC unroll 8
        for (int c = 0; c < BLOCK / 4; c++) {
            exact[2 * c] = vaddw_s32(exact[2 * c], vget_low_s32(sum[c]));
            exact[2 * c + 1] = vaddw_high_s32(exact[2 * c + 1], sum[c]);
        }
    }
#pragma GCC unroll 8
    for (int c = 0; c < BLOCK / 4; c++) {
        if (left > 4 * c) {
            store_some(out + 4 * c, rounded(exact[2 * c], exact[2 * c + 1], all(shift)),
                       left - 4 * c);
        }
    }
}

void gle_product_one_back_neon(int32_t *out, const gle_layer *layer, int32_t shift)
{
    const int32_t w_shift = gle_single_shift(layer);
    const int16_t *w = gle_single_weights(layer);
    const int16x8_t by = vdupq_n_s16((int16_t)-w_shift);

    for (int32_t j = 0; j < layer->m; j += BLOCK) {
        if (w_shift != 0) {
            back_columns(out + j, layer, w + j, layer->m - j, 1, by, shift);
        } else {
            back_columns(out + j, layer, w + j, layer->m - j, 0, by, shift);
        }
    }
}

#else
typedef int gle_no_single_neon; /* ISO C wants one declaration a file */
#endif
