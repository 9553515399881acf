/* Every message from any bytes: read exactly as far as it goes or refused, and written back
 * as it came. The first byte says which, the rest are its bytes. */
#include "fuzz.h"

#include "device/message_codec.h"

/* Bytes of one number of a tail, by its name in the list. */
static size_t tail_bytes(const char *name)
{
    return strcmp(name, "I16") == 0 ? 2 : strcmp(name, "I32") == 0 ? 4
           : strcmp(name, "U64") == 0 ? 8 : strcmp(name, "NONE") == 0 ? 0 : 1;
}

/* What the list says of a message, read as text, shares no line with the codec. */
static int whole(const message_row *row, size_t n, size_t *fixed)
{
    const size_t one = tail_bytes(row->tail);

    *fixed = 1;
    for (const char *at = row->fields; (at = strchr(at, ',')) != NULL; at++) {
        const char *type = at;
        while (type > row->fields && !(type[-1] == ' ' && type[-2] == ',')) {
            type--;
        }
        *fixed += type[1] == '8' ? 1 : type[1] == '3' ? 4 : 8;
    }
    return n >= *fixed && (one == 0 ? n == *fixed : (n - *fixed) % one == 0);
}

static const message_row *row_of(uint32_t id)
{
    for (uint32_t k = 0; k < message_count; k++) {
        if (message_list[k].id == id) {
            return &message_list[k];
        }
    }
    return NULL;
}

#define MESSAGE(name, id, way, fields, tail_of) \
    static void try_##name(const uint8_t *m, size_t n) \
    { \
        const message_row *row = row_of(id); \
        struct message_##name s; \
        uint8_t back[1 + 4 * 16]; \
        size_t fixed; \
        const int ok = whole(row, n, &fixed); \
        HOLDS(fixed == MESSAGE_FIXED_##name); \
        HOLDS(message_read_##name(m, n, &s) == ok); \
        if (ok) { \
            HOLDS(s.tail == m + fixed); \
            HOLDS(fixed + s.tail_count * tail_bytes(row->tail) == n); \
            HOLDS(message_write_##name(back, &s) == back + fixed); \
            HOLDS(back[0] == (id) && memcmp(back + 1, m + 1, fixed - 1) == 0); \
        } \
    }
#include "device/messages.def"
#undef MESSAGE

static void (*const tries[])(const uint8_t *, size_t) = {
#define MESSAGE(name, id, way, fields, tail_of) try_##name,
#include "device/messages.def"
#undef MESSAGE
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0) {
        uint8_t *m = malloc(size);
        memcpy(m, data, size);
        tries[data[0] % (sizeof tries / sizeof tries[0])](m, size);
        free(m);
    }
    return 0;
}
