/*
 * What the tests of send and receive share: two pools in one engine in the simulated world, a volume `v` in pool a with four
 * snapshots whose contents are kept in plain arrays, and their streams in memory.
 */
#ifndef TESTS_UNIT_ENGINE_POOL__SEND_H
#define TESTS_UNIT_ENGINE_POOL__SEND_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <CUnit/Basic.h>

#include "engine/base/units.h"
#include "engine/io/net.h"
#include "engine/io/sim.h"
#include "engine/pool/ashlar.h"

#define N_SNAPS 4
#define SIZE_MAX_BYTES (3 * MIB)
#define LIMIT_NS (36000 * NS_PER_SEC)

struct bytes {
	uint8_t *p;
	size_t len;
};

struct two {
	struct sim_disks *disks;
	struct world *w;
	struct ashlar *a;
	struct ashlar_pool *src, *dst;
	struct rng rng;
	uint8_t *now, *image[N_SNAPS]; /* SIZE_MAX_BYTES each */
	uint64_t size, size_of[N_SNAPS];
	struct bytes whole[N_SNAPS], inc[N_SNAPS]; /* inc[i]: from snapshot i - 1 */
	struct err e;
	int (*body)(struct two *t);
	uint32_t src_cluster, dst_cluster;
	unsigned i; /* for bodies */
	bool quiet;
};

static const char *const two_src[] = { "d0", "d1" }, *const two_dst[] = { "d2", "d3", "d4" };

/* A test's own "this must hold": prints and counts. */
#define MUST(cond) two_must(cond, #cond, __LINE__)
static inline void two_must(bool ok, const char *text, int line)
{
	if (!ok)
		fprintf(stderr, "  line %d: %s\n", line, text);
	CU_ASSERT(ok);
}

/* ---- worlds ---- */

static inline int two_co_frame(void *arg)
{
	struct two *t = arg;
	struct ashlar_options o = { .metadata_cache_bytes = 2 * MIB };
	int r;

	t->a = ashlar_create(t->w, &o);
	r = ashlar_co_pool_open(t->a, "a", two_src, 2, 0, &t->src, &t->e);
	if (r == 0)
		r = ashlar_co_pool_open(t->a, "b", two_dst, 3, 0, &t->dst, &t->e);
	if (r == 0)
		r = t->body(t);
	if (r < 0 && !t->quiet)
		fprintf(stderr, "  %s: %s\n", err_text(r), t->e.text);
	while (ashlar_pool_at(t->a, 0))
		if (ashlar_co_pool_close(ashlar_pool_at(t->a, 0), NULL) < 0)
			r = -EIO;
	ashlar_co_destroy(t->a);
	return r;
}

/* stop: at that event the world ends instead, and -ECANCELED comes back. */
static inline int two_live_to(struct two *t, int (*body)(struct two *t), uint64_t stop)
{
	struct sim_options o = { .seed = rng_next(&t->rng), .n_reactors = 2 };
	int r, result = -EIO;

	alloc_track_begin();
	t->w = sim_world_create(&o, t->disks);
	t->body = body;
	sim_disks_stop_at(t->disks, stop);
	r = sim_run(t->w, two_co_frame, t, &result, LIMIT_NS);
	sim_world_destroy(t->w);
	sim_disks_stop_at(t->disks, UINT64_MAX);
	if (r < 0)
		alloc_track_drop();
	else
		alloc_track_end();
	return r < 0 ? r : result;
}

static inline int two_live(struct two *t, int (*body)(struct two *t))
{
	return two_live_to(t, body, UINT64_MAX);
}

static inline int two_co_create(void *arg)
{
	struct two *t = arg;
	struct ashlar_options o = { .metadata_cache_bytes = 2 * MIB };
	struct ashlar *a = ashlar_create(t->w, &o);
	struct ashlar_pool_spec s = { .name = "a", .layout = "raid1", .paths = two_src, .n_paths = 2, .cluster_bytes = t->src_cluster,
				      .group_bytes = 16 * MIB };
	int r = ashlar_co_pool_create(a, &s, &t->e);

	s = (struct ashlar_pool_spec){ .name = "b", .layout = "raid5", .paths = two_dst, .n_paths = 3, .cluster_bytes = t->dst_cluster,
				       .group_bytes = 16 * MIB };
	if (r == 0)
		r = ashlar_co_pool_create(a, &s, &t->e);
	ashlar_co_destroy(a);
	return r;
}

/* ---- I/O ---- */

struct two_io {
	struct two *t;
	struct bdev *b;
	uint8_t *image; /* compared with, or changed as the volume is */
	uint64_t size, bad;
};

static inline int two_change_there(void *arg)
{
	struct two_io *x = arg;
	uint8_t *buf = xaligned(4096, 128 * KIB);
	unsigned i;
	int r = 0;

	for (i = 0; i < 12 && r == 0; i++) {
		uint64_t off = rng_below(&x->t->rng, x->size / 512) * 512, len = (1 + rng_below(&x->t->rng, 256)) * 512;

		len = MIN(len, x->size - off);
		if (rng_chance(&x->t->rng, 1, 4)) {
			memset(x->image + off, 0, len);
			r = bdev_co_zero(x->b, off, len, 0);
		} else {
			rng_fill(&x->t->rng, buf, len);
			memcpy(x->image + off, buf, len);
			r = bdev_co_write(x->b, off, buf, len, 0);
		}
	}
	xfree(buf);
	return r;
}

static inline int two_compare_there(void *arg)
{
	struct two_io *x = arg;
	uint8_t *buf = xaligned(4096, 64 * KIB);
	uint64_t off, n;
	int r = 0;

	for (off = 0; off < x->size && r == 0; off += n) {
		n = MIN(64 * KIB, x->size - off);
		r = bdev_co_read(x->b, off, buf, n);
		x->bad += r == 0 && memcmp(buf, x->image + off, n) != 0;
	}
	xfree(buf);
	return r;
}

static inline int two_co_at(struct two *t, const char *export_name, int (*there)(void *arg), struct two_io *x)
{
	struct ashlar_attach *at;
	int r = ashlar_co_attach(t->a, export_name, NULL, NULL, &at, &t->e);

	if (r < 0)
		return r;
	x->t = t;
	x->b = ashlar_attach_bdev(at);
	x->size = x->b->size_bytes;
	r = reactor_co_call(ashlar_attach_home(at), there, x);
	ashlar_co_detach(at);
	return r;
}

static inline int two_co_change(struct two *t, const char *export_name, uint8_t *image)
{
	struct two_io x = { .image = image };

	return two_co_at(t, export_name, two_change_there, &x);
}

/* Is the size, and every byte, what it should be? */
static inline bool two_co_has(struct two *t, const char *export_name, unsigned snap)
{
	struct two_io x = { .image = t->image[snap] };
	int r = two_co_at(t, export_name, two_compare_there, &x);

	return r == 0 && x.size == t->size_of[snap] && !x.bad;
}

/* ---- streams ---- */

static inline int two_co_send(struct two *t, unsigned snap, int from, const char *token, struct bytes *out)
{
	char name[8], base[8];
	struct ashlar_send_spec s = { .snapshot = name, .from = from < 0 ? NULL : base, .resume = token };
	struct ashlar_transfer done;
	struct stream *io;
	uint8_t *p = NULL;
	size_t len = 0;
	int r;

	snprintf(name, sizeof(name), "v@s%u", snap);
	snprintf(base, sizeof(base), "s%d", from);
	io = stream_from_memory(NULL, 0, 0, &p, &len);
	r = ashlar_co_send(t->src, &s, io, &done, &t->e);
	stream_close(io);
	free(out->p);
	*out = (struct bytes){ .p = malloc(len + 1), .len = len };
	if (len)
		memcpy(out->p, p, len);
	xfree(p);
	return r;
}

static inline int two_co_receive(struct two *t, struct ashlar_receive_spec s, const uint8_t *p, size_t len)
{
	struct ashlar_transfer done;
	uint8_t *out = NULL;
	size_t out_len = 0;
	struct stream *io = stream_from_memory(p, len, 1 + rng_below(&t->rng, 100000), &out, &out_len);
	int r;

	s.volume = "w";
	r = ashlar_co_receive(t->dst, &s, io, &done, &t->e);
	stream_close(io);
	xfree(out);
	return r;
}

/* The newest snapshot of b/w, by its number; -1: there is none, nor anything else to be seen. */
static inline int two_co_newest(struct two *t)
{
	struct ashlar_volume_info *v;
	struct ashlar_snapshot_info *s;
	size_t nv = 0, ns = 0;
	int newest = -1;

	MUST(ashlar_co_volume_list(t->dst, &v, &nv, &t->e) == 0);
	MUST(ashlar_co_snapshot_list(t->dst, NULL, &s, &ns, &t->e) == 0);
	MUST(nv == (ns > 0));
	if (ns)
		newest = s[ns - 1].name[3] - '0';
	MUST(newest + 1 >= (int)ns);
	xfree(v);
	xfree(s);
	return newest;
}

/* What is kept for b/w: its token; false: nothing is. */
static inline bool two_co_token(struct two *t, char token[96])
{
	struct ashlar_receive_info *v;
	size_t n;
	bool has;

	MUST(ashlar_co_receive_list(t->dst, &v, &n, &t->e) == 0);
	MUST(n <= 1);
	has = n == 1;
	if (has) {
		MUST(!strcmp(v->volume, "w") && v->received_bytes <= v->size_bytes);
		memcpy(token, v->token, 96);
	}
	xfree(v);
	return has;
}

static inline void two_say(void *arg, const char *sentence)
{
	fprintf(stderr, "  check: %s\n", sentence);
}

static inline bool two_co_is_clean(struct two *t)
{
	struct ashlar_check_options o = { .data = true, .say = two_say };

	return ashlar_co_pool_check(t->dst, &o, &t->e) == 0;
}

/* ---- the source ---- */

static inline int two_co_fill(struct two *t)
{
	static const uint64_t sizes[N_SNAPS] = { 2 * MIB + 512, 2 * MIB + 512, 3 * MIB, MIB + 512 * 3 }; /* it grows and shrinks */
	struct ashlar_volume_spec s = { .name = "v", .size_bytes = sizes[0] };
	char name[8];
	const char *names[] = { name };
	unsigned i;
	int r = ashlar_co_volume_create(t->src, &s, &t->e);

	for (i = 0; i < N_SNAPS && r == 0; i++) {
		snprintf(name, sizeof(name), "v@s%u", i);
		t->size_of[i] = sizes[i];
		r = ashlar_co_volume_resize(t->src, "v", sizes[i], true, &t->e);
		memset(t->now + sizes[i], 0, SIZE_MAX_BYTES - sizes[i]);
		if (r == 0)
			r = two_co_change(t, "a/v", t->now);
		if (r == 0)
			r = ashlar_co_snapshot_create(t->src, names, 1, &t->e);
		memcpy(t->image[i], t->now, SIZE_MAX_BYTES);
		if (r == 0)
			r = two_co_send(t, i, -1, NULL, &t->whole[i]);
		if (r == 0 && i)
			r = two_co_send(t, i, (int)i - 1, NULL, &t->inc[i]);
	}
	return r;
}

static inline void two_open(struct two *t, uint64_t seed)
{
	struct sim_disk_conf conf = { .size_bytes = 96 * MIB, .block_bytes = 512 };
	struct sim_options o = { .seed = seed, .n_reactors = 1 };
	unsigned i;
	int r = -EIO;

	memset(t, 0, sizeof(*t));
	rng_init(&t->rng, seed);
	t->src_cluster = seed % 3 == 0 ? 16 * KIB : 64 * KIB; /* grains of 1 KiB and 4 */
	t->dst_cluster = seed % 4 == 0 ? 16 * KIB : 64 * KIB;
	t->now = calloc(1, SIZE_MAX_BYTES);
	for (i = 0; i < N_SNAPS; i++)
		t->image[i] = calloc(1, SIZE_MAX_BYTES);
	t->disks = sim_disks_create(seed);
	for (i = 0; i < 5; i++)
		sim_disks_add(t->disks, i < 2 ? two_src[i] : two_dst[i - 2], &conf);
	t->w = sim_world_create(&o, t->disks);
	CU_ASSERT_EQUAL_FATAL(sim_run(t->w, two_co_create, t, &r, LIMIT_NS), 0);
	if (r < 0)
		fprintf(stderr, "  create: %s\n", t->e.text);
	CU_ASSERT_EQUAL_FATAL(r, 0);
	sim_world_destroy(t->w);
	CU_ASSERT_EQUAL_FATAL(two_live(t, two_co_fill), 0);
}

static inline void two_close(struct two *t)
{
	unsigned i;

	for (i = 0; i < N_SNAPS; i++) {
		free(t->image[i]);
		free(t->whole[i].p);
		free(t->inc[i].p);
	}
	free(t->now);
	sim_disks_destroy(t->disks);
}

#endif
