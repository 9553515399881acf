/* A ring between one writer and one reader, of which one may be an interrupt. Neither ever
 * waits for the other; one slot stays empty.
 *
 * The barriers keep the compiler from moving the access to a byte across the index that
 * hands it over (it did). These parts have one core, so no hardware barrier is needed.
 */
#ifndef RING_H
#define RING_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint8_t *bytes;
    uint16_t size;
    volatile uint16_t first; /* the reader's: next to take */
    volatile uint16_t end;   /* the writer's: next to fill */
} ring;

static inline void ring_barrier(void) { __asm__ volatile("" ::: "memory"); }

static inline uint16_t ring_after(const ring *r, uint16_t at)
{
    return (uint16_t)(at + 1u == r->size ? 0u : at + 1u);
}

static inline int ring_is_empty(const ring *r) { return r->first == r->end; }

/* 0: full, the byte is not taken. */
static inline int ring_put(ring *r, uint8_t byte)
{
    const uint16_t end = r->end;
    const uint16_t after = ring_after(r, end);

    if (after == r->first) {
        return 0;
    }
    r->bytes[end] = byte;
    ring_barrier();
    r->end = after;
    return 1;
}

/* 0: empty, *byte is as it was. */
static inline int ring_take(ring *r, uint8_t *byte)
{
    const uint16_t first = r->first;

    if (first == r->end) {
        return 0;
    }
    ring_barrier();
    *byte = r->bytes[first];
    ring_barrier();
    r->first = ring_after(r, first);
    return 1;
}

static inline size_t ring_room(const ring *r)
{
    const uint16_t first = r->first;
    const uint16_t end = r->end;
    const uint32_t used = end >= first ? (uint32_t)end - first : (uint32_t)r->size - first + end;

    return r->size - 1u - used;
}

#endif
