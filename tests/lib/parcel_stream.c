#include "tests/lib/parcel_stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/rng.h"

struct parcel_stream {
	struct stream s;
	struct parcel_way way;
	struct rng rng;
	const uint8_t *in;
	size_t in_len, at;
	uint8_t *out;
	size_t out_len, out_cap;
	struct net_op *op;
	bool is_shut;
};

static bool has_ended(const struct parcel_stream *x)
{
	return x->is_shut || (x->way.stop && *x->way.stop);
}

static void out_add(struct parcel_stream *x, const void *p, size_t n)
{
	if (x->out_len + n > x->out_cap) {
		uint8_t *more;

		x->out_cap = MAX(2 * x->out_cap, x->out_len + n + 4096);
		more = xmalloc(x->out_cap);
		if (x->out_len)
			memcpy(more, x->out, x->out_len);
		xfree(x->out);
		x->out = more;
	}
	memcpy(x->out + x->out_len, p, n);
	x->out_len += n;
}

static int64_t write_now(struct parcel_stream *x, const struct net_op *op)
{
	unsigned i;

	for (i = 0; i < op->iov_n; i++) {
		size_t n = MIN(op->iov[i].iov_len, x->way.max_bytes - x->out_len);

		out_add(x, op->iov[i].iov_base, n);
		if (n < op->iov[i].iov_len)
			return -EPIPE;
	}
	return 0;
}

/* Into the first buffer only. */
static int64_t co_read_now(struct parcel_stream *x, const struct net_op *op)
{
	size_t n = MIN(op->iov[0].iov_len, MIN(x->in_len, x->way.max_bytes) - x->at);

	if (!x->at && x->way.first_bytes)
		n = MIN(n, x->way.first_bytes);
	else if (n > 1 && rng_chance(&x->rng, 1, 4))
		n = 1 + rng_below(&x->rng, n);
	if (!n || (x->way.co_before && !x->way.co_before(x->way.arg, x->at, n)) || has_ended(x))
		return 0;
	memcpy(op->iov[0].iov_base, x->in + x->at, n);
	x->at += n;
	return (int64_t)n;
}

static void parcel_co_run(void *arg)
{
	struct parcel_stream *x = arg;
	struct net_op *op = x->op;

	co_sleep_ns(x->way.slow_ns ? rng_below(&x->rng, x->way.slow_ns) : 0);
	if (op->kind == NET_SEND)
		op->result = has_ended(x) ? -EPIPE : write_now(x, op);
	else
		op->result = has_ended(x) ? 0 : co_read_now(x, op);
	x->op = NULL;
	op->done(op);
}

static void parcel_submit(struct stream *s, struct net_op *op)
{
	struct parcel_stream *x = container_of(s, struct parcel_stream, s);

	CHECK(!x->op);
	x->op = op;
	co_spawn(CO_SERVICE, parcel_co_run, x, "parcel stream");
}

static void parcel_shutdown(struct stream *s)
{
	container_of(s, struct parcel_stream, s)->is_shut = true;
}

static void parcel_close(struct stream *s)
{
	struct parcel_stream *x = container_of(s, struct parcel_stream, s);

	CHECK(!x->op);
	xfree(x->out);
	xfree(x);
}

static const struct stream_ops parcel_ops = { .submit = parcel_submit, .shutdown = parcel_shutdown, .close = parcel_close };

static struct parcel_stream *parcel_create(const struct parcel_way *way)
{
	struct parcel_stream *x = xcalloc(1, sizeof(*x));

	x->s.ops = &parcel_ops;
	x->s.fd = -1;
	x->s.is_loopback = true;
	snprintf(x->s.peer, sizeof(x->s.peer), "parcel");
	x->way = *way;
	rng_init(&x->rng, way->seed);
	return x;
}

struct stream *parcel_stream_from(const uint8_t *bytes, size_t len, const struct parcel_way *way)
{
	struct parcel_stream *x = parcel_create(way);

	x->in = bytes;
	x->in_len = len;
	return &x->s;
}

struct stream *parcel_stream_to(const struct parcel_way *way)
{
	return &parcel_create(way)->s;
}

uint8_t *parcel_stream_take(struct stream *s, size_t *len)
{
	struct parcel_stream *x = container_of(s, struct parcel_stream, s);
	uint8_t *p = malloc(x->out_len + 1);

	CHECK(p);
	*len = x->out_len;
	if (x->out_len)
		memcpy(p, x->out, x->out_len);
	stream_close(s);
	return p;
}
