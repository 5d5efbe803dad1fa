/*
 * attach.c: clients of volumes: from an export name to the bdev on the volume's home reactor, and back.
 *
 * The list of attachments belongs to the pool's home reactor; the callbacks of a frontend run on the volume's home.
 */
#include <stdio.h>
#include <string.h>

#include "engine/pool/transfer.h"
#include "engine/pool/volumes.h"

struct ashlar_attach {
	struct list link; /* p->attached */
	struct ashlar_pool *p;
	uint64_t volume;
	struct thin_volume *tv;
	struct reactor *home;
	const struct ashlar_attach_ops *ops;
	void *arg;
	bool read_only, gone;
	unsigned refs;		/* on the pool's home */
	_Atomic bool detaching; /* no callbacks any more */
};

/* ---- names ---- */

/* By the name that it has if it has been given none: POOL/VOLUME or POOL/VOLUME@SNAP. */
static struct thin_vol *default_find(struct ashlar_pool *p, const char *name)
{
	size_t n = strlen(p->label->name);
	struct thin_vol *v;

	if (strncmp(name, p->label->name, n) || name[n] != '/')
		return NULL;
	return pool_point_find(p, name + n + 1, &v, NULL) < 0 ? NULL : v;
}

struct thin_vol *pool_export_find(struct ashlar *a, const char *name, struct ashlar_pool **out)
{
	struct ashlar_pool *p;
	struct thin_vol *v;

	list_for_each (p, &a->pools, link) {
		*out = p;
		v = default_find(p, name);
		if (v && v->export_kind != THIN_EXPORT_NAMED)
			return v;
		list_for_each (v, thin_vols(p->thin), link)
			if (v->state == THIN_VOLUME_LIVE && v->export_kind == THIN_EXPORT_NAMED && !strcmp(v->export_name, name))
				return v;
	}
	return NULL;
}

static void export_info_fill(const struct ashlar_pool *p, const struct thin_vol *v, struct ashlar_export_info *x)
{
	snprintf(x->pool, sizeof(x->pool), "%.63s", p->label->name);
	pool_point_name(p, v, x->volume);
	if (v->export_kind == THIN_EXPORT_NAMED)
		snprintf(x->name, sizeof(x->name), "%s", v->export_name);
	else
		snprintf(x->name, sizeof(x->name), "%.63s/%.255s", p->label->name, x->volume);
	x->is_snapshot = v->kind == THIN_KIND_SNAPSHOT;
	x->set_read_only = v->export_flags & THIN_EXPORT_READ_ONLY || x->is_snapshot;
	x->read_only = x->set_read_only || p->read_only;
	x->hidden = v->export_kind == THIN_EXPORT_HIDDEN;
	x->is_default = v->export_kind == THIN_EXPORT_DEFAULT;
	x->size_bytes = v->size_bytes;
	x->n_attached = v->n_attached;
}

int ashlar_co_export_list(struct ashlar *a, struct ashlar_export_info **out, size_t *n, struct err *e)
{
	struct ashlar_pool *p;
	struct thin_vol *v;
	size_t cap = 0;

	*n = 0;
	list_for_each (p, &a->pools, link)
		list_for_each (v, thin_vols(p->thin), link)
			cap += v->state == THIN_VOLUME_LIVE;
	*out = xcalloc(cap + 1, sizeof(**out));
	list_for_each (p, &a->pools, link)
		list_for_each (v, thin_vols(p->thin), link)
			if (v->state == THIN_VOLUME_LIVE)
				export_info_fill(p, v, &(*out)[(*n)++]);
	return 0;
}

/* ---- the data path of a volume ---- */

struct vol_open {
	struct thin *t;
	struct thin_vol *v;
	uint64_t size;
	uint64_t ns;
};

static int vol_open_there(void *arg)
{
	struct vol_open *o = arg;

	return thin_volume_co_open(o->t, o->v->id, o->v->size_bytes, o->v->cls, o->v->full_wait_ns,
				   thin_vol_is_fixed(o->v), &o->v->open);
}

/* Coroutine on the home, under v->admin. */
static int vol_co_open(struct ashlar_pool *p, struct thin_vol *v)
{
	struct vol_open o = { .t = p->thin, .v = v };

	v->open_to_merge = false;
	return v->open ? 0 : reactor_co_call(thin_volume_home(p->thin, v->id), vol_open_there, &o);
}

static int vol_close_there(void *arg)
{
	thin_volume_co_close(arg);
	return 0;
}

static int vol_shut_there(void *arg)
{
	thin_volume_shut(arg);
	return 0;
}

static int vol_resize_there(void *arg)
{
	struct vol_open *o = arg;

	return thin_volume_co_resize(o->v->open, o->size);
}

static int vol_full_wait_there(void *arg)
{
	struct vol_open *o = arg;

	thin_volume_set_full_wait(o->v->open, o->ns);
	return 0;
}

void pool_co_vol_set_full_wait(struct ashlar_pool *p, struct thin_vol *v, uint64_t ns)
{
	struct vol_open o = { .v = v, .ns = ns };
	int r = 0;

	co_mutex_lock(&v->admin);
	if (v->open)
		r = reactor_co_call(thin_volume_home(p->thin, v->id), vol_full_wait_there, &o);
	co_mutex_unlock(&v->admin);
	CHECK(r == 0);
}

static int vol_is_forwarded_there(void *arg)
{
	return thin_volume_is_forwarded(arg);
}

bool pool_co_vol_is_forwarded(struct ashlar_pool *p, struct thin_vol *v)
{
	bool is;

	co_mutex_lock(&v->admin);
	is = v->open && reactor_co_call(thin_volume_home(p->thin, v->id), vol_is_forwarded_there, v->open);
	co_mutex_unlock(&v->admin);
	return is;
}

/* ---- holding ---- */

int pool_co_vol_hold(struct ashlar_pool *p, struct thin_vol *v)
{
	int r;

	v->n_attached++; /* holds the volume while its data path opens */
	p->n_opening++;
	co_mutex_lock(&v->admin);
	r = vol_co_open(p, v);
	co_mutex_unlock(&v->admin);
	p->n_opening--;
	if (r == 0 && v->leaving)
		r = -ESHUTDOWN;
	if (r < 0)
		pool_vol_release(p, v);
	return r;
}

void pool_vol_release(struct ashlar_pool *p, struct thin_vol *v)
{
	CHECK(v->n_attached);
	v->n_attached--;
	co_queue_wake_all(&p->idle);
}

/* ---- attaching ---- */

struct attach_call {
	struct ashlar *a;
	const char *name;
	struct ashlar_attach *at;
	struct err *e;
};

static int attach_there(void *arg)
{
	struct attach_call *c = arg;
	struct ashlar_attach *at = c->at;
	struct thin_vol *v = pool_export_find(c->a, c->name, &at->p);
	uint64_t id;
	int r;

	if (!v || v->export_kind == THIN_EXPORT_HIDDEN || v->leaving)
		return err_set(c->e, -ENOENT, "there is no export of that name");
	if (at->p->failed)
		return err_set(c->e, -ERR_POOL_FAILED, "pool %s has stopped: %s", at->p->label->name, at->p->failed_why);
	id = v->id;
	r = pool_co_vol_hold(at->p, v);
	if (r < 0)
		return err_default(c->e, r, "opening the volume");
	at->volume = id;
	at->tv = v->open;
	at->home = thin_volume_home(at->p->thin, id);
	at->read_only = v->export_flags & THIN_EXPORT_READ_ONLY || at->p->read_only || v->kind == THIN_KIND_SNAPSHOT;
	list_push_back(&at->p->attached, &at->link);
	return 0;
}

int ashlar_co_attach(struct ashlar *a, const char *export_name, const struct ashlar_attach_ops *ops, void *arg,
		     struct ashlar_attach **out, struct err *e)
{
	struct ashlar_attach *at = xcalloc(1, sizeof(*at));
	struct attach_call c = { .a = a, .name = export_name, .at = at, .e = e };
	int r;

	at->ops = ops;
	at->arg = arg;
	at->refs = 1;
	list_init(&at->link);
	r = reactor_co_call(a->world->reactors[0], attach_there, &c);
	if (r < 0)
		xfree(at);
	else
		*out = at;
	return r;
}

static void attach_put(struct ashlar_attach *at)
{
	if (--at->refs == 0)
		xfree(at);
}

static int detach_there(void *arg)
{
	struct ashlar_attach *at = arg;
	struct thin_vol *v = thin_vol_by_id(at->p->thin, at->volume);

	CHECK(v);
	list_del(&at->link);
	pool_vol_release(at->p, v);
	attach_put(at);
	return 0;
}

void ashlar_co_detach(struct ashlar_attach *at)
{
	int r;

	at->detaching = true;
	r = reactor_co_call(at->p->w->reactors[0], detach_there, at);
	CHECK(r == 0);
}

struct bdev *ashlar_attach_bdev(struct ashlar_attach *at)
{
	return thin_volume_bdev(at->tv);
}

struct reactor *ashlar_attach_home(struct ashlar_attach *at)
{
	return at->home;
}

bool ashlar_attach_read_only(struct ashlar_attach *at)
{
	return at->read_only;
}

struct thin_vol *pool_attach_vol(const struct ashlar_attach *at, struct ashlar_pool **p)
{
	struct thin_vol *v = thin_vol_by_id(at->p->thin, at->volume);

	CHECK(v);
	*p = at->p;
	return v;
}

struct reactor *pool_attach_reactor(const struct ashlar_attach *at)
{
	return at->p->w->reactors[0];
}

/* ---- telling clients ---- */

struct tell {
	struct ashlar_attach **v;
	size_t n;
	bool gone;
};

static int tell_there(void *arg)
{
	struct tell *t = arg;
	size_t i;

	for (i = 0; i < t->n; i++) {
		struct ashlar_attach *at = t->v[i];

		if (at->detaching)
			continue;
		if (t->gone && at->ops && at->ops->gone)
			at->ops->gone(at->arg);
		else if (!t->gone && at->ops && at->ops->resized)
			at->ops->resized(at->arg);
	}
	return 0;
}

/* Coroutine on the home. References keep the attachments while their reactor calls back. */
static void vol_co_tell(struct ashlar_pool *p, uint64_t volume, bool gone)
{
	struct ashlar_attach *at;
	struct tell t = { .gone = gone };
	size_t cap = 0;
	int r;

	list_for_each (at, &p->attached, link)
		cap++;
	t.v = xcalloc(cap + 1, sizeof(*t.v));
	list_for_each (at, &p->attached, link) {
		if (at->volume != volume || (gone && at->gone))
			continue;
		at->gone = gone || at->gone;
		at->refs++;
		t.v[t.n++] = at;
	}
	if (t.n) {
		r = reactor_co_call(t.v[0]->home, tell_there, &t);
		CHECK(r == 0);
	}
	while (t.n)
		attach_put(t.v[--t.n]);
	xfree(t.v);
}

void pool_co_vol_quiesce(struct ashlar_pool *p, struct thin_vol *v)
{
	struct thin_volume *tv;
	int r;

	v->leaving = true;
	if (v->n_attached && v->open) { /* a client that waits for a held write would never go */
		r = reactor_co_call(thin_volume_home(p->thin, v->id), vol_shut_there, v->open);
		CHECK(r == 0);
	}
	while (v->n_attached) {
		vol_co_tell(p, v->id, true);
		pool_transfers_stop(p, v->id);
		if (v->n_attached)
			co_queue_wait(&p->idle);
	}
	co_mutex_lock(&v->admin);
	tv = v->open;
	v->open = NULL;
	if (tv) {
		r = reactor_co_call(thin_volume_home(p->thin, v->id), vol_close_there, tv);
		CHECK(r == 0);
	}
	co_mutex_unlock(&v->admin);
}

void pool_co_detach_all(struct ashlar_pool *p)
{
	struct thin_vol *v;
	int r;

	list_for_each (v, thin_vols(p->thin), link) {
		if (v->state != THIN_VOLUME_RECEIVING || !v->open)
			continue;
		r = reactor_co_call(thin_volume_home(p->thin, v->id), vol_shut_there, v->open); /* a held write may wait for ever */
		CHECK(r == 0);
	}
	pool_co_transfers_stop(p);
	while (p->n_opening)
		co_queue_wait(&p->idle);
	list_for_each (v, thin_vols(p->thin), link)
		if (v->state == THIN_VOLUME_LIVE)
			pool_co_vol_quiesce(p, v);
}

void pool_co_vol_tell_resized(struct ashlar_pool *p, struct thin_vol *v)
{
	vol_co_tell(p, v->id, false);
}

int pool_co_vol_resize_open(struct ashlar_pool *p, struct thin_vol *v, uint64_t size)
{
	struct vol_open o = { .t = p->thin, .v = v, .size = size };
	int r = 0;

	co_mutex_lock(&v->admin);
	if (v->open || size < v->size_bytes)
		r = vol_co_open(p, v);
	if (r == 0 && v->open)
		r = reactor_co_call(thin_volume_home(p->thin, v->id), vol_resize_there, &o);
	co_mutex_unlock(&v->admin);
	if (r == 0)
		vol_co_tell(p, v->id, false);
	return r;
}
