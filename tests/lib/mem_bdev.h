/*
 * mem_bdev.h: a sparse device in memory, for tests and benches. Reads zeros where nothing was written; 4 KiB granules of
 * allocation; status, discard, zero with its flags. Lives on one reactor; completes in a later turn of its loop (never
 * inside bdev_submit()), or after a delay by a timer. Everything is durable at once.
 */
#ifndef TESTS_LIB_MEM_BDEV_H
#define TESTS_LIB_MEM_BDEV_H

#include "engine/io/bdev.h"

struct mem_bdev;

struct mem_bdev_options {
	uint64_t size_bytes;
	uint32_t block_bytes;	/* 0: 512 */
	uint32_t opt_bytes;	/* 0: 4096 */
	uint32_t max_bytes;	/* 0: 1 MiB */
	uint64_t delay_ns;	/* of every request; 0: next turn */
	bool read_only, no_discard;
	bool no_fast_zero;	/* IO_FAST_ZERO is -EOPNOTSUPP */
	/* Called before each request is done; a negative result is its result. NULL: none. */
	int (*fault)(void *arg, struct io *io);
	void *fault_arg;
};

struct mem_bdev *mem_bdev_create(const struct mem_bdev_options *o);
void mem_bdev_destroy(struct mem_bdev *m); /* nothing in flight */
struct bdev *mem_bdev_of(struct mem_bdev *m);
struct mem_bdev_options *mem_bdev_options(struct mem_bdev *m); /* delay and fault may be changed at any time */
/* Requests so far, by enum io_op, and how many of them had IO_FUA. */
uint64_t mem_bdev_count(const struct mem_bdev *m, enum io_op op);
uint64_t mem_bdev_count_fua(const struct mem_bdev *m);
uint64_t mem_bdev_in_flight(const struct mem_bdev *m);
uint64_t mem_bdev_in_flight_bytes_max(const struct mem_bdev *m); /* highest sum of payload in flight */
/* Beside the requests. */
void mem_bdev_peek(const struct mem_bdev *m, uint64_t off_bytes, void *buf, size_t len);
void mem_bdev_poke(struct mem_bdev *m, uint64_t off_bytes, const void *buf, size_t len);

#endif
