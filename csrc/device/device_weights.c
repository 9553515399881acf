/* Sets of weights and increments.
 *
 * Where the free middle can hold a whole set, what arrives is kept in a log and written at
 * the commit. The log is a row of entries, each a header and its numbers as they came:
 *
 *     u8 message, u8 layer, u16 0, u32 first, u32 count, numbers
 *
 * Data that goes on where the last entry ends lengthens that entry, so that a set sent in
 * order needs one for a layer's weights and one for its biases.
 */
#include "device_state.h"

#include "../link/crc32.h"

enum { ENTRY = 12, SOME = 32 };

static uint32_t width(uint32_t message) { return message == MESSAGE_WEIGHTS_DATA ? 2 : 4; }

/* Numbers that a layer has of this kind; it is one of the live chip's. */
static uint32_t numbers(const struct device *d, uint32_t message, uint32_t layer)
{
    gle_shape shape;

    (void)gle_shape_of(d->chip, (int32_t)layer, &shape);
    if (message != MESSAGE_WEIGHTS_DATA) {
        return (uint32_t)shape.neurons;
    }
    return (uint32_t)shape.neurons * (uint32_t)shape.inputs + (uint32_t)shape.feedback;
}

static uint64_t whole_set(const struct device *d)
{
    uint64_t bytes = 0;

    for (uint32_t l = 0; l < d->layers; l++) {
        bytes += UINT64_C(2) * ENTRY + (uint64_t)numbers(d, MESSAGE_WEIGHTS_DATA, l) * 2 +
                 (uint64_t)numbers(d, MESSAGE_BIAS_DATA, l) * 4;
    }
    return bytes;
}

enum apply { WRITE, ADD };

/* Numbers of a message, few at a time: they need not be aligned where they are. */
static void apply(struct device *d, enum apply how, uint32_t bytes, uint32_t layer, uint32_t first,
                  const uint8_t *from, size_t count)
{
    gle_chip *const chip = d->chip;
    const int32_t l = (int32_t)layer;
    int16_t w[SOME];
    int32_t b[SOME];

    while (count > 0) {
        const size_t some = count < SOME ? count : SOME;
        const int32_t at = (int32_t)first, n = (int32_t)some;
        for (size_t k = 0; k < some; k++) {
            if (bytes == 2) {
                w[k] = (int16_t)message_get16(from + 2 * k);
            } else {
                b[k] = (int32_t)message_get32(from + 4 * k);
            }
        }
        if (bytes == 2) {
            (void)(how == ADD ? gle_weights_add(chip, l, at, n, w)
                              : gle_weights_write(chip, l, at, n, w));
        } else {
            (void)(how == ADD ? gle_bias_add(chip, l, at, n, b)
                              : gle_bias_write(chip, l, at, n, b));
        }
        from += some * bytes;
        first += (uint32_t)some;
        count -= some;
    }
}

void device_weights_begin(struct device *d)
{
    const uint64_t need = whole_set(d);
    device_staging *s = &d->staged;

    device_drop(d);
    device_take_back(d);
    *s = (device_staging){0};
    s->kind = STAGED_WEIGHTS;
    s->served = d->service;
    s->at = d->low;
    s->size = device_u32(d->high - d->low);
    if (need > s->size) {
        s->straight = 1;
        d->service = SERVICE_HELD;
    }
}

/* One message into the log; 0 if it is full. */
static int log_add(struct device *d, const uint8_t *message, uint32_t layer, uint32_t first,
                   uint32_t count)
{
    device_staging *s = &d->staged;
    unsigned char *const room = d->memory + s->at;
    unsigned char *entry = room + s->entry;
    const uint32_t bytes = count * width(message[0]);
    const uint8_t *from = message + MESSAGE_FIXED_WEIGHTS_DATA;
    const int goes_on = s->have != 0 && entry[0] == message[0] && entry[1] == layer &&
                        message_get32(entry + 4) + message_get32(entry + 8) == first;
    const uint32_t need = bytes + (goes_on ? 0 : ENTRY);

    if (need > s->size - s->have) {
        device_refuse(d, REASON_NO_MEMORY, (uint64_t)s->have + need, s->size);
        return 0;
    }
    if (!goes_on) {
        s->entry = s->have;
        entry = room + s->entry;
        entry[0] = message[0];
        entry[1] = (uint8_t)layer;
        message_put16(entry + 2, 0);
        message_put32(entry + 4, first);
        message_put32(entry + 8, 0);
        s->have += ENTRY;
    }
    message_put32(entry + 8, message_get32(entry + 8) + count);
    for (uint32_t k = 0; k < bytes; k++) {
        room[s->have + k] = from[k];
    }
    s->have += bytes;
    return 1;
}

void device_weights_data(struct device *d, const uint8_t *message, size_t n, uint32_t layer,
                         uint32_t first, size_t count)
{
    device_staging *s = &d->staged;

    if (s->kind != STAGED_WEIGHTS) {
        device_refuse(d, REASON_ORDER, 0, first);
        return;
    }
    if (!device_layer_ok(d, layer) ||
        !device_range_ok(d, first, count, numbers(d, message[0], layer))) {
        return;
    }
    if (s->straight) {
        s->touched = 1;
        apply(d, WRITE, width(message[0]), layer, first, message + MESSAGE_FIXED_WEIGHTS_DATA,
              count);
    } else if (!log_add(d, message, layer, first, (uint32_t)count)) {
        return;
    }
    s->numbers += (uint32_t)count;
    s->crc = crc32_update(s->crc, message, n);
}

static void write_log(struct device *d)
{
    const unsigned char *room = d->memory + d->staged.at;

    for (uint32_t at = 0; at < d->staged.have;) {
        const unsigned char *entry = room + at;
        const uint32_t count = message_get32(entry + 8), bytes = width(entry[0]);
        apply(d, WRITE, bytes, entry[1], message_get32(entry + 4), entry + ENTRY, count);
        at += ENTRY + count * bytes;
    }
}

static uint32_t all_numbers(const struct device *d)
{
    uint32_t all = 0;

    for (uint32_t l = 0; l < d->layers; l++) {
        all += numbers(d, MESSAGE_WEIGHTS_DATA, l) + numbers(d, MESSAGE_BIAS_DATA, l);
    }
    return all;
}

void device_weights_commit(struct device *d, const struct message_WEIGHTS_COMMIT *m)
{
    device_staging *s = &d->staged;

    if (s->kind != STAGED_WEIGHTS) {
        device_refuse(d, REASON_ORDER, 0, 0);
        return;
    }
    if (s->crc != m->crc) {
        const uint32_t crc = s->crc;
        device_drop(d);
        device_refuse(d, REASON_BAD_CRC, crc, m->crc);
        return;
    }
    if (s->served != SERVICE_LIVE && s->numbers < all_numbers(d)) {
        /* what it leaves out was lost with a set or a snapshot that was dropped */
        const uint32_t have = s->numbers;
        device_drop(d);
        device_refuse(d, REASON_OUT_OF_SERVICE, all_numbers(d), have);
        return;
    }
    if (!s->straight) {
        write_log(d);
    }
    s->kind = STAGED_NONE;
    d->service = SERVICE_LIVE;
}

/* Half of a set must never be taken for one: what was written over is zero then. */
void device_weights_dropped(struct device *d)
{
    static const uint8_t zeros[4 * SOME] = {0};

    if (!d->staged.straight) {
        return;
    }
    if (!d->staged.touched) {
        d->service = d->staged.served;
        return;
    }
    for (uint32_t l = 0; l < d->layers; l++) {
        for (uint32_t message = MESSAGE_WEIGHTS_DATA; message <= MESSAGE_BIAS_DATA; message++) {
            const uint32_t count = numbers(d, message, l);
            for (uint32_t k = 0; k < count; k += SOME) {
                apply(d, WRITE, width(message), l, k, zeros,
                      count - k < SOME ? count - k : SOME);
            }
        }
    }
}

void device_weights_add(struct device *d, const struct message_WEIGHTS_ADD *m)
{
    if (device_layer_ok(d, m->layer) &&
        device_range_ok(d, m->first, m->tail_count, numbers(d, MESSAGE_WEIGHTS_DATA, m->layer))) {
        apply(d, ADD, 2, m->layer, m->first, m->tail, m->tail_count);
    }
}

void device_bias_add(struct device *d, const struct message_BIAS_ADD *m)
{
    if (device_layer_ok(d, m->layer) &&
        device_range_ok(d, m->first, m->tail_count, numbers(d, MESSAGE_BIAS_DATA, m->layer))) {
        apply(d, ADD, 4, m->layer, m->first, m->tail, m->tail_count);
    }
}

/* All of the message's neurons or none of them. */
void device_times_write(struct device *d, const struct message_TIMES_WRITE *m)
{
    enum { WORDS = sizeof(gle_neuron) / 4 };
    const uint32_t count = (uint32_t)m->tail_count / WORDS;
    gle_shape shape;

    if (!device_layer_ok(d, m->layer)) {
        return;
    }
    (void)gle_shape_of(d->chip, m->layer, &shape);
    if (!shape.times || m->tail_count % WORDS != 0) {
        device_refuse(d, REASON_BAD_VALUE, shape.times ? WORDS : 0, m->tail_count);
        return;
    }
    if (!device_range_ok(d, m->first, count, (uint32_t)shape.neurons)) {
        return;
    }
    for (uint32_t pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < count; i++) {
            const uint8_t *at = m->tail + (size_t)i * sizeof(gle_neuron);
            const gle_neuron y = {message_get32(at), message_get32(at + 4), message_get32(at + 8),
                                  message_get32(at + 12)};
            if (pass == 0 && !gle_neuron_ok(&y)) {
                device_refuse(d, REASON_BAD_VALUE, 0, y.leak_u);
                return;
            }
            if (pass == 1) {
                (void)gle_times_write(d->chip, m->layer, (int32_t)(m->first + i), 1, &y);
            }
        }
    }
}
