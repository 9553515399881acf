/* The retransmission time-out of RFC 6298, in milliseconds.
 *
 * Karn's algorithm has two halves: the caller takes no sample from a frame that it sent
 * twice, and a time-out that was doubled stays so until there is a sample.
 */
#ifndef LINK_RTO_H
#define LINK_RTO_H

#include <stdint.h>

typedef struct {
    uint32_t least, most; /* what the time-out is clamped to */
    uint32_t rto;
    uint32_t srtt8;       /* smoothed round trip, in 1/8 ms */
    uint32_t rttvar4;     /* its mean deviation, in 1/4 ms */
    uint8_t sampled;
} rto_timer;

void rto_start(rto_timer *timer, uint32_t initial, uint32_t least, uint32_t most);
void rto_sample(rto_timer *timer, uint32_t round_trip);
void rto_back_off(rto_timer *timer);

#endif
