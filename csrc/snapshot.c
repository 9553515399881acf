/* The complete state of a chip as bytes, and back: checkpoints and resuming rest on it.
 *
 * Written value by value without padding, little-endian, streams apart, so that a snapshot
 * means the same on every body. One walk over all pieces serves measuring, reading, writing and
 * checking; a range is read or written by skipping the pieces outside it whole.
 *
 * A snapshot comes from outside. What the core relies on (formats whose shifts the kernels
 * can do, values within their limits) is checked, either in the bytes or in a chip that
 * they were put into.
 *
 * Of a layer, what its rule remembers comes before its feedback.
 */
#include "image.h"
#include "learner.h"
#include "topology.h"

enum { SNAPSHOT_MAGIC = 0x53454c47 }; /* "GLES" */

enum walk_mode { MEASURE, READ, WRITE, CHECK };

typedef struct {
    enum walk_mode mode;
    unsigned char *to;         /* READ: of the range */
    const unsigned char *from; /* WRITE: of the range; CHECK: all of it, NULL: as in the chip */
    size_t used;               /* bytes of the pieces before this one */
    size_t first, end;         /* the range, of the whole snapshot */
    int bad;
} walk;

/* A snapshot is little-endian. On a machine that is not, byte k of numbers of `width` (1, 2, 4
 * or 8) bytes lies at k ^ flip(width). */
static size_t flip(size_t width)
{
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    (void)width;
    return 0;
#else
    const uint16_t one = 1;
    return *(const unsigned char *)&one == 1 ? 0 : width - 1;
#endif
}

/* The part of a piece of `size` bytes, numbers of `width`, that lies in the range. */
static void bytes(walk *s, void *value, size_t size, size_t width)
{
    unsigned char *v = value;
    const size_t at = s->used, turned = flip(width);
    size_t k = s->first > at ? s->first - at : 0;
    size_t end = s->end > at ? s->end - at : 0;

    s->used += size;
    if (s->mode != READ && s->mode != WRITE) {
        return;
    }
    end = end < size ? end : size;
    for (; k < end; k++) {
        if (s->mode == READ) {
            s->to[at + k - s->first] = v[k ^ turned];
        } else {
            v[k ^ turned] = s->from[at + k - s->first];
        }
    }
}

static void rows(walk *s, void *array, int32_t n, int32_t count, int32_t stride, size_t width)
{
    unsigned char *a = array;
    const size_t row = (size_t)count * width, all = (size_t)n * row;
    size_t i = 0;

    if (s->mode == MEASURE || s->end <= s->used || s->first >= s->used + all) {
        s->used += all;
        return;
    }
    if (s->first > s->used) {
        i = (s->first - s->used) / row;
        s->used += i * row;
    }
    for (; i < (size_t)n && s->used < s->end; i++) {
        bytes(s, a + i * (size_t)stride * width, row, width);
    }
    s->used += ((size_t)n - i) * row;
}

/* One number as the mode has it: from the bytes or from the chip. */
static uint32_t number(const walk *s, const void *value, size_t size)
{
    const unsigned char *v = s->from != NULL ? s->from + s->used : value;
    const size_t turned = s->from != NULL ? 0 : flip(size);
    uint32_t x = 0;

    for (size_t k = 0; k < size; k++) {
        x |= (uint32_t)v[k ^ turned] << 8 * k;
    }
    return x;
}

static int32_t format(walk *s, const int32_t *value)
{
    const uint32_t x = number(s, value, sizeof *value);

    s->used += sizeof *value;
    return (int32_t)x;
}

/* All numbers of rows within -limit .. limit, or 0 .. limit for dphi. */
static void within(walk *s, const void *array, int32_t n, int32_t count, int32_t stride,
                   size_t size, int32_t limit, int unsign)
{
    const unsigned char *a = array;

    for (int32_t i = 0; i < n; i++) {
        const unsigned char *row = a + (size_t)i * (size_t)stride * size;
        for (int32_t k = 0; k < count; k++) {
            const uint32_t x = number(s, row + (size_t)k * size, size);
            const int32_t y = size == 4 ? (int32_t)x : unsign ? (int32_t)x : (int16_t)x;
            s->bad |= y > limit || y < -limit;
            s->used += size;
        }
    }
}

static void piece(walk *s, void *array, int32_t n, int32_t count, int32_t stride, size_t size,
                  int32_t limit, int unsign)
{
    if (s->mode == CHECK) {
        within(s, array, n, count, stride, size, limit, unsign);
    } else {
        rows(s, array, n, count, stride, size);
    }
}

static int outside(int32_t x, int32_t least, int32_t most) { return x < least || x > most; }

/* The rules of gle_image_check for what moves; weights only ever get coarser. Those that
 * hold between layers are looked at when all are noted. */
static void check_formats(walk *s, gle_layer *y)
{
    const int32_t w = format(s, &y->w_frac), r = format(s, &y->r_frac);
    const int32_t e = format(s, &y->e_frac), v = format(s, &y->v_frac);
    const int32_t rate = format(s, &y->rate_shift);
    const gle_fracs as_in_image = {(int8_t)y->image->w_frac, (int8_t)y->image->r_frac,
                                   (int8_t)y->image->e_frac,
                                   (int8_t)(y->image->e_frac + y->image->v_frac_extra)};

    y->noted = as_in_image;
    if (outside(w, -64, y->image->w_frac) || outside(r, GLE_R_FRAC_LEAST, 15) ||
        outside(y->u_frac - r, 0, 30) || outside(e, -12, 24) ||
        outside(v, e + y->image->v_frac_extra, e + y->image->v_frac_extra) ||
        outside(rate, -32, 64)) {
        s->bad = 1;
        return;
    }
    y->noted.w = (int8_t)w;
    y->noted.r = (int8_t)r;
    y->noted.e = (int8_t)e;
    y->noted.v = (int8_t)v;
}

/* Of absent synapses there is nothing but 0. */
static void present(walk *s, const gle_layer *y, const void *array, size_t size)
{
    const unsigned char *a = array;
    const size_t start = s->used;

    for (int32_t i = 0; s->mode == CHECK && y->mask != NULL && i < y->n; i++) {
        for (int32_t j = 0; j < y->m; j++) {
            s->used = start + ((size_t)i * (size_t)y->m + (size_t)j) * size;
            s->bad |= !gle_synapse_there(gle_mask_row(y, i), j) &&
                      number(s, a + ((size_t)i * (size_t)y->stride + (size_t)j) * size, size) != 0;
        }
    }
    s->used = start;
}

/* Stored weights of a matrix. */
static void weights(walk *s, const gle_layer *y, int32_t limit)
{
    present(s, y, y->w, sizeof *y->w);
    piece(s, y->w, y->n, y->m, y->stride, sizeof *y->w, limit, 0);
}

/* Multipliers, which only an image's rules keep in bounds. */
static void times(walk *s, gle_neuron *array, int32_t n)
{
    for (int32_t i = 0; i < n && s->mode == CHECK; i++) {
        gle_neuron y;
        y.leak_u = (uint32_t)format(s, (const int32_t *)(const void *)&array[i].leak_u);
        y.ratio_u = (uint32_t)format(s, (const int32_t *)(const void *)&array[i].ratio_u);
        y.leak_v = (uint32_t)format(s, (const int32_t *)(const void *)&array[i].leak_v);
        y.ratio_v = (uint32_t)format(s, (const int32_t *)(const void *)&array[i].ratio_v);
        s->bad |= !gle_neuron_ok(&y);
    }
    if (s->mode != CHECK) {
        bytes(s, array, (size_t)n * sizeof *array, sizeof array->leak_u);
    }
}

static void walk_layer(walk *s, gle_layer *y, int32_t batch, int32_t columns, int32_t top)
{
    const gle_image_layer *const image = y->image;

    /* not what was looked at */
    bytes(s, &y->counters, offsetof(gle_counters, sat_read), sizeof y->counters.sat_read);
    bytes(s, &y->window, sizeof y->window, sizeof y->window.samples);
    weights(s, y, image->w_max);
    piece(s, y->bias, 1, y->n, y->n, sizeof *y->bias, GLE_STATE_MAX, 0);
    if (y->times != NULL) {
        times(s, y->times, y->n);
    }
    if (y->memory != NULL) {
        present(s, y, y->memory, sizeof *y->memory);
        piece(s, y->memory, y->n, y->m, y->stride, sizeof *y->memory, GLE_MEMORY_MAX, 0);
        piece(s, y->memory_bias, 1, y->n, y->n, sizeof *y->memory_bias, GLE_MEMORY_MAX, 0);
    }
    if (y->norm != NULL) { /* any byte will do */
        rows(s, y->norm, y->n, y->m, y->stride, sizeof *y->norm);
        rows(s, y->norm_bias, 1, y->n, y->n, sizeof *y->norm_bias);
    }
    if (y->back != NULL) {
        weights(s, y->back, image->w_max);
    }
    piece(s, y->u, y->n, batch, columns, sizeof *y->u, image->u_max, 0);
    piece(s, y->v, y->n, batch, columns, sizeof *y->v, GLE_STATE_MAX, 0);
    piece(s, y->r, y->n, batch, columns, sizeof *y->r, image->r_max, 0);
    piece(s, y->e, y->n, batch, columns, sizeof *y->e, image->e_max, 0);
    piece(s, y->dphi, y->n, batch, columns, sizeof *y->dphi, 32768, 1);
    if (top) {
        piece(s, y->uhat, y->n, batch, columns, sizeof *y->uhat, GLE_UHAT_MAX, 0);
    }
}

static void walk_chip(walk *s, gle_chip *chip)
{
    bytes(s, &chip->step, sizeof chip->step, sizeof chip->step);
    bytes(s, &chip->first, sizeof chip->first, sizeof chip->first);
    if (chip->learner.counts) {
        bytes(s, &chip->learned, sizeof chip->learned, sizeof chip->learned);
    }
    bytes(s, chip->digest, (size_t)chip->batch * sizeof *chip->digest, sizeof *chip->digest);
    for (int32_t l = 0; l < chip->layers; l++) {
        gle_layer *y = &chip->layer[l];
        if (s->mode == CHECK) {
            check_formats(s, y);
        } else {
            bytes(s, &y->w_frac, sizeof y->w_frac, sizeof y->w_frac);
            bytes(s, &y->r_frac, sizeof y->r_frac, sizeof y->r_frac);
            bytes(s, &y->e_frac, sizeof y->e_frac, sizeof y->e_frac);
            bytes(s, &y->v_frac, sizeof y->v_frac, sizeof y->v_frac);
            bytes(s, &y->rate_shift, sizeof y->rate_shift, sizeof y->rate_shift);
        }
        walk_layer(s, y, chip->batch, chip->columns, l + 1 == chip->layers);
    }
    s->bad |= s->mode == CHECK && !gle_shifts_possible(chip, 1);
    for (int32_t l = 0; l < chip->layers && s->mode == CHECK; l++) {
        chip->layer[l].noted = (gle_fracs){0}; /* a snapshot that is refused leaves no trace */
    }
}

typedef struct {
    uint32_t magic, image_words, image_check, batch;
} head;

_Static_assert(sizeof(head) == GLE_SNAPSHOT_HEAD, "the head as gle.h says");

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
    walk s = {MEASURE, NULL, NULL, sizeof(head), 0, 0, 0};

    walk_chip(&s, (gle_chip *)(uintptr_t)chip); /* only measures */
    return s.used;
}

static int range_bad(const gle_chip *chip, size_t offset, size_t n)
{
    const size_t size = gle_snapshot_bytes(chip);
    return offset > size || n > size - offset;
}

gle_status gle_snapshot_part(const gle_chip *chip, size_t offset, unsigned char *to, size_t n)
{
    walk s = {READ, to, NULL, 0, offset, offset + n, 0};

    if (to == NULL || range_bad(chip, offset, n)) {
        return GLE_BAD_ARGUMENT;
    }
    if (offset < sizeof(head)) {
        head h = head_of(chip);
        bytes(&s, &h, sizeof h, sizeof h.magic);
    }
    s.used = sizeof(head);
    walk_chip(&s, (gle_chip *)(uintptr_t)chip); /* only reads */
    return GLE_OK;
}

gle_status gle_snapshot_read(const gle_chip *chip, unsigned char *to, size_t size)
{
    return size == gle_snapshot_bytes(chip) ? gle_snapshot_part(chip, 0, to, size)
                                            : GLE_BAD_ARGUMENT;
}

gle_status gle_snapshot_put(gle_chip *chip, size_t offset, const unsigned char *from, size_t n)
{
    walk s = {WRITE, NULL, from, sizeof(head), offset, offset + n, 0};

    if (from == NULL || range_bad(chip, offset, n)) {
        return GLE_BAD_ARGUMENT;
    }
    if (offset < sizeof(head)) {
        const head own = head_of(chip);
        const unsigned char *h = (const unsigned char *)&own;
        for (size_t k = 0; k < n && offset + k < sizeof own; k++) {
            if (from[k] != h[(offset + k) ^ flip(sizeof own.magic)]) {
                return GLE_BAD_IMAGE;
            }
        }
    }
    if (offset + n <= sizeof(head)) {
        return GLE_OK;
    }
    if (offset <= sizeof(head)) {
        gle_reset(chip, 0); /* what no snapshot holds */
    }
    walk_chip(&s, chip);
    chip->digest_known = 0;
    for (int32_t l = 0; l < chip->layers; l++) {
        chip->layer[l].stale = 1;
        if (chip->layer[l].back != NULL) {
            chip->layer[l].back->stale = 1;
        }
    }
    return GLE_OK;
}

gle_status gle_snapshot_check(gle_chip *chip)
{
    walk s = {CHECK, NULL, NULL, sizeof(head), 0, 0, 0};

    walk_chip(&s, chip);
    if (s.bad) {
        gle_blank(chip);
        return GLE_BAD_IMAGE;
    }
    return GLE_OK;
}

gle_status gle_snapshot_write(gle_chip *chip, const unsigned char *from, size_t size)
{
    walk s = {CHECK, NULL, from, sizeof(head), 0, 0, 0};
    gle_status status;

    if (from == NULL || size != gle_snapshot_bytes(chip)) {
        return GLE_BAD_ARGUMENT;
    }
    status = gle_snapshot_put(chip, 0, from, sizeof(head));
    if (status != GLE_OK) {
        return status;
    }
    walk_chip(&s, chip); /* looks at the bytes only */
    return s.bad ? GLE_BAD_IMAGE : gle_snapshot_put(chip, 0, from, size);
}
