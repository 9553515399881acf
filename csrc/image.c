/* From an image (32-bit words, possibly from a wire) to a chip in the caller's arena. */
#include "image.h"

#include "analog.h"
#include "learner.h"
#include "sections.h"

enum { HEADER = (int)(sizeof(gle_image) / 4), LAYER = (int)(sizeof(gle_image_layer) / 4),
       NEURON = (int)(sizeof(gle_neuron) / 4) };

const gle_image_layer *gle_image_layers(const uint32_t *words)
{
    return (const gle_image_layer *)(const void *)(words + HEADER);
}

const gle_neuron *gle_image_neurons(const uint32_t *words)
{
    const gle_image *image = (const gle_image *)(const void *)words;
    return (const gle_neuron *)(const void *)(words + HEADER + LAYER * image->layers);
}

static int between(int32_t x, int32_t least, int32_t most) { return x >= least && x <= most; }

static int coef_ok(uint32_t c, int32_t zero_allowed, int32_t at_most_one)
{
    const int32_t m = gle_coef_m(c), k = gle_coef_k(c);
    return m <= 0x7fff && k >= 1 && k <= 31 && (m > 0 || zero_allowed) &&
           (!at_most_one || k >= 15 || m <= 1 << k);
}

static int layer_ok(const gle_image_layer *y)
{
    return between(y->size, 1, GLE_MAX_SIZE) && between(y->phi, 0, GLE_PHI_COUNT - 1) &&
           (y->learn & 0xf0) == 0 && between(y->learn, 0, 32 << GLE_SLOWER_AT | 15) &&
           between(y->w_shift, 0, 14) &&
           between(y->w_frac, -16, 40) && between(y->w_max, 1, 32764) &&
           (y->w_max + (1 << y->w_shift) / 2) >> y->w_shift <= 8191 &&
           between(y->u_frac, 6, 22) && between(y->u_max, 1, GLE_STATE_MAX) &&
           between(y->r_max, 1, 8191) && between(y->r_frac, GLE_R_FRAC_LEAST, 15) && y->u_frac - y->r_frac <= 30 &&
           y->r_frac <= y->u_frac && between(y->e_max, 1, 8191) && between(y->e_frac, -12, 24) &&
           between(y->v_frac_extra, 0, 14) && between(y->rate_shift, -32, 64) &&
           between(y->w_left, 0, 12) && gle_noise_ok(y->noise_e) && gle_noise_ok(y->noise_r) &&
           between(y->adc_drop, 0, 13) && between(y->adc_max, 1, 8191) &&
           y->adc_max << y->adc_drop <= INT16_MAX && y->masked <= 1 &&
           ((y->w_max + (1 << y->w_shift) / 2) >> y->w_shift) << y->w_left <= GLE_ARRAY_MAX;
}

int gle_neuron_ok(const gle_neuron *y)
{
    return coef_ok(y->leak_u, 1, 1) && coef_ok(y->ratio_u, 1, 0) && coef_ok(y->leak_v, 1, 1) &&
           coef_ok(y->ratio_v, 1, 0);
}

static int learner_ok(const gle_image *image)
{
    const gle_learner y = gle_learner_of(image);

    return between(y.rule, 0, GLE_RULE_COUNT - 1) && between(y.momentum, 0, 16) &&
           (y.rule == GLE_NORMALISED ? between(y.norm, 4, 14) : y.norm == 0) &&
           between(y.rises, 0, image->rate_every == 0 ? 0 : 96) &&
           between(image->apply_every, 0, 1 << 24) && image->rate_every >= 0;
}

static int head_ok(const gle_image *image)
{
    return between(image->layers, 1, GLE_MAX_LAYERS) && between(image->inputs, 1, GLE_MAX_SIZE) &&
           between(image->loss, 0, 1) && coef_ok(image->beta, 1, 0) &&
           coef_ok(image->gamma, 1, 0) && between(image->input_frac, -16, 24) &&
           between(image->input_left, 0, 13) && between(image->input_max, 1, GLE_ARRAY_MAX) &&
           image->input_max << image->input_left <= GLE_ARRAY_MAX &&
           between(image->target_frac, -16, 24) && between(image->range_every, 0, 1 << 24) &&
           between(image->range_clip, 0, 1 << 16) && between(image->stochastic, 0, 1) &&
           image->sections <= GLE_ALL_SECTIONS && image->drift_every >= 0 &&
           between(image->drift_shift, 1, 30) && between(image->update_max, 1, 65535) &&
           gle_noise_ok(image->update_noise) && learner_ok(image);
}

/* Kolen-Pollack copies each update of the weights: of plain SGD alone, which is its own local
 * product. */
static int feedback_learnable(const uint32_t *words)
{
    const gle_feedback *feedback = gle_image_feedback(words);

    return feedback == NULL || feedback->kind != GLE_KOLEN_POLLACK ||
           !gle_learner_of((const gle_image *)(const void *)words).remembers;
}

gle_status gle_image_check(const uint32_t *words, size_t count)
{
    const gle_image *image = (const gle_image *)(const void *)words;
    const gle_image_layer *layers;
    const gle_neuron *neurons;
    size_t need = (size_t)HEADER, total = 0;
    gle_sections s;

    if (words == NULL || count < need || image->magic != GLE_MAGIC || image->words != count ||
        !head_ok(image)) {
        return GLE_BAD_IMAGE;
    }
    need += (size_t)LAYER * (size_t)image->layers;
    if (count < need) {
        return GLE_BAD_IMAGE;
    }
    layers = gle_image_layers(words);
    for (int32_t l = 0; l < image->layers; l++) {
        if (!layer_ok(&layers[l])) {
            return GLE_BAD_IMAGE;
        }
        total += (size_t)layers[l].size;
    }
    if (count < need + total * (size_t)NEURON || !gle_sections_first_ok(words, count) ||
        !feedback_learnable(words)) {
        return GLE_BAD_IMAGE;
    }
    s = gle_sections_of(words, total);
    if (count != s.end || !gle_sections_ok(words, &s, total)) {
        return GLE_BAD_IMAGE;
    }
    neurons = gle_image_neurons(words);
    for (size_t i = 0; i < total; i++) {
        if (!gle_neuron_ok(&neurons[i])) {
            return GLE_BAD_IMAGE;
        }
    }
    if (!gle_image_shifts_ok(words, &s)) {
        return GLE_BAD_IMAGE;
    }
    if (image->loss == GLE_CROSS_ENTROPY && layers[image->layers - 1].size > 2047) {
        return GLE_BAD_IMAGE;
    }
    return GLE_OK;
}

/* One walk over the arena serves both the question of its size and its use. */
typedef struct {
    unsigned char *base; /* NULL: only measure */
    uint64_t used;       /* an image can ask for more than 32 bits can count */
} arena;

static void *take(arena *a, size_t count, size_t size)
{
    const uint64_t at = (a->used + GLE_ALIGN - 1) / GLE_ALIGN * GLE_ALIGN;
    a->used = at + (uint64_t)count * size;
    return a->base == NULL ? NULL : a->base + (size_t)at;
}

static int32_t padded(int32_t n, int32_t to) { return (n + to - 1) / to * to; }

/* `as_stored`: the array sees what is stored. `copy_one`: what it sees is kept for a single
 * stream too. */
static void take_weights(arena *a, gle_layer *y, int32_t n, int32_t m, int as_stored, int copy_one,
                         int32_t columns)
{
    const int32_t pad = columns == 1 ? GLE_PAD_ONE : GLE_LANES;

    y->n = n;
    y->m = m;
    y->stride = padded(m, pad);
    y->stride_t = padded(n, pad);
    y->w = take(a, (size_t)n * (size_t)y->stride, sizeof *y->w);
    y->seen = y->w;
    y->seen_t = NULL;
    if (!as_stored && (columns > 1 || copy_one)) {
        y->seen = take(a, (size_t)n * (size_t)y->stride, sizeof *y->seen);
    }
    if (columns > 1) {
        y->seen_t = take(a, (size_t)m * (size_t)y->stride_t, sizeof *y->seen_t);
    }
}

static void take_layer(arena *a, gle_layer *y, int32_t n, int32_t m, int as_stored, int copy_one,
                       int32_t columns, uint32_t options, int32_t top, int learns_tau,
                       const gle_learner *learner)
{
    const size_t cells = (size_t)n * (size_t)columns;

    take_weights(a, y, n, m, as_stored, copy_one, columns);
    y->bias = take(a, (size_t)n, sizeof *y->bias);
    y->gradient = NULL;
    y->gradient_bias = NULL;
    if ((options & GLE_WITH_GRADIENT) != 0) {
        y->gradient = take(a, (size_t)n * (size_t)y->stride, sizeof *y->gradient);
        y->gradient_bias = take(a, (size_t)n, sizeof *y->gradient_bias);
    }
    y->times = NULL;
    y->gradient_tau = y->u_old = NULL;
    if (learns_tau) {
        y->times = take(a, (size_t)n, sizeof *y->times);
        if ((options & GLE_WITH_GRADIENT) != 0) {
            y->gradient_tau = take(a, (size_t)n, sizeof *y->gradient_tau);
            y->u_old = take(a, cells, sizeof *y->u_old);
        }
    }
    y->memory = y->memory_bias = NULL;
    y->norm = y->norm_bias = NULL;
    if (learner->remembers) {
        y->memory = take(a, (size_t)n * (size_t)y->stride, sizeof *y->memory);
        y->memory_bias = take(a, (size_t)n, sizeof *y->memory_bias);
    }
    if (learner->remembers && learner->rule == GLE_NORMALISED) {
        y->norm = take(a, (size_t)n * (size_t)y->stride, sizeof *y->norm);
        y->norm_bias = take(a, (size_t)n, sizeof *y->norm_bias);
    }
    y->u = take(a, cells, sizeof *y->u);
    y->v = take(a, cells, sizeof *y->v);
    /* the output layer's is compared with the target */
    y->uhat = top || (options & GLE_WITH_UHAT) != 0 ? take(a, cells, sizeof *y->uhat) : NULL;
    y->r = take(a, cells, sizeof *y->r);
    y->e = take(a, cells, sizeof *y->e);
    y->dphi = take(a, cells, sizeof *y->dphi);
}

static void point_at_sections(gle_chip *chip, const uint32_t *words)
{
    const gle_image *image = chip->image;
    const gle_layer *top = &chip->layer[chip->layers - 1];
    const gle_sections s = gle_sections_of(words, (size_t)(top->first + top->n));
    const uint32_t *gains = words + s.gains, *mask = words + s.masks;

    chip->inputs = image->sections & GLE_HAS_INPUTS ? words + s.inputs : NULL;
    chip->feedback = gle_image_feedback(words);
    for (int32_t l = 0; l < chip->layers; l++) {
        gle_layer *y = &chip->layer[l];
        const gle_analog *analog = (const gle_analog *)(const void *)(words + s.analog);
        y->rows = image->sections & GLE_HAS_ROWS ? words + s.rows + y->first : NULL;
        y->analog = image->sections & GLE_HAS_ANALOG ? analog + y->first : NULL;
        for (int32_t i = 0; y->analog != NULL && i < y->n; i++) {
            const gle_analog *own = &y->analog[i];
            const int shifted = own->offset != 0 || own->gain != GLE_GAIN_ONE;
            y->off |= (shifted ? GLE_OFF_ACTIVATION : 0) | (own->noise_u ? GLE_OFF_MEMBRANE : 0);
        }
        y->gain_words = (int32_t)gle_gain_words(y->m);
        y->gains = image->sections & GLE_HAS_GAINS ? gains : NULL;
        gains += (size_t)y->n * (size_t)y->gain_words;
        y->mask = y->image->masked ? mask : NULL;
        mask += y->image->masked ? (size_t)y->n * gle_mask_words(y->m) : 0;
        y->sources = gle_image_sources(words, l);
        if (y->back != NULL) {
            const int direct = chip->feedback->kind == GLE_DIRECT;
            y->back->image = y->image;
            y->back->e = direct ? chip->e_top : y->e;
            y->back->mask = direct ? NULL : y->mask;
        }
    }
}

/* `chip` may be NULL: then only the size is found. */
static uint64_t lay_out(const uint32_t *words, int32_t batch, uint32_t options, unsigned char *base,
                        gle_chip **made)
{
    const gle_image *image = (const gle_image *)(const void *)words;
    const gle_image_layer *layers = gle_image_layers(words);
    const int32_t columns = batch == 1 ? 1 : padded(batch, GLE_LANES);
    const gle_learner learner = gle_learner_of(image), none = {0};
    arena a = {base, 0};
    gle_chip *chip = take(&a, 1, sizeof *chip + (size_t)image->layers * sizeof chip->layer[0]);
    const gle_feedback *feedback = gle_image_feedback(words);
    const int direct = feedback != NULL && feedback->kind == GLE_DIRECT;
    const int wired = (image->sections & GLE_HAS_SOURCES) != 0;
    int32_t most = image->inputs, most_stride, first = 0;
    gle_layer *backs = feedback == NULL ? NULL : take(&a, (size_t)image->layers, sizeof *backs);
    int16_t *input = take(&a, (size_t)image->inputs * (size_t)columns, sizeof(int16_t));

    for (int32_t l = 0; l < image->layers; l++) {
        gle_layer measured = {0};
        gle_layer *y = chip == NULL ? &measured : &chip->layer[l];
        const int32_t m = gle_image_fan_in(words, l);
        int32_t back_n, back_m;
        take_layer(&a, y, layers[l].size, m,
                   layers[l].w_shift == 0 && layers[l].w_left == 0 &&
                       (image->sections & GLE_HAS_GAINS) == 0,
                   GLE_PAD_ONE > 2 && (layers[l].w_left != 0 ||
                                       (image->sections & GLE_HAS_GAINS) != 0),
                   columns, options, l + 1 == image->layers,
                   (layers[l].learn & GLE_LEARNS_TAU) != 0,
                   (layers[l].learn & GLE_LEARNS_WEIGHTS) != 0 ? &learner : &none);
        if (chip != NULL) {
            y->image = &layers[l];
            y->neurons = y->times != NULL ? y->times : gle_image_neurons(words) + first;
            y->first = first;
        }
        if (gle_image_back(words, l, &back_n, &back_m)) {
            gle_layer *back = chip == NULL ? &measured : &backs[l];
            take_weights(&a, back, back_n, back_m, layers[l].w_shift == 0 && layers[l].w_left == 0,
                         GLE_PAD_ONE > 2 && layers[l].w_left != 0, columns);
            if (chip != NULL) {
                y->back = back;
            }
        }
        if (wired && !direct) {
            int32_t *above = take(&a, (size_t)layers[l].size * (size_t)columns, sizeof *above);
            if (chip != NULL) {
                y->above = above;
            }
        }
        first += layers[l].size;
        most = layers[l].size > most ? layers[l].size : most;
        most = m > most ? m : most;
    }
    most_stride = padded(most, columns == 1 && GLE_PAD_ONE > GLE_LANES ? GLE_PAD_ONE : GLE_LANES);
    {
        /* see pack_pairs; no microcontroller has tiles */
        const int32_t deep = GLE_ALIGN >= 64 && most >= GLE_DEEP_LEAST ? GLE_DEEP : 2;
        const size_t cells = (size_t)most * (size_t)columns;
        const size_t packed = columns == 1 ? 0 : (size_t)padded(most, deep) * (size_t)columns;
        int16_t *pairs = take(&a, packed, sizeof *pairs);
        const size_t streams = columns == 1 ? 0 : (size_t)padded(columns, deep);
        int16_t *turned = take(&a, (size_t)most_stride * streams, sizeof *turned);
        int32_t *sums = take(&a, cells, sizeof *sums);
        int32_t *above0 = take(&a, cells, sizeof *above0);
        int32_t *above1 = take(&a, cells, sizeof *above1);
        int32_t *rows = take(&a, (size_t)most_stride * 4, sizeof *rows);
        uint32_t *hash = take(&a, (size_t)columns, sizeof *hash);
        uint64_t *digest = take(&a, (size_t)batch, sizeof *digest);
        int16_t *e_top = take(&a, direct ? (size_t)layers[image->layers - 1].size * (size_t)columns
                                         : 0, sizeof *e_top);
        int16_t *gathered = take(&a, wired ? (size_t)most_stride * (size_t)columns : 0,
                                 sizeof *gathered);
        if (chip != NULL) {
            chip->input = input;
            chip->pairs = pairs;
            chip->turned = turned;
            chip->sums = sums;
            chip->above[0] = above0;
            chip->above[1] = above1;
            chip->rows = rows;
            chip->hash = hash;
            chip->digest = digest;
            chip->e_top = direct ? e_top : NULL;
            chip->gathered = wired ? gathered : NULL;
            chip->image = image;
            chip->layers = image->layers;
            chip->batch = batch;
            chip->columns = columns;
            chip->options = options;
            chip->learner = learner;
            chip->seed = (uint64_t)image->seed_high << 32 | image->seed_low;
            point_at_sections(chip, words);
        }
    }
    if (made != NULL) {
        *made = chip;
    }
    return (a.used + GLE_ALIGN - 1) / GLE_ALIGN * GLE_ALIGN;
}

gle_status gle_arena_bytes(const uint32_t *words, size_t count, int32_t batch, uint32_t options,
                           size_t *bytes)
{
    const gle_status status = gle_image_check(words, count);
    uint64_t need;

    if (status != GLE_OK) {
        return status;
    }
    if (batch < 1 || batch > GLE_MAX_BATCH || bytes == NULL) {
        return GLE_BAD_ARGUMENT;
    }
    need = lay_out(words, batch, options, NULL, NULL);
    if (need > SIZE_MAX / 2) {
        return GLE_NO_MEMORY;
    }
    *bytes = (size_t)need;
    return GLE_OK;
}

gle_status gle_open(void *memory, size_t bytes, const uint32_t *words, size_t count, int32_t batch,
                    uint32_t options, const struct gle_kernels *kernels, gle_chip **chip)
{
    size_t need;
    gle_status status = gle_arena_bytes(words, count, batch, options, &need);
    unsigned char *byte = memory;

    if (status != GLE_OK) {
        return status;
    }
    if (memory == NULL || (uintptr_t)memory % GLE_ALIGN != 0 || kernels == NULL || chip == NULL) {
        return GLE_BAD_ARGUMENT;
    }
    if (bytes < need) {
        return GLE_NO_MEMORY;
    }
    for (size_t k = 0; k < need; k++) {
        byte[k] = 0;
    }
    lay_out(words, batch, options, memory, chip);
    (*chip)->kernels = kernels;
    gle_blank(*chip);
    return GLE_OK;
}
