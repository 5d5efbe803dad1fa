/*
 * model_family.c: snapshots, clones, rollback: see model.h.
 */
#include "tests/lib/model_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

unsigned model_n_snaps(const struct model *m)
{
	return m->n_snaps;
}

struct model_vol *model_snap(struct model *m, unsigned i)
{
	return m->snaps[i];
}

struct model_vol *model_snap_find(struct model *m, const struct model_vol *volume, const char *name)
{
	unsigned i;

	for (i = 0; i < m->n_snaps; i++) {
		struct model_vol *s = m->snaps[i];

		if (s->parent == volume->index && s->state != MODEL_GONE && (!strcmp(s->name, name) || !strcmp(s->new_name, name)))
			return s;
	}
	return NULL;
}

unsigned model_snaps_of(struct model *m, const struct model_vol *volume)
{
	unsigned i, n = 0;

	for (i = 0; i < m->n_snaps; i++)
		n += m->snaps[i]->parent == volume->index && m->snaps[i]->state == MODEL_LIVE;
	return n;
}

/* ---- taking them ---- */

unsigned model_snap_set(struct model *m)
{
	if (m->n_sets == m->cap_sets) {
		m->cap_sets = MAX(16, 2 * m->cap_sets);
		m->sets = model_grow(m->sets, m->cap_sets * sizeof(*m->sets));
	}
	m->sets[m->n_sets] = (struct model_set){ .after = ++m->now, .until = NEVER, .epoch = m->epoch };
	return m->n_sets++;
}

/* What a read that begins now may return, as written by operation `op`; 0: by whoever did. */
static void sector_take(struct model_sector *from, struct model_sector *to, uint32_t op)
{
	unsigned i, k;

	for (i = 0; i < from->n; i++) {
		struct model_cand c = model_cands(from)[i];

		if (c.hidden != NEVER)
			continue;
		for (k = 0; op && k < to->n && !(model_cands(to)[k].op == op && model_cands(to)[k].val == c.val); k++)
			;
		if (!op || k == to->n)
			model_cand_add(to, op ? op : c.op, c.val);
	}
}

struct model_vol *model_snap_new(struct model *m, unsigned set, unsigned parent, const char *name, uint64_t size_bytes)
{
	struct model_vol *s = model_grow(NULL, sizeof(*s));

	CHECK(m->n_snaps < SNAPS_MAX);
	memset(s, 0, sizeof(*s));
	s->is_snap = true;
	s->index = m->n_snaps;
	s->parent = parent;
	s->set = set;
	s->content = s->index + 1;
	s->state = MODEL_CREATING;
	snprintf(s->name, sizeof(s->name), "%s", name);
	s->size_bytes = size_bytes;
	model_vol_room(s, size_bytes);
	m->snaps[m->n_snaps++] = s;
	m->n_taking++;
	return s;
}

struct model_vol *model_snap_take(struct model *m, unsigned set, struct model_vol *volume, const char *name)
{
	struct model_vol *s = model_snap_new(m, set, volume->index, name, volume->size_bytes);
	uint64_t i;

	for (i = 0; i < s->n_sectors; i++) {
		s->sectors[i].n = 0;
		sector_take(&volume->sectors[i], &s->sectors[i], 0);
	}
	return s;
}

void model_snaps_begin(struct model *m, const struct model_vol *v, uint32_t op, uint64_t first, uint64_t end)
{
	unsigned k;
	uint64_t i;

	for (k = 0; k < m->n_snaps; k++) {
		struct model_vol *s = m->snaps[k];

		if (s->state != MODEL_CREATING || s->parent != v->index || m->sets[s->set].until != NEVER)
			continue;
		for (i = first; i < MIN(end, s->n_sectors); i++)
			model_cand_add(&s->sectors[i], op, m->ops[op].kind == MODEL_ZERO ? op : model_val_of(op, i));
	}
}

void model_snap_taken(struct model *m, unsigned set, bool ok)
{
	unsigned i;

	m->sets[set].until = ++m->now;
	for (i = 0; i < m->n_snaps; i++) {
		if (m->snaps[i]->set != set || m->snaps[i]->state != MODEL_CREATING)
			continue;
		m->n_taking--;
		model_vol_created(m, m->snaps[i], ok);
	}
}

void model_snaps_crash(struct model *m)
{
	unsigned i;

	for (i = 0; i < m->n_sets; i++)
		m->sets[i].until = MIN(m->sets[i].until, m->now);
	m->n_taking = 0;
}

bool model_sets_settle(struct model *m)
{
	bool fine = true;
	unsigned i;

	for (i = 0; i < m->n_sets; i++) {
		if (m->sets[i].is_there && m->sets[i].is_absent)
			fine = false;
		if (m->sets[i].vol && (m->sets[i].is_there || m->sets[i].is_absent) && !model_receive_settle(m, &m->sets[i]))
			return false;
		m->sets[i].is_there = m->sets[i].is_absent = false;
	}
	if (!fine)
		fprintf(stderr, "model: of snapshots taken at once some are there and some are not\n");
	return fine;
}

/* ---- what is found in them ---- */

/* The instant that the snapshots of the set show, as told by a sector that has one of the first k candidates, and none of the
 * others. */
static bool set_narrow(struct model *m, struct model_set *set, const struct model_cand *c, unsigned k, unsigned n, char *why,
		       size_t len)
{
	uint32_t began = NEVER, ended = 0, op = 0;
	unsigned i;

	for (i = 0; i < k; i++) {
		const struct model_op *o = &m->ops[c[i].op];

		ended = MAX(ended, o->ended);
		if (o->began < began) {
			began = o->began;
			op = c[i].op;
		}
	}
	if (began > set->after) {
		set->after = began;
		set->op_in = op;
	}
	for (i = k; i < n; i++) {
		const struct model_op *o = &m->ops[c[i].op];

		if (!o->durable && o->epoch != set->epoch)
			continue; /* a crash before may have lost it */
		if (o->strong && o->began > ended && o->ended < set->until) {
			set->until = o->ended;
			set->op_out = c[i].op;
		}
	}
	if (set->after <= set->until)
		return true;
	snprintf(why, len, "something that is of no instant: op %u, begun at %u, is in a snapshot of this call, and op %u, ended at %u, "
		 "is not", set->op_in, set->after, set->op_out, set->until);
	return false;
}

bool model_snap_pin(struct model *m, struct model_vol *snap, uint64_t sector, int kind, model_val val, char *why, size_t len)
{
	struct model_sector *s = &snap->sectors[sector];
	struct model_cand *c = model_cands(s), x;
	unsigned i, k = 0, n = s->n;
	uint32_t op;

	for (i = 0; i < n; i++) {
		if (!model_cand_fits(m, &c[i], kind, val))
			continue;
		x = c[k];
		c[k++] = c[i];
		c[i] = x;
	}
	if (!k) {
		snprintf(why, len, "%s %u, and the snapshot %s has another value", kind ? "op" : "zeros", model_val_op(val), snap->name);
		return false;
	}
	if (k == n)
		return true;
	s->n = (uint16_t)k;
	op = k == 1 ? c->op : 0;
	return set_narrow(m, &m->sets[snap->set], c, k, n, why, len) && model_origin_pin(m, op, sector, kind, val, why, len);
}

bool model_origin_pin(struct model *m, uint32_t op, uint64_t sector, int kind, model_val val, char *why, size_t len)
{
	struct model_vol *snap;

	if (m->ops[op].kind != MODEL_COPY)
		return true;
	snap = m->snaps[m->ops[op].snap];
	if (snap->state == MODEL_GONE || sector >= snap->n_sectors)
		return true;
	return model_snap_pin(m, snap, sector, kind, val, why, len);
}

/* ---- from them ---- */

static uint32_t copy_begin(struct model *m, struct model_vol *v, struct model_vol *snap)
{
	uint32_t op = model_op_new(m, MODEL_COPY);

	m->ops[op].vol = (uint16_t)v->index;
	m->ops[op].snap = (uint16_t)snap->index;
	return op;
}

static void copy_end(struct model *m, uint32_t op, bool ok)
{
	struct model_op *o = &m->ops[op];

	o->ended = ++m->now;
	o->strong = o->durable = ok;
}

struct model_vol *model_vol_clone(struct model *m, struct model_vol *snap, const char *name)
{
	struct model_vol *v = model_vol_create(m, name, snap->size_bytes), *of = m->vols[snap->parent];
	uint32_t op = v->rollback_op = copy_begin(m, v, snap);
	uint64_t i;

	v->rule = of->rule; /* a snapshot has its volume's */
	v->new_rule = of->new_rule;
	v->ruling = of->ruling;
	for (i = 0; i < v->n_sectors; i++) {
		v->sectors[i].n = 0;
		sector_take(&snap->sectors[i], &v->sectors[i], op);
	}
	return v;
}

void model_vol_cloned(struct model *m, struct model_vol *v, bool ok)
{
	copy_end(m, v->rollback_op, ok);
	model_vol_created(m, v, ok);
}

void model_vol_rollback(struct model *m, struct model_vol *v, struct model_vol *snap)
{
	uint32_t op = v->rollback_op = copy_begin(m, v, snap);
	uint64_t i;

	v->rolling = true;
	v->n_changes++;
	v->new_size_bytes = snap->size_bytes != v->size_bytes ? snap->size_bytes : 0;
	model_vol_room(v, snap->size_bytes);
	for (i = 0; i < v->n_sectors; i++) {
		model_sector_prune(m, &v->sectors[i]);
		if (i < snap->n_sectors)
			sector_take(&snap->sectors[i], &v->sectors[i], op);
		else
			model_cand_add(&v->sectors[i], op, 0);
	}
}

/* It has not happened. */
static void sector_forget(struct model_sector *s, uint32_t op)
{
	unsigned i, k = 0;

	for (i = 0; i < s->n; i++)
		if (model_cands(s)[i].op != op)
			model_cands(s)[k++] = model_cands(s)[i];
	s->n = (uint16_t)k;
	CHECK(k > 0);
}

void model_vol_rolled_back(struct model *m, struct model_vol *v, bool ok)
{
	uint32_t op = v->rollback_op;
	uint64_t i, size = v->new_size_bytes ? v->new_size_bytes : v->size_bytes;

	copy_end(m, op, ok);
	v->rolling = false;
	v->new_size_bytes = 0;
	for (i = 0; i < v->n_sectors; i++) {
		if (!ok) {
			sector_forget(&v->sectors[i], op);
			continue;
		}
		model_hide_before(m, &v->sectors[i], m->ops[op].began, m->now);
		model_sector_prune(m, &v->sectors[i]);
	}
	if (ok)
		model_size_is(m, v, size, op);
}
