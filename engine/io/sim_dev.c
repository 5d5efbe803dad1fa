/*
 * Disks as a simulated world opens them, and the moments of a request: submitted, applied, done.
 */
#include "engine/io/sim_world.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/units.h"

#define DEV_MAX_BYTES (1u << 20)
#define SLAB_REQS 64

struct sim_req_slab {
	struct sim_req_slab *next;
	struct sim_req reqs[SLAB_REQS];
};

struct dev {
	struct disk disk; /* first */
	struct list link; /* in world->handles */
	struct sim_disk *sim;
	unsigned n_inflight, incarnation;
	uint64_t busy_until_ns; /* with what has come so far, if disks have a rate */
	bool has_write_lock, has_read_lock;
};

static struct dev *dev_of(struct disk *d)
{
	return container_of(d, struct dev, disk);
}

/* The device behind the handle was taken away, whatever has come in its place. */
static bool is_dead(const struct dev *dev)
{
	return dev->incarnation != dev->sim->incarnation;
}

static void count(_Atomic uint64_t *c, uint64_t n)
{
	atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}

/* ---- requests ---- */

static struct sim_req *req_alloc(struct sim_world *w)
{
	struct sim_req_slab *s;
	struct list *n = list_pop_front(&w->free_reqs);
	struct sim_req *q;
	unsigned i;

	if (!n) {
		s = sim_alloc(sizeof(*s));
		s->next = w->slabs;
		w->slabs = s;
		for (i = 0; i < SLAB_REQS; i++)
			list_push_back(&w->free_reqs, &s->reqs[i].link);
		n = list_pop_front(&w->free_reqs);
	}
	q = list_entry(n, struct sim_req, link);
	*q = (struct sim_req){ 0 };
	list_init(&q->link);
	return q;
}

static void check_io(const struct dev *dev, const struct io *io)
{
	const struct bdev *b = &dev->disk.bdev;
	uint64_t sum = 0;
	unsigned i;

	CHECK(io->op <= IO_ZERO && io->done);
	if (io->op == IO_FLUSH) {
		CHECK(io->len_bytes == 0);
		return;
	}
	CHECK(bdev_check_range(b, io->off_bytes, io->len_bytes) == 0);
	if (io->op != IO_READ && io->op != IO_WRITE)
		return;
	CHECK(io->len_bytes <= b->max_bytes);
	for (i = 0; i < io->iov_n; i++) {
		CHECK(IS_ALIGNED((uintptr_t)io->iov[i].iov_base, b->block_bytes));
		CHECK(IS_ALIGNED(io->iov[i].iov_len, b->block_bytes));
		sum += io->iov[i].iov_len;
	}
	CHECK(sum == io->len_bytes);
}

static void count_submit(struct disk *d, const struct io *io)
{
	if (io->op == IO_WRITE)
		count(&d->bytes_written, io->len_bytes);
	if (io->op == IO_FLUSH)
		count(&d->n_flushes, 1);
	if (io->op == IO_READ) {
		count(&d->n_reads, 1);
		count(&d->bytes_read, io->len_bytes);
	}
}

/* Reaches the disk: chooses when its payload moves and when it ends. */
static void req_start(struct sim_world *w, struct sim_req *q)
{
	uint64_t latency = w->latency_min_ns + rng_below(&w->rng, w->latency_span_ns + 1);
	uint64_t moment = rng_below(&w->rng, 4), from = w->now_ns;

	if (w->disk_bps && (q->io->op == IO_READ || q->io->op == IO_WRITE))
		from = dev_of(q->handle)->busy_until_ns = MAX(from, dev_of(q->handle)->busy_until_ns) + q->io->len_bytes * NS_PER_SEC / w->disk_bps;
	sim_req_submit(q);
	q->done_ns = from + latency + q->stall_ns;
	q->at_ns = q->done_ns;
	if (moment == 0 && !q->disk->faults.hang)
		sim_req_apply(q);
	else if (moment > 1)
		q->at_ns = w->now_ns + rng_below(&w->rng, q->done_ns - w->now_ns + 1);
	sim_world_schedule(w, q);
}

static void dev_submit(struct bdev *b, struct io *io)
{
	struct dev *dev = dev_of(container_of(b, struct disk, bdev));
	struct sim_world *w = sim_world_of(dev->disk.world);
	struct reactor *r = reactor_self();
	struct sim_req *q = req_alloc(w);

	CHECK(r && r->world == &w->world);
	check_io(dev, io);
	count_submit(&dev->disk, io);
	dev->n_inflight++;
	q->disk = dev->sim;
	q->io = io;
	q->reactor = r;
	q->handle = &dev->disk;
	sim_trace(w, (uint64_t)io->op << 56 | (uint64_t)dev->sim->index << 48 | (uint64_t)io->flags << 32 | r->index);
	sim_trace(w, io->off_bytes);
	sim_trace(w, io->len_bytes);
	q->result = is_dead(dev) ? -ENODEV : sim_op_changes(io->op) && b->read_only ? -EROFS : 0;
	if (q->result) {
		q->refused = true;
		q->at_ns = q->done_ns = w->now_ns;
		sim_world_schedule(w, q);
	} else if (sim_disks_is_stopped(w->disks)) {
		list_push_back(&w->parked, &q->link);
	} else {
		req_start(w, q);
	}
}

void sim_dev_unpark(struct sim_world *w)
{
	struct list *n;

	while (!sim_disks_is_stopped(w->disks) && (n = list_pop_front(&w->parked)))
		req_start(w, list_entry(n, struct sim_req, link));
}

static void req_done(struct sim_world *w, struct sim_req *q)
{
	struct io *io = q->io;
	struct reactor *r = q->reactor, *before;
	int result = q->result;

	if (!q->refused)
		result = sim_req_finish(q);
	if (result < 0)
		count(&q->handle->n_errors, 1);
	if (sim_op_changes(io->op))
		count(&q->handle->n_writes, 1);
	if (sim_op_changes(io->op) && (!(io->flags & IO_FUA) || result < 0))
		count(&q->handle->n_volatile, 1);
	dev_of(q->handle)->n_inflight--;
	list_push_front(&w->free_reqs, &q->link);
	sim_trace(w, (uint64_t)(int64_t)result);
	before = reactor_enter(r);
	r->now_ns = w->now_ns;
	io_done(io, result);
	reactor_enter(before);
}

bool sim_dev_step(struct sim_world *w, struct sim_req *q)
{
	sim_trace(w, 0xd0ULL << 32 | (uint64_t)q->disk->index << 8 | q->applied);
	if (q->at_ns >= q->done_ns) {
		req_done(w, q);
		return true;
	}
	sim_req_apply(q);
	q->at_ns = q->done_ns;
	sim_world_schedule(w, q);
	return false;
}

/* ---- open and close ---- */

static void dev_free(struct dev *dev)
{
	if (dev->has_write_lock && !is_dead(dev))
		dev->sim->n_writers--;
	if (dev->has_read_lock && !is_dead(dev))
		dev->sim->n_readers--;
	list_del(&dev->link);
	free(dev->disk.path);
	free(dev);
}

static void dev_close(struct disk *d)
{
	CHECK(dev_of(d)->n_inflight == 0);
	dev_free(dev_of(d));
}

static int dev_refresh(struct disk *d, struct err *e)
{
	struct dev *dev = dev_of(d);

	if (dev->sim->faults.gone || is_dead(dev))
		return err_set(e, -ENODEV, "disk '%s' is gone", d->path);
	d->bdev.size_bytes = dev->sim->size_bytes;
	return 0;
}

static int dev_co_alive(struct disk *d, uint64_t size_bytes, struct err *e)
{
	const struct sim_disk *sim = dev_of(d)->sim;

	if (sim->faults.gone || sim->removed || is_dead(dev_of(d)))
		return err_set(e, -ENODEV, "the device is gone");
	if (sim->faults.deleted)
		return err_set(e, -ENOENT, "its file was deleted");
	if (sim->size_bytes < size_bytes)
		return err_set(e, -EIO, "it has shrunk to %llu bytes", (unsigned long long)sim->size_bytes);
	return 0;
}

static const struct bdev_ops dev_bdev_ops = { .submit = dev_submit };
static const struct disk_ops dev_disk_ops = { .close = dev_close, .refresh = dev_refresh, .co_alive = dev_co_alive };

static int dev_lock(struct dev *dev, unsigned flags, const char *path, struct err *e)
{
	struct sim_disk *d = dev->sim;

	if (!d->n_writers)
		sim_disk_settle(d);
	if (flags & DISK_NO_LOCK)
		return 0;
	if (d->n_writers || (d->n_readers && !(flags & DISK_RDONLY)))
		return err_set(e, -ERR_LOCKED, "disk '%s' is open already; close it there first", path);
	if (flags & DISK_RDONLY) {
		dev->has_read_lock = true;
		d->n_readers++;
	} else {
		dev->has_write_lock = true;
		d->n_writers++;
	}
	return 0;
}

static int find(struct world *w, const char *path, struct sim_disk **out, struct err *e)
{
	*out = sim_disk_find(sim_world_of(w)->disks, path);
	if (!*out)
		return err_set(e, -ENOENT, "disk '%s' does not exist", path);
	if ((*out)->faults.gone)
		return err_set(e, -ENODEV, "disk '%s' is gone", path);
	return 0;
}

/* As a connection is made: mostly soon, sometimes not for seconds, and to nobody in the end. */
static int dev_co_connect(struct world *w, const char *path, struct sim_disk **out, struct err *e)
{
	struct rng *rng = &sim_world_of(w)->rng;

	co_sleep_ns(rng_below(rng, rng_chance(rng, 1, 8) ? 2 * NS_PER_SEC : 5 * NS_PER_MS));
	if (!sim_disk_find(sim_world_of(w)->disks, path) || (*out)->faults.gone) {
		co_sleep_ns(rng_chance(rng, 1, 4) ? 5 * NS_PER_SEC : 1);
		return err_set(e, -ETIMEDOUT, "disk '%s' does not answer", path);
	}
	return find(w, path, out, e);
}

int sim_dev_co_open(struct world *w, const char *path, unsigned flags, struct disk **out, struct err *e)
{
	struct sim_disk *sim;
	struct dev *dev;
	int r = find(w, path, &sim, e);

	if (sim && sim->is_remote && co_self())
		r = dev_co_connect(w, path, &sim, e);
	if (r < 0)
		return r;
	dev = sim_alloc(sizeof(*dev));
	list_init(&dev->link);
	dev->sim = sim;
	dev->incarnation = sim->incarnation;
	r = dev_lock(dev, flags, path, e);
	if (r < 0) {
		dev_free(dev);
		return r;
	}
	dev->disk.world = w;
	dev->disk.ops = &dev_disk_ops;
	dev->disk.path = sim_strdup(path);
	dev->disk.is_block = true;
	dev->disk.ident[0] = 0x53494d;
	dev->disk.ident[1] = sim->index;
	dev->disk.bdev = (struct bdev){
		.ops = &dev_bdev_ops, .name = dev->disk.path, .size_bytes = sim->size_bytes,
		.block_bytes = sim->block_bytes, .opt_bytes = SIM_PAGE_BYTES, .max_bytes = DEV_MAX_BYTES, .copies = 1,
		.read_only = (flags & (DISK_RDONLY | DISK_NO_LOCK)) != 0, .can_discard = true,
	};
	list_push_back(&sim_world_of(w)->handles, &dev->link);
	*out = &dev->disk;
	return 0;
}

int sim_dev_probe(struct world *w, const char *path, char *what, size_t len, struct err *e)
{
	struct sim_disk *sim;
	int r = find(w, path, &sim, e);
	size_t n;

	if (r < 0 || !sim->signature)
		return r;
	if (len) {
		n = MIN(strlen(sim->signature), len - 1);
		memcpy(what, sim->signature, n);
		what[n] = 0;
	}
	return 1;
}

void sim_dev_fini(struct sim_world *w)
{
	struct sim_req_slab *s;
	struct sim_disk *d;
	struct sim_req *q, *next;
	unsigned i;

	for (i = 0; i < w->disks->n; i++) {
		d = w->disks->disks[i];
		list_for_each_safe(q, next, &d->inflight, link)
			if (q->reactor->world == &w->world)
				sim_req_drop(q);
	}
	while (!list_is_empty(&w->handles))
		dev_free(list_first(&w->handles, struct dev, link));
	while ((s = w->slabs)) {
		w->slabs = s->next;
		free(s);
	}
}
