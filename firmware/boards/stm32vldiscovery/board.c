/* STM32F100 (value line) with USART1 on PA9 (TX) and PA10 (RX). Sections: RM0041. */
#include "stm32.h"
#include "stm32_usart.h"

#define RCC 0x40021000u /* 6.3 */
#define RCC_CR CORTEX_REGISTER(RCC + 0x00)
#define CR_HSIRDY (1u << 1)
#define CR_PLLON (1u << 24)
#define CR_PLLRDY (1u << 25)
#define RCC_CFGR CORTEX_REGISTER(RCC + 0x04)
#define CFGR_PLL_BY_6 (4u << 18) /* from half of HSI: 8 MHz / 2 * 6 = 24 MHz */
#define CFGR_SW_PLL 2u
#define CFGR_SWS (3u << 2)
#define CFGR_SWS_PLL (2u << 2)
#define RCC_APB2ENR CORTEX_REGISTER(RCC + 0x18)
#define APB2_AFIO (1u << 0)
#define APB2_PORT_A (1u << 2)
#define APB2_USART1 (1u << 14)
#define RCC_CSR CORTEX_REGISTER(RCC + 0x24)

#define GPIOA_CRH CORTEX_REGISTER(0x40010804) /* 7.2.2 */
#define GPIOA_BSRR CORTEX_REGISTER(0x40010810) /* 7.2.5 */
#define CRH_PA9_PA10 (0xffu << 4)
#define CRH_PA9_OUTPUT (0x9u << 4) /* alternate function, push-pull, 10 MHz */
#define CRH_PA10_PULLED (0x8u << 8) /* input, pulled up or down as BSRR says */

#define DBGMCU_CR CORTEX_REGISTER(0xe0042004) /* 25.15.3 */
#define DBG_IWDG_STOP (1u << 8)

#define CORE_HZ 24000000u
#define HSI_HZ 8000000u

/* The flash of the value line needs no wait states. Returns Hz. */
static uint32_t start_clock(void)
{
    if ((RCC_CR & CR_HSIRDY) == 0) {
        return CORE_HZ; /* an emulator without clocks, see stm32f4.c */
    }
    RCC_CFGR = CFGR_PLL_BY_6;
    RCC_CR |= CR_PLLON;
    if (!stm32_wait(RCC + 0x00, CR_PLLRDY, CR_PLLRDY)) {
        return HSI_HZ;
    }
    RCC_CFGR = CFGR_PLL_BY_6 | CFGR_SW_PLL;
    (void)stm32_wait(RCC + 0x04, CFGR_SWS, CFGR_SWS_PLL);
    return CORE_HZ;
}

void board_init(board_facts *facts)
{
    const uint32_t flags = RCC_CSR;
    const uint32_t core_hz = start_clock();

    RCC_CSR = flags | STM32_CSR_RMVF;
    DBGMCU_CR |= DBG_IWDG_STOP;
    RCC_APB2ENR |= APB2_AFIO | APB2_PORT_A | APB2_USART1;
    GPIOA_BSRR = 1u << 10;
    GPIOA_CRH = (GPIOA_CRH & ~CRH_PA9_PA10) | CRH_PA9_OUTPUT | CRH_PA10_PULLED;
    cortex_facts(facts, stm32_cause(flags));
    cortex_start_timer(core_hz);
    stm32_usart_start(core_hz, BOARD_BAUD); /* APB2 is not divided */
    stm32_watchdog_start();
}
