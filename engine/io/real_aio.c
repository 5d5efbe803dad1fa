/*
 * Linux AIO. Without io_uring: for all disks but those that make io_submit() wait (files of FUSE and NFS). With it: for the disks
 * among these that refuse RWF_NOWAIT: tmpfs files, zram, some device-mapper targets. io_uring hands every request to such a disk
 * to a worker thread: two context switches, and more CPU than the I/O.
 *
 * Requests are gathered, UR_SUBMIT_AT at most and until the end of the loop's turn, and submitted by one io_submit(), which carries them
 * out, or starts them, in this thread. RAM-backed disks have completed all of them when it returns; the completions are read from the ring that the kernel
 * maps into our memory, without a system call. A disk whose completions are seen to come late gets an eventfd with its
 * requests, which the reactor watches; while requests from before that was known are in flight, the loop polls.
 */
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/io/real_priv.h"

/* The head of the completion ring, as in the kernel's fs/aio.c and as other programs rely on. */
struct aio_ring {
	unsigned id, nr;
	unsigned head, tail;
	unsigned magic, compat_features, incompat_features, header_bytes;
	struct io_event events[];
};
#define AIO_RING_MAGIC 0xa10a10a1

static int sys_io_setup(unsigned n, aio_context_t *ctx) { return (int)syscall(SYS_io_setup, n, ctx); }
static int sys_io_destroy(aio_context_t ctx) { return (int)syscall(SYS_io_destroy, ctx); }
static int sys_io_submit(aio_context_t ctx, long n, struct iocb **v) { return (int)syscall(SYS_io_submit, ctx, n, v); }

static bool aio_init(struct ur_aio *a)
{
	struct aio_ring *ring;
	unsigned i;

	a->tried = true;
	a->event_fd = eventfd(0, EFD_CLOEXEC);
	if (a->event_fd < 0)
		return false;
	if (sys_io_setup(AIO_EVENTS, &a->ctx) < 0) {
		close(a->event_fd);
		return false;
	}
	ring = (struct aio_ring *)a->ctx;
	if (ring->magic != AIO_RING_MAGIC || ring->incompat_features) {
		sys_io_destroy(a->ctx);
		close(a->event_fd);
		a->ctx = 0;
		return false;
	}
	for (i = 0; i < UR_SUBMIT_AT; i++)
		a->ptrs[i] = &a->iocbs[i];
	return true;
}

bool ur_aio_is_usable(struct ur *u)
{
	struct ur_aio *a = &u->aio;

	if (u->w->opt.no_aio || (!a->ctx && (a->tried || !aio_init(a))))
		return false;
	return a->n + a->inflight < AIO_EVENTS;
}

void ur_aio_fini(struct ur *u)
{
	if (!u->aio.ctx)
		return;
	if (!u->aio.inflight) /* it would wait; what is left is with a disk that does not answer */
		sys_io_destroy(u->aio.ctx);
	close(u->aio.event_fd);
	u->aio.ctx = 0;
}

static void event_watch(struct ur *u)
{
	u->aio.armed = true;
	u->w->ops->aio_watch(u);
}

/* The eventfd has been written to: what has completed is found by the next ur_aio_poll(). */
void ur_aio_event(struct ur *u)
{
	u->aio.armed = false;
	if (u->aio.inflight > u->aio.blind)
		event_watch(u);
}

/* Submits the gathered ones. What AIO refuses goes another way, which has the same error for it, or none. */
static void aio_flush(struct ur *u)
{
	struct ur_aio *a = &u->aio;
	unsigned i = 0, n = a->n;
	struct io *io;
	int r;

	a->n = 0;
	while (i < n) {
		r = sys_io_submit(a->ctx, (long)(n - i), a->ptrs + i);
		if (r > 0) {
			a->inflight += (unsigned)r;
			i += (unsigned)r;
			continue;
		}
		io = (struct io *)(uintptr_t)a->iocbs[i++].aio_data;
		a->blind -= uio_of(io)->aio_blind;
		u->w->ops->aio_refused(u, io);
	}
	if (a->inflight > a->blind && !a->armed)
		event_watch(u);
}

/* What is left of a read or write. */
static void iocb_prep_rw(struct iocb *cb, struct io *io)
{
	struct uio *s = uio_of(io);
	bool write = io->op == IO_WRITE;
	const struct iovec *iov;
	struct iovec one;
	unsigned n = uio_left(io, &one, &iov);

	cb->aio_offset = (int64_t)(io->off_bytes + s->at_bytes);
	if (n == 1) {
		cb->aio_lio_opcode = write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
		cb->aio_buf = (uintptr_t)iov->iov_base;
		cb->aio_nbytes = iov->iov_len;
	} else {
		cb->aio_lio_opcode = write ? IOCB_CMD_PWRITEV : IOCB_CMD_PREADV;
		cb->aio_buf = (uintptr_t)iov;
		cb->aio_nbytes = n;
	}
	if (write && (io->flags & IO_FUA))
		cb->aio_rw_flags = RWF_DSYNC;
	s->aio_nowait = s->disk->is_nowait_ok;
	if (s->aio_nowait)
		cb->aio_rw_flags |= RWF_NOWAIT;
}

void ur_aio_queue(struct ur *u, struct io *io)
{
	struct ur_aio *a = &u->aio;
	struct uio *s = uio_of(io);
	bool is_rw = io->op <= IO_WRITE;
	bool late = !is_rw || atomic_load_explicit(&s->disk->aio_late, memory_order_relaxed);
	struct iocb *cb;

	if (a->n == UR_SUBMIT_AT)
		aio_flush(u);
	cb = &a->iocbs[a->n++];
	*cb = (struct iocb){ .aio_data = (uintptr_t)io, .aio_fildes = (uint32_t)s->disk->fd, .aio_lio_opcode = IOCB_CMD_FDSYNC };
	s->aio_nowait = false;
	if (is_rw)
		iocb_prep_rw(cb, io);
	if (late) {
		cb->aio_flags = IOCB_FLAG_RESFD;
		cb->aio_resfd = (uint32_t)a->event_fd;
	}
	s->aio_seq = a->seq;
	s->aio_blind = !late;
	a->blind += !late;
}

unsigned ur_aio_poll(struct ur *u)
{
	struct ur_aio *a = &u->aio;
	struct aio_ring *ring = (struct aio_ring *)a->ctx;
	unsigned done = 0, head, tail;
	struct io_event ev;
	struct uio *s;
	struct io *io;

	a->seq++;
	if (a->n)
		aio_flush(u);
	head = ring->head;
	tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
	for (; head != tail; done++) {
		ev = ring->events[head];
		head = head + 1 == ring->nr ? 0 : head + 1;
		__atomic_store_n(&ring->head, head, __ATOMIC_RELEASE);
		a->inflight--;
		io = (struct io *)(uintptr_t)ev.data;
		s = uio_of(io);
		a->blind -= s->aio_blind;
		if (unlikely(s->aio_blind && s->aio_seq + 1 != a->seq))
			atomic_store_explicit(&s->disk->aio_late, true, memory_order_relaxed);
		if (unlikely(ev.res == -EAGAIN && s->aio_nowait))
			u->w->ops->aio_refused(u, io);
		else
			udisk_complete(u, io, (int)ev.res);
	}
	if (u->n_counted)
		ur_publish_counts(u);
	return done;
}
