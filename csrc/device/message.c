/* The list of messages as a table, and its CRC. */
#include "message.h"

#include "../gle.h"
#include "../link/crc32.h"
#include "device.h"

#define FIELD(type, name) #type " " #name ", "
#define MESSAGE(name, id, way, fields, tail) {#name, (id), way, "" fields, #tail},
const message_row message_list[] = {
#include "messages.def"
};
#undef MESSAGE
#undef FIELD

const uint32_t message_count = (uint32_t)(sizeof message_list / sizeof message_list[0]);

static uint32_t add_text(uint32_t crc, const char *text)
{
    size_t n = 0;

    while (text[n] != '\0') {
        n++;
    }
    return crc32_update(crc, (const uint8_t *)text, n + 1);
}

static uint32_t add_number(uint32_t crc, uint32_t x)
{
    const uint8_t bytes[4] = {(uint8_t)x, (uint8_t)(x >> 8), (uint8_t)(x >> 16),
                              (uint8_t)(x >> 24)};
    return crc32_update(crc, bytes, sizeof bytes);
}

uint32_t message_list_crc(void)
{
    uint32_t crc = 0;

    for (uint32_t k = 0; k < message_count; k++) {
        crc = add_text(crc, message_list[k].name);
        crc = add_number(crc, message_list[k].id);
        crc = add_number(crc, message_list[k].way);
        crc = add_text(crc, message_list[k].fields);
        crc = add_text(crc, message_list[k].tail);
    }
    /* what the list names but does not spell out */
    crc = add_number(crc, GLE_MAGIC);
    crc = add_number(crc, (uint32_t)(sizeof(gle_counters) / sizeof(uint64_t)));
    crc = add_number(crc, (uint32_t)(sizeof(gle_formats) / sizeof(int32_t)));
    return add_number(crc, GLE_FLIP_COUNT);
}
