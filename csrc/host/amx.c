#if !defined(_DEFAULT_SOURCE)
#define _DEFAULT_SOURCE /* syscall */
#endif
#include "amx.h"

#if defined(__x86_64__) && defined(__linux__) && !defined(GLE_SCALAR_ONLY)

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

int gle_amx_granted(void)
{
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18, TILE = 1 << 24, INT8 = 1 << 25 };
    unsigned a, b, c, d;

    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & TILE) == 0 || (d & INT8) == 0) {
        return 0;
    }
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

#else

int gle_amx_granted(void) { return 0; }

#endif
