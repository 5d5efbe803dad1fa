/*
 * sim_family.c: snapshots, clones, rollbacks while clients work; and clients whose writes to two volumes follow each other.
 */
#include <stdio.h>

#include "tests/sim/sim_run.h"

static unsigned live_snaps(struct sim_run *s)
{
	unsigned i, n = 0;

	for (i = 0; i < model_n_snaps(s->rig.model); i++)
		n += model_snap(s->rig.model, i)->state == MODEL_LIVE;
	return n;
}

struct model_vol *family_any_snap(struct sim_run *s, struct rng *rng)
{
	struct model_vol *v, *best = NULL;
	unsigned i, n = 0;

	for (i = 0; i < model_n_snaps(s->rig.model); i++) {
		v = model_snap(s->rig.model, i);
		if (rig_is_free(&s->rig, v) && rng_below(rng, ++n) == 0)
			best = v;
	}
	return best;
}

/* A name that none of them has. */
static bool fresh_name(struct sim_run *s, struct model_vol *const *v, unsigned n, char name[MODEL_NAME_MAX])
{
	unsigned i;

	snprintf(name, MODEL_NAME_MAX, "s%u", s->next_name++ % 16);
	for (i = 0; i < n; i++)
		if (model_snap_find(s->rig.model, v[i], name))
			return false;
	return true;
}

/* Of one volume, or of all that can be taken at once. */
static void co_take(struct sim_run *s, struct rng *rng)
{
	struct model_vol *v[RIG_SNAPS_MAX];
	char name[MODEL_NAME_MAX];
	unsigned n = 0, i;

	if (live_snaps(s) >= s->n_snaps_max || model_n_snaps(s->rig.model) > 500)
		return;
	if (rng_chance(rng, 1, 2)) {
		for (i = 0; i < model_n_vols(s->rig.model) && n < RIG_SNAPS_MAX; i++)
			if (rig_is_free(&s->rig, model_vol(s->rig.model, i)) &&
			    (!n || rig_pool(&s->rig, model_vol(s->rig.model, i)) == rig_pool(&s->rig, v[0])))
				v[n++] = model_vol(s->rig.model, i);
	} else {
		v[0] = admin_any_volume(s, rng);
		n = v[0] != NULL;
	}
	if (n && fresh_name(s, v, n, name))
		rig_co_snap_create(&s->rig, v, n, name);
}

static void co_delete(struct sim_run *s, struct rng *rng)
{
	struct model_vol *v[RIG_SNAPS_MAX], *one;
	unsigned n = 0, i, want = rng_chance(rng, 1, 4) ? RIG_SNAPS_MAX : 1;

	for (i = 0; i < want; i++) {
		unsigned k = 0;

		one = family_any_snap(s, rng);
		while (k < n && v[k] != one)
			k++;
		if (one && k == n && (!n || rig_pool(&s->rig, one) == rig_pool(&s->rig, v[0])))
			v[n++] = one;
	}
	if (n)
		rig_co_snap_delete(&s->rig, v, n);
}

static void co_clone(struct sim_run *s, struct rng *rng)
{
	struct model_vol *v = family_any_snap(s, rng);
	unsigned i, n = 0;
	char name[MODEL_NAME_MAX];

	for (i = 0; i < model_n_vols(s->rig.model); i++)
		n += model_vol(s->rig.model, i)->state == MODEL_LIVE;
	snprintf(name, sizeof(name), "v%u", s->next_name++ % 8);
	if (v && n < s->n_vols_max + 2 && model_n_vols(s->rig.model) <= 300)
		rig_co_clone(&s->rig, v, name);
}

void family_co_command(struct sim_run *s, struct rng *rng)
{
	struct model_vol *v;
	char name[MODEL_NAME_MAX];

	switch (rng_below(rng, 12)) {
	case 0:
	case 1:
	case 2:
	case 3:
	case 4:
		co_take(s, rng);
		break;
	case 5:
	case 6:
	case 7:
		co_delete(s, rng);
		break;
	case 8:
	case 9:
		co_clone(s, rng);
		break;
	case 10:
		v = family_any_snap(s, rng);
		if (v)
			rig_co_rollback(&s->rig, v);
		break;
	default:
		v = family_any_snap(s, rng);
		snprintf(name, sizeof(name), "s%u", s->next_name++ % 16);
		if (v)
			rig_co_snap_rename(&s->rig, v, name);
	}
}

/* ---- in turn ---- */

struct turn {
	struct sim_run *s;
	struct model_vol *v;
	struct ashlar_attach *at;
	uint64_t off;
	bool gone, busy, leaves;
};

static void turn_co_leave(void *arg)
{
	struct turn *t = arg;

	ashlar_co_detach(t->at);
	t->at = NULL;
	t->leaves = false;
}

/* What waits for space in the other volume may wait for this one's: nobody waits here for the other. */
static void turn_gone(void *arg)
{
	struct turn *t = arg;

	if (!t->gone && !t->busy && t->at) {
		t->leaves = true;
		co_spawn(CO_SERVICE, turn_co_leave, t, "turn");
	}
	t->gone = true;
}

static const struct ashlar_attach_ops turn_ops = { .gone = turn_gone };

static int turn_co_there(void *arg)
{
	struct turn *t = arg;
	struct bdev *b = ashlar_attach_bdev(t->at);
	uint64_t off = ALIGN_DOWN(t->off % b->size_bytes, (uint64_t)b->block_bytes);

	return rig_co_io(&t->s->rig, t->v, b, RIG_WRITE, off, b->block_bytes, 0);
}

static bool turn_co_attach(struct sim_run *s, struct turn *t, struct model_vol *v)
{
	char name[RIG_EXPORT_NAME];

	t->s = s;
	t->v = v;
	if (!v || !rig_is_free(&s->rig, v))
		return false;
	return ashlar_co_attach(s->rig.a, rig_export_name(&s->rig, v, name), &turn_ops, t, &t->at, NULL) == 0;
}

/* Any two; mostly the oldest and the newest: those between are frozen meanwhile, and that takes time. */
static void turn_pick(struct sim_run *s, struct rng *rng, struct model_vol *v[2])
{
	bool far = rng_chance(rng, 3, 4);
	unsigned i;

	v[0] = far ? NULL : admin_any_volume(s, rng);
	v[1] = far ? NULL : admin_any_volume(s, rng);
	for (i = 0; far && i < model_n_vols(s->rig.model); i++) {
		struct model_vol *x = model_vol(s->rig.model, i);

		if (!rig_is_free(&s->rig, x))
			continue;
		v[0] = v[0] ? v[0] : x;
		v[1] = x;
	}
}

/* Few places, so that each write hides one of a moment ago: a snapshot that has a later one and not an earlier one shows. */
void family_co_in_turn(struct sim_run *s, struct rng *rng)
{
	struct turn t[2] = { 0 };
	struct model_vol *v[2];
	unsigned n = 1 + (unsigned)rng_below(rng, 200), i;
	uint64_t at = rng_below(rng, s->vol_bytes_max);
	bool both;

	turn_pick(s, rng, v);
	both = turn_co_attach(s, &t[0], v[0]) && turn_co_attach(s, &t[1], v[1]);
	for (i = 0; both && i < n && !run_is_over(s) && !t[0].gone && !t[1].gone; i++) {
		t[i % 2].off = at + (rng_chance(rng, 1, 8) ? s->rig.block_bytes : 0);
		t[i % 2].busy = true;
		(void)!reactor_co_call(ashlar_attach_home(t[i % 2].at), turn_co_there, &t[i % 2]);
		t[i % 2].busy = false;
	}
	for (i = 0; i < 2; i++) {
		while (t[i].leaves)
			co_sleep_ns(100 * NS_PER_US);
		if (t[i].at)
			ashlar_co_detach(t[i].at);
	}
}
