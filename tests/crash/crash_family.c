/*
 * crash_family.c: snapshots, clones and rollbacks, while somebody writes to two volumes in turn, when the power goes.
 */
#include <stdio.h>
#include <string.h>

#include "tests/crash/crash_run.h"

struct turns {
	struct crash_run *c;
	struct rng rng;
	bool end;
	unsigned n_running;
};

/* The one that co_snaps() made, or the second. */
static struct model_vol *other_vol(struct rig *g)
{
	struct model_vol *v = model_vol_find(g->model, "third");

	return v ? v : ops_vol(g, 1);
}

/* The first and the other, each acknowledged before the next; few places. */
static void turns_co_client(void *arg)
{
	struct turns *t = arg;
	struct rig *g = &t->c->rig;
	unsigned i;

	for (i = 0; !t->end && !g->failed; i++) {
		ops_co_wr(g, i % 2 ? other_vol(g) : ops_vol(g, 0), RIG_WRITE, g->block_bytes * rng_below(&t->rng, 3), g->block_bytes,
			  rng_chance(&t->rng, 1, 8) ? IO_FUA : 0);
		if (i % 8 == 7)
			co_sleep_ns(NS_PER_MS / 4);
	}
	t->n_running--;
}

/* Whoever freezes the volume between has to wait. */
static void busy_co_client(void *arg)
{
	struct turns *t = arg;
	struct rig *g = &t->c->rig;

	while (!t->end && !g->failed) {
		ops_co_wr(g, ops_vol(g, 1), RIG_WRITE, 2 * g->cluster_bytes, 3 * g->cluster_bytes, 0);
		co_sleep_ns(NS_PER_MS / 8);
	}
	t->n_running--;
}

static int co_under_load(struct crash_run *c, int (*fn)(struct crash_run *c))
{
	struct turns *t = xcalloc(1, sizeof(*t));
	int r;

	t->c = c;
	rng_init(&t->rng, rng_next(&c->rng));
	t->n_running = 2;
	co_spawn(CO_SERVICE, turns_co_client, t, "in turn");
	co_spawn(CO_SERVICE, busy_co_client, t, "busy");
	r = fn(c);
	t->end = true;
	while (t->n_running)
		co_sleep_ns(NS_PER_MS / 8);
	xfree(t);
	return r;
}

static const char *fresh(struct crash_run *c, char name[MODEL_NAME_MAX])
{
	snprintf(name, MODEL_NAME_MAX, "n%u", c->n_names++);
	return name;
}

struct model_vol *family_co_take(struct crash_run *c, struct model_vol *const *v, unsigned n)
{
	char name[MODEL_NAME_MAX];

	if (!v[0] || !v[n - 1] || rig_co_snap_create(&c->rig, v, n, fresh(c, name)) < 0)
		return NULL;
	return model_snap_find(c->rig.model, v[0], name);
}

void family_co_writes(struct crash_run *c, struct model_vol *v)
{
	struct rig *g = &c->rig;
	uint64_t cl = g->cluster_bytes, block = g->block_bytes;

	ops_co_wr(g, v, RIG_WRITE, cl * rng_below(&c->rng, 4) + block * rng_below(&c->rng, cl / block), block, 0);
	if (rng_chance(&c->rng, 1, 2))
		ops_co_wr(g, v, RIG_WRITE, cl * rng_below(&c->rng, 4), cl, IO_FUA);
	if (rng_chance(&c->rng, 1, 2))
		ops_co_wr(g, v, RIG_DISCARD, cl * rng_below(&c->rng, 4) + cl / 2, cl, 0);
	if (rng_chance(&c->rng, 1, 2))
		ops_co_wr(g, v, RIG_WRITE, cl * (4 + rng_below(&c->rng, 4)) + block, cl, 0);
}

static void co_delete_any(struct crash_run *c, unsigned max)
{
	struct model *m = c->rig.model;
	struct model_vol *v[RIG_SNAPS_MAX];
	unsigned i, n = 0, first = (unsigned)rng_below(&c->rng, model_n_snaps(m) + 1);

	for (i = 0; i < model_n_snaps(m) && n < max; i++) {
		v[n] = model_snap(m, (first + i) % model_n_snaps(m));
		n += rig_is_free(&c->rig, v[n]);
	}
	if (n)
		(void)!rig_co_snap_delete(&c->rig, v, n);
}

/* Many of one instant, that go together. */
static void co_take_many(struct crash_run *c, struct model_vol *const *of)
{
	struct model_vol *v[RIG_SNAPS_MAX];
	unsigned i;

	for (i = 0; i < RIG_SNAPS_MAX; i++)
		v[i] = of[i % 2 && of[1] ? 1 : 0];
	family_co_take(c, v, RIG_SNAPS_MAX);
	co_delete_any(c, RIG_SNAPS_MAX);
}

static int co_snaps(struct crash_run *c)
{
	struct rig *g = &c->rig;
	struct model_vol *v[3];

	if (!model_vol_find(g->model, "third"))
		(void)!rig_co_vol_create(g, "third", 4 * g->cluster_bytes, NULL, 0);
	v[0] = ops_vol(g, 0);
	v[1] = ops_vol(g, 1);
	v[2] = other_vol(g);
	if (rng_chance(&c->rng, 1, 4))
		co_take_many(c, v);
	family_co_take(c, v, 1);
	family_co_writes(c, v[0]);
	family_co_take(c, v, v[2] == v[1] ? 2 : 3);
	family_co_writes(c, v[0]);
	co_delete_any(c, 1);
	family_co_writes(c, v[0]);
	family_co_take(c, v, v[2] == v[1] ? 2 : 3);
	co_delete_any(c, 2);
	family_co_writes(c, v[1]);
	co_delete_any(c, 1);
	return 0;
}

/* What both have becomes one's alone as the other goes elsewhere: who overwrites it in place must be sure that this is for good. */
static void co_part(struct crash_run *c, struct model_vol *a, struct model_vol *b, unsigned first)
{
	struct rig *g = &c->rig;
	uint64_t cl = g->cluster_bytes, i;

	for (i = first; i < first + 4; i++) {
		ops_co_wr(g, a, rng_chance(&c->rng, 1, 3) ? RIG_DISCARD : RIG_WRITE, i * cl, cl, 0);
		if (rng_chance(&c->rng, 1, 2))
			co_sleep_ns(rng_below(&c->rng, NS_PER_MS));
		ops_co_wr(g, b, RIG_WRITE, i * cl + g->block_bytes * rng_below(&c->rng, 4), g->block_bytes, 0);
	}
}

static int co_clones(struct crash_run *c)
{
	struct rig *g = &c->rig;
	struct model_vol *v = ops_vol(g, 0), *s = family_co_take(c, &v, 1), *clone, *last = NULL;
	char name[MODEL_NAME_MAX];

	if (!s || rig_co_clone(g, s, fresh(c, name)) < 0)
		return 0;
	clone = model_vol_find(g->model, name);
	family_co_writes(c, clone);
	family_co_writes(c, v);
	s = clone ? family_co_take(c, &clone, 1) : NULL;
	if (s && rig_co_clone(g, s, fresh(c, name)) == 0)
		last = model_vol_find(g->model, name);
	family_co_writes(c, last);
	family_co_writes(c, clone);
	if (rng_chance(&c->rng, 2, 3)) {
		co_delete_any(c, 2);
		co_part(c, clone, rng_chance(&c->rng, 1, 2) ? v : last, 0);
	}
	/* what the others came from goes, with its snapshots */
	if (clone && clone->state == MODEL_LIVE && rng_chance(&c->rng, 1, 2))
		(void)!rig_co_vol_delete(g, clone);
	else if (v && v->state == MODEL_LIVE)
		(void)!rig_co_vol_delete(g, v);
	family_co_writes(c, last);
	co_delete_any(c, 2);
	return 0;
}

static int co_rollbacks(struct crash_run *c)
{
	struct rig *g = &c->rig;
	struct model_vol *v = ops_vol(g, 0), *first = family_co_take(c, &v, 1), *second;

	family_co_writes(c, v);
	if (rng_chance(&c->rng, 1, 3) && v && rig_is_free(g, v))
		(void)!rig_co_vol_resize(g, v, v->size_bytes + g->cluster_bytes);
	second = family_co_take(c, &v, 1);
	family_co_writes(c, v);
	if (first && first->state == MODEL_LIVE)
		(void)!rig_co_rollback(g, first);
	family_co_writes(c, v);
	if (rng_chance(&c->rng, 1, 2))
		co_delete_any(c, 1);
	if (second && second->state == MODEL_LIVE)
		(void)!rig_co_rollback(g, second);
	family_co_writes(c, v);
	return 0;
}

/* Snapshots of another volume, deleted: each that is gone, in the background, makes everybody look again what is shared. */
static void co_others_go(struct crash_run *c)
{
	struct rig *g = &c->rig;
	struct model_vol *v[RIG_SNAPS_MAX], *s[RIG_SNAPS_MAX], *of;
	unsigned i, n = 0;

	if (!model_vol_find(g->model, "aside"))
		(void)!rig_co_vol_create(g, "aside", 4 * g->cluster_bytes, NULL, 0);
	of = model_vol_find(g->model, "aside");
	if (!of || !rig_is_free(g, of))
		return;
	ops_co_wr(g, of, RIG_WRITE, 0, g->block_bytes, 0);
	for (i = 0; i < RIG_SNAPS_MAX; i++)
		v[i] = of;
	family_co_take(c, v, RIG_SNAPS_MAX);
	for (i = 0; i < model_n_snaps(g->model) && n < RIG_SNAPS_MAX; i++) {
		s[n] = model_snap(g->model, i);
		n += s[n]->parent == of->index && rig_is_free(g, s[n]);
	}
	if (n)
		(void)!rig_co_snap_delete(g, s, n);
}

/* No worse than what the pool's disks were taken for; NULL: there is no other. */
static const char *other_layout(struct crash_run *c)
{
	static const char *const all[] = { "single", "raid0", "raid1", "raid1-3", "raid10", "raid5", "raid6" };
	const char *best = NULL;
	struct raid_profile prof;
	unsigned i, n = 0;

	for (i = 0; i < ARRAY_LEN(all); i++) {
		if (raid_profile_parse(all[i], &prof) < 0 || raid_profile_tolerates(prof) < c->tolerates ||
		    raid_profile_min_disks(prof) > c->rig.n_disks || !strcmp(all[i], c->rig.layout))
			continue;
		if (rng_below(&c->rng, ++n) == 0)
			best = all[i];
	}
	return best;
}

static uint64_t co_move_begin(struct crash_run *c, const struct model_vol *v, const char *layout)
{
	struct ashlar_move_spec s = { .volume = v->name, .layout = layout };
	struct ashlar_move_info i;
	struct err e = { 0 };
	int r = ashlar_co_volume_move(c->rig.p, &s, &i, &e);

	rig_note(&c->rig, "move %s to %s: %d", v->name, layout, r);
	if (r < 0 && r != -ERR_POOL_FULL && r != -EBUSY && !(r == -EINVAL && c->rig.degraded))
		rig_fail(&c->rig, "move %s to %s: %s (%d)", v->name, layout, e.text, r);
	return r < 0 ? 0 : i.job;
}

/* A family goes to another layout, and back, while it is written to, and snapshots of it are taken and deleted. */
static int co_moves(struct crash_run *c)
{
	struct rig *g = &c->rig;
	struct model_vol *v = ops_vol(g, 0), *s = family_co_take(c, &v, 1);
	const char *layout = other_layout(c);
	struct ashlar_job_info i;
	char name[MODEL_NAME_MAX];
	uint64_t job;
	unsigned k;

	if (!v || !layout)
		return 0;
	family_co_writes(c, v);
	if (s && rng_chance(&c->rng, 1, 2))
		(void)!rig_co_clone(g, s, fresh(c, name));
	for (k = 0; k < 2 && !g->failed; k++) {
		job = co_move_begin(c, v, k ? g->layout : layout);
		co_sleep_ns(rng_below(&c->rng, 20 * NS_PER_MS));
		family_co_writes(c, v);
		if (rng_chance(&c->rng, 1, 3))
			family_co_take(c, &v, 1);
		if (rng_chance(&c->rng, 1, 3))
			co_delete_any(c, 1);
		if (job && ashlar_co_job_wait(g->p, job, 10 * NS_PER_SEC, &i, NULL) == 0 && i.state == ASHLAR_JOB_FAILED && !g->may_be_full)
			rig_fail(g, "move of %s: %s", v->name, i.result);
		family_co_writes(c, v);
	}
	return 0;
}

/* Waits until it is in the other pool, or gives up. */
static void co_passed(struct crash_run *c, const struct model_vol *v, struct ashlar_pool *from, uint64_t job)
{
	struct rig *g = &c->rig;
	struct ashlar_job_info i;

	if (!job || ashlar_co_job_wait(from, job, 10 * NS_PER_SEC, &i, NULL) < 0)
		return;
	if (i.state == ASHLAR_JOB_DONE && rig_pool(g, v) == from)
		rig_fail(g, "%s has been moved (%s), and is still there", v->name, i.result);
	if (i.state == ASHLAR_JOB_FAILED && !g->may_be_full)
		rig_fail(g, "move of %s: %s", v->name, i.result);
}

/* A family goes to another pool, and back, while it is written to, and snapshots of it are taken and deleted. */
static int co_passes(struct crash_run *c)
{
	struct rig *g = &c->rig;
	struct model_vol *v = ops_vol(g, 0), *s = family_co_take(c, &v, 1);
	struct ashlar_pool *from;
	char name[MODEL_NAME_MAX];
	uint64_t job;
	unsigned k;

	if (!v)
		return 0;
	family_co_writes(c, v);
	family_co_take(c, &v, 1);
	if (s && rng_chance(&c->rng, 1, 2) && rig_co_clone(g, s, fresh(c, name)) == 0)
		family_co_writes(c, model_vol_find(g->model, name));
	for (k = 0; k < 2 && !g->failed; k++) {
		(void)rig_co_pass(g, v, rig_pool(g, v) == g->p ? g->q.layout : g->layout, false, &from, &job);
		co_sleep_ns(rng_below(&c->rng, 10 * NS_PER_MS));
		family_co_writes(c, v);
		if (rng_chance(&c->rng, 1, 3))
			family_co_take(c, &v, 1);
		if (rng_chance(&c->rng, 1, 3))
			co_delete_any(c, 1);
		co_passed(c, v, from, job);
		family_co_writes(c, v);
	}
	return 0;
}

int family_co_run(struct crash_run *c, enum family_op op)
{
	static int (*const all[])(struct crash_run *c) = { co_snaps, co_clones, co_rollbacks, co_moves, co_passes, transfer_co_run };

	struct rig *g = &c->rig;
	struct model_vol *a, *b;
	unsigned n = 0;
	int r;

	g->may_be_full = true; /* a small pool hardly holds what is kept twice and more */
	r = co_under_load(c, all[op]);
	if (op != FAMILY_CLONES)
		return r;
	while (ops_vol(g, n)) /* what is left of it is last */
		n++;
	co_delete_any(c, RIG_SNAPS_MAX);
	a = n > 1 ? ops_vol(g, n - 1) : NULL;
	b = n > 2 && rng_chance(&c->rng, 1, 2) ? ops_vol(g, n - 2) : ops_vol(g, 0);
	if (!a || a == b)
		return r;
	co_part(c, a, b, 4); /* both have what differs in leaves of their own now */
	co_others_go(c);
	co_part(c, a, b, 0);
	return r;
}

void family_co_after(struct rig *g, struct rng *rng)
{
	struct model_vol *v;
	unsigned i;

	for (i = 0; i < model_n_snaps(g->model) && !g->failed; i++) {
		v = model_snap(g->model, i);
		if (!rig_is_free(g, v) || !rng_chance(rng, 1, 2))
			continue;
		if (rng_chance(rng, 1, 3))
			(void)!rig_co_rollback(g, v);
		else
			(void)!rig_co_snap_delete(g, &v, 1);
	}
}
