/*
 * Families that move from one pool to another while they are in use; power cuts, and pools that are opened in any order, or not at
 * all, afterwards. SEED and SEEDS in the environment.
 */
#include "tests/unit/engine_pool__move_pools_rig.h"
#include "tests/unit/unit.h"

/* ---- in use ---- */

static size_t co_n_listed(struct env *env, struct ashlar_pool *p)
{
	struct ashlar_volume_info *v = NULL;
	size_t n = 0;

	OK(env, ashlar_co_volume_list(p, &v, &n, &e));
	xfree(v);
	return n;
}

struct lister {
	struct env *env;
	struct ashlar_pool *p, *q;
	unsigned n;
	bool stop, ended;
};

/* Whatever moves: each volume is listed once. */
static void lister_co_run(void *arg)
{
	struct lister *l = arg;
	uint64_t arrivals;
	size_t n;

	for (; !l->stop; l->n++) {
		do {
			arrivals = ashlar_co_arrivals(l->env->a);
			n = co_n_listed(l->env, l->p) + co_n_listed(l->env, l->q);
		} while (arrivals != ashlar_co_arrivals(l->env->a));
		EXPECT(l->env, n == 2);
		co_sleep_ns(NS_PER_MS / 10);
	}
	l->ended = true;
}

static int co_there_and_back(struct env *env)
{
	struct ashlar_attach_snapshot *s1 = NULL, *s2 = NULL;
	struct ashlar_export_info *x = NULL;
	struct client w[3];
	struct ashlar_pool *p;
	struct lister l = { .env = env };
	size_t n1 = 0, n2 = 0, n_x = 0, i;
	unsigned k;

	co_open_p(env);
	co_open_q(env);
	l.p = p = env->p;
	l.q = q;
	co_family(env);
	client_start(env, &w[0], "v");
	client_start(env, &w[1], "c");
	client_start(env, &w[2], "v@s2");
	OK(env, ashlar_co_attach_snapshots(w[0].at, &s1, &n1));
	co_spawn(CO_SERVICE, lister_co_run, &l, "lister");
	for (k = 0; k < 4; k++) {
		EXPECT(env, co_wait(env, env->p, co_move_to(env, env->p, "v", k % 2 ? p : q)));
		EXPECT(env, w[0].n_moved == k + 1);
		co_until_gone(env, env->p);
		env->p = k % 2 ? p : q;
		co_sleep_ns(20 * NS_PER_MS);
		EXPECT(env, w[0].n_moved == k + 1 && w[1].n_moved == k + 1 && w[2].n_moved == k + 1);
		expect_guarded(env);
		co_expect_limit(env, 1);
	}
	for (l.stop = true; !l.ended;)
		co_sleep_ns(NS_PER_MS);
	EXPECT(env, l.n > 10);
	OK(env, ashlar_co_attach_snapshots(w[0].at, &s2, &n2));
	EXPECT(env, n1 == 3 && n2 == 3);
	for (i = 0; i < n2; i++)
		EXPECT(env, s1[i].id == s2[i].id && !strcmp(s1[i].name, s2[i].name));
	xfree(s1);
	xfree(s2);
	for (k = 0; k < 3; k++)
		client_co_stop(&w[k]);
	OK(env, ashlar_co_export_list(env->a, &x, &n_x, &e));
	for (i = 0; i < n_x; i++)
		EXPECT(env, !strncmp(x[i].name, "p/", 2) && x[i].is_default && x[i].is_snapshot == (strchr(x[i].name, '@') != NULL));
	xfree(x);
	return co_verify(env);
}

static void clients_go_on_while_their_volumes_go_to_another_pool_and_back(void)
{
	struct env *env = begin_two(100);

	run_two(env, co_there_and_back, false);
	end(env);
}

/* Ones that cannot take another bdev now, or never: the old data path passes on what comes. */
static int co_stubborn(struct env *env)
{
	struct ashlar_attach *at;
	struct client w;
	struct ashlar_pool *p;

	co_open_p(env);
	co_open_q(env);
	p = env->p;
	co_family(env);
	at = co_attach(env, "v@s1"); /* has no callbacks at all */
	client_start(env, &w, "v");
	w.refuses = true;
	EXPECT(env, co_wait(env, p, co_move_to(env, p, "v", q)));
	env->p = q;
	co_sleep_ns(NS_PER_SEC);
	EXPECT(env, n_members(p) == 5 && !w.n_moved);
	EXPECT(env, co_n_listed(env, p) == 0 && co_n_listed(env, q) == 2); /* nobody is told of both */
	w.refuses = false;
	co_sleep_ns(NS_PER_SEC);
	EXPECT(env, n_members(p) == 5 && w.n_moved == 1);
	ashlar_co_detach(at);
	co_until_gone(env, p);
	client_co_stop(&w);
	return co_verify(env);
}

static int co_verify_in_q(struct env *env)
{
	struct ashlar_export_info *x = NULL;
	size_t n = 0, i;

	co_open_q(env);
	env->p = q;
	OK(env, ashlar_co_export_list(env->a, &x, &n, &e));
	for (i = 0; i < n; i++)
		EXPECT(env, !strncmp(x[i].name, "p/", 2) && !x[i].is_default);
	EXPECT(env, n == 5);
	xfree(x);
	expect_guarded(env);
	EXPECT(env, q->label->incompat & LABEL_INCOMPAT_ACCESS);
	return co_verify(env);
}

static void the_old_data_path_stays_as_long_as_a_client_needs_it(void)
{
	struct env *env = begin_two(200);

	run_two(env, co_stubborn, false);
	run_two(env, co_verify_in_q, false);
	end(env);
}

/* The data path of the pool that it has left does not change its size with the volume. */
static int co_smaller(struct env *env)
{
	struct bdev_extent ext[4];
	struct ashlar_attach *at;
	struct ashlar_pool *p;
	uint8_t *buf = buf_alloc(CLUSTER);
	size_t n = 4;

	co_open_p(env);
	co_open_q(env);
	p = env->p;
	co_volume(env, "z");
	co_write(env, "z", 0, BYTES);
	at = co_attach(env, "z");
	EXPECT(env, co_wait(env, p, co_move_to(env, p, "z", q)));
	OK(env, ashlar_co_volume_resize(q, "z", BYTES / 2, true, &e));
	EXPECT(env, co_request(at, IO_READ, 0, buf, CLUSTER) == 0);
	EXPECT(env, co_request(at, IO_READ, BYTES - CLUSTER, buf, CLUSTER) == -ERANGE);
	EXPECT(env, co_request(at, IO_WRITE, BYTES / 2 - CLUSTER / 2, buf, CLUSTER) == -ERANGE);
	EXPECT(env, bdev_co_status(ashlar_attach_bdev(at), BYTES - CLUSTER, CLUSTER, ext, &n) == -ERANGE);
	EXPECT(env, co_request(at, IO_FLUSH, 0, NULL, 0) == 0);
	ashlar_co_detach(at);
	buf_free(buf, CLUSTER);
	co_until_gone(env, p);
	OK(env, ashlar_co_volume_delete(q, "z", false, false, false, NULL, &e));
	point_drop(point_find(env, "z"));
	return 0;
}

static void who_still_has_the_old_data_path_may_ask_for_what_is_not_there_any_more(void)
{
	struct env *env = begin_two(250);

	run_two(env, co_smaller, false);
	end(env);
}

/* ---- who comes meanwhile ---- */

struct comer {
	struct env *env;
	unsigned n_come;
	bool stop, ended;
};

static void comer_co_run(void *arg)
{
	struct comer *c = arg;

	while (!c->stop) {
		struct ashlar_attach *at = co_attach(c->env, c->n_come % 2 ? "c" : "v@s1");

		if (at)
			ashlar_co_detach(at);
		c->n_come++;
		co_sleep_ns(rng_below(&c->env->rng, NS_PER_MS / 8));
	}
	c->ended = true;
}

static int co_comers(struct env *env)
{
	struct comer c = { .env = env };
	struct ashlar_pool *p;
	unsigned k;

	co_open_p(env);
	co_open_q(env);
	p = env->p;
	co_family(env);
	co_spawn(CO_SERVICE, comer_co_run, &c, "comer");
	for (k = 0; k < 6; k++) {
		EXPECT(env, co_wait(env, env->p, co_move_to(env, env->p, "v", k % 2 ? p : q)));
		co_until_gone(env, env->p);
		env->p = k % 2 ? p : q;
	}
	c.stop = true;
	while (!c.ended)
		co_sleep_ns(NS_PER_MS);
	EXPECT(env, c.n_come > 100);
	return co_verify(env);
}

static void whoever_comes_during_the_switch_is_served(void)
{
	struct env *env = begin_two(270);

	run_two(env, co_comers, false);
	end(env);
}

/* ---- refused ---- */

static bool is_wanted(struct env *env)
{
	struct thin_vol *v = thin_vol_find(p_of(env)->thin, "v");

	return v && v->move_flags & THIN_MOVE_WANTED;
}

/* While it runs, nobody gets a name that would be in its way; but pools need not be open at the same time. */
static int co_names_kept(struct env *env)
{
	struct ashlar_move_spec s = { .volume = "v", .to = q };
	struct ashlar_volume_spec other = { .name = "c", .size_bytes = MIB }, mine = { .name = "x", .size_bytes = MIB };
	struct ashlar_move_info i;
	unsigned k;

	co_slow(env, env->p);
	OK(env, ashlar_co_volume_create(q, &mine, &e));
	OK(env, ashlar_co_volume_move(env->p, &s, &i, &e));
	REFUSED(env, -EEXIST, "p/c is being moved to pool q", ashlar_co_volume_create(q, &other, &e));
	REFUSED(env, -EEXIST, "p/c is being moved to pool q", ashlar_co_volume_rename(q, "x", "c", &e));
	REFUSED(env, -EEXIST, "q/x exists already, and p/v is being moved there", ashlar_co_volume_rename(env->p, "v", "x", &e));
	REFUSED(env, -EEXIST, "q/x exists already", ashlar_co_clone(env->p, "v@s1", "x", &e));
	OK(env, ashlar_co_pool_close(env->p, &e));
	OK(env, ashlar_co_volume_create(q, &other, &e));
	co_open_p(env);
	for (k = 0; k < 10000 && is_wanted(env); k++)
		co_sleep_ns(10 * NS_PER_MS);
	EXPECT(env, !is_wanted(env)); /* it has ended at the switch: nothing is lost */
	OK(env, ashlar_co_volume_delete(q, "c", false, false, false, NULL, &e));
	OK(env, ashlar_co_volume_delete(q, "x", false, false, false, NULL, &e));
	co_until_gone(env, q);
	return co_verify(env);
}

static int co_refused(struct env *env)
{
	struct ashlar_move_spec s = { .volume = "v" };
	struct ashlar_volume_spec other = { .name = "c", .size_bytes = MIB };
	struct ashlar_move_info i;

	co_open_p(env);
	co_open_q(env);
	co_family(env);
	s.to = q;
	OK(env, ashlar_co_volume_create(q, &other, &e));
	REFUSED(env, -EEXIST, "volume q/c exists already", ashlar_co_volume_move(env->p, &s, &i, &e));
	OK(env, ashlar_co_volume_delete(q, "c", false, false, false, NULL, &e));
	s.layout = "raid5";
	REFUSED(env, -EINVAL, "needs 3 disks", ashlar_co_volume_move(env->p, &s, &i, &e));
	s.layout = NULL;
	s.dry_run = true;
	OK(env, ashlar_co_volume_move(env->p, &s, &i, &e));
	EXPECT(env, i.n_volumes == 2 && i.n_snapshots == 3 && i.used_bytes == co_used(env) && !n_members(q));
	return co_names_kept(env);
}

static void names_that_are_taken_there_are_refused(void)
{
	struct env *env = begin_two(300);

	run_two(env, co_refused, false);
	end(env);
}

/* ---- interrupted ---- */

static unsigned n_here, n_between, n_there;

static int co_cut(struct env *env)
{
	bool slow = rng_chance(&env->rng, 1, 2);

	co_open_p(env);
	co_open_q(env);
	co_family(env);
	co_do(env, "v", IO_FLUSH, 0, NULL, 0);
	co_do(env, "c", IO_FLUSH, 0, NULL, 0);
	if (slow)
		co_slow(env, env->p);
	co_move_to(env, env->p, "c", q);
	co_sleep_ns(slow ? rng_below(&env->rng, 2000 * NS_PER_MS) : 20 * NS_PER_MS + rng_below(&env->rng, 40 * NS_PER_MS));
	return 0;
}

/* Whoever is open: what can be attached is whole; what is not, is not. */
static bool co_look(struct env *env, const char *name)
{
	struct ashlar_attach *at = NULL;
	char export_name[64];
	uint8_t *buf;

	snprintf(export_name, sizeof(export_name), "p/%s", name);
	if (ashlar_co_attach(env->a, export_name, NULL, NULL, &at, NULL) < 0)
		return false;
	buf = buf_alloc(BYTES);
	EXPECT(env, co_request(at, IO_READ, 0, buf, BYTES) == 0);
	EXPECT(env, !memcmp(buf, point_find(env, name)->data, BYTES));
	buf_free(buf, BYTES);
	ashlar_co_detach(at);
	return true;
}

static bool co_look_all(struct env *env)
{
	unsigned n = 0;

	n += co_look(env, "v");
	n += co_look(env, "c");
	n += co_look(env, "v@s1");
	n += co_look(env, "v@s2");
	n += co_look(env, "c@t1");
	EXPECT(env, n == 0 || n == 5);
	expect_guarded(env);
	return n > 0;
}

static int co_only_p(struct env *env)
{
	bool here;

	co_open_p(env);
	here = co_look_all(env);
	co_sleep_ns(rng_below(&env->rng, NS_PER_SEC));
	EXPECT(env, co_look_all(env) == here);
	n_here += here;
	n_between += !here;
	return 0;
}

static int co_only_q(struct env *env)
{
	bool there;

	co_open_q(env);
	there = co_look_all(env);
	co_sleep_ns(rng_below(&env->rng, NS_PER_SEC));
	EXPECT(env, co_look_all(env) == there);
	n_there += there;
	n_between -= there;
	return 0;
}

static int co_both(struct env *env)
{
	bool p_first = rng_chance(&env->rng, 1, 2);

	if (p_first)
		co_open_p(env);
	co_open_q(env);
	co_sleep_ns(rng_below(&env->rng, 100 * NS_PER_MS));
	if (!p_first)
		co_open_p(env);
	co_until_gone(env, p_of(env));
	env->p = q;
	return co_verify(env);
}

static void wherever_the_power_goes_it_is_served_once_or_not_at_all_and_arrives(void)
{
	const char *first = getenv("SEED"), *many = getenv("SEEDS");
	uint64_t seed = first ? strtoull(first, NULL, 0) : 1000, n = many ? strtoull(many, NULL, 0) : 20, i;

	for (i = 0; i < n && !n_problems; i++) {
		struct env *env = begin_two(seed + 100 * i);

		run_two(env, co_cut, true);
		run_two(env, co_only_p, rng_chance(&env->rng, 1, 2));
		run_two(env, co_only_q, rng_chance(&env->rng, 1, 2));
		run_two(env, co_both, false);
		run_two(env, co_verify_in_q, false);
		end(env);
	}
	CU_ASSERT(many || (n_here > 3 && n_there > 1));
}

/* ---- at every step of the switch ---- */

static uint64_t switched_at; /* events of the disks */

static int co_switch(struct env *env)
{
	co_open_p(env);
	co_open_q(env);
	co_family(env);
	co_do(env, "v", IO_FLUSH, 0, NULL, 0);
	co_do(env, "c", IO_FLUSH, 0, NULL, 0);
	EXPECT(env, co_wait(env, env->p, co_move_to(env, env->p, "v", q)));
	switched_at = sim_disks_n_events(env->disks);
	co_sleep_ns(NS_PER_SEC);
	return 0;
}

/* The same run, up to this event of the disks. */
static struct env *cut_at(uint64_t seed, uint64_t event, enum sim_cut cut)
{
	struct env *env = begin_two(seed);
	int r;

	sim_disks_stop_at(env->disks, event);
	env->body = co_switch;
	env->crashes = true;
	r = world_run(env, co_two, false, SIM_CUT_ALL);
	CU_ASSERT(r == -ECANCELED || r == 0);
	sim_disks_stop_at(env->disks, UINT64_MAX);
	sim_disks_power_cut(env->disks, cut, &env->rng);
	return env;
}

static void at_every_step_of_the_switch_it_is_in_one_pool_or_the_other(void)
{
	uint64_t seed = 70000, at;
	struct env *env = cut_at(seed, UINT64_MAX, SIM_CUT_ALL);
	unsigned n = 0;

	end(env);
	n_here = n_there = n_between = 0;
	for (at = switched_at - 60; at < switched_at + 20 && !n_problems; at += 2, n++) {
		env = cut_at(seed, at, n % 2 ? SIM_CUT_RANDOM : SIM_CUT_NONE);
		run_two(env, co_only_p, rng_chance(&env->rng, 1, 2));
		run_two(env, co_only_q, rng_chance(&env->rng, 1, 2));
		run_two(env, co_both, false);
		run_two(env, co_verify_in_q, false);
		end(env);
	}
	CU_ASSERT(n_here > 1 && n_there > 1 && n_between > 1);
}

/* ---- one of them is lost ---- */

static unsigned n_back, n_arrived;
static bool taken_back;

static int co_take_back(struct env *env)
{
	struct ashlar_move_info i;

	co_open_p(env);
	taken_back = !co_look_all(env) && pool_handed_find(env->p, "c");
	if (!taken_back) { /* it has not gone yet, or nothing is left of it */
		bool here = thin_vol_find(env->p->thin, "v");

		REFUSED(env, here ? -EEXIST : -ENOENT, "", ashlar_co_volume_take_back(env->p, "v", true, false, &i, &e));
		return 0;
	}
	REFUSED(env, -EBUSY, "has been moved from pool p", ashlar_co_pool_destroy(env->p, false, false, &e));
	REFUSED(env, -ENOENT, "no volume x", ashlar_co_volume_take_back(env->p, "x", true, false, &i, &e));
	REFUSED(env, -EBUSY, "is given up", ashlar_co_volume_take_back(env->p, "c", false, false, &i, &e));
	OK(env, ashlar_co_volume_take_back(env->p, "c", false, true, &i, &e));
	EXPECT(env, i.n_volumes == 2 && i.n_snapshots == 3 && !co_look_all(env));
	OK(env, ashlar_co_volume_take_back(env->p, "c", true, false, &i, &e));
	EXPECT(env, co_look_all(env));
	n_back++;
	co_write(env, "v", 5 * CLUSTER, CLUSTER);
	co_write(env, "c", 9 * CLUSTER, 4096);
	co_do(env, "c", IO_FLUSH, 0, NULL, 0);
	return 0;
}

static int co_back_still(struct env *env)
{
	co_open_p(env);
	return co_verify(env);
}

/* The other one comes back: what had not arrived there goes, and what is here stays. */
static int co_found_again(struct env *env)
{
	struct thin_vol *v;
	unsigned n = 0;

	co_open_q(env);
	if (n_members(q) && !thin_n_vols(q->thin))
		REFUSED(env, -EBUSY, "are being moved to pool q", ashlar_co_pool_destroy(q, false, true, &e));
	n_arrived += thin_n_vols(q->thin) != 0;
	co_open_p(env);
	if (!thin_n_vols(q->thin))
		co_until_gone(env, q);
	list_for_each (v, thin_vols(p_of(env)->thin), link)
		n += v->state == THIN_VOLUME_LIVE;
	EXPECT(env, n == 5);
	return n_members(q) ? 0 : co_verify(env);
}

static void what_has_gone_to_a_pool_that_is_lost_is_taken_back(void)
{
	uint64_t seed = 70000, at;
	struct env *env = cut_at(seed, UINT64_MAX, SIM_CUT_ALL);
	unsigned n = 0;

	end(env);
	for (at = switched_at - 60; at < switched_at + 20 && !n_problems; at += 4, n++) {
		env = cut_at(seed, at, n % 2 ? SIM_CUT_RANDOM : SIM_CUT_NONE);
		run_two(env, co_take_back, rng_chance(&env->rng, 1, 2));
		if (taken_back) {
			run_two(env, co_back_still, false);
			run_two(env, co_found_again, false);
		}
		end(env);
	}
	CU_ASSERT(n_back > 1 && n_arrived && n_arrived < n_back);
}

/* One of the pools is closed, and opened again. */
static int co_closing(struct env *env)
{
	struct ashlar_pool *p;
	unsigned i;

	co_open_p(env);
	co_open_q(env);
	p = env->p;
	co_family(env);
	co_slow(env, p);
	co_move_to(env, p, "v", q);
	for (i = 0; i < 4; i++) {
		co_sleep_ns(rng_below(&env->rng, 300 * NS_PER_MS));
		if (rng_chance(&env->rng, 1, 2)) {
			OK(env, ashlar_co_pool_close(q, &e));
			co_sleep_ns(rng_below(&env->rng, 50 * NS_PER_MS));
			co_open_q(env);
		} else {
			OK(env, ashlar_co_pool_close(p, &e));
			co_sleep_ns(rng_below(&env->rng, 50 * NS_PER_MS));
			co_open_p(env);
			p = env->p;
		}
	}
	co_until_gone(env, p);
	env->p = q;
	return co_verify(env);
}

static void closing_either_pool_stops_it_and_opening_goes_on(void)
{
	unsigned i;

	for (i = 0; i < 8 && !n_problems; i++) {
		struct env *env = begin_two(9000 + 100 * i);

		run_two(env, co_closing, false);
		end(env);
	}
}

static int co_cancelled(struct env *env)
{
	struct ashlar_job_info info;
	uint64_t used;
	unsigned i;

	co_open_p(env);
	co_open_q(env);
	co_family(env);
	co_slow(env, env->p);
	for (i = 0; i < 5; i++) {
		uint64_t job = co_move_to(env, env->p, "v", q);

		co_sleep_ns(i * 150 * NS_PER_MS);
		OK(env, ashlar_co_job_stop(env->p, job, &e));
		OK(env, ashlar_co_job_wait(env->p, job, 0, &info, &e));
		EXPECT(env, info.state == ASHLAR_JOB_STOPPED);
		co_until_gone(env, q);
		co_verify(env);
	}
	/* what was cancelled while the other pool was closed is dropped when that is open again */
	co_move_to(env, env->p, "v", q);
	co_sleep_ns(300 * NS_PER_MS);
	EXPECT(env, n_members(q) > 0);
	OK(env, ashlar_co_pool_close(q, &e));
	co_sleep_ns(NS_PER_SEC);
	OK(env, ashlar_co_job_stop(env->p, 6, &e));
	co_open_q(env);
	co_until_gone(env, q);
	co_verify(env);
	used = co_used(env);
	EXPECT(env, co_wait(env, env->p, co_move_to(env, env->p, "v", q)));
	co_until_gone(env, env->p);
	env->p = q;
	EXPECT(env, co_used(env) <= used && co_used(env) > used / 2);
	return co_verify(env);
}

static void cancelling_leaves_nothing_there(void)
{
	struct env *env = begin_two(400);

	run_two(env, co_cancelled, false);
	end(env);
}

/* ---- limits ---- */

static int co_limits(struct env *env)
{
	struct ashlar_limits l = { .iops = 20, .burst_iops = 40, .burst_seconds = 1 }, change = { 50, -1, 0, -1, -1 };
	struct client w = { .env = env, .name = "v" };
	struct ashlar_volume_info i = { 0 };
	uint64_t n, job;

	co_open_p(env);
	co_open_q(env);
	co_family(env);
	OK(env, ashlar_co_volume_set_limits(env->p, "v", &l, &e));
	EXPECT(env, !(q->label->incompat & LABEL_INCOMPAT_LIMITS));
	OK(env, ashlar_co_attach(env->a, "p/v", &client_ops, &w, &w.at, &e));
	rng_init(&w.rng, 1);
	w.b = ashlar_attach_bdev(w.at);
	w.refuses = true; /* goes on by the old data path */
	co_spawn(CO_SERVICE, client_co_run, &w, "client");
	job = co_move_to(env, env->p, "v", q);
	EXPECT(env, co_wait(env, env->p, job));
	env->p = q;
	EXPECT(env, q->label->incompat & LABEL_INCOMPAT_LIMITS);
	OK(env, ashlar_co_volume_info(q, "v", &i, &e));
	EXPECT(env, i.limits.iops == 20 && i.limits.burst_iops == 40 && i.limits.burst_seconds == 1);
	OK(env, ashlar_co_volume_info(q, "c", &i, &e));
	EXPECT(env, !i.limits.iops);
	co_sleep_ns(10 * NS_PER_SEC);
	n = w.n_done;
	co_sleep_ns(100 * NS_PER_SEC);
	EXPECT(env, w.n_done - n > 1950 && w.n_done - n < 2050);
	OK(env, ashlar_co_volume_set_limits(q, "v", &change, &e));
	co_sleep_ns(10 * NS_PER_SEC);
	n = w.n_done;
	co_sleep_ns(100 * NS_PER_SEC);
	EXPECT(env, w.n_done - n > 4900 && w.n_done - n < 5100); /* it is held there, and nowhere else */
	w.stop = true;
	while (!w.ended)
		co_sleep_ns(NS_PER_MS);
	ashlar_co_detach(w.at);
	return 0;
}

static void limits_go_with_the_volume(void)
{
	struct env *env = begin_two(500);

	run_two(env, co_limits, false);
	end(env);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(clients_go_on_while_their_volumes_go_to_another_pool_and_back),
		TEST(the_old_data_path_stays_as_long_as_a_client_needs_it),
		TEST(who_still_has_the_old_data_path_may_ask_for_what_is_not_there_any_more),
		TEST(whoever_comes_during_the_switch_is_served),
		TEST(names_that_are_taken_there_are_refused),
		TEST(wherever_the_power_goes_it_is_served_once_or_not_at_all_and_arrives),
		TEST(at_every_step_of_the_switch_it_is_in_one_pool_or_the_other),
		TEST(what_has_gone_to_a_pool_that_is_lost_is_taken_back),
		TEST(closing_either_pool_stops_it_and_opening_goes_on),
		TEST(cancelling_leaves_nothing_there),
		TEST(limits_go_with_the_volume),
		CU_TEST_INFO_NULL,
	};

	return tests_run("moving families to another pool", tests);
}
