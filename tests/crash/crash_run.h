/*
 * crash_run.h: the crash explorer: what its files share.
 *
 * A workload is a short sequence of operations on a small pool, known by its family and number. It is run once to count the
 * events of its disks and once more with stops at the events that were chosen; at each, disks and model are forked, the
 * power is cut in several ways, disks are taken away, and the pool is opened and looked at: one such fork is a state. Some
 * states crash again while they recover.
 *
 *   crash_main.c      the command line; each workload in a process of its own
 *   crash_workload.c  pools, and how one is prepared
 *   crash_ops.c       operations
 *   crash_family.c    those that concern snapshots and clones
 *   crash_transfer.c  send and receive
 *   crash_explore.c   from a fork to a verdict
 *
 * The family `mixed` has all layouts, and loses a disk now and then; the family `parity` has raid5 and raid6 only, and at
 * every point goes through all sets of disks that may be missing there.
 */
#ifndef TESTS_CRASH_CRASH_RUN_H
#define TESTS_CRASH_CRASH_RUN_H

#include "engine/base/units.h"
#include "tests/lib/sim_rig.h"

#define OPS_MAX 8
#define DISK_BYTES (10 * MIB)
#define SETS_MAX 24 /* of missing disks at one point; where there are more, so many at random */

enum base { /* how the pool is when the workload opens it */
	BASE_CLEAN,
	BASE_CRASHED, /* not closed: something to replay and to resync */
	BASE_STALE,   /* a disk has missed writes and is back */
	BASE_LAPS,    /* the journal has gone round, full of large records */
	BASE_N,
};

struct workload {
	uint64_t number;
	unsigned shape;
	enum base base;
	unsigned ops[OPS_MAX], n_ops;
	bool two; /* two clients */
	bool close;
};

struct stats {
	uint64_t states, missing, second, points, workloads;
};

struct crash_run {
	struct rig rig; /* the recorded run's */
	struct rng rng;
	bool parity; /* the family */
	struct workload wl;
	unsigned tolerates, victim;
	bool spare; /* made while the last disk was away: it has room for what a rebuild moves */
	uint32_t hurt; /* disks that may have missed something */
	struct rig_claim claim;
	unsigned n_running, n_names;
	bool done, watch_ends;
	int result;
	/* only this state */
	bool one;
	uint64_t one_point;
	unsigned one_variant;
	unsigned points_max, variants; /* points_max 0: every event */
	bool patient;		       /* a workload may take long */
	struct stats st;
	/* the state being explored, for whoever has to report it */
	uint64_t point;
	unsigned variant;
	char what[200];
};

/* ---- crash_workload.c ---- */
/* Fills in c->wl and the shape of c->rig, with fresh disks and model, from family and number alone. */
void workload_make(struct crash_run *c, uint64_t number);
/* Brings pool and volumes into being, up to where the recorded run begins. */
void workload_prepare(struct crash_run *c);
/* Coroutine on reactor 0: the recorded run. */
int workload_co_run(void *arg);
/* The workloads that are this operation alone, on every pool: *first and the following. Returns how many; 0: there is none of that name. */
unsigned workload_find_op(const struct crash_run *c, const char *name, uint64_t *first);
void workload_describe(const struct workload *w, const struct rig *g, char *buf, size_t len);

/* ---- crash_ops.c ---- */
/* Operations that a workload of one operation may have, i-th of n; and those that random ones are made of. */
unsigned ops_n_alone(const struct crash_run *c);
unsigned ops_alone(const struct crash_run *c, unsigned i);
unsigned ops_random(struct crash_run *c);
bool ops_moves_disks(unsigned op); /* they want one more disk */
bool ops_wants_other(unsigned op); /* a second pool */
unsigned ops_large(void); /* for BASE_LAPS */
uint64_t ops_cache_bytes(unsigned op); /* of metadata, that it wants */
const char *ops_name(unsigned op);
/* Coroutines. */
int ops_co_run(struct crash_run *c, unsigned op);
int ops_co_write_large(struct crash_run *c);
int ops_co_wr(struct rig *g, struct model_vol *v, enum rig_op op, uint64_t off, uint64_t len, unsigned flags);
struct model_vol *ops_vol(struct rig *g, unsigned k); /* k-th live volume, or NULL */

/* ---- crash_family.c ---- */
enum family_op { FAMILY_SNAPS, FAMILY_CLONES, FAMILY_ROLLBACKS, FAMILY_MOVES, FAMILY_PASSES, FAMILY_TRANSFERS };
/* Coroutines. */
int family_co_run(struct crash_run *c, enum family_op op);
/* A snapshot of v[n]; NULL: there is none. */
struct model_vol *family_co_take(struct crash_run *c, struct model_vol *const *v, unsigned n);
/* What a snapshot makes different: parts of clusters, whole ones, cleared ones, those that nobody had. */
void family_co_writes(struct crash_run *c, struct model_vol *v);
/* After a crash and a look: some snapshots are deleted, or rolled back to. */
void family_co_after(struct rig *g, struct rng *rng);

/* ---- crash_transfer.c ---- */
/* Coroutines. */
int transfer_co_run(struct crash_run *c);
/* After a crash and a look: some of what is kept of streams goes on. */
void transfer_co_after(struct rig *g, struct rng *rng);

/* ---- crash_explore.c ---- */
/* How many variants there are of the point where the recorded run stands. */
unsigned explore_variants(const struct crash_run *c);
/* One state: a fork of the recorded run. False: something is wrong, and has been said. */
bool explore_state(struct crash_run *c, uint64_t point, unsigned variant);

#endif
