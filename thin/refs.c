/*
 * refs.c: how many map leaves refer to a cluster.
 *
 * The stored count is exact but for additions that are still to be made: a leaf that is copied, because a snapshot has it
 * too, adds one to each of its up to 512 clusters, which may lie all over the pool. They are kept in memory, and folded in
 * sorted when there are many, and before every checkpoint; a crash replays the records that made them. A reference that goes
 * is taken from these first, so a snapshot that is soon deleted costs no stored count at all.
 */
#include <stdlib.h>
#include <string.h>

#include "thin/home_internal.h"

struct ref_delta {
	struct hash_node node; /* by cluster */
	uint32_t n;
};

void thin_refs_init(struct thin *t)
{
	hash_init(&t->deltas);
}

static bool delta_fini(struct hash_node *n, void *arg)
{
	xfree(container_of(n, struct ref_delta, node));
	return true;
}

void thin_refs_fini(struct thin *t)
{
	hash_each(&t->deltas, delta_fini, NULL);
	hash_fini(&t->deltas);
}

static struct ref_delta *delta_find(struct thin *t, uint64_t cluster)
{
	struct hash_node *n = t->n_deltas ? hash_find(&t->deltas, cluster) : NULL;

	return n ? container_of(n, struct ref_delta, node) : NULL;
}

static void delta_drop(struct thin *t, struct ref_delta *d)
{
	hash_del(&t->deltas, &d->node);
	t->n_deltas--;
	xfree(d);
}

void thin_ref_add(struct thin *t, uint64_t cluster)
{
	struct ref_delta *d = delta_find(t, cluster);

	if (d) {
		d->n++;
		return;
	}
	d = xmalloc(sizeof(*d));
	d->n = 1;
	hash_add(&t->deltas, &d->node, cluster);
	t->n_deltas++;
}

int thin_ref_co_get(struct thin *t, uint64_t cluster, uint32_t *count)
{
	struct ref_delta *d;
	uint64_t version;
	le32 refs;
	int r;

	do { /* they may be folded while we read */
		version = t->refs->version;
		r = meta_array_co_get(t->refs, cluster, &refs);
	} while (r == 0 && version != t->refs->version);
	d = delta_find(t, cluster);
	*count = le32_get(refs) + (d ? d->n : 0);
	return r;
}

/* The stored count. */
static int stored_change(struct thin *t, uint64_t cluster, int64_t delta, uint32_t *old, uint32_t *now)
{
	void *entry;
	le32 refs;
	int r = meta_array_co_edit(t->refs, cluster, &entry);

	if (r < 0)
		return r;
	memcpy(&refs, entry, sizeof(refs));
	*old = le32_get(refs);
	if (*old + delta < 0 || *old + delta > UINT32_MAX)
		return -ERR_FORMAT;
	*now = (uint32_t)(*old + delta);
	refs = le32_make(*now);
	memcpy(entry, &refs, sizeof(refs));
	return 0;
}

/* The count has gone to zero, or come from there. */
static int used_change(struct thin *t, uint64_t cluster, int delta)
{
	struct thin_group_disk *st;
	void *entry;
	int r = meta_array_co_edit(t->stat, cluster / t->clusters_per_group, &entry);

	if (r < 0)
		return r;
	st = entry;
	if (st->kind != THIN_GROUP_DATA || (delta < 0 && !le32_get(st->used)))
		return -ERR_FORMAT;
	st->used = le32_make((uint32_t)((int64_t)le32_get(st->used) + delta));
	t->clusters_used += (uint64_t)(int64_t)delta;
	return 0;
}

int thin_ref_co_change(struct thin *t, uint64_t cluster, int delta, uint64_t seq, bool released)
{
	struct ref_delta *d = delta < 0 ? delta_find(t, cluster) : NULL;
	uint32_t old, now;
	int r;

	if (d) {
		if (--d->n == 0)
			delta_drop(t, d);
		t->lost_seq = seq;
		if (!released)
			thin_alloc_lost(t, cluster);
		return 0;
	}
	r = stored_change(t, cluster, delta, &old, &now);
	if (r < 0)
		return r;
	if (delta < 0 && !released)
		thin_alloc_lost(t, cluster);
	if (delta < 0 && now)
		t->lost_seq = seq;
	if (old && now)
		return 0;
	/* Before anything suspends: who loads the group now must not take the cluster for one that is free. */
	r = now ? 0 : thin_alloc_freed(t, cluster, seq);
	if (r == 0)
		r = used_change(t, cluster, delta);
	if (r == 0 && now)
		thin_alloc_used(t, cluster);
	return r;
}

static int cluster_cmp(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Those that lie in the same leaf as the first; returns how many. */
static int fold_co_leaf(struct thin *t, const uint64_t *clusters, unsigned n)
{
	uint64_t per = meta_array_per_leaf(t->refs), leaf = clusters[0] / per;
	void *entry;
	unsigned i;
	int r = meta_array_co_edit(t->refs, clusters[0], &entry);

	for (i = 0; r == 0 && i < n && clusters[i] / per == leaf; i++) { /* nothing suspends */
		struct ref_delta *d = delta_find(t, clusters[i]);
		uint8_t *at = (uint8_t *)entry + (clusters[i] - clusters[0]) * sizeof(le32);
		uint64_t now;
		le32 refs;

		memcpy(&refs, at, sizeof(refs));
		now = (uint64_t)le32_get(refs) + d->n;
		if (!le32_get(refs) || now > UINT32_MAX)
			return -ERR_FORMAT;
		refs = le32_make((uint32_t)now);
		memcpy(at, &refs, sizeof(refs));
		delta_drop(t, d);
	}
	return r < 0 ? r : (int)i;
}

int thin_refs_co_fold(struct thin *t)
{
	uint64_t *v = xmalloc((t->n_deltas + 1u) * sizeof(*v));
	unsigned n = 0, i;
	struct hash_node *h;
	size_t b;
	int r = 0;

	for (b = 0; t->n_deltas && b < t->deltas.n_buckets; b++)
		for (h = t->deltas.buckets[b]; h; h = h->next)
			v[n++] = h->key;
	qsort(v, n, sizeof(*v), cluster_cmp);
	for (i = 0; i < n && r >= 0; i += (unsigned)r)
		r = fold_co_leaf(t, v + i, n - i);
	xfree(v);
	return r < 0 ? r : 0;
}
