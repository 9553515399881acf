/* What updates of rows have in common, with the DSP extension. */
#ifndef GLE_SINGLE_DSP_ROWS_H
#define GLE_SINGLE_DSP_ROWS_H

#include "single_dsp.h"

enum { ONES = 0x00010001 };

/* Of counts in halves. */
static uint32_t both_halves(uint32_t halves) { return (halves & 0xffffu) + (halves >> 16); }

/* What follows clips nothing, in assembly, as the compiler loads word by word. Rows and x are
 * padded to pairs with zeros, which learn nothing. */

/* A row that learns, of a chunk of rows, from a piece of the inputs to the next. */
typedef struct {
    int32_t own; /* e, shifted for its kernel */
    int16_t *w;
    union {
        int32_t nothing;    /* nearest: only an |x| up to this may give no update */
        const uint32_t *up; /* at random: words */
    } by;
} planned;

/* Zeros among four updates: t is 1 where one of the first two is 0, d becomes 0xfffe where one
 * of the others is 0, else 0xffff, and the sum of what bytes differ by is 1020 less the zeros. */
#define ZEROS_FIRST(t, d) "uqsub16 " t ", %[ones], " d "\n\t"
#define ZEROS_SECOND(t, d)                                 \
    "uqadd16 " d ", " d ", %[less]\n\t"                    \
    "usada8 %[sum], " t ", " d ", %[sum]\n\t"
/* Where there are but two. */
#define ZEROS_NO_SECOND(t, d) "mov " d ", #-1\n\t" ZEROS_SECOND(t, d)
enum { FULL = 1020, LESS = (int32_t)0xfffefffe };

#define LOAD "ldmia %[w], {r4-r6, r8}\n\t"
#define STORE "stmia %[w]!, {r4-r6, r8}\n\t"
#define TIMES_8(eight) eight eight eight eight eight eight eight eight

/* PIECE inputs, or what is left of them, an even number. Of those that are not 0 `first` is the
 * smallest |x|, and none but first and second is below `others`, so that up to two updates that
 * are 0 need no counting. A power of two, where a tie rounds to 0 or does not, is never known. */
enum { PIECE = 64 };
typedef struct {
    int32_t first, second, others;
    uint32_t zeros; /* what bytes of all fours add up to, less inputs that are 0, padding too */
} piece;

#endif
