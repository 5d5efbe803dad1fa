/*
 * volumes.c: volume and export commands, and renaming, of snapshots too.
 *
 * Commands are pairs of check and apply: everything that can be refused is refused before the first record is handed in.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/units.h"
#include "engine/pool/move_family.h"
#include "engine/pool/volumes.h"

/* ---- checks ---- */

int pool_check_writable(struct ashlar_pool *p, struct err *e)
{
	if (p->failed)
		return err_set(e, -ERR_POOL_FAILED, "pool %s has stopped (%s): close and open it again", p->label->name, p->failed_why);
	if (p->read_only)
		return err_set(e, -EROFS, "pool %s is open read-only", p->label->name);
	return 0;
}

static int check_size(struct ashlar_pool *p, const char *name, uint64_t size, struct err *e)
{
	char text[16], max[16];

	if (!size)
		return err_set(e, -EINVAL, "volume %s/%s: the size is zero", p->label->name, name);
	if (size > ASHLAR_VOLUME_SIZE_MAX)
		return err_set(e, -EFBIG, "volume %s/%s: %s are more than the largest size, %s", p->label->name, name,
			       size_format(size, text, sizeof(text)), size_format(ASHLAR_VOLUME_SIZE_MAX, max, sizeof(max)));
	if (size % p->label->block_bytes)
		return err_set(e, -EINVAL, "volume %s/%s: the size of %s (%" PRIu64 " bytes) is not a multiple of the pool's block of %u bytes",
			       p->label->name, name, size_format(size, text, sizeof(text)), size, p->label->block_bytes);
	return 0;
}

struct thin_vol *pool_vol_find(struct ashlar_pool *p, const char *name, struct err *e)
{
	struct thin_vol *v = thin_vol_find(p->thin, name), *handed = v ? NULL : pool_handed_find(p, name);
	char where[160];

	if (handed)
		err_set(e, -ENOENT, "volume %s/%.127s has been moved: it is %s", p->label->name, name, pool_move_text(p, handed, where, sizeof(where)));
	else if (!v)
		err_set(e, -ENOENT, "there is no volume %s/%.127s", p->label->name, name);
	return v;
}

/* No volume is safer than the metadata that says where it lies. */
static int check_metadata_copies(struct ashlar_pool *p, const char *name, struct raid_profile prof, struct err *e)
{
	unsigned copies = pool_metadata_width(p);

	if (raid_profile_tolerates(prof) < copies)
		return 0;
	return err_set(e, -EINVAL, "volume %s/%s: layout %s would survive the loss of %u disks, and the pool's metadata has only %u "
		       "copies: choose a layout that survives %u, or add disks and let `pool rebalance` give metadata more copies",
		       p->label->name, name, raid_profile_name(prof), raid_profile_tolerates(prof), copies, copies - 1);
}

int pool_check_layout(struct ashlar_pool *p, const char *name, const char *layout, struct raid_profile *prof, struct err *e)
{
	unsigned i, online = 0, away, may;

	*prof = p->label->profile;
	if (layout && raid_profile_parse(layout, prof) < 0)
		return err_set(e, -EINVAL, "volume %s/%s: there is no layout of that name: use single, raid0, raid1, raid1-3, raid10, "
			       "raid10-3, raid5 or raid6", p->label->name, name);
	for (i = 0; i < p->n_disks; i++)
		online += p->disks[i].state == PDISK_ONLINE && !p->disks[i].leaving;
	/* Groups can be made with columns on disks that are away: mirrors all but the first of each set, parity as many as
	 * may be lost. */
	away = pool_n_staying(p) - MIN(pool_n_staying(p), online);
	may = prof->copies > 1 ? away : raid_profile_tolerates(*prof);
	if (online + MIN(away, may) < raid_profile_min_disks(*prof))
		return err_set(e, -EINVAL, "volume %s/%s: layout %s needs %u disks, the pool has %u online%s", p->label->name, name,
			       raid_profile_name(*prof), raid_profile_min_disks(*prof), online,
			       online + away >= raid_profile_min_disks(*prof) ? ": bring the others back first" : "");
	return check_metadata_copies(p, name, *prof, e);
}

int pool_check_export_free(struct ashlar *a, const char *export_name, const struct thin_vol *self, struct err *e)
{
	char buf[POOL_POINT_NAME];
	struct ashlar_pool *p;
	struct thin_vol *v;

	v = pool_export_find(a, export_name, &p);
	if (v && v != self)
		return err_set(e, -EEXIST, "the export name %s is taken by %s %s/%s", export_name,
			       v->kind == THIN_KIND_SNAPSHOT ? "snapshot" : "volume", p->label->name, pool_point_name(p, v, buf));
	return 0;
}

/* ---- commands ---- */

int pool_full_sentence(struct ashlar_pool *p, int r, const char *doing, struct err *e)
{
	if (r == -ERR_POOL_FULL)
		return err_set(e, r, "pool %s is full: %s needs a little space: delete or discard something", p->label->name, doing);
	return err_default(e, r, doing);
}

/* Coroutine. The size: as asked for, or the source's. */
static int create_co_source(struct ashlar_pool *p, const struct ashlar_volume_spec *s, struct thin_vol *as, struct err *e)
{
	int r;

	as->size_bytes = s->size_bytes;
	if (!s->from)
		return 0;
	r = pool_co_source_check(p, s->from, &as->source_bytes, e);
	if (r < 0)
		return r;
	snprintf(as->source, sizeof(as->source), "%s", s->from);
	if (!as->size_bytes)
		as->size_bytes = ALIGN_UP(as->source_bytes, (uint64_t)p->label->block_bytes);
	if (as->size_bytes < as->source_bytes)
		return err_set(e, -EINVAL, "volume %s/%s: %" PRIu64 " bytes are less than the %" PRIu64 " of the source %s", p->label->name, s->name,
			       as->size_bytes, as->source_bytes, s->from);
	return 0;
}

static int create_co_locked(struct ashlar_pool *p, const struct thin_vol *as, struct err *e)
{
	char export_name[ASHLAR_POOL_NAME_MAX + ASHLAR_VOLUME_NAME_MAX + 2];
	struct thin_vol *v;
	int r = pool_check_name_free(p, NULL, as->name, e);

	snprintf(export_name, sizeof(export_name), "%.63s/%.127s", p->label->name, as->name);
	if (r == 0)
		r = pool_check_export_free(p->a, export_name, NULL, e);
	if (r == 0 && pool_layout_is_parity(as->cls.layout))
		r = pool_co_stripe_logs_ensure(p, e);
	if (r == 0 && pool_vol_is_adopted(as))
		r = pool_co_source_feature(p, e);
	if (r == 0 && pool_vol_is_limited(as))
		r = pool_co_feature(p, LABEL_INCOMPAT_LIMITS, e);
	return r < 0 ? r : pool_full_sentence(p, thin_co_volume_create_as(p->thin, as, &v), "creating a volume", e);
}

int ashlar_co_volume_create(struct ashlar_pool *p, const struct ashlar_volume_spec *s, struct err *e)
{
	struct thin_vol *as = xcalloc(1, sizeof(*as));
	struct raid_profile prof;
	int r = name_check("volume", s->name, ASHLAR_VOLUME_NAME_MAX, e);

	if (r == 0)
		r = pool_check_writable(p, e);
	if (r == 0)
		r = create_co_source(p, s, as, e);
	if (r == 0)
		r = check_size(p, s->name, as->size_bytes, e);
	if (r == 0)
		r = pool_check_layout(p, s->name, s->layout, &prof, e);
	if (r == 0)
		r = pool_limits_change(p, s->name, &s->limits, &as->limits, e);
	if (r == 0) {
		as->cls = (struct thin_class){ prof.layout, prof.copies };
		as->full_wait_ns = s->full_wait_ns;
		memcpy(as->name, s->name, strlen(s->name));
		co_mutex_lock(&p->a->admin);
		r = create_co_locked(p, as, e);
		co_mutex_unlock(&p->a->admin);
		pool_life_kick(p);
	}
	xfree(as);
	return r;
}

static int delete_co_locked(struct ashlar_pool *p, const char *name, bool force, bool snapshots, bool dry_run,
			    struct ashlar_deleted *out, struct err *e)
{
	struct thin_vol *v = pool_vol_find(p, name, e), *receiver, **all;
	unsigned n, n_all, i;
	int r;

	if (!v)
		return -ENOENT;
	all = pool_snaps_of(p, v, &n);
	n_all = n;
	receiver = pool_receiver_of(p, v);
	if (receiver)
		all[n_all++] = receiver;
	all[n_all++] = v; /* last: without it nobody could name them */
	out->receive_dropped = receiver != NULL;
	out->n_snapshots = n;
	out->snapshots = xcalloc(n + 1u, sizeof(*out->snapshots));
	for (i = 0; i < n; i++)
		pool_point_name(p, all[i], out->snapshots[i]);
	if (n && !snapshots)
		r = err_set(e, -EBUSY, "volume %s/%s has %u snapshot%s: delete %s first, or use --snapshots to delete all of them with it",
			    p->label->name, name, n, n == 1 ? "" : "s", n == 1 ? "it" : "them");
	else
		r = pool_co_vols_delete(p, all, n_all, force, dry_run, &out->freed_bytes, e);
	xfree(all);
	return r;
}

int ashlar_co_volume_delete(struct ashlar_pool *p, const char *name, bool force, bool snapshots, bool dry_run,
			    struct ashlar_deleted *out, struct err *e)
{
	struct ashlar_deleted gone = { 0 };
	int r = dry_run ? 0 : pool_check_writable(p, e);

	if (r == 0) {
		co_mutex_lock(&p->a->admin);
		r = delete_co_locked(p, name, force, snapshots, dry_run, &gone, e);
		co_mutex_unlock(&p->a->admin);
	}
	if (r < 0 || !out) {
		xfree(gone.snapshots);
		gone = (struct ashlar_deleted){ 0 };
	}
	if (out)
		*out = gone;
	return r;
}

int pool_co_vol_update(struct ashlar_pool *p, struct thin_vol *v, const struct thin_vol *to, struct err *e)
{
	return pool_full_sentence(p, thin_co_volume_update(p->thin, v, to), "changing a volume", e);
}

static int resize_co_locked(struct ashlar_pool *p, const char *name, uint64_t size, bool force, struct err *e)
{
	struct thin_vol *v = pool_vol_find(p, name, e), *to;
	char text[16], to_text[16];
	uint64_t old;
	int r;

	if (!v)
		return -ENOENT;
	old = v->size_bytes;
	if (size == old)
		return 0;
	if (size < old && !force)
		return err_set(e, -EINVAL, "volume %s/%s: %s (%" PRIu64 " bytes) is less than its size of %s (%" PRIu64 " bytes): what lies "
			       "beyond would be lost; use --force if you mean it", p->label->name, name,
			       size_format(size, to_text, sizeof(to_text)), size, size_format(old, text, sizeof(text)), old);
	r = pool_check_not_adopted(p, v, "changing its size", e);
	if (r < 0)
		return r;
	pool_moves_co_yield(p, v);
	if (pool_co_vol_is_forwarded(p, v))
		return err_set(e, -EBUSY, "volume %s/%s is being moved: its size can be changed when that is over", p->label->name, name);
	to = xmalloc(sizeof(*to));
	*to = *v;
	to->size_bytes = size;
	/* Smaller: first nobody can reach the tail, then it is discarded, then the record says so; a crash in between leaves a
	 * volume of the old size with a discarded tail, which was not acknowledged. */
	r = size < old ? pool_co_vol_resize_open(p, v, size) : 0;
	if (r == 0)
		r = pool_co_vol_update(p, v, to, e);
	if (r == 0 && size > old)
		r = pool_co_vol_resize_open(p, v, size);
	xfree(to);
	return err_default(e, r, "resizing the volume");
}

int ashlar_co_volume_resize(struct ashlar_pool *p, const char *name, uint64_t size_bytes, bool force, struct err *e)
{
	int r = pool_check_writable(p, e);

	if (r == 0)
		r = check_size(p, name, size_bytes, e);
	if (r < 0)
		return r;
	co_mutex_lock(&p->a->admin);
	r = resize_co_locked(p, name, size_bytes, force, e);
	co_mutex_unlock(&p->a->admin);
	return r;
}

/* With the volume its snapshots' default exports get new names. Is somebody called so already? */
static int check_snap_exports(struct ashlar_pool *p, const struct thin_vol *v, const char *new_name, struct err *e)
{
	char prefix[ASHLAR_POOL_NAME_MAX + ASHLAR_VOLUME_NAME_MAX + 3], buf[POOL_POINT_NAME];
	size_t n = (size_t)snprintf(prefix, sizeof(prefix), "%s/%s@", p->label->name, new_name);
	struct ashlar_pool *q;
	struct thin_vol *x;

	list_for_each (q, &p->a->pools, link)
		list_for_each (x, thin_vols(q->thin), link)
			if (x->state == THIN_VOLUME_LIVE && x->export_kind == THIN_EXPORT_NAMED && !strncmp(x->export_name, prefix, n) &&
			    thin_snap_find(p->thin, v, x->export_name + n) && thin_snap_find(p->thin, v, x->export_name + n) != x)
				return err_set(e, -EEXIST, "the export name %s is taken by %s/%s, and snapshot %s of this volume would get it",
					       x->export_name, q->label->name, pool_point_name(q, x, buf), x->export_name + n);
	return 0;
}

static int check_new_volume(struct ashlar_pool *p, const struct thin_vol *v, const char *new_name, struct err *e)
{
	char export_name[POOL_EXPORT_NAME];
	int r = pool_check_name_free(p, v, new_name, e);

	if (r < 0)
		return r;
	snprintf(export_name, sizeof(export_name), "%s/%s", p->label->name, new_name);
	r = pool_check_export_free(p->a, export_name, v, e);
	return r < 0 ? r : check_snap_exports(p, v, new_name, e);
}

static int rename_co_locked(struct ashlar_pool *p, unsigned kind, const char *name, const char *new_name, struct err *e)
{
	struct thin_vol *v = NULL, *to;
	int r = 0;

	if (kind == THIN_KIND_SNAPSHOT)
		r = pool_snap_find(p, name, &v, e);
	else
		v = pool_vol_find(p, name, e);
	if (!v)
		return r < 0 ? r : -ENOENT;
	if (!strcmp(v->name, new_name))
		return 0;
	r = kind == THIN_KIND_SNAPSHOT ? pool_check_new_snap(p, thin_vol_by_id(p->thin, v->parent), new_name, v, e) :
					 check_new_volume(p, v, new_name, e);
	if (r < 0)
		return r;
	to = xmalloc(sizeof(*to));
	*to = *v;
	memset(to->name, 0, sizeof(to->name));
	memcpy(to->name, new_name, strlen(new_name));
	to->made_by_policy = false; /* somebody wants to keep it */
	r = pool_co_vol_update(p, v, to, e);
	xfree(to);
	return r;
}

/* name: VOLUME or VOLUME@SNAP, as the kind is; new_name: VOLUME or SNAP. */
static int point_co_rename(struct ashlar_pool *p, unsigned kind, const char *name, const char *new_name, struct err *e)
{
	int r = pool_check_writable(p, e);

	if (r == 0)
		r = name_check(kind == THIN_KIND_SNAPSHOT ? "snapshot" : "volume", new_name, ASHLAR_VOLUME_NAME_MAX, e);
	if (r < 0)
		return r;
	co_mutex_lock(&p->a->admin);
	r = rename_co_locked(p, kind, name, new_name, e);
	co_mutex_unlock(&p->a->admin);
	return r;
}

int ashlar_co_volume_rename(struct ashlar_pool *p, const char *name, const char *new_name, struct err *e)
{
	return point_co_rename(p, THIN_KIND_VOLUME, name, new_name, e);
}

int ashlar_co_snapshot_rename(struct ashlar_pool *p, const char *name, const char *new_snap, struct err *e)
{
	return point_co_rename(p, THIN_KIND_SNAPSHOT, name, new_snap, e);
}

/* Coroutine under a->admin. Of what is received into it too: that waits as the volume does. */
static int full_wait_co_locked(struct ashlar_pool *p, const char *name, uint64_t ns, struct err *e)
{
	struct thin_vol *v = pool_vol_find(p, name, e), *receiver, *to;
	int r;

	if (!v)
		return -ENOENT;
	to = xmalloc(sizeof(*to));
	*to = *v;
	to->full_wait_ns = ns;
	r = pool_co_vol_update(p, v, to, e);
	xfree(to);
	if (r < 0)
		return r;
	pool_co_vol_set_full_wait(p, v, ns);
	receiver = pool_receiver_of(p, v);
	if (receiver)
		pool_co_vol_set_full_wait(p, receiver, ns);
	return 0;
}

int ashlar_co_volume_set_full_wait(struct ashlar_pool *p, const char *name, uint64_t ns, struct err *e)
{
	int r = pool_check_writable(p, e);

	if (r < 0)
		return r;
	co_mutex_lock(&p->a->admin);
	r = full_wait_co_locked(p, name, ns, e);
	co_mutex_unlock(&p->a->admin);
	return r;
}
