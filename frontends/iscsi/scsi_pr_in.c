/* scsi_pr_in.c: PERSISTENT RESERVE IN. */
#include "frontends/iscsi/scsi_internal.h"

enum { IN_READ_KEYS, IN_READ_RESERVATION, IN_REPORT_CAPABILITIES, IN_READ_FULL_STATUS };

static size_t read_keys(const struct scsi_pr *p, uint8_t *out)
{
	const struct scsi_pr_reg *r;
	size_t at = 8;

	list_for_each (r, &p->regs, link) {
		be_put64(out + at, r->key);
		at += 8;
	}
	be_put32(out + 4, (uint32_t)(at - 8));
	return at;
}

static size_t read_reservation(const struct scsi_pr *p, uint8_t *out)
{
	if (!p->type)
		return 8;
	be_put32(out + 4, 16);
	be_put64(out + 8, p->holder ? p->holder->key : 0);
	out[21] = p->type;
	return 24;
}

static size_t capabilities(const struct scsi_pr *p, uint8_t *out)
{
	be_put16(out, 8);
	out[2] = 0x19; /* RESERVE beside it, SPEC_I_PT, APTPL */
	out[3] = (uint8_t)(0x80 | p->aptpl);
	out[4] = 0xea;
	out[5] = 0x01;
	return 8;
}

/* The initiator port's name as a TransportID. */
static size_t transport_id(const char *name, uint8_t *out)
{
	size_t n = strlen(name) + 1, len = MAX(ALIGN_UP(n, 4), 20);

	out[0] = 0x45; /* iSCSI, with ISID */
	be_put16(out + 2, (uint16_t)len);
	memcpy(out + 4, name, n);
	return 4 + len;
}

static size_t full_status(const struct scsi_pr *p, uint8_t *out)
{
	const struct scsi_pr_reg *r;
	size_t at = 8, n;

	list_for_each (r, &p->regs, link) {
		be_put64(out + at, r->key);
		if (scsi_pr_is_holder(p, r)) {
			out[at + 12] = 1;
			out[at + 13] = p->type;
		}
		be_put16(out + at + 18, r->port);
		n = transport_id(r->initiator, out + at + 24);
		be_put32(out + at + 20, (uint32_t)n);
		at += 24 + n;
	}
	be_put32(out + 4, (uint32_t)(at - 8));
	return at;
}

void scsi_run_pr_in(struct scsi_task *t)
{
	const uint8_t *cdb = scsi_task_cdb(t);
	const struct scsi_pr *p = t->lu->pr;
	size_t n;
	uint8_t *out;

	out = scsi_task_in(t, 64 + p->n_regs * (size_t)(24 + 4 + SCSI_NAME_MAX + 4));
	if ((cdb[1] & 0x1f) != IN_REPORT_CAPABILITIES)
		be_put32(out, p->generation);
	switch (cdb[1] & 0x1f) {
	case IN_READ_KEYS:
		n = read_keys(p, out);
		break;
	case IN_READ_RESERVATION:
		n = read_reservation(p, out);
		break;
	case IN_REPORT_CAPABILITIES:
		n = capabilities(p, out);
		break;
	default:
		n = full_status(p, out);
		break;
	}
	scsi_task_reply(t, n, be_get16(cdb + 7));
}
