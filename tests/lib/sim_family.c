/*
 * sim_family.c: snapshots, clones and rollbacks of the rig: see sim_rig.h.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tests/lib/sim_rig.h"

const char *rig_point_name(const struct rig *g, const struct model_vol *v, char buf[RIG_POINT_NAME])
{
	if (v->is_snap)
		snprintf(buf, RIG_POINT_NAME, "%s@%s", model_vol(g->model, v->parent)->name, v->name);
	else
		snprintf(buf, RIG_POINT_NAME, "%s", v->name);
	return buf;
}

static struct model_vol *volume_of(const struct rig *g, const struct model_vol *v)
{
	return model_vol(g->model, v->is_snap ? v->parent : v->index);
}

static bool is_settled(const struct model_vol *v)
{
	return v->state == MODEL_LIVE && !v->new_name[0] && !v->new_size_bytes;
}

bool rig_is_free(const struct rig *g, const struct model_vol *v)
{
	const struct model_vol *of = volume_of(g, v);

	return is_settled(v) && is_settled(of) && !of->n_busy && !rig_is_adopted(g, of);
}

/* ---- after a crash ---- */

static void settle_one(struct rig *g, const struct ashlar_snapshot_info *s, bool *seen)
{
	const char *at = strchr(s->name, '@');
	struct model_vol *v = model_vol_find(g->model, s->volume), *m;

	m = v && at ? model_snap_find(g->model, v, at + 1) : NULL;
	if (!m || seen[m->index]) {
		rig_fail(g, "snapshot %s should not be there", s->name);
		return;
	}
	seen[m->index] = true;
	if (!model_vol_settle(g->model, m, at + 1, s->size_bytes))
		rig_fail(g, "snapshot %s is not as it should be", s->name);
}

void rig_co_settle_snaps(struct rig *g)
{
	bool *seen = xcalloc(model_n_snaps(g->model) + 1, sizeof(*seen));
	struct ashlar_snapshot_info *s = NULL;
	char name[RIG_POINT_NAME];
	struct ashlar_pool *p;
	struct err e = { 0 };
	size_t n = 0, k;
	unsigned i;
	int r;

	for (i = 0; (p = rig_pool_at(g, i)) && !g->failed; i++) {
		r = ashlar_co_snapshot_list(p, NULL, &s, &n, &e);
		if (r < 0)
			rig_fail(g, "snapshot list: %s (%d)", e.text, r);
		for (k = 0; k < n && !g->failed; k++)
			settle_one(g, &s[k], seen);
		if (r == 0)
			xfree(s);
	}
	for (i = 0; i < model_n_snaps(g->model) && !g->failed; i++) {
		struct model_vol *m = model_snap(g->model, i);

		if (!seen[i] && m->state != MODEL_GONE && !model_vol_settle(g->model, m, NULL, 0))
			rig_fail(g, "snapshot %s is lost", rig_point_name(g, m, name));
	}
	if (!g->failed && !model_sets_settle(g->model))
		rig_fail(g, "snapshots of one call are there in part");
	xfree(seen);
}

/* ---- commands ---- */

/* Commands on several are of one pool. */
static bool are_together(const struct rig *g, struct model_vol *const *v, unsigned n)
{
	unsigned i;

	for (i = 1; i < n; i++)
		if (rig_pool(g, v[i]) != rig_pool(g, v[0]))
			return false;
	return true;
}

/* None of what was to be done has been: one of them has gone to another pool while the command waited. */
static bool have_parted(const struct rig *g, struct model_vol *const *v, unsigned n, const struct ashlar_pool *p, int r)
{
	unsigned i;

	for (i = 0; i < n; i++)
		if (rig_has_moved(g, v[i], p, r))
			return true;
	return false;
}

static void name_make(struct model_vol *const *v, unsigned i, const char *name, char out[MODEL_NAME_MAX])
{
	unsigned again = 0, k;

	for (k = 0; k < i; k++)
		again += v[k] == v[i];
	if (again)
		snprintf(out, MODEL_NAME_MAX, "%.20s.%u", name, again);
	else
		snprintf(out, MODEL_NAME_MAX, "%.20s", name);
}

int rig_co_snap_create(struct rig *g, struct model_vol *const *v, unsigned n, const char *name)
{
	char names[RIG_SNAPS_MAX][RIG_POINT_NAME], snap[MODEL_NAME_MAX];
	const char *list[RIG_SNAPS_MAX] = { NULL };
	struct ashlar_pool *p = rig_pool(g, v[0]);
	struct err e = { 0 };
	unsigned set, i;
	bool parted;
	int r;

	CHECK(n <= RIG_SNAPS_MAX);
	if (!are_together(g, v, n))
		return 0;
	for (i = 0; i < n; i++) {
		name_make(v, i, name, snap);
		if (!rig_is_free(g, v[i]) || model_snap_find(g->model, v[i], snap))
			return 0;
	}
	set = model_snap_set(g->model);
	for (i = 0; i < n; i++) {
		v[i]->n_busy++;
		name_make(v, i, name, snap);
		model_snap_take(g->model, set, v[i], snap);
		snprintf(names[i], sizeof(names[i]), "%s@%s", v[i]->name, snap);
		list[i] = names[i];
		rig_note(g, "snapshot %s", names[i]);
	}
	r = ashlar_co_snapshot_create(p, list, n, &e);
	rig_note(g, "snapshot %s: %d", names[0], r);
	parted = have_parted(g, v, n, p, r);
	for (i = 0; i < n; i++)
		v[i]->n_busy--;
	if (parted || !rig_is_unknown(g, r, &e, "snapshot", names[0]))
		model_snap_taken(g->model, set, r == 0);
	return r;
}

int rig_co_snap_delete(struct rig *g, struct model_vol *const *snaps, unsigned n)
{
	char names[RIG_SNAPS_MAX][RIG_POINT_NAME];
	const char *list[RIG_SNAPS_MAX] = { NULL };
	struct ashlar_pool *p = rig_pool(g, snaps[0]);
	struct err e = { 0 };
	uint64_t freed;
	unsigned i;
	bool unknown;
	int r;

	CHECK(n <= RIG_SNAPS_MAX);
	if (!are_together(g, snaps, n))
		return 0;
	for (i = 0; i < n; i++)
		if (!rig_is_free(g, snaps[i]))
			return 0;
	for (i = 0; i < n; i++) {
		volume_of(g, snaps[i])->n_busy++;
		model_vol_delete(g->model, snaps[i]);
		list[i] = rig_point_name(g, snaps[i], names[i]);
		rig_note(g, "delete %s", list[i]);
	}
	r = ashlar_co_snapshot_delete(p, list, n, true, false, n % 2 ? NULL : &freed, &e);
	rig_note(g, "delete %s: %d", list[0], r);
	unknown = !have_parted(g, snaps, n, p, r) && rig_is_unknown(g, r, &e, "delete", list[0]);
	for (i = 0; i < n; i++) {
		volume_of(g, snaps[i])->n_busy--;
		if (!unknown)
			model_vol_deleted(g->model, snaps[i], r == 0);
	}
	return r;
}

int rig_co_snap_rename(struct rig *g, struct model_vol *snap, const char *name)
{
	struct model_vol *v = volume_of(g, snap);
	struct ashlar_pool *p;
	char from[RIG_POINT_NAME];
	struct err e = { 0 };
	int r;

	if (!rig_is_free(g, snap) || model_snap_find(g->model, v, name))
		return 0;
	rig_note(g, "rename %s to %s", rig_point_name(g, snap, from), name);
	v->n_busy++;
	model_vol_rename(snap, name);
	do {
		p = rig_pool(g, v);
		r = ashlar_co_snapshot_rename(p, from, name, &e);
	} while (rig_has_moved(g, v, p, r));
	rig_note(g, "rename %s to %s: %d", from, name, r);
	v->n_busy--;
	if (!rig_is_unknown(g, r, &e, "rename", from))
		model_vol_renamed(snap, r == 0);
	return r;
}

int rig_co_rollback(struct rig *g, struct model_vol *snap)
{
	struct model_vol *v = volume_of(g, snap);
	char name[RIG_POINT_NAME];
	struct ashlar_pool *p;
	struct err e = { 0 };
	int r;

	if (!rig_is_free(g, snap))
		return 0;
	rig_note(g, "rollback %s, from %" PRIu64 " to %" PRIu64 " bytes", rig_point_name(g, snap, name), v->size_bytes, snap->size_bytes);
	v->n_busy++;
	model_vol_rollback(g->model, v, snap);
	do {
		p = rig_pool(g, v);
		r = ashlar_co_snapshot_rollback(p, name, true, false, NULL, &e);
	} while (rig_has_moved(g, v, p, r));
	rig_note(g, "rollback %s: %d", name, r);
	v->n_busy--;
	if (!rig_is_unknown(g, r, &e, "rollback", name))
		model_vol_rolled_back(g->model, v, r == 0);
	return r;
}

int rig_co_clone(struct rig *g, struct model_vol *snap, const char *name)
{
	struct model_vol *of = volume_of(g, snap), *v;
	char from[RIG_POINT_NAME];
	struct ashlar_pool *p;
	struct err e = { 0 };
	int r;

	if (!rig_is_free(g, snap) || model_vol_find(g->model, name))
		return 0;
	rig_note(g, "clone %s to %s", rig_point_name(g, snap, from), name);
	of->n_busy++;
	v = model_vol_clone(g->model, snap, name);
	do {
		p = rig_pool(g, of);
		r = ashlar_co_clone(p, from, name, &e);
	} while (rig_has_moved(g, of, p, r));
	rig_note(g, "clone %s to %s: %d", from, name, r);
	of->n_busy--;
	if (!rig_is_unknown(g, r, &e, "clone", from))
		model_vol_cloned(g->model, v, r == 0);
	return r;
}
