/*
 * diff.c: what differs between two members of a family, as ranges: for people and for backup programs.
 *
 * The map of each says where a subcluster lies; where it lies in the same place in both, it is the same. The maps share pages,
 * so what has not changed is not even looked at. "As of now" for a volume means that its records have come home: they are sent
 * in the order of the writes, so one message from its reactor, sent after them, is enough.
 *
 * A member that is looked at counts as attached meanwhile: whoever deletes it waits, or is told that it is in use.
 */
#include <stdio.h>
#include <string.h>

#include "engine/pool/volumes.h"

#define YIELD_EVERY 64 /* clusters */

struct walk {
	struct ashlar_pool *p;
	struct thin_vol *from, *to;
	uint64_t sub_bytes, to_bytes, common_bytes; /* of both */
	uint64_t off_bytes, end_bytes;		    /* looked at so far; up to here */
	struct ashlar_range *out;
	size_t n, room;
};

/* False: no room. What has been added is behind. */
static bool range_add(struct walk *w, uint64_t off, uint64_t end, bool is_data)
{
	struct ashlar_range *last = w->n ? &w->out[w->n - 1] : NULL;

	if (off >= end)
		return true;
	if (last && last->is_data == is_data && last->off_bytes + last->len_bytes == off) {
		last->len_bytes += end - off;
	} else {
		if (w->n == w->room)
			return false;
		w->out[w->n++] = (struct ashlar_range){ off, end - off, is_data };
	}
	w->off_bytes = end;
	return true;
}

/* Up to `end` the maps say the same. Beyond the end of the smaller one all differs nevertheless: zeros, but for the rest of the
 * subcluster that it ends in, which the maps cannot tell. */
static bool same_add(struct walk *w, uint64_t end)
{
	uint64_t off = MAX(w->off_bytes, w->common_bytes), partial = ALIGN_UP(w->common_bytes, w->sub_bytes);

	if (!range_add(w, off, MIN(end, partial), off < w->to_bytes) || !range_add(w, MAX(off, partial), end, false))
		return false;
	w->off_bytes = MAX(w->off_bytes, end);
	return true;
}

static bool sub_add(struct walk *w, uint64_t off, bool is_data)
{
	uint64_t end = MIN(off + w->sub_bytes, w->end_bytes), cut;

	if (end <= w->off_bytes || off >= w->end_bytes)
		return true;
	off = MAX(off, w->off_bytes);
	if (!same_add(w, off))
		return false;
	cut = is_data ? MIN(end, MAX(off, w->to_bytes)) : off;
	return range_add(w, off, cut, true) && range_add(w, MAX(off, cut), end, false);
}

static bool cluster_add(struct walk *w, uint64_t cluster, uint16_t mask, uint16_t data)
{
	unsigned i;

	for (i = 0; i < THIN_SUBS; i++)
		if (mask >> i & 1 && !sub_add(w, (cluster * THIN_SUBS + i) * w->sub_bytes, data >> i & 1))
			return false;
	return true;
}

static int walk_co_run(struct walk *w)
{
	uint64_t cluster_bytes = w->p->label->cluster_bytes, cluster = w->off_bytes / cluster_bytes;
	uint16_t mask, data;
	unsigned n = 0;
	int r = 0;

	for (;; cluster++) {
		if (cluster >= DIV_UP(w->end_bytes, cluster_bytes))
			break;
		r = thin_co_diff(w->p->thin, w->from, w->to, &cluster, &mask, &data);
		if (r < 0 || cluster >= DIV_UP(w->end_bytes, cluster_bytes))
			break;
		if (!cluster_add(w, cluster, mask, data))
			return 0;
		if (++n % YIELD_EVERY == 0)
			co_yield();
	}
	if (r < 0 && r != -ENOENT)
		return r;
	same_add(w, w->end_bytes);
	return 0;
}

static int nothing_there(void *arg)
{
	return 0;
}

/* What it has written so far is known at home when this returns. */
static void vol_co_now(struct ashlar_pool *p, const struct thin_vol *v)
{
	int r = 0;

	if (v->kind == THIN_KIND_VOLUME && v->open)
		r = reactor_co_call(thin_volume_home(p->thin, v->id), nothing_there, NULL);
	CHECK(r == 0);
}

/* Coroutine. *off_bytes .. end_bytes, or less when there is no more room. */
static int diff_co_run(struct ashlar_pool *p, struct thin_vol *from, struct thin_vol *to, uint64_t *off_bytes, uint64_t end_bytes,
		       struct ashlar_range *out, size_t *n)
{
	struct walk w = { .p = p, .from = from, .to = to, .off_bytes = *off_bytes, .out = out, .room = *n };
	int r = 0;

	CHECK(*n);
	from->n_attached++;
	to->n_attached++;
	vol_co_now(p, from);
	vol_co_now(p, to);
	w.sub_bytes = p->label->cluster_bytes / THIN_SUBS;
	w.to_bytes = to->size_bytes;
	w.common_bytes = MIN(from->size_bytes, to->size_bytes);
	w.end_bytes = MIN(end_bytes, MAX(from->size_bytes, to->size_bytes));
	if (w.off_bytes < w.end_bytes)
		r = walk_co_run(&w);
	from->n_attached--;
	to->n_attached--;
	co_queue_wake_all(&p->idle);
	*off_bytes = w.off_bytes;
	*n = w.n;
	return r;
}

/* ---- by name ---- */

static int member_find(struct ashlar_pool *p, const char *name, struct thin_vol **out, struct err *e)
{
	int r = pool_point_find(p, name, out, e);

	if (r == 0 && (*out)->leaving)
		r = err_set(e, -ESHUTDOWN, "%s/%.255s is about to be deleted", p->label->name, name);
	return r;
}

int ashlar_co_diff(struct ashlar_pool *p, const char *from, const char *to, uint64_t *off_bytes, struct ashlar_range *out, size_t *n,
		   struct err *e)
{
	struct thin_vol *a, *b;
	int r = member_find(p, from, &a, e);

	if (r == 0)
		r = member_find(p, to, &b, e);
	if (r == 0 && a->family != b->family)
		r = err_set(e, -EINVAL, "%s/%.255s and %s/%.255s have nothing in common: a difference is told between snapshots and "
			    "clones of one volume", p->label->name, from, p->label->name, to);
	if (r == 0 && p->failed)
		r = err_set(e, -ERR_POOL_FAILED, "pool %s has stopped: %s", p->label->name, p->failed_why);
	return r < 0 ? r : err_default(e, diff_co_run(p, a, b, off_bytes, UINT64_MAX, out, n), "comparing");
}

/* ---- of what is attached ---- */

/* What a client calls a snapshot by, whatever its name and wherever it is: its contents. Fits into 62 bits. */
static uint64_t snapshot_handle(const struct thin_vol *s)
{
	uint64_t x;

	memcpy(&x, s->guid.b, sizeof(x));
	return x >> 2;
}

struct attach_call {
	struct ashlar_attach *at;
	struct ashlar_attach_snapshot *v;
	uint64_t snapshot, *off_bytes, end_bytes;
	struct ashlar_range *out;
	size_t *n;
};

/* Snapshots are compared with older ones only. */
static bool is_base_of(const struct thin_vol *s, const struct thin_vol *v)
{
	return s->kind == THIN_KIND_SNAPSHOT && s->state == THIN_VOLUME_LIVE && !s->leaving && s->family == v->family &&
	       (v->kind == THIN_KIND_VOLUME || s->id < v->id);
}

static int snapshots_there(void *arg)
{
	struct attach_call *c = arg;
	struct ashlar_pool *p;
	const struct thin_vol *v = pool_attach_vol(c->at, &p), *s, *volume;
	uint64_t own = v->kind == THIN_KIND_SNAPSHOT ? v->parent : v->id;
	size_t n = 0;

	list_for_each (s, thin_vols(p->thin), link)
		n += is_base_of(s, v);
	c->v = xcalloc(n + 1, sizeof(*c->v));
	*c->n = 0;
	list_for_each (s, thin_vols(p->thin), link) {
		struct ashlar_attach_snapshot *x = &c->v[*c->n];

		volume = is_base_of(s, v) ? thin_vol_by_id(p->thin, s->parent) : NULL;
		if (!volume)
			continue;
		++*c->n;
		x->id = snapshot_handle(s);
		if (s->parent == own)
			snprintf(x->name, sizeof(x->name), "%.127s", s->name);
		else
			snprintf(x->name, sizeof(x->name), "%.127s@%.127s", volume->name, s->name);
	}
	return 0;
}

int ashlar_co_attach_snapshots(struct ashlar_attach *at, struct ashlar_attach_snapshot **out, size_t *n)
{
	struct attach_call c = { .at = at, .n = n };
	int r = reactor_co_call(pool_attach_reactor(at), snapshots_there, &c);

	*out = c.v;
	return r;
}

static int diff_there(void *arg)
{
	struct attach_call *c = arg;
	struct ashlar_pool *p;
	struct thin_vol *to = pool_attach_vol(c->at, &p), *from = NULL, *s;

	list_for_each (s, thin_vols(p->thin), link)
		if (is_base_of(s, to) && snapshot_handle(s) == c->snapshot)
			from = s;
	if (!from)
		return -ENOENT;
	if (p->failed)
		return -ERR_POOL_FAILED;
	return diff_co_run(p, from, to, c->off_bytes, c->end_bytes, c->out, c->n);
}

int ashlar_co_attach_diff(struct ashlar_attach *at, uint64_t snapshot, uint64_t *off_bytes, uint64_t end_bytes,
			  struct ashlar_range *out, size_t *n)
{
	struct attach_call c = { .at = at, .snapshot = snapshot, .off_bytes = off_bytes, .end_bytes = end_bytes, .out = out, .n = n };

	return reactor_co_call(pool_attach_reactor(at), diff_there, &c);
}
