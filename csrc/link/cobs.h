/* Consistent Overhead Byte Stuffing (Cheshire and Baker, 1999): no byte of a frame is
 * 0x00, so that 0x00 can stand between frames. At most one byte in 254 is added.
 *
 * Both directions work byte by byte and keep a few words of state: the decoder writes
 * straight into its frame's buffer, the encoder reads the pieces of a frame where they
 * lie and can stop after any byte.
 */
#ifndef LINK_COBS_H
#define LINK_COBS_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const uint8_t *bytes;
    size_t n;
} cobs_piece;

enum { COBS_PIECES = 3 };

typedef struct {
    size_t at;    /* of the next byte, counted over all pieces */
    uint8_t left; /* bytes of the open block that are still to be copied */
    uint8_t skip; /* the block stands for the zero that follows it */
    uint8_t last; /* the open block is the last one */
} cobs_encoder;

void cobs_encode_start(cobs_encoder *encoder);

/* Writes at most room bytes of the encoding and returns how many; fewer than room only
 * at the end. The pieces must be the same in every call of one frame. */
size_t cobs_encode(cobs_encoder *encoder, const cobs_piece piece[COBS_PIECES], uint8_t *out,
                   size_t room);

typedef struct {
    uint8_t left; /* bytes of the open block that are still to come */
    uint8_t zero; /* another block would be preceded by a zero */
} cobs_decoder;

void cobs_decode_start(cobs_decoder *decoder);

/* Takes one byte other than 0x00. Returns the decoded byte, or -1 if there is none. */
int cobs_decode(cobs_decoder *decoder, uint8_t byte);

/* Whether the encoding may end here; if not it is malformed. */
int cobs_decode_complete(const cobs_decoder *decoder);

#endif
