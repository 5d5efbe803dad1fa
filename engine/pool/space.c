/*
 * space.c: extents of disks: who gets which, how much is left, and what is kept back.
 *
 * A run that has been taken for a group is remembered as pending until the group's record has been applied. Two things are
 * not known from counts alone: whether free extents lie in a row (no_run of a disk says what has been looked for in vain), and
 * whether the disks that have room are enough different ones (placement.h).
 *
 * Everything here under p->alloc, but what only looks.
 */
#include <string.h>

#include "engine/pool/placement.h"
#include "engine/pool/pool_internal.h"

void pool_space_expire(struct ashlar_pool *p)
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
	list_for_each (run, &p->held_runs, link)
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

static int disk_co_find_run(struct ashlar_pool *p, unsigned disk, uint64_t n, uint64_t *first)
{
	struct pdisk *d = &p->disks[disk];
	int r = run_co_find(p, disk, n, d->cursor, d->extents, first);

	if (r == -ENOSPC)
		r = run_co_find(p, disk, n, 0, d->cursor, first);
	if (r == -ENOSPC)
		d->no_run = d->no_run ? MIN(d->no_run, n) : n;
	return r;
}

int pool_co_space_take_run(struct ashlar_pool *p, unsigned disk, uint64_t n, uint64_t *first)
{
	struct pdisk *d = &p->disks[disk];
	struct pending_run *run;
	int r = disk_co_find_run(p, disk, n, first);

	if (r < 0)
		return r;
	run = xcalloc(1, sizeof(*run));
	*run = (struct pending_run){ .disk = disk, .first = *first, .n = n };
	list_push_back(&p->pending_runs, &run->link);
	d->used += n;
	d->cursor = *first + n;
	return 0;
}

/* ---- which disks ---- */

unsigned pool_n_disks(const struct ashlar_pool *p)
{
	unsigned i, n = 0;

	for (i = 0; i < p->n_disks; i++)
		n += p->disks[i].state != PDISK_FREE && !p->disks[i].joining;
	return n;
}

unsigned pool_n_staying(const struct ashlar_pool *p)
{
	unsigned i, n = 0;

	for (i = 0; i < p->n_disks; i++)
		n += p->disks[i].state != PDISK_FREE && !p->disks[i].joining && !p->disks[i].leaving;
	return n;
}

static unsigned metadata_copies_of(unsigned n_disks)
{
	return n_disks >= 3 ? 3 : 2;
}

/* Any layout may come into a pool, and none survives the loss of more than two disks. */
unsigned pool_metadata_copies(const struct ashlar_pool *p)
{
	return metadata_copies_of(pool_n_staying(p));
}

/* all: also of disks that are away or behind; their columns are written when they are back. */
static uint64_t disk_free_extents(const struct pdisk *d, bool all)
{
	if (d->joining || d->leaving || !(all || d->state == PDISK_ONLINE))
		return 0;
	return d->extents > d->used ? d->extents - d->used : 0;
}

uint64_t pool_space_free_extents(const struct ashlar_pool *p, unsigned disk, bool all)
{
	return disk_free_extents(&p->disks[disk], all);
}

/* Of those, what a column may count on. */
static uint64_t disk_room(const struct pdisk *d, bool all)
{
	uint64_t n = disk_free_extents(d, all);

	return d->no_run ? MIN(n, d->no_run - 1) : n;
}

/* Extents that must stay free for metadata groups to come: room for one in 512 groups, at least one. */
static uint64_t reserve_groups(const struct ashlar_pool *p)
{
	uint64_t total = 0;
	unsigned i;

	for (i = 0; i < p->n_disks; i++)
		total += p->disks[i].leaving ? 0 : p->disks[i].extents * p->label->extent_bytes;
	return 1 + total / p->label->group_bytes / 512;
}

bool pool_space_reserve_holds(const struct ashlar_pool *p, const uint64_t *free_left)
{
	return pool_space_reserve_would_hold(p, free_left, p->n_disks, pool_n_staying(p));
}

bool pool_space_reserve_would_hold(const struct ashlar_pool *p, const uint64_t *free_left, unsigned n_entries, unsigned n_staying)
{
	uint64_t need = reserve_groups(p) * DIV_UP(p->label->group_bytes, p->label->extent_bytes), room = 0;
	unsigned copies = metadata_copies_of(n_staying), i;

	/* Copies on distinct disks: no disk can give more than `need` of them (unless there are not so many disks). */
	for (i = 0; i < n_entries; i++)
		room += MIN(free_left[i], need * DIV_UP(copies, MAX(n_staying, 1U)));
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

			if (disk_room(&p->disks[i], all) < need || (p->disks[i].state == PDISK_ONLINE) != (round == 0))
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
		cols = kind != THIN_GROUP_DATA ? prof.copies : raid_profile_columns(prof, n);
		/* Two copies of metadata share a disk only if the pool has no others. */
		if (!cols || !n || n < MIN(cols, pool_n_staying(p)))
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
	if (kind != THIN_GROUP_META && !pool_space_reserve_holds(p, left))
		return -ERR_POOL_FULL;
	return 0;
}

static void placement_fill(const struct ashlar_pool *p, struct raid_profile prof, bool all, struct placement *pl)
{
	unsigned i;

	placement_init(pl, prof, p->n_disks, p->label->group_bytes, p->label->strip_bytes, p->label->extent_bytes);
	pl->away_max = all ? raid_profile_tolerates(prof) : 0;
	for (i = 0; i < p->n_disks; i++) {
		struct placement_disk *pd = &pl->disks[i];

		pd->free = disk_room(&p->disks[i], all);
		pd->size = p->disks[i].extents;
		pd->online = p->disks[i].state == PDISK_ONLINE;
	}
}

/* As group_plan_from(), for parity: each column on a disk of its own. */
static int parity_plan_from(struct ashlar_pool *p, struct raid_profile prof, bool all, struct raid_desc *d)
{
	struct placement *pl = xmalloc(sizeof(*pl));
	unsigned widths[RAID_COLS_MAX], disks[RAID_COLS_MAX], n, k, i;
	uint64_t left[LABEL_DISKS_MAX];
	bool found = false;

	placement_fill(p, prof, all, pl);
	n = placement_widths(pl, widths);
	for (k = 0; k < n && !found; k++) {
		placement_choose(pl, widths[k], disks);
		for (i = 0; i < p->n_disks; i++)
			left[i] = disk_free_extents(&p->disks[i], all);
		memset(d, 0, sizeof(*d));
		d->layout = prof.layout;
		d->copies = prof.copies;
		d->n_cols = (uint8_t)widths[k];
		d->strip_bytes = p->label->strip_bytes;
		d->size_bytes = p->label->group_bytes;
		d->col_bytes = pl->col_extents[widths[k]] * p->label->extent_bytes;
		for (i = 0; i < widths[k]; i++) {
			d->cols[i].disk = (uint16_t)disks[i];
			left[disks[i]] -= pl->col_extents[widths[k]];
		}
		found = pool_space_reserve_holds(p, left);
	}
	xfree(pl);
	return found ? 0 : -ERR_POOL_FULL;
}

/* Where too few disks are ONLINE, redundant groups are made with columns on those that are not: degraded from the start, but
 * as redundant as any other once these are back. */
static int group_plan(struct ashlar_pool *p, unsigned kind, struct raid_profile prof, struct raid_desc *d)
{
	int r;

	if (pool_layout_is_parity(prof.layout)) {
		r = parity_plan_from(p, prof, false, d);
		return r == -ERR_POOL_FULL ? parity_plan_from(p, prof, true, d) : r;
	}
	r = group_plan_from(p, kind, prof, false, d);
	if (r == -ERR_POOL_FULL && prof.copies > 1)
		r = group_plan_from(p, kind, prof, true, d);
	return r;
}

/* Coroutine, under p->alloc. The reserve counts extents; a column of metadata needs them in a row, which holes that narrow
 * columns have left are not. -ERR_POOL_FULL: too few disks have such a run. */
static int reserve_co_check_runs(struct ashlar_pool *p)
{
	uint64_t need = DIV_UP(p->label->group_bytes, p->label->extent_bytes), first;
	unsigned copies = pool_metadata_copies(p), i, n = 0;
	int r;

	if (pool_n_staying(p) < copies) /* one disk: all columns are of this length */
		return 0;
	for (i = 0; i < p->n_disks && n < copies; i++) {
		if (disk_room(&p->disks[i], true) < need)
			continue;
		r = disk_co_find_run(p, i, need, &first);
		if (r < 0 && r != -ENOSPC)
			return r;
		n += r == 0;
	}
	return n < copies ? -ERR_POOL_FULL : 0;
}

void pool_space_give_back(struct ashlar_pool *p, unsigned n)
{
	while (n--) {
		struct pending_run *run = list_last(&p->pending_runs, struct pending_run, link);

		CHECK(!run->seq);
		p->disks[run->disk].used -= run->n;
		p->disks[run->disk].no_run = 0;
		p->disks[run->disk].cursor = run->first;
		list_del(&run->link);
		xfree(run);
	}
}

/* Coroutine, under p->alloc. Takes the columns' extents; undoes on failure. -ENOSPC: some disk has no such run, and knows it
 * now: plan again. */
static int group_co_place(struct ashlar_pool *p, struct raid_desc *d, unsigned kind)
{
	uint64_t n = d->col_bytes / p->label->extent_bytes, first;
	unsigned i;
	int r = 0;

	for (i = 0; i < d->n_cols; i++) {
		r = pool_co_space_take_run(p, d->cols[i].disk, n, &first);
		if (r < 0)
			break;
		d->cols[i].off_bytes = p->label->data_off + first * p->label->extent_bytes;
	}
	if (r == 0 && kind != THIN_GROUP_META)
		r = reserve_co_check_runs(p);
	if (r < 0)
		pool_space_give_back(p, i);
	return r;
}

int pool_co_space_take_group(struct ashlar_pool *p, unsigned kind, struct raid_profile prof, struct raid_desc *d)
{
	bool again = false;
	unsigned i;
	int r;

	pool_space_expire(p);
	do { /* each round knows more of what is not there */
		r = group_plan(p, kind, prof, d);
		if (r == 0)
			r = group_co_place(p, d, kind);
		if (r != -ERR_POOL_FULL || again)
			continue;
		for (i = 0; i < p->n_disks; i++) /* into the holes that were left behind */
			p->disks[i].cursor = 0;
		again = true;
		r = -ENOSPC;
	} while (r == -ENOSPC);
	return r;
}

int pool_co_space_take_shape(struct ashlar_pool *p, struct raid_profile prof, struct raid_desc *d)
{
	struct pending_run *run;
	unsigned left;
	int r = pool_co_space_take_group(p, THIN_GROUP_DATA, prof, d);

	if (r < 0)
		return r;
	run = list_last(&p->pending_runs, struct pending_run, link);
	for (left = d->n_cols; left; left--) {
		run->target = true;
		run = list_entry(run->link.prev, struct pending_run, link);
	}
	return 0;
}

void pool_space_handed_in(struct ashlar_pool *p, uint64_t seq)
{
	struct pending_run *run;

	list_for_each (run, &p->pending_runs, link)
		if (!run->seq && !run->target)
			run->seq = seq;
}

/* ---- one column ---- */

bool pool_desc_has_disk(const struct raid_desc *d, unsigned disk)
{
	unsigned i;

	for (i = 0; i < d->n_cols; i++)
		if (d->cols[i].disk == disk)
			return true;
	return false;
}

/* Would redundancy suffer if the column lay on a disk that has another column of the group? */
bool pool_desc_may_share(const struct ashlar_pool *p, unsigned kind, const struct raid_desc *d, unsigned col, unsigned disk)
{
	unsigned first = col / d->copies * d->copies, i;

	if (kind != THIN_GROUP_DATA)
		return pool_n_staying(p) == 1; /* two copies even on one disk */
	if (pool_layout_is_parity(d->layout))
		return false;
	for (i = first; i < first + d->copies && i < d->n_cols; i++)
		if (i != col && d->cols[i].disk == disk)
			return false;
	return true;
}

static bool target_is_good(const struct ashlar_pool *p, unsigned kind, const struct raid_desc *d, unsigned disk,
			   const struct pool_target *t, bool share)
{
	if (t->avoid[disk / 64] >> (disk % 64) & 1)
		return false;
	if (pool_desc_has_disk(d, disk))
		return share && t->col < d->n_cols && d->cols[t->col].disk != disk && pool_desc_may_share(p, kind, d, t->col, disk);
	return !share;
}

/* The preferred disk, else the emptiest that will do, rather one that has no column of the group; LABEL_DISKS_MAX: none. */
static unsigned target_choose(struct ashlar_pool *p, unsigned kind, const struct raid_desc *d, const struct pool_target *t)
{
	struct candidate c[LABEL_DISKS_MAX];
	uint64_t left[LABEL_DISKS_MAX], need = d->col_bytes / p->label->extent_bytes;
	unsigned n_online, n = candidates_rank(p, need, false, c, &n_online), i, k, share, best = LABEL_DISKS_MAX;

	for (share = 0; share < 2 && best == LABEL_DISKS_MAX; share++) {
		for (i = 0; i < n; i++) {
			unsigned disk = c[i].disk;

			if (!target_is_good(p, kind, d, disk, t, share))
				continue;
			for (k = 0; k < p->n_disks; k++)
				left[k] = disk_free_extents(&p->disks[k], true) - (k == disk ? need : 0);
			if (kind == THIN_GROUP_DATA && !pool_space_reserve_holds(p, left))
				continue;
			if (disk + 1 == t->prefer_plus_1)
				return disk;
			if (best == LABEL_DISKS_MAX)
				best = disk;
		}
	}
	return best;
}

int pool_co_space_take_target(struct ashlar_pool *p, unsigned kind, const struct raid_desc *d, const struct pool_target *t,
			      struct raid_col *target)
{
	uint64_t n = d->col_bytes / p->label->extent_bytes, first = 0;
	unsigned disk;
	int r;

	pool_space_expire(p);
	do {
		disk = target_choose(p, kind, d, t);
		if (disk == LABEL_DISKS_MAX)
			return -ERR_POOL_FULL;
		r = pool_co_space_take_run(p, disk, n, &first);
	} while (r == -ENOSPC); /* it is known now */
	if (r < 0)
		return r;
	if (kind == THIN_GROUP_DATA)
		r = reserve_co_check_runs(p);
	if (r < 0) {
		pool_space_give_back(p, 1);
		return r;
	}
	list_last(&p->pending_runs, struct pending_run, link)->target = true;
	target->disk = (uint16_t)disk;
	target->off_bytes = p->label->data_off + first * p->label->extent_bytes;
	return 0;
}

static uint64_t col_first(const struct ashlar_pool *p, const struct raid_col *c)
{
	return (c->off_bytes - p->label->data_off) / p->label->extent_bytes;
}

static struct pending_run *run_find(const struct ashlar_pool *p, const struct list *runs, const struct raid_col *c)
{
	struct pending_run *run;

	list_for_each (run, runs, link)
		if (run->disk == c->disk && run->first == col_first(p, c))
			return run;
	CHECK(!"no such run");
}

void pool_space_target_handed_in(struct ashlar_pool *p, const struct raid_col *target, uint64_t seq)
{
	struct pending_run *run = run_find(p, &p->pending_runs, target);

	CHECK(run->target && !run->seq);
	run->target = false;
	run->seq = seq;
}

void pool_space_target_drop(struct ashlar_pool *p, const struct raid_col *target)
{
	struct pending_run *run = run_find(p, &p->pending_runs, target);

	CHECK(run->target && !run->seq);
	p->disks[run->disk].used -= run->n;
	p->disks[run->disk].no_run = 0;
	list_del(&run->link);
	xfree(run);
}

void pool_space_hold(struct ashlar_pool *p, const struct raid_col *col, uint64_t col_bytes)
{
	struct pending_run *run = xcalloc(1, sizeof(*run));

	*run = (struct pending_run){ .disk = col->disk, .first = col_first(p, col), .n = col_bytes / p->label->extent_bytes };
	list_push_back(&p->held_runs, &run->link);
}

void pool_space_release(struct ashlar_pool *p, const struct raid_col *col)
{
	struct pending_run *run = run_find(p, &p->held_runs, col);

	p->disks[run->disk].no_run = 0;
	list_del(&run->link);
	xfree(run);
}

/* ---- how much is left ---- */

/* Takes one column of a mirrored group from each of the `copies` disks that have most. */
static void placement_keep(struct placement *pl, unsigned copies, uint64_t extents)
{
	bool used[LABEL_DISKS_MAX] = { false };
	unsigned c, i, best;

	for (c = 0; c < MIN(copies, pl->n_disks); c++) {
		for (best = LABEL_DISKS_MAX, i = 0; i < pl->n_disks; i++)
			if (!used[i] && (best == LABEL_DISKS_MAX || pl->disks[i].free > pl->disks[best].free))
				best = i;
		used[best] = true;
		pl->disks[best].free -= MIN(pl->disks[best].free, extents);
	}
}

/* The reserve, and the stripe logs if they are yet to come. more: per disk, NULL: none. */
static uint64_t parity_room(struct ashlar_pool *p, struct raid_profile prof, bool all, const uint64_t *more)
{
	unsigned i;

	struct placement *pl = xmalloc(sizeof(*pl));
	uint64_t keep = reserve_groups(p) + !p->label->log_group_plus_1, n;

	placement_fill(p, prof, all, pl);
	for (i = 0; more && i < p->n_disks; i++)
		pl->disks[i].free += more[i];
	while (keep--)
		placement_keep(pl, pool_metadata_copies(p), DIV_UP(p->label->group_bytes, p->label->extent_bytes));
	n = placement_capacity(pl);
	xfree(pl);
	return n * p->label->group_bytes;
}

static bool disk_is_counted(const struct pdisk *d, bool all)
{
	return d->state != PDISK_FREE && !d->joining && !d->leaving && (all || d->state == PDISK_ONLINE);
}

/* Logical bytes of groups that could still be made. all: on disks that are not ONLINE, too. more: extents per disk that would be free
 * besides; NULL: none. */
static uint64_t room_for_groups(struct ashlar_pool *p, struct raid_profile prof, bool all, const uint64_t *more)
{
	uint64_t extents = 0, reserve, cols;
	unsigned i, n = 0;

	if (pool_layout_is_parity(prof.layout))
		return parity_room(p, prof, all, more);
	for (i = 0; i < p->n_disks; i++) {
		extents += disk_free_extents(&p->disks[i], all) + (more ? more[i] : 0);
		n += disk_is_counted(&p->disks[i], all);
	}
	reserve = reserve_groups(p) * pool_metadata_copies(p) * DIV_UP(p->label->group_bytes, p->label->extent_bytes);
	extents = extents > reserve ? extents - reserve : 0;
	cols = raid_profile_columns(prof, n);
	if (!cols)
		return 0;
	return extents * p->label->extent_bytes / cols * (cols / prof.copies) / p->label->group_bytes * p->label->group_bytes;
}

/* What a volume of the pool's layout can still take: free clusters in its groups, and groups still to be made. */
uint64_t pool_free_bytes(struct ashlar_pool *p)
{
	uint64_t logical = room_for_groups(p, p->label->profile, false, NULL);
	struct thin_space s;

	thin_space_get(p->thin, &s);
	if (!logical && raid_profile_tolerates(p->label->profile))
		logical = room_for_groups(p, p->label->profile, true, NULL);
	return s.clusters_free * p->label->cluster_bytes + logical;
}

bool pool_space_is_empty(struct ashlar_pool *p, unsigned disk)
{
	struct pending_run *run;

	pool_space_expire(p);
	list_for_each (run, &p->held_runs, link)
		if (run->disk == disk)
			return false;
	return p->disks[disk].used == 0;
}

void pool_space_add_columns(const struct ashlar_pool *p, const struct raid_desc *d, uint64_t *extents)
{
	const struct pdisk *disk;
	unsigned c;

	for (c = 0; c < d->n_cols; c++) {
		disk = &p->disks[d->cols[c].disk];
		if (disk->state == PDISK_ONLINE && !disk->joining && !disk->leaving)
			extents[d->cols[c].disk] += d->col_bytes / p->label->extent_bytes;
	}
}

struct empties {
	struct ashlar_pool *p;
	struct raid_profile but;
	uint64_t extents[LABEL_DISKS_MAX];
};

static int empty_add(void *arg, const struct pool_group_disk *rec)
{
	struct empties *x = arg;
	struct raid_desc *d;
	uint64_t clusters;
	int r;

	if (rec->kind != THIN_GROUP_DATA)
		return 0;
	d = xmalloc(sizeof(*d));
	r = pool_group_decode(x->p, rec, d, NULL);
	if (r == 0)
		r = thin_co_group_used(x->p->thin, d->group, &clusters);
	if (r == 0 && !clusters && (d->layout != x->but.layout || d->copies != x->but.copies))
		pool_space_add_columns(x->p, d, x->extents);
	xfree(d);
	return r;
}

/* Groups of other layouts that hold nothing are destroyed when their space is needed (pool_co_group_make()): it counts as free. */
int pool_co_free_bytes_of(struct ashlar_pool *p, struct raid_profile prof, uint64_t *bytes)
{
	struct empties *x = xcalloc(1, sizeof(*x));
	uint64_t clusters;
	int r = thin_co_class_free(p->thin, (struct thin_class){ prof.layout, prof.copies }, &clusters);

	x->p = p;
	x->but = prof;
	if (r == 0)
		r = pool_co_each_group(p, empty_add, x);
	if (r == 0) {
		*bytes = room_for_groups(p, prof, false, x->extents);
		if (!*bytes && raid_profile_tolerates(prof))
			*bytes = room_for_groups(p, prof, true, x->extents);
		*bytes += clusters * p->label->cluster_bytes;
	}
	xfree(x);
	return r;
}
