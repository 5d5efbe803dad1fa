/*
 * Snapshots and clones by the pool's public functions: contents against plain arrays, space to the cluster, many of them, power cuts.
 * SEED and SEEDS in the environment: the first, and how many.
 */
#include "tests/unit/engine_pool__snapshots_rig.h"
#include "tests/unit/unit.h"

/* ---- any history ---- */

static void co_random_write(struct env *env)
{
	struct point *pt = point_pick(env, false);
	uint64_t len = 512 * (1 + rng_below(&env->rng, rng_chance(&env->rng, 1, 3) ? 128 : 8));
	uint64_t off = ALIGN_DOWN(rng_below(&env->rng, BYTES - len), 512ULL);

	if (pt && rng_chance(&env->rng, 1, 8)) {
		co_do(env, pt->name, IO_DISCARD, off, NULL, len);
		memset(pt->data + off, 0, len);
	} else if (pt) {
		co_write(env, pt->name, off, len);
	}
}

/* Of every volume that likes to, at once. */
static void co_random_snap(struct env *env)
{
	char names[4][40];
	const char *all[4];
	struct point *pt;
	unsigned i, k = 0;

	for (i = 0; i < POINTS_MAX && k < 4; i++) {
		pt = &env->points[i];
		if (!pt->used || is_snap(pt) || rng_chance(&env->rng, 1, 3))
			continue;
		snprintf(names[k], sizeof(names[k]), "%.10s@s%u", pt->name, env->n_names++);
		all[k] = names[k];
		k++;
	}
	if (!k || points_count(env) + k > POINTS_MAX - 4)
		return;
	OK(env, ashlar_co_snapshot_create(env->p, all, k, &e));
	while (k--) {
		char volume[40];

		snprintf(volume, sizeof(volume), "%.*s", (int)strcspn(all[k], "@"), all[k]);
		point_add(env, all[k], point_find(env, volume)->data);
	}
}

/* Some of all snapshots; what a dry run says is what comes of it at least (then there may be more to merge). */
static void co_random_delete(struct env *env)
{
	const char *all[POINTS_MAX];
	uint64_t dry = 0, freed = 0, before, after;
	unsigned i, n = 0, share = 1 + (unsigned)rng_below(&env->rng, 6);

	for (i = 0; i < POINTS_MAX; i++)
		if (env->points[i].used && is_snap(&env->points[i]) && rng_chance(&env->rng, 1, share))
			all[n++] = env->points[i].name;
	if (!n)
		return;
	co_settle(env);
	before = co_used(env);
	OK(env, ashlar_co_snapshot_delete(env->p, all, n, false, true, &dry, &e));
	EXPECT(env, co_used(env) == before);
	OK(env, ashlar_co_snapshot_delete(env->p, all, n, false, false, &freed, &e));
	co_settle(env);
	after = co_used(env);
	EXPECT(env, dry == freed && after <= before - dry);
	while (n--)
		point_drop(point_find(env, all[n]));
}

static void co_random_volume_delete(struct env *env)
{
	struct point *pt = point_pick(env, false);
	char name[42];
	unsigned i;

	if (!pt)
		return;
	snprintf(name, sizeof(name), "%s@", pt->name);
	name[strlen(name) - 1] = '\0';
	OK(env, ashlar_co_volume_delete(env->p, name, false, true, false, NULL, &e));
	for (i = 0; i < POINTS_MAX; i++)
		if (env->points[i].used && !strncmp(env->points[i].name, name, strlen(name)) &&
		    (env->points[i].name[strlen(name)] == '@' || !env->points[i].name[strlen(name)]))
			point_drop(&env->points[i]);
}

static void co_random_step(struct env *env)
{
	struct point *snap = point_pick(env, true);
	char name[40];
	unsigned dice = (unsigned)rng_below(&env->rng, 100);

	if (dice < 60) {
		co_random_write(env);
	} else if (dice < 75) {
		co_random_snap(env);
	} else if (dice < 82) {
		co_random_delete(env);
	} else if (dice < 90 && snap) {
		struct point *v;

		snprintf(name, sizeof(name), "%.*s", (int)strcspn(snap->name, "@"), snap->name);
		v = point_find(env, name);
		OK(env, ashlar_co_snapshot_rollback(env->p, snap->name, false, false, NULL, &e));
		memcpy(v->data, snap->data, BYTES);
	} else if (dice < 96 && snap && points_count(env) < POINTS_MAX - 4) {
		snprintf(name, sizeof(name), "c%u", env->n_names++);
		co_clone(env, snap->name, name);
	} else if (dice == 96) {
		co_random_volume_delete(env);
	} else if (points_count(env) < POINTS_MAX - 4) {
		snprintf(name, sizeof(name), "v%u", env->n_names++);
		co_volume(env, name);
	}
}

static int co_history(struct env *env)
{
	unsigned i;

	co_verify(env);
	for (i = 0; i < 60 && !n_problems; i++)
		co_random_step(env);
	for (i = 0; i < POINTS_MAX; i++)
		if (env->points[i].used && !is_snap(&env->points[i]))
			co_do(env, env->points[i].name, IO_FLUSH, 0, NULL, 0);
	return 0;
}

static void any_history_leaves_what_the_arrays_say(void)
{
	uint64_t seed = getenv("SEED") ? strtoull(getenv("SEED"), NULL, 0) : 1, n = getenv("SEEDS") ? strtoull(getenv("SEEDS"), NULL, 0) : 6;
	unsigned round;

	for (; n-- && !n_problems; seed++) {
		struct env *env = begin(seed * 1000, 96 * MIB);

		for (round = 0; round < 4 && !n_problems; round++) {
			if (rng_chance(&env->rng, 1, 2))
				run_and_crash(env, co_history);
			else
				run(env, co_history);
		}
		run(env, co_verify);
		end(env);
	}
}

/* ---- space ---- */

static void co_expect_space(struct env *env, int line, const char *name, unsigned used, unsigned refer_kib, unsigned exclusive)
{
	struct ashlar_volume_info v = { 0 };
	struct ashlar_snapshot_info s = { 0 };

	if (strchr(name, '@')) {
		OK(env, ashlar_co_snapshot_info(env->p, name, &s, &e));
		v.used_bytes = s.used_bytes;
		v.refer_bytes = s.refer_bytes;
		v.exclusive_bytes = s.exclusive_bytes;
	} else {
		OK(env, ashlar_co_volume_info(env->p, name, &v, &e));
	}
	if (v.used_bytes != used * CLUSTER || v.refer_bytes != refer_kib * KIB || v.exclusive_bytes != exclusive * CLUSTER)
		fprintf(stderr, "line %d: %s: used %llu clusters, refer %llu KiB, exclusive %llu clusters\n", line, name,
			(unsigned long long)(v.used_bytes / CLUSTER), (unsigned long long)(v.refer_bytes / KIB),
			(unsigned long long)(v.exclusive_bytes / CLUSTER));
	EXPECT(env, v.used_bytes == used * CLUSTER && v.refer_bytes == refer_kib * KIB && v.exclusive_bytes == exclusive * CLUSTER);
}
#define SPACE(env, name, used, refer_kib, exclusive) co_expect_space(env, __LINE__, name, used, refer_kib, exclusive)

/* Deleting these frees so many clusters: by the dry run, by the command, and by the pool. */
static void co_delete_frees(struct env *env, const char *const *names, size_t n, unsigned clusters)
{
	uint64_t dry = 1, freed = 1, before = co_used(env);
	size_t i;

	OK(env, ashlar_co_snapshot_delete(env->p, names, n, false, true, &dry, &e));
	OK(env, ashlar_co_snapshot_delete(env->p, names, n, false, false, &freed, &e));
	co_settle(env);
	if (dry != clusters * CLUSTER)
		fprintf(stderr, "%s: dry run says %llu clusters, not %u\n", names[0], (unsigned long long)(dry / CLUSTER), clusters);
	EXPECT(env, dry == clusters * CLUSTER && freed == dry && before - co_used(env) == dry);
	for (i = 0; i < n; i++)
		point_drop(point_find(env, names[i]));
}

static int co_space(struct env *env)
{
	const char *const ab[] = { "v@a", "v@b" }, *const d[] = { "v@d" };
	struct ashlar_deleted gone;
	uint64_t dry = 0, before;

	co_volume(env, "v");
	co_write(env, "v", 0, BYTES);
	SPACE(env, "v", 64, 1024, 64);
	co_snap(env, "v@a");
	SPACE(env, "v", 64, 1024, 0);
	SPACE(env, "v@a", 64, 1024, 0);
	co_write(env, "v", 0, 8 * CLUSTER);
	SPACE(env, "v", 64, 1024, 8);
	SPACE(env, "v@a", 64, 1024, 8);
	EXPECT(env, co_used(env) == 72 * CLUSTER);
	co_snap(env, "v@b");
	co_write(env, "v", 0, 4 * CLUSTER);
	SPACE(env, "v", 64, 1024, 4);
	SPACE(env, "v@a", 64, 1024, 8);
	SPACE(env, "v@b", 64, 1024, 4);
	co_clone(env, "v@b", "c");
	SPACE(env, "v@b", 64, 1024, 0);
	SPACE(env, "c", 64, 1024, 0);
	co_delete_frees(env, ab, 2, 8); /* what b had for itself the clone has too */
	SPACE(env, "c", 64, 1024, 4 + 4 - 4);
	co_snap(env, "v@d");
	co_delete_frees(env, d, 1, 0);
	REFUSED(env, -ENOENT, "v@d", ashlar_co_snapshot_rollback(env->p, "v@d", false, true, &dry, &e));
	co_snap(env, "v@d");
	co_write(env, "v", 20 * CLUSTER, 2 * CLUSTER);
	before = co_used(env);
	OK(env, ashlar_co_snapshot_rollback(env->p, "v@d", false, true, &dry, &e));
	EXPECT(env, dry == 2 * CLUSTER && co_used(env) == before);
	OK(env, ashlar_co_snapshot_rollback(env->p, "v@d", false, false, &dry, &e));
	memcpy(point_find(env, "v")->data, point_find(env, "v@d")->data, BYTES);
	co_settle(env);
	EXPECT(env, dry == 2 * CLUSTER && before - co_used(env) == dry);
	before = co_used(env);
	REFUSED(env, -EBUSY, "--snapshots", ashlar_co_volume_delete(env->p, "v", false, false, true, &gone, &e));
	REFUSED(env, -EBUSY, "1 snapshot:", ashlar_co_volume_delete(env->p, "v", false, false, false, &gone, &e));
	EXPECT(env, !gone.snapshots && !gone.n_snapshots);
	OK(env, ashlar_co_volume_delete(env->p, "v", false, true, true, &gone, &e));
	EXPECT(env, co_used(env) == before && gone.freed_bytes == 4 * CLUSTER);
	EXPECT(env, gone.n_snapshots == 1 && !strcmp(gone.snapshots[0], "v@d") && !gone.receive_dropped);
	xfree(gone.snapshots);
	OK(env, ashlar_co_volume_delete(env->p, "v", false, true, false, &gone, &e));
	xfree(gone.snapshots);
	co_settle(env);
	EXPECT(env, gone.n_snapshots == 1 && gone.freed_bytes == 4 * CLUSTER);
	EXPECT(env, before - co_used(env) == gone.freed_bytes && co_used(env) == 64 * CLUSTER);
	point_drop(point_find(env, "v"));
	point_drop(point_find(env, "v@d"));
	SPACE(env, "c", 64, 1024, 64);
	return co_verify(env);
}

static int co_space_of_parts(struct env *env)
{
	co_volume(env, "w");
	co_write(env, "w", 0, 16 * CLUSTER);
	co_snap(env, "w@a");
	co_write(env, "w", 4096, 1024);
	SPACE(env, "w", 17, 256, 1); /* the new subcluster; all else from where it was */
	SPACE(env, "w@a", 16, 256, 0);
	co_do(env, "w", IO_DISCARD, 15 * CLUSTER, NULL, CLUSTER);
	memset(point_find(env, "w")->data + 15 * CLUSTER, 0, CLUSTER);
	SPACE(env, "w", 16, 240, 1);
	SPACE(env, "w@a", 16, 256, 1);
	return co_verify(env);
}

static void space_is_exact(void)
{
	struct env *env = begin(7, 32 * MIB);

	run(env, co_space);
	run(env, co_verify);
	run(env, co_space_of_parts);
	run(env, co_verify);
	end(env);
}

/* ---- many ---- */

#define MANY 300

static int co_many_make(struct env *env)
{
	char name[40];
	unsigned i;

	co_volume(env, "v");
	co_write(env, "v", 0, BYTES);
	for (i = 0; i < MANY && !n_problems; i++) {
		const char *one = name;

		snprintf(name, sizeof(name), "v@s%u", i);
		OK(env, ashlar_co_snapshot_create(env->p, &one, 1, &e));
		co_write(env, "v", i % 64 * CLUSTER, CLUSTER);
	}
	EXPECT(env, co_used(env) == (64 + MANY) * CLUSTER);
	co_do(env, "v", IO_FLUSH, 0, NULL, 0);
	return 0;
}

static int co_many_delete(struct env *env)
{
	struct ashlar_snapshot_info *s = NULL;
	struct ashlar_volume_info v;
	const char *names[MANY];
	unsigned i, k;
	uint64_t dry = 0;
	size_t n = 0;

	OK(env, ashlar_co_snapshot_list(env->p, "v", &s, &n, &e));
	EXPECT(env, n == MANY);
	if (n != MANY)
		return -EIO;
	for (i = 0; i < n; i++) {
		char name[40];

		snprintf(name, sizeof(name), "v@s%u", i);
		EXPECT(env, !strcmp(s[i].name, name)); /* in order of creation */
		names[i] = s[i].name;
	}
	OK(env, ashlar_co_volume_info(env->p, "v", &v, &e));
	EXPECT(env, v.n_snapshots == MANY && v.exclusive_bytes == CLUSTER);
	for (i = (unsigned)n; i-- > 1;) {
		const char *t = names[i];

		k = (unsigned)rng_below(&env->rng, i + 1);
		names[i] = names[k];
		names[k] = t;
	}
	for (i = 0; i < 100 && !n_problems; i++) {
		uint64_t before = co_used(env);

		OK(env, ashlar_co_snapshot_delete(env->p, &names[i], 1, false, false, &dry, &e));
		co_settle(env);
		EXPECT(env, before - co_used(env) == dry);
	}
	OK(env, ashlar_co_snapshot_delete(env->p, &names[100], MANY - 100, false, false, &dry, &e));
	co_settle(env);
	EXPECT(env, co_used(env) == 64 * CLUSTER);
	xfree(s);
	return co_verify(env);
}

static void three_hundred_come_and_go_in_any_order(void)
{
	struct env *env = begin(11, 64 * MIB);

	run_and_crash(env, co_many_make);
	run(env, co_many_delete);
	run(env, co_verify);
	end(env);
}

/* ---- power cuts ---- */

static int co_prepare(struct env *env)
{
	co_volume(env, "v");
	co_volume(env, "w");
	co_write(env, "v", 0, BYTES / 2);
	co_write(env, "w", 0, BYTES / 4);
	co_snap(env, "v@old");
	co_write(env, "v", 95 * 512, 64 * KIB);
	co_do(env, "v", IO_FLUSH, 0, NULL, 0);
	co_do(env, "w", IO_FLUSH, 0, NULL, 0);
	return co_verify(env);
}

static unsigned command; /* which of these */
enum { CUT_CREATE, CUT_DELETE, CUT_ROLLBACK, CUT_CLONE, CUT_DELETE_VOLUME, CUT_COMMANDS };
static bool cut_acknowledged;
static unsigned n_done, n_not; /* what came of it */

static int co_cut_command(struct env *env)
{
	const char *const both[] = { "v@new", "w@new" }, *const old[] = { "v@old" };
	struct err e = { 0 };
	int r = 0;

	switch (command) {
	case CUT_CREATE: r = ashlar_co_snapshot_create(env->p, both, 2, &e); break;
	case CUT_DELETE: r = ashlar_co_snapshot_delete(env->p, old, 1, false, false, NULL, &e); break;
	case CUT_ROLLBACK: r = ashlar_co_snapshot_rollback(env->p, "v@old", false, false, NULL, &e); break;
	case CUT_CLONE: r = ashlar_co_clone(env->p, "v@old", "c", &e); break;
	case CUT_DELETE_VOLUME: r = ashlar_co_volume_delete(env->p, "v", false, true, false, NULL, &e); break;
	}
	cut_acknowledged = r == 0;
	co_sleep_ns(5 * NS_PER_MS); /* what goes on in the background is cut too */
	return r;
}

/* Whole or absent; whole if it was acknowledged. The arrays follow. */
static int co_cut_look(struct env *env)
{
	struct point *v = point_find(env, "v"), *old = point_find(env, "v@old");
	uint8_t *buf = buf_alloc(BYTES);
	bool done = false;

	switch (command) {
	case CUT_CREATE:
		done = co_is_there(env, "v@new");
		EXPECT(env, done == co_is_there(env, "w@new"));
		if (done) {
			point_add(env, "v@new", v->data);
			point_add(env, "w@new", point_find(env, "w")->data);
		}
		break;
	case CUT_DELETE:
		done = !co_is_there(env, "v@old");
		if (done)
			point_drop(old);
		break;
	case CUT_ROLLBACK:
		co_do(env, "v", IO_READ, 0, buf, BYTES);
		done = !memcmp(buf, old->data, BYTES);
		if (done)
			memcpy(v->data, old->data, BYTES);
		break;
	case CUT_CLONE:
		done = co_is_there(env, "c");
		if (done)
			point_add(env, "c", old->data);
		break;
	case CUT_DELETE_VOLUME:
		done = !co_is_there(env, "v");
		EXPECT(env, !done || !co_is_there(env, "v@old"));
		if (!co_is_there(env, "v@old"))
			point_drop(old);
		if (done)
			point_drop(v);
		break;
	}
	EXPECT(env, done || !cut_acknowledged);
	n_done += done && !cut_acknowledged;
	n_not += !done;
	buf_free(buf, BYTES);
	co_settle(env);
	return co_verify(env);
}

static void points_copy(struct env *to, const struct env *from)
{
	unsigned i;

	for (i = 0; i < POINTS_MAX; i++)
		if (from->points[i].used)
			point_add(to, from->points[i].name, from->points[i].data);
}

/* The command is cut after so many events of the disks from the start of its world; false: it had ended before. */
static bool cut_at(const struct env *base, uint64_t n_events)
{
	struct env *env = calloc(1, sizeof(*env));
	bool stopped;

	env->seed = base->seed;
	rng_init(&env->rng, base->seed + n_events);
	env->disks = sim_disks_clone(base->disks);
	points_copy(env, base);
	sim_disks_stop_at(env->disks, sim_disks_n_events(env->disks) + n_events);
	env->body = co_cut_command;
	cut_acknowledged = false;
	env->crashes = true;
	stopped = world_run(env, co_run, true, SIM_CUT_RANDOM) == -ECANCELED;
	run(env, co_cut_look);
	run(env, co_verify);
	end(env);
	return stopped;
}

static void a_power_cut_leaves_all_or_nothing(void)
{
	struct env *base = begin(23, 16 * MIB);
	uint64_t n;

	run(base, co_prepare);
	for (command = 0; command < CUT_COMMANDS; command++) {
		n_done = n_not = 0;
		for (n = 1; !n_problems && cut_at(base, n); n++)
			;
		CU_ASSERT(n > 30 && n_done > 0 && n_not > 10);
	}
	end(base);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(space_is_exact),
		TEST(three_hundred_come_and_go_in_any_order),
		TEST(a_power_cut_leaves_all_or_nothing),
		TEST(any_history_leaves_what_the_arrays_say),
		CU_TEST_INFO_NULL,
	};

	return tests_run("snapshots", tests) || n_problems;
}
