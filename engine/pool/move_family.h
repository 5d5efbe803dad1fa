/*
 * move_family.h: a volume, its snapshots, its clones and theirs move to another layout, or to another pool, while they are in use.
 * Private to engine/pool; home reactor.
 *
 *   move_family.c  the worker: which families are to be moved, what is to be done next; letting go
 *   move_copy.c    the copy of one member, in an order in which what is shared here is shared there
 *   move_live.c    copies of what clients write to meanwhile
 *   move_switch.c  the moment from which on the copies are the family; and what a crash has left of it
 *   move_cmds.c    commands
 *   move_back.c    pools that go away in the middle of it
 *
 * What is wanted is in the records of the members (thin_format.h: move_*), what has been copied in those of the copies. So a move
 * goes on after a crash, as soon as all pools are open that it needs.
 */
#ifndef ENGINE_POOL_MOVE_FAMILY_H
#define ENGINE_POOL_MOVE_FAMILY_H

#include "engine/pool/life.h"
#include "engine/pool/mirror.h"
#include "engine/pool/volumes.h"

/* A volume whose changes are made in both places. */
struct move_live {
	uint64_t id;
	struct thin_vol *v, *copy; /* kept */
	struct thin_vol *base;	   /* the snapshot that the copy began with; kept until they are equal, NULL then */
	uint64_t base_id, map_gen; /* its id; v's, as it was then */
	struct pool_mirror *mirror;
	bool is_equal; /* nothing is left to be copied */
};

/* One per family, while its move is wanted. */
struct pool_move {
	struct list link; /* a->moves */
	struct ashlar_pool *p, *to; /* to: p itself, or NULL while the other pool is not open */
	uint64_t family;
	struct uuid to_uuid; /* zero: this pool */
	struct thin_class cls;
	struct pool_job *job;
	bool seen, runs, paused;
	bool counted;	   /* the job knows how much there is to be copied */
	bool let_go;	   /* somebody needs a volume that it keeps, and holds a->admin */
	bool holds;	   /* it keeps some */
	uint64_t retry_ns; /* not before that; 0: at once */
	struct move_live *live;
	unsigned n_live;
};

/* ---- move_family.c ---- */
/* Coroutine under a->admin. If a move keeps this volume or snapshot, it lets go of it; it begins again behind the lock. */
void pool_moves_co_yield(struct ashlar_pool *p, const struct thin_vol *v);
/* Coroutine under a->admin: the pool is about to be closed. No move from or to it goes on; they are there again when it is open again. */
void pool_moves_co_stop(struct ashlar_pool *p);
/* Does not suspend. The family of v is to be moved, as its record says: the job is there from now on, with so much to be copied. */
void pool_move_begin(struct ashlar_pool *p, const struct thin_vol *v, uint64_t bytes);
/* The move of a family; NULL. */
struct pool_move *pool_move_find(struct ashlar_pool *p, uint64_t family);
bool pool_is_usable(const struct ashlar_pool *p); /* by moves; NULL: no */
struct ashlar_pool *pool_by_uuid(struct ashlar *a, const struct uuid *uuid);
/* Coroutine. Takes a->admin; false: it does not, since it is to let go, or there is nothing more to be done. */
bool move_co_admin(struct pool_move *mv);
static inline void move_admin_unlock(struct pool_move *mv) { co_mutex_unlock(&mv->p->a->admin); }
/* Has it to stop what it does now? */
bool move_must_stop(const struct pool_move *mv);
/* Records that concern the family. */
struct thin_rec_move move_rec(const struct pool_move *mv, uint8_t what);

/* ---- move_copy.c ---- */
/* The pool that the copies say they come from. */
static inline const struct uuid *move_from(const struct pool_move *mv) { return &mv->p->label->pool; }
static inline bool move_is_point(const struct thin_vol *v)
{
	return v->kind == THIN_KIND_SNAPSHOT && (v->state == THIN_VOLUME_LIVE || v->state == THIN_VOLUME_STILL);
}
struct thin_vol *move_copy_of(const struct pool_move *mv, const struct thin_vol *of); /* NULL */
bool move_copy_is_complete(const struct thin_vol *copy);
/* Coroutine under a->admin. An empty copy, or one that is what the copy of `base` is. */
int move_co_copy_create(struct pool_move *mv, struct thin_vol *of, struct thin_vol *base, struct thin_vol **out, struct err *e) __must_check;
/* Coroutine under a->admin. */
int move_co_copy_drop(struct pool_move *mv, struct thin_vol *copy, struct err *e) __must_check;
/* Coroutine under a->admin. Copies that are of no use any more are dropped: of members that are gone, or begun with something else. */
int move_co_tidy(struct pool_move *mv, struct err *e) __must_check;
/* Coroutine. All that a snapshot has is in its copy, from where it was left. -ECANCELED: it had to let go. */
int move_co_fill(struct pool_move *mv, struct thin_vol *of, struct thin_vol *base, struct thin_vol *copy, struct err *e) __must_check;
/* How much is copied at once now: as much as the clients of both pools bear; whole stripes, since parts of them cost more. */
uint64_t move_unit(const struct pool_move *mv, uint64_t most);
/* What went wrong with reading, or writing: a sentence. */
/* Coroutine. The first block in there that cannot be read. */
uint64_t move_co_probe(struct pool_move *mv, const struct thin_vol *of, uint64_t off_bytes, uint64_t len_bytes);
int move_read_failed(struct pool_move *mv, const struct thin_vol *of, uint64_t off_bytes, int r, struct err *e);
int move_write_failed(struct pool_move *mv, int r, struct err *e);

/* ---- move_live.c ---- */
/* Coroutine under a->admin. Every volume of the family has a mirror, that begins with the copy of what it was last. */
int move_co_live_start(struct pool_move *mv, struct err *e) __must_check;
/* Coroutine. All are equal. -ECANCELED: it had to let go. */
int move_co_live_copy(struct pool_move *mv, struct err *e) __must_check;
/* Coroutine under a->admin, or while who holds it waits. No mirror is left, and nothing is kept. */
void move_co_live_stop(struct pool_move *mv);
/* Coroutine, under a->admin. One of them. */
void move_co_live_end(struct pool_move *mv, struct move_live *l);

/* ---- move_switch.c ---- */
/* Coroutine under a->admin. 1: the copies are the family now; 0: something is to be copied first. */
int move_co_switch(struct pool_move *mv, struct err *e) __must_check;
/* Coroutine under a->admin. Families that have been handed over: what is left to be done, if the pools that are open allow it. */
void pool_co_handed_finish(struct ashlar_pool *p);
/* Is it a volume of the other pool, which is open, and here only because somebody has not let go yet? */
bool pool_handed_has_arrived(struct ashlar_pool *p, const struct thin_vol *v);
/* Coroutine under a->admin. Copies that belong to no move: their pool is open, and does not want it. */
void pool_co_orphans_drop(struct ashlar_pool *p);

/* ---- move_cmds.c ---- */
/* Members of a family that are LIVE, in order of their ids; xfree(). */
struct thin_vol **pool_family_members(struct ashlar_pool *p, uint64_t family, unsigned *n);
/* The volume's family as a person calls it. */
const char *pool_family_name(struct ashlar_pool *p, uint64_t family, char *buf, size_t len);
/* A volume that has been handed over to another pool, and is not gone from here yet; NULL. */
struct thin_vol *pool_handed_find(struct ashlar_pool *p, const char *name);
/* Where it is being moved, or has been: "" if it is not. Returns buf. */
const char *pool_move_text(struct ashlar_pool *p, const struct thin_vol *v, char *buf, size_t len);
/* Coroutine. A move by the number of its job. */
int pool_co_move_pause(struct ashlar_pool *p, uint64_t job, bool pause, struct err *e) __must_check;
/* Coroutine under a->admin. The intent, durably; flags 0: none. */
int pool_co_move_want(struct ashlar_pool *p, uint64_t family, const struct uuid *to, struct thin_class cls, unsigned flags) __must_check;

/* ---- move_back.c ---- */
/* Volumes are between this pool and another: what would be lost with it, and what to do first. */
int pool_check_moves_destroy(struct ashlar_pool *p, struct err *e) __must_check;

#endif
