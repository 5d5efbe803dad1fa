#include "engine/io/sim_store.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/hash.h"

#define FANOUT_BITS 5
#define FANOUT (1u << FANOUT_BITS)
#define HEIGHT_MAX 10 /* 2^50 pages: 4 EiB */
#define SLAB_OBJECTS 64
#define HASH_ZEROS 1 /* of an empty subtree and of zeros */

#if defined(__SANITIZE_ADDRESS__)
#define POOL_IS_MALLOC 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POOL_IS_MALLOC 1
#endif
#endif
#ifndef POOL_IS_MALLOC
#define POOL_IS_MALLOC 0 /* 1: every page by itself, so that the sanitizer sees each */
#endif

struct node {
	_Atomic uint32_t refs;
	_Atomic uint64_t hash; /* 0: not computed yet */
	void *slot[FANOUT];    /* nodes, at the lowest level pages */
};

struct free_obj {
	struct free_obj *next;
};

struct slab {
	struct slab *next;
};

struct sim_pool {
	_Atomic uint32_t refs;
	atomic_flag lock;
	struct free_obj *pages, *nodes;
	struct slab *slabs;
	_Atomic uint64_t n_live;
};

void *sim_alloc(size_t len)
{
	void *p = calloc(1, len);

	CHECK(p);
	return p;
}

void *sim_realloc(void *p, size_t len)
{
	p = realloc(p, len);
	CHECK(p);
	return p;
}

char *sim_strdup(const char *s)
{
	char *p = strdup(s);

	CHECK(p);
	return p;
}

/* ---- pool ---- */

struct sim_pool *sim_pool_create(void)
{
	struct sim_pool *p = sim_alloc(sizeof(*p));

	p->refs = 1;
	atomic_flag_clear(&p->lock);
	return p;
}

struct sim_pool *sim_pool_get(struct sim_pool *p)
{
	atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
	return p;
}

void sim_pool_put(struct sim_pool *p)
{
	struct slab *s;

	if (atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
		return;
	CHECK(p->n_live == 0);
	while ((s = p->slabs)) {
		p->slabs = s->next;
		free(s);
	}
	free(p);
}

static void pool_lock(struct sim_pool *p)
{
	while (atomic_flag_test_and_set_explicit(&p->lock, memory_order_acquire))
		;
}

static void pool_unlock(struct sim_pool *p)
{
	atomic_flag_clear_explicit(&p->lock, memory_order_release);
}

static void pool_grow(struct sim_pool *p, struct free_obj **list, size_t len)
{
	struct slab *s = malloc(sizeof(*s) + SLAB_OBJECTS * len);
	char *at = (char *)(s + 1);
	unsigned i;

	CHECK(s);
	s->next = p->slabs;
	p->slabs = s;
	for (i = 0; i < SLAB_OBJECTS; i++, at += len) {
		((struct free_obj *)at)->next = *list;
		*list = (struct free_obj *)at;
	}
}

static void *pool_alloc(struct sim_pool *p, struct free_obj **list, size_t len)
{
	struct free_obj *o;

	if (POOL_IS_MALLOC) {
		atomic_fetch_add_explicit(&p->n_live, 1, memory_order_relaxed);
		o = malloc(len);
		CHECK(o);
		return o;
	}
	pool_lock(p);
	if (!*list)
		pool_grow(p, list, len);
	o = *list;
	*list = o->next;
	p->n_live++;
	pool_unlock(p);
	return o;
}

static void pool_free(struct sim_pool *p, struct free_obj **list, void *obj)
{
	struct free_obj *o = obj;

	if (POOL_IS_MALLOC) {
		atomic_fetch_sub_explicit(&p->n_live, 1, memory_order_relaxed);
		free(obj);
		return;
	}
	pool_lock(p);
	o->next = *list;
	*list = o;
	p->n_live--;
	pool_unlock(p);
}

/* ---- pages ---- */

struct sim_page *sim_page_alloc(struct sim_pool *p)
{
	struct sim_page *pg = pool_alloc(p, &p->pages, sizeof(*pg));

	atomic_init(&pg->refs, 1);
	atomic_init(&pg->hash, 0);
	return pg;
}

struct sim_page *sim_page_copy(struct sim_pool *p, const struct sim_page *from)
{
	struct sim_page *pg = sim_page_alloc(p);

	if (from)
		memcpy(pg->data, from->data, SIM_PAGE_BYTES);
	else
		memset(pg->data, 0, SIM_PAGE_BYTES);
	return pg;
}

void sim_page_put(struct sim_pool *p, struct sim_page *pg)
{
	if (pg && atomic_fetch_sub_explicit(&pg->refs, 1, memory_order_acq_rel) == 1)
		pool_free(p, &p->pages, pg);
}

static uint64_t page_hash(struct sim_page *pg)
{
	uint64_t h = atomic_load_explicit(&pg->hash, memory_order_relaxed), any = 0, v[4], lane[4] = { 1, 2, 3, 4 };
	unsigned i, k;

	if (h)
		return h;
	for (i = 0; i < SIM_PAGE_BYTES; i += sizeof(v)) {
		memcpy(v, pg->data + i, sizeof(v));
		for (k = 0; k < 4; k++) {
			any |= v[k];
			lane[k] = (lane[k] ^ v[k]) * 0x9e3779b97f4a7c15ULL;
			lane[k] ^= lane[k] >> 29;
		}
	}
	for (k = 0; k < 4; k++)
		h = hash_mix(h ^ lane[k]);
	h = any ? h | 2 : HASH_ZEROS;
	atomic_store_explicit(&pg->hash, h, memory_order_relaxed);
	return h;
}

/* ---- nodes ---- */

/* level 0: a page */
static void subtree_put(struct sim_pool *p, void *x, unsigned level)
{
	struct node *n = x;
	unsigned i;

	if (!x)
		return;
	if (level == 0) {
		sim_page_put(p, x);
		return;
	}
	if (atomic_fetch_sub_explicit(&n->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (i = 0; i < FANOUT; i++)
		subtree_put(p, n->slot[i], level - 1);
	pool_free(p, &p->nodes, n);
}

static void subtree_get(void *x, unsigned level)
{
	if (!x)
		return;
	if (level == 0)
		sim_page_get(x);
	else
		atomic_fetch_add_explicit(&((struct node *)x)->refs, 1, memory_order_relaxed);
}

static struct node *node_alloc(struct sim_pool *p)
{
	struct node *n = pool_alloc(p, &p->nodes, sizeof(*n));

	memset(n, 0, sizeof(*n));
	atomic_init(&n->refs, 1);
	return n;
}

/* Makes *slot a node that nobody else refers to. */
static struct node *node_own(struct sim_pool *p, void **slot, unsigned level)
{
	struct node *old = *slot, *n;
	unsigned i;

	if (old && atomic_load_explicit(&old->refs, memory_order_acquire) == 1) {
		atomic_store_explicit(&old->hash, 0, memory_order_relaxed);
		return old;
	}
	n = node_alloc(p);
	*slot = n;
	if (!old)
		return n;
	memcpy(n->slot, old->slot, sizeof(n->slot));
	for (i = 0; i < FANOUT; i++)
		subtree_get(n->slot[i], level - 1);
	subtree_put(p, old, level);
	return n;
}

static uint64_t subtree_hash(void *x, unsigned level)
{
	struct node *n = x;
	uint64_t h, c;
	unsigned i;

	if (!x)
		return HASH_ZEROS;
	if (level == 0)
		return page_hash(x);
	h = atomic_load_explicit(&n->hash, memory_order_relaxed);
	if (h)
		return h;
	/* With contents in slot 0 only it is the hash of that: the height does not matter. */
	h = subtree_hash(n->slot[0], level - 1);
	for (i = 1; i < FANOUT; i++) {
		c = subtree_hash(n->slot[i], level - 1);
		if (c != HASH_ZEROS)
			h = hash_mix(h * 0x9e3779b97f4a7c15ULL ^ hash_mix(c + i * FANOUT + level)) | 2;
	}
	atomic_store_explicit(&n->hash, h, memory_order_relaxed);
	return h;
}

/* ---- tree ---- */

void sim_tree_init(struct sim_tree *t, struct sim_pool *p)
{
	*t = (struct sim_tree){ .pool = p };
}

void sim_tree_fini(struct sim_tree *t)
{
	subtree_put(t->pool, t->root, t->height);
	t->root = NULL;
	t->height = 0;
}

void sim_tree_share(struct sim_tree *dst, const struct sim_tree *src)
{
	CHECK(dst->pool == src->pool);
	subtree_get(src->root, src->height);
	subtree_put(dst->pool, dst->root, dst->height);
	dst->root = src->root;
	dst->height = src->height;
}

static bool tree_covers(const struct sim_tree *t, uint64_t idx)
{
	return idx >> (FANOUT_BITS * t->height) == 0;
}

static unsigned slot_of(uint64_t idx, unsigned level)
{
	return (idx >> (FANOUT_BITS * (level - 1))) & (FANOUT - 1);
}

struct sim_page *sim_tree_get(const struct sim_tree *t, uint64_t idx)
{
	void *x = t->root;
	unsigned level;

	if (!tree_covers(t, idx))
		return NULL;
	for (level = t->height; level && x; level--)
		x = ((struct node *)x)->slot[slot_of(idx, level)];
	return x;
}

void sim_tree_set(struct sim_tree *t, uint64_t idx, struct sim_page *pg)
{
	struct node *n;
	unsigned level;
	void **slot;

	if (!pg && !sim_tree_get(t, idx))
		return;
	while (!tree_covers(t, idx)) {
		CHECK(t->height < HEIGHT_MAX);
		if (t->root) {
			n = node_alloc(t->pool);
			n->slot[0] = t->root;
			t->root = n;
		}
		t->height++;
	}
	slot = &t->root;
	for (level = t->height; level; level--) {
		n = node_own(t->pool, slot, level);
		slot = &n->slot[slot_of(idx, level)];
	}
	sim_page_put(t->pool, *slot);
	*slot = pg;
}

void sim_tree_merge(struct sim_tree *t, uint64_t idx, struct sim_page *pg, unsigned mask)
{
	struct sim_page *old, *n;
	unsigned g;

	if (mask == 0)
		return;
	if (mask == SIM_MASK_ALL) {
		sim_tree_set(t, idx, sim_page_get(pg));
		return;
	}
	old = sim_tree_get(t, idx);
	if (!old && !pg)
		return;
	n = sim_page_copy(t->pool, old);
	for (g = 0; g < SIM_GRANULES; g++) {
		if (!(mask & (1u << g)))
			continue;
		if (pg)
			memcpy(n->data + g * SIM_GRANULE_BYTES, pg->data + g * SIM_GRANULE_BYTES, SIM_GRANULE_BYTES);
		else
			memset(n->data + g * SIM_GRANULE_BYTES, 0, SIM_GRANULE_BYTES);
	}
	sim_tree_set(t, idx, n);
}

static uint64_t subtree_next(const void *x, unsigned level, uint64_t idx)
{
	const struct node *n = x;
	unsigned i, shift;
	uint64_t r;

	if (!x)
		return UINT64_MAX;
	if (level == 0)
		return 0;
	shift = FANOUT_BITS * (level - 1);
	for (i = slot_of(idx, level); i < FANOUT; i++) {
		r = subtree_next(n->slot[i], level - 1, idx & ((1ULL << shift) - 1));
		if (r != UINT64_MAX)
			return ((uint64_t)i << shift) | r;
		idx = 0;
	}
	return UINT64_MAX;
}

uint64_t sim_tree_next(const struct sim_tree *t, uint64_t idx)
{
	if (!tree_covers(t, idx))
		return UINT64_MAX;
	return subtree_next(t->root, t->height, idx);
}

uint64_t sim_tree_hash(const struct sim_tree *t)
{
	return subtree_hash(t->root, t->height);
}
