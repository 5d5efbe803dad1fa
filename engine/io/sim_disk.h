/*
 * sim_disk.h: simulated disks from inside: the state of a disk, and the life of a request on it. Private to the simulated
 * world; the promise is in sim.h.
 *
 * A request is submitted (faults are chosen), applied at a random moment (the payload is taken or the buffer filled; a
 * flush makes durable what was completed before its submission) and finished (FUA makes durable; the result). The disks
 * know nothing of time and reactors; when these three happen is the world's decision.
 */
#ifndef ENGINE_IO_SIM_DISK_H
#define ENGINE_IO_SIM_DISK_H

#include "engine/io/sim.h"
#include "engine/io/sim_log.h"
#include "engine/io/sim_store.h"

struct sim_bad {
	uint64_t off_bytes, end_bytes;
};

struct sim_disk {
	struct sim_disks *set;
	unsigned index;
	char *path, *signature;
	uint64_t size_bytes;
	uint32_t block_bytes;
	bool removed, is_remote;
	struct sim_faults faults;
	struct sim_bad *bad;
	size_t n_bad, cap_bad;
	struct sim_tree durable, cache;
	struct sim_log log;
	uint64_t seq;	      /* orders submissions and completions on this disk */
	struct list inflight; /* requests of live worlds, in submission order */
	unsigned n_writers, n_readers; /* locks held */
	unsigned incarnation; /* grows with sim_disk_restore(): older handles are of a device that is no more */
	uint64_t n_ops[IO_ZERO + 1], bytes_written;
};

/* Kept memory (keep.h): until the power is cut. */
struct sim_keep {
	struct sim_keep *next;
	char *name;
	void *mem; /* NULL: forgotten */
	size_t bytes;
};

struct sim_disks {
	struct sim_pool *pool;
	struct sim_keep *keeps;
	struct rng rng; /* faults and what is left to the disk's choice; not the schedule */
	unsigned n;
	unsigned n_worlds;
	struct sim_disk *disks[SIM_DISKS_MAX];
	uint64_t n_events, stop_at;
};

enum sim_fate { SIM_FATE_GOOD, SIM_FATE_ERROR, SIM_FATE_LOST };

struct sim_req {
	struct list link; /* in disk->inflight; alone after a power cut */
	struct sim_disk *disk;
	struct io *io;
	uint64_t off_bytes; /* where it really goes */
	uint64_t submit_seq;
	uint64_t cover;	 /* flush: completions up to here */
	uint64_t log_id; /* 0: nothing in the log */
	int result;
	enum sim_fate fate;
	bool applied, rot;
	bool refused; /* does not reach the disk */
	uint64_t stall_ns;
	/* the world's */
	uint64_t at_ns, done_ns, tie;
	struct reactor *reactor;
	struct disk *handle;
};

static inline bool sim_op_changes(unsigned op)
{
	return op == IO_WRITE || op == IO_ZERO || op == IO_DISCARD;
}

static inline bool sim_disks_is_stopped(const struct sim_disks *ds)
{
	return ds->n_events >= ds->stop_at;
}

/* NULL if there is none at path, or it is removed. */
struct sim_disk *sim_disk_find(struct sim_disks *ds, const char *path);

/* q: zeroed, with disk and io. Poisons the buffer of a read. */
void sim_req_submit(struct sim_req *q);
void sim_req_apply(struct sim_req *q);
/* Applies if that has not been; returns the result. The request is no longer in flight, io is not touched again. */
int sim_req_finish(struct sim_req *q);
/* Its world ends: what it would have written goes to the log, unapplied. */
void sim_req_drop(struct sim_req *q);
/* The same into the log of `to`, a copy of the request's disk; the request goes on. */
void sim_req_capture(const struct sim_req *q, struct sim_disk *to);
/* sim_keep.c */
void sim_keeps_clone(struct sim_disks *to, const struct sim_disks *from);
void sim_keeps_drop(struct sim_disks *ds);
/* Whoever starts to use a disk that nobody writes: requests of dropped worlds end. */
void sim_disk_settle(struct sim_disk *d);

bool sim_disk_is_bad(const struct sim_disk *d, uint64_t off_bytes, uint64_t len_bytes);
void sim_disk_bad_clear(struct sim_disk *d, uint64_t off_bytes, uint64_t len_bytes);

#endif
