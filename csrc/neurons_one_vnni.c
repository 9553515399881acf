/* One time step of a layer's neurons for a single stream with AVX-512: sixteen neurons at a
 * time, each lane with its own multipliers. The same integers as neurons_scalar.c. */
#include "neurons.h"

#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)

#include "lanes_vnni.h"

/* A multiplier for each lane, see gle_mul. */
typedef struct {
    __m512i m, k, limit;
} mul_lanes;

LANES mul_lanes mul_of(__m512i packed)
{
    mul_lanes f;

    f.m = _mm512_srli_epi32(packed, 8);
    f.k = _mm512_and_si512(packed, all(0xff));
    f.limit = _mm512_sllv_epi32(all(1), _mm512_min_epi32(all(29), _mm512_add_epi32(f.k, all(15))));
    return f;
}

/* gle_scale with a multiplier for each lane. */
LANES __m512i scale_each(__m512i d, const mul_lanes *f)
{
    const __m512i one = _mm512_set1_epi64(1);
    const __m512i k_even = _mm512_and_si512(f->k, _mm512_set1_epi64(0xffffffffLL));
    const __m512i k_odd = _mm512_srli_epi64(f->k, 32);
    __m512i even = _mm512_mul_epi32(d, f->m);
    __m512i odd = _mm512_mul_epi32(_mm512_srli_epi64(d, 32), _mm512_srli_epi64(f->m, 32));

    even = _mm512_add_epi64(even, _mm512_srli_epi64(_mm512_sllv_epi64(one, k_even), 1));
    odd = _mm512_add_epi64(odd, _mm512_srli_epi64(_mm512_sllv_epi64(one, k_odd), 1));
    even = _mm512_srlv_epi64(even, k_even);
    odd = _mm512_slli_epi64(_mm512_srlv_epi64(odd, k_odd), 32);
    return _mm512_mask_mov_epi32(even, 0xaaaa, odd);
}

LANES __m512i clamp_each(__m512i x, __m512i limit)
{
    const __m512i least = _mm512_sub_epi32(_mm512_setzero_si512(), limit);
    return _mm512_max_epi32(least, _mm512_min_epi32(limit, x));
}

/* Word `which` of 16 records of four, `left` of which exist. */
LANES __m512i word_of(const __m512i four[4], int32_t which)
{
    const __m512i pick = _mm512_add_epi32(
        _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28), all(which));
    const __m512i low = _mm512_permutex2var_epi32(four[0], pick, four[1]);
    const __m512i high = _mm512_permutex2var_epi32(four[2], pick, four[3]);

    return _mm512_inserti64x4(low, _mm512_castsi512_si256(high), 1);
}

LANES __mmask16 first_lanes(int32_t count)
{
    return count >= 16 ? (__mmask16)0xffff : count > 0 ? (__mmask16)((1u << count) - 1u) : (__mmask16)0;
}

LANES void load_records(__m512i four[4], const gle_neuron *from, int32_t left)
{
    const uint32_t *words = (const uint32_t *)(const void *)from;

#pragma GCC unroll 4
    for (int q = 0; q < 4; q++) {
        four[q] = _mm512_maskz_loadu_epi32(first_lanes(4 * left - 16 * q), words + 16 * q);
    }
}

typedef struct {
    gle_tally count;
    __m512i peak_r, hash;
} tally;

LANES void sixteen(const gle_neuron_job *job, const gle_row *same, int32_t i, const int32_t phi,
                   tally *t)
{
    gle_layer *const layer = job->layer;
    const int32_t bounded = phi == GLE_TANH || phi == GLE_SIGMOID;
    const __mmask16 live = first_lanes(layer->n - i);
    const __m512i zero = _mm512_setzero_si512();
    const __m512i v = _mm512_maskz_loadu_epi32(live, layer->v + i);
    const __m512i u = _mm512_maskz_loadu_epi32(live, layer->u + i);
    __m512i slope = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(live, layer->dphi + i));
    __m512i four[4];

    load_records(four, layer->neurons + i, layer->n - i);
    const mul_lanes leak_u = mul_of(word_of(four, 0)), ratio_u = mul_of(word_of(four, 1));
    const mul_lanes leak_v = mul_of(word_of(four, 2)), ratio_v = mul_of(word_of(four, 3));

    __m512i raw = scale_q15(_mm512_maskz_loadu_epi32(live, job->above + i), slope);
    const __m512i inst = clamp(raw, GLE_STATE_MAX);
    const __m512i delta_v = _mm512_sub_epi32(inst, v);
    __m512i near = clamp_each(delta_v, ratio_v.limit);
    t->count.sat_inst += count((__mmask16)(live & (_mm512_cmpneq_epi32_mask(raw, inst) |
                                             _mm512_cmpneq_epi32_mask(near, delta_v))));
    const __m512i ehat = _mm512_add_epi32(v, scale_each(near, &ratio_v));
    const __m512i v_new = _mm512_add_epi32(v, scale_each(delta_v, &leak_v));
    _mm512_mask_storeu_epi32(layer->v + i, live, v_new);
    raw = sra(_mm512_add_epi32(ehat, all(same->v_half)), same->v_extra);
    const __m512i e = clamp(raw, same->e_max);
    t->count.sat_e += count((__mmask16)(live & _mm512_cmpneq_epi32_mask(raw, e)));
    t->count.under_e += count((__mmask16)(live & _mm512_cmpeq_epi32_mask(e, zero) &
                                  _mm512_cmpneq_epi32_mask(ehat, zero)));
    t->count.half_e += count((__mmask16)(
        live & _mm512_cmpgt_epi32_mask(_mm512_abs_epi32(e), all(same->e_max >> 1))));
    _mm512_mask_cvtepi32_storeu_epi16(layer->e + i, live, e);

    raw = _mm512_add_epi32(_mm512_maskz_loadu_epi32(live, job->sums + i),
                           _mm512_maskz_loadu_epi32(live, layer->bias + i));
    if (same->gamma_m != 0) {
        __m512i nudge = clamp(_mm512_mullo_epi32(e, all(same->gamma_m)), same->gamma_limit);
        nudge = sll(nudge, same->gamma_left);
        nudge = sra(_mm512_add_epi32(nudge, all(same->gamma_half)), same->gamma_right);
        raw = _mm512_add_epi32(raw, nudge);
    }
    const __m512i x = clamp(raw, same->u_max);
    t->count.sat_x += count((__mmask16)(live & _mm512_cmpneq_epi32_mask(raw, x)));
    const __m512i delta_u = _mm512_sub_epi32(x, u);
    near = clamp_each(delta_u, ratio_u.limit);
    t->count.sat_uhat += count((__mmask16)(live & _mm512_cmpneq_epi32_mask(near, delta_u)));
    const __m512i uhat = _mm512_add_epi32(u, scale_each(near, &ratio_u));
    const __m512i u_new = _mm512_add_epi32(u, scale_each(delta_u, &leak_u));
    _mm512_mask_storeu_epi32(layer->u + i, live, u_new);
    if (layer->uhat != NULL) {
        _mm512_mask_storeu_epi32(layer->uhat + i, live, uhat);
    }
    raw = rate(phi, uhat, &same->format, &slope);
    const __m512i r = clamp(raw, same->r_max);
    if (!bounded) {
        t->count.sat_r += count((__mmask16)(live & _mm512_cmpneq_epi32_mask(raw, r)));
        t->peak_r = _mm512_mask_max_epi32(t->peak_r, live, t->peak_r, _mm512_abs_epi32(r));
    }
    _mm512_mask_cvtepi32_storeu_epi16(layer->r + i, live, r);
    _mm512_mask_cvtepi32_storeu_epi16(layer->dphi + i, live, slope);

    const __m512i index = _mm512_mullo_epi32(
        _mm512_add_epi32(all(layer->first + i),
                         _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)),
        all(3));
    const __m512i states[3] = {
        u_new, v_new, _mm512_mask_blend_epi16(0x55555555u, _mm512_slli_epi32(e, 16), r)};
    const uint32_t factor[3] = {0x9e3779b1u, 0x85ebca77u, 0xc2b2ae3du};
#pragma GCC unroll 3
    for (int c = 0; c < 3; c++) {
        const __m512i by = _mm512_or_si512(
            _mm512_mullo_epi32(_mm512_add_epi32(index, all(c + 1)), all((int32_t)factor[c])),
            all(1));
        t->hash = _mm512_mask_add_epi32(t->hash, live, t->hash, _mm512_mullo_epi32(states[c], by));
    }
}

#define ROWS(phi)                           \
    for (int32_t i = 0; i < n; i += 16) {   \
        sixteen(job, &same, i, phi, &t);    \
    }

AVX512 void gle_neurons_one_vnni(const gle_neuron_job *job)
{
    const int32_t n = job->layer->n;
    tally t = {{0, 0, 0, 0, 0, 0, 0, 0}, _mm512_setzero_si512(), _mm512_setzero_si512()};
    uint32_t hashes[16];
    gle_row same;

    if (job->analog) { /* each lane with its own offset, gain and noise: there */
        gle_neurons_one_avx2(job);
        return;
    }
    gle_row_of_layer(job, &same);
    GLE_WITH_PHI(job->layer->image->phi, ROWS)
    _mm512_storeu_si512(hashes, t.hash);
    for (int32_t k = 0; k < 16; k++) {
        job->hash[0] += hashes[k]; /* unsigned, as it wraps */
    }
    t.count.peak_r = (uint32_t)_mm512_reduce_max_epi32(t.peak_r);
    gle_counted(job, n, &t.count);
}

#else
typedef int gle_no_neurons_one_vnni; /* ISO C wants one declaration a file */
#endif
