/*
 * The server: listeners, the table of sessions, limits on them, and an orderly end.
 *
 * The table lives on one reactor (where nbd_server_create() was called), and so do handshakes. A session in transmission
 * is reached by a message to its home. Its memory is freed here, after the transmission coroutine has returned and every
 * message posted to its home has run.
 */
#include <stdio.h>

#include "nbd/session.h"

static const struct nbd_options defaults = {
	.max_connections = 1024,
	.max_unauthenticated = 128,
	.handshake_ns = 10 * NS_PER_SEC,
	.max_in_flight = 256,
	.max_in_flight_bytes = 64 * MIB,
	.max_total_bytes = 256 * MIB,
};

static void shard_init(struct nbd_shard *sh, struct nbd_server *s)
{
	sh->srv = s;
	list_init(&sh->waiting);
	list_init(&sh->sessions);
}

struct nbd_server *nbd_server_create(struct world *w, const struct nbd_provider *p, const struct nbd_options *o)
{
	size_t len = sizeof(struct nbd_server) + w->n_reactors * sizeof(struct nbd_shard);
	struct nbd_server *s = xaligned(64, len);
	unsigned i;

	memset(s, 0, len);
	s->world = w;
	s->home = reactor_self();
	s->p = *p;
	s->o = o ? *o : defaults;
#define DEFAULT(field) (s->o.field = s->o.field ? s->o.field : defaults.field)
	DEFAULT(max_connections);
	DEFAULT(max_unauthenticated);
	DEFAULT(handshake_ns);
	DEFAULT(max_in_flight);
	DEFAULT(max_in_flight_bytes);
	DEFAULT(max_total_bytes);
#undef DEFAULT
	list_init(&s->sessions);
	list_init(&s->half_open);
	co_queue_init(&s->idle);
	for (i = 0; i < w->n_reactors; i++)
		shard_init(&s->shards[i], s);
	return s;
}

static void accept_stream(void *arg, struct stream *st)
{
	nbd_server_co_serve(arg, st);
}

static const struct listen_ops listen_ops = {.co_accept = accept_stream};

static void listener_keep(struct nbd_server *s, struct listener *l)
{
	s->listeners = xrealloc(s->listeners, (s->n_listeners + 1) * sizeof(*s->listeners));
	s->listeners[s->n_listeners++] = l;
}

int nbd_server_listen_at(struct nbd_server *s, const char *addr, const char **bound, struct err *e)
{
	struct listener *l;
	int r = listener_open(s->world, addr, &listen_ops, s, &l, e);

	if (r < 0)
		return r;
	listener_keep(s, l);
	*bound = listener_addr(l);
	return 0;
}

int nbd_server_listen(struct nbd_server *s, const char *addr, struct err *e)
{
	const char *bound;

	return nbd_server_listen_at(s, addr, &bound, e);
}

int nbd_server_listen_fd(struct nbd_server *s, int fd, const char **addr, struct err *e)
{
	struct listener *l;
	int r = listener_open_fd(s->world, fd, &listen_ops, s, &l, e);

	if (r < 0)
		return r;
	listener_keep(s, l);
	*addr = listener_addr(l);
	return 0;
}

/* ---- the table ---- */

static struct nbd_session *session_create(struct nbd_server *s, struct stream *st)
{
	struct nbd_session *n = xcalloc(1, sizeof(*n));

	n->srv = s;
	n->st = st;
	n->phase = NBD_HANDSHAKE;
	n->since_wall_ns = s->world->ops->wall_ns(s->world);
	list_push_back(&s->sessions, &n->link);
	list_push_back(&s->half_open, &n->half_link);
	s->n_sessions++;
	s->n_half++;
	return n;
}

static void session_not_half_open(struct nbd_session *n)
{
	if (list_is_empty(&n->half_link))
		return;
	list_del(&n->half_link);
	n->srv->n_half--;
}

static void session_destroy(struct nbd_session *n)
{
	struct nbd_server *s = n->srv;

	session_not_half_open(n);
	list_del(&n->link);
	s->n_sessions--;
	if (n->dropped)
		s->n_dropped--;
	stream_close(n->st);
	xfree(n);
	if (!s->n_sessions)
		co_queue_wake_all(&s->idle);
}

/* Its coroutine meets an error at its next receive or send, and ends. */
static void half_open_drop(struct nbd_session *n, const char *why)
{
	nbd_log(n->srv, "nbd: %s: dropped in the handshake: %s", n->st->peer, why);
	session_not_half_open(n);
	n->dropped = true;
	n->srv->n_dropped++;
	stream_shutdown(n->st);
}

/* Makes room for one more connection; false: there is none. */
static bool server_admit(struct nbd_server *s)
{
	bool full = s->n_sessions - s->n_dropped >= s->o.max_connections;

	if (s->stopping || s->n_dropped > s->o.max_unauthenticated)
		return false;
	if (!full && s->n_half < s->o.max_unauthenticated)
		return true;
	if (list_is_empty(&s->half_open))
		return false;
	half_open_drop(list_first(&s->half_open, struct nbd_session, half_link), "a newer connection takes its place");
	return true;
}

/* ---- one connection ---- */

static int nothing(void *arg)
{
	return 0;
}

static void session_serve(struct nbd_session *n)
{
	struct reactor *home;

	if (nbd_handshake_co(n) != 0)
		return;
	session_not_half_open(n);
	n->phase = NBD_TRANSMISSION;
	home = n->at.home;
	reactor_co_call(home, nbd_transmit_co, n);
	if (n->stop_posted) /* it runs before this call: messages are in order */
		reactor_co_call(home, nothing, NULL);
}

void nbd_server_co_serve(struct nbd_server *s, struct stream *st)
{
	struct nbd_session *n;

	CHECK(reactor_self() == s->home);
	if (!server_admit(s)) {
		nbd_log(s, "nbd: %s: refused: %u connections are open", st->peer, s->n_sessions);
		stream_close(st);
		return;
	}
	n = session_create(s, st);
	session_serve(n);
	session_destroy(n);
}

/* ---- the end ---- */

static void stop_run(struct msg *m)
{
	nbd_session_gone(container_of(m, struct nbd_session, stop));
}

static void session_stop(struct nbd_session *n)
{
	if (n->phase == NBD_HANDSHAKE) {
		stream_shutdown(n->st);
		return;
	}
	n->stop.run = stop_run;
	n->stop_posted = true;
	reactor_post(n->at.home, &n->stop);
}

void nbd_server_co_destroy(struct nbd_server *s)
{
	struct nbd_session *n;
	size_t i;

	CHECK(reactor_self() == s->home && !s->stopping);
	s->stopping = true;
	for (i = 0; i < s->n_listeners; i++)
		listener_co_close(s->listeners[i]);
	co_yield(); /* connections that were accepted just before come here first, and are refused */
	list_for_each(n, &s->sessions, link)
		session_stop(n);
	while (s->n_sessions)
		co_queue_wait(&s->idle);
	xfree(s->listeners);
	xfree(s);
}

/* ---- reports ---- */

static uint64_t counter(const _Atomic uint64_t *c)
{
	return atomic_load_explicit(c, memory_order_relaxed);
}

int nbd_server_co_connections(struct nbd_server *s, struct nbd_connection_info **out, size_t *n)
{
	struct nbd_connection_info *v = xcalloc(s->n_sessions + 1, sizeof(*v));
	struct nbd_session *x;
	size_t i = 0;

	list_for_each(x, &s->sessions, link) {
		if (x->phase != NBD_TRANSMISSION)
			continue;
		snprintf(v[i].peer, sizeof(v[i].peer), "%s", x->st->peer);
		snprintf(v[i].export_name, sizeof(v[i].export_name), "%s", x->export_name);
		v[i].reads = counter(&x->reads);
		v[i].writes = counter(&x->writes);
		v[i].bytes_read = counter(&x->bytes_read);
		v[i].bytes_written = counter(&x->bytes_written);
		v[i].since_wall_ns = x->since_wall_ns;
		i++;
	}
	*out = v;
	*n = i;
	return 0;
}
