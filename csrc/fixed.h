/* Fixed-point arithmetic of the chip: every rounding and every clip of the core
 * is one of the functions here, so that all bodies agree in every bit.
 *
 * Rounding is "add half, shift right" (halves go up). Right shifts of negative
 * numbers are arithmetic: the build refuses compilers where they are not.
 */
#ifndef GLE_FIXED_H
#define GLE_FIXED_H

#include <stdint.h>

#if (-1 >> 1) != -1
#error "the core needs arithmetic right shifts"
#endif

/* States are clipped to 29 bits inside an int32, so that a difference of two
 * (30 bits) and a state plus a prospective term (31 bits) still fit. */
#define GLE_STATE_MAX ((int32_t)((1 << 28) - 1))

/* Sums that come out of a matrix product are clipped here, far outside what a
 * state can hold: adding a bias and the nudge to one cannot overflow. */
#define GLE_SUM_MAX ((int32_t)(1 << 30))

static inline int32_t gle_clamp(int32_t x, int32_t limit)
{
    return x > limit ? limit : (x < -limit ? -limit : x);
}

static inline int32_t gle_clamp64(int64_t x, int32_t limit)
{
    return x > limit ? limit : (x < -limit ? -limit : (int32_t)x);
}

/* x * 2^-k, rounded once; k may be negative. |x * 2^-k| must fit 62 bits. */
static inline int64_t gle_round64(int64_t x, int32_t k)
{
    if (k > 0) {
        return k > 62 ? 0 : (x + ((int64_t)1 << (k - 1))) >> k;
    }
    return (int64_t)((uint64_t)x << -k);
}

/* x * 2^-k for 0 <= k <= 30 without a wider type: (x >> k) plus the bit below. */
static inline int32_t gle_round(int32_t x, int32_t k)
{
    return k == 0 ? x : (x >> k) + ((x >> (k - 1)) & 1);
}

/* A multiplier c = m * 2^-k, 0 <= m < 2^15, packed as m << 8 | k. */
typedef uint32_t gle_coef;

static inline int32_t gle_coef_m(gle_coef c) { return (int32_t)(c >> 8); }
static inline int32_t gle_coef_k(gle_coef c) { return (int32_t)(c & 0xffu); }

/* The same multiplier, taken apart so that d * c can be computed in 32-bit lanes
 * with exactly the bits of (d * m + half) >> k:
 *
 *     d * m = 2^16 A + B   with A = (d >> 16) m,  B = (d & 0xffff) m >= 0
 *
 * Below k = 17 the half reaches into B; above, the low 16 bits of the sum cannot
 * change the result and are dropped first. */
typedef struct {
    int32_t m;
    int32_t left;        /* A << left */
    uint32_t half_low;   /* (B + half_low) >> low */
    int32_t low;
    int32_t half;        /* (sum + half) >> right */
    int32_t right;
    int32_t limit;       /* largest |d| whose product fits 2^30 */
} gle_mul;

static inline gle_mul gle_mul_of(gle_coef c)
{
    gle_mul f;
    int32_t k = gle_coef_k(c);
    int64_t most;

    f.m = gle_coef_m(c);
    f.left = k < 16 ? 16 - k : 0;
    f.half_low = k > 16 ? 0u : (1u << (k - 1));
    f.low = k > 16 ? 16 : k;
    f.half = k > 16 ? 1 << (k - 17) : 0;
    f.right = k > 16 ? k - 16 : 0;
    most = f.m == 0 ? ((int64_t)1 << 29) : ((int64_t)1 << (30 + k)) / f.m;
    f.limit = most > (1 << 29) ? 1 << 29 : (int32_t)most;
    return f;
}

/* d * c rounded once; |d| <= f->limit. */
static inline int32_t gle_scale(int32_t d, const gle_mul *f)
{
    int32_t a = (d >> 16) * f->m;
    uint32_t b = ((uint32_t)d & 0xffffu) * (uint32_t)f->m;
    int32_t s = (int32_t)((uint32_t)a << f->left) + (int32_t)((b + f->half_low) >> f->low);
    return (s + f->half) >> f->right;
}

#endif
