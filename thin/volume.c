/*
 * volume.c: a volume as its clients see it: requests in and out, flush, opening and closing, resize.
 */
#include <stdio.h>

#include "thin/volume_internal.h"

/* ---- requests ---- */

/* Buckets of a quarter of a power of two. */
static unsigned latency_bucket(uint64_t ns)
{
	unsigned log2 = 63 - (unsigned)__builtin_clzll(ns | 4);

	return log2 * 4 + (unsigned)(ns >> (log2 - 2) & 3);
}

uint64_t thin_latency_bucket_ns(unsigned bucket)
{
	return (uint64_t)(4 + bucket % 4 + 1) << (MAX(bucket / 4, 2) - 2);
}

void thin_latency_add(struct thin *t, unsigned reactor, uint64_t counts[THIN_LATENCY_BUCKETS])
{
	struct thin_reactor *tr = thin_reactor_of(t, reactor);
	unsigned i;

	for (i = 0; i < THIN_LATENCY_BUCKETS; i++)
		counts[i] += atomic_load_explicit(&tr->latency[i], memory_order_relaxed);
}

void thin_req_end(struct io *io, int result)
{
	struct thin_req *q = thin_req_of(io);
	struct thin_volume *v = q->v;

	if (io->op <= IO_WRITE && !q->parked_ns && likely(!q->inner))
		thin_count(&v->tr->latency[latency_bucket(reactor_now_ns() - q->start_ns)], 1);
	if (q->counted)
		thin_grace_leave(v, q);
	thin_req_unchanging(q);
	thin_share_end(v, io);
	if (unlikely(--v->n_inflight == 0 && v->closing))
		co_queue_wake_all(&v->idle);
	io_done(io, result);
}

void thin_req_unchanging(struct thin_req *q)
{
	if (q->in_phase)
		thin_compare_leave(q->v, q);
	if (!q->changing)
		return;
	q->changing = false;
	if (unlikely(--q->v->n_changing == 0 && q->v->gate))
		co_queue_wake_all(&q->v->still);
}

static inline void req_changing(struct thin_req *q)
{
	q->v->n_changing += !q->changing;
	q->changing = true;
	thin_compare_enter(q->v, q);
}

void thin_req_end_later(struct io *io, int result)
{
	struct thin_req *q = thin_req_of(io);

	q->pending = 1;
	q->result = result;
	thin_child_nothing(q->v, io);
}

void thin_req_spawn(struct io *io)
{
	struct thin_req *q = thin_req_of(io);

	if (io->op == IO_READ)
		thin_grace_enter(q->v, q);
	else
		req_changing(q);
	switch ((enum io_op)io->op) {
	case IO_READ:
		co_spawn(CO_REQUEST, thin_read_co_run, io, "volume read");
		break;
	case IO_WRITE:
		co_spawn(CO_REQUEST, thin_write_co_run, io, "volume write");
		break;
	default:
		co_spawn(CO_REQUEST, thin_discard_co_run, io, "volume discard");
		break;
	}
}

/* ---- flush ---- */

/* Data first: the commit then finds the disks clean, so one round of flushes and one journal write do. */
int thin_volume_co_durable(struct thin_volume *v)
{
	uint64_t n = v->n_records;
	int r = bdev_co_flush(v->tr->space);

	if (r < 0 || v->n_committed >= n)
		return r;
	r = thin_co_commit(v->t);
	if (r == 0)
		v->n_committed = MAX(v->n_committed, n);
	return r;
}

/* Rounds: who comes while one is under way is in the next, however many they are. */
static void flush_co_run(void *arg)
{
	struct thin_volume *v = arg;
	struct list now, *n;
	int r;

	while (!list_is_empty(&v->flushes)) {
		list_init(&now);
		list_splice_back(&now, &v->flushes);
		r = thin_volume_co_durable(v);
		while ((n = list_pop_front(&now)))
			thin_req_end(list_entry(n, struct io, link), r);
	}
	v->flushing = false;
}

static void flush_submit(struct thin_volume *v, struct io *io)
{
	if (v->n_records == v->n_committed) {
		thin_child_flush(v, io);
		return;
	}
	list_push_back(&v->flushes, &io->link);
	if (v->flushing)
		return;
	v->flushing = true;
	co_spawn(CO_REQUEST, flush_co_run, v, "volume flush");
}

/* ---- the bdev ---- */

static void slow_submit(struct thin_volume *v, struct io *io)
{
	thin_count(&v->slow, 1);
	thin_req_spawn(io);
}

static void volume_start(struct thin_volume *v, struct io *io)
{
	if (unlikely(!list_is_empty(&v->compares)) && thin_compare_holds(v, io))
		return;
	if (likely(!thin_req_of(io)->inner)) {
		if (unlikely(v->begun >= v->tr->share_max) && thin_share_wait(v, io))
			return;
		thin_share_begin(v, io);
	}
	if (io->op == IO_READ) {
		if (likely(thin_read_try(v, io)))
			thin_count(&v->fast, 1);
		else
			slow_submit(v, io);
		return;
	}
	if (io->op != IO_WRITE) {
		slow_submit(v, io);
		return;
	}
	req_changing(thin_req_of(io));
	if (likely(thin_write_try(v, io)))
		thin_count(&v->fast, 1);
	else
		slow_submit(v, io);
}

/* False: it is refused, and will be answered. */
static inline bool req_begin(struct thin_volume *v, struct io *io, bool inner)
{
	struct thin_req *q = thin_req_of(io);

	*q = (struct thin_req){ .v = v, .start_ns = reactor_now_ns(), .inner = inner };
	v->n_inflight++;
	if (unlikely(v->closing)) {
		thin_req_end_later(io, -ESHUTDOWN);
		return false;
	}
	if (io->op == IO_FLUSH)
		return true;
	CHECK(bdev_check_range(&v->bdev, io->off_bytes, io->len_bytes) == 0);
	CHECK(io->op > IO_WRITE || io->len_bytes <= v->bdev.max_bytes);
	if (unlikely(v->bdev.read_only) && io->op != IO_READ) {
		thin_req_end_later(io, -EROFS);
		return false;
	}
	return true;
}

static inline void req_route(struct thin_volume *v, struct io *io)
{
	if (io->op == IO_FLUSH)
		flush_submit(v, io);
	else if (unlikely(v->gate > (io->op == IO_READ)))
		list_push_back(&v->held, &io->link);
	else
		volume_start(v, io);
}

static void forward_start(struct thin_volume *v, struct io *io)
{
	if (unlikely(!list_is_empty(&v->compares)) && thin_compare_holds(v, io))
		return;
	if (io->op != IO_READ && io->op != IO_FLUSH)
		thin_compare_enter(v, thin_req_of(io));
	thin_forward_submit(v, io);
}

static void volume_submit(struct bdev *b, struct io *io)
{
	struct thin_volume *v = container_of(b, struct thin_volume, bdev);

	if (unlikely(!req_begin(v, io, false)))
		return;
	if (io->op == IO_READ) {
		thin_count(&v->reads, 1);
		thin_count(&v->bytes_read, io->len_bytes);
	} else if (io->op == IO_WRITE) {
		thin_count(&v->writes, 1);
		thin_count(&v->bytes_written, io->len_bytes);
	}
	if (likely(!v->detour)) {
		req_route(v, io);
		return;
	}
	if (v->limiter && io->op != IO_FLUSH && !thin_limit_pass(v, io))
		return;
	if (v->forward)
		forward_start(v, io);
	else
		req_route(v, io);
}

void thin_req_go_on(struct io *io)
{
	struct thin_volume *v = thin_req_of(io)->v;

	if (bdev_check_range(&v->bdev, io->off_bytes, io->len_bytes) < 0)
		thin_req_end(io, -ERANGE); /* it is smaller now */
	else if (v->forward)
		forward_start(v, io);
	else
		req_route(v, io);
}

static int volume_co_status(struct bdev *b, uint64_t off_bytes, uint64_t len_bytes, struct bdev_extent *ext, size_t *n)
{
	struct thin_volume *v = container_of(b, struct thin_volume, bdev);
	int r;

	if (likely(!v->forward))
		return thin_volume_co_status(v, off_bytes, len_bytes, ext, n);
	if (v->closing)
		return -ESHUTDOWN;
	if (bdev_check_range(v->forward, off_bytes, len_bytes) < 0)
		return -ERANGE;
	v->n_inflight++;
	r = bdev_co_status(v->forward, off_bytes, len_bytes, ext, n);
	if (--v->n_inflight == 0 && v->closing)
		co_queue_wake_all(&v->idle);
	return r;
}

static const struct bdev_ops volume_ops = {
	.submit = volume_submit, .co_status = volume_co_status, .cancel = thin_volume_cancel, .co_compare_write = thin_volume_co_compare_write,
};

static void inner_submit(struct bdev *b, struct io *io)
{
	struct thin_volume *v = container_of(b, struct thin_volume, inner);

	if (likely(req_begin(v, io, true)))
		req_route(v, io);
}

static int inner_co_status(struct bdev *b, uint64_t off_bytes, uint64_t len_bytes, struct bdev_extent *ext, size_t *n)
{
	return thin_volume_co_status(container_of(b, struct thin_volume, inner), off_bytes, len_bytes, ext, n);
}

static const struct bdev_ops inner_ops = { .submit = inner_submit, .co_status = inner_co_status };

struct bdev *thin_volume_bdev(struct thin_volume *v)
{
	return &v->bdev;
}

struct bdev *thin_volume_inner(struct thin_volume *v)
{
	return &v->inner;
}

struct reactor *thin_volume_home(struct thin *t, uint64_t id)
{
	struct world *w = thin_conf_of(t)->home->world;

	return w->reactors[id % w->n_reactors];
}

/* ---- open, close ---- */

/* Where its clusters are leased from. */
static void volume_set_class(struct thin_volume *v, struct thin_class cls)
{
	const struct thin_conf *c = thin_conf_of(v->t);

	v->pool = thin_lease_pool_get(v->tr, cls, false);
	v->runs = c->class_redirects && c->class_redirects(cls) ? thin_lease_pool_get(v->tr, cls, true) : NULL;
}

int thin_volume_co_open(struct thin *t, uint64_t id, uint64_t size_bytes, struct thin_class cls, uint64_t full_wait_ns,
			bool read_only, struct thin_volume **out)
{
	const struct thin_conf *c = thin_conf_of(t);
	struct thin_volume *v;

	CHECK(reactor_self() == thin_volume_home(t, id));
	if (!IS_ALIGNED(size_bytes, c->block_bytes))
		return -EINVAL;
	v = xcalloc(1, sizeof(*v));
	v->t = t;
	v->tr = thin_reactor_of(t, reactor_self()->index);
	v->id = id;
	v->full_wait_ns = full_wait_ns;
	v->n_records = v->n_cleared = 1;
	volume_set_class(v, cls);
	snprintf(v->name, sizeof(v->name), "volume %llu", (unsigned long long)id);
	v->bdev = (struct bdev){ .ops = &volume_ops, .name = v->name, .size_bytes = size_bytes, .block_bytes = c->block_bytes,
				 .opt_bytes = c->cluster_bytes, .max_bytes = THIN_REQUEST_BYTES_MAX, .copies = 1,
				 .read_only = c->read_only || read_only, .can_discard = true };
	v->inner = v->bdev;
	v->inner.ops = &inner_ops;
	hash_init(&v->leaves);
	list_init(&v->leaf_list);
	range_lock_init(&v->alloc_lock);
	thin_grace_init(&v->grace);
	list_init(&v->flushes);
	list_init(&v->parked);
	list_init(&v->held);
	list_init(&v->line);
	co_queue_init(&v->still);
	v->park_timer.fire = thin_park_timer_fired;
	co_queue_init(&v->idle);
	list_init(&v->compares);
	list_init(&v->compare_held);
	range_lock_init(&v->compare_lock);
	co_queue_init(&v->phase_empty);
	co_queue_init(&v->thawed);
	list_push_back(&v->tr->volumes, &v->link);
	*out = v;
	return 0;
}

void thin_volume_shut(struct thin_volume *v)
{
	v->closing = true;
	thin_limit_end(v);
	co_queue_wake_all(&v->thawed);
	thin_park_fail_all(v, -ESHUTDOWN);
}

void thin_volume_co_close(struct thin_volume *v)
{
	thin_volume_shut(v);
	while (v->n_inflight)
		co_queue_wait(&v->idle);
	CHECK(!v->gate && range_lock_is_idle(&v->alloc_lock) && list_is_empty(&v->flushes) && list_is_empty(&v->parked));
	CHECK(!v->begun && list_is_empty(&v->line));
	thin_grace_fini(&v->grace);
	thin_leaves_drop(v);
	hash_fini(&v->leaves);
	list_del(&v->link);
	xfree(v);
}

static void volume_set_size(struct thin_volume *v, uint64_t size_bytes)
{
	v->bdev.size_bytes = v->inner.size_bytes = size_bytes;
}

/* ---- frozen ---- */

void thin_volume_co_freeze(struct thin_volume *v, bool reads)
{
	CHECK(!v->gate);
	v->gate = reads ? THIN_GATE_ALL : THIN_GATE_WRITES;
	while (v->n_changing)
		co_queue_wait(&v->still);
	if (reads)
		thin_grace_co_wait(v);
}

bool thin_volume_is_frozen(const struct thin_volume *v)
{
	return v->gate != THIN_GATE_OPEN;
}

void thin_volume_set_shared(struct thin_volume *v)
{
	CHECK(v->gate && !v->n_changing);
	thin_leaves_set_shared(v);
}

void thin_volume_map_replaced(struct thin_volume *v, uint64_t size_bytes, struct thin_class cls)
{
	CHECK(v->gate == THIN_GATE_ALL && !v->n_changing);
	thin_leaves_forget(v);
	volume_set_class(v, cls);
	volume_set_size(v, size_bytes);
	v->n_cleared = ++v->n_records; /* not durable yet; until it is, a crash brings the old map back */
}

static void stray_forward(struct thin_volume *v, struct io *io)
{
	thin_req_of(io)->stray = false;
	thin_forward_submit(v, io);
}

void thin_volume_resume(struct thin_volume *v, struct io *io)
{
	if (v->closing && !v->forward) /* who has gone elsewhere is served there to the end */
		thin_req_end(io, -ESHUTDOWN);
	else if (bdev_check_range(&v->bdev, io->off_bytes, io->len_bytes) < 0)
		thin_req_end(io, -ERANGE); /* it is smaller now */
	else if (v->forward && !thin_req_of(io)->inner)
		forward_start(v, io);
	else if (v->forward && thin_req_of(io)->stray)
		stray_forward(v, io);
	else
		req_route(v, io);
}

static void join_done(struct io *io)
{
	co_join_done(io->owner, io->result);
}

void thin_volume_start_inner(struct thin_volume *v, struct io *io, struct co_join *j)
{
	io->done = join_done;
	io->owner = j;
	if (req_begin(v, io, true))
		volume_start(v, io);
}

void thin_volume_thaw(struct thin_volume *v)
{
	struct list ios, *n;

	v->gate = THIN_GATE_OPEN;
	list_init(&ios);
	list_splice_back(&ios, &v->held);
	while ((n = list_pop_front(&ios)))
		thin_volume_resume(v, list_entry(n, struct io, link));
	co_queue_wake_all(&v->thawed);
	thin_park_check(v);
}

void thin_volume_set_forward(struct thin_volume *v, struct bdev *to)
{
	CHECK(v->gate == THIN_GATE_ALL && !v->n_changing && !v->no_parking);
	CHECK(!to || (to->size_bytes >= v->bdev.size_bytes && to->block_bytes <= v->bdev.block_bytes));
	/* What an earlier layer had when it ended is by the inner bdev, and may wait for space: it is not to pass by this one. */
	thin_park_hold(v, to && !v->forward);
	v->forward = to;
	v->detour = v->forward || v->limiter;
}

bool thin_volume_is_forwarded(const struct thin_volume *v)
{
	return v->forward != NULL;
}

void thin_volume_set_parking(struct thin_volume *v, bool on)
{
	CHECK(v->forward);
	v->no_parking = !on;
	if (!on)
		thin_park_fail_all(v, -ECANCELED);
}

/* ---- changes ---- */

/* Coroutine. After it nobody writes at or after the end. */
static void resize_co_drain(struct thin_volume *v, uint64_t old_bytes)
{
	uint64_t first = v->bdev.size_bytes >> v->tr->sub_shift, last = (old_bytes - 1) >> v->tr->sub_shift;
	struct range_hold hold;

	/* Coroutines look at the size just before they queue for the lock: who has not yet will see the new one. */
	range_co_lock(&v->alloc_lock, first, last - first + 1, false, &hold);
	range_unlock(&v->alloc_lock, &hold);
	thin_grace_co_wait(v);
}

int thin_volume_co_resize(struct thin_volume *v, uint64_t size_bytes)
{
	uint64_t old = v->bdev.size_bytes;
	int r = 0;

	if (!IS_ALIGNED(size_bytes, v->bdev.block_bytes))
		return -EINVAL;
	if (v->closing)
		return -ESHUTDOWN;
	if (v->forward)
		return -EBUSY;
	volume_set_size(v, size_bytes);
	if (size_bytes >= old)
		return 0;
	CHECK(!v->gate); /* admin lock */
	v->n_inflight++;
	resize_co_drain(v, old);
	r = thin_co_clear(v, size_bytes, old - size_bytes, true, true);
	if (--v->n_inflight == 0 && v->closing)
		co_queue_wake_all(&v->idle);
	return r;
}

void thin_volume_set_full_wait(struct thin_volume *v, uint64_t ns)
{
	v->full_wait_ns = ns;
	thin_park_check(v);
}

static uint64_t stat_of(const _Atomic uint64_t *c)
{
	return atomic_load_explicit(c, memory_order_relaxed);
}

void thin_volume_stats_get(const struct thin_volume *v, struct thin_volume_stats *out)
{
	*out = (struct thin_volume_stats){
		.reads = stat_of(&v->reads),
		.writes = stat_of(&v->writes),
		.bytes_read = stat_of(&v->bytes_read),
		.bytes_written = stat_of(&v->bytes_written),
		.fast = stat_of(&v->fast),
		.slow = stat_of(&v->slow),
		.redirected = stat_of(&v->redirected),
		.merged = stat_of(&v->merged),
		.parked = stat_of(&v->n_parked),
		.limited = stat_of(&v->n_limited),
		.limited_ns = stat_of(&v->limited_ns),
		.limit_waiting = stat_of(&v->n_limit_waiting),
		.full_waiting = atomic_load_explicit(&v->full_waiting, memory_order_relaxed),
	};
}
