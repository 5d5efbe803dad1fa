/*
 * life.h: the whole life of a disk in the pool: leaving, being rebuilt elsewhere, coming back; and the background work that
 * goes with it. Private to engine/pool; home reactor unless a comment says otherwise.
 *
 *   events.c      what has happened
 *   jobs.c        what is under way, how far, how fast
 *   pace.c        how fast it may go
 *   disks.c       commands: disk fail, disk online
 *   watch.c       rounds over all disks: vanished, overwritten, back
 *   ours.c        is a disk that answers still ours?
 *   late.c        I/O on disks that may never answer
 *   returning.c   a disk is taken into service again
 *   resync.c      what a disk has missed is copied to it
 *   transition.c  a group's way from one descriptor to another
 *   move.c        one column of a group moves to another disk
 *   rebuild.c     all columns of lost disks do
 *   scrub.c       everything is read and compared; scrub_resolve.c: what of it matters
 *   settings.c    properties of the pool
 *   policy.c      snapshots that are taken and deleted by a schedule
 *   health.c      what redundancy there is now
 *   move_family.h families of volumes move to another layout or pool
 */
#ifndef ENGINE_POOL_LIFE_H
#define ENGINE_POOL_LIFE_H

#include "engine/pool/pool_internal.h"

/* ---- events.c ---- */
struct event_log *event_log_create(void);
/* Coroutine. Whoever waits for events gets an answer first. */
void event_log_co_destroy(struct event_log *l);

/* ---- jobs.c ---- */
#define JOB_SAMPLES 6 /* one a second */

struct pool_job {
	struct list link; /* life->jobs, oldest first */
	struct ashlar_pool *p;
	struct ashlar_job_info info;
	bool stop, pause; /* somebody has asked for it */
	bool yields;	/* to what restores redundancy */
	unsigned users; /* hold it beyond the list */
	struct {
		uint64_t at_ns, done_bytes;
	} samples[JOB_SAMPLES];
	unsigned n_samples; /* taken so far */
};

/* Starts one, RUNNING; an event. The job is alive until it has been ended, and some time after. */
struct pool_job *pool_job_start(struct ashlar_pool *p, enum ashlar_job_kind kind, const char *fmt, ...) __printf_like(3, 4);
void pool_job_progress(struct pool_job *j, uint64_t bytes);
/* It cannot go on now, for this reason; the next progress or "" lets it run again. */
void pool_job_waits(struct pool_job *j, const char *fmt, ...) __printf_like(2, 3);
/* The sentence is its result; an event. */
void pool_job_end(struct pool_job *j, enum ashlar_job_state state, const char *fmt, ...) __printf_like(3, 4);

/* ---- pace.c ---- */
#define PACE_BUCKETS THIN_LATENCY_BUCKETS

struct pool_pace {
	uint64_t rate_bps;    /* what clients let us have; UINT64_MAX: all */
	uint64_t hurt_bps; /* the rate at which clients last suffered; 0: never */
	int64_t tokens;	      /* bytes */
	uint64_t refilled_ns;
	uint64_t base_ns;     /* smoothed p99 of clients' requests without background work; 0: not known */
	uint64_t looked_ns;   /* when that was last looked for */
	uint64_t window_ns;   /* when the present window began */
	uint64_t bytes;	      /* let through in it */
	bool was_active;      /* and some in the one before */
	uint64_t used_ns;     /* when background work last asked */
	uint64_t quiet_ns;    /* held back since then, to see how clients fare without us; 0: not */
	bool settled;	      /* what was under way then has ended */
	uint64_t counts[PACE_BUCKETS]; /* of all reactors, as of the beginning of the window */
	struct timer timer;
	struct co_queue waiters;
};

void pool_pace_start(struct ashlar_pool *p);
void pool_pace_stop(struct ashlar_pool *p);
/* Coroutine. Background work calls it before it copies so many bytes. -ECANCELED: the pool is closing. */
int pool_co_pace(struct ashlar_pool *p, uint64_t bytes) __must_check;
/* How much background work copies at once now, so that clients wait no longer for it than they must: a multiple of 64 KiB, or `most`. */
uint64_t pool_pace_unit(const struct ashlar_pool *p, uint64_t most);

/* ---- transition.c ---- */
/* Coroutine. The group is the caller's to change, until it says otherwise: it stays in memory, is not destroyed nor cleaned,
 * and nobody else changes its descriptor. Waits for who has it. -ENOENT: it is gone; -ECANCELED: the pool is closing. */
int pool_co_group_claim(struct ashlar_pool *p, uint64_t group, struct pgroup **out) __must_check;
void pool_group_unclaim(struct ashlar_pool *p, struct pgroup *g);
/* Coroutine. Data groups are homed from now on, and have a target if one is given (col == n_cols: one more copy). */
void pool_co_transition_begin(struct ashlar_pool *p, struct pgroup *g, const struct raid_col *target, unsigned col);
/* Coroutine. Neither any more; g->desc may be a new one. */
void pool_co_transition_end(struct ashlar_pool *p, struct pgroup *g);

/* ---- late.c ---- */
#define LABEL_READ_BYTES 4096
/* Coroutine, under p->labels. One generation to every disk that is there, results by disk: 0, an error, -ETIMEDOUT after
 * settings.timeout_ns. Nobody waits for FAILED disks; one that has not taken its last label yet gets none. -ERR_LOCKED: a second daemon
 * writes labels, and nothing has been sent. */
int pool_co_labels_send(struct ashlar_pool *p, int *results) __must_check;
/* Coroutine, under p->labels. The label as it is, to one disk alone. */
int pool_co_label_send_one(struct ashlar_pool *p, unsigned disk) __must_check;
/* Coroutine. Reads LABEL_READ_BYTES; -ETIMEDOUT after max_ns. The disk is there. */
int pool_co_label_peek(struct ashlar_pool *p, unsigned disk, uint64_t off_bytes, void *buf, uint64_t max_ns) __must_check;
struct label_load {
	struct disk *handle;
	struct label label;
	unsigned damaged; /* as label_co_read() has it */
	uint8_t front[LABEL_READ_BYTES]; /* what begins where that label is in the front area */
	bool end_is_blank; /* label_co_end_is_blank() */
	bool is_taken;	  /* it does not answer: the handle is closed when it does, or never */
};
/* Coroutine. The label of a disk that is not in use, by a handle that it need not have yet; -ETIMEDOUT after timeout_ns. */
int pool_co_label_load(struct ashlar_pool *p, unsigned disk, struct label_load *l, struct err *e) __must_check;
/* Coroutine. Zeros the label areas of a disk that is no member any more, and closes it, at the latest when it answers. */
int pool_co_disk_wipe(struct ashlar_pool *p, unsigned disk, struct disk *handle) __must_check;
/* For how long the oldest of our own requests has been with the disk; 0: there is none. */
uint64_t pool_own_late_ns(const struct ashlar_pool *p, unsigned disk);
/* Coroutine. Nothing of the disk is with the kernel, of any handle it had. */
bool pool_co_disk_is_idle(struct ashlar_pool *p, unsigned disk);
/* Coroutine, when the pool is closed, nobody uses it any more and the RAID layer is still there: waits for what is under way,
 * as long as a disk may take, and leaves open what is not idle even then. */
void pool_co_disks_settle(struct ashlar_pool *p);

/* ---- move.c ---- */
/* Coroutine. The group is claimed. The column goes to another disk; it is durable there, and the old extents are free, on 0.
 * -ERR_POOL_FULL: no disk has room that has no column of the group yet; -ECANCELED: the pool is closing; else some block
 * cannot be read from any column (or the pool has stopped), and nothing has changed. */
int pool_co_column_move(struct ashlar_pool *p, struct pgroup *g, unsigned col, struct pool_job *job) __must_check;
/* -ECANCELED: it is to stop, or to pause; -EAGAIN: it gives way to what restores redundancy. */
int pool_job_may_go_on(const struct pool_job *job) __must_check;
/* Is there no disk that stays without a column of this parity group? Then it must get fewer columns for one of its disks to leave. */
bool pool_group_needs_shape(const struct ashlar_pool *p, unsigned kind, const struct raid_desc *d);
/* Coroutine. A parity group, claimed, gets other columns, on disks that stay, as many as a new group would have; reshape.c. Redundancy is
 * never less meanwhile. -ERR_POOL_FULL: no room; -EAGAIN, -ECANCELED: not now; the group is as it was then. */
int pool_co_group_reshape(struct ashlar_pool *p, struct pgroup *g, struct pool_job *job) __must_check;
/* Coroutine. The same as pool_co_column_move() with a say in where it goes. */
int pool_co_column_move_to(struct ashlar_pool *p, struct pgroup *g, const struct pool_target *to, struct pool_job *job) __must_check;
/* Coroutine. A metadata or log group of more than two copies, claimed, does without this one from now on. */
int pool_co_column_drop(struct ashlar_pool *p, struct pgroup *g, unsigned col) __must_check;
/* Coroutine. How much is allocated in it. */
int pool_co_group_bytes(struct ashlar_pool *p, const struct raid_desc *d, uint64_t *bytes) __must_check;
/* Coroutine. How much moving one column of the group copies. */
int pool_co_column_bytes(struct ashlar_pool *p, unsigned kind, const struct raid_desc *d, uint64_t *bytes) __must_check;
/* Index in the label's list of metadata groups; -ENOENT: it is not one that is in use. */
int pool_label_meta_find(const struct label *l, uint64_t group) __must_check;
/* Coroutine. A metadata group that a crash has left in the table, and no label names: nothing refers to it, since no root that a label
 * names was written with it. 0 also where it is gone, or has a name by now. */
int pool_co_meta_orphan_destroy(struct ashlar_pool *p, uint64_t group) __must_check;
/* Coroutine. A metadata or log group, claimed, gets so many copies (3 at most), each on a disk of its own. -ERR_POOL_FULL. */
int pool_co_metadata_spread(struct ashlar_pool *p, struct pgroup *g, unsigned copies, struct pool_job *job) __must_check;
/* Coroutine. Metadata and log groups that have fewer copies get so many (3 at most), one disk each. -ERR_POOL_FULL: not
 * enough disks have room; what has been widened stays so. */
int pool_co_metadata_widen(struct ashlar_pool *p, unsigned copies, struct pool_job *job) __must_check;

/* ---- disks.c ---- */
/* By path, uuid, index, or last part of the path. */
int pool_disk_find(struct ashlar_pool *p, const char *name, unsigned *out, struct err *e) __must_check;

/* ---- watch.c ---- */
void pool_watch_co_run(void *arg);

/* ---- ours.c ---- */
/* Coroutine. See raid_hooks.co_disk_verify. */
int pool_co_disk_verify(struct ashlar_pool *p, unsigned disk) __must_check;
/* Coroutine. The disk itself, and its label too if so: what is wrong is acted upon. */
void pool_co_disk_look(struct ashlar_pool *p, unsigned disk, bool label);
/* Coroutine, under p->labels, before labels of p->label->generation are written: finds disks that must not get one (pdisk.lost). */
void pool_co_labels_guard(struct ashlar_pool *p);
/* A disk that was lost and is open again, not in use yet: -ERR_FOREIGN if the front page of its newest slot is not ours. */
int pool_lost_check(const struct ashlar_pool *p, unsigned disk, const void *page, struct err *e) __must_check;

/* ---- returning.c ---- */
/* Coroutine. Writes go to the disk when it returns 0, and resync.c knows. path NULL: where it was. 0 also if it is there already. */
int pool_co_disk_return(struct ashlar_pool *p, unsigned disk, const char *path, struct err *e) __must_check;
/* Coroutine. The same, if it happens to be there. */
void pool_co_disk_probe(struct ashlar_pool *p, unsigned disk);

/* ---- rebuild.c, resync.c: workers ---- */
void pool_rebuild_co_run(void *arg);
void pool_resync_co_run(void *arg);

/* ---- relocate.c: worker ---- */
void pool_relocate_co_run(void *arg);

/* ---- policy.c: worker ---- */
void pool_policy_co_run(void *arg);

/* ---- move_family.c: worker ---- */
void pool_moves_co_run(void *arg);

/* ---- settings.c ---- */
void pool_settings_default(struct ashlar_pool_settings *s);
void pool_settings_store(const struct ashlar_pool *p, struct pool_owner_disk *o);
void pool_settings_load(struct ashlar_pool *p, const struct pool_owner_disk *o);
/* Coroutine. The RAID layer hears of them. */
void pool_co_settings_publish(struct ashlar_pool *p);

/* ---- health.c ---- */
struct pool_health {
	int redundancy, promised; /* see struct ashlar_pool_info */
	uint64_t n_groups, n_degraded, n_lost, rebuild_left_bytes;
};
/* Coroutine. Walks the group table when some disk is not ONLINE. */
void pool_co_health(struct ashlar_pool *p, struct pool_health *out);

/* ---- the rest ---- */
struct pool_life {
	struct ashlar_pool *p;
	struct list jobs;
	uint64_t last_job;
	unsigned n_ended, n_job_waiters;
	struct co_queue jobs_changed;
	struct pool_pace pace;
	unsigned n_running;	/* service coroutines of this file's family */
	struct co_queue kick;	/* workers wait here: a disk has come or gone, space was freed, a setting changed, the end */
	uint64_t n_kicks;	/* whoever was at work, and not waiting, sees by it that something has changed */
	struct co_queue ended;	/* n_running has become 0 */
	struct co_mutex returning; /* one disk at a time */
	struct pool_job *relocations[LABEL_DISKS_MAX + 1]; /* of leaving disks; the last one: of the rebalancing; NULL: none */
	bool rebuilds, resyncs; /* what restores redundancy is at work, or waits for room: it comes before convenience */
	struct list own_ops;	/* struct own_op: late.c */
	struct co_queue claims; /* a group is no longer claimed */
	bool full;		/* pool.full has been reported, pool.space has not */
	uint64_t full_ns;	/* when somebody was last refused */
	unsigned low;		/* so many levels of pool.low are reached, and reported */
	/* What there is; room: for groups that are still to be made, and what that was computed of: it takes long with many disks. */
	uint64_t free_bytes, total_bytes, room_bytes, of_clusters, of_kicks;
};

struct pool_life *pool_life_create(struct ashlar_pool *p);
void pool_life_free(struct pool_life *life);
/* Starts the workers of a pool that is open for writing. */
void pool_life_start(struct ashlar_pool *p);
/* Coroutine. p->stopping is set. */
void pool_co_life_stop(struct ashlar_pool *p);
/* Something has changed that a worker may wait for. */
void pool_life_kick(struct ashlar_pool *p);
/* Starts a service coroutine that counts; it ends with pool_life_leave(). */
void pool_life_spawn(struct ashlar_pool *p, void (*fn)(void *arg), void *arg, const char *name);
void pool_life_leave(struct ashlar_pool *p);
/* Does not suspend. A writer has been refused for lack of space. */
void pool_life_full(struct ashlar_pool *p);
/* Where it is, or was last seen. */
const char *pool_disk_path(const struct ashlar_pool *p, unsigned disk);

#endif
