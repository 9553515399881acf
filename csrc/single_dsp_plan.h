/* Which rows of a layer learn, with what, with the DSP extension. `tops` holds a bound of
 * each row, which grows with every update and is found again when it comes near the limit. */
#ifndef GLE_SINGLE_DSP_PLAN_H
#define GLE_SINGLE_DSP_PLAN_H

#include "single.h"
#include "single_dsp_bounds.h"
#include "single_dsp_random.h"
#include "single_dsp_rows.h"

/* What all rows of a layer have in common. */
typedef struct {
    const gle_update *how;
    gle_layer *layer;
    const int16_t *x;
    int32_t shift, m;
    int32_t most;         /* of |x| */
    int32_t reach;        /* largest update that is not clipped */
    uint32_t idle;        /* how many of x are 0 */
    uint32_t of_row;      /* roots */
    int32_t narrow;       /* of rounding at random: all shifts are 16 at most */
    uint32_t rows, under; /* that learn in the fast way; updates that are 0 in them */
    const uint32_t *words; /* of the first row of a chunk, */
    uint32_t so_many;      /* and of each */
    int32_t from;          /* see reach_of */
    uint32_t span;
    uint32_t near;         /* bits of the rows of a chunk that have a weight near its limit */
    gle_update_count *count;
} lesson;

/* A row whose bound does not say that none of its weights reaches the limit. */
static __attribute__((noinline)) void look_at(lesson *y, int32_t row, uint32_t bit, uint16_t *top,
                                              int32_t most)
{
    if (!out_of_reach(top, y->layer->w + row * y->layer->stride, y->m, y->how->limit, most)) {
        y->near |= bit;
    }
}

/* Those of `some` rows from `row` on that learn; returns the end of the plan. Here in general:
 * where updates may be too large for 16 bits a row learns at once. */
static __attribute__((noinline)) planned *plan_any(lesson *y, int32_t row, int32_t some,
                                                   planned *p)
{
    const gle_layer *const layer = y->layer;
    const gle_update *const how = y->how;

    for (int32_t r = 0, i = row; r < some; r++, i++) {
        const int32_t e = layer->e[i], size = e < 0 ? -e : e, reach = size * y->most;
        const int32_t k = y->shift - (layer->rows ? (int32_t)layer->rows[i] : 0);
        const int32_t room = k >= 1 && k <= 30 && size >> (k - 1) == 0; /* for e 2^(32-k) */
        const int32_t most = k >= 1 && k <= 30 ? (reach >> k) + 1 : INT32_MAX;
        int16_t *const w = layer->w + i * layer->stride;
        uint16_t none = (uint16_t)(how->limit + PINNED);
        uint16_t *const top = layer->tops == NULL ? &none : layer->tops + i;
        if (e == 0) {
            continue; /* rounds to nothing either way, and asks for nothing */
        }
        if (most > y->reach || (!room && (!how->stochastic || y->narrow)) ||
            (how->stochastic && !y->narrow && k < WIDE_LEAST)) {
            *top = (uint16_t)how->limit; /* any */
            gle_learn_one_dsp(w, e, y->x, y->m, how, k, (uint32_t)i * y->of_row, y->count);
            continue;
        }
        if (!how->stochastic && reach < 1 << (k - 1)) {
            y->rows++; /* none learns */
            y->under += (uint32_t)y->m - y->idle;
            continue;
        }
        p->own = (int32_t)((uint32_t)e << (!how->stochastic || y->narrow ? 32 - k : 30 - k));
        p->by.nothing = (1 << (k - 1)) / size;
        p->w = w;
        p->by.up = y->words + (uint32_t)r * y->so_many;
        p++;
        if (*top + most <= how->limit) {
            *top = (uint16_t)(*top + most);
        } else {
            look_at(y, i, UINT32_C(1) << r, top, most);
        }
    }
    return p;
}

/* Row r of a chunk whose rows are alike, whatever it is. Returns the end of the plan. */
static __attribute__((noinline)) planned *plan_row(lesson *y, int32_t row, int32_t r, planned *p)
{
    gle_layer *const layer = y->layer;
    const int32_t i = row + r, k = y->shift, stochastic = y->how->stochastic;
    const int32_t e = layer->e[i], size = e < 0 ? -e : e, reach = size * y->most;
    const int32_t most = (reach >> k) + 1;
    int16_t *const w = layer->w + i * layer->stride;
    uint16_t *const top = layer->tops + i;

    if (e != 0 && reach < y->from) {
        y->rows++; /* none learns */
        y->under += (uint32_t)y->m - y->idle;
    } else if (e != 0 && (uint32_t)(reach - y->from) >= y->span) {
        *top = (uint16_t)y->how->limit; /* any */
        gle_learn_one_dsp(w, e, y->x, y->m, y->how, k, (uint32_t)i * y->of_row, y->count);
    } else if (e != 0) {
        p->own = (int32_t)((uint32_t)e << (!stochastic || y->narrow ? 32 - k : 30 - k));
        p->w = w;
        if (stochastic) {
            p->by.up = y->words + (uint32_t)r * y->so_many;
        } else {
            p->by.nothing = y->from / size; /* from is the half */
        }
        p++;
        if (*top + most <= y->how->limit) {
            *top = (uint16_t)(*top + most);
        } else {
            look_at(y, i, UINT32_C(1) << r, top, most);
        }
    }
    return p;
}

/* Where rows are alike: |e| times the largest |x| tells it all. It is to be within y->from and
 * y->span more. */
static void reach_of(lesson *y)
{
    const int32_t k = y->shift, one = 1 << 27; /* |e x| < 2^26 */
    const int32_t room = k > 14 ? one : y->most << (k - 1);
    const int32_t reach = k > 26 ? one : (y->reach < one >> k ? y->reach : one >> k) << k;
    const int32_t end = (!y->how->stochastic || y->narrow) && room < reach ? room : reach;

    y->from = y->how->stochastic ? 1 : 1 << (k - 1);
    y->span = end > y->from ? (uint32_t)(end - y->from) : 0;
}

/* Rows that are alike: those that need nothing special here. */
static __attribute__((noinline)) planned *plan_random(lesson *y, int32_t row, int32_t some,
                                                      planned *p)
{
    gle_layer *const layer = y->layer;
    const int32_t k = y->shift, most = y->most, limit = y->how->limit - 1, stride = layer->stride;
    const int32_t own = y->narrow ? 32 - k : 30 - k;
    const uint32_t so_many = y->so_many, span = y->span;
    const int16_t *const e = layer->e + row;
    uint16_t *const top = layer->tops + row;
    int16_t *w = layer->w + row * stride;
    const uint32_t *up = y->words;

    for (int32_t r = 0; r != some; r++, w += stride, up += so_many) {
        const int32_t one = e[r], sign = one >> 31, reach = ((one ^ sign) - sign) * most;
        const int32_t bound = top[r] + (reach >> k);
        if ((uint32_t)(reach - 1) >= span || bound > limit) {
            p = plan_row(y, row, r, p);
            continue;
        }
        top[r] = (uint16_t)(bound + 1);
        p->own = (int32_t)((uint32_t)one << own);
        p->w = w;
        p->by.up = up;
        p++;
    }
    return p;
}

/* The same for nearest, in assembly, as the compiler spills half of this. */
static __attribute__((noinline)) planned *plan_nearest(lesson *y, int32_t row, int32_t some,
                                                       planned *p)
{
    gle_layer *const layer = y->layer;
    const int16_t *e = layer->e + row;
    const int16_t *const begin = e, *const end = e + some;
    const int32_t apart = (int32_t)((uintptr_t)(layer->tops + row) - (uintptr_t)e);
    const int32_t step = 2 * layer->stride, limit = y->how->limit;
    register int16_t *w __asm__("r5") = layer->w + row * layer->stride;
    register int32_t one __asm__("r4"), size __asm__("r6");
    int32_t reach, t;

    while (e != end) {
        __asm__ volatile(
            "1:\n\t"
            "ldrsh %[one], [%[e]]\n\t"
            "eor %[size], %[one], %[one], asr #31\n\t"
            "sub %[size], %[size], %[one], asr #31\n\t"
            "mul %[reach], %[size], %[most]\n\t"
            "sub %[t], %[reach], %[from]\n\t"
            "cmp %[t], %[span]\n\t"
            "bhs 2f\n\t"
            "ldrh %[t], [%[e], %[apart]]\n\t"
            "asr %[reach], %[reach], %[k]\n\t"
            "add %[t], %[t], #1\n\t"
            "add %[t], %[t], %[reach]\n\t"
            "ldr %[reach], %[limit]\n\t"
            "cmp %[t], %[reach]\n\t"
            "bgt 2f\n\t"
            "strh %[t], [%[e], %[apart]]\n\t"
            "rsb %[t], %[k], #32\n\t"
            "lsl %[one], %[one], %[t]\n\t"
            "udiv %[size], %[from], %[size]\n\t"
            "stmia %[p]!, {%[one], %[w], %[size]}\n\t"
            "ldr %[t], %[step]\n\t"
            "ldr %[reach], %[end]\n\t"
            "add %[w], %[w], %[t]\n\t"
            "add %[e], %[e], #2\n\t"
            "cmp %[e], %[reach]\n\t"
            "bne 1b\n"
            "2:\n\t"
            : [e] "+r"(e), [p] "+r"(p), [w] "+r"(w), [one] "=&r"(one), [size] "=&r"(size),
              [reach] "=&r"(reach), [t] "=&r"(t)
            : [most] "r"(y->most), [from] "r"(y->from), [span] "r"(y->span), [k] "r"(y->shift),
              [apart] "r"(apart), [limit] "m"(limit), [step] "m"(step), [end] "m"(end)
            : "cc", "memory");
        if (e != end) {
            p = plan_row(y, row, (int32_t)(e - begin), p);
            w += layer->stride;
            e++;
        }
    }
    return p;
}

#endif
