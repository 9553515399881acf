/* Sign: each weight moves by the same step, the way that its momentum points. A step below the
 * LSB of the stored weight is taken that seldom, by stochastic rounding. */
#include "learner.h"

uint32_t gle_sign_row(int32_t *row, int32_t *memory, uint8_t *norm, int32_t m,
                      const gle_recall *how, uint32_t first)
{
    uint32_t clipped = 0;

    (void)norm;
    (void)first;
    for (int32_t j = 0; j < m; j++) {
        const int32_t a = gle_remember(&memory[j], row[j], how->drop, &clipped);
        row[j] = (a > 0) - (a < 0);
        memory[j] = gle_decayed(a, how->momentum);
    }
    return clipped;
}
