/*
 * The full feature phase: receiving, the connection's turn, its end. No coroutine per request.
 *
 * As in the NBD server, a receive fills one big buffer and every PDU in it is taken at once; data that has not arrived yet
 * is received where it belongs, and what follows it goes to the big buffer in the same receive.
 *
 * The end, for whatever reason: no more is taken; what is with an LU finishes and is answered, or, when nobody could read that or it
 * takes longer than ISCSI_END_NS, is aborted; then the socket is shut down, which ends a receive in flight; then the coroutine that waits in iscsi_conn_co_run() is woken.
 */
#include "engine/base/crc32c.h"
#include "engine/base/le.h"
#include "frontends/iscsi/conn.h"

static bool digest_is(const uint8_t *p, uint32_t crc)
{
	le32 want = le32_make(crc);

	return !memcmp(p, &want, sizeof(want));
}

/* ---- headers ---- */

static void keep_data(struct iscsi_conn *c)
{
	c->rx.keep = c->rx.len;
	if (c->rx.keep)
		c->rx.dest = xmalloc(c->rx.len);
}

static void header_take(struct iscsi_conn *c)
{
	switch (c->rx.bhs.opcode & ISCSI_OP_MASK) {
	case ISCSI_OP_SCSI_CMD:
		iscsi_command_header(c);
		break;
	case ISCSI_OP_DATA_OUT:
		iscsi_data_out_header(c);
		break;
	case ISCSI_OP_NOP_OUT:
	case ISCSI_OP_TEXT:
		keep_data(c);
		break;
	case ISCSI_OP_TASK_MGMT:
	case ISCSI_OP_LOGOUT:
		break;
	case ISCSI_OP_SNACK:
		iscsi_reject(c, ISCSI_REJECT_SNACK);
		break;
	case ISCSI_OP_LOGIN:
		iscsi_reject(c, ISCSI_REJECT_PROTOCOL);
		iscsi_conn_violation(c, "a login in the full feature phase");
		break;
	default:
		iscsi_reject(c, ISCSI_REJECT_UNSUPPORTED);
		break;
	}
}

/* False: not all of it is there. */
static bool take_header(struct iscsi_conn *c)
{
	const uint8_t *p = c->rbuf + c->rpos;
	size_t have = c->rlen - c->rpos, len = ISCSI_BHS_BYTES, digest = c->prm.header_digest ? 4 : 0;
	struct iscsi_rx *rx = &c->rx;

	if (have < len)
		return false;
	len += 4 * (size_t)p[4];
	if (have < len + digest)
		return false;
	if (digest && !digest_is(p + len, crc32c(0, p, len))) {
		iscsi_conn_violation(c, "header digest");
		return false;
	}
	memcpy(&rx->bhs, p, ISCSI_BHS_BYTES);
	rx->ahs_len = (uint32_t)(len - ISCSI_BHS_BYTES);
	memcpy(rx->ahs, p + ISCSI_BHS_BYTES, rx->ahs_len);
	c->rpos += len + digest;
	rx->len = be_get24(rx->bhs.data_len);
	rx->tail = iscsi_pad(rx->len) + (rx->len && c->prm.data_digest ? 4 : 0);
	rx->got = 0;
	rx->crc = 0;
	rx->dest = NULL;
	rx->task = NULL;
	rx->r2t = NULL;
	rx->keep = rx->ignored = false;
	if (rx->len > ISCSI_SEGMENT_MAX) {
		iscsi_conn_violation(c, "a data segment longer than was agreed");
		return false;
	}
	header_take(c);
	rx->state = RX_DATA;
	return true;
}

/* ---- data ---- */

static bool take_data(struct iscsi_conn *c)
{
	struct iscsi_rx *rx = &c->rx;
	uint32_t n = (uint32_t)MIN(c->rlen - c->rpos, (size_t)(rx->len - rx->got));

	if (n && rx->dest)
		memcpy(rx->dest + rx->got, c->rbuf + c->rpos, n);
	else if (n && c->prm.data_digest)
		rx->crc = crc32c(rx->crc, c->rbuf + c->rpos, n);
	c->rpos += n;
	rx->got += n;
	if (rx->got < rx->len)
		return false;
	rx->state = RX_TAIL;
	return true;
}

static void pdu_take(struct iscsi_conn *c)
{
	switch (c->rx.bhs.opcode & ISCSI_OP_MASK) {
	case ISCSI_OP_SCSI_CMD:
		iscsi_command_complete(c);
		break;
	case ISCSI_OP_DATA_OUT:
		iscsi_data_out_complete(c);
		break;
	case ISCSI_OP_NOP_OUT:
		iscsi_nop_out(c);
		break;
	case ISCSI_OP_TEXT:
		iscsi_text_request(c);
		break;
	case ISCSI_OP_TASK_MGMT:
		iscsi_task_mgmt(c);
		break;
	case ISCSI_OP_LOGOUT:
		iscsi_logout(c);
		break;
	}
}

static void rx_drop(struct iscsi_conn *c)
{
	struct iscsi_task *t = c->rx.task;

	if (c->rx.keep)
		xfree(c->rx.dest);
	c->rx.keep = false;
	c->rx.dest = NULL;
	c->rx.task = NULL;
	if (t && t->aborting)
		iscsi_task_cancel(t);
}

static bool take_tail(struct iscsi_conn *c)
{
	const uint8_t *p = c->rbuf + c->rpos;
	struct iscsi_rx *rx = &c->rx;
	uint32_t pad = iscsi_pad(rx->len), crc = rx->crc;

	if (c->rlen - c->rpos < rx->tail)
		return false;
	if (rx->len && c->prm.data_digest) {
		if (rx->dest)
			crc = crc32c(0, rx->dest, rx->len);
		crc = crc32c(crc, p, pad);
		if (!digest_is(p + pad, crc)) {
			iscsi_reject(c, ISCSI_REJECT_DATA_DIGEST);
			iscsi_conn_violation(c, "data digest");
			return false;
		}
	}
	c->rpos += rx->tail;
	rx->state = RX_HEADER;
	if (!rx->ignored)
		pdu_take(c);
	rx_drop(c);
	return true;
}

static void take_pdus(struct iscsi_conn *c)
{
	bool more = true;

	while (more && !c->closing) {
		switch (c->rx.state) {
		case RX_HEADER:
			more = !iscsi_ctrl_is_full(c) && take_header(c);
			break;
		case RX_DATA:
			more = take_data(c);
			break;
		case RX_TAIL:
			more = take_tail(c);
			break;
		}
	}
}

/* ---- receiving ---- */

static void recv_start(struct iscsi_conn *c)
{
	struct iscsi_rx *rx = &c->rx;
	unsigned n = 0;

	if (c->receiving || c->closing || (rx->state == RX_HEADER && iscsi_ctrl_is_full(c)))
		return;
	if (c->rpos) {
		c->rlen -= c->rpos;
		memmove(c->rbuf, c->rbuf + c->rpos, c->rlen);
		c->rpos = 0;
	}
	c->recv_direct = 0;
	if (rx->state == RX_DATA && rx->dest && rx->got < rx->len) {
		c->recv_direct = rx->len - rx->got;
		c->recv_iov[n++] = (struct iovec){ rx->dest + rx->got, c->recv_direct };
	}
	c->recv_iov[n++] = (struct iovec){ c->rbuf + c->rlen, ISCSI_RECV_BYTES - c->rlen };
	c->recv_op.iov = c->recv_iov;
	c->recv_op.iov_n = n;
	c->receiving = true;
	stream_submit(c->net.st, &c->recv_op);
}

static void recv_done(struct net_op *op)
{
	struct iscsi_conn *c = op->owner;
	size_t direct;

	c->receiving = false;
	if (op->result > 0 && !c->closing) {
		c->heard_ns = reactor_now_ns();
		direct = MIN((size_t)op->result, c->recv_direct);
		c->rx.got += (uint32_t)direct;
		c->rlen += (size_t)op->result - direct;
		take_pdus(c);
		iscsi_conn_kick(c); /* the next receive is queued behind the replies of this turn */
	} else if (op->result <= 0) {
		iscsi_conn_kill(c); /* without a logout nobody waits for answers any more */
	} else {
		iscsi_conn_kick(c);
	}
}

/* ---- the end ---- */

static void tasks_cancel(struct iscsi_conn *c)
{
	struct iscsi_task *t, *tmp;

	list_for_each_safe (t, tmp, &c->tasks, link)
		if (t->state == TASK_DATA || t->state == TASK_ORDERED)
			iscsi_task_cancel(t);
}

void iscsi_conn_close(struct iscsi_conn *c)
{
	if (!c->closing) {
		c->closing = true;
		c->stop_ns = reactor_now_ns() + ISCSI_END_NS;
		tasks_cancel(c);
	}
	iscsi_conn_kick(c);
}

static void conn_shutdown(struct iscsi_conn *c)
{
	if (c->shut)
		return;
	c->shut = true;
	stream_shutdown(c->net.st);
}

void iscsi_conn_kill(struct iscsi_conn *c)
{
	c->dead = true;
	conn_shutdown(c);
	iscsi_conn_close(c);
	if (c->aborted)
		return;
	c->aborted = true;
	iscsi_abort_all(c);
}

void iscsi_conn_violation(struct iscsi_conn *c, const char *what)
{
	iscsi_log(c->srv, "iscsi: %s: dropped: %s", c->net.st->peer, what);
	iscsi_conn_close(c);
}

void iscsi_conn_ask_logout(struct iscsi_conn *c)
{
	if (c->closing || c->stop_ns)
		return;
	iscsi_async_send(c, ISCSI_ASYNC_LOGOUT, 0, 0, ISCSI_LOGOUT_NS / NS_PER_SEC);
	c->stop_ns = reactor_now_ns() + ISCSI_LOGOUT_NS;
}

void iscsi_conn_stop_run(struct iscsi_conn *c)
{
	unsigned how = atomic_exchange(&c->stop_want, STOP_NONE);

	if (!c->running || !how)
		return;
	if (how == STOP_LOGOUT) {
		iscsi_conn_ask_logout(c);
	} else if (how == STOP_SERVER) {
		iscsi_async_send(c, ISCSI_ASYNC_DROP_ALL, 0, 1, 0);
		iscsi_conn_close(c);
	} else {
		iscsi_conn_kill(c);
	}
}

void iscsi_conn_check_end(struct iscsi_conn *c)
{
	if (!c->closing || c->ended || c->sending)
		return;
	if (c->rx.task && c->rx.task->aborting && !c->receiving)
		rx_drop(c);
	if (c->n_tasks > (c->rx.task ? 1 : 0) || c->n_co || !list_is_empty(&c->ready))
		return;
	if (c->receiving) {
		conn_shutdown(c);
		return;
	}
	c->ended = true;
	co_wake(c->waiter);
}

/* ---- silence ---- */

static bool is_waiting_for_data(const struct iscsi_conn *c, uint64_t now)
{
	const struct iscsi_task *t;

	list_for_each (t, &c->tasks, link)
		if (t->state == TASK_DATA && (t->n_r2t || t->unsolicited) && now - t->since_ns >= c->srv->o.pong_ns)
			return true;
	return false;
}

static void conn_watch(struct iscsi_conn *c, uint64_t now)
{
	const struct iscsi_options *o = &c->srv->o;
	const char *why = NULL;

	if (c->stop_ns && now >= c->stop_ns && !c->dead) {
		if (c->closing)
			iscsi_conn_kill(c);
		else
			iscsi_conn_close(c);
	}
	if (c->sending && now - c->send_ns >= o->pong_ns)
		why = "it does not read";
	else if (c->pinged_ns && now - c->pinged_ns >= o->pong_ns)
		why = "it does not answer";
	else if (!c->closing && is_waiting_for_data(c, now))
		why = "it does not send the data that it was asked for";
	if (why && !c->dead) {
		iscsi_log(c->srv, "iscsi: %s: dropped: %s", c->net.st->peer, why);
		iscsi_conn_kill(c);
	}
	if (!c->closing && !c->pinged_ns && now - c->heard_ns >= o->ping_ns)
		iscsi_ping_send(c);
}

static void ping_fire(struct timer *t)
{
	struct iscsi_conn *c = container_of(t, struct iscsi_conn, ping);
	uint64_t now = reactor_now_ns();

	conn_watch(c, now);
	timer_arm(t, now + MIN(MIN(c->srv->o.ping_ns, c->srv->o.pong_ns) / 4, NS_PER_SEC));
}

/* ---- the connection's turn ---- */

static void conn_turn(struct loop_hook *h)
{
	struct iscsi_conn *c = container_of(h, struct iscsi_conn, hook);

	if (!c->closing)
		iscsi_waiting_go_on(c);
	if (c->logout && !c->n_tasks && !c->n_co) {
		iscsi_ctrl_send(c, c->logout, NULL, 0);
		c->logout = NULL;
	}
	iscsi_reply_send(c);
	if (c->rx.state == RX_HEADER && !c->receiving)
		take_pdus(c); /* it may have stopped for iscsi_ctrl_is_full() */
	recv_start(c);
	iscsi_conn_check_end(c);
}

static void conn_begin(struct iscsi_conn *c)
{
	struct iscsi_shard *sh = &c->srv->shards[reactor_self()->index];
	unsigned i;

	c->shard = sh;
	list_push_back(&sh->conns, &c->shard_link);
	list_init(&c->tasks);
	list_init(&c->free_tasks);
	list_init(&c->waiting);
	list_init(&c->held);
	list_init(&c->ready);
	list_init(&c->sent);
	for (i = 0; i < ISCSI_TAG_BUCKETS; i++)
		list_init(&c->by_tag[i]);
	c->hook.run = conn_turn;
	c->ping.fire = ping_fire;
	c->rbuf = xaligned(4096, ISCSI_RECV_BYTES);
	c->send_iov = xmalloc(ISCSI_SEND_IOV * sizeof(*c->send_iov));
	c->send_hdrs = xmalloc(ISCSI_SEND_PDUS * ISCSI_HDR_SLOT);
	c->recv_op = (struct net_op){ .kind = NET_RECV, .fd = c->net.st->fd, .done = recv_done, .owner = c };
	c->max_cmd_sn = c->exp_cmd_sn + ISCSI_WINDOW - 1;
	c->heard_ns = reactor_now_ns();
	c->waiter = co_self();
	c->running = true;
	timer_arm(&c->ping, c->heard_ns);
	iscsi_luns_begin(c);
	recv_start(c);
	iscsi_conn_kick(c);
}

static void conn_free_tasks(struct iscsi_conn *c)
{
	struct list *n;

	while ((n = list_pop_front(&c->free_tasks)))
		xfree(list_entry(n, struct iscsi_task, link));
}

static void conn_finish(struct iscsi_conn *c)
{
	c->running = false;
	rx_drop(c);
	CHECK(!c->n_tasks && !c->n_bytes && !c->n_ctrl && !c->ctrl_bytes);
	if (c->hook.link.next)
		list_del(&c->hook.link);
	timer_cancel(&c->ping);
	list_del(&c->shard_link);
	conn_free_tasks(c);
	xfree(c->logout);
	iscsi_text_free(&c->text_in);
	xfree(c->text_rest);
	xfree(c->rbuf);
	xfree(c->send_iov);
	xfree(c->send_hdrs);
}

int iscsi_conn_co_run(void *conn)
{
	struct iscsi_conn *c = conn;

	conn_begin(c);
	while (!c->ended)
		co_suspend();
	conn_finish(c);
	return 0;
}
