/* The functions that gcc may call even when it compiles freestanding code (GCC manual,
 * "Standards"). volatile and the attribute: else it finds the loop below to be a memset
 * and calls it, from within itself. */
#include <stddef.h>
#include <stdint.h>

#define PLAIN __attribute__((optimize("no-tree-loop-distribute-patterns"), used))

void *memcpy(void *restrict to, const void *restrict from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);

PLAIN void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    uint8_t *t = to;
    const uint8_t *f = from;

    if ((((uintptr_t)t | (uintptr_t)f) & 3) == 0) {
        for (; n >= 4; n -= 4, t += 4, f += 4) {
            *(uint32_t *)(void *)t = *(const uint32_t *)(const void *)f;
        }
    }
    while (n-- != 0) {
        *t++ = *f++;
    }
    return to;
}

PLAIN void *memmove(void *to, const void *from, size_t n)
{
    uint8_t *t = to;
    const uint8_t *f = from;

    if ((uintptr_t)t <= (uintptr_t)f) {
        return memcpy(to, from, n); /* it goes upwards */
    }
    while (n-- != 0) {
        t[n] = f[n];
    }
    return to;
}

PLAIN void *memset(void *to, int byte, size_t n)
{
    uint8_t *t = to;
    const uint32_t word = (uint8_t)byte * UINT32_C(0x01010101);

    for (; n != 0 && ((uintptr_t)t & 3) != 0; n--) {
        *t++ = (uint8_t)byte;
    }
    for (; n >= 4; n -= 4, t += 4) {
        *(uint32_t *)(void *)t = word;
    }
    while (n-- != 0) {
        *t++ = (uint8_t)byte;
    }
    return to;
}

PLAIN int memcmp(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a;
    const uint8_t *y = b;

    for (; n != 0; n--, x++, y++) {
        if (*x != *y) {
            return *x < *y ? -1 : 1;
        }
    }
    return 0;
}
