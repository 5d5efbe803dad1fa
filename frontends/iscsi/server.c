/*
 * The server: what iSCSI adds to net_server.h, which has the listeners and the table of connections: sessions, and what changes for them.
 */
#include <stdio.h>

#include "frontends/iscsi/conn.h"

static const struct iscsi_options defaults = {
	.max_connections = 1024,
	.max_unauthenticated = 128,
	.login_ns = 15 * NS_PER_SEC,
	.ping_ns = 20 * NS_PER_SEC,
	.pong_ns = 20 * NS_PER_SEC,
	.max_session_bytes = 32 * MIB,
	.max_total_bytes = 256 * MIB,
};

/* ---- sessions ---- */

void iscsi_conn_stop(struct iscsi_conn *c, enum iscsi_stop how)
{
	if (!net_conn_is_running(&c->net) || atomic_exchange(&c->stop_want, how) == STOP_NONE)
		net_conn_stop(&c->net);
}

static struct iscsi_conn *session_find(struct iscsi_conn *c)
{
	struct iscsi_conn *x;

	list_for_each (x, &c->srv->net.conns, net.link)
		if (x != c && x->is_listed && !memcmp(x->isid, c->isid, sizeof(c->isid)) && !strcmp(x->initiator, c->initiator) &&
		    !strcmp(x->target, c->target))
			return x;
	return NULL;
}

static bool tsih_is_used(struct iscsi_server *s, uint16_t tsih)
{
	struct iscsi_conn *x;

	list_for_each (x, &s->net.conns, net.link)
		if (x->is_listed && x->tsih == tsih)
			return true;
	return tsih == ISCSI_TSIH_NONE;
}

static enum iscsi_login_status session_co_open(struct iscsi_conn *c)
{
	struct iscsi_lun *l;
	size_t i;

	if (c->n_rules > ISCSI_LUNS_MAX)
		return ISCSI_LOGIN_NO_RESOURCES;
	c->session = ++c->srv->last_session;
	for (i = 0; i < c->n_rules && !c->net.dropped; i++) {
		l = iscsi_lun_co_open(c, &c->rules[i]);
		if (l)
			iscsi_lun_add(c, l);
	}
	if (c->n_luns)
		atomic_store(&c->home, c->luns[0]->home);
	return c->n_luns ? ISCSI_LOGIN_OK : ISCSI_LOGIN_UNAVAILABLE;
}

enum iscsi_login_status iscsi_session_co_begin(struct iscsi_conn *c, uint16_t tsih)
{
	struct iscsi_server *s = c->srv;
	uint64_t deadline = reactor_now_ns() + s->o.login_ns;
	struct iscsi_conn *old;

	c->prm.first_burst = MIN(c->prm.first_burst, c->prm.max_burst);
	if (tsih != ISCSI_TSIH_NONE)
		return session_find(c) ? ISCSI_LOGIN_TOO_MANY_CONNECTIONS : ISCSI_LOGIN_NO_SESSION;
	while (!c->is_discovery && (old = session_find(c))) {
		iscsi_conn_stop(old, STOP_NOW);
		if (co_queue_wait_until(&s->net.changed, deadline) < 0)
			return ISCSI_LOGIN_UNAVAILABLE;
	}
	if (s->net.stopping || c->net.dropped)
		return ISCSI_LOGIN_UNAVAILABLE;
	do
		s->last_tsih++;
	while (tsih_is_used(s, s->last_tsih));
	c->tsih = s->last_tsih;
	c->is_listed = true;
	if (c->is_discovery)
		return ISCSI_LOGIN_OK;
	if (iscsi_login_co_is_late(c)) /* since it said who it is; what changes from here on finds it in the table */
		return ISCSI_LOGIN_UNAVAILABLE;
	return session_co_open(c);
}

/* ---- connections ---- */

static struct iscsi_conn *conn_of(struct net_conn *c)
{
	return container_of(c, struct iscsi_conn, net);
}

static struct net_conn *conn_alloc(struct net_server *net)
{
	struct iscsi_conn *c = xcalloc(1, sizeof(*c));

	c->srv = container_of(net, struct iscsi_server, net);
	atomic_store(&c->home, net->home);
	return &c->net;
}

static void conn_free(struct net_conn *net)
{
	struct iscsi_conn *c = conn_of(net);

	xfree(c->rules);
	while (c->n_luns)
		xfree(c->luns[--c->n_luns]);
	xfree(c->luns);
	xfree(c->lun_numbers);
	xfree(c);
}

static struct reactor *conn_co_login(struct net_conn *c)
{
	if (iscsi_login_co(conn_of(c)) < 0 || c->dropped)
		return NULL;
	c->is_guest = conn_of(c)->is_discovery; /* which anybody may have, and which stays here */
	return atomic_load(&conn_of(c)->home);
}

static void conn_co_run(struct net_conn *c)
{
	iscsi_conn_co_run(conn_of(c));
}

static void conn_co_over(struct net_conn *c)
{
	while (conn_of(c)->n_changing)
		co_queue_wait(&conn_of(c)->srv->net.changed);
	iscsi_luns_co_close(conn_of(c));
}

static void conn_stop(struct net_conn *c)
{
	iscsi_conn_stop_run(conn_of(c));
}

static void conn_end(struct net_conn *c)
{
	iscsi_conn_stop(conn_of(c), STOP_SERVER);
}

static const struct net_server_ops net_ops = {
	.who = "iscsi",
	.handshake = "login",
	.conn_alloc = conn_alloc,
	.conn_free = conn_free,
	.co_handshake = conn_co_login,
	.co_run = conn_co_run,
	.co_over = conn_co_over,
	.stop = conn_stop,
	.end = conn_end,
};

/* ---- the server ---- */

struct iscsi_server *iscsi_server_create(struct world *w, struct ashlar *a, const struct iscsi_provider *p, const struct iscsi_options *o)
{
	size_t len = sizeof(struct iscsi_server) + w->n_reactors * sizeof(struct iscsi_shard);
	struct iscsi_server *s = xaligned(64, len);
	unsigned i;

	memset(s, 0, len);
	iscsi_store_init(&s->store, a);
	s->scsi = scsi_target_create(a, &s->store);
	s->p = *p;
	s->o = o ? *o : defaults;
#define DEFAULT(field) (s->o.field = s->o.field ? s->o.field : defaults.field)
	DEFAULT(max_connections);
	DEFAULT(max_unauthenticated);
	DEFAULT(login_ns);
	DEFAULT(ping_ns);
	DEFAULT(pong_ns);
	DEFAULT(max_session_bytes);
	DEFAULT(max_total_bytes);
#undef DEFAULT
	co_mutex_init(&s->changing);
	net_server_init(&s->net, w, &net_ops,
			&(struct net_server_conf){ .max_connections = s->o.max_connections,
						   .max_half_open = s->o.max_unauthenticated,
						   .log = s->o.log,
						   .log_arg = s->o.log_arg });
	for (i = 0; i < w->n_reactors; i++) {
		s->shards[i].srv = s;
		list_init(&s->shards[i].conns);
	}
	return s;
}

int iscsi_server_listen(struct iscsi_server *s, const char *addr, struct err *e)
{
	const char *bound;

	return net_server_listen(&s->net, addr, &bound, e);
}

void iscsi_server_co_serve(struct iscsi_server *s, struct stream *st)
{
	net_server_co_serve(&s->net, st);
}

void iscsi_server_co_destroy(struct iscsi_server *s)
{
	net_server_co_fini(&s->net);
	scsi_target_co_destroy(s->scsi);
	xfree(s);
}

/* ---- reports ---- */

static uint64_t counter(const _Atomic uint64_t *c)
{
	return atomic_load_explicit(c, memory_order_relaxed);
}

int iscsi_server_connections(struct iscsi_server *s, struct iscsi_connection_info **out, size_t *n)
{
	struct iscsi_connection_info *v = xcalloc(s->net.n_conns + 1, sizeof(*v)), *x;
	struct iscsi_conn *c;

	*n = 0;
	list_for_each (c, &s->net.conns, net.link) {
		if (!net_conn_is_running(&c->net))
			continue;
		x = &v[(*n)++];
		snprintf(x->peer, sizeof(x->peer), "%s", c->net.st->peer);
		snprintf(x->initiator, sizeof(x->initiator), "%s", c->initiator);
		snprintf(x->target, sizeof(x->target), "%s", c->target);
		x->n_luns = atomic_load(&c->n_luns_there);
		x->reads = counter(&c->reads);
		x->writes = counter(&c->writes);
		x->bytes_read = counter(&c->bytes_read);
		x->bytes_written = counter(&c->bytes_written);
		x->since_wall_ns = c->net.since_wall_ns;
	}
	*out = v;
	return 0;
}
