/*
 * bdev.h: the one interface at every seam: disks, the RAID layer's logical space, volumes, test devices.
 *
 * A request is a `struct io` owned by its submitter until `done` is called, exactly once, on the reactor that submitted
 * it, and never inside bdev_submit() unless the bdev says so (BDEV_INLINE_DONE is never set by disks). Payload buffers stay
 * untouched by the submitter until then. Ranges are in bytes, multiples of block_bytes, inside size_bytes: callers check
 * (bdev_check_range), implementations CHECK.
 *
 * Semantics are those of a disk with a volatile cache (DESIGN.md section 8): a completed write is visible, a flush
 * submitted after its completion makes it durable; IO_FUA makes this one durable.
 */
#ifndef ENGINE_IO_BDEV_H
#define ENGINE_IO_BDEV_H

#include <sys/uio.h>
#include "engine/io/co.h"

enum io_op {
	IO_READ,
	IO_WRITE,
	IO_FLUSH,   /* off, len 0 */
	IO_DISCARD, /* data may become zeros or stay, on raw disks; volumes: reads zeros after it */
	IO_ZERO,    /* reads zeros after it */
};

enum {
	IO_FUA = 1 << 0,       /* write, zero, discard: durable on completion */
	IO_NO_HOLE = 1 << 1,   /* zero: keep space allocated */
	IO_FAST_ZERO = 1 << 2, /* zero: -EOPNOTSUPP at once if it is not faster than writing */
	/* Hints of the thin layer to parity layouts, about the whole range of a write; neither is always safe. */
	IO_FRESH = 1 << 3,     /* nothing that anybody may read lies there: a crash may leave anything */
	IO_OVERWRITE = 1 << 4, /* all of it has been written before, since it was last fresh */
	/* Read, into memory that the submitter can do without: the request may end with -ETIMEDOUT while the disk can still
	 * write to the payload. Then he frees the payload (alloc_hold.h) and asks again, with other memory and without this
	 * flag. A read without it goes through memory of the RAID layer's own. */
	IO_MAY_GIVE_UP = 1 << 5,
	/* Write, of what was there already, under a checksum: nobody counts on it. So it does not wait for the pool's labels (raid_settle.c),
	 * nor is the pool asked about a disk that fails it: it may be done for whoever reads metadata in order to write labels. */
	IO_REPAIR = 1 << 6,
};

struct io {
	uint8_t op;    /* enum io_op */
	uint8_t copy;  /* read: 0 = any good one; n = exactly the n-th redundant copy (bdev.copies), no fallback */
	uint16_t flags;
	uint32_t iov_n;
	uint64_t off_bytes;
	uint64_t len_bytes;
	struct iovec *iov;  /* payload of reads and writes; sums to len_bytes */
	struct iovec one;   /* for iov_n == 1: iov = &one */
	int result;	    /* 0 or negative error; a short transfer is -EIO */
	void (*done)(struct io *io);
	void *owner;	    /* submitter's */
	struct list link;   /* whoever holds the request now: free for bdev_submit()'s implementation */
	uint64_t scratch[6]; /* likewise, for the implementation that has it now */
};

/* What block status says of a range. */
struct bdev_extent {
	uint64_t len_bytes;
	uint32_t flags;
};
enum { BDEV_HOLE = 1 << 0, BDEV_ZERO = 1 << 1 }; /* as NBD_STATE_HOLE / NBD_STATE_ZERO of base:allocation */

/* Compares and, if it is the same, writes: nobody else changes the range in between. Whole blocks; buffers as for a write. */
struct bdev_compare {
	uint64_t off_bytes, len_bytes;
	const void *expect, *data; /* len_bytes each */
	unsigned flags;		   /* IO_FUA */
	uint64_t mismatch_bytes;   /* out, if -EILSEQ: where the first difference is */
};

/* What clients that have no part in a reservation may not do. Frontends look at it; the bdev itself does not. */
enum { BDEV_FENCE_NONE, BDEV_FENCE_WRITES, BDEV_FENCE_ALL };

struct bdev;
struct bdev_ops {
	void (*submit)(struct bdev *b, struct io *io);
	/* Coroutine. Fills up to *n extents that cover [off, off+len) from its start; at least one. NULL: all data. */
	int (*co_status)(struct bdev *b, uint64_t off_bytes, uint64_t len_bytes, struct bdev_extent *ext, size_t *n);
	/* Of the requests that wait for something that may not come for long (space, their turn under a limit), those that match() picks end with
	 * -ECANCELED; nothing of them is under way, though what has been done of a long one stays. Calls their done. NULL: none wait. */
	void (*cancel)(struct bdev *b, bool (*match)(const struct io *io, void *arg), void *arg);
	/* Coroutine. NULL: cannot. */
	int (*co_compare_write)(struct bdev *b, struct bdev_compare *c);
};

struct bdev {
	const struct bdev_ops *ops;
	const char *name;
	uint64_t size_bytes;
	uint32_t block_bytes; /* smallest unit of I/O: 512 or 4096 */
	uint32_t opt_bytes;   /* preferred unit */
	uint32_t max_bytes;   /* largest single request; callers split */
	uint8_t copies;	      /* number of redundant copies a read can ask for by io.copy; 1 = none */
	bool read_only;
	bool can_discard;
	uint8_t fence; /* BDEV_FENCE_*: set by whoever grants reservations, on this reactor */
};

static inline void bdev_submit(struct bdev *b, struct io *io) { b->ops->submit(b, io); }

static inline void bdev_cancel(struct bdev *b, bool (*match)(const struct io *io, void *arg), void *arg)
{
	if (b->ops->cancel)
		b->ops->cancel(b, match, arg);
}
/* Was it submitted by one of the wrappers below, and is this coroutine waiting for it? */
bool io_is_of_co(const struct io *io, const struct co *co);

/* Sets up a request with one buffer (buf NULL for flush, discard, zero). done and owner are left to the caller. */
void io_prep(struct io *io, enum io_op op, uint64_t off_bytes, uint64_t len_bytes, void *buf, unsigned flags);
/* Completes: sets the result and calls done. The request may be gone after it. */
static inline void io_done(struct io *io, int result)
{
	io->result = result;
	io->done(io);
}

/* 0, -EINVAL (unaligned, zero length) or -ERANGE (beyond the end, overflow). */
int bdev_check_range(const struct bdev *b, uint64_t off_bytes, uint64_t len_bytes) __must_check;

/* ---- coroutine wrappers: one request, wait for it ---- */
int bdev_co_submit(struct bdev *b, struct io *io); /* sets done and owner; returns result */
int bdev_co_read(struct bdev *b, uint64_t off_bytes, void *buf, uint64_t len_bytes) __must_check;
int bdev_co_read_copy(struct bdev *b, uint64_t off_bytes, void *buf, uint64_t len_bytes, unsigned copy) __must_check;
int bdev_co_write(struct bdev *b, uint64_t off_bytes, const void *buf, uint64_t len_bytes, unsigned flags) __must_check;
int bdev_co_flush(struct bdev *b) __must_check;
int bdev_co_zero(struct bdev *b, uint64_t off_bytes, uint64_t len_bytes, unsigned flags) __must_check;
int bdev_co_discard(struct bdev *b, uint64_t off_bytes, uint64_t len_bytes, unsigned flags) __must_check;
int bdev_co_status(struct bdev *b, uint64_t off_bytes, uint64_t len_bytes, struct bdev_extent *ext, size_t *n) __must_check;

/* -EILSEQ: it differs, nothing has been written; -EOPNOTSUPP. Atomic against every other request of clients of this bdev. */
int bdev_co_compare_write(struct bdev *b, struct bdev_compare *c) __must_check;

/* A leg of a co_join: submits io, and its completion counts in j. */
void bdev_submit_join(struct bdev *b, struct io *io, struct co_join *j);

/* Copies between flat memory and an iovec list, starting at byte `skip` of the list. */
void iov_to_buf(const struct iovec *iov, unsigned n, uint64_t skip, void *buf, uint64_t len);
void iov_from_buf(const struct iovec *iov, unsigned n, uint64_t skip, const void *buf, uint64_t len);
void iov_zero(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t len);
/* Writes the sub-range [skip, skip+len) of iov into out (cap entries); returns the number used, 0 if it does not fit. */
unsigned iov_slice(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t len, struct iovec *out, unsigned cap);

#endif
