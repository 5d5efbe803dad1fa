/*
 * ranges.h: which parts of a volume or snapshot have to be copied, in ascending order: all that it holds, or what differs from another
 * member of its family. Comes from the maps, looks at no data. Coroutines on the pool's home reactor.
 */
#ifndef ENGINE_POOL_RANGES_H
#define ENGINE_POOL_RANGES_H

#include "engine/pool/pool_internal.h"

#define RANGES_EXTENTS 64

struct ranges {
	struct ashlar_pool *p;
	struct thin_vol *from, *to;
	struct ashlar_range cur; /* found, not taken yet; len 0: none, after ranges_co_find() for good */
	/* private */
	uint64_t start_bytes, size_bytes, sub_bytes, pos_bytes;
	bool has_all;
	struct bdev_extent ext[RANGES_EXTENTS];
	size_t n_ext, at_ext;
	uint64_t cluster;
	uint16_t mask, data;
	unsigned sub;
};

/* From start_bytes on, a multiple of a subcluster. from NULL: what `to`, which is open, holds; else what differs, both stay there. The
 * size is that of `to`. */
void ranges_init(struct ranges *x, struct ashlar_pool *p, struct thin_vol *from, struct thin_vol *to, uint64_t start_bytes);
/* x->cur is the next one, or there is none. */
int ranges_co_find(struct ranges *x) __must_check;
/* Found before. Takes from it, and what follows it without a gap and is of the same kind, at most max bytes; the next is found then. */
int ranges_co_take(struct ranges *x, uint64_t max, struct ashlar_range *out) __must_check;

#endif
