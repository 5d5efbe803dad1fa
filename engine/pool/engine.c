/*
 * engine.c: struct ashlar: the set of open pools; creating, finding, opening, closing, destroying them.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "engine/pool/move_family.h"

void pool_log(struct ashlar_pool *p, const char *fmt, ...)
{
	char text[400];
	int n = snprintf(text, sizeof(text), "pool %s: ", p->label->name);
	va_list ap;

	if (!p->a->opt.log)
		return;
	va_start(ap, fmt);
	vsnprintf(text + n, sizeof(text) - (size_t)n, fmt, ap);
	va_end(ap);
	p->a->opt.log(p->a->opt.log_arg, text);
}

void pool_co_each_reactor(struct ashlar_pool *p, int (*fn)(void *arg), void *arg)
{
	unsigned i;
	int r;

	for (i = 0; i < p->n_reactors; i++) {
		r = reactor_co_call(p->w->reactors[i], fn, arg);
		CHECK(r == 0);
	}
}

struct pool_reactor *pool_here(struct ashlar_pool *p)
{
	return &p->reactors[reactor_self()->index];
}

struct ashlar *ashlar_create(struct world *w, const struct ashlar_options *o)
{
	struct ashlar *a = xcalloc(1, sizeof(*a));

	a->world = w;
	if (o)
		a->opt = *o;
	list_init(&a->pools);
	a->events = event_log_create();
	co_mutex_init(&a->admin);
	list_init(&a->moves);
	co_queue_init(&a->moves_changed);
	return a;
}

void ashlar_co_destroy(struct ashlar *a)
{
	CHECK(list_is_empty(&a->pools));
	event_log_co_destroy(a->events);
	xfree(a);
}

struct world *ashlar_world(struct ashlar *a)
{
	return a->world;
}

struct ashlar_pool *ashlar_pool_find(struct ashlar *a, const char *name)
{
	struct ashlar_pool *p;

	list_for_each (p, &a->pools, link)
		if (!strcmp(p->label->name, name))
			return p;
	return NULL;
}

struct ashlar_pool *ashlar_pool_at(struct ashlar *a, size_t i)
{
	struct ashlar_pool *p;

	list_for_each (p, &a->pools, link)
		if (i-- == 0)
			return p;
	return NULL;
}

/* ---- create ---- */

static int disks_co_wipe(struct assembly *as, struct err *e)
{
	unsigned i;
	int r;

	for (i = 0; i < as->label.n_disks; i++) {
		r = label_co_wipe(as->disks[i].disk);
		if (r < 0)
			return err_set(e, r, "disk %s: its label areas cannot be written: %s", as->disks[i].disk->path, err_text(r));
	}
	return 0;
}

static int create_co_locked(struct ashlar *a, const struct ashlar_pool_spec *s, struct err *e)
{
	struct assembly *as = xcalloc(1, sizeof(*as));
	struct ashlar_pool *p;
	int r = assembly_co_prepare(a->world, s, as, e);

	if (r < 0) {
		xfree(as);
		return r;
	}
	r = s->dry_run ? 0 : disks_co_wipe(as, e);
	if (r < 0 || s->dry_run) {
		assembly_close(as);
		xfree(as);
		return r;
	}
	r = pool_co_assemble(a, as, 0, true, &p, e);
	return r < 0 ? r : pool_co_close(p, true, e);
}

int ashlar_co_pool_create(struct ashlar *a, const struct ashlar_pool_spec *s, struct err *e)
{
	int r;

	co_mutex_lock(&a->admin);
	if (s->name && ashlar_pool_find(a, s->name))
		r = err_set(e, -EEXIST, "pool %s is open already: choose another name", s->name);
	else
		r = create_co_locked(a, s, e);
	co_mutex_unlock(&a->admin);
	return err_default(e, r, "creating the pool");
}

/* ---- open and close ---- */

int ashlar_co_discover(struct ashlar *a, const char *const *paths, size_t n_paths, struct ashlar_found **out, size_t *n,
		       struct ashlar_looked *looked, struct err *e)
{
	return assembly_co_discover(a->world, paths, n_paths, out, n, looked, e);
}

/* doubtful: some disk may not hold what it was given, and has not been believed. */
static int open_co_once(struct ashlar *a, const char *name, const char *const *paths, size_t n_paths, unsigned flags,
			struct ashlar_pool **out, bool *doubtful, struct err *e)
{
	struct assembly *as = xcalloc(1, sizeof(*as));
	int r = assembly_co_open(a->world, name, paths, n_paths, flags & ASHLAR_OPEN_RDONLY, as, e);
	unsigned i;

	if (r < 0) {
		xfree(as);
		return r;
	}
	if (ashlar_pool_find(a, as->label.name)) {
		r = err_set(e, -EEXIST, "a pool named %s is open already", as->label.name);
		assembly_close(as);
		xfree(as);
		return r;
	}
	for (i = 0; i < as->label.n_disks; i++)
		*doubtful |= as->disks[i].is_doubtful && as->disks[i].disk;
	return pool_co_assemble(a, as, flags, false, out, e);
}

static int open_co_locked(struct ashlar *a, const char *name, const char *const *paths, size_t n_paths, unsigned flags,
			  struct ashlar_pool **out, struct err *e)
{
	struct ashlar_pool *p;
	bool doubtful = false;
	int r = open_co_once(a, name, paths, n_paths, flags, &p, &doubtful, e);

	if (r == -ERR_MISSING && doubtful)
		r = open_co_once(a, name, paths, n_paths, flags | POOL_OPEN_TRUST, &p, &doubtful, e);
	if (r < 0)
		return r;
	list_push_back(&a->pools, &p->link);
	*out = p;
	list_for_each (p, &a->pools, link)
		if (p->life)
			pool_life_kick(p); /* a move may have waited for it */
	return 0;
}

int ashlar_co_pool_open(struct ashlar *a, const char *name, const char *const *paths, size_t n_paths, unsigned flags,
			struct ashlar_pool **out, struct err *e)
{
	int r;

	co_mutex_lock(&a->admin);
	r = open_co_locked(a, name, paths, n_paths, flags, out, e);
	co_mutex_unlock(&a->admin);
	return err_default(e, r, "opening the pool");
}

static int close_co_locked(struct ashlar_pool *p, struct err *e)
{
	pool_moves_co_stop(p);
	list_del(&p->link);
	pool_co_detach_all(p);
	return pool_co_close(p, true, e);
}

int ashlar_co_pool_close(struct ashlar_pool *p, struct err *e)
{
	struct ashlar *a = p->a;
	int r;

	co_mutex_lock(&a->admin);
	r = close_co_locked(p, e);
	co_mutex_unlock(&a->admin);
	return r;
}

/* ---- destroy ---- */

/* Coroutine. The pool is closed; its disks are opened once more, found to be what they were, and wiped. */
static int wipe_co_paths(struct ashlar *a, const char *name, const struct uuid *uuid, char **paths, size_t n, struct err *e)
{
	struct assembly *as = xcalloc(1, sizeof(*as));
	int r = assembly_co_open(a->world, name, (const char *const *)paths, n, false, as, e);
	unsigned i;

	if (r < 0) {
		xfree(as);
		return r;
	}
	if (!uuid_is_equal(uuid, &as->label.pool))
		r = err_set(e, -ESTALE, "pool %s changed while it was being destroyed: nothing was wiped", name);
	for (i = 0; i < as->label.n_disks && r == 0; i++) {
		if (!as->disks[i].disk)
			continue;
		r = label_co_wipe(as->disks[i].disk);
		if (r < 0)
			err_set(e, r, "disk %s: its label cannot be wiped: %s", as->disks[i].disk->path, err_text(r));
	}
	assembly_close(as);
	xfree(as);
	return r;
}

int ashlar_co_pool_destroy(struct ashlar_pool *p, bool force, bool dry_run, struct err *e)
{
	struct ashlar *a = p->a;
	char name[ASHLAR_POOL_NAME_MAX + 1], *paths[LABEL_DISKS_MAX];
	struct uuid uuid = p->label->pool;
	size_t n = 0, i;
	int r;

	if (thin_n_vols(p->thin) && !force)
		return err_set(e, -EBUSY, "pool %s has %u volumes: delete them first, or use --force", p->label->name,
			       thin_n_vols(p->thin));
	r = force ? 0 : pool_check_moves_destroy(p, e);
	if (r < 0 || dry_run)
		return r;
	if (p->read_only)
		return err_set(e, -EROFS, "pool %s is open read-only", p->label->name);
	snprintf(name, sizeof(name), "%.63s", p->label->name);
	for (i = 0; i < p->n_disks; i++)
		if (p->disks[i].disk)
			paths[n++] = xstrdup(p->disks[i].disk->path);
	co_mutex_lock(&a->admin);
	close_co_locked(p, NULL);
	r = wipe_co_paths(a, name, &uuid, paths, n, e);
	co_mutex_unlock(&a->admin);
	for (i = 0; i < n; i++)
		xfree(paths[i]);
	return r;
}

struct ashlar *ashlar_pool_engine(struct ashlar_pool *p)
{
	return p->a;
}
