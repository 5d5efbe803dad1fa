/* What servers of streams have in common: who gets a place, who loses it, and an end at any moment. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "engine/base/units.h"
#include "engine/io/net_server.h"
#include "engine/io/real.h"
#include "tests/unit/unit.h"

#define CONNS_MAX 16

/* A protocol of one byte: its client sends the number of the reactor where it wants to be. */
struct conn {
	struct net_conn net;
	struct co *runs; /* NULL: not just now */
	bool stopped, over, freed;
};

static struct world *world;
static struct net_server server;
static struct conn conns[CONNS_MAX]; /* those that are gone can be looked at */
static unsigned n_conns, n_lines;

static struct conn *conn_of(struct net_conn *c) { return container_of(c, struct conn, net); }

static struct net_conn *conn_alloc(struct net_server *s)
{
	struct conn *c = &conns[n_conns++];

	memset(c, 0, sizeof(*c));
	return &c->net;
}

static void conn_free(struct net_conn *c)
{
	CU_ASSERT_FALSE(conn_of(c)->freed);
	conn_of(c)->freed = true;
}

static struct reactor *co_handshake(struct net_conn *c)
{
	char wish;

	return stream_co_recv_all(c->st, &wish, 1, UINT64_MAX) == 0 ? world->reactors[(int)wish] : NULL;
}

static void co_run(struct net_conn *c)
{
	struct conn *x = conn_of(c);

	CU_ASSERT_PTR_EQUAL(reactor_self(), c->home);
	x->runs = co_self();
	while (!x->stopped)
		co_suspend();
	x->runs = NULL;
}

static void co_over(struct net_conn *c)
{
	CU_ASSERT_PTR_EQUAL(reactor_self(), world->reactors[0]);
	conn_of(c)->over = true;
}

static void conn_stop(struct net_conn *c)
{
	struct conn *x = conn_of(c);

	CU_ASSERT_PTR_EQUAL(reactor_self(), c->home);
	CU_ASSERT_FALSE(x->freed);
	x->stopped = true;
	if (x->runs)
		co_wake(x->runs);
}

static const struct net_server_ops ops = { .who = "test", .handshake = "greeting", .conn_alloc = conn_alloc, .conn_free = conn_free,
					   .co_handshake = co_handshake, .co_run = co_run, .co_over = co_over, .stop = conn_stop, .end = net_conn_stop };

static void take_line(void *arg, const char *line)
{
	n_lines++;
}

static void co_serve(void *st)
{
	net_server_co_serve(&server, st);
}

/* The client's end of a connection that is being served. */
static struct stream *client(void)
{
	int fd[2];

	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
	co_spawn(CO_SERVICE, co_serve, stream_from_fd(world, fd[0]), "client");
	co_yield();
	return stream_from_fd(world, fd[1]);
}

static void co_say(struct stream *s, char wish)
{
	CU_ASSERT_EQUAL(stream_co_send_all(s, &(struct iovec){ &wish, 1 }, 1, UINT64_MAX), 0);
}

static bool co_becomes(const bool *what)
{
	int i;

	for (i = 0; i < 2000 && !__atomic_load_n(what, __ATOMIC_SEQ_CST); i++)
		co_sleep_ns(NS_PER_MS);
	return i < 2000;
}

static bool co_runs(struct conn *c)
{
	int i;

	for (i = 0; i < 2000 && !__atomic_load_n(&c->runs, __ATOMIC_SEQ_CST); i++)
		co_sleep_ns(NS_PER_MS);
	return i < 2000;
}

static void begin(unsigned max_connections, unsigned max_half_open)
{
	struct net_server_conf conf = { .max_connections = max_connections, .max_half_open = max_half_open, .log = take_line };

	n_conns = n_lines = 0;
	net_server_init(&server, world, &ops, &conf);
}

static int co_places(void *arg)
{
	struct stream *s[6];
	char c;
	int i;

	begin(3, 2);
	s[0] = client();
	s[1] = client();
	s[2] = client(); /* in the place of the first */
	CU_ASSERT_TRUE(co_becomes(&conns[0].freed));
	CU_ASSERT_TRUE(conns[0].over && !conns[0].net.home);
	CU_ASSERT_EQUAL(stream_co_recv(s[0], &c, 1), 0);
	co_say(s[1], 1);
	co_say(s[2], 0);
	CU_ASSERT_TRUE(co_runs(&conns[1]) && co_runs(&conns[2]));
	s[3] = client();
	s[4] = client(); /* all places are taken: the one that has not shaken hands goes */
	CU_ASSERT_TRUE(co_becomes(&conns[3].freed));
	co_say(s[4], 1);
	CU_ASSERT_TRUE(co_runs(&conns[4]));
	CU_ASSERT_EQUAL(server.n_conns, 3);
	s[5] = client(); /* and who has does not */
	CU_ASSERT_EQUAL(n_conns, 5);
	CU_ASSERT_EQUAL(stream_co_recv(s[5], &c, 1), 0);
	CU_ASSERT_EQUAL(n_lines, 3);
	CU_ASSERT_TRUE(!conns[1].freed && !conns[2].freed && !conns[4].freed);
	net_server_co_fini(&server);
	for (i = 0; i < 5; i++)
		CU_ASSERT_TRUE(conns[i].freed && conns[i].over);
	for (i = 0; i < 6; i++)
		stream_close(s[i]);
	return 0;
}

/* The first connection ends by itself just when the server does: its coroutine is resumed after the message has been posted and
 * before that has run. */
static void co_end_first(void *who_ends)
{
	co_wake(who_ends);
	co_yield();
	conns[0].stopped = true;
	co_wake(conns[0].runs);
	conns[0].runs = NULL;
}

/* Those that run, here and elsewhere, and who is still shaking hands. */
static int co_end(void *arg)
{
	struct stream *s[3];
	int i;

	begin(16, 16);
	for (i = 0; i < 3; i++)
		s[i] = client();
	co_say(s[0], 0);
	co_say(s[1], 1);
	CU_ASSERT_TRUE(co_runs(&conns[0]) && co_runs(&conns[1]));
	if (arg) {
		co_spawn(CO_SERVICE, co_end_first, co_self(), "end");
		co_suspend();
	}
	net_server_co_fini(&server);
	for (i = 0; i < 3; i++)
		CU_ASSERT_TRUE(conns[i].freed);
	co_sleep_ns(NS_PER_MS);
	for (i = 0; i < 3; i++)
		stream_close(s[i]);
	return 0;
}

static void run(int (*fn)(void *arg), void *arg)
{
	struct real_options o = { .n_reactors = 2 };
	struct err e = { 0 };

	if (real_world_create(&o, &world, &e) < 0) {
		CU_FAIL(e.text);
		return;
	}
	CU_ASSERT_EQUAL(real_world_run(world, fn, arg), 0);
	real_world_destroy(world);
}

static void newest_takes_the_place_of_the_oldest_that_has_not_shaken_hands(void) { run(co_places, NULL); }
static void end_waits_for_all(void) { run(co_end, NULL); }
static void connection_that_ends_as_it_is_stopped_is_there_until_it_has_been_told(void) { run(co_end, &server); }

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(newest_takes_the_place_of_the_oldest_that_has_not_shaken_hands),
		TEST(end_waits_for_all),
		TEST(connection_that_ends_as_it_is_stopped_is_there_until_it_has_been_told),
		CU_TEST_INFO_NULL,
	};

	return tests_run("net server", tests);
}
