/*
 * scsi_more.c: the medium, with more than one step: VERIFY, WRITE AND VERIFY, COMPARE AND WRITE, WRITE SAME, UNMAP. Coroutines.
 */
#include "frontends/iscsi/scsi_internal.h"

#define STEP_BYTES ((size_t)MIB)

/* ---- comparing ---- */

static size_t mismatch(const uint8_t *a, const uint8_t *b, size_t n)
{
	size_t i = 0;

	while (i < n && a[i] == b[i])
		i++;
	return i;
}

/* Coroutine. Reads the range; compares with data-out (each block with the first one: all_same) unless compare is false. */
static void verify_co(struct scsi_task *t, bool compare, bool all_same)
{
	uint8_t *buf = buf_alloc(STEP_BYTES), *expect = compare ? buf_alloc(STEP_BYTES) : NULL;
	uint64_t at;
	size_t n, i;
	int r = 0;

	if (all_same)
		for (i = 0; i < STEP_BYTES; i += t->lu->lba_bytes)
			scsi_task_out(t, 0, expect + i, t->lu->lba_bytes);
	for (at = 0; at < t->len_bytes && !t->aborted; at += n) {
		n = MIN(t->len_bytes - at, STEP_BYTES);
		r = scsi_co_read(t->lu, t->off_bytes + at, &buf, STEP_BYTES, n);
		if (r < 0) {
			scsi_fail_errno(t, r);
			break;
		}
		if (!compare)
			continue;
		if (!all_same)
			scsi_task_out(t, at, expect, n);
		i = mismatch(buf, expect, n);
		if (i < n) {
			scsi_fail_info(t, KEY_MISCOMPARE, ASC_MISCOMPARE, at + i);
			break;
		}
	}
	buf_free(buf, STEP_BYTES);
	buf_free(expect, STEP_BYTES);
}

/* Checks of commands with a range and a length that is limited. False: it has failed, or there is nothing to do. */
static bool range_begins(struct scsi_task *t, unsigned length_byte)
{
	if (scsi_task_cdb(t)[1] & 0xe0) {
		scsi_bad_cdb(t, 1, 7);
		return false;
	}
	if (!scsi_range_parse(t))
		return false;
	if (t->len_bytes > SCSI_TRANSFER_MAX) {
		scsi_bad_cdb(t, length_byte, 8);
		return false;
	}
	return t->len_bytes != 0;
}

static unsigned length_byte(const uint8_t *cdb)
{
	return cdb[0] >> 5 == 4 ? 10 : cdb[0] >> 5 == 5 ? 6 : 7;
}

static bool out_is(struct scsi_task *t, uint64_t bytes)
{
	t->c->want_bytes = bytes;
	if (t->c->out_bytes >= bytes)
		return true;
	scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_BAD_INFORMATION_UNIT);
	return false;
}

void scsi_run_verify(struct scsi_task *t)
{
	const uint8_t *cdb = scsi_task_cdb(t);
	unsigned how = cdb[1] >> 1 & 3;

	if (how == 2)
		scsi_bad_cdb(t, 1, 2);
	else if (range_begins(t, length_byte(cdb)) &&
		 out_is(t, how == 1 ? t->len_bytes : how == 3 ? t->lu->lba_bytes : 0))
		verify_co(t, how != 0, how == 3);
	t->in_bytes = 0;
	scsi_task_end_later(t);
}

/* Coroutine. Writes data-out as it is in a buffer of our own, in steps. */
static int write_co(struct scsi_task *t, unsigned flags)
{
	uint8_t *buf = buf_alloc(STEP_BYTES);
	uint64_t at;
	size_t n;
	int r = 0;

	for (at = 0; at < t->len_bytes && r == 0 && !t->aborted; at += n) {
		n = MIN(t->len_bytes - at, MIN(STEP_BYTES, t->lu->bdev->max_bytes));
		scsi_task_out(t, at, buf, n);
		r = bdev_check_range(t->lu->bdev, t->off_bytes + at, n);
		if (r == 0)
			r = bdev_co_write(t->lu->bdev, t->off_bytes + at, buf, n, flags);
	}
	buf_free(buf, STEP_BYTES);
	return r;
}

/* Durable before it is read again: that is what is verified. */
void scsi_run_write_and_verify(struct scsi_task *t)
{
	const uint8_t *cdb = scsi_task_cdb(t);
	unsigned how = cdb[1] >> 1 & 3;
	int r;

	if (how > 1) {
		scsi_bad_cdb(t, 1, 2);
	} else if (range_begins(t, length_byte(cdb))) {
		t->c->want_bytes = t->len_bytes;
		r = scsi_write_cut(t) ? write_co(t, IO_FUA) : 0;
		if (r < 0)
			scsi_fail_errno(t, r);
		else
			verify_co(t, how == 1, false);
	}
	scsi_task_end_later(t);
}

/* ---- COMPARE AND WRITE ---- */

void scsi_run_compare_and_write(struct scsi_task *t)
{
	const uint8_t *cdb = scsi_task_cdb(t);
	struct scsi_lu *lu = t->lu;
	struct bdev_compare c;
	uint8_t *buf;
	size_t n;
	int r;

	if (cdb[1] & 0xe0) {
		scsi_bad_cdb(t, 1, 7);
	} else if (cdb[13] > MIN(SCSI_CAW_BLOCKS_MAX, SCSI_CAW_BYTES_MAX >> lu->lba_shift)) {
		scsi_bad_cdb(t, 13, 8);
	} else if (MAX(t->c->out_bytes, t->c->out_expected) != (size_t)cdb[13] << (lu->lba_shift + 1)) {
		scsi_bad_cdb(t, 13, 8);
	} else if (scsi_range_parse(t) && t->len_bytes) {
		n = t->len_bytes;
		t->c->want_bytes = 2 * n;
		if (t->c->out_bytes != 2 * n) {
			scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_BAD_INFORMATION_UNIT);
			scsi_task_end_later(t);
			return;
		}
		buf = buf_alloc(2 * n);
		scsi_task_out(t, 0, buf, 2 * n);
		c = (struct bdev_compare){.off_bytes = t->off_bytes, .len_bytes = n, .expect = buf, .data = buf + n,
					  .flags = cdb[1] & 8 || lu->mode.write_through ? IO_FUA : 0};
		r = bdev_co_compare_write(lu->bdev, &c);
		if (r == -EILSEQ)
			scsi_fail_info(t, KEY_MISCOMPARE, ASC_MISCOMPARE, c.mismatch_bytes);
		else if (r < 0)
			scsi_fail_errno(t, r);
		buf_free(buf, 2 * n);
	}
	scsi_task_end_later(t);
}

/* ---- WRITE SAME ---- */

/* Coroutine. The block, over and over. */
static int same_co_write(struct scsi_task *t, const uint8_t *block)
{
	size_t step = MIN(STEP_BYTES, ALIGN_DOWN((size_t)t->lu->bdev->max_bytes, t->lu->lba_bytes)), i, n;
	uint8_t *buf = buf_alloc(step);
	uint64_t at;
	int r = 0;

	for (i = 0; i < step; i += t->lu->lba_bytes)
		memcpy(buf + i, block, t->lu->lba_bytes);
	for (at = 0; at < t->len_bytes && r == 0 && !t->aborted; at += n) {
		n = MIN(t->len_bytes - at, step);
		r = bdev_check_range(t->lu->bdev, t->off_bytes + at, n);
		if (r == 0)
			r = bdev_co_write(t->lu->bdev, t->off_bytes + at, buf, n, t->lu->mode.write_through ? IO_FUA : 0);
	}
	buf_free(buf, step);
	return r;
}

static bool is_zero(const uint8_t *p, size_t n)
{
	return !p[0] && !memcmp(p, p + 1, n - 1);
}

/* Zeros become a hole, whether it says UNMAP or not: they read the same. */
static int same_co(struct scsi_task *t, const uint8_t *block)
{
	if (block && !is_zero(block, t->lu->lba_bytes))
		return same_co_write(t, block);
	return scsi_co_zero(t->lu, t->off_bytes, t->len_bytes, t->lu->mode.write_through ? IO_FUA : 0);
}

void scsi_run_write_same(struct scsi_task *t)
{
	const uint8_t *cdb = scsi_task_cdb(t);
	bool no_data = cdb[0] == OP_WRITE_SAME_16 && cdb[1] & 1;
	uint32_t block_bytes = t->lu->lba_bytes;
	uint8_t *block = NULL;
	int r;

	t->c->want_bytes = no_data ? 0 : block_bytes;
	if (cdb[1] & 0xe0) {
		scsi_bad_cdb(t, 1, 7);
	} else if (cdb[1] & 0x10) { /* ANCHOR: nothing is anchored here */
		scsi_bad_cdb(t, 1, 4);
	} else if (cdb[1] & 6 || (cdb[0] == OP_WRITE_SAME_10 && cdb[1] & 1)) { /* PBDATA, LBDATA, obsolete */
		scsi_bad_cdb(t, 1, 2);
	} else if (!scsi_range_parse(t)) {
		;
	} else if (!t->len_bytes || t->blocks > SCSI_SAME_BLOCKS_MAX) {
		scsi_bad_cdb(t, length_byte(cdb), 8);
	} else if (!no_data && (t->c->out_bytes != block_bytes || t->c->out_expected > block_bytes)) {
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_BAD_INFORMATION_UNIT);
	} else {
		if (!no_data) {
			block = buf_alloc(block_bytes);
			scsi_task_out(t, 0, block, block_bytes);
		}
		r = same_co(t, block);
		if (r < 0)
			scsi_fail_errno(t, r);
		buf_free(block, block_bytes);
	}
	scsi_task_end_later(t);
}

/* ---- UNMAP ---- */

/* Coroutine. Descriptors have been checked. What is less than a subcluster reads zeros afterwards too. */
static int unmap_co(struct scsi_task *t, const uint8_t *d, size_t n)
{
	unsigned flags = t->lu->mode.write_through ? IO_FUA : 0;
	uint64_t off, len;
	int r = 0;

	for (; n && r == 0 && !t->aborted; n--, d += 16) {
		off = be_get64(d) << t->lu->lba_shift;
		len = (uint64_t)be_get32(d + 8) << t->lu->lba_shift;
		r = scsi_co_zero(t->lu, off, len, flags);
	}
	return r;
}

static bool unmap_check(struct scsi_task *t, const uint8_t *list, size_t n, size_t *n_descriptors)
{
	uint64_t sum = 0;
	size_t i, len;

	*n_descriptors = 0;
	if (n < 8) {
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
		return false;
	}
	len = MIN(be_get16(list + 2), n - 8);
	if (len / 16 > SCSI_UNMAP_DESCRIPTORS_MAX) {
		scsi_bad_list(t, 2, 8);
		return false;
	}
	for (i = 0; i < len / 16; i++) {
		const uint8_t *d = list + 8 + 16 * i;

		if (!scsi_range_check(t, be_get64(d), be_get32(d + 8)))
			return false;
		sum += t->len_bytes;
	}
	if (sum >> t->lu->lba_shift > SCSI_UNMAP_BLOCKS_MAX) {
		scsi_bad_list(t, 8, 8);
		return false;
	}
	*n_descriptors = i;
	return true;
}

void scsi_run_unmap(struct scsi_task *t)
{
	const uint8_t *cdb = scsi_task_cdb(t);
	size_t len = be_get16(cdb + 7), n;
	uint8_t *list;
	int r;

	t->c->want_bytes = len;
	if (cdb[1] & 1) { /* ANCHOR */
		scsi_bad_cdb(t, 1, 0);
		scsi_task_end_later(t);
		return;
	}
	if (!len) {
		scsi_task_end_later(t);
		return;
	}
	list = xmalloc(len);
	if (scsi_task_out(t, 0, list, len) < len) {
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
	} else if (unmap_check(t, list, len, &n)) {
		r = unmap_co(t, list + 8, n);
		if (r < 0)
			scsi_fail_errno(t, r);
	}
	xfree(list);
	scsi_task_end_later(t);
}
