/*
 * SCSI commands: from the header to the LU and back, and their data-out.
 *
 * Data-out comes unasked (with the command, or right behind it, at most FirstBurstLength) and then by R2T, when there is
 * memory for all of it. A command goes to its LU when its data is there and all commands before it, by CmdSN, have
 * come. With one connection they come in order; one that is ahead of others is held until those have come.
 */
#include "frontends/iscsi/conn.h"

/* ---- memory ---- */

static void mem_count(struct iscsi_task *t, uint64_t bytes)
{
	t->mem += bytes;
	t->conn->n_bytes += bytes;
	t->conn->shard->n_bytes[t->is_read] += bytes;
}

static void mem_put(struct iscsi_task *t)
{
	struct iscsi_shard *sh = t->conn->shard;
	struct iscsi_conn *c;

	if (!t->mem)
		return;
	t->conn->n_bytes -= t->mem;
	sh->n_bytes[t->is_read] -= t->mem;
	t->mem = 0;
	list_for_each (c, &sh->conns, shard_link)
		if (!list_is_empty(&c->waiting))
			iscsi_conn_kick(c);
}

/* What one session has beyond its reserve counts against all of the reactor, in halves for writes and reads: writes may be held for long
 * (a full pool), and must not keep reads from memory. One command that is alone gets what it needs, if others leave it. Who holds some
 * may hold no more than is left for others, who find some however long that is held. */
static bool mem_take(struct iscsi_task *t, uint64_t bytes)
{
	struct iscsi_conn *c = t->conn;
	const struct iscsi_options *o = &c->srv->o;
	uint64_t most = o->max_total_bytes / 2, others = c->shard->n_bytes[t->is_read], left = most - MIN(others, most);
	uint64_t sum = c->n_bytes + bytes;

	if (c->n_bytes && sum > o->max_session_bytes)
		return false;
	if (sum > ISCSI_RESERVE_BYTES && others && (bytes > left || (c->n_bytes && sum > left)))
		return false;
	mem_count(t, bytes);
	return true;
}

static void wait_join(struct iscsi_task *t)
{
	if (list_is_empty(&t->wait_link))
		list_push_back(&t->conn->waiting, &t->wait_link);
}

/* ---- tasks ---- */

static struct list *tag_bucket(struct iscsi_conn *c, uint32_t itt)
{
	return &c->by_tag[itt % ISCSI_TAG_BUCKETS];
}

struct iscsi_task *iscsi_task_find(struct iscsi_conn *c, uint32_t itt)
{
	struct iscsi_task *t;

	list_for_each (t, tag_bucket(c, itt), tag_link)
		if (t->itt == itt)
			return t;
	return NULL;
}

struct iscsi_lun *iscsi_lun_find(struct iscsi_conn *c, const uint8_t lun[8])
{
	int n = scsi_lun_decode(lun);
	size_t i;

	for (i = 0; i < c->n_luns; i++)
		if (c->luns[i]->lun == n && !c->luns[i]->gone)
			return c->luns[i];
	return NULL;
}

static struct iscsi_task *task_get(struct iscsi_conn *c)
{
	struct iscsi_task *t;

	if (list_is_empty(&c->free_tasks))
		list_push_back(&c->free_tasks, &((struct iscsi_task *)xmalloc(sizeof(*t)))->link);
	t = list_entry(list_pop_front(&c->free_tasks), struct iscsi_task, link);
	memset(t, 0, sizeof(*t));
	t->conn = c;
	list_push_back(&c->tasks, &t->link);
	list_init(&t->tag_link);
	list_init(&t->wait_link);
	list_init(&t->out.link);
	list_init(&t->r2t_out.link);
	t->out.kind = ISCSI_OUT_TASK;
	t->r2t_out.kind = ISCSI_OUT_R2T;
	t->since_ns = reactor_now_ns();
	c->n_tasks++;
	return t;
}

/* The last of it: the command has left the LU, or never came there. */
static void task_free(struct iscsi_task *t)
{
	struct iscsi_conn *c = t->conn;

	if (t->pins) {
		t->is_released = true;
		return;
	}
	list_del(&t->link);
	list_push_front(&c->free_tasks, &t->link);
	c->n_tasks--;
	if (t->lun)
		iscsi_lun_put(t->lun);
	if (c->closing || c->logout)
		iscsi_conn_kick(c);
}

void iscsi_task_unpin(struct iscsi_task *t)
{
	CHECK(t->pins);
	if (--t->pins == 0 && t->is_released)
		task_free(t);
}

static void free_here(struct msg *m)
{
	task_free(container_of(m, struct iscsi_task, msg));
}

static void fini_there(struct msg *m)
{
	struct iscsi_task *t = container_of(m, struct iscsi_task, msg);

	scsi_cmd_fini(&t->cmd);
	m->run = free_here;
	reactor_post_lazy(atomic_load(&t->conn->home), m);
}

/* Takes it off every list, and gives its memory back. */
static void task_strip(struct iscsi_task *t)
{
	struct iscsi_conn *c = t->conn;

	list_del(&t->tag_link);
	list_del(&t->wait_link);
	list_del(&t->out.link);
	list_del(&t->r2t_out.link);
	if (t->counted)
		c->n_window--;
	if (t->immediate)
		c->n_immediate--;
	t->counted = t->immediate = false;
	if (t->buf)
		buf_free(t->buf, t->buf_bytes);
	t->buf = NULL;
	mem_put(t);
}

void iscsi_task_release(struct iscsi_task *t)
{
	bool with_lu = (t->state == TASK_RUNNING || t->state == TASK_REPLY) && !t->is_local;

	CHECK(t->state != TASK_FREEING);
	task_strip(t);
	if (!with_lu || t->lun->home == reactor_self()) {
		if (t->state == TASK_RUNNING || t->state == TASK_REPLY)
			scsi_cmd_fini(&t->cmd);
		t->state = TASK_FREEING;
		xfree(t->long_cdb);
		task_free(t);
		return;
	}
	t->state = TASK_FREEING;
	xfree(t->long_cdb);
	t->msg.run = fini_there;
	reactor_post_lazy(t->lun->home, &t->msg);
}

void iscsi_task_cancel(struct iscsi_task *t)
{
	CHECK(t->state == TASK_DATA || t->state == TASK_ORDERED);
	t->aborting = true;
	if (t->conn->rx.task == t) /* its memory is being received into: when that is over */
		return;
	iscsi_task_release(t);
}

/* ---- with the LU ---- */

static void task_done(struct iscsi_task *t)
{
	if (t->aborting || t->cmd.aborted)
		iscsi_task_release(t);
	else
		iscsi_task_reply(t);
}

static void done_here(struct msg *m)
{
	task_done(container_of(m, struct iscsi_task, msg));
}

/* On the LU's home. */
static void cmd_done(struct scsi_cmd *cmd)
{
	struct iscsi_task *t = cmd->owner;
	struct reactor *home = atomic_load(&t->conn->home);

	if (home == reactor_self()) {
		task_done(t);
		return;
	}
	t->msg.run = done_here;
	reactor_post(home, &t->msg);
}

static void submit_there(struct msg *m)
{
	scsi_submit(&container_of(m, struct iscsi_task, msg)->cmd);
}

/* On the LU's home. While it is there nobody else looks at it. */
static void *out_take(struct scsi_cmd *cmd, size_t *bytes)
{
	struct iscsi_task *t = cmd->owner;
	void *buf = t->buf;

	*bytes = t->buf_bytes;
	t->buf = NULL;
	return buf;
}

static void cmd_fill(struct iscsi_task *t)
{
	struct scsi_cmd *cmd = &t->cmd;

	*cmd = (struct scsi_cmd){ .nexus = t->lun ? t->lun->nexus : NULL, .attr = t->attr, .cdb_len = t->cdb_len, .cdb_long = t->long_cdb,
				  .done = cmd_done, .out_take = out_take, .owner = t };
	memcpy(cmd->cdb, t->cdb, sizeof(cmd->cdb));
	if (t->is_write && t->want) {
		t->out_iov = (struct iovec){ t->buf, t->want };
		cmd->out_iov = &t->out_iov;
		cmd->out_iov_n = 1;
		cmd->out_bytes = t->want;
	}
	cmd->out_expected = t->is_write ? t->edtl : 0;
	cmd->in_max = t->is_read ? t->edtl : 0;
}

/* REPORT LUNS, and what goes to a LUN that is not there. True: it has been answered. */
static bool answer_here(struct iscsi_task *t)
{
	struct iscsi_conn *c = t->conn;
	struct scsi_lun_list list = { .lun = c->lun_numbers };
	bool answered;
	size_t i;

	if (t->is_busy) {
		t->cmd.status = SCSI_BUSY;
		return true;
	}
	if (t->lun && t->cdb[0] != 0xa0)
		return false;
	for (i = 0; i < c->n_luns; i++)
		if (!c->luns[i]->gone)
			c->lun_numbers[list.n++] = c->luns[i]->lun;
	answered = scsi_answer_without_lu(&t->cmd, &list, t->lun);
	CHECK(answered || t->lun);
	return answered;
}

static void task_run(struct iscsi_task *t)
{
	t->state = TASK_RUNNING;
	cmd_fill(t);
	if (answer_here(t)) {
		t->is_local = true;
		task_done(t);
	} else if (t->lun->home == reactor_self()) {
		scsi_submit(&t->cmd);
	} else {
		t->msg.run = submit_there;
		reactor_post(t->lun->home, &t->msg);
	}
}

/* ---- on the way there ---- */

static void task_ask(struct iscsi_task *t)
{
	struct iscsi_conn *c = t->conn;
	struct iscsi_r2t *r;
	unsigned i;

	for (i = 0; i < MIN(c->prm.max_r2t, (uint32_t)ISCSI_R2T_MAX) && t->r2t_off < t->want; i++) {
		r = &t->r2t[i];
		if (r->len)
			continue;
		*r = (struct iscsi_r2t){ .ttt = c->next_ttt, .off = t->r2t_off, .len = MIN(t->want - t->r2t_off, c->prm.max_burst), .unsent = true };
		c->next_ttt = c->next_ttt + 1 == ISCSI_TAG_NONE ? 0 : c->next_ttt + 1;
		t->r2t_off += r->len;
		t->n_r2t++;
		if (list_is_empty(&t->r2t_out.link))
			list_push_back(&c->ready, &t->r2t_out.link);
		iscsi_conn_kick(c);
	}
	t->since_ns = reactor_now_ns();
}

/* Memory for all of it, in place of what there was for the beginning. */
static bool task_grow(struct iscsi_task *t)
{
	uint8_t *buf;

	if (t->buf_bytes >= t->want)
		return true;
	if (!mem_take(t, t->want - t->buf_bytes))
		return false;
	buf = buf_alloc(t->want);
	if (t->buf) {
		memcpy(buf, t->buf, MIN(t->got, t->buf_bytes));
		buf_free(t->buf, t->buf_bytes);
	}
	t->buf = buf;
	t->buf_bytes = t->want;
	return true;
}

/* One step further. False: it waits for memory. */
static bool task_step(struct iscsi_task *t)
{
	if (t->is_held || t->unsolicited)
		return true;
	if (t->state == TASK_DATA && !t->is_busy && t->got < t->want) {
		if (!task_grow(t))
			return false;
		task_ask(t);
		return true;
	}
	t->state = TASK_ORDERED;
	if (t->is_read && !mem_take(t, MIN(t->edtl, SCSI_TRANSFER_MAX)))
		return false;
	task_run(t);
	return true;
}

static void task_go_on(struct iscsi_task *t)
{
	/* In line, if others wait already. */
	if (!list_is_empty(&t->conn->waiting) && !t->is_held && !t->unsolicited && (t->is_read || t->got < t->want))
		wait_join(t);
	else if (!task_step(t))
		wait_join(t);
}

void iscsi_waiting_go_on(struct iscsi_conn *c)
{
	struct iscsi_task *t;

	while (!list_is_empty(&c->waiting)) {
		t = list_first(&c->waiting, struct iscsi_task, wait_link);
		list_del(&t->wait_link);
		if (task_step(t))
			continue;
		list_push_front(&c->waiting, &t->wait_link);
		return;
	}
}

/* ---- order ---- */

static void held_go_on(struct iscsi_conn *c)
{
	struct iscsi_task *t;

	while (!list_is_empty(&c->held)) {
		t = list_first(&c->held, struct iscsi_task, wait_link);
		if (t->cmd_sn != c->exp_cmd_sn)
			return;
		list_del(&t->wait_link);
		c->exp_cmd_sn++;
		t->is_held = false;
		if (c->rx.task != t)
			task_go_on(t);
	}
}

static bool sn_is_in_window(const struct iscsi_conn *c, uint32_t sn)
{
	return !iscsi_sn_before(sn, c->exp_cmd_sn) && !iscsi_sn_before(c->max_cmd_sn, sn);
}

bool iscsi_sn_take(struct iscsi_conn *c)
{
	if (c->rx.bhs.opcode & ISCSI_IMMEDIATE)
		return true;
	if (be32_get(c->rx.bhs.sn) != c->exp_cmd_sn || !sn_is_in_window(c, c->exp_cmd_sn))
		return false;
	c->exp_cmd_sn++;
	held_go_on(c);
	return true;
}

/* A command with this number; it is counted, and held if others come before it. False: it is not taken. */
static bool command_sn_take(struct iscsi_conn *c, struct iscsi_task *t, uint32_t sn)
{
	struct iscsi_task *x;
	struct list *at = &c->held;

	t->cmd_sn = sn;
	t->counted = true;
	c->n_window++;
	if (sn == c->exp_cmd_sn) {
		c->exp_cmd_sn++;
		return true;
	}
	list_for_each (x, &c->held, wait_link) {
		if (x->cmd_sn == sn)
			return false;
		at = &x->wait_link;
		if (iscsi_sn_before(sn, x->cmd_sn))
			break;
		at = &c->held;
	}
	t->is_held = true;
	list_push_back(at, &t->wait_link); /* before *at */
	return true;
}

/* ---- a command arrives ---- */

/* A CDB of more than 16 bytes goes on in an additional header. False: that makes no sense. */
static bool cdb_take(struct iscsi_conn *c, struct iscsi_task *t)
{
	const struct iscsi_rx *rx = &c->rx;
	uint32_t at = 0, len;

	memcpy(t->cdb, (const uint8_t *)&rx->bhs + 32, sizeof(t->cdb));
	t->cdb_len = sizeof(t->cdb);
	while (at + 4 <= rx->ahs_len) {
		len = be_get16(rx->ahs + at); /* what follows the type */
		if (at + 3 + len > rx->ahs_len || !len)
			return false;
		if (rx->ahs[at + 2] == ISCSI_AHS_CDB) {
			if (t->long_cdb || len < 2 || 16 + len - 1 > SCSI_CDB_MAX)
				return false;
			t->long_cdb = xmalloc(16 + len - 1);
			memcpy(t->long_cdb, t->cdb, 16);
			memcpy(t->long_cdb + 16, rx->ahs + at + 4, len - 1);
			t->cdb_len = (uint16_t)(16 + len - 1);
		}
		at += ALIGN_UP(3 + len, 4U);
	}
	return true;
}

/* What is wrong with it, or NULL. */
static const char *command_check(const struct iscsi_conn *c, uint32_t edtl)
{
	const struct iscsi_bhs *h = &c->rx.bhs;
	bool write = h->flags & ISCSI_CMD_WRITE, more = !(h->flags & ISCSI_FINAL);
	uint32_t len = c->rx.len;

	if (!write && (len || more))
		return "data for a command that writes nothing";
	if (write && (h->flags & ISCSI_CMD_READ))
		return "a command that both reads and writes";
	if (len && !c->prm.immediate_data)
		return "immediate data, which was not agreed upon";
	if (len > c->prm.first_burst || len > edtl)
		return "more immediate data than was agreed upon";
	if (more && c->prm.initial_r2t)
		return "unsolicited data, which was not agreed upon";
	return NULL;
}

static void data_out_prepare(struct iscsi_conn *c, struct iscsi_task *t)
{
	uint32_t block = t->lun ? scsi_nexus_block_bytes(t->lun->nexus) : 512, unasked;
	uint64_t want = scsi_cdb_data_out(t->long_cdb ? t->long_cdb : t->cdb, t->cdb_len, block);

	if (!t->is_write)
		return;
	if (want == UINT64_MAX)
		want = MIN(t->edtl, SCSI_TRANSFER_MAX);
	if (want > SCSI_TRANSFER_MAX || !t->lun)
		want = 0; /* it will be refused */
	t->want = (uint32_t)MIN(want, (uint64_t)t->edtl);
	t->unsolicited = !(c->rx.bhs.flags & ISCSI_FINAL);
	t->unsolicited_end = t->unsolicited ? MIN(c->prm.first_burst, t->edtl) : c->rx.len;
	unasked = t->want ? t->unsolicited_end : 0; /* what of it is not wanted has room too */
	if (!unasked)
		return;
	if (c->shard->n_bytes[0] > 2 * c->srv->o.max_total_bytes) { /* what writes have */
		t->is_busy = true;
		t->want = 0;
		return;
	}
	if (t->want > ISCSI_FIRST_BURST_MAX && list_is_empty(&c->waiting) && task_grow(t))
		return;
	mem_count(t, unasked);
	t->buf_bytes = unasked;
	t->buf = buf_alloc(unasked);
}

/* Where n bytes at `off` of the data-out go; NULL: nobody wants them. */
static uint8_t *data_dest(struct iscsi_task *t, uint32_t off, uint32_t n)
{
	return t->buf && off + n <= t->buf_bytes ? t->buf + off : NULL;
}

static void command_begin(struct iscsi_conn *c, struct iscsi_task *t)
{
	const struct iscsi_bhs *h = &c->rx.bhs;

	t->itt = be32_get(h->itt);
	t->edtl = be32_get(h->ttt);
	t->attr = h->flags & ISCSI_CMD_ATTR;
	t->is_write = h->flags & ISCSI_CMD_WRITE;
	t->is_read = h->flags & ISCSI_CMD_READ;
	t->lun = iscsi_lun_find(c, h->lun);
	if (t->lun)
		t->lun->n_tasks++;
	list_push_back(tag_bucket(c, t->itt), &t->tag_link);
	data_out_prepare(c, t);
	c->rx.task = t;
	c->rx.dest = data_dest(t, 0, c->rx.len);
}

static void command_refuse(struct iscsi_conn *c, struct iscsi_task *t, enum iscsi_reject reason, const char *what)
{
	t->state = TASK_DATA;
	iscsi_task_release(t);
	c->rx.ignored = true;
	if (reason)
		iscsi_reject(c, reason);
	if (what)
		iscsi_conn_violation(c, what);
}

void iscsi_command_header(struct iscsi_conn *c)
{
	const struct iscsi_bhs *h = &c->rx.bhs;
	uint32_t sn = be32_get(h->sn);
	struct iscsi_task *t;
	const char *bad;

	if (!(h->opcode & ISCSI_IMMEDIATE) && !sn_is_in_window(c, sn)) {
		c->rx.ignored = true; /* RFC 7143 4.2.2.1: silently */
		return;
	}
	t = task_get(c);
	if (h->opcode & ISCSI_IMMEDIATE) {
		t->immediate = true;
		c->n_immediate++;
	} else if (!command_sn_take(c, t, sn)) {
		command_refuse(c, t, 0, NULL);
		return;
	}
	bad = command_check(c, be32_get(h->ttt));
	if (bad || c->is_discovery || c->logout)
		command_refuse(c, t, c->logout ? ISCSI_REJECT_WAIT_LOGOUT : ISCSI_REJECT_PROTOCOL, bad);
	else if (t->immediate && c->n_immediate > ISCSI_IMMEDIATE_MAX)
		command_refuse(c, t, ISCSI_REJECT_TOO_MANY_IMMEDIATE, NULL);
	else if (iscsi_task_find(c, be32_get(h->itt)) || be32_get(h->itt) == ISCSI_TAG_NONE)
		command_refuse(c, t, ISCSI_REJECT_TASK_IN_PROGRESS, "a task tag that is in use");
	else if (!cdb_take(c, t))
		command_refuse(c, t, ISCSI_REJECT_FIELD, "an additional header");
	else
		command_begin(c, t);
	if (!c->closing)
		held_go_on(c);
}

static void count(_Atomic uint64_t *p, uint64_t n)
{
	atomic_store_explicit(p, atomic_load_explicit(p, memory_order_relaxed) + n, memory_order_relaxed);
}

static void task_count(struct iscsi_task *t)
{
	struct iscsi_conn *c = t->conn;

	count(&c->reads, t->is_read);
	count(&c->writes, t->is_write);
	count(&c->bytes_read, t->is_read ? t->edtl : 0);
	count(&c->bytes_written, t->is_write ? t->edtl : 0);
}

void iscsi_command_complete(struct iscsi_conn *c)
{
	struct iscsi_task *t = c->rx.task;

	if (t->aborting)
		return;
	c->rx.task = NULL;
	task_count(t);
	t->got = c->rx.len;
	t->r2t_off = MIN(t->got, t->want);
	task_go_on(t);
}

/* ---- Data-Out ---- */

/* The command ends, and what else comes of its data is dropped: nothing has reached the LU (RFC 7143 11.4.7.2). */
static void data_out_bad(struct iscsi_conn *c, struct iscsi_task *t, const char *what)
{
	static const uint8_t sense[18] = { 0x70, 0, 0x0b, [7] = 10, [12] = 0x0c, [13] = 0x0d }; /* incorrect amount of data */

	c->rx.ignored = true;
	iscsi_log(c->srv, "iscsi: %s: a command failed: %s", c->net.st->peer, what);
	if (t->is_held) { /* it must not be missing among those that wait for each other */
		iscsi_conn_violation(c, what);
		return;
	}
	list_del(&t->r2t_out.link);
	list_del(&t->wait_link);
	t->is_local = true;
	t->state = TASK_RUNNING;
	cmd_fill(t);
	t->cmd.status = SCSI_CHECK_CONDITION;
	t->cmd.sense_len = sizeof(sense);
	memcpy(t->cmd.sense, sense, sizeof(sense));
	task_done(t);
}

static const char *unsolicited_check(const struct iscsi_conn *c, const struct iscsi_task *t)
{
	const struct iscsi_bhs *h = &c->rx.bhs;

	if (!t->unsolicited)
		return "data that nobody asked for";
	if (be32_get(h->w36) != t->unsolicited_sn || be32_get(h->w40) != t->got)
		return "unsolicited data out of order";
	if (c->rx.len > t->unsolicited_end - t->got)
		return "more unsolicited data than was agreed upon";
	return NULL;
}

static const char *solicited_check(const struct iscsi_conn *c, const struct iscsi_r2t *r)
{
	const struct iscsi_bhs *h = &c->rx.bhs;
	bool last = c->rx.len == r->len - r->got;

	if (be32_get(h->w36) != r->data_sn || be32_get(h->w40) != r->off + r->got)
		return "data out of order";
	if (c->rx.len > r->len - r->got)
		return "more data than was asked for";
	if (last != !!(h->flags & ISCSI_FINAL))
		return "data that ends where it should not";
	return NULL;
}

static struct iscsi_r2t *r2t_find(struct iscsi_task *t, uint32_t ttt)
{
	unsigned i;

	for (i = 0; i < ISCSI_R2T_MAX; i++)
		if (t->r2t[i].len && t->r2t[i].ttt == ttt)
			return &t->r2t[i];
	return NULL;
}

void iscsi_data_out_header(struct iscsi_conn *c)
{
	const struct iscsi_bhs *h = &c->rx.bhs;
	uint32_t ttt = be32_get(h->ttt);
	struct iscsi_task *t = iscsi_task_find(c, be32_get(h->itt));
	struct iscsi_r2t *r = t ? r2t_find(t, ttt) : NULL;
	const char *bad;

	if (!t || t->state != TASK_DATA || t->aborting) {
		c->rx.ignored = true; /* of a task that has been aborted, or refused */
		return;
	}
	if (ttt == ISCSI_TAG_NONE)
		bad = unsolicited_check(c, t);
	else
		bad = r ? solicited_check(c, r) : "data that nobody asked for";
	if (bad) {
		data_out_bad(c, t, bad);
		return;
	}
	c->rx.task = t;
	c->rx.r2t = r;
	c->rx.dest = data_dest(t, be32_get(h->w40), c->rx.len);
}

void iscsi_data_out_complete(struct iscsi_conn *c)
{
	struct iscsi_task *t = c->rx.task;
	struct iscsi_r2t *r = c->rx.r2t;

	if (t->aborting)
		return;
	c->rx.task = NULL;
	t->got += c->rx.len;
	t->since_ns = reactor_now_ns();
	if (!r) {
		t->unsolicited_sn++;
		if (c->rx.bhs.flags & ISCSI_FINAL)
			t->unsolicited = false;
		t->r2t_off = MIN(t->got, t->want);
		task_go_on(t);
		return;
	}
	r->got += c->rx.len;
	r->data_sn++;
	if (r->got < r->len)
		return;
	r->len = 0;
	t->n_r2t--;
	if (t->got < t->want)
		task_ask(t);
	else
		task_go_on(t);
}
