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
#define ASHLAR_VOLUME_SIZE_MAX (1ULL << 60)
#define ASHLAR_PATH_MAX 255	   /* disk path that a label remembers */

struct ashlar;
struct ashlar_pool;

struct ashlar_options {
	uint64_t metadata_cache_bytes; /* all pools together; 0: 256 MiB */
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
/* n_paths 0: all block devices. Paths without an Ashlar label are skipped silently. */
int ashlar_co_discover(struct ashlar *a, const char *const *paths, size_t n_paths, struct ashlar_found **out, size_t *n,
		       struct err *e) __must_check;
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
};
void ashlar_co_pool_info(struct ashlar_pool *p, struct ashlar_pool_info *out);

struct ashlar_disk_info {
	unsigned index;
	char path[ASHLAR_PATH_MAX + 1]; /* where it is, or was last seen */
	struct uuid uuid;
	const char *state;	    /* "online", "stale", "absent", "failed" */
	uint64_t size_bytes, used_bytes;
	uint64_t reads, writes, errors;
};
int ashlar_co_disk_list(struct ashlar_pool *p, struct ashlar_disk_info **out, size_t *n, struct err *e) __must_check;

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

struct ashlar_volume_spec {
	const char *name; /* without the pool */
	uint64_t size_bytes; /* multiple of the pool's block size, 1 .. ASHLAR_VOLUME_SIZE_MAX */
	const char *layout;  /* NULL: the pool's */
	uint64_t full_wait_ns; /* how long writes are held when the pool is full; UINT64_MAX: for ever */
};
#define ASHLAR_FULL_WAIT_DEFAULT_NS (60 * 1000000000ULL)

int ashlar_co_volume_create(struct ashlar_pool *p, const struct ashlar_volume_spec *s, struct err *e) __must_check;
/* Refused while attached, unless force: then clients lose their connection first. Space comes back in the background;
 * *freed_bytes (may be NULL) says how much it will be. dry_run changes nothing. */
int ashlar_co_volume_delete(struct ashlar_pool *p, const char *name, bool force, bool dry_run, uint64_t *freed_bytes,
			    struct err *e) __must_check;
/* Smaller only with force: what is beyond the new end is discarded. */
int ashlar_co_volume_resize(struct ashlar_pool *p, const char *name, uint64_t size_bytes, bool force, struct err *e) __must_check;
int ashlar_co_volume_rename(struct ashlar_pool *p, const char *name, const char *new_name, struct err *e) __must_check;
int ashlar_co_volume_set_full_wait(struct ashlar_pool *p, const char *name, uint64_t ns, struct err *e) __must_check;

struct ashlar_volume_info {
	char name[ASHLAR_VOLUME_NAME_MAX + 1];
	uint64_t id;
	uint64_t size_bytes;
	uint64_t refer_bytes;	  /* data it refers to (valid subclusters) */
	uint64_t used_bytes;	  /* clusters it refers to */
	uint64_t exclusive_bytes; /* clusters that its deletion would free */
	const char *layout;
	uint64_t full_wait_ns;
	unsigned n_attached;
	bool full_waiting;	  /* writes are held now because the pool is full */
	uint64_t created_wall_ns;
	uint64_t reads, writes, bytes_read, bytes_written; /* since the pool was opened */
};
int ashlar_co_volume_list(struct ashlar_pool *p, struct ashlar_volume_info **out, size_t *n, struct err *e) __must_check;
int ashlar_co_volume_info(struct ashlar_pool *p, const char *name, struct ashlar_volume_info *out, struct err *e) __must_check;

/* ---- exports: volumes made reachable by a frontend ---- */

/* By default a volume is exported read-write as POOL/VOL. `add` gives it another name and mode, `remove` hides it. Kept
 * in the pool. */
struct ashlar_export_info {
	char name[ASHLAR_EXPORT_NAME_MAX + 1];
	char pool[ASHLAR_POOL_NAME_MAX + 1];
	char volume[ASHLAR_VOLUME_NAME_MAX + 1];
	bool read_only, hidden, is_default;
	uint64_t size_bytes;
	unsigned n_attached;
};
int ashlar_co_export_add(struct ashlar_pool *p, const char *volume, const char *export_name, bool read_only,
			 struct err *e) __must_check;
int ashlar_co_export_remove(struct ashlar_pool *p, const char *volume, struct err *e) __must_check;
/* Of all open pools; hidden ones too (look at the flag). */
int ashlar_co_export_list(struct ashlar *a, struct ashlar_export_info **out, size_t *n, struct err *e) __must_check;

/* ---- attaching: what a frontend does for each client ---- */

struct ashlar_attach;
struct ashlar_attach_ops {
	/* Home reactor of the volume, must not suspend. The volume is going away (force, close): end the session; requests
	 * in flight complete or fail, and the frontend then detaches. */
	void (*gone)(void *arg);
	/* Home reactor. The size of the bdev has changed. */
	void (*resized)(void *arg);
};

/* Coroutine on any reactor. -ENOENT if there is no such export (hidden: neither). */
int ashlar_co_attach(struct ashlar *a, const char *export_name, const struct ashlar_attach_ops *ops, void *arg,
		     struct ashlar_attach **out, struct err *e) __must_check;
/* Coroutine on any reactor; none of its requests in flight. */
void ashlar_co_detach(struct ashlar_attach *at);
/* Requests are submitted on the home reactor only. The volume's bdev: flush, FUA, discard, zero with its flags, status. */
struct bdev *ashlar_attach_bdev(struct ashlar_attach *at);
struct reactor *ashlar_attach_home(struct ashlar_attach *at);
bool ashlar_attach_read_only(struct ashlar_attach *at);

#endif
