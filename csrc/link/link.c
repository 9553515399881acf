/* What the upper layer calls, but for link_receive and link_poll. */
#include "link.h"

#include "link_state.h"

static int between(uint32_t x, uint32_t least, uint32_t most) { return x >= least && x <= most; }

static int config_ok(const link_config *c)
{
    return c->initiator <= 1 && (c->hello != NULL || c->hello_bytes == 0) &&
           c->hello_bytes <= LINK_MAX_HELLO && between(c->rx_window, 1, LINK_MAX_WINDOW) &&
           between(c->rx_payload, LINK_MIN_PAYLOAD, LINK_MAX_PAYLOAD) &&
           between(c->tx_window, 1, LINK_MAX_WINDOW) &&
           between(c->tx_payload, 1, LINK_MAX_PAYLOAD) && c->first <= UINT16_MAX &&
           between(c->rto_least, 1, LINK_MAX_TIME) &&
           between(c->rto_initial, c->rto_least, c->rto_most) && c->rto_most <= LINK_MAX_TIME &&
           between(c->keepalive, 1, LINK_MAX_TIME / 2) &&
           between(c->silent_after, 2 * c->keepalive + 1, LINK_MAX_TIME) &&
           between(c->stalled_after, 1, LINK_MAX_TIME) &&
           between(c->open_within, 1, LINK_MAX_TIME);
}

/* Sixteen bits of a boot id in which those of counted ones lie far apart: the sessions
 * of a boot count on from here (the finaliser of MurmurHash3). */
static uint16_t mixed(uint32_t x)
{
    x = (x ^ x >> 16) * UINT32_C(0x85ebca6b);
    x = (x ^ x >> 13) * UINT32_C(0xc2b2ae35);
    return (uint16_t)(x ^ x >> 16);
}

size_t link_bytes(const link_config *config)
{
    if (config == NULL || !config_ok(config)) {
        return 0;
    }
    return sizeof(link_state) +
           (size_t)(config->rx_window + 1) * (link_buffer_bytes(config) + sizeof(uint16_t)) +
           (size_t)config->tx_window * (config->tx_payload + sizeof(uint16_t));
}

link_status link_init(void *arena, size_t bytes, const link_config *config, link_state **link)
{
    const size_t need = link_bytes(config);
    uint8_t *at = arena;
    link_state *l = arena;

    if (arena == NULL || link == NULL || need == 0) {
        return LINK_BAD_ARGUMENT;
    }
    if (bytes < need) {
        return LINK_NO_MEMORY;
    }
    for (size_t i = 0; i < need; i++) {
        at[i] = 0;
    }
    l->config = *config;
    /* Buffers first: their size is a multiple of 4, so payloads are aligned. */
    at += sizeof *l;
    l->rx = at;
    at += (size_t)(config->rx_window + 1) * link_buffer_bytes(config);
    l->rx_bytes = (uint16_t *)(void *)at;
    at += (size_t)(config->rx_window + 1) * sizeof(uint16_t);
    l->tx_bytes = (uint16_t *)(void *)at;
    at += (size_t)config->tx_window * sizeof(uint16_t);
    l->tx = at;
    l->session = (uint16_t)(config->boot >> 16);
    l->last_boot = mixed(config->boot);
    rto_start(&l->rto, config->rto_initial, config->rto_least, config->rto_most);
    frame_receive_start(&l->in, link_buffer(l, 0), config->rx_payload + FRAME_OVERHEAD);
    *link = l;
    return LINK_OK;
}

link_status link_open(link_state *link, uint32_t now)
{
    if (!link->config.initiator) {
        return LINK_BAD_ARGUMENT;
    }
    if (link->phase != LINK_IDLE || !link_session_free(link)) {
        return LINK_BUSY;
    }
    link_session_clear(link, now);
    link->phase = LINK_OPENING;
    link->session++;
    link->boot = 0;
    link->opened_at = now;
    link->syn_due = 1;
    return LINK_OK;
}

link_status link_close(link_state *link)
{
    if (link->phase == LINK_IDLE) {
        return LINK_NOT_OPEN;
    }
    if (link->phase == LINK_OPEN) {
        link->close_due = 1;
        link->close_session = link->session;
        link->close_boot = link->boot;
    }
    link_session_end(link, LINK_CLOSED, LINK_BY_US);
    return LINK_OK;
}

uint32_t link_room(const link_state *link)
{
    uint32_t oldest = link->received;

    if (link->phase != LINK_OPEN) {
        return 0;
    }
    /* A message that arrived may still be on its way out a second time. */
    if (link->out.stage != FRAME_IDLE && link->out_type == FRAME_DATA &&
        !link_reached(link->out_number, oldest)) {
        oldest = link->out_number;
    }
    return link->config.tx_window - (link->queued - oldest);
}

link_status link_send(link_state *link, const uint8_t *message, size_t n, uint32_t *number)
{
    uint32_t slot;

    if (link->phase != LINK_OPEN) {
        return LINK_NOT_OPEN;
    }
    if (n > link->largest) {
        return LINK_TOO_LONG;
    }
    if (link_room(link) == 0) {
        return LINK_NO_CREDIT;
    }
    slot = link_tx_slot(link, link->queued);
    for (size_t i = 0; i < n; i++) {
        link->tx[(size_t)slot * link->config.tx_payload + i] = message[i];
    }
    link->tx_bytes[slot] = (uint16_t)n;
    if (number != NULL) {
        *number = link->queued - link->tx_first;
    }
    link->queued++;
    return LINK_OK;
}

uint32_t link_largest(const link_state *link) { return link->largest; }

uint32_t link_confirmed(const link_state *link) { return link->executed - link->tx_first; }

link_status link_message(link_state *link, const uint8_t **message, size_t *n)
{
    if (link->held == 0) {
        return LINK_EMPTY;
    }
    link->lent = 1;
    *message = link_buffer(link, link->head) + FRAME_HEADER;
    *n = link->rx_bytes[link->head];
    return LINK_OK;
}

link_status link_consumed(link_state *link)
{
    if (!link->lent) {
        return LINK_EMPTY;
    }
    link->lent = 0;
    link->head = link_behind(link, 1);
    link->held--;
    link->count.messages_consumed++;
    if (link->phase == LINK_OPEN) {
        link->ack_due = 1;
    }
    return LINK_OK;
}

link_status link_next_event(link_state *link, link_event *event)
{
    if (link->events == 0) {
        return LINK_EMPTY;
    }
    *event = link->event[link->event_head];
    link->event_head = (uint8_t)((link->event_head + 1) % LINK_EVENTS);
    link->events--;
    return LINK_OK;
}

int link_is_open(const link_state *link) { return link->phase == LINK_OPEN; }

const link_peer_hello *link_peer(const link_state *link) { return &link->peer; }

void link_get_statistics(const link_state *link, link_statistics *statistics)
{
    *statistics = link->count;
    statistics->srtt = link->rto.srtt8 / 8;
    statistics->rttvar = link->rto.rttvar4 / 4;
    statistics->rto = link->rto.rto;
}
