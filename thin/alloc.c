/*
 * alloc.c: handing out free clusters.
 *
 * What is on disk is one reference count per cluster; zero is free. What must not be handed out although its count is zero
 * has a note: leased clusters (a volume may be writing there, its record has not been applied), and freed ones in
 * quarantine until the record that freed them is durable and their volume has released them. A crash forgets all notes,
 * and rightly: leases were never referenced, and what was freed durably is free.
 *
 * Groups are searched through the group-stat array, one class (layout) at a time, from where the last search stopped, and
 * used up before the next, so that sequential writes land on whole stripes.
 */
#include <string.h>

#include "engine/base/mutant.h"
#include "thin/home_internal.h"

#define REFS_PER_LEAF (META_PAGE_BYTES / 4)
#define STATS_PER_LEAF (META_PAGE_BYTES / sizeof(struct thin_group_disk))

void thin_alloc_init(struct thin *t)
{
	hash_init(&t->notes);
	hash_init(&t->groups);
	list_init(&t->freed);
	list_init(&t->groups_lru);
	co_mutex_init(&t->alloc_mutex);
}

static bool note_fini(struct hash_node *n, void *arg)
{
	xfree(container_of(n, struct cluster_note, node));
	return true;
}

static bool group_fini(struct hash_node *n, void *arg)
{
	struct alloc_group *g = container_of(n, struct alloc_group, node);

	xfree(g->busy);
	xfree(g);
	return true;
}

void thin_alloc_fini(struct thin *t)
{
	hash_each(&t->notes, note_fini, NULL);
	hash_fini(&t->notes);
	hash_each(&t->groups, group_fini, NULL);
	hash_fini(&t->groups);
}

/* ---- notes ---- */

static struct cluster_note *note_find(struct thin *t, uint64_t cluster)
{
	struct hash_node *n = hash_find(&t->notes, cluster);

	return n ? container_of(n, struct cluster_note, node) : NULL;
}

static struct cluster_note *note_get(struct thin *t, uint64_t cluster)
{
	struct cluster_note *note = note_find(t, cluster);

	if (note)
		return note;
	note = xcalloc(1, sizeof(*note));
	list_init(&note->link);
	hash_add(&t->notes, &note->node, cluster);
	return note;
}

static void note_drop(struct thin *t, struct cluster_note *note)
{
	list_del(&note->link);
	hash_del(&t->notes, &note->node);
	xfree(note);
}

bool thin_alloc_is_held(struct thin *t, uint64_t cluster)
{
	return note_find(t, cluster) != NULL;
}

static struct alloc_group *group_find(struct thin *t, uint64_t group)
{
	struct hash_node *n = hash_find(&t->groups, group);

	return n ? container_of(n, struct alloc_group, node) : NULL;
}

static bool bit_get(const uint8_t *v, unsigned i)
{
	return v[i / 8] >> (i % 8) & 1;
}

static void bit_set(uint8_t *v, unsigned i)
{
	v[i / 8] |= (uint8_t)(1u << (i % 8));
}

static void bit_clear(uint8_t *v, unsigned i)
{
	v[i / 8] &= (uint8_t)~(1u << (i % 8));
}

/* The cluster can be handed out again. */
static void cluster_is_free(struct thin *t, uint64_t cluster)
{
	struct alloc_group *g = group_find(t, cluster / t->clusters_per_group);
	unsigned i, bit = (unsigned)(cluster % t->clusters_per_group);

	if (g && bit_get(g->busy, bit)) {
		bit_clear(g->busy, bit);
		g->n_free++;
	}
	for (i = 0; i < t->n_classes; i++)
		t->classes[i].exhausted = false;
	if (t->full)
		thin_space_changed(t);
}

void thin_alloc_used(struct thin *t, uint64_t cluster)
{
	struct cluster_note *note = note_find(t, cluster);
	struct alloc_group *g = group_find(t, cluster / t->clusters_per_group);
	unsigned bit = (unsigned)(cluster % t->clusters_per_group);

	if (g && !bit_get(g->busy, bit)) {
		bit_set(g->busy, bit);
		g->n_free--;
	}
	if (note && note->leased) {
		note->leased = false;
		if (!note->released) /* else a record that is still to come frees it again */
			note_drop(t, note);
	}
}

int thin_alloc_freed(struct thin *t, uint64_t cluster, uint64_t seq)
{
	struct cluster_note *note;

	if (t->replaying)
		return 0; /* nothing is handed out before the checkpoint that ends the replay */
	note = note_get(t, cluster);
	if (note->leased || note->freed)
		return -ERR_FORMAT; /* counts that were wrong on disk */
	note->freed = true;
	note->freed_seq = seq;
	list_push_back(&t->freed, &note->link);
	return 0;
}

static void note_settle(struct thin *t, struct cluster_note *note)
{
	uint64_t cluster = note->node.key;

	if (!note->freed || (!note->durable && !MUTANT(REUSE_AT_ONCE)) || !note->released)
		return;
	note_drop(t, note);
	cluster_is_free(t, cluster);
}

void thin_alloc_release(struct thin *t, uint64_t cluster)
{
	struct cluster_note *note = note_get(t, cluster); /* may come before the record has been applied */

	note->released = true;
	note_settle(t, note);
}

void thin_durable(struct thin *t, uint64_t seq)
{
	struct cluster_note *note, *next;

	list_for_each_safe (note, next, &t->freed, link) {
		if (note->freed_seq > seq)
			break;
		list_del(&note->link);
		note->durable = true;
		note_settle(t, note);
	}
}

void thin_alloc_return(struct thin *t, uint64_t cluster)
{
	struct cluster_note *note = note_find(t, cluster);

	CHECK(note && note->leased);
	note_drop(t, note);
	cluster_is_free(t, cluster);
}

/* ---- groups ---- */

static int group_co_load(struct thin *t, uint64_t group, struct alloc_group *g)
{
	uint64_t n = t->clusters_per_group, first = group * n, i, k;
	le32 *refs = xaligned(16, META_PAGE_BYTES);
	int r = 0;

	for (i = 0; i < n && r >= 0; i += k) {
		uint64_t at = (first + i) % REFS_PER_LEAF, c;

		k = MIN(n - i, REFS_PER_LEAF - at);
		r = meta_array_co_leaf(t->refs, (first + i) / REFS_PER_LEAF, refs);
		for (c = 0; c < k && r >= 0; c++) { /* nothing suspends: counts and notes are of one moment */
			unsigned bit = (unsigned)(i + c);
			bool busy = le32_get(refs[at + c]) || note_find(t, first + bit);

			if (busy != bit_get(g->busy, bit)) {
				if (busy) {
					bit_set(g->busy, bit);
					g->n_free--;
				} else {
					bit_clear(g->busy, bit);
					g->n_free++;
				}
			}
		}
	}
	xfree(refs);
	return r < 0 ? r : 0;
}

static void groups_trim(struct thin *t)
{
	struct alloc_group *g, *next;

	list_for_each_safe (g, next, &t->groups_lru, link) {
		if (t->n_groups <= ALLOC_GROUPS_MAX)
			return;
		if (g->users || g->loading)
			continue;
		hash_del(&t->groups, &g->node);
		list_del(&g->link);
		t->n_groups--;
		xfree(g->busy);
		xfree(g);
	}
}

/* Coroutine. Under alloc_mutex. *out may be used until the next suspension without it. */
static int group_co_get(struct thin *t, uint64_t group, struct alloc_group **out)
{
	struct alloc_group *g = group_find(t, group);
	size_t bytes = DIV_UP(t->clusters_per_group, 8);
	int r;

	if (g) {
		list_del(&g->link);
		list_push_back(&t->groups_lru, &g->link);
		*out = g;
		return 0;
	}
	groups_trim(t);
	g = xcalloc(1, sizeof(*g));
	g->busy = xmalloc(bytes);
	memset(g->busy, 0xff, bytes);
	g->loading = true;
	hash_add(&t->groups, &g->node, group);
	list_push_back(&t->groups_lru, &g->link);
	t->n_groups++;
	r = group_co_load(t, group, g);
	g->loading = false;
	if (r < 0) {
		hash_del(&t->groups, &g->node);
		list_del(&g->link);
		t->n_groups--;
		xfree(g->busy);
		xfree(g);
		return r;
	}
	*out = g;
	return 0;
}

/* Takes up to n clusters, neighbours first. */
static unsigned group_take(struct thin *t, uint64_t group, struct alloc_group *g, uint64_t *clusters, unsigned n)
{
	unsigned total = (unsigned)t->clusters_per_group, i, taken = 0, seen;

	for (i = g->cursor, seen = 0; seen < total && taken < n && g->n_free; seen++, i = (i + 1) % total) {
		struct cluster_note *note;

		if (bit_get(g->busy, i))
			continue;
		bit_set(g->busy, i);
		g->n_free--;
		clusters[taken++] = group * total + i;
		note = note_get(t, group * total + i);
		CHECK(!note->leased && !note->freed);
		note->leased = true;
		g->cursor = (i + 1) % total;
	}
	return taken;
}

static struct alloc_class *class_get(struct thin *t, struct thin_class cls)
{
	unsigned i;

	for (i = 0; i < t->n_classes; i++)
		if (t->classes[i].cls.layout == cls.layout && t->classes[i].cls.copies == cls.copies)
			return &t->classes[i];
	CHECK(t->n_classes < ARRAY_LEN(t->classes));
	t->classes[t->n_classes] = (struct alloc_class){ .cls = cls, .group = UINT64_MAX };
	return &t->classes[t->n_classes++];
}

/* Coroutine. Goes over the groups of the class from c->scan to the end and over again; stops at one with a free cluster. */
static int class_co_search(struct thin *t, struct alloc_class *c)
{
	struct thin_group_disk *st = xaligned(16, META_PAGE_BYTES);
	uint64_t start = c->scan, leaf = start / STATS_PER_LEAF;
	bool wrapped = false;
	int r;

	for (;;) {
		uint64_t i = leaf == start / STATS_PER_LEAF && !wrapped ? start % STATS_PER_LEAF : 0;

		r = meta_array_co_next_leaf(t->stat, &leaf);
		if (r == -ENOENT || (wrapped && leaf > start / STATS_PER_LEAF)) {
			if (wrapped || !start) {
				r = -ENOENT;
				break;
			}
			wrapped = true;
			leaf = 0;
			continue;
		}
		if (r == 0)
			r = meta_array_co_leaf(t->stat, leaf, st);
		if (r < 0)
			break;
		for (; i < STATS_PER_LEAF; i++) {
			uint64_t group = leaf * STATS_PER_LEAF + i;
			struct alloc_group *g;

			if (st[i].kind != THIN_GROUP_DATA || st[i].layout != c->cls.layout || st[i].copies != c->cls.copies ||
			    le32_get(st[i].used) >= t->clusters_per_group)
				continue;
			r = group_co_get(t, group, &g);
			if (r < 0)
				goto out;
			if (g->n_free) {
				c->group = c->scan = group;
				goto out;
			}
		}
		leaf++;
	}
out:
	xfree(st);
	return r < 0 ? r : 0;
}

static int lease_co_locked(struct thin *t, struct alloc_class *c, uint64_t *clusters, unsigned *n)
{
	struct alloc_group *g;
	uint64_t group;
	int r;

	for (;;) {
		if (c->group != UINT64_MAX) {
			r = group_co_get(t, c->group, &g);
			if (r < 0)
				return r;
			if (g->n_free) {
				*n = group_take(t, c->group, g, clusters, *n);
				return 0;
			}
			c->group = UINT64_MAX;
		}
		r = c->exhausted ? -ENOENT : class_co_search(t, c);
		if (r == 0)
			continue;
		if (r != -ENOENT)
			return r;
		c->exhausted = true;
		r = t->conf.hooks->co_group_create(t->conf.ctx, c->cls, &group);
		t->tight = r < 0;
		if (r < 0)
			return r;
		c->exhausted = false;
		c->group = group; /* its counts are all zero, whether or not the record has been applied */
	}
}

/* Nothing in memory speaks of a cluster of this group. */
static bool group_is_idle(struct thin *t, uint64_t group)
{
	uint64_t i;
	unsigned k;

	for (k = 0; k < t->n_classes; k++)
		if (t->classes[k].group == group)
			return false;
	for (i = 0; i < t->clusters_per_group; i++)
		if (note_find(t, group * t->clusters_per_group + i))
			return false;
	return true;
}

static void group_drop(struct thin *t, uint64_t group)
{
	struct alloc_group *g = group_find(t, group);

	if (!g)
		return;
	hash_del(&t->groups, &g->node);
	list_del(&g->link);
	t->n_groups--;
	xfree(g->busy);
	xfree(g);
}

int thin_co_empty_group(struct thin *t, uint64_t *group)
{
	struct thin_group_disk *st = xaligned(16, META_PAGE_BYTES);
	uint64_t leaf = 0, i;
	int r;

	CHECK(t->alloc_mutex.owner == co_self());
	for (;; leaf++) {
		r = meta_array_co_next_leaf(t->stat, &leaf);
		if (r == 0)
			r = meta_array_co_leaf(t->stat, leaf, st);
		for (i = 0; i < STATS_PER_LEAF && r == 0; i++) {
			*group = leaf * STATS_PER_LEAF + i;
			if (st[i].kind != THIN_GROUP_DATA || le32_get(st[i].used) || !group_is_idle(t, *group))
				continue;
			group_drop(t, *group);
			xfree(st);
			return 0;
		}
		if (r < 0)
			break;
	}
	xfree(st);
	return r;
}

int thin_alloc_co_lease(struct thin *t, struct thin_class cls, uint64_t *clusters, unsigned *n)
{
	int r;

	co_mutex_lock(&t->alloc_mutex);
	r = t->stopping || meta_is_failed(t->m) ? -ERR_POOL_FAILED : lease_co_locked(t, class_get(t, cls), clusters, n);
	co_mutex_unlock(&t->alloc_mutex);
	if (r == -ERR_POOL_FULL)
		t->full = true;
	return r;
}

int thin_co_class_free(struct thin *t, struct thin_class cls, uint64_t *clusters)
{
	struct thin_group_disk *st = xaligned(16, META_PAGE_BYTES);
	uint64_t leaf = 0, i;
	int r;

	*clusters = 0;
	for (;; leaf++) {
		r = meta_array_co_next_leaf(t->stat, &leaf);
		if (r == 0)
			r = meta_array_co_leaf(t->stat, leaf, st);
		if (r < 0)
			break;
		for (i = 0; i < STATS_PER_LEAF; i++)
			if (st[i].kind == THIN_GROUP_DATA && st[i].layout == cls.layout && st[i].copies == cls.copies)
				*clusters += t->clusters_per_group - le32_get(st[i].used);
	}
	xfree(st);
	return r == -ENOENT ? 0 : r;
}

int thin_co_allocated(struct thin *t, uint64_t first_cluster, unsigned n, uint8_t *bits)
{
	unsigned i;
	int r;

	memset(bits, 0, DIV_UP(n, 8));
	for (i = 0; i < n; i++) {
		le32 refs;

		r = meta_array_co_get(t->refs, first_cluster + i, &refs);
		if (r < 0)
			return r;
		if (le32_get(refs) || note_find(t, first_cluster + i))
			bit_set(bits, i);
	}
	return 0;
}
