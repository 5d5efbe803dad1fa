/*
 * Parity groups and power cuts: lives that end at any moment, in the middle of writes or of the recovery from the last one, with as
 * many disks lost at the same time as the layout stands. Every sector is old or new, what was flushed is there, what nobody was
 * writing is as it was; and it stays so whichever columns are lost next.
 */
#include "tests/unit/raid__parity_rig.h"

#define LIVES 8

static struct {
	unsigned n_cut, n_cut_in_recovery, n_lost;
	bool faults;
} crash;

/* A disk goes while requests are under way. */
static void co_lose_one(void)
{
	unsigned victim = (unsigned)rng_below(&rig.rng, rig.shape->n_cols);

	if (n_out() < rig.shape->parity && raid_disk_state(rig.raid, victim) == RAID_DISK_ONLINE)
		sim_disk_faults(rig.ds, victim)->gone = true;
}

static void co_work(void)
{
	struct workers ws;

	workers_start(&ws, 60 + (unsigned)rng_below(&rig.rng, 500));
	for (unsigned i = 0; i < rig.shape->n_cols; i++)
		if (raid_disk_state(rig.raid, i) == RAID_DISK_STALE && rng_chance(&rig.rng, 1, 2))
			bring_back(i);
	if (crash.faults && rng_chance(&rig.rng, 1, 2))
		co_lose_one();
	workers_wait(&ws);
}

static int life_co_main(void *arg)
{
	bool in_recovery = rig.epoch > 1 && rng_chance(&rig.rng, 1, 4);

	if (in_recovery)
		sim_disks_stop_at(rig.ds, sim_disks_n_events(rig.ds) + 1 + rng_below(&rig.rng, 60));
	crash.n_cut_in_recovery += in_recovery;
	pool_co_up();
	crash.n_cut_in_recovery -= in_recovery;
	sim_disks_stop_at(rig.ds, UINT64_MAX);
	verify_all();
	model_recovered();
	expect_parity();
	verify_without();
	sim_disks_stop_at(rig.ds, sim_disks_n_events(rig.ds) + 20 + rng_below(&rig.rng, 3000));
	co_work();
	sim_disks_stop_at(rig.ds, UINT64_MAX);
	verify_all();
	raid_co_drain(rig.raid);
	raid_close(rig.raid);
	return 0;
}

/* Which disks the next life finds: some that are out are there again, some that were not are away. */
static void lose_disks(void)
{
	unsigned n = rig.shape->n_cols, out = 0;

	for (unsigned i = 0; i < n; i++) {
		sim_disk_faults(rig.ds, i)->gone = false;
		out += rig.out[i];
		rig.away[i] = rig.out[i] && rng_chance(&rig.rng, 1, 2);
	}
	for (unsigned i = (unsigned)rng_below(&rig.rng, 3); i < 2; i++) {
		unsigned victim = (unsigned)rng_below(&rig.rng, n);

		if (out >= rig.shape->parity || rig.out[victim])
			continue;
		rig.out[victim] = rig.away[victim] = true;
		out++;
		crash.n_lost++;
	}
	for (unsigned g = 0; out && g <= GROUPS; g++)
		rig.info[g].missed = ~0ULL;
}

static void crash_run(uint64_t s, const struct shape *shape)
{
	int r;

	rig_up(s, shape);
	for (unsigned life = 0; life < LIVES; life++) {
		alloc_track_begin();
		world_up();
		r = sim_run(rig.w, life_co_main, NULL, NULL, 0);
		EXPECT(r == 0 || r == -ECANCELED);
		sim_world_destroy(rig.w);
		alloc_track_drop();
		sim_disks_stop_at(rig.ds, UINT64_MAX);
		crash.n_cut += r == -ECANCELED;
		if (rng_chance(&rig.rng, 7, 8)) /* else it was the process alone */
			sim_disks_power_cut(rig.ds, (enum sim_cut)rng_below(&rig.rng, SIM_CUT_ONLY_ONE + 1), &rig.rng);
		model_power_cut();
		lose_disks();
	}
	rig_down();
}

static void crash_all(unsigned seeds, bool faults)
{
	memset(&crash, 0, sizeof(crash));
	crash.faults = faults;
	for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
		for (uint64_t s = 1; s <= seeds; s++)
			crash_run(s, &shapes[i]);
	CU_ASSERT(crash.n_cut > seeds * ARRAY_LEN(shapes));
	CU_ASSERT(crash.n_cut_in_recovery > seeds / 2);
	CU_ASSERT(crash.n_lost > seeds);
}

static void power_cut_leaves_every_sector_old_or_new_with_columns_lost(void)
{
	crash_all(12, false);
}

static void power_cut_while_a_disk_fails_leaves_every_sector_old_or_new(void)
{
	crash_all(8, true);
}

int main(void)
{
	unsigned failures;

	CU_initialize_registry();
	CU_add_suite("parity groups and power cuts", NULL, NULL);
#define T(f) CU_add_test(CU_get_suite("parity groups and power cuts"), #f, f)
	T(power_cut_leaves_every_sector_old_or_new_with_columns_lost);
	T(power_cut_while_a_disk_fails_leaves_every_sector_old_or_new);
	CU_basic_run_tests();
	failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
