/* Updates of one stream on a microcontroller with the DSP extension. The same integers as
 * update.inc, for two weights in a word:
 *
 *     SMLAWB, SMLAWT   d = (e 2^(32-k)) x >> 16 + 2^15: the update is the upper half of d
 *     PKHTB            two updates in a word
 *     UQSUB16, ADD     1 where an update is 0: counts those that round to nothing
 *     QADD16           two weights learn
 *     UADD16, UQSUB16  not 0 where one of them is beyond its limit
 *
 * Four weights are stored when none of them is beyond its limit; else, and where an update may
 * not fit 16 bits, weights learn one by one.
 */
#include "single.h"

#if defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_SIMD32)

#include <arm_acle.h>

#include "single_dsp.h"

enum { ONES = 0x00010001, GROUP = 4, PIECE = 32 };

/* `most`: clip updates too, where they can be larger. Zeros are counted, as that is one
 * instruction each: an update was asked for where x is not 0 (e is not), and rounded to
 * nothing where it is 0 all the same. */
INLINE void learn(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                  int32_t shift, uint32_t first, const int stochastic, const int32_t most,
                  gle_update_count *count)
{
    const gle_key key = how->key;
    const int32_t limit = how->limit, rest = 32 - shift, half = 1 << (shift - 1);
    const int16_t *const end = w + m;
    uint32_t still = 0, idle = 0, clipped = 0;

    for (; w < end; w++, x++, first++) {
        const int32_t g = e * *x;
        const int32_t up = stochastic ? (int32_t)(gle_rng(key, first) >> rest) : half;
        int32_t delta = (g + up) >> shift, next;
        if (most != 0) {
            delta = gle_clamp(delta, most);
        }
        next = *w + delta;
        still += (uint32_t)(delta == 0);
        idle += (uint32_t)(g == 0);
        if ((uint32_t)(next + limit) > 2u * (uint32_t)limit) {
            next = gle_clamp(next, limit);
            clipped++;
        }
        *w = (int16_t)next;
    }
    count->asked += (uint32_t)m - idle;
    count->under += still - idle;
    count->clipped += clipped;
}

static __attribute__((noinline)) void learn_some(int16_t *w, int32_t e, const int16_t *x,
                                                 int32_t m, const gle_update *how, int32_t shift,
                                                 uint32_t first, gle_update_count *count)
{
    if (how->stochastic) {
        learn(w, e, x, m, how, shift, first, 1, how->most, count);
    } else {
        learn(w, e, x, m, how, shift, first, 0, how->most, count);
    }
}

/* Of counts in halves. */
static uint32_t both_halves(uint32_t halves) { return (halves & 0xffffu) + (halves >> 16); }

static uint32_t zeros_of(const int16_t *x, int32_t m)
{
    uint32_t zeros = 0;

    for (; m >= 2; m -= 2, x += 2) {
        zeros += __uqsub16(ONES, (uint32_t)pair_at(x));
    }
    return both_halves(zeros) + (m > 0 ? (uint32_t)(*x == 0) : 0u);
}

/* gle_rng(key, index) >> rest for an index within 2^16 of its like, see rng.h: there index
 * and key give the first mixing as one exclusive or, and the second key goes into a
 * multiply-accumulate. */
#define RANDOM(t)                                  \
    "eor " t ", %[index], %[mixed]\n\t"            \
    "add %[index], %[index], #1\n\t"               \
    "mul " t ", " t ", %[c1]\n\t"                  \
    "eor " t ", " t ", " t ", lsr #15\n\t"         \
    "mla " t ", " t ", %[c2], %[bc2]\n\t"          \
    "eor " t ", " t ", " t ", lsr #16\n\t"         \
    "mul " t ", " t ", %[first]\n\t"               \
    "eor " t ", " t ", " t ", lsr #15\n\t"         \
    "lsr " t ", " t ", %[rest]\n\t"
#define C1 UINT32_C(0x7feb352d)
#define C2 UINT32_C(0x846ca68b)

/* `count`, a multiple of 4, at most PIECE. */
static __attribute__((noinline)) void random_words(uint32_t *to, int32_t count, gle_key key,
                                                   uint32_t index, uint32_t rest)
{
    const uint32_t *const end = to + count;
    const uint32_t mixed = key.a ^ (index ^ key.a) >> 16, bc2 = key.b * C2;

    if ((index ^ (index + PIECE)) >> 16 != 0) {
        for (; to != end; to++, index++) {
            *to = gle_rng(key, index) >> rest;
        }
        return;
    }
    while (to != end) {
        __asm__ volatile(RANDOM("r4") RANDOM("r5") RANDOM("r6") RANDOM("r8")
                         "stmia %[to]!, {r4-r6, r8}\n\t"
                         : [to] "+r"(to), [index] "+r"(index)
                         : [mixed] "r"(mixed), [c1] "r"(C1), [c2] "r"(C2), [bc2] "r"(bc2),
                           [first] "r"(GLE_RNG_FIRST), [rest] "r"(rest)
                         : "r4", "r5", "r6", "r8", "memory");
    }
}

/* Two updates from two of x. `wide`: e is not shifted, as it has no room for it or as bits
 * count that SMLAWB drops; up0, up1: what is added before the shift. */
INLINE int32_t updates(int32_t e, int32_t x, int32_t up0, int32_t up1, int32_t shift,
                       const int wide)
{
    int32_t a, b, two;

    if (wide) {
        a = __smlabb(e, x, up0) >> shift;
        b = __smlabt(e, x, up1) >> shift;
        __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(two) : "r"(a), "r"(b));
    } else {
        a = __smlawb(e, x, up0);
        b = __smlawt(e, x, up1);
        __asm__("pkhtb %0, %2, %1, asr #16" : "=r"(two) : "r"(a), "r"(b));
    }
    return two;
}

/* Fours of a row, of which the updates fit 16 bits. Returns how many updates are 0; that a
 * weight is clipped does not change which these are. */
INLINE uint32_t fours(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                      int32_t shift, uint32_t first, const int random, const int wide,
                      gle_update_count *count)
{
    const uint32_t limit = (uint32_t)how->limit * ONES, twice = 2u * limit;
    const int32_t half = wide ? 1 << (shift - 1) : 0x8000;
    const int32_t own = wide ? e : (int32_t)((uint32_t)e << (32 - shift));
    const int16_t *const end = w + m, *piece = w;
    uint32_t bits[PIECE], zeros = 0;
    const uint32_t *up = bits;
    const int16_t *const row = w;

    while (w != end) {
        if (random && w == piece) {
            const int32_t left = (int32_t)(end - w), some = left < PIECE ? left : PIECE;
            random_words(bits, some, how->key, first + (uint32_t)(w - row),
                         (uint32_t)(wide ? 32 - shift : 16));
            up = bits;
            piece = w + some;
        }
        const int32_t d0 = updates(own, pair_at(x), random ? (int32_t)up[0] : half,
                                   random ? (int32_t)up[1] : half, shift, wide);
        const int32_t d1 = updates(own, pair_at(x + 2), random ? (int32_t)up[2] : half,
                                   random ? (int32_t)up[3] : half, shift, wide);
        const int32_t next0 = __qadd16(pair_at(w), d0), next1 = __qadd16(pair_at(w + 2), d1);
        zeros += __uqsub16(ONES, (uint32_t)d0) + __uqsub16(ONES, (uint32_t)d1);
        if ((__uqsub16(__uadd16((uint32_t)next0, limit), twice) |
             __uqsub16(__uadd16((uint32_t)next1, limit), twice)) != 0) {
            gle_update_count four = {0, 0, 0};
            learn_some(w, e, x, GROUP, how, shift, first + (uint32_t)(w - row), &four);
            count->clipped += four.clipped;
        } else {
            pair_to(w, next0);
            pair_to(w + 2, next1);
        }
        w += GROUP;
        x += GROUP;
        up += GROUP;
    }
    return both_halves(zeros);
}

#define FOURS(name, random, wide)                                                               \
    static __attribute__((noinline)) uint32_t name(                                             \
        int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,              \
        int32_t shift, uint32_t first, gle_update_count *count)                                 \
    {                                                                                           \
        return fours(w, e, x, m, how, shift, first, random, wide, count);                       \
    }
FOURS(nearest_wide, 0, 1)
FOURS(stochastic_wide, 1, 1)

/* The same where e has room for its shift, in assembly, as the compiler loads word by word.
 * Two of x in `t`, two weights in `next`; leaves what is beyond the limit in `d`. */
#define LEARN_TWO(d, next)                                 \
    "uqsub16 %[t], %[ones], %[" d "]\n\t"                  \
    "qadd16 %[" next "], %[" next "], %[" d "]\n\t"        \
    "uadd16 %[" d "], %[" next "], %[limit]\n\t"           \
    "add %[zeros], %[zeros], %[t]\n\t"                     \
    "uqsub16 %[" d "], %[" d "], %[twice]\n\t"
#define NEAREST(d, next)                                   \
    "ldr %[t], [%[x]], #4\n\t"                             \
    "smlawb %[" d "], %[own], %[t], %[half]\n\t"           \
    "smlawt %[t], %[own], %[t], %[half]\n\t"               \
    "pkhtb %[" d "], %[t], %[" d "], asr #16\n\t"          \
    LEARN_TWO(d, next)
#define STOCHASTIC(d, next)                                \
    "ldrd %[" d "], %[v], [%[up]], #8\n\t"                 \
    "ldr %[t], [%[x]], #4\n\t"                             \
    "smlawb %[" d "], %[own], %[t], %[" d "]\n\t"          \
    "smlawt %[v], %[own], %[t], %[v]\n\t"                  \
    "pkhtb %[" d "], %[v], %[" d "], asr #16\n\t"          \
    LEARN_TWO(d, next)
/* Until the end or until a weight is beyond its limit: then those four are not stored. */
#define FOURS_OF(two)                                      \
    "1: ldrd %[n0], %[n1], [%[w]]\n\t"                     \
    two("d0", "n0") two("d1", "n1")                        \
    "orrs %[d0], %[d0], %[d1]\n\t"                         \
    "bne 2f\n\t"                                           \
    "strd %[n0], %[n1], [%[w]], #8\n\t"

static __attribute__((noinline)) uint32_t nearest(int16_t *w, int32_t e, const int16_t *x,
                                                  int32_t m, const gle_update *how, int32_t shift,
                                                  uint32_t first, gle_update_count *count)
{
    const uint32_t limit = (uint32_t)how->limit * ONES, twice = 2u * limit;
    const int32_t own = (int32_t)((uint32_t)e << (32 - shift));
    const int16_t *const end = w + m;
    uint32_t zeros = 0;

    while (w != end) {
        uint32_t n0, n1, d0, d1, t;
        __asm__ volatile(FOURS_OF(NEAREST)
                         "ldr %[t], %[end]\n\t"
                         "cmp %[w], %[t]\n\t"
                         "bne 1b\n\t"
                         "2:\n\t"
                         : [w] "+r"(w), [x] "+r"(x), [zeros] "+r"(zeros), [n0] "=&r"(n0),
                           [n1] "=&r"(n1), [d0] "=&r"(d0), [d1] "=&r"(d1), [t] "=&r"(t)
                         : [own] "r"(own), [half] "r"(0x8000), [ones] "r"(ONES),
                           [limit] "r"(limit), [twice] "r"(twice), [end] "m"(end)
                         : "memory", "cc");
        if (d0 != 0) {
            gle_update_count four = {0, 0, 0};
            learn_some(w, e, x - GROUP, GROUP, how, shift,
                       first + (uint32_t)m - (uint32_t)(end - w), &four);
            count->clipped += four.clipped;
            w += GROUP;
        }
    }
    return both_halves(zeros);
}

static __attribute__((noinline)) uint32_t stochastic(int16_t *w, int32_t e, const int16_t *x,
                                                     int32_t m, const gle_update *how,
                                                     int32_t shift, uint32_t first,
                                                     gle_update_count *count)
{
    const uint32_t limit = (uint32_t)how->limit * ONES, twice = 2u * limit;
    const int32_t own = (int32_t)((uint32_t)e << (32 - shift));
    const int16_t *const row = w, *const all = w + m;
    uint32_t zeros = 0, bits[PIECE];

    while (w != all) {
        const int32_t left = (int32_t)(all - w), some = left < PIECE ? left : PIECE;
        const int16_t *const end = w + some;
        const uint32_t *up = bits;
        random_words(bits, some, how->key, first + (uint32_t)(w - row), 16);
        while (w != end) {
            uint32_t n0, n1, d0, d1, t, v;
            __asm__ volatile(FOURS_OF(STOCHASTIC)
                             "ldr %[t], %[end]\n\t"
                             "cmp %[w], %[t]\n\t"
                             "bne 1b\n\t"
                             "2:\n\t"
                             : [w] "+r"(w), [x] "+r"(x), [zeros] "+r"(zeros), [up] "+r"(up),
                               [n0] "=&r"(n0), [n1] "=&r"(n1), [d0] "=&r"(d0), [d1] "=&r"(d1),
                               [t] "=&r"(t), [v] "=&r"(v)
                             : [own] "r"(own), [ones] "r"(ONES), [limit] "r"(limit),
                               [twice] "r"(twice), [end] "m"(end)
                             : "memory", "cc");
            if (d0 != 0) {
                gle_update_count four = {0, 0, 0};
                learn_some(w, e, x - GROUP, GROUP, how, shift, first + (uint32_t)(w - row),
                           &four);
                count->clipped += four.clipped;
                w += GROUP;
            }
        }
    }
    return both_halves(zeros);
}

/* A row; e is not 0. idle: how many of x are 0. */
static void learn_row(int16_t *w, int32_t e, const int16_t *x, int32_t m, uint32_t idle,
                      const gle_update *how, int32_t shift, uint32_t first,
                      gle_update_count *count)
{
    const int32_t size = e < 0 ? -e : e, most = (size * GLE_ARRAY_MAX >> shift) + 1;
    const int32_t whole = m & -GROUP;
    gle_update_count rest = {0, 0, 0};
    uint32_t zeros;

    if (most > how->most || most > INT16_MAX) {
        learn_some(w, e, x, m, how, shift, first, count);
        return;
    }
    if (size >> (shift - 1) != 0 || (how->stochastic && shift > 16)) {
        zeros = (how->stochastic ? stochastic_wide : nearest_wide)(w, e, x, whole, how, shift,
                                                                   first, count);
    } else {
        zeros = (how->stochastic ? stochastic : nearest)(w, e, x, whole, how, shift, first, count);
    }
    if (whole != m) {
        learn_some(w + whole, e, x + whole, m - whole, how, shift, first + (uint32_t)whole, &rest);
        zeros += (uint32_t)(m - whole) - rest.asked + rest.under;
    }
    count->asked += (uint32_t)m - idle;
    count->under += zeros - idle;
    count->clipped += rest.clipped;
}

void gle_learn_layer_dsp(gle_layer *layer, const int16_t *x, const gle_update *how, int32_t shift,
                         gle_update_count *count)
{
    const int32_t m = layer->m;
    const uint32_t idle = zeros_of(x, m);

    for (int32_t i = 0; i < layer->n; i++) {
        const int32_t e = layer->e[i], k = shift - (layer->rows ? (int32_t)layer->rows[i] : 0);
        int16_t *const w = layer->w + i * layer->stride;
        const uint32_t first = (uint32_t)i * (uint32_t)m;
        if (e != 0 && k >= 1 && k <= 30) {
            learn_row(w, e, x, m, idle, how, k, first, count);
        } else {
            gle_learn_one_dsp(w, e, x, m, how, k, first, count);
        }
    }
}

void gle_learn_one_dsp(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                       int32_t shift, uint32_t first, gle_update_count *count)
{
    if (e == 0) {
        return; /* rounds to nothing either way, and asks for nothing */
    }
    /* |g| < 2^26, so that g and what rounds it up fit an int32 */
    if (shift < 1 || shift > 30) {
        gle_learn_one(w, e, x, m, how, shift, first, count);
    } else {
        learn_some(w, e, x, m, how, shift, first, count);
    }
}

#else
typedef int gle_no_single_dsp_learn; /* ISO C wants one declaration a file */
#endif
