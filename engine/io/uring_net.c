/*
 * Sockets of the real world. An operation goes to the ring of whoever submits it, so that an idle stream may change
 * reactors. Short sends are continued here; the caller's iovec list is changed meanwhile, and is whole again at the end.
 */
#include <string.h>
#include <sys/socket.h>

#include "engine/io/uring_priv.h"

/* net_op.scratch */
struct unet {
	struct msghdr mh; /* of the rest */
	struct iovec *cut; /* entry that was sent in part, NULL if none */
	struct iovec whole; /* what it was */
};
_Static_assert(sizeof(struct unet) <= sizeof(((struct net_op *)0)->scratch), "scratch");

static inline struct unet *unet_of(struct net_op *op)
{
	return (struct unet *)(void *)op->scratch;
}

static void net_prep_send(struct net_op *op, struct io_uring_sqe *sqe)
{
	struct unet *n = unet_of(op);
	int flags = MSG_NOSIGNAL | MSG_WAITALL;

	if (n->mh.msg_iovlen == 1)
		io_uring_prep_send(sqe, op->fd, n->mh.msg_iov->iov_base, n->mh.msg_iov->iov_len, flags);
	else
		io_uring_prep_sendmsg(sqe, op->fd, &n->mh, (unsigned)flags);
}

static void net_queue(struct ur *u, struct net_op *op)
{
	struct io_uring_sqe *sqe = ur_sqe(u);
	struct unet *n = unet_of(op);

	switch (op->kind) {
	case NET_RECV:
		if (op->iov_n == 1)
			io_uring_prep_recv(sqe, op->fd, op->iov->iov_base, op->iov->iov_len, 0);
		else
			io_uring_prep_recvmsg(sqe, op->fd, &n->mh, 0);
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

void ur_net_submit(struct world *w, struct net_op *op)
{
	struct unet *n = unet_of(op);

	*n = (struct unet){ .mh = { .msg_iov = op->iov, .msg_iovlen = op->iov_n } };
	net_queue(ur_self(), op);
}

static void unet_mend(struct unet *n)
{
	if (n->cut)
		*n->cut = n->whole;
	n->cut = NULL;
}

/* Takes `sent` bytes off the front of the rest; true if there is more. */
static bool unet_advance(struct unet *n, size_t sent)
{
	struct iovec *v;

	for (; n->mh.msg_iovlen > 0; n->mh.msg_iov++, n->mh.msg_iovlen--) {
		v = n->mh.msg_iov;
		if (sent < v->iov_len)
			break;
		sent -= v->iov_len;
		if (v == n->cut)
			unet_mend(n);
	}
	if (n->mh.msg_iovlen == 0)
		return false;
	v = n->mh.msg_iov;
	if (sent > 0 && v != n->cut) {
		n->cut = v;
		n->whole = *v;
	}
	v->iov_base = (char *)v->iov_base + sent;
	v->iov_len -= sent;
	return true;
}

void ur_net_complete(struct ur *u, struct net_op *op, int res)
{
	struct unet *n = unet_of(op);

	if (unlikely(res == -EINTR || (res == -EAGAIN && op->kind != NET_ACCEPT))) {
		net_queue(u, op);
		return;
	}
	if (op->kind == NET_SEND) {
		if (res >= 0 && unet_advance(n, (size_t)res)) {
			net_queue(u, op);
			return;
		}
		unet_mend(n);
		op->result = MIN(res, 0);
	} else {
		op->result = res;
	}
	op->done(op);
}
