/*
 * Families that move to another layout while they are in use. SEED and SEEDS in the environment.
 */
#include "engine/pool/move_family.h"
#include "tests/unit/engine_pool__snapshots_rig.h"
#include "tests/unit/unit.h"

#define DISK (64 * MIB)

/* ---- what is common ---- */

static uint64_t co_move(struct env *env, const char *volume, const char *layout)
{
	struct ashlar_move_spec s = { .volume = volume, .layout = layout };
	struct ashlar_move_info i = { 0 };

	OK(env, ashlar_co_volume_move(env->p, &s, &i, &e));
	EXPECT(env, i.job && i.n_volumes);
	return i.job;
}

static enum ashlar_job_state co_wait(struct env *env, uint64_t job)
{
	struct ashlar_job_info i = { 0 };

	OK(env, ashlar_co_job_wait(env->p, job, 600 * NS_PER_SEC, &i, &e));
	if (i.state != ASHLAR_JOB_DONE)
		fprintf(stderr, "  job %s: %s: %s\n", i.what, ashlar_job_state_name(i.state), i.result);
	return i.state;
}

static bool co_layout_is(struct env *env, const char *volume, const char *layout)
{
	struct ashlar_volume_info i = { 0 };

	OK(env, ashlar_co_volume_info(env->p, volume, &i, &e));
	return i.layout && !strcmp(i.layout, layout);
}

static unsigned n_of_state(struct env *env, unsigned state)
{
	struct thin_vol *v;
	unsigned n = 0;

	list_for_each (v, thin_vols(env->p->thin), link)
		n += v->state == state;
	return n;
}

/* Background work is slow: so that there is time for something to happen. */
static void co_slow(struct env *env)
{
	struct ashlar_pool_settings s;

	ashlar_co_pool_settings(env->p, &s);
	s.pace_floor_bps = MIB;
	s.pace_ceiling_bps = MIB;
	OK(env, ashlar_co_pool_set(env->p, &s, &e));
}

/* A volume with snapshots, clones of them, and theirs; some of it overwritten in between. */
static void co_family(struct env *env)
{
	co_volume(env, "v");
	co_write(env, "v", 0, BYTES);
	co_snap(env, "v@s1");
	co_write(env, "v", 3 * CLUSTER, CLUSTER);
	co_write(env, "v", 10 * CLUSTER + 1024, 512);
	co_snap(env, "v@s2");
	co_clone(env, "v@s1", "c");
	co_write(env, "c", 20 * CLUSTER, 2 * CLUSTER);
	co_snap(env, "c@t1");
	co_write(env, "c", 0, 4096);
	co_clone(env, "c@t1", "d");
	co_write(env, "d", BYTES - CLUSTER, CLUSTER);
	co_do(env, "v", IO_DISCARD, 30 * CLUSTER, NULL, 4 * CLUSTER);
	memset(point_find(env, "v")->data + 30 * CLUSTER, 0, 4 * CLUSTER);
}

/* ---- at rest ---- */

static int co_moves(struct env *env)
{
	static const char *const layouts[] = { "raid5", "raid0", "single", "raid1-3", "raid1" };
	struct ashlar_job_info info = { 0 };
	uint64_t used, job;
	unsigned i;

	co_family(env);
	used = co_used(env);
	for (i = 0; i < ARRAY_LEN(layouts); i++) {
		job = co_move(env, i % 2 ? "c" : "v", layouts[i]);
		OK(env, ashlar_co_job_wait(env->p, job, 0, &info, &e));
		EXPECT(env, info.state >= ASHLAR_JOB_DONE || info.total_bytes >= used); /* known at once */
		EXPECT(env, co_wait(env, job) == ASHLAR_JOB_DONE);
		EXPECT(env, co_layout_is(env, "v", layouts[i]) && co_layout_is(env, "c", layouts[i]) && co_layout_is(env, "d", layouts[i]));
		co_verify(env);
		co_settle(env);
		EXPECT(env, n_of_state(env, THIN_VOLUME_INCOMING) == 0 && n_of_state(env, THIN_VOLUME_STILL) == 0);
		EXPECT(env, co_used(env) <= used + used / 50 && co_used(env) + used / 50 >= used);
		co_write(env, "v", (5 + i) * CLUSTER, 4096);
		co_write(env, "d", (7 + i) * CLUSTER, CLUSTER);
		used = co_used(env);
	}
	return 0;
}

/* It may have ended before the command has. */
static int co_empty(struct env *env)
{
	static const char *const layouts[] = { "raid0", "single", "raid1-3", "raid1" };
	unsigned i;

	co_volume(env, "v");
	for (i = 0; i < 40; i++)
		EXPECT(env, co_wait(env, co_move(env, "v", layouts[i % 4])) == ASHLAR_JOB_DONE);
	return 0;
}

static void a_volume_that_holds_nothing_moves_and_its_job_is_told(void)
{
	unsigned seed;

	for (seed = 1; seed <= 5; seed++) {
		struct env *env = begin(seed, DISK);

		run(env, co_empty);
		end(env);
	}
}

static int co_verify_all(struct env *env)
{
	EXPECT(env, co_layout_is(env, "v", "raid1"));
	return co_verify(env);
}

static void a_family_moves_as_a_whole_and_shares_what_it_shared(void)
{
	struct env *env = begin(100, DISK);

	run(env, co_moves);
	run(env, co_verify_all);
	end(env);
}

/* ---- in use ---- */

struct writer {
	struct env *env;
	const char *name;
	struct ashlar_attach *at;
	struct rng rng;
	uint64_t n_done;
	bool stop, ended;
};

/* Writes and reads of what it has written, without a pause. */
static void writer_co_run(void *arg)
{
	struct writer *w = arg;
	uint8_t *buf = buf_alloc(4 * CLUSTER), *data = point_find(w->env, w->name)->data;

	while (!w->stop) {
		uint64_t len = 512 * (1 + rng_below(&w->rng, 4 * CLUSTER / 512)), off = 512 * rng_below(&w->rng, (BYTES - len) / 512 + 1);
		unsigned what = (unsigned)rng_below(&w->rng, 8);

		if (what < 4) {
			memset(buf, (int)rng_below(&w->rng, 255) + 1, len);
			EXPECT(w->env, co_request(w->at, IO_WRITE, off, buf, len) == 0);
			memcpy(data + off, buf, len);
		} else if (what < 5) {
			EXPECT(w->env, co_request(w->at, IO_DISCARD, off, NULL, len) == 0);
			memset(data + off, 0, len);
		} else {
			EXPECT(w->env, co_request(w->at, IO_READ, off, buf, len) == 0);
			EXPECT(w->env, !memcmp(buf, data + off, len));
		}
		w->n_done++;
		if (rng_chance(&w->rng, 1, 8))
			co_sleep_ns(rng_below(&w->rng, 2 * NS_PER_MS));
	}
	buf_free(buf, 4 * CLUSTER);
	w->ended = true;
}

static void writer_start(struct env *env, struct writer *w, const char *name)
{
	*w = (struct writer){ .env = env, .name = name, .at = co_attach(env, name) };
	rng_init(&w->rng, rng_next(&env->rng));
	co_spawn(CO_SERVICE, writer_co_run, w, "writer");
}

static void writer_co_stop(struct writer *w)
{
	w->stop = true;
	while (!w->ended)
		co_sleep_ns(NS_PER_MS);
	ashlar_co_detach(w->at);
}

static int co_under_load(struct env *env)
{
	static const char *const layouts[] = { "raid5", "raid1-3", "single", "raid5", "raid1" };
	struct ashlar_attach *snap;
	struct writer w[3];
	uint64_t before;
	unsigned i, k;

	co_family(env);
	writer_start(env, &w[0], "v");
	writer_start(env, &w[1], "c");
	writer_start(env, &w[2], "d");
	snap = co_attach(env, "v@s1");
	for (i = 0; i < ARRAY_LEN(layouts); i++) {
		before = w[0].n_done;
		EXPECT(env, co_wait(env, co_move(env, "v", layouts[i])) == ASHLAR_JOB_DONE);
		EXPECT(env, co_layout_is(env, "d", layouts[i]) && w[0].n_done > before);
		co_sleep_ns(20 * NS_PER_MS);
	}
	ashlar_co_detach(snap);
	for (k = 0; k < 3; k++)
		writer_co_stop(&w[k]);
	co_verify(env);
	return 0;
}

static void clients_write_on_while_their_volumes_move(void)
{
	struct env *env = begin(200, DISK);

	run(env, co_under_load);
	run(env, co_verify_all);
	end(env);
}

/* ---- while snapshots come and go ---- */

static void co_disturb(struct env *env, unsigned *n)
{
	char name[40];

	switch (rng_below(&env->rng, 6)) {
	case 0:
		snprintf(name, sizeof(name), "v@x%u", (*n)++);
		co_snap(env, name);
		break;
	case 1:
		snprintf(name, sizeof(name), "k%u", (*n)++);
		co_clone(env, "v@s2", name);
		co_write(env, name, CLUSTER * rng_below(&env->rng, 32), 4096);
		break;
	case 2:
		if (*n > 0) {
			struct point *pt = point_pick(env, true);

			if (pt && strchr(pt->name, 'x')) {
				const char *names = pt->name;

				OK(env, ashlar_co_snapshot_delete(env->p, &names, 1, false, false, NULL, &e));
				point_drop(pt);
			}
		}
		break;
	case 3:
		OK(env, ashlar_co_snapshot_rollback(env->p, "c@t1", false, false, NULL, &e));
		memcpy(point_find(env, "c")->data, point_find(env, "c@t1")->data, BYTES);
		break;
	case 4:
		co_write(env, "c", CLUSTER * rng_below(&env->rng, 60), CLUSTER);
		break;
	default:
		if (point_find(env, "d")) {
			OK(env, ashlar_co_volume_delete(env->p, "d", false, false, false, NULL, &e));
			point_drop(point_find(env, "d"));
		}
	}
}

static int co_disturbed(struct env *env)
{
	static const char *const layouts[] = { "raid5", "raid1" };
	struct writer w;
	struct ashlar_job_info info;
	bool slow = rng_chance(&env->rng, 1, 2);
	unsigned i, k, n = 0;
	uint64_t job;

	co_family(env);
	if (slow)
		co_slow(env);
	for (i = 0; i < 4; i++) {
		job = co_move(env, "v", layouts[i % 2]);
		for (k = 0; k < 6; k++) {
			co_sleep_ns(rng_below(&env->rng, (slow ? 600 : 20) * NS_PER_MS));
			co_disturb(env, &n);
		}
		EXPECT(env, co_wait(env, job) == ASHLAR_JOB_DONE);
		EXPECT(env, co_layout_is(env, "v", layouts[i % 2]) && co_layout_is(env, "c", layouts[i % 2]));
		co_verify(env);
	}
	/* a snapshot of what is being written to is of one instant, and stays so */
	writer_start(env, &w, "v");
	job = co_move(env, "v", "raid5");
	co_sleep_ns(5 * NS_PER_MS);
	do {
		co_sleep_ns(3 * NS_PER_MS);
		OK(env, ashlar_co_job_wait(env->p, job, 0, &info, &e));
	} while (info.state == ASHLAR_JOB_RUNNING);
	writer_co_stop(&w);
	co_settle(env);
	return co_verify(env);
}

static void snapshots_clones_and_rollbacks_meanwhile_are_as_ever(void)
{
	const char *first = getenv("SEED"), *many = getenv("SEEDS");
	uint64_t seed = first ? strtoull(first, NULL, 0) : 300, n = many ? strtoull(many, NULL, 0) : 6, i;

	for (i = 0; i < n && !n_problems; i++) {
		struct env *env = begin(seed + 100 * i, DISK);

		run(env, co_disturbed);
		run(env, co_verify);
		end(env);
	}
}

/* Whatever the mover is at: copying snapshots, or what clients write. */
static int co_rolled_back(struct env *env)
{
	uint64_t job;
	unsigned i;

	co_family(env);
	job = co_move(env, "v", "raid5");
	for (i = 0; i < 40; i++) {
		co_sleep_ns(rng_below(&env->rng, 5 * NS_PER_MS));
		OK(env, ashlar_co_snapshot_rollback(env->p, "c@t1", false, false, NULL, &e));
		memcpy(point_find(env, "c")->data, point_find(env, "c@t1")->data, BYTES);
		co_write(env, "c", CLUSTER * rng_below(&env->rng, 60), CLUSTER);
	}
	EXPECT(env, co_wait(env, job) == ASHLAR_JOB_DONE);
	return co_verify(env);
}

static void a_rollback_is_done_at_any_moment_of_a_move(void)
{
	struct env *env = begin(900, DISK);

	run(env, co_rolled_back);
	end(env);
}

/* ---- interrupted ---- */

static int co_begin_slowly(struct env *env)
{
	bool slow = rng_chance(&env->rng, 1, 2);

	if (slow)
		co_slow(env);
	co_move(env, "v", "raid5");
	co_sleep_ns(rng_below(&env->rng, (slow ? 2500 : 60) * NS_PER_MS));
	return 0;
}

static int co_cut(struct env *env)
{
	co_family(env);
	co_do(env, "v", IO_FLUSH, 0, NULL, 0);
	co_do(env, "c", IO_FLUSH, 0, NULL, 0);
	co_do(env, "d", IO_FLUSH, 0, NULL, 0);
	return co_begin_slowly(env);
}

static unsigned n_not_yet;

static int co_goes_on(struct env *env)
{
	unsigned i;

	n_not_yet += co_layout_is(env, "v", "raid1");
	co_verify(env);
	for (i = 0; i < 1000 && co_layout_is(env, "v", "raid1"); i++)
		co_sleep_ns(10 * NS_PER_MS);
	EXPECT(env, co_layout_is(env, "v", "raid5") && co_layout_is(env, "c", "raid5") && co_layout_is(env, "d", "raid5"));
	co_settle(env);
	EXPECT(env, n_of_state(env, THIN_VOLUME_INCOMING) == 0 && n_of_state(env, THIN_VOLUME_STILL) == 0);
	return co_verify(env);
}

static void a_move_goes_on_after_a_power_cut(void)
{
	unsigned i;

	for (i = 0; i < 20 && !n_problems; i++) {
		struct env *env = begin(1000 + 100 * i, DISK);

		run_and_crash(env, co_cut);
		run(env, co_goes_on);
		end(env);
	}
	CU_ASSERT(n_not_yet > 3 && n_not_yet < 20);
}

static int co_closed(struct env *env)
{
	co_family(env);
	return co_begin_slowly(env);
}

static void closing_the_pool_stops_it_and_opening_goes_on(void)
{
	unsigned i;

	for (i = 0; i < 10 && !n_problems; i++) {
		struct env *env = begin(5000 + 100 * i, DISK);

		run(env, co_closed);
		run(env, co_goes_on);
		end(env);
	}
}

/* ---- stopped ---- */

static int co_stops(struct env *env)
{
	struct ashlar_job_info info;
	uint64_t used, job, k;

	co_family(env);
	co_slow(env);
	used = co_used(env);
	for (k = 0; k < 8; k++) {
		job = co_move(env, "c", "raid5");
		co_sleep_ns(k * 100 * NS_PER_MS);
		OK(env, ashlar_co_job_stop(env->p, job, &e));
		OK(env, ashlar_co_job_wait(env->p, job, 0, &info, &e));
		EXPECT(env, info.state == ASHLAR_JOB_STOPPED);
		EXPECT(env, co_layout_is(env, "v", "raid1"));
		co_settle(env);
		EXPECT(env, n_of_state(env, THIN_VOLUME_INCOMING) == 0 && n_of_state(env, THIN_VOLUME_STILL) == 0 && co_used(env) == used);
		co_verify(env);
	}
	/* paused, it stays so until it is resumed */
	job = co_move(env, "c", "raid5");
	co_sleep_ns(2 * NS_PER_MS);
	OK(env, ashlar_co_job_pause(env->p, job, true, &e));
	co_sleep_ns(20 * NS_PER_SEC);
	OK(env, ashlar_co_job_wait(env->p, job, 0, &info, &e));
	EXPECT(env, info.state == ASHLAR_JOB_PAUSED);
	OK(env, ashlar_co_job_pause(env->p, job, false, &e));
	EXPECT(env, co_wait(env, job) == ASHLAR_JOB_DONE);
	REFUSED(env, -EINVAL, "has ended", ashlar_co_job_pause(env->p, job, true, &e));
	co_verify(env);
	return 0;
}

static void a_move_is_cancelled_or_paused(void)
{
	struct env *env = begin(6000, DISK);

	run(env, co_stops);
	end(env);
}

/* ---- what cannot be read ---- */

#define MARK_AT (37 * CLUSTER + 4096)

/* No copy of what lies at MARK_AT can be read any more. */
static void co_ruin(struct env *env)
{
	uint8_t *buf = malloc(MIB);
	uint64_t off, at;
	unsigned d, n = 0;

	for (d = 0; d < N_DISKS; d++)
		for (off = 0; off < DISK; off += MIB) {
			sim_disk_peek(env->disks, d, off, buf, MIB);
			for (at = 0; at < MIB; at += 512)
				if (!memcmp(buf + at, point_find(env, "v")->data + MARK_AT, 512) && ++n)
					sim_disk_bad_range(env->disks, d, off + at, 512);
		}
	EXPECT(env, n == 2);
	free(buf);
}

static void co_fails_at(struct env *env, const char *text)
{
	uint8_t *buf = buf_alloc(CLUSTER);
	uint64_t used = co_used(env);
	struct ashlar_job_info i;

	memset(&i, 0, sizeof(i));
	OK(env, ashlar_co_job_wait(env->p, co_move(env, "v", "raid5"), 600 * NS_PER_SEC, &i, &e));
	if (i.state != ASHLAR_JOB_FAILED || !strstr(i.result, text))
		fprintf(stderr, "  %s: %s\n", ashlar_job_state_name(i.state), i.result);
	EXPECT(env, i.state == ASHLAR_JOB_FAILED && strstr(i.result, text) && strstr(i.result, "everything is where it was"));
	co_settle(env);
	EXPECT(env, n_of_state(env, THIN_VOLUME_INCOMING) == 0 && n_of_state(env, THIN_VOLUME_STILL) == 0 && co_used(env) == used);
	EXPECT(env, co_layout_is(env, "v", "raid1"));
	co_do(env, "v", IO_READ, 36 * CLUSTER, buf, CLUSTER); /* it is served on */
	EXPECT(env, !memcmp(buf, point_find(env, "v")->data + 36 * CLUSTER, CLUSTER));
	buf_free(buf, CLUSTER);
}

static int co_unreadable(struct env *env)
{
	const char *const s1 = "v@s1";
	uint64_t *mark = buf_alloc(512);
	char text[80];
	unsigned i;

	co_volume(env, "v");
	co_write(env, "v", 0, BYTES);
	for (i = 0; i < 512 / sizeof(*mark); i++)
		mark[i] = rng_next(&env->rng);
	co_do(env, "v", IO_WRITE, MARK_AT, mark, 512);
	memcpy(point_find(env, "v")->data + MARK_AT, mark, 512);
	buf_free(mark, 512);
	co_do(env, "v", IO_FLUSH, 0, NULL, 0);
	co_ruin(env);
	snprintf(text, sizeof(text), "p/v cannot be read at offset %llu (", (unsigned long long)MARK_AT);
	co_fails_at(env, text);
	co_snap(env, s1);
	snprintf(text, sizeof(text), "p/v@s1 cannot be read at offset %llu (", (unsigned long long)MARK_AT);
	co_fails_at(env, text);
	co_write(env, "v", MARK_AT, 512); /* the snapshot has the bad one still */
	co_fails_at(env, text);
	OK(env, ashlar_co_snapshot_delete(env->p, &s1, 1, false, false, NULL, &e));
	point_drop(point_find(env, s1));
	co_settle(env);
	EXPECT(env, co_wait(env, co_move(env, "v", "raid5")) == ASHLAR_JOB_DONE);
	EXPECT(env, co_layout_is(env, "v", "raid5"));
	return co_verify(env);
}

static void what_cannot_be_read_ends_the_move_and_is_named(void)
{
	struct env *env = begin(8000, DISK);

	run(env, co_unreadable);
	run(env, co_verify);
	end(env);
}

/* ---- refused ---- */

static int co_refused(struct env *env)
{
	struct ashlar_move_spec s = { .volume = "v", .layout = "raid9" };
	struct ashlar_move_info i;
	uint64_t job;

	co_family(env);
	REFUSED(env, -EINVAL, "no layout of that name", ashlar_co_volume_move(env->p, &s, &i, &e));
	s.layout = "raid6";
	REFUSED(env, -EINVAL, "needs 4 disks", ashlar_co_volume_move(env->p, &s, &i, &e));
	s.layout = "raid1";
	OK(env, ashlar_co_volume_move(env->p, &s, &i, &e));
	EXPECT(env, !i.n_volumes && !i.job); /* as it is */
	s.layout = "raid5";
	s.dry_run = true;
	OK(env, ashlar_co_volume_move(env->p, &s, &i, &e));
	EXPECT(env, i.n_volumes == 3 && i.n_snapshots == 3 && i.used_bytes >= BYTES && i.used_bytes == co_used(env) && !i.job);
	EXPECT(env, i.free_bytes > i.used_bytes && n_of_state(env, THIN_VOLUME_INCOMING) == 0);
	s.volume = "nobody";
	REFUSED(env, -ENOENT, "there is no volume", ashlar_co_volume_move(env->p, &s, &i, &e));
	job = co_move(env, "v", "raid5");
	s = (struct ashlar_move_spec){ .volume = "d", .layout = "raid0" };
	REFUSED(env, -EBUSY, "is being moved already", ashlar_co_volume_move(env->p, &s, &i, &e));
	EXPECT(env, co_wait(env, job) == ASHLAR_JOB_DONE);
	return 0;
}

static int co_pool_layout(struct env *env)
{
	struct ashlar_move_info i;
	unsigned k;

	co_volume(env, "w");
	co_write(env, "w", 0, BYTES / 2);
	OK(env, ashlar_co_pool_set_layout(env->p, "raid1-3", true, &i, &e));
	EXPECT(env, i.n_volumes == 4 && i.n_snapshots == 3 && co_layout_is(env, "v", "raid5"));
	OK(env, ashlar_co_pool_set_layout(env->p, "raid1-3", false, &i, &e));
	for (k = 0; k < 1000 && !(co_layout_is(env, "v", "raid1-3") && co_layout_is(env, "w", "raid1-3")); k++)
		co_sleep_ns(10 * NS_PER_MS);
	EXPECT(env, co_layout_is(env, "v", "raid1-3") && co_layout_is(env, "w", "raid1-3"));
	co_volume(env, "new");
	EXPECT(env, co_layout_is(env, "new", "raid1-3"));
	return co_verify(env);
}

static void what_cannot_be_is_refused_and_nothing_has_changed(void)
{
	struct env *env = begin(7000, DISK);

	run(env, co_refused);
	run(env, co_pool_layout);
	run(env, co_verify);
	end(env);
}

/* ---- room ---- */

static uint64_t co_room(struct env *env, const char *layout)
{
	struct ashlar_move_spec s = { .volume = "v", .layout = layout, .dry_run = true };
	struct ashlar_move_info i = { 0 };

	OK(env, ashlar_co_volume_move(env->p, &s, &i, &e));
	return i.free_bytes;
}

static int co_groups_of_others(struct env *env)
{
	static const char *const some[] = { "raid5", "raid0", "raid1-3" };
	uint64_t room[ARRAY_LEN(some)];
	char name[8];
	unsigned i;

	co_volume(env, "v");
	co_write(env, "v", 0, BYTES);
	for (i = 0; i < ARRAY_LEN(some); i++)
		room[i] = co_room(env, some[i]);
	for (i = 0; i < 14; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		co_volume(env, name);
		co_write(env, name, 0, BYTES);
	}
	for (i = 0; i < ARRAY_LEN(some); i++)
		EXPECT(env, co_room(env, some[i]) + 8 * MIB < room[i]);
	for (i = 0; i < 14; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		OK(env, ashlar_co_volume_delete(env->p, name, false, false, false, NULL, &e));
		point_drop(point_find(env, name));
	}
	co_settle(env);
	for (i = 0; i < ARRAY_LEN(some); i++)
		EXPECT(env, co_room(env, some[i]) + 4 * MIB >= room[i]); /* metadata may have grown */
	EXPECT(env, co_wait(env, co_move(env, "v", "raid5")) == ASHLAR_JOB_DONE);
	return co_verify(env);
}

static void groups_of_other_layouts_that_hold_nothing_are_room(void)
{
	struct env *env = begin(8000, 16 * MIB);

	run(env, co_groups_of_others);
	end(env);
}

/* A raid5 group has a column on each disk. Whoever wrote there last has clusters of it still, to write to. */
static int co_nothing_left(struct env *env)
{
	struct ashlar_relocation rel = { 0 };
	struct ashlar_attach *at;

	co_volume(env, "v");
	at = co_attach(env, "v");
	co_write(env, "v", 0, BYTES / 2);
	EXPECT(env, co_wait(env, co_move(env, "v", "raid5")) == ASHLAR_JOB_DONE);
	co_write(env, "v", BYTES / 2, BYTES / 2);
	EXPECT(env, co_wait(env, co_move(env, "v", "raid1")) == ASHLAR_JOB_DONE);
	co_settle(env);
	OK(env, ashlar_co_disk_remove(env->p, paths[N_DISKS - 1], false, &rel, &e));
	EXPECT(env, co_wait(env, rel.job) == ASHLAR_JOB_DONE);
	ashlar_co_detach(at);
	return co_verify(env);
}

static void a_disk_leaves_though_its_empty_groups_are_wide(void)
{
	struct env *env = begin(9000, DISK);

	run(env, co_nothing_left);
	end(env);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(a_family_moves_as_a_whole_and_shares_what_it_shared),
		TEST(a_volume_that_holds_nothing_moves_and_its_job_is_told),
		TEST(clients_write_on_while_their_volumes_move),
		TEST(snapshots_clones_and_rollbacks_meanwhile_are_as_ever),
		TEST(a_rollback_is_done_at_any_moment_of_a_move),
		TEST(a_move_goes_on_after_a_power_cut),
		TEST(closing_the_pool_stops_it_and_opening_goes_on),
		TEST(a_move_is_cancelled_or_paused),
		TEST(what_cannot_be_read_ends_the_move_and_is_named),
		TEST(what_cannot_be_is_refused_and_nothing_has_changed),
		TEST(groups_of_other_layouts_that_hold_nothing_are_room),
		TEST(a_disk_leaves_though_its_empty_groups_are_wide),
		CU_TEST_INFO_NULL,
	};

	return tests_run("pool: moving families", tests);
}
