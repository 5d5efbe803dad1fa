/*
 * Scrubbing parity layouts: all columns are read and parity is computed again.
 *
 * Runs of stripes whose columns all read and agree are done with that. In others each row that the range touches is looked at by
 * itself: what cannot be read is reconstructed and written, and what disagrees is reported, with the one column whose change
 * alone explains it if P and Q, both there, name one. Rows beside the range may hold anything, and are nobody's concern.
 */
#include <string.h>

#include "raid/stripe.h"

enum { ROW_GOOD = -3, ROW_LOST = -2, ROW_UNKNOWN = -1 }; /* else: the column that is wrong */

struct scrub {
	struct raid_group *g;
	struct raid_scrub *s;
	bool fix, force;
	int result;
	uint64_t off_bytes, end_bytes; /* the part of the range under the lock */
	struct stripe_range u;
	int8_t *rows; /* of one stripe */
	/* run of blocks being gathered for bad() */
	uint64_t run_off, run_len;
	int run_col;
};

static void scrub_run_end(struct scrub *c)
{
	if (c->run_len)
		c->s->bad(c->s->arg, c->run_off, c->run_len, c->run_col);
	c->run_len = 0;
}

static void scrub_run_add(struct scrub *c, uint64_t off_bytes, uint64_t len_bytes, int col)
{
	if (c->run_len && (c->run_off + c->run_len != off_bytes || c->run_col != col))
		scrub_run_end(c);
	if (!c->run_len) {
		c->run_off = off_bytes;
		c->run_col = col;
	}
	c->run_len += len_bytes;
}

/* Does every column that was read hold what it should? */
static bool sync_agrees(struct stripe_sync *s)
{
	for (uint64_t cols = s->valid; cols; cols &= cols - 1)
		for (unsigned i = 0; i < s->rows.n; i++)
			if (!stripe_sync_is_right(s, i, (unsigned)__builtin_ctzll(cols)))
				return false;
	return true;
}

/* The column that is wrong in a row of which all columns were read, or ROW_UNKNOWN. */
static int sync_locate(struct stripe_sync *s)
{
	struct raid_group *g = s->rows.g;
	unsigned first = stripe_first_col(g, s->rows.stripe), n = g->desc.n_cols;
	void *v[RAID_COLS_MAX];
	int pos;

	if (stripe_n_parity(g) < 2 || (unsigned)__builtin_popcountll(s->valid) < n)
		return ROW_UNKNOWN;
	for (unsigned i = 0; i < n; i++)
		v[i] = stripe_rows_at(&s->rows, 0, stripe_col_of(g, first, i));
	pos = parity_locate(g->data_cols, s->rows.row_len_bytes, v);
	return pos < 0 ? ROW_UNKNOWN : (int)stripe_col_of(g, first, (unsigned)pos);
}

/* Coroutine. Writes columns as they should be. */
static int scrub_co_write(struct scrub *c, struct stripe_sync *s, uint64_t cols)
{
	struct stripe_legs l;
	int r;

	stripe_legs_init(&l, c->g, IO_WRITE, 0, false);
	for (uint64_t m = cols; m; m &= m - 1) {
		unsigned col = (unsigned)__builtin_ctzll(m);

		stripe_legs_add(&l, col, stripe_rows_off(&s->rows, 0), stripe_sync_should(s, 0, col), s->rows.row_len_bytes);
	}
	r = stripe_legs_co_run(&l);
	if (r)
		r = stripe_unlogged(c->g, s->rows.stripe, 1, stripe_co_settle(&l));
	stripe_legs_fini(&l);
	return r;
}

/* Coroutine. Columns of the row that could not be read. */
static void row_co_rewrite(struct scrub *c, struct stripe_sync *s, bool solved)
{
	const struct raid_conf *conf = &c->g->raid->conf;
	uint32_t len = s->rows.row_len_bytes;

	for (uint64_t m = s->rows.bad & ~s->rows.late; m; m &= m - 1) {
		unsigned col = (unsigned)__builtin_ctzll(m);
		const struct raid_col *place = &c->g->desc.cols[col];
		int r;

		c->s->unreadable_bytes += len;
		if (!solved || !raid_col_is_current(c->g, col))
			continue;
		r = scrub_co_write(c, s, 1ULL << col);
		conf->hooks->read_repaired(conf->ctx, place->disk, place->off_bytes + stripe_rows_off(&s->rows, 0), len, r);
		if (r)
			continue;
		c->g->raid->stats.repaired++;
		c->s->repaired_bytes += len;
	}
}

/* Coroutine. A row that disagrees: the column that is wrong is computed from the others, or parity from the data. */
static int row_co_fix(struct scrub *c, struct stripe_sync *s, int col)
{
	struct stripe_sync again;
	uint64_t wrong = 0;
	int r;

	if (col == ROW_UNKNOWN) {
		if (!c->force)
			return -ENODATA;
		for (uint64_t m = s->valid; m; m &= m - 1)
			if (!stripe_sync_is_right(s, 0, (unsigned)__builtin_ctzll(m)))
				wrong |= m & -m;
		return scrub_co_write(c, s, wrong);
	}
	stripe_sync_init(&again, c->g, s->rows.stripe, 1, s->rows.row_off_bytes, s->rows.row_len_bytes);
	r = stripe_sync_co_load_without(&again, 1ULL << col);
	if (!r)
		r = scrub_co_write(c, &again, 1ULL << col);
	stripe_sync_fini(&again);
	return r;
}

/* Coroutine. One row of one stripe. */
static int scrub_co_row(struct scrub *c, uint64_t stripe, uint32_t row)
{
	struct stripe_sync s;
	int r, verdict = ROW_GOOD;

	stripe_sync_init(&s, c->g, stripe, 1, row, c->g->raid->conf.block_bytes);
	r = stripe_sync_co_load(&s, false);
	if (s.rows.bad)
		row_co_rewrite(c, &s, !r);
	if (r) {
		verdict = ROW_LOST;
		if (c->fix && !c->result)
			c->result = stripe_lost_error(c->g);
	} else if (!sync_agrees(&s)) {
		verdict = sync_locate(&s);
		r = c->fix ? row_co_fix(c, &s, verdict) : 0;
		if (r && !c->result)
			c->result = r;
	}
	stripe_sync_fini(&s);
	return verdict;
}

/* Part of the range in the stripe, strip by strip: which rows are touched, or, when all have been looked at, what is bad. */
static void scrub_walk(struct scrub *c, uint64_t stripe, bool report)
{
	uint64_t bytes = raid_stripe_bytes(c->g), block = c->g->raid->conf.block_bytes, begin, end;
	struct raid_place p;

	begin = MAX(c->off_bytes, stripe * bytes);
	end = MIN(c->end_bytes, (stripe + 1) * bytes);
	for (uint64_t off = begin; off < end; off += p.len_bytes) {
		uint64_t row;

		raid_place(&c->g->desc, off, end - off, &p);
		row = (p.col_off_bytes & (c->g->desc.strip_bytes - 1)) / block;
		for (uint64_t at = 0; at < p.len_bytes; at += block, row++)
			if (!report)
				c->rows[row] = ROW_UNKNOWN;
			else if (c->rows[row] != ROW_GOOD && c->rows[row] != ROW_LOST)
				scrub_run_add(c, off + at, block, c->rows[row]);
	}
}

static void scrub_co_stripe(struct scrub *c, uint64_t stripe)
{
	uint32_t block = c->g->raid->conf.block_bytes, n = c->g->desc.strip_bytes / block;

	c->rows = xmalloc(n);
	memset(c->rows, ROW_GOOD, n);
	scrub_walk(c, stripe, false);
	for (uint32_t i = 0; i < n; i++)
		if (c->rows[i] == ROW_UNKNOWN)
			c->rows[i] = (int8_t)scrub_co_row(c, stripe, i * block);
	if (!c->fix)
		scrub_walk(c, stripe, true);
	xfree(c->rows);
}

/* Coroutine. Locked: [off_bytes, end_bytes). */
static int scrub_co_part(struct scrub *c)
{
	struct stripe_sync s;
	int r;

	r = stripe_co_make_sync(c->g, c->u.stripe, c->u.n);
	if (r)
		return r;
	stripe_sync_init(&s, c->g, c->u.stripe, c->u.n, c->u.row_off_bytes, c->u.row_len_bytes);
	r = stripe_sync_co_load(&s, false);
	if (r || s.rows.bad || !sync_agrees(&s))
		r = 1;
	stripe_sync_fini(&s);
	for (unsigned i = 0; r == 1 && i < c->u.n; i++)
		scrub_co_stripe(c, c->u.stripe + i);
	return 0;
}

static int scrub_co_range(struct scrub *c, uint64_t off_bytes, uint64_t len_bytes)
{
	uint64_t end = off_bytes + len_bytes;
	struct raid_locks lk;
	int r = 0;

	if (stripe_n_lost(c->g) > stripe_n_parity(c->g))
		return -ERR_MISSING;
	for (; off_bytes < end && !r; off_bytes = c->end_bytes) {
		c->off_bytes = off_bytes;
		c->end_bytes = stripe_range_cut(c->g, off_bytes, end);
		stripe_range_rows(c->g, c->off_bytes, c->end_bytes, &c->u);
		stripe_co_lock(c->g, c->u.stripe, c->u.n, false, &lk);
		r = scrub_co_part(c);
		raid_unlock(&lk);
	}
	scrub_run_end(c);
	return r ? r : c->result;
}

int raid_parity_co_scrub(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, struct raid_scrub *s)
{
	struct scrub c = { .g = g, .s = s };

	return scrub_co_range(&c, off_bytes, len_bytes);
}

int raid_parity_co_scrub_fix(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, bool force)
{
	struct raid_scrub ignored = { 0 };
	struct scrub c = { .g = g, .s = &ignored, .fix = true, .force = force };

	return scrub_co_range(&c, off_bytes, len_bytes);
}
