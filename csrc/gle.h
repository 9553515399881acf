/* The chip: a network of GLE neurons in fixed point, stepped in time.
 *
 * Integers only, no allocation, no I/O, no clock, no globals. The caller owns one
 * arena; gle_arena_bytes() says how large it must be. All functions return a
 * gle_status; results go out through pointers. Equations: Ellenberger et al.,
 * arXiv 2403.16933; discretisation and order of operations: see chip.c.
 */
#ifndef GLE_H
#define GLE_H

#include <stddef.h>
#include <stdint.h>

#define GLE_MAGIC UINT32_C(0x32454c47) /* "GLE2" */
#define GLE_MAX_LAYERS 64
#define GLE_MAX_SIZE 4096
#define GLE_MAX_BATCH 4096

/* Alignment of the arena and of every array in it, in bytes. Small boards, which have no
 * vectors, build with -DGLE_ALIGN=8 and save the padding; no result depends on it. */
#ifndef GLE_ALIGN
#define GLE_ALIGN 64
#endif

typedef enum {
    GLE_OK = 0,
    GLE_BAD_IMAGE = 1,    /* an image that breaks a rule of gle_image_check */
    GLE_NO_MEMORY = 2,    /* the arena is smaller than gle_arena_bytes says */
    GLE_BAD_ARGUMENT = 3, /* an index, a size or an option out of range */
    GLE_INTERRUPTED = 4   /* a host loop saw its stop flag; finished steps count */
} gle_status;

enum gle_phi { GLE_LINEAR = 0, GLE_TANH, GLE_SIGMOID, GLE_SOFTPLUS, GLE_RELU, GLE_PHI_COUNT };
/* How a chip learns by itself, see learner.h. */
enum gle_rule { GLE_SGD = 0, GLE_NORMALISED, GLE_SIGN, GLE_RULE_COUNT };
enum gle_loss { GLE_CROSS_ENTROPY = 0, GLE_MSE = 1 };

/* What a layer learns, and how fast: bits 8 to 13 are a count of halvings, at most 32, of its rate
 * beside the chip's (GLE_SLOWER_AT). GLE_HOLDS_BIAS: its biases stay as they were written.
 * GLE_HOLDS_RANGE: so does the format of its weights, which else widens when one clips.
 * GLE_LEARNS_TAU: it has a gradient of its tau_m to read out, and time constants that can be
 * written. */
enum gle_learns {
    GLE_LEARNS_WEIGHTS = 1,
    GLE_LEARNS_TAU = 2,
    GLE_HOLDS_BIAS = 4,
    GLE_HOLDS_RANGE = 8,
    GLE_SLOWER_AT = 8 /* the bit where the count begins */
};

/* Bits that the gradient of a tau_m has fewer than its exact sum, see gle_gradient_part. */
#define GLE_TAU_DROP 12

/* The image: what a chip is built from, as 32-bit words. A gle_image, then one
 * gle_image_layer each, then for each neuron of each layer a gle_neuron, then the sections
 * that the image says it has, in the order of gle_section. Formats are powers of two:
 * value = integer * 2^-frac. What an imperfection does in the step: see analog.h.
 *
 * A noise word (gle_noise) is m << 8 | (k + 8): n m 2^-k, rounded, is added, where n is a sum
 * of four random bytes with signs, less its mean, of variance 21845 (analog.h); 0 is no noise. */
enum gle_section {
    GLE_HAS_ROWS = 1,   /* a word a neuron, 0 .. 7: its weights have so many more fraction bits */
    GLE_HAS_ANALOG = 2, /* a gle_analog a neuron */
    GLE_HAS_INPUTS = 4, /* a word an input: gain in Q13 | offset in LSB of the input << 16 */
    GLE_HAS_GAINS = 8,  /* for each layer n rows of m int16 (m even, else one of padding), two a
                           word, lower half first: >= 0 the gain of a synapse in Q13; below, the
                           synapse is stuck at -g - 8192 */
    GLE_HAS_MASKS = 16, /* for each layer that is `masked` n rows of m bits, 32 a word, lowest
                           first: 1 where there is a synapse; one that is absent is not stuck */
    GLE_HAS_SOURCES = 32, /* three words a layer: bit 0 of them: it hears the inputs, bit 1 + k:
                           layer k, itself or one before it; columns of its weights are in the
                           order of the bits. This section and the next stand before all
                           others. Without it each layer hears the one before it */
    GLE_HAS_FEEDBACK = 64 /* a gle_feedback */
};

/* How errors come back where not through the weights themselves. The matrices are stored
 * behind a layer's weights, in the same format (without GLE_HAS_ROWS and GLE_HAS_GAINS, which
 * are of synapses that carry rates). Of GLE_ALIGNMENT and GLE_KOLEN_POLLACK a layer that hears
 * another, or itself, has one of n * m, with its mask; of GLE_DIRECT each layer but the last
 * has one of outputs * n, row by row of the outputs. */
enum gle_feedback_kind { GLE_ALIGNMENT = 1, GLE_KOLEN_POLLACK = 2, GLE_DIRECT = 3 };

typedef struct {
    int32_t kind;
    int32_t decay_every;  /* GLE_KOLEN_POLLACK: learning steps between two decays of weights */
    int32_t decay_shift;  /* and feedback, 0: none; each takes 2^-decay_shift of them */
} gle_feedback;

typedef struct {
    uint32_t magic;
    uint32_t words;       /* of the whole image */
    int32_t layers;
    int32_t inputs;
    int32_t loss;
    uint32_t beta;        /* gle_coef */
    uint32_t gamma;       /* gle_coef */
    int32_t input_frac, input_max;
    int32_t target_frac;  /* of mse targets */
    int32_t range_every;  /* steps between two looks of the auto-ranging; 0: never */
    int32_t stochastic;   /* rounding of weight updates: 1 stochastic, 0 nearest */
    uint32_t seed_low, seed_high;
    int32_t range_clip;   /* share of errors that may clip, in 1/65536 */
    uint32_t sections;    /* of gle_section */
    int32_t input_left;   /* input = code of the DAC << input_left; input_max is of codes */
    int32_t drift_every;  /* steps between two drifts of stored weights; 0: never */
    int32_t drift_shift;  /* each takes 2^-drift_shift of them */
    int32_t update_max;   /* largest update on the chip, in LSB of stored weights */
    uint32_t update_noise; /* gle_noise, in 1/8192 of the update */
    uint32_t learner;     /* gle_rule | momentum_shift << 8 | norm_shift << 16 | rises << 24:
                             2^-shift of a running mean is new; the rate shift rises so often
                             at most */
    int32_t apply_every;  /* learning steps whose gradients are summed; 0: each is applied */
    int32_t rate_every;   /* learning steps between two rises of the rate shift; 0: none */
} gle_image;

typedef struct {
    int32_t size;
    int32_t phi;
    int32_t learn;        /* of gle_learns */
    int32_t w_frac;       /* of stored weights */
    int32_t w_shift;      /* the array sees round(stored * 2^-w_shift) */
    int32_t w_max;        /* of stored weights */
    int32_t u_frac, u_max;
    int32_t r_frac, r_max;
    int32_t e_frac, e_max;
    int32_t v_frac_extra; /* error neurons have e_frac + this many fraction bits */
    int32_t rate_shift;   /* on-chip learning: dW = 2^-rate_shift times the gradient's sum over the
                             batch (sgd), momentum / mean (normalised) or 1 (sign) */
    int32_t w_left;       /* fraction bits that a gain has beyond those of a weight's code */
    uint32_t noise_e;     /* gle_noise of the error, in v_frac */
    uint32_t noise_r;     /* gle_noise of the read-out, in 1/8192 LSB of its converter */
    int32_t adc_drop;     /* bits of a rate that the read-out loses */
    int32_t adc_max;      /* largest code of the read-out */
    uint32_t masked;      /* 1: has a mask, see GLE_HAS_MASKS */
} gle_image_layer;

typedef struct {
    uint32_t leak_u;      /* gle_coef: dt/tau_m */
    uint32_t ratio_u;     /* tau_r/tau_m */
    uint32_t leak_v;      /* dt/tau_r */
    uint32_t ratio_v;     /* tau_m/tau_r */
} gle_neuron;

/* What is off in one neuron. */
typedef struct {
    int32_t offset;       /* of the activation's input, in u_frac */
    int32_t gain;         /* of the activation, Q13, below 2; 0: dead */
    uint32_t noise_u;     /* gle_noise of the membrane in each step, in u_frac */
    uint32_t adc;         /* of its read-out: gain in Q13 | offset in 1/64 LSB of the converter,
                             which is 2^adc_drop of the rate, << 16 */
} gle_analog;

/* Per layer, since the last gle_counters_clear. */
typedef struct {
    uint64_t steps;       /* neuron steps (streams counted singly) */
    uint64_t sat_x;       /* membrane input out of range */
    uint64_t sat_uhat;    /* prospective term out of range */
    uint64_t sat_r;       /* rate clipped */
    uint64_t sat_inst;    /* input of an error neuron out of range */
    uint64_t sat_e;       /* error clipped */
    uint64_t under_e;     /* non-zero error that rounds to 0 */
    uint64_t updates;     /* weight updates asked for (gradient, noise included, not 0) */
    uint64_t under_w;     /* of these, rounded to nothing */
    uint64_t sat_w;       /* stored weights clipped */
    uint64_t range_moves; /* changes of a scale */
    uint64_t sat_gradient; /* accumulated gradients clipped, the host's (GLE_ADD_GRADIENT) or
                              those that the chip learns from */
    uint64_t sat_read;    /* read-outs of rates clipped by their converter; last, as it depends
                             on what is read and so belongs to no snapshot */
} gle_counters;

/* What a layer's numbers mean now (auto-ranging moves them). */
typedef struct {
    int32_t w_frac, u_frac, r_frac, e_frac, v_frac;
    int32_t gradient_frac, gradient_bias_frac; /* of the last gradient read-out, or of the
                                                  accumulators since gle_gradient_clear;
                                                  0 before either */
} gle_formats;

/* Sizes of a layer. */
typedef struct {
    int32_t neurons, inputs, batch;
    int32_t loss;         /* gle_loss of the network */
    uint32_t options;     /* of gle_open */
    int32_t uhat;         /* 1: can be read */
    int32_t times;        /* 1: its time constants can be written (GLE_LEARNS_TAU) */
    int32_t feedback;     /* weights of its feedback, numbered behind its neurons * inputs */
} gle_shape;

enum gle_signal { GLE_SIGNAL_R = 0, GLE_SIGNAL_U, GLE_SIGNAL_UHAT, GLE_SIGNAL_V, GLE_SIGNAL_E,
                  GLE_SIGNAL_COUNT };

/* What gle_flip can change beside the signals. */
enum gle_stored { GLE_STORED_WEIGHT = GLE_SIGNAL_COUNT, GLE_STORED_BIAS, GLE_FLIP_COUNT };

/* Options of gle_open. */
#define GLE_WITH_GRADIENT 1u /* room to read the gradient out, one int32 a weight */
#define GLE_WITH_UHAT 2u     /* keep uhat, so that it can be recorded */

/* Flags of gle_step. */
#define GLE_LEARN 1u         /* a learning step: the image's rule after this step */
#define GLE_READ_GRADIENT 2u /* leave this step's gradient where gle_gradient finds it */
#define GLE_RANGE 4u         /* this step counts for the auto-ranging */
#define GLE_ADD_GRADIENT 8u  /* add this step's gradient to the accumulators; not with
                                GLE_READ_GRADIENT, which overwrites them */

typedef struct gle_chip gle_chip;
struct gle_kernels;

gle_status gle_image_check(const uint32_t *words, size_t count);
/* GLE_NO_MEMORY: more than this machine can address. */
gle_status gle_arena_bytes(const uint32_t *words, size_t count, int32_t batch, uint32_t options,
                           size_t *bytes);
/* `arena` must be aligned to GLE_ALIGN bytes; `words` must stay as it is while the chip lives. */
gle_status gle_open(void *arena, size_t bytes, const uint32_t *words, size_t count, int32_t batch,
                    uint32_t options, const struct gle_kernels *kernels, gle_chip **chip);

/* Memory that a chip can do without: where it has some it keeps what its array sees, instead
 * of looking at every weight on the way, and bounds of the weights. Bytes that it has a use
 * for (0: none), and such memory, aligned to 8 bytes, of which it uses what is enough for some
 * layer, or NULL to take it back; nothing else changes. */
size_t gle_spare_bytes(const gle_chip *chip);
void gle_lend(gle_chip *chip, void *memory, size_t bytes);

/* States, digests and the step number to zero; weights, formats, what learning remembers and
 * its count of steps stay. The streams are
 * numbered from `first` on: noise goes by the number, so that streams one after another
 * get what they get side by side. */
void gle_reset(gle_chip *chip, uint32_t first);

/* input: [batch][inputs] in the image's input format. target: NULL for none, labels [batch]
 * (-1: none) for cross entropy, [batch][outputs] in target_frac for mse. */
gle_status gle_step(gle_chip *chip, const int16_t *input, const int16_t *target, uint32_t flags);

/* Weights as they are stored: row after row, n * m, then those of the layer's feedback if it
 * has any; absent synapses stay 0. Bias in u_frac. */
gle_status gle_weights_write(gle_chip *chip, int32_t layer, int32_t first, int32_t count,
                             const int16_t *from);
gle_status gle_weights_read(const gle_chip *chip, int32_t layer, int32_t first, int32_t count,
                            int16_t *to);
gle_status gle_bias_write(gle_chip *chip, int32_t layer, int32_t first, int32_t count,
                          const int32_t *from);
gle_status gle_bias_read(const gle_chip *chip, int32_t layer, int32_t first, int32_t count,
                         int32_t *to);
/* Whether an image may have these multipliers. */
int gle_neuron_ok(const gle_neuron *y);
/* Multipliers of neurons whose tau_m is learned; GLE_BAD_ARGUMENT, and nothing changed, for
 * a layer without GLE_LEARNS_TAU or multipliers that no image may have. */
gle_status gle_times_write(gle_chip *chip, int32_t layer, int32_t first, int32_t count,
                           const gle_neuron *from);
/* Stored += from, clipped to w_max and to the range of a state; what was clipped is
 * counted in sat_w. Any increment will do, none wraps. GLE_BAD_ARGUMENT: nothing changed. */
gle_status gle_weights_add(gle_chip *chip, int32_t layer, int32_t first, int32_t count,
                           const int16_t *from);
gle_status gle_bias_add(gle_chip *chip, int32_t layer, int32_t first, int32_t count,
                        const int32_t *from);
/* Accumulators to zero, and their formats fixed from the scales as they stand, with `drop`
 * bits (0 .. 31) fewer than a single step's gradient has: 2^drop steps cannot clip. From
 * then on each step with GLE_ADD_GRADIENT is summed over the batch exactly, rounded once
 * to that format, whatever the scales are by then, and added; int32 that would overflow
 * clip and are counted in sat_gradient. Biases, which have bits to spare, drop only what
 * they need to. GLE_BAD_ARGUMENT: without GLE_WITH_GRADIENT, or drop out of range. */
gle_status gle_gradient_clear(gle_chip *chip, int32_t drop);
/* Gradient of the last step with GLE_READ_GRADIENT, or of all steps with GLE_ADD_GRADIENT
 * since gle_gradient_clear, summed over the batch: weights (n * m)
 * in gradient_frac, biases (n) in gradient_bias_frac. */
gle_status gle_gradient(const gle_chip *chip, int32_t layer, int32_t *weight, int32_t *bias);
/* The same by ranges: number first .. first + count of the n * m weights, n biases and, with
 * GLE_LEARNS_TAU, n time constants: the sum over the batch of e (u - u_old), which is
 * -dt dtau_m of design.md section 3, has gradient_bias_frac + u_frac - GLE_TAU_DROP fraction
 * bits and is clipped to int32 (counted in sat_gradient). */
gle_status gle_gradient_part(const gle_chip *chip, int32_t layer, int32_t first, int32_t count,
                             int32_t *to);
/* One signal after the last step: [batch][n]. r comes through the read-out converters,
 * if the image has any; the others are probes that no chip offers. */
gle_status gle_read(const gle_chip *chip, int32_t layer, int32_t signal, int32_t *to);
/* The same by ranges. */
gle_status gle_read_part(const gle_chip *chip, int32_t layer, int32_t signal, int32_t first,
                         int32_t count, int32_t *to);

/* For proofs that a difference is found. Flips one bit of a signal (index as gle_read
 * counts) or of what is stored (GLE_STORED_WEIGHT, row after row; GLE_STORED_BIAS): bit
 * 0 .. 15 of r, e and weights, 0 .. 31 of the others. The value stays within its limits:
 * where this bit would leave them, the next lower one that does not is flipped, then the
 * next higher; where none will do, the value becomes 0. It always changes.
 * GLE_BAD_ARGUMENT: no such thing (an absent synapse is none), nothing changed. */
gle_status gle_flip(gle_chip *chip, int32_t layer, int32_t signal, int32_t index, int32_t bit);

/* Learning rate on the chip, 2^-shift, for all layers; -32..64. The image's rises add to it. */
gle_status gle_set_rate(gle_chip *chip, int32_t shift);
gle_status gle_shape_of(const gle_chip *chip, int32_t layer, gle_shape *shape);
gle_status gle_formats_of(const gle_chip *chip, int32_t layer, gle_formats *formats);
gle_status gle_counters_of(const gle_chip *chip, int32_t layer, gle_counters *counters);
void gle_counters_clear(gle_chip *chip);
/* Rate of neuron i in stream b as it is read out; a clip is counted. */
int32_t gle_read_out(const gle_chip *chip, int32_t layer, int32_t i, int32_t b);
int32_t gle_layers(const gle_chip *chip);
uint64_t gle_steps(const gle_chip *chip);

/* The complete state: weights, formats, learner, neurons, digests, counters, step numbers. Not
 * in it: gradients that were read out or accumulated. */
size_t gle_snapshot_bytes(const gle_chip *chip);
gle_status gle_snapshot_read(const gle_chip *chip, unsigned char *to, size_t size);
/* GLE_BAD_IMAGE: of another image or batch, or with values that a chip of this image
 * cannot have; nothing has changed then. */
gle_status gle_snapshot_write(gle_chip *chip, const unsigned char *from, size_t size);
/* n of its bytes, from `offset` on. */
gle_status gle_snapshot_part(const gle_chip *chip, size_t offset, unsigned char *to, size_t n);
/* The same inwards, for who has no room for a whole one: parts in order, from offset 0 on.
 * GLE_BAD_IMAGE, which only the first GLE_SNAPSHOT_HEAD bytes can cause: of another image
 * or batch, nothing has changed. Once anything behind these has been put, the chip must not
 * be stepped before gle_snapshot_check has accepted it. */
#define GLE_SNAPSHOT_HEAD 16
gle_status gle_snapshot_put(gle_chip *chip, size_t offset, const unsigned char *from, size_t n);
/* After the last part. GLE_BAD_IMAGE: values that a chip of this image cannot have; the
 * chip is as gle_open left it, weights zero. */
gle_status gle_snapshot_check(gle_chip *chip);
/* Everything as gle_open left it: weights, states, counters zero, formats as in the image. */
void gle_blank(gle_chip *chip);

/* Running digest of one stream: all states of all its steps since the reset. */
uint64_t gle_stream_digest(const gle_chip *chip, int32_t stream);
/* Digest of all stored weights, biases and formats as they stand, and of what learning
 * remembers (its accumulators, running means and count of steps). Kept until one of them
 * changes, so that asking again costs nothing. */
uint64_t gle_weights_digest(const gle_chip *chip);
/* All of it: streams in order, weights, the step number. */
uint64_t gle_digest(const gle_chip *chip);
uint64_t gle_digest_mix(uint64_t digest, uint64_t word);

#endif
