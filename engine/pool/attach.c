/*
 * attach.c: clients of volumes: from an export name to the bdev on the volume's home reactor, and back.
 *
 * The list of attachments belongs to the pool's home reactor; the callbacks of a frontend run on the volume's home.
 */
#include <stdio.h>
#include <string.h>

#include "engine/pool/move_family.h"
#include "engine/pool/adopt.h"
#include "engine/pool/moved.h"
#include "engine/pool/transfer.h"
#include "engine/pool/volumes.h"

#define SWITCHING_NS NS_PER_MS

struct ashlar_attach {
	struct list link; /* p->attached */
	struct ashlar_pool *p;
	uint64_t volume;
	struct thin_volume *tv;
	struct reactor *home;
	const struct ashlar_attach_ops *ops;
	void *arg;
	bool read_only, gone, is_look;
	struct uuid identity;
	/* Its volume has come from there, and it still uses the data path that it had there, which forwards; volume 0: it does not. */
	struct ashlar_pool *old_p;
	uint64_t old_volume;
	uint64_t told_free, told_total;
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
	x->n_attached = pool_vol_n_clients(v);
	x->max_clients = v->max_clients;
	snprintf(x->access, sizeof(x->access), "%s", thin_vol_access(v));
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

int ashlar_export_find(struct ashlar_pool *p, const char *volume, struct ashlar_export_info *out, struct err *e)
{
	struct thin_vol *v;
	int r = pool_point_find(p, volume, &v, e);

	if (r == 0) {
		memset(out, 0, sizeof(*out));
		export_info_fill(p, v, out);
	}
	return r;
}

/* ---- the data path of a volume ---- */

struct vol_open {
	struct thin *t;
	struct thin_vol *v;
	uint64_t size;
	uint64_t ns;
	struct thin_limits limits;
};

static int vol_open_there(void *arg)
{
	struct vol_open *o = arg;
	int r = thin_volume_co_open(o->t, o->v->id, o->v->size_bytes, o->v->cls, o->v->full_wait_ns,
				    thin_vol_is_fixed(o->v), &o->v->open);

	if (r == 0)
		thin_volume_set_limits(o->v->open, &o->limits);
	return r;
}

struct fence {
	struct thin_volume *tv;
	uint8_t what;
};

static int fence_there(void *arg)
{
	const struct fence *f = arg;

	thin_volume_bdev(f->tv)->fence = f->what;
	return 0;
}

/* Coroutine on the home, under v->admin; the data path is open. */
static int vol_co_fence(struct ashlar_pool *p, struct thin_vol *v)
{
	struct fence f = { .tv = v->open };
	void *note;
	size_t len;
	int r;

	if (!p->a->opt.fence || !p->has_notes)
		return 0;
	r = pool_co_note_get(p, v->id, ASHLAR_NOTE_RESERVATIONS, &note, &len);
	if (r < 0)
		return r;
	f.what = len ? p->a->opt.fence(note, len) : BDEV_FENCE_NONE;
	xfree(note);
	return reactor_co_call(thin_volume_home(p->thin, v->id), fence_there, &f);
}

int ashlar_co_fence(struct ashlar_pool *p, const char *volume, struct err *e)
{
	struct thin_vol *v;
	int r = pool_point_find(p, volume, &v, e);

	if (r < 0)
		return r;
	v->n_attached++; /* it stays so long */
	co_mutex_lock(&v->admin);
	if (v->open)
		r = vol_co_fence(p, v);
	co_mutex_unlock(&v->admin);
	pool_vol_release(p, v);
	return err_default(e, r, "reading the reservations of a volume");
}

/* Coroutine on the home, under v->admin. */
static int vol_co_open(struct ashlar_pool *p, struct thin_vol *v)
{
	struct vol_open o = { .t = p->thin, .v = v, .limits = v->limits };
	bool is_new = !v->open || v->open_to_merge;
	int r = 0;

	v->open_to_merge = false;
	if (!v->open)
		r = reactor_co_call(thin_volume_home(p->thin, v->id), vol_open_there, &o);
	if (r == 0 && is_new)
		r = vol_co_fence(p, v);
	if (r == 0 && !v->adopt)
		pool_adopt_co_open(p, v);
	if (r == 0)
		pool_moved_co_open(p, v);
	return r;
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

static int vol_limits_there(void *arg)
{
	struct vol_open *o = arg;

	thin_volume_set_limits(o->v->open, &o->limits);
	return 0;
}

void pool_co_vol_set_limits(struct ashlar_pool *p, struct thin_vol *v, const struct thin_limits *l)
{
	struct vol_open o = { .v = v, .limits = *l };
	int r = 0;

	co_mutex_lock(&v->admin);
	if (v->open)
		r = reactor_co_call(thin_volume_home(p->thin, v->id), vol_limits_there, &o);
	co_mutex_unlock(&v->admin);
	CHECK(r == 0);
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

int pool_co_vol_keep(struct ashlar_pool *p, struct thin_vol *v)
{
	int r;

	v->n_kept++;
	co_mutex_lock(&v->admin);
	r = vol_co_open(p, v);
	co_mutex_unlock(&v->admin);
	if (r < 0)
		pool_vol_unkeep(p, v);
	return r;
}

void pool_vol_unkeep(struct ashlar_pool *p, struct thin_vol *v)
{
	CHECK(v->n_kept);
	v->n_kept--;
	co_queue_wake_all(&p->idle);
}

/* Coroutine, under v->admin. */
static void vol_co_close(struct ashlar_pool *p, struct thin_vol *v)
{
	struct thin_volume *tv = v->open;
	int r;

	v->open = NULL;
	if (!tv)
		return;
	r = reactor_co_call(thin_volume_home(p->thin, v->id), vol_close_there, tv);
	CHECK(r == 0);
	pool_adopt_co_close(p, v);
	pool_moved_co_close(p, v);
}

void pool_co_vol_close_idle(struct ashlar_pool *p, struct thin_vol *v)
{
	co_mutex_lock(&v->admin);
	if (!v->n_attached && !v->n_kept)
		vol_co_close(p, v);
	co_mutex_unlock(&v->admin);
}

/* ---- attaching ---- */

struct attach_call {
	struct ashlar *a;
	const char *name;
	const struct ashlar_attach_who *who; /* NULL: whoever, and he counts */
	struct ashlar_attach *at;
	struct err *e;
};

static unsigned clients_of(struct ashlar_pool *p, uint64_t volume)
{
	struct ashlar_attach *at;
	unsigned n = 0;

	list_for_each (at, &p->attached, link)
		n += at->volume == volume && !at->is_look;
	return n;
}

static int attach_check(const struct attach_call *c, struct ashlar_pool *p, const struct thin_vol *v)
{
	if (c->who && c->who->may && !c->who->may(c->who->arg, thin_vol_access(v)))
		return err_set(c->e, -ENOENT, "this client may not see it");
	if (!c->at->is_look && v->max_clients && clients_of(p, v->id) >= v->max_clients)
		return err_set(c->e, -EUSERS, "it has %u clients already, and may have no more", v->max_clients);
	return 0;
}

/* One that is changing its pool: has it this name? Between the two records of that it is LIVE in neither. */
static bool is_switching(const struct attach_call *c)
{
	struct ashlar_export_info *x = NULL;
	struct ashlar_pool *p;
	struct thin_vol *v;
	bool is = false;

	list_for_each (p, &c->a->pools, link) {
		list_for_each (v, thin_vols(p->thin), link) {
			if (!v->switching || v->export_kind == THIN_EXPORT_HIDDEN)
				continue;
			if (!x)
				x = xmalloc(sizeof(*x));
			export_info_fill(p, v, x);
			is |= !strcmp(x->name, c->name);
		}
	}
	xfree(x);
	return is;
}

/* By the name, wherever it is when it does not change its pool just now. */
static int attach_co_hold(struct attach_call *c, struct thin_vol **out)
{
	struct ashlar_attach *at = c->at;
	struct thin_vol *v;
	int r;

	while ((v = pool_export_find(c->a, c->name, &at->p)) ? v->switching : is_switching(c))
		co_sleep_ns(SWITCHING_NS);
	*out = v;
	if (!v || v->export_kind == THIN_EXPORT_HIDDEN || v->leaving)
		return err_set(c->e, -ENOENT, "there is no export of that name");
	if (at->p->failed)
		return err_set(c->e, -ERR_POOL_FAILED, "pool %s has stopped: %s", at->p->label->name, at->p->failed_why);
	r = attach_check(c, at->p, v);
	if (r < 0)
		return r;
	r = pool_co_vol_hold(at->p, v);
	if (r == -ESHUTDOWN) /* it began to go while we waited */
		return err_set(c->e, -ENOENT, "there is no export of that name");
	if (r < 0)
		return err_default(c->e, r, "opening the volume");
	r = attach_check(c, at->p, v); /* others may have come while it opened */
	if (r < 0)
		pool_vol_release(at->p, v);
	return r;
}

static int attach_there(void *arg)
{
	struct attach_call *c = arg;
	struct ashlar_attach *at = c->at;
	struct thin_vol *v;
	uint64_t id;
	int r = attach_co_hold(c, &v);

	if (r < 0)
		return r;
	id = v->id;
	at->volume = id;
	at->tv = v->open;
	at->home = thin_volume_home(at->p->thin, id);
	pool_vol_identity(at->p, v, &at->identity);
	at->read_only = v->export_flags & THIN_EXPORT_READ_ONLY || at->p->read_only || v->kind == THIN_KIND_SNAPSHOT;
	list_push_back(&at->p->attached, &at->link);
	return 0;
}

int ashlar_co_attach_as(struct ashlar *a, const char *export_name, const struct ashlar_attach_who *who, const struct ashlar_attach_ops *ops,
			void *arg, struct ashlar_attach **out, struct err *e)
{
	struct ashlar_attach *at = xcalloc(1, sizeof(*at));
	struct attach_call c = { .a = a, .name = export_name, .who = who, .at = at, .e = e };
	int r;

	at->is_look = who && who->is_look;
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

int ashlar_co_attach(struct ashlar *a, const char *export_name, const struct ashlar_attach_ops *ops, void *arg,
		     struct ashlar_attach **out, struct err *e)
{
	return ashlar_co_attach_as(a, export_name, NULL, ops, arg, out, e);
}

static void attach_put(struct ashlar_attach *at)
{
	co_queue_wake_all(&at->p->idle);
	if (--at->refs == 0)
		xfree(at);
}

static void attach_leave_old(struct ashlar_attach *at)
{
	struct thin_vol *v = at->old_volume ? thin_vol_by_id(at->old_p->thin, at->old_volume) : NULL;

	if (!at->old_volume)
		return;
	CHECK(v);
	at->old_volume = 0;
	pool_vol_release(at->old_p, v);
}

static int detach_there(void *arg)
{
	struct ashlar_attach *at = arg;
	struct thin_vol *v;

	while (at->refs > 1) /* a callback may be running */
		co_queue_wait(&at->p->idle);
	v = thin_vol_by_id(at->p->thin, at->volume);
	CHECK(v);
	list_del(&at->link);
	pool_vol_release(at->p, v);
	attach_leave_old(at);
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

/* Home. Who knows nothing of clusters that several maps have must not open the pool: durable before there are any. */
static int share_feature(void *arg)
{
	struct ashlar_pool *p = arg;
	int r = 0;

	if (p->label->incompat & LABEL_INCOMPAT_SNAPSHOTS)
		return 0;
	if (p->a->admin.owner) /* who has it may be waiting for us to detach */
		return -EOPNOTSUPP;
	co_mutex_lock(&p->a->admin);
	r = pool_co_feature(p, LABEL_INCOMPAT_SNAPSHOTS, NULL);
	co_mutex_unlock(&p->a->admin);
	return r;
}

int ashlar_co_attach_copy(struct ashlar_attach *from, uint64_t from_off, struct ashlar_attach *to, uint64_t to_off, uint64_t len_bytes,
			  uint64_t *done)
{
	int r;

	*done = 0;
	if (from->p != to->p)
		return -EOPNOTSUPP;
	r = reactor_co_call(pool_attach_reactor(to), share_feature, to->p);
	return r < 0 ? r : thin_volume_co_share(from->tv, from_off, to->tv, to_off, len_bytes, done);
}

struct reactor *ashlar_attach_home(struct ashlar_attach *at)
{
	return at->home;
}

bool ashlar_attach_read_only(struct ashlar_attach *at)
{
	return at->read_only;
}

void ashlar_attach_identity(const struct ashlar_attach *at, struct uuid *out)
{
	*out = at->identity;
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

enum tell_what { TELL_GONE, TELL_RESIZED, TELL_MOVED };

struct tell {
	struct ashlar_attach **v;
	size_t n;
	enum tell_what what;
	struct thin_volume *now; /* MOVED */
};

static void tell_one(const struct tell *t, struct ashlar_attach *at)
{
	const struct ashlar_attach_ops *ops = at->ops;

	if (at->detaching || !ops)
		return;
	if (t->what == TELL_GONE && ops->gone)
		ops->gone(at->arg);
	else if (t->what == TELL_RESIZED && ops->resized)
		ops->resized(at->arg);
	else if (t->what == TELL_MOVED && ops->moved && ops->moved(at->arg, thin_volume_bdev(t->now)))
		at->tv = t->now;
}

static int tell_there(void *arg)
{
	const struct tell *t = arg;
	size_t i;

	for (i = 0; i < t->n; i++)
		tell_one(t, t->v[i]);
	return 0;
}

/* Clients of a volume, in a list of attachments, to t->v if that is there; each is referred to then. */
static void clients_find(struct list *attached, const struct ashlar_pool *p, uint64_t volume, struct tell *t)
{
	struct ashlar_attach *at;

	list_for_each (at, attached, link) {
		bool by_old = at->old_volume && at->old_p == p && at->old_volume == volume;

		if (!by_old && (at->p != p || at->volume != volume))
			continue;
		if ((t->what == TELL_GONE && at->gone) || (t->what == TELL_MOVED && !by_old))
			continue;
		if (t->v) {
			at->gone = t->what == TELL_GONE || at->gone;
			at->refs++;
			t->v[t->n] = at;
		}
		t->n++;
	}
}

/* Those who still use the data path of a volume that has gone to another pool are in that pool's list. */
static void clients_find_all(struct ashlar_pool *p, uint64_t volume, struct tell *t)
{
	struct ashlar_pool *q;

	t->n = 0;
	clients_find(&p->attached, p, volume, t);
	list_for_each (q, &p->a->pools, link)
		if (q != p)
			clients_find(&q->attached, p, volume, t);
}

/* Coroutine on the home. References keep the attachments while their reactor calls back. */
static void vol_co_tell(struct ashlar_pool *p, uint64_t volume, struct tell *t)
{
	int r;

	clients_find_all(p, volume, t);
	if (!t->n)
		return;
	t->v = xcalloc(t->n, sizeof(struct ashlar_attach *));
	clients_find_all(p, volume, t);
	r = reactor_co_call(t->v[0]->home, tell_there, t);
	CHECK(r == 0);
	while (t->n) {
		struct ashlar_attach *at = t->v[--t->n];

		if (t->what == TELL_MOVED && at->tv == t->now)
			attach_leave_old(at);
		attach_put(at);
	}
	xfree(t->v);
}

static int tell_space_there(void *arg)
{
	struct ashlar_attach *at = arg;

	if (!at->detaching)
		at->ops->space(at->arg, at->told_free, at->told_total);
	return 0;
}

/* One who is to be told; referred to. */
static struct ashlar_attach *space_next(struct ashlar_pool *p, uint64_t free_bytes, uint64_t total_bytes)
{
	struct ashlar_attach *at;

	list_for_each (at, &p->attached, link) {
		if (at->gone || at->detaching || !at->ops || !at->ops->space || (at->told_free == free_bytes && at->told_total == total_bytes))
			continue;
		at->refs++;
		return at;
	}
	return NULL;
}

void pool_co_attach_tell_space(struct ashlar_pool *p, uint64_t free_bytes, uint64_t total_bytes)
{
	struct ashlar_attach *at;
	int r;

	while ((at = space_next(p, free_bytes, total_bytes))) {
		at->told_free = free_bytes;
		at->told_total = total_bytes;
		r = reactor_co_call(at->home, tell_space_there, at);
		CHECK(r == 0);
		attach_put(at);
	}
}

/* ---- volumes that have gone to another pool ---- */

void pool_attach_repoint(struct ashlar_pool *p, struct thin_vol *v, struct ashlar_pool *to, struct thin_vol *now)
{
	struct ashlar_attach *at, *next;

	list_for_each_safe (at, next, &p->attached, link) {
		if (at->volume != v->id)
			continue;
		CHECK(!at->old_volume);
		at->old_p = p;
		at->old_volume = v->id; /* counts there until it lets go of it */
		at->p = to;
		at->volume = now->id;
		now->n_attached++;
		list_del(&at->link);
		list_push_back(&to->attached, &at->link);
	}
}

bool pool_attach_any_old(const struct ashlar_pool *p, const struct thin_vol *v)
{
	struct ashlar_attach *at;

	list_for_each (at, &p->attached, link)
		if (at->volume == v->id && at->old_volume)
			return true;
	return false;
}

/* Where those who still use the data path of this volume belong; NULL: there are none. */
static struct thin_volume *old_clients_find(struct ashlar_pool *p, const struct thin_vol *v)
{
	struct ashlar_attach *at;
	struct ashlar_pool *q;

	list_for_each (q, &p->a->pools, link)
		list_for_each (at, &q->attached, link)
			if (at->old_volume == v->id && at->old_p == p)
				return thin_vol_by_id(q->thin, at->volume)->open;
	return NULL;
}

void pool_co_attach_let_go(struct ashlar_pool *p, struct thin_vol *v)
{
	struct tell t = { .what = TELL_MOVED, .now = old_clients_find(p, v) };

	if (t.now)
		vol_co_tell(p, v->id, &t);
}

void pool_co_vol_quiesce(struct ashlar_pool *p, struct thin_vol *v)
{
	struct tell t = { .what = TELL_GONE };
	int r;

	v->leaving = true;
	pool_moves_co_yield(p, v);
	if (v->n_attached && v->open) { /* a client that waits for a held write would never go */
		r = reactor_co_call(thin_volume_home(p->thin, v->id), vol_shut_there, v->open);
		CHECK(r == 0);
	}
	while (v->n_attached) {
		t = (struct tell){ .what = TELL_GONE };
		vol_co_tell(p, v->id, &t);
		pool_transfers_stop(p, v->id);
		pool_adopt_stop(v);
		if (v->n_attached)
			co_queue_wait(&p->idle);
	}
	CHECK(!v->n_kept);
	co_mutex_lock(&v->admin);
	vol_co_close(p, v);
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
		if (v->state == THIN_VOLUME_LIVE || (v->state == THIN_VOLUME_HANDED && v->open))
			pool_co_vol_quiesce(p, v);
}

void pool_co_vol_tell_resized(struct ashlar_pool *p, struct thin_vol *v)
{
	struct tell t = { .what = TELL_RESIZED };

	vol_co_tell(p, v->id, &t);
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
		pool_co_vol_tell_resized(p, v);
	return r;
}
