/*
 * Groups on bad days: disks that go, come back stale, cannot read, write or flush; regions to sync; power cuts.
 */
#include "tests/unit/raid_rig.h"
#include "tests/unit/unit.h"

/* Takes the disks of `gone` away, works, brings them back one by one, then relies on each alone. */
static void co_lose(unsigned gone)
{
	struct workers ws;

	random_ops(200);
	workers_start(&ws, 400);
	co_sleep_ns(rng_below(&rig.rng, 5 * NS_PER_MS));
	for (unsigned i = 0; i < DISKS; i++)
		if (gone & (1U << i)) {
			sim_disk_faults(rig.ds, i)->gone = true;
			if (rng_chance(&rig.rng, 1, 2)) /* the pool is told by somebody else */
				pool_put_out(i);
		}
	workers_wait(&ws);
	random_ops(200);
	verify_all();
	for (unsigned i = 0; i < DISKS; i++)
		if (gone & (1U << i)) {
			if (!rig.out[i])
				pool_put_out(i);
			sim_disk_faults(rig.ds, i)->gone = false;
			set_state(i, RAID_DISK_STALE);
		}
	random_ops(300);
	verify_all();
	workers_start(&ws, 300);
	for (unsigned i = 0; i < DISKS; i++)
		if (gone & (1U << i))
			bring_back(i);
	workers_wait(&ws);
	expect_equal_columns();
	for (unsigned c = 1; c <= rig.shape->copies; c++)
		for (uint64_t off = 0; off < SPACE_BYTES; off += 64 * KIB)
			EXPECT(verify(off, 64 * KIB, c) == 0);
}

static unsigned lose_mask;

static void co_lose_mask(void)
{
	co_lose(lose_mask);
}

static bool is_survivable(const struct shape *s, unsigned gone)
{
	for (unsigned set = 0; set < s->n_cols; set += s->copies)
		if (((gone >> set) & ((1U << s->copies) - 1)) == (1U << s->copies) - 1)
			return false;
	return gone != 0;
}

static void any_disks_that_may_be_lost_are_lost_and_return_stale(void)
{
	for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
		for (lose_mask = 1; lose_mask < (1U << shapes[i].n_cols); lose_mask++)
			if (shapes[i].copies > 1 && is_survivable(&shapes[i], lose_mask))
				rig_run(lose_mask, &shapes[i], co_lose_mask);
}

static void co_too_many(void)
{
	EXPECT(fill(0, GROUP_BYTES, 1, 0) == 0);
	for (unsigned i = 0; i < rig.shape->copies; i++) {
		EXPECT(raid_desc_is_readable(rig.raid, &rig.info[0].desc));
		pool_put_out(i);
	}
	EXPECT(!raid_desc_is_readable(rig.raid, &rig.info[0].desc));
	EXPECT(verify(0, BLOCK, 0) == -ERR_MISSING);
	EXPECT(fill(0, BLOCK, 2, 0) == -ERR_MISSING);
	if (rig.shape->n_cols > rig.shape->copies) { /* the other set of columns goes on */
		EXPECT(verify(STRIP_BYTES, BLOCK, 0) == 0);
		EXPECT(fill(STRIP_BYTES, BLOCK, 2, 0) == 0);
		EXPECT(fill(0, 2 * STRIP_BYTES, 3, 0) == -ERR_MISSING);
	}
}

static void loss_of_all_copies_is_an_error_exactly_there(void)
{
	rig_run_shapes(1, false, co_too_many);
}

static void co_stale(void)
{
	EXPECT(fill(0, GROUP_BYTES, 1, 0) == 0);
	EXPECT(bdev_co_flush(rig.b) == 0);
	raid_return_leases(rig.raid, true);
	rig.dirty[0] = 0; /* cleaned */
	pool_put_out(1);
	EXPECT(fill(0, BLOCK, 2, 0) == 0); /* disk 1 misses it */
	set_state(1, RAID_DISK_STALE);
	EXPECT(verify(0, BLOCK, 0) == 0);
	EXPECT(verify(0, BLOCK, 2) == -ENODATA);
	sim_disk_faults(rig.ds, 0)->gone = true;
	EXPECT(verify(512 * KIB, BLOCK, 0) == 0); /* last resort, nobody wrote there */
	pool_put_out(0);
	EXPECT(verify(0, BLOCK, 0) == -ERR_MISSING);
	EXPECT(verify(0, 128 * KIB, 0) == -ERR_MISSING);
	EXPECT(verify(512 * KIB, BLOCK, 0) == 0);
	raid_set_missed(rig.raid, 0, ~0ULL);
	EXPECT(verify(512 * KIB, BLOCK, 0) == -ERR_MISSING);
	raid_set_missed(rig.raid, 0, 1);
	EXPECT(verify(512 * KIB, BLOCK, 0) == 0);
	EXPECT(fill(512 * KIB, BLOCK, 3, 0) == -ERR_MISSING);
}

static void stale_disk_serves_only_what_nobody_wrote_and_only_at_last(void)
{
	rig_run(1, RAID1, co_stale);
}

static void co_stale_follows(void)
{
	uint64_t off;
	uint8_t b[512];

	set_state(1, RAID_DISK_STALE);
	EXPECT(fill(0, BLOCK, 7, IO_FUA) == 0);
	EXPECT(locate(0, 1, &off) == 1);
	sim_disk_peek(rig.ds, 1, off, b, sizeof(b));
	EXPECT(b[0] == 7);
	EXPECT(rig.info[0].missed == 1);
}

static void stale_disk_gets_all_writes(void)
{
	rig_run(1, RAID1, co_stale_follows);
}

static void co_repair_one(unsigned copy, uint64_t off, uint64_t read_off, uint64_t read_len)
{
	uint64_t at;
	unsigned disk = locate(off, copy, &at), repaired = rig.n_repaired;

	sim_disk_bad_range(rig.ds, disk, at, BLOCK);
	EXPECT(verify(off, BLOCK, copy + 1) == -EIO); /* a copy read repairs nothing */
	EXPECT(rig.n_repaired == repaired);
	rig.watch_disk = disk;
	rig.watch_off = at;
	rig.watch_hit = false;
	rig.repaired_bytes = 0;
	EXPECT(verify(read_off, read_len, 0) == 0);
	EXPECT(rig.watch_hit && rig.repaired_bytes <= read_len);
	EXPECT(verify(off, BLOCK, copy + 1) == 0); /* really rewritten */
}

static void co_repair(void)
{
	unsigned data_cols = rig.shape->n_cols / rig.shape->copies;

	random_ops(100);
	for (unsigned copy = 0; copy < rig.shape->copies; copy++) {
		/* rows take turns: in this one the copy is the default */
		uint64_t off = (copy + 2ULL * rig.shape->copies) * data_cols * STRIP_BYTES;

		co_repair_one(copy, off, off, BLOCK);
		co_repair_one(copy, off + BLOCK, off, STRIP_BYTES);
		co_repair_one(copy, off, off, STRIP_BYTES);
	}
	EXPECT(rig.n_disk_errors == 0 && rig.n_unrepaired == 0);
	expect_equal_columns();
}

static void read_error_is_answered_from_another_copy_and_rewritten(void)
{
	rig_run_shapes(6, true, co_repair);
}

static void co_scattered(void)
{
	uint64_t at;
	unsigned copies = rig.shape->copies;

	EXPECT(fill(0, GROUP_BYTES, 1, 0) == 0);
	random_ops(100);
	for (unsigned i = 0; i < 4; i++)
		for (unsigned c = 0; c < copies; c++) { /* every copy bad somewhere, no block bad everywhere */
			unsigned disk = locate((i * 10 + c) * BLOCK, c, &at);

			sim_disk_bad_range(rig.ds, disk, at, BLOCK);
		}
	for (unsigned i = 0; i < copies; i++)
		EXPECT(verify(0, 256 * KIB, 0) == 0);
	for (unsigned i = 0; i < 64; i++)
		for (unsigned c = 0; c < copies; c++)
			EXPECT(verify(i * BLOCK, BLOCK, 0) == 0);
	EXPECT(rig.n_repaired > 0 && rig.n_unrepaired == 0);
	for (unsigned c = 0; c < copies; c++) /* one lost everywhere: an error there and only there */
		sim_disk_bad_range(rig.ds, locate(8 * BLOCK, c, &at), (locate(8 * BLOCK, c, &at), at), BLOCK);
	EXPECT(verify(8 * BLOCK, BLOCK, 0) == -EIO);
	EXPECT(verify(0, 64 * KIB, 0) == -EIO);
	EXPECT(verify(0, 8 * BLOCK, 0) == 0 && verify(9 * BLOCK, 7 * BLOCK, 0) == 0);
	EXPECT(fill(8 * BLOCK, BLOCK, 3, 0) == 0);
	EXPECT(verify(0, 64 * KIB, 0) == 0);
}

static void copies_bad_in_different_places_still_have_all_data(void)
{
	rig_run_shapes(4, true, co_scattered);
}

static void co_repair_race(void)
{
	struct asked rd, wr;
	uint64_t at;

	EXPECT(fill(0, 64 * KIB, 0, 0) == 0);
	for (unsigned i = 1; i < 150; i++) {
		unsigned disk = locate(0, 0, &at); /* copy 0 is the default of row 0 */

		sim_disk_bad_range(rig.ds, disk, at, BLOCK);
		ask(&rd, IO_READ, 0, BLOCK, 0);
		co_sleep_ns(rng_below(&rig.rng, 600 * NS_PER_US));
		ask(&wr, IO_WRITE, 0, BLOCK, (uint8_t)i);
		EXPECT(asked_wait(&rd) == 0 && asked_wait(&wr) == 0);
		memset(rig.model, (int)i, BLOCK);
		for (unsigned c = 1; c <= rig.shape->copies; c++)
			EXPECT(verify(0, BLOCK, c) == 0);
	}
	EXPECT(rig.n_repaired > 10);
}

static void repair_does_not_undo_a_write_to_the_same_place(void)
{
	rig_run_shapes(2, true, co_repair_race);
}

static void co_errors_at_random(void)
{
	for (unsigned i = 0; i < rig.shape->n_cols; i += rig.shape->copies)
		sim_disk_faults(rig.ds, i)->read_error = 6000; /* one disk of each set: every tenth */
	random_ops(1500);
	EXPECT(rig.n_repaired > 10 && rig.n_disk_errors == 0);
	for (unsigned i = 0; i < DISKS; i++)
		sim_disk_faults(rig.ds, i)->read_error = 0;
	verify_all();
	expect_equal_columns();
}

static void repairs_under_load_undo_no_write(void)
{
	rig_run_shapes(4, true, co_errors_at_random);
}

static void co_write_error(void)
{
	struct asked a[2];

	EXPECT(fill(0, BLOCK, 1, 0) == 0);
	rig.hook_ns = 50 * NS_PER_MS;
	sim_disk_faults(rig.ds, 0)->write_error = 65536;
	ask(&a[0], IO_WRITE, 0, BLOCK, 2);
	ask(&a[1], IO_WRITE, 60 * KIB, 128 * KIB, 3); /* the slow path */
	EXPECT(asked_wait(&a[0]) == 0 && asked_wait(&a[1]) == 0);
	EXPECT(rig.n_disk_errors >= 1 && rig.out[0]);
	EXPECT(a[0].end_ns >= rig.out_ns);
	EXPECT(a[1].end_ns >= rig.out_ns);
	memset(rig.model, 2, BLOCK);
	memset(rig.model + 60 * KIB, 3, 128 * KIB);
	rig.n_leases = 0;
	EXPECT(fill(0, BLOCK, 4, 0) == 0); /* asked again: the disk is away */
	EXPECT(rig.n_leases == 1 && (rig.info[0].missed & 1));
	EXPECT(verify(0, GROUP_BYTES, 0) == 0);
}

static void failed_write_is_answered_only_when_the_disk_is_out(void)
{
	rig_run_shapes(4, true, co_write_error);
}

static void co_refused(void)
{
	EXPECT(fill(0, 64 * KIB, 1, 0) == 0);
	rig.disk_error_result = -ERR_POOL_FAILED;
	sim_disk_faults(rig.ds, 0)->write_error = 65536;
	EXPECT(fill(0, BLOCK, 2, 0) == -ERR_POOL_FAILED);
	sim_disk_faults(rig.ds, 0)->write_error = 0;
	EXPECT(rig.n_syncs == 0);
	raid_return_leases(rig.raid, true);
	EXPECT((rig.returned[0] & 1) == 0); /* stays dirty */
	(void)fill(BLOCK, BLOCK, 1, 0);
	EXPECT(rig.n_syncs == 1); /* the columns may differ: synced before the next use */
	expect_equal_columns();
}

static void refused_write_error_is_passed_on_and_the_region_synced_again(void)
{
	rig_run_shapes(4, true, co_refused);
}

static void co_all_fail(void)
{
	EXPECT(fill(0, 64 * KIB, 1, 0) == 0);
	for (unsigned i = 0; i < DISKS; i++)
		sim_disk_faults(rig.ds, i)->write_error = 65536;
	EXPECT(fill(0, BLOCK, 2, 0) == -EIO);
	EXPECT(rig.n_disk_errors == (is_redundant() ? rig.shape->copies : 0U));
}

static void write_that_no_copy_holds_is_an_error(void)
{
	rig_run_shapes(2, false, co_all_fail);
}

static void co_plain(void)
{
	EXPECT(fill(0, 64 * KIB, 1, 0) == 0);
	set_state(0, RAID_DISK_STALE);
	EXPECT(verify(0, 64 * KIB, 0) == 0 && fill(0, BLOCK, 2, 0) == 0 && verify(0, 64 * KIB, 1) == 0);
	EXPECT(verify(0, BLOCK, 2) == -ENODATA);
	sim_disk_faults(rig.ds, 0)->read_error = sim_disk_faults(rig.ds, 0)->write_error = 65536;
	EXPECT(verify(0, BLOCK, 0) == -EIO && verify(0, 64 * KIB, 0) == -EIO);
	EXPECT(fill(0, BLOCK, 1, 0) == -EIO && fill(0, 64 * KIB, 1, 0) == -EIO);
	EXPECT(rig.n_disk_errors == 0);
}

static void group_without_redundancy_uses_its_disk_and_passes_errors_on(void)
{
	rig_run(1, &shapes[0], co_plain);
	rig_run(1, &shapes[1], co_plain);
}

static void co_flush_error(void)
{
	struct asked a[3];

	EXPECT(fill(0, GROUP_BYTES, 1, 0) == 0);
	rig.hook_ns = 50 * NS_PER_MS;
	sim_disk_faults(rig.ds, 0)->flush_error = 65536;
	for (unsigned i = 0; i < 3; i++)
		ask(&a[i], IO_FLUSH, 0, 0, 0);
	co_sleep_ns(NS_PER_MS);
	sim_disk_faults(rig.ds, 0)->flush_error = 0;
	for (unsigned i = 0; i < 3; i++) {
		EXPECT(asked_wait(&a[i]) == 0);
		EXPECT(a[i].end_ns >= rig.out_ns);
	}
	EXPECT(rig.n_disk_errors == 1 && rig.out[0]);
	EXPECT(verify(0, GROUP_BYTES, 0) == 0);
}

static void failed_flush_is_answered_only_when_the_disk_is_out(void)
{
	rig_run_shapes(3, true, co_flush_error);
}

static void co_flush_refused(void)
{
	struct asked a[2];

	EXPECT(fill(0, GROUP_BYTES, 1, 0) == 0);
	rig.disk_error_result = -EIO;
	sim_disk_faults(rig.ds, 0)->flush_error = 65536;
	ask(&a[0], IO_FLUSH, 0, 0, 0);
	ask(&a[1], IO_FLUSH, 0, 0, 0); /* a follower */
	EXPECT(asked_wait(&a[0]) == -EIO && asked_wait(&a[1]) == -EIO);
	sim_disk_faults(rig.ds, 0)->flush_error = 0;
	EXPECT(bdev_co_flush(rig.b) == -EIO); /* not retried into success */
	raid_set_disk(rig.raid, 0, rig.disk[0], RAID_DISK_ONLINE);
	EXPECT(bdev_co_flush(rig.b) == 0);
}

static void failed_flush_is_never_retried_into_success(void)
{
	rig_run_shapes(3, false, co_flush_refused);
}

static void co_copies(void)
{
	uint64_t at;
	unsigned disk;
	uint8_t *page = buf_alloc(BLOCK);

	EXPECT(fill(0, GROUP_BYTES, 1, 0) == 0 && bdev_co_flush(rig.b) == 0);
	for (unsigned c = 0; c < rig.shape->copies; c++) {
		disk = locate(80 * KIB, c, &at);
		memset(page, 100 + (int)c, BLOCK);
		EXPECT(bdev_co_write(&rig.disk[disk]->bdev, at, page, BLOCK, 0) == 0);
	}
	for (unsigned c = 0; c < rig.shape->copies; c++) {
		EXPECT(bdev_co_read_copy(rig.b, 80 * KIB, page, BLOCK, c + 1) == 0 && page[0] == 100 + c);
		disk = locate(80 * KIB, c, &at);
		set_state(disk, RAID_DISK_STALE);
		EXPECT(bdev_co_read_copy(rig.b, 80 * KIB, page, BLOCK, c + 1) == -ENODATA);
		raid_set_disk(rig.raid, disk, NULL, RAID_DISK_ABSENT);
		EXPECT(bdev_co_read_copy(rig.b, 80 * KIB, page, BLOCK, c + 1) == -ENODATA);
		set_state(disk, RAID_DISK_ONLINE);
	}
	EXPECT(bdev_co_read_copy(rig.b, 80 * KIB, page, BLOCK, rig.shape->copies + 1U) == -ENODATA);
	buf_free(page, BLOCK);
}

static void read_of_a_copy_is_of_that_copy_alone(void)
{
	rig_run_shapes(2, true, co_copies);
}

/* Writes different things to the copies of some blocks, beside the instance, and puts the regions to be synced. */
static void co_diverge(void)
{
	uint8_t *page = buf_alloc(BLOCK);
	uint64_t at;

	for (uint64_t off = 0; off < GROUP_BYTES; off += 5 * BLOCK)
		for (unsigned c = 0; c < rig.shape->copies; c++) {
			unsigned disk = locate(off, c, &at);

			rng_fill(&rig.rng, page, BLOCK);
			EXPECT(bdev_co_write(&rig.disk[disk]->bdev, at, page, BLOCK, 0) == 0);
		}
	buf_free(page, BLOCK);
}

static void co_unsync(void)
{
	uint64_t diff = 1;
	uint8_t *a = buf_alloc(64 * KIB), *b = buf_alloc(64 * KIB);

	co_diverge();
	EXPECT(raid_co_compare_range(rig.raid, 0, 0, GROUP_BYTES, &diff) == 1 && diff == 0);
	EXPECT(raid_co_compare_range(rig.raid, 0, BLOCK, GROUP_BYTES - BLOCK, &diff) == 1 && diff == 5 * BLOCK);
	raid_co_group_forget(rig.raid, 0);
	rig.info[0].unsync = ~0ULL;
	rig.sync_result = -EIO;
	EXPECT(bdev_co_read(rig.b, 0, a, BLOCK) == -EIO);
	EXPECT(bdev_co_write(rig.b, 0, a, BLOCK, 0) == -EIO);
	rig.sync_result = 0;
	rig.n_syncs = 0;
	for (uint64_t off = 0; off < GROUP_BYTES; off += 64 * KIB) {
		EXPECT(bdev_co_read(rig.b, off, a, 64 * KIB) == 0);
		for (unsigned c = 1; c <= rig.shape->copies; c++)
			EXPECT(bdev_co_read_copy(rig.b, off, b, 64 * KIB, c) == 0 && !memcmp(a, b, 64 * KIB));
	}
	EXPECT(rig.n_syncs == 16 && rig.info[0].unsync == 0);
	EXPECT(raid_co_compare_range(rig.raid, 0, 0, GROUP_BYTES, &diff) == 0);
	buf_free(a, 64 * KIB);
	buf_free(b, 64 * KIB);
}

static void unsync_region_waits_for_its_sync(void)
{
	rig_run_shapes(2, true, co_unsync);
}

static void co_resync(void)
{
	uint64_t at, copied = 0, again, blocks = DIV_UP(GROUP_BYTES, 5 * BLOCK);
	unsigned disk;

	EXPECT(fill(0, GROUP_BYTES, 1, 0) == 0);
	co_diverge();
	if (rig.shape->copies > 2)
		set_state(rig.shape->copies - 1U, RAID_DISK_STALE); /* written to, no source */
	disk = locate(0, 0, &at);
	sim_disk_bad_range(rig.ds, disk, at, BLOCK); /* a bad source */
	EXPECT(raid_co_resync_range(rig.raid, 0, 0, GROUP_BYTES, &copied) == 0);
	EXPECT(copied >= blocks * BLOCK);
	set_state(rig.shape->copies - 1U, RAID_DISK_ONLINE);
	EXPECT(raid_co_compare_range(rig.raid, 0, 0, GROUP_BYTES, &at) == 0);
	EXPECT(raid_co_resync_range(rig.raid, 0, 0, GROUP_BYTES, &again) == 0 && again == 0);
	for (unsigned c = 0; c < rig.shape->copies; c++) { /* lost everywhere: the rest is made equal all the same */
		disk = locate(10 * BLOCK, c, &at);
		sim_disk_bad_range(rig.ds, disk, at, BLOCK);
	}
	co_diverge();
	for (unsigned c = 0; c < rig.shape->copies; c++) {
		disk = locate(11 * BLOCK, c, &at);
		sim_disk_bad_range(rig.ds, disk, at, BLOCK);
	}
	EXPECT(raid_co_resync_range(rig.raid, 0, 0, GROUP_BYTES, &copied) == -EIO);
	EXPECT(raid_co_compare_range(rig.raid, 0, 0, 11 * BLOCK, &at) == 0);
	EXPECT(raid_co_compare_range(rig.raid, 0, 12 * BLOCK, GROUP_BYTES - 12 * BLOCK, &at) == 0);
}

static void resync_makes_columns_equal_and_writes_only_differences(void)
{
	rig_run_shapes(3, true, co_resync);
}

static void co_resync_write_error(void)
{
	uint64_t copied;

	EXPECT(fill(0, GROUP_BYTES, 1, 0) == 0);
	co_diverge();
	sim_disk_faults(rig.ds, 1)->write_error = 65536;
	EXPECT(raid_co_resync_range(rig.raid, 0, 0, GROUP_BYTES, &copied) == 0);
	EXPECT(rig.out[1] && rig.n_disk_errors >= 1);
}

static void resync_puts_out_a_disk_that_cannot_be_written(void)
{
	rig_run_shapes(1, true, co_resync_write_error);
}

/* Workers write while a flusher flushes; what was completed when a flush was submitted is on the disks when it ends. */
static void expect_durable(const uint8_t *want, uint64_t off, uint64_t len)
{
	uint8_t page[BLOCK];
	uint64_t at;

	for (; len; len -= BLOCK, off += BLOCK, want += BLOCK)
		for (unsigned c = 0; c < rig.shape->copies; c++) {
			unsigned disk = locate(off, c, &at);

			sim_disk_peek(rig.ds, disk, at, page, BLOCK);
			EXPECT(!memcmp(page, want, BLOCK));
		}
}

static void flusher_co_main(void *arg)
{
	struct workers *ws = arg;
	struct range_hold h;

	while (ws->n_ops) {
		uint64_t off, len;

		random_range(64, &off, &len);
		range_co_lock(&rig.lock, off, len, true, &h); /* no write under way there */
		EXPECT(bdev_co_flush(rig.b) == 0);
		expect_durable(rig.model + off, off, len);
		range_unlock(&rig.lock, &h);
	}
}

static void co_flush_under_load(void)
{
	struct workers ws;
	struct asked a;

	workers_start(&ws, 300);
	co_spawn(CO_REQUEST, flusher_co_main, &ws, "flusher");
	workers_wait(&ws);
	co_sleep_ns(10 * NS_PER_MS);
	/* a write that a flush overlaps is in need of the next flush, which must not be skipped */
	EXPECT(bdev_co_flush(rig.b) == 0);
	ask(&a, IO_WRITE, 0, BLOCK, 0x5a);
	EXPECT(bdev_co_flush(rig.b) == 0);
	EXPECT(asked_wait(&a) == 0);
	EXPECT(bdev_co_flush(rig.b) == 0);
	memset(rig.model, 0x5a, BLOCK);
	expect_durable(rig.model, 0, SPACE_BYTES);
}

static void flush_makes_durable_what_was_completed_before_it(void)
{
	rig_run_shapes(6, false, co_flush_under_load);
}

static void co_chaos(void)
{
	struct workers ws;

	for (unsigned round = 0; round < 4; round++) {
		unsigned victim = (unsigned)rng_below(&rig.rng, rig.shape->n_cols);
		struct sim_faults *f = sim_disk_faults(rig.ds, victim);

		workers_start(&ws, 300);
		co_sleep_ns(rng_below(&rig.rng, 3 * NS_PER_MS));
		f->read_error = (uint32_t)rng_below(&rig.rng, 3000);
		f->write_error = (uint32_t)rng_below(&rig.rng, 3000);
		f->flush_error = (uint32_t)rng_below(&rig.rng, 30000);
		f->stall = 1000;
		f->stall_ns = 5 * NS_PER_MS;
		workers_wait(&ws);
		*f = (struct sim_faults){ 0 };
		if (rig.out[victim]) {
			set_state(victim, RAID_DISK_STALE);
			workers_start(&ws, 200);
			co_sleep_ns(rng_below(&rig.rng, 3 * NS_PER_MS));
			bring_back(victim);
			workers_wait(&ws);
		}
		verify_all();
		expect_equal_columns();
	}
}

static void one_bad_disk_after_another_costs_no_data(void)
{
	rig_run_shapes(8, true, co_chaos);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(any_disks_that_may_be_lost_are_lost_and_return_stale),
		TEST(loss_of_all_copies_is_an_error_exactly_there),
		TEST(stale_disk_serves_only_what_nobody_wrote_and_only_at_last),
		TEST(stale_disk_gets_all_writes),
		TEST(read_error_is_answered_from_another_copy_and_rewritten),
		TEST(copies_bad_in_different_places_still_have_all_data),
		TEST(repair_does_not_undo_a_write_to_the_same_place),
		TEST(repairs_under_load_undo_no_write),
		TEST(failed_write_is_answered_only_when_the_disk_is_out),
		TEST(refused_write_error_is_passed_on_and_the_region_synced_again),
		TEST(write_that_no_copy_holds_is_an_error),
		TEST(group_without_redundancy_uses_its_disk_and_passes_errors_on),
		TEST(failed_flush_is_answered_only_when_the_disk_is_out),
		TEST(failed_flush_is_never_retried_into_success),
		TEST(read_of_a_copy_is_of_that_copy_alone),
		TEST(unsync_region_waits_for_its_sync),
		TEST(resync_makes_columns_equal_and_writes_only_differences),
		TEST(resync_puts_out_a_disk_that_cannot_be_written),
		TEST(flush_makes_durable_what_was_completed_before_it),
		TEST(one_bad_disk_after_another_costs_no_data),
		CU_TEST_INFO_NULL,
	};

	return tests_run("raid faults", tests);
}
