/* One time step of a layer's neurons for NEON, four streams at a time.
 *
 * The same integers as neurons_scalar.c, line by line.
 */
#include "neurons.h"

#if defined(__aarch64__) && !defined(GLE_SCALAR_ONLY)

#include "lanes_neon.h"

LANES void step_row(const gle_neuron_job *job, int32_t i, const gle_phi_formats *formats,
                    const int32_t phi, const int analog)
{
    gle_layer *const layer = job->layer;
    const int32_t batch = job->batch, columns = job->columns;
    const size_t at = (size_t)i * (size_t)columns;
    const int32_t *const sums = job->sums + at, *const above = job->above + at;
    int32_t *const u_row = layer->u + at, *const v_row = layer->v + at;
    int32_t *const uhat_row = layer->uhat ? layer->uhat + at : NULL;
    int16_t *const r_row = layer->r + at, *const e_row = layer->e + at;
    uint16_t *const dphi_row = layer->dphi + at;
    uint32_t *const hashes = job->hash;
    const uint32_t *const words = job->words;
    const int32_t bounded = phi == GLE_TANH || phi == GLE_SIGMOID;
    gle_row row;

    gle_row_of_layer(job, &row);
    gle_row_of(job, i, &row);
    const int32_t noisy_u = analog && row.noise_u.m != 0, noisy_e = analog && row.noise_e.m != 0;
    const int32_t gained = analog && (row.offset != 0 || row.gain != GLE_GAIN_ONE);
    uint32x4_t half_e = vdupq_n_u32(0), under = half_e;
    int32x4_t peak_r = all(0);
    uint32_t sat_x = 0, sat_uhat = 0, sat_r = 0, sat_inst = 0, sat_e = 0;

    for (int32_t b = 0; b < columns; b += 4) {
        const uint32x4_t live = first_lanes(batch - b);
        const int32x4_t alive = as_signed(live);
        const int32x4_t v = vld1q_s32(v_row + b);
        const int32x4_t u = vld1q_s32(u_row + b);
        int32x4_t slope = as_signed(vmovl_u16(vld1_u16(dphi_row + b)));
        uint32x4_t ok_inst, ok_e, ok_x, ok_uhat, ok_r, ok;

        int32x4_t raw = scale_q15(vld1q_s32(above + b), slope);
        const int32x4_t inst = clamp(raw, GLE_STATE_MAX);
        const int32x4_t delta_v = vsubq_s32(inst, v);
        int32x4_t near = clamp(delta_v, row.ratio_v.limit);
        ok_inst = vandq_u32(vceqq_s32(raw, inst), vceqq_s32(near, delta_v));
        int32x4_t ehat = vaddq_s32(v, scale(near, &row.ratio_v));
        if (noisy_e) {
            const uint32x4_t word = vld1q_u32(words + columns + b);
            ehat = vaddq_s32(ehat, vandq_s32(alive, noise(&row.noise_e, i, word)));
        }
        const int32x4_t v_new = vaddq_s32(v, scale(delta_v, &row.leak_v));
        vst1q_s32(v_row + b, v_new);
        raw = round_by(ehat, row.v_extra);
        const int32x4_t e = clamp(raw, row.e_max);
        ok_e = vceqq_s32(raw, e);
        under = vsubq_u32(under, vandq_u32(vandq_u32(live, vceqzq_s32(e)), vtstq_s32(ehat, ehat)));
        half_e = vsubq_u32(half_e,
                           vandq_u32(live, vcgtq_s32(vabsq_s32(e), all(row.e_max >> 1))));
        vst1_s16(e_row + b, vmovn_s32(e));

        raw = vaddq_s32(vld1q_s32(sums + b), all(row.bias));
        if (row.gamma_m != 0) {
            int32x4_t nudge = clamp(vmulq_n_s32(e, row.gamma_m), row.gamma_limit);
            nudge = vshlq_s32(nudge, all(row.gamma_left));
            raw = vaddq_s32(raw, round_by(nudge, row.gamma_right));
        }
        const int32x4_t x = clamp(raw, row.u_max);
        ok_x = vceqq_s32(raw, x);
        const int32x4_t delta_u = vsubq_s32(x, u);
        near = clamp(delta_u, row.ratio_u.limit);
        ok_uhat = vceqq_s32(near, delta_u);
        const int32x4_t uhat = vaddq_s32(u, scale(near, &row.ratio_u));
        int32x4_t u_new = vaddq_s32(u, scale(delta_u, &row.leak_u));
        if (noisy_u) {
            const int32x4_t more = noise(&row.noise_u, i, vld1q_u32(words + b));
            u_new = clamp(vaddq_s32(u_new, vandq_s32(alive, more)), row.u_max);
        }
        vst1q_s32(u_row + b, u_new);
        if (uhat_row != NULL) {
            vst1q_s32(uhat_row + b, uhat);
        }
        ok_r = vdupq_n_u32(UINT32_MAX);
        if (gained) {
            raw = rate(phi, vaddq_s32(uhat, all(row.offset)), &formats->at[row.finer], &slope);
            near = clamp(raw, row.fine_max);
            ok_r = row.gain == 0 ? ok_r : vceqq_s32(raw, near);
            raw = round_by(vmulq_n_s32(near, row.gain), GLE_GAIN_BITS + row.fine_extra);
            slope = row.gain == 0 ? all(0) : slope;
        } else {
            raw = rate(phi, uhat, &row.format, &slope);
        }
        const int32x4_t r = clamp(raw, row.r_max);
        if (bounded) {
            ok_r = vdupq_n_u32(UINT32_MAX);
        } else {
            ok_r = vandq_u32(ok_r, vceqq_s32(raw, r));
            peak_r = vmaxq_s32(peak_r, vandq_s32(alive, vabsq_s32(r)));
        }
        vst1_s16(r_row + b, vmovn_s32(r));
        vst1_u16(dphi_row + b, vmovn_u32(as_bits(slope)));

        uint32x4_t hash = vld1q_u32(hashes + b);
        hash = vmlaq_n_u32(hash, as_bits(u_new), row.hash_u);
        hash = vmlaq_n_u32(hash, as_bits(v_new), row.hash_v);
        hash = vmlaq_n_u32(hash, vsliq_n_u32(as_bits(r), as_bits(e), 16), row.hash_s);
        vst1q_u32(hashes + b, hash);

        /* Clips are rare: look for one of any kind, and count only then. */
        ok = vandq_u32(vandq_u32(vandq_u32(ok_inst, ok_e), vandq_u32(ok_x, ok_uhat)), ok_r);
        if (vmaxvq_u32(vbicq_u32(live, ok)) != 0) {
            sat_inst += count(vbicq_u32(live, ok_inst));
            sat_e += count(vbicq_u32(live, ok_e));
            sat_x += count(vbicq_u32(live, ok_x));
            sat_uhat += count(vbicq_u32(live, ok_uhat));
            sat_r += count(vbicq_u32(live, ok_r));
        }
    }
    const gle_tally t = {sat_x,
                         sat_uhat,
                         sat_r,
                         sat_inst,
                         sat_e,
                         vaddvq_u32(under),
                         vaddvq_u32(half_e),
                         (uint32_t)vmaxvq_s32(peak_r)};
    gle_counted(job, 1, &t);
}

#define IDEAL_ROWS(phi)                 \
    for (int32_t i = 0; i < n; i++) {   \
        step_row(job, i, NULL, phi, 0); \
    }
#define ANALOG_ROWS(phi)                    \
    for (int32_t i = 0; i < n; i++) {       \
        if (job->noisy && (i & 3) == 0) {   \
            draw_words(job, i);             \
        }                                   \
        step_row(job, i, &formats, phi, 1); \
    }

void gle_neurons_neon(const gle_neuron_job *job)
{
    const int32_t n = job->layer->n;

    if (job->columns == 1) {
        gle_neurons_one_neon(job);
        return;
    }
    if (job->analog) {
        const gle_phi_formats formats = gle_phi_formats_of(job->layer);
        GLE_WITH_PHI(job->layer->image->phi, ANALOG_ROWS)
    } else {
        GLE_WITH_PHI(job->layer->image->phi, IDEAL_ROWS)
    }
}

#else
typedef int gle_no_neurons_neon; /* ISO C wants one declaration a file */
#endif
