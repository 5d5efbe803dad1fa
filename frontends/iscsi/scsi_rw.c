/*
 * scsi_rw.c: the medium, simply: READ, WRITE, SYNCHRONIZE CACHE, PRE-FETCH. One request to the bdev where that is enough, else pieces,
 * a few of them in flight. No coroutine.
 */
#include "frontends/iscsi/scsi_internal.h"

/* ---- ranges ---- */

bool scsi_range_check(struct scsi_task *t, uint64_t lba, uint64_t blocks)
{
	uint64_t end = t->lu->bdev->size_bytes >> t->lu->lba_shift;

	if (lba > end || blocks > end - lba) {
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_LBA_OUT_OF_RANGE);
		return false;
	}
	t->lba = lba;
	t->off_bytes = lba << t->lu->lba_shift;
	t->len_bytes = blocks << t->lu->lba_shift;
	t->blocks = (uint32_t)blocks;
	return true;
}

bool scsi_range_parse(struct scsi_task *t)
{
	const uint8_t *cdb = scsi_task_cdb(t);
	uint64_t lba, blocks;

	switch (cdb[0] >> 5) {
	case 0:
		lba = be_get24(cdb + 1) & 0x1fffff;
		blocks = cdb[4] ? cdb[4] : 256;
		break;
	case 5:
		lba = be_get32(cdb + 2);
		blocks = be_get32(cdb + 6);
		break;
	case 4:
		lba = be_get64(cdb + 2);
		blocks = cdb[0] == OP_COMPARE_AND_WRITE ? cdb[13] : be_get32(cdb + 10);
		break;
	default:
		lba = be_get32(cdb + 2);
		blocks = be_get16(cdb + 7);
		break;
	}
	return scsi_range_check(t, lba, blocks);
}

uint16_t scsi_write_protection(const struct scsi_lu *lu, const struct scsi_nexus *n)
{
	if (lu->read_only || lu->bdev->read_only || n->conf.read_only)
		return ASC_WRITE_PROTECTED;
	return lu->mode.swp ? ASC_SOFTWARE_WRITE_PROTECTED : 0;
}

/* A range to transfer: within the LU, not too much, no protection information. False: it has failed, or there is nothing to do. */
static bool transfer_begins(struct scsi_task *t)
{
	const uint8_t *cdb = scsi_task_cdb(t);

	if (cdb[0] >> 5 && cdb[1] & 0xe0) {
		scsi_bad_cdb(t, 1, 7);
	} else if (scsi_range_parse(t)) {
		if (t->len_bytes <= SCSI_TRANSFER_MAX) {
			if (t->len_bytes)
				return true;
		} else {
			scsi_bad_cdb(t, cdb[0] >> 5 == 4 ? 10 : cdb[0] >> 5 == 5 ? 6 : 7, 8);
		}
	}
	return false;
}

/* ---- one piece, or many ---- */

/* A disk that did not answer in time may still write to the buffer: the same again, with another. */
static bool read_again(struct scsi_task *t)
{
	if (likely(t->result != -ETIMEDOUT) || t->io_op != IO_READ || t->again)
		return false;
	t->again = true;
	t->result = 0;
	t->io_flags &= (uint16_t)~IO_MAY_GIVE_UP;
	buf_free(t->buf, t->buf_bytes);
	t->buf = buf_alloc(t->buf_bytes);
	t->next_bytes = 0;
	if (bdev_check_range(t->lu->bdev, t->off_bytes, t->len_bytes) < 0) {
		t->result = -ERANGE;
		return false;
	}
	scsi_io_start(t);
	return true;
}

static void io_finish(struct scsi_task *t)
{
	if (read_again(t))
		return;
	if (t->result < 0)
		scsi_fail_errno(t, t->result);
	else if (t->io_op == IO_READ)
		t->in_bytes = t->len_bytes;
	if (t->c)
		t->c->want_bytes = MAX(t->c->want_bytes, t->len_bytes); /* a write may have been cut */
	scsi_task_end(t);
}

static void single_done(struct io *io)
{
	struct scsi_task *t = io->owner;

	t->result = MIN(io->result, 0);
	io_finish(t);
}

/* Payload of n bytes from `skip` on; the vector belongs to the task. */
static void payload_set(struct scsi_task *t, struct io *io, struct iovec *v, uint64_t skip, uint64_t n)
{
	if (t->buf) {
		io->one = (struct iovec){t->buf + skip, n};
		io->iov = &io->one;
		io->iov_n = 1;
	} else if (t->io_op == IO_WRITE) {
		io->iov_n = iov_slice(t->c->out_iov, t->c->out_iov_n, skip, n, v, t->c->out_iov_n);
		io->iov = v;
	}
}

static void pieces_pump(struct scsi_task *t);

static void piece_done(struct io *io)
{
	struct scsi_task *t = io->owner;

	if (io->result < 0 && !t->result)
		t->result = io->result;
	t->pending--;
	io->owner = NULL;
	pieces_pump(t);
}

static void pieces_pump(struct scsi_task *t)
{
	uint64_t max = ALIGN_DOWN((uint64_t)t->lu->bdev->max_bytes, (uint64_t)t->lu->lba_bytes), n;
	unsigned i;

	if (t->pumping)
		return;
	t->pumping = true;
	for (i = 0; i < SCSI_PIECES && t->next_bytes < t->len_bytes && !t->result && !t->aborted; i++) {
		struct io *io = &t->pieces[i];

		if (io->owner)
			continue;
		n = MIN(max, t->len_bytes - t->next_bytes);
		if (bdev_check_range(t->lu->bdev, t->off_bytes + t->next_bytes, n) < 0) {
			t->result = -ERANGE; /* it has shrunk */
			break;
		}
		io_prep(io, t->io_op, t->off_bytes + t->next_bytes, n, NULL, t->io_flags);
		payload_set(t, io, t->iovs ? t->iovs + (size_t)i * t->c->out_iov_n : NULL, t->next_bytes, n);
		io->done = piece_done;
		io->owner = t;
		t->next_bytes += n;
		t->pending++;
		bdev_submit(t->lu->bdev, io);
	}
	t->pumping = false;
	if (!t->pending)
		io_finish(t);
}

void scsi_io_start(struct scsi_task *t)
{
	bool split = t->io_op != IO_FLUSH && t->len_bytes > t->lu->bdev->max_bytes;

	if (t->io_op == IO_WRITE && !t->buf && !t->iovs)
		t->iovs = xmalloc((split ? SCSI_PIECES : 1) * (size_t)t->c->out_iov_n * sizeof(*t->iovs));
	if (split) {
		if (!t->pieces)
			t->pieces = xcalloc(SCSI_PIECES, sizeof(*t->pieces));
		pieces_pump(t);
		return;
	}
	io_prep(&t->io, t->io_op, t->off_bytes, t->len_bytes, NULL, t->io_flags);
	payload_set(t, &t->io, t->iovs, 0, t->len_bytes);
	t->io.done = single_done;
	t->io.owner = t;
	bdev_submit(t->lu->bdev, &t->io);
}

/* ---- commands ---- */

void scsi_run_read(struct scsi_task *t)
{
	if (!transfer_begins(t)) {
		scsi_task_end_later(t);
		return;
	}
	t->io_op = IO_READ;
	t->io_flags = IO_MAY_GIVE_UP;
	t->buf = buf_alloc(t->len_bytes);
	t->buf_bytes = t->len_bytes;
	scsi_io_start(t);
}

/* Can the data-out go to a disk as it lies? */
static bool out_is_aligned(const struct scsi_task *t)
{
	uint64_t mask = t->lu->lba_bytes - 1;
	unsigned i;

	for (i = 0; i < t->c->out_iov_n; i++)
		if (((uintptr_t)t->c->out_iov[i].iov_base | t->c->out_iov[i].iov_len) & mask)
			return false;
	return true;
}

bool scsi_write_cut(struct scsi_task *t)
{
	if (t->c->out_bytes < t->len_bytes) {
		if (!IS_ALIGNED(t->c->out_bytes, t->lu->lba_bytes)) { /* a part of a block is none */
			scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_BAD_INFORMATION_UNIT);
			return false;
		}
		t->len_bytes = t->c->out_bytes;
	}
	t->blocks = (uint32_t)(t->len_bytes >> t->lu->lba_shift);
	return t->len_bytes;
}

void scsi_run_write(struct scsi_task *t)
{
	const uint8_t *cdb = scsi_task_cdb(t);

	if (!transfer_begins(t)) {
		scsi_task_end_later(t);
		return;
	}
	t->c->want_bytes = t->len_bytes;
	if (!scsi_write_cut(t)) {
		scsi_task_end_later(t);
		return;
	}
	t->io_op = IO_WRITE;
	t->io_flags = (cdb[0] >> 5 && cdb[1] & 8) || t->lu->mode.write_through ? IO_FUA : 0;
	if (unlikely(!out_is_aligned(t))) {
		t->buf = buf_alloc(t->len_bytes);
		t->buf_bytes = t->len_bytes;
		scsi_task_out(t, 0, t->buf, t->len_bytes);
	}
	scsi_io_start(t);
}

/* All of the cache, whatever the range: it is no more work. IMMED: the answer comes when it is done, which is allowed. */
void scsi_run_sync(struct scsi_task *t)
{
	if (!scsi_range_parse(t)) {
		scsi_task_end_later(t);
		return;
	}
	t->off_bytes = t->len_bytes = 0;
	t->io_op = IO_FLUSH;
	scsi_io_start(t);
}

/* Nothing is kept that reads could be answered from, so nothing is fetched: GOOD says that not all of it is in a cache. */
void scsi_run_pre_fetch(struct scsi_task *t)
{
	(void)scsi_range_parse(t);
	t->len_bytes = 0;
	scsi_task_end_later(t);
}

/* ---- for commands of more steps ---- */

int scsi_co_read(struct scsi_lu *lu, uint64_t off_bytes, uint8_t **buf, size_t buf_bytes, size_t len)
{
	bool again = false;
	struct io io;
	size_t at, n;
	int r;

	for (at = 0; at < len; at += n) {
		n = MIN(len - at, lu->bdev->max_bytes);
		if (bdev_check_range(lu->bdev, off_bytes + at, n) < 0)
			return -ERANGE; /* it has shrunk */
		io_prep(&io, IO_READ, off_bytes + at, n, *buf + at, again ? 0 : IO_MAY_GIVE_UP);
		r = bdev_co_submit(lu->bdev, &io);
		if (r == -ETIMEDOUT && !again) { /* the disk may still write to it */
			buf_free(*buf, buf_bytes);
			*buf = buf_alloc(buf_bytes);
			again = true;
			at = n = 0;
		} else if (r < 0) {
			return r;
		}
	}
	return 0;
}

int scsi_co_zero(struct scsi_lu *lu, uint64_t off_bytes, uint64_t len_bytes, unsigned flags)
{
	uint64_t max = ALIGN_DOWN((uint64_t)lu->bdev->max_bytes, MAX(lu->bdev->opt_bytes, lu->lba_bytes)), n;
	int r = 0;

	if (!max)
		max = lu->bdev->max_bytes;
	for (; len_bytes && r == 0; off_bytes += n, len_bytes -= n) {
		n = MIN(max - off_bytes % max, len_bytes);
		r = bdev_check_range(lu->bdev, off_bytes, n);
		if (r == 0)
			r = bdev_co_zero(lu->bdev, off_bytes, n, flags);
	}
	return r;
}
