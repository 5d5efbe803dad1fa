/*
 * What is exported, and for whom, has changed: running sessions lose LUNs, and get others. Who would have to prove something else now
 * logs in again.
 *
 * What a session has is asked of its home; here it is compared, and new LUs are opened; there it takes its place. One change at
 * a time, and the connection stays until it is over.
 */
#include <string.h>

#include "frontends/iscsi/conn.h"

static bool secrets_equal(const struct iscsi_secret *a, const struct iscsi_secret *b)
{
	return !strcmp(a->user, b->user) && a->len == b->len && !memcmp(a->bytes, b->bytes, a->len);
}

static bool is_same_lun(const struct iscsi_rule *a, const struct iscsi_rule *b)
{
	return a->lun == b->lun && a->read_only == b->read_only && !strcmp(a->export_name, b->export_name);
}

/* With the same secret, or whatever that is. */
static bool rule_is_in(const struct iscsi_rule *r, bool same_secret, const struct iscsi_rule *v, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (is_same_lun(r, &v[i]) && (!same_secret || secrets_equal(&r->chap, &v[i].chap)))
			return true;
	return false;
}

/* ---- what it has ---- */

struct session_lun {
	struct iscsi_rule rule;
	bool there; /* false: it was left out, or its volume has gone */
};

struct look {
	struct iscsi_conn *c;
	struct session_lun *v;
	size_t n;
};

static int look_there(void *arg)
{
	struct look *k = arg;
	struct iscsi_conn *c = k->c;
	size_t i, j;

	k->v = xcalloc(c->n_rules + 1, sizeof(*k->v));
	k->n = c->n_rules;
	for (i = 0; i < c->n_rules; i++) {
		k->v[i].rule = c->rules[i];
		for (j = 0; j < c->n_luns; j++)
			k->v[i].there |= c->luns[j]->lun == c->rules[i].lun && !c->luns[j]->gone;
	}
	return 0;
}

/* Who has proved the one secret gets all that have it. */
static bool is_his(const struct look *k, const struct iscsi_rule *r)
{
	size_t i;

	for (i = 0; i < k->n && *r->chap.user; i++)
		if (secrets_equal(&k->v[i].rule.chap, &r->chap))
			return true;
	return !*r->chap.user;
}

static bool has_it(const struct look *k, const struct iscsi_rule *r)
{
	size_t i;

	for (i = 0; i < k->n; i++)
		if (k->v[i].there && is_same_lun(&k->v[i].rule, r))
			return true;
	return false;
}

/* ---- the change ---- */

/* What is his of `now`, and of it what is to be opened. Returns whether he has to log in again. */
static bool change_plan(const struct look *k, const struct iscsi_rule *now, size_t n, struct iscsi_luns_change *x, uint16_t *gone)
{
	size_t i;

	for (i = 0; i < k->n; i++)
		if (!rule_is_in(&k->v[i].rule, true, now, n) && rule_is_in(&k->v[i].rule, false, now, n))
			return true;
	x->rules = xcalloc(n + 1, sizeof(*x->rules));
	for (i = 0; i < n; i++)
		if (is_his(k, &now[i]))
			x->rules[x->n_rules++] = now[i];
	x->gone = gone;
	for (i = 0; i < k->n; i++)
		if (k->v[i].there && !rule_is_in(&k->v[i].rule, true, x->rules, x->n_rules))
			gone[x->n_gone++] = k->v[i].rule.lun;
	return x->n_rules > ISCSI_LUNS_MAX;
}

/* Coroutine. */
static void change_co_make(struct iscsi_conn *c, const struct look *k, struct iscsi_luns_change *x)
{
	struct iscsi_lun *l;
	size_t i;
	int r;

	x->added = xcalloc(x->n_rules + 1, sizeof(*x->added));
	for (i = 0; i < x->n_rules; i++) {
		if (has_it(k, &x->rules[i]))
			continue;
		l = iscsi_lun_co_open(c, &x->rules[i]);
		if (l)
			x->added[x->n_added++] = l;
	}
	if (x->n_gone || x->n_added) {
		r = reactor_co_call(atomic_load(&c->home), iscsi_luns_co_change, x);
		CHECK(r == 0);
		x->rules = NULL;
	}
	xfree(x->added);
}

/* It has just been given its LUNs, by rules that may be old. */
static bool login_is_late(const struct look *k, const struct iscsi_luns_change *x)
{
	return x->n_gone || x->n_rules != k->n;
}

bool iscsi_login_co_is_late(struct iscsi_conn *c)
{
	struct iscsi_luns_change x = { .c = c };
	struct look k = { .c = c };
	struct iscsi_rule *now = NULL;
	uint16_t *gone;
	bool late = true;
	size_t n = 0, i;

	if (c->srv->p.co_rules(c->srv->p.arg, c->initiator, c->target, &now, &n) == 0 && look_there(&k) == 0) {
		for (i = 0; i < k.n; i++)
			k.v[i].there = true;
		gone = xcalloc(k.n + 1, sizeof(*gone));
		late = change_plan(&k, now, n, &x, gone) || login_is_late(&k, &x);
		xfree(gone);
	}
	xfree(x.rules);
	xfree(k.v);
	xfree(now);
	return late;
}

static void conn_co_change(struct iscsi_conn *c)
{
	struct iscsi_server *s = c->srv;
	struct iscsi_rule *now = NULL;
	struct look k = { .c = c };
	struct iscsi_luns_change x = { .c = c };
	bool in_login, again;
	uint16_t *gone;
	size_t n = 0, i;
	int r = s->p.co_rules(s->p.arg, c->initiator, c->target, &now, &n);

	in_login = !net_conn_is_running(&c->net);
	if (r == 0)
		r = in_login ? look_there(&k) : reactor_co_call(atomic_load(&c->home), look_there, &k);
	if (r < 0)
		return;
	for (i = 0; i < k.n; i++)
		k.v[i].there |= in_login;
	gone = xcalloc(k.n + 1, sizeof(*gone));
	again = change_plan(&k, now, n, &x, gone);
	if (again || (in_login && login_is_late(&k, &x)))
		iscsi_conn_stop(c, STOP_LOGOUT);
	else if (!in_login)
		change_co_make(c, &k, &x);
	xfree(x.rules);
	xfree(gone);
	xfree(k.v);
	xfree(now);
}

/* Coroutine. The session may be over meanwhile. */
static void session_co_change(struct iscsi_server *s, uint16_t tsih)
{
	struct iscsi_conn *c;

	list_for_each (c, &s->net.conns, net.link)
		if (c->is_listed && !c->is_discovery && c->tsih == tsih)
			break;
	if (&c->net.link == &s->net.conns || c->net.dropped)
		return;
	c->n_changing++;
	conn_co_change(c);
	c->n_changing--;
	co_queue_wake_all(&s->net.changed);
}

void iscsi_server_co_rules_changed(struct iscsi_server *s)
{
	struct iscsi_conn *c;
	uint16_t *v;
	size_t i, n = 0;

	co_mutex_lock(&s->changing);
	v = xcalloc(s->net.n_conns + 1, sizeof(*v));
	list_for_each (c, &s->net.conns, net.link)
		if (c->is_listed)
			v[n++] = c->tsih;
	for (i = 0; i < n; i++)
		session_co_change(s, v[i]);
	xfree(v);
	scsi_target_co_tidy(s->scsi);
	co_mutex_unlock(&s->changing);
}
