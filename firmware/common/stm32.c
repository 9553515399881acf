#include "stm32.h"

#define IWDG_KR CORTEX_REGISTER(0x40003000)
#define IWDG_PR CORTEX_REGISTER(0x40003004)
#define IWDG_RLR CORTEX_REGISTER(0x40003008)
#define IWDG_SR 0x4000300c
enum { KEY_RELOAD = 0xaaaa, KEY_UNLOCK = 0x5555, KEY_START = 0xcccc };

/* Its oscillator runs at 17 to 60 kHz, depending on part and temperature: at a 256th,
 * this is 5.3 to 18.8 s, always longer than the timer's watchdog takes. */
enum { IWDG_BY_256 = 6, IWDG_TICKS = 1250 };

enum { PATIENCE = 50000 };

int stm32_wait(uint32_t address, uint32_t mask, uint32_t value)
{
    for (int i = 0; i < PATIENCE; i++) {
        if ((CORTEX_REGISTER(address) & mask) == value) {
            return 1;
        }
    }
    return 0;
}

uint32_t stm32_cause(uint32_t rcc_csr)
{
    if (rcc_csr & (3u << 29)) { /* WWDGRSTF, IWDGRSTF */
        return BOOT_WATCHDOG;
    }
    if (rcc_csr & (1u << 28)) { /* SFTRSTF */
        return BOOT_SOFTWARE;
    }
    if (rcc_csr & (5u << 25)) { /* PORRSTF, BORRSTF */
        return BOOT_POWER;
    }
    return rcc_csr & (1u << 26) ? BOOT_PIN : BOOT_UNKNOWN; /* PINRSTF comes with all others */
}

void stm32_watchdog_start(void)
{
    IWDG_KR = KEY_START;
    IWDG_KR = KEY_UNLOCK;
    IWDG_PR = IWDG_BY_256;
    IWDG_RLR = IWDG_TICKS;
    (void)stm32_wait(IWDG_SR, 3, 0);
    IWDG_KR = KEY_RELOAD;
}

void board_alive(void)
{
    cortex_alive();
    IWDG_KR = KEY_RELOAD;
}
