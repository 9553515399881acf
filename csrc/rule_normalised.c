/* Normalised: momentum over a running mean of |g|, both powers of two where they divide: what
 * Adam (Kingma and Ba, arXiv 1412.6980) becomes on a chip that can only shift.
 *
 * The mean V = 2^(c/8) takes a byte, where its slow 2^-10 would need 20 bits in a plain format:
 * c is moved by the derivative of the logarithm and rounded at random. With o = c >> 3 and n as
 * gle_recall has it:
 *
 *     t  = min(x, 2^(o + 10)) 2^(6 - o), rounded down          x / 2^o
 *     d  = t T[c & 7] - 64 T[0]                                T: norm_table
 *     c += (min(d, 8 2^(16 + n)) + (16 + n random bits)) >> (16 + n)
 */
#include "learner.h"

#define LIST(...) {__VA_ARGS__}
#define AS(list) LIST list /* its parentheses, as braces */

static const int32_t norm_table[8] = AS(GLE_NORM_TABLE_LIST);

static int32_t octave(uint32_t x)
{
    int32_t k = 0;

    while (x >> 1 != 0) {
        x >>= 1;
        k++;
    }
    return k;
}

static int32_t heard(int32_t c, int32_t x, int32_t n, uint32_t random)
{
    const int32_t o = c >> 3, k = 16 + n;
    const int32_t most = o + 10 > 30 ? 30 : o + 10;
    int32_t t, d;

    if (c == 0) {
        return x == 0 ? 0 : 8 * octave((uint32_t)x) + 4;
    }
    t = x > 1 << most ? 1 << most : x;
    t = o >= 6 ? t >> (o - 6) : t * (1 << (6 - o)); /* at most 2^16 */
    d = t * norm_table[c & 7] - GLE_NORM_ONE;
    if (k < 27 && d > 8 << k) {
        d = 8 << k;
    }
    c += (d + (int32_t)(random >> (32 - k))) >> k;
    return c < 1 ? 1 : (c > 255 ? 255 : c);
}

/* A 2^-momentum / V. */
static int32_t ratio(int32_t a, int32_t momentum, int32_t c)
{
    const int32_t k = momentum + ((c + 4) >> 3);
    const int32_t right = k - GLE_RATIO_BITS;

    if (k + GLE_RATIO_MOST < 30) {
        a = gle_clamp(a, 1 << (k + GLE_RATIO_MOST));
    }
    return right < 0 ? a * (1 << -right) : (right > 30 ? 0 : gle_round(a, right));
}

uint32_t gle_normalised_row(int32_t *row, int32_t *memory, uint8_t *norm, int32_t m,
                            const gle_recall *how, uint32_t first)
{
    uint32_t clipped = 0;

    for (int32_t j = 0; j < m; j++) {
        const int32_t a = gle_remember(&memory[j], row[j], how->drop, &clipped);
        const int32_t g = gle_clamp(gle_round(row[j], how->drop), GLE_MEMORY_MAX);
        const int32_t y = how->each ? g : a;
        const int32_t x = (y < 0 ? -y : y) >> (how->each ? 0 : how->momentum);
        const int32_t c = heard(norm[j], x, how->norm, gle_rng(how->key, first + (uint32_t)j));
        row[j] = ratio(a, how->momentum, c);
        memory[j] = gle_decayed(a, how->momentum);
        norm[j] = (uint8_t)c;
    }
    return clipped;
}
