#include "engine/io/sim_log.h"

#include <stdlib.h>
#include <string.h>

#define DEAD_MIN 64 /* entries of writes that left before the arrays are compacted */

void sim_log_init(struct sim_log *l, struct sim_pool *p)
{
	*l = (struct sim_log){ .pool = p, .next_id = 1 };
}

void sim_log_clear(struct sim_log *l)
{
	size_t i;

	for (i = 0; i < l->n_e; i++)
		sim_page_put(l->pool, l->e[i].page);
	l->n_w = l->n_e = l->n_dead = 0;
}

void sim_log_fini(struct sim_log *l)
{
	sim_log_clear(l);
	free(l->w);
	free(l->e);
	l->w = NULL;
	l->e = NULL;
	l->cap_w = l->cap_e = 0;
}

void sim_log_copy(struct sim_log *dst, const struct sim_log *src)
{
	size_t i;

	CHECK(dst->pool == src->pool && dst->n_w == 0 && dst->n_e == 0);
	dst->next_id = src->next_id;
	if (!src->n_w)
		return;
	if (dst->cap_w < src->n_w) {
		dst->w = sim_realloc(dst->w, src->n_w * sizeof(*dst->w));
		dst->cap_w = src->n_w;
	}
	memcpy(dst->w, src->w, src->n_w * sizeof(*dst->w));
	dst->n_w = src->n_w;
	if (dst->cap_e < src->n_e) {
		dst->e = sim_realloc(dst->e, src->n_e * sizeof(*dst->e));
		dst->cap_e = src->n_e;
	}
	for (i = 0; i < src->n_e; i++) {
		dst->e[i] = src->e[i];
		sim_page_get(dst->e[i].page);
	}
	dst->n_e = src->n_e;
	dst->n_dead = src->n_dead;
}

uint64_t sim_log_begin(struct sim_log *l, uint64_t submit_seq, bool applied)
{
	if (l->n_w == l->cap_w) {
		l->cap_w = MAX(l->cap_w * 2, (size_t)32);
		l->w = sim_realloc(l->w, l->cap_w * sizeof(*l->w));
	}
	l->w[l->n_w++] = (struct sim_log_write){
		.id = l->next_id, .submit_seq = submit_seq, .lo = UINT64_MAX, .first = l->n_e, .applied = applied,
	};
	return l->next_id++;
}

void sim_log_add(struct sim_log *l, uint64_t idx, struct sim_page *pg, unsigned mask)
{
	struct sim_log_write *w = &l->w[l->n_w - 1];

	if (l->n_e == l->cap_e) {
		l->cap_e = MAX(l->cap_e * 2, (size_t)64);
		l->e = sim_realloc(l->e, l->cap_e * sizeof(*l->e));
	}
	l->e[l->n_e++] = (struct sim_log_ent){ .idx = idx, .page = pg, .mask = mask };
	w->n++;
	w->lo = MIN(w->lo, idx);
	w->hi = MAX(w->hi, idx);
}

/* Position of the first write with an id >= id. */
static size_t write_pos(const struct sim_log *l, uint64_t id)
{
	size_t lo = 0, hi = l->n_w, mid;

	while (lo < hi) {
		mid = lo + (hi - lo) / 2;
		if (l->w[mid].id < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static struct sim_log_write *write_find(const struct sim_log *l, uint64_t id)
{
	size_t i = write_pos(l, id);

	return i < l->n_w && l->w[i].id == id ? &l->w[i] : NULL;
}

void sim_log_done(struct sim_log *l, uint64_t id, uint64_t done_seq)
{
	struct sim_log_write *w = write_find(l, id);

	if (w)
		w->done_seq = done_seq;
}

/* The write leaves: its pages go, its place stays until the arrays are compacted. */
static void write_drop(struct sim_log *l, struct sim_log_write *w)
{
	size_t i;

	for (i = w->first; i < w->first + w->n; i++) {
		sim_page_put(l->pool, l->e[i].page);
		l->e[i].page = NULL;
		l->e[i].mask = 0;
	}
	l->n_dead += w->n;
	w->n = 0;
	w->lo = UINT64_MAX;
	w->hi = 0;
}

/* Removes writes without entries, in order, and the entries that belong to nobody. */
static void log_compact(struct sim_log *l)
{
	size_t i, k, n_w = 0, n_e = 0;
	struct sim_log_write w;

	for (i = 0; i < l->n_w; i++) {
		w = l->w[i];
		if (w.n == 0)
			continue;
		for (k = 0; k < w.n; k++)
			l->e[n_e + k] = l->e[w.first + k];
		w.first = n_e;
		n_e += w.n;
		l->w[n_w++] = w;
	}
	l->n_w = n_w;
	l->n_e = n_e;
	l->n_dead = 0;
}

static void punch_before(struct sim_log *l, size_t end, uint64_t idx, unsigned mask)
{
	struct sim_log_write *w;
	size_t i, k;

	for (i = 0; i < end; i++) {
		w = &l->w[i];
		if (idx < w->lo || idx > w->hi)
			continue;
		for (k = w->first; k < w->first + w->n; k++)
			if (l->e[k].idx == idx)
				l->e[k].mask &= ~mask;
	}
}

/* Moves the entries of write number i to the durable image; the older ones in [from, i) lose the same granules. */
static void write_commit(struct sim_log *l, struct sim_tree *durable, size_t i, bool older)
{
	struct sim_log_write *w = &l->w[i];
	size_t k;

	for (k = w->first; k < w->first + w->n; k++) {
		sim_tree_merge(durable, l->e[k].idx, l->e[k].page, l->e[k].mask);
		if (older && l->e[k].mask)
			punch_before(l, i, l->e[k].idx, l->e[k].mask);
	}
	write_drop(l, w);
}

void sim_log_commit_one(struct sim_log *l, struct sim_tree *durable, uint64_t id)
{
	size_t i = write_pos(l, id);

	if (i == l->n_w || l->w[i].id != id)
		return;
	write_commit(l, durable, i, true);
	if (l->n_dead >= DEAD_MIN && l->n_dead * 2 >= l->n_e)
		log_compact(l);
}

void sim_log_commit_done(struct sim_log *l, struct sim_tree *durable, uint64_t cover)
{
	size_t i, kept = 0;

	/* Writes before `i` that stay are few: they were in flight when the flush was submitted. */
	for (i = 0; i < l->n_w; i++) {
		if (l->w[i].done_seq && l->w[i].done_seq <= cover)
			write_commit(l, durable, i, kept != 0);
		else if (l->w[i].n)
			kept++;
	}
	log_compact(l);
}

void sim_log_punch(struct sim_log *l, uint64_t idx, unsigned mask)
{
	punch_before(l, l->n_w, idx, mask);
}

void sim_log_truncate(struct sim_log *l, uint64_t idx)
{
	size_t i;

	for (i = 0; i < l->n_e; i++)
		if (l->e[i].idx >= idx)
			l->e[i].mask = 0;
}

struct sim_log_ent *sim_log_newest(struct sim_log *l, uint64_t idx, unsigned granule)
{
	struct sim_log_write *w;
	size_t i, k;

	for (i = l->n_w; i-- > 0;) {
		w = &l->w[i];
		if (!w->applied || idx < w->lo || idx > w->hi)
			continue;
		for (k = w->first + w->n; k-- > w->first;)
			if (l->e[k].idx == idx && (l->e[k].mask & (1u << granule)))
				return &l->e[k];
	}
	return NULL;
}

void sim_log_settle(struct sim_log *l, struct sim_tree *cache, struct rng *rng, uint64_t done_seq)
{
	struct sim_log_write *w;
	size_t i, k;

	for (i = 0; i < l->n_w; i++) {
		w = &l->w[i];
		if (!w->done_seq)
			w->done_seq = done_seq;
		if (w->applied)
			continue;
		w->applied = true;
		if (rng_chance(rng, 1, 2)) {
			write_drop(l, w);
			continue;
		}
		for (k = w->first; k < w->first + w->n; k++)
			sim_tree_merge(cache, l->e[k].idx, l->e[k].page, l->e[k].mask);
	}
}

/* ---- power cut ---- */

uint64_t sim_log_count(const struct sim_log *l, enum sim_unit unit)
{
	uint64_t n = 0;
	size_t i, k;

	for (i = 0; i < l->n_w; i++) {
		if (unit == SIM_UNIT_WRITE) {
			n += l->w[i].n != 0;
			continue;
		}
		for (k = l->w[i].first; k < l->w[i].first + l->w[i].n; k++)
			n += unit == SIM_UNIT_PAGE ? l->e[k].mask != 0 : (unsigned)__builtin_popcount(l->e[k].mask);
	}
	return n;
}

static unsigned coin_mask(struct rng *rng, unsigned bias)
{
	uint64_t r = rng_next(rng);
	unsigned g, mask = 0;

	for (g = 0; g < SIM_GRANULES; g++)
		if (((r >> (8 * g)) & 0xff) < bias)
			mask |= 1u << g;
	return mask;
}

static void keep_random(struct sim_log *l, const struct sim_cut_plan *p, struct rng *rng)
{
	struct sim_log_write *w;
	unsigned keep;
	size_t i, k;

	for (i = 0; i < l->n_w; i++) {
		w = &l->w[i];
		keep = rng_below(rng, 256) < p->bias ? SIM_MASK_ALL : 0;
		for (k = w->first; k < w->first + w->n; k++) {
			if (p->unit == SIM_UNIT_PAGE)
				keep = rng_below(rng, 256) < p->bias ? SIM_MASK_ALL : 0;
			else if (p->unit == SIM_UNIT_GRANULE)
				keep = coin_mask(rng, p->bias);
			l->e[k].mask &= keep;
		}
	}
}

/* Keeps the unit number p->one alone, or all others. */
static void keep_one(struct sim_log *l, const struct sim_cut_plan *p)
{
	bool but = p->cut == SIM_CUT_ALL_BUT_ONE;
	struct sim_log_write *w;
	uint64_t at = 0;
	unsigned g, hit;
	size_t i, k;

	for (i = 0; i < l->n_w; i++) {
		w = &l->w[i];
		for (k = w->first; k < w->first + w->n; k++) {
			hit = 0;
			if (p->unit == SIM_UNIT_WRITE && at == p->one)
				hit = SIM_MASK_ALL;
			for (g = 0; p->unit == SIM_UNIT_GRANULE && g < SIM_GRANULES; g++)
				if ((l->e[k].mask & (1u << g)) && at++ == p->one)
					hit |= 1u << g;
			l->e[k].mask &= but ? ~hit : hit;
		}
		if (p->unit == SIM_UNIT_WRITE && w->n)
			at++;
	}
}

struct by_submit {
	uint64_t seq;
	size_t i;
};

static int cmp_submit(const void *a, const void *b)
{
	const struct by_submit *x = a, *y = b;

	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static void keep_prefix(struct sim_log *l, struct rng *rng)
{
	uint64_t left = rng_below(rng, sim_log_count(l, SIM_UNIT_GRANULE) + 1);
	struct by_submit *s;
	struct sim_log_write *w;
	unsigned g;
	size_t i, k;

	if (!l->n_w)
		return;
	s = sim_alloc(l->n_w * sizeof(*s));
	for (i = 0; i < l->n_w; i++)
		s[i] = (struct by_submit){ l->w[i].submit_seq, i };
	qsort(s, l->n_w, sizeof(*s), cmp_submit);
	for (i = 0; i < l->n_w; i++) {
		w = &l->w[s[i].i];
		for (k = w->first; k < w->first + w->n; k++) {
			for (g = 0; g < SIM_GRANULES; g++) {
				if (!(l->e[k].mask & (1u << g)))
					continue;
				if (left)
					left--;
				else
					l->e[k].mask &= ~(1u << g);
			}
		}
	}
	free(s);
}

void sim_log_cut(struct sim_log *l, struct sim_tree *durable, const struct sim_cut_plan *plan, struct rng *rng)
{
	size_t i, k;

	switch (plan->cut) {
	case SIM_CUT_RANDOM:
		keep_random(l, plan, rng);
		break;
	case SIM_CUT_NONE:
		sim_log_clear(l);
		return;
	case SIM_CUT_ALL:
		break;
	case SIM_CUT_PREFIX:
		keep_prefix(l, rng);
		break;
	case SIM_CUT_ALL_BUT_ONE:
	case SIM_CUT_ONLY_ONE:
		keep_one(l, plan);
		break;
	}
	for (i = 0; i < l->n_w; i++)
		for (k = l->w[i].first; k < l->w[i].first + l->w[i].n; k++)
			sim_tree_merge(durable, l->e[k].idx, l->e[k].page, l->e[k].mask);
	sim_log_clear(l);
}
