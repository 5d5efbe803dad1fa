/*
 * parcel_stream.h: a stream that is kept in memory: one end at a time, in the simulated world. It may be slow, and end early.
 */
#ifndef TESTS_LIB_PARCEL_STREAM_H
#define TESTS_LIB_PARCEL_STREAM_H

#include "engine/io/net.h"

struct parcel_way {
	uint64_t seed;
	uint64_t slow_ns;  /* each operation may take so long */
	size_t max_bytes;  /* more than that does not come through; SIZE_MAX: no limit */
	const bool *stop;  /* it ends when that is set; may be NULL */
	/* Coroutine, may be NULL: the reader is about to get n bytes from `at` on. False: the stream ends instead. */
	bool (*co_before)(void *arg, size_t at, size_t n);
	void *arg;
	size_t first_bytes; /* the first that is read is so long at most */
};

/* Gives the bytes, which stay the caller's, to whoever reads. */
struct stream *parcel_stream_from(const uint8_t *bytes, size_t len, const struct parcel_way *way);
/* Takes what is written. */
struct stream *parcel_stream_to(const struct parcel_way *way);
/* Closes it. What was written: by malloc(), as it outlives the world. */
uint8_t *parcel_stream_take(struct stream *s, size_t *len);

#endif
