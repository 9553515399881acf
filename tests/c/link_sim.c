/* Random sessions on a random bad line: link_sim [FIRST SEED] [SESSIONS].
 *
 * Each seed draws windows, sizes, speeds, faults and resets. While the line is bad,
 * anything typed may happen; afterwards it is clean, and within a bounded time a session
 * must deliver everything both ways. Mild lines must never lose a session at all.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "link_world.h"

enum { BAD_LINE = 3000, GRACE = 60000 };

static uint64_t total_messages, total_resets, total_ends, total_retransmitted, total_damaged;
static uint32_t total_opened;

static uint32_t pick(world *w, const uint32_t *of, uint32_t n) { return of[world_random(w, n)]; }

static void draw_end(world *w, int e)
{
    static const uint32_t windows[] = {1, 1, 2, 2, 3, 4, 8, 64};
    static const uint32_t firsts[] = {0, 65530, 65535, 32765, 12345};
    static const uint32_t chunks[] = {1, 7, 64, 255};
    station *s = &w->end[e];
    link_config *c = &s->config;

    world_default_config(c, e == 0);
    c->rx_window = pick(w, windows, 8);
    c->tx_window = pick(w, windows, 8);
    c->rx_payload = 64 + world_random(w, 200);
    c->tx_payload = c->rx_payload;
    c->first = pick(w, firsts, 5);
    s->chunk = pick(w, chunks, 4);
    s->slowest = world_random(w, 3) ? 0 : world_random(w, world_random(w, 3) ? 20 : 150);
    s->deaf = world_random(w, 2) == 0;
    s->to_send = world_random(w, world_random(w, 4) ? 16 : 70);
}

static void draw_line(world *w, wire *line, uint32_t worst)
{
    line_faults *f = &line->faults;
    uint32_t *of[] = {&f->flip, &f->drop, &f->repeat, &f->insert};

    for (int i = 0; i < 4; i++) {
        if (world_random(w, 2)) {
            *of[i] = world_random(w, worst);
        }
    }
    f->burst = world_random(w, 3) ? 0 : world_random(w, worst / 16 + 1);
    f->repeat_frame = world_random(w, 3) ? 0 : 1u << 29;
    f->latency = world_random(w, 3) ? world_random(w, 4) : world_random(w, 60);
    f->jitter = world_random(w, 3) ? 0 : world_random(w, 300);
    f->bytes_per_ms = world_random(w, 2) ? 100 : 11;
}

static void clean(wire *line)
{
    const uint32_t latency = line->faults.latency, speed = line->faults.bytes_per_ms;
    memset(&line->faults, 0, sizeof line->faults);
    line->faults.latency = latency;
    line->faults.bytes_per_ms = speed;
}

static void one(uint64_t seed)
{
    static world w;
    static const uint32_t starts[] = {0, 0xffffff00u, 0x7fffff80u, 0xfffff000u};
    static const uint32_t worsts[] = {0, 430000, 4300000, 43000000}; /* 0, 1e-4, 1e-3, 1e-2 */

    memset(&w, 0, sizeof w);
    w.seed = seed;
    w.random = seed * 0x9e3779b97f4a7c15ull + 0x1234567;
    w.reopen = 1;
    const uint32_t worst = pick(&w, worsts, 4);
    const uint32_t resets = world_random(&w, 3) ? 0 : 1 + world_random(&w, 3);
    w.now = pick(&w, starts, 4);
    for (int e = 0; e < 2; e++) {
        draw_end(&w, e);
        draw_line(&w, &w.line[e], worst);
    }
    for (int e = 0; e < 2; e++) {
        const uint32_t peer = w.end[1 - e].config.rx_payload, own = w.end[e].config.tx_payload;
        w.end[e].longest = own < peer ? own : peer;
    }
    world_start(&w);
    const uint32_t bad_until = w.now + BAD_LINE;
    for (uint32_t r = 0; r < resets; r++) {
        const uint32_t at = w.now + world_random(&w, world_random(&w, 2) ? 30 : 300);
        while ((int32_t)(at - w.now) > 0) {
            world_step(&w, at);
        }
        const int end = world_random(&w, 4) == 0 ? 0 : 1;
        world_reset(&w, end);
        if (world_random(&w, 2)) {
            world_cut(&w, end);
            world_cut(&w, 1 - end);
        }
        total_resets++;
    }
    while ((int32_t)(bad_until - w.now) > 0 && !world_complete(&w)) {
        world_step(&w, bad_until);
    }
    /* A clean line from here on: nothing may hang. */
    clean(&w.line[0]);
    clean(&w.line[1]);
    const uint32_t deadline = w.now + GRACE;
    while (!world_complete(&w)) {
        world_step(&w, deadline);
        CHECK(&w, (int32_t)(deadline - w.now) > 0);
    }
    if (worst <= 430000 && resets == 0) {
        CHECK(&w, w.end[0].ended == 0 && w.end[1].ended == 0);
    }
    world_check_counters(&w);
    for (int e = 0; e < 2; e++) {
        link_statistics c;
        link_get_statistics(w.end[e].link, &c);
        /* The CRC holds off what a proper peer would not send. */
        CHECK(&w, c.bad_ack == 0 && c.out_of_window == 0 && c.bad_type == 0 && c.bad_hello == 0);
        CHECK(&w, c.no_credit == 0);
        total_messages += c.messages_consumed;
        total_ends += w.end[e].ended;
        total_opened += w.end[e].opened;
        total_retransmitted += c.retransmitted;
        total_damaged += c.bad_cobs + c.bad_crc + c.too_long + c.too_short;
    }
    world_stop(&w);
}

int main(int argc, char **argv)
{
    const uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    const uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 0) : 2000;

    printf("seeds %llu .. %llu\n", (unsigned long long)first,
           (unsigned long long)(first + count - 1));
    for (uint64_t seed = first; seed < first + count; seed++) {
        one(seed);
    }
    printf("%llu worlds: %u openings, %llu messages executed, %llu resets, %llu typed ends, "
           "%llu retransmitted, %llu frames damaged\n",
           (unsigned long long)count, total_opened, (unsigned long long)total_messages,
           (unsigned long long)total_resets, (unsigned long long)total_ends,
           (unsigned long long)total_retransmitted, (unsigned long long)total_damaged);
    return 0;
}
