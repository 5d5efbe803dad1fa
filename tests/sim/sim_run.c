/*
 * sim_run.c: a run: its shape, its lives, its end.
 */
#include "tests/sim/sim_run.h"

#include <stdio.h>
#include <string.h>

#include "engine/base/hash.h"
#include "raid/geometry.h"

#define LIFE_LIMIT_NS (24 * 3600 * NS_PER_SEC)
#define HEAL_LIMIT_NS (600 * NS_PER_SEC)

void run_co_sleep(struct sim_run *s, uint64_t ns)
{
	while (ns && !run_is_over(s)) {
		uint64_t step = MIN(ns, 100 * NS_PER_MS);

		co_sleep_ns(step);
		ns -= step;
	}
}

/* ---- the shape ---- */

static const struct {
	const char *layout;
	unsigned min, max;
} shapes[] = {
	{ "single", 1, 1 }, { "single", 1, 3 }, { "raid0", 2, 4 }, { "raid1", 2, 2 },
	{ "raid1", 2, 6 },  { "raid1-3", 3, 5 }, { "raid10", 4, 6 }, { "raid10", 4, 4 },
};

/* How large volumes may be so that they fit: what metadata and its reserve take is much on disks as small as these. */
static uint64_t shape_room(struct sim_run *s, uint64_t disk_bytes, const struct raid_profile *prof)
{
	int64_t groups = (int64_t)s->rig.n_disks * (int64_t)(disk_bytes / MIB - 1) - 9;
	int64_t room = groups / prof->copies - (s->other_layouts ? 4 : 0);

	if (room < 2) {
		s->overcommit = true;
		return disk_bytes / 4;
	}
	return MIN((uint64_t)room * MIB / 8, 2 * MIB);
}

static void shape_disks(struct sim_run *s)
{
	struct rig *g = &s->rig;
	unsigned k = (unsigned)rng_below(&s->rng, ARRAY_LEN(shapes)), i;
	bool big_blocks = rng_chance(&s->rng, 1, 4), even = rng_chance(&s->rng, 1, 2);
	uint64_t size = (8 + rng_below(&s->rng, s->overcommit ? 8 : 40)) * MIB;
	struct raid_profile prof;
	int r = raid_profile_parse(shapes[k].layout, &prof);

	CHECK(r == 0);
	g->layout = shapes[k].layout;
	g->n_disks = shapes[k].min + (unsigned)rng_below(&s->rng, shapes[k].max - shapes[k].min + 1);
	s->tolerates = raid_profile_tolerates(prof);
	g->block_bytes = 512;
	for (i = 0; i < g->n_disks; i++) {
		struct sim_disk_conf c = { .size_bytes = size, .block_bytes = big_blocks ? 4096 : 512 };

		if (!even)
			c.size_bytes += 4096 * rng_below(&s->rng, 2000);
		if (big_blocks && rng_chance(&s->rng, 1, 3))
			c.block_bytes = 512;
		g->block_bytes = MAX(g->block_bytes, c.block_bytes);
		sim_disks_add(g->disks, rig_paths[i], &c);
	}
	if (s->sparse) {
		s->vol_bytes_max = 48 * MIB;
		s->overcommit = true;
		return;
	}
	s->vol_bytes_max = s->overcommit ? 2 * size : shape_room(s, size, &prof);
}

static void shape_load(struct sim_run *s)
{
	s->n_vols_max = 1 + (unsigned)rng_below(&s->rng, 4);
	s->n_clients = 1 + (unsigned)rng_below(&s->rng, 12);
	s->n_lives = 3 + (unsigned)rng_below(&s->rng, 8);
	s->w_read = 1 + (unsigned)rng_below(&s->rng, 40);
	s->w_write = 10 + (unsigned)rng_below(&s->rng, 60);
	s->w_flush = (unsigned)rng_below(&s->rng, 12);
	s->w_zero = (unsigned)rng_below(&s->rng, 12);
	s->w_discard = (unsigned)rng_below(&s->rng, 15);
	s->fua_of = rng_chance(&s->rng, 1, 2) ? 2 + (unsigned)rng_below(&s->rng, 20) : 0;
	s->slow_of = 5 + (unsigned)rng_below(&s->rng, 200);
	s->life_ns = NS_PER_MS << (4 + rng_below(&s->rng, 12));
}

static void shape(struct sim_run *s)
{
	static const uint64_t caches[] = { 64 * KIB, 512 * KIB, 8 * MIB };
	struct rig *g = &s->rig;

	s->overcommit = rng_chance(&s->rng, 1, 4);
	s->other_layouts = rng_chance(&s->rng, 1, 3);
	s->faults = rng_chance(&s->rng, 2, 3);
	s->beyond = s->faults && rng_chance(&s->rng, 1, 4);
	s->sparse = rng_chance(&s->rng, 1, 5);
	shape_disks(s);
	shape_load(s);
	g->cluster_bytes = (uint32_t)(16 * g->block_bytes) << rng_below(&s->rng, 4);
	g->cluster_bytes = s->sparse ? 16 * g->block_bytes : MIN(g->cluster_bytes, 64 * KIB);
	g->group_bytes = MIB >> rng_below(&s->rng, 2);
	g->group_bytes = MAX(g->group_bytes, (uint64_t)g->cluster_bytes * 16);
	g->n_reactors = 1 + (unsigned)rng_below(&s->rng, 4);
	g->cache_bytes = s->sparse ? 64 * KIB : caches[rng_below(&s->rng, 3)];
	g->may_be_full = s->overcommit;
	s->victim = (unsigned)rng_below(&s->rng, g->n_disks);
	rig_note(g, "%u disks, %s, block %u, cluster %u, %u reactors, %u volumes, %u clients, %u lives%s%s", g->n_disks, g->layout,
		 g->block_bytes, g->cluster_bytes, g->n_reactors, s->n_vols_max, s->n_clients, s->n_lives,
		 s->sparse ? ", sparse" : s->overcommit ? ", overcommitted" : "", s->beyond ? ", faults beyond redundancy" : s->faults ? ", faults" : "");
}

/* ---- a life ---- */

static int create_co_main(void *arg)
{
	struct sim_run *s = arg;
	int r = rig_co_create(&s->rig);

	ashlar_co_destroy(s->rig.a);
	return r;
}

static void start(struct sim_run *s, void (*fn)(void *arg), const char *name)
{
	s->n_running++;
	co_spawn(CO_SERVICE, fn, s, name);
}

static bool is_whole(struct sim_run *s)
{
	struct ashlar_pool_info i;

	ashlar_co_pool_info(s->rig.p, &i);
	return i.health == ASHLAR_ONLINE;
}

static int life_co_main(void *arg)
{
	struct sim_run *s = arg;
	struct rig *g = &s->rig;
	unsigned i;
	int r = rig_co_open(g, 0);

	if (r < 0)
		return r;
	nemesis_co_opened(s);
	rig_co_verify(g);
	if (!g->failed)
		rig_co_check(g, true);
	if (g->failed)
		return -EUCLEAN;
	start(s, admin_co_main, "admin");
	start(s, nemesis_co_main, "nemesis");
	for (i = 0; i < s->n_clients; i++)
		start(s, client_co_main, "client");
	co_sleep_ns(1 + rng_below(&s->rng, s->life_ns));
	s->stop = true;
	rig_note(g, "life %u ends", s->life);
	while (s->n_running)
		co_sleep_ns(NS_PER_MS);
	if (!g->failed)
		rig_co_verify(g);
	nemesis_off(s);
	if (!g->failed && is_whole(s) && !s->victim_out && !g->may_fail)
		rig_co_check(g, true);
	if (g->failed)
		return -EUCLEAN;
	rig_co_close(g);
	return g->failed ? -EUCLEAN : 0;
}

/* Faults have stopped, all disks are there: everything must heal. */
static int last_co_main(void *arg)
{
	struct sim_run *s = arg;
	struct rig *g = &s->rig;
	int r = rig_co_open(g, 0);

	if (r < 0)
		return r;
	rig_co_verify(g);
	if (!g->failed)
		rig_co_wait_online(g, HEAL_LIMIT_NS);
	if (!g->failed)
		rig_co_check(g, true);
	if (!g->failed)
		rig_co_verify(g);
	if (g->failed)
		return -EUCLEAN;
	rig_co_close(g);
	return g->failed ? -EUCLEAN : 0;
}

/* Where the power goes, in events of the disks from now. */
static uint64_t plan_crash(struct sim_run *s)
{
	static const uint64_t spans[] = { 60, 300, 3000, 20000 };

	if (s->last || rng_chance(&s->rng, 1, 3))
		return UINT64_MAX;
	return sim_disks_n_events(s->rig.disks) + 1 + rng_below(&s->rng, spans[rng_below(&s->rng, 4)]);
}

static void after_crash(struct sim_run *s)
{
	struct rig *g = &s->rig;
	bool process_only = rng_chance(&s->rng, 1, 5);
	enum sim_cut cut = rng_chance(&s->rng, 1, 2) ? SIM_CUT_RANDOM : (enum sim_cut)rng_below(&s->rng, SIM_CUT_ONLY_ONE + 1);

	rig_note(g, "crash, %s, cut %d", process_only ? "process only" : "power", cut);
	rig_world_drop(g);
	model_crash(g->model);
	if (process_only)
		sim_disks_stop_at(g->disks, UINT64_MAX);
	else
		sim_disks_power_cut(g->disks, cut, &s->rng);
	nemesis_off(s);
}

static void life(struct sim_run *s, int (*fn)(void *arg))
{
	struct rig *g = &s->rig;
	int r, result = 0;

	s->stop = false;
	s->n_running = 0;
	g->may_fail = false;
	if (s->life)
		nemesis_presence(s);
	rig_world_start(g, rng_next(&s->rng));
	if (s->life)
		sim_disks_stop_at(g->disks, plan_crash(s));
	r = sim_run(g->w, fn, s, &result, LIFE_LIMIT_NS);
	s->hash = hash_mix(s->hash ^ sim_trace_hash(g->w));
	if (g->failed)
		return;
	if (r == -ECANCELED) {
		after_crash(s);
		return;
	}
	if (r < 0 || result < 0) {
		rig_fail(g, "life %u: %s", s->life, r == -EDEADLK ? "deadlock" : r == -ETIME ? "it does not end" : err_text(result));
		return;
	}
	sim_disks_stop_at(g->disks, UINT64_MAX);
	rig_world_drop(g);
	if (fn != create_co_main)
		model_crash(g->model); /* a clean end: nothing is under way, and what follows must agree with what was read */
}

int sim_run_seed(struct sim_run *s, uint64_t seed)
{
	bool verbose = s->rig.verbose;

	memset(s, 0, sizeof(*s));
	s->rig.verbose = verbose;
	s->seed = seed;
	rng_init(&s->rng, seed);
	s->rig.disks = sim_disks_create(rng_next(&s->rng));
	s->rig.model = model_create();
	shape(s);
	life(s, create_co_main);
	for (s->life = 1; s->life <= s->n_lives && !s->rig.failed; s->life++)
		life(s, life_co_main);
	s->last = true;
	if (!s->rig.failed)
		life(s, last_co_main);
	if (!s->rig.failed)
		life(s, last_co_main);
	s->hash = hash_mix(s->hash ^ sim_disks_hash(s->rig.disks));
	if (s->rig.failed)
		return -1; /* as it stands: the process ends */
	sim_disks_destroy(s->rig.disks);
	model_destroy(s->rig.model);
	return 0;
}
