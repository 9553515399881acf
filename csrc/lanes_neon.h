/* Arithmetic of neurons on four lanes of NEON, shared by the kernels for batches (lanes are
 * streams) and for one stream (lanes are neurons, the four that share a random word). The same
 * integers as phi.h, analog.h and fixed.h.
 *
 * srshl shifts by a number of either sign in each lane, and rounds what it shifts to the right
 * as the chip does: add half, with a bit more than the lane has.
 */
#ifndef GLE_LANES_NEON_H
#define GLE_LANES_NEON_H

#include "neurons.h"

#include <arm_neon.h>

#define LANES static inline __attribute__((always_inline))

LANES int32x4_t all(int32_t x) { return vdupq_n_s32(x); }
LANES int32x4_t as_signed(uint32x4_t x) { return vreinterpretq_s32_u32(x); }
LANES uint32x4_t as_bits(int32x4_t x) { return vreinterpretq_u32_s32(x); }

LANES int32x4_t clamp_each(int32x4_t x, int32x4_t limit)
{
    return vmaxq_s32(vminq_s32(x, limit), vnegq_s32(limit));
}

LANES int32x4_t clamp(int32x4_t x, int32_t limit) { return clamp_each(x, all(limit)); }

/* Rounded, dropping k bits; for a negative k to the left. */
LANES int32x4_t round_by(int32x4_t x, int32_t k) { return vrshlq_s32(x, all(-k)); }
LANES int32x4_t round_each(int32x4_t x, int32x4_t k) { return vrshlq_s32(x, vnegq_s32(k)); }

/* Of four numbers, `left`, if they are fewer; 0 for the others. */
LANES int32x4_t load_some(const int32_t *from, int32_t left)
{
    int32_t some[4] = {0, 0, 0, 0};

    if (left >= 4) {
        return vld1q_s32(from);
    }
    for (int32_t k = 0; k < left; k++) {
        some[k] = from[k];
    }
    return vld1q_s32(some);
}

LANES void store_some(int32_t *to, int32x4_t x, int32_t left)
{
    if (left >= 4) {
        vst1q_s32(to, x);
        return;
    }
    vst1q_lane_s32(to, x, 0);
    if (left > 1) {
        vst1q_lane_s32(to + 1, x, 1);
    }
    if (left > 2) {
        vst1q_lane_s32(to + 2, x, 2);
    }
}

/* Low halves of four lanes as four 16-bit numbers. */
LANES void store16_some(int16_t *to, int32x4_t x, int32_t left)
{
    const int16x4_t y = vmovn_s32(x);

    if (left >= 4) {
        vst1_s16(to, y);
        return;
    }
    vst1_lane_s16(to, y, 0);
    if (left > 1) {
        vst1_lane_s16(to + 1, y, 1);
    }
    if (left > 2) {
        vst1_lane_s16(to + 2, y, 2);
    }
}

/* Low halves of four sums of 64 bits. */
LANES int32x4_t low_halves(int64x2_t low, int64x2_t high)
{
    return vuzp1q_s32(vreinterpretq_s32_s64(low), vreinterpretq_s32_s64(high));
}

/* gle_scale, with a factor and a shift for each lane. */
LANES int32x4_t scale_each(int32x4_t d, int32x4_t m, int32x4_t k)
{
    const int32x4_t by = vnegq_s32(k);
    const int64x2_t low = vmull_s32(vget_low_s32(d), vget_low_s32(m));
    const int64x2_t high = vmull_high_s32(d, m);

    return low_halves(vrshlq_s64(low, vmovl_s32(vget_low_s32(by))),
                      vrshlq_s64(high, vmovl_high_s32(by)));
}

/* The same in all lanes. */
LANES int32x4_t scale(int32x4_t d, const gle_mul *f)
{
    const int64x2_t by = vdupq_n_s64(-f->k);
    const int64x2_t low = vmull_n_s32(vget_low_s32(d), f->m);
    const int64x2_t high = vmull_high_n_s32(d, f->m);

    return f->one ? d : low_halves(vrshlq_s64(low, by), vrshlq_s64(high, by));
}

LANES int32x4_t scale_q15(int32x4_t d, int32x4_t slope)
{
    const int64x2_t low = vmull_s32(vget_low_s32(d), vget_low_s32(slope));
    return vrshrn_high_n_s64(vrshrn_n_s64(low, 15), vmull_high_s32(d, slope), 15);
}

/* There is no gather. */
LANES uint32x4_t entries(const uint32_t *table, uint32x4_t position)
{
    const uint32x4_t at = vshrq_n_u32(position, 16);
    uint32x4_t entry = vdupq_n_u32(table[vgetq_lane_u32(at, 0)]);

    entry = vld1q_lane_u32(table + vgetq_lane_u32(at, 1), entry, 1);
    entry = vld1q_lane_u32(table + vgetq_lane_u32(at, 2), entry, 2);
    return vld1q_lane_u32(table + vgetq_lane_u32(at, 3), entry, 3);
}

/* step * part of a table's entry at a position */
LANES uint32x4_t within(uint32x4_t entry, uint32x4_t position)
{
    return vmulq_u32(vandq_u32(entry, vdupq_n_u32(0x1fff)),
                     vandq_u32(position, vdupq_n_u32(0xffff)));
}

LANES int32x4_t tanh_at(uint32x4_t position)
{
    const uint32x4_t entry = entries(gle_tanh_table, position);
    return as_signed(vaddq_u32(vshrq_n_u32(entry, 13), vrshrq_n_u32(within(entry, position), 16)));
}

LANES int32x4_t softplus_at(uint32x4_t position)
{
    const uint32x4_t entry = entries(gle_softplus_table, position);
    return as_signed(vsubq_u32(vshlq_n_u32(vshrq_n_u32(entry, 13), 4),
                               vrshrq_n_u32(within(entry, position), 12)));
}

LANES int32x4_t tanh_slope(int32x4_t y)
{
    const int32x4_t y15 = vrshrq_n_s32(y, 3);
    return vsubq_s32(all(GLE_PHI_ONE), vrshrq_n_s32(vmulq_s32(y15, y15), 15));
}

/* y, or -y where the lanes of `negative` are -1 */
LANES int32x4_t with_sign(int32x4_t y, int32x4_t negative)
{
    return vsubq_s32(veorq_s32(y, negative), negative);
}

/* gle_phi_rate on lanes; `drop` is gle_phi_drop, lane by lane. */
LANES int32x4_t rate_each(const int32_t phi, int32x4_t uhat, const gle_phi_format *f,
                          int32x4_t drop, int32x4_t *slope)
{
    const int32x4_t size = vabsq_s32(uhat);
    const int32x4_t negative = vshrq_n_s32(uhat, 31);

    if (phi == GLE_TANH) {
        const int32x4_t end = vminq_s32(size, all(f->end8));
        const int32x4_t y = tanh_at(as_bits(vshlq_s32(end, all(f->align))));
        *slope = tanh_slope(y);
        return with_sign(round_each(y, drop), negative);
    }
    if (phi == GLE_SIGMOID || phi == GLE_SOFTPLUS) {
        const int32x4_t end = vminq_s32(size, all(f->end16));
        const uint32x4_t position = as_bits(vshlq_s32(end, all(f->align - 1)));
        int32x4_t y = tanh_at(position);
        const int32x4_t z = vaddq_s32(all(1 << 18), with_sign(y, negative));
        if (phi == GLE_SIGMOID) {
            *slope = vrshrq_n_s32(tanh_slope(y), 2);
            return round_each(z, drop);
        }
        *slope = vshrq_n_s32(z, 4);
        y = round_by(softplus_at(position), f->soft_shift);
        return round_each(vaddq_s32(y, vbicq_s32(uhat, negative)), drop);
    }
    *slope = all(GLE_PHI_ONE);
    if (phi == GLE_RELU) {
        *slope = vandq_s32(*slope, as_signed(vcgtzq_s32(uhat)));
        uhat = vbicq_s32(uhat, negative);
    }
    return round_each(uhat, drop);
}

/* The same, all lanes alike. */
LANES int32x4_t rate(const int32_t phi, int32x4_t uhat, const gle_phi_format *f, int32x4_t *slope)
{
    return rate_each(phi, uhat, f, all(gle_phi_drop(phi, f)), slope);
}

/* Lanes of the first `left`. */
LANES uint32x4_t first_lanes(int32_t left)
{
    static const int32_t lanes[4] = {0, 1, 2, 3};
    return vcgtq_s32(all(left), vld1q_s32(lanes));
}

/* How many lanes of a mask are set, all lanes added up. */
LANES uint32_t count(uint32x4_t mask) { return 0u - vaddvq_u32(mask); }

/* gle_rng_root and gle_rng_word on lanes. */
LANES uint32x4_t rng_root(gle_key key, uint32x4_t index)
{
    uint32x4_t x = veorq_u32(index, vdupq_n_u32(key.a));
    x = vmulq_n_u32(veorq_u32(x, vshrq_n_u32(x, 16)), 0x7feb352du);
    x = vaddq_u32(veorq_u32(x, vshrq_n_u32(x, 15)), vdupq_n_u32(key.b));
    x = vmulq_n_u32(x, 0x846ca68bu);
    return veorq_u32(x, vshrq_n_u32(x, 16));
}

LANES uint32x4_t rng_word(uint32x4_t root, uint32_t which)
{
    const uint32x4_t x = vmulq_n_u32(root, which);
    return veorq_u32(x, vshrq_n_u32(x, 15));
}

/* gle_noise_unit before its mean: of the bytes b0 + s1 b1 in the lower half of a lane, b2 + s1 b3
 * in the upper one; s2 has 1 in lower halves. */
LANES int32x4_t noise_sum(uint32x4_t word, int16x8_t s1, int16x8_t s2)
{
    const uint16x8_t bytes = vreinterpretq_u16_u32(word);
    const int16x8_t even = vreinterpretq_s16_u16(vandq_u16(bytes, vdupq_n_u16(0xff)));
    const int16x8_t odd = vreinterpretq_s16_u16(vshrq_n_u16(bytes, 8));

    return vpaddlq_s16(vmulq_s16(vmlaq_s16(even, odd, s1), s2));
}

/* 1 in the lower half of a lane, `upper` in the upper one. */
LANES int16x8_t one_and(int16_t upper)
{
    return vtrn1q_s16(vdupq_n_s16(1), vdupq_n_s16(upper));
}

/* gle_noise_at of neuron i on lanes that are its streams. */
LANES int32x4_t noise(const gle_noise *f, int32_t i, uint32x4_t word)
{
    const int16x8_t s1 = vdupq_n_s16((int16_t)(1 - 2 * (i & 1)));
    const int32x4_t n = noise_sum(word, s1, one_and((int16_t)(1 - (i & 2))));
    const int32x4_t unit = vsubq_s32(n, all(gle_noise_mean(i, 0)));

    return round_by(vmulq_n_s32(unit, f->m), f->right - f->left);
}

/* gle_noise_unit on lanes that are four neurons from a first of four on. */
LANES int32x4_t noise_units(uint32x4_t word)
{
    static const int16_t signs[2][8] = {{1, 1, -1, -1, 1, 1, -1, -1}, {1, 1, 1, 1, 1, -1, 1, -1}};
    static const int32_t mean[4] = {GLE_NOISE_MEAN, 0, 0, 0};

    return vsubq_s32(noise_sum(word, vld1q_s16(signs[0]), vld1q_s16(signs[1])), vld1q_s32(mean));
}

/* The same noise in all neurons; then with a noise word (gle_noise) for each. */
LANES int32x4_t noise_alike(const gle_noise *f, uint32x4_t word)
{
    return round_by(vmulq_n_s32(noise_units(word), f->m), f->right - f->left);
}

LANES int32x4_t noise_each(uint32x4_t packed, uint32x4_t word)
{
    const int32x4_t k = vsubq_s32(as_signed(vandq_u32(packed, vdupq_n_u32(0xff))),
                                  all(GLE_NOISE_BIAS));
    return round_each(vmulq_s32(noise_units(word), as_signed(vshrq_n_u32(packed, 8))), k);
}

/* The words of neuron i and its neighbours, for each stream of a batch: those of membranes,
 * then those of errors, where there is noise there. */
LANES void draw_words(const gle_neuron_job *job, int32_t i)
{
    static const uint32_t lanes[4] = {0, GLE_MAX_SIZE / 4, 2 * (GLE_MAX_SIZE / 4),
                                      3 * (GLE_MAX_SIZE / 4)};

    for (int32_t b = 0; b < job->columns; b += 4) {
        const uint32_t first = gle_noise_index(job->first + (uint32_t)b, i);
        const uint32x4_t root =
            rng_root(job->key, vaddq_u32(vld1q_u32(lanes), vdupq_n_u32(first)));
        vst1q_u32(job->words + b, rng_word(root, GLE_RNG_FIRST));
        if (job->noise_e.m != 0) {
            vst1q_u32(job->words + job->columns + b, rng_word(root, GLE_RNG_SECOND));
        }
    }
}

#endif
