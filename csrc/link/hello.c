/* HELLO: what each end tells the other in a SYN, a SYN_ACK or a REFUSED.
 *
 *     0        2           4         8     12     14         15  16
 *     version  rx_payload  protocol  boot  first  rx_window  0   keepalive, upper layer's
 *
 * Version and protocol keep their places in every version to come, so that two ends that
 * refuse each other can still say why.
 */
#include "link_state.h"

void link_hello_write(const link_config *config, uint8_t out[FRAME_EXTRA])
{
    frame_put16(out, LINK_VERSION);
    frame_put16(out + 2, (uint16_t)config->rx_payload);
    frame_put32(out + 4, config->protocol);
    frame_put32(out + 8, config->boot);
    frame_put16(out + 12, (uint16_t)config->first);
    out[14] = (uint8_t)config->rx_window;
    out[15] = 0;
    frame_put32(out + 16, config->keepalive);
}

int link_hello_read(const uint8_t *bytes, size_t n, link_peer_hello *hello)
{
    if (n < FRAME_EXTRA || n > FRAME_EXTRA + LINK_MAX_HELLO) {
        return 0;
    }
    hello->version = frame_get16(bytes);
    hello->rx_payload = frame_get16(bytes + 2);
    hello->protocol = frame_get32(bytes + 4);
    hello->boot = frame_get32(bytes + 8);
    hello->first = frame_get16(bytes + 12);
    hello->rx_window = bytes[14];
    hello->keepalive = frame_get32(bytes + 16);
    hello->hello_bytes = (uint32_t)(n - FRAME_EXTRA);
    for (uint32_t i = 0; i < hello->hello_bytes; i++) {
        hello->hello[i] = bytes[FRAME_EXTRA + i];
    }
    return hello->version != LINK_VERSION ||
           (hello->rx_payload >= LINK_MIN_PAYLOAD && hello->rx_payload <= LINK_MAX_PAYLOAD &&
            hello->rx_window >= 1 && hello->rx_window <= LINK_MAX_WINDOW &&
            hello->keepalive >= 1 && hello->keepalive <= LINK_MAX_TIME);
}

int link_hello_agrees(const link_config *config, const link_peer_hello *hello)
{
    return hello->version == LINK_VERSION && hello->protocol == config->protocol;
}
