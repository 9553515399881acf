/* Tiles of AMX have 8 KB of state, which Linux keeps only for processes that asked. */
#ifndef GLE_HOST_AMX_H
#define GLE_HOST_AMX_H

/* Whether this CPU has them for int8 and this process may use them from now on. */
int gle_amx_granted(void);

#endif
