/*
 * Limits of volumes as commands and clients meet them: at once, kept, refused; over snapshots, clones, moves and power cuts.
 */
#include "tests/unit/engine_pool__snapshots_rig.h"

#include "engine/pool/label.h"
#include "tests/unit/unit.h"

static struct ashlar_limits co_limits(struct env *env, const char *name)
{
	struct ashlar_volume_info i = { 0 };

	OK(env, ashlar_co_volume_info(env->p, name, &i, &e));
	return i.limits;
}

static bool is_limits(const struct ashlar_limits *a, struct ashlar_limits b)
{
	return a->iops == b.iops && a->bps == b.bps && a->burst_iops == b.burst_iops && a->burst_bps == b.burst_bps &&
	       a->burst_seconds == b.burst_seconds;
}

#define EXPECT_LIMITS(env, name, ...)                                                      \
	do {                                                                               \
		struct ashlar_limits has_ = co_limits(env, name);                          \
		EXPECT(env, is_limits(&has_, (struct ashlar_limits){ __VA_ARGS__ }));      \
	} while (0)

static void co_set(struct env *env, const char *name, struct ashlar_limits l)
{
	OK(env, ashlar_co_volume_set_limits(env->p, name, &l, &e));
}

/* How long n reads of so many bytes take, one after the other. */
static uint64_t co_reads_ns(struct env *env, const char *name, unsigned n, uint64_t len)
{
	struct ashlar_attach *at = co_attach(env, name);
	void *buf = buf_alloc(len);
	uint64_t from = reactor_now_ns();

	while (n--)
		EXPECT(env, co_request(at, IO_READ, 0, buf, len) == 0);
	buf_free(buf, len);
	ashlar_co_detach(at);
	return reactor_now_ns() - from;
}

static void co_create(struct env *env, const char *name, struct ashlar_limits l)
{
	struct ashlar_volume_spec s = { .name = name, .size_bytes = BYTES, .limits = l };

	OK(env, ashlar_co_volume_create(env->p, &s, &e));
}

/* ---- kept ---- */

static int co_make(struct env *env)
{
	const char *const snaps[] = { "a@s" };

	co_create(env, "plain", (struct ashlar_limits){ 0 });
	EXPECT(env, !(env->p->label->incompat & LABEL_INCOMPAT_LIMITS));
	co_create(env, "a", (struct ashlar_limits){ .iops = 10, .bps = MIB, .burst_iops = 100, .burst_bps = 5 * MIB + 1, .burst_seconds = 7 });
	EXPECT(env, env->p->label->incompat & LABEL_INCOMPAT_LIMITS);
	co_create(env, "b", (struct ashlar_limits){ .iops = 10 });
	co_set(env, "b", (struct ashlar_limits){ 0, 64 * KIB, -1, 128 * KIB, -1 });
	OK(env, ashlar_co_snapshot_create(env->p, snaps, 1, &e));
	OK(env, ashlar_co_clone(env->p, "a@s", "c", &e));
	return 0;
}

static int co_look(struct env *env)
{
	EXPECT_LIMITS(env, "plain", 0);
	EXPECT_LIMITS(env, "a", 10, MIB, 100, 5 * MIB + KIB, 7);
	EXPECT_LIMITS(env, "b", 0, 64 * KIB, 0, 128 * KIB, 60);
	EXPECT_LIMITS(env, "c", 0);
	EXPECT(env, env->p->label->incompat & LABEL_INCOMPAT_LIMITS);
	EXPECT(env, co_reads_ns(env, "c", 500, 512) < NS_PER_SEC && co_reads_ns(env, "a@s", 500, 512) < NS_PER_SEC);
	EXPECT(env, co_reads_ns(env, "a", 720, 512) > 8 * NS_PER_SEC); /* 7 s at 100, then 10 */
	OK(env, ashlar_co_snapshot_rollback(env->p, "a@s", true, false, NULL, &e));
	EXPECT_LIMITS(env, "a", 10, MIB, 100, 5 * MIB + KIB, 7);
	return 0;
}

static void limits_outlive_restarts_and_power_cuts(void)
{
	struct env *env = begin(21, 32 * MIB);

	run_and_crash(env, co_make);
	run(env, co_look);
	run(env, co_look);
	end(env);
}

/* ---- at once ---- */

struct many {
	struct io io[20];
	struct ashlar_attach *at;
	uint8_t buf[512];
	unsigned n_done;
};

static void many_done(struct io *io)
{
	struct many *m = io->owner;

	CHECK(io->result == 0);
	m->n_done++;
}

static int many_there(void *arg)
{
	struct many *m = arg;
	unsigned i;

	for (i = 0; i < ARRAY_LEN(m->io); i++) {
		io_prep(&m->io[i], IO_READ, 0, 512, m->buf, 0);
		m->io[i].done = many_done;
		m->io[i].owner = m;
		bdev_submit(ashlar_attach_bdev(m->at), &m->io[i]);
	}
	return 0;
}

static struct many *co_many(struct env *env, const char *name)
{
	struct many *m = xcalloc(1, sizeof(*m));

	m->at = co_attach(env, name);
	EXPECT(env, reactor_co_call(ashlar_attach_home(m->at), many_there, m) == 0);
	return m;
}

static void co_many_end(struct many *m)
{
	ashlar_co_detach(m->at);
	xfree(m);
}

static int co_at_once(struct env *env)
{
	struct ashlar_volume_info info;
	struct many *m, *m2;

	co_create(env, "v", (struct ashlar_limits){ 0 });
	m = co_many(env, "v");
	co_sleep_ns(100 * NS_PER_MS);
	EXPECT(env, m->n_done == 20);
	m->n_done = 0;
	co_set(env, "v", (struct ashlar_limits){ 2, -1, -1, -1, -1 });
	EXPECT(env, reactor_co_call(ashlar_attach_home(m->at), many_there, m) == 0);
	m2 = co_many(env, "v"); /* both together */
	co_sleep_ns(10 * NS_PER_SEC);
	EXPECT(env, m->n_done == 20 && m2->n_done <= 2);
	OK(env, ashlar_co_volume_info(env->p, "v", &info, &e));
	EXPECT(env, info.limited >= 38 && info.limit_waiting >= 18 && info.limited_ns > 90 * NS_PER_SEC);
	co_set(env, "v", (struct ashlar_limits){ 0, -1, -1, -1, -1 });
	co_sleep_ns(10 * NS_PER_MS);
	EXPECT(env, m2->n_done == 20);
	OK(env, ashlar_co_volume_info(env->p, "v", &info, &e));
	EXPECT(env, !info.limit_waiting && info.reads == 60);
	EXPECT(env, co_reads_ns(env, "v", 100, 512) < NS_PER_SEC);
	co_many_end(m);
	co_many_end(m2);
	return 0;
}

static void limits_hold_for_all_clients_at_once(void)
{
	struct env *env = begin(22, 32 * MIB);

	run(env, co_at_once);
	end(env);
}

/* ---- who goes away ---- */

struct goer {
	struct env *env;
	struct many *m;
	bool gone;
};

static void goer_co_main(void *arg)
{
	struct goer *g = arg;

	while (g->m->n_done < 20)
		co_sleep_ns(NS_PER_US);
	co_many_end(g->m);
}

static void on_gone(void *arg)
{
	struct goer *g = arg;

	if (!g->gone)
		reactor_spawn(g->env->w->reactors[0], goer_co_main, g, "goer");
	g->gone = true;
}

static const struct ashlar_attach_ops goer_ops = { .gone = on_gone };

static struct many *co_goer(struct env *env, struct goer *g, const char *export)
{
	struct many *m = xcalloc(1, sizeof(*m));

	*g = (struct goer){ .env = env, .m = m };
	OK(env, ashlar_co_attach(env->a, export, &goer_ops, g, &m->at, &e));
	EXPECT(env, reactor_co_call(ashlar_attach_home(m->at), many_there, m) == 0);
	return m;
}

/* Deleting, and closing the pool after this, while a day's worth of requests waits. */
static int co_leave(struct env *env)
{
	static struct goer g[2];
	uint64_t from = reactor_now_ns();
	struct many *m;

	co_create(env, "v", (struct ashlar_limits){ .iops = 1 });
	co_create(env, "w", (struct ashlar_limits){ .bps = 64 * KIB });
	co_set(env, "w", (struct ashlar_limits){ 1, -1, -1, -1, -1 });
	m = co_goer(env, &g[0], "p/v");
	co_goer(env, &g[1], "p/w");
	co_sleep_ns(100 * NS_PER_MS);
	EXPECT(env, m->n_done == 1);
	OK(env, ashlar_co_volume_delete(env->p, "v", true, false, false, NULL, &e));
	EXPECT(env, g[0].gone && reactor_now_ns() - from < 2 * NS_PER_SEC);
	return 0;
}

static void held_requests_keep_nobody_from_leaving(void)
{
	struct env *env = begin(23, 32 * MIB);

	run(env, co_leave);
	end(env);
}

/* ---- refused ---- */

static void refused(struct env *env, int code, const char *text, struct ashlar_limits l)
{
	struct ashlar_limits was = co_limits(env, "v"), now;
	struct ashlar_volume_spec s = { .name = "n", .size_bytes = BYTES, .limits = l };

	REFUSED(env, code, text, ashlar_co_volume_set_limits(env->p, "v", &l, &e));
	now = co_limits(env, "v");
	EXPECT(env, is_limits(&now, was));
	REFUSED(env, code, text, ashlar_co_volume_create(env->p, &s, &e));
}

static int co_refusals(struct env *env)
{
	struct ashlar_limits l = { .iops = 1 };

	co_create(env, "v", (struct ashlar_limits){ 0 });
	refused(env, -ERANGE, "no limit", (struct ashlar_limits){ .iops = 1LL << 32 });
	refused(env, -ERANGE, "64K", (struct ashlar_limits){ .bps = 65535 });
	refused(env, -ERANGE, "1P", (struct ashlar_limits){ .bps = INT64_MAX });
	refused(env, -EINVAL, "needs a limit", (struct ashlar_limits){ .burst_iops = 10 });
	refused(env, -EINVAL, "needs a limit", (struct ashlar_limits){ .burst_bps = MIB, .iops = 7 });
	refused(env, -EINVAL, "not more than the limit", (struct ashlar_limits){ .iops = 10, .burst_iops = 10 });
	refused(env, -EINVAL, "not more than the limit", (struct ashlar_limits){ .bps = MIB, .burst_bps = MIB });
	refused(env, -ERANGE, "2T", (struct ashlar_limits){ .bps = MIB, .burst_bps = 3LL << 40 });
	refused(env, -EINVAL, "could last", (struct ashlar_limits){ .bps = MIB, .burst_seconds = 3 });
	refused(env, -ERANGE, "65535", (struct ashlar_limits){ .iops = 1, .burst_iops = 2, .burst_seconds = 65536 });
	REFUSED(env, -ENOENT, "there is no volume", ashlar_co_volume_set_limits(env->p, "x", &l, &e));
	/* A burst goes with its limit, and the seconds with the last burst. */
	co_set(env, "v", (struct ashlar_limits){ UINT32_MAX - 1, PIB, UINT32_MAX, 0, 65535 });
	EXPECT_LIMITS(env, "v", UINT32_MAX - 1, PIB, UINT32_MAX, 0, 65535);
	co_set(env, "v", (struct ashlar_limits){ -1, MIB, -1, 2LL << 40, -1 });
	EXPECT_LIMITS(env, "v", UINT32_MAX - 1, MIB, UINT32_MAX, 2LL << 40, 65535);
	co_reads_ns(env, "v", 10, 512);
	co_set(env, "v", (struct ashlar_limits){ 0, -1, -1, -1, -1 });
	EXPECT_LIMITS(env, "v", 0, MIB, 0, 2LL << 40, 65535);
	co_set(env, "v", (struct ashlar_limits){ -1, 0, -1, -1, -1 });
	EXPECT_LIMITS(env, "v", 0);
	return 0;
}

static void what_makes_no_sense_is_refused(void)
{
	struct env *env = begin(24, 32 * MIB);

	run(env, co_refusals);
	end(env);
}

/* ---- in other layers ---- */

static int co_moved(struct env *env)
{
	struct ashlar_move_spec s = { .volume = "v", .layout = "raid0" };
	struct ashlar_move_info move;
	struct ashlar_job_info job;
	struct many *m;

	co_volume(env, "v");
	co_write(env, "v", 0, BYTES);
	co_set(env, "v", (struct ashlar_limits){ .iops = 5 });
	OK(env, ashlar_co_volume_move(env->p, &s, &move, &e));
	m = co_many(env, "v");
	OK(env, ashlar_co_job_wait(env->p, move.job, 600 * NS_PER_SEC, &job, &e));
	EXPECT(env, job.state == ASHLAR_JOB_DONE);
	EXPECT_LIMITS(env, "v", .iops = 5);
	EXPECT(env, co_reads_ns(env, "v", 51, 512) > 9 * NS_PER_SEC);
	EXPECT(env, m->n_done == 20);
	co_many_end(m);
	return 0;
}

static void a_volume_that_moves_keeps_its_limits(void)
{
	struct env *env = begin(25, 32 * MIB);

	run(env, co_moved);
	end(env);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(limits_outlive_restarts_and_power_cuts),
		TEST(limits_hold_for_all_clients_at_once),
		TEST(held_requests_keep_nobody_from_leaving),
		TEST(what_makes_no_sense_is_refused),
		TEST(a_volume_that_moves_keeps_its_limits),
		CU_TEST_INFO_NULL,
	};

	return tests_run("pool: limits", tests);
}
