/*
 * resync.c: what a disk has missed is copied to it, and what a crash has left different is made equal.
 *
 * Two things, in this order. After a crash, regions of mirrors are closed until they have been synced (regions.c); this goes over
 * all of them, so that not only those are done that somebody asks for. Then, whenever disks are STALE (found behind at opening,
 * or come back later): a pass over all groups that they are members of.
 *
 * A STALE disk gets all writes from the moment all instances know it. So what it lacks was written before: regions whose bit is
 * set when the pass looks at the group, and all that is allocated there. Mirrors are homed meanwhile (transition.c), so that the
 * copying and the writers are under the same locks; metadata and log groups, which have no bits, are compared as a whole on the
 * reactor that writes them. When all is copied and flushed, the disks of the pass become ONLINE, in the labels first.
 *
 * More than one may be STALE; a pass serves all that were there when it began. One that leaves again in the middle is not
 * ONLINE at the end (n_arrivals tells one stay from the next), and its bits are all still set: a region is cleaned only when
 * every member is ONLINE.
 */
#include <stdio.h>
#include <string.h>

#include "engine/base/mutant.h"
#include "engine/pool/life.h"

#define META_UNIT_BYTES (256 * KIB)
#define AGAIN_NS (600 * NS_PER_SEC) /* after one that could not be finished */

struct pass {
	struct ashlar_pool *p;
	struct pool_job *job;
	uint64_t arrival[LABEL_DISKS_MAX]; /* 0: not of this pass */
	uint64_t stale_gen;
};

/* ---- every group that has a bit set ---- */

/* Coroutine. In the order of numbers; what becomes dirty meanwhile may or may not be seen. */
static int dirty_co_each(struct ashlar_pool *p, int (*each)(void *arg, uint64_t group), void *arg)
{
	le64 *mask = xaligned(16, META_PAGE_BYTES);
	unsigned i, per_leaf = META_PAGE_BYTES / sizeof(*mask);
	uint64_t leaf = 0;
	int r;

	for (;; leaf++) {
		r = meta_array_co_next_leaf(p->regions, &leaf);
		if (r == 0)
			r = meta_array_co_leaf(p->regions, leaf, mask);
		for (i = 0; i < per_leaf && r >= 0; i++)
			if (le64_get(mask[i]))
				r = each(arg, leaf * per_leaf + i);
		if (r < 0)
			break;
	}
	xfree(mask);
	return r == -ENOENT ? 0 : r;
}

static uint64_t mask_bytes(const struct ashlar_pool *p, uint64_t mask)
{
	return (uint64_t)__builtin_popcountll(mask) * DIV_UP(p->label->group_bytes, RAID_REGIONS);
}

/* ---- after a crash ---- */

static int crash_count(void *arg, uint64_t group)
{
	struct ashlar_pool *p = arg;
	struct pgroup *g;
	int r = pool_co_pgroup_get(p, group, &g);

	if (r == 0)
		p->resync_total_bytes += mask_bytes(p, g->unsync);
	return r == -ENOENT ? 0 : r;
}

struct crash {
	struct ashlar_pool *p;
	struct pool_job *job;
	int error; /* of the first group that could not be synced as a whole */
};

static int crash_sync(void *arg, uint64_t group)
{
	struct crash *c = arg;
	struct pgroup *g;
	uint64_t mask;
	int r = pool_co_group_claim(c->p, group, &g);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	mask = g->unsync;
	r = pool_co_group_sync(c->p, g);
	pool_group_unclaim(c->p, g);
	if (r == -ECANCELED)
		return r;
	if (r == 0)
		pool_job_progress(c->job, mask_bytes(c->p, mask));
	else if (!c->error)
		c->error = r;
	return 0;
}

static void job_end_by(struct pool_job *job, int r, const char *done)
{
	if (r == 0)
		pool_job_end(job, ASHLAR_JOB_DONE, "%s", done);
	else if (r == -ECANCELED || job->p->stopping || job->p->failed)
		pool_job_end(job, ASHLAR_JOB_STOPPED, "the pool was closed; it goes on when the pool is open again");
	else
		pool_job_end(job, ASHLAR_JOB_FAILED, "some data could be read from no disk (%s)", err_text(r));
}

/* Coroutine. False: try again some time. */
static bool crash_co_sync(struct ashlar_pool *p)
{
	struct crash c = { .p = p };
	int r;

	p->resync_total_bytes = p->resync_done_bytes = 0;
	r = dirty_co_each(p, crash_count, p);
	if (r == 0 && !p->resync_total_bytes)
		return true;
	if (r < 0) {
		pool_log(p, "the regions to be synced cannot be read: %s", err_text(r));
		return false;
	}
	c.job = pool_job_start(p, ASHLAR_JOB_RESYNC, "pool %s after a crash", p->label->name);
	c.job->info.total_bytes = p->resync_total_bytes;
	r = dirty_co_each(p, crash_sync, &c);
	r = r < 0 ? r : c.error;
	job_end_by(c.job, r, "all copies agree again");
	if (r == 0)
		p->resync_done_bytes = p->resync_total_bytes;
	return r == 0;
}

/* ---- a pass for disks that have come back ---- */

static bool is_behind(const struct pdisk *d)
{
	return d->state == PDISK_STALE && !d->arriving;
}

static bool in_pass(const struct pass *s, unsigned disk)
{
	return s->arrival[disk] && s->p->disks[disk].n_arrivals == s->arrival[disk] && is_behind(&s->p->disks[disk]);
}

static bool desc_in_pass(const struct pass *s, const struct raid_desc *d)
{
	unsigned i;

	for (i = 0; i < d->n_cols; i++)
		if (in_pass(s, d->cols[i].disk))
			return true;
	return false;
}

static bool pass_is_empty(const struct pass *s)
{
	unsigned i;

	for (i = 0; i < s->p->n_disks; i++)
		if (in_pass(s, i))
			return false;
	return true;
}

static int pass_count(void *arg, uint64_t group)
{
	struct pass *s = arg;
	struct pgroup *g;
	int r = pool_co_pgroup_get(s->p, group, &g);

	if (r == 0 && desc_in_pass(s, &g->desc))
		s->job->info.total_bytes += mask_bytes(s->p, g->dirty);
	return r == -ENOENT ? 0 : r;
}

/* Coroutine. The regions are in use: the group is homed, or needs not be. */
static int group_co_catch_up(struct pass *s, struct pgroup *g, uint64_t mask)
{
	uint64_t region = DIV_UP(g->desc.size_bytes, RAID_REGIONS), off;
	unsigned i;
	int r = 0;

	for (i = 0; i < RAID_REGIONS && r == 0; i++) {
		if (!(mask & 1ULL << i))
			continue;
		off = i * region;
		if (off < g->desc.size_bytes && !MUTANT(RESYNC_SKIPPED))
			r = pool_co_range_resync(s->p, g, off, MIN(off + region, g->desc.size_bytes), true);
		if (r < 0)
			break;
		pool_group_caught_up(g, 1ULL << i, s->stale_gen);
		pool_job_progress(s->job, mask_bytes(s->p, 1));
	}
	return r;
}

static uint64_t behind_mask(const struct pass *s, const struct pgroup *g)
{
	return g->dirty & ~(g->caught_up_gen == s->stale_gen ? g->caught_up : 0);
}

static int pass_group(void *arg, uint64_t group)
{
	struct pass *s = arg;
	struct pgroup *g;
	uint64_t mask;
	int r = pool_co_group_claim(s->p, group, &g);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (!desc_in_pass(s, &g->desc))
		goto out;
	r = pool_co_group_sync(s->p, g);
	mask = behind_mask(s, g);
	if (r < 0 || !mask)
		goto out;
	if (pool_layout_is_parity(g->desc.layout)) {
		r = group_co_catch_up(s, g, mask);
	} else {
		pool_co_transition_begin(s->p, g, NULL, 0);
		r = group_co_catch_up(s, g, mask);
		pool_co_transition_end(s->p, g);
	}
out:
	pool_group_unclaim(s->p, g);
	return r;
}

static int meta_group_co_catch_up(struct pass *s, uint64_t group)
{
	struct ashlar_pool *p = s->p;
	uint64_t step = MIN(META_UNIT_BYTES, p->label->group_bytes), off;
	struct pgroup *g;
	int r = pool_co_group_claim(p, group, &g);

	if (r < 0)
		return r;
	for (off = 0; desc_in_pass(s, &g->desc) && off < p->label->group_bytes && r == 0; off += step) {
		r = pool_co_pace(p, step);
		if (r == 0)
			r = raid_co_resync_range(p->reactors[0].raid, group, off, step, NULL);
		if (r == 0)
			pool_job_progress(s->job, step);
	}
	pool_group_unclaim(p, g);
	return r;
}

static int log_group_co_catch_up(struct pass *s)
{
	struct ashlar_pool *p = s->p;
	struct pgroup *g;
	int r;

	if (!p->label->log_group_plus_1)
		return 0;
	r = pool_co_group_claim(p, p->label->log_group_plus_1 - 1, &g);
	if (r < 0)
		return r;
	if (desc_in_pass(s, &g->desc))
		r = pool_co_stripe_logs_resync(p);
	pool_group_unclaim(p, g);
	return r;
}

/* Coroutine. */
static int pass_co_groups(struct pass *s)
{
	struct ashlar_pool *p = s->p;
	unsigned i;
	int r;

	/* What was recorded before the disks were here must be in the array that is walked. */
	r = meta_co_wait_applied(p->meta, meta_last_seq(p->meta));
	if (r == 0)
		r = dirty_co_each(p, pass_count, s);
	s->job->info.total_bytes += p->label->n_meta * p->label->group_bytes;
	if (r == 0)
		r = dirty_co_each(p, pass_group, s);
	for (i = 0; i < p->label->n_meta && r == 0; i++)
		r = meta_group_co_catch_up(s, p->label->meta[i].group);
	if (r == 0)
		r = log_group_co_catch_up(s);
	return r < 0 ? r : bdev_co_flush(raid_bdev(p->reactors[0].raid));
}

static void pass_begin(struct pass *s)
{
	struct ashlar_pool *p = s->p;
	char what[120] = "";
	size_t at = 0;
	unsigned i;

	memset(s->arrival, 0, sizeof(s->arrival));
	for (i = 0; i < p->n_disks; i++) {
		if (!is_behind(&p->disks[i]))
			continue;
		s->arrival[i] = p->disks[i].n_arrivals;
		if (at + 1 < sizeof(what))
			at += (size_t)snprintf(what + at, sizeof(what) - at, "%s%s", at ? ", " : "disk ", pool_disk_path(p, i));
	}
	s->stale_gen = p->stale_gen;
	s->job = pool_job_start(p, ASHLAR_JOB_RESYNC, "%s", what);
}

/* Coroutine. The disks that have stayed are as good as any. */
static int pass_co_end(struct pass *s)
{
	struct ashlar_pool *p = s->p;
	unsigned i;
	int r = 0;

	for (i = 0; i < p->n_disks && r == 0; i++)
		if (in_pass(s, i))
			r = pool_co_disk_online(p, i, s->arrival[i]);
	return r;
}

/* Coroutine. Returns when to look again, if nothing changes before. */
static uint64_t pass_co_run(struct pass *s)
{
	struct ashlar_pool *p = s->p;
	bool left;
	int r;

	pass_begin(s);
	r = pass_co_groups(s);
	left = pass_is_empty(s);
	if (r == 0 && !left)
		r = pass_co_end(s);
	if (left && !p->stopping && !p->failed)
		pool_job_end(s->job, ASHLAR_JOB_FAILED, "the disk has left again");
	else
		job_end_by(s->job, r, "all that was missed has been copied");
	return r < 0 && !left ? reactor_now_ns() + AGAIN_NS : 0;
}

static bool any_stale(const struct ashlar_pool *p)
{
	unsigned i;

	for (i = 0; i < p->n_disks; i++)
		if (is_behind(&p->disks[i]))
			return true;
	return false;
}

void pool_resync_co_run(void *arg)
{
	struct ashlar_pool *p = arg;
	struct pass *s = xcalloc(1, sizeof(*s));
	uint64_t crash_at = 0, pass_at = 0, gen = 0, until;

	s->p = p;
	while (!p->stopping && !p->failed) {
		if (reactor_now_ns() >= crash_at) {
			crash_at = crash_co_sync(p) ? UINT64_MAX : reactor_now_ns() + AGAIN_NS;
		} else if (any_stale(p) && (reactor_now_ns() >= pass_at || gen != p->disk_gen)) {
			gen = p->disk_gen;
			p->life->resyncs = true;
			pass_at = pass_co_run(s);
			p->life->resyncs = false;
			pool_life_kick(p);
		} else {
			until = any_stale(p) ? MIN(crash_at, pass_at) : crash_at;
			(void)!co_queue_wait_until(&p->life->kick, until);
		}
	}
	xfree(s);
	pool_life_leave(p);
}
