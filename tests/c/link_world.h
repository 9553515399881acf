/* Two ends of a link, the applications on them, a bad line between them and a clock that
 * only this program turns. Everything follows from the seed.
 *
 * The applications are the oracle. A message says who sent it, in which of the sender's
 * sessions and under which number; `truth` knows what has really been executed, and every
 * check aborts with the seed.
 */
#ifndef LINK_WORLD_H
#define LINK_WORLD_H

#include <stddef.h>
#include <stdint.h>

#include "link.h"

enum { WIRE = 1 << 15, SESSIONS = 64, MESSAGE_HEAD = 8, FRAME_MOST = 700 };

/* What a line does to bytes; chances are per byte (frames: per delimiter), of 2^32. */
typedef struct {
    uint32_t flip, drop, repeat, insert, burst, repeat_frame;
    uint32_t latency;       /* ms */
    uint32_t jitter;        /* more ms, at most; bytes never overtake each other */
    uint32_t bytes_per_ms;
} line_faults;

/* One fault at one byte, for the exhaustive tests. */
enum exact_kind { EXACT_NONE = 0, EXACT_FLIP, EXACT_DROP, EXACT_REPEAT, EXACT_ZERO };

typedef struct {
    uint8_t bytes[WIRE];
    uint32_t due[WIRE];
    uint32_t head, count;
    uint32_t last_due, sent_in_ms, ms;
    uint32_t burst_left;
    uint64_t passed;        /* bytes that were put in */
    line_faults faults;
    uint32_t exact_at;
    uint8_t exact_kind, exact_mask;
    uint8_t frame[FRAME_MOST]; /* the last one, to be repeated */
    uint32_t frame_bytes;
    uint8_t late[FRAME_MOST];  /* one that is repeated much later */
    uint32_t late_bytes;
} wire;

typedef struct {
    link_config config;
    void *arena;
    link_state *link;
    uint32_t boots;
    int32_t epoch;          /* of the open session, in this end's numbering; -1: none */
    int32_t epochs;
    uint32_t sent, to_send;
    uint32_t confirmed;     /* the last link_confirmed */
    uint32_t executes_until;/* the message that is lent is done at this time */
    int executing;
    int deaf;               /* neither reads nor sends while it executes */
    uint32_t slowest;       /* execution takes 0 .. slowest ms */
    uint32_t longest;       /* message */
    uint32_t chunk;         /* most bytes of one link_poll */
    link_event last_end;
    uint32_t opened, ended, ended_at;
} station;

typedef struct {
    uint64_t seed;
    uint64_t random;
    uint32_t now, start;
    station end[2];         /* 0 opens */
    wire line[2];           /* line[i] carries what end[i] sends */
    uint32_t executed[2][SESSIONS]; /* truth: of what end[i] sent in its session s */
    int reopen;             /* end 0 opens again after a loss */
} world;

uint32_t world_random(world *w, uint32_t below);
void world_fail(const world *w, const char *what) __attribute__((noreturn));
#define CHECK(w, what) ((what) ? (void)0 : world_fail((w), #what))

void world_default_config(link_config *config, int initiator);
/* The configurations of both ends must be set. */
void world_start(world *w);
void world_stop(world *w);
/* The end loses all that it knew, as at a power cut. */
void world_reset(world *w, int end);
/* What is on its way to the other end is lost. */
void world_cut(world *w, int from_end);
/* Goes on to the next moment at which something happens, at most `until`. */
void world_step(world *w, uint32_t until);
/* Everything sent was executed and both ends know it. */
int world_complete(const world *w);
void world_check_counters(const world *w);

#endif
