/*
 * sim_pools.c: a second pool, to which families go and from which they come back: its shape, and what happens to its disks, in service
 * and between lives. One of them at a time, as long as its layout can spare one; the first pool's nemesis does as ever.
 */
#include "engine/base/hash.h"
#include "engine/pool/pool_internal.h"
#include "tests/sim/sim_run.h"

#define POOLS_SALT 71

bool pools_wanted(uint64_t seed)
{
	return hash_mix(seed + POOLS_SALT) % 5 == 0;
}

void pools_shape(struct sim_run *s)
{
	static const struct {
		const char *layout;
		unsigned disks;
	} shapes[] = { { "single", 1 }, { "raid0", 2 }, { "raid1", 2 }, { "raid1", 3 }, { "raid1-3", 3 }, { "raid5", 3 }, { "raid6", 4 } };
	struct rig *g = &s->rig;
	uint64_t size;
	uint32_t cluster;
	unsigned k;
	struct rng rng; /* of its own: other runs draw nothing here */

	rng_init(&rng, hash_mix(s->seed ^ POOLS_SALT));
	k = (unsigned)rng_below(&rng, ARRAY_LEN(shapes));
	size = (10 + rng_below(&rng, 40)) * MIB;
	cluster = rng_chance(&rng, 1, 2) ? g->cluster_bytes : (uint32_t)(16 * g->block_bytes) << rng_below(&rng, 3);
	rig_other_add(g, shapes[k].layout, shapes[k].disks, size, MIN(cluster, (uint32_t)(g->group_bytes / 16)));
	s->other.disk = -1;
}

/* ---- in service ---- */

static struct sim_faults *faults(struct sim_run *s, int disk)
{
	return sim_disk_faults(s->rig.disks, s->rig.q.first + (unsigned)disk);
}

static bool can_spare(const struct sim_run *s)
{
	return s->faults && !s->beyond && raid_profile_tolerates(s->rig.q.profile);
}

static bool other_is_whole(struct sim_run *s)
{
	struct ashlar_pool_info i;

	ashlar_co_pool_info(s->rig.q.p, &i);
	return i.health == ASHLAR_ONLINE && i.redundancy >= 1 && i.redundancy == i.redundancy_promised;
}

static void other_slow(struct sim_run *s, struct rng *rng)
{
	unsigned i;

	for (i = 0; i < s->rig.q.n_disks; i++) {
		struct sim_faults *f = faults(s, (int)i);

		if (s->other.now && (int)i == s->other.disk)
			continue;
		f->stall = rng_chance(rng, 1, 2) ? (uint32_t)rng_below(rng, 300) : 0;
		f->stall_ns = MIN(rng_below(rng, NS_PER_SEC), s->rig.settings.timeout_ns / 3);
	}
}

static void co_other_hurt(struct sim_run *s, struct rng *rng)
{
	static const char *const hows[] = { "gone", "pulled", "write errors", "flush errors", "hangs", "failed by command" };
	unsigned how = (unsigned)rng_below(rng, ARRAY_LEN(hows));
	struct other_harm *h = &s->other;
	struct sim_faults *f;
	struct err e = { 0 };
	int r = 0;

	h->disk = (int)rng_below(rng, s->rig.q.n_disks);
	h->now = true;
	rig_note(&s->rig, "nemesis: disk %d of pool q: %s", h->disk, hows[how]);
	f = faults(s, h->disk);
	f->stall = 0;
	switch (how) {
	case 1:
		sim_disk_remove(s->rig.disks, s->rig.q.first + (unsigned)h->disk);
		h->removed = true; /* fall through */
	case 0: f->gone = true; break;
	case 2: f->write_error = (uint32_t)rng_below(rng, 3000); break;
	case 3: f->flush_error = (uint32_t)rng_below(rng, 20000); break;
	case 4: f->hang = true; break;
	default: r = ashlar_co_disk_fail(s->rig.q.p, rig_other_paths[h->disk], false, false, &e);
	}
	if (r < 0 && !s->rig.may_fail)
		rig_fail(&s->rig, "disk fail %s: %s (%d), although the pool is whole", rig_other_paths[h->disk], e.text, r);
}

static void other_off(struct sim_run *s)
{
	struct other_harm *h = &s->other;
	unsigned i;

	for (i = 0; i < s->rig.q.n_disks; i++)
		*faults(s, (int)i) = (struct sim_faults){ .gone = h->removed && (int)i == h->disk };
	if (h->removed)
		return;
	h->now = false;
	h->healed_ns = s->rig.w ? world_now_ns(s->rig.w) : 0;
}

static void co_other_heal(struct sim_run *s, struct rng *rng)
{
	struct other_harm *h = &s->other;
	struct err e = { 0 };
	int r;

	rig_note(&s->rig, "nemesis: disk %d of pool q has no faults any more", h->disk);
	sim_disk_put_back(s->rig.disks, s->rig.q.first + (unsigned)h->disk);
	h->removed = false;
	other_off(s);
	if (rng_chance(rng, 1, 2))
		return;
	run_co_sleep(s, rng_below(rng, NS_PER_SEC));
	r = ashlar_co_disk_online(s->rig.q.p, rig_other_paths[h->disk], NULL, &e);
	rig_note(&s->rig, "nemesis: disk online %s: %d %s", rig_other_paths[h->disk], r, e.text);
	if (r < 0 && !s->rig.may_fail && !s->stop && r != -EBUSY && r != -EAGAIN && r != -EALREADY)
		rig_fail(&s->rig, "disk online %s: %s (%d)", rig_other_paths[h->disk], e.text, r);
}

/* It has caught up, and what was under way then has ended. */
static void co_other_look(struct sim_run *s)
{
	struct other_harm *h = &s->other;

	if (h->disk >= 0 && !h->now && world_now_ns(s->rig.w) >= h->healed_ns + s->rig.settings.timeout_ns && other_is_whole(s))
		h->disk = -1;
}

void pools_co_nemesis(void *arg)
{
	struct sim_run *s = arg;
	struct rng rng;

	rng_init(&rng, rng_next(&s->rng));
	while (!run_is_over(s)) {
		run_co_sleep(s, rng_below(&rng, s->life_ns / 4));
		if (run_is_over(s))
			break;
		co_other_look(s);
		if (rng_chance(&rng, 1, 4))
			other_slow(s, &rng);
		else if (can_spare(s) && s->other.now)
			co_other_heal(s, &rng);
		else if (can_spare(s) && s->other.disk < 0 && other_is_whole(s))
			co_other_hurt(s, &rng);
	}
	s->n_running--;
}

/* ---- between lives ---- */

void pools_off(struct sim_run *s)
{
	if (s->pools)
		other_off(s);
}

void pools_between(struct sim_run *s)
{
	struct other_harm *h = &s->other;

	if (!s->pools)
		return;
	if (h->removed)
		sim_disk_put_back(s->rig.disks, s->rig.q.first + (unsigned)h->disk);
	h->removed = false;
	other_off(s);
	if (s->last || !can_spare(s) || !rng_chance(&s->rng, 1, 3))
		return;
	if (h->disk < 0)
		h->disk = (int)rng_below(&s->rng, s->rig.q.n_disks);
	rig_note(&s->rig, "nemesis: disk %d of pool q is missing", h->disk);
	sim_disk_remove(s->rig.disks, s->rig.q.first + (unsigned)h->disk);
	h->now = h->removed = true;
	other_off(s);
}

void pools_co_all_online(struct sim_run *s)
{
	struct rig *g = &s->rig;
	struct err e = { 0 };
	unsigned i;
	int r;

	for (i = 0; i < g->q.n_disks && !g->failed; i++) {
		enum pdisk_state state = g->q.p->disks[i].state;

		if (state == PDISK_ONLINE || state == PDISK_STALE)
			continue;
		r = ashlar_co_disk_online(g->q.p, rig_other_paths[i], NULL, &e);
		if (r < 0)
			rig_fail(g, "disk online %s: %s (%d)", rig_other_paths[i], e.text, r);
	}
}
