/*
 * uring_priv.h: between the files of the io_uring side.
 */
#ifndef ENGINE_IO_URING_PRIV_H
#define ENGINE_IO_URING_PRIV_H

#include "engine/io/real_priv.h"

/* Low bits of user_data say what completes. */
enum ur_tag { UR_IO, UR_NET, UR_KICK, UR_AIO_EVENT, UR_STAT, UR_POLL, UR_TAG_MASK = 7 };

/* A free submission entry; submits what is there when the ring is full. */
struct io_uring_sqe *ur_sqe_slow(struct ur *u);
static inline struct io_uring_sqe *ur_sqe(struct ur *u)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

	return likely(sqe) ? sqe : ur_sqe_slow(u);
}

static inline void ur_sqe_tag(struct io_uring_sqe *sqe, void *p, enum ur_tag tag)
{
	sqe->user_data = (uint64_t)(uintptr_t)p | tag;
}

/* uring_submit.c */
void uring_rw(struct ur *u, struct io *io);
void uring_zeros(struct ur *u, struct io *io, const struct iovec *iov, unsigned n, uint64_t off_bytes);
void uring_fsync(struct ur *u, struct io *io);
void uring_fallocate(struct ur *u, struct io *io, int mode);
void uring_discard(struct ur *u, struct io *io);
void uring_stat(struct ur *u, struct udisk *d);
void uring_net(struct ur *u, struct net_op *op);
void uring_poll(struct ur *u, int fd, unsigned events, struct npoll *p);

#endif
