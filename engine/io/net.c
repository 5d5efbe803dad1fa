/*
 * Streams: sockets (the world carries them out), memory, and the coroutine helpers over both.
 */
#include "engine/io/net.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define UNIX_SNDBUF_BYTES (1 << 20)
#define MEMORY_OUT_MAX (16u << 20)

/* ---- sockets ---- */

struct sock_stream {
	struct stream s;
	struct world *w;
};

static void sock_submit(struct stream *s, struct net_op *op)
{
	struct sock_stream *k = container_of(s, struct sock_stream, s);

	op->fd = s->fd;
	k->w->ops->net_submit(k->w, op);
}

static int64_t sock_try_send(struct stream *s, struct iovec *iov, unsigned n)
{
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = n };
	ssize_t r = sendmsg(s->fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (r >= 0)
		return r;
	return errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

bool stream_peer_is_done(const struct stream *s)
{
	struct pollfd p = { .fd = s->fd, .events = POLLRDHUP };

	return s->fd >= 0 && poll(&p, 1, 0) > 0;
}

static void sock_shutdown(struct stream *s)
{
	shutdown(s->fd, SHUT_RDWR);
}

static void sock_close(struct stream *s)
{
	close(s->fd);
	xfree(container_of(s, struct sock_stream, s));
}

static const struct stream_ops sock_ops = { .submit = sock_submit,
					    .try_send = sock_try_send,
					    .shutdown = sock_shutdown,
					    .close = sock_close };

static void set_up_unix(struct stream *s)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	int want = UNIX_SNDBUF_BYTES;

	s->is_unix = s->is_loopback = true;
	s->has_cred = getsockopt(s->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0;
	if (s->has_cred) {
		s->uid = cred.uid;
		s->gid = cred.gid;
		snprintf(s->peer, sizeof(s->peer), "unix pid %d uid %u", (int)cred.pid, cred.uid);
	} else {
		snprintf(s->peer, sizeof(s->peer), "unix");
	}
	/* The sender's buffer is all there is between the two; big replies should fit. FORCE needs a privilege. */
	if (setsockopt(s->fd, SOL_SOCKET, SO_SNDBUFFORCE, &want, sizeof(want)) < 0)
		(void)!setsockopt(s->fd, SOL_SOCKET, SO_SNDBUF, &want, sizeof(want));
}

static void tcp_addr_text(const struct sockaddr_storage *a, char *out, size_t len)
{
	const struct sockaddr_in6 *a6 = (const void *)a;
	const struct sockaddr_in *a4 = (const void *)a;
	char host[INET6_ADDRSTRLEN] = "?";

	if (a->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&a6->sin6_addr)) {
		inet_ntop(AF_INET, a6->sin6_addr.s6_addr + 12, host, sizeof(host));
		snprintf(out, len, "%s:%u", host, ntohs(a6->sin6_port));
	} else if (a->ss_family == AF_INET6) {
		inet_ntop(AF_INET6, &a6->sin6_addr, host, sizeof(host));
		snprintf(out, len, "[%s]:%u", host, ntohs(a6->sin6_port));
	} else {
		inet_ntop(AF_INET, &a4->sin_addr, host, sizeof(host));
		snprintf(out, len, "%s:%u", host, ntohs(a4->sin_port));
	}
}

static void set_up_tcp(struct stream *s, const struct sockaddr_storage *a)
{
	const struct sockaddr_in6 *a6 = (const void *)a;
	const struct sockaddr_in *a4 = (const void *)a;
	struct sockaddr_storage local = { 0 };
	socklen_t len = sizeof(local);
	int on = 1;

	s->has_addr = true;
	(void)!setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void)!setsockopt(s->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	if (a->ss_family == AF_INET6) {
		memcpy(s->addr, &a6->sin6_addr, sizeof(s->addr));
		s->is_loopback = IN6_IS_ADDR_LOOPBACK(&a6->sin6_addr) ||
				 (IN6_IS_ADDR_V4MAPPED(&a6->sin6_addr) && a6->sin6_addr.s6_addr[12] == 127);
	} else {
		s->addr[10] = s->addr[11] = 0xff;
		memcpy(s->addr + 12, &a4->sin_addr, 4);
		s->is_loopback = ntohl(a4->sin_addr.s_addr) >> 24 == 127;
	}
	tcp_addr_text(a, s->peer, sizeof(s->peer));
	if (getsockname(s->fd, (struct sockaddr *)&local, &len) == 0)
		tcp_addr_text(&local, s->local, sizeof(s->local));
}

struct stream *stream_from_fd(struct world *w, int fd)
{
	struct sock_stream *k = xcalloc(1, sizeof(*k));
	struct sockaddr_storage a = { 0 };
	socklen_t len = sizeof(a);
	int flags = fcntl(fd, F_GETFL);

	k->w = w;
	k->s.ops = &sock_ops;
	k->s.fd = fd;
	(void)!fcntl(fd, F_SETFD, FD_CLOEXEC);
	if (flags >= 0 && (flags & O_NONBLOCK)) /* the ring would report EAGAIN instead of waiting */
		(void)!fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
	if (getpeername(fd, (struct sockaddr *)&a, &len) < 0)
		snprintf(k->s.peer, sizeof(k->s.peer), "gone");
	else if (a.ss_family == AF_UNIX)
		set_up_unix(&k->s);
	else if (a.ss_family == AF_INET || a.ss_family == AF_INET6)
		set_up_tcp(&k->s, &a);
	return &k->s;
}

/* ---- memory ---- */

struct memory_stream {
	struct stream s;
	char *in;
	size_t in_len, at, chunk;
	uint8_t **out;
	size_t *out_len;
	bool is_shut;
};

/* net_op.scratch */
struct memory_op {
	struct task task;
	struct net_op *op;
};
_Static_assert(sizeof(struct memory_op) <= sizeof(((struct net_op *)0)->scratch), "scratch");

static void memory_recv(struct memory_stream *m, struct net_op *op)
{
	size_t left = m->is_shut ? 0 : m->in_len - m->at, part;
	unsigned i;

	if (m->chunk)
		left = MIN(left, m->chunk);
	op->result = 0;
	for (i = 0; i < op->iov_n && left > 0; i++) {
		part = MIN(left, op->iov[i].iov_len);
		memcpy(op->iov[i].iov_base, m->in + m->at, part);
		m->at += part;
		left -= part;
		op->result += (int64_t)part;
	}
}

static void memory_send(struct memory_stream *m, struct net_op *op)
{
	unsigned i;

	op->result = m->is_shut ? -EPIPE : 0;
	for (i = 0; i < op->iov_n && op->result == 0; i++) {
		size_t part = MIN(op->iov[i].iov_len, MEMORY_OUT_MAX - *m->out_len);

		if (part == 0)
			continue;
		*m->out = xrealloc(*m->out, *m->out_len + part);
		memcpy(*m->out + *m->out_len, op->iov[i].iov_base, part);
		*m->out_len += part;
	}
}

static void memory_done(struct task *t)
{
	struct net_op *op = container_of(t, struct memory_op, task)->op;

	op->done(op);
}

static void memory_submit(struct stream *s, struct net_op *op)
{
	struct memory_stream *m = container_of(s, struct memory_stream, s);
	struct memory_op *o = (struct memory_op *)(void *)op->scratch;

	if (op->kind == NET_RECV)
		memory_recv(m, op);
	else
		memory_send(m, op);
	list_init(&o->task.link);
	o->task.run = memory_done;
	o->op = op;
	reactor_ready(&o->task);
}

static void memory_shutdown(struct stream *s)
{
	container_of(s, struct memory_stream, s)->is_shut = true;
}

static void memory_close(struct stream *s)
{
	struct memory_stream *m = container_of(s, struct memory_stream, s);

	xfree(m->in);
	xfree(m);
}

static const struct stream_ops memory_ops = { .submit = memory_submit,
					      .shutdown = memory_shutdown,
					      .close = memory_close };

struct stream *stream_from_memory(const void *in, size_t in_len, size_t chunk, uint8_t **out, size_t *out_len)
{
	struct memory_stream *m = xcalloc(1, sizeof(*m));

	m->s.ops = &memory_ops;
	m->s.fd = -1;
	m->s.is_loopback = true;
	snprintf(m->s.peer, sizeof(m->s.peer), "memory");
	m->in = xmalloc(MAX(in_len, (size_t)1));
	if (in_len)
		memcpy(m->in, in, in_len);
	m->in_len = in_len;
	m->chunk = chunk;
	m->out = out;
	m->out_len = out_len;
	*out = NULL;
	*out_len = 0;
	return &m->s;
}

/* ---- coroutine helpers ---- */

struct co_op {
	struct net_op op;
	struct co *waiter;
	bool done;
};

static void co_op_done(struct net_op *op)
{
	struct co_op *c = container_of(op, struct co_op, op);

	c->done = true;
	if (c->waiter)
		co_wake(c->waiter);
}

static int64_t stream_co_op(struct stream *s, enum net_op_kind kind, struct iovec *iov, unsigned n)
{
	struct co_op c = { .op = { .kind = kind, .iov = iov, .iov_n = n, .done = co_op_done } };

	stream_submit(s, &c.op);
	if (!c.done) {
		c.waiter = co_self();
		co_suspend();
	}
	return c.op.result;
}

int64_t stream_co_recv(struct stream *s, void *buf, size_t len)
{
	struct iovec iov = { buf, len };

	return stream_co_op(s, NET_RECV, &iov, 1);
}

/* A limit on what a coroutine does with a stream: past it the stream is shut down, which ends the operation. */
struct limit {
	struct timer timer;
	struct stream *s;
	bool passed;
};

static void limit_passed(struct timer *t)
{
	struct limit *l = container_of(t, struct limit, timer);

	l->passed = true;
	stream_shutdown(l->s);
}

static void limit_start(struct limit *l, struct stream *s, uint64_t deadline_ns)
{
	*l = (struct limit){ .timer.fire = limit_passed, .s = s };
	if (deadline_ns != UINT64_MAX)
		timer_arm(&l->timer, deadline_ns);
}

static int limit_stop(struct limit *l, int result)
{
	timer_cancel(&l->timer);
	return l->passed ? -ETIMEDOUT : result;
}

int stream_co_recv_all(struct stream *s, void *buf, size_t len, uint64_t deadline_ns)
{
	struct limit l;
	char *p = buf;
	int64_t got;
	int r = 0;

	limit_start(&l, s, deadline_ns);
	while (len > 0 && r == 0) {
		got = stream_co_recv(s, p, len);
		if (got > 0) {
			p += got;
			len -= (size_t)got;
		} else {
			r = got < 0 ? (int)got : -ECONNRESET;
		}
	}
	return limit_stop(&l, r);
}

int stream_co_send_all(struct stream *s, const struct iovec *iov, unsigned n, uint64_t deadline_ns)
{
	struct limit l;
	int r;

	limit_start(&l, s, deadline_ns);
	/* The world may change the list while it sends, and mends it after. */
	r = (int)stream_co_op(s, NET_SEND, (struct iovec *)(uintptr_t)iov, n);
	return limit_stop(&l, r);
}
