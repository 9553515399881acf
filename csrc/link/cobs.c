#include "cobs.h"

enum { LONGEST = 254 };

static uint8_t byte_at(const cobs_piece piece[COBS_PIECES], size_t at)
{
    for (int p = 0; p < COBS_PIECES - 1; p++) {
        if (at < piece[p].n) {
            return piece[p].bytes[at];
        }
        at -= piece[p].n;
    }
    return piece[COBS_PIECES - 1].bytes[at];
}

void cobs_encode_start(cobs_encoder *encoder)
{
    *encoder = (cobs_encoder){0, 0, 0, 0};
}

/* Opens the block that begins at encoder->at and returns its code byte. */
static uint8_t open_block(cobs_encoder *encoder, const cobs_piece piece[COBS_PIECES])
{
    const size_t total = piece[0].n + piece[1].n + piece[2].n;
    uint8_t n = 0;

    encoder->at += encoder->skip;
    while (n < LONGEST && encoder->at + n < total && byte_at(piece, encoder->at + n) != 0) {
        n++;
    }
    encoder->left = n;
    encoder->last = encoder->at + n == total;
    encoder->skip = !encoder->last && n < LONGEST;
    return (uint8_t)(n + 1);
}

size_t cobs_encode(cobs_encoder *encoder, const cobs_piece piece[COBS_PIECES], uint8_t *out,
                   size_t room)
{
    size_t n = 0;

    while (n < room) {
        if (encoder->left > 0) {
            out[n++] = byte_at(piece, encoder->at++);
            encoder->left--;
        } else if (!encoder->last) {
            out[n++] = open_block(encoder, piece);
        } else {
            break;
        }
    }
    return n;
}

void cobs_decode_start(cobs_decoder *decoder)
{
    *decoder = (cobs_decoder){0, 0};
}

int cobs_decode(cobs_decoder *decoder, uint8_t byte)
{
    int decoded = -1;

    if (decoder->left > 0) {
        decoder->left--;
        decoded = byte;
    } else {
        if (decoder->zero) {
            decoded = 0;
        }
        decoder->left = (uint8_t)(byte - 1);
        decoder->zero = byte != LONGEST + 1;
    }
    return decoded;
}

int cobs_decode_complete(const cobs_decoder *decoder)
{
    return decoder->left == 0;
}
