/*
 * uring_priv.h: between the files of the io_uring side.
 */
#ifndef ENGINE_IO_URING_PRIV_H
#define ENGINE_IO_URING_PRIV_H

#include "engine/io/real_priv.h"

/* Low bits of user_data say what completes. */
enum ur_tag { UR_IO, UR_NET, UR_KICK, UR_AIO_EVENT, UR_STAT, UR_POLL, UR_TAG_MASK = 7 };

enum ur_pin_state { UR_PIN_NOT_YET, UR_PINNED, UR_PIN_REFUSED };

/* A free submission entry; submits what is there when it is UR_SUBMIT_AT. */
struct io_uring_sqe *ur_sqe_slow(struct ur *u);
static inline struct io_uring_sqe *ur_sqe(struct ur *u)
{
	return likely(io_uring_sq_ready(&u->ring) < UR_SUBMIT_AT) ? io_uring_get_sqe(&u->ring) : ur_sqe_slow(u);
}

static inline void ur_sqe_tag(struct io_uring_sqe *sqe, void *p, enum ur_tag tag)
{
	sqe->user_data = (uint64_t)(uintptr_t)p | tag;
}

/* uring_ring.c. Has a part of the arena pinned, which then stays in memory. */
bool ur_pin(struct ur *u, unsigned part);
/* The registered buffer that [p, p+len) lies in, -1: none. To be asked before taking an entry: it may be a system call. */
static inline int ur_pinned(struct ur *u, const void *p, size_t len)
{
	size_t at = (size_t)((const char *)p - u->arena), part = at / UR_PIN_BYTES;

	if (part >= u->n_pins || at % UR_PIN_BYTES + len > UR_PIN_BYTES)
		return -1;
	return likely(u->pins[part] == UR_PINNED) || ur_pin(u, (unsigned)part) ? (int)part : -1;
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
