/*
 * leave.c: what is wanted of a disk: to be evacuated, removed, replaced; and of the pool: to be evened out. The commands.
 *
 * A command checks (leave_check.c), writes the intent into the labels, and has a job; the rest is the worker's (relocate.c). What
 * is asked for again goes on as it is, or turns into the other: an evacuation may become a removal.
 */
#include <stdio.h>
#include <string.h>

#include "engine/pool/leave.h"
#include "engine/pool/volumes.h"

/* ---- intents ---- */

void pool_leave_set(struct ashlar_pool *p, const struct leave_intent *in)
{
	struct label_disk *ld = &p->label->disks[in->disk];
	struct pool_job *j = p->life->relocations[in->disk];

	if (j) {
		j->stop = !in->flags;
		j->pause = in->flags & LABEL_LEAVE_PAUSED;
	}
	ld->leaving = in->flags;
	ld->successor_plus_1 = in->flags ? in->successor_plus_1 : 0;
	p->disks[in->disk].leaving = in->flags != 0;
	p->change_gen++;
	p->disk_gen++;
}

void pool_leave_get(const struct ashlar_pool *p, unsigned disk, struct leave_intent *out)
{
	const struct label_disk *ld = &p->label->disks[disk];

	*out = (struct leave_intent){ .disk = disk, .flags = ld->leaving, .successor_plus_1 = ld->successor_plus_1 };
}

int pool_co_leave_want(struct ashlar_pool *p, const struct leave_intent *in)
{
	int r;

	co_mutex_lock(&p->labels);
	pool_leave_set(p, in);
	r = pool_co_publish_locked(p);
	co_mutex_unlock(&p->labels);
	pool_life_kick(p);
	if (!in->flags)
		thin_space_changed(p->thin);
	return r;
}

int pool_co_rebalance_want(struct ashlar_pool *p, uint32_t wanted)
{
	struct pool_job *j = p->life->relocations[LABEL_DISKS_MAX];
	int r;

	co_mutex_lock(&p->labels);
	if (j) {
		j->stop = !(wanted & LABEL_REBALANCE);
		j->pause = wanted & LABEL_REBALANCE_PAUSED;
	}
	p->label->wanted = wanted;
	r = pool_co_publish_locked(p);
	co_mutex_unlock(&p->labels);
	pool_life_kick(p);
	return r;
}

/* ---- commands ---- */

static int labels_failed(struct ashlar_pool *p, int r, struct err *e)
{
	return err_set(e, r, "pool %s: its labels could not be written: %s", p->label->name, err_text(r));
}

static void plan_fill(struct ashlar_pool *p, const struct leave_check *c, struct ashlar_relocation *out)
{
	struct pool_health h;

	pool_co_health(p, &h);
	memset(out, 0, sizeof(*out));
	out->copy_bytes = c->copy_bytes;
	out->n_columns = c->n_columns;
	out->redundancy = h.redundancy;
	out->redundancy_promised = h.promised;
}

/* Coroutine, under life->returning. The intent, durable, and its job. A disk that is away is not waited for any more. */
static int want_co_begin(struct ashlar_pool *p, const struct leave_intent *in, struct ashlar_relocation *out, struct err *e)
{
	int r = pool_co_leave_want(p, in);

	if (r < 0)
		return labels_failed(p, r, e);
	out->job = pool_relocate_job(p, in->disk)->info.id;
	pool_life_kick(p);
	return 0;
}

static int leave_co_locked(struct ashlar_pool *p, const char *disk, bool remove, bool dry_run, struct ashlar_relocation *out, struct err *e)
{
	struct leave_check c = { .removes = remove, .added = LABEL_DISKS_MAX };
	struct leave_intent in;
	int r = pool_disk_find(p, disk, &c.disk, e);

	if (r == 0)
		r = pool_co_leave_check(p, &c, e);
	if (r < 0)
		return r;
	plan_fill(p, &c, out);
	if (dry_run)
		return 0;
	pool_leave_get(p, c.disk, &in);
	in.flags = (uint8_t)((in.flags & ~LABEL_LEAVE_PAUSED) | LABEL_LEAVE | (remove ? LABEL_LEAVE_REMOVE : 0));
	return want_co_begin(p, &in, out, e);
}

static int leave_co(struct ashlar_pool *p, const char *disk, bool remove, bool dry_run, struct ashlar_relocation *out, struct err *e)
{
	int r = dry_run ? 0 : pool_check_writable(p, e);

	if (r < 0)
		return r;
	co_mutex_lock(&p->life->returning);
	r = leave_co_locked(p, disk, remove, dry_run, out, e);
	co_mutex_unlock(&p->life->returning);
	return err_default(e, r, remove ? "removing the disk" : "evacuating the disk");
}

int ashlar_co_disk_evacuate(struct ashlar_pool *p, const char *disk, bool dry_run, struct ashlar_relocation *out, struct err *e)
{
	return leave_co(p, disk, false, dry_run, out, e);
}

int ashlar_co_disk_remove(struct ashlar_pool *p, const char *disk, bool dry_run, struct ashlar_relocation *out, struct err *e)
{
	return leave_co(p, disk, true, dry_run, out, e);
}

static int replace_co_locked(struct ashlar_pool *p, const char *disk, const char *path, bool force, bool dry_run,
			     struct ashlar_relocation *out, struct err *e)
{
	struct leave_check c = { .removes = true };
	struct leave_intent in = { .flags = LABEL_LEAVE | LABEL_LEAVE_REMOVE };
	struct addition *a = NULL;
	int r = pool_disk_find(p, disk, &c.disk, e);

	if (r == 0)
		r = pool_co_disks_prepare(p, &path, 1, force, &a, e);
	if (r < 0)
		return r;
	c.added = pool_disks_prepared(a, 0, &c.added_extents);
	r = pool_co_leave_check(p, &c, e);
	if (r == 0)
		plan_fill(p, &c, out);
	if (r == 0 && !dry_run) {
		in.disk = c.disk;
		in.successor_plus_1 = (uint16_t)(c.added + 1);
		r = pool_co_disks_install(a, &in, e);
	}
	if (r == 0 && !dry_run) {
		out->job = pool_relocate_job(p, c.disk)->info.id;
		pool_life_kick(p);
	}
	pool_disks_forget(a);
	return r;
}

int ashlar_co_disk_replace(struct ashlar_pool *p, const char *disk, const char *path, bool force, bool dry_run,
			   struct ashlar_relocation *out, struct err *e)
{
	int r = dry_run ? 0 : pool_check_writable(p, e);

	if (r < 0)
		return r;
	co_mutex_lock(&p->life->returning);
	r = replace_co_locked(p, disk, path, force, dry_run, out, e);
	co_mutex_unlock(&p->life->returning);
	return err_default(e, r, "replacing the disk");
}

int pool_co_disk_stay(struct ashlar_pool *p, unsigned disk, struct err *e)
{
	struct leave_intent in = { .disk = disk };
	int r = 0;

	co_mutex_lock(&p->life->returning);
	if (p->disks[disk].leaving) {
		r = pool_co_leave_want(p, &in);
		if (r < 0)
			r = labels_failed(p, r, e);
		else
			pool_event(p, ASHLAR_INFO, "disk.stays", (int)disk, NULL, "disk %s stays, and takes new data again",
				   pool_disk_path(p, disk));
	}
	co_mutex_unlock(&p->life->returning);
	return r;
}

/* ---- rebalance ---- */

int ashlar_co_pool_rebalance(struct ashlar_pool *p, bool dry_run, struct ashlar_relocation *out, struct err *e)
{
	struct leave_check c = { 0 };
	struct balance_move *v;
	size_t n, i;
	int r = dry_run ? 0 : pool_check_writable(p, e);

	if (r < 0)
		return r;
	r = pool_co_balance_plan(p, &v, &n);
	if (r < 0)
		return err_set(e, r, "pool %s: the group table cannot be read: %s", p->label->name, err_text(r));
	for (i = 0; i < n; i++)
		c.copy_bytes += v[i].bytes;
	c.n_columns = n;
	xfree(v);
	plan_fill(p, &c, out);
	if (dry_run)
		return 0;
	co_mutex_lock(&p->life->returning);
	r = pool_co_rebalance_want(p, LABEL_REBALANCE);
	if (r == 0)
		out->job = pool_relocate_job(p, LABEL_DISKS_MAX)->info.id;
	co_mutex_unlock(&p->life->returning);
	pool_life_kick(p);
	return r < 0 ? labels_failed(p, r, e) : 0;
}

/* ---- jobs ---- */

/* Coroutine, under life->returning: does the worker still mean to do it? */
static bool is_wanted(const struct ashlar_pool *p, unsigned disk)
{
	return disk == LABEL_DISKS_MAX ? p->label->wanted & LABEL_REBALANCE : p->disks[disk].leaving;
}

/* Coroutine. */
static int job_co_want(struct ashlar_pool *p, unsigned disk, bool stop, bool pause, struct err *e)
{
	struct leave_intent in;
	int r = 0;

	co_mutex_lock(&p->life->returning);
	if (is_wanted(p, disk) && disk == LABEL_DISKS_MAX) {
		r = pool_co_rebalance_want(p, stop ? 0 : LABEL_REBALANCE | (pause ? LABEL_REBALANCE_PAUSED : 0));
	} else if (is_wanted(p, disk)) {
		pool_leave_get(p, disk, &in);
		in.flags = (uint8_t)(stop ? 0 : (in.flags & ~LABEL_LEAVE_PAUSED) | (pause ? LABEL_LEAVE_PAUSED : 0));
		r = pool_co_leave_want(p, &in);
	}
	co_mutex_unlock(&p->life->returning);
	pool_life_kick(p);
	return r < 0 ? labels_failed(p, r, e) : 0;
}

int pool_co_relocation_stop(struct ashlar_pool *p, unsigned disk, struct err *e)
{
	return job_co_want(p, disk, true, false, e);
}

int pool_co_relocation_pause(struct ashlar_pool *p, unsigned disk, bool pause, struct err *e)
{
	return job_co_want(p, disk, false, pause, e);
}
