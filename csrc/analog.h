/* What a mixed-signal chip adds to the ideal one, in integers: converters, noise, and what
 * one neuron or one synapse has that its neighbour has not. All of it is fixed in the
 * image or a function of (seed, purpose, step, stream, index), so that it is the same on
 * every body however the work is split.
 *
 *     code  = round(stored 2^-w_shift)                  what the DAC of a synapse gets
 *     seen  = round(code gain 2^w_left), or stuck       what the array multiplies with
 *     input = (code 2^input_left) gain + offset
 *     ehat += noise                                     error neuron
 *     u    += noise                                     membrane
 *     r     = gain phi(uhat + offset)                   activation
 *     read  = ADC(r gain + offset + noise)              what leaves the chip
 */
#ifndef GLE_ANALOG_H
#define GLE_ANALOG_H

#include "fixed.h"
#include "gle.h"
#include "rng.h"

enum { GLE_GAIN_BITS = 13, GLE_GAIN_ONE = 1 << GLE_GAIN_BITS, GLE_ARRAY_MAX = 8191,
       GLE_FINE_BITS = 4, /* of a rate before its activation's gain */
       GLE_NOISE_BIAS = 8, GLE_NOISE_LEFT_MOST = 5, GLE_NOISE_MEAN = 510 };

/* A noise word, unpacked. */
typedef struct {
    int32_t m, left, right, half;
} gle_noise;

static inline gle_noise gle_noise_of(uint32_t word)
{
    const int32_t k = (int32_t)(word & 0xffu) - GLE_NOISE_BIAS;
    gle_noise n;

    n.m = (int32_t)(word >> 8);
    n.left = k < 0 ? -k : 0;
    n.right = k > 0 ? k : 0;
    n.half = k > 0 ? (int32_t)(UINT32_C(1) << (k - 1)) : 0;
    return n;
}

static inline int gle_noise_ok(uint32_t word)
{
    const int32_t k = (int32_t)(word & 0xffu) - GLE_NOISE_BIAS;
    return word == 0 || (word >> 8 <= 0x7fff && k >= -GLE_NOISE_LEFT_MOST && k <= 31);
}

/* The sum of four bytes less its mean: nearly normal, ends at 3.5 standard deviations. */
static inline int32_t gle_noise_unit(uint32_t random)
{
    const uint32_t two = (random & UINT32_C(0x00ff00ff)) + (random >> 8 & UINT32_C(0x00ff00ff));
    return (int32_t)((two & 0xffffu) + (two >> 16)) - GLE_NOISE_MEAN;
}

/* |n m| < 2^24, so that all of it fits 2^29. */
static inline int32_t gle_noise_at(const gle_noise *f, uint32_t random)
{
    const int32_t x = gle_noise_unit(random) * f->m * (1 << f->left);
    return (x + f->half) >> f->right;
}

/* Of neuron i in stream b of one step. */
static inline uint32_t gle_noise_index(uint32_t stream, int32_t i)
{
    return stream * (uint32_t)GLE_MAX_SIZE + (uint32_t)i;
}

static inline int32_t gle_half_word(uint32_t word, int32_t high)
{
    return (int16_t)(uint16_t)(high ? word >> 16 : word);
}

/* A weight, code 2^w_left, as the array has it; `gain` as GLE_HAS_GAINS says. */
static inline int32_t gle_synapse(int32_t weight, int32_t gain)
{
    const int32_t y = (weight * gain + GLE_GAIN_ONE / 2) >> GLE_GAIN_BITS;
    return gain < 0 ? -gain - (GLE_ARRAY_MAX + 1) : gle_clamp(y, GLE_ARRAY_MAX);
}

/* A rate in `fine_extra` more fraction bits than it travels with, through the gain of its
 * activation: 2^17 2^14 fits. */
static inline int32_t gle_gained(int32_t fine, int32_t gain, int32_t fine_extra)
{
    const int32_t shift = GLE_GAIN_BITS + fine_extra;
    return (fine * gain + (1 << (shift - 1))) >> shift;
}

#endif
