/* A device that is fed any messages.
 *
 *     u8 payload and memory, u8 how often a send finds room, then messages: u16 length,
 *     bytes; a length with its highest bit set: the session ends
 *
 * A COMMIT whose CRC is 0 gets the right one: damage that its sender meant. What must hold
 * are the invariants of device.h: a refused message changes nothing, a state is one that the
 * chip can have, nothing is larger than the payload, memory ends where it ends, and after a
 * SYNC the device obeys. Seeds are recorded sessions; the mutator damages whole messages.
 */
#include "fuzz.h"

#include "chip.h"
#include "device/device_state.h"

enum { MOST_MESSAGES = 600, SYNC_BYTES = 5, STEP_BUDGET = 400 };

typedef struct {
    uint32_t room;    /* of 256: how often there is room */
    uint64_t draws;
    uint32_t payload;
    int refusal, done, synced;
} line;

static int take(void *to, const uint8_t *out, size_t n)
{
    line *l = to;

    if (fuzz_draw(&l->draws, 256) >= l->room) {
        return 0;
    }
    HOLDS(n >= 1 && n <= l->payload);
    l->refusal |= out[0] == MESSAGE_REFUSED;
    l->done += out[0] == MESSAGE_BLOCK_DONE;
    l->synced += out[0] == MESSAGE_SYNCED;
    return 1;
}

/* A copy of all that the live chip keeps. */
static unsigned char *chip_bytes(const struct device *d, size_t *size)
{
    unsigned char *to;

    *size = (size_t)((const unsigned char *)d->input - d->memory);
    to = malloc(*size);
    memcpy(to, d->memory, *size);
    return to;
}

static void feed(struct device *d, line *l, const uint8_t *bytes, size_t n)
{
    device_progress progress;

    l->refusal = 0;
    do {
        const uint64_t before = d->chip != NULL ? d->chip->step : 0;
        progress = device_feed(d, bytes, n, take, l);
        HOLDS(d->chip == NULL || n == 0 || bytes[0] != MESSAGE_STEPS ||
              d->chip->step - before <= 1);
    } while (progress != DEVICE_IDLE);
}

static void set_crc(const struct device *d, uint8_t *m, size_t n)
{
    if (n == 5 && message_get32(m + 1) == 0 &&
        (m[0] == MESSAGE_IMAGE_COMMIT || m[0] == MESSAGE_WEIGHTS_COMMIT ||
         m[0] == MESSAGE_SNAPSHOT_COMMIT)) {
        message_put32(m + 1, d->staged.crc);
    }
}

/* A message of exactly its bytes; whether what is live was whole and stayed what it was. */
static void one(struct device *d, line *l, const uint8_t *from, size_t n)
{
    uint8_t *m = malloc(n > 0 ? n : 1);
    unsigned char *before = NULL;
    size_t size = 0;

    memcpy(m, from, n);
    set_crc(d, m, n);
    if (d->service == SERVICE_LIVE && !d->passing) {
        before = chip_bytes(d, &size);
    }
    feed(d, l, m, n);
    if (l->refusal && before != NULL) {
        HOLDS(d->service == SERVICE_LIVE && memcmp(before, d->memory, size) == 0);
    }
    if (d->service == SERVICE_LIVE && n > 0 && m[0] != MESSAGE_STEPS) {
        HOLDS(gle_snapshot_check(d->chip) == GLE_OK);
    }
    HOLDS(!l->refusal || d->passing);
    free(before);
    free(m);
}

/* The next good message is executed, whatever came before. */
static void obeys(struct device *d, line *l)
{
    const uint8_t sync[SYNC_BYTES] = {MESSAGE_SYNC, 1, 2, 3, 4}, echo[2] = {MESSAGE_ECHO, 9};

    l->room = 256;
    l->synced = 0;
    feed(d, l, sync, sizeof sync);
    HOLDS(l->synced == 1 && !d->passing);
    feed(d, l, echo, sizeof echo);
    HOLDS(!l->refusal);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint32_t payloads[] = {64, 100, 256, 1000};
    choices c = {data, size};
    const uint8_t how = choose(&c);
    line l = {256, size * 0x9e3779b97f4a7c15ull + 1, payloads[how & 3], 0, 0, 0};
    const size_t memory = how & 4 ? 3000 + 24 * (size_t)(how >> 3) : how & 8 ? 20000 : 1 << 17;
    const uint8_t often = choose(&c);
    device_config config = {0};
    unsigned char *bytes, *arena;
    uint64_t steps = 0;
    struct device *d;

    if (size > 1 << 15) {
        return 0;
    }
    bytes = malloc(device_bytes(l.payload));
    arena = malloc(memory);
    config.memory = arena;
    config.memory_bytes = memory;
    config.kernels = &gle_kernels_scalar;
    config.payload = l.payload;
    d = device_open(bytes, &config);
    HOLDS(d != NULL);
    l.room = 256 - often / 2u;
    for (int k = 0; k < MOST_MESSAGES && c.left > 0 && steps < STEP_BUDGET; k++) {
        const uint16_t length = choose16(&c);
        const uint64_t before = d->chip != NULL ? d->chip->step : 0;
        if ((length & 0x8000) != 0) {
            device_session_ended(d);
            HOLDS(d->staged.kind == STAGED_NONE && !d->block.open && !d->tamper.armed);
        } else {
            size_t n;
            const uint8_t *m = choose_bytes(&c, length, &n);
            one(d, &l, m, n);
        }
        if (d->chip != NULL && d->chip->step > before) {
            steps += d->chip->step - before;
        }
    }
    obeys(d, &l);
    HOLDS(d->service != SERVICE_LIVE || gle_snapshot_check(d->chip) == GLE_OK);
    free(arena);
    free(bytes);
    return 0;
}

/* --- the mutator: messages as wholes --- */

typedef struct {
    size_t at, n; /* of the bytes, behind the length */
} piece;

static uint32_t pieces_of(const uint8_t *data, size_t size, piece *to)
{
    uint32_t count = 0;

    for (size_t at = 2; at + 2 <= size && count < MOST_MESSAGES;) {
        const size_t length = (size_t)(data[at] | data[at + 1] << 8);
        const size_t n = length & 0x8000 ? 0 : length < size - at - 2 ? length : size - at - 2;
        to[count++] = (piece){at + 2, n};
        at += 2 + n;
    }
    return count;
}

static void damage(uint8_t *m, size_t n, uint64_t *state)
{
    const size_t at = n == 0 ? 0 : fuzz_draw(state, (uint32_t)n);

    if (n == 0) {
        return;
    }
    switch (fuzz_draw(state, 6)) {
    case 0: m[at] ^= (uint8_t)(1u << fuzz_draw(state, 8)); break;
    case 1: m[at] = (uint8_t)fuzz_draw(state, 256); break;
    case 2: m[0] = (uint8_t)message_list[fuzz_draw(state, message_count)].id; break;
    case 3:
        for (size_t k = at; k < n && k < at + 4; k++) {
            m[k] = (uint8_t)(fuzz_draw(state, 2) ? 0 : 255);
        }
        break;
    case 4: m[at] = (uint8_t)fuzz_draw(state, 4); break;
    default:
        if (n == 5) {
            memset(m + 1, 0, 4); /* a CRC that is meant */
        }
        break;
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed)
{
    static piece pieces[MOST_MESSAGES];
    uint64_t state = seed * 0x9e3779b97f4a7c15ull + 3;
    const uint32_t count = pieces_of(data, size, pieces);
    const piece *p;
    size_t whole;

    if (count == 0 || fuzz_draw(&state, 8) == 0) {
        return LLVMFuzzerMutate(data, size, most);
    }
    p = &pieces[fuzz_draw(&state, count)];
    whole = p->n + 2;
    switch (fuzz_draw(&state, 8)) {
    case 0: /* one message less */
        memmove(data + p->at - 2, data + p->at + p->n, size - p->at - p->n);
        return size - whole;
    case 1: /* the same twice */
        if (size + whole <= most) {
            memmove(data + p->at + p->n + whole, data + p->at + p->n, size - p->at - p->n);
            memcpy(data + p->at + p->n, data + p->at - 2, whole);
            return size + whole;
        }
        return size;
    case 2: /* a byte shorter or longer, or none */
        if (p->n > 0 && fuzz_draw(&state, 2)) {
            const size_t cut = 1 + fuzz_draw(&state, (uint32_t)p->n);
            memmove(data + p->at + p->n - cut, data + p->at + p->n, size - p->at - p->n);
            data[p->at - 2] = (uint8_t)(p->n - cut);
            data[p->at - 1] = (uint8_t)((p->n - cut) >> 8);
            return size - cut;
        }
        if (size < most && p->n < 0x7fff) {
            memmove(data + p->at + p->n + 1, data + p->at + p->n, size - p->at - p->n);
            data[p->at + p->n] = (uint8_t)fuzz_draw(&state, 256);
            data[p->at - 2] = (uint8_t)(p->n + 1);
            data[p->at - 1] = (uint8_t)((p->n + 1) >> 8);
            return size + 1;
        }
        return size;
    case 3: { /* one in another's place */
        const piece *q = &pieces[fuzz_draw(&state, count)];
        const size_t n = p->n < q->n ? p->n : q->n;
        memmove(data + p->at, data + q->at, n);
        return size;
    }
    case 4: /* another payload, memory, line; or the session ends */
        if (fuzz_draw(&state, 2)) {
            data[fuzz_draw(&state, 2)] = (uint8_t)fuzz_draw(&state, 256);
        } else if (size + 2 <= most) {
            memmove(data + p->at, data + p->at - 2, size - p->at + 2);
            data[p->at - 2] = 0;
            data[p->at - 1] = 0x80;
            return size + 2;
        }
        return size;
    default:
        for (uint32_t k = 1 + fuzz_draw(&state, 3); k > 0; k--) {
            damage(data + p->at, p->n, &state);
        }
        return size;
    }
}
