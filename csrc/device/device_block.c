/* Blocks: the stream of inputs and targets in, steps, the stream of records out.
 *
 * A block is a position in both streams. Whoever calls device_block_go again goes on
 * exactly there: after a message that ended inside a number, or after a send without room.
 */
#include "device_state.h"

enum { SOME = 16 };

/* Bytes of a number of a signal's records. */
static uint32_t width(uint32_t signal)
{
    return signal == GLE_SIGNAL_R || signal == GLE_SIGNAL_E ? 2 : 4;
}

static int labels_held(const struct device *d)
{
    return (d->block.flags & BLOCK_TARGET) != 0 && d->loss == GLE_CROSS_ENTROPY;
}

/* Bytes of STEPS for one step. */
static uint32_t step_bytes(const struct device *d)
{
    const int with_target = (d->block.flags & BLOCK_TARGET) != 0 && d->loss == GLE_MSE;
    return d->input_bytes + (with_target ? d->target_bytes : 0);
}

static int pairs_ok(struct device *d, const uint8_t *pairs, uint32_t count)
{
    for (uint32_t k = 0; k < count; k++) {
        const uint8_t *const pair = pairs + 2 * (size_t)k;
        const uint32_t layer = pair[0], signal = pair[1];
        gle_shape shape;
        if (!device_layer_ok(d, layer)) {
            return 0;
        }
        (void)gle_shape_of(d->chip, (int32_t)layer, &shape);
        if (signal >= GLE_SIGNAL_COUNT || (signal == GLE_SIGNAL_UHAT && !shape.uhat)) {
            device_refuse(d, REASON_BAD_VALUE, GLE_SIGNAL_COUNT - 1, signal);
            return 0;
        }
    }
    return 1;
}

void device_block_begin(struct device *d, const struct message_BLOCK *m)
{
    const uint32_t known = BLOCK_LEARN | BLOCK_RANGE | BLOCK_TARGET | BLOCK_VOTES |
                           ((d->options & GLE_WITH_GRADIENT) != 0 ? BLOCK_GRADIENT : 0u);
    const uint32_t formats = MESSAGE_FIXED_FORMATS_ARE + 2 * d->layers;
    device_block *b = &d->block;

    if ((m->tail_count & 1) != 0) {
        device_refuse(d, REASON_MALFORMED, MESSAGE_FIXED_BLOCK, MESSAGE_FIXED_BLOCK + m->tail_count);
        return;
    }
    if ((m->flags & ~known) != 0) {
        device_refuse(d, REASON_BAD_VALUE, known, m->flags);
        return;
    }
    if (m->tail_count > d->config.payload || formats > d->largest) {
        const uint64_t need = formats > d->largest ? formats : m->tail_count;
        device_refuse(d, REASON_TOO_LONG, need, d->largest);
        return;
    }
    if (!pairs_ok(d, m->tail, (uint32_t)m->tail_count / 2)) {
        return;
    }
    for (size_t k = 0; k < m->tail_count; k++) {
        d->pairs[k] = m->tail[k];
    }
    if ((m->flags & BLOCK_VOTES) != 0) {
        for (uint32_t k = 0; k < d->batch * d->outputs; k++) {
            d->votes[k] = 0;
        }
    }
    device_lend(d);
    b->open = 1;
    b->running = 0;
    b->flags = m->flags;
    b->steps = m->steps;
    b->done = 0;
    b->pairs = (uint32_t)m->tail_count / 2;
    b->pair = b->number = 0;
    b->filled = 0;
    b->labels = labels_held(d) && m->steps > 0 ? d->target_bytes : 0;
    b->left = (uint64_t)m->steps * step_bytes(d) + b->labels;
    d->stepping = m->steps == 0; /* it is done at once */
}

void device_block_steps(struct device *d, const struct message_STEPS *m)
{
    if (!d->block.open) {
        device_refuse(d, REASON_ORDER, 0, m->tail_count);
    } else if (m->tail_count > d->block.left) {
        device_refuse(d, REASON_BAD_VALUE, d->block.left, m->tail_count);
    } else {
        d->stepping = 1;
    }
}

/* --- in --- */

/* Bytes arrive as the wire has them; numbers are made of them where they lie. */
static void to_native(int16_t *x, uint32_t bytes)
{
#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    for (uint32_t k = 0; k < bytes / 2; k++) {
        x[k] = (int16_t)message_get16((const uint8_t *)&x[k]);
    }
#else
    (void)x;
    (void)bytes;
#endif
}

/* Takes up to `bytes` - *filled bytes of the tail; whether it is full now. */
static int fill(struct device *d, int16_t *to, uint32_t bytes, uint32_t *filled,
                const uint8_t *tail, size_t n)
{
    uint8_t *at = (uint8_t *)to;

    while (*filled < bytes && d->taken < n) {
        at[(*filled)++] = tail[d->taken++];
        d->block.left--;
    }
    if (*filled < bytes) {
        return 0;
    }
    to_native(to, bytes);
    return 1;
}

/* Whether a whole step is there. */
static int step_ready(struct device *d, const uint8_t *tail, size_t n)
{
    device_block *b = &d->block;

    if (b->labels > 0) {
        uint32_t filled = d->target_bytes - b->labels;
        const int full = fill(d, d->target, d->target_bytes, &filled, tail, n);
        b->labels = d->target_bytes - filled;
        if (!full) {
            return 0;
        }
    }
    if (b->filled < d->input_bytes &&
        !fill(d, d->input, d->input_bytes, &b->filled, tail, n)) {
        return 0;
    }
    if (b->filled < step_bytes(d)) {
        uint32_t filled = b->filled - d->input_bytes;
        const int full = fill(d, d->target, d->target_bytes, &filled, tail, n);
        b->filled = d->input_bytes + filled;
        return full;
    }
    return 1;
}

/* --- a step --- */

static void vote(struct device *d)
{
    const uint32_t count = d->batch * d->outputs;
    int32_t r[SOME];

    for (uint32_t k = 0; k < count; k += SOME) {
        const uint32_t some = count - k < SOME ? count - k : SOME;
        (void)gle_read_part(d->chip, (int32_t)d->layers - 1, GLE_SIGNAL_R, (int32_t)k,
                            (int32_t)some, r);
        for (uint32_t i = 0; i < some; i++) {
            d->votes[k + i] += r[i];
        }
    }
}

static void run(struct device *d)
{
    const device_tamper *t = &d->tamper;
    device_block *b = &d->block;
    const uint64_t step = gle_steps(d->chip);
    const uint32_t flags = ((b->flags & BLOCK_LEARN) != 0 ? GLE_LEARN : 0u) |
                           ((b->flags & BLOCK_RANGE) != 0 ? GLE_RANGE : 0u) |
                           ((b->flags & BLOCK_GRADIENT) != 0 ? GLE_ADD_GRADIENT : 0u);

    (void)gle_step(d->chip, d->input, (b->flags & BLOCK_TARGET) != 0 ? d->target : NULL, flags);
    if (t->armed && t->step == step) {
        (void)gle_flip(d->chip, t->layer, t->signal, (int32_t)t->index, t->bit);
    }
    if ((b->flags & BLOCK_VOTES) != 0) {
        vote(d);
    }
    b->filled = 0;
    b->done++;
    b->pair = b->number = 0;
    b->running = 1;
}

/* --- out --- */

/* How many of `count` numbers the RECORDS being packed has room for; sends it first if
 * that is none. 0: nor is there room in the link. */
static uint32_t records_room(struct device *d, uint32_t count, uint32_t bytes)
{
    uint32_t fits;

    if (d->out_bytes + bytes > d->largest && !device_flush(d)) {
        return 0;
    }
    if (d->out_bytes == 0) {
        d->out[d->out_bytes++] = MESSAGE_RECORDS;
    }
    fits = (d->largest - d->out_bytes) / bytes;
    count = count < SOME ? count : SOME;
    return count < fits ? count : fits;
}

/* All of one pair's numbers that are left, [batch][n]; 0 if there is no room. */
static int pack_pair(struct device *d, uint32_t layer, uint32_t signal)
{
    const uint32_t bytes = width(signal);
    device_block *b = &d->block;
    gle_shape shape;
    uint32_t count;

    (void)gle_shape_of(d->chip, (int32_t)layer, &shape);
    count = d->batch * (uint32_t)shape.neurons;
    while (b->number < count) {
        const uint32_t some = records_room(d, count - b->number, bytes);
        uint8_t *to = d->out + d->out_bytes;
        int32_t x[SOME];
        if (some == 0) {
            return 0;
        }
        (void)gle_read_part(d->chip, (int32_t)layer, (int32_t)signal, (int32_t)b->number,
                            (int32_t)some, x);
        for (uint32_t k = 0; k < some; k++, to += bytes) {
            if (bytes == 2) {
                message_put16(to, (uint16_t)x[k]);
            } else {
                message_put32(to, (uint32_t)x[k]);
            }
        }
        d->out_bytes += some * bytes;
        b->number += some;
    }
    return 1;
}

/* What is left of this step's records; 0 if there is no room. */
static int pack_records(struct device *d)
{
    device_block *b = &d->block;

    for (; b->pair < b->pairs; b->pair++, b->number = 0) {
        const uint8_t *const pair = d->pairs + 2 * (size_t)b->pair;
        if (!pack_pair(d, pair[0], pair[1])) {
            return 0;
        }
    }
    return 1;
}

/* Tells the formats if they are not what the host was told; 0 if there is no room. */
static int tell_formats(struct device *d)
{
    device_block *b = &d->block;
    const struct message_FORMATS_ARE m = {.step = b->done - 1};
    int moved = b->done == 1;
    uint8_t *at;

    for (uint32_t l = 0; l < d->layers; l++) {
        gle_formats f;
        (void)gle_formats_of(d->chip, (int32_t)l, &f);
        moved |= f.r_frac != b->fracs[l][0] || f.e_frac != b->fracs[l][1];
    }
    if (!moved) {
        return 1;
    }
    if (!device_flush(d)) {
        return 0;
    }
    at = message_write_FORMATS_ARE(d->out, &m);
    for (uint32_t l = 0; l < d->layers; l++) {
        gle_formats f;
        (void)gle_formats_of(d->chip, (int32_t)l, &f);
        b->fracs[l][0] = (int8_t)f.r_frac;
        b->fracs[l][1] = (int8_t)f.e_frac;
        *at++ = (uint8_t)f.r_frac;
        *at++ = (uint8_t)f.e_frac;
    }
    d->out_bytes = (uint32_t)(at - d->out);
    return 1;
}

/* Votes, then that the block is done; d->first: votes told, d->count: of how many. */
static size_t answer_done(struct device *d)
{
    const uint32_t fits = (d->largest - 1) / 8;
    struct message_BLOCK_DONE m = {.steps = d->block.done};
    uint8_t *at = d->out;

    if (d->first < d->count) {
        *at++ = MESSAGE_RECORDS;
        for (uint32_t k = 0; k < fits && d->first < d->count; k++) {
            message_put64(at, (uint64_t)d->votes[d->first++]);
            at += 8;
        }
        return (size_t)(at - d->out);
    }
    if (!d->block.open) {
        return 0;
    }
    m.digest = gle_digest(d->chip);
    d->block.open = 0;
    return (size_t)(message_write_BLOCK_DONE(d->out, &m) - d->out);
}

device_progress device_block_go(struct device *d, const uint8_t *message, size_t n)
{
    device_block *b = &d->block;
    int stepped = 0;

    for (;;) {
        if (b->running == 1) {
            if (!tell_formats(d)) {
                return DEVICE_WAITS;
            }
            b->running = 2;
        }
        if (b->running == 2) {
            /* a FORMATS_ARE that waits in d->out is no RECORDS to pack into */
            if (d->out_bytes != 0 && d->out[0] != MESSAGE_RECORDS && !device_flush(d)) {
                return DEVICE_WAITS;
            }
            if (!pack_records(d)) {
                return DEVICE_WAITS;
            }
            b->running = 0;
        }
        if (b->done == b->steps) {
            d->stepping = 0;
            d->first = 0;
            d->count = (b->flags & BLOCK_VOTES) != 0 ? d->batch * d->outputs : 0;
            d->answer = answer_done;
            return DEVICE_IDLE;
        }
        if (stepped) {
            return DEVICE_BUSY;
        }
        if (!step_ready(d, message + MESSAGE_FIXED_STEPS, n - MESSAGE_FIXED_STEPS)) {
            return DEVICE_IDLE;
        }
        run(d);
        stepped = 1;
    }
}

/* --- one flipped bit --- */

void device_tamper_set(struct device *d, const struct message_TAMPER *m)
{
    const uint32_t bits = m->signal == GLE_SIGNAL_R || m->signal == GLE_SIGNAL_E ||
                                  m->signal == GLE_STORED_WEIGHT
                              ? 16
                              : 32;
    gle_shape shape;
    uint32_t count;

    if (m->bit == 255) {
        d->tamper.armed = 0;
        return;
    }
    if (!device_layer_ok(d, m->layer)) {
        return;
    }
    (void)gle_shape_of(d->chip, m->layer, &shape);
    count = (uint32_t)shape.neurons * (m->signal == GLE_STORED_WEIGHT ? (uint32_t)shape.inputs
                                       : m->signal == GLE_STORED_BIAS ? 1
                                                                      : d->batch) +
            (m->signal == GLE_STORED_WEIGHT ? (uint32_t)shape.feedback : 0);
    if (m->signal >= GLE_FLIP_COUNT || (m->signal == GLE_SIGNAL_UHAT && !shape.uhat)) {
        device_refuse(d, REASON_BAD_VALUE, GLE_FLIP_COUNT - 1, m->signal);
    } else if (m->bit >= bits) {
        device_refuse(d, REASON_BAD_VALUE, bits - 1, m->bit);
    } else if (m->index >= count) {
        device_refuse(d, REASON_BAD_VALUE, count - 1, m->index);
    } else {
        d->tamper = (device_tamper){m->step, m->index, 1, m->layer, m->signal, m->bit};
    }
}
