/*
 * engine_pool__move_pools_rig.h: two pools, a family in one of them, and clients that go along when it moves.
 */
#ifndef TESTS_UNIT_ENGINE_POOL__MOVE_POOLS_RIG_H
#define TESTS_UNIT_ENGINE_POOL__MOVE_POOLS_RIG_H

#include "engine/pool/label.h"
#include "engine/pool/move_family.h"
#include "tests/unit/engine_pool__snapshots_rig.h"

#define DISK (48 * MIB)
#define N_OTHERS 2

static const char *const others[N_OTHERS] = { "e0", "e1" };
static struct ashlar_pool *q; /* the other pool; NULL: not open */

/* ---- two pools ---- */

static int co_create_q(void *arg)
{
	struct env *env = arg;
	struct ashlar_pool_spec s = { .name = "q", .layout = "raid1", .paths = others, .n_paths = N_OTHERS, .cluster_bytes = CLUSTER / 2,
				      .group_bytes = MIB };
	struct ashlar *a = ashlar_create(env->w, NULL);

	OK(env, ashlar_co_pool_create(a, &s, &e));
	ashlar_co_destroy(a);
	return 0;
}

static struct env *begin_two(uint64_t seed)
{
	struct sim_disk_conf conf = { .size_bytes = DISK, .block_bytes = 512 };
	struct env *env = begin(seed, DISK);
	unsigned i;

	for (i = 0; i < N_OTHERS; i++)
		sim_disks_add(env->disks, others[i], &conf);
	CU_ASSERT_EQUAL(world_run(env, co_create_q, false, SIM_CUT_ALL), 0);
	return env;
}

static void co_open_p(struct env *env)
{
	OK(env, ashlar_co_pool_open(env->a, "p", paths, N_DISKS, 0, &env->p, &e));
}

static void co_open_q(struct env *env)
{
	OK(env, ashlar_co_pool_open(env->a, "q", others, N_OTHERS, 0, &q, &e));
}

static void log_line(void *arg, const char *line)
{
	if (getenv("DEBUG"))
		fprintf(stderr, "  %s\n", line);
}

/* env->p is the pool that is looked at. */
static int co_two(void *arg)
{
	struct env *env = arg;
	struct ashlar_options o = { .metadata_cache_bytes = 2 * MIB, .log = log_line };
	struct ashlar_check_options co = { .data = true, .say = check_say };
	struct ashlar_pool *p;

	env->a = ashlar_create(env->w, &o);
	env->p = q = NULL;
	env->body(env);
	if (env->crashes)
		return 0;
	while ((p = ashlar_pool_at(env->a, 0))) {
		OK(env, (int)ashlar_co_pool_check(p, &co, &e));
		OK(env, ashlar_co_pool_close(p, &e));
	}
	ashlar_co_destroy(env->a);
	return 0;
}

static void run_two(struct env *env, int (*body)(struct env *env), bool crash)
{
	env->body = body;
	env->crashes = crash;
	CU_ASSERT_EQUAL(world_run(env, co_two, crash, SIM_CUT_RANDOM), 0);
}

static struct ashlar_pool *p_of(struct env *env)
{
	return ashlar_pool_find(env->a, "p");
}

static uint64_t co_move_to(struct env *env, struct ashlar_pool *from, const char *volume, struct ashlar_pool *to)
{
	struct ashlar_move_spec s = { .volume = volume, .to = to };
	struct ashlar_move_info i = { 0 };

	OK(env, ashlar_co_volume_move(from, &s, &i, &e));
	EXPECT(env, i.job && i.n_volumes);
	return i.job;
}

static bool co_wait(struct env *env, struct ashlar_pool *p, uint64_t job)
{
	struct ashlar_job_info i = { 0 };

	OK(env, ashlar_co_job_wait(p, job, 600 * NS_PER_SEC, &i, &e));
	if (i.state != ASHLAR_JOB_DONE)
		fprintf(stderr, "  job %s: %s: %s\n", i.what, ashlar_job_state_name(i.state), i.result);
	return i.state == ASHLAR_JOB_DONE;
}

static unsigned n_members(struct ashlar_pool *p)
{
	struct thin_vol *v;
	unsigned n = 0;

	list_for_each (v, thin_vols(p->thin), link)
		n++;
	return n;
}

static void co_slow(struct env *env, struct ashlar_pool *p)
{
	struct ashlar_pool_settings s;

	ashlar_co_pool_settings(p, &s);
	s.pace_floor_bps = MIB;
	s.pace_ceiling_bps = MIB;
	OK(env, ashlar_co_pool_set(p, &s, &e));
}

static void co_export(struct env *env, const char *name, const char *access, int64_t max_clients)
{
	struct ashlar_export_change x = { .read_only = -1, .access = access, .max_clients = max_clients };

	OK(env, ashlar_co_export_set(env->p, name, &x, &e));
}

static void co_family(struct env *env)
{
	co_volume(env, "v");
	co_export(env, "v", "uid:1\ntls:alice", -1);
	co_write(env, "v", 0, BYTES);
	co_snap(env, "v@s1");
	co_write(env, "v", 3 * CLUSTER, CLUSTER);
	co_write(env, "v", 10 * CLUSTER + 1024, 512);
	co_snap(env, "v@s2");
	co_clone(env, "v@s1", "c");
	co_write(env, "c", 20 * CLUSTER, 2 * CLUSTER);
	co_snap(env, "c@t1");
	co_write(env, "c", 0, 4096);
	OK(env, ashlar_co_export_add(env->p, "c", "seas", false, &e));
	OK(env, ashlar_co_export_add(env->p, "c", "", false, &e));
	co_export(env, "c", "uid:2", 3);
	co_export(env, "v@s1", "gid:7", -1);
}

/* For whom it is, and for how many, as co_family() has it; a snapshot without rules has its volume's. */
static void expect_guarded(struct env *env)
{
	struct ashlar_export_info *x = NULL;
	size_t n = 0, i;

	OK(env, ashlar_co_export_list(env->a, &x, &n, &e));
	for (i = 0; i < n; i++) {
		bool is_c = *x[i].volume == 'c';

		EXPECT(env, !strcmp(x[i].access, is_c ? "uid:2" : !strcmp(x[i].volume, "v@s1") ? "gid:7" : "uid:1\ntls:alice"));
		EXPECT(env, x[i].max_clients == (!strcmp(x[i].volume, "c") ? 3 : 0));
	}
	xfree(x);
}

/* Three clients of c, and no more, wherever it is. */
static void co_expect_limit(struct env *env, unsigned n_now)
{
	struct ashlar_attach *at[3], *more;
	unsigned i;

	for (i = n_now; i < 3; i++)
		at[i] = co_attach(env, "c");
	REFUSED(env, -EUSERS, "3 clients already", ashlar_co_attach(env->a, "p/c", NULL, NULL, &more, &e));
	for (i = n_now; i < 3; i++)
		ashlar_co_detach(at[i]);
}

/* ---- clients ---- */

struct client {
	struct env *env;
	const char *name;
	struct ashlar_attach *at;
	struct bdev *b; /* as a frontend keeps it */
	struct rng rng;
	uint64_t n_done;
	unsigned n_moved;
	bool stop, ended, refuses;
};

static void client_gone(void *arg)
{
	struct client *w = arg;

	EXPECT(w->env, !"it lost its connection");
}

static bool client_moved(void *arg, struct bdev *now)
{
	struct client *w = arg;

	if (w->refuses)
		return false;
	w->b = now;
	w->n_moved++;
	return true;
}

static const struct ashlar_attach_ops client_ops = { .gone = client_gone, .moved = client_moved };

static int client_there(void *arg)
{
	struct client *w = arg;
	uint8_t *buf = buf_alloc(4 * CLUSTER), *data = point_find(w->env, w->name)->data;

	while (!w->stop) {
		uint64_t len = 512 * (1 + rng_below(&w->rng, 4 * CLUSTER / 512)), off = 512 * rng_below(&w->rng, (BYTES - len) / 512 + 1);
		bool writes = !strchr(w->name, '@') && rng_chance(&w->rng, 1, 2);

		if (writes) {
			memset(buf, (int)rng_below(&w->rng, 255) + 1, len);
			EXPECT(w->env, bdev_co_write(w->b, off, buf, len, 0) == 0);
			memcpy(data + off, buf, len);
		} else {
			EXPECT(w->env, bdev_co_read(w->b, off, buf, len) == 0);
			EXPECT(w->env, !memcmp(buf, data + off, len));
		}
		w->n_done++;
		if (rng_chance(&w->rng, 1, 8))
			co_sleep_ns(rng_below(&w->rng, 2 * NS_PER_MS));
	}
	buf_free(buf, 4 * CLUSTER);
	return 0;
}

static void client_co_run(void *arg)
{
	struct client *w = arg;

	(void)!reactor_co_call(ashlar_attach_home(w->at), client_there, w);
	w->ended = true;
}

static void client_start(struct env *env, struct client *w, const char *name)
{
	char export_name[64];

	*w = (struct client){ .env = env, .name = name };
	snprintf(export_name, sizeof(export_name), "p/%s", name);
	OK(env, ashlar_co_attach(env->a, export_name, &client_ops, w, &w->at, &e));
	w->b = ashlar_attach_bdev(w->at);
	rng_init(&w->rng, rng_next(&env->rng));
	co_spawn(CO_SERVICE, client_co_run, w, "client");
}

static void client_co_stop(struct client *w)
{
	w->stop = true;
	while (!w->ended)
		co_sleep_ns(NS_PER_MS);
	ashlar_co_detach(w->at);
}

static void co_until_gone(struct env *env, struct ashlar_pool *p)
{
	unsigned i;

	for (i = 0; i < 1000 && n_members(p); i++)
		co_sleep_ns(10 * NS_PER_MS);
	EXPECT(env, !n_members(p));
}

#endif
