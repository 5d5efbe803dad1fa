/*
 * Disks that somebody overwrites with zeros beside us.
 */
#include "tests/unit/raid_rig.h"
#include "tests/unit/unit.h"

static unsigned n_verifies[DISKS];
static bool label_gone[DISKS];
static uint64_t verify_takes_ns[DISKS];

static int hook_verify(void *ctx, unsigned disk)
{
	n_verifies[disk]++;
	if (verify_takes_ns[disk])
		co_sleep_ns(verify_takes_ns[disk]);
	else
		hook_sleep();
	if (!label_gone[disk])
		return 0;
	if (!rig.out[disk])
		pool_put_out(disk);
	return -ENODEV;
}

static void run(uint64_t s, const struct shape *shape, void (*co_body)(void))
{
	memset(n_verifies, 0, sizeof(n_verifies));
	memset(label_gone, 0, sizeof(label_gone));
	memset(verify_takes_ns, 0, sizeof(verify_takes_ns));
	rig_run(s, shape, co_body);
}

static void run_redundant(unsigned seeds, void (*co_body)(void))
{
	for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
		for (uint64_t s = 1; s <= seeds; s++)
			if (shapes[i].copies > 1)
				run(s, &shapes[i], co_body);
}

static uint64_t now(void)
{
	return world_now_ns(rig.w);
}

static bool is_all(const uint8_t *p, uint64_t len, uint8_t byte)
{
	return p[0] == byte && !memcmp(p, p + 1, len - 1);
}

static void expect_no_harm(void)
{
	EXPECT(rig.n_repaired == 0 && rig.n_unrepaired == 0 && rig.n_disk_errors == 0);
}

static unsigned sum_verifies(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < DISKS; i++)
		n += n_verifies[i];
	return n;
}

static void co_zeros(void)
{
	struct asked a[32];
	uint64_t t;

	EXPECT(fill(0, GROUP_BYTES, 7, 0) == 0);
	EXPECT(verify(0, 64 * KIB, 0) == 0 && verify(5 * BLOCK, BLOCK, 0) == 0);
	EXPECT(sum_verifies() == 0);
	EXPECT(fill(11 * BLOCK, BLOCK, 0, 0) == 0);
	EXPECT(verify(11 * BLOCK, BLOCK, 0) == 0);
	EXPECT(sum_verifies() == 1);
	EXPECT(verify(0, 64 * KIB, 0) == 0); /* one block of many */
	EXPECT(sum_verifies() == 2);
	EXPECT(verify(12 * BLOCK, 64 * KIB, 0) == 0);
	EXPECT(sum_verifies() == 2);
	EXPECT(bdev_co_zero(rig.b, GROUP_BYTES, GROUP_BYTES, 0) == 0);
	rig.hook_ns = 0;
	t = now();
	for (unsigned round = 0; round < 50; round++) {
		for (unsigned i = 0; i < 32; i++)
			ask(&a[i], IO_READ, GROUP_BYTES + i * 2 * BLOCK, BLOCK, 0);
		for (unsigned i = 0; i < 32; i++) {
			while (!a[i].done)
				co_sleep_ns(10 * NS_PER_US);
			EXPECT(is_all(a[i].buf, BLOCK, 0));
			EXPECT(asked_wait(&a[i]) == 0);
		}
	}
	for (unsigned i = 0; i < rig.shape->n_cols; i++)
		EXPECT(n_verifies[i] <= (now() - t) / (100 * NS_PER_US) + 3);
	EXPECT(sum_verifies() <= 50 * 32 / 2);
	EXPECT(now() - t < 50 * NS_PER_MS); /* nobody feels it */
	expect_no_harm();
}

static void zeros_are_handed_out_where_the_label_is_in_place(void)
{
	run_redundant(2, co_zeros);
}

/* Somebody zeroes all of a disk. */
static void co_overwrite(unsigned disk)
{
	void *zeros = buf_alloc_zero(MIB);

	for (uint64_t off = 0; off < DISK_BYTES; off += MIB)
		sim_disk_poke(rig.ds, disk, off, zeros, MIB);
	buf_free(zeros, MIB);
	label_gone[disk] = true;
}

static void co_overwritten(void)
{
	struct asked a[16];

	random_ops(100);
	EXPECT(fill(0, GROUP_BYTES, 7, 0) == 0);
	co_overwrite(0);
	for (unsigned i = 0; i < 16; i++)
		ask(&a[i], IO_READ, i * STRIP_BYTES, i % 2 ? BLOCK : STRIP_BYTES, 0);
	for (unsigned i = 0; i < 16; i++) {
		while (!a[i].done)
			co_sleep_ns(10 * NS_PER_US);
		EXPECT(is_all(a[i].buf, a[i].io.len_bytes, 7));
		EXPECT(asked_wait(&a[i]) == 0);
	}
	EXPECT(rig.out[0] && n_verifies[0] >= 1);
	EXPECT(rig.n_repaired == 0 && rig.n_unrepaired == 0);
	verify_all();
}

static void zeros_of_an_overwritten_disk_are_answered_from_another_copy(void)
{
	run_redundant(4, co_overwritten);
}

static void co_resync_overwritten(void)
{
	uint64_t copied;

	EXPECT(fill(0, GROUP_BYTES, 7, 0) == 0);
	co_overwrite(0);
	EXPECT(raid_co_resync_range(rig.raid, 0, 0, GROUP_BYTES, &copied) == 0);
	EXPECT(rig.out[0]);
	EXPECT(verify(0, GROUP_BYTES, 0) == 0);
}

static void resync_does_not_spread_the_zeros_of_an_overwritten_disk(void)
{
	run_redundant(2, co_resync_overwritten);
}

static void co_verify_slow(void)
{
	uint64_t t, longest = 0;

	EXPECT(fill(0, GROUP_BYTES, 0, 0) == 0);
	verify_takes_ns[0] = 10 * NS_PER_SEC;
	for (unsigned i = 0; i < 8; i++) {
		t = now();
		EXPECT(verify(i * STRIP_BYTES, BLOCK, 0) == 0);
		longest = MAX(longest, now() - t);
	}
	EXPECT(n_verifies[0] == 1);
	EXPECT(longest >= 100 * NS_PER_MS && longest < 200 * NS_PER_MS); /* then from another copy */
	t = now();
	raid_co_drain(rig.raid);
	EXPECT(now() - t > 5 * NS_PER_SEC);
	expect_no_harm();
}

static void reads_go_elsewhere_when_the_pool_takes_long_to_look(void)
{
	run(1, RAID1, co_verify_slow);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(zeros_are_handed_out_where_the_label_is_in_place),
		TEST(zeros_of_an_overwritten_disk_are_answered_from_another_copy),
		TEST(resync_does_not_spread_the_zeros_of_an_overwritten_disk),
		TEST(reads_go_elsewhere_when_the_pool_takes_long_to_look),
		CU_TEST_INFO_NULL,
	};

	rig_hooks.co_disk_verify = hook_verify;
	return tests_run("raid zeros", tests);
}
