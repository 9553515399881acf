/* The most int16 multiply-accumulates that this core can do with the instructions of one
 * kernel table: 12 independent int32 sums, operands in registers, no memory touched.
 *
 * This is the work of a register tile (csrc/matvec_avx2.c, matvec_vnni.c) with everything
 * else taken away: loads, spills, rounding. In assembly, since compilers move out of the
 * loop what does not change, or sums to the stack.
 */
#include <stdint.h>

#if defined(__x86_64__)

#define TWELVE(MAC) \
    MAC("0", "13") MAC("1", "14") MAC("2", "15") MAC("3", "13") MAC("4", "14") MAC("5", "15") \
    MAC("6", "13") MAC("7", "14") MAC("8", "15") MAC("9", "13") MAC("10", "14") MAC("11", "15")

/* AVX2 multiplies and adds pairs; the sum takes an add of its own. */
#define AVX2(sum, product) \
    "vpmaddwd %%ymm12, %%ymm12, %%ymm" product "\n\t" \
    "vpaddd %%ymm" product ", %%ymm" sum ", %%ymm" sum "\n\t"

/* AVX-512 VNNI does it all in one. */
#define VNNI(sum, unused) "vpdpwssd %%zmm12, %%zmm12, %%zmm" sum "\n\t"

#define LOOP(MAC) \
    __asm__ volatile("vpxor %%xmm12, %%xmm12, %%xmm12\n\t" \
                     ".p2align 5\n" \
                     "1:\n\t" TWELVE(MAC) "dec %0\n\t" \
                     "jnz 1b\n\t" \
                     "vzeroupper" \
                     : "+r"(rounds) \
                     : \
                     : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", \
                       "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15")

/* Multiply-accumulates of one round; 0: this CPU does not have the instructions. */
int32_t bench_peak_macs(int32_t vnni)
{
    if (vnni) {
        return __builtin_cpu_supports("avx512vnni") ? 12 * 32 : 0;
    }
    return __builtin_cpu_supports("avx2") ? 12 * 16 : 0;
}

/* rounds > 0; only where bench_peak_macs is not 0. */
void bench_peak_run(int32_t vnni, int64_t rounds)
{
    if (vnni) {
        LOOP(VNNI);
    } else {
        LOOP(AVX2);
    }
}

#else

int32_t bench_peak_macs(int32_t vnni) { return 0 * vnni; }
void bench_peak_run(int32_t vnni, int64_t rounds) { (void)vnni, (void)rounds; }

#endif
