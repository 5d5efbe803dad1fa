/*
 * pool_internal.h: what the files of engine/pool share. Home reactor (0) unless a comment says otherwise.
 */
#ifndef ENGINE_POOL_POOL_INTERNAL_H
#define ENGINE_POOL_POOL_INTERNAL_H

#include "engine/pool/ashlar.h"
#include "engine/pool/assembly.h"
#include "engine/pool/pool_format.h"
#include "raid/raid.h"
#include "thin/thin.h"

struct ashlar {
	struct world *world;
	struct ashlar_options opt;
	struct list pools;
	struct co_mutex admin; /* opening, closing, creating: one at a time */
};

enum pdisk_state {
	PDISK_ABSENT,
	PDISK_FAILED, /* there, but it answered a write with an error: only groups without redundancy still use it */
	PDISK_STALE,  /* there, being brought up to date */
	PDISK_ONLINE,
};

struct pdisk {
	struct disk *disk; /* NULL: absent */
	enum pdisk_state state;
	bool rolled_back; /* found with an older state than it had acknowledged: nothing of it is trusted */
	uint64_t extents, used, cursor;
};

/* A group in the home's memory. */
struct pgroup {
	struct hash_node node; /* by number */
	struct raid_desc desc;
	uint8_t kind;
	uint64_t dirty;	      /* recorded, or being recorded by dirty_seq */
	uint64_t dirty_seq;
	uint64_t unsync;      /* to be synced before use */
	uint64_t touched; /* leased since the cleaner's last look */
	struct co_mutex sync;
	uint64_t lease[]; /* by reactor */
};

struct pending_run { /* extents of a group whose record has not been applied yet */
	struct list link;
	unsigned disk;
	uint64_t first, n, seq;
};

struct pool_reactor { /* hooks' context, one per reactor */
	struct ashlar_pool *pool;
	struct raid *raid;
	struct reactor *reactor;
	struct timer idle; /* returns idle leases */
};

struct ashlar_pool {
	struct list link;
	struct ashlar *a;
	struct world *w;
	struct assembly *as; /* label and open disks */
	struct label *label; /* = &as->label */
	struct pdisk disks[LABEL_DISKS_MAX];
	unsigned n_disks;
	bool read_only, started, stopping, failed;
	char failed_why[200];
	unsigned n_reactors;
	struct pool_reactor reactors[REACTORS_MAX];

	struct meta *meta;
	struct thin *thin;
	struct meta_array *groups, *extents, *regions;
	struct hash pgroups;
	struct list pending_runs;
	uint64_t next_group;
	struct co_mutex alloc; /* group creation */
	struct co_mutex labels; /* label writing */
	struct co_mutex group_load;
	bool meta_group_added; /* label lists groups that no published label has */
	bool virtual_space;    /* read-only replay went beyond the metadata groups */

	/* background */
	struct timer tick;
	bool tick_runs, resync_runs;
	struct co_queue idle;
	uint64_t resync_total_bytes, resync_done_bytes;

	struct list attached; /* struct ashlar_attach */
	unsigned n_opening;
	uint64_t open_ns;
	_Atomic uint64_t errors_read, errors_write, errors_repaired, errors_metadata_repaired;
};

#define POOL_EXTENT_INDEX(disk, extent) ((uint64_t)(disk) << 32 | (extent))

/* engine.c */
void pool_log(struct ashlar_pool *p, const char *fmt, ...) __printf_like(2, 3);
/* Coroutine. Runs fn on every reactor in turn, this one included. */
void pool_co_each_reactor(struct ashlar_pool *p, int (*fn)(void *arg), void *arg);
struct pool_reactor *pool_here(struct ashlar_pool *p); /* of the current reactor */

/* open.c */
int pool_co_assemble(struct ashlar *a, struct assembly *as, unsigned flags, bool format, struct ashlar_pool **out, struct err *e) __must_check;
void pool_co_teardown(struct ashlar_pool *p);
int pool_co_close(struct ashlar_pool *p, bool clean, struct err *e);

/* state.c: metadata hooks, labels, disk errors */
extern const struct meta_hooks pool_meta_hooks;
int pool_co_publish_labels(struct ashlar_pool *p) __must_check;
int pool_co_disk_error(struct ashlar_pool *p, unsigned disk, enum io_op op, int error) __must_check;
int pool_co_disk_online(struct ashlar_pool *p, unsigned disk) __must_check;
enum raid_disk_state pool_raid_state(const struct pdisk *d);
void pool_co_set_disk(struct ashlar_pool *p, unsigned disk);

/* groups.c */
extern const struct thin_hooks pool_thin_hooks;
int pool_co_group_create(struct ashlar_pool *p, unsigned kind, struct raid_profile prof, uint64_t *group) __must_check;
int pool_co_grow_metadata(struct ashlar_pool *p) __must_check;
int pool_co_apply_record(struct ashlar_pool *p, unsigned type, const void *payload, size_t len) __must_check;
int pool_co_pgroup_get(struct ashlar_pool *p, uint64_t group, struct pgroup **out) __must_check;
struct pgroup *pool_pgroup_add(struct ashlar_pool *p, const struct raid_desc *d, unsigned kind, uint64_t dirty);
void pool_label_meta_desc(const struct label *l, unsigned i, struct raid_desc *d);
int pool_group_decode(const struct ashlar_pool *p, const struct pool_group_disk *d, struct raid_desc *out, struct err *e) __must_check;
unsigned pool_metadata_copies(const struct ashlar_pool *p);
void pool_group_encode(const struct raid_desc *d, unsigned kind, const struct label *l, struct pool_group_disk *out);
/* Coroutine. Calls each() for every group record; stops at an error. */
int pool_co_each_group(struct ashlar_pool *p, int (*each)(void *arg, const struct pool_group_disk *g), void *arg) __must_check;
uint64_t pool_free_bytes(struct ashlar_pool *p);

/* regions.c */
extern const struct raid_hooks pool_raid_hooks;
void pool_regions_start(struct ashlar_pool *p);
void pool_co_regions_stop(struct ashlar_pool *p);
void pool_co_publish_missed(struct ashlar_pool *p, unsigned disk);
int pool_co_distrust_disk(struct ashlar_pool *p, unsigned disk) __must_check;

/* stripe_logs.c: the group that holds the stripe logs of all reactors, one slice each */
#define POOL_LOG_SLICES_MAX 8
/* Coroutine. There is a log group and every instance has its log attached; made when the first parity volume is. */
int pool_co_stripe_logs_ensure(struct ashlar_pool *p, struct err *e) __must_check;
/* Coroutine, while opening, after the journal's replay and before the new epoch: replays what the last opening's logs hold. */
int pool_co_stripe_logs_recover(struct ashlar_pool *p, struct err *e) __must_check;
/* Coroutine, after the new epoch has begun. */
int pool_co_stripe_logs_attach(struct ashlar_pool *p) __must_check;

/* events.c: any reactor, does not suspend. Also a line for the log. disk -1: none; volume NULL: none. */
void pool_event(struct ashlar_pool *p, enum ashlar_severity s, const char *type, int disk, const char *volume, const char *fmt, ...)
	__printf_like(6, 7);

/* transition.c: a group's way from one descriptor to another, and its time as a homed one */
/* Coroutine. All instances take g's desc, target and homed flag as they are in the pgroup now; leases start anew. */
void pool_co_group_publish(struct ashlar_pool *p, struct pgroup *g);

/* volumes.c */
void pool_co_detach_all(struct ashlar_pool *p);

#endif
