/*
 * Writes, zeroes and discards of mirrors and of single columns.
 *
 * A write goes to every column whose disk is there, at once, STALE ones included; writes to overlapping ranges of a mirror
 * one after the other, or its columns would differ for good.
 *
 * When legs fail, the pool decides about each disk. 0 means that the disk is durably out: whatever it holds is not
 * believed again before it has been brought up to date, so the write is good if every place of it is on some ONLINE
 * column. Any other answer is the write's result; then the columns may differ although nobody is out, so the regions are
 * unsync again and the next access has them synced first. (With one ONLINE column left there is nothing to differ from.)
 */
#include "engine/base/mutant.h"
#include "raid/raid_impl.h"

void raid_outcome_add(struct raid_outcome *o, unsigned col, int error)
{
	o->tried |= 1ULL << col;
	if (!o->error[col])
		o->error[col] = error;
}

static unsigned count_current(const struct raid_group *g, uint64_t cols)
{
	unsigned n = 0;

	for (; cols; cols &= cols - 1)
		n += raid_col_is_current(g, (unsigned)__builtin_ctzll(cols));
	return n;
}

/* The target has missed a write: that is the end of it, and no harm to the write unless the switch has begun. */
static int outcome_target(struct raid_group *g, int error, int refused)
{
	if (g->target_must)
		return refused;
	raid_target_failed(g, error);
	return 0;
}

int raid_co_ask_pool(struct raid_group *g, enum io_op op, const struct raid_outcome *o)
{
	const struct raid_conf *c = &g->raid->conf;
	uint64_t asked[RAID_DISKS_MAX / 64] = { 0 };
	int r = 0, res;

	for (unsigned col = 0; col < raid_n_legs_cols(g); col++) {
		unsigned disk = g->desc.cols[col].disk;

		if (!o->error[col] || (asked[disk / 64] & (1ULL << (disk % 64))))
			continue;
		asked[disk / 64] |= 1ULL << (disk % 64);
		res = c->hooks->co_disk_error(c->ctx, disk, op, o->error[col]);
		if (col == g->desc.n_cols)
			res = outcome_target(g, o->error[col], res);
		if (res && !r)
			r = res;
	}
	return r;
}

/* Whoever repairs what he reads may read it for the pool, which he must not ask: the next write to that disk will. */
static int repair_failed(struct raid_group *g, const struct raid_outcome *o)
{
	int r = 0;

	for (unsigned col = 0; col < g->desc.n_cols; col++)
		r = r ? r : o->error[col];
	if (o->error[g->desc.n_cols])
		raid_target_failed(g, o->error[g->desc.n_cols]);
	return r;
}

/* Coroutine. The result of a write of the range whose legs ended like this. */
static int co_settle(struct raid_group *g, struct raid_req *q, const struct raid_outcome *o)
{
	uint64_t off = q->off_bytes, end = off + q->parent->len_bytes;
	struct raid_place p;
	uint64_t good = 0;
	int r;

	if (!g->redundant) {
		for (unsigned col = 0; col < g->desc.n_cols; col++)
			if (o->error[col])
				return o->error[col];
		return o->error[g->desc.n_cols] ? outcome_target(g, o->error[g->desc.n_cols], o->error[g->desc.n_cols]) : 0;
	}
	if (q->parent->flags & IO_REPAIR)
		return repair_failed(g, o);
	r = raid_co_ask_pool(g, (enum io_op)q->parent->op, o);
	for (unsigned col = 0; col < g->desc.n_cols; col++)
		if ((o->tried & (1ULL << col)) && !o->error[col] && raid_col_is_current(g, col))
			good |= 1ULL << col;
	for (; !r && off < end; off += p.len_bytes) {
		uint64_t cols = 0;

		raid_locate(g, off, end - off, &p);
		for (unsigned i = 0; i < p.n; i++)
			cols |= 1ULL << p.cols[i];
		if (!(cols & good))
			r = -EIO;
	}
	if (r && count_current(g, o->tried) > 1)
		g->unsync |= q->mask;
	return r;
}

/* ---- the fast path ---- */

static void write_co_failed(void *arg)
{
	struct raid_req *q = arg;
	struct raid_outcome o = { 0 };
	struct range_lock *lock = q->locked ? q->lock : NULL;
	int r;

	for (unsigned i = 0; i < q->n_legs; i++)
		raid_outcome_add(&o, q->col[i], q->leg[i].result);
	r = co_settle(q->g, q, &o);
	if (lock)
		range_unlock(lock, &q->hold);
	q->locked = false;
	raid_req_end(q, r);
}

static void write_leg_done(struct io *leg)
{
	struct raid_req *q = leg->owner;
	int r = 0;

	if (--q->pending)
		return;
	for (unsigned i = 0; i < q->n_legs; i++)
		if (q->leg[i].result && !r)
			r = q->leg[i].result;
	if (unlikely(r && q->g->redundant) && MUTANT(WRITE_ERROR_FORGOTTEN))
		r = 0;
	if (unlikely(r && (q->g->redundant || q->g->target_col >= 0))) {
		co_start(CO_SERVICE, write_co_failed, q, "raid write error");
		return;
	}
	if (q->locked)
		range_unlock(q->lock, &q->hold);
	q->locked = false;
	raid_req_end(q, r);
}

bool raid_mirror_try_write(struct raid_group *g, struct raid_req *q)
{
	struct io *io = q->parent;
	struct raid_place p;
	unsigned current = 0;
	uint64_t mask;

	if ((io->flags & IO_FAST_ZERO) || io->len_bytes > g->raid->leg_max_bytes)
		return false;
	mask = raid_group_mask(g, q->off_bytes, io->len_bytes);
	if ((mask & ~g->lease) || (mask & g->unsync))
		return false;
	raid_locate(g, q->off_bytes, io->len_bytes, &p);
	if (p.len_bytes != io->len_bytes)
		return false;
	q->n_legs = 0;
	for (unsigned i = 0; i < p.n; i++)
		if (raid_col_is_there(g, p.cols[i])) {
			q->col[q->n_legs++] = p.cols[i];
			current += raid_col_is_current(g, p.cols[i]);
		}
	if (!current || raid_place_lacks_target(g, &p))
		return false;
	if (raid_place_has_target(g, &p))
		q->col[q->n_legs++] = g->desc.n_cols;
	if (g->redundant || g->homed) {
		q->lock = raid_lock_of(g, q->off_bytes, io->len_bytes);
		if (!q->lock || !range_try_lock(q->lock, q->off_bytes, io->len_bytes, false, &q->hold))
			return false;
		q->locked = true;
	}
	raid_enter(g, q, mask);
	q->pending = q->n_legs;
	for (unsigned i = 0; i < q->n_legs; i++) {
		raid_leaf_prep(g, &q->leg[i], io, q->col[i], p.col_off_bytes);
		q->leg[i].done = write_leg_done;
		q->leg[i].owner = q;
		raid_disk_submit(g->raid, g->desc.cols[q->col[i]].disk, &q->leg[i], 0);
	}
	return true;
}

/* ---- the rest ---- */

/* Sets the columns of every piece: those there, of which one must be current. */
static int choose(struct raid_plan *p)
{
	for (unsigned k = 0; k < p->n_pieces; k++) {
		struct raid_piece *piece = &p->pieces[k];

		for (unsigned i = 0; i < piece->place.n; i++)
			if (raid_col_is_there(p->g, piece->place.cols[i]))
				piece->cols |= 1ULL << piece->place.cols[i];
		if (raid_place_has_target(p->g, &piece->place))
			piece->cols |= 1ULL << p->g->desc.n_cols;
		if (!count_current(p->g, piece->cols) || raid_place_lacks_target(p->g, &piece->place))
			return -ERR_MISSING;
	}
	return 0;
}

/* Coroutine. A fast zero that some columns cannot do: the request's answer if no column has done it, else those that could
 * not do it slowly, for the columns must stay equal. Replaces the legs' results. */
static int co_finish_fast_zero(struct raid_plan *p)
{
	unsigned refused = 0;

	for (unsigned i = 0; i < p->n_legs; i++)
		refused += p->legs[i].io.result == -EOPNOTSUPP;
	if (refused == p->n_legs)
		return -EOPNOTSUPP;
	for (unsigned i = 0; i < p->n_legs; i++) {
		struct raid_leg *l = &p->legs[i];

		if (l->io.result != -EOPNOTSUPP)
			continue;
		l->io.flags &= (uint16_t)~IO_FAST_ZERO;
		l->io.result = -ENODEV;
		if (raid_col_is_there(p->g, l->col))
			(void)raid_disk_co_submit(p->g->raid, p->g->desc.cols[l->col].disk, &l->io, 0);
	}
	return 0;
}

int raid_mirror_co_write(struct raid_group *g, struct raid_req *q)
{
	struct raid_outcome o = { 0 };
	struct raid_plan p;
	bool failed;
	int r;

	raid_plan_init(&p, g, q, false);
	r = choose(&p);
	if (r)
		goto out;
	raid_plan_legs(&p);
	failed = raid_plan_co_run(&p) != 0;
	if (failed && (q->parent->flags & IO_FAST_ZERO))
		r = co_finish_fast_zero(&p);
	if (r || !failed)
		goto out;
	for (unsigned i = 0; i < p.n_legs; i++)
		raid_outcome_add(&o, p.legs[i].col, p.legs[i].io.result);
	r = co_settle(g, q, &o);
out:
	raid_plan_fini(&p);
	return r;
}

/* A hint: what cannot be done is not done. */
int raid_mirror_co_discard(struct raid_group *g, struct raid_req *q)
{
	struct raid_plan p;

	raid_plan_init(&p, g, q, false);
	for (unsigned k = 0; k < p.n_pieces; k++) {
		struct raid_piece *piece = &p.pieces[k];

		for (unsigned i = 0; i < piece->place.n; i++) {
			unsigned col = piece->place.cols[i];

			if (raid_col_is_there(g, col) && raid_slot(g, col)->disk->bdev.can_discard)
				piece->cols |= 1ULL << col;
		}
	}
	raid_plan_legs(&p);
	raid_plan_co_run(&p);
	raid_plan_fini(&p);
	return 0;
}
