/* Which instructions of the core a piece of work executes, and how often: the trap flag makes the
 * processor stop behind each of them (Intel SDM vol. 3, 17.3.1.4). Some microseconds each, tens in
 * a virtual machine. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* REG_RIP */
#endif
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <ucontext.h>

#if defined(__x86_64__)

static uint32_t *bench_counts;
static uintptr_t bench_low, bench_high;
static struct sigaction bench_before;

static void stopped(int signal, siginfo_t *info, void *context)
{
    const ucontext_t *at = context;
    const uintptr_t next = (uintptr_t)at->uc_mcontext.gregs[REG_RIP];

    (void)signal;
    (void)info;
    if (next >= bench_low && next < bench_high) {
        bench_counts[next - bench_low]++;
    }
}

#define FLAGS(change)                                                                \
    __asm__ volatile("lea -128(%%rsp), %%rsp\n\tpushfq\n\t" change "\n\tpopfq\n\t" \
                     "lea 128(%%rsp), %%rsp" ::: "memory", "cc")

/* counts[high - low]: of the instructions from `low` on that this thread executes from now on. */
int32_t bench_count_on(uint32_t *counts, uint64_t low, uint64_t high)
{
    struct sigaction action = {0};

    bench_counts = counts;
    bench_low = (uintptr_t)low;
    bench_high = (uintptr_t)high;
    action.sa_sigaction = stopped;
    action.sa_flags = SA_SIGINFO;
    if (sigaction(SIGTRAP, &action, &bench_before) != 0) {
        return 0;
    }
    FLAGS("orq $0x100, (%%rsp)");
    return 1;
}

void bench_count_off(void)
{
    FLAGS("andq $~0x100, (%%rsp)");
    sigaction(SIGTRAP, &bench_before, NULL);
}

#else

int32_t bench_count_on(uint32_t *counts, uint64_t low, uint64_t high)
{
    (void)counts;
    (void)low;
    (void)high;
    return 0;
}

void bench_count_off(void) {}

#endif
