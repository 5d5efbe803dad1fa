/*
 * mirror.h: while a volume is being moved: what its clients change is changed in a second place as well. Private to engine/pool; all
 * on the volume's home reactor, where the second bdev's requests are submitted too.
 *
 * The order of a change is: lock its range, the volume and the second place, answer. So overlapping ones are done in the same order in
 * both, and where the volume has refused one the second place gets what the volume has. Nothing here is durable or survives the process.
 *
 * Start, hold and end use the volume's freeze: nobody else may freeze it meanwhile (a->admin). In between it may be frozen (snapshots),
 * but its contents must not be exchanged (rollback, receive) nor its size: resizing is refused as long as it has a mirror.
 */
#ifndef ENGINE_POOL_MIRROR_H
#define ENGINE_POOL_MIRROR_H

#include "engine/pool/pool_internal.h"

struct pool_mirror;

/* Coroutine. When it returns, every request that began before has ended, and from then on what a client changes (write, discard,
 * zero, with their flags) has been done in both places before it is answered; a flush flushes both. Reads are the volume's. An error
 * of the second place is kept (pool_mirror_error()), no client sees it, and it is not written to any more. `to` is at least as large
 * as the volume, its blocks are no larger (else -EINVAL), and it does not wait for space. */
int pool_mirror_co_start(struct thin_volume *v, struct bdev *to, struct pool_mirror **out) __must_check;
/* Coroutine, not held. The range is copied as it is now (block by block against the clients' changes: a range lock), holes as holes.
 * Not flushed. *copied_bytes: what was not a hole. An error is the volume's, or that of the second place, which is kept then. */
int pool_mirror_co_copy(struct pool_mirror *m, uint64_t off_bytes, uint64_t len_bytes, uint64_t *copied_bytes) __must_check;
int pool_mirror_error(const struct pool_mirror *m);
/* Coroutine; no copy is under way. From now on clients' requests, reads too, are held back; returns when those under way have ended
 * (those that wait for space have not begun). The volume is frozen with reads then (thin_volume_map_replaced() may be called). */
void pool_mirror_co_hold(struct pool_mirror *m);
/* Held; does not suspend. Goes on, with what was held: with the volume alone (NULL), or with that bdev instead (`to`, or what is like
 * it), until the volume is closed. Frees m. */
void pool_mirror_end(struct pool_mirror *m, struct bdev *instead);

#endif
