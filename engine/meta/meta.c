/*
 * meta.c: opening a store: format, load, replay.
 */
#include "engine/meta/meta.h"

#include <string.h>

#include "engine/base/crc32c.h"
#include "engine/io/buf.h"
#include "engine/meta/meta_internal.h"

struct meta *meta_open(const struct meta_conf *c)
{
	struct meta *m = xcalloc(1, sizeof(*m));

	CHECK(c->group_bytes % META_PAGE_BYTES == 0 && c->journal_bytes % META_PAGE_BYTES == 0);
	m->conf = *c;
	if (!m->conf.checkpoint_ns)
		m->conf.checkpoint_ns = 10 * NS_PER_SEC;
	list_init(&m->dirty_arrays);
	meta_space_init(m);
	meta_cache_init(m);
	meta_journal_init(m);
	m->tail = meta_tail_open(c);
	co_queue_init(&m->applier);
	co_queue_init(&m->applied_waiters);
	co_queue_init(&m->checkpointer);
	co_queue_init(&m->checkpoint_waiters);
	co_queue_init(&m->service_end);
	co_mutex_init(&m->mutate);
	m->root = xcalloc(1, sizeof(*m->root));
	m->pagerefs = meta_system_array(m, META_ARRAY_PAGEREFS, 2);
	return m;
}

struct meta_array *meta_system_array(struct meta *m, unsigned id, unsigned entry_log2)
{
	CHECK(id < META_ARRAYS_MAX && !m->arrays[id].m);
	meta_array_init(&m->arrays[id], m, entry_log2);
	m->arrays[id].is_map = false;
	return &m->arrays[id];
}

struct meta_array *meta_system_array_at(struct meta *m, unsigned i)
{
	unsigned id;

	for (id = 0; id < META_ARRAYS_MAX; id++)
		if (m->arrays[id].m && i-- == 0)
			return &m->arrays[id];
	return NULL;
}

void meta_close(struct meta *m)
{
	CHECK(!m->services);
	meta_tail_close(m->tail);
	meta_journal_fini(m);
	meta_cache_fini(m);
	meta_space_fini(m);
	xfree(m->root);
	xfree(m);
}

int meta_co_format(struct meta *m)
{
	CHECK(m->n_groups >= 1 && m->conf.journal_off / m->conf.group_bytes == m->groups[0].group);
	m->epoch = m->birth = 1;
	m->open_epoch = 0; /* start makes it 1 */
	return 0;
}

static int root_decode(struct meta *m, const struct meta_root_disk *d, struct err *e)
{
	static const struct meta_array_disk none;
	unsigned i;

	if (memcmp(d->magic, META_ROOT_MAGIC, sizeof(d->magic)) || !uuid_is_equal(&d->pool, &m->conf.pool))
		return err_set(e, -ERR_FORMAT, "the metadata root is not one of this pool");
	if (le64_get(d->journal_pos) > m->conf.journal_bytes || le64_get(d->journal_pos) % META_PAGE_BYTES ||
	    le32_get(d->n_groups) > m->n_groups)
		return err_set(e, -ERR_FORMAT, "the metadata root has impossible journal or group numbers");
	for (i = 0; i < META_ARRAYS_MAX; i++) {
		struct meta_array *a = &m->arrays[i];
		uint8_t log2 = a->entry_log2;

		if (!a->m || !memcmp(&d->arrays[i], &none, sizeof(none)))
			continue; /* not ours, or of a store that did not know it: it is empty */
		if (meta_array_load(a, m, &d->arrays[i]) < 0 || a->entry_log2 != log2)
			return err_set(e, -ERR_FORMAT, "metadata array %u has an impossible root", i);
		a->is_map = false;
	}
	for (i = 0; i < le32_get(d->n_groups); i++) {
		m->groups[i].used = le32_get(d->group_used[i]);
		if (m->groups[i].used > m->pages_per_group)
			return err_set(e, -ERR_FORMAT, "metadata group %u claims more pages than it has", i);
	}
	m->published = le64_get(d->checkpoint);
	m->epoch = m->published + 1;
	m->birth = le32_get(d->birth) ? le32_get(d->birth) : (uint32_t)m->epoch;
	m->applied_seq = m->published_seq = m->j.last_seq = m->j.durable_seq = le64_get(d->record_seq);
	m->j.pos = le64_get(d->journal_pos);
	m->j.block = le64_get(d->journal_block);
	m->j.prev_crc = le32_get(d->journal_prev_crc);
	return 0;
}

int meta_co_load(struct meta *m, uint64_t root_addr, uint32_t root_crc, uint64_t epoch, uint8_t *owner, struct err *e)
{
	struct meta_ptr p = { .addr = root_addr, .crc = root_crc };
	uint8_t *buf;
	int r;

	if (meta_space_group_of(m, root_addr) < 0)
		return err_set(e, -ERR_FORMAT, "the label points to a metadata root outside of the metadata groups");
	buf = buf_alloc(META_PAGE_BYTES);
	r = meta_page_co_read_verified(m, &p, buf);
	if (r < 0) {
		err_set(e, r, "no copy of the metadata root (page %llu) can be read: %s", (unsigned long long)root_addr,
			err_text(r));
	} else {
		memcpy(m->root, buf, META_PAGE_BYTES);
		r = root_decode(m, m->root, e);
	}
	if (r == 0) {
		memcpy(owner, m->root->owner, META_OWNER_BYTES);
		m->root_addr = root_addr;
		m->open_epoch = epoch;
	}
	buf_free(buf, META_PAGE_BYTES);
	return r;
}

uint64_t meta_last_seq(const struct meta *m)
{
	return m->j.last_seq;
}

uint64_t meta_applied_seq(const struct meta *m)
{
	return m->applied_seq;
}

uint64_t meta_durable_seq(const struct meta *m)
{
	return m->j.durable_seq;
}

uint64_t meta_root_addr(const struct meta *m)
{
	return m->root_addr;
}

void meta_stats_get(const struct meta *m, struct meta_stats *out)
{
	unsigned i;

	memset(out, 0, sizeof(*out));
	out->cache_bytes = m->n_pages * META_PAGE_BYTES;
	out->cache_limit_bytes = m->max_pages * META_PAGE_BYTES;
	out->dirty_bytes = (m->n_dirty + m->n_frozen) * META_PAGE_BYTES;
	for (i = 0; i < m->n_groups; i++)
		out->pages_used += m->groups[i].used;
	out->pages_total = m->n_groups * m->pages_per_group;
	out->checkpoints = m->checkpoints;
	out->commits = m->j.commits;
	out->records = m->records;
	out->page_reads = m->page_reads;
	out->page_writes = m->page_writes;
	out->journal_bytes_written = m->j.bytes_written;
	out->repaired = m->repaired;
	out->journal_used_bytes = m->j.used_bytes;
	out->journal_bytes = m->conf.journal_bytes;
}
