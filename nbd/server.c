/*
 * The server: what NBD adds to net_server.h, which has the listeners and the table of sessions.
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

/* ---- sessions ---- */

static struct nbd_session *session_of(struct net_conn *c)
{
	return container_of(c, struct nbd_session, net);
}

static struct net_conn *session_alloc(struct net_server *net)
{
	struct nbd_session *n = xcalloc(1, sizeof(*n));

	n->srv = container_of(net, struct nbd_server, net);
	return &n->net;
}

static void session_free(struct net_conn *c)
{
	xfree(session_of(c));
}

static struct reactor *session_co_handshake(struct net_conn *c)
{
	struct nbd_session *n = session_of(c);

	return nbd_handshake_co(n) == 0 ? n->at.home : NULL;
}

static void session_co_run(struct net_conn *c)
{
	nbd_transmit_co(session_of(c));
}

static void session_stop(struct net_conn *c)
{
	nbd_session_gone(session_of(c));
}

static const struct net_server_ops net_ops = {
	.who = "nbd",
	.handshake = "handshake",
	.conn_alloc = session_alloc,
	.conn_free = session_free,
	.co_handshake = session_co_handshake,
	.co_run = session_co_run,
	.stop = session_stop,
	.end = net_conn_stop,
};

/* ---- the server ---- */

static void shard_init(struct nbd_shard *sh, struct nbd_server *s)
{
	sh->srv = s;
	list_init(&sh->waiting[NBD_MEM_IN]);
	list_init(&sh->waiting[NBD_MEM_OUT]);
	list_init(&sh->sessions);
}

struct nbd_server *nbd_server_create(struct world *w, const struct nbd_provider *p, const struct nbd_options *o)
{
	size_t len = sizeof(struct nbd_server) + w->n_reactors * sizeof(struct nbd_shard);
	struct nbd_server *s = xaligned(64, len);
	unsigned i;

	memset(s, 0, len);
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
	net_server_init(&s->net, w, &net_ops,
			&(struct net_server_conf){.max_connections = s->o.max_connections,
						  .max_half_open = s->o.max_unauthenticated,
						  .log = s->o.log,
						  .log_arg = s->o.log_arg});
	for (i = 0; i < w->n_reactors; i++)
		shard_init(&s->shards[i], s);
	return s;
}

int nbd_server_listen_at(struct nbd_server *s, const char *addr, const char **bound, struct err *e)
{
	return net_server_listen(&s->net, addr, bound, e);
}

int nbd_server_listen(struct nbd_server *s, const char *addr, struct err *e)
{
	const char *bound;

	return net_server_listen(&s->net, addr, &bound, e);
}

int nbd_server_listen_fd(struct nbd_server *s, int fd, const char **addr, struct err *e)
{
	return net_server_listen_fd(&s->net, fd, addr, e);
}

void nbd_server_co_serve(struct nbd_server *s, struct stream *st)
{
	net_server_co_serve(&s->net, st);
}

void nbd_server_co_destroy(struct nbd_server *s)
{
	net_server_co_fini(&s->net);
	xfree(s);
}

/* ---- reports ---- */

static uint64_t counter(const _Atomic uint64_t *c)
{
	return atomic_load_explicit(c, memory_order_relaxed);
}

int nbd_server_co_connections(struct nbd_server *s, struct nbd_connection_info **out, size_t *n)
{
	struct nbd_connection_info *v = xcalloc(s->net.n_conns + 1, sizeof(*v));
	struct nbd_session *x;
	size_t i = 0;

	list_for_each(x, &s->net.conns, net.link) {
		if (!net_conn_is_running(&x->net))
			continue;
		snprintf(v[i].peer, sizeof(v[i].peer), "%s", x->net.st->peer);
		snprintf(v[i].export_name, sizeof(v[i].export_name), "%s", x->export_name);
		v[i].reads = counter(&x->reads);
		v[i].writes = counter(&x->writes);
		v[i].bytes_read = counter(&x->bytes_read);
		v[i].bytes_written = counter(&x->bytes_written);
		v[i].since_wall_ns = x->net.since_wall_ns;
		i++;
	}
	*out = v;
	*n = i;
	return 0;
}
