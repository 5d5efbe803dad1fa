/* Range locks, by coroutines of one reactor; a random run is compared with a list of who holds what. */
#include <string.h>

#include "engine/base/rng.h"
#include "engine/io/range_lock.h"
#include "tests/unit/unit.h"

static uint64_t test_now_ns(struct world *w) { return 0; }
static const struct world_ops ops = { .now_ns = test_now_ns };
static struct world world = { .ops = &ops, .n_reactors = 1 };
static struct reactor reactor;
static struct range_lock lock;
static char trace[256];

static void begin(void)
{
	trace[0] = 0;
	reactor_init(&reactor, &world, 0);
	reactor_enter(&reactor);
	range_lock_init(&lock);
}

static void run(void)
{
	while (reactor_turn(&reactor))
		;
}

static void end(void)
{
	CU_ASSERT_TRUE(range_lock_is_idle(&lock));
	reactor_fini(&reactor);
	reactor_enter(NULL);
}

struct want {
	uint64_t off, len;
	bool shared;
	struct range_hold hold;
	struct co_queue go;
	char name[2];
};

static void co_want(void *arg)
{
	struct want *w = arg;

	range_co_lock(&lock, w->off, w->len, w->shared, &w->hold);
	strcat(trace, w->name);
	co_queue_wait(&w->go);
	range_unlock(&lock, &w->hold);
}

static void want(struct want *w, const char *name, uint64_t off, uint64_t len, bool shared)
{
	*w = (struct want){ .off = off, .len = len, .shared = shared };
	strcpy(w->name, name);
	co_queue_init(&w->go);
	co_start(CO_SERVICE, co_want, w, w->name);
}

static void release(struct want *w)
{
	CU_ASSERT_TRUE(co_queue_wake_one(&w->go));
	run();
}

static void neighbours_do_not_wait(void)
{
	struct want a, b, c;

	begin();
	want(&a, "a", 0, 10, false);
	want(&b, "b", 10, 10, false);
	want(&c, "c", 20, 1, false);
	CU_ASSERT_STRING_EQUAL(trace, "abc");
	release(&b);
	release(&a);
	release(&c);
	end();
}

static void overlapping_ones_wait_in_line(void)
{
	struct want a, b, c, d;

	begin();
	want(&a, "a", 0, 10, false);
	want(&b, "b", 5, 10, false);
	want(&c, "c", 12, 10, false); /* clear of a, but behind b */
	want(&d, "d", 30, 10, false);
	CU_ASSERT_STRING_EQUAL(trace, "ad");
	release(&a);
	CU_ASSERT_STRING_EQUAL(trace, "adb");
	release(&b);
	CU_ASSERT_STRING_EQUAL(trace, "adbc");
	release(&c);
	release(&d);
	end();
}

static void shared_ones_do_not_starve_an_exclusive_one(void)
{
	struct want a, b, x, c;

	begin();
	want(&a, "a", 0, 10, true);
	want(&b, "b", 0, 10, true);
	want(&x, "x", 0, 10, false);
	want(&c, "c", 0, 10, true);
	CU_ASSERT_STRING_EQUAL(trace, "ab");
	release(&a);
	CU_ASSERT_STRING_EQUAL(trace, "ab");
	release(&b);
	CU_ASSERT_STRING_EQUAL(trace, "abx");
	release(&x);
	CU_ASSERT_STRING_EQUAL(trace, "abxc");
	release(&c);
	end();
}

static void try_lock_never_waits(void)
{
	struct range_hold a, b, c;

	begin();
	CU_ASSERT_TRUE(range_try_lock(&lock, 0, 10, true, &a));
	CU_ASSERT_TRUE(range_try_lock(&lock, 9, 10, true, &b));
	CU_ASSERT_FALSE(range_try_lock(&lock, 15, 1, false, &c));
	range_unlock(&lock, &b);
	CU_ASSERT_TRUE(range_try_lock(&lock, 15, 1, false, &c));
	range_unlock(&lock, &a);
	range_unlock(&lock, &c);
	end();
}

#define UNITS 40
static int held[UNITS]; /* > 0: shared by so many, -1: exclusive */
static struct rng rng;
static unsigned finished;

static void co_random(void *arg)
{
	struct range_hold h;
	unsigned i, k, off, len;
	bool shared;

	for (i = 0; i < 100; i++) {
		off = (unsigned)rng_below(&rng, UNITS);
		len = 1 + (unsigned)rng_below(&rng, UNITS - off);
		shared = rng_chance(&rng, 1, 2);
		range_co_lock(&lock, off, len, shared, &h);
		for (k = off; k < off + len; k++) {
			CU_ASSERT_TRUE(shared ? held[k] >= 0 : held[k] == 0);
			held[k] = shared ? held[k] + 1 : -1;
		}
		for (k = (unsigned)rng_below(&rng, 4); k > 0; k--)
			co_yield();
		for (k = off; k < off + len; k++)
			held[k] = shared ? held[k] - 1 : 0;
		range_unlock(&lock, &h);
	}
	finished++;
}

static void random_holders_never_clash(void)
{
	unsigned i;

	begin();
	rng_init(&rng, 7);
	for (i = 0; i < 30; i++)
		co_spawn(CO_REQUEST, co_random, NULL, "random");
	run();
	CU_ASSERT_EQUAL(finished, 30);
	end();
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(neighbours_do_not_wait),
		TEST(overlapping_ones_wait_in_line),
		TEST(shared_ones_do_not_starve_an_exclusive_one),
		TEST(try_lock_never_waits),
		TEST(random_holders_never_clash),
		CU_TEST_INFO_NULL,
	};

	return tests_run("range_lock", tests);
}
