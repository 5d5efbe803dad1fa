/*
 * cache.c: pages in memory.
 *
 * A page is found by its address. An address holds one content from the checkpoint that publishes it until the checkpoint
 * after the one that frees it, so a clean page never goes stale; when an address is handed out again, a clean page that
 * still sits there is unhashed first (a reader that holds it goes on with its old content, which is what it looked up).
 *
 * Reading verifies the checksum that the parent keeps. When a copy does not verify, the others are tried one by one; a
 * good one is rewritten over all (the page is immutable, so this is safe at any time before its address is reused, and
 * the reuse waits for a checkpoint that cannot finish while we hold `pins`... it can: so the rewrite is skipped unless the
 * page is still hashed).
 */
#include <string.h>

#include "engine/base/crc32c.h"
#include "engine/meta/meta_internal.h"

#define SLAB_PAGES 64

struct slab {
	struct list link;
	void *mem;
};

static uint8_t *data_alloc(struct meta *m)
{
	void *d;

	if (!m->free_data) {
		struct slab *s = xmalloc(sizeof(*s));
		unsigned i;

		s->mem = xaligned(META_PAGE_BYTES, SLAB_PAGES * META_PAGE_BYTES);
		list_push_back(&m->slabs, &s->link);
		for (i = 0; i < SLAB_PAGES; i++) {
			d = (uint8_t *)s->mem + i * META_PAGE_BYTES;
			*(void **)d = m->free_data;
			m->free_data = d;
		}
	}
	d = m->free_data;
	m->free_data = *(void **)d;
	return d;
}

static void page_free(struct meta *m, struct mpage *pg)
{
	CHECK(!pg->pins && !pg->hashed);
	list_del(&pg->link);
	*(void **)pg->data = m->free_data;
	m->free_data = pg->data;
	m->n_pages--;
	xfree(pg);
}

static void page_unhash(struct meta *m, struct mpage *pg)
{
	CHECK(pg->hashed);
	hash_del(&m->pages, &pg->node);
	pg->hashed = false;
	if (pg->state == PAGE_CLEAN) {
		list_del(&pg->link);
		if (!pg->pins)
			page_free(m, pg);
	}
}

static struct mpage *page_make(struct meta *m, uint64_t addr, unsigned level, uint8_t state)
{
	struct mpage *pg = xcalloc(1, sizeof(*pg));

	pg->addr = addr;
	pg->level = (uint8_t)level;
	pg->state = state;
	pg->data = data_alloc(m);
	pg->pins = 1;
	pg->hashed = true;
	list_init(&pg->link);
	co_queue_init(&pg->loaders);
	hash_add(&m->pages, &pg->node, addr);
	m->n_pages++;
	return pg;
}

void meta_cache_init(struct meta *m)
{
	hash_init(&m->pages);
	list_init(&m->lru);
	list_init(&m->dirty);
	list_init(&m->frozen);
	list_init(&m->slabs);
	co_queue_init(&m->dirty_room);
	m->max_pages = MAX(m->conf.cache_bytes / META_PAGE_BYTES, 64);
	m->max_dirty = MIN(m->max_pages / 4, MAX(m->pages_per_group / 16, 16));
}

static bool page_fini(struct hash_node *n, void *arg)
{
	xfree(container_of(n, struct mpage, node));
	return true;
}

void meta_cache_fini(struct meta *m)
{
	struct list *n;

	hash_each(&m->pages, page_fini, NULL);
	hash_fini(&m->pages);
	while ((n = list_pop_front(&m->slabs))) {
		struct slab *s = container_of(n, struct slab, link);

		xfree(s->mem);
		xfree(s);
	}
}

/* Drops clean pages, least recently used first, down to the limit. Looks at a bounded number that are held. */
void meta_cache_shrink(struct meta *m)
{
	unsigned held = 0;
	struct mpage *pg, *next;

	if (m->n_pages <= m->max_pages)
		return;
	list_for_each_safe (pg, next, &m->lru, link) {
		if (m->n_pages <= m->max_pages || held > 64)
			return;
		if (pg->pins) {
			held++;
			continue;
		}
		page_unhash(m, pg);
	}
}

static int read_copy(struct meta *m, const struct meta_ptr *p, uint8_t *data, unsigned copy)
{
	int r = bdev_co_read_copy(m->conf.dev, p->addr * META_PAGE_BYTES, data, META_PAGE_BYTES, copy);

	if (r < 0)
		return r;
	m->page_reads++;
	return crc32c(0, data, META_PAGE_BYTES) == p->crc ? 0 : -ERR_CSUM;
}

/* Coroutine. Any copy that verifies; rewrites the others when one did not. */
int meta_page_co_read_verified(struct meta *m, const struct meta_ptr *p, uint8_t *data)
{
	struct hash_node *n;
	unsigned copy;
	int r, first;

	if (meta_space_group_of(m, p->addr) < 0)
		return -ERR_FORMAT;
	first = r = read_copy(m, p, data, 0);
	if (r == 0)
		return 0;
	for (copy = 1; r && copy <= m->conf.dev->copies; copy++)
		r = read_copy(m, p, data, copy);
	if (r < 0)
		return first;
	n = hash_find(&m->pages, p->addr);
	if (!m->conf.read_only && n && container_of(n, struct mpage, node)->state == PAGE_LOADING) {
		r = bdev_co_write(m->conf.dev, p->addr * META_PAGE_BYTES, data, META_PAGE_BYTES, IO_REPAIR);
		if (r == 0)
			m->repaired++;
		if (m->conf.hooks->page_repaired)
			m->conf.hooks->page_repaired(m->conf.ctx, p->addr, r == 0);
	}
	return 0;
}

int meta_page_co_get(struct meta *m, const struct meta_ptr *p, unsigned level, struct mpage **out)
{
	struct hash_node *n = hash_find(&m->pages, p->addr);
	struct mpage *pg;
	int r;

	CHECK(!meta_ptr_is_hole(p));
	if (n) {
		pg = container_of(n, struct mpage, node);
		pg->pins++;
		if (pg->state == PAGE_LOADING)
			co_queue_wait(&pg->loaders);
		if (pg->state == PAGE_CLEAN && pg->hashed) {
			list_del(&pg->link);
			list_push_back(&m->lru, &pg->link);
		}
		r = pg->load_result;
	} else {
		meta_cache_shrink(m);
		pg = page_make(m, p->addr, level, PAGE_LOADING);
		r = pg->load_result = meta_page_co_read_verified(m, p, pg->data);
		pg->state = PAGE_CLEAN;
		if (pg->hashed)
			list_push_back(&m->lru, &pg->link);
		if (r < 0 && pg->hashed)
			page_unhash(m, pg);
		co_queue_wake_all(&pg->loaders);
	}
	if (r < 0) {
		meta_page_put(m, pg);
		return r;
	}
	*out = pg;
	return 0;
}

void meta_page_put(struct meta *m, struct mpage *pg)
{
	CHECK(pg->pins > 0);
	pg->pins--;
	if (!pg->pins && !pg->hashed && pg->state == PAGE_CLEAN)
		page_free(m, pg);
}

struct mpage *meta_page_new(struct meta *m, struct meta_array *a, unsigned level, const uint8_t *copy_of)
{
	uint64_t addr = meta_space_alloc(m);
	struct hash_node *n = hash_find(&m->pages, addr);
	struct mpage *pg;

	if (n) {
		struct mpage *old = container_of(n, struct mpage, node);

		CHECK(old->state == PAGE_CLEAN || old->state == PAGE_LOADING);
		page_unhash(m, old);
	}
	pg = page_make(m, addr, level, PAGE_DIRTY);
	pg->array = a;
	pg->birth = m->birth;
	if (copy_of)
		memcpy(pg->data, copy_of, META_PAGE_BYTES);
	else
		memset(pg->data, 0, META_PAGE_BYTES);
	list_push_back(&m->dirty, &pg->link);
	m->n_dirty++;
	if (!a->dirty) {
		a->dirty = true;
		list_push_back(&m->dirty_arrays, &a->link);
	}
	return pg;
}

/* The page at addr has no reference any more. A dirty page goes at once; others stay readable for who holds them. */
void meta_page_drop_addr(struct meta *m, uint64_t addr)
{
	struct hash_node *n = hash_find(&m->pages, addr);

	meta_space_free(m, addr);
	if (n) {
		struct mpage *pg = container_of(n, struct mpage, node);

		if (pg->state == PAGE_DIRTY) {
			list_del(&pg->link);
			m->n_dirty--;
			pg->state = PAGE_CLEAN;
			list_push_back(&m->lru, &pg->link);
			page_unhash(m, pg);
		} else if (pg->state == PAGE_CLEAN) {
			page_unhash(m, pg);
		}
	}
}

/* A frozen page is on disk. */
void meta_page_written(struct meta *m, struct mpage *pg)
{
	CHECK(pg->state == PAGE_FROZEN);
	list_del(&pg->link);
	m->n_frozen--;
	pg->state = PAGE_CLEAN;
	pg->parent = NULL;
	if (pg->hashed)
		list_push_back(&m->lru, &pg->link);
	else if (!pg->pins)
		page_free(m, pg);
}
