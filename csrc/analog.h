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
 *
 * Where no target is given in a step and gamma is 0, nothing listens to errors and the error
 * path is not driven: it has no noise, error neurons decay by their equations. With a target,
 * or with a gamma, there is noise in every step.
 *
 * Four neighbours share one random word: neurons 4 k .. 4 k + 3 of a stream, or the synapses of
 * such neurons from one source. Each adds up its four bytes with signs of its own, the rows of a
 * Hadamard matrix, so that the four sums have the same variance and no correlation. They are not
 * independent: their squares are correlated by -0.18, and all four are odd or even together.
 * A hash in four neurons is what this saves.
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

/* Four bytes with the signs of neuron i, less their mean: nearly normal, ends at 3.5 standard
 * deviations.
 *
 *     i % 4 = 0:  b0 + b1 + b2 + b3 - 510        2:  b0 + b1 - b2 - b3
 *             1:  b0 - b1 + b2 - b3              3:  b0 - b1 - b2 + b3
 */
static inline int32_t gle_noise_unit(uint32_t word, int32_t i)
{
    const int32_t b0 = (int32_t)(word & 0xffu), b1 = (int32_t)(word >> 8 & 0xffu);
    const int32_t b2 = (int32_t)(word >> 16 & 0xffu), b3 = (int32_t)(word >> 24);
    const int32_t s1 = 1 - 2 * (i & 1), s2 = 1 - (i & 2);

    return b0 + s1 * b1 + s2 * (b2 + s1 * b3) - ((i & 3) == 0 ? GLE_NOISE_MEAN : 0);
}

/* The signs of neuron i times 2^left as four bytes, for instructions that sum products of
 * bytes; what is to be taken off such a sum. */
static inline uint32_t gle_noise_signs(int32_t i, int32_t left)
{
    const uint32_t minus = (i & 3) == 0   ? 0u
                           : (i & 3) == 1 ? UINT32_C(0xff00ff00)
                           : (i & 3) == 2 ? UINT32_C(0xffff0000)
                                          : UINT32_C(0x00ffff00);
    const uint32_t ones = UINT32_C(0x01010101);

    return (ones << left & ~minus) | ((256u - (1u << left)) * ones & minus);
}

static inline int32_t gle_noise_mean(int32_t i, int32_t left)
{
    return (i & 3) == 0 ? GLE_NOISE_MEAN * (1 << left) : 0;
}

/* n of gle_noise_unit; |n m| < 2^24, so that all of it fits 2^29. */
static inline int32_t gle_noise_at(const gle_noise *f, int32_t n)
{
    return (n * f->m * (1 << f->left) + f->half) >> f->right;
}

/* Of the word of neuron i and its three neighbours, in one stream and step. */
static inline uint32_t gle_noise_index(uint32_t stream, int32_t i)
{
    return stream * (uint32_t)(GLE_MAX_SIZE / 4) + (uint32_t)(i >> 2);
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
