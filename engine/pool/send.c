/*
 * send.c: a snapshot, or what differs between two of them, as a stream.
 *
 * The ranges come from the maps: what the snapshot holds (block status), or where two maps of one family point to different
 * places (thin_co_diff). Neither looks at data. They are put together to requests, read several at a time, and written to the
 * stream in ascending order.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/mutant.h"
#include "engine/base/units.h"
#include "engine/pool/ranges.h"
#include "engine/pool/transfer.h"
#include "engine/pool/volumes.h"

#define READ_BYTES (256 * 1024)

struct send {
	struct pool_transfer t;
	const struct ashlar_send_spec *spec;
	struct thin_vol *snap, *base; /* held; base NULL: whole */
	struct reactor *home;	      /* the snapshot's */
	struct bdev *bdev;
	struct stream_header h;
	struct stream_state st;
	struct batch batch[2];
	uint64_t sub_bytes;
	struct ranges ranges;
	struct stream_record_disk rec[BATCH_PIECES];
	struct iovec iov[2 * BATCH_PIECES];
};

/* ---- what to send ---- */

static struct thin_vol *snap_by_guid(struct ashlar_pool *p, uint64_t family, const struct uuid *guid)
{
	struct thin_vol *v;

	list_for_each (v, thin_vols(p->thin), link)
		if (v->kind == THIN_KIND_SNAPSHOT && v->state == THIN_VOLUME_LIVE && v->family == family && uuid_is_equal(&v->guid, guid))
			return v;
	return NULL;
}

/* Or from one that has been received from it: no receiver can have the one without having the other. */
static bool base_is_itself(const struct send *s)
{
	return s->base && uuid_is_equal(&s->base->guid, &s->snap->guid);
}

static int base_by_name(struct send *s, const char *name, struct err *e)
{
	struct ashlar_pool *p = s->t.p;
	struct thin_vol *v = thin_vol_by_id(p->thin, s->snap->parent);
	int r;

	if (!strchr(name, '@')) {
		s->base = thin_snap_find(p->thin, v, name);
		if (!s->base)
			return err_set(e, -ENOENT, "there is no snapshot %s/%s@%.127s", p->label->name, v->name, name);
	} else {
		r = pool_snap_find(p, name, &s->base, e);
		if (r < 0)
			return r;
	}
	if (base_is_itself(s))
		return err_set(e, -EINVAL, "a snapshot cannot be sent from itself: name an older one");
	if (s->base->family != s->snap->family)
		return err_set(e, -EINVAL, "%s/%.255s is not of the same family: send the whole snapshot, without --from", p->label->name, name);
	return 0;
}

/* The token says what the stream was; from where it goes on. */
static int token_take(struct send *s, struct err *e)
{
	struct ashlar_pool *p = s->t.p;
	struct stream_token tok;
	char name[POOL_POINT_NAME];

	if (stream_token_parse(s->spec->resume, &tok) < 0)
		return err_set(e, -EINVAL, "this is not a token as `ashlar receive` prints them: copy the whole of it");
	if (!uuid_is_equal(&tok.guid, &s->snap->guid))
		return err_set(e, -EINVAL, "the token belongs to another snapshot than %s/%s", p->label->name, pool_point_name(p, s->snap, name));
	if (!uuid_is_zero(&tok.base_guid) && !s->base) {
		s->base = snap_by_guid(p, s->snap->family, &tok.base_guid);
		if (!s->base)
			return err_set(e, -ENOENT, "the snapshot that the stream began from is not in pool %s any more", p->label->name);
	}
	if (s->base ? !uuid_is_equal(&s->base->guid, &tok.base_guid) : !uuid_is_zero(&tok.base_guid))
		return err_set(e, -EINVAL, "the token belongs to a stream that began from another snapshot: leave out --from");
	if (base_is_itself(s) || tok.start_bytes > s->snap->size_bytes)
		return err_set(e, -EINVAL, "the token is not one of this snapshot");
	/* It may have been sent from a pool with smaller subclusters; then a little of it comes again. */
	s->h.start_bytes = tok.start_bytes == s->snap->size_bytes ? tok.start_bytes : ALIGN_DOWN(tok.start_bytes, s->sub_bytes);
	return 0;
}

/* Holds what it needs, or nothing. */
static int send_co_hold(struct send *s, struct err *e)
{
	struct ashlar_pool *p = s->t.p;
	int r = 0;

	if (s->base)
		r = pool_co_vol_hold(p, s->base);
	if (r < 0)
		return err_default(e, r, "opening the base snapshot");
	r = pool_co_vol_hold(p, s->snap);
	if (r < 0 && s->base)
		pool_vol_release(p, s->base);
	s->t.volumes[0] = s->snap->id;
	s->t.volumes[1] = s->base ? s->base->id : 0;
	return err_default(e, r, "opening the snapshot");
}

static int send_co_locked(struct send *s, struct err *e)
{
	struct ashlar_pool *p = s->t.p;
	int r = pool_snap_find(p, s->spec->snapshot, &s->snap, e);

	s->sub_bytes = p->label->cluster_bytes / THIN_SUBS;
	if (r == 0 && s->spec->from)
		r = base_by_name(s, s->spec->from, e);
	if (r == 0 && s->spec->resume)
		r = token_take(s, e);
	return r < 0 ? r : send_co_hold(s, e);
}

static void header_fill(struct send *s)
{
	struct thin_vol *v = thin_vol_by_id(s->t.p->thin, s->snap->parent);

	s->h.guid = s->snap->guid;
	s->h.size_bytes = s->snap->size_bytes;
	s->h.created_wall_ns = s->snap->created_wall_ns;
	s->h.grain_bytes = (uint32_t)s->sub_bytes;
	s->h.cluster_bytes = s->t.p->label->cluster_bytes;
	snprintf(s->h.pool, sizeof(s->h.pool), "%.63s", s->t.p->label->name);
	snprintf(s->h.volume, sizeof(s->h.volume), "%.127s", v ? v->name : "");
	snprintf(s->h.snapshot, sizeof(s->h.snapshot), "%.127s", s->snap->name);
	if (!s->base)
		return;
	s->h.base_guid = s->base->guid;
	snprintf(s->h.base, sizeof(s->h.base), "%.127s", s->base->name);
}

/* ---- the stream ---- */

static int batch_co_fill(struct send *s, struct batch *b)
{
	struct ashlar_range x;
	int r;

	batch_clear(b);
	r = ranges_co_find(&s->ranges);
	while (r == 0 && s->ranges.cur.len_bytes && batch_has_room(b, s->ranges.cur.is_data ? READ_BYTES : 0)) {
		r = ranges_co_take(&s->ranges, s->ranges.cur.is_data ? READ_BYTES : UINT64_MAX, &x);
		if (r == 0 && (x.is_data || !MUTANT(DIFF_WITHOUT_HOLES)))
			batch_add(b, x.is_data ? STREAM_DATA : STREAM_ZERO, x.off_bytes, x.len_bytes);
	}
	return r;
}

static int send_co_failed(struct send *s, int r, struct err *e)
{
	int c = pool_transfer_check(&s->t, e);
	char at[16], of[16];

	return c < 0 ? c : err_set(e, r, "the stream was cut after %s of %s of the volume: %s", size_format(s->st.pos_bytes, at, sizeof(at)),
				   size_format(s->h.size_bytes, of, sizeof(of)), err_text(r));
}

static int batch_co_send(struct send *s, struct batch *b, struct err *e)
{
	unsigned i, n = 0;
	int r;

	for (i = 0; i < b->n; i++) {
		struct batch_piece *x = &b->v[i];

		stream_record_encode(&s->st, x->type, x->off_bytes, x->len_bytes, x->buf, &s->rec[i]);
		s->iov[n++] = (struct iovec){ &s->rec[i], sizeof(s->rec[i]) };
		if (x->type == STREAM_DATA)
			s->iov[n++] = (struct iovec){ x->buf, x->len_bytes };
	}
	if (!n)
		return 0;
	r = stream_co_send_all(s->t.io, s->iov, n, UINT64_MAX);
	if (s->spec->progress)
		s->spec->progress(s->spec->progress_arg, s->st.pos_bytes, s->h.size_bytes);
	return r < 0 ? send_co_failed(s, r, e) : 0;
}

/* One batch is read while the one before goes out. */
static int send_co_body(struct send *s, struct err *e)
{
	unsigned turn = 0;
	int r = 0, w;

	do {
		struct batch *next = &s->batch[turn], *now = &s->batch[!turn];

		r = batch_co_fill(s, next);
		if (r < 0) {
			w = pool_transfer_check(&s->t, e);
			r = w < 0 ? w : err_default(e, r, "finding out what to send");
			break;
		}
		batch_start(next);
		r = batch_co_send(s, now, e);
		w = batch_co_wait(next);
		batch_clear(now);
		if (r == 0 && w < 0) {
			r = pool_transfer_check(&s->t, e);
			r = r < 0 ? r : err_set(e, w, "a read of the snapshot failed: %s", err_text(w));
		}
		turn = !turn;
	} while (r == 0 && s->batch[!turn].n);
	return r;
}

static int send_co_end(struct send *s, struct err *e)
{
	struct stream_end_disk end;
	struct iovec iov[] = { { &s->rec[0], sizeof(s->rec[0]) }, { &end, sizeof(end) } };
	int r;

	stream_end_encode(&s->st, &s->rec[0], &end);
	r = stream_co_send_all(s->t.io, iov, 2, UINT64_MAX);
	return r < 0 ? send_co_failed(s, r, e) : 0;
}

static int send_co_stream(struct send *s, struct err *e)
{
	struct stream_header_disk *d = xmalloc(sizeof(*d));
	struct iovec iov = { d, sizeof(*d) };
	unsigned i;
	int r;

	header_fill(s);
	stream_header_encode(&s->h, d, &s->st);
	s->home = thin_volume_home(s->t.p->thin, s->snap->id);
	s->bdev = thin_volume_bdev(s->snap->open);
	ranges_init(&s->ranges, s->t.p, s->base, s->snap, s->h.start_bytes);
	for (i = 0; i < 2; i++)
		batch_init(&s->batch[i], s->bdev, s->home, false);
	r = stream_co_send_all(s->t.io, &iov, 1, UINT64_MAX);
	xfree(d);
	r = r < 0 ? send_co_failed(s, r, e) : send_co_body(s, e);
	if (r == 0)
		r = send_co_end(s, e);
	for (i = 0; i < 2; i++)
		batch_fini(&s->batch[i]);
	return r;
}

int ashlar_co_send(struct ashlar_pool *p, const struct ashlar_send_spec *spec, struct stream *to, struct ashlar_transfer *out,
		   struct err *e)
{
	struct send *s = xcalloc(1, sizeof(*s));
	int r;

	s->spec = spec;
	pool_transfer_begin(&s->t, p, to);
	r = pool_transfer_co_admin(&s->t, e);
	if (r == 0) {
		r = send_co_locked(s, e);
		co_mutex_unlock(&p->a->admin);
	}
	if (r == 0) {
		r = send_co_stream(s, e);
		pool_vol_release(p, s->snap);
		if (s->base)
			pool_vol_release(p, s->base);
	}
	memset(out, 0, sizeof(*out));
	if (r == 0) {
		snprintf(out->snapshot, sizeof(out->snapshot), "%.127s@%.127s", s->h.volume, s->h.snapshot);
		snprintf(out->base, sizeof(out->base), "%.127s", s->h.base);
		out->size_bytes = s->h.size_bytes;
		out->start_bytes = s->h.start_bytes;
		out->data_bytes = s->st.data_bytes;
		out->zero_bytes = s->st.zero_bytes;
	}
	pool_transfer_end(&s->t);
	xfree(s);
	return r;
}
