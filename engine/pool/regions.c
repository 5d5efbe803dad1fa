/*
 * regions.c: dirty regions: which parts of redundant groups may have columns that disagree, and bringing them in step.
 *
 * Per group, a mask of 64 bits (array `regions`). A bit is durable before the first write to its region: reactors ask for
 * leases, and a lease is granted once the journal has the bit. It is cleared lazily: when no reactor holds a lease of the
 * region any more, every member disk is ONLINE, and all disks have been flushed since.
 *
 * When a group is loaded after opening, the bits that are set were set before: by a crash, or because a member was away
 * when the region was written. Such a region is neither read nor written before it has been synced: all allocated clusters
 * of it are copied from the first current column to those that differ, and flushed. After that every copy gives the same
 * answer, whichever disk is lost next. A background job does this for all regions; a client that comes earlier has its
 * region done first. What disks have missed that come back: resync.c.
 */
#include <string.h>

#include "engine/base/mutant.h"
#include "engine/pool/life.h"

#define TICK_NS (2 * NS_PER_SEC)
#define AHEAD_BYTES (32 * MIB)

static struct ashlar_pool *pool_of(void *ctx)
{
	return ((struct pool_reactor *)ctx)->pool;
}

static unsigned reactor_of(void *ctx)
{
	return ((struct pool_reactor *)ctx)->reactor->index;
}

struct region_call {
	struct ashlar_pool *p;
	unsigned reactor;
	uint64_t group, mask;
	struct raid_group_info *info;
	unsigned disk;
	enum io_op op;
	int error;
};

/* ---- loading ---- */

bool pool_members_are_online(const struct ashlar_pool *p, const struct raid_desc *d)
{
	unsigned i;

	for (i = 0; i < d->n_cols; i++)
		if (p->disks[d->cols[i].disk].state != PDISK_ONLINE)
			return false;
	return true;
}

static int load_there(void *arg)
{
	struct region_call *c = arg;
	struct pgroup *g;
	int r = pool_co_pgroup_get(c->p, c->group, &g);

	if (r < 0)
		return r;
	pool_group_info(c->p, g, c->info);
	return 0;
}

static int hook_group_load(void *ctx, uint64_t group, struct raid_group_info *info)
{
	struct region_call c = { .p = pool_of(ctx), .group = group, .info = info };

	return reactor_co_call(c.p->w->reactors[0], load_there, &c);
}

/* ---- leases ---- */

/* What to record as dirty for a request: some way ahead of it, so that a sequential writer pays for a commit once per
 * AHEAD_BYTES. The price is more to compare after a crash, of what is allocated there. */
static uint64_t lease_ahead(const struct pgroup *g, uint64_t mask)
{
	uint64_t region = DIV_UP(g->desc.size_bytes, RAID_REGIONS), n = MIN(AHEAD_BYTES / region, RAID_REGIONS - 1);
	uint64_t ahead = mask;

	while (n--)
		ahead |= ahead << 1;
	return ahead;
}

static int lease_there(void *arg)
{
	struct region_call *c = arg;
	struct ashlar_pool *p = c->p;
	struct pool_rec_regions rec;
	struct pgroup *g;
	int r = p->meta ? pool_co_pgroup_get(p, c->group, &g) : -ESHUTDOWN; /* closed, but for writes that are due (stripe_redo.c) */

	/* The journal itself lives in the others, and checksums tell their copies apart. */
	if (r < 0 || g->kind != THIN_GROUP_DATA || MUTANT(DIRTY_NOT_RECORDED))
		return r;
	g->lease[c->reactor] |= c->mask; /* from now on nobody clears these bits */
	g->touched |= c->mask;
	if (c->mask & ~g->dirty) {
		g->touched |= lease_ahead(g, c->mask);
		g->dirty |= lease_ahead(g, c->mask);
		rec.group = le64_make(c->group);
		rec.mask = le64_make(g->dirty);
		g->dirty_seq = meta_record(p->meta, POOL_REC_REGIONS, &rec, sizeof(rec));
	}
	return g->dirty_seq ? meta_co_commit(p->meta, g->dirty_seq) : 0;
}

static int hook_lease(void *ctx, uint64_t group, uint64_t mask)
{
	struct region_call c = { .p = pool_of(ctx), .reactor = reactor_of(ctx), .group = group, .mask = mask };

	return reactor_co_call(c.p->w->reactors[0], lease_there, &c);
}

struct lease_back {
	struct msg msg;
	struct ashlar_pool *p;
	unsigned reactor;
	uint64_t group, mask;
};

static void lease_back_arrived(struct msg *m)
{
	struct lease_back *b = container_of(m, struct lease_back, msg);
	struct hash_node *n = hash_find(&b->p->pgroups, b->group);

	if (n)
		container_of(n, struct pgroup, node)->lease[b->reactor] &= ~b->mask;
	xfree(b);
}

static void hook_lease_return(void *ctx, uint64_t group, uint64_t mask)
{
	struct lease_back *b = xcalloc(1, sizeof(*b));

	b->msg.run = lease_back_arrived;
	b->p = pool_of(ctx);
	b->reactor = reactor_of(ctx);
	b->group = group;
	b->mask = mask;
	if (b->reactor == 0) /* what home asks for itself goes no other way: it must not be overtaken */
		lease_back_arrived(&b->msg);
	else
		reactor_post(b->p->w->reactors[0], &b->msg);
}

/* ---- syncing ---- */

struct publish {
	struct ashlar_pool *p;
	uint64_t group, mask;
	bool missed;
};

static int publish_here(void *arg)
{
	struct publish *u = arg;
	struct raid *raid = pool_here(u->p)->raid;

	if (u->missed)
		raid_set_missed(raid, u->group, u->mask);
	else
		raid_clear_unsync(raid, u->group, u->mask);
	return 0;
}

/* Nothing beyond the range, even of a cluster that goes on there: the region beside may be in sync, and written by another
 * reactor right now. */
int pool_co_range_resync(struct ashlar_pool *p, struct pgroup *g, uint64_t off, uint64_t end, bool paced)
{
	uint64_t cluster = p->label->cluster_bytes, group = g->desc.group;
	uint64_t per_group = p->label->group_bytes / cluster, first, n, i, k, most, from, to, copied;
	uint8_t bits[64];
	int r;

	for (first = off / cluster; first * cluster < end; first += n) {
		n = MIN(DIV_UP(end, cluster) - first, sizeof(bits) * 8);
		r = thin_co_allocated(p->thin, group * per_group + first, (unsigned)n, bits);
		if (r < 0)
			return r;
		for (i = 0; i < n; i += k) {
			k = 1;
			most = (paced ? pool_pace_unit(p, MIB) : MIB) / cluster;
			if (!(bits[i / 8] >> (i % 8) & 1))
				continue;
			while (i + k < n && k < most && bits[(i + k) / 8] >> ((i + k) % 8) & 1)
				k++;
			from = MAX((first + i) * cluster, off);
			to = MIN((first + i + k) * cluster, end);
			r = paced ? pool_co_pace(p, to - from) : p->failed ? -ECANCELED : 0;
			if (r == 0)
				r = raid_co_resync_range(p->reactors[0].raid, group, from, to - from, &copied);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

void pool_group_caught_up(struct pgroup *g, uint64_t mask, uint64_t stale_gen)
{
	if (g->caught_up_gen != stale_gen)
		g->caught_up = 0;
	g->caught_up_gen = stale_gen;
	g->caught_up |= mask;
}

/* Coroutine on the home. All regions of mask that need it; one at a time per group. */
static int group_co_sync(struct ashlar_pool *p, struct pgroup *g, uint64_t mask)
{
	uint64_t region = DIV_UP(g->desc.size_bytes, RAID_REGIONS);
	struct publish u = { .p = p, .group = g->desc.group };
	uint64_t stale_gen;
	unsigned i;
	int r = 0;

	co_mutex_lock(&g->sync);
	for (i = 0; i < RAID_REGIONS && r == 0; i++) {
		if (!(mask & g->unsync & 1ULL << i))
			continue;
		if (p->stopping) {
			r = -ECANCELED;
			break;
		}
		stale_gen = p->stale_gen;
		r = MUTANT(RESYNC_SKIPPED) ? 0 : pool_co_range_resync(p, g, i * region, MIN((i + 1) * region, g->desc.size_bytes), false);
		if (r == 0)
			r = bdev_co_flush(raid_bdev(p->reactors[0].raid));
		if (r < 0)
			break;
		g->unsync &= ~(1ULL << i);
		pool_group_caught_up(g, 1ULL << i, stale_gen);
		p->resync_done_bytes += region;
		u.mask = 1ULL << i;
		pool_co_each_reactor(p, publish_here, &u);
	}
	co_mutex_unlock(&g->sync);
	return r;
}

/* A range that no reactor touches meanwhile. */
struct freeze {
	struct ashlar_pool *p;
	uint64_t group, off, len;
};

static int freeze_here(void *arg)
{
	struct freeze *f = arg;

	raid_co_freeze(pool_here(f->p)->raid, f->group, f->off, f->len);
	return 0;
}

static int unfreeze_here(void *arg)
{
	struct freeze *f = arg;

	raid_unfreeze(pool_here(f->p)->raid, f->group);
	return 0;
}

/* Coroutine on the home. Regions that were in sync until a write failed that no disk could be put out for. Unlike those of
 * before the opening they are in use, by other reactors too. */
static int group_co_sync_again(struct ashlar_pool *p, struct pgroup *g, uint64_t mask)
{
	uint64_t region = DIV_UP(g->desc.size_bytes, RAID_REGIONS);
	unsigned i, k;
	int r = 0;

	co_mutex_lock(&g->sync);
	for (i = 0; i < RAID_REGIONS && r == 0; i++) {
		struct freeze f = { p, g->desc.group, i * region, MIN(region, g->desc.size_bytes - MIN(i * region, g->desc.size_bytes)) };

		if (!(mask & 1ULL << i))
			continue;
		pool_co_each_reactor(p, freeze_here, &f);
		for (k = 0; k < p->n_reactors; k++)
			g->lease[k] &= ~(1ULL << i); /* freezing has dropped them */
		r = pool_co_range_resync(p, g, f.off, f.off + f.len, false);
		if (r == 0)
			r = bdev_co_flush(raid_bdev(p->reactors[0].raid));
		g->touched |= 1ULL << i;
		pool_co_each_reactor(p, unfreeze_here, &f);
	}
	co_mutex_unlock(&g->sync);
	return r;
}

int pool_co_group_sync(struct ashlar_pool *p, struct pgroup *g)
{
	return group_co_sync(p, g, ~0ULL);
}

static int sync_there(void *arg)
{
	struct region_call *c = arg;
	struct pgroup *g;
	uint64_t again;
	int r = pool_co_pgroup_get(c->p, c->group, &g);

	if (r < 0)
		return r;
	again = g->kind != THIN_GROUP_DATA ? 0 : c->mask & ~g->unsync; /* checksums tell the copies of metadata apart */
	r = group_co_sync(c->p, g, c->mask);
	return r < 0 || !again ? r : group_co_sync_again(c->p, g, again);
}

static int hook_sync(void *ctx, uint64_t group, uint64_t mask)
{
	struct region_call c = { .p = pool_of(ctx), .group = group, .mask = mask };
	int r = 0;

	/* Read-only: nothing can be written, reads take the first current column. */
	if (!c.p->read_only)
		r = reactor_co_call(c.p->w->reactors[0], sync_there, &c);
	if (r == 0)
		raid_clear_unsync(((struct pool_reactor *)ctx)->raid, group, mask);
	return r;
}

/* ---- errors ---- */

/* Coroutine. What the instances must not read from this disk. */
static void missed_co_publish(struct ashlar_pool *p, unsigned disk, bool all)
{
	struct hash_node *n;
	size_t b, count = 0, i;
	struct publish *v = xmalloc((p->pgroups.count + 1) * sizeof(*v));

	for (b = 0; b < p->pgroups.n_buckets; b++) {
		for (n = p->pgroups.buckets[b]; n; n = n->next) {
			struct pgroup *g = container_of(n, struct pgroup, node);

			for (i = 0; i < g->desc.n_cols && g->desc.cols[i].disk != disk; i++)
				;
			if (i < g->desc.n_cols)
				v[count++] = (struct publish){ p, g->desc.group, all || g->kind != THIN_GROUP_DATA ? ~0ULL : g->dirty, true };
		}
	}
	for (i = 0; i < count; i++)
		pool_co_each_reactor(p, publish_here, &v[i]);
	xfree(v);
}

void pool_co_publish_missed(struct ashlar_pool *p, unsigned disk)
{
	missed_co_publish(p, disk, false);
}

void pool_co_publish_missed_all(struct ashlar_pool *p, unsigned disk)
{
	missed_co_publish(p, disk, true);
}

static int disk_error_there(void *arg)
{
	struct region_call *c = arg;

	return pool_co_disk_error(c->p, c->disk, c->op, c->error);
}

static int hook_disk_error(void *ctx, unsigned disk, enum io_op op, int error)
{
	struct region_call c = { .p = pool_of(ctx), .disk = disk, .op = op, .error = error };

	return reactor_co_call(c.p->w->reactors[0], disk_error_there, &c);
}

static int settle_there(void *arg)
{
	return pool_co_settle(arg);
}

static int hook_settle(void *ctx)
{
	struct ashlar_pool *p = pool_of(ctx);

	return reactor_co_call(p->w->reactors[0], settle_there, p);
}

static void hook_read_repaired(void *ctx, unsigned disk, uint64_t off_bytes, uint64_t len_bytes, int error)
{
	struct ashlar_pool *p = pool_of(ctx);

	p->errors_read++;
	p->errors_repaired += error == 0;
	if (error == 0)
		p->disks[disk].n_repaired++;
	else
		p->disks[disk].n_unrepaired++;
}

static int disk_verify_there(void *arg)
{
	struct region_call *c = arg;

	return pool_co_disk_verify(c->p, c->disk);
}

static int hook_disk_verify(void *ctx, unsigned disk)
{
	struct region_call c = { .p = pool_of(ctx), .disk = disk };

	return reactor_co_call(c.p->w->reactors[0], disk_verify_there, &c);
}

struct slow_note {
	struct msg msg;
	struct ashlar_pool *p;
	unsigned disk, reactor;
	bool slow;
	uint64_t latency_ns;
};

/* One reactor after the other finds out: the first says it, the last takes it back. */
static void slow_arrived(struct msg *m)
{
	struct slow_note *n = container_of(m, struct slow_note, msg);
	struct pdisk *d = &n->p->disks[n->disk];
	uint64_t was = d->slow_reactors, bit = 1ULL << n->reactor;

	d->slow_reactors = n->slow ? was | bit : was & ~bit;
	if (!was && d->slow_reactors)
		pool_event(n->p, ASHLAR_WARNING, "disk.slow", (int)n->disk, NULL, "disk %s answers late (%llu ms): reads go around it",
			   pool_disk_path(n->p, n->disk), (unsigned long long)(n->latency_ns / NS_PER_MS));
	else if (was && !d->slow_reactors && d->state == PDISK_ONLINE)
		pool_event(n->p, ASHLAR_INFO, "disk.quick", (int)n->disk, NULL, "disk %s answers in time again",
			   pool_disk_path(n->p, n->disk));
	xfree(n);
}

static void hook_disk_slow(void *ctx, unsigned disk, bool slow, uint64_t latency_ns)
{
	struct slow_note *n = xcalloc(1, sizeof(*n));

	n->msg.run = slow_arrived;
	n->p = pool_of(ctx);
	n->disk = disk;
	n->reactor = reactor_of(ctx);
	n->slow = slow;
	n->latency_ns = latency_ns;
	reactor_post(n->p->w->reactors[0], &n->msg);
}

const struct raid_hooks pool_raid_hooks = {
	.co_group_load = hook_group_load,
	.co_lease = hook_lease,
	.lease_return = hook_lease_return,
	.co_sync = hook_sync,
	.co_disk_error = hook_disk_error,
	.co_settle = hook_settle,
	.read_repaired = hook_read_repaired,
	.co_disk_verify = hook_disk_verify,
	.disk_slow = hook_disk_slow,
};

/* ---- cleaning ---- */

static uint64_t leased_anywhere(const struct ashlar_pool *p, const struct pgroup *g)
{
	uint64_t mask = 0;
	unsigned i;

	for (i = 0; i < p->n_reactors; i++)
		mask |= g->lease[i];
	return mask;
}

static uint64_t cleanable(const struct ashlar_pool *p, const struct pgroup *g)
{
	if (g->kind != THIN_GROUP_DATA || g->moving || g->leaving || !pool_members_are_online(p, &g->desc))
		return 0;
	return g->dirty & ~g->unsync & ~leased_anywhere(p, g);
}

/* Coroutine. Clears what nobody writes to any more. Two looks with a flush between them: what was idle before the flush
 * and still is has the same, durable content in all columns. */
static int regions_co_clean(struct ashlar_pool *p)
{
	struct { uint64_t group, mask; } *v = xmalloc((p->pgroups.count + 1) * sizeof(*v));
	struct hash_node *n;
	size_t count = 0, i, b;
	int r = 0;

	for (b = 0; b < p->pgroups.n_buckets; b++) {
		for (n = p->pgroups.buckets[b]; n; n = n->next) {
			struct pgroup *g = container_of(n, struct pgroup, node);
			uint64_t mask = cleanable(p, g) & ~(p->stopping ? 0 : g->touched);

			g->touched = 0;
			if (mask) {
				v[count].group = g->desc.group;
				v[count++].mask = mask;
			}
		}
	}
	if (count)
		r = bdev_co_flush(raid_bdev(p->reactors[0].raid));
	for (i = 0; i < count && r == 0; i++) {
		struct pgroup *g;
		struct pool_rec_regions rec;
		uint64_t mask;

		r = meta_co_admit(p->meta, 64, false);
		if (r == 0)
			r = pool_co_pgroup_get(p, v[i].group, &g);
		if (r == -ENOENT) { /* destroyed meanwhile */
			r = 0;
			continue;
		}
		if (r < 0)
			break;
		mask = cleanable(p, g) & v[i].mask & ~g->touched; /* written meanwhile: the next round's */
		if (!mask)
			continue;
		g->dirty &= ~mask;
		rec.group = le64_make(v[i].group);
		rec.mask = le64_make(g->dirty);
		g->dirty_seq = meta_record(p->meta, POOL_REC_REGIONS, &rec, sizeof(rec));
	}
	xfree(v);
	return r;
}

struct leases_back {
	struct ashlar_pool *p;
	bool all;
};

static int leases_return_here(void *arg)
{
	struct leases_back *b = arg;

	raid_return_leases(pool_here(b->p)->raid, b->all);
	return 0;
}

static void tick_co_run(void *arg)
{
	struct ashlar_pool *p = arg;
	struct leases_back b = { p, false };

	pool_co_each_reactor(p, leases_return_here, &b);
	if (!p->stopping && !p->failed && regions_co_clean(p) < 0 && !p->failed && !p->stopping)
		pool_log(p, "idle regions could not be marked clean; trying again");
	p->tick_runs = false;
	if (p->stopping)
		co_queue_wake_all(&p->idle);
	else
		timer_arm(&p->tick, reactor_now_ns() + TICK_NS);
}

static void tick_fired(struct timer *t)
{
	struct ashlar_pool *p = container_of(t, struct ashlar_pool, tick);

	p->tick_runs = true;
	co_spawn(CO_SERVICE, tick_co_run, p, "region cleaner");
}

void pool_regions_start(struct ashlar_pool *p)
{
	p->tick.fire = tick_fired;
	timer_arm(&p->tick, reactor_now_ns() + TICK_NS);
}

/* Coroutine. Ends the jobs; on a pool in good health, leaves nothing dirty behind. */
void pool_co_regions_stop(struct ashlar_pool *p)
{
	struct leases_back b = { p, true };

	timer_cancel(&p->tick);
	while (p->tick_runs)
		co_queue_wait(&p->idle);
	if (p->failed)
		return;
	pool_co_each_reactor(p, leases_return_here, &b);
	co_yield(); /* our own returns are messages to this reactor */
	co_sleep_ns(1);
	if (regions_co_clean(p) < 0 && !p->failed)
		pool_log(p, "regions could not be marked clean before closing");
}

struct distrust {
	struct ashlar_pool *p;
	unsigned disk;
	bool in_use;
};

static int distrust_group(void *arg, const struct pool_group_disk *rec)
{
	struct distrust *d = arg;
	struct pool_rec_regions m = { .group = rec->group, .mask = le64_make(~0ULL) };
	struct pgroup *g;
	unsigned i;
	int r;

	if (rec->kind != THIN_GROUP_DATA || !raid_profile_tolerates((struct raid_profile){ rec->layout, rec->copies }))
		return 0;
	for (i = 0; i < rec->n_cols && le16_get(rec->cols[i].disk) != d->disk; i++)
		;
	if (i == rec->n_cols)
		return 0;
	r = meta_co_admit(d->p->meta, 64, true);
	if (r == 0)
		r = pool_co_pgroup_get(d->p, le64_get(rec->group), &g);
	if (r < 0)
		return r;
	g->dirty = ~0ULL;
	if (!d->in_use && !pool_layout_is_parity(rec->layout)) /* there the disk is STALE, and nothing is read from it before it has been rewritten */
		g->unsync = ~0ULL;
	g->dirty_seq = meta_record(d->p->meta, POOL_REC_REGIONS, &m, sizeof(m));
	return 0;
}

int pool_co_distrust_disk(struct ashlar_pool *p, unsigned disk, bool in_use)
{
	struct distrust d = { p, disk, in_use };
	int r = pool_co_each_group(p, distrust_group, &d);

	return r < 0 ? r : meta_co_commit(p->meta, meta_last_seq(p->meta));
}
