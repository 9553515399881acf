/* Frames from any bytes, against a decoder of another build; any frame there and back.
 *
 *     u8 capacity of the room behind the header and CRC, u8 bytes of a piece, the bytes
 */
#include "fuzz.h"

#include "link/crc32.h"
#include "link/frame.h"

enum { MOST = 4096 };

/* COBS with the whole frame at hand: blocks of code - 1 bytes, a zero behind each that is
 * not full and not the last. Returns 0 if the last block is cut. */
static int plain_decode(const uint8_t *from, size_t n, uint8_t *to, size_t *bytes)
{
    size_t at = 0, out = 0;

    while (at < n) {
        const size_t code = from[at++];
        if (code - 1 > n - at) {
            *bytes = out;
            return 0;
        }
        memcpy(to + out, from + at, code - 1);
        at += code - 1;
        out += code - 1;
        if (code < 255 && at < n) {
            to[out++] = 0;
        }
    }
    *bytes = out;
    return 1;
}

static frame_result expected(const uint8_t *frame, size_t n, size_t capacity, uint8_t *to,
                             size_t *bytes)
{
    const int whole = plain_decode(frame, n, to, bytes);
    size_t decoded = 0;

    /* What came before the cut counts for the length, too. */
    for (size_t at = 0; at < n;) {
        const size_t code = frame[at++], take = code - 1 < n - at ? code - 1 : n - at;
        decoded += take;
        at += take;
        decoded += code < 255 && at < n;
    }
    if (decoded > capacity) {
        return FRAME_TOO_LONG;
    }
    if (!whole) {
        return FRAME_BAD_COBS;
    }
    if (*bytes < FRAME_OVERHEAD) {
        return FRAME_TOO_SHORT;
    }
    *bytes -= FRAME_CRC;
    return crc32_update(0, to, *bytes) == frame_get32(to + *bytes) ? FRAME_GOOD : FRAME_BAD_CRC;
}

static void decode(const uint8_t *data, size_t size, uint8_t *room, size_t capacity)
{
    static uint8_t plain[MOST + 8];
    frame_receiver receiver;
    size_t begun = 0;

    frame_receive_start(&receiver, room, capacity);
    for (size_t i = 0; i < size; i++) {
        const frame_result got = frame_receive(&receiver, data[i]);
        size_t n;
        if (data[i] != 0) {
            HOLDS(got == FRAME_MORE);
            continue;
        }
        if (i == begun) {
            HOLDS(got == FRAME_MORE);
        } else {
            HOLDS(got == expected(data + begun, i - begun, capacity, plain, &n));
            if (got == FRAME_GOOD) {
                HOLDS(receiver.n == n && memcmp(room, plain, n) == 0);
            }
            frame_receive_start(&receiver, room, capacity);
        }
        begun = i + 1;
    }
}

/* A frame of these bytes, cut anywhere on its way out, behind noise that ends nowhere. */
static void there_and_back(const uint8_t *data, size_t size, uint8_t *room, size_t capacity,
                           size_t piece)
{
    static uint8_t wire[2 * MOST];
    const size_t extra = size < FRAME_EXTRA ? size : FRAME_EXTRA;
    const size_t body = size - extra < capacity - FRAME_OVERHEAD - extra
                            ? size - extra : capacity - FRAME_OVERHEAD - extra;
    frame_header header = {1, 2, 3, 4, 5, 6, 7, 8}, back;
    frame_receiver receiver;
    frame_sender sender;
    frame_result got = FRAME_MORE;
    size_t n = 0;

    if (capacity < FRAME_OVERHEAD + FRAME_EXTRA) {
        return;
    }
    if (size > 4) {
        header.sequence = frame_get16(data);
        header.flags = data[2];
    }
    frame_receive_start(&receiver, room, capacity);
    for (size_t i = 0; i < size && i < 40; i++) {
        if (data[i] != 0) {
            (void)frame_receive(&receiver, data[i]);
        }
    }
    frame_send_start(&sender, 1, &header, data, (uint8_t)extra, data + extra, (uint16_t)body);
    while (sender.stage != FRAME_IDLE) {
        const size_t some = frame_send(&sender, wire + n, piece);
        HOLDS(some <= piece);
        n += some;
    }
    for (size_t i = 0; i < n; i++) {
        HOLDS((wire[i] == 0) == (i == 0 || i + 1 == n)); /* nothing but its ends delimits */
        got = frame_receive(&receiver, wire[i]);
        if (i == 0) {
            frame_receive_start(&receiver, room, capacity);
        }
    }
    HOLDS(got == FRAME_GOOD);
    frame_read_header(room, &back);
    HOLDS(back.type == 1 && back.flags == header.flags && back.sequence == header.sequence &&
          back.ack == 8);
    HOLDS(receiver.n == FRAME_HEADER + extra + body);
    HOLDS(memcmp(room + FRAME_HEADER, data, extra + body) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > MOST) {
        return 0;
    }
    {
        const size_t capacity = FRAME_OVERHEAD + 2 * (size_t)data[0];
        uint8_t *room = malloc(capacity);
        decode(data + 2, size - 2, room, capacity);
        there_and_back(data + 2, size - 2, room, capacity, 1 + (size_t)data[1]);
        free(room);
    }
    return 0;
}
