/* The most int16 multiply-accumulates that AVX2 can do on this core: pmaddwd and an add
 * into int32, 12 independent sums, operands in registers, no memory touched.
 *
 * This is the work of a register tile (csrc/matvec_avx2.c) with everything else taken
 * away: loads, spills, rounding. Instructions that fuse the two (VNNI) are left out. In
 * assembly, since compilers move what does not change out of the loop, or sums to the stack.
 */
#include <stdint.h>

#if defined(__x86_64__)

#define MAC(sum, product) \
    "vpmaddwd %%ymm12, %%ymm12, %%ymm" product "\n\t" \
    "vpaddd %%ymm" product ", %%ymm" sum ", %%ymm" sum "\n\t"

enum { SUMS = 12, LANES = 16 };

int32_t bench_peak_macs_per_round(void)
{
    return __builtin_cpu_supports("avx2") ? SUMS * LANES : 0;
}

/* rounds > 0; only where AVX2 is. */
void bench_peak_run(int64_t rounds)
{
    __asm__ volatile(
        "vpcmpeqd %%ymm12, %%ymm12, %%ymm12\n\t"
        ".p2align 5\n"
        "1:\n\t"
        MAC("0", "13") MAC("1", "14") MAC("2", "15") MAC("3", "13") MAC("4", "14") MAC("5", "15")
        MAC("6", "13") MAC("7", "14") MAC("8", "15") MAC("9", "13") MAC("10", "14") MAC("11", "15")
        "dec %0\n\t"
        "jnz 1b\n\t"
        "vzeroupper"
        : "+r"(rounds)
        :
        : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
          "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

#else

int32_t bench_peak_macs_per_round(void) { return 0; }
void bench_peak_run(int64_t rounds) { (void)rounds; }

#endif
