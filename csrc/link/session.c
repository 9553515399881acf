/* The beginning and the end of sessions, and the events that tell of them. */
#include "link_state.h"

static void tell(link_state *link, link_event_kind kind, link_reason reason)
{
    link_event *event = &link->event[(link->event_head + link->events) % LINK_EVENTS];

    event->kind = kind;
    event->reason = reason;
    event->session = link->session;
    event->first_unconfirmed = link->executed - link->tx_first;
    event->end = link->queued - link->tx_first;
    link->events++;
}

int link_session_free(const link_state *link)
{
    /* A live session will still tell of its end, the new one of its beginning and end. */
    const int needed = (link->phase != LINK_IDLE) + 2;
    return !link->lent && link->events + needed <= LINK_EVENTS;
}

void link_session_clear(link_state *link, uint32_t now)
{
    const link_config *config = &link->config;

    /* The arriving frame stays in the buffer that it is in. */
    link->head = link_behind(link, link->held);
    link->count.messages_abandoned += link->held;
    link->held = 0;
    link->rx_first = link->expected = 0;
    link->nak_sent = 0;

    link->tx_first = config->first;
    link->tx_head = 0;
    link->executed = link->received = link->next = config->first;
    link->high = link->queued = link->limit = config->first;
    link->largest = 0;
    link->cautious = link->nak_answered = link->unanswered = link->timing = 0;
    link->retry_on = 0;
    link->ack_due = link->nak_due = link->probe_due = 0;
    link->syn_due = link->reset_due = 0;
    link->candidate = 0;
    link->heard_at = link->sent_at = link->progress_at = now;
    rto_start(&link->rto, config->rto_initial, config->rto_least, config->rto_most);
    link->probe_wait = link->rto.rto;

    /* Its payload belongs to the session before and is about to be overwritten. */
    if (link->out_type == FRAME_DATA) {
        frame_send_abort(&link->out);
    }
    link->out_type = 0;
}

void link_session_begin(link_state *link, uint32_t now, uint16_t session, uint16_t boot)
{
    const link_config *config = &link->config;
    const link_peer_hello *peer = &link->peer;

    link_session_clear(link, now);
    link->phase = LINK_OPEN;
    link->session = session;
    link->boot = boot;
    link->peer_boot = peer->boot;
    link->rx_first = link->expected = peer->first;
    link->limit = link->tx_first + peer->rx_window;
    link->largest =
        config->tx_payload < peer->rx_payload ? config->tx_payload : peer->rx_payload;
    link->peer_window = peer->rx_window;
    link->keepalive = config->keepalive < peer->keepalive ? config->keepalive : peer->keepalive;
    link->count.sessions++;
    tell(link, LINK_OPENED, LINK_NO_REASON);
}

void link_session_end(link_state *link, link_event_kind kind, link_reason reason)
{
    tell(link, kind, reason);
    link->phase = LINK_IDLE;
    link->retry_on = 0;
    link->syn_due = link->ack_due = link->nak_due = link->probe_due = 0;
}
