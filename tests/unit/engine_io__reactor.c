/* Reactors of a world that has nothing but a clock set by hand; and the inbox under several threads. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/rng.h"
#include "engine/io/co.h"
#include "tests/unit/unit.h"

static uint64_t clock_ns;
static _Atomic unsigned kicks;
static uint64_t test_now_ns(struct world *w) { return clock_ns; }
static void test_kick(struct world *w, struct reactor *to) { atomic_fetch_add(&kicks, 1); }
static const struct world_ops ops = { .now_ns = test_now_ns, .kick = test_kick };
static struct world world = { .ops = &ops, .n_reactors = 2 };
static struct reactor reactors[2];
static char trace[256];

static void begin(void)
{
	unsigned i;

	trace[0] = 0;
	kicks = 0;
	clock_ns = 1000;
	for (i = 0; i < 2; i++) {
		reactor_init(&reactors[i], &world, i);
		reactors[i].now_ns = clock_ns;
		world.reactors[i] = &reactors[i];
	}
	reactor_enter(&reactors[0]);
}

static void end(void)
{
	reactor_fini(&reactors[0]);
	reactor_fini(&reactors[1]);
	CU_ASSERT_PTR_EQUAL(reactor_enter(NULL), &reactors[0]);
}

static void turn_all(void)
{
	unsigned i, done;

	do {
		for (i = done = 0; i < 2; i++) {
			reactor_enter(&reactors[i]);
			reactors[i].now_ns = clock_ns;
			done += reactor_turn(&reactors[i]);
		}
	} while (done);
	reactor_enter(&reactors[0]);
}

static void note(const char *s) { strncat(trace, s, sizeof(trace) - strlen(trace) - 1); }

struct named {
	struct task task;
	struct msg msg;
	struct timer timer;
	struct loop_hook hook;
	char name[8];
	bool again;
};

static void named_task(struct task *t)
{
	struct named *n = container_of(t, struct named, task);

	note(n->name);
	if (n->again) {
		n->again = false;
		reactor_ready(t);
	}
}

static void named_msg(struct msg *m) { note(container_of(m, struct named, msg)->name); }
static void named_timer(struct timer *t) { note(container_of(t, struct named, timer)->name); }

static void named_hook(struct loop_hook *h)
{
	struct named *n = container_of(h, struct named, hook);

	note(n->name);
	if (n->again) {
		n->again = false;
		reactor_hook(h);
	}
}

static struct named *named(const char *name)
{
	struct named *n = xcalloc(1, sizeof(*n));

	list_init(&n->task.link);
	strcpy(n->name, name);
	n->task.run = named_task;
	n->msg.run = named_msg;
	n->timer.fire = named_timer;
	n->hook.run = named_hook;
	return n;
}

static void turn_runs_messages_tasks_timers_hooks(void)
{
	struct named *a = named("a"), *b = named("b"), *c = named("c"), *d = named("d");

	begin();
	reactor_hook(&d->hook);
	reactor_hook(&d->hook);
	timer_arm(&c->timer, 900);
	b->again = d->again = true;
	reactor_ready(&b->task);
	reactor_post(&reactors[0], &a->msg);
	CU_ASSERT_TRUE(reactor_has_work(&reactors[0]));
	CU_ASSERT_EQUAL(reactor_turn(&reactors[0]), 4);
	CU_ASSERT_STRING_EQUAL(trace, "abcd");
	CU_ASSERT_EQUAL(reactor_turn(&reactors[0]), 2); /* what ran again does so in the next turn */
	CU_ASSERT_STRING_EQUAL(trace, "abcdbd");
	CU_ASSERT_FALSE(reactor_has_work(&reactors[0]));
	CU_ASSERT_EQUAL(reactor_turn(&reactors[0]), 0);
	CU_ASSERT_EQUAL(kicks, 0);
	end();
	xfree(a);
	xfree(b);
	xfree(c);
	xfree(d);
}

static void steps_pick_a_task(void)
{
	struct named *n[4] = { named("a"), named("b"), named("c"), named("m") };
	int i;

	begin();
	for (i = 0; i < 3; i++)
		reactor_ready(&n[i]->task);
	reactor_post(&reactors[0], &n[3]->msg);
	reactor_hook(&n[3]->hook);
	CU_ASSERT_EQUAL(reactor_n_ready(&reactors[0]), 3);
	CU_ASSERT_TRUE(reactor_has_msg(&reactors[0]));
	reactor_step(&reactors[0], 3);
	reactor_step(&reactors[0], 0);
	CU_ASSERT_FALSE(reactor_has_msg(&reactors[0]));
	reactor_step(&reactors[0], 1);
	reactor_step(&reactors[0], 1);
	CU_ASSERT_STRING_EQUAL(trace, "cmab");
	reactor_step(&reactors[0], 0);
	CU_ASSERT_STRING_EQUAL(trace, "cmabm");
	CU_ASSERT_FALSE(reactor_has_work(&reactors[0]));
	end();
	for (i = 0; i < 4; i++)
		xfree(n[i]);
}

static uint64_t last_fired;
static unsigned n_fired;

static void check_order(struct timer *t)
{
	CU_ASSERT_TRUE(t->deadline_ns >= last_fired && t->deadline_ns <= reactor_now_ns());
	CU_ASSERT_FALSE(timer_is_armed(t));
	last_fired = t->deadline_ns;
	n_fired++;
}

static void timers_fire_in_order_under_changes(void)
{
	struct timer t[300] = { 0 };
	struct rng rng;
	unsigned i, armed = 0;

	begin();
	rng_init(&rng, 42);
	for (i = 0; i < 3000; i++) {
		struct timer *x = &t[rng_below(&rng, 300)];

		x->fire = check_order;
		if (rng_chance(&rng, 1, 4))
			timer_cancel(x);
		else
			timer_arm(x, 2000 + rng_below(&rng, 500));
	}
	for (i = 0; i < 300; i++)
		armed += timer_is_armed(&t[i]);
	last_fired = n_fired = 0;
	CU_ASSERT_TRUE(reactor_next_deadline(&reactors[0]) >= 2000);
	for (clock_ns = 1990; clock_ns < 2600; clock_ns += 7) {
		reactors[0].now_ns = clock_ns;
		reactor_fire_timers(&reactors[0]);
		CU_ASSERT_TRUE(reactor_next_deadline(&reactors[0]) > clock_ns);
	}
	CU_ASSERT_EQUAL(n_fired, armed);
	CU_ASSERT_EQUAL(reactor_next_deadline(&reactors[0]), UINT64_MAX);
	end();
}

static int co_answer(void *arg)
{
	note("<");
	CU_ASSERT_PTR_EQUAL(reactor_self(), &reactors[1]);
	co_yield();
	note(">");
	return *(int *)arg + 1;
}

static int co_here(void *arg)
{
	CU_ASSERT_PTR_EQUAL(reactor_self(), &reactors[0]);
	return 5;
}

static void co_caller(void *arg)
{
	int x = 41;

	CU_ASSERT_EQUAL(reactor_co_call(&reactors[1], co_answer, &x), 42);
	CU_ASSERT_PTR_EQUAL(reactor_self(), &reactors[0]);
	CU_ASSERT_EQUAL(reactor_co_call(&reactors[0], co_here, NULL), 5);
	note("!");
}

static void calls_go_there_and_back(void)
{
	begin();
	co_start(CO_REQUEST, co_caller, NULL, "caller");
	turn_all();
	CU_ASSERT_STRING_EQUAL(trace, "<>!");
	end();
}

static int co_first(void *arg)
{
	note("call");
	return 0;
}

static void co_orders(void *arg)
{
	struct named *a = arg;

	reactor_post(&reactors[1], &a->msg);
	CU_ASSERT_EQUAL(reactor_co_call(&reactors[1], co_first, NULL), 0);
}

static void calls_start_in_the_order_of_messages(void)
{
	struct named *a = named("msg,");

	begin();
	co_start(CO_SERVICE, co_orders, a, "orders");
	turn_all();
	CU_ASSERT_STRING_EQUAL(trace, "msg,call");
	end();
	xfree(a);
}

static void co_spawned(void *arg)
{
	note(arg);
	CU_ASSERT_PTR_EQUAL(reactor_self(), &reactors[1]);
	CU_ASSERT_STRING_EQUAL(co_name(co_self()), "spawned");
}

static void spawn_starts_elsewhere(void)
{
	begin();
	reactor_spawn(&reactors[1], co_spawned, "s", "spawned");
	turn_all();
	CU_ASSERT_STRING_EQUAL(trace, "s");
	end();
}

static void poster_kicks_a_sleeper_once(void)
{
	struct named *a = named("a"), *b = named("b");

	begin();
	atomic_store(&reactors[1].sleeping, true);
	reactor_post(&reactors[1], &a->msg);
	reactor_post(&reactors[1], &b->msg);
	CU_ASSERT_EQUAL(kicks, 1);
	turn_all();
	CU_ASSERT_STRING_EQUAL(trace, "ab");
	end();
	xfree(a);
	xfree(b);
}

/* A lazy poster kicks a sleeper after a while, once; with the next message that is not lazy; or when there are many. */
static void lazy_messages_wake_nobody_at_once(void)
{
	struct named *a = named("a"), *b = named("b"), *c = named("c"), *many[100];
	unsigned i;

	begin();
	atomic_store(&reactors[1].sleeping, true);
	reactor_post_lazy(&reactors[1], &a->msg);
	reactor_post_lazy(&reactors[1], &b->msg);
	CU_ASSERT_EQUAL(kicks, 0);
	clock_ns += REACTOR_LAZY_NS - 1;
	reactors[0].now_ns = clock_ns;
	reactor_turn(&reactors[0]);
	CU_ASSERT_EQUAL(kicks, 0);
	clock_ns++;
	reactors[0].now_ns = clock_ns;
	reactor_turn(&reactors[0]);
	CU_ASSERT_EQUAL(kicks, 1);
	CU_ASSERT_FALSE(atomic_load(&reactors[1].sleeping));
	turn_all();
	CU_ASSERT_STRING_EQUAL(trace, "ab");

	atomic_store(&reactors[1].sleeping, true);
	reactor_post_lazy(&reactors[1], &a->msg);
	CU_ASSERT_EQUAL(kicks, 1);
	reactor_post(&reactors[1], &c->msg);
	CU_ASSERT_EQUAL(kicks, 2);
	turn_all();
	CU_ASSERT_STRING_EQUAL(trace, "abac");

	trace[0] = 0;
	atomic_store(&reactors[1].sleeping, true);
	for (i = 0; i < 100; i++) {
		many[i] = named("m");
		reactor_post_lazy(&reactors[1], &many[i]->msg);
	}
	CU_ASSERT_EQUAL(kicks, 3);
	turn_all();
	CU_ASSERT_EQUAL(strlen(trace), 100);
	clock_ns += REACTOR_LAZY_NS;
	turn_all();
	CU_ASSERT_EQUAL(kicks, 3);
	end();
	for (i = 0; i < 100; i++)
		xfree(many[i]);
	xfree(a);
	xfree(b);
	xfree(c);
}

#define SENDERS 4
#define EACH 20000

struct numbered {
	struct msg msg;
	unsigned sender, number;
};

static unsigned next_number[SENDERS], received;

static void numbered_run(struct msg *m)
{
	struct numbered *n = container_of(m, struct numbered, msg);

	CHECK(n->number == next_number[n->sender]);
	next_number[n->sender]++;
	received++;
	xfree(n);
}

static void *sender(void *arg)
{
	struct numbered *n;
	unsigned i;

	for (i = 0; i < EACH; i++) {
		n = xmalloc(sizeof(*n));
		n->msg.run = numbered_run;
		n->sender = (unsigned)(uintptr_t)arg;
		n->number = i;
		reactor_post(&reactors[0], &n->msg);
	}
	return NULL;
}

static void inbox_keeps_each_senders_order(void)
{
	pthread_t t[SENDERS];
	uintptr_t i;

	begin();
	for (i = 0; i < SENDERS; i++)
		CHECK(pthread_create(&t[i], NULL, sender, (void *)i) == 0);
	while (received < SENDERS * EACH)
		reactor_turn(&reactors[0]);
	for (i = 0; i < SENDERS; i++)
		pthread_join(t[i], NULL);
	CU_ASSERT_FALSE(reactor_has_msg(&reactors[0]));
	CU_ASSERT_EQUAL(atomic_load(&reactors[0].n_msgs), SENDERS * EACH);
	end();
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(turn_runs_messages_tasks_timers_hooks),
		TEST(steps_pick_a_task),
		TEST(timers_fire_in_order_under_changes),
		TEST(calls_go_there_and_back),
		TEST(calls_start_in_the_order_of_messages),
		TEST(spawn_starts_elsewhere),
		TEST(poster_kicks_a_sleeper_once),
		TEST(lazy_messages_wake_nobody_at_once),
		TEST(inbox_keeps_each_senders_order),
		CU_TEST_INFO_NULL,
	};

	return tests_run("reactor", tests);
}
