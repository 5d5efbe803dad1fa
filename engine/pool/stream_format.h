/*
 * stream_format.h: what `send` writes and `receive` reads. docs/format.md has the prose.
 *
 * A header, then records in ascending order of offset, then END. Each record's checksum covers its own fields, the checksum of
 * its payload, and the checksum of what came before it: a record that is changed, left out, doubled or moved is seen when it
 * arrives, before anything is done with it. All little endian; what is not named is zero.
 */
#ifndef ENGINE_POOL_STREAM_FORMAT_H
#define ENGINE_POOL_STREAM_FORMAT_H

#include <assert.h>
#include <stddef.h>
#include "engine/base/le.h"
#include "engine/base/uuid.h"

#define STREAM_MAGIC "ASHLSTRM"
#define STREAM_VERSION 1
#define STREAM_INCOMPAT_KNOWN 0ULL
#define STREAM_PAYLOAD_MAX (1u << 20)

struct stream_header_disk {
	uint8_t magic[8];	/* 0 */
	le32 version;		/* 8 */
	le32 crc;		/* 12: of all 1024 bytes, this field as zero */
	le64 compat;		/* 16: feature bits that others may ignore */
	le64 incompat;		/* 24: without knowing them, do not receive */
	struct uuid guid;	/* 32: of the snapshot: names its contents */
	struct uuid base_guid;	/* 48: what the receiver has already; zero: nothing, the stream is whole */
	le64 size_bytes;	/* 64: of the volume */
	le64 start_bytes;	/* 72: what lies before has been sent earlier */
	le64 created_wall_ns;	/* 80: of the snapshot */
	le32 grain_bytes;	/* 88: records begin and end at multiples, or at the volume's end */
	le32 cluster_bytes;	/* 92: of the source, for display */
	uint8_t pad[32];	/* 96 */
	uint8_t pool[64];	/* 128: where it comes from; NUL padded, as all names */
	uint8_t volume[128];	/* 192 */
	uint8_t snapshot[128];	/* 320 */
	uint8_t base[128];	/* 448: name of the base snapshot */
	uint8_t pad2[448];	/* 576 */
};
static_assert(sizeof(struct stream_header_disk) == 1024, "stream header");
static_assert(offsetof(struct stream_header_disk, pool) == 128, "stream header");
static_assert(offsetof(struct stream_header_disk, base) == 448, "stream header");

enum {
	STREAM_DATA = 1, /* len_bytes of payload follow */
	STREAM_ZERO = 2, /* the range reads as zeros */
	STREAM_END = 3,	 /* off_bytes: the volume's size; payload: struct stream_end_disk */
};

struct stream_record_disk {
	uint8_t type;	  /* 0 */
	uint8_t pad[3];
	le32 payload_crc; /* 4 */
	le64 off_bytes;	  /* 8 */
	le64 len_bytes;	  /* 16 */
	uint8_t pad2[4];  /* 24 */
	le32 crc;	  /* 28: of the 28 bytes before, begun with the crc of the record, or header, before */
};
static_assert(sizeof(struct stream_record_disk) == 32, "stream record");

struct stream_end_disk {
	le64 n_records;	 /* 0: this one not counted */
	le64 data_bytes; /* 8 */
	le64 zero_bytes; /* 16 */
	uint8_t pad[8];	 /* 24 */
};
static_assert(sizeof(struct stream_end_disk) == 32, "stream end");

#endif
