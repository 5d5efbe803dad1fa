/*
 * Notes: what frontends keep with volumes, over restarts and power cuts at any moment.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/base.h"
#include "engine/base/units.h"
#include "engine/io/sim.h"
#include "engine/pool/ashlar.h"
#include "tests/unit/unit.h"

static struct sim_disks *disks;
static const char *paths[] = { "d0", "d1" };

struct run {
	struct world *w;
	bool create, keep_open;
	int (*body)(struct ashlar_pool *p);
};

static int run_co(void *arg)
{
	struct run *run = arg;
	struct ashlar_options o = { .metadata_cache_bytes = 2 * MIB };
	struct ashlar *a = ashlar_create(run->w, &o);
	struct ashlar_pool_spec s = { .name = "p", .paths = paths, .n_paths = 2, .cluster_bytes = 16 * KIB, .group_bytes = MIB };
	struct ashlar_check_options co = { 0 };
	struct ashlar_pool *p;
	struct err e = { 0 };
	int r = run->create ? ashlar_co_pool_create(a, &s, &e) : 0;

	if (r == 0)
		r = ashlar_co_pool_open(a, NULL, paths, 2, 0, &p, &e);
	if (r == 0) {
		r = run->body(p);
		if (r == 0)
			r = (int)ashlar_co_pool_check(p, &co, &e);
		ashlar_co_pool_close(p, NULL);
	}
	if (r)
		fprintf(stderr, "  %d: %s\n", r, e.text);
	ashlar_co_destroy(a);
	return r;
}

/* -ECANCELED: the stop point was hit, and the power has gone. */
static int in_world(uint64_t seed, bool create, int (*body)(struct ashlar_pool *p))
{
	struct sim_options o = { .seed = seed, .n_reactors = 2 };
	struct run run = { .create = create, .body = body };
	struct rng rng;
	int result = -EIO, r;

	run.w = sim_world_create(&o, disks);
	alloc_track_begin();
	r = sim_run(run.w, run_co, &run, &result, 3600 * NS_PER_SEC);
	sim_world_destroy(run.w);
	alloc_track_drop();
	if (r == -ECANCELED) {
		rng_init(&rng, seed);
		sim_disks_power_cut(disks, SIM_CUT_RANDOM, &rng);
	}
	return r < 0 ? r : result;
}

static void disks_new(uint64_t seed)
{
	struct sim_disk_conf c = { .size_bytes = 64 * MIB, .block_bytes = 512 };

	if (disks)
		sim_disks_destroy(disks);
	disks = sim_disks_create(seed);
	sim_disks_add(disks, paths[0], &c);
	sim_disks_add(disks, paths[1], &c);
}

/* ---- notes whose contents tell which they are ---- */

static void fill(uint8_t *buf, size_t len, unsigned mark)
{
	size_t i;

	for (i = 0; i < len; i++)
		buf[i] = (uint8_t)(mark * 31 + i * 7 + (i >> 8));
}

static int put(struct ashlar_pool *p, const char *volume, unsigned key, size_t len, unsigned mark)
{
	uint8_t *buf = xmalloc(len + 1);
	int r;

	fill(buf, len, mark);
	r = ashlar_co_note_set(p, volume, key, buf, len, NULL);
	xfree(buf);
	return r;
}

static bool is(struct ashlar_pool *p, const char *volume, unsigned key, size_t len, unsigned mark)
{
	uint8_t *want = xmalloc(len + 1);
	void *data;
	size_t n;
	bool same = ashlar_co_note_get(p, volume, key, &data, &n, NULL) == 0 && n == len;

	fill(want, len, mark);
	same = same && (!len || !memcmp(data, want, len));
	xfree(data);
	xfree(want);
	return same;
}

#define EXPECT(cond)                                                                      \
	do {                                                                              \
		if (!(cond)) {                                                            \
			fprintf(stderr, "  %s:%d: %s\n", __FILE__, __LINE__, #cond);      \
			return -EUCLEAN;                                                  \
		}                                                                         \
	} while (0)

static int volumes_make(struct ashlar_pool *p)
{
	struct ashlar_volume_spec s = { .name = "v", .size_bytes = MIB };

	EXPECT(ashlar_co_volume_create(p, &s, NULL) == 0);
	s.name = "w";
	EXPECT(ashlar_co_volume_create(p, &s, NULL) == 0);
	return 0;
}

static const size_t sizes[] = { 1, 1016, 1017, 1024, 5000, ASHLAR_NOTE_MAX, 3, 2048 };

static int replace_in_all_sizes(struct ashlar_pool *p)
{
	unsigned i;

	EXPECT(volumes_make(p) == 0);
	EXPECT(is(p, "v", 0, 0, 0));
	for (i = 0; i < ARRAY_LEN(sizes); i++) {
		EXPECT(put(p, "v", 0, sizes[i], i) == 0 && put(p, "v", 7, sizes[i], i + 100) == 0);
		EXPECT(is(p, "v", 0, sizes[i], i) && is(p, "v", 7, sizes[i], i + 100) && is(p, "w", 0, 0, 0) && is(p, "v", 1, 0, 0));
	}
	EXPECT(put(p, "v", 0, ASHLAR_NOTE_MAX + 1, 1) == -E2BIG && is(p, "v", 0, 2048, ARRAY_LEN(sizes) - 1));
	EXPECT(put(p, "v", 0, 0, 0) == 0 && is(p, "v", 0, 0, 0) && is(p, "v", 7, 2048, 107));
	EXPECT(put(p, "none", 0, 1, 1) == -ENOENT);
	return 0;
}

static int still_there_then_gone(struct ashlar_pool *p)
{
	struct ashlar_note *v;
	size_t n;

	EXPECT(is(p, "v", 7, 2048, 107) && put(p, "w", 7, 9000, 5) == 0);
	EXPECT(ashlar_co_volume_rename(p, "v", "u", NULL) == 0 && is(p, "u", 7, 2048, 107));
	EXPECT(ashlar_co_note_list(p, 7, &v, &n, NULL) == 0 && n == 2);
	EXPECT(!strcmp(v[0].volume, "u") && v[0].len == 2048 && !strcmp(v[1].volume, "w") && v[1].len == 9000);
	ashlar_notes_free(v, n);
	EXPECT(ashlar_co_note_list(p, 0, &v, &n, NULL) == 0 && n == 0);
	EXPECT(ashlar_co_volume_delete(p, "u", false, false, false, NULL, NULL) == 0);
	EXPECT(ashlar_co_note_list(p, 7, &v, &n, NULL) == 0 && n == 1);
	ashlar_notes_free(v, n);
	return 0;
}

static void notes_go_with_their_volume(void)
{
	disks_new(1);
	CU_ASSERT(in_world(1, true, replace_in_all_sizes) == 0);
	CU_ASSERT(in_world(2, false, still_there_then_gone) == 0);
}

/* ---- power cuts ---- */

static unsigned acknowledged, handed_in;

static int write_on_and_on(struct ashlar_pool *p)
{
	for (handed_in = acknowledged + 1; handed_in < 12; handed_in++) {
		EXPECT(put(p, "v", 3, sizes[handed_in % ARRAY_LEN(sizes)], handed_in) == 0);
		acknowledged = handed_in;
	}
	return 0;
}

static int old_or_new(struct ashlar_pool *p)
{
	bool old = acknowledged ? is(p, "v", 3, sizes[acknowledged % ARRAY_LEN(sizes)], acknowledged) : is(p, "v", 3, 0, 0);

	EXPECT(old || is(p, "v", 3, sizes[handed_in % ARRAY_LEN(sizes)], handed_in));
	EXPECT(put(p, "v", 3, 7000, 77) == 0 && is(p, "v", 3, 7000, 77));
	return 0;
}

static void a_power_cut_leaves_the_old_or_the_new_one(void)
{
	unsigned i, n_cut = 0;
	uint64_t from;
	int r;

	for (i = 0; i < 60; i++) {
		disks_new(i);
		acknowledged = handed_in = 0;
		CU_ASSERT_FATAL(in_world(i, true, volumes_make) == 0);
		from = sim_disks_n_events(disks);
		sim_disks_stop_at(disks, from + 30 + 4 * i);
		r = in_world(i, false, write_on_and_on);
		n_cut += r == -ECANCELED;
		sim_disks_stop_at(disks, UINT64_MAX);
		CU_ASSERT_FATAL(r == 0 || r == -ECANCELED);
		CU_ASSERT(in_world(i + 1000, false, old_or_new) == 0);
	}
	CU_ASSERT(n_cut > 10);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(notes_go_with_their_volume),
		TEST(a_power_cut_leaves_the_old_or_the_new_one),
		CU_TEST_INFO_NULL,
	};
	int r = tests_run("notes", tests);

	if (disks)
		sim_disks_destroy(disks);
	return r;
}
