/*
 * A volume goes to another disk while its client works: what the client sees is a plain array, before, meanwhile and after.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/units.h"
#include "engine/io/buf.h"
#include "engine/io/sim.h"
#include "engine/pool/pool_internal.h"
#include "tests/unit/engine_pool__expect.h"
#include "tests/unit/unit.h"

#define CLUSTER (64 * KIB)
#define BLOCK 512
#define BYTES (3 * MIB + 3 * BLOCK)
#define LIMIT_NS (24 * 3600 * NS_PER_SEC)

static const char *const paths[] = { "d0", "d1", "d2" };
enum { FAR = 3 }; /* its number among the simulated disks */

struct env {
	struct sim_disks *disks;
	struct world *w;
	struct ashlar *a;
	struct ashlar_pool *p;
	struct ashlar_attach *at;
	struct rng rng, client_rng;
	uint64_t seed, n_done, id;
	uint8_t *model; /* of BYTES */
	bool stop, runs, may_fail;
	int (*body)(struct env *env);
	bool crashes;
};

/* ---- the client, on the volume's reactor ---- */

static void client_step(struct env *env)
{
	uint64_t len = (1 + rng_below(&env->client_rng, rng_below(&env->client_rng, 4) ? 20 : 600)) * BLOCK, off, op;
	struct bdev *b = ashlar_attach_bdev(env->at);
	uint8_t *buf = buf_alloc(len);
	int r;

	off = rng_below(&env->client_rng, (BYTES - len) / BLOCK + 1) * BLOCK;
	op = rng_below(&env->client_rng, 8);
	rng_fill(&env->client_rng, buf, len);
	if (op < 4) {
		r = bdev_co_write(b, off, buf, len, op ? 0 : IO_FUA);
		if (r == 0)
			memcpy(env->model + off, buf, len);
	} else if (op == 4) {
		r = bdev_co_zero(b, off, len, len % 3 ? 0 : IO_NO_HOLE);
		if (r == 0)
			memset(env->model + off, 0, len);
	} else if (op == 5) {
		r = bdev_co_flush(b);
	} else {
		r = bdev_co_read(b, off, buf, len);
		EXPECT(env, r < 0 || !memcmp(buf, env->model + off, len));
	}
	EXPECT(env, r == 0 || env->may_fail);
	env->n_done++;
	buf_free(buf, len);
}

static int client_there(void *arg)
{
	struct env *env = arg;

	while (!env->stop)
		client_step(env);
	return 0;
}

static void client_co_run(void *arg)
{
	struct env *env = arg;

	EXPECT(env, reactor_co_call(ashlar_attach_home(env->at), client_there, env) == 0);
	env->runs = false;
}

static void client_start(struct env *env)
{
	env->stop = false;
	env->runs = true;
	co_spawn(CO_SERVICE, client_co_run, env, "client");
}

static void client_co_stop(struct env *env)
{
	env->stop = true;
	while (env->runs)
		co_sleep_ns(NS_PER_MS);
}

static int read_all_there(void *arg)
{
	struct env *env = arg;
	uint8_t *buf = buf_alloc(BYTES);
	int r = bdev_co_read(ashlar_attach_bdev(env->at), 0, buf, BYTES);

	EXPECT(env, r < 0 || !memcmp(buf, env->model, BYTES));
	buf_free(buf, BYTES);
	return r;
}

static int co_read_all(struct env *env)
{
	return reactor_co_call(ashlar_attach_home(env->at), read_all_there, env);
}

static int flush_there(void *arg)
{
	return bdev_co_flush(ashlar_attach_bdev(((struct env *)arg)->at));
}

static int co_flush(struct env *env)
{
	return reactor_co_call(ashlar_attach_home(env->at), flush_there, env);
}

static bool is_far(struct env *env)
{
	uint8_t *buf = malloc(BYTES);
	bool is;

	sim_disk_peek(env->disks, FAR, 0, buf, BYTES);
	is = !memcmp(buf, env->model, BYTES);
	free(buf);
	return is;
}

/* ---- the world ---- */

static void co_attach(struct env *env)
{
	OK(env, ashlar_co_attach(env->a, "p/v", NULL, NULL, &env->at, &e));
}

static void co_detach(struct env *env)
{
	ashlar_co_detach(env->at);
	env->at = NULL;
}

/* Pool and volume, and what a client wrote for a while. */
static void co_fill(struct env *env)
{
	struct ashlar_volume_spec s = { .name = "v", .size_bytes = BYTES };
	struct ashlar_pool_settings set;

	ashlar_co_pool_settings(env->p, &set);
	set.pace_floor_bps = set.pace_ceiling_bps = MIB;
	OK(env, ashlar_co_pool_set(env->p, &set, &e));
	OK(env, ashlar_co_volume_create(env->p, &s, &e));
	co_attach(env);
	client_start(env);
	co_sleep_ns(20 * NS_PER_MS);
	client_co_stop(env);
	EXPECT(env, env->n_done > 20);
}

static void co_move(struct env *env)
{
	OK(env, ashlar_co_volume_move_out(env->p, "v", "far", false, false, &env->id, &e));
}

static enum ashlar_job_state co_job(struct env *env, uint64_t max_ns, const char *text)
{
	struct ashlar_job_info j = { 0 };

	OK(env, ashlar_co_job_wait(env->p, env->id, max_ns, &j, &e));
	if (!strstr(j.result, text))
		fprintf(stderr, "  %s\n", j.result);
	EXPECT(env, strstr(j.result, text));
	return j.state;
}

static void check_say(void *arg, const char *sentence)
{
	fprintf(stderr, "  check: %s\n", sentence);
}

static int co_make_pool(void *arg)
{
	struct env *env = arg;
	struct ashlar_pool_spec s = { .name = "p", .layout = "raid1", .paths = paths, .n_paths = 3, .cluster_bytes = CLUSTER,
				      .group_bytes = MIB };
	struct ashlar *a = ashlar_create(env->w, NULL);

	OK(env, ashlar_co_pool_create(a, &s, &e));
	ashlar_co_destroy(a);
	return 0;
}

static int co_run(void *arg)
{
	struct env *env = arg;
	struct ashlar_options o = { .metadata_cache_bytes = 2 * MIB };
	struct ashlar_check_options co = { .data = true, .say = check_say };

	env->a = ashlar_create(env->w, &o);
	OK(env, ashlar_co_pool_open(env->a, "p", paths, 3, 0, &env->p, &e));
	if (!env->p)
		return -EIO;
	env->body(env);
	if (env->crashes)
		return 0;
	OK(env, (int)ashlar_co_pool_check(env->p, &co, &e));
	OK(env, ashlar_co_pool_close(env->p, &e));
	ashlar_co_destroy(env->a);
	return 0;
}

static void world_run(struct env *env, int (*fn)(void *arg), bool crash)
{
	struct sim_options o = { .seed = env->seed++, .n_reactors = 2, .co_requests_max = 16 };
	int r, result = 0;

	alloc_track_begin();
	env->w = sim_world_create(&o, env->disks);
	env->p = NULL;
	env->at = NULL;
	r = sim_run(env->w, fn, env, &result, LIMIT_NS);
	sim_world_destroy(env->w);
	alloc_track_drop();
	if (crash)
		sim_disks_power_cut(env->disks, SIM_CUT_RANDOM, &env->rng);
	CU_ASSERT_EQUAL(r, 0);
}

static void run(struct env *env, int (*body)(struct env *env))
{
	env->body = body;
	env->crashes = false;
	world_run(env, co_run, false);
}

static void run_and_crash(struct env *env, int (*body)(struct env *env))
{
	env->body = body;
	env->crashes = true;
	world_run(env, co_run, true);
}

static struct env *begin(uint64_t seed, uint64_t far_bytes)
{
	struct sim_disk_conf conf = { .size_bytes = 64 * MIB, .block_bytes = BLOCK };
	struct env *env = calloc(1, sizeof(*env));
	unsigned i;

	env->seed = seed * 1000;
	rng_init(&env->rng, seed);
	rng_init(&env->client_rng, seed + 1);
	env->model = calloc(1, BYTES);
	env->disks = sim_disks_create(seed);
	for (i = 0; i < 3; i++)
		sim_disks_add(env->disks, paths[i], &conf);
	conf.size_bytes = far_bytes;
	CU_ASSERT_EQUAL(sim_disks_add(env->disks, "far", &conf), FAR);
	world_run(env, co_make_pool, false);
	return env;
}

static void end(struct env *env)
{
	sim_disks_destroy(env->disks);
	free(env->model);
	free(env);
}

/* ---- tests ---- */

static int move_co(struct env *env)
{
	uint64_t n;

	co_fill(env);
	client_start(env);
	co_move(env);
	EXPECT(env, co_job(env, 600 * NS_PER_SEC, "served from there") == ASHLAR_JOB_DONE);
	n = env->n_done;
	co_sleep_ns(50 * NS_PER_MS);
	EXPECT(env, env->n_done > n);
	client_co_stop(env);
	EXPECT(env, co_read_all(env) == 0 && co_flush(env) == 0);
	EXPECT(env, is_far(env));
	co_detach(env);
	return 0;
}

static int after_co(struct env *env)
{
	const char *snap[] = { "v@s" };
	struct ashlar_deleted freed = { 0 };

	co_attach(env);
	EXPECT(env, co_read_all(env) == 0);
	client_start(env);
	co_sleep_ns(50 * NS_PER_MS);
	client_co_stop(env);
	EXPECT(env, co_flush(env) == 0 && is_far(env));
	co_detach(env);
	REFUSED(env, -EBUSY, "has been moved to far", ashlar_co_snapshot_create(env->p, snap, 1, &e));
	REFUSED(env, -EBUSY, "has been moved to far", ashlar_co_volume_resize(env->p, "v", 8 * MIB, false, &e));
	REFUSED(env, -EBUSY, "has been moved to far", ashlar_co_volume_move_out(env->p, "v", "far", false, false, &env->id, &e));
	OK(env, ashlar_co_volume_delete(env->p, "v", false, false, false, &freed, &e));
	EXPECT(env, freed.freed_bytes > MIB && is_far(env));
	return 0;
}

static void the_client_does_not_notice(void)
{
	uint64_t seed;

	for (seed = 1; seed <= 8; seed++) {
		struct env *env = begin(seed, 4 * MIB);

		run(env, move_co);
		run(env, after_co);
		end(env);
	}
}

static int cut_co(struct env *env)
{
	co_fill(env);
	EXPECT(env, co_flush(env) == 0);
	co_move(env);
	co_sleep_ns(rng_below(&env->rng, 4 * NS_PER_SEC));
	EXPECT(env, co_read_all(env) == 0);
	return 0;
}

static int cut_after_co(struct env *env)
{
	co_attach(env);
	EXPECT(env, co_read_all(env) == 0);
	client_start(env);
	co_sleep_ns(20 * NS_PER_MS);
	client_co_stop(env);
	EXPECT(env, co_read_all(env) == 0);
	co_detach(env);
	return 0;
}

static void a_crash_leaves_it_here_or_there(void)
{
	uint64_t seed;

	for (seed = 21; seed <= 40; seed++) {
		struct env *env = begin(seed, 4 * MIB);

		run_and_crash(env, cut_co);
		run(env, cut_after_co);
		end(env);
	}
}

static int fails_co(struct env *env)
{
	struct sim_faults *f = sim_disk_faults(env->disks, FAR);

	co_fill(env);
	client_start(env);
	co_move(env);
	co_sleep_ns(50 * NS_PER_MS);
	f->write_error = 65536;
	EXPECT(env, co_job(env, 600 * NS_PER_SEC, "stays where it is") == ASHLAR_JOB_FAILED);
	client_co_stop(env); /* it has seen nothing of it */
	EXPECT(env, co_read_all(env) == 0);
	f->write_error = 0;
	co_move(env);
	OK(env, ashlar_co_job_stop(env->p, env->id, &e));
	EXPECT(env, co_job(env, 0, "of no use") == ASHLAR_JOB_STOPPED);
	EXPECT(env, co_read_all(env) == 0);
	co_detach(env);
	return 0;
}

static void a_target_that_fails_changes_nothing(void)
{
	struct env *env = begin(51, 4 * MIB);

	run(env, fails_co);
	end(env);
}

static int away_co(struct env *env)
{
	struct sim_faults *f = sim_disk_faults(env->disks, FAR);

	co_attach(env);
	client_start(env);
	co_sleep_ns(20 * NS_PER_MS);
	client_co_stop(env);
	EXPECT(env, co_flush(env) == 0);
	f->read_error = f->write_error = f->flush_error = 65536;
	EXPECT(env, co_read_all(env) == -EIO);
	f->read_error = f->write_error = f->flush_error = 0;
	co_sleep_ns(5 * NS_PER_SEC);
	EXPECT(env, co_read_all(env) == 0 && co_flush(env) == 0); /* nothing was lost: no flush has to fail */
	client_start(env);
	while (co_sleep_ns(NS_PER_MS), env->n_done % 8 != 3)
		;
	client_co_stop(env);
	co_detach(env);
	return 0;
}

static int gone_co(struct env *env)
{
	co_attach(env);
	EXPECT(env, co_read_all(env) == -EIO);
	sim_disk_put_back(env->disks, FAR);
	co_sleep_ns(5 * NS_PER_SEC);
	EXPECT(env, co_read_all(env) == 0);
	co_detach(env);
	return 0;
}

static void a_target_that_is_away_comes_back(void)
{
	struct env *env = begin(52, 4 * MIB);

	run(env, move_co);
	run(env, away_co);
	sim_disk_remove(env->disks, FAR);
	run(env, gone_co);
	end(env);
}

static int write_there(void *arg)
{
	struct env *env = arg;
	uint8_t *buf = buf_alloc(BLOCK);
	int r;

	memset(buf, 9, BLOCK);
	r = bdev_co_write(ashlar_attach_bdev(env->at), 0, buf, BLOCK, 0);
	memset(env->model, 9, BLOCK);
	buf_free(buf, BLOCK);
	return r;
}

static int forgotten_co(struct env *env)
{
	struct sim_faults *f = sim_disk_faults(env->disks, FAR);

	co_attach(env);
	EXPECT(env, reactor_co_call(ashlar_attach_home(env->at), write_there, env) == 0);
	f->read_error = 65536;
	EXPECT(env, co_read_all(env) == -EIO);
	f->read_error = 0;
	co_sleep_ns(5 * NS_PER_SEC);
	EXPECT(env, co_flush(env) == -EIO); /* it cannot vouch for that write */
	EXPECT(env, co_flush(env) == 0 && co_read_all(env) == 0);
	co_detach(env);
	return 0;
}

static void no_flush_vouches_for_what_a_broken_connection_took(void)
{
	struct env *env = begin(53, 4 * MIB);

	run(env, move_co);
	run(env, forgotten_co);
	end(env);
}

static int rules_co(struct env *env)
{
	uint64_t id;

	co_fill(env);
	co_detach(env);
	REFUSED(env, -EINVAL, "make it as large", ashlar_co_volume_move_out(env->p, "v", "far", false, false, &id, &e));
	REFUSED(env, -ERR_LOCKED, "target cannot be opened", ashlar_co_volume_move_out(env->p, "v", "d0", true, false, &id, &e));
	REFUSED(env, -ENOENT, "there is no volume", ashlar_co_volume_move_out(env->p, "w", "far", false, false, &id, &e));
	sim_disk_resize(env->disks, FAR, 4 * MIB);
	sim_disk_set_signature(env->disks, FAR, "ext4 file system");
	REFUSED(env, -EEXIST, "ext4 file system", ashlar_co_volume_move_out(env->p, "v", "far", false, true, &id, &e));
	OK(env, ashlar_co_volume_move_out(env->p, "v", "far", true, true, &id, &e));
	EXPECT(env, id == 0 && sim_disk_bytes_written(env->disks, FAR) == 0);
	OK(env, ashlar_co_volume_move_out(env->p, "v", "far", true, false, &env->id, &e));
	REFUSED(env, -EBUSY, "being moved", ashlar_co_volume_move_out(env->p, "v", "far", true, false, &id, &e));
	REFUSED(env, -EBUSY, "being moved", ashlar_co_volume_resize(env->p, "v", 8 * MIB, false, &e));
	OK(env, ashlar_co_volume_delete(env->p, "v", false, false, false, NULL, &e)); /* the job is no client */
	EXPECT(env, co_job(env, 0, "") == ASHLAR_JOB_STOPPED);
	return 0;
}

static void what_cannot_be_is_refused(void)
{
	struct env *env = begin(54, MIB);

	run(env, rules_co);
	end(env);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(the_client_does_not_notice),
		TEST(a_crash_leaves_it_here_or_there),
		TEST(a_target_that_fails_changes_nothing),
		TEST(a_target_that_is_away_comes_back),
		TEST(no_flush_vouches_for_what_a_broken_connection_took),
		TEST(what_cannot_be_is_refused),
		CU_TEST_INFO_NULL,
	};

	return tests_run("moved", tests);
}
