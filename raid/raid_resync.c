/*
 * Making mirrors equal, and looking whether they are.
 *
 * Unit by unit, under the range lock: all copies are read at once and compared with the source, the first ONLINE one that
 * reads; only what differs is written, so a resync of equal columns costs reads alone. A unit that no ONLINE copy reads as
 * a whole is gone over block by block, and a block that none reads is left as it is (the columns agree: none has it); the
 * rest is still made equal, and the error returned at the end.
 */
#include <string.h>

#include "raid/raid_impl.h"

#define UNIT_BYTES (256U << 10)

struct unit {
	struct raid_group *g;
	struct raid_place p;
	unsigned n; /* copies read: by index in p.cols */
	bool used[RAID_COPIES_MAX], current[RAID_COPIES_MAX];
	uint8_t *buf[RAID_COPIES_MAX];
	struct io io[RAID_COPIES_MAX];
};

static void unit_init(struct unit *u, struct raid_group *g)
{
	u->g = g;
	for (unsigned i = 0; i < g->desc.copies; i++)
		u->buf[i] = buf_alloc(UNIT_BYTES);
}

static void unit_fini(struct unit *u)
{
	for (unsigned i = 0; i < u->g->desc.copies; i++)
		buf_free(u->buf[i], UNIT_BYTES);
}

/* Coroutine. Reads all copies of u->p, with the stale ones or without; results in io[].result. */
static void unit_co_read(struct unit *u, bool stale)
{
	struct raid_group *g = u->g;
	struct co_join j;

	co_join_init(&j);
	for (unsigned i = 0; i < u->p.n; i++) {
		unsigned col = u->p.cols[i];

		u->current[i] = raid_col_is_current(g, col);
		u->used[i] = u->current[i] || (stale && raid_col_is_there(g, col));
		if (!u->used[i])
			continue;
		io_prep(&u->io[i], IO_READ, g->desc.cols[col].off_bytes + u->p.col_off_bytes, u->p.len_bytes, u->buf[i], 0);
		bdev_submit_join(&raid_slot(g, col)->disk->bdev, &u->io[i], &j);
	}
	(void)co_join_wait(&j); /* each copy's own result is looked at */
}

/* First ONLINE copy that was read, -1: none. */
static int unit_source(const struct unit *u)
{
	for (unsigned i = 0; i < u->p.n; i++)
		if (u->used[i] && u->current[i] && u->io[i].result == 0)
			return (int)i;
	return -1;
}

/* Coroutine. Copies the source to the copies that differ, at once. Write errors: the pool decides. */
static int unit_co_write(struct unit *u, unsigned src, uint64_t *copied)
{
	const struct raid_conf *c = &u->g->raid->conf;
	uint32_t written = 0;
	struct co_join j;
	int r = 0;

	co_join_init(&j);
	for (unsigned i = 0; i < u->p.n; i++) {
		unsigned col = u->p.cols[i];

		if (i == src || !u->used[i] || !raid_col_is_there(u->g, col))
			continue;
		if (u->io[i].result == 0 && !memcmp(u->buf[i], u->buf[src], u->p.len_bytes))
			continue;
		written |= 1U << i;
		io_prep(&u->io[i], IO_WRITE, u->g->desc.cols[col].off_bytes + u->p.col_off_bytes, u->p.len_bytes,
			u->buf[src], 0);
		bdev_submit_join(&raid_slot(u->g, col)->disk->bdev, &u->io[i], &j);
	}
	(void)co_join_wait(&j);
	for (; written; written &= written - 1) {
		unsigned i = (unsigned)__builtin_ctz(written);
		int e = u->io[i].result;

		if (!e)
			*copied += u->p.len_bytes;
		else
			e = c->hooks->co_disk_error(c->ctx, u->g->desc.cols[u->p.cols[i]].disk, IO_WRITE, e);
		if (e && !r)
			r = e;
	}
	return r;
}

/* Coroutine. One range of a place, at most UNIT_BYTES. -ENODATA: no source reads it whole. */
static int unit_co_resync(struct unit *u, uint64_t *copied)
{
	int src;

	unit_co_read(u, true);
	src = unit_source(u);
	if (src >= 0)
		return unit_co_write(u, (unsigned)src, copied);
	for (unsigned i = 0; i < u->p.n; i++)
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

	unit_co_read(u, false);
	for (unsigned i = 0; i < u->p.n; i++)
		if (u->used[i] && u->io[i].result)
			return u->io[i].result;
	src = unit_source(u);
	if (src < 0)
		return -ERR_MISSING;
	for (unsigned i = 0; i < u->p.n; i++)
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

static int co_ranged(struct raid *r, uint64_t group, uint64_t off_bytes, uint64_t len_bytes, uint64_t *out, bool compare)
{
	struct raid_group *g;
	uint8_t epoch;
	int res = raid_group_co_hold(r, group, &g, &epoch);

	if (res)
		return res;
	if (len_bytes > g->desc.size_bytes || off_bytes > g->desc.size_bytes - len_bytes)
		res = -ERANGE;
	else if (!g->level->co_resync || !g->level->co_compare)
		res = -EOPNOTSUPP;
	else if (compare)
		res = g->level->co_compare(g, off_bytes, len_bytes, out);
	else
		res = g->level->co_resync(g, off_bytes, len_bytes, out);
	raid_group_release(g, epoch);
	return res;
}

int raid_co_resync_range(struct raid *r, uint64_t group, uint64_t off_bytes, uint64_t len_bytes, uint64_t *copied)
{
	uint64_t ignored = 0;

	if (!copied)
		copied = &ignored;
	*copied = 0;
	return co_ranged(r, group, off_bytes, len_bytes, copied, false);
}

int raid_co_compare_range(struct raid *r, uint64_t group, uint64_t off_bytes, uint64_t len_bytes, uint64_t *diff_off)
{
	uint64_t ignored;

	return co_ranged(r, group, off_bytes, len_bytes, diff_off ? diff_off : &ignored, true);
}
