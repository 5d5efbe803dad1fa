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

/* Coroutine. One LU; those that are not there just now are left out. */
static void lun_co_open(struct iscsi_conn *c, const struct iscsi_rule *rule, uint64_t session)
{
	struct iscsi_lun *l = &c->luns[c->n_luns];
	struct scsi_nexus_conf conf = { .port = 1, .tpg = ISCSI_TPGT, .session = session, .read_only = rule->read_only, .ops = &iscsi_nexus_ops, .arg = l };
	struct err e = { 0 };
	int r;

	snprintf(conf.initiator, sizeof(conf.initiator), "%s,i,0x%02x%02x%02x%02x%02x%02x", c->initiator, c->isid[0], c->isid[1],
		 c->isid[2], c->isid[3], c->isid[4], c->isid[5]);
	snprintf(conf.target, sizeof(conf.target), "%s,t,0x%04x", c->target, ISCSI_TPGT);
	l->conn = c;
	l->lun = rule->lun;
	r = scsi_nexus_co_open(c->srv->scsi, rule->export_name, &conf, &l->nexus, &e);
	if (r < 0) {
		iscsi_log(c->srv, "iscsi: %s: LUN %u is left out: %s: %s", c->net.st->peer, rule->lun, rule->export_name, err_text(r));
		return;
	}
	l->home = scsi_nexus_home(l->nexus);
	c->lun_numbers[c->n_luns++] = rule->lun;
}

static enum iscsi_login_status session_co_open(struct iscsi_conn *c)
{
	uint64_t session = ++c->srv->last_session;
	size_t i;

	if (c->n_rules > ISCSI_LUNS_MAX)
		return ISCSI_LOGIN_NO_RESOURCES;
	c->luns = xcalloc(c->n_rules + 1, sizeof(*c->luns));
	c->lun_numbers = xcalloc(c->n_rules + 1, sizeof(*c->lun_numbers));
	for (i = 0; i < c->n_rules && !c->net.dropped; i++)
		lun_co_open(c, &c->rules[i], session);
	if (c->n_luns)
		atomic_store(&c->home, c->luns[0].home);
	return c->n_luns ? ISCSI_LOGIN_OK : ISCSI_LOGIN_UNAVAILABLE;
}

static bool conn_co_has_changed(struct iscsi_server *s, uint16_t tsih, struct iscsi_conn *c);

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
	if (conn_co_has_changed(s, c->tsih, c)) /* since it said who it is; what changes from here on finds it in the table */
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
	iscsi_pr_store_init(&s->store, a);
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

/* ---- changes ---- */

static bool secrets_equal(const struct iscsi_secret *a, const struct iscsi_secret *b)
{
	return !strcmp(a->user, b->user) && a->len == b->len && !memcmp(a->bytes, b->bytes, a->len);
}

static bool rules_equal(const struct iscsi_rule *a, const struct iscsi_rule *b)
{
	return a->lun == b->lun && a->read_only == b->read_only && !strcmp(a->export_name, b->export_name) &&
	       secrets_equal(&a->chap, &b->chap);
}

static bool rule_is_in(const struct iscsi_rule *r, const struct iscsi_rule *v, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (rules_equal(r, &v[i]))
			return true;
	return false;
}

/* Would a login that has proved the same give the same? Who has proved the one secret gets all that have it. */
static bool session_is_as_it_was(const struct iscsi_conn *c, const struct iscsi_rule *now, size_t n)
{
	size_t i, k;

	for (i = 0; i < c->n_rules; i++)
		if (!rule_is_in(&c->rules[i], now, n))
			return false;
	for (i = 0; i < n; i++) {
		bool his = !*now[i].chap.user;

		for (k = 0; k < c->n_rules && !his; k++)
			his = secrets_equal(&c->rules[k].chap, &now[i].chap);
		if (his && !rule_is_in(&now[i], c->rules, c->n_rules))
			return false;
	}
	return true;
}

/* Coroutine. Has a running session other rights now? c may be gone after it. */
static bool conn_co_has_changed(struct iscsi_server *s, uint16_t tsih, struct iscsi_conn *c)
{
	struct iscsi_rule *now = NULL;
	struct iscsi_conn *x;
	bool changed = false;
	size_t n = 0;
	int r = s->p.co_rules(s->p.arg, c->initiator, c->target, &now, &n);

	list_for_each (x, &s->net.conns, net.link)
		if (x == c && x->tsih == tsih)
			changed = r == 0 && !session_is_as_it_was(x, now, n);
	xfree(now);
	return changed;
}

void iscsi_server_co_rules_changed(struct iscsi_server *s)
{
	uint16_t *v = xcalloc(s->net.n_conns + 1, sizeof(*v));
	struct iscsi_conn *c;
	size_t i, n = 0;

	list_for_each (c, &s->net.conns, net.link)
		if (c->is_listed && !c->is_discovery)
			v[n++] = c->tsih;
	for (i = 0; i < n; i++) {
		list_for_each (c, &s->net.conns, net.link)
			if (c->is_listed && c->tsih == v[i])
				break;
		if (&c->net.link != &s->net.conns && conn_co_has_changed(s, v[i], c))
			iscsi_conn_stop(c, STOP_LOGOUT);
	}
	xfree(v);
	scsi_target_co_tidy(s->scsi);
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
		x->n_luns = (unsigned)c->n_luns;
		x->reads = counter(&c->reads);
		x->writes = counter(&c->writes);
		x->bytes_read = counter(&c->bytes_read);
		x->bytes_written = counter(&c->bytes_written);
		x->since_wall_ns = c->net.since_wall_ns;
	}
	*out = v;
	return 0;
}
