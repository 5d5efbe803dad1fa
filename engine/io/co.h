/*
 * co.h: stackful coroutines. Straight-line code that suspends.
 *
 * A coroutine lives on one reactor and never changes thread. Stacks are 64 KiB with a guard page, pooled per reactor.
 * Two classes: *request* coroutines, one per client request that needs one, capped per reactor: beyond the cap they wait
 * in line, and that is the admission control; *service* coroutines (journal, applier, checkpoint, calls from other
 * reactors), never capped and few. A request coroutine may wait for leaf I/O, locks and services, never for another
 * request coroutine to get a stack.
 *
 * Whatever was read before a suspension must be checked again after it. ASan, TSan and valgrind are told of each switch.
 * Context of all functions: current reactor.
 */
#ifndef ENGINE_IO_CO_H
#define ENGINE_IO_CO_H

#include "engine/io/reactor.h"

#define CO_STACK_BYTES (64 * 1024)
#define CO_REQUESTS_MAX 1024 /* per reactor; the simulated world shrinks it */

enum co_class { CO_SERVICE, CO_REQUEST };

/* Starts fn(arg) at the next turn of this reactor (never inside the call). `name` must outlive it. Cannot fail. */
void co_spawn(enum co_class cls, void (*fn)(void *arg), void *arg, const char *name);
/* Starts at once, inside the call, if a stack is free: for hot paths. Returns at its first suspension. */
void co_start(enum co_class cls, void (*fn)(void *arg), void *arg, const char *name);

struct co *co_self(void); /* NULL outside a coroutine */
const char *co_name(const struct co *co);
/* Suspends until somebody calls co_wake(); spurious wake-ups do not happen. */
void co_suspend(void);
/* Makes a suspended coroutine ready; it runs at the next turn, not inside the call. Exactly one wake per suspension. */
void co_wake(struct co *co);
/* Lets everybody else run once. */
void co_yield(void);
void co_sleep_ns(uint64_t ns);
/* Number of live coroutines of the current reactor by class. */
unsigned co_live(enum co_class cls);

/* ---- waiting: FIFO ---- */
struct co_queue {
	struct list waiters;
};
void co_queue_init(struct co_queue *q);
void co_queue_wait(struct co_queue *q);
/* Like co_queue_wait() with a limit; -ETIMEDOUT or 0. */
int co_queue_wait_until(struct co_queue *q, uint64_t deadline_ns) __must_check;
bool co_queue_wake_one(struct co_queue *q);
void co_queue_wake_all(struct co_queue *q);
static inline bool co_queue_is_empty(const struct co_queue *q) { return list_is_empty(&q->waiters); }

struct co_mutex {
	struct co *owner;
	struct co_queue waiters;
};
void co_mutex_init(struct co_mutex *m);
void co_mutex_lock(struct co_mutex *m);
void co_mutex_unlock(struct co_mutex *m);

/* Bounded fan-out of leaf operations: start with co_join_add() per leg, each leg ends with co_join_done(), the parent
 * waits for all. Keeps the first error. */
struct co_join {
	struct co *waiter;
	unsigned pending;
	int result;
};
void co_join_init(struct co_join *j);
static inline void co_join_add(struct co_join *j) { j->pending++; }
void co_join_done(struct co_join *j, int result); /* any context on the same reactor */
int co_join_wait(struct co_join *j);		  /* coroutine; 0 or the first error */

/* ---- for reactor.c and worlds ---- */
struct co_pool *co_pool_create(unsigned requests_max);
/* Frees every stack, of running coroutines too, without unwinding. */
void co_pool_destroy(struct co_pool *p);
void co_pool_set_cap(struct co_pool *p, unsigned requests_max);

#endif
