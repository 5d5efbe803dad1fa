/*
 * range_lock.h: byte-range locks for coroutines of one reactor. Exclusive or shared; FIFO among those that conflict, so
 * nobody starves. May be held across suspension. The hold is the caller's memory.
 */
#ifndef ENGINE_IO_RANGE_LOCK_H
#define ENGINE_IO_RANGE_LOCK_H

#include "engine/io/co.h"

struct range_hold {
	struct list link;
	uint64_t off_bytes, end_bytes;
	bool shared, granted;
	struct co *waiter;
};

struct range_lock {
	struct list holds; /* granted and waiting, in order of arrival */
	unsigned n_waiting;
};

void range_lock_init(struct range_lock *l);
void range_co_lock(struct range_lock *l, uint64_t off_bytes, uint64_t len_bytes, bool shared, struct range_hold *h);
/* Without waiting: false if it conflicts. */
bool range_try_lock(struct range_lock *l, uint64_t off_bytes, uint64_t len_bytes, bool shared, struct range_hold *h);
void range_unlock(struct range_lock *l, struct range_hold *h);
static inline bool range_lock_is_idle(const struct range_lock *l) { return list_is_empty(&l->holds); }

#endif
