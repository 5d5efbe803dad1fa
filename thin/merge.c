/*
 * merge.c: own and base of an entry are brought together where that frees a cluster: nobody else has either of them any more,
 * because the snapshot that had the base is gone. What is left of the base is copied to own, which is not shared either.
 *
 * When the reaper (home.c) has taken everything from what was deleted, it goes over the volumes of the family here, and only
 * then is the deleted one gone: a crash in between leaves it, empty, and opening begins this anew. Home reads the map pages that a
 * volume shares with nobody; where it finds such entries it asks the volume's reactor, one leaf after the other. A volume that is
 * not open is opened for that, and closed afterwards. Work that can be deleted comes first: it frees more, and copies nothing.
 */
#include "engine/base/mutant.h"
#include "thin/home_internal.h"
#include "thin/volume_internal.h"

#define PAUSE_NS (200 * NS_PER_US) /* between leaves */

/* ---- the data path ---- */

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

static int open_there(void *arg)
{
	struct thin_vol *v = arg;
	int r = thin_volume_co_open(v->thin, v->id, v->size_bytes, v->cls, v->full_wait_ns, false, &v->open);

	if (r == 0)
		thin_volume_set_limits(v->open, &v->limits); /* it may be a client's next */
	return r;
}

static int close_there(void *arg)
{
	thin_volume_co_close(arg);
	return 0;
}

static int volume_co_open(struct thin *t, struct thin_vol *v)
{
	int r = 0;

	co_mutex_lock(&v->admin);
	if (v->leaving || t->stopping) {
		r = -EBUSY;
	} else if (!v->open) {
		r = reactor_co_call(thin_volume_home(t, v->id), open_there, v);
		v->open_to_merge = r == 0;
	}
	co_mutex_unlock(&v->admin);
	return r;
}

/* Unless somebody else needs it now. */
static void volume_co_close(struct thin *t, struct thin_vol *v)
{
	struct thin_volume *tv;
	int r;

	co_mutex_lock(&v->admin);
	tv = v->open_to_merge && !v->n_attached ? v->open : NULL;
	v->open_to_merge = false;
	if (tv) {
		v->open = NULL;
		r = reactor_co_call(thin_volume_home(t, v->id), close_there, tv);
		CHECK(r == 0);
	}
	co_mutex_unlock(&v->admin);
}

/* ---- home ---- */

/* How many bases of the leaf nobody else has. */
static int leaf_co_count(struct thin *t, const struct thin_entry_disk *d, unsigned *n)
{
	uint32_t count;
	unsigned i;
	int r = 0;

	*n = 0;
	for (i = 0; i < THIN_MAP_PER_LEAF && r == 0; i++) {
		struct thin_entry e = thin_entry_load(&d[i]);

		if (!e.own || !e.base)
			continue;
		r = thin_ref_co_get(t, e.base, &count);
		*n += r == 0 && count == 1;
	}
	return r;
}

static int leaf_co_merge(struct thin *t, struct thin_vol *v, uint64_t leaf, unsigned n)
{
	struct ask a = { .t = t, .volume = v->id, .leaf = leaf };
	int r = 0;

	if (t->conf.hooks->co_pace)
		r = t->conf.hooks->co_pace(t->conf.ctx, (uint64_t)n * t->conf.cluster_bytes);
	if (r == 0)
		r = volume_co_open(t, v);
	if (r < 0)
		return r;
	(void)!reactor_co_call(thin_volume_home(t, v->id), merge_there, &a); /* where copying fails the entries stay what they are */
	co_sleep_ns(PAUSE_NS);
	return 0;
}

/* Also 0 if map pages cannot be read. */
static int volume_co_merge(struct thin *t, struct thin_vol *v, uint64_t end)
{
	struct thin_entry_disk *d = xaligned(16, META_PAGE_BYTES);
	uint64_t leaf, began_ns;
	unsigned n;
	int r = 0;

	for (leaf = 0; r == 0 && leaf < end; leaf++) {
		began_ns = reactor_now_ns();
		if (meta_array_co_next_alone(&v->map, &leaf, d) < 0 || leaf >= end || leaf_co_count(t, d, &n) < 0)
			break;
		if (thin_reaper_has_more(t))
			r = -EAGAIN;
		else if (v->leaving || t->stopping)
			r = -EBUSY;
		else if (n)
			r = leaf_co_merge(t, v, leaf, n);
		else
			thin_reaper_co_rest(t, began_ns);
	}
	xfree(d);
	volume_co_close(t, v);
	return meta_is_failed(t->m) ? -ERR_POOL_FAILED : r;
}

/* The volumes of the family: the next one after `after`. The reaper alone frees them, so they stay while it is here. */
static struct thin_vol *family_next(struct thin *t, uint64_t family, uint64_t after)
{
	struct thin_vol *v;

	list_for_each (v, &t->vols, link)
		if (v->id > after && v->family == family && thin_vol_counts(v))
			return v;
	return NULL;
}

int thin_merge_co_family(struct thin *t, uint64_t family, uint64_t end)
{
	struct thin_vol *v = NULL;
	int r = 0;

	while (r == 0 && (v = family_next(t, family, v ? v->id : 0)))
		r = volume_co_merge(t, v, end);
	return r;
}

/* ---- the volume ---- */

/* Under the lock of the cluster, leaf pinned. Copies, then changes the entry. */
static int entry_co_merge(struct thin_volume *v, struct thin_leaf *l, unsigned i)
{
	struct thin_entry e = thin_entry_load(&l->entries[i]);
	/* What is there may be of a map that a crash brings back: nothing is said of it. */
	int r = MUTANT(MERGE_NOT_COPIED) ? 0 : thin_co_copy_subs(v, e.base, e.own, e.base_mask, 0);

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
