/* Any bytes, and frames with a good CRC and a forged header: link_fuzz [SEED] [ROUNDS].
 *
 * A forger may end sessions and deliver messages. It must not break memory (run this
 * under the sanitizers), the sums of the counters, the windows, or the way back: a proper
 * peer must get a session in the end. With -DLIBFUZZER the bytes come from libFuzzer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "link_world.h"

static world w;
static station *victim;
static uint32_t seen_session, seen_boot;

static void look(void)
{
    link_event event;
    const uint8_t *message;
    size_t n;
    uint8_t out[512];

    while (link_next_event(victim->link, &event) == LINK_OK) {
        CHECK(&w, event.first_unconfirmed <= event.end);
    }
    if (victim == &w.end[0]) {
        (void)link_open(victim->link, w.now);
    }
    CHECK(&w, link_room(victim->link) <= victim->config.tx_window);
    while (link_room(victim->link) > 0) {
        memset(out, 7, sizeof out);
        CHECK(&w, link_send(victim->link, out, link_largest(victim->link), NULL) == LINK_OK);
    }
    for (uint32_t i = world_random(&w, 4); i > 0; i--) {
        if (link_message(victim->link, &message, &n) == LINK_OK) {
            CHECK(&w, n <= victim->config.rx_payload);
            if (world_random(&w, 2)) {
                CHECK(&w, link_consumed(victim->link) == LINK_OK);
            }
        }
    }
    n = link_poll(victim->link, w.now, out, 1 + world_random(&w, 300));
    /* Learn session and boot from what the victim says, as an eavesdropper would. */
    for (size_t i = 0; i + 24 < n; i++) {
        uint8_t room[600];
        frame_receiver receiver;
        frame_header header;
        frame_receive_start(&receiver, room, sizeof room);
        if (out[i] != 0) {
            continue;
        }
        for (size_t k = i + 1; k < n; k++) {
            if (out[k] == 0) {
                if (frame_receive(&receiver, 0) == FRAME_GOOD) {
                    frame_read_header(room, &header);
                    seen_session = header.session;
                    seen_boot = header.boot;
                }
                break;
            }
            (void)frame_receive(&receiver, out[k]);
        }
    }
    (void)link_next_deadline(victim->link, w.now);
    w.now += world_random(&w, 20);
    world_check_counters(&w);
}

static void forge(void)
{
    uint8_t payload[400], out[600];
    frame_header header;
    frame_sender sender;
    uint32_t n = world_random(&w, 3) ? world_random(&w, 30) : world_random(&w, 300);

    header.type = (uint8_t)(world_random(&w, 20) ? 1 + world_random(&w, 7) : world_random(&w, 256));
    header.flags = (uint8_t)world_random(&w, 4);
    header.credit = (uint8_t)world_random(&w, 6);
    header.held = (uint8_t)world_random(&w, 3);
    header.session = (uint16_t)(world_random(&w, 20) ? seen_session : world_random(&w, 65536));
    header.boot = (uint16_t)(world_random(&w, 20) ? seen_boot : world_random(&w, 65536));
    header.sequence = (uint16_t)(world_random(&w, 9) - 2);
    header.ack = (uint16_t)(world_random(&w, 9) - 2);
    for (uint32_t i = 0; i < n; i++) {
        payload[i] = (uint8_t)world_random(&w, 256);
    }
    if (header.type <= FRAME_REFUSED && world_random(&w, 10)) {
        link_config peer = w.end[0].config;
        memset(payload, 0, 20);
        frame_put16(payload, (uint16_t)(LINK_VERSION + (world_random(&w, 10) == 0)));
        frame_put16(payload + 2, (uint16_t)(64 + world_random(&w, 100)));
        frame_put32(payload + 4, peer.protocol);
        frame_put32(payload + 8, world_random(&w, 3));
        payload[14] = (uint8_t)(1 + world_random(&w, 5));
        frame_put32(payload + 16, 1 + world_random(&w, 1000));
        n = 20 + world_random(&w, 44);
    }
    frame_send_start(&sender, (int)world_random(&w, 2), &header, NULL, 0, payload, (uint16_t)n);
    n = (uint32_t)frame_send(&sender, out, sizeof out);
    CHECK(&w, sender.stage == FRAME_IDLE);
    link_receive(victim->link, w.now, out, n);
}

static void noise(void)
{
    uint8_t bytes[300];
    const uint32_t n = world_random(&w, sizeof bytes);

    for (uint32_t i = 0; i < n; i++) {
        bytes[i] = (uint8_t)(world_random(&w, 12) ? 1 + world_random(&w, 255) : 0);
    }
    link_receive(victim->link, w.now, bytes, n);
}

static void begin(uint64_t seed)
{
    memset(&w, 0, sizeof w);
    w.seed = seed;
    w.random = seed * 0x9e3779b97f4a7c15ull + 99;
    w.reopen = 1;
    for (int e = 0; e < 2; e++) {
        world_default_config(&w.end[e].config, e == 0);
        w.end[e].longest = 24;
        w.end[e].chunk = 64;
        w.line[e].faults.bytes_per_ms = 100;
    }
    world_start(&w);
}

/* The forger goes away; the two proper ends find each other. */
static void recover(void)
{
    for (int e = 0; e < 2; e++) {
        link_event event;
        const uint8_t *message;
        size_t n;
        (void)link_close(w.end[e].link);
        while (link_next_event(w.end[e].link, &event) == LINK_OK) {
        }
        while (link_message(w.end[e].link, &message, &n) == LINK_OK) {
            (void)link_consumed(w.end[e].link);
        }
        w.end[e].to_send = 3;
    }
    const uint32_t until = w.now + 20000;
    while (!world_complete(&w)) {
        world_step(&w, until);
        CHECK(&w, (int32_t)(until - w.now) > 0);
    }
    world_check_counters(&w);
    world_stop(&w);
}

#ifdef LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    begin(1);
    victim = &w.end[size & 1];
    for (size_t i = 0; i < size; i += 64) {
        link_receive(victim->link, w.now, data + i, size - i < 64 ? size - i : 64);
        look();
    }
    recover();
    return 0;
}
#else
int main(int argc, char **argv)
{
    const uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    const uint64_t rounds = argc > 2 ? strtoull(argv[2], NULL, 0) : 300;
    uint64_t accepted = 0;

    printf("seeds %llu .. %llu\n", (unsigned long long)first,
           (unsigned long long)(first + rounds - 1));
    for (uint64_t seed = first; seed < first + rounds; seed++) {
        link_statistics count;
        begin(seed);
        victim = &w.end[seed & 1];
        for (int i = 0; i < 200; i++) {
            if (world_random(&w, 5)) {
                forge();
            } else {
                noise();
            }
            look();
        }
        link_get_statistics(victim->link, &count);
        accepted += count.frames_accepted;
        recover();
    }
    printf("%llu rounds, %llu forged frames accepted\n", (unsigned long long)rounds,
           (unsigned long long)accepted);
    return 0;
}
#endif
