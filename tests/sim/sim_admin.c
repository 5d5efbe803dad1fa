/*
 * sim_admin.c: management commands while clients work.
 */
#include <stdio.h>

#include "raid/geometry.h"
#include "tests/sim/sim_run.h"

static unsigned live_volumes(struct sim_run *s)
{
	unsigned i, n = 0;

	for (i = 0; i < model_n_vols(s->rig.model); i++)
		n += model_vol(s->rig.model, i)->state == MODEL_LIVE;
	return n;
}

struct model_vol *admin_any_volume(struct sim_run *s, struct rng *rng)
{
	struct model_vol *v, *best = NULL;
	unsigned i, n = 0;

	for (i = 0; i < model_n_vols(s->rig.model); i++) {
		v = model_vol(s->rig.model, i);
		if (v->state == MODEL_LIVE && !v->new_name[0] && !v->new_size_bytes && rng_below(rng, ++n) == 0)
			best = v;
	}
	return best;
}

/* Some multiple of the block, not only of clusters. */
static uint64_t any_size(struct sim_run *s, struct rng *rng)
{
	uint64_t size = 1 + rng_below(rng, s->vol_bytes_max);

	if (rng_chance(rng, 1, 2))
		size = ALIGN_UP(size, (uint64_t)s->rig.cluster_bytes);
	return ALIGN_UP(size, (uint64_t)4096);
}

static uint64_t any_wait(struct sim_run *s, struct rng *rng)
{
	static const uint64_t waits[] = { 0, 20 * NS_PER_MS, NS_PER_SEC, 60 * NS_PER_SEC, UINT64_MAX };

	return waits[rng_below(rng, s->overcommit ? 5 : 4)];
}

const char *admin_any_layout(struct sim_run *s, struct rng *rng)
{
	static const char *const all[] = { "single", "raid0", "raid1", "raid10", "raid1-3", "raid10-3", "raid5", "raid6" };
	const char *name = all[rng_below(rng, ARRAY_LEN(all))];
	struct raid_profile prof;

	if (rng_chance(rng, 1, 2) || raid_profile_parse(name, &prof) < 0)
		return NULL;
	if ((unsigned)__builtin_popcount(rig_members(&s->rig)) < raid_profile_min_disks(prof) || raid_profile_tolerates(prof) < s->tolerates)
		return NULL;
	return name;
}

static void co_create(struct sim_run *s, struct rng *rng)
{
	char name[MODEL_NAME_MAX];
	const char *layout = s->other_layouts ? admin_any_layout(s, rng) : NULL;

	if (live_volumes(s) >= s->n_vols_max + s->adopt || model_n_vols(s->rig.model) > 300)
		return;
	snprintf(name, sizeof(name), "v%u", s->next_name++ % 8);
	if (model_vol_find(s->rig.model, name))
		return;
	s->rig.make_there = s->pools && !layout && rng_chance(rng, 1, 4);
	if (s->adopt && rng_chance(rng, 3, 4))
		rig_co_vol_adopt(&s->rig, name, any_size(s, rng), layout, any_wait(s, rng), rng);
	else
		rig_co_vol_create(&s->rig, name, any_size(s, rng), layout, any_wait(s, rng));
}

static void co_rename(struct sim_run *s, struct rng *rng)
{
	struct model_vol *v = admin_any_volume(s, rng);
	char name[MODEL_NAME_MAX];

	snprintf(name, sizeof(name), "v%u", s->next_name++ % 8);
	if (v && !model_vol_find(s->rig.model, name))
		rig_co_vol_rename(&s->rig, v, name);
}

/* None; hardly anything; what is felt; what is not. */
static uint32_t any_limits(struct rng *rng)
{
	static const uint32_t most[] = { 0, 10, 1000, 100000 };
	uint32_t n = most[rng_below(rng, ARRAY_LEN(most))];

	return n ? 1 + (uint32_t)rng_below(rng, n) : 0;
}

static int co_set_wait(struct sim_run *s, const struct model_vol *v, uint64_t ns, struct err *e)
{
	struct ashlar_pool *p;
	int r;

	do {
		p = rig_pool(&s->rig, v);
		r = ashlar_co_volume_set_full_wait(p, v->name, ns, e);
	} while (rig_has_moved(&s->rig, v, p, r));
	return r;
}

/* What SCSI does: clusters are shared, notes are kept. */
static void co_frontend(struct sim_run *s, struct rng *rng)
{
	struct model_vol *v = admin_any_volume(s, rng), *to = rng_chance(rng, 1, 3) ? v : admin_any_volume(s, rng);

	if (!v)
		return;
	if (rng_chance(rng, 1, 3))
		rig_co_vol_note(&s->rig, v, rng_chance(rng, 1, 4) ? 0 : (uint32_t)rng_below(rng, 1000));
	else if (to)
		rig_co_vol_share(&s->rig, v, rng_below(rng, v->size_bytes), to, rng_below(rng, to->size_bytes), rng_below(rng, v->size_bytes));
}

static void co_set(struct sim_run *s, struct rng *rng)
{
	struct model_vol *v = admin_any_volume(s, rng);
	struct err e = { 0 };
	int r;

	if (!v)
		return;
	if (s->seed % 4 == 3 && rng_chance(rng, 1, 2)) { /* the other seeds keep their runs */
		rig_co_vol_rule(&s->rig, v, rng_chance(rng, 1, 3) ? 0 : 1 + (uint32_t)rng_below(rng, 1000));
		return;
	}
	if (s->seed % 4 == 1 && rng_chance(rng, 2, 3)) { /* the other seeds keep their runs */
		rig_co_vol_limit(&s->rig, v, any_limits(rng));
		return;
	}
	r = co_set_wait(s, v, any_wait(s, rng), &e);
	if (r < 0 && !(r == -ERR_POOL_FULL && s->rig.may_be_full) && !s->rig.may_fail)
		rig_fail(&s->rig, "set %s: %s (%d)", v->name, e.text, r);
}

static void co_look(struct sim_run *s, struct ashlar_pool *p)
{
	struct ashlar_snapshot_info *snaps;
	struct ashlar_volume_info *v;
	struct ashlar_disk_info *d;
	struct ashlar_pool_info i;
	size_t n;

	ashlar_co_pool_info(p, &i);
	if (i.used_bytes > i.raw_bytes)
		rig_fail(&s->rig, "the pool uses more than it has");
	if (ashlar_co_volume_list(p, &v, &n, NULL) == 0)
		xfree(v);
	if (ashlar_co_snapshot_list(p, NULL, &snaps, &n, NULL) == 0)
		xfree(snaps);
	if (ashlar_co_disk_list(p, &d, &n, NULL) == 0)
		xfree(d);
}

static void co_command(struct sim_run *s, struct rng *rng)
{
	struct model_vol *v;

	if (s->seed % 4 == 2 && rng_chance(rng, 2, 5)) { /* the other seeds keep their runs */
		co_frontend(s, rng);
		return;
	}
	if (s->moves && rng_chance(rng, 1, 3)) {
		disks_co_command(s, rng);
		return;
	}
	if (s->relayout && rng_chance(rng, 1, 4)) {
		move_co_command(s, rng);
		return;
	}
	if (s->family && rng_chance(rng, 3, 5)) {
		family_co_command(s, rng);
		return;
	}
	switch (s->adopt && rng_chance(rng, 1, 3) ? rng_below(rng, 4) : rng_below(rng, 10)) {
	case 0:
	case 1:
	case 2:
		co_create(s, rng);
		break;
	case 3:
		v = admin_any_volume(s, rng);
		if (v && live_volumes(s) > 1)
			rig_co_vol_delete(&s->rig, v);
		break;
	case 4:
		co_rename(s, rng);
		break;
	case 5:
	case 6:
		v = admin_any_volume(s, rng);
		if (v)
			rig_co_vol_resize(&s->rig, v, any_size(s, rng));
		break;
	case 7:
		co_set(s, rng);
		break;
	case 8:
		if (!s->n_rots && !s->faults && !s->beyond)
			rig_co_check(&s->rig, false);
		break;
	default:
		co_look(s, s->rig.p);
		if (s->pools)
			co_look(s, s->rig.q.p);
	}
}

void admin_co_main(void *arg)
{
	struct sim_run *s = arg;
	unsigned i;
	struct rng rng;

	rng_init(&rng, rng_next(&s->rng));
	if (!live_volumes(s))
		co_create(s, &rng);
	while (!run_is_over(s)) {
		run_co_sleep(s, rng_below(&rng, rng_chance(&rng, 1, 8) ? s->life_ns / 2 : s->life_ns / 16));
		if (!run_is_over(s))
			co_command(s, &rng);
	}
	/* held writes would keep their clients for ever */
	for (i = 0; i < model_n_vols(s->rig.model); i++)
		if (model_vol(s->rig.model, i)->state == MODEL_LIVE && (s->overcommit || s->family || s->pools))
			(void)co_set_wait(s, model_vol(s->rig.model, i), 0, NULL);
	s->n_running--;
}
