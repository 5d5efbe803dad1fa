/*
 * Reads of mirrors and of single columns.
 *
 * Which copy. Every place has a default copy, given by its address alone, and a read goes to another ONLINE one only for
 * a reason: the default's disk is busier, or a large read stays contiguous on one column. While a write is under way its
 * copies differ, and two reads after each other must not see new and then old data; so a read that leaves the default
 * holds a shared range lock (which a write in flight refuses), and where it does not get one it takes the default.
 *
 * A bad read is answered from another column and the bad place rewritten, under the exclusive range lock: what is written
 * was read under the same lock, in a private buffer, so no client's write can be undone by it. When no column reads the
 * whole range, each block is tried by itself: two columns with different bad sectors still have all data. No lease is
 * needed: it changes nothing that any good column holds.
 */
#include "raid/raid_impl.h"

/* ---- choosing ---- */

/* Index in p->cols of the ONLINE copy to start from `first`, -1: none. idle: prefer a disk with fewer reads in flight. */
static int pick_current(const struct raid_group *g, const struct raid_place *p, unsigned first, bool idle)
{
	int best = -1;

	for (unsigned k = 0; k < p->n; k++) {
		unsigned i = (first + k) % p->n;

		if (!raid_col_is_current(g, p->cols[i]))
			continue;
		if (best < 0)
			best = (int)i;
		else if (idle && raid_slot(g, p->cols[i])->n_reads + RAID_READ_SLACK <
					 raid_slot(g, p->cols[best])->n_reads)
			best = (int)i;
	}
	return best;
}

/* When no current copy is left or reads: a stale copy of a place that nobody has written since. */
static int pick_stale(const struct raid_group *g, uint64_t off_bytes, const struct raid_place *p)
{
	if (g->missed & raid_group_mask(g, off_bytes, p->len_bytes))
		return -1;
	for (unsigned i = 0; i < p->n; i++)
		if (raid_col_is_there(g, p->cols[i]) && !raid_col_is_current(g, p->cols[i]))
			return (int)i;
	return -1;
}

/* ---- recovery ---- */

struct recovery {
	struct raid_group *g;
	struct io *parent;
	uint64_t parent_off_bytes; /* where the parent begins in the group */
	uint8_t *buf;
};

static int leaf_co(struct raid_group *g, enum io_op op, unsigned col, uint64_t col_off_bytes, void *buf, uint64_t len)
{
	struct raid_disk_slot *s = raid_slot(g, col);
	struct io io;

	io_prep(&io, op, g->desc.cols[col].off_bytes + col_off_bytes, len, buf, 0);
	return bdev_co_submit(&s->disk->bdev, &io);
}

/* Writes what was read to the copies that failed. Bits of bad: indices in p->cols. */
static void recover_co_rewrite(struct recovery *rc, const struct raid_place *p, uint32_t bad)
{
	struct raid_group *g = rc->g;
	const struct raid_conf *c = &g->raid->conf;

	for (unsigned i = 0; i < p->n; i++) {
		const struct raid_col *col = &g->desc.cols[p->cols[i]];
		int r;

		if (!(bad & (1U << i)) || !raid_col_is_current(g, p->cols[i]))
			continue;
		r = leaf_co(g, IO_WRITE, p->cols[i], p->col_off_bytes, rc->buf, p->len_bytes);
		if (!r)
			g->raid->stats.repaired++;
		c->hooks->read_repaired(c->ctx, col->disk, col->off_bytes + p->col_off_bytes, p->len_bytes, r);
	}
}

/* Range within one place, lock held: reads it from any copy but the one in `bad` (or from that too, last, if retry), gives
 * it to the parent, rewrites the bad ones. */
static int recover_co_place(struct recovery *rc, uint64_t off_bytes, const struct raid_place *p, unsigned bad, bool retry)
{
	struct raid_group *g = rc->g;
	uint32_t failed = 1U << bad;
	int r = -EIO, i;

	for (unsigned k = 1; k <= p->n; k++) {
		unsigned n = (bad + k) % p->n;

		if (!raid_col_is_current(g, p->cols[n]) || (n == bad && !retry))
			continue;
		r = leaf_co(g, IO_READ, p->cols[n], p->col_off_bytes, rc->buf, p->len_bytes);
		if (!r) {
			failed &= ~(1U << n);
			goto found;
		}
		failed |= 1U << n;
	}
	i = pick_stale(g, off_bytes, p);
	if (i < 0)
		return r;
	r = leaf_co(g, IO_READ, p->cols[i], p->col_off_bytes, rc->buf, p->len_bytes);
	if (r)
		return r;
found:
	iov_from_buf(rc->parent->iov, rc->parent->iov_n, off_bytes - rc->parent_off_bytes, rc->buf, p->len_bytes);
	recover_co_rewrite(rc, p, failed);
	return 0;
}

/* As recover_co_place(), block by block. */
static int recover_co_blocks(struct recovery *rc, uint64_t off_bytes, const struct raid_place *p, unsigned bad)
{
	uint64_t block = rc->g->raid->conf.block_bytes;
	struct raid_place one = *p;

	one.len_bytes = block;
	for (uint64_t done = 0; done < p->len_bytes; done += block, one.col_off_bytes += block) {
		int r = recover_co_place(rc, off_bytes + done, &one, bad, true);

		if (r)
			return r;
	}
	return 0;
}

/* Coroutine. Range within one place, of which column bad_col could not be read whole: fills the parent's payload. */
static int co_recover(struct raid_group *g, struct raid_req *q, uint64_t off_bytes, uint64_t len_bytes, unsigned bad_col)
{
	struct recovery rc = { g, q->parent, q->off_bytes, buf_alloc(len_bytes) };
	struct raid_locks lk;
	struct raid_place p;
	unsigned bad = 0;
	int r;

	raid_co_lock(g, off_bytes, len_bytes, false, &lk);
	raid_locate(g, off_bytes, len_bytes, &p);
	CHECK(p.len_bytes == len_bytes);
	while (p.cols[bad] != bad_col)
		bad++;
	r = recover_co_place(&rc, off_bytes, &p, bad, false);
	if (r)
		r = recover_co_blocks(&rc, off_bytes, &p, bad);
	raid_unlock(&lk);
	buf_free(rc.buf, len_bytes);
	return r;
}

/* ---- the fast path ---- */

static void read_unlock(struct raid_req *q)
{
	if (q->locked)
		range_unlock(q->lock, &q->hold);
	q->locked = false;
}

static void read_co_failed(void *arg)
{
	struct raid_req *q = arg;

	raid_req_end(q, co_recover(q->g, q, q->off_bytes, q->parent->len_bytes, q->col[0]));
}

static void read_done(struct io *leg)
{
	struct raid_req *q = leg->owner;

	raid_slot(q->g, q->col[0])->n_reads--;
	read_unlock(q);
	if (unlikely(leg->result && q->g->redundant))
		co_start(CO_SERVICE, read_co_failed, q, "raid read repair");
	else
		raid_req_end(q, leg->result);
}

/* The copy for a request in one place, with the shared lock if it is not the default. */
static int try_pick(struct raid_group *g, struct raid_req *q, const struct raid_place *p)
{
	uint64_t len = p->len_bytes;
	bool one_strip = (q->off_bytes & (g->desc.strip_bytes - 1)) + len <= g->desc.strip_bytes;
	unsigned first;
	int def, idle;

	if (p->n == 1)
		return raid_col_is_current(g, p->cols[0]) ? 0 : -1;
	first = raid_default_copy(g, p);
	def = pick_current(g, p, first, false);
	if (def < 0)
		return -1;
	idle = pick_current(g, p, first, true);
	if (idle == def && one_strip)
		return def;
	q->lock = raid_lock_of(g, q->off_bytes, len);
	q->locked = q->lock && range_try_lock(q->lock, q->off_bytes, len, true, &q->hold);
	if (q->locked)
		return idle;
	return one_strip ? def : -1; /* a range of several strips has several defaults */
}

bool raid_mirror_try_read(struct raid_group *g, struct raid_req *q)
{
	struct io *io = q->parent, *leg = &q->leg[0];
	struct raid_disk_slot *s;
	struct raid_place p;
	int i;

	if (io->copy || io->len_bytes > g->raid->leg_max_bytes)
		return false;
	if (g->unsync && (g->unsync & raid_group_mask(g, q->off_bytes, io->len_bytes)))
		return false;
	raid_locate(g, q->off_bytes, io->len_bytes, &p);
	if (p.len_bytes != io->len_bytes)
		return false;
	i = try_pick(g, q, &p);
	if (i < 0)
		return false;
	q->col[0] = p.cols[i];
	s = raid_slot(g, q->col[0]);
	raid_leaf_prep(g, leg, io, q->col[0], p.col_off_bytes);
	leg->done = read_done;
	leg->owner = q;
	s->n_reads++;
	raid_enter(g, q, 0);
	bdev_submit(&s->disk->bdev, leg);
	return true;
}

/* ---- the rest ---- */

/* The n-th copy and no other. */
static int choose_copy(struct raid_group *g, const struct raid_piece *piece, unsigned copy)
{
	if (copy > piece->place.n || !raid_col_is_current(g, piece->place.cols[copy - 1]))
		return -ENODATA;
	return (int)copy - 1;
}

/* Sets the column of every piece. first: copy to prefer throughout, -1: each piece its default. */
static int choose(struct raid_plan *p, int first)
{
	struct raid_group *g = p->g;

	for (unsigned k = 0; k < p->n_pieces; k++) {
		struct raid_piece *piece = &p->pieces[k];
		const struct raid_place *place = &piece->place;
		int i;

		if (p->parent->copy) {
			i = choose_copy(g, piece, p->parent->copy);
			if (i < 0)
				return i;
		} else {
			i = first < 0 ? pick_current(g, place, raid_default_copy(g, place), false) :
					pick_current(g, place, (unsigned)first % place->n, true);
			if (i < 0)
				i = pick_stale(g, piece->off_bytes, place);
			if (i < 0)
				return -ERR_MISSING;
		}
		piece->cols = 1U << place->cols[i];
	}
	return 0;
}

/* Coroutine. All pieces, or parts of them, that a failed leg covers. */
static int co_recover_leg(struct raid_plan *p, struct raid_req *q, const struct raid_leg *l)
{
	for (unsigned k = 0; k < p->n_pieces; k++) {
		const struct raid_piece *piece = &p->pieces[k];
		uint64_t begin = MAX(piece->place.col_off_bytes, l->col_off_bytes);
		uint64_t end = MIN(piece->place.col_off_bytes + piece->place.len_bytes, l->col_off_bytes + l->io.len_bytes);
		int r;

		if (!(piece->cols & (1U << l->col)) || begin >= end)
			continue;
		r = co_recover(p->g, q, piece->off_bytes + (begin - piece->place.col_off_bytes), end - begin, l->col);
		if (r)
			return r;
	}
	return 0;
}

int raid_mirror_co_read(struct raid_group *g, struct raid_req *q)
{
	uint64_t len = q->parent->len_bytes;
	struct raid_locks lk = { .n = 0 };
	struct raid_plan p;
	bool whole = !q->parent->copy && g->redundant && raid_try_lock(g, q->off_bytes, len, true, &lk);
	int r;

	raid_plan_init(&p, g, q, g->redundant && !whole);
	r = choose(&p, whole ? (int)((q->off_bytes >> g->strip_shift) % g->desc.copies) : -1);
	if (!r) {
		raid_plan_legs(&p);
		r = raid_plan_co_run(&p);
	}
	raid_unlock(&lk);
	if (r && p.legs && g->redundant && !q->parent->copy) {
		r = 0;
		for (unsigned i = 0; i < p.n_legs && !r; i++)
			if (p.legs[i].io.result)
				r = co_recover_leg(&p, q, &p.legs[i]);
	}
	raid_plan_fini(&p);
	return r;
}
