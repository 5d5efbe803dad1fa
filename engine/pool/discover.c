/*
 * discover.c: where disks may be, and which pools lie on them.
 */
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/io/disk_uri.h"
#include "engine/pool/assembly.h"
#include "engine/pool/scan.h"

#define SYS_BLOCK "/sys/class/block"

struct path_list {
	char **v;
	size_t n, cap;
};

/* Takes over the string. */
static void list_add(struct path_list *l, char *path)
{
	if (l->n == l->cap) {
		l->cap = MAX(16, 2 * l->cap);
		l->v = xrealloc(l->v, l->cap * sizeof(*l->v));
	}
	l->v[l->n++] = path;
}

static void list_free(struct path_list *l)
{
	size_t i;

	for (i = 0; i < l->n; i++)
		xfree(l->v[i]);
	xfree(l->v);
}

static char *path_join(const char *dir, const char *name)
{
	size_t len = strlen(dir) + strlen(name) + 2;
	char *p = xmalloc(len);

	snprintf(p, len, "%s%s%s", dir, dir[0] && dir[strlen(dir) - 1] == '/' ? "" : "/", name);
	return p;
}

static int compare_paths(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Directories list in any order; messages and device tables shall not. */
static void list_sort(struct path_list *l, size_t from)
{
	if (l->n > from + 1)
		qsort(l->v + from, l->n - from, sizeof(*l->v), compare_paths);
}

/* Only the real world has a file system (and a network); simulated disks are found by their names alone. */
static bool has_file_system(const struct world *w) { return w->ops->net_submit != NULL; }

static int expand_directory(const char *dir, struct path_list *l, struct err *e)
{
	DIR *d = opendir(dir);
	size_t from = l->n;
	struct dirent *de;
	struct stat st;
	char *path;
	int r;

	if (!d) {
		r = -errno;
		return err_set(e, r, "cannot list directory %s: %s", dir, err_text(r));
	}
	while ((de = readdir(d))) {
		if (de->d_name[0] == '.')
			continue;
		path = path_join(dir, de->d_name);
		if (stat(path, &st) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)))
			list_add(l, path);
		else
			xfree(path);
	}
	closedir(d);
	list_sort(l, from);
	return 0;
}

/* A device that another one is built of (device mapper, md) is not ours to look at. */
static bool has_holders(const char *sys_path)
{
	char *path = path_join(sys_path, "holders");
	DIR *d = opendir(path);
	struct dirent *de;
	bool any = false;

	xfree(path);
	if (!d)
		return false;
	while (!any && (de = readdir(d)))
		any = de->d_name[0] != '.';
	closedir(d);
	return any;
}

static bool has_size(const char *sys_path)
{
	char *path = path_join(sys_path, "size");
	FILE *f = fopen(path, "re");
	unsigned long long sectors = 0;

	xfree(path);
	if (!f)
		return false;
	if (fscanf(f, "%llu", &sectors) != 1)
		sectors = 0;
	fclose(f);
	return sectors > 0;
}

/* Drives with removable media: opening one may spin it up and wait. */
static bool is_media_drive(const char *name)
{
	return (!strncmp(name, "sr", 2) || !strncmp(name, "fd", 2)) && name[2] >= '0' && name[2] <= '9';
}

static int expand_block_devices(struct path_list *l, struct err *e)
{
	DIR *d = opendir(SYS_BLOCK);
	struct dirent *de;
	char *sys_path, *c;
	int r;

	if (!d) {
		r = -errno;
		return err_set(e, r, "cannot list the block devices in %s: %s; name the disks", SYS_BLOCK, err_text(r));
	}
	while ((de = readdir(d))) {
		if (de->d_name[0] == '.' || is_media_drive(de->d_name))
			continue;
		sys_path = path_join(SYS_BLOCK, de->d_name);
		if (has_size(sys_path) && !has_holders(sys_path)) {
			for (c = de->d_name; *c; c++)
				if (*c == '!')
					*c = '/';
			list_add(l, path_join("/dev", de->d_name));
		}
		xfree(sys_path);
	}
	closedir(d);
	list_sort(l, 0);
	return 0;
}

int assembly_expand_paths(struct world *w, const char *const *paths, size_t n_paths, char ***out, size_t *n, struct err *e)
{
	struct path_list l = { 0 };
	struct stat st;
	size_t i;
	int r = 0;

	if (!n_paths && has_file_system(w))
		r = expand_block_devices(&l, e);
	for (i = 0; i < n_paths && r == 0; i++) {
		if (has_file_system(w) && stat(paths[i], &st) == 0 && S_ISDIR(st.st_mode))
			r = expand_directory(paths[i], &l, e);
		else
			list_add(&l, xstrdup(paths[i]));
	}
	if (r < 0) {
		list_free(&l);
		return r;
	}
	*out = l.v ? l.v : xcalloc(1, sizeof(*l.v));
	*n = l.n;
	return 0;
}

/* ---- which pools there are ---- */

/* Coroutine. By a lock of our own, taken and given back. A remote disk has none. */
static bool lock_co_is_held(struct world *w, const char *path)
{
	struct disk *d;
	int r;

	if (disk_path_is_uri(path))
		return false;
	r = disk_co_open(w, path, DISK_RDONLY, &d, NULL);
	if (r == 0)
		disk_close(d);
	return r == -ERR_LOCKED;
}

/* Is an earlier disk of the scan a copy of disk i? */
static bool is_copy(const struct scan *s, size_t i)
{
	size_t k;

	for (k = 0; k < i; k++)
		if (uuid_is_equal(&s->v[k].label->pool, &s->v[i].label->pool) &&
		    uuid_is_equal(&s->v[k].label->disk, &s->v[i].label->disk))
			return true;
	return false;
}

static bool is_member(const struct label *word, const struct uuid *disk)
{
	unsigned i;

	for (i = 0; i < word->n_disks; i++)
		if (word->disks[i].state != LABEL_DISK_FREE && uuid_is_equal(&word->disks[i].uuid, disk))
			return true;
	return false;
}

static void describe_co_pool(struct world *w, const struct scan *s, const struct scan_pool *p, struct ashlar_found *f)
{
	const struct label *word = s->v[p->word].label;
	bool known = s->v[p->word].result == 0; /* else its disk table could not be read */
	unsigned d;
	size_t i;

	memcpy(f->name, word->name, sizeof(f->name) - 1);
	f->uuid = p->uuid;
	f->paths = xcalloc(p->n_disks, sizeof(*f->paths));
	for (d = 0; d < word->n_disks; d++)
		f->n_disks += word->disks[d].state != LABEL_DISK_FREE;
	for (i = 0; i < s->n; i++) {
		if (!uuid_is_equal(&s->v[i].label->pool, &p->uuid))
			continue;
		if (known && !is_member(word, &s->v[i].label->disk))
			continue; /* taken out of the pool since */
		f->n_present += !is_copy(s, i);
		f->paths[f->n_paths++] = xstrdup(s->v[i].path);
		if (!f->in_use)
			f->in_use = lock_co_is_held(w, s->v[i].path);
	}
	f->n_disks = MAX(f->n_disks, f->n_present);
}

int assembly_co_discover(struct world *w, const char *const *paths, size_t n_paths, struct ashlar_found **out, size_t *n,
			 struct ashlar_looked *looked, struct err *e)
{
	struct scan_pool *pools;
	struct scan s;
	size_t i;
	int r = scan_co_run(w, paths, n_paths, &s, e);

	if (r < 0)
		return r;
	if (looked)
		*looked = (struct ashlar_looked){ .n_disks = s.n_paths, .n_unread = s.n_failed, .why = s.first };
	*n = scan_pools(&s, &pools);
	*out = xcalloc(*n + 1, sizeof(**out));
	for (i = 0; i < *n; i++)
		describe_co_pool(w, &s, &pools[i], &(*out)[i]);
	xfree(pools);
	scan_fini(&s);
	return 0;
}

void ashlar_found_free(struct ashlar_found *f, size_t n)
{
	size_t i, k;

	for (i = 0; i < n; i++) {
		for (k = 0; k < f[i].n_paths; k++)
			xfree(f[i].paths[k]);
		xfree(f[i].paths);
	}
	xfree(f);
}
