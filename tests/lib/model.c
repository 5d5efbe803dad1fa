/*
 * model.c: see model.h.
 */
#include "tests/lib/model_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *model_grow(void *p, size_t n)
{
	p = realloc(p, n);
	CHECK(p);
	return p;
}

struct model *model_create(void)
{
	struct model *m = model_grow(NULL, sizeof(*m));

	memset(m, 0, sizeof(*m));
	m->cap_ops = 256;
	m->ops = model_grow(NULL, m->cap_ops * sizeof(*m->ops));
	m->ops[0] = (struct model_op){ .kind = MODEL_ZERO, .strong = true, .durable = true };
	m->n_ops = 1;
	m->now = 1;
	return m;
}

static void sector_fini(struct model_sector *s)
{
	free(s->many);
	*s = (struct model_sector){ .n = 1, .one = { 0, NEVER, 0 } };
}

static void vol_free(struct model_vol *v)
{
	uint64_t i;

	for (i = 0; i < v->n_sectors; i++)
		sector_fini(&v->sectors[i]);
	free(v->sectors);
	free(v->unflushed);
	free(v);
}

void model_destroy(struct model *m)
{
	unsigned i;

	for (i = 0; i < m->n_vols; i++)
		vol_free(m->vols[i]);
	for (i = 0; i < m->n_snaps; i++)
		vol_free(m->snaps[i]);
	free(m->sets);
	free(m->ops);
	free(m);
}

static void *copy_of(const void *p, size_t len)
{
	void *c = model_grow(NULL, MAX(len, 1));

	if (len)
		memcpy(c, p, len);
	return c;
}

static struct model_vol *vol_copy(const struct model_vol *f)
{
	struct model_vol *v = copy_of(f, sizeof(*f));
	uint64_t k;

	v->sectors = copy_of(f->sectors, f->n_sectors * sizeof(*f->sectors));
	v->unflushed = copy_of(f->unflushed, f->cap_unflushed * sizeof(*f->unflushed));
	for (k = 0; k < f->n_sectors; k++)
		if (f->sectors[k].many)
			v->sectors[k].many = copy_of(f->sectors[k].many, f->sectors[k].cap * sizeof(struct model_cand));
	return v;
}

struct model *model_clone(const struct model *from)
{
	struct model *m = copy_of(from, sizeof(*from));
	unsigned i;

	m->ops = copy_of(from->ops, from->cap_ops * sizeof(*m->ops));
	m->sets = copy_of(from->sets, from->cap_sets * sizeof(*m->sets));
	for (i = 0; i < m->n_vols; i++)
		m->vols[i] = vol_copy(from->vols[i]);
	for (i = 0; i < m->n_snaps; i++)
		m->snaps[i] = vol_copy(from->snaps[i]);
	return m;
}

unsigned model_n_vols(const struct model *m)
{
	return m->n_vols;
}

struct model_vol *model_vol(struct model *m, unsigned i)
{
	return m->vols[i];
}

struct model_vol *model_vol_find(struct model *m, const char *name)
{
	unsigned i;

	for (i = 0; i < m->n_vols; i++)
		if (m->vols[i]->state != MODEL_GONE &&
		    (!strcmp(m->vols[i]->name, name) || !strcmp(m->vols[i]->new_name, name)))
			return m->vols[i];
	return NULL;
}

/* ---- candidates ---- */

struct model_cand *model_cands(struct model_sector *s)
{
	return s->many ? s->many : &s->one;
}

void model_cand_add(struct model_sector *s, uint32_t op, model_val val)
{
	if (s->n + 1 > (s->many ? s->cap : 1)) {
		bool first = !s->many;

		s->cap = (uint16_t)MAX(4, 2 * s->cap);
		s->many = model_grow(s->many, s->cap * sizeof(*s->many));
		if (first && s->n)
			s->many[0] = s->one;
	}
	model_cands(s)[s->n++] = (struct model_cand){ op, NEVER, val };
}

static uint32_t oldest_read(const struct model *m)
{
	uint32_t t = NEVER;
	unsigned i;

	for (i = 0; i < m->n_reads; i++)
		t = MIN(t, m->reads[i]);
	return t;
}

/* No power cut brings the value of op `v` back here. */
static bool is_overruled(const struct model *m, struct model_sector *s, uint32_t v)
{
	unsigned i;

	for (i = 0; i < s->n; i++) {
		const struct model_op *w = &m->ops[model_cands(s)[i].op];

		if (w->durable && w->strong && w->began > m->ops[v].ended)
			return true;
	}
	return false;
}

/* Drops candidates that are hidden, overruled and not looked for by a read under way. */
void model_sector_prune(const struct model *m, struct model_sector *s)
{
	struct model_cand *c = model_cands(s);
	uint32_t oldest = oldest_read(m);
	bool drop[64];
	unsigned i, n = MIN(s->n, 64u), k = 0;

	if (s->n == 1)
		return;
	for (i = 0; i < n; i++)
		drop[i] = c[i].hidden < oldest && is_overruled(m, s, c[i].op);
	for (i = 0; i < s->n; i++)
		if (i >= n || !drop[i])
			c[k++] = c[i];
	s->n = (uint16_t)k;
	CHECK(k > 0);
}

/* Nothing but op, and what is still under way (a write that is held outlives a shrinking and growing again). */
static void sector_set(const struct model *m, struct model_sector *s, uint32_t op)
{
	unsigned i, k = 0;
	bool have = false;

	for (i = 0; i < s->n; i++) {
		struct model_cand c = model_cands(s)[i];

		if (c.op != op && m->ops[c.op].ended != NEVER)
			continue;
		have |= c.op == op;
		model_cands(s)[k++] = (struct model_cand){ c.op, NEVER, c.val };
	}
	s->n = (uint16_t)k;
	if (!have)
		model_cand_add(s, op, m->ops[op].kind == MODEL_COPY ? 0 : op);
}

/* ---- data ---- */

uint32_t model_now(struct model *m)
{
	return ++m->now;
}

uint32_t model_op_new(struct model *m, enum model_kind kind)
{
	if (m->n_ops == m->cap_ops) {
		m->cap_ops *= 2;
		m->ops = model_grow(m->ops, m->cap_ops * sizeof(*m->ops));
	}
	m->ops[m->n_ops] = (struct model_op){ .began = ++m->now, .ended = NEVER, .epoch = m->epoch, .kind = (uint8_t)kind };
	return m->n_ops++;
}

uint32_t model_begin(struct model *m, struct model_vol *v, enum model_kind kind, uint64_t off_bytes, uint64_t len_bytes)
{
	uint32_t op = model_op_new(m, kind);
	uint64_t i, first = off_bytes / MODEL_SECTOR, end = (off_bytes + len_bytes) / MODEL_SECTOR;

	CHECK(end <= v->n_sectors);
	for (i = first; i < end; i++) {
		model_sector_prune(m, &v->sectors[i]);
		model_cand_add(&v->sectors[i], op, kind == MODEL_ZERO ? op : model_val_of(op, i));
		if (m->n_shares)
			model_shares_begin(m, v, i, kind == MODEL_ZERO ? op : model_val_of(op, i));
	}
	m->ops[op].vol = (uint16_t)v->index;
	if (m->n_taking)
		model_snaps_begin(m, v, op, first, end);
	return op;
}

static void unflushed_add(struct model_vol *v, uint32_t op)
{
	if (v->n_unflushed == v->cap_unflushed) {
		v->cap_unflushed = MAX(64, 2 * v->cap_unflushed);
		v->unflushed = model_grow(v->unflushed, v->cap_unflushed * sizeof(*v->unflushed));
	}
	v->unflushed[v->n_unflushed++] = op;
}

void model_hide_before(const struct model *m, struct model_sector *s, uint32_t began, uint32_t now)
{
	unsigned i;

	for (i = 0; i < s->n; i++) {
		struct model_cand *c = &model_cands(s)[i];

		if (m->ops[c->op].ended < began)
			c->hidden = MIN(c->hidden, now);
	}
}

void model_end(struct model *m, struct model_vol *v, uint32_t op, uint64_t off_bytes, uint64_t len_bytes, bool ok, bool fua,
	       bool weak)
{
	struct model_op *o = &m->ops[op];
	uint64_t i, first = off_bytes / MODEL_SECTOR, end = (off_bytes + len_bytes) / MODEL_SECTOR;

	CHECK(o->ended == NEVER);
	o->ended = ++m->now;
	o->strong = ok && !weak;
	if (!o->strong)
		return;
	if (fua)
		o->durable = true;
	else
		unflushed_add(v, op);
	for (i = first; i < end && i < v->n_sectors; i++) {
		model_hide_before(m, &v->sectors[i], o->began, o->ended);
		model_sector_prune(m, &v->sectors[i]);
	}
}

void model_flushed(struct model *m, struct model_vol *v, uint32_t since)
{
	size_t i, k = 0;

	for (i = 0; i < v->n_unflushed; i++) {
		struct model_op *o = &m->ops[v->unflushed[i]];

		if (o->ended < since)
			o->durable = true;
		else
			v->unflushed[k++] = v->unflushed[i];
	}
	v->n_unflushed = k;
}

/* ---- stamps ---- */

struct stamp {
	uint32_t vol, op;
	uint64_t sector;
};

static struct stamp stamp_of(unsigned vol, uint32_t op, uint64_t sector, unsigned k)
{
	return (struct stamp){ vol + 1, op, sector << 8 | k };
}

void model_stamp(const struct model_vol *v, uint32_t op, uint64_t off_bytes, uint64_t len_bytes, void *buf)
{
	struct stamp *s = buf;
	uint64_t i;
	unsigned k;

	for (i = off_bytes / MODEL_SECTOR; i < (off_bytes + len_bytes) / MODEL_SECTOR; i++)
		for (k = 0; k < MODEL_SECTOR / sizeof(*s); k++)
			*s++ = stamp_of(v->index, op, i, k);
}

static bool is_zero(const uint8_t *p)
{
	const uint64_t *q = (const uint64_t *)(const void *)p;
	unsigned i;

	for (i = 0; i < MODEL_SECTOR / 8; i++)
		if (q[i])
			return false;
	return true;
}

/* 1: a stamp, *val says whose; 0: zeros; -1: something else, put in words. */
static int stamp_read(const struct model *m, const uint8_t *p, model_val *val, char *why, size_t len)
{
	struct stamp first, s;
	uint64_t sector;
	unsigned k;

	if (is_zero(p))
		return 0;
	memcpy(&first, p, sizeof(first));
	sector = first.sector >> 8;
	*val = model_val_of(first.op, sector);
	for (k = 0; k < MODEL_SECTOR / sizeof(s); k++) {
		memcpy(&s, p + k * sizeof(s), sizeof(s));
		if (s.op == first.op && s.sector == (sector << 8 | k) && sector <= UINT32_MAX && s.op < m->n_ops && s.vol == m->ops[s.op].vol + 1U)
			continue;
		if (k)
			snprintf(why, len, "torn inside: begins with op %u, then vol %u op %u sector %" PRIu64, first.op, s.vol - 1, s.op,
				 s.sector >> 8);
		else
			snprintf(why, len, "it is of volume %u, op %u, sector %" PRIu64 " (%016" PRIx64 ")", s.vol - 1, s.op,
				 s.sector >> 8, *(const uint64_t *)(const void *)p);
		return -1;
	}
	return 1;
}

/* ---- reading ---- */

uint32_t model_read_begin(struct model *m)
{
	CHECK(m->n_reads < READS_MAX);
	return m->reads[m->n_reads++] = ++m->now;
}

void model_read_end(struct model *m, uint32_t since)
{
	unsigned i;

	for (i = 0; i < m->n_reads && m->reads[i] != since; i++)
		;
	CHECK(i < m->n_reads);
	m->reads[i] = m->reads[--m->n_reads];
}

static void sector_print(const struct model *m, const struct model_vol *v, struct model_sector *s, uint64_t sector,
			 uint32_t since, const char *got)
{
	static const char *const kinds[] = { "write", "zero", "copy", "share" };
	unsigned i;

	fprintf(stderr, "model: %s %u (%s) sector %" PRIu64 " (byte %" PRIu64 "): read at %u..%u returned %s; allowed:\n",
		v->is_snap ? "snapshot" : "volume", v->index, v->name, sector, sector * MODEL_SECTOR, since, m->now, got);
	for (i = 0; i < s->n; i++) {
		const struct model_cand *c = &model_cands(s)[i];
		const struct model_op *o = &m->ops[c->op];

		fprintf(stderr, "model:   op %u %s of %u, sector %u, began %u ended %d epoch %u%s%s hidden %d\n", c->op, kinds[o->kind], model_val_op(c->val), (unsigned)(c->val >> 32), o->began, (int)o->ended, o->epoch, o->strong ? " done" : " maybe",
			o->durable ? " durable" : "", (int)c->hidden);
	}
}

/* What a read saw in a sector. */
struct seen {
	uint32_t since;
	int kind;
	model_val val;
};

static bool seen_fits(const struct model *m, const struct model_cand *c, const struct seen *n)
{
	return c->hidden >= n->since && model_cand_fits(m, c, n->kind, n->val);
}

/* What it says of the other candidates: whichever of those that fit it is, who had ended before the read began, or before their
 * writes began, is over. */
static void sector_pin(struct model *m, struct model_sector *s, const struct seen *n)
{
	uint32_t began = NEVER;
	bool old = true; /* it is of before the crash, and then there is one value: others of that time are gone, durably */
	unsigned i, k = 0;

	for (i = 0; i < s->n; i++) {
		const struct model_op *o = &m->ops[model_cands(s)[i].op];

		if (!seen_fits(m, &model_cands(s)[i], n))
			continue;
		began = MIN(began, o->began);
		old &= o->epoch != m->epoch || !o->began;
	}
	for (i = 0; i < s->n; i++) {
		struct model_cand *c = &model_cands(s)[i];
		const struct model_op *x = &m->ops[c->op];
		bool fit = seen_fits(m, c, n);

		if (!fit && (x->ended < began || x->ended < n->since))
			c->hidden = MIN(c->hidden, m->now);
		if (fit || !old || (x->epoch == m->epoch && x->began))
			model_cands(s)[k++] = *c;
	}
	s->n = (uint16_t)k;
}

/* What one read says about a rollback meanwhile, or before the crash. */
struct fate {
	bool yes, no;
};

/* Does any candidate explain it? *op: which operation it then was, if that is certain, else 0. */
static bool sector_explain(const struct model *m, const struct model_vol *v, struct model_sector *s, const struct seen *n, uint32_t *op,
			   struct fate *f)
{
	bool rolled = false, before = false, other = false, any = false, several = false;
	unsigned i;

	for (i = 0; i < s->n; i++) {
		const struct model_cand *c = &model_cands(s)[i];

		if (!seen_fits(m, c, n))
			continue;
		several |= any && c->op != *op;
		any = true;
		*op = c->op;
		if (c->op == v->rollback_op)
			rolled = true;
		else if (m->ops[c->op].ended < m->ops[v->rollback_op].began)
			before = true;
		else
			other = true;
	}
	if (v->rollback_op && !other) {
		f->yes |= rolled && !before;
		f->no |= before && !rolled;
	}
	if (several)
		*op = 0;
	return any;
}

static bool sector_read(struct model *m, struct model_vol *v, uint32_t since, uint64_t sector, const uint8_t *p, struct fate *f,
			char *why, size_t len)
{
	struct model_sector *s = &v->sectors[sector];
	struct seen n = { .since = since };
	uint32_t op = 0;

	n.kind = stamp_read(m, p, &n.val, why, len);
	if (n.kind < 0)
		return false;
	if (s->n == 1 && model_cand_fits(m, model_cands(s), n.kind, n.val))
		return true;
	snprintf(why, len, n.kind ? "op %u, sector %u" : "zeros", model_val_op(n.val), (unsigned)(n.val >> 32));
	if (v->is_snap)
		return model_snap_pin(m, v, sector, n.kind, n.val, why, len);
	if (!sector_explain(m, v, s, &n, &op, f) || !model_origin_pin(m, op, sector, n.kind, n.val, why, len))
		return false;
	sector_pin(m, s, &n);
	return true;
}

/* A rollback happens as a whole. */
static bool fate_is_fine(const struct model *m, struct model_vol *v, uint32_t since, const struct fate *f)
{
	uint8_t now = f->yes ? MODEL_FATE_YES : MODEL_FATE_NO;

	if ((!f->yes && !f->no) || (!v->rolling && m->ops[v->rollback_op].ended < since))
		return true; /* long over; what has grown since looks as if never touched */
	if (!(f->yes && f->no) && (!v->rolling || m->ops[v->rollback_op].ended == NEVER))
		return true; /* no crash was between */
	if (!(f->yes && f->no) && (v->rolled == MODEL_FATE_UNKNOWN || v->rolled == now)) {
		v->rolled = now;
		return true;
	}
	fprintf(stderr, "model: volume %u (%s) is rolled back in part\n", v->index, v->name);
	return false;
}

unsigned model_read(struct model *m, struct model_vol *v, uint32_t since, uint64_t off_bytes, uint64_t len_bytes,
		    const void *buf)
{
	uint64_t i, first = off_bytes / MODEL_SECTOR, n = len_bytes / MODEL_SECTOR;
	struct fate f = { 0 };
	unsigned bad = 0;
	char why[240];

	m->now++;
	for (i = 0; i < n; i++)
		if (!sector_read(m, v, since, first + i, (const uint8_t *)buf + i * MODEL_SECTOR, &f, why, sizeof(why)) && !bad++)
			sector_print(m, v, &v->sectors[first + i], first + i, since, why);
	return bad + !fate_is_fine(m, v, since, &f);
}

/* ---- crash ---- */

static void sector_crash(struct model *m, struct model_sector *s)
{
	struct model_cand *c = model_cands(s);
	bool drop[64];
	unsigned i, n = MIN(s->n, 64u), k = 0;

	if (s->n == 1)
		return;
	for (i = 0; i < n; i++)
		drop[i] = is_overruled(m, s, c[i].op);
	for (i = 0; i < s->n; i++)
		if (i >= n || !drop[i])
			c[k++] = (struct model_cand){ c[i].op, NEVER, c[i].val };
	s->n = (uint16_t)k;
	CHECK(k > 0);
}

/* All that is under way ends, as it may. */
static void model_stop(struct model *m, bool keeps)
{
	uint32_t op;
	unsigned i;
	uint64_t k;

	m->now++;
	m->n_reads = 0;
	m->n_shares = 0;
	for (i = 0; i < m->n_vols; i++) {
		struct model_vol *v = m->vols[i];

		for (k = 0; k < v->n_sectors && !keeps; k++)
			sector_crash(m, &v->sectors[k]);
		if (!keeps)
			v->n_unflushed = 0;
		v->n_busy = 0;
		if (v->rolling && m->ops[v->rollback_op].ended == NEVER)
			v->rolled = MODEL_FATE_UNKNOWN;
	}
	model_snaps_crash(m);
	for (op = 1; op < m->n_ops; op++)
		if (m->ops[op].ended == NEVER)
			m->ops[op].ended = m->now;
	if (!keeps)
		m->epoch++;
	m->now++;
	m->killed = keeps ? m->now : 0;
}

void model_crash(struct model *m)
{
	model_stop(m, false);
}

void model_kill(struct model *m)
{
	model_stop(m, true);
}

/* Only what was not under way then says for good that an operation which had ended before it began is over. */
static void sector_lost(const struct model *m, struct model_sector *s)
{
	struct model_cand *c = model_cands(s);
	unsigned i, k;

	for (i = 0; i < s->n; i++) {
		bool over = c[i].hidden == NEVER;

		for (k = 0; k < s->n && !over; k++)
			over = m->ops[c[k].op].ended != m->killed - 1 && m->ops[c[k].op].began > m->ops[c[i].op].ended;
		if (!over)
			c[i].hidden = NEVER;
	}
}

void model_lost(struct model *m)
{
	unsigned i;
	uint64_t k;

	if (m->now != m->killed)
		return;
	for (i = 0; i < m->n_vols; i++)
		for (k = 0; k < m->vols[i]->n_sectors; k++)
			if (m->vols[i]->sectors[k].n > 1)
				sector_lost(m, &m->vols[i]->sectors[k]);
}

/* ---- volumes ---- */

void model_vol_room(struct model_vol *v, uint64_t size_bytes)
{
	uint64_t n = size_bytes / MODEL_SECTOR, i;

	if (n <= v->n_sectors)
		return;
	v->sectors = model_grow(v->sectors, n * sizeof(*v->sectors));
	for (i = v->n_sectors; i < n; i++)
		v->sectors[i] = (struct model_sector){ .n = 1, .one = { 0, NEVER, 0 } };
	v->n_sectors = n;
}

struct model_vol *model_vol_create(struct model *m, const char *name, uint64_t size_bytes)
{
	struct model_vol *v = model_grow(NULL, sizeof(*v));

	CHECK(m->n_vols < VOLS_MAX);
	memset(v, 0, sizeof(*v));
	v->index = m->n_vols;
	v->state = MODEL_CREATING;
	snprintf(v->name, sizeof(v->name), "%s", name);
	v->size_bytes = size_bytes;
	model_vol_room(v, size_bytes);
	m->vols[m->n_vols++] = v;
	m->now++;
	return v;
}

static void vol_gone(struct model_vol *v)
{
	uint64_t i;

	v->state = MODEL_GONE;
	for (i = 0; i < v->n_sectors; i++)
		sector_fini(&v->sectors[i]);
	free(v->sectors);
	v->sectors = NULL;
	v->n_sectors = 0;
	v->n_unflushed = 0;
}

void model_vol_created(struct model *m, struct model_vol *v, bool ok)
{
	m->now++;
	if (ok)
		v->state = MODEL_LIVE;
	else
		vol_gone(v);
}

void model_vol_delete(struct model *m, struct model_vol *v)
{
	m->now++;
	v->n_changes++;
	v->state = MODEL_DELETING;
}

void model_vol_deleted(struct model *m, struct model_vol *v, bool ok)
{
	m->now++;
	if (ok)
		vol_gone(v);
	else
		v->state = MODEL_LIVE;
}

void model_vol_rename(struct model_vol *v, const char *name)
{
	snprintf(v->new_name, sizeof(v->new_name), "%s", name);
}

void model_vol_renamed(struct model_vol *v, bool ok)
{
	if (ok)
		memcpy(v->name, v->new_name, sizeof(v->name));
	v->new_name[0] = 0;
}

void model_vol_rule(struct model_vol *v, uint32_t rule)
{
	v->new_rule = rule;
	v->ruling = true;
}

void model_vol_ruled(struct model_vol *v, bool ok)
{
	if (ok)
		v->rule = v->new_rule;
	v->ruling = false;
}

bool model_vol_settle_rule(struct model_vol *v, uint32_t rule)
{
	bool ok = rule == v->rule || (v->ruling && rule == v->new_rule);

	v->rule = rule;
	v->ruling = false;
	return ok;
}

void model_vol_limit(struct model_vol *v, uint32_t limits)
{
	v->new_limits = limits;
	v->limiting = true;
}

void model_vol_limited(struct model_vol *v, bool ok)
{
	if (ok)
		v->limits = v->new_limits;
	v->limiting = false;
}

bool model_vol_settle_limits(struct model_vol *v, uint32_t limits)
{
	bool ok = limits == v->limits || (v->limiting && limits == v->new_limits);

	v->limits = limits;
	v->limiting = false;
	return ok;
}

void model_vol_note(struct model_vol *v, uint32_t note)
{
	v->new_note = note;
	v->noting = true;
}

void model_vol_noted(struct model_vol *v, bool ok)
{
	if (ok)
		v->note = v->new_note;
	v->noting = false;
}

bool model_vol_settle_note(struct model_vol *v, uint32_t note)
{
	bool ok = note == v->note || (v->noting && note == v->new_note);

	v->note = note;
	v->noting = false;
	return ok;
}

void model_vol_resize(struct model *m, struct model_vol *v, uint64_t size_bytes)
{
	v->n_changes++;
	v->rolling = false; /* whether a crash had let it happen is known by now */
	v->new_size_bytes = size_bytes;
	model_vol_room(v, size_bytes);
	v->resize_op = 0;
	if (size_bytes < v->size_bytes)
		v->resize_op = model_begin(m, v, MODEL_ZERO, size_bytes, v->size_bytes - size_bytes);
}

/* The volume has this size now: what is beyond is zeros, whenever it comes back. */
void model_size_is(const struct model *m, struct model_vol *v, uint64_t size_bytes, uint32_t zero_op)
{
	uint64_t i;

	v->size_bytes = size_bytes;
	v->new_size_bytes = 0;
	for (i = size_bytes / MODEL_SECTOR; i < v->n_sectors; i++)
		sector_set(m, &v->sectors[i], zero_op);
}

void model_vol_resized(struct model *m, struct model_vol *v, bool ok)
{
	if (v->resize_op)
		model_end(m, v, v->resize_op, v->new_size_bytes, v->size_bytes - v->new_size_bytes, ok, ok, false);
	if (ok)
		model_size_is(m, v, v->new_size_bytes, v->resize_op);
	v->new_size_bytes = 0;
}

bool model_vol_settle(struct model *m, struct model_vol *v, const char *name, uint64_t size_bytes)
{
	if (v->is_snap && v->state == MODEL_CREATING)
		*(name ? &m->sets[v->set].is_there : &m->sets[v->set].is_absent) = true;
	if (!name) {
		if (v->state == MODEL_LIVE) {
			fprintf(stderr, "model: %s %u (%s) is not there\n", v->is_snap ? "snapshot" : "volume", v->index, v->name);
			return false;
		}
		vol_gone(v);
		return true;
	}
	if (v->new_name[0] && !strcmp(name, v->new_name))
		memcpy(v->name, v->new_name, sizeof(v->name));
	v->new_name[0] = 0;
	v->state = MODEL_LIVE;
	if (size_bytes != v->size_bytes && (!v->new_size_bytes || size_bytes != v->new_size_bytes)) {
		fprintf(stderr, "model: volume %u (%s) has %" PRIu64 " bytes, not %" PRIu64 " or %" PRIu64 "\n", v->index, v->name,
			size_bytes, v->size_bytes, v->new_size_bytes);
		return false;
	}
	if (v->rolling && v->new_size_bytes)
		v->rolled = size_bytes == v->new_size_bytes ? MODEL_FATE_YES : MODEL_FATE_NO;
	model_size_is(m, v, size_bytes, 0);
	return true;
}
