/*
 * family.c: snapshots, clones, rollback: the home half. A snapshot is a volume record whose map shares every page with its
 * volume's; a clone likewise. They differ in what may be done with them.
 *
 * Taking one, step by step:
 *   1. Every source that is open is frozen on its reactor: writes that come are held, those under way end. Their records have
 *      then been handed in. With all of them frozen, nothing that is in one volume and was acknowledged is missing in another.
 *   2. One record for each copy, all handed in at once. A crash that keeps only some leaves those pending; opening deletes them.
 *   3. Every source marks what its cached leaves map as shared and goes on: overwrites go to new places from now on.
 *   4. The records are committed. A write after step 3 that becomes durable does so by a later record, so never without them.
 */
#include <stdio.h>
#include <string.h>

#include "engine/base/mutant.h"
#include "thin/home_internal.h"

/* ---- records ---- */

static void vol_share(struct thin_vol *from, struct thin_vol *to)
{
	meta_array_share(&from->map, &to->map);
	to->size_bytes = from->size_bytes;
	to->used_clusters = from->used_clusters;
	to->valid_subs = from->valid_subs;
	from->changed = to->changed = true;
}

static void pending_go_live(struct thin *t)
{
	struct thin_vol *v;

	list_for_each (v, &t->vols, link) {
		if (v->state != THIN_VOLUME_PENDING)
			continue;
		v->state = THIN_VOLUME_LIVE;
		v->changed = true;
		t->n_live += thin_vol_counts(v);
	}
}

void thin_prev_forget(struct thin *t, struct thin_vol *snapshot)
{
	struct thin_vol *v;

	list_for_each (v, &t->vols, link) {
		if (v->prev != snapshot->id)
			continue;
		v->prev = snapshot->prev;
		v->changed = true;
	}
}

/* A volume goes on from its newest snapshot; a clone begins with what it is made of. */
static void copy_set_prev(struct thin_vol *from, struct thin_vol *to)
{
	if (to->kind == THIN_KIND_SNAPSHOT && to->state != THIN_VOLUME_INCOMING) {
		to->prev = from->prev;
		from->prev = to->id;
	} else {
		to->prev = from->id;
	}
}

static void copy_set_wanted(const struct thin_vol *from, struct thin_vol *to)
{
	to->move_pool = from->move_pool;
	to->move_cls = from->move_cls;
	to->move_flags = from->move_flags;
}

static const uint8_t copy_states[] = {
	[THIN_COPY_PLAIN] = THIN_VOLUME_PENDING,
	[THIN_COPY_RECEIVING] = THIN_VOLUME_RECEIVING,
	[THIN_COPY_INCOMING] = THIN_VOLUME_INCOMING,
	[THIN_COPY_STILL] = THIN_VOLUME_STILL,
};

const char *thin_vol_access(const struct thin_vol *v)
{
	const struct thin_vol *of = v->kind == THIN_KIND_SNAPSHOT && !*v->access ? thin_vol_by_id(v->thin, v->parent) : NULL;

	return of ? of->access : v->access;
}

int thin_apply_copy(struct thin *t, const void *payload, size_t len)
{
	const struct thin_rec_copy *rec = payload;
	struct thin_vol *from, *to;

	if (len != sizeof(*rec) || rec->kind > THIN_KIND_SNAPSHOT || rec->name[THIN_COPY_NAME - 1] ||
	    le64_get(rec->id) > THIN_VOLUME_ID_MAX)
		return -ERR_FORMAT;
	from = thin_vol_by_id(t, le64_get(rec->source));
	if (!from || rec->receiving >= ARRAY_LEN(copy_states) || thin_vol_by_id(t, le64_get(rec->id)) ||
	    from->state != (rec->receiving == THIN_COPY_INCOMING ? THIN_VOLUME_INCOMING : THIN_VOLUME_LIVE))
		return -ERR_FORMAT;
	to = thin_vol_new(t, le64_get(rec->id));
	to->state = copy_states[rec->receiving];
	to->kind = rec->kind;
	to->family = from->family;
	to->parent = le64_get(rec->parent);
	to->origin = rec->kind == THIN_KIND_VOLUME ? from->id : 0;
	to->made_by_policy = rec->by_policy != 0;
	to->guid = rec->guid;
	to->cls = from->cls;
	to->full_wait_ns = from->full_wait_ns;
	to->created_wall_ns = le64_get(rec->created_wall_ns);
	memcpy(to->name, rec->name, THIN_COPY_NAME);
	if (rec->kind == THIN_KIND_VOLUME) /* what was guarded stays guarded */
		snprintf(to->access, sizeof(to->access), "%s", thin_vol_access(from));
	vol_share(from, to);
	copy_set_prev(from, to);
	if (rec->receiving == THIN_COPY_PLAIN && from->move_flags & THIN_MOVE_WANTED)
		copy_set_wanted(from, to);
	if (rec->last)
		pending_go_live(t);
	return 0;
}

int thin_apply_rollback(struct thin *t, const void *payload, size_t len)
{
	const struct thin_rec_rollback *rec = payload;
	struct thin_vol *v, *snap, *trash;

	if (len != sizeof(*rec) || le64_get(rec->trash) > THIN_VOLUME_ID_MAX)
		return -ERR_FORMAT;
	v = thin_vol_by_id(t, le64_get(rec->volume));
	snap = thin_vol_by_id(t, le64_get(rec->snapshot));
	if (!v || !snap || v == snap || v->state != THIN_VOLUME_LIVE || snap->state != THIN_VOLUME_LIVE ||
	    thin_vol_by_id(t, le64_get(rec->trash)))
		return -ERR_FORMAT;
	trash = thin_vol_new(t, le64_get(rec->trash));
	trash->state = THIN_VOLUME_DELETING;
	trash->family = v->family;
	trash->cls = v->cls;
	trash->size_bytes = v->size_bytes;
	memcpy(trash->name, v->name, sizeof(trash->name));
	trash->changed = true;
	meta_array_move(&v->map, &trash->map);
	vol_share(snap, v);
	v->prev = snap->id;
	return 0;
}

/* Whole: the receiver is a volume now. */
static void receiver_go_live(struct thin *t, struct thin_vol *v)
{
	static const struct uuid none;

	v->state = THIN_VOLUME_LIVE;
	v->guid = v->base_guid = none;
	v->received_bytes = 0;
	memset(v->export_name, 0, sizeof(v->export_name));
	t->n_live += thin_vol_counts(v);
}

void thin_vol_exchange(struct thin *t, struct thin_vol *a, struct thin_vol *b)
{
	struct meta_array spare;
	struct thin_vol was;

	was.used_clusters = a->used_clusters;
	was.valid_subs = a->valid_subs;
	was.size_bytes = a->size_bytes;
	meta_array_init(&spare, t->m, THIN_MAP_ENTRY_LOG2);
	meta_array_move(&a->map, &spare);
	meta_array_move(&b->map, &a->map);
	meta_array_move(&spare, &b->map);
	a->used_clusters = b->used_clusters;
	a->valid_subs = b->valid_subs;
	a->size_bytes = b->size_bytes;
	b->used_clusters = was.used_clusters;
	b->valid_subs = was.valid_subs;
	b->size_bytes = was.size_bytes;
	a->changed = b->changed = true;
}

/* The receiver has what the volume had. */
static void receiver_exchange(struct thin *t, struct thin_vol *receiver, struct thin_vol *v)
{
	thin_vol_exchange(t, receiver, v);
	receiver->state = THIN_VOLUME_DELETING;
}

int thin_apply_received(struct thin *t, const void *payload, size_t len)
{
	const struct thin_rec_received *rec = payload;
	struct thin_vol *from, *v, *snap;

	if (len != sizeof(*rec) || le64_get(rec->snapshot) > THIN_VOLUME_ID_MAX)
		return -ERR_FORMAT;
	from = thin_vol_by_id(t, le64_get(rec->receiver));
	v = le64_get(rec->volume) ? thin_vol_by_id(t, le64_get(rec->volume)) : from;
	if (!from || !v || from->state != THIN_VOLUME_RECEIVING || (v != from && !thin_vol_counts(v)) ||
	    thin_vol_by_id(t, le64_get(rec->snapshot)))
		return -ERR_FORMAT;
	snap = thin_vol_new(t, le64_get(rec->snapshot));
	snap->state = THIN_VOLUME_LIVE;
	snap->kind = THIN_KIND_SNAPSHOT;
	snap->family = v->family;
	snap->parent = v->id;
	snap->guid = from->guid;
	snap->cls = v->cls;
	snap->full_wait_ns = v->full_wait_ns;
	snap->created_wall_ns = le64_get(rec->created_wall_ns);
	memcpy(snap->name, from->export_name, sizeof(snap->name));
	if (v == from)
		receiver_go_live(t, v);
	else
		receiver_exchange(t, from, v);
	vol_share(v, snap);
	snap->prev = from->prev;
	v->prev = snap->id;
	return 0;
}

void thin_replayed(struct thin *t)
{
	struct thin_vol *v;

	list_for_each (v, &t->vols, link) {
		if (v->state != THIN_VOLUME_PENDING && (v->state != THIN_VOLUME_RECEIVING || v->export_name[0]) &&
		    (v->state != THIN_VOLUME_INCOMING || v->move_id))
			continue;
		thin_prev_forget(t, v);
		v->state = THIN_VOLUME_DELETING;
		v->changed = true;
	}
}

/* ---- freezing ---- */

struct freeze {
	struct thin_volume *v;
	uint64_t size_bytes;
	struct thin_class cls;
	bool reads, was_frozen, stay_frozen;
};

static int freeze_there(void *arg)
{
	struct freeze *f = arg;

	thin_volume_co_freeze(f->v, f->reads);
	return 0;
}

static int shared_there(void *arg)
{
	struct freeze *f = arg;

	if (!MUTANT(SNAPSHOT_NOT_MARKED))
		thin_volume_set_shared(f->v);
	thin_volume_thaw(f->v);
	return 0;
}

static int replaced_there(void *arg)
{
	struct freeze *f = arg;

	thin_volume_map_replaced(f->v, f->size_bytes, f->cls);
	if (!f->stay_frozen)
		thin_volume_thaw(f->v);
	return 0;
}

/* Coroutine. On the volume's reactor, if it is open at all. */
static void volume_co_do(struct thin *t, struct thin_vol *v, int (*fn)(void *arg), struct freeze *f)
{
	int r;

	f->v = v->open;
	if (!f->v)
		return;
	r = reactor_co_call(thin_volume_home(t, v->id), fn, f);
	CHECK(r == 0);
}

void thin_vol_co_freeze(struct thin *t, struct thin_vol *v, bool reads)
{
	struct freeze f = { .reads = reads };

	volume_co_do(t, v, freeze_there, &f);
}

static int freeze_unless_there(void *arg)
{
	struct freeze *f = arg;

	f->was_frozen = thin_volume_is_frozen(f->v);
	if (!f->was_frozen)
		thin_volume_co_freeze(f->v, true);
	return 0;
}

bool thin_vol_co_freeze_unless(struct thin *t, struct thin_vol *v)
{
	struct freeze f = { 0 };

	volume_co_do(t, v, freeze_unless_there, &f);
	return !f.was_frozen;
}

void thin_vol_co_replaced(struct thin *t, struct thin_vol *v, uint64_t size_bytes, struct thin_class cls, bool thaw)
{
	struct freeze f = { .size_bytes = size_bytes, .cls = cls, .stay_frozen = !thaw };

	v->map_gen++;
	volume_co_do(t, v, replaced_there, &f);
}

/* ---- copies ---- */

/* Is it the first in the list with this source? Each is frozen once. */
static bool is_first_of_source(const struct thin_copy *c, unsigned i)
{
	unsigned k;

	for (k = 0; k < i; k++)
		if (c[k].source == c[i].source)
			return false;
	return true;
}

static uint64_t copy_hand_in(struct thin *t, struct thin_copy *c, bool last)
{
	struct thin_rec_copy rec = { .source = le64_make(c->source->id), .kind = c->kind, .last = last, .by_policy = c->by_policy };
	struct world *w = t->conf.home->world;

	c->id = thin_id_new(t, c->like);
	rec.id = le64_make(c->id);
	rec.parent = le64_make(c->hidden == THIN_COPY_RECEIVING ? c->parent : c->kind == THIN_KIND_SNAPSHOT && c->hidden != THIN_COPY_INCOMING ?
			       c->source->id : 0);
	rec.receiving = c->hidden;
	rec.created_wall_ns = le64_make(w->ops->wall_ns(w));
	rec.guid = c->guid;
	memcpy(rec.name, c->name, MIN(strlen(c->name), sizeof(rec.name) - 1));
	return meta_record(t->m, THIN_REC_COPY, &rec, sizeof(rec));
}

/* Coroutine. Frozen, recorded, marked, thawed. */
static uint64_t copies_co_take(struct thin *t, struct thin_copy *c, unsigned n)
{
	struct freeze f = { 0 };
	uint64_t seq = 0;
	unsigned i;

	for (i = 0; i < n; i++)
		if (is_first_of_source(c, i))
			volume_co_do(t, c[i].source, freeze_there, &f);
	for (i = 0; i < n; i++)
		seq = copy_hand_in(t, &c[i], i + 1 == n);
	for (i = 0; i < n; i++)
		c[i].source->last_seq = seq; /* who loads a leaf now sees that it is shared */
	for (i = 0; i < n; i++)
		if (is_first_of_source(c, i))
			volume_co_do(t, c[i].source, shared_there, &f);
	return seq;
}

int thin_co_copy(struct thin *t, struct thin_copy *c, unsigned n)
{
	uint64_t seq;
	unsigned i;
	int r = meta_co_admit(t->m, n * (sizeof(struct thin_rec_copy) + sizeof(struct journal_record_disk)), false);

	if (r < 0)
		return r;
	for (i = 0; MUTANT(SNAPSHOT_ONE_BY_ONE) && i + 1 < n; i++)
		copies_co_take(t, &c[i], 1);
	seq = copies_co_take(t, c + i, n - i);
	if (MUTANT(SNAPSHOT_NOT_COMMITTED))
		return meta_co_wait_applied(t->m, seq);
	r = meta_co_commit(t->m, seq);
	return r < 0 ? r : meta_co_wait_applied(t->m, seq);
}

int thin_co_rollback(struct thin *t, struct thin_vol *volume, struct thin_vol *snapshot)
{
	struct thin_rec_rollback rec = { .volume = le64_make(volume->id), .snapshot = le64_make(snapshot->id) };
	uint64_t seq;
	int r = meta_co_admit(t->m, sizeof(rec) + sizeof(struct journal_record_disk), false);

	if (r < 0)
		return r;
	thin_vol_co_freeze(t, volume, true);
	rec.trash = le64_make(t->next_id++);
	seq = volume->last_seq = meta_record(t->m, THIN_REC_ROLLBACK, &rec, sizeof(rec));
	thin_vol_co_replaced(t, volume, snapshot->size_bytes, volume->cls, true);
	r = meta_co_commit(t->m, seq);
	if (r == 0)
		r = meta_co_wait_applied(t->m, seq);
	thin_reaper_wake(t);
	return r;
}

int thin_co_received(struct thin *t, struct thin_vol *receiver, struct thin_vol *volume)
{
	struct thin_rec_received rec = { .receiver = le64_make(receiver->id), .volume = le64_make(volume ? volume->id : 0) };
	struct world *w = t->conf.home->world;
	uint64_t seq;
	int r = meta_co_admit(t->m, sizeof(rec) + sizeof(struct journal_record_disk), false);

	CHECK(!receiver->open && !receiver->n_attached && receiver->parent == (volume ? volume->id : 0));
	if (r < 0)
		return r;
	if (volume)
		thin_vol_co_freeze(t, volume, true);
	rec.snapshot = le64_make(t->next_id++);
	rec.created_wall_ns = le64_make(w->ops->wall_ns(w));
	seq = receiver->last_seq = meta_record(t->m, THIN_REC_RECEIVED, &rec, sizeof(rec));
	if (volume) {
		volume->last_seq = seq;
		thin_vol_co_replaced(t, volume, receiver->size_bytes, volume->cls, true);
	}
	r = MUTANT(RECEIVED_NOT_COMMITTED) ? 0 : meta_co_commit(t->m, seq);
	if (r == 0)
		r = meta_co_wait_applied(t->m, seq);
	thin_reaper_wake(t);
	return r;
}

/* ---- looking them up ---- */

struct thin_vol *thin_snap_find(struct thin *t, const struct thin_vol *volume, const char *name)
{
	struct thin_vol *v;

	list_for_each (v, &t->vols, link)
		if (v->kind == THIN_KIND_SNAPSHOT && v->state == THIN_VOLUME_LIVE && v->parent == volume->id && !strcmp(v->name, name))
			return v;
	return NULL;
}

unsigned thin_n_snaps(struct thin *t, const struct thin_vol *volume)
{
	struct thin_vol *v;
	unsigned n = 0;

	list_for_each (v, &t->vols, link)
		n += v->kind == THIN_KIND_SNAPSHOT && v->state == THIN_VOLUME_LIVE && v->parent == volume->id;
	return n;
}
