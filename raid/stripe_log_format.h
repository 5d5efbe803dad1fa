/*
 * stripe_log_format.h: the stripe log as it is on disk. docs/format.md, section 12, has the prose.
 *
 * A batch is a whole number of blocks: header blocks (the header, then the entries without a gap), then the payload of all
 * entries, zeros to the end of the last block. It goes round at the end of the ring. Only the first block of a batch ever
 * begins with the magic: a payload block that would is written with zeros there and a bit in `escaped`.
 */
#ifndef RAID_STRIPE_LOG_FORMAT_H
#define RAID_STRIPE_LOG_FORMAT_H

#include <assert.h>
#include <stddef.h>
#include "engine/base/le.h"
#include "engine/base/uuid.h"

#define STRIPE_LOG_MAGIC "ASHSLOG1" /* 8 bytes */
#define STRIPE_LOG_VERSION 1
#define STRIPE_LOG_BLOCK 4096
#define STRIPE_LOG_BATCH_MAX (1024 * 1024)
#define STRIPE_LOG_BATCH_ENTRIES 1016
#define STRIPE_LOG_GROUP_LIMIT (1ULL << 60) /* so that no block of entries begins with the magic */
#define STRIPE_LOG_ROWS_MAX (1U << 30)	    /* end of a row range: the largest strip */

struct stripe_log_head_disk {
	uint8_t magic[8];     /* 0 */
	le32 version;	      /* 8 */
	le32 crc;	      /* 12: crc32c of this block's 4096 bytes with this field zero */
	struct uuid pool;     /* 16 */
	le64 epoch;	      /* 32: opening that wrote it */
	le64 batch;	      /* 40: number, from 1 in each epoch; those of writes that failed are missing */
	le64 oldest;	      /* 48: recovery begins with this batch */
	le64 oldest_pos;      /* 56: where that one begins, bytes in the ring */
	le64 prev;	      /* 64: number of the batch before this one, 0: none in this epoch */
	le32 prev_crc;	      /* 72: its crc field */
	le32 slice;	      /* 76: which ring of the pool this is */
	le32 n_entries;	      /* 80 */
	le32 n_cancels;	      /* 84: of these, without columns */
	le32 head_bytes;      /* 88: header blocks */
	le32 len_bytes;	      /* 92: of the whole batch */
	le32 payload_crc;     /* 96: crc32c of everything after this block */
	le32 pad;	      /* 100 */
	uint8_t escaped[32];  /* 104: bit i: block i begins with the magic, and has zeros in its place */
	uint8_t pad2[120];    /* 136 */
};
static_assert(sizeof(struct stripe_log_head_disk) == 256, "stripe log header");
static_assert(offsetof(struct stripe_log_head_disk, prev_crc) == 72, "stripe log header");
static_assert(offsetof(struct stripe_log_head_disk, payload_crc) == 96, "stripe log header");
static_assert(offsetof(struct stripe_log_head_disk, escaped) == 104, "stripe log header");
static_assert(STRIPE_LOG_BATCH_MAX / STRIPE_LOG_BLOCK == 8 * 32, "a bit for each block");

struct stripe_log_entry_disk {
	le64 group;	    /* 0 */
	le64 stripe;	    /* 8: of the group */
	le32 row_off_bytes; /* 16: within the strip; a cancel: 0 */
	le32 row_len_bytes; /* 20: likewise */
	le32 cols;	    /* 24: bit per column in the payload; 0: a cancel */
	le32 pad;	    /* 28 */
};
static_assert(sizeof(struct stripe_log_entry_disk) == 32, "stripe log entry");
static_assert(offsetof(struct stripe_log_entry_disk, cols) == 24, "stripe log entry");
static_assert(sizeof(struct stripe_log_head_disk) + STRIPE_LOG_BATCH_ENTRIES * sizeof(struct stripe_log_entry_disk) ==
		      8 * STRIPE_LOG_BLOCK, "eight header blocks");

#endif
