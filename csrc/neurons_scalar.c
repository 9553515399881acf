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

/* A single stream keeps them from one neuron to the next three. */
static inline void draw_words(const gle_neuron_job *job, int32_t i, int32_t b, gle_row *kept)
{
    uint32_t root;

    if (job->columns > 1 || (i & 3) == 0) {
        root = gle_rng_root(job->key, gle_noise_index(job->first + (uint32_t)b, i));
        kept->word_u = gle_rng_word(root, GLE_RNG_FIRST);
        kept->word_e = gle_rng_word(root, GLE_RNG_SECOND);
    }
}

static void step_row(const gle_neuron_job *job, int32_t i, gle_row *kept, gle_tally *t)
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

    gle_row_of(job, i, kept);
    if (job->analog) {
        kept->format = gle_phi_format_of(layer->u_frac, layer->r_frac + kept->fine_extra);
    }
    const int32_t noisy = job->noisy;
    const int32_t bounded = phi == GLE_TANH || phi == GLE_SIGMOID;

    for (int32_t b = 0; b < columns; b++) {
        const uint32_t live = b < batch;
        const int32_t v = v_row[b];
        const int32_t u = u_row[b];
        int32_t inst, delta, near, ehat, e, x, uhat, r, dphi, raw;
        uint32_t size, clipped;

        raw = gle_scale_q15(above[b], (int32_t)dphi_row[b]);
        inst = gle_clamp(raw, GLE_STATE_MAX);
        delta = inst - v;
        near = gle_clamp(delta, kept->ratio_v.limit);
        t->sat_inst += live & ((uint32_t)(raw != inst) | (uint32_t)(near != delta));
        ehat = v + gle_scale(near, &kept->ratio_v);
        if (noisy && live) {
            draw_words(job, i, b, kept);
            ehat += kept->noise_e.m == 0
                        ? 0
                        : gle_noise_at(&kept->noise_e, gle_noise_unit(kept->word_e, i));
        }
        delta = v + gle_scale(delta, &kept->leak_v);
        v_row[b] = delta;
        raw = (ehat + kept->v_half) >> kept->v_extra;
        e = gle_clamp(raw, kept->e_max);
        t->sat_e += live & (uint32_t)(raw != e);
        t->under_e += live & ((uint32_t)(e == 0) & (uint32_t)(ehat != 0));
        t->half_e += live & (uint32_t)((e < 0 ? -e : e) > kept->e_max >> 1);
        e_row[b] = (int16_t)e;

        raw = (int32_t)((uint32_t)gle_clamp(e * kept->gamma_m, kept->gamma_limit) << kept->gamma_left);
        raw = sums[b] + kept->bias + ((raw + kept->gamma_half) >> kept->gamma_right);
        x = gle_clamp(raw, kept->u_max);
        t->sat_x += live & (uint32_t)(raw != x);
        delta = x - u;
        near = gle_clamp(delta, kept->ratio_u.limit);
        t->sat_uhat += live & (uint32_t)(near != delta);
        uhat = u + gle_scale(near, &kept->ratio_u);
        delta = u + gle_scale(delta, &kept->leak_u);
        if (noisy && live) {
            delta += gle_noise_at(&kept->noise_u, gle_noise_unit(kept->word_u, i));
            delta = gle_clamp(delta, kept->u_max);
        }
        u_row[b] = delta;
        if (uhat_row) {
            uhat_row[b] = uhat;
        }
        raw = gle_phi_rate(phi, uhat + kept->offset, &kept->format, &dphi);
        clipped = 0;
        if (job->analog) {
            near = gle_clamp(raw, kept->fine_max);
            clipped = (uint32_t)(near != raw) & (uint32_t)(kept->gain != 0);
            raw = gle_gained(near, kept->gain, kept->fine_extra);
            dphi = kept->gain == 0 ? 0 : dphi;
        }
        r = gle_clamp(raw, kept->r_max);
        /* a bounded activation ends at the format's end: its shape, not a clip */
        t->sat_r += bounded ? 0u : live & (clipped | (uint32_t)(raw != r));
        if (!bounded) {
            size = live ? (uint32_t)(r < 0 ? -r : r) : 0u;
            t->peak_r = size > t->peak_r ? size : t->peak_r;
        }
        r_row[b] = (int16_t)r;
        dphi_row[b] = (uint16_t)dphi;
        hash[b] += kept->hash_u * (uint32_t)delta + kept->hash_v * (uint32_t)v_row[b] +
                   kept->hash_s * ((uint32_t)e << 16 | ((uint32_t)r & 0xffffu));
    }
}

void gle_neurons_scalar(const gle_neuron_job *job)
{
    gle_tally tally = {0, 0, 0, 0, 0, 0, 0, 0};
    gle_row row;

    gle_row_of_layer(job, &row);
    for (int32_t i = 0; i < job->layer->n; i++) {
        step_row(job, i, &row, &tally);
    }
    gle_counted(job, job->layer->n, &tally);
}
