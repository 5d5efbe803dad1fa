/*
 * worker.h: threads for calls that may block, where the kernel has none of its own for us (epoll_disk.c).
 *
 * A work belongs to a queue, that is to a disk: of one queue WORKERS_PER_QUEUE run at a time, so that a disk which never answers
 * leaves threads for the others. Works of a queue start in order. Threads are started as they are needed, up to WORKERS_MAX, and
 * all but one end when they have been idle for some seconds.
 */
#ifndef ENGINE_IO_WORKER_H
#define ENGINE_IO_WORKER_H

#include "engine/io/reactor.h"

#define WORKERS_MAX 256
#define WORKERS_PER_QUEUE 64

struct worker_pool;

struct work_queue {
	struct list works; /* that wait: work.link */
	struct list link;  /* in the pool, while one of them could run */
	unsigned n_waiting, n_running, n_could;
};

struct work {
	struct list link;
	struct work_queue *queue;
	struct reactor *home;
	void (*run)(struct work *w); /* on a worker's thread */
	struct msg msg;		     /* posted to home after it; run is set by the submitter */
};

void work_queue_init(struct work_queue *q);
/* 0 or -errno. */
int worker_pool_create(struct worker_pool **out);
/* Outside, when the reactors have ended. Works that have not been started never will be, and those that still run (on something
 * that does not answer) are left alone: their message is not sent. True: there are such, and what they use must stay. */
bool worker_pool_destroy(struct worker_pool *p);
/* A reactor. */
void worker_submit(struct worker_pool *p, struct work_queue *q, struct work *w);

#endif
