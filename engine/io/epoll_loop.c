/*
 * A reactor's loop without io_uring: epoll waits for sockets, for kicks and for AIO's completions.
 *
 * Sockets are watched one-shot: who waits says so, and an event ends it. One that was closed leaves epoll by itself, and its number
 * may come again with another one, so nothing is remembered of a descriptor that nobody waits for. The two eventfds are watched by
 * edges: each write to one is an event, and they are never read.
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/units.h"
#include "engine/io/real_priv.h"

enum { KEY_KICK = UINT32_MAX - 1, KEY_AIO };

#define TAKE(p) ({ __typeof__(p) taken_ = (p); (p) = NULL; taken_; })

static int watch_edges(struct ur *u, int fd, uint32_t key)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET, .data.u32 = key };

	return epoll_ctl(u->epoll.fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

static int loop_init(struct ur *u, char *why, size_t len)
{
	struct ur_epoll *p = &u->epoll;
	int r;

	epoll_net_init(u);
	p->fd = epoll_create1(EPOLL_CLOEXEC);
	r = p->fd < 0 ? -errno : watch_edges(u, u->kick_fd, KEY_KICK);
	if (r < 0) {
		snprintf(why, len, "cannot set up epoll: %s", strerror(-r));
		if (p->fd >= 0)
			close(p->fd);
	}
	return r;
}

static void loop_fini(struct ur *u)
{
	close(u->epoll.fd);
	xfree(u->epoll.fds);
}

/* ---- waiting for descriptors ---- */

static struct ur_fd *fd_entry(struct ur_epoll *p, int fd)
{
	unsigned n = MAX(p->n_fds, 64u);

	while (n <= (unsigned)fd)
		n *= 2;
	if (n > p->n_fds) {
		p->fds = xrealloc(p->fds, n * sizeof(*p->fds));
		memset(p->fds + p->n_fds, 0, (n - p->n_fds) * sizeof(*p->fds));
		p->n_fds = n;
	}
	return &p->fds[fd];
}

static int fd_watch(struct ur *u, int fd, const struct ur_fd *f)
{
	struct epoll_event ev = { .events = EPOLLONESHOT | (f->in || f->poll_in ? EPOLLIN | EPOLLRDHUP : 0) |
					    (f->out || f->poll_out ? EPOLLOUT : 0),
				  .data.u32 = (uint32_t)fd };

	if (epoll_ctl(u->epoll.fd, EPOLL_CTL_MOD, fd, &ev) == 0)
		return 0;
	if (errno == ENOENT && epoll_ctl(u->epoll.fd, EPOLL_CTL_ADD, fd, &ev) == 0)
		return 0;
	return -errno;
}

int epoll_wait_for(struct ur *u, struct net_op *op)
{
	struct ur_fd *f = fd_entry(&u->epoll, op->fd);
	struct net_op **who = op->kind == NET_SEND ? &f->out : &f->in;
	int r;

	CHECK(!*who);
	*who = op;
	r = fd_watch(u, op->fd, f);
	if (r < 0)
		*who = NULL;
	return r;
}

static void loop_watch(struct ur *u, int fd, unsigned events, struct npoll *p)
{
	struct ur_fd *f = fd_entry(&u->epoll, fd);
	struct npoll **who = events & POLLIN ? &f->poll_in : &f->poll_out;

	CHECK(!*who);
	*who = p;
	CHECK(fd_watch(u, fd, f) == 0); /* only for want of some bytes, and then as xmalloc() */
}

static void fd_is_ready(struct ur *u, int fd, uint32_t events)
{
	struct ur_fd *f = fd_entry(&u->epoll, fd), now = { 0 };
	bool ended = events & (EPOLLERR | EPOLLHUP);

	if (ended || (events & (EPOLLIN | EPOLLRDHUP))) {
		now.in = TAKE(f->in);
		now.poll_in = TAKE(f->poll_in);
	}
	if (ended || (events & EPOLLOUT)) {
		now.out = TAKE(f->out);
		now.poll_out = TAKE(f->poll_out);
	}
	if ((f->in || f->out || f->poll_in || f->poll_out) && fd_watch(u, fd, f) < 0) { /* the others find out why */
		now = (struct ur_fd){ now.in ?: f->in, now.out ?: f->out, now.poll_in ?: f->poll_in, now.poll_out ?: f->poll_out };
		*f = (struct ur_fd){ 0 };
	}
	if (now.in) /* f may be another one after it */
		epoll_net_is_ready(u, now.in, ended);
	if (now.out)
		epoll_net_is_ready(u, now.out, ended);
	if (now.poll_in)
		npoll_complete(now.poll_in);
	if (now.poll_out)
		npoll_complete(now.poll_out);
}

/* ---- the loop ---- */

static void loop_poll(struct ur *u, uint64_t limit_ns)
{
	struct timespec ts = { .tv_sec = (time_t)(limit_ns / NS_PER_SEC), .tv_nsec = (long)(limit_ns % NS_PER_SEC) };
	struct ur_epoll *p = &u->epoll;
	struct pollfd one = { .fd = p->fd, .events = POLLIN };

	if (limit_ns == 0 || limit_ns == UINT64_MAX) {
		p->n = epoll_wait(p->fd, p->events, EPOLL_EVENTS, limit_ns ? -1 : 0);
		return;
	}
	/* By itself a wakeup's hint that the waker is about to sleep comes through (Linux 6.11), and its processor is taken over
	 * while it is warm; from within poll() it does not. */
	if (!p->is_old) {
		p->n = epoll_pwait2(p->fd, p->events, EPOLL_EVENTS, &ts, NULL);
		p->is_old = p->n < 0 && errno != EINTR;
		if (!p->is_old)
			return;
	}
	p->n = ppoll(&one, 1, &ts, NULL) > 0 ? epoll_wait(p->fd, p->events, EPOLL_EVENTS, 0) : 0;
}

static void loop_submit(struct ur *u)
{
	loop_poll(u, 0);
}

static void loop_reap(struct ur *u)
{
	struct ur_epoll *p = &u->epoll;
	int i;

	for (i = 0; i < p->n; i++) {
		uint32_t key = p->events[i].data.u32;

		if (key == KEY_AIO)
			ur_aio_event(u);
		else if (key != KEY_KICK)
			fd_is_ready(u, (int)key, p->events[i].events);
	}
	p->n = 0;
}

static void loop_aio_watch(struct ur *u)
{
	if (u->epoll.is_aio_watched)
		return;
	CHECK(watch_edges(u, u->aio.event_fd, KEY_AIO) == 0);
	u->epoll.is_aio_watched = true;
}

const struct ur_ops ur_epoll_ops = {
	.name = "aio",
	.init = loop_init,
	.fini = loop_fini,
	.submit = loop_submit,
	.sleep = loop_poll,
	.reap = loop_reap,
	.rw = epoll_rw,
	.zeros = epoll_zeros,
	.fsync = epoll_fsync,
	.fallocate = epoll_fallocate,
	.discard = epoll_discard,
	.stat = epoll_stat,
	.aio_watch = loop_aio_watch,
	.aio_refused = epoll_aio_refused,
	.net = epoll_net,
	.poll = loop_watch,
};
