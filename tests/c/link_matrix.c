/* What becomes of sessions under one fault at a time: link_matrix [SESSIONS] [FIRST SEED].
 *
 * Each session opens, and both ends send COUNT messages of up to LONGEST bytes. The oracle of
 * link_world.c aborts for anything executed twice, out of order, damaged or confirmed without
 * having been executed. One line for each fault:
 *
 *     name sessions recovered typed frames_damaged retransmitted payload wire_bytes milliseconds
 *
 * recovered: everything was executed and both ends know it, within one session. typed: an
 * event ended a session; then the line is repaired, and everything must arrive in another.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "link_world.h"

enum { COUNT = 40, LONGEST = 200, LEAST_TIME = 20000, GRACE = 60000 };

static world w;
static uint32_t per_byte(double chance) { return (uint32_t)(chance * 4294967295.0); }

/* Both ways. */
#define BOTH(field, value) (w.line[0].faults.field = w.line[1].faults.field = (value))

static int at_frame; /* of the fault that strikes once: after so many bytes of the line */

static void none(void) {}
static void flip5(void) { BOTH(flip, per_byte(1e-5)); }
static void flip4(void) { BOTH(flip, per_byte(1e-4)); }
static void flip3(void) { BOTH(flip, per_byte(1e-3)); }
static void drop3(void) { BOTH(drop, per_byte(1e-3)); }
static void dup3(void) { BOTH(repeat, per_byte(1e-3)); }
static void insert3(void) { BOTH(insert, per_byte(1e-3)); }
static void burst4(void) { BOTH(burst, per_byte(1e-4)); }
static void frames(void) { BOTH(repeat_frame, per_byte(0.1)); }
static void latency(void) { BOTH(latency, 60); }
static void batching(void) { BOTH(latency, 16), BOTH(jitter, 16); }
static void jitter(void) { BOTH(jitter, 300); }
static void slow(void) { BOTH(bytes_per_ms, 11); }
static void short_writes(void) { w.end[0].chunk = w.end[1].chunk = 1 + world_random(&w, 3); }
static void wrap(void) { w.now = UINT32_MAX - world_random(&w, 300); }
static void skewed(void) { BOTH(flip, per_byte(0.3)); }
static void other_list(void) { w.end[1].config.protocol ^= 1u << world_random(&w, 32); }
static void noisy(void)
{
    for (int k = 0; k < 400; k++) {
        wire *line = &w.line[1];
        line->bytes[line->count] = (uint8_t)world_random(&w, 256);
        line->due[line->count++] = w.now;
    }
}

/* What goes on while the line is bad; 0: nothing. */
typedef void (*strike)(void);
static uint64_t passed(void) { return w.line[0].passed + w.line[1].passed; }
static int struck;

static void mute_in(void) { world_cut(&w, 1); }
static void mute_out(void) { world_cut(&w, 0); }
static void mute(void)
{
    if (passed() > (uint64_t)at_frame) {
        world_cut(&w, 0);
        world_cut(&w, 1);
    }
}
static void one_way(void)
{
    if (passed() > (uint64_t)at_frame) {
        at_frame & 1 ? mute_in() : mute_out();
    }
}
static void once(void (*what)(void))
{
    if (!struck && passed() > (uint64_t)at_frame) {
        struck = 1;
        what();
    }
}
static void reset_board_now(void) { world_reset(&w, 1); }
static void reset_host_now(void) { world_reset(&w, 0); }
static void reset_board(void) { once(reset_board_now); }
static void reset_host(void) { once(reset_host_now); }
static void stall_now(void)
{
    /* Nothing is lost, all of it comes 700 ms later. */
    for (int e = 0; e < 2; e++) {
        wire *line = &w.line[e];
        for (uint32_t k = 0; k < line->count; k++) {
            line->due[(line->head + k) % WIRE] += 700;
        }
        line->last_due += 700;
    }
}
static void stall(void) { once(stall_now); }
static void second_host_now(void)
{
    /* It opens with a SYN of its own, which ends ours when it goes on. */
    CHECK(&w, link_close(w.end[0].link) == LINK_OK);
}
static void second_host(void) { once(second_host_now); }

typedef struct {
    const char *name;
    void (*set)(void);
    strike during;
    int must; /* 1: every session recovers; -1: none may; 0: either */
} row;

static const row rows[] = {
    {"none", none, NULL, 1},
    {"flip 1e-5", flip5, NULL, 1},
    {"flip 1e-4", flip4, NULL, 1},
    {"flip 1e-3", flip3, NULL, 0},
    {"drop 1e-3", drop3, NULL, 0},
    {"duplicate 1e-3", dup3, NULL, 0},
    {"insert 1e-3", insert3, NULL, 0},
    {"burst 1e-4, 1..60 bytes", burst4, NULL, 0},
    {"a tenth of frames again, some much later", frames, NULL, 1},
    {"latency 60 ms", latency, NULL, 1},
    {"latency 16 ms, jitter 16 ms", batching, NULL, 1},
    {"jitter 300 ms", jitter, NULL, 1},
    {"115200 baud", slow, NULL, 1},
    {"writes of 1..3 bytes", short_writes, NULL, 1},
    {"400 bytes of boot noise", noisy, NULL, 1},
    {"clock wraps", wrap, NULL, 1},
    {"everything stands still for 700 ms", none, stall, 1},
    {"both ways mute", none, mute, -1},
    {"one way mute", none, one_way, -1},
    {"wrong baud rate", skewed, NULL, -1},
    {"other list of messages", other_list, NULL, -1},
    {"board resets", none, reset_board, 0},
    {"host restarts", none, reset_host, 0},
    {"session closed in flight", none, second_host, 0},
};

static void clean(void)
{
    for (int e = 0; e < 2; e++) {
        memset(&w.line[e].faults, 0, sizeof w.line[e].faults);
        w.line[e].faults.bytes_per_ms = 100;
    }
}

static uint64_t payload_of(int e)
{
    link_statistics c;
    link_get_statistics(w.end[e].link, &c);
    return c.messages_consumed;
}

typedef struct {
    uint64_t recovered, typed, damaged, again, messages, bytes, time;
} sums;

static void one(const row *r, uint64_t seed, sums *s)
{
    int refused = 0;

    memset(&w, 0, sizeof w);
    w.seed = seed;
    w.random = seed * 0x9e3779b97f4a7c15ull + 0x7654321;
    w.reopen = 1;
    for (int e = 0; e < 2; e++) {
        world_default_config(&w.end[e].config, e == 0);
        w.end[e].config.rx_payload = w.end[e].config.tx_payload = LONGEST;
        w.end[e].config.rx_window = w.end[e].config.tx_window = 8;
        w.end[e].longest = LONGEST;
        w.end[e].chunk = 255;
        w.end[e].to_send = COUNT;
        w.line[e].faults.bytes_per_ms = 100;
    }
    at_frame = 40 + (int)world_random(&w, 7000);
    struck = 0;
    r->set();
    refused = w.end[0].config.protocol != w.end[1].config.protocol;
    w.reopen = !refused;
    world_start(&w);
    const uint32_t begun = w.now, bad_until = w.now + LEAST_TIME;
    while ((int32_t)(bad_until - w.now) > 0 && !world_complete(&w) && w.end[0].ended == 0) {
        world_step(&w, bad_until);
        if (r->during != NULL) {
            r->during();
        }
    }
    const int whole = world_complete(&w) && w.end[0].ended == 0 && w.end[1].opened == 1;
    CHECK(&w, whole || w.end[0].ended > 0 || w.end[1].ended > 0 || struck);
    CHECK(&w, r->must <= 0 || whole);
    CHECK(&w, r->must >= 0 || !whole);
    CHECK(&w, !refused || w.end[0].last_end.kind == LINK_REFUSED);
    s->recovered += (uint64_t)whole;
    s->typed += (uint64_t)!whole;
    s->time += w.now - begun;
    for (int e = 0; e < 2; e++) {
        link_statistics c;
        link_get_statistics(w.end[e].link, &c);
        s->damaged += c.bad_cobs + c.bad_crc + c.too_long + c.too_short;
        s->again += c.retransmitted;
        s->messages += payload_of(e);
        s->bytes += c.bytes_out;
    }
    clean();
    const uint32_t deadline = w.now + GRACE;
    while (!refused && !world_complete(&w)) {
        world_step(&w, deadline);
        CHECK(&w, (int32_t)(deadline - w.now) > 0);
    }
    world_check_counters(&w);
    world_stop(&w);
}

int main(int argc, char **argv)
{
    const uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 0) : 20;
    const uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;

    for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
        sums s = {0};
        for (uint64_t seed = first; seed < first + count; seed++) {
            one(&rows[k], seed + 1000003 * k, &s);
        }
        printf("%s|%llu|%llu|%llu|%llu|%llu|%llu|%llu|%llu\n", rows[k].name,
               (unsigned long long)count, (unsigned long long)s.recovered,
               (unsigned long long)s.typed, (unsigned long long)s.damaged,
               (unsigned long long)s.again, (unsigned long long)s.messages,
               (unsigned long long)s.bytes, (unsigned long long)s.time);
    }
    return 0;
}
