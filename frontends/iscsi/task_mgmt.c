/*
 * Task management. What has not reached its LU is simply dropped; the rest is the LU's matter (scsi_co_tmf()), which answers when
 * nothing of what it aborts touches the data any more. The response is sent then, after those of commands that ended before.
 */
#include "frontends/iscsi/conn.h"

struct tmf_run {
	struct iscsi_conn *c;
	struct iscsi_lun *lun;	  /* NULL: all of the session */
	struct iscsi_task *ref;	  /* pinned */
	enum scsi_tmf what;
	be32 itt;
	bool silent, is_last;	  /* silent: the connection's end; nobody wants an answer */
	/* for the call */
	struct scsi_nexus *nexus;
};

static void respond(struct iscsi_conn *c, be32 itt, enum iscsi_tmf_rsp rsp, bool is_last)
{
	struct iscsi_ctrl *k = iscsi_ctrl_new(ISCSI_OP_TASK_MGMT_RSP);

	k->bhs.b2 = (uint8_t)rsp;
	k->bhs.itt = itt;
	k->is_last = is_last;
	iscsi_ctrl_send(c, k, NULL, 0);
}

/* ---- with the LU ---- */

static int tmf_there(void *arg)
{
	struct tmf_run *run = arg;

	return scsi_co_tmf(run->nexus, run->what, run->ref ? &run->ref->cmd : NULL);
}

static int tmf_co_lun(struct tmf_run *run, struct iscsi_lun *l)
{
	int r;

	l->n_tasks++; /* holds the nexus */
	run->nexus = l->nexus;
	r = reactor_co_call(l->home, tmf_there, run);
	iscsi_lun_put(l);
	return r;
}

static void tmf_co(void *arg)
{
	struct tmf_run *run = arg;
	struct iscsi_conn *c = run->c;
	int r = 0;
	size_t i;

	if (run->lun) {
		r = tmf_co_lun(run, run->lun);
	} else {
		for (i = 0; i < c->n_luns; i++)
			if (!c->luns[i]->gone)
				r = tmf_co_lun(run, c->luns[i]);
	}
	if (run->ref)
		iscsi_task_unpin(run->ref);
	if (!run->silent)
		respond(c, run->itt, r == -ENOENT ? ISCSI_TMF_NO_TASK : r < 0 ? ISCSI_TMF_REJECTED : ISCSI_TMF_DONE, run->is_last);
	xfree(run);
	c->n_co--;
	iscsi_conn_kick(c);
}

static void tmf_start(struct tmf_run run)
{
	struct tmf_run *r = xmalloc(sizeof(*r));

	*r = run;
	r->c->n_co++;
	co_spawn(CO_SERVICE, tmf_co, r, "iscsi task management");
}

/* ---- here ---- */

/* Commands of this LUN (NULL: of all): those that have not reached it are over, the others get no reply. */
static void tasks_take(struct iscsi_conn *c, const struct iscsi_lun *l)
{
	struct iscsi_task *t, *tmp;

	list_for_each_safe (t, tmp, &c->tasks, link) {
		if (l && t->lun != l)
			continue;
		if (t->state == TASK_DATA || t->state == TASK_ORDERED)
			iscsi_task_cancel(t);
		else if (t->state == TASK_RUNNING)
			t->aborting = true;
	}
}

static void abort_task(struct iscsi_conn *c)
{
	const struct iscsi_bhs *h = &c->rx.bhs;
	uint32_t ref_sn = be32_get(h->max_sn); /* RefCmdSN */
	struct iscsi_task *t = iscsi_task_find(c, be32_get(h->ttt));

	if (!t) {
		/* One that is still to come, by its number, will not be missed (RFC 7143 11.5.5): it would be out of the window of now. */
		bool to_come = !iscsi_sn_before(ref_sn, c->exp_cmd_sn) && !iscsi_sn_before(c->max_cmd_sn, ref_sn);

		respond(c, h->itt, to_come ? ISCSI_TMF_DONE : ISCSI_TMF_NO_TASK, false);
	} else if (t->lun != iscsi_lun_find(c, h->lun)) {
		respond(c, h->itt, ISCSI_TMF_NO_TASK, false);
	} else if (t->state == TASK_DATA || t->state == TASK_ORDERED) {
		iscsi_task_cancel(t);
		respond(c, h->itt, ISCSI_TMF_DONE, false);
	} else if (t->state == TASK_RUNNING && !t->is_local) {
		t->aborting = true;
		t->pins++;
		tmf_start((struct tmf_run){ .c = c, .lun = t->lun, .ref = t, .what = SCSI_TMF_ABORT_TASK, .itt = h->itt });
	} else {
		respond(c, h->itt, ISCSI_TMF_NO_TASK, false);
	}
}

static void lun_tmf(struct iscsi_conn *c, enum scsi_tmf what)
{
	const struct iscsi_bhs *h = &c->rx.bhs;
	struct iscsi_lun *l = iscsi_lun_find(c, h->lun);

	if (!l) {
		respond(c, h->itt, ISCSI_TMF_NO_LUN, false);
		return;
	}
	tasks_take(c, l);
	tmf_start((struct tmf_run){ .c = c, .lun = l, .what = what, .itt = h->itt });
}

void iscsi_task_mgmt(struct iscsi_conn *c)
{
	const struct iscsi_bhs *h = &c->rx.bhs;
	unsigned what = h->flags & 0x7f;

	if (!iscsi_sn_take(c))
		return;
	if (c->is_discovery || c->n_co >= ISCSI_TMF_MAX) {
		iscsi_reject(c, c->is_discovery ? ISCSI_REJECT_PROTOCOL : ISCSI_REJECT_TOO_MANY_IMMEDIATE);
		return;
	}
	switch (what) {
	case ISCSI_TMF_ABORT_TASK:
		abort_task(c);
		break;
	case ISCSI_TMF_ABORT_TASK_SET:
		lun_tmf(c, SCSI_TMF_ABORT_TASK_SET);
		break;
	case ISCSI_TMF_CLEAR_TASK_SET:
		lun_tmf(c, SCSI_TMF_CLEAR_TASK_SET);
		break;
	case ISCSI_TMF_LUN_RESET:
		lun_tmf(c, SCSI_TMF_LUN_RESET);
		break;
	case ISCSI_TMF_WARM_RESET:
	case ISCSI_TMF_COLD_RESET:
		tasks_take(c, NULL);
		tmf_start((struct tmf_run){ .c = c, .what = SCSI_TMF_LUN_RESET, .itt = h->itt, .is_last = what == ISCSI_TMF_COLD_RESET });
		break;
	case ISCSI_TMF_REASSIGN:
		respond(c, h->itt, ISCSI_TMF_NO_REASSIGN, false);
		break;
	default:
		respond(c, h->itt, ISCSI_TMF_NOT_SUPPORTED, false);
		break;
	}
}

void iscsi_abort_all(struct iscsi_conn *c)
{
	size_t i;

	tasks_take(c, NULL);
	for (i = 0; i < c->n_luns; i++)
		if (c->luns[i]->n_tasks && !c->luns[i]->closed)
			tmf_start((struct tmf_run){ .c = c, .lun = c->luns[i], .what = SCSI_TMF_ABORT_TASK_SET, .silent = true });
}
