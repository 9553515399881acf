/* Several threads for the kernels of one chip: each takes some rows of a layer.
 *
 * What a row of sums, neurons or weights becomes depends on no other row, and what is summed
 * over rows (digests, counters) is summed in integers: the bits are those of one thread,
 * whatever their number.
 */
#ifndef GLE_HOST_CREW_H
#define GLE_HOST_CREW_H

#include "../chip.h"

enum { CREW_MOST = 8 };

/* Piece `part` of `parts` of something. */
typedef void crew_work(void *what, int32_t part, int32_t parts);

typedef struct crew crew;

/* From here to crew_end the chip's kernels share their work, where a piece is worth the wait for
 * the others; with fewer than 0 threads, as many, and all that can be shared. NULL, and nothing
 * has changed, where nothing is worth it, or this system has no threads or none is left. One at
 * a time in a thread. */
crew *crew_begin(gle_chip *chip, int32_t threads);
void crew_end(crew *c, gle_chip *chip);

/* All pieces, one in this thread; returns when all are done. `size`: what there is to do, in
 * multiply-accumulates or what takes as long; where it is too little, or no crew has begun in
 * this thread, there is one piece. */
void crew_share(int64_t size, crew_work *work, void *what);

/* First row of a piece of n rows; that of the one behind the last is n. */
int32_t crew_row(int32_t n, int32_t part, int32_t parts);

#endif
