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
 *
 * A disk that is slow is as good as busy; a read that a disk does not answer in time is answered from another copy in the
 * same way, but nothing is rewritten, for there is nothing wrong with the place. The kernel may still write to the memory of
 * such a read, so a parent's own memory is used directly only if he can take that as the answer (IO_MAY_GIVE_UP).
 */
#include "raid/raid_impl.h"

/* ---- choosing ---- */

static bool copy_is_slow(const struct raid_group *g, const struct raid_place *p, unsigned i)
{
	return raid_disk_is_slow(g->raid, g->desc.cols[p->cols[i]].disk);
}

/* Is copy a a better choice than b? */
static bool is_idler(const struct raid_group *g, const struct raid_place *p, unsigned a, unsigned b)
{
	bool slow = copy_is_slow(g, p, a);

	if (unlikely(slow != copy_is_slow(g, p, b)))
		return !slow;
	return raid_slot(g, p->cols[a])->n_reads + RAID_READ_SLACK < raid_slot(g, p->cols[b])->n_reads;
}

/* Index in p->cols of the ONLINE copy to start from `first`, -1: none. idle: prefer a disk with fewer reads in flight. */
static int pick_current(const struct raid_group *g, const struct raid_place *p, unsigned first, bool idle)
{
	int best = -1;

	for (unsigned k = 0; k < p->n; k++) {
		unsigned i = (first + k) % p->n;

		if (!raid_col_is_current(g, p->cols[i]))
			continue;
		if (best < 0 || (idle && is_idler(g, p, i, (unsigned)best)))
			best = (int)i;
	}
	return best;
}

/* Is there a current copy besides p->cols[i] whose disk is not slow? */
static bool has_other_copy(const struct raid_group *g, const struct raid_place *p, unsigned i)
{
	for (unsigned k = 0; k < p->n; k++)
		if (k != i && raid_col_is_current(g, p->cols[k]) && !copy_is_slow(g, p, k))
			return true;
	return false;
}

/* Of a leg of the parent's read. */
static unsigned leg_flags(const struct raid_group *g, const struct io *parent, bool may_hedge)
{
	unsigned flags = parent->flags & IO_MAY_GIVE_UP ? RAID_LEG_DIRECT : 0;

	if (g->redundant)
		flags |= RAID_LEG_CHECK_ZEROS | (may_hedge ? RAID_LEG_HEDGE : 0);
	return flags;
}

/* Does a failed leg say that the place is bad, or only that the disk does not serve it now? */
static bool is_bad_place(int error)
{
	return error != -ETIMEDOUT && error != -ENODEV;
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
	bool rewrite; /* the place that failed first is bad */
};

static int leaf_co(struct raid_group *g, enum io_op op, unsigned col, uint64_t col_off_bytes, void *buf, uint64_t len,
		   unsigned flags)
{
	struct io io;

	io_prep(&io, op, g->desc.cols[col].off_bytes + col_off_bytes, len, buf, 0);
	return raid_disk_co_submit(g->raid, g->desc.cols[col].disk, &io, flags);
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
		r = leaf_co(g, IO_WRITE, p->cols[i], p->col_off_bytes, rc->buf, p->len_bytes, 0);
		if (!r)
			g->raid->stats.repaired++;
		c->hooks->read_repaired(c->ctx, col->disk, col->off_bytes + p->col_off_bytes, p->len_bytes, r);
	}
}

/* Which copies to try, in this order: slow disks after others, the bad one last, if at all. Returns their number. */
static unsigned recover_order(const struct raid_group *g, const struct raid_place *p, unsigned bad, bool retry, unsigned *order)
{
	unsigned n = 0;

	for (unsigned slow = 0; slow < 2; slow++)
		for (unsigned k = 1; k < p->n; k++) {
			unsigned i = (bad + k) % p->n;

			if (copy_is_slow(g, p, i) == slow)
				order[n++] = i;
		}
	if (retry)
		order[n++] = bad;
	return n;
}

/* Coroutine. Reads the place from any current copy but the bad one (or from that too, last, if retry). What does not come in
 * time is tried again, with patience, when nothing else has it. *failed: bit per copy with a bad place. */
static int recover_co_read(struct recovery *rc, const struct raid_place *p, unsigned bad, bool retry, uint32_t *failed)
{
	unsigned order[RAID_COPIES_MAX], n = recover_order(rc->g, p, bad, retry, order);
	uint32_t late = 0;
	int r = -EIO;

	*failed = rc->rewrite ? 1U << bad : 0;
	for (unsigned k = 0; k < 2 * n; k++) {
		unsigned i = order[k % n];
		bool hedge = k + 1 < n;

		if (!raid_col_is_current(rc->g, p->cols[i]) || (k >= n && !(late & (1U << i))))
			continue;
		r = leaf_co(rc->g, IO_READ, p->cols[i], p->col_off_bytes, rc->buf, p->len_bytes,
			    RAID_LEG_CHECK_ZEROS | (hedge ? RAID_LEG_HEDGE : 0));
		if (!r) {
			*failed &= ~(1U << i);
			return 0;
		}
		if (is_bad_place(r))
			*failed |= 1U << i;
		else if (hedge)
			late |= 1U << i;
	}
	return r;
}

/* Coroutine. Range within one place, lock held: reads it where it can be had, gives it to the parent, rewrites bad copies. */
static int recover_co_place(struct recovery *rc, uint64_t off_bytes, const struct raid_place *p, unsigned bad, bool retry)
{
	struct raid_group *g = rc->g;
	uint32_t failed;
	int r = recover_co_read(rc, p, bad, retry, &failed), i;

	if (r) {
		i = pick_stale(g, off_bytes, p);
		if (i < 0)
			return r;
		r = leaf_co(g, IO_READ, p->cols[i], p->col_off_bytes, rc->buf, p->len_bytes, RAID_LEG_CHECK_ZEROS);
		if (r)
			return r;
	}
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
static int co_recover(struct raid_group *g, struct raid_req *q, uint64_t off_bytes, uint64_t len_bytes, unsigned bad_col,
		      int error)
{
	struct recovery rc = { g, q->parent, q->off_bytes, buf_alloc(len_bytes), is_bad_place(error) };
	struct raid_locks lk;
	struct raid_place p;
	unsigned bad = 0;
	int r;

	raid_co_lock(g, off_bytes, len_bytes, false, &lk);
	raid_locate(g, off_bytes, len_bytes, &p);
	CHECK(p.len_bytes == len_bytes);
	while (p.cols[bad] != bad_col)
		bad++;
	r = recover_co_place(&rc, off_bytes, &p, bad, !rc.rewrite);
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

	int r = co_recover(q->g, q, q->off_bytes, q->parent->len_bytes, q->col[0], q->leg[0].result);

	raid_req_end(q, r);
}

static void read_done(struct io *leg)
{
	struct raid_req *q = leg->owner;
	bool given_up = leg->result == -ETIMEDOUT && (q->parent->flags & IO_MAY_GIVE_UP);

	raid_slot(q->g, q->col[0])->n_reads--;
	read_unlock(q);
	if (unlikely(leg->result && q->g->redundant && !given_up))
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
	raid_disk_submit(g->raid, g->desc.cols[q->col[0]].disk, leg, leg_flags(g, io, p.n > 1 && has_other_copy(g, &p, (unsigned)i)));
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
		piece->cols = 1ULL << place->cols[i];
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

		if (!(piece->cols & (1ULL << l->col)) || begin >= end)
			continue;
		r = co_recover(p->g, q, piece->off_bytes + (begin - piece->place.col_off_bytes), end - begin, l->col,
			       l->io.result);
		if (r)
			return r;
	}
	return 0;
}

static void set_leg_flags(struct raid_plan *p, bool may_hedge)
{
	struct raid_group *g = p->g;
	uint64_t alone = 0; /* columns with a piece that nobody else has */

	for (unsigned k = 0; k < p->n_pieces; k++) {
		const struct raid_piece *piece = &p->pieces[k];
		unsigned i = 0;

		while (!(piece->cols & (1ULL << piece->place.cols[i])))
			i++;
		if (!may_hedge || !has_other_copy(g, &piece->place, i))
			alone |= piece->cols;
	}
	for (unsigned k = 0; k < p->n_legs; k++)
		p->legs[k].flags = (uint8_t)leg_flags(g, p->parent, !(alone & (1ULL << p->legs[k].col)));
}

static bool has_result(const struct raid_plan *p, int result)
{
	for (unsigned i = 0; i < p->n_legs; i++)
		if (p->legs[i].io.result == result)
			return true;
	return false;
}

#define READ_AGAIN 1

/* Coroutine. One go at the whole request. READ_AGAIN: a disk was late, reads will go around it. last: wait for it. */
static int co_read_once(struct raid_group *g, struct raid_req *q, bool last)
{
	uint64_t len = q->parent->len_bytes;
	struct raid_locks lk = { .n = 0 };
	bool may_choose = g->redundant && !q->parent->copy;
	bool whole = may_choose && raid_try_lock(g, q->off_bytes, len, true, &lk);
	struct raid_plan p;
	int r;

	raid_plan_init(&p, g, q, g->redundant && !whole);
	r = choose(&p, whole ? (int)((q->off_bytes >> g->strip_shift) % g->desc.copies) : -1);
	if (!r) {
		raid_plan_legs(&p);
		set_leg_flags(&p, may_choose && !last);
		r = raid_plan_co_run(&p);
	}
	raid_unlock(&lk);
	if (!r || !p.legs)
		goto out;
	if ((q->parent->flags & IO_MAY_GIVE_UP) && has_result(&p, -ETIMEDOUT)) {
		r = -ETIMEDOUT; /* the payload is not ours any more */
	} else if (whole && !last && has_result(&p, -ETIMEDOUT)) {
		r = READ_AGAIN;
	} else if (may_choose) {
		r = 0;
		for (unsigned i = 0; i < p.n_legs && !r; i++)
			if (p.legs[i].io.result)
				r = co_recover_leg(&p, q, &p.legs[i]);
	}
out:
	raid_plan_fini(&p);
	return r;
}

int raid_mirror_co_read(struct raid_group *g, struct raid_req *q)
{
	unsigned rounds = g->desc.copies;
	int r;

	do
		r = co_read_once(g, q, --rounds == 0);
	while (r == READ_AGAIN);
	return r;
}
