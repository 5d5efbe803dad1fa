/*
 * Reads of parity layouts.
 *
 * What lies on a current column is read from there, with no lock: there is one place that has it, and a write under way
 * is old or new there. This works on every instance. The rest is reconstructed, at the home: the rows of the other columns
 * are read under a shared lock of the stripe, so that no writer changes half of them meanwhile.
 *
 * A read that fails goes through admission again, as it may have to go to the home, or wait for a sync: parity is about to be
 * believed. Then the stripe is locked exclusively, the rows reconstructed, and the bad place is rewritten with what came out.
 * A column that is only late is read around and not rewritten. If too many columns fail, each block is tried by itself, since two
 * columns may have bad sectors in different rows; and where no write has been since a disk went away, it counts again.
 *
 * Where a write that has failed is still due (stripe_redo.c), and fails again, the stripe is read block by block: what is to be written
 * from memory, columns that it does not touch from where they are; lost columns of its rows are an error.
 */
#include "raid/stripe.h"

/* What of a read lies in one strip. */
struct read_part {
	struct raid_group *g;
	struct io *parent;
	uint64_t parent_off_bytes; /* where the parent begins in the group */
	uint64_t off_bytes;	   /* of the part */
	struct raid_place place;
	uint64_t bad, late; /* columns that have just failed there, and those of them that were only not served */
};

static bool col_is_good(const struct raid_group *g, unsigned col)
{
	return raid_col_is_current(g, col) &&
	       (likely(!raid_disk_is_slow(g->raid, g->desc.cols[col].disk)) || !stripe_may_hedge(g));
}

/* Does a failed read say that the place is bad, or only that the disk does not serve it now? */
static bool is_bad_place(int error)
{
	return error != -ETIMEDOUT && error != -ENODEV;
}

/* Of a leg straight into the parent's payload. */
static unsigned leg_flags(const struct raid_group *g, const struct io *parent)
{
	unsigned flags = parent->flags & IO_MAY_GIVE_UP ? RAID_LEG_DIRECT : 0;

	if (parent->copy)
		return flags;
	return flags | RAID_LEG_CHECK_ZEROS | (stripe_may_hedge(g) ? RAID_LEG_HEDGE : 0);
}

/* ---- one strip, or rows of it, by whatever means ---- */

static void part_give(const struct read_part *p, struct stripe_rows *s)
{
	iov_from_buf(p->parent->iov, p->parent->iov_n,
		     p->off_bytes - p->parent_off_bytes + (stripe_rows_off(s, 0) - p->place.col_off_bytes),
		     stripe_rows_at(s, 0, p->place.cols[0]), s->row_len_bytes);
}

/* Coroutine. Stripe locked exclusively. `patient`: no read is given up early, and stale columns count where they have missed
 * nothing. -ENODATA: not these rows together. */
static int part_co_rows(const struct read_part *p, uint64_t done, uint32_t len_bytes, bool patient)
{
	struct raid_group *g = p->g;
	uint64_t at = p->place.col_off_bytes + done, stripe = at >> g->strip_shift;
	uint32_t want = 1U << stripe_pos_of(g, stripe_first_col(g, stripe), p->place.cols[0]);
	bool stale = patient && !(g->missed & stripe_regions(g, stripe, 1));
	struct stripe_rows s;
	int r;

	stripe_rows_init(&s, g, stripe, 1, (uint32_t)(at & (g->desc.strip_bytes - 1)), len_bytes);
	if (!patient) {
		s.bad = p->bad;
		s.late = p->late;
	}
	r = stripe_rows_co_obtain(&s, &want, !patient, false);
	if (r == -ENODATA && stale)
		r = stripe_rows_co_obtain(&s, &want, false, true);
	if (!r) {
		part_give(p, &s);
		stripe_rows_co_repair(&s);
	}
	stripe_rows_fini(&s);
	return r;
}

static int part_co_blocks(const struct read_part *p)
{
	uint32_t block = p->g->raid->conf.block_bytes;
	int r = 0;

	for (uint64_t done = 0; done < p->place.len_bytes && !r; done += block)
		r = part_co_rows(p, done, block, true);
	return r;
}

/* Coroutine. One block of a row that is neither old nor new: from its own column, or not at all. */
static int part_co_own_column(const struct read_part *p, uint64_t done, uint32_t block)
{
	uint64_t at = p->place.col_off_bytes + done;
	unsigned col = p->place.cols[0];
	struct stripe_rows s;
	int r = -EIO;

	if (!raid_col_is_current(p->g, col))
		return r;
	stripe_rows_init(&s, p->g, at >> p->g->strip_shift, 1, (uint32_t)(at & (p->g->desc.strip_bytes - 1)), block);
	stripe_rows_co_read(&s, 1ULL << col, false);
	if (!s.bad) {
		part_give(p, &s);
		r = 0;
	}
	stripe_rows_fini(&s);
	return r;
}

/* Coroutine. Stripe locked exclusively; what is due there could not be done. */
static int part_co_undone(const struct read_part *p)
{
	uint64_t strip = p->g->desc.strip_bytes, stripe = p->place.col_off_bytes >> p->g->strip_shift;
	bool touched, unsync = (p->g->unsync & stripe_regions(p->g, stripe, 1)) != 0;
	uint32_t block = p->g->raid->conf.block_bytes;
	int r = 0;

	for (uint64_t done = 0; done < p->place.len_bytes && !r; done += block) {
		uint32_t row = (uint32_t)((p->place.col_off_bytes + done) & (strip - 1));
		const uint8_t *from = stripe_redo_at(p->g, stripe, p->place.cols[0], row, &touched);

		if (from)
			iov_from_buf(p->parent->iov, p->parent->iov_n, p->off_bytes - p->parent_off_bytes + done, from, block);
		else
			r = touched || unsync ? part_co_own_column(p, done, block) : part_co_rows(p, done, block, true);
	}
	return r;
}

/* Coroutine. Fills the parent's payload. */
static int read_co_part(const struct read_part *p)
{
	uint64_t stripe = p->place.col_off_bytes >> p->g->strip_shift;
	uint32_t len = (uint32_t)p->place.len_bytes;
	struct raid_group *g = p->g;
	struct raid_locks lk;
	int r;

	stripe_co_lock(g, stripe, 1, false, &lk);
	r = stripe_co_make_sync(g, stripe, 1);
	if (r && stripe_redo_is_due(g, stripe, 1)) {
		r = part_co_undone(p);
		goto lost;
	}
	if (r)
		goto out;
	r = part_co_rows(p, 0, len, false);
	if (r == -ENODATA)
		r = part_co_rows(p, 0, len, true);
	if (r == -ENODATA)
		r = part_co_blocks(p);
lost:
	if (r == -ENODATA)
		r = stripe_lost_error(g);
out:
	raid_unlock(&lk);
	return r;
}

/* Coroutine. All strips of a range, one by one. Columns `bad` have just failed there, `late` of them by being late. */
static int read_co_parts(struct raid_group *g, struct raid_req *q, uint64_t off_bytes, uint64_t len_bytes, uint64_t bad,
			 uint64_t late)
{
	struct read_part p = { .g = g, .parent = q->parent, .parent_off_bytes = q->off_bytes, .bad = bad, .late = late };
	uint64_t end = off_bytes + len_bytes;
	int r = 0;

	for (p.off_bytes = off_bytes; p.off_bytes < end && !r; p.off_bytes += p.place.len_bytes) {
		raid_place(&g->desc, p.off_bytes, end - p.off_bytes, &p.place);
		r = read_co_part(&p);
	}
	return r;
}

/* ---- a run of stripes with columns missing ---- */

/* The stripes [stripe, stripe + n) of a range; where there is only one, just the rows that are needed. */
struct read_run {
	struct raid_group *g;
	struct raid_req *q;
	uint64_t off_bytes, end_bytes; /* in the group */
	struct stripe_rows s;
};

/* Calls for every strip of the run: what is wanted of it, and later where it goes. */
static void run_walk(struct read_run *u, uint32_t *want, bool give)
{
	const struct io *io = u->q->parent;
	struct raid_group *g = u->g;
	struct raid_place p;

	for (uint64_t off = u->off_bytes; off < u->end_bytes; off += p.len_bytes) {
		unsigned i;

		raid_place(&g->desc, off, u->end_bytes - off, &p);
		i = (unsigned)((p.col_off_bytes >> g->strip_shift) - u->s.stripe);
		want[i] |= 1U << stripe_pos_of(g, stripe_first_col(g, u->s.stripe + i), p.cols[0]);
		if (give)
			iov_from_buf(io->iov, io->iov_n, off - u->q->off_bytes,
				     stripe_rows_at(&u->s, i, p.cols[0]) + (p.col_off_bytes - stripe_rows_off(&u->s, i)),
				     p.len_bytes);
	}
}

static int run_co_read(struct read_run *u)
{
	struct raid_group *g = u->g;
	struct stripe_range range;
	struct raid_locks lk;
	uint64_t slow = 0;
	uint32_t *want;
	int r = -ENODATA;

	stripe_range_rows(g, u->off_bytes, u->end_bytes, &range);
	want = xcalloc(range.n, sizeof(*want));
	stripe_rows_init(&u->s, g, range.stripe, range.n, range.row_off_bytes, range.row_len_bytes);
	for (unsigned col = 0; col < g->desc.n_cols; col++)
		if (!col_is_good(g, col))
			slow |= 1ULL << col;
	u->s.bad = u->s.late = slow;
	run_walk(u, want, false);
	stripe_co_lock(g, range.stripe, range.n, true, &lk);
	if (!(g->unsync & stripe_regions(g, range.stripe, range.n)) && !stripe_redo_is_due(g, range.stripe, range.n))
		r = stripe_rows_co_obtain(&u->s, want, true, false);
	raid_unlock(&lk);
	if (!r && !(u->s.bad & ~u->s.late))
		run_walk(u, want, true);
	else
		r = -ENODATA; /* something is to be rewritten, or does not go all at once */
	stripe_rows_fini(&u->s);
	xfree(want);
	return r;
}

/* Coroutine. A range with columns missing, in runs of stripes. */
static int read_co_lost(struct raid_group *g, struct raid_req *q)
{
	uint64_t end = q->off_bytes + q->parent->len_bytes, next;
	int r = 0;

	for (uint64_t off = q->off_bytes; off < end && !r; off = next) {
		struct read_run u = { .g = g, .q = q, .off_bytes = off };

		next = stripe_range_cut(g, off, end);
		u.end_bytes = next;
		r = run_co_read(&u);
		if (r == -ENODATA)
			r = read_co_parts(g, q, off, next - off, 0, 0);
	}
	return r;
}

/* ---- from the columns that have it ---- */

/* Coroutine. All strips, or parts of them, that a failed leg covers. */
static int read_co_leg_failed(struct raid_plan *p, struct raid_req *q, const struct raid_leg *l)
{
	for (unsigned k = 0; k < p->n_pieces; k++) {
		const struct raid_piece *piece = &p->pieces[k];
		uint64_t begin = MAX(piece->place.col_off_bytes, l->col_off_bytes);
		uint64_t end = MIN(piece->place.col_off_bytes + piece->place.len_bytes, l->col_off_bytes + l->io.len_bytes);
		uint64_t late = is_bad_place(l->io.result) ? 0 : 1ULL << l->col;
		int r;

		if (!(piece->cols & (1ULL << l->col)) || begin >= end)
			continue;
		/* one bad block fails a leg of many strips: whether it is here is not known */
		r = read_co_parts(p->g, q, piece->off_bytes + (begin - piece->place.col_off_bytes), end - begin, late, late);
		if (r)
			return r;
	}
	return 0;
}

static int read_co_legs_failed(struct raid_plan *p, struct raid_req *q)
{
	int r = 0;

	if (q->parent->flags & IO_MAY_GIVE_UP)
		for (unsigned i = 0; i < p->n_legs; i++)
			if (p->legs[i].io.result == -ETIMEDOUT)
				return -ETIMEDOUT; /* the payload is not ours any more */
	for (unsigned i = 0; i < p->n_legs && !r; i++)
		if (p->legs[i].io.result)
			r = read_co_leg_failed(p, q, &p->legs[i]);
	return r;
}

/* Sets the column of every piece; false: some are not to be had. */
static bool read_choose(struct raid_plan *p, bool slow_too)
{
	for (unsigned k = 0; k < p->n_pieces; k++) {
		unsigned col = p->pieces[k].place.cols[0];

		if (!(slow_too ? raid_col_is_current(p->g, col) : col_is_good(p->g, col)))
			return false;
		p->pieces[k].cols = 1ULL << col;
	}
	return true;
}

static int parity_co_read(struct raid_group *g, struct raid_req *q)
{
	uint64_t bytes = raid_stripe_bytes(g), off = q->off_bytes, len = q->parent->len_bytes;
	unsigned copy = q->parent->copy;
	struct raid_plan p;
	int r;

	if (copy > 1)
		return -ENODATA;
	if (unlikely(g->redo) && !copy && stripe_redo_is_due(g, off / bytes, DIV_UP(off + len, bytes) - off / bytes))
		return read_co_parts(g, q, off, len, 0, 0);
	raid_plan_init(&p, g, q, true);
	if (!read_choose(&p, copy != 0)) {
		raid_plan_fini(&p);
		return copy ? -ENODATA : read_co_lost(g, q);
	}
	raid_plan_legs(&p);
	for (unsigned i = 0; i < p.n_legs; i++)
		p.legs[i].flags = (uint8_t)leg_flags(g, q->parent);
	r = raid_plan_co_run(&p);
	if (r && !copy)
		r = read_co_legs_failed(&p, q);
	raid_plan_fini(&p);
	return r;
}

/* ---- the fast path ---- */

/* Coroutine. One leg has failed: from admission on, knowing that. */
static void read_co_again(void *arg)
{
	struct raid_req *q = arg;
	struct raid_locks lk;
	uint64_t bad = 1ULL << q->col[0], late = is_bad_place(q->leg[0].result) ? 0 : bad;
	int r;

	raid_leave(q);
	r = raid_co_admit(q, &lk);
	if (r == RAID_FORWARDED)
		return;
	if (!r) {
		r = q->g->parity ? read_co_parts(q->g, q, q->off_bytes, q->parent->len_bytes, bad, late) :
				   q->g->level->co_run(q->g, q);
		raid_unlock(&lk);
	}
	raid_req_end(q, r);
}

static void read_done(struct io *leg)
{
	struct raid_req *q = leg->owner;
	bool given_up = leg->result == -ETIMEDOUT && (q->parent->flags & IO_MAY_GIVE_UP);

	raid_slot(q->g, q->col[0])->n_reads--;
	if (unlikely(leg->result && !given_up))
		co_start(CO_SERVICE, read_co_again, q, "raid read again");
	else
		raid_req_end(q, leg->result);
}

static bool parity_try_read(struct raid_group *g, struct raid_req *q)
{
	struct io *io = q->parent, *leg = &q->leg[0];
	struct raid_place p;

	if (io->copy || io->len_bytes > g->raid->leg_max_bytes)
		return false;
	if ((g->unsync | g->redo) && ((g->unsync | g->redo) & raid_group_mask(g, q->off_bytes, io->len_bytes)))
		return false;
	raid_place(&g->desc, q->off_bytes, io->len_bytes, &p);
	if (p.len_bytes != io->len_bytes || !col_is_good(g, p.cols[0]))
		return false;
	q->col[0] = p.cols[0];
	raid_leaf_prep(g, leg, io, q->col[0], p.col_off_bytes);
	leg->done = read_done;
	leg->owner = q;
	raid_slot(g, q->col[0])->n_reads++;
	raid_enter(g, q, 0);
	raid_disk_submit(g->raid, g->desc.cols[q->col[0]].disk, leg, leg_flags(g, io));
	return true;
}

/* ---- what the level does ---- */

bool raid_parity_try_start(struct raid_group *g, struct raid_req *q)
{
	switch (q->parent->op) {
	case IO_READ: return parity_try_read(g, q);
	case IO_WRITE:
	case IO_ZERO: return stripe_asm_try(g, q);
	}
	return false;
}

int raid_parity_co_run(struct raid_group *g, struct raid_req *q)
{
	switch (q->parent->op) {
	case IO_READ: return parity_co_read(g, q);
	case IO_WRITE:
	case IO_ZERO: return stripe_co_write_req(g, q);
	case IO_DISCARD: return 0; /* a hint; parity over what a disk may have dropped would be wrong */
	}
	return -EINVAL;
}
