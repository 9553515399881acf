/* One time step of a layer's neurons for AVX-512, sixteen streams at a time.
 *
 * The same integers as neurons_scalar.c. Products with a multiplier are those of 16 bits where
 * their ranges allow it (lanes_vnni.h). Comparisons give masks here, so that counting costs
 * next to nothing.
 */
#include "neurons.h"

#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)

#include "lanes_vnni.h"

/* What a layer's rows have to count, by lane but for the rare. */
typedef struct {
    __m512i peak_r, under, half_e;
    uint32_t sat_x, sat_uhat, sat_r, sat_inst, sat_e;
} tally;

/* What all rows have in common, one by one: of a copy of the whole, compilers keep two in memory,
 * and wait for the one before they have written the other. */
LANES void like(const gle_row *kept, gle_row *row)
{
    row->u_max = kept->u_max;
    row->r_max = kept->r_max;
    row->e_max = kept->e_max;
    row->v_extra = kept->v_extra;
    row->v_half = kept->v_half;
    row->gamma_m = kept->gamma_m;
    row->gamma_left = kept->gamma_left;
    row->gamma_limit = kept->gamma_limit;
    row->gamma_right = kept->gamma_right;
    row->gamma_half = kept->gamma_half;
    row->offset = kept->offset;
    row->gain = kept->gain;
    row->fine_extra = kept->fine_extra;
    row->fine_max = kept->fine_max;
    row->finer = kept->finer;
    row->noise_u = kept->noise_u;
    row->noise_e = kept->noise_e;
}

/* `kept`: what all rows have in common. */
LANES void step_row(const gle_neuron_job *job, int32_t i, const gle_row *kept,
                    const gle_phi_formats *formats, const int32_t phi, const int analog, tally *t)
{
    gle_layer *const layer = job->layer;
    const size_t at = (size_t)i * (size_t)job->columns;
    const int32_t bounded = phi == GLE_TANH || phi == GLE_SIGMOID;
    const __m512i zero = _mm512_setzero_si512();
    gle_row row;

    like(kept, &row);
    gle_row_of(job, i, &row);
    const int32_t noisy_u = analog && row.noise_u.m != 0, noisy_e = analog && row.noise_e.m != 0;
    const int32_t gained = analog && (row.offset != 0 || row.gain != GLE_GAIN_ONE);
    const noiser none = {zero, zero, zero, zero, zero};
    const noiser more_u = noisy_u ? noiser_of(&row.noise_u, i) : none;
    const noiser more_e = noisy_e ? noiser_of(&row.noise_e, i) : none;
    const int32_t gained_half = 1 << (GLE_GAIN_BITS - 1 + row.fine_extra);
    const factor leak_v = factor_of(&row.leak_v, 1), ratio_v = factor_of(&row.ratio_v, 0);
    const factor leak_u = factor_of(&row.leak_u, 1), ratio_u = factor_of(&row.ratio_u, 1);
    /* states differ by less than 2^29 */
    const int32_t any_v = row.ratio_v.limit >= 1 << 29, any_u = row.ratio_u.limit >= 1 << 29;
    const int32_t alike = any_u && row.leak_u.m == row.ratio_u.m && row.leak_u.k == row.ratio_u.k;
    const __m512i minus_one = held(all(-1)), e_half = all(row.e_max >> 1);
    const __m512i state_most = held(all(GLE_STATE_MAX)), state_least = held(all(-GLE_STATE_MAX));
    __m512i peak_r = t->peak_r, under = t->under, half_e = t->half_e;

    for (int32_t b = 0; b < job->columns; b += 16) {
        const size_t here = at + (size_t)b;
        const int32_t left = job->batch - b;
        const __mmask16 live = left >= 16 ? (__mmask16)0xffff
                               : left > 0 ? (__mmask16)((1u << left) - 1u)
                                          : (__mmask16)0;
        const __m512i v = load(layer->v + here);
        const __m512i u = load(layer->u + here);
        __m512i slope =
            _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(layer->dphi + here)));

        const __m512i above = load(job->above + here);
        __m512i raw, near, e = zero, v_new = zero;
        __mmask16 off_inst = 0, off_e = 0;
        /* without a target nothing comes down, and an error neuron at rest stays there */
        const __m512i any = _mm512_or_si512(above, v);
        if (noisy_e || _mm512_test_epi32_mask(any, any) != 0) {
            raw = scale_q15(above, slope);
            const __m512i inst = _mm512_max_epi32(state_least, _mm512_min_epi32(state_most, raw));
            const __m512i delta_v = _mm512_sub_epi32(inst, v);
            off_inst = _mm512_cmpneq_epi32_mask(raw, inst);
            __m512i ehat;
            const __mmask16 far = any_v ? 0
                                        : _mm512_cmpge_epi32_mask(_mm512_abs_epi32(delta_v),
                                                                  all(row.ratio_v.limit));
            if (far != 0) {
                near = clamp(delta_v, row.ratio_v.limit);
                off_inst |= _mm512_cmpneq_epi32_mask(near, delta_v);
                ehat = _mm512_add_epi32(v, scale(near, &row.ratio_v));
            } else {
                ehat = _mm512_add_epi32(v, scaled(delta_v, &ratio_v));
            }
            if (noisy_e) {
                const __m512i word = load(job->words + job->columns + b);
                ehat = _mm512_mask_add_epi32(ehat, live, ehat, noise(&more_e, word));
            }
            v_new = _mm512_add_epi32(v, scaled(delta_v, &leak_v));
            store(layer->v + here, v_new);
            raw = sra(_mm512_add_epi32(ehat, all(row.v_half)), row.v_extra);
            e = clamp(raw, row.e_max);
            off_e = _mm512_cmpneq_epi32_mask(raw, e);
            /* beyond the batch there are no errors, nor noise */
            const __mmask16 lost =
                _mm512_mask_testn_epi32_mask(_mm512_test_epi32_mask(ehat, ehat), e, e);
            const __mmask16 large = _mm512_cmpgt_epi32_mask(_mm512_abs_epi32(e), e_half);
            under = _mm512_mask_sub_epi32(under, lost, under, minus_one);
            half_e = _mm512_mask_sub_epi32(half_e, large, half_e, minus_one);
        }
        store16(layer->e + here, e);

        raw = _mm512_add_epi32(load(job->sums + here), all(row.bias));
        if (row.gamma_m != 0) {
            __m512i nudge = clamp(_mm512_mullo_epi32(e, all(row.gamma_m)), row.gamma_limit);
            nudge = sll(nudge, row.gamma_left);
            nudge = sra(_mm512_add_epi32(nudge, all(row.gamma_half)), row.gamma_right);
            raw = _mm512_add_epi32(raw, nudge);
        }
        const __m512i x = clamp(raw, row.u_max);
        const __mmask16 off_x = _mm512_cmpneq_epi32_mask(raw, x);
        const __m512i delta_u = _mm512_sub_epi32(x, u);
        __mmask16 off_uhat = 0;
        __m512i u_new = _mm512_add_epi32(u, scaled(delta_u, &leak_u)), uhat = u_new;
        if (!alike && any_u) {
            uhat = _mm512_add_epi32(u, scaled(delta_u, &ratio_u));
        } else if (!alike) {
            near = clamp(delta_u, row.ratio_u.limit);
            off_uhat = _mm512_cmpneq_epi32_mask(near, delta_u);
            uhat = _mm512_add_epi32(u, scale(near, &row.ratio_u));
        }
        if (noisy_u) {
            u_new = _mm512_mask_add_epi32(u_new, live, u_new, noise(&more_u, load(job->words + b)));
            u_new = clamp(u_new, row.u_max);
        }
        store(layer->u + here, u_new);
        if (layer->uhat != NULL) {
            store(layer->uhat + here, uhat);
        }
        __mmask16 clipped = 0;
        if (gained) {
            raw = rate(phi, _mm512_add_epi32(uhat, all(row.offset)), &formats->at[row.finer],
                       &slope);
            near = clamp(raw, row.fine_max);
            clipped = row.gain == 0 ? 0 : _mm512_cmpneq_epi32_mask(raw, near);
            raw = _mm512_add_epi32(_mm512_mullo_epi32(near, all(row.gain)), all(gained_half));
            raw = sra(raw, GLE_GAIN_BITS + row.fine_extra);
            slope = row.gain == 0 ? zero : slope;
        } else {
            raw = rate(phi, uhat, &kept->format, &slope);
        }
        const __m512i r = clamp(raw, row.r_max);
        if (bounded) {
            clipped = 0;
        } else {
            clipped |= _mm512_cmpneq_epi32_mask(raw, r);
            peak_r = _mm512_mask_max_epi32(peak_r, live, peak_r, _mm512_abs_epi32(r));
        }
        store16(layer->r + here, r);
        store16(layer->dphi + here, slope);

        /* e << 16 | r & 0xffff */
        const __m512i e_r = _mm512_ternarylogic_epi32(_mm512_slli_epi32(e, 16), r,
                                                      fixed(FIXED_FFFF), 0xf8);
        __m512i hash = load(job->hash + b);
        hash = _mm512_add_epi32(hash, _mm512_mullo_epi32(u_new, all((int32_t)row.hash_u)));
        hash = _mm512_add_epi32(hash, _mm512_mullo_epi32(v_new, all((int32_t)row.hash_v)));
        hash = _mm512_add_epi32(
            hash, _mm512_mullo_epi32(e_r, all((int32_t)row.hash_s)));
        store(job->hash + b, hash);

        /* Clips are rare: look for one of any kind, and count only then. */
        if ((live & (off_inst | off_e | off_x | off_uhat | clipped)) != 0) {
            t->sat_inst += count((__mmask16)(live & off_inst));
            t->sat_e += count((__mmask16)(live & off_e));
            t->sat_x += count((__mmask16)(live & off_x));
            t->sat_uhat += count((__mmask16)(live & off_uhat));
            t->sat_r += count((__mmask16)(live & clipped));
        }
    }
    t->peak_r = peak_r;
    t->under = under;
    t->half_e = half_e;
}

#define IDEAL_ROWS(phi)                           \
    for (int32_t i = 0; i < n; i++) {             \
        step_row(job, i, &row, NULL, phi, 0, &t); \
    }
#define ANALOG_ROWS(phi)                              \
    for (int32_t i = 0; i < n; i++) {                 \
        if (job->noisy && (i & 3) == 0) {             \
            draw_words(job, i);                       \
        }                                             \
        step_row(job, i, &row, &formats, phi, 1, &t); \
    }

/* Functions of their own, so that one's many constants do not take registers from the other. */
AVX512 __attribute__((noinline)) static void ideal_rows(const gle_neuron_job *job, tally *counts)
{
    const int32_t n = job->layer->n;
    tally t = *counts;
    gle_row row;

    gle_row_of_layer(job, &row);
    GLE_WITH_PHI(job->layer->image->phi, IDEAL_ROWS)
    *counts = t;
}

AVX512 __attribute__((noinline)) static void analog_rows(const gle_neuron_job *job, tally *counts)
{
    const gle_phi_formats formats = gle_phi_formats_of(job->layer);
    const int32_t n = job->layer->n;
    tally t = *counts;
    gle_row row;

    gle_row_of_layer(job, &row);
    GLE_WITH_PHI(job->layer->image->phi, ANALOG_ROWS)
    *counts = t;
}

AVX512 void gle_neurons_vnni(const gle_neuron_job *job)
{
    const int32_t n = job->layer->n;
    tally t = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), 0, 0, 0, 0,
               0};

    if (job->columns == 1) {
        gle_neurons_one_vnni(job);
        return;
    }
    if (job->analog) {
        analog_rows(job, &t);
    } else {
        ideal_rows(job, &t);
    }
    const gle_tally all_rows = {t.sat_x, t.sat_uhat, t.sat_r, t.sat_inst, t.sat_e,
                                (uint32_t)_mm512_reduce_add_epi32(t.under),
                                (uint32_t)_mm512_reduce_add_epi32(t.half_e),
                                (uint32_t)_mm512_reduce_max_epi32(t.peak_r)};
    gle_counted(job, n, &all_rows);
}

#else
typedef int gle_no_neurons_vnni; /* ISO C wants one declaration a file */
#endif
