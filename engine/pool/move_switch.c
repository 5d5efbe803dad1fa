/*
 * move_switch.c: the copies become the family.
 *
 * Within the pool: clients are held, reads too, for one record (thin_co_move_exchange()). A crash leaves it done or not.
 *
 * To another pool, what a crash leaves at each step:
 *   1. The copies' records get what the members' say: names, exports and for whom, policies; and their notes. They are hidden still:
 *      the move goes on.
 *   2. Clients are held. The copies are durable, all of them. HAND: the members are HANDED over, nobody is served here any more. From
 *      now on the copies are the truth: opening finds HANDED here and INCOMING there, and does step 3.
 *   3. ARRIVE there. HANDED here and nothing INCOMING there: step 5.
 *   4. Clients are those of the other pool's volumes, and go on, by way of the old data path until they have taken the new one.
 *   5. When nobody uses the old one any more: GONE, here.
 * Steps 3 and 5 need both pools. As long as one of them is not open, the volume is HANDED, and not served.
 */
#include <stdio.h>
#include <string.h>

#include "engine/pool/label_format.h"
#include "engine/base/mutant.h"
#include "engine/pool/move_family.h"

#define SAY_NS (600 * NS_PER_SEC)

/* ---- holding clients ---- */

static int hold_there(void *arg)
{
	struct move_live *l = arg;
	int r;

	pool_mirror_co_hold(l->mirror);
	r = pool_mirror_error(l->mirror);
	return r < 0 ? r : bdev_co_flush(thin_volume_bdev(l->copy->open));
}

static int go_on_there(void *arg)
{
	pool_mirror_end(arg, NULL);
	return 0;
}

static int go_elsewhere_there(void *arg)
{
	struct move_live *l = arg;

	thin_volume_bdev(l->copy->open)->fence = thin_volume_bdev(l->v->open)->fence;
	pool_mirror_end(l->mirror, thin_volume_bdev(l->copy->open));
	return 0;
}

static void live_co_call(struct pool_move *mv, struct move_live *l, int (*fn)(void *arg), void *arg)
{
	int r = reactor_co_call(thin_volume_home(mv->p->thin, l->id), fn, arg);

	CHECK(r == 0);
}

/* All clients of volumes wait now; every copy is durable. An error: nobody waits. */
static int clients_co_hold(struct pool_move *mv, struct err *e)
{
	unsigned i, n = 0;
	int r = 0;

	for (; n < mv->n_live && r == 0; n++)
		r = reactor_co_call(thin_volume_home(mv->p->thin, mv->live[n].id), hold_there, &mv->live[n]);
	if (r == 0)
		return 0;
	for (i = 0; i < n; i++) {
		live_co_call(mv, &mv->live[i], go_on_there, mv->live[i].mirror);
		mv->live[i].mirror = NULL;
	}
	return move_write_failed(mv, r, e);
}

static void live_forget(struct pool_move *mv, struct move_live *l)
{
	pool_vol_unkeep(mv->p, l->v);
	pool_vol_unkeep(mv->to, l->copy);
	CHECK(!l->base);
}

/* Coroutine. In order of ids: nobody opens or closes one of them. */
static void members_co_lock(struct thin_vol *const *v, unsigned n)
{
	unsigned i;

	for (i = 0; i < n; i++)
		co_mutex_lock(&v[i]->admin);
}

static void members_unlock(struct thin_vol *const *v, unsigned n)
{
	while (n)
		co_mutex_unlock(&v[--n]->admin);
}

/* ---- within the pool ---- */

static void stills_co_close(struct pool_move *mv)
{
	struct thin_vol *v;

	list_for_each (v, thin_vols(mv->p->thin), link)
		if (v->state == THIN_VOLUME_STILL && v->family == mv->family)
			pool_co_vol_close_idle(mv->p, v);
}

static int switch_co_held(struct pool_move *mv, struct thin_vol *const *v, unsigned n, struct err *e)
{
	struct thin_rec_move rec = move_rec(mv, THIN_MOVE_EXCHANGE);
	unsigned i;
	int r;

	for (i = 0; i < mv->n_live; i++) { /* nothing comes to it any more */
		pool_vol_unkeep(mv->p, mv->live[i].copy);
		pool_co_vol_close_idle(mv->p, mv->live[i].copy);
	}
	r = thin_co_move_exchange(mv->p->thin, &rec, v, n);
	for (i = 0; i < mv->n_live; i++) {
		live_co_call(mv, &mv->live[i], go_on_there, mv->live[i].mirror);
		pool_vol_unkeep(mv->p, mv->live[i].v);
	}
	mv->n_live = 0;
	return err_default(e, r, "switching to the new layout");
}

static int switch_co_here(struct pool_move *mv, struct thin_vol *const *v, unsigned n, struct err *e)
{
	struct ashlar_pool *p = mv->p;
	int r;

	stills_co_close(mv);
	co_mutex_lock(&p->directory);
	members_co_lock(v, n);
	r = clients_co_hold(mv, e);
	if (r == 0)
		r = switch_co_held(mv, v, n, e);
	members_unlock(v, n);
	co_mutex_unlock(&p->directory);
	if (r < 0)
		return r;
	snprintf(e->text, sizeof(e->text), "all of it has layout %s now", raid_profile_name((struct raid_profile){ mv->cls.layout, mv->cls.copies }));
	return 1;
}

/* ---- to another pool: what the copies are called ---- */

/* The export stays what it was called here. */
static void export_name_of(const struct pool_move *mv, const struct thin_vol *of, struct thin_vol *out)
{
	char name[POOL_POINT_NAME], now[POOL_EXPORT_NAME + 8], dflt[POOL_EXPORT_NAME + 8];
	const char *keep = of->export_name;

	pool_point_name(mv->p, of, name);
	snprintf(now, sizeof(now), "%.63s/%s", mv->p->label->name, name);
	snprintf(dflt, sizeof(dflt), "%.63s/%s", mv->to->label->name, name);
	memset(out->export_name, 0, sizeof(out->export_name));
	out->export_kind = of->export_kind;
	if (of->export_kind == THIN_EXPORT_HIDDEN)
		return;
	if (of->export_kind == THIN_EXPORT_DEFAULT)
		keep = now;
	out->export_kind = strcmp(keep, dflt) && strlen(keep) <= ASHLAR_EXPORT_NAME_MAX ? THIN_EXPORT_NAMED : THIN_EXPORT_DEFAULT;
	if (out->export_kind == THIN_EXPORT_NAMED)
		memcpy(out->export_name, keep, strlen(keep));
}

static uint64_t copy_id(const struct pool_move *mv, uint64_t id)
{
	struct thin_vol *of = id ? thin_vol_by_id(mv->p->thin, id) : NULL, *copy = of && of->family == mv->family ? move_copy_of(mv, of) : NULL;

	return copy ? copy->id : 0;
}

/* Coroutine under a->admin. */
static int copy_co_name(struct pool_move *mv, const struct thin_vol *of, struct thin_vol *copy, struct err *e)
{
	struct thin_vol *to;
	int r = 0;

	if (*of->access || of->max_clients)
		r = pool_co_feature(mv->to, LABEL_INCOMPAT_ACCESS, e);
	if (r < 0)
		return r;
	to = xmalloc(sizeof(*to));
	*to = *copy;
	to->parent = copy_id(mv, of->parent);
	to->origin = copy_id(mv, of->origin);
	to->policy_every_ns = of->policy_every_ns;
	to->policy_keep = of->policy_keep;
	to->made_by_policy = of->made_by_policy;
	to->export_flags = of->export_flags;
	to->full_wait_ns = of->full_wait_ns;
	to->limits = of->limits;
	memcpy(to->name, of->name, sizeof(to->name));
	memcpy(to->access, of->access, sizeof(to->access));
	to->max_clients = of->max_clients;
	export_name_of(mv, of, to);
	r = pool_co_vol_update(mv->to, copy, to, e);
	xfree(to);
	return r;
}

/* May they be called so, there? */
static int names_check(const struct pool_move *mv, const struct thin_vol *of, struct err *e)
{
	struct thin_vol *tmp = xmalloc(sizeof(*tmp));
	char name[POOL_POINT_NAME], dflt[POOL_EXPORT_NAME + 8];
	int r = 0;

	if (of->kind == THIN_KIND_VOLUME && thin_vol_find(mv->to->thin, of->name))
		r = err_set(e, -EEXIST, "volume %s/%s exists already: rename one of them", mv->to->label->name, of->name);
	export_name_of(mv, of, tmp);
	snprintf(dflt, sizeof(dflt), "%.63s/%s", mv->to->label->name, pool_point_name(mv->p, of, name));
	if (r == 0)
		r = pool_check_export_free(mv->p->a, tmp->export_kind == THIN_EXPORT_NAMED ? tmp->export_name : dflt, of, e);
	xfree(tmp);
	return r;
}

static int names_co_put(struct pool_move *mv, struct thin_vol *const *v, unsigned n, struct err *e)
{
	struct thin_vol *copy;
	unsigned i;
	int r = 0;

	for (i = 0; i < n && r == 0; i++)
		r = names_check(mv, v[i], e);
	for (i = 0; i < n && r == 0; i++) {
		copy = move_copy_of(mv, v[i]);
		CHECK(copy);
		if (pool_vol_is_limited(v[i]))
			r = pool_co_feature(mv->to, LABEL_INCOMPAT_LIMITS, e);
		if (r == 0)
			r = copy_co_name(mv, v[i], copy, e);
	}
	return r;
}

/* Coroutine under mv->p->notes_lock: what frontends keep with them goes along. */
static int notes_co_put(struct pool_move *mv, struct thin_vol *const *v, unsigned n, struct err *e)
{
	unsigned i;
	int r = 0;

	for (i = 0; i < n && r == 0; i++)
		r = pool_co_notes_copy(mv->p, v[i], mv->to, move_copy_of(mv, v[i]), e);
	return r;
}

/* ---- to another pool: the switch ---- */

static int forward_there(void *arg)
{
	struct move_live *l = arg;

	thin_volume_co_freeze(l->v->open, true);
	thin_volume_bdev(l->copy->open)->fence = thin_volume_bdev(l->v->open)->fence;
	thin_volume_set_forward(l->v->open, thin_volume_bdev(l->copy->open));
	thin_volume_thaw(l->v->open);
	return 0;
}

/* A snapshot that somebody reads: the same is read there. */
static void snapshot_co_repoint(struct pool_move *mv, struct thin_vol *v)
{
	struct move_live l = { .id = v->id, .v = v, .copy = NULL };
	struct thin_vol *x;

	list_for_each (x, thin_vols(mv->to->thin), link)
		if (x->state == THIN_VOLUME_LIVE && x->kind == THIN_KIND_SNAPSHOT && uuid_is_equal(&x->guid, &v->guid) && x->n_kept)
			l.copy = x;
	CHECK(l.copy);
	pool_attach_repoint(mv->p, v, mv->to, l.copy);
	live_co_call(mv, &l, forward_there, &l);
	pool_vol_unkeep(mv->to, l.copy);
}

static void volume_co_repoint(struct pool_move *mv, struct move_live *l)
{
	static const struct thin_limits none;

	pool_co_vol_set_full_wait(mv->to, l->copy, l->v->full_wait_ns);
	pool_co_vol_set_limits(mv->to, l->copy, &l->v->limits);
	pool_co_vol_set_limits(mv->p, l->v, &none); /* what still comes by it is the copy's clients' */
	pool_attach_repoint(mv->p, l->v, mv->to, l->copy);
	live_co_call(mv, l, go_elsewhere_there, l);
	live_forget(mv, l);
}

static int shut_there(void *arg)
{
	struct move_live *l = arg;

	thin_volume_shut(l->v->open);
	pool_mirror_end(l->mirror, NULL);
	return 0;
}

/* One of the pools has failed between: nobody may be served by a volume that may be there already. */
static void clients_co_drop(struct pool_move *mv)
{
	unsigned i;

	for (i = 0; i < mv->n_live; i++) {
		live_co_call(mv, &mv->live[i], shut_there, &mv->live[i]);
		live_forget(mv, &mv->live[i]);
	}
	mv->n_live = 0;
}

static int move_co_arrive(struct pool_move *mv, const struct thin_rec_move *arrive)
{
	struct ashlar *a = mv->p->a;
	int r;

	a->n_arriving++;
	r = thin_co_move(mv->to->thin, arrive);
	a->n_arriving--;
	a->n_arrivals++;
	return r;
}

uint64_t ashlar_co_arrivals(struct ashlar *a)
{
	while (a->n_arriving)
		co_sleep_ns(NS_PER_MS);
	return a->n_arrivals;
}

/* Held. Returns 0 when it is over, whatever has come of it. */
static int hand_co_over(struct pool_move *mv, struct thin_vol *const *v, unsigned n, struct err *e)
{
	struct thin_rec_move hand = move_rec(mv, THIN_MOVE_HAND), arrive = move_rec(mv, THIN_MOVE_ARRIVE);
	unsigned i;
	int r = MUTANT(ARRIVES_BEFORE_HANDED) ? thin_co_move(mv->to->thin, &arrive) : 0;

	mv->p->a->n_arriving++;
	if (r == 0)
		r = thin_co_move(mv->p->thin, &hand);
	if (r == 0 && !MUTANT(ARRIVES_BEFORE_HANDED))
		r = move_co_arrive(mv, &arrive);
	mv->p->a->n_arriving--;
	if (r < 0) {
		clients_co_drop(mv);
		return err_set(e, r, "pool %s or %s has stopped in the middle of it: it is finished when both are open again",
			       mv->p->label->name, mv->to->label->name);
	}
	for (i = 0; i < n; i++)
		v[i]->leaving = true; /* nobody opens it any more, for whatever */
	for (i = 0; i < mv->n_live; i++)
		volume_co_repoint(mv, &mv->live[i]);
	mv->n_live = 0;
	for (i = 0; i < n; i++)
		if (v[i]->kind == THIN_KIND_SNAPSHOT && v[i]->open)
			snapshot_co_repoint(mv, v[i]);
	return 0;
}

/* Coroutine. The copies of snapshots that somebody may read are open; or nothing. */
static int snapshots_co_keep(struct pool_move *mv, struct thin_vol *const *v, unsigned n, unsigned *done, struct err *e)
{
	struct thin_vol *copy;
	int r = 0;

	for (*done = 0; *done < n && r == 0; ++*done) {
		if (v[*done]->kind != THIN_KIND_SNAPSHOT)
			continue;
		if (!v[*done]->n_attached)
			pool_co_vol_close_idle(mv->p, v[*done]);
		copy = v[*done]->open ? move_copy_of(mv, v[*done]) : NULL;
		if (copy)
			r = pool_co_vol_keep(mv->to, copy);
		if (r < 0)
			return err_default(e, r, "opening the copy of a snapshot");
	}
	return r;
}

/* Coroutine. They are hidden copies again, which may be dropped: closed. */
static void snapshots_co_unkeep(struct pool_move *mv, struct thin_vol *const *v, unsigned n)
{
	struct thin_vol *copy;
	unsigned i;

	for (i = 0; i < n; i++) {
		copy = v[i]->kind == THIN_KIND_SNAPSHOT && v[i]->open ? move_copy_of(mv, v[i]) : NULL;
		if (!copy || !copy->n_kept)
			continue;
		pool_vol_unkeep(mv->to, copy);
		pool_co_vol_close_idle(mv->to, copy);
	}
}

static void members_set_switching(struct thin_vol *const *v, unsigned n, bool switching)
{
	unsigned i;

	for (i = 0; i < n; i++)
		v[i]->switching = switching;
}

static int switch_co_there(struct pool_move *mv, struct thin_vol *const *v, unsigned n, struct err *e)
{
	struct ashlar_pool *p = mv->p, *to = mv->to;
	unsigned kept = 0;
	bool held = false;
	int r = names_co_put(mv, v, n, e);

	if (r < 0)
		return r;
	stills_co_close(mv);
	co_mutex_lock(&p->directory);
	co_mutex_lock(&to->directory);
	members_set_switching(v, n, true); /* who comes now waits, and looks where it is then */
	members_co_lock(v, n);
	members_unlock(v, n); /* nobody is opening one any more */
	r = snapshots_co_keep(mv, v, n, &kept, e);
	co_mutex_lock(&p->notes_lock); /* who writes one now finds the volume where it is then */
	if (r == 0)
		r = notes_co_put(mv, v, n, e);
	if (r == 0)
		r = clients_co_hold(mv, e);
	if (r == 0) {
		held = true;
		r = hand_co_over(mv, v, n, e);
	}
	co_mutex_unlock(&p->notes_lock);
	if (!held)
		snapshots_co_unkeep(mv, v, kept);
	members_set_switching(v, n, false);
	co_mutex_unlock(&to->directory);
	co_mutex_unlock(&p->directory);
	if (r < 0)
		return held ? 1 : r;
	pool_co_handed_finish(p);
	snprintf(e->text, sizeof(e->text), "all of it is in pool %s now", to->label->name);
	return 1;
}

int move_co_switch(struct pool_move *mv, struct err *e)
{
	unsigned n, i;
	struct thin_vol **v = pool_family_members(mv->p, mv->family, &n);
	int r = 0;

	for (i = 0; i < n && r == 0; i++)
		if (mv->to != mv->p && pool_attach_any_old(mv->p, v[i]))
			r = -ECANCELED; /* clients that came with it from another pool, a moment ago */
	if (r == 0)
		r = mv->to == mv->p ? switch_co_here(mv, v, n, e) : switch_co_there(mv, v, n, e);
	xfree(v);
	return r;
}

/* ---- what has been left ---- */

struct family {
	uint64_t id;
	struct thin_vol **v; /* HANDED */
	unsigned n;
};

/* The next one after `after`. */
static bool handed_next(struct ashlar_pool *p, uint64_t after, struct family *out)
{
	struct thin_vol *v;
	unsigned n = 0;

	out->id = UINT64_MAX;
	list_for_each (v, thin_vols(p->thin), link)
		if (v->state == THIN_VOLUME_HANDED && v->family > after)
			out->id = MIN(out->id, v->family);
	if (out->id == UINT64_MAX)
		return false;
	list_for_each (v, thin_vols(p->thin), link)
		n += v->state == THIN_VOLUME_HANDED && v->family == out->id;
	out->v = xcalloc(n, sizeof(struct thin_vol *));
	out->n = 0;
	list_for_each (v, thin_vols(p->thin), link)
		if (v->state == THIN_VOLUME_HANDED && v->family == out->id)
			out->v[out->n++] = v;
	return true;
}

static bool has_copies(const struct pool_move *mv)
{
	struct thin_vol *v;

	list_for_each (v, thin_vols(mv->to->thin), link)
		if (v->state == THIN_VOLUME_INCOMING && v->move_id && v->move_family == mv->family &&
		    uuid_is_equal(&v->move_pool, move_from(mv)))
			return true;
	return false;
}

bool pool_handed_has_arrived(struct ashlar_pool *p, const struct thin_vol *v)
{
	struct pool_move mv = { .p = p, .family = v->family, .to = pool_by_uuid(p->a, &v->move_pool) };

	return v->state == THIN_VOLUME_HANDED && pool_is_usable(mv.to) && !has_copies(&mv);
}

/* The other pool was not open, or the power went, before they had arrived. */
static int handed_co_arrive(struct pool_move *mv, const struct family *f)
{
	struct thin_rec_move rec = move_rec(mv, THIN_MOVE_ARRIVE);
	struct err e = { 0 };
	unsigned i;
	int r = 0;

	for (i = 0; i < f->n && r == 0; i++)
		if (!move_copy_of(mv, f->v[i]))
			r = err_set(&e, -ERR_FORMAT, "a copy is missing");
	if (r == 0)
		r = names_co_put(mv, f->v, f->n, &e);
	co_mutex_lock(&mv->p->notes_lock);
	if (r == 0)
		r = notes_co_put(mv, f->v, f->n, &e); /* of a version that left them behind */
	co_mutex_unlock(&mv->p->notes_lock);
	if (r == 0)
		r = move_co_arrive(mv, &rec);
	if (r < 0 && (!mv->p->handed_said_ns || reactor_now_ns() - mv->p->handed_said_ns > SAY_NS)) {
		mv->p->handed_said_ns = reactor_now_ns();
		pool_event(mv->to, ASHLAR_ERROR, "move.stuck", -1, NULL, "what has come from pool %s cannot be taken into service: %s",
			   mv->p->label->name, e.text);
	}
	return r;
}

/* They are served there. */
static void handed_co_forget(struct pool_move *mv, const struct family *f)
{
	struct thin_rec_move rec = move_rec(mv, THIN_MOVE_GONE);
	bool used = false;
	unsigned i;

	for (i = 0; i < f->n; i++) {
		if (f->v[i]->n_attached)
			pool_co_attach_let_go(mv->p, f->v[i]);
		pool_co_vol_close_idle(mv->p, f->v[i]);
		used |= f->v[i]->open != NULL;
	}
	if (used)
		return;
	if (thin_co_move(mv->p->thin, &rec) < 0)
		pool_log(mv->p, "what has gone to pool %s could not be deleted; it will be tried again", mv->to->label->name);
}

void pool_co_handed_finish(struct ashlar_pool *p)
{
	struct family f = { 0 };

	while (handed_next(p, f.id, &f)) {
		struct pool_move mv = { .p = p, .family = f.id, .to = pool_by_uuid(p->a, &f.v[0]->move_pool) };

		if (pool_is_usable(mv.to) && (!has_copies(&mv) || handed_co_arrive(&mv, &f) == 0))
			handed_co_forget(&mv, &f);
		xfree(f.v);
	}
}

/* Does the pool that it came from still want it, or cannot be asked? */
static bool copy_is_wanted(struct ashlar_pool *p, const struct thin_vol *copy)
{
	struct ashlar_pool *from = pool_by_uuid(p->a, &copy->move_pool);
	struct pool_move *mv;
	struct thin_vol *v;

	if (!pool_is_usable(from))
		return true;
	mv = pool_move_find(from, copy->move_family);
	if (mv && (mv->runs || mv->to == p))
		return true;
	list_for_each (v, thin_vols(from->thin), link) {
		if (v->family != copy->move_family)
			continue;
		if (v->state == THIN_VOLUME_HANDED)
			return true;
		if (v->state == THIN_VOLUME_LIVE && v->move_flags & THIN_MOVE_WANTED &&
		    (from == p ? uuid_is_zero(&v->move_pool) : uuid_is_equal(&v->move_pool, &p->label->pool)))
			return true;
	}
	return false;
}

/* A snapshot that a move has taken: is there still one, and a volume? */
static bool still_is_wanted(struct ashlar_pool *p, const struct thin_vol *still)
{
	const struct thin_vol *v = thin_vol_by_id(p->thin, still->parent);

	return still->n_kept || (v && v->state == THIN_VOLUME_LIVE && v->move_flags & THIN_MOVE_WANTED);
}

void pool_co_orphans_drop(struct ashlar_pool *p)
{
	struct thin_vol *v, *bad;
	int r = 0;

	do {
		bad = NULL;
		list_for_each (v, thin_vols(p->thin), link)
			if ((v->state == THIN_VOLUME_INCOMING && v->move_id && !copy_is_wanted(p, v)) ||
			    (v->state == THIN_VOLUME_STILL && !still_is_wanted(p, v)))
				bad = v;
		if (bad) {
			pool_co_vol_close_idle(p, bad);
			r = thin_co_volumes_delete(p->thin, &bad, 1);
		}
	} while (bad && r == 0);
}
