/*
 * leave_check.c: may a disk leave? Asked before anything is copied.
 *
 * The group table is gone over, and every column that lies on the disk is put, in thought, where the worker would put it: on the
 * disk with most room that redundancy allows. So it is known how much will be copied, and what is missing if something cannot go:
 * room, or disks. Groups that hold nothing need no place: the worker has them destroyed for their room. Clients go on writing meanwhile, so this is not a promise; the worker waits for room that has gone.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/units.h"
#include "engine/pool/leave.h"
#include "engine/pool/placement.h"

struct item { /* a column that must go */
	uint64_t extents;
	unsigned kind;
	uint8_t col;
	bool shape; /* the whole group goes, to fewer columns */
	struct raid_desc *desc;
};

struct try {
	struct ashlar_pool *p;
	struct leave_check *c;
	uint64_t left[LABEL_DISKS_MAX]; /* free extents */
	uint64_t n_free;		/* of them, at the beginning */
	unsigned n_staying, n_disks;	/* disks of the pool then; of the tables here */
	struct item *v;
	size_t n, cap;
	uint64_t lost, unreadable; /* groups */
};

static bool is_redundant(const struct raid_desc *d)
{
	return raid_profile_tolerates((struct raid_profile){ d->layout, d->copies }) > 0;
}

/* A disk that stays. */
static bool stays(const struct try *t, unsigned disk)
{
	const struct pdisk *d = &t->p->disks[disk];

	return disk == t->c->added || (disk != t->c->disk && d->state == PDISK_ONLINE && !d->leaving && !d->joining);
}

/* As pool_group_needs_shape(), then. */
static bool needs_shape(const struct try *t, unsigned kind, const struct raid_desc *d)
{
	unsigned i;

	if (kind != THIN_GROUP_DATA || !pool_layout_is_parity(d->layout) ||
	    t->n_staying < raid_profile_min_disks((struct raid_profile){ d->layout, d->copies }))
		return false;
	for (i = 0; i < t->n_disks; i++)
		if (stays(t, i) && !pool_desc_has_disk(d, i))
			return false;
	return true;
}

/* Takes over d if it is kept. */
static int item_add(struct try *t, struct raid_desc *d, unsigned kind, bool *kept)
{
	struct ashlar_pool *p = t->p;
	unsigned c, first = t->c->disk;
	uint64_t bytes;
	bool shape;
	int r;

	*kept = false;
	for (c = 0; c < d->n_cols && d->cols[c].disk != first; c++)
		;
	if (c == d->n_cols)
		return 0;
	if (!is_redundant(d) && !p->disks[first].disk)
		t->lost++;
	else if (is_redundant(d) && raid_desc_redundancy(p->reactors[0].raid, d) < 0)
		t->unreadable++;
	shape = needs_shape(t, kind, d);
	r = shape ? pool_co_group_bytes(p, d, &bytes) : pool_co_column_bytes(p, kind, d, &bytes);
	for (; c < d->n_cols && r == 0; c++) {
		if (d->cols[c].disk != first)
			continue;
		if (t->n == t->cap) {
			t->cap = MAX(2 * t->cap, 64);
			t->v = xrealloc(t->v, t->cap * sizeof(*t->v));
		}
		t->v[t->n++] = (struct item){ d->col_bytes / p->label->extent_bytes, kind, (uint8_t)c, shape, d };
		*kept = true;
		if (kind != THIN_GROUP_DATA && d->n_cols > 2 && d->n_cols > t->n_staying) /* a copy less */
			continue;
		t->c->copy_bytes += bytes;
		t->c->n_columns++;
	}
	return r;
}

static int try_group(void *arg, const struct pool_group_disk *rec)
{
	struct try *t = arg;
	struct raid_desc *d = xmalloc(sizeof(*d));
	uint64_t clusters = 1;
	bool kept = false;
	int r = pool_group_decode(t->p, rec, d, NULL);

	if (r == 0 && rec->kind == THIN_GROUP_DATA)
		r = thin_co_group_used(t->p->thin, d->group, &clusters);
	if (r == 0 && !clusters)
		pool_space_add_columns(t->p, d, t->left);
	else if (r == 0)
		r = item_add(t, d, rec->kind, &kept);
	if (!kept)
		xfree(d);
	return r;
}

/* ---- room ---- */

static bool may_take(const struct try *t, const struct item *i, unsigned disk, bool share)
{
	if (!pool_desc_has_disk(i->desc, disk))
		return true;
	if (!share || disk == t->c->disk)
		return false;
	if (i->kind != THIN_GROUP_DATA)
		return t->n_staying == 1;
	return pool_desc_may_share(t->p, i->kind, i->desc, i->col, disk);
}

/* *any: there is a disk that could take it if it had room. */
static bool item_place(struct try *t, const struct item *i, bool *any)
{
	unsigned k, best = LABEL_DISKS_MAX;
	bool share = false;

	*any = false;
	do {
		for (k = 0; k < t->n_disks; k++) {
			bool is_new = k == t->c->added;

			if (k == t->c->disk || !may_take(t, i, k, share) || (!is_new && (t->p->disks[k].state != PDISK_ONLINE ||
											  t->p->disks[k].leaving)))
				continue;
			*any = true;
			if (t->left[k] >= i->extents && (best == LABEL_DISKS_MAX || t->left[k] > t->left[best] || is_new))
				best = k;
			if (best == t->c->added)
				break;
		}
		share = !share;
	} while (best == LABEL_DISKS_MAX && share);
	if (best == LABEL_DISKS_MAX)
		return false;
	t->left[best] -= i->extents;
	i->desc->cols[i->col].disk = (uint16_t)best; /* for others of this group */
	return true;
}

/* A parity group that has a column on every disk: as a new one would be made on those that stay. False: there is no room. */
static bool item_reshape(struct try *t, const struct item *x)
{
	struct placement *pl = xmalloc(sizeof(*pl));
	const struct label *l = t->p->label;
	unsigned widths[RAID_COLS_MAX], disks[RAID_COLS_MAX], k, n;
	struct raid_desc *d = x->desc;

	placement_init(pl, (struct raid_profile){ d->layout, d->copies }, t->n_disks, l->group_bytes, l->strip_bytes, l->extent_bytes);
	for (k = 0; k < t->n_disks; k++) {
		pl->disks[k].online = stays(t, k);
		pl->disks[k].free = stays(t, k) ? t->left[k] : 0;
		pl->disks[k].size = k == t->c->added ? t->c->added_extents : t->p->disks[k].extents;
	}
	n = placement_widths(pl, widths);
	if (n) {
		placement_choose(pl, widths[0], disks);
		for (k = 0; k < widths[0]; k++)
			t->left[disks[k]] -= pl->col_extents[widths[0]];
		pool_space_add_columns(t->p, d, t->left); /* when it has been done */
		t->left[t->c->disk] = 0;
	}
	xfree(pl);
	return n > 0;
}

static int item_order(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	if ((x->kind == THIN_GROUP_DATA) != (y->kind == THIN_GROUP_DATA))
		return x->kind == THIN_GROUP_DATA ? 1 : -1;
	if (x->extents != y->extents)
		return x->extents > y->extents ? -1 : 1;
	return x->desc->group < y->desc->group ? -1 : x->desc->group > y->desc->group;
}

static int refuse_room(const struct try *t, uint64_t extents, struct err *e)
{
	uint64_t ext = t->p->label->extent_bytes, need = 0, left = t->n_free;
	char needs[16], has[16];
	size_t i;

	for (i = 0; i < t->n; i++)
		need += t->v[i].extents;
	return err_set(e, -ENOSPC, "pool %s has no room for what disk %s holds: %s must go to other disks, and %s are free there%s: add a "
		       "disk, or delete something", t->p->label->name, pool_disk_path(t->p, t->c->disk),
		       size_format(need * ext, needs, sizeof(needs)), size_format(left * ext, has, sizeof(has)),
		       need <= left ? " (of which the pool keeps a reserve, or not in the right places)" : "");
}

static int refuse_disks(const struct try *t, const struct item *i, struct err *e)
{
	return err_set(e, -EINVAL, "disk %s cannot leave pool %s: groups of %s have a column on each of %u disks, and no other disk could "
		       "take this one's: add a disk first, replace it, or move what is there to a layout of fewer disks (volume set --layout) for "
		       "that time", pool_disk_path(t->p, t->c->disk), t->p->label->name,
		       raid_profile_name((struct raid_profile){ i->desc->layout, i->desc->copies }), i->desc->n_cols);
}

static int try_place(struct try *t, struct err *e)
{
	bool any = false, data = false;
	size_t i;

	if (t->n)
		qsort(t->v, t->n, sizeof(*t->v), item_order);
	for (i = 0; i < t->n; i++) {
		const struct item *x = &t->v[i];

		if (x->kind != THIN_GROUP_DATA && x->desc->n_cols > 2 && x->desc->n_cols > t->n_staying)
			continue;
		if (x->shape ? !item_reshape(t, x) : !item_place(t, x, &any))
			return x->shape || any ? refuse_room(t, x->extents, e) : refuse_disks(t, x, e);
		data |= x->kind == THIN_GROUP_DATA;
	}
	return data && !pool_space_reserve_would_hold(t->p, t->left, t->n_disks, t->n_staying) ? refuse_room(t, 0, e) : 0;
}

/* ---- layouts ---- */

static int check_layouts(const struct try *t, struct err *e)
{
	const struct label *l = t->p->label;
	struct thin_vol *v;

	if (!t->n_staying)
		return err_set(e, -EINVAL, "disk %s is the only one of pool %s that is left: add another first, or destroy the pool",
			       pool_disk_path(t->p, t->c->disk), l->name);
	if (t->n_staying < raid_profile_min_disks(l->profile))
		return err_set(e, -EINVAL, "pool %s would have %u disks, and its layout %s needs %u: add a disk first, or replace this one",
			       l->name, t->n_staying, raid_profile_name(l->profile), raid_profile_min_disks(l->profile));
	list_for_each (v, thin_vols(t->p->thin), link) {
		struct raid_profile prof = { v->cls.layout, v->cls.copies };

		if (v->state == THIN_VOLUME_LIVE && v->kind == THIN_KIND_VOLUME && t->n_staying < raid_profile_min_disks(prof))
			return err_set(e, -EINVAL, "pool %s would have %u disks, and volume %s has layout %s, which needs %u: add a disk first, "
				       "or replace this one", l->name, t->n_staying, v->name, raid_profile_name(prof),
				       raid_profile_min_disks(prof));
	}
	return 0;
}

static int check_losses(const struct try *t, struct err *e)
{
	const char *path = pool_disk_path(t->p, t->c->disk);

	if (t->lost)
		return err_set(e, -EBUSY, "disk %s is not there, and it has %llu groups of volumes without redundancy: bring it back, or delete "
			       "those volumes", path, (unsigned long long)t->lost);
	if (t->unreadable)
		return err_set(e, -EBUSY, "disk %s cannot leave: %llu groups cannot be read without disks that are away: bring those back first",
			       path, (unsigned long long)t->unreadable);
	return 0;
}

static void try_init(struct try *t)
{
	const struct pdisk *d = &t->p->disks[t->c->disk];
	unsigned i;

	t->n_disks = MAX(t->p->n_disks, t->c->added < LABEL_DISKS_MAX ? t->c->added + 1 : 0);
	t->n_staying = pool_n_staying(t->p) - !d->leaving + (t->c->added < LABEL_DISKS_MAX);
	for (i = 0; i < t->p->n_disks; i++)
		t->left[i] = i == t->c->disk ? 0 : pool_space_free_extents(t->p, i, false);
	if (t->c->added < LABEL_DISKS_MAX)
		t->left[t->c->added] = t->c->added_extents;
}

static void try_fini(struct try *t)
{
	size_t i;

	for (i = 0; i < t->n; i++)
		if (!i || t->v[i].desc != t->v[i - 1].desc) /* columns of one group stand together */
			xfree(t->v[i].desc);
	xfree(t->v);
}

int pool_co_table_settle(struct ashlar_pool *p)
{
	return p->read_only ? 0 : meta_co_wait_applied(p->meta, meta_last_seq(p->meta));
}

int pool_co_leave_check(struct ashlar_pool *p, struct leave_check *c, struct err *e)
{
	struct try *t = xcalloc(1, sizeof(*t));
	unsigned i;
	int r;

	t->p = p;
	t->c = c;
	try_init(t);
	c->copy_bytes = c->n_columns = 0;
	r = pool_co_table_settle(p);
	if (r == 0)
		r = pool_co_each_group(p, try_group, t);
	if (r < 0)
		err_set(e, r, "pool %s: the group table cannot be read: %s", p->label->name, err_text(r));
	t->left[c->disk] = 0;
	for (i = 0; i < t->n_disks; i++)
		t->n_free += t->left[i];
	if (r == 0)
		r = check_layouts(t, e);
	if (r == 0)
		r = check_losses(t, e);
	if (r == 0)
		r = try_place(t, e);
	try_fini(t);
	xfree(t);
	return r;
}
