/*
 * alloc.c: handing out free clusters.
 *
 * What is on disk is one reference count per cluster; zero is free. What must not be handed out although its count is zero
 * has a note: leased clusters (a volume may be writing there, its record has not been applied), and freed ones in
 * quarantine until the record that freed them is durable and every volume that had them has released them. A crash forgets
 * all notes, and rightly: leases were never referenced, and what was freed durably is free.
 *
 * Releases are counted against losses, because neither says which of several references it is about: a volume releases when
 * its requests have ended, which may be before its record is applied here or after, and others may lose theirs meanwhile.
 *
 * Groups are searched through the group-stat array, one class (layout) at a time, from where the last search stopped, and
 * used up before the next, so that sequential writes land on whole stripes.
 *
 * Leases of runs are for large writes to parity layouts: they come out of long runs of free clusters only, from a group of
 * their own if there are several, and leave the holes to those who write little. They are a favour: where free space has
 * become scattered there are none, and no group is made for them while others of the class are half empty.
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
	co_queue_init(&t->starving);
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
	t->n_quarantine -= note->freed;
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
	co_queue_wake_all(&t->starving);
	if (t->full)
		thin_space_changed(t);
}

/* Drops a note that says nothing any more, and hands the cluster back if it has been freed. */
static void note_settle(struct thin *t, struct cluster_note *note)
{
	uint64_t cluster = note->node.key;
	bool freed = note->freed;

	if (note->leased || note->unreleased || (freed && !note->durable && !MUTANT(REUSE_AT_ONCE)))
		return;
	note_drop(t, note);
	if (freed)
		cluster_is_free(t, cluster);
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
		note_settle(t, note); /* released already: a record that is still to come frees it again */
	}
}

void thin_alloc_lost(struct thin *t, uint64_t cluster)
{
	struct cluster_note *note;

	if (t->replaying)
		return; /* nobody is there to release it */
	note = note_get(t, cluster);
	note->unreleased++;
	note_settle(t, note);
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
	t->n_quarantine++;
	note->freed_seq = seq;
	list_push_back(&t->freed, &note->link);
	note_settle(t, note);
	return 0;
}

void thin_alloc_release(struct thin *t, uint64_t cluster)
{
	struct cluster_note *note = note_get(t, cluster); /* may come before the record has been applied */

	note->unreleased--;
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

	CHECK(note && note->leased && !note->unreleased);
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

static uint64_t cluster_lease(struct thin *t, uint64_t group, struct alloc_group *g, unsigned i)
{
	uint64_t cluster = group * t->clusters_per_group + i;
	struct cluster_note *note = note_get(t, cluster);

	CHECK(!note->leased && !note->freed && !note->unreleased);
	note->leased = true;
	bit_set(g->busy, i);
	g->n_free--;
	return cluster;
}

/* Takes up to n clusters, neighbours first. */
static unsigned group_take(struct thin *t, uint64_t group, struct alloc_group *g, uint64_t *clusters, unsigned n)
{
	unsigned total = (unsigned)t->clusters_per_group, i, taken = 0, seen;

	for (i = g->cursor, seen = 0; seen < total && taken < n && g->n_free; seen++, i = (i + 1) % total) {
		if (bit_get(g->busy, i))
			continue;
		clusters[taken++] = cluster_lease(t, group, g, i);
		g->cursor = (i + 1) % total;
	}
	return taken;
}

/* Where the next long run of free clusters begins; clusters_per_group: there is none. */
static unsigned group_run_find(const struct thin *t, const struct alloc_group *g)
{
	unsigned total = (unsigned)t->clusters_per_group, want = MIN(ALLOC_RUN, total / 4), from = g->run_cursor, i, len, pass;

	if (g->n_free < want)
		return total;
	for (pass = 0; pass < 2; pass++, from = 0) {
		for (i = from, len = 0; i < total; i++) {
			len = bit_get(g->busy, i) ? 0 : len + 1;
			if (len == want)
				return i + 1 - want;
		}
	}
	return total;
}

/* Takes up to n neighbours out of a long run; 0: there is none. */
static unsigned group_take_run(struct thin *t, uint64_t group, struct alloc_group *g, uint64_t *clusters, unsigned n)
{
	unsigned i = group_run_find(t, g), taken;

	for (taken = 0; taken < n && i < t->clusters_per_group && !bit_get(g->busy, i); taken++, i++)
		clusters[taken] = cluster_lease(t, group, g, i);
	g->run_cursor = i % (unsigned)t->clusters_per_group;
	return taken;
}

static struct alloc_class *class_get(struct thin *t, struct thin_class cls)
{
	unsigned i;

	for (i = 0; i < t->n_classes; i++)
		if (t->classes[i].cls.layout == cls.layout && t->classes[i].cls.copies == cls.copies)
			return &t->classes[i];
	CHECK(t->n_classes < ARRAY_LEN(t->classes));
	t->classes[t->n_classes] = (struct alloc_class){ .cls = cls, .group = UINT64_MAX, .run_group = UINT64_MAX };
	return &t->classes[t->n_classes++];
}

struct search {
	bool runs;	/* for a long run, not just for a free cluster */
	bool scattered; /* there was a group that has space and no run */
	unsigned loads;
};

/* Coroutine. 1: the group will do, and has become the class's. */
static int group_co_try(struct thin *t, struct alloc_class *c, uint64_t group, struct search *s)
{
	struct alloc_group *g;
	int r = group_co_get(t, group, &g);

	if (r < 0)
		return r;
	if (!s->runs) {
		if (g->n_free)
			c->group = c->scan = group;
		return g->n_free != 0;
	}
	if (group_run_find(t, g) < t->clusters_per_group) {
		c->run_group = c->run_scan = group;
		return 1;
	}
	s->scattered |= g->n_free >= t->clusters_per_group / 8;
	c->run_scan = group + 1;
	return ++s->loads < ALLOC_RUN_LOADS ? 0 : -ENOENT; /* enough for now: what was freed a moment ago is not free yet */
}

/* Coroutine. Goes over the groups of the class from where the last search stopped to the end and over again; stops at one
 * that will do. -ENOENT: there is none. */
static int class_co_search(struct thin *t, struct alloc_class *c, struct search *s)
{
	struct thin_group_disk *st = xaligned(16, META_PAGE_BYTES);
	uint64_t start = s->runs ? c->run_scan : c->scan, leaf = start / STATS_PER_LEAF;
	uint64_t used_max = s->runs ? t->clusters_per_group / 8 * 7 : t->clusters_per_group - 1;
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
			if (st[i].kind != THIN_GROUP_DATA || st[i].layout != c->cls.layout || st[i].copies != c->cls.copies ||
			    le32_get(st[i].used) > used_max)
				continue;
			r = group_co_try(t, c, leaf * STATS_PER_LEAF + i, s);
			if (r)
				goto out;
		}
		leaf++;
	}
out:
	xfree(st);
	return r < 0 ? r : 0;
}

static int class_co_create(struct thin *t, struct alloc_class *c, uint64_t *group)
{
	int r = t->conf.hooks->co_group_create(t->conf.ctx, c->cls, group);

	t->tight = r < 0;
	return r; /* its counts are all zero, whether or not the record has been applied */
}

static int lease_co_locked(struct thin *t, struct alloc_class *c, uint64_t *clusters, unsigned *n)
{
	struct search s = { 0 };
	struct alloc_group *g;
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
		r = c->exhausted ? -ENOENT : class_co_search(t, c, &s);
		if (r == -ENOENT && c->run_group != UINT64_MAX) /* too new to be found, perhaps */
			r = group_co_try(t, c, c->run_group, &s) ?: -ENOENT;
		if (r >= 0)
			continue;
		if (r != -ENOENT)
			return r;
		c->exhausted = true;
		r = class_co_create(t, c, &c->group);
		if (r < 0)
			return r;
		c->exhausted = false;
	}
}

static int runs_co_locked(struct thin *t, struct alloc_class *c, uint64_t *clusters, unsigned *n)
{
	struct search s = { .runs = true };
	struct alloc_group *g;
	unsigned taken;
	int r;

	for (;;) {
		if (t->n_starving)
			return -ERR_POOL_FULL;
		if (c->run_group != UINT64_MAX) {
			r = group_co_get(t, c->run_group, &g);
			if (r < 0)
				return r;
			taken = group_take_run(t, c->run_group, g, clusters, *n);
			if (taken) {
				*n = taken;
				return 0;
			}
			c->run_group = UINT64_MAX;
		}
		r = class_co_search(t, c, &s);
		if (r == -ENOENT && c->group != UINT64_MAX)
			r = group_co_try(t, c, c->group, &s) ?: -ENOENT;
		if (r >= 0)
			continue;
		if (r != -ENOENT || s.scattered)
			return r == -ENOENT ? -ERR_POOL_FULL : r;
		r = class_co_create(t, c, &c->run_group);
		if (r < 0)
			return r;
		c->exhausted = false;
	}
}

/* Nothing in memory speaks of a cluster of this group. */
static bool group_is_idle(struct thin *t, uint64_t group)
{
	uint64_t i;

	for (i = 0; i < t->clusters_per_group; i++)
		if (note_find(t, group * t->clusters_per_group + i))
			return false;
	return true;
}

static void group_drop(struct thin *t, uint64_t group)
{
	struct alloc_group *g = group_find(t, group);
	unsigned k;

	for (k = 0; k < t->n_classes; k++) {
		if (t->classes[k].group == group)
			t->classes[k].group = UINT64_MAX;
		if (t->classes[k].run_group == group)
			t->classes[k].run_group = UINT64_MAX;
	}
	if (!g)
		return;
	hash_del(&t->groups, &g->node);
	list_del(&g->link);
	t->n_groups--;
	xfree(g->busy);
	xfree(g);
}

void thin_co_alloc_lock(struct thin *t)
{
	co_mutex_lock(&t->alloc_mutex);
}

void thin_alloc_unlock(struct thin *t)
{
	co_mutex_unlock(&t->alloc_mutex);
}

int thin_co_empty_group(struct thin *t, uint64_t *group)
{
	struct thin_group_disk *st = xaligned(16, META_PAGE_BYTES);
	uint64_t leaf = *group / STATS_PER_LEAF, from = *group, i;
	int r;

	CHECK(t->alloc_mutex.owner == co_self());
	for (;; leaf++) {
		r = meta_array_co_next_leaf(t->stat, &leaf);
		if (r == 0)
			r = meta_array_co_leaf(t->stat, leaf, st);
		for (i = 0; i < STATS_PER_LEAF && r == 0; i++) {
			*group = leaf * STATS_PER_LEAF + i;
			if (*group < from || st[i].kind != THIN_GROUP_DATA || le32_get(st[i].used) || !group_is_idle(t, *group))
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

int thin_alloc_co_lease(struct thin *t, struct thin_class cls, bool runs, uint64_t *clusters, unsigned *n)
{
	int r;

	co_mutex_lock(&t->alloc_mutex);
	if (t->stopping || meta_is_failed(t->m))
		r = -ERR_POOL_FAILED;
	else if (runs)
		r = runs_co_locked(t, class_get(t, cls), clusters, n);
	else
		r = lease_co_locked(t, class_get(t, cls), clusters, n);
	co_mutex_unlock(&t->alloc_mutex);
	if (r == -ERR_POOL_FULL && !runs)
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

int thin_co_group_used(struct thin *t, uint64_t group, uint64_t *clusters)
{
	struct thin_group_disk st;
	int r = meta_array_co_get(t->stat, group, &st);

	*clusters = r < 0 || st.kind != THIN_GROUP_DATA ? 0 : le32_get(st.used);
	return r;
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
