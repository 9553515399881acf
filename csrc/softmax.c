/* Target error of the output layer, in integers: beta (y - softmax(r)) or beta (y - r).
 *
 * An output neuron compares with its own rate before that is rounded to travel: a rate's
 * LSB here would be amplified by tau_m/tau_r in every layer that the error passes.
 *
 * softmax works on r - max r <= 0 in base 2: 2^-t from a table with linear
 * interpolation (error below 2^-19), one 32-bit division per stream for the
 * reciprocal of the sum (error below 2^-15 of a probability).
 */
#include "analog.h"
#include "chip.h"
#include "exp2_table.h"
#include "phi.h"

enum { EXP_FRAC = 20, P_FRAC = 24 };

/* 2^-t in EXP_FRAC, t >= 0 in 16 fraction bits. */
static uint32_t exp2_minus(uint32_t t)
{
    const uint32_t whole = t >> 16;
    const uint32_t at = (t >> 8) & 0xffu;
    int32_t y = gle_exp2_table[at];

    if (whole > EXP_FRAC) {
        return 0;
    }
    y -= ((y - gle_exp2_table[at + 1]) * (int32_t)(t & 0xffu) + 128) >> 8;
    return (uint32_t)y >> whole;
}

/* Fraction bits of the rates that are compared with the target. */
static int32_t fine_frac(const gle_layer *top)
{
    return top->u_frac < 15 ? top->u_frac : 15;
}

/* (max - r) log2(e) in 16 fraction bits. */
static uint32_t base2(uint32_t below_max, int32_t frac)
{
    const uint64_t scaled = (uint64_t)below_max * UINT32_C(94548) >> frac;
    return scaled > UINT32_C(0x7fffffff) ? UINT32_C(0x7fffffff) : (uint32_t)scaled;
}

/* Rates of the previous step, [outputs] of stream b, into column b of `to`. Before the
 * first step they are 0 whatever the activation. */
static void fine_rates(const gle_chip *chip, const gle_layer *top, int32_t b, int32_t *to)
{
    const gle_phi_format format = gle_phi_format_of(top->u_frac, fine_frac(top));
    int32_t slope;

    for (int32_t i = 0; i < top->n; i++) {
        const size_t at = (size_t)i * (size_t)chip->columns + (size_t)b;
        const gle_analog *own = top->analog ? &top->analog[i] : NULL;
        const int32_t z = top->uhat[at] + (own ? own->offset : 0);
        const int32_t y = gle_phi_rate(top->image->phi, z, &format, &slope);
        to[at] = chip->step == 0 ? 0
                 : own           ? gle_round_clamp64((int64_t)y * own->gain, GLE_GAIN_BITS,
                                                     GLE_SUM_MAX)
                                 : y;
    }
}

static void cross_entropy(const gle_layer *top, int32_t b, int32_t columns, int32_t label,
                          uint32_t beta, int32_t *above)
{
    const int32_t shift = P_FRAC + gle_coef_k(beta) - top->v_frac;
    int32_t *const r = above + b;
    int32_t peak = r[0], norm = 0;
    uint32_t sum = 0, inverse;

    for (int32_t i = 1; i < top->n; i++) {
        const int32_t x = r[(size_t)i * (size_t)columns];
        peak = x > peak ? x : peak;
    }
    for (int32_t i = 0; i < top->n; i++) {
        int32_t *at = r + (size_t)i * (size_t)columns;
        const uint32_t p = exp2_minus(base2((uint32_t)peak - (uint32_t)*at, fine_frac(top)));
        *at = (int32_t)p;
        sum += p;
    }
    while (sum >> norm >= 1u << 16) {
        norm++;
    }
    inverse = UINT32_C(0xffffffff) / (sum >> norm);
    for (int32_t i = 0; i < top->n; i++) {
        int32_t *at = r + (size_t)i * (size_t)columns;
        const uint64_t p = (uint64_t)(uint32_t)*at * inverse >> (32 + norm - P_FRAC);
        const int64_t e = (i == label ? (int64_t)1 << P_FRAC : 0) - (int64_t)p;
        *at = gle_round_clamp64(e * gle_coef_m(beta), shift, GLE_SUM_MAX);
    }
}

static void squared(const gle_layer *top, int32_t b, int32_t columns, const int16_t *y,
                    int32_t target_frac, uint32_t beta, int32_t *above)
{
    const int32_t rate_frac = fine_frac(top);
    const int32_t frac = target_frac > rate_frac ? target_frac : rate_frac;
    const int32_t shift = frac + gle_coef_k(beta) - top->v_frac;

    for (int32_t i = 0; i < top->n; i++) {
        int32_t *at = above + (size_t)i * (size_t)columns + (size_t)b;
        const int64_t e =
            gle_round64(y[i], target_frac - frac) - gle_round64(*at, rate_frac - frac);
        *at = gle_round_clamp64(e * gle_coef_m(beta), shift, GLE_SUM_MAX);
    }
}

void gle_target_error(const gle_chip *chip, const gle_layer *top, const int16_t *target,
                      int32_t *above)
{
    const int32_t columns = chip->columns;
    const int32_t ce = chip->image->loss == GLE_CROSS_ENTROPY;

    if (ce && target != NULL && columns > 1 && chip->kernels->target_error != NULL &&
        chip->kernels->target_error(chip, top, target, above)) {
        return;
    }
    for (int32_t b = 0; b < columns; b++) {
        if (target != NULL && b < chip->batch && !(ce && target[b] < 0)) {
            fine_rates(chip, top, b, above);
            if (ce) {
                cross_entropy(top, b, columns, target[b], chip->image->beta, above);
            } else {
                squared(top, b, columns, target + (size_t)b * (size_t)top->n,
                        chip->image->target_frac, chip->image->beta, above);
            }
        } else {
            for (int32_t i = 0; i < top->n; i++) {
                above[(size_t)i * (size_t)columns + (size_t)b] = 0;
            }
        }
    }
}
