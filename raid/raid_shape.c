/*
 * raid_shape.c: a parity group takes another shape: more columns, or fewer.
 *
 * Rows cannot be moved between columns while the group stays what it is. So all that it holds is copied into another group, its *shape
 * to come*, which has a number of its own, the same size and the same home, and serves nobody yet; the pool then gives its columns to
 * this group. On the home:
 *
 *   begin   from now on every write takes the range lock below, and goes to both as far as has been copied. What was in flight
 *	     without it is waited for. The other instances forward reads too, so that this one can say when the new columns are read.
 *   copy    range by range, in order, under the lock: what the pool says is in use. What is written before that range is not copied yet, and
 *	     will be; what is written after it goes to both. The rest of the other group stays fresh space.
 *   close   the group is frozen and all disks are flushed: both hold the same, durably. No older entry of the stripe log will be replayed
 *	     into this group, which would be in rows of its old shape.
 *   end     the shape is forgotten; if the pool has replaced the descriptor meanwhile, what waits goes there.
 *
 * A write that does not reach both is good if it reaches the group; but then the shape is not, and is begun anew.
 *
 * Lock order: a request is in flight in the group first, then it has the lock, then it enters the other group. The other group is never
 * frozen, and nobody else knows it.
 */
#include <string.h>

#include "engine/io/buf.h"
#include "engine/io/range_lock.h"
#include "raid/raid_impl.h"
#include "raid/stripe_log.h"

struct raid_shape {
	uint64_t group;	     /* its number */
	uint64_t copied_to;  /* bytes from the group's start */
	int error;	     /* the first that keeps them from being equal */
	bool closed;
	struct range_lock lock;
};

static void shape_failed(struct raid_shape *s, int error)
{
	if (error && !s->error)
		s->error = error;
}

/* ---- writes ---- */

/* Hands the part of the request that has been copied to the other group. iov has room for the parent's. */
static void both_submit(struct raid_group *g, const struct raid_req *q, struct io *io, struct iovec *iov, struct co_join *j)
{
	const struct raid_shape *s = g->shape;
	const struct io *parent = q->parent;

	memset(io, 0, sizeof(*io));
	io->op = parent->op;
	io->flags = parent->flags;
	io->off_bytes = s->group * g->raid->conf.group_bytes + q->off_bytes;
	io->len_bytes = MIN(parent->len_bytes, s->copied_to - q->off_bytes);
	if (parent->iov_n) {
		io->iov = iov;
		io->iov_n = iov_slice(parent->iov, parent->iov_n, 0, io->len_bytes, iov, parent->iov_n);
	}
	bdev_submit_join(&g->raid->bdev, io, j);
}

int raid_shape_co_write(struct raid_group *g, struct raid_req *q)
{
	struct raid_shape *s = g->shape;
	struct iovec *iov = NULL;
	struct range_hold hold;
	struct co_join j;
	struct io io;
	int r;

	if (q->parent->op == IO_DISCARD)
		return g->level->co_run(g, q);
	range_co_lock(&s->lock, q->off_bytes, q->parent->len_bytes, false, &hold);
	co_join_init(&j);
	if (q->off_bytes < s->copied_to && !MUTANT(TARGET_SKIPS_WRITES)) {
		iov = xmalloc((q->parent->iov_n + 1u) * sizeof(*iov));
		both_submit(g, q, &io, iov, &j);
	}
	r = g->level->co_run(g, q);
	shape_failed(s, co_join_wait(&j));
	if (q->off_bytes < s->copied_to)
		shape_failed(s, r); /* nobody knows what is there now */
	range_unlock(&s->lock, &hold);
	xfree(iov);
	return r;
}

/* ---- copying ---- */

static void read_done(struct io *io)
{
	co_join_done(io->owner, io->result);
}

/* Of the group, which is in flight: past freezes, which wait for that. */
static int shape_co_read(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, void *buf)
{
	struct raid_req *q;
	struct co_join j;
	struct io io;

	io_prep(&io, IO_READ, g->desc.group * g->raid->conf.group_bytes + off_bytes, len_bytes, buf, 0);
	io.done = read_done;
	io.owner = &j;
	co_join_init(&j);
	co_join_add(&j);
	q = raid_req_get(g->raid, &io);
	raid_enter(g, q, 0);
	raid_req_end(q, g->level->co_run(g, q));
	return co_join_wait(&j);
}

static int run_co_copy(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, void *buf)
{
	struct raid *r = g->raid;
	struct io io;
	int res = shape_co_read(g, off_bytes, len_bytes, buf);

	if (res)
		return res;
	io_prep(&io, IO_WRITE, g->shape->group * r->conf.group_bytes + off_bytes, len_bytes, buf, IO_FRESH);
	return bdev_co_submit(&r->bdev, &io);
}

/* Coroutine, under the lock. */
static int range_co_copy(struct raid_group *g, struct raid_shape_copy *c)
{
	unsigned n = (unsigned)(c->len_bytes / c->cluster_bytes), i, k;
	uint8_t used[RAID_SHAPE_CLUSTERS / 8];
	uint8_t *buf;
	int r;

	CHECK(n <= RAID_SHAPE_CLUSTERS);
	r = c->co_used(c->arg, c->off_bytes / c->cluster_bytes, n, used);
	if (r)
		return r;
	buf = buf_alloc(c->len_bytes);
	for (i = 0; i < n && !r; i += MAX(k, 1)) {
		for (k = 0; i + k < n && used[(i + k) / 8] >> ((i + k) % 8) & 1; k++)
			;
		if (k)
			r = run_co_copy(g, c->off_bytes + i * c->cluster_bytes, k * c->cluster_bytes, buf);
		if (k && !r)
			c->copied_bytes += k * c->cluster_bytes;
	}
	buf_free(buf, c->len_bytes);
	return r;
}

int raid_co_shape_copy(struct raid *r, struct raid_shape_copy *c)
{
	struct range_hold hold;
	struct raid_group *g;
	uint8_t epoch;
	int res = raid_group_co_hold(r, c->group, &g, &epoch);

	if (res)
		return res;
	CHECK(g->shape && !g->shape->closed && g->shape->copied_to == c->off_bytes);
	CHECK(c->len_bytes <= g->desc.size_bytes - c->off_bytes);
	range_co_lock(&g->shape->lock, c->off_bytes, c->len_bytes, false, &hold);
	res = g->shape->error ? g->shape->error : g->unsync ? -EAGAIN : range_co_copy(g, c);
	if (!res)
		g->shape->copied_to = c->off_bytes + c->len_bytes;
	range_unlock(&g->shape->lock, &hold);
	raid_group_release(g, epoch);
	return res;
}

/* ---- its beginning and end ---- */

int raid_co_shape_begin(struct raid *r, uint64_t group, uint64_t shape)
{
	struct raid_group *g;
	uint8_t epoch;
	int res = raid_group_co_hold(r, group, &g, &epoch);

	if (res)
		return res;
	raid_group_release(g, epoch);
	CHECK(g->parity && !g->shape && raid_home(r, group) == raid_home(r, shape));
	raid_co_freeze(r, group, 0, g->desc.size_bytes);
	g->shape = xcalloc(1, sizeof(*g->shape));
	g->shape->group = shape;
	range_lock_init(&g->shape->lock);
	raid_unfreeze(r, group);
	return 0;
}

/* Is everything where it belongs? */
static int shape_check(struct raid *r, const struct raid_group *g)
{
	const struct raid_group *to = raid_group_find(r, g->shape->group);

	if (g->shape->error)
		return g->shape->error;
	if (g->shape->copied_to != g->desc.size_bytes)
		return -EINVAL;
	if (g->unsync || stripe_redo_regions(g))
		return -EAGAIN;
	return to && (to->unsync || stripe_redo_regions(to)) ? -EAGAIN : 0;
}

int raid_co_shape_close(struct raid *r, uint64_t group)
{
	struct raid_group *g = raid_group_find(r, group);
	int res;

	CHECK(g && g->shape && !g->shape->closed);
	g->shape->closed = true;
	raid_co_freeze(r, group, 0, g->desc.size_bytes);
	res = shape_check(r, g);
	if (!res && !MUTANT(SWITCH_BEFORE_FLUSH))
		res = bdev_co_flush(&r->bdev);
	if (!res)
		res = shape_check(r, g);
	if (!res && r->log && !MUTANT(SHAPE_KEEPS_LOG))
		res = stripe_log_co_cancel(r->log, group, 0, DIV_UP(g->desc.size_bytes, raid_stripe_bytes(g)));
	return res;
}

void raid_co_shape_end(struct raid *r, uint64_t group)
{
	struct raid_group *g = raid_group_find(r, group);

	if (!g || !g->shape)
		return;
	if (!g->shape->closed)
		raid_co_freeze(r, group, 0, g->desc.size_bytes);
	xfree(g->shape);
	g->shape = NULL;
	raid_unfreeze(r, group);
}
