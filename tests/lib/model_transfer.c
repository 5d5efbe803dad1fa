/*
 * model_transfer.c: what a snapshot holds, to be received elsewhere: see model.h.
 */
#include "tests/lib/model_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct model_image {
	uint64_t size_bytes, n_sectors;
	uint32_t content;
	model_val vals[]; /* 0: zeros */
};

static bool is_zeros(const struct model *m, model_val val)
{
	return m->ops[model_val_op(val)].kind == MODEL_ZERO;
}

static bool has_value(const struct model *m, const struct model_cand *c, model_val val)
{
	return is_zeros(m, c->val) ? is_zeros(m, val) : c->val == val;
}

struct model_image *model_image_take(struct model *m, const struct model_vol *snap)
{
	uint64_t n = snap->size_bytes / MODEL_SECTOR, i;
	struct model_image *x = model_grow(NULL, sizeof(*x) + n * sizeof(x->vals[0]));
	unsigned k;

	CHECK(snap->is_snap && n <= snap->n_sectors);
	x->size_bytes = snap->size_bytes;
	x->n_sectors = n;
	x->content = snap->content;
	for (i = 0; i < n; i++) {
		struct model_sector *s = &snap->sectors[i];

		x->vals[i] = is_zeros(m, model_cands(s)[0].val) ? 0 : model_cands(s)[0].val;
		for (k = 1; k < s->n; k++) {
			if (has_value(m, &model_cands(s)[k], x->vals[i]))
				continue;
			free(x);
			return NULL;
		}
	}
	return x;
}

void model_image_free(struct model_image *x)
{
	free(x);
}

uint32_t model_image_content(const struct model_image *x)
{
	return x->content;
}

bool model_image_may_be(struct model *m, const struct model_vol *v, const struct model_image *x)
{
	uint64_t i;
	unsigned k;

	for (i = 0; i < x->n_sectors; i++) {
		struct model_sector *s;

		if (i >= v->n_sectors)
			return false;
		s = &v->sectors[i];
		for (k = 0; k < s->n; k++)
			if (model_cands(s)[k].hidden == NEVER && has_value(m, &model_cands(s)[k], x->vals[i]))
				break;
		if (k == s->n)
			return false;
	}
	return v->size_bytes == x->size_bytes;
}

bool model_vol_has(struct model *m, const struct model_vol *v, uint32_t content)
{
	unsigned i;

	for (i = 0; i < m->n_snaps; i++)
		if (m->snaps[i]->parent == v->index && m->snaps[i]->state == MODEL_LIVE && m->snaps[i]->content == content)
			return true;
	return false;
}

unsigned model_receive(struct model *m, struct model_vol *v, const char *name, const char *snap_name, const struct model_image *x)
{
	unsigned set = model_snap_set(m);
	struct model_vol *s = model_snap_new(m, set, v ? v->index : m->n_vols, snap_name, x->size_bytes);
	uint64_t i;

	m->sets[set].until = m->now; /* what is written from now on is not in it */
	s->content = x->content;
	for (i = 0; i < x->n_sectors; i++) {
		s->sectors[i].n = 0;
		model_cand_add(&s->sectors[i], model_val_op(x->vals[i]), x->vals[i]);
	}
	m->sets[set].is_new = v == NULL;
	if (v)
		model_vol_rollback(m, v, s);
	else
		v = model_vol_clone(m, s, name);
	CHECK(s->parent == v->index);
	m->sets[set].vol = v->index + 1;
	return set;
}

void model_received(struct model *m, unsigned set, bool ok)
{
	struct model_vol *v = m->vols[m->sets[set].vol - 1];

	if (m->sets[set].is_new)
		model_vol_cloned(m, v, ok);
	else
		model_vol_rolled_back(m, v, ok);
	model_snap_taken(m, set, ok);
}

bool model_receive_settle(struct model *m, const struct model_set *set)
{
	struct model_vol *v = m->vols[set->vol - 1];
	uint8_t fate = set->is_there ? MODEL_FATE_YES : MODEL_FATE_NO;

	if (set->is_new && (v->state == MODEL_LIVE) != set->is_there) {
		fprintf(stderr, "model: volume %s has been received without its snapshot\n", v->name);
		return false;
	}
	if (set->is_new || !v->rolling)
		return true;
	if (v->rolled != MODEL_FATE_UNKNOWN && v->rolled != fate) {
		fprintf(stderr, "model: of what was received for volume %s, snapshot and contents, one is there and one is not\n", v->name);
		return false;
	}
	v->rolled = fate;
	return true;
}
