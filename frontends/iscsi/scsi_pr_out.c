/*
 * scsi_pr_out.c: PERSISTENT RESERVE OUT. One at a time per LU; what has been changed is made durable, if it is to be, before GOOD. If
 * that fails the state is what it was.
 */
#include "frontends/iscsi/scsi_internal.h"

enum {
	OUT_REGISTER,
	OUT_RESERVE,
	OUT_RELEASE,
	OUT_CLEAR,
	OUT_PREEMPT,
	OUT_PREEMPT_AND_ABORT,
	OUT_REGISTER_AND_IGNORE,
	OUT_REGISTER_AND_MOVE,
};

#define LIST_BYTES 24
#define LIST_MAX (16 * KIB)

/* A PERSISTENT RESERVE OUT on its way. */
struct pr_out {
	struct scsi_task *t;
	struct scsi_pr *p;
	struct scsi_pr_reg *me; /* NULL: not registered */
	unsigned sa, type;
	uint64_t key, sa_key;
	const uint8_t *list;
	size_t list_bytes;
	/* who has lost a registration, by what they were: nexuses are told, and their commands aborted */
	struct scsi_pr_reg lost[SCSI_PR_REGISTRATIONS_MAX];
	unsigned n_lost;
	/* unit attentions, to be given when the change is durable */
	struct told {
		struct scsi_pr_reg who;
		uint16_t asc;
	} *told;
	unsigned n_told;
};

/* ---- nexuses of a registration ---- */

static bool is_of(const struct scsi_nexus *n, const struct scsi_pr_reg *r)
{
	return n->conf.port == r->port && !strcmp(n->conf.initiator, r->initiator);
}

static void tell(struct pr_out *o, const struct scsi_pr_reg *r, uint16_t asc)
{
	o->told = xrealloc(o->told, (o->n_told + 1) * sizeof(*o->told));
	o->told[o->n_told++] = (struct told){*r, asc};
}

static void tell_all(const struct pr_out *o)
{
	struct scsi_nexus *n;
	unsigned i;

	for (i = 0; i < o->n_told; i++)
		list_for_each (n, &o->t->lu->nexuses, link)
			if (is_of(n, &o->told[i].who))
				scsi_nexus_attention_asc(n, o->told[i].asc);
}

/* All who are registered but `me`. */
static void tell_others(struct pr_out *o, uint16_t asc)
{
	const struct scsi_pr_reg *r;

	list_for_each (r, &o->p->regs, link)
		if (r != o->me)
			tell(o, r, asc);
}

static void conflict(const struct pr_out *o)
{
	o->t->status = SCSI_RESERVATION_CONFLICT;
}

/* ---- REGISTER ---- */

/* A TransportID of an iSCSI initiator port; its length, or 0 after the failure has been set. at: where it is in the list. */
static size_t transport_id_parse(const struct pr_out *o, size_t at, char name[SCSI_NAME_MAX + 1])
{
	const uint8_t *p = o->list + at;
	size_t room = o->list_bytes - at, len, n;

	if (room < 8 || (p[0] != 0x45) || (len = be_get16(p + 2)) > room - 4 || len < 20 || len % 4) {
		scsi_bad_list(o->t, (unsigned)at, 8);
		return 0;
	}
	n = strnlen((const char *)p + 4, len);
	if (n == len || n > SCSI_NAME_MAX || !n) {
		scsi_bad_list(o->t, (unsigned)at + 4, 8);
		return 0;
	}
	memcpy(name, p + 4, n + 1);
	return 4 + len;
}

/* SPEC_I_PT: others too. Twice over the list: first to see that it is well. */
static bool register_others(struct pr_out *o)
{
	size_t at, end, n;
	char name[SCSI_NAME_MAX + 1];
	unsigned pass, n_new = 0;

	if (o->list_bytes < LIST_BYTES + 4 || (end = be_get32(o->list + 24)) != o->list_bytes - LIST_BYTES - 4) {
		scsi_fail(o->t, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
		return false;
	}
	end = o->list_bytes;
	for (pass = 0; pass < 2; pass++) {
		for (at = LIST_BYTES + 4; at < end; at += n) {
			n = transport_id_parse(o, at, name);
			if (!n)
				return false;
			if (scsi_pr_find(o->p, name, o->t->nexus->conf.port))
				continue; /* it keeps its key */
			if (!pass)
				n_new++;
			else if (!scsi_pr_add(o->p, name, o->t->nexus->conf.port, o->sa_key))
				break; /* the same name twice has been counted twice: there is room */
		}
		if (o->p->n_regs + n_new + !o->me > SCSI_PR_REGISTRATIONS_MAX && !pass) {
			scsi_fail(o->t, KEY_ILLEGAL_REQUEST, ASC_INSUFFICIENT_REGISTRATIONS);
			return false;
		}
	}
	return true;
}

static void unregister(struct pr_out *o)
{
	uint8_t released = PR_NONE;

	scsi_pr_remove(o->p, o->me, &released);
	o->me = NULL;
	if (released && scsi_pr_type_is_registrants(released))
		tell_others(o, ASC_RESERVATIONS_RELEASED);
}

static void out_register(struct pr_out *o)
{
	bool ignore = o->sa == OUT_REGISTER_AND_IGNORE, others = o->list[20] & 8;
	const struct scsi_nexus_conf *c = &o->t->nexus->conf;

	if (!ignore && (o->me ? o->key != o->me->key : o->key != 0)) {
		conflict(o);
		return;
	}
	if (o->list[20] & 4 || (others && (ignore || o->me))) {
		scsi_bad_list(o->t, 20, o->list[20] & 4 ? 2 : 3);
		return;
	}
	if (others && o->sa_key && !register_others(o))
		return;
	if (o->me && !o->sa_key) {
		unregister(o);
	} else if (o->me) {
		o->me->key = o->sa_key;
	} else if (o->sa_key) {
		o->me = scsi_pr_add(o->p, c->initiator, c->port, o->sa_key);
		if (!o->me) {
			scsi_fail(o->t, KEY_ILLEGAL_REQUEST, ASC_INSUFFICIENT_REGISTRATIONS);
			return;
		}
	}
	o->p->aptpl = o->list[20] & 1;
	o->p->generation++;
}

/* ---- RESERVE, RELEASE, CLEAR ---- */

static void out_reserve(struct pr_out *o)
{
	struct scsi_pr *p = o->p;

	if (p->type) {
		if (!scsi_pr_is_holder(p, o->me) || p->type != o->type)
			conflict(o);
		return;
	}
	p->type = (uint8_t)o->type;
	p->holder = scsi_pr_type_is_all(o->type) ? NULL : o->me;
}

static void out_release(struct pr_out *o)
{
	struct scsi_pr *p = o->p;

	if (!p->type || !scsi_pr_is_holder(p, o->me))
		return;
	if (p->type != o->type) {
		scsi_fail(o->t, KEY_ILLEGAL_REQUEST, ASC_RELEASE_OF_NONE);
		return;
	}
	p->type = PR_NONE;
	p->holder = NULL;
	if (scsi_pr_type_is_registrants(o->type))
		tell_others(o, ASC_RESERVATIONS_RELEASED);
}

static void out_clear(struct pr_out *o)
{
	tell_others(o, ASC_RESERVATIONS_PREEMPTED);
	scsi_pr_clear(o->p);
	o->me = NULL;
	o->p->generation++;
}

/* ---- PREEMPT ---- */

/* Removes those with this key (all: any key) but `me`; returns how many there were, `me` counting if it has the key. */
static unsigned remove_key(struct pr_out *o, uint64_t key, bool all)
{
	struct scsi_pr_reg *r, *tmp;
	unsigned n = 0;

	list_for_each_safe (r, tmp, &o->p->regs, link) {
		if (!all && r->key != key)
			continue;
		n++;
		if (r == o->me)
			continue;
		o->lost[o->n_lost++] = *r;
		scsi_pr_remove(o->p, r, NULL);
	}
	return n;
}

static bool lost_has(const struct pr_out *o, const struct scsi_pr_reg *r)
{
	unsigned i;

	for (i = 0; i < o->n_lost; i++)
		if (o->lost[i].port == r->port && !strcmp(o->lost[i].initiator, r->initiator))
			return true;
	return false;
}

static void out_preempt(struct pr_out *o)
{
	struct scsi_pr *p = o->p;
	bool all = scsi_pr_type_is_all(p->type), takes = p->type && (all ? !o->sa_key : p->holder->key == o->sa_key);
	uint8_t old = p->type;
	unsigned i;

	if (!takes) {
		if (!o->sa_key) {
			scsi_bad_list(o->t, 8, 8);
			return;
		}
		if (!remove_key(o, o->sa_key, false)) {
			conflict(o);
			return;
		}
	} else {
		remove_key(o, o->sa_key, all);
		p->type = (uint8_t)o->type;
		p->holder = scsi_pr_type_is_all(o->type) ? NULL : o->me;
		if (old != o->type && scsi_pr_type_is_registrants(old))
			tell_others(o, ASC_RESERVATIONS_RELEASED);
	}
	for (i = 0; i < o->n_lost; i++)
		tell(o, &o->lost[i], ASC_REGISTRATIONS_PREEMPTED);
	p->generation++;
}

/* ---- REGISTER AND MOVE ---- */

static void out_move(struct pr_out *o)
{
	const struct scsi_nexus_conf *c = &o->t->nexus->conf;
	char name[SCSI_NAME_MAX + 1];
	struct scsi_pr_reg *to;
	size_t n;

	if (!o->p->type || scsi_pr_type_is_all(o->p->type) || o->p->holder != o->me) {
		conflict(o);
		return;
	}
	if (!o->sa_key) {
		scsi_bad_list(o->t, 8, 8);
		return;
	}
	if (be_get16(o->list + 18) != c->port) { /* there is one port */
		scsi_bad_list(o->t, 18, 8);
		return;
	}
	if (be_get32(o->list + 20) != o->list_bytes - LIST_BYTES) {
		scsi_fail(o->t, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
		return;
	}
	n = transport_id_parse(o, LIST_BYTES, name);
	if (!n)
		return;
	if (!strcmp(name, c->initiator)) {
		scsi_bad_list(o->t, LIST_BYTES, 8);
		return;
	}
	to = scsi_pr_find(o->p, name, c->port);
	if (!to)
		to = scsi_pr_add(o->p, name, c->port, o->sa_key);
	if (!to) {
		scsi_fail(o->t, KEY_ILLEGAL_REQUEST, ASC_INSUFFICIENT_REGISTRATIONS);
		return;
	}
	to->key = o->sa_key;
	o->p->holder = to;
	if (o->list[17] & 2) {
		scsi_pr_remove(o->p, o->me, NULL);
		o->me = NULL;
	}
	o->p->aptpl = o->list[17] & 1;
	o->p->generation++;
}

/* ---- all of them ---- */

static void out_apply(struct pr_out *o)
{
	bool registers = o->sa == OUT_REGISTER || o->sa == OUT_REGISTER_AND_IGNORE;

	if (!registers && (!o->me || o->me->key != o->key)) {
		conflict(o);
		return;
	}
	switch (o->sa) {
	case OUT_REGISTER:
	case OUT_REGISTER_AND_IGNORE:
		out_register(o);
		break;
	case OUT_RESERVE:
		out_reserve(o);
		break;
	case OUT_RELEASE:
		out_release(o);
		break;
	case OUT_CLEAR:
		out_clear(o);
		break;
	case OUT_REGISTER_AND_MOVE:
		out_move(o);
		break;
	default:
		out_preempt(o);
		break;
	}
}

/* Coroutine. Durable, if it is to be. */
static int out_co_save(struct scsi_lu *lu)
{
	struct scsi_pr *p = lu->pr;
	const struct scsi_store *s = lu->target->store;
	bool keep = p->aptpl && p->n_regs;
	uint8_t *bytes;
	int r;

	if (!keep && !p->is_stored)
		return 0;
	if (!s)
		return -EOPNOTSUPP;
	bytes = xmalloc(SCSI_PR_STATE_MAX);
	r = s->co_save(s->arg, &lu->uuid, SCSI_KEPT_RESERVATIONS, bytes, keep ? scsi_pr_encode(p, bytes) : 0);
	xfree(bytes);
	if (r == 0)
		p->is_stored = keep;
	return r;
}

/* Coroutine. Applies it; takes it back if it cannot be kept. */
static void out_co_run(struct pr_out *o)
{
	struct scsi_lu *lu = o->t->lu;
	struct scsi_pr *p = o->p;
	uint8_t *before = xmalloc(SCSI_PR_STATE_MAX);
	bool aptpl = p->aptpl;
	size_t n = scsi_pr_encode(p, before);
	int r;

	out_apply(o);
	if (o->t->status == SCSI_GOOD) {
		scsi_lu_fence(lu);
		r = out_co_save(lu);
		if (r < 0) {
			CHECK(scsi_pr_decode(p, before, n) == 0);
			p->aptpl = aptpl;
			scsi_lu_fence(lu);
			o->n_lost = 0;
			if (r == -EOPNOTSUPP)
				scsi_bad_list(o->t, o->sa == OUT_REGISTER_AND_MOVE ? 17 : 20, 0);
			else
				scsi_fail(o->t, KEY_HARDWARE_ERROR, ASC_INTERNAL_FAILURE);
		} else {
			tell_all(o);
		}
	}
	xfree(before);
}

static bool is_lost(const struct scsi_task *t, void *arg)
{
	const struct pr_out *o = arg;
	struct scsi_pr_reg r = {.port = 0};

	if (t == o->t || !t->nexus)
		return false;
	r.port = t->nexus->conf.port;
	memcpy(r.initiator, t->nexus->conf.initiator, sizeof(r.initiator));
	return lost_has(o, &r);
}

/* The list and the CDB, before anything is looked up. */
static bool out_check(struct pr_out *o)
{
	const uint8_t *cdb = scsi_task_cdb(o->t);
	bool long_list = o->sa == OUT_REGISTER_AND_MOVE || ((o->sa == OUT_REGISTER) && o->list_bytes > 20 && o->list[20] & 8);

	if (o->list_bytes < LIST_BYTES || (!long_list && o->list_bytes != LIST_BYTES)) {
		scsi_fail(o->t, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
		return false;
	}
	if (o->sa == OUT_RESERVE || o->sa == OUT_RELEASE || o->sa == OUT_PREEMPT || o->sa == OUT_PREEMPT_AND_ABORT) {
		if (cdb[2] >> 4 || !scsi_pr_type_is_valid(cdb[2] & 15)) {
			scsi_bad_cdb(o->t, 2, cdb[2] >> 4 ? 7 : 3);
			return false;
		}
	}
	return true;
}

void scsi_run_pr_out(struct scsi_task *t)
{
	const uint8_t *cdb = scsi_task_cdb(t);
	struct pr_out *o = xcalloc(1, sizeof(*o));
	size_t n = be_get32(cdb + 5);
	uint8_t *list = NULL;

	t->c->want_bytes = n;
	*o = (struct pr_out){.t = t, .p = t->lu->pr, .sa = cdb[1] & 0x1f, .type = cdb[2] & 15, .list_bytes = n};
	if (n > LIST_MAX) {
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
	} else {
		o->list = list = xcalloc(1, n + LIST_BYTES);
		if (scsi_task_out(t, 0, list, n) < n)
			scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
		else if (out_check(o)) {
			o->key = be_get64(list);
			o->sa_key = be_get64(list + 8);
			co_mutex_lock(&o->p->change);
			o->me = scsi_nexus_registration(t->nexus);
			out_co_run(o);
			co_mutex_unlock(&o->p->change);
			if (o->sa == OUT_PREEMPT_AND_ABORT && o->n_lost)
				scsi_lu_co_abort(t->lu, is_lost, o);
		}
	}
	xfree(list);
	xfree(o->told);
	xfree(o);
	scsi_task_end_later(t);
}
