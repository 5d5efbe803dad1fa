/*
 * move.c: families that are moved: the records. A copy of each member is made, hidden (INCOMING), here or in another pool; its record
 * says of what, so that whoever goes on after a crash knows what there is. How they are filled: engine/pool/move_family.c.
 *
 * Within the pool one record exchanges the maps of all members and their copies; ids, names and clients stay with the members. To
 * another pool it takes three: HAND here, from which on nobody is served here; ARRIVE there; GONE here. Whatever a crash leaves of
 * them says what is to be done, and at no time are both LIVE.
 */
#include <string.h>

#include "engine/base/mutant.h"
#include "thin/home_internal.h"

/* ---- what it came from ---- */

static bool is_point(const struct thin_vol *s, uint64_t family)
{
	return s->kind == THIN_KIND_SNAPSHOT && s->family == family && (s->state == THIN_VOLUME_LIVE || s->state == THIN_VOLUME_STILL);
}

/* Of pools that have no `prev`: the snapshot before, of the same volume; of a clone, what it was made of. */
static struct thin_vol *prev_guess(struct thin *t, const struct thin_vol *v)
{
	bool is_snap = v->kind == THIN_KIND_SNAPSHOT;
	struct thin_vol *of = is_snap ? thin_vol_by_id(t, v->parent) : NULL, *s, *best = NULL;
	uint64_t own = is_snap ? v->parent : v->id, origin = is_snap ? (of ? of->origin : 0) : v->origin;

	list_for_each (s, &t->vols, link)
		if (is_point(s, v->family) && s->parent == own && (!is_snap || s->id < v->id) && (!best || s->id > best->id))
			best = s;
	if (best || !origin)
		return best;
	s = thin_vol_by_id(t, origin);
	return s && is_point(s, v->family) && (!is_snap || s->id < v->id) ? s : NULL;
}

struct thin_vol *thin_vol_prev(struct thin *t, const struct thin_vol *v)
{
	struct thin_vol *s = v->prev ? thin_vol_by_id(t, v->prev) : NULL;

	if (s && is_point(s, v->family) && (v->kind == THIN_KIND_VOLUME || s->id < v->id))
		return s;
	return prev_guess(t, v);
}

/* ---- records ---- */

static void vol_delete(struct thin *t, struct thin_vol *v)
{
	CHECK(!v->open);
	thin_prev_forget(t, v);
	v->state = THIN_VOLUME_DELETING;
	v->changed = true;
}

static void vol_unwant(struct thin_vol *v)
{
	static const struct uuid none;

	v->move_pool = none;
	v->move_cls = (struct thin_class){ 0, 0 };
	v->move_flags = 0;
	v->changed = true;
}

static void member_want(struct thin *t, struct thin_vol *v, const struct thin_rec_move *rec)
{
	if (v->state == THIN_VOLUME_STILL && !(rec->flags & THIN_MOVE_WANTED))
		vol_delete(t, v);
	if (v->state != THIN_VOLUME_LIVE)
		return;
	v->move_pool = rec->pool;
	v->move_cls = (struct thin_class){ rec->layout, rec->copies };
	v->move_flags = rec->flags;
	v->changed = true;
}

static void member_hand(struct thin *t, struct thin_vol *v, const struct thin_rec_move *rec)
{
	if (v->state == THIN_VOLUME_STILL)
		vol_delete(t, v);
	if (v->state != THIN_VOLUME_LIVE)
		return;
	t->n_live -= thin_vol_counts(v);
	vol_unwant(v);
	v->state = MUTANT(HANDED_STILL_OPENS) ? THIN_VOLUME_LIVE : THIN_VOLUME_HANDED;
	v->move_pool = rec->pool;
}

static void member_return(struct thin *t, struct thin_vol *v)
{
	if (v->state != THIN_VOLUME_HANDED)
		return;
	vol_unwant(v);
	v->state = THIN_VOLUME_LIVE;
	t->n_live += thin_vol_counts(v);
}

static void copy_arrive(struct thin *t, struct thin_vol *v, uint64_t family)
{
	static const struct uuid none;

	v->family = family;
	v->received_bytes = v->move_id = v->move_family = 0;
	v->base_guid = none;
	vol_unwant(v);
	if (!v->name[0]) {
		vol_delete(t, v);
		return;
	}
	v->state = THIN_VOLUME_LIVE;
	t->n_live += thin_vol_counts(v);
}

static void copy_exchange(struct thin *t, struct thin_vol *copy)
{
	struct thin_vol *v = thin_vol_by_id(t, copy->move_id);
	struct thin_class cls = copy->cls;

	if (v && v->state == THIN_VOLUME_LIVE) {
		thin_vol_exchange(t, v, copy);
		copy->cls = v->cls;
		v->cls = cls;
		vol_unwant(v);
	}
	copy->family = copy->move_family; /* what its end leaves to be merged is in the maps of those */
	vol_delete(t, copy);
}

static bool is_copy(const struct thin_vol *v, const struct thin_rec_move *rec)
{
	return v->state == THIN_VOLUME_INCOMING && v->move_id && v->move_family == le64_get(rec->family) &&
	       uuid_is_equal(&v->move_pool, &rec->pool);
}

static int apply_members(struct thin *t, const struct thin_rec_move *rec)
{
	struct thin_vol *v;

	list_for_each (v, &t->vols, link) {
		if (v->family != le64_get(rec->family))
			continue;
		if (rec->what == THIN_MOVE_WANT)
			member_want(t, v, rec);
		else if (rec->what == THIN_MOVE_HAND)
			member_hand(t, v, rec);
		else if (rec->what == THIN_MOVE_RETURN)
			member_return(t, v);
		else if (v->state == THIN_VOLUME_HANDED)
			vol_delete(t, v);
	}
	return 0;
}

static int apply_copies(struct thin *t, const struct thin_rec_move *rec)
{
	uint64_t family = UINT64_MAX;
	struct thin_vol *v;

	list_for_each (v, &t->vols, link)
		if (is_copy(v, rec) && v->name[0])
			family = MIN(family, v->id);
	list_for_each (v, &t->vols, link) {
		if (!is_copy(v, rec))
			continue;
		if (rec->what == THIN_MOVE_ARRIVE)
			copy_arrive(t, v, family);
		else
			vol_delete(t, v);
	}
	return 0;
}

static int apply_exchange(struct thin *t, const struct thin_rec_move *rec)
{
	unsigned members = 0, copies = 0;
	struct thin_vol *v, *of;

	list_for_each (v, &t->vols, link) {
		of = is_copy(v, rec) ? thin_vol_by_id(t, v->move_id) : NULL;
		members += v->family == le64_get(rec->family) && v->state == THIN_VOLUME_LIVE;
		copies += of && of->family == le64_get(rec->family) && of->state == THIN_VOLUME_LIVE;
	}
	if (members != copies)
		return -ERR_FORMAT;
	list_for_each (v, &t->vols, link)
		if (is_copy(v, rec))
			copy_exchange(t, v);
	list_for_each (v, &t->vols, link)
		if (v->family == le64_get(rec->family) && v->state == THIN_VOLUME_STILL)
			vol_delete(t, v);
	return 0;
}

int thin_apply_move(struct thin *t, const void *payload, size_t len)
{
	const struct thin_rec_move *rec = payload;

	if (len != sizeof(*rec) || !le64_get(rec->family))
		return -ERR_FORMAT;
	switch (rec->what) {
	case THIN_MOVE_WANT:
	case THIN_MOVE_HAND:
	case THIN_MOVE_GONE:
	case THIN_MOVE_RETURN:
		return apply_members(t, rec);
	case THIN_MOVE_DROP:
	case THIN_MOVE_ARRIVE:
		return apply_copies(t, rec);
	case THIN_MOVE_EXCHANGE:
		return apply_exchange(t, rec);
	default:
		return -ERR_FORMAT;
	}
}

/* ---- handing them in ---- */

/* It concerns them: who asks about their maps waits for it. */
static void family_set_seq(struct thin *t, const struct thin_rec_move *rec, uint64_t seq)
{
	struct thin_vol *v;

	list_for_each (v, &t->vols, link)
		if (v->family == le64_get(rec->family) || is_copy(v, rec))
			v->last_seq = seq;
}

static int move_co_settle(struct thin *t, uint64_t seq)
{
	int r = meta_co_commit(t->m, seq);

	if (r == 0)
		r = meta_co_wait_applied(t->m, seq);
	thin_reaper_wake(t);
	return r;
}

int thin_co_move(struct thin *t, const struct thin_rec_move *rec)
{
	uint64_t seq;
	int r = meta_co_admit(t->m, sizeof(*rec) + sizeof(struct journal_record_disk), false);

	CHECK(rec->what != THIN_MOVE_EXCHANGE);
	if (r < 0)
		return r;
	seq = meta_record(t->m, THIN_REC_MOVE, rec, sizeof(*rec));
	family_set_seq(t, rec, seq);
	return move_co_settle(t, seq);
}

static struct thin_vol *copy_of(struct thin *t, const struct thin_rec_move *rec, const struct thin_vol *of)
{
	struct thin_vol *v;

	list_for_each (v, &t->vols, link)
		if (is_copy(v, rec) && v->move_id == of->id)
			return v;
	return NULL;
}

int thin_co_move_exchange(struct thin *t, const struct thin_rec_move *rec, struct thin_vol *const *members, unsigned n)
{
	bool *thaw;
	struct thin_vol *c;
	uint64_t seq;
	unsigned i;
	int r = meta_co_admit(t->m, sizeof(*rec) + sizeof(struct journal_record_disk), false);

	CHECK(rec->what == THIN_MOVE_EXCHANGE);
	if (r < 0)
		return r;
	thaw = xcalloc(n, sizeof(*thaw));
	for (i = 0; i < n; i++)
		thaw[i] = thin_vol_co_freeze_unless(t, members[i]);
	seq = meta_record(t->m, THIN_REC_MOVE, rec, sizeof(*rec));
	for (i = 0; i < n; i++) {
		c = copy_of(t, rec, members[i]);
		CHECK(c && !c->open && !c->n_attached && c->size_bytes == members[i]->size_bytes && c->cls.layout == rec->layout &&
		      c->cls.copies == rec->copies);
	}
	family_set_seq(t, rec, seq);
	for (i = 0; i < n; i++)
		thin_vol_co_replaced(t, members[i], members[i]->size_bytes, (struct thin_class){ rec->layout, rec->copies }, thaw[i]);
	xfree(thaw);
	return move_co_settle(t, seq);
}
