#include "riscv.h"

#include "boot.h"
#include "line.h"
#include "memory_map.h"
#include "stack.h"

#define MTIMECMP_LOW RISCV_REGISTER(0x02004000)
#define MTIMECMP_HIGH RISCV_REGISTER(0x02004004)
#define MTIME_LOW RISCV_REGISTER(0x0200bff8)
#define MTIME_HIGH RISCV_REGISTER(0x0200bffc)

#define PLIC_PRIORITY(source) RISCV_REGISTER(0x0c000000 + 4 * (source))
#define PLIC_ENABLE RISCV_REGISTER(0x0c002000) /* sources 0 to 31 */
#define PLIC_THRESHOLD RISCV_REGISTER(0x0c200000)
#define PLIC_CLAIM RISCV_REGISTER(0x0c200004)

#define MSTATUS_MIE 8u
#define MIE_MTIE (1u << 7)
#define MIE_MEIE (1u << 11)
#define CAUSE_INTERRUPT (1u << 31)
enum { CAUSE_TIMER = 7, CAUSE_EXTERNAL = 11 };

/* The timer's interrupt comes this often a second: so late may a deadline be. */
enum { TICKS_PER_SECOND = 128 };

/* A millisecond is ticks * ms_factor / 2^MS_SHIFT: no division, which costs hundreds of
 * instructions here. Exact at 32768 Hz; 64 bits overflow after eight years. */
enum { MS_SHIFT = 26 };

static uint32_t timer_hz;
static uint32_t ms_factor;
static volatile uint32_t alive_at; /* of mtime's lower half */
static uint32_t wedged_ticks;

void riscv_reset(void);
void riscv_trap(void);
_Noreturn void riscv_start(void);

/* --- start ---------------------------------------------------------------------------- */

void riscv_reset(void)
{
    const volatile uint32_t *from = map_data_load;

    /* This frame and that of stack_paint lie above what is painted. */
    stack_paint((uintptr_t)map_stack, (uintptr_t)__builtin_frame_address(0) - 96);
    for (volatile uint32_t *to = map_data; to != map_data_end; to++) {
        *to = *from++;
    }
    for (volatile uint32_t *to = map_bss; to != map_bss_end; to++) {
        *to = 0;
    }
    firmware_run();
}

static _Noreturn void restart(uint32_t cause)
{
    boot_note(cause);
    riscv_part_reset();
    riscv_start();
}

void board_reboot(uint32_t how)
{
    while (how == REBOOT_WEDGE) {
        __asm__ volatile("nop");
    }
    restart(BOOT_SOFTWARE);
}

/* --- time ----------------------------------------------------------------------------- */

static uint64_t ticks(void)
{
    uint32_t high;
    uint32_t low;

    do { /* the lower half may wrap between the two reads */
        high = MTIME_HIGH;
        low = MTIME_LOW;
    } while (high != MTIME_HIGH);
    return (uint64_t)high << 32 | low;
}

static void set_alarm(void)
{
    const uint64_t at = ticks() + timer_hz / TICKS_PER_SECOND;

    MTIMECMP_HIGH = UINT32_MAX; /* no alarm in between */
    MTIMECMP_LOW = (uint32_t)at;
    MTIMECMP_HIGH = (uint32_t)(at >> 32);
}

uint32_t board_millis(void)
{
    return (uint32_t)(ticks() * ms_factor >> MS_SHIFT);
}

void riscv_alive(void) { alive_at = MTIME_LOW; }

void riscv_start_timer(uint32_t hz)
{
    timer_hz = hz;
    ms_factor = (uint32_t)((UINT64_C(1000) << MS_SHIFT) / hz);
    wedged_ticks = hz / 1000 * BOARD_WEDGED_MS;
    riscv_alive();
    set_alarm();
    PLIC_THRESHOLD = 0;
    __asm__ volatile("csrs mie, %0" ::"r"(MIE_MTIE | MIE_MEIE));
    __asm__ volatile("csrs mstatus, %0" ::"r"(MSTATUS_MIE));
}

void board_idle(uint32_t ms)
{
    if (ms == 0) {
        return;
    }
    /* With interrupts masked none slips in between the look and the sleep, yet a pending
     * one ends it (3.2.3). The timer does so often enough. */
    __asm__ volatile("csrc mstatus, %0" ::"r"(MSTATUS_MIE) : "memory");
    if (ring_is_empty(&line_rx)) {
        __asm__ volatile("wfi" ::: "memory");
    }
    __asm__ volatile("csrs mstatus, %0" ::"r"(MSTATUS_MIE) : "memory");
}

/* --- traps ---------------------------------------------------------------------------- */

void riscv_irq_enable(uint32_t source)
{
    PLIC_PRIORITY(source) = 1;
    PLIC_ENABLE |= 1u << source;
}

__attribute__((interrupt("machine"), aligned(4))) void riscv_trap(void)
{
    uint32_t cause;

    __asm__ volatile("csrr %0, mcause" : "=r"(cause));
    if (cause == (CAUSE_INTERRUPT | CAUSE_TIMER)) {
        set_alarm();
        if (MTIME_LOW - alive_at > wedged_ticks) {
            restart(BOOT_WATCHDOG);
        }
    } else if (cause == (CAUSE_INTERRUPT | CAUSE_EXTERNAL)) {
        const uint32_t source = PLIC_CLAIM;
        line_interrupt();
        PLIC_CLAIM = source;
    } else {
        restart(BOOT_WATCHDOG); /* a fault: the firmware stopped by itself */
    }
}

/* --- facts ---------------------------------------------------------------------------- */

void board_stack(uint32_t *size, uint32_t *used)
{
    *size = (uint32_t)((uintptr_t)map_stack_end - (uintptr_t)map_stack);
    *used = *size - stack_untouched((uintptr_t)map_stack, *size);
}

void riscv_facts(board_facts *facts, uint32_t hardware_cause)
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
