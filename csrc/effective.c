/* From stored weights to what the array multiplies with, and their sums, from which products
 * prove that theirs fit.
 *
 * With several streams the core keeps two copies of the weights as the array sees
 * them, one of them transposed, made again only when stored weights changed. A machine that can
 * multiply with weights as they are stored does so while they change at every step. A single
 * stream has one where synapses differ and the machine has vectors (and memory), or where
 * it was lent the room for it.
 */
#include "chip.h"
#include "single.h"

enum { TURNED = 32 /* rows at a time */ };

static int32_t largest(const int32_t *x, int32_t count)
{
    int32_t most = 0;

    for (int32_t j = 0; j < count; j++) {
        most = x[j] > most ? x[j] : most;
    }
    return most;
}

static void forget_tops(gle_layer *y)
{
    for (int32_t i = 0; y->tops != NULL && i < y->n; i++) {
        y->tops[i] = (uint16_t)y->image->w_max; /* not known */
    }
}

#if GLE_ALIGN < 64
/* Whether a layer whose array does not see what is stored could keep what it does see. */
static int has_use(const gle_chip *chip, const gle_layer *y)
{
    return chip->columns == 1 && (y->gains != NULL || y->image->w_shift != 0 ||
                                  y->image->w_left != 0);
}

static size_t up8(size_t bytes) { return (bytes + 7) & ~(size_t)7; }

static size_t copy_bytes(const gle_chip *chip, const gle_layer *y)
{
    return has_use(chip, y) ? up8((size_t)y->n * (size_t)y->stride * sizeof *y->lent) : 0;
}

/* Of bounds, where there is a kernel that goes by them. */
static size_t tops_bytes(const gle_chip *chip, const gle_layer *y)
{
#ifdef GLE_LEARN_LAYER
    const int learns = (y->image->learn & GLE_LEARNS_WEIGHTS) != 0;
    return chip->columns == 1 && learns ? up8((size_t)y->n * sizeof *y->tops) : 0;
#else
    (void)chip;
    (void)y;
    return 0;
#endif
}

/* Whether looking as it goes is cheaper: of weights that just changed and may do so again,
 * for a layer whose weights are only multiplied forward and by a shift from what is seen. */
static int looks_as_it_goes(const gle_chip *chip, const gle_layer *y, int32_t stale)
{
    const int only_forward = chip->feedback != NULL || y == &chip->layer[0];
    return stale != 0 && only_forward && y->gains == NULL && y->image->w_left == 0;
}

static void see_lent(const gle_chip *chip, gle_layer *y, int32_t stale)
{
    const gle_seeing how = {y->image->w_shift, y->image->w_left};
    const uint32_t *gains = y->gains;
    const int16_t *w = y->w;
    int16_t *seen = y->lent;

    y->seen = looks_as_it_goes(chip, y, stale) ? y->w : y->lent;
    for (int32_t i = 0; i < y->n && y->seen != y->w; i++, w += y->stride, seen += y->stride) {
        GLE_ONE(see_one)(seen, w, gains == NULL ? y->stride : y->m, &how, gains);
        gains = gains == NULL ? NULL : gains + y->gain_words;
    }
}
#endif

size_t gle_spare_bytes(const gle_chip *chip)
{
    size_t bytes = 0;

#if GLE_ALIGN < 64
    for (int32_t l = 0; l < chip->layers; l++) {
        bytes += copy_bytes(chip, &chip->layer[l]) + tops_bytes(chip, &chip->layer[l]);
    }
#else
    (void)chip;
#endif
    return bytes;
}

void gle_lend(gle_chip *chip, void *memory, size_t bytes)
{
#if GLE_ALIGN < 64
    unsigned char *at = memory;
    size_t left = memory == NULL ? 0 : bytes;

    for (int32_t l = 0; l < chip->layers; l++) { /* bounds first: they are few */
        gle_layer *y = &chip->layer[l];
        const size_t need = tops_bytes(chip, y);
        y->tops = NULL;
        if (need != 0 && need <= left) {
            y->tops = (uint16_t *)(void *)at;
            forget_tops(y);
            at += need;
            left -= need;
        }
    }
    for (int32_t l = 0; l < chip->layers; l++) {
        gle_layer *y = &chip->layer[l];
        const size_t need = copy_bytes(chip, y);
        if (need == 0) {
            continue;
        }
        y->seen = y->w;
        y->lent = NULL;
        if (need <= left) {
            y->lent = (int16_t *)(void *)at;
            at += need;
            left -= need;
        }
        for (int32_t i = 0; y->lent != NULL && i < y->n; i++) { /* padding: the last of a row */
            y->lent[(i + 1) * y->stride - 1] = 0;
        }
    }
#else
    (void)chip;
    (void)memory;
    (void)bytes;
#endif
}

/* Whether the products of a step are better off without copies. */
static int as_stored(const gle_chip *chip, const gle_layer *y)
{
    return GLE_READS_STORED(chip->kernels, y) && (y->stale != 0 || chip->kernels->stored->always);
}

void gle_layer_effective(gle_chip *chip, gle_layer *layer)
{
    const gle_seeing how = {layer->image->w_shift, layer->image->w_left};
    int32_t *const columns = chip->rows; /* sums of |w| over the neurons */
    int32_t most = 0;

    if (layer->stale != 0 && layer->stale != GLE_TOPS_HOLD) {
        forget_tops(layer);
    }
#if GLE_ALIGN < 64
    if (layer->lent != NULL) {
        see_lent(chip, layer, layer->stale);
        layer->stale = 0;
        return;
    }
#endif
    layer->most = GLE_NO_COPIES;
    if (chip->columns == 1 ? layer->seen == layer->w : as_stored(chip, layer)) {
        layer->stale = 0;
        return; /* looked at as it goes */
    }
    layer->stale = 0;
    for (int32_t j = 0; j < layer->stride; j++) {
        columns[j] = 0;
    }
    for (int32_t i = 0; i < layer->n; i++) {
        const int16_t *w = layer->w + (size_t)i * (size_t)layer->stride;
        int16_t *seen = layer->seen + (size_t)i * (size_t)layer->stride;
        const uint32_t *gains =
            layer->gains ? layer->gains + (size_t)i * (size_t)layer->gain_words : NULL;
        /* padding stays 0, and whole vectors are quicker than rows that end within one */
        const int32_t count = gains ? layer->m : layer->stride;
        const int32_t sum = chip->kernels->see(seen, w, count, &how, gains, columns);
        most = sum > most ? sum : most;
        if (chip->columns > 1 && ((i + 1) % TURNED == 0 || i + 1 == layer->n)) {
            /* while they are near */
            const int32_t first = i / TURNED * TURNED;
            chip->kernels->transpose(layer->seen_t + first,
                                     layer->seen + (size_t)first * (size_t)layer->stride,
                                     i + 1 - first, layer->m, layer->stride, layer->stride_t);
        }
    }
    if (chip->columns == 1) {
        return;
    }
    layer->most = most;
    layer->most_t = largest(columns, layer->m);
}
