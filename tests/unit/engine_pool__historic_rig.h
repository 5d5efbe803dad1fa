/*
 * engine_pool__historic_rig.h: what the tests of historic bugs share: a small pool with two volumes, lives of it, and a body of
 * operations that is cut at many places, with every set of disks missing that the layout allows.
 */
#ifndef TESTS_UNIT_ENGINE_POOL__HISTORIC_RIG_H
#define TESTS_UNIT_ENGINE_POOL__HISTORIC_RIG_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <CUnit/Basic.h>

#include "engine/base/units.h"
#include "engine/pool/pool_internal.h"
#include "tests/lib/sim_rig.h"

#define LIMIT_NS (3600 * NS_PER_SEC)
#define WHOLE_NS (900 * NS_PER_SEC)
#define V0_BYTES MIB
#define V1_BYTES (256 * KIB)

struct hist {
	struct rig rig;
	struct rng rng;
	unsigned tolerates, n_busy;
	int (*body)(struct hist *h);
	bool done;
	unsigned n_states;
	/* a test's own */
	unsigned a, b;
	uint32_t kept[RIG_DISKS_MAX];
};

struct image {
	struct sim_disks *disks;
	struct model *model;
};

static inline struct model_vol *hist_vol(struct hist *h, unsigned i)
{
	return model_vol(h->rig.model, i);
}

static inline int hist_wr(struct hist *h, unsigned vol, uint64_t off, uint64_t len, unsigned flags)
{
	return rig_co_io_once(&h->rig, hist_vol(h, vol), RIG_WRITE, off, len, flags);
}

static inline int hist_flush(struct hist *h, unsigned vol)
{
	return rig_co_io_once(&h->rig, hist_vol(h, vol), RIG_FLUSH, 0, 0, 0);
}

/* ---- lives ---- */

static inline int hist_co_frame(void *arg)
{
	struct hist *h = arg;
	int r = rig_co_open(&h->rig, 0);

	if (r == 0)
		r = h->body(h);
	h->done = true;
	if (r == 0 && !h->rig.failed)
		rig_co_close(&h->rig);
	return h->rig.failed ? -EUCLEAN : r;
}

/* From opening to closing; stop: at that event the world ends instead, and -ECANCELED comes back. */
static inline int hist_live_to(struct hist *h, int (*body)(struct hist *h), uint64_t stop)
{
	struct rig *g = &h->rig;
	int r, result = 0;

	h->body = body;
	h->done = false;
	h->n_busy = 0; /* a crash leaves some */
	rig_world_start(g, rng_next(&h->rng));
	sim_disks_stop_at(g->disks, stop);
	r = sim_run(g->w, hist_co_frame, h, &result, LIMIT_NS);
	if ((r < 0 ? r != -ECANCELED : result < 0) && !g->failed)
		rig_fail(g, "%s", r == -EDEADLK ? "deadlock" : r < 0 ? "it does not end" : err_text(result));
	rig_world_drop(g);
	sim_disks_stop_at(g->disks, UINT64_MAX);
	model_crash(g->model);
	return r;
}

static inline void hist_live(struct hist *h, int (*body)(struct hist *h))
{
	hist_live_to(h, body, UINT64_MAX);
}

static inline void hist_cut(struct hist *h, enum sim_cut how)
{
	unsigned i;

	sim_disks_power_cut(h->rig.disks, how, &h->rng);
	for (i = 0; i < h->rig.n_disks; i++) {
		memset(sim_disk_faults(h->rig.disks, i), 0, sizeof(struct sim_faults));
		sim_disk_put_back(h->rig.disks, i);
	}
}

static inline int hist_co_fill(struct hist *h)
{
	struct rig *g = &h->rig;
	uint64_t off;
	int r = rig_co_vol_create(g, "v0", V0_BYTES, NULL, 0);

	if (r == 0)
		r = rig_co_vol_create(g, "v1", V1_BYTES, NULL, 0);
	for (off = 0; off < V0_BYTES / 2 && r == 0; off += 64 * KIB) {
		r = hist_wr(h, 0, off, 64 * KIB, 0);
		if (r == 0)
			r = hist_wr(h, 1, off / 4, 16 * KIB, 0);
	}
	return r == 0 ? hist_flush(h, 0) : r;
}

static inline int hist_co_create(void *arg)
{
	return rig_co_create(&((struct hist *)arg)->rig);
}

/* A pool with v0, the first half of it written, and v1, half of that too, in between. */
static inline struct hist *hist_begin(const char *layout, unsigned n_disks, uint64_t disk_bytes)
{
	struct sim_disk_conf conf = { .size_bytes = disk_bytes, .block_bytes = 512 };
	struct hist *h = calloc(1, sizeof(*h));
	struct raid_profile prof;
	unsigned i;
	int r = 0;

	CHECK(raid_profile_parse(layout, &prof) == 0);
	h->tolerates = raid_profile_tolerates(prof);
	h->rig = (struct rig){ .layout = layout, .n_disks = n_disks, .n_reactors = 2, .block_bytes = 512, .cluster_bytes = 8192,
			       .group_bytes = MIB, .cache_bytes = MIB };
	h->rig.settings = (struct ashlar_pool_settings){ .rebuild_delay_ns = UINT64_MAX, .pace_floor_bps = 64 * MIB,
							 .hedge_ns = 50 * NS_PER_MS, .timeout_ns = 2 * NS_PER_SEC };
	h->rig.disks = sim_disks_create(n_disks);
	h->rig.model = model_create();
	rng_init(&h->rng, n_disks);
	for (i = 0; i < n_disks; i++)
		sim_disks_add(h->rig.disks, rig_paths[i], &conf);
	rig_world_start(&h->rig, 1);
	if (sim_run(h->rig.w, hist_co_create, h, &r, LIMIT_NS) < 0 || r < 0)
		rig_fail(&h->rig, "the pool could not be made");
	rig_world_drop(&h->rig);
	if (!h->rig.failed)
		hist_live(h, hist_co_fill);
	return h;
}

static inline void hist_end(struct hist *h)
{
	CU_ASSERT(!h->rig.failed);
	sim_disks_destroy(h->rig.disks);
	model_destroy(h->rig.model);
	free(h);
}

/* ---- forks ---- */

static inline struct image hist_save(struct hist *h)
{
	return (struct image){ sim_disks_clone(h->rig.disks), model_clone(h->rig.model) };
}

static inline void hist_load(struct hist *h, const struct image *i)
{
	sim_disks_destroy(h->rig.disks);
	model_destroy(h->rig.model);
	h->rig.disks = sim_disks_clone(i->disks);
	h->rig.model = model_clone(i->model);
}

static inline void image_free(struct image *i)
{
	sim_disks_destroy(i->disks);
	model_destroy(i->model);
}

static inline int hist_co_look(struct hist *h)
{
	rig_co_verify(&h->rig);
	if (!h->rig.failed)
		rig_co_check(&h->rig, true);
	return 0;
}

/* Opens the state as it is with every set of up to `most` disks missing beside `lost`, which are missing or not. */
static inline void hist_each_loss(struct hist *h, uint32_t lost, unsigned most)
{
	struct image at = hist_save(h);
	uint32_t set;
	unsigned i;

	for (set = 0; set < 1U << h->rig.n_disks && !h->rig.failed; set++) {
		if (__builtin_popcount(set & ~lost) > (int)most)
			continue;
		hist_load(h, &at);
		for (i = 0; i < h->rig.n_disks; i++)
			if (set >> i & 1)
				sim_disk_remove(h->rig.disks, i);
		h->rig.degraded = h->rig.may_be_full = true;
		hist_live(h, hist_co_look);
		h->n_states++;
		if (h->rig.failed)
			fprintf(stderr, "... with disks %x missing\n", set);
	}
	hist_load(h, &at);
	image_free(&at);
}

/* Cuts the power at up to `points` places of a life with that body, each in three ways, and each with every set of missing disks:
 * as many as the layout tolerates, less those that the body has lost. */
static inline void hist_each_crash(struct hist *h, int (*body)(struct hist *h), unsigned points, uint32_t lost)
{
	static const enum sim_cut cuts[] = { SIM_CUT_NONE, SIM_CUT_ALL, SIM_CUT_RANDOM };
	unsigned most = h->tolerates - (unsigned)__builtin_popcount(lost), k, c;
	struct image start = hist_save(h), at;
	struct rng rng = h->rng;
	uint64_t begin = sim_disks_n_events(h->rig.disks), n;

	hist_live(h, body);
	n = sim_disks_n_events(h->rig.disks) - begin;
	for (k = 0; k < points && k < n && !h->rig.failed; k++) {
		uint64_t stop = begin + 1 + (n <= points ? k : k * n / points);

		hist_load(h, &start);
		h->rng = rng;
		if (hist_live_to(h, body, stop) != -ECANCELED)
			break;
		at = hist_save(h);
		for (c = 0; c < ARRAY_LEN(cuts) && !h->rig.failed; c++) {
			hist_load(h, &at);
			rng_init(&h->rng, stop + c);
			hist_cut(h, cuts[c]);
			hist_each_loss(h, lost, most);
			if (h->rig.failed)
				fprintf(stderr, "... after event %u of %u, cut %u\n", (unsigned)(stop - begin), (unsigned)n, c);
		}
		image_free(&at);
	}
	image_free(&start);
}

/* ---- disks ---- */

static inline struct sim_faults *hist_faults(struct hist *h, unsigned disk)
{
	return sim_disk_faults(h->rig.disks, disk);
}

/* Labels are long under way, and nothing else. */
static inline void hist_labels_slow(struct hist *h, uint64_t disk_bytes)
{
	for (unsigned i = 0; i < h->rig.n_disks; i++) {
		hist_faults(h, i)->stall = UINT16_MAX + 1;
		hist_faults(h, i)->stall_ns = 2 * NS_PER_MS;
		hist_faults(h, i)->calm_from_bytes = LABEL_AREA_BYTES;
		hist_faults(h, i)->calm_end_bytes = disk_bytes - LABEL_AREA_BYTES;
	}
}

static inline void hist_co_fail(struct hist *h, unsigned disk)
{
	struct err e = { 0 };
	int r = ashlar_co_disk_fail(h->rig.p, rig_paths[disk], false, false, &e);

	if (r < 0)
		rig_fail(&h->rig, "disk fail: %s (%d)", e.text, r);
	h->rig.degraded = h->rig.may_be_full = true;
}

static inline void hist_co_online(struct hist *h, unsigned disk)
{
	struct err e = { 0 };
	int r;

	if (!(rig_away(&h->rig) >> disk & 1))
		return;
	r = ashlar_co_disk_online(h->rig.p, rig_paths[disk], NULL, &e);
	if (r < 0)
		rig_fail(&h->rig, "disk online: %s (%d)", e.text, r);
}

static inline void hist_co_gone(struct hist *h, unsigned disk)
{
	unsigned i;

	hist_faults(h, disk)->gone = true;
	h->rig.degraded = h->rig.may_be_full = true;
	for (i = 0; i < 1000 && !(rig_away(&h->rig) >> disk & 1); i++)
		co_sleep_ns(100 * NS_PER_MS);
	if (!(rig_away(&h->rig) >> disk & 1))
		rig_fail(&h->rig, "nobody has noticed that disk %u is gone", disk);
}

/* Each of these disks holds a column of every group, or would be asked in vain: verify with each set of n of them gone. */
static inline void hist_co_whole(struct hist *h, bool all_online)
{
	if (!h->rig.failed)
		rig_co_wait_whole(&h->rig, all_online, WHOLE_NS);
}

#endif
