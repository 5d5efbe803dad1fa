/*
 * placement.h: how wide a parity group is made and on which disks. Pure maths on free space, no state; any context.
 *
 * No two columns of a group share a disk, so G more groups of w columns fit exactly if the sum of min(c, G) over the disks is
 * at least w * G, c the columns that still fit on a disk. From that follow the width (the one after which most groups
 * fit) and the disks (those that every one of these groups needs; beyond them any choice is as good, so the emptiest by
 * share): disks of mixed sizes are used whole as far as the layout's least width allows.
 */
#ifndef ENGINE_POOL_PLACEMENT_H
#define ENGINE_POOL_PLACEMENT_H

#include "engine/pool/label_format.h"
#include "raid/geometry.h"

struct placement_disk {
	uint64_t free, size; /* extents; free 0: not to be used */
	bool online;
};

struct placement {
	struct placement_disk disks[LABEL_DISKS_MAX];
	unsigned n_disks;
	unsigned min_cols, max_cols;
	unsigned away_max; /* so many columns of a group may lie on disks that are not online */
	uint64_t col_extents[RAID_COLS_MAX + 1]; /* of a column, by the group's width */
};

/* Everything but the disks. */
void placement_init(struct placement *pl, struct raid_profile prof, unsigned n_disks, uint64_t group_bytes, uint32_t strip_bytes,
		    uint64_t extent_bytes);
/* Widths that one more group can have, the best first. */
unsigned placement_widths(const struct placement *pl, unsigned widths[RAID_COLS_MAX]);
/* Disks for a group of a width that placement_widths() named: the online ones first. */
void placement_choose(const struct placement *pl, unsigned width, unsigned disks[RAID_COLS_MAX]);
/* How many more groups fit, to within two. */
uint64_t placement_capacity(const struct placement *pl);

#endif
