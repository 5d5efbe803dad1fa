/*
 * move_live.c: copies of volumes that are being written to.
 *
 * The mirror (mirror.h) is begun first, and what has to be copied is looked for afterwards: where the map is another than that of the
 * snapshot that the copy began with. What clients change from then on is in both places anyway; so when the maps have been gone through
 * once, the two are equal, and stay so.
 *
 * The copy is of no use when the volume's contents have been exchanged (rollback), nor when a newer snapshot has been taken: that is to
 * share with it what it shares here.
 */
#include "engine/base/units.h"
#include "engine/pool/move_family.h"
#include "engine/pool/ranges.h"

#define COPY_BYTES MIB

static struct move_live *live_find(struct pool_move *mv, uint64_t id)
{
	unsigned i;

	for (i = 0; i < mv->n_live; i++)
		if (mv->live[i].id == id)
			return &mv->live[i];
	return NULL;
}

/* ---- its end ---- */

static int end_there(void *arg)
{
	pool_mirror_co_hold(arg);
	pool_mirror_end(arg, NULL);
	return 0;
}

void move_co_live_end(struct pool_move *mv, struct move_live *l)
{
	int r;

	if (l->mirror) {
		r = reactor_co_call(thin_volume_home(mv->p->thin, l->id), end_there, l->mirror);
		CHECK(r == 0);
	}
	pool_vol_unkeep(mv->p, l->v);
	pool_vol_unkeep(mv->to, l->copy);
	pool_co_vol_close_idle(mv->to, l->copy);
	if (l->base)
		pool_vol_unkeep(mv->p, l->base);
	*l = mv->live[--mv->n_live];
}

void move_co_live_stop(struct pool_move *mv)
{
	while (mv->n_live)
		move_co_live_end(mv, &mv->live[mv->n_live - 1]);
}

/* ---- its beginning ---- */

static int start_there(void *arg)
{
	struct move_live *l = arg;

	return pool_mirror_co_start(l->v->open, thin_volume_inner(l->copy->open), &l->mirror);
}

/* Coroutine under a->admin. */
static int live_co_begin(struct pool_move *mv, struct thin_vol *v, struct err *e)
{
	struct move_live l = { .id = v->id, .v = v, .base = thin_vol_prev(mv->p->thin, v), .map_gen = v->map_gen };
	int r = move_co_copy_create(mv, v, l.base, &l.copy, e);

	if (r < 0)
		return r;
	r = pool_co_vol_keep(mv->p, v);
	if (r < 0)
		return err_default(e, r, "opening a volume to move it");
	r = pool_co_vol_keep(mv->to, l.copy);
	if (r < 0) {
		pool_vol_unkeep(mv->p, v);
		return err_default(e, r, "opening the copy of a volume");
	}
	if (l.base) {
		l.base->n_kept++;
		l.base_id = l.base->id;
	}
	mv->holds = true;
	mv->live = xrealloc(mv->live, (mv->n_live + 1) * sizeof(*mv->live));
	r = reactor_co_call(thin_volume_home(mv->p->thin, v->id), start_there, &l);
	mv->live[mv->n_live++] = l;
	if (r < 0)
		move_co_live_end(mv, &mv->live[mv->n_live - 1]);
	return err_default(e, r, "making changes of a volume in two places");
}

static bool live_is_good(struct pool_move *mv, const struct move_live *l)
{
	struct thin_vol *v = thin_vol_by_id(mv->p->thin, l->id), *prev;

	if (v != l->v || v->state != THIN_VOLUME_LIVE || v->map_gen != l->map_gen)
		return false;
	prev = thin_vol_prev(mv->p->thin, v);
	return !prev || prev->id <= l->base_id;
}

int move_co_live_start(struct pool_move *mv, struct err *e)
{
	struct thin_vol *v;
	unsigned i;
	int r = 0;

	for (i = mv->n_live; i-- > 0;)
		if (!live_is_good(mv, &mv->live[i]))
			move_co_live_end(mv, &mv->live[i]);
	r = move_co_tidy(mv, e);
	list_for_each (v, thin_vols(mv->p->thin), link) {
		if (r < 0)
			break;
		if (v->family == mv->family && v->state == THIN_VOLUME_LIVE && v->kind == THIN_KIND_VOLUME && !live_find(mv, v->id))
			r = live_co_begin(mv, v, e);
	}
	return r;
}

/* ---- copying ---- */

struct copying {
	struct move_live *l;
	struct ashlar_range range;
	uint64_t copied;
};

static int copy_there(void *arg)
{
	struct copying *c = arg;

	return pool_mirror_co_copy(c->l->mirror, c->range.off_bytes, c->range.len_bytes, &c->copied);
}

static int flush_there(void *arg)
{
	return bdev_co_flush(arg);
}

static int range_co_copy(struct pool_move *mv, struct copying *c, struct err *e)
{
	uint64_t bytes = c->range.is_data ? c->range.len_bytes : 0;
	int r = pool_co_pace(mv->p, bytes);

	if (r == 0 && mv->to != mv->p)
		r = pool_co_pace(mv->to, bytes);
	if (r < 0 || move_must_stop(mv))
		return -ECANCELED;
	r = reactor_co_call(thin_volume_home(mv->p->thin, c->l->id), copy_there, c);
	pool_job_progress(mv->job, c->copied);
	if (pool_mirror_error(c->l->mirror))
		return move_write_failed(mv, pool_mirror_error(c->l->mirror), e);
	if (r == 0)
		return 0;
	return move_read_failed(mv, c->l->v, move_co_probe(mv, c->l->v, c->range.off_bytes, c->range.len_bytes), r, e);
}

static int live_co_copy_one(struct pool_move *mv, struct move_live *l, struct err *e)
{
	struct ranges *x = xmalloc(sizeof(*x));
	struct copying c = { .l = l };
	int r;

	ranges_init(x, mv->p, l->base, l->v, 0);
	r = ranges_co_find(x);
	while (r == 0 && x->cur.len_bytes) {
		r = ranges_co_take(x, move_unit(mv, COPY_BYTES), &c.range);
		if (r == 0)
			r = range_co_copy(mv, &c, e);
	}
	xfree(x);
	if (r < 0)
		return err_default(e, r, "finding out what to copy");
	r = reactor_co_call(thin_volume_home(mv->to->thin, l->copy->id), flush_there, thin_volume_bdev(l->copy->open));
	if (r < 0)
		return move_write_failed(mv, r, e);
	if (l->base)
		pool_vol_unkeep(mv->p, l->base);
	l->base = NULL;
	l->is_equal = true;
	return 0;
}

int move_co_live_copy(struct pool_move *mv, struct err *e)
{
	unsigned i;
	int r = 0;

	for (i = 0; i < mv->n_live && r == 0; i++)
		if (!mv->live[i].is_equal)
			r = live_co_copy_one(mv, &mv->live[i], e);
	return r;
}
