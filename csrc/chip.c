/* The step of a chip.
 *
 * All layers step together from their neighbours' values of the previous step. Going
 * from the top layer down, a layer's old rates and errors are still there when the
 * layer above and below read them, so that nothing is kept twice:
 *
 *     for l = L .. 1
 *         x_l     = W_l r_{l-1}      (old rates)
 *         above   = W_l^T e_l        (old errors, weights before the update), for l-1
 *         neurons of l: new e_l, r_l
 *         dW_l    = e_l r_{l-1}^T    (new error, old rates)
 *
 * or with r of other sources and other ways of the errors, see topology.h.
 */
#include "chip.h"

#include "analog.h"
#include "image.h"
#include "learner.h"
#include "neurons.h"
#include "topology.h"

static void zero(void *from, size_t bytes)
{
    unsigned char *p = from;
    for (size_t k = 0; k < bytes; k++) {
        p[k] = 0;
    }
}

/* What the DAC of an input makes of its code. */
static int32_t converted(int32_t x, uint32_t word)
{
    const int32_t y = x * gle_half_word(word, 0) + gle_half_word(word, 1) * GLE_GAIN_ONE;
    return gle_clamp((y + GLE_GAIN_ONE / 2) >> GLE_GAIN_BITS, GLE_ARRAY_MAX);
}

/* input[stream][m] as the core has it: to[m][columns]. */
static void turn_input(const gle_chip *chip, int16_t *to, const int16_t *input)
{
    const int32_t m = chip->image->inputs, columns = chip->columns;
    const int32_t whole = m & ~7; /* `transpose` reads eight at a time, and here no row is padded */

    if (whole > 0) {
        chip->kernels->transpose(to, input, chip->batch, whole, m, columns);
    }
    for (int32_t j = whole; j < m; j++) {
        for (int32_t b = 0; b < chip->batch; b++) {
            to[(size_t)j * (size_t)columns + (size_t)b] = input[(size_t)b * (size_t)m + (size_t)j];
        }
    }
}

static void load_input(const gle_chip *chip, const int16_t *input)
{
    const size_t m = (size_t)chip->image->inputs, columns = (size_t)chip->columns;
    /* 16 bits wide all the way, for compilers to see vectors of such */
    const int16_t most = (int16_t)chip->image->input_max, least = (int16_t)-most;
    const int16_t scale = (int16_t)(1 << chip->image->input_left);
    int16_t *const to = chip->input;
    const int16_t *from = input;

    if (columns > 1) {
        turn_input(chip, to, input);
        from = to;
    }
    for (size_t k = 0; k < m * columns; k++) {
        const int16_t x = from[k] < most ? from[k] : most;
        to[k] = (int16_t)((x > least ? x : least) * scale);
    }
    for (size_t j = 0; chip->inputs != NULL && j < m; j++) {
        for (size_t b = 0; b < (size_t)chip->batch; b++) {
            to[j * columns + b] = (int16_t)converted(to[j * columns + b], chip->inputs[j]);
        }
    }
}

/* What changed since the last step, as the array sees it now. */
static void refresh(gle_chip *chip, gle_layer *layer)
{
    const int copies = chip->columns > 1;

    if (layer->stale || (copies && layer->most == GLE_NO_COPIES) ||
        (layer->lent != NULL && layer->seen == layer->w)) {
        chip->digest_known = layer->stale ? 0 : chip->digest_known;
        gle_layer_effective(chip, layer);
    }
    if (layer->back != NULL &&
        (layer->back->stale || (copies && layer->back->most == GLE_NO_COPIES))) {
        chip->digest_known = layer->back->stale ? 0 : chip->digest_known;
        gle_layer_effective(chip, layer->back);
    }
}

/* W below, in u_frac. */
static void forward(gle_chip *chip, const gle_layer *layer, const gle_heard *heard)
{
    const gle_kernels *k = chip->kernels;
    const int32_t columns = chip->columns, shift = gle_shift_forward(layer, heard->frac);

    if (columns == 1) {
        k->product_one(chip->sums, layer, heard->rates, shift);
        return;
    }
    const int32_t largest = k->pack_pairs(chip->pairs, heard->rates, layer->m, columns);
    if (layer->most == GLE_NO_COPIES) {
        k->stored->forward(chip->sums, layer, chip->pairs, columns, chip->batch, shift, largest);
        return;
    }
    k->product(chip->sums, layer->seen, layer->stride, layer->n, layer->m, chip->pairs, columns,
               shift, layer->rows, gle_sums_fit(layer->most, largest, shift, layer->rows));
}

/* dW, wherever it goes. */
static void learn(gle_chip *chip, gle_layer *layer, const gle_heard *heard, uint32_t flags,
                  const gle_lesson *lesson)
{
    if (chip->columns > 1) {
        chip->kernels->pack_turned(chip->turned, heard->rates, layer->m, layer->stride,
                                   chip->columns);
    }
    if ((flags & GLE_READ_GRADIENT) != 0) {
        gle_layer_gradient(chip, layer, heard->rates, heard->frac);
    }
    if ((flags & GLE_ADD_GRADIENT) != 0) {
        gle_layer_gradient_add(chip, layer, heard->rates, heard->frac);
    }
    if ((flags & (GLE_READ_GRADIENT | GLE_ADD_GRADIENT)) != 0) {
        gle_absent_sums(layer, 0, layer->n, layer->gradient);
    }
    if ((flags & GLE_LEARN) != 0) {
        gle_layer_learn(chip, layer, heard->rates, heard->frac, lesson);
        gle_feedback_learn(chip, layer, heard->rates, heard->frac,
                           gle_rate_of(layer, lesson));
        gle_absent_weights(layer); /* whatever the rule did */
    }
}

static void set_gamma(gle_neuron_job *job, const gle_layer *layer, uint32_t gamma)
{
    const int32_t shift = gle_coef_k(gamma) + layer->e_frac - layer->u_frac;

    job->gamma_m = gle_coef_m(gamma);
    job->gamma_left = shift < 0 ? -shift : 0;
    job->gamma_right = shift > 0 ? shift : 0;
    if (job->gamma_left > 28 || job->gamma_right > 30) {
        job->gamma_m = job->gamma_left > 28 ? job->gamma_m : 0;
        job->gamma_left = job->gamma_left > 28 ? 28 : 0;
        job->gamma_right = 0;
    }
}

/* `driven`: the error path, see analog.h. */
static void set_noise(gle_neuron_job *job, const gle_chip *chip, const gle_layer *layer,
                      int32_t driven)
{
    const uint32_t where = (uint32_t)layer->first;

    job->driven = driven;
    job->noise_e = gle_noise_of(driven ? layer->image->noise_e : 0);
    job->noisy = (layer->off & GLE_OFF_MEMBRANE) != 0 || job->noise_e.m != 0;
    job->analog = layer->off != 0 || job->noisy;
    if (job->noisy) {
        job->key = gle_rng_key(chip->seed, GLE_RNG_NEURON, where, chip->step);
    }
}

static void chain_digests(gle_chip *chip)
{
    for (int32_t b = 0; b < chip->batch; b++) {
        const uint64_t d = (chip->digest[b] ^ chip->hash[b]) * UINT64_C(0xd6e8feb86659fd93);
        chip->digest[b] = d ^ (d >> 32);
    }
    for (int32_t b = 0; b < chip->columns; b++) {
        chip->hash[b] = 0;
    }
}

gle_status gle_step(gle_chip *chip, const int16_t *input, const int16_t *target, uint32_t flags)
{
    const uint32_t gradients = flags & (GLE_READ_GRADIENT | GLE_ADD_GRADIENT);
    const int32_t learns = gradients != 0 || (flags & GLE_LEARN) != 0;
    const int32_t driven = target != NULL || gle_coef_m(chip->image->gamma) != 0;
    gle_neuron_job job = {0};
    gle_lesson lesson = {0, 0, 0};

    if ((gradients != 0 && (chip->options & GLE_WITH_GRADIENT) == 0) ||
        gradients == (GLE_READ_GRADIENT | GLE_ADD_GRADIENT)) {
        return GLE_BAD_ARGUMENT;
    }
    load_input(chip, input);
    gle_errors_begin(chip, target);
    job.hash = chip->hash;
    job.batch = chip->batch;
    job.columns = chip->columns;
    job.first = chip->first;
    job.words = (uint32_t *)(void *)chip->turned; /* at least 16 neurons wide */
    job.ranging = (flags & GLE_RANGE) != 0;
    if ((flags & GLE_LEARN) != 0) {
        lesson = gle_lesson_of(chip);
    }

    for (int32_t l = chip->layers - 1; l >= 0; l--) {
        gle_layer *layer = &chip->layer[l];
        const gle_heard heard = gle_hear(chip, layer);

        refresh(chip, layer);
        forward(chip, layer, &heard);
        job.layer = layer;
        job.sums = chip->sums;
        job.above = gle_errors(chip, layer);
        set_gamma(&job, layer, chip->image->gamma);
        set_noise(&job, chip, layer, driven);
        if (gradients != 0 && layer->u_old != NULL) {
            gle_layer_note_u(chip, layer);
        }
        chip->kernels->neurons(&job);

        if (gradients != 0 && layer->u_old != NULL) {
            if ((flags & GLE_READ_GRADIENT) != 0) {
                gle_layer_tau_gradient(chip, layer);
            } else {
                gle_layer_tau_gradient_add(chip, layer);
            }
        }
        if (learns && (layer->image->learn & GLE_LEARNS_WEIGHTS) != 0) {
            learn(chip, layer, &heard, flags, &lesson);
        }
    }
    if ((flags & GLE_LEARN) != 0) {
        gle_feedback_decay(chip);
    }
    chain_digests(chip);
    chip->step++;
    if ((flags & GLE_LEARN) != 0 && chip->learner.counts) {
        chip->learned++;
        chip->digest_known = 0;
    }
    if (job.ranging) {
        const uint32_t every = (uint32_t)chip->image->range_every;
        if (every != 0 && chip->step % every == 0) {
            chip->digest_known = 0; /* scales may move */
        }
        gle_autorange(chip);
    }
    if (chip->image->drift_every != 0 &&
        chip->step % (uint64_t)(uint32_t)chip->image->drift_every == 0) {
        gle_drift(chip);
    }
    return GLE_OK;
}

void gle_reset(gle_chip *chip, uint32_t first)
{
    static const gle_window empty = {0, 0, 0, 0, 0, 0};

    for (int32_t l = 0; l < chip->layers; l++) {
        gle_layer *layer = &chip->layer[l];
        const size_t count = (size_t)layer->n * (size_t)chip->columns;
        zero(layer->u, count * sizeof *layer->u);
        zero(layer->v, count * sizeof *layer->v);
        zero(layer->r, count * sizeof *layer->r);
        zero(layer->e, count * sizeof *layer->e);
        zero(layer->dphi, count * sizeof *layer->dphi);
        if (layer->uhat != NULL) {
            zero(layer->uhat, count * sizeof *layer->uhat);
        }
        layer->window = empty;
    }
    zero(chip->input, (size_t)chip->image->inputs * (size_t)chip->columns * sizeof *chip->input);
    zero(chip->hash, (size_t)chip->columns * sizeof *chip->hash);
    zero(chip->digest, (size_t)chip->batch * sizeof *chip->digest);
    chip->step = 0;
    chip->first = first;
}

void gle_blank(gle_chip *chip)
{
    const gle_neuron *const times =
        gle_image_neurons((const uint32_t *)(const void *)chip->image);

    for (int32_t l = 0; l < chip->layers; l++) {
        gle_layer *layer = &chip->layer[l];
        const gle_image_layer *image = layer->image;
        zero(layer->w, (size_t)layer->n * (size_t)layer->stride * sizeof *layer->w);
        zero(layer->bias, (size_t)layer->n * sizeof *layer->bias);
        for (int32_t i = 0; i < layer->n && layer->times != NULL; i++) {
            layer->times[i] = times[layer->first + i];
        }
        if (layer->memory != NULL) {
            zero(layer->memory, (size_t)layer->n * (size_t)layer->stride * sizeof *layer->memory);
            zero(layer->memory_bias, (size_t)layer->n * sizeof *layer->memory_bias);
        }
        if (layer->norm != NULL) {
            zero(layer->norm, (size_t)layer->n * (size_t)layer->stride);
            zero(layer->norm_bias, (size_t)layer->n);
        }
        if (layer->back != NULL) {
            gle_layer *back = layer->back;
            zero(back->w, (size_t)back->n * (size_t)back->stride * sizeof *back->w);
            back->stale = 1;
        }
        layer->w_frac = image->w_frac;
        layer->u_frac = image->u_frac;
        layer->r_frac = image->r_frac;
        layer->e_frac = image->e_frac;
        layer->v_frac = image->e_frac + image->v_frac_extra;
        layer->rate_shift = image->rate_shift;
        layer->stale = 1;
    }
    chip->digest_known = 0;
    chip->learned = 0;
    gle_counters_clear(chip);
    gle_reset(chip, 0);
    if ((chip->options & GLE_WITH_GRADIENT) != 0) {
        gle_gradient_clear(chip, 0);
        for (int32_t l = 0; l < chip->layers; l++) {
            chip->layer[l].gradient_frac = chip->layer[l].gradient_bias_frac = 0;
        }
    }
}

int32_t gle_layers(const gle_chip *chip) { return chip->layers; }
uint64_t gle_steps(const gle_chip *chip) { return chip->step; }
