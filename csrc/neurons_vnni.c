/* One time step of a layer's neurons for AVX-512, sixteen streams at a time.
 *
 * The same integers as neurons_scalar.c. A row goes through in strips, and a strip in stages: the
 * membrane, the rate; before them the error neurons of all rows at once that have the same
 * multipliers. What one neuron needs from its input to its hash is a chain of some 150 cycles; in
 * stages the chains of a strip's vectors are short enough for a core to run several of them at
 * once, and the constants of one stage fit the registers.
 *
 * Products with a multiplier are those of 16 bits where their ranges allow it (lanes_vnni.h).
 */
#include "neurons.h"

#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)

#include "tanh_vbmi.h"

#include <string.h>

#define STAGE AVX512 __attribute__((noinline)) static void

enum { WIDE = 16, STRIP = 8 * WIDE, ALIKE_MOST = 512 /* lanes of error neurons at once */ };

/* What a layer's rows have to count, by lane and, where it is told of two vectors, in all. */
typedef struct {
    __m512i peak_r, sat_x, sat_uhat, sat_r, sat_inst;
    uint32_t sat_e, under, half_e;
} tally;

/* A strip of a row, and what its stages leave to the next. Whole vectors: `streams` of them are
 * of the batch. */
typedef struct {
    _Alignas(64) int32_t uhat[STRIP]; /* where membranes alone do not tell */
    const int32_t *ahead;             /* prospective membranes */
    const gle_neuron_job *job;
    const gle_row *row;
    size_t at;                       /* of the strip in the layer's states */
    int32_t first, columns, streams; /* first: stream */
    int32_t i;                       /* neuron */
    int32_t by_bytes;                /* of tanh's table */
    tally *count;
} strip;

LANES __m512i one_more(__m512i count, __mmask16 where)
{
    return _mm512_mask_sub_epi32(count, where, count, _mm512_set1_epi32(-1));
}

LANES uint32_t so_many(__mmask32 where)
{
    uint32_t count = (uint32_t)_mm_popcnt_u32(where);
    __asm__("" : "+r"(count)); /* compilers would add two of them in one vector */
    return count;
}

LANES __m512i words_at(const int16_t *p) /* of sixteen streams */
{
    return _mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

/* Whether a strip's error neurons hear nothing and say nothing. */
LANES int32_t at_rest(const strip *s)
{
    const int32_t *const above = s->job->above + s->at, *const v = s->job->layer->v + s->at;
    __m512i any = _mm512_setzero_si512();

    for (int32_t b = 0; b < s->columns; b += WIDE) {
        any = _mm512_ternarylogic_epi32(any, load(above + b), load(v + b), 0xfe); /* or */
    }
    return _mm512_test_epi32_mask(any, any) == 0;
}

/* Limits of errors of 16 bits, and what neurons have to count of them. */
typedef struct {
    __m512i most, least, half;
    uint32_t clipped, under, large;
} saying;

LANES saying saying_of(int32_t e_max)
{
    const saying k = {held(_mm512_set1_epi16((int16_t)e_max)),
                      held(_mm512_set1_epi16((int16_t)-e_max)),
                      held(_mm512_set1_epi16((int16_t)(e_max >> 1))), 0, 0, 0};
    return k;
}

/* What two vectors of error neurons say, of raw and of prospective errors, in the lanes' order. */
LANES __m512i say(__m512i raw[2], __m512i ehat[2], saying *k)
{
    const __m512i in_order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7); /* packed by 128 bits */
    /* what 16 bits cannot hold is not within the limits either, and what is not 0 stays so */
    const __m512i both = _mm512_packs_epi32(raw[0], raw[1]);
    const __m512i heard = _mm512_packs_epi32(ehat[0], ehat[1]);
    const __m512i e = _mm512_max_epi16(k->least, _mm512_min_epi16(k->most, both));
    const __mmask32 some = _mm512_test_epi16_mask(heard, heard);

    /* beyond the batch there are no errors, nor noise */
    k->clipped += so_many(_mm512_cmpneq_epi16_mask(both, e));
    k->under += so_many(_mm512_mask_testn_epi16_mask(some, e, e));
    k->large += so_many(_mm512_cmpgt_epi16_mask(_mm512_abs_epi16(e), k->half));
    return _mm512_permutexvar_epi64(in_order, e);
}

/* Error neurons and their errors; how their leak and their prospective error are found. */
LANES void error_neurons(strip *s, const int32_t noisy, const int32_t leaks, const int32_t looks)
{
    const gle_row *const row = s->row;
    const gle_layer *const layer = s->job->layer;
    const int32_t *const above = s->job->above + s->at;
    const uint16_t *const dphi = layer->dphi + s->at;
    int32_t *const v = layer->v + s->at;
    int16_t *const e16 = layer->e + s->at;
    const uint32_t *const words = s->job->words + s->job->columns + s->first;
    const int32_t columns = s->columns, streams = s->streams;
    const __m512i zero = _mm512_setzero_si512();
    const noiser none = {zero, zero, zero, zero, zero};
    const noiser more = noisy ? noiser_of(&row->noise_e, s->i) : none;
    const factor leak = factor_of(&row->leak_v, leaks), ratio = factor_of(&row->ratio_v, looks);
    const __m512i half = all(row->v_half), extra = all(row->v_extra);
    const __m512i most = all(GLE_STATE_MAX), least = all(-GLE_STATE_MAX);
    const __m512i within = all(row->ratio_v.limit - 1); /* the limit is a power of two */
    tally *const t = s->count;
    saying k = saying_of(row->e_max);

    for (int32_t b = 0; b < columns; b += 2 * WIDE) {
        __m512i raw[2] = {zero, zero}, ehat[2] = {zero, zero};
#pragma GCC unroll 2
        for (int32_t c = 0; c < 2; c++) {
            const int32_t at = b + c * WIDE;
            if (at >= columns) {
                break;
            }
            const __m512i slope = _mm512_cvtepu16_epi32(
                _mm256_loadu_si256((const __m256i *)(const void *)(dphi + at)));
            const __m512i old = load(v + at), heard = scale_q15(load(above + at), slope);
            const __m512i inst = _mm512_max_epi32(least, _mm512_min_epi32(most, heard));
            const __m512i delta = _mm512_sub_epi32(inst, old);
            /* clipped, or a distance that `scaled` may not take: one | (two & ~three) */
            const __m512i far = _mm512_ternarylogic_epi32(_mm512_xor_si512(heard, inst),
                                                          _mm512_abs_epi32(delta), within, 0xf4);
            if (__builtin_expect(_mm512_test_epi32_mask(far, far) != 0, 0)) {
                const __m512i near = clamp(delta, row->ratio_v.limit);
                const __mmask16 off = _mm512_cmpneq_epi32_mask(heard, inst)
                                      | _mm512_cmpneq_epi32_mask(near, delta);
                t->sat_inst = one_more(t->sat_inst, off); /* none beyond the batch */
                ehat[c] = _mm512_add_epi32(old, scale(near, &row->ratio_v));
            } else {
                ehat[c] = towards(old, inst, &ratio, looks);
            }
            if (noisy) {
                ehat[c] = _mm512_mask_add_epi32(ehat[c], live_of(streams, at), ehat[c],
                                                noise(&more, load(words + at)));
            }
            store(v + at, towards(old, inst, &leak, leaks));
            raw[c] = _mm512_srav_epi32(_mm512_add_epi32(ehat[c], half), extra);
        }
        const __m512i e = say(raw, ehat, &k);
        if (columns - b > WIDE) {
            store(e16 + b, e);
        } else {
            _mm256_storeu_si256((__m256i *)(void *)(e16 + b), _mm512_castsi512_si256(e));
        }
    }
    t->sat_e += k.clipped;
    t->under += k.under;
    t->half_e += k.large;
}

/* The two kinds of neurons of the papers, slow ones with tau_r = dt and instantaneous ones, have
 * code of their own. */
STAGE errors(strip *s)
{
    const int32_t leaks = factor_kind(&s->row->leak_v, 1);
    const int32_t looks = factor_kind(&s->row->ratio_v, 0);

    if (!s->job->driven && at_rest(s)) {
        memset(s->job->layer->e + s->at, 0, (size_t)s->columns * sizeof *s->job->layer->e);
    } else if (leaks == FACTOR_ONE && looks == FACTOR_FINE) {
        error_neurons(s, 0, FACTOR_ONE, FACTOR_FINE);
    } else if (leaks == FACTOR_COARSE && looks == FACTOR_ONE) {
        error_neurons(s, 0, FACTOR_COARSE, FACTOR_ONE);
    } else {
        error_neurons(s, 0, leaks, looks);
    }
}

STAGE noisy_errors(strip *s)
{
    error_neurons(s, 1, factor_kind(&s->row->leak_v, 1), factor_kind(&s->row->ratio_v, 0));
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
            raw = _mm512_add_epi32(raw, nudge(row, words_at(layer->e + s->at + b)));
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
        if (noisy || looks != ALIKE) {
            store(s->uhat + b, uhat);
        }
    }
    s->ahead = noisy || looks != ALIKE ? s->uhat : u;
    if (layer->uhat != NULL) {
        for (int32_t b = 0; b < columns; b += WIDE) {
            store(layer->uhat + s->at + b, load(s->ahead + b));
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

/* What a row's rates have in common, and where all of it stands. */
typedef struct {
    __m512i hash_u, hash_v, hash_s, most, least;
    const int32_t *u, *v;
    const int16_t *e;
    int16_t *r;
    uint16_t *dphi;
    uint32_t *hash;
} settled;

LANES settled settled_of(const strip *s)
{
    const gle_row *const row = s->row;
    const gle_layer *const layer = s->job->layer;
    const settled k = {all((int32_t)row->hash_u), all((int32_t)row->hash_v),
                       all((int32_t)row->hash_s), all(row->r_max), all(-row->r_max),
                       layer->u + s->at, layer->v + s->at, layer->e + s->at, layer->r + s->at,
                       layer->dphi + s->at, s->job->hash + s->first};
    return k;
}

/* hash += what a vector's neurons have become; e_r: e << 16 | r & 0xffff. */
LANES void hashed(int32_t b, __m512i e_r, const settled *k)
{
    __m512i sum = _mm512_add_epi32(load(k->hash + b), _mm512_mullo_epi32(load(k->u + b), k->hash_u));

    sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(load(k->v + b), k->hash_v));
    store(k->hash + b, _mm512_add_epi32(sum, _mm512_mullo_epi32(e_r, k->hash_s)));
}

/* A vector's rates and slopes, and the hash of all that its neurons have become. */
LANES void settle(int32_t b, __m512i r, __m512i slope, const settled *k)
{
    const __m512i upper = _mm512_setr_epi32(0, 0x10000, 0x20000, 0x30000, 0x40000, 0x50000,
                                            0x60000, 0x70000, 0x80000, 0x90000, 0xa0000, 0xb0000,
                                            0xc0000, 0xd0000, 0xe0000, 0xf0000);
    const __m512i e = _mm512_castsi256_si512(
        _mm256_loadu_si256((const __m256i *)(const void *)(k->e + b)));
    /* e << 16 | r & 0xffff */
    const __m512i e_r =
        _mm512_ternarylogic_epi32(_mm512_maskz_permutexvar_epi16(0xaaaaaaaau, upper, e), r,
                                  fixed(FIXED_FFFF), 0xf8);

    hashed(b, e_r, k);
    store16(k->r + b, r);
    store16(k->dphi + b, slope);
}

LANES void rates(const strip *s, const gle_phi_format *with, const int32_t phi,
                 const int32_t gained)
{
    const gle_phi_format format = *with;
    const int32_t bounded = phi == GLE_TANH || phi == GLE_SIGMOID;
    const gle_row *const row = s->row;
    const int32_t columns = s->columns, streams = s->streams;
    const settled k = settled_of(s);
    const int32_t *const ahead = s->ahead;
    tally *const t = s->count;
    __m512i sat_r = t->sat_r, peak_r = t->peak_r;

    for (int32_t b = 0; b < columns; b += WIDE) {
        const __m512i uhat = load(ahead + b);
        __mmask16 clipped = 0;
        __m512i slope;
        const __m512i raw = gained ? gained_rate(phi, row, &format, uhat, &slope, &clipped)
                                   : rate(phi, uhat, &format, &slope);
        const __m512i r = _mm512_max_epi32(k.least, _mm512_min_epi32(k.most, raw));
        if (!bounded) {
            const __mmask16 live = live_of(streams, b);
            clipped |= _mm512_cmpneq_epi32_mask(raw, r);
            sat_r = one_more(sat_r, live & clipped);
            peak_r = _mm512_mask_max_epi32(peak_r, live, peak_r, _mm512_abs_epi32(r));
        }
        settle(b, r, slope, &k);
    }
    t->sat_r = sat_r;
    t->peak_r = peak_r;
}

/* A row's own gain and offset of its rates. */
typedef struct {
    __m512i offset, most, gain, half, shift;
    __mmask32 live; /* none where the gain is 0 */
} gaining;

LANES gaining gaining_of(const gle_row *row)
{
    const int32_t shift = GLE_GAIN_BITS + row->fine_extra;
    const gaining g = {all(row->offset), all(row->fine_max), all(row->gain), all(1 << (shift - 1)),
                       all(shift), row->gain == 0 ? 0 : UINT32_MAX};
    return g;
}

/* The rate of a size y of tanh. */
LANES __m512i gained_tanh(__m512i y, __m512i uhat, const gle_phi_format *f, const gaining *g)
{
    const __m512i size =
        _mm512_srav_epi32(_mm512_add_epi32(y, all(f->tanh_half)), all(f->tanh_shift));
    const __mmask16 negative = _mm512_cmplt_epi32_mask(uhat, _mm512_setzero_si512());
    const __m512i raw = signed_as(_mm512_min_epi32(size, g->most), negative);

    return _mm512_srav_epi32(_mm512_add_epi32(_mm512_mullo_epi32(raw, g->gain), g->half), g->shift);
}

/* Rates of two vectors of tanh neurons, of sizes y, in words. */
LANES __m512i tanh_words(const __m512i y[2], const __m512i uhat[2], const gle_phi_format *f,
                         const gaining *g, __m512i most)
{
    const __m512i zero = _mm512_setzero_si512();
    __m512i r;

    if (g != NULL) {
        r = _mm512_packs_epi32(gained_tanh(y[0], uhat[0], f, g), gained_tanh(y[1], uhat[1], f, g));
        return _mm512_max_epi16(_mm512_sub_epi16(zero, most), _mm512_min_epi16(r, most));
    }
    const __m512i half = all(f->tanh_half), by = all(f->tanh_shift);
    const __mmask32 below = _mm512_movepi16_mask(_mm512_packs_epi32(uhat[0], uhat[1]));
    r = _mm512_packs_epi32(_mm512_srav_epi32(_mm512_add_epi32(y[0], half), by),
                           _mm512_srav_epi32(_mm512_add_epi32(y[1], half), by));
    r = _mm512_min_epi16(r, most);
    return _mm512_mask_sub_epi16(r, below, zero, r);
}

/* Two vectors of tanh neurons settle, in words; one where `two` is 0. g: NULL for none. */
LANES void settle_tanh(int32_t b, const int32_t two, const __m512i y[2], const __m512i uhat[2],
                       const gle_phi_format *f, const gaining *g, const settled *k, __m512i most)
{
    const __m512i in_order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7); /* packed by 128 bits */
    const __m512i packed = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    const __m512i four = fixed(FIXED_4);
    const __m512i y15 = _mm512_packus_epi32(_mm512_srai_epi32(_mm512_add_epi32(y[0], four), 3),
                                            _mm512_srai_epi32(_mm512_add_epi32(y[1], four), 3));
    const __m512i r = tanh_words(y, uhat, f, g, most);
    __m512i slope = _mm512_sub_epi16(_mm512_set1_epi16((int16_t)0x8000),
                                     _mm512_mulhrs_epi16(y15, y15)); /* of GLE_PHI_ONE */
    __m512i e;

    if (g != NULL) {
        slope = _mm512_maskz_mov_epi16(g->live, slope);
    }
    e = two ? load(k->e + b)
            : _mm512_castsi256_si512(
                  _mm256_loadu_si256((const __m256i *)(const void *)(k->e + b)));
    e = _mm512_permutexvar_epi64(packed, e);
    hashed(b, _mm512_unpacklo_epi16(r, e), k);
    if (two) {
        hashed(b + WIDE, _mm512_unpackhi_epi16(r, e), k);
        store(k->r + b, _mm512_permutexvar_epi64(in_order, r));
        store(k->dphi + b, _mm512_permutexvar_epi64(in_order, slope));
    } else {
        _mm256_storeu_si256((__m256i *)(void *)(k->r + b),
                            _mm512_castsi512_si256(_mm512_permutexvar_epi64(in_order, r)));
        _mm256_storeu_si256((__m256i *)(void *)(k->dphi + b),
                            _mm512_castsi512_si256(_mm512_permutexvar_epi64(in_order, slope)));
    }
}

/* `rates` of tanh, four vectors at a time. */
BYTES void tanh_strip(const strip *s, const gle_phi_format *with, const gaining *g)
{
    const gle_phi_format format = *with;
    const int32_t columns = s->columns;
    const settled k = settled_of(s);
    const __m512i most = _mm512_set1_epi16((int16_t)s->row->r_max);
    const int32_t *const ahead = s->ahead;

    for (int32_t b = 0; b < columns; b += GLE_TANH_TOGETHER * WIDE) {
        __m512i uhat[GLE_TANH_TOGETHER], position[GLE_TANH_TOGETHER], y[GLE_TANH_TOGETHER];
#pragma GCC unroll 4
        for (int32_t c = 0; c < GLE_TANH_TOGETHER; c++) {
            const int32_t at = b + c * WIDE;
            uhat[c] = load(ahead + (at < columns ? at : b));
            uhat[c] = g != NULL ? _mm512_add_epi32(uhat[c], g->offset) : uhat[c];
            position[c] = tanh_position(uhat[c], &format);
        }
        tanh_entries(y, position);
#pragma GCC unroll 4
        for (int32_t c = 0; c < GLE_TANH_TOGETHER; c++) {
            y[c] = tanh_from(y[c], position[c]);
        }
#pragma GCC unroll 2
        for (int32_t c = 0; c < GLE_TANH_TOGETHER; c += 2) {
            const int32_t at = b + c * WIDE;
            if (at + WIDE < columns) {
                settle_tanh(at, 1, y + c, uhat + c, &format, g, &k, most);
            } else if (at < columns) {
                settle_tanh(at, 0, y + c, uhat + c, &format, g, &k, most);
            }
        }
    }
}

VBMI __attribute__((noinline)) static void tanh_rates(const strip *s, const gle_phi_format *format)
{
    tanh_strip(s, format, NULL);
}

VBMI __attribute__((noinline)) static void gained_tanh_rates(const strip *s,
                                                             const gle_phi_format *format)
{
    const gaining g = gaining_of(s->row);

    tanh_strip(s, format, &g);
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

    if (phi == GLE_TANH && s->by_bytes) {
        (gained ? gained_tanh_rates : tanh_rates)(s, format);
        return;
    }
    GLE_WITH_PHI(phi, RATES)
}

/* Error neurons of row i, and of as many behind it as are like it. Returns how many rows. */
AVX512 static int32_t error_rows(strip *s)
{
    const gle_neuron_job *const job = s->job;
    const gle_neuron *const own = &job->layer->neurons[s->i];
    const int32_t left = job->layer->n - s->i;
    int32_t rows = 1;

    s->first = 0;
    s->at = (size_t)s->i * (size_t)job->columns;
    s->columns = job->columns;
    s->streams = job->batch;
    if (s->row->noise_e.m != 0) { /* of a neuron's own */
        noisy_errors(s);
        return 1;
    }
    while (rows < left && (rows + 1) * job->columns <= ALIKE_MOST &&
           own[rows].leak_v == own->leak_v && own[rows].ratio_v == own->ratio_v) {
        rows++;
    }
    s->columns *= rows;
    errors(s);
    return rows;
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
    const gle_neuron *const own = job->layer->neurons;
    const int32_t n = job->layer->n;
    int32_t heard = 0; /* rows whose error neurons have stepped */
    const __m512i zero = _mm512_setzero_si512();
    tally t = {zero, zero, zero, zero, zero, 0, 0, 0};
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
    s.by_bytes = gle_tanh_by_bytes();
    for (s.i = 0; s.i < n; s.i++) {
        if (job->noisy && (s.i & 3) == 0) {
            draw_words(job, s.i);
        }
        if (s.i == 0 || memcmp(own + s.i, own + s.i - 1, sizeof *own) != 0) {
            gle_row_times(own + s.i, &row);
        }
        gle_row_own(job, s.i, &row);
        if (s.i == heard) {
            heard += error_rows(&s);
        }
        step_row(&s, &formats);
    }
    const gle_tally all_rows = {sum_of(t.sat_x), sum_of(t.sat_uhat), sum_of(t.sat_r),
                                sum_of(t.sat_inst), t.sat_e, t.under, t.half_e,
                                (uint32_t)_mm512_reduce_max_epi32(t.peak_r)};
    gle_counted(job, n, &all_rows);
}

#else
typedef int gle_no_neurons_vnni; /* ISO C wants one declaration a file */
#endif
