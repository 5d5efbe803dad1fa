/*
 * crash_workload.c: what is crashed: small pools, short sequences of operations.
 */
#include "tests/crash/crash_run.h"

#include <stdio.h>
#include <string.h>

#include "engine/base/hash.h"
#include "raid/geometry.h"

static const struct shape {
	const char *layout;
	unsigned disks;
	uint32_t block, cluster;
	unsigned reactors;
} shapes[] = {
	{ "raid1", 2, 512, 8192, 1 },	{ "single", 1, 512, 8192, 1 },	 { "raid1", 3, 512, 16384, 2 },
	{ "raid0", 2, 512, 16384, 1 },	{ "raid10", 4, 512, 8192, 2 },	 { "raid1-3", 3, 512, 8192, 1 },
	{ "raid1", 2, 4096, 65536, 1 }, { "single", 1, 4096, 65536, 2 },
};

/* ---- operations ---- */

enum {
	OP_WRITE_NEW,
	OP_OVERWRITE,
	OP_WRITE_SMALL, /* less than a subcluster, to a new cluster */
	OP_WRITE_ACROSS,
	OP_FUA_NEW,
	OP_FUA_OVER,
	OP_FLUSH,
	OP_DISCARD,
	OP_DISCARD_WRITE, /* the same place again, by way of another cluster */
	OP_ZERO,
	OP_WRITE_LARGE, /* one record of many entries, at once durable */
	OP_CREATE,
	OP_DELETE,
	OP_SHRINK,
	OP_GROW,
	OP_RENAME,
	OP_TIME, /* a checkpoint, idle regions are cleaned */
	OP_NEW_GROUP,
	OP_LOSE_DISK, /* and writes without it */
	OP_RECYCLE,   /* delete, create, write: clusters change hands */
	OP_N,
};

static const char *const op_names[OP_N] = {
	"write-new",	 "overwrite", "write-small", "write-across", "fua-new", "fua-overwrite", "flush",
	"discard",	 "discard-write", "zero", "write-large", "create", "delete", "shrink", "grow", "rename", "time",
	"new-group",	 "lose-disk", "recycle",
};
static const char *const base_names[BASE_N] = { "clean", "crashed", "stale", "laps" };

static struct model_vol *vol(struct rig *g, unsigned k)
{
	struct model_vol *v;
	unsigned i;

	for (i = 0; i < model_n_vols(g->model); i++) {
		v = model_vol(g->model, i);
		if (v->state == MODEL_LIVE && k-- == 0)
			return v;
	}
	return NULL;
}

static int wr(struct rig *g, struct model_vol *v, enum rig_op op, uint64_t off, uint64_t len, unsigned flags)
{
	if (!v || v->state != MODEL_LIVE || off >= v->size_bytes)
		return 0;
	return rig_co_io_once(g, v, op, off, MIN(len, v->size_bytes - off), flags);
}

/* Volumes begin with the first half written. */
static uint64_t new_place(struct crash_run *c, struct model_vol *v)
{
	uint64_t cl = c->rig.cluster_bytes, half = v ? ALIGN_UP(v->size_bytes / 2, cl) : 0;

	return half + cl * rng_below(&c->rng, 4);
}

static int co_new_group(struct crash_run *c)
{
	struct rig *g = &c->rig;
	uint64_t off;
	int r;

	r = rig_co_vol_create(g, "big", 2 * MIB, NULL, 0);
	for (off = 0; off < 5 * MIB / 4 && r == 0; off += 128 * KIB)
		r = wr(g, model_vol_find(g->model, "big"), RIG_WRITE, off, 128 * KIB, 0);
	return r;
}

/* In a volume of its own. */
static int co_write_large(struct crash_run *c)
{
	struct rig *g = &c->rig;
	struct model_vol *v = model_vol_find(g->model, "large");
	int r = 0;

	if (!v)
		r = rig_co_vol_create(g, "large", 512 * KIB, NULL, 0);
	v = model_vol_find(g->model, "large");
	if (r < 0 || !v || v->state != MODEL_LIVE)
		return r;
	r = wr(g, v, RIG_WRITE, 0, 512 * KIB, IO_FUA);
	return r < 0 ? r : wr(g, v, RIG_DISCARD, 0, 512 * KIB, IO_FUA);
}

static int co_recycle(struct crash_run *c)
{
	struct rig *g = &c->rig;
	struct model_vol *v = vol(g, 1);
	int r = v ? rig_co_vol_delete(g, v) : 0;

	if (r == 0)
		r = rig_co_vol_create(g, "next", 128 * KIB, NULL, 0);
	co_sleep_ns(rng_below(&c->rng, 3 * NS_PER_MS));
	if (r == 0)
		r = wr(g, model_vol_find(g->model, "next"), RIG_WRITE, 0, 96 * KIB, 0);
	return r;
}

static int co_data_op(struct crash_run *c, unsigned op)
{
	struct rig *g = &c->rig;
	struct model_vol *v = vol(g, 0);
	uint64_t cl = g->cluster_bytes, block = g->block_bytes, at = new_place(c, v), old = cl * rng_below(&c->rng, 4);

	switch (op) {
	case OP_WRITE_NEW:
		return wr(g, v, RIG_WRITE, at, cl, 0);
	case OP_OVERWRITE:
		return wr(g, v, RIG_WRITE, old, cl, 0);
	case OP_WRITE_SMALL:
		return wr(g, v, RIG_WRITE, at + block * rng_below(&c->rng, cl / block), block, 0);
	case OP_WRITE_ACROSS:
		return wr(g, v, RIG_WRITE, at + cl / 2 + block, cl, 0);
	case OP_FUA_NEW:
		return wr(g, v, RIG_WRITE, at, block * (1 + rng_below(&c->rng, cl / block)), IO_FUA);
	case OP_FUA_OVER:
		return wr(g, v, RIG_WRITE, old, block * (1 + rng_below(&c->rng, cl / block)), IO_FUA);
	case OP_FLUSH:
		return v ? rig_co_io_once(g, v, RIG_FLUSH, 0, 0, 0) : 0;
	case OP_DISCARD:
		return wr(g, v, RIG_DISCARD, old, cl + cl / 4, 0);
	case OP_DISCARD_WRITE:
		if (wr(g, v, RIG_DISCARD, old, 2 * cl, 0) == 0 && rng_chance(&c->rng, 1, 2))
			wr(g, v, RIG_FLUSH, 0, 1, 0);
		return wr(g, v, RIG_WRITE, old, 2 * cl, rng_chance(&c->rng, 1, 2) ? IO_FUA : 0);
	case OP_WRITE_LARGE:
		return co_write_large(c);
	default:
		return wr(g, v, RIG_ZERO, old + block, cl + block, rng_chance(&c->rng, 1, 2) ? IO_NO_HOLE : 0);
	}
}

static int co_admin_op(struct crash_run *c, unsigned op)
{
	struct rig *g = &c->rig;
	struct model_vol *v = vol(g, 0), *other = vol(g, 1);
	uint64_t cl = g->cluster_bytes;

	switch (op) {
	case OP_CREATE:
		return model_vol_find(g->model, "new") ? 0 : rig_co_vol_create(g, "new", 5 * cl, NULL, 0);
	case OP_DELETE:
		return other ? rig_co_vol_delete(g, other) : 0;
	case OP_SHRINK:
		return v ? rig_co_vol_resize(g, v, ALIGN_UP(v->size_bytes / 4, (uint64_t)g->block_bytes)) : 0;
	case OP_GROW:
		return v ? rig_co_vol_resize(g, v, v->size_bytes + 3 * cl) : 0;
	case OP_RENAME:
		return v && !model_vol_find(g->model, "other") ? rig_co_vol_rename(g, v, "other") : 0;
	case OP_TIME:
		co_sleep_ns(14 * NS_PER_SEC);
		return 0;
	case OP_NEW_GROUP:
		return model_vol_find(g->model, "big") ? 0 : co_new_group(c);
	case OP_RECYCLE:
		return model_vol_find(g->model, "next") ? 0 : co_recycle(c);
	default:
		if (c->tolerates && c->wl.base != BASE_STALE) /* that one has a victim of its own, who must come back first */
			sim_disk_faults(g->disks, c->victim)->gone = true;
		g->degraded = g->may_be_full = true;
		wr(g, v, RIG_WRITE, 0, 2 * cl, IO_FUA);
		return wr(g, v, RIG_WRITE, new_place(c, v), cl, IO_FUA);
	}
}

static int co_op(struct crash_run *c, unsigned op)
{
	rig_note(&c->rig, "operation %s", op_names[op]);
	return op <= OP_WRITE_LARGE ? co_data_op(c, op) : co_admin_op(c, op);
}

/* ---- the recorded run ---- */

static void second_co_main(void *arg)
{
	struct crash_run *c = arg;
	unsigned i;

	for (i = 1; i < c->wl.n_ops && !c->rig.failed; i += 2)
		co_op(c, c->wl.ops[i]);
	c->n_running--;
}

int workload_co_run(void *arg)
{
	struct crash_run *c = arg;
	unsigned i;
	int r = rig_co_open(&c->rig, 0);

	if (r < 0)
		return r;
	if (c->wl.two) {
		c->n_running++;
		co_spawn(CO_SERVICE, second_co_main, c, "second client");
	}
	for (i = 0; i < c->wl.n_ops && !c->rig.failed; i += c->wl.two ? 2 : 1)
		co_op(c, c->wl.ops[i]);
	while (c->n_running)
		co_sleep_ns(NS_PER_MS);
	if (!c->wl.close)
		co_sleep_ns(rng_below(&c->rng, 1500 * NS_PER_MS));
	c->rig.may_fail = c->rig.degraded;
	rig_co_close(&c->rig);
	c->done = true;
	return 0;
}

/* ---- making one ---- */

unsigned workload_n_exhaustive(void)
{
	return (unsigned)ARRAY_LEN(shapes) * OP_N;
}

static void shape_take(struct crash_run *c, const struct shape *s)
{
	struct rig *g = &c->rig;
	struct sim_disk_conf conf = { .size_bytes = 10 * MIB, .block_bytes = s->block };
	struct raid_profile prof;
	unsigned i;
	int r = raid_profile_parse(s->layout, &prof);

	CHECK(r == 0);
	c->tolerates = raid_profile_tolerates(prof);
	g->layout = s->layout;
	g->n_disks = s->disks;
	g->n_reactors = s->reactors;
	g->block_bytes = s->block;
	g->cluster_bytes = s->cluster;
	g->group_bytes = MIB;
	g->cache_bytes = MIB;
	for (i = 0; i < s->disks; i++)
		sim_disks_add(g->disks, rig_paths[i], &conf);
}

void workload_make(struct crash_run *c, uint64_t number)
{
	struct workload *w = &c->wl;
	unsigned i;

	rng_init(&c->rng, hash_mix(number + 77));
	c->rig.disks = sim_disks_create(rng_next(&c->rng));
	c->rig.model = model_create();
	*w = (struct workload){ .number = number };
	if (number < workload_n_exhaustive()) {
		w->shape = (unsigned)(number % ARRAY_LEN(shapes));
		w->n_ops = 1;
		w->ops[0] = (unsigned)(number / ARRAY_LEN(shapes));
	} else {
		w->shape = (unsigned)rng_below(&c->rng, ARRAY_LEN(shapes));
		w->n_ops = 2 + (unsigned)rng_below(&c->rng, 4);
		for (i = 0; i < w->n_ops; i++)
			w->ops[i] = (unsigned)rng_below(&c->rng, rng_chance(&c->rng, 1, 2) ? OP_CREATE : OP_N);
		w->two = rng_chance(&c->rng, 1, 3);
		w->base = (enum base)rng_below(&c->rng, BASE_N);
		if (w->base == BASE_LAPS)
			w->ops[rng_below(&c->rng, w->n_ops)] = OP_WRITE_LARGE;
	}
	w->close = rng_chance(&c->rng, 1, 2);
	shape_take(c, &shapes[w->shape]);
	c->victim = (unsigned)rng_below(&c->rng, c->rig.n_disks);
	if (w->base == BASE_STALE && !c->tolerates)
		w->base = BASE_CRASHED;
}

void workload_describe(const struct workload *w, const struct rig *g, char *buf, size_t len)
{
	size_t at;
	unsigned i;

	at = (size_t)snprintf(buf, len, "%u x %s, block %u, %s base:", g->n_disks, g->layout, g->block_bytes, base_names[w->base]);
	for (i = 0; i < w->n_ops && at < len; i++)
		at += (size_t)snprintf(buf + at, len - at, "%s%s", i ? (w->two ? " | " : ", ") : " ", op_names[w->ops[i]]);
	if (w->close && at < len)
		snprintf(buf + at, len - at, ", close");
}

/* ---- the base ---- */

static int prepare_co_create(void *arg)
{
	struct crash_run *c = arg;
	struct rig *g = &c->rig;
	uint64_t cl = g->cluster_bytes, i;
	int r = rig_co_create(g);

	if (r == 0)
		r = rig_co_open(g, 0);
	if (r == 0)
		r = rig_co_vol_create(g, "v0", 8 * cl + g->block_bytes * (g->block_bytes == 512 ? 3 : 1), NULL, 0);
	if (r == 0)
		r = rig_co_vol_create(g, "v1", 6 * cl, NULL, 0);
	for (i = 0; i < 4 && r == 0; i++)
		r = wr(g, vol(g, 0), RIG_WRITE, i * cl, cl, 0);
	if (r == 0)
		r = wr(g, vol(g, 1), RIG_WRITE, cl / 2, 3 * cl, IO_FUA);
	rig_co_close(g);
	return r;
}

/* More of it, and the end of the process without a word. */
static int prepare_co_more(void *arg)
{
	struct crash_run *c = arg;
	struct rig *g = &c->rig;
	uint64_t cl = g->cluster_bytes;
	int r = rig_co_open(g, 0);

	if (r == 0)
		r = wr(g, vol(g, 0), RIG_WRITE, 0, cl, 0);
	if (r == 0)
		r = wr(g, vol(g, 0), RIG_WRITE, 5 * cl, cl, IO_FUA);
	if (r == 0)
		r = wr(g, vol(g, 1), RIG_DISCARD, cl, cl, 0);
	if (r == 0)
		r = wr(g, vol(g, 1), RIG_WRITE, 4 * cl, cl / 2, 0);
	if (r == 0 && c->wl.base == BASE_STALE)
		rig_co_close(g);
	return r;
}

static int prepare_co_laps(void *arg)
{
	struct crash_run *c = arg;
	unsigned i;
	int r = rig_co_open(&c->rig, 0);

	for (i = 0; i < 20 && r == 0; i++)
		r = co_write_large(c);
	if (r == 0)
		rig_co_close(&c->rig);
	return r;
}

static void prepare_world(struct crash_run *c, int (*fn)(void *arg))
{
	struct rig *g = &c->rig;
	int r, result = 0;

	rig_world_start(g, rng_next(&c->rng));
	r = sim_run(g->w, fn, c, &result, 3600 * NS_PER_SEC);
	if (r < 0 || result < 0)
		rig_fail(g, "preparing: %s, %s", err_text(r), err_text(result));
	rig_world_drop(g);
	model_crash(g->model);
}

void workload_prepare(struct crash_run *c)
{
	struct rig *g = &c->rig;

	prepare_world(c, prepare_co_create);
	if (c->wl.base == BASE_CLEAN || g->failed)
		return;
	if (c->wl.base == BASE_STALE) {
		sim_disk_remove(g->disks, c->victim);
		g->degraded = g->may_be_full = true;
	}
	prepare_world(c, c->wl.base == BASE_LAPS ? prepare_co_laps : prepare_co_more);
	if (c->wl.base == BASE_CRASHED)
		sim_disks_power_cut(g->disks, SIM_CUT_RANDOM, &c->rng);
	sim_disk_put_back(g->disks, c->victim);
}
