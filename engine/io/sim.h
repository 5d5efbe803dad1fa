/*
 * sim.h: the simulated world. All reactors in one thread, scheduled by a seed; simulated clock; simulated disks with a
 * volatile cache and every fault of RELIABILITY.md section 2.1.
 *
 * Disks live in a `struct sim_disks` that outlives worlds: a crash drops the world (sim_world_destroy) and applies the
 * power cut to the disks (sim_disks_power_cut); then a new world opens the same disks. The same seed and the same calls
 * give the same run, to the instruction: sim_trace_hash() is equal.
 *
 * A disk's requests: the payload moves at a random moment between submission and completion, latencies are random, so
 * completions come in any order. A read buffer is filled with junk at submission. A write may persist from submission on.
 * A flush makes durable what was completed before it was submitted, FUA its own request. A failed write may have written
 * some of its granules. Discard turns whole 4 KiB pages to zeros or leaves them, by the seed.
 */
#ifndef ENGINE_IO_SIM_H
#define ENGINE_IO_SIM_H

#include "engine/base/rng.h"
#include "engine/io/disk.h"

#define SIM_DISKS_MAX 64

/* ---- disks ---- */

struct sim_disk_conf {
	uint64_t size_bytes;
	uint32_t block_bytes; /* 512 or 4096; the granule of loss is always 512 */
	bool is_remote; /* opening it in a coroutine takes a while, during which anything may happen, and as long to fail */
};

/* What a power cut does to writes that no flush has covered. Each granule of each such write, in random order. */
enum sim_cut {
	SIM_CUT_RANDOM,	 /* each kept or lost by coin; per disk and cut the coin's bias is random, and whether it is thrown per
			  * granule (torn everywhere), per 4 KiB page or per write (stale but valid) */
	SIM_CUT_NONE,	 /* nothing of it persists */
	SIM_CUT_ALL,	 /* all persists */
	SIM_CUT_PREFIX,	 /* per disk, a random prefix in submission order */
	SIM_CUT_ALL_BUT_ONE, /* of all disks' granules, or (by coin) of all disks' writes */
	SIM_CUT_ONLY_ONE,
};

/* Per-disk rates are in 1/65536 per operation; 0 = never. */
struct sim_faults {
	uint32_t read_error, write_error, flush_error; /* -EIO once */
	uint32_t stall;		/* completes after stall_ns more */
	uint64_t stall_ns;
	uint64_t calm_from_bytes, calm_end_bytes; /* if not 0, 0: reads and writes that begin there do not stall, and no flush */
	uint32_t lost_write;	/* success reported, nothing written */
	uint32_t misdirected;	/* written at another place of the disk */
	uint32_t bit_rot;	/* a bit flips in one granule of what is being read, and stays */
	bool gone;		/* every request ends with -ENODEV, opening too */
	bool lying_flush;	/* flush and FUA complete, nothing becomes durable */
	bool hang;		/* nothing completes until cleared */
	bool deleted;		/* a file without a name: it works, but disk_co_alive() knows */
};

struct sim_disks;
struct sim_disks *sim_disks_create(uint64_t seed);
void sim_disks_destroy(struct sim_disks *ds);
/* Adds a disk at `path` (any name; disk_co_open() finds it by it). Contents are zeros, stored sparsely. Returns its index. */
unsigned sim_disks_add(struct sim_disks *ds, const char *path, const struct sim_disk_conf *conf);
void sim_disk_remove(struct sim_disks *ds, unsigned i); /* disk_co_open() of its path is -ENOENT until put back */
void sim_disk_put_back(struct sim_disks *ds, unsigned i);
void sim_disk_set_path(struct sim_disks *ds, unsigned i, const char *path);
struct sim_faults *sim_disk_faults(struct sim_disks *ds, unsigned i); /* to read and set */
/* A latent error: reads of the range fail with -EIO until it is written. */
void sim_disk_bad_range(struct sim_disks *ds, unsigned i, uint64_t off_bytes, uint64_t len_bytes);
void sim_disk_clear_bad(struct sim_disks *ds, unsigned i); /* no latent errors any more */
/* Foreign signature that disk_probe() reports; NULL: none. */
void sim_disk_set_signature(struct sim_disks *ds, unsigned i, const char *what);
/* Direct access to the durable image, beside the engine: for damage and checks. What is poked is durable at once and seen
 * by later reads; un-flushed writes of the same granules are forgotten. */
void sim_disk_peek(struct sim_disks *ds, unsigned i, uint64_t off_bytes, void *buf, size_t len);
void sim_disk_poke(struct sim_disks *ds, unsigned i, uint64_t off_bytes, const void *buf, size_t len);
/* Has the 512 bytes at off_bytes been written and not flushed? */
bool sim_disk_is_volatile(struct sim_disks *ds, unsigned i, uint64_t off_bytes);
void sim_disk_resize(struct sim_disks *ds, unsigned i, uint64_t size_bytes);
uint64_t sim_disk_size(struct sim_disks *ds, unsigned i);
bool sim_disk_is_idle(const struct sim_disks *ds, unsigned i); /* nothing in flight */
/* The disk's contents become what the same disk held durably in `from`, an older clone of the set: somebody has put an old
 * copy of it back. The set itself: the disk alone has lost power. NULL: zeros, as a new disk of that size. Its cache is empty
 * then, and who had it open has a handle of a device that is gone. Nothing is in flight there. */
void sim_disk_restore(struct sim_disks *ds, unsigned i, const struct sim_disks *from);
/* A deep copy of the whole set (disks, caches, faults): crash exploration forks states. Copy on write, so it costs a few
 * microseconds. Locks and the stop point are not copied. With a world running on the original, its writes in flight are in
 * flight in the copy too. The copy may be used from another thread. */
struct sim_disks *sim_disks_clone(const struct sim_disks *ds);
/* Power cut now: in-flight and completed-unflushed writes persist by `cut`; caches empty; kept memory (keep.h) is gone; the stop point is cleared. The
 * worlds using it must have been destroyed or be dropped right after without running. */
void sim_disks_power_cut(struct sim_disks *ds, enum sim_cut cut, struct rng *rng);
/* Counts operations since creation, over all disks: the coordinate of crash points. */
uint64_t sim_disks_n_events(const struct sim_disks *ds); /* submissions of writes and flushes + their completions */
uint64_t sim_disk_n_ops(const struct sim_disks *ds, unsigned i, enum io_op op);
uint64_t sim_disk_bytes_written(const struct sim_disks *ds, unsigned i);
/* When n_events reaches this, sim_run() returns -ECANCELED at once: what the step that is running still submits does not
 * reach the disks (unless the stop point is moved and the world runs on). UINT64_MAX: never. */
void sim_disks_stop_at(struct sim_disks *ds, uint64_t n_events);
uint64_t sim_disks_hash(const struct sim_disks *ds); /* of the durable images */

/* ---- world ---- */

struct sim_options {
	uint64_t seed;
	unsigned n_reactors;	 /* 1..REACTORS_MAX */
	unsigned co_requests_max; /* 0: default */
	uint64_t latency_min_ns, latency_max_ns; /* of disk operations; 0, 0: 20 us .. 200 us */
	uint64_t disk_bps; /* what each disk moves per second, one request after the other; 0: any amount at once */
};

struct world *sim_world_create(const struct sim_options *o, struct sim_disks *disks);
/* Drops everything where it stands: coroutines without unwinding, open disks and their locks, memory of the world. Payloads
 * in flight are read one last time: call it before alloc_track_drop(). Without a power cut after it (a crash of the process
 * alone), whoever opens a disk next finds each write that was in flight done or, if it had not begun, never done. */
void sim_world_destroy(struct world *w);

/* Runs fn(arg) in a service coroutine on reactor 0 and drives the world until it returns (result in *result, returns 0),
 * or the stop point is hit (-ECANCELED), or nothing can happen any more while it waits (-EDEADLK; prints what
 * there is to know), or max_ns of simulated time have passed (-ETIME; 0: no limit). */
int sim_run(struct world *w, int (*fn)(void *arg), void *arg, int *result, uint64_t max_ns);
/* Runs until idle or for ns of simulated time, whichever is first. */
void sim_run_for(struct world *w, uint64_t ns);
/* From inside: the whole process stands still for so long. Disks go on; what they have done meanwhile is all there at once. */
void sim_pause(struct world *w, uint64_t ns);
uint64_t sim_trace_hash(const struct world *w);
struct rng *sim_rng(struct world *w);

/* A crash leaves the dropped instance's heap behind: bracket the instance's life with alloc_track_begin() and
 * alloc_track_drop() (base.h). Disks and worlds themselves are not allocated through it. */

#endif
