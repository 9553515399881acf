/* A forger and noise against one end of a link; then the forger goes and a proper peer must
 * get a session. The input's first byte says which end (bit 0) and how the clock stands (bit
 * 1: it wraps soon); then operations, each a byte (its low 3 bits) and what it needs:
 *
 *     0 noise: u8 n, n bytes          1..3 forge: a frame with a good CRC, of what the victim
 *     4 time: u16 ms                       said and of bytes of the input
 *     5 take and execute messages     6 send as much as goes       7 poll: u8 capacity
 *
 * Invariants: those of link.h that do not need an honest peer.
 */
#include "fuzz.h"

#include "frame.h"
#include "link_world.h"

enum { OPERATIONS = 400, OUT = 512, FORGED = 600 };

static world w;
static station *victim;
static uint16_t seen_session, seen_boot, seen_sequence, seen_ack;

/* Learns session, boot and numbers from what the victim says, as an eavesdropper would. */
static void eavesdrop(const uint8_t *out, size_t n)
{
    static uint8_t room[FORGED];
    static frame_receiver receiver;

    if (receiver.room == NULL) {
        frame_receive_start(&receiver, room, sizeof room);
    }
    for (size_t i = 0; i < n; i++) {
        const frame_result got = frame_receive(&receiver, out[i]);
        if (got == FRAME_GOOD) {
            frame_header header;
            frame_read_header(room, &header);
            seen_session = header.session;
            seen_boot = header.boot;
            seen_sequence = header.sequence;
            seen_ack = header.ack;
        }
        if (got != FRAME_MORE) {
            frame_receive_start(&receiver, room, sizeof room);
        }
    }
}

static void events(void)
{
    link_event event;

    while (link_next_event(victim->link, &event) == LINK_OK) {
        HOLDS(event.first_unconfirmed <= event.end);
    }
    if (victim == &w.end[0]) {
        (void)link_open(victim->link, w.now);
    }
    HOLDS(link_room(victim->link) <= victim->config.tx_window);
}

static void poll_out(size_t capacity)
{
    uint8_t *out = malloc(capacity);
    const size_t n = link_poll(victim->link, w.now, out, capacity);

    HOLDS(n <= capacity);
    eavesdrop(out, n);
    free(out);
    (void)link_next_deadline(victim->link, w.now);
}

static void send_all(void)
{
    uint8_t message[LINK_MAX_PAYLOAD];

    memset(message, 7, sizeof message);
    while (link_room(victim->link) > 0) {
        HOLDS(link_send(victim->link, message, link_largest(victim->link), NULL) == LINK_OK);
    }
    HOLDS(link_send(victim->link, message, (size_t)link_largest(victim->link) + 1, NULL) !=
          LINK_OK);
}

static void take(uint32_t how)
{
    const uint8_t *message, *again;
    size_t n, m;

    if (link_message(victim->link, &message, &n) != LINK_OK) {
        HOLDS(link_consumed(victim->link) == LINK_EMPTY);
        return;
    }
    HOLDS(n <= victim->config.rx_payload);
    HOLDS(link_message(victim->link, &again, &m) == LINK_OK && again == message && m == n);
    if ((how & 8) == 0) {
        HOLDS(link_consumed(victim->link) == LINK_OK);
    }
}

static void forge(choices *c, uint32_t how)
{
    static uint8_t payload[FORGED], out[2 * FORGED];
    const uint8_t off = choose(c);
    frame_header header;
    frame_sender sender;
    const uint8_t *from;
    size_t n, sent = 0;

    header.type = how & 16 ? choose(c) : (uint8_t)(1 + off % 7);
    header.flags = choose(c);
    header.credit = (uint8_t)(off >> 4);
    header.held = (uint8_t)(how >> 6);
    header.session = (uint16_t)(seen_session + (how & 32 ? choose(c) : 0));
    header.boot = (uint16_t)(seen_boot + (off >= 250));
    header.sequence = (uint16_t)(seen_ack + (choose(c) & 15) - 4);
    header.ack = (uint16_t)(seen_sequence + (choose(c) & 15) - 4);
    from = choose_bytes(c, choose(c), &n);
    if (header.type <= FRAME_REFUSED && (how & 8) == 0) {
        memset(payload, 0, 20);
        frame_put16(payload, (uint16_t)(LINK_VERSION + (off == 77)));
        frame_put16(payload + 2, (uint16_t)(64 + off));
        frame_put32(payload + 4, w.end[0].config.protocol + (off == 78));
        payload[8] = n > 0 ? from[0] : 0;
        payload[14] = (uint8_t)(1 + off % 5);
        frame_put32(payload + 16, 1 + 4u * off);
        n = n > LINK_MAX_HELLO ? LINK_MAX_HELLO : n;
        memcpy(payload + 20, from, n);
        n += 20;
    } else {
        memcpy(payload, from, n);
    }
    frame_send_start(&sender, off & 1, &header, NULL, 0, payload, (uint16_t)n);
    sent = frame_send(&sender, out, sizeof out);
    HOLDS(sender.stage == FRAME_IDLE);
    link_receive(victim->link, w.now, out, sent);
}

static void begin(uint8_t how)
{
    /* All but the bytes of the lines, of which there are many. */
    memset(w.end, 0, sizeof w.end);
    memset(w.executed, 0, sizeof w.executed);
    for (int e = 0; e < 2; e++) {
        wire *line = &w.line[e];
        memset(&line->head, 0, sizeof *line - offsetof(wire, head));
    }
    w.seed = 1;
    w.random = 0x9e3779b97f4a7c15ull;
    w.reopen = 1;
    w.now = how & 2 ? UINT32_MAX - 300 : 0;
    for (int e = 0; e < 2; e++) {
        world_default_config(&w.end[e].config, e == 0);
        w.end[e].longest = 24;
        w.end[e].chunk = 256;
        w.line[e].faults.bytes_per_ms = 1000;
    }
    world_start(&w);
    victim = &w.end[how & 1];
    seen_session = seen_boot = seen_sequence = seen_ack = 0;
}

/* A good frame is accepted, whatever came before: the two proper ends find each other. */
static void recover(void)
{
    for (int e = 0; e < 2; e++) {
        link_event event;
        const uint8_t *message;
        size_t n;
        (void)link_close(w.end[e].link);
        while (link_next_event(w.end[e].link, &event) == LINK_OK) {
        }
        while (link_message(w.end[e].link, &message, &n) == LINK_OK) {
            (void)link_consumed(w.end[e].link);
        }
        w.end[e].to_send = 2;
    }
    const uint32_t until = w.now + 20000;
    while (!world_complete(&w)) {
        world_step(&w, until);
        HOLDS((int32_t)(until - w.now) > 0);
    }
    world_check_counters(&w);
    world_stop(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    choices c = {data, size};

    if (size > 4096) {
        return 0;
    }
    begin(choose(&c));
    if (victim == &w.end[0]) {
        poll_out(OUT); /* its SYN */
    }
    for (int k = 0; k < OPERATIONS && c.left > 0; k++) {
        const uint8_t how = choose(&c);
        const uint8_t *bytes;
        size_t n;
        switch (how & 7) {
        case 0:
            bytes = choose_bytes(&c, choose(&c), &n);
            link_receive(victim->link, w.now, bytes, n);
            break;
        case 4: w.now += choose16(&c); break;
        case 5: take(how); break;
        case 6: send_all(); break;
        case 7: poll_out(1 + (size_t)choose(&c)); break;
        default: forge(&c, how); break;
        }
        events();
        world_check_counters(&w);
    }
    recover();
    return 0;
}
