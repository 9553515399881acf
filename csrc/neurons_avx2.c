/* One time step of a layer's neurons for AVX2, eight streams at a time.
 *
 * The same integers as neurons_scalar.c, line by line.
 */
#include "neurons.h"

#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)

#include "lanes_avx2.h"

LANES void step_row(const gle_neuron_job *job, int32_t i, const gle_phi_formats *formats,
                    const int32_t phi, const int analog)
{
    gle_layer *const layer = job->layer;
    const size_t at = (size_t)i * (size_t)job->columns;
    int16_t *const r_row = layer->r + at;
    int16_t *const e_row = layer->e + at;
    uint16_t *const dphi_row = layer->dphi + at;
    const int32_t bounded = phi == GLE_TANH || phi == GLE_SIGMOID;
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    gle_row row;

    gle_row_of_layer(job, &row);
    gle_row_of(job, i, &row);
    const int32_t noisy_u = analog && row.noise_u.m != 0, noisy_e = analog && row.noise_e.m != 0;
    const int32_t gained = analog && (row.offset != 0 || row.gain != GLE_GAIN_ONE);
    const int32_t gained_half = 1 << (GLE_GAIN_BITS - 1 + row.fine_extra);
    __m256i half_e = _mm256_setzero_si256(), peak_r = half_e, under = half_e;
    uint32_t sat_x = 0, sat_uhat = 0, sat_r = 0, sat_inst = 0, sat_e = 0;

    for (int32_t b = 0; b < job->columns; b += 8) {
        const size_t here = at + (size_t)b;
        const __m256i live = _mm256_cmpgt_epi32(all(job->batch - b), lanes);
        const __m256i v = load(layer->v + here);
        const __m256i u = load(layer->u + here);
        __m256i slope =
            _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)(dphi_row + b)));
        __m256i ok_inst, ok_e, ok_x, ok_uhat, ok_r, ok;

        __m256i raw = scale_q15(load(job->above + here), slope);
        const __m256i inst = clamp(raw, GLE_STATE_MAX);
        const __m256i delta_v = _mm256_sub_epi32(inst, v);
        __m256i near = clamp(delta_v, row.ratio_v.limit);
        ok_inst = _mm256_and_si256(_mm256_cmpeq_epi32(raw, inst),
                                   _mm256_cmpeq_epi32(near, delta_v));
        __m256i ehat = _mm256_add_epi32(v, scale(near, &row.ratio_v));
        if (noisy_e) {
            const __m256i more = noise(&row.noise_e, i, load(job->words + job->columns + b));
            ehat = _mm256_add_epi32(ehat, _mm256_and_si256(live, more));
        }
        const __m256i v_new = _mm256_add_epi32(v, scale(delta_v, &row.leak_v));
        store(layer->v + here, v_new);
        raw = sra(_mm256_add_epi32(ehat, all(row.v_half)), row.v_extra);
        const __m256i e = clamp(raw, row.e_max);
        ok_e = _mm256_cmpeq_epi32(raw, e);
        under = _mm256_sub_epi32(
            under, _mm256_andnot_si256(_mm256_cmpeq_epi32(ehat, _mm256_setzero_si256()),
                                       _mm256_and_si256(live, _mm256_cmpeq_epi32(
                                                                  e, _mm256_setzero_si256()))));
        half_e = _mm256_sub_epi32(
            half_e, _mm256_and_si256(live, _mm256_cmpgt_epi32(_mm256_abs_epi32(e),
                                                              all(row.e_max >> 1))));
        store16(e_row + b, e);

        raw = _mm256_add_epi32(load(job->sums + here), all(row.bias));
        if (row.gamma_m != 0) {
            __m256i nudge = clamp(_mm256_mullo_epi32(e, all(row.gamma_m)), row.gamma_limit);
            nudge = sll(nudge, row.gamma_left);
            nudge = sra(_mm256_add_epi32(nudge, all(row.gamma_half)), row.gamma_right);
            raw = _mm256_add_epi32(raw, nudge);
        }
        const __m256i x = clamp(raw, row.u_max);
        ok_x = _mm256_cmpeq_epi32(raw, x);
        const __m256i delta_u = _mm256_sub_epi32(x, u);
        near = clamp(delta_u, row.ratio_u.limit);
        ok_uhat = _mm256_cmpeq_epi32(near, delta_u);
        const __m256i uhat = _mm256_add_epi32(u, scale(near, &row.ratio_u));
        __m256i u_new = _mm256_add_epi32(u, scale(delta_u, &row.leak_u));
        if (noisy_u) {
            const __m256i more = noise(&row.noise_u, i, load(job->words + b));
            u_new = clamp(_mm256_add_epi32(u_new, _mm256_and_si256(live, more)), row.u_max);
        }
        store(layer->u + here, u_new);
        if (layer->uhat != NULL) {
            store(layer->uhat + here, uhat);
        }
        ok_r = all(-1);
        if (gained) {
            raw = rate(phi, _mm256_add_epi32(uhat, all(row.offset)), &formats->at[row.finer],
                       &slope);
            near = clamp(raw, row.fine_max);
            ok_r = row.gain == 0 ? all(-1) : _mm256_cmpeq_epi32(raw, near);
            raw = _mm256_add_epi32(_mm256_mullo_epi32(near, all(row.gain)), all(gained_half));
            raw = sra(raw, GLE_GAIN_BITS + row.fine_extra);
            slope = row.gain == 0 ? _mm256_setzero_si256() : slope;
        } else {
            raw = rate(phi, uhat, &row.format, &slope);
        }
        const __m256i r = clamp(raw, row.r_max);
        ok_r = bounded ? all(-1) : _mm256_and_si256(ok_r, _mm256_cmpeq_epi32(raw, r));
        if (!bounded) {
            peak_r = _mm256_max_epi32(peak_r, _mm256_and_si256(live, _mm256_abs_epi32(r)));
        }
        store16(r_row + b, r);
        store16(dphi_row + b, slope);

        __m256i hash = load(job->hash + b);
        hash = _mm256_add_epi32(hash, _mm256_mullo_epi32(u_new, all((int32_t)row.hash_u)));
        hash = _mm256_add_epi32(hash, _mm256_mullo_epi32(v_new, all((int32_t)row.hash_v)));
        hash = _mm256_add_epi32(
            hash, _mm256_mullo_epi32(_mm256_blend_epi16(_mm256_slli_epi32(e, 16), r, 0x55),
                                     all((int32_t)row.hash_s)));
        store(job->hash + b, hash);

        /* Clips are rare: look for one of any kind, and count only then. */
        ok = _mm256_and_si256(_mm256_and_si256(ok_inst, ok_e), _mm256_and_si256(ok_x, ok_uhat));
        ok = _mm256_and_si256(ok, ok_r);
        if (!_mm256_testc_si256(ok, live)) {
            sat_inst += count(_mm256_andnot_si256(ok_inst, live));
            sat_e += count(_mm256_andnot_si256(ok_e, live));
            sat_x += count(_mm256_andnot_si256(ok_x, live));
            sat_uhat += count(_mm256_andnot_si256(ok_uhat, live));
            sat_r += count(_mm256_andnot_si256(ok_r, live));
        }
    }
    const gle_tally t = {sat_x,        sat_uhat,      sat_r,          sat_inst, sat_e,
                         total(under), total(half_e), largest(peak_r)};
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

AVX2 void gle_neurons_avx2(const gle_neuron_job *job)
{
    const int32_t n = job->layer->n;

    if (job->columns == 1) {
        gle_neurons_one_avx2(job);
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
typedef int gle_no_neurons_avx2; /* ISO C wants one declaration a file */
#endif
