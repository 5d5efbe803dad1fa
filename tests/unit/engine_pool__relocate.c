/*
 * Rebalancing; jobs that move data: paused, stopped, several at once, without room; and all of it at random.
 */
#include "tests/unit/engine_pool__disks_rig.h"
#include "tests/unit/unit.h"

/* ---- rebalance ---- */

static void expect_even(struct hist *h)
{
	uint64_t least = UINT64_MAX, most = 0, group = h->rig.p->label->group_bytes / h->rig.p->label->extent_bytes;
	unsigned i;

	for (i = 0; i < h->rig.p->n_disks; i++) {
		const struct pdisk *d = &h->rig.p->disks[i];

		if (d->state == PDISK_FREE)
			continue;
		least = MIN(least, d->used);
		most = MAX(most, d->used);
	}
	if (most > least + 2 * group)
		rig_fail(&h->rig, "disks are not even: %u to %u extents are used, a group has %u", (unsigned)least, (unsigned)most, (unsigned)group);
}

static int co_rebalance(struct hist *h)
{
	struct ashlar_relocation rel = { 0 };
	uint64_t copied, before;
	struct err e;
	unsigned i;

	co_more(h, "more", 6 * MIB);
	for (i = h->rig.n_first; i < h->rig.n_disks; i++)
		co_add(h, i);
	EXPECT(h, co_call(h, REBALANCE, 0, 0, true, &rel, &e) == 0 && rel.n_columns);
	copied = rel.copy_bytes;
	before = sim_disk_bytes_written(h->rig.disks, h->rig.n_disks - 1);
	co_done_while_writing(h, co_begin(h, REBALANCE, 0, 0));
	EXPECT(h, sim_disk_bytes_written(h->rig.disks, h->rig.n_disks - 1) - before < copied + 8 * MIB);
	expect_even(h);
	EXPECT(h, pool_metadata_width(h->rig.p) == MIN(pool_n_disks(h->rig.p), 3));
	EXPECT(h, co_call(h, REBALANCE, 0, 0, true, &rel, &e) == 0 && rel.n_columns == 0); /* nothing goes back */
	co_done(h, co_begin(h, REBALANCE, 0, 0));
	return hist_co_look(h);
}

static void rebalancing_evens_out_and_ends(void)
{
	unsigned i;

	for (i = 0; i < ARRAY_LEN(layouts); i++) {
		struct hist *h = begin(layouts[i], n_least[i], 2, 24 * MIB);

		hist_live(h, co_rebalance);
		hist_live(h, hist_co_look);
		if (h->rig.failed)
			fprintf(stderr, "... %s\n", layouts[i]);
		hist_end(h);
	}
}

static int co_rebalance_crash(struct hist *h)
{
	uint64_t job = co_begin(h, REBALANCE, 0, 0);

	co_random_writes(h, 4);
	co_done(h, job);
	return 0;
}

static int co_fill_and_add(struct hist *h)
{
	co_more(h, "more", 3 * MIB);
	co_add(h, h->rig.n_disks - 1);
	return 0;
}

static void rebalancing_survives_power_cuts(void)
{
	static const unsigned some[] = { 0, 2, 5 };
	unsigned i;

	for (i = 0; i < ARRAY_LEN(some); i++) {
		struct hist *h = begin(layouts[some[i]], n_least[some[i]], 1, 16 * MIB);

		hist_live(h, co_fill_and_add);
		hist_each_crash(h, co_rebalance_crash, 12, 0);
		if (h->rig.failed)
			fprintf(stderr, "... %s\n", layouts[some[i]]);
		hist_end(h);
	}
}

/* ---- jobs ---- */

static void co_slow_pace(struct hist *h, uint64_t bps)
{
	struct ashlar_pool_settings s;
	struct err e = { 0 };

	ashlar_co_pool_settings(h->rig.p, &s);
	s.pace_floor_bps = MIN(s.pace_floor_bps, bps);
	s.pace_ceiling_bps = bps;
	EXPECT(h, ashlar_co_pool_set(h->rig.p, &s, &e) == 0);
}

static struct pool_job *job_of(struct hist *h, unsigned disk)
{
	return h->rig.p->life->relocations[rig_member(&h->rig, disk)];
}

static int co_pause(struct hist *h)
{
	struct err e = { 0 };
	uint64_t job;

	co_slow_pace(h, MIB);
	co_more(h, "more", 12 * MIB);
	job = co_begin(h, EVACUATE, 0, 0);
	co_sleep_ns(500 * NS_PER_MS);
	EXPECT(h, ashlar_co_job_pause(h->rig.p, job, true, &e) == 0);
	co_sleep_ns(3 * NS_PER_SEC);
	EXPECT(h, job_of(h, 0) && job_of(h, 0)->info.state == ASHLAR_JOB_PAUSED && co_cols_on(h, 0));
	return 0;
}

static int co_is_paused(struct hist *h)
{
	unsigned cols = co_cols_on(h, 0);
	struct err e = { 0 };
	uint64_t job;

	co_sleep_ns(30 * NS_PER_SEC);
	EXPECT(h, cols && co_cols_on(h, 0) == cols && job_of(h, 0) && job_of(h, 0)->info.state == ASHLAR_JOB_PAUSED);
	if (h->rig.failed)
		return 0;
	job = job_of(h, 0)->info.id;
	co_slow_pace(h, 64 * MIB);
	EXPECT(h, ashlar_co_job_pause(h->rig.p, job, false, &e) == 0);
	co_done(h, job);
	EXPECT(h, co_cols_on(h, 0) == 0);
	return hist_co_look(h);
}

static int co_stop(struct hist *h)
{
	struct ashlar_job_info j;
	struct err e = { 0 };
	uint64_t job;

	EXPECT(h, ashlar_co_disk_online(h->rig.p, rig_paths[0], NULL, &e) == 0);
	co_slow_pace(h, MIB);
	job = co_begin(h, EVACUATE, 1, 0);
	co_sleep_ns(300 * NS_PER_MS);
	EXPECT(h, ashlar_co_job_stop(h->rig.p, job, &e) == 0);
	j = co_wait(h, job);
	EXPECT(h, j.state == ASHLAR_JOB_STOPPED && !pdisk_of(h, 1)->leaving && co_cols_on(h, 1));
	job = co_begin(h, REBALANCE, 0, 0);
	EXPECT(h, ashlar_co_job_stop(h->rig.p, job, &e) == 0 && !h->rig.p->label->wanted);
	return 0;
}

static int co_nothing_is_wanted(struct hist *h)
{
	unsigned cols = co_cols_on(h, 1);

	co_sleep_ns(10 * NS_PER_SEC);
	EXPECT(h, cols && co_cols_on(h, 1) == cols && !job_of(h, 1) && !h->rig.p->life->relocations[LABEL_DISKS_MAX]);
	return hist_co_look(h);
}

static void pauses_and_stops_survive_a_restart(void)
{
	struct hist *h = begin("raid1", 4, 0, 24 * MIB);

	hist_live(h, co_pause);
	hist_live(h, co_is_paused);
	hist_live(h, co_stop);
	hist_live(h, co_nothing_is_wanted);
	hist_end(h);
}

/* Two leave, and a third is lost meanwhile: what has lost redundancy comes first. */
static int co_several(struct hist *h)
{
	struct ashlar_job_info *j;
	struct err e = { 0 };
	uint64_t a, b, before;
	size_t n, i, rebuild = 0;

	co_more(h, "more", 12 * MIB);
	co_slow_pace(h, MIB);
	a = co_begin(h, EVACUATE, 0, 0);
	b = co_begin(h, REMOVE, 1, 0);
	co_sleep_ns(200 * NS_PER_MS);
	hist_co_fail(h, 2);
	co_sleep_ns(100 * NS_PER_MS);
	before = job_of(h, 0)->info.done_bytes;
	EXPECT(h, ashlar_co_job_list(h->rig.p, &j, &n, &e) == 0);
	for (i = 0; i < n; i++) {
		rebuild += j[i].kind == ASHLAR_JOB_REBUILD && j[i].state == ASHLAR_JOB_RUNNING;
		EXPECT(h, j[i].state >= ASHLAR_JOB_DONE || (j[i].redundancy == 0 && j[i].redundancy_promised == 1));
	}
	EXPECT(h, rebuild == 1);
	xfree(j);
	while (h->rig.p->life->rebuilds && !h->rig.failed) {
		EXPECT(h, job_of(h, 0) && job_of(h, 0)->info.done_bytes <= before);
		co_sleep_ns(10 * NS_PER_MS);
	}
	co_slow_pace(h, 64 * MIB);
	co_done_while_writing(h, a);
	co_done(h, b);
	EXPECT(h, co_cols_on(h, 0) == 0 && rig_member(&h->rig, 1) < 0 && co_cols_on(h, 2) == 0);
	return hist_co_look(h);
}

static void several_leave_and_one_is_lost(void)
{
	struct hist *h = begin("raid1", 6, 0, 24 * MIB);

	hist_live(h, co_several);
	hist_live(h, hist_co_look);
	hist_end(h);
}

/* One leaves, another is lost, and only the one that leaves has room: the rebuild says so, and goes on when that one stays. */
static int co_leaves_and_lost(struct hist *h)
{
	struct ashlar_job_info *j;
	struct err e = { 0 };
	uint64_t leaving, k;
	size_t n, i;
	bool said = false;

	co_more(h, "more", 6 * MIB);
	co_slow_pace(h, MIB);
	leaving = co_begin(h, REMOVE, 0, 0);
	co_sleep_ns(200 * NS_PER_MS);
	hist_co_fail(h, 1);
	co_slow_pace(h, 64 * MIB);
	for (k = 0; k < 100 && !said; k++) {
		co_sleep_ns(100 * NS_PER_MS);
		EXPECT(h, ashlar_co_job_list(h->rig.p, &j, &n, &e) == 0);
		for (i = 0; i < n; i++)
			said |= j[i].kind == ASHLAR_JOB_REBUILD && j[i].state == ASHLAR_JOB_WAITING && strstr(j[i].result, "keep disk d0");
		xfree(j);
	}
	EXPECT(h, said);
	co_random_writes(h, 20);
	EXPECT(h, ashlar_co_disk_online(h->rig.p, rig_paths[0], NULL, &e) == 0);
	EXPECT(h, co_wait(h, leaving).state == ASHLAR_JOB_STOPPED);
	for (k = 0; k < 1000 && co_cols_on(h, 1); k++)
		co_sleep_ns(100 * NS_PER_MS);
	EXPECT(h, co_cols_on(h, 0) > 0 && co_cols_on(h, 1) == 0);
	return hist_co_look(h);
}

static void one_leaves_while_another_is_lost_and_stays_if_it_must(void)
{
	struct hist *h = begin("raid1", 3, 0, 32 * MIB);

	hist_live(h, co_leaves_and_lost);
	hist_live(h, hist_co_look);
	hist_end(h);
}

/* Room that is there when it begins, and goes: it waits, and goes on when there is some. */
static int co_waits(struct hist *h)
{
	struct ashlar_job_info j;
	struct err e = { 0 };
	uint64_t job;

	co_slow_pace(h, MIB);
	co_more(h, "more", 7 * MIB);
	job = co_begin(h, EVACUATE, 0, 0);
	co_more(h, "fill", 32 * MIB);
	EXPECT(h, ashlar_co_job_wait(h->rig.p, job, 120 * NS_PER_SEC, &j, &e) == 0 && j.state == ASHLAR_JOB_WAITING &&
		  strstr(j.result, "space"));
	co_slow_pace(h, 64 * MIB);
	co_add(h, 3);
	co_done(h, job);
	return hist_co_look(h);
}

static void an_evacuation_waits_for_room(void)
{
	struct hist *h = begin("raid1", 3, 1, 14 * MIB);

	hist_live(h, co_waits);
	hist_end(h);
}

/* ---- at random ---- */

static void co_random_step(struct hist *h)
{
	unsigned disk = (unsigned)rng_below(&h->rng, h->rig.n_disks), by = (unsigned)rng_below(&h->rng, h->rig.n_disks);
	struct ashlar_relocation rel = { 0 };
	struct err e = { 0 };
	int r = 0;

	switch (rng_below(&h->rng, 8)) {
	case 0:
	case 1:
		if (rig_member(&h->rig, disk) < 0)
			co_add(h, disk);
		return;
	case 2: r = co_call(h, EVACUATE, disk, 0, false, &rel, &e); break;
	case 3: r = co_call(h, REMOVE, disk, 0, false, &rel, &e); break;
	case 4: r = rig_member(&h->rig, by) < 0 ? co_call(h, REPLACE, disk, by, false, &rel, &e) : 0; break;
	case 5: r = co_call(h, REBALANCE, 0, 0, false, &rel, &e); break;
	case 6:
		r = rig_member(&h->rig, disk) < 0 ? 0 : ashlar_co_disk_online(h->rig.p, rig_paths[disk], NULL, &e);
		break;
	default:
		co_sleep_ns(rng_below(&h->rng, NS_PER_SEC));
	}
	if (r < 0 && r != -EINVAL && r != -ENOSPC && r != -ENOENT)
		rig_fail(&h->rig, "a step: %s (%d)", e.text, r);
}

static int co_random(struct hist *h)
{
	unsigned i;

	for (i = 0; i < 25 && !h->rig.failed; i++) {
		co_random_step(h);
		co_random_writes(h, 2);
		if (rng_chance(&h->rng, 1, 6))
			rig_co_check(&h->rig, false);
	}
	return 0;
}

static int co_random_end(struct hist *h)
{
	unsigned i;

	hist_co_look(h);
	for (i = 0; i < h->rig.p->n_disks && !h->rig.failed; i++)
		if (h->rig.p->disks[i].state != PDISK_FREE && h->rig.p->label->disks[i].leaving)
			EXPECT(h, pool_co_disk_stay(h->rig.p, i, &(struct err){ 0 }) == 0);
	co_done(h, co_begin(h, REBALANCE, 0, 0));
	return hist_co_look(h);
}

static void whatever_comes_and_goes_nothing_is_lost(void)
{
	unsigned i, k;

	for (i = 0; i < 2 * ARRAY_LEN(layouts); i++) {
		const char *layout = layouts[i % ARRAY_LEN(layouts)];
		struct hist *h = begin(layout, n_least[i % ARRAY_LEN(layouts)], 3, 16 * MIB);

		rng_init(&h->rng, 1000 + i);
		for (k = 0; k < 4 && !h->rig.failed; k++) {
			uint64_t stop = sim_disks_n_events(h->rig.disks) + 200 + rng_below(&h->rng, 4000);

			if (hist_live_to(h, co_random, stop) == -ECANCELED)
				hist_cut(h, rng_chance(&h->rng, 1, 2) ? SIM_CUT_RANDOM : SIM_CUT_NONE);
		}
		hist_live(h, co_random_end);
		if (h->rig.failed)
			fprintf(stderr, "... %s, %u\n", layout, i);
		hist_end(h);
	}
}

/* ---- groups that nobody needs ---- */

static int co_first_is_busy(struct hist *h)
{
	struct ashlar_pool *p = h->rig.p;
	struct pgroup *g = NULL;
	uint64_t group = 0;

	co_more(h, "more", 6 * MIB);
	EXPECT(h, rig_co_vol_delete(&h->rig, model_vol_find(h->rig.model, "more")) == 0);
	for (; group == 0 && !h->rig.failed; co_sleep_ns(NS_PER_SEC)) {
		thin_co_alloc_lock(p->thin);
		if (thin_co_empty_group(p->thin, &group) < 0)
			group = 0; /* it is still being freed */
		thin_alloc_unlock(p->thin);
	}
	EXPECT(h, pool_co_pgroup_get(p, group, &g) == 0);
	g->unsync = 1;
	EXPECT(h, pool_co_group_reclaim(p) == 0);
	EXPECT(h, pool_co_pgroup_get(p, group, &g) == 0 && g->unsync == 1); /* not that one */
	g->unsync = 0;
	return hist_co_look(h);
}

static void an_empty_group_that_is_busy_does_not_hide_the_others(void)
{
	struct hist *h = begin("raid1", 2, 0, 24 * MIB);

	hist_live(h, co_first_is_busy);
	hist_end(h);
}

/* As a crash may leave one: a record in the table, and no label that names it. */
static int co_nameless(struct hist *h)
{
	struct ashlar_relocation rel = { 0 };
	uint64_t group;
	struct err e;

	EXPECT(h, pool_co_group_create(h->rig.p, THIN_GROUP_META, (struct raid_profile){ RAID_SINGLE, 1 }, &group) == 0);
	EXPECT(h, co_call(h, REBALANCE, 0, 0, false, &rel, &e) == 0);
	if (rel.job)
		co_done(h, rel.job);
	EXPECT(h, co_cols_on(h, 0) + co_cols_on(h, 1) + co_cols_on(h, 2) > 0);
	return 0;
}

static void evening_out_leaves_a_metadata_group_without_a_name_alone(void)
{
	struct hist *h = begin("raid1", 3, 0, 24 * MIB);

	hist_live(h, co_nameless);
	hist_end(h);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(rebalancing_evens_out_and_ends),
		TEST(rebalancing_survives_power_cuts),
		TEST(pauses_and_stops_survive_a_restart),
		TEST(several_leave_and_one_is_lost),
		TEST(one_leaves_while_another_is_lost_and_stays_if_it_must),
		TEST(an_evacuation_waits_for_room),
		TEST(an_empty_group_that_is_busy_does_not_hide_the_others),
		TEST(evening_out_leaves_a_metadata_group_without_a_name_alone),
		TEST(whatever_comes_and_goes_nothing_is_lost),
		CU_TEST_INFO_NULL,
	};

	return tests_run("relocate", tests);
}
