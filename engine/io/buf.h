/*
 * buf.h: payload and page buffers, aligned to 4 KiB, from a per-reactor arena that the world may have registered with the
 * kernel. Power-of-two size classes from 4 KiB to 1 MiB; bigger ones, and all once the arena is used up, come from
 * ordinary aligned memory. Free on the reactor that allocated.
 */
#ifndef ENGINE_IO_BUF_H
#define ENGINE_IO_BUF_H

#include "engine/io/reactor.h"

/* len > 0 is rounded up to the class. Contents are undefined (poisoned with 0xA5 in the simulated world). Never NULL. */
void *buf_alloc(size_t len);
void *buf_alloc_zero(size_t len);
/* Same len; NULL is ignored. What is held (alloc_hold.h) is not handed out again before it has been released. */
void buf_free(void *buf, size_t len);
/* Index of the registered buffer that holds [p, p+len), or -1. For the world. */
int buf_registered_index(const void *p, size_t len);

/* ---- for worlds ---- */
struct buf_pool *buf_pool_create(void *arena, size_t arena_len, bool poison);
void buf_pool_destroy(struct buf_pool *p);

#endif
