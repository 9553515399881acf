/* Bytes in: frames, handshake, acknowledgements, messages. */
#include "link_state.h"

static void accept(link_state *link) { link->count.frames_accepted++; }

/* One request for what is missing; the next one only after progress, so that two ends on
 * a bad line do not answer each other for ever. */
static void ask_again(link_state *link)
{
    if (!link->nak_sent && link->phase == LINK_OPEN) {
        link->nak_sent = link->nak_due = link->ack_due = 1;
    }
}

static void advance_received(link_state *link, uint32_t now, uint32_t received)
{
    if (link->timing && link_reached(received - 1, link->timed)) {
        rto_sample(&link->rto, now - link->timed_at);
        link->timing = 0;
    }
    link->tx_head = link_tx_slot(link, received);
    link->received = received;
    if (link_reached(received, link->next)) {
        link->next = received;
    }
    link->cautious = 0;
    link->nak_answered = 0;
    link->progress_at = now;
}

/* Returns 0 if the header acknowledges what was never sent. */
static int take_ack(link_state *link, uint32_t now, const frame_header *header)
{
    const uint16_t ahead = (uint16_t)(header->ack - (uint16_t)link->executed);
    const uint32_t executed = link->executed + ahead;
    const uint32_t received = executed + header->held;
    const uint32_t limit = received + header->credit;
    int progress = 0;

    if (ahead > INT16_MAX) {
        return 1; /* of a frame that was overtaken: nothing new in it */
    }
    if (received - link->executed > link->high - link->executed ||
        limit - executed > link->peer_window) {
        return 0;
    }
    if (!link_reached(link->received, received)) {
        advance_received(link, now, received);
        progress = 1;
    }
    if (executed != link->executed) {
        link->executed = executed;
        progress = 1;
    }
    if (link_reached(limit, link->limit)) {
        link->limit = limit;
    }
    if (progress) {
        link->probe_wait = link->rto.rto;
        link->retry_on = link->executed != link->high;
        link->retry_at = now + link->rto.rto;
    }
    if ((header->flags & FRAME_NAK) != 0 && received == link->received &&
        received != link->high && !link->nak_answered) {
        link_rewind(link);
        link->nak_answered = 1;
        link->count.fast_retransmits++;
        link->retry_at = now + link->rto.rto;
    }
    return 1;
}

static void take_message(link_state *link, const frame_header *header, size_t n)
{
    const uint16_t ahead = (uint16_t)(header->sequence - (uint16_t)link->expected);

    link->ack_due = 1;
    if (ahead > INT16_MAX) {
        link->count.duplicate++;
    } else if (ahead >= LINK_MAX_WINDOW) {
        link->count.out_of_window++;
    } else if (ahead > 0) {
        link->count.gap++;
        ask_again(link);
    } else if (link->held == link->config.rx_window) {
        link->count.no_credit++;
    } else {
        link->rx_bytes[link_behind(link, link->held)] = (uint16_t)n;
        link->held++;
        link->expected++;
        link->nak_sent = link->nak_due = 0;
        link->count.messages_in++;
        accept(link);
    }
}

static void unknown_session(link_state *link, const frame_header *header, int answer)
{
    if (header->session == link->session) {
        link->count.wrong_boot++;
    } else {
        link->count.wrong_session++;
    }
    if (answer && link->phase != LINK_OPENING) {
        link->reset_due = 1;
        link->reset_session = header->session;
        link->reset_boot = header->boot;
    }
}

static int is_ours(const link_state *link, const frame_header *header)
{
    return link->phase == LINK_OPEN && header->session == link->session &&
           header->boot == link->boot;
}

/* The candidate's first frame opens it. Returns 0 if it cannot be opened now. */
static int take_candidate(link_state *link, uint32_t now)
{
    if (!link_session_free(link)) {
        link->count.busy++;
        link->syn_ack_due = 1; /* shows the peer that someone is there */
        link->answer_session = link->candidate_session;
        link->answer_boot = link->candidate_boot;
        return 0;
    }
    if (link->phase == LINK_OPEN) {
        link_session_end(link, LINK_RESET, LINK_NEW_SESSION);
    }
    link_session_begin(link, now, link->candidate_session, link->candidate_boot);
    return 1;
}

/* DATA and ACK. */
static void take_traffic(link_state *link, uint32_t now, const frame_header *header, size_t n)
{
    if (!is_ours(link, header)) {
        if (!link->candidate || header->session != link->candidate_session ||
            header->boot != link->candidate_boot) {
            unknown_session(link, header, 1);
            return;
        }
        if (!take_candidate(link, now)) {
            return;
        }
    }
    if (!take_ack(link, now, header)) {
        link->count.bad_ack++;
        return;
    }
    link->heard_at = now;
    if (link->unanswered) {
        link->unanswered = 0;
        link->retry_on = link->executed != link->high;
    }
    if ((header->flags & FRAME_PROBE) != 0) {
        link->ack_due = 1;
    }
    if (header->type == FRAME_DATA) {
        take_message(link, header, n);
    } else {
        accept(link);
    }
}

static void take_syn(link_state *link, const frame_header *header, const uint8_t *payload,
                     size_t n)
{
    link_peer_hello hello;

    if (link->config.initiator) {
        link->count.bad_type++;
        return;
    }
    if (!link_hello_read(payload, n, &hello)) {
        link->count.bad_hello++;
        return;
    }
    if (!link_hello_agrees(&link->config, &hello)) {
        link->count.refused++;
        link->refuse_due = 1;
        link->syn_ack_due = 0;
        link->answer_session = header->session;
        link->answer_boot = 0;
        return;
    }
    link->answer_session = header->session;
    if (!link->candidate || header->session != link->candidate_session ||
        hello.boot != link->peer.boot) {
        /* Another number for each, or a session that the line plays again from its SYN on
         * would be executed again. */
        link->candidate = 1;
        link->candidate_session = header->session;
        link->candidate_boot = ++link->last_boot;
    }
    link->peer = hello;
    link->answer_boot = link->candidate_boot;
    link->syn_ack_due = 1;
    link->refuse_due = 0;
    accept(link);
}

static void take_syn_ack(link_state *link, uint32_t now, const frame_header *header,
                         const uint8_t *payload, size_t n)
{
    link_peer_hello hello;

    if (!link->config.initiator) {
        link->count.bad_type++;
    } else if (header->session != link->session || link->phase == LINK_IDLE) {
        link->count.wrong_session++;
    } else if (!link_hello_read(payload, n, &hello)) {
        link->count.bad_hello++;
    } else if (link->phase == LINK_OPEN) {
        accept(link);
        if (hello.boot == link->peer_boot) {
            /* Our first frame was lost or finds the peer busy. No answer: `unanswered`
             * repeats it in due time, and an answer to an answer would never end. */
            link->heard_at = now;
        } else {
            link_session_end(link, LINK_RESET, LINK_OTHER_BOOT);
        }
    } else {
        link->peer = hello;
        if (!link_hello_agrees(&link->config, &hello)) {
            link->count.refused++;
            link_session_end(link, LINK_REFUSED, LINK_BY_US);
            return;
        }
        accept(link);
        link_session_begin(link, now, header->session, header->boot);
        /* The peer opens with our first frame and must show that it did. */
        link->unanswered = link->retry_on = 1;
        link->retry_at = now + link->rto.rto;
        link->ack_due = link->probe_due = 1;
    }
}

static void take_refused(link_state *link, const frame_header *header, const uint8_t *payload,
                         size_t n)
{
    link_peer_hello hello;

    if (!link->config.initiator) {
        link->count.bad_type++;
    } else if (link->phase != LINK_OPENING || header->session != link->session) {
        link->count.wrong_session++;
    } else if (!link_hello_read(payload, n, &hello)) {
        link->count.bad_hello++;
    } else {
        accept(link);
        link->peer = hello;
        link_session_end(link, LINK_REFUSED, LINK_BY_PEER);
    }
}

static void take_end(link_state *link, const frame_header *header)
{
    if (!is_ours(link, header)) {
        unknown_session(link, header, 0);
        return;
    }
    accept(link);
    if (header->type == FRAME_RESET) {
        link_session_end(link, LINK_RESET, LINK_NO_SUCH_SESSION);
    } else {
        link_session_end(link, LINK_CLOSED, LINK_BY_PEER);
    }
}

static void take_frame(link_state *link, uint32_t now)
{
    const uint8_t *payload = link->in.room + FRAME_HEADER;
    const size_t n = link->in.n - FRAME_HEADER;
    frame_header header;

    frame_read_header(link->in.room, &header);
    switch (header.type) {
    case FRAME_SYN: take_syn(link, &header, payload, n); break;
    case FRAME_SYN_ACK: take_syn_ack(link, now, &header, payload, n); break;
    case FRAME_REFUSED: take_refused(link, &header, payload, n); break;
    case FRAME_DATA:
    case FRAME_ACK: take_traffic(link, now, &header, n); break;
    case FRAME_RESET:
    case FRAME_CLOSE: take_end(link, &header); break;
    default: link->count.bad_type++; break;
    }
}

void link_receive(link_state *link, uint32_t now, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const frame_result result = frame_receive(&link->in, bytes[i]);

        if (result == FRAME_MORE) {
            continue;
        }
        link->count.frames_in++;
        switch (result) {
        case FRAME_GOOD: take_frame(link, now); break;
        case FRAME_BAD_COBS: link->count.bad_cobs++; break;
        case FRAME_BAD_CRC: link->count.bad_crc++; break;
        case FRAME_TOO_LONG: link->count.too_long++; break;
        default: link->count.too_short++; break;
        }
        if (result != FRAME_GOOD) {
            ask_again(link);
        }
        frame_receive_start(&link->in, link_buffer(link, link_behind(link, link->held)),
                            link->config.rx_payload + FRAME_OVERHEAD);
    }
    link->count.bytes_in += (uint32_t)n;
}
