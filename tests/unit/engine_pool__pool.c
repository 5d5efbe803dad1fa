/* The pool end to end in the simulated world: create, open, write, read, close, check. */
#include <stdio.h>
#include <string.h>

#include "engine/base/units.h"
#include "engine/io/buf.h"
#include "engine/io/sim.h"
#include "engine/pool/ashlar.h"
#include "tests/unit/unit.h"

static struct sim_disks *disks;
static const char *paths[] = { "d0", "d1", "d2", "d3" };
static unsigned n_disks = 4;

static void log_line(void *arg, const char *line)
{
	fprintf(stderr, "  log: %s\n", line);
}

static void check_say(void *arg, const char *sentence)
{
	fprintf(stderr, "  check: %s\n", sentence);
}

static struct world *world_start(uint64_t seed, unsigned reactors)
{
	struct sim_options o = { .seed = seed, .n_reactors = reactors };

	return sim_world_create(&o, disks);
}

static struct ashlar *ashlar_start(struct world *w)
{
	struct ashlar_options o = { .metadata_cache_bytes = 2 * MIB, .log = log_line };

	return ashlar_create(w, &o);
}

struct run {
	struct world *w;
	const char *layout;
	int (*body)(struct run *run, struct ashlar_pool *p);
};

static int run_create(void *arg)
{
	struct run *run = arg;
	struct ashlar *a = ashlar_start(run->w);
	struct ashlar_pool_spec s = { .name = "p", .layout = run->layout, .paths = paths, .n_paths = n_disks,
				      .cluster_bytes = 16 * KIB, .group_bytes = MIB };
	struct err e = { 0 };
	int r = ashlar_co_pool_create(a, &s, &e);

	if (r < 0)
		fprintf(stderr, "  create: %s\n", e.text);
	ashlar_co_destroy(a);
	return r;
}

static int run_open(void *arg)
{
	struct run *run = arg;
	struct ashlar *a = ashlar_start(run->w);
	struct ashlar_check_options co = { .data = true, .say = check_say };
	struct ashlar_pool *p;
	struct err e = { 0 };
	int r = ashlar_co_pool_open(a, NULL, paths, n_disks, 0, &p, &e);

	if (r == 0) {
		r = run->body(run, p);
		if (r == 0)
			r = (int)ashlar_co_pool_check(p, &co, &e);
		if (r == 0)
			r = ashlar_co_pool_close(p, &e);
		else
			ashlar_co_pool_close(p, NULL);
	}
	if (r != 0)
		fprintf(stderr, "  %d: %s\n", r, e.text);
	ashlar_co_destroy(a);
	return r;
}

static int in_world(int (*fn)(void *arg), struct run *run, uint64_t seed, unsigned reactors)
{
	int result = -EIO, r;

	run->w = world_start(seed, reactors);
	r = sim_run(run->w, fn, run, &result, 3600 * NS_PER_SEC);
	sim_world_destroy(run->w);
	return r < 0 ? r : result;
}

static int body_nothing(struct run *run, struct ashlar_pool *p)
{
	return 0;
}

static int io_there(void *arg)
{
	struct ashlar_attach *at = arg;
	struct bdev *b = ashlar_attach_bdev(at);
	uint8_t *w = buf_alloc(64 * KIB), *r = buf_alloc(64 * KIB);
	uint64_t off;
	int res = 0;

	for (off = 0; off < MIB && res == 0; off += 64 * KIB) {
		memset(w, (int)(off >> 16) + 1, 64 * KIB);
		res = bdev_co_write(b, off, w, 64 * KIB, 0);
	}
	if (res == 0)
		res = bdev_co_flush(b);
	for (off = 0; off < MIB && res == 0; off += 64 * KIB) {
		memset(w, (int)(off >> 16) + 1, 64 * KIB);
		res = bdev_co_read(b, off, r, 64 * KIB);
		if (res == 0 && memcmp(w, r, 64 * KIB))
			res = -EUCLEAN;
	}
	buf_free(w, 64 * KIB);
	buf_free(r, 64 * KIB);
	return res;
}

static int body_volume(struct run *run, struct ashlar_pool *p)
{
	struct ashlar_volume_spec s = { .name = "v", .size_bytes = 8 * MIB, .full_wait_ns = 0 };
	struct ashlar_attach *at;
	struct err e = { 0 };
	int r = ashlar_co_volume_create(p, &s, &e);

	if (r == 0)
		r = ashlar_co_attach(ashlar_pool_engine(p), "p/v", NULL, NULL, &at, &e);
	if (r < 0) {
		fprintf(stderr, "  %s\n", e.text);
		return r;
	}
	r = reactor_co_call(ashlar_attach_home(at), io_there, at);
	ashlar_co_detach(at);
	return r;
}

struct fill {
	struct ashlar_attach *at;
	uint64_t bytes, done;
};

static int fill_there(void *arg)
{
	struct fill *f = arg;
	struct bdev *b = ashlar_attach_bdev(f->at);
	uint8_t *w = buf_alloc(64 * KIB);
	int r = 0;

	memset(w, 0x5a, 64 * KIB);
	for (f->done = 0; f->done < f->bytes && r == 0; f->done += 64 * KIB)
		r = bdev_co_write(b, f->done, w, 64 * KIB, 0);
	buf_free(w, 64 * KIB);
	return r;
}

static int fill_volume(struct ashlar_pool *p, const char *name, const char *layout, uint64_t bytes)
{
	struct ashlar_volume_spec s = { .name = name, .size_bytes = bytes, .layout = layout, .full_wait_ns = 5 * NS_PER_SEC };
	char export_name[40];
	struct fill f = { .bytes = bytes };
	struct err e = { 0 };
	int r = ashlar_co_volume_create(p, &s, &e);

	snprintf(export_name, sizeof(export_name), "p/%s", name);
	if (r == 0)
		r = ashlar_co_attach(ashlar_pool_engine(p), export_name, NULL, NULL, &f.at, &e);
	if (r < 0) {
		fprintf(stderr, "  %s\n", e.text);
		return r;
	}
	r = reactor_co_call(ashlar_attach_home(f.at), fill_there, &f);
	if (r < 0)
		fprintf(stderr, "  %s: %s after %llu\n", name, err_text(r), (unsigned long long)f.done);
	ashlar_co_detach(f.at);
	return r;
}

static int body_reuse(struct run *run, struct ashlar_pool *p)
{
	struct err e = { 0 };
	int r = fill_volume(p, "mirrored", "raid1", 18 * MIB);

	if (r == 0)
		r = ashlar_co_volume_delete(p, "mirrored", false, false, false, NULL, &e);
	co_sleep_ns(10 * NS_PER_SEC);
	return r < 0 ? r : fill_volume(p, "striped", "raid0", 34 * MIB);
}

static void space_of_one_layout_serves_another(void)
{
	struct run run = { .layout = "raid1", .body = body_reuse };
	struct sim_disk_conf conf = { .size_bytes = 16 * MIB, .block_bytes = 512 };
	unsigned i;

	disks = sim_disks_create(9);
	for (i = 0; i < n_disks; i++)
		sim_disks_add(disks, paths[i], &conf);
	CU_ASSERT_EQUAL(in_world(run_create, &run, 1, 1), 0);
	CU_ASSERT_EQUAL(in_world(run_open, &run, 2, 2), 0);
	run.body = body_nothing;
	CU_ASSERT_EQUAL(in_world(run_open, &run, 3, 1), 0);
	sim_disks_destroy(disks);
}

static void try_layout(const char *layout, unsigned reactors)
{
	struct run run = { .layout = layout, .body = body_nothing };
	unsigned i;
	struct sim_disk_conf conf = { .size_bytes = 16 * MIB, .block_bytes = 512 };

	disks = sim_disks_create(7);
	for (i = 0; i < n_disks; i++)
		sim_disks_add(disks, paths[i], &conf);
	CU_ASSERT_EQUAL(in_world(run_create, &run, 1, 1), 0);
	CU_ASSERT_EQUAL(in_world(run_open, &run, 2, reactors), 0);
	run.body = body_volume;
	CU_ASSERT_EQUAL(in_world(run_open, &run, 3, reactors), 0);
	run.body = body_nothing;
	CU_ASSERT_EQUAL(in_world(run_open, &run, 4, reactors), 0);
	sim_disks_destroy(disks);
}

static void a_volume_keeps_what_was_written(void)
{
	try_layout("single", 1);
	try_layout("raid1", 1);
	try_layout("raid1", 2);
	try_layout("raid0", 2);
	try_layout("raid10", 3);
	try_layout("raid1-3", 2);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(a_volume_keeps_what_was_written),
		TEST(space_of_one_layout_serves_another),
		CU_TEST_INFO_NULL,
	};

	return tests_run("pool", tests);
}
