/*
 * groups.c: the group table: which group lies where; making groups.
 *
 * A group is made from ONLINE disks with the most room, one contiguous run of extents each. Its number and place are
 * decided in memory and handed in as one record; until that is applied its runs are remembered as pending, so that nobody
 * else takes them. If the record is lost in a crash, so is everything that was written to the group.
 *
 * Metadata groups are also named by the label, since the arrays cannot be read without them. The record and the label
 * become durable at different moments: opening reconciles (open.c).
 */
#include <string.h>

#include "engine/pool/life.h"

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

/* Parity is worth nothing where one disk takes two columns away. */
static bool cols_are_distinct(const struct raid_desc *d)
{
	unsigned i, k;

	for (i = 0; i < d->n_cols; i++)
		for (k = 0; k < i; k++)
			if (d->cols[i].disk == d->cols[k].disk)
				return false;
	return true;
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
	if (pool_layout_is_parity(d->layout) && !cols_are_distinct(d))
		return err_set(e, -ERR_FORMAT, "group %llu has two columns on one disk", (unsigned long long)d->group);
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

/* How many disks have a copy of all metadata there is: groups of older pools may be narrower than new ones. */
unsigned pool_metadata_width(const struct ashlar_pool *p)
{
	const struct label *l = p->label;
	unsigned width = RAID_COPIES_MAX, i, k, c, distinct;

	for (i = 0; i < l->n_meta; i++) {
		for (c = distinct = 0; c < l->meta[i].n_cols; c++) {
			for (k = 0; k < c && l->meta[i].cols[k].disk != l->meta[i].cols[c].disk; k++)
				;
			distinct += k == c;
		}
		width = MIN(width, distinct);
	}
	return width;
}

/* ---- in memory ---- */

struct pgroup *pool_pgroup_add(struct ashlar_pool *p, const struct raid_desc *d, unsigned kind, uint64_t dirty)
{
	struct pgroup *g = xcalloc(1, sizeof(*g) + p->n_reactors * sizeof(g->lease[0]));

	g->desc = *d;
	g->kind = (uint8_t)kind;
	g->dirty = dirty;
	/* What is recorded as dirty when a group is loaded was so before this opening: a crash, or a member was away. Of parity
	 * groups the stripe logs have put in order what a crash left. */
	g->unsync = kind != THIN_GROUP_DATA || (pool_layout_is_parity(d->layout) && !p->logs_lost) ? 0 : dirty;
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

/* ---- making ---- */

static uint64_t group_hand_in(struct ashlar_pool *p, const struct raid_desc *d, unsigned kind)
{
	struct pool_group_disk rec;
	uint64_t seq;

	pool_group_encode(d, kind, p->label, &rec);
	seq = meta_record(p->meta, POOL_REC_GROUP_PUT, &rec, sizeof(rec));
	pool_space_handed_in(p, seq);
	p->change_gen++;
	return seq;
}

/* Disks may have left since it was planned. */
static bool desc_is_readable(const struct ashlar_pool *p, const struct raid_desc *d)
{
	unsigned set, i, current, lost = 0;

	for (set = 0; set < d->n_cols; set += d->copies) {
		for (current = 0, i = set; i < set + d->copies; i++)
			current += p->disks[d->cols[i].disk].state == PDISK_ONLINE;
		lost += !current;
	}
	return lost <= (pool_layout_is_parity(d->layout) ? raid_profile_tolerates((struct raid_profile){ d->layout, d->copies }) : 0);
}

int pool_co_group_create(struct ashlar_pool *p, unsigned kind, struct raid_profile prof, uint64_t *group)
{
	struct raid_desc *d = xmalloc(sizeof(*d));
	int r;

	co_mutex_lock(&p->alloc);
	for (;;) {
		r = pool_co_space_take_group(p, kind, prof, d);
		if (r < 0 || desc_is_readable(p, d))
			break;
		pool_space_give_back(p, d->n_cols);
	}
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

void pool_co_group_forget(struct ashlar_pool *p, uint64_t group)
{
	struct forget f = { p, group };

	pool_co_each_reactor(p, forget_here, &f);
}

/* Its extents are nobody's before the record is durable: until then a crash brings the group back. And it stays in memory until
 * the record is applied: until then the array would bring it back. */
int pool_co_group_destroy(struct ashlar_pool *p, struct pgroup *g)
{
	le64 rec = le64_make(g->desc.group);
	uint64_t seq;
	unsigned c;
	int r;

	g->leaving = true;
	pool_co_group_forget(p, g->desc.group);
	for (c = 0; c < g->desc.n_cols; c++)
		pool_space_hold(p, &g->desc.cols[c], g->desc.col_bytes);
	seq = meta_record(p->meta, POOL_REC_GROUP_GONE, &rec, sizeof(rec));
	p->change_gen++;
	r = meta_co_commit(p->meta, seq);
	if (r == 0)
		r = meta_co_wait_applied(p->meta, seq);
	for (c = 0; c < g->desc.n_cols; c++)
		pool_space_release(p, &g->desc.cols[c]);
	if (r < 0) /* the pool has stopped */
		return r;
	hash_del(&p->pgroups, &g->node);
	xfree(g);
	co_queue_wake_all(&p->life->claims);
	return 0;
}

int pool_co_meta_orphan_destroy(struct ashlar_pool *p, uint64_t group)
{
	struct pgroup *g;
	int r = pool_co_group_claim(p, group, &g);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (pool_label_meta_find(p->label, group) < 0)
		return pool_co_group_destroy(p, g);
	pool_group_unclaim(p, g);
	return 0;
}

/* Coroutine. Destroys a data group that holds nothing, so that its extents can serve another layout or metadata. */
static int group_co_reclaim(struct ashlar_pool *p)
{
	struct pgroup *g;
	uint64_t group;
	int r;

	for (group = 0;; group++) {
		r = thin_co_empty_group(p->thin, &group);
		if (r == 0)
			r = pool_co_pgroup_get(p, group, &g);
		if (r < 0)
			return r;
		if (!g->unsync && !g->sync.owner && !g->moving && !g->leaving)
			return pool_co_group_destroy(p, g);
		/* It is being synced, or moved: perhaps another one can go. */
	}
}

int pool_co_group_make(struct ashlar_pool *p, unsigned kind, struct raid_profile prof, uint64_t *group)
{
	int r;

	do {
		r = pool_co_group_create(p, kind, prof, group);
	} while (r == -ERR_POOL_FULL && group_co_reclaim(p) == 0);
	return r;
}

int pool_co_group_reclaim(struct ashlar_pool *p)
{
	int r;

	thin_co_leases_call_in(p->thin); /* a group that nobody writes to any more is empty then */
	thin_co_alloc_lock(p->thin);
	r = group_co_reclaim(p);
	thin_alloc_unlock(p->thin);
	return r;
}

static int thin_hook_group_create(void *ctx, struct thin_class cls, uint64_t *group)
{
	int r = pool_co_group_make(ctx, THIN_GROUP_DATA, (struct raid_profile){ cls.layout, cls.copies }, group);

	if (r == -ERR_POOL_FULL)
		pool_life_full(ctx);
	return r;
}

static void thin_hook_event(void *ctx, const char *sentence)
{
	pool_log(ctx, "%s", sentence);
}

static int thin_hook_pace(void *ctx, uint64_t bytes)
{
	return pool_co_pace(ctx, bytes);
}

const struct thin_hooks pool_thin_hooks = {
	.co_pace = thin_hook_pace,
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
	if (r == -ERR_POOL_FULL && copies > 2 && pool_metadata_width(p) < copies) {
		prof.copies--; /* an older pool, with a reserve for two */
		r = pool_co_group_create(p, THIN_GROUP_META, prof, &group);
	}
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

int pool_co_column_mark(struct ashlar_pool *p, const struct raid_desc *d, unsigned col, bool used)
{
	uint64_t n = pgroup_capacity_extents(p, d), first = (d->cols[col].off_bytes - p->label->data_off) / p->label->extent_bytes, i;
	struct pdisk *disk = &p->disks[d->cols[col].disk];
	struct pool_extent_disk ext;
	int r;

	for (i = 0; i < n; i++) {
		memset(&ext, 0, sizeof(ext));
		if (used) {
			ext.group_plus_1 = le64_make(d->group + 1);
			ext.left = le32_make((uint32_t)(n - i));
			ext.col = le16_make((uint16_t)col);
		}
		r = meta_array_co_set(p->extents, POOL_EXTENT_INDEX(d->cols[col].disk, first + i), &ext);
		if (r < 0)
			return r;
	}
	if (used) {
		disk->used += n;
	} else {
		disk->used -= n;
		disk->no_run = 0;
	}
	return 0;
}

static int extents_co_mark(struct ashlar_pool *p, const struct raid_desc *d, bool used)
{
	unsigned c;
	int r = 0;

	for (c = 0; c < d->n_cols && r == 0; c++)
		r = pool_co_column_mark(p, d, c, used);
	return r;
}

static int apply_group_put(struct ashlar_pool *p, const void *payload, size_t len)
{
	const struct pool_group_disk *rec = payload;
	struct pool_group_disk old;
	struct raid_desc d;
	int r;

	if (len != sizeof(*rec) || (rec->kind != THIN_GROUP_DATA && rec->kind != THIN_GROUP_META && rec->kind != THIN_GROUP_LOG))
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
	case POOL_REC_GROUP_MOVE:
	case POOL_REC_GROUP_SHAPE:
		return pool_co_apply_group_columns(p, type, payload, len);
	case POOL_REC_SETTINGS:
		return pool_apply_settings(p, payload, len);
	case POOL_REC_NOTE:
	case POOL_REC_NOTE_PART:
		return pool_co_apply_note(p, type, payload, len);
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
