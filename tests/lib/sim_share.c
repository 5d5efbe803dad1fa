/*
 * sim_share.c: what frontends do beside reading and writing: ranges that are shared by volumes, and notes; with the model.
 */
#include <inttypes.h>
#include <string.h>

#include "engine/base/units.h"
#include "tests/lib/sim_rig.h"

#define NOTE_KEY 5 /* nobody's */

/* ---- ranges ---- */

struct share {
	struct rig *g;
	struct model_vol *from, *to;
	struct ashlar_attach *src, *dst;
	uint64_t from_bytes, to_bytes, len_bytes, done;
};

/* On the source's home. False: nothing is left of it. */
static bool share_fit(struct share *s)
{
	const struct bdev *a = ashlar_attach_bdev(s->src), *b = ashlar_attach_bdev(s->dst);
	uint64_t unit = MAX(MAX(a->opt_bytes, b->opt_bytes), (uint32_t)MODEL_SECTOR), from_end, to_end;

	s->from_bytes = ALIGN_DOWN(s->from_bytes, unit);
	s->to_bytes = ALIGN_DOWN(s->to_bytes, unit);
	from_end = ALIGN_DOWN(s->from->size_bytes, unit);
	to_end = ALIGN_DOWN(s->to->size_bytes, unit);
	if (s->from_bytes >= from_end || s->to_bytes >= to_end)
		return false;
	s->len_bytes = MIN(ALIGN_DOWN(s->len_bytes, unit), MIN(from_end - s->from_bytes, to_end - s->to_bytes));
	if (s->from == s->to) /* they must not overlap */
		s->len_bytes = MIN(s->len_bytes, MAX(s->from_bytes, s->to_bytes) - MIN(s->from_bytes, s->to_bytes));
	return s->len_bytes > 0;
}

static int share_there(void *arg)
{
	struct share *s = arg;
	struct rig *g = s->g;
	uint32_t op;
	int r;

	if (!share_fit(s))
		return 0;
	rig_note(g, "share vol %u %" PRIu64 " with vol %u %" PRIu64 ", %" PRIu64, s->from->index, s->from_bytes, s->to->index, s->to_bytes,
		 s->len_bytes);
	op = model_share(g->model, s->from, s->from_bytes, s->to, s->to_bytes, s->len_bytes);
	r = ashlar_co_attach_copy(s->src, s->from_bytes, s->dst, s->to_bytes, s->len_bytes, &s->done);
	rig_note(g, "share vol %u with vol %u: %d, %" PRIu64, s->from->index, s->to->index, r, s->done);
	model_shared(g->model, op, r == 0 && s->done == s->len_bytes);
	if (r == 0 && s->done != s->len_bytes)
		rig_fail(g, "sharing %" PRIu64 " bytes of %s: %" PRIu64 " are done", s->len_bytes, s->from->name, s->done);
	if (r < 0 && r != -EOPNOTSUPP)
		rig_result_is_fine(g, s->to, r, "sharing a range");
	return r;
}

static int share_co_attached(struct share *s)
{
	int r = rig_co_attach(s->g, s->from, &s->src);

	if (r < 0)
		return r;
	r = rig_co_attach(s->g, s->to, &s->dst);
	if (r < 0) {
		ashlar_co_detach(s->src);
		return r;
	}
	r = reactor_co_call(ashlar_attach_home(s->src), share_there, s);
	ashlar_co_detach(s->src);
	ashlar_co_detach(s->dst);
	return r;
}

int rig_co_vol_share(struct rig *g, struct model_vol *from, uint64_t from_bytes, struct model_vol *to, uint64_t to_bytes, uint64_t len_bytes)
{
	struct share s = { .g = g, .from = from, .to = to, .from_bytes = from_bytes, .to_bytes = to_bytes, .len_bytes = len_bytes };
	int r;

	if (!rig_is_free(g, from) || !rig_is_free(g, to))
		return 0;
	from->n_busy++;
	to->n_busy++;
	r = share_co_attached(&s);
	from->n_busy--;
	to->n_busy--;
	return r == -EOPNOTSUPP ? 0 : r;
}

/* ---- notes ---- */

/* Short ones, long ones, and those that take several records. */
static size_t note_make(uint32_t n, uint8_t *out)
{
	static const size_t most[] = { 16, 1016, 1024, 5000, 20000 };
	size_t len = n ? 4 + n * 2654435761U % most[n % ARRAY_LEN(most)] : 0, i;

	for (i = 0; i < len; i++)
		out[i] = (uint8_t)(i < 4 ? n >> 8 * i : n + i);
	return len;
}

#define NOTE_BYTES 20004

void rig_co_settle_note(struct rig *g, struct ashlar_pool *p, struct model_vol *v)
{
	uint8_t *want = xmalloc(NOTE_BYTES);
	uint32_t n = 0;
	void *data;
	size_t len;
	struct err e = { 0 };
	int r = ashlar_co_note_get(p, v->name, NOTE_KEY, &data, &len, &e);

	if (r < 0) {
		if (!g->may_fail)
			rig_fail(g, "the note of %s: %s (%d)", v->name, e.text, r);
		xfree(want);
		return;
	}
	if (len >= 4)
		memcpy(&n, data, 4);
	if (note_make(n, want) != len || (len && memcmp(want, data, len)))
		rig_fail(g, "the note of %s is no whole one", v->name);
	else if (!model_vol_settle_note(v, n))
		rig_fail(g, "the note of %s is %u", v->name, n);
	xfree(data);
	xfree(want);
}

int rig_co_vol_note(struct rig *g, struct model_vol *v, uint32_t note)
{
	struct ashlar_pool *p;
	struct err e = { 0 };
	uint8_t *data;
	size_t len;
	int r;

	if (v->n_busy || v->noting)
		return 0;
	data = xmalloc(NOTE_BYTES);
	len = note_make(note, data);
	rig_note(g, "note %u for %s", note, v->name);
	model_vol_note(v, note);
	v->n_busy++;
	do {
		p = rig_pool(g, v);
		r = ashlar_co_note_set(p, v->name, NOTE_KEY, data, len, &e);
	} while (rig_has_moved(g, v, p, r));
	rig_note(g, "note %u for %s: %d", note, v->name, r);
	v->n_busy--;
	xfree(data);
	if (rig_is_unknown(g, r, &e, "note", v->name))
		return r;
	model_vol_noted(v, r == 0);
	p = rig_pool(g, v);
	if (r == 0 && !rig_is_moving(g, v))
		rig_co_settle_note(g, p, v);
	return r;
}
