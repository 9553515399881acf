/* Reading and writing what a chip holds: weights, gradients, signals, counters. */
#include "topology.h"

static int layer_bad(const gle_chip *chip, int32_t layer)
{
    return layer < 0 || layer >= chip->layers;
}

static int range_bad(int32_t first, int32_t count, int32_t have)
{
    return first < 0 || count < 0 || first > have || count > have - first;
}

static void stale(gle_layer *y)
{
    y->stale = 1;
    if (y->back != NULL) {
        y->back->stale = 1;
    }
}

gle_status gle_weights_write(gle_chip *chip, int32_t l, int32_t first, int32_t count,
                             const int16_t *from)
{
    gle_layer *y;

    if (layer_bad(chip, l)) {
        return GLE_BAD_ARGUMENT;
    }
    y = &chip->layer[l];
    if (range_bad(first, count, gle_weight_count(y))) {
        return GLE_BAD_ARGUMENT;
    }
    for (int32_t k = 0; k < count; k++) {
        int absent;
        int16_t *w = gle_weight_at(y, first + k, &absent);
        *w = absent ? (int16_t)0 : (int16_t)gle_clamp(from[k], y->image->w_max);
    }
    stale(y);
    return GLE_OK;
}

gle_status gle_weights_read(const gle_chip *chip, int32_t l, int32_t first, int32_t count,
                            int16_t *to)
{
    const gle_layer *y;

    if (layer_bad(chip, l)) {
        return GLE_BAD_ARGUMENT;
    }
    y = &chip->layer[l];
    if (range_bad(first, count, gle_weight_count(y))) {
        return GLE_BAD_ARGUMENT;
    }
    for (int32_t k = 0; k < count; k++) {
        int absent;
        to[k] = *gle_weight_at(y, first + k, &absent);
    }
    return GLE_OK;
}

gle_status gle_weights_add(gle_chip *chip, int32_t l, int32_t first, int32_t count,
                           const int16_t *from)
{
    gle_layer *y;
    uint32_t clipped = 0;

    if (layer_bad(chip, l) || range_bad(first, count, gle_weight_count(&chip->layer[l]))) {
        return GLE_BAD_ARGUMENT;
    }
    y = &chip->layer[l];
    for (int32_t k = 0; k < count; k++) {
        int absent;
        int16_t *w = gle_weight_at(y, first + k, &absent);
        const int32_t sum = absent ? 0 : (int32_t)*w + from[k];
        *w = (int16_t)gle_clamp(sum, y->image->w_max);
        clipped += (uint32_t)(*w != sum);
    }
    y->counters.sat_w += clipped;
    stale(y);
    return GLE_OK;
}

gle_status gle_bias_add(gle_chip *chip, int32_t l, int32_t first, int32_t count,
                        const int32_t *from)
{
    uint32_t clipped = 0;

    if (layer_bad(chip, l) || range_bad(first, count, chip->layer[l].n)) {
        return GLE_BAD_ARGUMENT;
    }
    for (int32_t k = 0; k < count; k++) {
        int32_t *bias = &chip->layer[l].bias[first + k];
        const int64_t sum = (int64_t)*bias + from[k];
        *bias = gle_clamp64(sum, GLE_STATE_MAX);
        clipped += (uint32_t)(*bias != sum);
    }
    chip->layer[l].counters.sat_w += clipped;
    chip->digest_known = 0;
    return GLE_OK;
}

gle_status gle_bias_write(gle_chip *chip, int32_t l, int32_t first, int32_t count,
                          const int32_t *from)
{
    if (layer_bad(chip, l) || range_bad(first, count, chip->layer[l].n)) {
        return GLE_BAD_ARGUMENT;
    }
    for (int32_t k = 0; k < count; k++) {
        chip->layer[l].bias[first + k] = gle_clamp(from[k], GLE_STATE_MAX);
    }
    chip->digest_known = 0;
    return GLE_OK;
}

gle_status gle_bias_read(const gle_chip *chip, int32_t l, int32_t first, int32_t count,
                         int32_t *to)
{
    if (layer_bad(chip, l) || range_bad(first, count, chip->layer[l].n)) {
        return GLE_BAD_ARGUMENT;
    }
    for (int32_t k = 0; k < count; k++) {
        to[k] = chip->layer[l].bias[first + k];
    }
    return GLE_OK;
}

gle_status gle_gradient(const gle_chip *chip, int32_t l, int32_t *weight, int32_t *bias)
{
    const gle_layer *y;

    if (layer_bad(chip, l) || chip->layer[l].gradient == NULL) {
        return GLE_BAD_ARGUMENT;
    }
    y = &chip->layer[l];
    for (int32_t i = 0; i < y->n; i++) {
        for (int32_t j = 0; j < y->m; j++) {
            *weight++ = y->gradient[(size_t)i * (size_t)y->stride + (size_t)j];
        }
        bias[i] = y->gradient_bias[i];
    }
    return GLE_OK;
}

gle_status gle_gradient_part(const gle_chip *chip, int32_t l, int32_t first, int32_t count,
                             int32_t *to)
{
    const gle_layer *y;

    if (layer_bad(chip, l) || chip->layer[l].gradient == NULL) {
        return GLE_BAD_ARGUMENT;
    }
    y = &chip->layer[l];
    if (range_bad(first, count, y->n * (y->m + 1 + (y->gradient_tau != NULL)))) {
        return GLE_BAD_ARGUMENT;
    }
    for (int32_t k = first; k < first + count; k++) {
        const int32_t behind = k - y->n * y->m;
        *to++ = behind < 0
                    ? y->gradient[(size_t)(k / y->m) * (size_t)y->stride + (size_t)(k % y->m)]
                : behind < y->n ? y->gradient_bias[behind]
                                : y->gradient_tau[behind - y->n];
    }
    return GLE_OK;
}

static int32_t signal_at(const gle_chip *chip, int32_t l, int32_t signal, int32_t i, int32_t b)
{
    const gle_layer *y = &chip->layer[l];
    const size_t at = (size_t)i * (size_t)chip->columns + (size_t)b;

    switch (signal) {
    case GLE_SIGNAL_U:
        return y->u[at];
    case GLE_SIGNAL_UHAT:
        return y->uhat[at];
    case GLE_SIGNAL_V:
        return y->v[at];
    default:
        return y->e[at];
    }
}

static int signal_bad(const gle_chip *chip, int32_t l, int32_t signal)
{
    return layer_bad(chip, l) || signal < 0 || signal >= GLE_SIGNAL_COUNT ||
           (signal == GLE_SIGNAL_UHAT && chip->layer[l].uhat == NULL);
}

gle_status gle_read_part(const gle_chip *chip, int32_t l, int32_t signal, int32_t first,
                         int32_t count, int32_t *to)
{
    const gle_layer *y;

    if (signal_bad(chip, l, signal) ||
        range_bad(first, count, chip->batch * chip->layer[l].n)) {
        return GLE_BAD_ARGUMENT;
    }
    y = &chip->layer[l];
    if (signal == GLE_SIGNAL_R) {
        gle_reader how = gle_reader_of(chip, l);
        for (int32_t k = first; k < first + count; k++) {
            gle_read_rates(chip, &how, l, k % y->n, k / y->n, 1, to++);
        }
        return GLE_OK;
    }
    for (int32_t k = first; k < first + count; k++) {
        *to++ = signal_at(chip, l, signal, k % y->n, k / y->n);
    }
    return GLE_OK;
}

/* All rates, a neuron of several streams at a time. */
static void read_rates(const gle_chip *chip, int32_t l, int32_t *to)
{
    enum { SOME = GLE_ALIGN >= 64 ? 64 : 1 };
    const int32_t n = chip->layer[l].n;
    gle_reader how = gle_reader_of(chip, l);
    int32_t rates[SOME];

    for (int32_t b = 0; b < chip->batch; b += SOME) {
        const int32_t some = chip->batch - b < SOME ? chip->batch - b : SOME;
        for (int32_t i = 0; i < n; i++) {
            gle_read_rates(chip, &how, l, i, b, some, rates);
            for (int32_t k = 0; k < some; k++) {
                to[(size_t)(b + k) * (size_t)n + (size_t)i] = rates[k];
            }
        }
    }
}

gle_status gle_read(const gle_chip *chip, int32_t l, int32_t signal, int32_t *to)
{
    const gle_layer *y;

    if (signal_bad(chip, l, signal)) {
        return GLE_BAD_ARGUMENT;
    }
    if (signal == GLE_SIGNAL_R) {
        read_rates(chip, l, to);
        return GLE_OK;
    }
    y = &chip->layer[l];
    for (int32_t b = 0; b < chip->batch; b++) {
        for (int32_t i = 0; i < y->n; i++) {
            *to++ = signal_at(chip, l, signal, i, b);
        }
    }
    return GLE_OK;
}

gle_status gle_set_rate(gle_chip *chip, int32_t shift)
{
    if (shift < -32 || shift > 64) {
        return GLE_BAD_ARGUMENT;
    }
    for (int32_t l = 0; l < chip->layers; l++) {
        chip->layer[l].rate_shift = shift;
    }
    return GLE_OK;
}

/* x with one bit of `bits` changed, within +-limit; see gle_flip. */
static int32_t flipped(int32_t x, int32_t bit, int32_t bits, int32_t limit)
{
    for (int32_t k = 0; k < bits; k++) {
        const int32_t at = k <= bit ? bit - k : k;
        const uint32_t y = (uint32_t)x ^ UINT32_C(1) << at;
        const int64_t sign = (int64_t)1 << (bits - 1);
        const int64_t value = ((int64_t)(y & (uint32_t)(2 * sign - 1)) ^ sign) - sign;
        if (value <= limit && value >= -limit) {
            return (int32_t)value;
        }
    }
    return 0; /* -1 with a limit of 1: each bit leads out */
}

static void flip16(int16_t *x, int32_t bit, int32_t limit)
{
    *x = (int16_t)flipped(*x, bit, 16, limit);
}

gle_status gle_flip(gle_chip *chip, int32_t l, int32_t signal, int32_t index, int32_t bit)
{
    const int32_t narrow =
        signal == GLE_SIGNAL_R || signal == GLE_SIGNAL_E || signal == GLE_STORED_WEIGHT;
    gle_layer *y;
    int16_t *weight;
    int32_t count;
    int absent;
    size_t at;

    if (layer_bad(chip, l) || bit < 0 || bit >= (narrow ? 16 : 32) ||
        (signal != GLE_STORED_WEIGHT && signal != GLE_STORED_BIAS &&
         signal_bad(chip, l, signal))) {
        return GLE_BAD_ARGUMENT;
    }
    y = &chip->layer[l];
    count = signal == GLE_STORED_WEIGHT ? gle_weight_count(y)
            : signal == GLE_STORED_BIAS ? y->n
                                        : y->n * chip->batch;
    if (range_bad(index, 1, count)) {
        return GLE_BAD_ARGUMENT;
    }
    at = (size_t)(index % y->n) * (size_t)chip->columns + (size_t)(index / y->n);
    switch (signal) {
    case GLE_SIGNAL_R:
        flip16(&y->r[at], bit, y->image->r_max);
        break;
    case GLE_SIGNAL_U:
        y->u[at] = flipped(y->u[at], bit, 32, y->image->u_max);
        break;
    case GLE_SIGNAL_UHAT:
        y->uhat[at] = flipped(y->uhat[at], bit, 32, GLE_UHAT_MAX);
        break;
    case GLE_SIGNAL_V:
        y->v[at] = flipped(y->v[at], bit, 32, GLE_STATE_MAX);
        break;
    case GLE_SIGNAL_E:
        flip16(&y->e[at], bit, y->image->e_max);
        break;
    case GLE_STORED_WEIGHT:
        weight = gle_weight_at(y, index, &absent);
        if (absent) {
            return GLE_BAD_ARGUMENT;
        }
        flip16(weight, bit, y->image->w_max);
        stale(y);
        break;
    default:
        y->bias[index] = flipped(y->bias[index], bit, 32, GLE_STATE_MAX);
        chip->digest_known = 0;
        break;
    }
    return GLE_OK;
}

gle_status gle_shape_of(const gle_chip *chip, int32_t l, gle_shape *shape)
{
    if (layer_bad(chip, l)) {
        return GLE_BAD_ARGUMENT;
    }
    shape->neurons = chip->layer[l].n;
    shape->inputs = chip->layer[l].m;
    shape->batch = chip->batch;
    shape->loss = chip->image->loss;
    shape->options = chip->options;
    shape->uhat = chip->layer[l].uhat != NULL;
    shape->times = chip->layer[l].times != NULL;
    shape->feedback = gle_weight_count(&chip->layer[l]) - shape->neurons * shape->inputs;
    return GLE_OK;
}

gle_status gle_formats_of(const gle_chip *chip, int32_t l, gle_formats *formats)
{
    const gle_layer *y;

    if (layer_bad(chip, l)) {
        return GLE_BAD_ARGUMENT;
    }
    y = &chip->layer[l];
    formats->w_frac = y->w_frac;
    formats->u_frac = y->u_frac;
    formats->r_frac = y->r_frac;
    formats->e_frac = y->e_frac;
    formats->v_frac = y->v_frac;
    formats->gradient_frac = y->gradient_frac;
    formats->gradient_bias_frac = y->gradient_bias_frac;
    return GLE_OK;
}

gle_status gle_counters_of(const gle_chip *chip, int32_t l, gle_counters *counters)
{
    if (layer_bad(chip, l)) {
        return GLE_BAD_ARGUMENT;
    }
    *counters = chip->layer[l].counters;
    return GLE_OK;
}

void gle_counters_clear(gle_chip *chip)
{
    static const gle_counters none = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};

    for (int32_t l = 0; l < chip->layers; l++) {
        chip->layer[l].counters = none;
    }
}
