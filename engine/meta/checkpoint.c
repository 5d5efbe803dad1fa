/*
 * checkpoint.c: the applier, and checkpoints.
 *
 * A checkpoint, step by step, and what a crash leaves at each:
 *   1. Applying pauses after record P. Map roots are sealed (checksums leaves first), the owner stores what it keeps in
 *      memory (volume roots), page counts are folded in, system arrays are sealed, the root page is filled.
 *      Crash: nothing has been written; the old root and the journal behind it stand.
 *   2. The epoch ends: dirty pages become frozen, applying goes on in the next epoch and shadows what it changes.
 *   3. Frozen pages are written to addresses that the old checkpoint does not use.
 *      Crash: unreferenced pages; the old checkpoint's counts call them free.
 *   4. All disks are flushed: the pages, and the data that records up to P refer to.
 *   5. The owner publishes the root (labels). Crash in the middle: some labels have it, some do not; both roots are whole.
 *   6. Pages freed in the epoch, and the journal up to P, may be used again.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/base/crc32c.h"
#include "engine/base/mutant.h"
#include "engine/meta/meta_internal.h"
#include "engine/meta/replay.h"

#define WRITE_RUN 64  /* pages in one request */
#define WRITE_DEPTH 16 /* requests in flight */

/* ---- applying ---- */

/*
 * Coroutine, under m->mutate, which it gives up while it waits. Free pages for one record, with enough left over for the
 * checkpoint after it. When there are none and the metadata cannot grow, a checkpoint releases those in quarantine.
 */
static int apply_co_room(struct meta *m)
{
	int r = meta_space_co_refill(m, 32 + meta_space_fold_pages(m));

	while ((r == -ENOSPC || r == -ERR_POOL_FULL) && m->n_quarantined && !m->failed) {
		uint64_t before = m->published;

		co_mutex_unlock(&m->mutate);
		if (m->started) {
			meta_checkpoint_want(m);
			while (m->published == before && !m->failed)
				co_queue_wait(&m->dirty_room);
			r = 0;
		} else {
			r = meta_checkpoint_co_replaying(m);
		}
		co_mutex_lock(&m->mutate);
		if (r == 0)
			r = meta_space_co_refill(m, 32 + meta_space_fold_pages(m));
	}
	return r;
}

int meta_apply_co_one(struct meta *m, unsigned type, const void *payload, size_t len, uint64_t seq)
{
	int r;

	co_mutex_lock(&m->mutate);
	r = apply_co_room(m);
	if (r == 0)
		r = m->conf.hooks->co_apply(m->conf.ctx, type, payload, len, seq);
	if (r == 0)
		m->applied_seq = seq;
	co_mutex_unlock(&m->mutate);
	return r;
}

/* Service coroutine: applies records in order. Lets checkpoints catch up when too much is dirty. */
void meta_apply_co_run(void *arg)
{
	struct meta *m = arg;
	struct pending *p;
	int r;

	while (!m->failed) {
		if (list_is_empty(&m->to_apply)) {
			co_queue_wake_all(&m->applied_waiters);
			if (m->stopping)
				break;
			co_queue_wait(&m->applier);
			continue;
		}
		if (m->n_dirty >= m->max_dirty)
			meta_checkpoint_want(m);
		if (m->n_dirty >= 2 * m->max_dirty) {
			co_queue_wake_all(&m->applied_waiters);
			co_queue_wait(&m->dirty_room);
			continue;
		}
		p = list_first(&m->to_apply, struct pending, apply_link);
		r = meta_apply_co_one(m, p->type, p->payload, p->len, p->seq);
		if (r < 0) {
			meta_fail(m, r, "a metadata change could not be applied");
			break;
		}
		list_del(&p->apply_link);
		meta_pending_put(p);
		if (!co_queue_is_empty(&m->applied_waiters))
			co_queue_wake_all(&m->applied_waiters);
		meta_cache_shrink(m);
	}
	co_queue_wake_all(&m->applied_waiters);
	m->services--;
	co_queue_wake_all(&m->service_end);
}

int meta_co_wait_applied(struct meta *m, uint64_t seq)
{
	while (m->applied_seq < seq) {
		if (m->failed)
			return -ERR_POOL_FAILED;
		co_queue_wait(&m->applied_waiters);
	}
	return 0;
}

int meta_co_pause(struct meta *m)
{
	int r = 0;

	for (;;) {
		if (m->started)
			r = meta_co_wait_applied(m, m->j.last_seq);
		if (r < 0)
			return r;
		co_mutex_lock(&m->mutate);
		if (!m->started || m->applied_seq == m->j.last_seq)
			return 0;
		co_mutex_unlock(&m->mutate);
	}
}

void meta_resume(struct meta *m)
{
	co_mutex_unlock(&m->mutate);
}

/* ---- checkpoint ---- */

void meta_checkpoint_want(struct meta *m)
{
	if (m->checkpoint_wanted < m->epoch)
		m->checkpoint_wanted = m->epoch;
	co_queue_wake_all(&m->checkpointer);
}

static void root_fill(struct meta *m, struct meta_root_disk *d, uint64_t seq)
{
	uint64_t pos, block;
	uint32_t prev_crc;
	unsigned i;

	memcpy(d->magic, META_ROOT_MAGIC, sizeof(d->magic));
	d->pool = m->conf.pool;
	d->checkpoint = le64_make(m->epoch);
	d->birth = le32_make(m->birth + 1);
	d->record_seq = le64_make(seq);
	meta_journal_start_of(m, seq, &pos, &block, &prev_crc);
	d->journal_pos = le64_make(pos);
	d->journal_block = le64_make(block);
	d->journal_prev_crc = le32_make(prev_crc);
	d->n_groups = le32_make(m->n_groups);
	for (i = 0; i < META_ARRAYS_MAX; i++)
		if (m->arrays[i].m)
			meta_array_store(&m->arrays[i], &d->arrays[i]);
	for (i = 0; i < m->n_groups; i++)
		d->group_used[i] = le32_make(m->groups[i].used);
}

/* Steps 1 and 2. Under m->mutate. */
static int checkpoint_co_freeze(struct meta *m, struct meta_root_info *root)
{
	uint64_t old_root = m->root_addr;
	struct mpage *pg;
	int r;

	meta_array_seal(m, true);
	r = m->conf.hooks->co_store(m->conf.ctx, m->root->owner);
	if (r < 0)
		return r;
	r = meta_space_co_refill(m, 8);
	if (r < 0)
		return r;
	pg = meta_page_new(m, m->pagerefs, 0, NULL);
	pg->array = NULL; /* the root page belongs to no array */
	if (old_root)
		meta_page_drop_addr(m, old_root);
	r = meta_space_co_fold(m);
	if (r < 0)
		return r;
	meta_array_seal(m, false);
	root_fill(m, m->root, m->applied_seq);
	memcpy(pg->data, m->root, META_PAGE_BYTES);
	*root = (struct meta_root_info){ .addr = pg->addr,
					 .crc = crc32c(0, pg->data, META_PAGE_BYTES),
					 .checkpoint = m->epoch,
					 .epoch = m->open_epoch };
	m->root_addr = pg->addr;
	meta_page_put(m, pg);
	CHECK(list_is_empty(&m->frozen));
	list_for_each (pg, &m->dirty, link)
		pg->state = PAGE_FROZEN;
	list_splice_back(&m->frozen, &m->dirty);
	m->n_frozen = m->n_dirty;
	m->n_dirty = 0;
	while (!list_is_empty(&m->dirty_arrays)) {
		struct meta_array *a = list_entry(list_pop_front(&m->dirty_arrays), struct meta_array, link);

		a->dirty = false;
	}
	m->epoch++;
	m->birth++;
	return 0;
}

struct write_run {
	struct io io;
	struct iovec iov[WRITE_RUN];
	struct co_join *join;
	struct co_queue *slots;
	unsigned *in_flight;
};

static void run_done(struct io *io)
{
	struct write_run *w = container_of(io, struct write_run, io);

	(*w->in_flight)--;
	co_queue_wake_one(w->slots);
	co_join_done(w->join, io->result);
	xfree(w);
}

static int page_cmp(const void *a, const void *b)
{
	const struct mpage *x = *(struct mpage *const *)a, *y = *(struct mpage *const *)b;

	return x->addr < y->addr ? -1 : x->addr > y->addr;
}

static struct mpage **frozen_sorted(struct meta *m, size_t *n)
{
	struct mpage **v = xmalloc((m->n_frozen + 1) * sizeof(*v)), *pg;

	*n = 0;
	list_for_each (pg, &m->frozen, link)
		v[(*n)++] = pg;
	CHECK(*n == m->n_frozen);
	qsort(v, *n, sizeof(*v), page_cmp);
	return v;
}

/* Step 3: neighbours go out in one request. */
static int checkpoint_co_write(struct meta *m)
{
	struct co_queue slots;
	struct co_join join;
	unsigned in_flight = 0;
	size_t n, i, k;
	struct mpage **v = frozen_sorted(m, &n);
	int r;

	co_queue_init(&slots);
	co_join_init(&join);
	for (i = 0; i < n; i += k) {
		struct write_run *w = xmalloc(sizeof(*w));

		for (k = 0; i + k < n && k < WRITE_RUN && v[i + k]->addr == v[i]->addr + k; k++) {
			if (k && v[i + k]->addr % m->pages_per_group == 0)
				break;
			w->iov[k] = (struct iovec){ v[i + k]->data, META_PAGE_BYTES };
		}
		io_prep(&w->io, IO_WRITE, v[i]->addr * META_PAGE_BYTES, k * META_PAGE_BYTES, NULL, 0);
		w->io.iov = w->iov;
		w->io.iov_n = (uint32_t)k;
		w->io.done = run_done;
		w->join = &join;
		w->slots = &slots;
		w->in_flight = &in_flight;
		while (in_flight >= WRITE_DEPTH)
			co_queue_wait(&slots);
		in_flight++;
		co_join_add(&join);
		bdev_submit(m->conf.dev, &w->io);
	}
	r = co_join_wait(&join);
	m->page_writes += n;
	for (i = 0; i < n && r == 0; i++)
		meta_page_written(m, v[i]);
	xfree(v);
	return r;
}

/* Coroutine. One whole checkpoint; one at a time (the checkpointer, or start/stop/replay when it does not run). */
static int checkpoint_co_one(struct meta *m, bool clean)
{
	struct meta_root_info root;
	uint64_t seq;
	int r;

	co_mutex_lock(&m->mutate);
	m->last_checkpoint_ns = reactor_now_ns();
	seq = m->applied_seq;
	r = checkpoint_co_freeze(m, &root);
	co_mutex_unlock(&m->mutate);
	co_queue_wake_all(&m->dirty_room);
	if (r == 0)
		r = checkpoint_co_write(m);
	if (r == 0)
		r = MUTANT(ROOT_BEFORE_PAGES) ? 0 : m->conf.hooks->co_flush(m->conf.ctx);
	root.clean = clean;
	if (r == 0 && MUTANT(JOURNAL_FREED_EARLY))
		meta_journal_freed(m, seq);
	if (r == 0)
		r = m->conf.hooks->co_publish(m->conf.ctx, &root);
	if (r < 0)
		return r;
	m->published = root.checkpoint;
	meta_tail_published(m);
	m->published_seq = seq;
	m->checkpoints++;
	meta_space_published(m, root.checkpoint);
	meta_journal_freed(m, seq);
	co_queue_wake_all(&m->checkpoint_waiters);
	co_queue_wake_all(&m->dirty_room);
	meta_cache_shrink(m);
	return 0;
}

static bool has_changes(const struct meta *m)
{
	return m->j.last_seq > m->published_seq || m->n_dirty;
}

/* Service coroutine. */
void meta_checkpoint_co_run(void *arg)
{
	struct meta *m = arg;
	int r;

	while (!m->failed && !m->stopping) {
		if (m->checkpoint_wanted < m->epoch) {
			uint64_t due = m->last_checkpoint_ns + m->conf.checkpoint_ns;

			if (!has_changes(m))
				due = UINT64_MAX;
			if (due > reactor_now_ns()) {
				if (due == UINT64_MAX)
					co_queue_wait(&m->checkpointer);
				else if (co_queue_wait_until(&m->checkpointer, due) == 0)
					continue;
				continue;
			}
		}
		r = checkpoint_co_one(m, false);
		if (r < 0)
			meta_fail(m, r, "a checkpoint could not be written");
	}
	co_queue_wake_all(&m->checkpoint_waiters);
	m->services--;
	co_queue_wake_all(&m->service_end);
}

int meta_co_checkpoint(struct meta *m)
{
	uint64_t want, last = m->j.last_seq;

	int r = meta_co_wait_applied(m, last);

	if (r < 0)
		return r;
	want = m->epoch;
	while (m->published < want) {
		if (m->failed)
			return -ERR_POOL_FAILED;
		meta_checkpoint_want(m);
		co_queue_wait(&m->checkpoint_waiters);
	}
	return 0;
}

/* ---- start and stop ---- */

int meta_co_start(struct meta *m)
{
	int r;

	if (m->conf.read_only)
		return 0;
	m->open_epoch++;
	r = checkpoint_co_one(m, false);
	if (r < 0)
		return r;
	meta_tail_start(m);
	m->started = true;
	m->services = 3;
	co_spawn(CO_SERVICE, meta_apply_co_run, m, "metadata applier");
	co_spawn(CO_SERVICE, meta_journal_co_committer, m, "journal committer");
	co_spawn(CO_SERVICE, meta_checkpoint_co_run, m, "checkpointer");
	return 0;
}

static void wake_everybody(struct meta *m)
{
	co_queue_wake_all(&m->applier);
	co_queue_wake_all(&m->applied_waiters);
	co_queue_wake_all(&m->checkpointer);
	co_queue_wake_all(&m->checkpoint_waiters);
	co_queue_wake_all(&m->dirty_room);
	co_queue_wake_all(&m->j.committer);
	co_queue_wake_all(&m->j.waiters);
	co_queue_wake_all(&m->j.room);
}

int meta_co_stop(struct meta *m, bool clean)
{
	int r = 0;

	if (!m->started)
		return 0;
	if (!m->failed) {
		r = meta_co_wait_applied(m, m->j.last_seq);
		if (r == 0)
			r = meta_co_commit(m, m->j.last_seq);
	}
	m->stopping = true;
	wake_everybody(m);
	while (m->services)
		co_queue_wait(&m->service_end);
	m->started = false;
	if (!m->failed && r == 0)
		r = checkpoint_co_one(m, clean);
	meta_tail_end(m);
	return m->failed ? -ERR_POOL_FAILED : r;
}

int meta_checkpoint_co_replaying(struct meta *m)
{
	return m->conf.read_only ? 0 : checkpoint_co_one(m, false);
}

bool meta_is_failed(const struct meta *m)
{
	return m->failed;
}

void meta_fail(struct meta *m, int error, const char *why)
{
	if (m->failed)
		return;
	m->failed = true;
	meta_tail_end(m);
	wake_everybody(m);
	if (m->conf.hooks->failed)
		m->conf.hooks->failed(m->conf.ctx, error, why);
}
