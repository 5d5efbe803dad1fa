/*
 * model_share.c: ranges that become what another range is: see model.h.
 *
 * What a read could return when it begins, and what is begun in the source until it has ended, are candidates. As long as it is under way
 * it counts as a read of its beginning: nothing that it may have found is dropped.
 */
#include "tests/lib/model_internal.h"

#include <stdio.h>

static void share_give(struct model *m, const struct model_share *x, uint64_t sector, model_val val)
{
	struct model_vol *to = m->vols[x->to];
	uint64_t at = x->to_first + (sector - x->from_first);
	struct model_sector *s = &to->sectors[at];
	unsigned i;

	for (i = 0; i < s->n; i++)
		if (model_cands(s)[i].op == x->op && model_cands(s)[i].val == val)
			return;
	model_cand_add(s, x->op, val);
	model_shares_begin(m, to, at, val); /* who gets it from there */
}

void model_shares_begin(struct model *m, const struct model_vol *v, uint64_t sector, model_val val)
{
	unsigned i;

	for (i = 0; i < m->n_shares; i++) {
		const struct model_share *x = &m->shares[i];

		if (x->from == v->index && sector >= x->from_first && sector < x->from_first + x->n)
			share_give(m, x, sector, val);
	}
}

uint32_t model_share(struct model *m, struct model_vol *from, uint64_t from_bytes, struct model_vol *to, uint64_t to_bytes, uint64_t len_bytes)
{
	struct model_share *x;
	uint32_t op = model_op_new(m, MODEL_SHARE);
	uint64_t i;
	unsigned k;

	CHECK(m->n_shares < SHARES_MAX);
	x = &m->shares[m->n_shares++];
	*x = (struct model_share){ .op = op, .since = model_read_begin(m), .from = from->index, .to = to->index,
				   .from_first = from_bytes / MODEL_SECTOR, .to_first = to_bytes / MODEL_SECTOR, .n = len_bytes / MODEL_SECTOR };
	CHECK(x->from_first + x->n <= from->n_sectors && x->to_first + x->n <= to->n_sectors);
	m->ops[op].vol = (uint16_t)to->index;
	for (i = 0; i < x->n; i++) {
		model_sector_prune(m, &to->sectors[x->to_first + i]);
		for (k = 0; k < from->sectors[x->from_first + i].n; k++) {
			struct model_cand c = model_cands(&from->sectors[x->from_first + i])[k];

			if (c.hidden == NEVER)
				share_give(m, x, x->from_first + i, c.val);
		}
	}
	return op;
}

void model_shared(struct model *m, uint32_t op, bool ok)
{
	struct model_share x;
	unsigned i;

	for (i = 0; i < m->n_shares && m->shares[i].op != op; i++)
		;
	CHECK(i < m->n_shares);
	x = m->shares[i];
	m->shares[i] = m->shares[--m->n_shares];
	model_read_end(m, x.since);
	model_end(m, m->vols[x.to], op, x.to_first * MODEL_SECTOR, x.n * MODEL_SECTOR, ok, false, false);
}
