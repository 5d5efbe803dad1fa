/*
 * Parity groups and power cuts: lives that end at any moment, in the middle of writes or of the recovery from the last one, with as
 * many disks lost at the same time as the layout stands. Every sector is old or new, what was flushed is there, what nobody was
 * writing is as it was; and it stays so whichever columns are lost next.
 */
#include "tests/unit/raid__parity_rig.h"
#include "tests/unit/unit.h"

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
	crash_all(12, NO_TROUBLE);
}

static void power_cut_while_a_disk_fails_leaves_every_sector_old_or_new(void)
{
	crash_all(8, DISK_GOES);
}

static void power_cut_after_writes_that_failed_leaves_every_sector_old_or_new(void)
{
	crash_all(20, REFUSED);
	CU_ASSERT(crash.n_failed > 100);
}

/* ---- what the log must not undo ---- */

/* The first ends where it says, with the power. */
static void two_lives(uint64_t s, const struct shape *shape, int (*co_main)(void *arg))
{
	rig_up(s, shape);
	for (unsigned life = 0; life < 2; life++) {
		alloc_track_begin();
		world_up();
		EXPECT(sim_run(rig.w, co_main, NULL, NULL, 0) == (life ? 0 : -ECANCELED));
		sim_world_destroy(rig.w);
		alloc_track_drop();
		sim_disks_stop_at(rig.ds, UINT64_MAX);
		sim_disks_power_cut(rig.ds, SIM_CUT_NONE, &rig.rng);
		model_power_cut();
	}
	rig_down();
}

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
	for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
		two_lives(i, &shapes[i], undone_co_main);
}

/* ---- writes that are in the log, and fail in place on a disk that the pool cannot do without ---- */

#define VICTIM (rig.shape->n_cols - 1u) /* has no copy of the log */

static unsigned disk_of_parity(uint64_t off, unsigned i)
{
	struct raid_place p;
	uint64_t at;
	unsigned first;

	locate(off / stripe_bytes() * stripe_bytes(), &p, &at);
	first = p.cols[0];
	return rig.info[0].desc.cols[(first + rig.shape->n_cols - rig.shape->parity + i) % rig.shape->n_cols].disk;
}

/* The next block of group 0 whose write goes to the victim, or does not. */
static uint64_t find_block(uint64_t off, bool to_victim)
{
	struct raid_place p;
	uint64_t at;

	for (;; off = (off + rig.block) % GROUP_BYTES) {
		bool hit = locate(off, &p, &at) == VICTIM;

		if (hit && to_victim)
			return off;
		for (unsigned i = 0; i < rig.shape->parity; i++)
			hit |= disk_of_parity(off, i) == VICTIM;
		if (!hit && !to_victim)
			return off;
	}
}

static bool has_parity(uint64_t off)
{
	for (unsigned i = 0; i < rig.shape->parity; i++)
		if (disk_of_parity(off, i) >= rig.shape->parity)
			return true;
	return false;
}

/* A group without redundancy, and a write that fails, of rows that have parity. Returns where. */
static uint64_t co_fail_one(void)
{
	uint64_t off;

	write_ok(0, GROUP_BYTES, 0);
	write_ok(GROUP_BYTES, GROUP_BYTES, 0);
	EXPECT(model_flush() == 0);
	for (unsigned i = 0; i < rig.shape->parity; i++)
		pool_put_out(i);
	do
		off = find_block(rng_below(&rig.rng, GROUP_BYTES / rig.block) * rig.block, true);
	while (!has_parity(off));
	rig.flaw_free = false;
	sim_disk_faults(rig.ds, VICTIM)->write_error = 65536;
	EXPECT(do_write(off, rig.block, IO_WRITE, 0) == -EIO);
	EXPECT(raid_log_keeps(rig.raid));
	return off;
}

static void expect_new(uint64_t off, uint64_t id)
{
	EXPECT(do_read(off, rig.block) == 0);
	EXPECT(rig.sectors[off / SECT].now == id);
}

static uint64_t n_redone(void)
{
	struct raid_stats st;

	raid_stats_get(rig.raid, &st);
	return st.redone;
}

/* Only lost columns of the very rows cannot be read, and that is over as soon as the disk takes the write. */
static int due_co_main(void *arg)
{
	uint64_t off, id, strip = rig.shape->strip_bytes, at;
	unsigned n_bad = 0;

	pool_co_up();
	off = co_fail_one();
	id = rig.next_id - 1;
	expect_new(off, id);
	for (uint64_t b = 0; b < SPACE_BYTES; b += rig.block) {
		if (!do_read(b, rig.block))
			continue;
		EXPECT(b / stripe_bytes() == off / stripe_bytes() && b % strip == off % strip && b != off);
		n_bad++;
	}
	EXPECT(n_bad <= rig.shape->parity);
	EXPECT(raid_co_compare_range(rig.raid, 0, off, rig.block, &at) == -EIO);
	EXPECT(do_write(off, rig.block, IO_WRITE, 0) == -EIO);
	co_sleep_ns(3 * NS_PER_SEC);
	EXPECT(n_redone() == 0 && raid_log_keeps(rig.raid));
	if (seed % 2) {
		sim_disk_faults(rig.ds, VICTIM)->write_error = 0;
		co_sleep_ns(2 * NS_PER_SEC);
		EXPECT(n_redone() == 1);
		expect_new(off, id);
		verify_all();
		expect_parity();
	} else {
		raid_co_group_forget(rig.raid, 0);
	}
	EXPECT(!raid_log_keeps(rig.raid) && rig.n_syncs == 0);
	raid_co_drain(rig.raid);
	raid_close(rig.raid);
	return 0;
}

static void write_that_failed_in_place_is_done_as_soon_as_the_disk_takes_it(void)
{
	for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
		for (uint64_t s = 0; s < 4; s++) {
			rig_up(s, &shapes[i]);
			world_up();
			EXPECT(sim_run(rig.w, due_co_main, NULL, NULL, 0) == 0);
			sim_world_destroy(rig.w);
			rig_down();
		}
}

static uint64_t due_off, due_id;

/* The log goes round many times, and its entry is not lost. */
static int round_co_main(void *arg)
{
	struct raid_stats st;
	uint64_t off = 0, start;

	pool_co_up();
	if (rig.epoch > 2) {
		EXPECT(rig.n_replayed > 0);
		verify_all();
		expect_new(due_off, due_id);
		expect_parity();
		raid_co_drain(rig.raid);
		raid_close(rig.raid);
		return 0;
	}
	due_off = co_fail_one();
	due_id = rig.next_id - 1;
	start = world_now_ns(rig.w);
	do {
		off = find_block((off + rig.block) % GROUP_BYTES, false);
		if (off / stripe_bytes() != due_off / stripe_bytes())
			write_ok(off, rig.block, 0);
		raid_stats_get(rig.raid, &st);
	} while (st.log_bytes < 4 * LOG_BYTES);
	EXPECT(world_now_ns(rig.w) - start < 10 * NS_PER_SEC);
	EXPECT(n_redone() == 0 && raid_log_keeps(rig.raid));
	EXPECT(model_flush() == 0);
	sim_disks_stop_at(rig.ds, sim_disks_n_events(rig.ds));
	co_sleep_ns(NS_PER_MS);
	return 0;
}

/* A write that fails may have been done; this one has not. */
static void unwrite_due(void)
{
	uint8_t zeros[4096] = { 0 };
	struct raid_place p;
	uint64_t at;

	EXPECT(locate(due_off, &p, &at) == VICTIM);
	sim_disk_poke(rig.ds, VICTIM, at, zeros, rig.block);
}

static void log_goes_round_with_a_write_that_cannot_be_done(void)
{
	for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
		rig_up(i, &shapes[i]);
		for (unsigned life = 0; life < 2; life++) {
			alloc_track_begin();
			world_up();
			EXPECT(sim_run(rig.w, round_co_main, NULL, NULL, 0) == (life ? 0 : -ECANCELED));
			sim_world_destroy(rig.w);
			alloc_track_drop();
			sim_disks_stop_at(rig.ds, UINT64_MAX);
			sim_disk_faults(rig.ds, VICTIM)->write_error = 0;
			sim_disks_power_cut(rig.ds, SIM_CUT_NONE, &rig.rng);
			model_power_cut();
			if (!life)
				unwrite_due();
		}
		rig_down();
	}
}

/* ---- parity that was away for one write, and is back before the log has been heard of again ---- */

static int back_co_main(void *arg)
{
	uint64_t off = stripe_bytes();
	unsigned parity;

	pool_co_up();
	if (rig.epoch > 2) {
		verify_all();
		verify_without();
		raid_co_drain(rig.raid);
		raid_close(rig.raid);
		return 0;
	}
	parity = disk_of_parity(off, (unsigned)seed % rig.shape->parity);
	write_ok(0, GROUP_BYTES, 0);
	EXPECT(model_flush() == 0);
	write_ok(off, rig.block, 0); /* the log has all of the row */
	pool_put_out(parity);
	write_ok(off, rig.block, 0);
	bring_back(parity); /* with what the row is now; all of it is durable, and nobody writes to the log again */
	sim_disks_stop_at(rig.ds, sim_disks_n_events(rig.ds));
	co_sleep_ns(NS_PER_MS);
	return 0;
}

static void parity_that_was_away_for_a_write_is_not_undone(void)
{
	for (size_t i = 0; i < 2 * ARRAY_LEN(shapes); i++)
		two_lives(i, &shapes[i / 2], back_co_main);
}

/* ---- who waits for room behind a write that fails late ---- */

#define SLOW 5u
#define LATE_SHAPE (&shapes[6])
#define FILLERS_MAX 32

static struct {
	uint64_t off, len;
} fillers[FILLERS_MAX];
static unsigned n_fillers, n_filled, n_filler_errors;
static bool x_ended;
static int x_result;

static unsigned first_of(uint64_t stripe_off)
{
	struct raid_place p;
	uint64_t at;

	locate(stripe_off, &p, &at);
	return p.cols[0];
}

static void filler_co_main(void *arg)
{
	unsigned i = (unsigned)(uintptr_t)arg;

	n_filler_errors += do_write(fillers[i].off, fillers[i].len, IO_WRITE, 0) != 0;
	n_filled++;
}

static void x_co_main(void *arg)
{
	x_result = do_write((uint64_t)(uintptr_t)arg, rig.block, IO_WRITE, 0);
	x_ended = true;
}

/* Writes of nearly whole stripes, in any order: to all but x's stripe, and that of what is due. */
static void fillers_choose(uint64_t due, uint64_t x)
{
	uint64_t off, stripe = stripe_bytes(), strip = rig.shape->strip_bytes;
	unsigned want, first, k;

	n_fillers = 0;
	for (want = 3; want <= 5; want += 2)
		for (k = 0; k < 2 * (GROUP_BYTES / stripe) && n_fillers < FILLERS_MAX; k++) {
			off = k % 2 * GROUP_BYTES + k / 2 * stripe;
			first = first_of(off);
			if (off == x || off / stripe == due / stripe || first != want)
				continue;
			fillers[n_fillers].off = first == 3 ? off : off + 2 * strip;
			fillers[n_fillers++].len = 3 * strip - (first == 3 ? rng_below(&rig.rng, 2) * rig.block : 0);
		}
	for (unsigned i = n_fillers - 1; i; i--) {
		uint64_t o = fillers[i].off, l = fillers[i].len;

		k = (unsigned)rng_below(&rig.rng, i + 1);
		fillers[i] = fillers[k];
		fillers[k].off = o;
		fillers[k].len = l;
	}
	EXPECT(n_fillers > 6);
}

static void co_until(uint64_t ns, bool until_filled)
{
	uint64_t end = world_now_ns(rig.w) + ns;

	while (world_now_ns(rig.w) < end && !(until_filled && n_filled == n_fillers))
		co_sleep_ns(NS_PER_MS);
}

/* X is long under way, to the disk that fails and to one that takes its time; it holds the log's tail. */
static void co_x_begin(uint64_t x)
{
	struct sim_faults *f = sim_disk_faults(rig.ds, SLOW);
	uint64_t n = sim_disk_n_ops(rig.ds, 2, IO_WRITE);

	x_ended = false;
	co_spawn(CO_REQUEST, x_co_main, (void *)(uintptr_t)x, "x");
	while (sim_disk_n_ops(rig.ds, 2, IO_WRITE) == n)
		co_sleep_ns(NS_PER_US);
	f->stall = 65536;
	f->stall_ns = 5 * NS_PER_SEC;
	co_sleep_ns(NS_PER_MS);
	f->stall = 0;
	EXPECT(!x_ended);
}

static int late_co_main(void *arg)
{
	uint64_t due, x = 0, off;

	pool_co_up();
	due = co_fail_one();
	for (off = 0; off + stripe_bytes() <= GROUP_BYTES; off += stripe_bytes())
		if (off / stripe_bytes() != due / stripe_bytes() && first_of(off) == VICTIM)
			x = off;
	n_filled = n_filler_errors = 0;
	fillers_choose(due, x);
	co_x_begin(x);
	for (unsigned i = 0; i < n_fillers; i++)
		co_spawn(CO_REQUEST, filler_co_main, (void *)(uintptr_t)i, "filler");
	co_until(8 * NS_PER_SEC, false);
	EXPECT(x_ended && x_result == -EIO);
	sim_disk_faults(rig.ds, VICTIM)->write_error = 0; /* all is well again */
	co_until(600 * NS_PER_SEC, true);
	EXPECT(n_filled == n_fillers);
	if (n_filled < n_fillers) {
		sim_disks_stop_at(rig.ds, sim_disks_n_events(rig.ds));
		do_read(x, rig.block);
		co_sleep_ns(NS_PER_SEC);
		return 0;
	}
	co_sleep_ns(2 * NS_PER_SEC);
	EXPECT(!raid_log_keeps(rig.raid));
	raid_co_drain(rig.raid);
	raid_close(rig.raid);
	return 0;
}

static void who_waits_for_room_is_not_forgotten_when_a_write_fails_late(void)
{
	for (uint64_t s = 0; s < 15; s++) {
		rig_up(s, LATE_SHAPE);
		alloc_track_begin();
		world_up();
		(void)sim_run(rig.w, late_co_main, NULL, NULL, 0);
		sim_world_destroy(rig.w);
		alloc_track_drop();
		rig_down();
	}
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(power_cut_leaves_every_sector_old_or_new_with_columns_lost),
		TEST(power_cut_while_a_disk_fails_leaves_every_sector_old_or_new),
		TEST(power_cut_after_writes_that_failed_leaves_every_sector_old_or_new),
		TEST(fresh_stripe_is_not_undone_by_an_older_entry_of_the_log),
		TEST(parity_that_was_away_for_a_write_is_not_undone),
		TEST(write_that_failed_in_place_is_done_as_soon_as_the_disk_takes_it),
		TEST(log_goes_round_with_a_write_that_cannot_be_done),
		TEST(who_waits_for_room_is_not_forgotten_when_a_write_fails_late),
		CU_TEST_INFO_NULL,
	};

	return tests_run("parity groups and power cuts", tests);
}
