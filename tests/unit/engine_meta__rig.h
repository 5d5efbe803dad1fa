/*
 * engine_meta__rig.h: a metadata store on mirrored simulated disks: three system arrays and one map array, and a model of
 * what they hold. Of the pool there is the least that works: the label is this struct's memory, so it outlives a crash.
 *
 * Every change is a record and every record is remembered; the model after record n can be made at any time. _co_
 * functions: in the coroutine of rig_run().
 */
#ifndef TESTS_UNIT_ENGINE_META__RIG_H
#define TESTS_UNIT_ENGINE_META__RIG_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <CUnit/Basic.h>

#include "engine/base/hash.h"
#include "engine/base/units.h"
#include "engine/io/buf.h"
#include "engine/io/sim.h"
#include "engine/meta/meta.h"
#include "engine/meta/replay.h"

#define RIG_ARRAYS 4 /* the last one is a map: its root is kept by the owner */
#define RIG_PLACES 600
#define RIG_COPIES 2
#define RIG_DROPPED (1ULL << 63) /* in the index of a remembered record: it is a leaf, and that was dropped */
#define JOURNAL_OFF META_PAGE_BYTES

static const unsigned rig_log2[RIG_ARRAYS] = { 2, 3, 10, 4 };
static uint64_t seed;

#define EXPECT(cond)                                                                                           \
	do {                                                                                                   \
		bool ok_ = (cond);                                                                             \
		if (!ok_)                                                                                      \
			fprintf(stderr, "seed %llu, line %d: %s\n", (unsigned long long)seed, __LINE__, #cond); \
		CU_ASSERT(ok_);                                                                                \
	} while (0)

enum { REC_SET = 1, REC_DROP = 2 };

struct rig_rec {
	le32 array, value; /* 0: clear */
	le64 idx;	   /* or the leaf */
};

struct rig_conf {
	uint64_t seed, group_bytes, journal_bytes, cache_bytes, checkpoint_ns;
	unsigned max_groups;
	bool read_only;
};

struct rig {
	struct rig_conf conf;
	struct rng rng;
	struct sim_disks *ds;
	struct world *w;
	struct disk *disks[RIG_COPIES];
	struct bdev dev;
	struct meta *m;
	struct meta_array *arrays[RIG_ARRAYS];
	struct meta_array map;
	bool map_changed;
	/* the label */
	struct meta_root_info root;
	uint64_t n_groups;
	/* all records ever handed in, by sequence number - 1; after a crash, cut to what survived */
	struct rig_rec *recs;
	size_t n_recs, cap_recs;
	uint64_t n_committed;
	uint64_t idx[RIG_ARRAYS][RIG_PLACES];
	uint32_t model[RIG_ARRAYS][RIG_PLACES];
	/* knobs and counts */
	bool fail_publish;
	int failed_with;
	unsigned n_repaired;
	struct err err;
};

/* ---- the mirror ---- */

struct rig_fan {
	struct io io[RIG_COPIES];
	struct io *parent;
	unsigned pending;
	int result;
};

static void rig_leg_done(struct io *io)
{
	struct rig_fan *f = io->owner;

	if (io->result < 0)
		f->result = io->result;
	if (--f->pending)
		return;
	io_done(f->parent, f->result);
	xfree(f);
}

static void rig_submit(struct bdev *b, struct io *io)
{
	struct rig *r = container_of(b, struct rig, dev);
	struct rig_fan *f = xcalloc(1, sizeof(*f));
	unsigned i, from = 0, n = RIG_COPIES;

	CHECK(io->copy <= RIG_COPIES);
	if (io->op == IO_READ) {
		from = io->copy ? io->copy - 1u : 0;
		n = from + 1;
	}
	f->parent = io;
	f->pending = n - from;
	for (i = from; i < n; i++) {
		io_prep(&f->io[i], (enum io_op)io->op, io->off_bytes, io->len_bytes, NULL, io->flags);
		f->io[i].iov = io->iov;
		f->io[i].iov_n = io->iov_n;
		f->io[i].done = rig_leg_done;
		f->io[i].owner = f;
		bdev_submit(&r->disks[i]->bdev, &f->io[i]);
	}
}

static const struct bdev_ops rig_ops = { .submit = rig_submit };

/* ---- the state machine ---- */

static struct meta_array *rig_array(struct rig *r, unsigned a)
{
	return a == RIG_ARRAYS - 1 ? &r->map : r->arrays[a];
}

/* What an entry of that value looks like. */
static void rig_entry(unsigned log2, uint32_t value, void *entry)
{
	le32 *v = entry;
	unsigned i;

	for (i = 0; i < (1u << log2) / 4; i++)
		v[i] = le32_make(value * (i + 1));
}

static int rig_co_apply(void *ctx, unsigned type, const void *payload, size_t len, uint64_t seq)
{
	const struct rig_rec *rec = payload;
	struct rig *r = ctx;
	uint8_t entry[1024];
	unsigned a;

	if (len != sizeof(*rec) || le32_get(rec->array) >= RIG_ARRAYS)
		return -ERR_FORMAT;
	a = le32_get(rec->array);
	if (type == REC_DROP)
		return meta_array_co_drop_leaf(rig_array(r, a), le64_get(rec->idx));
	rig_entry(rig_log2[a], le32_get(rec->value), entry);
	return meta_array_co_set(rig_array(r, a), le64_get(rec->idx), entry);
}

static int rig_co_store(void *ctx, uint8_t *owner)
{
	struct rig *r = ctx;

	meta_array_store(&r->map, (struct meta_array_disk *)owner);
	return 0;
}

static int rig_co_publish(void *ctx, const struct meta_root_info *root)
{
	struct rig *r = ctx;

	if (r->fail_publish)
		return -EIO;
	r->root = *root;
	return 0;
}

static int rig_co_flush(void *ctx)
{
	return bdev_co_flush(&((struct rig *)ctx)->dev);
}

static int rig_co_grow(void *ctx)
{
	struct rig *r = ctx;

	if (r->n_groups == r->conf.max_groups)
		return -ENOSPC;
	meta_group_add(r->m, r->n_groups++);
	return 0;
}

static void rig_page_repaired(void *ctx, uint64_t addr, bool repaired)
{
	((struct rig *)ctx)->n_repaired += repaired;
}

static void rig_failed(void *ctx, int error, const char *why)
{
	((struct rig *)ctx)->failed_with = error;
}

static const struct meta_hooks rig_hooks = {
	.co_apply = rig_co_apply,
	.co_store = rig_co_store,
	.co_publish = rig_co_publish,
	.co_flush = rig_co_flush,
	.co_grow = rig_co_grow,
	.page_repaired = rig_page_repaired,
	.failed = rig_failed,
};

/* ---- worlds ---- */

static const char *const rig_paths[RIG_COPIES] = { "m0", "m1" };

static void rig_world_up(struct rig *r)
{
	struct sim_options o = { .seed = rng_next(&r->rng), .n_reactors = 1 };
	unsigned i;

	r->m = NULL;
	alloc_track_begin();
	r->w = sim_world_create(&o, r->ds);
	for (i = 0; i < RIG_COPIES; i++)
		CHECK(disk_co_open(r->w, rig_paths[i], 0, &r->disks[i], NULL) == 0);
	r->dev = r->disks[0]->bdev;
	r->dev.ops = &rig_ops;
	r->dev.copies = RIG_COPIES;
}

static void rig_world_down(struct rig *r)
{
	sim_world_destroy(r->w);
	alloc_track_drop();
}

/* Places: some neighbours, some far apart, so that trees have every height. */
static void rig_places(struct rig *r)
{
	unsigned a, i;

	for (a = 0; a < RIG_ARRAYS; a++) {
		for (i = 0; i < RIG_PLACES; i++) {
			uint64_t span = i < RIG_PLACES / 2 ? 4096 : 1ULL << rng_below(&r->rng, 57);

			r->idx[a][i] = rng_below(&r->rng, span) + (i < 8 ? i : 0);
		}
	}
}

static void rig_init(struct rig *r, const struct rig_conf *c)
{
	struct sim_disk_conf d = { .block_bytes = 512 };
	unsigned i;

	memset(r, 0, sizeof(*r));
	r->conf = *c;
	seed = c->seed;
	d.size_bytes = c->group_bytes * c->max_groups;
	rng_init(&r->rng, c->seed);
	rig_places(r);
	r->ds = sim_disks_create(c->seed);
	for (i = 0; i < RIG_COPIES; i++)
		sim_disks_add(r->ds, rig_paths[i], &d);
	r->n_groups = 1;
	rig_world_up(r);
}

static void rig_fini(struct rig *r)
{
	rig_world_down(r);
	sim_disks_destroy(r->ds);
	free(r->recs);
}

/* A new world on the same disks, after a power cut if `cut` is not NULL. */
static void rig_restart(struct rig *r, const enum sim_cut *cut)
{
	sim_world_destroy(r->w);
	if (cut)
		sim_disks_power_cut(r->ds, *cut, &r->rng);
	alloc_track_drop();
	rig_world_up(r);
}

static int rig_run(struct rig *r, int (*fn)(struct rig *r))
{
	int result = -1, e = sim_run(r->w, (int (*)(void *))(void *)fn, r, &result, 36000 * NS_PER_SEC);

	return e < 0 ? e : result;
}

/* ---- the store ---- */

static void rig_make(struct rig *r)
{
	struct meta_conf c = {
		.dev = &r->dev, .group_bytes = r->conf.group_bytes, .journal_off = JOURNAL_OFF,
		.journal_bytes = r->conf.journal_bytes, .cache_bytes = r->conf.cache_bytes,
		.checkpoint_ns = r->conf.checkpoint_ns, .read_only = r->conf.read_only, .hooks = &rig_hooks, .ctx = r,
	};
	uint64_t i;

	c.pool.b[0] = 7;
	r->failed_with = 0;
	r->m = meta_open(&c);
	for (i = 0; i < r->n_groups; i++)
		meta_group_add(r->m, i);
	for (i = 0; i < RIG_ARRAYS - 1; i++)
		r->arrays[i] = meta_system_array(r->m, (unsigned)i + 1, rig_log2[i]);
	meta_array_init(&r->map, r->m, rig_log2[RIG_ARRAYS - 1]);
}

static int rig_co_format(struct rig *r)
{
	int e;

	rig_make(r);
	e = meta_co_format(r->m);
	return e < 0 ? e : meta_co_start(r->m);
}

static uint64_t rig_leaf(const struct rig *r, unsigned a, unsigned place)
{
	return r->idx[a][place] >> (12 - rig_log2[a]);
}

/* Makes the model what it was after n records. */
static void rig_model_at(struct rig *r, uint64_t n)
{
	uint64_t s;
	unsigned a, i;

	memset(r->model, 0, sizeof(r->model));
	for (s = 0; s < n; s++) {
		uint64_t at = le64_get(r->recs[s].idx);

		a = le32_get(r->recs[s].array);
		for (i = 0; i < RIG_PLACES; i++) {
			bool hit = at >> 63 ? rig_leaf(r, a, i) == (at & ~RIG_DROPPED) : r->idx[a][i] == at;

			if (hit)
				r->model[a][i] = le32_get(r->recs[s].value);
		}
	}
}

static int rig_co_load(struct rig *r, uint64_t *n_records)
{
	uint8_t owner[META_OWNER_BYTES];
	int e;

	rig_make(r);
	r->err = (struct err){ 0 };
	e = meta_co_load(r->m, r->root.addr, r->root.crc, r->root.epoch, owner, &r->err);
	if (e == 0)
		e = meta_array_load(&r->map, r->m, (struct meta_array_disk *)owner);
	return e < 0 ? e : meta_co_replay(r->m, n_records, &r->err);
}

static int rig_co_open(struct rig *r)
{
	uint64_t n, have;
	int e = rig_co_load(r, &n);

	if (e < 0)
		fprintf(stderr, "seed %llu: opening: %s: %s\n", (unsigned long long)seed, err_text(e), r->err.text);
	if (e < 0)
		return e;
	have = meta_applied_seq(r->m);
	EXPECT(have >= r->n_committed && have <= r->n_recs);
	r->n_recs = r->n_committed = have;
	rig_model_at(r, have);
	return meta_co_start(r->m);
}

static void rig_co_abandon(struct rig *r)
{
	meta_close(r->m); /* never started */
	r->m = NULL;
}

static int rig_co_close(struct rig *r)
{
	int e = meta_co_stop(r->m, true);

	meta_close(r->m);
	r->m = NULL;
	r->n_committed = r->n_recs;
	return e;
}

/* ---- changes ---- */

static int rig_co_hand_in(struct rig *r, unsigned type, struct rig_rec rec)
{
	int e = meta_co_admit(r->m, 64, le32_get(rec.value) != 0);
	uint64_t seq;

	if (e < 0)
		return e;
	seq = meta_record(r->m, type, &rec, sizeof(rec));
	if (type == REC_DROP)
		rec.idx = le64_make(le64_get(rec.idx) | RIG_DROPPED);
	if (r->n_recs == r->cap_recs) {
		r->cap_recs = r->cap_recs ? 2 * r->cap_recs : 1024;
		r->recs = realloc(r->recs, r->cap_recs * sizeof(*r->recs));
		CHECK(r->recs);
	}
	r->recs[r->n_recs++] = rec;
	CHECK(seq == r->n_recs);
	return 0;
}

static int rig_co_set(struct rig *r, unsigned a, unsigned place, uint32_t value)
{
	struct rig_rec rec = { le32_make(a), le32_make(value), le64_make(r->idx[a][place]) };
	unsigned i;
	int e = rig_co_hand_in(r, REC_SET, rec);

	for (i = 0; i < RIG_PLACES && e == 0; i++)
		if (r->idx[a][i] == r->idx[a][place])
			r->model[a][i] = value;
	return e;
}

static int rig_co_drop(struct rig *r, unsigned a, unsigned place)
{
	uint64_t leaf = rig_leaf(r, a, place);
	struct rig_rec rec = { le32_make(a), le32_make(0), le64_make(leaf) };
	unsigned i;
	int e = rig_co_hand_in(r, REC_DROP, rec);

	for (i = 0; i < RIG_PLACES && e == 0; i++)
		if (rig_leaf(r, a, i) == leaf)
			r->model[a][i] = 0;
	return e;
}

/* n random changes, most of them sets. */
static int rig_co_changes(struct rig *r, unsigned n)
{
	int e = 0;

	while (n-- && e == 0) {
		unsigned a = (unsigned)rng_below(&r->rng, RIG_ARRAYS), place = (unsigned)rng_below(&r->rng, RIG_PLACES);

		switch (rng_below(&r->rng, 8)) {
		case 0:
			e = rig_co_drop(r, a, place);
			break;
		case 1:
		case 2:
			e = rig_co_set(r, a, place, 0);
			break;
		default:
			e = rig_co_set(r, a, place, 1 + (uint32_t)rng_below(&r->rng, 1u << 20));
			break;
		}
	}
	return e;
}

static int rig_co_commit(struct rig *r)
{
	uint64_t n = r->n_recs;
	int e = meta_co_commit(r->m, n);

	if (e == 0)
		r->n_committed = MAX(r->n_committed, n);
	return e;
}

/* ---- looking ---- */

static int rig_co_compare(struct rig *r)
{
	uint8_t have[1024], want[1024];
	unsigned a, i, bad = 0;
	int e = r->conf.read_only ? 0 : meta_co_wait_applied(r->m, r->n_recs);

	for (a = 0; a < RIG_ARRAYS && e == 0; a++) {
		for (i = 0; i < RIG_PLACES && e == 0; i++) {
			e = meta_array_co_get(rig_array(r, a), r->idx[a][i], have);
			rig_entry(rig_log2[a], r->model[a][i], want);
			bad += e == 0 && memcmp(have, want, 1u << rig_log2[a]);
		}
	}
	EXPECT(!bad);
	return e;
}

struct rig_page {
	struct hash_node node;
	uint32_t refs;
};

struct rig_check {
	struct hash pages;
	unsigned bad_copies, wrong;
};

static bool rig_seen(void *arg, uint64_t addr, unsigned level)
{
	struct rig_check *c = arg;
	struct hash_node *n = hash_find(&c->pages, addr);
	struct rig_page *p;

	if (n) {
		container_of(n, struct rig_page, node)->refs++;
		return false;
	}
	p = xcalloc(1, sizeof(*p));
	p->refs = 1;
	hash_add(&c->pages, &p->node, addr);
	return true;
}

static void rig_bad(void *arg, uint64_t addr, unsigned copy, int error)
{
	((struct rig_check *)arg)->bad_copies++;
}

static void rig_used(void *arg, uint64_t addr, uint32_t refs)
{
	struct rig_check *c = arg;
	struct hash_node *n = hash_find(&c->pages, addr);

	if (!n) {
		c->wrong++;
		return;
	}
	c->wrong += container_of(n, struct rig_page, node)->refs != refs;
	hash_del(&c->pages, n);
	xfree(container_of(n, struct rig_page, node));
}

static bool rig_left(struct hash_node *n, void *arg)
{
	((struct rig_check *)arg)->wrong++;
	xfree(container_of(n, struct rig_page, node));
	return true;
}

/* Every page that something refers to is counted, once, and no other. Returns the number of damaged copies. */
static int rig_co_check(struct rig *r)
{
	struct rig_check c = { 0 };
	struct meta_walk w = { .page = rig_seen, .bad = rig_bad, .arg = &c };
	struct meta_array *a;
	unsigned i;
	int e = meta_co_pause(r->m);

	if (e < 0)
		return e;
	hash_init(&c.pages);
	for (i = 0; e == 0 && (a = meta_system_array_at(r->m, i)); i++)
		e = meta_array_co_walk(a, &w);
	if (e == 0)
		e = meta_array_co_walk(&r->map, &w);
	rig_seen(&c, meta_root_addr(r->m), 0);
	if (e == 0)
		e = meta_co_each_used_page(r->m, rig_used, &c);
	meta_resume(r->m);
	hash_each(&c.pages, rig_left, &c);
	hash_fini(&c.pages);
	EXPECT(!c.wrong);
	return e < 0 ? e : (int)c.bad_copies;
}

/* ---- damage ---- */

static void rig_flip(struct rig *r, unsigned disk, uint64_t off, uint8_t bits)
{
	uint8_t b;

	sim_disk_peek(r->ds, disk, off, &b, 1);
	b ^= bits;
	sim_disk_poke(r->ds, disk, off, &b, 1);
}

static void rig_flip_all(struct rig *r, uint64_t off, uint8_t bits)
{
	unsigned i;

	for (i = 0; i < RIG_COPIES; i++)
		rig_flip(r, i, off, bits);
}

#endif
