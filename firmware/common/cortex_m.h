/* What all Cortex-M boards share: start-up, vectors, the millisecond timer, sleep, reset,
 * and the half of the watchdog that needs no watchdog hardware.
 *
 * Sections are those of the ARMv7-M Architecture Reference Manual, DDI 0403.
 */
#ifndef CORTEX_M_H
#define CORTEX_M_H

#include "board.h"

#define CORTEX_REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

/* Lets `irq` happen, and makes it happen now. B3.4.4, B3.4.6. */
void cortex_irq_enable(uint32_t irq);
void cortex_irq_pend(uint32_t irq);

/* Starts SysTick, 1 ms, from the core clock. B3.3. */
void cortex_start_timer(uint32_t core_hz);

/* Resets through SYSRESETREQ, leaving behind why. B3.2.6. */
_Noreturn void cortex_reset_board(uint32_t cause);

/* Memory, boot count, cause and id of the facts; call it when the clock is up. */
void cortex_facts(board_facts *facts, uint32_t hardware_cause);

/* The loop is alive: the timer's interrupt resets the board when this has not come for
 * BOARD_WEDGED_MS. That finds a loop that hangs; a watchdog of the part's own, started by
 * the port with a longer time, finds interrupts that hang. */
void cortex_alive(void);

#endif
