/*
 * The instance: its bdev, its disks, its request objects. How a request goes is told in raid_impl.h.
 */
#include "raid/raid_impl.h"

#define LEASE_IDLE_NS (5 * 1000000000ULL)

/* ---- requests ---- */

struct raid_req *raid_req_get(struct raid *r, struct io *io)
{
	struct list *n = list_pop_front(&r->free_reqs);
	struct raid_req *q = n ? list_entry(n, struct raid_req, link) : xmalloc(sizeof(*q));

	r->n_reqs++;
	q->raid = r;
	q->g = NULL;
	q->parent = io;
	q->group = io->off_bytes / r->conf.group_bytes;
	q->off_bytes = io->off_bytes - q->group * r->conf.group_bytes;
	q->locked = false;
	return q;
}

void raid_req_end(struct raid_req *q, int result)
{
	struct raid *r = q->raid;
	struct io *io = q->parent;
	bool is_held = unlikely(r->unsettled) && !result && io->op != IO_READ && !(io->flags & IO_REPAIR) && q->g && q->g->redundant;

	CHECK(!q->locked);
	if (q->g)
		raid_leave(q);
	list_push_front(&r->free_reqs, &q->link);
	r->n_reqs--;
	if (is_held)
		raid_hold_write(r, io);
	else
		raid_complete(r, io, result);
}

/* A request that ends while its submitter is still in bdev_submit() is told at the next turn. */
void raid_complete(struct raid *r, struct io *io, int result)
{
	if (likely(!r->submitting)) {
		io_done(io, result);
		return;
	}
	io->result = result;
	list_push_back(&r->done, &io->link);
	if (list_is_empty(&r->done_task.link))
		reactor_ready(&r->done_task);
}

static void run_done(struct task *t)
{
	struct raid *r = container_of(t, struct raid, done_task);
	struct list over, *n;

	list_init(&over);
	list_splice_back(&over, &r->done);
	while ((n = list_pop_front(&over))) {
		struct io *io = list_entry(n, struct io, link);

		io->done(io);
	}
}

static void req_co_main(void *arg)
{
	struct raid_req *q = arg;
	struct raid_locks lk;
	int res = raid_co_admit(q, &lk);

	if (res == RAID_FORWARDED)
		return;
	if (!res) {
		res = q->g->shape && q->parent->op != IO_READ ? raid_shape_co_write(q->g, q) : q->g->level->co_run(q->g, q);
		raid_unlock(&lk);
	}
	raid_req_end(q, res);
}

static void raid_submit(struct bdev *b, struct io *io)
{
	struct raid *r = container_of(b, struct raid, bdev);
	struct raid_group *g;
	struct raid_req *q;

	if (unlikely(r->is_shut)) {
		r->submitting++;
		raid_complete(r, io, -ERR_POOL_FAILED);
		r->submitting--;
		return;
	}
	if (io->op == IO_FLUSH) {
		raid_flush_submit(r, io);
		return;
	}
	CHECK(bdev_check_range(b, io->off_bytes, io->len_bytes) == 0);
	q = raid_req_get(r, io);
	CHECK(q->off_bytes + io->len_bytes <= r->conf.group_bytes);
	if (io->op == IO_READ)
		r->stats.reads++;
	else
		r->stats.writes++;
	g = raid_group_find(r, q->group);
	if (likely(g && g->open && g->level->try_start && (!g->away || (g->parity && !g->shaping)) &&
		   (!g->shape || io->op == IO_READ) && q->off_bytes + io->len_bytes <= g->desc.size_bytes &&
		   g->level->try_start(g, q))) {
		r->stats.fast++;
		return;
	}
	r->stats.slow++;
	r->submitting++;
	co_start(CO_SERVICE, req_co_main, q, "raid request");
	r->submitting--;
}

static const struct bdev_ops raid_ops = { .submit = raid_submit };

/* ---- the instance ---- */

struct raid *raid_open(const struct raid_conf *conf)
{
	struct raid *r = xcalloc(1, sizeof(*r));

	CHECK(conf->group_bytes && conf->block_bytes && conf->hooks);
	r->conf = *conf;
	if (!r->conf.lease_idle_ns)
		r->conf.lease_idle_ns = LEASE_IDLE_NS;
	r->reactor = reactor_self();
	r->bdev.ops = &raid_ops;
	r->bdev.name = "raid";
	r->bdev.size_bytes = conf->size_bytes;
	r->bdev.block_bytes = conf->block_bytes;
	r->bdev.opt_bytes = conf->block_bytes;
	r->bdev.max_bytes = RAID_MAX_BYTES;
	r->bdev.copies = RAID_COPIES_MAX;
	r->bdev.can_discard = true;
	r->leg_max_bytes = RAID_MAX_BYTES;
	hash_init(&r->groups);
	list_init(&r->free_reqs);
	list_init(&r->done);
	list_init(&r->held);
	list_init(&r->done_task.link);
	r->done_task.run = run_done;
	raid_flush_init(r);
	raid_legs_init(r);
	return r;
}

void raid_close(struct raid *r)
{
	struct list *n;

	CHECK(!r->n_reqs && !r->flush.running && list_is_empty(&r->done) && list_is_empty(&r->held));
	stripe_redo_close(r);
	if (r->log)
		stripe_log_close(r->log);
	raid_groups_free(r);
	raid_legs_fini(r);
	while ((n = list_pop_front(&r->free_reqs)))
		xfree(list_entry(n, struct raid_req, link));
	xfree(r);
}

void raid_set_peers(struct raid *r, struct raid *const *peers, unsigned n_peers, unsigned n_homes)
{
	CHECK(n_peers <= REACTORS_MAX && n_homes && n_homes <= n_peers);
	for (unsigned i = 0; i < n_peers; i++)
		r->peers[i] = peers[i];
	r->n_peers = n_peers;
	r->n_homes = n_homes;
}

unsigned raid_home(const struct raid *r, uint64_t group)
{
	return r->n_homes ? (unsigned)(group % r->n_homes) : 0;
}

void raid_log_attach(struct raid *r, const struct stripe_log_conf *c)
{
	struct stripe_log_conf ours = *c;

	CHECK(!r->log);
	ours.press = stripe_redo_press;
	ours.press_ctx = r;
	r->log = stripe_log_open(&ours);
}

void raid_shut(struct raid *r)
{
	r->is_shut = true;
}

bool raid_log_is_attached(const struct raid *r)
{
	return r->log != NULL;
}

bool raid_log_keeps(const struct raid *r)
{
	return r->log && (stripe_log_keeps(r->log) || stripe_redo_is_any_due(r));
}

struct bdev *raid_bdev(struct raid *r)
{
	return &r->bdev;
}

void raid_set_disk(struct raid *r, unsigned index, struct disk *disk, enum raid_disk_state state)
{
	struct raid_disk_slot *s;
	enum raid_disk_state old;

	CHECK(index < RAID_DISKS_MAX && (disk || state == RAID_DISK_ABSENT));
	s = &r->disks[index];
	old = s->state;
	s->disk = disk;
	s->state = state;
	s->flush_error = 0;
	raid_legs_disk_set(r, index);
	if (disk && disk->bdev.max_bytes)
		r->leg_max_bytes = MIN(r->leg_max_bytes, ALIGN_DOWN(disk->bdev.max_bytes, r->conf.block_bytes));
	if (state < old)
		raid_groups_disk_lost(r, index);
}

void raid_set_flush_error(struct raid *r, unsigned index, int error)
{
	CHECK(index < RAID_DISKS_MAX);
	if (!r->disks[index].flush_error)
		r->disks[index].flush_error = error;
}

enum raid_disk_state raid_disk_state(const struct raid *r, unsigned index)
{
	CHECK(index < RAID_DISKS_MAX);
	return r->disks[index].state;
}

static bool desc_col_is_current(const struct raid *r, const struct raid_desc *d, unsigned col, bool redundant)
{
	const struct raid_disk_slot *s = &r->disks[d->cols[col].disk];

	return raid_slot_is_there(s) && (!redundant || s->state == RAID_DISK_ONLINE);
}

/* Metadata keeps two copies even on one disk. */
static bool desc_col_shares_disk(const struct raid_desc *d, unsigned set, unsigned col)
{
	for (unsigned i = set; i < col; i++)
		if (d->cols[i].disk == d->cols[col].disk)
			return true;
	return false;
}

int raid_desc_redundancy(const struct raid *r, const struct raid_desc *d)
{
	bool parity = d->layout == RAID_RAID5 || d->layout == RAID_RAID6;
	int spare = parity ? (int)(d->n_cols - raid_data_cols(d)) : (int)d->copies - 1, least = spare;
	unsigned lost = 0;

	for (unsigned set = 0; set < d->n_cols; set += d->copies) {
		unsigned current = 0;

		for (unsigned i = 0; i < d->copies; i++)
			current += desc_col_is_current(r, d, set + i, parity || d->copies > 1) && !desc_col_shares_disk(d, set, set + i);
		lost += current == 0;
		if (!parity)
			least = MIN(least, (int)current - 1);
	}
	if (parity)
		least = spare - (int)lost;
	return MAX(least, -1);
}

bool raid_desc_is_readable(const struct raid *r, const struct raid_desc *d)
{
	return raid_desc_redundancy(r, d) >= 0;
}

/* Counters of another thread, perhaps, word by word: each may be a moment old. */
__attribute__((no_sanitize("thread"))) static void stats_copy(const struct raid *r, struct raid_stats *out)
{
	const volatile uint64_t *from = (const volatile uint64_t *)&r->stats;
	uint64_t *to = (uint64_t *)out;
	size_t i;

	_Static_assert(sizeof(*out) % sizeof(uint64_t) == 0, "counters");
	for (i = 0; i < sizeof(*out) / sizeof(uint64_t); i++)
		to[i] = from[i];
}

void raid_stats_get(const struct raid *r, struct raid_stats *out)
{
	struct stripe_log_stats s;

	stats_copy(r, out);
	if (!r->log)
		return;
	stripe_log_stats_get(r->log, &s);
	out->log_writes = s.batches;
	out->log_bytes = s.bytes;
}
