/* Streams and listeners of the real world, and streams in memory. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <unistd.h>
#include <CUnit/Basic.h>

#include "engine/base/rng.h"
#include "engine/base/units.h"
#include "engine/io/buf.h"
#include "engine/io/net.h"
#include "engine/io/real.h"

static struct world *world;
static enum real_io io;
static char dir[64];

static void run(int (*fn)(void *arg), void *arg)
{
	struct real_options o = { .n_reactors = 2, .io = io };
	struct err e = { 0 };

	if (real_world_create(&o, &world, &e) < 0) {
		CU_FAIL(e.text);
		return;
	}
	CU_ASSERT_EQUAL(real_world_run(world, fn, arg), 0);
	real_world_destroy(world);
}

static void pair(struct stream **a, struct stream **b)
{
	int fd[2];

	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd) == 0);
	*a = stream_from_fd(world, fd[0]);
	*b = stream_from_fd(world, fd[1]);
}

/* ---- sockets ---- */

struct transfer {
	struct stream *s;
	struct iovec v[3];
	int result;
	struct co_join *j;
};

static void co_sender(void *arg)
{
	struct transfer *t = arg;

	t->result = stream_co_send_all(t->s, t->v, 3, UINT64_MAX);
	co_join_done(t->j, t->result);
}

/* A message bigger than any socket buffer, in unequal pieces, received late and slowly. */
static int co_big_send(void *arg)
{
	size_t len[3] = { 100001, 3 * MIB, 7 }, total = len[0] + len[1] + len[2];
	char *all = xmalloc(total), *got = xmalloc(total), *p = all;
	struct transfer t = { 0 };
	struct iovec before[3];
	struct stream *b;
	struct co_join j;
	struct rng rng;
	int i, r;

	rng_init(&rng, 1);
	rng_fill(&rng, all, total);
	pair(&t.s, &b);
	co_join_init(&j);
	co_join_add(&j);
	t.j = &j;
	for (i = 0; i < 3; p += len[i], i++)
		t.v[i] = (struct iovec){ p, len[i] };
	memcpy(before, t.v, sizeof(before));
	co_start(CO_SERVICE, co_sender, &t, "sender");
	co_sleep_ns(NS_PER_MS);
	CU_ASSERT_EQUAL(stream_co_recv_all(b, got, total, UINT64_MAX), 0);
	CU_ASSERT_EQUAL(memcmp(all, got, total), 0);
	r = co_join_wait(&j);
	CU_ASSERT_EQUAL(memcmp(before, t.v, sizeof(before)), 0); /* the caller's list is whole */
	stream_close(t.s);
	CU_ASSERT_EQUAL(stream_co_recv_all(b, got, 1, UINT64_MAX), -ECONNRESET);
	CU_ASSERT_TRUE(stream_co_send_all(b, t.v, 1, UINT64_MAX) < 0);
	stream_close(b);
	xfree(all);
	xfree(got);
	return r;
}

static void big_sends_arrive_whole(void)
{
	run(co_big_send, NULL);
}

static int co_deadline(void *arg)
{
	struct stream *a, *b;
	struct iovec v = { xcalloc(1, 8 * MIB), 8 * MIB };
	char c[10];

	pair(&a, &b);
	v.iov_len = 5;
	CU_ASSERT_EQUAL(stream_co_send_all(a, &v, 1, reactor_now_ns() + NS_PER_SEC), 0);
	CU_ASSERT_EQUAL(stream_co_recv_all(b, c, 10, reactor_now_ns() + 20 * NS_PER_MS), -ETIMEDOUT);
	CU_ASSERT_EQUAL(stream_co_recv(a, c, 10), 0); /* it was shut down */
	stream_close(a);
	stream_close(b);
	pair(&a, &b);
	v.iov_len = 8 * MIB;
	CU_ASSERT_EQUAL(stream_co_send_all(a, &v, 1, reactor_now_ns() + 20 * NS_PER_MS), -ETIMEDOUT);
	stream_close(a);
	stream_close(b);
	xfree(v.iov_base);
	return 0;
}

static void deadlines_end_operations(void)
{
	run(co_deadline, NULL);
}

static int co_echo_there(void *arg)
{
	struct stream *s = arg;
	char c[4];
	struct iovec v = { c, 4 };
	int r = stream_co_recv_all(s, c, 4, UINT64_MAX);

	return r < 0 ? r : stream_co_send_all(s, &v, 1, UINT64_MAX);
}

static void co_echo_caller(void *arg)
{
	struct transfer *t = arg;

	co_join_done(t->j, reactor_co_call(world->reactors[1], co_echo_there, t->s));
}

static int co_move(void *arg)
{
	struct transfer t = { 0 };
	struct stream *a;
	struct co_join j;
	struct iovec v = { "ping", 4 };
	char c[4];

	pair(&a, &t.s);
	co_join_init(&j);
	co_join_add(&j);
	t.j = &j;
	co_start(CO_SERVICE, co_echo_caller, &t, "echo");
	CU_ASSERT_EQUAL(stream_co_send_all(a, &v, 1, UINT64_MAX), 0);
	CU_ASSERT_EQUAL(stream_co_recv_all(a, c, 4, UINT64_MAX), 0);
	CU_ASSERT_EQUAL(memcmp(c, "ping", 4), 0);
	CU_ASSERT_EQUAL(co_join_wait(&j), 0);
	CU_ASSERT_EQUAL(stream_co_send_all(t.s, &v, 1, UINT64_MAX), 0); /* and back here */
	CU_ASSERT_EQUAL(stream_co_recv_all(a, c, 4, UINT64_MAX), 0);
	stream_close(a);
	stream_close(t.s);
	return 0;
}

static void idle_streams_change_reactors(void)
{
	run(co_move, NULL);
}

/* ---- listening ---- */

struct server {
	unsigned n_accepted;
	struct co_queue accepted;
	char peer[64];
	bool is_unix, is_loopback;
};

static void co_serve(void *arg, struct stream *s)
{
	struct server *v = arg;

	v->n_accepted++;
	strcpy(v->peer, s->peer);
	v->is_unix = s->is_unix;
	v->is_loopback = s->is_loopback;
	CU_ASSERT_TRUE(fcntl(s->fd, F_GETFD) & FD_CLOEXEC);
	co_echo_there(s);
	stream_close(s);
	co_queue_wake_all(&v->accepted);
}

static const struct listen_ops serve_ops = { .co_accept = co_serve };

static int connect_to(const char *addr)
{
	struct sockaddr_un u = { .sun_family = AF_UNIX };
	struct sockaddr_in t = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	bool is_unix = !strncmp(addr, "unix:", 5);
	int fd = socket(is_unix ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

	if (is_unix) {
		strcpy(u.sun_path, addr + 5);
		r = connect(fd, (struct sockaddr *)&u, sizeof(u));
	} else {
		t.sin_port = htons((uint16_t)atoi(strrchr(addr, ':') + 1));
		r = connect(fd, (struct sockaddr *)&t, sizeof(t));
	}
	CU_ASSERT_EQUAL(r, 0);
	return fd;
}

static void co_talk(struct server *v, const char *addr)
{
	struct stream *s = stream_from_fd(world, connect_to(addr));
	struct iovec i = { "talk", 4 };
	unsigned n = v->n_accepted;
	char c[4];

	CU_ASSERT_EQUAL(stream_co_send_all(s, &i, 1, UINT64_MAX), 0);
	CU_ASSERT_EQUAL(stream_co_recv_all(s, c, 4, reactor_now_ns() + 5 * NS_PER_SEC), 0);
	CU_ASSERT_EQUAL(memcmp(c, "talk", 4), 0);
	CU_ASSERT_EQUAL(v->n_accepted, n + 1);
	CU_ASSERT_EQUAL(stream_co_recv(s, c, 4), 0);
	stream_close(s);
}

static int co_listen_unix(void *arg)
{
	struct server v = { 0 };
	struct listener *l, *m;
	struct err e = { 0 };
	char addr[100];
	struct sockaddr_un u = { .sun_family = AF_UNIX };
	int i, fd;

	co_queue_init(&v.accepted);
	snprintf(addr, sizeof(addr), "unix:%s/sock", dir);
	CU_ASSERT_EQUAL_FATAL(listener_open(world, addr, &serve_ops, &v, &l, &e), 0);
	CU_ASSERT_STRING_EQUAL(listener_addr(l), addr);
	for (i = 0; i < 10; i++)
		co_talk(&v, addr);
	CU_ASSERT_TRUE(v.is_unix && v.is_loopback && !strncmp(v.peer, "unix pid ", 9));
	CU_ASSERT_EQUAL(listener_open(world, addr, &serve_ops, &v, &m, &e), -EADDRINUSE);
	listener_co_close(l);
	CU_ASSERT_NOT_EQUAL(access(addr + 5, F_OK), 0);
	/* a path left behind is replaced; a file that is no socket is not */
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	strcpy(u.sun_path, addr + 5);
	CU_ASSERT_EQUAL(bind(fd, (struct sockaddr *)&u, sizeof(u)), 0);
	close(fd);
	CU_ASSERT_EQUAL_FATAL(listener_open(world, addr, &serve_ops, &v, &l, &e), 0);
	co_talk(&v, addr);
	listener_co_close(l);
	close(open(addr + 5, O_CREAT | O_CLOEXEC | O_WRONLY, 0600));
	CU_ASSERT_TRUE(listener_open(world, addr, &serve_ops, &v, &l, &e) < 0);
	CU_ASSERT_EQUAL(access(addr + 5, F_OK), 0);
	unlink(addr + 5);
	return 0;
}

/* What the socket takes goes at once; nothing waits; and it all arrives in order. */
static int co_try_send(void *arg)
{
	const size_t len = 8 * MIB;
	char *out = xmalloc(len), *in = xmalloc(len);
	struct stream *a, *b;
	struct rng rng;
	size_t sent = 0, got = 0;
	int64_t n;

	rng_init(&rng, 7);
	rng_fill(&rng, out, len);
	pair(&a, &b);
	while (got < len) {
		struct iovec v[2] = { { out + sent, MIN(1000, len - sent) }, { out + sent, 0 } };

		v[1].iov_base = out + sent + v[0].iov_len;
		v[1].iov_len = len - sent - v[0].iov_len;
		n = stream_try_send(a, v, 2);
		CU_ASSERT_TRUE_FATAL(n >= 0 && n < (int64_t)len);
		sent += (size_t)n;
		if (sent < len)
			CU_ASSERT_EQUAL(stream_try_send(a, v + 1, 1), 0); /* it is full */
		CU_ASSERT_EQUAL_FATAL(stream_co_recv_all(b, in + got, sent - got, UINT64_MAX), 0);
		got = sent;
	}
	CU_ASSERT_EQUAL(memcmp(out, in, len), 0);
	stream_close(b);
	CU_ASSERT_EQUAL(stream_try_send(a, &(struct iovec){ out, 1 }, 1), -EPIPE);
	stream_close(a);
	xfree(out);
	xfree(in);
	return 0;
}

static void what_can_be_sent_at_once_is(void)
{
	run(co_try_send, NULL);
}

static void unix_listener_serves_and_cleans_up(void)
{
	run(co_listen_unix, NULL);
}

static int co_listen_tcp(void *arg)
{
	struct server v = { 0 };
	struct listener *l, *m;
	struct err e = { 0 };

	co_queue_init(&v.accepted);
	CU_ASSERT_EQUAL_FATAL(listener_open(world, "127.0.0.1:0", &serve_ops, &v, &l, &e), 0);
	CU_ASSERT_TRUE(strncmp(listener_addr(l), "127.0.0.1:", 10) == 0 && atoi(listener_addr(l) + 10) > 0);
	co_talk(&v, listener_addr(l));
	CU_ASSERT_TRUE(!v.is_unix && v.is_loopback && !strncmp(v.peer, "127.0.0.1:", 10));
	CU_ASSERT_EQUAL(listener_open(world, listener_addr(l), &serve_ops, &v, &m, &e), -EADDRINUSE);
	listener_co_close(l);
	CU_ASSERT_EQUAL(listener_open(world, "nonsense", &serve_ops, &v, &l, &e), -EINVAL);
	CU_ASSERT_EQUAL(listener_open(world, "::1:10809", &serve_ops, &v, &l, &e), -EINVAL);
	if (listener_open(world, "[::1]:0", &serve_ops, &v, &l, &e) == 0) {
		CU_ASSERT_EQUAL(strncmp(listener_addr(l), "[::1]:", 6), 0);
		listener_co_close(l);
	}
	return 0;
}

static void tcp_listener_serves(void)
{
	run(co_listen_tcp, NULL);
}

/* As a service manager hands it over: it is another's too, and goes on listening when we have gone. */
static int co_listen_inherited(void *arg)
{
	const bool is_unix = arg != NULL;
	struct sockaddr_un u = { .sun_family = AF_UNIX };
	struct sockaddr_in t = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY) };
	int fd = socket(is_unix ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), i, before;
	struct server v = { 0 };
	struct listener *l;
	struct err e = { 0 };
	char addr[160];

	co_queue_init(&v.accepted);
	CU_ASSERT_EQUAL(listener_open_fd(world, dup(fd), &serve_ops, &v, &l, &e), -ENOTSOCK);
	snprintf(u.sun_path, sizeof(u.sun_path), "%s/inherited", dir);
	CU_ASSERT_EQUAL_FATAL(bind(fd, is_unix ? (struct sockaddr *)&u : (struct sockaddr *)&t, is_unix ? sizeof(u) : sizeof(t)), 0);
	CU_ASSERT_EQUAL_FATAL(listen(fd, 8), 0);
	for (i = 0; i < 3; i++) {
		CU_ASSERT_EQUAL_FATAL(listener_open_fd(world, dup(fd), &serve_ops, &v, &l, &e), 0);
		snprintf(addr, sizeof(addr), "%s", listener_addr(l));
		CU_ASSERT_EQUAL(strncmp(addr, is_unix ? "unix:" : "0.0.0.0:", 5), 0);
		co_talk(&v, addr);
		listener_co_close(l);
		/* Who comes now waits for the next one. */
		before = connect_to(addr);
		co_sleep_ns(20 * NS_PER_MS);
		CU_ASSERT_EQUAL(v.n_accepted, (unsigned)(2 * i + 1));
		CU_ASSERT_EQUAL_FATAL(listener_open_fd(world, dup(fd), &serve_ops, &v, &l, &e), 0);
		co_sleep_ns(50 * NS_PER_MS);
		CU_ASSERT_EQUAL(v.n_accepted, (unsigned)(2 * i + 2));
		close(before);
		listener_co_close(l);
	}
	if (is_unix)
		CU_ASSERT_EQUAL(access(u.sun_path, F_OK), 0); /* not ours to take away */
	unlink(u.sun_path);
	close(fd);
	return 0;
}

static void inherited_sockets_go_on_listening(void)
{
	run(co_listen_inherited, NULL);
	run(co_listen_inherited, dir);
}

static int co_no_descriptors(void *arg)
{
	struct server v = { 0 };
	struct rlimit lim, low;
	struct listener *l;
	char addr[100];
	struct sockaddr_un u = { .sun_family = AF_UNIX };
	unsigned before = io == REAL_IO_URING;
	int fd, late, used[64], n = 0;

	co_queue_init(&v.accepted);
	snprintf(addr, sizeof(addr), "unix:%s/sock2", dir);
	CU_ASSERT_EQUAL_FATAL(listener_open(world, addr, &serve_ops, &v, &l, NULL), 0);
	co_sleep_ns(20 * NS_PER_MS);
	getrlimit(RLIMIT_NOFILE, &lim);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	late = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	low = lim;
	low.rlim_cur = (rlim_t)late + 2;
	setrlimit(RLIMIT_NOFILE, &low);
	while (n < 64 && (used[n] = dup(0)) >= 0)
		n++;
	strcpy(u.sun_path, addr + 5);
	CU_ASSERT_EQUAL(connect(fd, (struct sockaddr *)&u, sizeof(u)), 0);
	co_sleep_ns(20 * NS_PER_MS);
	CU_ASSERT_EQUAL(v.n_accepted, before); /* an accept that waits in the kernel knows the old limit */
	CU_ASSERT_EQUAL(connect(late, (struct sockaddr *)&u, sizeof(u)), 0);
	co_sleep_ns(250 * NS_PER_MS);
	CU_ASSERT_EQUAL(v.n_accepted, before); /* there was no descriptor for it */
	while (n > 0)
		close(used[--n]);
	setrlimit(RLIMIT_NOFILE, &lim);
	co_sleep_ns(250 * NS_PER_MS);
	CU_ASSERT_EQUAL(v.n_accepted, 2);
	close(fd);
	close(late);
	co_sleep_ns(20 * NS_PER_MS);
	listener_co_close(l);
	return 0;
}

static void listener_survives_running_out_of_descriptors(void)
{
	run(co_no_descriptors, NULL);
}

/* ---- memory ---- */

static int co_memory(void *arg)
{
	uint8_t *out;
	size_t out_len;
	struct stream *s = stream_from_memory("hello world", 11, 4, &out, &out_len);
	struct iovec v[2] = { { "abc", 3 }, { "de", 2 } };
	char c[20] = { 0 };

	CU_ASSERT_EQUAL(s->fd, -1);
	CU_ASSERT_EQUAL(stream_co_recv(s, c, 20), 4);
	CU_ASSERT_EQUAL(stream_co_recv_all(s, c + 4, 7, UINT64_MAX), 0);
	CU_ASSERT_STRING_EQUAL(c, "hello world");
	CU_ASSERT_EQUAL(stream_co_recv(s, c, 20), 0);
	CU_ASSERT_EQUAL(stream_co_recv_all(s, c, 1, UINT64_MAX), -ECONNRESET);
	CU_ASSERT_EQUAL(stream_co_send_all(s, v, 2, UINT64_MAX), 0);
	CU_ASSERT_EQUAL(stream_co_send_all(s, v, 1, UINT64_MAX), 0);
	CU_ASSERT_EQUAL(out_len, 8);
	CU_ASSERT_EQUAL(memcmp(out, "abcdeabc", 8), 0);
	stream_shutdown(s);
	CU_ASSERT_EQUAL(stream_co_send_all(s, v, 1, UINT64_MAX), -EPIPE);
	stream_close(s);
	xfree(out);
	return 0;
}

static void memory_streams_play_both_ends(void)
{
	run(co_memory, NULL);
}

static int by_uring(void)
{
	io = REAL_IO_URING;
	return 0;
}

static int by_epoll(void)
{
	io = REAL_IO_AIO;
	return 0;
}

/* Connects to a socket of this process that listens at a; at: where to connect to. Then the same when it listens no more. */
static void try_self(const void *a, const void *at, socklen_t len, bool want)
{
	struct sockaddr_storage to = { 0 };
	socklen_t to_len = sizeof(to);
	int family = ((const struct sockaddr *)a)->sa_family, l = socket(family, SOCK_STREAM, 0), c, s;

	CU_ASSERT_EQUAL_FATAL(bind(l, a, len), 0);
	CU_ASSERT_EQUAL_FATAL(listen(l, 5), 0);
	memcpy(&to, at, len);
	if (family == AF_UNIX) {
		to_len = len;
	} else { /* with the port that it got */
		struct sockaddr_storage bound;

		CU_ASSERT_EQUAL(getsockname(l, (struct sockaddr *)&bound, &to_len), 0);
		((struct sockaddr_in *)&to)->sin_port = ((struct sockaddr_in *)&bound)->sin_port;
		to_len = to.ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
	}
	c = socket(to.ss_family, SOCK_STREAM, 0);
	CU_ASSERT_EQUAL_FATAL(connect(c, (struct sockaddr *)&to, to_len), 0);
	s = accept(l, NULL, NULL);
	CU_ASSERT_EQUAL(net_peer_is_self(c), want);
	CU_ASSERT_FALSE(net_peer_is_self(s)); /* the other end does not listen */
	close(l);
	CU_ASSERT_FALSE(net_peer_is_self(c));
	close(c);
	close(s);
}

static void connections_to_oneself_are_seen(void)
{
	struct sockaddr_in any = { .sin_family = AF_INET }, lo = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in6 any6 = { .sin6_family = AF_INET6, .sin6_addr = in6addr_any };
	struct sockaddr_storage lo_in6 = { 0 };
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_INET6, SOCK_STREAM, 0);

	try_self(&lo, &lo, sizeof(lo), true);
	try_self(&any, &lo, sizeof(lo), true);
	memcpy(&lo_in6, &lo, sizeof(lo));
	if (fd >= 0 && bind(fd, (struct sockaddr *)&any6, sizeof(any6)) == 0)
		try_self(&any6, &lo_in6, sizeof(any6), true); /* by IPv4 to a socket of IPv6 */
	close(fd);
	snprintf(un.sun_path, sizeof(un.sun_path), "/tmp/ashlar-net-%d", (int)getpid());
	try_self(&un, &un, sizeof(un), true);
	unlink(un.sun_path);
}

static void add_suite(const char *name, CU_InitializeFunc init)
{
	CU_pSuite s = CU_add_suite(name, init, NULL);

#define T(f) CU_add_test(s, #f, f)
	T(big_sends_arrive_whole);
	T(deadlines_end_operations);
	T(what_can_be_sent_at_once_is);
	T(idle_streams_change_reactors);
	T(unix_listener_serves_and_cleans_up);
	T(tcp_listener_serves);
	T(inherited_sockets_go_on_listening);
	T(listener_survives_running_out_of_descriptors);
	T(memory_streams_play_both_ends);
	T(connections_to_oneself_are_seen);
}

int main(void)
{
	unsigned failures;

	strcpy(dir, "/tmp/ashlar-net-XXXXXX");
	CHECK(mkdtemp(dir));
	CU_initialize_registry();
	add_suite("net by io_uring", by_uring);
	add_suite("net by epoll", by_epoll);
	CU_basic_run_tests();
	failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	rmdir(dir);
	return failures != 0;
}
