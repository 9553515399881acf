/* What the STM32 families share: bounded waits, the cause of a reset, the watchdog. */
#ifndef STM32_H
#define STM32_H

#include "cortex_m.h"

/* Waits until the bits of `mask` read as `value`, but not for ever: some milliseconds at
 * any clock. Returns whether they did. */
int stm32_wait(uint32_t address, uint32_t mask, uint32_t value);

/* message_boot_cause from RCC_CSR, whose flags have the same places in all of them:
 * RM0090 7.3.21, RM0390 6.3.21, RM0041 6.3.10. */
uint32_t stm32_cause(uint32_t rcc_csr);
#define STM32_CSR_RMVF (1u << 24) /* clears the flags */

/* Starts the independent watchdog: RM0090 21, RM0390 20, RM0041 18. */
void stm32_watchdog_start(void);

#endif
