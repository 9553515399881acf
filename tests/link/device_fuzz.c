/* A device under sanitizers: recorded sessions played to it, damaged in every way.
 *
 *     device_fuzz FILE SEED ROUNDS
 *
 * FILE holds a good session: for each message u32 length and its bytes. A round is a device
 * with its own memory and payload, hundreds of messages out of that session, cut, flipped,
 * repeated, made up, and sends that find no room. What must hold: device.h's invariants.
 * All memory is allocated to the byte, so that a step outside is seen.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chip.h"
#include "device/device_state.h"

enum { MOST = 4096 };

static const uint8_t *message[MOST];
static size_t bytes_of[MOST];
static int messages;
static uint64_t state;
static uint32_t refused, executed, waits;

static uint64_t draw(void)
{
    state += UINT64_C(0x9e3779b97f4a7c15);
    return gle_mix64(state);
}

static uint32_t below(uint32_t n) { return (uint32_t)(draw() % n); }

static void fail(const char *what, int at)
{
    printf("%s at %d, %llu\n", what, at, (unsigned long long)state);
    exit(1);
}
#define CHECK(x) ((x) ? (void)0 : fail(#x, __LINE__))

typedef struct {
    uint32_t room;    /* of 256: how often there is room */
    uint32_t payload;
    int refusal, done;
    uint64_t digest;  /* of the last BLOCK_DONE */
} line;

static int take(void *to, const uint8_t *out, size_t n)
{
    line *l = to;

    if (below(256) >= l->room) {
        return 0;
    }
    CHECK(n >= 1 && n <= l->payload);
    if (out[0] == MESSAGE_REFUSED) {
        l->refusal = 1;
    }
    if (out[0] == MESSAGE_BLOCK_DONE) {
        l->done++;
        l->digest = message_get64(out + 5);
    }
    return 1;
}

/* One message in a buffer of exactly its size, until it is executed; 1 if refused. */
static int feed(struct device *d, line *l, const uint8_t *bytes, size_t n)
{
    uint8_t *copy = malloc(n > 0 ? n : 1);
    device_progress progress;

    memcpy(copy, bytes, n);
    l->refusal = 0;
    do {
        const uint64_t before = d->chip != NULL ? d->chip->step : 0;
        progress = device_feed(d, copy, n, take, l);
        CHECK(d->chip == NULL || n == 0 || copy[0] != MESSAGE_STEPS ||
              d->chip->step - before <= 1);
        waits += progress == DEVICE_WAITS;
    } while (progress != DEVICE_IDLE);
    free(copy);
    refused += (uint32_t)l->refusal;
    executed++;
    return l->refusal;
}

static unsigned char *snapshot(const struct device *d, size_t *size)
{
    unsigned char *to;

    *size = gle_snapshot_bytes(d->chip);
    to = malloc(*size);
    CHECK(gle_snapshot_read(d->chip, to, *size) == GLE_OK);
    return to;
}

/* A message, perhaps damaged; whether what is live was whole and stayed what it was. */
static void damaged(struct device *d, line *l, int which)
{
    size_t n = bytes_of[which];
    uint8_t *m = malloc(n + 64);
    const uint32_t how = below(12);
    unsigned char *before = NULL;
    size_t size = 0;

    memcpy(m, message[which], n);
    switch (how) {
    case 0: m[below((uint32_t)n)] ^= (uint8_t)(1u << below(8)); break;
    case 1: m[below((uint32_t)n)] = (uint8_t)draw(); break;
    case 2: n = below((uint32_t)n + 1); break;
    case 3:
        for (uint32_t k = below(60); k > 0; k--) {
            m[n++] = (uint8_t)draw();
        }
        break;
    case 4: /* any id, numbers that are likely to mean something */
        n = 1 + below(24);
        for (size_t k = 0; k < n; k++) {
            m[k] = (uint8_t)(below(3) ? below(3) : draw());
        }
        m[0] = (uint8_t)message_list[below(message_count)].id;
        break;
    case 5: m[0] = (uint8_t)message_list[below(message_count)].id; break;
    default: break;
    }
    if (n == 5 && below(2) && (m[0] == MESSAGE_IMAGE_COMMIT || m[0] == MESSAGE_WEIGHTS_COMMIT ||
                               m[0] == MESSAGE_SNAPSHOT_COMMIT)) {
        message_put32(m + 1, d->staged.crc); /* damage that its sender meant */
    }
    if (d->service == SERVICE_LIVE && (how < 6 || below(8) == 0)) {
        before = snapshot(d, &size);
    }
    if (feed(d, l, m, n) && before != NULL) {
        size_t now;
        unsigned char *after;
        CHECK(d->service == SERVICE_LIVE);
        after = snapshot(d, &now);
        CHECK(now == size && memcmp(before, after, size) == 0);
        free(after);
    }
    if (d->service == SERVICE_LIVE && below(4) == 0) {
        CHECK(gle_snapshot_check(d->chip) == GLE_OK);
    }
    free(before);
    free(m);
}

/* The whole session as it was recorded; the digest of its last block. */
static uint64_t good(struct device *d, line *l, int *worked)
{
    const uint8_t sync[5] = {MESSAGE_SYNC, 1, 2, 3, 4};

    *worked = !feed(d, l, sync, sizeof sync);
    for (int k = 0; k < messages; k++) {
        *worked &= !feed(d, l, message[k], bytes_of[k]);
    }
    return l->digest;
}

static void one_round(uint64_t expected)
{
    const uint32_t payloads[] = {64, 100, 256, 1000};
    const size_t sizes[] = {below(2000), 3000 + below(5000), 8000 + below(20000), 1 << 18};
    line l = {256, payloads[below(4)], 0, 0, 0};
    const size_t memory = sizes[below(4)];
    void *state_bytes = malloc(device_bytes(l.payload)), *arena = aligned_alloc(64, (memory + 63) / 64 * 64);
    device_config config = {0};
    struct device *d;
    int worked, at = 0;

    config.memory = arena;
    config.memory_bytes = memory;
    config.kernels = &gle_kernels_scalar;
    config.payload = l.payload;
    d = device_open(state_bytes, &config);
    CHECK(d != NULL);
    if (below(2)) {
        (void)good(d, &l, &worked);
    }
    l.room = below(2) ? 256 : 60 + below(190);
    for (uint32_t k = 200 + below(400); k > 0; k--) {
        if (below(6) == 0) {
            const uint8_t sync[5] = {MESSAGE_SYNC, 0, 0, 0, 0};
            feed(d, &l, sync, sizeof sync);
        }
        if (below(100) == 0) {
            device_session_ended(d);
        }
        at = below(8) ? (at + 1) % messages : (int)below((uint32_t)messages);
        damaged(d, &l, at);
    }
    device_session_ended(d);
    l.room = 256;
    l.digest = 0;
    if (good(d, &l, &worked) != expected || !worked) {
        CHECK(memory < 1 << 18);
    }
    free(arena);
    free(state_bytes);
}

/* Snapshots with any byte changed: refused, or a chip that steps. */
static void hostile_snapshots(uint32_t rounds)
{
    const size_t memory = 1 << 18;
    line l = {256, 256, 0, 0, 0};
    void *state_bytes = malloc(device_bytes(256)), *arena = aligned_alloc(64, memory);
    device_config config = {0};
    struct device *d;
    unsigned char *taken, *bytes;
    uint32_t accepted = 0;
    size_t size;
    int worked;

    config.memory = arena;
    config.memory_bytes = memory;
    config.kernels = &gle_kernels_scalar;
    config.payload = 256;
    d = device_open(state_bytes, &config);
    (void)good(d, &l, &worked);
    CHECK(worked);
    taken = snapshot(d, &size);
    bytes = malloc(size);
    for (uint32_t k = 0; k < rounds; k++) {
        gle_status whole, parts;
        memcpy(bytes, taken, size);
        for (uint32_t c = 1 + below(3); c > 0; c--) {
            const size_t at = 16 + below((uint32_t)size - 16);
            bytes[at] = (uint8_t)(below(2) ? draw() : bytes[at] ^ 1u << below(8));
        }
        whole = gle_snapshot_write(d->chip, bytes, size);
        parts = GLE_OK;
        for (size_t at = 0, n; at < size; at += n) {
            n = 1 + below(900);
            n = n < size - at ? n : size - at;
            CHECK(gle_snapshot_put(d->chip, at, bytes + at, n) == GLE_OK);
        }
        parts = gle_snapshot_check(d->chip);
        CHECK(whole == parts);
        if (parts == GLE_OK) {
            size_t again;
            unsigned char *back = snapshot(d, &again);
            CHECK(again == size && memcmp(back, bytes, size) == 0);
            free(back);
            accepted++;
        }
        for (int t = 0; t < 4; t++) {
            CHECK(gle_step(d->chip, d->input, d->target,
                           GLE_LEARN | GLE_RANGE | GLE_ADD_GRADIENT) == GLE_OK);
        }
        for (int32_t c = 0; c < 20; c++) {
            (void)gle_flip(d->chip, (int32_t)below((uint32_t)d->layers), (int32_t)below(8),
                           (int32_t)below(20), (int32_t)below(33));
        }
        CHECK(gle_snapshot_check(d->chip) == GLE_OK);
    }
    printf("snapshots: %u of %u accepted\n", (unsigned)accepted, (unsigned)rounds);
    free(bytes);
    free(taken);
    free(arena);
    free(state_bytes);
}

static uint64_t expected_digest(void)
{
    const size_t memory = 1 << 18;
    line l = {256, 64, 0, 0, 0};
    void *state_bytes = malloc(device_bytes(64)), *arena = aligned_alloc(64, memory);
    device_config config = {0};
    uint64_t digest;
    int worked;

    config.memory = arena;
    config.memory_bytes = memory;
    config.kernels = &gle_kernels_scalar;
    config.payload = 64;
    digest = good(device_open(state_bytes, &config), &l, &worked);
    CHECK(worked && l.done > 0);
    free(arena);
    free(state_bytes);
    return digest;
}

int main(int argc, char **argv)
{
    FILE *file = argc == 4 ? fopen(argv[1], "rb") : NULL;
    uint8_t length[4];
    uint64_t expected, seed;

    if (file == NULL) {
        fprintf(stderr, "usage: device_fuzz FILE SEED ROUNDS\n");
        return 2;
    }
    while (messages < MOST && fread(length, 1, 4, file) == 4) {
        uint8_t *m;
        bytes_of[messages] = message_get32(length);
        m = malloc(bytes_of[messages]);
        CHECK(fread(m, 1, bytes_of[messages], file) == bytes_of[messages]);
        message[messages++] = m;
    }
    fclose(file);
    seed = strtoull(argv[2], NULL, 10);
    expected = expected_digest();
    for (int k = 0; k < atoi(argv[3]); k++) {
        state = seed + (uint64_t)k;
        one_round(expected);
    }
    hostile_snapshots((uint32_t)atoi(argv[3]) * 20);
    printf("%u messages, %u refused, %u waits\n", (unsigned)executed, (unsigned)refused,
           (unsigned)waits);
    for (int k = 0; k < messages; k++) {
        free((void *)(uintptr_t)message[k]);
    }
    return 0;
}
