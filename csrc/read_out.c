/* The read-out of rates: what of them leaves the chip, see analog.h. */
#include "analog.h"
#include "chip.h"

gle_reader gle_reader_of(const gle_chip *chip, int32_t l)
{
    const gle_layer *y = &chip->layer[l];
    gle_reader how = {0};

    how.drop = y->image->adc_drop;
    how.max = y->image->adc_max;
    how.noise = gle_noise_of(y->image->noise_r);
    if (y->analog != NULL && how.noise.m != 0) {
        how.key = gle_rng_key(chip->seed, GLE_RNG_READ_OUT, (uint32_t)y->first, chip->step);
    }
    return how;
}

static int32_t size_of(int32_t x) { return x < 0 ? -x : x; }

/* What neuron i has of its own. */
static void reader_of_neuron(gle_reader *how, const gle_layer *y, int32_t i)
{
    const int64_t noise = ((int64_t)GLE_NOISE_MEAN * how->noise.m << how->noise.left) >>
                          how->noise.right;
    int64_t most;

    how->gain = gle_half_word(y->analog[i].adc, 0);
    how->offset = gle_half_word(y->analog[i].adc, 1) * (GLE_GAIN_ONE / 64);
    most = (noise + size_of(how->offset) + GLE_GAIN_ONE) * ((int64_t)1 << how->drop);
    most += (int64_t)size_of(how->gain) * (INT16_MAX + 1);
    how->narrow = most <= INT32_MAX;
}

void gle_read_rates(const gle_chip *chip, gle_reader *how, int32_t l, int32_t i, int32_t b,
                    int32_t count, int32_t *to)
{
    const gle_layer *y = &chip->layer[l];
    const int16_t *r = y->r + (size_t)i * (size_t)chip->columns + (size_t)b;
    uint32_t clipped;

    if (y->analog == NULL) {
        for (int32_t k = 0; k < count; k++) {
            to[k] = r[k];
        }
        return;
    }
    reader_of_neuron(how, y, i);
    clipped = chip->kernels->read_out(to, r, count, how, chip->first + (uint32_t)b, i);
    if (clipped != 0) {
        gle_chip *counted = (gle_chip *)(uintptr_t)chip; /* reading changes nothing else */
        counted->layer[l].counters.sat_read += clipped;
    }
}

int32_t gle_read_out(const gle_chip *chip, int32_t l, int32_t i, int32_t b)
{
    gle_reader how = gle_reader_of(chip, l);
    int32_t rate;

    gle_read_rates(chip, &how, l, i, b, 1, &rate);
    return rate;
}
