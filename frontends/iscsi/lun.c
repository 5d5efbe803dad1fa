/*
 * The LUs of a session: what happens to them, and how they are given back.
 *
 * A volume that goes away wants its nexus closed; the session goes on with what is left. What an LU's home has to say travels in
 * the one message of the LUN, from there to the reactor where the connection is now.
 */
#include "frontends/iscsi/conn.h"

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
		if (!c->luns[i].gone)
			return true;
	return false;
}

static void close_co(void *arg)
{
	struct iscsi_lun *l = arg;
	struct iscsi_conn *c = l->conn;
	int r = reactor_co_call(l->home, close_there, l);

	CHECK(r == 0);
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

	l->gone = true;
	if (!c->running)
		return;
	iscsi_log(c->srv, "iscsi: %s: LUN %u of %s: its volume is not served any more", c->net.st->peer, l->lun, c->target);
	lun_give_back(l);
	if (!has_lun_left(c))
		iscsi_conn_ask_logout(c);
}

void iscsi_luns_begin(struct iscsi_conn *c)
{
	size_t i;

	for (i = 0; i < c->n_luns; i++)
		lun_give_back(&c->luns[i]);
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
		if (c->luns[i].closed)
			continue;
		r = reactor_co_call(c->luns[i].home, close_there, &c->luns[i]);
		CHECK(r == 0);
	}
	for (i = 0; i < c->n_luns; i++)
		while (atomic_load(&c->luns[i].events)) /* its message is on its way, and its memory is c's */
			co_sleep_ns(NS_PER_MS);
}
