/*
 * volumes.h: what the commands on volumes and snapshots share (volumes.c, snapshots.c, policy.c, info.c). Home reactor.
 *
 * Locks, in this order: a->admin (one command at a time that changes anything), p->directory, a volume's admin (its data path does
 * not come or go).
 */
#ifndef ENGINE_POOL_VOLUMES_H
#define ENGINE_POOL_VOLUMES_H

#include "engine/pool/adopt.h"
#include "engine/pool/attach.h"

#define POOL_POINT_NAME (2 * ASHLAR_VOLUME_NAME_MAX + 2)   /* VOLUME@SNAP */
#define POOL_EXPORT_NAME (ASHLAR_EXPORT_DEFAULT_MAX + 1)   /* POOL/VOLUME@SNAP */

int pool_check_writable(struct ashlar_pool *p, struct err *e) __must_check;
/* Can volumes have this layout here? NULL: the pool's own. */
int pool_check_layout(struct ashlar_pool *p, const char *name, const char *layout, struct raid_profile *prof, struct err *e) __must_check;
int pool_full_sentence(struct ashlar_pool *p, int r, const char *doing, struct err *e) __must_check;
/* NULL after a sentence. Names may be anything. */
struct thin_vol *pool_vol_find(struct ashlar_pool *p, const char *name, struct err *e);
/* VOLUME@SNAP; either. */
int pool_snap_find(struct ashlar_pool *p, const char *name, struct thin_vol **out, struct err *e) __must_check;
int pool_point_find(struct ashlar_pool *p, const char *name, struct thin_vol **out, struct err *e) __must_check;
/* VOLUME or VOLUME@SNAP of a live one. Returns buf. */
const char *pool_point_name(const struct ashlar_pool *p, const struct thin_vol *v, char buf[POOL_POINT_NAME]);
/* An export name may be used once, and never as another volume's default name. self may have it. */
/* A new name for a volume: is it free here, and will be when the moves that are wanted arrive? of: a member of the family that gets it;
 * NULL: none yet. */
int pool_check_name_free(struct ashlar_pool *p, const struct thin_vol *of, const char *name, struct err *e);
int pool_check_export_free(struct ashlar *a, const char *export_name, const struct thin_vol *self, struct err *e) __must_check;
/* Coroutine under a->admin. Hands in a changed copy of the attributes. */
int pool_co_vol_update(struct ashlar_pool *p, struct thin_vol *v, const struct thin_vol *to, struct err *e) __must_check;

/* ---- limits.c ---- */
/* The limits that come of a change to those that there are; refused with a sentence. */
int pool_limits_change(struct ashlar_pool *p, const char *name, const struct ashlar_limits *change, struct thin_limits *limits,
		       struct err *e) __must_check;
void pool_limits_get(const struct thin_vol *v, struct ashlar_limits *out);
static inline bool pool_vol_is_limited(const struct thin_vol *v)
{
	return v->limits.iops || v->limits.bps;
}

/* ---- snapshots.c ---- */
/* Coroutine. What has been written up to now counts in used_clusters and the like. */
void pool_co_vols_now(struct ashlar_pool *p);
/* Coroutine. What deleting all of these would free; they stay live meanwhile (a->admin or p->directory is held). */
int pool_co_freed_bytes(struct ashlar_pool *p, struct thin_vol *const *v, unsigned n, uint64_t *bytes) __must_check;
/* Coroutine, no lock held. The same of one, which may go meanwhile; 0 then, and if the pool has stopped. */
int pool_co_exclusive_bytes(struct ashlar_pool *p, uint64_t id, uint64_t *bytes) __must_check;
/* Coroutine under a->admin. Deletes snapshots and volumes which nobody uses or which force ends the use of: all or, on an error, none;
 * a crash in between may leave the first of them deleted. */
int pool_co_vols_delete(struct ashlar_pool *p, struct thin_vol *const *v, unsigned n, bool force, bool dry_run, uint64_t *freed_bytes,
			struct err *e) __must_check;
/* Coroutine under a->admin. Programs that do not know LABEL_INCOMPAT_* must not open the pool: durable before anything needs it. */
int pool_co_feature(struct ashlar_pool *p, uint64_t bits, struct err *e) __must_check;
/* Is this name free for a snapshot of the volume, and what it would be exported as? self may have that. */
int pool_check_new_snap(struct ashlar_pool *p, struct thin_vol *v, const char *snap, const struct thin_vol *self, struct err *e)
	__must_check;
/* All live snapshots of a volume, oldest first, room for two more behind; xfree(). */
struct thin_vol **pool_snaps_of(struct ashlar_pool *p, const struct thin_vol *v, unsigned *n);
/* ---- receive.c ---- */
/* The hidden volume in which an incremental stream to this volume is kept, or NULL. */
struct thin_vol *pool_receiver_of(struct ashlar_pool *p, const struct thin_vol *of);
/* Coroutine under a->admin. One snapshot, by the policy. */
int pool_co_snapshot_by_policy(struct ashlar_pool *p, struct thin_vol *v, const char *snap, struct err *e) __must_check;

#endif
