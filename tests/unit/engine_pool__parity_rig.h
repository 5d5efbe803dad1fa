/*
 * Pools on simulated disks through ashlar.h, with the model beside them: worlds come and go, disks are taken away and put
 * back, clients write at random. For one test program.
 */
#ifndef TESTS_UNIT_ENGINE_POOL_PARITY_RIG_H
#define TESTS_UNIT_ENGINE_POOL_PARITY_RIG_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <CUnit/Basic.h>

#include "engine/base/rng.h"
#include "engine/base/units.h"
#include "engine/io/buf.h"
#include "engine/io/sim.h"
#include "engine/pool/ashlar.h"
#include "engine/pool/label.h"
#include "tests/lib/model.h"

#define DISKS_MAX 12
#define VOLS_MAX 4
#define IO_MAX (192 * KIB)

static const char *const disk_paths[DISKS_MAX] = { "d0", "d1", "d2", "d3", "d4", "d5", "d6", "d7", "d8", "d9", "d10", "d11" };

/* What a test is about. Disks and model outlive worlds. */
struct rig {
	struct sim_disks *disks;
	struct model *model;
	unsigned n_disks, n_reactors;
	const char *layout;
	uint64_t group_bytes;
	unsigned flags; /* ASHLAR_OPEN_* */
	/* in a world */
	struct world *w;
	struct ashlar *a;
	struct ashlar_pool *p;
	struct err e;
	struct rng rng;
	unsigned n_ops;	    /* of each client */
	bool clean;	    /* close in order */
	bool check_data;
	int (*body)(struct rig *g);
	bool bad;	    /* a client read what it must not */
	const char *name, *vol_layout; /* of volume commands */
};

/* What a used disk holds: where nobody has written, parity matches nothing. */
static inline void rig_litter(struct rig *g, unsigned disk, uint64_t end)
{
	uint8_t *buf = malloc(64 * KIB);

	for (uint64_t off = LABEL_AREA_BYTES; off < end; off += 64 * KIB) {
		rng_fill(&g->rng, buf, 64 * KIB);
		sim_disk_poke(g->disks, disk, off, buf, 64 * KIB);
	}
	free(buf);
}

static inline void rig_begin(struct rig *g, const char *layout, unsigned n_disks, const uint64_t *mib)
{
	memset(g, 0, sizeof(*g));
	g->disks = sim_disks_create(n_disks * 7 + 1);
	g->model = model_create();
	g->n_disks = n_disks;
	g->n_reactors = 2;
	g->layout = layout;
	g->group_bytes = MIB;
	g->clean = true;
	rng_init(&g->rng, n_disks);
	for (unsigned i = 0; i < n_disks; i++) {
		struct sim_disk_conf c = { .size_bytes = mib[i] * MIB, .block_bytes = 512 };

		sim_disks_add(g->disks, disk_paths[i], &c);
		rig_litter(g, i, MIN(mib[i], 6) * MIB);
	}
}

static inline void rig_end(struct rig *g)
{
	model_destroy(g->model);
	sim_disks_destroy(g->disks);
}

/* The same state once more, to be taken somewhere else. */
static inline void rig_fork(const struct rig *from, struct rig *to)
{
	*to = *from;
	to->disks = sim_disks_clone(from->disks);
	to->model = model_clone(from->model);
}

static inline void rig_log(void *arg, const char *line)
{
	if (getenv("RIG_VERBOSE"))
		fprintf(stderr, "  log: %s\n", line);
}

static inline void rig_say(void *arg, const char *sentence)
{
	fprintf(stderr, "  check: %s\n", sentence);
}

/* Runs fn in a world of its own. -ECANCELED: the stop point was hit; the power is cut then. */
static inline int rig_run(struct rig *g, int (*fn)(void *arg), uint64_t seed)
{
	struct sim_options o = { .seed = seed, .n_reactors = g->n_reactors };
	struct rng rng;
	int result = -EIO, r;

	rng_init(&rng, seed * 31 + 7);
	rng_init(&g->rng, seed);
	memset(&g->e, 0, sizeof(g->e));
	alloc_track_begin();
	g->w = sim_world_create(&o, g->disks);
	r = sim_run(g->w, fn, g, &result, 36000 * NS_PER_SEC);
	if (r < 0)
		sim_disks_power_cut(g->disks, SIM_CUT_RANDOM, &rng);
	sim_world_destroy(g->w);
	alloc_track_drop();
	sim_disks_stop_at(g->disks, UINT64_MAX);
	model_crash(g->model);
	g->a = NULL;
	g->p = NULL;
	return r < 0 ? r : result;
}

static inline int rig_co_create(void *arg)
{
	struct rig *g = arg;
	struct ashlar_options o = { .metadata_cache_bytes = 2 * MIB, .log = rig_log };
	struct ashlar_pool_spec s = { .name = "p", .layout = g->layout, .paths = disk_paths, .n_paths = g->n_disks,
				      .cluster_bytes = 16 * KIB, .group_bytes = g->group_bytes };
	int r;

	g->a = ashlar_create(g->w, &o);
	r = ashlar_co_pool_create(g->a, &s, &g->e);
	ashlar_co_destroy(g->a);
	return r;
}

/* Opens, does the body, checks, closes. */
static inline int rig_co_session(void *arg)
{
	struct rig *g = arg;
	struct ashlar_options o = { .metadata_cache_bytes = 2 * MIB, .log = rig_log };
	struct ashlar_check_options co = { .data = g->check_data, .say = rig_say };
	int64_t n = 0;
	int r;

	g->a = ashlar_create(g->w, &o);
	r = ashlar_co_pool_open(g->a, NULL, disk_paths, g->n_disks, g->flags, &g->p, &g->e);
	if (r == 0) {
		r = g->body ? g->body(g) : 0;
		if (r == 0)
			n = ashlar_co_pool_check(g->p, &co, &g->e);
		if (r == 0 && n)
			r = n > 0 ? -EUCLEAN : (int)n;
		if (g->clean || r < 0)
			ashlar_co_pool_close(g->p, NULL);
		else
			return r; /* dropped as it stands */
	}
	ashlar_co_destroy(g->a);
	return r;
}

static inline int rig_session(struct rig *g, int (*body)(struct rig *g), uint64_t seed)
{
	int r;

	g->body = body;
	r = rig_run(g, rig_co_session, seed);
	if (r < 0 && r != -ECANCELED && getenv("RIG_VERBOSE"))
		fprintf(stderr, "  %d: %s\n", r, g->e.text);
	return r;
}

/* ---- volumes ---- */

static inline int rig_co_volume(struct rig *g, const char *name, const char *layout, uint64_t size, uint64_t full_wait_ns)
{
	struct ashlar_volume_spec s = { .name = name, .size_bytes = size, .layout = layout, .full_wait_ns = full_wait_ns };
	struct model_vol *v = model_vol_create(g->model, name, size);
	int r = ashlar_co_volume_create(g->p, &s, &g->e);

	model_vol_created(g->model, v, r == 0);
	return r;
}

struct client {
	struct rig *g;
	struct model_vol *v;
	struct ashlar_attach *at;
	struct bdev *b;
	struct rng rng;
	struct co_join *join;
	uint64_t at_bytes; /* of a sequential writer */
	bool fill;	   /* writes all, until the pool is full */
	uint64_t done_bytes;
	int result;
};

static inline int client_co_write(struct client *c, uint64_t off, uint64_t len, unsigned flags)
{
	uint8_t *buf = buf_alloc(len);
	uint32_t op = model_begin(c->g->model, c->v, MODEL_WRITE, off, len);
	int r;

	model_stamp(c->v, op, off, len, buf);
	r = bdev_co_write(c->b, off, buf, len, flags);
	model_end(c->g->model, c->v, op, off, len, r == 0, flags & IO_FUA, false);
	buf_free(buf, len);
	return r;
}

static inline int client_co_zero(struct client *c, uint64_t off, uint64_t len)
{
	uint32_t op = model_begin(c->g->model, c->v, MODEL_ZERO, off, len);
	int r = bdev_co_zero(c->b, off, len, 0);

	model_end(c->g->model, c->v, op, off, len, r == 0, false, false);
	return r;
}

static inline int client_co_read(struct client *c, uint64_t off, uint64_t len)
{
	uint8_t *buf = buf_alloc(len);
	uint32_t since = model_read_begin(c->g->model);
	int r = bdev_co_read(c->b, off, buf, len);

	if (r == 0 && model_read(c->g->model, c->v, since, off, len, buf)) {
		c->g->bad = true;
		r = -EUCLEAN;
	}
	model_read_end(c->g->model, since);
	buf_free(buf, len);
	return r;
}

static inline int client_co_flush(struct client *c)
{
	uint32_t since = model_now(c->g->model);
	int r = bdev_co_flush(c->b);

	if (r == 0)
		model_flushed(c->g->model, c->v, since);
	return r;
}

/* One request: small and large, sequential runs of whole clusters, sectors inside of what is written. */
static inline int client_co_step(struct client *c)
{
	uint64_t size = c->v->size_bytes, len, off;
	unsigned what = (unsigned)rng_below(&c->rng, 100);

	if (what < 8)
		return client_co_flush(c);
	if (what < 20) {
		len = (1 + rng_below(&c->rng, IO_MAX / 512)) * 512;
		len = MIN(size, len);
		return client_co_read(c, rng_below(&c->rng, (size - len) / 512 + 1) * 512, len);
	}
	if (what < 50) { /* goes on where it was */
		len = (1 + rng_below(&c->rng, 6)) * 32 * KIB;
		len = MIN(len, size - c->at_bytes);
		off = c->at_bytes;
		c->at_bytes = off + len == size ? 0 : off + len;
		return client_co_write(c, off, len, 0);
	}
	len = what < 80 ? 512 * (1 + rng_below(&c->rng, 40)) : 16 * KIB * (1 + rng_below(&c->rng, 4));
	off = rng_below(&c->rng, (size - len) / 512 + 1) * 512;
	if (what >= 80)
		off = ALIGN_DOWN(off, 16 * KIB);
	if (what >= 97)
		return client_co_zero(c, off, len);
	return client_co_write(c, off, len, rng_chance(&c->rng, 1, 5) ? IO_FUA : 0);
}

static inline int client_there(void *arg)
{
	struct client *c = arg;
	int r = 0;

	c->b = ashlar_attach_bdev(c->at);
	if (c->fill) {
		for (; c->done_bytes < c->v->size_bytes && r == 0; c->done_bytes += r == 0 ? 64 * KIB : 0)
			r = client_co_write(c, c->done_bytes, 64 * KIB, 0);
		return r < 0 ? r : client_co_flush(c);
	}
	for (unsigned i = 0; i < c->g->n_ops && r == 0; i++)
		r = client_co_step(c);
	return r;
}

static inline int client_read_there(void *arg)
{
	struct client *c = arg;
	uint64_t off, len;
	int r = 0;

	c->b = ashlar_attach_bdev(c->at);
	for (off = 0; off < c->v->size_bytes && r == 0; off += len) {
		len = MIN(IO_MAX, c->v->size_bytes - off);
		r = client_co_read(c, off, len);
	}
	return r;
}

static inline int client_co_attach(struct client *c, struct rig *g, struct model_vol *v)
{
	char name[MODEL_NAME_MAX + 4];

	snprintf(name, sizeof(name), "p/%s", v->name);
	c->g = g;
	c->v = v;
	return ashlar_co_attach(g->a, name, NULL, NULL, &c->at, &g->e);
}

static inline void client_co_main(void *arg)
{
	struct client *c = arg;

	c->result = reactor_co_call(ashlar_attach_home(c->at), client_there, c);
	co_join_done(c->join, 0);
}

/* Several clients on every volume, all at once. */
static inline int rig_co_work(struct rig *g)
{
	unsigned n = 3 * model_n_vols(g->model), n_attached = 0, i;
	struct client *c = xcalloc(n, sizeof(*c));
	struct co_join join;
	int r = 0;

	co_join_init(&join);
	for (i = 0; i < n; i++) {
		if (model_vol(g->model, i / 3)->state != MODEL_LIVE)
			continue;
		r = client_co_attach(&c[n_attached], g, model_vol(g->model, i / 3));
		if (r < 0)
			break;
		rng_init(&c[n_attached].rng, rng_next(&g->rng));
		c[n_attached].join = &join;
		co_join_add(&join);
		co_spawn(CO_SERVICE, client_co_main, &c[n_attached++], "client");
	}
	if (co_join_wait(&join) < 0)
		r = -EIO;
	for (i = 0; i < n_attached; i++) {
		r = r < 0 ? r : c[i].result;
		ashlar_co_detach(c[i].at);
	}
	xfree(c);
	return r;
}

/* Reads every volume whole. */
static inline int rig_co_verify(struct rig *g)
{
	int r = 0;

	for (unsigned i = 0; i < model_n_vols(g->model) && r == 0; i++) {
		struct client c = { 0 };

		if (model_vol(g->model, i)->state != MODEL_LIVE)
			continue;
		r = client_co_attach(&c, g, model_vol(g->model, i));
		if (r < 0)
			break;
		r = reactor_co_call(ashlar_attach_home(c.at), client_read_there, &c);
		ashlar_co_detach(c.at);
	}
	return r;
}

static inline int rig_co_verify_and_work(struct rig *g)
{
	int r = rig_co_verify(g);

	if (r == 0)
		r = rig_co_work(g);
	return r < 0 ? r : rig_co_verify(g);
}

#endif
