#include "engine/io/bdev.h"

#include <string.h>

void io_prep(struct io *io, enum io_op op, uint64_t off_bytes, uint64_t len_bytes, void *buf, unsigned flags)
{
	io->op = (uint8_t)op;
	io->copy = 0;
	io->flags = (uint16_t)flags;
	io->iov_n = buf ? 1 : 0;
	io->off_bytes = off_bytes;
	io->len_bytes = len_bytes;
	io->iov = &io->one;
	io->one.iov_base = buf;
	io->one.iov_len = buf ? len_bytes : 0;
	io->result = 0;
	list_init(&io->link);
}

int bdev_check_range(const struct bdev *b, uint64_t off_bytes, uint64_t len_bytes)
{
	if (len_bytes == 0 || !IS_ALIGNED(off_bytes | len_bytes, b->block_bytes))
		return -EINVAL;
	if (off_bytes > b->size_bytes || len_bytes > b->size_bytes - off_bytes)
		return -ERANGE;
	return 0;
}

/* ---- coroutine wrappers ---- */

struct co_io {
	struct co *waiter; /* NULL while the submitter has not suspended */
	bool done;
};

static void co_io_done(struct io *io)
{
	struct co_io *c = io->owner;

	c->done = true;
	if (c->waiter)
		co_wake(c->waiter);
}

bool io_is_of_co(const struct io *io, const struct co *co)
{
	return io->done == co_io_done && ((const struct co_io *)io->owner)->waiter == co;
}

int bdev_co_submit(struct bdev *b, struct io *io)
{
	struct co_io c = { 0 };

	io->done = co_io_done;
	io->owner = &c;
	bdev_submit(b, io);
	if (!c.done) {
		c.waiter = co_self();
		co_suspend();
	}
	return io->result;
}

int bdev_co_read(struct bdev *b, uint64_t off_bytes, void *buf, uint64_t len_bytes)
{
	return bdev_co_read_copy(b, off_bytes, buf, len_bytes, 0);
}

int bdev_co_read_copy(struct bdev *b, uint64_t off_bytes, void *buf, uint64_t len_bytes, unsigned copy)
{
	struct io io;

	io_prep(&io, IO_READ, off_bytes, len_bytes, buf, 0);
	io.copy = (uint8_t)copy;
	return bdev_co_submit(b, &io);
}

int bdev_co_write(struct bdev *b, uint64_t off_bytes, const void *buf, uint64_t len_bytes, unsigned flags)
{
	struct io io;

	io_prep(&io, IO_WRITE, off_bytes, len_bytes, (void *)(uintptr_t)buf, flags);
	return bdev_co_submit(b, &io);
}

int bdev_co_flush(struct bdev *b)
{
	struct io io;

	io_prep(&io, IO_FLUSH, 0, 0, NULL, 0);
	return bdev_co_submit(b, &io);
}

int bdev_co_zero(struct bdev *b, uint64_t off_bytes, uint64_t len_bytes, unsigned flags)
{
	struct io io;

	io_prep(&io, IO_ZERO, off_bytes, len_bytes, NULL, flags);
	return bdev_co_submit(b, &io);
}

int bdev_co_discard(struct bdev *b, uint64_t off_bytes, uint64_t len_bytes, unsigned flags)
{
	struct io io;

	io_prep(&io, IO_DISCARD, off_bytes, len_bytes, NULL, flags);
	return bdev_co_submit(b, &io);
}

int bdev_co_status(struct bdev *b, uint64_t off_bytes, uint64_t len_bytes, struct bdev_extent *ext, size_t *n)
{
	if (b->ops->co_status)
		return b->ops->co_status(b, off_bytes, len_bytes, ext, n);
	CHECK(*n > 0);
	ext[0] = (struct bdev_extent){ .len_bytes = len_bytes };
	*n = 1;
	return 0;
}

int bdev_co_compare_write(struct bdev *b, struct bdev_compare *c)
{
	return b->ops->co_compare_write ? b->ops->co_compare_write(b, c) : -EOPNOTSUPP;
}

static void join_io_done(struct io *io)
{
	co_join_done(io->owner, io->result);
}

void bdev_submit_join(struct bdev *b, struct io *io, struct co_join *j)
{
	io->done = join_io_done;
	io->owner = j;
	co_join_add(j);
	bdev_submit(b, io);
}

/* ---- iovec lists ---- */

/* Goes to byte `skip` of the list: *i is the entry, the return value the offset in it. */
static size_t iov_seek(const struct iovec *iov, unsigned n, uint64_t skip, unsigned *i)
{
	for (*i = 0; *i < n && skip >= iov[*i].iov_len; (*i)++)
		skip -= iov[*i].iov_len;
	CHECK(*i < n || skip == 0);
	return skip;
}

enum copy_dir { FROM_IOV, TO_IOV, ZERO_IOV };

static void iov_walk(const struct iovec *iov, unsigned n, uint64_t skip, char *buf, uint64_t len, enum copy_dir dir)
{
	unsigned i;
	size_t at = iov_seek(iov, n, skip, &i), part;
	char *p;

	for (; len > 0; i++, at = 0) {
		CHECK(i < n);
		part = MIN(iov[i].iov_len - at, len);
		if (part == 0) /* an empty entry may have no address */
			continue;
		p = (char *)iov[i].iov_base + at;
		if (dir == FROM_IOV)
			memcpy(buf, p, part);
		else if (dir == TO_IOV)
			memcpy(p, buf, part);
		else
			memset(p, 0, part);
		len -= part;
		if (buf)
			buf += part;
	}
}

void iov_to_buf(const struct iovec *iov, unsigned n, uint64_t skip, void *buf, uint64_t len)
{
	iov_walk(iov, n, skip, buf, len, FROM_IOV);
}

void iov_from_buf(const struct iovec *iov, unsigned n, uint64_t skip, const void *buf, uint64_t len)
{
	iov_walk(iov, n, skip, (char *)(uintptr_t)buf, len, TO_IOV);
}

void iov_zero(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t len)
{
	iov_walk(iov, n, skip, NULL, len, ZERO_IOV);
}

unsigned iov_slice(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t len, struct iovec *out, unsigned cap)
{
	unsigned i, k = 0;
	size_t at = iov_seek(iov, n, skip, &i);

	for (; len > 0; i++, at = 0) {
		CHECK(i < n);
		if (iov[i].iov_len == at)
			continue;
		if (k == cap)
			return 0;
		out[k].iov_base = (char *)iov[i].iov_base + at;
		out[k].iov_len = MIN(iov[i].iov_len - at, len);
		len -= out[k].iov_len;
		k++;
	}
	return k;
}
