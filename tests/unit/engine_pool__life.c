/*
 * The life of a disk in a pool: leaving, being rebuilt elsewhere, coming back; and what goes with it: events, jobs, settings, pace.
 * Crashes in all of it, and every set of lost disks: engine_pool__historic.c, engine_pool__losses.c.
 */
#include "tests/unit/engine_pool__historic_rig.h"

#include "engine/pool/life.h"
#include "tests/unit/unit.h"

#define EXPECT(h, cond)                                                  \
	do {                                                             \
		if (!(cond))                                             \
			rig_fail(&(h)->rig, "line %d: %s", __LINE__, #cond); \
	} while (0)

#define MINUTES(n) ((n) * 60 * NS_PER_SEC)

/* ---- helpers ---- */

static void co_set(struct hist *h, const struct ashlar_pool_settings *s)
{
	struct err e = { 0 };
	int r = ashlar_co_pool_set(h->rig.p, s, &e);

	if (r < 0)
		rig_fail(&h->rig, "pool set: %s (%d)", e.text, r);
}

static void co_set_delay(struct hist *h, uint64_t delay_ns)
{
	struct ashlar_pool_settings s;

	ashlar_co_pool_settings(h->rig.p, &s);
	s.rebuild_delay_ns = delay_ns;
	co_set(h, &s);
}

/* The newest job of the kind; false: there is none. */
static bool co_job(struct hist *h, enum ashlar_job_kind kind, struct ashlar_job_info *out)
{
	struct ashlar_job_info *j;
	struct err e = { 0 };
	bool found = false;
	size_t n, i;
	int r = ashlar_co_job_list(h->rig.p, &j, &n, &e);

	EXPECT(h, r == 0);
	for (i = 0; r == 0 && i < n; i++) {
		if (j[i].kind != kind)
			continue;
		*out = j[i];
		found = true;
	}
	xfree(j);
	return found;
}

static bool co_has_event(struct hist *h, const char *type, const char *text)
{
	struct ashlar_event *ev;
	struct err e = { 0 };
	bool found = false;
	size_t n, i;
	int r = ashlar_co_events(h->rig.a, 0, 2000, 0, &ev, &n, &e);

	EXPECT(h, r == 0);
	for (i = 0; r == 0 && i < n; i++)
		found |= !strcmp(ev[i].type, type) && (!text || strstr(ev[i].text, text));
	xfree(ev);
	return found;
}

/* How many columns lie on a disk; meta: of metadata alone. */
struct cols_on {
	unsigned disk, n;
	bool meta;
};

static int cols_on_group(void *arg, const struct pool_group_disk *rec)
{
	struct cols_on *c = arg;
	unsigned i;

	for (i = 0; i < rec->n_cols; i++)
		c->n += le16_get(rec->cols[i].disk) == c->disk && (!c->meta || rec->kind != THIN_GROUP_DATA);
	return 0;
}

static unsigned co_cols_on(struct hist *h, unsigned disk)
{
	struct cols_on c = { .disk = disk };
	int r = pool_co_each_group(h->rig.p, cols_on_group, &c);

	EXPECT(h, r == 0);
	return c.n;
}

static void co_random_writes(struct hist *h, unsigned n)
{
	uint64_t off, len;

	while (n-- && !h->rig.failed) {
		len = 512 * (1 + rng_below(&h->rng, 32));
		off = ALIGN_DOWN(rng_below(&h->rng, V0_BYTES - len), 512ULL);
		hist_wr(h, 0, off, len, rng_chance(&h->rng, 1, 8) ? IO_FUA : 0);
	}
}

static struct hist *begin(const char *layout, unsigned n_disks, uint64_t disk_bytes)
{
	struct hist *h = hist_begin(layout, n_disks, disk_bytes);

	h->rig.degraded = h->rig.may_be_full = true;
	return h;
}

/* ---- events ---- */

struct reporter {
	struct ashlar_pool *p;
	uint64_t after_ns;
};

static void reporter_co_main(void *arg)
{
	struct reporter *r = arg;

	co_sleep_ns(r->after_ns);
	pool_event(r->p, ASHLAR_WARNING, "test.event", 0, "v0", "something has happened on reactor %u", reactor_self()->index);
	xfree(r);
}

static int co_events(struct hist *h)
{
	struct ashlar *a = h->rig.a;
	struct ashlar_event *ev;
	struct reporter *rep;
	struct err e = { 0 };
	uint64_t last, start;
	unsigned i;
	size_t n;

	EXPECT(h, ashlar_co_events(a, 0, 2000, 0, &ev, &n, &e) == 0);
	last = n ? ev[n - 1].seq : 0;
	xfree(ev);
	start = reactor_now_ns();
	EXPECT(h, ashlar_co_events(a, last, 10, NS_PER_SEC, &ev, &n, &e) == 0 && n == 0);
	xfree(ev);
	EXPECT(h, reactor_now_ns() - start >= NS_PER_SEC);
	rep = xcalloc(1, sizeof(*rep));
	*rep = (struct reporter){ h->rig.p, 3 * NS_PER_SEC };
	reactor_spawn(h->rig.w->reactors[1], reporter_co_main, rep, "reporter");
	EXPECT(h, ashlar_co_events(a, last, 10, UINT64_MAX, &ev, &n, &e) == 0 && n == 1);
	if (n == 1)
		EXPECT(h, ev->seq == last + 1 && !strcmp(ev->type, "test.event") && !strcmp(ev->disk, "d0") && !strcmp(ev->volume, "v0") &&
			  !strcmp(ev->pool, "p") && ev->severity == ASHLAR_WARNING && strstr(ev->text, "reactor 1"));
	xfree(ev);
	for (i = 0; i < 1100; i++)
		pool_event(h->rig.p, ASHLAR_INFO, "test.many", -1, NULL, "%u", i);
	EXPECT(h, ashlar_co_events(a, last, 10, 0, &ev, &n, &e) == 0 && n == 10 && ev[0].seq == last + 1 + 1100 - 1023);
	xfree(ev);
	EXPECT(h, ashlar_co_events(a, last + 5000, 2000, NS_PER_SEC, &ev, &n, &e) == 0 && n == 1024); /* of another engine */
	EXPECT(h, n == 1024 && !strcmp(ev[1023].text, "1099"));
	xfree(ev);
	return 0;
}

static void events_are_waited_for_and_say_what_was_lost(void)
{
	struct hist *h = begin("raid1", 3, 12 * MIB);

	hist_live(h, co_events);
	hist_end(h);
}

/* ---- settings ---- */

static const struct ashlar_pool_settings odd = { .rebuild_delay_ns = 17 * NS_PER_SEC, .pace_floor_bps = 3 * MIB, .pace_ceiling_bps = 77 * MIB,
						 .hedge_ns = 33 * NS_PER_MS, .timeout_ns = 4 * NS_PER_SEC };

static int co_settings(struct hist *h)
{
	struct ashlar_pool_settings bad[] = { odd, odd, odd, odd };
	struct err e = { 0 };
	unsigned i;

	bad[0].hedge_ns = 5 * NS_PER_SEC;
	bad[1].pace_ceiling_bps = 2 * MIB;
	bad[2].timeout_ns = MINUTES(90);
	bad[3].hedge_ns = 10;
	for (i = 0; i < ARRAY_LEN(bad); i++)
		EXPECT(h, ashlar_co_pool_set(h->rig.p, &bad[i], &e) == -EINVAL && e.text[0]);
	co_set(h, &odd);
	return 0;
}

static int co_settings_are_there(struct hist *h)
{
	struct ashlar_pool_settings s;

	ashlar_co_pool_settings(h->rig.p, &s);
	EXPECT(h, !memcmp(&s, &odd, sizeof(s)));
	return 0;
}

static int co_settings_and_crash(struct hist *h)
{
	struct ashlar_pool_settings s = odd;

	s.rebuild_delay_ns = MINUTES(1);
	co_set(h, &s);
	co_set(h, &odd);
	sim_disks_stop_at(h->rig.disks, sim_disks_n_events(h->rig.disks) + 1);
	co_sleep_ns(MINUTES(1));
	return 0;
}

static void settings_are_kept_and_nonsense_is_refused(void)
{
	struct hist *h = begin("raid1", 3, 12 * MIB);

	hist_live(h, co_settings);
	hist_live(h, co_settings_are_there);
	hist_live(h, co_settings_and_crash);
	hist_cut(h, SIM_CUT_NONE);
	hist_live(h, co_settings_are_there);
	hist_end(h);
}

/* ---- away and back ---- */

/* Disk 1 goes; a little is written; it returns: only that is copied. */
static int co_short_absence(struct hist *h)
{
	struct ashlar_job_info job;
	uint64_t before, cols = co_cols_on(h, 1);

	co_set_delay(h, MINUTES(5));
	hist_co_gone(h, 1);
	hist_wr(h, 0, 64 * KIB, 8192, 0);
	hist_wr(h, 0, 300 * KIB, 4096, IO_FUA);
	co_sleep_ns(MINUTES(2));
	EXPECT(h, !co_job(h, ASHLAR_JOB_REBUILD, &job));
	EXPECT(h, co_has_event(h, "disk.out", "d1"));
	before = sim_disk_bytes_written(h->rig.disks, 1);
	hist_faults(h, 1)->gone = false; /* it is looked for where it was */
	hist_co_whole(h, true);
	EXPECT(h, co_job(h, ASHLAR_JOB_RESYNC, &job) && job.state == ASHLAR_JOB_DONE);
	EXPECT(h, co_has_event(h, "disk.back", "d1") && co_has_event(h, "disk.online", "d1"));
	EXPECT(h, co_cols_on(h, 1) == cols && !co_job(h, ASHLAR_JOB_REBUILD, &job));
	/* two regions of 16 KiB in clusters of 8, metadata pages that changed meanwhile, labels */
	EXPECT(h, sim_disk_bytes_written(h->rig.disks, 1) - before < 1200 * KIB);
	hist_co_look(h);
	return 0;
}

static void disk_that_returns_in_time_gets_what_it_missed(void)
{
	static const char *const layouts[] = { "raid1", "raid10", "raid5" };
	unsigned i;

	for (i = 0; i < ARRAY_LEN(layouts); i++) {
		struct hist *h = begin(layouts[i], 4, 12 * MIB);

		hist_live(h, co_short_absence);
		hist_end(h);
	}
}

static int co_delay(struct hist *h)
{
	struct ashlar_job_info job;
	unsigned i;

	co_set_delay(h, MINUTES(10));
	hist_co_gone(h, 0);
	co_random_writes(h, 10);
	co_sleep_ns(MINUTES(9));
	EXPECT(h, !co_job(h, ASHLAR_JOB_REBUILD, &job));
	co_sleep_ns(MINUTES(2));
	hist_co_whole(h, false);
	EXPECT(h, co_job(h, ASHLAR_JOB_REBUILD, &job) && job.state == ASHLAR_JOB_DONE && strstr(job.what, "d0"));
	EXPECT(h, co_cols_on(h, 0) == 0);
	co_set_delay(h, UINT64_MAX);
	hist_co_gone(h, 1);
	co_sleep_ns(MINUTES(20));
	EXPECT(h, co_cols_on(h, 1) > 0);
	hist_co_fail(h, 1); /* somebody says that it will not be back */
	for (i = 0; i < 60 && co_cols_on(h, 1); i++)
		co_sleep_ns(NS_PER_SEC);
	EXPECT(h, co_cols_on(h, 1) == 0);
	hist_co_look(h);
	return 0;
}

static void rebuild_waits_as_long_as_it_was_told(void)
{
	struct hist *h = begin("raid1", 5, 12 * MIB);

	hist_live(h, co_delay);
	hist_end(h);
}

/* One write error, and the disk's data goes elsewhere at once; then the next disk may fail. */
static int co_errors(struct hist *h)
{
	unsigned i;

	co_set_delay(h, MINUTES(60));
	for (i = 0; i < 2; i++) {
		hist_faults(h, i)->write_error = 65536;
		co_random_writes(h, 30);
		co_sleep_ns(30 * NS_PER_SEC);
		hist_co_whole(h, false);
		EXPECT(h, rig_away(&h->rig) == (2U << i) - 1 && co_cols_on(h, i) == 0);
		co_random_writes(h, 10);
	}
	hist_co_look(h);
	return 0;
}

static void disk_with_errors_is_rebuilt_at_once_and_the_next_may_fail(void)
{
	static const char *const layouts[] = { "raid1", "raid1-3", "raid5", "raid6" };
	unsigned i, k;

	for (i = 0; i < ARRAY_LEN(layouts); i++) { /* parity groups are up to ten disks wide */
		struct hist *h = begin(layouts[i], i < 2 ? 7 : 12, 12 * MIB);

		hist_live(h, co_errors);
		for (k = 0; k < 2; k++)
			hist_faults(h, k)->write_error = 0;
		hist_live(h, hist_co_look);
		hist_end(h);
	}
}

/* Two are away, each misses something else; both come back at once, and one leaves again in the middle. */
static int co_two_return(struct hist *h)
{
	unsigned i;

	hist_co_gone(h, 1);
	co_random_writes(h, 20);
	hist_co_gone(h, 2);
	co_random_writes(h, 20);
	hist_faults(h, 1)->gone = hist_faults(h, 2)->gone = false;
	hist_co_online(h, 1);
	hist_co_online(h, 2);
	for (i = 0; i < 3; i++)
		co_random_writes(h, 3);
	hist_co_gone(h, 2);
	co_random_writes(h, 20);
	hist_faults(h, 2)->gone = false;
	hist_co_online(h, 2);
	co_random_writes(h, 20);
	hist_co_whole(h, true);
	hist_faults(h, 0)->gone = hist_faults(h, 3)->gone = true;
	hist_co_look(h);
	return 0;
}

static void disks_return_together_and_leave_in_the_middle(void)
{
	static const char *const layouts[] = { "raid1-3", "raid6" };
	unsigned i, k;

	for (i = 0; i < ARRAY_LEN(layouts); i++) {
		for (k = 0; k < 8; k++) {
			struct hist *h = begin(layouts[i], 6, 12 * MIB);

			rng_init(&h->rng, k);
			hist_live(h, co_two_return);
			hist_end(h);
		}
	}
}

/* Somebody puts an old copy of the disk back: what it had acknowledged is gone, and no bit says so. */
static int co_old_copy(struct hist *h)
{
	struct sim_disks *old = sim_disks_clone(h->rig.disks);

	co_random_writes(h, 40);
	hist_flush(h, 0);
	co_sleep_ns(MINUTES(1)); /* regions are clean */
	EXPECT(h, meta_co_checkpoint(h->rig.p->meta) == 0); /* and labels have been written: they tell */
	hist_co_gone(h, 1);
	sim_disk_restore(h->rig.disks, 1, old);
	sim_disks_destroy(old);
	hist_faults(h, 1)->gone = false;
	hist_co_online(h, 1);
	hist_co_whole(h, true);
	EXPECT(h, co_has_event(h, "disk.back", "old copy"));
	hist_co_look(h);
	hist_faults(h, 0)->gone = true;
	hist_co_look(h);
	return 0;
}

static void old_copy_of_a_disk_is_not_believed(void)
{
	static const char *const layouts[] = { "raid1", "raid5" };
	unsigned i;

	for (i = 0; i < ARRAY_LEN(layouts); i++) {
		struct hist *h = begin(layouts[i], 3, 12 * MIB);

		hist_live(h, co_old_copy);
		hist_end(h);
	}
}

/* Written, flushed, and then the machine dies. */
static int co_flushed_and_dead(struct hist *h)
{
	co_random_writes(h, 20);
	hist_flush(h, 0);
	hist_flush(h, 1);
	sim_disks_stop_at(h->rig.disks, sim_disks_n_events(h->rig.disks) + 1);
	co_random_writes(h, 20);
	return 0;
}

static int co_old_copy_is_known(struct hist *h)
{
	EXPECT(h, h->rig.p->disks[1].rolled_back);
	hist_co_whole(h, true);
	hist_co_look(h);
	hist_faults(h, 0)->gone = true;
	hist_co_look(h);
	return 0;
}

/* Openings that end in a crash write few labels; they tell nevertheless. */
static void old_copy_is_not_believed_after_crashes(void)
{
	static const struct {
		const char *layout;
		unsigned before, after; /* crashes, of the copy */
	} cases[] = { { "raid1", 0, 1 }, { "raid5", 0, 1 }, { "raid1", 1, 1 }, { "raid1", 1, 3 }, { "raid5", 1, 3 } };
	unsigned i, k;

	for (i = 0; i < ARRAY_LEN(cases); i++) {
		struct hist *h = begin(cases[i].layout, 3, 12 * MIB);
		struct sim_disks *old = NULL;

		for (k = 0; k < cases[i].before + cases[i].after; k++) {
			if (k == cases[i].before)
				old = sim_disks_clone(h->rig.disks);
			hist_live(h, co_flushed_and_dead);
			hist_cut(h, SIM_CUT_ALL);
		}
		sim_disk_restore(h->rig.disks, 1, old);
		sim_disks_destroy(old);
		hist_live(h, co_old_copy_is_known);
		hist_end(h);
	}
}

/* ---- targets and room ---- */

struct saboteur {
	struct hist *h;
	unsigned target;
	bool stop;
};

/* Fails the disk that the first rebuilt group goes to, as soon as it can be seen. */
static void saboteur_co_main(void *arg)
{
	struct saboteur *s = arg;
	struct ashlar_pool *p = s->h->rig.p;
	struct pending_run *run;

	while (!s->stop && s->target == UINT32_MAX) {
		list_for_each (run, &p->pending_runs, link)
			if (run->target && s->target == UINT32_MAX)
				s->target = run->disk;
		co_yield();
		co_sleep_ns(1000);
	}
	if (s->target != UINT32_MAX)
		hist_faults(s->h, s->target)->write_error = 65536;
	s->h->n_busy--;
}

static int co_target_fails(struct hist *h)
{
	struct saboteur *s = xcalloc(1, sizeof(*s));

	*s = (struct saboteur){ h, UINT32_MAX, false };
	co_set_delay(h, 0);
	h->n_busy++;
	co_spawn(CO_SERVICE, saboteur_co_main, s, "saboteur");
	hist_co_fail(h, 0);
	co_random_writes(h, 20);
	hist_co_whole(h, false);
	s->stop = true;
	while (h->n_busy)
		co_sleep_ns(NS_PER_MS);
	EXPECT(h, s->target != UINT32_MAX && s->target != 0 && rig_away(&h->rig) == (1U | 1U << s->target));
	EXPECT(h, co_cols_on(h, 0) == 0 && co_cols_on(h, s->target) == 0);
	hist_co_look(h);
	xfree(s);
	return 0;
}

static void target_that_fails_is_replaced_by_another(void)
{
	static const char *const layouts[] = { "raid1", "raid1-3", "raid6" };
	unsigned i, k;

	for (i = 0; i < ARRAY_LEN(layouts); i++) {
		struct hist *h = begin(layouts[i], i < 2 ? 7 : 12, 12 * MIB);

		hist_live(h, co_target_fails);
		for (k = 0; k < h->rig.n_disks; k++)
			hist_faults(h, k)->write_error = 0;
		hist_live(h, hist_co_look);
		hist_end(h);
	}
}

/* Three disks, three columns of metadata: nowhere to go. */
static int co_no_room(struct hist *h)
{
	struct ashlar_job_info job;

	co_set_delay(h, 0);
	hist_co_gone(h, 2);
	co_sleep_ns(MINUTES(1));
	EXPECT(h, co_job(h, ASHLAR_JOB_REBUILD, &job) && job.state == ASHLAR_JOB_WAITING && strstr(job.result, "waits for space"));
	EXPECT(h, co_has_event(h, "job.waits", "waits for space"));
	EXPECT(h, job.left_ns == UINT64_MAX && !job.bytes_per_s);
	co_random_writes(h, 10);
	hist_faults(h, 2)->gone = false;
	hist_co_whole(h, true);
	EXPECT(h, co_job(h, ASHLAR_JOB_REBUILD, &job) && job.state == ASHLAR_JOB_DONE);
	hist_co_look(h);
	return 0;
}

static void rebuild_without_room_waits_and_says_so(void)
{
	struct hist *h = begin("raid1", 3, 12 * MIB);

	hist_live(h, co_no_room);
	hist_end(h);
}

static void co_big(struct hist *h, uint64_t bytes)
{
	uint64_t off;
	int r = rig_co_vol_create(&h->rig, "big", bytes, NULL, 0);

	EXPECT(h, r == 0);
	for (off = 0; off < bytes && r == 0 && !h->rig.failed; off += 256 * KIB)
		r = hist_wr(h, 2, off, 256 * KIB, 0);
}

/* Extents of deleted volumes are room. */
static int co_room_of_the_deleted(struct hist *h)
{
	co_big(h, 14 * MIB);
	EXPECT(h, rig_co_vol_delete(&h->rig, hist_vol(h, 2)) == 0);
	co_sleep_ns(MINUTES(1));
	co_set_delay(h, 0);
	hist_co_gone(h, 3);
	hist_co_whole(h, false);
	hist_co_look(h);
	return 0;
}

static void space_of_deleted_volumes_is_room_for_a_rebuild(void)
{
	struct hist *h = begin("raid1", 5, 10 * MIB);

	hist_live(h, co_room_of_the_deleted);
	hist_end(h);
}

/* ---- one more copy of the metadata ---- */

/* As an older version made them: two copies. */
static void co_narrow(struct hist *h, unsigned i)
{
	struct ashlar_pool *p = h->rig.p;
	struct pool_group_disk rec;
	struct pgroup *g;
	uint64_t seq;
	int r = pool_co_group_claim(p, p->label->meta[i].group, &g);

	CHECK(r == 0);
	g->desc.n_cols = g->desc.copies = 2;
	pool_co_group_publish(p, g);
	p->label->meta[i].n_cols = 2;
	EXPECT(h, pool_co_publish_labels(p) == 0);
	pool_group_encode(&g->desc, g->kind, p->label, &rec);
	seq = meta_record(p->meta, POOL_REC_GROUP_MOVE, &rec, sizeof(rec));
	r = meta_co_commit(p->meta, seq);
	EXPECT(h, r == 0 && meta_co_wait_applied(p->meta, seq) == 0);
	pool_group_unclaim(p, g);
}

static int co_make_narrow(struct hist *h)
{
	unsigned i;

	for (i = 0; i < h->rig.p->label->n_meta; i++)
		co_narrow(h, i);
	EXPECT(h, pool_metadata_width(h->rig.p) == 2);
	co_random_writes(h, 10);
	hist_co_look(h);
	return 0;
}

static int co_widen(struct hist *h)
{
	struct ashlar_pool *p = h->rig.p;
	struct pool_job *j = pool_job_start(p, ASHLAR_JOB_REBUILD, "metadata of pool p");
	int r = pool_co_metadata_widen(p, 3, j);

	pool_job_end(j, r < 0 ? ASHLAR_JOB_FAILED : ASHLAR_JOB_DONE, "%s", r < 0 ? err_text(r) : "three copies");
	EXPECT(h, r == 0 && pool_metadata_width(p) == 3);
	co_random_writes(h, 10);
	return 0;
}

static int co_is_wide(struct hist *h)
{
	EXPECT(h, pool_metadata_width(h->rig.p) == 3);
	hist_co_look(h);
	return 0;
}

static void metadata_gets_one_more_copy(void)
{
	struct hist *h = begin("raid1-3", 5, 12 * MIB);
	struct image start;
	uint64_t begin_at, n, k;

	hist_live(h, co_make_narrow);
	start = hist_save(h);
	begin_at = sim_disks_n_events(h->rig.disks);
	hist_live(h, co_widen);
	n = sim_disks_n_events(h->rig.disks) - begin_at;
	hist_live(h, co_is_wide);
	hist_each_loss(h, 0, 2);
	for (k = 1; k < 40 && !h->rig.failed; k++) {
		hist_load(h, &start);
		rng_init(&h->rng, k);
		h->rig.degraded = h->rig.may_be_full = true;
		if (hist_live_to(h, co_widen, begin_at + n * k / 40) != -ECANCELED)
			continue;
		hist_cut(h, SIM_CUT_RANDOM);
		hist_live(h, hist_co_look);
		hist_live(h, co_widen);
		hist_live(h, co_is_wide);
	}
	image_free(&start);
	hist_end(h);
}

/* ---- pace ---- */

struct client {
	struct hist *h;
	bool stop;
	uint64_t n;
};

static void client_co_main(void *arg)
{
	struct client *c = arg;
	struct rng rng;

	rng_init(&rng, c->h->n_busy);
	while (!c->stop && !c->h->rig.failed) {
		rig_co_io_once(&c->h->rig, hist_vol(c->h, 0), RIG_READ, ALIGN_DOWN(rng_below(&rng, V0_BYTES / 2), 4096ULL), 4096, 0);
		c->n++;
	}
	c->h->n_busy--;
}

/* Every request of every disk takes so much longer. */
static void stall_all(struct hist *h, uint64_t ns)
{
	unsigned i;

	for (i = 0; i < h->rig.n_disks; i++) {
		hist_faults(h, i)->stall = ns ? 65536 : 0;
		hist_faults(h, i)->stall_ns = ns;
	}
}

/* So many bytes let through in a second. */
static uint64_t co_paced(struct hist *h, uint64_t ns)
{
	uint64_t end = reactor_now_ns() + ns, n = 0;

	while (reactor_now_ns() < end) {
		if (pool_co_pace(h->rig.p, 64 * KIB) < 0)
			break;
		n += 64 * KIB;
		co_sleep_ns(100 * NS_PER_US); /* the work itself: at most 640 MB/s */
	}
	return n * NS_PER_SEC / ns;
}

static int co_pace(struct hist *h)
{
	struct client *c = xcalloc(1, sizeof(*c));
	struct ashlar_pool_settings s;
	uint64_t rate;
	unsigned i;

	ashlar_co_pool_settings(h->rig.p, &s);
	s.pace_floor_bps = 5 * MIB;
	co_set(h, &s);
	EXPECT(h, co_paced(h, 5 * NS_PER_SEC) > 300 * MIB); /* nobody is there */
	c->h = h;
	for (i = 0; i < 4; i++) {
		h->n_busy++;
		co_spawn(CO_SERVICE, client_co_main, c, "client");
	}
	co_sleep_ns(5 * NS_PER_SEC);
	EXPECT(h, h->rig.p->life->pace.base_ns > 0);
	EXPECT(h, co_paced(h, 10 * NS_PER_SEC) > 200 * MIB); /* nobody suffers */
	stall_all(h, 4 * NS_PER_MS);
	co_paced(h, 3 * NS_PER_SEC);
	rate = co_paced(h, 2 * NS_PER_SEC);
	EXPECT(h, rate < 8 * MIB && rate > 2 * MIB);
	EXPECT(h, co_paced(h, 200 * NS_PER_SEC) > 50 * MIB); /* it was not us: the baseline says so */
	stall_all(h, 0);
	co_paced(h, 5 * NS_PER_SEC);
	EXPECT(h, co_paced(h, 5 * NS_PER_SEC) > 200 * MIB);
	s.pace_ceiling_bps = 20 * MIB;
	co_set(h, &s);
	co_paced(h, 2 * NS_PER_SEC);
	rate = co_paced(h, 5 * NS_PER_SEC);
	EXPECT(h, rate < 21 * MIB && rate > 15 * MIB);
	c->stop = true;
	while (h->n_busy)
		co_sleep_ns(NS_PER_MS);
	xfree(c);
	return 0;
}

static void background_work_yields_to_clients_and_takes_what_they_leave(void)
{
	struct hist *h = begin("raid1", 3, 12 * MIB);

	hist_live(h, co_pace);
	hist_end(h);
}

/* ---- jobs ---- */

static int co_jobs(struct hist *h)
{
	struct ashlar_pool_settings s;
	struct ashlar_job_info job, j;
	struct err e = { 0 };
	uint64_t id, start;

	co_big(h, 8 * MIB);
	ashlar_co_pool_settings(h->rig.p, &s);
	s.rebuild_delay_ns = 0;
	s.pace_floor_bps = MIB / 4;
	s.pace_ceiling_bps = MIB;
	co_set(h, &s);
	hist_co_fail(h, 0);
	co_sleep_ns(1500 * NS_PER_MS);
	EXPECT(h, co_job(h, ASHLAR_JOB_REBUILD, &job) && job.state == ASHLAR_JOB_RUNNING);
	id = job.id;
	EXPECT(h, job.total_bytes > MIB && job.done_bytes > 0 && job.done_bytes < job.total_bytes);
	EXPECT(h, job.bytes_per_s > MIB / 4 && job.bytes_per_s < 3 * MIB);
	EXPECT(h, job.left_ns > 100 * NS_PER_MS && job.left_ns < MINUTES(1));
	EXPECT(h, ashlar_co_job_stop(h->rig.p, id, &e) == -EINVAL);
	EXPECT(h, ashlar_co_job_wait(h->rig.p, id + 100, 0, &j, &e) == -ENOENT);
	start = reactor_now_ns();
	EXPECT(h, ashlar_co_job_wait(h->rig.p, id, 100 * NS_PER_MS, &j, &e) == 0 && j.state == ASHLAR_JOB_RUNNING);
	EXPECT(h, reactor_now_ns() - start >= 100 * NS_PER_MS);
	EXPECT(h, ashlar_co_job_wait(h->rig.p, id, UINT64_MAX, &j, &e) == 0 && j.state == ASHLAR_JOB_DONE);
	EXPECT(h, j.done_bytes == j.total_bytes && j.result[0]);
	return 0;
}

static void jobs_say_how_far_and_how_fast_they_are(void)
{
	struct hist *h = begin("raid1", 5, 12 * MIB);

	hist_live(h, co_jobs);
	hist_end(h);
}

/* ---- disks that do not answer ---- */

static int co_hang(struct hist *h)
{
	uint64_t start = reactor_now_ns();

	hist_faults(h, 1)->hang = true;
	hist_co_fail(h, 1);
	EXPECT(h, reactor_now_ns() - start < 10 * NS_PER_SEC);
	co_set_delay(h, 0);
	co_random_writes(h, 10);
	hist_co_whole(h, false);
	hist_co_look(h);
	return 0;
}

static int co_hang_unasked(struct hist *h)
{
	hist_faults(h, 1)->hang = true;
	co_random_writes(h, 40);
	co_sleep_ns(MINUTES(1));
	EXPECT(h, rig_away(&h->rig) == 2);
	EXPECT(h, co_has_event(h, "disk.out", "did not answer") || co_has_event(h, "disk.out", "label"));
	EXPECT(h, ashlar_co_disk_online(h->rig.p, "d1", NULL, NULL) < 0); /* what was sent before may still come */
	hist_faults(h, 1)->hang = false;
	co_sleep_ns(MINUTES(1));
	hist_co_online(h, 1);
	hist_co_whole(h, true);
	hist_co_look(h);
	return 0;
}

static void disk_that_hangs_holds_nobody_up(void)
{
	struct hist *h = begin("raid1", 5, 12 * MIB);

	hist_live(h, co_hang); /* and the pool closes */
	hist_faults(h, 1)->hang = false;
	hist_live(h, hist_co_look);
	hist_end(h);
	h = begin("raid6", 5, 12 * MIB);
	hist_live(h, co_hang_unasked);
	hist_end(h);
}

/* ---- commands ---- */

static int co_commands(struct hist *h)
{
	struct ashlar_pool *p = h->rig.p;
	struct err e = { 0 };

	EXPECT(h, ashlar_co_disk_fail(p, "d9", false, false, &e) == -ENOENT);
	EXPECT(h, ashlar_co_disk_fail(p, "d0", false, true, &e) == 0 && strstr(e.text, "no further disk may be lost"));
	EXPECT(h, rig_away(&h->rig) == 0);
	EXPECT(h, ashlar_co_disk_online(p, "1", NULL, &e) == 0); /* it is there */
	hist_co_fail(h, 0);
	EXPECT(h, ashlar_co_disk_fail(p, "d1", false, false, &e) == -EBUSY && strstr(e.text, "data would be lost"));
	EXPECT(h, rig_away(&h->rig) == 1);
	EXPECT(h, ashlar_co_disk_online(p, "0", "d1", &e) < 0); /* another disk of the pool, in use */
	hist_co_online(h, 0);
	hist_co_whole(h, true);
	hist_co_look(h);
	return 0;
}

static void commands_refuse_what_would_lose_data(void)
{
	struct hist *h = begin("raid1", 2, 12 * MIB);

	hist_live(h, co_commands);
	hist_end(h);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(events_are_waited_for_and_say_what_was_lost),
		TEST(settings_are_kept_and_nonsense_is_refused),
		TEST(disk_that_returns_in_time_gets_what_it_missed),
		TEST(rebuild_waits_as_long_as_it_was_told),
		TEST(disk_with_errors_is_rebuilt_at_once_and_the_next_may_fail),
		TEST(disks_return_together_and_leave_in_the_middle),
		TEST(old_copy_of_a_disk_is_not_believed),
		TEST(old_copy_is_not_believed_after_crashes),
		TEST(target_that_fails_is_replaced_by_another),
		TEST(rebuild_without_room_waits_and_says_so),
		TEST(space_of_deleted_volumes_is_room_for_a_rebuild),
		TEST(metadata_gets_one_more_copy),
		TEST(background_work_yields_to_clients_and_takes_what_they_leave),
		TEST(jobs_say_how_far_and_how_fast_they_are),
		TEST(disk_that_hangs_holds_nobody_up),
		TEST(commands_refuse_what_would_lose_data),
		CU_TEST_INFO_NULL,
	};

	return tests_run("life", tests);
}
