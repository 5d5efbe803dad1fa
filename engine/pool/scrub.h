/*
 * scrub.h: what the two halves of scrubbing share. Private to scrub.c and scrub_resolve.c; home reactor.
 */
#ifndef ENGINE_POOL_SCRUB_H
#define ENGINE_POOL_SCRUB_H

#include "engine/pool/life.h"

#define SCRUB_FOUND_MAX 4096 /* clusters, before they are looked into */

/* A cluster in which columns disagree. */
struct scrub_found {
	struct hash_node node; /* by cluster */
	uint16_t subs;	       /* which subclusters */
};

struct scrub_run {
	struct ashlar_pool *p;
	struct pool_job *job;
	bool repair;
	uint64_t group; /* being read */
	struct hash found;
	struct hash rows; /* reported already: struct hash_node by place of the row */
	uint64_t unreadable_bytes, repaired_bytes;
};

void scrub_found_add(struct scrub_run *s, uint64_t off_bytes, uint64_t len_bytes);
/* Coroutine. Which of what has been found is data of a volume, or protects some: looked at again, reported, with `repair`
 * mended. Forgets what was found. */
int scrub_co_resolve(struct scrub_run *s) __must_check;
void scrub_forget(struct scrub_run *s);

#endif
