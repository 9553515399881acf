/* What the kernels for the DSP extension of microcontrollers share. */
#ifndef GLE_SINGLE_DSP_H
#define GLE_SINGLE_DSP_H

#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

/* Two numbers of 16 bits in a word, the first in the lower half. */
INLINE int32_t pair_at(const int16_t *p)
{
    int32_t two;
    __builtin_memcpy(&two, __builtin_assume_aligned(p, 4), sizeof two);
    return two;
}

INLINE void pair_to(int16_t *p, int32_t two)
{
    __builtin_memcpy(__builtin_assume_aligned(p, 4), &two, sizeof two);
}

#endif
