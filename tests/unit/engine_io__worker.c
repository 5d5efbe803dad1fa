/* Threads for calls that may block: works that never end keep nobody but themselves. */
#include <sched.h>
#include <semaphore.h>

#include "engine/base/units.h"
#include "engine/io/co.h"
#include "engine/io/real.h"
#include "engine/io/worker.h"
#include "tests/unit/unit.h"

static struct world *world;
static struct worker_pool *pool;
static struct work_queue stuck, good;

struct job {
	struct work work;
	sem_t *until; /* NULL: none */
	struct co_join *join;
};

static _Atomic unsigned n_running, n_running_max;

static void job_run(struct work *w)
{
	struct job *j = container_of(w, struct job, work);
	unsigned n = atomic_fetch_add(&n_running, 1) + 1, max = atomic_load(&n_running_max);

	while (n > max && !atomic_compare_exchange_weak(&n_running_max, &max, n))
		;
	while (j->until && sem_wait(j->until) < 0)
		;
	atomic_fetch_sub(&n_running, 1);
}

static void job_arrived(struct msg *m)
{
	struct job *j = container_of(m, struct job, work.msg);

	co_join_done(j->join, 0);
}

static void submit(struct work_queue *q, struct job *j, sem_t *until, struct co_join *join)
{
	*j = (struct job){ .work.run = job_run, .work.msg.run = job_arrived, .until = until, .join = join };
	co_join_add(join);
	worker_submit(pool, q, &j->work);
}

/* `hang`: something still does. The pool ends first: then no thread of it is about to tell a reactor. */
static int run(int (*fn)(void *arg), bool hang)
{
	struct real_options o = { .n_reactors = 1, .arena_bytes = MIB };
	struct err e = { 0 };
	int r;

	CU_ASSERT_EQUAL_FATAL(worker_pool_create(&pool), 0);
	work_queue_init(&stuck);
	work_queue_init(&good);
	atomic_store(&n_running_max, 0);
	CU_ASSERT_EQUAL_FATAL(real_world_create(&o, &world, &e), 0);
	r = real_world_run(world, fn, NULL);
	CU_ASSERT_EQUAL(worker_pool_destroy(pool), hang);
	real_world_destroy(world);
	return r;
}

/* Three times as many as may run at once hang on one queue. */
#define N_STUCK (3 * WORKERS_PER_QUEUE)

static int co_stuck(void *arg)
{
	struct job *hang = xcalloc(N_STUCK, sizeof(*hang)), quick[40];
	struct co_join slow, fast;
	sem_t end;
	unsigned i, k;

	sem_init(&end, 0, 0);
	co_join_init(&slow);
	for (i = 0; i < N_STUCK; i++)
		submit(&stuck, &hang[i], &end, &slow);
	for (k = 0; k < 20; k++) {
		co_join_init(&fast);
		for (i = 0; i < ARRAY_LEN(quick); i++)
			submit(&good, &quick[i], NULL, &fast);
		CU_ASSERT_EQUAL(co_join_wait(&fast), 0);
	}
	CU_ASSERT_TRUE(atomic_load(&n_running) <= WORKERS_PER_QUEUE);
	for (i = 0; i < N_STUCK; i++)
		sem_post(&end);
	CU_ASSERT_EQUAL(co_join_wait(&slow), 0);
	sem_destroy(&end);
	xfree(hang);
	return 0;
}

static void works_that_hang_do_not_keep_other_queues(void)
{
	CU_ASSERT_EQUAL(run(co_stuck, false), 0);
	CU_ASSERT_TRUE(atomic_load(&n_running_max) >= WORKERS_PER_QUEUE);
}

static sem_t for_ever;
static struct job left[WORKERS_PER_QUEUE + 5];
static struct co_join left_join;

static int co_leave(void *arg)
{
	unsigned i;

	co_join_init(&left_join);
	for (i = 0; i < ARRAY_LEN(left); i++)
		submit(&stuck, &left[i], &for_ever, &left_join);
	while (atomic_load(&n_running) < WORKERS_PER_QUEUE)
		co_sleep_ns(NS_PER_MS);
	return 0;
}

/* What still runs when all ends is left alone; when it does end there is no reactor that could be told. */
static void the_end_does_not_wait_for_works_that_hang(void)
{
	unsigned i;

	sem_init(&for_ever, 0, 0);
	CU_ASSERT_EQUAL(run(co_leave, true), 0);
	for (i = 0; i < WORKERS_PER_QUEUE; i++)
		sem_post(&for_ever);
	while (atomic_load(&n_running))
		sched_yield();
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(works_that_hang_do_not_keep_other_queues),
		TEST(the_end_does_not_wait_for_works_that_hang),
		CU_TEST_INFO_NULL,
	};

	return tests_run("worker", tests);
}
