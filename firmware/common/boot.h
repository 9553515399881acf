/* What outlives a reset: a few words of RAM that the start-up code does not clear. */
#ifndef BOOT_H
#define BOOT_H

#include "board.h"

/* Fills in boots, boot_cause and boot_id. `hardware` is the cause that the part's own
 * flags tell, BOOT_UNKNOWN if they tell none; a cause that the firmware left behind when
 * it reset the board itself goes before it. The memory of `facts` must be set: what the
 * power left in it is the only randomness there is for the boot id. */
void boot_begin(board_facts *facts, uint32_t hardware);

/* The firmware is about to reset the board. */
void boot_note(uint32_t cause);

#endif
