/*
 * replay.h: parsing of journal blocks, a pure function (also a fuzz target), and the replay's own checkpoint.
 */
#ifndef ENGINE_META_REPLAY_H
#define ENGINE_META_REPLAY_H

#include "engine/meta/meta.h"

struct meta_block_expect {
	struct uuid pool;
	uint64_t epoch, block;
	uint32_t prev_crc;
};

/* Is this a whole block of this pool and epoch, with every record inside it? Number and prev_crc are not looked at. */
int meta_journal_block_check(const uint8_t *buf, size_t len, const struct meta_block_expect *x) __must_check;
/* Coroutine. Applies the next record. */
int meta_replay_co_one(struct meta *m, unsigned type, const void *payload, size_t len, uint64_t seq) __must_check;
/* Coroutine. Checkpoint in the middle of a replay, so that its memory stays bounded. Nothing when read-only. */
int meta_checkpoint_co_replaying(struct meta *m) __must_check;

#endif
