#include "tests/lib/nbd_mem_exports.h"

#include "engine/io/access.h"

#include <stdio.h>
#include <string.h>

#define SESSIONS_MAX 4096

struct export {
	struct nbd_mem_export_spec spec;
	struct world *w;
	struct mem_bdev *m;
	unsigned n_attached;			      /* home reactor */
	struct nbd_session *sessions[SESSIONS_MAX];
};

struct nbd_mem_exports {
	struct world *w;
	size_t n;
	struct export e[];
};

static struct reactor *home_of(const struct export *e)
{
	return e->w->reactors[e->spec.home % e->w->n_reactors];
}

static int create_home(void *arg)
{
	struct export *e = arg;

	e->m = mem_bdev_create(&e->spec.o);
	return 0;
}

static int destroy_home(void *arg)
{
	struct export *e = arg;

	CHECK(!e->n_attached);
	mem_bdev_destroy(e->m);
	return 0;
}

struct nbd_mem_exports *nbd_mem_exports_co_create(struct world *w, const struct nbd_mem_export_spec *specs, size_t n)
{
	struct nbd_mem_exports *x = xcalloc(1, sizeof(*x) + n * sizeof(x->e[0]));
	size_t i;

	x->w = w;
	x->n = n;
	for (i = 0; i < n; i++) {
		x->e[i].spec = specs[i];
		x->e[i].w = w;
		reactor_co_call(home_of(&x->e[i]), create_home, &x->e[i]);
	}
	return x;
}

void nbd_mem_exports_co_destroy(struct nbd_mem_exports *x)
{
	size_t i;

	for (i = 0; i < x->n; i++)
		reactor_co_call(home_of(&x->e[i]), destroy_home, &x->e[i]);
	xfree(x);
}

static bool is_visible(const struct export *e, const struct nbd_client *c)
{
	return !e->spec.allow || access_is_allowed(e->spec.allow, c->st);
}

struct attach_call {
	struct export *e;
	struct nbd_session *s;
};

static int attach_home(void *arg)
{
	struct attach_call *c = arg;

	if (c->e->n_attached == SESSIONS_MAX)
		return -EBUSY;
	c->e->sessions[c->e->n_attached++] = c->s;
	return 0;
}

static int co_attach(void *arg, const char *name, const struct nbd_client *client, struct nbd_attach *out, struct err *e)
{
	struct nbd_mem_exports *x = arg;
	struct attach_call c;
	size_t i;
	int r;

	for (i = 0; i < x->n && *name; i++)
		if (!strcmp(x->e[i].spec.name, name))
			break;
	if (i == x->n || !is_visible(&x->e[i], client))
		return err_set(e, -ENOENT, "no such export");
	c = (struct attach_call){&x->e[i], client->s};
	r = reactor_co_call(home_of(c.e), attach_home, &c);
	if (r < 0)
		return err_set(e, r, "too many sessions");
	*out = (struct nbd_attach){
		.bdev = mem_bdev_of(c.e->m),
		.home = home_of(c.e),
		.read_only = c.e->spec.read_only,
		.name = c.e->spec.name,
		.description = c.e->spec.description,
	};
	out->handle = xmalloc(sizeof(c));
	memcpy(out->handle, &c, sizeof(c));
	return 0;
}

static void co_detach(void *arg, struct nbd_attach *at)
{
	struct attach_call *c = at->handle;
	struct export *e = c->e;
	unsigned i;

	for (i = 0; e->sessions[i] != c->s; i++)
		CHECK(i < e->n_attached);
	e->sessions[i] = e->sessions[--e->n_attached];
	xfree(c);
}

static int co_list(void *arg, const struct nbd_client *client, void (*each)(void *each_arg, const char *name, const char *description), void *each_arg)
{
	struct nbd_mem_exports *x = arg;
	size_t i;

	for (i = 0; i < x->n; i++)
		if (is_visible(&x->e[i], client))
			each(each_arg, x->e[i].spec.name, x->e[i].spec.description);
	return 0;
}

static int co_contexts(void *arg, const struct nbd_attach *at, void (*each)(void *each_arg, const char *name, uint64_t key), void *each_arg)
{
	const struct attach_call *c = at->handle;
	char name[32];
	unsigned k;

	for (k = 1; k <= c->e->spec.n_contexts; k++) {
		snprintf(name, sizeof(name), "test:%u", k);
		each(each_arg, name, k);
	}
	return 0;
}

static int co_status(void *arg, const struct nbd_attach *at, uint64_t key, uint64_t off, uint64_t len, struct bdev_extent *ext, size_t *n)
{
	uint64_t stretch = key * NBD_MEM_STRETCH, end = off + len, next;
	size_t i;

	CHECK(reactor_self() == at->home);
	for (i = 0; i < *n && off < end; i++, off = next) {
		next = MIN(end, (off / stretch + 1) * stretch);
		ext[i] = (struct bdev_extent){next - off, off / stretch % 2 ? (uint32_t)key : 0};
	}
	*n = i;
	return 0;
}

void nbd_mem_exports_provider(struct nbd_mem_exports *x, struct nbd_provider *out)
{
	*out = (struct nbd_provider){.co_attach = co_attach, .co_detach = co_detach, .co_list = co_list, .co_contexts = co_contexts, .co_status = co_status,
				     .arg = x};
}

struct mem_bdev *nbd_mem_export(struct nbd_mem_exports *x, size_t i) { return x->e[i].m; }
unsigned nbd_mem_export_attached(struct nbd_mem_exports *x, size_t i) { return x->e[i].n_attached; }

void nbd_mem_export_gone(struct nbd_mem_exports *x, size_t i)
{
	unsigned k;

	for (k = 0; k < x->e[i].n_attached; k++)
		nbd_session_gone(x->e[i].sessions[k]);
}
