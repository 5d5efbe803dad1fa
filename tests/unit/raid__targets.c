/*
 * A column's new place: filled while clients write, then switched to; and scrubbing, which tells who is wrong. Then several
 * instances, of which one is a group's home.
 */
#include "tests/unit/raid_rig.h"
#include "tests/unit/unit.h"

#define SPARE (DISKS - 1)

static struct raid_group_info with_target(unsigned group, unsigned col)
{
	struct raid_group_info info = rig.info[group];

	info.homed = true;
	info.has_target = true;
	info.target_col = (uint8_t)col;
	info.target = (struct raid_col){ .disk = SPARE, .off_bytes = MIB + group * info.desc.col_bytes };
	return info;
}

static void switch_to_target(unsigned group, unsigned col)
{
	struct raid_group_info *info = &rig.info[group];

	EXPECT(raid_target_commit(rig.raid, group) == 0);
	info->desc.cols[col] = (struct raid_col){ .disk = SPARE, .off_bytes = MIB + group * info->desc.col_bytes };
	raid_co_group_replace(rig.raid, info);
}

static void co_moves_under_load(void)
{
	unsigned col = (unsigned)rng_below(&rig.rng, rig.shape->n_cols);
	struct workers ws = { 0 };
	uint64_t copied;

	set_state(SPARE, RAID_DISK_ONLINE);
	random_ops(200);
	if (rng_chance(&rig.rng, 1, 2) && is_redundant())
		pool_put_out(col);
	workers_start(&ws, 600);
	for (unsigned g = 0; g < GROUPS; g++) {
		struct raid_group_info info = with_target(g, col);

		raid_co_group_replace(rig.raid, &info);
		EXPECT(raid_co_rebuild_range(rig.raid, g, 0, GROUP_BYTES, &copied) == 0);
		EXPECT(copied == rig.info[g].desc.col_bytes || copied >= GROUP_BYTES / (rig.shape->n_cols / rig.shape->copies) - STRIP_BYTES);
		switch_to_target(g, col);
	}
	workers_wait(&ws);
	/* now nothing but the new place, where there is redundancy */
	for (unsigned i = 0; i < rig.shape->n_cols && is_redundant(); i++)
		if (i / rig.shape->copies == col / rig.shape->copies)
			set_state(i, RAID_DISK_ABSENT);
	set_state(SPARE, RAID_DISK_ONLINE);
	if (!is_redundant())
		set_state(col, RAID_DISK_ABSENT);
	verify_all();
}

static void filled_target_holds_every_write(void)
{
	rig_run_shapes(6, false, co_moves_under_load);
}

/* The disk that is left is slow, and another copy silently wrong. */
static void co_slow_source(void)
{
	struct raid_group_info info = with_target(0, 0);
	const struct raid_col *c = info.desc.cols;
	uint8_t *want = malloc(GROUP_BYTES), *got = malloc(GROUP_BYTES);
	uint64_t off = MIB / 2 + 4 * BLOCK, before;
	struct asked a;

	info.checksummed = seed % 2;
	set_state(SPARE, RAID_DISK_ONLINE);
	EXPECT(fill(0, GROUP_BYTES, 5, IO_FUA) == 0);
	sim_disk_peek(rig.ds, c[0].disk, c[0].off_bytes, want, GROUP_BYTES);
	sim_disk_poke(rig.ds, c[1].disk, c[1].off_bytes + off, (const uint8_t[]){ want[off] ^ 1 }, 1);
	sim_disk_faults(rig.ds, 0)->stall = 65536;
	sim_disk_faults(rig.ds, 0)->stall_ns = 300 * NS_PER_MS;
	before = sim_disk_n_ops(rig.ds, 0, IO_READ);
	raid_co_group_replace(rig.raid, &info);
	EXPECT(raid_co_rebuild_range(rig.raid, 0, 0, GROUP_BYTES, NULL) == 0);
	before = sim_disk_n_ops(rig.ds, 0, IO_READ) - before;
	ask(&a, IO_FLUSH, 0, 0, 0);
	EXPECT(asked_wait(&a) == 0);
	sim_disk_peek(rig.ds, SPARE, info.target.off_bytes, got, GROUP_BYTES);
	EXPECT(before == (info.checksummed ? 4 : 1));
	EXPECT((memcmp(got, want, GROUP_BYTES) == 0) == info.checksummed);
	sim_disk_faults(rig.ds, 0)->stall = 0;
	raid_co_group_replace(rig.raid, &rig.info[0]);
	while (!raid_disk_is_idle(rig.raid, 0)) /* what was given up */
		co_sleep_ns(10 * NS_PER_MS);
	free(want);
	free(got);
}

static void copy_that_moves_is_read_itself_where_somebody_can_tell(void)
{
	for (uint64_t s = 1; s <= 4; s++)
		rig_run(s, RAID1, co_slow_source);
}

static void co_bad_target(void)
{
	struct raid_group_info info = with_target(0, 0);

	set_state(SPARE, RAID_DISK_ONLINE);
	EXPECT(fill(0, GROUP_BYTES, 3, 0) == 0);
	raid_co_group_replace(rig.raid, &info);
	rig.disk_error_result = -EBUSY; /* the pool cannot do without that disk */
	sim_disk_faults(rig.ds, SPARE)->write_error = 65536;
	EXPECT(fill(0, 64 * KIB, 4, 0) == 0);
	EXPECT(raid_co_rebuild_range(rig.raid, 0, 0, GROUP_BYTES, NULL) < 0);
	EXPECT(raid_target_commit(rig.raid, 0) < 0);
	raid_co_group_replace(rig.raid, &rig.info[0]);
	EXPECT(verify(0, GROUP_BYTES, 0) == 0);
}

static void target_that_misses_a_write_is_given_up_and_the_write_is_good(void)
{
	rig_run_shapes(2, false, co_bad_target);
}

static void co_unreadable_source(void)
{
	struct raid_group_info info = with_target(0, 0);
	uint64_t bad = 2 * STRIP_BYTES * (rig.shape->n_cols / rig.shape->copies); /* begins strip 2 of column 0 */

	set_state(SPARE, RAID_DISK_ONLINE);
	EXPECT(fill(0, GROUP_BYTES, 3, 0) == 0);
	EXPECT(bdev_co_flush(rig.b) == 0);
	for (unsigned i = 1; i < rig.shape->copies; i++)
		sim_disk_bad_range(rig.ds, i, rig.info[0].desc.cols[i].off_bytes + 2 * STRIP_BYTES, BLOCK);
	pool_put_out(0);
	raid_co_group_replace(rig.raid, &info);
	EXPECT(raid_co_rebuild_range(rig.raid, 0, 0, GROUP_BYTES, NULL) == -EIO);
	raid_co_group_replace(rig.raid, &rig.info[0]);
	EXPECT(verify(bad, BLOCK, 0) == -EIO);
	EXPECT(verify(bad + BLOCK, BLOCK, 0) == 0);
}

static void block_that_no_copy_has_fails_the_rebuild_and_is_never_zeros(void)
{
	rig_run_shapes(1, true, co_unreadable_source);
}

/* ---- scrub ---- */

struct found {
	unsigned n;
	uint64_t off, len;
	int col;
};

static void found_bad(void *arg, uint64_t off, uint64_t len, int col)
{
	struct found *f = arg;

	f->n++;
	f->off = off;
	f->len = len;
	f->col = col;
}

static void co_scrub(void)
{
	uint8_t junk[BLOCK];
	struct found f = { 0 };
	struct raid_scrub s = { .bad = found_bad, .arg = &f };
	const struct raid_desc *d = &rig.info[1].desc;

	EXPECT(fill(GROUP_BYTES, GROUP_BYTES, 5, 0) == 0);
	EXPECT(bdev_co_flush(rig.b) == 0);
	EXPECT(raid_co_scrub_range(rig.raid, 1, 0, GROUP_BYTES, &s) == 0 && f.n == 0);
	sim_disk_bad_range(rig.ds, 1, d->cols[1].off_bytes + 3 * BLOCK, 2 * BLOCK);
	EXPECT(raid_co_scrub_range(rig.raid, 1, 0, GROUP_BYTES, &s) == 0 && f.n == 0);
	EXPECT(s.unreadable_bytes == 2 * BLOCK && s.repaired_bytes == 2 * BLOCK);
	EXPECT(raid_co_scrub_range(rig.raid, 1, 0, GROUP_BYTES, &s) == 0 && s.unreadable_bytes == 0);
	memset(junk, 0xee, sizeof(junk));
	sim_disk_poke(rig.ds, 1, d->cols[1].off_bytes + 2 * BLOCK, junk, sizeof(junk));
	EXPECT(raid_co_scrub_range(rig.raid, 1, 0, GROUP_BYTES, &s) == 0);
	EXPECT(f.n == 1 && f.off == 2 * BLOCK && f.len == BLOCK && f.col == (rig.shape->copies > 2 ? 1 : -1));
	EXPECT(raid_co_scrub_fix(rig.raid, 1, 0, GROUP_BYTES, false) == (rig.shape->copies > 2 ? 0 : -ENODATA));
	EXPECT(raid_co_scrub_fix(rig.raid, 1, 0, GROUP_BYTES, true) == 0);
	expect_equal_columns();
	if (rig.shape->copies > 2)
		EXPECT(verify(GROUP_BYTES, GROUP_BYTES, 0) == 0);
}

static void scrub_repairs_what_cannot_be_read_and_names_what_differs(void)
{
	rig_run_shapes(1, true, co_scrub);
}

/* ---- several instances ---- */

#define REACTORS 3

struct many {
	struct raid *raid[REACTORS];
	struct range_lock lock;
	unsigned running;
};
static struct many many;

static int many_open_here(void *arg)
{
	struct raid_conf c = { .group_bytes = GROUP_BYTES, .size_bytes = SPACE_BYTES, .block_bytes = BLOCK, .hooks = &rig_hooks };
	struct raid *r = raid_open(&c);

	many.raid[reactor_self()->index] = r;
	for (unsigned i = 0; i < DISKS; i++)
		raid_set_disk(r, i, rig.disk[i], RAID_DISK_ONLINE);
	return 0;
}

static int many_peers_here(void *arg)
{
	raid_set_peers(many.raid[reactor_self()->index], many.raid, REACTORS, REACTORS);
	return 0;
}

static int many_close_here(void *arg)
{
	raid_close(many.raid[reactor_self()->index]);
	return 0;
}

static void many_each(int (*fn)(void *arg), void *arg)
{
	for (unsigned i = 0; i < REACTORS; i++)
		EXPECT(reactor_co_call(rig.w->reactors[i], fn, arg) == 0);
}

static int many_replace_here(void *arg)
{
	raid_co_group_replace(many.raid[reactor_self()->index], arg);
	return 0;
}

/* Each reactor has blocks of its own, in the same stripes as the others'. */
static int many_worker_here(void *arg)
{
	unsigned me = reactor_self()->index;
	struct bdev *b = raid_bdev(many.raid[me]);
	uint8_t *buf = buf_alloc(BLOCK);

	for (unsigned i = 0; i < 120; i++) {
		uint64_t off = (rng_below(&rig.rng, SPACE_BYTES / BLOCK / REACTORS) * REACTORS + me) * BLOCK;

		if (rng_chance(&rig.rng, 1, 2)) {
			rng_fill(&rig.rng, buf, BLOCK);
			EXPECT(bdev_co_write(b, off, buf, BLOCK, 0) == 0);
			memcpy(rig.model + off, buf, BLOCK);
		} else {
			EXPECT(bdev_co_read(b, off, buf, BLOCK) == 0);
			EXPECT(!memcmp(buf, rig.model + off, BLOCK));
		}
	}
	buf_free(buf, BLOCK);
	return 0;
}

static void many_worker_co(void *arg)
{
	struct reactor *to = arg;

	EXPECT(reactor_co_call(to, many_worker_here, NULL) == 0);
	many.running--;
}

static int many_co_main(void *arg)
{
	struct raid_stats st;

	many_each(many_open_here, NULL);
	many_each(many_peers_here, NULL);
	rig.raid = many.raid[0];
	many.running = REACTORS;
	for (unsigned i = 0; i < REACTORS; i++)
		co_spawn(CO_SERVICE, many_worker_co, rig.w->reactors[i], "worker");
	for (unsigned g = 0; g < GROUPS; g++) {
		struct raid_group_info info = with_target(g, 0);
		unsigned home = raid_home(many.raid[0], g);
		struct raid_desc moved = info.desc;

		rig.info[g] = info;
		for (unsigned i = 1; i <= REACTORS; i++) /* the home last */
			EXPECT(reactor_co_call(rig.w->reactors[(home + i) % REACTORS], many_replace_here, &info) == 0);
		EXPECT(raid_co_rebuild_range(many.raid[0], g, 0, GROUP_BYTES, NULL) == 0);
		moved.cols[0] = info.target;
		rig.info[g] = (struct raid_group_info){ .desc = moved };
		for (unsigned i = 0; i < REACTORS; i++)
			EXPECT(reactor_co_call(rig.w->reactors[(home + i) % REACTORS], many_replace_here, &rig.info[g]) == 0);
	}
	while (many.running)
		co_sleep_ns(NS_PER_MS);
	rig.b = raid_bdev(many.raid[0]);
	verify_all();
	expect_equal_columns();
	raid_stats_get(many.raid[1], &st);
	EXPECT(st.forwarded > 0);
	many_each(many_close_here, NULL);
	return 0;
}

static void group_in_transition_is_written_by_its_home_alone(void)
{
	struct sim_disk_conf conf = { .size_bytes = DISK_BYTES, .block_bytes = BLOCK };
	char path[16];

	for (uint64_t s = 1; s <= 8; s++) {
		struct sim_options o = { .seed = s, .n_reactors = REACTORS };

		memset(&rig, 0, sizeof(rig));
		seed = s;
		rig.shape = &shapes[2 + s % 4];
		rng_init(&rig.rng, s);
		rig.model = calloc(1, SPACE_BYTES);
		rig.ds = sim_disks_create(s);
		for (unsigned i = 0; i < DISKS; i++) {
			snprintf(path, sizeof(path), "disk%u", i);
			sim_disks_add(rig.ds, path, &conf);
		}
		for (unsigned g = 0; g < GROUPS; g++)
			rig_describe(g);
		rig.w = sim_world_create(&o, rig.ds);
		for (unsigned i = 0; i < DISKS; i++) {
			snprintf(path, sizeof(path), "disk%u", i);
			EXPECT(disk_co_open(rig.w, path, 0, &rig.disk[i], NULL) == 0);
		}
		EXPECT(sim_run(rig.w, many_co_main, NULL, NULL, 0) == 0);
		sim_world_destroy(rig.w);
		sim_disks_destroy(rig.ds);
		free(rig.model);
	}
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(filled_target_holds_every_write),
		TEST(copy_that_moves_is_read_itself_where_somebody_can_tell),
		TEST(target_that_misses_a_write_is_given_up_and_the_write_is_good),
		TEST(block_that_no_copy_has_fails_the_rebuild_and_is_never_zeros),
		TEST(scrub_repairs_what_cannot_be_read_and_names_what_differs),
		TEST(group_in_transition_is_written_by_its_home_alone),
		CU_TEST_INFO_NULL,
	};

	return tests_run("raid targets", tests);
}
