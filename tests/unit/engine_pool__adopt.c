/*
 * Volumes that begin as something else: what clients see, while the rest comes over, is a plain array that began as the source.
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
#define SUB (CLUSTER / 16)
#define BLOCK 512
#define SOURCE_BYTES (3 * MIB + 5 * BLOCK)
#define VOLUME_BYTES (4 * MIB + BLOCK)
#define SHARED_BYTES (2 * MIB) /* block by block the clients' in turn; behind it each has a part of its own */
#define N_CLIENTS 4
#define OWN_BYTES ((VOLUME_BYTES - SHARED_BYTES) / N_CLIENTS / SUB * SUB)
#define LIMIT_NS (24 * 3600 * NS_PER_SEC)

static const char *const paths[] = { "d0", "d1", "d2" };
enum { SRC = 3 }; /* its number among the simulated disks */

struct env;
struct client {
	struct env *env;
	unsigned index;
	struct rng rng;
};

struct env {
	struct sim_disks *disks;
	struct world *w;
	struct ashlar *a;
	struct ashlar_pool *p;
	struct ashlar_attach *at;
	struct rng rng;
	uint64_t seed;
	uint8_t *model;	     /* of VOLUME_BYTES */
	uint8_t unknown[VOLUME_BYTES / BLOCK]; /* a change failed there: done, or in part, or not */
	struct client clients[N_CLIENTS];
	unsigned n_running, n_steps;
	uint64_t shared_bytes; /* of SHARED_BYTES, what is used */
	bool may_fail;	     /* the source is away */
	unsigned n_failed;
	unsigned n_began_adopted; /* worlds */
	int (*body)(struct env *env);
	bool crashes;
	uint64_t off, len; /* for what runs on the volume's reactor */
	uint8_t *buf;
};

static bool block_is_right(const struct env *env, uint64_t off, const uint8_t *have)
{
	return env->unknown[off / BLOCK] || !memcmp(have, env->model + off, BLOCK);
}

/* ---- clients, on the volume's reactor ---- */

static bool op_is_done(struct client *c, int r)
{
	EXPECT(c->env, r == 0 || (c->env->may_fail && r == -EIO));
	c->env->n_failed += r < 0;
	return r == 0;
}

static void client_write(struct client *c, uint64_t off, uint64_t len)
{
	struct bdev *b = ashlar_attach_bdev(c->env->at);
	uint8_t *buf = buf_alloc(len);
	unsigned op = (unsigned)rng_below(&c->rng, 8), flags = rng_below(&c->rng, 6) ? 0 : IO_FUA;
	uint64_t first = off, last = off + len;
	bool done;

	rng_fill(&c->rng, buf, len);
	if (op < 5) {
		done = op_is_done(c, bdev_co_write(b, off, buf, len, flags));
	} else {
		memset(buf, 0, len);
		if (op < 7) {
			done = op_is_done(c, bdev_co_zero(b, off, len, flags | (op == 6 ? IO_NO_HOLE : 0)));
		} else {
			done = op_is_done(c, bdev_co_discard(b, off, len, flags));
			first = ALIGN_UP(off, SUB);
			last = last == VOLUME_BYTES ? last : ALIGN_DOWN(last, SUB);
		}
	}
	if (first < last) {
		memset(c->env->unknown + first / BLOCK, !done, (last - first) / BLOCK);
		memcpy(c->env->model + first, buf, last - first);
	}
	buf_free(buf, len);
}

static void client_read(struct client *c, uint64_t off, uint64_t len)
{
	uint8_t *buf = buf_alloc(len);
	uint64_t i;

	if (op_is_done(c, bdev_co_read(ashlar_attach_bdev(c->env->at), off, buf, len)))
		for (i = 0; i < len; i += BLOCK)
			if (off + i >= SHARED_BYTES || (off + i) / BLOCK % N_CLIENTS == c->index)
				EXPECT(c->env, block_is_right(c->env, off + i, buf + i));
	buf_free(buf, len);
}

static void client_co_run(void *arg)
{
	struct client *c = arg;
	unsigned i;

	for (i = 0; i < c->env->n_steps; i++) {
		uint64_t off = (rng_below(&c->rng, c->env->shared_bytes / BLOCK / N_CLIENTS) * N_CLIENTS + c->index) * BLOCK, len = BLOCK;

		if (rng_below(&c->rng, 2)) {
			len = (1 + rng_below(&c->rng, rng_below(&c->rng, 4) ? 12 : OWN_BYTES / BLOCK)) * BLOCK;
			off = SHARED_BYTES + c->index * OWN_BYTES + rng_below(&c->rng, (OWN_BYTES - len) / BLOCK + 1) * BLOCK;
		}
		if (rng_below(&c->rng, 2))
			client_write(c, off, len);
		else
			client_read(c, off, len);
		if (!rng_below(&c->rng, 16))
			EXPECT(c->env, bdev_co_flush(ashlar_attach_bdev(c->env->at)) == 0);
	}
	c->env->n_running--;
}

static int clients_there(void *arg)
{
	struct env *env = arg;
	unsigned i;

	for (i = 0; i < N_CLIENTS; i++) {
		env->clients[i].env = env;
		env->clients[i].index = i;
		rng_init(&env->clients[i].rng, env->seed * 100 + i);
		env->n_running++;
		co_spawn(CO_SERVICE, client_co_run, &env->clients[i], "client");
	}
	while (env->n_running)
		co_sleep_ns(NS_PER_MS);
	return bdev_co_flush(ashlar_attach_bdev(env->at));
}

static void co_clients(struct env *env, unsigned steps)
{
	env->seed++;
	env->n_steps = steps;
	EXPECT(env, reactor_co_call(ashlar_attach_home(env->at), clients_there, env) == 0);
}

static int read_there(void *arg)
{
	struct env *env = arg;
	uint8_t *buf = buf_alloc(env->len);
	int r = bdev_co_read(ashlar_attach_bdev(env->at), env->off, buf, env->len);

	memcpy(env->buf, buf, env->len);
	buf_free(buf, env->len);
	return r;
}

static int co_read(struct env *env, uint64_t off, void *buf, uint64_t len)
{
	env->off = off;
	env->len = len;
	env->buf = buf;
	return reactor_co_call(ashlar_attach_home(env->at), read_there, env);
}

static int write_there(void *arg)
{
	struct env *env = arg;
	uint8_t *buf = buf_alloc(env->len);
	int r;

	memcpy(buf, env->buf, env->len);
	r = bdev_co_write(ashlar_attach_bdev(env->at), env->off, buf, env->len, 0);
	buf_free(buf, env->len);
	return r;
}

static int co_write(struct env *env, uint64_t off, void *buf, uint64_t len)
{
	env->off = off;
	env->len = len;
	env->buf = buf;
	return reactor_co_call(ashlar_attach_home(env->at), write_there, env);
}

static void co_compare(struct env *env)
{
	uint8_t *buf = malloc(VOLUME_BYTES);
	uint64_t off;

	EXPECT(env, co_read(env, 0, buf, VOLUME_BYTES) == 0);
	for (off = 0; off < VOLUME_BYTES; off += BLOCK)
		EXPECT(env, block_is_right(env, off, buf + off));
	free(buf);
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

static void co_pace(struct env *env, uint64_t bps)
{
	struct ashlar_pool_settings s;

	ashlar_co_pool_settings(env->p, &s);
	s.pace_floor_bps = s.pace_ceiling_bps = bps;
	OK(env, ashlar_co_pool_set(env->p, &s, &e));
}

static void co_create(struct env *env, uint64_t size)
{
	struct ashlar_volume_spec s = { .name = "v", .size_bytes = size, .from = "src", .full_wait_ns = NS_PER_SEC };

	OK(env, ashlar_co_volume_create(env->p, &s, &e));
}

static bool is_adopted(struct env *env)
{
	struct ashlar_volume_info i;

	OK(env, ashlar_co_volume_info(env->p, "v", &i, &e));
	return i.source[0];
}

static void job_of(struct env *env, struct ashlar_job_info *out)
{
	struct ashlar_job_info *v;
	size_t n, i;

	memset(out, 0, sizeof(*out));
	OK(env, ashlar_co_job_list(env->p, &v, &n, &e));
	for (i = 0; i < n; i++)
		if (v[i].kind == ASHLAR_JOB_ADOPT)
			*out = v[i];
	xfree(v);
}

static void co_until_adopted(struct env *env)
{
	struct ashlar_job_info j;
	uint64_t until = reactor_now_ns() + 600 * NS_PER_SEC;

	if (!is_adopted(env))
		return;
	while (is_adopted(env) && reactor_now_ns() < until)
		co_sleep_ns(100 * NS_PER_MS);
	EXPECT(env, !is_adopted(env));
	co_sleep_ns(NS_PER_SEC);
	job_of(env, &j);
	EXPECT(env, j.state == ASHLAR_JOB_DONE && j.done_bytes == SOURCE_BYTES);
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

/* The source: data, zeros, and both in one subcluster. */
static void source_fill(struct env *env)
{
	uint64_t off, len;

	for (off = 0; off < SOURCE_BYTES; off += len) {
		len = (1 + rng_below(&env->rng, 300)) * BLOCK;
		len = MIN(len, SOURCE_BYTES - off);
		if (rng_below(&env->rng, 3))
			rng_fill(&env->rng, env->model + off, len);
	}
	sim_disk_poke(env->disks, SRC, 0, env->model, SOURCE_BYTES);
}

static struct env *begin(uint64_t seed)
{
	struct sim_disk_conf conf = { .size_bytes = 64 * MIB, .block_bytes = BLOCK };
	struct env *env = calloc(1, sizeof(*env));
	unsigned i;

	env->seed = seed * 1000;
	env->shared_bytes = SHARED_BYTES;
	rng_init(&env->rng, seed);
	env->model = calloc(1, VOLUME_BYTES);
	env->disks = sim_disks_create(seed);
	for (i = 0; i < 3; i++)
		sim_disks_add(env->disks, paths[i], &conf);
	conf.size_bytes = SOURCE_BYTES;
	CU_ASSERT_EQUAL(sim_disks_add(env->disks, "src", &conf), SRC);
	source_fill(env);
	world_run(env, co_make_pool, false);
	return env;
}

static void end(struct env *env)
{
	CU_ASSERT_EQUAL(sim_disk_bytes_written(env->disks, SRC), 0);
	sim_disks_destroy(env->disks);
	free(env->model);
	free(env);
}

/* ---- under load ---- */

static int load_co(struct env *env)
{
	co_pace(env, 4 * MIB);
	co_create(env, VOLUME_BYTES);
	co_attach(env);
	EXPECT(env, is_adopted(env));
	co_compare(env);
	co_clients(env, 100);
	co_compare(env);
	co_until_adopted(env);
	co_compare(env);
	co_clients(env, 60);
	co_compare(env);
	co_detach(env);
	co_attach(env);
	co_compare(env);
	co_detach(env);
	return 0;
}

static void clients_see_the_source_and_their_changes(void)
{
	uint64_t seed;

	for (seed = 1; seed <= 12; seed++) {
		struct env *env = begin(seed);

		run(env, load_co);
		end(env);
	}
}

/* The layer goes while clients are at it, writing blocks of subclusters of which the source has nothing. */
static int finish_co(struct env *env)
{
	co_create(env, VOLUME_BYTES);
	co_attach(env);
	co_clients(env, 60);
	co_until_adopted(env);
	co_compare(env);
	co_detach(env);
	return 0;
}

static void the_end_is_not_noticed(void)
{
	uint64_t seed;

	for (seed = 101; seed <= 160; seed++) {
		struct env *env = begin(seed);

		env->shared_bytes = 128 * KIB;
		memset(env->model, 0, SHARED_BYTES);
		sim_disk_poke(env->disks, SRC, 0, env->model, SOURCE_BYTES);
		run(env, finish_co);
		end(env);
	}
}

/* ---- crashes, restarts ---- */

static int crash_begin_co(struct env *env)
{
	co_pace(env, MIB);
	co_create(env, VOLUME_BYTES);
	co_attach(env);
	co_clients(env, (unsigned)rng_below(&env->rng, 60));
	co_sleep_ns(rng_below(&env->rng, NS_PER_SEC / 4));
	return 0;
}

static int crash_more_co(struct env *env)
{
	env->n_began_adopted += is_adopted(env);
	co_attach(env);
	co_compare(env);
	co_clients(env, (unsigned)rng_below(&env->rng, 60));
	co_sleep_ns(rng_below(&env->rng, NS_PER_SEC / 8));
	return 0;
}

static int restart_co(struct env *env)
{
	co_attach(env);
	co_compare(env);
	co_clients(env, 20);
	co_detach(env);
	return 0;
}

static int crash_end_co(struct env *env)
{
	co_pace(env, 0);
	co_attach(env);
	co_compare(env);
	co_until_adopted(env);
	co_compare(env);
	co_detach(env);
	return 0;
}

static int again_co(struct env *env)
{
	co_attach(env);
	EXPECT(env, !is_adopted(env));
	co_compare(env);
	co_detach(env);
	return 0;
}

static void a_crash_loses_nothing(void)
{
	uint64_t seed;
	unsigned i, n = 0;

	for (seed = 41; seed <= 60; seed++) {
		struct env *env = begin(seed);

		run_and_crash(env, crash_begin_co);
		for (i = 0; i < 3; i++)
			run_and_crash(env, crash_more_co);
		run(env, restart_co);
		run(env, crash_end_co);
		sim_disk_remove(env->disks, SRC); /* it is not needed any more */
		run(env, again_co);
		n += env->n_began_adopted;
		end(env);
	}
	CU_ASSERT(n >= 20); /* it was not over before */
}

/* ---- the source goes ---- */

static int away_co(struct env *env)
{
	struct ashlar_job_info j;
	uint8_t *buf = malloc(MIB);
	uint64_t off = 2 * MIB + 512 * KIB;

	co_pace(env, MIB);
	co_create(env, VOLUME_BYTES);
	co_attach(env);
	co_sleep_ns(200 * NS_PER_MS);
	sim_disk_faults(env->disks, SRC)->read_error = 65536;
	EXPECT(env, co_read(env, off, buf, CLUSTER) == -EIO);
	memset(buf, 7, CLUSTER);
	EXPECT(env, co_write(env, off, buf, CLUSTER) == 0); /* whole subclusters need no source */
	EXPECT(env, co_write(env, off + 2 * CLUSTER, buf, BLOCK) == -EIO);
	memcpy(env->model + off, buf, CLUSTER);
	EXPECT(env, co_read(env, off, buf, CLUSTER) == 0 && !memcmp(buf, env->model + off, CLUSTER));
	EXPECT(env, co_read(env, SOURCE_BYTES, buf, BLOCK) == 0 && !buf[0] && !buf[BLOCK - 1]); /* behind its end */
	env->may_fail = true;
	co_clients(env, 50);
	EXPECT(env, env->n_failed > 0);
	co_sleep_ns(20 * NS_PER_SEC);
	job_of(env, &j);
	EXPECT(env, j.state == ASHLAR_JOB_WAITING && strstr(j.result, "src"));
	env->may_fail = false;
	sim_disk_faults(env->disks, SRC)->read_error = 0;
	co_until_adopted(env);
	co_compare(env);
	co_detach(env);
	free(buf);
	return 0;
}

static void a_source_that_fails_fails_what_needs_it(void)
{
	uint64_t seed;

	for (seed = 71; seed <= 74; seed++) {
		struct env *env = begin(seed);

		run(env, away_co);
		end(env);
	}
}

static int slow_co(struct env *env)
{
	co_pace(env, MIB);
	co_create(env, VOLUME_BYTES);
	co_attach(env);
	co_clients(env, 20);
	co_detach(env);
	return 0;
}

static int without_co(struct env *env)
{
	uint8_t buf[BLOCK];
	uint64_t off;
	unsigned failed = 0;

	co_attach(env);
	for (off = 0; off < SOURCE_BYTES; off += 16 * KIB) {
		int r = co_read(env, off, buf, BLOCK);

		EXPECT(env, r == -EIO || (r == 0 && !memcmp(buf, env->model + off, BLOCK)));
		failed += r < 0;
	}
	EXPECT(env, failed > 0 && failed < SOURCE_BYTES / (16 * KIB));
	EXPECT(env, is_adopted(env));
	co_detach(env);
	return 0;
}

static int shorter_co(struct env *env)
{
	struct ashlar_job_info j;

	co_sleep_ns(NS_PER_SEC);
	job_of(env, &j);
	EXPECT(env, j.state == ASHLAR_JOB_WAITING && strstr(j.result, "bytes now"));
	return without_co(env);
}

static void a_pool_opens_without_the_source(void)
{
	struct env *env = begin(81);

	run(env, slow_co);
	sim_disk_remove(env->disks, SRC);
	run(env, without_co);
	sim_disk_put_back(env->disks, SRC);
	sim_disk_resize(env->disks, SRC, SOURCE_BYTES - BLOCK);
	run(env, shorter_co);
	sim_disk_resize(env->disks, SRC, SOURCE_BYTES);
	sim_disk_poke(env->disks, SRC, SOURCE_BYTES - BLOCK, env->model + SOURCE_BYTES - BLOCK, BLOCK);
	run(env, crash_end_co);
	end(env);
}

/* ---- rules ---- */

static int rules_co(struct env *env)
{
	struct ashlar_volume_spec small = { .name = "w", .size_bytes = MIB, .from = "src" }, own = { .name = "w", .from = "d1" },
				  none = { .name = "w", .from = "nowhere" };
	const char *snap[] = { "v@s" };
	struct ashlar_job_info j;
	struct ashlar_volume_info i;
	struct ashlar_attach *at;

	REFUSED(env, -EINVAL, "less than", ashlar_co_volume_create(env->p, &small, &e));
	REFUSED(env, -ERR_LOCKED, "source cannot be opened", ashlar_co_volume_create(env->p, &own, &e));
	REFUSED(env, -ENOENT, "source cannot be opened", ashlar_co_volume_create(env->p, &none, &e));
	EXPECT(env, !(env->p->label->incompat & LABEL_INCOMPAT_SOURCES));
	co_pace(env, MIB);
	co_create(env, 0);
	EXPECT(env, env->p->label->incompat & LABEL_INCOMPAT_SOURCES);
	OK(env, ashlar_co_volume_info(env->p, "v", &i, &e));
	EXPECT(env, i.size_bytes == SOURCE_BYTES && i.source_bytes == SOURCE_BYTES && !strcmp(i.source, "src") && !i.n_attached);
	REFUSED(env, -EBUSY, "has to wait", ashlar_co_snapshot_create(env->p, snap, 1, &e));
	REFUSED(env, -EBUSY, "has to wait", ashlar_co_snapshot_policy(env->p, "v", 3600 * NS_PER_SEC, 3, &e));
	REFUSED(env, -EBUSY, "has to wait", ashlar_co_volume_resize(env->p, "v", 8 * MIB, false, &e));
	REFUSED(env, -EBUSY, "has to wait", ashlar_co_volume_resize(env->p, "v", MIB, true, &e));
	OK(env, ashlar_co_volume_rename(env->p, "v", "x", &e));
	OK(env, ashlar_co_volume_rename(env->p, "x", "v", &e));
	co_sleep_ns(100 * NS_PER_MS);
	job_of(env, &j);
	EXPECT(env, j.state == ASHLAR_JOB_RUNNING && j.total_bytes == SOURCE_BYTES);
	REFUSED(env, -EINVAL, "deleting the volume", ashlar_co_job_stop(env->p, j.id, &e));
	OK(env, ashlar_co_volume_delete(env->p, "v", false, false, false, NULL, &e)); /* the job is no client */
	job_of(env, &j);
	EXPECT(env, j.state == ASHLAR_JOB_STOPPED);
	REFUSED(env, -ENOENT, "no export", ashlar_co_attach(env->a, "p/v", NULL, NULL, &at, &e));
	co_create(env, 0);
	co_pace(env, 0);
	co_until_adopted(env);
	OK(env, ashlar_co_snapshot_create(env->p, snap, 1, &e));
	OK(env, ashlar_co_volume_resize(env->p, "v", 8 * MIB, false, &e));
	return 0;
}

static void what_has_to_wait_is_refused(void)
{
	struct env *env = begin(91);

	run(env, rules_co);
	end(env);
}

static int zeros_co(struct env *env)
{
	struct ashlar_volume_info i;
	uint64_t off, want = 0;
	uint8_t zeros[SUB] = { 0 };

	for (off = 0; off < SOURCE_BYTES; off += SUB)
		want += memcmp(env->model + off, zeros, MIN(SUB, SOURCE_BYTES - off)) ? SUB : 0;
	co_create(env, 0);
	co_until_adopted(env);
	OK(env, ashlar_co_volume_info(env->p, "v", &i, &e));
	EXPECT(env, i.refer_bytes == want && want < SOURCE_BYTES * 3 / 4);
	return 0;
}

static void zeros_of_the_source_cost_nothing(void)
{
	struct env *env = begin(92);

	memset(env->model + MIB, 0, MIB);
	sim_disk_poke(env->disks, SRC, 0, env->model, SOURCE_BYTES);
	run(env, zeros_co);
	end(env);
}

static void fill_co_until_full(struct env *env, struct ashlar_attach *w)
{
	struct ashlar_attach *v = env->at;
	uint8_t *buf = malloc(CLUSTER);
	uint64_t off = 0;

	memset(buf, 1, CLUSTER);
	env->at = w;
	while (off < 256 * MIB && co_write(env, off, buf, CLUSTER) == 0)
		off += CLUSTER;
	EXPECT(env, off < 256 * MIB);
	env->at = v;
	free(buf);
}

static int full_co(struct env *env)
{
	struct ashlar_volume_spec other = { .name = "w", .size_bytes = 256 * MIB };
	struct ashlar_job_info j;
	struct ashlar_attach *w;

	OK(env, ashlar_co_volume_create(env->p, &other, &e));
	OK(env, ashlar_co_attach(env->a, "p/w", NULL, NULL, &w, &e));
	fill_co_until_full(env, w);
	ashlar_co_detach(w);
	co_create(env, VOLUME_BYTES);
	co_attach(env);
	co_sleep_ns(30 * NS_PER_SEC);
	job_of(env, &j);
	EXPECT(env, j.state == ASHLAR_JOB_WAITING && strstr(j.result, "full"));
	co_compare(env); /* reads need no space */
	OK(env, ashlar_co_volume_delete(env->p, "w", false, false, false, NULL, &e));
	co_until_adopted(env);
	co_compare(env);
	co_detach(env);
	return 0;
}

static void a_full_pool_makes_it_wait(void)
{
	struct env *env = begin(93);

	run(env, full_co);
	end(env);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(clients_see_the_source_and_their_changes),
		TEST(the_end_is_not_noticed),
		TEST(a_crash_loses_nothing),
		TEST(a_source_that_fails_fails_what_needs_it),
		TEST(a_pool_opens_without_the_source),
		TEST(what_has_to_wait_is_refused),
		TEST(zeros_of_the_source_cost_nothing),
		TEST(a_full_pool_makes_it_wait),
		CU_TEST_INFO_NULL,
	};

	return tests_run("adopt", tests);
}
