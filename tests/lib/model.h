/*
 * model.h: the oracle: which values each sector of each volume may have, by the durability contract (DESIGN.md section 8).
 *
 * Every write is an operation with a number that no other has; its payload carries (volume, operation, sector) all over, so
 * a sector that is read says who wrote it. Per sector the model keeps the candidates: values that a read may still return
 * now, or after a power cut. Time is a counter that moves with every begin and end of an operation.
 *
 *   - A write that began after another had ended hides it: later reads do not return the hidden one. A read that returned
 *     a value hides what had ended before it, or before that value's write, began: two reads after each other agree.
 *   - A flush makes durable the operations that had ended before it began, FUA its own. A durable operation that began
 *     after another had ended overrules it for good: no power cut brings that one back.
 *   - An operation that failed, or was under way at a crash, may or may not have happened, sector by sector.
 *   - So it is if nothing but the process was lost; but what it had shown of such an operation to a read, stays, unless a disk is lost too:
 *     it may have been the only one that had it.
 *   - After a crash a sector has any value that is not overruled. The first read pins it: from then on there is but one.
 *
 * Volumes are created, deleted, resized and renamed whole or not at all: one such operation at a time per volume.
 *
 *   - A range that is shared with another one has there, sector by sector, what a read of the source could have returned meanwhile.
 *   - A snapshot shows each volume as of one instant between the begin and the end of the call. Its sectors have candidates
 *     too: what the volume could return when the call began, and what was begun until it ended. The first read decides, for
 *     good. All that is read in snapshots taken by one call bounds that instant: it is after the begin of what is in, and not
 *     after the end of what is not; where no instant is left, something was acknowledged before something that is in, and is not.
 *   - A clone and a rolled back volume have as candidates what the snapshot has, as if one operation had written it all. What is
 *     read there decides about the snapshot as well. A rollback is seen as a whole by each read, and by what follows a crash.
 *   - What a stream brings is an image: what a snapshot held, all of whose sectors had been read. To receive it is to clone, or
 *     roll back to, a snapshot that comes into being with it: both are there after a crash, or neither.
 *
 * No engine in here, no I/O; one thread. Violations are printed to stderr, with the sector's history.
 */
#ifndef TESTS_LIB_MODEL_H
#define TESTS_LIB_MODEL_H

#include "engine/base/base.h"

#define MODEL_SECTOR 512
#define MODEL_NAME_MAX 32

struct model;

enum model_kind {
	MODEL_WRITE,
	MODEL_ZERO, /* zero, and discard of what it promises to clear */
	MODEL_COPY, /* clone, rollback: the values are those of other operations */
	MODEL_SHARE, /* a range of another place, by sharing clusters: likewise */
};

/* What is in a sector: the operation that wrote it, and where that was, which is elsewhere after a MODEL_SHARE; zeros: the operation alone. */
typedef uint64_t model_val;
static inline model_val model_val_of(uint32_t op, uint64_t sector) { return op | sector << 32; }
static inline uint32_t model_val_op(model_val val) { return (uint32_t)val; }


enum model_vol_state {
	MODEL_CREATING, /* there or not */
	MODEL_LIVE,
	MODEL_DELETING, /* there or not */
	MODEL_GONE,
};

struct model_cand {
	uint32_t op;	/* 0: never written, zeros */
	uint32_t hidden; /* when; UINT32_MAX: visible */
	model_val val;	/* the operation's own, or what a copy found */
};

struct model_sector {
	struct model_cand one; /* the only one while n <= 1 */
	uint16_t n, cap;
	struct model_cand *many;
};

/* A volume, or a snapshot. */
struct model_vol {
	unsigned index; /* of volumes: in the stamp, + 1 */
	enum model_vol_state state;
	char name[MODEL_NAME_MAX], new_name[MODEL_NAME_MAX]; /* new_name: being renamed to, or empty */
	uint64_t size_bytes, new_size_bytes;		     /* new_size: being resized to, or 0 */
	uint32_t resize_op;				     /* shrinking: what clears the tail */
	uint64_t n_sectors;				     /* room in the table */
	struct model_sector *sectors;
	uint32_t *unflushed; /* ops that have ended well and are not durable */
	size_t n_unflushed, cap_unflushed;
	unsigned n_changes; /* resizes, deletions and rollbacks begun */
	uint32_t rule, new_rule; /* who may see it: a number that the rig makes a rule of; 0: everybody */
	bool ruling;		 /* one is being changed to the other, or was at the last crash */
	unsigned n_busy;    /* the rig's: operations on it and its snapshots under way; 0 after a crash */
	uint32_t rollback_op; /* the newest */
	bool rolling;	      /* it is under way, or was at the last crash */
	uint8_t rolled;	      /* then: MODEL_FATE_*, by what has been read since */
	uint32_t limits, new_limits; /* a number that says all of them; 0: none */
	bool limiting;		     /* new_limits are being set */
	uint32_t note, new_note;     /* likewise: what a frontend keeps with it */
	bool noting;
	bool is_snap;
	unsigned parent, set; /* of snapshots: index of the volume; those of one call have one set */
	uint32_t content;     /* likewise: a number; one that was received has its origin's */
};
enum { MODEL_FATE_UNKNOWN, MODEL_FATE_YES, MODEL_FATE_NO };

struct model *model_create(void);
struct model *model_clone(const struct model *m);
void model_destroy(struct model *m);

unsigned model_n_vols(const struct model *m);
struct model_vol *model_vol(struct model *m, unsigned i);
/* The one that has this name, or may have it. NULL: none. */
struct model_vol *model_vol_find(struct model *m, const char *name);

/* ---- data ---- */

/* Starts an operation on whole sectors and returns its number. */
uint32_t model_begin(struct model *m, struct model_vol *v, enum model_kind kind, uint64_t off_bytes, uint64_t len_bytes);
/* The payload of a write. */
void model_stamp(const struct model_vol *v, uint32_t op, uint64_t off_bytes, uint64_t len_bytes, void *buf);
/* ok: it succeeded; else it may have happened in part. weak: it may have done nothing although it succeeded (a discard of
 * less than it can clear). */
void model_end(struct model *m, struct model_vol *v, uint32_t op, uint64_t off_bytes, uint64_t len_bytes, bool ok, bool fua,
	       bool weak);
uint32_t model_now(struct model *m);
/* Everything that had ended before `since` is durable. */
void model_flushed(struct model *m, struct model_vol *v, uint32_t since);

/* A read that began at `since` has returned buf. Returns the number of violations, after printing the first. */
unsigned model_read(struct model *m, struct model_vol *v, uint32_t since, uint64_t off_bytes, uint64_t len_bytes,
		    const void *buf);
/* A read is about to begin; until model_read_end() candidates are kept for it. Returns `since`. */
uint32_t model_read_begin(struct model *m);
void model_read_end(struct model *m, uint32_t since);

/* ---- volumes ---- */

struct model_vol *model_vol_create(struct model *m, const char *name, uint64_t size_bytes); /* MODEL_CREATING */
void model_vol_created(struct model *m, struct model_vol *v, bool ok);
void model_vol_delete(struct model *m, struct model_vol *v); /* MODEL_DELETING */
void model_vol_deleted(struct model *m, struct model_vol *v, bool ok);
void model_vol_rename(struct model_vol *v, const char *name);
void model_vol_renamed(struct model_vol *v, bool ok);
void model_vol_rule(struct model_vol *v, uint32_t rule);
void model_vol_ruled(struct model_vol *v, bool ok);
/* What holds after a crash. False: it cannot be. */
bool model_vol_settle_rule(struct model_vol *v, uint32_t rule);
void model_vol_resize(struct model *m, struct model_vol *v, uint64_t size_bytes);
void model_vol_resized(struct model *m, struct model_vol *v, bool ok);
void model_vol_limit(struct model_vol *v, uint32_t limits);
void model_vol_limited(struct model_vol *v, bool ok);
/* These have come through. False: they cannot have. */
bool model_vol_settle_limits(struct model_vol *v, uint32_t limits);
void model_vol_note(struct model_vol *v, uint32_t note);
void model_vol_noted(struct model_vol *v, bool ok);
bool model_vol_settle_note(struct model_vol *v, uint32_t note);

/* ---- shared ranges: model_share.c ---- */

/* Whole sectors of `to` are about to become what those of `from` are; the same volume is fine, if they do not overlap. Returns a number for
 * model_shared(). Neither changes its size meanwhile, nor is rolled back, nor are snapshots of them taken. */
uint32_t model_share(struct model *m, struct model_vol *from, uint64_t from_bytes, struct model_vol *to, uint64_t to_bytes, uint64_t len_bytes);
/* ok: all of it has; else any of it may have. */
void model_shared(struct model *m, uint32_t op, bool ok);

/* ---- snapshots: model_family.c. They are not among the volumes. ---- */

unsigned model_n_snaps(const struct model *m);
struct model_vol *model_snap(struct model *m, unsigned i);
/* By either name, in this volume; not those that are gone. */
struct model_vol *model_snap_find(struct model *m, const struct model_vol *volume, const char *name);
unsigned model_snaps_of(struct model *m, const struct model_vol *volume); /* LIVE ones */

/* A call that takes snapshots begins: a number for model_snap_take(). */
unsigned model_snap_set(struct model *m);
struct model_vol *model_snap_take(struct model *m, unsigned set, struct model_vol *volume, const char *name);
void model_snap_taken(struct model *m, unsigned set, bool ok);
/* model_vol_delete(), _deleted(), _rename(), _renamed() are for snapshots too. */

struct model_vol *model_vol_clone(struct model *m, struct model_vol *snap, const char *name); /* MODEL_CREATING */
void model_vol_cloned(struct model *m, struct model_vol *v, bool ok);
void model_vol_rollback(struct model *m, struct model_vol *v, struct model_vol *snap);
void model_vol_rolled_back(struct model *m, struct model_vol *v, bool ok);
/* After a crash, all volumes and snapshots settled: were snapshots of one call all there, or none? */
bool model_sets_settle(struct model *m);

/* ---- streams: model_transfer.c ---- */

struct model_image;
/* What is in a snapshot that has been read as a whole. NULL: not all of it is decided. Depends on nothing afterwards. */
struct model_image *model_image_take(struct model *m, const struct model_vol *snap);
void model_image_free(struct model_image *x);
uint32_t model_image_content(const struct model_image *x);
/* Could a read of all of v, begun now, return this? */
bool model_image_may_be(struct model *m, const struct model_vol *v, const struct model_image *x);
/* Has it a LIVE snapshot of that content? */
bool model_vol_has(struct model *m, const struct model_vol *v, uint32_t content);
/* The last byte of a stream is about to arrive: v gets the image and the snapshot; v NULL: a new volume does. Returns a number for
 * model_received(). */
unsigned model_receive(struct model *m, struct model_vol *v, const char *name, const char *snap_name, const struct model_image *x);
void model_received(struct model *m, unsigned set, bool ok);

/* After a crash: what is there. NULL name: no volume with either name. False, after printing, if that cannot be. */
bool model_vol_settle(struct model *m, struct model_vol *v, const char *name, uint64_t size_bytes);

/* Power cut, or the end of a process that keeps nothing. What is under way may have happened. */
void model_crash(struct model *m);
/* After model_kill(): a disk is lost as well. Of what was under way nobody had been told that it is done. */
void model_lost(struct model *m);
/* The process was killed, and what it needs is kept (engine/io/keep.h): what is under way may have happened, and nothing that had
 * ended is lost. Whatever no flush has covered still goes with the power. */
void model_kill(struct model *m);

#endif
