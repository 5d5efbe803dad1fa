/*
 * Every layout, every pool of up to 12 disks, every set of disks that the layout allows to be lost: all data reads right, writes go
 * on, redundancy comes back by rebuild where there is room and by the disks' return where not, and then another set may be lost.
 * Half of the sets vanish in service, the others are missing when the pool is opened.
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/units.h"
#include "engine/pool/pool_internal.h"
#include "tests/lib/sim_rig.h"
#include "tests/unit/unit.h"

#define LIMIT_NS (3600 * NS_PER_SEC)
#define WHOLE_NS (600 * NS_PER_SEC)

struct loss {
	struct rig rig;
	struct rng rng;
	struct raid_profile prof;
	uint32_t set, next; /* lost first; lost after redundancy is back */
	bool in_service;
};

static unsigned n_sets, n_rebuilt, n_failed;

static bool fails(struct loss *l)
{
	return l->rig.failed;
}

static struct model_vol *vol(struct loss *l, unsigned i)
{
	return model_vol(l->rig.model, i);
}

static void co_write_some(struct loss *l, unsigned n)
{
	uint64_t off, len;
	unsigned i;

	for (i = 0; i < n && !fails(l); i++) {
		struct model_vol *v = vol(l, i % 2);

		len = 512 * (1 + rng_below(&l->rng, i % 3 ? 24 : 200));
		off = ALIGN_DOWN(rng_below(&l->rng, v->size_bytes), 512ULL);
		rig_co_io_once(&l->rig, v, RIG_WRITE, off, MIN(len, v->size_bytes - off), rng_chance(&l->rng, 1, 4) ? IO_FUA : 0);
	}
	rig_co_io_once(&l->rig, vol(l, 0), RIG_FLUSH, 0, 0, 0);
}

static int co_fill(void *arg)
{
	struct loss *l = arg;
	struct rig *g = &l->rig;
	uint64_t off;
	int r = rig_co_create(g);

	if (r == 0)
		r = rig_co_open(g, 0);
	if (r == 0)
		r = rig_co_vol_create(g, "v0", MIB, NULL, 0);
	if (r == 0)
		r = rig_co_vol_create(g, "v1", 320 * KIB, NULL, 0);
	for (off = 0; off < MIB && r == 0; off += 256 * KIB)
		r = rig_co_io_once(g, vol(l, 0), RIG_WRITE, off, 256 * KIB, 0);
	co_write_some(l, 12);
	if (r == 0)
		rig_co_close(g);
	return fails(l) ? -EUCLEAN : r;
}

/* ---- losing ---- */

static void set_gone(struct loss *l, uint32_t set, bool gone)
{
	unsigned i;

	for (i = 0; i < l->rig.n_disks; i++) {
		if (!(set >> i & 1))
			continue;
		sim_disk_faults(l->rig.disks, i)->gone = gone;
		if (gone)
			sim_disk_remove(l->rig.disks, i);
		else
			sim_disk_put_back(l->rig.disks, i);
	}
}

static int widest(void *arg, const struct pool_group_disk *rec)
{
	unsigned *cols = arg;

	*cols = MAX(*cols, rec->n_cols);
	return 0;
}

/* Are there disks enough beside the lost ones for every group? They are mostly empty. */
static bool co_has_room(struct loss *l, uint32_t lost)
{
	unsigned cols = 0;

	if (pool_co_each_group(l->rig.p, widest, &cols) < 0)
		rig_fail(&l->rig, "the group table cannot be read");
	return l->rig.n_disks - (unsigned)__builtin_popcount(lost) >= cols;
}

static void co_come_back(struct loss *l, uint32_t set)
{
	struct err e = { 0 };
	unsigned i;
	int r;

	set_gone(l, set, false);
	for (i = 0; i < l->rig.n_disks && !fails(l); i++) {
		if (!(set & rig_away(&l->rig) & 1U << i))
			continue;
		r = ashlar_co_disk_online(l->rig.p, rig_paths[i], NULL, &e);
		if (r < 0)
			rig_fail(&l->rig, "disk online %s: %s (%d)", rig_paths[i], e.text, r);
	}
}

/* Also of a disk that nobody reads or writes: it gets a label every now and then. */
static void co_expect_away(struct loss *l, uint32_t lost)
{
	unsigned i;

	for (i = 0; i < 600 && (rig_away(&l->rig) & lost) != lost; i++)
		co_sleep_ns(100 * NS_PER_MS);
	if ((rig_away(&l->rig) & lost) != lost)
		rig_fail(&l->rig, "disks %x are lost, and %x are said to be away", lost, rig_away(&l->rig));
}

static void co_expect_degraded(struct loss *l, uint32_t lost)
{
	struct rig_claim c;

	rig_co_claim(&l->rig, &c);
	if (c.redundancy < (int)raid_profile_tolerates(l->prof) - __builtin_popcount(lost))
		rig_fail(&l->rig, "disks %x are lost, and redundancy is said to be %d", lost, c.redundancy);
}

/* Some have been lost. Reads, writes, redundancy again. */
static void co_live_on(struct loss *l, uint32_t lost)
{
	struct rig *g = &l->rig;

	rig_co_verify(g);
	co_write_some(l, 8);
	co_expect_away(l, lost);
	if (fails(l))
		return;
	if (co_has_room(l, lost)) {
		rig_co_wait_whole(g, false, WHOLE_NS);
		n_rebuilt++;
	} else {
		co_expect_degraded(l, lost);
		co_come_back(l, lost);
		rig_co_wait_whole(g, true, WHOLE_NS);
	}
	co_write_some(l, 4);
	if (!fails(l))
		rig_co_check(g, true);
	rig_co_verify(g);
}

static int co_lose(void *arg)
{
	struct loss *l = arg;
	struct rig *g = &l->rig;
	int r = rig_co_open(g, 0);

	if (r < 0)
		return r;
	if (l->in_service)
		set_gone(l, l->set, true);
	co_live_on(l, l->set);
	if (fails(l))
		return -EUCLEAN;
	set_gone(l, l->next, true);
	rig_co_verify(g);
	co_write_some(l, 4);
	co_expect_away(l, l->next);
	if (fails(l))
		return -EUCLEAN;
	co_come_back(l, l->set | l->next);
	rig_co_wait_whole(g, true, WHOLE_NS);
	if (fails(l))
		return -EUCLEAN;
	rig_co_check(g, true);
	rig_co_verify(g);
	rig_co_close(g);
	return fails(l) ? -EUCLEAN : 0;
}

/* ---- all of them ---- */

static void run(struct loss *l, int (*fn)(void *arg))
{
	int r, result = 0;

	rig_world_start(&l->rig, rng_next(&l->rng));
	r = sim_run(l->rig.w, fn, l, &result, LIMIT_NS);
	if ((r < 0 || result < 0) && !fails(l))
		rig_fail(&l->rig, "%s", r == -EDEADLK ? "deadlock" : r < 0 ? "it does not end" : err_text(result));
	rig_world_drop(&l->rig);
	model_crash(l->rig.model);
}

static void lose_set(const struct loss *filled, uint32_t set)
{
	struct loss *l = calloc(1, sizeof(*l));
	unsigned n = filled->rig.n_disks, i = (unsigned)__builtin_ctz(set);

	*l = *filled;
	l->rig.disks = sim_disks_clone(filled->rig.disks);
	l->rig.model = model_clone(filled->rig.model);
	l->rig.degraded = l->rig.may_be_full = true;
	l->set = set;
	l->next = (set << 1 | set >> (n - 1)) & ((1U << n) - 1);
	l->in_service = n_sets++ % 2;
	rng_init(&l->rng, set + 1000 * n + i);
	if (!l->in_service)
		for (i = 0; i < n; i++)
			if (set >> i & 1)
				sim_disk_remove(l->rig.disks, i);
	run(l, co_lose);
	if (fails(l)) {
		fprintf(stderr, "%s on %u disks, %x lost %s, then %x: FAILED\n", l->rig.layout, n, set,
			l->in_service ? "in service" : "while it was closed", l->next);
		n_failed++;
	}
	sim_disks_destroy(l->rig.disks);
	model_destroy(l->rig.model);
	free(l);
}

static void lose_sets_of(const char *layout, unsigned n)
{
	struct sim_disk_conf conf = { .size_bytes = 12 * MIB, .block_bytes = 512 };
	struct loss *l = calloc(1, sizeof(*l));
	unsigned i, failed = n_failed;
	uint32_t set;

	CHECK(raid_profile_parse(layout, &l->prof) == 0);
	l->rig = (struct rig){ .layout = layout, .n_disks = n, .n_reactors = 1 + n % 2, .block_bytes = 512, .cluster_bytes = 8192,
			       .group_bytes = MIB, .cache_bytes = MIB };
	l->rig.settings = (struct ashlar_pool_settings){ .rebuild_delay_ns = 0, .pace_floor_bps = 64 * MIB,
							 .hedge_ns = 100 * NS_PER_MS, .timeout_ns = 5 * NS_PER_SEC };
	l->rig.disks = sim_disks_create(n);
	l->rig.model = model_create();
	rng_init(&l->rng, n);
	for (i = 0; i < n; i++)
		sim_disks_add(l->rig.disks, rig_paths[i], &conf);
	run(l, co_fill);
	n_failed += fails(l);
	for (set = 1; set < 1U << n && n_failed == failed; set++)
		if (__builtin_popcount(set) <= (int)raid_profile_tolerates(l->prof))
			lose_set(l, set);
	sim_disks_destroy(l->rig.disks);
	model_destroy(l->rig.model);
	free(l);
}

static void lose_all_sets(const char *layout)
{
	struct raid_profile prof;
	unsigned n, before = n_sets, rebuilt = n_rebuilt;

	n_failed = 0;
	CHECK(raid_profile_parse(layout, &prof) == 0);
	for (n = raid_profile_min_disks(prof); n <= RIG_DISKS_MAX; n++)
		lose_sets_of(layout, n);
	printf("%s: %u sets of lost disks, %u rebuilt elsewhere\n", layout, n_sets - before, n_rebuilt - rebuilt);
	CU_ASSERT_EQUAL(n_failed, 0);
}

static void raid1_survives_every_lost_disk(void) { lose_all_sets("raid1"); }
static void raid1_of_three_survives_every_two_lost_disks(void) { lose_all_sets("raid1-3"); }
static void raid10_survives_every_lost_disk(void) { lose_all_sets("raid10"); }
static void raid10_of_three_survives_every_two_lost_disks(void) { lose_all_sets("raid10-3"); }
static void raid5_survives_every_lost_disk(void) { lose_all_sets("raid5"); }
static void raid6_survives_every_two_lost_disks(void) { lose_all_sets("raid6"); }

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(raid1_survives_every_lost_disk),
		TEST(raid1_of_three_survives_every_two_lost_disks),
		TEST(raid10_survives_every_lost_disk),
		TEST(raid10_of_three_survives_every_two_lost_disks),
		TEST(raid5_survives_every_lost_disk),
		TEST(raid6_survives_every_two_lost_disks),
		CU_TEST_INFO_NULL,
	};
	int r;

	mallopt(M_MMAP_THRESHOLD, 256 << 20); /* worlds come and go: keep their memory */
	mallopt(M_TRIM_THRESHOLD, 256 << 20);
	r = tests_run("losses", tests);
	printf("%u sets of lost disks\n", n_sets);
	return r;
}
