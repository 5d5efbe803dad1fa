/*
 * sim_transfer.c: see sim_transfer.h.
 */
#include "tests/lib/sim_transfer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/units.h"
#include "engine/pool/stream.h"

#define LAST_TRIES 60000 /* of a millisecond */

/* ---- parcels ---- */

void parcel_free(struct parcel *p)
{
	if (!p)
		return;
	if (!p->is_rest) {
		model_image_free(p->image);
		model_image_free(p->base);
	}
	free(p->bytes);
	free(p);
}

void parcel_keep(struct rig *g, struct parcel *p, unsigned slot)
{
	if (g->n_parcels < RIG_PARCELS_MAX) {
		g->parcels[g->n_parcels++] = p;
		return;
	}
	parcel_free(g->parcels[slot]);
	g->parcels[slot] = p;
}

void parcels_free(struct rig *g)
{
	while (g->n_parcels)
		parcel_free(g->parcels[--g->n_parcels]);
}

/* What the header says. False: the stream is none, which is the sender's fault. */
static bool parcel_look(struct rig *g, struct parcel *p)
{
	struct stream_header *h = xmalloc(sizeof(*h));
	struct stream_state st;
	struct err e = { 0 };
	int r = p->len < sizeof(struct stream_header_disk) ?
			-EPROTO :
			stream_header_decode((const struct stream_header_disk *)(const void *)p->bytes, h, &st, &e);

	if (r == 0) {
		p->guid = h->guid;
		p->base_guid = h->base_guid;
		p->start_bytes = h->start_bytes;
		snprintf(p->snap, sizeof(p->snap), "%.31s", h->snapshot);
		if (uuid_is_zero(&h->base_guid) != !p->base)
			r = -EPROTO;
	}
	xfree(h);
	if (r < 0)
		rig_fail(g, "what was sent is no such stream: %s", e.text);
	return r == 0;
}

/* ---- sending ---- */

static struct model_vol *volume_of(const struct rig *g, const struct model_vol *snap)
{
	return model_vol(g->model, snap->parent);
}

static struct model_image *co_image(struct rig *g, struct model_vol *snap)
{
	struct model_image *x;
	int r = rig_co_read_all(g, snap);

	if (r < 0) {
		if (!g->may_fail)
			rig_fail(g, "snapshot %s cannot be read: %s", snap->name, err_text(r));
		return NULL;
	}
	x = g->failed ? NULL : model_image_take(g->model, snap);
	if (!x && !g->failed)
		rig_fail(g, "all of snapshot %s has been read, and what is in it is not decided", snap->name);
	return x;
}

/* p has its images. Is it sent? */
static bool co_send(struct rig *g, struct parcel *p, struct model_vol *snap, struct model_vol *base, const char *token,
		    const struct parcel_way *way)
{
	char name[RIG_POINT_NAME], now[RIG_POINT_NAME], from[RIG_POINT_NAME], from_now[RIG_POINT_NAME];
	struct ashlar_send_spec s = { .snapshot = name, .from = base ? from : NULL, .resume = token };
	struct stream *io = parcel_stream_to(way);
	struct ashlar_pool *pool = rig_pool(g, snap);
	struct ashlar_transfer done;
	struct err e = { 0 };
	bool same;
	int r;

	rig_point_name(g, snap, name);
	rig_point_name(g, base ? base : snap, from);
	rig_note(g, "send %s from %s%s", name, base ? from : "nothing", token ? ", resumed" : "");
	r = ashlar_co_send(pool, &s, io, &done, &e);
	rig_note(g, "send %s: %d %s", name, r, e.text);
	free(p->bytes);
	p->bytes = parcel_stream_take(io, &p->len);
	same = !strcmp(name, rig_point_name(g, snap, now)) && !strcmp(from, rig_point_name(g, base ? base : snap, from_now)) &&
	       snap->state == MODEL_LIVE && (!base || base->state == MODEL_LIVE) && rig_pool(g, snap) == pool;
	if (r < 0 && same && !g->may_fail && way->max_bytes == SIZE_MAX && !(way->stop && *way->stop))
		rig_fail(g, "send %s: %s (%d)", name, e.text, r);
	return r == 0 && parcel_look(g, p);
}

struct parcel *rig_co_send(struct rig *g, struct model_vol *snap, struct model_vol *base, bool is_held, const struct parcel_way *way)
{
	struct parcel *p;
	bool ok;

	if (!rig_is_free(g, snap) || (base && !rig_is_free(g, base)))
		return NULL;
	p = calloc(1, sizeof(*p));
	volume_of(g, snap)->n_busy++;
	if (base)
		volume_of(g, base)->n_busy++;
	p->image = co_image(g, snap);
	p->base = base && p->image ? co_image(g, base) : NULL;
	ok = p->image && (!base || p->base);
	if (ok && is_held)
		ok = co_send(g, p, snap, base, NULL, way);
	volume_of(g, snap)->n_busy--;
	if (base)
		volume_of(g, base)->n_busy--;
	if (ok && !is_held)
		ok = co_send(g, p, snap, base, NULL, way);
	if (ok)
		return p;
	parcel_free(p);
	return NULL;
}

/* ---- receiving ---- */

struct receiving {
	struct rig *g;
	const struct rig_receive *x;
	struct parcel_way way;
	bool is_held;	/* x->to stays as it is until the engine has begun */
	bool is_refused; /* it must be */
	bool is_known;	/* the model knows: it may be there */
	bool is_last;	/* all of the stream has gone; x->to stays as it is until the end */
	unsigned set;
};

/* An error beyond redundancy has left open whether there is such a volume. */
static bool may_be_there(const struct rig_receive *x, struct model *m)
{
	const struct model_vol *v = x->to ? NULL : model_vol_find(m, x->name);

	return v && v->state != MODEL_LIVE;
}

/* By what there is now. */
static bool must_be_refused(const struct receiving *v)
{
	const struct rig_receive *x = v->x;
	struct model *m = v->g->model;
	uint32_t content = model_image_content(x->parcel->image);

	if (!x->to)
		return model_vol_find(m, x->name) != NULL;
	if (x->to->state != MODEL_LIVE || model_vol_has(m, x->to, content) || model_snap_find(m, x->to, x->parcel->snap))
		return true;
	if (!model_vol_has(m, x->to, model_image_content(x->parcel->base)))
		return true;
	return !x->force && !model_image_may_be(m, x->to, x->parcel->base);
}

static void hold_end(struct receiving *v)
{
	if (v->is_held)
		v->x->to->n_busy--;
	v->is_held = false;
}

/* The last byte goes. From here on it may be there. */
static bool co_last(struct receiving *v)
{
	const struct rig_receive *x = v->x;
	unsigned i;

	for (i = 0; x->to && x->to->state != MODEL_GONE && !rig_is_free(v->g, x->to); i++) {
		if (i == LAST_TRIES || v->g->failed || (x->stop && *x->stop))
			return false;
		co_sleep_ns(NS_PER_MS);
	}
	v->is_last = true;
	if (may_be_there(x, v->g->model))
		return false;
	if (x->to)
		x->to->n_busy++;
	v->is_refused = must_be_refused(v);
	if (v->is_refused)
		return true;
	v->is_known = true;
	v->set = model_receive(v->g->model, x->to, x->name, x->parcel->snap, x->parcel->image);
	return true;
}

static bool receiving_co_before(void *arg, size_t at, size_t n)
{
	struct receiving *v = arg;
	const struct rig_receive *x = v->x;

	if (at)
		hold_end(v);
	return at + n < x->parcel->len || x->flip != RIG_NEVER || co_last(v);
}

static uint8_t *bytes_of(const struct rig_receive *x)
{
	uint8_t *p = xmalloc(x->parcel->len + 1);

	memcpy(p, x->parcel->bytes, x->parcel->len);
	if (x->flip < x->parcel->len)
		p[x->flip] ^= (uint8_t)(1U << x->seed % 8);
	return p;
}

/* It has not come to its end: had it a reason? */
static void refusal_check(struct receiving *v, int r, const struct err *e, const char *name)
{
	const struct rig_receive *x = v->x;
	struct rig *g = v->g;

	if (v->is_refused || x->cut < x->parcel->len || x->flip < x->parcel->len || (x->stop && *x->stop) || (r == -EBUSY && !x->force))
		return;
	if (x->to && (x->to->state != MODEL_LIVE || (r == -EBUSY && rig_is_moving(g, x->to))))
		return;
	(void)!rig_is_unknown(g, r, e, "receive", name);
}

int rig_co_receive(struct rig *g, const struct rig_receive *x)
{
	struct receiving v = { .g = g, .x = x };
	struct parcel_way way = { .seed = x->seed, .slow_ns = x->slow_ns, .max_bytes = x->cut, .stop = x->stop, .arg = &v,
				  .co_before = receiving_co_before, .first_bytes = sizeof(struct stream_header_disk) };
	struct ashlar_receive_spec s = { .force = x->force, .no_resume = x->no_resume, .keep_bytes = x->keep_bytes };
	struct ashlar_pool *pool = x->to ? rig_pool(g, x->to) : g->p;
	char name[MODEL_NAME_MAX];
	struct ashlar_transfer done;
	struct stream *io;
	struct err e = { 0 };
	uint8_t *bytes;
	int r;

	if (may_be_there(x, g->model) || (x->to && !rig_is_free(g, x->to)))
		return -EAGAIN;
	snprintf(name, sizeof(name), "%s", x->to ? x->to->name : x->name);
	s.volume = name;
	v.is_refused = must_be_refused(&v);
	v.is_held = x->to != NULL;
	if (x->to)
		x->to->n_busy++;
	bytes = bytes_of(x);
	io = parcel_stream_from(bytes, x->parcel->len, &way);
	rig_note(g, "receive %s@%s from %" PRIu64 "%s%s", name, x->parcel->snap, x->parcel->start_bytes, x->force ? ", force" : "",
		 v.is_refused ? ", must be refused" : "");
	r = ashlar_co_receive(pool, &s, io, &done, &e);
	rig_note(g, "receive %s@%s: %d %s", name, x->parcel->snap, r, e.text);
	stream_close(io);
	xfree(bytes);
	hold_end(&v);
	if (v.is_last && x->to)
		x->to->n_busy--;
	if (r == 0 && !v.is_known)
		rig_fail(g, "a stream that is %s has been received as %s", v.is_last ? "to be refused" : "cut or damaged", name);
	else if (r < 0 && !v.is_known && !(x->to && rig_has_moved(g, x->to, pool, r)))
		refusal_check(&v, r, &e, name);
	else if (r < 0 && !v.is_known)
		; /* it has gone to another pool meanwhile */
	else if ((r == -EBUSY && !x->force) || !rig_is_unknown(g, r, &e, "receive", name))
		model_received(g->model, v.set, r == 0);
	return r;
}

/* ---- what is kept ---- */

static struct parcel *parcel_of(struct rig *g, const struct stream_token *t)
{
	unsigned i;

	for (i = 0; i < g->n_parcels; i++)
		if (uuid_is_equal(&g->parcels[i]->guid, &t->guid) && uuid_is_equal(&g->parcels[i]->base_guid, &t->base_guid))
			return g->parcels[i];
	return NULL;
}

/* Any of the snapshots, of those that are equal, that can send it. */
static struct model_vol *source_of(struct rig *g, const struct parcel *p)
{
	uint32_t content = model_image_content(p->image);
	unsigned i;

	for (i = 0; i < model_n_snaps(g->model); i++) {
		struct model_vol *s = model_snap(g->model, i);

		if (s->content == content && rig_is_free(g, s) &&
		    (!p->base || model_vol_has(g->model, volume_of(g, s), model_image_content(p->base))))
			return s;
	}
	return NULL;
}

/* False: it cannot go on, for a reason. */
static bool co_resume(struct rig *g, const struct ashlar_receive_info *k, const struct parcel *of, struct rng *rng, const bool *stop)
{
	struct parcel_way way = { .seed = rng_next(rng), .max_bytes = SIZE_MAX, .stop = stop };
	struct model_vol *to = k->is_incremental ? model_vol_find(g->model, k->volume) : NULL, *from = of ? source_of(g, of) : NULL;
	struct rig_receive x = { .to = to, .name = k->volume, .keep_bytes = 4096, .force = true, .seed = rng_next(rng), .cut = RIG_NEVER,
				 .flip = RIG_NEVER, .stop = stop };
	uint64_t sub = g->q.n_disks ? MAX(g->cluster_bytes, g->q.cluster_bytes) / 16 : 1; /* it may be sent from either pool */
	struct parcel *p;
	bool ok;

	if (!from || (k->is_incremental && (!to || !rig_is_free(g, to))))
		return false;
	p = calloc(1, sizeof(*p));
	p->is_rest = true;
	p->image = of->image;
	p->base = of->base;
	volume_of(g, from)->n_busy++;
	ok = co_send(g, p, from, NULL, k->token, &way);
	volume_of(g, from)->n_busy--;
	x.parcel = p;
	if (ok && (p->start_bytes > k->received_bytes || p->start_bytes + sub <= k->received_bytes))
		rig_fail(g, "%" PRIu64 " bytes have been received for %s, and the stream goes on at %" PRIu64, k->received_bytes, k->volume,
			 p->start_bytes);
	if (ok && rng_chance(rng, 1, 4))
		x.cut = rng_below(rng, p->len);
	ok = ok && rig_co_receive(g, &x) == 0;
	parcel_free(p);
	return ok;
}

/* Nothing may be kept any more if the volume is being deleted, or has been, since somebody looked. */
static void co_abort(struct rig *g, struct ashlar_pool *p, const char *volume, const struct model_vol *into)
{
	struct err e = { 0 };
	int r;

	rig_note(g, "receive abort %s", volume);
	r = ashlar_co_receive_abort(p, volume, &e);
	if (r == -ENOENT && into && into->state != MODEL_LIVE)
		return;
	if (!rig_is_unknown(g, r, &e, "receive abort", volume) && r == 0 && ashlar_co_receive_abort(p, volume, NULL) != -ENOENT)
		rig_fail(g, "what is kept for %s has been dropped, and is there", volume);
}

static void co_kept_one(struct rig *g, struct ashlar_pool *p, const struct ashlar_receive_info *k, struct rng *rng, bool all, const bool *stop)
{
	const struct model_vol *into;
	struct stream_token t;

	if (k->received_bytes > k->size_bytes || stream_token_parse(k->token, &t) < 0 || t.start_bytes != k->received_bytes) {
		rig_fail(g, "of %s %" PRIu64 " of %" PRIu64 " bytes are kept, and the token is %s", k->volume, k->received_bytes,
			 k->size_bytes, k->token);
		return;
	}
	if (!all && rng_chance(rng, 1, 6))
		return;
	into = k->is_incremental ? model_vol_find(g->model, k->volume) : NULL;
	if (rng_chance(rng, 2, 3) && co_resume(g, k, parcel_of(g, &t), rng, stop))
		return;
	if (all || rng_chance(rng, 1, 4))
		co_abort(g, p, k->volume, into);
}

static void co_kept_in(struct rig *g, struct ashlar_pool *p, struct rng *rng, bool all, const bool *stop)
{
	struct ashlar_receive_info *k = NULL;
	struct err e = { 0 };
	size_t n = 0, i;
	int r = ashlar_co_receive_list(p, &k, &n, &e);

	for (i = 0; i < n && r == 0 && !g->failed && !(stop && *stop); i++)
		co_kept_one(g, p, &k[i], rng, all, stop);
	xfree(k);
	if (r < 0)
		rig_fail(g, "receive list: %s (%d)", e.text, r);
	if (r < 0 || !all || g->failed)
		return;
	r = ashlar_co_receive_list(p, &k, &n, &e);
	if (r == 0 && n && !g->may_fail)
		rig_fail(g, "of %s something is kept that has been dropped, or received", k[0].volume);
	xfree(k);
}

void rig_co_kept(struct rig *g, struct rng *rng, bool all, const bool *stop)
{
	struct ashlar_pool *p;
	unsigned i;

	for (i = 0; (p = rig_pool_at(g, i)); i++)
		co_kept_in(g, p, rng, all, stop);
}
