/* tanh's table by permutations of bytes against the table as it is, whatever the processor's maker:
 * all entries, and rows of neurons whose rates are found in either way. Prints what differs and
 * ends with 1, or 0. tests/unit/test_tanh_bytes.py builds and runs it.
 */
#include "neurons_vnni.c"

#include <stdio.h>
#include <stdlib.h>

enum { MOST = 8 * WIDE, ROUNDS = 2000 };

typedef struct {
    _Alignas(64) int32_t u[MOST], v[MOST];
    int16_t r[MOST], e[MOST];
    uint16_t dphi[MOST];
    uint32_t hash[MOST];
} states;

void gle_neurons_one_vnni(const gle_neuron_job *job) { (void)job; }

static int32_t number(int32_t most)
{
    return (int32_t)(((uint32_t)rand() << 16 ^ (uint32_t)rand()) % (2u * (uint32_t)most + 1u)) - most;
}

VBMI static int all_entries(void)
{
    for (int32_t first = 0; first < 512; first += 64) {
        __m512i position[4], entry[4];
        uint32_t found[64], where[64];
        for (int32_t k = 0; k < 64; k++) {
            where[k] = (uint32_t)((first + k) << 16 | (rand() & 0xffff));
        }
        for (int32_t c = 0; c < 4; c++) {
            position[c] = load(where + 16 * c);
        }
        tanh_entries(entry, position);
        for (int32_t c = 0; c < 4; c++) {
            store(found + 16 * c, entry[c]);
        }
        for (int32_t k = 0; k < 64; k++) {
            if (found[k] != gle_tanh_table[first + k]) {
                printf("entry %d: %08x, not %08x\n", first + k, found[k], gle_tanh_table[first + k]);
                return 1;
            }
        }
    }
    return 0;
}

/* What rates_of makes of the same row in either way. */
AVX512 static int row_differs(void)
{
    static states one, other;
    static strip s;
    const int32_t u_frac = 6 + rand() % 17;
    const int32_t r_frac = -2 + rand() % ((u_frac < 15 ? u_frac : 15) + 3);
    gle_image_layer image = {.phi = GLE_TANH, .u_frac = u_frac, .r_frac = r_frac};
    gle_layer layer = {.image = &image, .n = 1};
    gle_neuron_job job = {.layer = &layer};
    gle_row row = {.gain = GLE_GAIN_ONE, .r_max = 1 + rand() % 8191};
    const int32_t gained = rand() % 2;
    const int32_t fine_extra = gained ? rand() % 5 : 0;
    const gle_phi_format format = gle_phi_format_of(u_frac, r_frac + fine_extra);
    const int32_t far = rand() % 2 ? GLE_STATE_MAX : 9 << u_frac;
    tally t = {0};

    if (gained) {
        row.gain = rand() % 8 ? rand() % (2 * GLE_GAIN_ONE) : 0;
        row.offset = rand() % 4 ? number(1 << u_frac) : 0;
        row.fine_extra = fine_extra;
        row.fine_max = rand() % (1 << 17);
    }
    row.hash_u = (uint32_t)number(INT32_MAX / 2) | 1u;
    row.hash_v = (uint32_t)number(INT32_MAX / 2) | 1u;
    row.hash_s = (uint32_t)number(INT32_MAX / 2) | 1u;
    for (int32_t k = 0; k < MOST; k++) {
        s.uhat[k] = rand() % 16 ? number(far) : (rand() % 3 - 1) * GLE_UHAT_MAX;
        one.u[k] = number(GLE_STATE_MAX);
        one.v[k] = number(GLE_STATE_MAX);
        one.e[k] = (int16_t)number(8191);
        one.r[k] = 0;
        one.dphi[k] = 0;
        one.hash[k] = (uint32_t)rand();
    }
    other = one;
    s.ahead = s.uhat;
    s.job = &job;
    s.row = &row;
    s.count = &t;
    s.columns = WIDE * (1 + rand() % 8);
    s.streams = s.columns - rand() % WIDE;
    for (s.by_bytes = 0; s.by_bytes < 2; s.by_bytes++) {
        states *const to = s.by_bytes ? &other : &one;
        layer.u = to->u;
        layer.v = to->v;
        layer.r = to->r;
        layer.e = to->e;
        layer.dphi = to->dphi;
        job.hash = to->hash;
        rates_of(&s, GLE_TANH, &format);
    }
    if (memcmp(&one, &other, sizeof one) != 0) {
        printf("u_frac %d, r_frac %d, r_max %d, %d columns, gain %d, offset %d\n", u_frac, r_frac,
               row.r_max, s.columns, row.gain, row.offset);
        return 1;
    }
    return 0;
}

int main(int count, char **argument)
{
    srand(count > 1 ? (unsigned)atoi(argument[1]) : 1u);
    if (!__builtin_cpu_supports("avx512vbmi") || !__builtin_cpu_supports("avx512vnni")) {
        puts("no AVX-512 VBMI");
        return 77;
    }
    for (int k = 0; k < ROUNDS; k++) {
        if (row_differs()) {
            return 1;
        }
    }
    return all_entries();
}
