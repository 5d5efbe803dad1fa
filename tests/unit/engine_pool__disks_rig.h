/*
 * engine_pool__disks_rig.h: what the tests of disks that join and leave share.
 */
#ifndef TESTS_UNIT_ENGINE_POOL__DISKS_RIG_H
#define TESTS_UNIT_ENGINE_POOL__DISKS_RIG_H

#include "tests/unit/engine_pool__historic_rig.h"

#include "engine/pool/leave.h"

#define EXPECT(h, cond)                                                  \
	do {                                                             \
		if (!(cond))                                             \
			rig_fail(&(h)->rig, "line %d: %s", __LINE__, #cond); \
	} while (0)

#define WAIT_NS (600 * NS_PER_SEC)

/* ---- helpers ---- */

/* A pool of the first n disks, and some that are not its; volumes as hist_begin() has them. */
static inline struct hist *begin(const char *layout, unsigned n, unsigned spare, uint64_t disk_bytes)
{
	struct sim_disk_conf conf = { .size_bytes = disk_bytes, .block_bytes = 512 };
	struct hist *h = hist_begin(layout, n, disk_bytes);
	unsigned i;

	for (i = n; i < n + spare; i++)
		sim_disks_add(h->rig.disks, rig_paths[i], &conf);
	h->rig.verbose = getenv("RIG_VERBOSE") != NULL;
	h->rig.n_first = n;
	h->rig.n_disks = n + spare;
	h->rig.degraded = h->rig.may_be_full = true;
	return h;
}

static inline struct pdisk *pdisk_of(struct hist *h, unsigned disk)
{
	int i = rig_member(&h->rig, disk);

	EXPECT(h, i >= 0);
	return &h->rig.p->disks[MAX(i, 0)];
}

static inline void co_add(struct hist *h, unsigned disk)
{
	struct err e = { 0 };
	int r = ashlar_co_disk_add(h->rig.p, &rig_paths[disk], 1, false, false, &e);

	if (r == -ERR_FOREIGN && strstr(e.text, "damaged Ashlar label")) /* the power went amid the first one */
		r = ashlar_co_disk_add(h->rig.p, &rig_paths[disk], 1, true, false, &e);
	if (r < 0)
		rig_fail(&h->rig, "disk add %s: %s (%d)", rig_paths[disk], e.text, r);
}

enum what { EVACUATE, REMOVE, REPLACE, REBALANCE };

static inline int co_call(struct hist *h, enum what what, unsigned disk, unsigned by, bool dry_run, struct ashlar_relocation *rel, struct err *e)
{
	struct ashlar_pool *p = h->rig.p;

	memset(e, 0, sizeof(*e));
	switch (what) {
	case EVACUATE: return ashlar_co_disk_evacuate(p, rig_paths[disk], dry_run, rel, e);
	case REMOVE: return ashlar_co_disk_remove(p, rig_paths[disk], dry_run, rel, e);
	case REPLACE: return ashlar_co_disk_replace(p, rig_paths[disk], rig_paths[by], false, dry_run, rel, e);
	default: return ashlar_co_pool_rebalance(p, dry_run, rel, e);
	}
}

/* Begins it; the job. */
static inline uint64_t co_begin(struct hist *h, enum what what, unsigned disk, unsigned by)
{
	struct ashlar_relocation rel = { 0 };
	struct err e;
	int r = co_call(h, what, disk, by, false, &rel, &e);

	if (r < 0)
		rig_fail(&h->rig, "relocation %d of disk %u: %s (%d)", what, disk, e.text, r);
	return rel.job;
}

static inline void co_refused(struct hist *h, int code, const char *text, enum what what, unsigned disk, unsigned by)
{
	struct ashlar_relocation rel = { 0 };
	struct err e;
	int r = co_call(h, what, disk, by, false, &rel, &e);

	if (r != code || !strstr(e.text, text))
		rig_fail(&h->rig, "relocation %d of disk %u: '%s' (%d), and not '%s' (%d)", what, disk, e.text, r, text, code);
}

static inline struct ashlar_job_info co_wait(struct hist *h, uint64_t job)
{
	struct ashlar_job_info j = { 0 };
	struct err e = { 0 };

	if (h->rig.failed)
		return j;
	EXPECT(h, ashlar_co_job_wait(h->rig.p, job, WAIT_NS, &j, &e) == 0);
	return j;
}

static inline void co_done(struct hist *h, uint64_t job)
{
	struct ashlar_job_info j = co_wait(h, job);

	if (j.state != ASHLAR_JOB_DONE && !h->rig.failed)
		rig_fail(&h->rig, "the %s of %s is %s: %s", ashlar_job_kind_name(j.kind), j.what, ashlar_job_state_name(j.state), j.result);
	EXPECT(h, j.done_bytes == j.total_bytes);
}

/* Until all relocations have ended, whoever began them. */
static inline void co_settle(struct hist *h)
{
	uint64_t end = reactor_now_ns() + WAIT_NS;
	bool any = true;
	unsigned i;

	while (any && !h->rig.failed) {
		for (i = 0, any = false; i <= LABEL_DISKS_MAX; i++)
			any |= h->rig.p->life->relocations[i] != NULL;
		if (any && reactor_now_ns() > end)
			rig_fail(&h->rig, "relocations do not end");
		co_sleep_ns(50 * NS_PER_MS);
	}
}

static inline int count_group(void *arg, const struct pool_group_disk *rec)
{
	unsigned *cols = arg, i;

	for (i = 0; i < rec->n_cols; i++)
		cols[le16_get(rec->cols[i].disk)]++;
	return 0;
}

static inline unsigned co_cols_on(struct hist *h, unsigned disk)
{
	unsigned cols[LABEL_DISKS_MAX] = { 0 };
	int i = rig_member(&h->rig, disk);

	EXPECT(h, meta_co_wait_applied(h->rig.p->meta, meta_last_seq(h->rig.p->meta)) == 0);
	EXPECT(h, pool_co_each_group(h->rig.p, count_group, cols) == 0);
	return i < 0 ? 0 : cols[i];
}

static inline void co_random_writes(struct hist *h, unsigned n)
{
	uint64_t off, len;

	while (n-- && !h->rig.failed) {
		len = 512 * (1 + rng_below(&h->rng, 32));
		off = ALIGN_DOWN(rng_below(&h->rng, V0_BYTES - len), 512ULL);
		hist_wr(h, 0, off, len, rng_chance(&h->rng, 1, 8) ? IO_FUA : 0);
	}
}

struct writer {
	struct hist *h;
	bool stop;
};

static inline void writer_co_main(void *arg)
{
	struct writer *w = arg;

	while (!w->stop && !w->h->rig.failed) {
		co_random_writes(w->h, 4);
		co_sleep_ns(NS_PER_MS / 2);
	}
	w->h->n_busy--;
}

/* A client that writes while the job runs. */
static inline void co_done_while_writing(struct hist *h, uint64_t job)
{
	struct writer *w = xcalloc(1, sizeof(*w));

	w->h = h;
	h->n_busy++;
	co_spawn(CO_SERVICE, writer_co_main, w, "writer");
	co_done(h, job);
	w->stop = true;
	while (h->n_busy)
		co_sleep_ns(NS_PER_MS);
	xfree(w);
}

/* Volumes that use more groups. */
static inline void co_more(struct hist *h, const char *name, uint64_t bytes)
{
	struct model_vol *v;
	uint64_t off;

	if (rig_co_vol_create(&h->rig, name, bytes, NULL, 0) < 0)
		return;
	v = model_vol_find(h->rig.model, name);
	for (off = 0; off < bytes && !h->rig.failed; off += 128 * KIB)
		if (rig_co_io_once(&h->rig, v, RIG_WRITE, off, 128 * KIB, 0) < 0)
			break;
}

/* Lives of this body that end with a power cut: n_each as hist_each_crash() has them, then at n moments, evenly spread, each followed by a
 * life in which it goes on. */
static inline void each_cut(struct hist *h, int (*body)(struct hist *h), int (*goes_on)(struct hist *h), unsigned n_each, unsigned n)
{
	struct image at = hist_save(h);
	uint64_t first, len, k;

	hist_each_crash(h, body, n_each, 0);
	hist_load(h, &at);
	first = sim_disks_n_events(h->rig.disks);
	hist_live(h, body);
	len = sim_disks_n_events(h->rig.disks) - first;
	for (k = 1; k < n && !h->rig.failed; k++) {
		hist_load(h, &at);
		if (hist_live_to(h, body, first + k * len / n) != -ECANCELED)
			break;
		hist_cut(h, SIM_CUT_RANDOM);
		hist_live(h, goes_on);
	}
	image_free(&at);
}

static const char *const layouts[] = { "single", "raid0", "raid1", "raid1-3", "raid10", "raid5", "raid6" };
static const unsigned n_least[] = { 1, 2, 2, 3, 4, 3, 4 };

#endif
