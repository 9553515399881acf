/* First instructions of a RISC-V board, after a reset and after a restart from within. */
    .section .start, "ax"
    .globl riscv_start
riscv_start:
    csrci mstatus, 8            /* no interrupts: a restart may come from anywhere */
    csrw mie, zero
    .option push
    .option norelax
    la gp, __global_pointer$
    .option pop
    la sp, map_stack_end
    la t0, riscv_trap
    csrw mtvec, t0              /* direct mode: the address is a multiple of 4 */
    csrr t0, mhartid
    bnez t0, 1f
    j riscv_reset
1:  wfi                         /* one hart does all the work */
    j 1b
