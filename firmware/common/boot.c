#include "boot.h"

#define MARK UINT32_C(0x68776c65)

static struct {
    uint32_t mark, boots, check; /* check: they are ours, not what the power left */
    uint32_t cause;
} kept __attribute__((section(".noinit")));

/* FNV-1a by words: fast, and every word counts. */
static uint32_t hash_words(const void *from, size_t bytes)
{
    const uint32_t *const words = from;
    uint32_t hash = UINT32_C(2166136261);

    for (size_t i = 0; i < bytes / 4; i++) {
        hash = (hash ^ words[i]) * UINT32_C(16777619);
    }
    return hash;
}

void boot_begin(board_facts *facts, uint32_t hardware)
{
    const int again = kept.mark == MARK && kept.check == (kept.boots ^ MARK);

    facts->boots = again ? kept.boots + 1 : 1;
    facts->boot_cause = hardware;
    if (again && kept.cause != BOOT_UNKNOWN) {
        facts->boot_cause = kept.cause;
    } else if (hardware == BOOT_UNKNOWN) {
        /* Nobody tells: RAM that we left in order means that power never went. */
        facts->boot_cause = again ? BOOT_PIN : BOOT_POWER;
    }
    kept.mark = MARK;
    kept.boots = facts->boots;
    kept.check = kept.boots ^ MARK;
    kept.cause = BOOT_UNKNOWN;
    facts->boot_id = hash_words(facts->memory, facts->memory_bytes) +
                     facts->boots * UINT32_C(2654435769);
}

void boot_note(uint32_t cause) { kept.cause = cause; }
