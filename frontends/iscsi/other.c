/*
 * NOP, text, logout, asynchronous messages, rejects.
 */
#include <stdio.h>

#include "frontends/iscsi/conn.h"

/* ---- NOP ---- */

void iscsi_nop_out(struct iscsi_conn *c)
{
	struct iscsi_rx *rx = &c->rx;
	struct iscsi_ctrl *k;
	uint32_t len;
	void *data;

	if (!iscsi_sn_take(c))
		return;
	if (be32_get(rx->bhs.ttt) != ISCSI_TAG_NONE && be32_get(rx->bhs.ttt) == c->ping_ttt)
		c->pinged_ns = 0;
	if (be32_get(rx->bhs.itt) == ISCSI_TAG_NONE)
		return;
	k = iscsi_ctrl_new(ISCSI_OP_NOP_IN);
	k->bhs.itt = rx->bhs.itt;
	k->bhs.ttt = be32_make(ISCSI_TAG_NONE);
	memcpy(k->bhs.lun, rx->bhs.lun, sizeof(k->bhs.lun));
	len = MIN(rx->len, c->prm.send_segment);
	data = len < rx->len ? xrealloc(rx->dest, len) : rx->dest;
	rx->dest = NULL; /* it goes back as it has come */
	rx->keep = false;
	iscsi_ctrl_send(c, k, data, len);
}

void iscsi_ping_send(struct iscsi_conn *c)
{
	struct iscsi_ctrl *k = iscsi_ctrl_new(ISCSI_OP_NOP_IN);

	c->pinged_ns = reactor_now_ns();
	c->ping_ttt = c->next_ttt;
	c->next_ttt = c->next_ttt + 1 == ISCSI_TAG_NONE ? 0 : c->next_ttt + 1;
	k->bhs.itt = be32_make(ISCSI_TAG_NONE);
	k->bhs.ttt = be32_make(c->ping_ttt);
	k->takes_sn = false;
	iscsi_ctrl_send(c, k, NULL, 0);
}

/* ---- text ---- */

struct answer {
	struct iscsi_conn *c;
	struct iscsi_text out;
	bool bad;
};

static int text_key(void *arg, const char *key, const char *value)
{
	struct answer *a = arg;
	struct iscsi_conn *c = a->c;
	uint64_t n;

	if (!strcmp(key, "SendTargets")) {
		if (iscsi_send_targets_add(c, value, &a->out) < 0)
			iscsi_text_put(&a->out, key, "Reject");
	} else if (!strcmp(key, "MaxRecvDataSegmentLength")) {
		if (iscsi_text_number(value, 512, 0xffffff, &n))
			c->prm.send_segment = (uint32_t)n;
		else
			iscsi_text_put(&a->out, key, "Reject");
	} else if (!strcmp(key, "InitiatorAlias") || !strcmp(value, "NotUnderstood")) {
		return 0;
	} else if (!strncmp(key, "X-", 2)) {
		iscsi_text_put(&a->out, key, "NotUnderstood");
	} else {
		iscsi_text_put(&a->out, key, "Reject"); /* what is agreed upon in the login stays */
	}
	return 0;
}

/* The next piece of the answer, as much as the initiator takes at a time; the rest when it asks again. */
static void text_send(struct iscsi_conn *c, const struct iscsi_bhs *req)
{
	struct iscsi_ctrl *k = iscsi_ctrl_new(ISCSI_OP_TEXT_RSP);
	uint32_t len = (uint32_t)MIN(c->text_rest_len, (size_t)c->prm.send_segment);
	void *data = NULL;
	bool more;

	if (len) {
		data = xmalloc(len);
		memcpy(data, c->text_rest, len);
		c->text_rest_len -= len;
		memmove(c->text_rest, c->text_rest + len, c->text_rest_len);
	}
	more = c->text_rest_len;
	if (!more) {
		xfree(c->text_rest);
		c->text_rest = NULL;
	}
	c->text_ttt = more ? c->next_ttt : ISCSI_TAG_NONE;
	if (more)
		c->next_ttt = c->next_ttt + 1 == ISCSI_TAG_NONE ? 0 : c->next_ttt + 1;
	k->bhs.itt = req->itt;
	k->bhs.ttt = be32_make(c->text_ttt);
	k->bhs.flags = more ? ISCSI_TEXT_CONTINUE : ISCSI_FINAL;
	memcpy(k->bhs.lun, req->lun, sizeof(k->bhs.lun));
	iscsi_ctrl_send(c, k, data, len);
}

/* A piece of a question that goes on: an empty answer asks for more. */
static void text_go_on(struct iscsi_conn *c, const struct iscsi_bhs *req)
{
	struct iscsi_ctrl *k = iscsi_ctrl_new(ISCSI_OP_TEXT_RSP);

	c->text_ttt = c->next_ttt;
	c->next_ttt = c->next_ttt + 1 == ISCSI_TAG_NONE ? 0 : c->next_ttt + 1;
	k->bhs.flags = 0;
	k->bhs.itt = req->itt;
	k->bhs.ttt = be32_make(c->text_ttt);
	iscsi_ctrl_send(c, k, NULL, 0);
}

static void text_answer(struct iscsi_conn *c, const struct iscsi_bhs *req)
{
	struct answer a = { .c = c };

	if (iscsi_text_each(&c->text_in, text_key, &a) < 0) {
		iscsi_text_free(&a.out);
		iscsi_reject(c, ISCSI_REJECT_PROTOCOL);
	} else {
		c->text_rest = (uint8_t *)a.out.p;
		c->text_rest_len = a.out.len;
		text_send(c, req);
	}
	iscsi_text_free(&c->text_in);
}

void iscsi_text_request(struct iscsi_conn *c)
{
	struct iscsi_rx *rx = &c->rx;
	const struct iscsi_bhs *h = &rx->bhs;
	uint32_t ttt = be32_get(h->ttt);
	bool final = h->flags & ISCSI_FINAL, goes_on = h->flags & ISCSI_TEXT_CONTINUE;

	if (!iscsi_sn_take(c))
		return;
	if (ttt == ISCSI_TAG_NONE) { /* a new one: what there was of another is forgotten */
		iscsi_text_free(&c->text_in);
		xfree(c->text_rest);
		c->text_rest = NULL;
		c->text_rest_len = 0;
	} else if (ttt != c->text_ttt) {
		iscsi_reject(c, ISCSI_REJECT_PROTOCOL);
		return;
	}
	if (c->text_rest) {
		text_send(c, h);
		return;
	}
	if ((final && goes_on) || be32_get(h->itt) == ISCSI_TAG_NONE || iscsi_text_append(&c->text_in, rx->dest, rx->len) < 0) {
		iscsi_text_free(&c->text_in);
		iscsi_reject(c, ISCSI_REJECT_PROTOCOL);
		return;
	}
	if (goes_on)
		text_go_on(c, h);
	else
		text_answer(c, h);
}

/* ---- logout ---- */

void iscsi_logout(struct iscsi_conn *c)
{
	const struct iscsi_bhs *h = &c->rx.bhs;
	unsigned reason = h->flags & 0x7f;
	struct iscsi_ctrl *k;

	if (!iscsi_sn_take(c))
		return;
	if (c->logout || reason > ISCSI_LOGOUT_RECOVERY) {
		iscsi_reject(c, c->logout ? ISCSI_REJECT_WAIT_LOGOUT : ISCSI_REJECT_FIELD);
		return;
	}
	k = iscsi_ctrl_new(ISCSI_OP_LOGOUT_RSP);
	k->bhs.itt = h->itt;
	be_put16(k->bhs.w40.b, (uint16_t)c->prm.time2wait);
	if (reason == ISCSI_LOGOUT_RECOVERY)
		k->bhs.b2 = ISCSI_LOGOUT_NO_RECOVERY;
	else if (reason == ISCSI_LOGOUT_CONNECTION && be_get16(h->ttt.b) != c->cid)
		k->bhs.b2 = ISCSI_LOGOUT_NO_CID;
	if (k->bhs.b2 != ISCSI_LOGOUT_DONE) {
		iscsi_ctrl_send(c, k, NULL, 0);
		return;
	}
	k->is_last = true;
	c->logout = k;
	iscsi_conn_kick(c);
}

/* ---- unasked ---- */

static struct iscsi_ctrl *async_new(unsigned event)
{
	struct iscsi_ctrl *k = iscsi_ctrl_new(ISCSI_OP_ASYNC);

	k->bhs.itt = be32_make(ISCSI_TAG_NONE);
	k->bhs.w36.b[0] = (uint8_t)event;
	return k;
}

void iscsi_async_send(struct iscsi_conn *c, unsigned event, uint16_t p1, uint16_t p2, uint16_t p3)
{
	struct iscsi_ctrl *k = async_new(event);

	be_put16(k->bhs.w36.b + 2, p1);
	be_put16(k->bhs.w40.b, p2);
	be_put16(k->bhs.w40.b + 2, p3);
	iscsi_ctrl_send(c, k, NULL, 0);
}

void iscsi_async_attention(struct iscsi_lun *l, uint8_t asc, uint8_t ascq)
{
	struct iscsi_ctrl *k = async_new(ISCSI_ASYNC_SCSI);
	uint8_t *sense = xcalloc(1, 2 + 18);

	scsi_lun_encode(l->lun, k->bhs.lun);
	be_put16(sense, 18);
	sense[2] = 0x70; /* fixed format */
	sense[4] = 0x06; /* unit attention */
	sense[9] = 10;
	sense[14] = asc;
	sense[15] = ascq;
	iscsi_ctrl_send(l->conn, k, sense, 2 + 18);
}

void iscsi_reject(struct iscsi_conn *c, enum iscsi_reject reason)
{
	struct iscsi_ctrl *k = iscsi_ctrl_new(ISCSI_OP_REJECT);
	void *copy = xmalloc(ISCSI_BHS_BYTES);

	c->rx.ignored = true;
	k->bhs.b2 = (uint8_t)reason;
	k->bhs.itt = be32_make(ISCSI_TAG_NONE);
	k->bhs.ttt = be32_make(ISCSI_TAG_NONE);
	memcpy(copy, &c->rx.bhs, ISCSI_BHS_BYTES);
	iscsi_ctrl_send(c, k, copy, ISCSI_BHS_BYTES);
}
