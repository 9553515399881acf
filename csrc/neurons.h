/* A layer's neurons as a job for the neuron kernels, and what these share. */
#ifndef GLE_NEURONS_H
#define GLE_NEURONS_H

#include "analog.h"
#include "chip.h"
#include "phi.h"

struct gle_neuron_job {
    gle_layer *layer;
    const int32_t *sums;  /* W below, in u_frac */
    const int32_t *above; /* W^T e of the layer above or the target error, in v_frac */
    uint32_t *hash;       /* [columns] */
    int32_t batch, columns;
    int32_t gamma_m;      /* nudge of the membrane: gamma e, from e_frac to u_frac */
    int32_t gamma_left, gamma_right;
    int32_t ranging;      /* count for the auto-ranging */
    int32_t analog;       /* something is off or noisy: the fields below, else none of it */
    int32_t noisy;        /* membranes or errors are */
    int32_t driven;       /* the error path is, see analog.h */
    uint32_t first;       /* number of the first stream */
    gle_key key;          /* of the noise */
    gle_noise noise_e;    /* none where the error path is not driven, see analog.h */
    uint32_t *words;      /* [2][columns] room for random words of several streams */
};

/* What is the same for all streams of one neuron. */
typedef struct {
    gle_mul leak_u, ratio_u, leak_v, ratio_v;
    int32_t bias, u_max, r_max, e_max;
    int32_t v_extra, v_half;
    int32_t gamma_m, gamma_left, gamma_limit, gamma_right, gamma_half;
    uint32_t hash_u, hash_v, hash_s; /* odd: no single change of a state goes unseen */
    gle_phi_format format;
    /* what is off */
    int32_t offset, gain, fine_extra, fine_max;
    int32_t finer; /* which of gle_phi_formats */
    gle_noise noise_u, noise_e;
    uint32_t word_u, word_e; /* of this neuron and its neighbours, for one stream */
} gle_row;

/* Of rates as they travel, and finer where a gain is to come. */
typedef struct {
    gle_phi_format at[2];
} gle_phi_formats;

/* Where a gain is to come, a rate is found finer than it travels, so that little is rounded
 * twice; where none is, nothing is. */
static inline int32_t gle_fine_frac(const gle_layer *layer)
{
    const int32_t fine = layer->r_frac + GLE_FINE_BITS;
    const int32_t most = layer->u_frac < 15 ? layer->u_frac : 15;
    return fine < most ? fine : most;
}

static inline gle_phi_formats gle_phi_formats_of(const gle_layer *layer)
{
    gle_phi_formats f;

    f.at[0] = gle_phi_format_of(layer->u_frac, layer->r_frac);
    f.at[1] = gle_phi_format_of(layer->u_frac, gle_fine_frac(layer));
    return f;
}

static inline void gle_row_analog(const gle_neuron_job *job, int32_t i, gle_row *row)
{
    static const gle_analog ideal = {0, GLE_GAIN_ONE, 0, GLE_GAIN_ONE};
    const gle_layer *layer = job->layer;
    const gle_analog *own = layer->analog ? &layer->analog[i] : &ideal;

    row->offset = own->offset;
    row->gain = own->gain;
    row->finer = own->gain != GLE_GAIN_ONE;
    row->fine_extra = row->finer ? gle_fine_frac(layer) - layer->r_frac : 0;
    row->fine_max = row->r_max << row->fine_extra;
    row->noise_u = gle_noise_of(own->noise_u);
}

/* What all neurons of a layer have in common. */
static inline void gle_row_of_layer(const gle_neuron_job *job, gle_row *row)
{
    static const gle_noise none = {0, 0, 0, 0};
    const gle_layer *layer = job->layer;

    row->u_max = layer->image->u_max;
    row->r_max = layer->image->r_max;
    row->e_max = layer->image->e_max;
    row->v_extra = layer->v_frac - layer->e_frac;
    row->v_half = gle_half(row->v_extra);
    row->gamma_m = job->gamma_m;
    row->gamma_left = job->gamma_left;
    row->gamma_limit = (1 << 28) >> job->gamma_left;
    row->gamma_right = job->gamma_right;
    row->gamma_half = gle_half(job->gamma_right);
    row->format = gle_phi_format_of(layer->u_frac, layer->r_frac);
    row->finer = row->offset = row->fine_extra = row->fine_max = 0;
    row->gain = GLE_GAIN_ONE;
    row->noise_u = none;
    row->noise_e = job->noise_e;
    row->word_u = row->word_e = 0;
}

/* What a neuron has in common with all that have its time constants. */
static inline void gle_row_times(const gle_neuron *neuron, gle_row *row)
{
    row->leak_u = gle_mul_of(neuron->leak_u);
    row->ratio_u = gle_mul_of(neuron->ratio_u);
    row->leak_v = gle_mul_of(neuron->leak_v);
    row->ratio_v = gle_mul_of(neuron->ratio_v);
}

/* What neuron i has of its own beside them. */
static inline void gle_row_own(const gle_neuron_job *job, int32_t i, gle_row *row)
{
    const gle_layer *layer = job->layer;
    const uint32_t index = (uint32_t)(layer->first + i) * 3u;

    row->bias = layer->bias[i];
    row->hash_u = (index + 1u) * UINT32_C(0x9e3779b1) | 1u;
    row->hash_v = (index + 2u) * UINT32_C(0x85ebca77) | 1u;
    row->hash_s = (index + 3u) * UINT32_C(0xc2b2ae3d) | 1u;
    if (job->analog) {
        gle_row_analog(job, i, row);
    }
}

static inline void gle_row_of(const gle_neuron_job *job, int32_t i, gle_row *row)
{
    gle_row_times(&job->layer->neurons[i], row);
    gle_row_own(job, i, row);
}

/* What neurons had to count in a step. */
typedef struct {
    uint32_t sat_x, sat_uhat, sat_r, sat_inst, sat_e, under_e, half_e, peak_r;
} gle_tally;

/* Of so many neurons. */
static inline void gle_counted(const gle_neuron_job *job, int32_t neurons, const gle_tally *t)
{
    const uint32_t samples = (uint32_t)neurons * (uint32_t)job->batch;
    gle_layer *layer = job->layer;
    gle_counters *c = &layer->counters;
    gle_window *w = &layer->window;

    c->steps += samples;
    c->sat_x += t->sat_x;
    c->sat_uhat += t->sat_uhat;
    c->sat_r += t->sat_r;
    c->sat_inst += t->sat_inst;
    c->sat_e += t->sat_e;
    c->under_e += t->under_e;
    if (job->ranging) {
        w->samples += samples;
        w->sat_e += t->sat_e;
        w->sat_r += t->sat_r;
        w->half_e += t->half_e;
        w->peak_r = t->peak_r > w->peak_r ? t->peak_r : w->peak_r;
    }
}

/* `rows(phi)` with the activation as a constant, so that each loop carries only its own. */
#define GLE_WITH_PHI(phi, rows) \
    switch (phi) {              \
    case GLE_TANH:              \
        rows(GLE_TANH);         \
        break;                  \
    case GLE_SIGMOID:           \
        rows(GLE_SIGMOID);      \
        break;                  \
    case GLE_SOFTPLUS:          \
        rows(GLE_SOFTPLUS);     \
        break;                  \
    case GLE_RELU:              \
        rows(GLE_RELU);         \
        break;                  \
    default:                    \
        rows(GLE_LINEAR);       \
        break;                  \
    }

void gle_neurons_scalar(const gle_neuron_job *job);
void gle_neurons_avx2(const gle_neuron_job *job);
void gle_neurons_vnni(const gle_neuron_job *job);
void gle_neurons_one_avx2(const gle_neuron_job *job);
void gle_neurons_one_vnni(const gle_neuron_job *job);
void gle_neurons_neon(const gle_neuron_job *job);
void gle_neurons_one_neon(const gle_neuron_job *job);

#endif
