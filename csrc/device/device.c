/* Messages in, one at a time: what each needs, who executes it, and what comes of it. */
#include "device_state.h"

/* What must be there for a message to be executed. */
enum {
    MODEL = 1,  /* an image */
    LIVE = 2,   /* whose weights and states are whole */
    BETWEEN = 4 /* no block is open */
};

size_t device_bytes(uint32_t payload)
{
    if (payload < DEVICE_LEAST_PAYLOAD || payload > LINK_MAX_PAYLOAD) {
        return 0;
    }
    return (sizeof(struct device) + 7) / 8 * 8 + 2 * (size_t)device_up(payload, 8);
}

device *device_open(void *bytes, const device_config *config)
{
    struct device *d = bytes;
    unsigned char *at = bytes;
    const size_t size = config == NULL ? 0 : device_bytes(config->payload);

    if (bytes == NULL || size == 0 || config->memory == NULL || config->kernels == NULL ||
        (uintptr_t)bytes % 8 != 0 || (uintptr_t)config->memory % GLE_ALIGN != 0) {
        return NULL;
    }
    for (size_t k = 0; k < size; k++) {
        at[k] = 0;
    }
    d->config = *config;
    d->memory = config->memory;
    d->bytes = config->memory_bytes & ~(size_t)7; /* the image ends aligned */
    d->high = d->bytes;
    d->out = at + (sizeof(struct device) + 7) / 8 * 8;
    d->pairs = d->out + device_up(config->payload, 8);
    d->largest = config->payload;
    return d;
}

void device_hello(const device_config *config, uint8_t out[DEVICE_HELLO_BYTES])
{
    message_put32(out, device_u32(config->memory_bytes));
    message_put16(out + 4, (uint16_t)config->payload);
    message_put16(out + 6, (uint16_t)(config->features | FEATURE_GRADIENT | FEATURE_UHAT));
}

gle_chip *device_chip(const device *d) { return d->chip; }

/* --- refusing --- */

static size_t answer_refused(struct device *d)
{
    if (d->first++ != 0) {
        return 0;
    }
    return (size_t)(message_write_REFUSED(d->out, &d->refusal) - d->out);
}

void device_refuse(struct device *d, uint32_t reason, uint64_t need, uint64_t have)
{
    d->refusal.number = d->number;
    d->refusal.reason = (uint8_t)reason;
    d->refusal.need = device_u32(need);
    d->refusal.have = device_u32(have);
    d->refused++;
    d->passing = 1;
    d->stepping = 0;
    d->first = 0;
    d->answer = answer_refused;
}

int device_layer_ok(struct device *d, uint32_t layer)
{
    if (layer >= d->layers) {
        device_refuse(d, REASON_BAD_VALUE, d->layers - 1, layer);
        return 0;
    }
    return 1;
}

int device_range_ok(struct device *d, uint64_t first, uint64_t count, uint64_t have)
{
    if (first > have || count > have - first) {
        device_refuse(d, REASON_BAD_VALUE, have, first + count);
        return 0;
    }
    return 1;
}

int device_follows(struct device *d, uint32_t kind, uint32_t offset, size_t n)
{
    const uint32_t expected = d->staged.kind == kind ? d->staged.have : 0;

    if (d->staged.kind != kind || offset != expected) {
        device_refuse(d, REASON_ORDER, expected, offset);
        return 0;
    }
    return device_range_ok(d, offset, n, d->staged.size);
}

int device_staged_ok(struct device *d, uint32_t kind)
{
    if (d->staged.kind != kind) {
        device_refuse(d, REASON_ORDER, 0, 0);
        return 0;
    }
    if (d->staged.have != d->staged.size) {
        device_refuse(d, REASON_ORDER, d->staged.size, d->staged.have);
        return 0;
    }
    return 1;
}

void device_drop(struct device *d)
{
    if (d->staged.kind == STAGED_WEIGHTS) {
        device_weights_dropped(d);
    } else if (d->staged.kind == STAGED_SNAPSHOT) {
        device_snapshot_dropped(d);
    }
    d->staged.kind = STAGED_NONE;
    d->block.open = 0;
}

/* --- executing --- */

/* Whether a message that needs `what` can be executed now; refuses it if not. */
static int ready(struct device *d, int what)
{
    if ((what & (MODEL | LIVE)) != 0 && d->service == SERVICE_NONE) {
        device_refuse(d, REASON_NO_MODEL, 0, 0);
        return 0;
    }
    if ((what & LIVE) != 0 && d->service != SERVICE_LIVE) {
        device_refuse(d, REASON_OUT_OF_SERVICE, 0, 0);
        return 0;
    }
    if ((what & BETWEEN) != 0 && d->block.open) {
        device_refuse(d, REASON_ORDER, d->block.steps, d->block.done);
        return 0;
    }
    return 1;
}

static void set_rate(struct device *d, int32_t shift)
{
    if (gle_set_rate(d->chip, shift) != GLE_OK) {
        device_refuse(d, REASON_BAD_VALUE, 64, (uint32_t)shift);
    }
}

static void reboot(struct device *d, uint32_t how)
{
    if (how > REBOOT_WEDGE) {
        device_refuse(d, REASON_BAD_VALUE, REBOOT_WEDGE, how);
    } else if (d->config.reboot != NULL) {
        d->config.reboot(d->config.board, how);
    }
}

/* A message of this name: read, or refused; `call` if what it needs is there. */
#define CASE(name, needs, call) \
    case MESSAGE_##name: { \
        struct message_##name m; \
        if (!message_read_##name(message, n, &m)) { \
            device_refuse(d, REASON_MALFORMED, MESSAGE_FIXED_##name, n); \
        } else if (ready(d, needs)) { \
            call; \
        } \
        break; \
    }

/* The same of one that needs nothing to be there. */
#define CASE_ALWAYS(name, call) \
    case MESSAGE_##name: { \
        struct message_##name m; \
        if (!message_read_##name(message, n, &m)) { \
            device_refuse(d, REASON_MALFORMED, MESSAGE_FIXED_##name, n); \
        } else { \
            call; \
        } \
        break; \
    }

/* The same of one that is nothing but a tail of bytes: any bytes are one. */
#define CASE_BYTES(name, call) \
    case MESSAGE_##name: { \
        struct message_##name m; \
        (void)message_read_##name(message, n, &m); \
        call; \
        break; \
    }

static void execute(struct device *d, const uint8_t *message, size_t n)
{
    d->refusal.message = n == 0 ? 0 : message[0];
    if (n == 0) {
        device_refuse(d, REASON_MALFORMED, 1, 0);
        return;
    }
    switch (message[0]) {
        CASE_ALWAYS(INFO, device_info(d))
        CASE_ALWAYS(STATUS, device_status(d))
        CASE_ALWAYS(SYNC, device_sync(d, m.cookie))
        CASE_BYTES(ECHO, device_echo(d, &m))
        CASE_ALWAYS(REBOOT, reboot(d, m.how))
        CASE(IMAGE_BEGIN, BETWEEN, device_image_begin(d, &m))
        CASE(IMAGE_DATA, BETWEEN, device_image_data(d, &m))
        CASE(IMAGE_COMMIT, BETWEEN, device_image_commit(d, &m))
        CASE(WEIGHTS_BEGIN, MODEL | BETWEEN, device_weights_begin(d))
        CASE(WEIGHTS_DATA, MODEL | BETWEEN,
             device_weights_data(d, message, n, m.layer, m.first, m.tail_count))
        CASE(BIAS_DATA, MODEL | BETWEEN,
             device_weights_data(d, message, n, m.layer, m.first, m.tail_count))
        CASE(WEIGHTS_COMMIT, MODEL | BETWEEN, device_weights_commit(d, &m))
        CASE(WEIGHTS_ADD, LIVE, device_weights_add(d, &m))
        CASE(BIAS_ADD, LIVE, device_bias_add(d, &m))
        CASE(TIMES_WRITE, LIVE, device_times_write(d, &m))
        CASE(WEIGHTS_READ, LIVE, device_weights_read(d, &m))
        CASE(BIAS_READ, LIVE, device_bias_read(d, &m))
        CASE(BLOCK, LIVE | BETWEEN, device_block_begin(d, &m))
        CASE_BYTES(STEPS, device_block_steps(d, &m))
        CASE(RESET_STATES, LIVE | BETWEEN, gle_reset(d->chip, m.first))
        CASE(SET_RATE, LIVE, set_rate(d, m.shift))
        CASE(GRADIENT_CLEAR, LIVE, device_gradient_clear(d, &m))
        CASE(GRADIENT_READ, MODEL, device_gradient_read(d, &m))
        CASE(DIGEST, MODEL, device_digest(d))
        CASE(COUNTERS, MODEL, device_counters(d, m.layer))
        CASE(COUNTERS_CLEAR, LIVE, gle_counters_clear(d->chip))
        CASE(FORMATS, MODEL, device_formats(d, m.layer))
        CASE(SNAPSHOT_READ, LIVE, device_snapshot_read(d))
        CASE(SNAPSHOT_BEGIN, MODEL | BETWEEN, device_snapshot_begin(d, &m))
        CASE(SNAPSHOT_DATA, MODEL | BETWEEN, device_snapshot_data(d, &m))
        CASE(SNAPSHOT_COMMIT, MODEL | BETWEEN, device_snapshot_commit(d, &m))
        CASE(TAMPER, MODEL, device_tamper_set(d, &m))
    default:
        device_refuse(d, REASON_UNKNOWN, 0, message[0]);
        break;
    }
}

/* Only a whole SYNC is heard while everything is passed over. */
static int passed_over(const struct device *d, const uint8_t *message, size_t n)
{
    return d->passing && !(n == MESSAGE_FIXED_SYNC && message[0] == MESSAGE_SYNC);
}

/* --- answering --- */

int device_flush(struct device *d)
{
    if (d->out_bytes != 0 && !d->send(d->to, d->out, d->out_bytes)) {
        return 0;
    }
    d->out_bytes = 0;
    return 1;
}

/* The next messages of an answer, as many as there is room for; 0 if some are left. */
static int answered(struct device *d)
{
    while (d->answer != NULL) {
        size_t n;
        if (!device_flush(d)) {
            return 0; /* records that were being packed go first */
        }
        n = d->answer(d);
        d->out_bytes = (uint32_t)n;
        if (n == 0) {
            d->answer = NULL;
        }
    }
    return 1;
}

static device_progress feed(struct device *d, const uint8_t *message, size_t n)
{
    if (!d->begun) {
        if (passed_over(d, message, n)) {
            d->discarded++;
            d->number++;
            return DEVICE_IDLE;
        }
        d->begun = 1;
        d->taken = 0;
        d->stepping = 0;
        execute(d, message, n);
    }
    if (d->stepping) {
        const device_progress progress = device_block_go(d, message, n);
        if (progress != DEVICE_IDLE) {
            return progress;
        }
    }
    if (!answered(d)) {
        return DEVICE_WAITS;
    }
    d->begun = 0;
    d->number++;
    return DEVICE_IDLE;
}

device_progress device_feed(device *d, const uint8_t *message, size_t n, device_send send, void *to)
{
    d->send = send;
    d->to = to;
    d->link = NULL;
    d->largest = d->config.payload;
    return feed(d, message, n);
}

void device_session_ended(device *d)
{
    device_drop(d);
    d->tamper.armed = 0;
    d->begun = d->stepping = d->passing = 0;
    d->answer = NULL;
    d->out_bytes = 0;
    d->number = 0;
}

/* --- behind a link --- */

static int send_by_link(void *to, const uint8_t *message, size_t n)
{
    return link_send(to, message, n, NULL) == LINK_OK;
}

/* What came before a session ended and was not executed will not be: nobody could be told. */
static void discard(struct device *d, link_state *link)
{
    const uint8_t *message;
    size_t n;

    while (link_message(link, &message, &n) == LINK_OK) {
        (void)link_consumed(link);
        d->discarded++;
    }
}

device_progress device_poll(device *d, link_state *link)
{
    const uint8_t *message;
    device_progress progress;
    link_event event;
    size_t n;

    while (link_next_event(link, &event) == LINK_OK) {
        device_session_ended(d); /* OPENED comes where everything begins anew, too */
    }
    if (!link_is_open(link)) {
        discard(d, link);
        return DEVICE_IDLE;
    }
    if (link_message(link, &message, &n) != LINK_OK) {
        return DEVICE_IDLE;
    }
    d->send = send_by_link;
    d->to = link;
    d->link = link;
    d->largest = link_largest(link);
    d->largest = d->largest < d->config.payload ? d->largest : d->config.payload;
    progress = feed(d, message, n);
    if (progress == DEVICE_IDLE) {
        (void)link_consumed(link);
        return DEVICE_BUSY;
    }
    return progress;
}
