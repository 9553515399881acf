/* Plays runs of chips from a file on a kernel table and says what came out, so that another
 * machine can be compared with this one (tests/parity/test_neon.py writes the file).
 *
 *     table_replay TABLE FILE
 *
 * The file holds int32, case by case: words of the image, their count before them; batch, number
 * of the first stream, pieces; of each piece steps, flags and whether there is a target; weights
 * and biases layer by layer; inputs; targets. Of each piece it prints the digest and CRCs of the
 * snapshot, of all signals and counters, and of the gradient; at a case's end the digest of each
 * stream.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chip.h"
#include "host/loop.h"
#include "link/crc32.h"
#include "topology.h"

static const int32_t *at, *end;

static void fail(const char *what)
{
    printf("%s\n", what);
    exit(1);
}

static const int32_t *take(size_t count)
{
    const int32_t *from = at;

    if ((size_t)(end - at) < count) {
        fail("the file ends too soon");
    }
    at += count;
    return from;
}

static void *room(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 64) / 64 * 64);

    if (p == NULL) {
        fail("no memory");
    }
    return p;
}

static int16_t *take16(size_t count)
{
    const int32_t *from = take(count);
    int16_t *to = room(count * sizeof *to);

    for (size_t k = 0; k < count; k++) {
        to[k] = (int16_t)from[k];
    }
    return to;
}

static void expect(gle_status status, const char *what)
{
    if (status != GLE_OK) {
        fail(what);
    }
}

static uint32_t crc(uint32_t before, const void *from, size_t bytes)
{
    return crc32_update(before, from, bytes);
}

static void write_weights(gle_chip *chip)
{
    for (int32_t l = 0; l < chip->layers; l++) {
        const gle_layer *y = &chip->layer[l];
        const int32_t count = gle_weight_count(y);
        int16_t *w = take16((size_t)count);
        expect(gle_weights_write(chip, l, 0, count, w), "weights");
        expect(gle_bias_write(chip, l, 0, y->n, take((size_t)y->n)), "biases");
        free(w);
    }
}

static void say(const gle_chip *chip, int32_t number, int32_t piece)
{
    const size_t size = gle_snapshot_bytes(chip);
    unsigned char *snapshot = room(size);
    uint32_t signals = 0, gradient = 0;

    expect(gle_snapshot_read(chip, snapshot, size), "snapshot");
    for (int32_t l = 0; l < chip->layers; l++) {
        const gle_layer *y = &chip->layer[l];
        const size_t cells = (size_t)y->n * (size_t)chip->batch;
        const size_t weights = (size_t)y->n * (size_t)y->m, biases = (size_t)y->n;
        int32_t *to = room((cells > weights ? cells : weights) * sizeof *to);
        int32_t *bias = room(biases * sizeof *bias);
        gle_counters counters;
        for (int32_t s = 0; s < GLE_SIGNAL_COUNT; s++) {
            expect(gle_read(chip, l, s, to), "read");
            signals = crc(signals, to, cells * sizeof *to);
        }
        expect(gle_counters_of(chip, l, &counters), "counters");
        signals = crc(signals, &counters, sizeof counters);
        expect(gle_gradient(chip, l, to, bias), "gradient");
        gradient = crc(gradient, to, weights * sizeof *to);
        gradient = crc(gradient, bias, biases * sizeof *bias);
        free(to);
        free(bias);
    }
    printf("%d %d %016" PRIx64 " %08" PRIx32 " %08" PRIx32 " %08" PRIx32 "\n", (int)number,
           (int)piece, gle_digest(chip), crc(0, snapshot, size), signals, gradient);
    free(snapshot);
}

static void play(const gle_kernels *kernels, int32_t number)
{
    const size_t count = (size_t)*take(1);
    const uint32_t *words = (const uint32_t *)(const void *)take(count);
    const int32_t *head = take(3);
    const int32_t batch = head[0], pieces = head[2], *piece = take((size_t)pieces * 3);
    const uint32_t options = GLE_WITH_GRADIENT | GLE_WITH_UHAT;
    size_t bytes = 0, steps = 0;
    gle_chip *chip = NULL;
    void *arena;

    expect(gle_arena_bytes(words, count, batch, options, &bytes), "arena");
    arena = room(bytes);
    expect(gle_open(arena, bytes, words, count, batch, options, kernels, &chip), "open");
    write_weights(chip);
    gle_reset(chip, (uint32_t)head[1]);
    for (int32_t k = 0; k < pieces; k++) {
        steps += (size_t)piece[3 * k];
    }
    const gle_image *image = chip->image;
    const int held = image->loss == GLE_CROSS_ENTROPY;
    const size_t inputs = (size_t)batch * (size_t)image->inputs;
    const size_t targets =
        (size_t)batch * (held ? 1u : (size_t)chip->layer[chip->layers - 1].n);
    int16_t *const xs = take16(steps * inputs), *x = xs;
    int16_t *const ys = take16(targets * (held ? 1u : steps)), *y = ys;

    for (int32_t k = 0; k < pieces; k++) {
        for (int32_t t = 0; t < piece[3 * k]; t++, x += inputs, y += held ? 0 : targets) {
            expect(gle_step(chip, x, piece[3 * k + 2] ? y : NULL, (uint32_t)piece[3 * k + 1]),
                   "step");
        }
        say(chip, number, k);
    }
    printf("%d streams", (int)number);
    for (int32_t b = 0; b < batch; b++) {
        printf(" %016" PRIx64, gle_stream_digest(chip, b));
    }
    printf("\n");
    free(xs);
    free(ys);
    free(arena);
}

int main(int argc, char **argv)
{
    const gle_kernels *kernels = argc == 3 ? gle_kernels_named(argv[1]) : NULL;
    FILE *file = argc == 3 ? fopen(argv[2], "rb") : NULL;
    long size;
    int32_t *all;

    if (kernels == NULL || file == NULL || fseek(file, 0, SEEK_END) != 0 ||
        (size = ftell(file)) < 0 || fseek(file, 0, SEEK_SET) != 0) {
        fprintf(stderr, "usage: %s TABLE FILE; tables of this build: up to %s\n", argv[0],
                gle_kernels_name(gle_kernels_named(NULL)));
        return 2;
    }
    all = room((size_t)size);
    if (fread(all, 1, (size_t)size, file) != (size_t)size) {
        fail("the file cannot be read");
    }
    fclose(file);
    at = all;
    end = all + (size_t)size / sizeof *all;
    printf("table %s, fastest %s\n", gle_kernels_name(kernels),
           gle_kernels_name(gle_kernels_named(NULL)));
    for (int32_t number = 0; at != end; number++) {
        play(kernels, number);
    }
    free(all);
    return 0;
}
