/* One time step of a layer's neurons for a single stream with AVX2: eight neurons at a time,
 * each lane with its own multipliers, offset, gain and noise. The same integers as
 * neurons_scalar.c. Signals can be read beyond their end (the arena is aligned to 64 bytes),
 * records of neurons, which are in the image, cannot; nothing is written there. */
#include "neurons.h"

#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)

#include "lanes_avx2.h"

/* A multiplier for each lane, see gle_mul: m and k for even lanes and for odd ones. */
typedef struct {
    __m256i m, m_odd, k, k_odd;
} mul_lanes;

LANES mul_lanes mul_of(__m256i packed)
{
    mul_lanes f;

    f.m = _mm256_srli_epi32(packed, 8);
    f.m_odd = _mm256_srli_epi64(packed, 40);
    f.k = _mm256_and_si256(packed, _mm256_set1_epi64x(0xff));
    f.k_odd = _mm256_and_si256(_mm256_srli_epi64(packed, 32), _mm256_set1_epi64x(0xff));
    return f;
}

/* gle_scale with a multiplier for each lane. */
LANES __m256i scale_each(__m256i d, const mul_lanes *f)
{
    const __m256i one = _mm256_set1_epi64x(1);
    __m256i even = _mm256_mul_epi32(d, f->m);
    __m256i odd = _mm256_mul_epi32(_mm256_srli_epi64(d, 32), f->m_odd);

    even = _mm256_add_epi64(even, _mm256_srli_epi64(_mm256_sllv_epi64(one, f->k), 1));
    odd = _mm256_add_epi64(odd, _mm256_srli_epi64(_mm256_sllv_epi64(one, f->k_odd), 1));
    even = _mm256_srlv_epi64(even, f->k);
    odd = _mm256_sllv_epi64(odd, _mm256_sub_epi64(_mm256_set1_epi64x(32), f->k_odd));
    return _mm256_blend_epi32(even, odd, 0xaa);
}

LANES __m256i clamp_each(__m256i x, __m256i limit)
{
    const __m256i least = _mm256_sub_epi32(_mm256_setzero_si256(), limit);
    return _mm256_max_epi32(least, _mm256_min_epi32(limit, x));
}

/* d within what a multiplier's product can hold. */
LANES __m256i near_each(__m256i d, __m256i packed)
{
    const __m256i k = _mm256_and_si256(packed, all(0xff));
    const __m256i bits = _mm256_min_epi32(all(29), _mm256_add_epi32(k, all(15)));
    return clamp_each(d, _mm256_sllv_epi32(all(1), bits));
}

/* The four words of eight records of four, 0 where none are left. */
LANES void records(__m256i word[4], const void *from, int32_t left)
{
    const __m128i *const record = from;
    __m256i four[4], ab[2], cd[2];

#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
        const __m128i zero = _mm_setzero_si128();
        const __m128i low = left > r ? _mm_loadu_si128(record + r) : zero;
        const __m128i high = left > r + 4 ? _mm_loadu_si128(record + r + 4) : zero;
        four[r] = _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
    }
    ab[0] = _mm256_unpacklo_epi32(four[0], four[1]);
    ab[1] = _mm256_unpackhi_epi32(four[0], four[1]);
    cd[0] = _mm256_unpacklo_epi32(four[2], four[3]);
    cd[1] = _mm256_unpackhi_epi32(four[2], four[3]);
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        word[2 * h] = _mm256_unpacklo_epi64(ab[h], cd[h]);
        word[2 * h + 1] = _mm256_unpackhi_epi64(ab[h], cd[h]);
    }
}

LANES void put(int32_t *to, __m256i x, int32_t left, __m256i live)
{
    if (left >= 8) {
        store(to, x);
    } else {
        _mm256_maskstore_epi32(to, live, x);
    }
}

LANES void put16(void *to, __m256i x, int32_t left)
{
    if (left >= 8) {
        store16(to, x);
    } else {
        uint16_t *const some = to;
        uint16_t whole[8];
        store16(whole, x);
        for (int32_t k = 0; k < left; k++) {
            some[k] = whole[k];
        }
    }
}

typedef struct {
    gle_tally count;
    __m256i under_e, half_e, peak_r, hash;
} tally;

/* What is off in eight neurons, see gle_row_analog. */
typedef struct {
    __m256i offset, gain, noise_u;
    __m256i extra; /* bits of a rate before its gain */
} off_lanes;

LANES off_lanes off_of(const gle_layer *layer, int32_t i, int32_t left)
{
    const __m256i one = all(GLE_GAIN_ONE);
    const int32_t extra = gle_fine_frac(layer) - layer->r_frac;
    __m256i word[4] = {_mm256_setzero_si256(), one, _mm256_setzero_si256(), one};
    off_lanes off;

    if (layer->analog != NULL) {
        records(word, layer->analog + i, left);
    }
    off.offset = word[0];
    off.gain = word[1];
    off.noise_u = word[2];
    off.extra = _mm256_andnot_si256(_mm256_cmpeq_epi32(off.gain, one), all(extra));
    return off;
}

LANES void eight(const gle_neuron_job *job, const gle_row *same, int32_t i, const int32_t phi,
                 const int analog, tally *t)
{
    gle_layer *const layer = job->layer;
    const int32_t bounded = phi == GLE_TANH || phi == GLE_SIGMOID;
    const int32_t left = layer->n - i;
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i zero = _mm256_setzero_si256();
    const __m256i live = _mm256_cmpgt_epi32(all(left), lanes);
    const __m256i v = load(layer->v + i);
    const __m256i u = load(layer->u + i);
    __m256i slope = _mm256_cvtepu16_epi32(
        _mm_loadu_si128((const __m128i *)(const void *)(layer->dphi + i)));
    __m256i word[4], root = zero; /* the same for four neurons */
    off_lanes off = {zero, zero, zero, zero};

    records(word, layer->neurons + i, left);
    if (analog) {
        const uint32_t first = gle_noise_index(job->first, i);
        off = off_of(layer, i, left);
        root = rng_root(job->key, _mm256_add_epi32(_mm256_srli_epi32(lanes, 2),
                                                   all((int32_t)first)));
    }
    mul_lanes leak = mul_of(word[2]), ratio = mul_of(word[3]);

    __m256i raw = scale_q15(load(job->above + i), slope);
    const __m256i inst = clamp(raw, GLE_STATE_MAX);
    const __m256i delta_v = _mm256_sub_epi32(inst, v);
    __m256i near = near_each(delta_v, word[3]);
    const __m256i ok_inst =
        _mm256_and_si256(_mm256_cmpeq_epi32(raw, inst), _mm256_cmpeq_epi32(near, delta_v));
    __m256i ehat = _mm256_add_epi32(v, scale_each(near, &ratio));
    if (analog && same->noise_e.m != 0) {
        const __m256i more = noise_alike(&same->noise_e, rng_word(root, GLE_RNG_SECOND));
        ehat = _mm256_add_epi32(ehat, more);
    }
    const __m256i v_new = _mm256_add_epi32(v, scale_each(delta_v, &leak));
    put(layer->v + i, v_new, left, live);
    raw = sra(_mm256_add_epi32(ehat, all(same->v_half)), same->v_extra);
    const __m256i e = clamp(raw, same->e_max);
    const __m256i ok_e = _mm256_cmpeq_epi32(raw, e);
    const __m256i none = _mm256_and_si256(live, _mm256_cmpeq_epi32(e, zero));
    t->under_e = _mm256_sub_epi32(t->under_e,
                                  _mm256_andnot_si256(_mm256_cmpeq_epi32(ehat, zero), none));
    const __m256i large = _mm256_cmpgt_epi32(_mm256_abs_epi32(e), all(same->e_max >> 1));
    t->half_e = _mm256_sub_epi32(t->half_e, _mm256_and_si256(live, large));
    put16(layer->e + i, e, left);

    raw = _mm256_add_epi32(load(job->sums + i), load(layer->bias + i));
    if (same->gamma_m != 0) {
        __m256i nudge = clamp(_mm256_mullo_epi32(e, all(same->gamma_m)), same->gamma_limit);
        nudge = sll(nudge, same->gamma_left);
        nudge = sra(_mm256_add_epi32(nudge, all(same->gamma_half)), same->gamma_right);
        raw = _mm256_add_epi32(raw, nudge);
    }
    const __m256i x = clamp(raw, same->u_max);
    const __m256i ok_x = _mm256_cmpeq_epi32(raw, x);
    const __m256i delta_u = _mm256_sub_epi32(x, u);
    leak = mul_of(word[0]);
    ratio = mul_of(word[1]);
    near = near_each(delta_u, word[1]);
    const __m256i ok_uhat = _mm256_cmpeq_epi32(near, delta_u);
    const __m256i uhat = _mm256_add_epi32(u, scale_each(near, &ratio));
    __m256i u_new = _mm256_add_epi32(u, scale_each(delta_u, &leak));
    if (analog) {
        const __m256i more = noise_each(off.noise_u, rng_word(root, GLE_RNG_FIRST));
        u_new = clamp(_mm256_add_epi32(u_new, more), same->u_max);
    }
    put(layer->u + i, u_new, left, live);
    if (layer->uhat != NULL) {
        put(layer->uhat + i, uhat, left, live);
    }
    __m256i ok_r = all(-1);
    if (analog) {
        const __m256i drop = _mm256_sub_epi32(all(gle_phi_drop(phi, &same->format)), off.extra);
        raw = rate_each(phi, _mm256_add_epi32(uhat, off.offset), &same->format, drop, &slope);
        near = clamp_each(raw, _mm256_sllv_epi32(all(same->r_max), off.extra));
        const __m256i dead = _mm256_cmpeq_epi32(off.gain, zero);
        ok_r = _mm256_or_si256(dead, _mm256_cmpeq_epi32(raw, near));
        raw = round_each(_mm256_mullo_epi32(near, off.gain),
                         _mm256_add_epi32(off.extra, all(GLE_GAIN_BITS)));
        slope = _mm256_andnot_si256(dead, slope);
    } else {
        raw = rate(phi, uhat, &same->format, &slope);
    }
    const __m256i r = clamp(raw, same->r_max);
    ok_r = bounded ? all(-1) : _mm256_and_si256(ok_r, _mm256_cmpeq_epi32(raw, r));
    if (!bounded) {
        t->peak_r = _mm256_max_epi32(t->peak_r, _mm256_and_si256(live, _mm256_abs_epi32(r)));
    }
    put16(layer->r + i, r, left);
    put16(layer->dphi + i, slope, left);

    const __m256i index =
        _mm256_mullo_epi32(_mm256_add_epi32(all(layer->first + i), lanes), all(3));
    const __m256i states[3] = {u_new, v_new,
                               _mm256_blend_epi16(_mm256_slli_epi32(e, 16), r, 0x55)};
    const uint32_t factor[3] = {0x9e3779b1u, 0x85ebca77u, 0xc2b2ae3du};
#pragma GCC unroll 3
    for (int c = 0; c < 3; c++) {
        const __m256i by = _mm256_or_si256(
            _mm256_mullo_epi32(_mm256_add_epi32(index, all(c + 1)), all((int32_t)factor[c])),
            all(1));
        t->hash = _mm256_add_epi32(t->hash,
                                   _mm256_and_si256(live, _mm256_mullo_epi32(states[c], by)));
    }

    /* Clips are rare: look for one of any kind, and count only then. */
    __m256i ok = _mm256_and_si256(_mm256_and_si256(ok_inst, ok_e), _mm256_and_si256(ok_x, ok_uhat));
    ok = _mm256_and_si256(ok, ok_r);
    if (!_mm256_testc_si256(ok, live)) {
        t->count.sat_inst += count(_mm256_andnot_si256(ok_inst, live));
        t->count.sat_e += count(_mm256_andnot_si256(ok_e, live));
        t->count.sat_x += count(_mm256_andnot_si256(ok_x, live));
        t->count.sat_uhat += count(_mm256_andnot_si256(ok_uhat, live));
        t->count.sat_r += count(_mm256_andnot_si256(ok_r, live));
    }
}

#define IDEAL_ROWS(phi)                      \
    for (int32_t i = 0; i < n; i += 8) {     \
        eight(job, &same, i, phi, 0, &t);    \
    }
#define ANALOG_ROWS(phi)                     \
    for (int32_t i = 0; i < n; i += 8) {     \
        eight(job, &same, i, phi, 1, &t);    \
    }

AVX2 void gle_neurons_one_avx2(const gle_neuron_job *job)
{
    const __m256i zero = _mm256_setzero_si256();
    const int32_t n = job->layer->n;
    tally t = {{0, 0, 0, 0, 0, 0, 0, 0}, zero, zero, zero, zero};
    gle_row same;

    gle_row_of_layer(job, &same);
    if (job->analog) {
        GLE_WITH_PHI(job->layer->image->phi, ANALOG_ROWS)
    } else {
        GLE_WITH_PHI(job->layer->image->phi, IDEAL_ROWS)
    }
    job->hash[0] += total(t.hash);
    t.count.under_e = total(t.under_e);
    t.count.half_e = total(t.half_e);
    t.count.peak_r = largest(t.peak_r);
    gle_counted(job, n, &t.count);
}

#else
typedef int gle_no_neurons_one_avx2; /* ISO C wants one declaration a file */
#endif
