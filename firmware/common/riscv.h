/* What RISC-V boards with a CLINT and a PLIC share: start-up, traps, the timer, sleep and
 * the half of the watchdog that needs no watchdog hardware.
 *
 * Privileged architecture 1.10, chapter 3; CLINT and PLIC where SiFive's parts have them.
 */
#ifndef RISCV_H
#define RISCV_H

#include "board.h"

#define RISCV_REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

/* Starts the timer's interrupt. hz: of mtime. */
void riscv_start_timer(uint32_t hz);

/* Lets the PLIC's source happen: line_interrupt is called for it, whatever it is. */
void riscv_irq_enable(uint32_t source);

/* The loop is alive: the timer's interrupt restarts the board when this has not come for
 * BOARD_WEDGED_MS. */
void riscv_alive(void);

/* Memory, boot count, cause and id of the facts. */
void riscv_facts(board_facts *facts, uint32_t hardware_cause);

/* The part's: resets the board by hardware; may return, if it cannot. */
void riscv_part_reset(void);

#endif
