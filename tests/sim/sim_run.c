/*
 * sim_run.c: a run: its shape, its lives, its end.
 */
#include "tests/sim/sim_run.h"

#include <stdio.h>
#include <string.h>

#include "engine/base/hash.h"
#include "engine/pool/pool_internal.h"
#include "tests/lib/sim_transfer.h"

#define LIFE_LIMIT_NS (24 * 3600 * NS_PER_SEC)
#define HEAL_LIMIT_NS (600 * NS_PER_SEC)
#define OUT_SALT 153

void run_co_sleep(struct sim_run *s, uint64_t ns)
{
	while (ns && !run_is_over(s)) {
		uint64_t step = MIN(ns, 100 * NS_PER_MS);

		co_sleep_ns(step);
		ns -= step;
	}
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
	if (i.health != ASHLAR_ONLINE || i.redundancy != i.redundancy_promised || s->hurt)
		return false;
	if (!s->pools)
		return true;
	ashlar_co_pool_info(s->rig.q.p, &i);
	return i.health == ASHLAR_ONLINE && i.redundancy == i.redundancy_promised && s->other.disk < 0;
}

static int life_co_main(void *arg)
{
	struct sim_run *s = arg;
	struct rig *g = &s->rig;
	unsigned i;
	int r = rig_co_open(g, 0);

	if (r < 0)
		return r;
	nemesis_co_look(s);
	rig_co_verify(g);
	if (!g->failed)
		rig_co_check(g, true);
	if (g->failed)
		return -EUCLEAN;
	start(s, admin_co_main, "admin");
	start(s, nemesis_co_main, "nemesis");
	if (s->pools)
		start(s, pools_co_nemesis, "other nemesis");
	if (s->transfers)
		start(s, courier_co_main, "courier");
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
	rot_undo(s);
	if (!g->failed && is_whole(s) && !s->n_rots && !g->may_fail)
		rig_co_check(g, true);
	if (g->failed)
		return -EUCLEAN;
	between_note(s);
	rig_co_close(g);
	return g->failed ? -EUCLEAN : 0;
}

/* Somebody says that they are good again; those that vanished are found without that. */
static void co_all_online(struct sim_run *s)
{
	struct rig *g = &s->rig;
	struct err e = { 0 };
	unsigned i;
	int r;

	for (i = 0; i < g->n_disks && !g->failed; i++) {
		if (!(rig_away(g) >> i & 1) || g->p->disks[rig_member(g, i)].state == PDISK_STALE)
			continue;
		r = ashlar_co_disk_online(g->p, rig_paths[i], NULL, &e);
		if (r < 0)
			rig_fail(g, "disk online %s: %s (%d)", rig_paths[i], e.text, r);
	}
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
	co_all_online(s);
	pools_co_all_online(s);
	if (!g->failed)
		rig_co_finish_moves(g);
	if (!g->failed)
		rig_co_wait_whole(g, true, HEAL_LIMIT_NS);
	if (!g->failed)
		courier_co_end(s);
	if (!g->failed)
		move_co_all_over(s, HEAL_LIMIT_NS);
	if (!g->failed)
		rig_co_check(g, true);
	if (!g->failed)
		rot_co_scrub(s);
	if (!g->failed)
		rig_co_check(g, true);
	if (!g->failed)
		rig_co_verify(g);
	if (g->failed)
		return -EUCLEAN;
	rig_co_close(g);
	return g->failed ? -EUCLEAN : 0;
}

/* What was kept of streams has been dropped, or received: all space must come back. */
static int end_co_main(void *arg)
{
	struct sim_run *s = arg;
	struct rig *g = &s->rig;
	int r = rig_co_open(g, 0);

	if (r < 0)
		return r;
	rig_co_verify(g);
	if (!g->failed)
		rig_co_check(g, true);
	if (!g->failed)
		rig_co_empty(g, HEAL_LIMIT_NS);
	if (!g->failed)
		rig_co_check(g, true);
	if (g->failed)
		return -EUCLEAN;
	rig_co_close(g);
	return g->failed ? -EUCLEAN : 0;
}

/* ---- its frame ---- */

/* Where the power goes, in events of the disks from now. */
static uint64_t plan_crash(struct sim_run *s)
{
	static const uint64_t spans[] = { 60, 300, 3000, 20000 };

	if (s->last || rng_chance(&s->rng, 1, 3))
		return UINT64_MAX;
	return sim_disks_n_events(s->rig.disks) + 1 + rng_below(&s->rng, spans[rng_below(&s->rng, 4)]);
}

/* While a disk is being put out, every step counts: often the power goes a few events later, and labels are long under way. */
static void heard(struct rig *g, const char *line)
{
	struct sim_run *s = container_of(g, struct sim_run, rig);
	static const uint64_t spans[] = { 6, 20, 80 };
	struct rng rng;
	unsigned i;

	if (s->last || s->done || !s->life || s->heard_out || !strstr(line, " is out: "))
		return;
	s->heard_out = true;
	rng_init(&rng, hash_mix(s->seed + OUT_SALT) + s->life); /* of its own: older seeds go on meaning what they meant */
	if (rng_chance(&rng, 1, 2))
		return;
	s->crash_at = MIN(s->crash_at, sim_disks_n_events(g->disks) + 1 + rng_below(&rng, spans[rng_below(&rng, ARRAY_LEN(spans))]));
	for (i = 0; i < g->n_disks; i++) {
		if (s->harm[i].now)
			continue;
		sim_disk_faults(g->disks, i)->stall = 20000;
		sim_disk_faults(g->disks, i)->stall_ns = 2 * NS_PER_MS;
	}
	if (!s->probe_wanted)
		sim_disks_stop_at(g->disks, s->crash_at);
}

static void after_crash(struct sim_run *s)
{
	struct rig *g = &s->rig;
	bool process_only = rng_chance(&s->rng, 1, 5);
	enum sim_cut cut = rng_chance(&s->rng, 1, 2) ? SIM_CUT_RANDOM : (enum sim_cut)rng_below(&s->rng, SIM_CUT_ONLY_ONE + 1);

	rig_note(g, "crash, %s, cut %d", process_only ? "process only" : "power", cut);
	between_note(s);
	rig_world_drop(g);
	if (process_only && !g->may_fail)
		model_kill(g->model);
	else
		model_crash(g->model);
	if (process_only)
		sim_disks_stop_at(g->disks, UINT64_MAX);
	else
		sim_disks_power_cut(g->disks, cut, &s->rng);
	nemesis_off(s);
	rot_undo(s);
}

/* When it is over the world stands still at once, in whatever way it was driven. */
static int frame_co_main(void *arg)
{
	struct sim_run *s = arg;

	s->result = s->main(s);
	s->done = true;
	sim_disks_stop_at(s->rig.disks, sim_disks_n_events(s->rig.disks));
	return s->result;
}

/* Drives the life to its end, or to the crash (-ECANCELED). */
static int drive(struct sim_run *s)
{
	struct rig *g = &s->rig;
	int r = sim_run(g->w, frame_co_main, s, NULL, LIFE_LIMIT_NS);

	while (r == -ECANCELED && s->probe_wanted && !s->done && sim_disks_n_events(g->disks) < s->crash_at && !g->failed) {
		s->probe_wanted = false;
		probe_run(s);
		sim_disks_stop_at(g->disks, s->crash_at);
		sim_run_for(g->w, LIFE_LIMIT_NS);
		r = s->probe_wanted || sim_disks_n_events(g->disks) >= s->crash_at ? -ECANCELED : -EDEADLK;
	}
	s->probe_wanted = false;
	return s->done ? 0 : r;
}

static void life(struct sim_run *s, int (*fn)(void *arg))
{
	struct rig *g = &s->rig;
	int r;

	s->stop = s->done = s->heard_out = false;
	s->result = 0;
	s->main = fn;
	s->n_running = 0;
	g->may_fail = false;
	if (s->life)
		between_lives(s);
	rig_world_start(g, rng_next(&s->rng));
	s->crash_at = s->life ? plan_crash(s) : UINT64_MAX;
	sim_disks_stop_at(g->disks, s->crash_at);
	r = drive(s);
	s->hash = hash_mix(s->hash ^ sim_trace_hash(g->w));
	if (g->failed)
		return;
	if (r == -ECANCELED) {
		after_crash(s);
		return;
	}
	if (r < 0 || s->result < 0) {
		rig_fail(g, "life %u: %s", s->life, r == -EDEADLK ? "deadlock" : r == -ETIME ? "it does not end" : err_text(s->result));
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
	shape_choose(s);
	if (hash_mix(seed + OUT_SALT) % 4 == 0)
		s->rig.heard = heard;
	life(s, create_co_main);
	for (s->life = 1; s->life <= s->n_lives && !s->rig.failed; s->life++)
		life(s, life_co_main);
	s->last = true;
	if (!s->rig.failed)
		life(s, last_co_main);
	if (!s->rig.failed)
		life(s, last_co_main);
	if (!s->rig.failed)
		life(s, end_co_main);
	s->hash = hash_mix(s->hash ^ sim_disks_hash(s->rig.disks));
	if (s->rig.failed)
		return -1; /* as it stands: the process ends */
	if (s->old)
		sim_disks_destroy(s->old);
	parcels_free(&s->rig);
	sim_disks_destroy(s->rig.disks);
	model_destroy(s->rig.model);
	return 0;
}
