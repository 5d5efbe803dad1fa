/*
 * engine_pool__snapshots_rig.h: a pool on simulated disks and two reactors, and beside it plain arrays of what each volume and snapshot
 * holds. Functions with _co_ in their names, and those that begin with co_, run in coroutines on reactor 0.
 */
#ifndef TESTS_UNIT_ENGINE_POOL__SNAPSHOTS_RIG_H
#define TESTS_UNIT_ENGINE_POOL__SNAPSHOTS_RIG_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <CUnit/Basic.h>

#include "engine/base/units.h"
#include "engine/io/buf.h"
#include "engine/io/sim.h"
#include "engine/pool/pool_internal.h"
#include "tests/unit/engine_pool__expect.h"

#define CLUSTER (16 * KIB)
#define BYTES (MIB)
#define N_DISKS 3
#define POINTS_MAX 40
#define LIMIT_NS (24 * 3600 * NS_PER_SEC)
#define MINUTE_NS (60 * NS_PER_SEC)

static const char *const paths[N_DISKS] = { "d0", "d1", "d2" };

/* What there should be: a volume or snapshot, and what it holds. */
struct point {
	bool used;
	char name[40]; /* v1, v1@s2 */
	uint8_t *data;
};

struct env {
	struct sim_disks *disks;
	struct world *w;
	struct ashlar *a;
	struct ashlar_pool *p;
	struct rng rng;
	uint64_t seed;
	struct point points[POINTS_MAX];
	unsigned n_names;
	int (*body)(struct env *env);
	bool crashes; /* after the body: no closing */
};

/* ---- worlds ---- */

static inline void check_say(void *arg, const char *sentence)
{
	fprintf(stderr, "  check: %s\n", sentence);
}

static inline int co_create_pool(void *arg)
{
	struct env *env = arg;
	struct ashlar_pool_spec s = { .name = "p", .layout = "raid1", .paths = paths, .n_paths = N_DISKS, .cluster_bytes = CLUSTER,
				      .group_bytes = MIB };
	struct ashlar *a = ashlar_create(env->w, NULL);

	OK(env, ashlar_co_pool_create(a, &s, &e));
	ashlar_co_destroy(a);
	return 0;
}

static inline int co_run(void *arg)
{
	struct env *env = arg;
	struct ashlar_options o = { .metadata_cache_bytes = 2 * MIB };
	struct ashlar_check_options co = { .data = true, .say = check_say };

	env->a = ashlar_create(env->w, &o);
	OK(env, ashlar_co_pool_open(env->a, "p", paths, N_DISKS, 0, &env->p, &e));
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

/* Returns what sim_run() does. */
static inline int world_run(struct env *env, int (*fn)(void *arg), bool crash, enum sim_cut cut)
{
	struct sim_options o = { .seed = env->seed++, .n_reactors = 2 };
	int r, result = 0;

	alloc_track_begin();
	env->w = sim_world_create(&o, env->disks);
	env->p = NULL;
	r = sim_run(env->w, fn, env, &result, LIMIT_NS);
	sim_world_destroy(env->w);
	alloc_track_drop();
	if (crash)
		sim_disks_power_cut(env->disks, cut, &env->rng);
	return r;
}

static inline void run(struct env *env, int (*body)(struct env *env))
{
	env->body = body;
	env->crashes = false;
	CU_ASSERT_EQUAL(world_run(env, co_run, false, SIM_CUT_ALL), 0);
}

static inline void run_and_crash(struct env *env, int (*body)(struct env *env))
{
	env->body = body;
	env->crashes = true;
	CU_ASSERT_EQUAL(world_run(env, co_run, true, SIM_CUT_RANDOM), 0);
}

static inline struct env *begin(uint64_t seed, uint64_t disk_bytes)
{
	struct sim_disk_conf conf = { .size_bytes = disk_bytes, .block_bytes = 512 };
	struct env *env = calloc(1, sizeof(*env));
	unsigned i;

	env->seed = seed;
	rng_init(&env->rng, seed);
	env->disks = sim_disks_create(seed);
	for (i = 0; i < N_DISKS; i++)
		sim_disks_add(env->disks, paths[i], &conf);
	CU_ASSERT_EQUAL(world_run(env, co_create_pool, false, SIM_CUT_ALL), 0);
	return env;
}

static inline void end(struct env *env)
{
	unsigned i;

	for (i = 0; i < POINTS_MAX; i++)
		free(env->points[i].data);
	sim_disks_destroy(env->disks);
	free(env);
}

/* ---- what there should be ---- */

static inline struct point *point_find(struct env *env, const char *name)
{
	unsigned i;

	for (i = 0; i < POINTS_MAX; i++)
		if (env->points[i].used && !strcmp(env->points[i].name, name))
			return &env->points[i];
	return NULL;
}

/* from NULL: zeros. */
static inline struct point *point_add(struct env *env, const char *name, const uint8_t *from)
{
	unsigned i;

	for (i = 0; i < POINTS_MAX && env->points[i].used; i++)
		;
	CHECK(i < POINTS_MAX && !point_find(env, name));
	env->points[i].used = true;
	env->points[i].data = calloc(1, BYTES);
	snprintf(env->points[i].name, sizeof(env->points[i].name), "%s", name);
	if (from)
		memcpy(env->points[i].data, from, BYTES);
	return &env->points[i];
}

static inline void point_drop(struct point *pt)
{
	free(pt->data);
	*pt = (struct point){ 0 };
}

static inline bool is_snap(const struct point *pt)
{
	return strchr(pt->name, '@') != NULL;
}

static inline struct point *point_pick(struct env *env, bool snap)
{
	unsigned from = (unsigned)rng_below(&env->rng, POINTS_MAX), i;

	for (i = 0; i < POINTS_MAX; i++) {
		struct point *pt = &env->points[(from + i) % POINTS_MAX];

		if (pt->used && is_snap(pt) == snap)
			return pt;
	}
	return NULL;
}

static inline unsigned points_count(const struct env *env)
{
	unsigned i, n = 0;

	for (i = 0; i < POINTS_MAX; i++)
		n += env->points[i].used;
	return n;
}

/* ---- requests ---- */

struct request {
	struct bdev *b;
	enum io_op op;
	uint64_t off, len;
	void *buf;
};

static inline int request_there(void *arg)
{
	struct request *q = arg;

	switch (q->op) {
	case IO_READ: return bdev_co_read(q->b, q->off, q->buf, q->len);
	case IO_WRITE: return bdev_co_write(q->b, q->off, q->buf, q->len, 0);
	case IO_DISCARD: return bdev_co_zero(q->b, q->off, q->len, 0);
	default: return bdev_co_flush(q->b);
	}
}

static inline struct ashlar_attach *co_attach(struct env *env, const char *name)
{
	struct ashlar_attach *at = NULL;
	char export_name[64];

	snprintf(export_name, sizeof(export_name), "p/%s", name);
	OK(env, ashlar_co_attach(env->a, export_name, NULL, NULL, &at, &e));
	return at;
}

static inline int co_request(struct ashlar_attach *at, enum io_op op, uint64_t off, void *buf, uint64_t len)
{
	struct request q = { ashlar_attach_bdev(at), op, off, len, buf };

	return reactor_co_call(ashlar_attach_home(at), request_there, &q);
}

static inline void co_do(struct env *env, const char *name, enum io_op op, uint64_t off, void *buf, uint64_t len)
{
	struct ashlar_attach *at = co_attach(env, name);

	if (!at)
		return;
	EXPECT(env, co_request(at, op, off, buf, len) == 0);
	ashlar_co_detach(at);
}

static inline void co_write(struct env *env, const char *name, uint64_t off, uint64_t len)
{
	struct point *pt = point_find(env, name);
	uint8_t *buf = buf_alloc(len);

	memset(buf, (int)rng_below(&env->rng, 255) + 1, len);
	co_do(env, name, IO_WRITE, off, buf, len);
	memcpy(pt->data + off, buf, len);
	buf_free(buf, len);
}

static inline void co_verify_one(struct env *env, const struct point *pt)
{
	uint8_t *buf = buf_alloc(BYTES);

	co_do(env, pt->name, IO_READ, 0, buf, BYTES);
	if (memcmp(buf, pt->data, BYTES))
		fprintf(stderr, "%s differs\n", pt->name);
	EXPECT(env, !memcmp(buf, pt->data, BYTES));
	buf_free(buf, BYTES);
}

/* All that should be there is, nothing else is, and holds what it should. */
static inline int co_verify(struct env *env)
{
	struct ashlar_volume_info *v = NULL;
	struct ashlar_snapshot_info *s = NULL;
	size_t n_vols = 0, n_snaps = 0, i;

	OK(env, ashlar_co_volume_list(env->p, &v, &n_vols, &e));
	OK(env, ashlar_co_snapshot_list(env->p, NULL, &s, &n_snaps, &e));
	for (i = 0; i < n_vols; i++)
		EXPECT(env, point_find(env, v[i].name) && v[i].size_bytes == BYTES);
	for (i = 0; i < n_snaps; i++)
		EXPECT(env, point_find(env, s[i].name) && !uuid_is_zero(&s[i].guid));
	EXPECT(env, n_vols + n_snaps == points_count(env));
	for (i = 0; i < POINTS_MAX; i++)
		if (env->points[i].used)
			co_verify_one(env, &env->points[i]);
	xfree(v);
	xfree(s);
	return 0;
}

/* ---- commands, with the arrays ---- */

static inline void co_volume(struct env *env, const char *name)
{
	struct ashlar_volume_spec s = { .name = name, .size_bytes = BYTES };

	OK(env, ashlar_co_volume_create(env->p, &s, &e));
	point_add(env, name, NULL);
}

static inline void co_snap(struct env *env, const char *name)
{
	char volume[40];

	OK(env, ashlar_co_snapshot_create(env->p, &name, 1, &e));
	snprintf(volume, sizeof(volume), "%.*s", (int)strcspn(name, "@"), name);
	point_add(env, name, point_find(env, volume)->data);
}

static inline void co_clone(struct env *env, const char *snap, const char *name)
{
	OK(env, ashlar_co_clone(env->p, snap, name, &e));
	point_add(env, name, point_find(env, snap)->data);
}

/* Nothing of what has been deleted is left to be freed. */
static inline void co_settle(struct env *env)
{
	struct thin_vol *v;
	bool busy = true;
	unsigned i;

	for (i = 0; busy && i < 10000; i++) {
		busy = false;
		list_for_each (v, thin_vols(env->p->thin), link)
			busy |= v->state == THIN_VOLUME_DELETING;
		co_sleep_ns(NS_PER_MS);
	}
	EXPECT(env, !busy);
}

static inline uint64_t co_used(struct env *env)
{
	struct ashlar_pool_info info;

	co_sleep_ns(5 * NS_PER_MS); /* what has just been written is counted a moment later */
	ashlar_co_pool_info(env->p, &info);
	return info.used_bytes;
}

static inline bool co_is_there(struct env *env, const char *name)
{
	struct ashlar_snapshot_info s;
	struct ashlar_volume_info v;

	return (strchr(name, '@') ? ashlar_co_snapshot_info(env->p, name, &s, NULL) : ashlar_co_volume_info(env->p, name, &v, NULL)) == 0;
}

#endif
