/*
 * leave.h: disks that join a pool and disks that leave it: intents, what they need, and the work. Private to engine/pool; home
 * reactor, coroutines.
 *
 *   disk_add.c    disks join
 *   leave.c       what is wanted of a disk: evacuated, removed, replaced; the commands
 *   leave_check.c is there room for what it holds, and does redundancy allow it: before anything is copied
 *   take_out.c    an empty disk is taken out of the pool
 *   relocate.c    the worker: columns move off leaving disks, and from fuller disks to emptier ones
 *   balance.c     which ones, for the latter
 *
 * An intent stands in the label: label_disk.leaving, label.wanted. So it is durable with the command, and goes on after a crash or
 * a restart by itself. Progress needs no record: what has moved is elsewhere. Changes of intents and of membership are made one
 * at a time, under life->returning.
 */
#ifndef ENGINE_POOL_LEAVE_H
#define ENGINE_POOL_LEAVE_H

#include "engine/pool/life.h"

struct leave_intent {
	unsigned disk;
	uint8_t flags;		/* LABEL_LEAVE...; 0: it stays */
	uint16_t successor_plus_1;
};

/* Under p->labels: in memory, the caller writes the labels. */
void pool_leave_set(struct ashlar_pool *p, const struct leave_intent *in);
void pool_leave_get(const struct ashlar_pool *p, unsigned disk, struct leave_intent *out);
/* Coroutine under life->returning. The same, durable. */
int pool_co_leave_want(struct ashlar_pool *p, const struct leave_intent *in) __must_check;
int pool_co_rebalance_want(struct ashlar_pool *p, uint32_t wanted) __must_check;

/* Coroutine. `job stop`, `job pause`, `job resume`. */
int pool_co_relocation_stop(struct ashlar_pool *p, unsigned disk, struct err *e) __must_check;
int pool_co_relocation_pause(struct ashlar_pool *p, unsigned disk, bool pause, struct err *e) __must_check;
/* Coroutine. It is not to leave any more. */
int pool_co_disk_stay(struct ashlar_pool *p, unsigned disk, struct err *e) __must_check;

/* ---- disk_add.c; under life->returning ---- */
struct addition;
/* Opens, locks and checks; changes nothing. *out is freed by pool_disks_forget(). */
int pool_co_disks_prepare(struct ashlar_pool *p, const char *const *paths, size_t n, bool force, struct addition **out,
			  struct err *e) __must_check;
/* Index that the k-th will have, and its size. */
unsigned pool_disks_prepared(const struct addition *a, unsigned k, uint64_t *extents);
/* They are members when it returns 0. intent (NULL: none) becomes durable with them; the first one is the successor. */
int pool_co_disks_install(struct addition *a, const struct leave_intent *intent, struct err *e) __must_check;
void pool_disks_forget(struct addition *a);

/* ---- leave_check.c ---- */
/* Coroutine. The group table has what was decided before. */
int pool_co_table_settle(struct ashlar_pool *p) __must_check;
struct leave_check {
	unsigned disk;
	bool removes;
	unsigned added;		/* index of a disk that is to be added first: LABEL_DISKS_MAX: none */
	uint64_t added_extents;
	/* out */
	uint64_t copy_bytes, n_columns;
};
/* Can all that lies on the disk go to others, with the redundancy it has? A sentence if not. Changes nothing. */
int pool_co_leave_check(struct ashlar_pool *p, struct leave_check *c, struct err *e) __must_check;

/* ---- take_out.c ---- */
/* Coroutine. An empty disk that is to be removed is no member any more, durably, and its labels are wiped. -EBUSY: it is not
 * empty, or is not to be removed any more. *wiped: not if it is away, or does not answer. */
int pool_co_take_out(struct ashlar_pool *p, unsigned disk, bool *wiped) __must_check;

/* ---- balance.c ---- */
struct balance_move {
	uint64_t group, bytes;
	uint16_t from, to;
};
/* Coroutine. Moves that even out how full disks are, the fewest bytes that do; none: they are even. */
int pool_co_balance_plan(struct ashlar_pool *p, struct balance_move **out, size_t *n) __must_check;
/* Does moving n extents from one disk to the other still make them more alike? */
bool pool_balance_helps(struct ashlar_pool *p, uint64_t n, unsigned from, unsigned to);

/* ---- relocate.c ---- */
/* The job of a leaving disk, or of the rebalancing (disk LABEL_DISKS_MAX); started if there is none. */
struct pool_job *pool_relocate_job(struct ashlar_pool *p, unsigned disk);
/* Is what a job does a relocation? Then *disk, as above. */
bool pool_job_is_relocation(const struct ashlar_pool *p, const struct pool_job *j, unsigned *disk);

#endif
