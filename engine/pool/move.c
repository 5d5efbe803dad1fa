/*
 * move.c: one column of a group moves to another disk, or a mirror gets one more copy.
 *
 * Steps, and what a crash leaves at each:
 *   1. Extents are taken, in memory. The group gets a target: every write goes there too (transition.c).
 *   2. What is allocated is copied to the target, and all disks are flushed.
 *      Crash: nothing was recorded, nobody owns the extents; the group is as it was, and is begun anew.
 *   3. The instances that write promise that from now on a write which misses the target has failed (raid_target_commit()).
 *   4. The record with the new descriptor is handed in, and committed.
 *      Crash: before it is durable, as 2; after it, the group lies in its new place, which has all that the old one had.
 *   5. The instances take the new descriptor. Only then may others have the old extents: until the record is durable the old
 *      descriptor may come back, and until the instances have changed somebody may still write there.
 *
 * Dirty bits are not touched. They say what other disks have missed that are away now, and that is as true after the move; a
 * region is cleaned when all members are ONLINE, and not before.
 *
 * A metadata group is also described by the labels, and is found by them: there the labels come first, then the instances, then
 * the record. A crash between labels and record leaves an old record, which opening brings up to date (open.c).
 */
#include <string.h>

#include "engine/base/mutant.h"
#include "engine/pool/life.h"

#define UNIT_BYTES MIB
#define LOOK_CLUSTERS 512

/* ---- copying ---- */

struct fill {
	struct ashlar_pool *p;
	struct pgroup *g;
	struct pool_job *job;
	unsigned col;
	uint64_t done_to; /* bytes from the group's start that need no more looking at: whole stripes */
	uint64_t done;
	uint64_t group, off, len;
	int result;
};

static int fill_there(void *arg)
{
	struct fill *f = arg;

	return raid_co_rebuild_range(pool_here(f->p)->raid, f->group, f->off, f->len, NULL);
}

/* Of the column, for so many of the group. */
static uint64_t col_share(const struct raid_desc *d, uint64_t len)
{
	return DIV_UP(len, raid_data_cols(d));
}

int pool_job_may_go_on(const struct pool_job *job)
{
	if (job->stop || job->pause)
		return -ECANCELED;
	return job->yields && (job->p->life->rebuilds || job->p->life->resyncs) ? -EAGAIN : 0;
}

/* Coroutine. One range, on the reactor that writes there. */
static int fill_co_range(struct fill *f, unsigned reactor, uint64_t off, uint64_t end)
{
	const struct raid_desc *d = &f->g->desc;
	/* What is there is read as it is; what is not, from all the others. */
	bool is_there = f->col < d->n_cols && f->p->disks[d->cols[f->col].disk].state == PDISK_ONLINE;
	int r = 0;

	f->group = d->group;
	for (; off < end && r == 0; off += f->len) {
		f->off = off;
		f->len = MIN(end - off, pool_pace_unit(f->p, UNIT_BYTES));
		r = pool_job_may_go_on(f->job);
		if (r == 0)
			r = pool_co_pace(f->p, is_there ? col_share(d, f->len) : f->len);
		if (r == 0)
			r = pool_job_may_go_on(f->job); /* that may have taken long */
		if (r == 0)
			r = reactor_co_call(f->p->w->reactors[reactor], fill_there, f);
		if (r == 0) {
			f->done += col_share(d, f->len);
			pool_job_progress(f->job, col_share(d, f->len));
		}
	}
	return r;
}

/* Coroutine. A run of allocated clusters; of parity layouts the stripes that it touches. */
static int fill_co_run(struct fill *f, uint64_t off, uint64_t end)
{
	const struct raid_desc *d = &f->g->desc;
	uint64_t stripe = (uint64_t)raid_data_cols(d) * d->strip_bytes;

	if (pool_layout_is_parity(d->layout)) {
		off = off / stripe * stripe;
		end = MIN(DIV_UP(end, stripe) * stripe, d->size_bytes);
	}
	off = MAX(off, f->done_to);
	if (off >= end)
		return 0;
	f->done_to = end;
	return fill_co_range(f, raid_home(f->p->reactors[0].raid, d->group), off, end);
}

static int fill_co_data(struct fill *f)
{
	struct ashlar_pool *p = f->p;
	uint64_t cluster = p->label->cluster_bytes, per_group = f->g->desc.size_bytes / cluster, first, n, i, k;
	uint8_t *bits = xmalloc(LOOK_CLUSTERS / 8);
	int r = 0;

	for (first = 0; first < per_group && r == 0; first += n) {
		n = MIN(per_group - first, LOOK_CLUSTERS);
		r = thin_co_allocated(p->thin, f->g->desc.group * (p->label->group_bytes / cluster) + first, (unsigned)n, bits);
		for (i = 0; i < n && r == 0; i += MAX(k, 1)) {
			for (k = 0; i + k < n && bits[(i + k) / 8] >> ((i + k) % 8) & 1; k++)
				;
			if (k)
				r = fill_co_run(f, (first + i) * cluster, (first + i + k) * cluster);
		}
	}
	xfree(bits);
	return r;
}

/* Coroutine. Each slice by the reactor that logs there; the rest, which no log of this epoch uses, by the last one. */
static int fill_co_logs(struct fill *f)
{
	struct ashlar_pool *p = f->p;
	uint64_t all = pool_stripe_logs_bytes(p), slice = p->label->log_slice_bytes;
	unsigned n = MAX(p->label->log_slices, 1), i;
	int r = 0;

	if (!p->label->log_group_plus_1) /* made, and not in use yet */
		return fill_co_range(f, 0, 0, all);
	for (i = 0; i < n && r == 0; i++)
		r = fill_co_range(f, i, i * slice, i + 1 == n ? all : (i + 1) * slice);
	return r;
}

static int fill_co(struct fill *f)
{
	switch (f->g->kind) {
	case THIN_GROUP_META:
		return fill_co_range(f, 0, 0, f->g->desc.size_bytes);
	case THIN_GROUP_LOG:
		return fill_co_logs(f);
	default:
		return fill_co_data(f);
	}
}

int pool_co_group_bytes(struct ashlar_pool *p, const struct raid_desc *d, uint64_t *bytes)
{
	uint64_t clusters;
	int r = thin_co_group_used(p->thin, d->group, &clusters);

	*bytes = r == 0 ? clusters * p->label->cluster_bytes : 0;
	return r;
}

int pool_co_column_bytes(struct ashlar_pool *p, unsigned kind, const struct raid_desc *d, uint64_t *bytes)
{
	uint64_t clusters = 0;
	int r = 0;

	if (kind == THIN_GROUP_DATA)
		r = thin_co_group_used(p->thin, d->group, &clusters);
	*bytes = kind == THIN_GROUP_META ? d->size_bytes : kind == THIN_GROUP_LOG ? pool_stripe_logs_bytes(p) :
		 col_share(d, clusters * p->label->cluster_bytes);
	return r;
}

/* ---- switching ---- */

struct commit {
	struct ashlar_pool *p;
	uint64_t group;
};

static int commit_there(void *arg)
{
	struct commit *c = arg;

	return raid_target_commit(pool_here(c->p)->raid, c->group);
}

/* Coroutine. On every instance that writes to the group; others have nothing to promise, and say so. */
static int target_co_commit(struct ashlar_pool *p, const struct pgroup *g)
{
	struct commit c = { p, g->desc.group };
	unsigned i;
	int r = 0;

	if (g->homed || pool_layout_is_parity(g->desc.layout))
		return reactor_co_call(p->w->reactors[raid_home(p->reactors[0].raid, c.group)], commit_there, &c);
	for (i = 0; i < p->n_reactors && r == 0; i++)
		r = reactor_co_call(p->w->reactors[i], commit_there, &c);
	return r;
}

/* target NULL: the column, of a mirror, is dropped. */
static void desc_switch(struct raid_desc *d, unsigned col, const struct raid_col *target)
{
	if (!target) {
		memmove(&d->cols[col], &d->cols[col + 1], (d->n_cols - col - 1u) * sizeof(d->cols[0]));
		d->n_cols--;
		d->copies--;
		return;
	}
	d->cols[col] = *target;
	if (col < d->n_cols)
		return;
	d->n_cols++;
	d->copies++;
	d->layout = RAID_RAID1;
}

/* Hands in the group's record as its descriptor is now. Does not suspend. */
static uint64_t move_hand_in(struct ashlar_pool *p, const struct pgroup *g, const struct raid_col *target)
{
	struct pool_group_disk *rec = xmalloc(sizeof(*rec));
	uint64_t seq;

	pool_group_encode(&g->desc, g->kind, p->label, rec);
	seq = meta_record(p->meta, POOL_REC_GROUP_MOVE, rec, sizeof(*rec));
	if (target)
		pool_space_target_handed_in(p, target, seq);
	xfree(rec);
	p->change_gen++;
	return seq;
}

int pool_label_meta_find(const struct label *l, uint64_t group)
{
	unsigned i;

	for (i = 0; i < l->n_meta; i++)
		if (l->meta[i].group == group)
			return (int)i;
	return -ENOENT;
}

/* Coroutine. All labels say where the metadata group lies from now on. Even if only some could be written they stay at it: every
 * place that any of them names has all that has been written. */
static int label_co_switch(struct ashlar_pool *p, struct pgroup *g, unsigned col, const struct raid_col *target)
{
	int i, r = -ENODEV;

	co_mutex_lock(&p->labels);
	i = pool_label_meta_find(p->label, g->desc.group);
	CHECK(i >= 0); /* plans leave out what has no name, and what has one keeps it as long as the group is there */
	if (!target || p->disks[target->disk].state == PDISK_ONLINE) {
		desc_switch(&g->desc, col, target);
		p->label->meta[i].n_cols = g->desc.n_cols;
		memcpy(p->label->meta[i].cols, g->desc.cols, g->desc.n_cols * sizeof(g->desc.cols[0]));
		(void)!pool_co_publish_locked(p);
		r = 0;
	}
	co_mutex_unlock(&p->labels);
	return r;
}

static void dirty_forget(struct ashlar_pool *p, struct pgroup *g)
{
	struct pool_rec_regions rec = { .group = le64_make(g->desc.group) };

	g->dirty = 0;
	g->dirty_seq = meta_record(p->meta, POOL_REC_REGIONS, &rec, sizeof(rec));
}

/* Coroutine. The target is good: it becomes the column. 0: it has, and the transition is over. target NULL: the column goes. */
static int move_co_switch(struct ashlar_pool *p, struct pgroup *g, unsigned col, const struct raid_col *target)
{
	struct raid_col old = g->desc.cols[col];
	bool replaces = col < g->desc.n_cols;
	struct raid_desc *before;
	uint64_t seq;
	int r;

	r = meta_co_admit(p->meta, sizeof(struct pool_group_disk) + 64, false);
	if (r == 0 && target)
		r = target_co_commit(p, g);
	if (r < 0)
		return r;
	before = xmalloc(sizeof(*before));
	*before = g->desc;
	g->before = before;
	if (replaces)
		pool_space_hold(p, &old, g->desc.col_bytes);
	if (g->kind == THIN_GROUP_META) {
		r = label_co_switch(p, g, col, target);
		if (r == 0)
			pool_co_transition_end(p, g);
	} else if (!target || p->disks[target->disk].state == PDISK_ONLINE) {
		desc_switch(&g->desc, col, target);
	} else {
		r = -ENODEV;
	}
	if (r < 0)
		goto out_release;
	g->has_target = false; /* for instances that load it now */
	seq = move_hand_in(p, g, target);
	if (MUTANT(REBUILD_FORGETS_DIRTY))
		dirty_forget(p, g);
	r = meta_co_commit(p->meta, seq);
	if (r < 0) /* the pool has stopped, and nobody knows where the next opening finds the column */
		pool_co_shut(p);
	if (g->kind != THIN_GROUP_META)
		pool_co_transition_end(p, g);
	g->before = NULL; /* nobody goes by it any more */
	if (r == 0)
		r = meta_co_wait_applied(p->meta, seq);
out_release:
	g->before = NULL;
	xfree(before);
	if (replaces)
		pool_space_release(p, &old);
	return r;
}

/* ---- the whole ---- */

static bool is_moved(const struct pgroup *g, unsigned col, const struct raid_col *target)
{
	return col < g->desc.n_cols && g->desc.cols[col].disk == target->disk && g->desc.cols[col].off_bytes == target->off_bytes;
}

/* Coroutine. One attempt. *disk: the target's; *own: the error is the target's, another one may do. */
static int move_co_try(struct ashlar_pool *p, struct pgroup *g, const struct pool_target *to, struct pool_job *job, unsigned *disk, bool *own)
{
	struct fill f = { .p = p, .g = g, .job = job, .col = to->col };
	struct raid_col target;
	int r, e;

	*own = false;
	co_mutex_lock(&p->alloc);
	r = pool_co_space_take_target(p, g->kind, &g->desc, to, &target);
	co_mutex_unlock(&p->alloc);
	if (r < 0)
		return r;
	*disk = target.disk;
	pool_co_transition_begin(p, g, &target, to->col);
	r = fill_co(&f);
	if (r == 0 && !MUTANT(SWITCH_BEFORE_FLUSH))
		r = bdev_co_flush(raid_bdev(p->reactors[0].raid));
	if (r == 0)
		r = move_co_switch(p, g, to->col, &target);
	if (is_moved(g, to->col, &target))
		return r;
	e = target_co_commit(p, g);
	*own = e < 0 || p->disks[target.disk].state != PDISK_ONLINE;
	pool_co_transition_end(p, g);
	pool_space_target_drop(p, &target);
	job->info.done_bytes -= f.done;
	return r < 0 ? r : -EIO;
}

int pool_co_column_move_to(struct ashlar_pool *p, struct pgroup *g, const struct pool_target *to, struct pool_job *job)
{
	struct pool_target t = *to;
	unsigned disk;
	bool own;
	int r;

	CHECK(g->moving && t.col <= g->desc.n_cols && (t.col < g->desc.n_cols || g->desc.layout == RAID_RAID1));
	if (g->unsync) { /* a crash left columns that differ: which of them is the source must not be our choice */
		r = pool_co_group_sync(p, g);
		if (r < 0)
			return r;
	}
	for (;;) {
		r = move_co_try(p, g, &t, job, &disk, &own);
		if (r == 0 || !own || p->stopping || p->failed || job->stop || job->pause)
			return r;
		t.avoid[disk / 64] |= 1ULL << (disk % 64);
	}
}

int pool_co_column_move(struct ashlar_pool *p, struct pgroup *g, unsigned col, struct pool_job *job)
{
	struct pool_target t = { .col = col };

	if (col < g->desc.n_cols)
		t.prefer_plus_1 = p->label->disks[g->desc.cols[col].disk].successor_plus_1;
	return pool_co_column_move_to(p, g, &t, job);
}

int pool_co_column_drop(struct ashlar_pool *p, struct pgroup *g, unsigned col)
{
	CHECK(g->moving && g->kind != THIN_GROUP_DATA && g->desc.n_cols > 2 && col < g->desc.n_cols);
	return move_co_switch(p, g, col, NULL);
}

/* A column that shares its disk with another; n_cols: each has its own. */
static unsigned doubled_col(const struct raid_desc *d)
{
	unsigned i, k;

	for (i = 0; i < d->n_cols; i++)
		for (k = 0; k < i; k++)
			if (d->cols[k].disk == d->cols[i].disk)
				return i;
	return d->n_cols;
}

int pool_co_metadata_spread(struct ashlar_pool *p, struct pgroup *g, unsigned copies, struct pool_job *job)
{
	int r = 0;

	CHECK(g->kind != THIN_GROUP_DATA);
	copies = MIN(copies, RAID_COPIES_MAX);
	while (r == 0 && doubled_col(&g->desc) < g->desc.n_cols)
		r = pool_co_column_move_to(p, g, &(struct pool_target){ .col = doubled_col(&g->desc) }, job);
	while (r == 0 && g->desc.n_cols < copies)
		r = pool_co_column_move_to(p, g, &(struct pool_target){ .col = g->desc.n_cols }, job);
	return r;
}

int pool_co_metadata_widen(struct ashlar_pool *p, unsigned copies, struct pool_job *job)
{
	uint64_t *groups;
	unsigned n = 0, i;
	int r = 0;

	groups = xmalloc((p->label->n_meta + 1u) * sizeof(*groups));
	for (i = 0; i < p->label->n_meta; i++)
		groups[n++] = p->label->meta[i].group;
	if (p->label->log_group_plus_1)
		groups[n++] = p->label->log_group_plus_1 - 1;
	for (i = 0; i < n && r == 0; i++) {
		struct pgroup *g;

		r = pool_co_group_claim(p, groups[i], &g);
		if (r < 0)
			break;
		r = pool_co_metadata_spread(p, g, copies, job);
		pool_group_unclaim(p, g);
	}
	xfree(groups);
	return r;
}

/* ---- the record ---- */

static bool desc_has_col(const struct raid_desc *d, unsigned col, const struct raid_col *c)
{
	return col < d->n_cols && d->cols[col].disk == c->disk && d->cols[col].off_bytes == c->off_bytes;
}

/* Of a move, columns stay as large, and those in the same place stay; of another shape, the layout stays, and no column. */
static int columns_check(const struct raid_desc *old, const struct raid_desc *new, unsigned kind, bool is_shape)
{
	if (is_shape)
		return kind == THIN_GROUP_DATA && old->layout == new->layout && old->copies == new->copies ? 0 : -ERR_FORMAT;
	return old->col_bytes == new->col_bytes ? 0 : -ERR_FORMAT;
}

int pool_co_apply_group_columns(struct ashlar_pool *p, unsigned type, const void *payload, size_t len)
{
	const struct pool_group_disk *rec = payload;
	bool is_shape = type == POOL_REC_GROUP_SHAPE;
	struct raid_desc *old = xmalloc(2 * sizeof(*old)), *new = old + 1;
	struct pool_group_disk *was = xmalloc(sizeof(*was));
	unsigned c;
	int r = len == sizeof(*rec) ? pool_group_decode(p, rec, new, NULL) : -ERR_FORMAT;

	if (r == 0)
		r = meta_array_co_get(p->groups, new->group, was);
	if (r == 0)
		r = was->kind == rec->kind && rec->kind != THIN_GROUP_NONE ? pool_group_decode(p, was, old, NULL) : -ERR_FORMAT;
	if (r == 0)
		r = columns_check(old, new, rec->kind, is_shape);
	for (c = 0; r == 0 && c < old->n_cols; c++)
		if (is_shape || !desc_has_col(new, c, &old->cols[c]))
			r = pool_co_column_mark(p, old, c, false);
	for (c = 0; r == 0 && c < new->n_cols; c++)
		if (is_shape || !desc_has_col(old, c, &new->cols[c]))
			r = pool_co_column_mark(p, new, c, true);
	if (r == 0)
		r = meta_array_co_set(p->groups, new->group, rec);
	xfree(was);
	xfree(old);
	return r;
}
