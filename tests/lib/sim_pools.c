/*
 * sim_pools.c: the second pool of the rig: see sim_rig.h.
 */
#include <stdio.h>
#include <string.h>

#include "engine/base/units.h"
#include "engine/pool/move_family.h"
#include "tests/lib/sim_rig.h"

#define ARRIVES_NS (60 * NS_PER_SEC)

const char *const rig_other_paths[RIG_OTHER_MAX] = { "e0", "e1", "e2", "e3" };

void rig_other_add(struct rig *g, const char *layout, unsigned n_disks, uint64_t size_bytes, uint32_t cluster_bytes)
{
	struct sim_disk_conf c = { .size_bytes = size_bytes, .block_bytes = g->block_bytes };
	struct raid_profile prof;
	unsigned i;
	int r = raid_profile_parse(layout, &prof);

	CHECK(r == 0 && n_disks <= RIG_OTHER_MAX && n_disks >= raid_profile_min_disks(prof));
	g->q = (struct rig_other){ .n_disks = n_disks, .layout = layout, .cluster_bytes = cluster_bytes, .profile = prof };
	for (i = 0; i < n_disks; i++) {
		unsigned at = sim_disks_add(g->disks, rig_other_paths[i], &c);

		if (!i)
			g->q.first = at;
		CHECK(at == g->q.first + i);
	}
}

int rig_co_other_create(struct rig *g)
{
	struct ashlar_pool_spec s = { .name = "q", .layout = g->q.layout, .paths = rig_other_paths, .n_paths = g->q.n_disks,
				      .cluster_bytes = g->q.cluster_bytes, .group_bytes = g->group_bytes };
	struct err e = { 0 };
	int r = ashlar_co_pool_create(g->a, &s, &e);

	if (r == 0 && g->settings.timeout_ns)
		r = ashlar_co_pool_open(g->a, "q", rig_other_paths, g->q.n_disks, 0, &g->q.p, &e);
	if (r == 0 && g->q.p) {
		r = ashlar_co_pool_set(g->q.p, &g->settings, &e);
		ashlar_co_pool_close(g->q.p, NULL);
		g->q.p = NULL;
	}
	if (r < 0)
		rig_fail(g, "pool create q: %s (%d)", e.text, r);
	return r;
}

struct ashlar_pool *rig_pool_at(const struct rig *g, unsigned i)
{
	return i == 0 ? g->p : i == 1 ? g->q.p : NULL;
}

/* ---- where a volume is ---- */

static bool is_called(const struct thin_vol *v, const struct model_vol *of)
{
	return v->kind == THIN_KIND_VOLUME && (!strcmp(v->name, of->name) || (of->new_name[0] && !strcmp(v->name, of->new_name)));
}

/* For a moment it is LIVE nowhere. */
static const struct thin_vol *volume_find(const struct rig *g, const struct model_vol *of, struct ashlar_pool **p)
{
	static const uint8_t states[] = { THIN_VOLUME_LIVE, THIN_VOLUME_HANDED };
	const struct thin_vol *v;
	unsigned i, k;

	for (k = 0; k < ARRAY_LEN(states); k++)
		for (i = 0; (*p = rig_pool_at(g, i)); i++)
			list_for_each (v, thin_vols((*p)->thin), link)
				if (v->state == states[k] && is_called(v, of))
					return v;
	*p = g->p;
	return NULL;
}

static const struct model_vol *volume_of(const struct rig *g, const struct model_vol *v)
{
	return v->is_snap ? model_vol(g->model, v->parent) : v;
}

struct ashlar_pool *rig_pool(const struct rig *g, const struct model_vol *v)
{
	struct ashlar_pool *p;

	(void)volume_find(g, volume_of(g, v), &p);
	return p;
}

struct ashlar_pool *rig_pool_new(const struct rig *g)
{
	return g->q.p && g->make_there ? g->q.p : g->p;
}

bool rig_has_moved(const struct rig *g, const struct model_vol *v, const struct ashlar_pool *p, int r)
{
	return r == -ENOENT && rig_pool(g, v) != p;
}

bool rig_is_moving(const struct rig *g, const struct model_vol *v)
{
	struct ashlar_pool *p;
	const struct thin_vol *tv = volume_find(g, volume_of(g, v), &p);

	return tv && tv->move_flags & THIN_MOVE_WANTED;
}

/* LIVE, or HANDED with its volume. */
static const struct thin_vol *snap_find(struct ashlar_pool *p, const struct thin_vol *volume, const struct model_vol *of)
{
	const struct thin_vol *v;

	list_for_each (v, thin_vols(p->thin), link)
		if (v->kind == THIN_KIND_SNAPSHOT && v->state == volume->state && v->parent == volume->id && !strcmp(v->name, of->name))
			return v;
	return NULL;
}

const char *rig_export_name(const struct rig *g, const struct model_vol *v, char buf[RIG_EXPORT_NAME])
{
	struct ashlar_pool *p;
	const struct thin_vol *tv = volume_find(g, volume_of(g, v), &p);
	char point[RIG_POINT_NAME];

	if (tv && v->is_snap)
		tv = snap_find(p, tv, v);
	if (tv && tv->export_kind == THIN_EXPORT_NAMED)
		snprintf(buf, RIG_EXPORT_NAME, "%.*s", RIG_EXPORT_NAME - 1, tv->export_name);
	else
		snprintf(buf, RIG_EXPORT_NAME, "%s/%s", p->label->name, rig_point_name(g, v, point));
	return buf;
}

/* ---- going there ---- */

/* Refused: no room, names that are taken, and what `is_honest` says of moves at all. */
static bool is_refusal(const struct rig *g, const struct ashlar_move_spec *s, int r)
{
	return r == -EBUSY || r == -ERR_POOL_FULL || r == -EEXIST || (r == -EINVAL && (!s->layout || g->degraded)) || g->may_fail;
}

int rig_co_pass(struct rig *g, const struct model_vol *v, const char *layout, bool dry_run, struct ashlar_pool **from, uint64_t *job)
{
	struct ashlar_move_spec s = { .volume = v->name, .layout = layout, .dry_run = dry_run };
	struct ashlar_move_info i;
	char name[MODEL_NAME_MAX];
	struct err e = { 0 };
	int r;

	memcpy(name, v->name, sizeof(name));
	s.volume = name;
	*from = rig_pool(g, v);
	s.to = *from == g->p ? g->q.p : g->p;
	rig_note(g, "move %s to pool %s%s%s", name, s.to->label->name, layout ? ", " : "", layout ? layout : "");
	r = ashlar_co_volume_move(*from, &s, &i, &e);
	rig_note(g, "move %s to pool %s: %d %s", name, s.to->label->name, r, r < 0 ? e.text : "");
	*job = r < 0 ? 0 : i.job;
	if (r < 0 && !rig_has_moved(g, v, *from, r) && !is_refusal(g, &s, r) && !(r == -ENOENT && (v->state != MODEL_LIVE || strcmp(name, v->name) || v->new_name[0])))
		rig_fail(g, "move %s to pool %s: %s (%d)", name, s.to->label->name, e.text, r);
	return r;
}

static unsigned n_handed(const struct rig *g)
{
	struct ashlar_pool *p;
	struct thin_vol *v;
	unsigned n = 0, i;

	for (i = 0; (p = rig_pool_at(g, i)); i++)
		list_for_each (v, thin_vols(p->thin), link)
			n += v->state == THIN_VOLUME_HANDED;
	return n;
}

void rig_co_pools_settle(struct rig *g)
{
	uint64_t end = reactor_now_ns() + ARRIVES_NS;

	while (n_handed(g) && reactor_now_ns() < end && !g->may_fail)
		co_sleep_ns(10 * NS_PER_MS);
	if (n_handed(g) && !g->may_fail)
		rig_fail(g, "a volume has been handed over, both pools are open, and it is still there too");
}
