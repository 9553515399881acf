/* The complete state, out and in.
 *
 * A snapshot that fits beside what is live is kept there until its CRC holds and its values
 * have been looked at. One that does not goes straight into the chip, which serves again
 * only after both.
 */
#include "device_state.h"

#include "../link/crc32.h"

static size_t answer_snapshot(struct device *d)
{
    const struct message_SNAPSHOT_ARE m = {.offset = d->first};
    const uint32_t left = d->count - d->first, fits = d->largest - MESSAGE_FIXED_SNAPSHOT_ARE;
    const uint32_t some = left < fits ? left : fits;
    uint8_t *at;

    if (d->layer == 0) {
        const struct message_SNAPSHOT_IS is = {.size = d->count};
        d->layer = 1;
        return (size_t)(message_write_SNAPSHOT_IS(d->out, &is) - d->out);
    }
    if (some == 0) {
        return 0;
    }
    at = message_write_SNAPSHOT_ARE(d->out, &m);
    (void)gle_snapshot_part(d->chip, d->first, at, some);
    d->first += some;
    return (size_t)(at - d->out) + some;
}

void device_snapshot_read(struct device *d)
{
    d->layer = 0; /* the size comes first */
    d->first = 0;
    d->count = (uint32_t)gle_snapshot_bytes(d->chip);
    d->answer = answer_snapshot;
}

void device_snapshot_begin(struct device *d, const struct message_SNAPSHOT_BEGIN *m)
{
    const size_t size = gle_snapshot_bytes(d->chip);
    device_staging *s = &d->staged;

    if (m->size != size) {
        device_refuse(d, REASON_BAD_SNAPSHOT, size, m->size);
        return;
    }
    device_drop(d);
    device_take_back(d);
    *s = (device_staging){0};
    s->kind = STAGED_SNAPSHOT;
    s->served = d->service;
    s->size = m->size;
    s->at = d->low;
    if (d->high - d->low < size) {
        s->straight = 1;
        d->service = SERVICE_HELD;
    }
}

void device_snapshot_data(struct device *d, const struct message_SNAPSHOT_DATA *m)
{
    device_staging *s = &d->staged;

    if (!device_follows(d, STAGED_SNAPSHOT, m->offset, m->tail_count)) {
        return;
    }
    if (!s->straight) {
        for (size_t k = 0; k < m->tail_count; k++) {
            d->memory[s->at + s->have + k] = m->tail[k];
        }
    } else if (gle_snapshot_put(d->chip, s->have, m->tail, m->tail_count) != GLE_OK) {
        device_refuse(d, REASON_BAD_SNAPSHOT, 0, 0);
        return;
    } else {
        s->touched = s->have + m->tail_count > GLE_SNAPSHOT_HEAD;
    }
    s->crc = crc32_update(s->crc, m->tail, m->tail_count);
    s->have += (uint32_t)m->tail_count;
}

void device_snapshot_dropped(struct device *d)
{
    if (d->staged.touched) {
        gle_blank(d->chip); /* half of it is in there, and nobody has looked at it */
    } else if (d->staged.straight) {
        d->service = d->staged.served;
    }
}

void device_snapshot_commit(struct device *d, const struct message_SNAPSHOT_COMMIT *m)
{
    device_staging *s = &d->staged;
    gle_status status;

    if (!device_staged_ok(d, STAGED_SNAPSHOT)) {
        return;
    }
    if (s->crc != m->crc) {
        const uint32_t crc = s->crc;
        device_drop(d);
        device_refuse(d, REASON_BAD_CRC, crc, m->crc);
        return;
    }
    s->kind = STAGED_NONE;
    status = s->straight ? gle_snapshot_check(d->chip)
                         : gle_snapshot_write(d->chip, d->memory + s->at, s->size);
    if (status != GLE_OK) {
        device_refuse(d, REASON_BAD_SNAPSHOT, 0, 0);
        return;
    }
    d->service = SERVICE_LIVE;
}
