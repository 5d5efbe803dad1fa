/*
 * thin.h: thin volumes: allocation, maps, the write path.
 *
 * Two halves. `struct thin` lives on the pool's home reactor: it is the part of the metadata's state machine that knows
 * volumes and clusters (applies records, counts references, hands out free clusters in leases). `struct thin_volume`
 * lives on the volume's home reactor: the data path. It keeps copies of map leaves, which are authoritative while it
 * holds them: it changes its copy, and sends the same change home as a record (after the data has been written). So a
 * read or an overwrite whose leaf is cached touches nothing outside of its reactor.
 *
 * Rules that keep data safe:
 * - Data before metadata: a record is sent only after the data it maps has been written.
 * - A cluster is handed out again only when (a) the record that freed it is durable and (b) every request that may still
 *   target it has ended: the volume releases it after a grace period (two-phase counting of requests in flight).
 * - A write that allocates or clears holds the lock of its clusters (alloc_lock) from lookup to record; the fast path
 *   (all touched subclusters valid in an unshared own cluster) needs no lock.
 * - FUA on the fast path only when no record of this volume awaits its commit.
 * - Writes to the space say what they know (IO_FRESH, IO_OVERWRITE in bdev.h). Fresh is what no map refers to, neither the
 *   one in memory nor any that a crash may bring back.
 * - On layouts for which overwriting is dear (thin_conf.class_redirects) whole clusters are not overwritten but written
 *   elsewhere, and the map is switched (write.c).
 */
#ifndef THIN_THIN_H
#define THIN_THIN_H

#include "engine/base/hash.h"
#include "engine/io/range_lock.h"
#include "engine/meta/meta.h"
#include "thin/thin_format.h"

struct thin;
struct thin_volume;
struct thin_reactor;

/* Layout of a volume or group, opaque to this layer (the RAID layer's profile). */
struct thin_class {
	uint8_t layout, copies;
};

/* What the clients of a volume may do, all together. Each: 0: as much as they like. Reads and writes cost an I/O and their bytes;
 * zeroing and discarding cost an I/O, and bytes only if zeros are to be written; a flush costs nothing. Over any long time no more
 * than `iops` and `bps` per second; a volume at rest saves up, so that it can do burst_iops and burst_bps for burst_seconds. */
struct thin_limits {
	uint64_t bps, burst_bps; /* bytes; burst_bps: a multiple of 1 KiB */
	uint32_t iops, burst_iops;
	uint16_t burst_seconds;
};

/* ---------------------------------------------------------------- home ---------------------------------------------- */

struct thin_hooks {
	/* Coroutine. Makes a new, empty data group of this class; durable or not, its number is in *group and its
	 * THIN_ARRAY_GROUP_STAT entry will be there when the pool's record has been applied (the pool calls
	 * thin_apply_group()). -ERR_POOL_FULL if it would touch the reserve. */
	int (*co_group_create)(void *ctx, struct thin_class cls, uint64_t *group);
	/* Does not suspend. Something for the log and the event stream. */
	void (*event)(void *ctx, const char *sentence);
	/* Coroutine. Asked before so many bytes, at most, are copied in the background; returns when they may be. -ECANCELED: the pool is
	 * closing. NULL: no limit. */
	int (*co_pace)(void *ctx, uint64_t bytes);
};

struct thin_conf {
	struct meta *meta;
	uint64_t group_bytes;
	uint32_t cluster_bytes, block_bytes;
	uint64_t cache_bytes; /* for leaf copies, all reactors together */
	uint64_t journal_bytes;
	bool read_only;
	/* So many requests of one volume are under way, or so much of large ones, while another of its reactor wants something too: the
	 * rest waits, or who has one request at a time would wait for all of them. 0: 64. */
	unsigned share_max;
	struct reactor *home;
	const struct thin_hooks *hooks;
	void *ctx;
	/* Any reactor, does not suspend. Is it better to write whole clusters anew than over what they hold? Parity layouts:
	 * fresh stripes need no log and no reading. NULL: never. */
	bool (*class_redirects)(struct thin_class cls);
	/* The pool's logical space as seen from each reactor: raid instances. */
	struct bdev *space[REACTORS_MAX];
};

/* Home reactor. Declares the system arrays: before meta_co_load. */
struct thin *thin_open(const struct thin_conf *c);
/* Coroutine. After meta_co_load, before replay: reads the volume directory. */
int thin_co_load(struct thin *t, struct err *e) __must_check;
/* After replay, before the first checkpoint, which says it: what a crash left half made will be deleted. Records of that deletion are
 * then never replayed upon something that is in the making. */
void thin_replayed(struct thin *t);
/* Coroutine. After the first checkpoint: starts what was left half done (deletions). */
int thin_co_start(struct thin *t) __must_check;
/* Coroutine. Closes all volumes (nothing attached), stops background work. */
void thin_co_stop(struct thin *t);
void thin_close(struct thin *t);

/* State machine, called by the pool's meta hooks. */
int thin_co_apply(struct thin *t, unsigned type, const void *payload, size_t len, uint64_t seq) __must_check;
int thin_co_store(struct thin *t) __must_check;
void thin_durable(struct thin *t, uint64_t seq);
/* A group has come into being (kind THIN_GROUP_*), or gone (NONE). Inside co_apply. */
int thin_co_apply_group(struct thin *t, uint64_t group, unsigned kind, struct thin_class cls) __must_check;
/* There may be space again (a disk was added, a group freed): held writes try again. */
void thin_space_changed(struct thin *t);

/* A volume as the home knows it. Fields are read by the pool; changed only through records. */
struct thin_vol {
	struct hash_node node; /* by id */
	struct list link;      /* t->vols, by age */
	struct thin *thin;
	uint64_t id;
	uint8_t state; /* THIN_VOLUME_* */
	uint8_t kind;  /* THIN_KIND_* */
	uint64_t family, parent, origin; /* see thin_format.h */
	struct uuid guid;
	struct uuid identity;	 /* the pool's: zero, or what the volume was in another pool */
	struct uuid base_guid;	 /* RECEIVING */
	uint64_t received_bytes; /* likewise; with a source: of that */
	uint64_t source_bytes;
	uint8_t source_kind; /* THIN_SOURCE_* */
	char source[THIN_SOURCE_MAX + 1]; /* what is not mapped is read from there, by the pool; "": zeros, as usual */
	uint64_t prev, move_id, move_family;
	struct uuid move_pool;
	struct thin_class move_cls;
	uint8_t move_flags;
	uint64_t policy_every_ns;
	uint32_t policy_keep;
	bool made_by_policy;
	struct thin_class cls;
	uint8_t export_kind, export_flags;
	uint64_t size_bytes, used_clusters, valid_subs, full_wait_ns, created_wall_ns;
	struct thin_limits limits; /* of a LIVE volume; snapshots, clones and copies begin without any */
	char name[256], export_name[256];
	char access[128];     /* a snapshot without any has its volume's: thin_vol_access() */
	uint32_t max_clients; /* of its export */
	struct meta_array map;
	bool changed;	   /* since it was stored in the array */
	uint64_t last_seq; /* newest record handed in for it */
	struct thin_volume *open; /* data path, or NULL; made on first attach. Under admin, but for who has counted in n_attached */
	unsigned n_attached;	  /* the pool's count */
	unsigned n_own;		  /* of those, the pool itself */
	bool is_pulled;		  /* the pool's: there is a job for its source */
	struct pool_moved *moved; /* likewise: of one that has been moved away */
	struct pool_moved *moving; /* likewise: of one that is on its way there */
	struct pool_adopt *adopt; /* the pool's, as long as the data path is open: of a volume with a source */
	bool leaving;		  /* the pool's: no new clients, the old ones go */
	bool switching;		  /* the pool's: it is about to be in another pool: new clients wait */
	bool open_to_merge;	  /* under admin: `open` is merge.c's, which closes it soon; whoever needs it clears this */
	bool is_cut;		  /* DELETING: its map is empty */
	struct co_mutex admin;	  /* one management operation at a time */
	void *owner;		  /* the pool's */
	unsigned n_kept;	  /* the pool's: background work that has the data path open */
	uint64_t map_gen;	  /* counts rollbacks and the like, since the pool was opened */
};

/* Are its contents final? */
static inline bool thin_vol_is_fixed(const struct thin_vol *v)
{
	return v->kind == THIN_KIND_SNAPSHOT && (v->state != THIN_VOLUME_INCOMING || v->move_flags & THIN_MOVE_COMPLETE);
}

struct thin_vol *thin_vol_find(struct thin *t, const char *name); /* LIVE volumes, not snapshots */
struct thin_vol *thin_snap_find(struct thin *t, const struct thin_vol *volume, const char *name); /* LIVE ones */
/* How many LIVE snapshots a volume has. */
unsigned thin_n_snaps(struct thin *t, const struct thin_vol *volume);
struct thin_vol *thin_vol_by_id(struct thin *t, uint64_t id);
/* The rules that hold for it: its own, or those of the volume that it is a snapshot of. */
const char *thin_vol_access(const struct thin_vol *v);
struct list *thin_vols(struct thin *t); /* of struct thin_vol */
unsigned thin_n_vols(const struct thin *t); /* LIVE */

/* Coroutine. Each returns when durable. Names and sizes have been checked by the caller. When something of a family has been deleted,
 * the data paths of its volumes that are not `leaving` may be opened for a while, under their admin locks (merge.c). */
int thin_co_volume_create(struct thin *t, const char *name, uint64_t size_bytes, struct thin_class cls, uint64_t full_wait_ns,
			  struct thin_vol **out) __must_check;
/* The same of one with a source or limits: name, size, cls, full_wait, limits, source, source_bytes are taken from *as. */
int thin_co_volume_create_as(struct thin *t, const struct thin_vol *as, struct thin_vol **out) __must_check;
/* Not attached, data paths closed. Fails only if the pool stops; a crash may leave the first of them deleted. Space comes back in the
 * background. */
int thin_co_volumes_delete(struct thin *t, struct thin_vol *const *v, unsigned n) __must_check;
/* name, size (growing), full_wait, limits, export fields as in *to (a copy of *v with changes). */
int thin_co_volume_update(struct thin *t, struct thin_vol *v, const struct thin_vol *to) __must_check;

/* ---- snapshots and clones ---- */

/* What is to come into being. kind SNAPSHOT: source is the volume, parent its id. VOLUME: a clone of the snapshot `source`. */
struct thin_copy {
	struct thin_vol *source;
	const char *name; /* less than THIN_COPY_NAME bytes */
	uint8_t kind;
	bool by_policy;
	uint8_t hidden; /* THIN_COPY_*. RECEIVING: a VOLUME, in the name of the volume `parent`. STILL: a SNAPSHOT. INCOMING: of another
			 * INCOMING one; only just begun, until its record says more */
	uint64_t parent;
	struct uuid guid; /* of snapshots */
	uint64_t like;	  /* its home reactor is that of this id; 0: any */
	uint64_t id;	  /* out */
};
/* Coroutine. All of them, of one instant: no write is in them that began after one that is not has been acknowledged. Durable, or
 * none exists. Writes to the sources are held back while those under way end, and for no I/O of ours. Names have been checked,
 * and the caller holds the sources' admin locks. */
int thin_co_copy(struct thin *t, struct thin_copy *c, unsigned n) __must_check;
/* Coroutine, admin lock of the volume held. The volume gets the contents and size of the snapshot, at one instant for its clients;
 * durable. What it had is freed in the background. */
int thin_co_rollback(struct thin *t, struct thin_vol *volume, struct thin_vol *snapshot) __must_check;
/* ---- receiving: thin_format.h says what a RECEIVING volume is ---- */

/* Coroutine. As thin_co_volume_create(), RECEIVING: name, size, cls, full_wait, guid and export_name are taken from *as. */
int thin_co_receiver_create(struct thin *t, const struct thin_vol *as, struct thin_vol **out) __must_check;
/* Coroutine. The receiver, whose data path is closed, has all it shall have, durable: in one step its contents are visible, and the
 * snapshot of them. volume: NULL, or its parent, admin lock held, whose clients see the change at one instant. */
int thin_co_received(struct thin *t, struct thin_vol *receiver, struct thin_vol *volume) __must_check;

/* ---- moving families: move.c ---- */

/* Coroutine. As thin_co_receiver_create(), INCOMING: all attributes are taken from *as, its home reactor is that of `like`. */
int thin_co_incoming_create(struct thin *t, const struct thin_vol *as, uint64_t like, struct thin_vol **out) __must_check;
/* What it came from, as a member of its family that is there; NULL: nothing that is known. A snapshot that has a lower id, or, of a
 * volume, any. */
struct thin_vol *thin_vol_prev(struct thin *t, const struct thin_vol *v);
/* Coroutine, the pool's admin lock held. One step, see thin_format.h; durable and applied. Who becomes DELETING is not open. Not for EXCHANGE. */
int thin_co_move(struct thin *t, const struct thin_rec_move *rec) __must_check;
/* Coroutine, likewise, admin locks of the n members (the LIVE ones) held. EXCHANGE: at one instant for the clients of all. Each has a copy
 * with the same contents, durable, data path closed. Who is frozen with reads already stays so. */
int thin_co_move_exchange(struct thin *t, const struct thin_rec_move *rec, struct thin_vol *const *members, unsigned n) __must_check;

/* Coroutine. Clusters that deleting all of these (n volumes and snapshots, in any order) would free. Looks only at what each has
 * for itself or shares with these alone. */
int thin_co_freed_by(struct thin *t, struct thin_vol *const *v, unsigned n, uint64_t *clusters) __must_check;
/* Coroutine. Goes over what may differ between two members of a family (snapshots, or a volume as of now), in time proportional to
 * what does, cluster by cluster from *cluster on: *mask gets a bit for each subcluster that is not at the same place in both, *data
 * those that hold something in `to`. -ENOENT: there is no more. */
int thin_co_diff(struct thin *t, struct thin_vol *from, struct thin_vol *to, uint64_t *cluster, uint16_t *mask, uint16_t *data)
	__must_check;

struct thin_space {
	uint64_t clusters_total, clusters_used; /* of data groups that exist */
	uint64_t clusters_free;			/* in them, to be handed out now */
};
void thin_space_get(struct thin *t, struct thin_space *out);
void thin_space_set(struct thin *t, const struct thin_space *s); /* at load: the pool keeps the two counters in its root */
/* Coroutine. Free clusters in existing groups of a class. */
int thin_co_class_free(struct thin *t, struct thin_class cls, uint64_t *clusters) __must_check;
/* Coroutine on the home. Reactors give back what they have been given and not used yet. */
void thin_co_leases_call_in(struct thin *t);
/* Coroutine. Between them nobody is given clusters. co_group_create is called so. */
void thin_co_alloc_lock(struct thin *t);
void thin_alloc_unlock(struct thin *t);
/* Coroutine, only while allocation is locked. The first data group of this number or higher without any cluster in use, leased or in
 * quarantine; nobody allocates from it until the lock is given back: the pool may destroy it. -ENOENT: there is none. */
int thin_co_empty_group(struct thin *t, uint64_t *group) __must_check;
/* Coroutine. Clusters of a data group with a count other than zero. */
int thin_co_group_used(struct thin *t, uint64_t group, uint64_t *clusters) __must_check;
/* Coroutine. For the RAID layer's resync and pool check: sets bit i of bits for each cluster first+i (of n) that has a
 * count other than zero, or is leased (it may hold data written a moment ago). */
int thin_co_allocated(struct thin *t, uint64_t first_cluster, unsigned n, uint8_t *bits) __must_check;

/* Coroutine, under meta_co_pause(). Verifies every map, reference count, group and volume counter. say() per problem;
 * page() for every map page (see meta_walk). Returns the number of problems, or an error. */
struct thin_check {
	void (*say)(void *arg, const char *sentence);
	/* Coroutine, may be NULL. Each cluster that a map refers to, with the subclusters that are valid there. */
	int (*co_data)(void *arg, uint64_t cluster, uint16_t valid);
	const struct meta_walk *walk;
	void *arg;
};
int64_t thin_co_check(struct thin *t, const struct thin_check *c) __must_check;

/* ---- calls from volumes; the functions hop home themselves. Coroutine on any reactor. ---- */

/* Leases up to *n free clusters for cls, at least one, in ascending order within a group. -ERR_POOL_FULL: none are left, nor
 * among those that wait for their commit: it has been asked for.
 * runs: for who can do without: neighbours, out of a long run of free ones. -ERR_POOL_FULL means only that there are no such
 * runs now. It costs a search: not to be asked again at once. */
int thin_co_lease(struct thin *t, struct thin_class cls, bool runs, uint64_t *clusters, unsigned *n) __must_check;
/* Any reactor, does not suspend. Unused ones back. */
void thin_lease_return(struct thin *t, const uint64_t *clusters, unsigned n);
/* Permission for *n more map records of up to THIN_REC_MAP_ENTRIES_MAX entries. grow: they may add mappings. -ERR_POOL_FULL
 * if the metadata cannot grow. */
int thin_co_admit(struct thin *t, bool grow, unsigned *n) __must_check;
/* Any reactor, does not suspend. Hands in a record: entries become the map's. FIFO with all other calls from this reactor.
 * Clusters that thereby lose their last reference are quarantined until thin_release() and the commit. */
void thin_map_set(struct thin *t, uint64_t volume, uint64_t first, const struct thin_entry *entries, unsigned n);
/* Any reactor, does not suspend. No request of the volume targets these any more. */
void thin_release(struct thin *t, const uint64_t *clusters, unsigned n);
/* A leaf of the map, all records handed in before the call included. 1: hole (zeros). Entries say `shared` if another map has, or
 * after a crash may have, their own cluster too; exact: what takes a commit to be sure about is made sure. */
int thin_co_leaf(struct thin *t, uint64_t volume, uint64_t leaf, bool exact, struct thin_entry_disk entries[THIN_MAP_PER_LEAF])
	__must_check;
/* Which entries of a leaf have a base that nobody else has, durably: bit i of bits[i / 64]. */
int thin_co_bases_alone(struct thin *t, uint64_t volume, uint64_t leaf, uint64_t bits[THIN_MAP_PER_LEAF / 64]) __must_check;
/* First leaf >= *leaf that is not a hole; -ENOENT. */
int thin_co_next_leaf(struct thin *t, uint64_t volume, uint64_t *leaf) __must_check;
/* All records that this reactor has handed in become durable (disks flushed before). */
int thin_co_commit(struct thin *t) __must_check;

/* ---------------------------------------------------------------- volume -------------------------------------------- */

/* Per-reactor state (leaf cache, leases, batches), made by thin_open for every reactor of the world. */
struct thin_reactor *thin_reactor_of(struct thin *t, unsigned reactor);
const struct thin_conf *thin_conf_of(const struct thin *t);
/* implemented by the volume half (volume.c); called by thin_open/thin_close and by messages from home */
struct thin_reactor *thin_reactor_create(struct thin *t, unsigned reactor);
void thin_reactor_destroy(struct thin_reactor *tr);
/* On its reactor: parked writes of all volumes try again. */
void thin_reactor_space_changed(struct thin_reactor *tr);
/* On its reactor: clusters may have become unshared. */
void thin_reactor_unshared(struct thin_reactor *tr);
/* On its reactor: gives unused leases back (the pool is nearly full). */
void thin_reactor_return_leases(struct thin_reactor *tr);

/* Coroutine on the home reactor of the volume (thin_volume_home()). */
int thin_volume_co_open(struct thin *t, uint64_t id, uint64_t size_bytes, struct thin_class cls, uint64_t full_wait_ns,
			bool read_only, struct thin_volume **out) __must_check;
/* Coroutine there. Holds back what is submitted from now on, and returns when what was under way has ended: what changes the
 * contents, and reads too if so asked. Writes that wait for space count as not begun. One at a time (admin lock). */
void thin_volume_co_freeze(struct thin_volume *v, bool reads);
bool thin_volume_is_frozen(const struct thin_volume *v); /* there */
/* There, frozen, does not suspend; the record that says so has been handed in. All that is mapped is shared. */
void thin_volume_set_shared(struct thin_volume *v);
/* There, frozen with reads, likewise. The map, the size and the layout are others now. */
void thin_volume_map_replaced(struct thin_volume *v, uint64_t size_bytes, struct thin_class cls);
void thin_volume_thaw(struct thin_volume *v); /* there */
/* Coroutine there. Fails parked writes, waits for requests in flight and for grace periods; frees. */
void thin_volume_co_close(struct thin_volume *v);
/* There, does not suspend. It is about to be closed: held writes fail, and so does everything new. */
void thin_volume_shut(struct thin_volume *v);
struct bdev *thin_volume_bdev(struct thin_volume *v);
/* A layer over the data path, for the time that there is one. The inner bdev is the volume itself: no forward, no statistics; who
 * freezes the volume holds back what goes through it. */
struct bdev *thin_volume_inner(struct thin_volume *v);
/* There, frozen with reads, does not suspend. From now on what is submitted to thin_volume_bdev(), and was and is held or waits for
 * space, goes to that bdev instead, on this reactor, whether frozen or not; its status too. At least as large, blocks no larger.
 * NULL: to the volume again; what is with the old one ends there. Closing the volume waits for all of it. */
void thin_volume_set_forward(struct thin_volume *v, struct bdev *to);
bool thin_volume_is_forwarded(const struct thin_volume *v); /* there; its size does not change then (-EBUSY) */
/* There, forwarded. Off: what waits for space in the volume, or would, ends with -ECANCELED; it may be done in part. */
void thin_volume_set_parking(struct thin_volume *v, bool on);
/* Which reactor a volume lives on. */
struct reactor *thin_volume_home(struct thin *t, uint64_t id);
/* Coroutine there: new size (grow, or shrink: discards what is beyond, whole subclusters and zeroes the rest). */
int thin_volume_co_resize(struct thin_volume *v, uint64_t size_bytes) __must_check;
void thin_volume_set_full_wait(struct thin_volume *v, uint64_t ns); /* there */
/* There, does not suspend. For requests to thin_volume_bdev() from now on, and those that a limit holds now; bursts are full. Without
 * it there are no limits. Held requests go on in the order in which they came; those that are held when the volume is shut go on then. */
void thin_volume_set_limits(struct thin_volume *v, const struct thin_limits *l);

/* Coroutine on the source's home reactor; neither is closed meanwhile without -ESHUTDOWN. Copies by sharing clusters, without reading or
 * writing data; a snapshot of the target has each cluster of the copy or not. Offsets and len are whole clusters. -EOPNOTSUPP: not
 * these two (other layouts, they forward, the ranges overlap); *done: so much has been copied, always, from the start. Durable like
 * a write. */
int thin_volume_co_share(struct thin_volume *src, uint64_t src_off, struct thin_volume *dst, uint64_t dst_off, uint64_t len, uint64_t *done)
	__must_check;

struct thin_volume_stats {
	uint64_t reads, writes, bytes_read, bytes_written, fast, slow, parked;
	uint64_t redirected; /* clusters written anew instead of over their contents */
	uint64_t merged;     /* bases given up by copying what was left of them */
	uint64_t limited, limited_ns, limit_waiting; /* requests that a limit held, for how long all together; how many it holds now */
	bool full_waiting;
};
/* Reads and writes of all volumes of a reactor, by how long they took (those held back for lack of space not counted): adds to
 * counts. Any reactor (relaxed). */
#define THIN_LATENCY_BUCKETS 256
void thin_latency_add(struct thin *t, unsigned reactor, uint64_t counts[THIN_LATENCY_BUCKETS]);
/* Where the bucket ends: a quarter of a power of two each. */
uint64_t thin_latency_bucket_ns(unsigned bucket);
/* Any reactor (relaxed counters). */
void thin_volume_stats_get(const struct thin_volume *v, struct thin_volume_stats *out);

#endif
