/*
 * Sockets of the real world. An operation is carried out by the reactor of whoever submits it, so that an idle stream may change
 * reactors. Short sends are continued here; the caller's iovec list is changed meanwhile, and is whole again at the end.
 */
#include "engine/io/real_priv.h"

void ur_net_submit(struct world *w, struct net_op *op)
{
	struct unet *n = unet_of(op);

	*n = (struct unet){ .mh = { .msg_iov = op->iov, .msg_iovlen = op->iov_n } };
	container_of(w, struct real_world, world)->ops->net(ur_self(), op);
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
		u->w->ops->net(u, op);
		return;
	}
	if (op->kind == NET_SEND) {
		if (res >= 0 && unet_advance(n, (size_t)res)) {
			u->w->ops->net(u, op);
			return;
		}
		unet_mend(n);
		op->result = MIN(res, 0);
	} else {
		op->result = res;
	}
	op->done(op);
}
