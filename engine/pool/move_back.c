/*
 * move_back.c: pools that go away while families are between them.
 *
 * A family that has been handed over lives in the other pool, and whatever clients have written since the switch is there alone. What is
 * here stays until the other pool has been open together with this one, so it is the last way out if that one is lost: it is as
 * of the switch. If the other pool comes back nevertheless, copies that had not arrived are dropped there, since nobody wants them any more;
 * those that had are volumes of their own.
 */
#include <stdio.h>
#include <string.h>

#include "engine/pool/move_family.h"

static bool is_member(const struct thin_vol *v, const struct thin_vol *of)
{
	return v->state == THIN_VOLUME_HANDED && v->family == of->family;
}

static void export_name(const struct ashlar_pool *p, const struct thin_vol *v, char buf[POOL_EXPORT_NAME + 8])
{
	char name[POOL_POINT_NAME];

	if (v->export_kind == THIN_EXPORT_NAMED)
		snprintf(buf, POOL_EXPORT_NAME + 8, "%s", v->export_name);
	else
		snprintf(buf, POOL_EXPORT_NAME + 8, "%.63s/%s", p->label->name, pool_point_name(p, v, name));
}

/* Coroutine under a->admin. Nobody uses it by way of here, and its names are free. */
static int member_co_check(struct ashlar_pool *p, struct thin_vol *v, struct err *e)
{
	char name[POOL_EXPORT_NAME + 8];

	pool_co_vol_close_idle(p, v);
	if (v->open || v->n_attached)
		return err_set(e, -EBUSY, "%s/%s has clients still, which the other pool served: end them first", p->label->name, v->name);
	if (v->kind == THIN_KIND_VOLUME && thin_vol_find(p->thin, v->name))
		return err_set(e, -EEXIST, "there is another volume %s/%s by now: rename it first", p->label->name, v->name);
	if (v->export_kind == THIN_EXPORT_HIDDEN)
		return 0;
	export_name(p, v, name);
	return pool_check_export_free(p->a, name, v, e);
}

static int back_co_check(struct ashlar_pool *p, const char *name, bool force, struct ashlar_move_info *info, struct thin_vol **out, struct err *e)
{
	struct thin_vol *v = pool_handed_find(p, name), *m;
	char text[160];
	int r = 0;

	if (!v && thin_vol_find(p->thin, name))
		return err_set(e, -EEXIST, "volume %s/%s is here", p->label->name, name);
	if (!v)
		return err_set(e, -ENOENT, "no volume %s of pool %s has been moved away", name, p->label->name);
	*out = v;
	if (pool_by_uuid(p->a, &v->move_pool))
		return err_set(e, -EBUSY, "volume %s/%s is %s, which is open here: nothing is lost; `volume move` brings it back", p->label->name,
			       name, pool_move_text(p, v, text, sizeof(text)));
	list_for_each (m, thin_vols(p->thin), link) {
		if (r < 0 || !is_member(m, v))
			continue;
		info->n_volumes += m->kind == THIN_KIND_VOLUME;
		info->n_snapshots += m->kind == THIN_KIND_SNAPSHOT;
		r = member_co_check(p, m, e);
	}
	if (r < 0 || force)
		return r;
	return err_set(e, -EBUSY, "volume %s/%s is %s. What is here is as of the move: whatever was written since is given up, and if that pool ever "
		       "comes back there are two of it. If it is gone for good, use --force", p->label->name, name,
		       pool_move_text(p, v, text, sizeof(text)));
}

static int back_co_locked(struct ashlar_pool *p, const char *name, bool force, bool dry_run, struct ashlar_move_info *info, struct err *e)
{
	struct thin_rec_move rec = { .what = THIN_MOVE_RETURN };
	struct thin_vol *v, *m;
	int r = back_co_check(p, name, force || dry_run, info, &v, e);

	if (r < 0 || dry_run)
		return r;
	rec.family = le64_make(v->family);
	co_mutex_lock(&p->directory);
	r = thin_co_move(p->thin, &rec);
	co_mutex_unlock(&p->directory);
	if (r < 0)
		return pool_full_sentence(p, r, "taking back a volume", e);
	list_for_each (m, thin_vols(p->thin), link)
		if (m->family == v->family)
			m->leaving = m->switching = false;
	pool_event(p, ASHLAR_WARNING, "volume.taken_back", -1, v->name, "volume %s is served from here again, as it was when it was moved away",
		   v->name);
	return 0;
}

int ashlar_co_volume_take_back(struct ashlar_pool *p, const char *name, bool force, bool dry_run, struct ashlar_move_info *info, struct err *e)
{
	int r = dry_run ? 0 : pool_check_writable(p, e);

	memset(info, 0, sizeof(*info));
	if (r < 0)
		return r;
	co_mutex_lock(&p->a->admin);
	r = back_co_locked(p, name, force, dry_run, info, e);
	co_mutex_unlock(&p->a->admin);
	return r;
}

/* ---- a pool that is to be destroyed ---- */

int pool_check_moves_destroy(struct ashlar_pool *p, struct err *e)
{
	const struct thin_vol *handed = NULL, *incoming = NULL, *v;
	struct ashlar_pool *from;
	char id[UUID_TEXT_LEN];

	list_for_each (v, thin_vols(p->thin), link) {
		if (v->state == THIN_VOLUME_HANDED && v->kind == THIN_KIND_VOLUME)
			handed = v;
		if (v->state == THIN_VOLUME_INCOMING && v->move_id && !uuid_is_equal(&v->move_pool, &p->label->pool))
			incoming = v;
	}
	if (handed)
		return err_set(e, -EBUSY, "volume %s has been moved from pool %s to pool %s, and it is not known whether it has arrived: open both, or "
			       "use --force", handed->name, p->label->name, uuid_format(&handed->move_pool, id));
	if (!incoming)
		return 0;
	from = pool_by_uuid(p->a, &incoming->move_pool);
	return err_set(e, -EBUSY, "volumes are being moved to pool %s from pool %s, and may be here alone already: %s, or use --force",
		       p->label->name, from ? from->label->name : uuid_format(&incoming->move_pool, id),
		       from ? "wait for that job, or stop it" : "open that pool too");
}
