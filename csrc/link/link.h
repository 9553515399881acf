/* One end of the link between host and board: messages over a line that loses,
 * damages, repeats and inserts bytes. Bytes and the time go in, bytes come out; there is
 * no clock, no I/O, no allocation and no global. The same object file serves both ends.
 *
 * States of the end that opens (the host; config.initiator = 1):
 *
 *     IDLE --link_open--> OPENING --SYN_ACK--> OPEN --CLOSE, RESET, silence--> IDLE
 *                            `--REFUSED, no answer--> IDLE
 *
 * The other end (the board) is IDLE or OPEN. A SYN makes it answer SYN_ACK and remember a
 * candidate, nothing else; the first frame that carries the candidate's session and this
 * boot opens it and ends the session before. So a SYN that turns up late or twice never
 * harms a live session, and one whose HELLO does not match changes nothing at all.
 *
 * Invariants:
 *
 * 1. Within a session messages are handed over exactly once and in order, both ways.
 *    When a session ends, an event says so and names the first message that was not
 *    confirmed. link_confirmed counts messages that the peer has EXECUTED: its upper
 *    layer said link_consumed. From first_unconfirmed on, a message may or may not have
 *    been executed; from `end` on there was none.
 * 2. A peer that restarted knows no session and answers RESET to the next frame: the
 *    event LINK_RESET comes within one round trip of traffic. Every frame carries a pair:
 *    the session id, new for each link_open, and the boot id, new for each boot and each
 *    SYN that is answered. A frame of another pair acknowledges and executes nothing,
 *    even if the line plays a whole session again.
 * 3. A message is taken from the buffer that it arrived in. The buffer is not touched
 *    before link_consumed, whatever arrives: a new session waits for it.
 * 4. No message is dropped in silence. A sender sends no more than the receiver has said
 *    it has room for; every frame that is discarded bumps one counter, and
 *    frames_in = frames_accepted + the sum of these counters.
 * 5. Silence, lack of progress and an unanswered SYN each end in an event after the
 *    configured time, as long as link_poll is called.
 * 6. Any bytes are survived, in fixed memory, in step again at the next delimiter.
 * 7. Protocol versions and limits are compared before anything changes; on a mismatch
 *    the event LINK_REFUSED comes and link_peer shows the other side's.
 * 8. Both ends send at least one frame in each keep-alive period (the shorter of the two
 *    asked for); an idle link costs nothing else.
 *
 * Sent is a go-back-N window: a receiver keeps no message that is out of order. `ack`
 * counts executed messages and `held` the received ones behind them, so that a slow
 * execution neither looks like a loss nor lengthens the measured round trip; the time-out
 * is that of RFC 6298. A gap or a damaged frame is answered by one NAK until there is
 * progress. After a time-out only the oldest message is sent until the peer answers.
 *
 * Trusted: the caller, its configuration, and that `now` does not run backwards (it may
 * wrap; calls must not lie further apart than 2^30 ms). Not trusted: any byte that
 * arrives. A frame counts if its CRC holds; a forged one can end a session or deliver a
 * message, it cannot break memory. That the boot ids of a restarted board differ matters
 * only if frames from before the restart, SYN and all, arrive after it.
 */
#ifndef LINK_H
#define LINK_H

#include <stddef.h>
#include <stdint.h>

#define LINK_VERSION 1      /* of frames and HELLO */
#define LINK_MIN_PAYLOAD 64 /* every end takes this much, so a HELLO always fits */
#define LINK_MAX_PAYLOAD 8192
#define LINK_MAX_WINDOW 64
#define LINK_MAX_HELLO 44   /* bytes of the upper layer's in a HELLO */
#define LINK_MAX_TIME 0x3fffffff /* ms */
#define LINK_NEVER 0xffffffff

typedef enum {
    LINK_OK = 0,
    LINK_EMPTY = 1,        /* no message, no event, nothing to consume */
    LINK_NO_CREDIT = 2,    /* no room to queue a message: again after an acknowledgement */
    LINK_TOO_LONG = 3,     /* longer than this end or the peer takes */
    LINK_NOT_OPEN = 4,     /* there is no session */
    LINK_BUSY = 5,         /* a message is not consumed, events are not read, or not IDLE */
    LINK_NO_MEMORY = 6,    /* the arena is smaller than link_bytes says */
    LINK_BAD_ARGUMENT = 7  /* a configuration that breaks a limit; the wrong end */
} link_status;

/* Times in ms, of 1 .. LINK_MAX_TIME. Copied, but for the bytes of hello. */
typedef struct {
    uint32_t initiator;     /* 1: this end opens sessions; 0: it waits */
    uint32_t boot;          /* differs at each start of this end: random or counted */
    uint32_t protocol;      /* of the upper layer; unequal ones refuse each other */
    const uint8_t *hello;   /* shown to the peer's upper layer */
    uint32_t hello_bytes;   /* .. LINK_MAX_HELLO */
    uint32_t rx_window;     /* messages kept until executed, 1 .. LINK_MAX_WINDOW */
    uint32_t rx_payload;    /* largest received, LINK_MIN_PAYLOAD .. LINK_MAX_PAYLOAD */
    uint32_t tx_window;     /* messages kept until received, 1 .. LINK_MAX_WINDOW */
    uint32_t tx_payload;    /* largest sent, 1 .. LINK_MAX_PAYLOAD */
    uint32_t first;         /* sequence number of the first message, .. 65535 */
    uint32_t rto_initial, rto_least, rto_most;
    uint32_t keepalive;     /* longest time without a frame, as asked for */
    uint32_t silent_after;  /* the peer is lost; more than twice keepalive */
    uint32_t stalled_after; /* the peer is lost: it lives, but messages do not arrive */
    uint32_t open_within;   /* for the answer to a SYN */
} link_config;

typedef enum { LINK_OPENED = 1, LINK_LOST, LINK_RESET, LINK_REFUSED, LINK_CLOSED } link_event_kind;

typedef enum {
    LINK_NO_REASON = 0,
    LINK_SILENT,         /* LOST: no frame within silent_after */
    LINK_STALLED,        /* LOST: no progress within stalled_after */
    LINK_NO_ANSWER,      /* LOST: no SYN_ACK within open_within */
    LINK_NO_SUCH_SESSION,/* RESET: the peer does not know the session (it restarted) */
    LINK_NEW_SESSION,    /* RESET: the peer began another session */
    LINK_OTHER_BOOT,     /* RESET: the peer answered under another boot id */
    LINK_BY_PEER,        /* CLOSED, REFUSED */
    LINK_BY_US           /* CLOSED, REFUSED */
} link_reason;

/* Messages of a session are numbered from 0. */
typedef struct {
    uint32_t kind;              /* link_event_kind */
    uint32_t reason;            /* link_reason */
    uint32_t session;
    uint32_t first_unconfirmed; /* all before it have been executed */
    uint32_t end;               /* messages queued in the session */
} link_event;

/* The peer as its last HELLO tells. */
typedef struct {
    uint32_t version;
    uint32_t protocol;
    uint32_t boot;
    uint32_t rx_payload;
    uint32_t rx_window;
    uint32_t first;
    uint32_t keepalive;
    uint32_t hello_bytes;
    uint8_t hello[LINK_MAX_HELLO];
} link_peer_hello;

typedef struct {
    uint32_t bytes_out, bytes_in;
    uint32_t frames_out;
    uint32_t messages_out;     /* sent for the first time */
    uint32_t messages_in;      /* received, in order */
    uint32_t messages_consumed;
    uint32_t messages_abandoned; /* received, but the next session came before execution */
    uint32_t retransmitted;
    uint32_t timeouts;
    uint32_t fast_retransmits; /* after a NAK */
    uint32_t probes;
    uint32_t keepalives;
    uint32_t naks;             /* sent */
    uint32_t sessions;
    uint32_t frames_in;        /* frames_accepted + the sum of those below */
    uint32_t frames_accepted;
    uint32_t bad_cobs;         /* ends inside a block */
    uint32_t bad_crc;
    uint32_t too_long;
    uint32_t too_short;
    uint32_t bad_type;         /* none of ours, or not to this end */
    uint32_t bad_hello;        /* a HELLO that breaks a limit */
    uint32_t bad_ack;          /* of what was never sent, or more credit than agreed */
    uint32_t refused;          /* another version or protocol */
    uint32_t wrong_session;
    uint32_t wrong_boot;
    uint32_t duplicate;        /* a message that was received before */
    uint32_t gap;              /* a message behind one that is missing */
    uint32_t out_of_window;    /* further ahead than any window */
    uint32_t no_credit;        /* the peer sent more than it had credit for */
    uint32_t busy;             /* a new session while a message is being executed */
    uint32_t srtt, rttvar, rto; /* ms */
} link_statistics;

typedef struct link_state link_state;

/* Bytes of the arena, or 0 if the configuration breaks a limit. */
size_t link_bytes(const link_config *config);

/* The arena must be aligned as a pointer is. *link points into it. */
link_status link_init(void *arena, size_t bytes, const link_config *config, link_state **link);

/* Begins a session; the initiator only. Events tell how it went. */
link_status link_open(link_state *link, uint32_t now);

/* Ends the session (or the attempt) at once: whoever wants every message confirmed waits
 * for that first. The next link_poll gives a frame that tells the peer. */
link_status link_close(link_state *link);

/* Takes what has arrived. Call it before link_poll, lest silence is seen where bytes
 * only wait to be read. */
void link_receive(link_state *link, uint32_t now, const uint8_t *bytes, size_t n);

/* Runs the timers, writes at most capacity bytes to send and returns how many. A frame
 * may be cut anywhere: one byte of capacity is enough to make way. */
size_t link_poll(link_state *link, uint32_t now, uint8_t *out, size_t capacity);

/* Milliseconds until link_poll has something to do: 0 for at once, LINK_NEVER if only
 * the peer or the caller can change that. */
uint32_t link_next_deadline(const link_state *link, uint32_t now);

/* Queues a copy of a message. On success *number (may be NULL) is its number. */
link_status link_send(link_state *link, const uint8_t *message, size_t n, uint32_t *number);

/* How many messages link_send would take now: ask before executing what needs a reply. */
uint32_t link_room(const link_state *link);

/* The largest message of this session. */
uint32_t link_largest(const link_state *link);

/* Messages of this session, or the last one, that the peer has executed. */
uint32_t link_confirmed(const link_state *link);

/* The oldest message received and not consumed; again the same one until link_consumed.
 * Messages that came before a session ended can be taken until the next one. */
link_status link_message(link_state *link, const uint8_t **message, size_t *n);

/* The message that link_message gave has been executed. */
link_status link_consumed(link_state *link);

link_status link_next_event(link_state *link, link_event *event);

int link_is_open(const link_state *link);
const link_peer_hello *link_peer(const link_state *link);
void link_get_statistics(const link_state *link, link_statistics *statistics);

#endif
