/* scsi_report.c: small things that an LU says of itself, and the answers of a target without an LU. */
#include "frontends/iscsi/scsi_internal.h"

void scsi_run_test_unit_ready(struct scsi_task *t)
{
	scsi_task_end_later(t);
}

/* The sense of a pending unit attention, or none. */
void scsi_run_request_sense(struct scsi_task *t)
{
	const uint8_t *cdb = scsi_task_cdb(t);
	uint8_t *p = scsi_task_in(t, SCSI_SENSE_MAX);
	struct scsi_task says = {.lu = t->lu};
	uint16_t asc = scsi_nexus_attention_take(t->nexus);

	says.key = asc ? KEY_UNIT_ATTENTION : KEY_NO_SENSE;
	says.asc = asc;
	scsi_task_reply(t, scsi_sense_make(&says, cdb[1] & 1, p), cdb[4]);
}

/* ---- START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL ---- */

/* It does not stop: others work with it. What has been written is durable then. */
void scsi_run_start_stop(struct scsi_task *t)
{
	const uint8_t *cdb = scsi_task_cdb(t);
	bool stop = !(cdb[4] & 1), no_flush = cdb[4] & 4, power_condition = cdb[4] >> 4;
	int r = 0;

	if (!power_condition && cdb[4] & 2) {
		scsi_bad_cdb(t, 4, 1); /* it cannot be removed */
	} else if (!power_condition && stop && !no_flush && !t->lu->bdev->read_only) {
		r = bdev_co_flush(t->lu->bdev);
		if (r < 0)
			scsi_fail_errno(t, r);
	}
	scsi_task_end_later(t);
}

void scsi_run_prevent_allow(struct scsi_task *t)
{
	unsigned prevent = scsi_task_cdb(t)[4] & 3;

	if (prevent > 1)
		scsi_bad_cdb(t, 4, 1);
	else
		t->nexus->prevents_removal = prevent;
	scsi_task_end_later(t);
}

/* ---- capacity ---- */

void scsi_run_read_capacity_10(struct scsi_task *t)
{
	uint64_t last = (t->lu->bdev->size_bytes >> t->lu->lba_shift) - 1;
	const uint8_t *cdb = scsi_task_cdb(t);
	uint8_t *p;

	if (be_get32(cdb + 2) || cdb[8] & 1) { /* PMI, obsolete */
		scsi_bad_cdb(t, 2, 8);
		scsi_task_end_later(t);
		return;
	}
	p = scsi_task_in(t, 8);
	be_put32(p, (uint32_t)MIN(last, UINT32_MAX));
	be_put32(p + 4, t->lu->lba_bytes);
	scsi_task_reply(t, 8, 8);
}

void scsi_run_read_capacity_16(struct scsi_task *t)
{
	size_t allocation = be_get32(scsi_task_cdb(t) + 10);
	uint8_t *p = scsi_task_in(t, 32);

	be_put64(p, (t->lu->bdev->size_bytes >> t->lu->lba_shift) - 1);
	be_put32(p + 8, t->lu->lba_bytes);
	be_put16(p + 14, 0xc000); /* LBPME, LBPRZ */
	scsi_task_reply(t, 32, allocation);
}

/* ---- GET LBA STATUS ---- */

#define STATUS_EXTENTS 256

static size_t status_put(const struct scsi_lu *lu, const struct bdev_extent *ext, size_t n, uint64_t off, size_t room, uint8_t *p)
{
	uint64_t blocks;
	size_t at = 8, i;

	for (i = 0; i < n; i++) {
		uint64_t len = ext[i].len_bytes;

		while (len && at + 16 <= room) {
			blocks = MIN(len >> lu->lba_shift, UINT32_MAX);
			be_put64(p + at, off >> lu->lba_shift);
			be_put32(p + at + 8, (uint32_t)blocks);
			p[at + 12] = ext[i].flags & BDEV_HOLE ? 1 : 0; /* deallocated, or mapped */
			off += blocks << lu->lba_shift;
			len -= blocks << lu->lba_shift;
			at += 16;
		}
		if (len)
			break;
	}
	be_put32(p, (uint32_t)(at - 4));
	return at;
}

void scsi_run_get_lba_status(struct scsi_task *t)
{
	const uint8_t *cdb = scsi_task_cdb(t);
	size_t allocation = be_get32(cdb + 10), room = 8 + 16 * MIN(MAX(allocation, 24) / 16, STATUS_EXTENTS), n = STATUS_EXTENTS;
	struct scsi_lu *lu = t->lu;
	struct bdev_extent *ext;
	int r;

	if (!scsi_range_check(t, be_get64(cdb + 2), 1)) {
		scsi_task_end_later(t);
		return;
	}
	ext = xmalloc(n * sizeof(*ext));
	r = bdev_co_status(lu->bdev, t->off_bytes, lu->bdev->size_bytes - t->off_bytes, ext, &n);
	if (r < 0) {
		scsi_fail_errno(t, r);
		scsi_task_end_later(t);
	} else {
		scsi_task_in(t, room);
		t->len_bytes = 0;
		scsi_task_reply(t, status_put(lu, ext, n, t->off_bytes, room, t->buf), allocation);
	}
	xfree(ext);
}

/* ---- MAINTENANCE IN ---- */

void scsi_run_report_target_port_groups(struct scsi_task *t)
{
	const uint8_t *cdb = scsi_task_cdb(t);
	bool extended = cdb[1] >> 5 == 1;
	size_t h = extended ? 8 : 4;
	uint8_t *p;

	if (cdb[1] >> 5 > 1) {
		scsi_bad_cdb(t, 1, 7);
		scsi_task_end_later(t);
		return;
	}
	p = scsi_task_in(t, h + 12);
	be_put32(p, (uint32_t)(h + 12 - 4));
	if (extended)
		p[4] = 0x10;
	p[h] = 0x80;	 /* preferred; active/optimized */
	p[h + 1] = 0x01; /* nothing but that is supported */
	be_put16(p + h + 2, t->nexus->conf.tpg);
	p[h + 7] = 1; /* one port */
	be_put16(p + h + 10, t->nexus->conf.port);
	scsi_task_reply(t, h + 12, be_get32(cdb + 6));
}

#define TIMEOUTS_BYTES 12

static void timeouts_put(uint8_t *p)
{
	be_put16(p, 0x0a); /* no times are given */
}

static void report_all_opcodes(struct scsi_task *t, bool timeouts)
{
	size_t each = 8 + (timeouts ? TIMEOUTS_BYTES : 0), n = 0, at = 4;
	const struct scsi_op *op;
	uint8_t *p;

	while (scsi_op_at(n))
		n++;
	p = scsi_task_in(t, 4 + n * each);
	be_put32(p, (uint32_t)(n * each));
	for (n = 0; (op = scsi_op_at(n)); n++, at += each) {
		p[at] = op->opcode;
		be_put16(p + at + 2, op->sa);
		p[at + 5] = (uint8_t)(timeouts << 1 | op->has_sa);
		be_put16(p + at + 6, op->cdb_len);
		if (timeouts)
			timeouts_put(p + at + 8);
	}
	scsi_task_reply(t, at, be_get32(scsi_task_cdb(t) + 6));
}

static void report_one_opcode(struct scsi_task *t, const struct scsi_op *op, bool timeouts)
{
	size_t n = 4 + (op ? op->cdb_len : 0), i;
	uint8_t *p = scsi_task_in(t, 4 + 16 + TIMEOUTS_BYTES);

	p[1] = op ? 3 : 1;
	if (op) {
		be_put16(p + 2, op->cdb_len);
		p[4] = op->opcode;
		for (i = 1; i < op->cdb_len; i++)
			p[4 + i] = op->usage[i - 1];
		if (op->has_sa)
			p[5] = (uint8_t)((p[5] & 0xe0) | op->sa);
	}
	if (op && timeouts) {
		p[1] |= 0x80;
		timeouts_put(p + n);
		n += TIMEOUTS_BYTES;
	}
	scsi_task_reply(t, n, be_get32(scsi_task_cdb(t) + 6));
}

void scsi_run_report_opcodes(struct scsi_task *t)
{
	const uint8_t *cdb = scsi_task_cdb(t);
	bool timeouts = cdb[2] & 0x80, known, has_sa;
	uint8_t asked[2] = {cdb[3], cdb[5]}, probe[2] = {cdb[3], 0};
	const struct scsi_op *op;
	unsigned option = cdb[2] & 7;
	size_t i;

	if (option == 0) {
		report_all_opcodes(t, timeouts);
		return;
	}
	op = scsi_op_find(asked, &known);
	if (be_get16(cdb + 4) > 0x1f)
		op = NULL;
	has_sa = false;
	for (i = 0; scsi_op_at(i); i++)
		has_sa |= scsi_op_at(i)->opcode == probe[0] && scsi_op_at(i)->has_sa;
	if (option > 3 || (option == 1 && has_sa) || (option == 2 && known && !has_sa)) {
		scsi_bad_cdb(t, 2, 2);
		scsi_task_end_later(t);
		return;
	}
	if (option == 1 || (option == 3 && !has_sa && !be_get16(cdb + 4)))
		op = scsi_op_find(probe, &known);
	else if (!has_sa)
		op = NULL;
	report_one_opcode(t, op, timeouts);
}

void scsi_run_report_tmf(struct scsi_task *t)
{
	const uint8_t *cdb = scsi_task_cdb(t);
	size_t n = cdb[2] & 0x80 ? 16 : 4;
	uint8_t *p = scsi_task_in(t, 16);

	p[0] = 0xd8; /* ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET */
	if (n == 16)
		p[3] = 0x0c;
	scsi_task_reply(t, n, be_get32(cdb + 6));
}

/* ---- LOG SENSE: which pages there are, and how much of the LU is in use ---- */

static int used_bytes_co(struct scsi_lu *lu, uint64_t *used)
{
	struct bdev_extent *ext = xmalloc(STATUS_EXTENTS * sizeof(*ext));
	uint64_t off = 0;
	size_t n, i;
	int r = 0;

	*used = 0;
	while (r == 0 && off < lu->bdev->size_bytes) {
		n = STATUS_EXTENTS;
		r = bdev_co_status(lu->bdev, off, lu->bdev->size_bytes - off, ext, &n);
		for (i = 0; r == 0 && i < n; i++) {
			*used += ext[i].flags & BDEV_HOLE ? 0 : ext[i].len_bytes;
			off += ext[i].len_bytes;
		}
	}
	xfree(ext);
	return r;
}

static size_t resource_put(uint8_t *p, uint16_t code, uint64_t count, uint8_t scope)
{
	be_put16(p, code);
	p[2] = 3;
	p[3] = 8;
	be_put32(p + 4, (uint32_t)MIN(count, UINT32_MAX));
	p[8] = scope;
	return 12;
}

void scsi_run_log_sense(struct scsi_task *t)
{
	const uint8_t *cdb = scsi_task_cdb(t);
	size_t allocation = be_get16(cdb + 7), n;
	unsigned page = cdb[2] & 0x3f;
	uint8_t *p = scsi_task_in(t, 32);
	uint64_t used;
	int r;

	p[0] = (uint8_t)page;
	if (cdb[1] & 1 || cdb[3] || (page != 0 && page != 0x0c)) {
		scsi_bad_cdb(t, cdb[1] & 1 ? 1 : cdb[3] ? 3 : 2, 8);
		scsi_task_end_later(t);
		return;
	}
	if (page == 0) {
		p[5] = 0x0c;
		n = 6;
	} else { /* logical block provisioning: available and used mapping resources, in what thresholds are counted in */
		r = used_bytes_co(t->lu, &used);
		if (r < 0) {
			scsi_fail_errno(t, r);
			scsi_task_end_later(t);
			return;
		}
		n = 4;
		if (t->lu->total_bytes)
			n += resource_put(p + n, 0x0001, t->lu->free_bytes / SCSI_THRESHOLD_BYTES, 2); /* of all LUs in the pool */
		n += resource_put(p + n, 0x0002, DIV_UP(used, SCSI_THRESHOLD_BYTES), 1); /* of this LU alone */
	}
	be_put16(p + 2, (uint16_t)(n - 4));
	scsi_task_reply(t, n, allocation);
}

/* ---- without an LU ---- */

void scsi_lun_encode(uint16_t lun, uint8_t out[8])
{
	memset(out, 0, 8);
	out[0] = (uint8_t)(lun < 256 ? 0 : 0x40 | lun >> 8);
	out[1] = (uint8_t)lun;
}

int scsi_lun_decode(const uint8_t in[8])
{
	int i;

	for (i = 2; i < 8; i++)
		if (in[i])
			return -1;
	if ((in[0] & 0xc0) == 0x40)
		return (in[0] & 0x3f) << 8 | in[1];
	return in[0] ? -1 : in[1];
}

static void answer(struct scsi_cmd *c, size_t n, size_t allocation)
{
	c->in = (struct iovec){c->in_buf, MIN(n, allocation)};
	c->want_bytes = c->in.iov_len;
}

static void answer_sense(struct scsi_cmd *c, uint8_t key, uint16_t asc)
{
	struct scsi_task says = {.key = key, .asc = asc};

	c->status = SCSI_CHECK_CONDITION;
	c->sense_len = scsi_sense_make(&says, false, c->sense);
}

static uint8_t *answer_buf(struct scsi_cmd *c, size_t n)
{
	c->in_buf = buf_alloc_zero(n);
	c->in_buf_bytes = n;
	return c->in_buf;
}

static void answer_luns(struct scsi_cmd *c, const struct scsi_lun_list *luns)
{
	/* 1, 11: well-known and administrative ones, of which there are none */
	size_t allocation = be_get32(c->cdb + 6), n = c->cdb[2] == 1 || c->cdb[2] == 0x11 ? 0 : luns->n, i;
	uint8_t *p;

	if (c->cdb[2] > 2 && (c->cdb[2] < 0x10 || c->cdb[2] > 0x12)) {
		answer_sense(c, KEY_ILLEGAL_REQUEST, ASC_INVALID_FIELD_IN_CDB);
		return;
	}
	p = answer_buf(c, 8 + 8 * n);
	be_put32(p, (uint32_t)(8 * n));
	for (i = 0; i < n; i++)
		scsi_lun_encode(luns->lun[i], p + 8 + 8 * i);
	answer(c, 8 + 8 * n, allocation);
}

bool scsi_answer_without_lu(struct scsi_cmd *c, const struct scsi_lun_list *luns, bool is_mapped)
{
	struct scsi_task says = {.key = KEY_ILLEGAL_REQUEST, .asc = ASC_LUN_NOT_SUPPORTED};
	uint8_t *p;

	if (is_mapped && c->cdb[0] != OP_REPORT_LUNS)
		return false;
	c->task = NULL;
	c->status = SCSI_GOOD;
	c->aborted = false;
	c->sense_len = 0;
	c->in_buf = NULL;
	c->in = (struct iovec){0};
	c->want_bytes = 0;
	if (c->cdb[0] == OP_REPORT_LUNS && c->cdb_len >= 12) {
		answer_luns(c, luns);
	} else if (c->cdb[0] == OP_INQUIRY && c->cdb_len >= 6 && !(c->cdb[1] & 3) && !c->cdb[2]) {
		p = answer_buf(c, 36);
		p[0] = 0x7f; /* no device can be there */
		p[2] = 6;
		p[3] = 0x12;
		p[4] = 36 - 5;
		memset(p + 8, ' ', 28);
		answer(c, 36, be_get16(c->cdb + 3));
	} else if (c->cdb[0] == OP_REQUEST_SENSE && c->cdb_len >= 6) {
		p = answer_buf(c, SCSI_SENSE_MAX);
		answer(c, scsi_sense_make(&says, c->cdb[1] & 1, p), c->cdb[4]);
	} else {
		answer_sense(c, KEY_ILLEGAL_REQUEST, ASC_LUN_NOT_SUPPORTED);
	}
	return true;
}
