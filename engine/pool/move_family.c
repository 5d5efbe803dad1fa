/*
 * move_family.c: families that are being moved.
 *
 * A family is copied member by member, snapshots in order of their ids: each copy begins as a clone of the copy of what the member came
 * from (thin_vol_prev()), and gets what differs. So what was shared is shared again. Snapshots do not change. A volume does; so first
 * a snapshot of it is taken that nobody sees (STILL), and copied like the others: that is the bulk, and it can be gone on with after a
 * crash. Then the live part: a copy is made of that copy, a mirror makes every change in both places, and what the volume has and the
 * snapshot has not is copied under it. When that is done for all volumes, and every snapshot there is has a copy, they are equal,
 * whatever clients do, and stay so: the moment for the switch (move_switch.c).
 *
 * One coroutine per pool that is open for writing. It looks what is next under a->admin, copies without that lock, and looks again. So
 * snapshots that are taken and deleted meanwhile, clones, rollbacks are no events to be handled: the next look finds that a copy is
 * missing, or of no use. Who needs a volume for himself, and holds the lock, asks it to let go (pool_moves_co_yield()): it ends the
 * mirrors and keeps no volume, and begins again behind the lock. It never waits for that lock while it may be asked.
 *
 * After a crash copies of snapshots are gone on with; those of volumes are made anew, from that of the newest snapshot.
 */
#include <stdio.h>
#include <string.h>

#include "engine/base/units.h"
#include "engine/pool/move_family.h"

#define ADMIN_NS (5 * NS_PER_MS)
#define LOOK_NS (10 * NS_PER_SEC)
#define AGAIN_NS (5 * NS_PER_SEC)
#define LEFTOVERS_NS (100 * NS_PER_MS)

/* ---- letting go ---- */

struct ashlar_pool *pool_by_uuid(struct ashlar *a, const struct uuid *uuid)
{
	struct ashlar_pool *p;

	list_for_each (p, &a->pools, link)
		if (uuid_is_equal(&p->label->pool, uuid))
			return p;
	return NULL;
}

struct pool_move *pool_move_find(struct ashlar_pool *p, uint64_t family)
{
	struct pool_move *mv;

	list_for_each (mv, &p->a->moves, link)
		if (mv->p == p && mv->family == family)
			return mv;
	return NULL;
}

bool pool_is_usable(const struct ashlar_pool *p)
{
	return p && !p->stopping && !p->no_moves && !p->failed && !p->read_only;
}

bool move_must_stop(const struct pool_move *mv)
{
	return mv->let_go || mv->paused || mv->job->stop || !pool_is_usable(mv->p) || !pool_is_usable(mv->to);
}

bool move_co_admin(struct pool_move *mv)
{
	struct co_mutex *admin = &mv->p->a->admin;

	while (admin->owner && !move_must_stop(mv))
		co_sleep_ns(ADMIN_NS);
	if (move_must_stop(mv))
		return false;
	co_mutex_lock(admin); /* it is free: does not suspend */
	return true;
}

/* Coroutine. No mirror is left. Either nobody has the lock, or who has it waits for this. */
static void move_co_release(struct pool_move *mv)
{
	struct co_mutex *admin = &mv->p->a->admin;
	bool locked;

	while (mv->n_live && admin->owner && !mv->let_go)
		co_sleep_ns(ADMIN_NS);
	locked = mv->n_live && !mv->let_go;
	if (locked)
		co_mutex_lock(admin);
	move_co_live_stop(mv);
	mv->holds = false;
	if (locked)
		co_mutex_unlock(admin);
	co_queue_wake_all(&mv->p->a->moves_changed);
}

static bool move_concerns(const struct pool_move *mv, const struct ashlar_pool *p)
{
	return mv->p == p || mv->to == p;
}

/* Coroutine under a->admin. v NULL: whatever it keeps of the pool. */
static void moves_co_let_go(struct ashlar_pool *p, const struct thin_vol *v)
{
	struct pool_move *mv;
	bool busy = true;

	CHECK(p->a->admin.owner == co_self());
	while (busy && (!v || v->n_kept)) {
		busy = false;
		list_for_each (mv, &p->a->moves, link) {
			if (!move_concerns(mv, p) || !(v ? mv->holds : mv->runs))
				continue;
			mv->let_go = true;
			busy = true;
		}
		if (busy)
			co_queue_wait(&p->a->moves_changed);
	}
}

void pool_moves_co_yield(struct ashlar_pool *p, const struct thin_vol *v)
{
	if (v->n_kept)
		moves_co_let_go(p, v);
}

void pool_moves_co_stop(struct ashlar_pool *p)
{
	p->no_moves = true;
	if (p->life)
		pool_life_kick(p);
	moves_co_let_go(p, NULL);
}

/* ---- one family ---- */

struct thin_rec_move move_rec(const struct pool_move *mv, uint8_t what)
{
	struct thin_rec_move rec = { .family = le64_make(mv->family), .pool = mv->p->label->pool, .what = what,
				     .layout = mv->cls.layout, .copies = mv->cls.copies };

	if (what == THIN_MOVE_WANT || what == THIN_MOVE_HAND)
		rec.pool = mv->to_uuid;
	return rec;
}

/* The first snapshot, in order of ids, that has no complete copy. */
static struct thin_vol *next_point(struct pool_move *mv)
{
	struct thin_vol *v, *c, *best = NULL;

	list_for_each (v, thin_vols(mv->p->thin), link) {
		if (v->family != mv->family || !move_is_point(v) || (best && best->id < v->id))
			continue;
		c = move_copy_of(mv, v);
		if (!c || !move_copy_is_complete(c))
			best = v;
	}
	return best;
}

static struct thin_vol *still_of(struct pool_move *mv, const struct thin_vol *volume)
{
	struct thin_vol *v;

	list_for_each (v, thin_vols(mv->p->thin), link)
		if (v->state == THIN_VOLUME_STILL && v->parent == volume->id)
			return v;
	return NULL;
}

/* Coroutine under a->admin. A volume that has no STILL snapshot gets one. 0: all have. */
static int still_co_take(struct pool_move *mv, struct err *e)
{
	struct thin_copy c = { .kind = THIN_KIND_SNAPSHOT, .name = "", .hidden = THIN_COPY_STILL };
	struct thin_vol *v;
	uint8_t random[16];
	int r;

	list_for_each (v, thin_vols(mv->p->thin), link)
		if (v->family == mv->family && v->state == THIN_VOLUME_LIVE && v->kind == THIN_KIND_VOLUME && !still_of(mv, v))
			c.source = c.source ? c.source : v;
	if (!c.source)
		return 0;
	world_random(mv->p->w, random, sizeof(random));
	uuid_from_random(&c.guid, random);
	co_mutex_lock(&c.source->admin);
	r = thin_co_copy(mv->p->thin, &c, 1);
	co_mutex_unlock(&c.source->admin);
	return r < 0 ? pool_full_sentence(mv->p, r, "moving a volume", e) : 1;
}

/* Coroutine under a->admin. The snapshot and its copy, which is there then, are open, and stay; so does what it came from. */
static int point_co_begin(struct pool_move *mv, struct thin_vol *of, struct thin_vol **base, struct thin_vol **copy, struct err *e)
{
	int r = 0;

	*base = thin_vol_prev(mv->p->thin, of);
	*copy = move_copy_of(mv, of);
	if (!*copy)
		r = move_co_copy_create(mv, of, *base, copy, e);
	if (r < 0)
		return r;
	mv->holds = true;
	r = pool_co_vol_keep(mv->p, of);
	if (r == 0) {
		r = pool_co_vol_keep(mv->to, *copy);
		if (r < 0)
			pool_vol_unkeep(mv->p, of);
	}
	if (r < 0)
		return err_default(e, r, "opening a snapshot to copy it");
	if (*base)
		(*base)->n_kept++;
	return 0;
}

/* Coroutine under a->admin; returns without it. */
static int point_co_step(struct pool_move *mv, struct thin_vol *of, struct err *e)
{
	struct thin_vol *base, *copy;
	int r = point_co_begin(mv, of, &base, &copy, e);

	move_admin_unlock(mv);
	if (r < 0)
		return r;
	r = move_co_fill(mv, of, base, copy, e);
	pool_vol_unkeep(mv->p, of);
	pool_vol_unkeep(mv->to, copy);
	if (base)
		pool_vol_unkeep(mv->p, base);
	pool_co_vol_close_idle(mv->to, copy);
	if (of->state == THIN_VOLUME_STILL)
		pool_co_vol_close_idle(mv->p, of);
	return r;
}

static unsigned family_volumes(const struct pool_move *mv)
{
	struct thin_vol *v;
	unsigned n = 0;

	list_for_each (v, thin_vols(mv->p->thin), link)
		n += v->family == mv->family && v->state == THIN_VOLUME_LIVE && v->kind == THIN_KIND_VOLUME;
	return n;
}

static bool all_equal(const struct pool_move *mv)
{
	unsigned i, n = 0;

	for (i = 0; i < mv->n_live; i++)
		n += mv->live[i].is_equal;
	return n == mv->n_live && n == family_volumes(mv);
}

/* Coroutine under a->admin. How much there is to be copied, and how much of that has been, before the pool was opened. Only for the
 * job: an error is none. */
static void move_co_count(struct pool_move *mv)
{
	struct thin_vol **v, *copy;
	uint64_t all = 0, done = 0;
	unsigned n, i, k;

	mv->counted = true;
	v = pool_family_members(mv->p, mv->family, &n);
	pool_co_vols_now(mv->p);
	if (pool_co_freed_bytes(mv->p, v, n, &all) < 0)
		all = 0;
	for (i = k = 0; i < n; i++) {
		copy = move_copy_of(mv, v[i]);
		if (copy)
			v[k++] = copy;
	}
	if (k && pool_co_freed_bytes(mv->to, v, k, &done) < 0)
		done = 0;
	xfree(v);
	mv->job->info.total_bytes = all;
	if (done)
		pool_job_progress(mv->job, MIN(done, all));
}

/* Coroutine. One step; 1: it is over; 0: there is more to do. */
static int move_co_step(struct pool_move *mv, struct err *e)
{
	struct thin_vol *v;
	int r;

	if (!move_co_admin(mv))
		return -ECANCELED;
	if (!mv->counted)
		move_co_count(mv);
	r = family_volumes(mv) ? move_co_tidy(mv, e) : -ENOENT;
	v = r == 0 ? next_point(mv) : NULL;
	if (v)
		return point_co_step(mv, v, e);
	if (r == 0)
		r = still_co_take(mv, e);
	if (r == 1) {
		move_admin_unlock(mv);
		return 0;
	}
	if (r == 0)
		r = move_co_live_start(mv, e);
	if (r == 0 && all_equal(mv)) {
		r = move_co_switch(mv, e);
		move_admin_unlock(mv);
		return r;
	}
	move_admin_unlock(mv);
	return r < 0 ? r : move_co_live_copy(mv, e);
}

/* ---- its end ---- */

/* Coroutine. Nothing is wanted any more, and the copies go. False: not now. */
static bool move_co_give_up(struct pool_move *mv)
{
	struct thin_rec_move rec = move_rec(mv, THIN_MOVE_DROP);
	struct ashlar_pool *p = mv->p;
	int r;

	while (p->a->admin.owner && pool_is_usable(p) && !mv->let_go)
		co_sleep_ns(ADMIN_NS);
	if (!pool_is_usable(p) || mv->let_go)
		return false;
	co_mutex_lock(&p->a->admin);
	r = pool_co_move_want(p, mv->family, NULL, (struct thin_class){ 0, 0 }, 0);
	if (r == 0 && pool_is_usable(mv->to)) /* else they are dropped when that is open again */
		r = thin_co_move(mv->to->thin, &rec);
	co_mutex_unlock(&p->a->admin);
	return r == 0;
}

static void move_free(struct pool_move *mv)
{
	list_del(&mv->link);
	xfree(mv->live);
	xfree(mv);
}

/* Coroutine. r: 1: it is done; else it cannot go on, or shall not. False: it is to be tried again. */
static bool move_co_end(struct pool_move *mv, int r, const struct err *e)
{
	struct pool_job *job = mv->job;
	bool stop = job->stop;

	if (r == 1) {
		pool_job_end(job, ASHLAR_JOB_DONE, "%s", e->text);
		return true;
	}
	if (r == -ECANCELED && !stop)
		return false;
	if (!move_co_give_up(mv))
		return false;
	if (stop)
		pool_job_end(job, ASHLAR_JOB_STOPPED, "it was cancelled: everything is where it was");
	else if (!family_volumes(mv))
		pool_job_end(job, ASHLAR_JOB_STOPPED, "the volume has been deleted");
	else
		pool_job_end(job, ASHLAR_JOB_FAILED, "%s; everything is where it was", e->text);
	return true;
}

/* Coroutine. Until it is over, or has to let go. */
static void move_co_run(struct pool_move *mv)
{
	struct ashlar *a = mv->p->a;
	struct err e = { 0 };
	int r;

	mv->runs = true;
	pool_job_waits(mv->job, "%s", "");
	do {
		r = move_co_step(mv, &e);
	} while (r == 0);
	move_co_release(mv);
	if (r < 0 && (mv->let_go || !pool_is_usable(mv->p) || !pool_is_usable(mv->to)))
		r = -ECANCELED; /* whatever it says */
	mv->let_go = false;
	mv->retry_ns = reactor_now_ns() + AGAIN_NS;
	if (r == -ECANCELED)
		mv->retry_ns = reactor_now_ns() + ADMIN_NS;
	if (move_co_end(mv, r, &e))
		move_free(mv);
	else
		mv->runs = false;
	co_queue_wake_all(&a->moves_changed);
}

/* ---- the worker ---- */

static struct pool_move *move_new(struct ashlar_pool *p, const struct thin_vol *v)
{
	struct pool_move *mv = xcalloc(1, sizeof(*mv));
	char name[sizeof(mv->job->info.what)];

	mv->p = p;
	mv->family = v->family;
	mv->to_uuid = v->move_pool;
	mv->cls = v->move_cls;
	list_push_back(&p->a->moves, &mv->link);
	pool_family_name(p, v->family, name, sizeof(name));
	mv->job = pool_job_start(p, ASHLAR_JOB_MOVE, "%s", name);
	return mv;
}

void pool_move_begin(struct ashlar_pool *p, const struct thin_vol *v, uint64_t bytes)
{
	struct pool_move *mv = pool_move_find(p, v->family);

	if (!mv && pool_is_usable(p))
		mv = move_new(p, v);
	if (!mv)
		return;
	mv->job->info.total_bytes = MAX(bytes, mv->job->info.done_bytes);
	mv->counted = true;
}

/* Does not suspend. One for each family that is to be moved. */
static void moves_look(struct ashlar_pool *p)
{
	struct pool_move *mv, *next;
	struct thin_vol *v;

	list_for_each (mv, &p->a->moves, link)
		mv->seen = mv->p != p;
	list_for_each (v, thin_vols(p->thin), link) {
		if (v->state != THIN_VOLUME_LIVE || v->kind != THIN_KIND_VOLUME || !(v->move_flags & THIN_MOVE_WANTED))
			continue;
		mv = pool_move_find(p, v->family);
		if (!mv)
			mv = move_new(p, v);
		mv->seen = true;
		mv->paused = v->move_flags & THIN_MOVE_PAUSED;
		mv->to = uuid_is_zero(&mv->to_uuid) ? p : pool_by_uuid(p->a, &mv->to_uuid);
	}
	list_for_each_safe (mv, next, &p->a->moves, link) {
		if (mv->seen)
			continue;
		pool_job_end(mv->job, ASHLAR_JOB_STOPPED, "the volume has been deleted");
		move_free(mv);
	}
}

/* The first that can go on now. */
static struct pool_move *moves_next(struct ashlar_pool *p, uint64_t *until)
{
	uint64_t now = reactor_now_ns();
	struct pool_move *mv;

	list_for_each (mv, &p->a->moves, link) {
		if (mv->p != p)
			continue;
		if (mv->job->stop || (!mv->paused && pool_is_usable(mv->to) && now >= mv->retry_ns))
			return mv;
		if (mv->paused)
			mv->job->info.state = ASHLAR_JOB_PAUSED;
		else if (!pool_is_usable(mv->to))
			pool_job_waits(mv->job, "waits for the pool that it goes to: open that");
		else
			*until = MIN(*until, mv->retry_ns);
	}
	return NULL;
}

/* Coroutine. What crashes, pools that were not open, and clients that had not let go, have left to be done. */
static bool leftovers_co_do(struct ashlar_pool *p)
{
	struct thin_vol *v;
	bool handed = false, any = false;

	list_for_each (v, thin_vols(p->thin), link) {
		handed |= v->state == THIN_VOLUME_HANDED;
		any |= v->state == THIN_VOLUME_INCOMING || v->state == THIN_VOLUME_STILL;
	}
	if (!(handed || any) || p->a->admin.owner)
		return handed || any;
	co_mutex_lock(&p->a->admin); /* it is free: does not suspend */
	pool_co_handed_finish(p);
	pool_co_orphans_drop(p);
	co_mutex_unlock(&p->a->admin);
	return handed;
}

/* Coroutine. All jobs of moves end: the pool closes. */
static void moves_end(struct ashlar_pool *p)
{
	struct pool_move *mv, *next;

	list_for_each_safe (mv, next, &p->a->moves, link) {
		if (mv->p != p)
			continue;
		pool_job_end(mv->job, ASHLAR_JOB_STOPPED, "the pool was closed; it goes on when the pool is open again");
		move_free(mv);
	}
}

void pool_moves_co_run(void *arg)
{
	struct ashlar_pool *p = arg;
	struct pool_move *mv;
	uint64_t until;

	while (pool_is_usable(p)) {
		until = reactor_now_ns() + LOOK_NS;
		if (leftovers_co_do(p))
			until = reactor_now_ns() + LEFTOVERS_NS;
		if (!pool_is_usable(p))
			break;
		moves_look(p);
		mv = moves_next(p, &until);
		if (mv)
			move_co_run(mv);
		else
			(void)!co_queue_wait_until(&p->life->kick, until);
	}
	moves_end(p);
	pool_life_leave(p);
}
