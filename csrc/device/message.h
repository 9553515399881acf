/* Layouts of messages, made from messages.def: for each message its id and a row of the
 * list. message_codec.h makes of it a struct with its fields, the size of its fixed part
 * and functions that read and write it.
 *
 * A decoder consumes exactly its message or refuses it: a message is right if its fixed
 * part is there and the tail is a whole number of numbers (none for NONE).
 */
#ifndef MESSAGE_H
#define MESSAGE_H

#include <stddef.h>
#include <stdint.h>

enum message_way { TO_DEVICE = 0, TO_HOST = 1 };
/* Bytes of one number of a tail; 0: no tail. */
enum message_tail { TAIL_NONE = 0, TAIL_BYTES = 1, TAIL_I8 = 1, TAIL_I16 = 2, TAIL_I32 = 4, TAIL_U64 = 8 };

enum message_id {
#define MESSAGE(name, id, way, fields, tail) MESSAGE_##name = (id),
#include "messages.def"
#undef MESSAGE
    MESSAGE_NONE = 0
};

enum message_block_flags {
    BLOCK_LEARN = 1,    /* on-chip SGD after each step */
    BLOCK_RANGE = 2,    /* the steps count for the auto-ranging */
    BLOCK_TARGET = 4,   /* STEPS carry targets */
    BLOCK_GRADIENT = 8, /* add each step's gradient to the accumulators */
    BLOCK_VOTES = 16    /* sum the output layer's r over the block */
};

enum message_reason {
    REASON_UNKNOWN = 1,    /* no such message */
    REASON_MALFORMED = 2,  /* shorter than its fields, or a tail that is no whole number */
    REASON_NO_MODEL = 3,   /* no image is live */
    REASON_OUT_OF_SERVICE = 4, /* a set of weights or a snapshot is half-written */
    REASON_NO_MEMORY = 5,  /* need, have: bytes */
    REASON_BAD_IMAGE = 6,  /* breaks a rule of gle_image_check */
    REASON_BAD_CRC = 7,    /* need: of the bytes received; have: as the message says */
    REASON_BAD_VALUE = 8,  /* need: the largest allowed; have: found */
    REASON_ORDER = 9,      /* data without BEGIN, an offset that does not follow, STEPS without a block; need, have: offsets */
    REASON_TOO_LONG = 10,  /* an answer would not fit the payload; need, have: bytes */
    REASON_BAD_SNAPSHOT = 11 /* of another image, or with values outside their formats */
};

enum message_boot_cause { BOOT_UNKNOWN = 0, BOOT_POWER = 1, BOOT_PIN = 2, BOOT_SOFTWARE = 3, BOOT_WATCHDOG = 4 };
enum message_reboot { REBOOT_NOW = 0, REBOOT_WEDGE = 1 }; /* WEDGE: stop in a loop, the watchdog's case */

/* Optional abilities, INFO_IS.features */
enum message_features { FEATURE_WATCHDOG = 1, FEATURE_GRADIENT = 2, FEATURE_UHAT = 4, FEATURE_STACK = 8 };

/* One row of the list, for whoever wants to learn it at run time (Python does). */
typedef struct {
    const char *name;
    uint32_t id, way;
    const char *fields; /* "u32 words, u32 batch, " */
    const char *tail;   /* "NONE", "BYTES", "I16" ... */
} message_row;
extern const message_row message_list[];
extern const uint32_t message_count;

#endif
