/* Memory that somebody outside may still touch. */
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/alloc_hold.h"
#include "engine/base/rng.h"
#include "tests/unit/unit.h"

#define N 400

static void held_memory_is_not_freed_before_its_last_release(void)
{
	char *p = xmalloc(100), *q[50];
	size_t i;

	alloc_hold(p + 10, 20);
	alloc_hold(p + 25, 50);
	alloc_hold(p + 10, 20); /* twice */
	CU_ASSERT_TRUE(alloc_is_held(p, 100) && alloc_is_held(p + 29, 1) && alloc_is_held(p + 74, 1));
	CU_ASSERT_FALSE(alloc_is_held(p, 10) || alloc_is_held(p + 75, 25));
	xfree(p);
	memset(p, 0x5a, 100);
	for (i = 0; i < ARRAY_LEN(q); i++) {
		q[i] = xmalloc(100);
		memset(q[i], 0, 100);
	}
	CU_ASSERT_EQUAL(p[0], 0x5a);
	alloc_release(p + 25, 50);
	alloc_release(p + 10, 20);
	CU_ASSERT_TRUE(alloc_is_held(p, 100));
	p[99] = 1;
	alloc_release(p + 10, 20);
	CU_ASSERT_FALSE(alloc_has_holds());
	for (i = 0; i < ARRAY_LEN(q); i++)
		xfree(q[i]);
}

static void memory_that_grows_leaves_the_held_part_behind(void)
{
	char *p = xmalloc(100), *q;

	memset(p, 1, 100);
	alloc_hold(p, 100);
	q = xrealloc(p, 1000);
	CU_ASSERT_PTR_NOT_EQUAL(p, q);
	memset(p, 2, 100);
	CU_ASSERT_EQUAL(q[99], 1);
	alloc_release(p, 100);
	xfree(q);
}

/* Objects of all sizes and random holds, against a plain count of who holds what. */
static void any_holds_and_frees_in_any_order(void)
{
	struct { char *p; size_t len, from, n; bool freed, held; } o[N];
	struct rng rng;
	unsigned i, k;

	rng_init(&rng, 5);
	memset(o, 0, sizeof(o));
	for (k = 0; k < 40000; k++) {
		i = (unsigned)rng_below(&rng, N);
		if (!o[i].p) {
			o[i].len = 1 + rng_below(&rng, rng_chance(&rng, 1, 50) ? 700000 : 3000);
			o[i].p = rng_chance(&rng, 1, 2) ? xmalloc(o[i].len) : xaligned(4096, o[i].len);
			o[i].freed = o[i].held = false;
		} else if (!o[i].held && !o[i].freed && rng_chance(&rng, 1, 2)) {
			o[i].from = rng_below(&rng, o[i].len);
			o[i].n = 1 + rng_below(&rng, o[i].len - o[i].from);
			alloc_hold(o[i].p + o[i].from, o[i].n);
			memset(o[i].p + o[i].from, (int)i, o[i].n);
			o[i].held = true;
		} else if (!o[i].freed) {
			xfree(o[i].p);
			o[i].freed = true;
		} else {
			/* still as the outside left it */
			CU_ASSERT_EQUAL(o[i].p[o[i].from], (char)i);
			CU_ASSERT_EQUAL(o[i].p[o[i].from + o[i].n - 1], (char)i);
			alloc_release(o[i].p + o[i].from, o[i].n);
			o[i].held = false;
		}
		if (o[i].freed && !o[i].held)
			o[i].p = NULL;
	}
	for (i = 0; i < N; i++) {
		if (o[i].p && o[i].held)
			alloc_release(o[i].p + o[i].from, o[i].n);
		if (o[i].p && !o[i].freed)
			xfree(o[i].p);
	}
	CU_ASSERT_FALSE(alloc_has_holds());
}

static size_t heap_used(void)
{
	return mallinfo2().uordblks + mallinfo2().hblkhd;
}

static void dropped_instance_takes_its_holds_along(void)
{
	size_t before, i;
	char *p, *other = xmalloc(50);

	alloc_hold(other, 50);
	alloc_hold_reset();
	xfree(other);
	before = heap_used();
	for (i = 0; i < 1000; i++) {
		alloc_track_begin();
		p = xmalloc(1000);
		alloc_hold(p, 1000);
		xfree(p);
		xmalloc(10);
		p = xmalloc(100000);
		alloc_hold(p + 99999, 1);
		alloc_track_drop();
		CU_ASSERT_FALSE(alloc_has_holds());
	}
	CU_ASSERT_TRUE(heap_used() < before + 100000);
}

/* ---- frees from other threads ---- */

static char *_Atomic shared[64];
static _Atomic bool over;

static void *free_main(void *arg)
{
	unsigned i;
	char *p;

	while (!atomic_load(&over))
		for (i = 0; i < 64; i++)
			if ((p = atomic_exchange(&shared[i], NULL)))
				xfree(p);
	return NULL;
}

static void other_threads_may_free(void)
{
	struct { char *p; } held[64] = { { 0 } };
	pthread_t t[2];
	unsigned i, k;

	for (i = 0; i < 2; i++)
		CU_ASSERT_EQUAL(pthread_create(&t[i], NULL, free_main, NULL), 0);
	for (k = 0; k < 20000; k++) {
		i = k % 64;
		if (held[i].p) {
			memset(held[i].p, 3, 300); /* the outside writes */
			alloc_release(held[i].p, 300);
		}
		held[i].p = xmalloc(300);
		alloc_hold(held[i].p, 300);
		xfree(atomic_exchange(&shared[i], held[i].p));
	}
	for (i = 0; i < 64; i++) {
		memset(held[i].p, 3, 300);
		alloc_release(held[i].p, 300);
	}
	atomic_store(&over, true);
	for (i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	for (i = 0; i < 64; i++)
		xfree(atomic_exchange(&shared[i], NULL));
	CU_ASSERT_FALSE(alloc_has_holds());
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(held_memory_is_not_freed_before_its_last_release),
		TEST(memory_that_grows_leaves_the_held_part_behind),
		TEST(any_holds_and_frees_in_any_order),
		TEST(dropped_instance_takes_its_holds_along),
		TEST(other_threads_may_free),
		CU_TEST_INFO_NULL,
	};

	return tests_run("holds", tests);
}
