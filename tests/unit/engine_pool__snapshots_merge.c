/*
 * Space that two clusters take where one would do comes back when the snapshot that needed both is gone: of volumes and clones that
 * nobody has open, and through power cuts.
 */
#include "tests/unit/engine_pool__snapshots_rig.h"
#include "tests/unit/unit.h"

#define N_CLUSTERS 32

/* The volume and a clone each have one half of every cluster for themselves, and the other from what the snapshot had. */
static int co_make(struct env *env)
{
	unsigned i;

	co_volume(env, "v");
	co_write(env, "v", 0, N_CLUSTERS * CLUSTER);
	co_snap(env, "v@a");
	co_clone(env, "v@a", "c");
	for (i = 0; i < N_CLUSTERS; i++) {
		co_write(env, "v", i * CLUSTER, CLUSTER / 2);
		co_write(env, "c", i * CLUSTER + CLUSTER / 2, CLUSTER / 2);
	}
	co_do(env, "v", IO_FLUSH, 0, NULL, 0);
	co_do(env, "c", IO_FLUSH, 0, NULL, 0);
	EXPECT(env, co_used(env) == 3 * N_CLUSTERS * CLUSTER);
	return 0;
}

static int co_delete_snap(struct env *env)
{
	const char *const a[] = { "v@a" };

	OK(env, ashlar_co_snapshot_delete(env->p, a, 1, false, false, NULL, &e));
	point_drop(point_find(env, "v@a"));
	co_settle(env);
	EXPECT(env, co_used(env) == 3 * N_CLUSTERS * CLUSTER); /* both need it */
	return 0;
}

static const char *which; /* volume goes */

static int co_delete_one(struct env *env)
{
	OK(env, ashlar_co_volume_delete(env->p, which, false, false, false, NULL, &e));
	point_drop(point_find(env, which));
	return 0;
}

static int co_delete_and_settle(struct env *env)
{
	co_delete_one(env);
	co_settle(env);
	return 0;
}

static int co_look(struct env *env)
{
	struct thin_vol *v;

	co_settle(env);
	EXPECT(env, co_used(env) == N_CLUSTERS * CLUSTER);
	list_for_each (v, thin_vols(env->p->thin), link)
		EXPECT(env, !v->open && !v->open_to_merge); /* closed again */
	return co_verify(env);
}

static int co_all(struct env *env)
{
	co_delete_snap(env);
	co_delete_one(env);
	return co_look(env);
}

static struct env *made(uint64_t seed)
{
	struct env *env = begin(seed, 16 * MIB);

	run(env, co_make);
	return env;
}

static void nobody_has_it_open(void)
{
	static const char *const names[] = { "v", "c" };
	unsigned i;

	for (i = 0; i < 2; i++) {
		struct env *env = made(31 + i);

		which = names[i];
		run(env, co_all);
		run(env, co_look);
		end(env);
	}
}

/* It is closed, and opened again by the next test run, before it has come far. */
static void it_goes_on_after_the_pool_was_closed(void)
{
	struct env *env = made(41);

	which = "c";
	run(env, co_delete_snap);
	run(env, co_delete_one);
	run(env, co_look);
	end(env);
}

static bool cut_at(const struct env *base, uint64_t n_events)
{
	struct env *env = calloc(1, sizeof(*env));
	bool stopped;
	unsigned i;

	env->seed = base->seed;
	rng_init(&env->rng, base->seed + n_events);
	env->disks = sim_disks_clone(base->disks);
	for (i = 0; i < POINTS_MAX; i++)
		if (base->points[i].used)
			point_add(env, base->points[i].name, base->points[i].data);
	sim_disks_stop_at(env->disks, sim_disks_n_events(env->disks) + n_events);
	env->body = co_delete_and_settle;
	env->crashes = true;
	stopped = world_run(env, co_run, true, (enum sim_cut)(n_events % 4)) == -ECANCELED;
	if (!point_find(env, which)) /* acknowledged */
		run(env, co_look);
	end(env);
	return stopped;
}

static void a_power_cut_loses_neither_data_nor_space(void)
{
	struct env *base = made(51);
	uint64_t n;

	which = "v";
	run(base, co_delete_snap);
	for (n = 1; !n_problems && cut_at(base, n); n++)
		;
	CU_ASSERT(n > 100);
	end(base);
}

static struct ashlar_attach *user;

static int co_in_use(struct env *env)
{
	struct thin_vol *v;

	user = co_attach(env, "v");
	co_delete_snap(env);
	co_delete_one(env);
	co_settle(env);
	EXPECT(env, co_used(env) == N_CLUSTERS * CLUSTER);
	v = thin_vol_find(env->p->thin, "v");
	EXPECT(env, v->open && !v->open_to_merge);
	ashlar_co_detach(user);
	return co_verify(env);
}

static void somebody_has_it_open(void)
{
	struct env *env = made(61);

	which = "c";
	run(env, co_in_use);
	end(env);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(nobody_has_it_open),
		TEST(somebody_has_it_open),
		TEST(it_goes_on_after_the_pool_was_closed),
		TEST(a_power_cut_loses_neither_data_nor_space),
		CU_TEST_INFO_NULL,
	};

	return tests_run("merge of own and base", tests) || n_problems;
}
