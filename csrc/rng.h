/* Random bits from counters: a pure function of (seed, purpose, step, index).
 *
 * There is no generator state. Whatever the order, the split of the work or the
 * machine, the same event gets the same bits. The per-step key is mixed with the
 * finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014); each index then
 * costs two 32-bit multiplications (a keyed finaliser of the Murmur3 kind), which
 * is what vector units and a Cortex-M have.
 */
#ifndef GLE_RNG_H
#define GLE_RNG_H

#include <stdint.h>

/* What the bits are for; a number, once used, keeps its meaning. */
enum gle_purpose {
    GLE_RNG_WEIGHT_UPDATE = 1,
    GLE_RNG_BIAS_UPDATE = 2,
    GLE_RNG_NEURON = 3, /* membrane noise; as a second word the error neuron's */
    GLE_RNG_READ_OUT = 5,
    GLE_RNG_UPDATE_NOISE = 6,
    GLE_RNG_DRIFT = 7,
    GLE_RNG_NORM = 8, /* rounding of running means of gradients */
    GLE_RNG_NORM_BIAS = 9,
    GLE_RNG_FEEDBACK_UPDATE = 32,
    GLE_RNG_FEEDBACK_NOISE = 33,
    GLE_RNG_FEEDBACK_DRIFT = 34,
    GLE_RNG_DECAY = 35,
    GLE_RNG_FEEDBACK_DECAY = 36
};

typedef struct {
    uint32_t a, b;
} gle_key;

static inline uint64_t gle_mix64(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static inline gle_key gle_rng_key(uint64_t seed, uint32_t purpose, uint32_t where, uint64_t step)
{
    uint64_t h = gle_mix64(seed + UINT64_C(0x9e3779b97f4a7c15));
    gle_key key;

    h = gle_mix64(h ^ ((uint64_t)purpose << 32 | where));
    h = gle_mix64(h ^ step);
    key.a = (uint32_t)h;
    key.b = (uint32_t)(h >> 32);
    return key;
}

/* What the words of one index have in common, and the words. */
#define GLE_RNG_FIRST UINT32_C(0x9e3779b1)
#define GLE_RNG_SECOND UINT32_C(0x27d4eb2f)

static inline uint32_t gle_rng_root(gle_key key, uint32_t index)
{
    uint32_t x = index ^ key.a;
    x = (x ^ (x >> 16)) * UINT32_C(0x7feb352d);
    x = ((x ^ (x >> 15)) + key.b) * UINT32_C(0x846ca68b);
    return x ^ (x >> 16);
}

static inline uint32_t gle_rng_word(uint32_t root, uint32_t which)
{
    const uint32_t x = root * which;
    return x ^ (x >> 15);
}

static inline uint32_t gle_rng(gle_key key, uint32_t index)
{
    return gle_rng_word(gle_rng_root(key, index), GLE_RNG_FIRST);
}

/* Weights take 16 bits each, and GLE_RNG_SHARE neighbours of a row share a root: weight j of
 * row i
 *
 *     root = gle_rng_root(key, i ceil(m / 16) + (j >> 4))
 *     word = gle_rng_word(root, F^((j >> 1) & 7)),   F = GLE_RNG_FACTOR
 *
 * and of the word the lower half where j is even, else the upper one. A root makes every word
 * of it equally likely, so each weight's bits and those of a pair are exactly uniform; that no
 * two others go together is F's: the lattices of (F^a, F^b), a < b < 8, have no vector shorter
 * than 0.79 of the longest shortest one (spectral test; 0.63 in the dimensions 3 and 4 that were
 * looked at).
 */
#define GLE_RNG_SHARE 16
#define GLE_RNG_FACTOR UINT32_C(0x8763b035)
#define GLE_RNG_FACTORS                                                                      \
    {UINT32_C(1),          GLE_RNG_FACTOR,       UINT32_C(0xa846eaf9), UINT32_C(0xc584d58d), \
     UINT32_C(0x27d82631), UINT32_C(0x75f49825), UINT32_C(0xed8befa9), UINT32_C(0x3017cdfd)}

/* Roots of a row of m weights. */
static inline uint32_t gle_rng_roots(int32_t m)
{
    return ((uint32_t)m + GLE_RNG_SHARE - 1) / GLE_RNG_SHARE;
}

/* How k dropped bits are compared with 16: the random bits of a weight are those 16, a one and
 * zeros. Where k <= 16 the upper k of them are k fair bits, and the mean of what is rounded is
 * exact. Where k > 16 the one rounds what is dropped to 16 bits first, and the mean is within
 * 2^-17 of a step, either way: no bias. What is 0 stays 0. */
static inline uint32_t gle_rng_upper(uint32_t word)
{
    return (word & UINT32_C(0xffff0000)) | UINT32_C(0x8000);
}

/* Of the weights that share a root, all. */
static inline void gle_rng_share(uint32_t *to, uint32_t root)
{
    static const uint32_t factors[GLE_RNG_SHARE / 2] = GLE_RNG_FACTORS;

    for (int32_t k = 0; k < GLE_RNG_SHARE / 2; k++) {
        const uint32_t word = gle_rng_word(root, factors[k]);
        to[2 * k] = gle_rng_upper(word << 16);
        to[2 * k + 1] = gle_rng_upper(word);
    }
}

#endif
