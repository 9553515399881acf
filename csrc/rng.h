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

#endif
