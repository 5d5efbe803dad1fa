/*
 * A disk is put out while clients write, and the power goes at every step of it: before, while and after the labels say so. What was
 * acknowledged without that disk must not be undone when it is back and some label calls it current.
 */
#include "tests/unit/engine_pool__historic_rig.h"

#include "tests/unit/unit.h"

#define ROUNDS 3		/* of each way, each with another disk */
#define STEPS_MAX 200		/* events of the disks from the beginning of the end, */
#define STEPS_DENSE 16		/* farther and farther apart */
#define N_AGAIN 6 /* writers */
#define N_NEW 2
#define N_WRITES 12 /* of each */
#define DISK_BYTES (12 * MIB)

enum way { BY_COMMAND, BY_WRITE_ERROR, BY_FLUSH_ERROR, N_WAYS };

struct writer {
	struct hist *h;
	unsigned at;
};

static unsigned leaver;
static enum way way;
static uint64_t from, to; /* events */

/* One place again and again: what was there before is what must not come back. Or places where nothing was, in stripes of which something
 * is there: that must keep its parity. */
static void writer_co_main(void *arg)
{
	struct writer *w = arg;
	struct hist *h = w->h;
	unsigned i;

	for (i = 0; i < N_WRITES && !h->rig.failed; i++) {
		bool fua = (i + w->at) % 2;

		if (w->at >= N_AGAIN) {
			hist_wr(h, 0, V0_BYTES / 2 + (i * N_NEW + w->at - N_AGAIN) * 8 * KIB + 512, 3 * KIB, 0);
			hist_flush(h, 0);
			continue;
		}
		hist_wr(h, w->at % 2, w->at * 24 * KIB, 4096, fua ? IO_FUA : 0);
		if (!fua)
			hist_flush(h, w->at % 2);
	}
	h->n_busy--;
	xfree(w);
}

static void co_writers(struct hist *h)
{
	unsigned i;

	for (i = 0; i < N_AGAIN + N_NEW; i++) {
		struct writer *w = xmalloc(sizeof(*w));

		*w = (struct writer){ h, i };
		h->n_busy++;
		co_spawn(CO_SERVICE, writer_co_main, w, "writer");
	}
}

static int co_leave(struct hist *h)
{
	struct sim_faults *f = hist_faults(h, leaver);

	co_writers(h);
	co_sleep_ns(NS_PER_MS); /* they have their leases */
	hist_labels_slow(h, DISK_BYTES);
	h->rig.degraded = h->rig.may_be_full = true;
	from = sim_disks_n_events(h->rig.disks);
	f->write_error = way == BY_WRITE_ERROR ? 65536 : 0;
	f->flush_error = way == BY_FLUSH_ERROR ? 65536 : 0;
	if (way == BY_COMMAND)
		hist_co_fail(h, leaver);
	while (h->n_busy)
		co_sleep_ns(100 * NS_PER_US);
	to = sim_disks_n_events(h->rig.disks);
	return 0;
}

static void crash_and_look(struct hist *h, const struct image *start, uint64_t seed, uint64_t at)
{
	struct image cut;
	unsigned c;

	hist_load(h, start);
	rng_init(&h->rng, seed);
	if (hist_live_to(h, co_leave, at) != -ECANCELED)
		rig_fail(&h->rig, "the second time it went another way");
	cut = hist_save(h);
	for (c = 0; c < 2 && !h->rig.failed; c++) {
		hist_load(h, &cut);
		rng_init(&h->rng, at + c);
		hist_cut(h, c ? SIM_CUT_ALL : SIM_CUT_NONE);
		h->rig.degraded = h->rig.may_be_full = true;
		hist_live(h, hist_co_look);
		h->n_states++;
	}
	image_free(&cut);
}

static void leave_and_crash(const char *layout, unsigned n_disks)
{
	struct hist *h = hist_begin(layout, n_disks, DISK_BYTES);
	struct image start = hist_save(h);
	unsigned round;
	uint64_t at, end;

	for (round = 0; round < ROUNDS * N_WAYS && !h->rig.failed; round++) {
		way = round % N_WAYS;
		leaver = round / N_WAYS % n_disks;
		hist_load(h, &start);
		rng_init(&h->rng, round);
		hist_live(h, co_leave);
		end = MIN(from + STEPS_MAX, to);
		for (at = from + 1; at < end && !h->rig.failed; at += 1 + (at - from) / STEPS_DENSE)
			crash_and_look(h, &start, round, at);
		if (h->rig.failed)
			fprintf(stderr, "... round %u, step %u of %u\n", round, (unsigned)(at - 1 - from), (unsigned)(to - from));
	}
	printf("    %u states\n", h->n_states);
	CU_ASSERT(h->n_states > 100);
	image_free(&start);
	hist_end(h);
}

static void what_a_leaving_mirror_disk_missed_stays(void) { leave_and_crash("raid1", 2); }
static void what_a_leaving_raid5_disk_missed_stays(void) { leave_and_crash("raid5", 3); }
static void what_a_leaving_raid6_disk_missed_stays(void) { leave_and_crash("raid6", 4); }

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(what_a_leaving_mirror_disk_missed_stays),
		TEST(what_a_leaving_raid5_disk_missed_stays),
		TEST(what_a_leaving_raid6_disk_missed_stays),
		CU_TEST_INFO_NULL,
	};

	return tests_run("leaving", tests);
}
