/* Coroutines on one reactor of a world that has nothing but a clock set by hand. */
#include <stdlib.h>
#include <string.h>

#include "engine/io/co.h"
#include "tests/unit/unit.h"

static uint64_t clock_ns;
static uint64_t test_now_ns(struct world *w) { return clock_ns; }
static const struct world_ops ops = { .now_ns = test_now_ns };
static struct world world = { .ops = &ops, .n_reactors = 1 };
static struct reactor reactor;
static char trace[256];

static int set_up(void)
{
	world.reactors[0] = &reactor;
	return 0;
}

static void begin(void)
{
	clock_ns = 1000;
	trace[0] = 0;
	reactor_init(&reactor, &world, 0);
	reactor.now_ns = clock_ns;
	reactor_enter(&reactor);
}

static void end(void)
{
	reactor_fini(&reactor);
	reactor_enter(NULL);
}

/* Turns until nothing is ready; goes to the next timer if `ahead`. */
static void run(bool ahead)
{
	for (;;) {
		reactor.now_ns = clock_ns;
		if (reactor_turn(&reactor) || reactor_has_work(&reactor))
			continue;
		if (!ahead || reactor_next_deadline(&reactor) == UINT64_MAX)
			return;
		clock_ns = reactor_next_deadline(&reactor);
	}
}

static void note(const char *s) { strncat(trace, s, sizeof(trace) - strlen(trace) - 1); }

static void co_abc(void *arg)
{
	note(arg);
	co_yield();
	note(arg);
	co_yield();
	note(arg);
}

static void spawned_coroutines_interleave_at_yields(void)
{
	begin();
	co_spawn(CO_SERVICE, co_abc, "a", "a");
	co_spawn(CO_SERVICE, co_abc, "b", "b");
	CU_ASSERT_STRING_EQUAL(trace, "");
	CU_ASSERT_EQUAL(co_live(CO_SERVICE), 2);
	run(false);
	CU_ASSERT_STRING_EQUAL(trace, "ababab");
	CU_ASSERT_EQUAL(co_live(CO_SERVICE), 0);
	end();
}

static void start_runs_inside_the_call_to_the_first_suspension(void)
{
	begin();
	co_start(CO_SERVICE, co_abc, "a", "a");
	CU_ASSERT_STRING_EQUAL(trace, "a");
	CU_ASSERT_PTR_NULL(co_self());
	run(false);
	CU_ASSERT_STRING_EQUAL(trace, "aaa");
	end();
}

static void co_nest(void *arg)
{
	struct co *me = co_self();

	note("(");
	CU_ASSERT_STRING_EQUAL(co_name(me), "nest");
	co_start(CO_SERVICE, co_abc, "x", "x");
	CU_ASSERT_PTR_EQUAL(co_self(), me);
	co_start(CO_SERVICE, co_abc, "y", "y");
	note(")");
	co_yield();
	note("!");
}

static void start_nests_in_a_coroutine(void)
{
	int i;

	begin();
	for (i = 0; i < 3; i++) { /* reuses parked stacks, resumed by others than before */
		trace[0] = 0;
		co_start(CO_SERVICE, co_nest, NULL, "nest");
		run(false);
		CU_ASSERT_STRING_EQUAL(trace, "(xy)xy!xy");
		co_start(CO_SERVICE, co_abc, "", "");
		run(false);
	}
	end();
}

static struct co_queue queue;
static unsigned running, most, finished;

static void co_request(void *arg)
{
	running++;
	most = MAX(most, running);
	CU_ASSERT_EQUAL(finished, (unsigned)(uintptr_t)arg);
	co_yield();
	running--;
	finished++;
}

static void requests_beyond_the_cap_wait_in_line(void)
{
	uintptr_t i;

	begin();
	co_pool_set_cap(reactor.cos, 1);
	running = most = finished = 0;
	for (i = 0; i < 50; i++)
		(i % 2 ? co_spawn : co_start)(CO_REQUEST, co_request, (void *)i, "request");
	CU_ASSERT_EQUAL(co_live(CO_REQUEST), 1);
	run(false);
	CU_ASSERT_EQUAL(finished, 50);
	CU_ASSERT_EQUAL(most, 1);
	CU_ASSERT_EQUAL(co_live(CO_REQUEST), 0);
	end();
}

static void co_wait(void *arg)
{
	co_queue_wait(&queue);
	note(arg);
}

static void services_are_not_held_up_by_the_cap(void)
{
	begin();
	co_pool_set_cap(reactor.cos, 2);
	co_queue_init(&queue);
	co_start(CO_REQUEST, co_wait, "a", "a");
	co_start(CO_REQUEST, co_wait, "b", "b");
	co_start(CO_REQUEST, co_wait, "c", "c");
	co_start(CO_SERVICE, co_abc, "s", "s");
	run(false);
	CU_ASSERT_STRING_EQUAL(trace, "sss");
	co_queue_wake_all(&queue);
	run(false);
	CU_ASSERT_STRING_EQUAL(trace, "sssab");
	CU_ASSERT_TRUE(co_queue_wake_one(&queue));
	run(false);
	CU_ASSERT_STRING_EQUAL(trace, "sssabc");
	CU_ASSERT_FALSE(co_queue_wake_one(&queue));
	end();
}

static void co_wait_limited(void *arg)
{
	uint64_t limit = *(uint64_t *)arg;

	note(co_queue_wait_until(&queue, limit) == -ETIMEDOUT ? "T" : "w");
}

static void queue_waits_end_by_wake_or_deadline(void)
{
	uint64_t soon = 2000, late = 9000, never = UINT64_MAX;

	begin();
	co_queue_init(&queue);
	co_start(CO_SERVICE, co_wait_limited, &late, "late");
	co_start(CO_SERVICE, co_wait_limited, &soon, "soon");
	co_start(CO_SERVICE, co_wait_limited, &never, "never");
	clock_ns = 2000;
	run(false);
	CU_ASSERT_STRING_EQUAL(trace, "T");
	CU_ASSERT_TRUE(co_queue_wake_one(&queue));
	CU_ASSERT_TRUE(co_queue_wake_one(&queue));
	CU_ASSERT_TRUE(co_queue_is_empty(&queue));
	run(true);
	CU_ASSERT_STRING_EQUAL(trace, "Tww");
	CU_ASSERT_EQUAL(clock_ns, 2000); /* the late timer was cancelled */
	end();
}

static void co_sleeper(void *arg)
{
	co_sleep_ns(*(uint64_t *)arg);
	note(*(uint64_t *)arg > 50 ? "L" : "S");
}

static void sleeps_end_in_order_of_time(void)
{
	uint64_t a = 100, b = 10;

	begin();
	co_start(CO_SERVICE, co_sleeper, &a, "a");
	co_start(CO_SERVICE, co_sleeper, &b, "b");
	run(true);
	CU_ASSERT_STRING_EQUAL(trace, "SL");
	CU_ASSERT_EQUAL(clock_ns, 1100);
	end();
}

static struct co_mutex mutex;

static void co_locker(void *arg)
{
	co_mutex_lock(&mutex);
	note(arg);
	co_yield();
	note(arg);
	co_mutex_unlock(&mutex);
}

static void mutex_is_handed_over_in_order(void)
{
	begin();
	co_mutex_init(&mutex);
	co_start(CO_SERVICE, co_locker, "a", "a");
	co_start(CO_SERVICE, co_locker, "b", "b");
	co_start(CO_SERVICE, co_locker, "c", "c");
	run(false);
	CU_ASSERT_STRING_EQUAL(trace, "aabbcc");
	CU_ASSERT_PTR_NULL(mutex.owner);
	end();
}

static struct co_join join;
static int join_result;

static void co_joiner(void *arg)
{
	join_result = co_join_wait(&join);
	note("j");
}

static void join_waits_for_all_and_keeps_the_first_error(void)
{
	begin();
	co_join_init(&join);
	co_join_add(&join);
	co_join_add(&join);
	co_join_add(&join);
	co_join_done(&join, 0);
	co_start(CO_SERVICE, co_joiner, NULL, "j");
	co_join_done(&join, -EIO);
	run(false);
	CU_ASSERT_STRING_EQUAL(trace, "");
	co_join_done(&join, -ENOSPC);
	run(false);
	CU_ASSERT_STRING_EQUAL(trace, "j");
	CU_ASSERT_EQUAL(join_result, -EIO);
	co_join_init(&join);
	co_start(CO_SERVICE, co_joiner, NULL, "j");
	CU_ASSERT_EQUAL(join_result, 0);
	end();
}

static void co_deep(void *arg)
{
	char big[40 * 1024];

	memset(big, (int)(uintptr_t)arg, sizeof(big));
	co_yield();
	CU_ASSERT_EQUAL(big[100], (char)(uintptr_t)arg);
	CU_ASSERT_EQUAL(big[sizeof(big) - 1], (char)(uintptr_t)arg);
}

static void stacks_are_private_and_deep(void)
{
	uintptr_t i, k;

	begin();
	for (k = 0; k < 3; k++) {
		for (i = 0; i < 100; i++)
			co_spawn(CO_SERVICE, co_deep, (void *)(i + k), "deep");
		run(false);
	}
	end();
}

static void pool_is_dropped_with_running_coroutines(void)
{
	int i;

	for (i = 0; i < 20; i++) { /* again and again: stale marks of sanitizers would show */
		begin();
		co_queue_init(&queue);
		co_start(CO_SERVICE, co_wait, "a", "a");
		co_start(CO_REQUEST, co_deep, NULL, "deep");
		co_spawn(CO_REQUEST, co_wait, "b", "b");
		end();
	}
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(spawned_coroutines_interleave_at_yields),
		TEST(start_runs_inside_the_call_to_the_first_suspension),
		TEST(start_nests_in_a_coroutine),
		TEST(requests_beyond_the_cap_wait_in_line),
		TEST(services_are_not_held_up_by_the_cap),
		TEST(queue_waits_end_by_wake_or_deadline),
		TEST(sleeps_end_in_order_of_time),
		TEST(mutex_is_handed_over_in_order),
		TEST(join_waits_for_all_and_keeps_the_first_error),
		TEST(stacks_are_private_and_deep),
		TEST(pool_is_dropped_with_running_coroutines),
		CU_TEST_INFO_NULL,
	};

	return tests_run_in("co", set_up, NULL, tests);
}
