/*
 * crash_run.h: the crash explorer: what its files share.
 *
 * A workload is a short sequence of operations on a small pool, known by its number. It is run once to count the events of
 * its disks and once more with stops at the events that were chosen; at each, disks and model are forked, the power is cut
 * in several ways, and the pool is opened and looked at: one such fork is a state. Some states lose a disk as well, some
 * crash again while they recover.
 */
#ifndef TESTS_CRASH_CRASH_RUN_H
#define TESTS_CRASH_CRASH_RUN_H

#include "engine/base/units.h"
#include "tests/lib/sim_rig.h"

#define OPS_MAX 8

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
	struct workload wl;
	unsigned tolerates, victim;
	unsigned n_running;
	bool done;
	int result;
	/* only this state */
	bool one;
	uint64_t one_point;
	unsigned one_variant;
	unsigned points_max, variants;
	struct stats st;
	/* the state being explored, for whoever has to report it */
	uint64_t point;
	unsigned variant;
	char what[160];
};

/* ---- crash_workload.c ---- */
unsigned workload_n_exhaustive(void);
/* Fills in c->wl and the shape of c->rig, with fresh disks and model, from the number alone. */
void workload_make(struct crash_run *c, uint64_t number);
/* Brings pool and volumes into being, up to where the recorded run begins. */
void workload_prepare(struct crash_run *c);
/* Coroutine on reactor 0: the recorded run. */
int workload_co_run(void *arg);
void workload_describe(const struct workload *w, const struct rig *g, char *buf, size_t len);

/* ---- crash_explore.c ---- */
/* One state: the fork is consumed. False: something is wrong, and has been said. */
bool explore_state(struct crash_run *c, const struct sim_disks *disks, const struct model *m, uint64_t point, unsigned variant);

#endif
