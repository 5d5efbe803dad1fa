/*
 * reshape.c: a parity group gets more columns, or fewer: where a disk leaves that every group has a column on.
 *
 * Its number stays, and so does what it holds, byte by byte; volumes and their maps know nothing of it. Steps, and what a crash leaves:
 *   1. Extents for all columns of the new shape are taken, in memory, and a group of a number of its own is there, in memory. Writes go to
 *	both as far as has been copied (raid_shape.c).
 *   2. What is allocated is copied, and all disks are flushed.
 *	Crash: nothing was recorded, nobody owns the extents; the group is as it was, and is begun anew. The number is not used again before
 *	the log that may name it has been replayed.
 *   3. The home holds all requests. Both hold the same, durably, and the stripe log has nothing more of the group.
 *   4. The record with the new columns is handed in, and committed.
 *	Crash: before it is durable, as 2; after it, the group has its new shape, with all that the old one had.
 *   5. The instances take the new descriptor, the home last, which lets go what waits. Only then may others have the old extents.
 *
 * The disks that it goes to must be in service all the time: if one leaves it, all is begun anew.
 */
#include <string.h>

#include "engine/base/units.h"
#include "engine/pool/life.h"

#define UNIT_BYTES MIB

struct reshape {
	struct ashlar_pool *p;
	struct pgroup *g, *to; /* to: in memory alone */
	struct pool_job *job;
	unsigned home;
	struct raid_shape_copy copy;
};

/* ---- which shape ---- */

bool pool_group_needs_shape(const struct ashlar_pool *p, unsigned kind, const struct raid_desc *d)
{
	unsigned i;

	if (kind != THIN_GROUP_DATA || !pool_layout_is_parity(d->layout))
		return false;
	for (i = 0; i < p->n_disks; i++)
		if (p->disks[i].state == PDISK_ONLINE && !p->disks[i].joining && !p->disks[i].leaving && !pool_desc_has_disk(d, i))
			return false;
	return true;
}

static bool all_in_service(const struct ashlar_pool *p, const struct raid_desc *d)
{
	unsigned i;

	for (i = 0; i < d->n_cols; i++)
		if (p->disks[d->cols[i].disk].state != PDISK_ONLINE || p->disks[d->cols[i].disk].leaving)
			return false;
	return true;
}

static void columns_drop(struct ashlar_pool *p, const struct raid_desc *d)
{
	unsigned i;

	for (i = 0; i < d->n_cols; i++)
		pool_space_target_drop(p, &d->cols[i]);
}

/* Coroutine. Extents for a group like this one, on the disks that stay, and its number. */
static int shape_co_take(struct ashlar_pool *p, const struct raid_desc *of, struct raid_desc *d)
{
	const struct raid *raid = p->reactors[0].raid;
	int r;

	co_mutex_lock(&p->alloc);
	r = pool_co_space_take_shape(p, (struct raid_profile){ of->layout, of->copies }, d);
	if (r == 0 && !all_in_service(p, d)) {
		columns_drop(p, d);
		r = -ERR_POOL_FULL;
	}
	if (r == 0) {
		do {
			d->group = p->next_group++;
		} while (raid_home(raid, d->group) != raid_home(raid, of->group));
	}
	co_mutex_unlock(&p->alloc);
	return r;
}

/* ---- copying ---- */

static int begin_there(void *arg)
{
	struct reshape *s = arg;

	return raid_co_shape_begin(pool_here(s->p)->raid, s->g->desc.group, s->to->desc.group);
}

static int copy_there(void *arg)
{
	struct reshape *s = arg;

	return raid_co_shape_copy(pool_here(s->p)->raid, &s->copy);
}

static int close_there(void *arg)
{
	struct reshape *s = arg;

	return raid_co_shape_close(pool_here(s->p)->raid, s->g->desc.group);
}

static int end_there(void *arg)
{
	struct reshape *s = arg;

	raid_co_shape_end(pool_here(s->p)->raid, s->g->desc.group);
	return 0;
}

static int at_home(struct reshape *s, int (*fn)(void *arg))
{
	return reactor_co_call(s->p->w->reactors[s->home], fn, s);
}

struct used_call {
	struct reshape *s;
	uint64_t first;
	unsigned n;
	uint8_t *bits;
};

static int used_there(void *arg)
{
	struct used_call *c = arg;
	const struct label *l = c->s->p->label;

	return thin_co_allocated(c->s->p->thin, c->s->g->desc.group * (l->group_bytes / l->cluster_bytes) + c->first, c->n, c->bits);
}

static int co_used(void *arg, uint64_t first, unsigned n, uint8_t *bits)
{
	struct used_call c = { arg, first, n, bits };

	return reactor_co_call(c.s->p->w->reactors[0], used_there, &c);
}

static int may_go_on(const struct reshape *s)
{
	int r = s->p->stopping ? -ECANCELED : pool_job_may_go_on(s->job);

	return r < 0 || all_in_service(s->p, &s->to->desc) ? r : -EAGAIN;
}

/* How much at once: whole stripes of the new shape, and whole clusters. */
static uint64_t unit(const struct reshape *s)
{
	const struct raid_desc *d = &s->to->desc;
	uint64_t stripe = (uint64_t)raid_data_cols(d) * d->strip_bytes, cluster = s->p->label->cluster_bytes, n = stripe;

	while (n % cluster)
		n += stripe;
	n *= MAX(1ULL, pool_pace_unit(s->p, UNIT_BYTES) / n);
	return MIN(n, RAID_SHAPE_CLUSTERS * cluster);
}

static int reshape_co_copy(struct reshape *s)
{
	struct raid_shape_copy *c = &s->copy;
	uint64_t size = s->g->desc.size_bytes, before;
	int r = 0;

	*c = (struct raid_shape_copy){ .group = s->g->desc.group, .cluster_bytes = s->p->label->cluster_bytes, .co_used = co_used, .arg = s };
	for (; c->off_bytes < size && r == 0; c->off_bytes += c->len_bytes) {
		c->len_bytes = MIN(size - c->off_bytes, unit(s));
		before = c->copied_bytes;
		r = may_go_on(s);
		if (r == 0)
			r = at_home(s, copy_there);
		if (r < 0)
			break;
		pool_job_progress(s->job, c->copied_bytes - before);
		if (c->copied_bytes != before)
			r = pool_co_pace(s->p, c->copied_bytes - before);
	}
	return r;
}

/* ---- switching ---- */

/* Hands in the group's record as its descriptor is now. Does not suspend. */
static uint64_t shape_hand_in(struct ashlar_pool *p, const struct pgroup *g)
{
	struct pool_group_disk *rec = xmalloc(sizeof(*rec));
	uint64_t seq;
	unsigned i;

	pool_group_encode(&g->desc, g->kind, p->label, rec);
	seq = meta_record(p->meta, POOL_REC_GROUP_SHAPE, rec, sizeof(*rec));
	for (i = 0; i < g->desc.n_cols; i++)
		pool_space_target_handed_in(p, &g->desc.cols[i], seq);
	xfree(rec);
	p->change_gen++;
	return seq;
}

/* One may hold requests at a time; who wants regions synced may have to wait for that. */
static void co_thaw(void *arg)
{
	struct reshape *s = arg;

	(void)!at_home(s, end_there);
	co_mutex_unlock(&s->g->sync);
}

/* Coroutine with g->sync held. *done: the columns are the group's now, and it has been let go; else nothing has. */
static int reshape_co_switch(struct reshape *s, bool *done)
{
	struct raid_desc *before = xmalloc(sizeof(*before));
	struct ashlar_pool *p = s->p;
	struct pgroup *g = s->g;
	uint64_t group = g->desc.group, seq;
	unsigned i;
	int r = at_home(s, close_there);

	if (r == 0)
		r = may_go_on(s);
	if (r < 0) {
		xfree(before);
		return r;
	}
	*done = true;
	*before = g->desc;
	for (i = 0; i < before->n_cols; i++)
		pool_space_hold(p, &before->cols[i], before->col_bytes);
	g->before = before;
	g->desc = s->to->desc;
	g->desc.group = group;
	seq = shape_hand_in(p, g);
	g->shaping = false;
	r = meta_co_commit(p->meta, seq);
	if (r < 0) /* the pool has stopped, and nobody knows where the next opening finds the group */
		pool_co_shut(p);
	pool_co_group_publish_shape(p, g, co_thaw, s);
	g->before = NULL;
	if (r == 0)
		r = meta_co_wait_applied(p->meta, seq);
	for (i = 0; i < before->n_cols; i++)
		pool_space_release(p, &before->cols[i]);
	xfree(before);
	return r;
}

/* ---- the whole ---- */

/* Coroutine. With extents taken, which are the group's if *done. */
static int reshape_co_try(struct reshape *s, bool *done)
{
	int r;

	s->g->shaping = true;
	pool_co_group_publish(s->p, s->g);
	co_mutex_lock(&s->g->sync);
	r = at_home(s, begin_there);
	co_mutex_unlock(&s->g->sync);
	if (r == 0)
		r = reshape_co_copy(s);
	if (r == 0)
		r = bdev_co_flush(raid_bdev(s->p->reactors[0].raid));
	if (r == 0)
		r = pool_co_incompat_set(s->p, LABEL_INCOMPAT_SHAPES);
	if (r == 0)
		r = meta_co_admit(s->p->meta, sizeof(struct pool_group_disk) + 64, false);
	co_mutex_lock(&s->g->sync);
	if (r == 0)
		r = reshape_co_switch(s, done);
	if (!*done) {
		co_thaw(s);
		s->g->shaping = false;
		pool_co_group_publish(s->p, s->g); /* its leases start anew */
	}
	return r;
}

int pool_co_group_reshape(struct ashlar_pool *p, struct pgroup *g, struct pool_job *job)
{
	struct reshape *s = xcalloc(1, sizeof(*s));
	struct raid_desc *d = xmalloc(sizeof(*d));
	bool done = false;
	int r = 0;

	CHECK(g->moving && g->kind == THIN_GROUP_DATA && pool_layout_is_parity(g->desc.layout));
	if (g->unsync) /* else a choice of ours would be copied */
		r = pool_co_group_sync(p, g);
	if (r == 0)
		r = shape_co_take(p, &g->desc, d);
	if (r < 0)
		goto out;
	s->p = p;
	s->g = g;
	s->job = job;
	s->home = raid_home(p->reactors[0].raid, g->desc.group);
	s->to = pool_pgroup_add(p, d, POOL_GROUP_SHAPE, 0);
	r = reshape_co_try(s, &done);
	pool_co_group_forget(p, d->group);
	hash_del(&p->pgroups, &s->to->node);
	xfree(s->to);
	if (!done) {
		columns_drop(p, d);
		job->info.done_bytes -= s->copy.copied_bytes;
	}
out:
	xfree(d);
	xfree(s);
	return r;
}
