/* What the fuzzers share. Each has one function that eats any bytes and aborts where an
 * invariant of SECURITY.md does not hold; it runs under libFuzzer, or on files and on
 * damaged copies of them (standalone.c). What is allocated is allocated to the byte, so
 * that the sanitizers see a step outside.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* libFuzzer's own; standalone.c has a plain one. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);

#define HOLDS(what) ((what) ? (void)0 : fuzz_fail(#what, __FILE__, __LINE__))

static inline void fuzz_fail(const char *what, const char *file, int line)
{
    fprintf(stderr, "INVARIANT BROKEN: %s (%s:%d)\n", what, file, line);
    abort();
}

/* The input as a stream of choices; zeros behind its end. */
typedef struct {
    const uint8_t *at;
    size_t left;
} choices;

static inline uint8_t choose(choices *c)
{
    if (c->left == 0) {
        return 0;
    }
    c->left--;
    return *c->at++;
}

static inline uint16_t choose16(choices *c)
{
    const uint8_t low = choose(c);
    return (uint16_t)(low | choose(c) << 8);
}

static inline uint32_t choose32(choices *c)
{
    const uint32_t low = choose16(c);
    return low | (uint32_t)choose16(c) << 16;
}

/* Up to n bytes where they lie; *got says how many. */
static inline const uint8_t *choose_bytes(choices *c, size_t n, size_t *got)
{
    const uint8_t *at = c->at;

    *got = n < c->left ? n : c->left;
    c->at += *got;
    c->left -= *got;
    return at;
}

/* xorshift64*, for what a mutator draws. */
static inline uint32_t fuzz_draw(uint64_t *state, uint32_t below)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (uint32_t)(((*state * 2685821657736338717ull) >> 32) % below);
}

#endif
