/*
 * transfer.c: what send and receive share.
 */
#include "engine/pool/transfer.h"

#include <string.h>

#include "engine/base/units.h"

#define ADMIN_RETRY_NS (5 * NS_PER_MS)

/* ---- those under way ---- */

void pool_transfer_begin(struct pool_transfer *t, struct ashlar_pool *p, struct stream *io)
{
	*t = (struct pool_transfer){ .p = p, .io = io };
	list_push_back(&p->transfers, &t->link);
}

void pool_transfer_end(struct pool_transfer *t)
{
	list_del(&t->link);
	co_queue_wake_all(&t->p->idle);
}

static void transfer_stop(struct pool_transfer *t)
{
	if (!t->stopping)
		stream_shutdown(t->io);
	t->stopping = true;
}

void pool_transfers_stop(struct ashlar_pool *p, uint64_t volume)
{
	struct pool_transfer *t;

	list_for_each (t, &p->transfers, link)
		if (t->volumes[0] == volume || t->volumes[1] == volume)
			transfer_stop(t);
}

void pool_co_transfers_stop(struct ashlar_pool *p)
{
	struct pool_transfer *t;

	while (!list_is_empty(&p->transfers)) {
		list_for_each (t, &p->transfers, link)
			transfer_stop(t);
		co_queue_wait(&p->idle);
	}
}

int pool_transfer_check(const struct pool_transfer *t, struct err *e)
{
	if (t->p->failed)
		return err_set(e, -ERR_POOL_FAILED, "pool %s has stopped: %s", t->p->label->name, t->p->failed_why);
	if (t->stopping)
		return err_set(e, -ESHUTDOWN, "the transfer was stopped: the pool is being closed, or a volume deleted");
	return 0;
}

int pool_transfer_co_admin(struct pool_transfer *t, struct err *e)
{
	struct co_mutex *admin = &t->p->a->admin;
	int r;

	while ((r = pool_transfer_check(t, e)) == 0 && admin->owner)
		co_sleep_ns(ADMIN_RETRY_NS);
	if (r == 0)
		co_mutex_lock(admin); /* it is free: does not suspend */
	return r;
}

/* ---- reading ahead ---- */

void stream_reader_init(struct stream_reader *r, struct stream *io)
{
	*r = (struct stream_reader){ .io = io, .buf = xmalloc(STREAM_READER_BYTES) };
}

void stream_reader_fini(struct stream_reader *r)
{
	xfree(r->buf);
}

/* Coroutine. Some bytes, straight to where they belong if they are many. */
static int64_t reader_co_some(struct stream_reader *r, void *buf, size_t len)
{
	int64_t n;

	if (len >= STREAM_READER_BYTES)
		return stream_co_recv(r->io, buf, len);
	n = stream_co_recv(r->io, r->buf, STREAM_READER_BYTES);
	if (n <= 0)
		return n;
	r->at = MIN((size_t)n, len);
	r->len = (size_t)n;
	memcpy(buf, r->buf, r->at);
	return (int64_t)r->at;
}

int stream_reader_co_read(struct stream_reader *r, void *buf, size_t len)
{
	size_t k = MIN(len, r->len - r->at);
	uint8_t *to = buf;
	int64_t n;

	memcpy(to, r->buf + r->at, k);
	r->at += k;
	r->n_bytes += len;
	for (to += k, len -= k; len; to += n, len -= (size_t)n) {
		n = reader_co_some(r, to, len);
		if (n <= 0)
			return n ? (int)n : -ECONNRESET;
	}
	return 0;
}

/* ---- batches ---- */

void batch_init(struct batch *b, struct bdev *bdev, struct reactor *home, bool is_write)
{
	memset(b, 0, sizeof(*b));
	b->b = bdev;
	b->home = home;
	b->is_write = is_write;
	b->mem = xaligned(4096, BATCH_BYTES);
	co_queue_init(&b->ended);
}

void batch_fini(struct batch *b)
{
	CHECK(!b->is_running);
	xfree(b->mem);
}

void batch_clear(struct batch *b)
{
	CHECK(!b->is_running);
	b->n = 0;
	b->used = 0;
	b->result = 0;
}

struct batch_piece *batch_add(struct batch *b, uint8_t type, uint64_t off_bytes, uint64_t len_bytes)
{
	struct batch_piece *x = &b->v[b->n++];

	CHECK(!b->is_running && b->n <= BATCH_PIECES);
	*x = (struct batch_piece){ .type = type, .off_bytes = off_bytes, .len_bytes = len_bytes, .buf = b->mem + b->used };
	if (type != STREAM_DATA)
		return x;
	CHECK(len_bytes <= BATCH_BYTES - b->used);
	b->used += (uint32_t)len_bytes;
	return x;
}

static int batch_there(void *arg)
{
	struct batch *b = arg;
	struct co_join j;
	unsigned i;

	co_join_init(&j);
	for (i = 0; i < b->n; i++) {
		struct batch_piece *x = &b->v[i];

		if (x->type == STREAM_DATA)
			io_prep(&x->io, b->is_write ? IO_WRITE : IO_READ, x->off_bytes, x->len_bytes, x->buf, 0);
		else if (b->is_write)
			io_prep(&x->io, IO_ZERO, x->off_bytes, x->len_bytes, NULL, 0);
		else
			continue;
		bdev_submit_join(b->b, &x->io, &j);
	}
	return co_join_wait(&j);
}

static void batch_co_run(void *arg)
{
	struct batch *b = arg;

	b->result = reactor_co_call(b->home, batch_there, b);
	b->is_running = false;
	co_queue_wake_all(&b->ended);
}

void batch_start(struct batch *b)
{
	CHECK(!b->is_running);
	if (!b->n)
		return;
	b->is_running = true;
	co_spawn(CO_SERVICE, batch_co_run, b, "transfer batch");
}

int batch_co_wait(struct batch *b)
{
	while (b->is_running)
		co_queue_wait(&b->ended);
	return b->result;
}
