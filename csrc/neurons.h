/* A layer's neurons as a job for the neuron kernel. */
#ifndef GLE_NEURONS_H
#define GLE_NEURONS_H

#include "chip.h"

struct gle_neuron_job {
    gle_layer *layer;
    const int32_t *sums;  /* W below, in u_frac */
    const int32_t *above; /* W^T e of the layer above or the target error, in v_frac */
    uint32_t *hash;       /* [columns] */
    int32_t batch, columns;
    int32_t gamma_m;      /* nudge of the membrane: gamma e, from e_frac to u_frac */
    int32_t gamma_left, gamma_right;
    int32_t ranging;      /* count for the auto-ranging */
};

#endif
