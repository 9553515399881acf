/* The complete state of a chip as bytes, and back: checkpoints and resuming rest on it.
 *
 * Written value by value without padding, streams apart, so that a snapshot means the
 * same on every body. One walk serves measuring, reading and writing.
 */
#include "chip.h"

enum { SNAPSHOT_MAGIC = 0x53454c47 }; /* "GLES" */

typedef struct {
    unsigned char *at;         /* NULL: only measure */
    const unsigned char *from; /* not NULL: restore */
    size_t used;
} walk;

static void bytes(walk *s, void *value, size_t size)
{
    unsigned char *v = value;

    for (size_t k = 0; k < size; k++) {
        if (s->from != NULL) {
            v[k] = s->from[s->used + k];
        } else if (s->at != NULL) {
            s->at[s->used + k] = v[k];
        }
    }
    s->used += size;
}

static void rows(walk *s, void *array, int32_t n, int32_t count, int32_t stride, size_t size)
{
    unsigned char *a = array;

    for (int32_t i = 0; i < n; i++) {
        bytes(s, a + (size_t)i * (size_t)stride * size, (size_t)count * size);
    }
}

static void walk_layer(walk *s, gle_layer *y, int32_t batch, int32_t columns, int32_t top)
{
    bytes(s, &y->w_frac, sizeof y->w_frac);
    bytes(s, &y->r_frac, sizeof y->r_frac);
    bytes(s, &y->e_frac, sizeof y->e_frac);
    bytes(s, &y->v_frac, sizeof y->v_frac);
    bytes(s, &y->rate_shift, sizeof y->rate_shift);
    bytes(s, &y->counters, sizeof y->counters);
    bytes(s, &y->window, sizeof y->window);
    rows(s, y->w, y->n, y->m, y->stride, sizeof *y->w);
    bytes(s, y->bias, (size_t)y->n * sizeof *y->bias);
    rows(s, y->u, y->n, batch, columns, sizeof *y->u);
    rows(s, y->v, y->n, batch, columns, sizeof *y->v);
    rows(s, y->r, y->n, batch, columns, sizeof *y->r);
    rows(s, y->e, y->n, batch, columns, sizeof *y->e);
    rows(s, y->dphi, y->n, batch, columns, sizeof *y->dphi);
    if (top) {
        rows(s, y->uhat, y->n, batch, columns, sizeof *y->uhat);
    }
}

static void walk_chip(walk *s, gle_chip *chip)
{
    bytes(s, &chip->step, sizeof chip->step);
    bytes(s, chip->digest, (size_t)chip->batch * sizeof *chip->digest);
    for (int32_t l = 0; l < chip->layers; l++) {
        walk_layer(s, &chip->layer[l], chip->batch, chip->columns, l + 1 == chip->layers);
    }
}

typedef struct {
    uint32_t magic, image_words, image_check, batch;
} head;

/* What a snapshot belongs to: shapes and constants, not only their number. */
static head head_of(const gle_chip *chip)
{
    const uint32_t *words = (const uint32_t *)(const void *)chip->image;
    head h = {SNAPSHOT_MAGIC, chip->image->words, 0, (uint32_t)chip->batch};
    uint64_t d = 0;

    for (uint32_t k = 0; k < h.image_words; k++) {
        d = gle_digest_mix(d, words[k]);
    }
    h.image_check = (uint32_t)d;
    return h;
}

size_t gle_snapshot_bytes(const gle_chip *chip)
{
    walk s = {NULL, NULL, sizeof(head)};

    walk_chip(&s, (gle_chip *)(uintptr_t)chip); /* only measures */
    return s.used;
}

gle_status gle_snapshot_read(const gle_chip *chip, unsigned char *to, size_t size)
{
    walk s = {to, NULL, 0};
    head h = head_of(chip);

    if (to == NULL || size != gle_snapshot_bytes(chip)) {
        return GLE_BAD_ARGUMENT;
    }
    bytes(&s, &h, sizeof h);
    walk_chip(&s, (gle_chip *)(uintptr_t)chip); /* only reads */
    return GLE_OK;
}

gle_status gle_snapshot_write(gle_chip *chip, const unsigned char *from, size_t size)
{
    walk s = {NULL, from, 0};
    const head own = head_of(chip);
    head h;

    if (from == NULL || size != gle_snapshot_bytes(chip)) {
        return GLE_BAD_ARGUMENT;
    }
    bytes(&s, &h, sizeof h);
    if (h.magic != own.magic || h.image_words != own.image_words ||
        h.image_check != own.image_check || h.batch != own.batch) {
        return GLE_BAD_IMAGE;
    }
    gle_reset(chip);
    walk_chip(&s, chip);
    for (int32_t l = 0; l < chip->layers; l++) {
        chip->layer[l].stale = 1;
    }
    return GLE_OK;
}
