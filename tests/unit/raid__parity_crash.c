/*
 * Parity groups and power cuts: lives that end at any moment, in the middle of writes or of the recovery from the last one, with as
 * many disks lost at the same time as the layout stands. Every sector is old or new, what was flushed is there, what nobody was
 * writing is as it was; and it stays so whichever columns are lost next.
 */
#include "tests/unit/raid__parity_rig.h"

#define LIVES 8

enum trouble {
	NO_TROUBLE,
	DISK_GOES, /* while requests are under way */
	REFUSED,   /* writes fail for a while, and the pool does not put the disk out */
};

static struct {
	unsigned n_cut, n_cut_in_recovery, n_lost, n_failed;
	enum trouble trouble;
} crash;

static void co_lose_one(void)
{
	unsigned victim = (unsigned)rng_below(&rig.rng, rig.shape->n_cols);

	if (n_out() < rig.shape->parity && raid_disk_state(rig.raid, victim) == RAID_DISK_ONLINE)
		sim_disk_faults(rig.ds, victim)->gone = true;
}

static void co_fail_some(struct workers *ws)
{
	rig.flaw_free = false;
	rig.disk_error_result = -EIO;
	while (ws->running) {
		struct sim_faults *f = sim_disk_faults(rig.ds, (unsigned)rng_below(&rig.rng, rig.shape->n_cols));

		f->write_error = 65536;
		co_sleep_ns(rng_below(&rig.rng, NS_PER_MS));
		f->write_error = 0;
		co_sleep_ns(rng_below(&rig.rng, 5 * NS_PER_MS));
	}
	crash.n_failed += rig.n_disk_errors;
}

static void co_work(void)
{
	struct workers ws;

	workers_start(&ws, 60 + (unsigned)rng_below(&rig.rng, 500));
	for (unsigned i = 0; i < rig.shape->n_cols; i++)
		if (raid_disk_state(rig.raid, i) == RAID_DISK_STALE && rng_chance(&rig.rng, 1, 2))
			bring_back(i);
	if (crash.trouble == DISK_GOES && rng_chance(&rig.rng, 1, 2))
		co_lose_one();
	if (crash.trouble == REFUSED && !n_out())
		co_fail_some(&ws);
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
		sim_disk_faults(rig.ds, i)->write_error = 0;
		rig.away[i] = rig.out[i] && rng_chance(&rig.rng, 1, 2);
	}
	rig.disk_error_result = 0;
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

static void crash_all(unsigned seeds, enum trouble trouble)
{
	memset(&crash, 0, sizeof(crash));
	crash.trouble = trouble;
	for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
		for (uint64_t s = 1; s <= seeds; s++)
			crash_run(s, &shapes[i]);
	CU_ASSERT(crash.n_cut > seeds * ARRAY_LEN(shapes));
	CU_ASSERT(crash.n_cut_in_recovery > seeds / 2);
	CU_ASSERT(crash.n_lost > seeds);
}

static void power_cut_leaves_every_sector_old_or_new_with_columns_lost(void)
{
	crash_all(4, NO_TROUBLE);
}

static void power_cut_while_a_disk_fails_leaves_every_sector_old_or_new(void)
{
	crash_all(3, DISK_GOES);
}

/* ---- what the log must not undo ---- */

static int undone_co_main(void *arg)
{
	uint64_t off = 2 * stripe_bytes();

	pool_co_up();
	if (rig.epoch > 2) {
		verify_all();
		verify_without();
		EXPECT(rig.n_replayed == 0);
		raid_co_drain(rig.raid);
		raid_close(rig.raid);
		return 0;
	}
	write_ok(off + rig.block, rig.block, 0); /* the log has it */
	memset(rig.map, MAP_FREEING, SPACE_BYTES / rig.block);
	EXPECT(model_flush() == 0); /* and is not needed for it any more, but nobody has said so on disk */
	write_ok(off, stripe_bytes(), rng_chance(&rig.rng, 1, 2) ? IO_FUA : 0); /* past the log */
	EXPECT(model_flush() == 0);
	sim_disks_stop_at(rig.ds, sim_disks_n_events(rig.ds));
	co_sleep_ns(NS_PER_MS);
	return 0;
}

static void fresh_stripe_is_not_undone_by_an_older_entry_of_the_log(void)
{
	for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
		rig_up(i, &shapes[i]);
		for (unsigned life = 0; life < 2; life++) {
			alloc_track_begin();
			world_up();
			EXPECT(sim_run(rig.w, undone_co_main, NULL, NULL, 0) == (life ? 0 : -ECANCELED));
			sim_world_destroy(rig.w);
			alloc_track_drop();
			sim_disks_stop_at(rig.ds, UINT64_MAX);
			sim_disks_power_cut(rig.ds, SIM_CUT_NONE, &rig.rng);
			model_power_cut();
		}
		rig_down();
	}
}

int main(void)
{
	unsigned failures;

	CU_initialize_registry();
	CU_add_suite("parity groups and power cuts", NULL, NULL);
#define T(f) CU_add_test(CU_get_suite("parity groups and power cuts"), #f, f)
	T(power_cut_leaves_every_sector_old_or_new_with_columns_lost);
	T(power_cut_while_a_disk_fails_leaves_every_sector_old_or_new);
	T(fresh_stripe_is_not_undone_by_an_older_entry_of_the_log);
	CU_basic_run_tests();
	failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
