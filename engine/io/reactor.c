/*
 * Reactors: ready list, timers (a binary heap), hooks, and the inbox.
 *
 * The inbox is Vyukov's intrusive queue: a producer swaps itself in as the tail, then links its predecessor to itself.
 * Between the two steps the chain has a gap; the consumer that meets it reports "has a message" and finds it a moment
 * later. A node is never touched by anybody after it has been handed out, so it may live on the sender's stack.
 *
 * Worlds: reactor_init() makes the coroutine pool and the buffer pool itself. A world with an arena (ops->arena) gets a
 * pool over it; one without (the simulated) plain memory, poisoned. Reactors are not allocated by xmalloc(): they
 * belong to the world, not to the instance that a simulated crash drops.
 */
#include "engine/io/reactor.h"

#include <stdlib.h>
#include <string.h>

#include "engine/io/buf.h"
#include "engine/io/co.h"

#define MSGS_PER_TURN 1024
#define LAZY_MAX 64

static __thread struct reactor *self;

struct reactor *reactor_self(void)
{
	return self;
}

struct reactor *reactor_enter(struct reactor *r)
{
	struct reactor *before = self;

	self = r;
	return before;
}

uint64_t reactor_now_ns(void)
{
	CHECK(self);
	return self->now_ns;
}

uint64_t world_now_ns(struct world *w)
{
	return w->ops->now_ns(w);
}

void world_random(struct world *w, void *buf, size_t len)
{
	w->ops->random(w, buf, len);
}

/* Single writer: no locked instruction. */
static inline void count(_Atomic uint64_t *c, uint64_t n)
{
	atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
}

/* ---- ready tasks and hooks ---- */

void reactor_ready(struct task *t)
{
	CHECK(self && list_is_empty(&t->link));
	list_push_back(&self->ready, &t->link);
}

void reactor_hook(struct loop_hook *h)
{
	CHECK(self);
	if (h->link.next && !list_is_empty(&h->link))
		return;
	list_push_back(&self->hooks, &h->link);
}

static void task_run(struct reactor *r, struct task *t)
{
	list_del(&t->link);
	count(&r->n_tasks, 1);
	t->run(t);
}

static unsigned hooks_run(struct reactor *r)
{
	struct list now, *n;
	unsigned done = 0;
	struct loop_hook *h;

	if (list_is_empty(&r->hooks))
		return 0;
	list_init(&now);
	list_splice_back(&now, &r->hooks);
	while ((n = list_pop_front(&now))) {
		h = list_entry(n, struct loop_hook, link);
		h->run(h);
		done++;
	}
	return done;
}

/* ---- timers ---- */

static void heap_put(struct timer_heap *h, size_t i, struct timer *t)
{
	h->v[i] = t;
	t->heap_pos = i;
}

static void heap_up(struct timer_heap *h, size_t i, struct timer *t)
{
	for (; i > 1 && h->v[i / 2]->deadline_ns > t->deadline_ns; i /= 2)
		heap_put(h, i, h->v[i / 2]);
	heap_put(h, i, t);
}

static void heap_down(struct timer_heap *h, size_t i, struct timer *t)
{
	size_t child;

	for (; (child = 2 * i) <= h->n; i = child) {
		if (child < h->n && h->v[child + 1]->deadline_ns < h->v[child]->deadline_ns)
			child++;
		if (h->v[child]->deadline_ns >= t->deadline_ns)
			break;
		heap_put(h, i, h->v[child]);
	}
	heap_put(h, i, t);
}

/* Puts t, which takes the place i, where its deadline belongs. */
static void heap_fix(struct timer_heap *h, size_t i, struct timer *t)
{
	if (i > 1 && h->v[i / 2]->deadline_ns > t->deadline_ns)
		heap_up(h, i, t);
	else
		heap_down(h, i, t);
}

void timer_arm(struct timer *t, uint64_t deadline_ns)
{
	struct timer_heap *h = &self->timers;

	CHECK(t->fire);
	t->deadline_ns = deadline_ns;
	if (t->heap_pos) {
		CHECK(h->v[t->heap_pos] == t);
		heap_fix(h, t->heap_pos, t);
		return;
	}
	if (h->n + 1 >= h->cap) {
		h->cap = h->cap ? h->cap * 2 : 64;
		h->v = realloc(h->v, h->cap * sizeof(*h->v));
		CHECK(h->v);
	}
	heap_up(h, ++h->n, t);
}

void timer_cancel(struct timer *t)
{
	struct timer_heap *h;
	struct timer *last;
	size_t i = t->heap_pos;

	if (!i)
		return;
	h = &self->timers;
	CHECK(i <= h->n && h->v[i] == t);
	t->heap_pos = 0;
	last = h->v[h->n--];
	if (last != t)
		heap_fix(h, i, last);
}

uint64_t reactor_next_deadline(const struct reactor *r)
{
	return r->timers.n ? r->timers.v[1]->deadline_ns : UINT64_MAX;
}

static unsigned timers_run(struct reactor *r)
{
	unsigned done = 0;
	size_t most = r->timers.n; /* one that arms itself in the past waits for the next turn */
	struct timer *t;

	while (done < most && r->timers.n && (t = r->timers.v[1])->deadline_ns <= r->now_ns) {
		timer_cancel(t);
		t->fire(t);
		done++;
	}
	return done;
}

void reactor_fire_timers(struct reactor *r)
{
	timers_run(r);
}

/* ---- inbox ---- */

static void inbox_push(struct reactor *r, struct msg *m)
{
	struct msg *prev;

	atomic_store_explicit(&m->next, NULL, memory_order_relaxed);
	prev = atomic_exchange(&r->inbox_tail, m); /* sequentially consistent: against `sleeping` */
	atomic_store_explicit(&prev->next, m, memory_order_release);
}

static struct msg *inbox_pop(struct reactor *r)
{
	struct msg *head = r->inbox_head, *next = atomic_load_explicit(&head->next, memory_order_acquire);

	if (head == &r->inbox_stub) {
		if (!next)
			return NULL;
		r->inbox_head = head = next;
		next = atomic_load_explicit(&head->next, memory_order_acquire);
	}
	if (!next) {
		if (head != atomic_load(&r->inbox_tail))
			return NULL; /* the gap: a producer is about to link */
		inbox_push(r, &r->inbox_stub);
		next = atomic_load_explicit(&head->next, memory_order_acquire);
		if (!next)
			return NULL;
	}
	r->inbox_head = next;
	return head;
}

bool reactor_has_msg(struct reactor *r)
{
	return r->inbox_head != &r->inbox_stub || atomic_load(&r->inbox_tail) != &r->inbox_stub;
}

static void reactor_wake(struct reactor *to)
{
	if (atomic_load(&to->sleeping) && atomic_exchange(&to->sleeping, false))
		to->world->ops->kick(to->world, to);
}

void reactor_post(struct reactor *to, struct msg *m)
{
	inbox_push(to, m);
	reactor_wake(to);
}

static void lazy_fire(struct timer *t)
{
	struct reactor *r = container_of(t, struct reactor, lazy_timer);

	r->n_lazy = 0;
	for (; r->lazy; r->lazy &= r->lazy - 1)
		reactor_wake(r->world->reactors[__builtin_ctzll(r->lazy)]);
}

/* A target that goes to sleep from now on looks at its inbox first, so it is enough to know who sleeps already. */
void reactor_post_lazy(struct reactor *to, struct msg *m)
{
	inbox_push(to, m);
	if (!atomic_load(&to->sleeping))
		return;
	self->lazy |= 1ULL << to->index;
	if (++self->n_lazy >= LAZY_MAX) {
		timer_cancel(&self->lazy_timer);
		lazy_fire(&self->lazy_timer);
	} else if (!timer_is_armed(&self->lazy_timer)) {
		timer_arm(&self->lazy_timer, reactor_now_ns() + REACTOR_LAZY_NS);
	}
}

static bool msg_run_one(struct reactor *r)
{
	struct msg *m = inbox_pop(r);

	if (!m)
		return false;
	count(&r->n_msgs, 1);
	m->run(m);
	return true;
}

/* ---- calls between reactors ---- */

struct co_call {
	struct msg msg; /* there, and back */
	int (*fn)(void *arg);
	void *arg;
	int result;
	struct reactor *from;
	struct co *caller;
};

static void call_returned(struct msg *m)
{
	co_wake(container_of(m, struct co_call, msg)->caller);
}

static void call_co_main(void *arg)
{
	struct co_call *c = arg;

	c->result = c->fn(c->arg);
	c->msg.run = call_returned;
	reactor_post(c->from, &c->msg);
}

static void call_arrived(struct msg *m)
{
	co_start(CO_SERVICE, call_co_main, container_of(m, struct co_call, msg), "call");
}

int reactor_co_call(struct reactor *to, int (*fn)(void *arg), void *arg)
{
	struct co_call c = { .msg.run = call_arrived, .fn = fn, .arg = arg, .from = self, .caller = co_self() };

	if (to == self)
		return fn(arg);
	CHECK(c.caller);
	reactor_post(to, &c.msg);
	co_suspend();
	return c.result;
}

struct spawn {
	struct msg msg;
	void (*fn)(void *arg);
	void *arg;
	const char *name;
};

static void spawn_arrived(struct msg *m)
{
	struct spawn *s = container_of(m, struct spawn, msg), copy = *s;

	xfree(s);
	co_start(CO_SERVICE, copy.fn, copy.arg, copy.name);
}

void reactor_spawn(struct reactor *to, void (*fn)(void *arg), void *arg, const char *name)
{
	struct spawn *s = xmalloc(sizeof(*s));

	s->msg.run = spawn_arrived;
	s->fn = fn;
	s->arg = arg;
	s->name = name;
	reactor_post(to, &s->msg);
}

/* ---- for worlds ---- */

void reactor_init(struct reactor *r, struct world *w, unsigned index)
{
	void *arena = NULL;
	size_t arena_len = 0;

	memset(r, 0, sizeof(*r));
	r->world = w;
	r->index = index;
	list_init(&r->ready);
	list_init(&r->hooks);
	r->lazy_timer.fire = lazy_fire;
	r->inbox_head = &r->inbox_stub;
	atomic_store(&r->inbox_tail, &r->inbox_stub);
	if (w->ops->arena)
		arena = w->ops->arena(r, &arena_len);
	r->cos = co_pool_create(CO_REQUESTS_MAX);
	r->bufs = buf_pool_create(arena, arena_len, !w->ops->arena);
}

void reactor_fini(struct reactor *r)
{
	co_pool_destroy(r->cos);
	buf_pool_destroy(r->bufs);
	free(r->timers.v);
	memset(r, 0, sizeof(*r));
}

bool reactor_has_work(struct reactor *r)
{
	return !list_is_empty(&r->ready) || !list_is_empty(&r->hooks) || reactor_has_msg(r);
}

unsigned reactor_turn(struct reactor *r)
{
	unsigned done = 0;
	struct list now;

	CHECK(self == r);
	count(&r->n_loops, 1);
	while (done < MSGS_PER_TURN && msg_run_one(r))
		done++;
	if (!list_is_empty(&r->ready)) {
		list_init(&now);
		list_splice_back(&now, &r->ready);
		for (; !list_is_empty(&now); done++)
			task_run(r, list_first(&now, struct task, link));
	}
	if (r->timers.n)
		done += timers_run(r);
	return done + hooks_run(r);
}

size_t reactor_n_ready(const struct reactor *r)
{
	const struct list *n;
	size_t k = 0;

	for (n = r->ready.next; n != &r->ready; n = n->next)
		k++;
	return k;
}

void reactor_step(struct reactor *r, size_t k)
{
	struct list *n = r->ready.next;

	CHECK(self == r);
	if (k == 0) {
		if (!msg_run_one(r) && list_is_empty(&r->ready))
			hooks_run(r);
		return;
	}
	while (--k > 0 && n != &r->ready)
		n = n->next;
	CHECK(n != &r->ready);
	task_run(r, list_entry(n, struct task, link));
}
