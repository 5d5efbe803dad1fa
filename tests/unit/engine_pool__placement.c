/* Where parity groups go: capacity on mixed sizes against the best that can be, no disk twice, balance. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/rng.h"
#include "engine/base/units.h"
#include "engine/pool/placement.h"
#include "tests/unit/unit.h"

#define GROUP (64 * MIB)
#define EXTENT (256 * KIB)
#define STRIP (64 * KIB)

static struct placement pl;
static uint64_t used[LABEL_DISKS_MAX], n_wide[RAID_COLS_MAX + 1];

static void begin(const char *layout, unsigned n, const uint64_t *size)
{
	struct raid_profile prof;
	unsigned i;

	if (raid_profile_parse(layout, &prof) < 0)
		abort();
	placement_init(&pl, prof, n, GROUP, STRIP, EXTENT);
	for (i = 0; i < n; i++)
		pl.disks[i] = (struct placement_disk){ size[i], size[i], true };
	memset(used, 0, sizeof(used));
	memset(n_wide, 0, sizeof(n_wide));
}

/* One more group: false if none fits. */
static bool make_group(void)
{
	unsigned widths[RAID_COLS_MAX], disks[RAID_COLS_MAX], away = 0, i, k;

	if (!placement_widths(&pl, widths))
		return false;
	placement_choose(&pl, widths[0], disks);
	for (i = 0; i < widths[0]; i++) {
		for (k = 0; k < i; k++)
			CU_ASSERT_NOT_EQUAL(disks[k], disks[i]);
		CU_ASSERT(pl.disks[disks[i]].free >= pl.col_extents[widths[0]]);
		pl.disks[disks[i]].free -= pl.col_extents[widths[0]];
		used[disks[i]] += pl.col_extents[widths[0]];
		away += !pl.disks[disks[i]].online;
	}
	CU_ASSERT(away <= pl.away_max);
	n_wide[widths[0]]++;
	return true;
}

static uint64_t fill(void)
{
	uint64_t n = 0;

	while (make_group())
		n++;
	return n;
}

/* Disks that still have room for a column of the least width. */
static unsigned with_room(void)
{
	unsigned i, n = 0;

	for (i = 0; i < pl.n_disks; i++)
		n += pl.disks[i].free >= pl.col_extents[pl.min_cols];
	return n;
}

static void equal_disks_are_used_as_wide_as_can_be(void)
{
	uint64_t size[12], n;
	unsigned i;

	for (i = 0; i < 12; i++)
		size[i] = 4096;
	begin("raid5", 5, size);
	CU_ASSERT_EQUAL(placement_capacity(&pl), 64); /* columns of 64 extents */
	CU_ASSERT_EQUAL(fill(), 64);
	CU_ASSERT_EQUAL(n_wide[5], 64);
	begin("raid6", 12, size);
	n = placement_capacity(&pl);
	CU_ASSERT_EQUAL(fill(), n);
	CU_ASSERT_EQUAL(n_wide[10], n);
	CU_ASSERT(n >= 12 * 4096 / 320 - 2);
}

static void disks_of_1_1_2_4_hold_four_in_raid5(void)
{
	static const uint64_t size[] = { 4096, 4096, 8192, 16384 };
	uint64_t n;

	begin("raid5", 4, size);
	n = placement_capacity(&pl);
	CU_ASSERT(n >= 62 && n <= 64); /* two data columns of 8192 extents, 256 to a group */
	CU_ASSERT(fill() >= n);
	CU_ASSERT(with_room() < 3);
	CU_ASSERT(used[0] + used[1] > 8192 - 300 && used[2] > 8192 - 300);
}

static void a_small_disk_beside_large_ones_is_used_too(void)
{
	static const uint64_t size[] = { 16384, 16384, 4096, 16384 };
	uint64_t n;

	begin("raid5", 4, size);
	n = placement_capacity(&pl);
	CU_ASSERT(n >= 141 && n <= 144); /* 4096 of four disks, 12288 of three: 3 * 16 + 2 * 48 */
	CU_ASSERT(fill() + 2 >= n);
	CU_ASSERT(used[2] > 4000);
	begin("raid6", 4, size);
	CU_ASSERT_EQUAL(fill(), 32); /* all four in each */
}

/* Whatever the sizes: never stuck while enough disks have room, and about as many groups as promised. */
static void random_sizes_are_filled(void)
{
	struct rng rng;
	unsigned round, i;

	rng_init(&rng, 4711);
	for (round = 0; round < 300; round++) {
		bool six = rng_below(&rng, 2);
		unsigned n = (six ? 4 : 3) + (unsigned)rng_below(&rng, 10);
		uint64_t size[LABEL_DISKS_MAX], promised, made;

		for (i = 0; i < n; i++)
			size[i] = 512 + rng_below(&rng, rng_below(&rng, 3) ? 4096 : 20000);
		begin(six ? "raid6" : "raid5", n, size);
		promised = placement_capacity(&pl);
		made = fill();
		if (made + 2 < promised || with_room() >= pl.min_cols)
			printf("\n  round %u: %u disks, %llu of %llu groups", round, n, (unsigned long long)made,
			       (unsigned long long)promised);
		CU_ASSERT(made + 2 >= promised);
		CU_ASSERT(with_room() < pl.min_cols);
	}
}

static void equal_shares_are_filled_evenly(void)
{
	uint64_t size[7];
	unsigned i;

	for (i = 0; i < 7; i++)
		size[i] = i < 4 ? 16384 : 8192;
	begin("raid5", 7, size);
	for (i = 0; i < 40; i++)
		CU_ASSERT(make_group());
	for (i = 0; i < 3; i++)
		CU_ASSERT(used[i] + 100 > used[i + 1] && used[i + 1] + 100 > used[i]);
	begin("raid6", 7, size);
	pl.max_cols = 4; /* fewer columns than disks */
	for (i = 0; i < 70; i++)
		CU_ASSERT(make_group());
	for (i = 0; i < 7; i++) { /* all about equally full, as a share */
		double share = (double)used[i] / (double)size[i], all = 70.0 * 4 * (double)pl.col_extents[4] / (4 * 16384 + 3 * 8192);

		CU_ASSERT(share > all - 0.02 && share < all + 0.02);
	}
}

static void columns_on_disks_that_are_away_are_few(void)
{
	uint64_t size[6];
	unsigned i, widths[RAID_COLS_MAX], disks[RAID_COLS_MAX];

	for (i = 0; i < 6; i++)
		size[i] = 2048;
	begin("raid5", 3, size);
	pl.disks[0].online = false;
	CU_ASSERT_EQUAL(placement_widths(&pl, widths), 0);
	pl.away_max = 1;
	CU_ASSERT_EQUAL(placement_widths(&pl, widths), 1);
	placement_choose(&pl, 3, disks);
	CU_ASSERT(disks[0] != 0 && disks[1] != 0 && disks[2] == 0); /* those that are there first */
	CU_ASSERT(fill() > 10);
	begin("raid6", 6, size);
	for (i = 0; i < 3; i++)
		pl.disks[i].online = false;
	pl.away_max = 2;
	CU_ASSERT(placement_widths(&pl, widths) > 0);
	CU_ASSERT_EQUAL(widths[0], 5); /* three there, two away */
	CU_ASSERT(fill() > 10);
	begin("raid6", 4, size);
	for (i = 0; i < 3; i++)
		pl.disks[i].online = false;
	pl.away_max = 2;
	CU_ASSERT_EQUAL(placement_widths(&pl, widths), 0);
}

static void too_few_disks_are_no_place(void)
{
	uint64_t size[] = { 4096, 4096, 10, 4096 };
	unsigned widths[RAID_COLS_MAX];

	begin("raid5", 2, size);
	CU_ASSERT_EQUAL(placement_widths(&pl, widths), 0);
	CU_ASSERT_EQUAL(placement_capacity(&pl), 0);
	begin("raid5", 3, size);
	CU_ASSERT_EQUAL(placement_widths(&pl, widths), 0);
	CU_ASSERT_EQUAL(placement_capacity(&pl), 0);
	begin("raid5", 4, size);
	CU_ASSERT_EQUAL(placement_widths(&pl, widths), 1);
	CU_ASSERT_EQUAL(widths[0], 3);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(equal_disks_are_used_as_wide_as_can_be),
		TEST(disks_of_1_1_2_4_hold_four_in_raid5),
		TEST(a_small_disk_beside_large_ones_is_used_too),
		TEST(random_sizes_are_filled),
		TEST(equal_shares_are_filled_evenly),
		TEST(columns_on_disks_that_are_away_are_few),
		TEST(too_few_disks_are_no_place),
		CU_TEST_INFO_NULL,
	};

	return tests_run("placement", tests);
}
