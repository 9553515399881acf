#include "stack.h"

/* volatile: the compiler must not think that memory below the live frames is dead. */

void stack_paint(uintptr_t bottom, uintptr_t top)
{
    volatile uint32_t *const words = (volatile uint32_t *)bottom;

    for (uintptr_t i = 0; i < (top - bottom) / 4; i++) {
        words[i] = STACK_PAINT;
    }
}

uint32_t stack_untouched(uintptr_t bottom, uint32_t size)
{
    const volatile uint32_t *const words = (const volatile uint32_t *)bottom;
    uint32_t n = 0;

    while (n < size / 4 && words[n] == STACK_PAINT) {
        n++;
    }
    return 4 * n;
}
