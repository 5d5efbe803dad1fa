#include "tests/lib/pipe_stream.h"

#include <stdio.h>
#include <string.h>

/* One direction. An operation that is complete waits for its task, so that done() is never called inside submit. */
struct half {
	struct task task;
	struct net_op *op, *complete;
};

struct dir {
	uint8_t *buf;
	size_t cap, len;
	bool no_reader, no_writer;
	size_t wr_done;
	struct half rd, wr;
};

struct pipe_pair {
	struct dir dir[2];
	unsigned open;
};

struct pipe_stream {
	struct stream s;
	struct pipe_pair *p;
	unsigned side; /* writes dir[side], reads dir[!side] */
};

static void half_run(struct task *t)
{
	struct half *h = container_of(t, struct half, task);
	struct net_op *op = h->complete;

	h->complete = NULL;
	op->done(op);
}

static void half_complete(struct half *h, int64_t result)
{
	h->complete = h->op;
	h->op = NULL;
	h->complete->result = result;
	reactor_ready(&h->task);
}

static uint64_t total(const struct net_op *op)
{
	uint64_t n = 0;
	unsigned i;

	for (i = 0; i < op->iov_n; i++)
		n += op->iov[i].iov_len;
	return n;
}

/* Bytes between an iovec list from `skip` on and memory. */
static void copy(const struct net_op *op, size_t skip, uint8_t *mem, size_t len, bool to_iov)
{
	size_t at = 0, a, n;
	unsigned i;

	for (i = 0; i < op->iov_n && len; at += op->iov[i++].iov_len) {
		if (skip >= at + op->iov[i].iov_len)
			continue;
		a = skip - at;
		n = MIN(op->iov[i].iov_len - a, len);
		if (to_iov)
			memcpy((uint8_t *)op->iov[i].iov_base + a, mem, n);
		else
			memcpy(mem, (uint8_t *)op->iov[i].iov_base + a, n);
		mem += n;
		skip += n;
		len -= n;
	}
}

static void dir_write(struct dir *d)
{
	size_t n;

	if (!d->wr.op)
		return;
	if (d->no_reader || d->no_writer) {
		half_complete(&d->wr, -EPIPE);
		return;
	}
	n = MIN(total(d->wr.op) - d->wr_done, d->cap - d->len);
	copy(d->wr.op, d->wr_done, d->buf + d->len, n, false);
	d->len += n;
	d->wr_done += n;
	if (d->wr_done == total(d->wr.op))
		half_complete(&d->wr, 0);
}

static void dir_read(struct dir *d)
{
	size_t n;

	if (!d->rd.op)
		return;
	if (d->no_reader) {
		half_complete(&d->rd, 0);
		return;
	}
	n = MIN(total(d->rd.op), d->len);
	if (!n && !d->no_writer)
		return;
	copy(d->rd.op, 0, d->buf, n, true);
	d->len -= n;
	memmove(d->buf, d->buf + n, d->len);
	half_complete(&d->rd, (int64_t)n);
}

static void dir_move(struct dir *d)
{
	dir_write(d);
	dir_read(d);
	dir_write(d);
	dir_read(d);
}

static void pipe_submit(struct stream *s, struct net_op *op)
{
	struct pipe_stream *x = container_of(s, struct pipe_stream, s);
	struct dir *d = &x->p->dir[op->kind == NET_SEND ? x->side : !x->side];
	struct half *h = op->kind == NET_SEND ? &d->wr : &d->rd;

	CHECK(!h->op && !h->complete);
	h->op = op;
	d->wr_done = op->kind == NET_SEND ? 0 : d->wr_done;
	dir_move(d);
}

/* As a socket, into what room there is. */
static int64_t pipe_try_send(struct stream *s, struct iovec *iov, unsigned n)
{
	struct pipe_stream *x = container_of(s, struct pipe_stream, s);
	struct dir *d = &x->p->dir[x->side];
	struct net_op op = {.iov = iov, .iov_n = n};
	size_t len;

	CHECK(!d->wr.op && !d->wr.complete);
	if (d->no_reader || d->no_writer)
		return -EPIPE;
	len = MIN(total(&op), d->cap - d->len);
	copy(&op, 0, d->buf + d->len, len, false);
	d->len += len;
	dir_move(d);
	return (int64_t)len;
}

static void pipe_shutdown(struct stream *s)
{
	struct pipe_stream *x = container_of(s, struct pipe_stream, s);

	x->p->dir[x->side].no_writer = true;
	x->p->dir[!x->side].no_reader = true;
	dir_move(&x->p->dir[0]);
	dir_move(&x->p->dir[1]);
}

static void pipe_close(struct stream *s)
{
	struct pipe_stream *x = container_of(s, struct pipe_stream, s);
	struct pipe_pair *p = x->p;
	struct dir *out = &p->dir[x->side], *in = &p->dir[!x->side];

	CHECK(!out->wr.op && !out->wr.complete && !in->rd.op && !in->rd.complete);
	pipe_shutdown(s);
	xfree(x);
	if (--p->open)
		return;
	xfree(p->dir[0].buf);
	xfree(p->dir[1].buf);
	xfree(p);
}

static const struct stream_ops pipe_ops = {.submit = pipe_submit, .try_send = pipe_try_send, .shutdown = pipe_shutdown, .close = pipe_close};

static struct stream *end_create(struct pipe_pair *p, unsigned side, size_t cap)
{
	struct pipe_stream *x = xcalloc(1, sizeof(*x));
	struct dir *d = &p->dir[side];

	d->buf = xmalloc(cap);
	d->cap = cap;
	list_init(&d->rd.task.link);
	list_init(&d->wr.task.link);
	d->rd.task.run = d->wr.task.run = half_run;
	x->s.ops = &pipe_ops;
	x->s.fd = -1;
	x->s.is_loopback = true;
	snprintf(x->s.peer, sizeof(x->s.peer), "pipe %u", side);
	x->p = p;
	x->side = side;
	p->open++;
	return &x->s;
}

void pipe_stream_pair(size_t cap_bytes, struct stream **a, struct stream **b)
{
	struct pipe_pair *p = xcalloc(1, sizeof(*p));

	*a = end_create(p, 0, cap_bytes);
	*b = end_create(p, 1, cap_bytes);
}
