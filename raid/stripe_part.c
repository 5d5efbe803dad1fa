/*
 * An update of a part of one stripe.
 *
 * Rows are looked at block by block: which data columns get new contents there. Neighbours with the same answer are a *segment*.
 * Each segment is done in one of three ways:
 *
 *   modify	     old contents of what changes, and old parity, are read; parity takes the difference. Only where the row is
 *		     known to be consistent (some of it is IO_OVERWRITE), and everything comes from current columns.
 *   reconstruct     the data columns that do not change are read (or reconstructed, if lost: that defines what they hold, should
 *		     nobody ever have written there), and parity is computed anew: the row is consistent whatever it was before.
 *   plain	     no parity is there: nothing is read.
 *
 * Modify is taken where it reads less. Columns that are there without being current (a disk that is being resynced, a place that
 * is being filled) get all contents of the rows, so while there are any it is not.
 *
 * All segments go to the log in one append (new data and new parity, whatever disk is there or not), then in place, then the
 * entry is done. What a crash leaves, at each step:
 *   before the append is durable     the old rows, whole; or, if the whole batch made it, the new ones after replay
 *   from then on			     the new rows after replay, whatever part of them was in place: rows not in the entry are
 *				     not written, and columns of the rows that are not in it hold what they held, durably or by
 *				     an older entry that is replayed before
 * With as many disks lost as there is parity, the same: a row that replay leaves is consistent.
 *
 * Without any parity there is nothing to go wrong between columns, and no log; unless an older entry of the stripe is live. (It
 * cannot be cancelled: a FUA write may have been acknowledged on its account.) Then, as whenever some parity is missing, all of it is
 * computed, and in the log: it may have been rebuilt elsewhere when the older entry, which has it, is replayed.
 * Parity that is there without being current has
 * the log: it may become current, for a recovery too, before the write ends. So would parity that has just been put out, after a
 * crash before the labels say so: they are waited for.
 *
 * An update that does not fit an append is cut in windows of rows, one after the other: rows do not depend on each other. When too
 * many columns fail to be read, the window is tried block by block; a column that failed is rewritten with the rest.
 */
#include <stdlib.h>
#include <string.h>

#include "raid/stripe.h"

#define ROWS_BYTES (256U << 10) /* of one window, per column, at most */

enum seg_how { SEG_MODIFY, SEG_RECONSTRUCT, SEG_PLAIN };

struct seg {
	uint32_t off_bytes, len_bytes; /* in the window */
	uint32_t new;		       /* positions with new contents */
	uint32_t need, lost;	       /* positions to read, to recover */
	enum seg_how how;
	bool consistent;
};

struct row {
	uint32_t new;
	bool consistent;
};

struct part {
	struct raid_group *g;
	uint64_t stripe;
	unsigned first, k, n_cols;
	struct list *pieces;
	bool fua, one_by_one; /* one_by_one: a window of one block after another has failed */
	uint32_t row_off_bytes, row_len_bytes; /* the window, in the strip */
	uint32_t cap_bytes;	 /* of each buffer */
	uint32_t bad, late;	 /* positions that could not be read; that did not answer in time */
	uint32_t there, current; /* positions as of the plan */
	bool all_parity;	 /* goes to the log, whatever is done in place */
	struct row *rows;
	struct seg *segs;
	unsigned n_segs;
	uint8_t *data[RAID_COLS_MAX]; /* by position: what the rows will hold */
	uint8_t *old[RAID_COLS_MAX];   /* what is to be replaced, to modify parity */
	bool modified, reconstructed;
};

static uint8_t *part_buf(const struct part *p, uint8_t **buf)
{
	if (!*buf)
		*buf = buf_alloc(p->cap_bytes);
	return *buf;
}

uint32_t stripe_log_rows(const struct raid_group *g)
{
	uint64_t rows = stripe_log_max_bytes(g->raid->log) / g->desc.n_cols;

	return (uint32_t)ALIGN_DOWN(MIN(rows, g->desc.strip_bytes), (uint64_t)g->raid->conf.block_bytes);
}

/* ---- what is to be written ---- */

/* Calls for each strip that a piece touches in the window: position, and bytes [*begin, *end) of the piece's group range. */
struct strip_walk {
	const struct part *p;
	const struct stripe_piece *piece;
	unsigned pos;
	uint32_t row_bytes;   /* in the window */
	uint64_t off_bytes, len_bytes; /* in the group */
};

static bool walk_next(struct strip_walk *w)
{
	const struct part *p = w->p;
	uint32_t strip = p->g->desc.strip_bytes;

	for (; w->pos < p->k; w->pos++) {
		uint64_t at = p->stripe * raid_stripe_bytes(p->g) + (uint64_t)w->pos * strip + p->row_off_bytes;
		uint64_t begin = MAX(at, w->piece->off_bytes);
		uint64_t end = MIN(at + p->row_len_bytes, w->piece->off_bytes + w->piece->len_bytes);

		if (begin >= end)
			continue;
		w->row_bytes = (uint32_t)(begin - at);
		w->off_bytes = begin;
		w->len_bytes = end - begin;
		return true;
	}
	return false;
}

/* Rows of the strips that the pieces touch. */
static void part_hull(const struct part *p, uint32_t *begin, uint32_t *end)
{
	struct part all = *p;
	struct stripe_piece *piece;

	all.row_off_bytes = 0;
	all.row_len_bytes = p->g->desc.strip_bytes;
	*begin = all.row_len_bytes;
	*end = 0;
	list_for_each(piece, p->pieces, link)
		for (struct strip_walk w = { .p = &all, .piece = piece }; walk_next(&w); w.pos++) {
			*begin = MIN(*begin, w.row_bytes);
			*end = MAX(*end, w.row_bytes + (uint32_t)w.len_bytes);
		}
}

/* Fills in the segments of the window; cuts it where they become too many for an append. */
static void part_segments(struct part *p)
{
	uint32_t block = p->g->raid->conf.block_bytes, n = p->row_len_bytes / block;
	struct stripe_piece *piece;
	struct seg *s = NULL;

	memset(p->rows, 0, n * sizeof(*p->rows));
	list_for_each(piece, p->pieces, link)
		for (struct strip_walk w = { .p = p, .piece = piece }; walk_next(&w); w.pos++)
			for (uint32_t i = 0; i < w.len_bytes / block; i++) {
				struct row *row = &p->rows[w.row_bytes / block + i];

				row->new |= 1U << w.pos;
				row->consistent |= (piece->parent->flags & IO_OVERWRITE) || MUTANT(FRESH_IS_OVERWRITE);
			}
	p->n_segs = 0;
	for (uint32_t i = 0; i < n; i++) {
		const struct row *row = &p->rows[i];

		if (s && s->off_bytes + s->len_bytes == i * block && s->new == row->new && s->consistent == row->consistent) {
			s->len_bytes += block;
			continue;
		}
		if (!row->new)
			continue;
		if (p->n_segs == STRIPE_LOG_ENTRIES_MAX) {
			p->row_len_bytes = i * block;
			return;
		}
		s = &p->segs[p->n_segs++];
		*s = (struct seg){ .off_bytes = i * block, .len_bytes = block, .new = row->new, .consistent = row->consistent };
	}
}

/* ---- how ---- */

static bool seg_plan(const struct part *p, struct seg *s, uint64_t there_cols)
{
	uint32_t data = stripe_data_mask(p->g), avail = p->current & ~p->bad, parity = p->current & ~data;
	uint32_t modify = s->new | parity;
	bool all_current = !(p->there & ~p->current) && !(there_cols >> p->n_cols) && !p->all_parity, can_modify;

	if (all_current && !(p->there & ~data)) {
		s->how = SEG_PLAIN;
		s->need = s->lost = 0;
		return true;
	}
	can_modify = s->consistent && all_current && parity && !(modify & ~avail);
	s->how = SEG_RECONSTRUCT;
	if (!stripe_plan(p->g, avail, data & ~s->new, &s->need, &s->lost)) {
		if (!can_modify)
			return false;
		s->how = SEG_MODIFY;
	} else if (can_modify && __builtin_popcount(modify) < __builtin_popcount(s->need)) {
		s->how = SEG_MODIFY;
	}
	if (s->how == SEG_MODIFY) {
		s->need = modify;
		s->lost = 0;
	}
	return true;
}

/* Parity that is not there will be, and by then has been computed anew. If an older entry which has it is replayed after that, ours
 * must have it as well. */
static bool parity_is_owed(const struct part *p)
{
	uint32_t parity = ((1ULL << p->n_cols) - 1) & ~stripe_data_mask(p->g);

	return (parity & ~p->current) && !MUTANT(LOST_PARITY_NOT_LOGGED) &&
	       stripe_log_is_live(p->g->raid->log, p->g->desc.group, p->stripe, 1);
}

static bool segs_plan(struct part *p, uint64_t there_cols)
{
	for (unsigned i = 0; i < p->n_segs; i++)
		if (!seg_plan(p, &p->segs[i], there_cols))
			return false;
	return true;
}

static bool part_plan(struct part *p)
{
	uint64_t there = stripe_there_cols(p->g);

	p->there = stripe_pos_mask(p->g, p->first, there);
	p->current = stripe_pos_mask(p->g, p->first, stripe_current_cols(p->g));
	p->all_parity = parity_is_owed(p);
	if (segs_plan(p, there))
		return true;
	if (!p->all_parity)
		return false;
	p->all_parity = false; /* it cannot be computed: then it can hardly be rebuilt either */
	return segs_plan(p, there);
}

/* ---- reading ---- */

static void part_drop(struct part *p, unsigned pos)
{
	buf_free(p->data[pos], p->cap_bytes);
	buf_free(p->old[pos], p->cap_bytes);
	p->data[pos] = p->old[pos] = NULL;
}

static uint64_t part_off(const struct part *p, const struct seg *s)
{
	return (p->stripe << p->g->strip_shift) + p->row_off_bytes + s->off_bytes;
}

/* Coroutine. True: all that was needed has been read. */
static bool part_co_read(struct part *p)
{
	uint64_t failed = 0, late = 0;
	struct stripe_legs l;

	stripe_legs_init(&l, p->g, IO_READ, 0, stripe_may_hedge(p->g) && !p->one_by_one);
	for (unsigned col = 0; col < p->n_cols; col++) {
		unsigned pos = stripe_pos_of(p->g, p->first, col);

		for (unsigned i = 0; i < p->n_segs; i++) {
			const struct seg *s = &p->segs[i];
			uint8_t **to = s->how == SEG_MODIFY && pos < p->k ? &p->old[pos] : &p->data[pos];

			if (s->need & (1U << pos))
				stripe_legs_add(&l, col, part_off(p, s), part_buf(p, to) + s->off_bytes, s->len_bytes);
		}
	}
	if (stripe_legs_co_run(&l))
		failed = stripe_legs_failed(&l, &late);
	stripe_legs_fini(&l);
	p->bad |= stripe_pos_mask(p->g, p->first, failed);
	p->late |= stripe_pos_mask(p->g, p->first, late);
	for (uint32_t m = stripe_pos_mask(p->g, p->first, late); m; m &= m - 1)
		part_drop(p, (unsigned)__builtin_ctz(m));
	return !failed;
}

/* ---- computing ---- */

static void seg_recover(struct part *p, const struct seg *s)
{
	void *v[RAID_COLS_MAX] = { NULL };

	for (unsigned pos = 0; pos < p->n_cols; pos++)
		if ((s->need | s->lost) & (1U << pos))
			v[pos] = part_buf(p, &p->data[pos]) + s->off_bytes;
	parity_recover(p->k, p->n_cols - p->k, s->len_bytes, v, s->lost);
}

static void part_fill(struct part *p)
{
	struct stripe_piece *piece;

	list_for_each(piece, p->pieces, link)
		for (struct strip_walk w = { .p = p, .piece = piece }; walk_next(&w); w.pos++)
			stripe_piece_copy(piece, w.off_bytes, w.len_bytes, part_buf(p, &p->data[w.pos]) + w.row_bytes);
}

static void seg_modify(struct part *p, const struct seg *s, uint8_t *scratch)
{
	uint8_t *par[2] = { NULL, NULL };

	for (unsigned i = 0; i < p->n_cols - p->k; i++)
		if (s->need & (1U << (p->k + i)))
			par[i] = p->data[p->k + i] + s->off_bytes;
	for (uint32_t m = s->new; m; m &= m - 1) {
		unsigned pos = (unsigned)__builtin_ctz(m);

		parity_update(pos, s->len_bytes, p->old[pos] + s->off_bytes, p->data[pos] + s->off_bytes, par[0], par[1], scratch);
	}
}

static void seg_generate(struct part *p, const struct seg *s)
{
	void *v[RAID_COLS_MAX];

	for (unsigned pos = 0; pos < p->n_cols; pos++)
		v[pos] = part_buf(p, &p->data[pos]) + s->off_bytes;
	parity_gen(p->k, p->n_cols - p->k, s->len_bytes, v);
}

static void part_compute(struct part *p)
{
	uint8_t *scratch = NULL;

	for (unsigned i = 0; i < p->n_segs; i++)
		if (p->segs[i].lost)
			seg_recover(p, &p->segs[i]);
	part_fill(p);
	for (unsigned i = 0; i < p->n_segs; i++) {
		const struct seg *s = &p->segs[i];

		if (s->how == SEG_MODIFY)
			seg_modify(p, s, part_buf(p, &scratch));
		else if (s->how == SEG_RECONSTRUCT)
			seg_generate(p, s);
		p->modified |= s->how == SEG_MODIFY;
		p->reconstructed |= s->how == SEG_RECONSTRUCT;
	}
	buf_free(scratch, p->cap_bytes);
}

/* ---- log and place ---- */

/* Columns that are current, but were not read: what was recovered for them need not be what they hold, if nothing was ever written in
 * these rows. Parity now says so: they are written too. */
static uint32_t seg_defined(const struct part *p, const struct seg *s)
{
	return s->consistent ? 0 : s->lost & p->bad & p->current;
}

/* Positions whose contents change; all that are known go to the log, wherever their disks are. */
static uint32_t seg_changed(const struct part *p, const struct seg *s)
{
	uint32_t parity = ((1ULL << p->n_cols) - 1) & ~stripe_data_mask(p->g);

	switch (s->how) {
	case SEG_MODIFY: return s->need;
	case SEG_RECONSTRUCT: return s->new | parity | seg_defined(p, s);
	case SEG_PLAIN: break;
	}
	return s->new;
}

/* Takes memory for e and iov; the payload stays where it is. */
static struct stripe_logged part_entries(const struct part *p)
{
	struct stripe_log_entry *e = xmalloc(p->n_segs * sizeof(*e));
	struct iovec *iov = xmalloc((size_t)p->n_segs * p->n_cols * sizeof(*iov));
	unsigned n_iov = 0;

	for (unsigned i = 0; i < p->n_segs; i++) {
		const struct seg *s = &p->segs[i];
		uint32_t changed = seg_changed(p, s);

		e[i] = (struct stripe_log_entry){ .group = p->g->desc.group, .stripe = p->stripe, .row_len_bytes = s->len_bytes,
						  .row_off_bytes = p->row_off_bytes + s->off_bytes };
		for (unsigned col = 0; col < p->n_cols; col++) {
			unsigned pos = stripe_pos_of(p->g, p->first, col);

			if (!(changed & (1U << pos)))
				continue;
			e[i].cols |= 1U << col;
			iov[n_iov++] = (struct iovec){ p->data[pos] + s->off_bytes, s->len_bytes };
		}
	}
	return (struct stripe_logged){ .e = e, .n = p->n_segs, .iov = iov, .iov_n = n_iov };
}

/* Is the column's content of the segment to be written? */
static bool seg_writes(const struct part *p, const struct seg *s, unsigned leg, unsigned pos)
{
	uint32_t bit = 1U << pos;

	if (seg_changed(p, s) & bit)
		return true;
	if (s->how != SEG_RECONSTRUCT)
		return false;
	return leg == p->n_cols || !(p->current & bit) || (p->bad & ~p->late & bit);
}

/* What was bad and has been rewritten, or not. */
static void part_report(const struct part *p, const struct stripe_legs *l)
{
	const struct raid_conf *c = &p->g->raid->conf;

	for (unsigned i = 0; i < l->n; i++) {
		const struct stripe_leg *leg = &l->legs[i];
		unsigned disk = p->g->desc.cols[leg->col].disk;

		if (leg->col == p->n_cols ||
		    !(p->bad & ~p->late & p->current & (1U << stripe_pos_of(p->g, p->first, leg->col))))
			continue;
		if (!leg->io.result)
			p->g->raid->stats.repaired++;
		c->hooks->read_repaired(c->ctx, disk, leg->io.off_bytes, leg->io.len_bytes, leg->io.result);
	}
}

static int part_co_place(const struct part *p, unsigned flags)
{
	struct raid_group *g = p->g;
	struct stripe_legs l;
	int r;

	stripe_legs_init(&l, g, IO_WRITE, flags, false);
	for (uint64_t cols = stripe_there_cols(g); cols; cols &= cols - 1) {
		unsigned leg = (unsigned)__builtin_ctzll(cols);
		unsigned pos = stripe_pos_of(g, p->first, leg < p->n_cols ? leg : (unsigned)g->target_col);

		for (unsigned i = 0; i < p->n_segs; i++)
			if (seg_writes(p, &p->segs[i], leg, pos))
				stripe_legs_add(&l, leg, part_off(p, &p->segs[i]), p->data[pos] + p->segs[i].off_bytes,
						p->segs[i].len_bytes);
	}
	r = stripe_legs_co_run(&l);
	part_report(p, &l);
	if (r)
		r = stripe_co_settle(&l);
	stripe_legs_fini(&l);
	return r;
}

static int part_co_write_logged(const struct part *p)
{
	struct stripe_logged a = part_entries(p);
	struct stripe_log_ticket t;
	int r = stripe_log_co_append(p->g->raid->log, a.e, a.n, a.iov, a.iov_n, &t);

	if (!r) {
		r = part_co_place(p, 0);
		stripe_redo_end(p->g, &a, &t, r);
	}
	xfree((void *)a.iov);
	xfree((void *)a.e);
	return r;
}

static int part_co_write(const struct part *p)
{
	struct raid_group *g = p->g;
	bool logged = p->segs[0].how != SEG_PLAIN || stripe_log_is_live(g->raid->log, g->desc.group, p->stripe, 1);

	if (logged && !MUTANT(STRIPE_LOG_SKIPPED))
		return part_co_write_logged(p);
	return stripe_unlogged(g, p->stripe, 1, part_co_place(p, p->fua ? IO_FUA : 0));
}

/* ---- windows ---- */

/* Coroutine. -ENODATA: too few columns of these rows can be read. */
static int part_co_window(struct part *p)
{
	int r;

	p->bad = p->late = 0;
	part_segments(p);
	if (!p->n_segs)
		return 0;
	do {
		r = raid_co_settle(p->g->raid);
		if (r)
			return r;
		if (!part_plan(p))
			return -ENODATA;
	} while (!part_co_read(p));
	part_compute(p);
	return part_co_write(p);
}

static int part_co_rows(struct part *p, uint32_t begin, uint32_t end, uint32_t step)
{
	uint32_t block = p->g->raid->conf.block_bytes;
	int r = 0;

	for (uint32_t row = begin; row < end && !r; row += p->row_len_bytes) {
		p->row_off_bytes = row;
		p->row_len_bytes = MIN(end - row, p->one_by_one ? block : step);
		r = part_co_window(p);
		if (r != -ENODATA)
			continue;
		r = p->row_len_bytes == block && p->one_by_one ? stripe_lost_error(p->g) : 0;
		p->one_by_one = true; /* from here on; columns with bad places in different rows have all data */
		p->row_len_bytes = 0;
	}
	return r;
}

int stripe_co_write_part(struct raid_group *g, uint64_t stripe, struct list *pieces)
{
	struct part *p = xcalloc(1, sizeof(*p));
	uint32_t begin, end, step, n;
	struct stripe_piece *piece;
	int r = -EOPNOTSUPP;

	p->g = g;
	p->stripe = stripe;
	p->first = stripe_first_col(g, stripe);
	p->k = g->data_cols;
	p->n_cols = g->desc.n_cols;
	p->pieces = pieces;
	list_for_each(piece, pieces, link)
		p->fua |= (piece->parent->flags & IO_FUA) != 0;
	part_hull(p, &begin, &end);
	step = MIN(stripe_log_rows(g), ROWS_BYTES);
	if (step) {
		p->cap_bytes = MIN(step, end - begin);
		n = p->cap_bytes / g->raid->conf.block_bytes;
		p->rows = xmalloc(n * sizeof(*p->rows));
		p->segs = xmalloc(MIN(n, STRIPE_LOG_ENTRIES_MAX) * sizeof(*p->segs));
		r = part_co_rows(p, begin, end, step);
	}
	g->raid->stats.stripes_rmw += p->modified;
	g->raid->stats.stripes_rcw += p->reconstructed && !p->modified;
	for (unsigned pos = 0; pos < p->n_cols; pos++)
		part_drop(p, pos);
	xfree(p->segs);
	xfree(p->rows);
	xfree(p);
	return r;
}
