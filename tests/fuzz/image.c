/* An image of any words: refused, or a chip that steps within its memory, whose snapshot is
 * a state that it can have.
 *
 *     u8 streams, u8 options, u8 flags of the steps, u8 seed of inputs and weights, the words
 *
 * Magic and size are set right, or nothing would ever be looked at. With kernels of this
 * machine (not -DGLE_SCALAR_ONLY) all of them must give the same bits.
 */
#include "fuzz.h"

#include "chip.h"

enum { STEPS = 5, WORDS = 6000, MOST_ARENA = 1 << 20 };

typedef struct {
    uint64_t digest;
    size_t bytes;
    unsigned char *snapshot;
} outcome;

static void fill(gle_chip *chip, uint64_t seed)
{
    for (int32_t l = 0; l < gle_layers(chip); l++) {
        gle_shape shape;
        HOLDS(gle_shape_of(chip, l, &shape) == GLE_OK);
        for (int32_t i = 0; i < shape.neurons; i++) {
            const int32_t b = (int32_t)fuzz_draw(&seed, UINT32_MAX);
            HOLDS(gle_bias_add(chip, l, i, 1, &b) == GLE_OK);
        }
        for (int32_t i = 0; i < shape.neurons * shape.inputs; i++) {
            const int16_t w = (int16_t)fuzz_draw(&seed, 65536);
            HOLDS(gle_weights_add(chip, l, i, 1, &w) == GLE_OK);
        }
    }
}

/* A snapshot with bytes changed, as a whole and in parts: both ways are refused or neither,
 * and what was taken is what comes back, or nothing has stayed of it. */
static void hostile(gle_chip *chip, const outcome *good, uint64_t seed)
{
    unsigned char *bytes = malloc(good->bytes), *back = malloc(good->bytes);
    gle_status whole, parts;

    memcpy(bytes, good->snapshot, good->bytes);
    for (uint32_t k = 1 + fuzz_draw(&seed, 3); k > 0; k--) {
        const size_t at = GLE_SNAPSHOT_HEAD +
                          fuzz_draw(&seed, (uint32_t)good->bytes - GLE_SNAPSHOT_HEAD);
        bytes[at] = (uint8_t)(fuzz_draw(&seed, 2) ? fuzz_draw(&seed, 256) : bytes[at] ^ 128u);
    }
    HOLDS(gle_snapshot_write(chip, good->snapshot, good->bytes) == GLE_OK);
    whole = gle_snapshot_write(chip, bytes, good->bytes);
    HOLDS(gle_snapshot_read(chip, back, good->bytes) == GLE_OK);
    HOLDS(memcmp(back, whole == GLE_OK ? bytes : good->snapshot, good->bytes) == 0);
    for (size_t at = 0, n; at < good->bytes; at += n) {
        n = 1 + fuzz_draw(&seed, 900);
        n = n < good->bytes - at ? n : good->bytes - at;
        HOLDS(gle_snapshot_put(chip, at, bytes + at, n) == GLE_OK);
    }
    parts = gle_snapshot_check(chip);
    HOLDS(whole == parts);
    for (int32_t k = 0; k < 8; k++) {
        (void)gle_flip(chip, (int32_t)fuzz_draw(&seed, 4), (int32_t)fuzz_draw(&seed, 8),
                       (int32_t)fuzz_draw(&seed, 20), (int32_t)fuzz_draw(&seed, 33));
    }
    HOLDS(gle_snapshot_check(chip) == GLE_OK);
    free(bytes);
    free(back);
}

static outcome run(const uint32_t *words, size_t count, int32_t batch, uint32_t options,
                   uint32_t flags, uint64_t seed, size_t need, const struct gle_kernels *kernels)
{
    const gle_image *image = (const gle_image *)(const void *)words;
    unsigned char *arena = aligned_alloc(GLE_ALIGN, need);
    gle_shape top;
    gle_chip *chip;
    int16_t *input, *target;
    outcome o;

    HOLDS(gle_open(arena, need - 1, words, count, batch, options, kernels, &chip) == GLE_NO_MEMORY);
    HOLDS(gle_open(arena, need, words, count, batch, options, kernels, &chip) == GLE_OK);
    o.bytes = gle_snapshot_bytes(chip);
    o.snapshot = malloc(o.bytes);
    HOLDS(gle_snapshot_read(chip, o.snapshot, o.bytes) == GLE_OK);
    HOLDS(gle_snapshot_write(chip, o.snapshot, o.bytes) == GLE_OK);
    fill(chip, seed + 1);
    HOLDS(gle_shape_of(chip, gle_layers(chip) - 1, &top) == GLE_OK);
    input = malloc((size_t)batch * (size_t)image->inputs * sizeof *input);
    target = malloc((size_t)batch * (size_t)top.neurons * sizeof *target);
    if ((options & GLE_WITH_GRADIENT) != 0) {
        HOLDS(gle_gradient_clear(chip, (int32_t)(seed % 32)) == GLE_OK);
    } else {
        flags &= ~GLE_ADD_GRADIENT;
    }
    for (int t = 0; t < STEPS; t++) {
        for (int32_t k = 0; k < batch * image->inputs; k++) {
            input[k] = (int16_t)fuzz_draw(&seed, 65536);
        }
        for (int32_t k = 0; k < batch * top.neurons; k++) {
            target[k] = image->loss == GLE_MSE
                            ? (int16_t)fuzz_draw(&seed, 65536)
                            : (int16_t)((int32_t)fuzz_draw(&seed, (uint32_t)top.neurons + 3) - 2);
        }
        HOLDS(gle_step(chip, input, t == 3 ? NULL : target, flags) == GLE_OK);
        HOLDS(gle_snapshot_check(chip) == GLE_OK);
    }
    HOLDS(gle_snapshot_read(chip, o.snapshot, o.bytes) == GLE_OK);
    o.digest = gle_digest(chip);
    gle_reset(chip, 3);
    HOLDS(gle_snapshot_write(chip, o.snapshot, o.bytes) == GLE_OK);
    HOLDS(gle_digest(chip) == o.digest);
    hostile(chip, &o, seed);
    HOLDS(gle_step(chip, input, target, flags) == GLE_OK);
    HOLDS(gle_snapshot_check(chip) == GLE_OK);
    free(input);
    free(target);
    free(arena);
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct gle_kernels *const kernels[] = {
        &gle_kernels_scalar,
#if !defined(GLE_SCALAR_ONLY) && defined(__x86_64__)
        &gle_kernels_avx2,
#endif
    };
    const size_t count = size < 4 ? 0 : (size - 4) / 4;
    uint32_t *words;
    size_t need = 0;

    if (size < 8 || count > WORDS) {
        return 0;
    }
    words = malloc(count * 4);
    memcpy(words, data + 4, count * 4);
    words[0] = GLE_MAGIC;
    if (count > 1) {
        words[1] = (uint32_t)count;
    }
    {
        const int32_t batch = 1 + data[0] % 9;
        const uint32_t options = data[1] & (GLE_WITH_GRADIENT | GLE_WITH_UHAT);
        const uint32_t flags = data[2] & (GLE_LEARN | GLE_RANGE | GLE_ADD_GRADIENT);
        const gle_status status = gle_arena_bytes(words, count, batch, options, &need);
        HOLDS(status == GLE_OK || status == GLE_BAD_IMAGE);
        HOLDS(status == gle_image_check(words, count));
        if (status == GLE_OK && need <= MOST_ARENA) {
            const outcome first = run(words, count, batch, options, flags, data[3], need, kernels[0]);
            for (size_t k = 1; k < sizeof kernels / sizeof kernels[0]; k++) {
                const outcome o = run(words, count, batch, options, flags, data[3], need, kernels[k]);
                HOLDS(o.digest == first.digest && o.bytes == first.bytes);
                HOLDS(memcmp(o.snapshot, first.snapshot, o.bytes) == 0);
                free(o.snapshot);
            }
            free(first.snapshot);
        }
    }
    free(words);
    return 0;
}

/* Words, not bytes, are what an image is of: one of them changes by a little, a bit or all. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed)
{
    uint64_t state = seed * 0x9e3779b97f4a7c15ull + 7;

    if (size < 12 || fuzz_draw(&state, 5) == 0) {
        return LLVMFuzzerMutate(data, size, most);
    }
    for (uint32_t k = 1 + fuzz_draw(&state, 3); k > 0; k--) {
        /* The head and the first layer decide most. */
        const uint32_t count = (uint32_t)(size - 4) / 4;
        const uint32_t near = count < 64 ? count : 64;
        const size_t at = 4 + 4 * (size_t)fuzz_draw(&state, fuzz_draw(&state, 2) ? near : count);
        uint32_t x;
        memcpy(&x, data + at, 4);
        switch (fuzz_draw(&state, 6)) {
        case 0: x += fuzz_draw(&state, 9) - 4; break;
        case 1: x ^= 1u << fuzz_draw(&state, 32); break;
        case 2: x = fuzz_draw(&state, UINT32_MAX); break;
        case 3: x = fuzz_draw(&state, 2) ? UINT32_MAX : 0; break;
        case 4: x = (uint32_t)0 - x; break;
        default: x = fuzz_draw(&state, 40); break;
        }
        memcpy(data + at, &x, 4);
    }
    if (fuzz_draw(&state, 8) == 0) {
        data[fuzz_draw(&state, 4)] = (uint8_t)fuzz_draw(&state, 256);
    }
    return size;
}
