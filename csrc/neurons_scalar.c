/* One time step of a layer's neurons in plain C: what every other kernel must equal.
 *
 * With the layer's previous states on the right:
 *     inst = phi'(uhat) above                 e = v + (tau_m/tau_r)(inst - v)
 *     v   += (dt/tau_r)(inst - v)             x = W below + b + gamma e
 *     uhat = u + (tau_r/tau_m)(x - u)         u += (dt/tau_m)(x - u)
 *     r    = phi(uhat)
 * and what is off or noisy as in analog.h.
 */
#include "neurons.h"

static void step_row(const gle_neuron_job *job, int32_t i)
{
    gle_layer *const layer = job->layer;
    const int32_t phi = layer->image->phi;
    const int32_t columns = job->columns;
    const int32_t batch = job->batch;
    const size_t at = (size_t)i * (size_t)columns;
    const int32_t *restrict const sums = job->sums + at;
    const int32_t *restrict const above = job->above + at;
    int32_t *restrict const u_row = layer->u + at;
    int32_t *restrict const v_row = layer->v + at;
    int32_t *restrict const uhat_row = layer->uhat ? layer->uhat + at : NULL;
    int16_t *restrict const r_row = layer->r + at;
    int16_t *restrict const e_row = layer->e + at;
    uint16_t *restrict const dphi_row = layer->dphi + at;
    uint32_t *restrict const hash = job->hash;
    gle_row row;

    gle_row_of(job, i, &row);
    const int32_t noisy = (row.noise_u.m | row.noise_e.m) != 0;
    const int32_t bounded = phi == GLE_TANH || phi == GLE_SIGMOID;
    uint32_t sat_x = 0, sat_uhat = 0, sat_r = 0, sat_inst = 0, sat_e = 0, under_e = 0;
    uint32_t half_e = 0, peak_r = 0;

    for (int32_t b = 0; b < columns; b++) {
        const uint32_t live = b < batch;
        const int32_t v = v_row[b];
        const int32_t u = u_row[b];
        int32_t inst, delta, near, ehat, e, x, uhat, r, dphi, raw;
        uint32_t size, clipped, root = 0;

        raw = gle_scale_q15(above[b], (int32_t)dphi_row[b]);
        inst = gle_clamp(raw, GLE_STATE_MAX);
        delta = inst - v;
        near = gle_clamp(delta, row.ratio_v.limit);
        sat_inst += live & ((uint32_t)(raw != inst) | (uint32_t)(near != delta));
        ehat = v + gle_scale(near, &row.ratio_v);
        if (noisy && live) {
            root = gle_rng_root(job->key, gle_noise_index(job->first + (uint32_t)b, i));
            ehat += gle_noise_at(&row.noise_e, gle_rng_word(root, GLE_RNG_SECOND));
        }
        delta = v + gle_scale(delta, &row.leak_v);
        v_row[b] = delta;
        raw = (ehat + row.v_half) >> row.v_extra;
        e = gle_clamp(raw, row.e_max);
        sat_e += live & (uint32_t)(raw != e);
        under_e += live & ((uint32_t)(e == 0) & (uint32_t)(ehat != 0));
        half_e += live & (uint32_t)((e < 0 ? -e : e) > row.e_max >> 1);
        e_row[b] = (int16_t)e;

        raw = (int32_t)((uint32_t)gle_clamp(e * row.gamma_m, row.gamma_limit) << row.gamma_left);
        raw = sums[b] + row.bias + ((raw + row.gamma_half) >> row.gamma_right);
        x = gle_clamp(raw, row.u_max);
        sat_x += live & (uint32_t)(raw != x);
        delta = x - u;
        near = gle_clamp(delta, row.ratio_u.limit);
        sat_uhat += live & (uint32_t)(near != delta);
        uhat = u + gle_scale(near, &row.ratio_u);
        delta = u + gle_scale(delta, &row.leak_u);
        if (noisy && live) {
            delta += gle_noise_at(&row.noise_u, gle_rng_word(root, GLE_RNG_FIRST));
            delta = gle_clamp(delta, row.u_max);
        }
        u_row[b] = delta;
        if (uhat_row) {
            uhat_row[b] = uhat;
        }
        raw = gle_phi_rate(phi, uhat + row.offset, &row.format, &dphi);
        clipped = 0;
        if (job->analog) {
            near = gle_clamp(raw, row.fine_max);
            clipped = (uint32_t)(near != raw);
            raw = gle_gained(near, row.gain, row.fine_extra);
            dphi = row.gain == 0 ? 0 : dphi;
        }
        r = gle_clamp(raw, row.r_max);
        /* a bounded activation ends at the format's end: its shape, not a clip */
        sat_r += bounded ? 0u : live & (clipped | (uint32_t)(raw != r));
        if (!bounded) {
            size = live ? (uint32_t)(r < 0 ? -r : r) : 0u;
            peak_r = size > peak_r ? size : peak_r;
        }
        r_row[b] = (int16_t)r;
        dphi_row[b] = (uint16_t)dphi;
        hash[b] += row.hash_u * (uint32_t)delta + row.hash_v * (uint32_t)v_row[b] +
                   row.hash_s * ((uint32_t)e << 16 | ((uint32_t)r & 0xffffu));
    }
    gle_row_counted(job, sat_x, sat_uhat, sat_r, sat_inst, sat_e, under_e, half_e, peak_r);
}

void gle_neurons_scalar(const gle_neuron_job *job)
{
    for (int32_t i = 0; i < job->layer->n; i++) {
        step_row(job, i);
    }
}
