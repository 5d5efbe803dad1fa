/*
 * uring.h: the real world: N threads, one io_uring each, O_DIRECT disks, sockets.
 */
#ifndef ENGINE_IO_URING_H
#define ENGINE_IO_URING_H

#include "engine/io/reactor.h"

struct uring_options {
	unsigned n_reactors;	 /* 0: one per CPU of the affinity mask */
	size_t arena_bytes;	 /* per reactor, 0: 16 MiB */
	bool no_register;	 /* for tests: no registered files and buffers */
	bool no_aio;		 /* memory and devices without RWF_NOWAIT by io_uring, too (default: by io_submit, see uring_aio.c) */
};

/* Starts the threads. Any thread outside; one world per process at a time is usual, more are allowed. */
int uring_world_create(const struct uring_options *o, struct world **out, struct err *e) __must_check;
/* Runs fn(arg) in a service coroutine on reactor 0, waits for it to return and gives its result. Outside thread. */
int uring_world_run(struct world *w, int (*fn)(void *arg), void *arg);
/* Stops the loops and joins the threads; nothing may be in flight any more. Outside thread. */
void uring_world_destroy(struct world *w);

#endif
