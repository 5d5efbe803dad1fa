/*
 * receive.c: a stream becomes a snapshot, as a whole or not at all.
 *
 * What comes is written to a hidden volume (RECEIVING), a new one or a clone of the base snapshot. From time to time the data is
 * flushed and then the volume's record says how far it goes: what a crash leaves, and where a resumed stream begins. The stream
 * is in ascending order, and what has been written beyond that point is what the resumed one will write there too. When END has
 * come and all sums were right, one record (thin_co_received) makes contents and snapshot visible.
 *
 * A crash leaves the hidden volume, which is resumed, dropped by a new whole stream to the same name, or by abort; or, after
 * that record, the volume and the snapshot.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/mutant.h"
#include "engine/base/units.h"
#include "engine/pool/transfer.h"
#include "engine/pool/volumes.h"

#define KEEP_BYTES (64 * MIB)

struct receive {
	struct pool_transfer t;
	const struct ashlar_receive_spec *spec;
	struct stream_reader in;
	struct stream_header h;
	struct stream_state st;
	struct raid_profile profile; /* of the volume that is to be made */
	struct thin_vol *v; /* the hidden one, held */
	struct reactor *home;
	struct batch batch[2];
	uint64_t written_bytes; /* all before has been written */
	uint64_t kept_bytes;	/* as of the newest record that counts it, less than 64 MiB of data behind */
	uint64_t fresh_bytes;	/* data since */
};

/* ---- hidden volumes ---- */

/* The volume that it will be, or change. */
static const char *receiver_name(struct ashlar_pool *p, const struct thin_vol *v)
{
	struct thin_vol *of = v->parent ? thin_vol_by_id(p->thin, v->parent) : NULL;

	return of && of->state == THIN_VOLUME_LIVE ? of->name : v->name;
}

static struct thin_vol *receiver_find(struct ashlar_pool *p, const char *name)
{
	struct thin_vol *v;

	list_for_each (v, thin_vols(p->thin), link)
		if (v->state == THIN_VOLUME_RECEIVING && !strcmp(receiver_name(p, v), name))
			return v;
	return NULL;
}

struct thin_vol *pool_receiver_of(struct ashlar_pool *p, const struct thin_vol *of)
{
	struct thin_vol *v;

	list_for_each (v, thin_vols(p->thin), link)
		if (v->state == THIN_VOLUME_RECEIVING && v->parent == of->id)
			return v;
	return NULL;
}

static char *receiver_token(const struct thin_vol *v, char buf[STREAM_TOKEN_LEN])
{
	struct stream_token tok = { .guid = v->guid, .base_guid = v->base_guid, .start_bytes = v->received_bytes };

	return stream_token_format(&tok, buf);
}

/* Coroutine under a->admin. */
static int receiver_co_drop(struct ashlar_pool *p, struct thin_vol *v, struct err *e)
{
	if (v->n_attached)
		return err_set(e, -EBUSY, "volume %s/%s is being received", p->label->name, receiver_name(p, v));
	return pool_co_vols_delete(p, &v, 1, false, false, NULL, e);
}

/* ---- may it be received ---- */

static struct thin_vol *snap_by_guid(struct ashlar_pool *p, const struct thin_vol *of, const struct uuid *guid)
{
	struct thin_vol *v;

	list_for_each (v, thin_vols(p->thin), link)
		if (v->kind == THIN_KIND_SNAPSHOT && v->state == THIN_VOLUME_LIVE && v->parent == of->id && uuid_is_equal(&v->guid, guid))
			return v;
	return NULL;
}

static int check_header(struct receive *x, struct err *e)
{
	struct ashlar_pool *p = x->t.p;
	uint32_t block = p->label->block_bytes;
	int r = name_check("snapshot", x->h.snapshot, ASHLAR_VOLUME_NAME_MAX, e);

	if (r < 0)
		return err_prefix(e, "the stream cannot be received: ");
	if (x->h.size_bytes % block || x->h.grain_bytes % block)
		return err_set(e, -EINVAL, "the stream is of a volume with smaller blocks than the %u bytes of pool %s: receive it into "
			       "another pool", block, p->label->name);
	return 0;
}

/* Coroutine. Does the volume still have what its snapshot has? */
static int volume_co_unchanged(struct receive *x, struct thin_vol *of, struct thin_vol *base, struct err *e)
{
	struct ashlar_pool *p = x->t.p;
	uint64_t cluster = 0;
	uint16_t mask, data;
	int r;

	if (x->spec->force || MUTANT(CHANGES_NOT_SEEN))
		return 0;
	if (of->n_attached)
		return err_set(e, -EBUSY, "volume %s/%s is in use by %u client%s: end them first, or use --force to change it under them",
			       p->label->name, of->name, of->n_attached, of->n_attached == 1 ? "" : "s");
	r = of->size_bytes == base->size_bytes ? thin_co_diff(p->thin, base, of, &cluster, &mask, &data) : 0;
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return err_set(e, r, "finding out whether volume %s/%s has changed: %s", p->label->name, of->name, err_text(r));
	return err_set(e, -EBUSY, "volume %s/%s has changed since its snapshot %s/%s@%s: use --force to lose what was written", p->label->name,
		       of->name, p->label->name, of->name, base->name);
}

/* Coroutine under a->admin: before anything is made, and again before it becomes visible. of: the volume that is changed; NULL: it
 * will be one. */
static int check_co_target(struct receive *x, const char *name, struct thin_vol *of, struct err *e)
{
	char export_name[POOL_EXPORT_NAME];
	struct ashlar_pool *p = x->t.p;
	struct thin_vol *base, *have;
	int r;

	if (!of) {
		if (thin_vol_find(p->thin, name))
			return err_set(e, -EEXIST, "volume %s/%s exists already, and the stream is of a whole snapshot: receive it under "
				       "another name", p->label->name, name);
		r = pool_check_name_free(p, NULL, name, e);
		if (r < 0)
			return r;
		snprintf(export_name, sizeof(export_name), "%.63s/%.127s", p->label->name, name);
		r = pool_check_export_free(p->a, export_name, NULL, e);
		snprintf(export_name, sizeof(export_name), "%.63s/%.127s@%.127s", p->label->name, name, x->h.snapshot);
		return r < 0 ? r : pool_check_export_free(p->a, export_name, NULL, e);
	}
	have = snap_by_guid(p, of, &x->h.guid);
	if (have)
		return err_set(e, -EEXIST, "volume %s/%s has this snapshot already: %s/%s@%s", p->label->name, of->name, p->label->name,
			       of->name, have->name);
	base = snap_by_guid(p, of, &x->h.base_guid);
	if (!base)
		return err_set(e, -ENOENT, "volume %s/%s does not have the snapshot that the stream begins from (%.127s): send the whole "
			       "snapshot, or from one that is there", p->label->name, of->name, x->h.base);
	r = pool_check_new_snap(p, of, x->h.snapshot, NULL, e);
	return r < 0 ? r : volume_co_unchanged(x, of, base, e);
}

/* ---- beginning ---- */

static int whole_co_create(struct receive *x, struct err *e)
{
	struct ashlar_pool *p = x->t.p;
	struct thin_vol *as = xcalloc(1, sizeof(*as));
	int r = 0;

	as->cls = (struct thin_class){ x->profile.layout, x->profile.copies };
	as->size_bytes = x->h.size_bytes;
	as->full_wait_ns = ASHLAR_FULL_WAIT_DEFAULT_NS;
	as->guid = x->h.guid;
	snprintf(as->name, sizeof(as->name), "%.127s", x->spec->volume);
	snprintf(as->export_name, sizeof(as->export_name), "%.127s", x->h.snapshot);
	if (pool_layout_is_parity(x->profile.layout))
		r = pool_co_stripe_logs_ensure(p, e);
	if (r == 0)
		r = pool_full_sentence(p, thin_co_receiver_create(p->thin, as, &x->v), "receiving a volume", e);
	xfree(as);
	return r;
}

/* A clone of the base; from its second record on it is worth keeping. */
static int incremental_co_create(struct receive *x, struct thin_vol *of, struct err *e)
{
	struct ashlar_pool *p = x->t.p;
	struct thin_vol *base = snap_by_guid(p, of, &x->h.base_guid), *to;
	struct thin_copy c = { .source = base, .name = of->name, .kind = THIN_KIND_VOLUME, .hidden = THIN_COPY_RECEIVING, .parent = of->id,
			       .guid = x->h.guid };
	int r;

	co_mutex_lock(&base->admin);
	r = thin_co_copy(p->thin, &c, 1);
	co_mutex_unlock(&base->admin);
	if (r < 0)
		return pool_full_sentence(p, r, "receiving a snapshot", e);
	x->v = thin_vol_by_id(p->thin, c.id);
	if (x->h.size_bytes < x->v->size_bytes)
		r = pool_co_vol_resize_open(p, x->v, x->h.size_bytes);
	to = xmalloc(sizeof(*to));
	*to = *x->v;
	to->size_bytes = x->h.size_bytes;
	to->base_guid = x->h.base_guid;
	snprintf(to->export_name, sizeof(to->export_name), "%.127s", x->h.snapshot);
	r = r < 0 ? err_default(e, r, "receiving a snapshot") : pool_co_vol_update(p, x->v, to, e);
	xfree(to);
	if (r < 0 && pool_co_vols_delete(p, &x->v, 1, false, false, NULL, NULL) < 0)
		pool_log(p, "what was begun for receiving into %s could not be deleted; opening the pool does it", of->name);
	return r;
}

/* The stream is not at its beginning: is the part before it here? */
static int check_resumes(struct receive *x, struct thin_vol *v, struct err *e)
{
	struct ashlar_pool *p = x->t.p;
	char tok[STREAM_TOKEN_LEN];

	if (!v || !uuid_is_equal(&v->guid, &x->h.guid) || !uuid_is_equal(&v->base_guid, &x->h.base_guid) ||
	    v->size_bytes != x->h.size_bytes)
		return err_set(e, -ENOENT, "the stream goes on at %" PRIu64 " bytes, and what comes before is not kept for %s/%s: send it from "
			       "the beginning, without --resume", x->h.start_bytes, p->label->name, x->spec->volume);
	if (v->received_bytes < x->h.start_bytes)
		return err_set(e, -EINVAL, "the stream goes on at %" PRIu64 " bytes, and only %" PRIu64 " have been received: send with --resume %s",
			       x->h.start_bytes, v->received_bytes, receiver_token(v, tok));
	return 0;
}

/* The snapshot has got another name where it comes from, since the stream was cut. */
static int receive_co_rename(struct receive *x, struct err *e)
{
	struct thin_vol *to;
	int r;

	if (!strcmp(x->v->export_name, x->h.snapshot))
		return 0;
	to = xmalloc(sizeof(*to));
	*to = *x->v;
	memset(to->export_name, 0, sizeof(to->export_name));
	snprintf(to->export_name, sizeof(to->export_name), "%.127s", x->h.snapshot);
	r = pool_co_vol_update(x->t.p, x->v, to, e);
	xfree(to);
	return r;
}

/* A layout may be asked for where the volume is made. old: what is kept, and gone on with; of: the volume that is there. */
static int check_layout(struct receive *x, const struct thin_vol *old, const struct thin_vol *of, struct err *e)
{
	struct ashlar_pool *p = x->t.p;
	const struct thin_vol *has = of ? of : x->h.start_bytes ? old : NULL;
	struct raid_profile prof;
	int r = has && !x->spec->layout ? 0 : pool_check_layout(p, x->spec->volume, x->spec->layout, &x->profile, e);

	if (r < 0 || !has || !x->spec->layout)
		return r;
	prof = (struct raid_profile){ has->cls.layout, has->cls.copies };
	if (!strcmp(raid_profile_name(prof), raid_profile_name(x->profile)))
		return 0;
	return err_set(e, -EINVAL, "volume %s/%s has layout %s, which this stream does not change: leave out --layout", p->label->name,
		       x->spec->volume, raid_profile_name(prof));
}

/* Under a->admin. */
static int receive_co_begin(struct receive *x, struct err *e)
{
	struct ashlar_pool *p = x->t.p;
	bool is_whole = uuid_is_zero(&x->h.base_guid);
	struct thin_vol *old = receiver_find(p, x->spec->volume), *of = is_whole ? NULL : pool_vol_find(p, x->spec->volume, e);
	int r;

	if (!is_whole && !of)
		return -ENOENT;
	if (of && of->move_flags & THIN_MOVE_WANTED)
		return err_set(e, -EBUSY, "volume %s/%s is being moved: receive into it when that is over", p->label->name, of->name);
	if (old && old->n_attached)
		return err_set(e, -EBUSY, "volume %s/%s is being received already", p->label->name, x->spec->volume);
	r = check_co_target(x, x->spec->volume, of, e);
	if (r == 0 && x->h.start_bytes)
		r = check_resumes(x, old, e);
	if (r == 0)
		r = check_layout(x, old, of, e);
	if (r == 0)
		r = pool_co_feature(p, LABEL_INCOMPAT_SNAPSHOTS, e);
	if (r < 0)
		return r;
	if (x->h.start_bytes) {
		x->v = old;
	} else {
		r = old ? receiver_co_drop(p, old, e) : 0;
		if (r == 0)
			r = is_whole ? whole_co_create(x, e) : incremental_co_create(x, of, e);
	}
	if (r == 0)
		r = receive_co_rename(x, e);
	if (r == 0)
		r = err_default(e, pool_co_vol_hold(p, x->v), "opening the hidden volume");
	if (r < 0)
		return r;
	if (of)
		pool_co_vol_set_full_wait(p, x->v, of->full_wait_ns); /* not what it was at the snapshot that this begins with */
	x->t.volumes[0] = x->v->id;
	x->written_bytes = x->kept_bytes = x->v->received_bytes;
	return 0;
}

/* ---- data ---- */

static int flush_there(void *arg)
{
	return bdev_co_flush(arg);
}

/* What has been written is kept: the data durable, then the record that says so. No batch runs. */
static int receive_co_keep(struct receive *x, struct err *e)
{
	struct ashlar_pool *p = x->t.p;
	struct thin_vol *to;
	int r;

	x->fresh_bytes = 0;
	if (MUTANT(TOKEN_AHEAD))
		x->written_bytes = x->st.pos_bytes;
	if (x->written_bytes <= x->kept_bytes)
		return 0;
	r = reactor_co_call(x->home, flush_there, thin_volume_bdev(x->v->open));
	if (r < 0)
		return err_set(e, r, "what was received could not be made durable: %s", err_text(r));
	to = xmalloc(sizeof(*to));
	*to = *x->v;
	to->received_bytes = x->written_bytes;
	r = pool_co_vol_update(p, x->v, to, e);
	xfree(to);
	if (r == 0)
		x->kept_bytes = x->written_bytes;
	return r;
}

static uint64_t batch_end(const struct batch *b)
{
	return b->n ? b->v[b->n - 1].off_bytes + b->v[b->n - 1].len_bytes : 0;
}

static int batch_co_finish(struct receive *x, struct batch *b, struct err *e)
{
	int r = batch_co_wait(b);
	unsigned i;

	if (r < 0)
		return pool_full_sentence(x->t.p, r, "receiving", e);
	x->written_bytes = MAX(x->written_bytes, batch_end(b));
	for (i = 0; i < b->n; i++)
		x->fresh_bytes += b->v[i].type == STREAM_DATA ? b->v[i].len_bytes : 0;
	batch_clear(b);
	return 0;
}

/* The stream has given an error, or ended. */
static int cut(struct receive *x, int r, struct err *e)
{
	int c = pool_transfer_check(&x->t, e);
	char at[16], of[16];

	return c < 0 ? c : err_set(e, r, "the stream was cut after %s of %s of the volume", size_format(x->st.pos_bytes, at, sizeof(at)),
				   size_format(x->h.size_bytes, of, sizeof(of)));
}

/* Reads records until the batch is full, or END. */
static int batch_co_receive(struct receive *x, struct batch *b, bool *ended, struct err *e)
{
	struct stream_record_disk d;
	struct stream_end_disk end;
	struct stream_record rec;
	int r;

	while (batch_has_room(b, STREAM_PAYLOAD_MAX)) {
		struct batch_piece *piece = NULL;

		r = stream_reader_co_read(&x->in, &d, sizeof(d));
		if (r < 0 && MUTANT(CUT_IS_END))
			return *ended = true, 0;
		if (r < 0)
			return cut(x, r, e);
		r = stream_record_decode(&x->st, &d, &rec, e);
		if (r < 0)
			return r;
		if (rec.type != STREAM_END)
			piece = batch_add(b, rec.type, rec.off_bytes, rec.len_bytes);
		r = stream_reader_co_read(&x->in, piece ? piece->buf : (void *)&end, rec.payload_bytes);
		r = r < 0 ? cut(x, r, e) : stream_payload_check(&x->st, &rec, piece ? piece->buf : (void *)&end, e);
		if (r < 0) {
			b->n -= piece != NULL; /* it is not to be written */
			return r;
		}
		if (!piece) {
			*ended = true;
			return 0;
		}
	}
	return 0;
}

/* One batch is written while the next comes in. What came before an error is written too. */
static int receive_co_body(struct receive *x, struct err *e)
{
	uint64_t keep = x->spec->keep_bytes ? x->spec->keep_bytes : KEEP_BYTES;
	bool ended = false;
	unsigned turn = 0;
	struct err we = { 0 };
	int r, w;

	do {
		struct batch *b = &x->batch[turn];

		r = batch_co_receive(x, b, &ended, e);
		w = batch_co_finish(x, &x->batch[!turn], &we);
		if (w == 0) {
			if (x->fresh_bytes >= keep)
				w = receive_co_keep(x, &we);
			batch_start(b);
		}
		if (x->spec->progress)
			x->spec->progress(x->spec->progress_arg, x->written_bytes, x->h.size_bytes);
		turn = !turn;
	} while (r == 0 && w == 0 && !ended);
	if (w == 0)
		w = batch_co_finish(x, &x->batch[!turn], &we);
	else
		(void)!batch_co_wait(&x->batch[!turn]); /* begun before it was known */
	if (w == 0) {
		x->written_bytes = r == 0 ? x->h.size_bytes : x->written_bytes;
		return r;
	}
	r = pool_transfer_check(&x->t, e);
	return r < 0 ? r : err_set(e, w, "%s", we.text);
}

/* ---- the end ---- */

/* Nobody uses the hidden volume any more. */
static void receiver_co_close(struct receive *x)
{
	pool_vol_release(x->t.p, x->v);
	pool_co_vol_quiesce(x->t.p, x->v);
	x->v->leaving = false;
}

/* Under a->admin; the hidden volume is closed. */
static int receive_co_show(struct receive *x, struct ashlar_transfer *out, struct err *e)
{
	struct ashlar_pool *p = x->t.p;
	struct thin_vol *v = x->v, *of = v->parent ? thin_vol_by_id(p->thin, v->parent) : NULL;
	uint64_t old_size = of ? of->size_bytes : 0;
	int r;

	if (v->parent && (!of || of->state != THIN_VOLUME_LIVE))
		return err_set(e, -ENOENT, "volume %s/%s has been deleted meanwhile", p->label->name, v->name);
	if (of)
		co_mutex_lock(&of->admin); /* nobody attaches */
	r = check_co_target(x, of ? of->name : v->name, of, e);
	if (r == 0) {
		snprintf(out->snapshot, sizeof(out->snapshot), "%.127s@%.127s", of ? of->name : v->name, v->export_name);
		co_mutex_lock(&p->directory);
		r = pool_full_sentence(p, thin_co_received(p->thin, v, of), "receiving", e);
		co_mutex_unlock(&p->directory);
	}
	if (of)
		co_mutex_unlock(&of->admin);
	if (r == 0 && of && of->size_bytes != old_size)
		pool_co_vol_tell_resized(p, of);
	return r;
}

/* All is there and right. */
static int receive_co_finish(struct receive *x, struct ashlar_transfer *out, struct err *e)
{
	int r = receive_co_keep(x, e);

	if (r == 0)
		r = pool_transfer_co_admin(&x->t, e);
	receiver_co_close(x); /* from now on it may go, but for the lock */
	if (r < 0)
		return r;
	r = receive_co_show(x, out, e);
	co_mutex_unlock(&x->t.p->a->admin);
	return r;
}

/* It has failed: what there is is kept for going on, or dropped. The sentence says which. */
static void receive_co_leave(struct receive *x, uint64_t id, struct err *e)
{
	struct ashlar_pool *p = x->t.p;
	char tok[STREAM_TOKEN_LEN];
	struct thin_vol *v;
	size_t n = e ? strlen(e->text) : 0;
	int r;

	if (p->failed)
		return;
	if (x->spec->no_resume && pool_transfer_co_admin(&x->t, NULL) == 0) {
		v = thin_vol_by_id(p->thin, id);
		r = v && v->state == THIN_VOLUME_RECEIVING ? receiver_co_drop(p, v, NULL) : 0;
		co_mutex_unlock(&p->a->admin);
		if (r == 0)
			return;
	}
	v = thin_vol_by_id(p->thin, id);
	if (e && v && v->state == THIN_VOLUME_RECEIVING)
		snprintf(e->text + n, sizeof(e->text) - n, "; go on with: ashlar send --resume %s", receiver_token(v, tok));
}

static int receive_co_stream(struct receive *x, struct ashlar_transfer *out, struct err *e)
{
	uint64_t id = x->v->id;
	struct err ke = { 0 };
	unsigned i;
	int r;

	x->home = thin_volume_home(x->t.p->thin, id);
	for (i = 0; i < 2; i++)
		batch_init(&x->batch[i], thin_volume_bdev(x->v->open), x->home, true);
	r = receive_co_body(x, e);
	for (i = 0; i < 2; i++)
		batch_fini(&x->batch[i]);
	if (r == 0) {
		r = receive_co_finish(x, out, e);
	} else {
		if (!x->spec->no_resume && pool_transfer_check(&x->t, NULL) == 0 && receive_co_keep(x, &ke) < 0)
			pool_log(x->t.p, "%s", ke.text);
		receiver_co_close(x);
	}
	if (r < 0)
		receive_co_leave(x, id, e);
	return r;
}

static int receive_co_header(struct receive *x, struct err *e)
{
	struct stream_header_disk *d = xmalloc(sizeof(*d));
	int r = stream_reader_co_read(&x->in, d, sizeof(*d));

	if (r < 0) {
		r = err_set(e, r, "there is no stream: it ended before its header was complete; what does the sending side say?");
		if (pool_transfer_check(&x->t, e) < 0)
			r = -ESHUTDOWN;
	} else {
		r = stream_header_decode(d, &x->h, &x->st, e);
	}
	xfree(d);
	return r < 0 ? r : check_header(x, e);
}

int ashlar_co_receive(struct ashlar_pool *p, const struct ashlar_receive_spec *spec, struct stream *from, struct ashlar_transfer *out,
		      struct err *e)
{
	struct receive *x;
	int r = pool_check_writable(p, e);

	memset(out, 0, sizeof(*out));
	if (r == 0)
		r = name_check("volume", spec->volume, ASHLAR_VOLUME_NAME_MAX, e);
	if (r < 0)
		return r;
	x = xcalloc(1, sizeof(*x));
	x->spec = spec;
	pool_transfer_begin(&x->t, p, from);
	stream_reader_init(&x->in, from);
	r = receive_co_header(x, e);
	if (r == 0)
		r = pool_transfer_co_admin(&x->t, e);
	if (r == 0) {
		r = receive_co_begin(x, e);
		co_mutex_unlock(&p->a->admin);
		if (r == 0)
			r = receive_co_stream(x, out, e);
	}
	if (r == 0) {
		snprintf(out->base, sizeof(out->base), "%.127s", x->h.base);
		out->size_bytes = x->h.size_bytes;
		out->start_bytes = x->h.start_bytes;
		out->data_bytes = x->st.data_bytes;
		out->zero_bytes = x->st.zero_bytes;
		out->stream_bytes = x->in.n_bytes;
	}
	stream_reader_fini(&x->in);
	pool_transfer_end(&x->t);
	xfree(x);
	return r;
}

/* ---- what is kept ---- */

int ashlar_co_receive_list(struct ashlar_pool *p, struct ashlar_receive_info **out, size_t *n, struct err *e)
{
	struct thin_vol *v;
	size_t cap = 0;

	*n = 0;
	list_for_each (v, thin_vols(p->thin), link)
		cap += v->state == THIN_VOLUME_RECEIVING;
	*out = xcalloc(cap + 1, sizeof(**out));
	list_for_each (v, thin_vols(p->thin), link) {
		struct ashlar_receive_info *x = &(*out)[*n];

		if (v->state != THIN_VOLUME_RECEIVING || !v->export_name[0])
			continue;
		snprintf(x->volume, sizeof(x->volume), "%.127s", receiver_name(p, v));
		snprintf(x->snapshot, sizeof(x->snapshot), "%.127s", v->export_name);
		x->size_bytes = v->size_bytes;
		x->received_bytes = v->received_bytes;
		x->used_bytes = v->used_clusters * p->label->cluster_bytes;
		x->is_incremental = v->parent != 0;
		x->is_running = v->n_attached != 0;
		receiver_token(v, x->token);
		++*n;
	}
	return 0;
}

int ashlar_co_receive_abort(struct ashlar_pool *p, const char *volume, struct err *e)
{
	struct thin_vol *v;
	int r = pool_check_writable(p, e);

	if (r < 0)
		return r;
	co_mutex_lock(&p->a->admin);
	v = receiver_find(p, volume);
	r = v ? receiver_co_drop(p, v, e) :
		err_set(e, -ENOENT, "nothing is kept for %s/%.127s; `ashlar receive --list` shows what is", p->label->name, volume);
	co_mutex_unlock(&p->a->admin);
	return r;
}
