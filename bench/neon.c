/* Calls of one kernel on an emulated AArch64, for bench/neon.py to count their instructions.
 *
 *     neon TABLE KERNEL WIDTH ROUNDS
 *
 * KERNEL: one of `names` below. A layer as wide as its input, 100 streams or one.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.c"
#include "neurons.h"

enum { BATCH = 100, COLUMNS = 112, PADDED = 32, MOST = 1024 };

static const char *const names[] = {"forward", "transposed", "outer", "learn",     "copy",
                                    "one",     "one back",   "one learn", "neurons", "one neurons"};
enum { BATCHES = 5, ONE = BATCHES, ONE_BACK, ONE_LEARN, NEURONS, ONE_NEURONS, KINDS };

static void *filled(size_t count, size_t size, int32_t limit)
{
    static uint32_t index;
    const gle_key key = {1, 2};
    int16_t *x = aligned_alloc(64, (count * size + 127) / 64 * 64);

    if (x == NULL) {
        exit(1);
    }
    memset(x, 0, (count * size + 127) / 64 * 64);
    for (size_t k = 0; k < count && limit != 0; k++) {
        x[k] = (int16_t)((int32_t)(gle_rng(key, index++) % (uint32_t)(2 * limit + 1)) - limit);
    }
    return x;
}

/* Zeros behind the first `used` of each row. */
static int16_t *rows_of(int32_t rows, int32_t used, int32_t stride, int32_t limit)
{
    int16_t *x = filled((size_t)rows * (size_t)stride, sizeof *x, limit);

    for (int32_t i = 0; i < rows; i++) {
        memset(x + i * stride + used, 0, (size_t)(stride - used) * sizeof *x);
    }
    return x;
}

static void one(const gle_kernels *k, int32_t kind, gle_layer *y, const int16_t *x, int32_t *out)
{
    gle_update how = {32764, 65535, 1, {12345, 678}, {0, 0}, {0, 0, 0, 0}};
    const gle_learning job = {&how, x, NULL, 1, 1, 0, 18, out};
    gle_update_count count = {0, 0, 0};

    if (kind == ONE) {
        k->product_one(out, y, x, 12);
    } else if (kind == ONE_BACK) {
        k->product_one_back(out, y, 12);
    } else if (k->learn == NULL || !k->learn(y, &job, &count)) {
        for (int32_t i = 0; i < y->n; i++) {
            k->learn_one(y->w + i * y->stride, y->e[i], x, y->m, &how, 18,
                         (uint32_t)i * gle_rng_roots(y->m), &count);
        }
    }
}

int main(int argc, char **argv)
{
    const gle_kernels *k = argc == 5 ? gle_kernels_named(argv[1]) : NULL;
    const int32_t width = argc == 5 ? atoi(argv[3]) : 0, rounds = argc == 5 ? atoi(argv[4]) : 0;
    int32_t kind = 0;

    while (k != NULL && kind < KINDS && strcmp(names[kind], argv[2]) != 0) {
        kind++;
    }
    if (k == NULL || kind == KINDS || width < 1 || width > MOST || rounds < 0) {
        fprintf(stderr, "usage: %s TABLE KERNEL WIDTH ROUNDS\n", argv[0]);
        return 2;
    }
    const int32_t stride = (width + PADDED - 1) / PADDED * PADDED;
    const int32_t single = kind >= ONE && kind != NEURONS, batch = single ? 1 : BATCH;
    const int32_t columns = single ? 1 : COLUMNS;
    const size_t cells = (size_t)stride * (size_t)columns;
    const size_t weights = (size_t)stride * (size_t)stride;
    gle_image_layer image = {0};
    gle_layer y = {0};
    gle_neuron_job job = {0};

    image.phi = GLE_TANH;
    image.w_shift = 2;
    image.u_max = GLE_STATE_MAX;
    image.r_max = image.e_max = 8191;
    y.image = &image;
    y.n = y.m = width;
    y.stride = y.stride_t = stride;
    y.u_frac = y.r_frac = 13;
    y.e_frac = 10;
    y.v_frac = 18;
    y.w = rows_of(width, width, stride, 32764);
    y.seen = single ? y.w : rows_of(width, width, stride, 8191);
    y.seen_t = rows_of(width, width, stride, 8191);
    y.e = rows_of(width, batch, columns, 8191);
    y.r = filled(cells, sizeof *y.r, 0);
    y.dphi = filled(cells, sizeof *y.dphi, 0);
    y.u = filled(cells, sizeof *y.u, 0);
    y.v = filled(cells, sizeof *y.v, 0);
    y.bias = filled((size_t)stride, sizeof *y.bias, 0);
    gle_neuron *neurons = filled((size_t)width, sizeof *neurons, 0);
    for (int32_t i = 0; i < width; i++) {
        const gle_neuron some = {21845u << 8 | 16, 21845u << 8 | 15, 16384u << 8 | 14,
                                 24576u << 8 | 13};
        neurons[i] = some;
    }
    y.neurons = neurons;
    int16_t *x = single ? rows_of(1, width, stride, 8191) : rows_of(width, batch, columns, 8191);
    int32_t *out = filled(cells > weights ? cells : weights, sizeof *out, 0);
    int32_t *sums = filled(cells, sizeof *sums, 8191);
    job.layer = &y;
    job.sums = job.above = sums;
    job.hash = filled((size_t)COLUMNS, sizeof *job.hash, 0);
    job.batch = batch;
    job.columns = columns;

    if (kind < BATCHES) {
        const bench_layer b = {width, width, columns, stride, stride, y.w, y.seen, y.seen_t,
                               x, y.e, filled(cells, sizeof(int16_t), 0),
                               filled(cells, sizeof(int16_t), 0), out,
                               filled((size_t)stride * 4, sizeof(int32_t), 0)};
        bench_kernel(argv[1], kind, &b, rounds);
        return 0;
    }
    for (int32_t r = 0; r < rounds; r++) {
        if (kind >= NEURONS) {
            k->neurons(&job);
        } else {
            one(k, kind, &y, x, out);
        }
    }
    return 0;
}
