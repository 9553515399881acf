/* SiFive HiFive1: FE310-G000, UART0 on the board's USB. Sections are those of the SiFive
 * FE310-G000 Manual v3p2. */
#include "line.h"
#include "riscv.h"

/* Clock generation, chapter 6 */
#define HFXOSCCFG 0x10008004u
#define PLLCFG 0x10008008u
#define PLLOUTDIV 0x1000800cu
#define OSC_ENABLE (1u << 30)
#define OSC_READY (1u << 31)
/* 16 MHz / 2 (R) * 64 (F) / 2 (Q) = 256 MHz; the flash runs at an eighth of it. */
#define PLL_R_F_Q (1u | 31u << 4 | 1u << 10)
#define PLL_SELECT (1u << 16)
#define PLL_FROM_CRYSTAL (1u << 17)
#define PLL_LOCK (1u << 31)
#define PLL_OUT_BY_1 (1u << 8)

/* Always-on domain, chapters 13 to 15 */
#define AON 0x10000000u
#define WDOGCFG RISCV_REGISTER(AON + 0x000)
#define WDOG_SCALE_8 3u
#define WDOG_RESETS (1u << 8)
#define WDOG_ALWAYS (1u << 12)
#define WDOGFEED RISCV_REGISTER(AON + 0x018)
#define WDOG_FOOD 0x0d09f00du
#define WDOGKEY RISCV_REGISTER(AON + 0x01c)
#define WDOG_UNLOCK 0x0051f15eu
#define WDOGCMP RISCV_REGISTER(AON + 0x020)
#define BACKUP15 RISCV_REGISTER(AON + 0x0bc)
#define PMUCAUSE RISCV_REGISTER(AON + 0x144)

/* Pins, chapter 17; UART, chapter 18; it is source 3 of the PLIC, section 10.1 */
#define GPIO_IOF_EN RISCV_REGISTER(0x10012038)
#define GPIO_IOF_SEL RISCV_REGISTER(0x1001203c)
#define UART0_PINS (3u << 16)
#define UART_TXDATA RISCV_REGISTER(0x10013000)
#define UART_RXDATA RISCV_REGISTER(0x10013004)
#define UART_TXCTRL RISCV_REGISTER(0x10013008)
#define UART_RXCTRL RISCV_REGISTER(0x1001300c)
#define UART_IE RISCV_REGISTER(0x10013010)
#define UART_DIV RISCV_REGISTER(0x10013018)
#define UART_FULL_OR_EMPTY (1u << 31)
#define UART_ENABLE 1u
#define UART_WATERMARK_1 (1u << 16) /* transmit: below one byte, that is, empty */
#define UART_IE_TX 1u
#define UART_IE_RX 2u
enum { UART0_SOURCE = 3 };

enum { PATIENCE = 100000, BURST = 32 };

#define PLL_HZ 256000000u
#define RING_OSCILLATOR_HZ 13800000u /* as it is after reset, uncalibrated */
#define RTC_HZ 32768u
#define QEMU_MTIME_HZ 10000000u

/* 10 s in 32768ths, by 8. */
#define WDOG_TICKS 40960u

static int has_watchdog;

static int wait_for(uint32_t address, uint32_t bit)
{
    for (int i = 0; i < PATIENCE; i++) {
        if (RISCV_REGISTER(address) & bit) {
            return 1;
        }
    }
    return 0;
}

/* The internal oscillator is only good to a third, which no UART can bear: this board
 * runs from its crystal. Returns Hz. */
static uint32_t start_clock(void)
{
    RISCV_REGISTER(HFXOSCCFG) = OSC_ENABLE;
    if (!wait_for(HFXOSCCFG, OSC_READY)) {
        return RING_OSCILLATOR_HZ;
    }
    RISCV_REGISTER(PLLOUTDIV) = PLL_OUT_BY_1;
    RISCV_REGISTER(PLLCFG) = PLL_FROM_CRYSTAL | PLL_R_F_Q;
    /* The lock means nothing in its first 100 us (section 6.5): 1400 cycles of at least
     * two instructions. */
    for (int i = 0; i < 1400; i++) {
        __asm__ volatile("nop");
    }
    if (!wait_for(PLLCFG, PLL_LOCK)) {
        return RING_OSCILLATOR_HZ;
    }
    RISCV_REGISTER(PLLCFG) = PLL_FROM_CRYSTAL | PLL_R_F_Q | PLL_SELECT;
    return PLL_HZ;
}

static void watchdog_write(volatile uint32_t *to, uint32_t value)
{
    WDOGKEY = WDOG_UNLOCK; /* for one write */
    *to = value;
}

static void start_watchdog(void)
{
    watchdog_write(&WDOGCMP, WDOG_TICKS);
    watchdog_write(&WDOGFEED, WDOG_FOOD);
    watchdog_write(&WDOGCFG, WDOG_SCALE_8 | WDOG_RESETS | WDOG_ALWAYS);
    has_watchdog = (WDOGCFG & WDOG_RESETS) != 0;
}

/* QEMU has no always-on domain with a memory, and an mtime of another rate. */
static uint32_t mtime_hz(void)
{
    BACKUP15 = WDOG_FOOD;
    return BACKUP15 == WDOG_FOOD ? RTC_HZ : QEMU_MTIME_HZ;
}

static void start_uart(uint32_t hz)
{
    GPIO_IOF_SEL &= ~UART0_PINS;
    GPIO_IOF_EN |= UART0_PINS;
    UART_DIV = (hz + BOARD_BAUD / 2) / BOARD_BAUD - 1;
    UART_TXCTRL = UART_ENABLE | UART_WATERMARK_1;
    UART_RXCTRL = UART_ENABLE;
    UART_IE = UART_IE_RX;
    riscv_irq_enable(UART0_SOURCE);
}

static uint32_t cause(uint32_t pmucause)
{
    static const uint8_t causes[4] = {BOOT_UNKNOWN, BOOT_PIN, BOOT_WATCHDOG, BOOT_UNKNOWN};
    /* 0 is power, but QEMU says so too: the memory tells better. */
    return causes[pmucause >> 8 & 3];
}

void board_init(board_facts *facts)
{
    const uint32_t hz = start_clock();

    riscv_facts(facts, cause(PMUCAUSE));
    start_uart(hz);
    start_watchdog();
    riscv_start_timer(mtime_hz());
}

void board_alive(void)
{
    riscv_alive();
    if (has_watchdog) {
        watchdog_write(&WDOGFEED, WDOG_FOOD);
    }
}

/* There is no reset register; a watchdog that is due at once is as good. */
void riscv_part_reset(void)
{
    UART_IE = 0;
    watchdog_write(&WDOGCMP, 0);
    for (int i = 0; has_watchdog && i < PATIENCE; i++) {
        __asm__ volatile("nop");
    }
}

void line_interrupt(void)
{
    uint8_t byte;

    for (int i = 0; i < BURST; i++) {
        const uint32_t data = UART_RXDATA;
        if (data & UART_FULL_OR_EMPTY) {
            break;
        }
        line_received((uint8_t)data);
    }
    while ((UART_TXDATA & UART_FULL_OR_EMPTY) == 0 && ring_take(&line_tx, &byte)) {
        UART_TXDATA = byte;
    }
    UART_IE = ring_is_empty(&line_tx) ? UART_IE_RX : UART_IE_RX | UART_IE_TX;
}

void line_kick(void) { UART_IE = UART_IE_RX | UART_IE_TX; }
