/*
 * What clients feel while things move, at the default pace: on disks of so many bytes a second, by the simulated clock, so that the
 * figures depend on nothing but the engine. VERBOSE in the environment prints them.
 */
#include <stdlib.h>

#include "engine/base/units.h"
#include "engine/io/buf.h"
#include "engine/io/sim.h"
#include "engine/pool/pool_internal.h"
#include "tests/unit/engine_pool__expect.h"
#include "tests/unit/unit.h"

#define N_POOL 4
#define N_DISKS (2 * N_POOL + 1) /* one to spare, and another pool */
#define SPARE 8
#define DISK_BYTES (320 * MIB)
#define DISK_BPS (125 * MIB)
#define LATENCY_MIN_NS (200 * 1000)
#define LATENCY_MAX_NS NS_PER_MS
#define VOLUME_BYTES (96 * MIB)
#define CLUSTER (64 * KIB)
#define BLOCK 4096
#define N_CLIENTS 8
#define PER_SEC 1000
#define BASE_NS (3 * NS_PER_SEC)
#define LIMIT_NS (3600 * NS_PER_SEC)
#define SAMPLES_MAX 400000

static const char *const paths[N_DISKS] = { "d0", "d1", "d2", "d3", "e0", "e1", "e2", "e3", "d4" };

struct env {
	uint64_t seed;
	struct world *w;
	struct ashlar *a;
	struct ashlar_pool *p, *q;
	struct ashlar_attach *at;
	struct bdev *b;
	unsigned n_running;
	bool stop;
	uint64_t *v; /* latencies, by clients in turn */
	size_t n;
	struct rng rng;
};

/* ---- clients ---- */

static void client_gone(void *arg)
{
	EXPECT((struct env *)arg, !"it lost its connection");
}

static bool client_moved(void *arg, struct bdev *now)
{
	((struct env *)arg)->b = now;
	return true;
}

static const struct ashlar_attach_ops client_ops = { .gone = client_gone, .moved = client_moved };

/* Each sends at moments that do not depend on answers, as long as it is not late by itself. */
static void client_co_run(void *arg)
{
	const uint64_t every = NS_PER_SEC * N_CLIENTS / PER_SEC;
	struct env *env = arg;
	uint8_t *buf = buf_alloc(BLOCK);
	uint64_t next = reactor_now_ns() + rng_below(&env->rng, every), off, began;

	memset(buf, 0x37, BLOCK);
	while (!env->stop) {
		if (next > reactor_now_ns())
			co_sleep_ns(next - reactor_now_ns());
		next = MAX(next + every / 2 + rng_below(&env->rng, every), reactor_now_ns());
		off = BLOCK * rng_below(&env->rng, VOLUME_BYTES / BLOCK);
		began = reactor_now_ns();
		if (rng_below(&env->rng, 10) < 7)
			EXPECT(env, bdev_co_read(env->b, off, buf, BLOCK) == 0);
		else
			EXPECT(env, bdev_co_write(env->b, off, buf, BLOCK, 0) == 0);
		if (env->n < SAMPLES_MAX)
			env->v[env->n++] = reactor_now_ns() - began;
	}
	buf_free(buf, BLOCK);
	env->n_running--;
}

static int by_value(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Of those since the last call. */
static uint64_t p99_take(struct env *env, uint64_t *worst)
{
	uint64_t r;

	EXPECT(env, env->n > 500 && env->n < SAMPLES_MAX);
	qsort(env->v, env->n, sizeof(*env->v), by_value);
	r = env->v[env->n * 99 / 100];
	*worst = env->v[env->n - 1];
	env->n = 0;
	return r;
}

static void co_clients_start(struct env *env)
{
	unsigned i;

	OK(env, ashlar_co_attach(env->a, "p/v", &client_ops, env, &env->at, &e));
	env->b = ashlar_attach_bdev(env->at);
	for (i = 0; i < N_CLIENTS; i++, env->n_running++)
		co_spawn(CO_SERVICE, client_co_run, env, "client");
	co_sleep_ns(10 * NS_PER_SEC);
	env->n = 0;
}

static void co_clients_stop(struct env *env)
{
	env->stop = true;
	while (env->n_running)
		co_sleep_ns(NS_PER_MS);
	ashlar_co_detach(env->at);
}

/* ---- what moves ---- */

enum what { REPLACE, REMOVE, REBALANCE, EVACUATE, RAID5, RAID6, RAID1, THERE, BACK, N_WHATS };

static const char *const names[N_WHATS] = { "replace", "remove", "rebalance", "evacuate", "raid5", "raid6", "raid1", "there", "back" };

static uint64_t co_relayout(struct env *env, const char *layout, struct ashlar_pool *from, struct ashlar_pool *to)
{
	struct ashlar_move_spec s = { .volume = "v", .to = to, .layout = layout };
	struct ashlar_move_info i = { 0 };

	OK(env, ashlar_co_volume_move(from, &s, &i, &e));
	return i.job;
}

static uint64_t co_begin(struct env *env, enum what what)
{
	struct ashlar_relocation rel = { 0 };

	switch (what) {
	case REPLACE:
		OK(env, ashlar_co_disk_replace(env->p, paths[0], paths[SPARE], false, false, &rel, &e));
		break;
	case REMOVE:
		OK(env, ashlar_co_disk_remove(env->p, paths[1], false, &rel, &e));
		break;
	case REBALANCE:
		OK(env, ashlar_co_disk_add(env->p, &paths[1], 1, false, false, &e));
		OK(env, ashlar_co_pool_rebalance(env->p, false, &rel, &e));
		break;
	case EVACUATE:
		OK(env, ashlar_co_disk_evacuate(env->p, paths[2], false, &rel, &e));
		break;
	case THERE: return co_relayout(env, NULL, env->p, env->q);
	case BACK: return co_relayout(env, NULL, env->q, env->p);
	default: return co_relayout(env, names[what], env->p, NULL);
	}
	return rel.job;
}

static unsigned n_hidden(struct ashlar_pool *p)
{
	struct thin_vol *v;
	unsigned n = 0;

	list_for_each (v, thin_vols(p->thin), link)
		n += v->state != THIN_VOLUME_LIVE;
	return n;
}

/* What a move has left is deleted, and what it shared is brought together: the next one has nothing to do with that. */
static void co_settle(struct env *env)
{
	unsigned i;

	for (i = 0; i < 600 && n_hidden(env->p) + n_hidden(env->q); i++)
		co_sleep_ns(NS_PER_SEC / 10);
	EXPECT(env, i < 600);
}

/* How often the p99 of a volume at rest before it, or after it where that is another kind of volume. */
static void co_measure(struct env *env, enum what what)
{
	uint64_t before, during, after, began, worst[3];
	struct ashlar_job_info j = { 0 };

	co_settle(env);
	env->n = 0;
	co_sleep_ns(BASE_NS);
	before = p99_take(env, &worst[0]);
	began = reactor_now_ns();
	OK(env, ashlar_co_job_wait(what == BACK ? env->q : env->p, co_begin(env, what), 600 * NS_PER_SEC, &j, &e));
	EXPECT(env, j.state == ASHLAR_JOB_DONE);
	during = p99_take(env, &worst[1]);
	began = reactor_now_ns() - began;
	if (what == EVACUATE)
		OK(env, ashlar_co_disk_online(env->p, paths[2], NULL, &e));
	co_settle(env);
	env->n = 0;
	co_sleep_ns(BASE_NS);
	after = p99_take(env, &worst[2]);
	if (getenv("VERBOSE"))
		printf("%-10s %5.1f s, %4.0f MiB/s: p99 %7.2f ms before, %7.2f meanwhile, %7.2f after; worst %7.2f, %7.2f, %7.2f; ratio %.2f\n", names[what],
		       (double)began / NS_PER_SEC, (double)j.done_bytes / MIB * NS_PER_SEC / (double)began,
		       (double)before / NS_PER_MS, (double)during / NS_PER_MS, (double)after / NS_PER_MS,
		       (double)worst[0] / NS_PER_MS, (double)worst[1] / NS_PER_MS, (double)worst[2] / NS_PER_MS,
		       (double)during / (double)MAX(before, after));
	EXPECT(env, 10 * during <= 22 * MAX(before, after)); /* a tenth for the seed */
}

static int co_all(void *arg)
{
	static const char *const poolnames[] = { "p", "q" };
	struct ashlar_volume_spec v = { .name = "v", .size_bytes = VOLUME_BYTES };
	struct env *env = arg;
	uint8_t *buf = buf_alloc(MIB);
	struct ashlar_pool *p[2];
	uint64_t off;
	unsigned i;

	env->a = ashlar_create(env->w, NULL);
	for (i = 0; i < 2; i++) {
		struct ashlar_pool_spec s = { .name = poolnames[i], .layout = "raid1", .paths = paths + i * N_POOL, .n_paths = N_POOL,
					      .cluster_bytes = CLUSTER, .group_bytes = 4 * MIB };

		OK(env, ashlar_co_pool_create(env->a, &s, &e));
		OK(env, ashlar_co_pool_open(env->a, poolnames[i], s.paths, N_POOL, 0, &p[i], &e));
	}
	env->p = p[0];
	env->q = p[1];
	OK(env, ashlar_co_volume_create(env->p, &v, &e));
	OK(env, ashlar_co_attach(env->a, "p/v", &client_ops, env, &env->at, &e));
	memset(buf, 0x5a, MIB);
	for (off = 0; off < VOLUME_BYTES; off += MIB)
		EXPECT(env, bdev_co_write(ashlar_attach_bdev(env->at), off, buf, MIB, 0) == 0);
	EXPECT(env, bdev_co_flush(ashlar_attach_bdev(env->at)) == 0);
	ashlar_co_detach(env->at);
	buf_free(buf, MIB);
	co_clients_start(env);
	for (i = 0; i < N_WHATS; i++)
		co_measure(env, i);
	co_clients_stop(env);
	for (i = 0; i < 2; i++)
		OK(env, ashlar_co_pool_close(p[i], &e));
	ashlar_co_destroy(env->a);
	return 0;
}

static void clients_p99_is_about_twice_at_most_while_anything_moves(void)
{
	struct sim_disk_conf conf = { .size_bytes = DISK_BYTES, .block_bytes = 512 };
	const char *seed = getenv("SEED");
	struct env *env = calloc(1, sizeof(*env));
	struct sim_options o = { .seed = seed ? strtoull(seed, NULL, 0) : 1, .n_reactors = 1, .latency_min_ns = LATENCY_MIN_NS,
				 .latency_max_ns = LATENCY_MAX_NS, .disk_bps = DISK_BPS };
	struct sim_disks *disks = sim_disks_create(o.seed);
	unsigned i;
	int result = 0;

	env->seed = o.seed;
	env->v = calloc(SAMPLES_MAX, sizeof(*env->v));
	rng_init(&env->rng, o.seed);
	for (i = 0; i < N_DISKS; i++)
		sim_disks_add(disks, paths[i], &conf);
	alloc_track_begin();
	env->w = sim_world_create(&o, disks);
	CU_ASSERT_EQUAL(sim_run(env->w, co_all, env, &result, LIMIT_NS), 0);
	sim_world_destroy(env->w);
	alloc_track_drop();
	sim_disks_destroy(disks);
	free(env->v);
	free(env);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(clients_p99_is_about_twice_at_most_while_anything_moves),
		CU_TEST_INFO_NULL,
	};

	return tests_run("pace", tests);
}
