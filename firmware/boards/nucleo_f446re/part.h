#ifndef PART_H
#define PART_H

/* USART2, which the board's ST-LINK shows as a serial port. RM0390 section 2.2.2 and
 * table 38. */
#define PART_USART 0x40004400u
#define PART_USART_IRQ 38u

#endif
