/*
 * sim_log.h: what a simulated disk's volatile cache holds: writes that are not known to be durable. Private to the
 * simulated world.
 *
 * Invariant: the disk's cache (what reads see) is its durable image with the *applied* writes of the log laid over it, in
 * log order. So a power cut that keeps any subset of the log's granules, laid over the durable image in log order, gives
 * each granule its old value or any of the un-flushed ones, and nothing else.
 *
 * A write enters the log when its payload is taken (sim_req_apply()), is marked done when it completes, and leaves when a
 * flush submitted after that, or its own FUA, makes it durable: then whatever older value of the same granules is still in
 * the log (of a write in flight) is dropped too, as a disk would never write it back after the newer one.
 *
 * Unapplied writes stand at the end: in flight when their world was dropped, their payload taken at that moment.
 */
#ifndef ENGINE_IO_SIM_LOG_H
#define ENGINE_IO_SIM_LOG_H

#include "engine/base/rng.h"
#include "engine/io/sim.h"
#include "engine/io/sim_store.h"

struct sim_log_ent {
	uint64_t idx;
	struct sim_page *page; /* NULL: zeros */
	uint32_t mask;	       /* granules that this write has (still) in the log */
};

struct sim_log_write {
	uint64_t id;
	uint64_t submit_seq;
	uint64_t done_seq; /* 0: in flight */
	uint64_t lo, hi;   /* page numbers lie in [lo, hi] */
	size_t first, n;   /* entries */
	bool applied;
};

struct sim_log {
	struct sim_pool *pool;
	struct sim_log_write *w; /* ascending ids */
	struct sim_log_ent *e;
	size_t n_w, cap_w, n_e, cap_e, n_dead; /* n_dead: entries of writes that have left */
	uint64_t next_id;
};

void sim_log_init(struct sim_log *l, struct sim_pool *p);
void sim_log_fini(struct sim_log *l);
void sim_log_clear(struct sim_log *l);
void sim_log_copy(struct sim_log *dst, const struct sim_log *src); /* dst: initialised, empty, same pool */

/* Starts a write; the entries added next are its. Returns its id, never 0. */
uint64_t sim_log_begin(struct sim_log *l, uint64_t submit_seq, bool applied);
/* Takes over the reference of pg. */
void sim_log_add(struct sim_log *l, uint64_t idx, struct sim_page *pg, unsigned mask);
void sim_log_done(struct sim_log *l, uint64_t id, uint64_t done_seq);

/* Make durable: one write; all that were done by `cover`. */
void sim_log_commit_one(struct sim_log *l, struct sim_tree *durable, uint64_t id);
void sim_log_commit_done(struct sim_log *l, struct sim_tree *durable, uint64_t cover);

/* Forgets what the log has of these granules. */
void sim_log_punch(struct sim_log *l, uint64_t idx, unsigned mask);
/* Forgets pages >= idx. */
void sim_log_truncate(struct sim_log *l, uint64_t idx);
/* The newest applied entry with that granule, NULL if none. Valid until the log changes. */
struct sim_log_ent *sim_log_newest(struct sim_log *l, uint64_t idx, unsigned granule);

/* After a world was dropped without a power cut: what was in flight ends now, done or (if it was not applied) never done,
 * by the coin. */
void sim_log_settle(struct sim_log *l, struct sim_tree *cache, struct rng *rng, uint64_t done_seq);

/* ---- power cut ---- */

enum sim_unit { SIM_UNIT_GRANULE, SIM_UNIT_PAGE, SIM_UNIT_WRITE };

struct sim_cut_plan {
	enum sim_cut cut;
	enum sim_unit unit; /* that is kept or lost as a whole */
	unsigned bias;	    /* RANDOM: 0..256, of 256 kept */
	uint64_t one;	    /* ALL_BUT_ONE, ONLY_ONE: the unit, counted from this log's first; may lie beyond its end */
};

uint64_t sim_log_count(const struct sim_log *l, enum sim_unit unit);
/* Keeps by plan, lays what is kept over durable, leaves the log empty. */
void sim_log_cut(struct sim_log *l, struct sim_tree *durable, const struct sim_cut_plan *plan, struct rng *rng);

#endif
