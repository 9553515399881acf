/* How deep the stack has ever been: it is painted at the start, and the paint that is
 * left is counted. */
#ifndef STACK_H
#define STACK_H

#include <stdint.h>

#define STACK_PAINT UINT32_C(0x57ac7a57)

/* Paints whole words from `bottom` up to `top`, which must be below every live frame. */
void stack_paint(uintptr_t bottom, uintptr_t top);

/* Bytes from `bottom` up that still carry paint, `size` at most. */
uint32_t stack_untouched(uintptr_t bottom, uint32_t size);

#endif
