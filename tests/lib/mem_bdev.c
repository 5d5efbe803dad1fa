#include "tests/lib/mem_bdev.h"

#include <string.h>

#include "engine/base/hash.h"
#include "engine/base/units.h"

#define CHUNK_BYTES (64 * KIB)
#define GRANULES (CHUNK_BYTES / PAGE_BYTES)

struct chunk {
	struct hash_node node; /* key: number of the chunk */
	uint16_t valid;	       /* granules that hold data */
	uint8_t *data;
};

struct mem_bdev {
	struct bdev bdev;
	struct mem_bdev_options o;
	struct hash chunks;
	struct list pending;   /* io.link, by deadline (scratch[0]) */
	struct task task;
	struct timer timer;
	uint64_t n_ops[8], n_fua, in_flight, bytes_now, bytes_max;
};

static struct chunk *chunk_find(const struct mem_bdev *m, uint64_t off)
{
	struct hash_node *n = hash_find(&m->chunks, off / CHUNK_BYTES);

	return n ? container_of(n, struct chunk, node) : NULL;
}

static struct chunk *chunk_get(struct mem_bdev *m, uint64_t off)
{
	struct chunk *c = chunk_find(m, off);

	if (c)
		return c;
	c = xcalloc(1, sizeof(*c));
	c->data = xaligned(PAGE_BYTES, CHUNK_BYTES);
	memset(c->data, 0, CHUNK_BYTES);
	hash_add(&m->chunks, &c->node, off / CHUNK_BYTES);
	return c;
}

/* Granules that [in, in+len) of a chunk touches, or (whole) covers entirely. */
static uint16_t granules(uint64_t in, uint64_t len, bool whole)
{
	uint64_t a = whole ? DIV_UP(in, PAGE_BYTES) : in / PAGE_BYTES;
	uint64_t b = whole ? (in + len) / PAGE_BYTES : DIV_UP(in + len, PAGE_BYTES);

	return a >= b ? 0 : (uint16_t)(((1u << b) - 1) & ~((1u << a) - 1));
}

static uint64_t in_chunk(uint64_t off, uint64_t len)
{
	return MIN(len, CHUNK_BYTES - off % CHUNK_BYTES);
}

static void do_read(struct mem_bdev *m, struct io *io)
{
	uint64_t done, n;
	struct chunk *c;

	for (done = 0; done < io->len_bytes; done += n) {
		n = in_chunk(io->off_bytes + done, io->len_bytes - done);
		c = chunk_find(m, io->off_bytes + done);
		if (c)
			iov_from_buf(io->iov, io->iov_n, done, c->data + (io->off_bytes + done) % CHUNK_BYTES, n);
		else
			iov_zero(io->iov, io->iov_n, done, n);
	}
}

static void do_write(struct mem_bdev *m, struct io *io)
{
	uint64_t done, n, off;
	struct chunk *c;

	for (done = 0; done < io->len_bytes; done += n) {
		off = io->off_bytes + done;
		n = in_chunk(off, io->len_bytes - done);
		c = chunk_get(m, off);
		iov_to_buf(io->iov, io->iov_n, done, c->data + off % CHUNK_BYTES, n);
		c->valid |= granules(off % CHUNK_BYTES, n, false);
	}
}

static void do_zero(struct mem_bdev *m, struct io *io)
{
	bool keep = io->op == IO_ZERO && (io->flags & IO_NO_HOLE);
	uint64_t done, n, off;
	struct chunk *c;

	for (done = 0; done < io->len_bytes; done += n) {
		off = io->off_bytes + done;
		n = in_chunk(off, io->len_bytes - done);
		c = keep ? chunk_get(m, off) : chunk_find(m, off);
		if (!c)
			continue;
		memset(c->data + off % CHUNK_BYTES, 0, n);
		if (keep)
			c->valid |= granules(off % CHUNK_BYTES, n, false);
		else
			c->valid &= (uint16_t)~granules(off % CHUNK_BYTES, n, true);
	}
}

static int do_io(struct mem_bdev *m, struct io *io)
{
	int r = m->o.fault ? m->o.fault(m->o.fault_arg, io) : 0;

	if (r < 0)
		return r;
	switch (io->op) {
	case IO_READ:
		do_read(m, io);
		return 0;
	case IO_WRITE:
		do_write(m, io);
		return 0;
	case IO_ZERO:
		if ((io->flags & IO_FAST_ZERO) && m->o.no_fast_zero)
			return -EOPNOTSUPP;
		/* fall through */
	case IO_DISCARD:
		do_zero(m, io);
		return 0;
	default:
		return 0;
	}
}

static void run(struct mem_bdev *m)
{
	uint64_t now = reactor_now_ns();
	struct list due;
	struct list *n;
	struct io *io;
	int r;

	list_init(&due);
	while (!list_is_empty(&m->pending) && list_first(&m->pending, struct io, link)->scratch[0] <= now) {
		n = list_pop_front(&m->pending);
		list_push_back(&due, n);
	}
	if (!list_is_empty(&m->pending))
		timer_arm(&m->timer, list_first(&m->pending, struct io, link)->scratch[0]);
	while ((n = list_pop_front(&due))) {
		io = list_entry(n, struct io, link);
		r = do_io(m, io);
		m->in_flight--;
		m->bytes_now -= io->iov_n ? io->len_bytes : 0;
		io_done(io, r);
	}
}

static void task_run(struct task *t)
{
	run(container_of(t, struct mem_bdev, task));
}

static void timer_run(struct timer *t)
{
	run(container_of(t, struct mem_bdev, timer));
}

static void mem_submit(struct bdev *b, struct io *io)
{
	struct mem_bdev *m = container_of(b, struct mem_bdev, bdev);
	struct list *at = m->pending.prev;

	CHECK(io->op == IO_FLUSH || bdev_check_range(b, io->off_bytes, io->len_bytes) == 0);
	CHECK(io->op == IO_FLUSH || io->len_bytes <= b->max_bytes);
	m->n_ops[io->op]++;
	m->n_fua += io->flags & IO_FUA ? 1 : 0;
	m->in_flight++;
	m->bytes_now += io->iov_n ? io->len_bytes : 0;
	m->bytes_max = MAX(m->bytes_max, m->bytes_now);
	io->scratch[0] = reactor_now_ns() + m->o.delay_ns;
	while (at != &m->pending && list_entry(at, struct io, link)->scratch[0] > io->scratch[0])
		at = at->prev;
	list_add_between(&io->link, at, at->next);
	if (m->o.delay_ns)
		timer_arm(&m->timer, list_first(&m->pending, struct io, link)->scratch[0]);
	else if (list_is_empty(&m->task.link))
		reactor_ready(&m->task);
}

static uint32_t state_at(const struct mem_bdev *m, uint64_t off)
{
	struct chunk *c = chunk_find(m, off);

	return c && (c->valid & 1u << off % CHUNK_BYTES / PAGE_BYTES) ? 0 : BDEV_HOLE | BDEV_ZERO;
}

static int mem_status(struct bdev *b, uint64_t off, uint64_t len, struct bdev_extent *ext, size_t *n)
{
	struct mem_bdev *m = container_of(b, struct mem_bdev, bdev);
	uint64_t end = off + len, step;
	size_t used = 0;
	uint32_t f;

	for (; off < end; off += step) {
		step = MIN(chunk_find(m, off) ? PAGE_BYTES - off % PAGE_BYTES : CHUNK_BYTES - off % CHUNK_BYTES, end - off);
		f = state_at(m, off);
		if (used && ext[used - 1].flags == f) {
			ext[used - 1].len_bytes += step;
			continue;
		}
		if (used == *n)
			break;
		ext[used++] = (struct bdev_extent){step, f};
	}
	*n = used;
	return 0;
}

static const struct bdev_ops mem_ops = {.submit = mem_submit, .co_status = mem_status};

struct mem_bdev *mem_bdev_create(const struct mem_bdev_options *o)
{
	struct mem_bdev *m = xcalloc(1, sizeof(*m));

	m->o = *o;
	m->bdev = (struct bdev){
		.ops = &mem_ops,
		.name = "mem",
		.size_bytes = o->size_bytes,
		.block_bytes = o->block_bytes ? o->block_bytes : 512,
		.opt_bytes = o->opt_bytes ? o->opt_bytes : 4096,
		.max_bytes = o->max_bytes ? o->max_bytes : (uint32_t)MIB,
		.copies = 1,
		.read_only = o->read_only,
		.can_discard = !o->no_discard,
	};
	hash_init(&m->chunks);
	list_init(&m->pending);
	list_init(&m->task.link);
	m->task.run = task_run;
	m->timer.fire = timer_run;
	return m;
}

static bool chunk_free(struct hash_node *n, void *arg)
{
	struct chunk *c = container_of(n, struct chunk, node);

	hash_del(arg, n);
	xfree(c->data);
	xfree(c);
	return true;
}

void mem_bdev_destroy(struct mem_bdev *m)
{
	CHECK(!m->in_flight);
	timer_cancel(&m->timer);
	hash_each(&m->chunks, chunk_free, &m->chunks);
	hash_fini(&m->chunks);
	xfree(m);
}

struct bdev *mem_bdev_of(struct mem_bdev *m) { return &m->bdev; }
struct mem_bdev_options *mem_bdev_options(struct mem_bdev *m) { return &m->o; }
uint64_t mem_bdev_count(const struct mem_bdev *m, enum io_op op) { return m->n_ops[op]; }
uint64_t mem_bdev_count_fua(const struct mem_bdev *m) { return m->n_fua; }
uint64_t mem_bdev_in_flight(const struct mem_bdev *m) { return m->in_flight; }
uint64_t mem_bdev_in_flight_bytes_max(const struct mem_bdev *m) { return m->bytes_max; }

void mem_bdev_peek(const struct mem_bdev *m, uint64_t off_bytes, void *buf, size_t len)
{
	struct iovec v = {buf, len};
	struct io io = {.op = IO_READ, .iov = &v, .iov_n = 1, .off_bytes = off_bytes, .len_bytes = len};

	do_read((struct mem_bdev *)m, &io);
}

void mem_bdev_poke(struct mem_bdev *m, uint64_t off_bytes, const void *buf, size_t len)
{
	struct iovec v = {(void *)buf, len};
	struct io io = {.op = IO_WRITE, .iov = &v, .iov_n = 1, .off_bytes = off_bytes, .len_bytes = len};

	do_write(m, &io);
}
