/* Activations: rate and slope from the prospective membrane, by tables with linear
 * interpolation (make_phi_tables.py), all in 32-bit lanes.
 *
 * tanh and the residual log(1 + exp(-|x|)) of softplus are tables; sigmoid is
 * (1 + tanh(x/2))/2, the slopes are 1 - tanh^2, a quarter of it, and sigmoid.
 * Before the rounding to the rate's format a rate is off by less than 0.3 LSB of a
 * 13-bit fraction. A bounded activation ends at the largest rate of the format
 * (1 - 1 LSB); that is its shape, not a saturation.
 */
#ifndef GLE_PHI_H
#define GLE_PHI_H

#include "fixed.h"
#include "gle.h"
#include "phi_tables.h"

#define GLE_PHI_ONE 32768 /* slope 1 in Q15 */

typedef struct {
    int32_t align;       /* u_frac to the tables' 22 fraction bits */
    int32_t end8, end16; /* ends of the tables in u_frac */
    int32_t tanh_shift, tanh_half;
    int32_t sigmoid_shift, sigmoid_half;
    int32_t linear_shift, linear_half;
    int32_t soft_shift, soft_half;
} gle_phi_format;

static inline int32_t gle_half(int32_t shift) { return shift > 0 ? 1 << (shift - 1) : 0; }

/* 6 <= u_frac <= 22, r_frac <= u_frac, u_frac - r_frac <= 30, -8 <= r_frac <= 15. */
static inline gle_phi_format gle_phi_format_of(int32_t u_frac, int32_t r_frac)
{
    gle_phi_format f;
    f.align = 22 - u_frac;
    f.end8 = (1 << (u_frac + 3)) - 1;
    f.end16 = (1 << (u_frac + 4)) - 1;
    f.tanh_shift = 18 - r_frac;
    f.tanh_half = gle_half(f.tanh_shift);
    f.sigmoid_shift = 19 - r_frac;
    f.sigmoid_half = gle_half(f.sigmoid_shift);
    f.linear_shift = u_frac - r_frac;
    f.linear_half = gle_half(f.linear_shift);
    f.soft_shift = 22 - u_frac;
    f.soft_half = gle_half(f.soft_shift);
    return f;
}

/* Bits that the last rounding of a rate drops. */
static inline int32_t gle_phi_drop(const int32_t phi, const gle_phi_format *f)
{
    return phi == GLE_TANH      ? f->tanh_shift
           : phi == GLE_SIGMOID ? f->sigmoid_shift
                                : f->linear_shift;
}

/* above * slope with the slope in Q15, |above| <= 2^30. */
static inline int32_t gle_scale_q15(int32_t above, int32_t slope)
{
    return (int32_t)(uint32_t)((uint64_t)((int64_t)above * slope + 16384) >> 15);
}

/* tanh(position * 2^-22) in 18 fraction bits, 0 <= position < 8 * 2^22. */
static inline int32_t gle_tanh_at(int32_t position)
{
    uint32_t entry = gle_tanh_table[position >> 16];
    return (int32_t)((entry >> 13) +
                     (((entry & 0x1fffu) * ((uint32_t)position & 0xffffu) + 0x8000u) >> 16));
}

/* log(1 + exp(-x)) at x = position * 2^-21, in 22 fraction bits: finer than tanh, since a
 * residual that falls in coarse steps would make softplus fall where it must rise. */
static inline int32_t gle_softplus_at(int32_t position)
{
    uint32_t entry = gle_softplus_table[position >> 16];
    return (int32_t)((entry >> 13 << 4) -
                     (((entry & 0x1fffu) * ((uint32_t)position & 0xffffu) + 0x800u) >> 12));
}

/* 1 - y^2 in Q15 from y in 18 fraction bits. */
static inline int32_t gle_tanh_slope(int32_t y)
{
    int32_t y15 = (y + 4) >> 3;
    return GLE_PHI_ONE - (int32_t)(((uint32_t)y15 * (uint32_t)y15 + 0x4000u) >> 15);
}

/* Rate before clipping, in r_frac, and slope phi' in Q15. */
static inline __attribute__((always_inline)) int32_t
gle_phi_rate(const int32_t phi, int32_t uhat, const gle_phi_format *f, int32_t *slope)
{
    const int32_t negative = uhat < 0;
    const int32_t size = negative ? -uhat : uhat;
    int32_t y, z;

    if (phi == GLE_TANH) {
        y = gle_tanh_at((size > f->end8 ? f->end8 : size) << f->align);
        *slope = gle_tanh_slope(y);
        y = (y + f->tanh_half) >> f->tanh_shift;
        return negative ? -y : y;
    }
    if (phi == GLE_SIGMOID || phi == GLE_SOFTPLUS) {
        /* 1/2 of the position: tanh(x/2) and softplus both end at 16 */
        const int32_t end = size > f->end16 ? f->end16 : size;
        const int32_t position = f->align > 0 ? end << (f->align - 1) : end >> 1;
        y = gle_tanh_at(position);
        z = negative ? (1 << 18) - y : (1 << 18) + y; /* sigmoid in 19 fraction bits */
        if (phi == GLE_SIGMOID) {
            *slope = (gle_tanh_slope(y) + 2) >> 2;
            return (z + f->sigmoid_half) >> f->sigmoid_shift;
        }
        *slope = z >> 4;
        y = gle_softplus_at(position);
        y = (y + f->soft_half) >> f->soft_shift;
        y += negative ? 0 : uhat;
        return (y + f->linear_half) >> f->linear_shift;
    }
    if (phi == GLE_RELU) {
        *slope = uhat > 0 ? GLE_PHI_ONE : 0;
        uhat = negative ? 0 : uhat;
    } else {
        *slope = GLE_PHI_ONE;
    }
    return (uhat + f->linear_half) >> f->linear_shift;
}

#endif
