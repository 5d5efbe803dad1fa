/*
 * move_cmds.c: commands on moves of families. What they ask for is a record; the worker (move_family.c) does it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/units.h"
#include "engine/pool/adopt.h"
#include "engine/pool/move_family.h"
#include "engine/pool/moved.h"

/* ---- families ---- */

static int by_id(const void *a, const void *b)
{
	const struct thin_vol *x = *(struct thin_vol *const *)a, *y = *(struct thin_vol *const *)b;

	return x->id < y->id ? -1 : x->id > y->id;
}

struct thin_vol **pool_family_members(struct ashlar_pool *p, uint64_t family, unsigned *n)
{
	struct thin_vol **all, *v;
	unsigned cap = 1;

	list_for_each (v, thin_vols(p->thin), link)
		cap += v->family == family;
	all = xcalloc(cap, sizeof(*all));
	*n = 0;
	list_for_each (v, thin_vols(p->thin), link)
		if (v->family == family && v->state == THIN_VOLUME_LIVE)
			all[(*n)++] = v;
	qsort(all, *n, sizeof(*all), by_id);
	return all;
}

const char *pool_family_name(struct ashlar_pool *p, uint64_t family, char *buf, size_t len)
{
	unsigned n, i, volumes = 0;
	struct thin_vol **v = pool_family_members(p, family, &n), *first = NULL;

	for (i = 0; i < n; i++) {
		volumes += v[i]->kind == THIN_KIND_VOLUME;
		if (!first && v[i]->kind == THIN_KIND_VOLUME)
			first = v[i];
	}
	i = (unsigned)snprintf(buf, len, "volume %s", first ? first->name : "?");
	if (volumes > 1 && i < len)
		i += (unsigned)snprintf(buf + i, len - i, ", %u clone%s", volumes - 1, volumes == 2 ? "" : "s");
	if (n > volumes && i < len)
		snprintf(buf + i, len - i, ", %u snapshot%s", n - volumes, n - volumes == 1 ? "" : "s");
	xfree(v);
	return buf;
}

int pool_co_move_want(struct ashlar_pool *p, uint64_t family, const struct uuid *to, struct thin_class cls, unsigned flags)
{
	struct thin_rec_move rec = { .family = le64_make(family), .what = THIN_MOVE_WANT, .layout = cls.layout, .copies = cls.copies,
				     .flags = (uint8_t)flags };
	struct thin_vol *v;

	if (to)
		rec.pool = *to;
	list_for_each (v, thin_vols(p->thin), link)
		if (v->family == family && v->state == THIN_VOLUME_STILL && !flags)
			pool_co_vol_close_idle(p, v);
	return thin_co_move(p->thin, &rec);
}

/* ---- what is told of it ---- */

struct thin_vol *pool_handed_find(struct ashlar_pool *p, const char *name)
{
	struct thin_vol *v;

	list_for_each (v, thin_vols(p->thin), link)
		if (v->state == THIN_VOLUME_HANDED && v->kind == THIN_KIND_VOLUME && !strcmp(v->name, name))
			return thin_vol_find(p->thin, name) ? NULL : v;
	return NULL;
}

static const char *pool_text(struct ashlar_pool *p, const struct uuid *uuid, char buf[ASHLAR_POOL_NAME_MAX + 1])
{
	struct ashlar_pool *to = pool_by_uuid(p->a, uuid);

	if (to)
		snprintf(buf, ASHLAR_POOL_NAME_MAX + 1, "%.63s", to->label->name);
	else
		uuid_format(uuid, buf);
	return buf;
}

const char *pool_move_text(struct ashlar_pool *p, const struct thin_vol *v, char *buf, size_t len)
{
	char pool[ASHLAR_POOL_NAME_MAX + 1];
	struct pool_move *mv = pool_move_find(p, v->family);
	struct raid_profile prof = { v->move_cls.layout, v->move_cls.copies };

	buf[0] = '\0';
	if (pool_vol_is_moved(v)) {
		snprintf(buf, len, "is at %s", v->source);
	} else if (v->state == THIN_VOLUME_HANDED) {
		pool_text(p, &v->move_pool, pool);
		if (pool_by_uuid(p->a, &v->move_pool))
			snprintf(buf, len, "in pool %s", pool);
		else
			snprintf(buf, len, "in pool %s, which is not open: open it, and it is served from there", pool);
	} else if (v->state == THIN_VOLUME_LIVE && v->move_flags & THIN_MOVE_WANTED) {
		snprintf(buf, len, "to %s%s%slayout %s%s: job %" PRIu64, uuid_is_zero(&v->move_pool) ? "" : "pool ",
			 uuid_is_zero(&v->move_pool) ? "" : pool_text(p, &v->move_pool, pool), uuid_is_zero(&v->move_pool) ? "" : ", ",
			 raid_profile_name(prof), v->move_flags & THIN_MOVE_PAUSED ? ", paused" : "", mv ? mv->job->info.id : 0);
	}
	return buf;
}

/* ---- names ---- */

static bool family_has_name(struct ashlar_pool *p, uint64_t family, const char *name)
{
	const struct thin_vol *v = thin_vol_find(p->thin, name);

	return v && v->kind == THIN_KIND_VOLUME && v->family == family;
}

int pool_check_name_free(struct ashlar_pool *p, const struct thin_vol *of, const char *name, struct err *e)
{
	const struct pool_move *mv;

	if (thin_vol_find(p->thin, name))
		return err_set(e, -EEXIST, "volume %s/%s exists already", p->label->name, name);
	list_for_each (mv, &p->a->moves, link) {
		struct ashlar_pool *to = uuid_is_zero(&mv->to_uuid) ? mv->p : pool_by_uuid(p->a, &mv->to_uuid);

		if (to == p && mv->p != p && family_has_name(mv->p, mv->family, name))
			return err_set(e, -EEXIST, "volume %s/%s is being moved to pool %s: the name is kept for it", mv->p->label->name, name,
				       p->label->name);
		if (of && mv->p == p && mv->family == of->family && to && to != p && thin_vol_find(to->thin, name))
			return err_set(e, -EEXIST, "volume %s/%s exists already, and %s/%s is being moved there", to->label->name, name,
				       p->label->name, of->name);
	}
	return 0;
}

/* ---- may it be moved ---- */

/* Something of a stream is kept that is to change a member. */
static const struct thin_vol *receiver_of(struct ashlar_pool *p, uint64_t family)
{
	const struct thin_vol *v, *of;

	list_for_each (v, thin_vols(p->thin), link) {
		of = v->state == THIN_VOLUME_RECEIVING && v->parent ? thin_vol_by_id(p->thin, v->parent) : NULL;
		if (of && of->family == family)
			return of;
	}
	return NULL;
}

/* Coroutine. One that is on its way out of the pool (moved.h) says so in no record before it is there. */
static int co_check_family(struct ashlar_pool *p, const struct thin_vol *v, struct err *e)
{
	const struct thin_vol *receiving = receiver_of(p, v->family);
	unsigned n, i;
	struct thin_vol **all;
	int r = 0;

	if (receiving)
		return err_set(e, -EBUSY, "volume %s/%s is being received into, or what has come of a stream is kept for it: end that first, or drop "
			       "it with: ashlar receive --abort %s/%s", p->label->name, receiving->name, p->label->name, receiving->name);
	all = pool_family_members(p, v->family, &n);
	for (i = 0; i < n && r == 0; i++) {
		r = pool_check_not_adopted(p, all[i], "moving it", e);
		if (r == 0 && (all[i]->move_flags & THIN_MOVE_WANTED || all[i]->moved || pool_co_vol_is_forwarded(p, all[i])))
			r = err_set(e, -EBUSY, "volume %s/%s is being moved already: wait for that job, or cancel it", p->label->name,
				    all[i]->kind == THIN_KIND_VOLUME ? all[i]->name : v->name);
	}
	xfree(all);
	return r;
}

static int check_target(struct ashlar_pool *p, struct ashlar_pool *to, const struct thin_vol *v, struct err *e)
{
	unsigned n, i;
	struct thin_vol **all;
	int r = to == p ? 0 : pool_check_writable(to, e);

	if (r < 0 || to == p)
		return r;
	if (to->label->block_bytes > p->label->block_bytes)
		return err_set(e, -EINVAL, "pool %s has blocks of %u bytes, and the volume's clients use blocks of %u: it cannot be moved there",
			       to->label->name, to->label->block_bytes, p->label->block_bytes);
	all = pool_family_members(p, v->family, &n);
	for (i = 0; i < n && r == 0; i++)
		if (all[i]->kind == THIN_KIND_VOLUME && thin_vol_find(to->thin, all[i]->name))
			r = err_set(e, -EEXIST, "volume %s/%s exists already: rename one of them first", to->label->name, all[i]->name);
	xfree(all);
	return r;
}

static bool family_has_class(struct ashlar_pool *p, const struct thin_vol *v, struct raid_profile prof)
{
	unsigned n, i, same = 0;
	struct thin_vol **all = pool_family_members(p, v->family, &n);

	for (i = 0; i < n; i++)
		same += all[i]->cls.layout == prof.layout && all[i]->cls.copies == prof.copies;
	xfree(all);
	return same == n;
}

/* Coroutine. */
static int info_co_fill(struct ashlar_pool *p, struct ashlar_pool *to, const struct thin_vol *v, struct raid_profile prof,
			struct ashlar_move_info *out, struct err *e)
{
	unsigned n, i;
	struct thin_vol **all = pool_family_members(p, v->family, &n);
	int r;

	*out = (struct ashlar_move_info){ .layout = raid_profile_name(prof) };
	for (i = 0; i < n; i++) {
		out->n_volumes += all[i]->kind == THIN_KIND_VOLUME;
		out->n_snapshots += all[i]->kind == THIN_KIND_SNAPSHOT;
	}
	pool_co_vols_now(p);
	r = pool_co_freed_bytes(p, all, n, &out->used_bytes);
	if (r == 0)
		r = pool_co_free_bytes_of(to, prof, &out->free_bytes);
	xfree(all);
	return err_default(e, r, "finding out how much space is needed");
}

static int check_space(struct ashlar_pool *to, const struct thin_vol *v, const struct ashlar_move_info *i, struct err *e)
{
	char need[32], have[32];

	if (i->used_bytes <= i->free_bytes)
		return 0;
	size_format(i->used_bytes, need, sizeof(need));
	size_format(i->free_bytes, have, sizeof(have));
	return err_set(e, -ERR_POOL_FULL, "pool %s has room for %s of layout %s, and %s and what is of its family need %s until the move is over: "
		       "delete or discard something, or add disks", to->label->name, have, i->layout, v->name, need);
}

/* ---- commands ---- */

/* Coroutine under a->admin. Everything that can be refused is refused before anything is written. */
static int move_co_check(struct ashlar_pool *p, struct ashlar_pool *to, struct thin_vol *v, struct raid_profile prof,
			 struct ashlar_move_info *info, struct err *e)
{
	int r = co_check_family(p, v, e);

	if (r == 0)
		r = check_target(p, to, v, e);
	if (r == 0)
		r = info_co_fill(p, to, v, prof, info, e);
	return r < 0 ? r : check_space(to, v, info, e);
}

/* Coroutine under a->admin. */
static int move_co_begin(struct ashlar_pool *p, struct ashlar_pool *to, struct thin_vol *v, struct raid_profile prof, struct err *e)
{
	struct thin_class cls = { prof.layout, prof.copies };
	int r = pool_co_feature(p, LABEL_INCOMPAT_MOVES | LABEL_INCOMPAT_SNAPSHOTS, e);

	if (r == 0)
		r = pool_co_feature(to, LABEL_INCOMPAT_MOVES | LABEL_INCOMPAT_SNAPSHOTS, e);
	if (r == 0 && pool_layout_is_parity(prof.layout))
		r = pool_co_stripe_logs_ensure(to, e);
	if (r < 0)
		return r;
	r = pool_co_move_want(p, v->family, to == p ? NULL : &to->label->pool, cls, THIN_MOVE_WANTED);
	pool_life_kick(p);
	return pool_full_sentence(p, r, "moving a volume", e);
}

/* The job of a move that was begun after this one; it may have ended already, with volumes that hold nothing. */
static const struct pool_job *job_since(const struct ashlar_pool *p, uint64_t last)
{
	const struct pool_job *j;

	list_for_each (j, &p->life->jobs, link)
		if (j->info.id > last && j->info.kind == ASHLAR_JOB_MOVE)
			return j;
	return NULL;
}

static int move_co_locked(struct ashlar_pool *p, const struct ashlar_move_spec *s, struct ashlar_move_info *info, struct err *e)
{
	struct ashlar_pool *to = s->to ? s->to : p;
	struct thin_vol *v = pool_vol_find(p, s->volume, e);
	const char *layout = s->layout;
	const struct pool_job *job;
	struct raid_profile prof;
	uint64_t last_job;
	int r;

	if (!v)
		return -ENOENT;
	if (!layout)
		layout = raid_profile_name((struct raid_profile){ v->cls.layout, v->cls.copies });
	r = pool_check_layout(to, s->volume, layout, &prof, e);
	if (r < 0 && !s->layout && e)
		snprintf(e->text + strlen(e->text), sizeof(e->text) - strlen(e->text), "; or choose another layout with --layout");
	if (r == 0 && to == p && family_has_class(p, v, prof)) {
		*info = (struct ashlar_move_info){ .layout = raid_profile_name(prof) };
		return 0;
	}
	if (r == 0)
		r = move_co_check(p, to, v, prof, info, e);
	if (r < 0 || s->dry_run)
		return r;
	last_job = p->life->last_job;
	r = move_co_begin(p, to, v, prof, e);
	if (r < 0)
		return r;
	job = job_since(p, last_job);
	if (!job || job->info.state < ASHLAR_JOB_DONE) /* else the volume may be gone */
		pool_move_begin(p, v, info->used_bytes);
	job = job_since(p, last_job);
	info->job = job ? job->info.id : 0;
	return 0;
}

int ashlar_co_volume_move(struct ashlar_pool *p, const struct ashlar_move_spec *s, struct ashlar_move_info *info, struct err *e)
{
	int r = s->dry_run ? 0 : pool_check_writable(p, e);

	memset(info, 0, sizeof(*info));
	if (r < 0)
		return r;
	co_mutex_lock(&p->a->admin);
	r = move_co_locked(p, s, info, e);
	co_mutex_unlock(&p->a->admin);
	return r;
}

/* Coroutine under a->admin. The pool's default. */
static int default_co_set(struct ashlar_pool *p, struct raid_profile prof, struct err *e)
{
	struct raid_profile old = p->label->profile;
	int r;

	co_mutex_lock(&p->labels);
	p->label->profile = prof;
	co_mutex_unlock(&p->labels);
	r = pool_co_publish_labels(p);
	if (r == 0)
		return 0;
	co_mutex_lock(&p->labels);
	p->label->profile = old;
	co_mutex_unlock(&p->labels);
	return err_set(e, r, "pool %s: its labels could not be written: %s", p->label->name, err_text(r));
}

/* The next family that has another layout. */
static struct thin_vol *family_next(struct ashlar_pool *p, uint64_t after, struct raid_profile prof)
{
	struct thin_vol *v, *best = NULL;

	list_for_each (v, thin_vols(p->thin), link)
		if (v->state == THIN_VOLUME_LIVE && v->kind == THIN_KIND_VOLUME && v->family > after && (!best || v->family < best->family) &&
		    !family_has_class(p, v, prof))
			best = v;
	return best;
}

static int layout_co_locked(struct ashlar_pool *p, const char *layout, bool dry_run, struct ashlar_move_info *info, struct err *e)
{
	struct ashlar_move_info one;
	struct raid_profile prof;
	struct thin_vol *v;
	uint64_t largest = 0, free_bytes = 0;
	int r = pool_check_layout(p, "(new)", layout, &prof, e);

	info->layout = r == 0 ? raid_profile_name(prof) : NULL;
	for (v = r == 0 ? family_next(p, 0, prof) : NULL; v && r == 0; v = family_next(p, v->family, prof)) {
		r = move_co_check(p, p, v, prof, &one, e); /* one after the other: each alone must have room */
		info->n_volumes += one.n_volumes;
		info->n_snapshots += one.n_snapshots;
		largest = MAX(largest, one.used_bytes);
		free_bytes = one.free_bytes;
	}
	info->used_bytes = largest;
	info->free_bytes = free_bytes;
	if (r < 0 || dry_run)
		return r;
	if (pool_layout_is_parity(prof.layout))
		r = pool_co_stripe_logs_ensure(p, e);
	if (r == 0)
		r = default_co_set(p, prof, e);
	for (v = r == 0 ? family_next(p, 0, prof) : NULL; v && r == 0; v = family_next(p, v->family, prof))
		r = move_co_begin(p, p, v, prof, e);
	return r;
}

int ashlar_co_pool_set_layout(struct ashlar_pool *p, const char *layout, bool dry_run, struct ashlar_move_info *info, struct err *e)
{
	int r = dry_run ? 0 : pool_check_writable(p, e);

	memset(info, 0, sizeof(*info));
	if (r < 0)
		return r;
	co_mutex_lock(&p->a->admin);
	r = layout_co_locked(p, layout, dry_run, info, e);
	co_mutex_unlock(&p->a->admin);
	return r;
}

/* ---- pausing ---- */

static int pause_co_locked(struct ashlar_pool *p, uint64_t job, bool pause, struct err *e)
{
	struct pool_move *mv, *found = NULL;
	int r;

	list_for_each (mv, &p->a->moves, link)
		if (mv->p == p && mv->job->info.id == job)
			found = mv;
	if (!found)
		return err_set(e, -ENOENT, "pool %s has no move with job number %" PRIu64, p->label->name, job);
	r = pool_co_move_want(p, found->family, uuid_is_zero(&found->to_uuid) ? NULL : &found->to_uuid, found->cls,
			      THIN_MOVE_WANTED | (pause ? THIN_MOVE_PAUSED : 0));
	if (r < 0)
		return pool_full_sentence(p, r, pause ? "pausing a move" : "resuming a move", e);
	mv = pool_move_find(p, found->family);
	if (mv)
		mv->paused = pause;
	pool_life_kick(p);
	return 0;
}

int pool_co_move_pause(struct ashlar_pool *p, uint64_t job, bool pause, struct err *e)
{
	int r = pool_check_writable(p, e);

	if (r < 0)
		return r;
	co_mutex_lock(&p->a->admin);
	r = pause_co_locked(p, job, pause, e);
	co_mutex_unlock(&p->a->admin);
	return r;
}
