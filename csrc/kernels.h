/* The arithmetic that dominates the time, one table of pointers per instruction
 * set. Every table computes the same integers: matvec_scalar.c says which.
 */
#ifndef GLE_KERNELS_H
#define GLE_KERNELS_H

#include <stdint.h>

#include "analog.h"
#include "gle.h"
#include "rng.h"

/* Vectors of streams: columns are a multiple of this, or 1. */
#define GLE_LANES 16

/* Tiles of AMX take packed factors in blocks of so many, where sums have so many products. */
#define GLE_DEEP 64
#define GLE_DEEP_LEAST 128

/* A factor has 14 significant bits, so this many products fit an int32. */
#define GLE_EXACT 32

/* Of one stream, x[m] of product_one, learn_one and learn stands in `stride` numbers of which
 * those behind the m-th are 0: kernels read whole vectors of it, and rely on the zeros. So do
 * rates and inputs as a layer keeps them, and what gle_hear gathers. Rows of weights likewise. */

/* The neurons of one layer, see neurons.h. */
typedef struct gle_neuron_job gle_neuron_job;

/* How stored weights are updated. */
typedef struct {
    int32_t limit, most;  /* largest stored weight, largest update */
    int32_t stochastic;
    gle_key key, key_noise;
    gle_noise noise;
} gle_update;

/* From what is stored to what the array sees, see analog.h. */
typedef struct {
    int32_t w_shift, w_left;
} gle_seeing;

/* How a rate is read out. */
typedef struct {
    int32_t gain, offset; /* Q13 of the rate; 1/8192 LSB of the converter */
    int32_t drop, max;    /* bits of the rate that it loses; the largest code */
    int32_t narrow;       /* all of it fits int32 */
    gle_noise noise;
    gle_key key;
} gle_reader;

/* Of a row of updates: gradients not 0, those that rounded to nothing, weights clipped. */
typedef struct {
    uint32_t asked, under, clipped;
} gle_update_count;

/* A whole layer learns; its errors are in the layer. */
typedef struct {
    const gle_update *how;
    const int16_t *below;  /* [m], for one stream */
    const int16_t *turned; /* for a batch, as pack_turned leaves them */
    int32_t columns, streams; /* streams of the batch; beyond them errors are 0 */
    int32_t drop;          /* bits of the sum over the batch that a gradient has not */
    int32_t shift;         /* from a gradient to stored weights, before that of a row */
    int32_t *sums;         /* [2 n]: the kernel leaves sums of e here, in the first n */
    int32_t first;         /* number of the first row, where others learn those before: of 16s */
} gle_learning;

struct gle_layer;
struct gle_rule_kernels;

/* Shifts of rows beside that of their layer, at most. */
#define GLE_ROWS_MOST 7

/* Whether sums whose |w| add up to `most`, times `largest` at most, fit int32 with half of what a
 * shift drops. `rows`: or NULL, as of a product. */
static inline int32_t gle_sums_fit(int32_t most, int32_t largest, int32_t shift,
                                   const uint32_t *rows)
{
    const int32_t by = shift + (rows != NULL ? GLE_ROWS_MOST : 0);
    const int64_t half = by > 0 ? INT64_C(1) << (by - 1) : 0;

    return (int64_t)most * largest + half <= INT32_MAX;
}

/* Batch products with what a layer has stored, which becomes what the array sees on the way, so
 * that there is nothing to copy. `reads`: whether they serve this layer. `pairs`: as pack_pairs
 * leaves the m rates, or the n errors of which `count` neurons from `first` on are told; none is
 * larger than `largest`. Beyond the `streams` of the batch `forward` may leave any sums, up to
 * GLE_SUM_MAX, and `back` leaves 0 where errors are 0. */
typedef struct {
    int32_t (*reads)(const struct gle_layer *layer);
    void (*forward)(int32_t *out, const struct gle_layer *layer, const int16_t *pairs,
                    int32_t columns, int32_t streams, int32_t shift, int32_t largest);
    void (*back)(int32_t *out, const struct gle_layer *layer, int32_t first, int32_t count,
                 const int16_t *pairs, int32_t columns, int32_t streams, int32_t shift,
                 int32_t largest);
    int32_t always; /* weights that stay are better not copied either */
} gle_stored_kernels;

typedef struct gle_kernels {
    const char *name;

    /* out[n][columns] = round(w[n][m] x[m][columns] * 2^-shift), clipped to GLE_SUM_MAX.
     * x comes in pairs of neurons: x[j/2][column][j%2]; m is padded to even with zeros.
     * `rows`: what is added to each row's shift, or NULL. `fits`: gle_sums_fit. */
    void (*product)(int32_t *out, const int16_t *w, int32_t stride, int32_t n, int32_t m,
                    const int16_t *pairs, int32_t columns, int32_t shift, const uint32_t *rows,
                    int32_t fits);

    /* out[rows][stride] = round(e[rows][columns] r^T[columns][m] * 2^-shift), m <= stride.
     * r comes turned, in pairs of streams: r[column/2][j][column%2], rows of `stride`. */
    void (*outer)(int32_t *out, const int16_t *e, int32_t rows, const int16_t *turned,
                  int32_t stride, int32_t m, int32_t columns, int32_t shift);

    /* The layouts that the two above read. pack_pairs returns the largest |x|, or more. A table
     * may have others of its own, which need more room: pairs[n][columns], of neurons padded to
     * even, and from GLE_DEEP_LEAST on to GLE_DEEP; turned[columns][stride], of streams padded
     * to GLE_DEEP where n is GLE_DEEP_LEAST and more. */
    int32_t (*pack_pairs)(int16_t *pairs, const int16_t *x, int32_t n, int32_t columns);
    void (*pack_turned)(int16_t *turned, const int16_t *x, int32_t n, int32_t stride,
                        int32_t columns);

    /* Learn: w[m] += round(gradient[m] * 2^-shift), see update.inc; `root`: the row's first of
     * gle_rng_root, of which gle_rng_roots(m) are its own. */
    void (*update)(int16_t *w, const int32_t *gradient, int32_t m, const gle_update *how,
                   int32_t shift, uint32_t root, gle_update_count *count);
    /* Updates vary from one to the next: rows[count][m] += rows[count][m] noise, at most four
     * from a fourth on, see update.inc. */
    void (*vary)(int32_t *rows, int32_t stride, int32_t count, int32_t m, const gle_update *how,
                 uint32_t first);

    /* One stream: out[n] = W x, and W^T of the layer's own errors; see matvec_scalar.c. */
    void (*product_one)(int32_t *out, const struct gle_layer *layer, const int16_t *x,
                        int32_t shift);
    void (*product_one_back)(int32_t *out, const struct gle_layer *layer, int32_t shift);
    /* w[m] += round(e x[m] * 2^-shift) */
    void (*learn_one)(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                      int32_t shift, uint32_t root, gle_update_count *count);

    /* outer and update, or learn_one, of all rows at once: 0 where it cannot and has changed
     * nothing. NULL: never can. */
    int32_t (*learn)(struct gle_layer *layer, const gle_learning *job, gle_update_count *count);

    /* seen[m] from w[m], see see.inc. */
    int32_t (*see)(int16_t *seen, const int16_t *w, int32_t m, const gle_seeing *how,
                   const uint32_t *gains, int32_t *columns);

    /* to[count] from r[count], neuron i in streams from `stream` on, see read_out.inc. */
    uint32_t (*read_out)(int32_t *to, const int16_t *r, int32_t count, const gle_reader *how,
                         uint32_t stream, int32_t i);

    /* Transposed copy, to[m][stride_t] = from[n][stride]; may read rows to a multiple of 8, and
     * put 0 behind what it writes up to one. */
    void (*transpose)(int16_t *to, const int16_t *from, int32_t n, int32_t m, int32_t stride,
                      int32_t stride_t);

    void (*neurons)(const gle_neuron_job *job);
    const struct gle_rule_kernels *rules; /* learner.h */

    /* bias[n] += round(sums[n] * 2^-shift) at random, and the target error of cross entropy for
     * a batch. Both return 0 where they cannot and have changed nothing.
     * NULL: never can. */
    int32_t (*learn_biases)(struct gle_layer *layer, const int32_t *sums, int32_t shift,
                            gle_key key);
    int32_t (*target_error)(const gle_chip *chip, const struct gle_layer *top,
                            const int16_t *labels, int32_t *above);
    const gle_stored_kernels *stored; /* NULL: all products are of copies */
} gle_kernels;

/* Whether products with a layer's weights, of several streams, can take what is stored. */
#define GLE_READS_STORED(kernels, layer) \
    ((kernels)->stored != NULL && (kernels)->stored->reads(layer))

extern const gle_kernels gle_kernels_scalar;
#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)
extern const gle_kernels gle_kernels_avx2;
extern const gle_kernels gle_kernels_vnni;
extern const gle_kernels gle_kernels_amx; /* where the system lets this process use tiles */

int32_t gle_pairs_avx2(int16_t *pairs, const int16_t *x, int32_t n, int32_t columns);
void gle_turned_avx2(int16_t *turned, const int16_t *x, int32_t n, int32_t stride,
                     int32_t columns);
void gle_turn_avx2(int16_t *to, const int16_t *from, int32_t n, int32_t m, int32_t stride,
                   int32_t stride_t);
#endif
#if defined(__aarch64__) && !defined(GLE_SCALAR_ONLY)
extern const gle_kernels gle_kernels_neon;
#endif

/* In plain C, for all that have no vectors for it. */
void gle_product_one(int32_t *out, const struct gle_layer *layer, const int16_t *x,
                     int32_t shift);
void gle_product_one_back(int32_t *out, const struct gle_layer *layer, int32_t shift);
void gle_learn_one(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                   int32_t shift, uint32_t root, gle_update_count *count);

#endif
