/*
 * sim_store.h: contents of simulated disks: sparse, copy-on-write, cheap to fork. Private to the simulated world.
 *
 * A *page* is 4 KiB that never change once they have been put into a tree or a log: whoever writes makes a new page. So an
 * image, the cache above it and the log of un-flushed writes share pages by reference count. A *tree* maps page numbers to
 * pages (NULL: zeros); its nodes are shared likewise and copied when a shared one must change: forking an image is one
 * reference, dropping it costs what was changed since.
 *
 * Memory comes from a *pool* shared by a set of disks and all its clones, which may live on different threads: counts are
 * atomic, the pool has a lock. Nothing here goes through xmalloc(): it outlives alloc_track_drop().
 */
#ifndef ENGINE_IO_SIM_STORE_H
#define ENGINE_IO_SIM_STORE_H

#include <stdatomic.h>
#include "engine/base/base.h"

#define SIM_PAGE_BYTES 4096u
#define SIM_GRANULE_BYTES 512u
#define SIM_GRANULES 8u /* per page; a mask of them is one byte, bit 0 first */
#define SIM_MASK_ALL 0xffu

struct sim_page {
	_Atomic uint32_t refs;
	_Atomic uint64_t hash; /* 0: not computed yet */
	uint8_t data[SIM_PAGE_BYTES];
};

/* malloc and friends that never return NULL. */
void *sim_alloc(size_t len);
void *sim_realloc(void *p, size_t len);
char *sim_strdup(const char *s);

/* ---- pool ---- */
struct sim_pool;
struct sim_pool *sim_pool_create(void);
struct sim_pool *sim_pool_get(struct sim_pool *p);
void sim_pool_put(struct sim_pool *p); /* the last one frees all memory; every page must be back by then */

/* One reference, data undefined. */
struct sim_page *sim_page_alloc(struct sim_pool *p);
/* A copy of `from` (NULL: zeros) to be changed before it is shared. */
struct sim_page *sim_page_copy(struct sim_pool *p, const struct sim_page *from);
static inline struct sim_page *sim_page_get(struct sim_page *pg)
{
	if (pg)
		atomic_fetch_add_explicit(&pg->refs, 1, memory_order_relaxed);
	return pg;
}
void sim_page_put(struct sim_pool *p, struct sim_page *pg); /* NULL is ignored */

/* ---- tree ---- */
struct sim_tree {
	struct sim_pool *pool; /* borrowed: the owner holds it */
	void *root;
	unsigned height; /* 0: root is page 0 itself */
};

void sim_tree_init(struct sim_tree *t, struct sim_pool *p);
void sim_tree_fini(struct sim_tree *t);
/* dst (initialised) becomes what src is; what it was is dropped. */
void sim_tree_share(struct sim_tree *dst, const struct sim_tree *src);
/* Borrowed until the tree changes; NULL: zeros. */
struct sim_page *sim_tree_get(const struct sim_tree *t, uint64_t idx);
/* Takes over the caller's reference of pg. */
void sim_tree_set(struct sim_tree *t, uint64_t idx, struct sim_page *pg);
/* Puts the granules of mask of pg there (pg NULL: zeros); takes no reference of the caller's. */
void sim_tree_merge(struct sim_tree *t, uint64_t idx, struct sim_page *pg, unsigned mask);
/* First page number >= idx that has a page; UINT64_MAX: none. */
uint64_t sim_tree_next(const struct sim_tree *t, uint64_t idx);
/* Of the contents: absent pages and pages of zeros are the same. Kept per node, so a second call costs what changed. */
uint64_t sim_tree_hash(const struct sim_tree *t);

#endif
