/*
 * Groups in good health: requests of every kind and size against a plain array, what they cost, leases, freezing, flushes,
 * new descriptors. raid__faults.c has the bad days.
 */
#include "tests/unit/raid_rig.h"
#include "tests/unit/unit.h"

static void co_random_io(void)
{
	random_ops(1500);
	verify_all();
	if (is_redundant())
		expect_equal_columns();
	EXPECT(rig.n_loads == GROUPS && rig.n_disk_errors == 0 && rig.n_repaired == 0);
	EXPECT(is_redundant() || rig.n_leases == 0);
}

static void random_requests_match_a_plain_array(void)
{
	rig_run_shapes(4, false, co_random_io);
}

static void co_no_coroutine(void)
{
	struct raid_stats before, after;
	struct asked a;
	unsigned live;

	EXPECT(fill(0, BLOCK, 1, 0) == 0);
	raid_stats_get(rig.raid, &before);
	live = co_live(CO_SERVICE);
	for (unsigned i = 0; i < 20; i++) {
		enum io_op op = i % 3 == 0 ? IO_WRITE : i % 3 == 1 ? IO_READ : IO_ZERO;

		ask(&a, op, i % 4 * BLOCK, BLOCK, 1);
		EXPECT(co_live(CO_SERVICE) == live);
		EXPECT(asked_wait(&a) == 0);
	}
	raid_stats_get(rig.raid, &after);
	EXPECT(after.fast - before.fast == 20 && after.slow == before.slow);
	EXPECT(after.reads - before.reads == 7 && after.groups_loaded == 1);
}

static void request_in_one_strip_of_an_open_group_uses_no_coroutine(void)
{
	rig_run_shapes(1, false, co_no_coroutine);
}

static void co_merged(void)
{
	unsigned data_cols = rig.shape->n_cols / rig.shape->copies;
	uint64_t before;

	EXPECT(fill(0, GROUP_BYTES, 7, 0) == 0);
	before = disk_ops(IO_WRITE);
	EXPECT(fill(0, GROUP_BYTES, 9, 0) == 0);
	EXPECT(disk_ops(IO_WRITE) - before == rig.shape->n_cols);
	before = disk_ops(IO_READ);
	EXPECT(verify(0, GROUP_BYTES, 0) == 0);
	EXPECT(disk_ops(IO_READ) - before == data_cols);
}

static void large_sequential_request_is_one_io_per_column(void)
{
	rig_run_shapes(2, false, co_merged);
}

static void co_spread(void)
{
	struct asked a[64];
	uint64_t n[DISKS];

	EXPECT(fill(0, GROUP_BYTES, 7, 0) == 0);
	for (unsigned i = 0; i < DISKS; i++)
		n[i] = sim_disk_n_ops(rig.ds, i, IO_READ);
	for (unsigned i = 0; i < 64; i++) /* all of one strip: the idle copies help */
		ask(&a[i], IO_READ, i % 4 * BLOCK, BLOCK, 0);
	for (unsigned i = 0; i < 64; i++)
		EXPECT(asked_wait(&a[i]) == 0);
	for (unsigned i = 0; i < rig.shape->copies; i++)
		EXPECT(sim_disk_n_ops(rig.ds, i, IO_READ) - n[i] >= 64U / rig.shape->copies - 4);
	for (unsigned i = 0; i < DISKS; i++)
		n[i] = sim_disk_n_ops(rig.ds, i, IO_READ);
	for (unsigned i = 0; i < 60; i++) /* one after the other: strips take turns */
		EXPECT(verify(i * STRIP_BYTES, BLOCK, 0) == 0);
	for (unsigned i = 0; i < rig.shape->n_cols; i++)
		EXPECT(sim_disk_n_ops(rig.ds, i, IO_READ) - n[i] >= 60U / rig.shape->n_cols - 2);
}

static void reads_of_mirrors_spread_over_copies(void)
{
	rig_run_shapes(2, true, co_spread);
}

static void co_overlapping(void)
{
	struct asked a[24];
	uint64_t off, len;

	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < 24; i++) {
			len = (1 + rng_below(&rig.rng, 12)) * BLOCK;
			off = rng_below(&rig.rng, 8) * BLOCK + 56 * KIB; /* strips and a lock's end in the middle */
			ask(&a[i], rng_chance(&rig.rng, 1, 6) ? IO_ZERO : IO_WRITE, off, len, (uint8_t)i);
		}
		for (unsigned i = 0; i < 24; i++)
			EXPECT(asked_wait(&a[i]) == 0);
		expect_equal_columns();
	}
}

static void overlapping_writes_leave_columns_equal(void)
{
	rig_run_shapes(5, true, co_overlapping);
}

static void co_monotonic(void)
{
	struct asked w, r[4];
	unsigned floor = 0;

	EXPECT(fill(0, BLOCK, 0, 0) == 0);
	for (unsigned i = 1; i < 200; i++) {
		ask(&w, IO_WRITE, 0, BLOCK, (uint8_t)i);
		while (!w.done) { /* some at once, so that a copy gets busy */
			unsigned seen = floor;

			for (unsigned k = 0; k < 4; k++)
				ask(&r[k], IO_READ, 0, BLOCK, 0);
			for (unsigned k = 0; k < 4; k++) {
				while (!r[k].done)
					co_sleep_ns(NS_PER_US);
				EXPECT(*(uint8_t *)r[k].buf >= floor && *(uint8_t *)r[k].buf <= i);
				seen = MAX(seen, *(uint8_t *)r[k].buf);
				buf_free(r[k].buf, BLOCK);
			}
			floor = seen;
		}
		EXPECT(asked_wait(&w) == 0);
		floor = i;
	}
}

static void reads_during_a_write_never_go_back(void)
{
	rig_run_shapes(5, true, co_monotonic);
}

static void co_leases(void)
{
	EXPECT(verify(0, GROUP_BYTES, 0) == 0);
	EXPECT(rig.n_leases == 0); /* reads need none */
	rig.lease_result = -ERR_POOL_FAILED;
	EXPECT(fill(0, BLOCK, 1, 0) == -ERR_POOL_FAILED);
	EXPECT(disk_ops(IO_WRITE) == 0);
	rig.lease_result = 0;
	EXPECT(fill(0, BLOCK, 1, 0) == 0);
	EXPECT(rig.n_leases == 2 && rig.dirty[0] == 1);
	EXPECT(fill(BLOCK, BLOCK, 2, 0) == 0);
	EXPECT(rig.n_leases == 2);
	raid_return_leases(rig.raid, false);
	EXPECT(rig.returned[0] == 0);
	co_sleep_ns(6 * NS_PER_SEC);
	EXPECT(fill(GROUP_BYTES / 2, BLOCK, 2, 0) == 0);
	raid_return_leases(rig.raid, false); /* the first may have been used since the last look */
	co_sleep_ns(6 * NS_PER_SEC);
	EXPECT(fill(GROUP_BYTES / 2, BLOCK, 3, 0) == 0);
	raid_return_leases(rig.raid, false);
	EXPECT(rig.returned[0] == 1);
	EXPECT(rig.n_leases == 3);
	EXPECT(fill(0, BLOCK, 1, 0) == 0);
	EXPECT(rig.n_leases == 4);
}

static void lease_is_asked_before_the_first_write_and_returned_when_idle(void)
{
	rig_run_shapes(2, true, co_leases);
}

static void co_lease_in_flight(void)
{
	struct asked a;

	EXPECT(fill(0, BLOCK, 1, 0) == 0);
	ask(&a, IO_WRITE, 0, BLOCK, 2);
	raid_return_leases(rig.raid, true);
	EXPECT(rig.returned[0] == 0);
	EXPECT(asked_wait(&a) == 0);
	raid_return_leases(rig.raid, true);
	EXPECT(rig.returned[0] == 1);
}

static void lease_under_a_write_in_flight_is_not_returned(void)
{
	rig_run(1, RAID1, co_lease_in_flight);
}

static void co_many_leases(void)
{
	struct asked a[50];

	for (unsigned i = 0; i < 50; i++)
		ask(&a[i], IO_WRITE, 0, BLOCK, (uint8_t)i);
	for (unsigned i = 0; i < 50; i++)
		EXPECT(asked_wait(&a[i]) == 0);
	EXPECT(rig.n_loads == 1 && rig.n_leases == 1);
}

static void requests_that_wait_for_the_same_ask_once(void)
{
	rig_run(1, RAID1, co_many_leases);
}

static void co_freeze(void)
{
	struct asked in, out, rd, zero;

	EXPECT(fill(0, GROUP_BYTES, 1, 0) == 0);
	ask(&in, IO_WRITE, 64 * KIB, BLOCK, 2);
	raid_co_freeze(rig.raid, 0, 64 * KIB, 64 * KIB);
	EXPECT(in.done);
	ask(&rd, IO_READ, 60 * KIB, 8 * KIB, 0); /* reaches in */
	ask(&zero, IO_ZERO, 100 * KIB, BLOCK, 0);
	ask(&out, IO_WRITE, 128 * KIB, BLOCK, 3);
	co_sleep_ns(10 * NS_PER_MS);
	EXPECT(out.done && !rd.done && !zero.done);
	rig.n_leases = 0;
	raid_unfreeze(rig.raid, 0);
	EXPECT(asked_wait(&in) == 0 && asked_wait(&out) == 0 && asked_wait(&rd) == 0 && asked_wait(&zero) == 0);
	EXPECT(rig.n_leases == (is_redundant() ? 1U : 0U)); /* the frozen regions' leases were dropped */
	EXPECT(fill(0, GROUP_BYTES, 1, 0) == 0);
}

static void freeze_waits_for_requests_in_flight_and_holds_later_ones(void)
{
	rig_run_shapes(3, false, co_freeze);
}

static void co_freeze_busy(void)
{
	struct workers ws;

	workers_start(&ws, 2000);
	for (unsigned i = 0; i < 30; i++) {
		uint64_t g = rng_below(&rig.rng, GROUPS), off, len;

		random_range(64, &off, &len);
		raid_co_freeze(rig.raid, g, off % GROUP_BYTES, len);
		co_sleep_ns(rng_below(&rig.rng, NS_PER_MS));
		if (rng_chance(&rig.rng, 1, 2))
			raid_co_group_replace(rig.raid, &rig.info[g]);
		raid_unfreeze(rig.raid, g);
		if (rng_chance(&rig.rng, 1, 2))
			raid_return_leases(rig.raid, true);
	}
	workers_wait(&ws);
	verify_all();
}

static void freezes_under_load_lose_and_block_nothing(void)
{
	rig_run_shapes(3, false, co_freeze_busy);
}

static void co_freeze_unloaded(void)
{
	struct asked a;

	raid_co_freeze(rig.raid, 1, 0, GROUP_BYTES);
	ask(&a, IO_WRITE, GROUP_BYTES, BLOCK, 1);
	co_sleep_ns(10 * NS_PER_MS);
	EXPECT(!a.done && disk_ops(IO_WRITE) == 0);
	raid_unfreeze(rig.raid, 1);
	EXPECT(asked_wait(&a) == 0);
	raid_co_freeze(rig.raid, 2, 0, BLOCK); /* and leaves nothing behind */
	raid_unfreeze(rig.raid, 2);
}

static void group_that_is_not_loaded_can_be_frozen(void)
{
	rig_run(1, RAID1, co_freeze_unloaded);
}

static void co_load_fails(void)
{
	struct asked a[10];

	rig.load_result = -EIO;
	for (unsigned i = 0; i < 10; i++)
		ask(&a[i], i % 2 ? IO_READ : IO_WRITE, 0, BLOCK, 1);
	for (unsigned i = 0; i < 10; i++)
		EXPECT(asked_wait(&a[i]) == -EIO);
	EXPECT(rig.n_loads == 1);
	rig.load_result = 0;
	rig.info[1].desc.strip_bytes = 12345;
	EXPECT(fill(GROUP_BYTES, BLOCK, 1, 0) == -ERR_FORMAT);
	EXPECT(fill(0, BLOCK, 1, 0) == 0);
}

static void failed_load_is_told_to_all_who_wait_and_tried_again_later(void)
{
	rig_run(1, RAID1, co_load_fails);
}

static void co_replace(void)
{
	struct raid_group_info info = rig.info[0];
	uint64_t col = info.desc.col_bytes;
	struct workers ws;
	uint8_t *buf = buf_alloc(col);

	random_ops(200);
	workers_start(&ws, 600);
	co_sleep_ns(3 * NS_PER_MS);
	raid_co_freeze(rig.raid, 0, 0, GROUP_BYTES);
	set_state(6, RAID_DISK_ONLINE); /* column 0 goes to another disk */
	info.desc.cols[0].disk = 6;
	EXPECT(bdev_co_read(&rig.disk[0]->bdev, info.desc.cols[0].off_bytes, buf, col) == 0);
	EXPECT(bdev_co_write(&rig.disk[6]->bdev, info.desc.cols[0].off_bytes, buf, col, 0) == 0);
	raid_co_group_replace(rig.raid, &info);
	rig.info[0] = info;
	raid_unfreeze(rig.raid, 0);
	workers_wait(&ws);
	verify_all();
	raid_co_group_forget(rig.raid, 0);
	verify_all(); /* loads it again */
	EXPECT(rig.n_loads == GROUPS + 1);
	buf_free(buf, col);
}

static void group_moves_to_another_disk_under_load(void)
{
	rig_run_shapes(3, false, co_replace);
}

static void co_flush(void)
{
	struct asked a[20];
	uint64_t before;

	EXPECT(bdev_co_flush(rig.b) == 0);
	EXPECT(disk_ops(IO_FLUSH) == 0); /* nothing written */
	EXPECT(fill(0, BLOCK, 1, 0) == 0);
	EXPECT(bdev_co_flush(rig.b) == 0);
	EXPECT(disk_ops(IO_FLUSH) == rig.shape->copies); /* only the disks written to */
	EXPECT(bdev_co_flush(rig.b) == 0);
	EXPECT(disk_ops(IO_FLUSH) == rig.shape->copies);
	EXPECT(fill(0, GROUP_BYTES, 1, 0) == 0);
	before = disk_ops(IO_FLUSH);
	for (unsigned i = 0; i < 20; i++)
		ask(&a[i], IO_FLUSH, 0, 0, 0);
	for (unsigned i = 0; i < 20; i++)
		EXPECT(asked_wait(&a[i]) == 0);
	EXPECT(disk_ops(IO_FLUSH) - before <= 2U * rig.shape->n_cols);
	EXPECT(disk_ops(IO_FLUSH) - before >= rig.shape->n_cols);
}

static void flushes_are_shared_and_clean_disks_skipped(void)
{
	rig_run_shapes(3, false, co_flush);
}

static void co_zero_discard(void)
{
	EXPECT(fill(0, GROUP_BYTES, 5, 0) == 0);
	EXPECT(bdev_co_zero(rig.b, 8 * KIB, 300 * KIB, IO_FUA) == 0);
	memset(rig.model + 8 * KIB, 0, 300 * KIB);
	EXPECT(verify(0, GROUP_BYTES, 0) == 0);
	sim_disk_faults(rig.ds, 0)->gone = true;
	EXPECT(bdev_co_discard(rig.b, 0, GROUP_BYTES, 0) == 0);
	EXPECT(rig.n_disk_errors == 0);
}

static void zero_reads_zeros_and_discard_is_only_a_hint(void)
{
	rig_run_shapes(2, false, co_zero_discard);
}

static void co_parity(void)
{
	struct raid_desc *d = &rig.info[0].desc;

	d->layout = RAID_RAID5;
	d->copies = 1;
	EXPECT(raid_desc_check(d, DISKS, NULL) == 0);
	EXPECT(fill(0, BLOCK, 1, 0) == -ERR_POOL_FULL);
	EXPECT(raid_desc_redundancy(rig.raid, d) == 1);
	EXPECT(raid_desc_is_readable(rig.raid, d));
	set_state(1, RAID_DISK_STALE);
	EXPECT(raid_desc_is_readable(rig.raid, d));
	set_state(0, RAID_DISK_ABSENT);
	EXPECT(!raid_desc_is_readable(rig.raid, d));
}

static void parity_groups_take_no_writes_without_a_log(void)
{
	rig_run(1, &shapes[3], co_parity);
}

static void co_beyond(void)
{
	rig.info[2].desc.size_bytes = GROUP_BYTES - 64 * KIB;
	EXPECT(verify(2 * GROUP_BYTES, BLOCK, 0) == 0);
	EXPECT(verify(SPACE_BYTES - 68 * KIB, BLOCK, 0) == 0);
	EXPECT(verify(SPACE_BYTES - 64 * KIB, BLOCK, 0) == -ERANGE);
}

static void request_beyond_a_short_group_is_refused(void)
{
	rig_run_shapes(1, false, co_beyond);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(random_requests_match_a_plain_array),
		TEST(request_in_one_strip_of_an_open_group_uses_no_coroutine),
		TEST(large_sequential_request_is_one_io_per_column),
		TEST(reads_of_mirrors_spread_over_copies),
		TEST(overlapping_writes_leave_columns_equal),
		TEST(reads_during_a_write_never_go_back),
		TEST(lease_is_asked_before_the_first_write_and_returned_when_idle),
		TEST(lease_under_a_write_in_flight_is_not_returned),
		TEST(requests_that_wait_for_the_same_ask_once),
		TEST(freeze_waits_for_requests_in_flight_and_holds_later_ones),
		TEST(freezes_under_load_lose_and_block_nothing),
		TEST(group_that_is_not_loaded_can_be_frozen),
		TEST(failed_load_is_told_to_all_who_wait_and_tried_again_later),
		TEST(group_moves_to_another_disk_under_load),
		TEST(flushes_are_shared_and_clean_disks_skipped),
		TEST(zero_reads_zeros_and_discard_is_only_a_hint),
		TEST(parity_groups_take_no_writes_without_a_log),
		TEST(request_beyond_a_short_group_is_refused),
		CU_TEST_INFO_NULL,
	};

	return tests_run("raid", tests);
}
