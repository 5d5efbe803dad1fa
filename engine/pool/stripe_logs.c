/*
 * stripe_logs.c: the group that holds the stripe logs of all reactors, one slice each.
 *
 * Who says what. That the group is there, and how it is divided, stands in the label, because it goes with the label's epoch:
 * entries of one epoch lie in the slices that the labels of that epoch name. Where it lies stands in its record, like that of
 * any group (and is found after the journal's replay, which needs no log).
 *
 * Making it: the group's record, durable; zeros over all that may ever be a slice, flushed (a client may have written
 * there what looks like a log); labels with the feature bit. Only then are the logs attached, and before that nobody writes
 * to a parity group. A crash leaves a group without a name, which the next attempt finds and goes on with; or labels on
 * some disks, and logs that are empty.
 *
 * Recovery: slice by slice, entry by entry, to the columns that are there; then all disks are flushed, and only then does the
 * label of the new epoch make the old logs void. Replaying is idempotent as long as nothing else has been written, so a crash
 * anywhere before that label means that it is done again. Entries of one stripe are all in one slice, in order, since a
 * group has one home in an epoch. A pool that is opened read-only is replayed too, in memory (overlay.h): what a log holds may
 * have been acknowledged (FUA) and be nowhere else, and without it a lost column cannot be computed.
 */
#include <string.h>

#include "engine/base/mutant.h"
#include "engine/io/buf.h"
#include "engine/pool/overlay.h"
#include "engine/pool/pool_internal.h"
#include "raid/stripe_log.h"

#define SLICE_MAX_BYTES (4 * MIB)
#define ZERO_BYTES (256 * KIB)

static_assert(LABEL_LOG_SLICE_MIN_BYTES == STRIPE_LOG_MIN_BYTES, "smallest slice");

void pool_stripe_logs_init(struct ashlar_pool *p)
{
	uint64_t fit = p->label->group_bytes / STRIPE_LOG_MIN_BYTES;

	p->n_homes = (unsigned)MIN(MIN(p->n_reactors, POOL_LOG_SLICES_MAX), fit);
	p->log_slice_bytes = (uint32_t)ALIGN_DOWN(MIN(SLICE_MAX_BYTES, p->label->group_bytes / p->n_homes), META_PAGE_BYTES);
}

void pool_stripe_logs_note(struct ashlar_pool *p)
{
	if (!p->label->log_group_plus_1)
		return;
	p->label->log_slices = p->n_homes;
	p->label->log_slice_bytes = p->log_slice_bytes;
}

uint64_t pool_stripe_logs_bytes(const struct ashlar_pool *p)
{
	return MIN(p->label->group_bytes, POOL_LOG_SLICES_MAX * SLICE_MAX_BYTES);
}

static int slice_co_flush(void *ctx)
{
	struct pool_reactor *pr = ctx;

	return bdev_co_flush(raid_bdev(pr->raid));
}

/* As the label says, for the instance of that reactor. */
static struct stripe_log_conf slice_conf(struct ashlar_pool *p, unsigned slice, unsigned reactor)
{
	return (struct stripe_log_conf){
		.dev = raid_bdev(p->reactors[reactor].raid),
		.off_bytes = (p->label->log_group_plus_1 - 1) * p->label->group_bytes + (uint64_t)slice * p->label->log_slice_bytes,
		.len_bytes = p->label->log_slice_bytes,
		.pool = p->label->pool,
		.epoch = p->label->epoch,
		.slice = slice,
		.read_only = p->read_only,
		.co_flush = slice_co_flush,
		.ctx = &p->reactors[reactor],
	};
}

/* ---- attaching ---- */

static int attach_here(void *arg)
{
	struct ashlar_pool *p = arg;
	unsigned i = reactor_self()->index;
	struct stripe_log_conf c;

	if (i >= p->n_homes)
		return 0;
	c = slice_conf(p, i, i);
	raid_log_attach(p->reactors[i].raid, &c);
	return 0;
}

void pool_co_stripe_logs_attach(struct ashlar_pool *p)
{
	if (p->label->log_group_plus_1 && !p->read_only)
		pool_co_each_reactor(p, attach_here, p);
}

static int settle_here(void *arg)
{
	struct pool_reactor *pr = pool_here(arg);
	int r = 0;

	/* Ours shares the round with the log's, or comes after it. */
	if (pr->raid && raid_log_is_attached(pr->raid))
		r = bdev_co_flush(raid_bdev(pr->raid));
	(void)r; /* closing flushes once more, and looks */
	return 0;
}

void pool_co_stripe_logs_settle(struct ashlar_pool *p)
{
	pool_co_each_reactor(p, settle_here, p);
}

/* ---- making ---- */

struct find_log {
	bool found;
	uint64_t group;
};

static int find_log_group(void *arg, const struct pool_group_disk *rec)
{
	struct find_log *f = arg;

	if (rec->kind == THIN_GROUP_LOG) {
		f->found = true;
		f->group = le64_get(rec->group);
	}
	return 0;
}

/* Coroutine. The log group, of which there is a durable record. */
static int log_group_co_get(struct ashlar_pool *p, uint64_t *group)
{
	struct raid_profile prof = { RAID_RAID1, (uint8_t)pool_metadata_copies(p) };
	struct find_log f = { false, 0 };
	int r = pool_co_each_group(p, find_log_group, &f);

	*group = f.group;
	if (r < 0 || f.found)
		return r;
	r = meta_co_admit(p->meta, sizeof(struct pool_group_disk) + 64, true);
	if (r < 0)
		return r;
	thin_co_alloc_lock(p->thin);
	r = pool_co_group_make(p, THIN_GROUP_LOG, prof, group);
	thin_alloc_unlock(p->thin);
	if (r == 0)
		r = meta_co_commit(p->meta, meta_last_seq(p->meta));
	return r < 0 ? r : meta_co_wait_applied(p->meta, meta_durable_seq(p->meta));
}

static int logs_co_zero(struct ashlar_pool *p, uint64_t group)
{
	struct bdev *b = raid_bdev(p->reactors[0].raid);
	void *zeros = buf_alloc_zero(ZERO_BYTES);
	uint64_t off, len;
	int r = 0;

	for (off = 0; off < pool_stripe_logs_bytes(p) && r == 0; off += len) {
		len = MIN(ZERO_BYTES, pool_stripe_logs_bytes(p) - off);
		r = bdev_co_write(b, group * p->label->group_bytes + off, zeros, len, 0);
	}
	buf_free(zeros, ZERO_BYTES);
	return r < 0 ? r : bdev_co_flush(b);
}

int pool_co_stripe_logs_ensure(struct ashlar_pool *p, struct err *e)
{
	uint64_t group = 0;
	int r;

	CHECK(p->a->admin.owner == co_self());
	if (raid_log_is_attached(p->reactors[0].raid))
		return 0;
	r = log_group_co_get(p, &group);
	if (r == -ERR_POOL_FULL)
		return err_set(e, r, "pool %s is full: with the first volume with parity comes a log, which needs a group on each of %u "
			       "disks: delete or discard something", p->label->name, pool_metadata_copies(p));
	if (r == 0)
		r = logs_co_zero(p, group);
	if (r < 0)
		return err_set(e, r, "pool %s: the log for volumes with parity could not be made: %s", p->label->name, err_text(r));
	co_mutex_lock(&p->labels); /* no label is being written */
	p->label->incompat |= LABEL_INCOMPAT_PARITY;
	p->label->log_group_plus_1 = group + 1;
	pool_stripe_logs_note(p);
	co_mutex_unlock(&p->labels);
	r = pool_co_publish_labels(p);
	if (r < 0)
		return err_set(e, r, "pool %s: its labels could not be written: %s", p->label->name, err_text(r));
	pool_co_stripe_logs_attach(p);
	return 0;
}

/* ---- recovery ---- */

struct recovery {
	struct ashlar_pool *p;
	const struct stripe_log_entry *entry;
	const void *payload;
	uint64_t replayed, skipped;
};

static int replay_here(void *arg)
{
	struct recovery *rc = arg;

	return raid_co_replay(pool_here(rc->p)->raid, rc->entry, rc->payload);
}

/* Coroutine, read-only, nothing else in flight. What is written from now on goes to memory, and is read from there. */
static void disks_co_lay_over(struct ashlar_pool *p)
{
	unsigned i;

	for (i = 0; i < p->n_disks; i++) {
		struct pdisk *d = &p->disks[i];

		if (!d->disk || d->overlay)
			continue;
		d->disk = d->overlay = overlay_open(d->disk);
		pool_co_set_disk(p, i);
	}
}

void pool_stripe_logs_fini(struct ashlar_pool *p)
{
	unsigned i;

	for (i = 0; i < p->n_disks; i++)
		if (p->disks[i].overlay)
			overlay_close(p->disks[i].overlay);
}

/* Coroutine. */
static int recover_entry(void *arg, const struct stripe_log_entry *entry, const void *payload)
{
	struct recovery *rc = arg;
	struct ashlar_pool *p = rc->p;
	struct pgroup *g;
	int r = pool_co_pgroup_get(p, entry->group, &g);

	if (r == -ENOENT || (r == 0 && !pool_layout_is_parity(g->desc.layout))) {
		rc->skipped++; /* destroyed since, or its record was lost with all that was written to it */
		return 0;
	}
	if (r < 0)
		return r;
	if (p->read_only)
		disks_co_lay_over(p);
	rc->entry = entry;
	rc->payload = payload;
	rc->replayed++;
	return MUTANT(LOG_NOT_REPLAYED) ? 0 : reactor_co_call(p->w->reactors[raid_home(p->reactors[0].raid, entry->group)], replay_here, rc);
}

/* Coroutine. Without the logs, every region with a bit set may have rows whose parity is wrong. */
static int logs_co_give_up(struct ashlar_pool *p, unsigned flags, int r, struct err *e)
{
	uint64_t *groups, n_groups = 0, i;
	struct hash_node *n;
	size_t b;

	if (!(flags & ASHLAR_OPEN_FORCE_MISSING)) {
		r = err_default(e, r, "reading the stripe logs");
		err_prefix(e, "pool %s is not opened unless by force: ", p->label->name);
		return r;
	}
	pool_log(p, "the stripe logs cannot be replayed (%s); what was being written to volumes with parity when the pool was last "
		 "in use may be damaged", err_text(r));
	p->logs_lost = true; /* for groups that are loaded from now on */
	groups = xmalloc((p->pgroups.count + 1) * sizeof(*groups));
	for (b = 0; b < p->pgroups.n_buckets; b++) {
		for (n = p->pgroups.buckets[b]; n; n = n->next) {
			struct pgroup *g = container_of(n, struct pgroup, node);

			if (!pool_layout_is_parity(g->desc.layout))
				continue;
			g->unsync = g->dirty;
			groups[n_groups++] = g->desc.group;
		}
	}
	for (i = 0; i < n_groups; i++)
		pool_co_group_forget(p, groups[i]);
	xfree(groups);
	return 0;
}

int pool_co_stripe_logs_recover(struct ashlar_pool *p, unsigned flags, struct err *e)
{
	struct recovery rc = { .p = p };
	struct pgroup *g;
	uint64_t n;
	unsigned i;
	int r = 0;

	if (!p->label->log_group_plus_1 || p->label->clean)
		return 0;
	r = pool_co_pgroup_get(p, p->label->log_group_plus_1 - 1, &g);
	if (r == 0 && g->kind != THIN_GROUP_LOG)
		r = -ERR_FORMAT;
	for (i = 0; i < p->label->log_slices && r == 0; i++) {
		struct stripe_log_conf c = slice_conf(p, i, 0);

		r = stripe_log_co_read(&c, recover_entry, &rc, &n, e);
	}
	if (r == 0 && !p->read_only && rc.replayed)
		r = bdev_co_flush(raid_bdev(p->reactors[0].raid));
	if (rc.replayed || rc.skipped)
		pool_log(p, "%llu entries of the stripe logs replayed, %llu of groups that are gone", (unsigned long long)rc.replayed,
			 (unsigned long long)rc.skipped);
	return r < 0 ? logs_co_give_up(p, flags, r, e) : 0;
}

/* ---- disks that come back ---- */

struct slice_resync {
	struct ashlar_pool *p;
	int result;
};

/* Each range on the reactor that writes there: its locks are what keeps a write away. */
static int slice_resync_here(void *arg)
{
	struct slice_resync *s = arg;
	struct ashlar_pool *p = s->p;
	uint64_t slice = p->label->log_slice_bytes, all = pool_stripe_logs_bytes(p), off, end, len;
	unsigned i = reactor_self()->index;

	if (i >= p->label->log_slices)
		return 0;
	off = i * slice;
	end = i + 1 == p->label->log_slices ? all : off + slice; /* the last one has also what other epochs may use */
	for (; off < end && s->result == 0 && !p->stopping; off += len) {
		len = MIN(ZERO_BYTES, end - off);
		s->result = raid_co_resync_range(pool_here(p)->raid, p->label->log_group_plus_1 - 1, off, len, NULL);
	}
	return 0;
}

int pool_co_stripe_logs_resync(struct ashlar_pool *p)
{
	struct slice_resync s = { p, 0 };

	if (p->label->log_group_plus_1)
		pool_co_each_reactor(p, slice_resync_here, &s);
	return p->stopping ? -ECANCELED : s.result;
}
