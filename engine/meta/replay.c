/*
 * replay.c: reading the journal back.
 */
#include <stdio.h>
#include <string.h>

#include "engine/base/crc32c.h"
#include "engine/base/mutant.h"
#include "engine/io/buf.h"
#include "engine/meta/meta_internal.h"
#include "engine/meta/replay.h"

int meta_journal_block_check(const uint8_t *buf, size_t len, const struct meta_block_expect *x)
{
	struct journal_block_disk h;
	uint32_t used, crc, n, i;
	size_t at = sizeof(h);
	uint8_t zero[4] = { 0 };

	if (len < sizeof(h))
		return -ERR_FORMAT;
	memcpy(&h, buf, sizeof(h));
	used = le32_get(h.used_bytes);
	if (le32_get(h.magic) != JOURNAL_MAGIC || used < sizeof(h) || used > JOURNAL_BLOCK_MAX || used > len)
		return -ERR_FORMAT;
	crc = crc32c(0, buf, offsetof(struct journal_block_disk, crc));
	crc = crc32c(crc, zero, 4);
	crc = crc32c(crc, buf + 8, used - 8);
	if (crc != le32_get(h.crc) && !MUTANT(TORN_BLOCK_ACCEPTED))
		return -ERR_CSUM;
	if (!uuid_is_equal(&h.pool, &x->pool) || (le64_get(h.epoch) != x->epoch && !MUTANT(OLD_LAP_REPLAYED)))
		return -ERR_FORMAT;
	n = le32_get(h.n_records);
	if (!n) /* there is no empty block */
		return -ERR_FORMAT;
	for (i = 0; i < n; i++) { /* every record inside the block */
		struct journal_record_disk rec;

		if (used - at < sizeof(rec))
			return -ERR_FORMAT;
		memcpy(&rec, buf + at, sizeof(rec));
		at += sizeof(rec) + ALIGN_UP((size_t)le16_get(rec.len), (size_t)8);
		if (at > used || le16_get(rec.len) > JOURNAL_RECORD_MAX)
			return -ERR_FORMAT;
	}
	return at == used ? 0 : -ERR_FORMAT;
}

/* Is the block number `x->block` here, on any copy? 0 with buf filled. */
static int block_co_read(struct meta *m, uint64_t pos, const struct meta_block_expect *x, uint8_t *buf)
{
	size_t len = MIN((uint64_t)JOURNAL_BLOCK_MAX, m->conf.journal_bytes - pos);
	struct journal_block_disk h;
	unsigned copy;
	int r;

	if (!len)
		return -ENOENT;
	for (copy = 1; copy <= m->conf.dev->copies; copy++) {
		r = bdev_co_read_copy(m->conf.dev, m->conf.journal_off + pos, buf, len, copy);
		if (r < 0)
			continue;
		r = meta_journal_block_check(buf, len, x);
		memcpy(&h, buf, sizeof(h));
		if (r == 0 && MUTANT(OLD_LAP_REPLAYED) && le64_get(h.block) < x->block)
			return 0;
		if (r == 0 && le64_get(h.block) == x->block && le32_get(h.prev_crc) == x->prev_crc)
			return 0;
	}
	return -ENOENT;
}

/* After the block that could not be found at pos: is there a whole later one where it could be? */
static bool later_block_exists(struct meta *m, uint64_t pos, const struct meta_block_expect *x, uint8_t *buf)
{
	uint64_t base[2] = { pos, 0 }, off;
	struct journal_block_disk h;
	unsigned i, copy;

	for (i = 0; i < 2; i++) {
		for (off = base[i]; off <= base[i] + JOURNAL_BLOCK_MAX && off < m->conf.journal_bytes; off += META_PAGE_BYTES) {
			size_t len = MIN((uint64_t)JOURNAL_BLOCK_MAX, m->conf.journal_bytes - off);

			for (copy = 1; copy <= m->conf.dev->copies; copy++) {
				if (bdev_co_read_copy(m->conf.dev, m->conf.journal_off + off, buf, META_PAGE_BYTES, copy) < 0)
					continue;
				memcpy(&h, buf, sizeof(h));
				if (le32_get(h.magic) != JOURNAL_MAGIC || le64_get(h.epoch) != x->epoch ||
				    le64_get(h.block) <= x->block)
					continue;
				if (bdev_co_read_copy(m->conf.dev, m->conf.journal_off + off, buf, len, copy) == 0 &&
				    meta_journal_block_check(buf, len, x) == 0)
					return true;
			}
		}
	}
	return false;
}

int meta_replay_co_one(struct meta *m, unsigned type, const void *payload, size_t len, uint64_t seq)
{
	int r = m->n_dirty >= m->max_dirty ? meta_checkpoint_co_replaying(m) : 0;

	if (r == 0)
		r = meta_apply_co_one(m, type, payload, len, seq);
	if (r == 0)
		meta_cache_shrink(m);
	return r;
}

static int block_co_apply(struct meta *m, const uint8_t *buf, uint64_t *n_records)
{
	const struct journal_block_disk *h = (const void *)buf;
	uint64_t seq = le64_get(h->first_seq);
	size_t at = sizeof(*h);
	uint32_t i;
	int r;

	for (i = 0; i < le32_get(h->n_records); i++, seq++) {
		const struct journal_record_disk *rec = (const void *)(buf + at);
		size_t len = le16_get(rec->len);

		at += sizeof(*rec) + ALIGN_UP(len, (size_t)8);
		if (seq <= m->applied_seq)
			continue;
		if (seq != m->applied_seq + 1)
			return -ERR_FORMAT;
		r = meta_replay_co_one(m, le16_get(rec->type), rec + 1, len, seq);
		if (r < 0)
			return r;
		++*n_records;
	}
	return 0;
}

/* Books a block that was found, as if this opening had written it: a checkpoint in the middle of a replay must say where
 * the rest starts. */
static void block_book(struct meta *m, uint64_t pos, const uint8_t *buf)
{
	const struct journal_block_disk *h = (const void *)buf;
	struct journal_extent *x = xcalloc(1, sizeof(*x));

	x->pos = pos;
	x->bytes = ALIGN_UP((uint64_t)le32_get(h->used_bytes), META_PAGE_BYTES);
	if (pos < m->j.pos)
		x->bytes += m->conf.journal_bytes - m->j.pos;
	x->block = m->j.block;
	x->prev_crc = m->j.prev_crc;
	x->first_seq = le64_get(h->first_seq);
	x->last_seq = x->first_seq + le32_get(h->n_records) - 1;
	list_push_back(&m->j.blocks, &x->link);
	m->j.used_bytes += x->bytes;
	m->j.prev_crc = le32_get(h->crc);
	m->j.block++;
	m->j.pos = pos + ALIGN_UP((uint64_t)le32_get(h->used_bytes), META_PAGE_BYTES);
	m->j.last_seq = MAX(m->j.last_seq, x->last_seq);
}

int meta_co_replay(struct meta *m, uint64_t *n_records, struct err *e)
{
	struct meta_block_expect x = { .pool = m->conf.pool, .epoch = m->open_epoch };
	uint8_t *buf = buf_alloc(JOURNAL_BLOCK_MAX);
	uint64_t pos;
	int r;

	*n_records = 0;
	for (;;) {
		x.block = m->j.block;
		x.prev_crc = m->j.prev_crc;
		pos = m->j.pos;
		r = block_co_read(m, pos, &x, buf);
		if (r < 0 && pos) {
			pos = 0;
			r = block_co_read(m, pos, &x, buf);
		}
		if (r < 0) {
			r = 0;
			if (later_block_exists(m, m->j.pos, &x, buf))
				r = err_set(e, -ERR_CSUM, "journal block %llu is damaged on every copy and later ones are whole: "
					    "opening would lose acknowledged changes", (unsigned long long)x.block);
			break;
		}
		block_book(m, pos, buf);
		if (m->j.used_bytes > m->conf.journal_bytes)
			r = -ERR_FORMAT; /* more than the ring holds: it goes round */
		else
			r = block_co_apply(m, buf, n_records);
		if (r < 0) {
			err_set(e, r, "journal block %llu cannot be applied: %s", (unsigned long long)x.block, err_text(r));
			break;
		}
	}
	if (r == 0)
		r = meta_tail_co_replay(m, n_records, e);
	m->j.durable_seq = m->applied_seq;
	m->j.last_seq = m->applied_seq;
	buf_free(buf, JOURNAL_BLOCK_MAX);
	return r;
}
