/*
 * Buffers. A pool over an arena is a lazy buddy allocator: a freed block goes on its class's list as it is, and buddies
 * are merged only when a class has run dry, so that the steady state is a pop and a push. What no longer fits, and all
 * of a pool without arena, is ordinary aligned memory; of that, a pool with arena keeps some for reuse.
 *
 * A block of the arena that is held (alloc_hold.h) when it is freed waits on a list of its own, which is looked through when
 * something has been released since; ordinary memory is held back by xfree().
 */
#include "engine/io/buf.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/alloc_hold.h"

#define UNIT 4096u
#define UNIT_SHIFT 12
#define CLASSES 9 /* 4 KiB .. 1 MiB */
#define MERGE_EVERY 64 /* frees between two attempts to merge */
#define SPARE_BYTES_MAX (8u << 20)

/* A block that was freed while it was held. Not in the block itself: it may be written to. */
struct late {
	struct late *next;
	void *block;
	unsigned k;
};

struct buf_pool {
	char *arena;
	size_t arena_len;
	bool poison;
	struct list free[CLASSES];  /* blocks of the arena, linked through themselves */
	struct list spare[CLASSES]; /* ordinary memory kept for reuse */
	size_t spare_bytes;
	unsigned n_frees; /* since the last merge */
	uint8_t *state;	  /* per unit: class + 1 of the free block that starts there, 0 none */
	struct late *late;
	uint64_t late_seen; /* alloc_n_released() at the last look */
};

static inline unsigned class_of(size_t len)
{
	size_t units = (len + UNIT - 1) >> UNIT_SHIFT;

	return units <= 1 ? 0 : (unsigned)(64 - __builtin_clzl(units - 1));
}

static inline size_t class_bytes(unsigned k)
{
	return (size_t)UNIT << k;
}

static inline bool in_arena(const struct buf_pool *p, const void *buf)
{
	return (size_t)((const char *)buf - p->arena) < p->arena_len;
}

static void block_push(struct buf_pool *p, void *block, unsigned k)
{
	p->state[(size_t)((char *)block - p->arena) >> UNIT_SHIFT] = (uint8_t)(k + 1);
	list_push_front(&p->free[k], block);
}

static void block_take(struct buf_pool *p, void *block)
{
	p->state[(size_t)((char *)block - p->arena) >> UNIT_SHIFT] = 0;
	list_del(block);
}

/* Takes a block of class k, splitting a bigger one if need be. */
static void *block_alloc(struct buf_pool *p, unsigned k)
{
	unsigned from = k;
	char *block;

	while (from < CLASSES && list_is_empty(&p->free[from]))
		from++;
	if (from == CLASSES)
		return NULL;
	block = (char *)p->free[from].next;
	block_take(p, block);
	while (from > k) {
		from--;
		block_push(p, block + class_bytes(from), from);
	}
	return block;
}

static void merge_all(struct buf_pool *p)
{
	size_t n = p->arena_len >> UNIT_SHIFT, i, half;
	unsigned k;

	for (k = 0; k + 1 < CLASSES; k++) {
		half = (size_t)1 << k;
		for (i = 0; i + 2 * half <= n; i += 2 * half) {
			if (p->state[i] != k + 1 || p->state[i + half] != k + 1)
				continue;
			block_take(p, p->arena + (i << UNIT_SHIFT));
			block_take(p, p->arena + ((i + half) << UNIT_SHIFT));
			block_push(p, p->arena + (i << UNIT_SHIFT), k + 1);
		}
	}
	p->n_frees = 0;
}

/* ---- blocks that are held ---- */

/* seen: alloc_n_released() before it was found to be held. */
static void late_add(struct buf_pool *p, void *block, unsigned k, uint64_t seen)
{
	struct late *l = malloc(sizeof(*l));

	CHECK(l);
	if (!p->late)
		p->late_seen = seen;
	*l = (struct late){ p->late, block, k };
	p->late = l;
}

static void late_retry(struct buf_pool *p)
{
	struct late **at = &p->late, *l;
	uint64_t seen = alloc_n_released();

	if (p->late_seen == seen)
		return;
	p->late_seen = seen;
	while ((l = *at)) {
		if (alloc_is_held(l->block, class_bytes(l->k))) {
			at = &l->next;
			continue;
		}
		*at = l->next;
		block_push(p, l->block, l->k);
		p->n_frees++;
		free(l);
	}
}

/* ---- the pool ---- */

struct buf_pool *buf_pool_create(void *arena, size_t arena_len, bool poison)
{
	struct buf_pool *p = calloc(1, sizeof(*p));
	size_t i;

	CHECK(p);
	p->arena = arena;
	p->arena_len = arena ? ALIGN_DOWN(arena_len, class_bytes(CLASSES - 1)) : 0;
	p->poison = poison;
	for (i = 0; i < CLASSES; i++) {
		list_init(&p->free[i]);
		list_init(&p->spare[i]);
	}
	if (p->arena_len) {
		p->state = calloc(p->arena_len >> UNIT_SHIFT, 1);
		CHECK(p->state);
	}
	for (i = p->arena_len; i > 0; i -= class_bytes(CLASSES - 1))
		block_push(p, p->arena + i - class_bytes(CLASSES - 1), CLASSES - 1);
	return p;
}

void buf_pool_destroy(struct buf_pool *p)
{
	struct list *n;
	struct late *l;
	unsigned k;

	for (k = 0; k < CLASSES; k++)
		while ((n = list_pop_front(&p->spare[k])))
			xfree(n);
	while ((l = p->late)) {
		p->late = l->next;
		free(l);
	}
	free(p->state);
	free(p);
}

static struct buf_pool *pool_self(void)
{
	struct reactor *r = reactor_self();

	CHECK(r);
	return r->bufs;
}

static void *buf_alloc_slow(struct buf_pool *p, size_t len, unsigned k)
{
	void *buf = NULL;
	struct list *n;

	if (k >= CLASSES)
		return xaligned(UNIT, ALIGN_UP(len, (size_t)UNIT));
	if (unlikely(p->late))
		late_retry(p);
	if (p->arena_len) {
		buf = block_alloc(p, k);
		if (!buf && p->n_frees >= MERGE_EVERY) {
			merge_all(p);
			buf = block_alloc(p, k);
		}
	}
	if (!buf && (n = list_pop_front(&p->spare[k]))) {
		p->spare_bytes -= class_bytes(k);
		buf = n;
	}
	return buf ? buf : xaligned(UNIT, class_bytes(k));
}

void *buf_alloc(size_t len)
{
	struct buf_pool *p = pool_self();
	unsigned k = class_of(len);
	void *buf;

	CHECK(len > 0);
	if (likely(k < CLASSES && !list_is_empty(&p->free[k]))) {
		buf = p->free[k].next;
		block_take(p, buf);
	} else {
		buf = buf_alloc_slow(p, len, k);
	}
	if (p->poison)
		memset(buf, 0xA5, len);
	return buf;
}

void *buf_alloc_zero(size_t len)
{
	return memset(buf_alloc(len), 0, len);
}

void buf_free(void *buf, size_t len)
{
	struct buf_pool *p;
	unsigned k = class_of(len);
	uint64_t seen = 0;
	bool held = false;

	if (!buf)
		return;
	p = pool_self();
	if (unlikely(alloc_has_holds())) {
		seen = alloc_n_released();
		held = alloc_is_held(buf, len);
	}
	if (in_arena(p, buf)) {
		if (unlikely(p->late))
			late_retry(p);
		if (held) {
			late_add(p, buf, k, seen);
			return;
		}
		block_push(p, buf, k);
		p->n_frees++;
		return;
	}
	if (!held && p->arena_len && k < CLASSES && p->spare_bytes + class_bytes(k) <= SPARE_BYTES_MAX) {
		list_push_front(&p->spare[k], buf);
		p->spare_bytes += class_bytes(k);
		return;
	}
	xfree(buf);
}

int buf_registered_index(const void *p, size_t len)
{
	const struct buf_pool *pool = pool_self();

	return in_arena(pool, p) && in_arena(pool, (const char *)p + len - 1) ? 0 : -1;
}
