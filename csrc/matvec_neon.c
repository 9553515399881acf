/* The kernels for NEON, which every aarch64 has: register tiles of smlal, which multiplies four
 * int16 by one of a vector and adds the products into four int32. Same bits as matvec_scalar.c:
 * the sums are exact.
 *
 * A tile is R rows by 16 columns. No instruction adds up pairs, so that the packed layouts are
 * this table's own: pairs[n][columns] as the rates are, turned[columns][stride]. Up to GLE_EXACT
 * products stay in int32; longer sums are spilled into int64, which srshl rounds by a shift of
 * either sign.
 */
#include "kernels.h"

#if defined(__aarch64__) && !defined(GLE_SCALAR_ONLY)

#include <arm_neon.h>

#include "learner.h"
#include "neurons.h"
#include "single.h"

#define LANES static inline __attribute__((always_inline))

enum { TALL = 4, WIDE = 16, QUADS = WIDE / 4, GROUP = 8 };

/* Where sums come from and go to. */
typedef struct {
    int32_t *out;
    const int16_t *w, *x;
    int32_t out_stride, stride, x_stride;
    int32_t count; /* products in a sum */
    int32_t shift;
    const uint32_t *rows; /* what is added to each row's shift, or NULL */
} tile_job;

/* One product for each sum of the tile: of the vector of each row its element `k`, and a row
 * of x, which then goes on by one. */
#define ADD_ELEMENT(k)                                                                       \
    do {                                                                                     \
        const int16x8_t some = vld1q_s16(x), more = vld1q_s16(x + 8);                        \
        _Pragma("GCC unroll 4") for (int r = 0; r < R; r++)                                  \
        {                                                                                    \
            sum[r][0] = vmlal_laneq_s16(sum[r][0], vget_low_s16(some), ws[r], k);            \
            sum[r][1] = vmlal_high_laneq_s16(sum[r][1], some, ws[r], k);                     \
            sum[r][2] = vmlal_laneq_s16(sum[r][2], vget_low_s16(more), ws[r], k);            \
            sum[r][3] = vmlal_high_laneq_s16(sum[r][3], more, ws[r], k);                     \
        }                                                                                    \
        x += job->x_stride;                                                                  \
    } while (0)

LANES int32x4_t clamp_sum(int32x4_t x)
{
    return vmaxq_s32(vminq_s32(x, vdupq_n_s32(GLE_SUM_MAX)), vdupq_n_s32(-GLE_SUM_MAX));
}

/* `wide`: the sum may not fit int32. `clip`: to GLE_SUM_MAX, else what is rounded fits int32. */
LANES void tile(const int R, const int wide, const int clip, const tile_job *job, int32_t i,
                int32_t b)
{
    const int16_t *w = job->w + (size_t)i * (size_t)job->stride;
    const int16_t *x = job->x + b;
    int32x4_t sum[TALL][QUADS];
    int64x2_t exact[TALL][2 * QUADS];

#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
        for (int c = 0; c < QUADS; c++) {
            sum[r][c] = vdupq_n_s32(0);
            exact[r][2 * c] = exact[r][2 * c + 1] = vdupq_n_s64(0);
        }
    }
    for (int32_t j = 0; j < job->count;) {
        const int32_t end = wide && job->count - j > GLE_EXACT ? j + GLE_EXACT : job->count;
        for (; end - j >= GROUP; j += GROUP) {
            int16x8_t ws[TALL];
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                ws[r] = vld1q_s16(w + (size_t)r * (size_t)job->stride + (size_t)j);
            }
            ADD_ELEMENT(0);
            ADD_ELEMENT(1);
            ADD_ELEMENT(2);
            ADD_ELEMENT(3);
            ADD_ELEMENT(4);
            ADD_ELEMENT(5);
            ADD_ELEMENT(6);
            ADD_ELEMENT(7);
        }
        for (; j < end; j++) {
            int16x8_t ws[TALL];
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                ws[r] = vld1q_dup_s16(w + (size_t)r * (size_t)job->stride + (size_t)j);
            }
            ADD_ELEMENT(0);
        }
#pragma GCC unroll 4
        for (int r = 0; r < R && wide; r++) {
#pragma GCC unroll 4
            for (int c = 0; c < QUADS; c++) {
                exact[r][2 * c] = vaddw_s32(exact[r][2 * c], vget_low_s32(sum[r][c]));
                exact[r][2 * c + 1] = vaddw_high_s32(exact[r][2 * c + 1], sum[r][c]);
                sum[r][c] = vdupq_n_s32(0);
            }
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        const int32_t k = job->shift + (job->rows ? (int32_t)job->rows[i + r] : 0);
        int32_t *out = job->out + (size_t)(i + r) * (size_t)job->out_stride + (size_t)b;
#pragma GCC unroll 4
        for (int c = 0; c < QUADS; c++) {
            int32x4_t y;
            if (wide) {
                const int64x2_t low = vrshlq_s64(exact[r][2 * c], vdupq_n_s64(-k));
                const int64x2_t high = vrshlq_s64(exact[r][2 * c + 1], vdupq_n_s64(-k));
                y = vqmovn_high_s64(vqmovn_s64(low), high);
            } else {
                y = vqrshlq_s32(sum[r][c], vdupq_n_s32(-k));
            }
            vst1q_s32(out + 4 * c, clip ? clamp_sum(y) : y);
        }
    }
}

LANES void tiles(const int wide, const int clip, const tile_job *job, int32_t n, int32_t columns)
{
    for (int32_t b = 0; b < columns; b += WIDE) {
        int32_t i = 0;
        for (; i + TALL <= n; i += TALL) {
            tile(TALL, wide, clip, job, i, b);
        }
        for (; i < n; i++) {
            tile(1, wide, clip, job, i, b);
        }
    }
}

static void product(int32_t *out, const int16_t *w, int32_t stride, int32_t n, int32_t m,
                    const int16_t *pairs, int32_t columns, int32_t shift, const uint32_t *rows,
                    int32_t fits)
{
    const tile_job job = {out, w, pairs, columns, stride, columns, m, shift, rows};

    if (fits || m <= GLE_EXACT) {
        tiles(0, 1, &job, n, columns);
    } else {
        tiles(1, 1, &job, n, columns);
    }
}

/* Sums over streams: errors of a row by 16 inputs. */
static void outer(int32_t *out, const int16_t *e, int32_t rows, const int16_t *turned,
                  int32_t stride, int32_t m, int32_t columns, int32_t shift)
{
    const tile_job job = {out, e, turned, stride, columns, stride, columns, shift, NULL};

    if (columns <= GLE_EXACT) {
        tiles(0, 0, &job, rows, m); /* whole tiles: rows of sums and rates have padding for it */
    } else {
        tiles(1, 0, &job, rows, m);
    }
}

/* Rates as they are: neurons by streams. */
static int32_t pack_pairs(int16_t *pairs, const int16_t *x, int32_t n, int32_t columns)
{
    const size_t count = (size_t)n * (size_t)columns;
    int16x8_t most = vdupq_n_s16(0);

    for (size_t k = 0; k < count; k += 8) {
        const int16x8_t some = vld1q_s16(x + k);
        vst1q_s16(pairs + k, some);
        most = vmaxq_s16(most, vabsq_s16(some));
    }
    return vmaxvq_s16(most);
}

LANES int16x8_t even16(int16x8_t a, int16x8_t b) { return vtrn1q_s16(a, b); }
LANES int16x8_t odd16(int16x8_t a, int16x8_t b) { return vtrn2q_s16(a, b); }

LANES int16x8_t even32(int16x8_t a, int16x8_t b)
{
    return vreinterpretq_s16_s32(vtrn1q_s32(vreinterpretq_s32_s16(a), vreinterpretq_s32_s16(b)));
}

LANES int16x8_t odd32(int16x8_t a, int16x8_t b)
{
    return vreinterpretq_s16_s32(vtrn2q_s32(vreinterpretq_s32_s16(a), vreinterpretq_s32_s16(b)));
}

LANES int16x8_t even64(int16x8_t a, int16x8_t b)
{
    return vreinterpretq_s16_s64(vtrn1q_s64(vreinterpretq_s64_s16(a), vreinterpretq_s64_s16(b)));
}

LANES int16x8_t odd64(int16x8_t a, int16x8_t b)
{
    return vreinterpretq_s16_s64(vtrn2q_s64(vreinterpretq_s64_s16(a), vreinterpretq_s64_s16(b)));
}

/* 8 by 8, from row i and column j on; rows beyond n are 0, columns beyond m are not stored. */
LANES void turn_8(int16_t *to, const int16_t *from, int32_t n, int32_t m, int32_t stride,
                  int32_t stride_t, int32_t i, int32_t j)
{
    int16x8_t a[8], b[8];

    for (int32_t r = 0; r < 8; r++) {
        const int16_t *row = from + (size_t)(i + r) * (size_t)stride + (size_t)j;
        a[r] = i + r < n ? vld1q_s16(row) : vdupq_n_s16(0);
    }
    for (int32_t r = 0; r < 8; r += 2) {
        b[r] = even16(a[r], a[r + 1]);
        b[r + 1] = odd16(a[r], a[r + 1]);
    }
    for (int32_t r = 0; r < 8; r++) {
        a[r] = (r & 2) == 0 ? even32(b[r], b[r + 2]) : odd32(b[r - 2], b[r]);
    }
    for (int32_t r = 0; r < 8 && j + r < m; r++) {
        int16_t *row = to + (size_t)(j + r) * (size_t)stride_t + (size_t)i;
        vst1q_s16(row, r < 4 ? even64(a[r], a[r + 4]) : odd64(a[r - 4], a[r]));
    }
}

/* to[m][stride_t] = from[n][stride], and zeros up to `padded` numbers of a row. Blocks of 32 by
 * 32, so that of both sides whole cache lines are used while they are near. */
static void turn(int16_t *to, const int16_t *from, int32_t n, int32_t padded, int32_t m,
                 int32_t stride, int32_t stride_t)
{
    enum { BLOCK = 32 };

    for (int32_t j0 = 0; j0 < m; j0 += BLOCK) {
        for (int32_t i0 = 0; i0 < padded; i0 += BLOCK) {
            for (int32_t j = j0; j < m && j < j0 + BLOCK; j += 8) {
                for (int32_t i = i0; i < padded && i < i0 + BLOCK; i += 8) {
                    turn_8(to, from, n, m, stride, stride_t, i, j);
                }
            }
        }
    }
}

static void pack_turned(int16_t *turned, const int16_t *x, int32_t n, int32_t stride,
                        int32_t columns)
{
    turn(turned, x, n, stride, columns, columns, stride);
}

static void transpose(int16_t *to, const int16_t *from, int32_t n, int32_t m, int32_t stride,
                      int32_t stride_t)
{
    turn(to, from, n, n, m, stride, stride_t);
}

/* Rows that learn and what is like them, for which the compiler finds vectors. */
#define GLE_TARGET
#define GLE_UPDATE(name) name##_row
#define GLE_ROOTS 4
#include "update.inc"
#define GLE_SEE see
#include "see.inc"
#define GLE_READ read_out
#include "read_out.inc"

void gle_learn_one_any_neon(int16_t *w, int32_t e, const int16_t *x, int32_t m,
                            const gle_update *how, int32_t shift, uint32_t root,
                            gle_update_count *count)
{
    learn_row(w, e, x, m, how, shift, root, count);
}

/* Biases and target errors have the functions in plain C that all tables fall back to; products
 * are of copies; of a batch, `learn` is the outer product and rows of updates. */
const gle_kernels gle_kernels_neon = {"neon",      product,    outer,    pack_pairs,
                                      pack_turned, update_row, vary_row, gle_product_one_neon,
                                      gle_product_one_back_neon, gle_learn_one_neon,
                                      gle_learn_stream_neon, see, read_out, transpose,
                                      gle_neurons_neon, &gle_rules_neon, NULL, NULL, NULL};

#else
typedef int gle_no_neon; /* ISO C wants one declaration a file */
#endif
