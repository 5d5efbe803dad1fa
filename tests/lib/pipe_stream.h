/*
 * pipe_stream.h: two connected streams in memory with a bounded buffer each way, like a socket pair, for the simulated
 * world: a client can be slow, stop reading, or go away. Both ends live on one reactor.
 */
#ifndef TESTS_LIB_PIPE_STREAM_H
#define TESTS_LIB_PIPE_STREAM_H

#include "engine/io/net.h"

void pipe_stream_pair(size_t cap_bytes, struct stream **a, struct stream **b);

#endif
