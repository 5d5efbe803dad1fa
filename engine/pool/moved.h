/*
 * moved.h: volumes that have been moved to an export of an NBD server, or any other disk: their clients stay, and their requests go on to
 * it through us, also after a restart, until the volume is deleted. What is here is kept as it was at the switch. Private to
 * engine/pool.
 *
 *   moved.c        the job that moves, opening and closing, connecting again: home reactor
 *   moved_layer.c  requests: the volume's reactor
 */
#ifndef ENGINE_POOL_MOVED_H
#define ENGINE_POOL_MOVED_H

#include "engine/pool/pool_internal.h"

/* ---- moved.c ---- */

struct pool_moved;

static inline bool pool_vol_is_moved(const struct thin_vol *v)
{
	return v->source[0] && v->source_kind == THIN_SOURCE_MOVED;
}

/* Coroutine, v->admin held. Its data path has just been opened (closed): the way to where it is comes with it (goes). */
void pool_moved_co_open(struct ashlar_pool *p, struct thin_vol *v);
void pool_moved_co_close(struct ashlar_pool *p, struct thin_vol *v);
/* -EEXIST with a sentence if d is a disk of an open pool, or where a volume of one has been moved or is on its way to. Remote disks
 * have no locks, and nothing that is written there need look like something. */
int pool_check_not_used(struct ashlar *a, const struct disk *d, struct err *e);
/* Worker of life.h: connects again where that has broken. */
void pool_moved_co_run(void *arg);

/* ---- moved_layer.c: the volume's reactor ---- */

struct moved_layer {
	struct bdev bdev; /* clients' requests come here */
	struct ashlar_pool *p;
	struct bdev *to;  /* NULL: away: requests fail */
	const char *what; /* for events; must stay */
	unsigned n_inflight;
	struct co_queue idle;
	struct list failing; /* ios that end with -EIO at the next turn */
	struct task fail;
	uint64_t n_changed, n_flushed; /* changes that have ended well; as of the newest good flush */
	bool is_forgotten;   /* a connection has broken with changes that no flush had covered: the next flush fails */
	bool is_copy;	     /* the volume is here still: its clients get no errors */
	bool has_told;
	_Atomic bool is_broken;
};

void moved_layer_init(struct moved_layer *l, struct ashlar_pool *p, const struct bdev *like, const char *what);
/* Does not suspend; it was away. */
void moved_layer_set(struct moved_layer *l, struct bdev *to);
/* Coroutine. It is away, and nobody uses it any more. */
void moved_layer_co_take(struct moved_layer *l);

#endif
