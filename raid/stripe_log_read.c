/*
 * stripe_log_read.c: the log read back.
 *
 * 1. Every block of every copy is looked at, in order. What begins with the magic and is a whole header is a *found* batch; the
 *    blocks behind it are summed up as they come by, and tell whether it is whole on this copy. A header in the middle
 *    of a batch, or a block that cannot be read, says that it is not.
 * 2. The found header with the highest number, whole batch or not, is the newest. Only one batch is in flight at a time, and it
 *    names the last one that had succeeded before (`prev`). So if it is not whole on any copy it was torn, and the one
 *    it names is what counts; that one must be whole, or the log is damaged.
 * 3. From there along `prev`, back to the batch that it calls the oldest: each must be whole on some copy, and end where the next
 *    begins. Batches of writes that failed are not on this way. Copies that missed writes show older laps: lower numbers.
 * 4. Cancels are gathered. Batches that some copy does not have are written again, and the newest always: it may never have been
 *    acknowledged, be there on one disk alone, or (if the process ended and the power did not) in caches alone. Were it to
 *    vanish in a second crash, stripes that its replay had written in part would have nothing to set them right.
 * 5. The batches are read again, oldest first, and their entries given out.
 *
 * Memory: a found batch takes a struct of some hundred bytes for at least one block of the ring, a cancel one for 32 bytes.
 */
#include <string.h>

#include "engine/base/crc32c.h"
#include "engine/io/buf.h"
#include "raid/stripe_log_impl.h"

#define BLOCK ((uint64_t)STRIPE_LOG_BLOCK)
#define PIECE_BYTES ((uint64_t)(256 * 1024))

struct found {
	struct hash_node node; /* by number */
	struct stripe_log_head h;
	uint64_t pos;
	uint32_t whole; /* copies, by bit */
	uint32_t given; /* copies that it was written to since */
};

struct cancel {
	struct hash_node node; /* by stripe */
	uint64_t group, stripe, batch;
	uint32_t entry;
};

/* How far one copy has been looked at. */
struct copy {
	bool there;  /* to be repaired, whether it reads or not */
	bool silent; /* has not answered: is asked no more */
	uint8_t *buf;
	struct found *f; /* whose blocks are coming by, NULL: nobody's */
	uint64_t left;
	uint32_t crc;
};

struct reader {
	const struct stripe_log_conf *c;
	struct copy copies[STRIPE_LOG_COPIES_MAX];
	unsigned n_copies;
	uint64_t n_readable; /* blocks, of all copies */
	struct hash found, cancels;
	struct found *newest; /* highest number */
	struct found **chain; /* newest first */
	size_t n_chain, cap_chain;
	uint8_t *buf; /* STRIPE_LOG_BATCH_MAX */
	struct err *err;
};

/* ---- looking at everything ---- */

static struct found *found_get(struct reader *rd, const struct stripe_log_head *h, uint64_t pos)
{
	struct hash_node *n = hash_find(&rd->found, h->batch);
	struct found *f;

	for (; n; n = hash_next(n)) {
		f = container_of(n, struct found, node);
		if (f->pos == pos && f->h.crc == h->crc)
			return f;
	}
	f = xcalloc(1, sizeof(*f));
	f->h = *h;
	f->pos = pos;
	hash_add(&rd->found, &f->node, h->batch);
	if (!rd->newest || h->batch > rd->newest->h.batch)
		rd->newest = f;
	return f;
}

/* The next block of copy i; NULL: it cannot be read. again: it has been seen, only the end of a batch is looked for. */
static void block_look(struct reader *rd, unsigned i, uint64_t pos, const uint8_t *block, bool again)
{
	const struct stripe_log_conf *c = rd->c;
	struct copy *cp = &rd->copies[i];
	struct stripe_log_head h;

	rd->n_readable += block && !again;
	if (block && stripe_log_head_check(block, BLOCK, &c->pool, &h) == 0) {
		cp->f = NULL;
		if (again || h.epoch != c->epoch || h.slice != c->slice || h.len_bytes > c->len_bytes)
			return;
		cp->f = found_get(rd, &h, pos);
		cp->left = h.len_bytes - BLOCK;
		cp->crc = 0;
	} else if (cp->f && block) {
		cp->crc = crc32c(cp->crc, block, BLOCK);
		cp->left -= BLOCK;
	} else {
		cp->f = NULL;
	}
	if (cp->f && !cp->left) {
		if (cp->crc == cp->f->h.payload_crc)
			cp->f->whole |= 1u << i;
		cp->f = NULL;
	}
}

/* Coroutine. A piece that could not be read as a whole: what can be of it. */
static void piece_co_look_at_blocks(struct reader *rd, unsigned i, uint64_t pos, uint64_t len, bool again)
{
	uint8_t *block = rd->copies[i].buf;
	int r;

	for (uint64_t at = 0; at < len; at += BLOCK) {
		r = bdev_co_read_copy(rd->c->dev, rd->c->off_bytes + pos + at, block, BLOCK, i + 1);
		block_look(rd, i, pos + at, r < 0 ? NULL : block, again);
	}
}

/* Coroutine. The piece on every copy that is there, at once. */
static void piece_co_look(struct reader *rd, struct io *io, uint64_t pos, uint64_t len, bool again)
{
	struct co_join j;

	co_join_init(&j);
	for (unsigned i = 0; i < rd->n_copies; i++) {
		io_prep(&io[i], IO_READ, rd->c->off_bytes + pos, len, rd->copies[i].buf, 0);
		io[i].copy = (uint8_t)(i + 1);
		io[i].result = -ETIMEDOUT;
		if (rd->copies[i].there && !rd->copies[i].silent)
			bdev_submit_join(rd->c->dev, &io[i], &j);
	}
	(void)co_join_wait(&j); /* each has its own result */
	for (unsigned i = 0; i < rd->n_copies; i++) {
		struct copy *cp = &rd->copies[i];

		if (io[i].result == -ENODATA || io[i].result == -ETIMEDOUT) {
			cp->there = cp->there && io[i].result != -ENODATA;
			cp->silent = true;
			cp->f = NULL;
			continue;
		}
		if (io[i].result < 0) {
			piece_co_look_at_blocks(rd, i, pos, len, again);
			continue;
		}
		for (uint64_t at = 0; at < len; at += BLOCK)
			block_look(rd, i, pos + at, cp->buf + at, again);
	}
}

/* Does some copy have a batch that goes round at the end of the ring? */
static bool some_go_on(const struct reader *rd)
{
	for (unsigned i = 0; i < rd->n_copies; i++)
		if (rd->copies[i].f)
			return true;
	return false;
}

static int ring_co_look(struct reader *rd)
{
	uint64_t piece = ALIGN_DOWN(MIN(PIECE_BYTES, (uint64_t)rd->c->dev->max_bytes), BLOCK), len = rd->c->len_bytes, pos;
	struct io *io = xmalloc(STRIPE_LOG_COPIES_MAX * sizeof(*io));

	CHECK(piece);
	for (unsigned i = 0; i < rd->n_copies; i++) {
		rd->copies[i].there = true;
		rd->copies[i].buf = buf_alloc(piece);
	}
	for (pos = 0; pos < len; pos += piece)
		piece_co_look(rd, io, pos, MIN(piece, len - pos), false);
	for (pos = 0; pos < len && some_go_on(rd); pos += piece)
		piece_co_look(rd, io, pos, MIN(piece, len - pos), true);
	for (unsigned i = 0; i < rd->n_copies; i++)
		buf_free(rd->copies[i].buf, piece);
	xfree(io);
	if (!rd->n_readable)
		return err_set(rd->err, -EIO, "stripe log %u: no block of it can be read on any disk", rd->c->slice);
	return 0;
}

/* ---- the chain ---- */

static int damaged(struct reader *rd, uint64_t batch)
{
	return err_set(rd->err, -ERR_CSUM, "stripe log %u: batch %llu is damaged on every disk that has it, and later ones are "
		       "there: opening would lose acknowledged writes", rd->c->slice, (unsigned long long)batch);
}

static int impossible(struct reader *rd, uint64_t batch)
{
	return err_set(rd->err, -ERR_FORMAT, "stripe log %u: batch %llu is whole, but what it says cannot be", rd->c->slice,
		       (unsigned long long)batch);
}

/* The batch with this number and header, whole somewhere; NULL: none. */
static struct found *found_whole(const struct reader *rd, uint64_t number, uint32_t crc)
{
	struct hash_node *n = hash_find(&rd->found, number);

	for (; n; n = hash_next(n)) {
		struct found *f = container_of(n, struct found, node);

		if (f->whole && f->h.crc == crc)
			return f;
	}
	return NULL;
}

/* A whole one with the highest number, or the one it came after. *out NULL: the log is empty. */
static int newest_find(struct reader *rd, struct found **out)
{
	const struct stripe_log_head *h = &rd->newest->h;
	struct hash_node *n = hash_find(&rd->found, h->batch);

	for (; n; n = hash_next(n)) {
		*out = container_of(n, struct found, node);
		if ((*out)->whole)
			return 0;
	}
	*out = h->prev ? found_whole(rd, h->prev, h->prev_crc) : NULL;
	return h->prev && !*out ? damaged(rd, h->prev) : 0;
}

static void chain_add(struct reader *rd, struct found *f)
{
	if (rd->n_chain == rd->cap_chain) {
		rd->cap_chain = rd->cap_chain ? rd->cap_chain * 2 : 64;
		rd->chain = xrealloc(rd->chain, rd->cap_chain * sizeof(struct found *));
	}
	rd->chain[rd->n_chain++] = f;
}

static int chain_find(struct reader *rd)
{
	struct found *f, *next;
	uint64_t oldest, total;
	int r = newest_find(rd, &f);

	if (r < 0 || !f)
		return r;
	chain_add(rd, f);
	oldest = f->h.oldest;
	for (total = f->h.len_bytes; f->h.batch > oldest; total += f->h.len_bytes) {
		next = f;
		f = found_whole(rd, next->h.prev, next->h.prev_crc);
		if (!f)
			return damaged(rd, next->h.prev);
		if (f->h.batch < oldest || total + f->h.len_bytes > rd->c->len_bytes ||
		    (f->pos + f->h.len_bytes) % rd->c->len_bytes != next->pos)
			return impossible(rd, next->h.batch);
		chain_add(rd, f);
	}
	return f->pos == rd->chain[0]->h.oldest_pos ? 0 : impossible(rd, rd->chain[0]->h.batch);
}

/* Coroutine. The batch, as it is on disk, from one of these copies. */
static bool batch_co_read_from(struct reader *rd, const struct found *f, uint32_t copies)
{
	struct stripe_log_head h;
	int r;

	for (unsigned i = 0; i < rd->n_copies; i++) {
		if (!(copies & (1u << i)))
			continue;
		r = stripe_log_ring_co_io(rd->c, IO_READ, f->pos, rd->buf, f->h.len_bytes, 0, i + 1);
		if (r == 0 && stripe_log_head_check(rd->buf, BLOCK, &rd->c->pool, &h) == 0 && h.crc == f->h.crc &&
		    crc32c(0, rd->buf + BLOCK, h.len_bytes - BLOCK) == h.payload_crc)
			return true;
	}
	return false;
}

/* Coroutine. From those that had it when we came; from those that we have given it, if the others are gone by now. */
static int batch_co_read(struct reader *rd, const struct found *f)
{
	if (batch_co_read_from(rd, f, f->whole) || batch_co_read_from(rd, f, f->given & ~f->whole))
		return 0;
	return damaged(rd, f->h.batch);
}

/* Coroutine. Every copy that is there has every batch of the chain durably, after it. */
static int chain_co_repair(struct reader *rd)
{
	struct found *f;
	uint32_t there = 0;
	int r;

	for (unsigned i = 0; i < rd->n_copies; i++)
		there |= rd->copies[i].there ? 1u << i : 0;
	for (size_t k = rd->n_chain; k-- > 0;) {
		f = rd->chain[k];
		if (k && (f->whole & there) == there)
			continue;
		r = batch_co_read(rd, f);
		if (r < 0)
			return r;
		r = stripe_log_ring_co_io(rd->c, IO_WRITE, f->pos, rd->buf, f->h.len_bytes, IO_FUA, 0);
		if (r < 0)
			return err_set(rd->err, r, "stripe log %u: batch %llu cannot be written to every disk: %s", rd->c->slice,
				       (unsigned long long)f->h.batch, err_text(r));
		f->given |= there;
	}
	return 0;
}

/* ---- entries ---- */

static struct cancel *cancel_find(const struct reader *rd, uint64_t group, uint64_t stripe)
{
	struct hash_node *n = hash_find(&rd->cancels, stripe_log_key(group, stripe));

	for (; n; n = hash_next(n)) {
		struct cancel *x = container_of(n, struct cancel, node);

		if (x->group == group && x->stripe == stripe)
			return x;
	}
	return NULL;
}

/* The newest cancel of each stripe: batches come newest first. */
static void cancels_note(struct reader *rd, const struct found *f)
{
	struct stripe_log_entry e;
	struct cancel *x;

	for (uint32_t i = f->h.n_entries; i-- > 0;) {
		stripe_log_entry_get(rd->buf, i, &e);
		if (e.cols || cancel_find(rd, e.group, e.stripe))
			continue;
		x = xcalloc(1, sizeof(*x));
		*x = (struct cancel){ .group = e.group, .stripe = e.stripe, .batch = f->h.batch, .entry = i };
		hash_add(&rd->cancels, &x->node, stripe_log_key(e.group, e.stripe));
	}
}

static int cancels_co_find(struct reader *rd)
{
	int r;

	for (size_t k = 0; k < rd->n_chain; k++) {
		const struct found *f = rd->chain[k];

		if (!f->h.n_cancels)
			continue;
		r = batch_co_read(rd, f);
		if (r < 0)
			return r;
		if (stripe_log_batch_check(rd->buf, &f->h) < 0)
			return impossible(rd, f->h.batch);
		cancels_note(rd, f);
	}
	return 0;
}

static bool is_cancelled(const struct reader *rd, const struct stripe_log_entry *e, uint64_t batch, uint32_t entry)
{
	const struct cancel *x = cancel_find(rd, e->group, e->stripe);

	return x && (x->batch > batch || (x->batch == batch && x->entry > entry));
}

/* Coroutine. All that one batch has to say. */
static int batch_co_give(struct reader *rd, const struct found *f,
			 int (*each)(void *arg, const struct stripe_log_entry *e, const void *payload), void *arg, uint64_t *n)
{
	uint64_t at = f->h.head_bytes;
	struct stripe_log_entry e;
	int r = batch_co_read(rd, f);

	if (r < 0)
		return r;
	if (stripe_log_batch_check(rd->buf, &f->h) < 0)
		return impossible(rd, f->h.batch);
	for (uint32_t i = 0; i < f->h.n_entries; i++) {
		stripe_log_entry_get(rd->buf, i, &e);
		if (e.cols && !is_cancelled(rd, &e, f->h.batch, i)) {
			r = each(arg, &e, rd->buf + at);
			if (r < 0)
				return err_default(rd->err, r, "an entry of the stripe log cannot be replayed");
			++*n;
		}
		at += stripe_log_entry_bytes(&e);
	}
	return 0;
}

/* ---- all of it ---- */

static bool found_free(struct hash_node *n, void *arg)
{
	hash_del(arg, n);
	xfree(container_of(n, struct found, node));
	return true;
}

static bool cancel_free(struct hash_node *n, void *arg)
{
	hash_del(arg, n);
	xfree(container_of(n, struct cancel, node));
	return true;
}

static void reader_free(struct reader *rd)
{
	hash_each(&rd->found, found_free, &rd->found);
	hash_fini(&rd->found);
	hash_each(&rd->cancels, cancel_free, &rd->cancels);
	hash_fini(&rd->cancels);
	buf_free(rd->buf, STRIPE_LOG_BATCH_MAX);
	xfree(rd->chain);
	xfree(rd);
}

int stripe_log_co_read(const struct stripe_log_conf *c,
		       int (*each)(void *arg, const struct stripe_log_entry *e, const void *payload), void *arg, uint64_t *n,
		       struct err *err)
{
	struct reader *rd = xcalloc(1, sizeof(*rd));
	int r;

	CHECK(c->len_bytes && IS_ALIGNED(c->off_bytes | c->len_bytes, BLOCK));
	*n = 0;
	rd->c = c;
	rd->err = err;
	rd->n_copies = MIN(MAX(c->dev->copies, 1), STRIPE_LOG_COPIES_MAX);
	rd->buf = buf_alloc(STRIPE_LOG_BATCH_MAX);
	hash_init(&rd->found);
	hash_init(&rd->cancels);
	r = ring_co_look(rd);
	if (r == 0 && rd->newest)
		r = chain_find(rd);
	if (r == 0)
		r = cancels_co_find(rd);
	if (r == 0 && !c->read_only)
		r = chain_co_repair(rd);
	for (size_t k = rd->n_chain; r == 0 && k-- > 0;)
		if (rd->chain[k]->h.n_entries > rd->chain[k]->h.n_cancels)
			r = batch_co_give(rd, rd->chain[k], each, arg, n);
	reader_free(rd);
	return r;
}
