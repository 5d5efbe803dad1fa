/*
 * sim_shape.c: what a run is like, by its seed.
 */
#include "tests/sim/sim_run.h"

#include <stdio.h>

#include "engine/base/hash.h"
#include "raid/geometry.h"

#define MOVES_SALT 38

static const struct {
	const char *layout;
	unsigned min, max;
} shapes[] = {
	{ "single", 1, 1 }, { "single", 1, 3 },	  { "raid0", 2, 4 },  { "raid1", 2, 2 }, { "raid1", 2, 6 }, { "raid1-3", 3, 6 },
	{ "raid10", 4, 6 }, { "raid10-3", 6, 7 }, { "raid5", 3, 3 },  { "raid5", 4, 8 }, { "raid5", 3, 8 }, { "raid5", 11, 12 },
	{ "raid6", 4, 4 },  { "raid6", 5, 8 },	  { "raid6", 4, 8 },  { "raid6", 11, 12 },
};

/* Of what disks hold, how much is data, in 1/16. */
static unsigned efficiency(struct raid_profile p, unsigned n_disks)
{
	unsigned cols = raid_profile_columns(p, n_disks);

	switch (p.layout) {
	case RAID_RAID5: return 16 * (cols - 1) / cols;
	case RAID_RAID6: return 16 * (cols - 2) / cols;
	default: return 16 / p.copies;
	}
}

/* How large volumes may be so that they fit: what metadata, logs and the reserve take is much on disks as small as these, and so is
 * a group of each layout that has hardly begun. */
static uint64_t shape_room(struct sim_run *s, uint64_t disk_bytes, struct raid_profile prof)
{
	unsigned n_disks = s->rig.n_first ? s->rig.n_first : s->rig.n_disks;
	int64_t raw = (int64_t)n_disks * (int64_t)(disk_bytes / MIB - 1) - 21;
	int64_t room = raw * (s->other_layouts ? 5 : (int)efficiency(prof, n_disks)) / 16 - (s->other_layouts ? 8 : 2);

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
	uint64_t size = (8 + rng_below(&s->rng, s->overcommit ? 8 : 40)) * MIB, span = rng_chance(&s->rng, 1, 3) ? 8000 : 2000;
	struct raid_profile prof;
	struct rng remote; /* of its own: seeds of runs without such disks mean what they always did */
	int r = raid_profile_parse(shapes[k].layout, &prof);

	CHECK(r == 0);
	g->layout = shapes[k].layout;
	g->n_disks = shapes[k].min + (unsigned)rng_below(&s->rng, shapes[k].max - shapes[k].min + 1);
	s->tolerates = raid_profile_tolerates(prof);
	g->block_bytes = 512;
	rng_init(&remote, ~s->seed);
	s->has_remote = rng_chance(&remote, 1, 4);
	if (s->moves) { /* some that are not the pool's from the start */
		g->n_first = g->n_disks;
		g->n_disks = MIN(g->n_disks + 1 + (unsigned)(s->seed % 3), (unsigned)RIG_DISKS_MAX);
	}
	for (i = 0; i < g->n_disks; i++) {
		struct sim_disk_conf c = { .size_bytes = size, .block_bytes = big_blocks ? 4096 : 512,
					   .is_remote = s->has_remote && rng_chance(&remote, 1, 2) };

		if (!even)
			c.size_bytes += 4096 * rng_below(&s->rng, span);
		if (big_blocks && rng_chance(&s->rng, 1, 3))
			c.block_bytes = 512;
		if (!g->n_first || i < g->n_first)
			g->block_bytes = MAX(g->block_bytes, c.block_bytes);
		sim_disks_add(g->disks, rig_paths[i], &c);
	}
	rig_sources_add(g, &s->rng);
	if (s->sparse) {
		s->vol_bytes_max = 48 * MIB;
		s->overcommit = true;
		return;
	}
	s->vol_bytes_max = s->overcommit ? 2 * size : shape_room(s, size, prof);
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

static void shape_settings(struct sim_run *s)
{
	static const uint64_t delays[] = { 0, 10 * NS_PER_MS, NS_PER_SEC, 300 * NS_PER_SEC };
	static const uint64_t timeouts[] = { NS_PER_SEC, 5 * NS_PER_SEC, 30 * NS_PER_SEC };
	static const uint64_t hedges[] = { 5 * NS_PER_MS, 100 * NS_PER_MS };

	s->rig.settings = (struct ashlar_pool_settings){
		.rebuild_delay_ns = delays[rng_below(&s->rng, ARRAY_LEN(delays))],
		.pace_floor_bps = MIB << rng_below(&s->rng, 6),
		.pace_ceiling_bps = rng_chance(&s->rng, 1, 4) ? 64 * MIB : 0,
		.hedge_ns = hedges[rng_below(&s->rng, ARRAY_LEN(hedges))],
		.timeout_ns = timeouts[rng_below(&s->rng, ARRAY_LEN(timeouts))],
	};
}

void shape_choose(struct sim_run *s)
{
	static const uint64_t caches[] = { 64 * KIB, 512 * KIB, 8 * MIB };
	struct rig *g = &s->rig;

	s->overcommit = rng_chance(&s->rng, 1, 4);
	s->other_layouts = rng_chance(&s->rng, 1, 3);
	s->faults = rng_chance(&s->rng, 3, 4);
	s->beyond = s->faults && rng_chance(&s->rng, 1, 5);
	s->sparse = rng_chance(&s->rng, 1, 5);
	s->moves = hash_mix(s->seed + MOVES_SALT) & 1; /* not of the generator: older seeds go on meaning what they meant */
	shape_disks(s);
	shape_load(s);
	shape_settings(s);
	g->cluster_bytes = (uint32_t)(16 * g->block_bytes) << rng_below(&s->rng, 4);
	g->cluster_bytes = s->sparse ? 16 * g->block_bytes : MIN(g->cluster_bytes, 64 * KIB);
	g->group_bytes = MIB >> rng_below(&s->rng, 2);
	g->group_bytes = MAX(g->group_bytes, (uint64_t)g->cluster_bytes * 16);
	g->n_reactors = 1 + (unsigned)rng_below(&s->rng, 4);
	g->cache_bytes = s->sparse ? 64 * KIB : caches[rng_below(&s->rng, 3)];
	g->share_max = s->seed % 4 == 2 ? 1 + (unsigned)(s->seed / 4 % 5) : 0; /* the other seeds keep their runs */
	s->family = rng_chance(&s->rng, 2, 3);
	s->transfers = s->family && rng_chance(&s->rng, 1, 2);
	s->adopt = rng_chance(&s->rng, 1, 2);
	g->source_stall_ns = s->life_ns;
	if (s->family && rng_chance(&s->rng, 1, 2))
		s->n_vols_max = MAX(s->n_vols_max, 3u);
	s->n_snaps_max = 1 + (unsigned)rng_below(&s->rng, s->sparse ? 3 : 10);
	s->relayout = rng_chance(&s->rng, 1, 3);
	s->pools = pools_wanted(s->seed);
	if (s->pools)
		pools_shape(s);
	s->relayout |= s->pools;
	g->may_be_full = s->overcommit || s->family || s->moves || s->relayout; /* what only snapshots hold takes space too; a disk less has less */
	g->degraded = s->moves;
	rig_note(g, "%u disks, %s, block %u, cluster %u, %u reactors, %u volumes, %u clients, %u lives%s%s%s%s%s%s%s%s%s", g->n_disks, g->layout,
		 g->block_bytes, g->cluster_bytes, g->n_reactors, s->n_vols_max, s->n_clients, s->n_lives,
		 s->sparse ? ", sparse" : s->overcommit ? ", overcommitted" : "", s->other_layouts ? ", other layouts" : "",
		 s->transfers ? ", snapshots sent and received" : s->family ? ", snapshots" : "",
		 s->moves ? ", disks join and leave" : "", s->adopt ? ", adopted volumes" : "", s->relayout ? ", volumes move" : "",
		 s->pools ? ", also to a second pool: " : "", s->pools ? g->q.layout : "",
		 s->beyond ? ", faults beyond redundancy" : s->faults ? ", faults" : "");
}
