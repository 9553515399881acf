#include "rto.h"

/* A longer round trip than this (18 hours) is no measurement; it keeps the sums in range. */
static const uint32_t LONGEST = UINT32_C(1) << 26;
static const uint32_t GRANULARITY = 1; /* of the clock: G in RFC 6298 */

static void set(rto_timer *timer, uint32_t rto)
{
    timer->rto = rto < timer->least ? timer->least : rto > timer->most ? timer->most : rto;
}

void rto_start(rto_timer *timer, uint32_t initial, uint32_t least, uint32_t most)
{
    timer->least = least;
    timer->most = most;
    timer->srtt8 = 0;
    timer->rttvar4 = 0;
    timer->sampled = 0;
    set(timer, initial);
}

void rto_sample(rto_timer *timer, uint32_t round_trip)
{
    const uint32_t r = round_trip < LONGEST ? round_trip : LONGEST;

    if (!timer->sampled) {
        timer->sampled = 1;
        timer->srtt8 = 8 * r;
        timer->rttvar4 = 2 * r;
    } else {
        /* RTTVAR before SRTT, as section 2.3 asks. */
        const uint32_t srtt = timer->srtt8 / 8;
        timer->rttvar4 += (srtt > r ? srtt - r : r - srtt) - timer->rttvar4 / 4;
        timer->srtt8 += r - timer->srtt8 / 8;
    }
    set(timer, timer->srtt8 / 8 +
                   (timer->rttvar4 > GRANULARITY ? timer->rttvar4 : GRANULARITY));
}

void rto_back_off(rto_timer *timer)
{
    set(timer, timer->rto < LONGEST ? 2 * timer->rto : timer->most);
}
