/*
 * ashlar.h: the public C API of the engine (libashlar). What frontends and the command line see; nothing else of
 * engine/pool is theirs.
 *
 * One `struct ashlar` per world. Its home is reactor 0: every function with _co_ in its name is called from a coroutine
 * there, unless it says otherwise, and may suspend. Strings passed in are copied. Arrays handed out are the caller's,
 * freed by xfree(). Every management call that returns 0 is durable; one that fails has changed nothing. The last
 * argument takes a sentence for people: what failed, on which object, what to do.
 */
#ifndef ENGINE_POOL_ASHLAR_H
#define ENGINE_POOL_ASHLAR_H

#include "engine/base/err.h"
#include "engine/base/uuid.h"
#include "engine/io/bdev.h"

#define ASHLAR_POOL_NAME_MAX 63	  /* bytes; letters, digits, '_', '-', '.', ':'; not starting with '-' or '.' */
#define ASHLAR_VOLUME_NAME_MAX 127 /* likewise */
#define ASHLAR_EXPORT_NAME_MAX 255 /* bytes of UTF-8 without control characters */
#define ASHLAR_EXPORT_DEFAULT_MAX (ASHLAR_POOL_NAME_MAX + 2 * ASHLAR_VOLUME_NAME_MAX + 2) /* POOL/VOLUME@SNAP */
#define ASHLAR_VOLUME_SIZE_MAX (1ULL << 60)
#define ASHLAR_PATH_MAX 255	   /* disk path that a label remembers */

struct ashlar;
struct ashlar_pool;

struct ashlar_options {
	uint64_t metadata_cache_bytes; /* all pools together; 0: 256 MiB */
	/* Requests of one volume that are under way, of those of 128 KiB and more fewer, while another of the same reactor is in use too: the
	 * rest waits. 0: 64. */
	unsigned share_max;
	/* What those clients of a volume are kept from (BDEV_FENCE_*) who have no part in the reservations that its note ASHLAR_NOTE_RESERVATIONS
	 * keeps: from the moment when its data path opens, before anybody is attached. Must not suspend. NULL: nothing. */
	uint8_t (*fence)(const void *note, size_t len);
	/* One line for the log or the terminal; NULL: silent. Any reactor. */
	void (*log)(void *arg, const char *line);
	void *log_arg;
};

struct ashlar *ashlar_create(struct world *w, const struct ashlar_options *o);
/* Coroutine. All pools closed before. */
void ashlar_co_destroy(struct ashlar *a);
struct world *ashlar_world(struct ashlar *a);

/* ---- pools ---- */

struct ashlar_pool_spec {
	const char *name;
	const char *layout; /* default for volumes, as raid_profile_parse(); NULL: "single" for one disk, else "raid1" */
	const char *const *paths;
	size_t n_paths;
	bool force;	/* overwrite foreign data and other pools' labels */
	bool dry_run;	/* check all, change nothing */
	uint32_t cluster_bytes; /* 0: 64 KiB */
	uint64_t group_bytes;	/* 0: by the disks' size, 16 MiB .. 1 GiB */
};

/* Writes labels and an empty pool; does not keep it open. Foreign signatures, labels of other pools, mounted or locked
 * disks are refused without force, their bytes unchanged. */
int ashlar_co_pool_create(struct ashlar *a, const struct ashlar_pool_spec *s, struct err *e) __must_check;

/* What lies on a set of paths: files, block devices, directories (their files, one level). */
struct ashlar_found {
	char name[ASHLAR_POOL_NAME_MAX + 1];
	struct uuid uuid;
	unsigned n_disks, n_present;
	bool in_use;	     /* locked by another process */
	size_t n_paths;
	char **paths;	     /* of the disks present; belongs to the array */
};
/* What was looked at, for who found nothing. */
struct ashlar_looked {
	size_t n_disks, n_unread; /* unread: it cannot be opened, or its label is damaged */
	struct err why;		  /* of the first of those */
};
/* n_paths 0: all block devices. Paths without an Ashlar label are skipped silently. looked: may be NULL. */
int ashlar_co_discover(struct ashlar *a, const char *const *paths, size_t n_paths, struct ashlar_found **out, size_t *n,
		       struct ashlar_looked *looked, struct err *e) __must_check;
void ashlar_found_free(struct ashlar_found *f, size_t n);

enum {
	ASHLAR_OPEN_RDONLY = 1 << 0, /* nothing is written; the journal is replayed in memory */
	ASHLAR_OPEN_FORCE_MISSING = 1 << 1, /* open with groups that cannot be read; they answer EIO */
};
/* Opens the pool whose disks are among `paths` (directories allowed). name NULL: the only one there is. A degraded pool
 * opens; one with a disk missing beyond redundancy, two halves that ran apart, duplicates or locked disks does not. */
int ashlar_co_pool_open(struct ashlar *a, const char *name, const char *const *paths, size_t n_paths, unsigned flags,
			struct ashlar_pool **out, struct err *e) __must_check;
/* Detaches everybody, flushes, writes a clean checkpoint, closes disks. The pool is gone even on error. */
int ashlar_co_pool_close(struct ashlar_pool *p, struct err *e);
/* Wipes the labels and closes. Refused while volumes exist, unless force. */
int ashlar_co_pool_destroy(struct ashlar_pool *p, bool force, bool dry_run, struct err *e) __must_check;
struct ashlar_pool *ashlar_pool_find(struct ashlar *a, const char *name);
struct ashlar *ashlar_pool_engine(struct ashlar_pool *p);
/* i-th open pool, NULL beyond the last. */
struct ashlar_pool *ashlar_pool_at(struct ashlar *a, size_t i);
/* Coroutine. How many families have arrived in another pool; waits while one does. What was listed of several pools while that changed may
 * have their volumes twice, or not at all, and is to be listed again. */
uint64_t ashlar_co_arrivals(struct ashlar *a);

enum ashlar_health { ASHLAR_ONLINE, ASHLAR_RESYNCING, ASHLAR_DEGRADED, ASHLAR_FAILED };
const char *ashlar_health_name(enum ashlar_health h);

struct ashlar_pool_info {
	char name[ASHLAR_POOL_NAME_MAX + 1];
	struct uuid uuid;
	enum ashlar_health health;
	const char *layout; /* default profile's name */
	bool read_only;
	unsigned n_disks, n_disks_online, n_volumes;
	uint64_t raw_bytes;	  /* usable space of all disks */
	uint64_t raw_used_bytes;  /* in groups */
	uint64_t used_bytes;	  /* logical: clusters that hold data */
	uint64_t free_bytes;	  /* logical: what a volume of the default layout can still take, less the reserve */
	uint64_t metadata_bytes;  /* logical, metadata pages in use */
	uint64_t metadata_cache_bytes, metadata_cache_limit_bytes;
	uint32_t cluster_bytes, block_bytes;
	uint64_t group_bytes;
	uint64_t checkpoint;	  /* number */
	uint64_t resync_total_bytes, resync_done_bytes;
	uint64_t open_ns;	  /* how long opening took, replay included */
	uint64_t errors_read, errors_write, errors_repaired, errors_metadata_repaired;
	/* What holds now, looked up group by group: how many more disks may be lost before data is (0: none; -1: some is lost
	 * already), and groups by how many failures they can still take; `promised` is what full redundancy would be. */
	int redundancy, redundancy_promised;
	uint64_t n_groups, n_groups_degraded, n_groups_lost; /* degraded: less than the layout promises, still readable */
	uint64_t rebuild_left_bytes; /* of columns that are not where they should be; 0 in good health */
	/* Parity layouts, since the pool was opened: stripes written whole, by read-modify-write, by reconstruct-write; writes put
	 * together; log writes and bytes, of one copy. Reads answered from elsewhere because a disk was slow. */
	uint64_t stripes_full, stripes_rmw, stripes_rcw, assembled, log_writes, log_bytes, hedged;
};
void ashlar_co_pool_info(struct ashlar_pool *p, struct ashlar_pool_info *out);

struct ashlar_disk_info {
	unsigned index;
	char path[ASHLAR_PATH_MAX + 1]; /* where it is, or was last seen */
	struct uuid uuid;
	/* "online", "resyncing" (there, being brought up to date), "absent", "failed"; "leaving" (online, takes no new data, what it
	 * holds moves to others), "empty" (the same, it has) */
	const char *state;
	char reason[200];	    /* why it is not online: "write error (Input/output error)", "did not answer for 30 s", ... or "" */
	bool slow;		    /* reads go around it */
	uint64_t size_bytes, used_bytes;
	uint64_t reads, writes, bytes_read, bytes_written, errors, read_repairs, hedged; /* since it was opened */
	uint64_t latency_ns; /* of reads, smoothed; 0: none yet */
};
int ashlar_co_disk_list(struct ashlar_pool *p, struct ashlar_disk_info **out, size_t *n, struct err *e) __must_check;
/* One of them. */
int ashlar_co_disk_info(struct ashlar_pool *p, const char *disk, struct ashlar_disk_info *out, struct err *e) __must_check;
/* A disk is named by its path, the last part of it if that is unambiguous, its uuid, or its index. */
/* Takes a disk out, as if it had failed: durable when it returns. Refused if data would be lost, unless force; dry_run says what
 * redundancy would be left. */
int ashlar_co_disk_fail(struct ashlar_pool *p, const char *disk, bool force, bool dry_run, struct err *e) __must_check;
/* Takes a disk that is away or out into service again, at `path` if it has moved (NULL: where it was last seen). Returns when
 * writes go to it; what it missed is resynced by a job. One that has been overwritten, belongs elsewhere, or went on without
 * the pool is refused. */
/* One that is leaving stays; one that is online is left alone. */
int ashlar_co_disk_online(struct ashlar_pool *p, const char *disk, const char *path, struct err *e) __must_check;

/* Disks join the pool, usable at once; what is there stays where it is (ashlar_co_pool_rebalance()). Like creating a pool: foreign
 * data and other pools' labels are refused without force, their bytes unchanged. All or none. dry_run: only the checks. */
int ashlar_co_disk_add(struct ashlar_pool *p, const char *const *paths, size_t n, bool force, bool dry_run, struct err *e) __must_check;

/* What moves, and what holds meanwhile: nothing is less redundant than it is now. */
struct ashlar_relocation {
	uint64_t copy_bytes, n_columns;
	int redundancy, redundancy_promised; /* as in ashlar_pool_info */
	uint64_t job;			     /* 0: dry_run */
};
/* Nothing new is placed on the disk from now on, and all it holds moves to others, as a job. That it is wanted is durable: a crash or
 * a restart goes on with it. Stopping the job, or ashlar_co_disk_online(), makes it an ordinary disk again. Refused, before anything
 * is copied, where room, redundancy or a layout's least number of disks do not allow it. */
int ashlar_co_disk_evacuate(struct ashlar_pool *p, const char *disk, bool dry_run, struct ashlar_relocation *out,
			    struct err *e) __must_check;
/* The same, and then it is no disk of the pool any more; its labels are wiped. One that is lost is removed when it has been rebuilt. */
int ashlar_co_disk_remove(struct ashlar_pool *p, const char *disk, bool dry_run, struct ashlar_relocation *out,
			  struct err *e) __must_check;
/* Adds the disk at `path`, in the same instant as the other is to be removed; what that holds goes there, as far as there is room. */
int ashlar_co_disk_replace(struct ashlar_pool *p, const char *disk, const char *path, bool force, bool dry_run,
			   struct ashlar_relocation *out, struct err *e) __must_check;
/* Columns move from fuller disks to emptier ones until all are about equally full, as a job, kept like the above. */
int ashlar_co_pool_rebalance(struct ashlar_pool *p, bool dry_run, struct ashlar_relocation *out, struct err *e) __must_check;

/* ---- jobs: resync, rebuild, scrub, evacuate, remove, replace, rebalance, adopt, move out, move ---- */

enum ashlar_job_kind {
	ASHLAR_JOB_RESYNC,
	ASHLAR_JOB_REBUILD,
	ASHLAR_JOB_SCRUB,
	ASHLAR_JOB_EVACUATE,
	ASHLAR_JOB_REMOVE,
	ASHLAR_JOB_REPLACE,
	ASHLAR_JOB_REBALANCE,
	ASHLAR_JOB_ADOPT,
	ASHLAR_JOB_MOVE_OUT,
	ASHLAR_JOB_MOVE, /* of a family of volumes */
};
enum ashlar_job_state {
	ASHLAR_JOB_WAITING,
	ASHLAR_JOB_RUNNING,
	ASHLAR_JOB_PAUSED,
	ASHLAR_JOB_DONE, /* from here on it is over */
	ASHLAR_JOB_FAILED,
	ASHLAR_JOB_STOPPED,
};
const char *ashlar_job_kind_name(enum ashlar_job_kind k);   /* "resync", ... */
const char *ashlar_job_state_name(enum ashlar_job_state s); /* "running", ... */
struct ashlar_job_info {
	uint64_t id; /* in this pool, since it was opened */
	enum ashlar_job_kind kind;
	enum ashlar_job_state state;
	char what[160];	   /* "disk /dev/sdb", "pool p" */
	char result[240];  /* a sentence once it has ended, or what it waits for; "" */
	uint64_t total_bytes, done_bytes;
	uint64_t bytes_per_s; /* of the last seconds; 0 while it waits */
	uint64_t left_ns;     /* estimate; UINT64_MAX: unknown */
	uint64_t started_wall_ns;
	int redundancy, redundancy_promised; /* of the pool now, as in ashlar_pool_info; listed while it is not over */
	uint64_t problems, repaired; /* scrub: mismatches found, places rewritten */
};
/* Those under way and the last 16 that ended. */
int ashlar_co_job_list(struct ashlar_pool *p, struct ashlar_job_info **out, size_t *n, struct err *e) __must_check;
/* Returns when the job has ended, with its last state, or after max_ns with the present one. -ENOENT. */
int ashlar_co_job_wait(struct ashlar_pool *p, uint64_t id, uint64_t max_ns, struct ashlar_job_info *out, struct err *e) __must_check;
/* Returns when it has ended. Not resync and rebuild. Of relocations: what has moved stays where it is now. */
int ashlar_co_job_stop(struct ashlar_pool *p, uint64_t id, struct err *e) __must_check;
/* Relocations only, durable. */
int ashlar_co_job_pause(struct ashlar_pool *p, uint64_t id, bool pause, struct err *e) __must_check;

/* Reads all that is allocated, on every disk, in the background; repairs what cannot be read; each mismatch is an event that
 * names disk (if it can be told) and volume. repair: mismatches that P and Q or a majority of copies can decide are rewritten,
 * and those that nothing can decide too: mirrors take the first copy, raid5 computes parity from the data. One at a time. */
int ashlar_co_scrub_start(struct ashlar_pool *p, bool repair, uint64_t *job, struct err *e) __must_check;

/* ---- properties of a pool, kept in it ---- */
struct ashlar_pool_settings {
	uint64_t rebuild_delay_ns;   /* how long a disk that vanished may stay away before its data is rebuilt elsewhere; default 5 min.
				      * One that answered with errors is rebuilt at once. UINT64_MAX: never by itself */
	uint64_t pace_floor_bps;     /* background work gets at least so many bytes/s however busy clients are; default 10 MiB */
	uint64_t pace_ceiling_bps;   /* and never more; 0: no limit (default) */
	uint64_t hedge_ns;	     /* reads slower than this are answered from other disks; default 100 ms */
	uint64_t timeout_ns;	     /* a disk that does not answer for so long is out; default 30 s */
};
void ashlar_co_pool_settings(struct ashlar_pool *p, struct ashlar_pool_settings *out);
int ashlar_co_pool_set(struct ashlar_pool *p, const struct ashlar_pool_settings *s, struct err *e) __must_check;

/* Percent of the space that are left when an event "pool.low" says so: falling. */
#define ASHLAR_LOW_LEVELS 3U
extern const uint8_t ashlar_low_levels[ASHLAR_LOW_LEVELS];

/* ---- events ---- */

enum ashlar_severity { ASHLAR_INFO, ASHLAR_WARNING, ASHLAR_ERROR };
const char *ashlar_severity_name(enum ashlar_severity s); /* "info", "warning", "error" */
struct ashlar_event {
	uint64_t seq; /* 1, 2, ...: of this engine instance */
	uint64_t wall_ns;
	enum ashlar_severity severity;
	char type[32]; /* "disk.out", "disk.slow", "disk.online", "job.start", "job.end", "scrub.mismatch", "read.repaired", "pool.low", "pool.full", ... */
	char pool[ASHLAR_POOL_NAME_MAX + 1];
	char disk[128], volume[ASHLAR_VOLUME_NAME_MAX + 1]; /* "" if it concerns none */
	char text[500]; /* one sentence */
};
/* Events after `since` (0: all that are kept, the last 1024), at most max; waits up to wait_ns for the first. More than that
 * were lost if the first one's seq is not since + 1. */
int ashlar_co_events(struct ashlar *a, uint64_t since, size_t max, uint64_t wait_ns, struct ashlar_event **out, size_t *n,
		     struct err *e) __must_check;

/* Verifies every reference, count, checksum and copy; changes nothing, also in memory. Each finding is one sentence to
 * `say`. Returns the number of problems (0: clean), or a negative error if it could not be finished. The pool may be
 * open for writing: it then checks the state of one checkpoint. */
struct ashlar_check_options {
	bool data; /* also compare the copies of all allocated data */
	void (*say)(void *arg, const char *sentence);
	void (*progress)(void *arg, uint64_t done, uint64_t total);
	void *arg;
};
int64_t ashlar_co_pool_check(struct ashlar_pool *p, const struct ashlar_check_options *o, struct err *e);

/* ---- volumes ---- */

/* What the clients of a volume may do, all connections and frontends together; work of the pool itself is not held. Each: 0: as much
 * as they like. Reads and writes cost an I/O and their bytes, as QEMU and libvirt count them in total; zeroing and discarding an I/O,
 * and bytes only if the zeros are to take space; a flush costs nothing and is never held. What is too much waits, in order. A volume at
 * rest saves up, so that for burst_seconds it can do burst_iops and burst_bps. */
struct ashlar_limits {
	int64_t iops; /* 1 .. 2^32-1 */
	int64_t bps;  /* bytes; 64 KiB .. 1 PiB */
	int64_t burst_iops, burst_bps; /* more than the limit, which there must be; burst_bps up to 2 TiB, in KiB */
	int64_t burst_seconds;	       /* 1 .. 65535 if there is a burst; 0: 60 */
};

struct ashlar_volume_spec {
	const char *name; /* without the pool */
	uint64_t size_bytes; /* multiple of the pool's block size, 1 .. ASHLAR_VOLUME_SIZE_MAX */
	const char *layout;  /* NULL: the pool's; any of raid_profile_parse() that the pool has disks for */
	uint64_t full_wait_ns; /* how long writes are held when the pool is full; UINT64_MAX: for ever */
	/* NULL, or what the volume is to begin as: a file or block device, by its absolute path, or an NBD export, by its URI. size_bytes may
	 * be 0 then (the source's), and is no smaller. The volume can be used at once: what has not come over yet is read from there, what is written is the
	 * volume's, and a job brings over the rest; then the source is not needed any more. Until then there are no snapshots of it,
	 * its size stays, and nobody else must write to the source, which is only read and, where that can be done, locked. While the
	 * source is away, reading what has not come over fails, and so do writes of less than a subcluster there. */
	const char *from;
	struct ashlar_limits limits;
};
#define ASHLAR_FULL_WAIT_DEFAULT_NS (60 * 1000000000ULL)

int ashlar_co_volume_create(struct ashlar_pool *p, const struct ashlar_volume_spec *s, struct err *e) __must_check;
/* Copies the volume, without its snapshots, to a disk: an NBD URI, a file or a block device, at least as large, while its clients work; at
 * the end these are served from there, through us, also after a restart. What is here is kept as it was then, until the volume is deleted,
 * which leaves the target alone; there are no snapshots of it any more, and its size stays. When the connection breaks, clients get errors
 * until there is another, and the first flush after it fails if something may be lost. force: although something is on the target.
 * *job: its number. A pool that is closed, or a crash, before the end: the volume stays. */
int ashlar_co_volume_move_out(struct ashlar_pool *p, const char *name, const char *target, bool force, bool dry_run, uint64_t *job,
			      struct err *e) __must_check;
/* What has gone, or would go, with a volume. */
struct ashlar_deleted {
	uint64_t freed_bytes; /* in the background */
	size_t n_snapshots;
	char (*snapshots)[2 * ASHLAR_VOLUME_NAME_MAX + 2]; /* VOLUME@SNAP, oldest first; xfree(); NULL if the call failed */
	bool receive_dropped; /* what had been kept of an incremental stream for it */
};
/* Refused while attached or being received into, unless force: then clients and stream are ended first; and while it has
 * snapshots, unless snapshots: then they go with it. Clones of them stay what they are. All of it goes, or nothing; a crash may leave
 * some of the snapshots gone. out: may be NULL. dry_run changes nothing. */
int ashlar_co_volume_delete(struct ashlar_pool *p, const char *name, bool force, bool snapshots, bool dry_run,
			    struct ashlar_deleted *out, struct err *e) __must_check;
/* Smaller only with force: what is beyond the new end is discarded. */
int ashlar_co_volume_resize(struct ashlar_pool *p, const char *name, uint64_t size_bytes, bool force, struct err *e) __must_check;
int ashlar_co_volume_rename(struct ashlar_pool *p, const char *name, const char *new_name, struct err *e) __must_check;
/* What is being received into it waits as long as the volume does. */
int ashlar_co_volume_set_full_wait(struct ashlar_pool *p, const char *name, uint64_t ns, struct err *e) __must_check;
/* At once, for requests that a limit holds too. Each that is negative stays as it is; without a limit there is no burst of it. Kept in
 * the volume, and moves with it; snapshots and clones have none of their own until they get some. */
int ashlar_co_volume_set_limits(struct ashlar_pool *p, const char *name, const struct ashlar_limits *change, struct err *e) __must_check;

/* A volume moves with its snapshots, its clones, theirs: its family; to another layout (to: NULL), or to another pool that is open
 * here. They are in use meanwhile, and keep names, exports, snapshots, policies; what they share they share there. An export that had
 * the default name keeps that name. It is a job: wait for it, pause it, cancel it; after a crash, or when the pools are open again, it
 * goes on. Until it is over everything is where it was, whole. Needs the family's space once more for that time. Refused: what is
 * moved already, or received into; names that are taken there. */
struct ashlar_move_spec {
	const char *volume;
	struct ashlar_pool *to; /* NULL: the same pool */
	const char *layout;	/* NULL: the one it has */
	bool dry_run;
};
struct ashlar_move_info {
	unsigned n_volumes, n_snapshots; /* of the family; 0: nothing is to be done */
	uint64_t used_bytes, free_bytes; /* what it needs there meanwhile; what there is */
	const char *layout;
	uint64_t job; /* 0: of dry_run */
};
int ashlar_co_volume_move(struct ashlar_pool *p, const struct ashlar_move_spec *s, struct ashlar_move_info *info, struct err *e)
	__must_check;
/* A volume that was moved to a pool which is gone for good, with what moved with it: it is served from here again, as it was at the
 * switch; what was written since is lost. Refused while that pool is open, and without force, with a sentence that says so. If the pool comes
 * back it may have a volume of its own by that name. info: n_volumes, n_snapshots. */
int ashlar_co_volume_take_back(struct ashlar_pool *p, const char *name, bool force, bool dry_run, struct ashlar_move_info *info,
			       struct err *e) __must_check;
/* The default for new volumes, and all that are there move to it, family by family. info: of all, used_bytes of the largest family. */
int ashlar_co_pool_set_layout(struct ashlar_pool *p, const char *layout, bool dry_run, struct ashlar_move_info *info, struct err *e)
	__must_check;

struct ashlar_volume_info {
	char name[ASHLAR_VOLUME_NAME_MAX + 1];
	uint64_t id;
	uint64_t size_bytes;
	uint64_t refer_bytes;	  /* data it refers to (valid subclusters) */
	uint64_t used_bytes;	  /* clusters it refers to */
	uint64_t exclusive_bytes; /* clusters that its deletion would free, its snapshots staying; 0 once the pool has stopped */
	unsigned n_snapshots;
	char origin[2 * ASHLAR_VOLUME_NAME_MAX + 2]; /* of a clone: the snapshot VOLUME@SNAP it was made of, if that is still there */
	uint64_t policy_every_ns; /* a snapshot is taken so often; 0: none */
	unsigned policy_keep;	  /* and so many of those are kept */
	const char *layout;
	uint64_t full_wait_ns;
	unsigned n_attached;
	bool full_waiting;	  /* writes are held now because the pool is full */
	char moving[160];	  /* where to, and how far: "to layout raid6: job 3"; "" if it stays */
	bool is_elsewhere;	  /* it has been moved to another pool, and is not served from here: `moving` says where to look */
	uint64_t created_wall_ns;
	uint64_t reads, writes, bytes_read, bytes_written; /* since the pool was opened */
	char source[256];      /* as long as it is needed: see ashlar_volume_spec.from; "" */
	uint64_t source_bytes; /* its size */
	struct ashlar_limits limits;
	uint64_t limited, limited_ns, limit_waiting; /* requests that a limit held, how long all together; how many it holds now */
};
int ashlar_co_volume_list(struct ashlar_pool *p, struct ashlar_volume_info **out, size_t *n, struct err *e) __must_check;
int ashlar_co_volume_info(struct ashlar_pool *p, const char *name, struct ashlar_volume_info *out, struct err *e) __must_check;

/* ---- snapshots and clones. A snapshot is named VOLUME@SNAP; SNAP obeys the rules of volume names. ---- */

/* All of them at one instant, of any volumes of the pool, in use or not; durable. None exists if it fails. How many there may be
 * at once depends on the journal: at least 64. */
int ashlar_co_snapshot_create(struct ashlar_pool *p, const char *const *names, size_t n, struct err *e) __must_check;
/* In any order, whatever clones were made of them; all or none, a crash may leave some of them gone. Refused while attached, unless
 * force. *freed_bytes (may be NULL): what deleting all of them frees, in the background. */
int ashlar_co_snapshot_delete(struct ashlar_pool *p, const char *const *names, size_t n, bool force, bool dry_run,
			      uint64_t *freed_bytes, struct err *e) __must_check;
/* The volume gets the snapshot's contents and size; later snapshots stay. Refused while the volume is attached, unless force: its
 * clients then see the change as a whole, between two requests. *freed_bytes: what only the volume's present contents hold. */
int ashlar_co_snapshot_rollback(struct ashlar_pool *p, const char *name, bool force, bool dry_run, uint64_t *freed_bytes,
				struct err *e) __must_check;
/* NEW, without the volume. One that a policy has made is not the policy's any more. */
int ashlar_co_snapshot_rename(struct ashlar_pool *p, const char *name, const char *new_snap, struct err *e) __must_check;
/* A writable volume that starts as the snapshot, at no cost, and depends on nothing. */
int ashlar_co_clone(struct ashlar_pool *p, const char *snapshot, const char *new_name, struct err *e) __must_check;

struct ashlar_snapshot_info {
	char name[2 * ASHLAR_VOLUME_NAME_MAX + 2]; /* VOLUME@SNAP */
	char volume[ASHLAR_VOLUME_NAME_MAX + 1];
	uint64_t id;
	struct uuid guid; /* of its contents */
	uint64_t size_bytes, refer_bytes, used_bytes, exclusive_bytes; /* as of a volume */
	uint64_t created_wall_ns;
	unsigned n_attached, n_clones;
	bool made_by_policy;
};
/* In order of creation. volume NULL: of all volumes. */
int ashlar_co_snapshot_list(struct ashlar_pool *p, const char *volume, struct ashlar_snapshot_info **out, size_t *n,
			    struct err *e) __must_check;
int ashlar_co_snapshot_info(struct ashlar_pool *p, const char *name, struct ashlar_snapshot_info *out, struct err *e) __must_check;

/* A snapshot is taken every so often (at least a minute; 0: no more, and keep does not count), named auto-YYYYMMDD-HHMMSS (UTC);
 * of those the newest `keep` (1 ..) are kept. The first one is taken at once; after a time when the pool was closed, one and not
 * all that were missed. One that is attached is not deleted, nor one that has been renamed. Works while the pool is open for
 * writing; kept in it. Events: snapshot.taken, snapshot.expired, snapshot.failed. */
int ashlar_co_snapshot_policy(struct ashlar_pool *p, const char *volume, uint64_t every_ns, unsigned keep, struct err *e)
	__must_check;

/* What differs between two points of one family: each VOLUME@SNAP, or VOLUME for its contents as of now. Ranges in ascending
 * order, from *off_bytes on, at most *n (in: room; out: filled): whole subclusters that were written or discarded between the two;
 * some may have the same contents after all, none that differ are missing. *off_bytes: where to go on; past the larger of
 * the two sizes at the end (*n may be 0). What lies beyond the end of the smaller one differs. */
struct ashlar_range {
	uint64_t off_bytes, len_bytes;
	bool is_data; /* false: reads as zeros in `to` */
};
int ashlar_co_diff(struct ashlar_pool *p, const char *from, const char *to, uint64_t *off_bytes, struct ashlar_range *out,
		   size_t *n, struct err *e) __must_check;

/* ---- send and receive: a snapshot, or what differs between two, as a stream (docs/format.md) into another pool ---- */

struct stream; /* engine/io/net.h; the caller's; on reactor 0; may be shut down by the engine */

struct ashlar_transfer {
	char snapshot[2 * ASHLAR_VOLUME_NAME_MAX + 2]; /* VOLUME@SNAP: sent, or as it is called now in the receiving pool */
	char base[ASHLAR_VOLUME_NAME_MAX + 1];	       /* SNAP that it began from; "": whole */
	uint64_t size_bytes, start_bytes;	       /* of the volume; where this stream began */
	uint64_t data_bytes, zero_bytes;	       /* in this stream */
	uint64_t stream_bytes;			       /* received: so long was the stream; what followed it in the input has not been looked at */
};

struct ashlar_send_spec {
	const char *snapshot; /* VOLUME@SNAP */
	const char *from;     /* SNAP of that volume, or VOLUME@SNAP of its family: only what differs from it; NULL: whole */
	const char *resume;   /* token: goes on with a stream that was cut; NULL: from the beginning */
	void (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes); /* of the volume's size; NULL: none */
	void *progress_arg;
};
/* Also while the pool is open read-only. The snapshots count as attached until it ends. -EPIPE and the like: the other end went. */
int ashlar_co_send(struct ashlar_pool *p, const struct ashlar_send_spec *s, struct stream *to, struct ashlar_transfer *out,
		   struct err *e) __must_check;

struct ashlar_receive_spec {
	const char *volume; /* whole: must not be there; else: the one that has the base snapshot */
	const char *layout; /* whole: of the new volume; NULL: the pool's */
	bool force;	    /* incremental: although the volume is in use, or has changed since its base: what was written is lost */
	bool no_resume;	    /* keep nothing of a stream that does not come to its end */
	uint64_t keep_bytes; /* so much may have to be sent again after a crash; 0: 64 MiB */
	void (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes);
	void *progress_arg;
};
/* At the stream's end volume and snapshot, or the volume's new contents and the snapshot, are there at once, durable; before, and
 * if it fails, nothing is to be seen. What has come of a stream that was cut or damaged is kept, hidden, and the sentence has
 * the token for going on; a new whole stream for the same volume drops it. */
int ashlar_co_receive(struct ashlar_pool *p, const struct ashlar_receive_spec *s, struct stream *from, struct ashlar_transfer *out,
		      struct err *e) __must_check;

/* Streams that have not come to their end. */
struct ashlar_receive_info {
	char volume[ASHLAR_VOLUME_NAME_MAX + 1], snapshot[ASHLAR_VOLUME_NAME_MAX + 1]; /* to come */
	uint64_t size_bytes, received_bytes; /* of the volume; up to where it is kept */
	uint64_t used_bytes;		     /* clusters it refers to */
	bool is_incremental, is_running;
	char token[96];
};
int ashlar_co_receive_list(struct ashlar_pool *p, struct ashlar_receive_info **out, size_t *n, struct err *e) __must_check;
/* Drops what has been kept for a volume. Refused while it is being received. */
int ashlar_co_receive_abort(struct ashlar_pool *p, const char *volume, struct err *e) __must_check;

/* ---- exports: volumes made reachable by a frontend ---- */

/* By default a volume is exported read-write as POOL/VOL, its snapshots read-only as POOL/VOL@SNAP. `add` (volume: VOLUME, or
 * VOLUME@SNAP, which is read-only whatever is asked for) gives it another name and mode, `remove` hides it. Kept in the pool. */
#define ASHLAR_ACCESS_MAX 127
struct ashlar_export_info {
	char name[ASHLAR_EXPORT_DEFAULT_MAX + 1];
	char pool[ASHLAR_POOL_NAME_MAX + 1];
	char volume[2 * ASHLAR_VOLUME_NAME_MAX + 2]; /* or VOLUME@SNAP */
	bool read_only, hidden, is_default, is_snapshot;
	bool set_read_only; /* by `add`, or a snapshot: read_only but for how the pool is open now */
	uint64_t size_bytes;
	unsigned n_attached;
	uint32_t max_clients;	     /* 0: no limit */
	char access[ASHLAR_ACCESS_MAX + 1]; /* rules (engine/io/access.h), a newline between two; a snapshot's may be its volume's */
};
int ashlar_co_export_add(struct ashlar_pool *p, const char *volume, const char *export_name, bool read_only,
			 struct err *e) __must_check;
/* What is to be different. */
struct ashlar_export_change {
	const char *name;     /* NULL: as it is. "": POOL/VOLUME. If it was hidden, it is no longer */
	int read_only;	      /* -1: as it is */
	const char *access;   /* rules; NULL: as they are; "": everybody, and for a snapshot: whoever may see its volume */
	int64_t max_clients;  /* -1: as it is; 0: no limit */
};
/* Durable. Clients that are attached stay, also if they may not come again. With access rules or a limit the pool has the feature
 * ACCESS from then on. */
int ashlar_co_export_set(struct ashlar_pool *p, const char *volume, const struct ashlar_export_change *c, struct err *e) __must_check;
int ashlar_co_export_remove(struct ashlar_pool *p, const char *volume, struct err *e) __must_check;
/* Of all open pools; hidden ones too (look at the flag). */
int ashlar_co_export_list(struct ashlar *a, struct ashlar_export_info **out, size_t *n, struct err *e) __must_check;
/* One of them: of VOLUME or VOLUME@SNAP. Does not suspend. */
int ashlar_export_find(struct ashlar_pool *p, const char *volume, struct ashlar_export_info *out, struct err *e) __must_check;

/* ---- notes: what frontends keep with volumes and snapshots ---- */

/* Some bytes by a number, for each volume: they are there as long as it is, under whatever name. What they mean is the
 * frontend's. Replaced as a whole. They go along to another pool; not taken along by snapshots, clones, streams. */
#define ASHLAR_NOTES 8U
#define ASHLAR_NOTE_ISCSI 0	   /* iSCSI exports */
#define ASHLAR_NOTE_RESERVATIONS 1 /* persistent reservations */
#define ASHLAR_NOTE_IDENTITY 2	   /* the pool's own: what it was called, as ashlar_attach_identity(), where it has come from */
#define ASHLAR_NOTE_MODE 3	   /* SCSI mode pages that are saved */
#define ASHLAR_NOTE_MAX (63U * 1024)
/* len 0: there is none any more. Durable. */
int ashlar_co_note_set(struct ashlar_pool *p, const char *volume, unsigned key, const void *data, size_t len, struct err *e) __must_check;
/* *data: xfree(), with a NUL behind it; *len 0: there is none. */
int ashlar_co_note_get(struct ashlar_pool *p, const char *volume, unsigned key, void **data, size_t *len, struct err *e) __must_check;
struct ashlar_note {
	char volume[2 * ASHLAR_VOLUME_NAME_MAX + 2]; /* or VOLUME@SNAP */
	void *data;
	size_t len;
};
/* All that there are of one number. Cost: what notes there are, not volumes. */
int ashlar_co_note_list(struct ashlar_pool *p, unsigned key, struct ashlar_note **out, size_t *n, struct err *e) __must_check;
void ashlar_notes_free(struct ashlar_note *v, size_t n);
/* Reservations have changed that nobody holds in memory: clients of the volume are fenced as its note says now. */
int ashlar_co_fence(struct ashlar_pool *p, const char *volume, struct err *e) __must_check;
/* Coroutines on any reactor. The same, of the volume of this identity (ashlar_attach_identity()), in whichever pool it is. */
int ashlar_co_identity_note_set(struct ashlar *a, const struct uuid *identity, unsigned key, const void *data, size_t len, struct err *e)
	__must_check;
int ashlar_co_identity_note_get(struct ashlar *a, const struct uuid *identity, unsigned key, void **data, size_t *len, struct err *e)
	__must_check;

/* ---- attaching: what a frontend does for each client ---- */

struct ashlar_attach;
struct ashlar_attach_ops {
	/* Home reactor of the volume, must not suspend. The volume is going away (force, close): end the session; requests
	 * in flight complete or fail, and the frontend then detaches. */
	void (*gone)(void *arg);
	/* Home reactor. The size of the bdev has changed. */
	void (*resized)(void *arg);
	/* Home reactor, must not suspend. The volume lives in another pool now, and has another bdev, whose blocks are no larger: all goes
	 * there from now on, what is under way with the old one ends as it is. False: not now; it is asked again. Until then, and
	 * without it, the old one stays and passes on what comes. */
	bool (*moved)(void *arg, struct bdev *now);
	/* Home reactor, must not suspend, may be NULL. What a volume of the pool's layout can still take, and what there would be if nothing
	 * was in use: within seconds of attaching and of every change, not of a pool that is read-only. */
	void (*space)(void *arg, uint64_t free_bytes, uint64_t total_bytes);
};

/* Who asks. may(): on the pool's home, does not suspend: whether an export with these rules exists for him. */
struct ashlar_attach_who {
	bool (*may)(void *arg, const char *access);
	void *arg;
	bool is_look; /* no client: the limit of clients does not hold, and he does not count */
};
/* Coroutine on any reactor. As ashlar_co_attach(); -ENOENT if he may not see it, -EUSERS if it has as many clients as it may have. */
int ashlar_co_attach_as(struct ashlar *a, const char *export_name, const struct ashlar_attach_who *who, const struct ashlar_attach_ops *ops,
			void *arg, struct ashlar_attach **out, struct err *e) __must_check;
/* Coroutine on any reactor. -ENOENT if there is no such export (hidden: neither). For who may see everything. */
int ashlar_co_attach(struct ashlar *a, const char *export_name, const struct ashlar_attach_ops *ops, void *arg,
		     struct ashlar_attach **out, struct err *e) __must_check;
/* Coroutine on any reactor; none of its requests in flight. */
void ashlar_co_detach(struct ashlar_attach *at);
/* Requests are submitted on the home reactor only. The volume's bdev: flush, FUA, discard, zero with its flags, status. */
struct bdev *ashlar_attach_bdev(struct ashlar_attach *at);
struct reactor *ashlar_attach_home(struct ashlar_attach *at);
bool ashlar_attach_read_only(struct ashlar_attach *at);
/* Coroutine on the home of `from`; both stay attached meanwhile. Copies from one to the other, or within one, by sharing clusters: no data is
 * read. Offsets and length are multiples of opt_bytes of the bdevs. *done: so much has been copied, also if it fails; -EOPNOTSUPP:
 * not between these two: other pools or layouts, volumes that are about to move, ranges that overlap. */
int ashlar_co_attach_copy(struct ashlar_attach *from, uint64_t from_off, struct ashlar_attach *to, uint64_t to_off, uint64_t len_bytes,
			  uint64_t *done) __must_check;
/* The same for whoever attaches this volume or snapshot, after a restart too; and in another pool, if it had notes when it went there. */
void ashlar_attach_identity(const struct ashlar_attach *at, struct uuid *out);

/* What has changed since a snapshot, for who reads by way of an attachment. */
struct ashlar_attach_snapshot {
	uint64_t id; /* of its contents, whatever it is called later, and in whichever pool; less than 2^62 */
	char name[2 * ASHLAR_VOLUME_NAME_MAX + 2]; /* SNAP, or VOLUME@SNAP if it is of another volume of the family */
};
/* Coroutine on any reactor. The snapshots of its family; of a snapshot: the older ones. In order of creation. */
int ashlar_co_attach_snapshots(struct ashlar_attach *at, struct ashlar_attach_snapshot **out, size_t *n) __must_check;
/* Coroutine on the home reactor. As ashlar_co_diff() from that snapshot, from *off_bytes to end_bytes at most: what lies before
 * *off_bytes afterwards and in no range has not changed. Holds what this attachment's clients wrote and were told is written.
 * -ENOENT: the snapshot is gone. */
int ashlar_co_attach_diff(struct ashlar_attach *at, uint64_t snapshot, uint64_t *off_bytes, uint64_t end_bytes,
			  struct ashlar_range *out, size_t *n) __must_check;

#endif
