/*
 * Sending: everything that became ready in one turn of the loop goes out in one send. Headers are packed into one small buffer of the
 * connection, payload is sent from where the device put it. StatSN and the window are written when a PDU is packed, in the
 * order of sending. A long read goes out in pieces, as many as fit into a send.
 */
#include "engine/base/crc32c.h"
#include "engine/base/le.h"
#include "frontends/iscsi/conn.h"

/* What is packed for the next send. */
struct packing {
	unsigned n_iov, n_pdus;
	uint64_t bytes;
};

static bool has_room(const struct packing *p)
{
	return p->n_pdus < ISCSI_SEND_PDUS && p->bytes < ISCSI_SEND_BYTES;
}

static void iov_add(struct iscsi_conn *c, struct packing *p, const void *data, size_t len)
{
	struct iovec *v = c->send_iov;

	if (p->n_iov && (uint8_t *)v[p->n_iov - 1].iov_base + v[p->n_iov - 1].iov_len == data)
		v[p->n_iov - 1].iov_len += len;
	else
		v[p->n_iov++] = (struct iovec){ (void *)(uintptr_t)data, len };
}

/* In a slot: header, its digest, padding, digest of the data. What a PDU does not use closes up. */
static void pdu_pack(struct iscsi_conn *c, struct packing *p, struct iscsi_bhs *bhs, const void *data, uint32_t len)
{
	uint8_t *slot = c->send_hdrs + (size_t)p->n_pdus++ * ISCSI_HDR_SLOT;
	uint32_t pad = iscsi_pad(len), crc, tail = pad;
	size_t hdr = sizeof(*bhs);
	le32 digest;

	be_put24(bhs->data_len, len);
	memcpy(slot, bhs, sizeof(*bhs));
	if (c->prm.header_digest) {
		digest = le32_make(crc32c(0, slot, sizeof(*bhs)));
		memcpy(slot + hdr, &digest, sizeof(digest));
		hdr += sizeof(digest);
	}
	iov_add(c, p, slot, hdr);
	if (!len)
		return;
	iov_add(c, p, data, len);
	p->bytes += len;
	memset(slot + hdr, 0, pad);
	if (c->prm.data_digest) {
		crc = crc32c(crc32c(0, data, len), slot + hdr, pad);
		digest = le32_make(crc);
		memcpy(slot + hdr + pad, &digest, sizeof(digest));
		tail += sizeof(digest);
	}
	if (tail)
		iov_add(c, p, slot + hdr, tail);
}

/* The window never shrinks: what was promised stays. */
static void window_stamp(struct iscsi_conn *c, struct iscsi_bhs *b)
{
	uint32_t max = c->exp_cmd_sn + (ISCSI_WINDOW - MIN(c->n_window, ISCSI_WINDOW)) - 1;

	if (iscsi_sn_before(c->max_cmd_sn, max))
		c->max_cmd_sn = max;
	b->exp_sn = be32_make(c->exp_cmd_sn);
	b->max_sn = be32_make(c->max_cmd_sn);
}

/* ---- all but commands ---- */

struct iscsi_ctrl *iscsi_ctrl_new(unsigned opcode)
{
	struct iscsi_ctrl *k = xcalloc(1, sizeof(*k));

	k->out.kind = ISCSI_OUT_CTRL;
	k->bhs.opcode = (uint8_t)opcode;
	k->bhs.flags = ISCSI_FINAL;
	k->takes_sn = true;
	return k;
}

void iscsi_ctrl_send(struct iscsi_conn *c, struct iscsi_ctrl *k, void *data, uint32_t len)
{
	k->data = data;
	k->data_len = len;
	c->n_ctrl++;
	c->ctrl_bytes += len;
	list_push_back(&c->ready, &k->out.link);
	iscsi_conn_kick(c);
}

static void ctrl_free(struct iscsi_conn *c, struct iscsi_ctrl *k)
{
	c->n_ctrl--;
	c->ctrl_bytes -= k->data_len;
	xfree(k->data);
	xfree(k);
}

static void ctrl_pack(struct iscsi_conn *c, struct packing *p, struct iscsi_ctrl *k)
{
	k->bhs.sn = be32_make(c->stat_sn);
	c->stat_sn += k->takes_sn;
	window_stamp(c, &k->bhs);
	pdu_pack(c, p, &k->bhs, k->data, k->data_len);
	c->close_after |= k->is_last;
	list_push_back(&c->sent, &k->out.link);
}

/* ---- R2T ---- */

/* False: not all of them fitted. */
static bool r2t_pack(struct iscsi_conn *c, struct packing *p, struct iscsi_task *t)
{
	struct iscsi_bhs b = { .opcode = ISCSI_OP_R2T, .flags = ISCSI_FINAL, .itt = be32_make(t->itt) };
	struct iscsi_r2t *r;
	unsigned i;

	scsi_lun_encode(t->lun ? t->lun->lun : 0, b.lun);
	for (;;) { /* in the order of their places in the data */
		r = NULL;
		for (i = 0; i < ISCSI_R2T_MAX; i++)
			if (t->r2t[i].unsent && (!r || t->r2t[i].off < r->off))
				r = &t->r2t[i];
		if (!r)
			return true;
		if (!has_room(p))
			return false;
		r->unsent = false;
		b.ttt = be32_make(r->ttt);
		b.sn = be32_make(c->stat_sn);
		window_stamp(c, &b);
		b.w36 = be32_make(t->r2t_sn++);
		b.w40 = be32_make(r->off);
		b.w44 = be32_make(r->len);
		pdu_pack(c, p, &b, NULL, 0);
	}
}

/* ---- commands ---- */

static void residual_set(struct iscsi_task *t)
{
	const struct scsi_cmd *cmd = &t->cmd;
	uint64_t moved = t->is_read ? cmd->in.iov_len : t->is_write ? cmd->want_bytes : 0;
	uint64_t want = MAX(moved, cmd->want_bytes);

	t->send_len = t->is_read ? (uint32_t)MIN(cmd->in.iov_len, (size_t)t->edtl) : 0;
	if (want > t->edtl) {
		t->residual_flag = ISCSI_RSP_OVERFLOW;
		t->residual = (uint32_t)MIN(want - t->edtl, (uint64_t)UINT32_MAX);
	} else if (moved < t->edtl) {
		t->residual_flag = ISCSI_RSP_UNDERFLOW;
		t->residual = t->edtl - (uint32_t)moved;
	}
}

void iscsi_task_reply(struct iscsi_task *t)
{
	t->state = TASK_REPLY;
	residual_set(t);
	list_push_back(&t->conn->ready, &t->out.link);
	iscsi_conn_kick(t->conn);
}

static void window_open(struct iscsi_task *t)
{
	if (t->counted)
		t->conn->n_window--;
	t->counted = false;
}

static void status_pack(struct iscsi_conn *c, struct packing *p, struct iscsi_task *t)
{
	struct iscsi_bhs b = { .opcode = ISCSI_OP_SCSI_RSP, .flags = ISCSI_FINAL | t->residual_flag, .b3 = t->cmd.status,
			       .itt = be32_make(t->itt), .w36 = be32_make(t->data_sn + t->r2t_sn), .w44 = be32_make(t->residual) };

	window_open(t);
	b.sn = be32_make(c->stat_sn++);
	window_stamp(c, &b);
	if (!t->cmd.sense_len) {
		pdu_pack(c, p, &b, NULL, 0);
		return;
	}
	be_put16(t->sense, t->cmd.sense_len);
	memcpy(t->sense + 2, t->cmd.sense, t->cmd.sense_len);
	pdu_pack(c, p, &b, t->sense, 2U + t->cmd.sense_len);
}

/* One PDU. True: it was the command's last. */
static bool data_in_pack(struct iscsi_conn *c, struct packing *p, struct iscsi_task *t)
{
	uint32_t in_burst = c->prm.max_burst - t->sent % c->prm.max_burst;
	uint32_t len = MIN(MIN(t->send_len - t->sent, c->prm.send_segment), in_burst);
	bool last = t->sent + len == t->send_len, with_status = last && t->cmd.status == SCSI_GOOD && !t->cmd.sense_len;
	struct iscsi_bhs b = { .opcode = ISCSI_OP_DATA_IN, .itt = be32_make(t->itt), .ttt = be32_make(ISCSI_TAG_NONE),
			       .w36 = be32_make(t->data_sn++), .w40 = be32_make(t->sent) };

	if (last || len == in_burst)
		b.flags = ISCSI_FINAL;
	if (with_status) {
		window_open(t);
		b.flags |= ISCSI_DATA_STATUS | t->residual_flag;
		b.b3 = t->cmd.status;
		b.sn = be32_make(c->stat_sn++);
		b.w44 = be32_make(t->residual);
	}
	window_stamp(c, &b);
	pdu_pack(c, p, &b, (uint8_t *)t->cmd.in.iov_base + t->sent, len);
	t->sent += len;
	return with_status;
}

/* False: there is more of it. */
static bool task_pack(struct iscsi_conn *c, struct packing *p, struct iscsi_task *t)
{
	while (t->sent < t->send_len) {
		if (!has_room(p))
			return false;
		if (data_in_pack(c, p, t))
			return true;
	}
	if (!has_room(p))
		return false;
	status_pack(c, p, t);
	return true;
}

/* ---- the send ---- */

/* Moves from `ready` to the iovecs and to `sent`; what did not fit stays at the front. */
static void gather(struct iscsi_conn *c, struct packing *p)
{
	struct iscsi_out *o;
	struct iscsi_task *t;

	while (!list_is_empty(&c->ready) && has_room(p) && !c->close_after) {
		o = list_first(&c->ready, struct iscsi_out, link);
		list_del(&o->link);
		if (o->kind == ISCSI_OUT_CTRL) {
			ctrl_pack(c, p, container_of(o, struct iscsi_ctrl, out));
		} else if (o->kind == ISCSI_OUT_R2T) {
			t = container_of(o, struct iscsi_task, r2t_out);
			if (!r2t_pack(c, p, t))
				list_push_front(&c->ready, &o->link);
		} else {
			t = container_of(o, struct iscsi_task, out);
			if (task_pack(c, p, t))
				list_push_back(&c->sent, &o->link);
			else
				list_push_front(&c->ready, &o->link);
		}
	}
}

static void out_over(struct iscsi_conn *c, struct iscsi_out *o)
{
	if (o->kind == ISCSI_OUT_CTRL)
		ctrl_free(c, container_of(o, struct iscsi_ctrl, out));
	else if (o->kind == ISCSI_OUT_TASK)
		iscsi_task_release(container_of(o, struct iscsi_task, out));
}

void iscsi_ready_drop(struct iscsi_conn *c)
{
	struct list *n;

	while ((n = list_pop_front(&c->ready)))
		out_over(c, list_entry(n, struct iscsi_out, link));
}

static void sent_done(struct net_op *op)
{
	struct iscsi_conn *c = op->owner;
	struct list *n;

	c->sending = false;
	while ((n = list_pop_front(&c->sent)))
		out_over(c, list_entry(n, struct iscsi_out, link));
	if (op->result < 0)
		iscsi_conn_kill(c);
	else if (c->close_after)
		iscsi_conn_kill(c); /* the rest has nobody to go to */
	else if (c->closing || !list_is_empty(&c->ready) || !list_is_empty(&c->waiting) || c->rx.state == RX_HEADER)
		iscsi_conn_kick(c);
}

void iscsi_reply_send(struct iscsi_conn *c)
{
	struct net_op *op = &c->send_op;
	struct packing p = { 0 };

	if (c->sending || list_is_empty(&c->ready))
		return;
	if (c->dead) {
		iscsi_ready_drop(c);
		return;
	}
	gather(c, &p);
	if (!p.n_iov)
		return;
	*op = (struct net_op){ .kind = NET_SEND, .fd = c->net.st->fd, .iov = c->send_iov, .iov_n = p.n_iov, .done = sent_done, .owner = c };
	c->sending = true;
	c->send_ns = reactor_now_ns();
	stream_submit(c->net.st, op);
}
