/*
 * Parity groups: every read gives what was written, whichever columns are lost, stale, being rebuilt or bad in places.
 */
#include "tests/unit/raid__parity_rig.h"
#include "tests/unit/unit.h"

/* ---- all disks there ---- */

static void co_plain(void)
{
	unsigned k = rig.shape->n_cols - rig.shape->parity;
	struct raid_stats st;

	random_ops(3000);
	verify_all();
	expect_parity();
	verify_without();
	raid_stats_get(rig.raid, &st);
	EXPECT(st.stripes_full > 50 && st.stripes_rcw > 50 && st.assembled > 10);
	EXPECT((st.stripes_rmw > 50) == (k - 1 > rig.shape->parity + 1U)); /* where it reads less */
}

static void random_requests_read_back_with_any_columns_lost(void)
{
	rig_run_shapes(6, co_plain);
}

/* Overlapping writes at once, without any order among them: afterwards each sector is one of them, and parity is right. */
struct clash {
	uint64_t id, off, len;
};

#define CLASHES 300
static struct {
	struct clash c[CLASHES];
	unsigned n, running;
} clashes;

static void clash_co_main(void *arg)
{
	while (clashes.n < CLASHES) {
		struct clash *c = &clashes.c[clashes.n++];
		uint8_t *buf;

		random_range(64, rng_chance(&rig.rng, 1, 4), &c->off, &c->len);
		c->off %= 5 * stripe_bytes();
		c->id = rig.next_id++;
		buf = buf_alloc(c->len);
		for (uint64_t at = 0; at < c->len; at += SECT)
			sector_fill(buf + at, (c->off + at) / SECT, c->id);
		EXPECT(bdev_co_write(rig.b, c->off, buf, c->len, IO_OVERWRITE) == 0);
		buf_free(buf, c->len);
	}
	clashes.running--;
}

/* Is this one of the writes that were made there? */
static bool clash_allows(uint64_t sector, uint64_t id)
{
	bool covered = false;

	for (unsigned i = 0; i < CLASHES; i++) {
		const struct clash *c = &clashes.c[i];

		if (c->off > sector * SECT || sector * SECT >= c->off + c->len)
			continue;
		if (c->id == id)
			return true;
		covered = true;
	}
	return !covered && id == rig.sectors[sector].now;
}

static void co_clash(void)
{
	uint64_t len = ALIGN_UP(10 * stripe_bytes() + 64 * rig.block, 32 * KIB);
	uint8_t *buf = buf_alloc(len);

	for (uint64_t off = 0; off < len; off += 32 * KIB)
		write_ok(off, 32 * KIB, 0);
	clashes.n = 0;
	clashes.running = 64;
	for (unsigned i = 0; i < 64; i++)
		co_spawn(CO_REQUEST, clash_co_main, NULL, "clash");
	while (clashes.running)
		co_sleep_ns(NS_PER_MS);
	for (uint64_t off = 0; off < len; off += 32 * KIB)
		EXPECT(bdev_co_read(rig.b, off, buf + off, 32 * KIB) == 0);
	for (uint64_t s = 0; s < len / SECT; s++) {
		uint64_t id = sector_id(buf + s * SECT, s);

		EXPECT(clash_allows(s, id));
		rig.sectors[s].now = id;
	}
	buf_free(buf, len);
	expect_parity();
	verify_without();
}

static void overlapping_writes_leave_whole_sectors_and_right_parity(void)
{
	rig_run_shapes(3, co_clash);
}

/* ---- lost and stale ---- */

static unsigned lose_mask;

static void co_lose(void)
{
	struct workers ws;

	random_ops(300);
	workers_start(&ws, 500);
	co_sleep_ns(rng_below(&rig.rng, 5 * NS_PER_MS));
	for (unsigned i = 0; i < rig.shape->n_cols; i++)
		if (lose_mask & (1U << i)) {
			sim_disk_faults(rig.ds, i)->gone = true;
			if (rng_chance(&rig.rng, 1, 2)) /* the pool is told by somebody else */
				pool_put_out(i);
		}
	workers_wait(&ws);
	random_ops(400);
	verify_all();
	for (unsigned i = 0; i < rig.shape->n_cols; i++)
		if (lose_mask & (1U << i)) {
			if (!rig.out[i])
				pool_put_out(i);
			sim_disk_faults(rig.ds, i)->gone = false;
			set_state(i, RAID_DISK_STALE);
		}
	random_ops(300);
	verify_all();
	workers_start(&ws, 600);
	for (unsigned i = 0; i < rig.shape->n_cols; i++)
		if (lose_mask & (1U << i))
			bring_back(i);
	workers_wait(&ws);
	verify_all();
	expect_parity();
	verify_without();
}

static void any_columns_that_may_be_lost_are_lost_and_return_stale(void)
{
	for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
		for (lose_mask = 1; lose_mask < (1U << shapes[i].n_cols); lose_mask++)
			if ((unsigned)__builtin_popcount(lose_mask) <= shapes[i].parity)
				rig_run(lose_mask, &shapes[i], co_lose);
}

static void co_too_many(void)
{
	struct raid_place p;
	uint64_t at;
	unsigned good = 0, bad = 0;

	write_ok(0, 4 * stripe_bytes(), 0);
	for (unsigned i = 0; i <= rig.shape->parity; i++) {
		EXPECT(raid_desc_is_readable(rig.raid, &rig.info[0].desc));
		pool_put_out(i);
	}
	EXPECT(!raid_desc_is_readable(rig.raid, &rig.info[0].desc));
	for (uint64_t off = 0; off < 4 * stripe_bytes(); off += rig.shape->strip_bytes) {
		bool there = locate(off, &p, &at) > rig.shape->parity;

		EXPECT(do_read(off, rig.shape->strip_bytes) == (there ? 0 : -ERR_MISSING));
		good += there;
		bad += !there;
	}
	EXPECT(good && bad);
	EXPECT(do_write(0, rig.block, IO_WRITE, 0) == -ERR_MISSING);
	EXPECT(do_write(0, stripe_bytes(), IO_WRITE, 0) == -ERR_MISSING);
}

static void loss_of_too_many_is_an_error_exactly_there(void)
{
	rig_run_shapes(2, co_too_many);
}

/* A stale disk is as good as any where nobody has written since it went away, when nothing else is left. */
static void co_stale_is_last(void)
{
	uint64_t region = GROUP_BYTES / RAID_REGIONS, last;

	write_ok(0, GROUP_BYTES, 0);
	EXPECT(model_flush() == 0);
	for (unsigned i = 0; i <= rig.shape->parity; i++) {
		pool_put_out(i);
		set_state(i, RAID_DISK_STALE);
	}
	raid_set_missed(rig.raid, 0, 1);
	last = ALIGN_DOWN(GROUP_BYTES - 1, 4 * stripe_bytes());
	last = MAX(last / stripe_bytes() * stripe_bytes(), 2 * region);
	for (uint64_t off = last; off < GROUP_BYTES; off += rig.block)
		EXPECT(do_read(off, rig.block) == 0);
	EXPECT(do_read(GROUP_BYTES / 2, GROUP_BYTES / 4) == 0);
	raid_set_missed(rig.raid, 0, ~0ULL);
	EXPECT(do_read(GROUP_BYTES / 2, GROUP_BYTES / 4) == -ERR_MISSING);
}

static void stale_columns_serve_only_what_nobody_wrote_and_only_at_last(void)
{
	rig_run_shapes(1, co_stale_is_last);
}

/* ---- a column's new place ---- */

static unsigned move_col;

static void co_switch(unsigned group)
{
	struct raid_group_info *info = &rig.info[group], with = *info;
	uint64_t copied;

	with.has_target = true;
	with.target_col = (uint8_t)move_col;
	with.target = (struct raid_col){ .disk = SPARE, .off_bytes = MIB + group * info->desc.col_bytes };
	raid_co_group_replace(rig.raid, &with);
	for (uint64_t off = 0; off < GROUP_BYTES; off += 8 * rig.block) /* what is allocated */
		if (memchr(rig.allocated + (group * GROUP_BYTES + off) / rig.block, 1, 8) || rng_chance(&rig.rng, 1, 8))
			EXPECT(raid_co_rebuild_range(rig.raid, group, off, 8 * rig.block, &copied) == 0);
	EXPECT(raid_target_commit(rig.raid, group) == 0);
	EXPECT(bdev_co_flush(rig.b) == 0);
	info->desc.cols[move_col] = with.target;
	raid_co_group_replace(rig.raid, info);
}

static void co_move(void)
{
	bool lost = rng_chance(&rig.rng, 1, 2);
	struct workers ws;

	random_ops(400);
	if (lost)
		pool_put_out(move_col);
	else
		set_state(move_col, RAID_DISK_STALE); /* there, yet to be reconstructed */
	if (!lost && rng_chance(&rig.rng, 1, 2))
		set_state(move_col, RAID_DISK_ONLINE); /* just copied */
	workers_start(&ws, 2500);
	for (unsigned g = 0; g < GROUPS; g++)
		co_switch(g);
	ws.n_ops = MIN(ws.n_ops, 200);
	workers_wait(&ws);
	raid_set_disk(rig.raid, move_col, NULL, RAID_DISK_ABSENT);
	EXPECT(n_out() == 0);
	random_ops(200);
	verify_all();
	expect_parity();
	verify_without();
}

static void column_moves_to_a_new_place_under_load(void)
{
	for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
		for (move_col = 0; move_col < shapes[i].n_cols; move_col++)
			for (uint64_t s = 1; s <= 3; s++)
				rig_run(s * 10 + move_col, &shapes[i], co_move);
}

static void co_target_lost(void)
{
	struct raid_group_info with = rig.info[0];
	uint64_t copied;

	random_ops(200);
	with.has_target = true;
	with.target_col = 1;
	with.target = (struct raid_col){ .disk = SPARE, .off_bytes = MIB };
	raid_co_group_replace(rig.raid, &with);
	sim_disk_faults(rig.ds, SPARE)->gone = true;
	random_ops(300); /* no write is worse off for it */
	EXPECT(raid_co_rebuild_range(rig.raid, 0, 0, GROUP_BYTES, &copied) < 0);
	EXPECT(raid_target_commit(rig.raid, 0) < 0);
	raid_co_group_replace(rig.raid, &rig.info[0]);
	random_ops(100);
	verify_all();
	verify_without();
}

static void target_that_fails_costs_nothing_but_the_rebuild(void)
{
	rig_run_shapes(2, co_target_lost);
}

/* ---- bad sectors ---- */

static void damage(unsigned group, unsigned col, uint64_t col_off)
{
	uint64_t at;
	unsigned disk = col_place(group, col, col_off, &at);

	sim_disk_bad_range(rig.ds, disk, at, rig.block);
}

static void co_bad_one(void)
{
	uint64_t stripes = GROUP_BYTES / stripe_bytes(), strip = rig.shape->strip_bytes;
	unsigned before;

	for (uint64_t off = 0; off < GROUP_BYTES; off += 64 * KIB)
		write_ok(off, 64 * KIB, 0);
	for (unsigned i = 0; i < 40; i++) {
		uint64_t t = rng_below(&rig.rng, stripes), row = rng_below(&rig.rng, strip / rig.block) * rig.block;
		unsigned col = (unsigned)rng_below(&rig.rng, rig.shape->n_cols);

		damage(0, col, t * strip + row);
		before = rig.n_repaired;
		if (rng_chance(&rig.rng, 1, 2)) {
			EXPECT(do_read(t * stripe_bytes(), stripe_bytes()) == 0);
		} else {
			for (uint64_t off = t * stripe_bytes(); off < (t + 1) * stripe_bytes(); off += rig.block)
				EXPECT(do_read(off, rig.block) == 0);
		}
		if (rig.n_repaired == before) { /* in parity: a write finds it */
			write_ok(t * stripe_bytes() + row, rig.block, 0);
			sim_disk_clear_bad(rig.ds, col);
		}
		EXPECT(do_read(t * stripe_bytes(), stripe_bytes()) == 0);
	}
	EXPECT(rig.n_repaired > 10 && rig.n_unrepaired == 0);
	before = rig.n_repaired;
	verify_all();
	EXPECT(rig.n_repaired == before);
	expect_parity();
	verify_without();
}

static void bad_sector_is_reconstructed_and_rewritten(void)
{
	rig_run_shapes(3, co_bad_one);
}

/* As many bad rows as there are columns, no two of them in the same row: nothing is lost, by reads nor by writes. */
static void co_bad_rows(void)
{
	uint64_t strip = rig.shape->strip_bytes, rows = strip / rig.block, off;

	for (off = 0; off < GROUP_BYTES; off += 64 * KIB)
		write_ok(off, 64 * KIB, 0);
	for (unsigned round = 0; round < 12; round++) {
		uint64_t t = round;

		for (unsigned col = 0; col < rig.shape->n_cols; col++)
			if (col < rows)
				damage(0, col, t * strip + col % rows * rig.block);
		off = t * stripe_bytes();
		switch (round % 4) {
		case 0: EXPECT(do_read(off, stripe_bytes()) == 0); break;
		case 1: write_ok(off, stripe_bytes() - rig.block, 0); break;
		case 2: write_ok(off + rig.block, rig.block * 2, 0); break;
		case 3: EXPECT(do_read(off + strip / 2, strip) == 0); break;
		}
		EXPECT(do_read(off, stripe_bytes()) == 0);
	}
	for (unsigned i = 0; i < rig.shape->n_cols; i++)
		sim_disk_clear_bad(rig.ds, i);
	verify_all();
	expect_parity();
	verify_without();
}

static void columns_bad_in_different_rows_still_have_all_data(void)
{
	rig_run_shapes(3, co_bad_rows);
}

/* More bad columns in one row than there is parity: that block is lost, and nothing else. */
static void co_bad_beyond(void)
{
	uint64_t strip = rig.shape->strip_bytes, at;
	struct raid_place p;
	unsigned lost = 0;

	for (uint64_t off = 0; off < 128 * KIB; off += 64 * KIB)
		write_ok(off, 64 * KIB, 0);
	for (unsigned col = 0; col <= rig.shape->parity; col++)
		damage(0, col, strip + rig.block);
	for (uint64_t off = 0; off < 2 * stripe_bytes(); off += rig.block) {
		bool is_lost;

		locate(off, &p, &at);
		is_lost = p.cols[0] <= rig.shape->parity && p.col_off_bytes == strip + rig.block;
		EXPECT(do_read(off, rig.block) == (is_lost ? -EIO : 0));
		lost += is_lost;
	}
	EXPECT(lost > 0);
	for (uint64_t off = 0; off < 2 * stripe_bytes(); off += strip) { /* written over, it is good again */
		locate(off, &p, &at);
		if (p.col_off_bytes == strip && p.cols[0] <= rig.shape->parity)
			EXPECT(do_read(off, strip) == -EIO);
	}
	write_ok(stripe_bytes(), stripe_bytes(), 0);
	EXPECT(do_read(0, 2 * stripe_bytes()) == 0);
	verify_without();
}

static void block_beyond_help_is_an_error_and_its_neighbours_are_not(void)
{
	rig_run_shapes(2, co_bad_beyond);
}

/* Bad places and late answers everywhere but never more than parity can stand at once, under load. */
static void co_bad_load(void)
{
	unsigned victim = (unsigned)rng_below(&rig.rng, rig.shape->n_cols);
	struct workers ws;

	random_ops(300);
	workers_start(&ws, 1500);
	while (ws.n_ops > 100) {
		damage((unsigned)rng_below(&rig.rng, GROUPS), victim,
		       rng_below(&rig.rng, GROUP_BYTES / stripe_bytes() * rig.shape->strip_bytes / rig.block) * rig.block);
		co_sleep_ns(rng_below(&rig.rng, NS_PER_MS));
	}
	workers_wait(&ws);
	verify_all();
	EXPECT(rig.n_repaired > 0);
	sim_disk_clear_bad(rig.ds, victim);
	expect_parity();
	verify_without();
}

static void repairs_under_load_undo_no_write(void)
{
	rig_run_shapes(4, co_bad_load);
}

/* ---- disks that fail ---- */

static void co_chaos(void)
{
	struct workers ws;

	for (unsigned round = 0; round < 4; round++) {
		unsigned victim = (unsigned)rng_below(&rig.rng, rig.shape->n_cols);
		struct sim_faults *f = sim_disk_faults(rig.ds, victim);

		workers_start(&ws, 500);
		co_sleep_ns(rng_below(&rig.rng, 3 * NS_PER_MS));
		f->read_error = (uint32_t)rng_below(&rig.rng, 3000);
		f->write_error = (uint32_t)rng_below(&rig.rng, 3000);
		f->flush_error = (uint32_t)rng_below(&rig.rng, 30000);
		f->stall = 1000;
		f->stall_ns = 200 * NS_PER_MS; /* reads go round it */
		workers_wait(&ws);
		*f = (struct sim_faults){ 0 };
		if (rig.out[victim]) {
			while (!raid_disk_is_idle(rig.raid, victim))
				co_sleep_ns(NS_PER_MS);
			workers_start(&ws, 300);
			co_sleep_ns(rng_below(&rig.rng, 3 * NS_PER_MS));
			bring_back(victim);
			workers_wait(&ws);
		}
		verify_all();
		expect_parity();
	}
	verify_without();
}

static void one_bad_disk_after_another_costs_no_data(void)
{
	rig_run_shapes(6, co_chaos);
}

/* The pool cannot do without a disk that fails a write: the write is an error, parity is made right before anybody relies on
 * it, and in the end every sector is old or new. */
static void co_refused(void)
{
	unsigned victim = (unsigned)rng_below(&rig.rng, rig.shape->n_cols), failed = 0;
	struct sim_faults *f = sim_disk_faults(rig.ds, victim);

	for (uint64_t off = 0; off < SPACE_BYTES; off += 64 * KIB)
		write_ok(off, 64 * KIB, 0);
	rig.disk_error_result = -EIO;
	rig.flaw_free = false;
	for (unsigned i = 0; i < 60; i++) {
		uint64_t off = rng_below(&rig.rng, GROUP_BYTES / rig.block) * rig.block;

		f->write_error = 65536;
		failed += do_write(off, rig.block, IO_WRITE, 0) != 0;
		f->write_error = 0;
		off = rng_below(&rig.rng, GROUP_BYTES / rig.block) * rig.block;
		EXPECT(do_write(off, rig.block, IO_WRITE, 0) == 0);
	}
	EXPECT(failed > 0 && rig.n_syncs == 0);
	verify_all();
	EXPECT(model_flush() == 0);
	rig.disk_error_result = 0;
	expect_parity();
	verify_without();
}

static void refused_write_error_is_passed_on_and_parity_made_right(void)
{
	rig_run_shapes(3, co_refused);
}

/* An error that passes is not even noticed by the client where the pool cannot do without the disk. */
static void co_passing(void)
{
	struct sim_faults *f = sim_disk_faults(rig.ds, rig.shape->parity);

	random_ops(200);
	for (unsigned i = 0; i < rig.shape->parity; i++)
		pool_put_out(i);
	f->write_error = 65536 / 50;
	rig.flaw_free = false; /* some fail twice */
	random_ops(600);
	f->write_error = 0;
	verify_all();
	EXPECT(rig.n_disk_errors > 0 && !rig.out[rig.shape->parity]);
}

static void passing_write_error_in_a_degraded_group_harms_nobody_else(void)
{
	rig_run_shapes(3, co_passing);
}

/* A disk that answers late is read around. */
static void co_hang(void)
{
	struct raid_stats st;
	uint64_t start;

	write_ok(0, GROUP_BYTES, 0);
	sim_disk_faults(rig.ds, 1)->hang = true;
	start = world_now_ns(rig.w);
	for (uint64_t off = 0; off < GROUP_BYTES; off += 32 * KIB)
		EXPECT(do_read(off, 32 * KIB) == 0);
	EXPECT(world_now_ns(rig.w) - start < 3 * NS_PER_SEC);
	raid_stats_get(rig.raid, &st);
	EXPECT(st.hedged > 0 && rig.n_repaired == 0 && rig.n_disk_errors == 0);
	sim_disk_faults(rig.ds, 1)->hang = false;
	random_ops(300);
	while (!raid_disk_is_idle(rig.raid, 1))
		co_sleep_ns(NS_PER_MS);
	verify_all();
	verify_without();
}

static void late_disk_is_read_around(void)
{
	rig_run_shapes(2, co_hang);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(random_requests_read_back_with_any_columns_lost),
		TEST(overlapping_writes_leave_whole_sectors_and_right_parity),
		TEST(any_columns_that_may_be_lost_are_lost_and_return_stale),
		TEST(loss_of_too_many_is_an_error_exactly_there),
		TEST(stale_columns_serve_only_what_nobody_wrote_and_only_at_last),
		TEST(column_moves_to_a_new_place_under_load),
		TEST(target_that_fails_costs_nothing_but_the_rebuild),
		TEST(bad_sector_is_reconstructed_and_rewritten),
		TEST(columns_bad_in_different_rows_still_have_all_data),
		TEST(block_beyond_help_is_an_error_and_its_neighbours_are_not),
		TEST(repairs_under_load_undo_no_write),
		TEST(one_bad_disk_after_another_costs_no_data),
		TEST(refused_write_error_is_passed_on_and_parity_made_right),
		TEST(passing_write_error_in_a_degraded_group_harms_nobody_else),
		TEST(late_disk_is_read_around),
		CU_TEST_INFO_NULL,
	};

	return tests_run("parity groups", tests);
}
