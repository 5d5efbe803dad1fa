/*
 * Bugs that others have had, as tests: what RELIABILITY lists in its catalogue of historic bugs and can happen to parity, stripe log,
 * rebuild, resync and scrub. Each test names its source.
 */
#include <malloc.h>

#include "tests/unit/engine_pool__historic_rig.h"
#include "tests/unit/unit.h"

#define EXPECT(h, cond)                                                  \
	do {                                                             \
		if (!(cond))                                             \
			rig_fail(&(h)->rig, "line %d: %s", __LINE__, #cond); \
	} while (0)

/* ---- several clients at once ---- */

struct writer {
	struct hist *h;
	struct rng rng;
	unsigned n;
	uint64_t max;
};

static void writer_co_main(void *arg)
{
	struct writer *w = arg;
	struct hist *h = w->h;

	while (w->n-- && !h->rig.failed) {
		uint64_t off = ALIGN_DOWN(rng_below(&w->rng, V0_BYTES / 2 - w->max), 512ULL);

		hist_wr(h, 0, off, 512 * (1 + rng_below(&w->rng, w->max / 512)), rng_chance(&w->rng, 1, 8) ? IO_FUA : 0);
	}
	h->n_busy--;
	xfree(w);
}

static void co_writers(struct hist *h, unsigned n, unsigned each, uint64_t max)
{
	struct writer *w;

	for (; n; n--) {
		w = xcalloc(1, sizeof(*w));
		*w = (struct writer){ .h = h, .n = each, .max = max };
		rng_init(&w->rng, rng_next(&h->rng));
		h->n_busy++;
		co_spawn(CO_SERVICE, writer_co_main, w, "writer");
	}
}

static void co_wait_writers(struct hist *h)
{
	while (h->n_busy)
		co_sleep_ns(NS_PER_MS);
}

/* ---- the write hole ---- */

static int co_partial_writes(struct hist *h)
{
	hist_wr(h, 0, 4096, 512, 0);
	hist_wr(h, 0, 70 * KIB, 12 * KIB, 0);
	hist_wr(h, 1, 8 * KIB, 1024, IO_FUA);
	hist_wr(h, 0, 60 * KIB, 20 * KIB, 0);
	return 0;
}

/* md, before PPL and the journal: docs.kernel.org/driver-api/md/raid5-ppl.html; btrfs to this day: btrfs-progs, man5, RAID56. */
static void power_cut_in_a_partial_stripe_with_disks_lost_leaves_other_sectors_alone(void)
{
	static const struct {
		const char *layout;
		unsigned disks;
	} pools[] = { { "raid5", 3 }, { "raid5", 5 }, { "raid6", 4 }, { "raid6", 6 } };
	unsigned i, n = 0;

	for (i = 0; i < ARRAY_LEN(pools); i++) {
		struct hist *h = hist_begin(pools[i].layout, pools[i].disks, 12 * MIB);

		hist_each_crash(h, co_partial_writes, 40, 0);
		n += h->n_states;
		hist_end(h);
	}
	printf("    %u states\n", n);
}

static int co_many_partial_writes(struct hist *h)
{
	unsigned i;

	for (i = 0; i < 24; i++)
		hist_wr(h, i % 4 == 3, 4096 * (i % 6), 4096, i % 3 ? IO_FUA : 0);
	return 0;
}

static int co_same_places_again(struct hist *h)
{
	hist_wr(h, 0, 0, 4096, IO_FUA);
	hist_wr(h, 0, 4096, 8192, IO_FUA);
	hist_wr(h, 1, 4096, 4096, 0);
	return 0;
}

/* md journal: a later record of before the recovery was replayed after the next one: K 355810d12a89 (hence its seq + 10). */
static void old_tail_of_the_log_is_not_replayed_after_a_second_crash(void)
{
	struct hist *h = hist_begin("raid5", 4, 12 * MIB);
	uint64_t begin = sim_disks_n_events(h->rig.disks), n;
	struct image clean = hist_save(h);
	unsigned k;

	hist_live(h, co_many_partial_writes);
	n = sim_disks_n_events(h->rig.disks) - begin;
	for (k = 1; k <= 3 && !h->rig.failed; k++) {
		hist_load(h, &clean);
		EXPECT(h, hist_live_to(h, co_many_partial_writes, begin + n - n * k / 8) == -ECANCELED);
		hist_cut(h, SIM_CUT_RANDOM);
		hist_each_crash(h, co_same_places_again, 20, 0);
	}
	image_free(&clean);
	hist_end(h);
}

static int co_lose_a_log_copy(struct hist *h)
{
	co_writers(h, 4, 6, 16 * KIB);
	co_sleep_ns(2 * NS_PER_MS);
	hist_faults(h, 0)->gone = true; /* the first disks have the copies of metadata and logs */
	h->rig.degraded = h->rig.may_be_full = true;
	co_wait_writers(h);
	return 0;
}

/* md journal: its device fails, data only in the cache: K a85dd7b8df52, K 70d466f760b3. */
static void log_that_loses_a_copy_under_writes_still_closes_the_write_hole(void)
{
	struct hist *h = hist_begin("raid6", 5, 12 * MIB);

	hist_each_crash(h, co_lose_a_log_copy, 25, 1);
	hist_end(h);
	h = hist_begin("raid5", 4, 12 * MIB);
	hist_each_crash(h, co_lose_a_log_copy, 25, 1);
	hist_end(h);
}

static int co_fua_to_new(struct hist *h)
{
	hist_wr(h, 0, V0_BYTES / 2, 512, IO_FUA);
	hist_wr(h, 0, V0_BYTES / 2 + 64 * KIB, 256 * KIB, IO_FUA);
	return 0;
}

/* dm-thin: FUA acknowledged before its mapping was committed: K 4ae280b4ee34; metadata before data: K 694cfe7f31db. */
static void fua_write_to_new_stripes_is_there_after_a_cut_with_disks_missing(void)
{
	struct hist *h = hist_begin("raid6", 4, 12 * MIB);

	hist_each_crash(h, co_fua_to_new, 30, 0);
	hist_end(h);
}

/* ---- space that changes hands ---- */

static int co_stripes_change_hands(struct hist *h)
{
	unsigned round;
	uint64_t off;

	for (round = 0; round < 3 && !h->rig.failed; round++) {
		hist_wr(h, 0, 12 * KIB, 4096, 0);
		rig_co_io_once(&h->rig, hist_vol(h, 0), RIG_DISCARD, 0, V0_BYTES, IO_FUA);
		for (off = 0; off < V0_BYTES; off += 256 * KIB)
			hist_wr(h, 0, off, 256 * KIB, 0);
		hist_flush(h, 0);
	}
	return 0;
}

/* BlueStore: a deferred write replayed after the restart onto space that was another's by then: ceph PR 46890. */
static void logged_write_is_not_replayed_over_a_later_whole_stripe(void)
{
	struct hist *h = hist_begin("raid5", 3, 8 * MIB);

	h->rig.may_be_full = true;
	hist_each_crash(h, co_stripes_change_hands, 40, 0);
	hist_end(h);
}

static void discarder_co_main(void *arg)
{
	struct hist *h = arg;

	rig_co_io_once(&h->rig, hist_vol(h, 0), RIG_DISCARD, 0, V0_BYTES, 0);
	h->n_busy--;
}

static int co_discard_and_reuse(struct hist *h)
{
	unsigned i;

	for (i = 0; i < h->rig.n_disks; i++) {
		hist_faults(h, i)->stall = 8000;
		hist_faults(h, i)->stall_ns = 20 * NS_PER_MS;
	}
	for (i = 0; i < 6 && !h->rig.failed; i++) {
		h->n_busy++;
		co_spawn(CO_SERVICE, discarder_co_main, h, "discarder");
		hist_wr(h, 1, 0, V1_BYTES, 0);
		rig_co_io_once(&h->rig, hist_vol(h, 1), RIG_DISCARD, 0, V1_BYTES / 2, 0);
		co_wait_writers(h);
		hist_wr(h, 0, 0, V0_BYTES / 2, 0);
	}
	rig_co_verify(&h->rig);
	return 0;
}

/* dm-thin: a block handed out again while its discard was under way: K 2a0fbffb1e50; discard and shared leaves: K f046f89a99cc. */
static void space_is_not_reused_while_its_discard_is_under_way(void)
{
	struct hist *h = hist_begin("raid5", 3, 8 * MIB);

	h->rig.may_be_full = true;
	hist_live(h, co_discard_and_reuse);
	hist_live(h, hist_co_look);
	hist_each_loss(h, 0, 1);
	hist_end(h);
}

/* ---- errors ---- */

static int co_writes_with_failing_column(struct hist *h)
{
	hist_faults(h, 1)->write_error = 20000;
	h->rig.degraded = h->rig.may_be_full = true;
	co_writers(h, 5, 10, 96 * KIB);
	co_wait_writers(h);
	hist_faults(h, 1)->write_error = 0;
	hist_flush(h, 0);
	return 0;
}

/* ZFS: writes with no more failed columns than parity were left degraded, and nobody knew: 6562851406. */
static void columns_that_could_not_be_written_are_not_believed_after_the_next_loss(void)
{
	struct hist *h = hist_begin("raid6", 5, 12 * MIB);

	hist_live(h, co_writes_with_failing_column);
	hist_each_loss(h, 2, 1); /* disk 1 has missed writes: it and one more */
	hist_end(h);
}

static int co_concurrent_stripes_with_errors(struct hist *h)
{
	unsigned i;

	for (i = 0; i < h->rig.n_disks; i++) {
		hist_faults(h, i)->stall = 10000;
		hist_faults(h, i)->stall_ns = 3 * NS_PER_MS;
	}
	co_writers(h, 6, 6, 200 * KIB);
	co_writers(h, 6, 6, 8 * KIB);
	co_sleep_ns(4 * NS_PER_MS);
	hist_faults(h, 2)->write_error = 5000;
	h->rig.degraded = h->rig.may_be_full = true;
	co_wait_writers(h);
	hist_faults(h, 2)->write_error = 0;
	hist_co_online(h, 2);
	hist_co_whole(h, true);
	rig_co_check(&h->rig, true);
	rig_co_verify(&h->rig);
	return 0;
}

/* SPDK raid5f: parity buffers shared by the requests of a channel, overwritten on the retry path: f84f0cc811. */
static void parity_buffers_are_not_shared_between_stripes_that_are_retried(void)
{
	struct hist *h = hist_begin("raid5", 5, 12 * MIB);

	hist_live(h, co_concurrent_stripes_with_errors);
	hist_each_loss(h, 0, 1);
	hist_end(h);
}

static int co_hung_disk_completes_late(struct hist *h)
{
	unsigned i;

	co_writers(h, 6, 10, 32 * KIB);
	co_sleep_ns(NS_PER_MS);
	hist_faults(h, 3)->hang = true;
	h->rig.degraded = h->rig.may_be_full = true;
	co_wait_writers(h);
	for (i = 0; i < 100 && !(rig_away(&h->rig) >> 3 & 1); i++)
		co_sleep_ns(100 * NS_PER_MS);
	EXPECT(h, rig_away(&h->rig) >> 3 & 1);
	co_writers(h, 3, 4, 32 * KIB);
	hist_faults(h, 3)->hang = false; /* what it still has ends now, among newer writes */
	co_wait_writers(h);
	co_sleep_ns(3 * NS_PER_SEC);
	hist_co_online(h, 3);
	hist_co_whole(h, true);
	rig_co_check(&h->rig, true);
	rig_co_verify(&h->rig);
	return 0;
}

/* SPDK raid: completions after the channel was gone with its disk: 607f67020d. */
static void requests_that_a_disk_ends_after_it_was_put_out_do_no_harm(void)
{
	struct hist *h = hist_begin("raid6", 5, 12 * MIB);

	hist_live(h, co_hung_disk_completes_late);
	hist_each_loss(h, 0, 1);
	hist_end(h);
}

static int co_failing_flush(struct hist *h)
{
	hist_wr(h, 0, 0, 200 * KIB, 0);
	hist_wr(h, 0, V0_BYTES / 2, 96 * KIB, 0);
	hist_faults(h, 1)->flush_error = 65536;
	h->rig.degraded = h->rig.may_be_full = true;
	EXPECT(h, hist_flush(h, 0) == 0);
	hist_faults(h, 1)->flush_error = 0;
	EXPECT(h, hist_flush(h, 0) == 0);
	EXPECT(h, hist_flush(h, 1) == 0);
	sim_disks_stop_at(h->rig.disks, sim_disks_n_events(h->rig.disks));
	co_sleep_ns(1);
	return 0;
}

/* fsync failures: what was dirty is called clean, the next flush succeeds: "Can applications recover from fsync failures?" */
static void failed_flush_is_never_tried_again_to_success(void)
{
	struct hist *h = hist_begin("raid6", 5, 12 * MIB);

	EXPECT(h, hist_live_to(h, co_failing_flush, UINT64_MAX) == -ECANCELED);
	hist_cut(h, SIM_CUT_NONE);
	hist_each_loss(h, 2, 1);
	hist_end(h);
}

static int co_read_through_errors(struct hist *h)
{
	unsigned i;
	uint64_t off;

	hist_faults(h, 2)->read_error = 20000;
	for (i = 0; i < 40 && !h->rig.failed; i++) {
		off = ALIGN_DOWN(rng_below(&h->rng, V0_BYTES / 2), 512ULL);
		rig_co_io_once(&h->rig, hist_vol(h, 0), RIG_READ, off, MIN(V0_BYTES - off, 256 * KIB), 0);
	}
	hist_faults(h, 2)->read_error = 0;
	return 0;
}

/* bcachefs: a split read that was tried again returned memory that nobody had read: bcachefs-tools a57c3ef5c. */
static void split_reads_with_transient_errors_return_every_byte(void)
{
	struct hist *h = hist_begin("raid5", 4, 12 * MIB);

	hist_live(h, co_read_through_errors);
	hist_live(h, hist_co_look);
	hist_end(h);
}

/* ---- rebuild ---- */

static int co_fail_under_writes(struct hist *h)
{
	unsigned i;

	for (i = 0; i < h->rig.n_disks; i++) {
		hist_faults(h, i)->stall = 8000;
		hist_faults(h, i)->stall_ns = 10 * NS_PER_MS;
	}
	co_writers(h, 8, 30, 6 * KIB);
	co_sleep_ns(3 * NS_PER_MS);
	hist_co_fail(h, 1);
	co_wait_writers(h);
	co_writers(h, 4, 20, 512);
	hist_co_whole(h, false);
	co_wait_writers(h);
	if (!h->rig.failed)
		rig_co_check(&h->rig, true);
	rig_co_verify(&h->rig);
	return 0;
}

/* md: a spare added while a degraded write was under way missed that write: K 133d4527eab8. Longhorn: wrong data after a rebuild
 * that was called healthy, small writes meanwhile: issues 4354, 13139. */
static void target_of_a_rebuild_gets_the_writes_that_are_under_way_when_it_begins(void)
{
	static const struct {
		const char *layout;
		unsigned disks;
	} pools[] = { { "raid5", 12 }, { "raid6", 12 }, { "raid1", 4 }, { "raid1-3", 5 } };
	unsigned i;

	for (i = 0; i < ARRAY_LEN(pools); i++) {
		struct hist *h = hist_begin(pools[i].layout, pools[i].disks, 12 * MIB);

		hist_live(h, co_fail_under_writes);
		hist_each_loss(h, 2, 1); /* disk 1 holds nothing any more; any other may go */
		hist_end(h);
	}
}

static int co_second_rebuilt_first_returns(struct hist *h)
{
	struct rig_place at;
	unsigned first, second;
	struct rig_claim c;

	if (rig_co_place(&h->rig, "v0", 0, &at) < 0)
		return -EIO;
	first = rig_place_disk(&at, at.at.cols[0]);
	second = rig_place_disk(&at, at.desc.layout == RAID_RAID6 ? at.at.p : at.at.cols[1]);
	hist_co_gone(h, first);
	co_writers(h, 4, 10, 32 * KIB);
	co_wait_writers(h);
	hist_co_fail(h, second); /* rebuilt at once; the first one is waited for */
	do {
		co_sleep_ns(100 * NS_PER_MS);
		rig_co_claim(&h->rig, &c);
	} while (c.redundancy < 1 && !h->rig.failed && world_now_ns(h->rig.w) < LIMIT_NS);
	co_writers(h, 2, 4, 8 * KIB);
	co_wait_writers(h);
	hist_faults(h, first)->gone = false;
	hist_co_online(h, first);
	hist_co_whole(h, false);
	h->a = first;
	h->b = second;
	if (!h->rig.failed)
		rig_co_check(&h->rig, true);
	return 0;
}

/* dRAID: writes of a rebuild were not recorded for the other disks that were away; one came back and was believed: ZFS b403040c4c. */
static void disk_that_returns_after_another_was_rebuilt_is_brought_up_to_date(void)
{
	static const struct {
		const char *layout;
		unsigned disks;
	} pools[] = { { "raid6", 12 }, { "raid1-3", 5 } };
	unsigned i;

	for (i = 0; i < ARRAY_LEN(pools); i++) {
		struct hist *h = hist_begin(pools[i].layout, pools[i].disks, 12 * MIB);

		hist_live(h, co_second_rebuilt_first_returns);
		if (!h->rig.failed)
			hist_each_loss(h, 1U << h->b, 2);
		hist_end(h);
	}
}

/* Bytes of a strip of every column of the stripe where the place lies. */
static void strip_hashes(struct hist *h, const struct rig_place *at, uint32_t *out)
{
	uint8_t *buf = malloc(at->desc.strip_bytes);
	uint64_t row = ALIGN_DOWN(at->at.col_off_bytes, (uint64_t)at->desc.strip_bytes);
	unsigned c;
	size_t i;

	for (c = 0; c < at->desc.n_cols; c++) {
		sim_disk_peek(h->rig.disks, at->desc.cols[c].disk, at->desc.cols[c].off_bytes + row, buf, at->desc.strip_bytes);
		for (i = 0, out[c] = 0; i < at->desc.strip_bytes; i++)
			out[c] = out[c] * 31 + buf[i];
	}
	free(buf);
}

static void rot(struct hist *h, const struct rig_place *at, int col)
{
	uint8_t byte;

	sim_disk_peek(h->rig.disks, rig_place_disk(at, col), rig_place_off(at, col) + 7, &byte, 1);
	byte ^= 0x40;
	sim_disk_poke(h->rig.disks, rig_place_disk(at, col), rig_place_off(at, col) + 7, &byte, 1);
}

static int co_rebuild_beside_rot(struct hist *h)
{
	uint32_t before[RIG_DISKS_MAX], after[RIG_DISKS_MAX];
	struct rig_place at;
	unsigned c;

	hist_flush(h, 0);
	if (rig_co_place(&h->rig, "v0", 8192, &at) < 0)
		return -EIO;
	rot(h, &at, at.at.q);
	strip_hashes(h, &at, before);
	hist_co_fail(h, rig_place_disk(&at, at.at.p));
	hist_co_whole(h, false);
	hist_flush(h, 0);
	strip_hashes(h, &at, after);
	for (c = 0; c < at.desc.n_cols; c++)
		if ((int)c != at.at.p && before[c] != after[c])
			rig_fail(&h->rig, "the rebuild of column %d has written to column %u", at.at.p, c);
	rig_co_verify(&h->rig);
	return 0;
}

/* dRAID: a rebuild that met silent damage wrote to good columns: ZFS 8fb577ae6d; or only to the spare: ZFS 2abf469be5. */
static void rebuild_writes_to_its_target_only(void)
{
	struct hist *h = hist_begin("raid6", 12, 12 * MIB);

	hist_live(h, co_rebuild_beside_rot);
	hist_end(h);
}

static void filler_co_main(void *arg)
{
	struct hist *h = arg;
	uint64_t off;
	unsigned i;

	for (i = 0; i < 3 && !h->rig.failed; i++) {
		for (off = V0_BYTES / 2; off < V0_BYTES; off += 64 * KIB)
			hist_wr(h, 0, off, 64 * KIB, 0);
		rig_co_io_once(&h->rig, hist_vol(h, 0), RIG_DISCARD, V0_BYTES / 2, V0_BYTES / 2, 0);
	}
	h->n_busy--;
}

static int co_rebuild_under_pressure(struct hist *h)
{
	struct rig *g = &h->rig;

	if (!model_vol_find(g->model, "fill"))
		rig_co_vol_create(g, "fill", 16 * MIB, NULL, 0);
	hist_co_fail(h, 0);
	h->n_busy++;
	co_spawn(CO_SERVICE, filler_co_main, h, "filler");
	rig_co_io_once(g, model_vol_find(g->model, "fill"), RIG_WRITE, 0, 3 * MIB, 0);
	co_wait_writers(h);
	co_sleep_ns(500 * NS_PER_MS);
	return 0;
}

/* ZFS: space of a rebuilt range was handed out before the rebuild was committed: b8d9596403. */
static void space_that_a_rebuild_leaves_is_not_reused_before_the_move_is_durable(void)
{
	struct hist *h = hist_begin("raid1", 4, 7 * MIB);

	h->rig.may_be_full = true;
	hist_each_crash(h, co_rebuild_under_pressure, 40, 1);
	hist_end(h);
}

static int co_rebuild_from_unreadable(struct hist *h)
{
	struct rig *g = &h->rig;
	struct rig_place at;
	struct rig_claim c;
	unsigned good, bad;

	hist_flush(h, 0);
	if (rig_co_place(g, "v0", 24 * KIB, &at) < 0)
		return -EIO;
	bad = rig_place_disk(&at, at.at.cols[0]);
	good = rig_place_disk(&at, at.desc.layout == RAID_RAID5 ? at.at.p : at.at.cols[1]);
	sim_disk_bad_range(g->disks, bad, rig_place_off(&at, at.at.cols[0]), 512);
	hist_co_fail(h, good);
	co_sleep_ns(60 * NS_PER_SEC);
	rig_co_claim(g, &c);
	EXPECT(h, c.redundancy < (int)h->tolerates); /* not everything could be copied, and that is known */
	g->may_fail = true;
	EXPECT(h, rig_co_io_once(g, hist_vol(h, 0), RIG_READ, 24 * KIB, 512, 0) < 0);
	g->may_fail = false;
	EXPECT(h, rig_co_io_once(g, hist_vol(h, 0), RIG_READ, 24 * KIB + 512, 4096, 0) == 0);
	sim_disk_clear_bad(g->disks, bad);
	hist_co_online(h, good);
	hist_co_whole(h, true);
	rig_co_check(g, true);
	rig_co_verify(g);
	return 0;
}

/* nbdcopy: read errors were ignored, and the copy had zeros there: CVE-2022-0485 (libnbd-security). */
static void rebuild_never_makes_zeros_of_what_cannot_be_read(void)
{
	static const struct {
		const char *layout;
		unsigned disks;
	} pools[] = { { "raid1", 4 }, { "raid5", 12 } };
	unsigned i;

	for (i = 0; i < ARRAY_LEN(pools); i++) {
		struct hist *h = hist_begin(pools[i].layout, pools[i].disks, 12 * MIB);

		hist_live(h, co_rebuild_from_unreadable);
		hist_each_loss(h, 0, 1);
		hist_end(h);
	}
}

static int co_resync_from_unreadable(struct hist *h)
{
	struct rig *g = &h->rig;
	struct rig_place at;
	struct rig_claim c;
	unsigned stale, bad;
	int col;

	if (rig_co_place(g, "v0", 24 * KIB, &at) < 0)
		return -EIO;
	stale = rig_place_disk(&at, at.desc.layout == RAID_RAID5 ? at.at.p : at.at.cols[1]);
	hist_co_gone(h, stale);
	hist_wr(h, 0, 16 * KIB, 32 * KIB, IO_FUA);
	if (rig_co_place(g, "v0", 24 * KIB, &at) < 0) /* it may lie elsewhere now */
		return -EIO;
	col = at.at.cols[0];
	if (rig_place_disk(&at, col) == stale)
		col = at.desc.layout == RAID_RAID5 ? at.at.p : at.at.cols[1];
	bad = rig_place_disk(&at, col);
	sim_disk_bad_range(g->disks, bad, rig_place_off(&at, col), 512);
	hist_faults(h, stale)->gone = false;
	hist_co_online(h, stale);
	co_sleep_ns(60 * NS_PER_SEC);
	rig_co_claim(g, &c);
	EXPECT(h, c.redundancy < (int)h->tolerates);
	g->may_fail = true;
	EXPECT(h, rig_co_io_once(g, hist_vol(h, 0), RIG_READ, 24 * KIB, 512, 0) < 0);
	g->may_fail = false;
	sim_disk_clear_bad(g->disks, bad);
	hist_co_whole(h, true);
	rig_co_check(g, true);
	rig_co_verify(g);
	return 0;
}

/* The same for a disk that has come back. */
static void resync_never_makes_zeros_of_what_cannot_be_read(void)
{
	static const char *const layouts[] = { "raid1", "raid5" };
	unsigned i;

	for (i = 0; i < ARRAY_LEN(layouts); i++) {
		struct hist *h = hist_begin(layouts[i], 2 + i, 12 * MIB);

		hist_live(h, co_resync_from_unreadable);
		hist_each_loss(h, 0, 1);
		hist_end(h);
	}
}

/* ---- scrub ---- */

static int co_scrub_rot(struct hist *h)
{
	struct rig *g = &h->rig;
	struct rig_place at;

	hist_flush(h, 0);
	if (rig_co_place(g, "v0", 40 * KIB, &at) < 0)
		return -EIO;
	rot(h, &at, at.at.cols[0]);
	h->a = rig_place_disk(&at, at.at.cols[0]);
	if (at.desc.layout == RAID_RAID6)
		EXPECT(h, rig_co_scrub(g, true, UINT64_MAX) >= 1); /* P and Q tell who is wrong: it is put right */
	else
		EXPECT(h, rig_co_scrub(g, false, UINT64_MAX) >= 1); /* nothing tells: it is left as it is */
	return 0;
}

/* Btrfs: the scrub of parity recomputed it from data that was bad, and so made the damage last: K 9a33944bdf07. */
static void scrub_does_not_make_parity_agree_with_rot(void)
{
	struct hist *h = hist_begin("raid6", 5, 12 * MIB);

	hist_live(h, co_scrub_rot);
	hist_each_loss(h, 0, 2);
	hist_end(h);
	h = hist_begin("raid5", 4, 12 * MIB);
	hist_live(h, co_scrub_rot);
	if (!h->rig.failed)
		sim_disk_remove(h->rig.disks, h->a); /* the other disks still know what was there */
	h->rig.degraded = h->rig.may_be_full = true;
	hist_live(h, hist_co_look);
	hist_end(h);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(power_cut_in_a_partial_stripe_with_disks_lost_leaves_other_sectors_alone),
		TEST(old_tail_of_the_log_is_not_replayed_after_a_second_crash),
		TEST(log_that_loses_a_copy_under_writes_still_closes_the_write_hole),
		TEST(fua_write_to_new_stripes_is_there_after_a_cut_with_disks_missing),
		TEST(logged_write_is_not_replayed_over_a_later_whole_stripe),
		TEST(space_is_not_reused_while_its_discard_is_under_way),
		TEST(columns_that_could_not_be_written_are_not_believed_after_the_next_loss),
		TEST(parity_buffers_are_not_shared_between_stripes_that_are_retried),
		TEST(requests_that_a_disk_ends_after_it_was_put_out_do_no_harm),
		TEST(failed_flush_is_never_tried_again_to_success),
		TEST(split_reads_with_transient_errors_return_every_byte),
		TEST(target_of_a_rebuild_gets_the_writes_that_are_under_way_when_it_begins),
		TEST(disk_that_returns_after_another_was_rebuilt_is_brought_up_to_date),
		TEST(rebuild_writes_to_its_target_only),
		TEST(space_that_a_rebuild_leaves_is_not_reused_before_the_move_is_durable),
		TEST(rebuild_never_makes_zeros_of_what_cannot_be_read),
		TEST(resync_never_makes_zeros_of_what_cannot_be_read),
		TEST(scrub_does_not_make_parity_agree_with_rot),
		CU_TEST_INFO_NULL,
	};

	mallopt(M_MMAP_THRESHOLD, 256 << 20); /* worlds come and go: keep their memory */
	mallopt(M_TRIM_THRESHOLD, 256 << 20);
	CU_set_error_action(CUEA_IGNORE);
	return tests_run("historic", tests);
}
