/* Clocks and pins of the STM32F405 (RM0090) and F446 (RM0390), which agree in all that is
 * used here. */
#ifndef STM32F4_H
#define STM32F4_H

#include "stm32.h"

#define STM32F4_CORE_HZ 168000000u

/* Port A is 0, B is 1, ... The pin gets its alternate function, pulled up. */
void stm32f4_pin(uint32_t port, uint32_t pin, uint32_t function);

/* Internal oscillator and PLL to 168 MHz, APB1 at a quarter, APB2 at half of it. Returns
 * the core clock that came of it: without a PLL that locks it stays at 16 MHz. */
uint32_t stm32f4_clock(void);

/* Of a core clock. */
static inline uint32_t stm32f4_apb1(uint32_t core_hz)
{
    return core_hz == STM32F4_CORE_HZ ? core_hz / 4 : core_hz;
}

/* Turns on a peripheral of APB1: RCC_APB1ENR. */
void stm32f4_apb1_on(uint32_t bit);

/* The cause of the reset, read once; stops the watchdog while a debugger halts the core. */
uint32_t stm32f4_cause(void);

#endif
