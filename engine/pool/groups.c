/*
 * groups.c: the group table: which group lies where; making groups; space of disks.
 *
 * A group is made from ONLINE disks with the most room, one contiguous run of extents each. Its number and place are
 * decided in memory and handed in as one record; until that is applied its runs are remembered as pending, so that nobody
 * else takes them. If the record is lost in a crash, so is everything that was written to the group.
 *
 * Metadata groups are also named by the label, since the arrays cannot be read without them. The record and the label
 * become durable at different moments: opening reconciles (open.c).
 */
#include <string.h>

#include "engine/pool/pool_internal.h"

static uint64_t pgroup_capacity_extents(const struct ashlar_pool *p, const struct raid_desc *d)
{
	return d->col_bytes / p->label->extent_bytes;
}

void pool_group_encode(const struct raid_desc *d, unsigned kind, const struct label *l, struct pool_group_disk *out)
{
	unsigned i;

	memset(out, 0, sizeof(*out));
	out->group = le64_make(d->group);
	out->kind = (uint8_t)kind;
	out->layout = d->layout;
	out->copies = d->copies;
	out->n_cols = d->n_cols;
	out->strip_bytes = le32_make(d->strip_bytes);
	out->size_bytes = le64_make(d->size_bytes);
	out->col_bytes = le64_make(d->col_bytes);
	for (i = 0; i < d->n_cols; i++) {
		out->cols[i].disk = le16_make(d->cols[i].disk);
		out->cols[i].first_extent = le32_make((uint32_t)((d->cols[i].off_bytes - l->data_off) / l->extent_bytes));
	}
}

int pool_group_decode(const struct ashlar_pool *p, const struct pool_group_disk *g, struct raid_desc *d, struct err *e)
{
	const struct label *l = p->label;
	unsigned i;

	memset(d, 0, sizeof(*d));
	d->group = le64_get(g->group);
	d->layout = g->layout;
	d->copies = g->copies;
	d->n_cols = g->n_cols;
	d->strip_bytes = le32_get(g->strip_bytes);
	d->size_bytes = le64_get(g->size_bytes);
	d->col_bytes = le64_get(g->col_bytes);
	if (d->n_cols > RAID_COLS_MAX || d->size_bytes != l->group_bytes || d->col_bytes % l->extent_bytes)
		return err_set(e, -ERR_FORMAT, "group %llu has an impossible shape", (unsigned long long)d->group);
	for (i = 0; i < d->n_cols; i++) {
		d->cols[i].disk = le16_get(g->cols[i].disk);
		d->cols[i].off_bytes = l->data_off + (uint64_t)le32_get(g->cols[i].first_extent) * l->extent_bytes;
	}
	if (raid_desc_check(d, p->n_disks, e) < 0)
		return -ERR_FORMAT;
	for (i = 0; i < d->n_cols; i++)
		if (le32_get(g->cols[i].first_extent) + d->col_bytes / l->extent_bytes > p->disks[d->cols[i].disk].extents)
			return err_set(e, -ERR_FORMAT, "group %llu reaches beyond the end of disk %u", (unsigned long long)d->group,
				       d->cols[i].disk);
	return 0;
}

/* A metadata group as the label describes it. */
void pool_label_meta_desc(const struct label *l, unsigned i, struct raid_desc *d)
{
	memset(d, 0, sizeof(*d));
	d->group = l->meta[i].group;
	d->n_cols = d->copies = l->meta[i].n_cols;
	d->layout = d->n_cols > 1 ? RAID_RAID1 : RAID_SINGLE;
	d->strip_bytes = l->strip_bytes;
	d->size_bytes = l->group_bytes;
	d->col_bytes = raid_col_bytes(d->layout, d->copies, d->n_cols, l->group_bytes, l->strip_bytes, l->extent_bytes);
	memcpy(d->cols, l->meta[i].cols, d->n_cols * sizeof(d->cols[0]));
}

unsigned pool_metadata_copies(const struct ashlar_pool *p)
{
	return raid_profile_tolerates(p->label->profile) >= 2 && p->n_disks >= 3 ? 3 : 2;
}

/* ---- in memory ---- */

struct pgroup *pool_pgroup_add(struct ashlar_pool *p, const struct raid_desc *d, unsigned kind, uint64_t dirty)
{
	struct pgroup *g = xcalloc(1, sizeof(*g) + p->n_reactors * sizeof(g->lease[0]));

	g->desc = *d;
	g->kind = (uint8_t)kind;
	g->dirty = dirty;
	/* What is recorded as dirty when a group is loaded was so before this opening: a crash, or a member was away. */
	g->unsync = kind == THIN_GROUP_META ? 0 : dirty;
	co_mutex_init(&g->sync);
	hash_add(&p->pgroups, &g->node, d->group);
	return g;
}

static struct pgroup *pgroup_find(struct ashlar_pool *p, uint64_t group)
{
	struct hash_node *n = hash_find(&p->pgroups, group);

	return n ? container_of(n, struct pgroup, node) : NULL;
}

/* Coroutine. */
int pool_co_pgroup_get(struct ashlar_pool *p, uint64_t group, struct pgroup **out)
{
	struct pool_group_disk *rec;
	struct raid_desc *d;
	le64 mask;
	int r;

	*out = pgroup_find(p, group);
	if (*out)
		return 0;
	rec = xmalloc(sizeof(*rec));
	d = xmalloc(sizeof(*d));
	r = meta_array_co_get(p->groups, group, rec);
	if (r == 0)
		r = meta_array_co_get(p->regions, group, &mask);
	if (r == 0 && rec->kind == THIN_GROUP_NONE)
		r = -ENOENT;
	if (r == 0)
		r = le64_get(rec->group) == group ? pool_group_decode(p, rec, d, NULL) : -ERR_FORMAT;
	if (r == 0) {
		*out = pgroup_find(p, group); /* somebody else may have loaded it meanwhile */
		if (!*out)
			*out = pool_pgroup_add(p, d, rec->kind, le64_get(mask));
	}
	xfree(d);
	xfree(rec);
	return r;
}

/* ---- finding room ---- */

static void pending_runs_expire(struct ashlar_pool *p)
{
	struct pending_run *run, *next;

	list_for_each_safe (run, next, &p->pending_runs, link) {
		if (run->seq && run->seq <= meta_applied_seq(p->meta)) {
			p->disks[run->disk].used -= run->n; /* apply has counted it */
			list_del(&run->link);
			xfree(run);
		}
	}
}

/* Is extent x of the disk taken by a pending run? Then the first extent behind it, else 0. */
static uint64_t pending_end(const struct ashlar_pool *p, unsigned disk, uint64_t x)
{
	struct pending_run *run;

	list_for_each (run, &p->pending_runs, link)
		if (run->disk == disk && x >= run->first && x < run->first + run->n)
			return run->first + run->n;
	return 0;
}

/* Coroutine. First run of n free extents at or after `from`, before `limit` begins one. */
static int run_co_find(struct ashlar_pool *p, unsigned disk, uint64_t n, uint64_t from, uint64_t limit, uint64_t *first)
{
	uint64_t start = from, x = from, end;
	struct pool_extent_disk ext;
	int r;

	while (start < limit && start + n <= p->disks[disk].extents) {
		if (x == start + n) {
			*first = start;
			return 0;
		}
		end = pending_end(p, disk, x);
		if (!end) {
			r = meta_array_co_get(p->extents, POOL_EXTENT_INDEX(disk, x), &ext);
			if (r < 0)
				return r;
			if (le64_get(ext.group_plus_1))
				end = x + MAX(le32_get(ext.left), 1);
		}
		if (end)
			start = x = end;
		else
			x++;
	}
	return -ENOSPC;
}

static int column_co_take(struct ashlar_pool *p, unsigned disk, uint64_t n, uint64_t *first)
{
	struct pdisk *d = &p->disks[disk];
	struct pending_run *run;
	int r = run_co_find(p, disk, n, d->cursor, d->extents, first);

	if (r == -ENOSPC)
		r = run_co_find(p, disk, n, 0, d->cursor, first);
	if (r < 0)
		return r;
	run = xcalloc(1, sizeof(*run));
	*run = (struct pending_run){ .disk = disk, .first = *first, .n = n };
	list_push_back(&p->pending_runs, &run->link);
	d->used += n;
	d->cursor = *first + n;
	return 0;
}

/* all: also of disks that are away or behind; their columns are written when they are back. */
static uint64_t disk_free_extents(const struct pdisk *d, bool all)
{
	return (all || d->state == PDISK_ONLINE) && d->extents > d->used ? d->extents - d->used : 0;
}

/* Extents that must stay free for metadata groups to come: room for one in 512 groups, at least one. */
static uint64_t reserve_groups(const struct ashlar_pool *p)
{
	uint64_t total = 0;
	unsigned i;

	for (i = 0; i < p->n_disks; i++)
		total += p->disks[i].extents * p->label->extent_bytes;
	return 1 + total / p->label->group_bytes / 512;
}

/* Would there still be room for the reserve if the disks had `free_left` extents? */
static bool reserve_holds(const struct ashlar_pool *p, const uint64_t *free_left)
{
	uint64_t need = reserve_groups(p) * DIV_UP(p->label->group_bytes, p->label->extent_bytes), room = 0;
	unsigned copies = pool_metadata_copies(p), i;

	/* Copies on distinct disks: no disk can give more than `need` of them (unless there are not so many disks). */
	for (i = 0; i < p->n_disks; i++)
		room += MIN(free_left[i], need * DIV_UP(copies, p->n_disks));
	return room >= need * copies;
}

struct candidate {
	unsigned disk;
	uint64_t free;
};

/* Disks with room for a column: ONLINE ones, the emptiest (as a share of its size) first, then (all) the others. */
static unsigned candidates_rank(struct ashlar_pool *p, uint64_t need, bool all, struct candidate *c, unsigned *n_online)
{
	unsigned i, k, n = 0, first = 0, round;

	*n_online = 0;
	for (round = 0; round < (all ? 2 : 1); round++, first = n) {
		for (i = 0; i < p->n_disks; i++) {
			uint64_t f = disk_free_extents(&p->disks[i], all);

			if (f < need || (p->disks[i].state == PDISK_ONLINE) != (round == 0))
				continue;
			for (k = n++; k > first && (unsigned __int128)c[k - 1].free * p->disks[i].extents <
							   (unsigned __int128)f * p->disks[c[k - 1].disk].extents; k--)
				c[k] = c[k - 1];
			c[k] = (struct candidate){ i, f };
			*n_online += round == 0;
		}
	}
	return n;
}

/* Chooses shape and disks; nothing is taken yet. */
static int group_plan_from(struct ashlar_pool *p, unsigned kind, struct raid_profile prof, bool all, struct raid_desc *d)
{
	const struct label *l = p->label;
	struct candidate c[LABEL_DISKS_MAX];
	uint64_t left[LABEL_DISKS_MAX], need;
	unsigned n, i, cols, sets, n_online;

	memset(d, 0, sizeof(*d));
	d->layout = prof.layout;
	d->copies = prof.copies;
	d->strip_bytes = l->strip_bytes;
	d->size_bytes = l->group_bytes;
	/* Fewer disks with room mean fewer and longer columns, which may fit on fewer disks still. */
	for (n = candidates_rank(p, 1, all, c, &n_online);; n--) {
		cols = kind == THIN_GROUP_META ? prof.copies : raid_profile_columns(prof, n);
		/* Two copies of metadata share a disk only if the pool has no others. */
		if (!cols || !n || n < MIN(cols, p->n_disks))
			return -ERR_POOL_FULL;
		d->col_bytes = raid_col_bytes(prof.layout, prof.copies, cols, l->group_bytes, l->strip_bytes, l->extent_bytes);
		need = d->col_bytes / l->extent_bytes;
		if (candidates_rank(p, need, all, c, &n_online) >= MIN(n, cols))
			break;
	}
	d->n_cols = (uint8_t)cols;
	sets = cols / prof.copies;
	if (n_online < sets)
		return -ERR_POOL_FULL; /* each mirror begins on a disk that is ONLINE */
	for (i = 0; i < cols; i++)
		d->cols[i].disk = (uint16_t)c[(i % prof.copies * sets + i / prof.copies) % n].disk;
	for (i = 0; i < p->n_disks; i++)
		left[i] = disk_free_extents(&p->disks[i], all);
	for (i = 0; i < cols; i++) {
		if (left[d->cols[i].disk] < need)
			return -ERR_POOL_FULL;
		left[d->cols[i].disk] -= need;
	}
	if (kind != THIN_GROUP_META && !reserve_holds(p, left))
		return -ERR_POOL_FULL;
	return 0;
}

/* Where too few disks are ONLINE, mirrors are made with columns on those that are not: degraded from the start, but as
 * redundant as any other once these are back. */
static int group_plan(struct ashlar_pool *p, unsigned kind, struct raid_profile prof, struct raid_desc *d)
{
	int r = group_plan_from(p, kind, prof, false, d);

	if (r == -ERR_POOL_FULL && prof.copies > 1)
		r = group_plan_from(p, kind, prof, true, d);
	return r;
}

/* Coroutine, under p->alloc. Takes the columns' extents; undoes on failure. */
static int group_co_place(struct ashlar_pool *p, struct raid_desc *d)
{
	uint64_t n = pgroup_capacity_extents(p, d), first;
	unsigned i;
	int r = 0;

	for (i = 0; i < d->n_cols && r == 0; i++) {
		r = column_co_take(p, d->cols[i].disk, n, &first);
		if (r == 0)
			d->cols[i].off_bytes = p->label->data_off + first * p->label->extent_bytes;
	}
	if (r == 0)
		return 0;
	while (--i > 0) { /* the failed one took nothing */
		struct pending_run *run = list_last(&p->pending_runs, struct pending_run, link);

		p->disks[run->disk].used -= run->n;
		list_del(&run->link);
		xfree(run);
	}
	return r == -ENOSPC ? -ERR_POOL_FULL : r;
}

static uint64_t group_hand_in(struct ashlar_pool *p, const struct raid_desc *d, unsigned kind)
{
	struct pool_group_disk rec;
	struct pending_run *run;
	uint64_t seq;

	pool_group_encode(d, kind, p->label, &rec);
	seq = meta_record(p->meta, POOL_REC_GROUP_PUT, &rec, sizeof(rec));
	list_for_each (run, &p->pending_runs, link)
		if (!run->seq)
			run->seq = seq;
	return seq;
}

int pool_co_group_create(struct ashlar_pool *p, unsigned kind, struct raid_profile prof, uint64_t *group)
{
	struct raid_desc *d = xmalloc(sizeof(*d));
	int r;

	co_mutex_lock(&p->alloc);
	pending_runs_expire(p);
	r = group_plan(p, kind, prof, d);
	if (r == 0)
		r = group_co_place(p, d);
	if (r == 0) {
		d->group = p->next_group++;
		group_hand_in(p, d, kind);
		pool_pgroup_add(p, d, kind, 0);
		*group = d->group;
	}
	co_mutex_unlock(&p->alloc);
	xfree(d);
	return r;
}

struct forget {
	struct ashlar_pool *p;
	uint64_t group;
};

static int forget_here(void *arg)
{
	struct forget *f = arg;

	raid_co_group_forget(pool_here(f->p)->raid, f->group);
	return 0;
}

/* Coroutine. Destroys a data group that holds nothing, so that its extents can serve another layout or metadata. */
static int group_co_reclaim(struct ashlar_pool *p)
{
	struct forget f = { .p = p };
	struct pgroup *g;
	uint64_t seq;
	le64 rec;
	int r = thin_co_empty_group(p->thin, &f.group);

	if (r < 0)
		return r;
	g = pgroup_find(p, f.group);
	if (g && (g->unsync || g->sync.owner))
		return -ENOENT; /* being synced: another time */
	pool_co_each_reactor(p, forget_here, &f);
	rec = le64_make(f.group);
	seq = meta_record(p->meta, POOL_REC_GROUP_GONE, &rec, sizeof(rec));
	g = pgroup_find(p, f.group);
	if (g) {
		hash_del(&p->pgroups, &g->node);
		xfree(g);
	}
	r = meta_co_commit(p->meta, seq); /* before anybody writes there for another group */
	return r < 0 ? r : meta_co_wait_applied(p->meta, seq);
}

static int thin_hook_group_create(void *ctx, struct thin_class cls, uint64_t *group)
{
	struct raid_profile prof = { cls.layout, cls.copies };
	int r;

	do {
		r = pool_co_group_create(ctx, THIN_GROUP_DATA, prof, group);
	} while (r == -ERR_POOL_FULL && group_co_reclaim(ctx) == 0);
	return r;
}

static void thin_hook_event(void *ctx, const char *sentence)
{
	pool_log(ctx, "%s", sentence);
}

const struct thin_hooks pool_thin_hooks = {
	.co_group_create = thin_hook_group_create,
	.event = thin_hook_event,
};

/* Coroutine, from the metadata store, perhaps in the middle of applying: must not wait for it. */
int pool_co_grow_metadata(struct ashlar_pool *p)
{
	unsigned copies = pool_metadata_copies(p), k = p->label->n_meta, i;
	struct raid_profile prof = { copies > 1 ? RAID_RAID1 : RAID_SINGLE, (uint8_t)copies };
	struct pgroup *g;
	uint64_t group;
	int r;

	if (!p->read_only && !p->started)
		return -ERR_POOL_FULL; /* recovery lives within the reserve */
	if (p->read_only) {
		/* In-memory replay: pages that are never written may have any number beyond the real groups. */
		if (meta_n_groups(p->meta) == META_GROUPS_MAX)
			return -ERR_POOL_FULL;
		p->virtual_space = true;
		meta_group_add(p->meta, (1ULL << 34) + meta_n_groups(p->meta));
		return 0;
	}
	if (k >= LABEL_META_GROUPS_MAX)
		return -ERR_POOL_FULL;
	r = pool_co_group_create(p, THIN_GROUP_META, prof, &group);
	if (r < 0)
		return r;
	g = pgroup_find(p, group);
	k = p->label->n_meta;
	p->label->meta[k].group = group;
	p->label->meta[k].n_cols = g->desc.n_cols;
	for (i = 0; i < g->desc.n_cols; i++)
		p->label->meta[k].cols[i] = g->desc.cols[i];
	p->label->n_meta++;
	meta_group_add(p->meta, group);
	pool_log(p, "metadata has grown to %u groups", p->label->n_meta);
	return 0;
}

/* ---- records ---- */

static int extents_co_mark(struct ashlar_pool *p, const struct raid_desc *d, bool used)
{
	uint64_t n = pgroup_capacity_extents(p, d), i;
	struct pool_extent_disk ext;
	unsigned c;
	int r;

	for (c = 0; c < d->n_cols; c++) {
		uint64_t first = (d->cols[c].off_bytes - p->label->data_off) / p->label->extent_bytes;

		for (i = 0; i < n; i++) {
			memset(&ext, 0, sizeof(ext));
			if (used) {
				ext.group_plus_1 = le64_make(d->group + 1);
				ext.left = le32_make((uint32_t)(n - i));
				ext.col = le16_make((uint16_t)c);
			}
			r = meta_array_co_set(p->extents, POOL_EXTENT_INDEX(d->cols[c].disk, first + i), &ext);
			if (r < 0)
				return r;
		}
		if (used)
			p->disks[d->cols[c].disk].used += n;
		else
			p->disks[d->cols[c].disk].used -= n;
	}
	return 0;
}

static int apply_group_put(struct ashlar_pool *p, const void *payload, size_t len)
{
	const struct pool_group_disk *rec = payload;
	struct pool_group_disk old;
	struct raid_desc d;
	int r;

	if (len != sizeof(*rec) || (rec->kind != THIN_GROUP_DATA && rec->kind != THIN_GROUP_META))
		return -ERR_FORMAT;
	r = pool_group_decode(p, rec, &d, NULL);
	if (r == 0)
		r = meta_array_co_get(p->groups, d.group, &old);
	if (r < 0)
		return r;
	if (old.kind != THIN_GROUP_NONE)
		return -ERR_FORMAT;
	r = meta_array_co_set(p->groups, d.group, rec);
	if (r == 0)
		r = extents_co_mark(p, &d, true);
	p->next_group = MAX(p->next_group, d.group + 1);
	if (r == 0)
		r = thin_co_apply_group(p->thin, d.group, rec->kind, (struct thin_class){ d.layout, d.copies });
	return r;
}

static int apply_group_gone(struct ashlar_pool *p, const void *payload, size_t len)
{
	static const struct pool_group_disk none;
	static const le64 no_mask;
	struct pool_group_disk rec;
	struct raid_desc d;
	uint64_t group;
	int r;

	if (len != sizeof(le64))
		return -ERR_FORMAT;
	group = le64_get(*(const le64 *)payload);
	r = meta_array_co_get(p->groups, group, &rec);
	if (r == 0)
		r = pool_group_decode(p, &rec, &d, NULL);
	if (r == 0)
		r = meta_array_co_set(p->groups, group, &none);
	if (r == 0)
		r = meta_array_co_set(p->regions, group, &no_mask);
	if (r == 0)
		r = extents_co_mark(p, &d, false);
	if (r == 0)
		r = thin_co_apply_group(p->thin, group, THIN_GROUP_NONE, (struct thin_class){ 0, 0 });
	return r;
}

int pool_co_apply_record(struct ashlar_pool *p, unsigned type, const void *payload, size_t len)
{
	const struct pool_rec_regions *rec = payload;

	switch (type) {
	case POOL_REC_GROUP_PUT:
		return apply_group_put(p, payload, len);
	case POOL_REC_GROUP_GONE:
		return apply_group_gone(p, payload, len);
	case POOL_REC_REGIONS:
		if (len != sizeof(*rec))
			return -ERR_FORMAT;
		return meta_array_co_set(p->regions, le64_get(rec->group), &rec->mask);
	default:
		return -ERR_FORMAT;
	}
}

int pool_co_each_group(struct ashlar_pool *p, int (*each)(void *arg, const struct pool_group_disk *g), void *arg)
{
	unsigned per_leaf = META_PAGE_BYTES / sizeof(struct pool_group_disk), i;
	struct pool_group_disk *rec = xaligned(16, META_PAGE_BYTES);
	uint64_t leaf = 0;
	int r;

	for (;; leaf++) {
		r = meta_array_co_next_leaf(p->groups, &leaf);
		if (r == 0)
			r = meta_array_co_leaf(p->groups, leaf, rec);
		for (i = 0; i < per_leaf && r == 0; i++)
			if (rec[i].kind != THIN_GROUP_NONE)
				r = each(arg, &rec[i]);
		if (r < 0)
			break;
	}
	xfree(rec);
	return r == -ENOENT ? 0 : r;
}

/* Logical bytes of groups that could still be made. all: on disks that are not ONLINE, too. */
static uint64_t room_for_groups(struct ashlar_pool *p, bool all)
{
	struct raid_profile prof = p->label->profile;
	uint64_t extents = 0, reserve, data, cols;
	unsigned i, n = 0;

	for (i = 0; i < p->n_disks; i++) {
		extents += disk_free_extents(&p->disks[i], all);
		n += all || p->disks[i].state == PDISK_ONLINE;
	}
	reserve = reserve_groups(p) * pool_metadata_copies(p) * DIV_UP(p->label->group_bytes, p->label->extent_bytes);
	extents = extents > reserve ? extents - reserve : 0;
	cols = raid_profile_columns(prof, n);
	if (!cols)
		return 0;
	data = prof.layout == RAID_RAID5 ? cols - 1 : prof.layout == RAID_RAID6 ? cols - 2 : cols / prof.copies;
	return extents * p->label->extent_bytes / cols * data / p->label->group_bytes * p->label->group_bytes;
}

/* What a volume of the pool's layout can still take: free clusters in its groups, and groups still to be made. */
uint64_t pool_free_bytes(struct ashlar_pool *p)
{
	uint64_t logical = room_for_groups(p, false);
	struct thin_space s;

	thin_space_get(p->thin, &s);
	if (!logical && p->label->profile.copies > 1)
		logical = room_for_groups(p, true);
	return s.clusters_free * p->label->cluster_bytes + logical;
}
