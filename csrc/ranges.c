/* Scales that follow the signals: errors grow 200-fold while a network learns, rates
 * of unbounded activations and weights grow too.
 *
 * Looked at every range_every steps, never in between, so that it cannot matter how
 * a run is cut into calls. An error's scale gets coarser by one bit when more than the
 * accepted share of its values clipped, finer when fewer than half of that share would
 * clip then; rates and weights, where a clip costs more, move at the first clips.
 */
#include "learner.h"
#include "topology.h"

enum { E_FRAC_LEAST = -12, E_FRAC_MOST = 24 };

static int32_t seen_frac(const gle_layer *layer)
{
    return layer->w_frac - layer->image->w_shift + layer->image->w_left;
}

/* Rounding shift of a layer's W below. */
int32_t gle_shift_forward(const gle_layer *layer, int32_t below_frac)
{
    return seen_frac(layer) + below_frac - layer->u_frac;
}

/* Of a layer's rows; their shifts go up by it. */
int32_t gle_finest_row(const gle_layer *layer)
{
    uint32_t most = 0;

    for (int32_t i = 0; layer->rows != NULL && i < layer->n; i++) {
        most = layer->rows[i] > most ? layer->rows[i] : most;
    }
    return (int32_t)most;
}

static void shift16(int16_t *x, size_t count, int32_t finer, int32_t limit)
{
    for (size_t k = 0; k < count; k++) {
        const int32_t y = finer ? x[k] * 2 : gle_round(x[k], 1);
        x[k] = (int16_t)gle_clamp(y, limit);
    }
}

static void move_error(gle_chip *chip, gle_layer *layer, int32_t finer)
{
    const size_t count = (size_t)layer->n * (size_t)chip->columns;
    const int32_t step = finer ? 1 : -1;

    layer->e_frac += step;
    layer->v_frac += step;
    if (layer->e_frac < E_FRAC_LEAST || layer->e_frac > E_FRAC_MOST || !gle_shifts_possible(chip, 0)) {
        layer->e_frac -= step;
        layer->v_frac -= step;
        return;
    }
    shift16(layer->e, count, finer, layer->image->e_max);
    gle_memory_moved(layer, 1, 1, finer);
    for (size_t k = 0; k < count; k++) {
        const int64_t v = finer ? (int64_t)layer->v[k] * 2 : gle_round(layer->v[k], 1);
        layer->v[k] = gle_clamp64(v, GLE_STATE_MAX);
    }
    layer->counters.range_moves++;
}

/* A source's rates moved by one bit: so did the gradients of those who hear it, if that moved
 * the coarsest of their sources. */
static void memory_follows(gle_chip *chip, gle_layer *source, int32_t finer)
{
    const int32_t step = finer ? 1 : -1, s = (int32_t)(source - chip->layer);

    for (int32_t l = s; l < chip->layers; l++) {
        gle_layer *y = &chip->layer[l];
        const int32_t now = gle_heard_frac(chip, y);
        int32_t before;
        if (y->memory == NULL || !gle_hears(y->sources, l, s)) {
            continue;
        }
        source->r_frac -= step;
        before = gle_heard_frac(chip, y);
        source->r_frac += step;
        if (now != before) {
            gle_memory_moved(y, 1, 0, finer);
        }
    }
}

static void move_rate(gle_chip *chip, gle_layer *layer, int32_t finer)
{
    const int32_t step = finer ? 1 : -1;

    layer->r_frac += step;
    if ((finer && (layer->r_frac > 15 || layer->r_frac > layer->u_frac - 4)) ||
        layer->r_frac < GLE_R_FRAC_LEAST || layer->u_frac - layer->r_frac > 30 ||
        !gle_shifts_possible(chip, 0)) {
        layer->r_frac -= step;
        return;
    }
    shift16(layer->r, (size_t)layer->n * (size_t)chip->columns, finer, layer->image->r_max);
    memory_follows(chip, layer, finer);
    layer->counters.range_moves++;
}

static void widen_weights(gle_chip *chip, gle_layer *layer)
{

    layer->w_frac--;
    if (!gle_shifts_possible(chip, 0)) {
        layer->w_frac++;
        return;
    }
    shift16(layer->w, (size_t)layer->n * (size_t)layer->stride, 0, layer->image->w_max);
    layer->stale = 1;
    if (layer->back != NULL) { /* in the format of the weights */
        gle_layer *back = layer->back;
        shift16(back->w, (size_t)back->n * (size_t)back->stride, 0, layer->image->w_max);
        back->stale = 1;
    }
    layer->counters.range_moves++;
}

static void look(gle_chip *chip, gle_layer *layer)
{
    const gle_window *w = &layer->window;
    const uint64_t samples = w->samples;
    const uint64_t clip = (uint32_t)chip->image->range_clip;
    const uint32_t r_max = (uint32_t)layer->image->r_max;
    const int32_t bounded = layer->image->phi == GLE_TANH || layer->image->phi == GLE_SIGMOID;

    if (samples == 0) {
        return;
    }
    if ((uint64_t)w->sat_e << 16 > samples * clip) {
        move_error(chip, layer, 0);
    } else if ((uint64_t)w->half_e << 17 < samples * clip) {
        move_error(chip, layer, 1);
    }
    if (!bounded) {
        if ((uint64_t)w->sat_r * 10000 > samples) {
            move_rate(chip, layer, 0);
        } else if (w->sat_r == 0 && w->peak_r != 0 && w->peak_r * 10 < r_max * 4) {
            move_rate(chip, layer, 1);
        }
    }
    if (w->sat_w != 0 && (layer->image->learn & GLE_HOLDS_RANGE) == 0) {
        widen_weights(chip, layer);
    }
}

void gle_autorange(gle_chip *chip)
{
    static const gle_window empty = {0, 0, 0, 0, 0, 0};

    if (chip->image->range_every == 0 ||
        chip->step % (uint64_t)(uint32_t)chip->image->range_every != 0) {
        return;
    }
    for (int32_t l = 0; l < chip->layers; l++) {
        look(chip, &chip->layer[l]);
        chip->layer[l].window = empty;
    }
}
