/* The kernels of a batch by themselves: a layer of n neurons with m inputs, one kernel a call.
 * What a step does around them (packing, the copies that products read) is a part of each or
 * stands by itself, so that the parts of a training step's products can be added up.
 */
#include "chip.h"
#include "host/loop.h"

enum { FORWARD, BACK, OUTER, LEARN, COPY };

typedef struct {
    int32_t n, m, columns, streams, stride, stride_t;
    int16_t *w, *seen, *seen_t, *x, *e, *pairs, *turned;
    int32_t *out, *sums;
} bench_layer;

/* rounds calls of one kernel; 0: there is no such table. */
int32_t bench_kernel(const char *table, int32_t what, const bench_layer *b, int32_t rounds)
{
    const struct gle_kernels *k = gle_kernels_named(table);
    gle_image_layer image = {0};
    gle_layer y = {0};
    const gle_seeing how = {2, 0};
    gle_update update = {32764, 1 << 20, 1, {12345, 678}, {0, 0}, {0}};
    gle_learning job = {&update, b->x, b->turned, b->columns, b->streams, 2, 18, b->sums, 0};
    gle_update_count count = {0, 0, 0};

    if (k == NULL) {
        return 0;
    }
    image.w_shift = 2;
    y.image = &image;
    y.n = b->n;
    y.m = b->m;
    y.stride = b->stride;
    y.stride_t = b->stride_t;
    y.w = b->w;
    y.e = b->e;
    for (; rounds > 0; rounds--) {
        if (what == FORWARD) {
            k->pack_pairs(b->pairs, b->x, b->m, b->columns);
            if (GLE_READS_STORED(k, &y)) {
                k->stored->forward(b->out, &y, b->pairs, b->columns, b->streams, 12,
                                   GLE_ARRAY_MAX);
            } else {
                k->product(b->out, b->seen, b->stride, b->n, b->m, b->pairs, b->columns, 12, NULL,
                           0);
            }
        } else if (what == BACK) {
            k->pack_pairs(b->pairs, b->e, b->n, b->columns);
            if (GLE_READS_STORED(k, &y)) {
                k->stored->back(b->out, &y, 0, b->m, b->pairs, b->columns, b->streams, 12,
                                GLE_ARRAY_MAX);
            } else {
                k->product(b->out, b->seen_t, b->stride_t, b->m, b->n, b->pairs, b->columns, 12,
                           NULL, 0);
            }
        } else if (what == OUTER) {
            k->pack_turned(b->turned, b->x, b->m, b->stride, b->columns);
            k->outer(b->out, b->e, b->n, b->turned, b->stride, b->m, b->columns, 2);
        } else if (what == LEARN) {
            k->pack_turned(b->turned, b->x, b->m, b->stride, b->columns);
            if (k->learn == NULL || !k->learn(&y, &job, &count)) {
                k->outer(b->out, b->e, b->n, b->turned, b->stride, b->m, b->columns, 2);
                for (int32_t i = 0; i < b->n; i++) {
                    k->update(b->w + (size_t)i * (size_t)b->stride,
                              b->out + (size_t)i * (size_t)b->stride, b->m, &update, 18,
                              (uint32_t)i * (uint32_t)b->m, &count);
                }
            }
        } else if (!GLE_READS_STORED(k, &y)) {
            for (int32_t i = 0; i < b->n; i++) {
                k->see(b->seen + (size_t)i * (size_t)b->stride,
                       b->w + (size_t)i * (size_t)b->stride, b->stride, &how, NULL, b->sums);
            }
            k->transpose(b->seen_t, b->seen, b->n, b->m, b->stride, b->stride_t);
        }
    }
    return 1;
}
