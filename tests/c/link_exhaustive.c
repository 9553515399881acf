/* Every byte of a short session lost, damaged, made a delimiter and repeated, and each
 * end reset before every byte: nothing is left to chance.
 *
 * One fault must never cost a session. A reset must be told to the other end within a
 * keep-alive period and one round trip, naming the first unconfirmed message; the next
 * session must then deliver everything.
 */
#include <stdio.h>
#include <string.h>

#include "link_world.h"

enum { MESSAGES = 10, LATENCY = 3, DEADLINE = 8000 };

static void set_up(world *w, uint32_t first)
{
    memset(w, 0, sizeof *w);
    w->random = 42;
    w->reopen = 1;
    w->now = 0xfffffff0u; /* the clock wraps in every one of them */
    for (int e = 0; e < 2; e++) {
        station *s = &w->end[e];
        world_default_config(&s->config, e == 0);
        s->config.first = first;
        s->chunk = 40;
        s->slowest = 2;
        s->to_send = MESSAGES;
        s->longest = 24;
        w->line[e].faults.latency = LATENCY;
        w->line[e].faults.bytes_per_ms = 50;
    }
    world_start(w);
}

static void finish(world *w)
{
    const uint32_t until = w->start + DEADLINE;

    while (!world_complete(w)) {
        world_step(w, until);
        CHECK(w, (int32_t)(until - w->now) > 0);
    }
    world_check_counters(w);
    world_stop(w);
}

static void one_fault(int direction, uint32_t at, int kind, uint8_t mask)
{
    static world w;

    set_up(&w, 65530);
    w.seed = (uint64_t)direction << 32 | at;
    w.line[direction].exact_at = at;
    w.line[direction].exact_kind = (uint8_t)kind;
    w.line[direction].exact_mask = mask;
    finish(&w);
    CHECK(&w, w.end[0].ended == 0 && w.end[1].ended == 0);
}

static void one_reset(int end, int direction, uint32_t at, int cut)
{
    static world w;

    set_up(&w, 65530);
    w.seed = (uint64_t)direction << 32 | at;
    while (w.line[direction].passed < at) {
        world_step(&w, w.start + DEADLINE);
        CHECK(&w, w.now - w.start < DEADLINE);
    }
    const int was_open = w.end[1 - end].epoch >= 0;
    const uint32_t reset_at = w.now;
    world_reset(&w, end);
    if (cut) {
        world_cut(&w, 0);
        world_cut(&w, 1);
    }
    finish(&w);
    if (was_open) {
        const station *other = &w.end[1 - end];
        CHECK(&w, other->ended == 1);
        CHECK(&w, other->last_end.kind == LINK_RESET);
        CHECK(&w, other->ended_at - reset_at <= other->config.keepalive + 2 * LATENCY + 4);
    }
}

int main(void)
{
    static world w;
    uint32_t bytes[2], frames = 0, worlds = 0;

    set_up(&w, 65530);
    for (uint32_t until = w.now + 400; (int32_t)(until - w.now) > 0;) {
        world_step(&w, until);
    }
    CHECK(&w, world_complete(&w));
    for (int e = 0; e < 2; e++) {
        link_statistics c;
        link_get_statistics(w.end[e].link, &c);
        bytes[e] = c.bytes_out;
        frames += c.frames_out;
    }
    world_stop(&w);
    CHECK(&w, frames >= 20);
    for (int direction = 0; direction < 2; direction++) {
        for (uint32_t at = 0; at < bytes[direction]; at++) {
            one_fault(direction, at, EXACT_DROP, 0);
            one_fault(direction, at, EXACT_REPEAT, 0);
            one_fault(direction, at, EXACT_ZERO, 0);
            one_fault(direction, at, EXACT_FLIP, (uint8_t)(1u << at % 8));
            one_fault(direction, at, EXACT_FLIP, 0xff);
            one_reset(1, direction, at, (int)(at & 1));
            one_reset(0, direction, at, (int)(at & 1));
            worlds += 7;
        }
    }
    printf("session of %u frames, %u + %u bytes: %u worlds\n", frames, bytes[0], bytes[1], worlds);
    return 0;
}
