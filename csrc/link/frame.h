/* Frames: what travels between two 0x00 bytes.
 *
 *     offset  0      1      2       3     4        6     8         10
 *             type   flags  credit  held  session  boot  sequence  ack   payload  CRC-32
 *
 * All numbers are little endian; the CRC is that of everything before it. Twelve bytes
 * of header keep the payload aligned to 4 in the buffer that it arrives in. With 256
 * bytes of payload a frame takes 275 bytes of the wire: 93 % are payload.
 */
#ifndef LINK_FRAME_H
#define LINK_FRAME_H

#include "cobs.h"

enum { FRAME_HEADER = 12, FRAME_CRC = 4, FRAME_OVERHEAD = FRAME_HEADER + FRAME_CRC };

/* The largest piece that a sender keeps for itself behind the header (a HELLO). */
enum { FRAME_EXTRA = 20 };

enum frame_type {
    FRAME_SYN = 1,     /* the opening end offers a session; payload HELLO */
    FRAME_SYN_ACK = 2, /* the other end agrees; payload HELLO */
    FRAME_REFUSED = 3, /* the other end cannot agree; payload HELLO */
    FRAME_DATA = 4,    /* one message */
    FRAME_ACK = 5,     /* acknowledgement, credit and flags only */
    FRAME_RESET = 6,   /* "I know no such session": session and boot as they came */
    FRAME_CLOSE = 7    /* the session is over */
};

enum frame_flag {
    FRAME_NAK = 1,  /* something was missing or damaged: send again from ack + held */
    FRAME_PROBE = 2 /* answer at once with an acknowledgement */
};

typedef struct {
    uint8_t type;
    uint8_t flags;
    uint8_t credit;    /* messages that the sender of this frame has room for */
    uint8_t held;      /* messages that it has received and not yet executed */
    uint16_t session;  /* chosen by the opening end */
    uint16_t boot;     /* chosen by the other: its boot id, counted on for each session */
    uint16_t sequence; /* of the message */
    uint16_t ack;      /* every message before this one has been executed */
} frame_header;

uint16_t frame_get16(const uint8_t *bytes);
uint32_t frame_get32(const uint8_t *bytes);
void frame_put16(uint8_t *bytes, uint16_t x);
void frame_put32(uint8_t *bytes, uint32_t x);
void frame_read_header(const uint8_t bytes[FRAME_HEADER], frame_header *header);

typedef enum {
    FRAME_MORE = 0,  /* no frame ends here */
    FRAME_GOOD,      /* room holds header and payload; n counts both */
    FRAME_BAD_COBS,  /* ends inside a block */
    FRAME_BAD_CRC,
    FRAME_TOO_LONG,  /* does not fit room */
    FRAME_TOO_SHORT  /* shorter than header and CRC */
} frame_result;

typedef struct {
    uint8_t *room;   /* capacity bytes, FRAME_OVERHEAD more than the largest payload */
    size_t capacity;
    size_t n;
    cobs_decoder cobs;
    uint8_t begun;   /* a byte has come since the last delimiter */
    uint8_t too_long;
} frame_receiver;

/* From the next byte on a frame is received into room. */
void frame_receive_start(frame_receiver *receiver, uint8_t *room, size_t capacity);

/* Takes any byte. After any result but FRAME_MORE, start again. */
frame_result frame_receive(frame_receiver *receiver, uint8_t byte);

enum frame_stage { FRAME_IDLE = 0, FRAME_LEAD, FRAME_BODY, FRAME_TRAIL };

typedef struct {
    uint8_t head[FRAME_HEADER + FRAME_EXTRA];
    uint8_t tail[FRAME_CRC];
    const uint8_t *body; /* not copied: must stand until the frame is sent */
    uint16_t head_bytes;
    uint16_t body_bytes;
    cobs_encoder cobs;
    uint8_t stage;
} frame_sender;

/* A frame of header, extra (at most FRAME_EXTRA bytes) and body. With lead, a delimiter
 * comes first: whatever noise was on the line before is then no part of this frame. */
void frame_send_start(frame_sender *sender, int lead, const frame_header *header,
                      const uint8_t *extra, uint8_t extra_bytes, const uint8_t *body,
                      uint16_t body_bytes);

/* Writes at most room bytes and returns how many. The frame is done when stage is
 * FRAME_IDLE. */
size_t frame_send(frame_sender *sender, uint8_t *out, size_t room);

/* Ends a begun frame at once; the receiver will discard it. */
void frame_send_abort(frame_sender *sender);

#endif
