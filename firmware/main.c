/* The firmware: one chip behind one line. Bytes go into the link, messages from the link
 * to the device, bytes from the link to the line; nothing else happens here. */
#include "board.h"
#include "device/device.h"
#include "kernels.h"
#include "link/link.h"

/* Bytes that travel at once between line and link; on the stack. */
#ifndef BOARD_CHUNK
#define BOARD_CHUNK 64
#endif
enum { CHUNK = BOARD_CHUNK };

/* No more than this is taken in before the device has its turn, so that a babbling line
 * cannot hold up the chip. It is more than any receive buffer of a small board. */
enum { CHUNKS_IN = 32 };

/* The link's times, in ms. The host's are what a user notices; these only have to be
 * longer than the pauses of a busy host and of an emulator on a busy machine. */
enum {
    RTO_INITIAL = 500,
    RTO_LEAST = 50,
    RTO_MOST = 4000,
    KEEPALIVE = 1000,
    SILENT_AFTER = 10000,
    STALLED_AFTER = 30000,
    OPEN_WITHIN = 5000 /* unused: a board opens nothing */
};

typedef struct {
    link_state *link;
    device *chip;
} firmware;

static void tell_status(void *board, device_board_status *status)
{
    (void)board;
    board_stack(&status->stack_size, &status->stack_used);
    status->uptime_ms = board_millis();
    status->rx_lost = board_lost();
}

static void reboot(void *board, uint32_t how)
{
    (void)board;
    board_reboot(how);
}

/* The front part of the memory; the rest stays aligned to 8. NULL: there is not enough. */
static void *carve(board_facts *facts, size_t bytes)
{
    uint8_t *const at = facts->memory;
    const size_t all = (bytes + 7) & ~(size_t)7;

    if (bytes == 0 || all > facts->memory_bytes) {
        return NULL;
    }
    facts->memory = at + all;
    facts->memory_bytes -= all;
    return at;
}

/* 0: the board's memory or limits do not do; only a wrong port meets this. The hello must
 * stand as long as the link. Not inlined: what it needs on the stack it needs only once. */
static __attribute__((noinline)) int open_firmware(firmware *f, uint8_t hello[DEVICE_HELLO_BYTES])
{
    board_facts facts;

    board_init(&facts);
    const link_config line = {
        .initiator = 0,
        .boot = facts.boot_id,
        .protocol = message_list_crc(),
        .hello = hello,
        .hello_bytes = DEVICE_HELLO_BYTES,
        .rx_window = facts.window,
        .rx_payload = facts.payload,
        .tx_window = facts.window,
        .tx_payload = facts.payload,
        .first = 0,
        .rto_initial = RTO_INITIAL,
        .rto_least = RTO_LEAST,
        .rto_most = RTO_MOST,
        .keepalive = KEEPALIVE,
        .silent_after = SILENT_AFTER,
        .stalled_after = STALLED_AFTER,
        .open_within = OPEN_WITHIN
    };
    const size_t link_size = link_bytes(&line);
    void *const link_memory = carve(&facts, link_size);
    void *const device_memory = carve(&facts, device_bytes(facts.payload));

    if (link_memory == NULL || device_memory == NULL) {
        return 0;
    }
    const device_config config = {
        .memory = facts.memory,
        .memory_bytes = facts.memory_bytes & ~(size_t)(GLE_ALIGN - 1),
        .kernels = &gle_kernels_scalar,
        .name = facts.name,
        .boot_cause = facts.boot_cause,
        .boots = facts.boots,
        .features = facts.features,
        .payload = facts.payload,
        .board = NULL,
        .status = tell_status,
        .reboot = reboot
    };
    device_hello(&config, hello);
    f->chip = device_open(device_memory, &config);
    return f->chip != NULL && link_init(link_memory, link_size, &line, &f->link) == LINK_OK;
}

static void take_in(link_state *link, uint8_t chunk[CHUNK])
{
    for (int i = 0; i < CHUNKS_IN; i++) {
        const size_t n = board_read(chunk, CHUNK);

        if (n == 0) {
            break;
        }
        link_receive(link, board_millis(), chunk, n);
    }
}

/* Returns whether anything was sent. */
static int send_out(link_state *link, uint8_t chunk[CHUNK])
{
    size_t sent = 0;
    size_t room;

    while ((room = board_room()) != 0) {
        const size_t n = link_poll(link, board_millis(), chunk, room < CHUNK ? room : CHUNK);

        if (n == 0) {
            break;
        }
        board_write(chunk, n);
        sent += n;
    }
    return sent != 0;
}

void firmware_run(void)
{
    firmware f;
    uint8_t hello[DEVICE_HELLO_BYTES];
    uint8_t chunk[CHUNK];

    if (!open_firmware(&f, hello)) {
        board_reboot(REBOOT_WEDGE);
    }
    for (;;) {
        take_in(f.link, chunk);
        const device_progress progress = device_poll(f.chip, f.link);
        const int sent = send_out(f.link, chunk);

        board_alive();
        if (progress == DEVICE_IDLE || (progress == DEVICE_WAITS && !sent)) {
            const uint32_t wait = link_next_deadline(f.link, board_millis());
            /* With bytes to send and no room for them, the line sets the pace. */
            board_idle(wait == 0 ? 1 : wait);
        }
    }
}
