/*
 * Lives of a pool with more trouble than redundancy bears: disks that stall, fail, hang and vanish, are put out and brought back, and in
 * the middle of it the pool is closed. Nobody waits for ever, and when the disks are well again everything is there. SEED in the environment.
 */
#include "tests/unit/engine_pool__historic_rig.h"
#include "tests/unit/unit.h"

#define DISK_BYTES (12 * MIB)

struct writer {
	struct hist *h;
	unsigned at;
};

static bool stop;

static void writer_co_main(void *arg)
{
	struct writer *w = arg;
	struct hist *h = w->h;
	unsigned i;

	for (i = 0; i < 4000 && !stop && !h->rig.failed; i++) {
		bool fua = (i + w->at) % 2;

		hist_wr(h, w->at % 2, w->at * 24 * KIB + i % 7 * 4096, w->at == 3 ? 24 * KIB : 4096, fua ? IO_FUA : 0);
		if (!fua)
			hist_flush(h, w->at % 2);
		if (i % 50 == 49)
			co_sleep_ns(NS_PER_MS);
	}
	h->n_busy--;
	xfree(w);
}

static void fail_co_main(void *arg)
{
	struct writer *w = arg;
	struct err e = { 0 };

	co_sleep_ns(rng_below(sim_rng(w->h->rig.w), 5 * NS_PER_MS));
	(void)!ashlar_co_disk_fail(w->h->rig.p, rig_paths[w->at], false, false, &e);
	if (rng_chance(sim_rng(w->h->rig.w), 1, 3))
		(void)!ashlar_co_disk_online(w->h->rig.p, rig_paths[w->at], NULL, &e);
	w->h->n_busy--;
	xfree(w);
}

static void spawn(struct hist *h, void (*fn)(void *arg), unsigned at)
{
	struct writer *w = xmalloc(sizeof(*w));

	*w = (struct writer){ h, at };
	h->n_busy++;
	co_spawn(CO_SERVICE, fn, w, "trouble");
}

/* Labels come through, or not. */
static void disk_trouble(struct sim_faults *f, struct rng *rng)
{
	f->stall = rng_chance(rng, 1, 3) ? 65536 : rng_chance(rng, 1, 3) ? 3000 : 0;
	f->stall_ns = rng_chance(rng, 1, 6) ? 3 * NS_PER_SEC : 2 * NS_PER_MS;
	f->calm_from_bytes = LABEL_AREA_BYTES;
	f->calm_end_bytes = rng_chance(rng, 1, 2) ? DISK_BYTES - LABEL_AREA_BYTES : 0;
	f->write_error = rng_chance(rng, 1, 3) ? 65536 : rng_chance(rng, 1, 3) ? 20000 : 0;
	f->flush_error = rng_chance(rng, 1, 6) ? 65536 : 0;
	f->hang = rng_chance(rng, 1, 25);
	f->gone = rng_chance(rng, 1, 25);
}

static void faults_clear(struct hist *h)
{
	for (unsigned i = 0; i < h->rig.n_disks; i++)
		memset(hist_faults(h, i), 0, sizeof(struct sim_faults));
}

static int co_trouble(struct hist *h)
{
	struct rng *rng = sim_rng(h->rig.w);
	unsigned i, k, n = h->rig.n_disks;

	h->rig.degraded = h->rig.may_be_full = h->rig.may_fail = true;
	stop = false;
	for (i = 0; i < 9; i++)
		spawn(h, writer_co_main, i);
	co_sleep_ns(rng_below(rng, 5 * NS_PER_MS));
	for (k = 0; k < 4; k++) {
		for (i = 0; i < n; i++)
			disk_trouble(hist_faults(h, i), rng);
		for (i = 0; i < 1 + k % 2; i++)
			spawn(h, fail_co_main, (unsigned)rng_below(rng, n));
		co_sleep_ns(rng_below(rng, rng_chance(rng, 1, 2) ? 20 * NS_PER_MS : 3 * NS_PER_SEC));
	}
	if (rng_chance(rng, 1, 3))
		faults_clear(h);
	stop = true;
	for (i = 0; h->n_busy && i < 1200; i++)
		co_sleep_ns(100 * NS_PER_MS);
	if (h->n_busy)
		rig_fail(&h->rig, "%u are not done two minutes later", h->n_busy);
	if (rng_chance(rng, 1, 2)) /* closing waits for what hangs, for a while */
		for (i = 0; i < n; i++)
			hist_faults(h, i)->hang = false;
	return 0;
}

static int co_look(struct hist *h)
{
	hist_co_look(h);
	return 0;
}

static void lives(const char *layout, unsigned n_disks, unsigned first, unsigned n)
{
	struct hist *h = hist_begin(layout, n_disks, DISK_BYTES);
	struct image start = hist_save(h);
	unsigned s, i;

	for (s = first; s < first + n && !h->rig.failed; s++) {
		hist_load(h, &start);
		rng_init(&h->rng, s);
		h->rig.may_fail = true;
		hist_live(h, co_trouble);
		faults_clear(h);
		for (i = 0; i < n_disks; i++)
			sim_disk_put_back(h->rig.disks, i);
		if (s % 2)
			hist_cut(h, SIM_CUT_RANDOM);
		h->rig.degraded = h->rig.may_be_full = true;
		h->rig.may_fail = false;
		if (!h->rig.failed)
			hist_live(h, co_look);
		if (h->rig.failed)
			fprintf(stderr, "... %s, SEED=%u: %s\n", layout, s, h->rig.why);
	}
	image_free(&start);
	hist_end(h);
}

static unsigned first_seed;

static void pools_close_and_open_in_the_middle_of_it(void)
{
	lives("raid1-3", 3, first_seed, 3);
	lives("raid5", 3, first_seed, 3);
	lives("raid5", 4, first_seed, 3);
	lives("raid6", 4, first_seed, 3);
	lives("raid6", 6, first_seed, 3);
}

/* A stripe had something due that could not be written, and it was tried again while the pool was being closed. */
static void what_is_due_is_not_tried_when_the_metadata_is_closed(void)
{
	lives("raid5", 3, 522, 1);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(pools_close_and_open_in_the_middle_of_it),
		TEST(what_is_due_is_not_tried_when_the_metadata_is_closed),
		CU_TEST_INFO_NULL,
	};

	first_seed = getenv("SEED") ? (unsigned)atoi(getenv("SEED")) : 1;
	return tests_run("trouble", tests);
}
