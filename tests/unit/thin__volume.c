/*
 * Volumes on the real home half and the real metadata store: the rules of the data path one by one.
 */
#include "tests/unit/thin__script.h"

static void script(int (*fn)(void *arg))
{
	struct thin_rig_conf c = conf_of(7);

	c.block_bytes = 4096;
	c.cluster_bytes = 64 * KIB;
	script_conf(&c, fn);
}

static int few_ios_co(void *arg)
{
	unsigned writes, commits;

	co_begin(64 * MIB, 0);
	EXPECT(co_is(bd, MIB, MIB, 0) && rig.n_reads == 0);
	EXPECT(co_fill(bd, 0, MIB, 1, 0) == 0);
	EXPECT(rig.n_writes == 1); /* new clusters are neighbours */
	EXPECT(co_fill(bd, 2 * MIB + 4096, 4096, 2, 0) == 0);
	EXPECT(rig.n_writes == 2 && rig.n_reads == 0 && rig.bytes_written == MIB + 4096);
	EXPECT(co_is(bd, 2 * MIB, 4096, 0) && co_is(bd, 2 * MIB + 4096, 4096, 2) && co_is(bd, 2 * MIB + 8192, 8192, 0));
	EXPECT(bdev_co_flush(bd) == 0);
	commits = rig.n_commits;
	writes = rig.n_writes;
	EXPECT(co_fill(bd, 0, 4096, 3, 0) == 0 && bdev_co_flush(bd) == 0);
	EXPECT(co_fill(bd, 4096, 64 * KIB, 4, IO_FUA) == 0);
	EXPECT(rig.n_commits == commits && rig.n_writes == writes + 2); /* no metadata in it, two clusters merged */
	return co_end();
}

static void a_request_costs_few_ios(void)
{
	script(few_ios_co);
}

static int fua_co_write(void *arg)
{
	co_begin(64 * MIB, 0);
	EXPECT(co_fill(bd, 0, 4096, 1, 0) == 0);
	EXPECT(co_fill(bd, 0, 4096, 2, IO_FUA) == 0); /* an overwrite, but of a mapping that is not durable */
	EXPECT(co_fill(bd, MIB, 4096, 3, IO_FUA) == 0);
	EXPECT(co_fill(bd, MIB, 4096, 4, IO_FUA) == 0);
	EXPECT(co_fill(bd, 2 * MIB, 4096, 5, IO_FUA) == 0);
	EXPECT(bdev_co_zero(bd, 2 * MIB, 4096, IO_FUA) == 0);
	EXPECT(co_fill(bd, 3 * MIB, 4096, 6, 0) == 0);
	thin_rig_co_detach(&rig, vol);
	EXPECT(thin_rig_co_attach(&rig, vol) == 0);
	bd = thin_volume_bdev(vol->open);
	EXPECT(co_fill(bd, 3 * MIB, 4096, 7, IO_FUA) == 0); /* what the volume had handed in before is not durable either */
	return 0;
}

static int fua_co_read(void *arg)
{
	EXPECT(thin_rig_co_open(&rig) == 0);
	vol = thin_vol_find(rig.thin, "v");
	EXPECT(thin_rig_co_attach(&rig, vol) == 0);
	bd = thin_volume_bdev(vol->open);
	EXPECT(co_is(bd, 0, 4096, 2) && co_is(bd, MIB, 4096, 4) && co_is(bd, 2 * MIB, 4096, 0) && co_is(bd, 3 * MIB, 4096, 7));
	return co_end();
}

static void fua_is_durable_at_once(void)
{
	struct thin_rig_conf c = conf_of(3);

	thin_rig_init(&rig, &c);
	EXPECT(thin_rig_run(&rig, fua_co_write, NULL) == 0);
	thin_rig_crash(&rig, SIM_CUT_NONE);
	EXPECT(thin_rig_run(&rig, fua_co_read, NULL) == 0);
	thin_rig_fini(&rig);
}

static bool is_at(const struct io *io, void *off)
{
	return io->off_bytes == *(uint64_t *)off;
}

static int full_co(void *arg)
{
	struct thin_volume_stats st;
	struct later w, w2;
	uint64_t used = 0;
	int r;

	co_begin(64 * MIB, 0);
	do
		r = co_fill(bd, used, 64 * KIB, 1, 0);
	while (r == 0 && (used += 64 * KIB) < 64 * MIB);
	EXPECT(r == -ERR_POOL_FULL && used >= 8 * MIB);
	thin_volume_set_full_wait(vol->open, NS_PER_SEC);
	later_start(&w, IO_WRITE, 40 * MIB, 4096, 7);
	later_start(&w2, IO_WRITE, 41 * MIB, 128 * KIB, 8);
	thin_volume_stats_get(vol->open, &st);
	EXPECT(!w.done && !w2.done && st.parked == 2 && st.full_waiting);
	EXPECT(co_fill(bd, 0, 64 * KIB, 2, 0) == 0 && co_is(bd, 0, 64 * KIB, 2));
	EXPECT(bdev_co_flush(bd) == 0);
	co_sleep_ns(NS_PER_SEC);
	EXPECT(w.done && w.result == -ERR_POOL_FULL && w2.done && w2.result == -ERR_POOL_FULL);
	thin_volume_set_full_wait(vol->open, UINT64_MAX);
	later_start(&w, IO_WRITE, 40 * MIB, 4096, 7);
	later_start(&w2, IO_WRITE, 41 * MIB, 128 * KIB, 8);
	EXPECT(bdev_co_discard(bd, 0, 256 * KIB, 0) == 0);
	EXPECT(later_co_wait(&w) == 0 && later_co_wait(&w2) == 0); /* within the second of the idle commit */
	EXPECT(co_is(bd, 40 * MIB, 4096, 7) && co_is(bd, 41 * MIB, 128 * KIB, 8) && co_is(bd, 0, 256 * KIB, 0));
	thin_volume_stats_get(vol->open, &st);
	EXPECT(!st.full_waiting);
	later_start(&w, IO_WRITE, 50 * MIB, MIB, 9);
	later_start(&w2, IO_WRITE, 52 * MIB, MIB, 10);
	bdev_cancel(bd, is_at, &w2.off);
	EXPECT(later_co_wait(&w2) == -ECANCELED && !w.done);
	r = co_end(); /* closes with a held write */
	EXPECT(w.done && w.result == -ESHUTDOWN);
	return r;
}

static void a_full_pool_holds_writes_until_there_is_space(void)
{
	struct thin_rig_conf c = conf_of(5);

	c.cluster_bytes = 64 * KIB;
	c.n_groups = 8;
	script_conf(&c, full_co);
}

static int churn_co(void *arg)
{
	unsigned i;
	int r = 0;

	co_begin(64 * MIB, 0);
	for (i = 0; i < 1000 && r == 0; i++) {
		r = co_fill(bd, 0, 64 * KIB, 1, 0);
		if (r == 0)
			r = bdev_co_discard(bd, 0, 64 * KIB, 0);
		if (r == 0 && i % 16 == 0)
			r = bdev_co_flush(bd);
		EXPECT(r == 0);
	}
	return co_end();
}

/* Also when a cluster is released before the record that mapped it has been applied. */
static void what_is_discarded_comes_back(void)
{
	struct thin_rig_conf c = conf_of(9);

	c.cluster_bytes = 64 * KIB;
	c.n_groups = 8;
	script_conf(&c, churn_co);
}

static int reuse_co(void *arg)
{
	uint64_t off = 0;
	struct later w;

	co_begin(64 * MIB, 0);
	EXPECT(co_fill(bd, 0, 64 * KIB, 1, 0) == 0);
	EXPECT(thin_rig_co_create(&rig, "v2", 64 * MIB, 0, &vol2) == 0 && thin_rig_co_attach(&rig, vol2) == 0);
	rig.hold_writes = true;
	later_start(&w, IO_WRITE, 4096, 4096, 2);
	EXPECT(thin_rig_n_held(&rig) == 1);
	rig.hold_writes = false;
	EXPECT(bdev_co_discard(bd, 0, 64 * KIB, 0) == 0 && bdev_co_flush(bd) == 0);
	while (co_fill(thin_volume_bdev(vol2->open), off, 64 * KIB, 3, 0) == 0)
		off += 64 * KIB;
	thin_rig_release_writes(&rig);
	EXPECT(later_co_wait(&w) == 0);
	while (off)
		EXPECT(co_is(thin_volume_bdev(vol2->open), off -= 64 * KIB, 64 * KIB, 3));
	EXPECT(co_is(bd, 0, 64 * KIB, 0));
	co_sleep_ns(2 * NS_PER_SEC);
	EXPECT(co_fill(bd, 0, 4096, 4, 0) == 0); /* and now it is there for others */
	thin_rig_co_detach(&rig, vol2);
	return co_end();
}

static void an_overwrite_never_reaches_a_cluster_of_somebody_else(void)
{
	struct thin_rig_conf c = conf_of(9);

	c.cluster_bytes = 64 * KIB;
	c.n_groups = 8;
	script_conf(&c, reuse_co);
}

static int part_co(void *arg)
{
	struct later w, d, w2;

	co_begin(64 * MIB, 0);
	EXPECT(co_fill(bd, 0, 64 * KIB, 1, 0) == 0);
	rig.hold_writes = true;
	later_start(&w, IO_WRITE, 0, 512, 2);
	rig.hold_writes = false;
	later_start(&d, IO_DISCARD, 0, 4096, 0);
	later_start(&w2, IO_WRITE, 512, 512, 3);
	EXPECT(!d.done && !w2.done && co_is(bd, 0, 4096, 0));
	EXPECT(co_fill(bd, 4096, 4096, 4, 0) == 0); /* neighbours go on */
	thin_rig_release_writes(&rig);
	EXPECT(later_co_wait(&w) == 0 && later_co_wait(&d) == 0 && later_co_wait(&w2) == 0);
	EXPECT(co_is(bd, 0, 512, 0) && co_is(bd, 512, 512, 3) && co_is(bd, 1024, 3072, 0) && co_is(bd, 4096, 4096, 4));
	EXPECT(bdev_co_zero(bd, 3072, 1536, 0) == 0);
	EXPECT(co_is(bd, 3072, 1536, 0) && co_is(bd, 4608, 3584, 4));
	return co_end();
}

static void a_cleared_subcluster_is_not_filled_under_an_overwrite(void)
{
	struct thin_rig_conf c = conf_of(9);

	c.cluster_bytes = 64 * KIB;
	script_conf(&c, part_co);
}

static int error_co(void *arg)
{
	struct later w[8];
	unsigned i;

	co_begin(64 * MIB, 0);
	rig.fail_writes = true;
	for (i = 0; i < 8; i++)
		later_start(&w[i], IO_WRITE, i * 4096, i == 7 ? MIB : 4096, 1);
	thin_rig_release_writes(&rig);
	rig.fail_writes = false;
	for (i = 0; i < 8; i++)
		EXPECT(later_co_wait(&w[i]) == -EIO);
	EXPECT(co_is(bd, 0, 2 * MIB, 0));
	rig.hold_writes = rig.fail_writes = true;
	later_start(&w[0], IO_WRITE, 0, 4096, 1);
	rig.fail_writes = rig.hold_writes = false;
	EXPECT(co_fill(bd, 4096, 4096, 2, 0) == 0); /* uses the same cluster */
	rig.fail_writes = true;
	thin_rig_release_writes(&rig);
	rig.fail_writes = false;
	EXPECT(later_co_wait(&w[0]) == -EIO);
	EXPECT(co_is(bd, 0, 4096, 0) && co_is(bd, 4096, 4096, 2));
	return co_end();
}

static void a_failed_write_maps_nothing(void)
{
	script(error_co);
}

static int huge_co(void *arg)
{
	struct bdev_extent e[4];
	size_t n = 4;
	uint64_t t0;

	co_begin(16 * TIB, 0);
	t0 = reactor_now_ns();
	EXPECT(bdev_co_discard(bd, 0, 16 * TIB, 0) == 0);
	EXPECT(bdev_co_zero(bd, 4096, 15 * TIB, IO_FAST_ZERO) == 0);
	EXPECT(bdev_co_zero(bd, 0, MIB, IO_FAST_ZERO | IO_NO_HOLE) == -EOPNOTSUPP);
	EXPECT(reactor_now_ns() - t0 < 10 * NS_PER_MS);
	EXPECT(co_fill(bd, 8 * TIB + 4096, 4096, 1, 0) == 0);
	EXPECT(bdev_co_status(bd, 0, 16 * TIB, e, &n) == 0);
	EXPECT(n == 3 && e[0].len_bytes == 8 * TIB + 4096 && e[0].flags == (BDEV_HOLE | BDEV_ZERO));
	EXPECT(e[1].len_bytes == 4096 && !e[1].flags && e[2].len_bytes == 8 * TIB - 8192);
	EXPECT(bdev_co_zero(bd, 4 * TIB, 3 * MIB, IO_NO_HOLE) == 0 && co_is(bd, 4 * TIB, 3 * MIB, 0));
	n = 1;
	EXPECT(bdev_co_status(bd, 4 * TIB, MIB, e, &n) == 0 && n == 1 && !e[0].flags && e[0].len_bytes == MIB);
	EXPECT(bdev_co_discard(bd, 0, 16 * TIB, 0) == 0);
	EXPECT(co_is(bd, 8 * TIB, MIB, 0) && bdev_co_flush(bd) == 0);
	EXPECT(vol->used_clusters == 0);
	return co_end();
}

static void holes_cost_nothing(void)
{
	script(huge_co);
}

static int resize_co(void *arg)
{
	struct thin_vol to;

	co_begin(64 * MIB, 0);
	EXPECT(co_fill(bd, 16 * MIB - 64 * KIB, 2 * MIB, 1, 0) == 0);
	EXPECT(thin_volume_co_resize(vol->open, 16 * MIB + 512) == 0 && bd->size_bytes == 16 * MIB + 512);
	EXPECT(thin_volume_co_resize(vol->open, 32 * MIB) == 0);
	EXPECT(co_is(bd, 16 * MIB - 64 * KIB, 64 * KIB + 512, 1) && co_is(bd, 16 * MIB + 512, 2 * MIB, 0));
	to = *vol;
	to.size_bytes = 32 * MIB;
	EXPECT(thin_co_volume_update(rig.thin, vol, &to) == 0);
	return co_end();
}

static void what_was_cut_off_does_not_come_back(void)
{
	struct thin_rig_conf c = conf_of(9);

	c.cluster_bytes = 64 * KIB;
	script_conf(&c, resize_co);
}

/* own: subclusters 0..3, base: 4..7, nothing: 8..15. */
static int base_co(void *arg)
{
	struct thin_entry e = { .own_mask = 0x000f, .base_mask = 0x00f0 };
	struct bdev *sp = &rig.space[0].bdev;
	uint64_t c[2];
	unsigned n = 2;

	co_begin(64 * MIB, 0);
	EXPECT(thin_co_lease(rig.thin, vol->cls, false, c, &n) == 0 && n == 2);
	EXPECT(co_fill(sp, c[0] * 65536, 65536, 1, 0) == 0 && co_fill(sp, c[1] * 65536, 65536, 2, 0) == 0);
	e.own = c[0];
	e.base = c[1];
	thin_map_set(rig.thin, vol->id, 1, &e, 1);
	EXPECT(co_is(bd, 0, 65536, 0) && co_is(bd, 65536, 16384, 1) && co_is(bd, 81920, 16384, 2));
	EXPECT(co_is(bd, 98304, 65536, 0));
	EXPECT(co_fill(bd, 81920 + 512, 1024, 3, 0) == 0); /* inside a subcluster of base */
	EXPECT(co_is(bd, 81920, 512, 2) && co_is(bd, 81920 + 512, 1024, 3) && co_is(bd, 81920 + 1536, 2560 + 12288, 2));
	EXPECT(bdev_co_zero(bd, 86016 + 512, 512, 0) == 0); /* an edge of base */
	EXPECT(co_is(bd, 86016, 512, 2) && co_is(bd, 86016 + 512, 512, 0) && co_is(bd, 86016 + 1024, 3072, 2));
	EXPECT(bdev_co_discard(bd, 65536, 24576, 0) == 0); /* all of own: base takes its place */
	EXPECT(co_is(bd, 65536, 24576, 0) && co_is(bd, 90112, 8192, 2));
	EXPECT(co_fill(bd, 90112, 4096, 5, 0) == 0 && co_is(bd, 90112, 4096, 5) && co_is(bd, 94208, 4096, 2));
	EXPECT(co_is(sp, c[1] * 65536 + 24576, 4096, 5)); /* in place: it is nobody else's */
	EXPECT(bdev_co_flush(bd) == 0 && thin_rig_co_check(&rig) == 0);
	EXPECT(bdev_co_discard(bd, 90112, 8192, 0) == 0 && co_is(bd, 65536, 65536, 0));
	EXPECT(bdev_co_flush(bd) == 0 && vol->used_clusters == 0);
	return co_end();
}

static void what_is_not_own_comes_from_base(void)
{
	struct thin_rig_conf c = conf_of(9);

	c.cluster_bytes = 64 * KIB;
	script_conf(&c, base_co);
}

static int close_co(void *arg)
{
	struct later w[12];
	unsigned i;
	int r;

	co_begin(64 * MIB, 0);
	for (i = 0; i < 12; i++) {
		w[i] = (struct later){ .op = i % 4 ? IO_WRITE : i % 8 ? IO_DISCARD : IO_FLUSH, .b = bd,
				       .off = i * 100 * KIB, .len = 100 * KIB, .c = 1 };
		co_spawn(CO_SERVICE, later_co_run, &w[i], "later");
	}
	for (i = 0; i < 12; i++)
		while (!w[i].begun)
			co_yield();
	thin_rig_co_detach(&rig, vol);
	co_sleep_ns(1); /* who has been woken runs; no time passes for disks */
	for (i = 0; i < 12; i++)
		EXPECT(w[i].done && w[i].result == 0);
	EXPECT(thin_rig_co_check(&rig) == 0);
	r = thin_rig_co_close(&rig);
	return r;
}

static void close_waits_for_requests_in_flight(void)
{
	script(close_co);
}

static int flush_co(void *arg)
{
	struct later f[10];
	unsigned i, commits, round;

	co_begin(64 * MIB, 0);
	for (round = 0; round < 20; round++) {
		EXPECT(co_fill(bd, round * MIB, 4096, 1, 0) == 0);
		commits = rig.n_commits;
		for (i = 0; i < 10; i++) {
			f[i] = (struct later){ .op = IO_FLUSH, .b = bd };
			co_spawn(CO_SERVICE, later_co_run, &f[i], "later");
		}
		for (i = 0; i < 10; i++)
			EXPECT(later_co_wait(&f[i]) == 0);
		EXPECT(rig.n_commits <= commits + 2);
	}
	return co_end();
}

static void flushes_share_a_commit(void)
{
	script(flush_co);
}

/* ---- at home ---- */

/* Two volumes with one cluster, which they lose one after the other. A read of the first or second owner is under way. */
static void two_owners_co(bool first)
{
	struct thin_entry e = { .own_mask = 0xffff, .shared = true };
	struct bdev *b2, *sp = &rig.space[0].bdev;
	uint64_t off = MIB;
	struct later rd;
	unsigned n = 1;

	co_begin(64 * MIB, 0);
	EXPECT(thin_rig_co_create(&rig, "v2", 64 * MIB, 0, &vol2) == 0 && thin_rig_co_attach(&rig, vol2) == 0);
	b2 = thin_volume_bdev(vol2->open);
	EXPECT(thin_co_lease(rig.thin, vol->cls, false, &e.own, &n) == 0 && co_fill(sp, e.own * 65536, 65536, 1, 0) == 0);
	thin_map_set(rig.thin, vol->id, 0, &e, 1);
	thin_map_set(rig.thin, vol2->id, 0, &e, 1);
	EXPECT(co_is(bd, 0, 65536, 1) && co_is(b2, 0, 65536, 1));
	rig.hold_reads = true;
	bd = first ? bd : b2;
	later_start(&rd, IO_READ, 0, 65536, 1);
	bd = thin_volume_bdev(vol->open);
	rig.hold_reads = false;
	EXPECT(bdev_co_discard(bd, 0, 65536, 0) == 0 && bdev_co_flush(bd) == 0);
	EXPECT(thin_rig_co_check(&rig) == 0 && co_is(b2, 0, 65536, 1));
	EXPECT(bdev_co_discard(b2, 0, 65536, 0) == 0 && bdev_co_flush(b2) == 0);
	while (co_fill(bd, off, 65536, 2, 0) == 0)
		off += 65536;
	thin_rig_release_writes(&rig);
	EXPECT(later_co_wait(&rd) == 0);
	EXPECT(co_fill(bd, off, 65536, 3, 0) == 0 && co_fill(bd, off + 65536, 65536, 3, 0) == -ERR_POOL_FULL);
	thin_rig_co_detach(&rig, vol2);
}

static int two_owners_co_first(void *arg)
{
	two_owners_co(true);
	return co_end();
}

static int two_owners_co_second(void *arg)
{
	two_owners_co(false);
	return co_end();
}

static void a_shared_cluster_is_free_when_all_have_released_it(void)
{
	struct thin_rig_conf c = conf_of(13);

	c.cluster_bytes = 64 * KIB;
	c.n_groups = 8;
	script_conf(&c, two_owners_co_first);
	script_conf(&c, two_owners_co_second);
}

static int log_group_co(void *arg)
{
	uint64_t off = 0, n;
	struct thin_space s;

	co_begin(64 * MIB, 0);
	EXPECT(thin_rig_co_log_group(&rig, vol->cls) == 0);
	thin_space_get(rig.thin, &s);
	EXPECT(s.clusters_total == 0 && thin_co_class_free(rig.thin, vol->cls, &n) == 0 && n == 0);
	while (co_fill(bd, off, 65536, 2, 0) == 0)
		off += 65536;
	EXPECT(off == 8 * MIB); /* all of the other two groups */
	return co_end();
}

static void a_log_group_has_no_clusters(void)
{
	struct thin_rig_conf c = conf_of(13);

	c.cluster_bytes = 64 * KIB;
	c.n_groups = 8;
	script_conf(&c, log_group_co);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(a_request_costs_few_ios),
		TEST(fua_is_durable_at_once),
		TEST(flushes_share_a_commit),
		TEST(an_overwrite_never_reaches_a_cluster_of_somebody_else),
		TEST(a_cleared_subcluster_is_not_filled_under_an_overwrite),
		TEST(a_failed_write_maps_nothing),
		TEST(what_is_discarded_comes_back),
		TEST(holes_cost_nothing),
		TEST(what_was_cut_off_does_not_come_back),
		TEST(what_is_not_own_comes_from_base),
		TEST(close_waits_for_requests_in_flight),
		TEST(a_full_pool_holds_writes_until_there_is_space),
		TEST(a_shared_cluster_is_free_when_all_have_released_it),
		TEST(a_log_group_has_no_clusters),
		CU_TEST_INFO_NULL,
	};

	return tests_run("thin volume", tests);
}
