/*
 * thin_format.h: map entries, volume records and journal records of the thin layer, as on disk. docs/format.md has the
 * prose.
 */
#ifndef THIN_THIN_FORMAT_H
#define THIN_THIN_FORMAT_H

#include <assert.h>
#include <stdbool.h>
#include "engine/base/le.h"
#include "engine/base/units.h"
#include "engine/base/uuid.h"
#include "engine/meta/meta_format.h"

/*
 * A map entry: own cluster : 47 | may be shared : 1 | own valid mask : 16 | base cluster : 48 | base valid mask : 16.
 * Subcluster i is read from own where bit i of the own mask is set, else from base where bit i of the base mask is set,
 * else it is zeros. All zero: nothing mapped. Cluster 0 is never data (group 0 holds metadata).
 */
#define THIN_SUBS 16
#define THIN_MAP_ENTRY_LOG2 4
#define THIN_MAP_PER_LEAF 256
#define THIN_CLUSTER_MAX ((1ULL << 47) - 1)

struct thin_entry_disk {
	le64 lo; /* own : 47, shared : 1, own mask : 16 (top) */
	le64 hi; /* base : 48, base mask : 16 (top) */
};
static_assert(sizeof(struct thin_entry_disk) == 16, "map entry");

struct thin_entry {
	uint64_t own, base;
	uint16_t own_mask, base_mask;
	bool shared;
};

static inline struct thin_entry thin_entry_load(const struct thin_entry_disk *d)
{
	uint64_t lo = le64_get(d->lo), hi = le64_get(d->hi);

	return (struct thin_entry){
		.own = lo & THIN_CLUSTER_MAX,
		.shared = lo >> 47 & 1,
		.own_mask = (uint16_t)(lo >> 48),
		.base = hi & ((1ULL << 48) - 1),
		.base_mask = (uint16_t)(hi >> 48),
	};
}

static inline void thin_entry_store(const struct thin_entry *e, struct thin_entry_disk *d)
{
	d->lo = le64_make(e->own | (uint64_t)e->shared << 47 | (uint64_t)e->own_mask << 48);
	d->hi = le64_make(e->base | (uint64_t)e->base_mask << 48);
}

/* System arrays of the store. */
enum {
	THIN_ARRAY_CLUSTER_REFS = 1, /* by cluster: le32 count */
	THIN_ARRAY_VOLUMES = 2,	     /* by volume id: struct thin_volume_disk */
	THIN_ARRAY_GROUP_STAT = 3,   /* by group: struct thin_group_disk */
	POOL_ARRAY_GROUPS = 4,	     /* the pool's, see engine/pool/pool_format.h */
	POOL_ARRAY_EXTENTS = 5,
	POOL_ARRAY_REGIONS = 6,
	POOL_ARRAY_NOTES = 7,
};

enum {
	THIN_GROUP_NONE = 0,
	THIN_GROUP_DATA = 1,
	THIN_GROUP_META = 2, /* of the metadata store */
	THIN_GROUP_LOG = 3,  /* of the stripe logs; neither has clusters */
};

struct thin_group_disk {
	le32 used;	/* 0: clusters with a count other than zero */
	uint8_t kind;	/* 4: THIN_GROUP_* */
	uint8_t layout; /* 5: profile of data groups */
	uint8_t copies; /* 6 */
	uint8_t pad;
};
static_assert(sizeof(struct thin_group_disk) == 8, "group stat");

enum {
	THIN_VOLUME_NONE = 0,
	THIN_VOLUME_LIVE = 1,
	THIN_VOLUME_DELETING = 2, /* its map is being taken apart */
	THIN_VOLUME_PENDING = 3,  /* one of several that come into being at once, and not all have been recorded yet */
	THIN_VOLUME_RECEIVING = 4, /* being filled by a stream, hidden. Its name: the volume that it will be, or change; export_name:
				    * the snapshot's to come (empty: only just begun, nothing worth keeping); parent: the
				    * volume that it will change, 0: it will be one */
	THIN_VOLUME_INCOMING = 5,  /* hidden: the copy of a member of a family that is being moved (move_*); move_id 0: only just begun */
	THIN_VOLUME_STILL = 6,	   /* hidden: a snapshot that a move has taken of `parent`, to copy it from */
	THIN_VOLUME_HANDED = 7,	   /* it lives in another pool from now on (move_pool), or will as soon as that is open: not served */
};
#define THIN_VOLUME_STATE_MAX THIN_VOLUME_HANDED
enum { THIN_KIND_VOLUME = 0, THIN_KIND_SNAPSHOT = 1 };
enum { THIN_EXPORT_DEFAULT = 0, THIN_EXPORT_NAMED = 1, THIN_EXPORT_HIDDEN = 2 };
enum { THIN_EXPORT_READ_ONLY = 1 };
enum {
	THIN_MOVE_WANTED = 1,	/* LIVE: the family is to be moved: to move_pool, or with that zero to another layout */
	THIN_MOVE_PAUSED = 2,	/* LIVE: but not now */
	THIN_MOVE_COMPLETE = 4, /* INCOMING: it has all that the snapshot has that it is a copy of */
};

#define THIN_SOURCE_MAX 255 /* bytes of its name */
enum { THIN_SOURCE_ADOPTED = 0, THIN_SOURCE_MOVED = 1 };

struct thin_volume_disk {
	le64 id;		    /* 0: its own index */
	uint8_t state;		    /* 8: THIN_VOLUME_* */
	uint8_t layout;		    /* 9 */
	uint8_t copies;		    /* 10 */
	uint8_t export_kind;	    /* 11: THIN_EXPORT_* */
	uint8_t export_flags;	    /* 12 */
	uint8_t kind;		    /* 13: THIN_KIND_* */
	le16 burst_seconds;	    /* 14: how long a burst lasts, from rest */
	le64 size_bytes;	    /* 16 */
	le64 used_clusters;	    /* 24 */
	le64 valid_subs;	    /* 32 */
	le64 full_wait_ns;	    /* 40: all ones: for ever */
	le64 created_wall_ns;	    /* 48 */
	uint8_t pad2[8];	    /* 56 */
	struct meta_array_disk map; /* 64 */
	le64 family;		    /* 96: id of the volume that the family began with; 0: its own */
	le64 parent;		    /* 104: of a snapshot: id of the volume that it is of */
	le64 origin;		    /* 112: of a clone: id of the snapshot that it was made of, which may be gone */
	le64 policy_every_ns;	    /* 120: a snapshot is taken so often; 0: none */
	le32 policy_keep;	    /* 128: so many of those are kept */
	uint8_t made_by_policy;	    /* 132: this snapshot was */
	uint8_t pad3[3];
	struct uuid guid;	    /* 136: of a snapshot: names its contents, in all pools that received them */
	struct uuid base_guid;	    /* 152: RECEIVING: of the snapshot that the stream began from; zero: from nothing. INCOMING: likewise */
	le64 received_bytes;	    /* 168: RECEIVING: what lies before is there; guid is the stream's. INCOMING, or with a source: likewise */
	le64 prev;		    /* 176: id of the snapshot whose contents it began with; 0: not known, or of none */
	struct uuid move_pool;	    /* 184: INCOMING: where from. HANDED, or LIVE and wanted: where to; zero: it stays in this one */
	le64 move_id;		    /* 200: INCOMING: id of what it is a copy of, in that pool */
	le64 move_family;	    /* 208: likewise: the family of that */
	uint8_t move_layout;	    /* 216: LIVE and wanted: as it will be */
	uint8_t move_copies;	    /* 217 */
	uint8_t move_flags;	    /* 218: THIN_MOVE_* */
	uint8_t reserved;	    /* 219 */
	le32 iops;		    /* 220: what its clients may do in a second, see struct thin_limits; 0: no limit */
	le64 bps;		    /* 224 */
	le32 burst_iops;	    /* 232 */
	le32 burst_kib;		    /* 236: in KiB per second */
	le32 max_clients;	    /* 240: of its export; 0: no limit */
	uint8_t pad5[3];
	uint8_t source_kind;	    /* 247: THIN_SOURCE_*, if there is one */
	le64 source_bytes;	    /* 248: of the source, as it was when the volume was made */
	uint8_t name[128];	    /* 256: NUL padded */
	uint8_t access[128];	    /* 384: rules of who may see its export (engine/io/access.h), NUL padded; empty: everybody */
	uint8_t export_name[256];   /* 512 */
	/* 768: not empty: ADOPTED: what is not mapped is read from there. MOVED: all requests go there. NUL padded */
	uint8_t source[THIN_SOURCE_MAX + 1];
};
static_assert(sizeof(struct thin_volume_disk) == 1024, "volume record");
static_assert(offsetof(struct thin_volume_disk, burst_seconds) == 14, "volume record");
static_assert(offsetof(struct thin_volume_disk, iops) == 220, "volume record");
static_assert(offsetof(struct thin_volume_disk, max_clients) == 240, "volume record");
static_assert(offsetof(struct thin_volume_disk, source_kind) == 247, "volume record");
static_assert(offsetof(struct thin_volume_disk, name) == 256, "volume record");
static_assert(offsetof(struct thin_volume_disk, access) == 384, "volume record");
static_assert(offsetof(struct thin_volume_disk, export_name) == 512, "volume record");
#define THIN_VOLUME_LOG2 10
#define THIN_VOLUME_ID_MAX (1ULL << 48)

/* ---- journal records ---- */
enum {
	THIN_REC_MAP_SET = 1,	  /* struct thin_rec_map, then entries */
	THIN_REC_VOLUME_PUT = 2,  /* struct thin_volume_disk without reserved parts in use: create or change attributes */
	THIN_REC_VOLUME_GONE = 3, /* le64 id: last step of a deletion */
	THIN_REC_LEAF_DROP = 4,	  /* struct thin_rec_leaf: frees a whole leaf of a deleted or shrunk volume */
	THIN_REC_COPY = 5,	  /* struct thin_rec_copy: a snapshot or clone comes into being */
	THIN_REC_ROLLBACK = 6,	  /* struct thin_rec_rollback */
	THIN_REC_RECEIVED = 7,	  /* struct thin_rec_received: the end of a stream */
	THIN_REC_MOVE = 8,	  /* struct thin_rec_move: a step of moving a family */
	POOL_REC_FIRST = 32,	  /* from here on: the pool's */
};

#define THIN_REC_MAP_ENTRIES_MAX 64

struct thin_rec_map {
	le64 volume;
	le64 first; /* cluster number in the volume */
	/* struct thin_entry_disk entries[]; count by the record's length: the new values, old ones are in the map */
};

/* With all that is in the map of `volume` in this leaf; if other maps have the leaf too, so much of the map around it as they
 * have. */
struct thin_rec_leaf {
	le64 volume;
	le64 leaf;
};

#define THIN_COPY_NAME 128
struct thin_rec_copy {
	le64 source;	 /* 0: id of the volume or snapshot whose contents it has */
	le64 id;	 /* 8 */
	le64 parent;	 /* 16: as in the volume record */
	le64 created_wall_ns; /* 24 */
	struct uuid guid;    /* 32 */
	uint8_t kind;	 /* 48: THIN_KIND_*; a volume's origin is the source */
	uint8_t last;	 /* 49: 1: it, and all that are pending, are live from now on; 0: it is pending */
	uint8_t by_policy; /* 50 */
	uint8_t receiving; /* 51: THIN_COPY_*: the copy's state, if it is hidden, and `last` means others */
	uint8_t pad[4];
	uint8_t name[THIN_COPY_NAME]; /* 56: NUL padded */
};
static_assert(sizeof(struct thin_rec_copy) == 184, "copy record");
enum { THIN_COPY_PLAIN = 0, THIN_COPY_RECEIVING = 1, THIN_COPY_INCOMING = 2, THIN_COPY_STILL = 3 };

/* What has been received is there: volume 0: the receiver is a volume from now on; else that volume has the receiver's size and
 * contents, and the receiver, DELETING, has what that had. Of it there is a snapshot, of the receiver's guid and snapshot name. */
struct thin_rec_received {
	le64 receiver;
	le64 volume;
	le64 snapshot; /* its id */
	le64 created_wall_ns;
};

/* The volume has the snapshot's size and contents from now on; what it had becomes a volume of state DELETING. */
struct thin_rec_rollback {
	le64 volume;
	le64 snapshot;
	le64 trash; /* id of that volume */
};

enum {
	THIN_MOVE_WANT = 1,	/* LIVE members: move_pool, layout, copies and flags are as here; without WANTED, STILL ones are DELETING */
	THIN_MOVE_HAND = 2,	/* LIVE members are HANDED to the pool */
	THIN_MOVE_GONE = 3,	/* HANDED members are DELETING */
	THIN_MOVE_DROP = 4,	/* INCOMING copies of this family of that pool are DELETING */
	THIN_MOVE_ARRIVE = 5,	/* they are LIVE, a family; those without a name, copies of STILL ones, are DELETING */
	THIN_MOVE_EXCHANGE = 6, /* each LIVE member and its copy exchange maps, counters and layout; copies and STILL ones are DELETING, of the
				 * same family, and nothing is wanted any more */
	THIN_MOVE_RETURN = 7,	/* HANDED members are LIVE again, and nothing is wanted any more */
};

/* All at once, for a whole family. */
struct thin_rec_move {
	le64 family;	  /* 0: HAND, GONE, WANT, RETURN: of this pool. DROP, ARRIVE, EXCHANGE: move_family of the copies */
	struct uuid pool; /* 8: WANT, HAND: where to. DROP, ARRIVE, EXCHANGE: move_pool of the copies */
	uint8_t what;	  /* 24: THIN_MOVE_* */
	uint8_t layout;	  /* 25 */
	uint8_t copies;	  /* 26 */
	uint8_t flags;	  /* 27 */
	uint8_t pad[4];
};
static_assert(sizeof(struct thin_rec_move) == 32, "move record");

#endif
