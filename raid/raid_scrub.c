/*
 * Scrubbing mirrors: every copy is read, what cannot be read is rewritten from one that can, and copies that disagree are
 * reported block by block. With three copies a majority says which is wrong; with two nothing does, and nothing is changed
 * unless the caller insists (raid_co_scrub_fix()).
 */
#include <string.h>

#include "raid/raid_impl.h"

#define UNIT_BYTES (256U << 10)

struct scrub_unit {
	struct raid_group *g;
	struct raid_scrub *s;
	struct raid_place p;
	uint64_t off_bytes; /* in the group */
	uint32_t read;	    /* copies of p.cols that are current and were read whole */
	uint32_t failed;    /* current, and not read */
	uint8_t *buf[RAID_COPIES_MAX];
	struct io io[RAID_COPIES_MAX];
	/* run of blocks being gathered for bad() */
	uint64_t run_off, run_len;
	int run_col;
};

static void scrub_run_end(struct scrub_unit *u)
{
	if (u->run_len)
		u->s->bad(u->s->arg, u->run_off, u->run_len, u->run_col);
	u->run_len = 0;
}

static void scrub_run_add(struct scrub_unit *u, uint64_t off_bytes, uint64_t len_bytes, int col)
{
	if (u->run_len && (u->run_off + u->run_len != off_bytes || u->run_col != col))
		scrub_run_end(u);
	if (!u->run_len) {
		u->run_off = off_bytes;
		u->run_col = col;
	}
	u->run_len += len_bytes;
}

static void scrub_co_read(struct scrub_unit *u)
{
	struct raid_group *g = u->g;
	struct co_join j;

	u->read = u->failed = 0;
	co_join_init(&j);
	for (unsigned i = 0; i < u->p.n; i++) {
		unsigned col = u->p.cols[i];

		if (!raid_col_is_current(g, col))
			continue;
		u->read |= 1U << i;
		io_prep(&u->io[i], IO_READ, g->desc.cols[col].off_bytes + u->p.col_off_bytes, u->p.len_bytes, u->buf[i], 0);
		raid_disk_submit_join(g->raid, g->desc.cols[col].disk, &u->io[i], &j, RAID_LEG_CHECK_ZEROS);
	}
	(void)co_join_wait(&j); /* each copy's own result is looked at */
	for (unsigned i = 0; i < u->p.n; i++)
		if ((u->read & (1U << i)) && u->io[i].result) {
			u->read &= ~(1U << i);
			u->failed |= 1U << i;
		}
}

/* The index of the copy that differs from a majority at this block; -1: all agree; -2: they do not, and nothing tells. */
static int scrub_block(const struct scrub_unit *u, uint64_t at, uint64_t block)
{
	unsigned n = (unsigned)__builtin_popcount(u->read), votes[RAID_COPIES_MAX] = { 0 };

	if (n < 2)
		return -1;
	for (unsigned i = 0; i < u->p.n; i++)
		for (unsigned k = 0; k < u->p.n; k++)
			if ((u->read & (1U << i)) && (u->read & (1U << k)))
				votes[i] += !memcmp(u->buf[i] + at, u->buf[k] + at, block);
	for (unsigned i = 0; i < u->p.n; i++)
		if ((u->read & (1U << i)) && votes[i] == n)
			return -1;
	for (unsigned i = 0; n > 2 && i < u->p.n; i++)
		if ((u->read & (1U << i)) && votes[i] == 1)
			for (unsigned k = 0; k < u->p.n; k++)
				if (votes[k] == n - 1)
					return (int)i;
	return -2;
}

/* Coroutine. Writes copy src of [at, at + len) of the unit to copy dst. */
static int scrub_co_copy(struct scrub_unit *u, unsigned src, unsigned dst, uint64_t at, uint64_t len)
{
	struct raid_group *g = u->g;
	const struct raid_conf *c = &g->raid->conf;
	const struct raid_col *col = &g->desc.cols[u->p.cols[dst]];
	uint64_t off = col->off_bytes + u->p.col_off_bytes + at;
	int r;

	if (!raid_col_is_there(g, u->p.cols[dst]))
		return -ENODEV;
	io_prep(&u->io[dst], IO_WRITE, off, len, u->buf[src] + at, 0);
	r = raid_disk_co_submit(g->raid, col->disk, &u->io[dst], false);
	c->hooks->read_repaired(c->ctx, col->disk, off, len, r);
	if (!r)
		g->raid->stats.repaired++;
	else
		r = c->hooks->co_disk_error(c->ctx, col->disk, IO_WRITE, r);
	return r;
}

/* Coroutine. A copy that was not read as a whole: block by block, from any copy that has the block. */
static void scrub_co_repair(struct scrub_unit *u, unsigned i)
{
	struct raid_group *g = u->g;
	uint64_t block = g->raid->conf.block_bytes;
	unsigned col = u->p.cols[i];

	for (uint64_t at = 0; at < u->p.len_bytes; at += block) {
		unsigned k;

		if (!raid_col_is_current(g, col) || u->io[i].result == -ETIMEDOUT)
			return;
		io_prep(&u->io[i], IO_READ, g->desc.cols[col].off_bytes + u->p.col_off_bytes + at, block, u->buf[i] + at, 0);
		if (!raid_disk_co_submit(g->raid, g->desc.cols[col].disk, &u->io[i], RAID_LEG_CHECK_ZEROS))
			continue;
		u->s->unreadable_bytes += block;
		for (k = 0; k < u->p.n && !(u->read & (1U << k)); k++)
			;
		if (k < u->p.n && !scrub_co_copy(u, k, i, at, block)) {
			memcpy(u->buf[i] + at, u->buf[k] + at, block);
			u->s->repaired_bytes += block;
		}
	}
	u->read |= u->read ? 1U << i : 0;
}

static void scrub_init(struct scrub_unit *u, struct raid_group *g, struct raid_scrub *s)
{
	memset(u, 0, sizeof(*u));
	u->g = g;
	u->s = s;
	for (unsigned i = 0; i < g->desc.copies; i++)
		u->buf[i] = buf_alloc(UNIT_BYTES);
}

static void scrub_fini(struct scrub_unit *u)
{
	for (unsigned i = 0; i < u->g->desc.copies; i++)
		buf_free(u->buf[i], UNIT_BYTES);
	xfree(u);
}

static void scrub_co_unit(struct scrub_unit *u)
{
	uint64_t block = u->g->raid->conf.block_bytes;

	scrub_co_read(u);
	for (unsigned i = 0; i < u->p.n; i++)
		if (u->failed & (1U << i))
			scrub_co_repair(u, i);
	for (uint64_t at = 0; at < u->p.len_bytes; at += block) {
		int who = scrub_block(u, at, block);

		if (who != -1)
			scrub_run_add(u, u->off_bytes + at, block, who < 0 ? -1 : u->p.cols[who]);
	}
	scrub_run_end(u);
}

int raid_mirror_co_scrub(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, struct raid_scrub *s)
{
	struct scrub_unit *u = xmalloc(sizeof(*u));
	uint64_t end = off_bytes + len_bytes, len;
	struct raid_locks lk;

	scrub_init(u, g, s);
	for (; off_bytes < end; off_bytes += len) {
		raid_locate(g, off_bytes, MIN(end - off_bytes, UNIT_BYTES), &u->p);
		len = u->p.len_bytes;
		u->off_bytes = off_bytes;
		raid_co_lock(g, off_bytes, len, false, &lk);
		scrub_co_unit(u);
		raid_unlock(&lk);
	}
	scrub_fini(u);
	return 0;
}

/* Coroutine, unit locked. */
static int scrub_co_fix_unit(struct scrub_unit *u, bool force)
{
	uint64_t block = u->g->raid->conf.block_bytes;
	int r = 0, e;

	scrub_co_read(u);
	for (unsigned i = 0; i < u->p.n; i++)
		if (u->failed & (1U << i))
			scrub_co_repair(u, i);
	for (uint64_t at = 0; at < u->p.len_bytes; at += block) {
		int who = scrub_block(u, at, block);
		unsigned src;

		if (who == -1)
			continue;
		if (who == -2 && !force) {
			r = -ENODATA;
			continue;
		}
		for (src = 0; !(u->read & (1U << src)) || (int)src == who; src++)
			;
		for (unsigned i = 0; i < u->p.n; i++) {
			if (i == src || !(u->read & (1U << i)) || !memcmp(u->buf[i] + at, u->buf[src] + at, block))
				continue;
			e = scrub_co_copy(u, src, i, at, block);
			if (e)
				r = e;
		}
	}
	return r;
}

int raid_mirror_co_scrub_fix(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, bool force)
{
	struct raid_scrub ignored = { 0 };
	struct scrub_unit *u = xmalloc(sizeof(*u));
	uint64_t end = off_bytes + len_bytes, len;
	struct raid_locks lk;
	int r = 0, e;

	scrub_init(u, g, &ignored);
	for (; off_bytes < end; off_bytes += len) {
		raid_locate(g, off_bytes, MIN(end - off_bytes, UNIT_BYTES), &u->p);
		len = u->p.len_bytes;
		raid_co_lock(g, off_bytes, len, false, &lk);
		e = scrub_co_fix_unit(u, force);
		raid_unlock(&lk);
		if (e)
			r = e;
	}
	scrub_fini(u);
	return r;
}
