/* What a device tells: of the board, of its chip's numbers, of its digests. */
#include "device_state.h"

static uint32_t fit(const struct device *d, uint32_t fixed, uint32_t one)
{
    const uint32_t fits = (d->largest - fixed) / one;
    return d->count < fits ? d->count : fits;
}

/* An answer of one message: d->count says how often it is still to be given. */
static void answer_once(struct device *d, size_t (*answer)(struct device *d))
{
    d->count = 1;
    d->answer = answer;
}

static int given(struct device *d) { return d->count-- == 0; }

/* --- the board --- */

static size_t answer_info(struct device *d)
{
    struct message_INFO_IS m = {0};
    const char *name = d->config.name != NULL ? d->config.name : "";
    uint8_t *at;

    if (given(d)) {
        return 0;
    }
    m.memory = device_u32(d->bytes);
    m.features = d->config.features | FEATURE_GRADIENT | FEATURE_UHAT;
    m.max_batch = GLE_MAX_BATCH;
    m.boot_cause = (uint8_t)d->config.boot_cause;
    m.boots = d->config.boots;
    at = message_write_INFO_IS(d->out, &m);
    while (*name != '\0' && at < d->out + d->largest) {
        *at++ = (uint8_t)*name++;
    }
    return (size_t)(at - d->out);
}

void device_info(struct device *d) { answer_once(d, answer_info); }

static size_t answer_status(struct device *d)
{
    device_board_status board = {0, 0, 0, 0};
    struct message_STATUS_IS m = {0};

    if (given(d)) {
        return 0;
    }
    if (d->config.status != NULL) {
        d->config.status(d->config.board, &board);
    }
    if (d->link != NULL) {
        link_statistics count;
        link_get_statistics(d->link, &count);
        m.retransmitted = count.retransmitted;
    }
    m.stack_size = board.stack_size;
    m.stack_used = board.stack_used;
    m.memory = device_u32(d->bytes);
    m.memory_used = device_u32(d->low + (d->bytes - d->high));
    m.uptime_ms = board.uptime_ms;
    m.rx_lost = board.rx_lost;
    m.discarded = d->discarded;
    m.refused = d->refused;
    return (size_t)(message_write_STATUS_IS(d->out, &m) - d->out);
}

void device_status(struct device *d) { answer_once(d, answer_status); }

static size_t answer_sync(struct device *d)
{
    const struct message_SYNCED m = {.cookie = d->first};

    return given(d) ? 0 : (size_t)(message_write_SYNCED(d->out, &m) - d->out);
}

void device_sync(struct device *d, uint32_t cookie)
{
    device_drop(d);
    d->passing = 0;
    d->first = cookie;
    answer_once(d, answer_sync);
}

static size_t answer_echo(struct device *d)
{
    if (d->echo == NULL) {
        return 0;
    }
    d->out[0] = MESSAGE_ECHOED;
    for (uint32_t k = 0; k < d->count; k++) {
        d->out[1 + k] = d->echo[k];
    }
    d->echo = NULL;
    return 1 + (size_t)d->count;
}

void device_echo(struct device *d, const struct message_ECHO *m)
{
    if (m->tail_count + 1 > d->largest) {
        device_refuse(d, REASON_TOO_LONG, m->tail_count + 1, d->largest);
        return;
    }
    d->echo = m->tail;
    d->count = (uint32_t)m->tail_count;
    d->answer = answer_echo;
}

/* --- weights and gradients: d->layer, from d->first on d->count more --- */

static size_t answer_weights(struct device *d)
{
    const struct message_WEIGHTS_ARE m = {.layer = (uint8_t)d->layer, .first = d->first};
    uint32_t some = fit(d, MESSAGE_FIXED_WEIGHTS_ARE, 2);
    uint8_t *at;

    if (some == 0) {
        return 0;
    }
    at = message_write_WEIGHTS_ARE(d->out, &m);
    for (; some > 0; some--, d->first++, d->count--, at += 2) {
        int16_t w;
        (void)gle_weights_read(d->chip, (int32_t)d->layer, (int32_t)d->first, 1, &w);
        message_put16(at, (uint16_t)w);
    }
    return (size_t)(at - d->out);
}

static size_t answer_bias(struct device *d)
{
    const struct message_BIAS_ARE m = {.layer = (uint8_t)d->layer, .first = d->first};
    uint32_t some = fit(d, MESSAGE_FIXED_BIAS_ARE, 4);
    uint8_t *at;

    if (some == 0) {
        return 0;
    }
    at = message_write_BIAS_ARE(d->out, &m);
    for (; some > 0; some--, d->first++, d->count--, at += 4) {
        int32_t b;
        (void)gle_bias_read(d->chip, (int32_t)d->layer, (int32_t)d->first, 1, &b);
        message_put32(at, (uint32_t)b);
    }
    return (size_t)(at - d->out);
}

static void read_range(struct device *d, uint32_t layer, uint32_t first, uint32_t count,
                       int weights)
{
    gle_shape shape;
    uint32_t have;

    if (!device_layer_ok(d, layer)) {
        return;
    }
    (void)gle_shape_of(d->chip, (int32_t)layer, &shape);
    have = weights ? (uint32_t)shape.neurons * (uint32_t)shape.inputs + (uint32_t)shape.feedback
                   : (uint32_t)shape.neurons;
    if (!device_range_ok(d, first, count, have)) {
        return;
    }
    d->layer = layer;
    d->first = first;
    d->count = count;
    d->answer = weights ? answer_weights : answer_bias;
}

void device_weights_read(struct device *d, const struct message_WEIGHTS_READ *m)
{
    read_range(d, m->layer, m->first, m->count, 1);
}

void device_bias_read(struct device *d, const struct message_BIAS_READ *m)
{
    read_range(d, m->layer, m->first, m->count, 0);
}

static int has_gradient(struct device *d)
{
    if ((d->options & GLE_WITH_GRADIENT) == 0) {
        device_refuse(d, REASON_BAD_VALUE, GLE_WITH_GRADIENT, d->options);
        return 0;
    }
    return 1;
}

void device_gradient_clear(struct device *d, const struct message_GRADIENT_CLEAR *m)
{
    if (has_gradient(d) && gle_gradient_clear(d->chip, m->drop) != GLE_OK) {
        device_refuse(d, REASON_BAD_VALUE, 31, m->drop);
    }
}

static size_t answer_gradient(struct device *d)
{
    const struct message_GRADIENT_ARE m = {.first = d->first};
    uint32_t some = fit(d, MESSAGE_FIXED_GRADIENT_ARE, 4);
    uint8_t *at;

    if (some == 0) {
        return 0;
    }
    at = message_write_GRADIENT_ARE(d->out, &m);
    for (; some > 0; some--, d->first++, d->count--, at += 4) {
        int32_t g;
        (void)gle_gradient_part(d->chip, (int32_t)d->layer, (int32_t)d->first, 1, &g);
        message_put32(at, (uint32_t)g);
    }
    return (size_t)(at - d->out);
}

static size_t answer_gradient_formats(struct device *d)
{
    struct message_GRADIENT_IS m = {.layer = (uint8_t)d->layer};
    gle_formats f;

    (void)gle_formats_of(d->chip, (int32_t)d->layer, &f);
    m.frac = (int8_t)f.gradient_frac;
    m.bias_frac = (int8_t)f.gradient_bias_frac;
    d->answer = answer_gradient;
    return (size_t)(message_write_GRADIENT_IS(d->out, &m) - d->out);
}

void device_gradient_read(struct device *d, const struct message_GRADIENT_READ *m)
{
    gle_shape shape;

    if (!has_gradient(d) || !device_layer_ok(d, m->layer)) {
        return;
    }
    (void)gle_shape_of(d->chip, m->layer, &shape);
    d->layer = m->layer;
    d->first = 0;
    d->count = (uint32_t)shape.neurons *
               ((uint32_t)shape.inputs + 1 + (uint32_t)(shape.times != 0));
    d->answer = answer_gradient_formats;
}

/* --- digests, counters, formats --- */

static size_t answer_digest(struct device *d)
{
    struct message_DIGEST_IS m = {0};

    if (given(d)) {
        return 0;
    }
    m.digest = gle_digest(d->chip);
    m.weights = gle_weights_digest(d->chip);
    m.steps = gle_steps(d->chip);
    return (size_t)(message_write_DIGEST_IS(d->out, &m) - d->out);
}

static size_t answer_streams(struct device *d)
{
    const struct message_STREAMS_ARE m = {.first = d->first};
    uint32_t some = fit(d, MESSAGE_FIXED_STREAMS_ARE, 8);
    uint8_t *at = message_write_STREAMS_ARE(d->out, &m);

    for (; some > 0; some--, d->first++, d->count--, at += 8) {
        message_put64(at, gle_stream_digest(d->chip, (int32_t)d->first));
    }
    if (d->count == 0) {
        answer_once(d, answer_digest);
    }
    return (size_t)(at - d->out);
}

void device_digest(struct device *d)
{
    d->first = 0;
    d->count = d->batch;
    d->answer = answer_streams;
}

static size_t answer_counters(struct device *d)
{
    const struct message_COUNTERS_ARE m = {.first = (uint8_t)d->first};
    uint32_t some = fit(d, MESSAGE_FIXED_COUNTERS_ARE, 8);
    gle_counters counters;
    const uint64_t *each = (const uint64_t *)(const void *)&counters;
    uint8_t *at;

    if (some == 0) {
        return 0;
    }
    (void)gle_counters_of(d->chip, (int32_t)d->layer, &counters);
    at = message_write_COUNTERS_ARE(d->out, &m);
    for (; some > 0; some--, d->first++, d->count--, at += 8) {
        message_put64(at, each[d->first]);
    }
    return (size_t)(at - d->out);
}

void device_counters(struct device *d, uint32_t layer)
{
    if (device_layer_ok(d, layer)) {
        d->layer = layer;
        d->first = 0;
        d->count = (uint32_t)(sizeof(gle_counters) / sizeof(uint64_t));
        d->answer = answer_counters;
    }
}

static size_t answer_formats(struct device *d)
{
    const struct message_LAYER_FORMATS_ARE m = {.layer = (uint8_t)d->layer};
    gle_formats f = {0};
    const int32_t *each = (const int32_t *)(const void *)&f;
    uint8_t *at;

    if (given(d)) {
        return 0;
    }
    (void)gle_formats_of(d->chip, (int32_t)d->layer, &f);
    at = message_write_LAYER_FORMATS_ARE(d->out, &m);
    for (size_t k = 0; k < sizeof f / sizeof each[0]; k++) {
        *at++ = (uint8_t)each[k];
    }
    return (size_t)(at - d->out);
}

void device_formats(struct device *d, uint32_t layer)
{
    if (device_layer_ok(d, layer)) {
        d->layer = layer;
        answer_once(d, answer_formats);
    }
}
