/* NUCLEO-F446RE with USART2 on PA2 (TX) and PA3 (RX), which lead to its ST-LINK (UM1724
 * section 6.8). */
#include "stm32_usart.h"
#include "stm32f4.h"

enum { PORT_A = 0, TX_PIN = 2, RX_PIN = 3, AF_USART2 = 7, APB1_USART2 = 17 };

void board_init(board_facts *facts)
{
    const uint32_t cause = stm32f4_cause();
    const uint32_t core_hz = stm32f4_clock();

    stm32f4_pin(PORT_A, TX_PIN, AF_USART2);
    stm32f4_pin(PORT_A, RX_PIN, AF_USART2);
    stm32f4_apb1_on(APB1_USART2);
    cortex_facts(facts, cause);
    cortex_start_timer(core_hz);
    stm32_usart_start(stm32f4_apb1(core_hz), BOARD_BAUD);
    stm32_watchdog_start();
}
