/*
 * merge.c: own and base of an entry are brought together where that frees a cluster: nobody else has either of them any more,
 * because the snapshot that had the base is gone. What is left of the base is copied to own, which is not shared either.
 *
 * Home notes which leaves a deletion has touched; a service coroutine goes through them and asks the volumes of the family
 * that are open, one leaf after the other. A volume that is not open keeps its bases: they cost space, and nothing else.
 */
#include "thin/home_internal.h"
#include "thin/volume_internal.h"

#define MERGES_MAX 65536 /* leaves noted */
#define PAUSE_NS (200 * NS_PER_US) /* between leaves */

/* ---- home ---- */

struct merge {
	struct list link; /* t->merges */
	uint64_t family, leaf;
};

void thin_merge_init(struct thin *t)
{
	list_init(&t->merges);
	co_queue_init(&t->merger);
	co_queue_init(&t->merger_end);
}

void thin_merge_fini(struct thin *t)
{
	struct list *n;

	while ((n = list_pop_front(&t->merges)))
		xfree(list_entry(n, struct merge, link));
}

void thin_merge_want(struct thin *t, uint64_t family, uint64_t leaf)
{
	struct merge *m;

	if (!t->started || t->stopping || t->n_merges >= MERGES_MAX)
		return;
	m = xmalloc(sizeof(*m));
	m->family = family;
	m->leaf = leaf;
	list_init(&m->link);
	list_push_back(&t->merges, &m->link);
	t->n_merges++;
	co_queue_wake_all(&t->merger);
}

struct ask {
	struct thin *t;
	uint64_t volume, leaf;
};

/* On the volume's reactor. It may have been closed meanwhile. */
static int merge_there(void *arg)
{
	const struct ask *a = arg;
	struct thin_volume *v;

	list_for_each (v, &thin_reactor_of(a->t, reactor_self()->index)->volumes, link)
		if (v->id == a->volume)
			return thin_volume_co_merge(v, a->leaf);
	return 0;
}

/* The volumes of the family: the next one after `after` that is open. */
static struct thin_vol *family_next(struct thin *t, uint64_t family, uint64_t after)
{
	struct thin_vol *v;

	list_for_each (v, &t->vols, link)
		if (v->id > after && v->family == family && thin_vol_counts(v) && v->open && !v->leaving)
			return v;
	return NULL;
}

static void merge_co_one(struct thin *t, const struct merge *m)
{
	struct ask a = { .t = t, .leaf = m->leaf };
	struct thin_vol *v;
	int r = 0;

	while (r == 0 && !t->stopping && (v = family_next(t, m->family, a.volume))) {
		a.volume = v->id;
		r = reactor_co_call(thin_volume_home(t, v->id), merge_there, &a);
	} /* after an error the entries stay what they are */
}

/* Service coroutine. */
static void merger_co_run(void *arg)
{
	struct thin *t = arg;
	struct merge *m;

	while (!t->stopping && !meta_is_failed(t->m)) {
		if (list_is_empty(&t->merges)) {
			co_queue_wait(&t->merger);
			continue;
		}
		m = list_entry(list_pop_front(&t->merges), struct merge, link);
		t->n_merges--;
		merge_co_one(t, m);
		xfree(m);
		co_sleep_ns(PAUSE_NS);
	}
	t->merger_runs = false;
	co_queue_wake_all(&t->merger_end);
}

void thin_merge_start(struct thin *t)
{
	t->merger_runs = true;
	co_spawn(CO_SERVICE, merger_co_run, t, "merger");
}

void thin_merge_co_stop(struct thin *t)
{
	co_queue_wake_all(&t->merger);
	while (t->merger_runs)
		co_queue_wait(&t->merger_end);
}

/* ---- the volume ---- */

/* Under the lock of the cluster, leaf pinned. Copies, then changes the entry. */
static int entry_co_merge(struct thin_volume *v, struct thin_leaf *l, unsigned i)
{
	struct thin_entry e = thin_entry_load(&l->entries[i]);
	/* What is there may be of a map that a crash brings back: nothing is said of it. */
	int r = thin_co_copy_subs(v, e.base, e.own, e.base_mask, 0);

	if (r < 0)
		return r;
	thin_grace_free(v, e.base);
	e = (struct thin_entry){ .own = e.own, .own_mask = e.own_mask | e.base_mask };
	thin_entry_store(&e, &l->entries[i]);
	thin_map_hand_in(v, l->node.key * THIN_MAP_PER_LEAF + i, &e, 1);
	thin_grace_kick(v);
	thin_count(&v->merged, 1);
	return 0;
}

/* Coroutine. Overwrites on the fast path go to own without a lock, to subclusters that it has: they do no harm. */
static int entry_co_try(struct thin_volume *v, struct thin_leaf *l, unsigned i)
{
	uint64_t at = (l->node.key * THIN_MAP_PER_LEAF + i) * THIN_SUBS;
	struct thin_entry was = thin_entry_load(&l->entries[i]), e;
	struct range_hold hold;
	int r;

	if (!was.own || !was.base || was.shared)
		return 0;
	r = thin_credits_co_take(v->tr, false, 1);
	if (r < 0)
		return r;
	range_co_lock(&v->alloc_lock, at, THIN_SUBS, false, &hold);
	e = thin_entry_load(&l->entries[i]);
	if (!v->closing && !v->gate && e.own == was.own && e.base == was.base && !e.shared)
		r = entry_co_merge(v, l, i);
	else
		thin_credits_put(v->tr, false, 1);
	range_unlock(&v->alloc_lock, &hold);
	return r;
}

int thin_volume_co_merge(struct thin_volume *v, uint64_t leaf)
{
	uint64_t bits[THIN_MAP_PER_LEAF / 64];
	struct thin_leaf *l;
	unsigned i;
	int r;

	if (v->closing || v->gate || v->bdev.read_only)
		return 0;
	v->n_inflight++;
	v->n_changing++;
	r = thin_leaf_co_get(v, leaf, &l);
	if (r == 0) {
		l->pins++;
		r = thin_leaf_co_refresh(l);
		if (r == 0)
			r = thin_co_bases_alone(v->t, v->id, leaf, bits);
		for (i = 0; i < THIN_MAP_PER_LEAF && r == 0; i++)
			if (bits[i / 64] >> (i % 64) & 1)
				r = entry_co_try(v, l, i);
		l->pins--;
	}
	if (--v->n_changing == 0 && v->gate)
		co_queue_wake_all(&v->still);
	if (--v->n_inflight == 0 && v->closing)
		co_queue_wake_all(&v->idle);
	return r;
}
