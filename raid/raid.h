/*
 * raid.h: one reactor's instance of the RAID layer: disks below, one bdev above.
 *
 * The bdev is the pool's logical space, groups end to end: byte x is byte x % group_bytes of group x / group_bytes. A
 * request lies within one group. The layer is a mechanism: descriptors, dirty-region records and decisions about disks
 * come through hooks that the pool fills in; it knows nothing of volumes or metadata.
 *
 * Rules it keeps:
 * - A write to a redundant region is submitted only after the region is durably recorded dirty: this reactor holds a
 *   lease for it (co_lease). Leases of idle regions are given back (lease_return). Parity layouts take the regions of
 *   whole stripes.
 * - A region whose columns may disagree (`unsync`, after a crash) is neither read nor written before the pool has synced
 *   it (co_sync): so all reads of it agree ever after, whichever disk is lost next.
 * - Stale disks (present, but they missed writes) get all writes and serve no reads, except of regions that no write has
 *   touched while they were away, when nothing else is left.
 * - A read error is answered from another column and the bad place is rewritten; the pool is told. A write or flush error
 *   is acknowledged only after the pool has durably put the disk out (co_disk_error returned 0) and enough columns have it.
 * - Nor is a write or flush acknowledged that somebody else's error, or a command, has kept from a disk, before the pool has durably put
 *   that one out (raid_set_unsettled(), co_settle): a crash would make it current again, with what it had before.
 * - Groups without redundancy use their disk whatever its state, as long as it is there; errors go to the caller.
 * - A *homed* group (parity layouts always; mirrors while they are in transition) has one instance that does its writes
 *   and whatever needs a stripe to stand still: raid_home(). The others forward to it. So its range locks are all there are.
 * - A group may have a *target*: a new place of one column, being filled (rebuild, replacement). It takes every write of its
 *   column and serves no read until the pool switches the descriptor (raid_co_group_replace).
 * - Partial stripes of parity layouts go through the stripe log (stripe_log.h) before they are written in place, and so does
 *   every write that is not IO_FRESH as a whole stripe: after a crash, with as many disks lost as the layout allows, each
 *   sector is old or new.
 * - A disk that answers too late is read around; one that does not answer at all is an error (-ETIMEDOUT): raid_leg.c.
 *
 * Context: home reactor of the instance, unless stated. One instance per reactor of the pool.
 */
#ifndef RAID_RAID_H
#define RAID_RAID_H

#include "engine/base/hash.h"
#include "engine/io/disk.h"
#include "raid/geometry.h"

enum raid_disk_state {
	RAID_DISK_ABSENT, /* not there, or given up */
	RAID_DISK_STALE,  /* there, missed writes */
	RAID_DISK_ONLINE,
};

struct raid;

struct raid_group_info {
	struct raid_desc desc;
	uint64_t unsync; /* regions that must be synced before use */
	uint64_t missed; /* regions written while a member was away (stale disks have old data there) */
	uint64_t lease;	 /* regions recorded dirty already, leased to this reactor with the load (metadata groups: all) */
	bool homed;	 /* see above; parity layouts need not say it */
	bool checksummed; /* whoever wrote it knows a right copy from a wrong one: a mirror's column that moves is read, be its disk slow */
	bool shaping;	  /* parity layouts: only the home reads, too: see raid_co_shape_begin() */
	bool has_target;
	uint8_t target_col; /* column whose new place `target` is; raid1 only: desc.n_cols, one more copy */
	struct raid_col target;
};

struct raid_hooks {
	/* Coroutine. Fills in *info; -ENOENT: no such group. */
	int (*co_group_load)(void *ctx, uint64_t group, struct raid_group_info *info);
	/* Coroutine. Returns when the regions are durably recorded as dirty, and leased to this reactor. */
	int (*co_lease)(void *ctx, uint64_t group, uint64_t mask);
	/* Does not suspend. This reactor has no write in flight there and will ask again before the next. */
	void (*lease_return)(void *ctx, uint64_t group, uint64_t mask);
	/* Coroutine. Returns when the regions are in sync (the pool calls raid_clear_unsync on every instance). */
	int (*co_sync)(void *ctx, uint64_t group, uint64_t mask);
	/* Coroutine. A write or flush failed, or the disk does not answer (-ETIMEDOUT) or is gone (-ENODEV): then any op, and the
	 * instance asks by itself too, whoever else does. 0: the disk is durably out (or was), its copies no longer count; a
	 * negative error: the pool cannot do without it, pass the error on. */
	int (*co_disk_error)(void *ctx, unsigned disk, enum io_op op, int error);
	/* Coroutine; only asked after raid_set_unsettled(r, true). Returns when every disk that has been put out is durably out, or why
	 * that cannot be: then what asks has failed. Needs neither a write nor a flush of the instance. */
	int (*co_settle)(void *ctx);
	/* Does not suspend. A bad read was answered from elsewhere and rewritten (0) or could not be rewritten (error). */
	void (*read_repaired)(void *ctx, unsigned disk, uint64_t off_bytes, uint64_t len_bytes, int error);
	/* Coroutine; NULL: not asked. A read from a redundant group has brought blocks of zeros: is the disk still ours, its label
	 * in place? (Somebody may be overwriting it.) 0: yes. Else the disk has been put out as by co_disk_error. The read waits
	 * for the answer; one question every few ms at most. */
	int (*co_disk_verify)(void *ctx, unsigned disk);
	/* Does not suspend; may be NULL. Reads of the disk go around it from now on (true), or no longer (false). */
	void (*disk_slow)(void *ctx, unsigned disk, bool slow, uint64_t latency_ns);
};

struct raid_conf {
	uint64_t group_bytes;
	uint64_t size_bytes; /* logical space: an upper bound for requests */
	uint32_t block_bytes;
	const struct raid_hooks *hooks;
	void *ctx;
	uint64_t lease_idle_ns; /* a lease unused so long is given back; 0: 5 s */
	uint64_t hedge_ns;	/* a read of a redundant group that takes longer is answered from elsewhere; 0: 100 ms */
	uint64_t timeout_ns;	/* a request that takes longer is given up, the disk is in error; 0: 30 s */
};

struct raid *raid_open(const struct raid_conf *conf);
/* Nothing in flight, after raid_co_drain(). Gives back no leases. What was given up may still be with the kernel: then its disk
 * (raid_disk_is_idle()) must not be closed. */
void raid_close(struct raid *r);
/* Coroutine. Returns when the instance itself is not asking the pool anything (co_disk_error, co_disk_verify). */
void raid_co_drain(struct raid *r);
/* All instances of the pool by reactor, this one included; before the first request. n_homes: groups are homed on the first so
 * many (raid_home()). Without it, an instance stands alone. */
void raid_set_peers(struct raid *r, struct raid *const *peers, unsigned n_peers, unsigned n_homes);
/* Index of the reactor that a homed group is homed on. */
unsigned raid_home(const struct raid *r, uint64_t group);
/* Where this instance logs partial stripes: a range of the logical space, in a mirror with as many copies as the best
 * layout needs. `epoch` tells this opening's entries from older ones. Before it, writes to parity groups are -ERR_POOL_FULL. */
struct stripe_log_conf;
void raid_log_attach(struct raid *r, const struct stripe_log_conf *c);
bool raid_log_is_attached(const struct raid *r);
/* There is what could not be written in place, and the log has it: the pool must not be closed clean, so that it is replayed. */
bool raid_log_keeps(const struct raid *r);
struct bdev *raid_bdev(struct raid *r); /* copies = RAID_COPIES_MAX; io.copy beyond a group's copies is -ENODATA */

/* disk may be NULL (ABSENT). Requests in flight keep what they have. Whatever was held against the disk (it was silent, slow, a
 * flush of it failed) is forgotten; one that was away comes back only when raid_disk_is_idle(): as long as a write that was given
 * up may still happen, all requests to it end with -ETIMEDOUT. */
void raid_set_disk(struct raid *r, unsigned index, struct disk *disk, enum raid_disk_state state);
enum raid_disk_state raid_disk_state(const struct raid *r, unsigned index);
/* Does not suspend. True, together with raid_set_disk() of a disk that is out now: nobody's word says so yet that would outlast a
 * crash; writes to redundant groups and flushes end with what co_settle says. False: all is said. */
void raid_set_unsettled(struct raid *r, bool unsettled);

/* Does not suspend. Somebody else has the disks: from now on requests and work on ranges end with -ERR_POOL_FAILED. What is under way
 * goes on to its end. */
void raid_shut(struct raid *r);

/* As conf.hedge_ns and conf.timeout_ns. */
void raid_set_limits(struct raid *r, uint64_t hedge_ns, uint64_t timeout_ns);
/* A flush of the disk has failed somewhere and the pool keeps it: no later flush may claim success, until the disk is set anew. */
void raid_set_flush_error(struct raid *r, unsigned index, int error);

/* Publishing. All act on the group if it is loaded here, else do nothing. */
void raid_clear_unsync(struct raid *r, uint64_t group, uint64_t mask);
void raid_set_missed(struct raid *r, uint64_t group, uint64_t missed);
/* Coroutine. From now on requests to the range wait; returns when those in flight in the group have ended and this
 * reactor's leases of the touched regions are dropped (without lease_return). One frozen range per group at a time. */
void raid_co_freeze(struct raid *r, uint64_t group, uint64_t off_bytes, uint64_t len_bytes);
void raid_unfreeze(struct raid *r, uint64_t group);
/* Coroutine. Takes a new descriptor, target or homed flag: waits for requests in flight (of which some may be in
 * co_disk_error(): the caller holds nothing that this needs), then switches; leases are what info says, and regions that
 * this instance wants synced stay so. When a group becomes
 * homed or gets a target the home comes last, when it ceases to be homed the home comes first. */
void raid_co_group_replace(struct raid *r, const struct raid_group_info *info);
/* The same with a limit. -EAGAIN: some request was still in flight then, and nothing has changed. (A metadata request that
 * failed may wait for the pool, which may have to read metadata of this very group.) */
int raid_co_group_replace_until(struct raid *r, const struct raid_group_info *info, uint64_t deadline_ns) __must_check;
/* Regions that this instance wants synced before they are used. */
uint64_t raid_group_unsync(const struct raid *r, uint64_t group);
/* Does not suspend; on every instance that writes to the group (homed: its home). 0: all writes so far have reached the
 * target, and from now on one that cannot is an error as on any column: the new descriptor may be recorded. Else the
 * error of the first write that has not. */
int raid_target_commit(struct raid *r, uint64_t group) __must_check;
/* Coroutine. Forgets a group (it was destroyed): no request may be submitted to it any more. */
void raid_co_group_forget(struct raid *r, uint64_t group);
/* Drops leases that are idle, calls lease_return. The pool calls it from its timer; all = whether or not idle long. */
void raid_return_leases(struct raid *r, bool all);

/* ---- ranges. Those of a homed group are done by its home: the functions go there by themselves, from any reactor. ---- */

/* Coroutine, bypasses freeze, unsync and leases: makes all columns of the range equal to the chosen source (the first
 * ONLINE column that reads; a bad source falls back to the next), writing only to columns that differ, STALE ones
 * included. Not flushed: the caller flushes before it says "in sync". *copied counts bytes written. */
int raid_co_resync_range(struct raid *r, uint64_t group, uint64_t off_bytes, uint64_t len_bytes, uint64_t *copied) __must_check;
/* Coroutine. Brings the target up to date for the stripes that the range touches, reading
 * from columns that are current. What no column can give is an error, and the target is not good. Not flushed. */
int raid_co_rebuild_range(struct raid *r, uint64_t group, uint64_t off_bytes, uint64_t len_bytes, uint64_t *copied) __must_check;
/* Coroutine, on the home instance: writes columns of a stripe as the log has them (recovery), to every column that is there.
 * e and payload as stripe_log_co_read() gives them. Bypasses leases. Not flushed. */
struct stripe_log_entry;
int raid_co_replay(struct raid *r, const struct stripe_log_entry *e, const void *payload) __must_check;
/* Coroutine, read-only: compares all ONLINE columns of the range (parity layouts: recomputes parity of the rows). Returns 0
 * equal, 1 different (*diff_off: in the group, of the first difference), or an error. For pool check. */
int raid_co_compare_range(struct raid *r, uint64_t group, uint64_t off_bytes, uint64_t len_bytes, uint64_t *diff_off) __must_check;
/* Coroutine. Reads every ONLINE column of the range, rewrites what cannot be read, and calls
 * bad() for each run of blocks (of the group's logical space) whose columns disagree. Where two copies or one parity cannot
 * tell who is wrong, col is -1; where a majority of copies or P and Q can, it is that column's index. Nothing that was read
 * without error is rewritten: raid_co_scrub_fix() does that. */
struct raid_scrub {
	void (*bad)(void *arg, uint64_t off_bytes, uint64_t len_bytes, int col); /* on the group's home, must not suspend */
	void *arg;
	uint64_t unreadable_bytes, repaired_bytes; /* out: of all columns */
};
int raid_co_scrub_range(struct raid *r, uint64_t group, uint64_t off_bytes, uint64_t len_bytes, struct raid_scrub *s) __must_check;
/* Coroutine, likewise. Looks again and makes the columns of the range agree: the column named by the majority or by P and Q is
 * rewritten; where nothing tells, mirrors take the first current copy and parity is computed from the data (force), else
 * -ENODATA. */
int raid_co_scrub_fix(struct raid *r, uint64_t group, uint64_t off_bytes, uint64_t len_bytes, bool force) __must_check;
/* ---- another shape of a parity group: raid_shape.c. On its home, coroutines. ---- */
#define RAID_SHAPE_CLUSTERS 512
/* `shape` is the number of a group that holds nothing, of the same size and home. Writes go there too, as far as has been copied. All
 * instances know that the group is `shaping`. Its leases are dropped (without lease_return). One freezes at a time: see raid_co_freeze(). */
int raid_co_shape_begin(struct raid *r, uint64_t group, uint64_t shape) __must_check;
struct raid_shape_copy {
	uint64_t group, off_bytes, len_bytes; /* where the last one ended; whole clusters, at most RAID_SHAPE_CLUSTERS */
	uint64_t cluster_bytes;
	/* Coroutine. A bit for each of n clusters of the group from `first` on: it is in use, or may be soon. Writers to them wait. */
	int (*co_used)(void *arg, uint64_t first, unsigned n, uint8_t *bits);
	void *arg;
	uint64_t copied_bytes; /* out: added to */
};
/* The next range is in both. What cannot be read is an error, as is whatever has kept an earlier write from the shape. */
int raid_co_shape_copy(struct raid *r, struct raid_shape_copy *c) __must_check;
/* All has been copied. 0: both groups hold the same, durably, and stay so: requests wait until raid_co_shape_end(). -EAGAIN: some
 * write has not been good in place. On an error likewise: nothing but raid_co_shape_end() may follow. */
int raid_co_shape_close(struct raid *r, uint64_t group) __must_check;
/* The shape is forgotten: the group has its columns now, or it was in vain. */
void raid_co_shape_end(struct raid *r, uint64_t group);

/* How many more disks the group can lose with the disks as they are now (a target does not count): -1: it cannot be read
 * already. Without suspension. */
int raid_desc_redundancy(const struct raid *r, const struct raid_desc *d);
/* Nothing of this disk is with the kernel any more (requests that were given up may still be, and writes among them may still
 * happen): it may be brought back. */
bool raid_disk_is_idle(const struct raid *r, unsigned index);
/* Coroutine. Reads the disk itself (a label, for co_disk_verify) within the instance's timeout_ns; buf is untouched afterwards. */
int raid_co_disk_read(struct raid *r, unsigned disk, uint64_t off_bytes, void *buf, uint64_t len_bytes) __must_check;
/* Coroutine. Can every byte of a group with this descriptor be read with the disks as they are now? Without suspension. */
bool raid_desc_is_readable(const struct raid *r, const struct raid_desc *d);

struct raid_stats {
	uint64_t reads, writes, flushes, fast, slow, repaired, groups_loaded;
	uint64_t forwarded, hedged, timed_out;
	/* parity layouts: stripes written whole, by read-modify-write, by reconstruct-write; writes that were put together;
	 * log batches and bytes (of one copy) */
	uint64_t stripes_full, stripes_rmw, stripes_rcw, assembled, log_writes, log_bytes;
	uint64_t redone; /* stripes whose write had failed in place, and was done later */
};
void raid_stats_get(const struct raid *r, struct raid_stats *out);

#endif
