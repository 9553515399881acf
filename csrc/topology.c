/* Sources, masks and the ways that errors come back: see topology.h. */
#include "topology.h"

enum { SHIFT_LEAST = -14, SHIFT_MOST = 31 };

static int32_t sources_end(const gle_layer *layer, const gle_chip *chip)
{
    return (int32_t)(layer - chip->layer) + 1;
}

int32_t gle_heard_frac(const gle_chip *chip, const gle_layer *layer)
{
    const int32_t l = (int32_t)(layer - chip->layer);
    int32_t frac = INT32_MAX;

    for (int32_t s = GLE_INPUT; s < sources_end(layer, chip); s++) {
        if (gle_hears(layer->sources, l, s)) {
            const int32_t own = s < 0 ? chip->image->input_frac : chip->layer[s].r_frac;
            frac = own < frac ? own : frac;
        }
    }
    return frac;
}

gle_heard gle_hear(gle_chip *chip, const gle_layer *layer)
{
    const int32_t l = (int32_t)(layer - chip->layer);
    const size_t columns = (size_t)chip->columns;
    int16_t *to = chip->gathered;
    gle_heard h = {chip->gathered, 0, 0};

    if (layer->sources == NULL) {
        const gle_heard plain = {l > 0 ? layer[-1].r : chip->input,
                                 l > 0 ? layer[-1].r_frac : chip->image->input_frac,
                                 l > 0 ? layer[-1].image->r_max : GLE_ARRAY_MAX};
        return plain;
    }
    h.frac = gle_heard_frac(chip, layer);
    for (int32_t s = GLE_INPUT; s < sources_end(layer, chip); s++) {
        const gle_layer *source = &chip->layer[s < 0 ? 0 : s];
        const size_t n = (size_t)(s < 0 ? chip->image->inputs : source->n);
        const int16_t *from = s < 0 ? chip->input : source->r;
        const int32_t shift = (s < 0 ? chip->image->input_frac : source->r_frac) - h.frac;
        const int32_t max = s < 0 ? GLE_ARRAY_MAX : source->image->r_max;
        if (!gle_hears(layer->sources, l, s)) {
            continue;
        }
        for (size_t k = 0; k < n * columns; k++) {
            to[k] = (int16_t)gle_round(from[k], shift);
        }
        to += n * columns;
        h.max = max > h.max ? max : h.max;
    }
    for (int32_t k = layer->m; k < layer->stride && columns == 1; k++) {
        *to++ = 0; /* kernels for one stream rely on it, as on that of rates */
    }
    return h;
}

/* --- errors --- */

static int32_t seen_frac(const gle_layer *layer)
{
    return layer->w_frac - layer->image->w_shift + layer->image->w_left;
}

int32_t gle_shift_errors(const gle_layer *owner, const gle_layer *from, const gle_layer *to)
{
    return seen_frac(owner) + from->e_frac - to->v_frac;
}

static void zero(int32_t *x, size_t count)
{
    for (size_t k = 0; k < count; k++) {
        x[k] = 0;
    }
}

/* Without targets there are none: half of the work of an inference. */
static int any_error(const gle_chip *chip, const gle_layer *layer)
{
    enum { PIECE = 1024 };
    const size_t count = (size_t)layer->n * (size_t)chip->columns;
    uint32_t any = 0;

    for (size_t first = 0; first < count && any == 0; first += PIECE) {
        const size_t end = count - first < PIECE ? count : first + PIECE;
        for (size_t k = first; k < end; k++) {
            any |= (uint16_t)layer->e[k];
        }
    }
    return any != 0;
}

/* Errors on their way down, rounded to the scale of their row of weights. */
static const int16_t *scaled_errors(const gle_chip *chip, const gle_layer *layer)
{
    const size_t columns = (size_t)chip->columns;

    if (layer->rows == NULL) {
        return layer->e;
    }
    for (int32_t i = 0; i < layer->n; i++) {
        const int16_t *e = layer->e + (size_t)i * columns;
        int16_t *to = chip->turned + (size_t)i * columns; /* free until something learns */
        for (size_t b = 0; b < columns; b++) {
            to[b] = (int16_t)gle_round(e[b], (int32_t)layer->rows[i]);
        }
    }
    return chip->turned;
}

/* Some columns of the weights of a single stream, in plain C: kernels do all of them. */
static void back_one(int32_t *out, const gle_layer *y, int32_t first, int32_t count, int32_t shift)
{
    const int32_t w_shift = y->image->w_shift, w_left = y->image->w_left;

    for (int32_t j = first; j < first + count; j++) {
        int64_t sum = 0;
        for (int32_t i = 0; i < y->n; i++) {
            const int16_t stored = y->w[(size_t)i * (size_t)y->stride + (size_t)j];
            const int32_t e = gle_round(y->e[i], y->rows ? (int32_t)y->rows[i] : 0);
            int32_t w = gle_round(stored, w_shift) * (1 << w_left);
            if (y->gains != NULL) {
                const uint32_t *g = y->gains + (size_t)i * (size_t)y->gain_words;
                w = gle_synapse(w, gle_half_word(g[j >> 1], j & 1));
            }
            sum += w * e;
        }
        *out++ = gle_clamp64(gle_round64(sum, shift), GLE_SUM_MAX);
    }
}

/* Columns first .. first + count of a matrix, transposed, times its layer's errors; for
 * several streams these must have been packed, and none is larger than `largest`. */
static void back(const gle_chip *chip, const gle_layer *y, int32_t first, int32_t count,
                 int32_t shift, int32_t largest, int32_t *out)
{
    if (chip->columns > 1 && y->most == GLE_NO_COPIES) {
        chip->kernels->stored->back(out, y, first, count, chip->pairs, chip->columns, chip->batch,
                                    shift, largest);
    } else if (chip->columns > 1) {
        chip->kernels->product(out, y->seen_t + (size_t)first * (size_t)y->stride_t, y->stride_t,
                               count, y->n, chip->pairs, chip->columns, shift, NULL,
                               gle_sums_fit(y->most_t, largest, shift, NULL));
    } else if (count == y->m) {
        chip->kernels->product_one_back(out, y, shift);
    } else {
        back_one(out, y, first, count, shift);
    }
}

/* Returns the largest of them. */
static int32_t pack_errors(const gle_chip *chip, const gle_layer *y)
{
    if (chip->columns == 1) {
        return GLE_ARRAY_MAX;
    }
    return chip->kernels->pack_pairs(chip->pairs, scaled_errors(chip, y), y->n, chip->columns);
}

/* To every source of a layer that is one. */
static void send(const gle_chip *chip, const gle_layer *layer)
{
    const gle_layer *y = layer->back != NULL ? layer->back : layer;
    const int32_t l = (int32_t)(layer - chip->layer);
    int32_t *const part = chip->above[0];
    int32_t first = gle_hears(layer->sources, l, GLE_INPUT) ? chip->image->inputs : 0, largest;

    if (first == layer->m || !any_error(chip, layer)) {
        return;
    }
    largest = pack_errors(chip, y);
    for (int32_t s = 0; s <= l; s++) {
        const gle_layer *to = &chip->layer[s];
        if (!gle_hears(layer->sources, l, s)) {
            continue;
        }
        back(chip, y, first, to->n, gle_shift_errors(layer, layer, to), largest, part);
        for (size_t k = 0; k < (size_t)to->n * (size_t)chip->columns; k++) {
            to->above[k] = gle_clamp64((int64_t)to->above[k] + part[k], GLE_SUM_MAX);
        }
        first += to->n;
    }
}

void gle_errors_begin(gle_chip *chip, const int16_t *target)
{
    gle_layer *top = &chip->layer[chip->layers - 1];
    const size_t columns = (size_t)chip->columns;

    if (chip->e_top != NULL) {
        for (size_t k = 0; k < (size_t)top->n * columns; k++) {
            chip->e_top[k] = top->e[k];
        }
    }
    for (gle_layer *y = chip->layer; y != top && y->above != NULL; y++) {
        zero(y->above, (size_t)y->n * columns);
    }
    gle_target_error(chip, top, target, top->above != NULL ? top->above : chip->above[0]);
}

const int32_t *gle_errors(gle_chip *chip, gle_layer *layer)
{
    const int32_t l = (int32_t)(layer - chip->layer), which = (chip->layers - 1 - l) & 1;
    const gle_layer *y = layer->back != NULL ? layer->back : layer;

    if (chip->e_top != NULL) {
        if (layer->back != NULL && any_error(chip, y)) {
            const int32_t largest = pack_errors(chip, y);
            back(chip, y, 0, y->m,
                 gle_shift_errors(layer, &chip->layer[chip->layers - 1], layer), largest,
                 chip->above[1]);
        } else if (layer->back != NULL) {
            zero(chip->above[1], (size_t)layer->n * (size_t)chip->columns);
        }
        return chip->above[layer->back != NULL];
    }
    if (layer->above != NULL) {
        send(chip, layer);
        return layer->above;
    }
    if (l > 0 && any_error(chip, layer)) {
        const int32_t largest = pack_errors(chip, y);
        back(chip, y, 0, y->m, gle_shift_errors(layer, layer, layer - 1), largest,
             chip->above[1 - which]);
    } else if (l > 0) {
        zero(chip->above[1 - which], (size_t)layer->m * (size_t)chip->columns);
    }
    return chip->above[which];
}

/* --- formats --- */

static gle_fracs fracs_of(const gle_layer *y, int noted)
{
    const gle_fracs now = {(int8_t)y->w_frac, (int8_t)y->r_frac, (int8_t)y->e_frac,
                           (int8_t)y->v_frac};
    return noted ? y->noted : now;
}

static int usable(int32_t shift) { return shift >= SHIFT_LEAST && shift <= SHIFT_MOST; }

static int layer_possible(const gle_chip *chip, int32_t l, int noted)
{
    const gle_layer *y = &chip->layer[l];
    const gle_fracs own = fracs_of(y, noted);
    const gle_fracs top = fracs_of(&chip->layer[chip->layers - 1], noted);
    const int32_t seen = own.w - y->image->w_shift + y->image->w_left;
    int32_t frac = INT32_MAX;

    if (chip->e_top != NULL && y->back != NULL && !usable(seen + top.e - own.v)) {
        return 0;
    }
    for (int32_t s = GLE_INPUT; s <= l; s++) {
        const gle_fracs to = fracs_of(&chip->layer[s < 0 ? 0 : s], noted);
        const int32_t rate = s < 0 ? chip->image->input_frac : to.r;
        if (!gle_hears(y->sources, l, s)) {
            continue;
        }
        frac = rate < frac ? rate : frac;
        if (s >= 0 && chip->e_top == NULL && !usable(seen + own.e - to.v)) {
            return 0;
        }
    }
    return usable(seen + frac - y->u_frac) && usable(seen + frac - y->u_frac + gle_finest_row(y));
}

int gle_shifts_possible(const gle_chip *chip, int noted)
{
    for (int32_t l = 0; l < chip->layers; l++) {
        if (!layer_possible(chip, l, noted)) {
            return 0;
        }
    }
    return 1;
}

/* --- stored weights --- */

static void absent(const gle_layer *layer, int16_t *w, int32_t stride)
{
    for (int32_t i = 0; i < layer->n; i++) {
        const uint32_t *mask = gle_mask_row(layer, i);
        for (int32_t j = 0; j < layer->m; j++) {
            if (!gle_synapse_there(mask, j)) {
                w[(size_t)i * (size_t)stride + (size_t)j] = 0;
            }
        }
    }
}

void gle_absent_weights(gle_layer *layer)
{
    if (layer->mask == NULL) {
        return;
    }
    absent(layer, layer->w, layer->stride);
    if (layer->back != NULL && layer->back->mask != NULL) {
        absent(layer, layer->back->w, layer->back->stride);
    }
}

void gle_absent_sums(const gle_layer *layer, int32_t first, int32_t rows, int32_t *sums)
{
    for (int32_t i = 0; i < rows && layer->mask != NULL; i++) {
        const uint32_t *mask = gle_mask_row(layer, first + i);
        for (int32_t j = 0; j < layer->m; j++) {
            if (!gle_synapse_there(mask, j)) {
                sums[(size_t)i * (size_t)layer->stride + (size_t)j] = 0;
            }
        }
    }
}

int32_t gle_weight_count(const gle_layer *layer)
{
    return layer->n * layer->m + (layer->back != NULL ? layer->back->n * layer->back->m : 0);
}

int16_t *gle_weight_at(const gle_layer *layer, int32_t number, int *absent_here)
{
    const int32_t own = layer->n * layer->m;
    const gle_layer *y = number < own ? layer : layer->back;
    const int32_t at = number < own ? number : number - own;
    const int32_t i = at / y->m, j = at % y->m;

    *absent_here = !gle_synapse_there(gle_mask_row(y, i), j);
    return &y->w[(size_t)i * (size_t)y->stride + (size_t)j];
}
