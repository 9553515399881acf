/* One time step of a layer's neurons for AVX-512, sixteen streams at a time.
 *
 * The same integers as neurons_scalar.c. A row goes through in strips, and a strip in stages:
 * what an error neuron hears, the error neuron, the membrane, the rate. What one neuron needs
 * from its input to its hash is a chain of some 150 cycles; in stages the chains of a strip's
 * vectors are short enough for a core to run several of them at once, and the constants of one
 * stage fit the registers.
 *
 * Products with a multiplier are those of 16 bits where their ranges allow it (lanes_vnni.h).
 */
#include "neurons.h"

#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)

#include "lanes_vnni.h"

#define STAGE AVX512 __attribute__((noinline)) static void

enum { WIDE = 16, STRIP = 8 * WIDE };

/* What a layer's rows have to count, by lane. */
typedef struct {
    __m512i peak_r, under, half_e, sat_x, sat_uhat, sat_r, sat_inst, sat_e;
} tally;

/* A strip of a row, and what its stages leave to the next. Whole vectors: `streams` of them are
 * of the batch. */
typedef struct {
    _Alignas(64) int32_t raw[STRIP]; /* phi' above; clipped: inst */
    _Alignas(64) int32_t inst[STRIP];
    _Alignas(64) int32_t e[STRIP];
    _Alignas(64) int32_t uhat[STRIP];
    const gle_neuron_job *job;
    const gle_row *row;
    size_t at;                       /* of the strip in the layer's states */
    int32_t first, columns, streams; /* first: stream */
    int32_t i;                       /* neuron */
    tally *count;
} strip;

LANES __m512i one_more(__m512i count, __mmask16 where)
{
    return _mm512_mask_sub_epi32(count, where, count, _mm512_set1_epi32(-1));
}

/* How an error neuron goes on. */
enum { AT_REST, NEAR, FAR };

/* What error neurons hear: AT_REST where it is nothing and they say nothing; FAR where the
 * distance is too large for `scaled`, or something was clipped. */
LANES int32_t hear(strip *s, const int32_t always)
{
    const gle_layer *const layer = s->job->layer;
    const int32_t *const above = s->job->above + s->at, *const v = layer->v + s->at;
    const uint16_t *const dphi = layer->dphi + s->at;
    const int32_t columns = s->columns;
    const __m512i most = held(all(GLE_STATE_MAX)), least = held(all(-GLE_STATE_MAX));
    __m512i any = _mm512_setzero_si512(), clipped = any, size = any;

    for (int32_t b = 0; b < columns; b += WIDE) {
        any = _mm512_ternarylogic_epi32(any, load(above + b), load(v + b), 0xfe); /* or */
    }
    if (!always && _mm512_test_epi32_mask(any, any) == 0) {
        return AT_REST;
    }
    for (int32_t b = 0; b < columns; b += WIDE) {
        const __m512i slope =
            _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(dphi + b)));
        const __m512i raw = scale_q15(load(above + b), slope);
        const __m512i inst = _mm512_max_epi32(least, _mm512_min_epi32(most, raw));

        /* one | (two ^ three); the limit of a distance is a power of two */
        clipped = _mm512_ternarylogic_epi32(clipped, raw, inst, 0xf6);
        size = _mm512_or_si512(size, _mm512_abs_epi32(_mm512_sub_epi32(inst, load(v + b))));
        store(s->raw + b, raw);
        store(s->inst + b, inst);
    }
    clipped = _mm512_or_si512(clipped, _mm512_andnot_si512(all(s->row->ratio_v.limit - 1), size));
    return _mm512_test_epi32_mask(clipped, clipped) != 0 ? FAR : NEAR;
}

/* Error neurons and their errors; how their leak and their prospective error are found. */
LANES void error_neurons(strip *s, const int32_t far, const int32_t noisy, const int32_t leaks,
                         const int32_t looks)
{
    const gle_row *const row = s->row;
    const gle_layer *const layer = s->job->layer;
    int32_t *const v = layer->v + s->at;
    int16_t *const e16 = layer->e + s->at;
    const uint32_t *const words = s->job->words + s->job->columns + s->first;
    const int32_t columns = s->columns, streams = s->streams;
    const __m512i zero = _mm512_setzero_si512();
    const noiser none = {zero, zero, zero, zero, zero};
    const noiser more = noisy ? noiser_of(&row->noise_e, s->i) : none;
    const factor leak = factor_of(&row->leak_v, leaks), ratio = factor_of(&row->ratio_v, looks);
    const __m512i half = all(row->v_half), extra = all(row->v_extra);
    const __m512i most = all(row->e_max), least = all(-row->e_max);
    const __m512i half_most = all(row->e_max >> 1);
    tally *const t = s->count;
    __m512i sat_e = t->sat_e, under = t->under, half_e = t->half_e, sat_inst = t->sat_inst;

    for (int32_t b = 0; b < columns; b += WIDE) {
        const __m512i old = load(v + b), inst = load(s->inst + b);
        __m512i ehat, raw;

        if (far) {
            const __m512i delta = _mm512_sub_epi32(inst, old);
            const __m512i near = clamp(delta, row->ratio_v.limit);
            const __mmask16 off = _mm512_cmpneq_epi32_mask(load(s->raw + b), inst)
                                  | _mm512_cmpneq_epi32_mask(near, delta);
            sat_inst = one_more(sat_inst, off); /* none beyond the batch, as of errors below */
            ehat = _mm512_add_epi32(old, scale(near, &row->ratio_v));
        } else {
            ehat = towards(old, inst, &ratio, looks);
        }
        if (noisy) {
            ehat = _mm512_mask_add_epi32(ehat, live_of(streams, b), ehat,
                                         noise(&more, load(words + b)));
        }
        store(v + b, towards(old, inst, &leak, leaks));
        raw = _mm512_srav_epi32(_mm512_add_epi32(ehat, half), extra);
        const __m512i e = _mm512_max_epi32(least, _mm512_min_epi32(most, raw));
        /* beyond the batch there are no errors, nor noise */
        sat_e = one_more(sat_e, _mm512_cmpneq_epi32_mask(raw, e));
        under = one_more(
            under, _mm512_mask_testn_epi32_mask(_mm512_test_epi32_mask(ehat, ehat), e, e));
        half_e = one_more(half_e, _mm512_cmpgt_epi32_mask(_mm512_abs_epi32(e), half_most));
        store(s->e + b, e);
        store16(e16 + b, e);
    }
    t->sat_e = sat_e;
    t->under = under;
    t->half_e = half_e;
    t->sat_inst = sat_inst;
}

LANES void errors_at_rest(strip *s)
{
    const __m512i zero = _mm512_setzero_si512();
    int16_t *const e16 = s->job->layer->e + s->at;
    const int32_t columns = s->columns;

    for (int32_t b = 0; b < columns; b += WIDE) {
        store(s->e + b, zero);
        _mm256_storeu_si256((__m256i *)(void *)(e16 + b), _mm256_setzero_si256());
    }
}

/* The two kinds of neurons of the papers, slow ones with tau_r = dt and instantaneous ones, have
 * code of their own. */
STAGE errors(strip *s)
{
    const int32_t kind = hear(s, 0);
    const int32_t leaks = factor_kind(&s->row->leak_v, 1);
    const int32_t looks = factor_kind(&s->row->ratio_v, 0);

    if (kind == AT_REST) {
        errors_at_rest(s);
    } else if (kind == FAR) {
        error_neurons(s, 1, 0, leaks, FACTOR_ONE);
    } else if (leaks == FACTOR_ONE && looks == FACTOR_FINE) {
        error_neurons(s, 0, 0, FACTOR_ONE, FACTOR_FINE);
    } else if (leaks == FACTOR_COARSE && looks == FACTOR_ONE) {
        error_neurons(s, 0, 0, FACTOR_COARSE, FACTOR_ONE);
    } else {
        error_neurons(s, 0, 0, leaks, looks);
    }
}

STAGE noisy_errors(strip *s)
{
    const int32_t leaks = factor_kind(&s->row->leak_v, 1);

    if (hear(s, 1) == NEAR) {
        error_neurons(s, 0, 1, leaks, factor_kind(&s->row->ratio_v, 0));
    } else {
        error_neurons(s, 1, 1, leaks, FACTOR_ONE);
    }
}

/* gamma e in the format of a membrane */
LANES __m512i nudge(const gle_row *row, __m512i e)
{
    __m512i x = clamp(_mm512_mullo_epi32(e, all(row->gamma_m)), row->gamma_limit);

    x = sll(x, row->gamma_left);
    return sra(_mm512_add_epi32(x, all(row->gamma_half)), row->gamma_right);
}

/* How the prospective membrane is found: as the next membrane, where tau_r = dt; by a factor; or
 * by one above 1, which what it is multiplied with may be too large for. */
enum { ALIKE = FACTOR_PLAIN + 1, AHEAD };

LANES int32_t looking(const gle_row *row)
{
    if (row->ratio_u.limit < 1 << 29) { /* states differ by less */
        return AHEAD;
    }
    return row->leak_u.m == row->ratio_u.m && row->leak_u.k == row->ratio_u.k
               ? ALIKE
               : factor_kind(&row->ratio_u, 1);
}

/* Membranes, and what they look ahead to. */
LANES void membrane_neurons(strip *s, const int32_t noisy, const int32_t nudged,
                            const int32_t leaks, const int32_t looks)
{
    const gle_row *const row = s->row;
    const gle_layer *const layer = s->job->layer;
    const int32_t *const sums = s->job->sums + s->at;
    int32_t *const u = layer->u + s->at;
    const uint32_t *const words = s->job->words + s->first;
    const int32_t columns = s->columns, streams = s->streams;
    const __m512i zero = _mm512_setzero_si512();
    const noiser none = {zero, zero, zero, zero, zero};
    const noiser more = noisy ? noiser_of(&row->noise_u, s->i) : none;
    const factor leak = factor_of(&row->leak_u, leaks), ratio = factor_of(&row->ratio_u, looks);
    const __m512i bias = all(row->bias), most = all(row->u_max), least = all(-row->u_max);
    tally *const t = s->count;
    __m512i sat_x = t->sat_x, sat_uhat = t->sat_uhat;

    for (int32_t b = 0; b < columns; b += WIDE) {
        const __mmask16 live = live_of(streams, b);
        const __m512i old = load(u + b);
        __m512i raw = _mm512_add_epi32(load(sums + b), bias);
        __m512i next, uhat;

        if (nudged) {
            raw = _mm512_add_epi32(raw, nudge(row, load(s->e + b)));
        }
        const __m512i x = _mm512_max_epi32(least, _mm512_min_epi32(most, raw));
        sat_x = one_more(sat_x, _mm512_mask_cmpneq_epi32_mask(live, raw, x));
        next = towards(old, x, &leak, leaks);
        if (looks == ALIKE) {
            uhat = next;
        } else if (looks == AHEAD) {
            const __m512i delta = _mm512_sub_epi32(x, old);
            const __m512i near = clamp(delta, row->ratio_u.limit);
            sat_uhat = one_more(sat_uhat, _mm512_mask_cmpneq_epi32_mask(live, near, delta));
            uhat = _mm512_add_epi32(old, scale(near, &row->ratio_u));
        } else {
            uhat = towards(old, x, &ratio, looks);
        }
        if (noisy) {
            next = _mm512_mask_add_epi32(next, live, next, noise(&more, load(words + b)));
            next = clamp(next, row->u_max);
        }
        store(u + b, next);
        store(s->uhat + b, uhat);
    }
    if (layer->uhat != NULL) {
        for (int32_t b = 0; b < columns; b += WIDE) {
            store(layer->uhat + s->at + b, load(s->uhat + b));
        }
    }
    t->sat_x = sat_x;
    t->sat_uhat = sat_uhat;
}

STAGE membranes(strip *s)
{
    const int32_t nudged = s->row->gamma_m != 0, looks = looking(s->row);
    const int32_t leaks = factor_kind(&s->row->leak_u, 1);

    if (nudged || leaks != FACTOR_COARSE) {
        membrane_neurons(s, 0, nudged, leaks, looks);
    } else if (looks == ALIKE) {
        membrane_neurons(s, 0, 0, FACTOR_COARSE, ALIKE);
    } else if (looks == FACTOR_ONE) {
        membrane_neurons(s, 0, 0, FACTOR_COARSE, FACTOR_ONE);
    } else {
        membrane_neurons(s, 0, 0, leaks, looks);
    }
}

STAGE noisy_membranes(strip *s)
{
    membrane_neurons(s, 1, s->row->gamma_m != 0, factor_kind(&s->row->leak_u, 1),
                     looking(s->row));
}

/* Rates with a gain and an offset of their own. */
LANES __m512i gained_rate(const int32_t phi, const gle_row *row, const gle_phi_format *format,
                          __m512i uhat, __m512i *slope, __mmask16 *clipped)
{
    const int32_t half = 1 << (GLE_GAIN_BITS - 1 + row->fine_extra);
    const __m512i raw = rate(phi, _mm512_add_epi32(uhat, all(row->offset)), format, slope);
    const __m512i near = clamp(raw, row->fine_max);

    *clipped = row->gain == 0 ? 0 : _mm512_cmpneq_epi32_mask(raw, near);
    *slope = row->gain == 0 ? _mm512_setzero_si512() : *slope;
    return sra(_mm512_add_epi32(_mm512_mullo_epi32(near, all(row->gain)), all(half)),
               GLE_GAIN_BITS + row->fine_extra);
}

/* Rates and slopes, and the hash of all that the neurons have become. */
LANES void rates(strip *s, const gle_phi_format *with, const int32_t phi, const int32_t gained)
{
    const gle_phi_format format = *with;
    const int32_t bounded = phi == GLE_TANH || phi == GLE_SIGMOID;
    const gle_row *const row = s->row;
    const gle_layer *const layer = s->job->layer;
    const int32_t *const u = layer->u + s->at, *const v = layer->v + s->at;
    int16_t *const r16 = layer->r + s->at;
    uint16_t *const dphi = layer->dphi + s->at;
    uint32_t *const hash = s->job->hash + s->first;
    const int32_t columns = s->columns, streams = s->streams;
    const __m512i hash_u = all((int32_t)row->hash_u), hash_v = all((int32_t)row->hash_v);
    const __m512i hash_s = all((int32_t)row->hash_s);
    const __m512i most = all(row->r_max), least = all(-row->r_max);
    tally *const t = s->count;
    __m512i sat_r = t->sat_r, peak_r = t->peak_r;

    for (int32_t b = 0; b < columns; b += WIDE) {
        const __m512i uhat = load(s->uhat + b);
        __mmask16 clipped = 0;
        __m512i slope;
        const __m512i raw = gained ? gained_rate(phi, row, &format, uhat, &slope, &clipped)
                                   : rate(phi, uhat, &format, &slope);
        const __m512i r = _mm512_max_epi32(least, _mm512_min_epi32(most, raw));
        if (!bounded) {
            const __mmask16 live = live_of(streams, b);
            clipped |= _mm512_cmpneq_epi32_mask(raw, r);
            sat_r = one_more(sat_r, live & clipped);
            peak_r = _mm512_mask_max_epi32(peak_r, live, peak_r, _mm512_abs_epi32(r));
        }
        store16(r16 + b, r);
        store16(dphi + b, slope);

        /* e << 16 | r & 0xffff */
        const __m512i e_r = _mm512_ternarylogic_epi32(_mm512_slli_epi32(load(s->e + b), 16), r,
                                                      fixed(FIXED_FFFF), 0xf8);
        __m512i sum = _mm512_add_epi32(load(hash + b), _mm512_mullo_epi32(load(u + b), hash_u));
        sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(load(v + b), hash_v));
        store(hash + b, _mm512_add_epi32(sum, _mm512_mullo_epi32(e_r, hash_s)));
    }
    t->sat_r = sat_r;
    t->peak_r = peak_r;
}

#define RATES(phi)                       \
    if (gained) {                        \
        rates(s, format, phi, 1);        \
    } else {                             \
        rates(s, format, phi, 0);        \
    }

STAGE rates_of(strip *s, int32_t phi, const gle_phi_format *format)
{
    const int32_t gained = s->row->offset != 0 || s->row->gain != GLE_GAIN_ONE;

    GLE_WITH_PHI(phi, RATES)
}

AVX512 static void step_row(strip *s, const gle_phi_formats *formats)
{
    const gle_neuron_job *const job = s->job;
    const gle_row *const row = s->row;
    const int32_t phi = job->layer->image->phi;

    for (int32_t b = 0; b < job->columns; b += STRIP) {
        const int32_t left = job->columns - b;

        s->first = b;
        s->at = (size_t)s->i * (size_t)job->columns + (size_t)b;
        s->columns = left < STRIP ? left : STRIP;
        s->streams = job->batch - b;
        if (row->noise_e.m != 0) {
            noisy_errors(s);
        } else {
            errors(s);
        }
        if (row->noise_u.m != 0) {
            noisy_membranes(s);
        } else {
            membranes(s);
        }
        rates_of(s, phi, &formats->at[row->finer]);
    }
}

AVX512 static uint32_t sum_of(__m512i count) { return (uint32_t)_mm512_reduce_add_epi32(count); }

AVX512 void gle_neurons_vnni(const gle_neuron_job *job)
{
    const gle_phi_formats formats = gle_phi_formats_of(job->layer);
    const int32_t n = job->layer->n;
    const __m512i zero = _mm512_setzero_si512();
    tally t = {zero, zero, zero, zero, zero, zero, zero, zero};
    gle_row row;
    strip s;

    if (job->columns == 1) {
        gle_neurons_one_vnni(job);
        return;
    }
    gle_row_of_layer(job, &row);
    s.job = job;
    s.row = &row;
    s.count = &t;
    for (s.i = 0; s.i < n; s.i++) {
        if (job->noisy && (s.i & 3) == 0) {
            draw_words(job, s.i);
        }
        gle_row_of(job, s.i, &row);
        step_row(&s, &formats);
    }
    const gle_tally all_rows = {sum_of(t.sat_x), sum_of(t.sat_uhat), sum_of(t.sat_r),
                                sum_of(t.sat_inst), sum_of(t.sat_e), sum_of(t.under),
                                sum_of(t.half_e),
                                (uint32_t)_mm512_reduce_max_epi32(t.peak_r)};
    gle_counted(job, n, &all_rows);
}

#else
typedef int gle_no_neurons_vnni; /* ISO C wants one declaration a file */
#endif
