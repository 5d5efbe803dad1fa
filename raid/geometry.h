/*
 * geometry.h: where a byte of a group lies. Pure maths, no state, no I/O; any context.
 *
 * A group has a fixed logical size. It is cut in strips; a stripe is one row of strips over the group's columns. A column
 * is one contiguous run of extents on one disk.
 */
#ifndef RAID_GEOMETRY_H
#define RAID_GEOMETRY_H

#include "engine/base/base.h"
#include "engine/base/err.h"

#define RAID_COLS_MAX 32
#define RAID_COPIES_MAX 3
#define RAID_DISKS_MAX 128
#define RAID_REGIONS 64 /* dirty regions per group: one bit each of a 64-bit mask */

enum raid_layout { /* values are on disk */
	RAID_SINGLE = 1,
	RAID_RAID0 = 2,
	RAID_RAID1 = 3,	 /* copies 2 or 3 */
	RAID_RAID10 = 4, /* copies 2 or 3; columns in sets of `copies` */
	RAID_RAID5 = 5,
	RAID_RAID6 = 6,
};

/* What a volume or pool asks for. */
struct raid_profile {
	uint8_t layout;
	uint8_t copies; /* mirrors: 2 or 3; else 1 */
};

/* "single", "raid0", "raid1", "raid1-3" (three copies), "raid10", "raid10-3", "raid5", "raid6". */
int raid_profile_parse(const char *text, struct raid_profile *out) __must_check;
const char *raid_profile_name(struct raid_profile p);
/* Fewest disks it needs, and how many may be lost. */
unsigned raid_profile_min_disks(struct raid_profile p);
unsigned raid_profile_tolerates(struct raid_profile p);
/* Number of columns for a group when `disks` disks have space (what wide layouts use: raid0 and raid10 all of up to 16,
 * raid10 a multiple of copies, raid5/6 up to 10): 0 if there are too few. */
unsigned raid_profile_columns(struct raid_profile p, unsigned disks);

struct raid_col {
	uint16_t disk;	    /* index in the pool's disk table */
	uint64_t off_bytes; /* of the column on that disk */
};

/* A group's descriptor in memory; pool owns the on-disk form (engine/pool/format.h). */
struct raid_desc {
	uint64_t group;
	uint8_t layout, copies, n_cols;
	uint32_t strip_bytes;
	uint64_t size_bytes; /* logical */
	uint64_t col_bytes;  /* of each column */
	struct raid_col cols[RAID_COLS_MAX + 1]; /* [n_cols]: the target, if the instance has one; on disk never */
};

/* Bytes of data columns: n_cols less parity, divided by copies. */
unsigned raid_data_cols(const struct raid_desc *d);
/* Column size that a group of size_bytes needs, a multiple of align (the extent). */
uint64_t raid_col_bytes(uint8_t layout, uint8_t copies, unsigned n_cols, uint64_t size_bytes, uint32_t strip_bytes,
			uint64_t align);
/* -ERR_FORMAT with a sentence if the descriptor makes no sense (from disk: every field is suspect). */
int raid_desc_check(const struct raid_desc *d, unsigned n_disks, struct err *e) __must_check;

/* One strip's piece: the columns that hold it. For mirrors all copies; else cols[0] only. Parity columns of its stripe in
 * p, q (-1: none). */
struct raid_place {
	uint64_t len_bytes;	/* of the range asked for, how much lies in this strip */
	uint64_t col_off_bytes; /* within each of the columns */
	uint8_t n;
	int8_t p, q;
	uint8_t cols[RAID_COPIES_MAX];
};
void raid_place(const struct raid_desc *d, uint64_t off_bytes, uint64_t len_bytes, struct raid_place *out);

/* Dirty-region mask of a range of a group. */
static inline uint64_t raid_region_mask(const struct raid_desc *d, uint64_t off_bytes, uint64_t len_bytes)
{
	uint64_t region = DIV_UP(d->size_bytes, RAID_REGIONS);
	unsigned first = (unsigned)(off_bytes / region), last = (unsigned)((off_bytes + len_bytes - 1) / region);
	uint64_t upto = last == 63 ? ~0ULL : (1ULL << (last + 1)) - 1;

	return upto & ~((1ULL << first) - 1);
}

#endif
