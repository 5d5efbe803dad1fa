/*
 * What writes say of themselves, and whole clusters that are written elsewhere instead of over what they hold.
 */
#include "tests/unit/thin__script.h"

/* ---- what writes say of themselves ---- */

static struct thin_flags_sum sum_before;

static bool said(uint64_t fresh, uint64_t overwrite, uint64_t neither)
{
	struct thin_flags_sum s = thin_flags_sum(rig.flags), b = sum_before;

	sum_before = s;
	return s.fresh - b.fresh == fresh && s.overwrite - b.overwrite == overwrite && s.neither - b.neither == neither;
}

static int hints_co(void *arg)
{
	co_begin(64 * MIB, 0);
	sum_before = thin_flags_sum(rig.flags);
	EXPECT(co_fill(bd, 4096, 4096, 1, 0) == 0 && said(1, 0, 0));
	EXPECT(co_fill(bd, 4096, 4096, 2, 0) == 0 && said(0, 1, 0));
	EXPECT(co_fill(bd, 4096 + 512, 512, 2, 0) == 0 && said(0, 1, 0));
	EXPECT(bdev_co_flush(bd) == 0);
	EXPECT(co_fill(bd, 8192, 4096, 1, 0) == 0 && said(1, 0, 0));
	EXPECT(co_fill(bd, 12288, 512, 1, 0) == 0 && said(1, 0, 0)); /* written whole */
	EXPECT(co_fill(bd, 12288, 8192, 1, 0) == 0 && said(0, 0, 1)); /* one of each kind */
	EXPECT(co_fill(bd, 16384, 4096, 1, IO_FUA) == 0 && said(0, 1, 0));
	EXPECT(bdev_co_discard(bd, 8192, 4096, 0) == 0);
	EXPECT(co_fill(bd, 32768, 4096, 1, 0) == 0 && said(0, 0, 1)); /* the discard may be lost, it is not known whose */
	EXPECT(co_fill(bd, 8192, 4096, 1, 0) == 0 && said(0, 0, 1));
	EXPECT(co_fill(bd, 65536, 4096, 1, 0) == 0 && said(1, 0, 0)); /* a new cluster is fresh all the same */
	EXPECT(bdev_co_discard(bd, 8192, 4096, 0) == 0 && bdev_co_flush(bd) == 0);
	EXPECT(co_fill(bd, 8192, 4096, 1, 0) == 0 && said(1, 0, 0));
	EXPECT(bdev_co_zero(bd, 8192, 4096, IO_NO_HOLE) == 0 && said(0, 1, 0));
	EXPECT(bdev_co_zero(bd, 131072, 65536, IO_NO_HOLE) == 0 && said(1, 0, 0));
	EXPECT(bdev_co_zero(bd, 131072 + 512, 512, 0) == 0 && said(0, 1, 0));
	return co_end();
}

static void writes_say_what_they_know(void)
{
	struct thin_rig_conf c = conf_of(9);

	c.cluster_bytes = 64 * KIB;
	script_conf(&c, hints_co);
	c.redirect = true; /* no write here covers a cluster that holds something */
	script_conf(&c, hints_co);
}

/* ---- redirected writes ---- */

static void script_redirect(unsigned n_groups, int (*fn)(void *arg))
{
	struct thin_rig_conf c = conf_of(11);

	c.cluster_bytes = 64 * KIB;
	c.n_groups = n_groups;
	c.redirect = true;
	script_conf(&c, fn);
}

static uint64_t redirected(void)
{
	struct thin_volume_stats st;

	thin_volume_stats_get(vol->open, &st);
	return st.redirected;
}

static int redirect_co(void *arg)
{
	unsigned writes;

	co_begin(64 * MIB, 0);
	EXPECT(co_fill(bd, 0, MIB, 1, 0) == 0 && rig.n_writes == 1 && redirected() == 0);
	sum_before = thin_flags_sum(rig.flags);
	writes = rig.n_writes;
	EXPECT(co_fill(bd, 128 * KIB, 512 * KIB, 2, 0) == 0 && redirected() == 8);
	EXPECT(rig.n_writes == writes + 1 && said(1, 0, 0)); /* neighbours, fresh */
	EXPECT(co_is(bd, 0, 128 * KIB, 1) && co_is(bd, 128 * KIB, 512 * KIB, 2) && co_is(bd, 640 * KIB, 384 * KIB, 1));
	EXPECT(co_fill(bd, 512, 128 * KIB, 3, 0) == 0 && redirected() == 9 && said(1, 2, 0)); /* head and tail in place */
	EXPECT(co_is(bd, 0, 512, 1) && co_is(bd, 512, 128 * KIB, 3) && co_is(bd, 128 * KIB + 512, 511 * KIB, 2));
	EXPECT(co_fill(bd, 0, 60 * KIB, 4, 0) == 0 && redirected() == 9 && said(0, 1, 0));
	EXPECT(co_fill(bd, 2 * MIB, 4096, 5, 0) == 0 && said(1, 0, 0));
	EXPECT(co_fill(bd, 2 * MIB - 64 * KIB, 192 * KIB, 6, 0) == 0 && redirected() == 10 && said(1, 0, 0));
	EXPECT(co_is(bd, 2 * MIB - 64 * KIB, 192 * KIB, 6));
	EXPECT(bdev_co_zero(bd, 2 * MIB, 64 * KIB, IO_NO_HOLE) == 0 && redirected() == 11 && co_is(bd, 2 * MIB, 64 * KIB, 0));
	EXPECT(bdev_co_flush(bd) == 0 && thin_rig_co_check(&rig) == 0);
	EXPECT(vol->used_clusters == 19 && vol->valid_subs == 19 * 16);
	return co_end();
}

static void whole_clusters_are_written_elsewhere(void)
{
	script_redirect(64, redirect_co);
}

static int redirect_error_co(void *arg)
{
	uint64_t off = MIB;
	struct later w;

	co_begin(64 * MIB, 0);
	EXPECT(co_fill(bd, 0, MIB, 1, 0) == 0 && bdev_co_flush(bd) == 0);
	rig.fail_writes = true;
	later_start(&w, IO_WRITE, 64 * KIB, 2 * MIB, 2);
	thin_rig_release_writes(&rig);
	rig.fail_writes = false;
	EXPECT(later_co_wait(&w) == -EIO && redirected() == 0);
	EXPECT(co_is(bd, 0, MIB, 1) && co_is(bd, MIB, 2 * MIB, 0));
	EXPECT(co_fill(bd, 0, 64 * KIB, 3, 0) == 0 && redirected() == 1 && co_is(bd, 0, 64 * KIB, 3));
	while (co_fill(bd, off, 64 * KIB, 4, 0) == 0)
		off += 64 * KIB;
	EXPECT(off == 12 * MIB); /* what had been leased for it has come back */
	return co_end();
}

static void a_failed_redirect_leaves_the_old_data(void)
{
	script_redirect(8, redirect_error_co);
}

static int redirect_inflight_co(void *arg)
{
	struct later rd, w, old;
	uint64_t off = 0;

	co_begin(64 * MIB, 0);
	EXPECT(co_fill(bd, 0, 128 * KIB, 1, 0) == 0 && bdev_co_flush(bd) == 0);
	EXPECT(thin_rig_co_create(&rig, "v2", 64 * MIB, 0, &vol2) == 0 && thin_rig_co_attach(&rig, vol2) == 0);
	rig.hold_reads = rig.hold_writes = true;
	later_start(&rd, IO_READ, 0, 64 * KIB, 1);
	later_start(&old, IO_WRITE, 68 * KIB, 4096, 2); /* on its way to the old cluster */
	EXPECT(thin_rig_n_held(&rig) == 2);
	rig.hold_reads = rig.hold_writes = false;
	later_start(&w, IO_WRITE, 0, 128 * KIB, 3);
	EXPECT(later_co_wait(&w) == 0 && redirected() == 2 && bdev_co_flush(bd) == 0);
	while (co_fill(thin_volume_bdev(vol2->open), off, 64 * KIB, 4, 0) == 0)
		off += 64 * KIB;
	thin_rig_release_writes(&rig);
	EXPECT(later_co_wait(&rd) == 0 && later_co_wait(&old) == 0);
	EXPECT(co_is(bd, 0, 128 * KIB, 3));
	while (off)
		EXPECT(co_is(thin_volume_bdev(vol2->open), off -= 64 * KIB, 64 * KIB, 4));
	co_sleep_ns(2 * NS_PER_SEC);
	EXPECT(co_fill(bd, MIB, 128 * KIB, 5, 0) == 0); /* the old clusters are there for others now */
	thin_rig_co_detach(&rig, vol2);
	return co_end();
}

static void what_is_redirected_stays_for_those_in_flight(void)
{
	script_redirect(8, redirect_inflight_co);
}

static int redirect_full_co(void *arg)
{
	struct thin_volume_stats st;
	uint64_t used = 0, before, off;
	int r;

	co_begin(64 * MIB, 0);
	EXPECT(co_fill(bd, 0, 7 * MIB, 1, 0) == 0 && bdev_co_flush(bd) == 0);
	EXPECT(co_fill(bd, 0, 4 * MIB, 2, 0) == 0 && redirected() == 64);
	/* 5 of 12 MiB are free, and 4 of them wait for a commit that nobody has asked for. */
	EXPECT(co_fill(bd, 7 * MIB, 4 * MIB, 3, 0) == 0);
	EXPECT(co_is(bd, 0, 4 * MIB, 2) && co_is(bd, 4 * MIB, 3 * MIB, 1) && co_is(bd, 7 * MIB, 4 * MIB, 3));
	for (used = 11 * MIB, r = 0; r == 0; used += 64 * KIB)
		r = co_fill(bd, used, 64 * KIB, 4, 0);
	EXPECT(r == -ERR_POOL_FULL && used == 12 * MIB + 64 * KIB);
	thin_volume_set_full_wait(vol->open, UINT64_MAX);
	before = redirected();
	sum_before = thin_flags_sum(rig.flags);
	EXPECT(co_fill(bd, 0, MIB, 5, 0) == 0 && said(0, 1, 0)); /* in place: nothing waits */
	for (off = MIB; off < 3 * MIB; off += 64 * KIB)
		EXPECT(co_fill(bd, off, 64 * KIB, 5, off % MIB ? 0 : IO_FUA) == 0);
	thin_volume_stats_get(vol->open, &st);
	EXPECT(redirected() == before && st.parked == 0 && co_is(bd, 0, 3 * MIB, 5));
	EXPECT(bdev_co_discard(bd, 4 * MIB, 4 * MIB, 0) == 0 && bdev_co_flush(bd) == 0);
	co_sleep_ns(NS_PER_SEC);
	EXPECT(co_fill(bd, 0, MIB, 6, 0) == 0 && redirected() == before + 16); /* and there is room again */
	return co_end();
}

static void redirecting_never_waits_for_space_nor_takes_it_away(void)
{
	script_redirect(8, redirect_full_co);
}

/* Every second cluster of three groups is free. */
static int scattered_co(void *arg)
{
	uint64_t off, before, groups;

	co_begin(64 * MIB, 0);
	EXPECT(co_fill(bd, 0, 11 * MIB, 1, 0) == 0 && co_fill(bd, 11 * MIB, MIB, 1, 0) == 0);
	for (off = 0; off < 12 * MIB; off += 128 * KIB)
		EXPECT(bdev_co_discard(bd, off, 64 * KIB, 0) == 0);
	EXPECT(bdev_co_flush(bd) == 0);
	co_sleep_ns(NS_PER_SEC);
	before = redirected();
	groups = rig.next_group;
	EXPECT(co_fill(bd, 64 * KIB, 64 * KIB, 2, 0) == 0 && redirected() == before); /* it lies well where it is */
	EXPECT(co_fill(bd, 0, 2 * MIB, 3, 0) == 0 && redirected() == before && co_is(bd, 0, 2 * MIB, 3));
	EXPECT(rig.next_group == groups); /* it is no reason for a further group */
	return co_end();
}

static void scattered_space_is_left_to_those_who_need_it(void)
{
	script_redirect(64, scattered_co);
}

static int redirect_co_lose(void *arg)
{
	struct later w;

	co_begin(64 * MIB, 0);
	EXPECT(co_fill(bd, 0, 4 * MIB, 1, 0) == 0 && bdev_co_flush(bd) == 0);
	EXPECT(co_fill(bd, 0, MIB, 2, IO_FUA) == 0);
	EXPECT(co_fill(bd, MIB, MIB, 3, 0) == 0);
	rig.hold_writes = true;
	later_start(&w, IO_WRITE, 2 * MIB, MIB, 4);
	EXPECT(redirected() == 32 && !w.done);
	return 0;
}

static int redirect_co_find(void *arg)
{
	EXPECT(thin_rig_co_open(&rig) == 0);
	vol = thin_vol_find(rig.thin, "v");
	EXPECT(thin_rig_co_attach(&rig, vol) == 0);
	bd = thin_volume_bdev(vol->open);
	EXPECT(co_is(bd, 0, MIB, 2) && co_is(bd, MIB, 3 * MIB, 1));
	return co_end();
}

static void a_power_cut_brings_back_what_was_redirected(void)
{
	struct thin_rig_conf c = conf_of(3);

	c.cluster_bytes = 64 * KIB;
	c.redirect = true;
	thin_rig_init(&rig, &c);
	EXPECT(thin_rig_run(&rig, redirect_co_lose, NULL) == 0);
	thin_rig_crash(&rig, SIM_CUT_ALL); /* fresh writes are junk all the same */
	EXPECT(thin_rig_run(&rig, redirect_co_find, NULL) == 0);
	EXPECT(thin_flags_sum(rig.flags).problems == 0);
	thin_rig_fini(&rig);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(writes_say_what_they_know),
		TEST(whole_clusters_are_written_elsewhere),
		TEST(a_failed_redirect_leaves_the_old_data),
		TEST(what_is_redirected_stays_for_those_in_flight),
		TEST(redirecting_never_waits_for_space_nor_takes_it_away),
		TEST(scattered_space_is_left_to_those_who_need_it),
		TEST(a_power_cut_brings_back_what_was_redirected),
		CU_TEST_INFO_NULL,
	};

	return tests_run("thin redirect", tests);
}
