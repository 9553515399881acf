/* One time step of a layer's neurons for AVX2, eight streams at a time.
 *
 * The same integers as neurons_scalar.c, line by line. Products of a state with a
 * multiplier are 32 x 32 -> 64 bits for even and odd lanes; since results fit 32 bits,
 * a logical 64-bit shift will do (AVX2 has no arithmetic one).
 */
#include "neurons.h"

#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)

#include <immintrin.h>

#define AVX2 __attribute__((target("avx2,popcnt")))
#define LANES static inline __attribute__((always_inline, target("avx2,popcnt")))

LANES __m256i all(int32_t x) { return _mm256_set1_epi32(x); }

LANES __m256i clamp(__m256i x, int32_t limit)
{
    return _mm256_max_epi32(all(-limit), _mm256_min_epi32(all(limit), x));
}

LANES __m256i sra(__m256i x, int32_t k) { return _mm256_sra_epi32(x, _mm_cvtsi32_si128(k)); }
LANES __m256i sll(__m256i x, int32_t k) { return _mm256_sll_epi32(x, _mm_cvtsi32_si128(k)); }

/* gle_scale on lanes; m has its factor in every lane. */
LANES __m256i scale_by(__m256i d, __m256i m, int32_t k)
{
    const __m256i half = _mm256_set1_epi64x(1LL << (k - 1));
    const __m256i odd = _mm256_srli_epi64(d, 32);
    __m256i even = _mm256_add_epi64(_mm256_mul_epi32(d, m), half);
    __m256i high = _mm256_add_epi64(_mm256_mul_epi32(odd, m), half);

    even = _mm256_srl_epi64(even, _mm_cvtsi32_si128(k));
    high = _mm256_sll_epi64(high, _mm_cvtsi32_si128(32 - k));
    return _mm256_blend_epi32(even, high, 0xaa);
}

LANES __m256i scale(__m256i d, const gle_mul *f)
{
    return f->one ? d : scale_by(d, all(f->m), f->k);
}

LANES __m256i scale_q15(__m256i d, __m256i slope)
{
    const __m256i half = _mm256_set1_epi64x(16384);
    __m256i even = _mm256_add_epi64(_mm256_mul_epi32(d, slope), half);
    __m256i high = _mm256_add_epi64(
        _mm256_mul_epi32(_mm256_srli_epi64(d, 32), _mm256_srli_epi64(slope, 32)), half);

    even = _mm256_srli_epi64(even, 15);
    high = _mm256_slli_epi64(high, 17);
    return _mm256_blend_epi32(even, high, 0xaa);
}

LANES __m256i load(const int32_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }
LANES void store(int32_t *p, __m256i x) { _mm256_storeu_si256((__m256i *)(void *)p, x); }

/* Low halves of eight lanes as eight 16-bit numbers. */
LANES void store16(void *p, __m256i x)
{
    const __m256i pick = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1,
                                          0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m256i y = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(x, pick), 0x08);
    _mm_storeu_si128(p, _mm256_castsi256_si128(y));
}

LANES __m256i entries(const uint32_t *table, __m256i position)
{
    return _mm256_i32gather_epi32((const int *)(const void *)table,
                                                 _mm256_srli_epi32(position, 16), 4);
}

/* step * part + half of a table's entry at a position */
LANES __m256i within(__m256i entry, __m256i position, int32_t half)
{
    const __m256i step = _mm256_and_si256(entry, all(0x1fff));
    const __m256i part = _mm256_and_si256(position, all(0xffff));
    return _mm256_add_epi32(_mm256_mullo_epi32(step, part), all(half));
}

LANES __m256i tanh_at(__m256i position)
{
    const __m256i entry = entries(gle_tanh_table, position);
    return _mm256_add_epi32(_mm256_srli_epi32(entry, 13),
                            _mm256_srli_epi32(within(entry, position, 0x8000), 16));
}

LANES __m256i softplus_at(__m256i position)
{
    const __m256i entry = entries(gle_softplus_table, position);
    return _mm256_sub_epi32(_mm256_slli_epi32(_mm256_srli_epi32(entry, 13), 4),
                            _mm256_srli_epi32(within(entry, position, 0x800), 12));
}

LANES __m256i tanh_slope(__m256i y)
{
    const __m256i y15 = _mm256_srai_epi32(_mm256_add_epi32(y, all(4)), 3);
    const __m256i square = _mm256_add_epi32(_mm256_mullo_epi32(y15, y15), all(0x4000));
    return _mm256_sub_epi32(all(GLE_PHI_ONE), _mm256_srli_epi32(square, 15));
}

/* gle_phi_rate on lanes. */
LANES __m256i rate(const int32_t phi, __m256i uhat, const gle_phi_format *f, __m256i *slope)
{
    const __m256i size = _mm256_abs_epi32(uhat);
    const __m256i negative = _mm256_srai_epi32(uhat, 31);

    if (phi == GLE_TANH) {
        __m256i y = sll(_mm256_min_epi32(size, all(f->end8)), f->align);
        y = tanh_at(y);
        *slope = tanh_slope(y);
        y = sra(_mm256_add_epi32(y, all(f->tanh_half)), f->tanh_shift);
        return _mm256_sub_epi32(_mm256_xor_si256(y, negative), negative);
    }
    if (phi == GLE_SIGMOID || phi == GLE_SOFTPLUS) {
        const __m256i end = _mm256_min_epi32(size, all(f->end16));
        const __m256i position =
            f->align > 0 ? sll(end, f->align - 1) : _mm256_srai_epi32(end, 1);
        __m256i y = tanh_at(position);
        const __m256i z = _mm256_add_epi32(
            all(1 << 18), _mm256_sub_epi32(_mm256_xor_si256(y, negative), negative));
        if (phi == GLE_SIGMOID) {
            *slope = _mm256_srai_epi32(_mm256_add_epi32(tanh_slope(y), all(2)), 2);
            return sra(_mm256_add_epi32(z, all(f->sigmoid_half)), f->sigmoid_shift);
        }
        *slope = _mm256_srai_epi32(z, 4);
        y = softplus_at(position);
        y = sra(_mm256_add_epi32(y, all(f->soft_half)), f->soft_shift);
        y = _mm256_add_epi32(y, _mm256_andnot_si256(negative, uhat));
        return sra(_mm256_add_epi32(y, all(f->linear_half)), f->linear_shift);
    }
    *slope = all(GLE_PHI_ONE);
    if (phi == GLE_RELU) {
        *slope = _mm256_and_si256(*slope, _mm256_cmpgt_epi32(uhat, _mm256_setzero_si256()));
        uhat = _mm256_andnot_si256(negative, uhat);
    }
    return sra(_mm256_add_epi32(uhat, all(f->linear_half)), f->linear_shift);
}

LANES uint32_t count(__m256i mask)
{
    return (uint32_t)_mm_popcnt_u32((uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(mask)));
}

LANES uint32_t largest(__m256i x)
{
    __m128i y = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    y = _mm_max_epi32(y, _mm_shuffle_epi32(y, 0x4e));
    y = _mm_max_epi32(y, _mm_shuffle_epi32(y, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(y);
}

/* gle_rng_root and gle_rng_word on lanes. */
LANES __m256i rng_root(gle_key key, __m256i index)
{
    __m256i x = _mm256_xor_si256(index, all((int32_t)key.a));
    x = _mm256_mullo_epi32(_mm256_xor_si256(x, _mm256_srli_epi32(x, 16)), all(0x7feb352d));
    x = _mm256_add_epi32(_mm256_xor_si256(x, _mm256_srli_epi32(x, 15)), all((int32_t)key.b));
    x = _mm256_mullo_epi32(x, all((int32_t)0x846ca68bu));
    return _mm256_xor_si256(x, _mm256_srli_epi32(x, 16));
}

LANES __m256i rng_word(__m256i root, uint32_t which)
{
    const __m256i x = _mm256_mullo_epi32(root, all((int32_t)which));
    return _mm256_xor_si256(x, _mm256_srli_epi32(x, 15));
}

/* gle_noise_at on lanes: bytes are summed in pairs and fours; the factors have 16 bits. */
LANES __m256i noise(const gle_noise *f, __m256i random)
{
    const __m256i two = _mm256_maddubs_epi16(random, all(0x01010101));
    const __m256i four = _mm256_madd_epi16(two, all(0x00010001));
    const __m256i x =
        _mm256_madd_epi16(_mm256_sub_epi32(four, all(GLE_NOISE_MEAN)), all(f->m));
    return sra(_mm256_add_epi32(sll(x, f->left), all(f->half)), f->right);
}

LANES uint32_t total(__m256i x)
{
    x = _mm256_hadd_epi32(x, x);
    x = _mm256_hadd_epi32(x, x);
    return (uint32_t)(_mm256_extract_epi32(x, 0) + _mm256_extract_epi32(x, 4));
}

LANES void step_row(const gle_neuron_job *job, int32_t i, const int32_t phi, const int analog)
{
    gle_layer *const layer = job->layer;
    const size_t at = (size_t)i * (size_t)job->columns;
    int16_t *const r_row = layer->r + at;
    int16_t *const e_row = layer->e + at;
    uint16_t *const dphi_row = layer->dphi + at;
    const int32_t bounded = phi == GLE_TANH || phi == GLE_SIGMOID;
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i streams = _mm256_mullo_epi32(lanes, all(GLE_MAX_SIZE));
    gle_row row;

    gle_row_of_layer(job, &row);
    gle_row_of(job, i, &row);
    const int32_t noisy = (row.noise_u.m | row.noise_e.m) != 0;
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
        __m256i root = _mm256_setzero_si256();
        if (analog && noisy) {
            const uint32_t first = gle_noise_index(job->first + (uint32_t)b, i);
            root = rng_root(job->key, _mm256_add_epi32(streams, all((int32_t)first)));
        }
        if (analog && row.noise_e.m != 0) {
            const __m256i more = noise(&row.noise_e, rng_word(root, GLE_RNG_SECOND));
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
        if (analog && row.noise_u.m != 0) {
            const __m256i more = noise(&row.noise_u, rng_word(root, GLE_RNG_FIRST));
            u_new = clamp(_mm256_add_epi32(u_new, _mm256_and_si256(live, more)), row.u_max);
        }
        store(layer->u + here, u_new);
        if (layer->uhat != NULL) {
            store(layer->uhat + here, uhat);
        }
        ok_r = all(-1);
        if (analog) {
            raw = rate(phi, _mm256_add_epi32(uhat, all(row.offset)), &row.format, &slope);
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

        __m256i hash = load((const int32_t *)(const void *)(job->hash + b));
        hash = _mm256_add_epi32(hash, _mm256_mullo_epi32(u_new, all((int32_t)row.hash_u)));
        hash = _mm256_add_epi32(hash, _mm256_mullo_epi32(v_new, all((int32_t)row.hash_v)));
        hash = _mm256_add_epi32(
            hash, _mm256_mullo_epi32(_mm256_blend_epi16(_mm256_slli_epi32(e, 16), r, 0x55),
                                     all((int32_t)row.hash_s)));
        store((int32_t *)(void *)(job->hash + b), hash);

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

#define IDEAL_ROWS(phi)               \
    for (int32_t i = 0; i < n; i++) { \
        step_row(job, i, phi, 0);     \
    }
#define ANALOG_ROWS(phi)              \
    for (int32_t i = 0; i < n; i++) { \
        step_row(job, i, phi, 1);     \
    }

AVX2 void gle_neurons_avx2(const gle_neuron_job *job)
{
    const int32_t n = job->layer->n;

    if (job->columns == 1) {
        gle_neurons_scalar(job);
        return;
    }
    if (job->analog) {
        GLE_WITH_PHI(job->layer->image->phi, ANALOG_ROWS)
    } else {
        GLE_WITH_PHI(job->layer->image->phi, IDEAL_ROWS)
    }
}

#else
typedef int gle_no_neurons_avx2; /* ISO C wants one declaration a file */
#endif
