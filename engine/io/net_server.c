/*
 * The table of connections, admission to it, and the orderly end.
 */
#include "engine/io/net_server.h"

#include <stdatomic.h>
#include <string.h>

struct net_server_log {
	struct log_limit limit;
} __attribute__((aligned(64)));

void net_server_init(struct net_server *s, struct world *w, const struct net_server_ops *ops, const struct net_server_conf *conf)
{
	size_t len = w->n_reactors * sizeof(*s->logs);

	*s = (struct net_server){.world = w, .home = reactor_self(), .ops = ops, .conf = *conf};
	list_init(&s->conns);
	list_init(&s->half_open);
	co_queue_init(&s->changed);
	s->logs = xaligned(64, len);
	memset(s->logs, 0, len);
}

void net_server_log(struct net_server *s, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_limited(&s->logs[reactor_self()->index].limit, s->ops->who, s->conf.log, s->conf.log_arg, fmt, ap);
	va_end(ap);
}

/* ---- listeners ---- */

static void accept_stream(void *arg, struct stream *st)
{
	net_server_co_serve(arg, st);
}

static const struct listen_ops listen_ops = {.co_accept = accept_stream};

static int listener_keep(struct net_server *s, struct listener *l, const char **bound)
{
	s->listeners = xrealloc(s->listeners, (s->n_listeners + 1) * sizeof(*s->listeners));
	s->listeners[s->n_listeners++] = l;
	*bound = listener_addr(l);
	return 0;
}

int net_server_listen(struct net_server *s, const char *addr, const char **bound, struct err *e)
{
	struct listener *l;
	int r = listener_open(s->world, addr, &listen_ops, s, &l, e);

	return r < 0 ? r : listener_keep(s, l, bound);
}

int net_server_listen_fd(struct net_server *s, int fd, const char **bound, struct err *e)
{
	struct listener *l;
	int r = listener_open_fd(s->world, fd, &listen_ops, s, &l, e);

	return r < 0 ? r : listener_keep(s, l, bound);
}

/* ---- the table ---- */

static struct net_conn *conn_add(struct net_server *s, struct stream *st)
{
	struct net_conn *c = s->ops->conn_alloc(s);

	c->server = s;
	c->st = st;
	c->since_wall_ns = s->world->ops->wall_ns(s->world);
	list_push_back(&s->conns, &c->link);
	list_push_back(&s->half_open, &c->half_link);
	s->n_conns++;
	s->n_half++;
	return c;
}

static void conn_not_half_open(struct net_conn *c)
{
	if (list_is_empty(&c->half_link))
		return;
	list_del(&c->half_link);
	c->server->n_half--;
}

static void conn_remove(struct net_conn *c)
{
	struct net_server *s = c->server;

	conn_not_half_open(c);
	list_del(&c->link);
	s->n_conns--;
	if (c->dropped)
		s->n_dropped--;
	stream_close(c->st);
	s->ops->conn_free(c);
	co_queue_wake_all(&s->changed);
}

/* Its coroutine meets an error at its next receive or send, and ends. */
static void half_open_drop(struct net_conn *c, const char *why)
{
	struct net_server *s = c->server;

	net_server_log(s, "%s: %s: dropped %s the %s: %s", s->ops->who, c->st->peer, c->home ? "after" : "in", s->ops->handshake, why);
	conn_not_half_open(c);
	c->dropped = true;
	s->n_dropped++;
	stream_shutdown(c->st);
}

/* Makes room for one more connection; false: there is none. */
static bool server_admit(struct net_server *s)
{
	bool full = s->n_conns - s->n_dropped >= s->conf.max_connections;

	if (s->stopping || s->n_dropped > s->conf.max_half_open)
		return false;
	if (!full && s->n_half < s->conf.max_half_open)
		return true;
	if (list_is_empty(&s->half_open))
		return false;
	half_open_drop(list_first(&s->half_open, struct net_conn, half_link), "a newer connection takes its place");
	return true;
}

/* ---- one connection ---- */

static int nothing(void *arg)
{
	return 0;
}

/* Every message to it is run before it is freed. */
static void stop_co_settle(struct net_conn *c)
{
	while (atomic_load(&c->n_stopped) != c->n_stops) {
		reactor_co_call(c->home, nothing, NULL); /* behind it, if that is another reactor */
		co_yield();
	}
}

static int run_co(void *conn)
{
	struct net_conn *c = conn;

	c->server->ops->co_run(c);
	return 0;
}

static void conn_co_serve(struct net_conn *c)
{
	const struct net_server_ops *ops = c->server->ops;
	struct reactor *home = ops->co_handshake(c);

	if (home) {
		if (!c->is_guest)
			conn_not_half_open(c);
		c->home = home;
		reactor_co_call(home, run_co, c);
		c->is_over = true;
		stop_co_settle(c);
	}
	if (ops->co_over)
		ops->co_over(c);
}

void net_server_co_serve(struct net_server *s, struct stream *st)
{
	struct net_conn *c;

	CHECK(reactor_self() == s->home);
	if (!server_admit(s)) {
		net_server_log(s, "%s: %s: refused: %u connections are open", s->ops->who, st->peer, s->n_conns);
		stream_close(st);
		return;
	}
	c = conn_add(s, st);
	conn_co_serve(c);
	conn_remove(c);
}

/* ---- the end ---- */

static void stop_run(struct msg *m)
{
	struct net_conn *c = container_of(m, struct net_conn, stop);

	c->server->ops->stop(c);
	atomic_fetch_add(&c->n_stopped, 1); /* it may be freed now */
}

void net_conn_stop(struct net_conn *c)
{
	if (!net_conn_is_running(c)) {
		stream_shutdown(c->st);
		return;
	}
	c->stop.run = stop_run;
	c->n_stops++;
	reactor_post(c->home, &c->stop);
}

void net_server_co_fini(struct net_server *s)
{
	struct net_conn *c;
	size_t i;

	CHECK(reactor_self() == s->home && !s->stopping);
	s->stopping = true;
	for (i = 0; i < s->n_listeners; i++)
		listener_co_close(s->listeners[i]);
	co_yield(); /* connections that were accepted just before come here first, and are refused */
	list_for_each(c, &s->conns, link)
		s->ops->end(c);
	while (s->n_conns)
		co_queue_wait(&s->changed);
	xfree(s->listeners);
	xfree(s->logs);
}
