/*
 * sim_move.c: families that move to other layouts, and to another pool and back, while clients work, disks go, snapshots come and go
 * and the power fails. The model knows nothing of it: whatever is read is as if nothing moved.
 */
#include <string.h>

#include "engine/pool/move_family.h"
#include "tests/sim/sim_run.h"

static bool is_honest(struct sim_run *s, int r)
{
	return r == 0 || r == -EBUSY || r == -ERR_POOL_FULL || (r == -EINVAL && s->rig.degraded) || s->rig.may_fail;
}

static void co_begin(struct sim_run *s, struct rng *rng)
{
	struct model_vol *v = admin_any_volume(s, rng);
	struct ashlar_move_spec spec = { .layout = admin_any_layout(s, rng), .dry_run = rng_chance(rng, 1, 8) };
	char name[MODEL_NAME_MAX];
	struct ashlar_move_info i;
	struct ashlar_pool *p;
	struct err e = { 0 };
	int r;

	if (!v)
		return;
	memcpy(name, v->name, sizeof(name));
	spec.volume = name;
	if (!spec.layout)
		spec.layout = s->rig.layout;
	rig_note(&s->rig, "move %s to %s", spec.volume, spec.layout);
	p = rig_pool(&s->rig, v);
	if (p != s->rig.p)
		spec.layout = s->rig.q.layout;
	r = ashlar_co_volume_move(p, &spec, &i, &e);
	rig_note(&s->rig, "move %s to %s: %d", spec.volume, spec.layout, r);
	if (!is_honest(s, r) && !rig_has_moved(&s->rig, v, p, r))
		rig_fail(&s->rig, "move %s to %s: %s (%d)", spec.volume, spec.layout, e.text, r);
}

/* To the other pool. There it is as redundant as that pool is, since that is what its nemesis goes by. */
static void co_pass(struct sim_run *s, struct rng *rng)
{
	struct model_vol *v = admin_any_volume(s, rng);
	const char *layout = admin_any_layout(s, rng);
	struct ashlar_pool *from;
	uint64_t job;

	if (!v)
		return;
	if (rig_pool(&s->rig, v) == s->rig.p)
		layout = s->rig.q.layout;
	else if (!layout)
		layout = s->rig.layout;
	(void)rig_co_pass(&s->rig, v, layout, rng_chance(rng, 1, 12), &from, &job);
}

/* Some job of a move; 0: there is none. */
static uint64_t any_job(struct sim_run *s, struct rng *rng, struct ashlar_pool **p)
{
	struct pool_move *mv;
	unsigned n = 0;
	uint64_t id = 0;

	list_for_each (mv, &s->rig.a->moves, link) {
		if (rng_below(rng, ++n) == 0) {
			id = mv->job->info.id;
			*p = mv->p;
		}
	}
	return id;
}

void move_co_command(struct sim_run *s, struct rng *rng)
{
	struct ashlar_pool *p = NULL;
	uint64_t id = any_job(s, rng, &p);
	unsigned what = (unsigned)rng_below(rng, 8);
	struct err e = { 0 };
	int r = 0;

	if (s->pools && (!id || what < 3) && rng_chance(rng, 3, 4)) {
		co_pass(s, rng);
		return;
	}
	if (!id || what < 4) {
		co_begin(s, rng);
		return;
	}
	rig_note(&s->rig, "move, job %u: %s", (unsigned)id, what == 4 ? "pause" : what == 5 ? "cancel" : "resume");
	if (what == 5)
		r = ashlar_co_job_stop(p, id, &e);
	else
		r = pool_co_move_pause(p, id, what == 4, &e);
	if (r != -ENOENT && !is_honest(s, r))
		rig_fail(&s->rig, "pausing, resuming or cancelling a move: %s (%d)", e.text, r);
}

static unsigned n_hidden(struct sim_run *s)
{
	struct ashlar_pool *p;
	struct thin_vol *v;
	unsigned n = 0, i;

	for (i = 0; (p = rig_pool_at(&s->rig, i)); i++)
		list_for_each (v, thin_vols(p->thin), link)
			n += v->state == THIN_VOLUME_INCOMING || v->state == THIN_VOLUME_STILL || v->state == THIN_VOLUME_HANDED ||
			     v->move_flags & THIN_MOVE_WANTED;
	return n;
}

void move_co_all_over(struct sim_run *s, uint64_t max_ns)
{
	uint64_t until = reactor_now_ns() + max_ns;
	struct pool_move *mv;

	while (n_hidden(s) && reactor_now_ns() < until && !s->rig.failed) {
		list_for_each (mv, &s->rig.a->moves, link)
			if (mv->paused) {
				(void)!pool_co_move_pause(mv->p, mv->job->info.id, false, NULL);
				break;
			}
		co_sleep_ns(100 * NS_PER_MS);
	}
	if (n_hidden(s))
		rig_fail(&s->rig, "a move does not end");
}
