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

/* The same, clipped to +-limit; nothing overflows however far it is shifted left. */
static inline int32_t gle_round_clamp64(int64_t x, int32_t k, int32_t limit)
{
    if (k < 0) {
        const int64_t most = (int64_t)limit >> (-k < 62 ? -k : 62);
        if (x > most || x < -most) {
            return x > 0 ? limit : -limit;
        }
    }
    return gle_clamp64(gle_round64(x, k), limit);
}

/* A multiplier c = m * 2^-k, 0 <= m < 2^15, packed as m << 8 | k. */
typedef uint32_t gle_coef;

static inline int32_t gle_coef_m(gle_coef c) { return (int32_t)(c >> 8); }
static inline int32_t gle_coef_k(gle_coef c) { return (int32_t)(c & 0xffu); }

/* The same multiplier, unpacked. */
typedef struct {
    int32_t m;
    int32_t k;
    int32_t limit;       /* largest |d| whose product fits 2^30 */
    int32_t one;         /* c is 1: what is instantaneous, and the error neuron of what is slow */
} gle_mul;

static inline gle_mul gle_mul_of(gle_coef c)
{
    gle_mul f;

    f.m = gle_coef_m(c);
    f.k = gle_coef_k(c);
    f.one = f.k == 14 && f.m == 1 << 14;
    f.limit = f.k >= 14 ? 1 << 29 : 1 << (15 + f.k); /* m < 2^15; no division on a board */
    return f;
}

/* d * c rounded once; |d| <= f.limit, 1 <= k <= 31. The result fits 32 bits, so that a
 * logical shift gives the same bits as an arithmetic one; vector units have the former. */
static inline int32_t gle_scale(int32_t d, const gle_mul *f)
{
    const int64_t product = (int64_t)d * f->m + (int64_t)(UINT32_C(1) << (f->k - 1));
    const uint32_t low = (uint32_t)product, high = (uint32_t)((uint64_t)product >> 32);
    return f->one ? d : (int32_t)(low >> f->k | high << (32 - f->k)); /* no 64-bit shift on a board */
}

#endif
