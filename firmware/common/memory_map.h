/* Places that the linker scripts name. */
#ifndef MEMORY_MAP_H
#define MEMORY_MAP_H

#include <stdint.h>

extern uint32_t map_data_load[], map_data[], map_data_end[], map_bss[], map_bss_end[];
/* The stack lies lowest, so that one that runs over meets the end of the RAM, where the
 * hardware faults, and not the chip's weights. */
extern uint32_t map_stack[], map_stack_end[];
/* Everything that is left. */
extern uint32_t map_free[], map_free_end[];

#endif
