#ifndef PART_H
#define PART_H

/* USART3: the pins that the Feather calls TX and RX, and that the ROM boot loader uses as
 * well (AN2606). RM0090 section 2.3 and table 62. */
#define PART_USART 0x40004800u
#define PART_USART_IRQ 39u

#endif
