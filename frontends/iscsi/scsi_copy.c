/*
 * scsi_copy.c: third-party copy: the copying, EXTENDED COPY (LID1), and its results.
 *
 * The copy manager is the LU that the command is sent to. It reaches LUs that the session has a nexus to, by their designator, and with
 * the rights that the session has there, looked at anew with every step. Whole clusters are shared where that can be; of the rest
 * holes stay holes.
 */
#include "frontends/iscsi/scsi_internal.h"

#define STEP_BYTES MIB
#define SHARE_BYTES (256 * MIB) /* between looks at who may */

/* ---- copying ---- */

/* A step on one of the LUs' reactors. */
struct step {
	struct scsi_lu *lu;
	uint64_t session, off_bytes, len_bytes;
	uint8_t *buf;
	bool hole; /* read: there is nothing but zeros; write: make it so */
};

static int step_read(void *arg)
{
	struct step *s = arg;
	struct bdev_extent ext[2];
	size_t n = ARRAY_LEN(ext);
	struct bdev *b;
	int r;

	scsi_lu_co_settle(s->lu);
	b = s->lu->bdev;
	if (!scsi_lu_session_may(s->lu, s->session, ACCESS_READ))
		return -EACCES;
	r = bdev_check_range(b, s->off_bytes, s->len_bytes);
	if (r < 0)
		return r;
	r = bdev_co_status(b, s->off_bytes, s->len_bytes, ext, &n);
	if (r < 0)
		return r;
	s->len_bytes = MIN(s->len_bytes, ext[0].len_bytes);
	s->hole = ext[0].flags & BDEV_ZERO;
	if (s->hole)
		return 0;
	s->len_bytes = MIN(s->len_bytes, MIN(STEP_BYTES, b->max_bytes));
	return bdev_co_read(s->lu->bdev, s->off_bytes, s->buf, s->len_bytes); /* another one, if the volume has moved */
}

static int step_check(void *arg)
{
	const struct step *s = arg;

	return bdev_check_range(s->lu->bdev, s->off_bytes, s->len_bytes);
}

/* Coroutine. Is the range there? */
int scsi_copy_co_check(struct scsi_copy_end end, uint64_t len_bytes)
{
	struct step s = {.lu = end.lu, .off_bytes = end.off_bytes, .len_bytes = len_bytes};

	return reactor_co_call(end.lu->home, step_check, &s);
}

static int step_write(void *arg)
{
	struct step *s = arg;
	unsigned flags;
	struct bdev *b;
	int r;

	scsi_lu_co_settle(s->lu);
	b = s->lu->bdev;
	flags = s->lu->mode.write_through ? IO_FUA : 0;
	if (!scsi_lu_session_may(s->lu, s->session, ACCESS_WRITE))
		return -EACCES;
	r = bdev_check_range(b, s->off_bytes, s->len_bytes);
	if (r < 0)
		return r;
	if (s->hole)
		return scsi_co_zero(s->lu, s->off_bytes, s->len_bytes, flags);
	return bdev_co_write(b, s->off_bytes, s->buf, s->len_bytes, flags);
}

/* Coroutine. By reading and writing. */
static int copy_co_plain(struct scsi_task *t, struct scsi_copy_end from, struct scsi_copy_end to, uint64_t len_bytes, uint64_t *moved)
{
	uint64_t session = t->nexus->conf.session;
	uint8_t *buf = xaligned(4096, STEP_BYTES); /* it is on two reactors in turn */
	struct step s;
	int r = 0;

	*moved = 0;
	while (r == 0 && *moved < len_bytes && !t->aborted) {
		s = (struct step){.lu = from.lu, .session = session, .off_bytes = from.off_bytes + *moved,
				  .len_bytes = len_bytes - *moved, .buf = buf, .hole = !from.lu};
		if (from.lu)
			r = reactor_co_call(from.lu->home, step_read, &s);
		if (r < 0)
			break;
		if (!s.hole)
			s.len_bytes = ALIGN_DOWN(MIN(s.len_bytes, to.lu->bdev->max_bytes), (uint64_t)to.lu->lba_bytes);
		if (!s.len_bytes || !IS_ALIGNED(s.len_bytes, (uint64_t)to.lu->lba_bytes)) {
			r = -EINVAL;
			break;
		}
		s.lu = to.lu;
		s.off_bytes = to.off_bytes + *moved;
		r = reactor_co_call(to.lu->home, step_write, &s);
		if (r == 0)
			*moved += s.len_bytes;
	}
	xfree(buf);
	return r;
}

/* A part of a copy that shares clusters, on the source's reactor. */
struct share {
	uint64_t session;
	struct scsi_copy_end from, to;
	uint64_t len_bytes, done;
};

static int share_may_write(void *arg)
{
	const struct share *s = arg;

	scsi_lu_co_settle(s->to.lu);
	return scsi_lu_session_may(s->to.lu, s->session, ACCESS_WRITE) ? 0 : -EACCES;
}

static int share_there(void *arg)
{
	struct share *s = arg;
	int r;

	scsi_lu_co_settle(s->from.lu);
	if (!scsi_lu_session_may(s->from.lu, s->session, ACCESS_READ))
		return -EACCES;
	r = reactor_co_call(s->to.lu->home, share_may_write, s);
	if (r == 0)
		r = ashlar_co_attach_copy(s->from.lu->at, s->from.off_bytes, s->to.lu->at, s->to.off_bytes, s->len_bytes, &s->done);
	return r;
}

static int share_flush(void *arg)
{
	const struct scsi_lu *lu = arg;

	return lu->mode.write_through ? bdev_co_flush(lu->bdev) : 0;
}

/* Coroutine. Whole clusters, without reading them. */
static int copy_co_share(struct scsi_task *t, struct scsi_copy_end from, struct scsi_copy_end to, uint64_t len_bytes, uint64_t *moved)
{
	struct share s;
	int r = 0;

	*moved = 0;
	while (r == 0 && *moved < len_bytes && !t->aborted) {
		s = (struct share){t->nexus->conf.session, {from.lu, from.off_bytes + *moved}, {to.lu, to.off_bytes + *moved},
				   MIN(len_bytes - *moved, SHARE_BYTES), 0};
		r = reactor_co_call(from.lu->home, share_there, &s);
		*moved += s.done;
	}
	return r == 0 ? reactor_co_call(to.lu->home, share_flush, to.lu) : r;
}

static struct scsi_copy_end copy_end_at(struct scsi_copy_end e, uint64_t bytes)
{
	return (struct scsi_copy_end){e.lu, e.off_bytes + bytes};
}

int scsi_co_copy(struct scsi_task *t, struct scsi_copy_end from, struct scsi_copy_end to, uint64_t len_bytes, uint64_t *moved)
{
	uint64_t cluster = to.lu->cluster_bytes, head = (cluster - to.off_bytes % cluster) % cluster, n;
	int r = -EOPNOTSUPP;

	*moved = 0;
	if (from.lu && from.lu->at && to.lu->at && from.lu->cluster_bytes == cluster && len_bytes >= head + cluster &&
	    from.off_bytes % cluster == to.off_bytes % cluster) {
		r = copy_co_plain(t, from, to, head, moved);
		if (r < 0 || t->aborted)
			return r;
		r = copy_co_share(t, copy_end_at(from, head), copy_end_at(to, head), ALIGN_DOWN(len_bytes - head, cluster), &n);
		*moved += n;
	}
	if ((r < 0 && r != -EOPNOTSUPP) || *moved == len_bytes || t->aborted)
		return r == -EOPNOTSUPP ? 0 : r;
	r = copy_co_plain(t, copy_end_at(from, from.lu ? *moved : 0), copy_end_at(to, *moved), len_bytes - *moved, &n);
	*moved += n;
	return r;
}

/* ---- results ---- */

static void result_free(struct scsi_copy_result *r)
{
	list_del(&r->link);
	xfree(r->token);
	xfree(r);
}

void scsi_copies_free(struct scsi_lu *lu)
{
	while (!list_is_empty(&lu->copies))
		result_free(list_first(&lu->copies, struct scsi_copy_result, link));
}

struct scsi_copy_result *scsi_copy_result_find(const struct scsi_task *t, uint32_t list_id)
{
	struct scsi_copy_result *r;

	list_for_each (r, &t->lu->copies, link)
		if (r->session == t->nexus->conf.session && r->list_id == list_id)
			return r;
	return NULL;
}

struct scsi_copy_result *scsi_copy_result_begin(struct scsi_task *t, uint32_t list_id)
{
	struct scsi_copy_result *r = scsi_copy_result_find(t, list_id), *old;
	unsigned n = 0;

	if (r && !r->status)
		return NULL;
	if (r)
		result_free(r);
	list_for_each (old, &t->lu->copies, link)
		n++;
	if (n >= SCSI_COPY_LISTS_MAX) {
		list_for_each (old, &t->lu->copies, link) {
			if (!old->status)
				continue;
			result_free(old);
			break;
		}
	}
	r = xcalloc(1, sizeof(*r));
	r->session = t->nexus->conf.session;
	r->list_id = list_id;
	r->service_action = scsi_task_cdb(t)[1] & 0x1f;
	list_push_back(&t->lu->copies, &r->link);
	return r;
}

void scsi_copy_result_end(struct scsi_task *t, struct scsi_copy_result *r)
{
	r->status = t->status == SCSI_GOOD ? 1 : 2;
	if (t->status == SCSI_CHECK_CONDITION)
		r->sense_len = scsi_sense_make(t, t->lu->mode.d_sense, r->sense);
}

void scsi_run_copy_status(struct scsi_task *t)
{
	const uint8_t *cdb = scsi_task_cdb(t);
	const struct scsi_copy_result *r = scsi_copy_result_find(t, cdb[2]);
	size_t allocation = be_get32(cdb + 10);
	uint8_t *p;

	if (!r || r->service_action != SA_EXTENDED_COPY_LID1) {
		scsi_bad_cdb(t, 2, 8);
		scsi_task_end_later(t);
		return;
	}
	p = scsi_task_in(t, 64 + SCSI_SENSE_MAX);
	if ((cdb[1] & 0x1f) == SA_COPY_STATUS_LID1) {
		be_put32(p, 8);
		p[4] = (uint8_t)(0x80 | r->status);
		be_put16(p + 5, r->segments);
		be_put32(p + 8, (uint32_t)MIN(r->moved, UINT32_MAX));
		scsi_task_reply(t, 12, allocation);
		return;
	}
	if (r->status != 2) {
		scsi_task_reply(t, 4, allocation);
		return;
	}
	be_put32(p, 56 + r->sense_len);
	p[56] = SCSI_CHECK_CONDITION;
	be_put16(p + 58, r->sense_len);
	memcpy(p + 60, r->sense, r->sense_len);
	scsi_task_reply(t, 60u + r->sense_len, allocation);
}

void scsi_run_copy_parameters(struct scsi_task *t)
{
	uint8_t *p = scsi_task_in(t, 47);

	be_put32(p, 47 - 4);
	p[4] = 1; /* SNLID: lists need no identifier */
	be_put16(p + 8, SCSI_COPY_TARGETS_MAX);
	be_put16(p + 10, SCSI_COPY_SEGMENTS_MAX);
	be_put32(p + 12, SCSI_COPY_LIST_MAX);
	be_put32(p + 16, (uint32_t)SCSI_TOKEN_BYTES_MAX);
	be_put16(p + 34, SCSI_CO_MAX);
	p[36] = SCSI_CO_MAX;
	p[37] = 9; /* granularity: 512 bytes */
	p[43] = 3;
	p[44] = 0x02;
	p[45] = 0x0a;
	p[46] = 0xe4;
	scsi_task_reply(t, 47, be_get32(scsi_task_cdb(t) + 10));
}

/* ---- EXTENDED COPY ---- */

struct xcopy {
	struct scsi_task *t;
	const uint8_t *list;
	size_t n_targets, n_segments;
	const uint8_t *segments;
	size_t segment_bytes;
	struct scsi_lu *lu[SCSI_COPY_TARGETS_MAX]; /* NULL: not reachable */
	struct scsi_copy_result *result;
};

/* Bytes of a segment descriptor, or 0 after the failure has been set. */
static size_t segment_len(struct scsi_task *t, const uint8_t *p, size_t room)
{
	size_t n = room < 4 ? 0 : 4u + be_get16(p + 2);

	if (room >= 1 && p[0] != 0x02 && p[0] != 0x0a) {
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_BAD_SEGMENT_TYPE);
		return 0;
	}
	if (!n || n > room || n != (p[0] == 0x02 ? 28 : 32)) {
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
		return 0;
	}
	return n;
}

/* The list's shape. False: the failure has been set. */
static bool list_check(struct xcopy *x, size_t len)
{
	struct scsi_task *t = x->t;
	size_t targets, segments, at, n, i;

	if (len < 16) {
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
		return false;
	}
	targets = be_get16(x->list + 2);
	segments = be_get32(x->list + 8);
	if (targets + segments > SCSI_COPY_LIST_MAX || segments > SCSI_COPY_LIST_MAX || targets % 32 ||
	    16 + targets + segments + (uint64_t)be_get32(x->list + 12) != len) {
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
		return false;
	}
	if (be_get32(x->list + 12)) { /* inline data */
		scsi_bad_list(t, 12, 8);
		return false;
	}
	x->n_targets = targets / 32;
	if (x->n_targets > SCSI_COPY_TARGETS_MAX) {
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_TOO_MANY_TARGETS);
		return false;
	}
	for (i = 0; i < x->n_targets; i++) {
		if (x->list[16 + 32 * i] != 0xe4) {
			scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_BAD_TARGET_TYPE);
			return false;
		}
	}
	x->segments = x->list + 16 + targets;
	x->segment_bytes = segments;
	for (at = 0; at < segments; at += n, x->n_segments++) {
		n = segment_len(t, x->segments + at, segments - at);
		if (!n)
			return false;
	}
	if (x->n_segments > SCSI_COPY_SEGMENTS_MAX) {
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_TOO_MANY_SEGMENTS);
		return false;
	}
	return true;
}

/* Coroutine. */
static void targets_co_find(struct xcopy *x)
{
	size_t i;

	for (i = 0; i < x->n_targets; i++) {
		const uint8_t *d = x->list + 16 + 32 * i;

		/* binary, of the logical unit, NAA, 8 bytes */
		if ((d[4] & 15) != 1 || (d[5] & 0x3f) != 3 || d[7] != 8 || (d[1] & 0x1f) != 0 ||
		    scsi_lu_co_find(x->t->nexus, d + 8, &x->lu[i]) < 0)
			x->lu[i] = NULL;
	}
}

/* Coroutine. One segment; false: the failure has been set. */
static bool segment_co_copy(struct xcopy *x, const uint8_t *p)
{
	unsigned from = be_get16(p + 4), to = be_get16(p + 6);
	struct scsi_lu *src = from < x->n_targets ? x->lu[from] : NULL, *dst = to < x->n_targets ? x->lu[to] : NULL;
	uint64_t src_lba = be_get64(p + 12), dst_lba = be_get64(p + 20), len, moved;
	struct scsi_copy_end src_end, dst_end;
	int r;

	if (!src || !dst) {
		scsi_fail(x->t, KEY_COPY_ABORTED, ASC_COPY_TARGET_NOT_REACHABLE);
		return false;
	}
	len = be_get32(p + 8);
	if (p[0] == 0x02) /* in blocks of the source, or, if DC is set, of the destination */
		len = (uint64_t)be_get16(p + 10) << (p[1] & 2 ? dst->lba_shift : src->lba_shift);
	if (src_lba > UINT64_MAX >> 17 || dst_lba > UINT64_MAX >> 17) {
		scsi_fail(x->t, KEY_COPY_ABORTED, ASC_NONE);
		return false;
	}
	src_end = (struct scsi_copy_end){src, (src_lba << src->lba_shift) + (p[0] == 0x0a ? be_get16(p + 28) : 0)};
	dst_end = (struct scsi_copy_end){dst, (dst_lba << dst->lba_shift) + (p[0] == 0x0a ? be_get16(p + 30) : 0)};
	if (!len)
		return true;
	if (scsi_copy_co_check(src_end, len) < 0 || scsi_copy_co_check(dst_end, len) < 0) {
		scsi_fail(x->t, KEY_COPY_ABORTED, ASC_NONE);
		return false;
	}
	r = scsi_co_copy(x->t, src_end, dst_end, len, &moved);
	if (x->result)
		x->result->moved += moved;
	if (r == 0)
		return true;
	if (err_to_errno(r) == -ENOSPC)
		scsi_fail_errno(x->t, r);
	else
		scsi_fail(x->t, KEY_COPY_ABORTED, r == -EACCES ? ASC_COPY_TARGET_NOT_REACHABLE : ASC_NONE);
	return false;
}

static void xcopy_co_run(struct xcopy *x)
{
	unsigned usage = x->list[1] >> 3 & 3;
	size_t at, i;

	if (usage != 3) {
		x->result = scsi_copy_result_begin(x->t, x->list[0]);
		if (!x->result) {
			scsi_fail(x->t, KEY_ILLEGAL_REQUEST, ASC_OPERATION_IN_PROGRESS);
			return;
		}
	}
	targets_co_find(x);
	for (at = 0; at < x->segment_bytes && !x->t->aborted; at += 4u + be_get16(x->segments + at + 2)) {
		if (!segment_co_copy(x, x->segments + at))
			break;
		if (x->result)
			x->result->segments++;
	}
	for (i = 0; i < x->n_targets; i++)
		if (x->lu[i])
			scsi_lu_co_put(x->lu[i]);
	if (x->result)
		scsi_copy_result_end(x->t, x->result);
}

void scsi_run_extended_copy(struct scsi_task *t)
{
	size_t len = be_get32(scsi_task_cdb(t) + 10);
	struct xcopy x = {.t = t};
	uint8_t *list;

	t->c->want_bytes = len;
	if (!len) {
		scsi_task_end_later(t);
		return;
	}
	if (len > SCSI_PARAM_MAX) {
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
		scsi_task_end_later(t);
		return;
	}
	list = xcalloc(1, len);
	x.list = list;
	if (scsi_task_out(t, 0, list, len) < len)
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
	else if (list_check(&x, len))
		xcopy_co_run(&x);
	xfree(list);
	scsi_task_end_later(t);
}
