/*
 * I/O of real disks: turning requests into steps for the kernel and what it says into results.
 *
 * A short transfer is continued for the rest; nothing transferred at all means the end of the device: -EIO. Discard and
 * zero are fallocate() (a command of the block layer for discards of block devices), with zeros written where that is
 * refused, and a flush after them for IO_FUA.
 */
#include <errno.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "engine/io/real_priv.h"

#define ZEROS_BYTES 65536u
#define ZEROS_IOV 16

/* Steps of discard and zero */
enum { STAGE_FIRST, STAGE_FALLOCATE, STAGE_WRITE, STAGE_SYNC };

static const char zeros[ZEROS_BYTES] __attribute__((aligned(4096)));
#define Z { (void *)(uintptr_t)zeros, ZEROS_BYTES }
static const struct iovec zeros_iov[ZEROS_IOV] = { Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z };
#undef Z

static inline bool flag_get(_Atomic bool *f)
{
	return atomic_load_explicit(f, memory_order_relaxed);
}

static inline void flag_set(_Atomic bool *f)
{
	atomic_store_explicit(f, true, memory_order_relaxed);
}

static inline void count(_Atomic uint64_t *c, uint64_t n)
{
	atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}

/* ---- read and write ---- */

unsigned uio_left(struct io *io, struct iovec *one, const struct iovec **iov)
{
	struct uio *s = uio_of(io);

	if (io->iov_n == 1) {
		one->iov_base = (char *)io->iov->iov_base + s->at_bytes;
		one->iov_len = io->len_bytes - s->at_bytes;
		*iov = one;
		return 1;
	}
	if (likely(s->at_bytes == 0)) {
		*iov = io->iov;
		return io->iov_n;
	}
	if (!s->rest)
		s->rest = xmalloc(io->iov_n * sizeof(*s->rest));
	*iov = s->rest;
	return iov_slice(io->iov, io->iov_n, s->at_bytes, io->len_bytes - s->at_bytes, s->rest, io->iov_n);
}

static inline void submit_rw(struct ur *u, struct io *io)
{
	if (unlikely(uio_of(io)->disk->by_aio) && ur_aio_is_usable(u))
		ur_aio_queue(u, io);
	else
		u->w->ops->rw(u, io);
}

/* ---- flush, discard, zero ---- */

static bool is_in_place(const struct io *io)
{
	return io->op == IO_ZERO && (io->flags & IO_NO_HOLE);
}

static void queue_fallocate(struct ur *u, struct io *io)
{
	uio_of(io)->stage = STAGE_FALLOCATE;
	u->w->ops->fallocate(u, io, FALLOC_FL_KEEP_SIZE | (is_in_place(io) ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE));
}

static void queue_zeros(struct ur *u, struct io *io)
{
	struct uio *s = uio_of(io);
	uint64_t left = io->len_bytes - s->at_bytes, off = io->off_bytes + s->at_bytes;
	struct iovec last = { (void *)(uintptr_t)zeros, left };

	s->stage = STAGE_WRITE;
	if (left <= ZEROS_BYTES)
		u->w->ops->zeros(u, io, &last, 1, off);
	else
		u->w->ops->zeros(u, io, zeros_iov, (unsigned)MIN(left / ZEROS_BYTES, (uint64_t)ZEROS_IOV), off);
}

static int zero_refused(struct ur *u, struct io *io)
{
	if (io->flags & IO_FAST_ZERO)
		return -EOPNOTSUPP;
	queue_zeros(u, io);
	return 0;
}

/* ---- completion ---- */

static void finish(struct udisk *d, struct io *io, int result)
{
	struct uio *s = uio_of(io);

	if (unlikely(s->rest)) {
		xfree(s->rest);
		s->rest = NULL;
	}
	if (unlikely(result < 0 && result != -EOPNOTSUPP))
		count(&d->disk.n_errors, 1);
	io_done(io, result);
}

/* Requests that need nobody below: by way of the ready list, for `done` never runs inside submit. */
static void soon_run(struct task *t)
{
	struct ur *u = container_of(t, struct ur, soon_task);
	struct list now, *n;
	struct io *io;

	list_init(&now);
	list_splice_back(&now, &u->soon);
	while ((n = list_pop_front(&now))) {
		io = list_entry(n, struct io, link);
		finish(uio_of(io)->disk, io, io->result);
	}
}

static void soon(struct ur *u, struct io *io, int result)
{
	io->result = result;
	list_push_back(&u->soon, &io->link);
	if (list_is_empty(&u->soon_task.link)) {
		u->soon_task.run = soon_run;
		reactor_ready(&u->soon_task);
	}
}

static struct ur_slot *slot_to_count(struct ur *u, struct udisk *d)
{
	struct ur_slot *slot;

	if (unlikely(d->slot < 0))
		return NULL;
	slot = &u->slots[d->slot];
	if (!slot->counted) {
		slot->counted = d;
		flag_set(&d->is_used_by[u->r.index]); /* closing waits until the counts are published */
		u->counted[u->n_counted++] = (uint8_t)d->slot;
	}
	return slot;
}

/* n_volatile is exact at `done`, for flushes are skipped by it; the others lag behind by at most a loop. */
static void count_rw(struct ur *u, struct udisk *d, struct io *io)
{
	struct ur_slot *slot = slot_to_count(u, d);

	if (io->op == IO_WRITE) {
		count(&d->disk.n_writes, 1);
		if (!(io->flags & IO_FUA))
			count(&d->disk.n_volatile, 1);
		if (likely(slot))
			slot->bytes_written += io->len_bytes;
		else
			count(&d->disk.bytes_written, io->len_bytes);
	} else if (likely(slot)) {
		slot->n_reads++;
		slot->bytes_read += io->len_bytes;
	} else {
		count(&d->disk.n_reads, 1);
		count(&d->disk.bytes_read, io->len_bytes);
	}
}

void ur_publish_counts(struct ur *u)
{
	struct ur_slot *slot;
	struct disk *d;
	unsigned i;

	for (i = 0; i < u->n_counted; i++) {
		slot = &u->slots[u->counted[i]];
		d = &slot->counted->disk;
		if (slot->n_reads) {
			count(&d->n_reads, slot->n_reads);
			count(&d->bytes_read, slot->bytes_read);
		}
		if (slot->bytes_written)
			count(&d->bytes_written, slot->bytes_written);
		slot->n_reads = slot->bytes_read = slot->bytes_written = 0;
		slot->counted = NULL;
	}
	u->n_counted = 0;
}

static void complete_rw(struct ur *u, struct udisk *d, struct io *io, int res)
{
	struct uio *s = uio_of(io);

	if (likely(res > 0)) {
		s->at_bytes += (unsigned)res;
		CHECK(s->at_bytes <= io->len_bytes);
		if (likely(s->at_bytes == io->len_bytes)) {
			count_rw(u, d, io);
			finish(d, io, 0);
			return;
		}
		res = -EINTR; /* go on */
	}
	if (res == -EINTR || res == -EAGAIN)
		submit_rw(u, io);
	else
		finish(d, io, res == 0 ? -EIO : res);
}

static bool is_unsupported(int res)
{
	return res == -EOPNOTSUPP || res == -ENOSYS || res == -EINVAL || res == -ENOTTY;
}

/* One step of a discard or zero has ended well; the whole, but for IO_FUA. */
static void range_is_done(struct ur *u, struct udisk *d, struct io *io)
{
	struct uio *s = uio_of(io);

	if (s->stage != STAGE_SYNC) {
		count(&d->disk.n_writes, 1);
		count(&d->disk.n_volatile, 1); /* something that a flush has to cover */
		if ((io->flags & IO_FUA) && !d->flush_is_nothing) {
			s->stage = STAGE_SYNC;
			u->w->ops->fsync(u, io);
			return;
		}
	}
	finish(d, io, 0);
}

static void complete_range(struct ur *u, struct udisk *d, struct io *io, int res)
{
	struct uio *s = uio_of(io);

	if (res == -EINTR || res == -EAGAIN) {
		if (s->stage == STAGE_SYNC)
			u->w->ops->fsync(u, io);
		else if (s->stage == STAGE_WRITE)
			queue_zeros(u, io);
		else
			queue_fallocate(u, io);
		return;
	}
	if (s->stage == STAGE_WRITE && res > 0) {
		s->at_bytes += (unsigned)res;
		if (s->at_bytes < io->len_bytes) {
			queue_zeros(u, io);
			return;
		}
	} else if (s->stage == STAGE_WRITE && res == 0) {
		res = -EIO;
	} else if (s->stage == STAGE_FIRST && is_unsupported(res)) {
		flag_set(&d->no_discard_cmd);
		queue_fallocate(u, io);
		return;
	} else if (s->stage == STAGE_FALLOCATE && is_unsupported(res)) {
		flag_set(&d->no_zero[is_in_place(io)]);
		res = io->op == IO_DISCARD ? 0 : zero_refused(u, io);
		if (res == 0 && io->op == IO_ZERO)
			return;
	}
	if (res < 0)
		finish(d, io, res);
	else
		range_is_done(u, d, io);
}

void udisk_complete(struct ur *u, struct io *io, int res)
{
	struct udisk *d = uio_of(io)->disk;

	if (likely(io->op <= IO_WRITE)) {
		complete_rw(u, d, io, res);
	} else if (io->op == IO_FLUSH) {
		if (res == -EINTR || res == -EAGAIN) {
			u->w->ops->fsync(u, io);
			return;
		}
		if (res == 0)
			count(&d->disk.n_flushes, 1);
		finish(d, io, res);
	} else {
		complete_range(u, d, io, res);
	}
}

/* ---- submission ---- */

static void submit_range(struct ur *u, struct udisk *d, struct io *io)
{
	if (io->op == IO_DISCARD && d->disk.is_block && !flag_get(&d->no_discard_cmd))
		u->w->ops->discard(u, io);
	else if (!flag_get(&d->no_zero[is_in_place(io)]))
		queue_fallocate(u, io);
	else if (io->op == IO_DISCARD || (io->flags & IO_FAST_ZERO))
		soon(u, io, io->op == IO_DISCARD ? 0 : -EOPNOTSUPP);
	else
		queue_zeros(u, io);
}

static void udisk_submit(struct bdev *b, struct io *io)
{
	struct udisk *d = container_of(b, struct udisk, disk.bdev);
	struct ur *u = ur_self();

	*uio_of(io) = (struct uio){ .disk = d };
	if (likely(io->op <= IO_WRITE)) {
		CHECK(io->op == IO_READ || !b->read_only);
		submit_rw(u, io);
	} else if (io->op == IO_FLUSH) {
		if (!d->flush_is_nothing) {
			u->w->ops->fsync(u, io);
			return;
		}
		count(&d->disk.n_flushes, 1);
		soon(u, io, 0);
	} else {
		CHECK(!b->read_only);
		submit_range(u, d, io);
	}
}

/* Where nothing is from there on: the end of what is known to be nothing. What has been cut off a file is not nothing. */
static off_t nothing_until(const struct udisk *d, uint64_t off_bytes, uint64_t len_bytes)
{
	off_t end = lseek(d->fd, 0, SEEK_END);

	return end < 0 || (uint64_t)end >= off_bytes + len_bytes ? (off_t)(off_bytes + len_bytes) : MAX((off_t)off_bytes, end);
}

/* Where a file has nothing, by its file system. Asks the kernel, which does not look at data; where that may have to ask somebody else
 * first, it is not asked. */
static int udisk_co_status(struct bdev *b, uint64_t off_bytes, uint64_t len_bytes, struct bdev_extent *ext, size_t *n)
{
	struct udisk *d = container_of(b, struct udisk, disk.bdev);
	off_t data = d->disk.is_block || d->by_worker ? (off_t)off_bytes : lseek(d->fd, (off_t)off_bytes, SEEK_DATA), end;
	uint64_t stop;

	CHECK(*n > 0);
	*n = 1;
	*ext = (struct bdev_extent){ .len_bytes = len_bytes };
	if (data < 0 && errno == ENXIO)
		data = nothing_until(d, off_bytes, len_bytes);
	if (data < 0 || d->disk.is_block || d->by_worker)
		return 0;
	stop = ALIGN_DOWN((uint64_t)data, (uint64_t)b->block_bytes);
	if (stop > off_bytes) {
		*ext = (struct bdev_extent){ .len_bytes = MIN(len_bytes, stop - off_bytes), .flags = BDEV_HOLE | BDEV_ZERO };
		return 0;
	}
	end = lseek(d->fd, data, SEEK_HOLE); /* fails behind the end: reading there will, too */
	if (end > data && ALIGN_UP((uint64_t)end, (uint64_t)b->block_bytes) < off_bytes + len_bytes)
		ext->len_bytes = ALIGN_UP((uint64_t)end, (uint64_t)b->block_bytes) - off_bytes;
	return 0;
}

static const struct bdev_ops udisk_bdev_ops = { .submit = udisk_submit, .co_status = udisk_co_status };

void udisk_init(struct udisk *d)
{
	d->disk.bdev.ops = &udisk_bdev_ops;
	d->disk.ops = &udisk_ops;
}
