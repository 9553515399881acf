#include "frame.h"

#include "crc32.h"

uint16_t frame_get16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] | (uint32_t)bytes[1] << 8);
}

uint32_t frame_get32(const uint8_t *bytes)
{
    return frame_get16(bytes) | (uint32_t)frame_get16(bytes + 2) << 16;
}

void frame_put16(uint8_t *bytes, uint16_t x)
{
    bytes[0] = (uint8_t)x;
    bytes[1] = (uint8_t)(x >> 8);
}

void frame_put32(uint8_t *bytes, uint32_t x)
{
    frame_put16(bytes, (uint16_t)x);
    frame_put16(bytes + 2, (uint16_t)(x >> 16));
}

void frame_read_header(const uint8_t bytes[FRAME_HEADER], frame_header *header)
{
    header->type = bytes[0];
    header->flags = bytes[1];
    header->credit = bytes[2];
    header->held = bytes[3];
    header->session = frame_get16(bytes + 4);
    header->boot = frame_get16(bytes + 6);
    header->sequence = frame_get16(bytes + 8);
    header->ack = frame_get16(bytes + 10);
}

static void write_header(uint8_t bytes[FRAME_HEADER], const frame_header *header)
{
    bytes[0] = header->type;
    bytes[1] = header->flags;
    bytes[2] = header->credit;
    bytes[3] = header->held;
    frame_put16(bytes + 4, header->session);
    frame_put16(bytes + 6, header->boot);
    frame_put16(bytes + 8, header->sequence);
    frame_put16(bytes + 10, header->ack);
}

void frame_receive_start(frame_receiver *receiver, uint8_t *room, size_t capacity)
{
    receiver->room = room;
    receiver->capacity = capacity;
    receiver->n = 0;
    receiver->begun = 0;
    receiver->too_long = 0;
    cobs_decode_start(&receiver->cobs);
}

static frame_result judge(frame_receiver *receiver)
{
    if (receiver->too_long) {
        return FRAME_TOO_LONG;
    }
    if (!cobs_decode_complete(&receiver->cobs)) {
        return FRAME_BAD_COBS;
    }
    if (receiver->n < FRAME_OVERHEAD) {
        return FRAME_TOO_SHORT;
    }
    receiver->n -= FRAME_CRC;
    if (crc32_update(0, receiver->room, receiver->n) !=
        frame_get32(receiver->room + receiver->n)) {
        return FRAME_BAD_CRC;
    }
    return FRAME_GOOD;
}

frame_result frame_receive(frame_receiver *receiver, uint8_t byte)
{
    int decoded;

    if (byte == 0) {
        /* Two delimiters in a row enclose no frame. */
        return receiver->begun ? judge(receiver) : FRAME_MORE;
    }
    receiver->begun = 1;
    decoded = cobs_decode(&receiver->cobs, byte);
    if (decoded >= 0) {
        if (receiver->n < receiver->capacity) {
            receiver->room[receiver->n++] = (uint8_t)decoded;
        } else {
            receiver->too_long = 1;
        }
    }
    return FRAME_MORE;
}

void frame_send_start(frame_sender *sender, int lead, const frame_header *header,
                      const uint8_t *extra, uint8_t extra_bytes, const uint8_t *body,
                      uint16_t body_bytes)
{
    uint32_t crc;

    write_header(sender->head, header);
    for (uint8_t i = 0; i < extra_bytes; i++) {
        sender->head[FRAME_HEADER + i] = extra[i];
    }
    sender->head_bytes = (uint16_t)(FRAME_HEADER + extra_bytes);
    sender->body = body;
    sender->body_bytes = body_bytes;
    crc = crc32_update(0, sender->head, sender->head_bytes);
    crc = crc32_update(crc, body, body_bytes);
    frame_put32(sender->tail, crc);
    cobs_encode_start(&sender->cobs);
    sender->stage = lead ? FRAME_LEAD : FRAME_BODY;
}

size_t frame_send(frame_sender *sender, uint8_t *out, size_t room)
{
    const cobs_piece piece[COBS_PIECES] = {{sender->head, sender->head_bytes},
                                           {sender->body, sender->body_bytes},
                                           {sender->tail, FRAME_CRC}};
    size_t n = 0;

    if (sender->stage == FRAME_LEAD && n < room) {
        out[n++] = 0;
        sender->stage = FRAME_BODY;
    }
    if (sender->stage == FRAME_BODY) {
        n += cobs_encode(&sender->cobs, piece, out + n, room - n);
        if (n < room) {
            sender->stage = FRAME_TRAIL;
        }
    }
    if (sender->stage == FRAME_TRAIL && n < room) {
        out[n++] = 0;
        sender->stage = FRAME_IDLE;
    }
    return n;
}

void frame_send_abort(frame_sender *sender)
{
    if (sender->stage == FRAME_BODY) {
        sender->stage = FRAME_TRAIL;
    } else if (sender->stage == FRAME_LEAD) {
        sender->stage = FRAME_IDLE;
    }
}
