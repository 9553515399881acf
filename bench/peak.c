/* What bounds a kernel from above: arithmetic and memory.
 *
 * bench_peak_run: the most int16 multiply-accumulates that this core can do with the
 * instructions of one kernel table: 12 independent int32 sums, operands in registers, no memory touched.
 *
 * This is the work of a register tile (csrc/matvec_avx2.c, matvec_vnni.c) with everything
 * else taken away: loads, spills, rounding. In assembly, since compilers move out of the
 * loop what does not change, or sums to the stack.
 *
 * bench_read, bench_copy: what a core can read from a buffer of some size, or copy within
 * it, with nothing done to it: the roof of a kernel that touches each weight once.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

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

#define READ(reg, width) \
    "vmovdqu 0*" width "(%0), %%" reg "0\n\t" \
    "vmovdqu 1*" width "(%0), %%" reg "1\n\t" \
    "vmovdqu 2*" width "(%0), %%" reg "2\n\t" \
    "vmovdqu 3*" width "(%0), %%" reg "3\n\t"
#define WRITE(reg, width) \
    "vmovdqu %%" reg "0, 0*" width "(%1)\n\t" \
    "vmovdqu %%" reg "1, 1*" width "(%1)\n\t" \
    "vmovdqu %%" reg "2, 2*" width "(%1)\n\t" \
    "vmovdqu %%" reg "3, 3*" width "(%1)\n\t"

/* bytes: a multiple of 256, which is what one turn takes. */
void bench_read(const char *from, size_t bytes, int64_t rounds)
{
    const int wide = __builtin_cpu_supports("avx512f");

    for (; rounds > 0; rounds--) {
        for (const char *p = from; p < from + bytes; p += 256) {
            if (wide) {
                __asm__ volatile("vmovdqu64 (%0), %%zmm0\n\tvmovdqu64 64(%0), %%zmm1\n\t"
                                 "vmovdqu64 128(%0), %%zmm2\n\tvmovdqu64 192(%0), %%zmm3"
                                 : : "r"(p) : "xmm0", "xmm1", "xmm2", "xmm3");
            } else {
                const char *half = p + 128;
                __asm__ volatile(READ("ymm", "32") : : "r"(p) : "xmm0", "xmm1", "xmm2", "xmm3");
                __asm__ volatile(READ("ymm", "32") : : "r"(half)
                                 : "xmm0", "xmm1", "xmm2", "xmm3");
            }
        }
    }
    __asm__ volatile("vzeroupper" : : : "xmm0");
}

/* From the first half of `both` to the second; bytes: of each half, a multiple of 256. */
void bench_copy(char *both, size_t bytes, int64_t rounds)
{
    const int wide = __builtin_cpu_supports("avx512f");

    for (; rounds > 0; rounds--) {
        for (size_t k = 0; k < bytes; k += 256) {
            const char *from = both + k;
            char *to = both + bytes + k;
            if (wide) {
                __asm__ volatile("vmovdqu64 (%0), %%zmm0\n\tvmovdqu64 64(%0), %%zmm1\n\t"
                                 "vmovdqu64 128(%0), %%zmm2\n\tvmovdqu64 192(%0), %%zmm3\n\t"
                                 "vmovdqu64 %%zmm0, (%1)\n\tvmovdqu64 %%zmm1, 64(%1)\n\t"
                                 "vmovdqu64 %%zmm2, 128(%1)\n\tvmovdqu64 %%zmm3, 192(%1)"
                                 : : "r"(from), "r"(to)
                                 : "xmm0", "xmm1", "xmm2", "xmm3", "memory");
            } else {
                __asm__ volatile(READ("ymm", "32") WRITE("ymm", "32") : : "r"(from), "r"(to)
                                 : "xmm0", "xmm1", "xmm2", "xmm3", "memory");
                __asm__ volatile(READ("ymm", "32") WRITE("ymm", "32")
                                 : : "r"(from + 128), "r"(to + 128)
                                 : "xmm0", "xmm1", "xmm2", "xmm3", "memory");
            }
        }
    }
    __asm__ volatile("vzeroupper" : : : "xmm0");
}

#else

void bench_read(const char *from, size_t bytes, int64_t rounds)
{
    volatile uint64_t sink;
    for (; rounds > 0; rounds--) {
        uint64_t all = 0, one;
        for (size_t k = 0; k < bytes; k += sizeof one) {
            memcpy(&one, from + k, sizeof one);
            all ^= one;
        }
        sink = all;
    }
    (void)sink;
}

void bench_copy(char *both, size_t bytes, int64_t rounds)
{
    for (; rounds > 0; rounds--) {
        memcpy(both + bytes, both, bytes);
    }
}

int32_t bench_peak_macs(int32_t vnni) { return 0 * vnni; }
void bench_peak_run(int32_t vnni, int64_t rounds) { (void)vnni, (void)rounds; }

#endif
