/* One time step of a layer's neurons for a single stream with NEON: four neurons at a time,
 * each lane with its own multipliers, offset, gain and noise. The same integers as
 * neurons_scalar.c. Signals can be read beyond their end (the arena is aligned to 64 bytes),
 * records of neurons, which are in the image, cannot; nothing is written there. */
#include "neurons.h"

#if defined(__aarch64__) && !defined(GLE_SCALAR_ONLY)

#include "lanes_neon.h"

/* The four words of four records, 0 where none are left. */
LANES uint32x4x4_t records(const uint32_t *from, int32_t left)
{
    uint32_t some[16] = {0};

    if (left >= 4) {
        return vld4q_u32(from);
    }
    for (int32_t k = 0; k < 4 * left; k++) {
        some[k] = from[k];
    }
    return vld4q_u32(some);
}

LANES int32x4_t factors(uint32x4_t packed) { return as_signed(vshrq_n_u32(packed, 8)); }

LANES int32x4_t shifts(uint32x4_t packed)
{
    return as_signed(vandq_u32(packed, vdupq_n_u32(0xff)));
}

LANES int32x4_t scale_packed(int32x4_t d, uint32x4_t packed)
{
    return scale_each(d, factors(packed), shifts(packed));
}

/* d within what a multiplier's product can hold. */
LANES int32x4_t near_each(int32x4_t d, uint32x4_t packed)
{
    const int32x4_t bits = vminq_s32(all(29), vaddq_s32(shifts(packed), all(15)));
    return clamp_each(d, vshlq_s32(all(1), bits));
}

typedef struct {
    gle_tally count;
    uint32x4_t under_e, half_e, hash;
    int32x4_t peak_r;
} tally;

/* What is off in four neurons, see gle_row_analog. */
typedef struct {
    int32x4_t offset, gain;
    uint32x4_t noise_u;
    int32x4_t extra; /* bits of a rate before its gain */
} off_lanes;

LANES off_lanes off_of(const gle_layer *layer, int32_t i, int32_t left)
{
    const int32x4_t one = all(GLE_GAIN_ONE);
    off_lanes off = {all(0), one, vdupq_n_u32(0), all(0)};

    if (layer->analog != NULL) {
        const uint32_t *own = (const uint32_t *)(const void *)(layer->analog + i);
        const uint32x4x4_t word = records(own, left);
        off.offset = as_signed(word.val[0]);
        off.gain = as_signed(word.val[1]);
        off.noise_u = word.val[2];
        off.extra = vbicq_s32(all(gle_fine_frac(layer) - layer->r_frac),
                              as_signed(vceqq_s32(off.gain, one)));
    }
    return off;
}

LANES void four(const gle_neuron_job *job, const gle_row *same, int32_t i, const int32_t phi,
                const int analog, tally *t)
{
    static const uint32_t lanes[4] = {0, 1, 2, 3};
    gle_layer *const layer = job->layer;
    const int32_t bounded = phi == GLE_TANH || phi == GLE_SIGMOID;
    const int32_t left = layer->n - i;
    const uint32x4_t live = first_lanes(left);
    const int32x4_t alive = as_signed(live);
    const int32x4_t v = vld1q_s32(layer->v + i);
    const int32x4_t u = vld1q_s32(layer->u + i);
    const uint32x4x4_t word = records((const uint32_t *)(const void *)(layer->neurons + i), left);
    int32x4_t slope = as_signed(vmovl_u16(vld1_u16(layer->dphi + i)));
    uint32x4_t root = vdupq_n_u32(0); /* the same for four neurons */
    off_lanes off = {all(0), all(0), root, all(0)};

    if (analog) {
        off = off_of(layer, i, left);
        root = vdupq_n_u32(gle_rng_root(job->key, gle_noise_index(job->first, i)));
    }

    int32x4_t raw = scale_q15(vld1q_s32(job->above + i), slope);
    const int32x4_t inst = clamp(raw, GLE_STATE_MAX);
    const int32x4_t delta_v = vsubq_s32(inst, v);
    int32x4_t near = near_each(delta_v, word.val[3]);
    const uint32x4_t ok_inst = vandq_u32(vceqq_s32(raw, inst), vceqq_s32(near, delta_v));
    int32x4_t ehat = vaddq_s32(v, scale_packed(near, word.val[3]));
    if (analog && same->noise_e.m != 0) {
        ehat = vaddq_s32(ehat, noise_alike(&same->noise_e, rng_word(root, GLE_RNG_SECOND)));
    }
    const int32x4_t v_new = vaddq_s32(v, scale_packed(delta_v, word.val[2]));
    store_some(layer->v + i, v_new, left);
    raw = round_by(ehat, same->v_extra);
    const int32x4_t e = clamp(raw, same->e_max);
    const uint32x4_t ok_e = vceqq_s32(raw, e);
    const uint32x4_t none = vandq_u32(live, vceqzq_s32(e));
    t->under_e = vsubq_u32(t->under_e, vandq_u32(none, vtstq_s32(ehat, ehat)));
    const uint32x4_t large = vcgtq_s32(vabsq_s32(e), all(same->e_max >> 1));
    t->half_e = vsubq_u32(t->half_e, vandq_u32(live, large));
    store16_some(layer->e + i, e, left);

    raw = vaddq_s32(vld1q_s32(job->sums + i), vld1q_s32(layer->bias + i));
    if (same->gamma_m != 0) {
        int32x4_t nudge = clamp(vmulq_n_s32(e, same->gamma_m), same->gamma_limit);
        nudge = vshlq_s32(nudge, all(same->gamma_left));
        raw = vaddq_s32(raw, round_by(nudge, same->gamma_right));
    }
    const int32x4_t x = clamp(raw, same->u_max);
    const uint32x4_t ok_x = vceqq_s32(raw, x);
    const int32x4_t delta_u = vsubq_s32(x, u);
    near = near_each(delta_u, word.val[1]);
    const uint32x4_t ok_uhat = vceqq_s32(near, delta_u);
    const int32x4_t uhat = vaddq_s32(u, scale_packed(near, word.val[1]));
    int32x4_t u_new = vaddq_s32(u, scale_packed(delta_u, word.val[0]));
    if (analog) {
        const int32x4_t more = noise_each(off.noise_u, rng_word(root, GLE_RNG_FIRST));
        u_new = clamp(vaddq_s32(u_new, more), same->u_max);
    }
    store_some(layer->u + i, u_new, left);
    if (layer->uhat != NULL) {
        store_some(layer->uhat + i, uhat, left);
    }
    uint32x4_t ok_r = vdupq_n_u32(UINT32_MAX);
    if (analog) {
        const int32x4_t drop = vsubq_s32(all(gle_phi_drop(phi, &same->format)), off.extra);
        raw = rate_each(phi, vaddq_s32(uhat, off.offset), &same->format, drop, &slope);
        near = clamp_each(raw, vshlq_s32(all(same->r_max), off.extra));
        const uint32x4_t dead = vceqzq_s32(off.gain);
        ok_r = vorrq_u32(dead, vceqq_s32(raw, near));
        raw = round_each(vmulq_s32(near, off.gain), vaddq_s32(off.extra, all(GLE_GAIN_BITS)));
        slope = vbicq_s32(slope, as_signed(dead));
    } else {
        raw = rate(phi, uhat, &same->format, &slope);
    }
    const int32x4_t r = clamp(raw, same->r_max);
    if (bounded) {
        ok_r = vdupq_n_u32(UINT32_MAX);
    } else {
        ok_r = vandq_u32(ok_r, vceqq_s32(raw, r));
        t->peak_r = vmaxq_s32(t->peak_r, vandq_s32(alive, vabsq_s32(r)));
    }
    store16_some(layer->r + i, r, left);
    store16_some((int16_t *)(void *)(layer->dphi + i), slope, left);

    const uint32x4_t index =
        vmulq_n_u32(vaddq_u32(vdupq_n_u32((uint32_t)(layer->first + i)), vld1q_u32(lanes)), 3u);
    const uint32x4_t states[3] = {as_bits(u_new), as_bits(v_new),
                                  vsliq_n_u32(as_bits(r), as_bits(e), 16)};
    const uint32_t factor[3] = {0x9e3779b1u, 0x85ebca77u, 0xc2b2ae3du};
#pragma GCC unroll 3
    for (uint32_t c = 0; c < 3; c++) {
        const uint32x4_t by = vorrq_u32(
            vmulq_n_u32(vaddq_u32(index, vdupq_n_u32(c + 1)), factor[c]), vdupq_n_u32(1));
        t->hash = vmlaq_u32(t->hash, vandq_u32(live, states[c]), by);
    }

    /* Clips are rare: look for one of any kind, and count only then. */
    const uint32x4_t ok =
        vandq_u32(vandq_u32(vandq_u32(ok_inst, ok_e), vandq_u32(ok_x, ok_uhat)), ok_r);
    if (vmaxvq_u32(vbicq_u32(live, ok)) != 0) {
        t->count.sat_inst += count(vbicq_u32(live, ok_inst));
        t->count.sat_e += count(vbicq_u32(live, ok_e));
        t->count.sat_x += count(vbicq_u32(live, ok_x));
        t->count.sat_uhat += count(vbicq_u32(live, ok_uhat));
        t->count.sat_r += count(vbicq_u32(live, ok_r));
    }
}

#define IDEAL_ROWS(phi)                     \
    for (int32_t i = 0; i < n; i += 4) {    \
        four(job, &same, i, phi, 0, &t);    \
    }
#define ANALOG_ROWS(phi)                    \
    for (int32_t i = 0; i < n; i += 4) {    \
        four(job, &same, i, phi, 1, &t);    \
    }

void gle_neurons_one_neon(const gle_neuron_job *job)
{
    const uint32x4_t zero = vdupq_n_u32(0);
    const int32_t n = job->layer->n;
    tally t = {{0, 0, 0, 0, 0, 0, 0, 0}, zero, zero, zero, all(0)};
    gle_row same;

    gle_row_of_layer(job, &same);
    if (job->analog) {
        GLE_WITH_PHI(job->layer->image->phi, ANALOG_ROWS)
    } else {
        GLE_WITH_PHI(job->layer->image->phi, IDEAL_ROWS)
    }
    job->hash[0] += vaddvq_u32(t.hash);
    t.count.under_e = vaddvq_u32(t.under_e);
    t.count.half_e = vaddvq_u32(t.half_e);
    t.count.peak_r = (uint32_t)vmaxvq_s32(t.peak_r);
    gle_counted(job, n, &t.count);
}

#else
typedef int gle_no_neurons_one_neon; /* ISO C wants one declaration a file */
#endif
