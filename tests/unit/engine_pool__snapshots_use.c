/*
 * Using snapshots: clients during a rollback and of a snapshot, exports, names and refusals, the schedule.
 */
#include "tests/unit/engine_pool__snapshots_rig.h"

#include "engine/pool/label.h"
#include "tests/unit/unit.h"

/* ---- clients ---- */

struct client {
	struct env *env;
	struct ashlar_attach *at;
	uint64_t n_reads, resized, size_seen;
	bool stop, ended, torn, failed;
};

static void on_resized(void *arg)
{
	struct client *c = arg;

	c->resized++;
	c->size_seen = ashlar_attach_bdev(c->at)->size_bytes;
}

static const struct ashlar_attach_ops client_ops = { .resized = on_resized };

/* Reads all of the volume, in one request, again and again. */
static int client_there(void *arg)
{
	struct client *c = arg;
	struct bdev *b = ashlar_attach_bdev(c->at);
	uint8_t *buf = buf_alloc(BYTES);
	uint64_t i, len;

	while (!c->stop) {
		len = MIN(b->size_bytes, BYTES);
		c->failed |= bdev_co_read(b, 0, buf, len) < 0 && len <= b->size_bytes;
		for (i = 1; i < MIN(len, BYTES / 2); i++)
			c->torn |= buf[i] != buf[0];
		c->n_reads++;
	}
	buf_free(buf, BYTES);
	return 0;
}

static void client_co_main(void *arg)
{
	struct client *c = arg;

	(void)!reactor_co_call(ashlar_attach_home(c->at), client_there, c);
	c->ended = true;
}

static void co_fill(struct env *env, struct ashlar_attach *at, int value, uint64_t len)
{
	uint8_t *buf = buf_alloc(len);

	memset(buf, value, len);
	EXPECT(env, co_request(at, IO_WRITE, 0, buf, len) == 0);
	buf_free(buf, len);
}

static int co_first_byte(struct env *env, struct ashlar_attach *at)
{
	uint8_t *buf = buf_alloc(512);
	int value;

	EXPECT(env, co_request(at, IO_READ, 0, buf, 512) == 0);
	value = buf[0];
	buf_free(buf, 512);
	return value;
}

static int co_rollback_attached(struct env *env)
{
	struct ashlar_volume_spec s = { .name = "v", .size_bytes = BYTES / 2 };
	const char *const one[] = { "v@one" }, *const two[] = { "v@two" };
	struct client c = { .env = env };
	unsigned i;

	OK(env, ashlar_co_volume_create(env->p, &s, &e));
	OK(env, ashlar_co_attach(env->a, "p/v", &client_ops, &c, &c.at, &e));
	co_fill(env, c.at, 1, BYTES / 2);
	OK(env, ashlar_co_snapshot_create(env->p, one, 1, &e));
	co_fill(env, c.at, 2, BYTES / 2);
	OK(env, ashlar_co_volume_resize(env->p, "v", BYTES, false, &e));
	OK(env, ashlar_co_snapshot_create(env->p, two, 1, &e));
	co_spawn(CO_SERVICE, client_co_main, &c, "client");
	co_sleep_ns(20 * NS_PER_MS);
	REFUSED(env, -EBUSY, "--force", ashlar_co_snapshot_rollback(env->p, "v@one", false, false, NULL, &e));
	for (i = 0; i < 30; i++) {
		OK(env, ashlar_co_snapshot_rollback(env->p, i % 2 ? "v@two" : "v@one", true, false, NULL, &e));
		EXPECT(env, co_first_byte(env, c.at) == (i % 2 ? 2 : 1));
		EXPECT(env, c.resized == 1 + i + 1 && c.size_seen == (i % 2 ? BYTES : BYTES / 2));
		co_sleep_ns(rng_below(&env->rng, 3 * NS_PER_MS));
	}
	c.stop = true;
	while (!c.ended)
		co_sleep_ns(NS_PER_MS);
	EXPECT(env, c.n_reads > 30 && !c.torn && !c.failed);
	ashlar_co_detach(c.at);
	return 0;
}

static void a_rollback_is_seen_as_a_whole_by_clients(void)
{
	struct env *env = begin(13, 32 * MIB);

	run(env, co_rollback_attached);
	end(env);
}

struct goer {
	struct ashlar_attach *at;
	bool gone;
};

static void goer_co_main(void *arg)
{
	struct goer *g = arg;

	ashlar_co_detach(g->at);
	g->gone = true;
}

static void on_gone(void *arg)
{
	co_spawn(CO_SERVICE, goer_co_main, arg, "goer");
}

static int co_exports(struct env *env)
{
	static const struct ashlar_attach_ops ops = { .gone = on_gone };
	const char *const a[] = { "v@a" };
	struct ashlar_export_info *x = NULL;
	struct goer g = { 0 };
	struct ashlar_attach *at;
	uint8_t *buf = buf_alloc(512);
	size_t n = 0;

	co_volume(env, "v");
	co_write(env, "v", 0, 4096);
	co_snap(env, "v@a");
	at = co_attach(env, "v@a");
	EXPECT(env, ashlar_attach_read_only(at) && co_request(at, IO_WRITE, 0, buf, 512) < 0);
	ashlar_co_detach(at);
	OK(env, ashlar_co_export_add(env->p, "v@a", "the snapshot", false, &e));
	REFUSED(env, -EEXIST, "snapshot p/v@a", ashlar_co_export_add(env->p, "v", "the snapshot", false, &e));
	OK(env, ashlar_co_export_list(env->a, &x, &n, &e));
	EXPECT(env, n == 2 && x[1].read_only && x[1].is_snapshot && !strcmp(x[1].name, "the snapshot") && !strcmp(x[1].volume, "v@a"));
	xfree(x);
	REFUSED(env, -ENOENT, "export", ashlar_co_attach(env->a, "p/v@a", NULL, NULL, &at, &e));
	OK(env, ashlar_co_export_remove(env->p, "v@a", &e));
	REFUSED(env, -ENOENT, "export", ashlar_co_attach(env->a, "p/v@a", NULL, NULL, &at, &e));
	OK(env, ashlar_co_export_add(env->p, "v@a", NULL, false, &e));
	OK(env, ashlar_co_attach(env->a, "p/v@a", &ops, &g, &g.at, &e));
	REFUSED(env, -EBUSY, "in use", ashlar_co_snapshot_delete(env->p, a, 1, false, false, NULL, &e));
	REFUSED(env, -EBUSY, "in use", ashlar_co_volume_delete(env->p, "v", false, true, false, NULL, &e));
	OK(env, ashlar_co_snapshot_delete(env->p, a, 1, true, false, NULL, &e));
	EXPECT(env, g.gone);
	point_drop(point_find(env, "v@a"));
	buf_free(buf, 512);
	return co_verify(env);
}

static void snapshots_are_exported_read_only(void)
{
	struct env *env = begin(17, 32 * MIB);

	run(env, co_exports);
	end(env);
}

/* ---- names ---- */

static int co_names(struct env *env)
{
	const char *const twice[] = { "v@x", "w@x", "v@x" }, *const none[] = { "v@x", "nothing@x" }, *const bad[] = { "v@a/b" },
			  *const no_snap[] = { "v" }, *const empty[] = { "v@" }, *const there[] = { "w@new", "v@a" }, *const gone[] = { "v@no" };
	struct ashlar_snapshot_info s;
	struct ashlar_volume_info v;

	EXPECT(env, !(env->p->label->incompat & LABEL_INCOMPAT_SNAPSHOTS));
	co_volume(env, "v");
	co_volume(env, "w");
	REFUSED(env, -EINVAL, "v@x is named twice", ashlar_co_snapshot_create(env->p, twice, 3, &e));
	REFUSED(env, -ENOENT, "no volume p/nothing", ashlar_co_snapshot_create(env->p, none, 2, &e));
	REFUSED(env, -EINVAL, "'/'", ashlar_co_snapshot_create(env->p, bad, 1, &e));
	REFUSED(env, -EINVAL, "VOLUME@SNAPSHOT", ashlar_co_snapshot_create(env->p, no_snap, 1, &e));
	REFUSED(env, -EINVAL, "empty", ashlar_co_snapshot_create(env->p, empty, 1, &e));
	co_verify(env); /* none of these has made anything */
	co_snap(env, "v@a");
	EXPECT(env, env->p->label->incompat & LABEL_INCOMPAT_SNAPSHOTS);
	REFUSED(env, -EEXIST, "p/v@a exists", ashlar_co_snapshot_create(env->p, there, 2, &e));
	REFUSED(env, -ENOENT, "no snapshot p/v@no", ashlar_co_snapshot_delete(env->p, gone, 1, false, false, NULL, &e));
	REFUSED(env, -ENOENT, "no snapshot p/v@no", ashlar_co_clone(env->p, "v@no", "c", &e));
	REFUSED(env, -EEXIST, "p/w exists", ashlar_co_clone(env->p, "v@a", "w", &e));
	REFUSED(env, -EINVAL, "'@'", ashlar_co_clone(env->p, "v@a", "c@d", &e));
	co_clone(env, "v@a", "c");
	OK(env, ashlar_co_volume_info(env->p, "c", &v, &e));
	EXPECT(env, !strcmp(v.origin, "v@a"));
	OK(env, ashlar_co_snapshot_info(env->p, "v@a", &s, &e));
	EXPECT(env, s.n_clones == 1 && !s.made_by_policy && !strcmp(s.volume, "v"));
	co_snap(env, "v@b");
	REFUSED(env, -EEXIST, "v@b exists", ashlar_co_snapshot_rename(env->p, "v@a", "b", &e));
	OK(env, ashlar_co_snapshot_rename(env->p, "v@a", "z", &e));
	snprintf(point_find(env, "v@a")->name, 40, "v@z");
	OK(env, ashlar_co_volume_rename(env->p, "v", "u", &e));
	snprintf(point_find(env, "v")->name, 40, "u");
	snprintf(point_find(env, "v@z")->name, 40, "u@z");
	snprintf(point_find(env, "v@b")->name, 40, "u@b");
	OK(env, ashlar_co_volume_info(env->p, "c", &v, &e));
	EXPECT(env, !strcmp(v.origin, "u@z"));
	OK(env, ashlar_co_export_add(env->p, "c", "p/t@b", false, &e));
	REFUSED(env, -EEXIST, "p/t@b", ashlar_co_volume_rename(env->p, "u", "t", &e));
	OK(env, ashlar_co_export_add(env->p, "c", NULL, false, &e));
	return co_verify(env);
}

static void names_are_refused_with_a_sentence(void)
{
	struct env *env = begin(19, 32 * MIB);

	run(env, co_names);
	run(env, co_verify);
	end(env);
}

/* ---- the schedule ---- */

static unsigned co_count(struct env *env, const char *volume, bool by_policy)
{
	struct ashlar_snapshot_info *s = NULL;
	size_t n = 0, i;
	unsigned found = 0;

	OK(env, ashlar_co_snapshot_list(env->p, volume, &s, &n, &e));
	for (i = 0; i < n; i++)
		found += s[i].made_by_policy == by_policy && (!by_policy || !strncmp(strchr(s[i].name, '@'), "@auto-", 6));
	xfree(s);
	return found;
}

static unsigned co_events(struct env *env, const char *type)
{
	struct ashlar_event *ev = NULL;
	size_t n = 0, i;
	unsigned found = 0;

	OK(env, ashlar_co_events(env->a, 0, 2000, 0, &ev, &n, &e));
	for (i = 0; i < n; i++)
		found += !strcmp(ev[i].type, type);
	xfree(ev);
	return found;
}

static int co_policy(struct env *env)
{
	struct ashlar_snapshot_info *s = NULL;
	struct ashlar_attach *at;
	char export_name[2 * ASHLAR_VOLUME_NAME_MAX + 8], oldest[2 * ASHLAR_VOLUME_NAME_MAX + 2];
	struct ashlar_volume_info v;
	size_t n;

	co_volume(env, "v");
	co_snap(env, "v@mine");
	REFUSED(env, -EINVAL, "once a minute", ashlar_co_snapshot_policy(env->p, "v", MINUTE_NS - 1, 3, &e));
	REFUSED(env, -EINVAL, "1 or more", ashlar_co_snapshot_policy(env->p, "v", MINUTE_NS, 0, &e));
	REFUSED(env, -ENOENT, "no volume", ashlar_co_snapshot_policy(env->p, "x", MINUTE_NS, 3, &e));
	OK(env, ashlar_co_snapshot_policy(env->p, "v", 2 * MINUTE_NS, 3, &e));
	OK(env, ashlar_co_volume_info(env->p, "v", &v, &e));
	EXPECT(env, v.policy_every_ns == 2 * MINUTE_NS && v.policy_keep == 3);
	co_sleep_ns(NS_PER_SEC);
	EXPECT(env, co_count(env, "v", true) == 1); /* the first one at once */
	co_sleep_ns(3 * MINUTE_NS);
	EXPECT(env, co_count(env, "v", true) == 2);
	OK(env, ashlar_co_snapshot_list(env->p, "v", &s, &n, &e));
	snprintf(oldest, sizeof(oldest), "%s", s[1].name);
	snprintf(export_name, sizeof(export_name), "p/%s", oldest);
	xfree(s);
	OK(env, ashlar_co_attach(env->a, export_name, NULL, NULL, &at, &e));
	co_sleep_ns(20 * MINUTE_NS);
	EXPECT(env, co_count(env, "v", true) == 4 && co_is_there(env, oldest)); /* the newest three, and the one in use */
	ashlar_co_detach(at);
	co_sleep_ns(MINUTE_NS);
	EXPECT(env, co_count(env, "v", true) == 3 && !co_is_there(env, oldest) && co_is_there(env, "v@mine"));
	EXPECT(env, co_events(env, "snapshot.taken") == 13 && co_events(env, "snapshot.expired") == 13 - 3);
	return 0;
}

static int co_policy_after(struct env *env)
{
	struct ashlar_snapshot_info *s = NULL;
	const char *name;
	size_t n = 0;

	co_sleep_ns(NS_PER_SEC);
	EXPECT(env, co_events(env, "snapshot.taken") <= 1 && co_count(env, "v", true) == 3);
	OK(env, ashlar_co_snapshot_list(env->p, "v", &s, &n, &e));
	name = s[1].name; /* [0]: mine */
	OK(env, ashlar_co_snapshot_rename(env->p, name, "kept", &e));
	OK(env, ashlar_co_snapshot_policy(env->p, "v", MINUTE_NS, 1, &e));
	co_sleep_ns(5 * MINUTE_NS);
	EXPECT(env, co_count(env, "v", true) == 1 && co_is_there(env, "v@kept"));
	OK(env, ashlar_co_snapshot_policy(env->p, "v", 0, 0, &e));
	xfree(s);
	n = co_events(env, "snapshot.taken");
	co_sleep_ns(5 * MINUTE_NS);
	EXPECT(env, co_events(env, "snapshot.taken") == n);
	return 0;
}

static void a_policy_takes_and_expires(void)
{
	struct env *env = begin(29, 32 * MIB);

	run(env, co_policy);
	run(env, co_policy_after);
	end(env);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(names_are_refused_with_a_sentence),
		TEST(snapshots_are_exported_read_only),
		TEST(a_rollback_is_seen_as_a_whole_by_clients),
		TEST(a_policy_takes_and_expires),
		CU_TEST_INFO_NULL,
	};

	return tests_run("use of snapshots", tests) || n_problems;
}
