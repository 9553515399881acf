/* Memory of the rules with NEON, four weights at a time: the integers of rule_*.c, which have
 * what is left of a row. */
#include "learner.h"

#if defined(__aarch64__) && !defined(GLE_SCALAR_ONLY)

#include <string.h>

#include "lanes_neon.h"

#define LIST(...) {__VA_ARGS__}
#define AS(list) LIST list /* its parentheses, as braces */

enum { WIDE = 4 };

/* A sum that is remembered; what it has clipped is counted, -1 for each. */
LANES int32x4_t remember(const int32_t *memory, int32x4_t g, uint32x4_t *clipped)
{
    const int32x4_t sum = vaddq_s32(vld1q_s32(memory), g);
    const int32x4_t kept = clamp(sum, GLE_MEMORY_MAX);

    *clipped = vaddq_u32(*clipped, vmvnq_u32(vceqq_s32(kept, sum)));
    return kept;
}

LANES int32x4_t gradient(const int32_t *row, int32_t drop)
{
    return clamp(round_by(vld1q_s32(row), drop), GLE_MEMORY_MAX);
}

LANES int32x4_t decayed(int32x4_t a, int32_t momentum)
{
    const int32x4_t up = vandq_s32(as_signed(vcgtzq_s32(a)), all((1 << momentum) - 1));
    return vsubq_s32(a, vshlq_s32(vaddq_s32(a, up), all(-momentum)));
}

/* 8 log2(x) + 4, 0 for 0. */
LANES int32x4_t first_mean(int32x4_t x)
{
    const int32x4_t octave = vsubq_s32(all(31), vclzq_s32(x));
    const int32x4_t c = vaddq_s32(vshlq_n_s32(octave, 3), all(4));
    return vandq_s32(c, as_signed(vcgtzq_s32(x)));
}

/* Of 8/ln 2 2^(-f/8), f = c & 7: two bytes each of a table of 16. */
LANES int32x4_t table_at(int32x4_t c)
{
    static const uint16_t values[8] = AS(GLE_NORM_TABLE_LIST);
    const uint8x16_t table = vreinterpretq_u8_u16(vld1q_u16(values));
    const uint32x4_t f = as_bits(vandq_s32(c, all(7)));
    /* bytes 2 f and 2 f + 1, and two that there are not, which are 0 */
    const uint32x4_t at = vaddq_u32(vmulq_n_u32(f, 0x0202), vdupq_n_u32(0xffff0100u));
    return vreinterpretq_s32_u8(vqtbl1q_u8(table, vreinterpretq_u8_u32(at)));
}

/* See rule_normalised.c. */
LANES int32x4_t heard(int32x4_t c, int32x4_t x, int32_t n, uint32x4_t random)
{
    const int32x4_t o = vshrq_n_s32(c, 3);
    const uint32x4_t none = vceqzq_s32(c);
    const int32x4_t most = vminq_s32(vaddq_s32(o, all(10)), all(30));
    const int32x4_t less = vminq_s32(x, vshlq_s32(all(1), most));
    const int32x4_t t = vshlq_s32(less, vsubq_s32(all(6), o));
    const int32_t k = 16 + n;
    int32x4_t d = vsubq_s32(vmulq_s32(t, table_at(c)), all(GLE_NORM_ONE));

    if (k < 27) {
        d = vminq_s32(d, all(8 << k));
    }
    d = vaddq_s32(d, as_signed(vshlq_u32(random, all(k - 32))));
    d = vaddq_s32(c, vshlq_s32(d, all(-k)));
    d = vmaxq_s32(all(1), vminq_s32(all(255), d));
    return vbslq_s32(none, first_mean(x), d);
}

LANES int32x4_t ratio(int32x4_t a, int32_t momentum, int32x4_t c)
{
    const int32x4_t k = vaddq_s32(vshrq_n_s32(vaddq_s32(c, all(4)), 3), all(momentum));
    const int32x4_t bits = vminq_s32(vaddq_s32(k, all(GLE_RATIO_MOST)), all(30));
    const int32x4_t less = clamp_each(a, vshlq_s32(all(1), bits));
    return round_each(less, vsubq_s32(k, all(GLE_RATIO_BITS)));
}

LANES int32x4_t means(const uint8_t *norm)
{
    uint32_t some;

    memcpy(&some, norm, sizeof some);
    return as_signed(vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(some))))));
}

LANES void keep_means(uint8_t *norm, int32x4_t c)
{
    const uint16x4_t half = vmovn_u32(as_bits(c));
    const uint8x8_t bytes = vmovn_u16(vcombine_u16(half, half));
    const uint32_t some = vget_lane_u32(vreinterpret_u32_u8(bytes), 0);

    memcpy(norm, &some, sizeof some);
}

/* Of whole vectors; returns how many weights these were. */
LANES int32_t learn(const int rule, int32_t *row, int32_t *memory, uint8_t *norm, int32_t m,
                    const gle_recall *how, uint32_t first, uint32_t *count_clipped)
{
    static const uint32_t lanes[WIDE] = {0, 1, 2, 3};
    const int32_t momentum = how->momentum;
    uint32x4_t index = vaddq_u32(vdupq_n_u32(first), vld1q_u32(lanes));
    uint32x4_t clipped = vdupq_n_u32(0);
    int32_t j = 0;

    for (; m - j >= WIDE; j += WIDE) {
        const int32x4_t g = gradient(row + j, how->drop);
        const int32x4_t a = remember(memory + j, g, &clipped);
        if (rule == GLE_SGD) {
            vst1q_s32(row + j, a);
        } else if (rule == GLE_SIGN) {
            vst1q_s32(row + j, as_signed(vsubq_u32(vcltzq_s32(a), vcgtzq_s32(a))));
        } else {
            const int32x4_t x = how->each ? vabsq_s32(g)
                                          : vshlq_s32(vabsq_s32(a), all(-momentum));
            const uint32x4_t random = rng_word(rng_root(how->key, index), GLE_RNG_FIRST);
            const int32x4_t c = heard(means(norm + j), x, how->norm, random);
            vst1q_s32(row + j, ratio(a, momentum, c));
            keep_means(norm + j, c);
            index = vaddq_u32(index, vdupq_n_u32(WIDE));
        }
        vst1q_s32(memory + j, decayed(a, momentum));
    }
    *count_clipped = count(clipped);
    return j;
}

static uint32_t add(int32_t *memory, const int32_t *row, int32_t m, int32_t drop)
{
    uint32x4_t clipped = vdupq_n_u32(0);
    int32_t j = 0;

    for (; m - j >= WIDE; j += WIDE) {
        vst1q_s32(memory + j, remember(memory + j, gradient(row + j, drop), &clipped));
    }
    return count(clipped) + gle_add_row(memory + j, row + j, m - j, drop);
}

static uint32_t sgd(int32_t *row, int32_t *memory, uint8_t *norm, int32_t m,
                    const gle_recall *how, uint32_t first)
{
    uint32_t clipped;
    const int32_t j = learn(GLE_SGD, row, memory, norm, m, how, first, &clipped);

    return clipped + gle_sgd_row(row + j, memory + j, norm, m - j, how, first);
}

static uint32_t sign(int32_t *row, int32_t *memory, uint8_t *norm, int32_t m,
                     const gle_recall *how, uint32_t first)
{
    uint32_t clipped;
    const int32_t j = learn(GLE_SIGN, row, memory, norm, m, how, first, &clipped);

    return clipped + gle_sign_row(row + j, memory + j, norm, m - j, how, first);
}

static uint32_t normalised(int32_t *row, int32_t *memory, uint8_t *norm, int32_t m,
                           const gle_recall *how, uint32_t first)
{
    uint32_t clipped;
    const int32_t j = learn(GLE_NORMALISED, row, memory, norm, m, how, first, &clipped);

    return clipped +
           gle_normalised_row(row + j, memory + j, norm + j, m - j, how, first + (uint32_t)j);
}

const struct gle_rule_kernels gle_rules_neon = {add, {sgd, normalised, sign}};

#else
typedef int gle_no_rule_neon; /* ISO C wants one declaration a file */
#endif
