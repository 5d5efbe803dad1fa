/*
 * raid_impl.h: what the files of raid/ share. Nobody else includes it.
 *
 * How a request goes. raid_submit() finds the group; if it is open, the level's try_start() may take the request at once
 * and do it by leaf I/O alone, in a request object from the instance's freelist: no coroutine, no allocation. Otherwise a
 * service coroutine admits it (raid_co_admit(): load, freeze, sync, lease, range lock) and runs the level's co_run().
 * Both count in the group while they are in flight, so that a freeze or a new descriptor can wait for them.
 *
 * A request that waits in admission is not in flight and holds nothing: whatever the pool does under a freeze cannot wait
 * for it. A request in flight waits for leaf I/O, for range locks of other requests in flight, and for co_disk_error(),
 * which therefore must not wait for a freeze.
 */
#ifndef RAID_RAID_IMPL_H
#define RAID_RAID_IMPL_H

#include "engine/base/mutant.h"
#include "engine/io/buf.h"
#include "engine/io/range_lock.h"
#include "raid/raid.h"
#include "raid/stripe_log.h"

#define RAID_LOCKS 16		     /* range locks per group, each of a sixteenth of it: short lists */
#define RAID_LEG_IOV_MAX 512	     /* of one merged leg */
#define RAID_MAX_BYTES (32U << 20)   /* of one request to the instance */
#define RAID_READ_SLACK 2	     /* so many more reads in flight make a column busier than another */

struct raid_group;
struct raid_req;

/* What a layout does, behind the admission. */
struct raid_level {
	/* Does not suspend. Group open, range inside it. True: the request has been started and will end by itself. */
	bool (*try_start)(struct raid_group *g, struct raid_req *q);
	/* Coroutine. The request is admitted: result is the request's. */
	int (*co_run)(struct raid_group *g, struct raid_req *q);
	/* Coroutines, see raid.h; the group is loaded and counts one in flight. */
	int (*co_resync)(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, uint64_t *copied);
	int (*co_compare)(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, uint64_t *diff_off);
	int (*co_rebuild)(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, uint64_t *copied);
	int (*co_scrub)(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, struct raid_scrub *s);
	int (*co_scrub_fix)(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, bool force);
};
extern const struct raid_level raid_level_mirror; /* single, raid0, raid1, raid10 */
extern const struct raid_level raid_level_parity; /* raid5, raid6 */

struct raid_disk_slot {
	struct disk *disk;
	enum raid_disk_state state;
	unsigned n_reads; /* our read legs in flight: which copy is idle */
	int flush_error;  /* a flush failed and the pool kept the disk: no later flush may claim success */

	/* raid_leg.c. Lists of its request objects: with the kernel, oldest first; with the kernel, but nobody waits for them
	 * any more; likewise, from before the disk was set anew; answered, with zeros that the pool is asked about. */
	struct raid *raid;
	struct list legs, given_up, orphans, suspects;
	uint32_t epoch;	 /* grows when the disk is set anew */
	bool silent;	 /* it did not answer in time: every request fails until the disk is set anew */
	bool kept;	 /* the pool cannot do without it all the same */
	bool told;	 /* it has been asked about this disk, or is being asked */
	uint8_t told_op; /* enum io_op: what about */
	int told_error;
	bool slow;
	bool avoid;	 /* silent, slow, or something is given up and not answered */
	bool verifying;	 /* a coroutine looks after `suspects` */
	unsigned n_late_writes;	  /* given up, and not answered */
	unsigned n_late, n_quick; /* reads given up in the second since late_ns; quick ones in a row while it is slow */
	uint64_t late_ns, probe_ns, probe_wait_ns, verified_ns;
	uint64_t latency_ns; /* of reads, smoothed */
};

/* Locks of one range; `n` is 0 when none is held. */
struct raid_locks {
	unsigned n;
	struct range_lock *lock[RAID_LOCKS];
	struct range_hold hold[RAID_LOCKS];
};

struct raid_req {
	struct list link; /* freelist */
	struct raid *raid;
	struct raid_group *g; /* NULL until admitted */
	struct io *parent;
	uint64_t group, off_bytes; /* the parent's offset, divided */
	uint64_t mask;		   /* regions; 0 in groups without redundancy */
	uint8_t epoch, n_legs, pending;
	bool locked; /* `hold` in `lock` (fast path) */
	uint8_t col[RAID_COPIES_MAX + 1];
	struct range_lock *lock;
	struct range_hold hold;
	struct io leg[RAID_COPIES_MAX + 1]; /* + the target's */
};

enum raid_group_state { RAID_GROUP_NEW, RAID_GROUP_LOADING, RAID_GROUP_LOADED };

struct raid_group {
	struct hash_node node; /* by number */
	struct raid *raid;
	const struct raid_level *level;
	struct raid_desc desc; /* from here to `missed`: once loaded */
	unsigned data_cols, strip_shift;
	bool redundant, parity, checksummed;
	bool homed;	    /* somebody's alone: requests go there */
	bool away;	    /* homed, and not here */
	bool shaping;	    /* then not even reads are done here */
	bool target_must;   /* raid_target_commit(): a write that misses the target has failed */
	int target_error;   /* of the first write that did */
	int8_t target_col;  /* -1: none; else desc.cols[desc.n_cols] is the target, a column of its own to all loops over legs */
	struct raid_shape *shape;    /* another one to come, raid_shape.c; home only */
	struct stripe_asm *assembly; /* parity layouts: stripes being put together, stripe_asm.c */
	uint64_t unsync, missed;
	uint64_t redo; /* regions with stripes that have something due, stripe_redo.c; home only */

	bool open; /* loaded, not frozen, not blocked: the fast path's one look */
	bool blocked;	/* the descriptor is being changed */
	bool forgotten; /* no longer in the hash; freed with the last user */
	enum raid_group_state state;
	int load_error;
	uint64_t late_clear, late_missed; /* published while loading */

	uint64_t lease;	     /* regions that may be written now */
	uint64_t held;	     /* what the pool thinks this reactor holds: lease, and what lost its worth since */
	uint64_t lease_used; /* since lease_tick_ns */
	uint64_t lease_tick_ns;
	uint64_t lease_seq; /* grows when leases are dropped: a grant asked for before is worth nothing */
	uint64_t asking_lease, asking_sync; /* hooks under way */
	uint64_t busy;			    /* regions with region_writes > 0 */
	uint32_t region_writes[RAID_REGIONS];

	uint64_t frozen_off_bytes, frozen_len_bytes;
	unsigned n_forwarded; /* requests that are at the home */
	unsigned inflight[2]; /* by epoch; a freeze starts a new epoch and waits for the old one */
	uint8_t epoch;
	unsigned users; /* coroutines that hold a pointer without being in flight */
	struct co_queue changed; /* loaded, thawed, lease or sync done: look again */
	struct co_queue drained; /* an epoch has ended */

	uint64_t lock_bytes;
	struct range_lock locks[RAID_LOCKS];
};

/* One flush of all disks that need it, and those who wait for it; who comes later waits for the next. */
struct raid_flush_leg {
	struct io io;
	struct raid *raid;
	struct disk *disk;
	uint64_t n_volatile; /* sampled before submission */
	bool used;
};
struct raid_flush {
	struct list current, next; /* io.link of the parents */
	bool running;
	unsigned pending;
	bool failed; /* some leg of this round */
	struct stripe_log *log; /* that has been told of this round */
	uint64_t log_mark;
	struct raid_flush_leg legs[RAID_DISKS_MAX];
};

struct raid {
	struct bdev bdev;
	struct raid_conf conf;
	struct reactor *reactor;
	struct raid *peers[REACTORS_MAX];
	unsigned n_peers, n_homes;
	struct stripe_log *log; /* NULL until attached */
	struct stripe_redos *redos; /* NULL until needed */
	uint64_t leg_max_bytes; /* smallest max_bytes of the disks */
	struct raid_disk_slot disks[RAID_DISKS_MAX];
	struct hash groups;
	struct list free_reqs;
	unsigned n_reqs; /* in use */
	unsigned submitting; /* > 0: inside bdev_submit(): completions are put off */
	struct list done; /* put off: io.link */
	struct task done_task;
	struct raid_flush flush;
	struct raid_stats stats;
	/* raid_leg.c */
	struct list free_legs;
	struct timer leg_timer;
	uint64_t leg_tick_ns, leg_skew_ns; /* how long the reactor has not run: no disk is to blame for it */
	unsigned n_slots;  /* the highest disk ever set, and one */
	unsigned n_asking; /* coroutines of our own that ask the pool */
	struct co_queue asked;
	bool is_shut; /* raid_shut() */
	/* raid_settle.c */
	bool unsettled, is_settling;
	struct list held; /* io.link of writes that are good once all is settled */
};

/* ---- raid.c ---- */
struct raid_req *raid_req_get(struct raid *r, struct io *io);
void raid_complete(struct raid *r, struct io *io, int result); /* never inside bdev_submit() */
/* The request is over: leaves the group if it is in one, frees q, completes the parent. */
void raid_req_end(struct raid_req *q, int result);

static inline struct raid_disk_slot *raid_slot(const struct raid_group *g, unsigned col)
{
	return &g->raid->disks[g->desc.cols[col].disk];
}

static inline bool raid_slot_is_there(const struct raid_disk_slot *s)
{
	return s->disk && s->state != RAID_DISK_ABSENT;
}

/* ---- raid_settle.c ---- */
/* Coroutine. 0: every disk that is not there is durably out, and what has been written without it may be acknowledged. If there was
 * nothing to wait for, it has not suspended. */
int raid_co_settle(struct raid *r);
/* Does not suspend. Completes a write that was good when, and as, the pool has settled. */
void raid_hold_write(struct raid *r, struct io *io);

/* ---- raid_leg.c: the one way to a disk. As bdev_submit() and its kin, of the disk in slot `disk`, which is there. ----
 *
 * A request that the disk does not answer in time ends with -ETIMEDOUT, while the kernel still has it. What the submitter
 * passed (io, iov) may be freed then; the payload of a write is held back from reuse until the kernel is done (alloc_hold()).
 * Reads go through a buffer of the leg's own, so that nothing of the submitter's can be written to after the end; unless he says
 * RAID_LEG_DIRECT. -ETIMEDOUT of a read says nothing about the place: it is not rewritten and not counted as an error; so does
 * -ENODEV, by which a read with RAID_LEG_CHECK_ZEROS ends whose zeros the pool does not vouch for.
 * A disk that does not answer for timeout_ns is silent: all its requests end, and later ones at once, until raid_set_disk(). The
 * pool is told by raid_leg.c; whoever gets the -ETIMEDOUT of a write or flush asks it too, before he acknowledges anything. */
enum {
	RAID_LEG_HEDGE = 1 << 0,       /* read: give up after hedge_ns already, the data can be had elsewhere */
	RAID_LEG_CHECK_ZEROS = 1 << 1, /* read of a redundant group: ask the pool when it brings blocks of zeros */
	RAID_LEG_DIRECT = 1 << 2,      /* read, straight into the payload, which after -ETIMEDOUT may only be freed: private
					* buffers, and the payload of a parent that has IO_MAY_GIVE_UP */
};
void raid_disk_submit(struct raid *r, unsigned disk, struct io *io, unsigned flags);
int raid_disk_co_submit(struct raid *r, unsigned disk, struct io *io, unsigned flags);
void raid_disk_submit_join(struct raid *r, unsigned disk, struct io *io, struct co_join *j, unsigned flags);
/* For raid.c. */
void raid_legs_init(struct raid *r);
void raid_legs_fini(struct raid *r);
void raid_legs_disk_set(struct raid *r, unsigned disk);
/* Take another column for reads if there is one. Of a slow disk it says no when it is time to try it again. */
bool raid_disk_is_slow(const struct raid *r, unsigned disk);

/* Takes writes. */
static inline bool raid_col_is_there(const struct raid_group *g, unsigned col)
{
	return raid_slot_is_there(raid_slot(g, col));
}

/* Serves reads. Groups without redundancy have nothing better than what is there; a target never does. */
static inline bool raid_col_is_current(const struct raid_group *g, unsigned col)
{
	const struct raid_disk_slot *s = raid_slot(g, col);

	return col < g->desc.n_cols && raid_slot_is_there(s) && (!g->redundant || s->state == RAID_DISK_ONLINE);
}

/* Columns that may have a leg: the target is the last. */
static inline unsigned raid_n_legs_cols(const struct raid_group *g)
{
	return g->desc.n_cols + (g->target_col >= 0);
}

/* Must a write to this place of a mirror go to the target too? */
static inline bool raid_place_has_target(const struct raid_group *g, const struct raid_place *p)
{
	if (likely(g->target_col < 0) || !raid_col_is_there(g, g->desc.n_cols) || MUTANT(TARGET_SKIPS_WRITES))
		return false;
	if (g->target_col == g->desc.n_cols)
		return true; /* one more copy */
	for (unsigned i = 0; i < p->n; i++)
		if (p->cols[i] == g->target_col)
			return true;
	return false;
}

/* The switch to the target has begun, and without redundancy nobody would know that it has missed this: the write must not be good. */
static inline bool raid_place_lacks_target(const struct raid_group *g, const struct raid_place *p)
{
	if (likely(g->target_col < 0) || g->redundant || !g->target_must || raid_col_is_there(g, g->desc.n_cols))
		return false;
	for (unsigned i = 0; i < p->n; i++)
		if (p->cols[i] == g->target_col)
			return true;
	return g->target_col == g->desc.n_cols;
}

/* As raid_place(), but where a column is the whole of the data the range is not cut at strips. */
static inline void raid_locate(const struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, struct raid_place *p)
{
	raid_place(&g->desc, off_bytes, len_bytes, p);
	if (g->data_cols == 1)
		p->len_bytes = len_bytes;
}

/* Logical bytes of a stripe. */
static inline uint64_t raid_stripe_bytes(const struct raid_group *g)
{
	return (uint64_t)g->data_cols << g->strip_shift;
}

/* Regions of a range (of whole stripes where there is parity); 0 where there is no redundancy, so nothing to record or sync. */
static inline uint64_t raid_group_mask(const struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes)
{
	uint64_t stripe, begin, end;

	if (!g->redundant)
		return 0;
	if (!g->parity)
		return raid_region_mask(&g->desc, off_bytes, len_bytes);
	stripe = raid_stripe_bytes(g);
	begin = off_bytes / stripe * stripe;
	end = MIN(DIV_UP(off_bytes + len_bytes, stripe) * stripe, g->desc.size_bytes);
	return raid_region_mask(&g->desc, begin, end - begin);
}

/* Is it this instance that does the group's writes? */
static inline bool raid_is_home(const struct raid_group *g)
{
	const struct raid *r = g->raid;

	return !g->homed || !r->n_peers || r->peers[raid_home(r, g->desc.group)] == r;
}

/* The copy that reads of a place go to unless there is a reason: fixed, so that reads during a write agree. */
static inline unsigned raid_default_copy(const struct raid_group *g, const struct raid_place *p)
{
	return (unsigned)((p->col_off_bytes >> g->strip_shift) % p->n);
}

/* ---- raid_group.c ---- */
static inline struct raid_group *raid_group_find(struct raid *r, uint64_t group)
{
	struct hash_node *n = hash_find(&r->groups, group);

	return n ? container_of(n, struct raid_group, node) : NULL;
}

void raid_target_failed(struct raid_group *g, int error);
void raid_group_forward_done(struct raid_group *g);
void raid_groups_free(struct raid *r);
/* Drops the leases of groups on a disk that is worth less than before. */
void raid_groups_disk_lost(struct raid *r, unsigned index);
/* Coroutine. On 0 the request is in flight in q->g, and writes to mirrors hold their range in *lk. RAID_FORWARDED: it has gone to
 * the group's home, forget it. */
int raid_co_admit(struct raid_req *q, struct raid_locks *lk) __must_check;
void raid_enter(struct raid_group *g, struct raid_req *q, uint64_t mask);
void raid_leave(struct raid_req *q);
/* Coroutine. The loaded group, counted in flight in *epoch until raid_group_release(). */
int raid_group_co_hold(struct raid *r, uint64_t group, struct raid_group **out, uint8_t *epoch) __must_check;
/* The same with a lease of a stripe's regions, for writes that no request stands behind. -EAGAIN: the descriptor is being changed. */
int raid_group_co_hold_stripe(struct raid *r, uint64_t group, uint64_t stripe, struct raid_group **out, uint8_t *epoch) __must_check;
void raid_group_release(struct raid_group *g, uint8_t epoch);

/* One lock, of a range that lies in one: NULL if it does not. */
static inline struct range_lock *raid_lock_of(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes)
{
	uint64_t i = off_bytes / g->lock_bytes;

	return off_bytes + len_bytes <= (i + 1) * g->lock_bytes ? &g->locks[i] : NULL;
}
bool raid_try_lock(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, bool shared, struct raid_locks *lk);
void raid_co_lock(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, bool shared, struct raid_locks *lk);
void raid_unlock(struct raid_locks *lk);

/* ---- raid_write.c: what became of a write's legs ---- */
struct raid_outcome {
	uint64_t tried; /* columns; bit n_cols: the target */
	int error[RAID_COLS_MAX + 1]; /* first of each */
};
void raid_outcome_add(struct raid_outcome *o, unsigned col, int error);
/* Coroutine. Asks the pool about each disk that failed, once. 0, or its first refusal. A target that failed counts only once
 * it must not (raid_target_commit()). */
int raid_co_ask_pool(struct raid_group *g, enum io_op op, const struct raid_outcome *o) __must_check;

/* ---- raid_flush.c ---- */
void raid_flush_init(struct raid *r);
void raid_flush_submit(struct raid *r, struct io *io);

/* ---- raid_plan.c: a request cut in pieces, the pieces put together to legs ---- */
struct raid_piece {
	uint64_t off_bytes; /* in the group */
	struct raid_place place;
	uint64_t cols; /* bit per column (and target) that takes part; set by the caller before raid_plan_legs() */
};

struct raid_leg {
	struct io io;
	struct raid_disk_slot *slot; /* of a read: counted there */
	uint64_t col_off_bytes;
	uint8_t col;
	uint8_t flags; /* RAID_LEG_*; none unless the caller sets them before raid_plan_co_run() */
};

struct raid_plan {
	struct raid_group *g;
	struct io *parent;
	uint64_t off_bytes;
	unsigned n_pieces, n_legs, n_iov, iov_cap, legs_cap;
	struct raid_piece *pieces;
	struct raid_leg *legs;
	struct iovec *iov;
};

/* strips: cut at every strip even where a column is contiguous. */
void raid_plan_init(struct raid_plan *p, struct raid_group *g, struct raid_req *q, bool strips);
void raid_plan_legs(struct raid_plan *p);
/* Coroutine. Does all legs at once; each leaves its result in its io. 0 or the first error. */
int raid_plan_co_run(struct raid_plan *p);
void raid_plan_fini(struct raid_plan *p);

/* ---- raid_read.c, raid_write.c, raid_resync.c ---- */
bool raid_mirror_try_read(struct raid_group *g, struct raid_req *q);
int raid_mirror_co_read(struct raid_group *g, struct raid_req *q);
bool raid_mirror_try_write(struct raid_group *g, struct raid_req *q);
int raid_mirror_co_write(struct raid_group *g, struct raid_req *q);
int raid_mirror_co_discard(struct raid_group *g, struct raid_req *q);
int raid_mirror_co_resync(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, uint64_t *copied);
int raid_mirror_co_compare(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, uint64_t *diff_off);
int raid_mirror_co_rebuild(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, uint64_t *copied);
int raid_mirror_co_scrub(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, struct raid_scrub *s);
int raid_mirror_co_scrub_fix(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, bool force);
/* ---- raid_shape.c ---- */
/* Coroutine. What the level's co_run does, where the group has another shape to come; not for reads. */
int raid_shape_co_write(struct raid_group *g, struct raid_req *q);

/* ---- raid_forward.c ---- */
/* Does not suspend. Sends the request to the group's home; it is not in flight here. q ends when the answer comes. Returns
 * RAID_FORWARDED. */
#define RAID_FORWARDED 1
int raid_forward(struct raid_req *q, struct raid_group *g);

/* ---- stripe_redo.c, for the instance ---- */
struct stripe_redos;
/* Regions of the group's stripes that have something due. */
uint64_t stripe_redo_regions(const struct raid_group *g);
/* The group is gone, nothing of it in flight. */
void stripe_redo_forget(struct raid *r, uint64_t group);
bool stripe_redo_is_any_due(const struct raid *r);
/* Of the log, ctx is the instance: its tail cannot move. */
void stripe_redo_press(void *ctx);
/* What is due stays in the log. After raid_co_drain(). */
void stripe_redo_close(struct raid *r);

/* ---- parity layouts: stripe_read.c, stripe_write.c, stripe_asm.c, stripe_sync.c ---- */
bool raid_parity_try_start(struct raid_group *g, struct raid_req *q);
int raid_parity_co_run(struct raid_group *g, struct raid_req *q);
int raid_parity_co_resync(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, uint64_t *copied);
int raid_parity_co_compare(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, uint64_t *diff_off);
int raid_parity_co_rebuild(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, uint64_t *copied);
int raid_parity_co_scrub(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, struct raid_scrub *s);
int raid_parity_co_scrub_fix(struct raid_group *g, uint64_t off_bytes, uint64_t len_bytes, bool force);

/* Makes leg the parent's request on one column; it shares the payload. done and owner are the caller's. */
static inline void raid_leaf_prep(struct raid_group *g, struct io *leg, const struct io *parent, unsigned col,
				  uint64_t col_off_bytes)
{
	leg->op = parent->op;
	leg->copy = 0;
	leg->flags = parent->flags;
	leg->iov_n = parent->iov_n;
	leg->iov = parent->iov;
	leg->off_bytes = g->desc.cols[col].off_bytes + col_off_bytes;
	leg->len_bytes = parent->len_bytes;
}

#endif
