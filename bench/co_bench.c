/* What a coroutine costs: a switch out and back in by way of the ready list, start and end, and a wake by hand. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "engine/io/co.h"

static uint64_t now_ns(struct world *w)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

static const struct world_ops ops = { .now_ns = now_ns };
static struct world world = { .ops = &ops, .n_reactors = 1 };
static struct reactor reactor;
static unsigned long n_rounds = 2000000;
static struct co *sleeper;
static unsigned n_ended;

static void yielder(void *arg)
{
	unsigned long i, n = *(unsigned long *)arg;

	for (i = 0; i < n; i++)
		co_yield();
	n_ended++;
}

static void one_suspension(void *arg)
{
	sleeper = co_self();
	co_suspend();
	n_ended++;
}

static void nothing(void *arg) { n_ended++; }

static void turns(void)
{
	while (reactor_has_work(&reactor))
		reactor_turn(&reactor);
}

static void report(const char *what, uint64_t start, unsigned long n)
{
	printf("%-44s %7.1f ns\n", what, (double)(now_ns(NULL) - start) / (double)n);
}

static void yields(const char *what, unsigned n_cos)
{
	unsigned long each = n_rounds / n_cos;
	uint64_t start;
	unsigned i;

	n_ended = 0;
	for (i = 0; i < n_cos; i++)
		co_start(CO_REQUEST, yielder, &each, "yielder");
	start = now_ns(NULL);
	turns();
	report(what, start, each * n_cos);
	CHECK(n_ended == n_cos);
}

int main(int argc, char **argv)
{
	unsigned long i;
	uint64_t start;

	if (argc > 1)
		n_rounds = strtoul(argv[1], NULL, 0);
	world.reactors[0] = &reactor;
	reactor_init(&reactor, &world, 0);
	reactor_enter(&reactor);
	yields("yield and come back, 1 coroutine", 1);
	yields("yield and come back, 32 coroutines", 32);
	yields("yield and come back, 1000 coroutines", 1000);
	start = now_ns(NULL);
	for (i = 0; i < n_rounds; i++)
		co_start(CO_REQUEST, nothing, NULL, "nothing");
	report("start, end", start, n_rounds);
	start = now_ns(NULL);
	for (i = 0; i < n_rounds; i++) {
		co_start(CO_REQUEST, one_suspension, NULL, "one");
		co_wake(sleeper);
		turns();
	}
	report("start, suspend, wake, end (turns included)", start, n_rounds);
	reactor_fini(&reactor);
	reactor_enter(NULL);
	return 0;
}
