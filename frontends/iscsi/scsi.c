/*
 * scsi.c: a command from its arrival to its end; the task set.
 *
 * The task set is a list in order of arrival. SIMPLE tasks run at once, unless an ORDERED one is before them; an ORDERED one waits for
 * all before it; HEAD OF QUEUE waits for nobody. Each task is in the list until it has ended.
 */
#include "frontends/iscsi/scsi_internal.h"

/* ---- memory ---- */

uint8_t *scsi_task_in(struct scsi_task *t, size_t n)
{
	CHECK(!t->buf && n);
	t->buf = buf_alloc_zero(n);
	t->buf_bytes = n;
	return t->buf;
}

void scsi_task_reply(struct scsi_task *t, size_t n, size_t allocation)
{
	CHECK(n <= t->buf_bytes);
	t->in_bytes = MIN(n, allocation);
	scsi_task_end_later(t);
}

size_t scsi_task_out(const struct scsi_task *t, size_t skip, void *buf, size_t n)
{
	size_t there = t->c->out_bytes > skip ? t->c->out_bytes - skip : 0;

	n = MIN(n, there);
	if (n)
		iov_to_buf(t->c->out_iov, t->c->out_iov_n, skip, buf, n);
	return n;
}

void scsi_cmd_fini(struct scsi_cmd *c)
{
	buf_free(c->in_buf, c->in_buf_bytes);
	c->in_buf = NULL;
	c->in = (struct iovec){0};
}

/* ---- the end ---- */

static void task_free(struct scsi_task *t)
{
	buf_free(t->buf, t->buf_bytes);
	xfree(t->iovs);
	xfree(t->pieces);
	xfree(t);
}

static void task_answer(struct scsi_task *t, struct scsi_cmd *c)
{
	c->task = NULL;
	c->status = t->status;
	c->aborted = t->aborted;
	c->sense_len = t->status == SCSI_CHECK_CONDITION ? scsi_sense_make(t, t->lu->mode.d_sense, c->sense) : 0;
	if (t->status != SCSI_GOOD || t->aborted)
		t->in_bytes = 0;
	if (t->in_bytes) {
		c->in_buf = t->buf;
		c->in_buf_bytes = t->buf_bytes;
		c->in = (struct iovec){t->buf, t->in_bytes};
		if (!t->len_bytes)
			c->want_bytes = t->in_bytes;
		t->buf = NULL;
	}
}

void scsi_task_let_go(struct scsi_task *t)
{
	if (t->nexus)
		t->nexus->n_tasks--;
	t->nexus = NULL;
	t->c = NULL;
}

static void task_start(struct scsi_task *t);

/* Those that may begin now. */
static void lu_pump(struct scsi_lu *lu)
{
	bool any = false, ordered = false;
	struct scsi_task *t, *tmp;

	if (!lu->n_waiting)
		return;
	list_for_each_safe (t, tmp, &lu->tasks, link) {
		if (t->state == TASK_WAITING && (t->attr == SCSI_HEAD_OF_QUEUE || (t->attr == SCSI_ORDERED ? !any : !ordered)) &&
		    !scsi_task_is_after_left(t)) {
			t->state = TASK_RUNNING;
			lu->n_waiting--;
			task_start(t);
		}
		any = true;
		ordered |= t->attr == SCSI_ORDERED;
	}
}

void scsi_task_end(struct scsi_task *t)
{
	struct scsi_cmd *c = t->c;
	struct scsi_lu *lu = t->lu;

	CHECK(t->state == TASK_RUNNING);
	t->state = TASK_ENDED;
	list_del(&t->link);
	lu->n_tasks--;
	lu->n_ordered -= t->attr == SCSI_ORDERED;
	lu->n_co -= t->in_co;
	if (unlikely(t->left))
		scsi_task_left_end(t);
	if (c)
		task_answer(t, c);
	scsi_task_let_go(t);
	task_free(t);
	lu_pump(lu);
	scsi_lu_co_pump(lu);
	co_queue_wake_all(&lu->task_ended);
	if (c)
		c->done(c);
}

static void task_end_run(struct task *task)
{
	scsi_task_end(container_of(task, struct scsi_task, end));
}

void scsi_task_end_later(struct scsi_task *t)
{
	t->co = NULL; /* it may end before the task does */
	reactor_ready(&t->end);
}

/* ---- the beginning ---- */

static void task_co_main(void *arg)
{
	struct scsi_task *t = arg;

	if (t->aborted) {
		scsi_task_end_later(t);
	} else {
		t->co = co_self();
		t->op->run(t);
	}
}

void scsi_lu_co_pump(struct scsi_lu *lu)
{
	while (lu->n_co < SCSI_CO_MAX && !list_is_empty(&lu->co_waiting)) {
		struct scsi_task *t = list_entry(list_pop_front(&lu->co_waiting), struct scsi_task, co_link);

		lu->n_co++;
		t->in_co = true;
		co_spawn(CO_SERVICE, task_co_main, t, "scsi command");
	}
}

/* Is there something in its way, by the operation alone? Then the outcome is set. */
static bool task_is_refused(struct scsi_task *t)
{
	bool known;
	uint16_t asc;

	t->op = scsi_op_find(t->c->cdb, &known);
	if (t->lu->gone) {
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_LUN_NOT_SUPPORTED);
	} else if (!(t->op && t->op->flags & OPF_NO_ATTENTION) && (asc = scsi_nexus_attention_take(t->nexus))) {
		scsi_fail(t, KEY_UNIT_ATTENTION, asc);
	} else if (!t->op && known) {
		scsi_bad_cdb(t, 1, 4);
	} else if (!t->op || !t->op->run) {
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_INVALID_OPCODE);
	} else if (t->c->cdb_len < t->op->cdb_len) {
		scsi_bad_cdb(t, 0, 8);
	} else if (t->c->cdb[t->op->cdb_len - 1] & 4) { /* NACA */
		scsi_bad_cdb(t, t->op->cdb_len - 1u, 2);
	} else if (!scsi_may(t)) {
		t->status = SCSI_RESERVATION_CONFLICT;
	} else if (t->op->flags & OPF_WRITES && (asc = scsi_write_protection(t->lu, t->nexus))) {
		scsi_fail(t, KEY_DATA_PROTECT, asc);
	} else {
		return false;
	}
	return true;
}

static void task_start(struct scsi_task *t)
{
	if (task_is_refused(t)) {
		scsi_task_end_later(t);
	} else if (t->op->flags & OPF_CO) {
		list_push_back(&t->lu->co_waiting, &t->co_link);
		scsi_lu_co_pump(t->lu);
	} else {
		t->op->run(t);
	}
}

static bool task_must_wait(const struct scsi_task *t)
{
	const struct scsi_lu *lu = t->lu;

	if (t->attr == SCSI_HEAD_OF_QUEUE)
		return false;
	return t->attr == SCSI_ORDERED ? lu->n_tasks > 1 : lu->n_ordered > 0;
}

void scsi_submit(struct scsi_cmd *c)
{
	struct scsi_task *t = xcalloc(1, sizeof(*t));
	struct scsi_lu *lu = c->nexus->lu;

	c->task = t;
	c->in_buf = NULL;
	c->in = (struct iovec){0};
	c->want_bytes = 0;
	*t = (struct scsi_task){.c = c, .lu = lu, .nexus = c->nexus, .state = TASK_RUNNING, .attr = c->attr};
	if (c->cdb_len < sizeof(c->cdb))
		memset(c->cdb + c->cdb_len, 0, sizeof(c->cdb) - c->cdb_len);
	list_init(&t->co_link);
	list_init(&t->end.link);
	t->end.run = task_end_run;
	list_push_back(&lu->tasks, &t->link);
	c->nexus->n_tasks++;
	lu->n_tasks++;
	lu->n_ordered += t->attr == SCSI_ORDERED;
	if (unlikely(c->attr == SCSI_ACA || c->attr > SCSI_ACA)) {
		scsi_fail(t, KEY_ILLEGAL_REQUEST, 0x4900); /* invalid message: there is no auto contingent allegiance */
		scsi_task_end_later(t);
	} else if (unlikely(lu->n_tasks > SCSI_TASKS_MAX)) {
		t->status = SCSI_TASK_SET_FULL;
		scsi_task_end_later(t);
	} else if (unlikely(task_must_wait(t) || scsi_task_is_after_left(t))) {
		t->state = TASK_WAITING;
		lu->n_waiting++;
	} else {
		task_start(t);
	}
}
