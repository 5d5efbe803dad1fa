/*
 * moved.c: a volume goes to another disk, mostly an export of an NBD server, while its clients work.
 *
 *   1. A mirror (mirror.h) does in the target what clients change; the job copies everything once, holes as holes. When it has come to
 *      the end nothing is left behind. A crash leaves the volume as it is, and in the target something that is to be copied anew.
 *   2. Clients are held. The target is flushed; then the volume's record says that it is there, durably. A crash before it: as above.
 *      After it: whoever opens the volume goes there, where everything is.
 *   3. Clients go on, with the target.
 *
 * What is here stays as it was at 2., and nobody reads it; deleting the volume frees it and leaves the target alone.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/units.h"
#include "engine/pool/label.h"
#include "engine/pool/life.h"
#include "engine/pool/mirror.h"
#include "engine/pool/moved.h"
#include "engine/pool/volumes.h"

#define COPY_STEP_BYTES MIB
#define RETRY_NS (2 * NS_PER_SEC)
#define ADMIN_NS (10 * NS_PER_MS)

/* While the data path of a moved volume is open, or of one that is being moved. Home reactor. */
struct pool_moved {
	struct ashlar_pool *p;
	struct thin_vol *v;
	struct reactor *home; /* of the volume */
	struct disk *disk;    /* NULL: away */
	struct moved_layer layer;
	char what[160], target[THIN_SOURCE_MAX + 1];
};

static bool move_is_over(const struct ashlar_pool *p, const struct thin_vol *v)
{
	return p->stopping || p->failed || v->leaving;
}

static struct pool_moved *moved_new(struct ashlar_pool *p, struct thin_vol *v, const char *target)
{
	struct pool_moved *m = xcalloc(1, sizeof(*m));

	m->p = p;
	m->v = v;
	m->home = thin_volume_home(p->thin, v->id);
	snprintf(m->what, sizeof(m->what), "volume %.63s/%.80s", p->label->name, v->name);
	snprintf(m->target, sizeof(m->target), "%s", target);
	return m;
}

/* Coroutine. -EINVAL with a sentence if the volume has no room there. */
static int target_co_open(struct ashlar_pool *p, const struct thin_vol *v, const char *target, struct disk **out, struct err *e)
{
	struct disk *d;
	int r = disk_co_open(p->w, target, 0, &d, e);

	if (r < 0)
		return err_prefix(e, "the target cannot be opened: ");
	if (d->bdev.size_bytes < v->size_bytes)
		r = err_set(e, -EINVAL, "the target %s has %" PRIu64 " bytes, and volume %s/%s %" PRIu64 ": make it as large first", target,
			    d->bdev.size_bytes, p->label->name, v->name, v->size_bytes);
	else if (d->bdev.block_bytes > p->label->block_bytes)
		r = err_set(e, -EINVAL, "the target %s has blocks of %u bytes, and volume %s/%s smaller ones of %u", target, d->bdev.block_bytes,
			    p->label->name, v->name, p->label->block_bytes);
	if (r < 0)
		disk_close(d);
	else
		*out = d;
	return r;
}

static bool is_same_disk(const struct disk *a, const struct disk *b)
{
	return a && !memcmp(a->ident, b->ident, sizeof(a->ident));
}

static bool vol_uses(const struct thin_vol *v, const struct disk *d)
{
	if (v->moving && is_same_disk(v->moving->disk, d))
		return true;
	return pool_vol_is_moved(v) && (!strcmp(v->source, d->path) || (v->moved && is_same_disk(v->moved->disk, d)));
}

int pool_check_not_used(struct ashlar *a, const struct disk *d, struct err *e)
{
	const struct ashlar_pool *p;
	const struct thin_vol *v;
	unsigned i;

	list_for_each (p, &a->pools, link) {
		for (i = 0; i < p->n_disks; i++)
			if (is_same_disk(p->disks[i].disk, d))
				return err_set(e, -EEXIST, "disk %s is in pool %s already, as disk %u", d->path, p->label->name, i);
		list_for_each (v, thin_vols(p->thin), link)
			if (vol_uses(v, d))
				return err_set(e, -EEXIST, "on disk %s there is volume %s/%s, which has been moved there or is on its way: it "
					       "takes no other", d->path, p->label->name, v->name);
	}
	return 0;
}

/* Coroutine. */
static int target_co_check(struct ashlar_pool *p, struct disk *d, bool force, struct err *e)
{
	struct label *l;
	char what[80];
	int r = pool_check_not_used(p->a, d, e);

	if (r < 0 || force)
		return r;
	l = xmalloc(sizeof(*l));
	r = label_co_read(d, l, NULL, NULL);
	if (r == 0)
		r = err_set(e, -EEXIST, "the target %s belongs to pool %s: use --force to overwrite it", d->path, l->name);
	else if (r != -ENOENT)
		r = err_set(e, -EEXIST, "the target %s has a label of Ashlar that is damaged, or cannot be read: use --force to overwrite it", d->path);
	else
		r = 0;
	xfree(l);
	if (r == 0 && disk_co_probe(d, what, sizeof(what), NULL) > 0)
		r = err_set(e, -EEXIST, "on the target %s there is already %s: use --force to overwrite it", d->path, what);
	return r;
}

/* ---- the data path comes and goes ---- */

static int layer_set_there(void *arg)
{
	struct pool_moved *m = arg;

	moved_layer_set(&m->layer, &m->disk->bdev);
	return 0;
}

static int layer_take_there(void *arg)
{
	moved_layer_co_take(&((struct pool_moved *)arg)->layer);
	return 0;
}

static int layer_init_there(void *arg)
{
	struct pool_moved *m = arg;

	moved_layer_init(&m->layer, m->p, thin_volume_inner(m->v->open), m->what);
	if (m->disk)
		moved_layer_set(&m->layer, &m->disk->bdev);
	return 0;
}

static int forward_there(void *arg)
{
	struct pool_moved *m = arg;
	int r = layer_init_there(m);

	thin_volume_co_freeze(m->v->open, true);
	thin_volume_set_forward(m->v->open, &m->layer.bdev);
	thin_volume_thaw(m->v->open);
	return r;
}

void pool_moved_co_open(struct ashlar_pool *p, struct thin_vol *v)
{
	struct pool_moved *m;
	struct err e = { 0 };
	int r;

	if (!pool_vol_is_moved(v) || v->moved)
		return;
	m = moved_new(p, v, v->source);
	r = target_co_open(p, v, v->source, &m->disk, &e);
	if (r < 0)
		pool_event(p, ASHLAR_ERROR, "volume.away", -1, NULL, "%s, which has been moved to %.100s: %.200s", m->what, v->source, e.text);
	r = reactor_co_call(m->home, forward_there, m);
	CHECK(r == 0);
	v->moved = m;
}

/* Coroutine. Nobody submits to the layer any more. */
static void moved_co_free(struct pool_moved *m)
{
	int r = reactor_co_call(m->home, layer_take_there, m);

	CHECK(r == 0);
	if (m->disk)
		disk_close(m->disk);
	xfree(m);
}

void pool_moved_co_close(struct ashlar_pool *p, struct thin_vol *v)
{
	if (v->moved)
		moved_co_free(v->moved);
	v->moved = NULL;
}

/* Coroutine, volume held. */
static void moved_co_reopen(struct ashlar_pool *p, struct thin_vol *v)
{
	struct pool_moved *m = v->moved;
	int r;

	if (!m || !atomic_load(&m->layer.is_broken))
		return;
	r = reactor_co_call(m->home, layer_take_there, m);
	if (m->disk)
		disk_close(m->disk);
	m->disk = NULL;
	if (r == 0 && target_co_open(p, v, m->target, &m->disk, NULL) == 0)
		r = reactor_co_call(m->home, layer_set_there, m);
	CHECK(r == 0);
}

static struct thin_vol *broken_after(struct ashlar_pool *p, uint64_t id)
{
	struct thin_vol *v, *best = NULL;

	list_for_each (v, thin_vols(p->thin), link)
		if (v->id > id && v->moved && !v->leaving && atomic_load(&v->moved->layer.is_broken) && (!best || v->id < best->id))
			best = v;
	return best;
}

void pool_moved_co_run(void *arg)
{
	struct ashlar_pool *p = arg;
	struct thin_vol *v;
	uint64_t id;

	while (!p->stopping && !p->failed) {
		for (id = 0; !p->stopping && (v = broken_after(p, id)); ) {
			id = v->id;
			v->n_own++;
			if (pool_co_vol_hold(p, v) == 0) {
				moved_co_reopen(p, v);
				v->n_own--;
				pool_vol_release(p, v);
			} else {
				v->n_own--;
			}
		}
		(void)!co_queue_wait_until(&p->life->kick, reactor_now_ns() + RETRY_NS);
	}
	pool_life_leave(p);
}

/* ---- the job ---- */

struct moving {
	struct ashlar_pool *p;
	struct thin_vol *v;
	struct pool_moved *m;
	struct pool_mirror *mirror;
	struct pool_job *job;
	uint64_t pos_bytes, len_bytes, copied_bytes;
	bool instead; /* the end: with the target */
};

static int start_there(void *arg)
{
	struct moving *g = arg;
	int r = layer_init_there(g->m);

	g->m->layer.is_copy = true;
	return r < 0 ? r : pool_mirror_co_start(g->v->open, &g->m->layer.bdev, &g->mirror);
}

static int copy_there(void *arg)
{
	struct moving *g = arg;
	int r = pool_mirror_co_copy(g->mirror, g->pos_bytes, g->len_bytes, &g->copied_bytes);

	return r < 0 ? r : pool_mirror_error(g->mirror);
}

static int hold_there(void *arg)
{
	struct moving *g = arg;

	pool_mirror_co_hold(g->mirror);
	return pool_mirror_error(g->mirror);
}

static int flush_there(void *arg)
{
	return bdev_co_flush(&((struct moving *)arg)->m->layer.bdev);
}

static int end_there(void *arg)
{
	struct moving *g = arg;

	g->m->layer.is_copy = !g->instead;
	pool_mirror_end(g->mirror, g->instead ? &g->m->layer.bdev : NULL);
	return 0;
}

/* Coroutine. Takes a->admin, never waiting for who waits for this job. */
static int moving_co_admin(struct moving *g)
{
	while (!move_is_over(g->p, g->v) && g->p->a->admin.owner)
		co_sleep_ns(ADMIN_NS);
	if (move_is_over(g->p, g->v))
		return -ESHUTDOWN;
	co_mutex_lock(&g->p->a->admin);
	return 0;
}

static int moving_co_copy(struct moving *g)
{
	uint64_t size = g->v->size_bytes;
	int r = 0;

	for (; r == 0 && g->pos_bytes < size; g->pos_bytes += g->len_bytes) {
		if (move_is_over(g->p, g->v) || g->job->stop)
			return -ESHUTDOWN;
		g->len_bytes = MIN(size - g->pos_bytes, pool_pace_unit(g->p, COPY_STEP_BYTES));
		r = reactor_co_call(g->m->home, copy_there, g);
		if (r == 0)
			pool_job_progress(g->job, g->len_bytes);
		if (r == 0 && g->copied_bytes)
			r = pool_co_pace(g->p, g->copied_bytes);
	}
	return r;
}

/* Coroutine under a->admin, clients held, all copied. */
static int moving_co_record(struct moving *g)
{
	struct thin_vol *to;
	int r = reactor_co_call(g->m->home, flush_there, g);

	if (r < 0)
		return r;
	to = xmalloc(sizeof(*to));
	*to = *g->v;
	to->source_kind = THIN_SOURCE_MOVED;
	to->source_bytes = 0;
	memcpy(to->source, g->m->target, sizeof(to->source));
	r = pool_co_vol_update(g->p, g->v, to, NULL);
	xfree(to);
	return r;
}

/* Coroutine. With the target if r is 0 and stays so, else as before. If the volume goes away whoever waits for us has the lock. */
static int moving_co_switch(struct moving *g, int r)
{
	int k, locked = moving_co_admin(g);

	r = r < 0 ? r : locked;
	k = reactor_co_call(g->m->home, hold_there, g);
	r = r < 0 ? r : k;
	if (r == 0)
		r = moving_co_record(g);
	g->instead = r == 0;
	if (g->instead)
		g->v->moved = g->m;
	k = reactor_co_call(g->m->home, end_there, g);
	CHECK(k == 0);
	if (locked == 0)
		co_mutex_unlock(&g->p->a->admin);
	return r;
}

static void moving_end(struct moving *g, int r, bool target_failed)
{
	if (r == 0)
		pool_job_end(g->job, ASHLAR_JOB_DONE, "its clients are served from there; deleting the volume frees what is here");
	else if (g->job->stop || move_is_over(g->p, g->v))
		pool_job_end(g->job, ASHLAR_JOB_STOPPED, "the volume stays where it is; what has been copied is of no use");
	else
		pool_job_end(g->job, ASHLAR_JOB_FAILED, "%s at %" PRIu64 " bytes: %s; the volume stays where it is, and its clients go on there",
			     target_failed ? "the target failed" : "copying failed", g->pos_bytes, err_text(r));
}

/* Service coroutine; the volume is held. */
static void moving_co_run(void *arg)
{
	struct moving *g = arg;
	struct ashlar_pool *p = g->p;
	int r = moving_co_switch(g, moving_co_copy(g));
	bool target_failed = g->m->layer.has_told;

	g->v->moving = NULL;
	if (r < 0)
		moved_co_free(g->m);
	moving_end(g, r, target_failed);
	g->v->n_own--;
	pool_vol_release(p, g->v);
	xfree(g);
	pool_life_leave(p);
}

/* ---- commands ---- */

/* Coroutine under a->admin. Takes over the disk, also on error. */
static int move_co_start(struct ashlar_pool *p, struct thin_vol *v, const char *target, struct disk *d, uint64_t *job, struct err *e)
{
	struct moving *g = xcalloc(1, sizeof(*g));
	int r;

	g->p = p;
	g->v = v;
	g->m = moved_new(p, v, target);
	g->m->disk = d;
	v->moving = g->m;
	v->n_own++;
	r = pool_co_vol_hold(p, v);
	if (r == 0) {
		r = reactor_co_call(g->m->home, start_there, g);
		if (r < 0)
			pool_vol_release(p, v);
	}
	if (r < 0) {
		v->n_own--;
		v->moving = NULL;
		disk_close(d);
		xfree(g->m);
		xfree(g);
		return err_default(e, r, "opening the volume");
	}
	g->job = pool_job_start(p, ASHLAR_JOB_MOVE_OUT, "%.100s to %.50s", g->m->what, target);
	g->job->info.total_bytes = v->size_bytes;
	*job = g->job->info.id;
	pool_life_spawn(p, moving_co_run, g, "moving");
	return 0;
}

static int move_co_locked(struct ashlar_pool *p, const char *name, const char *target, bool force, bool dry_run, uint64_t *job,
			  struct err *e)
{
	struct thin_vol *v = pool_vol_find(p, name, e);
	unsigned n_clients = v ? pool_vol_n_clients(v) : 0;
	struct disk *d = NULL;
	int r = v ? pool_check_not_adopted(p, v, "moving it", e) : -ENOENT;

	if (r == 0 && strlen(target) > THIN_SOURCE_MAX)
		r = err_set(e, -ENAMETOOLONG, "the target's name is longer than %d bytes", THIN_SOURCE_MAX);
	if (r == 0 && (v->move_flags & THIN_MOVE_WANTED || pool_co_vol_is_forwarded(p, v)))
		r = err_set(e, -EBUSY, "volume %s/%s is being moved already", p->label->name, name);
	if (r == 0)
		r = target_co_open(p, v, target, &d, e);
	if (r == 0 && pool_vol_n_clients(v) > n_clients) /* it would wait for itself for ever */
		r = err_set(e, -EINVAL, "the target %s is the volume %s/%s itself: somebody attached to it while it was opened", target,
			    p->label->name, name);
	if (r == 0 && d->is_own)
		r = err_set(e, -EINVAL, "the target %s is an export of this same daemon: volumes whose data lie in each other's exports would wait for "
			    "each other for ever; to move it to another pool: volume move %s/%s POOL", target, p->label->name, name);
	if (r == 0)
		r = target_co_check(p, d, force, e);
	if (r == 0 && !dry_run)
		r = pool_co_source_feature(p, e);
	if (r < 0 || dry_run) {
		if (d)
			disk_close(d);
		return r;
	}
	return move_co_start(p, v, target, d, job, e);
}

int ashlar_co_volume_move_out(struct ashlar_pool *p, const char *name, const char *target, bool force, bool dry_run, uint64_t *job,
			      struct err *e)
{
	int r = pool_check_writable(p, e);

	*job = 0;
	if (r < 0)
		return r;
	co_mutex_lock(&p->a->admin);
	r = move_co_locked(p, name, target, force, dry_run, job, e);
	co_mutex_unlock(&p->a->admin);
	return r;
}
