/*
 * thin_flags.h: is it true what the thin layer says of its writes (IO_FRESH, IO_OVERWRITE)? Judged from outside: from the
 * records that are applied, from which of them are durable, and from the writes themselves.
 *
 * IO_FRESH: no map refers to the place: not the one that a power cut would bring back now, and none that a record since then
 * has made. What a power cut finds of such writes without a flush after them becomes junk, as a parity layout may leave it.
 * IO_OVERWRITE: the place has been written since it was last fresh, or since its cluster was last free.
 *
 * Memory is the C library's, so that it outlives the world that a crash drops.
 */
#ifndef TESTS_LIB_THIN_FLAGS_H
#define TESTS_LIB_THIN_FLAGS_H

#include "engine/io/sim.h"
#include "thin/thin.h"

struct thin_flags;

struct thin_flags *thin_flags_create(uint64_t seed, uint64_t size_bytes, uint32_t cluster_bytes, uint32_t block_bytes);
void thin_flags_destroy(struct thin_flags *f);

/* The world is gone. cut: by a power cut, which disk 0 of ds has just had; else ds is NULL. */
void thin_flags_world_gone(struct thin_flags *f, struct sim_disks *ds);
/* Coroutine. A pool is there, and nothing has been asked of it yet; fresh: it is empty. */
int thin_flags_co_load(struct thin_flags *f, struct meta *m, struct thin *t, bool fresh) __must_check;
/* Coroutine. A record has been applied. */
void thin_flags_co_record(struct thin_flags *f, unsigned type, const void *payload, size_t len, uint64_t seq);

/* A write begins and ends; mark is the caller's to keep in between. */
struct thin_flags_mark;
struct thin_flags_mark *thin_flags_write_begin(struct thin_flags *f, const struct io *io);
void thin_flags_write_end(struct thin_flags *f, struct thin_flags_mark *mark, const struct io *io, int result);
/* A flush begins, and has succeeded: writes that had ended at `since` are durable. */
uint64_t thin_flags_flush_begin(struct thin_flags *f);
void thin_flags_flush_end(struct thin_flags *f, uint64_t since);

/* Statements that were wrong (printed), and statements that were made. */
struct thin_flags_sum {
	unsigned problems;
	uint64_t fresh, overwrite, neither;
};
struct thin_flags_sum thin_flags_sum(const struct thin_flags *f);

#endif
