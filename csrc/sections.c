#include "sections.h"

#include "analog.h"
#include "image.h"
#include "topology.h"

enum { FEEDBACK = (int)(sizeof(gle_feedback) / 4), ANALOG = (int)(sizeof(gle_analog) / 4) };

static const gle_image *head(const uint32_t *words)
{
    return (const gle_image *)(const void *)words;
}

static int between(int32_t x, int32_t least, int32_t most) { return x >= least && x <= most; }

static size_t neurons_of(const uint32_t *words)
{
    const gle_image_layer *layers = gle_image_layers(words);
    size_t total = 0;

    for (int32_t l = 0; l < head(words)->layers; l++) {
        total += (size_t)layers[l].size;
    }
    return total;
}

static const uint32_t *behind_neurons(const uint32_t *words)
{
    return (const uint32_t *)(const void *)(gle_image_neurons(words) + neurons_of(words));
}

const uint32_t *gle_image_sources(const uint32_t *words, int32_t l)
{
    if ((head(words)->sections & GLE_HAS_SOURCES) == 0) {
        return NULL;
    }
    return behind_neurons(words) + (size_t)l * GLE_SOURCE_WORDS;
}

int32_t gle_image_fan_in(const uint32_t *words, int32_t l)
{
    const gle_image_layer *layers = gle_image_layers(words);
    const uint32_t *sources = gle_image_sources(words, l);
    int32_t m = 0;

    for (int32_t s = GLE_INPUT; s <= l; s++) {
        if (gle_hears(sources, l, s)) {
            m += s < 0 ? head(words)->inputs : layers[s].size;
        }
    }
    return m;
}

const gle_feedback *gle_image_feedback(const uint32_t *words)
{
    const size_t sources = head(words)->sections & GLE_HAS_SOURCES
                               ? (size_t)head(words)->layers * GLE_SOURCE_WORDS
                               : 0;
    if ((head(words)->sections & GLE_HAS_FEEDBACK) == 0) {
        return NULL;
    }
    return (const gle_feedback *)(const void *)(behind_neurons(words) + sources);
}

int gle_image_back(const uint32_t *words, int32_t l, int32_t *n, int32_t *m)
{
    const gle_image_layer *layers = gle_image_layers(words);
    const gle_feedback *feedback = gle_image_feedback(words);
    const uint32_t *sources = gle_image_sources(words, l);
    const int32_t top = head(words)->layers - 1;

    if (feedback == NULL) {
        return 0;
    }
    if (feedback->kind == GLE_DIRECT) {
        *n = layers[top].size;
        *m = layers[l].size;
        return l < top;
    }
    *n = layers[l].size;
    *m = gle_image_fan_in(words, l);
    for (int32_t s = 0; s <= l; s++) {
        if (gle_hears(sources, l, s)) {
            return 1;
        }
    }
    return 0;
}

static int sources_ok(const uint32_t *words)
{
    for (int32_t l = 0; l < head(words)->layers; l++) {
        const uint32_t *own = gle_image_sources(words, l);
        for (int32_t s = l + 1; own != NULL && s < 32 * GLE_SOURCE_WORDS - 1; s++) {
            if (gle_hears(own, l, s)) {
                return 0;
            }
        }
        if (!between(gle_image_fan_in(words, l), 1, GLE_MAX_SIZE)) {
            return 0;
        }
    }
    return 1;
}

static int feedback_ok(const gle_feedback *f)
{
    return f == NULL ||
           (between(f->kind, GLE_ALIGNMENT, GLE_DIRECT) && between(f->decay_shift, 1, 30) &&
            f->decay_every >= 0 && (f->decay_every == 0 || f->kind == GLE_KOLEN_POLLACK));
}

int gle_sections_first_ok(const uint32_t *words, size_t count)
{
    const uint32_t has = head(words)->sections;
    size_t need = (size_t)(behind_neurons(words) - words);

    need += has & GLE_HAS_SOURCES ? (size_t)head(words)->layers * GLE_SOURCE_WORDS : 0;
    need += has & GLE_HAS_FEEDBACK ? (size_t)FEEDBACK : 0;
    return count >= need && sources_ok(words) && feedback_ok(gle_image_feedback(words));
}

gle_sections gle_sections_of(const uint32_t *words, size_t total)
{
    const gle_image *image = head(words);
    const gle_image_layer *layers = gle_image_layers(words);
    const uint32_t has = image->sections;
    gle_sections s;

    s.sources = (size_t)(behind_neurons(words) - words);
    s.feedback = s.sources +
                 (has & GLE_HAS_SOURCES ? (size_t)image->layers * GLE_SOURCE_WORDS : 0);
    s.rows = s.feedback + (has & GLE_HAS_FEEDBACK ? (size_t)FEEDBACK : 0);
    s.analog = s.rows + (has & GLE_HAS_ROWS ? total : 0);
    s.inputs = s.analog + (has & GLE_HAS_ANALOG ? total * (size_t)ANALOG : 0);
    s.gains = s.inputs + (has & GLE_HAS_INPUTS ? (size_t)image->inputs : 0);
    s.masks = s.gains;
    for (int32_t l = 0; l < image->layers && (has & GLE_HAS_GAINS); l++) {
        s.masks += (size_t)layers[l].size * gle_gain_words(gle_image_fan_in(words, l));
    }
    s.end = s.masks;
    for (int32_t l = 0; l < image->layers && (has & GLE_HAS_MASKS); l++) {
        if (layers[l].masked) {
            s.end += (size_t)layers[l].size * gle_mask_words(gle_image_fan_in(words, l));
        }
    }
    return s;
}

static int analog_ok(const gle_analog *y)
{
    return between(y->offset, -GLE_STATE_MAX, GLE_STATE_MAX) &&
           between(y->gain, 0, 2 * GLE_GAIN_ONE - 1) && gle_noise_ok(y->noise_u) &&
           gle_half_word(y->adc, 0) >= 0;
}

static int any_masked(const uint32_t *words)
{
    uint32_t any = 0;

    for (int32_t l = 0; l < head(words)->layers; l++) {
        any |= gle_image_layers(words)[l].masked;
    }
    return any != 0;
}

/* A synapse that is not there cannot be stuck: what the array sees of it is 0. */
static int masks_ok(const uint32_t *words, const gle_sections *s)
{
    const gle_image_layer *layers = gle_image_layers(words);
    const uint32_t *gains = words + s->gains, *mask = words + s->masks;
    const int has_gains = s->masks > s->gains;

    for (int32_t l = 0; l < head(words)->layers; l++) {
        const int32_t m = gle_image_fan_in(words, l);
        for (int32_t i = 0; i < layers[l].size; i++) {
            for (int32_t j = 0; j < m && has_gains && layers[l].masked; j++) {
                if (!gle_synapse_there(mask, j) && gle_half_word(gains[j >> 1], j & 1) < 0) {
                    return 0;
                }
            }
            gains += has_gains ? gle_gain_words(m) : 0;
            mask += layers[l].masked ? gle_mask_words(m) : 0;
        }
    }
    return 1;
}

int gle_sections_ok(const uint32_t *words, const gle_sections *s, size_t total)
{
    const gle_analog *analog = (const gle_analog *)(const void *)(words + s->analog);

    for (size_t k = s->rows; k < s->analog; k++) {
        if (words[k] > 7) {
            return 0;
        }
    }
    for (size_t i = 0; i < total && s->inputs > s->analog; i++) {
        if (!analog_ok(&analog[i])) {
            return 0;
        }
    }
    for (size_t k = s->inputs; k < s->gains; k++) {
        if (gle_half_word(words[k], 0) < 0) {
            return 0;
        }
    }
    for (size_t k = s->gains; k < s->masks; k++) {
        if (gle_half_word(words[k], 0) < -2 * GLE_ARRAY_MAX - 1 ||
            gle_half_word(words[k], 1) < -2 * GLE_ARRAY_MAX - 1) {
            return 0;
        }
    }
    return any_masked(words) == ((head(words)->sections & GLE_HAS_MASKS) != 0) &&
           masks_ok(words, s);
}

static int32_t most_row(const uint32_t *rows, int32_t n)
{
    uint32_t most = 0;

    for (int32_t i = 0; rows != NULL && i < n; i++) {
        most = rows[i] > most ? rows[i] : most;
    }
    return (int32_t)most;
}

static int layer_shifts_ok(const uint32_t *words, int32_t l, int32_t finest)
{
    const gle_image_layer *layers = gle_image_layers(words), *y = &layers[l];
    const gle_image_layer *top = &layers[head(words)->layers - 1];
    const gle_feedback *feedback = gle_image_feedback(words);
    const uint32_t *sources = gle_image_sources(words, l);
    const int32_t seen = y->w_frac - y->w_shift + y->w_left;
    const int direct = feedback != NULL && feedback->kind == GLE_DIRECT;
    int32_t below = INT32_MAX;

    for (int32_t s = GLE_INPUT; s <= l; s++) {
        const int32_t rate = s < 0 ? head(words)->input_frac : layers[s].r_frac;
        if (!gle_hears(sources, l, s)) {
            continue;
        }
        below = rate < below ? rate : below;
        if (s >= 0 && !direct &&
            !between(seen + y->e_frac - layers[s].e_frac - layers[s].v_frac_extra, -14, 31)) {
            return 0;
        }
    }
    return between(seen + below - y->u_frac, -14, 31 - finest) &&
           (!direct || y == top ||
            between(seen + top->e_frac - y->e_frac - y->v_frac_extra, -14, 31));
}

int gle_image_shifts_ok(const uint32_t *words, const gle_sections *s)
{
    const gle_image_layer *layers = gle_image_layers(words);
    const uint32_t *rows = head(words)->sections & GLE_HAS_ROWS ? words + s->rows : NULL;

    for (int32_t l = 0; l < head(words)->layers; l++) {
        if (!layer_shifts_ok(words, l, most_row(rows, layers[l].size))) {
            return 0;
        }
        rows = rows == NULL ? NULL : rows + layers[l].size;
    }
    return 1;
}
