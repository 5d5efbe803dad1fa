/*
 * forward.c: clients' requests that go to another bdev instead of the volume. They stay the volume's: counted, timed, and closing
 * waits for them. What goes there are requests of our own, since the other side uses their scratch as we do the client's.
 */
#include "thin/volume_internal.h"

struct forward {
	struct io *parent;
	unsigned pending;
	int result;
	struct iovec *iovs;
	struct io io[];
};

static void forward_put(struct forward *f)
{
	struct io *parent = f->parent;
	int result = f->result;

	if (--f->pending)
		return;
	xfree(f->iovs);
	xfree(f);
	thin_req_end(parent, result);
}

static void forward_done(struct io *io)
{
	struct forward *f = io->owner;

	if (io->result < 0 && !f->result)
		f->result = io->result;
	forward_put(f);
}

void thin_forward_submit(struct thin_volume *v, struct io *io)
{
	/* Pieces end at the end of a cluster where they can: of a subcluster that two discards have a part of each neither gives up. */
	uint64_t max = v->forward->max_bytes, cluster = v->tr->cluster_bytes, done, len;
	uint64_t ahead = max % cluster ? 0 : io->off_bytes % cluster;
	unsigned n = io->op == IO_FLUSH ? 1 : (unsigned)DIV_UP(ahead + io->len_bytes, max), i;
	struct forward *f = xmalloc(sizeof(*f) + n * sizeof(f->io[0]));
	struct bdev *to = v->forward;

	if (unlikely(io->op != IO_FLUSH && bdev_check_range(to, io->off_bytes, io->len_bytes) < 0)) {
		xfree(f);
		thin_req_end_later(io, -ERANGE); /* what it goes to is smaller by now than this is */
		return;
	}
	*f = (struct forward){ .parent = io, .pending = n + 1 };
	f->iovs = n > 1 && io->iov_n ? xmalloc((size_t)n * io->iov_n * sizeof(*f->iovs)) : NULL;
	for (i = 0, done = 0; i < n; i++, done += len) {
		struct io *x = &f->io[i];

		len = MIN(max - (i ? 0 : ahead), io->len_bytes - done);
		*x = (struct io){ .op = io->op, .copy = io->copy, .flags = io->flags, .iov_n = io->iov_n, .iov = io->iov,
				  .off_bytes = io->off_bytes + done, .len_bytes = len, .done = forward_done, .owner = f };
		list_init(&x->link);
		if (f->iovs) {
			x->iov = f->iovs + (size_t)i * io->iov_n;
			x->iov_n = iov_slice(io->iov, io->iov_n, done, len, x->iov, io->iov_n);
		}
		bdev_submit(to, x);
	}
	forward_put(f);
}
