/*
 * Exports of an engine: names are looked up in its table, nothing else. The default export (an empty name) is the only
 * volume that the client may see, if there is exactly one; snapshots do not count.
 */
#include <stdio.h>
#include <string.h>

#include "engine/io/access.h"
#include "engine/pool/ashlar.h"
#include "nbd/nbd.h"

struct export {
	struct ashlar_attach *at;
	char name[ASHLAR_EXPORT_DEFAULT_MAX + 1];
};

static void on_gone(void *arg)
{
	nbd_session_gone(arg);
}

static void on_resized(void *arg)
{
	/* The protocol cannot tell the client; ranges are checked against the bdev as it is. */
}

static bool on_moved(void *arg, struct bdev *now)
{
	return nbd_session_moved(arg, now);
}

static const struct ashlar_attach_ops attach_ops = {.gone = on_gone, .resized = on_resized, .moved = on_moved};

struct list_call {
	struct ashlar *a;
	struct ashlar_export_info *v;
	size_t n;
};

static int list_home(void *arg)
{
	struct list_call *c = arg;

	return ashlar_co_export_list(c->a, &c->v, &c->n, NULL);
}

static int export_list(struct ashlar *a, struct list_call *c)
{
	*c = (struct list_call){.a = a};
	return reactor_co_call(ashlar_world(a)->reactors[0], list_home, c);
}

static bool may_see(void *arg, const char *access)
{
	return access_is_allowed(access, arg);
}

static bool is_listed(const struct ashlar_export_info *x, const struct nbd_client *c)
{
	return !x->hidden && access_is_allowed(x->access, c->st);
}

static int default_name(struct ashlar *a, const struct nbd_client *client, char *name)
{
	struct list_call c;
	unsigned found = 0;
	size_t i;
	int r = export_list(a, &c);

	if (r < 0)
		return r;
	for (i = 0; i < c.n; i++) {
		if (!is_listed(&c.v[i], client) || c.v[i].is_snapshot)
			continue;
		found++;
		memcpy(name, c.v[i].name, sizeof(c.v[i].name));
	}
	xfree(c.v);
	return found == 1 ? 0 : -ENOENT;
}

static int attach(void *arg, const char *name, const struct nbd_client *c, struct nbd_attach *out, struct err *e)
{
	/* Who it is does not change while the attaching goes on. */
	struct ashlar_attach_who who = {.may = may_see, .arg = (void *)(uintptr_t)c->st, .is_look = c->is_look};
	struct export *x;
	int r = 0;

	if (strlen(name) > ASHLAR_EXPORT_DEFAULT_MAX)
		return -ENOENT;
	x = xcalloc(1, sizeof(*x));
	if (*name)
		memcpy(x->name, name, strlen(name));
	else
		r = default_name(arg, c, x->name);
	if (r == 0)
		r = ashlar_co_attach_as(arg, x->name, &who, &attach_ops, c->s, &x->at, e);
	if (r < 0) {
		xfree(x);
		return r;
	}
	out->bdev = ashlar_attach_bdev(x->at);
	out->home = ashlar_attach_home(x->at);
	out->read_only = ashlar_attach_read_only(x->at);
	out->name = x->name;
	out->handle = x;
	return 0;
}

static void detach(void *arg, struct nbd_attach *at)
{
	struct export *x = at->handle;

	ashlar_co_detach(x->at);
	xfree(x);
}

static int list(void *arg, const struct nbd_client *client, void (*each)(void *each_arg, const char *name, const char *description), void *each_arg)
{
	struct list_call c;
	size_t i;
	int r = export_list(arg, &c);

	if (r < 0)
		return r;
	for (i = 0; i < c.n; i++)
		if (is_listed(&c.v[i], client))
			each(each_arg, c.v[i].name, NULL);
	xfree(c.v);
	return 0;
}

/* ---- what has changed ---- */

enum { CHANGED = 1 << 0, CHANGED_ZERO = 1 << 1 };
enum { KIND_DIFF, KIND_BITMAP, KINDS };
static const char *const kind_prefix[KINDS] = {[KIND_DIFF] = "ashlar:diff:", [KIND_BITMAP] = "qemu:dirty-bitmap:"};
#define KEY(snapshot, kind) ((snapshot) * KINDS + (kind))
#define KEY_SNAPSHOT(key) ((key) / KINDS)
#define KEY_KIND(key) ((key) % KINDS)

static int contexts(void *arg, const struct nbd_attach *at, void (*each)(void *each_arg, const char *name, uint64_t key), void *each_arg)
{
	const struct export *x = at->handle;
	struct ashlar_attach_snapshot *v;
	char name[sizeof(v->name) + 32];
	unsigned kind;
	size_t i, n;
	int r = ashlar_co_attach_snapshots(x->at, &v, &n);

	for (kind = 0; r == 0 && kind < KINDS; kind++) {
		for (i = 0; i < n; i++) {
			snprintf(name, sizeof(name), "%s%s", kind_prefix[kind], v[i].name);
			each(each_arg, name, KEY(v[i].id, kind));
		}
	}
	xfree(v);
	return r;
}

static size_t extent_add(struct bdev_extent *ext, size_t n, uint64_t len, uint32_t flags)
{
	if (!len)
		return n;
	ext[n] = (struct bdev_extent){len, flags};
	return n + 1;
}

/* Ranges of what has changed become extents with those between them. All has changed since a snapshot that has been deleted: safe for
 * a backup. */
static int status(void *arg, const struct nbd_attach *at, uint64_t key, uint64_t off, uint64_t len, struct bdev_extent *ext, size_t *n)
{
	const struct export *x = at->handle;
	size_t n_ranges = MAX(*n / 2, 1), i, done = 0;
	struct ashlar_range *v = xmalloc(n_ranges * sizeof(*v));
	uint64_t next = off, pos = off;
	uint32_t flags;
	int r = ashlar_co_attach_diff(x->at, KEY_SNAPSHOT(key), &next, off + len, v, &n_ranges);

	if (r == -ENOENT) { /* it has been deleted: nobody knows any more, and an error would take the other contexts with it */
		v[0] = (struct ashlar_range){off, len, true};
		n_ranges = 1;
		next = off + len;
		r = 0;
	}
	for (i = 0; r == 0 && i < n_ranges && done + 2 <= *n; i++) {
		flags = CHANGED | (KEY_KIND(key) == KIND_DIFF && !v[i].is_data ? CHANGED_ZERO : 0);
		done = extent_add(ext, done, v[i].off_bytes - pos, 0);
		done = extent_add(ext, done, v[i].len_bytes, flags);
		pos = v[i].off_bytes + v[i].len_bytes;
	}
	if (r == 0 && next > pos && done < *n)
		done = extent_add(ext, done, next - pos, 0);
	*n = done;
	xfree(v);
	return r;
}

void nbd_provider_from_ashlar(struct ashlar *a, struct nbd_provider *out)
{
	*out = (struct nbd_provider){
		.co_attach = attach, .co_detach = detach, .co_list = list, .co_contexts = contexts, .co_status = status, .arg = a,
	};
}
