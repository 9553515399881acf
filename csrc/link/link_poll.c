/* The time: retransmission, keep-alive, loss; and bytes out. */
#include "link_state.h"

/* Sends a message again, or asks whether those that arrived have been executed. */
static void retry(link_state *link, uint32_t now)
{
    if (link->received != link->high) {
        rto_back_off(&link->rto);
        link_rewind(link);
        link->cautious = 1;
        link->nak_answered = 0;
        link->count.timeouts++;
        link->retry_at = now + link->rto.rto;
    } else {
        /* An acknowledgement or the credit in it may have been lost. */
        const uint32_t twice = 2 * link->probe_wait;
        link->probe_wait = twice < link->keepalive ? twice : link->keepalive;
        link->probe_due = link->ack_due = 1;
        link->count.probes++;
        link->retry_at = now + link->probe_wait;
    }
}

static void run_timers(link_state *link, uint32_t now)
{
    const link_config *config = &link->config;
    const int retry_reached = link->retry_on && link_reached(now, link->retry_at);

    if (link->phase == LINK_OPENING) {
        if (link_reached(now, link->opened_at + config->open_within)) {
            link_session_end(link, LINK_LOST, LINK_NO_ANSWER);
        } else if (retry_reached) {
            rto_back_off(&link->rto);
            link->retry_on = 0;
            link->syn_due = 1;
        }
    } else if (link->phase == LINK_OPEN) {
        if (link_reached(now, link->heard_at + config->silent_after)) {
            link_session_end(link, LINK_LOST, LINK_SILENT);
        } else if (link->received != link->high &&
                   link_reached(now, link->progress_at + config->stalled_after)) {
            link_session_end(link, LINK_LOST, LINK_STALLED);
        } else {
            if (retry_reached && link->out.stage == FRAME_IDLE) {
                retry(link, now);
            }
            if (!link->ack_due && link_reached(now, link->sent_at + link->keepalive)) {
                link->ack_due = 1;
                link->count.keepalives++;
            }
        }
    }
}

static int may_send_message(const link_state *link)
{
    return link->next != link->queued && link->next != link->limit &&
           (!link->cautious || link->next == link->received);
}

/* The type of the frame that is most urgent; 0 if there is nothing to send. */
static uint8_t choose(const link_state *link)
{
    if (link->close_due) {
        return FRAME_CLOSE;
    }
    if (link->reset_due) {
        return FRAME_RESET;
    }
    if (link->refuse_due) {
        return FRAME_REFUSED;
    }
    if (link->syn_ack_due) {
        return FRAME_SYN_ACK;
    }
    if (link->syn_due) {
        return FRAME_SYN;
    }
    if (link->phase == LINK_OPEN && may_send_message(link)) {
        return FRAME_DATA;
    }
    return link->phase == LINK_OPEN && link->ack_due ? FRAME_ACK : 0;
}

static void start_hello(link_state *link, frame_header *header)
{
    uint8_t hello[FRAME_EXTRA];

    link->syn_due = link->syn_ack_due = link->refuse_due = 0;
    if (header->type == FRAME_SYN) {
        header->session = link->session;
    } else {
        header->session = link->answer_session;
        header->boot = link->answer_boot;
    }
    link_hello_write(&link->config, hello);
    frame_send_start(&link->out, 1, header, hello, FRAME_EXTRA, link->config.hello,
                     (uint16_t)link->config.hello_bytes);
}

static void start_end(link_state *link, frame_header *header)
{
    if (header->type == FRAME_CLOSE) {
        link->close_due = 0;
        header->session = link->close_session;
        header->boot = link->close_boot;
    } else {
        link->reset_due = 0;
        header->session = link->reset_session;
        header->boot = link->reset_boot;
    }
    frame_send_start(&link->out, 1, header, NULL, 0, NULL, 0);
}

/* DATA and ACK: both carry all that there is to say. */
static void start_traffic(link_state *link, uint32_t now, frame_header *header)
{
    header->flags = (uint8_t)((link->nak_due ? FRAME_NAK : 0) |
                              (link->probe_due ? FRAME_PROBE : 0));
    header->held = (uint8_t)link->held;
    header->credit = (uint8_t)(link->config.rx_window - link->held);
    header->session = link->session;
    header->boot = link->boot;
    header->ack = (uint16_t)(link->expected - link->held);
    link->count.naks += link->nak_due;
    link->ack_due = link->nak_due = link->probe_due = 0;
    if (header->type == FRAME_ACK) {
        frame_send_start(&link->out, 1, header, NULL, 0, NULL, 0);
        return;
    }
    const uint32_t slot = link_tx_slot(link, link->next);
    /* A first copy behind others needs no delimiter of its own in front. */
    const int lead = link->next != link->high || link->received == link->high;

    link->out_number = link->next++;
    link->out_again = link->out_number != link->high;
    header->sequence = (uint16_t)link->out_number;
    if (link->out_again) {
        link->count.retransmitted++;
    } else {
        if (link->received == link->high) {
            link->progress_at = now;
        }
        link->high++;
        link->count.messages_out++;
    }
    frame_send_start(&link->out, lead, header, NULL, 0,
                     link->tx + (size_t)slot * link->config.tx_payload, link->tx_bytes[slot]);
}

static int start_frame(link_state *link, uint32_t now)
{
    frame_header header = {0};

    header.type = choose(link);
    switch (header.type) {
    case 0: return 0;
    case FRAME_SYN:
    case FRAME_SYN_ACK:
    case FRAME_REFUSED: start_hello(link, &header); break;
    case FRAME_CLOSE:
    case FRAME_RESET: start_end(link, &header); break;
    default:
        start_traffic(link, now, &header);
        link->sent_at = now;
        break;
    }
    link->out_type = header.type;
    link->count.frames_out++;
    return 1;
}

/* Timers run from the last byte of a frame: on a slow line one takes a while. */
static void finish_frame(link_state *link, uint32_t now)
{
    if (link->out_type == FRAME_SYN && link->phase == LINK_OPENING) {
        link->retry_on = 1;
        link->retry_at = now + link->rto.rto;
    } else if (link->out_type == FRAME_DATA && link->phase == LINK_OPEN) {
        if (!link->out_again && !link->timing) {
            link->timing = 1;
            link->timed = link->out_number;
            link->timed_at = now;
        }
        if (!link->retry_on && link->executed != link->high) {
            link->retry_on = 1;
            link->retry_at = now + link->rto.rto;
        }
    }
}

size_t link_poll(link_state *link, uint32_t now, uint8_t *out, size_t capacity)
{
    size_t n = 0;

    run_timers(link, now);
    while (n < capacity && (link->out.stage != FRAME_IDLE || start_frame(link, now))) {
        n += frame_send(&link->out, out + n, capacity - n);
        if (link->out.stage == FRAME_IDLE) {
            finish_frame(link, now);
        }
    }
    link->count.bytes_out += (uint32_t)n;
    return n;
}

static uint32_t sooner(uint32_t wait, uint32_t now, uint32_t at)
{
    const uint32_t left = link_reached(now, at) ? 0 : at - now;
    return left < wait ? left : wait;
}

uint32_t link_next_deadline(const link_state *link, uint32_t now)
{
    const link_config *config = &link->config;
    uint32_t wait = LINK_NEVER;

    if (link->out.stage != FRAME_IDLE || choose(link) != 0) {
        return 0;
    }
    if (link->phase != LINK_IDLE && link->retry_on) {
        wait = sooner(wait, now, link->retry_at);
    }
    if (link->phase == LINK_OPENING) {
        wait = sooner(wait, now, link->opened_at + config->open_within);
    } else if (link->phase == LINK_OPEN) {
        wait = sooner(wait, now, link->heard_at + config->silent_after);
        wait = sooner(wait, now, link->sent_at + link->keepalive);
        if (link->received != link->high) {
            wait = sooner(wait, now, link->progress_at + config->stalled_after);
        }
    }
    return wait;
}
