/*
 * Parity groups that take another number of columns, because a disk leaves that all of them have a column on: while clients write, with
 * power cuts at every step, with disks that are lost.
 */
#include "tests/unit/engine_pool__disks_rig.h"
#include "tests/unit/unit.h"

static const char *const parity[] = { "raid5", "raid6" };

struct width {
	unsigned max, n;
};

static int width_group(void *arg, const struct pool_group_disk *rec)
{
	struct width *w = arg;

	if (rec->kind == THIN_GROUP_DATA && rec->layout != RAID_RAID1) {
		w->max = MAX(w->max, rec->n_cols);
		w->n++;
	}
	return 0;
}

/* The widest parity groups there are have so many columns. */
static void co_expect_width(struct hist *h, unsigned width)
{
	struct width w = { 0 };

	EXPECT(h, pool_co_table_settle(h->rig.p) == 0);
	EXPECT(h, pool_co_each_group(h->rig.p, width_group, &w) == 0);
	EXPECT(h, w.n && w.max == width);
}

/* ---- while clients write ---- */

static int co_narrower(struct hist *h)
{
	unsigned least = h->rig.layout[4] == '5' ? 3 : 4, n = h->rig.n_first, i;
	struct ashlar_relocation rel;
	struct err e;
	uint64_t job;

	co_more(h, "more", 2 * MIB);
	co_expect_width(h, n);
	for (i = 0; n > least; i++, n--) {
		EXPECT(h, co_call(h, REMOVE, i, 0, true, &rel, &e) == 0 && rel.copy_bytes > MIB && rel.redundancy == (int)least - 2);
		job = co_begin(h, REMOVE, i, 0);
		co_done_while_writing(h, job);
		EXPECT(h, rig_member(&h->rig, i) < 0);
		co_expect_width(h, n - 1);
		hist_co_look(h);
	}
	co_refused(h, -EINVAL, "needs", REMOVE, i, 0);
	return hist_co_look(h);
}

static void disks_leave_pools_whose_groups_are_as_wide_as_they_are(void)
{
	for (unsigned k = 0; k < 8; k++) {
		struct hist *h = begin(parity[k % 2], 5 + k / 4, 0, 24 * MIB);

		hist_live(h, co_narrower);
		hist_live(h, hist_co_look);
		hist_end(h);
	}
}

/* ---- power cuts ---- */

static int co_leave_crash(struct hist *h)
{
	uint64_t job = co_begin(h, REMOVE, 1, 0);

	co_random_writes(h, 6);
	co_done(h, job);
	co_random_writes(h, 2);
	return 0;
}

static int co_leaving_goes_on(struct hist *h)
{
	hist_co_look(h);
	if (rig_member(&h->rig, 1) >= 0 && !pdisk_of(h, 1)->leaving)
		co_begin(h, REMOVE, 1, 0);
	co_random_writes(h, 4);
	co_settle(h);
	EXPECT(h, rig_member(&h->rig, 1) < 0);
	co_expect_width(h, h->rig.n_first - 1);
	return hist_co_look(h);
}

static void power_cuts_leave_the_old_shape_or_the_new_one(void)
{
	for (unsigned i = 0; i < 2; i++) {
		struct hist *h = begin(parity[i], 4 + i, 0, 16 * MIB);

		each_cut(h, co_leave_crash, co_leaving_goes_on, 8, 60);
		if (h->rig.failed)
			fprintf(stderr, "... %s\n", parity[i]);
		hist_end(h);
	}
}

/* ---- cancelled, and begun again ---- */

static int co_cancelled(struct hist *h)
{
	unsigned n = h->rig.n_first, i;
	struct ashlar_job_info j;
	struct err e = { 0 };
	uint64_t job;

	co_more(h, "more", 2 * MIB);
	for (i = 0; i < 12 && !h->rig.failed; i++) {
		job = co_begin(h, EVACUATE, 2, 0);
		co_random_writes(h, 1);
		co_sleep_ns(i * NS_PER_MS / 2);
		if (ashlar_co_job_stop(h->rig.p, job, &e) < 0) /* it has ended before */
			break;
		j = co_wait(h, job);
		EXPECT(h, j.state == ASHLAR_JOB_STOPPED);
		co_random_writes(h, 4);
		hist_co_look(h);
		EXPECT(h, !pdisk_of(h, 2)->leaving);
	}
	EXPECT(h, i > 1);
	co_done(h, co_begin(h, REMOVE, 2, 0));
	co_expect_width(h, n - 1);
	return hist_co_look(h);
}

static void cancelling_leaves_each_group_as_it_is(void)
{
	struct hist *h = begin("raid5", 4, 0, 24 * MIB);

	hist_live(h, co_cancelled);
	hist_live(h, hist_co_look);
	hist_end(h);
}

/* ---- lost disks ---- */

static int co_lost_is_removed(struct hist *h)
{
	unsigned n = h->rig.n_first;
	struct err e = { 0 };

	co_more(h, "more", 2 * MIB);
	EXPECT(h, ashlar_co_disk_fail(h->rig.p, rig_paths[1], false, false, &e) == 0);
	co_random_writes(h, 10);
	co_begin(h, REMOVE, 1, 0);
	co_random_writes(h, 10);
	co_settle(h);
	EXPECT(h, rig_member(&h->rig, 1) < 0);
	co_expect_width(h, n - 1);
	EXPECT(h, ashlar_co_disk_fail(h->rig.p, rig_paths[2], false, false, &e) == 0); /* it is redundant again */
	return hist_co_look(h);
}

static void lost_disk_is_removed_where_no_other_could_take_its_columns(void)
{
	for (unsigned i = 0; i < 2; i++) {
		struct hist *h = begin(parity[i], 4 + i, 0, 24 * MIB);

		hist_live(h, co_lost_is_removed);
		hist_live(h, hist_co_look);
		hist_end(h);
	}
}

/* Another one is lost while it leaves: of those that the groups would go to. */
static int co_another_lost(struct hist *h)
{
	struct err e = { 0 };

	co_more(h, "more", 2 * MIB);
	co_begin(h, REMOVE, 0, 0);
	co_random_writes(h, 1);
	co_sleep_ns(rng_below(&h->rng, 8) * NS_PER_MS);
	EXPECT(h, ashlar_co_disk_fail(h->rig.p, rig_paths[3], false, false, &e) == 0);
	co_random_writes(h, 10);
	hist_co_look(h);
	EXPECT(h, ashlar_co_disk_online(h->rig.p, rig_paths[3], NULL, &e) == 0);
	co_random_writes(h, 4);
	co_settle(h);
	EXPECT(h, rig_member(&h->rig, 0) < 0);
	co_expect_width(h, h->rig.n_first - 1);
	return hist_co_look(h);
}

static void one_is_lost_while_another_leaves(void)
{
	for (unsigned i = 0; i < 12; i++) {
		struct hist *h = begin(parity[i % 2], 4 + i % 2, 0, 24 * MIB);

		rng_init(&h->rng, i);
		hist_live(h, co_another_lost);
		hist_live(h, hist_co_look);
		hist_end(h);
	}
}

/* ---- room ---- */

static int co_no_room(struct hist *h)
{
	co_more(h, "fill", 36 * MIB);
	co_refused(h, -ENOSPC, "no room", REMOVE, 0, 0);
	hist_co_look(h);
	EXPECT(h, rig_co_vol_delete(&h->rig, model_vol_find(h->rig.model, "fill")) == 0);
	co_sleep_ns(5 * NS_PER_SEC);
	co_done(h, co_begin(h, REMOVE, 0, 0));
	EXPECT(h, rig_member(&h->rig, 0) < 0);
	return hist_co_look(h);
}

static void without_room_for_a_narrower_group_it_is_refused(void)
{
	struct hist *h = begin("raid5", 4, 0, 16 * MIB);

	hist_live(h, co_no_room);
	hist_end(h);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(disks_leave_pools_whose_groups_are_as_wide_as_they_are),
		TEST(power_cuts_leave_the_old_shape_or_the_new_one),
		TEST(cancelling_leaves_each_group_as_it_is),
		TEST(lost_disk_is_removed_where_no_other_could_take_its_columns),
		TEST(one_is_lost_while_another_leaves),
		TEST(without_room_for_a_narrower_group_it_is_refused),
		CU_TEST_INFO_NULL,
	};

	return tests_run("reshape", tests);
}
