/*
 * Groups: loading, admission, leases, freezing.
 *
 * Admission. Before a request may touch columns, several things must hold at one instant: the group is loaded, the range
 * is not frozen, its regions are in sync, and for writes to redundant groups they are leased and nobody else writes the
 * range (columns would end up different). Each may need a wait, and after each wait all of it is looked at again
 * (group_co_ready() returns 0 when it has waited). The range lock comes last; if getting it took a wait and something else
 * was lost meanwhile, it is given up again. So whoever waits holds nothing, and the step from "all holds" to "in flight"
 * does not suspend.
 *
 * Epochs. Requests in flight count in the group's epoch. A freeze closes the range, starts a new epoch and waits for the
 * old one to end: traffic outside the range cannot starve it. There is one freeze at a time, so two counters do.
 *
 * Leases. `lease` is what writes rely on; `held` what the pool believes we hold. They differ after a disk has gone: the
 * pool must be asked again, so that it records that the regions are being written without that disk; but what it granted
 * before must still be given back some day. `lease_seq` tells a grant that was under way when leases were dropped.
 *
 * A group's entry may exist without being loaded (NEW): it carries a freeze, or a load that failed and whose waiters are
 * still to be told. It goes with its last user.
 */
#include "raid/parity.h"
#include "raid/raid_impl.h"

static struct raid_group *group_get(struct raid *r, uint64_t number)
{
	struct raid_group *g = raid_group_find(r, number);

	if (!g) {
		g = xcalloc(1, sizeof(*g));
		g->raid = r;
		g->state = RAID_GROUP_NEW;
		co_queue_init(&g->changed);
		co_queue_init(&g->drained);
		for (unsigned i = 0; i < RAID_LOCKS; i++)
			range_lock_init(&g->locks[i]);
		hash_add(&r->groups, &g->node, number);
	}
	g->users++;
	return g;
}

static void group_put(struct raid_group *g)
{
	CHECK(g->users > 0);
	if (--g->users || g->inflight[0] || g->inflight[1] || g->n_forwarded)
		return;
	if (!g->forgotten) {
		if (g->state != RAID_GROUP_NEW || g->frozen_len_bytes)
			return;
		hash_del(&g->raid->groups, &g->node);
	}
	xfree(g->assembly);
	xfree(g);
}

static void group_update(struct raid_group *g)
{
	g->open = g->state == RAID_GROUP_LOADED && !g->blocked && !g->frozen_len_bytes;
}

static bool group_free_one(struct hash_node *n, void *arg)
{
	struct raid_group *g = container_of(n, struct raid_group, node);

	CHECK(!g->users && !g->inflight[0] && !g->inflight[1] && !g->n_forwarded);
	xfree(g->assembly); /* nothing is in it */
	xfree(g);
	return true;
}

void raid_groups_free(struct raid *r)
{
	hash_each(&r->groups, group_free_one, NULL);
	hash_fini(&r->groups);
}

/* ---- loading ---- */

static void group_set_info(struct raid_group *g, const struct raid_group_info *info)
{
	const struct raid_desc *d = &info->desc;

	g->desc = *d;
	g->parity = d->layout == RAID_RAID5 || d->layout == RAID_RAID6;
	g->level = g->parity ? &raid_level_parity : &raid_level_mirror;
	g->redundant = d->copies > 1 || g->parity;
	g->homed = info->homed || g->parity;
	g->checksummed = info->checksummed;
	g->shaping = info->shaping;
	g->away = !raid_is_home(g);
	g->target_col = info->has_target ? (int8_t)info->target_col : -1;
	g->target_error = 0;
	g->target_must = false;
	if (info->has_target)
		g->desc.cols[d->n_cols] = info->target;
	g->data_cols = raid_data_cols(d);
	g->strip_shift = (unsigned)__builtin_ctz(d->strip_bytes);
	g->lock_bytes = DIV_UP(d->size_bytes, RAID_LOCKS);
	g->unsync = info->unsync;
	g->missed = info->missed;
	g->redo = stripe_redo_regions(g);
	g->lease = g->held = info->lease;
	g->lease_used = 0;
	g->lease_tick_ns = reactor_now_ns();
	g->lease_seq++;
}

static int group_info_check(const struct raid *r, uint64_t number, const struct raid_group_info *info)
{
	const struct raid_desc *d = &info->desc;
	bool parity = d->layout == RAID_RAID5 || d->layout == RAID_RAID6;

	if (d->group != number || d->size_bytes > r->conf.group_bytes)
		return -ERR_FORMAT;
	if (parity && (raid_data_cols(d) > PARITY_DATA_MAX || !IS_ALIGNED(d->strip_bytes, r->conf.block_bytes)))
		return -ERR_FORMAT;
	if (info->has_target && (info->target.disk >= RAID_DISKS_MAX ||
				 info->target_col >= d->n_cols + (d->layout == RAID_RAID1 && d->copies < RAID_COPIES_MAX)))
		return -ERR_FORMAT;
	return raid_desc_check(&info->desc, RAID_DISKS_MAX, NULL);
}

/* Coroutine. Loads, or waits for whoever does. 0: look again. */
static int group_co_load(struct raid_group *g)
{
	struct raid *r = g->raid;
	struct raid_group_info info = { 0 };
	uint64_t seq = g->lease_seq;
	int res;

	if (g->state == RAID_GROUP_LOADING) {
		co_queue_wait(&g->changed);
		return g->state == RAID_GROUP_NEW ? g->load_error : 0;
	}
	g->state = RAID_GROUP_LOADING;
	g->load_error = 0;
	g->late_clear = g->late_missed = 0;
	res = r->conf.hooks->co_group_load(r->conf.ctx, g->node.key, &info);
	if (!res)
		res = group_info_check(r, g->node.key, &info);
	g->load_error = res;
	if (res) {
		g->state = RAID_GROUP_NEW;
	} else {
		info.unsync &= ~g->late_clear;
		info.missed |= g->late_missed;
		if (seq != g->lease_seq) /* a disk went meanwhile */
			info.missed |= info.lease;
		group_set_info(g, &info);
		if (seq + 1 != g->lease_seq)
			g->lease = 0;
		g->state = RAID_GROUP_LOADED;
		r->stats.groups_loaded++;
	}
	group_update(g);
	co_queue_wake_all(&g->changed);
	return res;
}

/* ---- leases, sync ---- */

static int group_co_lease(struct raid_group *g, uint64_t mask)
{
	uint64_t need = mask & ~g->lease, seq = g->lease_seq;
	const struct raid_conf *c = &g->raid->conf;
	int res;

	if (need & g->asking_lease) {
		co_queue_wait(&g->changed);
		return 0;
	}
	g->asking_lease |= need;
	res = c->hooks->co_lease(c->ctx, g->node.key, need);
	g->asking_lease &= ~need;
	if (!res) {
		g->held |= need;
		if (seq == g->lease_seq)
			g->lease |= need;
		g->lease_used |= need;
	}
	co_queue_wake_all(&g->changed);
	return res;
}

static int group_co_sync(struct raid_group *g, uint64_t mask)
{
	uint64_t need = mask & g->unsync;
	const struct raid_conf *c = &g->raid->conf;
	int res;

	if (need & g->asking_sync) {
		co_queue_wait(&g->changed);
		return 0;
	}
	g->asking_sync |= need;
	res = c->hooks->co_sync(c->ctx, g->node.key, need);
	g->asking_sync &= ~need;
	co_queue_wake_all(&g->changed);
	return res;
}

static void group_drop_leases(struct raid_group *g)
{
	g->missed |= g->lease | g->busy; /* the pool says more exactly when it has recorded it */
	g->lease = 0;
	g->lease_seq++;
}

struct disk_lost {
	unsigned index;
};

static bool group_disk_lost(struct hash_node *n, void *arg)
{
	struct raid_group *g = container_of(n, struct raid_group, node);
	const struct disk_lost *l = arg;

	if (g->state == RAID_GROUP_LOADING)
		g->lease_seq++;
	if (g->state == RAID_GROUP_LOADED && g->redundant)
		for (unsigned i = 0; i < g->desc.n_cols; i++)
			if (g->desc.cols[i].disk == l->index) {
				group_drop_leases(g);
				break;
			}
	if (g->state == RAID_GROUP_LOADED && g->target_col >= 0 && g->desc.cols[g->desc.n_cols].disk == l->index)
		raid_target_failed(g, -ENODEV);
	return true;
}

void raid_groups_disk_lost(struct raid *r, unsigned index)
{
	struct disk_lost l = { index };

	hash_each(&r->groups, group_disk_lost, &l);
}

struct lease_return {
	uint64_t now_ns;
	bool all;
};

static bool group_return_leases(struct hash_node *n, void *arg)
{
	struct raid_group *g = container_of(n, struct raid_group, node);
	const struct raid_conf *c = &g->raid->conf;
	const struct lease_return *lr = arg;
	uint64_t idle;

	if (g->state != RAID_GROUP_LOADED || (!lr->all && lr->now_ns - g->lease_tick_ns < c->lease_idle_ns))
		return true;
	/* what must be synced or written again stays recorded dirty */
	idle = g->held & ~g->busy & ~g->asking_lease & ~g->unsync & ~g->redo;
	if (!lr->all)
		idle &= ~g->lease_used;
	g->lease_used = 0;
	g->lease_tick_ns = lr->now_ns;
	if (idle) {
		g->lease &= ~idle;
		g->held &= ~idle;
		c->hooks->lease_return(c->ctx, g->node.key, idle);
	}
	return true;
}

void raid_return_leases(struct raid *r, bool all)
{
	struct lease_return lr = { reactor_now_ns(), all };

	hash_each(&r->groups, group_return_leases, &lr);
}

/* ---- range locks: one of RAID_LOCKS per part of the group, taken in ascending order ---- */

static uint64_t locks_split(struct raid_group *g, uint64_t off_bytes, uint64_t end_bytes)
{
	return MIN(end_bytes, (off_bytes / g->lock_bytes + 1) * g->lock_bytes) - off_bytes;
}

bool raid_try_lock(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, bool shared, struct raid_locks *lk)
{
	uint64_t end = off_bytes + len_bytes, len;

	lk->n = 0;
	for (; off_bytes < end; off_bytes += len) {
		struct range_lock *l = &g->locks[off_bytes / g->lock_bytes];

		len = locks_split(g, off_bytes, end);
		if (!range_try_lock(l, off_bytes, len, shared, &lk->hold[lk->n])) {
			raid_unlock(lk);
			return false;
		}
		lk->lock[lk->n++] = l;
	}
	return true;
}

void raid_co_lock(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, bool shared, struct raid_locks *lk)
{
	uint64_t end = off_bytes + len_bytes, len;

	lk->n = 0;
	for (; off_bytes < end; off_bytes += len) {
		struct range_lock *l = &g->locks[off_bytes / g->lock_bytes];

		len = locks_split(g, off_bytes, end);
		range_co_lock(l, off_bytes, len, shared, &lk->hold[lk->n]);
		lk->lock[lk->n++] = l;
	}
}

void raid_unlock(struct raid_locks *lk)
{
	while (lk->n) {
		lk->n--;
		range_unlock(lk->lock[lk->n], &lk->hold[lk->n]);
	}
}

/* ---- admission ---- */

static bool group_is_frozen(const struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes)
{
	return g->blocked || (off_bytes < g->frozen_off_bytes + g->frozen_len_bytes &&
			      g->frozen_off_bytes < off_bytes + len_bytes);
}

static bool req_needs_lease(const struct raid_req *q)
{
	return q->parent->op == IO_WRITE || q->parent->op == IO_ZERO;
}

enum { ADMIT_READY = 1, ADMIT_FORWARD = 2 };

/* Coroutine. ADMIT_READY: nothing stands in the way, and it did not suspend. ADMIT_FORWARD: it is for another instance. 0: it
 * waited, look again. With may_wait false: 0 is "something does", without waiting. */
static int group_co_ready(struct raid_group *g, struct raid_req *q, bool may_wait)
{
	uint64_t len = q->parent->len_bytes;

	if (g->state != RAID_GROUP_LOADED)
		return may_wait ? group_co_load(g) : 0;
	if (q->off_bytes + len > g->desc.size_bytes)
		return -ERANGE;
	if (!g->level->co_run)
		return -EOPNOTSUPP;
	if (g->away && !g->blocked)
		return ADMIT_FORWARD;
	if (group_is_frozen(g, q->off_bytes, len)) {
		if (may_wait)
			co_queue_wait(&g->changed);
		return 0;
	}
	q->mask = raid_group_mask(g, q->off_bytes, len);
	if (g->unsync & q->mask)
		return may_wait ? group_co_sync(g, q->mask) : 0;
	if (req_needs_lease(q) && (q->mask & ~g->lease))
		return may_wait ? group_co_lease(g, q->mask) : 0;
	return ADMIT_READY;
}

int raid_co_admit(struct raid_req *q, struct raid_locks *lk)
{
	struct raid_group *g = group_get(q->raid, q->group);
	uint64_t len = q->parent->len_bytes;
	int r;

	lk->n = 0;
	for (;;) {
		r = group_co_ready(g, q, true);
		if (r < 0)
			goto out_put;
		if (r == 0)
			continue;
		if (r == ADMIT_FORWARD) {
			r = raid_forward(q, g);
			goto out_put;
		}
		/* parity locks whole stripes, when their writes have been put together */
		if (q->parent->op == IO_READ || !(g->redundant || g->homed) || g->parity ||
		    raid_try_lock(g, q->off_bytes, len, false, lk))
			break;
		raid_co_lock(g, q->off_bytes, len, false, lk);
		if (group_co_ready(g, q, false) == ADMIT_READY)
			break;
		raid_unlock(lk);
	}
	raid_enter(g, q, q->mask);
	r = 0;
out_put:
	group_put(g);
	return r;
}

void raid_enter(struct raid_group *g, struct raid_req *q, uint64_t mask)
{
	q->g = g;
	q->epoch = g->epoch;
	g->inflight[g->epoch]++;
	q->mask = q->parent->op == IO_READ ? 0 : mask;
	g->lease_used |= q->mask;
	g->busy |= q->mask;
	for (uint64_t m = q->mask; m; m &= m - 1)
		g->region_writes[__builtin_ctzll(m)]++;
}

void raid_leave(struct raid_req *q)
{
	struct raid_group *g = q->g;

	for (uint64_t m = q->mask; m; m &= m - 1)
		if (--g->region_writes[__builtin_ctzll(m)] == 0)
			g->busy &= ~(m & -m);
	q->g = NULL;
	raid_group_release(g, q->epoch);
}

void raid_group_release(struct raid_group *g, uint8_t epoch)
{
	CHECK(g->inflight[epoch] > 0);
	if (--g->inflight[epoch] == 0 && !co_queue_is_empty(&g->drained))
		co_queue_wake_all(&g->drained);
}

int raid_group_co_hold(struct raid *r, uint64_t group, struct raid_group **out, uint8_t *epoch)
{
	struct raid_group *g = group_get(r, group);
	int res = 0;

	while (!res && (g->state != RAID_GROUP_LOADED || g->blocked || r->is_shut)) {
		if (r->is_shut)
			res = -ERR_POOL_FAILED;
		else if (g->state != RAID_GROUP_LOADED)
			res = group_co_load(g);
		else
			co_queue_wait(&g->changed);
	}
	if (!res) {
		*out = g;
		*epoch = g->epoch;
		g->inflight[g->epoch]++;
	}
	group_put(g);
	return res;
}

int raid_group_co_hold_stripe(struct raid *r, uint64_t group, uint64_t stripe, struct raid_group **out, uint8_t *epoch)
{
	struct raid_group *g = group_get(r, group);
	bool ready = false;
	uint64_t mask;
	int res = 0;

	while (!res && !ready) {
		if (g->blocked || g->forgotten || r->is_shut) {
			res = -EAGAIN;
		} else if (g->state != RAID_GROUP_LOADED) {
			res = group_co_load(g);
		} else {
			mask = raid_group_mask(g, stripe * raid_stripe_bytes(g), 1);
			ready = !(mask & ~g->lease);
			res = ready ? 0 : group_co_lease(g, mask);
		}
	}
	if (!res) {
		*out = g;
		*epoch = g->epoch;
		g->inflight[g->epoch]++;
	}
	group_put(g);
	return res;
}

/* ---- targets ---- */

/* A write has not reached the target. */
void raid_target_failed(struct raid_group *g, int error)
{
	if (!g->target_error)
		g->target_error = error;
}

int raid_target_commit(struct raid *r, uint64_t group)
{
	struct raid_group *g = raid_group_find(r, group);

	if (!g || g->state != RAID_GROUP_LOADED) /* it has not written anything */
		return 0;
	if (g->target_col < 0)
		return -EINVAL;
	if (!g->target_error)
		g->target_must = true;
	return g->target_error;
}

/* ---- publishing, freezing, changing ---- */

void raid_clear_unsync(struct raid *r, uint64_t group, uint64_t mask)
{
	struct raid_group *g = raid_group_find(r, group);

	if (!g)
		return;
	g->unsync &= ~mask;
	g->late_clear |= mask;
}

void raid_set_missed(struct raid *r, uint64_t group, uint64_t missed)
{
	struct raid_group *g = raid_group_find(r, group);

	if (!g)
		return;
	g->missed = missed;
	g->late_missed = missed;
}

void raid_co_freeze(struct raid *r, uint64_t group, uint64_t off_bytes, uint64_t len_bytes)
{
	struct raid_group *g = group_get(r, group);
	uint64_t mask;
	uint8_t old;

	CHECK(len_bytes && !g->frozen_len_bytes);
	g->frozen_off_bytes = off_bytes;
	g->frozen_len_bytes = len_bytes;
	group_update(g);
	old = g->epoch;
	g->epoch ^= 1;
	while (g->inflight[old])
		co_queue_wait(&g->drained);
	while (g->state == RAID_GROUP_LOADING) /* its info may grant leases */
		co_queue_wait(&g->changed);
	if (g->state == RAID_GROUP_LOADED) {
		mask = raid_group_mask(g, off_bytes, len_bytes);
		g->lease &= ~mask;
		g->held &= ~mask;
		g->lease_seq++;
	}
	group_put(g);
}

void raid_unfreeze(struct raid *r, uint64_t group)
{
	struct raid_group *g = raid_group_find(r, group);

	if (!g) /* forgotten under the freeze */
		return;
	CHECK(g->frozen_len_bytes);
	g->users++;
	g->frozen_off_bytes = g->frozen_len_bytes = 0;
	group_update(g);
	co_queue_wake_all(&g->changed);
	group_put(g);
}

static void group_unblock(struct raid_group *g)
{
	g->blocked = false;
	group_update(g);
	co_queue_wake_all(&g->changed);
}

/* Coroutine. 1: nothing of the group is in flight, and nothing starts before group_unblock(). 0: it is not loaded. -EAGAIN:
 * what is in flight has not ended in time. */
static int group_co_block(struct raid_group *g, uint64_t deadline_ns)
{
	int r = 0;

	while (g->state == RAID_GROUP_LOADING || g->blocked)
		co_queue_wait(&g->changed);
	if (g->state != RAID_GROUP_LOADED)
		return 0;
	g->blocked = true;
	group_update(g);
	/* what has been sent to the home is under its locks, not under ours */
	while ((g->inflight[0] || g->inflight[1] || g->n_forwarded) && r == 0)
		r = co_queue_wait_until(&g->drained, deadline_ns);
	if (!g->inflight[0] && !g->inflight[1] && !g->n_forwarded)
		return 1;
	group_unblock(g);
	return -EAGAIN;
}

int raid_co_group_replace_until(struct raid *r, const struct raid_group_info *info, uint64_t deadline_ns)
{
	struct raid_group *g = raid_group_find(r, info->desc.group);
	uint64_t unsync;
	int res;

	if (!g)
		return 0;
	CHECK(group_info_check(r, info->desc.group, info) == 0);
	g->users++;
	res = group_co_block(g, deadline_ns);
	if (res == 1) {
		unsync = g->unsync; /* a write has failed here that no disk was put out for */
		group_set_info(g, info);
		g->unsync |= unsync;
		group_unblock(g);
	}
	group_put(g);
	return MIN(res, 0);
}

void raid_co_group_replace(struct raid *r, const struct raid_group_info *info)
{
	int res = raid_co_group_replace_until(r, info, UINT64_MAX);

	CHECK(res == 0);
}

uint64_t raid_group_unsync(const struct raid *r, uint64_t group)
{
	const struct hash_node *n = hash_find(&r->groups, group);
	const struct raid_group *g = n ? container_of(n, struct raid_group, node) : NULL;

	return g && g->state == RAID_GROUP_LOADED ? g->unsync : 0;
}

void raid_co_group_forget(struct raid *r, uint64_t group)
{
	struct raid_group *g = raid_group_find(r, group);

	if (!g) {
		stripe_redo_forget(r, group);
		return;
	}
	g->users++;
	if (group_co_block(g, UINT64_MAX) == 1) {
		stripe_redo_forget(r, group);
		hash_del(&r->groups, &g->node);
		g->forgotten = true;
		r->stats.groups_loaded--;
		group_unblock(g);
	}
	group_put(g);
}
