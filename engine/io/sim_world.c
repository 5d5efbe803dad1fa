/*
 * The simulated world: time, chance and the schedule.
 *
 * One step does one thing, chosen by the seed among all that could happen now: one message, ready task or (if it has
 * neither) the hooks of some reactor, the timers of one whose time has come, or the next moment of a request of a disk.
 * A step takes some hundred nanoseconds of simulated time, so work and completions mix; when nothing can happen the clock
 * jumps to the next moment.
 */
#include "engine/io/sim_world.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/base/alloc_hold.h"
#include "engine/base/units.h"

#define LATENCY_MIN_NS (20 * 1000ULL)
#define LATENCY_MAX_NS (200 * 1000ULL)
#define STEP_NS_MASK 511 /* a step takes up to so much */
#define WALL_FIRST_SEC 978307200ULL /* 2001 */
#define WALL_SPAN_SEC 2209032000ULL /* 70 years */

struct run {
	struct list link;
	int (*fn)(void *arg);
	void *arg;
	int result;
	bool done;
};

/* ---- requests by time ---- */

void sim_reqs_push(struct sim_reqs *a, struct sim_req *q)
{
	if (a->n == a->cap) {
		a->cap = MAX(a->cap * 2, (size_t)32);
		a->v = sim_realloc(a->v, a->cap * sizeof(*a->v));
	}
	a->v[a->n++] = q;
}

static bool is_before(const struct sim_req *a, const struct sim_req *b)
{
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->tie < b->tie;
}

void sim_world_schedule(struct sim_world *w, struct sim_req *q)
{
	struct sim_reqs *h = &w->heap;
	size_t i = h->n, up;

	q->tie = w->n_ties++;
	sim_reqs_push(h, q);
	for (; i > 0 && is_before(q, h->v[up = (i - 1) / 2]); i = up)
		h->v[i] = h->v[up];
	h->v[i] = q;
}

static struct sim_req *heap_pop(struct sim_reqs *h)
{
	struct sim_req *top = h->v[0], *last = h->v[--h->n];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < h->n) {
		if (child + 1 < h->n && is_before(h->v[child + 1], h->v[child]))
			child++;
		if (!is_before(h->v[child], last))
			break;
		h->v[i] = h->v[child];
		i = child;
	}
	h->v[i] = last;
	return top;
}

static struct sim_req *bag_take(struct sim_reqs *a, size_t i)
{
	struct sim_req *q = a->v[i];

	a->v[i] = a->v[--a->n];
	return q;
}

/* Requests whose moment has come become due; those of disks that hang are put aside, and come back when they do not. */
static void find_due(struct sim_world *w)
{
	struct sim_req *q;
	size_t i;

	for (i = w->hung.n; i-- > 0;)
		if (!w->hung.v[i]->disk->faults.hang)
			sim_reqs_push(&w->due, bag_take(&w->hung, i));
	for (i = w->due.n; i-- > 0;)
		if (w->due.v[i]->disk->faults.hang)
			sim_reqs_push(&w->hung, bag_take(&w->due, i));
	while (w->heap.n && w->heap.v[0]->at_ns <= w->now_ns) {
		q = heap_pop(&w->heap);
		sim_reqs_push(q->disk->faults.hang ? &w->hung : &w->due, q);
	}
}

/* ---- one step ---- */

static bool timers_are_due(const struct sim_world *w, const struct reactor *r)
{
	return reactor_next_deadline(r) <= w->now_ns;
}

static void reactor_do(struct sim_world *w, struct reactor *r, uint64_t draw)
{
	size_t n = reactor_n_ready(r), msg = reactor_has_msg(r), k = 0;
	struct reactor *before;

	if (n + msg > 0)
		k = (size_t)(((draw & 0xffffffff) * (n + msg)) >> 32) + !msg;
	sim_trace(w, 0x5eULL << 32 | (uint64_t)r->index << 24 | k);
	before = reactor_enter(r);
	r->now_ns = w->now_ns;
	reactor_step(r, k);
	reactor_enter(before);
}

static void reactor_do_timers(struct sim_world *w, struct reactor *r)
{
	struct reactor *before = reactor_enter(r);

	sim_trace(w, 0x71ULL << 32 | r->index);
	r->now_ns = w->now_ns;
	reactor_fire_timers(r);
	reactor_enter(before);
}

/* Does one thing that can happen now. False: nothing can. */
static bool step_now(struct sim_world *w)
{
	unsigned i, n = w->world.n_reactors;
	struct reactor *r;
	uint64_t draw;
	size_t k;

	find_due(w);
	k = w->due.n;
	for (i = 0; i < n; i++)
		k += (size_t)reactor_has_work(&w->reactors[i]) + timers_are_due(w, &w->reactors[i]);
	if (k == 0)
		return false;
	draw = rng_next(&w->rng);
	k = (size_t)(((draw >> 32) * k) >> 32);
	w->now_ns += draw & STEP_NS_MASK;
	if (k < w->due.n) {
		sim_trace(w, k);
		sim_dev_step(w, bag_take(&w->due, k));
		return true;
	}
	k -= w->due.n;
	for (i = 0; i < n; i++) {
		r = &w->reactors[i];
		if (reactor_has_work(r) && k-- == 0) {
			reactor_do(w, r, draw * 0x9e3779b97f4a7c15ULL >> 32);
			return true;
		}
		if (timers_are_due(w, r) && k-- == 0) {
			reactor_do_timers(w, r);
			return true;
		}
	}
	return true;
}

static uint64_t next_moment(const struct sim_world *w)
{
	uint64_t t = w->heap.n ? w->heap.v[0]->at_ns : UINT64_MAX;
	unsigned i;

	for (i = 0; i < w->world.n_reactors; i++)
		t = MIN(t, reactor_next_deadline(&w->reactors[i]));
	return t;
}

/* Steps until `run` (may be NULL) is done (0), the stop point (-ECANCELED), the time limit (-ETIME) or until nothing can
 * happen any more (-EDEADLK). */
static int drive(struct sim_world *w, const struct run *run, uint64_t until_ns)
{
	uint64_t next;

	for (;;) {
		if (run && run->done)
			return 0;
		if (sim_disks_is_stopped(w->disks))
			return -ECANCELED;
		if (!list_is_empty(&w->parked))
			sim_dev_unpark(w);
		if (w->now_ns >= until_ns)
			return -ETIME;
		if (step_now(w))
			continue;
		next = next_moment(w);
		if (next == UINT64_MAX)
			return -EDEADLK;
		w->now_ns = MIN(next, until_ns);
	}
}

static uint64_t time_limit(const struct sim_world *w, uint64_t ns)
{
	return ns > UINT64_MAX - w->now_ns ? UINT64_MAX : w->now_ns + ns;
}

static void print_deadlock(struct sim_world *w)
{
	struct reactor *before = reactor_self();
	unsigned i;
	size_t k;

	fprintf(stderr, "sim: deadlock: nothing can happen any more, and sim_run() waits\n");
	for (i = 0; i < w->world.n_reactors; i++) {
		reactor_enter(&w->reactors[i]);
		fprintf(stderr, "sim: reactor %u: %u service and %u request coroutines wait\n", i, co_live(CO_SERVICE),
			co_live(CO_REQUEST));
	}
	reactor_enter(before);
	for (k = 0; k < w->hung.n; k++)
		fprintf(stderr, "sim: disk '%s' hangs: op %u at %llu\n", w->hung.v[k]->disk->path, w->hung.v[k]->io->op,
			(unsigned long long)w->hung.v[k]->io->off_bytes);
}

static void run_co_main(void *arg)
{
	struct run *run = arg;

	run->result = run->fn(run->arg);
	run->done = true;
}

int sim_run(struct world *world, int (*fn)(void *arg), void *arg, int *result, uint64_t max_ns)
{
	struct sim_world *w = sim_world_of(world);
	struct run *run;
	int r;

	if (sim_disks_is_stopped(w->disks))
		return -ECANCELED;
	run = sim_alloc(sizeof(*run));
	run->fn = fn;
	run->arg = arg;
	list_push_back(&w->runs, &run->link);
	reactor_spawn(&w->reactors[0], run_co_main, run, "sim_run");
	r = drive(w, run, max_ns ? time_limit(w, max_ns) : UINT64_MAX);
	if (r == -EDEADLK)
		print_deadlock(w);
	if (r == 0) {
		if (result)
			*result = run->result;
		list_del(&run->link);
		free(run);
	}
	return r; /* if not 0, the coroutine may go on in a later run: it keeps its struct */
}

void sim_run_for(struct world *world, uint64_t ns)
{
	struct sim_world *w = sim_world_of(world);

	(void)drive(w, NULL, time_limit(w, ns));
}

/* ---- the seam ---- */

static uint64_t world_now(struct world *w)
{
	return sim_world_of(w)->now_ns;
}

static uint64_t world_wall(struct world *w)
{
	return sim_world_of(w)->wall_base_ns + sim_world_of(w)->now_ns;
}

static void world_rand(struct world *w, void *buf, size_t len)
{
	rng_fill(&sim_world_of(w)->rng, buf, len);
}

static void world_kick(struct world *w, struct reactor *to)
{
	(void)w;
	(void)to; /* every step looks at every reactor */
}

static const struct world_ops sim_world_ops = {
	.now_ns = world_now,
	.wall_ns = world_wall,
	.random = world_rand,
	.kick = world_kick,
	.disk_co_open = sim_dev_co_open,
	.disk_probe = sim_dev_probe,
	.keep_open = sim_keep_open,
	.keep_create = sim_keep_create,
	.keep_close = sim_keep_close,
};

struct world *sim_world_create(const struct sim_options *o, struct sim_disks *disks)
{
	struct sim_world *w = sim_alloc(sizeof(*w));
	uint64_t min = o->latency_min_ns, max = o->latency_max_ns;
	unsigned i;

	CHECK(o->n_reactors >= 1 && o->n_reactors <= REACTORS_MAX && min <= max);
	if (max == 0) {
		min = LATENCY_MIN_NS;
		max = LATENCY_MAX_NS;
	}
	w->world.ops = &sim_world_ops;
	w->world.n_reactors = o->n_reactors;
	w->disks = disks;
	disks->n_worlds++;
	rng_init(&w->rng, o->seed);
	w->latency_min_ns = min;
	w->latency_span_ns = max - min;
	w->disk_bps = o->disk_bps;
	w->now_ns = 1 + rng_below(&w->rng, 1000 * NS_PER_SEC);
	w->wall_base_ns = (WALL_FIRST_SEC + rng_below(&w->rng, WALL_SPAN_SEC)) * NS_PER_SEC;
	list_init(&w->parked);
	list_init(&w->handles);
	list_init(&w->runs);
	list_init(&w->free_reqs);
	w->reactors = sim_alloc(o->n_reactors * sizeof(*w->reactors));
	for (i = 0; i < o->n_reactors; i++) {
		reactor_init(&w->reactors[i], &w->world, i);
		w->reactors[i].now_ns = w->now_ns;
		w->world.reactors[i] = &w->reactors[i];
		if (o->co_requests_max)
			co_pool_set_cap(w->reactors[i].cos, o->co_requests_max);
	}
	return &w->world;
}

void sim_world_destroy(struct world *world)
{
	struct sim_world *w = sim_world_of(world);
	struct list *n;
	unsigned i;

	sim_dev_fini(w); /* takes payloads that lie on stacks, or in memory that is held */
	alloc_hold_reset();
	for (i = 0; i < w->world.n_reactors; i++)
		reactor_fini(&w->reactors[i]);
	while ((n = list_pop_front(&w->runs)))
		free(list_entry(n, struct run, link));
	free(w->heap.v);
	free(w->due.v);
	free(w->hung.v);
	w->disks->n_worlds--;
	free(w->reactors);
	free(w);
}

void sim_pause(struct world *world, uint64_t ns)
{
	struct sim_world *w = sim_world_of(world);

	sim_trace(w, ns);
	w->now_ns += ns;
}

uint64_t sim_trace_hash(const struct world *w)
{
	return sim_world_of(w)->trace;
}

struct rng *sim_rng(struct world *w)
{
	return &sim_world_of(w)->rng;
}
