/*
 * sim_rig.h: the whole engine in the simulated world, with the model beside it: what tests/sim and tests/crash share.
 *
 * A rig is a set of disks, a model and the shape of a pool. Worlds come and go on it; each opens the pool, finds out which
 * volumes there are (rig_co_open), reads everything through the model (rig_co_verify) and checks the pool (rig_co_check).
 * Functions with _co_ run in coroutines on reactor 0. The first thing that is wrong is printed and kept in `failed`;
 * everybody then stops.
 */
#ifndef TESTS_LIB_SIM_RIG_H
#define TESTS_LIB_SIM_RIG_H

#include <limits.h>
#include "engine/io/sim.h"
#include "engine/pool/ashlar.h"
#include "raid/geometry.h"
#include "tests/lib/model.h"

#define RIG_DISKS_MAX 12
#define RIG_IO_MAX (256 * 1024)
#define RIG_PARCELS_MAX 6
#define RIG_SOURCES 3
#define RIG_SOURCE_BYTES (1024 * 1024ULL)

/* A disk that volumes are adopted from, one at a time. */
struct rig_source {
	unsigned disk, vol; /* vol: index of the newest; UINT_MAX: none yet */
};

#define RIG_OTHER_MAX 4
/* A second pool, "q", beside the first one, "p": volumes go there and come back. Its disks stay what they are. */
struct rig_other {
	unsigned n_disks; /* 0: there is none */
	unsigned first;	  /* its disks, among all simulated ones: first, first + 1, ... */
	const char *layout;
	struct raid_profile profile;
	uint32_t cluster_bytes;
	struct ashlar_pool *p;
};

struct rig {
	struct sim_disks *disks;
	struct model *model;
	unsigned n_disks, n_reactors;
	unsigned n_first; /* a new pool is made of so many of them; 0: all */
	const char *layout;
	uint32_t block_bytes, cluster_bytes;
	uint64_t group_bytes, cache_bytes;
	unsigned share_max; /* as in ashlar_options */
	struct rig_other q;
	bool make_there; /* new volumes, in the second pool */
	struct rig_source sources[RIG_SOURCES];
	uint64_t source_stall_ns; /* how long they may take for a request */
	struct ashlar_pool_settings settings; /* given to a new pool, unless all zero */
	/* what may happen */
	bool may_be_full;    /* ENOSPC is an honest answer */
	bool degraded;	     /* disks may be away: no new volume where too few are left */
	bool may_fail;	     /* faults beyond redundancy: any request may fail, the pool may stop */
	bool verbose;
	void (*heard)(struct rig *g, const char *line); /* what a pool logs; may be NULL */
	/* streams, and what must come out of them: sim_transfer.h */
	struct parcel *parcels[RIG_PARCELS_MAX];
	unsigned n_parcels;
	/* now */
	struct world *w;
	struct ashlar *a;
	struct ashlar_pool *p;
	bool failed;
	char why[600];
	uint64_t n_ios, n_reads_checked;
	unsigned n_comparing; /* clients that do two requests as one: they cannot change the device now */
};

extern const char *const rig_paths[RIG_DISKS_MAX], *const rig_other_paths[RIG_OTHER_MAX];

void rig_fail(struct rig *g, const char *fmt, ...) __printf_like(2, 3);
void rig_note(const struct rig *g, const char *fmt, ...) __printf_like(2, 3); /* verbose */

/* Starts and drops a world. The engine in it is dropped as it stands: bracketed by alloc_track. */
void rig_world_start(struct rig *g, uint64_t seed);
void rig_world_drop(struct rig *g);

int rig_co_create(struct rig *g);
/* Opens, two pools in either order; volumes and snapshots settle in the model. flags: ASHLAR_OPEN_*. */
int rig_co_open(struct rig *g, unsigned flags);
/* Reads every volume and every snapshot; failures go to g->failed. */
void rig_co_verify(struct rig *g);
/* Pool check. data: copies too. Anything it finds is a failure. */
void rig_co_check(struct rig *g, bool data);
void rig_co_close(struct rig *g);
/* Deletes everything, and waits until no data takes space; a failure after max_ns. */
void rig_co_empty(struct rig *g, uint64_t max_ns);
/* Waits until the pool is as redundant as its layouts promise, every disk ONLINE (all_online), and no resync or rebuild waits or
 * runs; a failure after max_ns. */
void rig_co_wait_whole(struct rig *g, bool all_online, uint64_t max_ns);
/* Nothing else going on: what moves between disks comes to its end, or is stopped where there may be no room. */
void rig_co_finish_moves(struct rig *g);
/* Scrubs and waits. problems: how many there must be; UINT64_MAX: any number. Returns how many there were. */
uint64_t rig_co_scrub(struct rig *g, bool repair, uint64_t problems);

/* ---- two pools: sim_pools.c. What is said of disks elsewhere in here is said of the first one's. ---- */

/* After the first pool's disks and its shape. */
void rig_other_add(struct rig *g, const char *layout, unsigned n_disks, uint64_t size_bytes, uint32_t cluster_bytes);
int rig_co_other_create(struct rig *g);
struct ashlar_pool *rig_pool_at(const struct rig *g, unsigned i); /* those that are open, NULL beyond */
/* Where a volume, or that of a snapshot, is now. Whatever waits may find it elsewhere afterwards: then commands say -ENOENT. */
struct ashlar_pool *rig_pool(const struct rig *g, const struct model_vol *v);
struct ashlar_pool *rig_pool_new(const struct rig *g); /* where new ones are made */
/* A command on it in that pool came too late. */
bool rig_has_moved(const struct rig *g, const struct model_vol *v, const struct ashlar_pool *p, int r);
bool rig_is_moving(const struct rig *g, const struct model_vol *v); /* it is wanted, in whatever state */
#define RIG_EXPORT_NAME 256
const char *rig_export_name(const struct rig *g, const struct model_vol *v, char buf[RIG_EXPORT_NAME]);
/* Its family goes to the pool where it is not. layout NULL: as it is. *from: the pool that has the job. */
int rig_co_pass(struct rig *g, const struct model_vol *v, const char *layout, bool dry_run, struct ashlar_pool **from, uint64_t *job);
/* Both are open: nothing stays between them. */
void rig_co_pools_settle(struct rig *g);

/* ---- how much more may be lost ---- */

/* What the pool says it can lose, and when: it holds as long as no disk changes its state and no group its place. */
struct rig_claim {
	bool valid;
	int redundancy;
	uint32_t away; /* bit per disk that was not ONLINE: not counted upon */
	uint64_t change_gen;
};
void rig_co_claim(struct rig *g, struct rig_claim *c);
/* Without suspension, also while the world stands still: disks of the pool that are not ONLINE. Pool open. */
uint32_t rig_away(const struct rig *g);
/* Disks may join and leave: which of the rig's are the pool's now, where each stands in its table (-1: nowhere), and back. */
uint32_t rig_members(const struct rig *g);
int rig_member(const struct rig *g, unsigned disk);
unsigned rig_disk_of(const struct rig *g, unsigned index);
/* How many disks beside those that are away or `hurt` (bits) may be lost now without losing anything: by the claim if it still
 * holds, else by the layouts alone, which tolerate so many losses in all. Negative: too much is hurt already. */
int rig_spare(const struct rig *g, const struct rig_claim *c, uint32_t hurt, unsigned tolerates);
/* May one more be hurt while the pool goes on, and makes groups on what is left? */
bool rig_may_hurt_one(const struct rig *g, const struct rig_claim *c, uint32_t hurt, unsigned tolerates);

/* Where a sector of a volume lies, for damage and looks beside the engine. -ENOENT: nowhere, nothing is mapped there. */
struct rig_place {
	struct raid_desc desc;
	struct raid_place at;
};
int rig_co_place(struct rig *g, const char *volume, uint64_t off_bytes, struct rig_place *out) __must_check;
static inline unsigned rig_place_disk(const struct rig_place *p, int col) { return p->desc.cols[col].disk; } /* of the rig */
static inline uint64_t rig_place_off(const struct rig_place *p, int col)
{
	return p->desc.cols[col].off_bytes + p->at.col_off_bytes;
}

/* ---- one request ---- */

enum rig_op { RIG_READ, RIG_WRITE, RIG_ZERO, RIG_DISCARD, RIG_FLUSH };

/* Coroutine on the volume's home: does it, with the model. Range inside the bdev, whole blocks. Returns its result. */
int rig_co_io(struct rig *g, struct model_vol *v, struct bdev *b, enum rig_op op, uint64_t off_bytes, uint64_t len_bytes,
	      unsigned flags);
/* Is this result one that may be? Else a failure. */
bool rig_result_is_fine(struct rig *g, const struct model_vol *v, int r, const char *what);
/* Coroutine on reactor 0. Under the name that it has, or gets, meanwhile. */
int rig_co_attach(struct rig *g, const struct model_vol *v, struct ashlar_attach **out);
/* Coroutine on reactor 0: attaches, reads all of it, detaches. */
int rig_co_read_all(struct rig *g, struct model_vol *v);
/* Coroutine on reactor 0: attaches, does one request, detaches. */
int rig_co_io_once(struct rig *g, struct model_vol *v, enum rig_op op, uint64_t off_bytes, uint64_t len_bytes, unsigned flags);

/* ---- management, with the model; coroutine on reactor 0 ---- */

int rig_co_vol_create(struct rig *g, const char *name, uint64_t size_bytes, const char *layout, uint64_t full_wait_ns);
int rig_co_vol_delete(struct rig *g, struct model_vol *v);
int rig_co_vol_rename(struct rig *g, struct model_vol *v, const char *name);
/* What has come through is what may have. */
void rig_settle_limits(struct rig *g, struct model_vol *v, const struct ashlar_limits *l);
/* So many I/Os per second, from which other limits follow; 0: none. */
int rig_co_vol_limit(struct rig *g, struct model_vol *v, uint32_t limits);
int rig_co_vol_resize(struct rig *g, struct model_vol *v, uint64_t size_bytes);
/* Who may see its export: a user of this number; 0: everybody. */
int rig_co_vol_rule(struct rig *g, struct model_vol *v, uint32_t rule);
/* A stopped pool leaves open what happened: the next opening tells. True: the model must not be told a result. */
bool rig_is_unknown(struct rig *g, int r, const struct err *e, const char *what, const char *name);

/* A range, of clusters, is shared with another place: of another volume, or the same. What is not aligned is left out. */
int rig_co_vol_share(struct rig *g, struct model_vol *from, uint64_t from_bytes, struct model_vol *to, uint64_t to_bytes, uint64_t len_bytes);
/* What a frontend keeps with it: bytes that follow from a number; 0: none. */
int rig_co_vol_note(struct rig *g, struct model_vol *v, uint32_t note);
/* Coroutine. What has come through is what may have. */
void rig_co_settle_note(struct rig *g, struct ashlar_pool *p, struct model_vol *v);

/* ---- adopted volumes, likewise: sim_adopt.c ---- */

/* After the pool's disks, before the first world. */
void rig_sources_add(struct rig *g, struct rng *rng);
/* Of any contents; nothing if the source that it chooses is needed still. */
int rig_co_vol_adopt(struct rig *g, const char *name, uint64_t size_bytes, const char *layout, uint64_t full_wait_ns, struct rng *rng);
/* Not all of it is here: its size stays, and it has no snapshots. Never true again once it was not. */
bool rig_is_adopted(const struct rig *g, const struct model_vol *v);

/* ---- snapshots and clones, likewise: sim_family.c. They do nothing where the volume is being changed by somebody else. ---- */

#define RIG_SNAPS_MAX 24
#define RIG_POINT_NAME (2 * MODEL_NAME_MAX + 4)
/* VOLUME or VOLUME@SNAP, as of now. */
const char *rig_point_name(const struct rig *g, const struct model_vol *v, char buf[RIG_POINT_NAME]);
/* May something be done with the volume, or that of the snapshot, now? */
bool rig_is_free(const struct rig *g, const struct model_vol *v);
/* One of each of v[n], at one instant, all with this name; the second and further ones of a volume with a number behind it. */
int rig_co_snap_create(struct rig *g, struct model_vol *const *v, unsigned n, const char *name);
int rig_co_snap_delete(struct rig *g, struct model_vol *const *snaps, unsigned n);
int rig_co_snap_rename(struct rig *g, struct model_vol *snap, const char *name);
int rig_co_rollback(struct rig *g, struct model_vol *snap);
int rig_co_clone(struct rig *g, struct model_vol *snap, const char *name);
/* Pool open, volumes settled: which snapshots came through. */
void rig_co_settle_snaps(struct rig *g);

#endif
