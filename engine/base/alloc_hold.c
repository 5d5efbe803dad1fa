/*
 * Holds are kept by the 64 KiB chunks that they touch, in a hash of lists: a disk that hangs may leave thousands of them for
 * hours, and every free looks here. A free looks at the heads of its chunks' lists first, which are almost always empty,
 * and takes the lock only for those that are not. What is put off stands in one list, looked through at each release.
 */
#include "engine/base/alloc_hold.h"

#include <sched.h>
#include <stdlib.h>

#define CHUNK_SHIFT 16
#define BUCKETS 1024

struct hold {
	struct hold *next;
	uintptr_t begin, end;
	const void *owner; /* thread */
};

struct late {
	struct late *next;
	void *p;
	size_t len;
};

_Atomic size_t alloc_n_holds; /* entries of the table: one per chunk of each hold */
static _Atomic(struct hold *) table[BUCKETS];
static _Atomic uint64_t n_released;
static struct late *put_off;
static atomic_flag locked = ATOMIC_FLAG_INIT;
static __thread char this_thread; /* its address */

static void lock(void)
{
	while (atomic_flag_test_and_set_explicit(&locked, memory_order_acquire))
		sched_yield();
}

static void unlock(void)
{
	atomic_flag_clear_explicit(&locked, memory_order_release);
}

static _Atomic(struct hold *) *bucket(uintptr_t chunk)
{
	return &table[(chunk * 0x9e3779b97f4a7c15ULL) >> 54];
}

static struct hold *head(uintptr_t chunk)
{
	return atomic_load_explicit(bucket(chunk), memory_order_relaxed);
}

static void count_holds(size_t n)
{
	atomic_fetch_add_explicit(&alloc_n_holds, n, memory_order_relaxed);
}

void alloc_hold(const void *p, size_t len)
{
	uintptr_t begin = (uintptr_t)p, end = begin + len, c;
	struct hold *h;

	if (!len)
		return;
	for (c = begin >> CHUNK_SHIFT; c <= (end - 1) >> CHUNK_SHIFT; c++) {
		h = malloc(sizeof(*h));
		CHECK(h);
		h->begin = begin;
		h->end = end;
		h->owner = &this_thread;
		lock();
		h->next = head(c);
		atomic_store_explicit(bucket(c), h, memory_order_relaxed);
		count_holds(1);
		unlock();
	}
}

/* Takes one entry of exactly this hold out of the chunk's list. */
static struct hold *take(uintptr_t chunk, uintptr_t begin, uintptr_t end)
{
	struct hold *h = head(chunk), *before = NULL;

	for (; h; before = h, h = h->next) {
		if (h->begin != begin || h->end != end)
			continue;
		if (before)
			before->next = h->next;
		else
			atomic_store_explicit(bucket(chunk), h->next, memory_order_relaxed);
		count_holds((size_t)-1);
		return h;
	}
	return NULL;
}

static bool is_held_locked(uintptr_t begin, uintptr_t end)
{
	uintptr_t c;
	struct hold *h;

	for (c = begin >> CHUNK_SHIFT; c <= (end - 1) >> CHUNK_SHIFT; c++)
		for (h = head(c); h; h = h->next)
			if (h->begin < end && begin < h->end)
				return true;
	return false;
}

/* Takes what nothing holds any more out of the list of what was put off. */
static struct late *take_free(void)
{
	struct late **at = &put_off, *over = NULL, *l;

	while ((l = *at)) {
		if (is_held_locked((uintptr_t)l->p, (uintptr_t)l->p + l->len)) {
			at = &l->next;
			continue;
		}
		*at = l->next;
		l->next = over;
		over = l;
	}
	return over;
}

static void free_all(struct late *l)
{
	struct late *next;

	for (; l; l = next) {
		next = l->next;
		alloc_free_now(l->p);
		free(l);
	}
}

void alloc_release(const void *p, size_t len)
{
	uintptr_t begin = (uintptr_t)p, end = begin + len, c;
	struct late *over;
	struct hold *h;

	if (!len)
		return;
	lock();
	for (c = begin >> CHUNK_SHIFT; c <= (end - 1) >> CHUNK_SHIFT; c++) {
		h = take(c, begin, end);
		CHECK(h);
		free(h);
	}
	over = take_free();
	atomic_fetch_add_explicit(&n_released, 1, memory_order_relaxed);
	unlock();
	free_all(over);
}

bool alloc_is_held(const void *p, size_t len)
{
	uintptr_t begin = (uintptr_t)p, end = begin + len, c;
	bool held;

	if (!alloc_has_holds() || !len)
		return false;
	for (c = begin >> CHUNK_SHIFT; !head(c); c++)
		if (c == (end - 1) >> CHUNK_SHIFT)
			return false;
	lock();
	held = is_held_locked(begin, end);
	unlock();
	return held;
}

uint64_t alloc_n_released(void)
{
	return atomic_load_explicit(&n_released, memory_order_relaxed);
}

bool alloc_put_off(void *p, size_t len)
{
	struct late *l;

	if (!alloc_is_held(p, len))
		return false;
	l = malloc(sizeof(*l));
	CHECK(l);
	*l = (struct late){ .p = p, .len = len };
	lock();
	if (!is_held_locked((uintptr_t)p, (uintptr_t)p + len)) { /* released meanwhile */
		unlock();
		free(l);
		return false;
	}
	l->next = put_off;
	put_off = l;
	unlock();
	return true;
}

void alloc_hold_reset(void)
{
	struct late *over;
	struct hold *h, *next, *keep;
	unsigned i;

	if (!alloc_has_holds())
		return;
	lock();
	for (i = 0; i < BUCKETS; i++) {
		keep = NULL;
		for (h = atomic_load_explicit(&table[i], memory_order_relaxed); h; h = next) {
			next = h->next;
			if (h->owner == &this_thread) {
				count_holds((size_t)-1);
				free(h);
			} else {
				h->next = keep;
				keep = h;
			}
		}
		atomic_store_explicit(&table[i], keep, memory_order_relaxed);
	}
	over = take_free();
	atomic_fetch_add_explicit(&n_released, 1, memory_order_relaxed);
	unlock();
	free_all(over);
}
