/* A fuzzer without libFuzzer, for any compiler:
 *
 *     fuzz_X FILE...                         each file once
 *     fuzz_X --damage SEED ROUNDS FILE...    so many damaged copies of them
 */
#include "fuzz.h"

enum { MOST = 1 << 16 };

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed)
    __attribute__((weak));

static uint64_t state;

/* One to eight changes: a flip, a byte, a cut, a repeat, an insertion. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most)
{
    for (uint32_t k = 1 + fuzz_draw(&state, 8); k > 0; k--) {
        const uint32_t how = fuzz_draw(&state, 6);
        const size_t at = size == 0 ? 0 : fuzz_draw(&state, (uint32_t)size);
        if (how == 0 && size > 0) {
            data[at] ^= (uint8_t)(1u << fuzz_draw(&state, 8));
        } else if (how == 1 && size > 0) {
            data[at] = (uint8_t)fuzz_draw(&state, 256);
        } else if (how == 2 && size > 0) {
            data[at] = (uint8_t)(fuzz_draw(&state, 2) ? 0 : 255);
        } else if (how == 3 && size > 1 && fuzz_draw(&state, 4) == 0) {
            size = at;
        } else if (size < most) {
            memmove(data + at + 1, data + at, size - at);
            data[at] = (uint8_t)fuzz_draw(&state, 256);
            size++;
        }
    }
    return size;
}

static size_t read_file(const char *path, uint8_t *to)
{
    FILE *file = fopen(path, "rb");
    size_t n;

    if (file == NULL) {
        perror(path);
        exit(2);
    }
    n = fread(to, 1, MOST, file);
    fclose(file);
    return n;
}

/* In memory of exactly its size. */
static void one(const uint8_t *data, size_t n)
{
    uint8_t *copy = malloc(n == 0 ? 1 : n);

    memcpy(copy, data, n);
    (void)LLVMFuzzerTestOneInput(copy, n);
    free(copy);
}

int main(int argc, char **argv)
{
    static uint8_t data[MOST];
    const int damage = argc > 4 && strcmp(argv[1], "--damage") == 0;
    const int first = damage ? 4 : 1;

    if (argc <= first) {
        fprintf(stderr, "usage: %s [--damage SEED ROUNDS] FILE...\n", argv[0]);
        return 2;
    }
    if (!damage) {
        for (int k = first; k < argc; k++) {
            one(data, read_file(argv[k], data));
        }
        printf("%d files\n", argc - first);
        return 0;
    }
    for (uint64_t round = 0; round < strtoull(argv[3], NULL, 10); round++) {
        const uint64_t seed = strtoull(argv[2], NULL, 10) + round;
        size_t n;
        state = seed * 0x9e3779b97f4a7c15ull + 99;
        n = read_file(argv[first + (int)fuzz_draw(&state, (uint32_t)(argc - first))], data);
        if (LLVMFuzzerCustomMutator != NULL) {
            n = LLVMFuzzerCustomMutator(data, n, MOST, fuzz_draw(&state, UINT32_MAX));
        } else {
            n = LLVMFuzzerMutate(data, n, MOST);
        }
        one(data, n);
    }
    printf("%s damaged copies\n", argv[3]);
    return 0;
}
