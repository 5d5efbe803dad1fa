/*
 * crash_explore.c: from a moment of a recorded run to a verdict: cut the power, take disks away, open, look, write on, close,
 * give the disks back, look again.
 *
 * Which disks may be missing: as many beside those that are behind already as the pool says it can lose, at that moment.
 */
#include "tests/crash/crash_run.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/hash.h"

#define STATE_LIMIT_NS (3600 * NS_PER_SEC)
#define HEAL_LIMIT_NS (600 * NS_PER_SEC)
#define CUTS 10
#define MORE_CUTS 4 /* of a point where no disk is missing */

struct state {
	struct rig rig;
	struct rng rng;
	uint32_t missing, behind; /* behind: not counted upon, whether there or not */
	int other; /* of the second pool, the one that is missing, or was; -1 */
	bool heal;
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
		rig_co_finish_moves(g);
	if (s->heal && !g->failed)
		rig_co_wait_whole(g, true, HEAL_LIMIT_NS);
	if (!g->failed)
		rig_co_check(g, true);
	if (s->heal && !g->failed && rng_chance(&s->rng, 1, 8))
		rig_co_scrub(g, false, 0);
	if (!g->failed && !s->heal && g->n_parcels)
		transfer_co_after(g, &s->rng);
	if (!g->failed && !s->heal && model_n_snaps(g->model))
		family_co_after(g, &s->rng);
	if (!g->failed && !s->heal)
		co_write_on(s);
	if (!g->failed)
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
	if (r != -ECANCELED)
		model_crash(g->model);
	return g->failed ? -EUCLEAN : r;
}

static void say(struct crash_run *c, const char *fmt, ...) __printf_like(2, 3);
static void say(struct crash_run *c, const char *fmt, ...)
{
	size_t at = strlen(c->what);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->what + at, sizeof(c->what) - at, fmt, ap);
	va_end(ap);
}

static void cut(struct crash_run *c, struct state *s, unsigned how)
{
	static const struct {
		enum sim_cut cut;
		const char *name;
	} cuts[CUTS - 1] = {
		{ SIM_CUT_NONE, "none" },	       { SIM_CUT_ALL, "all" },	       { SIM_CUT_PREFIX, "prefix" },
		{ SIM_CUT_ALL_BUT_ONE, "all but one" }, { SIM_CUT_ONLY_ONE, "only one" }, { SIM_CUT_RANDOM, "random" },
		{ SIM_CUT_RANDOM, "random" },	       { SIM_CUT_RANDOM, "random" },   { SIM_CUT_RANDOM, "random" },
	};

	if (how == CUTS - 1) {
		say(c, " process killed");
		model_kill(s->rig.model);
		return; /* the caches stay, and what is kept */
	}
	say(c, " cut %s", cuts[how].name);
	model_crash(s->rig.model);
	sim_disks_power_cut(s->rig.disks, cuts[how].cut, &s->rng);
}

/* ---- sets of missing disks ---- */

static int spare_of(const struct crash_run *c)
{
	return rig_spare(&c->rig, &c->claim, c->hurt, c->tolerates);
}

static uint32_t behind_of(const struct crash_run *c)
{
	return c->hurt | (c->rig.p ? rig_away(&c->rig) : 0);
}

static bool set_is_allowed(const struct crash_run *c, uint32_t set)
{
	uint32_t members = c->rig.p ? rig_members(&c->rig) : (1U << c->rig.n_disks) - 1;

	if (set & ~members)
		return false; /* nothing is on the others */
	return !set || __builtin_popcount(set & ~behind_of(c)) <= spare_of(c);
}

static unsigned n_sets(const struct crash_run *c)
{
	uint32_t set;
	unsigned n = 0;

	for (set = 0; set < 1U << c->rig.n_disks; set++)
		n += set_is_allowed(c, set);
	return n;
}

static uint32_t set_at(const struct crash_run *c, unsigned k)
{
	uint32_t set;

	for (set = 0; set < 1U << c->rig.n_disks; set++)
		if (set_is_allowed(c, set) && k-- == 0)
			return set;
	return 0;
}

unsigned explore_variants(const struct crash_run *c)
{
	return c->parity ? MIN(n_sets(c), SETS_MAX) + MORE_CUTS : c->variants;
}

static uint32_t choose_missing(const struct crash_run *c, struct state *s, unsigned variant)
{
	unsigned n = n_sets(c);

	if (!c->parity)
		return rng_chance(&s->rng, 1, 7) ? set_at(c, (unsigned)rng_below(&s->rng, n)) : 0;
	if (variant >= MIN(n, SETS_MAX))
		return 0;
	return set_at(c, n <= SETS_MAX || !variant ? variant : (unsigned)rng_below(&s->rng, n));
}

static void take_away(struct crash_run *c, struct state *s, uint32_t set)
{
	unsigned i;

	if (!set)
		return;
	for (i = 0; i < s->rig.n_disks; i++) {
		if (!(set >> i & 1))
			continue;
		say(c, "%s %u", s->missing ? "," : ", missing: disk", i);
		sim_disk_remove(s->rig.disks, i);
		s->missing |= 1U << i;
	}
	s->behind |= set;
	s->rig.degraded = s->rig.may_be_full = true;
}

/* Nothing ever happens to them in the recorded run; so one of them may go, whichever it is, and that one alone. */
static void take_away_other(struct crash_run *c, struct state *s)
{
	if (!s->rig.q.n_disks || !rng_chance(&s->rng, 1, 4))
		return;
	if (s->other < 0)
		s->other = (int)rng_below(&s->rng, s->rig.q.n_disks);
	say(c, ", missing: disk %d of the other pool", s->other);
	sim_disk_remove(s->rig.disks, s->rig.q.first + (unsigned)s->other);
	s->rig.degraded = s->rig.may_be_full = true;
}

/* At the second crash one more may go, if the layouts allow. */
static void take_away_more(struct crash_run *c, struct state *s)
{
	uint32_t set = 1U << rng_below(&s->rng, s->rig.n_disks);

	if (rng_chance(&s->rng, 1, 2) && __builtin_popcount(s->behind | set) <= (int)c->tolerates)
		take_away(c, s, set & ~s->missing);
}

static void give_back(struct state *s)
{
	unsigned i;

	for (i = 0; i < s->rig.n_disks; i++)
		sim_disk_put_back(s->rig.disks, i);
	for (i = 0; i < s->rig.q.n_disks; i++)
		sim_disk_put_back(s->rig.disks, s->rig.q.first + i);
}

/* Healed, the pool promises to live without as many disks as its layouts tolerate, whichever they are. */
static void lose_what_it_can(struct crash_run *c, struct state *s)
{
	uint32_t set = 0;

	while (__builtin_popcount(set) < (int)c->tolerates)
		set |= 1U << rng_below(&s->rng, s->rig.n_disks);
	say(c, "; healed");
	s->missing = s->behind = 0;
	s->other = -1;
	take_away(c, s, set);
	take_away_other(c, s);
	c->st.states++;
	c->st.missing++;
	s->heal = false;
	recover(s, 0);
}

/* ---- a state ---- */

static void explore(struct crash_run *c, struct state *s, unsigned variant)
{
	uint64_t stop = rng_chance(&s->rng, 1, c->parity ? 6 : 10) ? 1 + rng_below(&s->rng, 250) : 0;
	int r;

	take_away(c, s, choose_missing(c, s, variant));
	take_away_other(c, s);
	cut(c, s, (variant + 3 * (unsigned)c->point) % CUTS);
	c->st.states++;
	r = recover(s, stop);
	if (r == -ECANCELED) {
		say(c, ", again after %" PRIu64 ":", stop);
		c->st.states++;
		c->st.second++;
		cut(c, s, (unsigned)rng_below(&s->rng, CUTS));
		take_away_more(c, s);
		take_away_other(c, s);
		r = recover(s, 0);
	}
	c->st.missing += s->missing != 0 || s->other >= 0;
	if (r < 0)
		return;
	give_back(s);
	s->heal = true;
	if (recover(s, 0) == 0 && c->tolerates && rng_chance(&s->rng, 1, 3))
		lose_what_it_can(c, s);
}

bool explore_state(struct crash_run *c, uint64_t point, unsigned variant)
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
	s->rig.p = s->rig.q.p = NULL;
	s->behind = behind_of(c);
	rng_init(&s->rng, hash_mix(hash_mix(c->wl.number * 1000003 + point) + variant));
	s->rig.disks = sim_disks_clone(c->rig.disks);
	s->rig.model = model_clone(c->rig.model);
	for (i = 0; i < s->rig.n_disks; i++)
		memset(sim_disk_faults(s->rig.disks, i), 0, sizeof(struct sim_faults));
	s->other = -1;
	explore(c, s, variant);
	ok = !s->rig.failed;
	sim_disks_destroy(s->rig.disks);
	model_destroy(s->rig.model);
	free(s);
	return ok;
}
