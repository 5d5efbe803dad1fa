/*
 * crash_workload.c: what is crashed: small pools, short sequences of operations.
 */
#include "tests/crash/crash_run.h"

#include <stdio.h>
#include <string.h>

#include "engine/base/hash.h"
#include "raid/geometry.h"

static const struct shape {
	const char *layout;
	unsigned disks;
	uint32_t block, cluster;
	unsigned reactors;
	bool spare;
} mixed[] = {
	{ "raid1", 2, 512, 8192, 1, false },   { "single", 1, 512, 8192, 1, false },   { "raid1", 3, 512, 16384, 2, false },
	{ "raid0", 2, 512, 16384, 1, false },  { "raid10", 4, 512, 8192, 2, false },   { "raid1-3", 3, 512, 8192, 1, false },
	{ "raid1", 2, 4096, 65536, 1, false }, { "single", 1, 4096, 65536, 2, false }, { "raid1-3", 5, 512, 8192, 1, false },
}, parity[] = {
	{ "raid5", 3, 512, 8192, 1, false },  { "raid6", 4, 512, 8192, 1, false },    { "raid5", 5, 512, 8192, 1, false },
	{ "raid6", 6, 512, 8192, 1, false },  { "raid5", 4, 512, 8192, 1, true },     { "raid6", 5, 512, 8192, 1, true },
	{ "raid5", 5, 512, 16384, 2, false }, { "raid6", 4, 4096, 65536, 2, false },
};

static const char *const base_names[BASE_N] = { "clean", "crashed", "stale", "laps" };

static const struct shape *shape_of(const struct crash_run *c, unsigned i)
{
	return c->parity ? &parity[i] : &mixed[i];
}

static unsigned n_shapes(const struct crash_run *c)
{
	return c->parity ? ARRAY_LEN(parity) : ARRAY_LEN(mixed);
}

/* ---- the recorded run ---- */

static void second_co_main(void *arg)
{
	struct crash_run *c = arg;
	unsigned i;

	for (i = 1; i < c->wl.n_ops && !c->rig.failed; i += 2)
		ops_co_run(c, c->wl.ops[i]);
	c->n_running--;
}

/* Keeps the pool's claim up to date, so that a crash at any moment knows how much more may be lost. */
static void watch_co_main(void *arg)
{
	struct crash_run *c = arg;
	struct rig *g = &c->rig;
	uint32_t hurt;

	while (!c->watch_ends) {
		hurt = c->hurt;
		rig_co_claim(g, &c->claim);
		if (hurt == c->hurt && c->claim.redundancy >= (int)c->tolerates && !(hurt & c->claim.away) &&
		    !sim_disk_faults(g->disks, c->victim)->gone)
			c->hurt = 0;
		co_sleep_ns(NS_PER_MS);
	}
	c->n_running--;
}

static void start(struct crash_run *c, void (*fn)(void *arg), const char *name)
{
	c->n_running++;
	co_spawn(CO_SERVICE, fn, c, name);
}

int workload_co_run(void *arg)
{
	struct crash_run *c = arg;
	unsigned i;
	int r = rig_co_open(&c->rig, 0);

	if (r < 0)
		return r;
	start(c, watch_co_main, "watch");
	if (c->wl.two)
		start(c, second_co_main, "second client");
	for (i = 0; i < c->wl.n_ops && !c->rig.failed; i += c->wl.two ? 2 : 1)
		ops_co_run(c, c->wl.ops[i]);
	while (c->n_running > 1)
		co_sleep_ns(NS_PER_MS);
	if (!c->wl.close)
		co_sleep_ns(rng_below(&c->rng, 1500 * NS_PER_MS));
	c->watch_ends = true;
	while (c->n_running)
		co_sleep_ns(NS_PER_MS);
	c->rig.may_fail = c->rig.degraded;
	rig_co_close(&c->rig);
	c->done = true;
	return 0;
}

/* ---- making one ---- */

static bool wants(const struct workload *w, bool (*what)(unsigned op))
{
	unsigned i;

	for (i = 0; i < w->n_ops; i++)
		if (what(w->ops[i]))
			return true;
	return false;
}

static void shape_take(struct crash_run *c, const struct shape *s)
{
	struct rig *g = &c->rig;
	struct sim_disk_conf conf = { .size_bytes = DISK_BYTES, .block_bytes = s->block };
	struct raid_profile prof;
	unsigned i;
	int r = raid_profile_parse(s->layout, &prof);

	CHECK(r == 0);
	c->tolerates = raid_profile_tolerates(prof);
	c->spare = s->spare;
	g->layout = s->layout;
	g->n_first = s->disks;
	g->n_disks = s->disks + wants(&c->wl, ops_moves_disks);
	g->n_reactors = s->reactors;
	g->block_bytes = s->block;
	g->cluster_bytes = s->cluster;
	g->group_bytes = MIB;
	g->cache_bytes = MIB;
	g->settings = (struct ashlar_pool_settings){ .rebuild_delay_ns = 20 * NS_PER_MS, .pace_floor_bps = 10 * MIB,
						     .hedge_ns = 100 * NS_PER_MS, .timeout_ns = 30 * NS_PER_SEC };
	for (i = 0; i < g->n_disks; i++)
		sim_disks_add(g->disks, rig_paths[i], &conf);
	rig_sources_add(g, &c->rng);
	g->source_stall_ns = 20 * NS_PER_MS;
	if (wants(&c->wl, ops_wants_other)) /* its subclusters are as large as the first one's, or larger */
		rig_other_add(g, "raid1", 2, DISK_BYTES, s->cluster == 8192 ? 16384 : s->cluster);
}

void workload_make(struct crash_run *c, uint64_t number)
{
	unsigned shapes = n_shapes(c), i;
	struct workload *w = &c->wl;

	rng_init(&c->rng, hash_mix(number + 77 + 1000 * c->parity));
	c->rig.disks = sim_disks_create(rng_next(&c->rng));
	c->rig.model = model_create();
	*w = (struct workload){ .number = number };
	if (number < shapes * ops_n_alone(c)) {
		w->shape = (unsigned)(number % shapes);
		w->n_ops = 1;
		w->ops[0] = ops_alone(c, (unsigned)(number / shapes));
		if (w->ops[0] == ops_large()) /* what it finds is torn blocks of one shape, one lap upon the other */
			w->base = BASE_LAPS;
	} else {
		w->shape = (unsigned)rng_below(&c->rng, shapes);
		w->n_ops = 2 + (unsigned)rng_below(&c->rng, 4);
		for (i = 0; i < w->n_ops; i++)
			w->ops[i] = ops_random(c);
		w->two = rng_chance(&c->rng, 1, 3);
		w->base = (enum base)rng_below(&c->rng, BASE_N);
		if (w->base == BASE_LAPS)
			w->ops[rng_below(&c->rng, w->n_ops)] = ops_large();
	}
	w->close = rng_chance(&c->rng, 1, 2);
	shape_take(c, shape_of(c, w->shape));
	for (i = 0; i < w->n_ops; i++)
		c->rig.cache_bytes = MIN(c->rig.cache_bytes, ops_cache_bytes(w->ops[i]));
	c->victim = (unsigned)rng_below(&c->rng, c->rig.n_first);
	if (c->spare && c->victim == c->rig.n_first - 1)
		c->victim = 0;
	if (w->base == BASE_STALE && !c->tolerates)
		w->base = BASE_CRASHED;
}

unsigned workload_find_op(const struct crash_run *c, const char *name, uint64_t *first)
{
	unsigned i;

	for (i = 0; i < ops_n_alone(c); i++) {
		*first = (uint64_t)i * n_shapes(c);
		if (!strcmp(ops_name(ops_alone(c, i)), name))
			return n_shapes(c);
	}
	return 0;
}

void workload_describe(const struct workload *w, const struct rig *g, char *buf, size_t len)
{
	size_t at;
	unsigned i;

	at = (size_t)snprintf(buf, len, "%u x %s%s, block %u, %s base:", g->n_first, g->layout, g->q.n_disks ? ", and a pool of 2 x raid1" : "",
			      g->block_bytes, base_names[w->base]);
	for (i = 0; i < w->n_ops && at < len; i++)
		at += (size_t)snprintf(buf + at, len - at, "%s%s", i ? (w->two ? " | " : ", ") : " ", ops_name(w->ops[i]));
	if (w->close && at < len)
		snprintf(buf + at, len - at, ", close");
}

/* ---- the base ---- */

/* Volumes side by side, so that they share groups and stripes. */
static int prepare_co_volumes(struct crash_run *c)
{
	struct rig *g = &c->rig;
	uint64_t cl = g->cluster_bytes, tail = g->block_bytes * (g->block_bytes == 512 ? 3 : 1), n = c->parity ? 512 * KIB / cl / 2 : 4;
	uint64_t i;
	int r = rig_co_vol_create(g, "v0", 2 * n * cl + tail, NULL, 0);

	if (r == 0)
		r = rig_co_vol_create(g, "v1", (c->parity ? n : 6) * cl, NULL, 0);
	for (i = 0; i < n && r == 0; i++) {
		r = ops_co_wr(g, ops_vol(g, 0), RIG_WRITE, i * cl, cl, 0);
		if (r == 0 && c->parity && i % 4 == 3)
			r = ops_co_wr(g, ops_vol(g, 1), RIG_WRITE, i / 4 * cl, cl, 0);
	}
	if (r == 0)
		r = ops_co_wr(g, ops_vol(g, 1), RIG_WRITE, cl / 2, 3 * cl, IO_FUA);
	return r;
}

static int prepare_co_create(void *arg)
{
	struct crash_run *c = arg;
	int r = rig_co_create(&c->rig);

	if (r < 0 || c->spare)
		return r;
	r = rig_co_open(&c->rig, 0);
	if (r == 0)
		r = prepare_co_volumes(c);
	rig_co_close(&c->rig);
	return r;
}

/* With the last disk away: the groups do without it, and it has room. */
static int prepare_co_narrow(void *arg)
{
	struct crash_run *c = arg;
	int r = rig_co_open(&c->rig, 0);

	if (r == 0)
		r = prepare_co_volumes(c);
	rig_co_close(&c->rig);
	return r;
}

static int prepare_co_whole(void *arg)
{
	struct crash_run *c = arg;
	int r = rig_co_open(&c->rig, 0);

	if (r == 0)
		rig_co_wait_whole(&c->rig, true, 600 * NS_PER_SEC);
	if (r == 0)
		rig_co_close(&c->rig);
	return r;
}

/* More of it, and the end of the process without a word. */
static int prepare_co_more(void *arg)
{
	struct crash_run *c = arg;
	struct rig *g = &c->rig;
	uint64_t cl = g->cluster_bytes;
	int r = rig_co_open(g, 0);

	if (r == 0)
		r = ops_co_wr(g, ops_vol(g, 0), RIG_WRITE, 0, cl, 0);
	if (r == 0)
		r = ops_co_wr(g, ops_vol(g, 0), RIG_WRITE, 5 * cl, cl, IO_FUA);
	if (r == 0)
		r = ops_co_wr(g, ops_vol(g, 1), RIG_DISCARD, cl, cl, 0);
	if (r == 0)
		r = ops_co_wr(g, ops_vol(g, 1), RIG_WRITE, 4 * cl, cl / 2, 0);
	if (r == 0 && c->wl.base == BASE_STALE)
		rig_co_close(g);
	return r;
}

static int prepare_co_laps(void *arg)
{
	struct crash_run *c = arg;
	unsigned i;
	int r = rig_co_open(&c->rig, 0);

	for (i = 0; i < 20 && r == 0; i++)
		r = ops_co_write_large(c);
	if (r == 0)
		rig_co_close(&c->rig);
	return r;
}

static void prepare_world(struct crash_run *c, int (*fn)(void *arg))
{
	struct rig *g = &c->rig;
	int r, result = 0;

	if (g->failed)
		return;
	rig_world_start(g, rng_next(&c->rng));
	r = sim_run(g->w, fn, c, &result, 3600 * NS_PER_SEC);
	if (r < 0 || result < 0)
		rig_fail(g, "preparing: %s, %s", err_text(r), err_text(result));
	rig_world_drop(g);
	model_crash(g->model);
}

void workload_prepare(struct crash_run *c)
{
	struct rig *g = &c->rig;

	prepare_world(c, prepare_co_create);
	if (c->spare) {
		sim_disk_remove(g->disks, g->n_first - 1);
		prepare_world(c, prepare_co_narrow);
		sim_disk_put_back(g->disks, g->n_first - 1);
		prepare_world(c, prepare_co_whole);
	}
	if (c->wl.base == BASE_CLEAN || g->failed)
		return;
	if (c->wl.base == BASE_STALE) {
		sim_disk_remove(g->disks, c->victim);
		c->hurt |= 1U << c->victim;
		g->degraded = g->may_be_full = true;
	}
	prepare_world(c, c->wl.base == BASE_LAPS ? prepare_co_laps : prepare_co_more);
	if (c->wl.base == BASE_CRASHED)
		sim_disks_power_cut(g->disks, SIM_CUT_RANDOM, &c->rng);
	sim_disk_put_back(g->disks, c->victim);
}
