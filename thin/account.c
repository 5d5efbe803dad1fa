/*
 * account.c: what deleting volumes and snapshots would free, and what differs between two of a family. Neither looks at map
 * pages that are shared with others, or are the same in both.
 */
#include <string.h>

#include "thin/home_internal.h"

/* ---- one ---- */

static int entry_co_alone(struct thin *t, const struct thin_entry *e, uint64_t *n)
{
	uint32_t count;
	int r = 0;

	if (e->own) {
		r = thin_ref_co_get(t, e->own, &count);
		*n += r == 0 && count == 1;
	}
	if (r == 0 && e->base) {
		r = thin_ref_co_get(t, e->base, &count);
		*n += r == 0 && count == 1;
	}
	return r;
}

static int one_co_freed(struct thin *t, struct thin_vol *v, uint64_t *n)
{
	struct thin_entry_disk *d = xaligned(16, META_PAGE_BYTES);
	uint64_t leaf = 0;
	unsigned i;
	int r;

	for (;; leaf++) {
		r = meta_array_co_next_alone(&v->map, &leaf, d);
		for (i = 0; i < THIN_MAP_PER_LEAF && r == 0; i++) {
			struct thin_entry e = thin_entry_load(&d[i]);

			r = entry_co_alone(t, &e, n);
		}
		if (r < 0)
			break;
	}
	xfree(d);
	return r == -ENOENT ? 0 : r;
}

/* ---- several ---- */

struct freed {
	struct thin *t;
	struct hash met; /* clusters that several refer to: freed once all of them have been met */
	uint64_t n;
};

struct freed_cluster {
	struct hash_node node; /* by cluster */
	uint32_t left;
};

static int cluster_co_meet(struct freed *f, uint64_t cluster)
{
	struct hash_node *n = hash_find(&f->met, cluster);
	struct freed_cluster *c;
	uint32_t count;
	int r;

	if (n) {
		f->n += --container_of(n, struct freed_cluster, node)->left == 0;
		return 0;
	}
	r = thin_ref_co_get(f->t, cluster, &count);
	if (r < 0 || count <= 1) {
		f->n += r == 0;
		return r;
	}
	c = xmalloc(sizeof(*c));
	c->left = count - 1;
	hash_add(&f->met, &c->node, cluster);
	return 0;
}

static int leaf_co_meet(void *arg, const void *page)
{
	const struct thin_entry_disk *d = page;
	unsigned i;
	int r = 0;

	for (i = 0; i < THIN_MAP_PER_LEAF && r == 0; i++) {
		struct thin_entry e = thin_entry_load(&d[i]);

		if (e.own)
			r = cluster_co_meet(arg, e.own);
		if (r == 0 && e.base)
			r = cluster_co_meet(arg, e.base);
	}
	return r;
}

static bool cluster_fini(struct hash_node *n, void *arg)
{
	xfree(container_of(n, struct freed_cluster, node));
	return true;
}

static int several_co_freed(struct thin *t, struct thin_vol *const *v, unsigned n, uint64_t *clusters)
{
	struct meta_array **maps = xmalloc(n * sizeof(struct meta_array *));
	struct freed f = { .t = t };
	unsigned i;
	int r = meta_co_pause(t->m);

	if (r == 0) {
		hash_init(&f.met);
		for (i = 0; i < n; i++)
			maps[i] = &v[i]->map;
		r = meta_co_each_alone(maps, n, leaf_co_meet, &f);
		hash_each(&f.met, cluster_fini, NULL);
		hash_fini(&f.met);
		meta_resume(t->m);
		*clusters += f.n;
	}
	xfree(maps);
	return r;
}

/* Has anybody ever shared what it has, and is still there? */
static bool is_only_child(struct thin *t, const struct thin_vol *v)
{
	struct thin_vol *x;

	list_for_each (x, &t->vols, link)
		if (x != v && x->family == v->family)
			return false;
	return true;
}

/* May volumes that are of no family with others have clusters in common, by copies (copy.c)? Sums tell, unless there are families; then
 * what has been copied since the pool was opened. */
static bool has_copies(struct thin *t)
{
	bool families = false;
	uint64_t sum = 0;
	struct thin_vol *x;

	list_for_each (x, &t->vols, link) {
		sum += x->used_clusters;
		families |= x->family != x->id;
	}
	return sum != t->clusters_used && (!families || t->copied);
}

int thin_co_freed_by(struct thin *t, struct thin_vol *const *v, unsigned n, uint64_t *clusters)
{
	*clusters = 0;
	if (n == 1 && is_only_child(t, v[0]) && !has_copies(t)) {
		*clusters = v[0]->used_clusters;
		return 0;
	}
	return n == 1 ? one_co_freed(t, v[0], clusters) : n ? several_co_freed(t, v, n, clusters) : 0;
}

/* ---- differences ---- */

/* Which of the two places a subcluster is read from; 0: neither. */
static uint64_t place_of(const struct thin_entry *e, unsigned sub)
{
	return e->own_mask >> sub & 1 ? e->own : e->base_mask >> sub & 1 ? e->base : 0;
}

static uint16_t entry_diff(const struct thin_entry *a, const struct thin_entry *b)
{
	uint16_t mask = 0;
	unsigned i;

	for (i = 0; i < THIN_SUBS; i++)
		if (place_of(a, i) != place_of(b, i))
			mask |= (uint16_t)(1u << i);
	return mask;
}

static int leaf_co_load(struct thin *t, struct thin_vol *v, uint64_t leaf, struct thin_entry_disk *d)
{
	int r = meta_array_co_leaf(&v->map, leaf, d);

	return r < 0 ? r : 0;
}

int thin_co_diff(struct thin *t, struct thin_vol *from, struct thin_vol *to, uint64_t *cluster, uint16_t *mask, uint16_t *data)
{
	struct thin_entry_disk *a = xaligned(16, 2 * META_PAGE_BYTES), *b = a + THIN_MAP_PER_LEAF;
	uint64_t leaf = *cluster / THIN_MAP_PER_LEAF, at;
	unsigned i;
	int r = 0;

	if (t->started && !t->conf.read_only)
		r = meta_co_wait_applied(t->m, MAX(from->last_seq, to->last_seq));
	for (; r == 0; leaf++) {
		r = meta_array_co_next_different(&from->map, &to->map, &leaf);
		if (r == 0)
			r = leaf_co_load(t, from, leaf, a);
		if (r == 0)
			r = leaf_co_load(t, to, leaf, b);
		at = MAX(*cluster, leaf * THIN_MAP_PER_LEAF);
		for (i = (unsigned)(at % THIN_MAP_PER_LEAF); r == 0 && i < THIN_MAP_PER_LEAF; i++) {
			struct thin_entry x = thin_entry_load(&a[i]), y = thin_entry_load(&b[i]);

			*mask = entry_diff(&x, &y);
			if (!*mask)
				continue;
			*data = (y.own_mask | y.base_mask) & *mask;
			*cluster = leaf * THIN_MAP_PER_LEAF + i;
			goto out;
		}
	}
out:
	xfree(a);
	return r;
}
