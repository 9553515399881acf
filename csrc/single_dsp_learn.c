/* Updates of one stream on a microcontroller with the DSP extension. The same integers as
 * update.inc, for two weights in a word:
 *
 *     SMLAWB, SMLAWT   d = (e 2^(32-k)) x >> 16 + 2^15: the update is the upper half of d
 *     PKHTB            two updates in a word
 *     QADD16           two weights learn
 *     UQSUB16, UQADD16, USADA8   how many of four updates are 0
 *
 * Rows are planned, some at a time (single_dsp_plan.h), and learn piece by piece of the inputs
 * (single_dsp_nearest.h, single_dsp_random.h). To nearest an update is 0 where |x| is below what
 * |e| tells, so that most pieces need no counting: their smallest inputs are known.
 *
 * That is all where no weight of the row can reach its limit, as bounds of rows tell. A row that
 * is near, or of which there is no bound, is looked through afterwards (single_dsp_bounds.h):
 * the limit is below INT16_MAX, where QADD16 stops, so that a weight beyond it can still be told.
 */
#include "single.h"

#if defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_SIMD32)

#include "single_dsp_nearest.h"
#include "single_dsp_plan.h"
#include "single_dsp_random.h"

/* One by one, for updates that may be too large for 16 bits. Zeros are counted, as that is one
 * instruction each: an update was asked for where x is not 0 (e is not), and rounded to
 * nothing where it is 0 all the same. */
static __attribute__((noinline)) void learn_some(int16_t *w, int32_t e, const int16_t *x,
                                                 int32_t m, const gle_update *how, int32_t shift,
                                                 uint32_t root, gle_update_count *count)
{
    const int32_t limit = how->limit, rest = 32 - shift, most = how->most;
    uint32_t bits[GLE_RNG_SHARE], still = 0, idle = 0, clipped = 0;

    for (int32_t j = 0; j < GLE_RNG_SHARE && !how->stochastic; j++) {
        bits[j] = UINT32_C(1) << 31; /* the half */
    }
    for (int32_t j = 0; j < m; j++) {
        const int32_t g = e * x[j];
        int32_t delta, next;
        if (how->stochastic && j % GLE_RNG_SHARE == 0) {
            gle_rng_share(bits, gle_rng_root(how->key, root++));
        }
        delta = (g + (int32_t)(bits[j % GLE_RNG_SHARE] >> rest)) >> shift;
        delta = gle_clamp(delta, most);
        next = w[j] + delta;
        still += (uint32_t)(delta == 0);
        idle += (uint32_t)(g == 0);
        if ((uint32_t)(next + limit) > 2u * (uint32_t)limit) {
            next = gle_clamp(next, limit);
            clipped++;
        }
        w[j] = (int16_t)next;
    }
    count->asked += (uint32_t)m - idle;
    count->under += still - idle;
    count->clipped += clipped;
}

/* |x| of two: into the two largest, how many are 0, and less 1, so that 0 becomes the largest
 * there is, into the smallest and the next of either half. */
#define SEE_INPUTS(two)                                    \
    "ssub16 %[t], %[zero], " two "\n\t" /* -x; GE: not below 0 */ \
    "sel " two ", %[t], " two "\n\t"                       \
    "usub16 %[t], %[most], " two "\n\t"                    \
    "sel %[most], %[most], " two "\n\t"                    \
    "uqsub16 %[t], %[ones], " two "\n\t"                   \
    "add %[zeros], %[zeros], %[t]\n\t"                     \
    "ssub16 " two ", " two ", %[ones]\n\t"                 \
    "usub16 %[t], " two ", %[less]\n\t"                    \
    "sel %[t], " two ", %[less]\n\t"                       \
    "sel %[less], %[less], " two "\n\t"                    \
    "usub16 " two ", %[t], %[next]\n\t"                    \
    "sel %[next], %[next], %[t]\n\t"
#define RUN_INPUTS(words)                                                                 \
    __asm__ volatile(words : [x] "+r"(x), [t] "=&r"(t), [most] "+r"(most),                \
                       [zeros] "+r"(zeros), [less] "+r"(less), [next] "+r"(next)          \
                     : [zero] "r"(0), [ones] "r"(ONES)                                    \
                     : "r4", "r5", "r6", "r8", "cc", "memory")

INLINE int32_t smaller(int32_t a, int32_t b) { return a < b ? a : b; }

/* m inputs, padded to an even number, in pieces. */
static __attribute__((noinline)) void see_inputs(lesson *y, piece *to, const int16_t *x,
                                                 int32_t m)
{
    uint32_t most = 0, t;

    y->idle = 0;
    for (; m > 0; m -= PIECE, to++) {
        const int32_t some = m < PIECE ? m : PIECE, rest = some % 8;
        const int32_t fours = some / 8 * 2 + (y->how->stochastic ? (rest + 2) / 4 : rest / 2);
        const int16_t *const eights = x + some / 8 * 8, *const end = x + some;
        uint32_t zeros = 0, less = 0x7ffe7ffe, next = less;
        int32_t low, high;
        while (x != eights) {
            RUN_INPUTS("ldmia %[x]!, {r4-r6, r8}\n\t" SEE_INPUTS("r4") SEE_INPUTS("r5")
                       SEE_INPUTS("r6") SEE_INPUTS("r8"));
        }
        while (x != end) {
            RUN_INPUTS("ldr r4, [%[x]], #4\n\t" SEE_INPUTS("r4"));
        }
        low = (int32_t)(less & 0xffffu) + 1;
        high = (int32_t)(less >> 16) + 1;
        to->first = smaller(low, high);
        to->second = low + high - to->first;
        to->others = smaller((int32_t)(next & 0xffffu), (int32_t)(next >> 16)) + 1;
        if ((to->second & (to->second - 1)) == 0) {
            to->others = smaller(to->second, to->others);
        }
        if ((to->first & (to->first - 1)) == 0) {
            to->others = to->first;
        }
        zeros = both_halves(zeros);
        y->idle += zeros;
        to->zeros = (uint32_t)(FULL * fours) - zeros;
    }
    y->most = (int32_t)((most & 0xffffu) > most >> 16 ? most & 0xffffu : most >> 16);
}

/* As planned. wide: the inputs as words, where that is how they are taken. */
static void learn_rows(lesson *y, planned *plan, const planned *last, const piece *some,
                       const int32_t *wide, int32_t m)
{
    const int16_t *x = y->x;

    for (; m > 0; m -= PIECE, x += PIECE, wide += PIECE, some++) {
        const int32_t now = m < PIECE ? m : PIECE;
        if (y->how->stochastic) {
            y->under += y->narrow ? piece_narrow(plan, last, x, now, some->zeros)
                                  : piece_wide(plan, last, wide, now, some->zeros);
        } else if (now == PIECE) {
            y->under += piece_nearest(plan, last, x, some);
        } else {
            y->under += rest_nearest(plan, last, x, now, some);
        }
    }
}

void gle_learn_layer_dsp(gle_layer *layer, const int16_t *x, const gle_update *how, int32_t shift,
                         int32_t *scratch, gle_update_count *count)
{
    enum { CHUNK = 32, WORDS_OF_PLAN = sizeof(planned) / sizeof(int32_t) }; /* bits of y.near */
    const int32_t m = (layer->m + 1) & -2, least = shift - (layer->rows ? 7 : 0);
    const int32_t pieces = (m + PIECE - 1) / PIECE * (int32_t)(sizeof(piece) / sizeof *scratch);
    const int32_t narrow = how->stochastic && least >= 1 && shift <= 16;
    const int32_t widened = how->stochastic && !narrow ? m : 0;
    piece *const some = (piece *)scratch;
    int32_t *const wide = scratch + pieces, *const rest = wide + widened;
    lesson y = {.how = how, .layer = layer, .x = x, .shift = shift, .m = layer->m,
                .reach = how->most < INT16_MAX ? how->most : INT16_MAX,
                .of_row = gle_rng_roots(layer->m), .narrow = narrow, .count = count};
    const int alike = layer->rows == NULL && layer->tops != NULL && shift >= 1 && shift <= 30 &&
                      (!how->stochastic || narrow || shift >= WIDE_LEAST);
    planned one, *plan = &one; /* and few: rows of two, which leave little scratch */
    uint32_t few[GLE_RNG_WORDS], *words = few;
    int32_t chunk = 1, fit;

    y.so_many = how->stochastic ? y.of_row * GLE_RNG_WORDS : 0;
    fit = (4 * layer->stride - pieces - widened) / (WORDS_OF_PLAN + (int32_t)y.so_many);
    if (fit > 0) {
        chunk = fit < CHUNK ? fit : CHUNK;
        plan = (planned *)(void *)rest;
        words = (uint32_t *)rest + chunk * WORDS_OF_PLAN;
    }
    y.words = words;
    see_inputs(&y, some, x, m);
    y.idle -= (uint32_t)(m - layer->m); /* padding */
    if (alike) {
        reach_of(&y);
    }
    if (widened > 0) {
        widen(wide, x, m);
    }
    for (int32_t i = 0; i < layer->n; i += chunk) {
        const int32_t rows = layer->n - i < chunk ? layer->n - i : chunk;
        const planned *last;
        y.near = 0;
        last = !alike ? plan_any(&y, i, rows, plan)
                      : (how->stochastic ? plan_random : plan_nearest)(&y, i, rows, plan);
        if (last == plan) {
            continue;
        }
        y.rows += (uint32_t)(last - plan);
        if (how->stochastic) {
            draw_words(words, (uint32_t)i * y.of_row, (uint32_t)rows * y.of_row, how->key);
        }
        learn_rows(&y, plan, last, some, wide, m);
        for (int16_t *w = layer->w + i * layer->stride; y.near != 0; y.near >>= 1) {
            if ((y.near & 1u) != 0) {
                count->clipped += clip_row(w, y.m, how->limit);
            }
            w += layer->stride;
        }
    }
    count->asked += y.rows * ((uint32_t)y.m - y.idle);
    count->under += y.under;
}

void gle_learn_one_dsp(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                       int32_t shift, uint32_t root, gle_update_count *count)
{
    if (e == 0) {
        return; /* rounds to nothing either way, and asks for nothing */
    }
    /* |g| < 2^26, so that g and what rounds it up fit an int32 */
    if (shift < 1 || shift > 30) {
        gle_learn_one(w, e, x, m, how, shift, root, count);
    } else {
        learn_some(w, e, x, m, how, shift, root, count);
    }
}

#else
typedef int gle_no_single_dsp_learn; /* ISO C wants one declaration a file */
#endif
