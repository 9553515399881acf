#ifndef PART_H
#define PART_H

/* USART1. RM0041 section 2.3 and table 50. */
#define PART_USART 0x40013800u
#define PART_USART_IRQ 37u

#endif
