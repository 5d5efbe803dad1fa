/*
 * sim_io.c: requests of the rig, compared with the model: see sim_rig.h.
 */
#include <inttypes.h>
#include <string.h>

#include "engine/base/units.h"
#include "engine/io/buf.h"
#include "tests/lib/sim_rig.h"

bool rig_result_is_fine(struct rig *g, const struct model_vol *v, int r, const char *what)
{
	if (r >= 0 || g->may_fail)
		return true;
	if (r == -ERR_POOL_FULL && g->may_be_full)
		return true;
	if ((r == -ERANGE || r == -ESHUTDOWN) && (v->new_size_bytes || v->state != MODEL_LIVE))
		return true;
	rig_fail(g, "volume %s: %s: %s (%d)", v->name, what, err_text(r), r);
	return false;
}

static int co_read(struct rig *g, struct model_vol *v, struct bdev *b, uint64_t off, uint64_t len)
{
	uint8_t *buf = buf_alloc(len);
	uint32_t since = model_read_begin(g->model);
	int r = bdev_co_read(b, off, buf, len);

	if (r == 0 && v->state != MODEL_GONE && model_read(g->model, v, since, off, len, buf))
		rig_fail(g, "volume %s: a read of %" PRIu64 "+%" PRIu64 " returned what it must not", v->name, off, len);
	g->n_reads_checked += len / MODEL_SECTOR;
	model_read_end(g->model, since);
	buf_free(buf, len);
	return r;
}

struct impatient {
	struct bdev *b;
	struct io io;
	struct timer timer;
};

static bool is_that(const struct io *io, void *that)
{
	return io == that;
}

static void impatient_fire(struct timer *t)
{
	struct impatient *p = container_of(t, struct impatient, timer);

	bdev_cancel(p->b, is_that, &p->io);
}

/* After a while it is taken back, if it waits. */
static int co_write_impatient(struct bdev *b, uint32_t op, uint64_t off, uint8_t *buf, uint64_t len, unsigned flags)
{
	struct impatient p = { .b = b, .timer = { .fire = impatient_fire } };
	int r;

	io_prep(&p.io, IO_WRITE, off, len, buf, flags);
	timer_arm(&p.timer, reactor_now_ns() + op / 8 % 64 * NS_PER_MS / 16);
	r = bdev_co_submit(b, &p.io);
	timer_cancel(&p.timer);
	return r;
}

/* One write of eight is a compare and write against what is there now; if somebody is faster, a plain one. Another is given up. */
static int co_write_somehow(struct rig *g, struct bdev *b, uint32_t op, uint64_t off, uint8_t *buf, uint64_t len, unsigned flags)
{
	struct bdev_compare c = { .off_bytes = off, .len_bytes = len, .data = buf, .flags = flags };
	uint8_t *now;
	int r;

	if (op % 8 == 3)
		return co_write_impatient(b, op, off, buf, len, flags);
	if (op % 8 != 5)
		return bdev_co_write(b, off, buf, len, flags);
	now = buf_alloc(len);
	c.expect = now;
	g->n_comparing++;
	r = bdev_co_read(b, off, now, len);
	if (r == 0)
		r = bdev_co_compare_write(b, &c);
	buf_free(now, len);
	if (r == -EILSEQ || r == -EOPNOTSUPP) {
		r = bdev_check_range(b, off, len); /* it may have shrunk */
		if (r == 0)
			r = bdev_co_write(b, off, buf, len, flags);
	}
	g->n_comparing--;
	return r;
}

static int co_write(struct rig *g, struct model_vol *v, struct bdev *b, uint64_t off, uint64_t len, unsigned flags)
{
	uint8_t *buf = buf_alloc(len);
	uint32_t op = model_begin(g->model, v, MODEL_WRITE, off, len);
	int r;

	model_stamp(v, op, off, len, buf);
	r = co_write_somehow(g, b, op, off, buf, len, flags);
	model_end(g->model, v, op, off, len, r == 0, flags & IO_FUA, false);
	buf_free(buf, len);
	return r == -ECANCELED ? 0 : r;
}

/* Two pools, whose subclusters need not be of one size: what is less than a whole one of the larger may be cleared or not. */
static int co_discard_edges(struct rig *g, struct model_vol *v, struct bdev *b, uint64_t off, uint64_t len, unsigned flags)
{
	uint64_t sub = MAX(g->cluster_bytes, g->q.cluster_bytes) / 16;
	uint64_t from = MIN(ALIGN_UP(off, sub), off + len), to = MAX(ALIGN_DOWN(off + len, sub), from);
	uint32_t op = 0, head = 0, tail = 0;
	bool fua = flags & IO_FUA;
	int r;

	if (from > off)
		head = model_begin(g->model, v, MODEL_ZERO, off, from - off);
	if (to > from)
		op = model_begin(g->model, v, MODEL_ZERO, from, to - from);
	if (off + len > to)
		tail = model_begin(g->model, v, MODEL_ZERO, to, off + len - to);
	r = bdev_co_discard(b, off, len, flags);
	if (head)
		model_end(g->model, v, head, off, from - off, r == 0, fua, true);
	if (op)
		model_end(g->model, v, op, from, to - from, r == 0, fua, false);
	if (tail)
		model_end(g->model, v, tail, to, off + len - to, r == 0, fua, true);
	return r;
}

/* What a discard of less than whole subclusters leaves as it is. */
static int co_clear(struct rig *g, struct model_vol *v, struct bdev *b, enum rig_op kind, uint64_t off, uint64_t len,
		    unsigned flags)
{
	uint64_t sub = g->cluster_bytes / 16, from = off, to = off + len, size = b->size_bytes;
	uint32_t op = 0, last = 0;
	bool fua = flags & IO_FUA;
	int r;

	if (kind == RIG_DISCARD && g->q.n_disks)
		return co_discard_edges(g, v, b, off, len, flags);
	if (kind == RIG_DISCARD) {
		from = ALIGN_UP(off, sub);
		to = MAX(ALIGN_DOWN(off + len, sub), from);
	}
	if (to > from)
		op = model_begin(g->model, v, MODEL_ZERO, from, to - from);
	if (kind == RIG_DISCARD && off + len == size && MAX(to, off) < size && from <= to)
		last = model_begin(g->model, v, MODEL_ZERO, MAX(to, off), size - MAX(to, off));
	r = kind == RIG_DISCARD ? bdev_co_discard(b, off, len, flags) : bdev_co_zero(b, off, len, flags);
	if (op)
		model_end(g->model, v, op, from, to - from, r == 0, fua, false);
	if (last)
		model_end(g->model, v, last, MAX(to, off), size - MAX(to, off), r == 0, fua, true);
	return r;
}

int rig_co_io(struct rig *g, struct model_vol *v, struct bdev *b, enum rig_op op, uint64_t off, uint64_t len, unsigned flags)
{
	static const char *const names[] = { "read", "write", "zero", "discard", "flush" };
	unsigned changes = v->n_changes;
	bool changing = v->new_size_bytes || v->state != MODEL_LIVE;
	uint32_t since;
	int r;

	g->n_ios++;
	rig_note(g, "vol %u %s %" PRIu64 "+%" PRIu64 " flags %x", v->index, names[op], off, len, flags);
	switch (op) {
	case RIG_READ:
		r = co_read(g, v, b, off, len);
		break;
	case RIG_WRITE:
		r = co_write(g, v, b, off, len, flags);
		break;
	case RIG_FLUSH:
		since = model_now(g->model);
		r = bdev_co_flush(b);
		if (r == 0)
			model_flushed(g->model, v, since);
		break;
	default:
		r = co_clear(g, v, b, op, off, len, flags);
	}
	rig_note(g, "vol %u %s %" PRIu64 "+%" PRIu64 ": %d", v->index, names[op], off, len, r);
	if (!(changing && (r == -ERANGE || r == -ESHUTDOWN)) && !(changes != v->n_changes && r == -ERANGE))
		rig_result_is_fine(g, v, r, names[op]);
	return r;
}

struct io_once {
	struct rig *g;
	struct model_vol *v;
	struct bdev *b;
	enum rig_op op;
	uint64_t off, len;
	unsigned flags;
	bool all; /* read the whole volume */
};

static int io_once_there(void *arg)
{
	struct io_once *o = arg;
	uint64_t off, n;
	int r = 0;

	if (!o->all && o->off >= o->b->size_bytes)
		return 0; /* it has shrunk meanwhile */
	if (!o->all)
		return rig_co_io(o->g, o->v, o->b, o->op, o->off, MIN(o->len, o->b->size_bytes - o->off), o->flags);
	for (off = 0; off < o->b->size_bytes && r == 0 && !o->g->failed; off += n) {
		n = MIN(o->b->size_bytes - off, (uint64_t)RIG_IO_MAX);
		r = co_read(o->g, o->v, o->b, off, n);
	}
	return r;
}

int rig_co_attach(struct rig *g, const struct model_vol *v, struct ashlar_attach **out)
{
	char name[RIG_EXPORT_NAME], now[RIG_EXPORT_NAME];
	struct err e = { 0 };
	unsigned k;
	int r;

	for (k = 0;; k++) {
		r = ashlar_co_attach(g->a, rig_export_name(g, v, name), NULL, NULL, out, &e);
		if (r != -ENOENT || g->may_fail || k == 10000 || (!v->new_name[0] && !strcmp(name, rig_export_name(g, v, now))))
			break;
		co_sleep_ns(100 * NS_PER_US); /* it is being renamed, or has been while we asked */
	}
	if (r < 0 && !g->may_fail)
		rig_fail(g, "attach %s: %s (%d)", name, e.text, r);
	return r;
}

static int co_attached(struct rig *g, struct model_vol *v, struct io_once *o)
{
	struct ashlar_attach *at;
	int r = rig_co_attach(g, v, &at);

	if (r < 0)
		return r;
	o->g = g;
	o->v = v;
	o->b = ashlar_attach_bdev(at);
	r = reactor_co_call(ashlar_attach_home(at), io_once_there, o);
	ashlar_co_detach(at);
	return r;
}

int rig_co_io_once(struct rig *g, struct model_vol *v, enum rig_op op, uint64_t off, uint64_t len, unsigned flags)
{
	struct io_once o = { .op = op, .off = off, .len = len, .flags = flags };

	return co_attached(g, v, &o);
}

int rig_co_read_all(struct rig *g, struct model_vol *v)
{
	struct io_once o = { .all = true };

	return co_attached(g, v, &o);
}

static void co_verify_one(struct rig *g, struct model_vol *v)
{
	char name[RIG_POINT_NAME];
	int r;

	if (v->state != MODEL_LIVE || g->failed)
		return;
	r = rig_co_read_all(g, v);
	if (r < 0 && !g->may_fail)
		rig_fail(g, "%s cannot be read: %s (%d)", rig_point_name(g, v, name), err_text(r), r);
}

void rig_co_verify(struct rig *g)
{
	unsigned i;

	for (i = 0; i < model_n_vols(g->model); i++)
		co_verify_one(g, model_vol(g->model, i));
	for (i = 0; i < model_n_snaps(g->model); i++)
		co_verify_one(g, model_snap(g->model, i));
	rig_note(g, "verified");
}
