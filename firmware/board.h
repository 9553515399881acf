/* All that a board is to the firmware: ten functions. A port fills them in, in its own
 * folder (see README.md); main.c and everything below it stays as it is.
 *
 * They are called from the one loop in main.c, never from an interrupt. None waits longer
 * than it says, whatever the hardware does: each wait for a flag is bounded.
 */
#ifndef BOARD_H
#define BOARD_H

#include <stddef.h>
#include <stdint.h>

#include "device/message.h"

/* What the firmware asks once, at its start. */
typedef struct {
    const char *name;    /* of the folder */
    uint32_t payload;    /* largest message, both ways; LINK_MIN_PAYLOAD or more */
    uint32_t window;     /* messages under way, each way */
    void *memory;        /* all that is left for link, device and chip; aligned to 8 */
    size_t memory_bytes;
    uint32_t features;   /* FEATURE_WATCHDOG, FEATURE_STACK: what works here */
    uint32_t boot_cause; /* message_boot_cause */
    uint32_t boots;      /* since power came, this one included */
    uint32_t boot_id;    /* another one at each boot, as far as the board can */
} board_facts;

/* Clocks, the line, the timer, the watchdog; called once, before all others. */
void board_init(board_facts *facts);

/* Milliseconds since the start; wraps. */
uint32_t board_millis(void);

/* Takes up to `capacity` received bytes; 0: none. Does not wait. */
size_t board_read(uint8_t *to, size_t capacity);

/* How many bytes board_write would take now. Not 0 for ever: at 0 only time helps. */
size_t board_room(void);

/* Sends n <= board_room() bytes. Does not wait for the line. */
void board_write(const uint8_t *from, size_t n);

/* Sleeps until a byte has arrived or can be sent, or about `ms` have passed; may return
 * sooner, and does so at once when a byte waits to be read. */
void board_idle(uint32_t ms);

/* The loop is alive. Without this for some seconds (BOARD_WEDGED_MS) the board resets. */
void board_alive(void);

/* Restarts the board; with REBOOT_WEDGE it hangs instead, for the watchdog to find.
 * Does not return. */
_Noreturn void board_reboot(uint32_t how);

/* Of the stack: what there is and what has ever been used; 0 where unknown. */
void board_stack(uint32_t *size, uint32_t *used);

/* Received bytes that nobody had room for, since the start. */
uint32_t board_lost(void);

/* A loop that does not come round in this time is wedged: far longer than the largest
 * network's step, its image check and its weights' digest take, and longer than an
 * emulator may be held up by its machine. */
#define BOARD_WEDGED_MS 4000u

/* main.c: what the start-up code enters once memory is set up. */
_Noreturn void firmware_run(void);

#endif
