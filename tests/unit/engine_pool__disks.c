/*
 * Disks join a pool and leave it while it is in use: added, evacuated, removed, replaced; with power cuts at every step, and with
 * every set of disks missing that the layout allows. The rest: engine_pool__relocate.c.
 */
#include "tests/unit/engine_pool__disks_rig.h"
#include "tests/unit/unit.h"

/* ---- add ---- */

static int co_add_full(struct hist *h)
{
	struct model_vol *v = NULL;
	struct ashlar_pool_info before, after;
	uint64_t off = 0;
	int r = 0;

	h->rig.may_be_full = true;
	EXPECT(h, rig_co_vol_create(&h->rig, "big", 64 * MIB, NULL, 0) == 0);
	v = model_vol_find(h->rig.model, "big");
	for (; off < 64 * MIB && r == 0; off += 128 * KIB)
		r = rig_co_io_once(&h->rig, v, RIG_WRITE, off, 128 * KIB, 0);
	EXPECT(h, r == -ERR_POOL_FULL);
	ashlar_co_pool_info(h->rig.p, &before);
	co_add(h, 2);
	co_add(h, 3);
	ashlar_co_pool_info(h->rig.p, &after);
	EXPECT(h, after.n_disks == before.n_disks + 2 && after.free_bytes > before.free_bytes + 4 * MIB);
	EXPECT(h, rig_co_io_once(&h->rig, v, RIG_WRITE, off, 128 * KIB, IO_FUA) == 0);
	EXPECT(h, co_cols_on(h, 2) > 0 && co_cols_on(h, 3) > 0);
	return hist_co_look(h);
}

static int co_look_four(struct hist *h)
{
	EXPECT(h, rig_members(&h->rig) == 15 && !rig_away(&h->rig));
	return hist_co_look(h);
}

static void added_disks_have_room_at_once(void)
{
	struct hist *h = begin("raid1", 2, 2, 12 * MIB);

	hist_live(h, co_add_full);
	hist_live(h, co_look_four);
	hist_end(h);
}

static int co_add_refused(struct hist *h)
{
	const char *twice[] = { rig_paths[2], rig_paths[2] };
	struct ashlar_pool *p = h->rig.p;
	struct err e = { 0 };
	uint64_t gen = p->label->generation;

	EXPECT(h, ashlar_co_disk_add(p, &rig_paths[0], 1, true, false, &e) == -EEXIST && strstr(e.text, "already"));
	EXPECT(h, ashlar_co_disk_add(p, twice, 2, true, false, &e) == -EINVAL && strstr(e.text, "same disk"));
	EXPECT(h, ashlar_co_disk_add(p, &rig_paths[3], 1, true, false, &e) == -EINVAL && strstr(e.text, "too small"));
	EXPECT(h, ashlar_co_disk_add(p, &rig_paths[4], 1, true, false, &e) == -EINVAL && strstr(e.text, "blocks of 4096"));
	EXPECT(h, ashlar_co_disk_add(p, &rig_paths[11], 1, true, false, &e) < 0 && e.text[0]);
	EXPECT(h, ashlar_co_disk_add(p, &rig_paths[2], 1, false, true, &e) == 0); /* as far as can be told */
	EXPECT(h, p->label->generation == gen && pool_n_disks(p) == 2);
	return 0;
}

static void disks_that_do_not_fit_are_refused(void)
{
	struct sim_disk_conf small = { .size_bytes = 2 * MIB, .block_bytes = 512 }, coarse = { .size_bytes = 12 * MIB, .block_bytes = 4096 };
	struct hist *h = begin("raid1", 2, 1, 12 * MIB);

	sim_disks_add(h->rig.disks, rig_paths[3], &small);
	sim_disks_add(h->rig.disks, rig_paths[4], &coarse);
	hist_live(h, co_add_refused);
	hist_end(h);
}

/* Whoever is in, is in whole; who is not can be added, without force. */
static int co_add_again(struct hist *h)
{
	unsigned k;

	hist_co_look(h);
	for (k = 0; k < h->rig.n_disks && !h->rig.failed; k++)
		if (rig_member(&h->rig, k) < 0)
			co_add(h, k);
	co_more(h, "after", 256 * KIB);
	return hist_co_look(h);
}

static int co_add_crash(struct hist *h)
{
	co_add(h, h->rig.n_first);
	co_more(h, "x", 3 * MIB);
	return 0;
}

/* Power cuts all through it; with any disks missing; then it is added, if it is not in. */
static void a_crash_leaves_an_added_disk_in_or_out(void)
{
	static const char *const some[] = { "raid1", "raid5" };
	unsigned i;

	for (i = 0; i < ARRAY_LEN(some); i++) {
		struct hist *h = begin(some[i], i ? 3 : 2, 1, 12 * MIB);
		struct image at = hist_save(h);
		uint64_t begin_ev = sim_disks_n_events(h->rig.disks), stop;

		hist_each_crash(h, co_add_crash, 25, 0);
		for (stop = 40; stop < 160 && !h->rig.failed; stop += 3) {
			hist_load(h, &at);
			if (hist_live_to(h, co_add_crash, begin_ev + stop) != -ECANCELED)
				break;
			hist_cut(h, SIM_CUT_RANDOM);
			hist_live(h, co_add_again);
		}
		image_free(&at);
		hist_end(h);
	}
}

/* ---- evacuate ---- */

static int co_evacuate(struct hist *h)
{
	struct ashlar_relocation rel = { 0 };
	struct ashlar_disk_info *d;
	struct err e;
	uint64_t job;
	size_t n;

	co_more(h, "more", 2 * MIB); /* before: groups of parity as wide as the pool could not leave */
	co_add(h, h->rig.n_disks - 1);
	EXPECT(h, co_call(h, EVACUATE, 0, 0, true, &rel, &e) == 0 && !rel.job && rel.copy_bytes && rel.n_columns);
	EXPECT(h, rel.n_columns <= co_cols_on(h, 0) && rel.redundancy == (int)h->tolerates && !pdisk_of(h, 0)->leaving);
	job = co_begin(h, EVACUATE, 0, 0);
	co_done_while_writing(h, job);
	EXPECT(h, co_cols_on(h, 0) == 0 && !pdisk_of(h, 0)->used);
	co_more(h, "other", 2 * MIB);
	EXPECT(h, co_cols_on(h, 0) == 0);
	EXPECT(h, ashlar_co_disk_list(h->rig.p, &d, &n, &e) == 0 && !strcmp(d[0].state, "empty"));
	xfree(d);
	EXPECT(h, ashlar_co_disk_online(h->rig.p, rig_paths[0], NULL, &e) == 0 && !pdisk_of(h, 0)->leaving);
	co_more(h, "back", 2 * MIB);
	EXPECT(h, co_cols_on(h, 0) > 0 || h->rig.p->life->full);
	return hist_co_look(h);
}

static void an_evacuated_disk_holds_nothing_and_gets_nothing(void)
{
	unsigned i;

	for (i = 0; i < ARRAY_LEN(layouts); i++) {
		struct hist *h = begin(layouts[i], n_least[i], 1, 24 * MIB);

		hist_live(h, co_evacuate);
		hist_live(h, hist_co_look);
		if (h->rig.failed)
			fprintf(stderr, "... %s\n", layouts[i]);
		hist_end(h);
	}
}

static int co_evacuate_crash(struct hist *h)
{
	uint64_t job = co_begin(h, EVACUATE, 1, 0);

	co_random_writes(h, 6);
	co_done(h, job);
	co_random_writes(h, 2);
	return 0;
}

static int co_evacuation_goes_on(struct hist *h)
{
	bool wanted = pdisk_of(h, 1)->leaving;

	hist_co_look(h);
	if (!wanted)
		co_begin(h, EVACUATE, 1, 0);
	co_settle(h);
	EXPECT(h, co_cols_on(h, 1) == 0);
	return hist_co_look(h);
}

static void an_evacuation_survives_power_cuts(void)
{
	unsigned i;

	for (i = 0; i < ARRAY_LEN(layouts); i++) {
		struct hist *h = begin(layouts[i], n_least[i] + 1, 0, 16 * MIB);
		struct image at;
		uint64_t first, n, k;

		if (!strcmp(layouts[i], "raid5") || !strcmp(layouts[i], "raid6")) { /* groups as wide as that could not leave */
			hist_end(h);
			h = begin(layouts[i], n_least[i], 1, 16 * MIB);
			hist_live(h, co_add_again);
		}
		at = hist_save(h);
		hist_each_crash(h, co_evacuate_crash, 12, 0);
		hist_load(h, &at);
		first = sim_disks_n_events(h->rig.disks);
		hist_live(h, co_evacuate_crash);
		n = sim_disks_n_events(h->rig.disks) - first;
		for (k = 1; k < 15 && !h->rig.failed; k++) {
			hist_load(h, &at);
			if (hist_live_to(h, co_evacuate_crash, first + k * n / 15) != -ECANCELED)
				break;
			hist_cut(h, SIM_CUT_RANDOM);
			hist_live(h, co_evacuation_goes_on);
		}
		if (h->rig.failed)
			fprintf(stderr, "... %s\n", layouts[i]);
		image_free(&at);
		hist_end(h);
	}
}

/* ---- remove ---- */

static int co_remove(struct hist *h)
{
	unsigned last = h->rig.n_disks - 1;
	struct err e = { 0 };
	struct ashlar_pool *p = h->rig.p;
	int index = rig_member(&h->rig, 0);

	co_more(h, "more", 2 * MIB);
	co_add(h, last);
	co_done_while_writing(h, co_begin(h, REMOVE, 0, 0));
	EXPECT(h, rig_member(&h->rig, 0) < 0 && p->disks[index].state == PDISK_FREE && p->label->disks[index].state == LABEL_DISK_FREE);
	EXPECT(h, pool_metadata_width(p) == MIN(pool_n_disks(p), 3));
	EXPECT(h, ashlar_co_disk_fail(p, rig_paths[0], false, false, &e) == -ENOENT);
	hist_co_look(h);
	co_add(h, 0); /* its labels are gone, and its entry is used again */
	EXPECT(h, rig_member(&h->rig, 0) == index);
	co_more(h, "again", 2 * MIB);
	return hist_co_look(h);
}

static void a_removed_disk_is_blank_and_its_entry_is_used_again(void)
{
	unsigned i;

	for (i = 0; i < ARRAY_LEN(layouts); i++) {
		struct hist *h = begin(layouts[i], n_least[i], 1, 24 * MIB);

		hist_live(h, co_remove);
		hist_live(h, hist_co_look);
		if (h->rig.failed)
			fprintf(stderr, "... %s\n", layouts[i]);
		hist_end(h);
	}
}

static int co_remove_crash(struct hist *h)
{
	uint64_t job = co_begin(h, REMOVE, 1, 0);

	co_random_writes(h, 4);
	co_done(h, job);
	co_random_writes(h, 2);
	return 0;
}

static int co_removal_goes_on(struct hist *h)
{
	hist_co_look(h);
	if (rig_member(&h->rig, 1) >= 0 && !pdisk_of(h, 1)->leaving)
		co_begin(h, REMOVE, 1, 0);
	co_settle(h);
	EXPECT(h, rig_member(&h->rig, 1) < 0);
	co_add(h, 1);
	co_more(h, "new", MIB);
	return hist_co_look(h);
}

static void a_removal_survives_power_cuts(void)
{
	static const char *const some[] = { "single", "raid1", "raid10" };
	static const unsigned n[] = { 2, 3, 5 };
	unsigned i;

	for (i = 0; i < ARRAY_LEN(some); i++) {
		struct hist *h = begin(some[i], n[i], 0, 16 * MIB);

		each_cut(h, co_remove_crash, co_removal_goes_on, 16, 30);
		if (h->rig.failed)
			fprintf(stderr, "... %s\n", some[i]);
		hist_end(h);
	}
}

static int co_remove_refused(struct hist *h)
{
	co_refused(h, -ENOENT, "no disk", REMOVE, 7, 0);
	co_refused(h, -EINVAL, "needs 2", REMOVE, 0, 0);
	co_add(h, 2);
	co_more(h, "fill", 64 * MIB);
	co_refused(h, -ENOSPC, "no room", REMOVE, 0, 0);
	EXPECT(h, !pdisk_of(h, 0)->leaving);
	hist_co_look(h);
	/* Its groups stay for a while, and hold nothing: they are no reason to refuse it. */
	EXPECT(h, rig_co_vol_delete(&h->rig, model_vol_find(h->rig.model, "fill")) == 0);
	co_sleep_ns(5 * NS_PER_SEC);
	co_done(h, co_begin(h, REMOVE, 0, 0));
	EXPECT(h, rig_member(&h->rig, 0) < 0);
	return hist_co_look(h);
}

static void removals_that_cannot_be_are_refused_at_once(void)
{
	struct hist *h = begin("raid1", 2, 1, 12 * MIB);

	hist_live(h, co_remove_refused);
	hist_end(h);
}

/* A lost one is removed when it has been rebuilt; what nothing else has is not given up. */
static int co_remove_lost(struct hist *h)
{
	hist_co_gone(h, 1);
	co_random_writes(h, 5);
	co_done_while_writing(h, co_begin(h, REMOVE, 1, 0));
	EXPECT(h, rig_member(&h->rig, 1) < 0 && !rig_away(&h->rig));
	rig_co_wait_whole(&h->rig, true, WHOLE_NS);
	hist_faults(h, 1)->gone = false; /* it is back, with its old label: nobody's */
	co_add(h, 1);
	co_more(h, "again", MIB);
	return hist_co_look(h);
}

static int co_lost_single(struct hist *h)
{
	struct rig_place at;
	unsigned gone;

	EXPECT(h, rig_co_place(&h->rig, "v0", 0, &at) == 0);
	gone = rig_place_disk(&at, 0);
	hist_faults(h, gone)->gone = true;
	h->rig.may_fail = true;
	co_random_writes(h, 3);
	co_sleep_ns(10 * NS_PER_SEC);
	if (rig_away(&h->rig) >> gone & 1)
		co_refused(h, -EBUSY, "without redundancy", REMOVE, gone, 0);
	hist_faults(h, gone)->gone = false;
	return 0;
}

static void a_lost_disk_is_removed_when_it_has_been_rebuilt(void)
{
	static const char *const some[] = { "raid1", "raid5", "raid6" };
	unsigned i;

	for (i = 0; i < ARRAY_LEN(some); i++) {
		struct hist *h = begin(some[i], 3 + i, 1, 16 * MIB);

		hist_live(h, co_add_again);
		hist_live(h, co_remove_lost);
		hist_live(h, hist_co_look);
		hist_end(h);
	}
	struct hist *h = begin("single", 2, 1, 16 * MIB);

	hist_live(h, co_lost_single);
	hist_end(h);
}

/* ---- replace ---- */

static int co_replace(struct hist *h)
{
	unsigned by = h->rig.n_disks - 1, cols;
	struct ashlar_relocation rel = { 0 };
	struct err e;

	co_more(h, "more", 2 * MIB);
	cols = co_cols_on(h, 0);
	EXPECT(h, co_call(h, REPLACE, 0, by, true, &rel, &e) == 0 && rel.copy_bytes && rig_member(&h->rig, by) < 0);
	co_done_while_writing(h, co_begin(h, REPLACE, 0, by));
	EXPECT(h, rig_member(&h->rig, 0) < 0 && rig_member(&h->rig, by) >= 0 && co_cols_on(h, by) >= cols);
	return hist_co_look(h);
}

static void a_disk_is_replaced_by_another(void)
{
	unsigned i;

	for (i = 0; i < ARRAY_LEN(layouts); i++) {
		struct hist *h = begin(layouts[i], n_least[i], 1, 24 * MIB);

		hist_live(h, co_replace);
		hist_live(h, hist_co_look);
		if (h->rig.failed)
			fprintf(stderr, "... %s\n", layouts[i]);
		hist_end(h);
	}
}

/* Gone, it is rebuilt on the new one. */
static int co_replace_lost(struct hist *h)
{
	unsigned by = h->rig.n_disks - 1;

	hist_co_gone(h, 0);
	co_random_writes(h, 5);
	co_done_while_writing(h, co_begin(h, REPLACE, 0, by));
	EXPECT(h, rig_members(&h->rig) == ((1U << (by + 1)) - 2) && !rig_away(&h->rig));
	rig_co_wait_whole(&h->rig, true, WHOLE_NS);
	return hist_co_look(h);
}

static void a_lost_disk_is_rebuilt_on_the_one_that_replaces_it(void)
{
	unsigned i;

	for (i = 2; i < ARRAY_LEN(layouts); i++) {
		struct hist *h = begin(layouts[i], n_least[i], 1, 24 * MIB);

		hist_live(h, co_replace_lost);
		hist_faults(h, 0)->gone = false; /* its old label is nobody's */
		hist_live(h, hist_co_look);
		if (h->rig.failed)
			fprintf(stderr, "... %s\n", layouts[i]);
		hist_end(h);
	}
}

static int co_replace_crash(struct hist *h)
{
	uint64_t job = co_begin(h, REPLACE, 0, h->rig.n_disks - 1);

	co_random_writes(h, 4);
	co_done(h, job);
	return 0;
}

static void a_replacement_survives_power_cuts(void)
{
	static const unsigned some[] = { 0, 2, 5 };
	unsigned i;

	for (i = 0; i < ARRAY_LEN(some); i++) {
		struct hist *h = begin(layouts[some[i]], n_least[some[i]], 1, 16 * MIB);

		hist_each_crash(h, co_replace_crash, 30, 0);
		if (h->rig.failed)
			fprintf(stderr, "... %s\n", layouts[some[i]]);
		hist_end(h);
	}
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(added_disks_have_room_at_once),
		TEST(disks_that_do_not_fit_are_refused),
		TEST(a_crash_leaves_an_added_disk_in_or_out),
		TEST(an_evacuated_disk_holds_nothing_and_gets_nothing),
		TEST(an_evacuation_survives_power_cuts),
		TEST(a_removed_disk_is_blank_and_its_entry_is_used_again),
		TEST(a_removal_survives_power_cuts),
		TEST(removals_that_cannot_be_are_refused_at_once),
		TEST(a_lost_disk_is_removed_when_it_has_been_rebuilt),
		TEST(a_disk_is_replaced_by_another),
		TEST(a_lost_disk_is_rebuilt_on_the_one_that_replaces_it),
		TEST(a_replacement_survives_power_cuts),
		CU_TEST_INFO_NULL,
	};

	return tests_run("disks", tests);
}
