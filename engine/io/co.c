/*
 * Coroutines. A stack and its `struct co` (which lies at the stack's top end) are made together and live until the pool
 * ends; a coroutine that has returned parks inside its endless main loop, and the next user of the stack goes on there.
 * So the sanitizers see one fiber per stack with balanced calls, and reuse costs no more than a switch.
 *
 * A coroutine returns to whoever resumed it: the reactor's main stack, or the coroutine that called co_start().
 */
#include "engine/io/co.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "engine/io/co_sanitize.h"
#include "engine/io/co_switch.h"

#ifdef __aarch64__
#define GUARD_BYTES 65536 /* the biggest page there is */
#else
#define GUARD_BYTES 4096
#endif

#ifdef CO_ASAN
/* A thread that ends makes ASan put back its alternate signal stack, through an interceptor that looks at the shadow of a
 * stack on which coroutine frames have come and gone. We use no alternate stacks. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "use_sigaltstack=0";
}
#endif

struct co {
	struct co_ctx ctx;
	struct co *caller; /* who gets the thread back; the pool's main while not running */
	struct co_pool *pool;
	struct task task; /* on the ready list: resume me */
	void (*fn)(void *arg);
	void *arg;
	const char *name;
	enum co_class cls;
	bool running; /* fn has been started and has not returned */
	bool timed_out;
	struct list wait; /* in a co_queue */
	struct timer timer;
	struct list free; /* in the pool's free list */
	struct list all;
	struct co_san san;
};

/* A request coroutine that waits for its turn. */
struct co_ticket {
	struct list link;
	void (*fn)(void *arg);
	void *arg;
	const char *name;
};

struct co_pool {
	struct co *current; /* NULL: the main stack runs */
	struct co main;	    /* only ctx and san are used */
	struct list free, all;
	struct list line; /* of tickets */
	struct list spare_tickets;
	unsigned cap;
	unsigned live[2];
};

static struct co_pool *pool_self(void)
{
	struct reactor *r = reactor_self();

	CHECK(r);
	return r->cos;
}

struct co *co_self(void)
{
	struct reactor *r = reactor_self();

	return r ? r->cos->current : NULL;
}

const char *co_name(const struct co *co)
{
	return co->name;
}

unsigned co_live(enum co_class cls)
{
	return pool_self()->live[cls];
}

/* ---- switching ---- */

static void co_resume(struct co *co)
{
	struct co_pool *p = co->pool;
	struct co *before = p->current;

	co->caller = before ? before : &p->main;
	p->current = co;
	co_san_leave(&co->caller->san, &co->san);
	co_ctx_switch(&co->caller->ctx, &co->ctx);
	co_san_arrive(&(before ? before : &p->main)->san, &co->san);
	p->current = before;
}

/* Gives the thread back to who resumed us. Whoever resumes us next may be somebody else. */
static void co_leave(struct co *co)
{
	co_san_leave(&co->san, &co->caller->san);
	co_ctx_switch(&co->ctx, &co->caller->ctx);
	co_san_arrive(&co->san, &co->caller->san);
}

static void co_run_task(struct task *t)
{
	co_resume(container_of(t, struct co, task));
}

static void co_ended(struct co *co);

static void co_main(void *arg)
{
	struct co *co = arg;

	co_san_arrive(&co->san, &co->caller->san);
	for (;;) {
		co->fn(co->arg);
		co_ended(co);
		co_leave(co);
	}
}

/* ---- the pool ---- */

static struct co *co_create(struct co_pool *p)
{
	size_t len = CO_STACK_BYTES + GUARD_BYTES, stack_len;
	char *base = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct co *co;

	CHECK(base != MAP_FAILED);
	CHECK(mprotect(base, GUARD_BYTES, PROT_NONE) == 0);
	co = (struct co *)(base + len - ALIGN_UP(sizeof(*co), 64));
	stack_len = (size_t)((char *)co - base) - GUARD_BYTES;
	*co = (struct co){ .pool = p, .caller = &p->main, .task.run = co_run_task };
	list_init(&co->task.link);
	list_init(&co->wait);
	list_init(&co->free);
	list_push_back(&p->all, &co->all);
	co_san_init(&co->san, base + GUARD_BYTES, stack_len);
	co_ctx_init(&co->ctx, base + GUARD_BYTES, stack_len, co_main, co);
	return co;
}

static void co_destroy(struct co *co)
{
	size_t len = CO_STACK_BYTES + GUARD_BYTES;
	char *base = (char *)co + ALIGN_UP(sizeof(*co), 64) - len;

	list_del(&co->all);
	co_san_fini(&co->san, base + GUARD_BYTES, (size_t)((char *)co - base) - GUARD_BYTES);
	munmap(base, len);
}

struct co_pool *co_pool_create(unsigned requests_max)
{
	/* Not xmalloc(): a world is not part of the instance that a simulated crash drops. */
	struct co_pool *p = calloc(1, sizeof(*p));

	CHECK(p);
	list_init(&p->free);
	list_init(&p->all);
	list_init(&p->line);
	list_init(&p->spare_tickets);
	p->cap = requests_max;
	p->main.name = "main";
	return p;
}

static void tickets_free(struct list *head)
{
	struct list *n;

	while ((n = list_pop_front(head)))
		free(list_entry(n, struct co_ticket, link));
}

void co_pool_destroy(struct co_pool *p)
{
	CHECK(!p->current);
	while (!list_is_empty(&p->all))
		co_destroy(list_first(&p->all, struct co, all));
	tickets_free(&p->line);
	tickets_free(&p->spare_tickets);
	free(p);
}

void co_pool_set_cap(struct co_pool *p, unsigned requests_max)
{
	CHECK(requests_max > 0);
	p->cap = requests_max;
}

/* ---- starting and ending ---- */

static void ticket_queue(struct co_pool *p, void (*fn)(void *arg), void *arg, const char *name)
{
	struct list *n = list_pop_front(&p->spare_tickets);
	struct co_ticket *t = n ? list_entry(n, struct co_ticket, link) : malloc(sizeof(*t));

	CHECK(t);
	*t = (struct co_ticket){ .fn = fn, .arg = arg, .name = name };
	list_push_back(&p->line, &t->link);
}

static struct co *co_take(struct co_pool *p, enum co_class cls, void (*fn)(void *arg), void *arg, const char *name)
{
	struct list *n = list_pop_front(&p->free);
	struct co *co = n ? list_entry(n, struct co, free) : co_create(p);

	co->cls = cls;
	co->fn = fn;
	co->arg = arg;
	co->name = name;
	co->running = true;
	p->live[cls]++;
	return co;
}

/* Takes a stack, or a place in the line. */
static struct co *co_admit(enum co_class cls, void (*fn)(void *arg), void *arg, const char *name)
{
	struct co_pool *p = pool_self();

	if (cls == CO_REQUEST && (p->live[CO_REQUEST] >= p->cap || !list_is_empty(&p->line))) {
		ticket_queue(p, fn, arg, name);
		return NULL;
	}
	return co_take(p, cls, fn, arg, name);
}

void co_spawn(enum co_class cls, void (*fn)(void *arg), void *arg, const char *name)
{
	struct co *co = co_admit(cls, fn, arg, name);

	if (co)
		reactor_ready(&co->task);
}

void co_start(enum co_class cls, void (*fn)(void *arg), void *arg, const char *name)
{
	struct co *co = co_admit(cls, fn, arg, name);

	if (co)
		co_resume(co);
}

/* The last thing a coroutine does on its stack: park it, and let the first of the line in. */
static void co_ended(struct co *co)
{
	struct co_pool *p = co->pool;
	struct co_ticket *t;

	CHECK(list_is_empty(&co->task.link) && list_is_empty(&co->wait) && !timer_is_armed(&co->timer));
	co->running = false;
	p->live[co->cls]--;
	list_push_front(&p->free, &co->free);
	while (!list_is_empty(&p->line) && p->live[CO_REQUEST] < p->cap) {
		t = list_first(&p->line, struct co_ticket, link);
		list_del(&t->link);
		/* Might be this very stack: it is resumed only after it has parked. */
		reactor_ready(&co_take(p, CO_REQUEST, t->fn, t->arg, t->name)->task);
		list_push_front(&p->spare_tickets, &t->link);
	}
}

/* ---- suspending ---- */

void co_suspend(void)
{
	struct co *co = co_self();

	CHECK(co);
	co_leave(co);
}

void co_wake(struct co *co)
{
	CHECK(co->running);
	reactor_ready(&co->task);
}

void co_yield(void)
{
	co_wake(co_self());
	co_suspend();
}

static void co_timer_fired(struct timer *t)
{
	struct co *co = container_of(t, struct co, timer);

	co->timed_out = true;
	list_del(&co->wait);
	co_wake(co);
}

static uint64_t deadline_after(uint64_t ns)
{
	uint64_t now = reactor_now_ns();

	return ns > UINT64_MAX - now ? UINT64_MAX : now + ns;
}

void co_sleep_ns(uint64_t ns)
{
	struct co *co = co_self();

	CHECK(co);
	co->timer.fire = co_timer_fired;
	timer_arm(&co->timer, deadline_after(ns));
	co_suspend();
}

/* ---- queues, mutexes, joins ---- */

void co_queue_init(struct co_queue *q)
{
	list_init(&q->waiters);
}

void co_queue_wait(struct co_queue *q)
{
	struct co *co = co_self();

	CHECK(co);
	list_push_back(&q->waiters, &co->wait);
	co_suspend();
}

int co_queue_wait_until(struct co_queue *q, uint64_t deadline_ns)
{
	struct co *co = co_self();

	CHECK(co);
	co->timed_out = false;
	if (deadline_ns != UINT64_MAX) {
		co->timer.fire = co_timer_fired;
		timer_arm(&co->timer, deadline_ns);
	}
	co_queue_wait(q);
	return co->timed_out ? -ETIMEDOUT : 0;
}

static struct co *co_queue_pop(struct co_queue *q)
{
	struct list *n = list_pop_front(&q->waiters);
	struct co *co;

	if (!n)
		return NULL;
	co = list_entry(n, struct co, wait);
	timer_cancel(&co->timer);
	co_wake(co);
	return co;
}

bool co_queue_wake_one(struct co_queue *q)
{
	return co_queue_pop(q) != NULL;
}

void co_queue_wake_all(struct co_queue *q)
{
	while (co_queue_pop(q))
		;
}

void co_mutex_init(struct co_mutex *m)
{
	m->owner = NULL;
	co_queue_init(&m->waiters);
}

void co_mutex_lock(struct co_mutex *m)
{
	struct co *co = co_self();

	CHECK(co && m->owner != co);
	if (!m->owner) {
		m->owner = co;
		return;
	}
	co_queue_wait(&m->waiters);
	CHECK(m->owner == co); /* handed over */
}

void co_mutex_unlock(struct co_mutex *m)
{
	CHECK(m->owner == co_self());
	m->owner = co_queue_pop(&m->waiters);
}

void co_join_init(struct co_join *j)
{
	*j = (struct co_join){ 0 };
}

void co_join_done(struct co_join *j, int result)
{
	struct co *waiter = j->waiter;

	CHECK(j->pending > 0);
	if (result < 0 && j->result == 0)
		j->result = result;
	if (--j->pending == 0 && waiter) {
		j->waiter = NULL;
		co_wake(waiter);
	}
}

int co_join_wait(struct co_join *j)
{
	if (j->pending > 0) {
		CHECK(!j->waiter && co_self());
		j->waiter = co_self();
		co_suspend();
		CHECK(j->pending == 0);
	}
	return j->result;
}
