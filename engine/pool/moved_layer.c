/*
 * moved_layer.c: requests of a moved volume's clients on their way to where the volume is now.
 *
 * When the connection breaks, what was acknowledged and not flushed may be lost: the server may have lost its cache, and the next
 * connection knows nothing of it. So the first flush after such a break fails, once, as that of a disk does whose cache is gone; no
 * flush says that something is durable which may not be there.
 */
#include "engine/pool/moved.h"

#define MOVED_MAX_BYTES (256 * 1024) /* of a request: any server takes that */

struct moved_io {
	struct io io;
	struct io *parent;
	struct moved_layer *l;
	uint64_t seen; /* flush: changes that had ended when it began */
};

static void moved_broke(struct moved_layer *l)
{
	atomic_store(&l->is_broken, true);
	l->is_forgotten |= l->n_changed != l->n_flushed;
	if (!l->has_told && !l->is_copy) /* else the job tells */
		pool_event(l->p, ASHLAR_ERROR, "volume.away", -1, NULL, "%s: where it has been moved to does not answer: its clients get errors "
			   "until it does", l->what);
	l->has_told = true;
}

static void moved_done(struct io *io)
{
	struct moved_io *x = container_of(io, struct moved_io, io);
	struct moved_layer *l = x->l;
	struct io *parent = x->parent;
	int r = io->result;

	if (r == 0 && io->op == IO_FLUSH)
		l->n_flushed = MAX(l->n_flushed, x->seen);
	else if (r == 0 && io->op != IO_READ && !(io->flags & IO_FUA))
		l->n_changed++;
	if (r < 0 && r != -EOPNOTSUPP)
		moved_broke(l);
	xfree(x);
	if (--l->n_inflight == 0)
		co_queue_wake_all(&l->idle);
	io_done(parent, r < 0 && r != -EOPNOTSUPP ? -EIO : r);
}

static void fail_run(struct task *t)
{
	struct moved_layer *l = container_of(t, struct moved_layer, fail);
	struct list now, *n;

	list_init(&now);
	list_splice_back(&now, &l->failing);
	while ((n = list_pop_front(&now)))
		io_done(list_entry(n, struct io, link), -EIO);
}

/* A discard of a disk may leave what was: a volume's does not. */
static void moved_submit(struct bdev *b, struct io *io)
{
	struct moved_layer *l = container_of(b, struct moved_layer, bdev);
	struct moved_io *x;

	if (!l->to || (io->op == IO_FLUSH && l->is_forgotten)) {
		l->is_forgotten &= !l->to;
		if (!l->to)
			moved_broke(l);
		list_push_back(&l->failing, &io->link);
		if (list_is_empty(&l->fail.link))
			reactor_ready(&l->fail);
		return;
	}
	x = xmalloc(sizeof(*x));
	*x = (struct moved_io){ .parent = io, .l = l, .seen = l->n_changed };
	x->io = (struct io){ .op = io->op == IO_DISCARD ? IO_ZERO : io->op, .flags = io->flags, .iov_n = io->iov_n, .iov = io->iov,
			     .off_bytes = io->off_bytes, .len_bytes = io->len_bytes, .done = moved_done };
	list_init(&x->io.link);
	l->n_inflight++;
	bdev_submit(l->to, &x->io);
}

static int moved_co_status(struct bdev *b, uint64_t off_bytes, uint64_t len_bytes, struct bdev_extent *ext, size_t *n)
{
	struct moved_layer *l = container_of(b, struct moved_layer, bdev);
	int r;

	if (!l->to)
		return -EIO;
	l->n_inflight++;
	r = bdev_co_status(l->to, off_bytes, len_bytes, ext, n);
	if (--l->n_inflight == 0)
		co_queue_wake_all(&l->idle);
	return r;
}

static const struct bdev_ops moved_ops = { .submit = moved_submit, .co_status = moved_co_status };

void moved_layer_init(struct moved_layer *l, struct ashlar_pool *p, const struct bdev *like, const char *what)
{
	*l = (struct moved_layer){ .bdev = *like, .p = p, .what = what };
	l->bdev.ops = &moved_ops;
	l->bdev.max_bytes = MIN(like->max_bytes, MOVED_MAX_BYTES);
	l->is_broken = true;
	co_queue_init(&l->idle);
	list_init(&l->failing);
	l->fail.run = fail_run;
	list_init(&l->fail.link);
}

void moved_layer_set(struct moved_layer *l, struct bdev *to)
{
	CHECK(!l->to && !l->n_inflight);
	l->to = to;
	atomic_store(&l->is_broken, false);
	if (l->has_told)
		pool_event(l->p, ASHLAR_INFO, "volume.away", -1, NULL, "%s: where it has been moved to answers again", l->what);
	l->has_told = false;
}

void moved_layer_co_take(struct moved_layer *l)
{
	l->to = NULL;
	while (l->n_inflight)
		co_queue_wait(&l->idle);
}
