/*
 * Listening: a service coroutine that accepts, one service coroutine per connection.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/base/units.h"
#include "engine/io/net.h"

#define BACKLOG 128
#define BACK_OFF_NS (100 * NS_PER_MS)

struct listener {
	struct world *w;
	int fd;
	const struct listen_ops *ops;
	void *arg;
	bool closing, ended;
	bool is_inherited; /* somebody else listens on it too */
	struct co_queue pause; /* the accepting coroutine, backing off */
	struct co_queue end;   /* who closes */
	struct net_op op;
	char addr[160];
	char unix_path[108]; /* empty: TCP */
	dev_t unix_dev;
	ino_t unix_ino;
};

/* ---- accepting ---- */

struct arrival {
	const struct listen_ops *ops;
	void *arg;
	struct stream *s;
};

static void arrival_co_main(void *arg)
{
	struct arrival a = *(struct arrival *)arg;

	xfree(arg);
	a.ops->co_accept(a.arg, a.s);
}

static void accepted(struct net_op *op)
{
	co_wake(op->owner);
}

static void hand_over(struct listener *l, int fd)
{
	struct arrival *a = xmalloc(sizeof(*a));

	a->ops = l->ops;
	a->arg = l->arg;
	a->s = stream_from_fd(l->w, fd);
	co_spawn(CO_SERVICE, arrival_co_main, a, "connection");
}

static void listener_co_main(void *arg)
{
	struct listener *l = arg;
	int64_t r;

	while (!l->closing) {
		l->op = (struct net_op){ .kind = NET_ACCEPT, .fd = l->fd, .done = accepted, .owner = co_self() };
		l->w->ops->net_submit(l->w, &l->op);
		co_suspend();
		r = l->op.result;
		if (r >= 0 && !l->closing)
			hand_over(l, (int)r);
		else if (r >= 0)
			close((int)r);
		else if (!l->closing && r != -ECONNABORTED && r != -EINTR && r != -EAGAIN)
			/* no descriptors or memory (EMFILE, ENFILE, ENOBUFS, ENOMEM): better soon; others: never spin */
			(void)!co_queue_wait_until(&l->pause, reactor_now_ns() + BACK_OFF_NS);
	}
	l->ended = true;
	co_queue_wake_all(&l->end);
}

/* Ends an accept without ending the socket: a connection of our own. False: that cannot be done. */
static bool knock(struct listener *l)
{
	struct sockaddr_storage a = { 0 };
	struct sockaddr_in6 *a6 = (void *)&a;
	struct sockaddr_in *a4 = (void *)&a;
	socklen_t len = sizeof(a);
	int fd, r;

	if (getsockname(l->fd, (struct sockaddr *)&a, &len) < 0)
		return false;
	if (a.ss_family == AF_INET && a4->sin_addr.s_addr == htonl(INADDR_ANY))
		a4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (a.ss_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&a6->sin6_addr))
		a6->sin6_addr = in6addr_loopback;
	fd = socket(a.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return false;
	r = connect(fd, (struct sockaddr *)&a, len) < 0 ? errno : 0;
	close(fd);
	return !r || r == EINPROGRESS || r == EAGAIN; /* EAGAIN: others wait to be accepted */
}

void listener_co_close(struct listener *l)
{
	struct stat st;

	l->closing = true;
	if (!l->is_inherited || !knock(l))
		shutdown(l->fd, SHUT_RDWR); /* ends the accept */
	co_queue_wake_all(&l->pause);
	while (!l->ended)
		co_queue_wait(&l->end);
	if (l->unix_path[0] && lstat(l->unix_path, &st) == 0 && st.st_dev == l->unix_dev && st.st_ino == l->unix_ino)
		unlink(l->unix_path); /* ours, not a successor's */
	close(l->fd);
	xfree(l);
}

const char *listener_addr(const struct listener *l)
{
	return l->addr;
}

/* ---- binding ---- */

/* Whether nobody listens on the socket file any more. */
static bool is_abandoned(const struct sockaddr_un *a)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r;
	struct stat st;

	if (fd < 0)
		return false;
	r = connect(fd, (const struct sockaddr *)a, sizeof(*a)) < 0 ? errno : 0;
	close(fd);
	return r == ECONNREFUSED && lstat(a->sun_path, &st) == 0 && S_ISSOCK(st.st_mode);
}

static int bind_unix(struct listener *l, const char *path, struct err *e)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct stat st;
	int r;

	if (strlen(path) == 0 || strlen(path) >= sizeof(a.sun_path))
		return err_set(e, -EINVAL, "socket path \"%s\" must have 1 to %zu characters", path,
			       sizeof(a.sun_path) - 1);
	strcpy(a.sun_path, path);
	l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (l->fd < 0) {
		r = -errno;
		return err_set(e, r, "cannot make a unix socket: %s", strerror(-r));
	}
	r = bind(l->fd, (struct sockaddr *)&a, sizeof(a));
	if (r < 0 && errno == EADDRINUSE && is_abandoned(&a)) {
		unlink(path);
		r = bind(l->fd, (struct sockaddr *)&a, sizeof(a));
	}
	if (r < 0) {
		r = -errno;
		return r == -EADDRINUSE ?
			       err_set(e, r, "somebody listens on %s already", path) :
			       err_set(e, r, "cannot make the socket %s: %s", path, strerror(-r));
	}
	strcpy(l->unix_path, path);
	if (lstat(path, &st) == 0) {
		l->unix_dev = st.st_dev;
		l->unix_ino = st.st_ino;
	}
	snprintf(l->addr, sizeof(l->addr), "unix:%s", path);
	return 0;
}

static void name_tcp(struct listener *l)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);
	char host[INET6_ADDRSTRLEN] = "?";

	if (getsockname(l->fd, (struct sockaddr *)&a, &len) < 0)
		return;
	if (a.ss_family == AF_INET6) {
		const struct sockaddr_in6 *a6 = (const void *)&a;

		inet_ntop(AF_INET6, &a6->sin6_addr, host, sizeof(host));
		snprintf(l->addr, sizeof(l->addr), "[%s]:%u", host, ntohs(a6->sin6_port));
	} else {
		const struct sockaddr_in *a4 = (const void *)&a;

		inet_ntop(AF_INET, &a4->sin_addr, host, sizeof(host));
		snprintf(l->addr, sizeof(l->addr), "%s:%u", host, ntohs(a4->sin_port));
	}
}

static int bind_one(struct listener *l, const struct addrinfo *ai)
{
	int on = 1, r;

	l->fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (l->fd < 0)
		return -errno;
	(void)!setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(l->fd, ai->ai_addr, ai->ai_addrlen) == 0)
		return 0;
	r = -errno;
	close(l->fd);
	l->fd = -1;
	return r;
}

/* HOST:PORT into its parts; brackets of IPv6 are taken off. */
static int split_tcp(const char *addr, char *host, size_t host_len, const char **port)
{
	const char *colon = strrchr(addr, ':'), *start = addr;
	size_t len;

	if (!colon || !colon[1])
		return -EINVAL;
	len = (size_t)(colon - addr);
	if (addr[0] == '[') {
		if (len < 2 || addr[len - 1] != ']')
			return -EINVAL;
		start++;
		len -= 2;
	} else if (memchr(addr, ':', len)) {
		return -EINVAL; /* IPv6 without brackets */
	}
	if (len >= host_len)
		return -EINVAL;
	memcpy(host, start, len);
	host[len] = 0;
	*port = colon + 1;
	return 0;
}

static int bind_tcp(struct listener *l, const char *addr, struct err *e)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE }, *all, *ai;
	char host[256];
	const char *port;
	int r = split_tcp(addr, host, sizeof(host), &port);

	if (r < 0)
		return err_set(e, r, "\"%s\" is no address to listen on: give unix:PATH, HOST:PORT or [IPv6]:PORT", addr);
	r = getaddrinfo(host[0] ? host : NULL, port, &hints, &all);
	if (r != 0)
		return err_set(e, -EINVAL, "cannot listen on %s: %s", addr, gai_strerror(r));
	r = -EADDRNOTAVAIL;
	for (ai = all; ai; ai = ai->ai_next) {
		r = bind_one(l, ai);
		if (r == 0)
			break;
	}
	freeaddrinfo(all);
	if (r < 0)
		return err_set(e, r, "cannot listen on %s: %s", addr, strerror(-r));
	name_tcp(l);
	return 0;
}

static struct listener *listener_new(struct world *w, const struct listen_ops *ops, void *arg)
{
	struct listener *l = xcalloc(1, sizeof(*l));

	l->w = w;
	l->fd = -1;
	l->ops = ops;
	l->arg = arg;
	co_queue_init(&l->pause);
	co_queue_init(&l->end);
	return l;
}

int listener_open_fd(struct world *w, int fd, const struct listen_ops *ops, void *arg, struct listener **out, struct err *e)
{
	struct sockaddr_un a = { 0 };
	socklen_t len = sizeof(a), n = sizeof(int);
	struct listener *l;
	int listens = 0;

	if (!w->ops->net_submit || getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &n) < 0 || !listens ||
	    getsockname(fd, (struct sockaddr *)&a, &len) < 0) {
		close(fd);
		return err_set(e, -ENOTSOCK, "file descriptor %d is no socket that listens", fd);
	}
	l = listener_new(w, ops, arg);
	l->fd = fd;
	l->is_inherited = true;
	(void)!fcntl(fd, F_SETFD, FD_CLOEXEC);
	(void)!fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK); /* the ring would report EAGAIN instead of waiting */
	if (a.sun_family == AF_UNIX)
		snprintf(l->addr, sizeof(l->addr), "unix:%.*s", (int)sizeof(a.sun_path), a.sun_path);
	else
		name_tcp(l);
	co_spawn(CO_SERVICE, listener_co_main, l, "listener");
	*out = l;
	return 0;
}

int listener_open(struct world *w, const char *addr, const struct listen_ops *ops, void *arg, struct listener **out,
		  struct err *e)
{
	struct listener *l;
	int r;

	if (!w->ops->net_submit)
		return err_set(e, -EOPNOTSUPP, "this world has no network");
	l = listener_new(w, ops, arg);
	r = strncmp(addr, "unix:", 5) ? bind_tcp(l, addr, e) : bind_unix(l, addr + 5, e);
	if (r == 0 && listen(l->fd, BACKLOG) < 0) {
		r = -errno;
		err_set(e, r, "cannot listen on %s: %s", addr, strerror(-r));
		if (l->unix_path[0])
			unlink(l->unix_path);
	}
	if (r < 0) {
		if (l->fd >= 0)
			close(l->fd);
		xfree(l);
		return r;
	}
	co_spawn(CO_SERVICE, listener_co_main, l, "listener");
	*out = l;
	return 0;
}
