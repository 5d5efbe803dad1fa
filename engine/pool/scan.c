/*
 * scan.c: which labels there are on a list of paths.
 */
#include "engine/pool/scan.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "engine/io/disk_uri.h"
#include "engine/pool/assembly.h"

void text_append(char *text, size_t cap, const char *fmt, ...)
{
	size_t len = strlen(text);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text + len, cap - len, fmt, ap);
	va_end(ap);
}

void scan_disk_fini(struct scan_disk *d)
{
	if (d->disk)
		disk_close(d->disk);
	xfree(d->label);
	xfree(d->path);
	memset(d, 0, sizeof(*d));
}

void scan_fini(struct scan *s)
{
	size_t i;

	for (i = 0; i < s->n; i++)
		scan_disk_fini(&s->v[i]);
	xfree(s->v);
	memset(s, 0, sizeof(*s));
}

int scan_disk_co_open(struct world *w, const char *path, unsigned flags, struct scan_disk *d, struct err *e)
{
	int r;

	memset(d, 0, sizeof(*d));
	r = disk_co_open(w, path, flags, &d->disk, e);
	if (r < 0) /* -ENOENT means "no label" to our caller */
		return r == -ENOENT ? -ENXIO : r;
	d->path = xstrdup(path);
	d->ident[0] = d->disk->ident[0];
	d->ident[1] = d->disk->ident[1];
	d->size_bytes = d->disk->bdev.size_bytes;
	d->block_bytes = d->disk->bdev.block_bytes;
	d->label = xmalloc(sizeof(*d->label));
	r = label_co_read(d->disk, d->label, &d->damaged, e);
	if ((r == -ERR_FEATURE || r == -ERR_FORMAT) && !uuid_is_zero(&d->label->pool)) {
		d->result = r;
		if (e)
			d->why = *e;
		return 0;
	}
	if (r < 0)
		scan_disk_fini(d);
	return r;
}

static bool is_seen(const struct scan *s, const struct scan_disk *d)
{
	size_t i;

	for (i = 0; i < s->n; i++)
		if (s->v[i].ident[0] == d->ident[0] && s->v[i].ident[1] == d->ident[1])
			return true;
	return false;
}

static void scan_failed(struct scan *s, const struct err *why)
{
	if (!s->n_failed++)
		s->first = *why;
}

/* ---- looking ---- */

struct look {
	struct world *w;
	const char *path;
	struct scan_disk disk;
	struct err e;
	int result;
	struct co_join *join; /* NULL: nobody waits */
};

static void look_co_run(void *arg)
{
	struct look *k = arg;

	k->result = scan_disk_co_open(k->w, k->path, DISK_RDONLY | DISK_NO_LOCK, &k->disk, &k->e);
	if (k->result == 0) {
		disk_close(k->disk.disk);
		k->disk.disk = NULL;
	}
	if (k->join)
		co_join_done(k->join, 0);
}

static void scan_take(struct scan *s, struct look *k)
{
	if (k->result == 0 && is_seen(s, &k->disk))
		scan_disk_fini(&k->disk);
	else if (k->result == 0)
		s->v[s->n++] = k->disk;
	else if (k->result != -ENOENT)
		scan_failed(s, &k->e);
}

/* Coroutine. One after the other; but remote ones, which may not answer for seconds, all at once. */
static void scan_co_look(struct world *w, char **paths, size_t n, struct scan *s)
{
	struct look *v = xcalloc(n + 1, sizeof(*v));
	struct co_join join;
	size_t i;

	co_join_init(&join);
	for (i = 0; i < n; i++) {
		v[i].w = w;
		v[i].path = paths[i];
		if (!disk_path_is_uri(paths[i]))
			continue;
		v[i].join = &join;
		co_join_add(&join);
		co_spawn(CO_SERVICE, look_co_run, &v[i], "remote disk");
	}
	for (i = 0; i < n; i++)
		if (!v[i].join)
			look_co_run(&v[i]);
	(void)co_join_wait(&join);
	for (i = 0; i < n; i++)
		scan_take(s, &v[i]);
	xfree(v);
}

int scan_co_run(struct world *w, const char *const *paths, size_t n_paths, struct scan *s, struct err *e)
{
	char **all;
	size_t i;
	int r;

	memset(s, 0, sizeof(*s));
	r = assembly_expand_paths(w, paths, n_paths, &all, &s->n_paths, e);
	if (r < 0)
		return r;
	s->v = xcalloc(s->n_paths + 1, sizeof(*s->v));
	scan_co_look(w, all, s->n_paths, s);
	for (i = 0; i < s->n_paths; i++)
		xfree(all[i]);
	xfree(all);
	return 0;
}

size_t scan_pools(const struct scan *s, struct scan_pool **out)
{
	struct scan_pool *v = xcalloc(s->n + 1, sizeof(*v));
	size_t i, k, n = 0;

	for (i = 0; i < s->n; i++) {
		const struct label *l = s->v[i].label;

		for (k = 0; k < n && !uuid_is_equal(&v[k].uuid, &l->pool); k++)
			;
		if (k == n) {
			v[n].uuid = l->pool;
			v[n].word = i;
			n++;
		} else if (l->generation > s->v[v[k].word].label->generation) {
			v[k].word = i;
		}
		v[k].n_disks++;
	}
	*out = v;
	return n;
}
