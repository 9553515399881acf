#include "stm32f4.h"

/* RM0090 section 7.3, RM0390 section 6.3 */
#define RCC 0x40023800u
#define RCC_CR CORTEX_REGISTER(RCC + 0x00)
#define CR_HSION (1u << 0)
#define CR_HSIRDY (1u << 1)
#define CR_PLLON (1u << 24)
#define CR_PLLRDY (1u << 25)
#define RCC_PLLCFGR CORTEX_REGISTER(RCC + 0x04)
#define RCC_CFGR CORTEX_REGISTER(RCC + 0x08)
#define CFGR_SW 3u
#define CFGR_SW_PLL 2u
#define CFGR_SWS (3u << 2)
#define CFGR_SWS_PLL (2u << 2)
#define CFGR_APB1_BY_4 (5u << 10)
#define CFGR_APB2_BY_2 (4u << 13)
#define RCC_AHB1ENR CORTEX_REGISTER(RCC + 0x30)
#define RCC_APB1ENR CORTEX_REGISTER(RCC + 0x40)
#define RCC_CSR CORTEX_REGISTER(RCC + 0x74)

/* RM0090 section 3.9.1, RM0390 section 3.8.1 */
#define FLASH_ACR_ADDRESS 0x40023c00u
#define FLASH_ACR CORTEX_REGISTER(FLASH_ACR_ADDRESS)
#define ACR_LATENCY 0xfu
#define ACR_FIVE_WAITS 5u /* 150 to 168 MHz at 2.7 to 3.6 V */
#define ACR_PREFETCH_AND_CACHES (7u << 8)

/* RM0090 section 38.16.4, RM0390 section 33.16.4 */
#define DBGMCU_APB1_FZ CORTEX_REGISTER(0xe0042008)
#define FZ_IWDG_STOP (1u << 12)

/* HSI 16 MHz / 8 * 168 / 2 = 168 MHz; Q = 7: 48 MHz; R = 2, which only the F446 has and
 * which must not be less. The oscillator is good to 1 %, which a UART can bear. */
#define PLL_M 8u
#define PLL_N 168u
#define PLL_Q 7u
#define PLL_R 2u

void stm32f4_pin(uint32_t port, uint32_t pin, uint32_t function)
{
    /* RM0090 section 8.4, RM0390 section 7.4 */
    const uint32_t gpio = 0x40020000u + 0x400u * port;
    volatile uint32_t *const mode = &CORTEX_REGISTER(gpio + 0x00);
    volatile uint32_t *const pull = &CORTEX_REGISTER(gpio + 0x0c);
    volatile uint32_t *const alternate = &CORTEX_REGISTER(gpio + 0x20 + 4 * (pin / 8));
    const uint32_t nibble = 4 * (pin % 8);

    RCC_AHB1ENR |= 1u << port;
    (void)RCC_AHB1ENR; /* two cycles until the port listens: RM0090 section 7.3.10 */
    *alternate = (*alternate & ~(0xfu << nibble)) | function << nibble;
    *pull = (*pull & ~(3u << (2 * pin))) | 1u << (2 * pin);
    *mode = (*mode & ~(3u << (2 * pin))) | 2u << (2 * pin);
}

uint32_t stm32f4_clock(void)
{
    RCC_CR |= CR_HSION; /* a boot loader may run from another oscillator */
    if (!stm32_wait(RCC + 0x00, CR_HSIRDY, CR_HSIRDY)) {
        /* It never comes up: an emulator without clocks, which counts time as if all were
         * set up. */
        return STM32F4_CORE_HZ;
    }
    /* A boot loader may have left the PLL running, and a running one cannot be set. */
    RCC_CFGR &= ~CFGR_SW;
    (void)stm32_wait(RCC + 0x08, CFGR_SWS, 0);
    RCC_CR &= ~CR_PLLON;
    (void)stm32_wait(RCC + 0x00, CR_PLLRDY, 0);
    FLASH_ACR = ACR_FIVE_WAITS | ACR_PREFETCH_AND_CACHES;
    RCC_PLLCFGR = PLL_M | PLL_N << 6 | PLL_Q << 24 | PLL_R << 28; /* P = 2; source HSI */
    RCC_CR |= CR_PLLON;
    if (!stm32_wait(FLASH_ACR_ADDRESS, ACR_LATENCY, ACR_FIVE_WAITS) ||
        !stm32_wait(RCC + 0x00, CR_PLLRDY, CR_PLLRDY)) {
        return STM32F4_CORE_HZ / 168 * 16;
    }
    RCC_CFGR = CFGR_APB1_BY_4 | CFGR_APB2_BY_2 | CFGR_SW_PLL;
    /* With the PLL locked the switch takes some cycles and cannot fail. */
    (void)stm32_wait(RCC + 0x08, CFGR_SWS, CFGR_SWS_PLL);
    return STM32F4_CORE_HZ;
}

void stm32f4_apb1_on(uint32_t bit)
{
    RCC_APB1ENR |= 1u << bit;
    (void)RCC_APB1ENR;
}

uint32_t stm32f4_cause(void)
{
    const uint32_t flags = RCC_CSR;

    RCC_CSR = flags | STM32_CSR_RMVF;
    DBGMCU_APB1_FZ |= FZ_IWDG_STOP;
    return stm32_cause(flags);
}
