/*
 * crash_explore.c: from a moment of a recorded run to a verdict: cut the power, open, look, write on, close, look again.
 */
#include "tests/crash/crash_run.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/hash.h"

#define STATE_LIMIT_NS (3600 * NS_PER_SEC)
#define HEAL_LIMIT_NS (120 * NS_PER_SEC)

struct state {
	struct rig rig;
	struct rng rng;
	bool missing, heal;
};

/* The pool must take writes, and new allocations where there is room. */
static void co_write_on(struct state *s)
{
	struct rig *g = &s->rig;
	struct model_vol *v;
	uint64_t cl = g->cluster_bytes, off;
	unsigned i;

	for (i = 0; i < model_n_vols(g->model) && !g->failed; i++) {
		v = model_vol(g->model, i);
		if (v->state != MODEL_LIVE)
			continue;
		off = ALIGN_DOWN(rng_below(&s->rng, v->size_bytes), (uint64_t)g->block_bytes);
		rig_co_io_once(g, v, RIG_WRITE, off, MIN(v->size_bytes - off, cl), rng_chance(&s->rng, 1, 3) ? IO_FUA : 0);
		if (rng_chance(&s->rng, 1, 4))
			rig_co_io_once(g, v, RIG_DISCARD, 0, MIN(v->size_bytes, 2 * cl), 0);
		if (rng_chance(&s->rng, 1, 2))
			rig_co_io_once(g, v, RIG_FLUSH, 0, 0, 0);
	}
}

static int recover_co_main(void *arg)
{
	struct state *s = arg;
	struct rig *g = &s->rig;
	int r = rig_co_open(g, 0);

	if (r < 0)
		return r;
	rig_co_verify(g);
	if (s->heal && !g->failed)
		rig_co_wait_online(g, HEAL_LIMIT_NS);
	if (!g->failed)
		rig_co_check(g, true);
	if (!g->failed && !s->heal)
		co_write_on(s);
	if (!g->failed && !s->heal)
		rig_co_verify(g);
	if (!g->failed)
		rig_co_close(g);
	return g->failed ? -EUCLEAN : 0;
}

/* One opening; stop: crash again after so many events. -ECANCELED: it did. */
static int recover(struct state *s, uint64_t stop)
{
	struct rig *g = &s->rig;
	int r, result = 0;

	rig_world_start(g, rng_next(&s->rng));
	sim_disks_stop_at(g->disks, stop ? sim_disks_n_events(g->disks) + stop : UINT64_MAX);
	r = sim_run(g->w, recover_co_main, s, &result, STATE_LIMIT_NS);
	if (r < 0 && r != -ECANCELED)
		rig_fail(g, "%s", r == -EDEADLK ? "deadlock" : "it does not end");
	rig_world_drop(g);
	sim_disks_stop_at(g->disks, UINT64_MAX);
	model_crash(g->model);
	return g->failed ? -EUCLEAN : r;
}

static const char *const cut_names[] = { "random", "none", "all", "prefix", "all but one", "only one" };

static void cut(struct crash_run *c, struct state *s, unsigned variant)
{
	static const enum sim_cut first[] = { SIM_CUT_NONE, SIM_CUT_ALL, SIM_CUT_PREFIX, SIM_CUT_ALL_BUT_ONE, SIM_CUT_ONLY_ONE };
	unsigned k = variant % 10;
	enum sim_cut how = k < ARRAY_LEN(first) ? first[k] : SIM_CUT_RANDOM;
	size_t at = strlen(c->what);

	if (k == 9) {
		snprintf(c->what + at, sizeof(c->what) - at, " process killed");
		return; /* the caches stay */
	}
	snprintf(c->what + at, sizeof(c->what) - at, " cut %s", cut_names[how]);
	sim_disks_power_cut(s->rig.disks, how, &s->rng);
}

static void lose_disk(struct crash_run *c, struct state *s)
{
	size_t at = strlen(c->what);

	if (!c->tolerates || s->missing || !rng_chance(&s->rng, 1, 7))
		return;
	snprintf(c->what + at, sizeof(c->what) - at, ", disk %u missing", c->victim);
	sim_disk_remove(s->rig.disks, c->victim);
	s->missing = s->rig.degraded = s->rig.may_be_full = true;
}

static void explore(struct crash_run *c, struct state *s, unsigned variant)
{
	uint64_t stop = rng_chance(&s->rng, 1, 10) ? 1 + rng_below(&s->rng, 250) : 0;
	int r;

	cut(c, s, variant + 3 * (unsigned)c->point);
	lose_disk(c, s);
	c->st.states++;
	r = recover(s, stop);
	if (r == -ECANCELED) {
		size_t at = strlen(c->what);

		snprintf(c->what + at, sizeof(c->what) - at, ", again after %" PRIu64 ":", stop);
		c->st.states++;
		c->st.second++;
		cut(c, s, (unsigned)rng_below(&s->rng, 10));
		lose_disk(c, s);
		r = recover(s, 0);
	}
	c->st.missing += s->missing;
	if (r < 0)
		return;
	sim_disk_put_back(s->rig.disks, c->victim);
	s->heal = true;
	recover(s, 0);
}

bool explore_state(struct crash_run *c, const struct sim_disks *disks, const struct model *m, uint64_t point, unsigned variant)
{
	struct state *s = calloc(1, sizeof(*s));
	unsigned i;
	bool ok;

	c->point = point;
	c->variant = variant;
	c->what[0] = 0;
	s->rig = c->rig;
	s->rig.w = NULL;
	s->rig.a = NULL;
	s->rig.p = NULL;
	rng_init(&s->rng, hash_mix(hash_mix(c->wl.number * 1000003 + point) + variant));
	s->rig.disks = sim_disks_clone(disks);
	s->rig.model = model_clone(m);
	model_crash(s->rig.model);
	for (i = 0; i < s->rig.n_disks; i++)
		memset(sim_disk_faults(s->rig.disks, i), 0, sizeof(struct sim_faults));
	explore(c, s, variant);
	ok = !s->rig.failed;
	sim_disks_destroy(s->rig.disks);
	model_destroy(s->rig.model);
	free(s);
	return ok;
}
