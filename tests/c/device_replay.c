/* Sessions as the device fuzzer keeps them (tests/fuzz/device.c): what comes back, message by
 * message as hexadecimal, so that machines of another byte order can be compared.
 *
 *     device_replay FILE...
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chip.h"
#include "device/device.h"

enum { MOST = 1 << 16 };

static int tell(void *to, const uint8_t *message, size_t n)
{
    (void)to;
    for (size_t k = 0; k < n; k++) {
        printf("%02x", message[k]);
    }
    printf("\n");
    return 1;
}

static void replay(const uint8_t *bytes, size_t n)
{
    static const uint32_t payloads[] = {64, 100, 256, 1000};
    const size_t memory = 1 << 17;
    device_config config = {0};
    size_t at = 2;
    struct device *d;
    void *state;

    config.payload = payloads[bytes[0] & 3];
    config.memory = malloc(memory);
    config.memory_bytes = memory;
    config.kernels = &gle_kernels_scalar;
    config.name = "replay";
    state = malloc(device_bytes(config.payload));
    d = device_open(state, &config);
    while (at + 2 <= n) {
        const size_t length = (size_t)(bytes[at] | bytes[at + 1] << 8);
        at += 2;
        if ((length & 0x8000) != 0) {
            device_session_ended(d);
        } else {
            const size_t some = length < n - at ? length : n - at;
            while (device_feed(d, bytes + at, some, tell, NULL) != DEVICE_IDLE) {
            }
            at += some;
        }
    }
    free(state);
    free(config.memory);
}

int main(int argc, char **argv)
{
    static uint8_t bytes[MOST];

    printf("%08x\n", (unsigned)message_list_crc());
    for (int k = 1; k < argc; k++) {
        FILE *file = fopen(argv[k], "rb");
        size_t n;
        if (file == NULL) {
            perror(argv[k]);
            return 2;
        }
        n = fread(bytes, 1, MOST, file);
        fclose(file);
        printf("session\n");
        if (n >= 2) {
            replay(bytes, n);
        }
    }
    return 0;
}
