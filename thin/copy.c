/*
 * copy.c: copying from one volume to another, or within one, by sharing clusters: no data is read or written.
 *
 * An entry of the one map goes into the other as it is: the cluster has one more reference, and both entries say `shared`, so
 * that whoever writes next goes elsewhere (write.c). Step by step, for up to SHARE_STEP clusters:
 *   1. Both sides are locked, whole clusters, in the order of volume and offset, with their leaves pinned; both count as changing, so
 *      that a snapshot has all of the step or nothing.
 *   2. The source's cached entries become shared: overwrites that begin now take the slow path, and wait for the lock. Those under
 *      way are waited for.
 *   3. The target's reactor asks home for nothing: all records of the target's clusters have arrived there then.
 *   4. At home, without suspension, two records: the source's entries with their `shared`, then the target's. A crash keeps none, the
 *      first, which is harmless, or both. A leaf that is loaded after it has both, since it waits for the newest record of its volume.
 *   5. The target's cached entries change; what they have lost goes through the grace period. Overwrites of the target that were
 *      under way went to the old place: they may as well have come before the copy.
 * Data before metadata: what the source's map says has been written; a commit flushes the disks first, as always.
 *
 * An answer to thin_leaf_co_refresh() that was asked for before home knew must not undo step 2: l->sharing, l->marks.
 */
#include "engine/base/mutant.h"
#include "thin/home_internal.h"
#include "thin/volume_internal.h"

#define SHARE_STEP THIN_REC_MAP_ENTRIES_MAX

/* One side of a step. */
struct share_side {
	struct thin_volume *v;
	uint64_t first; /* cluster of the volume */
	unsigned n;
	bool is_target, waits;
	uint64_t lock_first, lock_n; /* clusters; 0: the other side has locked them */
	struct thin_leaf *leaf;
	struct range_hold hold, compare_hold;
};

struct share_step {
	struct thin *t;
	struct share_side src, dst;
	struct thin_entry entries[SHARE_STEP];
	bool keep_source; /* it never changes: nothing is to be said of it */
};

static struct thin_entry_disk *side_slot(struct share_side *s, unsigned i)
{
	return &s->leaf->entries[(s->first + i) % THIN_MAP_PER_LEAF];
}

/* ---- both sides, on their reactors ---- */

static int side_check(const struct share_side *s)
{
	const struct thin_volume *v = s->v;

	if (v->closing)
		return -ESHUTDOWN;
	if (v->forward)
		return -EOPNOTSUPP;
	if (s->is_target && v->bdev.read_only)
		return -EROFS;
	return s->first + s->n > v->bdev.size_bytes >> v->tr->cluster_shift ? -ERANGE : 0;
}

static int side_nothing(void *arg)
{
	return 0;
}

static void side_unlock(struct share_side *s)
{
	struct thin_volume *v = s->v;

	if (s->lock_n)
		range_unlock(&v->alloc_lock, &s->hold);
	if (s->is_target)
		range_unlock(&v->compare_lock, &s->compare_hold);
	if (--v->n_changing == 0 && v->gate)
		co_queue_wake_all(&v->still);
}

/* Coroutine. Not frozen, and no COMPARE AND WRITE in the target. -EAGAIN: it is, and may not wait for that: who freezes it may wait for the
 * other side. Nor may it count as changing while it waits for a compare: that may wait until somebody is done who freezes it. */
static int side_co_enter(struct share_side *s)
{
	struct thin_volume *v = s->v;
	uint64_t off = s->first << v->tr->cluster_shift, len = (uint64_t)s->n << v->tr->cluster_shift;

	for (;;) {
		while (v->gate && s->waits && !v->closing)
			co_queue_wait(&v->thawed);
		if (v->gate && !v->closing)
			return -EAGAIN;
		if (!s->is_target || range_try_lock(&v->compare_lock, off, len, true, &s->compare_hold))
			return 0;
		if (!s->waits)
			return -EAGAIN;
		range_co_lock(&v->compare_lock, off, len, true, &s->compare_hold);
		if (!v->gate || v->closing)
			return 0;
		range_unlock(&v->compare_lock, &s->compare_hold);
	}
}

/* Coroutine. -EAGAIN as above. */
static int side_co_begin(void *arg)
{
	struct share_side *s = arg;
	struct thin_volume *v = s->v;
	int r = side_check(s);

	if (r == 0)
		r = side_co_enter(s);
	if (r < 0)
		return r;
	v->n_changing++;
	if (s->lock_n)
		range_co_lock(&v->alloc_lock, s->lock_first * THIN_SUBS, s->lock_n * THIN_SUBS, false, &s->hold);
	r = side_check(s);
	if (r == 0)
		r = thin_leaf_co_get(v, s->first / THIN_MAP_PER_LEAF, &s->leaf);
	if (r < 0) {
		side_unlock(s);
		return r;
	}
	s->leaf->pins++;
	r = thin_credits_co_take(v->tr, true, 1);
	if (r == 0)
		r = reactor_co_call(v->t->conf.home, side_nothing, NULL);
	if (r < 0) {
		s->leaf->pins--;
		side_unlock(s);
	}
	return r;
}

static int side_end(void *arg)
{
	struct share_side *s = arg;

	s->leaf->pins--;
	side_unlock(s);
	return 0;
}

/* The same where nothing has come of it. */
static int side_undo(void *arg)
{
	struct share_side *s = arg;

	thin_credits_put(s->v->tr, true, 1);
	return side_end(s);
}

/* ---- the source ---- */

/* Coroutine. */
static void source_co_mark(struct share_step *p)
{
	struct share_side *s = &p->src;
	unsigned i;

	for (i = 0; i < s->n && !p->keep_source; i++) {
		struct thin_entry e = thin_entry_load(side_slot(s, i));

		if (!e.own_mask)
			continue;
		e.shared = true;
		thin_entry_store(&e, side_slot(s, i));
	}
	s->leaf->sharing++;
	if (!p->keep_source)
		thin_grace_co_wait(s->v);
	for (i = 0; i < s->n; i++) {
		struct thin_entry e = thin_entry_load(side_slot(s, i));

		p->entries[i] = e.own_mask ? e : (struct thin_entry){ 0 };
		p->entries[i].shared = e.own_mask != 0;
	}
}

/* Home knows now. */
static void source_marked(struct share_step *p)
{
	p->src.leaf->sharing--;
	p->src.leaf->marks++;
}

/* ---- home ---- */

static uint64_t record_one(struct thin *t, struct thin_vol *v, uint64_t first, const struct thin_entry *entries, unsigned n)
{
	struct {
		struct thin_rec_map rec;
		struct thin_entry_disk entries[SHARE_STEP];
	} map = { .rec = { le64_make(v->id), le64_make(first) } };
	unsigned i;

	for (i = 0; i < n; i++)
		thin_entry_store(&entries[i], &map.entries[i]);
	return meta_record(t->m, THIN_REC_MAP_SET, &map, sizeof(map.rec) + n * sizeof(map.entries[0]));
}

static int record_there(void *arg)
{
	struct share_step *p = arg;
	struct thin_vol *src = thin_vol_by_id(p->t, p->src.v->id), *dst = thin_vol_by_id(p->t, p->dst.v->id);

	if (!src || !dst)
		return -ESHUTDOWN;
	p->t->copied = true;
	if (!p->keep_source)
		record_one(p->t, src, p->src.first, p->entries, p->src.n);
	dst->last_seq = record_one(p->t, dst, p->dst.first, p->entries, p->dst.n);
	if (!p->keep_source)
		src->last_seq = dst->last_seq;
	return 0;
}

/* ---- the target ---- */

static bool has(const struct thin_entry *e, uint64_t cluster)
{
	return cluster == e->own || cluster == e->base;
}

static int target_finish(void *arg)
{
	struct share_step *p = arg;
	struct share_side *s = &p->dst;
	struct thin_volume *v = s->v;
	unsigned i;

	for (i = 0; i < s->n; i++) {
		struct thin_entry old = thin_entry_load(side_slot(s, i)), *to = &p->entries[i];

		if (old.own && !old.own_mask)
			thin_lease_return(v->t, &old.own, 1); /* of a write that has failed */
		else if (old.own && !has(to, old.own))
			thin_grace_free(v, old.own);
		if (old.base && old.base != old.own && !has(to, old.base))
			thin_grace_free(v, old.base);
		thin_entry_store(to, side_slot(s, i));
	}
	s->leaf->marks++;
	v->n_cleared = ++v->n_records; /* what was there a crash may bring back until it is durable */
	thin_grace_kick(v);
	return side_end(s);
}

/* ---- both ---- */

static struct reactor *side_home(const struct share_side *s)
{
	return thin_volume_home(s->v->t, s->v->id);
}

/* Within one volume one lock is for both, and all between: a second one might queue behind somebody who waits for the first. */
static void step_plan_locks(struct share_step *p)
{
	struct share_side *s = &p->src, *d = &p->dst;

	d->lock_first = d->first;
	d->lock_n = d->n;
	s->lock_first = s->first;
	s->lock_n = s->n;
	if (s->v != d->v)
		return;
	d->lock_first = MIN(s->first, d->first);
	d->lock_n = MAX(s->first, d->first) + d->n - d->lock_first;
	s->lock_n = 0;
}

/* Coroutine on the source's reactor. */
static int step_co_begin(struct share_step *p)
{
	bool src_first = p->src.v->id < p->dst.v->id;
	struct share_side *one = src_first ? &p->src : &p->dst, *two = src_first ? &p->dst : &p->src;
	int r;

	step_plan_locks(p);
	one->waits = true;
	for (;;) {
		r = reactor_co_call(side_home(one), side_co_begin, one);
		if (r < 0)
			return r;
		two->waits = false;
		r = reactor_co_call(side_home(two), side_co_begin, two);
		if (r >= 0)
			return 0;
		(void)reactor_co_call(side_home(one), side_undo, one);
		if (r != -EAGAIN)
			return r;
		co_sleep_ns(100 * NS_PER_US);
	}
}

static int step_co_run(struct share_step *p)
{
	int r = step_co_begin(p);

	if (r < 0)
		return r;
	source_co_mark(p);
	r = reactor_co_call(p->t->conf.home, record_there, p);
	source_marked(p);
	if (r < 0) {
		(void)reactor_co_call(side_home(&p->dst), side_undo, &p->dst);
		return side_undo(&p->src) < 0 ? -EIO : r;
	}
	(void)reactor_co_call(side_home(&p->dst), target_finish, p);
	if (p->keep_source)
		thin_credits_put(p->src.v->tr, true, 1);
	else
		p->src.v->n_records++;
	return side_end(&p->src);
}

/* Up to where a leaf of either side ends. */
static unsigned step_len(const struct share_step *p, uint64_t left)
{
	uint64_t n = MIN(left, SHARE_STEP);

	n = MIN(n, THIN_MAP_PER_LEAF - p->src.first % THIN_MAP_PER_LEAF);
	return (unsigned)MIN(n, THIN_MAP_PER_LEAF - p->dst.first % THIN_MAP_PER_LEAF);
}

static int hold_there(void *arg)
{
	struct thin_volume *v = arg;

	if (v->closing)
		return -ESHUTDOWN;
	v->n_inflight++;
	return 0;
}

static int let_go_there(void *arg)
{
	struct thin_volume *v = arg;

	if (--v->n_inflight == 0 && v->closing)
		co_queue_wake_all(&v->idle);
	return 0;
}

static bool can_share(struct thin_volume *src, uint64_t src_off, struct thin_volume *dst, uint64_t dst_off, uint64_t len)
{
	uint64_t mask = src->tr->cluster_bytes - 1;

	if (src->t != dst->t || (src_off | dst_off | len) & mask)
		return false;
	if (src == dst && src_off < dst_off + len && dst_off < src_off + len)
		return false;
	return src->pool->cls.layout == dst->pool->cls.layout && src->pool->cls.copies == dst->pool->cls.copies;
}

int thin_volume_co_share(struct thin_volume *src, uint64_t src_off, struct thin_volume *dst, uint64_t dst_off, uint64_t len, uint64_t *done)
{
	unsigned shift = src->tr->cluster_shift;
	struct share_step *p;
	int r;

	*done = 0;
	CHECK(reactor_self() == thin_volume_home(src->t, src->id));
	if (!can_share(src, src_off, dst, dst_off, len))
		return -EOPNOTSUPP;
	r = hold_there(src);
	if (r < 0)
		return r;
	p = xcalloc(1, sizeof(*p)); /* entries are too much for a stack */
	r = reactor_co_call(thin_volume_home(dst->t, dst->id), hold_there, dst);
	if (r == 0) {
		while (r == 0 && *done < len) {
			*p = (struct share_step){ .t = src->t, .keep_source = src->bdev.read_only || MUTANT(SHARED_IN_ONE_PLACE) };
			p->src = (struct share_side){ .v = src, .first = (src_off + *done) >> shift };
			p->dst = (struct share_side){ .v = dst, .first = (dst_off + *done) >> shift, .is_target = true };
			p->src.n = p->dst.n = step_len(p, (len - *done) >> shift);
			r = step_co_run(p);
			if (r == 0)
				*done += (uint64_t)p->src.n << shift;
		}
		(void)reactor_co_call(thin_volume_home(dst->t, dst->id), let_go_there, dst);
	}
	xfree(p);
	(void)let_go_there(src);
	return r;
}
