/*
 * notes.c: what frontends keep with a volume: a few blobs by number, which go with it.
 *
 * A note of a volume has NOTE_PLACES entries in the array of notes. The first says how long it is and holds it, if it is short.
 * A longer one lies in one half of the others: a new one is written to the half that the old one is not in, entry by entry, and
 * takes its place by the record that changes the first entry. So a crash leaves the old or the new one, whole, and at worst entries
 * in the other half that the next long note overwrites and the volume's end frees.
 */
#include <string.h>

#include "engine/base/mutant.h"
#include "engine/pool/attach.h"
#include "engine/pool/label_format.h"
#include "engine/pool/life.h"
#include "engine/pool/volumes.h"

static uint64_t note_index(uint64_t volume, unsigned key, unsigned place)
{
	return volume << (NOTE_KEY_BITS + NOTE_PLACE_BITS) | (uint64_t)key << NOTE_PLACE_BITS | place;
}

static unsigned half_first(unsigned half)
{
	return 1 + half * NOTE_HALF;
}

/* ---- records ---- */

static int clear_half(struct ashlar_pool *p, uint64_t volume, unsigned key, unsigned half, unsigned n)
{
	static const struct pool_note_part none;
	unsigned i;
	int r = 0;

	for (i = 0; i < n && r == 0; i++)
		r = meta_array_co_set(p->notes, note_index(volume, key, half_first(half) + i), &none);
	return r;
}

static int apply_part(struct ashlar_pool *p, const void *payload, size_t len)
{
	const struct pool_rec_note_part *rec = payload;

	if (len != sizeof(*rec) || rec->key >= ASHLAR_NOTES || !rec->place || rec->place > 2 * NOTE_HALF)
		return -ERR_FORMAT;
	return meta_array_co_set(p->notes, note_index(le64_get(rec->volume), rec->key, rec->place), &rec->part);
}

static bool note_is_valid(const struct pool_note_disk *d)
{
	uint32_t len = le32_get(d->len);

	return len <= ASHLAR_NOTE_MAX && d->half <= 1 && d->is_long <= 1 && (d->is_long || len <= sizeof(d->bytes));
}

static unsigned n_parts(const struct pool_note_disk *d)
{
	return d->is_long ? DIV_UP(le32_get(d->len), (uint32_t)sizeof(struct pool_note_part)) : 0;
}

static int apply_put(struct ashlar_pool *p, const void *payload, size_t len)
{
	const struct pool_rec_note *rec = payload;
	uint64_t volume = le64_get(rec->volume);
	struct pool_note_disk old;
	int r;

	if (len != sizeof(*rec) || rec->key >= ASHLAR_NOTES || !note_is_valid(&rec->note))
		return -ERR_FORMAT;
	r = meta_array_co_get(p->notes, note_index(volume, rec->key, 0), &old);
	if (r == 0 && !note_is_valid(&old))
		r = -ERR_FORMAT;
	if (r == 0)
		r = clear_half(p, volume, rec->key, old.half, n_parts(&old));
	return r < 0 ? r : meta_array_co_set(p->notes, note_index(volume, rec->key, 0), &rec->note);
}

int pool_co_apply_note(struct ashlar_pool *p, unsigned type, const void *payload, size_t len)
{
	return type == POOL_REC_NOTE ? apply_put(p, payload, len) : apply_part(p, payload, len);
}

int pool_co_apply_notes_gone(struct ashlar_pool *p, uint64_t volume)
{
	uint64_t leaf = note_index(volume, 0, 0) / meta_array_per_leaf(p->notes), end = note_index(volume + 1, 0, 0) / meta_array_per_leaf(p->notes);
	int r;

	for (;;) {
		r = meta_array_co_next_leaf(p->notes, &leaf);
		if (r < 0 || leaf >= end)
			return r == -ENOENT ? 0 : r;
		r = meta_array_co_drop_leaf(p->notes, leaf);
		if (r < 0)
			return r;
	}
}

/* ---- reading ---- */

static int note_co_read(struct ashlar_pool *p, uint64_t volume, unsigned key, void **data, size_t *len)
{
	struct pool_note_disk *d = xmalloc(sizeof(*d));
	struct pool_note_part *part = xmalloc(sizeof(*part));
	uint8_t *out = NULL;
	size_t total = 0, at, n;
	unsigned i;
	int r = meta_array_co_get(p->notes, note_index(volume, key, 0), d);

	if (r == 0 && !note_is_valid(d))
		r = -ERR_FORMAT;
	if (r == 0) {
		total = le32_get(d->len);
		out = xmalloc(total + 1);
		out[total] = 0;
		if (!d->is_long)
			memcpy(out, d->bytes, total);
	}
	for (i = 0; r == 0 && i < n_parts(d); i++) {
		at = i * sizeof(*part);
		n = MIN(sizeof(*part), total - at);
		r = meta_array_co_get(p->notes, note_index(volume, key, half_first(d->half) + i), part);
		memcpy(out + at, part, n);
	}
	xfree(part);
	xfree(d);
	if (r < 0)
		xfree(out);
	*data = r < 0 ? NULL : out;
	*len = r < 0 ? 0 : total;
	return r;
}

int pool_co_note_get(struct ashlar_pool *p, uint64_t volume, unsigned key, void **data, size_t *len)
{
	int r;

	co_mutex_lock(&p->notes_lock); /* one that is being replaced is not read half */
	r = note_co_read(p, volume, key, data, len);
	co_mutex_unlock(&p->notes_lock);
	return r;
}

/* ---- writing ---- */

static uint64_t records_put(struct ashlar_pool *p, uint64_t volume, unsigned key, const struct pool_note_disk *old, const void *data, size_t len)
{
	struct pool_rec_note *rec = xcalloc(1, sizeof(*rec));
	struct pool_rec_note_part *part = xcalloc(1, sizeof(*part));
	unsigned half = old->is_long ? !old->half : 0, i;
	uint64_t seq;

	rec->volume = part->volume = le64_make(volume);
	rec->key = part->key = (uint8_t)key;
	rec->note.len = le32_make((uint32_t)len);
	rec->note.is_long = len > sizeof(rec->note.bytes);
	if (rec->note.is_long)
		rec->note.half = (uint8_t)half;
	else if (len)
		memcpy(rec->note.bytes, data, len);
	for (i = 0; i < n_parts(&rec->note); i++) {
		size_t at = i * sizeof(part->part);

		part->place = (uint8_t)(half_first(half) + i);
		memset(&part->part, 0, sizeof(part->part));
		memcpy(&part->part, (const uint8_t *)data + at, MIN(sizeof(part->part), len - at));
		meta_record(p->meta, POOL_REC_NOTE_PART, part, sizeof(*part));
	}
	seq = meta_record(p->meta, POOL_REC_NOTE, rec, sizeof(*rec));
	xfree(rec);
	xfree(part);
	return seq;
}

static int note_co_put_locked(struct ashlar_pool *p, uint64_t volume, unsigned key, const void *data, size_t len)
{
	struct pool_note_disk *old = xmalloc(sizeof(*old));
	const struct thin_vol *v;
	uint64_t seq;
	int r = meta_array_co_get(p->notes, note_index(volume, key, 0), old);

	if (r == 0)
		r = meta_co_admit(p->meta, DIV_UP(len, sizeof(struct pool_note_part)) * (sizeof(struct pool_rec_note_part) + 64) +
				  sizeof(struct pool_rec_note) + 64, true);
	v = thin_vol_by_id(p->thin, volume); /* it may have gone meanwhile */
	if (r == 0 && (!v || (v->state != THIN_VOLUME_LIVE && v->state != THIN_VOLUME_INCOMING)))
		r = -ENOENT;
	if (r == 0) {
		seq = records_put(p, volume, key, old, data, len);
		r = MUTANT(NOTE_NOT_COMMITTED) ? 0 : meta_co_commit(p->meta, seq);
		if (r == 0)
			r = meta_co_wait_applied(p->meta, seq);
	}
	xfree(old);
	return r;
}

/* Coroutine. a->admin is taken once after the pool has been opened; no caller has it. */
static int feature_co_have(struct ashlar_pool *p, struct err *e)
{
	int r = 0;

	if (p->has_notes)
		return 0;
	co_mutex_lock(&p->a->admin);
	r = pool_co_feature(p, LABEL_INCOMPAT_NOTES, e);
	p->has_notes |= r == 0;
	co_mutex_unlock(&p->a->admin);
	return r;
}

int pool_co_note_set(struct ashlar_pool *p, uint64_t volume, unsigned key, const void *data, size_t len, struct err *e)
{
	int r = pool_check_writable(p, e);

	CHECK(key < ASHLAR_NOTES);
	if (r == 0 && len > ASHLAR_NOTE_MAX)
		r = err_set(e, -E2BIG, "pool %s: a volume's note is longer than %u bytes", p->label->name, (unsigned)ASHLAR_NOTE_MAX);
	if (r == 0)
		r = feature_co_have(p, e);
	if (r < 0)
		return r;
	co_mutex_lock(&p->notes_lock);
	r = note_co_put_locked(p, volume, key, data, len);
	co_mutex_unlock(&p->notes_lock);
	return r < 0 ? err_set(e, r, "pool %s: what belongs to a volume could not be written: %s", p->label->name, err_text(r)) : 0;
}

/* ---- all of one number ---- */

/* The next volume, from *volume on, that may have one. -ENOENT: there is none. */
static int note_co_next(struct ashlar_pool *p, unsigned key, uint64_t *volume)
{
	unsigned per_leaf = meta_array_per_leaf(p->notes);
	uint64_t leaf, mine;
	int r;

	for (;; (*volume)++) {
		leaf = mine = note_index(*volume, key, 0) / per_leaf;
		r = meta_array_co_next_leaf(p->notes, &leaf);
		if (r < 0 || leaf == mine)
			return r;
		*volume = leaf * per_leaf >> (NOTE_KEY_BITS + NOTE_PLACE_BITS);
		if (leaf <= note_index(*volume, key, 0) / per_leaf)
			(*volume)--; /* it has others before that */
	}
}

/* ---- what goes to another pool ---- */

int pool_co_identities_load(struct ashlar_pool *p)
{
	uint64_t volume;
	struct thin_vol *v;
	void *data;
	size_t len;
	int r = 0;

	for (volume = 0; p->has_notes && r == 0; volume++) {
		r = note_co_next(p, ASHLAR_NOTE_IDENTITY, &volume);
		if (r < 0)
			break;
		r = pool_co_note_get(p, volume, ASHLAR_NOTE_IDENTITY, &data, &len);
		v = thin_vol_by_id(p->thin, volume);
		if (r == 0 && v && len == sizeof(v->identity))
			memcpy(&v->identity, data, len);
		xfree(data);
	}
	return r == -ENOENT ? 0 : r;
}

int pool_co_notes_copy(struct ashlar_pool *p, struct thin_vol *of, struct ashlar_pool *to, struct thin_vol *copy, struct err *e)
{
	bool any = false;
	struct uuid identity;
	unsigned key;
	void *data, *old;
	size_t len, old_len;
	int r = 0;

	for (key = 0; p->has_notes && key < ASHLAR_NOTES && r == 0 && !MUTANT(NOTES_STAY_BEHIND); key++) {
		r = note_co_read(p, of->id, key, &data, &len);
		if (r == 0 && !len && to->has_notes) /* an attempt before this one may have left some */
			r = pool_co_note_get(to, copy->id, key, &old, &old_len);
		else
			old = NULL, old_len = 0;
		xfree(r == 0 ? old : NULL);
		any |= r == 0 && len;
		if (r == 0 && len && !to->has_notes)
			r = pool_co_feature(to, LABEL_INCOMPAT_NOTES, e);
		to->has_notes |= r == 0 && len;
		if (r == 0 && (len || old_len))
			r = pool_co_note_set(to, copy->id, key, data, len, e);
		xfree(data);
	}
	if (r == 0 && any) {
		pool_vol_identity(p, of, &identity);
		r = pool_co_note_set(to, copy->id, ASHLAR_NOTE_IDENTITY, &identity, sizeof(identity), e);
		copy->identity = identity;
	}
	return err_default(e, r, "taking along what belongs to a volume");
}

/* ---- commands ---- */

int ashlar_co_note_set(struct ashlar_pool *p, const char *volume, unsigned key, const void *data, size_t len, struct err *e)
{
	struct thin_vol *v;
	int r = pool_point_find(p, volume, &v, e);

	return r < 0 ? r : pool_co_note_set(p, v->id, key, data, len, e);
}

int ashlar_co_note_get(struct ashlar_pool *p, const char *volume, unsigned key, void **data, size_t *len, struct err *e)
{
	struct thin_vol *v;
	int r;

	CHECK(key < ASHLAR_NOTES);
	*data = NULL;
	*len = 0;
	r = pool_point_find(p, volume, &v, e);
	return r < 0 ? r : err_default(e, pool_co_note_get(p, v->id, key, data, len), "reading what belongs to a volume");
}

void ashlar_notes_free(struct ashlar_note *v, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		xfree(v[i].data);
	xfree(v);
}

int ashlar_co_note_list(struct ashlar_pool *p, unsigned key, struct ashlar_note **out, size_t *n, struct err *e)
{
	uint64_t volume = 0;
	struct ashlar_note note;
	struct thin_vol *v;
	int r;

	CHECK(key < ASHLAR_NOTES);
	*out = NULL;
	for (*n = 0;; volume++) {
		r = note_co_next(p, key, &volume);
		if (r < 0)
			break;
		r = pool_co_note_get(p, volume, key, &note.data, &note.len);
		if (r < 0)
			break;
		v = thin_vol_by_id(p->thin, volume);
		if (!note.len || !v || v->state != THIN_VOLUME_LIVE) {
			xfree(note.data);
			continue;
		}
		pool_point_name(p, v, note.volume);
		*out = xrealloc(*out, (*n + 1) * sizeof(**out));
		(*out)[(*n)++] = note;
	}
	if (r == -ENOENT)
		return 0;
	ashlar_notes_free(*out, *n);
	*out = NULL;
	*n = 0;
	return err_default(e, r, "reading what belongs to volumes");
}
