/*
 * scsi_tmf.c: task management, and what it does to commands.
 *
 * A task that has not begun ends at once. What changes nothing goes on without its command, which is answered for: whatever the disk does,
 * nobody sees it. All else may change data, and is waited for; if a disk does not answer for SCSI_ABORT_NS it is left to itself too, with
 * the data-out, which the disk may still read. So that nobody can tell, commands that come where it may still write wait until it is
 * over: when the pool takes that disk for failed, at the latest. What waits for something that may never come is taken back (bdev_cancel()).
 */
#include "frontends/iscsi/scsi_internal.h"

#define ABORT_AGAIN_NS (100 * NS_PER_MS) /* one that was just trying again to get space may wait for it now */

static bool is_io_of(const struct io *io, void *task)
{
	const struct scsi_task *t = task;

	return io->owner == t || (t->co && io_is_of_co(io, t->co));
}

/* Of those that are to be aborted: nobody waits for space in a full pool, or for a turn under a limit. */
static void waiting_cancel(struct scsi_lu *lu)
{
	struct scsi_task *t, *tmp;

	list_for_each_safe (t, tmp, &lu->tasks, link)
		if (t->aborted)
			bdev_cancel(lu->bdev, is_io_of, t); /* t may be gone after it */
}

/* Returns whether it is to be waited for. */
static bool task_abort(struct scsi_task *t)
{
	struct scsi_cmd *c = t->c;

	t->aborted = true;
	if (t->state == TASK_WAITING) {
		t->state = TASK_RUNNING;
		t->lu->n_waiting--;
		scsi_task_end_later(t);
	} else if (!list_is_empty(&t->co_link)) {
		list_del(&t->co_link);
		scsi_task_end_later(t);
	} else if (c && t->op && t->op->flags & OPF_ABORT_READ && list_is_empty(&t->end.link)) {
		c->task = NULL;
		c->aborted = true;
		c->status = SCSI_TASK_ABORTED;
		c->sense_len = 0;
		scsi_task_let_go(t);
		c->done(c);
		return false;
	}
	return true;
}

/* ---- what is left to itself ---- */

struct left {
	struct scsi_cmd c; /* in place of the transport's */
	struct iovec iov;
	size_t bytes;
};

static void left_done(struct scsi_cmd *c)
{
	struct left *l = container_of(c, struct left, c);

	scsi_cmd_fini(c);
	buf_free(l->iov.iov_base, l->bytes);
	xfree(l);
}

/* Of what it may still change; UNMAP has many ranges. */
static bool left_meets(const struct scsi_task *left, const struct scsi_task *t)
{
	if (!(left->op->flags & OPF_WRITES))
		return false;
	if (left->op->opcode == OP_UNMAP || !t->len_bytes)
		return true;
	return left->off_bytes < t->off_bytes + t->len_bytes && t->off_bytes < left->off_bytes + left->len_bytes;
}

/* What a command touches: a range, or (false) nothing; len_bytes 0: anything. */
static bool touches(struct scsi_task *t, const struct scsi_op *op)
{
	t->len_bytes = 0;
	switch (op->opcode) {
	case OP_SYNCHRONIZE_CACHE_10:
	case OP_SYNCHRONIZE_CACHE_16:
	case OP_THIRD_PARTY_COPY_OUT: /* they wait at each of their steps */
	case OP_THIRD_PARTY_COPY_IN:
		return false;
	case OP_UNMAP:
	case OP_SERVICE_ACTION_IN_16:
		return true;
	default:
		if (op->access != ACCESS_READ && op->access != ACCESS_WRITE)
			return false;
		if (scsi_range_parse(t))
			return t->len_bytes;
		t->status = SCSI_GOOD; /* it will find that out itself */
		return false;
	}
}

bool scsi_task_is_after_left(struct scsi_task *t)
{
	const struct scsi_op *op;
	struct scsi_task *x;
	bool known;

	if (likely(!t->lu->n_left))
		return false;
	op = scsi_op_find(t->c->cdb, &known);
	if (!op || t->c->cdb_len < op->cdb_len || !touches(t, op))
		return false;
	list_for_each (x, &t->lu->tasks, link)
		if (x->left && left_meets(x, t))
			return true;
	return false;
}

void scsi_lu_co_settle(struct scsi_lu *lu)
{
	while (lu->n_left)
		co_queue_wait(&lu->task_ended);
}

void scsi_task_left_end(struct scsi_task *t)
{
	t->lu->n_left--;
	t->lu->left_bytes -= container_of(t->c, struct left, c)->bytes;
}

/* Its command is answered for; the task goes on with one of our own, and with the data-out. */
static void task_leave(struct scsi_task *t)
{
	struct scsi_cmd *c = t->c;
	struct scsi_lu *lu = t->lu;
	struct left *l;

	if (t->left || !t->op || !(t->op->flags & OPF_LEAVE) || t->state != TASK_RUNNING || !list_is_empty(&t->end.link))
		return;
	if (c->out_bytes && (!c->out_take || lu->left_bytes + c->out_bytes > SCSI_LEFT_BYTES_MAX))
		return;
	l = xcalloc(1, sizeof(*l));
	l->c = (struct scsi_cmd){.cdb_len = sizeof(c->cdb), .done = left_done, .task = t};
	memcpy(l->c.cdb, c->cdb, sizeof(c->cdb));
	if (c->out_bytes) {
		l->iov = (struct iovec){c->out_take(c, &l->bytes), c->out_bytes};
		l->c.out_iov = &l->iov;
		l->c.out_iov_n = 1;
		l->c.out_bytes = c->out_bytes;
	}
	t->left = true;
	lu->n_left++;
	lu->left_bytes += l->bytes;
	lu->n_ordered -= t->attr == SCSI_ORDERED;
	t->attr = SCSI_SIMPLE;
	lu->n_co -= t->in_co;
	t->in_co = false;
	t->nexus->n_tasks--;
	t->nexus = NULL;
	t->c = &l->c;
	c->task = NULL;
	c->aborted = true;
	c->status = SCSI_TASK_ABORTED;
	c->sense_len = 0;
	c->done(c);
	scsi_lu_co_pump(lu);
}

/* ---- aborting ---- */

void scsi_lu_co_abort(struct scsi_lu *lu, bool (*match)(const struct scsi_task *t, void *arg), void *arg)
{
	uint64_t deadline = reactor_now_ns() + SCSI_ABORT_NS, left;
	struct scsi_task *t, *tmp;

	list_for_each_safe (t, tmp, &lu->tasks, link)
		if (t->c && !t->left && (!match || match(t, arg)))
			task_abort(t);
	for (;;) {
		waiting_cancel(lu);
		left = 0;
		list_for_each (t, &lu->tasks, link)
			left += t->aborted && t->c && !t->left && (!match || match(t, arg));
		if (!left)
			return;
		(void)!co_queue_wait_until(&lu->task_ended, MIN(deadline, reactor_now_ns() + ABORT_AGAIN_NS));
		if (reactor_now_ns() < deadline)
			continue;
		deadline = UINT64_MAX;
		list_for_each_safe (t, tmp, &lu->tasks, link)
			if (t->aborted && t->c && !t->left && (!match || match(t, arg)))
				task_leave(t);
	}
}

/* ---- task management ---- */

static bool is_cmd(const struct scsi_task *t, void *arg)
{
	return t->c == arg;
}

static bool is_of_nexus(const struct scsi_task *t, void *arg)
{
	return t->nexus == arg;
}

static void lu_reset(struct scsi_lu *lu)
{
	struct scsi_nexus *n;

	lu->reserved_by = NULL;
	scsi_lu_fence(lu);
	lu->mode = lu->saved;
	list_for_each (n, &lu->nexuses, link)
		n->prevents_removal = false;
	scsi_lu_attention(lu, NULL, ASC_LUN_RESET);
}

/* Others whose commands are taken away hear of it. */
static void tell_cleared(struct scsi_lu *lu, const struct scsi_nexus *by)
{
	struct scsi_nexus *n;

	list_for_each (n, &lu->nexuses, link)
		if (n != by && n->n_tasks)
			scsi_nexus_attention_asc(n, ASC_COMMANDS_CLEARED);
}

int scsi_co_tmf(struct scsi_nexus *n, enum scsi_tmf what, struct scsi_cmd *ref)
{
	struct scsi_lu *lu = n->lu;

	switch (what) {
	case SCSI_TMF_ABORT_TASK:
		if (!ref || !ref->task || ref->nexus != n)
			return -ENOENT;
		scsi_lu_co_abort(lu, is_cmd, ref);
		return 0;
	case SCSI_TMF_ABORT_TASK_SET:
		scsi_lu_co_abort(lu, is_of_nexus, n);
		return 0;
	case SCSI_TMF_CLEAR_TASK_SET:
		tell_cleared(lu, n);
		scsi_lu_co_abort(lu, NULL, NULL);
		return 0;
	case SCSI_TMF_LUN_RESET:
		scsi_lu_co_abort(lu, NULL, NULL);
		lu_reset(lu);
		return 0;
	}
	return -EINVAL;
}
