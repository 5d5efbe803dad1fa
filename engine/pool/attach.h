/*
 * attach.h: what attach.c offers to the commands: export names, and volumes that are open.
 */
#ifndef ENGINE_POOL_ATTACH_H
#define ENGINE_POOL_ATTACH_H

#include "engine/pool/pool_internal.h"

/* The volume or snapshot that this export name reaches, hidden ones too by their default name; NULL. */
struct thin_vol *pool_export_find(struct ashlar *a, const char *name, struct ashlar_pool **p);
/* Coroutine. The volume counts as attached, and v->open is there; must be released. -ESHUTDOWN: it is going away. */
int pool_co_vol_hold(struct ashlar_pool *p, struct thin_vol *v) __must_check;
void pool_vol_release(struct ashlar_pool *p, struct thin_vol *v);
/* Clients, without what the pool itself holds it for. */
static inline unsigned pool_vol_n_clients(const struct thin_vol *v)
{
	return v->n_attached - v->n_own;
}
/* Coroutine. The data path is open for background work, which is nobody's client: who needs the volume still asks for it
 * (pool_moves_co_yield()). */
int pool_co_vol_keep(struct ashlar_pool *p, struct thin_vol *v) __must_check;
void pool_vol_unkeep(struct ashlar_pool *p, struct thin_vol *v);
/* Coroutine. Closes its data path if nobody uses it. */
void pool_co_vol_close_idle(struct ashlar_pool *p, struct thin_vol *v);
/* Coroutine. Ends the sessions of a volume, waits until they have detached, closes its data path. */
void pool_co_vol_quiesce(struct ashlar_pool *p, struct thin_vol *v);
/* Coroutine. New size for the data path (opened for a shrink if it is not) and for who is attached. */
int pool_co_vol_resize_open(struct ashlar_pool *p, struct thin_vol *v, uint64_t size) __must_check;
/* Coroutine. Who is attached hears that the bdev has another size. */
void pool_co_vol_tell_resized(struct ashlar_pool *p, struct thin_vol *v);
/* Coroutine. Clients hear how much space there is, if that is another than they know of. */
void pool_co_attach_tell_space(struct ashlar_pool *p, uint64_t free_bytes, uint64_t total_bytes);
void pool_co_vol_set_full_wait(struct ashlar_pool *p, struct thin_vol *v, uint64_t ns);
void pool_co_vol_set_limits(struct ashlar_pool *p, struct thin_vol *v, const struct thin_limits *l);
/* Coroutine under a->admin. Something lies over its data path (mirror.h): its size must not change. */
bool pool_co_vol_is_forwarded(struct ashlar_pool *p, struct thin_vol *v);
/* ---- a volume has gone to another pool, and forwards ---- */
/* Home, does not suspend. Its clients are those of `now` from here on; they use, and count at, the old data path until they let go. */
void pool_attach_repoint(struct ashlar_pool *p, struct thin_vol *v, struct ashlar_pool *to, struct thin_vol *now);
/* Are there some who came from another pool, and have not let go yet? */
bool pool_attach_any_old(const struct ashlar_pool *p, const struct thin_vol *v);
/* Coroutine. Clients who can take the new data path, which they are clients of, do. */
void pool_co_attach_let_go(struct ashlar_pool *p, struct thin_vol *v);

/* Home: what is attached, and its pool. */
/* Of pool and volume, mixed so that any few bytes of it differ; the same for as long as it is there. Or what it was in the pool that it
 * has come from; unless somebody else is that now: who has been taken back from a pool that is here again. */
void pool_vol_identity(struct ashlar_pool *p, const struct thin_vol *v, struct uuid *out);
/* Cheap; if not, it is another one. */
bool pool_vol_may_be(const struct ashlar_pool *p, const struct thin_vol *v, const struct uuid *identity);
struct thin_vol *pool_attach_vol(const struct ashlar_attach *at, struct ashlar_pool **p);
struct reactor *pool_attach_reactor(const struct ashlar_attach *at); /* any reactor: where its pool lives */

#endif
