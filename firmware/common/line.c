#include "line.h"
#include "board.h"

static uint8_t rx_bytes[LINE_RX_BYTES];
static uint8_t tx_bytes[LINE_TX_BYTES];
static volatile uint32_t lost;

ring line_rx = {.bytes = rx_bytes, .size = LINE_RX_BYTES};
ring line_tx = {.bytes = tx_bytes, .size = LINE_TX_BYTES};

void line_received(uint8_t byte)
{
    if (!ring_put(&line_rx, byte)) {
        lost = lost + 1;
    }
}

void line_overrun(void) { lost = lost + 1; }

size_t board_read(uint8_t *to, size_t capacity)
{
    size_t n = 0;

    while (n < capacity && ring_take(&line_rx, to + n)) {
        n++;
    }
    return n;
}

size_t board_room(void) { return ring_room(&line_tx); }

void board_write(const uint8_t *from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        (void)ring_put(&line_tx, from[i]);
    }
    line_kick();
}

uint32_t board_lost(void) { return lost; }
