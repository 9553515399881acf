#include "cortex_m.h"

#include "boot.h"
#include "line.h"
#include "memory_map.h"
#include "stack.h"

#define SYST_CSR CORTEX_REGISTER(0xe000e010) /* B3.3.3 */
#define SYST_RVR CORTEX_REGISTER(0xe000e014) /* B3.3.4 */
#define SYST_CVR CORTEX_REGISTER(0xe000e018) /* B3.3.5 */
#define NVIC_ISER(n) CORTEX_REGISTER(0xe000e100 + 4 * (n)) /* B3.4.4 */
#define NVIC_ICER(n) CORTEX_REGISTER(0xe000e180 + 4 * (n)) /* B3.4.5 */
#define NVIC_ISPR(n) CORTEX_REGISTER(0xe000e200 + 4 * (n)) /* B3.4.6 */
#define SCB_VTOR CORTEX_REGISTER(0xe000ed08)  /* B3.2.5 */
#define SCB_AIRCR CORTEX_REGISTER(0xe000ed0c) /* B3.2.6 */
#define AIRCR_KEY (UINT32_C(0x05fa) << 16)
#define AIRCR_SYSRESETREQ (1u << 2)

void cortex_reset(void);
void cortex_fault(void);
void cortex_tick(void);

/* More than any part here has. Only the line's interrupt is ever enabled. */
enum { IRQS = 96 };

typedef void (*cortex_vector)(void);

static volatile uint32_t millis;
static volatile uint32_t alive_at;

/* B1.5.3. The first word is the stack pointer at reset. */
static const struct {
    uint32_t *stack;
    cortex_vector exception[15];
    cortex_vector irq[IRQS];
} vectors __attribute__((section(".vectors"), used)) = {
    .stack = map_stack_end,
    .exception = {
        cortex_reset,
        cortex_fault, /* NMI: nobody asked for one */
        cortex_fault, cortex_fault, cortex_fault, cortex_fault, /* hard .. usage */
        NULL, NULL, NULL, NULL,
        cortex_fault, cortex_fault, /* SVC, debug monitor */
        NULL,
        cortex_fault, /* PendSV */
        cortex_tick
    },
    .irq = {[0 ... IRQS - 1] = line_interrupt}
};

/* --- start ---------------------------------------------------------------------------- */

static void copy_and_clear(void)
{
    const volatile uint32_t *from = map_data_load;

    for (volatile uint32_t *to = map_data; to != map_data_end; to++) {
        *to = *from++;
    }
    for (volatile uint32_t *to = map_bss; to != map_bss_end; to++) {
        *to = 0;
    }
}

void cortex_reset(void)
{
    /* A boot loader may have left its own vectors, its timer and its interrupts on; a tick
     * before .bss is cleared would find a watchdog that is long due. */
    __asm__ volatile("cpsid i" ::: "memory");
    SYST_CSR = 0;
    SCB_VTOR = (uint32_t)(uintptr_t)&vectors;
    for (uint32_t n = 0; n < IRQS / 32; n++) {
        NVIC_ICER(n) = UINT32_MAX;
    }
    /* This frame and that of stack_paint lie above what is painted. */
    stack_paint((uintptr_t)map_stack, (uintptr_t)__builtin_frame_address(0) - 64);
    copy_and_clear();
    firmware_run();
}

/* The firmware stopped by itself, which is told as the watchdog's case. */
__attribute__((used)) static void fault_is_told(void) { cortex_reset_board(BOOT_WATCHDOG); }

/* A fault, a stack that ran over: there may be none, so it begins again at its end. */
__attribute__((naked)) void cortex_fault(void)
{
    __asm__ volatile("ldr r0, =map_stack_end\n\t"
                     "msr msp, r0\n\t"
                     "bl fault_is_told\n\t"
                     ".ltorg");
}

/* --- time and sleep -------------------------------------------------------------------- */

void cortex_tick(void)
{
    const uint32_t now = millis + 1;

    millis = now;
    if (now - alive_at > BOARD_WEDGED_MS) {
        cortex_reset_board(BOOT_WATCHDOG);
    }
}

void cortex_start_timer(uint32_t core_hz)
{
    SYST_RVR = core_hz / 1000 - 1;
    SYST_CVR = 0;
    SYST_CSR = 7; /* core clock, interrupt, on */
    __asm__ volatile("cpsie i" ::: "memory"); /* a boot loader may have masked them */
}

uint32_t board_millis(void) { return millis; }

void cortex_alive(void) { alive_at = millis; }

void board_idle(uint32_t ms)
{
    if (ms == 0) {
        return;
    }
    /* With interrupts masked none slips in between the look and the sleep, yet a pending
     * one ends it (B1.5.19). The timer does so each millisecond. */
    __asm__ volatile("cpsid i" ::: "memory");
    if (ring_is_empty(&line_rx)) {
        __asm__ volatile("dsb\n\twfi" ::: "memory");
    }
    __asm__ volatile("cpsie i" ::: "memory");
}

/* --- interrupts and reset --------------------------------------------------------------- */

void cortex_irq_enable(uint32_t irq) { NVIC_ISER(irq / 32) = 1u << (irq % 32); }

void cortex_irq_pend(uint32_t irq) { NVIC_ISPR(irq / 32) = 1u << (irq % 32); }

void cortex_reset_board(uint32_t cause)
{
    boot_note(cause);
    __asm__ volatile("dsb" ::: "memory");
    SCB_AIRCR = AIRCR_KEY | AIRCR_SYSRESETREQ;
    for (;;) {
        __asm__ volatile("dsb" ::: "memory");
    }
}

void board_reboot(uint32_t how)
{
    while (how == REBOOT_WEDGE) {
        __asm__ volatile("nop");
    }
    cortex_reset_board(BOOT_SOFTWARE);
}

/* --- facts ------------------------------------------------------------------------------ */

void board_stack(uint32_t *size, uint32_t *used)
{
    *size = (uint32_t)((uintptr_t)map_stack_end - (uintptr_t)map_stack);
    *used = *size - stack_untouched((uintptr_t)map_stack, *size);
}

void cortex_facts(board_facts *facts, uint32_t hardware_cause)
{
    *facts = (board_facts){
        .name = BOARD_NAME,
        .payload = BOARD_PAYLOAD,
        .window = BOARD_WINDOW,
        .memory = map_free,
        .memory_bytes = (uintptr_t)map_free_end - (uintptr_t)map_free,
        .features = FEATURE_WATCHDOG | FEATURE_STACK
    };
    boot_begin(facts, hardware_cause);
}
