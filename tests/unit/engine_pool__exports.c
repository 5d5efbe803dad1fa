/*
 * Exports that not everybody may see, and limits of clients: kept in the pool, also over a power cut, and for what comes of a volume.
 */
#include "tests/unit/engine_pool__snapshots_rig.h"

#include "engine/pool/label.h"
#include "tests/unit/unit.h"

#define KEEP .read_only = -1, .max_clients = -1

static bool may_root(void *arg, const char *access)
{
	char *seen = arg;

	snprintf(seen, ASHLAR_ACCESS_MAX + 1, "%s", access);
	return !strcmp(access, "uid:0") || !*access;
}

/* Attaches and lets go again; seen: the rules that were shown. */
static int co_try(struct env *env, const char *export_name, char *seen)
{
	struct ashlar_attach_who who = { .may = may_root, .arg = seen };
	struct ashlar_attach *at;
	int r = ashlar_co_attach_as(env->a, export_name, &who, NULL, NULL, &at, NULL);

	if (r == 0)
		ashlar_co_detach(at);
	return r;
}

static void co_set(struct env *env, const char *volume, const char *access)
{
	struct ashlar_export_change c = { KEEP, .access = access };

	OK(env, ashlar_co_export_set(env->p, volume, &c, &e));
}

static int co_rules(struct env *env)
{
	char seen[ASHLAR_ACCESS_MAX + 1], longest[ASHLAR_ACCESS_MAX + 2];
	struct ashlar_export_change c = { KEEP };

	co_volume(env, "v");
	co_volume(env, "free");
	co_snap(env, "v@a");
	EXPECT(env, co_try(env, "p/v", seen) == 0 && !*seen);
	EXPECT(env, !(env->p->label->incompat & LABEL_INCOMPAT_ACCESS));
	co_set(env, "v", "uid:1\ntls:alice");
	EXPECT(env, env->p->label->incompat & LABEL_INCOMPAT_ACCESS);
	EXPECT(env, co_try(env, "p/v", seen) == -ENOENT && !strcmp(seen, "uid:1\ntls:alice"));
	/* What comes of it is no way around. */
	EXPECT(env, co_try(env, "p/v@a", seen) == -ENOENT);
	co_clone(env, "v@a", "c");
	EXPECT(env, co_try(env, "p/c", seen) == -ENOENT && !strcmp(seen, "uid:1\ntls:alice"));
	/* A snapshot may have rules of its own, and so has what comes of it then. */
	co_set(env, "v@a", "uid:0");
	EXPECT(env, co_try(env, "p/v@a", seen) == 0 && co_try(env, "p/v", seen) == -ENOENT);
	co_clone(env, "v@a", "d");
	EXPECT(env, co_try(env, "p/d", seen) == 0 && !strcmp(seen, "uid:0"));
	EXPECT(env, co_try(env, "p/free", seen) == 0 && !*seen);
	c.access = "uid:0\nsomebody";
	REFUSED(env, -EINVAL, "\"somebody\" is no rule", ashlar_co_export_set(env->p, "v", &c, &e));
	memset(longest, 'x', sizeof(longest));
	memcpy(longest, "tls:", 4);
	longest[ASHLAR_ACCESS_MAX + 1] = 0;
	c.access = longest;
	REFUSED(env, -E2BIG, "128 bytes long", ashlar_co_export_set(env->p, "v", &c, &e));
	longest[ASHLAR_ACCESS_MAX] = 0;
	OK(env, ashlar_co_export_set(env->p, "d", &c, &e));
	EXPECT(env, co_try(env, "p/d", seen) == -ENOENT && !strcmp(seen, longest));
	REFUSED(env, -ENOENT, "nothing", ashlar_co_export_set(env->p, "nothing", &c, &e));
	return 0;
}

static int co_rules_are_there(struct env *env)
{
	char seen[ASHLAR_ACCESS_MAX + 1];

	EXPECT(env, co_try(env, "p/v", seen) == -ENOENT && !strcmp(seen, "uid:1\ntls:alice"));
	EXPECT(env, co_try(env, "p/c", seen) == -ENOENT && !strcmp(seen, "uid:1\ntls:alice"));
	EXPECT(env, co_try(env, "p/v@a", seen) == 0 && !strcmp(seen, "uid:0"));
	EXPECT(env, co_try(env, "p/free", seen) == 0 && !*seen);
	EXPECT(env, env->p->label->incompat & LABEL_INCOMPAT_ACCESS);
	return 0;
}

static int co_rules_are_lifted(struct env *env)
{
	char seen[ASHLAR_ACCESS_MAX + 1];

	co_set(env, "v", "");
	co_set(env, "v@a", "");
	EXPECT(env, co_try(env, "p/v", seen) == 0 && co_try(env, "p/v@a", seen) == 0 && !*seen);
	EXPECT(env, co_try(env, "p/c", seen) == -ENOENT);
	return 0;
}

static void rules_survive_a_power_cut_and_hold_for_what_comes_of_a_volume(void)
{
	struct env *env = begin(31, 32 * MIB);

	run_and_crash(env, co_rules);
	run_and_crash(env, co_rules_are_there); /* by replay */
	run(env, co_rules_are_there);		/* that is closed in order */
	run(env, co_rules_are_there);		/* by the checkpoint */
	run_and_crash(env, co_rules_are_lifted);
	end(env);
}

static int co_limits(struct env *env)
{
	struct ashlar_export_change c = { .read_only = -1, .max_clients = 2 };
	struct ashlar_attach_who look = { .is_look = true };
	struct ashlar_attach *at[2], *more;

	co_volume(env, "v");
	OK(env, ashlar_co_export_set(env->p, "v", &c, &e));
	at[0] = co_attach(env, "v");
	at[1] = co_attach(env, "v");
	REFUSED(env, -EUSERS, "2 clients already", ashlar_co_attach(env->a, "p/v", NULL, NULL, &more, &e));
	OK(env, ashlar_co_attach_as(env->a, "p/v", &look, NULL, NULL, &more, &e));
	ashlar_co_detach(at[1]);
	at[1] = co_attach(env, "v"); /* who looks does not count */
	ashlar_co_detach(more);
	c.max_clients = 1;
	OK(env, ashlar_co_export_set(env->p, "v", &c, &e)); /* who is there stays */
	ashlar_co_detach(at[0]);
	REFUSED(env, -EUSERS, "1 clients already", ashlar_co_attach(env->a, "p/v", NULL, NULL, &more, &e));
	c.max_clients = 0;
	OK(env, ashlar_co_export_set(env->p, "v", &c, &e));
	at[0] = co_attach(env, "v");
	ashlar_co_detach(at[0]);
	ashlar_co_detach(at[1]);
	return 0;
}

static void clients_are_limited(void)
{
	struct env *env = begin(32, 32 * MIB);

	run(env, co_limits);
	end(env);
}

static void expect_export(struct env *env, const char *name, bool read_only, bool hidden, const char *access, uint32_t max)
{
	struct ashlar_export_info *x = NULL;
	size_t n = 0;

	OK(env, ashlar_co_export_list(env->a, &x, &n, &e));
	EXPECT(env, n == 1 && !strcmp(x[0].name, name) && x[0].read_only == read_only && x[0].hidden == hidden && !strcmp(x[0].access, access) &&
			    x[0].max_clients == max);
	xfree(x);
}

static int co_changes(struct env *env)
{
	struct ashlar_export_change c = { .name = "other", .read_only = 1, .access = "gid:7", .max_clients = 3 }, keep = { KEEP };

	co_volume(env, "v");
	OK(env, ashlar_co_export_set(env->p, "v", &c, &e));
	expect_export(env, "other", true, false, "gid:7", 3);
	OK(env, ashlar_co_export_set(env->p, "v", &keep, &e));
	expect_export(env, "other", true, false, "gid:7", 3);
	keep.read_only = 0;
	OK(env, ashlar_co_export_set(env->p, "v", &keep, &e));
	expect_export(env, "other", false, false, "gid:7", 3);
	OK(env, ashlar_co_export_remove(env->p, "v", &e));
	keep.max_clients = 4;
	OK(env, ashlar_co_export_set(env->p, "v", &keep, &e));
	expect_export(env, "p/v", false, true, "gid:7", 4);
	OK(env, ashlar_co_export_add(env->p, "v", NULL, true, &e));
	expect_export(env, "p/v", true, false, "gid:7", 4);
	return 0;
}

static void what_is_not_named_stays(void)
{
	struct env *env = begin(33, 32 * MIB);

	run(env, co_changes);
	end(env);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(rules_survive_a_power_cut_and_hold_for_what_comes_of_a_volume),
		TEST(clients_are_limited),
		TEST(what_is_not_named_stays),
		CU_TEST_INFO_NULL,
	};

	return tests_run("exports", tests);
}
