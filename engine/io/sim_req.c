/*
 * What a request does to a simulated disk. See sim_disk.h.
 */
#include "engine/io/sim_disk.h"

#include <string.h>

#define POISON 0xdb	   /* in read buffers until they are filled */
#define ZERO_PAGES_MAX 1024 /* zeroing more than this looks only at pages that have something */

/* ---- payload ---- */

struct cursor {
	const struct iovec *iov;
	size_t at;
};

/* Copies the next len bytes of the list to (or from) p. */
static void cursor_copy(struct cursor *c, void *p, size_t len, bool to_iov)
{
	char *buf = p, *mem;
	size_t part;

	while (len) {
		while (c->at == c->iov->iov_len) {
			c->iov++;
			c->at = 0;
		}
		part = MIN(len, c->iov->iov_len - c->at);
		mem = (char *)c->iov->iov_base + c->at;
		memcpy(to_iov ? mem : buf, to_iov ? buf : mem, part);
		c->at += part;
		buf += part;
		len -= part;
	}
}

static void iov_poison(const struct io *io)
{
	unsigned i;

	for (i = 0; i < io->iov_n; i++)
		memset(io->iov[i].iov_base, POISON, io->iov[i].iov_len);
}

/* Granules of page idx inside [off, end). */
static unsigned range_mask(uint64_t idx, uint64_t off, uint64_t end)
{
	uint64_t start = idx * SIM_PAGE_BYTES, lo, hi;

	lo = MAX(off, start) - start;
	hi = MIN(end, start + SIM_PAGE_BYTES) - start;
	return (SIM_MASK_ALL << (lo / SIM_GRANULE_BYTES)) & (SIM_MASK_ALL >> (SIM_GRANULES - hi / SIM_GRANULE_BYTES));
}

/* ---- latent errors ---- */

bool sim_disk_is_bad(const struct sim_disk *d, uint64_t off_bytes, uint64_t len_bytes)
{
	size_t i;

	for (i = 0; i < d->n_bad; i++)
		if (off_bytes < d->bad[i].end_bytes && d->bad[i].off_bytes < off_bytes + len_bytes)
			return true;
	return false;
}

void sim_disk_bad_clear(struct sim_disk *d, uint64_t off_bytes, uint64_t len_bytes)
{
	uint64_t end = off_bytes + len_bytes;
	struct sim_bad b;
	size_t i, n = d->n_bad;

	for (i = 0; i < n; i++) {
		b = d->bad[i];
		if (off_bytes >= b.end_bytes || b.off_bytes >= end)
			continue;
		d->bad[i].end_bytes = MAX(MIN(b.end_bytes, off_bytes), b.off_bytes); /* the part before, maybe empty */
		if (b.end_bytes > end)
			sim_disk_bad_range(d->set, d->index, end, b.end_bytes - end);
	}
	for (i = n = 0; i < d->n_bad; i++)
		if (d->bad[i].off_bytes < d->bad[i].end_bytes)
			d->bad[n++] = d->bad[i];
	d->n_bad = n;
}

/* ---- writes ---- */

/* One page of a change enters the log of `to`, and its cache if it is applied. Takes over pg. */
static void put_page(struct sim_disk *to, uint64_t idx, struct sim_page *pg, unsigned mask, bool apply)
{
	if (apply && mask == SIM_MASK_ALL)
		sim_tree_set(&to->cache, idx, sim_page_get(pg));
	else if (apply)
		sim_tree_merge(&to->cache, idx, pg, mask);
	sim_log_add(&to->log, idx, pg, mask);
}

/* What is left of a failed write: nothing, all, or some granules. `how` is one draw per request. */
static unsigned failed_mask(struct sim_disk *to, unsigned how)
{
	return how == 0 ? 0 : how == 1 ? SIM_MASK_ALL : (unsigned)(rng_next(&to->set->rng) & SIM_MASK_ALL);
}

static void put_write(const struct sim_req *q, struct sim_disk *to, bool apply)
{
	struct cursor c = { .iov = q->io->iov };
	uint64_t off = q->off_bytes, end = off + q->io->len_bytes, idx;
	unsigned how = 0, mask, g;
	struct sim_page *pg;

	if (q->fate == SIM_FATE_ERROR)
		how = (unsigned)rng_below(&to->set->rng, 3);
	for (idx = off / SIM_PAGE_BYTES; idx * SIM_PAGE_BYTES < end; idx++) {
		mask = range_mask(idx, off, end);
		pg = sim_page_alloc(to->set->pool);
		if (mask == SIM_MASK_ALL) {
			cursor_copy(&c, pg->data, SIM_PAGE_BYTES, false);
		} else {
			memset(pg->data, 0, SIM_PAGE_BYTES);
			for (g = 0; g < SIM_GRANULES; g++)
				if (mask & (1u << g))
					cursor_copy(&c, pg->data + g * SIM_GRANULE_BYTES, SIM_GRANULE_BYTES, false);
		}
		if (q->fate == SIM_FATE_ERROR)
			mask &= failed_mask(to, how);
		put_page(to, idx, pg, mask, apply);
	}
}

/* A whole discard unit goes or stays by the seed, a part of one stays. */
static void zero_page(const struct sim_req *q, struct sim_disk *to, uint64_t idx, bool apply)
{
	unsigned mask = range_mask(idx, q->off_bytes, q->off_bytes + q->io->len_bytes);

	if (q->io->op == IO_DISCARD && (mask != SIM_MASK_ALL || rng_chance(&to->set->rng, 1, 2)))
		return;
	if (q->fate == SIM_FATE_ERROR)
		mask &= (unsigned)rng_next(&to->set->rng);
	put_page(to, idx, NULL, mask, apply);
}

static void put_zero(const struct sim_req *q, struct sim_disk *to, bool apply)
{
	uint64_t idx = q->off_bytes / SIM_PAGE_BYTES, end = DIV_UP(q->off_bytes + q->io->len_bytes, SIM_PAGE_BYTES), at;
	size_t i, n = to->log.n_e;

	if (end - idx <= ZERO_PAGES_MAX) {
		for (; idx < end; idx++)
			zero_page(q, to, idx, apply);
		return;
	}
	/* Older un-flushed data must not outlive the zeros: pages of the log count too. First, as the trees change below. */
	for (i = 0; i < n; i++) {
		at = to->log.e[i].idx;
		if (at >= idx && at < end && !sim_tree_get(&to->cache, at) && !sim_tree_get(&to->durable, at))
			zero_page(q, to, at, apply);
	}
	for (at = idx;; at++) {
		at = MIN(sim_tree_next(&to->cache, at), sim_tree_next(&to->durable, at));
		if (at >= end)
			break;
		zero_page(q, to, at, apply);
	}
}

/* Enters the change in the log of `to`; returns its id. */
static uint64_t put_change(const struct sim_req *q, struct sim_disk *to, bool apply)
{
	uint64_t id = sim_log_begin(&to->log, q->submit_seq, apply);

	if (q->io->op == IO_WRITE)
		put_write(q, to, apply);
	else
		put_zero(q, to, apply);
	return id;
}

/* ---- reads ---- */

static void page_flip(struct sim_pool *pool, struct sim_tree *t, uint64_t idx, unsigned bit)
{
	struct sim_page *pg = sim_page_copy(pool, sim_tree_get(t, idx));

	pg->data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
	sim_tree_set(t, idx, pg);
}

/* Flips one bit where the content of that granule comes from, and in the cache above it. */
static void read_rot(struct sim_disk *d, uint64_t off, uint64_t len)
{
	struct rng *rng = &d->set->rng;
	uint64_t byte = off + rng_below(rng, len), idx = byte / SIM_PAGE_BYTES;
	unsigned bit = (unsigned)(byte % SIM_PAGE_BYTES * 8 + rng_below(rng, 8));
	struct sim_log_ent *e = sim_log_newest(&d->log, idx, bit / 8 / SIM_GRANULE_BYTES);
	struct sim_page *pg;

	page_flip(d->set->pool, &d->cache, idx, bit);
	if (!e) {
		page_flip(d->set->pool, &d->durable, idx, bit);
		return;
	}
	pg = sim_page_copy(d->set->pool, e->page);
	pg->data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
	sim_page_put(d->set->pool, e->page);
	e->page = pg;
}

static void read_fill(struct sim_req *q)
{
	static const uint8_t zeros[SIM_PAGE_BYTES];
	struct sim_disk *d = q->disk;
	uint64_t off = q->off_bytes, end = off + q->io->len_bytes, idx;
	struct cursor c = { .iov = q->io->iov };
	struct sim_page *pg;
	size_t skip, len;

	if (sim_disk_is_bad(d, off, end - off)) {
		q->result = -EIO;
		return;
	}
	if (q->rot)
		read_rot(d, off, end - off);
	for (; off < end; off += len) {
		idx = off / SIM_PAGE_BYTES;
		skip = off % SIM_PAGE_BYTES;
		len = MIN(SIM_PAGE_BYTES - skip, end - off);
		pg = sim_tree_get(&d->cache, idx);
		cursor_copy(&c, (void *)(uintptr_t)((pg ? pg->data : zeros) + skip), len, true);
	}
}

/* ---- the life of a request ---- */

static bool hit(uint64_t *draw, uint32_t rate)
{
	bool yes = (*draw & 0xffff) < rate;

	*draw >>= 16;
	return yes;
}

static void misdirect(struct sim_req *q)
{
	struct sim_disk *d = q->disk;
	uint64_t places, at;

	if (d->size_bytes <= q->io->len_bytes)
		return;
	places = (d->size_bytes - q->io->len_bytes) / d->block_bytes + 1;
	at = rng_below(&d->set->rng, places - 1) * d->block_bytes;
	q->off_bytes = at >= q->off_bytes ? at + d->block_bytes : at;
}

static bool is_calm(const struct sim_req *q)
{
	const struct sim_faults *f = &q->disk->faults;

	if (!f->calm_end_bytes)
		return false;
	return q->io->op == IO_FLUSH || (q->io->off_bytes >= f->calm_from_bytes && q->io->off_bytes < f->calm_end_bytes);
}

/* Chooses what will go wrong. */
static void choose_fate(struct sim_req *q)
{
	const struct sim_faults *f = &q->disk->faults;
	unsigned op = q->io->op;
	uint64_t draw;

	if (!(f->read_error | f->write_error | f->flush_error | f->stall | f->lost_write | f->misdirected | f->bit_rot))
		return;
	draw = rng_next(&q->disk->set->rng);
	if (hit(&draw, f->stall) && !is_calm(q))
		q->stall_ns = f->stall_ns;
	if (hit(&draw, op == IO_READ ? f->read_error : op == IO_FLUSH ? f->flush_error : f->write_error)) {
		q->fate = SIM_FATE_ERROR;
		return;
	}
	if (op == IO_READ) {
		q->rot = hit(&draw, f->bit_rot);
		return;
	}
	if ((op == IO_WRITE || op == IO_ZERO) && hit(&draw, f->lost_write))
		q->fate = SIM_FATE_LOST;
	else if (op == IO_WRITE && hit(&draw, f->misdirected))
		misdirect(q);
}

void sim_req_submit(struct sim_req *q)
{
	struct sim_disk *d = q->disk;
	struct io *io = q->io;

	list_push_back(&d->inflight, &q->link);
	q->off_bytes = io->off_bytes;
	q->cover = d->seq;
	q->submit_seq = ++d->seq;
	d->n_ops[io->op]++;
	if (io->op == IO_WRITE)
		d->bytes_written += io->len_bytes;
	if (io->op != IO_READ)
		d->set->n_events++;
	else
		iov_poison(io);
	choose_fate(q);
}

/* Sets the result; false: the disk does nothing with it. A failed write may have written something. */
static bool req_reaches(const struct sim_req *q, int *result)
{
	const struct sim_disk *d = q->disk;
	uint64_t len = q->io->len_bytes;

	*result = 0;
	if (d->faults.gone) {
		*result = -ENODEV;
		return false;
	}
	if (q->io->op != IO_FLUSH && (len > d->size_bytes || q->off_bytes > d->size_bytes - len)) {
		*result = -EIO; /* the disk has shrunk */
		return false;
	}
	if (q->fate == SIM_FATE_ERROR)
		*result = -EIO;
	return q->fate == SIM_FATE_GOOD || (q->fate == SIM_FATE_ERROR && sim_op_changes(q->io->op));
}

void sim_req_apply(struct sim_req *q)
{
	struct sim_disk *d = q->disk;

	CHECK(!q->applied);
	q->applied = true;
	if (!req_reaches(q, &q->result))
		return;
	switch (q->io->op) {
	case IO_READ:
		read_fill(q);
		break;
	case IO_FLUSH:
		if (!d->faults.lying_flush)
			sim_log_commit_done(&d->log, &d->durable, q->cover);
		break;
	case IO_WRITE:
	case IO_ZERO:
		if (d->n_bad && q->fate == SIM_FATE_GOOD)
			sim_disk_bad_clear(d, q->off_bytes, q->io->len_bytes);
		q->log_id = put_change(q, d, true);
		break;
	case IO_DISCARD:
		q->log_id = put_change(q, d, true);
		break;
	}
}

int sim_req_finish(struct sim_req *q)
{
	struct sim_disk *d = q->disk;

	if (!q->applied)
		sim_req_apply(q);
	if (d->faults.gone)
		q->result = -ENODEV;
	list_del(&q->link);
	d->seq++;
	if (q->log_id)
		sim_log_done(&d->log, q->log_id, d->seq);
	if (q->log_id && q->result == 0 && (q->io->flags & IO_FUA) && !d->faults.lying_flush)
		sim_log_commit_one(&d->log, &d->durable, q->log_id);
	if (q->io->op != IO_READ)
		d->set->n_events++;
	return q->result;
}

void sim_req_capture(const struct sim_req *q, struct sim_disk *to)
{
	int result;

	if (!q->applied && sim_op_changes(q->io->op) && req_reaches(q, &result))
		put_change(q, to, false);
}

void sim_req_drop(struct sim_req *q)
{
	if (list_is_empty(&q->link))
		return; /* a power cut has been */
	sim_req_capture(q, q->disk);
	list_del(&q->link);
}

void sim_disk_settle(struct sim_disk *d)
{
	CHECK(d->n_writers == 0);
	if (d->log.n_w)
		sim_log_settle(&d->log, &d->cache, &d->set->rng, ++d->seq);
}
