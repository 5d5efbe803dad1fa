/*
 * real.h: the real world: N threads, O_DIRECT disks, sockets.
 *
 * There are two ways to the kernel: io_uring; and where that is refused (containers, kernel.io_uring_disabled) epoll with Linux
 * AIO. What is above cannot tell them apart; what differs is in docs/decisions.md.
 */
#ifndef ENGINE_IO_REAL_H
#define ENGINE_IO_REAL_H

#include "engine/io/reactor.h"

enum real_io {
	REAL_IO_AUTO, /* io_uring if the kernel lets us, else AIO */
	REAL_IO_URING,
	REAL_IO_AIO,
};

struct real_options {
	unsigned n_reactors;	 /* 0: one per CPU of the affinity mask */
	size_t arena_bytes;	 /* per reactor, 0: 16 MiB */
	enum real_io io;
	bool no_register;	 /* for tests: no registered files and buffers */
	bool no_aio;		 /* for tests: nothing by io_submit() (see real_aio.c); without io_uring that leaves worker threads */
};

/* "uring", "aio", "auto"; false: none of them. */
bool real_io_parse(const char *text, enum real_io *io);

/* Starts the threads. Any thread outside; one world per process at a time is usual, more are allowed. */
int real_world_create(const struct real_options *o, struct world **out, struct err *e) __must_check;
/* The way taken: "uring" or "aio". *why: -errno if the kernel refuses io_uring, and that is the reason; else 0. */
const char *real_world_io(const struct world *w, int *why);
/* Runs fn(arg) in a service coroutine on reactor 0, waits for it to return and gives its result. Outside thread. */
int real_world_run(struct world *w, int (*fn)(void *arg), void *arg);
/* Stops the loops and joins the threads; nothing may be in flight any more. Outside thread. */
void real_world_destroy(struct world *w);

#endif
