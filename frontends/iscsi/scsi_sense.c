/* scsi_sense.c: sense data, errors of the engine as sense, unit attentions. */
#include "frontends/iscsi/scsi_internal.h"

void scsi_fail(struct scsi_task *t, uint8_t key, uint16_t asc)
{
	t->status = SCSI_CHECK_CONDITION;
	t->key = key;
	t->asc = asc;
}

static void fail_field(struct scsi_task *t, bool in_cdb, unsigned byte, unsigned bit)
{
	scsi_fail(t, KEY_ILLEGAL_REQUEST, in_cdb ? ASC_INVALID_FIELD_IN_CDB : ASC_INVALID_FIELD_IN_LIST);
	t->has_pointer = true;
	t->pointer_in_cdb = in_cdb;
	t->pointer = (uint16_t)MIN(byte, UINT16_MAX);
	t->pointer_bit = (uint8_t)bit;
}

void scsi_bad_cdb(struct scsi_task *t, unsigned byte, unsigned bit)
{
	fail_field(t, true, byte, bit);
}

void scsi_bad_list(struct scsi_task *t, unsigned byte, unsigned bit)
{
	fail_field(t, false, byte, bit);
}

void scsi_fail_info(struct scsi_task *t, uint8_t key, uint16_t asc, uint64_t info)
{
	scsi_fail(t, key, asc);
	t->has_info = true;
	t->info = info;
}

void scsi_fail_errno(struct scsi_task *t, int r)
{
	bool writes = t->op && t->op->flags & OPF_WRITES;

	switch (-err_to_errno(r)) {
	case ENOSPC:
	case EDQUOT:
		scsi_fail(t, KEY_DATA_PROTECT, ASC_SPACE_ALLOCATION_FAILED);
		break;
	case EROFS:
	case EPERM:
	case EACCES:
		scsi_fail(t, KEY_DATA_PROTECT, ASC_WRITE_PROTECTED);
		break;
	case ERANGE: /* it has shrunk */
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_LBA_OUT_OF_RANGE);
		break;
	case ESHUTDOWN:
		scsi_fail(t, KEY_NOT_READY, ASC_NOT_READY);
		break;
	case EIO:
	case ETIMEDOUT:
	case ENODEV:
		scsi_fail(t, KEY_MEDIUM_ERROR, writes ? ASC_WRITE_ERROR : ASC_READ_ERROR);
		break;
	default:
		scsi_fail(t, KEY_HARDWARE_ERROR, ASC_INTERNAL_FAILURE);
		break;
	}
}

/* Sense key specific bytes: a field pointer. */
static void put_pointer(const struct scsi_task *t, uint8_t *p)
{
	p[0] = (uint8_t)(0x80 | (t->pointer_in_cdb ? 0x40 : 0) | (t->pointer_bit < 8 ? 8 | t->pointer_bit : 0));
	be_put16(p + 1, t->pointer);
}

static uint8_t make_descriptors(const struct scsi_task *t, uint8_t *out)
{
	uint8_t n = 8;

	out[0] = 0x72;
	out[1] = t->key;
	be_put16(out + 2, t->asc);
	if (t->has_info) {
		out[n] = 0;
		out[n + 1] = 10;
		out[n + 2] = 0x80;
		be_put64(out + n + 4, t->info);
		n += 12;
	}
	if (t->has_pointer) {
		out[n] = 2;
		out[n + 1] = 6;
		put_pointer(t, out + n + 4);
		n += 8;
	}
	out[7] = n - 8;
	return n;
}

uint8_t scsi_sense_make(const struct scsi_task *t, bool descriptors, uint8_t out[SCSI_SENSE_MAX])
{
	memset(out, 0, SCSI_SENSE_MAX);
	if (descriptors)
		return make_descriptors(t, out);
	out[0] = 0x70;
	out[2] = t->key;
	out[7] = 10;
	be_put16(out + 12, t->asc);
	if (t->has_info && t->info <= UINT32_MAX) {
		out[0] |= 0x80;
		be_put32(out + 3, (uint32_t)t->info);
	}
	if (t->has_pointer)
		put_pointer(t, out + 15);
	return 18;
}

/* ---- unit attentions ---- */

void scsi_nexus_attention_asc(struct scsi_nexus *n, uint16_t asc)
{
	unsigned i;

	if (asc == ASC_LUN_RESET || asc == ASC_POWER_ON)
		n->n_attentions = 0; /* says it all */
	for (i = 0; i < n->n_attentions; i++)
		if (n->attentions[i] == asc)
			return;
	if (n->n_attentions == SCSI_ATTENTIONS_MAX)
		return;
	n->attentions[n->n_attentions++] = asc;
	if (n->conf.ops && n->conf.ops->attention)
		n->conf.ops->attention(n->conf.arg, (uint8_t)(asc >> 8), (uint8_t)asc);
}

void scsi_nexus_attention(struct scsi_nexus *n, uint8_t asc, uint8_t ascq)
{
	scsi_nexus_attention_asc(n, (uint16_t)(asc << 8 | ascq));
}

void scsi_lu_attention(struct scsi_lu *lu, const struct scsi_nexus *except, uint16_t asc)
{
	struct scsi_nexus *n;

	list_for_each (n, &lu->nexuses, link)
		if (n != except)
			scsi_nexus_attention_asc(n, asc);
}

uint16_t scsi_nexus_attention_take(struct scsi_nexus *n)
{
	uint16_t asc = n->attentions[0];

	if (!n->n_attentions)
		return 0;
	memmove(n->attentions, n->attentions + 1, --n->n_attentions * sizeof(n->attentions[0]));
	return asc;
}
