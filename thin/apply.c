/*
 * apply.c: the thin layer's part of the metadata's state machine: what each record does to maps, counts and volumes.
 *
 * Called strictly in order, at run time and in replay alike; the same records give the same state. Nothing here may fail
 * for lack of space (records were admitted) or because of what a client asked; an error means damage and stops the pool.
 */
#include <string.h>

#include "engine/base/mutant.h"
#include "thin/home_internal.h"

#define ENTRIES_PER_TURN 64 /* of a leaf that goes */

/* ---- volume records ---- */

void thin_vol_encode(const struct thin_vol *v, struct thin_volume_disk *d)
{
	memset(d, 0, sizeof(*d));
	d->id = le64_make(v->id);
	d->state = v->state;
	d->layout = v->cls.layout;
	d->copies = v->cls.copies;
	d->export_kind = v->export_kind;
	d->export_flags = v->export_flags;
	d->kind = v->kind;
	d->family = le64_make(v->family);
	d->parent = le64_make(v->parent);
	d->origin = le64_make(v->origin);
	d->policy_every_ns = le64_make(v->policy_every_ns);
	d->policy_keep = le32_make(v->policy_keep);
	d->made_by_policy = v->made_by_policy;
	d->guid = v->guid;
	d->base_guid = v->base_guid;
	d->received_bytes = le64_make(v->received_bytes);
	d->source_bytes = le64_make(v->source_bytes);
	d->source_kind = v->source_kind;
	memcpy(d->source, v->source, strnlen(v->source, THIN_SOURCE_MAX));
	d->prev = le64_make(v->prev);
	d->move_pool = v->move_pool;
	d->move_id = le64_make(v->move_id);
	d->move_family = le64_make(v->move_family);
	d->move_layout = v->move_cls.layout;
	d->move_copies = v->move_cls.copies;
	d->move_flags = v->move_flags;
	d->iops = le32_make(v->limits.iops);
	d->bps = le64_make(v->limits.bps);
	d->burst_iops = le32_make(v->limits.burst_iops);
	d->burst_kib = le32_make((uint32_t)(v->limits.burst_bps / KIB));
	d->burst_seconds = le16_make(v->limits.burst_seconds);
	d->size_bytes = le64_make(v->size_bytes);
	d->used_clusters = le64_make(v->used_clusters);
	d->valid_subs = le64_make(v->valid_subs);
	d->full_wait_ns = le64_make(v->full_wait_ns);
	d->created_wall_ns = le64_make(v->created_wall_ns);
	if (v->map.m)
		meta_array_store(&v->map, &d->map);
	memcpy(d->name, v->name, strnlen(v->name, sizeof(d->name) - 1));
	memcpy(d->access, v->access, strnlen(v->access, sizeof(d->access) - 1));
	d->max_clients = le32_make(v->max_clients);
	memcpy(d->export_name, v->export_name, strnlen(v->export_name, sizeof(d->export_name) - 1));
}

static void vol_set_attributes(struct thin_vol *v, const struct thin_volume_disk *d)
{
	v->state = d->state;
	v->cls = (struct thin_class){ d->layout, d->copies };
	v->export_kind = d->export_kind;
	v->export_flags = d->export_flags;
	v->kind = d->kind;
	v->family = le64_get(d->family) ? le64_get(d->family) : v->id;
	v->parent = le64_get(d->parent);
	v->origin = le64_get(d->origin);
	v->policy_every_ns = le64_get(d->policy_every_ns);
	v->policy_keep = le32_get(d->policy_keep);
	v->made_by_policy = d->made_by_policy != 0;
	v->guid = d->guid;
	v->base_guid = d->base_guid;
	v->received_bytes = le64_get(d->received_bytes);
	v->source_bytes = le64_get(d->source_bytes);
	v->source_kind = d->source_kind;
	memcpy(v->source, d->source, sizeof(v->source));
	v->move_pool = d->move_pool;
	v->move_id = le64_get(d->move_id);
	v->move_family = le64_get(d->move_family);
	v->move_cls = (struct thin_class){ d->move_layout, d->move_copies };
	v->move_flags = d->move_flags;
	v->limits = (struct thin_limits){ .iops = le32_get(d->iops), .bps = le64_get(d->bps), .burst_iops = le32_get(d->burst_iops),
					  .burst_bps = le32_get(d->burst_kib) * KIB, .burst_seconds = le16_get(d->burst_seconds) };
	v->size_bytes = le64_get(d->size_bytes);
	v->full_wait_ns = le64_get(d->full_wait_ns);
	v->created_wall_ns = le64_get(d->created_wall_ns);
	memcpy(v->name, d->name, sizeof(d->name));
	memcpy(v->access, d->access, sizeof(v->access));
	v->max_clients = le32_get(d->max_clients);
	memcpy(v->export_name, d->export_name, sizeof(v->export_name));
}

static bool record_is_sane(const struct thin_volume_disk *d)
{
	return d->state >= THIN_VOLUME_LIVE && d->state <= THIN_VOLUME_STATE_MAX && d->kind <= THIN_KIND_SNAPSHOT &&
	       d->name[sizeof(d->name) - 1] == 0 && d->access[sizeof(d->access) - 1] == 0 &&
	       d->export_name[sizeof(d->export_name) - 1] == 0 && d->source[THIN_SOURCE_MAX] == 0 &&
	       d->source_kind <= THIN_SOURCE_MOVED && d->export_kind <= THIN_EXPORT_HIDDEN &&
	       le64_get(d->size_bytes) <= 1ULL << 60 && le64_get(d->id) <= THIN_VOLUME_ID_MAX;
}

/* A leaf has been copied to be changed. What it maps may be in other maps too; if the old one stays in use, it is. */
static void map_leaf_copied(struct meta_array *a, void *page, bool shared)
{
	struct thin *t = container_of(a, struct thin_vol, map)->thin;
	struct thin_entry_disk *d = page;
	unsigned i;

	for (i = 0; i < THIN_MAP_PER_LEAF; i++) {
		struct thin_entry e = thin_entry_load(&d[i]);

		if (!e.own)
			continue;
		e.shared = true;
		thin_entry_store(&e, &d[i]);
		if (!shared || MUTANT(LEAF_COPY_NOT_COUNTED))
			continue;
		thin_ref_add(t, e.own);
		if (e.base)
			thin_ref_add(t, e.base);
	}
}

struct thin_vol *thin_vol_new(struct thin *t, uint64_t id)
{
	struct thin_vol *v = xcalloc(1, sizeof(*v));

	v->thin = t;
	v->id = id;
	co_mutex_init(&v->admin);
	meta_array_init(&v->map, t->m, THIN_MAP_ENTRY_LOG2);
	v->map.leaf_copied = map_leaf_copied;
	v->family = id;
	hash_add(&t->vols_by_id, &v->node, id);
	list_push_back(&t->vols, &v->link);
	t->next_id = MAX(t->next_id, id + 1);
	return v;
}

void thin_vol_free(struct thin *t, struct thin_vol *v)
{
	list_del(&v->map.link);
	list_del(&v->link);
	hash_del(&t->vols_by_id, &v->node);
	xfree(v);
}

/* A record of the directory array. */
int thin_vol_decode(struct thin *t, const struct thin_volume_disk *d, struct thin_vol **out)
{
	uint64_t id = le64_get(d->id);
	struct thin_vol *v;
	int r;

	if (!record_is_sane(d) || thin_vol_by_id(t, id))
		return -ERR_FORMAT;
	v = thin_vol_new(t, id);
	vol_set_attributes(v, d);
	v->prev = le64_get(d->prev);
	v->used_clusters = le64_get(d->used_clusters);
	v->valid_subs = le64_get(d->valid_subs);
	r = meta_array_load(&v->map, t->m, &d->map);
	v->map.leaf_copied = map_leaf_copied;
	if (r == 0 && v->map.entry_log2 != THIN_MAP_ENTRY_LOG2)
		r = -ERR_FORMAT;
	if (r < 0) {
		thin_vol_free(t, v);
		return r;
	}
	t->n_live += thin_vol_counts(v);
	*out = v;
	return 0;
}

static int apply_volume_put(struct thin *t, const void *payload, size_t len)
{
	const struct thin_volume_disk *d = payload;
	struct thin_vol *v;

	if (len != sizeof(*d) || !record_is_sane(d))
		return -ERR_FORMAT;
	v = thin_vol_by_id(t, le64_get(d->id));
	if (!v)
		v = thin_vol_new(t, le64_get(d->id));
	else
		t->n_live -= thin_vol_counts(v);
	if (d->state == THIN_VOLUME_DELETING)
		thin_prev_forget(t, v);
	vol_set_attributes(v, d); /* but for prev, which only other records change */
	t->n_live += thin_vol_counts(v);
	v->changed = true;
	return 0;
}

static int apply_volume_gone(struct thin *t, const void *payload, size_t len)
{
	static const struct thin_volume_disk zero;
	struct thin_vol *v;
	uint64_t id;
	int r;

	if (len != sizeof(le64))
		return -ERR_FORMAT;
	id = le64_get(*(const le64 *)payload);
	v = thin_vol_by_id(t, id);
	if (!v || v->state != THIN_VOLUME_DELETING || v->map.root.addr)
		return -ERR_FORMAT;
	r = meta_array_co_set(t->volumes, id, &zero);
	if (r == 0)
		thin_vol_free(t, v);
	return r;
}

/* ---- counts ---- */

static int entry_refs(struct thin *t, const struct thin_entry *e, const struct thin_entry *other, int delta, uint64_t seq,
		      bool released)
{
	int r = 0;

	if (e->own && e->own != other->own && e->own != other->base)
		r = thin_ref_co_change(t, e->own, delta, seq, released);
	if (r == 0 && e->base && e->base != other->own && e->base != other->base && e->base != e->own)
		r = thin_ref_co_change(t, e->base, delta, seq, released);
	return r;
}

static void vol_account(struct thin_vol *v, const struct thin_entry *e, int64_t sign)
{
	v->used_clusters += (uint64_t)(sign * ((e->own != 0) + (e->base != 0)));
	v->valid_subs += (uint64_t)(sign * __builtin_popcount((unsigned)(e->own_mask | e->base_mask)));
}

/* Additions before removals, so that no count passes through zero on its way. */
static int entry_replace(struct thin *t, struct thin_vol *v, uint64_t idx, const struct thin_entry *to, uint64_t seq)
{
	struct thin_entry_disk d, old_d;
	struct thin_entry old;
	void *entry;
	int r;

	thin_entry_store(to, &d);
	if (to->own || to->base) {
		r = meta_array_co_edit(&v->map, idx, &entry);
		if (r == 0) {
			memcpy(&old_d, entry, sizeof(old_d));
			memcpy(entry, &d, sizeof(d));
		}
	} else {
		r = meta_array_co_get(&v->map, idx, &old_d);
		if (r == 0)
			r = meta_array_co_set(&v->map, idx, &d);
	}
	if (r < 0)
		return r;
	old = thin_entry_load(&old_d);
	vol_account(v, &old, -1);
	vol_account(v, to, 1);
	r = entry_refs(t, to, &old, 1, seq, false);
	return r < 0 ? r : entry_refs(t, &old, to, -1, seq, false);
}

bool thin_entry_is_valid(const struct thin *t, const struct thin_entry *e)
{
	uint64_t n = t->conf.space[0]->size_bytes / t->conf.cluster_bytes;

	return (e->own != 0) == (e->own_mask != 0) && (e->base != 0) == (e->base_mask != 0) && (!e->base || e->own) &&
	       e->own < n && e->base < n;
}

static int apply_map_set(struct thin *t, const void *payload, size_t len, uint64_t seq)
{
	const struct thin_rec_map *rec = payload;
	const struct thin_entry_disk *d = (const void *)(rec + 1);
	size_t n = len < sizeof(*rec) ? 0 : (len - sizeof(*rec)) / sizeof(*d), i;
	struct thin_vol *v;
	int r;

	if (!n || n > THIN_REC_MAP_ENTRIES_MAX || len != sizeof(*rec) + n * sizeof(*d))
		return -ERR_FORMAT;
	v = thin_vol_by_id(t, le64_get(rec->volume));
	if (!v || le64_get(rec->first) > 1ULL << 56)
		return -ERR_FORMAT;
	v->changed = true;
	for (i = 0; i < n; i++) {
		struct thin_entry e = thin_entry_load(&d[i]);

		if (!thin_entry_is_valid(t, &e))
			return -ERR_FORMAT;
		r = entry_replace(t, v, le64_get(rec->first) + i, &e, seq);
		if (r < 0)
			return r;
	}
	return 0;
}

static int apply_leaf_drop(struct thin *t, const void *payload, size_t len, uint64_t seq)
{
	static const struct thin_entry none;
	const struct thin_rec_leaf *rec = payload;
	struct thin_entry_disk *d;
	struct thin_vol *v;
	unsigned i;
	int r;

	if (len != sizeof(*rec))
		return -ERR_FORMAT;
	v = thin_vol_by_id(t, le64_get(rec->volume));
	if (!v)
		return -ERR_FORMAT;
	v->changed = true;
	d = xaligned(16, META_PAGE_BYTES);
	r = meta_array_co_cut(&v->map, le64_get(rec->leaf), d);
	if (r == 1)
		t->lost_seq = seq; /* others may be alone with what is in it */
	for (i = 0; i < THIN_MAP_PER_LEAF && r == 0; i++) {
		struct thin_entry e = thin_entry_load(&d[i]);

		r = entry_refs(t, &e, &none, -1, seq, true);
		if (i % ENTRIES_PER_TURN == ENTRIES_PER_TURN - 1)
			co_yield(); /* requests of clients are waiting on this reactor */
	}
	xfree(d);
	if (!v->map.root.addr) /* the counters of a volume that is taken apart say nothing in between */
		v->used_clusters = v->valid_subs = 0;
	return r < 0 ? r : 0;
}

static int apply_one(struct thin *t, unsigned type, const void *payload, size_t len, uint64_t seq)
{
	switch (type) {
	case THIN_REC_MAP_SET:
		return apply_map_set(t, payload, len, seq);
	case THIN_REC_VOLUME_PUT:
		return apply_volume_put(t, payload, len);
	case THIN_REC_VOLUME_GONE:
		return apply_volume_gone(t, payload, len);
	case THIN_REC_LEAF_DROP:
		return apply_leaf_drop(t, payload, len, seq);
	case THIN_REC_COPY:
		return thin_apply_copy(t, payload, len);
	case THIN_REC_ROLLBACK:
		return thin_apply_rollback(t, payload, len);
	case THIN_REC_RECEIVED:
		return thin_apply_received(t, payload, len);
	case THIN_REC_MOVE:
		return thin_apply_move(t, payload, len);
	default:
		return -ERR_FORMAT;
	}
}

int thin_co_apply(struct thin *t, unsigned type, const void *payload, size_t len, uint64_t seq)
{
	int r = apply_one(t, type, payload, len, seq);

	return r == 0 && t->n_deltas >= THIN_DELTAS_MAX ? thin_refs_co_fold(t) : r;
}

int thin_co_apply_group(struct thin *t, uint64_t group, unsigned kind, struct thin_class cls)
{
	struct thin_group_disk st = { .kind = (uint8_t)kind, .layout = cls.layout, .copies = cls.copies }, old;
	int r = meta_array_co_get(t->stat, group, &old);

	if (r < 0)
		return r;
	if (old.kind == THIN_GROUP_DATA)
		t->clusters_total -= t->clusters_per_group;
	if (kind == THIN_GROUP_DATA)
		t->clusters_total += t->clusters_per_group;
	return meta_array_co_set(t->stat, group, &st);
}

int thin_co_store(struct thin *t)
{
	struct thin_volume_disk *d = xmalloc(sizeof(*d));
	struct thin_vol *v;
	int r = thin_refs_co_fold(t);

	list_for_each (v, &t->vols, link) {
		if (r < 0)
			break;
		if (!v->changed)
			continue;
		thin_vol_encode(v, d);
		r = meta_array_co_set(t->volumes, v->id, d);
		if (r < 0)
			break;
		v->changed = false;
	}
	xfree(d);
	return r;
}
