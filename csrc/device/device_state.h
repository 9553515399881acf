/* The inside of a device, for device*.c only.
 *
 * Memory, from its beginning:
 *
 *     chip's arena | input | target | votes | free middle ... | image words
 *                                           ^low              ^high
 *
 * What is staged (an image, a set of weights, a snapshot) lies in the free middle; only
 * one thing is staged at a time. Without a chip all of it is the middle.
 */
#ifndef DEVICE_STATE_H
#define DEVICE_STATE_H

#include "device.h"
#include "message_codec.h"

enum device_service {
    SERVICE_NONE = 0, /* no image is live */
    SERVICE_HELD,     /* weights or states are half-written, or gone with a set that was */
    SERVICE_LIVE
};

enum device_staged { STAGED_NONE = 0, STAGED_IMAGE, STAGED_WEIGHTS, STAGED_SNAPSHOT };

/* An image, a set of weights or a snapshot under way. */
typedef struct {
    uint8_t kind;     /* device_staged */
    uint8_t straight; /* written to where it will be used: nothing is kept beside it */
    uint8_t touched;  /* and something has been written */
    uint8_t served;   /* device_service before it began */
    uint32_t size;    /* bytes: of the image, the snapshot; room for the log of weights */
    uint32_t have;    /* received; used of the log */
    uint32_t crc;     /* of what has been received */
    uint32_t entry;   /* weights: where the log's last entry begins */
    uint32_t numbers; /* weights: received */
    uint32_t batch, options; /* of the image */
    size_t at;        /* in memory */
} device_staging;

typedef struct {
    uint8_t open;
    uint8_t running;  /* a step has been executed: 1 its formats, 2 its records are to be told */
    uint8_t flags;
    uint32_t steps, done;
    uint32_t pairs;   /* in d->pairs */
    uint32_t pair, number; /* of the records: the next to pack */
    uint64_t left;    /* bytes of STEPS that are still to come */
    uint32_t labels;  /* bytes that come before the first step, not yet here */
    uint32_t filled;  /* bytes of the step that is coming in */
    int8_t fracs[GLE_MAX_LAYERS][2]; /* as last told */
} device_block;

typedef struct {
    uint64_t step;
    uint32_t index;
    uint8_t armed, layer, signal, bit;
} device_tamper;

struct device {
    device_config config;
    unsigned char *memory;
    size_t bytes;     /* of it */

    /* What is live. */
    gle_chip *chip;
    uint8_t service;  /* device_service */
    uint8_t lent;     /* the chip has of the free middle what it can do without, see gle_lend */
    uint32_t batch, inputs, outputs, layers, words, loss, options;
    size_t low, high; /* the free middle */
    int16_t *input, *target;
    uint32_t input_bytes, target_bytes; /* of one step; of labels for cross entropy */
    int64_t *votes;

    device_staging staged;
    device_block block;
    device_tamper tamper;

    /* The message under execution. */
    uint8_t begun;    /* it has been executed but for what follows */
    uint8_t stepping; /* it is STEPS or BLOCK: what it brings is executed bit by bit */
    uint8_t passing;  /* everything is passed over until SYNC */
    uint32_t taken;   /* bytes of its tail that have been taken */
    uint32_t number;  /* messages of this session before it */
    /* Writes the next message of its answer to d->out and returns the size; 0: that was
     * all. NULL: there is nothing to answer. */
    size_t (*answer)(struct device *d);
    uint32_t layer, first, count; /* what is left of an answer */
    const uint8_t *echo;
    struct message_REFUSED refusal;

    /* On its way out: RECORDS while they are packed, or one message that waits for room. */
    uint8_t *out;
    uint8_t *pairs;   /* u8 layer, u8 signal of the open block */
    uint32_t out_bytes;
    uint32_t largest; /* message of this session */
    device_send send;
    void *to;
    const link_state *link; /* NULL: none */

    uint32_t discarded, refused;
};

/* What cannot be otherwise, said where it is relied upon. The fuzzers look; firmware does not. */
#ifdef DEVICE_LOOKS
#define DEVICE_HOLDS(what) ((what) ? (void)0 : __builtin_trap())
#else
#define DEVICE_HOLDS(what) ((void)(what))
#endif

static inline uint32_t device_up(uint32_t n, uint32_t to) { return (n + to - 1) / to * to; }

static inline uint32_t device_u32(uint64_t x) { return x > UINT32_MAX ? UINT32_MAX : (uint32_t)x; }

/* device.c */
void device_refuse(struct device *d, uint32_t reason, uint64_t need, uint64_t have);
/* Sends what is in d->out; 0 if there is no room. */
int device_flush(struct device *d);
/* What is half-sent is forgotten. */
void device_drop(struct device *d);
/* Refuses and returns 0 unless `layer` is one of the live chip's. */
int device_layer_ok(struct device *d, uint32_t layer);
/* The same for numbers first .. first + count of `have`. */
int device_range_ok(struct device *d, uint64_t first, uint64_t count, uint64_t have);

/* Whether n bytes at `offset` are the next ones of what is staged, an image or a snapshot. */
int device_follows(struct device *d, uint32_t kind, uint32_t offset, size_t n);
/* Whether all of it is there. */
int device_staged_ok(struct device *d, uint32_t kind);

/* device_image.c */
void device_image_begin(struct device *d, const struct message_IMAGE_BEGIN *m);
void device_image_data(struct device *d, const struct message_IMAGE_DATA *m);
void device_image_commit(struct device *d, const struct message_IMAGE_COMMIT *m);

/* device_weights.c */
void device_weights_begin(struct device *d);
/* Of WEIGHTS_DATA and BIAS_DATA; `message` is the whole of it, for the CRC. */
void device_weights_data(struct device *d, const uint8_t *message, size_t n, uint32_t layer,
                         uint32_t first, size_t count);
void device_weights_commit(struct device *d, const struct message_WEIGHTS_COMMIT *m);
void device_weights_dropped(struct device *d);
void device_weights_add(struct device *d, const struct message_WEIGHTS_ADD *m);
void device_bias_add(struct device *d, const struct message_BIAS_ADD *m);

void device_times_write(struct device *d, const struct message_TIMES_WRITE *m);

/* device_image.c: the free middle is the chip's while nothing is staged there. */
void device_lend(struct device *d);
void device_take_back(struct device *d);

/* device_block.c */
void device_block_begin(struct device *d, const struct message_BLOCK *m);
void device_block_steps(struct device *d, const struct message_STEPS *m);
/* Goes on with the open block: at most one step. */
device_progress device_block_go(struct device *d, const uint8_t *message, size_t n);
void device_tamper_set(struct device *d, const struct message_TAMPER *m);

/* device_snapshot.c */
void device_snapshot_read(struct device *d);
void device_snapshot_begin(struct device *d, const struct message_SNAPSHOT_BEGIN *m);
void device_snapshot_data(struct device *d, const struct message_SNAPSHOT_DATA *m);
void device_snapshot_dropped(struct device *d);
void device_snapshot_commit(struct device *d, const struct message_SNAPSHOT_COMMIT *m);

/* device_answers.c */
void device_info(struct device *d);
void device_status(struct device *d);
void device_sync(struct device *d, uint32_t cookie);
void device_echo(struct device *d, const struct message_ECHO *m);
void device_weights_read(struct device *d, const struct message_WEIGHTS_READ *m);
void device_bias_read(struct device *d, const struct message_BIAS_READ *m);
void device_gradient_clear(struct device *d, const struct message_GRADIENT_CLEAR *m);
void device_gradient_read(struct device *d, const struct message_GRADIENT_READ *m);
void device_digest(struct device *d);
void device_counters(struct device *d, uint32_t layer);
void device_formats(struct device *d, uint32_t layer);

#endif
