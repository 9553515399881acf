/* The USART of the STM32 F1 and F4: the same registers. RM0090 section 30.6 (F405), RM0390
 * section 25.6 (F446), RM0041 section 23.6 (F100). The board's part.h says which one:
 * PART_USART, its address, and PART_USART_IRQ. */
#ifndef STM32_USART_H
#define STM32_USART_H

#include <stdint.h>

/* 8 data bits, no parity, one stop bit, no flow control; clock and pins must be on. */
void stm32_usart_start(uint32_t clock_hz, uint32_t baud);

#endif
