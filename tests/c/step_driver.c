/* Drives the core under sanitizers: random chips on every kernel table, hostile images,
 * and the kernels themselves at the limits of what they are given.
 *
 *     step_driver parity|hostile|kernels SEED ROUNDS
 *
 * Prints what it did; exits 1 and says where at the first difference. Each arena is its
 * own allocation of exactly the size asked for, so that a step beyond it is seen.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chip.h"
#include "host/loop.h"
#include "image.h"
#include "sections.h"
#include "topology.h"

enum { MOST_WORDS = 1 << 17, MOST_LAYERS = 3 };

static uint64_t state;

static uint64_t draw(void)
{
    state += UINT64_C(0x9e3779b97f4a7c15);
    return gle_mix64(state);
}

/* least..most */
static int32_t between(int32_t least, int32_t most)
{
    return least + (int32_t)(draw() % ((uint64_t)((int64_t)most - least) + 1));
}

static void fail(const char *what, uint64_t seed, int32_t at)
{
    printf("%s: seed %llu, %d\n", what, (unsigned long long)seed, (int)at);
    exit(1);
}

/* The tables of this build and machine, the scalar one first. */
static const gle_kernels *tables(int which)
{
    static const char *const names[] = {"scalar", "avx2", "vnni", "amx", "neon"};
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        const gle_kernels *table = gle_kernels_named(names[k]);
        if (table != NULL && which-- == 0) {
            return table;
        }
    }
    return NULL;
}

static int tables_here(void)
{
    int count = 1;
    while (tables(count) != NULL) {
        count++;
    }
    return count;
}

static const gle_kernels *any_vector(void)
{
    const int count = tables_here();
    return tables(count > 1 ? between(1, count - 1) : 0);
}

/* --- images --- */

static uint32_t coef(int32_t at_most_one, int32_t zero)
{
    const int32_t k = between(1, 31);
    const int32_t most = at_most_one && k < 15 ? 1 << k : 0x7fff;
    const int32_t m = between(0, 3) == 0 ? most : between(zero ? 0 : 1, most);
    return (uint32_t)m << 8 | (uint32_t)k;
}

static uint32_t noise(void)
{
    return between(0, 2) == 0 ? (uint32_t)between(0, 0x7fff) << 8 | (uint32_t)between(3, 39) : 0u;
}

static int32_t often(int32_t usual, int32_t least, int32_t most)
{
    return between(0, 2) == 0 ? between(least, most) : usual;
}

static void draw_layer(gle_image_layer *y, int32_t size, int32_t seen)
{
    memset(y, 0, sizeof *y);
    y->size = size;
    y->phi = between(0, GLE_PHI_COUNT - 1);
    y->learn = between(0, 4) != 0;
    y->w_shift = between(0, 2) * 2;
    y->w_frac = seen + y->w_shift;
    y->w_max = between(0, 1) ? 8191 << y->w_shift : between(1, 8191 << y->w_shift);
    if (y->w_max > 32764) {
        y->w_max = 32764;
    }
    y->u_frac = between(6, 22);
    y->u_max = between(0, 1) ? GLE_STATE_MAX : between(1, GLE_STATE_MAX);
    y->r_frac = often(y->u_frac < 13 ? y->u_frac : 13, y->u_frac - 30, 15);
    y->r_max = between(0, 1) ? 8191 : between(1, 8191);
    y->e_frac = often(10, -12, 24);
    y->e_max = between(0, 1) ? 8191 : between(1, 8191);
    y->v_frac_extra = between(0, 14);
    y->rate_shift = often(between(0, 30), -32, 64);
    y->w_left = between(0, 2) == 0 ? between(0, 12) : 0;
    y->noise_e = noise();
    y->noise_r = noise();
    y->adc_drop = between(0, 13);
    y->adc_max = between(1, 8191 >> (y->adc_drop > 2 ? y->adc_drop - 2 : 0));
}

static uint32_t halves(int32_t low, int32_t high)
{
    return ((uint32_t)low & 0xffffu) | (uint32_t)high << 16;
}

/* What the image says it has. */
static uint32_t *draw_sections(uint32_t *at, const gle_image *image, const gle_image_layer *layers)
{
    const uint32_t *const words = (const uint32_t *)(const void *)image;
    const int wired = (image->sections & GLE_HAS_SOURCES) != 0;
    int32_t total = 0;

    for (int32_t l = 0; l < image->layers; l++) {
        total += layers[l].size;
    }
    for (int32_t l = 0; l < image->layers && wired; l++, at += GLE_SOURCE_WORDS) {
        const uint32_t may = (uint32_t)(((uint64_t)1 << (l + 2)) - 1);
        at[0] = ((uint32_t)draw() & may) | 1u << (l == 0 ? 0 : between(0, 1) ? l : 0);
        at[1] = at[2] = 0;
    }
    if (image->sections & GLE_HAS_FEEDBACK) {
        *at++ = (uint32_t)between(GLE_ALIGNMENT, GLE_DIRECT);
        at[0] = at[-1] == GLE_KOLEN_POLLACK ? (uint32_t)between(0, 2) : 0;
        at[1] = (uint32_t)between(1, 30);
        at += 2;
    }
    for (int32_t i = 0; i < total && (image->sections & GLE_HAS_ROWS); i++) {
        *at++ = (uint32_t)between(0, 7);
    }
    for (int32_t i = 0; i < total && (image->sections & GLE_HAS_ANALOG); i++) {
        *at++ = (uint32_t)often(between(-1000, 1000), -GLE_STATE_MAX, GLE_STATE_MAX);
        *at++ = between(0, 7) == 0 ? 0u : (uint32_t)often(8192, 0, 16383); /* 0: dead */
        *at++ = noise();
        *at++ = halves(often(8192, 0, 32767), often(0, -32768, 32767));
    }
    for (int32_t j = 0; j < image->inputs && (image->sections & GLE_HAS_INPUTS); j++) {
        *at++ = halves(often(8192, 0, 32767), often(0, -32768, 32767));
    }
    for (int32_t l = 0; l < image->layers && (image->sections & GLE_HAS_GAINS); l++) {
        const int32_t pairs = (gle_image_fan_in(words, l) + 1) / 2;
        const int32_t least = layers[l].masked ? 0 : -16383; /* what is absent is not stuck */
        for (int32_t k = 0; k < layers[l].size * pairs; k++) {
            *at++ = halves(often(8192, least, 32767), often(8000, least, 32767));
        }
    }
    for (int32_t l = 0; l < image->layers; l++) {
        const int32_t words_a_row = (gle_image_fan_in(words, l) + 31) / 32;
        for (int32_t k = 0; layers[l].masked && k < layers[l].size * words_a_row; k++) {
            *at++ = (uint32_t)draw() | (uint32_t)draw();
        }
    }
    return at;
}

/* One that gle_image_check takes; sizes from `least` to `most`. */
static size_t draw_image(uint32_t *words, int32_t least, int32_t most)
{
    for (;;) {
        gle_image *image = (gle_image *)(void *)words;
        gle_image_layer *layers = (gle_image_layer *)(void *)(words + sizeof *image / 4);
        uint32_t *at;

        memset(image, 0, sizeof *image);
        image->magic = GLE_MAGIC;
        image->layers = between(1, MOST_LAYERS);
        image->inputs = between(least, most);
        image->loss = between(0, 1);
        image->beta = coef(0, 0);
        image->gamma = between(0, 1) ? 15u : coef(0, 1);
        image->input_frac = often(8, -16, 24);
        image->input_max = between(0, 1) ? 8191 : between(1, 8191);
        image->target_frac = often(10, -16, 24);
        image->range_every = between(0, 5);
        image->stochastic = between(0, 1);
        image->seed_low = (uint32_t)draw();
        image->seed_high = (uint32_t)draw();
        image->range_clip = between(0, 1 << 16);
        image->sections = between(0, 2) == 0 ? 0u : (uint32_t)between(0, 127);
        image->input_left = often(0, 0, 13);
        image->input_max = image->input_max >> image->input_left;
        image->drift_every = often(0, 0, 3);
        image->drift_shift = between(1, 30);
        image->update_max = often(65535, 1, 65535);
        image->update_noise = noise();
        at = (uint32_t *)(void *)(layers + image->layers);
        for (int32_t l = 0; l < image->layers; l++) {
            draw_layer(&layers[l], between(least, most), often(10, -14, 24));
            layers[l].masked = (image->sections & GLE_HAS_MASKS) && (l == 0 || between(0, 1));
            for (int32_t i = 0; i < layers[l].size; i++) {
                *at++ = coef(1, 0);
                *at++ = coef(0, 1);
                *at++ = coef(1, 0);
                *at++ = coef(0, 1);
            }
        }
        at = draw_sections(at, image, layers);
        image->words = (uint32_t)(at - words);
        if (gle_image_check(words, image->words) == GLE_OK) {
            return image->words;
        }
    }
}

/* --- chips --- */

static gle_chip *opened(const uint32_t *words, size_t count, int32_t batch, uint32_t options,
                        const gle_kernels *kernels, void **arena)
{
    gle_chip *chip = NULL;
    size_t bytes = 0;

    if (gle_arena_bytes(words, count, batch, options, &bytes) != GLE_OK) {
        fail("arena", state, batch);
    }
    *arena = aligned_alloc(64, bytes);
    if (*arena == NULL ||
        gle_open(*arena, bytes, words, count, batch, options, kernels, &chip) != GLE_OK) {
        fail("open", state, batch);
    }
    if (gle_open(*arena, bytes - 1, words, count, batch, options, kernels, &chip) !=
        GLE_NO_MEMORY) {
        fail("an arena that is too small", state, batch);
    }
    return chip;
}

static void draw16(int16_t *to, size_t count, int32_t limit)
{
    const int32_t kind = between(0, 2);
    for (size_t k = 0; k < count; k++) {
        to[k] = (int16_t)(kind == 0 ? limit : kind == 1 ? between(-limit - 1, limit)
                                                        : (draw() & 1 ? limit : -limit - 1));
    }
}

static void write_weights(gle_chip *chip)
{
    for (int32_t l = 0; l < gle_layers(chip); l++) {
        const gle_layer *y = &chip->layer[l];
        const int32_t size = gle_weight_count(y);
        int16_t *w = malloc((size_t)size * sizeof *w);
        int32_t *b = malloc((size_t)y->n * sizeof *b);
        draw16(w, (size_t)size, between(0, 1) ? 32767 : 100);
        for (int32_t i = 0; i < y->n; i++) {
            b[i] = (int32_t)draw() >> between(0, 20);
        }
        if (gle_weights_write(chip, l, 0, size, w) != GLE_OK ||
            gle_bias_write(chip, l, 0, y->n, b) != GLE_OK ||
            gle_weights_write(chip, l, 1, size, w) != GLE_BAD_ARGUMENT ||
            gle_bias_write(chip, l, -1, 1, b) != GLE_BAD_ARGUMENT) {
            fail("weights", state, l);
        }
        free(w);
        free(b);
    }
}

static void draw_step(const gle_chip *chip, int16_t **x, int16_t **target)
{
    const gle_image *image = chip->image;
    const int32_t outputs = chip->layer[chip->layers - 1].n;
    const int32_t ce = image->loss == GLE_CROSS_ENTROPY;
    const size_t inputs = (size_t)chip->batch * (size_t)image->inputs;
    const size_t wanted = (size_t)chip->batch * (ce ? 1u : (size_t)outputs);

    *x = malloc(inputs * sizeof **x);
    draw16(*x, inputs, 32767);
    *target = NULL;
    if (between(0, 7) != 0) {
        *target = malloc(wanted * sizeof **target);
        if (ce) {
            for (size_t k = 0; k < wanted; k++) {
                (*target)[k] = (int16_t)between(-1, outputs - 1);
            }
        } else {
            draw16(*target, wanted, 32767);
        }
    }
}

static void read_all(const gle_chip *chip)
{
    for (int32_t l = 0; l < chip->layers; l++) {
        const gle_layer *y = &chip->layer[l];
        const size_t cells = (size_t)y->n * (size_t)chip->batch;
        const size_t weights = (size_t)y->n * (size_t)y->m;
        int32_t *to = malloc((cells > weights ? cells : weights) * sizeof *to);
        int32_t *bias = malloc((size_t)y->n * sizeof *bias);
        for (int32_t signal = 0; signal < GLE_SIGNAL_COUNT; signal++) {
            if (gle_read(chip, l, signal, to) != GLE_OK) {
                fail("read", state, signal);
            }
        }
        if (gle_gradient(chip, l, to, bias) != GLE_OK) {
            fail("gradient", state, l);
        }
        free(to);
        free(bias);
    }
}

static int same(const gle_chip *a, const gle_chip *b)
{
    const size_t size = gle_snapshot_bytes(a);
    unsigned char *one = malloc(size), *other = malloc(size);
    int equal;

    equal = size == gle_snapshot_bytes(b) && gle_snapshot_read(a, one, size) == GLE_OK &&
            gle_snapshot_read(b, other, size) == GLE_OK && memcmp(one, other, size) == 0 &&
            gle_digest(a) == gle_digest(b);
    free(one);
    free(other);
    return equal;
}

/* Continue `from` in a fresh chip of another table. */
static gle_chip *moved(const gle_chip *from, const uint32_t *words, size_t count,
                       const gle_kernels *kernels, void **arena)
{
    const size_t size = gle_snapshot_bytes(from);
    unsigned char *bytes = malloc(size);
    gle_chip *to = opened(words, count, from->batch, from->options, kernels, arena);

    if (gle_snapshot_read(from, bytes, size) != GLE_OK ||
        gle_snapshot_write(to, bytes, size) != GLE_OK || !same(from, to)) {
        fail("snapshot", state, from->batch);
    }
    if (gle_snapshot_write(to, bytes, size - 1) == GLE_OK) {
        fail("a snapshot that is too short", state, from->batch);
    }
    bytes[0] ^= 1;
    if (gle_snapshot_write(to, bytes, size) == GLE_OK) {
        fail("a snapshot of something else", state, from->batch);
    }
    free(bytes);
    return to;
}

static void parity(uint64_t seed)
{
    static const int32_t batches[] = {1, 2, 7, 8, 9, 31, 32, 33, 70};
    static uint32_t words[MOST_WORDS];
    const int32_t wide = between(0, 3) == 0; /* enough for tiles: the last table has the most */
    const int32_t batch = wide ? between(60, 100) : batches[between(0, 8)];
    const size_t count = draw_image(words, wide ? 120 : 1, wide ? 150 : batch > 40 ? 20 : 70);
    const uint32_t options = GLE_WITH_GRADIENT | GLE_WITH_UHAT;
    const gle_kernels *other = wide ? tables(tables_here() - 1) : any_vector();
    void *arena_a, *arena_b;
    gle_chip *a = opened(words, count, batch, options, tables(0), &arena_a), *b;

    write_weights(a);
    b = moved(a, words, count, other, &arena_b);
    for (int32_t t = 0; t < (wide ? 5 : 20); t++) {
        const uint32_t flags = (uint32_t)between(0, 7);
        int16_t *x, *target;
        draw_step(a, &x, &target);
        if (gle_step(a, x, target, flags) != GLE_OK || gle_step(b, x, target, flags) != GLE_OK) {
            fail("step", seed, t);
        }
        free(x);
        free(target);
        if (!same(a, b)) {
            fail("tables differ", seed, t);
        }
        if (t == (wide ? 2 : 10)) {
            void *arena = arena_b;
            b = moved(a, words, count, other, &arena_b);
            free(arena);
        }
    }
    read_all(a);
    gle_reset(a, 0);
    free(arena_a);
    free(arena_b);
}

/* --- images that lie --- */

static int runs(const uint32_t *words, size_t count, int32_t batch)
{
    uint32_t options = GLE_WITH_GRADIENT | GLE_WITH_UHAT;
    const gle_kernels *kernels = (draw() & 1) ? any_vector() : tables(0);
    size_t bytes = 0;
    gle_chip *chip;
    void *arena;

    if (gle_image_check(words, count) != GLE_OK) {
        if (gle_arena_bytes(words, count, batch, options, &bytes) != GLE_BAD_IMAGE) {
            fail("an image that was refused has an arena", state, batch);
        }
        return 0;
    }
    chip = opened(words, count, batch, options, kernels, &arena);
    write_weights(chip);
    for (int32_t t = 0; t < 20; t++) {
        int16_t *x, *target;
        draw_step(chip, &x, &target);
        if (gle_step(chip, x, target, 7u) != GLE_OK) {
            fail("step", state, t);
        }
        free(x);
        free(target);
    }
    read_all(chip);
    free(arena);
    return 1;
}

static void hostile(uint64_t seed)
{
    static uint32_t words[MOST_WORDS];
    static const uint32_t values[] = {0,          1,    2,    0xffffffffu, 0x80000000u, 0x7fffffffu,
                                      0x7fffff1fu, 255, 4096, 4097,        32767,       32768,
                                      31,         24,   22,   15,          14,          64,
                                      0xffffffe0u, 0xfffffff0u, 0xfffffff4u, 0xffffffe8u};
    const size_t count = draw_image(words, 1, 5);
    const int32_t known = (int32_t)(sizeof values / sizeof values[0]);
    uint32_t *copy = malloc(count * sizeof *copy); /* exactly as long as it says */
    int32_t accepted = 0, refused = 0;

    (void)seed;
    for (size_t at = 0; at < count; at++) {
        for (int32_t k = 0; k < known + 3; k++) {
            memcpy(copy, words, count * sizeof *copy);
            copy[at] = k < known ? values[k]
                                 : k == known     ? words[at] + 1u
                                 : k == known + 1 ? words[at] - 1u
                                                  : (uint32_t)draw();
            if (runs(copy, count, (draw() & 1) ? 1 : 9)) {
                accepted++;
            } else {
                refused++;
            }
        }
    }
    /* several at once, header and layers only: what is only wrong together */
    for (int32_t k = 0; k < 2000; k++) {
        const int32_t head = (int32_t)count < 64 ? (int32_t)count : 64;
        memcpy(copy, words, count * sizeof *copy);
        for (int32_t c = between(2, 6); c > 0; c--) {
            copy[between(2, head - 1)] = (draw() & 1) ? values[between(0, known - 1)]
                                                      : (uint32_t)between(-40, 40);
        }
        if (runs(copy, count, (draw() & 1) ? 1 : 9)) {
            accepted++;
        } else {
            refused++;
        }
    }
    for (size_t less = 0; less < count; less++) {
        if (gle_image_check(copy, less) == GLE_OK) {
            fail("an image cut short", seed, (int32_t)less);
        }
    }
    free(copy);
    printf("%d accepted, %d refused\n", (int)accepted, (int)refused);
}

/* --- kernels --- */

static int16_t factor(int32_t kind)
{
    switch (kind) {
    case 0:
        return 8191;
    case 1:
        return -8191;
    case 2:
        return (int16_t)((draw() & 1) ? 8191 : -8191);
    case 3:
        return (int16_t)between(-3, 3);
    default:
        return (int16_t)between(-8191, 8191);
    }
}

static void *filled(size_t count, int32_t kind)
{
    int16_t *x = malloc(count * sizeof *x);
    for (size_t k = 0; k < count; k++) {
        x[k] = factor(kind);
    }
    return x;
}

static int32_t up(int32_t n, int32_t to) { return (n + to - 1) / to * to; }

/* What packed factors are padded to, see pack_pairs; no more, so that what is beyond is seen. */
static int32_t deep(int32_t products) { return products >= GLE_DEEP_LEAST ? GLE_DEEP : 2; }

/* Every table and the definition: exact sum, one rounding, one clip. */
static void check_product(uint64_t seed)
{
    enum { MOST_ROWS = 40 };
    const int32_t columns = GLE_LANES * between(1, 5), shift = between(-14, 31);
    const int32_t kind = between(0, 9), n = between(1, kind > 7 ? MOST_ROWS : 9);
    const int32_t m = kind == 0  ? between(2000, 4096)
                      : kind < 4 ? between(28, 37)
                      : kind > 6 ? between(GLE_DEEP_LEAST - 1, 5 * GLE_DEEP)
                                 : between(1, 100);
    const int32_t stride = up(m, GLE_LANES), packed = up(m, deep(m));
    int16_t *w = filled((size_t)n * (size_t)stride, between(0, 4));
    int16_t *x = filled((size_t)m * (size_t)columns, between(0, 4));
    const size_t cells = (size_t)n * (size_t)columns;
    int64_t most = 0;
    uint32_t finer[MOST_ROWS];
    const uint32_t *rows = between(0, 1) && shift <= 24 ? finer : NULL;
    const int32_t drops = shift + (rows ? GLE_ROWS_MOST : 0);
    const int64_t half = drops > 0 ? INT64_C(1) << (drops - 1) : 0;

    for (int32_t i = 0; i < MOST_ROWS; i++) {
        finer[i] = (uint32_t)between(0, 7);
    }
    for (int which = 0; tables(which) != NULL; which++) {
        const gle_kernels *k = tables(which);
        int16_t *pairs = malloc((size_t)packed * (size_t)columns * sizeof *pairs);
        int32_t *out = malloc(cells * sizeof *out);
        for (int32_t fits = 0; fits < 2; fits++) {
            if (fits && most + half > INT32_MAX) {
                continue;
            }
            k->pack_pairs(pairs, x, m, columns);
            k->product(out, w, stride, n, m, pairs, columns, shift, rows, fits);
            for (int32_t i = 0; i < n; i++) {
                const int32_t by = shift + (rows ? (int32_t)rows[i] : 0);
                int64_t size = 0;
                for (int32_t b = 0; b < columns; b++) {
                    int64_t sum = 0;
                    size = 0;
                    for (int32_t j = 0; j < m; j++) {
                        const int64_t one = w[i * stride + j];
                        sum += one * x[j * columns + b];
                        size += one < 0 ? -one : one;
                    }
                    sum = by > 0 ? (sum + ((int64_t)1 << (by - 1))) >> by
                                 : sum * ((int64_t)1 << -by);
                    sum = sum > GLE_SUM_MAX ? GLE_SUM_MAX : sum < -GLE_SUM_MAX ? -GLE_SUM_MAX : sum;
                    if (out[i * columns + b] != sum) {
                        fail(k->name, seed, shift);
                    }
                }
                most = size * 8191 > most ? size * 8191 : most;
            }
        }
        free(pairs);
        free(out);
    }
    free(w);
    free(x);
}

static void check_outer(uint64_t seed)
{
    const int32_t kind = between(0, 9), wide = between(0, 2) == 0;
    const int32_t rows = between(1, wide ? 20 : 4);
    const int32_t m = wide ? between(GLE_DEEP_LEAST - 1, 200) : between(1, 70);
    const int32_t batch = kind == 0  ? between(1000, 4096)
                          : kind < 4 ? between(28, 37)
                                     : between(2, 130);
    const int32_t columns = up(batch, GLE_LANES), stride = up(m, GLE_LANES);
    const int32_t shift = gle_gradient_shift(batch);
    int16_t *e = filled((size_t)rows * (size_t)columns, between(0, 4));
    int16_t *x = filled((size_t)m * (size_t)columns, between(0, 4));

    for (int32_t i = 0; i < rows; i++) {
        for (int32_t b = batch; b < columns; b++) {
            e[i * columns + b] = 0; /* columns beyond the batch have none */
        }
    }
    for (int which = 0; tables(which) != NULL; which++) {
        const gle_kernels *k = tables(which);
        int16_t *turned = malloc((size_t)up(columns, deep(m)) * (size_t)stride * sizeof *turned);
        int32_t *out = malloc((size_t)rows * (size_t)stride * sizeof *out);
        k->pack_turned(turned, x, m, stride, columns);
        k->outer(out, e, rows, turned, stride, m, columns, shift);
        for (int32_t i = 0; i < rows; i++) {
            for (int32_t j = 0; j < m; j++) {
                int64_t sum = 0;
                for (int32_t b = 0; b < columns; b++) {
                    sum += (int64_t)e[i * columns + b] * x[j * columns + b];
                }
                sum = shift > 0 ? (sum + ((int64_t)1 << (shift - 1))) >> shift : sum;
                if (out[i * stride + j] != sum) {
                    fail(k->name, seed, batch);
                }
            }
        }
        free(turned);
        free(out);
    }
    free(e);
    free(x);
}

/* Rows for one stream: whole vectors, and zeros behind what there is. */
static int16_t *padded_row(int16_t *row, int32_t m, int32_t stride, int32_t kind, int32_t times)
{
    for (int32_t j = 0; j < stride; j++) {
        row[j] = (int16_t)(j < m ? factor(kind) * times : 0);
    }
    return row;
}

static int64_t summed(int64_t sum, int32_t by)
{
    sum = by > 0 ? (sum + ((int64_t)1 << (by - 1))) >> by : sum * ((int64_t)1 << -by);
    return sum > GLE_SUM_MAX ? GLE_SUM_MAX : sum < -GLE_SUM_MAX ? -GLE_SUM_MAX : sum;
}

/* Products for one stream, of a layer with nothing but what they read. */
static void check_product_one(uint64_t seed)
{
    const int32_t kind = between(0, 9);
    const int32_t m = kind == 0 ? between(2000, 4096) : kind < 4 ? between(250, 260) : between(1, 100);
    const int32_t n = kind == 1 ? between(60, 70) : between(1, 9), stride = up(m, GLE_PAD_ONE);
    const int32_t shift = between(-14, 31), w_shift = between(0, 1) ? 0 : between(1, 2);
    int16_t *w = malloc((size_t)n * (size_t)stride * sizeof *w);
    int16_t *e = malloc((size_t)up(n, GLE_PAD_ONE) * sizeof *e);
    int16_t *x = malloc((size_t)stride * sizeof *x);
    uint32_t *finer = malloc((size_t)n * sizeof *finer);
    gle_image_layer image = {0};
    gle_layer layer = {0};

    for (int32_t i = 0; i < n; i++) {
        finer[i] = (uint32_t)between(0, 7);
        (void)padded_row(w + i * stride, m, stride, between(0, 4), 1 << w_shift);
    }
    image.w_shift = w_shift;
    layer.image = &image;
    layer.n = n;
    layer.m = m;
    layer.stride = stride;
    layer.w = layer.seen = w;
    layer.e = padded_row(e, n, up(n, GLE_PAD_ONE), between(0, 4), 1);
    layer.rows = between(0, 1) && shift <= 24 ? finer : NULL;
    (void)padded_row(x, m, stride, between(0, 4), 1);
    if (w_shift > 0) {
        w[0] = (int16_t)(w[0] - (w[0] > 0 ? 1 : 0)); /* halves, and what is just below */
    }
    for (int which = 0; tables(which) != NULL; which++) {
        const gle_kernels *k = tables(which);
        int32_t *out = malloc((size_t)n * sizeof *out), *back = malloc((size_t)m * sizeof *back);
        k->product_one(out, &layer, x, shift);
        k->product_one_back(back, &layer, shift);
        for (int32_t i = 0; i < n; i++) {
            int64_t sum = 0;
            for (int32_t j = 0; j < m; j++) {
                sum += (int64_t)gle_round(w[i * stride + j], w_shift) * x[j];
            }
            if (out[i] != summed(sum, shift + (layer.rows ? (int32_t)finer[i] : 0))) {
                fail(k->name, seed, shift);
            }
        }
        for (int32_t j = 0; j < m; j++) {
            int64_t sum = 0;
            for (int32_t i = 0; i < n; i++) {
                sum += (int64_t)gle_round(w[i * stride + j], w_shift) *
                       gle_round(e[i], layer.rows ? (int32_t)finer[i] : 0);
            }
            if (back[j] != summed(sum, shift)) {
                fail(k->name, seed, shift);
            }
        }
        free(out);
        free(back);
    }
    free(w);
    free(e);
    free(x);
    free(finer);
}

/* A row learns for one stream: every shift, from the scalar table and from all others. */
static void check_learn_one(uint64_t seed)
{
    const int32_t m = between(0, 3) == 0 ? between(4000, 4096) : between(1, 100);
    const int32_t stride = up(m, GLE_PAD_ONE), shift = between(-33, 80), e = factor(between(0, 4));
    const int32_t limit = between(0, 1) ? 32764 : between(1, 32764);
    const gle_update how = {limit, between(0, 1) ? 65535 : between(1, 65535), between(0, 1),
                            {(uint32_t)draw(), (uint32_t)draw()}, {0, 0}, {0, 0, 0, 0}};
    const uint32_t first = (uint32_t)draw();
    const size_t size = (size_t)stride * sizeof(int16_t);
    int16_t *from = malloc(size), *x = malloc(size), *wanted = malloc(size);
    gle_update_count count = {0, 0, 0};

    (void)padded_row(x, m, stride, between(0, 4), 1);
    for (int32_t j = 0; j < stride; j++) {
        from[j] = (int16_t)(j < m ? between(-limit, limit) : 0);
    }
    memcpy(wanted, from, size);
    tables(0)->learn_one(wanted, e, x, m, &how, shift, first, &count);
    for (int which = 1; tables(which) != NULL; which++) {
        int16_t *w = malloc(size);
        gle_update_count other = {0, 0, 0};
        memcpy(w, from, size);
        tables(which)->learn_one(w, e, x, m, &how, shift, first, &other);
        if (memcmp(w, wanted, size) != 0 || memcmp(&count, &other, sizeof count) != 0) {
            fail(tables(which)->name, seed, shift);
        }
        free(w);
    }
    free(from);
    free(x);
    free(wanted);
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: %s parity|hostile|kernels SEED ROUNDS\n", argv[0]);
        return 2;
    }
    const uint64_t first = strtoull(argv[2], NULL, 10);
    const int rounds = atoi(argv[3]);
    for (int k = 0; k < rounds; k++) {
        state = first + (uint64_t)k;
        if (strcmp(argv[1], "parity") == 0) {
            parity(first + (uint64_t)k);
        } else if (strcmp(argv[1], "hostile") == 0) {
            hostile(first + (uint64_t)k);
        } else {
            check_product(first + (uint64_t)k);
            check_outer(first + (uint64_t)k);
            check_product_one(first + (uint64_t)k);
            check_learn_one(first + (uint64_t)k);
        }
    }
    printf("%s: %d rounds of", argv[1], rounds);
    for (int k = 0; tables(k) != NULL; k++) {
        printf(" %s", tables(k)->name);
    }
    printf("\n");
    return 0;
}
