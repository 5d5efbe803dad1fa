/*
 * meta_format.h: pages, pointers, root page and journal blocks as they are on disk. docs/format.md has the prose.
 */
#ifndef ENGINE_META_META_FORMAT_H
#define ENGINE_META_META_FORMAT_H

#include <assert.h>
#include "engine/base/le.h"
#include "engine/base/units.h"
#include "engine/base/uuid.h"

#define META_PAGE_BYTES 4096
#define META_FANOUT 256
#define META_HEIGHT_MAX 7 /* interior levels: 256^7 leaves */

/* A pointer to a page, kept in its parent. All zero: a hole (its whole subtree reads as zeros). */
struct meta_ptr_disk {
	le64 addr;  /* 0: page number in the pool's logical space; bits 48..63 zero */
	le32 crc;   /* 8: crc32c of the page */
	le32 birth; /* 12: the store's count of checkpoints and sharings when it was made */
};
static_assert(sizeof(struct meta_ptr_disk) == 16, "meta pointer");
static_assert(META_FANOUT * sizeof(struct meta_ptr_disk) == META_PAGE_BYTES, "interior page");

struct meta_array_disk {
	struct meta_ptr_disk root;
	uint8_t height; /* 16: interior levels above the leaves */
	uint8_t entry_log2; /* 17 */
	uint8_t pad[2];
	le32 shared_birth; /* 20: pages born up to then may belong to other arrays too */
	uint8_t pad2[8];
};
static_assert(sizeof(struct meta_array_disk) == 32, "array root");

#define META_ROOT_MAGIC "ASHROOT1"
#define META_ARRAYS_MAX 32
#define META_OWNER_BYTES 1536
#define META_GROUPS_MAX 160

struct meta_root_disk {
	uint8_t magic[8];	/* 0 */
	struct uuid pool;	/* 8 */
	le64 checkpoint;	/* 24 */
	le64 record_seq;	/* 32: all records up to this one are in */
	le64 journal_pos;	/* 40: where replay starts, bytes from the journal's start */
	le64 journal_block;	/* 48: number of the block expected there */
	le32 journal_prev_crc;	/* 56: crc of the block before it */
	le32 n_groups;		/* 60: metadata groups with a used count below */
	le32 birth;		/* 64: the count, see struct meta_ptr_disk; 0: checkpoint */
	uint8_t pad[188];	/* 68 */
	struct meta_array_disk arrays[META_ARRAYS_MAX]; /* 256 */
	uint8_t owner[META_OWNER_BYTES]; /* 1280: the pool's counters */
	le32 group_used[META_GROUPS_MAX]; /* 2816: pages in use per metadata group, in label order */
	uint8_t pad2[640];	/* 3456 */
};
static_assert(sizeof(struct meta_root_disk) == META_PAGE_BYTES, "root page");

#define JOURNAL_MAGIC 0x4c4e4a41u /* "AJNL" */
#define JOURNAL_BLOCK_MAX (128 * 1024)
#define JOURNAL_RECORD_MAX 2048 /* payload */

struct journal_block_disk {
	le32 magic;	/* 0 */
	le32 crc;	/* 4: crc32c of used_bytes with this field zero */
	struct uuid pool; /* 8 */
	le64 epoch;	/* 24: opening that wrote it */
	le64 block;	/* 32: number, counted from 1 since the pool was made */
	le64 first_seq; /* 40: of its first record */
	le32 n_records; /* 48 */
	le32 used_bytes; /* 52: this header and the records; the block takes this rounded up to 4096 */
	le32 prev_crc;	/* 56: crc field of the block before it */
	le32 pad;	/* 60 */
};
static_assert(sizeof(struct journal_block_disk) == 64, "journal block");

struct journal_record_disk {
	le16 type; /* 0 */
	le16 len;  /* 2: of the payload */
	le32 pad;  /* 4 */
};		   /* payload, zero-padded to 8 */
static_assert(sizeof(struct journal_record_disk) == 8, "journal record");

#endif
