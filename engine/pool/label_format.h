/*
 * label_format.h: what a label is on disk. docs/format.md describes it byte by byte.
 *
 * Each disk carries two label areas of LABEL_AREA_BYTES: at byte 0 and ending at the disk's size rounded down to 4 KiB. An
 * area is a ring of LABEL_SLOTS slots; generation g is written to slot g % LABEL_SLOTS of both areas, so that a torn
 * write never touches the newest whole label. A label is `used_bytes` long (a multiple of 4096): header, disk table,
 * metadata groups, zeros.
 */
#ifndef ENGINE_POOL_LABEL_FORMAT_H
#define ENGINE_POOL_LABEL_FORMAT_H

#include <assert.h>
#include "engine/base/le.h"
#include "engine/base/uuid.h"

#define LABEL_MAGIC "ASHLAR\r\n" /* 8 bytes */
#define LABEL_VERSION 1
#define LABEL_SLOTS 8
#define LABEL_SLOT_BYTES (32 * 1024)
#define LABEL_AREA_BYTES (LABEL_SLOTS * LABEL_SLOT_BYTES)
#define LABEL_DISKS_MAX 128
#define LABEL_META_GROUPS_MAX 160
#define LABEL_LOG_SLICES_MAX 8
#define LABEL_LOG_SLICE_MIN_BYTES (128 * 1024)

/* Known features. Unknown bits: compat ignored, ro_compat forbids writing, incompat forbids opening. */
#define LABEL_COMPAT_KNOWN 0ULL
#define LABEL_RO_COMPAT_KNOWN 0ULL
#define LABEL_INCOMPAT_PARITY (1ULL << 0) /* groups of raid5 or raid6, and stripe logs that must be replayed */
#define LABEL_INCOMPAT_SNAPSHOTS (1ULL << 1) /* snapshots, clones: volumes and maps share pages and clusters */
#define LABEL_INCOMPAT_MOVES (1ULL << 2) /* families that are moved: hidden copies, volumes that are in another pool */
#define LABEL_INCOMPAT_SOURCES (1ULL << 3) /* volumes whose contents are elsewhere, in part (adopted) or all (moved) */
#define LABEL_INCOMPAT_ACCESS (1ULL << 4) /* exports that not everybody may see */
#define LABEL_INCOMPAT_LIMITS (1ULL << 5) /* volumes whose clients may do only so much in a second */
#define LABEL_INCOMPAT_NOTES (1ULL << 6) /* notes: what frontends keep with volumes */
#define LABEL_INCOMPAT_SHAPES (1ULL << 7) /* groups that have taken another number of columns */
#define LABEL_INCOMPAT_KNOWN \
	(LABEL_INCOMPAT_PARITY | LABEL_INCOMPAT_SNAPSHOTS | LABEL_INCOMPAT_MOVES | LABEL_INCOMPAT_SOURCES | LABEL_INCOMPAT_ACCESS | \
	 LABEL_INCOMPAT_LIMITS | LABEL_INCOMPAT_NOTES | LABEL_INCOMPAT_SHAPES)

/* label_disk_disk.leaving: what is wanted of a disk that takes no new data. */
#define LABEL_LEAVE 1U	       /* all it holds moves to others */
#define LABEL_LEAVE_REMOVE 2U  /* and then it is taken out of the pool */
#define LABEL_LEAVE_PAUSED 4U  /* not now */
#define LABEL_LEAVE_KNOWN 7U

/* label_header_disk.wanted */
#define LABEL_REBALANCE 1U
#define LABEL_REBALANCE_PAUSED 2U
#define LABEL_WANTED_KNOWN 3U

enum label_disk_state { LABEL_DISK_FREE = 0, LABEL_DISK_ONLINE = 1, LABEL_DISK_OUT = 2 };

struct label_header_disk {
	uint8_t magic[8];	/* 0 */
	le32 version;		/* 8 */
	le32 crc;		/* 12: crc32c of used_bytes with this field zero */
	le64 compat;		/* 16 */
	le64 ro_compat;		/* 24 */
	le64 incompat;		/* 32 */
	struct uuid pool;	/* 40 */
	struct uuid disk;	/* 56 */
	le64 generation;	/* 72: one more with every label written */
	le64 acked_generation;	/* 80: newest one known to be on every ONLINE disk */
	le32 used_bytes;	/* 88 */
	le16 disk_index;	/* 92 */
	le16 n_disks;		/* 94: entries of the disk table */
	le16 n_meta;		/* 96: metadata groups */
	uint8_t layout;		/* 98: pool's default profile */
	uint8_t copies;		/* 99 */
	le32 block_bytes;	/* 100: 512 or 4096 */
	le32 cluster_bytes;	/* 104 */
	le32 strip_bytes;	/* 108 */
	le64 group_bytes;	/* 112 */
	le64 extent_bytes;	/* 120 */
	le64 data_off;		/* 128: of extent 0 on each disk */
	le64 checkpoint;	/* 136: number */
	le64 root_addr;		/* 144: metadata page address of the root page */
	le32 root_crc;		/* 152 */
	le32 clean;		/* 156: 1 after an orderly close, nothing to replay or resync */
	le64 journal_off;	/* 160: in the pool's logical space */
	le64 journal_bytes;	/* 168 */
	le64 epoch;		/* 176: number of the opening that wrote this; journal blocks carry it */
	le64 disk_bytes;	/* 184: size of this disk when labelled */
	le64 created_wall_ns;	/* 192 */
	uint8_t name[64];	/* 200: pool name, NUL padded */
	le64 log_group_plus_1;	/* 264: the group that holds the stripe logs; 0: there is none */
	le32 log_slices;	/* 272: of it, used in this epoch: one per home of parity groups */
	le32 log_slice_bytes;	/* 276 */
	le32 wanted;		/* 280: LABEL_REBALANCE...: what is to be gone on with */
	uint8_t pad[228];	/* 284: zeros */
};
static_assert(sizeof(struct label_header_disk) == 512, "label header");
static_assert(offsetof(struct label_header_disk, name) == 200, "label header");

struct label_disk_disk {
	struct uuid uuid;   /* 0 */
	le64 size_bytes;    /* 16 */
	le64 since_generation; /* 24: of the first label that gave it this state; 0: ONLINE from the start */
	uint8_t state;	    /* 32: enum label_disk_state */
	uint8_t leaving;    /* 33: LABEL_LEAVE...; 0: it is not */
	le16 successor_plus_1; /* 34: the disk that replaces it: its data goes there if there is room; 0: none */
	uint8_t pad[4];	    /* 36 */
	le64 acked_generation; /* 40: OUT: its own label is at least so new, or it is an old copy of itself; ~0: do not believe it */
	uint8_t pad2[16];   /* 48 */
	uint8_t path[96];   /* 64: where it was last seen (its end, if longer), NUL padded */
};
static_assert(sizeof(struct label_disk_disk) == 160, "label disk entry");

/* A metadata group: layout raid1 (or single column twice on one disk), `n_cols` copies, column = group_bytes. */
struct label_meta_disk {
	le64 group;   /* 0 */
	uint8_t n_cols; /* 8: 1..3 */
	uint8_t pad[7];
	struct {
		le16 disk;
		uint8_t pad[6];
		le64 off_bytes;
	} cols[3]; /* 16 */
};
static_assert(sizeof(struct label_meta_disk) == 64, "label metadata group");
static_assert(512 + LABEL_DISKS_MAX * 160 + LABEL_META_GROUPS_MAX * 64 <= LABEL_SLOT_BYTES, "label slot");

#endif
