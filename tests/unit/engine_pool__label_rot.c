/*
 * Whether the pool can go on without a disk is looked up while labels are being written, in metadata that may have to be read, from copies
 * that may be bad.
 */
#include "engine/meta/meta_internal.h"
#include "tests/unit/engine_pool__historic_rig.h"
#include "tests/unit/unit.h"

#define DISK_BYTES (12 * MIB)

static unsigned rotten;
static bool is_over;
static bool stays; /* the other disk takes no write at all any more */
static unsigned n_repaired;

static void fail_co_main(void *arg)
{
	hist_co_fail(arg, 0);
	is_over = true;
}

/* Labels are under way that say that a disk is out; another one does not take its label: whether it can be spared is looked up in the
 * group table, which is not in memory, and one of its copies is rotten. */
static int co_rotten(struct hist *h)
{
	uint64_t n;
	unsigned i;

	is_over = false;
	hist_labels_slow(h, DISK_BYTES);
	h->rig.degraded = h->rig.may_be_full = true;
	hist_faults(h, 1)->write_error = 65536;
	n = sim_disk_n_ops(h->rig.disks, 1, IO_WRITE);
	co_spawn(CO_SERVICE, fail_co_main, h, "fail");
	while (!h->rig.p->unsettled)
		co_sleep_ns(10 * NS_PER_US);
	h->rig.p->meta->max_pages = 0;
	meta_cache_shrink(h->rig.p->meta);
	hist_faults(h, rotten)->bit_rot = 65536;
	while (sim_disk_n_ops(h->rig.disks, 1, IO_WRITE) < n + 2) /* both places of its label */
		co_sleep_ns(10 * NS_PER_US);
	if (!stays)
		hist_faults(h, 1)->write_error = 0;
	for (i = 0; i < 1000 && !is_over; i++)
		co_sleep_ns(NS_PER_MS);
	n_repaired += (unsigned)h->rig.p->meta->repaired;
	hist_faults(h, rotten)->bit_rot = 0;
	for (i = 0; i < 6000 && !is_over; i++)
		co_sleep_ns(100 * NS_PER_MS);
	if (!is_over)
		rig_fail(&h->rig, "ten minutes later the disk is not out, rot on disk %u", rotten);
	return 0;
}

/* As a disk is put out by command, the group table is not in memory; a page of it comes from a disk whose label cannot be read. */
static int co_unreadable(struct hist *h)
{
	unsigned i;

	is_over = false;
	h->rig.degraded = h->rig.may_be_full = true;
	co_sleep_ns(20 * NS_PER_SEC);
	h->rig.p->meta->max_pages = 0;
	meta_cache_shrink(h->rig.p->meta);
	hist_faults(h, rotten)->read_error = 30000;
	co_spawn(CO_SERVICE, fail_co_main, h, "fail");
	for (i = 0; i < 6000 && !is_over; i++) {
		if (i == 20)
			hist_faults(h, rotten)->read_error = 0;
		co_sleep_ns(100 * NS_PER_MS);
	}
	if (!is_over)
		rig_fail(&h->rig, "ten minutes later the disk is not out, label unreadable on disk %u", rotten);
	return 0;
}

static void each_rotten(const char *layout, unsigned n_disks, int (*co_body)(struct hist *h), unsigned rounds)
{
	struct hist *h = hist_begin(layout, n_disks, DISK_BYTES);
	struct image start = hist_save(h);
	unsigned s;

	n_repaired = 0;
	for (s = 0; s < rounds * (n_disks - 1) && !h->rig.failed; s++) {
		rotten = 1 + s % (n_disks - 1);
		hist_load(h, &start);
		rng_init(&h->rng, s);
		h->rig.may_fail = true;
		hist_live(h, co_body);
		if (h->rig.failed)
			fprintf(stderr, "... %s, round %u: %s\n", layout, s, h->rig.why);
	}
	image_free(&start);
	hist_end(h);
}

static void rot_is_repaired_while_labels_are_written(void)
{
	for (unsigned i = 0; i < 2; i++) {
		stays = i;
		each_rotten("raid1-3", 3, co_rotten, 1);
		CU_ASSERT(stays || n_repaired > 0);
		each_rotten("raid6", 4, co_rotten, 1);
		CU_ASSERT(stays || n_repaired > 0);
	}
}

static void a_disk_is_put_out_whose_place_cannot_be_read_from_another(void)
{
	each_rotten("raid1-3", 3, co_unreadable, 10);
	each_rotten("raid6", 4, co_unreadable, 10);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(rot_is_repaired_while_labels_are_written),
		TEST(a_disk_is_put_out_whose_place_cannot_be_read_from_another),
		CU_TEST_INFO_NULL,
	};

	return tests_run("labels and rot", tests);
}
