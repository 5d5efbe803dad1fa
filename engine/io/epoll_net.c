/*
 * Sockets without io_uring: each step is tried at once, without waiting, and waits for epoll if it cannot be done.
 */
#include <fcntl.h>
#include <sys/socket.h>

#include "engine/io/real_priv.h"

static int64_t net_try(struct net_op *op)
{
	struct unet *n = unet_of(op);
	int flags;
	int64_t r;

	switch (op->kind) {
	case NET_RECV:
		r = recvmsg(op->fd, &n->mh, MSG_DONTWAIT);
		break;
	case NET_SEND:
		r = sendmsg(op->fd, &n->mh, MSG_DONTWAIT | MSG_NOSIGNAL);
		break;
	default:
		flags = fcntl(op->fd, F_GETFL);
		if (flags >= 0 && !(flags & O_NONBLOCK))
			(void)!fcntl(op->fd, F_SETFL, flags | O_NONBLOCK);
		r = accept4(op->fd, NULL, NULL, SOCK_CLOEXEC);
		break;
	}
	return r < 0 ? -errno : r;
}

static void net_soon_run(struct task *t)
{
	struct ur *u = container_of(t, struct ur, epoll.net_task);
	struct list now, *l;
	struct unet *n;

	list_init(&now);
	list_splice_back(&now, &u->epoll.net_soon);
	while ((l = list_pop_front(&now))) {
		n = list_entry(l, struct unet, link);
		ur_net_complete(u, container_of((uint64_t(*)[16])(void *)n, struct net_op, scratch), n->res);
	}
}

void epoll_net_init(struct ur *u)
{
	list_init(&u->epoll.net_soon);
	list_init(&u->epoll.net_task.link);
	u->epoll.net_task.run = net_soon_run;
}

static void net_end_soon(struct ur *u, struct net_op *op, int res)
{
	struct unet *n = unet_of(op);

	n->res = res;
	list_push_back(&u->epoll.net_soon, &n->link);
	if (list_is_empty(&u->epoll.net_task.link))
		reactor_ready(&u->epoll.net_task);
}

void epoll_net(struct ur *u, struct net_op *op)
{
	int64_t r = net_try(op);

	if (r == -EAGAIN) {
		r = epoll_wait_for(u, op);
		if (r == 0)
			return;
	}
	net_end_soon(u, op, (int)r);
}

void epoll_net_is_ready(struct ur *u, struct net_op *op, bool is_over)
{
	int64_t r = net_try(op);

	if (r == -EAGAIN && is_over && op->kind == NET_ACCEPT) {
		r = -EINVAL; /* a listener that was shut down has nobody, and never will */
	} else if (r == -EAGAIN) {
		r = epoll_wait_for(u, op);
		if (r == 0)
			return;
	}
	ur_net_complete(u, op, (int)r);
}
