#include "link_world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void world_fail(const world *w, const char *what)
{
    printf("FAILED seed %llu at %u ms: %s\n", (unsigned long long)w->seed,
           (unsigned)(w->now - w->start), what);
    for (int e = 0; e < 2; e++) {
        const station *s = &w->end[e];
        printf("  end %d: epoch %d sent %u/%u confirmed %u, truth %u, "
               "last end %u/%u first %u of %u\n",
               e, s->epoch, s->sent, s->to_send, s->confirmed,
               s->epochs ? w->executed[e][s->epochs - 1] : 0, s->last_end.kind,
               s->last_end.reason, s->last_end.first_unconfirmed, s->last_end.end);
    }
    fflush(stdout);
    abort();
}

/* xorshift64*, Vigna 2016. */
uint32_t world_random(world *w, uint32_t below)
{
    w->random ^= w->random >> 12;
    w->random ^= w->random << 25;
    w->random ^= w->random >> 27;
    const uint32_t x = (uint32_t)((w->random * 2685821657736338717ull) >> 32);
    return (uint32_t)(((uint64_t)x * below) >> 32);
}

static int chance(world *w, uint32_t of_2_32)
{
    return of_2_32 && world_random(w, UINT32_MAX) < of_2_32;
}

static void lay(world *w, wire *line, uint8_t byte)
{
    uint32_t due = w->now + line->faults.latency;

    if (line->ms != w->now) {
        line->ms = w->now;
        line->sent_in_ms = 0;
    }
    due += line->sent_in_ms++ / (line->faults.bytes_per_ms ? line->faults.bytes_per_ms : 1);
    if (line->faults.jitter && world_random(w, 200) == 0) {
        due += world_random(w, line->faults.jitter);
    }
    if ((int32_t)(due - line->last_due) < 0) {
        due = line->last_due;
    }
    line->last_due = due;
    CHECK(w, line->count < WIRE);
    line->bytes[(line->head + line->count) % WIRE] = byte;
    line->due[(line->head + line->count) % WIRE] = due;
    line->count++;
}

static void put(world *w, wire *line, uint8_t byte)
{
    const line_faults *f = &line->faults;
    const int exact = line->passed++ == line->exact_at ? line->exact_kind : EXACT_NONE;

    if (line->frame_bytes < FRAME_MOST) {
        line->frame[line->frame_bytes++] = byte;
    }
    if (chance(w, f->burst)) {
        line->burst_left = 1 + world_random(w, 60);
    }
    if (chance(w, f->insert)) {
        lay(w, line, (uint8_t)world_random(w, 256));
    }
    if (line->burst_left) {
        line->burst_left--;
        byte = (uint8_t)world_random(w, 256);
    }
    if (chance(w, f->flip)) {
        byte ^= (uint8_t)(1u << world_random(w, 8));
    }
    if (exact == EXACT_FLIP) {
        byte ^= line->exact_mask;
    }
    if (exact == EXACT_ZERO) {
        byte = 0;
    }
    if (exact != EXACT_DROP && !chance(w, f->drop)) {
        lay(w, line, byte);
        if (exact == EXACT_REPEAT || chance(w, f->repeat)) {
            lay(w, line, byte);
        }
    }
    if (byte == 0) {
        if (chance(w, f->repeat_frame)) {
            for (uint32_t i = 0; i < line->frame_bytes; i++) {
                lay(w, line, line->frame[i]);
            }
        }
        if (chance(w, f->repeat_frame)) {
            for (uint32_t i = 0; i < line->late_bytes; i++) {
                lay(w, line, line->late[i]);
            }
            memcpy(line->late, line->frame, line->frame_bytes);
            line->late_bytes = line->frame_bytes;
        }
        line->frame_bytes = 0;
    }
}

void world_default_config(link_config *config, int initiator)
{
    memset(config, 0, sizeof *config);
    config->initiator = (uint32_t)initiator;
    config->protocol = 0x600df00d;
    config->hello = (const uint8_t *)"a board\0with zeros";
    config->hello_bytes = 18;
    config->rx_window = config->tx_window = 4;
    config->rx_payload = config->tx_payload = 64;
    config->rto_initial = 100;
    config->rto_least = 10;
    config->rto_most = 400;
    config->keepalive = 250;
    config->silent_after = 2000;
    config->stalled_after = 4000;
    config->open_within = 2000;
}

static void boot(world *w, int e)
{
    station *s = &w->end[e];
    const size_t need = link_bytes(&s->config);

    CHECK(w, need != 0);
    s->config.boot = world_random(w, UINT32_MAX);
    s->boots++;
    s->epoch = -1;
    s->executing = 0;
    free(s->arena); /* exactly as large as asked for: the sanitizer sees a byte too many */
    s->arena = malloc(need);
    memset(s->arena, 0xa5, need);
    CHECK(w, link_init(s->arena, need - 1, &s->config, &s->link) == LINK_NO_MEMORY);
    CHECK(w, link_init(s->arena, need, &s->config, &s->link) == LINK_OK);
}

void world_start(world *w)
{
    w->start = w->now;
    for (int e = 0; e < 2; e++) {
        boot(w, e);
        w->line[e].last_due = w->now;
        w->line[e].ms = w->now - 1;
    }
    CHECK(w, link_open(w->end[1].link, w->now) == LINK_BAD_ARGUMENT);
    CHECK(w, link_open(w->end[0].link, w->now) == LINK_OK);
}

void world_stop(world *w)
{
    free(w->end[0].arena);
    free(w->end[1].arena);
}

void world_reset(world *w, int e)
{
    boot(w, e);
    if (e == 0 && w->reopen) {
        CHECK(w, link_open(w->end[0].link, w->now) == LINK_OK);
    }
}

void world_cut(world *w, int from_end)
{
    wire *line = &w->line[from_end];

    line->head = (line->head + line->count) % WIRE;
    line->count = 0;
}

static uint32_t length_of(const station *s, uint32_t epoch, uint32_t number)
{
    const uint32_t h = (epoch * 2654435761u ^ number * 40503u) >> 7;
    return h % 5 == 0 ? MESSAGE_HEAD : MESSAGE_HEAD + h % (s->longest - MESSAGE_HEAD + 1);
}

static uint8_t content(uint32_t epoch, uint32_t number, uint32_t i)
{
    return (number + i) % 3 ? (uint8_t)(epoch * 7 + number * 31 + i) : 0;
}

static void send_some(world *w, int e)
{
    station *s = &w->end[e];
    uint8_t message[LINK_MAX_PAYLOAD];

    while (s->epoch >= 0 && s->sent < s->to_send && link_room(s->link) > 0) {
        const uint32_t n = length_of(s, (uint32_t)s->epoch, s->sent);
        uint32_t number = 0;
        const uint32_t words[2] = {(uint32_t)s->epoch | (uint32_t)e << 16, s->sent};

        memcpy(message, words, MESSAGE_HEAD);
        for (uint32_t i = MESSAGE_HEAD; i < n; i++) {
            message[i] = content((uint32_t)s->epoch, s->sent, i);
        }
        CHECK(w, link_send(s->link, message, n, &number) == LINK_OK);
        CHECK(w, number == s->sent);
        s->sent++;
    }
    if (s->epoch >= 0 && link_room(s->link) == 0) {
        CHECK(w, link_send(s->link, message, 1, NULL) == LINK_NO_CREDIT);
    }
}

/* The heart of the oracle: this very message is the next of its session, for the first
 * time and unharmed. Returns the session. */
static uint32_t check_message(world *w, int e, const uint8_t *message, size_t n)
{
    const station *peer = &w->end[1 - e];
    uint32_t words[2];

    CHECK(w, n >= MESSAGE_HEAD);
    CHECK(w, ((uintptr_t)message & 3) == 0);
    memcpy(words, message, MESSAGE_HEAD);
    const uint32_t epoch = words[0] & 0xffff;
    CHECK(w, words[0] >> 16 == (uint32_t)(1 - e));
    CHECK(w, epoch < (uint32_t)peer->epochs);
    CHECK(w, n == length_of(peer, epoch, words[1]));
    for (uint32_t i = MESSAGE_HEAD; i < n; i++) {
        CHECK(w, message[i] == content(epoch, words[1], i));
    }
    CHECK(w, words[1] == w->executed[1 - e][epoch]);
    return epoch;
}

static void execute(world *w, int e)
{
    station *s = &w->end[e];
    const uint8_t *message;
    size_t n;

    for (;;) {
        if (!s->executing) {
            if (link_message(s->link, &message, &n) != LINK_OK) {
                return;
            }
            (void)check_message(w, e, message, n);
            s->executing = 1;
            s->executes_until = w->now + (s->slowest ? world_random(w, s->slowest + 1) : 0);
        }
        if ((int32_t)(w->now - s->executes_until) < 0) {
            return;
        }
        /* Whatever arrived meanwhile, the message is still what it was. */
        CHECK(w, link_message(s->link, &message, &n) == LINK_OK);
        w->executed[1 - e][check_message(w, e, message, n)]++;
        CHECK(w, link_consumed(s->link) == LINK_OK);
        s->executing = 0;
    }
}

static void take_events(world *w, int e)
{
    station *s = &w->end[e];
    link_event event;

    while (link_next_event(s->link, &event) == LINK_OK) {
        if (event.kind == LINK_OPENED) {
            CHECK(w, s->epoch < 0);
            CHECK(w, s->epochs < SESSIONS);
            s->epoch = s->epochs++;
            s->sent = s->confirmed = 0;
            s->opened++;
            CHECK(w, link_peer(s->link)->hello_bytes == 18);
            CHECK(w, memcmp(link_peer(s->link)->hello, w->end[1 - e].config.hello, 18) == 0);
            continue;
        }
        s->ended++;
        s->ended_at = w->now;
        s->last_end = event;
        if (s->epoch >= 0) {
            /* Named is the first unconfirmed one, and what counts as confirmed is true. */
            CHECK(w, event.end == s->sent);
            CHECK(w, event.first_unconfirmed >= s->confirmed);
            CHECK(w, event.first_unconfirmed <= w->executed[e][s->epoch]);
            CHECK(w, event.kind != LINK_REFUSED);
            s->epoch = -1;
        } else {
            CHECK(w, event.first_unconfirmed == 0);
        }
        if (e == 0 && w->reopen) {
            const link_status status = link_open(s->link, w->now);
            CHECK(w, status == LINK_OK || status == LINK_BUSY);
        }
    }
    if (e == 0 && w->reopen && s->epoch < 0 && !s->executing) {
        (void)link_open(s->link, w->now); /* LINK_BUSY while it is opening */
    }
    if (s->epoch >= 0 && link_is_open(s->link)) {
        const uint32_t confirmed = link_confirmed(s->link);
        CHECK(w, confirmed >= s->confirmed);
        CHECK(w, confirmed <= w->executed[e][s->epoch]);
        s->confirmed = confirmed;
    }
}

static int run_end(world *w, int e)
{
    station *s = &w->end[e];
    wire *in = &w->line[1 - e];
    uint8_t bytes[256];
    size_t n;
    int moved = 0;

    if (s->deaf && s->executing && (int32_t)(w->now - s->executes_until) < 0) {
        return 0;
    }
    do {
        for (n = 0; n < sizeof bytes && in->count > 0 &&
                    (int32_t)(w->now - in->due[in->head]) >= 0; n++) {
            bytes[n] = in->bytes[in->head];
            in->head = (in->head + 1) % WIRE;
            in->count--;
        }
        link_receive(s->link, w->now, bytes, n);
        moved |= n > 0;
    } while (n == sizeof bytes);
    take_events(w, e);
    execute(w, e);
    send_some(w, e);
    n = link_poll(s->link, w->now, bytes, s->chunk);
    CHECK(w, n <= s->chunk);
    for (size_t i = 0; i < n; i++) {
        put(w, &w->line[e], bytes[i]);
    }
    take_events(w, e);
    return moved || n > 0;
}

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

void world_step(world *w, uint32_t until)
{
    uint32_t wait = until - w->now;
    int moved = 0;

    for (int e = 0; e < 2; e++) {
        moved |= run_end(w, e);
    }
    for (int e = 0; e < 2; e++) {
        const wire *line = &w->line[e];
        const station *s = &w->end[e];
        if (line->count > 0) {
            const uint32_t due = line->due[line->head];
            wait = (int32_t)(w->now - due) >= 0 ? 0 : least(wait, due - w->now);
        }
        if (s->executing) {
            const uint32_t done = s->executes_until;
            wait = (int32_t)(w->now - done) >= 0 ? 0 : least(wait, done - w->now);
        }
        wait = least(wait, link_next_deadline(s->link, w->now));
    }
    /* A line takes its time: at most one chunk an end and millisecond. */
    if (wait == 0 || moved) {
        wait = 1;
    }
    w->now += wait;
}

int world_complete(const world *w)
{
    for (int e = 0; e < 2; e++) {
        const station *s = &w->end[e];
        if (s->epoch < 0 || s->confirmed != s->to_send) {
            return 0;
        }
    }
    return 1;
}

void world_check_counters(const world *w)
{
    for (int e = 0; e < 2; e++) {
        link_statistics c;
        link_get_statistics(w->end[e].link, &c);
        CHECK(w, c.frames_in == c.frames_accepted + c.bad_cobs + c.bad_crc + c.too_long +
                                    c.too_short + c.bad_type + c.bad_hello + c.bad_ack + c.refused +
                                    c.wrong_session + c.wrong_boot + c.duplicate + c.gap +
                                    c.out_of_window + c.no_credit + c.busy);
        CHECK(w, c.messages_in >= c.messages_consumed + c.messages_abandoned);
    }
}
