/*
 * journal.c: records become durable in groups.
 *
 * The journal is a bounded ring of blocks inside the first metadata group, so it has as many copies as that has. One
 * block is in flight at a time, written with FUA after every disk has been flushed; that makes the rule for the end
 * simple: the block after a whole one is whole, or torn (never acknowledged, dropped), and if anything later is whole, an
 * acknowledged block has been damaged and opening stops rather than losing it.
 *
 * Blocks carry the pool's uuid, the epoch of the opening that wrote them, their number and the checksum of the block
 * before, so that nothing of an earlier lap, an earlier opening or another pool is ever replayed.
 *
 * What a crash leaves: before the block is whole on any copy: the records are gone, their clusters were never referenced;
 * after: they are applied at the next opening. Space in the ring comes back when a checkpoint that includes the records
 * has been published.
 */
#include <string.h>

#include "engine/base/crc32c.h"
#include "engine/base/mutant.h"
#include "engine/io/buf.h"
#include "engine/meta/meta_internal.h"

#define RECORD_HEAD sizeof(struct journal_record_disk)
#define COMMIT_IDLE_NS NS_PER_SEC
#define PAGES_PER_RECORD 4 /* that a record adds, as a rule: a leaf of the map and one above, a leaf of counts, ... */

static size_t record_bytes(size_t len)
{
	return RECORD_HEAD + ALIGN_UP(len, (size_t)8);
}

void meta_journal_init(struct meta *m)
{
	struct journal *j = &m->j;

	list_init(&j->blocks);
	list_init(&j->unwritten);
	co_queue_init(&j->committer);
	co_queue_init(&j->waiters);
	co_queue_init(&j->room);
	list_init(&m->to_apply);
	j->block = 1;
}

void meta_pending_put(struct pending *p)
{
	if (--p->refs == 0)
		xfree(p);
}

void meta_journal_fini(struct meta *m)
{
	struct list *l;

	while ((l = list_pop_front(&m->j.blocks)))
		xfree(container_of(l, struct journal_extent, link));
	while ((l = list_pop_front(&m->j.unwritten)))
		meta_pending_put(container_of(l, struct pending, write_link));
	while ((l = list_pop_front(&m->to_apply)))
		meta_pending_put(container_of(l, struct pending, apply_link));
}

/* ---- handing in ---- */

uint64_t meta_record(struct meta *m, unsigned type, const void *payload, size_t len)
{
	return meta_record_by(m, type, payload, len, NULL);
}

uint64_t meta_record_by(struct meta *m, unsigned type, const void *payload, size_t len, const struct meta_hand *by)
{
	struct journal *j = &m->j;
	struct pending *p;

	CHECK(m->started && len <= JOURNAL_RECORD_MAX && !m->conf.read_only);
	p = xmalloc(sizeof(*p) + len);
	p->seq = ++j->last_seq;
	p->type = (uint16_t)type;
	p->len = (uint16_t)len;
	p->refs = 2;
	memcpy(p->payload, payload, len);
	meta_tail_put(m, p, by);
	list_push_back(&m->to_apply, &p->apply_link);
	if (list_is_empty(&j->unwritten))
		co_queue_wake_one(&j->committer); /* its second begins */
	list_push_back(&j->unwritten, &p->write_link);
	j->unwritten_bytes += record_bytes(len);
	m->records++;
	co_queue_wake_one(&m->applier);
	return p->seq;
}

static uint64_t journal_committed_bytes(const struct journal *j)
{
	return j->used_bytes + j->unwritten_bytes + j->unwritten_bytes / 8 + 2 * META_PAGE_BYTES;
}

/* A quarter of the ring is for records that must not wait (frees, group changes, those already under way). */
static bool journal_has_room(const struct meta *m, size_t bytes)
{
	return journal_committed_bytes(&m->j) + bytes <= m->conf.journal_bytes / 4 * 3;
}

int meta_co_admit(struct meta *m, size_t bytes, bool grow)
{
	struct journal *j = &m->j;
	uint64_t pending;
	int r;

	for (;;) {
		if (m->failed)
			return -ERR_POOL_FAILED;
		pending = j->last_seq - m->applied_seq;
		if (grow && !m->growing && meta_space_free_pages(m) < meta_space_reserve(m) + PAGES_PER_RECORD * pending) {
			m->growing = true;
			r = m->conf.hooks->co_grow ? m->conf.hooks->co_grow(m->conf.ctx) : -ENOSPC;
			m->growing = false;
			if (r == 0)
				continue;
			if (!pending)
				return -ERR_POOL_FULL;
			r = meta_co_wait_applied(m, j->last_seq); /* what they really take is known then */
			if (r < 0)
				return r;
			continue;
		}
		if (journal_committed_bytes(&m->j) > m->conf.journal_bytes / 2)
			meta_checkpoint_want(m);
		if (!meta_tail_has_room(m)) {
			r = meta_co_commit(m, j->last_seq);
			if (r < 0)
				return r;
			continue;
		}
		if (journal_has_room(m, bytes) && m->n_dirty + m->n_frozen <= 3 * m->max_dirty)
			return 0;
		meta_checkpoint_want(m);
		co_queue_wait(&m->j.room);
	}
}

/* ---- committing ---- */

static void records_encode(struct list *batch, uint8_t *buf, size_t *used)
{
	struct pending *p;

	list_for_each (p, batch, write_link) {
		struct journal_record_disk *h = (struct journal_record_disk *)(buf + *used);

		*h = (struct journal_record_disk){ .type = le16_make(p->type), .len = le16_make(p->len) };
		memcpy(h + 1, p->payload, p->len);
		*used += record_bytes(p->len);
	}
}

/* Takes records for one block. */
static size_t batch_take(struct journal *j, struct list *batch)
{
	size_t used = sizeof(struct journal_block_disk);
	struct pending *p, *next;

	list_for_each_safe (p, next, &j->unwritten, write_link) {
		if (used + record_bytes(p->len) > JOURNAL_BLOCK_MAX)
			break;
		used += record_bytes(p->len);
		j->unwritten_bytes -= record_bytes(p->len);
		list_del(&p->write_link);
		list_push_back(batch, &p->write_link);
	}
	return used;
}

static struct journal_extent *extent_place(struct meta *m, size_t bytes)
{
	struct journal *j = &m->j;
	struct journal_extent *x = xcalloc(1, sizeof(*x));

	x->bytes = bytes;
	x->prev_crc = j->prev_crc;
	x->block = j->block;
	if (j->pos + bytes > m->conf.journal_bytes) {
		x->bytes += m->conf.journal_bytes - j->pos; /* what is skipped comes back with this block */
		j->pos = 0;
	}
	x->pos = j->pos;
	list_push_back(&j->blocks, &x->link);
	j->used_bytes += x->bytes;
	CHECK(j->used_bytes <= m->conf.journal_bytes);
	return x;
}

static int block_co_write(struct meta *m, struct list *batch, size_t used)
{
	struct journal *j = &m->j;
	size_t bytes = ALIGN_UP(used, (size_t)META_PAGE_BYTES), at = sizeof(struct journal_block_disk);
	struct journal_block_disk *b = buf_alloc_zero(bytes);
	struct journal_extent *x = extent_place(m, bytes);
	uint32_t n = 0;
	struct pending *p;
	int r;

	list_for_each (p, batch, write_link)
		n++;
	x->first_seq = list_first(batch, struct pending, write_link)->seq;
	x->last_seq = list_last(batch, struct pending, write_link)->seq;
	records_encode(batch, (uint8_t *)b, &at);
	CHECK(at == used);
	b->magic = le32_make(JOURNAL_MAGIC);
	b->pool = m->conf.pool;
	b->epoch = le64_make(m->open_epoch);
	b->block = le64_make(x->block);
	b->first_seq = le64_make(x->first_seq);
	b->n_records = le32_make(n);
	b->used_bytes = le32_make((uint32_t)used);
	b->prev_crc = le32_make(x->prev_crc);
	j->prev_crc = crc32c(0, b, used);
	b->crc = le32_make(j->prev_crc);
	j->block++;
	j->pos = x->pos + bytes;
	r = bdev_co_write(m->conf.dev, m->conf.journal_off + x->pos, b, bytes, IO_FUA);
	j->bytes_written += bytes;
	j->commits++;
	buf_free(b, bytes);
	return r;
}

/* True while there is something to write and the ring can take it. */
static bool commit_can_write(struct meta *m, size_t used)
{
	struct journal *j = &m->j;
	uint64_t bytes = ALIGN_UP(used, META_PAGE_BYTES);
	uint64_t skip = j->pos + bytes > m->conf.journal_bytes ? m->conf.journal_bytes - j->pos : 0;

	return j->used_bytes + bytes + skip <= m->conf.journal_bytes;
}

static int commit_co_one(struct meta *m)
{
	struct journal *j = &m->j;
	struct list batch, *l;
	uint64_t last;
	size_t used;
	int r;

	while (!commit_can_write(m, JOURNAL_BLOCK_MAX < m->conf.journal_bytes / 4 ? JOURNAL_BLOCK_MAX :
			     MIN(j->unwritten_bytes + META_PAGE_BYTES, JOURNAL_BLOCK_MAX))) {
		if (m->failed)
			return -ERR_POOL_FAILED;
		meta_checkpoint_want(m);
		co_queue_wait(&j->room);
	}
	if (list_is_empty(&j->unwritten))
		return 0; /* a checkpoint has taken them meanwhile */
	list_init(&batch);
	used = batch_take(j, &batch);
	last = list_last(&batch, struct pending, write_link)->seq;
	r = MUTANT(FLUSH_SKIPPED) ? 0 : m->conf.hooks->co_flush(m->conf.ctx);
	if (r == 0)
		r = block_co_write(m, &batch, used);
	while ((l = list_pop_front(&batch)))
		meta_pending_put(container_of(l, struct pending, write_link));
	if (r == 0 && last > j->durable_seq) {
		j->durable_seq = last;
		meta_tail_durable(m, last);
		if (m->conf.hooks->durable)
			m->conf.hooks->durable(m->conf.ctx, last);
	}
	return r;
}

/* Service coroutine: writes what has been asked for, and what has been lying about for a second. */
void meta_journal_co_committer(void *arg)
{
	struct meta *m = arg;
	struct journal *j = &m->j;
	int r;

	while (!m->failed) {
		if (list_is_empty(&j->unwritten)) {
			if (m->stopping)
				break;
			j->commit_wanted = false;
			co_queue_wake_all(&j->waiters);
			co_queue_wait(&j->committer);
			continue;
		}
		if (!j->commit_wanted && !m->stopping) {
			/* -ETIMEDOUT: a second has passed; 0: somebody wants it now, or more records have come */
			if (co_queue_wait_until(&j->committer, reactor_now_ns() + COMMIT_IDLE_NS) == 0 && !j->commit_wanted)
				continue;
		}
		j->commit_wanted = false;
		r = commit_co_one(m);
		if (r < 0)
			meta_fail(m, r, "the journal could not be written");
		co_queue_wake_all(&j->waiters);
	}
	co_queue_wake_all(&j->waiters);
	m->services--;
	co_queue_wake_all(&m->service_end);
}

int meta_co_commit(struct meta *m, uint64_t seq)
{
	struct journal *j = &m->j;

	CHECK(seq <= j->last_seq);
	while (j->durable_seq < seq) {
		if (m->failed)
			return -ERR_POOL_FAILED;
		j->commit_wanted = true;
		co_queue_wake_one(&j->committer);
		co_queue_wait(&j->waiters);
	}
	return 0;
}

void meta_journal_start_of(const struct meta *m, uint64_t seq, uint64_t *pos, uint64_t *block, uint32_t *prev_crc)
{
	const struct journal *j = &m->j;
	struct journal_extent *x;

	*pos = j->pos;
	*block = j->block;
	*prev_crc = j->prev_crc;
	list_for_each (x, &j->blocks, link) {
		if (x->last_seq > seq) {
			*pos = x->pos;
			*block = x->block;
			*prev_crc = x->prev_crc;
			return;
		}
	}
}

/* A checkpoint with all records up to seq has been published. */
void meta_journal_freed(struct meta *m, uint64_t seq)
{
	struct journal *j = &m->j;
	struct journal_extent *x, *next;
	struct pending *p, *pnext;

	list_for_each_safe (x, next, &j->blocks, link) {
		if (x->last_seq > seq)
			break;
		j->used_bytes -= x->bytes;
		list_del(&x->link);
		xfree(x);
	}
	list_for_each_safe (p, pnext, &j->unwritten, write_link) { /* the checkpoint has them: no block needs to */
		if (p->seq > seq)
			break;
		j->unwritten_bytes -= record_bytes(p->len);
		list_del(&p->write_link);
		meta_pending_put(p);
	}
	if (seq > j->durable_seq) {
		j->durable_seq = seq;
		meta_tail_durable(m, seq);
		if (m->conf.hooks->durable)
			m->conf.hooks->durable(m->conf.ctx, seq);
		co_queue_wake_all(&j->waiters);
	}
	co_queue_wake_all(&j->room);
}
