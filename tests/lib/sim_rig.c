/*
 * sim_rig.c: see sim_rig.h.
 */
#include "tests/lib/sim_rig.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/units.h"
#include "engine/io/buf.h"
#include "engine/pool/leave.h"

#define MOVES_LIMIT_NS (3600 * NS_PER_SEC)

const char *const rig_paths[RIG_DISKS_MAX] = { "d0", "d1", "d2", "d3", "d4", "d5", "d6", "d7", "d8", "d9", "d10", "d11" };

void rig_fail(struct rig *g, const char *fmt, ...)
{
	char text[sizeof(g->why)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fprintf(stderr, "FAILED: %s\n", text);
	if (!g->failed)
		memcpy(g->why, text, sizeof(g->why));
	g->failed = true;
}

void rig_note(const struct rig *g, const char *fmt, ...)
{
	va_list ap;

	if (!g->verbose)
		return;
	if (g->w)
		fprintf(stderr, "%12.6f ev %6" PRIu64 " ", (double)world_now_ns(g->w) / 1e9, sim_disks_n_events(g->disks));
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

static void rig_log(void *arg, const char *line)
{
	struct rig *g = arg;

	rig_note(g, "log: %s", line);
	if (g->heard)
		g->heard(g, line);
}

void rig_world_start(struct rig *g, uint64_t seed)
{
	struct sim_options o = { .seed = seed, .n_reactors = g->n_reactors };

	CHECK(!g->w);
	alloc_track_begin();
	g->w = sim_world_create(&o, g->disks);
	g->a = NULL;
	g->p = g->q.p = NULL;
}

void rig_world_drop(struct rig *g)
{
	sim_world_destroy(g->w);
	alloc_track_drop();
	g->w = NULL;
	g->a = NULL;
	g->p = g->q.p = NULL;
}

static void engine_start(struct rig *g)
{
	struct ashlar_options o = { .metadata_cache_bytes = g->cache_bytes, .share_max = g->share_max, .log = rig_log, .log_arg = g };

	if (!g->a)
		g->a = ashlar_create(g->w, &o);
}

static int co_settle_settings(struct rig *g)
{
	struct err e = { 0 };
	int r = ashlar_co_pool_open(g->a, "p", rig_paths, g->n_disks, 0, &g->p, &e);

	if (r == 0) {
		r = ashlar_co_pool_set(g->p, &g->settings, &e);
		ashlar_co_pool_close(g->p, NULL);
		g->p = NULL;
	}
	if (r < 0)
		rig_fail(g, "settings: %s (%d)", e.text, r);
	return r;
}

int rig_co_create(struct rig *g)
{
	struct ashlar_pool_spec s = { .name = "p", .layout = g->layout, .paths = rig_paths,
				      .n_paths = g->n_first ? g->n_first : g->n_disks,
				      .cluster_bytes = g->cluster_bytes, .group_bytes = g->group_bytes };
	struct err e = { 0 };
	int r;

	engine_start(g);
	r = ashlar_co_pool_create(g->a, &s, &e);
	if (r < 0)
		rig_fail(g, "pool create: %s (%d)", e.text, r);
	if (r == 0 && g->settings.timeout_ns)
		r = co_settle_settings(g);
	return r == 0 && g->q.n_disks ? rig_co_other_create(g) : r;
}

/* ---- opening ---- */

static void rule_text(uint32_t rule, char *buf, size_t len)
{
	*buf = 0;
	if (rule)
		snprintf(buf, len, "uid:%u", rule);
}

/* Whose exports are for whom: of volumes, and of snapshots, which have their volumes'. */
static void co_settle_rules(struct rig *g)
{
	struct ashlar_export_info *x;
	struct model_vol *mv;
	char text[32], name[MODEL_NAME_MAX];
	size_t n, i;
	int r = ashlar_co_export_list(g->a, &x, &n, NULL), pass;

	if (r < 0)
		return;
	for (pass = 0; pass < 2; pass++) {
		for (i = 0; i < n; i++) {
			snprintf(name, sizeof(name), "%.*s", (int)strcspn(x[i].volume, "@"), x[i].volume);
			mv = model_vol_find(g->model, name);
			if (!mv || x[i].is_snapshot != (pass == 1))
				continue;
			if (!pass && !model_vol_settle_rule(mv, x[i].access[0] ? (uint32_t)strtoul(x[i].access + 4, NULL, 10) : 0))
				rig_fail(g, "the export of %s is for %s", x[i].volume, x[i].access);
			rule_text(mv->rule, text, sizeof(text));
			if (strcmp(x[i].access, text))
				rig_fail(g, "the export of %s is for %s, not %s", x[i].volume, x[i].access, text);
		}
	}
	xfree(x);
}

static void settle_one(struct rig *g, struct ashlar_pool *p, const struct ashlar_volume_info *v, bool *seen)
{
	struct model_vol *mv = model_vol_find(g->model, v->name);

	if (v->is_elsewhere)
		return;
	if (!mv || seen[mv->index]) {
		rig_fail(g, "volume %s should not be there%s", v->name, mv ? " twice" : "");
		return;
	}
	seen[mv->index] = true;
	if (!model_vol_settle(g->model, mv, v->name, v->size_bytes))
		rig_fail(g, "volume %s is not as it should be", v->name);
	rig_settle_limits(g, mv, &v->limits);
	rig_co_settle_note(g, p, mv);
}

/* Which volumes came through. */
static void co_settle(struct rig *g)
{
	struct ashlar_volume_info *v;
	struct ashlar_pool *p;
	struct model_vol *mv;
	struct err e = { 0 };
	bool seen[512] = { false };
	unsigned i;
	size_t n, k;
	int r;

	for (i = 0; (p = rig_pool_at(g, i)); i++) {
		r = ashlar_co_volume_list(p, &v, &n, &e);
		if (r < 0) {
			rig_fail(g, "volume list: %s (%d)", e.text, r);
			return;
		}
		for (k = 0; k < n; k++)
			settle_one(g, p, &v[k], seen);
		xfree(v);
	}
	for (i = 0; i < model_n_vols(g->model); i++) {
		mv = model_vol(g->model, i);
		if (!seen[i] && mv->state != MODEL_GONE && !model_vol_settle(g->model, mv, NULL, 0))
			rig_fail(g, "volume %s is lost", mv->name);
	}
	if (!g->failed)
		rig_co_settle_snaps(g);
	if (!g->failed)
		co_settle_rules(g);
}

static int co_open_one(struct rig *g, bool other, unsigned flags)
{
	struct ashlar_pool **p = other ? &g->q.p : &g->p;
	struct err e = { 0 };
	int r = ashlar_co_pool_open(g->a, other ? "q" : "p", other ? rig_other_paths : rig_paths, other ? g->q.n_disks : g->n_disks, flags, p, &e);

	if (r < 0) {
		*p = NULL;
		rig_fail(g, "pool open %s: %s (%d)", other ? "q" : "p", e.text, r);
		return r;
	}
	rig_note(g, "opened%s", other ? " q" : "");
	return 0;
}

/* One of them is alone for a while. */
static int co_open_two(struct rig *g, unsigned flags)
{
	struct rng *rng = sim_rng(g->w);
	bool first = rng_chance(rng, 1, 2);
	int r = co_open_one(g, first, flags);

	if (r == 0 && rng_chance(rng, 1, 2))
		co_sleep_ns(rng_below(rng, 500 * NS_PER_MS));
	if (r == 0)
		r = co_open_one(g, !first, flags);
	if (r == 0)
		rig_co_pools_settle(g);
	return r;
}

int rig_co_open(struct rig *g, unsigned flags)
{
	int r;

	engine_start(g);
	r = g->q.n_disks ? co_open_two(g, flags) : co_open_one(g, false, flags);
	if (r < 0)
		return r;
	co_mutex_lock(&g->a->admin); /* nothing goes to another pool while we look */
	co_settle(g);
	co_mutex_unlock(&g->a->admin);
	return g->failed ? -EUCLEAN : 0;
}

static void check_say(void *arg, const char *sentence)
{
	rig_fail(arg, "check: %s", sentence);
}

void rig_co_check(struct rig *g, bool data)
{
	struct ashlar_check_options o = { .data = data, .say = check_say, .arg = g };
	struct ashlar_pool *p;
	struct err e = { 0 };
	unsigned i;
	int64_t r;

	for (i = 0; (p = rig_pool_at(g, i)); i++) {
		r = ashlar_co_pool_check(p, &o, &e);
		if (r < 0)
			rig_fail(g, "check: %s (%d)", e.text, (int)r);
		else if (r > 0 && !g->failed)
			rig_fail(g, "check: %d problems", (int)r);
	}
}

static void co_close_one(struct rig *g, struct ashlar_pool **p)
{
	struct err e = { 0 };
	int r = *p ? ashlar_co_pool_close(*p, &e) : 0;

	*p = NULL;
	if (r < 0 && !g->may_fail)
		rig_fail(g, "pool close: %s (%d)", e.text, r);
}

void rig_co_close(struct rig *g)
{
	if (g->q.p && rng_chance(sim_rng(g->w), 1, 2))
		co_close_one(g, &g->q.p);
	co_close_one(g, &g->p);
	co_close_one(g, &g->q.p);
	ashlar_co_destroy(g->a);
	g->a = NULL;
}

static bool jobs_rest(struct rig *g, struct ashlar_pool *p, char *what, size_t len)
{
	struct ashlar_job_info *j;
	struct err e = { 0 };
	bool rest = true;
	size_t n, i;
	int r = ashlar_co_job_list(p, &j, &n, &e);

	what[0] = 0;
	if (r < 0) {
		rig_fail(g, "job list: %s (%d)", e.text, r);
		return true;
	}
	for (i = 0; i < n; i++) {
		if (j[i].kind == ASHLAR_JOB_MOVE || (j[i].state != ASHLAR_JOB_WAITING && j[i].state != ASHLAR_JOB_RUNNING))
			continue;
		if (j[i].kind == ASHLAR_JOB_ADOPT && g->may_be_full)
			continue; /* it may wait for space for ever */
		rest = false;
		snprintf(what, len, "; %s of %s is %s (%s)", ashlar_job_kind_name(j[i].kind), j[i].what,
			 ashlar_job_state_name(j[i].state), j[i].result);
	}
	xfree(j);
	return rest;
}

static void co_wait_whole(struct rig *g, struct ashlar_pool *p, bool all_online, uint64_t max_ns)
{
	uint64_t end = world_now_ns(g->w) + max_ns;
	struct ashlar_pool_info i;
	char job[512];
	bool rest;

	while (!g->failed) {
		ashlar_co_pool_info(p, &i);
		rest = jobs_rest(g, p, job, sizeof(job));
		if (rest && i.redundancy == i.redundancy_promised && (!all_online || i.health == ASHLAR_ONLINE))
			return;
		if (world_now_ns(g->w) > end)
			rig_fail(g, "after %" PRIu64 " seconds without faults pool %s is %s, %u of %u disks are online, redundancy is %d "
				 "of %d, %" PRIu64 " groups are degraded%s", (uint64_t)(max_ns / NS_PER_SEC), i.name, ashlar_health_name(i.health),
				 i.n_disks_online, i.n_disks, i.redundancy, i.redundancy_promised, i.n_groups_degraded, job);
		co_sleep_ns(100 * NS_PER_MS);
	}
}

void rig_co_wait_whole(struct rig *g, bool all_online, uint64_t max_ns)
{
	struct ashlar_pool *p;
	unsigned i;

	for (i = 0; (p = rig_pool_at(g, i)); i++)
		co_wait_whole(g, p, all_online, max_ns);
}

static bool waits_for_room(const struct pool_job *j)
{
	return j->info.state == ASHLAR_JOB_WAITING && strstr(j->info.result, "space");
}

/* False: there is no such job. */
static bool co_finish_move(struct rig *g, unsigned disk, uint64_t end)
{
	const struct pool_job *j = g->p->life->relocations[disk];
	struct err e = { 0 };
	int r = 0;

	if (!j)
		return false;
	if (world_now_ns(g->w) > end)
		rig_fail(g, "%s of %s does not end: it is %s, %s", ashlar_job_kind_name(j->info.kind), j->info.what,
			 ashlar_job_state_name(j->info.state), j->info.result);
	else if (j->info.state == ASHLAR_JOB_PAUSED)
		r = ashlar_co_job_pause(g->p, j->info.id, false, &e);
	else if (waits_for_room(j) && g->may_be_full)
		r = ashlar_co_job_stop(g->p, j->info.id, &e);
	if (r < 0 && r != -EINVAL && r != -ENOENT && !g->may_fail) /* (it has ended meanwhile) */
		rig_fail(g, "job: %s (%d)", e.text, r);
	return true;
}

void rig_co_finish_moves(struct rig *g)
{
	uint64_t end = world_now_ns(g->w) + MOVES_LIMIT_NS;
	bool any = true;
	unsigned i;

	while (any && !g->failed) {
		for (i = 0, any = false; i <= LABEL_DISKS_MAX && !g->failed; i++)
			any |= co_finish_move(g, i, end);
		co_sleep_ns(100 * NS_PER_MS);
	}
}

uint64_t rig_co_scrub(struct rig *g, bool repair, uint64_t problems)
{
	struct ashlar_job_info j = { 0 };
	struct err e = { 0 };
	uint64_t id;
	int r = ashlar_co_scrub_start(g->p, repair, &id, &e);

	if (r == 0)
		r = ashlar_co_job_wait(g->p, id, 3600 * NS_PER_SEC, &j, &e);
	if (r < 0)
		rig_fail(g, "scrub: %s (%d)", e.text, r);
	else if (j.state != ASHLAR_JOB_DONE)
		rig_fail(g, "the scrub is %s: %s", ashlar_job_state_name(j.state), j.result);
	else if (problems != UINT64_MAX && j.problems != problems)
		rig_fail(g, "the scrub found %" PRIu64 " problems, there are %" PRIu64 ": %s", j.problems, problems, j.result);
	return j.problems;
}

/* ---- how much more may be lost ---- */

uint32_t rig_away(const struct rig *g)
{
	uint32_t mask = 0;
	unsigned i;

	for (i = 0; i < g->n_disks; i++) {
		int at = rig_member(g, i);

		if (at >= 0 && (g->p->disks[at].state != PDISK_ONLINE || g->p->disks[at].entering))
			mask |= 1U << i;
	}
	return mask;
}

int rig_member(const struct rig *g, unsigned disk)
{
	unsigned i;

	for (i = 0; i < g->p->n_disks; i++)
		if (g->p->disks[i].state != PDISK_FREE && !g->p->disks[i].joining && !strcmp(g->p->label->disks[i].path, rig_paths[disk]))
			return (int)i;
	return -1;
}

uint32_t rig_members(const struct rig *g)
{
	uint32_t mask = 0;
	unsigned i;

	for (i = 0; i < g->n_disks; i++)
		if (rig_member(g, i) >= 0)
			mask |= 1U << i;
	return mask;
}

unsigned rig_disk_of(const struct rig *g, unsigned index)
{
	unsigned i;

	for (i = 0; i < g->n_disks; i++)
		if (rig_member(g, i) == (int)index)
			return i;
	return 0;
}

void rig_co_claim(struct rig *g, struct rig_claim *c)
{
	struct ashlar_pool_info i;

	do {
		c->away = rig_away(g);
		c->change_gen = g->p->change_gen;
		ashlar_co_pool_info(g->p, &i);
	} while (c->change_gen != g->p->change_gen || c->away != rig_away(g));
	c->redundancy = i.redundancy;
	c->valid = true;
	if (i.redundancy > i.redundancy_promised)
		rig_fail(g, "redundancy is %d, more than the %d that is promised", i.redundancy, i.redundancy_promised);
}

/* A group that is made where too few disks are left for its layout, now or without n_fewer of them, has columns on those that are away. */
static int new_groups_spare(const struct rig *g, const struct rig_claim *c, unsigned n_fewer, unsigned tolerates)
{
	unsigned away = (unsigned)__builtin_popcount(c->away), there = 0, i;
	struct raid_profile prof;

	for (i = 0; i < g->p->n_disks; i++)
		there += g->p->disks[i].state == PDISK_ONLINE && !g->p->disks[i].leaving;
	if (!g->layout || raid_profile_parse(g->layout, &prof) < 0 || there >= raid_profile_min_disks(prof) + n_fewer)
		return (int)tolerates;
	return (int)tolerates - (int)away;
}

static int spare(const struct rig *g, const struct rig_claim *c, uint32_t hurt, unsigned n_fewer, unsigned tolerates)
{
	if (g->p && c->valid && c->change_gen == g->p->change_gen && c->away == rig_away(g))
		return MIN(c->redundancy, new_groups_spare(g, c, n_fewer, tolerates)) - __builtin_popcount(hurt & ~c->away);
	return (int)tolerates - __builtin_popcount(hurt | (g->p ? rig_away(g) : 0));
}

int rig_spare(const struct rig *g, const struct rig_claim *c, uint32_t hurt, unsigned tolerates)
{
	return spare(g, c, hurt, 0, tolerates);
}

bool rig_may_hurt_one(const struct rig *g, const struct rig_claim *c, uint32_t hurt, unsigned tolerates)
{
	return spare(g, c, hurt, (unsigned)__builtin_popcount(hurt & ~c->away) + 1, tolerates) >= 1;
}

/* ---- where things lie ---- */

int rig_co_place(struct rig *g, const char *volume, uint64_t off_bytes, struct rig_place *out)
{
	struct thin_entry_disk *v = xmalloc(THIN_MAP_PER_LEAF * sizeof(*v));
	uint64_t cluster = off_bytes / g->cluster_bytes, addr;
	struct ashlar_volume_info info;
	struct pgroup *pg;
	struct thin_entry e = { 0 };
	unsigned c;
	int r = ashlar_co_volume_info(g->p, volume, &info, NULL);

	if (r == 0)
		r = thin_co_leaf(g->p->thin, info.id, cluster / THIN_MAP_PER_LEAF, false, v);
	if (r == 0)
		e = thin_entry_load(&v[cluster % THIN_MAP_PER_LEAF]);
	xfree(v);
	if (r == 0 && !(e.own && e.own_mask >> off_bytes % g->cluster_bytes / (g->cluster_bytes / 16) & 1))
		r = -ENOENT;
	if (r < 0)
		return r;
	addr = e.own * g->cluster_bytes + off_bytes % g->cluster_bytes;
	r = pool_co_pgroup_get(g->p, addr / g->group_bytes, &pg);
	if (r < 0)
		return r;
	out->desc = pg->desc;
	raid_place(&pg->desc, addr % g->group_bytes, MODEL_SECTOR, &out->at);
	for (c = 0; c < out->desc.n_cols; c++)
		out->desc.cols[c].disk = (uint16_t)rig_disk_of(g, out->desc.cols[c].disk);
	return 0;
}

/* ---- management ---- */

bool rig_is_unknown(struct rig *g, int r, const struct err *e, const char *what, const char *name)
{
	if (r == 0 || (r == -ERR_POOL_FULL && g->may_be_full) || (r == -EINVAL && g->degraded))
		return false;
	if (r == -EEXIST && g->q.n_disks)
		return false; /* an export name that a volume kept in the other pool */
	if (!g->may_fail)
		rig_fail(g, "%s %s: %s (%d)", what, name, e->text, r);
	return true;
}

int rig_co_vol_create(struct rig *g, const char *name, uint64_t size, const char *layout, uint64_t full_wait_ns)
{
	struct ashlar_volume_spec s = { .name = name, .size_bytes = size, .layout = layout, .full_wait_ns = full_wait_ns };
	struct model_vol *v = model_vol_create(g->model, name, size);
	struct err e = { 0 };
	int r;

	rig_note(g, "create %s, %" PRIu64 " bytes, %s", name, size, layout ? layout : "default");
	r = ashlar_co_volume_create(rig_pool_new(g), &s, &e);
	rig_note(g, "create %s: %d", name, r);
	if (!rig_is_unknown(g, r, &e, "create", name))
		model_vol_created(g->model, v, r == 0);
	return r;
}

/* It and its snapshots. */
static void model_each(struct rig *g, struct model_vol *v, void (*fn)(struct model *m, struct model_vol *v, bool ok), bool ok)
{
	unsigned i;

	for (i = 0; i < model_n_snaps(g->model); i++) {
		struct model_vol *s = model_snap(g->model, i);

		if (s->parent == v->index && s->state != MODEL_GONE)
			fn(g->model, s, ok);
	}
	fn(g->model, v, ok);
}

static void each_delete(struct model *m, struct model_vol *v, bool ok)
{
	(void)ok;
	model_vol_delete(m, v);
}

int rig_co_vol_delete(struct rig *g, struct model_vol *v)
{
	struct ashlar_pool *p;
	struct err e = { 0 };
	int r;

	if (v->n_busy)
		return 0;
	rig_note(g, "delete %s", v->name);
	model_each(g, v, each_delete, true);
	do {
		p = rig_pool(g, v);
		r = ashlar_co_volume_delete(p, v->name, true, true, false, NULL, &e);
	} while (rig_has_moved(g, v, p, r));
	rig_note(g, "delete %s: %d", v->name, r);
	if (!rig_is_unknown(g, r, &e, "delete", v->name))
		model_each(g, v, model_vol_deleted, r == 0);
	return r;
}

static uint64_t co_used_bytes(const struct rig *g)
{
	struct ashlar_pool_info info;
	struct ashlar_pool *p;
	uint64_t sum = 0;
	unsigned i;

	for (i = 0; (p = rig_pool_at(g, i)); i++) {
		ashlar_co_pool_info(p, &info);
		sum += info.used_bytes;
	}
	return sum;
}

void rig_co_empty(struct rig *g, uint64_t max_ns)
{
	uint64_t end = world_now_ns(g->w) + max_ns, used;
	unsigned i;

	for (i = 0; i < model_n_vols(g->model) && !g->failed; i++)
		if (model_vol(g->model, i)->state == MODEL_LIVE)
			(void)!rig_co_vol_delete(g, model_vol(g->model, i));
	while (!g->failed && (used = co_used_bytes(g))) {
		if (world_now_ns(g->w) > end)
			rig_fail(g, "everything has been deleted, and %" PRIu64 " bytes are in use", used);
		co_sleep_ns(100 * NS_PER_MS);
	}
}

int rig_co_vol_rename(struct rig *g, struct model_vol *v, const char *name)
{
	struct ashlar_pool *p;
	struct err e = { 0 };
	int r;

	if (v->n_busy)
		return 0;
	rig_note(g, "rename %s to %s", v->name, name);
	model_vol_rename(v, name);
	do {
		p = rig_pool(g, v);
		r = ashlar_co_volume_rename(p, v->name, name, &e);
	} while (rig_has_moved(g, v, p, r));
	rig_note(g, "rename %s to %s: %d", v->name, name, r);
	if (!rig_is_unknown(g, r, &e, "rename", v->name))
		model_vol_renamed(v, r == 0);
	return r;
}

int rig_co_vol_rule(struct rig *g, struct model_vol *v, uint32_t rule)
{
	char text[32];
	struct ashlar_export_change c = { .read_only = -1, .max_clients = -1, .access = text };
	struct ashlar_pool *p;
	struct err e = { 0 };
	int r;

	if (v->n_busy || v->ruling)
		return 0;
	rule_text(rule, text, sizeof(text));
	rig_note(g, "only %s for %s", rule ? text : "all", v->name);
	model_vol_rule(v, rule);
	v->n_busy++;
	do {
		p = rig_pool(g, v);
		r = ashlar_co_export_set(p, v->name, &c, &e);
	} while (rig_has_moved(g, v, p, r));
	rig_note(g, "only %s for %s: %d", rule ? text : "all", v->name, r);
	v->n_busy--;
	if (!rig_is_unknown(g, r, &e, "export set", v->name))
		model_vol_ruled(v, r == 0);
	return r;
}

int rig_co_vol_resize(struct rig *g, struct model_vol *v, uint64_t size)
{
	struct ashlar_pool *p;
	struct err e = { 0 };
	int r;

	if (v->n_busy || rig_is_adopted(g, v))
		return 0;
	rig_note(g, "resize %s from %" PRIu64 " to %" PRIu64, v->name, v->size_bytes, size);
	model_vol_resize(g->model, v, size);
	do {
		p = rig_pool(g, v);
		r = ashlar_co_volume_resize(p, v->name, size, true, &e);
	} while (rig_has_moved(g, v, p, r));
	rig_note(g, "resize %s: %d", v->name, r);
	if (!rig_is_unknown(g, r, &e, "resize", v->name))
		model_vol_resized(g->model, v, r == 0);
	return r;
}
