/*
 * adopt.h: volumes that begin as the contents of something else: a file, a block device, another server's export. They are served
 * at once, and what they hold comes over in the background. Private to engine/pool.
 *
 *   adopt.c        the source, the job, the commands: home reactor
 *   adopt_layer.c  the data path meanwhile: the volume's reactor
 *
 * No bitmap says what has come over: a subcluster that is valid in the volume's map is the volume's, anything else is the source's.
 * A volume is adopted as long as its record names a source. Both are durable in the order that they must be: data, map, record.
 */
#ifndef ENGINE_POOL_ADOPT_H
#define ENGINE_POOL_ADOPT_H

#include "engine/pool/pool_internal.h"

/* ---- adopt.c ---- */

struct pool_adopt;

static inline bool pool_vol_is_adopted(const struct thin_vol *v)
{
	return v->source[0] && v->source_kind == THIN_SOURCE_ADOPTED;
}
/* The source, as long as anything is read from it; "". */
const char *pool_adopt_source(const struct thin_vol *v);

/* Coroutine, v->admin held. Its data path has just been opened (closed): the layer comes with it (goes). A source that is not there
 * is no error: what is read from it is. */
void pool_adopt_co_open(struct ashlar_pool *p, struct thin_vol *v);
void pool_adopt_co_close(struct ashlar_pool *p, struct thin_vol *v);
/* The volume goes away: its job ends soon. */
void pool_adopt_stop(struct thin_vol *v);
/* Coroutine. The size of what is to be adopted; refuses what cannot be. */
int pool_co_source_check(struct ashlar_pool *p, const char *source, uint64_t *size_bytes, struct err *e) __must_check;
/* Coroutine under a->admin. Programs that know of no sources must not open the pool. */
int pool_co_source_feature(struct ashlar_pool *p, struct err *e) __must_check;
/* -EBUSY with a sentence if it is: doing that has to wait; or if it has been moved away (moved.h). */
int pool_check_not_adopted(struct ashlar_pool *p, const struct thin_vol *v, const char *doing, struct err *e) __must_check;
/* Worker of life.h: a job for each volume that has a source. */
void pool_adopts_co_run(void *arg);

/* ---- adopt_layer.c: the volume's reactor ---- */

struct adopt_layer;
struct adopt_layer_conf {
	struct ashlar_pool *p;
	struct thin_volume *volume;
	uint32_t sub_bytes;
	uint64_t source_bytes;
	const char *what; /* for events: names the volume; must stay */
};

/* Coroutine; nothing but the layer may freeze the volume meanwhile. Without a source at first. */
struct adopt_layer *adopt_layer_co_start(const struct adopt_layer_conf *c);
/* Does not suspend. The source is there. */
void adopt_layer_set_source(struct adopt_layer *l, struct bdev *source);
/* Coroutine. Nobody uses the source any more, when it returns. */
void adopt_layer_co_take_source(struct adopt_layer *l);
/* Any reactor. Reading from the source has failed since it was set, or there is none. */
bool adopt_layer_is_broken(const struct adopt_layer *l);
/* Coroutine. All of the source is in the volume, and no record names it: the volume is treated like any other. Waits for changes that
 * began before, perhaps for space. */
void adopt_layer_co_complete(struct adopt_layer *l);
/* Coroutine; after that, nobody else may freeze the volume. What clients begin from now on goes to the volume itself. */
void adopt_layer_co_drop(struct adopt_layer *l);
/* Coroutine. Dropped, or the volume has been closed. Waits for who still reads from the source. */
void adopt_layer_co_free(struct adopt_layer *l);

struct adopt_pull {
	struct adopt_layer *layer;
	uint64_t pos_bytes;  /* in and out */
	uint64_t data_bytes; /* out: written */
	bool source_failed;  /* out */
};
/* Coroutine. Brings over what is at pos_bytes, up to a mebibyte of data, and goes on to behind it. Not flushed. */
int adopt_layer_co_pull(struct adopt_pull *x) __must_check;

#endif
