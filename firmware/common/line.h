/* The serial line of a board with a UART: two rings that the interrupt fills and empties.
 * A UART's file has the interrupt handler and line_kick; line.c has the rest. */
#ifndef LINE_H
#define LINE_H

#include "ring.h"

/* Everything that the host may have under way: full frames as link/frame.h has them,
 * stuffed, and as much as an acknowledgement or two. */
#define LINE_RX_BYTES (BOARD_WINDOW * (BOARD_PAYLOAD + 20) + 64)
/* What keeps the line busy during one step of a small network. */
#define LINE_TX_BYTES 128

extern ring line_rx, line_tx;

/* From the interrupt: a byte has arrived. If the loop has not kept up it is lost, and
 * counted; the link sends again. */
void line_received(uint8_t byte);

/* From the interrupt: the UART had no room for a byte. */
void line_overrun(void);

/* The UART's: its interrupt, and a way to make it run because line_tx has something. */
void line_interrupt(void);
void line_kick(void);

#endif
