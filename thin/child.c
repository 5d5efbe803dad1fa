/*
 * child.c: requests to the space below. They come from a list per reactor, so the fast path does not allocate.
 */
#include "engine/io/buf.h"
#include "thin/volume_internal.h"

struct thin_child {
	struct io io;
	struct thin_volume *v;
	struct io *parent;
	struct co_join *join;
	struct list link; /* tr->free_children */
	struct task task;
	struct iovec *iov_big; /* when iovs do not do */
	struct iovec iovs[THIN_CHILD_IOVS];
};

static void child_done(struct io *io);

static struct thin_child *child_new(struct thin_volume *v, struct io *parent, struct co_join *join)
{
	struct list *n = list_pop_front(&v->tr->free_children);
	struct thin_child *c;

	if (likely(n)) {
		c = container_of(n, struct thin_child, link);
	} else {
		c = xmalloc(sizeof(*c));
		list_init(&c->link);
		list_init(&c->task.link);
		list_init(&c->io.link);
		c->iov_big = NULL;
		c->io.done = child_done;
	}
	c->v = v;
	c->parent = parent;
	c->join = join;
	if (parent)
		thin_req_of(parent)->pending++;
	else
		co_join_add(join);
	return c;
}

static void child_put(struct thin_child *c)
{
	if (unlikely(c->iov_big)) {
		xfree(c->iov_big);
		c->iov_big = NULL;
	}
	list_push_front(&c->v->tr->free_children, &c->link);
}

void thin_child_ended(struct io *parent, int result)
{
	struct thin_req *q = thin_req_of(parent);

	if (unlikely(result < 0) && !q->result)
		q->result = result;
	if (--q->pending == 0)
		thin_req_end(parent, q->result);
}

static void child_done(struct io *io)
{
	struct thin_child *c = container_of(io, struct thin_child, io);
	struct io *parent = c->parent;
	struct co_join *join = c->join;
	int result = io->result;

	child_put(c);
	if (parent)
		thin_child_ended(parent, result);
	else
		co_join_done(join, result);
}

static inline void child_set(struct thin_child *c, unsigned op, unsigned flags, uint64_t off_bytes, uint64_t len_bytes)
{
	c->io.op = (uint8_t)op;
	c->io.copy = 0;
	c->io.flags = (uint16_t)flags;
	c->io.off_bytes = off_bytes;
	c->io.len_bytes = len_bytes;
	c->io.result = 0;
}

void thin_child_whole(struct thin_volume *v, struct io *parent, uint64_t phys, unsigned hints)
{
	struct thin_child *c = child_new(v, parent, NULL);

	child_set(c, parent->op, (parent->flags & (IO_FUA | IO_MAY_GIVE_UP)) | hints, phys, parent->len_bytes);
	c->io.iov_n = parent->iov_n;
	c->io.iov = parent->iov;
	bdev_submit(v->tr->space, &c->io);
}

void thin_child_flush(struct thin_volume *v, struct io *parent)
{
	struct thin_child *c = child_new(v, parent, NULL);

	child_set(c, IO_FLUSH, 0, 0, 0);
	c->io.iov_n = 0;
	c->io.iov = &c->io.one;
	bdev_submit(v->tr->space, &c->io);
}

static void child_task_run(struct task *t)
{
	struct thin_child *c = container_of(t, struct thin_child, task);
	struct io *parent = c->parent;

	child_put(c);
	thin_child_ended(parent, 0);
}

void thin_child_nothing(struct thin_volume *v, struct io *parent)
{
	struct thin_child *c = child_new(v, parent, NULL);

	thin_req_of(parent)->pending--; /* it takes over the caller's place */
	c->task.run = child_task_run;
	reactor_ready(&c->task);
}

void thin_children_free(struct thin_reactor *tr)
{
	struct list *n;

	while ((n = list_pop_front(&tr->free_children)))
		xfree(container_of(n, struct thin_child, link));
}

/* ---- runs ---- */

static void child_slice(struct thin_child *c, const struct thin_run *x)
{
	unsigned cap = THIN_CHILD_IOVS;
	struct iovec *out = c->iovs;

	if (x->iov_n == 1) {
		c->io.one.iov_base = (char *)x->iov->iov_base + x->skip;
		c->io.one.iov_len = x->len;
		c->io.iov = &c->io.one;
		c->io.iov_n = 1;
		return;
	}
	c->io.iov_n = iov_slice(x->iov, x->iov_n, x->skip, x->len, out, cap);
	if (!c->io.iov_n) {
		out = c->iov_big = xmalloc(x->iov_n * sizeof(*out));
		c->io.iov_n = iov_slice(x->iov, x->iov_n, x->skip, x->len, out, x->iov_n);
		CHECK(c->io.iov_n);
	}
	c->io.iov = out;
}

void thin_run_submit(struct thin_run *x)
{
	struct thin_child *c;

	if (!x->len)
		return;
	c = child_new(x->v, x->parent, x->join);
	child_set(c, x->op, x->flags, x->phys, x->len);
	child_slice(c, x);
	x->len = 0;
	bdev_submit(x->v->tr->space, &c->io);
}

void thin_run_add(struct thin_run *x, uint64_t phys, uint64_t skip, uint64_t len)
{
	if (x->len && phys == x->phys + x->len && skip == x->skip + x->len && x->len + len <= x->v->tr->space->max_bytes &&
	    phys % x->v->tr->conf->group_bytes != 0) {
		x->len += len;
		return;
	}
	thin_run_submit(x);
	x->phys = phys;
	x->skip = skip;
	x->len = len;
}

int thin_co_copy_subs(struct thin_volume *v, uint64_t from, uint64_t to, uint16_t mask, unsigned flags)
{
	struct thin_reactor *tr = v->tr;
	uint8_t *buf = buf_alloc(tr->cluster_bytes);
	unsigned i, n;
	int r = 0;

	for (i = 0; i < THIN_SUBS && r == 0; i += n) {
		uint64_t in = (uint64_t)i * tr->sub_bytes;

		for (n = 1; i + n < THIN_SUBS && (mask >> i & 1) == (mask >> (i + n) & 1); n++)
			;
		if (!(mask >> i & 1))
			continue;
		r = bdev_co_read(tr->space, (from << tr->cluster_shift) + in, buf, n * (uint64_t)tr->sub_bytes);
		if (r == 0)
			r = bdev_co_write(tr->space, (to << tr->cluster_shift) + in, buf, n * (uint64_t)tr->sub_bytes, flags);
	}
	buf_free(buf, tr->cluster_bytes);
	return r;
}
