/*
 * reactor.h: one thread, one event loop, and the seam to the outside world.
 *
 * Everything mutable has one home reactor; whoever must touch it posts a message or calls there. A reactor runs, in this
 * order and again and again: messages from other reactors, ready tasks, expired timers, loop-end hooks, then its world's
 * poll (submit what was queued, wait if idle, complete what is done).
 *
 * `struct world` is the seam of DESIGN.md section 4: all disk and socket I/O, time and randomness pass it. Behind it is
 * the real world (real.h: threads and io_uring) or the simulated one (sim.h: all reactors in one thread, one seed).
 * Code above engine/io never calls libc for time, randomness, files or sockets.
 *
 * Thread-local state exists in one place: reactor_self() and co_self() know who runs on this thread.
 */
#ifndef ENGINE_IO_REACTOR_H
#define ENGINE_IO_REACTOR_H

#include <stdatomic.h>
#include "engine/base/base.h"
#include "engine/base/err.h"
#include "engine/base/list.h"

struct world;
struct reactor;
struct disk;
struct io;
struct net_op;
struct co;

#define REACTORS_MAX 64

/* A unit of ready work. Owner embeds it; `run` is called once per reactor_ready(). */
struct task {
	struct list link; /* list_init() before first use; on the ready list while queued */
	void (*run)(struct task *t);
};

/* A message to a reactor: from any thread, embedded by its owner, runs once on the target. */
struct msg {
	_Atomic(struct msg *) next;
	void (*run)(struct msg *m);
};

struct timer {
	uint64_t deadline_ns;
	void (*fire)(struct timer *t);
	size_t heap_pos; /* 0: not armed (positions count from 1) */
};

/* Called at the end of every loop in which it was requested by reactor_hook(); one-shot. For batching (replies, records). */
struct loop_hook {
	struct list link;
	void (*run)(struct loop_hook *h);
};

struct world_ops {
	uint64_t (*now_ns)(struct world *w);  /* monotonic */
	uint64_t (*wall_ns)(struct world *w); /* since 1970, for display only: nothing is ordered by it */
	void (*random)(struct world *w, void *buf, size_t len); /* real: getrandom */
	void (*kick)(struct world *w, struct reactor *to);	/* any thread: `to` has a message */
	/* Disks: see disk.h. open/probe may block for milliseconds, and opening may suspend (control path, any reactor). */
	int (*disk_co_open)(struct world *w, const char *path, unsigned flags, struct disk **out, struct err *e);
	int (*disk_probe)(struct world *w, const char *path, char *what, size_t len, struct err *e);
	/* Sockets: see net.h. NULL in worlds without network. */
	void (*net_submit)(struct world *w, struct net_op *op);
	/* Registered buffer arena of the current reactor, see buf.h. NULL: plain memory. */
	void *(*arena)(struct reactor *r, size_t *len);
	/* Kept memory, see keep.h. NULL: there is none. */
	int (*keep_open)(struct world *w, const char *name, bool read_only, void **mem, size_t *bytes);
	int (*keep_create)(struct world *w, const char *name, size_t bytes, void **mem);
	void (*keep_close)(struct world *w, const char *name, void *mem, size_t bytes, bool forget);
};

struct world {
	const struct world_ops *ops;
	unsigned n_reactors;
	struct reactor *reactors[REACTORS_MAX];
};

struct timer_heap {
	struct timer **v; /* v[1..n] */
	size_t n, cap;
};

struct reactor {
	struct world *world;
	unsigned index;
	struct list ready;
	struct list hooks;
	struct timer_heap timers;
	/* inbox: multi-producer, single-consumer queue (Vyukov) */
	_Atomic(struct msg *) inbox_tail;
	struct msg *inbox_head;
	struct msg inbox_stub;
	_Atomic bool sleeping; /* real world: set before it blocks; a poster that sees it kicks */
	uint64_t lazy;	       /* a bit for each reactor that may sleep on messages of reactor_post_lazy() from here */
	unsigned n_lazy;       /* messages since */
	struct timer lazy_timer;
	struct co_pool *cos;
	struct buf_pool *bufs;
	uint64_t now_ns; /* cached by the world's loop; reactor_now_ns() */
	void *backend;	 /* the world's own state of this reactor */
	/* Counters, read by stats from anywhere (relaxed). */
	_Atomic uint64_t n_loops, n_tasks, n_msgs;
};

/* The reactor whose loop runs on this thread; NULL outside. In the simulated world: the one being stepped. */
struct reactor *reactor_self(void);
/* Time as of this loop (cheap) and as of now. Context: any reactor. */
uint64_t reactor_now_ns(void);
uint64_t world_now_ns(struct world *w);
void world_random(struct world *w, void *buf, size_t len);

/* Current reactor only. */
void reactor_ready(struct task *t);
void reactor_hook(struct loop_hook *h); /* no-op if already requested */
void timer_arm(struct timer *t, uint64_t deadline_ns); /* re-arms if armed */
void timer_cancel(struct timer *t);		       /* harmless if not armed */
static inline bool timer_is_armed(const struct timer *t) { return t->heap_pos != 0; }

/* Any thread (also none of a reactor). FIFO per sender and target. */
void reactor_post(struct reactor *to, struct msg *m);
/* A reactor. The same, FIFO with it, for what nobody waits for: a sleeping target is not woken at once, but with the next
 * message by reactor_post(), after REACTOR_LAZY_NS, or when there are many. Waking costs more than most messages. */
#define REACTOR_LAZY_NS 500000ULL
void reactor_post_lazy(struct reactor *to, struct msg *m);

/* Coroutine. Runs fn(arg) in a service coroutine on `to` and returns its result on the caller's reactor. If `to` is the
 * current one, calls fn directly. FIFO with reactor_post() in when fn *starts*. */
int reactor_co_call(struct reactor *to, int (*fn)(void *arg), void *arg);
/* Any thread: starts a service coroutine fn(arg) on `to`. */
void reactor_spawn(struct reactor *to, void (*fn)(void *arg), void *arg, const char *name);

/* ---- for worlds only ---- */
void reactor_init(struct reactor *r, struct world *w, unsigned index);
/* Drops all: coroutines are freed wherever they stand, without unwinding (a crash), timers and messages forgotten. */
void reactor_fini(struct reactor *r);
/* Makes r the current reactor of this thread; returns the one before. */
struct reactor *reactor_enter(struct reactor *r);
bool reactor_has_work(struct reactor *r); /* messages, ready tasks or hooks; not timers */
/* Deadline of the first timer, UINT64_MAX if none. */
uint64_t reactor_next_deadline(const struct reactor *r);
/* One turn: all messages, the tasks that were ready at entry, timers due at r->now_ns, hooks. Returns work done. */
unsigned reactor_turn(struct reactor *r);
/* For the simulated world: run exactly one message (k = 0) or the k-th ready task (k from 1; < n_ready + 1), or, when
 * there are neither, the hooks. */
size_t reactor_n_ready(const struct reactor *r);
bool reactor_has_msg(struct reactor *r);
void reactor_step(struct reactor *r, size_t k);
void reactor_fire_timers(struct reactor *r); /* those due at r->now_ns */

#endif
