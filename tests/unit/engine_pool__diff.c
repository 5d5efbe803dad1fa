/* Differences between snapshots against plain arrays: nothing that differs is missing, little that does not is there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/rng.h"
#include "engine/base/units.h"
#include "engine/io/buf.h"
#include "engine/io/sim.h"
#include "engine/pool/ashlar.h"
#include "tests/unit/unit.h"

#define CLUSTER (16 * KIB)
#define SUB (CLUSTER / 16)
#define SIZE_MAX_BYTES (4 * MIB)
#define POINTS_MAX 12
#define RANGES_MAX 8192

static const char *const paths[] = {"d0", "d1"};

/* A snapshot or volume as it should be, and when each subcluster was last touched. */
struct point {
	char name[40]; /* VOLUME or VOLUME@SNAP */
	uint64_t size;
	uint8_t *bytes;
	unsigned *touched;
};

struct run {
	struct world *w;
	struct ashlar_pool *p;
	struct rng rng;
	struct point points[POINTS_MAX]; /* 0: the volume */
	unsigned n, now;
	struct ashlar_attach *at;
	/* for what runs on the volume's reactor */
	enum io_op op;
	uint64_t off, len;
	uint8_t fill;
	uint64_t snapshot;
	struct ashlar_range *v;
	size_t room, got;
	uint64_t end;
};

static void point_init(struct point *x, const char *name, const struct point *from, uint64_t size)
{
	snprintf(x->name, sizeof(x->name), "%s", name);
	x->size = size;
	x->bytes = xcalloc(1, SIZE_MAX_BYTES);
	x->touched = xcalloc(SIZE_MAX_BYTES / SUB, sizeof(unsigned));
	if (!from)
		return;
	memcpy(x->bytes, from->bytes, SIZE_MAX_BYTES);
	memcpy(x->touched, from->touched, SIZE_MAX_BYTES / SUB * sizeof(unsigned));
}

static int io_there(void *arg)
{
	struct run *run = arg;
	struct bdev *b = ashlar_attach_bdev(run->at);
	uint8_t *buf = buf_alloc(run->len);
	int r;

	memset(buf, run->fill, run->len);
	if (run->op == IO_WRITE)
		r = bdev_co_write(b, run->off, buf, run->len, 0);
	else
		r = bdev_co_zero(b, run->off, run->len, 0);
	buf_free(buf, run->len);
	return r;
}

static int step_io(struct run *run)
{
	struct point *v = &run->points[0];
	uint64_t i;

	run->len = (1 + rng_below(&run->rng, rng_below(&run->rng, 4) ? 8 : 400)) * 512;
	run->off = rng_below(&run->rng, v->size / 512) * 512;
	run->len = MIN(run->len, v->size - run->off);
	run->op = rng_below(&run->rng, 4) ? IO_WRITE : IO_ZERO;
	run->fill = (uint8_t)(1 + rng_below(&run->rng, 255));
	memset(v->bytes + run->off, run->op == IO_WRITE ? run->fill : 0, run->len);
	run->now++;
	for (i = run->off / SUB; i < DIV_UP(run->off + run->len, SUB); i++)
		v->touched[i] = run->now;
	return reactor_co_call(ashlar_attach_home(run->at), io_there, run);
}

static int step_snapshot(struct run *run)
{
	char name[40];
	const char *names[] = {name};
	struct err e = {0};
	int r;

	if (run->n == POINTS_MAX)
		return 0;
	snprintf(name, sizeof(name), "v@s%u", run->n);
	r = ashlar_co_snapshot_create(run->p, names, 1, &e);
	if (r < 0)
		fprintf(stderr, "  snapshot: %s\n", e.text);
	point_init(&run->points[run->n++], name, &run->points[0], run->points[0].size);
	return r;
}

static int step_resize(struct run *run)
{
	struct point *v = &run->points[0];
	uint64_t size = (1 + rng_below(&run->rng, SIZE_MAX_BYTES / 512)) * 512, i;
	struct err e = {0};
	int r;

	run->now++;
	for (i = size / SUB; i < DIV_UP(v->size, SUB); i++)
		v->touched[i] = run->now;
	if (size < v->size)
		memset(v->bytes + size, 0, v->size - size);
	v->size = size;
	r = ashlar_co_volume_resize(run->p, "v", size, true, &e);
	if (r < 0)
		fprintf(stderr, "  resize: %s\n", e.text);
	return r;
}

/* ---- looking: in coroutines, so a failed assertion cannot end the test by itself ---- */

#define SURE(cond)                                                                  \
	do {                                                                        \
		if (!(cond)) {                                                      \
			fprintf(stderr, "  %s:%d: %s\n", __FILE__, __LINE__, #cond); \
			abort();                                                    \
		}                                                                   \
	} while (0)

static size_t ranges_get(struct run *run, const struct point *a, const struct point *b, size_t room, struct ashlar_range *v)
{
	uint64_t off = 0, end = MAX(a->size, b->size);
	struct err e = {0};
	size_t n = 0, got, i;
	int r = 0;

	while (r == 0 && off < end) {
		got = MIN(room, RANGES_MAX - n);
		r = ashlar_co_diff(run->p, a->name, b->name, &off, v + n, &got, &e);
		for (i = 0; i < got; i++, n++) /* what a page cut is put together, as a client would */
			if (n && v[n - 1].off_bytes + v[n - 1].len_bytes == v[n].off_bytes && v[n - 1].is_data == v[n].is_data) {
				v[n - 1].len_bytes += v[n].len_bytes;
				memmove(v + n, v + n + 1, (got - i - 1) * sizeof(*v));
				n--;
			}
	}
	SURE(r == 0);
	return n;
}

/* Has anything in the cluster been touched between the two (its parts may have been put together then), or lies it beyond the end
 * of one? */
static bool may_differ(const struct point *a, const struct point *b, uint64_t off)
{
	uint64_t i, first = off / CLUSTER * (CLUSTER / SUB);

	for (i = first; i < first + CLUSTER / SUB; i++)
		if (a->touched[i] != b->touched[i])
			return true;
	return off + SUB > MIN(a->size, b->size);
}

static void ranges_judge(const struct point *a, const struct point *b, const struct ashlar_range *v, size_t n)
{
	uint64_t end = MAX(a->size, b->size), pos = 0, off;
	size_t i;

	for (i = 0; i <= n; i++) {
		uint64_t next = i < n ? v[i].off_bytes : end;

		SURE(next >= pos && next <= end);
		if (next > pos)
			SURE(next <= MIN(a->size, b->size) && !memcmp(a->bytes + pos, b->bytes + pos, next - pos));
		if (i == n)
			break;
		SURE(v[i].len_bytes > 0);
		pos = next + v[i].len_bytes;
		for (off = next; off < pos; off = (off / SUB + 1) * SUB)
			SURE(may_differ(a, b, off));
		for (off = next; !v[i].is_data && off < MIN(pos, b->size); off++)
			SURE(!b->bytes[off]);
		SURE(!v[i].is_data || pos <= b->size);
		CU_ASSERT(!i || v[i - 1].off_bytes + v[i - 1].len_bytes < next || v[i - 1].is_data != v[i].is_data);
	}
}

static int attach_there(void *arg)
{
	struct run *run = arg;
	uint64_t off = run->off;

	run->got = 0;
	while (off < run->end) {
		size_t n = MIN(run->room, RANGES_MAX - run->got);
		int r = ashlar_co_attach_diff(run->at, run->snapshot, &off, run->end, run->v + run->got, &n);

		if (r < 0)
			return r;
		run->got += n;
	}
	return 0;
}

/* What a frontend is told is the same, in whatever windows it asks. */
static void attached_is_told_the_same(struct run *run, const struct point *a, const struct ashlar_range *v, size_t n)
{
	uint8_t *want = xcalloc(1, SIZE_MAX_BYTES), *have = xcalloc(1, SIZE_MAX_BYTES);
	struct ashlar_attach_snapshot *s;
	uint64_t size = run->points[0].size;
	size_t n_snaps, i;

	SURE(ashlar_co_attach_snapshots(run->at, &s, &n_snaps) == 0);
	CU_ASSERT_EQUAL(n_snaps, run->n - 1);
	for (i = 0; i < n_snaps && strcmp(s[i].name, a->name + 2); i++)
		;
	SURE(i < n_snaps);
	run->snapshot = s[i].id;
	xfree(s);
	for (i = 0; i < n; i++)
		memset(want + v[i].off_bytes, v[i].is_data ? 2 : 1, v[i].len_bytes);
	run->v = xmalloc(RANGES_MAX * sizeof(*run->v));
	for (run->off = 0; run->off < size; run->off = run->end) {
		run->end = run->off + (1 + rng_below(&run->rng, 2000)) * 512;
		run->end = MIN(size, run->end);
		run->room = 1 + rng_below(&run->rng, 5);
		SURE(reactor_co_call(ashlar_attach_home(run->at), attach_there, run) == 0);
		for (i = 0; i < run->got; i++) {
			SURE(run->v[i].off_bytes >= run->off && run->v[i].off_bytes + run->v[i].len_bytes <= run->end);
			memset(have + run->v[i].off_bytes, run->v[i].is_data ? 2 : 1, run->v[i].len_bytes);
		}
	}
	CU_ASSERT(!memcmp(want, have, size));
	xfree(run->v);
	xfree(want);
	xfree(have);
}

static void look(struct run *run)
{
	struct ashlar_range *v = xmalloc(RANGES_MAX * sizeof(*v)), *w = xmalloc(RANGES_MAX * sizeof(*w));
	const struct point *a = &run->points[rng_below(&run->rng, run->n)], *b = &run->points[rng_below(&run->rng, run->n)];
	size_t n = ranges_get(run, a, b, RANGES_MAX, v), m = ranges_get(run, a, b, 1 + rng_below(&run->rng, 7), w), i;

	ranges_judge(a, b, v, n);
	SURE(n == m);
	for (i = 0; i < n; i++)
		SURE(v[i].off_bytes == w[i].off_bytes && v[i].len_bytes == w[i].len_bytes && v[i].is_data == w[i].is_data);
	if (a != run->points && b == run->points)
		attached_is_told_the_same(run, a, v, n);
	xfree(v);
	xfree(w);
}

/* ---- worlds ---- */

static int steps_run(struct run *run)
{
	unsigned i;
	int r = 0;

	for (i = 0; i < 400 && r == 0; i++) {
		switch (rng_below(&run->rng, 40)) {
		case 0:
			r = step_snapshot(run);
			break;
		case 1:
			r = step_resize(run);
			break;
		case 2:
		case 3:
		case 4:
			look(run);
			break;
		default:
			r = step_io(run);
		}
	}
	if (r == 0)
		look(run);
	return r;
}

static int pool_begin(struct run *run, struct ashlar *a, struct err *e)
{
	struct ashlar_pool_spec s = {.name = "p", .layout = "raid1", .paths = paths, .n_paths = 2, .cluster_bytes = CLUSTER,
				     .group_bytes = MIB};
	struct ashlar_volume_spec vs = {.name = "v", .size_bytes = 2 * MIB + 512}, other = {.name = "w", .size_bytes = MIB};
	int r = ashlar_co_pool_create(a, &s, e);

	if (r == 0)
		r = ashlar_co_pool_open(a, NULL, paths, 2, 0, &run->p, e);
	if (r == 0)
		r = ashlar_co_volume_create(run->p, &vs, e);
	if (r == 0)
		r = ashlar_co_volume_create(run->p, &other, e);
	if (r == 0)
		r = ashlar_co_attach(a, "p/v", NULL, NULL, &run->at, e);
	return r;
}

static int (*body)(struct run *run);

static int run_co(void *arg)
{
	struct run *run = arg;
	struct ashlar_options o = {.metadata_cache_bytes = 2 * MIB};
	struct ashlar *a = ashlar_create(run->w, &o);
	struct err e = {0};
	int r = pool_begin(run, a, &e);

	point_init(&run->points[run->n++], "v", NULL, 2 * MIB + 512);
	if (r == 0)
		r = body(run);
	if (run->at)
		ashlar_co_detach(run->at);
	if (run->p && ashlar_co_pool_close(run->p, &e) < 0)
		r = -EIO;
	if (r < 0)
		fprintf(stderr, "  %d: %s\n", r, e.text);
	while (run->n) {
		xfree(run->points[--run->n].bytes);
		xfree(run->points[run->n].touched);
	}
	ashlar_co_destroy(a);
	return r;
}

static void in_world(uint64_t seed, unsigned reactors, int (*fn)(struct run *run))
{
	struct run *run = calloc(1, sizeof(*run));
	struct sim_disks *disks = sim_disks_create(seed);
	struct sim_options o = {.seed = seed, .n_reactors = reactors};
	struct sim_disk_conf conf = {.size_bytes = 64 * MIB, .block_bytes = 512};
	int result = -EIO, r;

	sim_disks_add(disks, "d0", &conf);
	sim_disks_add(disks, "d1", &conf);
	rng_init(&run->rng, seed);
	body = fn;
	run->w = sim_world_create(&o, disks);
	r = sim_run(run->w, run_co, run, &result, 3600 * NS_PER_SEC);
	sim_world_destroy(run->w);
	sim_disks_destroy(disks);
	free(run);
	CU_ASSERT_EQUAL(r, 0);
	CU_ASSERT_EQUAL(result, 0);
	if (r || result)
		fprintf(stderr, "  seed %llu\n", (unsigned long long)seed);
}

static void differences_are_those_of_plain_arrays(void)
{
	uint64_t seed;

	for (seed = 1; seed <= 30; seed++)
		in_world(seed, 1 + (unsigned)seed % 3, steps_run);
}

static int refusals_run(struct run *run)
{
	static const struct {
		const char *from, *to;
		int code;
	} bad[] = {
		{"v@s1", "w", -EINVAL}, {"v@none", "v", -ENOENT}, {"v", "none", -ENOENT}, {"none@s1", "v", -ENOENT}, {"", "v", -ENOENT},
		{"v@", "v", -EINVAL}, {"v@s1@s1", "v", -EINVAL},
	};
	struct ashlar_range v[2];
	uint64_t off;
	size_t i, n;
	int r = step_snapshot(run);

	for (i = 0; i < ARRAY_LEN(bad); i++) {
		struct err e = {0};

		off = 0;
		n = 2;
		CU_ASSERT_EQUAL(ashlar_co_diff(run->p, bad[i].from, bad[i].to, &off, v, &n, &e), bad[i].code);
		CU_ASSERT(strlen(e.text) > 20);
	}
	off = 0;
	n = 2;
	CU_ASSERT_EQUAL(ashlar_co_diff(run->p, "v@s1", "v", &off, v, &n, NULL), 0);
	CU_ASSERT(n == 0 && off == run->points[0].size);
	return r;
}

static void what_is_not_there_or_not_related_is_refused(void)
{
	in_world(1, 1, refusals_run);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(differences_are_those_of_plain_arrays),
		TEST(what_is_not_there_or_not_related_is_refused),
		CU_TEST_INFO_NULL,
	};

	return tests_run("diff", tests);
}
