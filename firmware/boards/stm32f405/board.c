/* STM32F405 with USART3 on PB10 (TX) and PB11 (RX). */
#include "stm32_usart.h"
#include "stm32f4.h"

enum { PORT_B = 1, TX_PIN = 10, RX_PIN = 11, AF_USART3 = 7, APB1_USART3 = 18 };

void board_init(board_facts *facts)
{
    const uint32_t cause = stm32f4_cause();
    const uint32_t core_hz = stm32f4_clock();

    stm32f4_pin(PORT_B, TX_PIN, AF_USART3);
    stm32f4_pin(PORT_B, RX_PIN, AF_USART3);
    stm32f4_apb1_on(APB1_USART3);
    cortex_facts(facts, cause);
    cortex_start_timer(core_hz);
    stm32_usart_start(stm32f4_apb1(core_hz), BOARD_BAUD);
    stm32_watchdog_start();
}
