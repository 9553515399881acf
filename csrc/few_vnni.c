/* The last streams of a batch, which leave most of a vector empty, with AVX-512: apart from the
 * tiles of matvec_vnni.c, whose vectors are streams. Four at a time: of W r, a vector is what is
 * summed; of W^T e, columns of weights. The same sums, exactly.
 */
#include "single.h"

#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)

#include "lanes_vnni.h"
#include "tiles_vnni.h"

enum {
    GROUP = 4, /* streams at once, of GLE_FEW_MOST */
    ROWS = 4,  /* of weights at once */
    SIDE = 16, /* columns at once, and streams of a vector */
    WIDE = 32, /* int16 a vector */
    CHAINS = 4 /* sums of the same, as products follow one another faster than they end */
};

/* Sums of lanes: 2^16 high + low. */
typedef struct {
    __m512i high, low;
} split;

LANES void spill(split *s, __m512i *sum)
{
    s->high = _mm512_add_epi32(s->high, _mm512_srai_epi32(*sum, 16));
    s->low = _mm512_add_epi32(s->low, _mm512_and_si512(*sum, all(0xffff)));
    *sum = _mm512_setzero_si512();
}

void gle_few_turned_vnni(int16_t *turned, int32_t pitch, const int16_t *pairs, int32_t m,
                         int32_t columns)
{
    static const int16_t zeros[2] = {0, 0};
    const int32_t whole = (m + WIDE - 1) / WIDE * WIDE;

    for (int32_t j = 0; j < whole; j += 2) {
        const int16_t *from = pairs + (size_t)j * (size_t)columns;
        for (int32_t s = 0; s < GLE_FEW_MOST; s++) {
            memcpy(turned + s * pitch + j, j < m ? from + 2 * s : zeros, sizeof zeros);
        }
    }
}

/* The sums of lanes of sixteen vectors; `wide`: of what was spilled, too. */
LANES split sums_of_all(const int wide, const split *spilled, __m512i sum[SIDE])
{
    __m512i high[SIDE];
    split total;

#pragma GCC unroll 16
    for (int k = 0; wide && k < SIDE; k++) {
        split s = spilled[k];
        spill(&s, &sum[k]);
        high[k] = s.high;
        sum[k] = s.low;
    }
    total.low = sums_of_lanes(sum);
    total.high = wide ? sums_of_lanes(high) : _mm512_setzero_si512();
    return total;
}

/* A row of a group of streams; what is behind them in the vector is 0. */
LANES void four(int32_t *out, int32_t group, __m128i x)
{
    if (group == 0) {
        store(out, _mm512_zextsi128_si512(x));
    } else {
        _mm_storeu_si128((__m128i *)(void *)(out + GROUP * group), x);
    }
}

/* Up to four rows by four streams. Lanes can add the products of `each` inputs. */
LANES void few_rows(const int wide, int32_t *out, int32_t columns, int32_t group,
                    const int16_t *w, int32_t pitch, int32_t rows, int32_t m, const int16_t *x,
                    int32_t each, int32_t shift, const uint32_t *more)
{
    split spilled[SIDE], total;
    __m512i sum[SIDE];
    int32_t low[SIDE], high[SIDE];

#pragma GCC unroll 16
    for (int k = 0; k < SIDE; k++) {
        sum[k] = spilled[k].high = spilled[k].low = _mm512_setzero_si512();
    }
    for (int32_t j = 0; j < m;) {
        const int32_t end = !wide || m - j <= each ? m : j + each;
        for (; j < end; j += WIDE) {
            __m512i xs[GROUP];
#pragma GCC unroll 4
            for (int s = 0; s < GROUP; s++) {
                xs[s] = load(x + s * pitch + j);
            }
#pragma GCC unroll 4
            for (int r = 0; r < ROWS; r++) {
                const __m512i ws = load(w + r * pitch + j);
#pragma GCC unroll 4
                for (int s = 0; s < GROUP; s++) {
                    add_products(&sum[GROUP * r + s], ws, xs[s]);
                }
            }
        }
        if (wide && j < m) {
#pragma GCC unroll 16
            for (int k = 0; k < SIDE; k++) {
                spill(&spilled[k], &sum[k]);
            }
        }
    }
    total = sums_of_all(wide, spilled, sum);
    store(low, total.low);
    store(high, total.high);
    for (int32_t r = 0; r < rows; r++) {
        const __m512i a = _mm512_maskz_loadu_epi32(0xf, high + GROUP * r);
        const __m512i b = _mm512_maskz_loadu_epi32(0xf, low + GROUP * r);
        const int32_t k = shift + (more ? (int32_t)more[r] : 0);
        const __m512i y = wide ? round_wide(a, b, k) : round_sum(b, k);
        four(out + (size_t)r * (size_t)columns, group, _mm512_castsi512_si128(y));
    }
}

AVX512 void gle_few_rows_vnni(int32_t *out, int32_t columns, const int16_t *w, int32_t pitch,
                              int32_t rows, int32_t m, const int16_t *x, int32_t streams,
                              int32_t shift, const uint32_t *more, int32_t fits, int32_t largest)
{
    const int32_t product = (GLE_ARRAY_MAX + 1) * (largest > 0 ? largest : 1);
    const int32_t each = INT32_MAX / product / 2 * WIDE; /* a lane adds two of a vector */

    for (int32_t i = 0; i < rows; i += ROWS, w += ROWS * pitch, out += ROWS * (size_t)columns) {
        const int32_t some = rows - i < ROWS ? rows - i : ROWS;
        const uint32_t *own = more ? more + i : NULL;
        for (int32_t g = 0; GROUP * g < streams; g++) {
            const int16_t *xs = x + GROUP * g * pitch;
            if (fits) {
                few_rows(0, out, columns, g, w, pitch, some, m, xs, each, shift, own);
            } else {
                few_rows(1, out, columns, g, w, pitch, some, m, xs, each, shift, own);
            }
        }
    }
}

/* Up to sixteen columns of weights in pairs of rows, w[pairs][SIDE][2], by four streams, whose
 * pairs stand `step` behind one another. Sums of `chunk` pairs fit. */
AVX512 static void few_columns(int32_t *out, int32_t columns, int32_t group, const int16_t *w,
                               int32_t some, int32_t pairs, const int16_t *x, int32_t step,
                               int32_t shift, int32_t chunk)
{
    const __m512i zero = _mm512_setzero_si512();
    split total[GROUP];
    __m512i y[GROUP], t[GROUP];
    int32_t turned[GROUP][SIDE];

#pragma GCC unroll 4
    for (int s = 0; s < GROUP; s++) {
        total[s].high = total[s].low = zero;
    }
    for (int32_t k = 0; k < pairs;) {
        const int32_t end = pairs - k <= chunk ? pairs : k + chunk;
        __m512i sum[CHAINS][GROUP];
#pragma GCC unroll 4
        for (int c = 0; c < CHAINS; c++) {
#pragma GCC unroll 4
            for (int s = 0; s < GROUP; s++) {
                sum[c][s] = zero;
            }
        }
        for (; end - k >= CHAINS; k += CHAINS) {
#pragma GCC unroll 4
            for (int c = 0; c < CHAINS; c++) {
                const __m512i ws = load(w + 2 * SIDE * (size_t)(k + c));
                const int16_t *xs = x + (size_t)(k + c) * (size_t)step;
#pragma GCC unroll 4
                for (int s = 0; s < GROUP; s++) {
                    add_products(&sum[c][s], ws, pair_at(xs + 2 * s));
                }
            }
        }
        for (; k < end; k++) {
            const __m512i ws = load(w + 2 * SIDE * (size_t)k);
#pragma GCC unroll 4
            for (int s = 0; s < GROUP; s++) {
                add_products(&sum[0][s], ws, pair_at(x + (size_t)k * (size_t)step + 2 * s));
            }
        }
#pragma GCC unroll 4
        for (int s = 0; s < GROUP; s++) {
            sum[0][s] = _mm512_add_epi32(_mm512_add_epi32(sum[0][s], sum[1][s]),
                                         _mm512_add_epi32(sum[2][s], sum[3][s]));
            spill(&total[s], &sum[0][s]);
        }
    }
#pragma GCC unroll 4
    for (int s = 0; s < GROUP; s++) {
        y[s] = round_wide(total[s].high, total[s].low, shift);
    }
    /* four streams of a column side by side, columns j, j + 4, j + 8, j + 12 in a vector */
    t[0] = _mm512_unpacklo_epi32(y[0], y[1]);
    t[1] = _mm512_unpackhi_epi32(y[0], y[1]);
    t[2] = _mm512_unpacklo_epi32(y[2], y[3]);
    t[3] = _mm512_unpackhi_epi32(y[2], y[3]);
    store(turned[0], _mm512_unpacklo_epi64(t[0], t[2]));
    store(turned[1], _mm512_unpackhi_epi64(t[0], t[2]));
    store(turned[2], _mm512_unpacklo_epi64(t[1], t[3]));
    store(turned[3], _mm512_unpackhi_epi64(t[1], t[3]));
    for (int32_t j = 0; j < some; j++) {
        const int32_t *from = turned[j % 4] + j / 4 * GROUP;
        four(out + (size_t)j * (size_t)columns, group,
             _mm_loadu_si128((const __m128i *)(const void *)from));
    }
}

void gle_few_columns_vnni(int32_t *out, int32_t columns, const int16_t *w, int32_t some, int32_t n,
                          const int16_t *x, int32_t streams, int32_t shift, int32_t chunk)
{
    for (int32_t g = 0; GROUP * g < streams; g++) {
        few_columns(out, columns, g, w, some, (n + 1) / 2, x + 2 * GROUP * g, 2 * columns, shift,
                    chunk);
    }
}

#else
typedef int gle_no_few_vnni; /* ISO C wants one declaration a file */
#endif
