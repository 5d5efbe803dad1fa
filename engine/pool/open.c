/*
 * open.c: from open disks to a running pool, and back.
 *
 * Opening: raid instances on every reactor; metadata root from the label; volume directory; journal replayed; is every
 * group readable with the disks that are there; stripe logs replayed; a first checkpoint, which begins a new epoch and writes
 * labels that say which disks are missing (before anything that they miss); then background work. None of it grows with the
 * pool's size, except where disks are missing or suspect: then the group table is walked.
 */
#include <stdio.h>
#include <string.h>

#include "engine/pool/life.h"

#define CACHE_DEFAULT (256 * MIB)
#define JOURNAL_MAX (64 * MIB)

/* ---- pieces ---- */

struct raid_make {
	struct ashlar_pool *p;
	int result;
};

static int raid_make_here(void *arg)
{
	struct ashlar_pool *p = arg;
	struct pool_reactor *pr = &p->reactors[reactor_self()->index];
	struct raid_conf c = {
		.group_bytes = p->label->group_bytes,
		.size_bytes = 1ULL << 62,
		.block_bytes = p->label->block_bytes,
		.hooks = &pool_raid_hooks,
		.ctx = pr,
	};
	unsigned i;

	pr->pool = p;
	pr->reactor = reactor_self();
	pr->raid = raid_open(&c);
	for (i = 0; i < p->n_disks; i++)
		raid_set_disk(pr->raid, i, p->disks[i].disk, pool_raid_state(&p->disks[i]));
	return 0;
}

static int raid_peers_here(void *arg)
{
	struct ashlar_pool *p = arg;
	struct raid *peers[REACTORS_MAX];
	unsigned i;

	for (i = 0; i < p->n_reactors; i++)
		peers[i] = p->reactors[i].raid;
	raid_set_peers(pool_here(p)->raid, peers, p->n_reactors, p->n_homes);
	return 0;
}

static int raid_drop_here(void *arg)
{
	struct ashlar_pool *p = arg;
	struct pool_reactor *pr = &p->reactors[reactor_self()->index];

	if (pr->raid) {
		raid_co_drain(pr->raid);
		raid_close(pr->raid);
	}
	pr->raid = NULL;
	return 0;
}

static void disks_take(struct ashlar_pool *p, unsigned flags)
{
	unsigned i;
	bool doubt;

	p->n_disks = p->label->n_disks;
	for (i = 0; i < p->n_disks; i++) {
		const struct assembly_disk *ad = &p->as->disks[i];
		struct pdisk *d = &p->disks[i];

		if (p->label->disks[i].state == LABEL_DISK_FREE)
			continue;
		d->leaving = p->label->disks[i].leaving != 0;
		d->disk = ad->disk;
		if (d->disk)
			d->disk->n_volatile++; /* what a killed process left in its cache: the first flush is not skipped */
		doubt = ad->is_doubtful && d->disk && !(flags & POOL_OPEN_TRUST);
		d->state = ad->state == ASM_ABSENT ? PDISK_ABSENT : ad->state == ASM_STALE || doubt ? PDISK_STALE : PDISK_ONLINE;
		d->n_arrivals = d->state == PDISK_STALE;
		d->since_ns = reactor_now_ns();
		if (d->state == PDISK_ABSENT)
			snprintf(d->reason, sizeof(d->reason), "%s", ad->why[0] ? ad->why : "was not there when the pool was opened");
		else if (d->state == PDISK_STALE)
			snprintf(d->reason, sizeof(d->reason), "has missed writes");
		d->rolled_back = doubt || (ad->state == ASM_STALE && (p->label->disks[i].state == LABEL_DISK_ONLINE ||
								      ad->own_generation < p->label->disks[i].acked_generation));
		d->extents = label_disk_extents(p->label, p->label->disks[i].size_bytes);
	}
}

/* What the label must say before anything is written that a disk misses. */
static void label_note_states(struct ashlar_pool *p)
{
	unsigned i;

	for (i = 0; i < p->n_disks; i++) {
		struct label_disk *ld = &p->label->disks[i];

		/* Until it is ONLINE again, however often we are interrupted. */
		if (p->disks[i].rolled_back || (p->disks[i].state == PDISK_ABSENT && p->as->disks[i].is_doubtful))
			ld->acked_generation = UINT64_MAX;
		if (p->disks[i].state == PDISK_ONLINE || ld->state == LABEL_DISK_OUT || ld->state == LABEL_DISK_FREE)
			continue;
		ld->state = LABEL_DISK_OUT;
		ld->since_generation = p->label->generation + 1;
		ld->acked_generation = MAX(ld->acked_generation, p->label->acked_generation);
	}
	for (i = 0; i < p->n_disks; i++) {
		if (p->disks[i].disk)
			label_disk_set_path(&p->label->disks[i], p->disks[i].disk->path);
	}
}

/* Whole stripes of fresh clusters need neither reading nor the log. */
static bool class_redirects(struct thin_class cls)
{
	return pool_layout_is_parity(cls.layout);
}

/* Another machine may lose its power without our noticing: what its disks had not been told to keep is not to be counted on. */
static bool has_remote_disk(const struct ashlar_pool *p)
{
	unsigned i;

	for (i = 0; i < p->n_disks; i++)
		if (!strncmp(pool_disk_path(p, i), "nbd://", 6))
			return true;
	return false;
}

static void stores_open(struct ashlar_pool *p)
{
	uint64_t cache = p->a->opt.metadata_cache_bytes ? p->a->opt.metadata_cache_bytes : CACHE_DEFAULT;
	struct meta_conf mc = {
		.dev = raid_bdev(p->reactors[0].raid),
		.pool = p->label->pool,
		.group_bytes = p->label->group_bytes,
		.journal_off = p->label->journal_off,
		.journal_bytes = p->label->journal_bytes,
		.cache_bytes = cache / 2,
		.read_only = p->read_only,
		.world = p->w,
		.hooks = &pool_meta_hooks,
		.ctx = p,
	};
	struct thin_conf tc = {
		.group_bytes = p->label->group_bytes,
		.cluster_bytes = p->label->cluster_bytes,
		.block_bytes = p->label->block_bytes,
		.cache_bytes = cache / 2,
		.share_max = p->a->opt.share_max,
		.journal_bytes = p->label->journal_bytes,
		.read_only = p->read_only,
		.home = p->w->reactors[0],
		.hooks = &pool_thin_hooks,
		.ctx = p,
		.class_redirects = class_redirects,
	};
	unsigned i;

	if (!has_remote_disk(p))
		uuid_format(&p->label->pool, mc.keep);
	p->meta = meta_open(&mc);
	for (i = 0; i < p->label->n_meta; i++) {
		struct raid_desc d;

		pool_label_meta_desc(p->label, i, &d);
		pool_pgroup_add(p, &d, THIN_GROUP_META, 0);
		meta_group_add(p->meta, d.group);
	}
	tc.meta = p->meta;
	for (i = 0; i < p->n_reactors; i++)
		tc.space[i] = raid_bdev(p->reactors[i].raid);
	p->thin = thin_open(&tc);
	p->groups = meta_system_array(p->meta, POOL_ARRAY_GROUPS, POOL_GROUP_LOG2);
	p->extents = meta_system_array(p->meta, POOL_ARRAY_EXTENTS, POOL_EXTENT_LOG2);
	p->regions = meta_system_array(p->meta, POOL_ARRAY_REGIONS, POOL_REGION_LOG2);
	p->notes = meta_system_array(p->meta, POOL_ARRAY_NOTES, POOL_NOTE_LOG2);
	p->has_notes = p->label->incompat & LABEL_INCOMPAT_NOTES;
}

static void owner_load(struct ashlar_pool *p, const uint8_t *owner)
{
	const struct pool_owner_disk *o = (const void *)owner;
	struct thin_space s = { .clusters_total = le64_get(o->clusters_total), .clusters_used = le64_get(o->clusters_used) };
	unsigned i;

	p->next_group = le64_get(o->next_group);
	pool_settings_load(p, o);
	thin_space_set(p->thin, &s);
	for (i = 0; i < p->n_disks; i++) {
		p->disks[i].used = le32_get(o->disks[i].used);
		p->disks[i].cursor = MIN(le32_get(o->disks[i].cursor), p->disks[i].extents);
	}
}

/* ---- checks before anything is written ---- */

struct readable {
	struct ashlar_pool *p;
	uint64_t lost;
	uint64_t first;
};

static int readable_group(void *arg, const struct pool_group_disk *rec)
{
	struct readable *c = arg;
	struct raid_desc *d;
	int r;

	if (rec->kind == THIN_GROUP_META) /* the label has the last word on them: metadata_check() */
		return 0;
	d = xmalloc(sizeof(*d));
	r = pool_group_decode(c->p, rec, d, NULL);
	if (r == 0 && !raid_desc_is_readable(c->p->reactors[0].raid, d)) {
		if (!c->lost++)
			c->first = d->group;
	}
	xfree(d);
	return r;
}

static void absent_names(const struct ashlar_pool *p, char *buf, size_t len)
{
	size_t at = 0;
	unsigned i;

	buf[0] = 0;
	for (i = 0; i < p->n_disks && at + 4 < len; i++)
		if (p->disks[i].state != PDISK_ONLINE && p->disks[i].state != PDISK_FREE)
			at += (size_t)snprintf(buf + at, len - at, "%s%s%s%s", at ? ", " : "", p->label->disks[i].path,
					       p->disks[i].state == PDISK_STALE ? " (out of date)" : p->as->disks[i].why[0] ? " " : "",
					       p->as->disks[i].why);
	buf[len - 1] = 0;
}

static bool all_online(const struct ashlar_pool *p)
{
	unsigned i;

	for (i = 0; i < p->n_disks; i++)
		if (p->disks[i].state != PDISK_ONLINE && p->disks[i].state != PDISK_FREE)
			return false;
	return true;
}

static int readable_co_check(struct ashlar_pool *p, unsigned flags, struct err *e)
{
	struct readable c = { .p = p };
	char names[300];
	int r;

	if (all_online(p))
		return 0;
	r = pool_co_each_group(p, readable_group, &c);
	if (r < 0)
		return err_set(e, r, "pool %s: the group table cannot be read: %s", p->label->name, err_text(r));
	if (!c.lost || flags & ASHLAR_OPEN_FORCE_MISSING)
		return 0;
	absent_names(p, names, sizeof(names));
	return err_set(e, -ERR_MISSING, "pool %s: too many disks are missing (%s): %llu of its groups cannot be read. Bring the "
		       "disks back and open again", p->label->name, names, (unsigned long long)c.lost);
}

/* Enough copies of the metadata itself? */
static int metadata_check(struct ashlar_pool *p, struct err *e)
{
	char names[300];
	unsigned i;

	for (i = 0; i < p->label->n_meta; i++) {
		struct raid_desc d;

		pool_label_meta_desc(p->label, i, &d);
		if (raid_desc_is_readable(p->reactors[0].raid, &d))
			continue;
		absent_names(p, names, sizeof(names));
		return err_set(e, -ERR_MISSING, "pool %s: too many disks are missing (%s): none of those present has its "
			       "metadata. Bring the disks back and open again", p->label->name, names);
	}
	return 0;
}

/* Until the records say it: nobody may be given what the label names. */
static void meta_groups_hold(struct ashlar_pool *p, bool hold)
{
	unsigned i, c;

	for (i = 0; i < p->label->n_meta; i++) {
		struct raid_desc d;

		pool_label_meta_desc(p->label, i, &d);
		for (c = 0; c < d.n_cols; c++) {
			if (hold)
				pool_space_hold(p, &d.cols[c], d.col_bytes);
			else
				pool_space_release(p, &d.cols[c]);
		}
	}
}

/* Coroutine. A metadata group that the label names and whose record a crash took, or left as it was before the group moved:
 * hand it in again. Before anything is allocated. */
static int meta_groups_co_reconcile(struct ashlar_pool *p)
{
	struct pool_group_disk rec, have;
	unsigned i;
	int r = 0;

	for (i = 0; i < p->label->n_meta && r == 0; i++) {
		struct raid_desc d;
		unsigned type;

		pool_label_meta_desc(p->label, i, &d);
		pool_group_encode(&d, THIN_GROUP_META, p->label, &rec);
		r = meta_array_co_get(p->groups, d.group, &have);
		if (r < 0 || !memcmp(&have, &rec, sizeof(rec)))
			continue;
		type = have.kind == THIN_GROUP_NONE ? POOL_REC_GROUP_PUT : POOL_REC_GROUP_MOVE;
		r = meta_co_wait_applied(p->meta, meta_record(p->meta, type, &rec, sizeof(rec)));
	}
	return r;
}

/* Disks that are there, and are not what they were. */
static void doubts_tell(struct ashlar_pool *p)
{
	unsigned i;

	for (i = 0; i < p->n_disks; i++) {
		const struct assembly_disk *ad = &p->as->disks[i];
		struct pdisk *d = &p->disks[i];

		if (ad->why[0]) {
			snprintf(d->refused, sizeof(d->refused), "disk %s of pool %s %s", p->label->disks[i].path, p->label->name, ad->why);
			pool_event(p, ASHLAR_WARNING, "disk.refused", (int)i, NULL, "%s", d->refused);
		} else if (ad->is_doubtful) {
			pool_event(p, ASHLAR_WARNING, "disk.doubtful", (int)i, NULL, "the end of disk %s has been overwritten: it may have been "
				   "cut short and made long again; %s", pool_disk_path(p, i), d->state == PDISK_STALE ?
				   "nothing on it is believed of which other disks have a copy" :
				   "the pool cannot do without it, so it is used as it is: a scrub finds where it differs");
		}
	}
}

/* ---- opening ---- */

/* Coroutine, after the replay. A metadata group whose record is durable, and no label names it yet: from the first checkpoint on
 * they will. Such a record is newer than the checkpoint. */
static int meta_groups_co_adopt(struct ashlar_pool *p)
{
	struct pool_group_disk rec;
	struct raid_desc *d = xmalloc(sizeof(*d));
	struct label *l = p->label;
	unsigned i, c;
	uint64_t g;
	int r = 0;

	for (g = p->replayed_from; g < p->next_group && r == 0; g++) {
		r = meta_array_co_get(p->groups, g, &rec);
		for (i = 0; i < l->n_meta && l->meta[i].group != g; i++)
			;
		if (r < 0 || rec.kind != THIN_GROUP_META || i < l->n_meta || i == LABEL_META_GROUPS_MAX)
			continue;
		r = pool_group_decode(p, &rec, d, NULL);
		if (r < 0)
			break;
		l->meta[i].group = g;
		l->meta[i].n_cols = d->n_cols;
		for (c = 0; c < d->n_cols; c++)
			l->meta[i].cols[c] = d->cols[c];
		l->n_meta++;
		pool_pgroup_add(p, d, THIN_GROUP_META, 0);
		meta_group_add(p->meta, g);
	}
	xfree(d);
	return r;
}

/* A crash while labels were written: some disk names an older checkpoint than the one that has been chosen. It must not
 * become the pool's word, by the loss of the others, once what that checkpoint needs has been overwritten. */
static bool labels_differ(const struct ashlar_pool *p)
{
	unsigned i;

	for (i = 0; i < p->n_disks; i++)
		if (p->disks[i].state == PDISK_ONLINE && p->as->disks[i].own_generation < p->label->generation)
			return true;
	return false;
}

/* Coroutine. What all disks have been found with is known to be on all of them, once it has been flushed (a killed process may have
 * left it in their caches). Otherwise a disk that comes back as it was some openings ago, each of which ended in a crash soon
 * after, would pass for current. */
static void labels_co_acked(struct ashlar_pool *p)
{
	uint64_t all = p->label->generation;
	struct co_join j;
	struct io *ios;
	unsigned i;

	for (i = 0; i < p->n_disks; i++)
		if (p->disks[i].state == PDISK_ONLINE)
			all = MIN(all, p->as->disks[i].own_generation);
	if (all <= p->label->acked_generation)
		return;
	ios = xcalloc(p->n_disks, sizeof(*ios));
	co_join_init(&j);
	for (i = 0; i < p->n_disks; i++) {
		if (p->disks[i].state != PDISK_ONLINE)
			continue;
		io_prep(&ios[i], IO_FLUSH, 0, 0, NULL, 0);
		bdev_submit_join(&p->disks[i].disk->bdev, &ios[i], &j);
	}
	if (co_join_wait(&j) == 0)
		p->label->acked_generation = all;
	xfree(ios);
}

/* Coroutine. */
static int labels_co_agree(struct ashlar_pool *p, struct err *e)
{
	int r = 0;

	if (!p->labels_agree && labels_differ(p))
		r = pool_co_publish_labels(p);
	if (r < 0)
		return err_set(e, r, "pool %s: its labels could not be written: %s", p->label->name, err_text(r));
	p->labels_agree = true;
	return 0;
}

/* Coroutine. Replay may have to write a checkpoint, to make room: labels must say before that who misses it. Where groups of the
 * checkpoint cannot be read, the records behind it may say that they have moved, or the pool is refused, with nothing changed:
 * then labels wait until that is known. */
static int replay_co_prepare(struct ashlar_pool *p, unsigned flags, struct err *e)
{
	struct err not_said = { 0 };

	labels_co_acked(p);
	label_note_states(p);
	return readable_co_check(p, flags, &not_said) < 0 ? 0 : labels_co_agree(p, e);
}

static int pool_co_load(struct ashlar_pool *p, unsigned flags, struct err *e)
{
	uint8_t *owner = xcalloc(1, META_OWNER_BYTES);
	uint64_t n_records;
	int r = metadata_check(p, e);

	if (r == 0)
		r = meta_co_load(p->meta, p->label->root_addr, p->label->root_crc, p->label->epoch, owner, e);
	if (r == 0) {
		owner_load(p, owner);
		p->replayed_from = p->next_group;
		r = thin_co_load(p->thin, e);
	}
	if (r == 0 && !p->read_only)
		r = replay_co_prepare(p, flags, e);
	if (r == 0)
		r = meta_co_replay(p->meta, &n_records, e);
	if (r == 0 && !p->read_only)
		r = meta_groups_co_adopt(p);
	if (r == 0)
		r = readable_co_check(p, flags, e);
	if (r == 0)
		pool_co_settings_publish(p);
	xfree(owner);
	return r < 0 ? err_default(e, r, "opening the pool") : 0;
}

static int pool_co_start(struct ashlar_pool *p, unsigned flags, struct err *e)
{
	unsigned i;
	int r = 0;

	if (!p->read_only)
		label_note_states(p); /* of a new pool; else that has been done */
	if (!p->read_only)
		r = labels_co_agree(p, e);
	if (r < 0)
		return r;
	r = pool_co_stripe_logs_recover(p, flags, e);
	if (r < 0)
		return r;
	thin_replayed(p->thin);
	if (p->read_only)
		return thin_co_start(p->thin);
	r = meta_co_start(p->meta);
	if (r < 0)
		return err_set(e, r, "pool %s: the first checkpoint could not be written: %s", p->label->name, err_text(r));
	if (!meta_is_kept(p->meta) && !has_remote_disk(p))
		pool_event(p, ASHLAR_WARNING, "pool.unkept", -1, NULL, "there is no memory that outlives the process (/dev/shm, or "
			   "$ASHLAR_KEEP_DIR): if it is killed, writes to new space that no flush had covered are lost");
	meta_groups_hold(p, true);
	p->started = true;
	pool_co_stripe_logs_attach(p);
	co_mutex_lock(&p->labels);
	for (i = 0; i < p->n_disks; i++)
		if (p->disks[i].disk && p->as->disks[i].damaged)
			label_co_mend(p->disks[i].disk);
	co_mutex_unlock(&p->labels);
	r = meta_groups_co_reconcile(p);
	meta_groups_hold(p, false);
	for (i = 0; i < p->n_disks && r == 0; i++)
		if (p->disks[i].rolled_back)
			r = pool_co_distrust_disk(p, i, false);
	if (r == 0)
		r = thin_co_start(p->thin);
	if (r < 0)
		return err_set(e, r, "pool %s: it could not be started: %s", p->label->name, err_text(r));
	pool_regions_start(p);
	pool_life_start(p);
	return 0;
}

static struct ashlar_pool *pool_new(struct ashlar *a, struct assembly *as, unsigned flags)
{
	struct ashlar_pool *p = xcalloc(1, sizeof(*p));

	p->a = a;
	p->w = a->world;
	p->as = as;
	p->label = &as->label;
	p->read_only = as->read_only;
	p->n_reactors = a->world->n_reactors;
	list_init(&p->link);
	list_init(&p->pending_runs);
	list_init(&p->held_runs);
	p->life = pool_life_create(p);
	pool_settings_default(&p->settings);
	list_init(&p->attached);
	list_init(&p->transfers);
	hash_init(&p->pgroups);
	co_mutex_init(&p->alloc);
	co_mutex_init(&p->labels);
	co_mutex_init(&p->group_load);
	co_mutex_init(&p->directory);
	co_mutex_init(&p->notes_lock);
	co_queue_init(&p->idle);
	disks_take(p, flags);
	return p;
}

/* The first group of a new pool: metadata, at the start of the emptiest disks, with the journal at its start. */
static void label_format(struct ashlar_pool *p)
{
	struct label *l = p->label;
	unsigned copies = pool_metadata_copies(p), c;
	uint64_t col = raid_col_bytes(RAID_RAID1, (uint8_t)copies, copies, l->group_bytes, l->strip_bytes, l->extent_bytes);

	l->n_meta = 1;
	l->meta[0].group = 0;
	l->meta[0].n_cols = (uint8_t)copies;
	for (c = 0; c < copies; c++) {
		l->meta[0].cols[c].disk = (uint16_t)(c % p->n_disks);
		l->meta[0].cols[c].off_bytes = l->data_off + c / p->n_disks * col;
	}
	l->journal_off = 0;
	l->journal_bytes = ALIGN_UP(MIN(MAX(l->group_bytes / 8, 64 * KIB), JOURNAL_MAX), META_PAGE_BYTES);
	l->epoch = 1;
}

/* Coroutine. Takes over *as (heap), also on error. format: a new pool on prepared disks. */
int pool_co_assemble(struct ashlar *a, struct assembly *as, unsigned flags, bool format, struct ashlar_pool **out, struct err *e)
{
	struct ashlar_pool *p = pool_new(a, as, flags);
	uint64_t start = world_now_ns(a->world);
	int r;

	if (format)
		label_format(p);
	pool_stripe_logs_init(p);
	pool_co_each_reactor(p, raid_make_here, p);
	pool_co_each_reactor(p, raid_peers_here, p);
	stores_open(p);
	if (format) {
		p->next_group = 1;
		r = meta_co_format(p->meta);
	} else {
		r = pool_co_load(p, flags, e);
	}
	if (r == 0)
		r = pool_co_start(p, flags, e);
	if (r == 0)
		r = err_default(e, pool_co_identities_load(p), "reading what volumes were in other pools");
	p->open_ns = world_now_ns(a->world) - start;
	if (r == 0) {
		doubts_tell(p);
		*out = p;
		return 0;
	}
	pool_co_close(p, false, NULL);
	return r;
}

/* ---- closing ---- */

static bool pgroup_fini(struct hash_node *n, void *arg)
{
	xfree(container_of(n, struct pgroup, node));
	return true;
}

static bool logs_keep(const struct ashlar_pool *p)
{
	unsigned i;

	for (i = 0; i < p->n_reactors; i++)
		if (raid_log_keeps(p->reactors[i].raid))
			return true;
	return false;
}

/* Coroutine. Stops everything, writes the last checkpoint, frees. */
int pool_co_close(struct ashlar_pool *p, bool clean, struct err *e)
{
	struct list *l;
	int r = 0;

	p->stopping = true;
	if (p->started) {
		pool_co_life_stop(p);
		pool_co_regions_stop(p);
	}
	thin_co_stop(p->thin);
	pool_co_stripe_logs_settle(p);
	if (p->started) {
		struct err local = { 0 };

		r = meta_co_stop(p->meta, clean && !logs_keep(p));
		if (r < 0 && clean)
			err_set(e ? e : &local, r, "pool %s: closing did not complete: %s; what was flushed is safe",
				p->label->name, p->failed ? p->failed_why : err_text(r));
	}
	thin_close(p->thin);
	meta_close(p->meta);
	p->meta = NULL;
	pool_co_disks_settle(p);
	pool_co_each_reactor(p, raid_drop_here, p);
	pool_stripe_logs_fini(p);
	assembly_close(p->as);
	xfree(p->as);
	hash_each(&p->pgroups, pgroup_fini, NULL);
	hash_fini(&p->pgroups);
	while ((l = list_pop_front(&p->pending_runs)))
		xfree(container_of(l, struct pending_run, link));
	while ((l = list_pop_front(&p->held_runs)))
		xfree(container_of(l, struct pending_run, link));
	pool_life_free(p->life);
	xfree(p);
	return r;
}
