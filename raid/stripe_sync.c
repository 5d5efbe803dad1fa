/*
 * Parity made right: resync, rebuild, replay of the log; and looking whether it is: compare.
 *
 * Everything goes stripe by stripe, in runs of stripes that make about 1 MiB, all columns at once. Rows that lack more columns
 * than there is parity, because of bad sectors, are tried block by block; what is lost then stays as it is, and the rest is
 * done.
 *
 * What is due in a stripe (stripe_redo.c) comes first, always.
 *
 * Resync and the log. A region is unsync while running when a write in place has failed, the pool has kept the disk, and
 * stripe_redo.c has not taken it (it was not logged, or that was one too many). The log may still have entries of its stripes,
 * live, and one of them may be the failed write, of which the client was told that it failed. A replay, one day, would bring it
 * back, under later entries that were computed without it. So where an entry is live, what a resync of an unsync stripe finds
 * is logged, all columns, before it is relied upon.
 */
#include <string.h>

#include "raid/stripe.h"

/* ---- rows as they are and as they should be ---- */

void stripe_sync_init(struct stripe_sync *s, struct raid_group *g, uint64_t stripe, unsigned n, uint32_t row_off_bytes,
		      uint32_t row_len_bytes)
{
	memset(s, 0, sizeof(*s));
	stripe_rows_init(&s->rows, g, stripe, n, row_off_bytes, row_len_bytes);
}

void stripe_sync_fini(struct stripe_sync *s)
{
	for (unsigned i = 0; i < RAID_COLS_MAX; i++)
		buf_free(s->fix[i], (size_t)s->rows.n * s->rows.row_len_bytes);
	stripe_rows_fini(&s->rows);
}

static uint8_t *sync_fix(struct stripe_sync *s, unsigned i, unsigned col)
{
	if (!s->fix[col])
		s->fix[col] = buf_alloc((size_t)s->rows.n * s->rows.row_len_bytes);
	return s->fix[col] + (size_t)i * s->rows.row_len_bytes;
}

uint8_t *stripe_sync_should(struct stripe_sync *s, unsigned i, unsigned col)
{
	struct raid_group *g = s->rows.g;
	unsigned pos;

	if (col == g->desc.n_cols)
		col = (unsigned)g->target_col;
	pos = stripe_pos_of(g, stripe_first_col(g, s->rows.stripe + i), col);
	return pos < g->data_cols && (s->valid & (1ULL << col)) ? stripe_rows_at(&s->rows, i, col) : sync_fix(s, i, col);
}

bool stripe_sync_is_right(struct stripe_sync *s, unsigned i, unsigned col)
{
	const uint8_t *is, *should;

	if (!(s->read & (1ULL << col)))
		return false;
	is = stripe_rows_at(&s->rows, i, col);
	should = stripe_sync_should(s, i, col);
	return is == should || !memcmp(is, should, s->rows.row_len_bytes);
}

/* What the data is, of stripe i, and what parity should be. */
static bool sync_solve(struct stripe_sync *s, unsigned i)
{
	struct raid_group *g = s->rows.g;
	unsigned first = stripe_first_col(g, s->rows.stripe + i), k = g->data_cols, n = g->desc.n_cols;
	void *v[RAID_COLS_MAX];
	uint32_t need, lost;

	if (!stripe_plan(g, stripe_pos_mask(g, first, s->valid), stripe_data_mask(g), &need, &lost))
		return false;
	for (unsigned pos = 0; pos < n; pos++) {
		unsigned col = stripe_col_of(g, first, pos);

		v[pos] = need & (1U << pos) ? stripe_rows_at(&s->rows, i, col) : sync_fix(s, i, col);
	}
	if (lost)
		parity_recover(k, n - k, s->rows.row_len_bytes, v, lost);
	for (unsigned pos = k; pos < n; pos++)
		v[pos] = sync_fix(s, i, stripe_col_of(g, first, pos));
	parity_gen(k, n - k, s->rows.row_len_bytes, v);
	return true;
}

static int sync_co_load(struct stripe_sync *s, uint64_t cols, uint64_t current)
{
	stripe_rows_co_read(&s->rows, cols, false);
	s->read = cols & ~s->rows.bad;
	s->valid = s->read & current;
	for (unsigned i = 0; i < s->rows.n; i++)
		if (!sync_solve(s, i))
			return -ENODATA;
	return 0;
}

int stripe_sync_co_load(struct stripe_sync *s, bool others)
{
	uint64_t current = stripe_current_cols(s->rows.g);

	return sync_co_load(s, others ? stripe_there_cols(s->rows.g) : current, current);
}

int stripe_sync_co_load_without(struct stripe_sync *s, uint64_t cols)
{
	uint64_t current = stripe_current_cols(s->rows.g) & ~cols;

	return sync_co_load(s, current, current);
}

/* ---- units ---- */

/* Does rows of n stripes; -ENODATA: try less at a time. */
typedef int (*unit_fn)(struct raid_group *g, uint64_t stripe, unsigned n, uint32_t row, uint32_t len, uint64_t *copied);

/* Coroutine. What is lost is an error in the end; any other error ends it. */
static int unit_co_blocks(struct raid_group *g, uint64_t stripe, uint32_t row, uint32_t len, unit_fn fn, uint64_t *copied)
{
	uint32_t block = g->raid->conf.block_bytes;
	int r = 0, e = 0;

	for (uint32_t done = 0; done < len && (!e || e == -EIO); done += block) {
		e = fn(g, stripe, 1, row + done, block, copied);
		if (e == -ENODATA)
			e = stripe_lost_error(g);
		if (e && !r)
			r = e;
	}
	return r;
}

/* Coroutine. n locked stripes, `rows` of them at a time. */
static int unit_co_stripes(struct raid_group *g, uint64_t stripe, unsigned n, uint32_t rows, unit_fn fn, uint64_t *copied)
{
	uint32_t strip = g->desc.strip_bytes, len;
	int r = 0, e;

	if (rows == strip && n > 1) {
		r = fn(g, stripe, n, 0, strip, copied);
		if (r != -ENODATA)
			return r;
		r = 0;
	}
	for (unsigned i = 0; i < n; i++)
		for (uint32_t row = 0; row < strip; row += len) {
			len = MIN(rows, strip - row);
			e = fn(g, stripe + i, 1, row, len, copied);
			if (e == -ENODATA)
				e = unit_co_blocks(g, stripe + i, row, len, fn, copied);
			if (e && !r)
				r = e;
			if (e && e != -EIO)
				return r;
		}
	return r;
}

/* ---- resync ---- */

/* Coroutine. Writes what differs. */
static int sync_co_write(struct stripe_sync *s, uint64_t *copied)
{
	struct raid_group *g = s->rows.g;
	struct stripe_legs l;
	int r;

	stripe_legs_init(&l, g, IO_WRITE, 0, false);
	for (uint64_t cols = stripe_there_cols(g); cols; cols &= cols - 1) {
		unsigned col = (unsigned)__builtin_ctzll(cols);

		for (unsigned i = 0; i < s->rows.n; i++)
			if (!stripe_sync_is_right(s, i, col))
				stripe_legs_add(&l, col, stripe_rows_off(&s->rows, i), stripe_sync_should(s, i, col),
						s->rows.row_len_bytes);
	}
	r = stripe_legs_co_run(&l);
	for (unsigned i = 0; i < l.n; i++)
		*copied += l.legs[i].io.result ? 0 : l.legs[i].io.len_bytes;
	if (r)
		r = stripe_co_settle(&l);
	stripe_legs_fini(&l);
	return r;
}

static int resync_co_unit(struct raid_group *g, uint64_t stripe, unsigned n, uint32_t row, uint32_t len, uint64_t *copied)
{
	struct stripe_sync s;
	int r;

	stripe_sync_init(&s, g, stripe, n, row, len);
	r = stripe_sync_co_load(&s, true);
	if (!r)
		r = stripe_unlogged(g, stripe, n, sync_co_write(&s, copied));
	stripe_sync_fini(&s);
	return r;
}

/* As resync_co_unit(), of one stripe, through the log. */
static int resync_co_logged(struct raid_group *g, uint64_t stripe, unsigned n, uint32_t row, uint32_t len, uint64_t *copied)
{
	struct stripe_log_entry e = { .group = g->desc.group, .stripe = stripe, .row_off_bytes = row, .row_len_bytes = len,
				      .cols = (uint32_t)((1ULL << g->desc.n_cols) - 1) };
	struct iovec iov[RAID_COLS_MAX];
	struct stripe_logged a = { .e = &e, .n = 1, .iov = iov, .iov_n = g->desc.n_cols };
	struct stripe_log_ticket t;
	struct stripe_sync s;
	int r = stripe_redo_co_stripes(g, stripe, 1); /* other rows of it may just have failed */

	CHECK(n == 1);
	if (r)
		return r;
	stripe_sync_init(&s, g, stripe, 1, row, len);
	r = stripe_sync_co_load(&s, true);
	if (r)
		goto out;
	for (unsigned col = 0; col < g->desc.n_cols; col++)
		iov[col] = (struct iovec){ stripe_sync_should(&s, 0, col), len };
	r = stripe_log_co_append(g->raid->log, &e, 1, iov, g->desc.n_cols, &t);
	if (r)
		goto out;
	r = sync_co_write(&s, copied);
	stripe_redo_end(g, &a, &t, r);
out:
	stripe_sync_fini(&s);
	return r;
}

static int resync_co_stripes(struct raid_group *g, uint64_t stripe, unsigned n, uint64_t *copied)
{
	uint32_t rows = stripe_sync_rows(g);
	struct stripe_log *log = g->raid->log;
	int r = stripe_redo_co_stripes(g, stripe, n);

	if (r)
		return r;
	if (stripe_n_lost(g) > stripe_n_parity(g))
		return -ERR_MISSING;
	if (!log || !(g->unsync & stripe_regions(g, stripe, n)) || !stripe_log_is_live(log, g->desc.group, stripe, n))
		return unit_co_stripes(g, stripe, n, rows, resync_co_unit, copied);
	rows = MIN(rows, stripe_log_rows(g));
	for (unsigned i = 0; i < n && !r; i++)
		r = rows ? unit_co_stripes(g, stripe + i, 1, rows, resync_co_logged, copied) : -EOPNOTSUPP;
	return r;
}

/* A write in the regions of the stripes has failed in place, one too many, and a column is lost: only its log entry, at the next opening, can
 * tell what the lost column's rows should be. Nothing there may be read or believed before. */
static bool sync_is_hopeless(const struct raid_group *g, uint64_t stripe, unsigned n)
{
	return (g->unsync & stripe_regions(g, stripe, n)) && g->raid->log && stripe_log_keeps(g->raid->log) && stripe_n_lost(g);
}

int stripe_co_make_sync(struct raid_group *g, uint64_t stripe, unsigned n)
{
	uint64_t ignored = 0;
	int r = stripe_redo_co_stripes(g, stripe, n);

	if (r || likely(!(g->unsync & stripe_regions(g, stripe, n))))
		return r;
	return sync_is_hopeless(g, stripe, n) ? -EIO : resync_co_stripes(g, stripe, n, &ignored);
}

/* ---- rebuild ---- */

static int rebuild_co_unit(struct raid_group *g, uint64_t stripe, unsigned n, uint32_t row, uint32_t len, uint64_t *copied)
{
	unsigned from = (unsigned)g->target_col, to = g->desc.n_cols;
	uint32_t *want = xmalloc(n * sizeof(*want));
	struct stripe_rows s;
	struct stripe_legs l;
	int r;

	stripe_rows_init(&s, g, stripe, n, row, len);
	stripe_legs_init(&l, g, IO_WRITE, 0, false);
	for (unsigned i = 0; i < n; i++)
		want[i] = 1U << stripe_pos_of(g, stripe_first_col(g, stripe + i), from);
	r = stripe_rows_co_obtain(&s, want, true, false);
	if (r)
		goto out;
	stripe_legs_add(&l, to, stripe_rows_off(&s, 0), stripe_rows_at(&s, 0, from), (uint64_t)n * len);
	r = raid_col_is_there(g, to) ? stripe_legs_co_run(&l) : -ERR_MISSING;
	if (!r)
		*copied += (uint64_t)n * len;
	else if (r != -ERR_MISSING)
		r = stripe_unlogged(g, stripe, n, stripe_co_settle(&l));
out:
	stripe_legs_fini(&l);
	stripe_rows_fini(&s);
	xfree(want);
	return r ? r : g->target_error;
}

static int rebuild_co_stripes(struct raid_group *g, uint64_t stripe, unsigned n, uint64_t *copied)
{
	int r = stripe_co_make_sync(g, stripe, n);

	if (!r && stripe_n_lost(g) > stripe_n_parity(g))
		r = -ERR_MISSING;
	return r ? r : unit_co_stripes(g, stripe, n, stripe_sync_rows(g), rebuild_co_unit, copied);
}

/* ---- ranges of whole stripes ---- */

static int range_co_each(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, uint64_t *copied,
			 int (*fn)(struct raid_group *g, uint64_t stripe, unsigned n, uint64_t *copied))
{
	uint64_t bytes = raid_stripe_bytes(g), end = DIV_UP(off_bytes + len_bytes, bytes);
	struct raid_locks lk;
	int r = 0, e;
	unsigned n;

	for (uint64_t stripe = off_bytes / bytes; stripe < end; stripe += n) {
		n = (unsigned)MIN(stripe_sync_run(g), end - stripe);
		stripe_co_lock(g, stripe, n, false, &lk);
		e = fn(g, stripe, n, copied);
		raid_unlock(&lk);
		if (e && !r)
			r = e;
		if (e && e != -EIO)
			break;
	}
	return r;
}

int raid_parity_co_resync(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, uint64_t *copied)
{
	uint64_t bytes = raid_stripe_bytes(g), first = off_bytes / bytes;

	if (sync_is_hopeless(g, first, (unsigned)(DIV_UP(off_bytes + len_bytes, bytes) - first)))
		return -EIO;
	return range_co_each(g, off_bytes, len_bytes, copied, resync_co_stripes);
}

int raid_parity_co_rebuild(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, uint64_t *copied)
{
	int r = range_co_each(g, off_bytes, len_bytes, copied, rebuild_co_stripes);

	return r ? r : g->target_error;
}

/* ---- compare ---- */

/* First byte of the strip's part that lies in a row whose parity is not what it should be: offset in it, or its length. */
static uint64_t compare_strip(struct stripe_sync *s, const struct raid_place *p)
{
	struct raid_group *g = s->rows.g;
	unsigned i = (unsigned)((p->col_off_bytes >> g->strip_shift) - s->rows.stripe);
	unsigned first = stripe_first_col(g, s->rows.stripe + i);
	uint64_t from = p->col_off_bytes - stripe_rows_off(&s->rows, i), at = p->len_bytes;

	for (unsigned pos = g->data_cols; pos < g->desc.n_cols; pos++) {
		unsigned col = stripe_col_of(g, first, pos);
		const uint8_t *is, *should;

		if (!(s->valid & (1ULL << col)) || stripe_sync_is_right(s, i, col))
			continue;
		is = stripe_rows_at(&s->rows, i, col) + from;
		should = stripe_sync_should(s, i, col) + from;
		for (uint64_t b = 0; b < at; b++)
			if (is[b] != should[b])
				at = b;
	}
	return at;
}

/* Coroutine. A range that stripe_range_cut() gave. 1: different, from *diff_off on. */
static int compare_co_run(struct raid_group *g, uint64_t off_bytes, uint64_t end_bytes, uint64_t *diff_off)
{
	struct stripe_range u;
	struct raid_locks lk;
	struct raid_place p;
	struct stripe_sync s;
	int r;

	stripe_range_rows(g, off_bytes, end_bytes, &u);
	stripe_sync_init(&s, g, u.stripe, u.n, u.row_off_bytes, u.row_len_bytes);
	stripe_co_lock_redone(g, u.stripe, u.n, &lk);
	r = stripe_redo_co_stripes(g, u.stripe, u.n);
	if (!r)
		r = stripe_sync_co_load(&s, false);
	raid_unlock(&lk);
	if (s.rows.bad || r)
		r = stripe_lost_error(g);
	for (uint64_t off = off_bytes; off < end_bytes && !r; off += p.len_bytes) {
		uint64_t at;

		raid_place(&g->desc, off, end_bytes - off, &p);
		at = compare_strip(&s, &p);
		if (at < p.len_bytes) {
			*diff_off = off + at;
			r = 1;
		}
	}
	stripe_sync_fini(&s);
	return r;
}

int raid_parity_co_compare(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, uint64_t *diff_off)
{
	uint64_t end = off_bytes + len_bytes, next;
	int r = 0;

	for (; off_bytes < end && !r; off_bytes = next) {
		next = stripe_range_cut(g, off_bytes, end);
		r = compare_co_run(g, off_bytes, next, diff_off);
	}
	return r;
}

/* ---- replay ---- */

static bool replay_is_sane(const struct raid_group *g, const struct stripe_log_entry *e)
{
	uint64_t strip = g->desc.strip_bytes, block = g->raid->conf.block_bytes;

	return g->parity && !g->away && e->stripe < stripe_n_stripes(g) && e->row_len_bytes &&
	       (uint64_t)e->row_off_bytes + e->row_len_bytes <= strip && IS_ALIGNED(e->row_off_bytes | e->row_len_bytes, block) &&
	       e->cols && !(e->cols & ~((1ULL << g->desc.n_cols) - 1));
}

/* Coroutine, stripe locked. The columns lie in buf one after the other. */
static int replay_co_write(struct raid_group *g, const struct stripe_log_entry *e, uint8_t *buf)
{
	struct stripe_legs l;
	int r;

	stripe_legs_init(&l, g, IO_WRITE, 0, false);
	for (uint64_t cols = stripe_there_cols(g); cols; cols &= cols - 1)
		stripe_legs_add_entry(&l, (unsigned)__builtin_ctzll(cols), e, buf);
	r = stripe_legs_co_run(&l);
	if (r)
		r = stripe_unlogged(g, e->stripe, 1, stripe_co_settle(&l));
	stripe_legs_fini(&l);
	if (!r && stripe_n_lost(g) > stripe_n_parity(g))
		r = -ERR_MISSING; /* what is there has it */
	return r;
}

int raid_co_replay(struct raid *r, const struct stripe_log_entry *e, const void *payload)
{
	size_t len = (size_t)e->row_len_bytes * (unsigned)__builtin_popcount(e->cols);
	struct raid_group *g;
	struct raid_locks lk;
	uint8_t epoch, *buf;
	int res = raid_group_co_hold(r, e->group, &g, &epoch);

	if (res)
		return res;
	if (!replay_is_sane(g, e)) {
		res = -ERR_FORMAT;
		goto out;
	}
	buf = buf_alloc(len); /* disks want more alignment than the log gives */
	memcpy(buf, payload, len);
	stripe_co_lock(g, e->stripe, 1, false, &lk);
	res = replay_co_write(g, e, buf);
	raid_unlock(&lk);
	buf_free(buf, len);
out:
	raid_group_release(g, epoch);
	return res;
}
