/*
 * The login phase: one request, one response, until both agree to go to the full feature phase. A coroutine on the server's
 * reactor; no digests, no data segments beyond 8 KiB, everything within login_ns.
 */
#include "frontends/iscsi/login.h"

#define REQUESTS_MAX 64 /* of a login; a patient initiator needs seven */

/* ---- PDUs ---- */

static int login_co_read(struct login *l)
{
	struct iscsi_bhs *q = &l->req;
	struct stream *st = l->c->net.st;
	uint32_t len;
	int r = stream_co_recv_all(st, q, sizeof(*q), l->deadline_ns);

	if (r < 0)
		return r;
	if ((q->opcode & ISCSI_OP_MASK) != ISCSI_OP_LOGIN) {
		iscsi_log(l->c->srv, "iscsi: %s: dropped: not a login request", st->peer);
		return login_fail(l, l->is_begun ? ISCSI_LOGIN_INVALID_REQUEST : ISCSI_LOGIN_OK);
	}
	len = be_get24(q->data_len);
	if (q->ahs_words || len > ISCSI_TEXT_SEGMENT_DEFAULT || ++l->n_requests > REQUESTS_MAX)
		return login_fail(l, ISCSI_LOGIN_INITIATOR_ERROR);
	l->data_len = len;
	return stream_co_recv_all(st, l->data, len + iscsi_pad(len), l->deadline_ns);
}

static int login_co_write(struct login *l, uint8_t flags, const void *text, uint32_t len)
{
	static const uint8_t zeros[4];
	struct iscsi_conn *c = l->c;
	struct iscsi_bhs rsp = { .opcode = ISCSI_OP_LOGIN_RSP, .flags = flags, .itt = l->req.itt };
	struct iovec iov[3] = { { &rsp, sizeof(rsp) }, { (void *)(uintptr_t)text, len }, { (void *)(uintptr_t)zeros, iscsi_pad(len) } };

	be_put24(rsp.data_len, len);
	memcpy(rsp.lun, l->req.lun, 6);
	be_put16(rsp.lun + 6, l->status == ISCSI_LOGIN_OK ? c->tsih : be_get16(l->req.lun + 6));
	if (l->status == ISCSI_LOGIN_OK) {
		rsp.sn = be32_make(c->stat_sn++);
		rsp.exp_sn = be32_make(c->exp_cmd_sn);
		rsp.max_sn = be32_make(c->exp_cmd_sn + ISCSI_WINDOW - 1);
	}
	be_put16(rsp.w36.b, l->status);
	l->responses++;
	return stream_co_send_all(c->net.st, iov, len ? 3 : 1, l->deadline_ns);
}

/* The answer, in pieces if it is long: each but the last is followed by an empty request. */
static int login_co_answer(struct login *l, bool transit)
{
	uint8_t stage = (uint8_t)(l->req.flags & 0x0c);
	uint32_t at = 0, part;
	int r = 0;

	while (r == 0 && l->out.len - at > ISCSI_TEXT_SEGMENT_DEFAULT) {
		part = ISCSI_TEXT_SEGMENT_DEFAULT;
		r = login_co_write(l, stage | ISCSI_TEXT_CONTINUE, l->out.p + at, part);
		at += part;
		if (r == 0)
			r = login_co_read(l);
		if (r == 0 && l->data_len)
			r = login_fail(l, ISCSI_LOGIN_INITIATOR_ERROR);
	}
	if (r == 0)
		r = login_co_write(l, transit ? l->req.flags & 0x8f : stage, at ? l->out.p + at : l->out.p, (uint32_t)l->out.len - at);
	l->out.len = 0;
	return r;
}

/* ---- requests ---- */

static unsigned csg(const struct login *l) { return l->req.flags >> 2 & 3; }
static unsigned nsg(const struct login *l) { return l->req.flags & 3; }

static int request_check_first(struct login *l)
{
	struct iscsi_conn *c = l->c;

	if (l->req.b3 > 0) /* Version-min: we have version 0 */
		return login_fail(l, ISCSI_LOGIN_BAD_VERSION);
	l->is_begun = true;
	l->stage = csg(l);
	memcpy(c->isid, l->req.lun, sizeof(c->isid));
	c->cid = be_get16(l->req.ttt.b);
	c->exp_cmd_sn = be32_get(l->req.sn);
	return 0;
}

static int request_check(struct login *l)
{
	const struct iscsi_bhs *q = &l->req;
	bool transit = q->flags & ISCSI_LOGIN_TRANSIT;
	int r = l->is_begun ? 0 : request_check_first(l);

	if (r < 0)
		return r;
	if (!(q->opcode & ISCSI_IMMEDIATE) || csg(l) != l->stage || csg(l) > ISCSI_STAGE_OPERATIONAL)
		return login_fail(l, ISCSI_LOGIN_INITIATOR_ERROR);
	if (transit && (q->flags & ISCSI_TEXT_CONTINUE))
		return login_fail(l, ISCSI_LOGIN_INITIATOR_ERROR);
	if (transit && (nsg(l) == 2 || nsg(l) <= csg(l)))
		return login_fail(l, ISCSI_LOGIN_INITIATOR_ERROR);
	if (memcmp(l->c->isid, q->lun, sizeof(l->c->isid)) || l->c->cid != be_get16(q->ttt.b))
		return login_fail(l, ISCSI_LOGIN_INITIATOR_ERROR);
	return 0;
}

static int take_key(void *arg, const char *key, const char *value)
{
	struct login *l = arg;
	int r = login_auth_key(l, key, value);

	if (r < 0)
		return r;
	return r ? 0 : login_operational_key(l, key, value);
}

static int request_co_text(struct login *l)
{
	int r = iscsi_text_each(&l->in, take_key, l);

	if (r < 0)
		return l->status ? r : login_fail(l, ISCSI_LOGIN_INITIATOR_ERROR);
	l->in.len = 0;
	if (!l->is_named)
		r = login_co_name(l);
	if (r == 0 && l->stage == ISCSI_STAGE_SECURITY)
		r = login_auth_step(l);
	if (r == 0 && l->stage == ISCSI_STAGE_OPERATIONAL && !login_auth_is_done(l))
		r = login_fail(l, ISCSI_LOGIN_AUTH_FAILED);
	if (r == 0 && l->stage == ISCSI_STAGE_OPERATIONAL)
		login_declare(l);
	return r;
}

/* 1: the full feature phase begins. */
static int request_co_serve(struct login *l)
{
	bool transit;
	int r = request_check(l);

	if (r == 0 && iscsi_text_append(&l->in, l->data, l->data_len) < 0)
		r = login_fail(l, ISCSI_LOGIN_INITIATOR_ERROR);
	if (r < 0)
		return r;
	if (l->req.flags & ISCSI_TEXT_CONTINUE)
		return login_co_answer(l, false);
	r = request_co_text(l);
	if (r < 0)
		return r;
	transit = (l->req.flags & ISCSI_LOGIN_TRANSIT) && login_auth_is_done(l);
	if (!transit)
		return login_co_answer(l, false);
	if (nsg(l) != ISCSI_STAGE_FULL) {
		l->stage = nsg(l);
		return login_co_answer(l, true);
	}
	login_auth_end(l);
	l->status = iscsi_session_co_begin(l->c, be_get16(l->req.lun + 6));
	if (l->status)
		return -EPROTO;
	r = login_co_answer(l, true);
	return r < 0 ? r : 1;
}

int iscsi_login_co(struct iscsi_conn *c)
{
	struct login l = { .c = c, .deadline_ns = reactor_now_ns() + c->srv->o.login_ns };
	int r;

	c->prm = (struct iscsi_params)ISCSI_PARAMS_DEFAULT;
	c->stat_sn = 1;
	l.data = xmalloc(ISCSI_TEXT_SEGMENT_DEFAULT + 4);
	do {
		r = login_co_read(&l);
		if (r == 0)
			r = request_co_serve(&l);
	} while (r == 0);
	if (r < 0 && l.status) {
		iscsi_log(c->srv, "iscsi: %s: login refused (%04x): initiator %s, target %s", c->net.st->peer, l.status,
			  *c->initiator ? c->initiator : "unknown", *c->target ? c->target : "none");
		l.out.len = 0;
		(void)!login_co_write(&l, l.req.flags & 0x0c, NULL, 0);
	}
	iscsi_text_free(&l.in);
	iscsi_text_free(&l.out);
	iscsi_chap_free(l.chap);
	xfree(l.auth_list);
	xfree(l.chap_list);
	xfree(l.data);
	return r == 1 ? 0 : r;
}
