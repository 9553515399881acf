#include "stm32_usart.h"

#include "cortex_m.h"
#include "line.h"
#include "part.h"

#define USART_SR CORTEX_REGISTER(PART_USART + 0x00)
#define SR_ORE (1u << 3)
#define SR_RXNE (1u << 5)
#define SR_TXE (1u << 7)
#define USART_DR CORTEX_REGISTER(PART_USART + 0x04)
#define USART_BRR CORTEX_REGISTER(PART_USART + 0x08)
#define USART_CR1 CORTEX_REGISTER(PART_USART + 0x0c)
#define CR1_RE (1u << 2)
#define CR1_TE (1u << 3)
#define CR1_RXNEIE (1u << 5)
#define CR1_TXEIE (1u << 7)
#define CR1_UE (1u << 13)
#define CR1_ON (CR1_UE | CR1_TE | CR1_RE | CR1_RXNEIE)

/* Bytes taken in one interrupt; if there are more it comes again at once. */
enum { BURST = 32 };

void stm32_usart_start(uint32_t clock_hz, uint32_t baud)
{
    /* Oversampling by 16: the divider with its four fraction bits is clock / baud. */
    USART_BRR = (clock_hz + baud / 2) / baud;
    USART_CR1 = CR1_ON;
    cortex_irq_enable(PART_USART_IRQ);
}

static void take_in(void)
{
    for (int i = 0; i < BURST; i++) {
        const uint32_t status = USART_SR;

        if ((status & (SR_RXNE | SR_ORE)) == 0) {
            break;
        }
        /* Reading SR, then DR clears both flags. */
        const uint8_t byte = (uint8_t)USART_DR;
        if (status & SR_RXNE) {
            line_received(byte);
        }
        if (status & SR_ORE) {
            line_overrun();
        }
    }
}

/* Only here is CR1 touched, so that nobody's change of it gets lost. */
void line_interrupt(void)
{
    uint8_t byte;

    take_in();
    while ((USART_SR & SR_TXE) != 0 && ring_take(&line_tx, &byte)) {
        USART_DR = byte;
    }
    USART_CR1 = ring_is_empty(&line_tx) ? CR1_ON : CR1_ON | CR1_TXEIE;
}

/* The interrupt decides itself whether it needs TXEIE. QEMU never raises the interrupt
 * for TXE, but it is always ready to send, so once is enough there. */
void line_kick(void) { cortex_irq_pend(PART_USART_IRQ); }
