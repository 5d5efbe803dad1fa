/*
 * scsi_reserve.c: who may: RESERVE and RELEASE, and the table of conflicts of both kinds of reservations. What nexuses may not, clients
 * of other frontends may not either: the bdev is fenced (bdev.h).
 */
#include "frontends/iscsi/scsi_internal.h"

struct scsi_pr_reg *scsi_nexus_registration(struct scsi_nexus *n)
{
	struct scsi_pr *p = n->lu->pr;

	if (unlikely(n->reg_version != p->version)) {
		n->reg = scsi_pr_find(p, n->conf.initiator, n->conf.port);
		n->reg_version = p->version;
	}
	return n->reg;
}

void scsi_lu_fence(struct scsi_lu *lu)
{
	lu->bdev->fence = lu->reserved_by ? BDEV_FENCE_ALL : scsi_pr_type_fence(lu->pr->type);
}

/* START STOP UNIT and PREVENT ALLOW by what they ask for. */
static unsigned own_access(const struct scsi_task *t)
{
	const uint8_t *cdb = scsi_task_cdb(t);

	switch (cdb[0]) {
	case OP_START_STOP_UNIT:
		return cdb[4] & 1 && !(cdb[4] >> 4) ? ACCESS_UNRESERVED : ACCESS_WRITE;
	case OP_PREVENT_ALLOW:
		return cdb[4] & 3 ? ACCESS_WRITE : ACCESS_UNRESERVED;
	case OP_RELEASE_6:
	case OP_RELEASE_10:
		return ACCESS_ANY;
	default:
		return ACCESS_UNRESERVED;
	}
}

static bool pr_allows(const struct scsi_pr *p, const struct scsi_pr_reg *reg, unsigned access)
{
	if (scsi_pr_is_holder(p, reg) || (reg && scsi_pr_type_is_registrants(p->type)))
		return true;
	if (access == ACCESS_REGISTERED)
		return reg != NULL;
	return access == ACCESS_READ && !scsi_pr_type_is_exclusive(p->type);
}

bool scsi_may(const struct scsi_task *t)
{
	const struct scsi_lu *lu = t->lu;
	unsigned access = t->op->access;

	if (likely(!lu->reserved_by && !lu->pr->type))
		return true;
	if (access == ACCESS_OWN)
		access = own_access(t);
	if (access == ACCESS_ANY)
		return true;
	if (lu->reserved_by && lu->reserved_by != t->nexus)
		return false;
	if (access == ACCESS_UNRESERVED || !lu->pr->type)
		return true;
	return pr_allows(lu->pr, scsi_nexus_registration(t->nexus), access);
}

bool scsi_lu_session_may(struct scsi_lu *lu, uint64_t session, enum scsi_access access)
{
	struct scsi_nexus *n;

	if (lu->gone)
		return false;
	list_for_each (n, &lu->nexuses, link) {
		if (n->conf.session != session)
			continue;
		if (access == ACCESS_WRITE && scsi_write_protection(lu, n))
			return false;
		if (lu->reserved_by && lu->reserved_by != n)
			return false;
		return !lu->pr->type || pr_allows(lu->pr, scsi_nexus_registration(n), access);
	}
	return false;
}

/* ---- RESERVE, RELEASE ---- */

/* Beside persistent reservations the old ones do nothing, for who may (CRH of SPC-4), and are refused to others. */
static bool beside_persistent(struct scsi_task *t)
{
	struct scsi_pr *p = t->lu->pr;
	const struct scsi_pr_reg *reg;

	if (!p->n_regs)
		return false;
	reg = scsi_nexus_registration(t->nexus);
	if (!reg || (p->type && !scsi_pr_is_holder(p, reg) && !scsi_pr_type_is_registrants(p->type)))
		t->status = SCSI_RESERVATION_CONFLICT;
	return true;
}

/* Third parties, extents: long obsolete. */
static bool plain(struct scsi_task *t)
{
	if (!(scsi_task_cdb(t)[1] & 0x1f))
		return true;
	scsi_bad_cdb(t, 1, 4);
	return false;
}

void scsi_run_reserve(struct scsi_task *t)
{
	if (plain(t) && !beside_persistent(t)) {
		t->lu->reserved_by = t->nexus;
		scsi_lu_fence(t->lu);
	}
	scsi_task_end_later(t);
}

void scsi_run_release(struct scsi_task *t)
{
	if (plain(t) && !beside_persistent(t) && t->lu->reserved_by == t->nexus) {
		t->lu->reserved_by = NULL;
		scsi_lu_fence(t->lu);
	}
	scsi_task_end_later(t);
}

void scsi_lu_release_nexus(struct scsi_lu *lu, const struct scsi_nexus *n)
{
	if (lu->reserved_by != n)
		return;
	lu->reserved_by = NULL;
	scsi_lu_fence(lu);
}
