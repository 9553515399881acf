/* Inside of the chip: what chip.c, the neurons, what learns and the kernels share.
 *
 * Layout: a matrix row holds `stride` numbers, a signal [n][columns] with the
 * streams innermost. `columns` is the batch rounded up to whole vectors, or 1 for a
 * single stream, so that a board pays for nothing it does not use. Columns beyond
 * the batch have error 0 and are never counted.
 */
#ifndef GLE_CHIP_H
#define GLE_CHIP_H

#include "fixed.h"
#include "gle.h"
#include "kernels.h"
#include "rng.h"

enum { GLE_R_FRAC_LEAST = -8,
       /* of rows of weights for one stream: whole vectors where there are any, else pairs */
       GLE_PAD_ONE = GLE_ALIGN >= 64 ? 32 : 2 };

/* A prospective membrane: a state and a term that fits 2^30. */
#define GLE_UHAT_MAX (GLE_SUM_MAX + GLE_STATE_MAX)

typedef struct {
    uint32_t samples, sat_e, half_e, sat_r, peak_r, sat_w; /* half_e: above half of full scale */
} gle_window;

/* How it learns: the image's words, unpacked (learner.h). */
typedef struct {
    int32_t rule, momentum, norm, rises;
    uint32_t apply_every, rate_every;
    int32_t remembers; /* there are accumulators */
    int32_t counts;    /* the number of learning steps is a state */
} gle_learner;

/* Formats that move. */
typedef struct {
    int8_t w, r, e, v;
} gle_fracs;

enum { GLE_TOPS_HOLD = 2, GLE_NO_COPIES = -1 };

enum { GLE_OFF_ACTIVATION = 1, GLE_OFF_MEMBRANE = 2 };

typedef struct gle_layer {
    const gle_image_layer *image;
    const gle_neuron *neurons;  /* of the image, or `times` */
    gle_neuron *times;          /* [n], with GLE_LEARNS_TAU: as they were written, else NULL */
    const gle_analog *analog;   /* [n]; NULL: nothing is off, nor in the read-out */
    int32_t off;                /* some neuron has an offset or a gain: 1, or noise: 2 */
    const uint32_t *rows;       /* [n], 0 .. 7; NULL: one scale for the layer */
    const uint32_t *gains;      /* [n][gain_words]; NULL: every synapse has gain 1 */
    int32_t gain_words;         /* two gains a word */
    const uint32_t *mask;       /* see topology.h; NULL: every synapse is there */
    const uint32_t *sources;    /* NULL: a chain */
    struct gle_layer *back;     /* feedback weights as a layer's, with the errors that they
                                   multiply; NULL: the layer's own weights, transposed */
    int32_t *above;             /* [n][columns] errors heard; NULL: those of the chip serve */
    gle_fracs noted;            /* of a snapshot that is being checked */
    int32_t n, m;         /* neurons, inputs */
    int32_t first;        /* index of the first neuron in the whole network */
    int32_t stride;       /* of rows of w, seen and gradient */
    int32_t stride_t;     /* of rows of seen_t */
    int32_t w_frac, u_frac, r_frac, e_frac, v_frac;
    int32_t rate_shift;
    int32_t stale;        /* stored weights changed since `seen` was made: 1, or by learning
                             that keeps `tops` alone: GLE_TOPS_HOLD */
    int32_t most, most_t; /* of what the array sees: largest sum of |w| of a row, of a column;
                             of several streams `most` is GLE_NO_COPIES where `seen` and
                             `seen_t` are not what it sees */

    int16_t *w;           /* stored */
    int16_t *seen;        /* what the array sees; == w where that is what is stored, or for one
                             stream, which looks as it goes */
    int16_t *seen_t;      /* its transposed copy; NULL for one stream */
    int16_t *lent;        /* room for `seen` that can be taken back, see gle_lend; or NULL. Where
                             `seen` is `w` all the same, what stands there is not up to date */
    uint16_t *tops;       /* [n], lent too: no weight of a row is larger (single_dsp_learn.c) */
    int32_t *bias;
    int32_t *gradient;    /* [n][stride], NULL without GLE_WITH_GRADIENT */
    int32_t *gradient_bias;
    int32_t *gradient_tau;      /* [n], with GLE_LEARNS_TAU */
    int32_t *u_old;             /* [n][columns], with GLE_LEARNS_TAU: before the step */
    int32_t gradient_frac, gradient_bias_frac; /* of the read-out as it was made, or of the
                                                  accumulators as they were cleared */
    int32_t *memory;      /* [n][stride], what the chip learns from; NULL: nothing is kept */
    int32_t *memory_bias;
    uint8_t *norm;        /* [n][stride], running means as logarithms; NULL: none */
    uint8_t *norm_bias;

    int32_t *u, *v;
    int32_t *uhat;        /* NULL without GLE_WITH_UHAT */
    int16_t *r, *e;
    uint16_t *dphi;       /* Q15 */

    gle_counters counters;
    gle_window window;
} gle_layer;

struct gle_chip {
    const gle_image *image;
    const gle_kernels *kernels;
    int32_t layers, batch, columns;
    uint32_t options;
    const uint32_t *inputs; /* of GLE_HAS_INPUTS, or NULL */
    const gle_feedback *feedback; /* or NULL */
    int16_t *e_top;         /* [outputs][columns] of GLE_DIRECT: errors before the step */
    int16_t *gathered;      /* [m][columns] where layers have sources of their own */
    uint64_t seed, step;
    uint64_t learned;        /* learning steps since gle_blank, where they count */
    gle_learner learner;
    uint32_t first;          /* number of the first stream */
    uint64_t weights_digest; /* holds if digest_known and no layer is stale */
    int32_t digest_known;

    /* scratch, shared by all layers */
    int16_t *input;        /* [inputs][columns] */
    int16_t *pairs;        /* rates or errors of two neurons interleaved */
    int16_t *turned;       /* rates of two streams interleaved, neurons innermost; before that,
                              random words of noise */
    int32_t *sums;         /* [n][columns] */
    int32_t *above[2];     /* [n][columns] */
    int32_t *rows;         /* gradient of a few rows */
    uint32_t *hash;        /* [columns] */
    uint64_t *digest;      /* [batch] */

    gle_layer layer[];
};

/* Dropped bits of the gradient read-out: 32 products of 14-bit factors fit int32. */
static inline int32_t gle_gradient_shift(int32_t batch)
{
    int32_t k = 0;
    while ((batch - 1) >> (5 + k) > 0) {
        k++;
    }
    return k;
}

/* softmax.c: target error of the output layer, [outputs][columns] in its v_frac. */
void gle_target_error(const gle_chip *chip, const gle_layer *top, const int16_t *target,
                      int32_t *above);

/* read_out.c: rates of neuron i in `count` streams from b on, as they are read out; what clips is
 * counted. `how` is of this layer and this step. */
gle_reader gle_reader_of(const gle_chip *chip, int32_t l);
void gle_read_rates(const gle_chip *chip, gle_reader *how, int32_t l, int32_t i, int32_t b,
                    int32_t count, int32_t *to);

/* effective.c: what the array sees of the stored weights, and whether sums fit. */
void gle_layer_effective(gle_chip *chip, gle_layer *layer);

/* gradient.c */
void gle_layer_gradient(gle_chip *chip, gle_layer *layer, const int16_t *below,
                        int32_t below_frac);
void gle_layer_gradient_add(gle_chip *chip, gle_layer *layer, const int16_t *below,
                            int32_t below_frac);

/* time_constants.c */
void gle_layer_note_u(const gle_chip *chip, gle_layer *layer);
void gle_layer_tau_gradient(const gle_chip *chip, gle_layer *layer);
void gle_layer_tau_gradient_add(const gle_chip *chip, gle_layer *layer);

/* gradient.c: sum += round(x * 2^-shift), clipped; |x| < 2^62. Returns whether it clipped. */
uint32_t gle_accumulate(int32_t *sum, int64_t x, int32_t shift);

/* ranges.c */
int32_t gle_shift_forward(const gle_layer *layer, int32_t below_frac);
int32_t gle_finest_row(const gle_layer *layer);
void gle_autorange(gle_chip *chip);

/* drift.c */
void gle_drift(gle_chip *chip);

#endif
