/* CRC-32 as zlib.crc32 computes it (reflected polynomial 0xEDB88320). */
#ifndef LINK_CRC32_H
#define LINK_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* crc: 0 at first, then the value returned for the bytes before these. */
uint32_t crc32_update(uint32_t crc, const uint8_t *bytes, size_t n);

#endif
