/* What message.h promises for each message, made from messages.def:
 *
 *     struct message_BLOCK { uint32_t steps; uint8_t flags; tail, tail_count; };
 *     MESSAGE_FIXED_BLOCK     bytes of the fixed part, id included
 *     message_read_BLOCK      1, or 0 if these bytes are no such message
 *     message_write_BLOCK     the fixed part; returns where the tail goes
 *
 * Byte by byte: no message needs to be aligned, no machine little-endian. The tail stays
 * where it is; message_get_* read its numbers.
 */
#ifndef MESSAGE_CODEC_H
#define MESSAGE_CODEC_H

#include "message.h"

static inline uint16_t message_get16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static inline uint32_t message_get32(const uint8_t *p)
{
    return message_get16(p) | (uint32_t)message_get16(p + 2) << 16;
}
static inline uint64_t message_get64(const uint8_t *p)
{
    return message_get32(p) | (uint64_t)message_get32(p + 4) << 32;
}
static inline void message_put16(uint8_t *p, uint16_t x)
{
    p[0] = (uint8_t)x;
    p[1] = (uint8_t)(x >> 8);
}
static inline void message_put32(uint8_t *p, uint32_t x)
{
    message_put16(p, (uint16_t)x);
    message_put16(p + 2, (uint16_t)(x >> 16));
}
static inline void message_put64(uint8_t *p, uint64_t x)
{
    message_put32(p, (uint32_t)x);
    message_put32(p + 4, (uint32_t)(x >> 32));
}

#define MESSAGE_C_u8 uint8_t
#define MESSAGE_C_i8 int8_t
#define MESSAGE_C_u32 uint32_t
#define MESSAGE_C_i32 int32_t
#define MESSAGE_C_u64 uint64_t
#define MESSAGE_GET_u8(p) (*(p))
#define MESSAGE_GET_i8(p) ((int8_t)*(p))
#define MESSAGE_GET_u32(p) message_get32(p)
#define MESSAGE_GET_i32(p) ((int32_t)message_get32(p))
#define MESSAGE_GET_u64(p) message_get64(p)
#define MESSAGE_PUT_u8(p, x) (*(p) = (x))
#define MESSAGE_PUT_i8(p, x) (*(p) = (uint8_t)(x))
#define MESSAGE_PUT_u32(p, x) message_put32(p, x)
#define MESSAGE_PUT_i32(p, x) message_put32(p, (uint32_t)(x))
#define MESSAGE_PUT_u64(p, x) message_put64(p, x)

/* Numbers of a tail of n bytes, or SIZE_MAX if that is no whole number of them. */
static inline size_t message_tail_count(size_t n, enum message_tail one)
{
    if (one == TAIL_NONE) {
        return n == 0 ? 0 : SIZE_MAX;
    }
    return (n & ((size_t)one - 1)) == 0 ? n / (size_t)one : SIZE_MAX;
}

#define FIELD(type, name) MESSAGE_C_##type name;
#define MESSAGE(message, id, way, fields, tail_of) \
    struct message_##message { \
        fields const uint8_t *tail; \
        size_t tail_count; /* numbers of it */ \
    };
#include "messages.def"
#undef MESSAGE
#undef FIELD

enum message_fixed {
#define FIELD(type, name) +(int)sizeof(MESSAGE_C_##type)
#define MESSAGE(message, id, way, fields, tail_of) MESSAGE_FIXED_##message = 1 fields,
#include "messages.def"
#undef MESSAGE
#undef FIELD
    MESSAGE_FIXED_NONE = 1
};

#define FIELD(type, name) \
    to->name = MESSAGE_GET_##type(bytes + at); \
    at += sizeof(MESSAGE_C_##type);
#define MESSAGE(message, id, way, fields, tail_of) \
    static inline int message_read_##message(const uint8_t *bytes, size_t n, \
                                             struct message_##message *to) \
    { \
        size_t at = 1; \
        if (n < MESSAGE_FIXED_##message) { \
            return 0; \
        } \
        fields to->tail = bytes + at; \
        to->tail_count = message_tail_count(n - at, TAIL_##tail_of); \
        return to->tail_count != SIZE_MAX; \
    }
#include "messages.def"
#undef MESSAGE
#undef FIELD

#define FIELD(type, name) \
    MESSAGE_PUT_##type(out, from->name); \
    out += sizeof(MESSAGE_C_##type);
#define MESSAGE(message, id, way, fields, tail_of) \
    static inline uint8_t *message_write_##message(uint8_t *out, \
                                                   const struct message_##message *from) \
    { \
        (void)from; \
        *out++ = (id); \
        fields return out; \
    }
#include "messages.def"
#undef MESSAGE
#undef FIELD

#endif
