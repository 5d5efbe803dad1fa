/*
 * sim_disks.c: disks join the pool and leave it: added, evacuated, removed, replaced, evened out; and jobs of it that are paused,
 * resumed, stopped. What is refused is refused; what is begun goes on, over crashes too, and must come to its end when there is
 * room.
 */
#include <string.h>

#include "engine/pool/leave.h"
#include "tests/sim/sim_run.h"

static bool is_member(struct sim_run *s, unsigned i)
{
	return rig_member(&s->rig, i) >= 0;
}

static bool is_well(struct sim_run *s, unsigned i)
{
	return !s->harm[i].now && !s->harm[i].saved && !(s->hurt >> i & 1);
}

/* Any disk that is a member, or none; RIG_DISKS_MAX: there is no such. */
static unsigned any_disk(struct sim_run *s, struct rng *rng, bool member)
{
	unsigned i, n = 0, best = RIG_DISKS_MAX;

	for (i = 0; i < s->rig.n_disks; i++)
		if (is_member(s, i) == member && (member || is_well(s, i)) && rng_below(rng, ++n) == 0)
			best = i;
	return best;
}

/* Refused: no room, too few disks, data nowhere else, busy; a disk of which a crash, or somebody who cut it short, has left half a label. */
static void result(struct sim_run *s, const char *what, unsigned i, int r, const struct err *e)
{
	rig_note(&s->rig, "%s %u: %d %s", what, i, r, r < 0 ? e->text : "");
	if (r >= 0 || s->rig.may_fail || s->rig.failed)
		return;
	if (r == -EINVAL || r == -ENOSPC || r == -EBUSY || r == -ENOENT || r == -ERR_LOCKED || (s->beyond && r == -EIO))
		return;
	if (r == -ERR_FOREIGN && strstr(e->text, "damaged Ashlar label"))
		return;
	rig_fail(&s->rig, "%s of disk %u: %s (%d)", what, i, e->text, r);
}

static void co_add(struct sim_run *s, struct rng *rng)
{
	unsigned i = any_disk(s, rng, false);
	struct err e = { 0 };

	if (i < RIG_DISKS_MAX)
		result(s, "add", i, ashlar_co_disk_add(s->rig.p, &rig_paths[i], 1, rng_chance(rng, 1, 2), false, &e), &e);
}

static void co_leave(struct sim_run *s, struct rng *rng)
{
	unsigned i = any_disk(s, rng, true), by = any_disk(s, rng, false);
	bool dry_run = rng_chance(rng, 1, 8);
	struct ashlar_relocation rel;
	struct err e = { 0 };

	if (i == RIG_DISKS_MAX)
		return;
	switch (rng_below(rng, 3)) {
	case 0:
		result(s, "evacuate", i, ashlar_co_disk_evacuate(s->rig.p, rig_paths[i], dry_run, &rel, &e), &e);
		break;
	case 1:
		result(s, "remove", i, ashlar_co_disk_remove(s->rig.p, rig_paths[i], dry_run, &rel, &e), &e);
		break;
	default:
		if (by < RIG_DISKS_MAX)
			result(s, "replace", i,
			       ashlar_co_disk_replace(s->rig.p, rig_paths[i], rig_paths[by], rng_chance(rng, 1, 2), dry_run, &rel, &e), &e);
	}
}

static void co_stay(struct sim_run *s, struct rng *rng)
{
	unsigned i = any_disk(s, rng, true);
	struct err e = { 0 };

	if (i < RIG_DISKS_MAX && !(rig_away(&s->rig) >> i & 1))
		result(s, "stay", i, ashlar_co_disk_online(s->rig.p, rig_paths[i], NULL, &e), &e);
}

/* Some job that moves data. 0: there is none. */
static uint64_t any_job(struct sim_run *s, struct rng *rng)
{
	const struct pool_life *life = s->rig.p->life;
	unsigned i, n = 0;
	uint64_t id = 0;

	for (i = 0; i <= LABEL_DISKS_MAX; i++)
		if (life->relocations[i] && rng_below(rng, ++n) == 0)
			id = life->relocations[i]->info.id;
	return id;
}

static void co_job(struct sim_run *s, struct rng *rng)
{
	uint64_t id = any_job(s, rng);
	struct err e = { 0 };

	if (!id)
		return;
	switch (rng_below(rng, 4)) {
	case 0:
		result(s, "pause job", (unsigned)id, ashlar_co_job_pause(s->rig.p, id, true, &e), &e);
		break;
	case 1:
		result(s, "stop job", (unsigned)id, ashlar_co_job_stop(s->rig.p, id, &e), &e);
		break;
	default:
		result(s, "resume job", (unsigned)id, ashlar_co_job_pause(s->rig.p, id, false, &e), &e);
	}
}

void disks_co_command(struct sim_run *s, struct rng *rng)
{
	struct ashlar_relocation rel;
	struct err e = { 0 };

	switch (rng_below(rng, 8)) {
	case 0:
	case 1:
		co_add(s, rng);
		break;
	case 2:
	case 3:
	case 4:
		co_leave(s, rng);
		break;
	case 5:
		result(s, "rebalance", 0, ashlar_co_pool_rebalance(s->rig.p, rng_chance(rng, 1, 8), &rel, &e), &e);
		break;
	case 6:
		co_stay(s, rng);
		break;
	default:
		co_job(s, rng);
	}
}
