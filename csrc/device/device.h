/* A chip that obeys messages: between the link, which brings them exactly once and in
 * order, and the core. The same object file is in every firmware and in the host's
 * replay. No I/O, no clock, no allocation, no globals: memory and callbacks are the
 * caller's.
 *
 * Invariants:
 *
 * 1. A message is executed as a whole or refused as a whole; a refused one changes no
 *    state but the count of refusals. Up to the next SYNC nothing more is executed.
 * 2. An image, a set of weights and a snapshot are live as a whole, under their CRC, or
 *    not at all. Where memory holds the new beside the old, the old stays in service until
 *    then; where not, nothing is in service meanwhile and blocks are refused.
 * 3. What does not fit is refused with bytes needed and bytes there, before anything that
 *    is live has changed wherever that can be known then.
 * 4. When a session ends, half-sent images, sets and blocks are forgotten and TAMPER is
 *    disarmed; the steps that were executed stay executed and the states are held. A SYNC
 *    and the BEGIN of anything forget what is half-sent, too.
 * 5. No message, whatever its bytes, makes the device leave its memory.
 */
#ifndef DEVICE_H
#define DEVICE_H

#include <stddef.h>
#include <stdint.h>

#include "../gle.h"
#include "../link/link.h"

#define DEVICE_LEAST_PAYLOAD LINK_MIN_PAYLOAD

typedef enum {
    DEVICE_IDLE = 0, /* nothing to do until something arrives */
    DEVICE_BUSY = 1, /* did something, has more to do: call again */
    DEVICE_WAITS = 2 /* has something to send and no room in the link: after the next link_poll */
} device_progress;

/* STATUS: what only the board knows. */
typedef struct {
    uint32_t stack_size, stack_used; /* bytes, by the painted mark; 0 where unknown */
    uint32_t uptime_ms;
    uint32_t rx_lost; /* received bytes that found the ring full */
} device_board_status;

typedef struct {
    void *memory;        /* the chip, its image, what is staged; aligned to GLE_ALIGN */
    size_t memory_bytes;
    const struct gle_kernels *kernels;
    const char *name;    /* of the board */
    uint32_t boot_cause; /* message_boot_cause */
    uint32_t boots;      /* since power came, as far as the board can count */
    uint32_t payload;    /* largest message sent, DEVICE_LEAST_PAYLOAD .. LINK_MAX_PAYLOAD */
    void *board;         /* for the two below */
    void (*status)(void *board, device_board_status *status);
    void (*reboot)(void *board, uint32_t how); /* message_reboot; may not return */
    uint32_t features;   /* message_features of the board: FEATURE_WATCHDOG, FEATURE_STACK */
} device_config;

typedef struct device device;

/* Bytes of the caller's for `struct device`, aligned to 8; 0 if the payload is out of
 * range. Payload as in the config. */
size_t device_bytes(uint32_t payload);
/* NULL if the configuration breaks a rule: payload, alignment, no memory, no kernels. The
 * config is copied, name and memory are not. status and reboot may be NULL. */
device *device_open(void *bytes, const device_config *config);

/* The upper layer's part of the link's HELLO (limits that a host wants before anything). */
#define DEVICE_HELLO_BYTES 8 /* u32 memory, u16 payload, u16 features */
void device_hello(const device_config *config, uint8_t out[DEVICE_HELLO_BYTES]);

/* Of the list of messages; link_config.protocol on both ends. */
uint32_t message_list_crc(void);

/* Takes the link's events and messages, executes at most one step of a block, sends what
 * there is to send. The firmware's loop is: link_receive, device_poll, link_poll. */
device_progress device_poll(device *d, link_state *link);

/* The same without a link, for replay and fuzzing: one message in; `send` takes one
 * message out and returns 0 if it has no room (device_feed is then called again with the
 * same message). Returns DEVICE_IDLE when the message is executed or refused. */
typedef int (*device_send)(void *to, const uint8_t *message, size_t n);
device_progress device_feed(device *d, const uint8_t *message, size_t n, device_send send, void *to);
void device_session_ended(device *d);

/* The live chip, or NULL: for tests. */
gle_chip *device_chip(const device *d);

#endif
