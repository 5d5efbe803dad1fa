/*
 * The LUs of a session: how they come, what happens to them, and how they are given back.
 *
 * A volume that goes away wants its nexus closed; the session goes on with what is left. What an LU's home has to say travels in
 * the one message of the LUN, from there to the reactor where the connection is now.
 */
#include <stdio.h>

#include "frontends/iscsi/conn.h"

struct iscsi_lun *iscsi_lun_co_open(struct iscsi_conn *c, const struct iscsi_rule *rule)
{
	struct iscsi_lun *l = xcalloc(1, sizeof(*l));
	struct scsi_nexus_conf conf = { .port = 1, .tpg = ISCSI_TPGT, .session = c->session, .read_only = rule->read_only, .ops = &iscsi_nexus_ops, .arg = l };
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
		xfree(l);
		return NULL;
	}
	l->home = scsi_nexus_home(l->nexus);
	return l;
}

static void luns_count(struct iscsi_conn *c)
{
	unsigned n = 0;
	size_t i;

	for (i = 0; i < c->n_luns; i++)
		n += !c->luns[i]->gone;
	atomic_store(&c->n_luns_there, n);
}

void iscsi_lun_add(struct iscsi_conn *c, struct iscsi_lun *l)
{
	size_t i;

	for (i = 0; i < c->n_luns; i++)
		if (c->luns[i]->is_free && !c->luns[i]->n_tasks && !c->n_co && !atomic_load(&c->luns[i]->events))
			break;
	if (i == c->n_luns) {
		c->luns = xrealloc(c->luns, (c->n_luns + 1) * sizeof(*c->luns));
		c->lun_numbers = xrealloc(c->lun_numbers, (c->n_luns + 1) * sizeof(*c->lun_numbers));
		c->n_luns++;
	} else {
		xfree(c->luns[i]);
	}
	c->luns[i] = l;
	luns_count(c);
}

static int close_there(void *arg)
{
	struct iscsi_lun *l = arg;

	scsi_nexus_co_close(l->nexus);
	return 0;
}

static bool has_lun_left(const struct iscsi_conn *c)
{
	size_t i;

	for (i = 0; i < c->n_luns; i++)
		if (!c->luns[i]->gone)
			return true;
	return false;
}

static void close_co(void *arg)
{
	struct iscsi_lun *l = arg;
	struct iscsi_conn *c = l->conn;
	int r = reactor_co_call(l->home, close_there, l);

	CHECK(r == 0);
	l->is_free = true;
	c->n_co--;
	iscsi_conn_kick(c);
}

static void lun_give_back(struct iscsi_lun *l)
{
	if (!l->gone || l->closed || l->n_tasks || !l->conn->running)
		return;
	l->closed = true;
	l->conn->n_co++;
	co_spawn(CO_SERVICE, close_co, l, "iscsi lun gone");
}

void iscsi_lun_put(struct iscsi_lun *l)
{
	CHECK(l->n_tasks);
	l->n_tasks--;
	lun_give_back(l);
}

static void lun_is_gone(struct iscsi_lun *l)
{
	struct iscsi_conn *c = l->conn;

	if (l->gone)
		return;
	l->gone = true;
	if (!c->running)
		return;
	luns_count(c);
	iscsi_log(c->srv, "iscsi: %s: LUN %u of %s: it is not served any more", c->net.st->peer, l->lun, c->target);
	lun_give_back(l);
	if (!has_lun_left(c))
		iscsi_conn_ask_logout(c);
}

void iscsi_luns_begin(struct iscsi_conn *c)
{
	size_t i;

	for (i = 0; i < c->n_luns; i++)
		lun_give_back(c->luns[i]);
	luns_count(c);
	if (!c->is_discovery && !has_lun_left(c))
		iscsi_conn_ask_logout(c);
}

static void lun_attention(struct iscsi_lun *l)
{
	unsigned code = atomic_load(&l->attention);

	if (l->conn->running && !l->conn->closing && !l->gone)
		iscsi_async_attention(l, (uint8_t)(code >> 8), (uint8_t)code);
}

/* On the reactor where the connection was when it was posted. */
static void events_run(struct msg *m)
{
	struct iscsi_lun *l = container_of(m, struct iscsi_lun, msg);
	struct reactor *home = atomic_load(&l->conn->home);
	unsigned done = atomic_load(&l->events), all;

	if (home != reactor_self()) {
		reactor_post(home, m);
		return;
	}
	if (done & LUN_GONE)
		lun_is_gone(l);
	if (done & LUN_ATTENTION)
		lun_attention(l);
	all = done;
	if (!atomic_compare_exchange_strong(&l->events, &all, 0)) {
		atomic_fetch_and(&l->events, ~done); /* more has happened: once more */
		reactor_post(home, m);
	}
}

static void events_post(struct iscsi_lun *l, unsigned event)
{
	if (atomic_fetch_or(&l->events, event))
		return;
	l->msg.run = events_run;
	reactor_post(atomic_load(&l->conn->home), &l->msg);
}

static void on_gone(void *arg)
{
	events_post(arg, LUN_GONE);
}

static void on_attention(void *arg, uint8_t asc, uint8_t ascq)
{
	struct iscsi_lun *l = arg;

	atomic_store(&l->attention, (unsigned)asc << 8 | ascq);
	events_post(l, LUN_ATTENTION);
}

const struct scsi_nexus_ops iscsi_nexus_ops = { .gone = on_gone, .attention = on_attention };

void iscsi_luns_co_close(struct iscsi_conn *c)
{
	size_t i;
	int r;

	for (i = 0; i < c->n_luns; i++) {
		if (c->luns[i]->closed)
			continue;
		r = reactor_co_call(c->luns[i]->home, close_there, c->luns[i]);
		CHECK(r == 0);
	}
	for (i = 0; i < c->n_luns; i++)
		while (atomic_load(&c->luns[i]->events)) /* its message is on its way, and its memory is c's */
			co_sleep_ns(NS_PER_MS);
}

/* ---- other LUNs ---- */

static int tell_there(void *arg)
{
	struct iscsi_lun *l = arg;

	scsi_nexus_attention(l->nexus, 0x3f, 0x0e); /* reported LUNs data has changed */
	return 0;
}

/* The first n of them hear it; the others have only just come. */
static void luns_co_tell(struct iscsi_conn *c, struct iscsi_lun *const *added, size_t n_added)
{
	struct iscsi_lun *l;
	size_t i, k;
	int r;

	for (i = 0; i < c->n_luns; i++) {
		l = c->luns[i];
		for (k = 0; k < n_added && added[k] != l; k++)
			;
		if (l->gone || k < n_added)
			continue;
		l->n_tasks++; /* holds the nexus */
		r = reactor_co_call(l->home, tell_there, l);
		CHECK(r == 0);
		iscsi_lun_put(l);
	}
}

int iscsi_luns_co_change(void *arg)
{
	struct iscsi_luns_change *x = arg;
	struct iscsi_conn *c = x->c;
	struct iscsi_lun **gone = xcalloc(c->n_luns + 1, sizeof(*gone));
	size_t i, k, n = 0;

	for (i = 0; i < x->n_gone; i++)
		for (k = 0; k < c->n_luns; k++)
			if (c->luns[k]->lun == x->gone[i] && !c->luns[k]->gone)
				gone[n++] = c->luns[k];
	for (i = 0; i < x->n_added; i++) /* one may take the number of one that goes */
		iscsi_lun_add(c, x->added[i]);
	for (i = 0; i < n; i++)
		lun_is_gone(gone[i]);
	xfree(gone);
	xfree(c->rules);
	c->rules = x->rules;
	c->n_rules = x->n_rules;
	if (!c->running || c->closing)
		return 0;
	c->n_co++;
	luns_co_tell(c, x->added, x->n_added);
	c->n_co--;
	iscsi_conn_kick(c);
	return 0;
}
