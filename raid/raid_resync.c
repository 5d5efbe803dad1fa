/*
 * Making mirrors equal, filling a target, and looking whether copies agree.
 *
 * Unit by unit, under the range lock: all copies are read at once and compared with the source, the first ONLINE one that
 * reads; only what differs is written, so a resync of equal columns costs reads alone. A unit that no ONLINE copy reads as
 * a whole is gone over block by block, and a block that none reads is left as it is (the columns agree: none has it); the
 * rest is still made equal, and the error returned at the end. A target is one more column that differs; filling it reads one
 * copy alone.
 */
#include <string.h>

#include "raid/raid_impl.h"

#define UNIT_BYTES (256U << 10)

struct unit {
	struct raid_group *g;
	struct raid_place p;
	unsigned n; /* p.n, and one for the target if it belongs to the place */
	uint8_t cols[RAID_COPIES_MAX + 1];
	bool used[RAID_COPIES_MAX + 1], current[RAID_COPIES_MAX + 1];
	uint8_t *buf[RAID_COPIES_MAX + 1];
	struct io io[RAID_COPIES_MAX + 1];
};

static void unit_init(struct unit *u, struct raid_group *g)
{
	u->g = g;
	for (unsigned i = 0; i <= RAID_COPIES_MAX; i++)
		u->buf[i] = i < g->desc.copies || g->target_col >= 0 ? buf_alloc(UNIT_BYTES) : NULL;
}

static void unit_fini(struct unit *u)
{
	for (unsigned i = 0; i <= RAID_COPIES_MAX; i++)
		buf_free(u->buf[i], UNIT_BYTES);
}

/* Coroutine. Reads all copies of u->p, with the stale ones or without; results in io[].result. */
static void unit_co_read(struct unit *u, bool stale, unsigned flags)
{
	struct raid_group *g = u->g;
	struct co_join j;

	co_join_init(&j);
	for (unsigned i = 0; i < u->n; i++) {
		unsigned col = u->cols[i];

		u->current[i] = raid_col_is_current(g, col);
		u->used[i] = u->current[i] || (stale && raid_col_is_there(g, col));
		if (!u->used[i])
			continue;
		io_prep(&u->io[i], IO_READ, g->desc.cols[col].off_bytes + u->p.col_off_bytes, u->p.len_bytes, u->buf[i], 0);
		raid_disk_submit_join(g->raid, g->desc.cols[col].disk, &u->io[i], &j, RAID_LEG_DIRECT | flags);
	}
	(void)co_join_wait(&j); /* each copy's own result is looked at */
	for (unsigned i = 0; i < u->n; i++)
		if (u->used[i] && u->io[i].result == -ETIMEDOUT) { /* the disk may still write there */
			buf_free(u->buf[i], UNIT_BYTES);
			u->buf[i] = buf_alloc(UNIT_BYTES);
		}
}

/* First ONLINE copy that was read, -1: none. */
static int unit_source(const struct unit *u)
{
	for (unsigned i = 0; i < u->n; i++)
		if (u->used[i] && u->current[i] && u->io[i].result == 0)
			return (int)i;
	return -1;
}

/* Coroutine. Copies the source to the copies that differ, at once. Write errors: the pool decides. */
static int unit_co_write(struct unit *u, unsigned src, uint64_t *copied)
{
	struct raid_outcome o = { 0 };
	struct raid_group *g = u->g;
	uint32_t written = 0;
	struct co_join j;

	co_join_init(&j);
	for (unsigned i = 0; i < u->n; i++) {
		unsigned col = u->cols[i];

		if (i == src || !u->used[i] || !raid_col_is_there(g, col))
			continue;
		if (u->io[i].result == 0 && !memcmp(u->buf[i], u->buf[src], u->p.len_bytes))
			continue;
		written |= 1U << i;
		io_prep(&u->io[i], IO_WRITE, g->desc.cols[col].off_bytes + u->p.col_off_bytes, u->p.len_bytes, u->buf[src], 0);
		raid_disk_submit_join(g->raid, g->desc.cols[col].disk, &u->io[i], &j, false);
	}
	if (!co_join_wait(&j)) {
		*copied += (uint64_t)__builtin_popcount(written) * u->p.len_bytes;
		return 0;
	}
	for (; written; written &= written - 1) {
		unsigned i = (unsigned)__builtin_ctz(written);

		raid_outcome_add(&o, u->cols[i], u->io[i].result);
		if (!u->io[i].result)
			*copied += u->p.len_bytes;
	}
	return raid_co_ask_pool(g, IO_WRITE, &o);
}

/* Coroutine. One range of a place, at most UNIT_BYTES. -ENODATA: no source reads it whole. */
static int unit_co_resync(struct unit *u, uint64_t *copied)
{
	int src;

	unit_co_read(u, true, RAID_LEG_CHECK_ZEROS | RAID_LEG_HEDGE);
	src = unit_source(u);
	if (src < 0) { /* with patience */
		unit_co_read(u, true, RAID_LEG_CHECK_ZEROS);
		src = unit_source(u);
	}
	if (src >= 0)
		return unit_co_write(u, (unsigned)src, copied);
	for (unsigned i = 0; i < u->n; i++)
		if (u->used[i] && u->current[i])
			return -ENODATA;
	return -ERR_MISSING;
}

static int unit_co_resync_blocks(struct unit *u, uint64_t *copied)
{
	uint64_t block = u->g->raid->conf.block_bytes, left = u->p.len_bytes;
	int r = 0, e;

	u->p.len_bytes = block;
	for (; left; left -= block, u->p.col_off_bytes += block) {
		e = unit_co_resync(u, copied);
		if (e == -ENODATA)
			e = -EIO;
		if (e && !r)
			r = e;
		if (e && e != -EIO)
			break;
	}
	return r;
}

/* Locks and places the next unit of the range; false at its end. */
static uint64_t unit_co_begin(struct unit *u, uint64_t off_bytes, uint64_t end_bytes, bool shared, struct raid_locks *lk)
{
	raid_locate(u->g, off_bytes, MIN(end_bytes - off_bytes, UNIT_BYTES), &u->p);
	u->n = u->p.n;
	memcpy(u->cols, u->p.cols, u->p.n);
	if (raid_place_has_target(u->g, &u->p))
		u->cols[u->n++] = u->g->desc.n_cols;
	raid_co_lock(u->g, off_bytes, u->p.len_bytes, shared, lk);
	return u->p.len_bytes;
}

int raid_mirror_co_resync(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, uint64_t *copied)
{
	uint64_t end = off_bytes + len_bytes, len;
	struct raid_locks lk;
	struct unit u;
	int r = 0, e;

	if (!g->redundant)
		return 0;
	unit_init(&u, g);
	for (; off_bytes < end; off_bytes += len) {
		len = unit_co_begin(&u, off_bytes, end, false, &lk);
		e = unit_co_resync(&u, copied);
		if (e == -ENODATA)
			e = unit_co_resync_blocks(&u, copied);
		raid_unlock(&lk);
		if (e && !r)
			r = e;
		if (e && e != -EIO)
			break;
	}
	unit_fini(&u);
	return r;
}

/* First difference between the ONLINE copies of the unit: offset in it, or len_bytes. Negative: a copy was not read. */
static int64_t unit_co_compare(struct unit *u)
{
	uint64_t at = u->p.len_bytes;
	int src;

	unit_co_read(u, false, RAID_LEG_CHECK_ZEROS);
	for (unsigned i = 0; i < u->n; i++)
		if (u->used[i] && u->io[i].result)
			return u->io[i].result;
	src = unit_source(u);
	if (src < 0)
		return -ERR_MISSING;
	for (unsigned i = 0; i < u->n; i++)
		for (uint64_t b = 0; u->used[i] && b < at; b++)
			if (u->buf[i][b] != u->buf[src][b])
				at = b;
	return (int64_t)at;
}

int raid_mirror_co_compare(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, uint64_t *diff_off)
{
	uint64_t end = off_bytes + len_bytes, len;
	struct raid_locks lk;
	struct unit u;
	int64_t at = 0;
	int r = 0;

	if (!g->redundant)
		return 0;
	unit_init(&u, g);
	for (; off_bytes < end && !r; off_bytes += len) {
		len = unit_co_begin(&u, off_bytes, end, true, &lk);
		at = unit_co_compare(&u);
		raid_unlock(&lk);
		if (at < 0) {
			r = (int)at;
		} else if ((uint64_t)at < len) {
			*diff_off = off_bytes + (uint64_t)at;
			r = 1;
		}
	}
	unit_fini(&u);
	return r;
}

/* ---- filling a target ---- */

/* Coroutine. Writes buf[0] to the target (the last of u->cols). */
static int unit_co_fill_write(struct unit *u, uint64_t *copied)
{
	struct raid_group *g = u->g;
	unsigned col = g->desc.n_cols;
	struct raid_outcome o = { 0 };

	if (!raid_col_is_there(g, col)) { /* it has gone while we read */
		raid_target_failed(g, -ENODEV);
		return -ENODEV;
	}
	io_prep(&u->io[0], IO_WRITE, g->desc.cols[col].off_bytes + u->p.col_off_bytes, u->p.len_bytes, u->buf[0], 0);
	raid_outcome_add(&o, col, raid_disk_co_submit(g->raid, g->desc.cols[col].disk, &u->io[0], false));
	if (!o.error[col]) {
		*copied += u->p.len_bytes;
		return 0;
	}
	raid_target_failed(g, o.error[col]);
	return raid_co_ask_pool(g, IO_WRITE, &o);
}

/* Which copy to read first: the one that moves, as long as it is there. If it were another one, and that one silently wrong, the
 * last right one might be given up for it. */
static unsigned fill_source(const struct unit *u)
{
	for (unsigned i = 0; i < u->p.n; i++)
		if (u->p.cols[i] == u->g->target_col && raid_col_is_current(u->g, u->p.cols[i]))
			return i;
	return raid_default_copy(u->g, &u->p);
}

/* Is this copy waited for, be its disk slow? Where somebody can tell, it may be the last right one. */
static bool fill_waits_for(const struct raid_group *g, unsigned col)
{
	return g->checksummed && col == (unsigned)g->target_col;
}

/* Coroutine. Reads u->p from the first current copy that gives it; slow disks when no other does. */
static int unit_co_fill_read(struct unit *u)
{
	struct raid_group *g = u->g;
	unsigned first = fill_source(u);
	int r = -ERR_MISSING;
	bool late = false;

	for (unsigned k = 0; k < 2 * u->p.n; k++) {
		unsigned i = (first + k) % u->p.n, col = u->p.cols[i], disk = g->desc.cols[col].disk;
		bool again = k >= u->p.n, patient = again || fill_waits_for(g, col);

		if (!raid_col_is_current(g, col) || (again && !late))
			continue;
		if (!patient && raid_disk_is_slow(g->raid, disk)) {
			late = true;
			continue;
		}
		io_prep(&u->io[0], IO_READ, g->desc.cols[col].off_bytes + u->p.col_off_bytes, u->p.len_bytes, u->buf[0], 0);
		r = raid_disk_co_submit(g->raid, disk, &u->io[0], RAID_LEG_CHECK_ZEROS | (patient ? 0 : RAID_LEG_HEDGE));
		if (!r)
			break;
		late |= r == -ETIMEDOUT;
	}
	return r;
}

static int unit_co_fill(struct unit *u, uint64_t *copied)
{
	uint64_t block = u->g->raid->conf.block_bytes, left = u->p.len_bytes;
	int r = unit_co_fill_read(u), e;

	if (!r)
		return unit_co_fill_write(u, copied);
	if (r == -ERR_MISSING)
		return r;
	u->p.len_bytes = block;
	for (r = 0; left; left -= block, u->p.col_off_bytes += block) {
		e = unit_co_fill_read(u);
		if (!e)
			e = unit_co_fill_write(u, copied);
		if (e && !r)
			r = e; /* no copy has this block: never zeros in its place */
	}
	return r;
}

int raid_mirror_co_rebuild(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, uint64_t *copied)
{
	uint64_t end = off_bytes + len_bytes, len;
	struct raid_locks lk;
	struct unit u;
	int r = 0, e;

	unit_init(&u, g);
	for (; off_bytes < end && !g->target_error; off_bytes += len) {
		len = unit_co_begin(&u, off_bytes, end, false, &lk);
		e = u.n > u.p.n ? unit_co_fill(&u, copied) : 0;
		raid_unlock(&lk);
		if (e && !r)
			r = e;
	}
	unit_fini(&u);
	return r ? r : g->target_error;
}
