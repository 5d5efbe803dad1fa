/*
 * map_bench: what the thin layer adds to a read or an overwrite whose leaf is cached: looking up and translating, and the
 * whole way of a request through a volume to a device that completes at once.
 *
 *   map_bench [GIB [MILLIONS]]     size of the mapped part of the volume (default 4), rounds per figure (default 20)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/io/buf.h"
#include "tests/lib/thin_rig.h"
#include "thin/volume_internal.h"

static struct thin_rig rig;
static uint64_t mapped_bytes, rounds;

static uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_SEC + (uint64_t)t.tv_nsec;
}

/* Cheap and the same for every figure; measured alone as "nothing". */
static inline uint64_t next_off(uint64_t *s)
{
	*s = *s * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint64_t)(((unsigned __int128)(*s) * (mapped_bytes / 4096)) >> 64) * 4096;
}

static double bench_nothing(struct thin_volume *v, uint64_t *sum)
{
	uint64_t s = 1, i, t = clock_ns();

	for (i = 0; i < rounds; i++)
		*sum += next_off(&s);
	return (double)(clock_ns() - t) / (double)rounds;
}

static uint64_t translate(struct thin_volume *v, uint64_t off)
{
	struct thin_leaf *l = thin_leaf_peek(v, thin_leaf_of(v, off));
	uint16_t mask = thin_sub_mask(v, thin_in_cluster(v, off), 4096);
	struct thin_entry e;

	CHECK(l);
	e = thin_entry_load(thin_slot(v, l, off));
	CHECK((e.own_mask & mask) == mask && !e.shared);
	return (e.own << v->tr->cluster_shift) + thin_in_cluster(v, off);
}

static double bench_random(struct thin_volume *v, uint64_t *sum)
{
	uint64_t s = 1, i, t = clock_ns();

	for (i = 0; i < rounds; i++)
		*sum += translate(v, next_off(&s));
	return (double)(clock_ns() - t) / (double)rounds;
}

/* Each lookup needs the result of the one before: latency, not throughput. */
static double bench_chain(struct thin_volume *v, uint64_t *sum)
{
	uint64_t s = 1, i, t = clock_ns();

	for (i = 0; i < rounds; i++)
		s += translate(v, next_off(&s)) & 1;
	*sum += s;
	return (double)(clock_ns() - t) / (double)rounds;
}

static double bench_sequential(struct thin_volume *v, uint64_t *sum)
{
	uint64_t off = 0, i, t = clock_ns();

	for (i = 0; i < rounds; i++) {
		*sum += translate(v, off);
		off += 4096;
		if (off == mapped_bytes)
			off = 0;
	}
	return (double)(clock_ns() - t) / (double)rounds;
}

/* ---- whole requests; the device below keeps them until the bench completes them ---- */

static struct io *kept[64];
static unsigned n_kept;

static void keep_submit(struct bdev *b, struct io *io)
{
	kept[n_kept++] = io;
}

static const struct bdev_ops keep_ops = { .submit = keep_submit };

/* For filling the map: the simulated disk would keep every byte in memory. */
static void null_submit(struct bdev *b, struct io *io)
{
	io_done(io, 0);
}

static const struct bdev_ops null_ops = { .submit = null_submit };
static uint64_t n_done;

static void bench_done(struct io *io)
{
	n_done++;
}

static double bench_requests(struct thin_volume *v, enum io_op op, uint64_t len, void *buf)
{
	struct bdev below = { .ops = &keep_ops, .max_bytes = 32 * MIB, .block_bytes = 4096, .size_bytes = 1ULL << 50 };
	struct bdev *before = v->tr->space;
	uint64_t s = 1, i, t, n = rounds / 4;
	static struct io io[32];
	unsigned k;

	v->tr->space = &below;
	n_done = 0;
	t = clock_ns();
	for (i = 0; i < n; i += 32) {
		for (k = 0; k < 32; k++) {
			io_prep(&io[k], op, ALIGN_DOWN(next_off(&s), len), len, buf, 0);
			io[k].done = bench_done;
			bdev_submit(&v->bdev, &io[k]);
		}
		CHECK(n_kept == 32);
		while (n_kept)
			io_done(kept[--n_kept], 0);
	}
	t = clock_ns() - t;
	CHECK(n_done == i);
	v->tr->space = before;
	return (double)t / (double)i;
}

static int co_bench(void *arg)
{
	struct thin_vol *vol;
	struct thin_volume *v;
	struct bdev null = { .ops = &null_ops, .max_bytes = 32 * MIB, .block_bytes = 4096, .size_bytes = 1ULL << 50 }, *before;
	void *buf = buf_alloc_zero(MIB);
	uint64_t off, sum = 0;
	double base;

	CHECK(thin_rig_co_format(&rig) == 0);
	CHECK(thin_rig_co_create(&rig, "v", mapped_bytes, 0, &vol) == 0 && thin_rig_co_attach(&rig, vol) == 0);
	v = vol->open;
	before = v->tr->space;
	v->tr->space = &null;
	for (off = 0; off < mapped_bytes; off += MIB)
		CHECK(bdev_co_write(&v->bdev, off, buf, MIB, 0) == 0);
	v->tr->space = before;
	base = bench_nothing(v, &sum);
	printf("%llu GiB mapped, %u leaves\n", (unsigned long long)(mapped_bytes / GIB), v->tr->n_leaves);
	printf("%-44s %6.1f ns\n", "lookup and translate, sequential", bench_sequential(v, &sum));
	printf("%-44s %6.1f ns\n", "lookup and translate, random", bench_random(v, &sum) - base);
	printf("%-44s %6.1f ns\n", "lookup and translate, random, one by one", bench_chain(v, &sum) - base);
	printf("%-44s %6.1f ns\n", "request: 4 KiB random read", bench_requests(v, IO_READ, 4096, buf) - base);
	printf("%-44s %6.1f ns\n", "request: 4 KiB random overwrite", bench_requests(v, IO_WRITE, 4096, buf) - base);
	printf("%-44s %6.1f ns\n", "request: 1 MiB random read", bench_requests(v, IO_READ, MIB, buf) - base);
	buf_free(buf, MIB);
	thin_rig_co_detach(&rig, vol);
	return sum == 1 ? 1 : thin_rig_co_close(&rig);
}

int main(int argc, char **argv)
{
	uint64_t gib = argc > 1 ? strtoull(argv[1], NULL, 0) : 4;
	struct thin_rig_conf c = { .seed = 1, .n_reactors = 1, .block_bytes = 4096, .cluster_bytes = 64 * KIB,
				   .group_bytes = 256 * MIB, .n_groups = (unsigned)(gib * 4 + 16), .reserve_groups = 4,
				   .cache_bytes = GIB, .journal_bytes = 16 * MIB };
	int r;

	mapped_bytes = gib * GIB;
	rounds = (argc > 2 ? strtoull(argv[2], NULL, 0) : 20) * 1000000;
	thin_rig_init(&rig, &c);
	r = thin_rig_run(&rig, co_bench, NULL);
	thin_rig_restart(&rig);
	thin_rig_fini(&rig);
	return r != 0;
}
