/*
 * alloc_hold.h: memory that somebody outside may still touch.
 *
 * A request that was given up is still with the kernel, which may read or write its payload at any time to come. Such a
 * range is held: xfree(), xrealloc() and buf_free() of memory that overlaps it put the freeing off until the last hold on
 * it is released. Ranges may overlap each other and be held several times.
 *
 * Context: any thread. A hold is placed before the owner of the memory hears that he may free it. While nothing is held, a
 * free costs one relaxed load more.
 */
#ifndef ENGINE_BASE_ALLOC_HOLD_H
#define ENGINE_BASE_ALLOC_HOLD_H

#include <stdatomic.h>

#include "engine/base/base.h"

void alloc_hold(const void *p, size_t len);
/* Of exactly what was held. Frees what waited for it. */
void alloc_release(const void *p, size_t len);
/* Does any hold overlap [p, p+len)? */
bool alloc_is_held(const void *p, size_t len);
/* Grows with every release: whoever keeps memory back himself (buf.c) looks again when it has changed. */
uint64_t alloc_n_released(void);
/* Forgets the holds that this thread has placed, and frees what waited for them: the world that they belong to is gone. */
void alloc_hold_reset(void);

extern _Atomic size_t alloc_n_holds;
static inline bool alloc_has_holds(void)
{
	return atomic_load_explicit(&alloc_n_holds, memory_order_relaxed) != 0;
}

/* ---- between alloc.c and alloc_hold.c ---- */
/* True: [p, p+len) is held; it will be freed by alloc_free_now(p). */
bool alloc_put_off(void *p, size_t len);
void alloc_free_now(void *p);

#endif
