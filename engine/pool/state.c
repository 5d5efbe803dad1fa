/*
 * state.c: the pool's durable word about itself: labels, the state of disks, and the hooks of the metadata store.
 *
 * Labels are written by one coroutine at a time (p->labels). Every label names the newest checkpoint and the state of
 * every disk. A change of a disk's state counts once the label that says it is on every other ONLINE disk: only then may a
 * write that the disk missed be acknowledged. What a crash in the middle leaves: some labels say it, some do not; the
 * newest is the pool's word, and nothing that depends on it had been acknowledged.
 */
#include <stdio.h>
#include <string.h>

#include "engine/base/mutant.h"
#include "engine/pool/life.h"

/* ---- labels ---- */

static int disk_out_co_locked(struct ashlar_pool *p, unsigned disk, int error, const char *reason);

/* Coroutine, under p->labels. After a round: disks that have not taken their label are put out. *written counts the ONLINE ones that
 * have. 1: there were such, which takes another round. */
static int labels_co_judge(struct ashlar_pool *p, const int *results, unsigned *written)
{
	char reason[80];
	unsigned i;
	int r, again = 0;

	*written = 0;
	for (i = 0; i < p->n_disks; i++) {
		if (p->disks[i].state != PDISK_ONLINE && p->disks[i].state != PDISK_STALE)
			continue;
		if (results[i] == 0) {
			*written += p->disks[i].state == PDISK_ONLINE;
			continue;
		}
		snprintf(reason, sizeof(reason), "its label could not be written (%s)", err_text(results[i]));
		r = disk_out_co_locked(p, i, results[i], p->disks[i].lost[0] ? p->disks[i].lost : reason);
		if (r < 0)
			return r;
		again = 1;
	}
	return again;
}

static int settled_here(void *arg)
{
	raid_set_unsettled(pool_here(arg)->raid, false);
	return 0;
}

/* Coroutine, under p->labels. All labels say which disks are out. */
static void labels_co_settled(struct ashlar_pool *p)
{
	p->unsettled = false;
	pool_co_each_reactor(p, settled_here, p);
}

int pool_co_publish_locked(struct ashlar_pool *p)
{
	int *results = xcalloc(LABEL_DISKS_MAX, sizeof(*results)), r;
	unsigned written;

	do {
		p->label->generation++;
		r = pool_co_labels_send(p, results);
		if (r < 0)
			break;
		r = labels_co_judge(p, results, &written);
		if (r >= 0 && !written)
			r = -EIO;
	} while (r == 1);
	if (r == 0)
		p->label->acked_generation = p->label->generation;
	if (r == 0 && p->unsettled)
		labels_co_settled(p);
	xfree(results);
	return r;
}

/* Whoever put a disk out holds p->labels until they are written; what failed then is tried again for each who asks. */
int pool_co_settle(struct ashlar_pool *p)
{
	int r = 0;

	if (p->read_only || !p->meta) /* as in pool_co_disk_out() */
		return p->unsettled ? -ESHUTDOWN : 0;
	co_mutex_lock(&p->labels);
	if (p->unsettled)
		r = pool_co_publish_locked(p);
	co_mutex_unlock(&p->labels);
	return r;
}

int pool_co_incompat_set(struct ashlar_pool *p, uint64_t bits)
{
	uint64_t new;
	int r = 0;

	co_mutex_lock(&p->labels); /* no label is being written */
	new = bits & ~p->label->incompat;
	p->label->incompat |= new;
	if (new)
		r = pool_co_publish_locked(p);
	if (r < 0)
		p->label->incompat &= ~new; /* asked for again next time */
	co_mutex_unlock(&p->labels);
	return r;
}

int pool_co_publish_labels(struct ashlar_pool *p)
{
	int r;

	co_mutex_lock(&p->labels);
	r = pool_co_publish_locked(p);
	co_mutex_unlock(&p->labels);
	return r;
}

/* ---- disks ---- */

enum raid_disk_state pool_raid_state(const struct pdisk *d)
{
	switch (d->state) {
	case PDISK_ONLINE:
		return RAID_DISK_ONLINE;
	case PDISK_STALE:
		return RAID_DISK_STALE;
	default:
		return RAID_DISK_ABSENT; /* a FAILED one keeps its disk pointer: single-copy groups still try it */
	}
}

struct disk_set {
	struct ashlar_pool *p;
	unsigned disk;
};

static int disk_set_here(void *arg)
{
	struct disk_set *s = arg;
	struct pdisk *d = &s->p->disks[s->disk];

	raid_set_disk(pool_here(s->p)->raid, s->disk, d->disk, pool_raid_state(d));
	raid_set_unsettled(pool_here(s->p)->raid, s->p->unsettled);
	return 0;
}

/* Coroutine. Tells every reactor. */
void pool_co_set_disk(struct ashlar_pool *p, unsigned disk)
{
	struct disk_set s = { p, disk };

	pool_co_each_reactor(p, disk_set_here, &s);
}

struct lose {
	struct ashlar_pool *p;
	unsigned disk;
};

/* Of a parity group: are so many columns lost already that none more can be? */
static int lose_check_parity(const struct lose *l, const struct pool_group_disk *rec)
{
	unsigned i, lost = 0, member = 0;

	for (i = 0; i < rec->n_cols; i++) {
		unsigned d = le16_get(rec->cols[i].disk);

		member |= d == l->disk;
		lost += d == l->disk || l->p->disks[d].state != PDISK_ONLINE;
	}
	return member && lost > raid_profile_tolerates((struct raid_profile){ rec->layout, rec->copies }) ? -EBUSY : 0;
}

/* A redundant group that has no other current copy of something on this disk cannot spare it; nor can a group without
 * redundancy that has unflushed data there: its volumes' next flush must not succeed. */
static int lose_check_group(void *arg, const struct pool_group_disk *rec)
{
	struct lose *l = arg;
	struct raid_profile prof = { rec->layout, rec->copies };
	unsigned i, set, copies = rec->copies, other;
	struct disk *disk = l->p->disks[l->disk].disk;
	bool redundant = raid_profile_tolerates(prof) > 0;

	if (pool_layout_is_parity(rec->layout))
		return lose_check_parity(l, rec);
	for (i = 0; i < rec->n_cols; i++) {
		if (le16_get(rec->cols[i].disk) != l->disk)
			continue;
		if (!redundant && disk && disk->n_volatile != disk->n_flushed)
			return -EBUSY;
		if (!redundant)
			continue;
		other = 0;
		for (set = i / copies * copies; set < i / copies * copies + copies && set < rec->n_cols; set++) {
			unsigned d = le16_get(rec->cols[set].disk);

			other += d != l->disk && l->p->disks[d].state == PDISK_ONLINE;
		}
		if (!other)
			return -EBUSY;
	}
	return 0;
}

/* Of groups in memory; their records may be still under way. Does not suspend. */
static bool loaded_can_lose(const struct ashlar_pool *p, struct lose *l)
{
	struct pool_group_disk rec;
	struct hash_node *n;
	size_t b;

	for (b = 0; b < p->pgroups.n_buckets; b++) {
		for (n = p->pgroups.buckets[b]; n; n = n->next) {
			struct pgroup *g = container_of(n, struct pgroup, node);

			if (g->kind == POOL_GROUP_SHAPE) /* nobody needs it */
				continue;
			pool_group_encode(&g->desc, g->kind, p->label, &rec);
			if (lose_check_group(l, &rec) < 0)
				return false;
			if (!g->before) /* else a crash may bring that one back */
				continue;
			pool_group_encode(g->before, g->kind, p->label, &rec);
			if (lose_check_group(l, &rec) < 0)
				return false;
		}
	}
	return true;
}

/* Coroutine. Can the pool go on without this disk's copies? True as long as the caller does not suspend: groups that have been made
 * meanwhile are in memory. */
static bool disk_co_can_lose(struct ashlar_pool *p, unsigned disk)
{
	struct lose l = { p, disk };

	return pool_co_each_group(p, lose_check_group, &l) == 0 && loaded_can_lose(p, &l);
}

/* The handle of a disk that is not there any more: closed when nothing is under way (watch.c). */
static void handle_drop(struct ashlar_pool *p, unsigned disk)
{
	struct pdisk *d = &p->disks[disk];

	CHECK(!d->dead);
	label_disk_set_path(&p->label->disks[disk], d->disk->path);
	xfree(d->last_path);
	d->last_path = xstrdup(d->disk->path);
	d->dead = d->disk;
	d->disk = NULL;
	p->as->disks[disk].disk = NULL;
}

/* Coroutine, under p->labels. It is out, whatever that means: in the label, and all reactors know. The caller writes the labels. */
static void disk_co_leave(struct ashlar_pool *p, unsigned disk, enum pdisk_state state, const char *reason)
{
	struct pdisk *d = &p->disks[disk];
	bool was_online = d->state == PDISK_ONLINE;

	pool_event(p, was_online ? ASHLAR_ERROR : ASHLAR_WARNING, "disk.out", (int)disk, NULL,
		   "disk %s is out: %s; what it holds is served from other disks", pool_disk_path(p, disk), reason);
	d->state = state;
	d->since_ns = reactor_now_ns();
	d->slow_reactors = 0;
	snprintf(d->reason, sizeof(d->reason), "%s", reason);
	if (state == PDISK_ABSENT && d->disk && !d->dead)
		handle_drop(p, disk);
	if (p->label->disks[disk].state != LABEL_DISK_OUT) {
		p->label->disks[disk].state = LABEL_DISK_OUT;
		p->label->disks[disk].since_generation = p->label->generation + 1;
		p->label->disks[disk].acked_generation = p->label->acked_generation;
	}
	if (d->lost[0])
		p->label->disks[disk].acked_generation = UINT64_MAX;
	p->disk_gen++;
	p->change_gen++;
	p->unsettled = true; /* until then nobody is told that he has written without it */
	pool_co_set_disk(p, disk);
	pool_co_publish_missed(p, disk);
	pool_life_kick(p);
}

static bool is_vanished(int error)
{
	return error == -ENODEV || error == -ENXIO;
}

/* Coroutine, under p->labels. -errno: the pool cannot do without it, nothing has changed. */
static int disk_out_co_locked(struct ashlar_pool *p, unsigned disk, int error, const char *reason)
{
	struct pdisk *d = &p->disks[disk];

	if (d->state != PDISK_ONLINE && d->state != PDISK_STALE)
		return 0;
	if (d->state == PDISK_ONLINE && !disk_co_can_lose(p, disk)) {
		if (strcmp(d->reason, reason)) /* once */
			pool_event(p, ASHLAR_ERROR, "disk.needed", (int)disk, NULL, "disk %s: %s; the pool cannot do without it",
				   pool_disk_path(p, disk), reason);
		snprintf(d->reason, sizeof(d->reason), "%s", reason);
		return error;
	}
	d->at_once = error != -ETIMEDOUT && !is_vanished(error);
	disk_co_leave(p, disk, is_vanished(error) ? PDISK_ABSENT : PDISK_FAILED, reason);
	return 0;
}

static void error_reason(const struct ashlar_pool *p, enum io_op op, int error, char *out, size_t len)
{
	static const char *const ops[] = { "read", "write", "flush", "discard", "zeroing" };

	if (error == -ETIMEDOUT)
		snprintf(out, len, "did not answer for %llu s", (unsigned long long)(p->settings.timeout_ns / NS_PER_SEC));
	else if (is_vanished(error))
		snprintf(out, len, "is gone (%s)", err_text(error));
	else
		snprintf(out, len, "%s error (%s)", ops[op], err_text(error));
}

int pool_co_disk_out(struct ashlar_pool *p, unsigned disk, int error, const char *reason)
{
	int r = 0;

	if (p->read_only || !p->meta) /* closed, but for requests that a disk has not answered yet */
		return error;
	co_mutex_lock(&p->labels);
	if (p->disks[disk].state == PDISK_ONLINE || p->disks[disk].state == PDISK_STALE) {
		r = disk_out_co_locked(p, disk, error, reason);
		if (MUTANT(OUT_NOT_PUBLISHED))
			labels_co_settled(p);
		else if (r == 0)
			r = pool_co_publish_locked(p);
	}
	co_mutex_unlock(&p->labels);
	return r;
}

int pool_co_disk_vanished(struct ashlar_pool *p, unsigned disk, const char *reason)
{
	struct pdisk *d = &p->disks[disk];
	int r = 0;

	if (d->state != PDISK_FAILED || !p->meta)
		return pool_co_disk_out(p, disk, -ENODEV, reason);
	co_mutex_lock(&p->labels);
	if (d->state == PDISK_FAILED && d->disk && !d->dead) {
		handle_drop(p, disk);
		d->state = PDISK_ABSENT;
		pool_co_set_disk(p, disk);
		if (d->lost[0]) {
			p->label->disks[disk].acked_generation = UINT64_MAX;
			r = pool_co_publish_locked(p);
		}
	}
	co_mutex_unlock(&p->labels);
	return r;
}

struct flush_failed {
	struct ashlar_pool *p;
	unsigned disk;
	int error;
};

static int flush_failed_here(void *arg)
{
	struct flush_failed *f = arg;

	raid_set_flush_error(pool_here(f->p)->raid, f->disk, f->error);
	return 0;
}

/* Coroutine on the home. A write or flush failed on a disk, or it does not answer. See raid_hooks.co_disk_error. */
int pool_co_disk_error(struct ashlar_pool *p, unsigned disk, enum io_op op, int error)
{
	struct flush_failed f = { p, disk, error };
	char reason[80];
	int r;

	if (op == IO_READ)
		p->errors_read++;
	else
		p->errors_write++;
	error_reason(p, op, error, reason, sizeof(reason));
	r = pool_co_disk_out(p, disk, error, reason);
	if (r < 0 && op == IO_FLUSH) /* what another reactor wrote may be lost too */
		pool_co_each_reactor(p, flush_failed_here, &f);
	return r;
}

int pool_co_disk_fail(struct ashlar_pool *p, unsigned disk, bool force, bool *needed)
{
	struct pdisk *d = &p->disks[disk];
	int r = 0;

	co_mutex_lock(&p->labels);
	*needed = d->state == PDISK_ONLINE && !disk_co_can_lose(p, disk);
	if (*needed && !force)
		r = -EBUSY;
	if (r == 0 && (d->state == PDISK_ONLINE || d->state == PDISK_STALE)) {
		disk_co_leave(p, disk, PDISK_FAILED, "taken out by command");
		r = pool_co_publish_locked(p);
	}
	if (r == 0)
		d->at_once = true;
	co_mutex_unlock(&p->labels);
	pool_life_kick(p);
	return r;
}

int pool_co_disk_online(struct ashlar_pool *p, unsigned disk, uint64_t arrival)
{
	struct pdisk *d = &p->disks[disk];
	int r = 0;

	co_mutex_lock(&p->labels);
	if (d->state == PDISK_STALE && d->n_arrivals == arrival) {
		d->state = PDISK_ONLINE;
		d->entering = true;
		p->change_gen++;
		p->label->disks[disk].state = LABEL_DISK_ONLINE;
		p->label->disks[disk].acked_generation = 0;
		p->label->disks[disk].since_generation = p->label->generation + 1;
		pool_co_set_disk(p, disk); /* it has everything; another may leave while the labels are written, and this one is counted on */
		r = pool_co_publish_locked(p);
		d->entering = false;
		if (r == 0 && d->state == PDISK_ONLINE) {
			d->rolled_back = d->at_once = false;
			d->reason[0] = 0;
			p->disk_gen++;
			p->change_gen++;
			pool_event(p, ASHLAR_INFO, "disk.online", (int)disk, NULL, "disk %s is up to date and in service",
				   pool_disk_path(p, disk));
			pool_life_kick(p);
		}
	}
	co_mutex_unlock(&p->labels);
	return r;
}

/* ---- hooks of the metadata store ---- */

static int hook_apply(void *ctx, unsigned type, const void *payload, size_t len, uint64_t seq)
{
	struct ashlar_pool *p = ctx;

	int r = 0;

	if (type >= POOL_REC_FIRST)
		return pool_co_apply_record(p, type, payload, len);
	if (type == THIN_REC_VOLUME_GONE && len == sizeof(le64))
		r = pool_co_apply_notes_gone(p, le64_get(*(const le64 *)payload));
	return r < 0 ? r : thin_co_apply(p->thin, type, payload, len, seq);
}

static int hook_store(void *ctx, uint8_t *owner)
{
	struct ashlar_pool *p = ctx;
	struct pool_owner_disk *o = (void *)owner;
	struct pending_run *run;
	struct thin_space s;
	unsigned i;
	int r = thin_co_store(p->thin);

	if (r < 0)
		return r;
	memset(o, 0, sizeof(*o));
	thin_space_get(p->thin, &s);
	o->next_group = le64_make(p->next_group);
	pool_settings_store(p, o);
	o->clusters_total = le64_make(s.clusters_total);
	o->clusters_used = le64_make(s.clusters_used);
	for (i = 0; i < p->n_disks; i++) {
		uint64_t used = p->disks[i].used;

		list_for_each (run, &p->pending_runs, link) /* counted in memory; the arrays have them when applied */
			if (run->disk == i)
				used -= run->n;
		o->disks[i].used = le32_make((uint32_t)used);
		o->disks[i].cursor = le32_make((uint32_t)p->disks[i].cursor);
	}
	return 0;
}

static int hook_publish(void *ctx, const struct meta_root_info *root)
{
	struct ashlar_pool *p = ctx;
	int r;

	co_mutex_lock(&p->labels);
	p->label->checkpoint = root->checkpoint;
	p->label->root_addr = root->addr;
	p->label->root_crc = root->crc;
	p->label->clean = root->clean;
	if (p->label->epoch != root->epoch) /* what the logs of the old one hold has been replayed */
		pool_stripe_logs_note(p);
	p->label->epoch = root->epoch;
	r = pool_co_publish_locked(p);
	co_mutex_unlock(&p->labels);
	return r;
}

static int hook_flush(void *ctx)
{
	struct ashlar_pool *p = ctx;

	return bdev_co_flush(raid_bdev(p->reactors[0].raid));
}

static int hook_grow(void *ctx)
{
	return pool_co_grow_metadata(ctx);
}

static void hook_durable(void *ctx, uint64_t seq)
{
	struct ashlar_pool *p = ctx;

	thin_durable(p->thin, seq);
}

static void hook_page_repaired(void *ctx, uint64_t addr, bool repaired)
{
	struct ashlar_pool *p = ctx;

	p->errors_metadata_repaired += repaired;
	pool_event(p, ASHLAR_WARNING, "metadata.repaired", -1, NULL, "metadata page %llu had a damaged copy, %s", (unsigned long long)addr,
		   repaired ? "rewritten from a good one" : "and it could not be rewritten");
}

static void hook_failed(void *ctx, int error, const char *why)
{
	struct ashlar_pool *p = ctx;

	p->failed = true;
	snprintf(p->failed_why, sizeof(p->failed_why), "%s: %s", why, err_text(error));
	pool_event(p, ASHLAR_ERROR, "pool.stopped", -1, NULL, "the pool has stopped: %s", p->failed_why);
	pool_life_kick(p);
	thin_space_changed(p->thin); /* held writes hear of it */
}

const struct meta_hooks pool_meta_hooks = {
	.co_apply = hook_apply,
	.co_store = hook_store,
	.co_publish = hook_publish,
	.co_flush = hook_flush,
	.co_grow = hook_grow,
	.durable = hook_durable,
	.page_repaired = hook_page_repaired,
	.failed = hook_failed,
};
