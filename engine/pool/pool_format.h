/*
 * pool_format.h: the pool's own arrays, root area and journal records, as on disk. docs/format.md has the prose.
 */
#ifndef ENGINE_POOL_POOL_FORMAT_H
#define ENGINE_POOL_POOL_FORMAT_H

#include "engine/pool/label_format.h"
#include "thin/thin_format.h"

/* POOL_ARRAY_GROUPS, by group. */
struct pool_group_disk {
	le64 group;	    /* 0: its own index */
	uint8_t kind;	    /* 8: THIN_GROUP_* */
	uint8_t layout;	    /* 9: enum raid_layout */
	uint8_t copies;	    /* 10 */
	uint8_t n_cols;	    /* 11 */
	le32 strip_bytes;   /* 12 */
	le64 size_bytes;    /* 16 */
	le64 col_bytes;	    /* 24 */
	uint8_t pad[32];    /* 32 */
	struct {
		le16 disk;
		uint8_t pad[6];
		le32 first_extent;
	} cols[32]; /* 64 */
	uint8_t pad2[64];
};
static_assert(sizeof(struct pool_group_disk) == 512, "group record");
#define POOL_GROUP_LOG2 9

/* POOL_ARRAY_EXTENTS, by disk << 32 | extent. All zero: free. */
struct pool_extent_disk {
	le64 group_plus_1; /* 0 */
	le32 left;	   /* 8: extents of the column from here to its end */
	le16 col;	   /* 12 */
	le16 pad;
};
static_assert(sizeof(struct pool_extent_disk) == 16, "extent record");
#define POOL_EXTENT_LOG2 4

/* POOL_ARRAY_REGIONS, by group: le64 mask of regions whose columns may disagree. */
#define POOL_REGION_LOG2 3

/* In the root page's owner area. */
struct pool_owner_disk {
	le64 next_group;     /* 0 */
	le64 clusters_total; /* 8 */
	le64 clusters_used;  /* 16 */
	le64 rebuild_delay_ns; /* 24: settings, struct ashlar_pool_settings; all five 0: defaults */
	le64 pace_floor_bps;   /* 32 */
	le64 pace_ceiling_bps; /* 40 */
	le64 hedge_ns;	       /* 48 */
	le64 timeout_ns;       /* 56 */
	le64 pad[8];	       /* 64 */
	struct {
		le32 used;   /* extents in groups */
		le32 cursor; /* where the search for free ones goes on */
	} disks[LABEL_DISKS_MAX]; /* 128 */
	uint8_t pad2[384];
};
static_assert(sizeof(struct pool_owner_disk) == META_OWNER_BYTES, "owner area");

enum {
	POOL_REC_GROUP_PUT = 32,  /* struct pool_group_disk */
	POOL_REC_GROUP_GONE = 33, /* le64 group */
	POOL_REC_REGIONS = 34,	  /* struct pool_rec_regions */
	POOL_REC_GROUP_MOVE = 35, /* struct pool_group_disk: the group's new descriptor; extents of columns that moved change hands */
	POOL_REC_SETTINGS = 36,	  /* struct pool_rec_settings */
	POOL_REC_NOTE_PART = 37,  /* struct pool_rec_note_part */
	POOL_REC_NOTE = 38,	  /* struct pool_rec_note */
	POOL_REC_GROUP_SHAPE = 39, /* struct pool_group_disk: all columns are others now, perhaps more or fewer; extents change hands */
};

/* POOL_ARRAY_NOTES, by volume << 10 | key << 7 | place. Place 0: the head; 1 .. 63 and 64 .. 126: the halves, a long one lies in one. */
#define NOTE_KEY_BITS 3
#define NOTE_PLACE_BITS 7
#define NOTE_HALF 63
#define POOL_NOTE_LOG2 10
struct pool_note_disk {
	le32 len;	    /* 0: bytes; 0: there is none */
	uint8_t half;	    /* 4: where a long one lies */
	uint8_t is_long;    /* 5 */
	uint8_t pad[2];
	uint8_t bytes[1016]; /* 8: of a short one */
};
static_assert(sizeof(struct pool_note_disk) == 1024, "note");
struct pool_note_part {
	uint8_t bytes[1024];
};

struct pool_rec_note_part {
	le64 volume;
	uint8_t key, place;
	uint8_t pad[6];
	struct pool_note_part part;
};
struct pool_rec_note {
	le64 volume;
	uint8_t key;
	uint8_t pad[7];
	struct pool_note_disk note;
};
static_assert(sizeof(struct pool_rec_note) <= JOURNAL_RECORD_MAX && sizeof(struct pool_rec_note_part) <= JOURNAL_RECORD_MAX, "note records");

struct pool_rec_settings {
	le64 rebuild_delay_ns, pace_floor_bps, pace_ceiling_bps, hedge_ns, timeout_ns;
};

struct pool_rec_regions {
	le64 group;
	le64 mask; /* the new value */
};

#endif
