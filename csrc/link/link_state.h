/* The inside of a link, for link*.c only. */
#ifndef LINK_STATE_H
#define LINK_STATE_H

#include "frame.h"
#include "link.h"
#include "rto.h"

enum link_phase { LINK_IDLE = 0, LINK_OPENING, LINK_OPEN };

/* OPENED and the end of two sessions, with one to spare. */
enum { LINK_EVENTS = 4 };

/* Counters of messages are 32 bits wide and start at the first sequence number; the wire
 * carries their lower half. All comparisons are differences, so both may wrap.
 *
 *     executed <= received <= next <= high <= queued <= received + tx_window
 *     next <= limit;   limit never shrinks within a session
 */
struct link_state {
    link_config config;
    link_statistics count;
    link_peer_hello peer;

    uint8_t phase;
    uint16_t session, boot;   /* the pair of this session, or of the last one */
    uint32_t peer_boot;       /* in full */
    uint32_t keepalive;       /* agreed */
    uint32_t heard_at, sent_at;
    uint32_t opened_at;       /* when link_open was called */

    /* The board's next session, once a frame of it arrives. */
    uint8_t candidate;
    uint16_t candidate_session, candidate_boot;
    uint16_t last_boot;       /* the last candidate_boot; begins with the boot id */

    /* Sending. */
    uint8_t *tx;              /* tx_window payloads */
    uint16_t *tx_bytes;
    uint32_t tx_first;
    uint32_t tx_head;         /* the slot of message `received` */
    uint32_t executed, received, next, high, queued, limit;
    uint32_t largest;         /* payload */
    uint32_t peer_window;
    uint32_t progress_at;
    rto_timer rto;
    uint32_t retry_at, probe_wait;
    uint8_t retry_on;
    uint8_t cautious;         /* after a time-out: only `received` is sent */
    uint8_t nak_answered;     /* `received` has been sent again since it became that */
    uint8_t unanswered;       /* the peer has not yet shown that it is OPEN */
    uint8_t timing;           /* a round trip is being measured: of `timed` */
    uint32_t timed, timed_at;

    /* Receiving: rx_window + 1 buffers in a circle. The first `held` from `head` on hold
     * messages, the one behind them receives. */
    uint8_t *rx;
    uint16_t *rx_bytes;
    uint32_t head, held;
    uint32_t rx_first, expected;
    uint8_t lent;             /* the message at head is being executed */
    uint8_t nak_sent;         /* since `expected` became what it is */
    frame_receiver in;

    /* What is to be sent, and what is being sent. */
    uint8_t syn_due, syn_ack_due, refuse_due, reset_due, close_due, ack_due, nak_due, probe_due;
    uint16_t answer_session, answer_boot; /* of SYN_ACK and REFUSED */
    uint16_t reset_session, reset_boot;
    uint16_t close_session, close_boot;
    uint8_t out_type;
    uint8_t out_again;        /* the message under way has been sent before */
    uint32_t out_number;
    frame_sender out;

    link_event event[LINK_EVENTS];
    uint8_t event_head, events;
};

/* Whether now is at or after `at`, the two being less than 2^31 ms apart. */
static inline int link_reached(uint32_t now, uint32_t at)
{
    return now - at <= UINT32_C(0x7fffffff);
}

static inline uint32_t link_buffer_bytes(const link_config *config)
{
    return (config->rx_payload + FRAME_OVERHEAD + 3) & ~UINT32_C(3);
}

static inline uint8_t *link_buffer(const link_state *link, uint32_t index)
{
    return link->rx + (size_t)index * link_buffer_bytes(&link->config);
}

/* The buffer that lies `behind` buffers behind head. */
static inline uint32_t link_behind(const link_state *link, uint32_t behind)
{
    return (link->head + behind) % (link->config.rx_window + 1);
}

static inline uint32_t link_tx_slot(const link_state *link, uint32_t number)
{
    return (link->tx_head + (number - link->received)) % link->config.tx_window;
}

/* Sends again from the oldest message that is not known to have arrived. */
static inline void link_rewind(link_state *link)
{
    link->next = link->received;
    link->timing = 0;    /* Karn: an acknowledgement would no longer say of which copy */
    link->out_again = 1;
}

/* hello.c */
void link_hello_write(const link_config *config, uint8_t out[FRAME_EXTRA]);
/* Returns 0 if it breaks a limit. */
int link_hello_read(const uint8_t *bytes, size_t n, link_peer_hello *hello);
int link_hello_agrees(const link_config *config, const link_peer_hello *hello);

/* session.c */
/* Whether a session can be opened, its events included. */
int link_session_free(const link_state *link);
void link_session_clear(link_state *link, uint32_t now);
void link_session_begin(link_state *link, uint32_t now, uint16_t session, uint16_t boot);
void link_session_end(link_state *link, link_event_kind kind, link_reason reason);

#endif
