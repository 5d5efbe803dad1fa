/*
 * Where parity groups go. What decides is told in placement.h.
 */
#include "engine/pool/placement.h"

#include <string.h>

void placement_init(struct placement *pl, struct raid_profile prof, unsigned n_disks, uint64_t group_bytes, uint32_t strip_bytes,
		    uint64_t extent_bytes)
{
	unsigned w;

	memset(pl, 0, sizeof(*pl));
	pl->n_disks = n_disks;
	pl->min_cols = raid_profile_min_disks(prof);
	pl->max_cols = raid_profile_columns(prof, n_disks);
	for (w = pl->min_cols; w <= pl->max_cols; w++)
		pl->col_extents[w] = raid_col_bytes(prof.layout, prof.copies, w, group_bytes, strip_bytes, extent_bytes) / extent_bytes;
}

static uint64_t disk_cols(const struct placement *pl, unsigned disk, unsigned width)
{
	return pl->disks[disk].free / pl->col_extents[width];
}

/* Columns that the disks can give to `groups` groups, at most one to each. */
static uint64_t cols_for(const struct placement *pl, unsigned width, uint64_t groups)
{
	uint64_t online = 0, away = 0;
	unsigned i;

	for (i = 0; i < pl->n_disks; i++) {
		uint64_t cols = MIN(disk_cols(pl, i, width), groups);

		*(pl->disks[i].online ? &online : &away) += cols;
	}
	return online + MIN(away, groups * pl->away_max);
}

/* Most groups of one width that fit. */
static uint64_t groups_of_width(const struct placement *pl, unsigned width)
{
	uint64_t fit = 0, beyond = cols_for(pl, width, UINT32_MAX) / width + 1;

	while (beyond - fit > 1) {
		uint64_t mid = fit + (beyond - fit) / 2;

		if (cols_for(pl, width, mid) >= mid * width)
			fit = mid;
		else
			beyond = mid;
	}
	return fit;
}

/* ---- one group ---- */

/* Does disk a come before b for a group of this width, if `groups` of them are to be made? */
static bool comes_before(const struct placement *pl, unsigned width, uint64_t groups, unsigned a, unsigned b)
{
	const struct placement_disk *x = &pl->disks[a], *y = &pl->disks[b];
	bool needs_a = disk_cols(pl, a, width) >= groups, needs_b = disk_cols(pl, b, width) >= groups;

	if (x->online != y->online)
		return x->online;
	if (needs_a != needs_b)
		return needs_a;
	return (unsigned __int128)x->free * y->size > (unsigned __int128)y->free * x->size;
}

void placement_choose(const struct placement *pl, unsigned width, unsigned disks[RAID_COLS_MAX])
{
	uint64_t groups = groups_of_width(pl, width);
	unsigned i, k, n = 0;

	CHECK(groups && width <= RAID_COLS_MAX);
	for (i = 0; i < pl->n_disks; i++) {
		if (!disk_cols(pl, i, width))
			continue;
		for (k = MIN(n, width); k > 0 && comes_before(pl, width, groups, i, disks[k - 1]); k--)
			if (k < width)
				disks[k] = disks[k - 1];
		if (k < width)
			disks[k] = i;
		n = MIN(n + 1, width);
	}
	CHECK(n == width);
}

/* ---- all that fit ---- */

/* As many groups of one width as fit; their space is taken away, evenly. */
static uint64_t groups_take(struct placement *pl, unsigned width)
{
	uint64_t groups = groups_of_width(pl, width), have = 0, want = groups * width, taken = 0, take[LABEL_DISKS_MAX];
	unsigned i;

	if (!groups)
		return 0;
	for (i = 0; i < pl->n_disks; i++)
		have += MIN(disk_cols(pl, i, width), groups);
	for (i = 0; i < pl->n_disks; i++) {
		take[i] = (uint64_t)((unsigned __int128)MIN(disk_cols(pl, i, width), groups) * want / have);
		taken += take[i];
	}
	for (i = 0; i < pl->n_disks; i++) {
		if (taken < want && take[i] < MIN(disk_cols(pl, i, width), groups)) {
			take[i]++;
			taken++;
		}
		pl->disks[i].free -= take[i] * pl->col_extents[width];
	}
	return groups;
}

uint64_t placement_capacity(const struct placement *pl)
{
	struct placement *left = xmalloc(sizeof(*left));
	uint64_t best = 0, n;
	unsigned w, first;

	/* Wide groups until the small disks are full, narrower ones on the rest; or narrow ones from the start. */
	for (first = pl->min_cols; first <= pl->max_cols; first++) {
		*left = *pl;
		for (n = 0, w = first; w >= pl->min_cols; w--)
			n += groups_take(left, w);
		best = MAX(best, n);
	}
	xfree(left);
	return best;
}

/* ---- the best width ---- */

unsigned placement_widths(const struct placement *pl, unsigned widths[RAID_COLS_MAX])
{
	struct placement *after = xmalloc(sizeof(*after));
	uint64_t value[RAID_COLS_MAX], v;
	unsigned disks[RAID_COLS_MAX], w, i, k, n = 0;

	for (w = pl->max_cols; w >= pl->min_cols && w; w--) {
		if (!groups_of_width(pl, w))
			continue;
		placement_choose(pl, w, disks);
		*after = *pl;
		for (i = 0; i < w; i++)
			after->disks[disks[i]].free -= pl->col_extents[w];
		v = 1 + placement_capacity(after);
		for (k = n++; k > 0 && value[k - 1] < v; k--) { /* of equal ones the wider first: it takes less */
			value[k] = value[k - 1];
			widths[k] = widths[k - 1];
		}
		value[k] = v;
		widths[k] = w;
	}
	xfree(after);
	return n;
}
