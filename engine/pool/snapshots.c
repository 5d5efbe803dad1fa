/*
 * snapshots.c: snapshot and clone commands, and what deleting would free. How a snapshot comes into being: thin/family.c.
 *
 * Commands are pairs of check and apply, as in volumes.c. A snapshot is a volume record with a parent; its name is VOLUME@SNAP, and
 * while it is there its volume is: deleting a volume deletes its snapshots first.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/units.h"
#include "engine/pool/life.h"
#include "engine/pool/move_family.h"
#include "engine/pool/volumes.h"

/* ---- names ---- */

const char *pool_point_name(const struct ashlar_pool *p, const struct thin_vol *v, char buf[POOL_POINT_NAME])
{
	const struct thin_vol *parent = v->kind == THIN_KIND_SNAPSHOT ? thin_vol_by_id(p->thin, v->parent) : NULL;

	if (parent)
		snprintf(buf, POOL_POINT_NAME, "%.127s@%.127s", parent->name, v->name);
	else
		snprintf(buf, POOL_POINT_NAME, "%.127s", v->name);
	return buf;
}

/* Cut at the '@': xfree() it. NULL: there is none. */
static char *name_cut(const char *name, char **snap)
{
	size_t n = strlen(name), at = strcspn(name, "@");
	char *s;

	if (at == n)
		return NULL;
	s = xcalloc(1, n + 1);
	memcpy(s, name, n);
	s[at] = '\0';
	*snap = s + at + 1;
	return s;
}

/* A volume, and the name of a snapshot that it may or may not have. */
static int volume_of(struct ashlar_pool *p, const char *name, struct thin_vol **out, char snap[ASHLAR_VOLUME_NAME_MAX + 1],
		     struct err *e)
{
	char *tail, *s = name_cut(name, &tail);
	int r;

	if (!s)
		return err_set(e, -EINVAL, "%s/%.127s is not the name of a snapshot: it must be %s/VOLUME@SNAPSHOT", p->label->name, name,
			       p->label->name);
	r = name_check("volume", s, ASHLAR_VOLUME_NAME_MAX, e);
	if (r == 0)
		r = name_check("snapshot", tail, ASHLAR_VOLUME_NAME_MAX, e);
	if (r == 0) {
		memcpy(snap, tail, strlen(tail) + 1);
		*out = pool_vol_find(p, s, e);
		r = *out ? 0 : -ENOENT;
	}
	xfree(s);
	return r;
}

int pool_snap_find(struct ashlar_pool *p, const char *name, struct thin_vol **out, struct err *e)
{
	char snap[ASHLAR_VOLUME_NAME_MAX + 1];
	struct thin_vol *v;
	int r = volume_of(p, name, &v, snap, e);

	if (r < 0)
		return r;
	*out = thin_snap_find(p->thin, v, snap);
	return *out ? 0 : err_set(e, -ENOENT, "there is no snapshot %s/%s", p->label->name, name);
}

int pool_point_find(struct ashlar_pool *p, const char *name, struct thin_vol **out, struct err *e)
{
	if (strchr(name, '@'))
		return pool_snap_find(p, name, out, e);
	*out = pool_vol_find(p, name, e);
	return *out ? 0 : -ENOENT;
}

struct thin_vol **pool_snaps_of(struct ashlar_pool *p, const struct thin_vol *v, unsigned *n)
{
	struct thin_vol **all = xcalloc(thin_n_snaps(p->thin, v) + 2u, sizeof(*all)), *x;

	*n = 0;
	list_for_each (x, thin_vols(p->thin), link)
		if (x->kind == THIN_KIND_SNAPSHOT && x->state == THIN_VOLUME_LIVE && x->parent == v->id)
			all[(*n)++] = x;
	return all;
}

/* ---- space ---- */

static int nothing_there(void *arg)
{
	return 0;
}

void pool_co_vols_now(struct ashlar_pool *p)
{
	struct thin_vol *v;
	uint64_t seq = 0;

	if (!p->started || p->failed)
		return;
	pool_co_each_reactor(p, nothing_there, NULL); /* messages keep their order: what was said there before has arrived */
	list_for_each (v, thin_vols(p->thin), link)
		seq = MAX(seq, v->last_seq);
	(void)!meta_co_wait_applied(p->meta, seq); /* a pool that has stopped says what it knows */
}

int pool_co_freed_bytes(struct ashlar_pool *p, struct thin_vol *const *v, unsigned n, uint64_t *bytes)
{
	uint64_t clusters = 0;
	int r = thin_co_freed_by(p->thin, v, n, &clusters);

	*bytes = clusters * p->label->cluster_bytes;
	return r;
}

int pool_co_exclusive_bytes(struct ashlar_pool *p, uint64_t id, uint64_t *bytes)
{
	struct thin_vol *v;
	int r = 0;

	*bytes = 0;
	co_mutex_lock(&p->directory);
	v = thin_vol_by_id(p->thin, id);
	if (v && v->state == THIN_VOLUME_LIVE && !p->failed)
		r = pool_co_freed_bytes(p, &v, 1, bytes);
	co_mutex_unlock(&p->directory);
	return p->failed ? 0 : r;
}

/* ---- deleting ---- */

int pool_co_vols_delete(struct ashlar_pool *p, struct thin_vol *const *v, unsigned n, bool force, bool dry_run, uint64_t *freed_bytes,
			struct err *e)
{
	char name[POOL_POINT_NAME];
	unsigned i;
	int r = 0;

	for (i = 0; i < n; i++)
		if (pool_vol_n_clients(v[i]) && !force)
			return v[i]->state == THIN_VOLUME_RECEIVING ?
			       err_set(e, -EBUSY, "volume %s/%s is being received into: end that first, or use --force", p->label->name,
				       v[i]->name) :
			       err_set(e, -EBUSY, "%s %s/%s is in use by %u client%s: end them first, or use --force to disconnect them",
				       v[i]->kind == THIN_KIND_SNAPSHOT ? "snapshot" : "volume", p->label->name,
				       pool_point_name(p, v[i], name), pool_vol_n_clients(v[i]), pool_vol_n_clients(v[i]) == 1 ? "" : "s");
	for (i = 0; i < n && !dry_run; i++)
		pool_co_vol_quiesce(p, v[i]);
	if (freed_bytes) {
		pool_co_vols_now(p);
		r = pool_co_freed_bytes(p, v, n, freed_bytes);
	}
	if (r == 0 && !dry_run) {
		co_mutex_lock(&p->directory);
		r = thin_co_volumes_delete(p->thin, v, n);
		co_mutex_unlock(&p->directory);
		return err_default(e, r, "deleting"); /* on an error the pool has stopped */
	}
	for (i = 0; i < n; i++)
		v[i]->leaving = false;
	return err_default(e, r, "deleting");
}

static int by_id(const void *a, const void *b)
{
	const struct thin_vol *x = *(struct thin_vol *const *)a, *y = *(struct thin_vol *const *)b;

	return x->id < y->id ? -1 : x->id > y->id;
}

static int delete_co_locked(struct ashlar_pool *p, const char *const *names, size_t n, bool force, bool dry_run, uint64_t *freed_bytes,
			    struct err *e)
{
	struct thin_vol **v = xcalloc(n + 1, sizeof(struct thin_vol *));
	char name[POOL_POINT_NAME];
	size_t i;
	int r = 0;

	for (i = 0; i < n && r == 0; i++)
		r = pool_snap_find(p, names[i], &v[i], e);
	if (r == 0)
		qsort(v, n, sizeof(struct thin_vol *), by_id);
	for (i = 1; i < n && r == 0; i++)
		if (v[i] == v[i - 1])
			r = err_set(e, -EINVAL, "snapshot %s/%s is named twice", p->label->name, pool_point_name(p, v[i], name));
	if (r == 0)
		r = pool_co_vols_delete(p, v, (unsigned)n, force, dry_run, freed_bytes, e);
	xfree(v);
	return r;
}

int ashlar_co_snapshot_delete(struct ashlar_pool *p, const char *const *names, size_t n, bool force, bool dry_run,
			      uint64_t *freed_bytes, struct err *e)
{
	int r = dry_run ? 0 : pool_check_writable(p, e);

	if (r < 0)
		return r;
	if (!n)
		return err_set(e, -EINVAL, "no snapshot is named");
	co_mutex_lock(&p->a->admin);
	r = delete_co_locked(p, names, n, force, dry_run, freed_bytes, e);
	co_mutex_unlock(&p->a->admin);
	return r;
}

/* ---- taking ---- */

int pool_co_feature(struct ashlar_pool *p, uint64_t bits, struct err *e)
{
	int r;

	CHECK(p->a->admin.owner == co_self());
	r = pool_co_incompat_set(p, bits);
	return r == 0 ? 0 : err_set(e, r, "pool %s: its labels could not be written: %s", p->label->name, err_text(r));
}

static void guid_make(struct world *w, struct uuid *u)
{
	uint8_t random[16];

	world_random(w, random, sizeof(random));
	uuid_from_random(u, random);
}

static int by_source(const void *a, const void *b)
{
	const struct thin_copy *x = a, *y = b;

	if (x->source != y->source)
		return x->source->id < y->source->id ? -1 : 1;
	return strcmp(x->name, y->name);
}

/* Coroutine under a->admin. The copies are in order of their sources: locks are taken in order of ids. */
static int copies_co_make(struct ashlar_pool *p, struct thin_copy *c, unsigned n, const char *doing, struct err *e)
{
	unsigned i;
	int r = pool_co_feature(p, LABEL_INCOMPAT_SNAPSHOTS, e);

	if (r < 0)
		return r;
	for (i = 0; i < n; i++)
		if (!i || c[i].source != c[i - 1].source)
			co_mutex_lock(&c[i].source->admin);
	r = thin_co_copy(p->thin, c, n);
	for (i = n; i-- > 0;)
		if (!i || c[i].source != c[i - 1].source)
			co_mutex_unlock(&c[i].source->admin);
	return pool_full_sentence(p, r, doing, e);
}

int pool_check_new_snap(struct ashlar_pool *p, struct thin_vol *v, const char *snap, const struct thin_vol *self, struct err *e)
{
	char export_name[POOL_EXPORT_NAME];

	if (thin_snap_find(p->thin, v, snap))
		return err_set(e, -EEXIST, "snapshot %s/%s@%s exists already", p->label->name, v->name, snap);
	if (pool_check_not_adopted(p, v, "taking a snapshot", e) < 0)
		return -EBUSY;
	snprintf(export_name, sizeof(export_name), "%.63s/%.127s@%.127s", p->label->name, v->name, snap);
	return pool_check_export_free(p->a, export_name, self, e);
}

/* Each copy's record, and some more, must fit in the journal at once. */
static unsigned copies_max(const struct ashlar_pool *p)
{
	return (unsigned)(p->label->journal_bytes / 4 / (sizeof(struct thin_rec_copy) + 64));
}

static int create_co_locked(struct ashlar_pool *p, const char *const *names, size_t n, struct err *e)
{
	char (*snaps)[ASHLAR_VOLUME_NAME_MAX + 1] = xcalloc(n, sizeof(*snaps));
	struct thin_copy *c = xcalloc(n, sizeof(*c));
	size_t i;
	int r = 0;

	for (i = 0; i < n && r == 0; i++) {
		c[i] = (struct thin_copy){ .name = snaps[i], .kind = THIN_KIND_SNAPSHOT };
		guid_make(p->w, &c[i].guid);
		r = volume_of(p, names[i], &c[i].source, snaps[i], e);
		if (r == 0)
			r = pool_check_new_snap(p, c[i].source, snaps[i], NULL, e);
	}
	if (r == 0)
		qsort(c, n, sizeof(*c), by_source);
	for (i = 1; i < n && r == 0; i++)
		if (by_source(&c[i - 1], &c[i]) == 0)
			r = err_set(e, -EINVAL, "snapshot %s/%s@%s is named twice", p->label->name, c[i].source->name, c[i].name);
	if (r == 0)
		r = copies_co_make(p, c, (unsigned)n, "taking a snapshot", e);
	xfree(c);
	xfree(snaps);
	return r;
}

int ashlar_co_snapshot_create(struct ashlar_pool *p, const char *const *names, size_t n, struct err *e)
{
	int r = pool_check_writable(p, e);

	if (r < 0)
		return r;
	if (!n)
		return err_set(e, -EINVAL, "no snapshot is named");
	if (n > copies_max(p))
		return err_set(e, -E2BIG, "%zu snapshots are more than pool %s can take at one instant: %u at most", n, p->label->name,
			       copies_max(p));
	co_mutex_lock(&p->a->admin);
	r = create_co_locked(p, names, n, e);
	co_mutex_unlock(&p->a->admin);
	return r;
}

int pool_co_snapshot_by_policy(struct ashlar_pool *p, struct thin_vol *v, const char *snap, struct err *e)
{
	struct thin_copy c = { .source = v, .name = snap, .kind = THIN_KIND_SNAPSHOT, .by_policy = true };
	int r = pool_check_new_snap(p, v, snap, NULL, e);

	guid_make(p->w, &c.guid);
	return r < 0 ? r : copies_co_make(p, &c, 1, "taking a snapshot", e);
}

static int clone_co_locked(struct ashlar_pool *p, const char *snapshot, const char *new_name, struct err *e)
{
	struct thin_copy c = { .name = new_name, .kind = THIN_KIND_VOLUME };
	char export_name[POOL_EXPORT_NAME];
	int r = pool_snap_find(p, snapshot, &c.source, e);

	if (r == 0)
		r = pool_check_name_free(p, c.source, new_name, e);
	if (r < 0)
		return r;
	snprintf(export_name, sizeof(export_name), "%.63s/%.127s", p->label->name, new_name);
	r = pool_check_export_free(p->a, export_name, NULL, e);
	return r < 0 ? r : copies_co_make(p, &c, 1, "making a clone", e);
}

int ashlar_co_clone(struct ashlar_pool *p, const char *snapshot, const char *new_name, struct err *e)
{
	int r = pool_check_writable(p, e);

	if (r == 0)
		r = name_check("volume", new_name, ASHLAR_VOLUME_NAME_MAX, e);
	if (r < 0)
		return r;
	co_mutex_lock(&p->a->admin);
	r = clone_co_locked(p, snapshot, new_name, e);
	co_mutex_unlock(&p->a->admin);
	return r;
}

/* ---- rollback ---- */

static int rollback_co_locked(struct ashlar_pool *p, const char *name, bool force, bool dry_run, uint64_t *freed_bytes, struct err *e)
{
	struct thin_vol *s, *v;
	uint64_t old_size;
	int r = pool_snap_find(p, name, &s, e);

	if (r < 0)
		return r;
	v = thin_vol_by_id(p->thin, s->parent);
	r = pool_check_not_adopted(p, v, "rolling it back", e);
	if (r < 0)
		return r;
	if (pool_vol_n_clients(v) && !force)
		return err_set(e, -EBUSY, "volume %s/%s is in use by %u client%s: end them first, or use --force to change it under them",
			       p->label->name, v->name, pool_vol_n_clients(v), pool_vol_n_clients(v) == 1 ? "" : "s");
	if (freed_bytes) {
		pool_co_vols_now(p);
		r = pool_co_freed_bytes(p, &v, 1, freed_bytes);
	}
	if (r < 0 || dry_run)
		return err_default(e, r, "rolling back");
	pool_moves_co_yield(p, v);
	if (pool_co_vol_is_forwarded(p, v))
		return err_set(e, -EBUSY, "volume %s/%s is being moved: it can be rolled back when that is over", p->label->name, v->name);
	co_mutex_lock(&v->admin);
	old_size = v->size_bytes;
	r = thin_co_rollback(p->thin, v, s);
	co_mutex_unlock(&v->admin);
	if (r == 0 && v->size_bytes != old_size)
		pool_co_vol_tell_resized(p, v);
	return pool_full_sentence(p, r, "rolling back", e);
}

int ashlar_co_snapshot_rollback(struct ashlar_pool *p, const char *name, bool force, bool dry_run, uint64_t *freed_bytes,
				struct err *e)
{
	int r = dry_run ? 0 : pool_check_writable(p, e);

	if (r < 0)
		return r;
	co_mutex_lock(&p->a->admin);
	r = rollback_co_locked(p, name, force, dry_run, freed_bytes, e);
	co_mutex_unlock(&p->a->admin);
	return r;
}

/* ---- attributes ---- */

static int policy_co_locked(struct ashlar_pool *p, const char *volume, uint64_t every_ns, unsigned keep, struct err *e)
{
	struct thin_vol *v = pool_vol_find(p, volume, e), *to;
	int r;

	if (!v)
		return -ENOENT;
	r = every_ns ? pool_check_not_adopted(p, v, "a schedule for snapshots", e) : 0;
	if (r < 0)
		return r;
	to = xmalloc(sizeof(*to));
	*to = *v;
	to->policy_every_ns = every_ns;
	to->policy_keep = every_ns ? keep : 0;
	r = pool_co_vol_update(p, v, to, e);
	xfree(to);
	return r;
}

int ashlar_co_snapshot_policy(struct ashlar_pool *p, const char *volume, uint64_t every_ns, unsigned keep, struct err *e)
{
	int r = pool_check_writable(p, e);

	if (r < 0)
		return r;
	if (every_ns && every_ns < 60 * NS_PER_SEC)
		return err_set(e, -EINVAL, "volume %s/%.127s: snapshots can be taken once a minute, not more often", p->label->name, volume);
	if (every_ns && (!keep || every_ns == UINT64_MAX))
		return err_set(e, -EINVAL, "volume %s/%.127s: a policy needs a time and a number of snapshots to keep, 1 or more",
			       p->label->name, volume);
	co_mutex_lock(&p->a->admin);
	r = policy_co_locked(p, volume, every_ns, keep, e);
	co_mutex_unlock(&p->a->admin);
	pool_life_kick(p);
	return r;
}

/* ---- what there is ---- */

static void info_fill(struct ashlar_pool *p, const struct thin_vol *s, struct ashlar_snapshot_info *x)
{
	const struct thin_vol *v = thin_vol_by_id(p->thin, s->parent);

	*x = (struct ashlar_snapshot_info){
		.id = s->id,
		.guid = s->guid,
		.size_bytes = s->size_bytes,
		.refer_bytes = s->valid_subs * (p->label->cluster_bytes / THIN_SUBS),
		.used_bytes = s->used_clusters * p->label->cluster_bytes,
		.created_wall_ns = s->created_wall_ns,
		.n_attached = s->n_attached,
		.made_by_policy = s->made_by_policy,
	};
	pool_point_name(p, s, x->name);
	snprintf(x->volume, sizeof(x->volume), "%.127s", v ? v->name : "");
}

/* Clones of those listed, which are in order of their ids. */
static void clones_count(struct ashlar_pool *p, struct ashlar_snapshot_info *x, size_t n)
{
	struct thin_vol *v;

	list_for_each (v, thin_vols(p->thin), link) {
		size_t lo = 0, hi = n, mid;

		if (v->state != THIN_VOLUME_LIVE || v->kind != THIN_KIND_VOLUME || !v->origin)
			continue;
		while (lo < hi) {
			mid = (lo + hi) / 2;
			if (x[mid].id < v->origin)
				lo = mid + 1;
			else
				hi = mid;
		}
		if (lo < n && x[lo].id == v->origin)
			x[lo].n_clones++;
	}
}

static int info_by_id(const void *a, const void *b)
{
	const struct ashlar_snapshot_info *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

/* Coroutine. only: one of them; NULL: all. */
static int list_co(struct ashlar_pool *p, const struct thin_vol *of, const struct thin_vol *only, struct ashlar_snapshot_info **out,
		   size_t *n, struct err *e)
{
	struct thin_vol *v;
	size_t cap = 1, i;
	int r = 0;

	list_for_each (v, thin_vols(p->thin), link)
		cap += v->kind == THIN_KIND_SNAPSHOT;
	*out = xcalloc(only ? 1 : cap, sizeof(**out));
	*n = 0;
	list_for_each (v, thin_vols(p->thin), link)
		if (v->kind == THIN_KIND_SNAPSHOT && v->state == THIN_VOLUME_LIVE && (!of || v->parent == of->id) && (!only || v == only))
			info_fill(p, v, &(*out)[(*n)++]);
	qsort(*out, *n, sizeof(**out), info_by_id);
	clones_count(p, *out, *n);
	for (i = 0; i < *n && r == 0; i++)
		r = pool_co_exclusive_bytes(p, (*out)[i].id, &(*out)[i].exclusive_bytes);
	if (r < 0)
		xfree(*out);
	return err_default(e, r, "reading the maps of snapshots");
}

int ashlar_co_snapshot_list(struct ashlar_pool *p, const char *volume, struct ashlar_snapshot_info **out, size_t *n, struct err *e)
{
	struct thin_vol *of = NULL;

	pool_co_vols_now(p);
	if (volume)
		of = pool_vol_find(p, volume, e);
	return volume && !of ? -ENOENT : list_co(p, of, NULL, out, n, e);
}

int ashlar_co_snapshot_info(struct ashlar_pool *p, const char *name, struct ashlar_snapshot_info *out, struct err *e)
{
	struct ashlar_snapshot_info *x;
	struct thin_vol *s;
	size_t n;
	int r;

	pool_co_vols_now(p);
	r = pool_snap_find(p, name, &s, e);
	if (r == 0)
		r = list_co(p, NULL, s, &x, &n, e);
	if (r < 0)
		return r;
	*out = x[0];
	xfree(x);
	return 0;
}
