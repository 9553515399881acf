/* An image: staged beside the live chip or in its place, live at its commit. */
#include "device_state.h"

#include "../link/crc32.h"

void device_lend(struct device *d)
{
    const size_t need = d->lent ? 0 : gle_spare_bytes(d->chip);

    if (need != 0 && d->staged.kind == STAGED_NONE) {
        gle_lend(d->chip, d->memory + d->low, d->high - d->low);
        d->lent = 1;
    }
}

void device_take_back(struct device *d)
{
    if (d->lent) {
        gle_lend(d->chip, NULL, 0);
        d->lent = 0;
    }
}

void device_image_begin(struct device *d, const struct message_IMAGE_BEGIN *m)
{
    const uint32_t known = GLE_WITH_GRADIENT | GLE_WITH_UHAT;
    const uint64_t bytes = (uint64_t)m->words * 4;

    if (m->batch < 1 || m->batch > GLE_MAX_BATCH) {
        device_refuse(d, REASON_BAD_VALUE, GLE_MAX_BATCH, m->batch);
        return;
    }
    if ((m->options & ~known) != 0) {
        device_refuse(d, REASON_BAD_VALUE, known, m->options);
        return;
    }
    if (bytes > d->bytes) {
        device_refuse(d, REASON_NO_MEMORY, bytes, d->bytes);
        return;
    }
    device_drop(d);
    device_take_back(d);
    d->staged = (device_staging){0};
    d->staged.kind = STAGED_IMAGE;
    d->staged.size = (uint32_t)bytes;
    d->staged.batch = m->batch;
    d->staged.options = m->options;
    if (d->high - d->low >= bytes) {
        d->staged.at = d->high - (size_t)bytes;
        return;
    }
    d->service = SERVICE_NONE;
    d->chip = NULL;
    d->low = 0;
    d->high = d->bytes;
    d->staged.at = d->bytes - (size_t)bytes;
}

void device_image_data(struct device *d, const struct message_IMAGE_DATA *m)
{
    device_staging *s = &d->staged;

    if (!device_follows(d, STAGED_IMAGE, m->offset, m->tail_count)) {
        return;
    }
    for (size_t k = 0; k < m->tail_count; k++) {
        d->memory[s->at + s->have + k] = m->tail[k];
    }
    s->crc = crc32_update(s->crc, m->tail, m->tail_count);
    s->have += (uint32_t)m->tail_count;
}

/* What a chip needs behind its arena, and where it lies. */
typedef struct {
    uint64_t input, target, votes, end;
    uint32_t input_bytes, target_bytes;
} buffers;

static buffers buffers_of(uint64_t arena, uint32_t batch, const gle_image *image, uint32_t outputs)
{
    buffers b;

    b.input_bytes = batch * (uint32_t)image->inputs * 2;
    b.target_bytes = batch * 2 * (image->loss == GLE_MSE ? outputs : 1);
    b.input = arena;
    b.target = b.input + device_up(b.input_bytes, 8);
    b.votes = b.target + device_up(b.target_bytes, 8);
    b.end = b.votes + (uint64_t)batch * outputs * 8;
    return b;
}

/* From the words as the wire has them to this machine's. */
static void to_native(uint32_t *words, size_t count)
{
    for (size_t k = 0; k < count; k++) {
        words[k] = message_get32((const uint8_t *)&words[k]);
    }
}

/* Moves the image to the end of memory, byte by byte from its end: it only moves up. */
static const uint32_t *settle(struct device *d)
{
    const device_staging *s = &d->staged;
    const size_t to = d->bytes - s->size;

    for (size_t k = s->size; k > 0; k--) {
        d->memory[to + k - 1] = d->memory[s->at + k - 1];
    }
    return (const uint32_t *)(void *)(d->memory + to);
}

static void go_live(struct device *d, const buffers *b, size_t arena)
{
    const device_staging *s = &d->staged;
    const uint32_t *words = settle(d);
    const gle_image *image = (const gle_image *)(const void *)words;
    gle_status opened;
    gle_shape top;

    d->service = SERVICE_NONE;
    d->chip = NULL;
    opened = gle_open(d->memory, arena, words, s->size / 4, (int32_t)s->batch, s->options,
                      d->config.kernels, &d->chip);
    DEVICE_HOLDS(opened == GLE_OK); /* all of it was checked */
    d->layers = (uint32_t)image->layers;
    (void)gle_shape_of(d->chip, image->layers - 1, &top);
    d->outputs = (uint32_t)top.neurons;
    d->inputs = (uint32_t)image->inputs;
    d->batch = s->batch;
    d->loss = (uint32_t)image->loss;
    d->options = s->options;
    d->input = (int16_t *)(void *)(d->memory + b->input);
    d->target = (int16_t *)(void *)(d->memory + b->target);
    d->votes = (int64_t *)(void *)(d->memory + b->votes);
    d->input_bytes = b->input_bytes;
    d->target_bytes = b->target_bytes;
    d->low = (size_t)b->end;
    d->high = d->bytes - s->size;
    d->tamper.armed = 0;
    d->service = SERVICE_LIVE;
}

void device_image_commit(struct device *d, const struct message_IMAGE_COMMIT *m)
{
    device_staging *s = &d->staged;
    uint32_t *words = (uint32_t *)(void *)(d->memory + s->at);
    const gle_image *image = (const gle_image *)(const void *)words;
    const gle_image_layer *top;
    size_t arena = 0;
    gle_status status;
    buffers b;

    if (!device_staged_ok(d, STAGED_IMAGE)) {
        return;
    }
    s->kind = STAGED_NONE;
    if (s->crc != m->crc) {
        device_refuse(d, REASON_BAD_CRC, s->crc, m->crc);
        return;
    }
    to_native(words, s->size / 4);
    status = gle_arena_bytes(words, s->size / 4, (int32_t)s->batch, s->options, &arena);
    if (status == GLE_NO_MEMORY) {
        device_refuse(d, REASON_NO_MEMORY, UINT32_MAX, d->bytes);
        return;
    }
    if (status != GLE_OK) {
        device_refuse(d, REASON_BAD_IMAGE, 0, 0);
        return;
    }
    if (MESSAGE_FIXED_FORMATS_ARE + 2 * (uint32_t)image->layers > d->largest) {
        device_refuse(d, REASON_TOO_LONG, MESSAGE_FIXED_FORMATS_ARE + 2 * (uint32_t)image->layers,
                      d->largest);
        return;
    }
    top = (const gle_image_layer *)(const void *)(image + 1) + (image->layers - 1);
    b = buffers_of(arena, s->batch, image, (uint32_t)top->size);
    if (b.end + s->size > d->bytes) {
        device_refuse(d, REASON_NO_MEMORY, b.end + s->size, d->bytes);
        return;
    }
    go_live(d, &b, arena);
}
