/*
 * Ring entries: the steps of requests to disks and of operations on sockets.
 *
 * A reactor registers a disk's file when it first uses it, and the file then goes by its place in the table.
 */
#include <linux/fs.h>
#include <string.h>
#include <sys/uio.h>

#include "engine/io/uring_priv.h"

#ifndef BLOCK_URING_CMD_DISCARD
#define BLOCK_URING_CMD_DISCARD _IO(0x12, 0) /* Linux 6.12 */
#endif

/* ---- disks ---- */

/* Sends sqe, already prepared with the descriptor, by way of the registered file if there is one. */
static inline void sqe_finish(struct ur *u, struct udisk *d, struct io_uring_sqe *sqe, struct io *io, bool registered)
{
	if (registered) {
		sqe->fd = d->slot;
		sqe->flags |= IOSQE_FIXED_FILE;
	}
	if (unlikely(d->by_worker))
		sqe->flags |= IOSQE_ASYNC;
	ur_sqe_tag(sqe, io, UR_IO);
}

/* To be asked before taking an entry: registering may be a system call, which must not see half an entry. */
static inline bool is_registered(struct ur *u, struct udisk *d)
{
	if (unlikely(d->slot < 0))
		return false;
	return likely(u->slots[d->slot].registered == d) || udisk_register(u, d);
}

void uring_rw(struct ur *u, struct io *io)
{
	struct uio *s = uio_of(io);
	bool registered = is_registered(u, s->disk), write = io->op == IO_WRITE;
	struct io_uring_sqe *sqe;
	const struct iovec *iov;
	struct iovec one;
	unsigned n = uio_left(io, &one, &iov);
	int pinned = n == 1 ? ur_pinned(u, iov->iov_base, iov->iov_len) : -1;

	sqe = ur_sqe(u);
	if (n == 1) {
		io_uring_prep_rw(write ? IORING_OP_WRITE : IORING_OP_READ, sqe, s->disk->fd, iov->iov_base,
				 (unsigned)iov->iov_len, io->off_bytes + s->at_bytes);
		if (likely(pinned >= 0)) {
			sqe->opcode = write ? IORING_OP_WRITE_FIXED : IORING_OP_READ_FIXED;
			sqe->buf_index = (uint16_t)pinned;
		}
	} else {
		io_uring_prep_rw(write ? IORING_OP_WRITEV : IORING_OP_READV, sqe, s->disk->fd, iov, n,
				 io->off_bytes + s->at_bytes);
	}
	if (io->flags & IO_FUA && write)
		sqe->rw_flags = RWF_DSYNC;
	sqe_finish(u, s->disk, sqe, io, registered);
}

void uring_fsync(struct ur *u, struct io *io)
{
	struct udisk *d = uio_of(io)->disk;
	bool registered = is_registered(u, d);
	struct io_uring_sqe *sqe = ur_sqe(u);

	io_uring_prep_fsync(sqe, d->fd, IORING_FSYNC_DATASYNC);
	sqe_finish(u, d, sqe, io, registered);
}

void uring_fallocate(struct ur *u, struct io *io, int mode)
{
	struct udisk *d = uio_of(io)->disk;
	bool registered = is_registered(u, d);
	struct io_uring_sqe *sqe = ur_sqe(u);

	/* not io_uring_prep_fallocate(): its lengths are off_t, and it says so by a warning */
	io_uring_prep_rw(IORING_OP_FALLOCATE, sqe, d->fd, (void *)(uintptr_t)io->len_bytes, (unsigned)mode, io->off_bytes);
	sqe_finish(u, d, sqe, io, registered);
}

void uring_discard(struct ur *u, struct io *io)
{
	struct udisk *d = uio_of(io)->disk;
	bool registered = is_registered(u, d);
	struct io_uring_sqe *sqe = ur_sqe(u);

	io_uring_prep_rw(IORING_OP_URING_CMD, sqe, d->fd, (void *)(uintptr_t)io->off_bytes, 0, 0);
	sqe->cmd_op = BLOCK_URING_CMD_DISCARD;
	memcpy((char *)sqe + 48, &io->len_bytes, sizeof(io->len_bytes)); /* addr3 */
	sqe_finish(u, d, sqe, io, registered);
}

/* A list of one may be on the caller's stack: it goes into the entry. */
void uring_zeros(struct ur *u, struct io *io, const struct iovec *iov, unsigned n, uint64_t off_bytes)
{
	struct udisk *d = uio_of(io)->disk;
	bool registered = is_registered(u, d);
	struct io_uring_sqe *sqe = ur_sqe(u);

	if (n == 1)
		io_uring_prep_rw(IORING_OP_WRITE, sqe, d->fd, iov->iov_base, (unsigned)iov->iov_len, off_bytes);
	else
		io_uring_prep_rw(IORING_OP_WRITEV, sqe, d->fd, iov, n, off_bytes);
	sqe_finish(u, d, sqe, io, registered);
}

void uring_stat(struct ur *u, struct udisk *d)
{
	struct io_uring_sqe *sqe = ur_sqe(u);

	io_uring_prep_statx(sqe, d->fd, "", AT_EMPTY_PATH, STATX_NLINK | STATX_SIZE, &d->stat);
	ur_sqe_tag(sqe, d, UR_STAT);
}

/* ---- sockets ---- */

static void net_prep_send(struct net_op *op, struct io_uring_sqe *sqe)
{
	struct unet *n = unet_of(op);
	int flags = MSG_NOSIGNAL | MSG_WAITALL;

	if (n->mh.msg_iovlen == 1)
		io_uring_prep_send(sqe, op->fd, n->mh.msg_iov->iov_base, n->mh.msg_iov->iov_len, flags);
	else
		io_uring_prep_sendmsg(sqe, op->fd, &n->mh, (unsigned)flags);
}

void uring_net(struct ur *u, struct net_op *op)
{
	struct io_uring_sqe *sqe = ur_sqe(u);

	switch (op->kind) {
	case NET_RECV:
		if (op->iov_n == 1)
			io_uring_prep_recv(sqe, op->fd, op->iov->iov_base, op->iov->iov_len, 0);
		else
			io_uring_prep_recvmsg(sqe, op->fd, &unet_of(op)->mh, 0);
		break;
	case NET_SEND:
		net_prep_send(op, sqe);
		break;
	case NET_ACCEPT:
		io_uring_prep_accept(sqe, op->fd, NULL, NULL, SOCK_CLOEXEC);
		break;
	}
	ur_sqe_tag(sqe, op, UR_NET);
}

void uring_poll(struct ur *u, int fd, unsigned events, struct npoll *p)
{
	struct io_uring_sqe *sqe = ur_sqe(u);

	io_uring_prep_poll_add(sqe, fd, events);
	ur_sqe_tag(sqe, p, UR_POLL);
}
