/*
 * move_copy.c: the copy of one member of a family.
 *
 * A copy is a hidden volume (INCOMING) whose record says of what it is one, with which snapshot's copy it began (base_guid), and how
 * far it is. It is filled with what differs from that snapshot, as a stream fills what is being received (receive.c): read here,
 * written there, two batches in turn, made durable from time to time. It is on the reactor of its original.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/mutant.h"
#include "engine/base/units.h"
#include "engine/pool/move_family.h"
#include "engine/pool/ranges.h"
#include "engine/pool/transfer.h"

#define KEEP_BYTES (64 * MIB)
#define READ_BYTES (256 * 1024)

/* ---- which ---- */

struct thin_vol *move_copy_of(const struct pool_move *mv, const struct thin_vol *of)
{
	struct thin_vol *v;

	list_for_each (v, thin_vols(mv->to->thin), link)
		if (v->state == THIN_VOLUME_INCOMING && v->move_id == of->id && v->move_family == mv->family &&
		    uuid_is_equal(&v->move_pool, move_from(mv)))
			return v;
	return NULL;
}

bool move_copy_is_complete(const struct thin_vol *copy)
{
	return copy->move_flags & THIN_MOVE_COMPLETE;
}

static struct move_live *live_of(const struct pool_move *mv, const struct thin_vol *copy)
{
	unsigned i;

	for (i = 0; i < mv->n_live; i++)
		if (mv->live[i].copy == copy)
			return &mv->live[i];
	return NULL;
}

/* Can it be gone on with, or is it what it should be already? */
static bool copy_is_good(const struct pool_move *mv, const struct thin_vol *copy)
{
	struct thin_vol *of = thin_vol_by_id(mv->p->thin, copy->move_id), *base;

	if (!of || of->family != mv->family || copy->cls.layout != mv->cls.layout || copy->cls.copies != mv->cls.copies)
		return false;
	if (!move_is_point(of))
		return of->state == THIN_VOLUME_LIVE && live_of(mv, copy);
	if (!uuid_is_equal(&copy->guid, &of->guid) || copy->size_bytes != of->size_bytes)
		return false;
	if (move_copy_is_complete(copy))
		return true;
	base = thin_vol_prev(mv->p->thin, of);
	return base ? uuid_is_equal(&copy->base_guid, &base->guid) : uuid_is_zero(&copy->base_guid);
}

int move_co_copy_drop(struct pool_move *mv, struct thin_vol *copy, struct err *e)
{
	int r;

	CHECK(!copy->n_kept && !copy->n_attached);
	pool_co_vol_close_idle(mv->to, copy);
	co_mutex_lock(&mv->to->directory);
	r = thin_co_volumes_delete(mv->to->thin, &copy, 1);
	co_mutex_unlock(&mv->to->directory);
	return err_default(e, r, "dropping a copy that is of no use any more");
}

int move_co_tidy(struct pool_move *mv, struct err *e)
{
	struct thin_vol *v, *bad;
	int r;

	do {
		bad = NULL;
		list_for_each (v, thin_vols(mv->to->thin), link)
			if (!bad && v->state == THIN_VOLUME_INCOMING && v->move_id && v->move_family == mv->family &&
			    uuid_is_equal(&v->move_pool, move_from(mv)) && !copy_is_good(mv, v))
				bad = v;
		r = bad ? move_co_copy_drop(mv, bad, e) : 0;
	} while (r == 0 && bad);
	do {
		bad = NULL;
		list_for_each (v, thin_vols(mv->p->thin), link) {
			struct thin_vol *parent = v->state == THIN_VOLUME_STILL ? thin_vol_by_id(mv->p->thin, v->parent) : NULL;

			if (v->state == THIN_VOLUME_STILL && v->family == mv->family && (!parent || parent->state != THIN_VOLUME_LIVE))
				bad = v;
		}
		if (r == 0 && bad) {
			pool_co_vol_close_idle(mv->p, bad);
			r = err_default(e, thin_co_volumes_delete(mv->p->thin, &bad, 1), "dropping a snapshot");
		}
	} while (r == 0 && bad);
	return r;
}

/* ---- beginning ---- */

static void copy_attributes(const struct pool_move *mv, const struct thin_vol *of, const struct thin_vol *base, struct thin_vol *out)
{
	static const struct uuid none;

	out->cls = mv->cls;
	out->kind = of->kind;
	out->size_bytes = of->size_bytes;
	out->guid = of->guid;
	out->base_guid = base ? base->guid : none;
	out->received_bytes = 0;
	out->created_wall_ns = of->created_wall_ns;
	out->full_wait_ns = 0;
	out->move_pool = *move_from(mv);
	out->move_id = of->id;
	out->move_family = mv->family;
	out->move_flags = 0;
	memset(out->name, 0, sizeof(out->name));
	memcpy(out->name, of->name, strnlen(of->name, sizeof(out->name) - 1));
}

/* Empty. */
static int copy_co_create_whole(struct pool_move *mv, struct thin_vol *of, struct thin_vol **out, struct err *e)
{
	struct thin_vol *as = xcalloc(1, sizeof(*as));
	int r;

	copy_attributes(mv, of, NULL, as);
	r = thin_co_incoming_create(mv->to->thin, as, of->id, out);
	xfree(as);
	return pool_full_sentence(mv->to, r, "moving a volume", e);
}

/* Until the second record it is nobody's copy: a crash leaves it to be deleted. */
static int copy_co_clone(struct pool_move *mv, struct thin_vol *of, struct thin_vol *base, struct thin_vol *from, struct thin_vol **out,
			 struct err *e)
{
	struct thin_copy c = { .source = from, .name = "", .kind = of->kind, .hidden = THIN_COPY_INCOMING, .like = of->id };
	struct ashlar_pool *q = mv->to;
	struct thin_vol *to;
	int r;

	co_mutex_lock(&from->admin);
	r = thin_co_copy(q->thin, &c, 1);
	co_mutex_unlock(&from->admin);
	if (r < 0)
		return pool_full_sentence(q, r, "moving a volume", e);
	*out = thin_vol_by_id(q->thin, c.id);
	if (of->size_bytes < (*out)->size_bytes)
		r = pool_co_vol_resize_open(q, *out, of->size_bytes);
	to = xmalloc(sizeof(*to));
	*to = **out;
	copy_attributes(mv, of, base, to);
	r = r < 0 ? pool_full_sentence(q, r, "moving a volume", e) : pool_co_vol_update(q, *out, to, e);
	xfree(to);
	if (r < 0 && !q->failed && move_co_copy_drop(mv, *out, NULL) < 0)
		pool_log(q, "a copy that was begun could not be dropped; opening the pool does it");
	return r;
}

int move_co_copy_create(struct pool_move *mv, struct thin_vol *of, struct thin_vol *base, struct thin_vol **out, struct err *e)
{
	struct thin_vol *from = base ? move_copy_of(mv, base) : NULL;

	CHECK(!base || (from && move_copy_is_complete(from)));
	return base ? copy_co_clone(mv, of, base, from, out, e) : copy_co_create_whole(mv, of, out, e);
}

/* ---- what goes wrong ---- */

int move_read_failed(struct pool_move *mv, const struct thin_vol *of, uint64_t off_bytes, int r, struct err *e)
{
	const struct thin_vol *v = of->state == THIN_VOLUME_STILL ? thin_vol_by_id(mv->p->thin, of->parent) : of;
	char name[POOL_POINT_NAME];

	return err_set(e, r, "%s/%s cannot be read at offset %" PRIu64 " (%s), and what cannot be read is not made up: write there anew, or "
		       "delete it, and move again", mv->p->label->name, v ? pool_point_name(mv->p, v, name) : "?", off_bytes, err_text(r));
}

int move_write_failed(struct pool_move *mv, int r, struct err *e)
{
	if (r == -ERR_POOL_FULL)
		return err_set(e, r, "pool %s became full: a family that is moved needs its space twice until it is there: delete or "
			       "discard something, or add disks, and move again", mv->to->label->name);
	return err_set(e, r, "the copy in pool %s cannot be written: %s", mv->to->label->name, err_text(r));
}

/* ---- filling ---- */

struct fill {
	struct pool_move *mv;
	struct thin_vol *of, *copy;
	struct ranges ranges;
	struct batch batch[2];
	struct reactor *read_home, *write_home;
	uint64_t written_bytes; /* all before is in the copy */
	uint64_t fresh_bytes;	/* data since it was last made durable */
};

static int flush_there(void *arg)
{
	return bdev_co_flush(arg);
}

/* Durable, then the record that says so. No batch runs. */
static int fill_co_keep(struct fill *x, bool complete, struct err *e)
{
	struct ashlar_pool *q = x->mv->to;
	struct thin_vol *to;
	int r = reactor_co_call(x->write_home, flush_there, thin_volume_inner(x->copy->open));

	x->fresh_bytes = 0;
	if (r < 0)
		return move_write_failed(x->mv, r, e);
	to = xmalloc(sizeof(*to));
	*to = *x->copy;
	to->received_bytes = x->written_bytes + (MUTANT(MOVE_KEPT_AHEAD) && !complete ? READ_BYTES : 0);
	to->move_flags = complete ? THIN_MOVE_COMPLETE : 0;
	r = pool_co_vol_update(q, x->copy, to, e);
	xfree(to);
	return r;
}

uint64_t move_unit(const struct pool_move *mv, uint64_t most)
{
	struct raid_profile prof = { mv->cls.layout, mv->cls.copies };
	uint64_t unit = pool_pace_unit(mv->to, pool_pace_unit(mv->p, most)), stripe;

	if (!pool_layout_is_parity(prof.layout))
		return unit;
	stripe = (raid_profile_columns(prof, pool_n_staying(mv->to)) - raid_profile_tolerates(prof)) * (uint64_t)mv->to->label->strip_bytes;
	return MIN(most, DIV_UP(unit, stripe) * stripe);
}

static int batch_co_fill(struct fill *x, struct batch *b)
{
	uint64_t most = move_unit(x->mv, BATCH_BYTES), piece = MIN(most, READ_BYTES);
	struct ashlar_range range;
	int r;

	batch_clear(b);
	r = ranges_co_find(&x->ranges);
	while (r == 0 && x->ranges.cur.len_bytes && batch_has_room(b, x->ranges.cur.is_data ? piece : 0) && b->used < most) {
		r = ranges_co_take(&x->ranges, x->ranges.cur.is_data ? piece : UINT64_MAX, &range);
		if (r == 0 && !(MUTANT(MOVE_FORGETS_HOLES) && !range.is_data))
			batch_add(b, range.is_data ? STREAM_DATA : STREAM_ZERO, range.off_bytes, range.len_bytes);
	}
	return r;
}

static void batch_go(struct fill *x, struct batch *b, bool write)
{
	b->b = thin_volume_inner(write ? x->copy->open : x->of->open);
	b->home = write ? x->write_home : x->read_home;
	b->is_write = write;
	batch_start(b);
}

struct probe {
	struct bdev *b;
	uint64_t off_bytes, end_bytes, block_bytes;
};

/* Where exactly? */
static int probe_there(void *arg)
{
	struct probe *x = arg;
	uint8_t *buf = xaligned(4096, x->block_bytes);
	int r = 0;

	for (; r == 0 && x->off_bytes < x->end_bytes; x->off_bytes += r == 0 ? x->block_bytes : 0)
		r = bdev_co_read(x->b, x->off_bytes, buf, x->block_bytes);
	xfree(buf);
	return r;
}

uint64_t move_co_probe(struct pool_move *mv, const struct thin_vol *of, uint64_t off_bytes, uint64_t len_bytes)
{
	struct probe x = { thin_volume_inner(of->open), off_bytes, off_bytes + len_bytes, mv->p->label->block_bytes };

	return reactor_co_call(thin_volume_home(mv->p->thin, of->id), probe_there, &x) < 0 ? x.off_bytes : off_bytes;
}

static int batch_co_read_failed(struct fill *x, const struct batch *b, int r, struct err *e)
{
	uint64_t at = b->v[0].off_bytes;
	unsigned i;

	for (i = 0; i < b->n; i++) {
		if (b->v[i].type != STREAM_DATA || b->v[i].io.result >= 0)
			continue;
		at = move_co_probe(x->mv, x->of, b->v[i].off_bytes, b->v[i].len_bytes);
		break;
	}
	return move_read_failed(x->mv, x->of, at, r, e);
}

static uint64_t batch_data(const struct batch *b)
{
	uint64_t n = 0;
	unsigned i;

	for (i = 0; i < b->n; i++)
		n += b->v[i].type == STREAM_DATA ? b->v[i].len_bytes : 0;
	return n;
}

/* It has been written. */
static int batch_co_finish(struct fill *x, struct batch *b, struct err *e)
{
	int r = batch_co_wait(b);

	if (r < 0)
		return move_write_failed(x->mv, r, e);
	if (b->n) {
		x->written_bytes = b->v[b->n - 1].off_bytes + b->v[b->n - 1].len_bytes;
		x->fresh_bytes += batch_data(b);
		pool_job_progress(x->mv->job, batch_data(b));
	}
	batch_clear(b);
	return x->fresh_bytes >= KEEP_BYTES ? fill_co_keep(x, false, e) : 0;
}

static int fill_co_pace(struct fill *x, uint64_t bytes)
{
	int r = pool_co_pace(x->mv->p, bytes);

	if (r == 0 && x->mv->to != x->mv->p)
		r = pool_co_pace(x->mv->to, bytes);
	return r == 0 && move_must_stop(x->mv) ? -ECANCELED : r;
}

/* One batch is written while the next is read. */
static int fill_co_body(struct fill *x, struct err *e)
{
	unsigned turn = 0;
	int r = 0, w;

	do {
		struct batch *now = &x->batch[turn], *before = &x->batch[!turn];

		r = err_default(e, batch_co_fill(x, now), "finding out what to copy");
		if (r == 0)
			r = fill_co_pace(x, batch_data(now));
		if (r == 0) {
			batch_go(x, now, false);
			r = batch_co_wait(now);
			if (r < 0)
				r = batch_co_read_failed(x, now, r, e);
		}
		w = batch_co_finish(x, before, e);
		if (r == 0)
			r = w;
		if (r == 0 && now->n)
			batch_go(x, now, true);
		turn = !turn;
	} while (r == 0 && x->batch[!turn].n);
	w = batch_co_wait(&x->batch[!turn]);
	return r < 0 ? r : w < 0 ? move_write_failed(x->mv, w, e) : 0;
}

int move_co_fill(struct pool_move *mv, struct thin_vol *of, struct thin_vol *base, struct thin_vol *copy, struct err *e)
{
	struct fill *x = xcalloc(1, sizeof(*x));
	unsigned i;
	int r;

	x->mv = mv;
	x->of = of;
	x->copy = copy;
	x->read_home = thin_volume_home(mv->p->thin, of->id);
	x->write_home = thin_volume_home(mv->to->thin, copy->id);
	x->written_bytes = copy->received_bytes;
	ranges_init(&x->ranges, mv->p, base, of, copy->received_bytes);
	for (i = 0; i < 2; i++)
		batch_init(&x->batch[i], thin_volume_inner(of->open), x->read_home, false);
	r = fill_co_body(x, e);
	if (r == 0) {
		x->written_bytes = of->size_bytes;
		r = fill_co_keep(x, true, e);
	} else if (r == -ECANCELED && x->fresh_bytes && !mv->to->stopping && !mv->to->failed) {
		(void)!fill_co_keep(x, false, NULL); /* however often it is interrupted, it gets on */
	}
	for (i = 0; i < 2; i++)
		batch_fini(&x->batch[i]);
	xfree(x);
	return r;
}
