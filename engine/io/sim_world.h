/*
 * sim_world.h: the simulated world from inside: sim_world.c schedules, sim_dev.c opens disks and takes requests. Private.
 */
#ifndef ENGINE_IO_SIM_WORLD_H
#define ENGINE_IO_SIM_WORLD_H

#include "engine/io/sim.h"
#include "engine/io/sim_disk.h"

/* A growing array of requests: a heap by time, or a bag. */
struct sim_reqs {
	struct sim_req **v;
	size_t n, cap;
};

struct sim_req_slab;

struct sim_world {
	struct world world; /* first */
	struct sim_disks *disks;
	struct rng rng;
	uint64_t now_ns, wall_base_ns;
	uint64_t latency_min_ns, latency_span_ns, disk_bps;
	uint64_t trace;
	uint64_t n_ties; /* orders requests of one nanosecond */
	struct sim_reqs heap; /* by at_ns */
	struct sim_reqs due;  /* at_ns has come, in no order: the seed chooses */
	struct sim_reqs hung; /* of disks that hang */
	struct list parked;   /* submitted after the stop point: have not reached the disk */
	struct list handles;  /* open disks */
	struct list runs;     /* what sim_run() started */
	struct list free_reqs;
	struct sim_req_slab *slabs;
	struct reactor *reactors;
};

static inline struct sim_world *sim_world_of(const struct world *w)
{
	return (struct sim_world *)(uintptr_t)w;
}

/* Everything that decides the run goes in; never a pointer. */
static inline void sim_trace(struct sim_world *w, uint64_t v)
{
	w->trace = ((w->trace << 7 | w->trace >> 57) ^ v) * 0x9e3779b97f4a7c15ULL;
}

void sim_reqs_push(struct sim_reqs *a, struct sim_req *q);

/* ---- sim_dev.c ---- */
/* sim_keep.c */
int sim_keep_open(struct world *w, const char *name, bool read_only, void **mem, size_t *bytes);
int sim_keep_create(struct world *w, const char *name, size_t bytes, void **mem);
void sim_keep_close(struct world *w, const char *name, void *mem, size_t bytes, bool forget);
int sim_dev_co_open(struct world *w, const char *path, unsigned flags, struct disk **out, struct err *e);
int sim_dev_probe(struct world *w, const char *path, char *what, size_t len, struct err *e);
/* The next moment of a request has come. True: it has been completed (and is gone). */
bool sim_dev_step(struct sim_world *w, struct sim_req *q);
void sim_dev_unpark(struct sim_world *w);
/* Drops requests, then handles and their locks. */
void sim_dev_fini(struct sim_world *w);

/* ---- sim_world.c ---- */
/* Will be stepped at q->at_ns. */
void sim_world_schedule(struct sim_world *w, struct sim_req *q);

#endif
