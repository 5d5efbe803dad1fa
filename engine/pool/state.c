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
#include "engine/pool/pool_internal.h"

/* ---- labels ---- */

struct label_write {
	struct ashlar_pool *p;
	unsigned disk;
	struct co_join *join;
	int result;
};

static void label_write_co(void *arg)
{
	struct label_write *w = arg;

	w->result = label_co_write(w->p->disks[w->disk].disk, w->p->label, w->disk, NULL);
	co_join_done(w->join, 0);
}

/* Coroutine, under p->labels. One generation on to every disk that is there; results[] per disk. */
static void labels_co_write(struct ashlar_pool *p, struct label_write *w)
{
	struct co_join join;
	unsigned i;
	int r;

	p->label->generation++;
	co_join_init(&join);
	for (i = 0; i < p->n_disks; i++) {
		w[i] = (struct label_write){ .p = p, .disk = i, .join = &join };
		if (!p->disks[i].disk)
			continue;
		co_join_add(&join);
		co_spawn(CO_SERVICE, label_write_co, &w[i], "label write");
	}
	r = co_join_wait(&join);
	CHECK(r == 0);
}

static int disk_out_co_locked(struct ashlar_pool *p, unsigned disk, int error);

/* Coroutine, under p->labels. A disk that cannot take its label is put out, which takes another round. */
static int publish_co_locked(struct ashlar_pool *p)
{
	struct label_write *w = xcalloc(LABEL_DISKS_MAX, sizeof(*w));
	unsigned i, bad, written;
	int r = 0, error = 0;

	do {
		labels_co_write(p, w);
		bad = written = 0;
		for (i = 0; i < p->n_disks; i++) {
			if (p->disks[i].state != PDISK_ONLINE)
				continue;
			if (w[i].result == 0) {
				written++;
				continue;
			}
			bad++;
			error = w[i].result;
			r = disk_out_co_locked(p, i, error);
			if (r < 0)
				goto out;
		}
		if (!written)
			r = error ? error : -EIO;
	} while (bad && r == 0);
	if (r == 0)
		p->label->acked_generation = p->label->generation;
out:
	xfree(w);
	return r;
}

int pool_co_publish_labels(struct ashlar_pool *p)
{
	int r;

	co_mutex_lock(&p->labels);
	r = publish_co_locked(p);
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

/* A redundant group that has no other current copy of something on this disk cannot spare it; nor can a group without
 * redundancy that has unflushed data there: its volumes' next flush must not succeed. */
static int lose_check_group(void *arg, const struct pool_group_disk *rec)
{
	struct lose *l = arg;
	struct raid_profile prof = { rec->layout, rec->copies };
	unsigned i, set, copies = rec->copies, other;
	struct disk *disk = l->p->disks[l->disk].disk;
	bool redundant = raid_profile_tolerates(prof) > 0;

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

/* Coroutine. Can the pool go on without this disk's copies? */
static bool disk_co_can_lose(struct ashlar_pool *p, unsigned disk)
{
	struct lose l = { p, disk };
	struct pool_group_disk rec;
	struct hash_node *n;
	size_t b;

	for (b = 0; b < p->pgroups.n_buckets; b++) { /* those whose records are still under way */
		for (n = p->pgroups.buckets[b]; n; n = n->next) {
			struct pgroup *g = container_of(n, struct pgroup, node);

			pool_group_encode(&g->desc, g->kind, p->label, &rec);
			if (lose_check_group(&l, &rec) < 0)
				return false;
		}
	}
	return pool_co_each_group(p, lose_check_group, &l) == 0;
}

/* Coroutine, under p->labels: marks it in the label and tells the reactors; the caller writes the labels. */
static int disk_out_co_locked(struct ashlar_pool *p, unsigned disk, int error)
{
	struct pdisk *d = &p->disks[disk];
	char note[160];

	if (d->state != PDISK_ONLINE && d->state != PDISK_STALE)
		return 0;
	if (d->state == PDISK_ONLINE && !disk_co_can_lose(p, disk))
		return error;
	snprintf(note, sizeof(note), "%.120s", d->disk ? d->disk->path : p->label->disks[disk].path);
	d->state = PDISK_FAILED;
	if (p->label->disks[disk].state != LABEL_DISK_OUT) {
		p->label->disks[disk].state = LABEL_DISK_OUT;
		p->label->disks[disk].since_generation = p->label->generation + 1;
	}
	pool_co_set_disk(p, disk);
	pool_co_publish_missed(p, disk);
	pool_log(p, "disk %s is out after a failed write (%s); what it holds is served from other disks", note, err_text(error));
	return 0;
}

/* Coroutine on the home. A write or flush failed on a disk. See raid_hooks.co_disk_error. */
int pool_co_disk_error(struct ashlar_pool *p, unsigned disk, enum io_op op, int error)
{
	int r = 0;

	p->errors_write++;
	if (p->read_only)
		return error;
	co_mutex_lock(&p->labels);
	if (p->disks[disk].state == PDISK_ONLINE || p->disks[disk].state == PDISK_STALE) {
		r = disk_out_co_locked(p, disk, error);
		if (r == 0 && !MUTANT(OUT_NOT_PUBLISHED))
			r = publish_co_locked(p);
	}
	co_mutex_unlock(&p->labels);
	return r;
}

/* Coroutine. A stale disk has caught up. */
int pool_co_disk_online(struct ashlar_pool *p, unsigned disk)
{
	int r = 0;

	co_mutex_lock(&p->labels);
	if (p->disks[disk].state == PDISK_STALE) {
		p->disks[disk].state = PDISK_ONLINE;
		p->disks[disk].rolled_back = false;
		p->label->disks[disk].state = LABEL_DISK_ONLINE;
		p->label->disks[disk].since_generation = p->label->generation + 1;
		r = publish_co_locked(p);
		if (r == 0)
			pool_co_set_disk(p, disk);
	}
	co_mutex_unlock(&p->labels);
	return r;
}

/* ---- hooks of the metadata store ---- */

static int hook_apply(void *ctx, unsigned type, const void *payload, size_t len, uint64_t seq)
{
	struct ashlar_pool *p = ctx;

	if (type >= POOL_REC_FIRST)
		return pool_co_apply_record(p, type, payload, len);
	return thin_co_apply(p->thin, type, payload, len, seq);
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
	p->label->epoch = root->epoch;
	r = publish_co_locked(p);
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
	pool_log(p, "metadata page %llu had a damaged copy, %s", (unsigned long long)addr,
		 repaired ? "rewritten from a good one" : "and it could not be rewritten");
}

static void hook_failed(void *ctx, int error, const char *why)
{
	struct ashlar_pool *p = ctx;

	p->failed = true;
	snprintf(p->failed_why, sizeof(p->failed_why), "%s: %s", why, err_text(error));
	pool_log(p, "stopped: %s", p->failed_why);
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
