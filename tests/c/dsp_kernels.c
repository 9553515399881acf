/* The kernels for the DSP extension against plain C, on an emulated Cortex-M4 by itself.
 *
 * Layers of all kinds of sizes are filled with random numbers, ends of their ranges and zeros
 * included; products and updates must leave the same integers and the same counts. Ends the
 * emulator by semihosting: 0 when all is equal, else it says what differed.
 *
 * tests/firmware/test_dsp_kernels.py builds and runs it.
 */
#include "single.h"

enum { MOST_N = 300, MOST_M = 300, MOST = MOST_N * MOST_M };

static int16_t weights[MOST] __attribute__((aligned(8)));
static int16_t expected[MOST] __attribute__((aligned(8)));
static int16_t x[MOST_M + 8] __attribute__((aligned(8))), e[MOST_N + 8] __attribute__((aligned(8)));
static int32_t out[MOST_M], wanted[MOST_M], scratch[4 * (MOST_M + 8) + 1];
static uint32_t state = 1;

extern uint32_t stack_top[];
void start(void);
__attribute__((section(".vectors"), used)) static const void *const vectors[] = {
    stack_top, (const void *)start, (const void *)start, (const void *)start};

static void call(uint32_t what, const void *with)
{
    register uint32_t r0 __asm__("r0") = what;
    register const void *r1 __asm__("r1") = with;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

static void print(const char *text) { call(4, text); }

static void print_number(int32_t number)
{
    char text[14];
    char *at = text + sizeof text;
    uint32_t rest = number < 0 ? 0u - (uint32_t)number : (uint32_t)number;

    *--at = 0;
    *--at = ' ';
    do {
        *--at = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest != 0);
    if (number < 0) {
        *--at = '-';
    }
    print(at);
}

static void leave(int32_t code)
{
    const uint32_t with[2] = {0x20026, (uint32_t)code};
    call(0x20, with);
    for (;;) {
    }
}

static uint32_t any(void)
{
    state = state * 1664525u + 1013904223u;
    return state ^ state >> 15;
}

static int32_t below(int32_t end) { return (int32_t)(any() % (uint32_t)end); }

/* Within +-limit: mostly anything, often an end or 0, small ones where `small` is 1. */
static int16_t number(int32_t limit, int32_t small)
{
    const int32_t size = small ? (limit < 9 ? limit : 9) : limit;
    switch (below(8)) {
    case 0:
        return 0;
    case 1:
        return (int16_t)size;
    case 2:
        return (int16_t)-size;
    default:
        return (int16_t)(below(2 * size + 1) - size);
    }
}

static void failed(const char *what, const gle_layer *layer, int32_t shift, int32_t at)
{
    print(what);
    print(" n m w_shift shift at: ");
    print_number(layer->n);
    print_number(layer->m);
    print_number(layer->image->w_shift);
    print_number(shift);
    print_number(at);
    print("\n");
    leave(1);
}

static void compare(const char *what, const gle_layer *layer, int32_t shift, int32_t count)
{
    for (int32_t k = 0; k < count; k++) {
        if (out[k] != wanted[k]) {
            failed(what, layer, shift, k);
        }
    }
}

/* Plain C looks at what is stored. */
static void products(gle_layer *layer, int32_t shift)
{
    int16_t *const seen = layer->seen;

    layer->seen = layer->w;
    gle_product_one(wanted, layer, x, shift);
    layer->seen = seen;
    gle_product_one_dsp(out, layer, x, shift);
    compare("forward", layer, shift, layer->n);
    layer->seen = layer->w;
    gle_product_one_back(wanted, layer, shift);
    layer->seen = seen;
    gle_product_one_back_dsp(out, layer, shift);
    compare("back", layer, shift, layer->m);
}

/* The same with what the array sees beside what is stored, synapses that differ or not. */
static void seen_products(gle_layer *layer, gle_image_layer *image, int32_t shift)
{
    static uint32_t gains[MOST];
    static int16_t seen[MOST] __attribute__((aligned(8)));
    const int differ = below(2);
    gle_seeing how;

    image->w_left = differ ? below(3) : 0;
    how.w_shift = image->w_shift;
    how.w_left = image->w_left;
    layer->gain_words = (layer->m + 1) / 2;
    for (int32_t k = 0; k < layer->n * layer->gain_words; k++) {
        gains[k] = any() & 0x3fff3fffu;
    }
    layer->gains = differ ? gains : NULL;
    layer->seen = seen;
    for (int32_t i = 0; i < layer->n; i++) {
        int16_t *const row = seen + i * layer->stride;
        row[layer->stride - 1] = 0;
        gle_see_one_dsp(row, layer->w + i * layer->stride, differ ? layer->m : layer->stride, &how,
                    differ ? gains + i * layer->gain_words : NULL);
    }
    products(layer, shift);
    layer->seen = layer->w;
    layer->gains = NULL;
    image->w_left = 0;
}

static void learn(gle_layer *layer, int32_t shift, const gle_update *how)
{
    gle_update_count got = {0, 0, 0}, want = {0, 0, 0};
    const int32_t count = layer->n * layer->stride;

    for (int32_t k = 0; k < count; k++) {
        expected[k] = weights[k];
    }
    for (int32_t i = 0; i < layer->n; i++) {
        gle_learn_one(expected + i * layer->stride, e[i], x, layer->m, how,
                      shift - (layer->rows ? (int32_t)layer->rows[i] : 0),
                      (uint32_t)i * gle_rng_roots(layer->m), &want);
    }
    gle_learn_layer_dsp(layer, x, how, shift, scratch, &got);
    for (int32_t k = 0; k < count; k++) {
        if (weights[k] != expected[k]) {
            failed(how->stochastic ? "stochastic" : "nearest", layer, shift, k);
        }
    }
    if (got.asked != want.asked || got.under != want.under || got.clipped != want.clipped) {
        print_number((int32_t)(got.asked - want.asked));
        print_number((int32_t)(got.under - want.under));
        print_number((int32_t)(got.clipped - want.clipped));
        failed("counts", layer, shift, how->stochastic);
    }
}

static void fill(gle_layer *layer, int32_t small_w, int32_t small_e)
{
    for (int32_t i = 0; i < layer->n; i++) {
        for (int32_t j = 0; j < layer->stride; j++) {
            weights[i * layer->stride + j] =
                j < layer->m ? number(layer->image->w_max, small_w) : 0;
        }
        e[i] = number(GLE_ARRAY_MAX, small_e);
    }
    e[layer->n] = 0;
    for (int32_t j = 0; j < layer->stride; j++) {
        x[j] = j < layer->m ? number(GLE_ARRAY_MAX, 0) : 0;
    }
}

static void one_case(int32_t n, int32_t m)
{
    static const int32_t shifts[] = {0, 2, 0, 2, 1, 5};
    static uint32_t rows[MOST_N];
    static uint16_t tops[MOST_N];
    const int32_t kind = below(6);
    gle_image_layer image = {0};
    gle_layer layer = {0};
    gle_update how = {0};

    image.w_shift = shifts[kind];
    image.w_max = image.w_shift == 0 ? 8191 : image.w_shift == 1 ? 16382 : 32764;
    layer.image = &image;
    layer.n = n;
    layer.m = m;
    layer.stride = (m + 1) & -2;
    layer.w = layer.seen = weights;
    layer.e = e;
    layer.tops = below(4) == 0 ? NULL : tops;
    for (int32_t i = 0; i < n; i++) {
        rows[i] = (uint32_t)below(8);
        tops[i] = (uint16_t)image.w_max; /* not known */
    }
    layer.rows = below(8) == 0 ? rows : NULL;
    fill(&layer, below(3) == 0, below(3) == 0);
    for (int32_t k = 0; k < 4; k++) {
        products(&layer, below(36) - 4);
        seen_products(&layer, &image, below(36) - 4);
    }
    how.limit = image.w_max;
    how.most = below(8) == 0 ? 1 + below(100) : 32767;
    for (int32_t k = 0; k < 24; k++) { /* weights run into their limits */
        how.stochastic = below(2);
        how.key.a = any();
        how.key.b = any();
        learn(&layer, k < 20 ? 8 + below(23) : below(40) - 2, &how);
        if (below(3) == 0) {
            const int32_t small = below(2);
            for (int32_t i = 0; i < n; i++) {
                e[i] = number(GLE_ARRAY_MAX, small);
            }
        }
    }
}

void start(void)
{
    for (int32_t n = 1; n <= 9; n++) {
        for (int32_t m = 1; m <= 41; m++) {
            one_case(n, m);
        }
    }
    for (int32_t k = 0; k < 150; k++) {
        one_case(1 + below(100), 1 + below(140));
    }
    one_case(MOST_N, MOST_M - 1); /* more weights than indices of 16 bits */
    print("all equal\n");
    leave(0);
}
