#include "frontends/nbdkit/engine.h"

#include <semaphore.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/units.h"
#include "engine/io/co.h"

#define LOCKED_RETRY_NS (20 * NS_PER_MS)

struct plugin_engine {
	const struct plugin_options *o;
	bool read_only;
	uint64_t locked_wait_ns;
	struct world *w;
	struct ashlar *a;
	struct list volumes; /* open ones; of reactor 0 */
};

struct plugin_volume {
	struct list link;
	struct plugin_engine *g;
	struct ashlar_attach *at;
	struct bdev *bdev;
	struct reactor *home;
	_Atomic bool is_gone;
	_Atomic unsigned n_calls; /* under way */
	char name[ASHLAR_EXPORT_DEFAULT_MAX + 1];
};

static void wait_for(sem_t *s)
{
	while (sem_wait(s) < 0)
		CHECK(errno == EINTR);
}

/* ---- the engine's life: all on reactor 0 ---- */

struct life {
	struct plugin_engine *g;
	struct err *e;
};

static int pools_co_close(struct plugin_engine *g, struct err *e)
{
	struct ashlar_pool *p;
	int r, result = 0;

	while ((p = ashlar_pool_at(g->a, 0))) {
		r = ashlar_co_pool_close(p, e);
		if (r < 0)
			result = err_default(e, r, "closing a pool");
	}
	return result;
}

/* Commands hold a pool for a moment, also between get_ready and after_fork, when nobody else does. */
static int pool_co_open(struct plugin_engine *g, const char *name, const char *const *paths, size_t n_paths, struct err *e)
{
	uint64_t end = world_now_ns(g->w) + g->locked_wait_ns;
	struct ashlar_pool *p;
	int r;

	while ((r = ashlar_co_pool_open(g->a, name, paths, n_paths, g->read_only ? ASHLAR_OPEN_RDONLY : 0, &p, e)) == -ERR_LOCKED) {
		if (world_now_ns(g->w) >= end)
			break;
		co_sleep_ns(LOCKED_RETRY_NS);
	}
	return r;
}

/* POOL of POOL/VOL. */
static int named_co_open(struct plugin_engine *g, struct err *e)
{
	const char *slash = strchr(g->o->volume, '/');
	char pool[ASHLAR_POOL_NAME_MAX + 1] = "";

	CHECK(slash);
	if ((size_t)(slash - g->o->volume) > ASHLAR_POOL_NAME_MAX)
		return err_set(e, -ENOENT, "there is no pool of a name that long");
	memcpy(pool, g->o->volume, (size_t)(slash - g->o->volume));
	return pool_co_open(g, pool, (const char *const *)g->o->disks, g->o->n_disks, e);
}

static int all_co_open(struct plugin_engine *g, struct err *e)
{
	struct ashlar_found *f;
	size_t i, n;
	int r = ashlar_co_discover(g->a, (const char *const *)g->o->disks, g->o->n_disks, &f, &n, NULL, e);

	if (r < 0)
		return r;
	if (n == 0)
		r = err_set(e, -ENOENT, "no pool found on these disks; make one by `ashlar pool create`");
	for (i = 0; i < n && r == 0; i++)
		r = pool_co_open(g, f[i].name, (const char *const *)f[i].paths, f[i].n_paths, e);
	ashlar_found_free(f, n);
	return r;
}

static int life_co_begin(void *arg)
{
	struct life *l = arg;
	struct plugin_engine *g = l->g;
	struct ashlar_options o = { .metadata_cache_bytes = g->o->metadata_cache_bytes, .log = g->o->log };
	int r;

	g->a = ashlar_create(g->w, &o);
	r = g->o->volume ? named_co_open(g, l->e) : all_co_open(g, l->e);
	if (r < 0) {
		err_default(l->e, r, "opening the pool");
		(void)pools_co_close(g, NULL);
		ashlar_co_destroy(g->a);
	}
	return r;
}

/* nbdkit does not close what its clients have open when it is told to end. */
static void volume_co_detach(struct plugin_volume *v)
{
	atomic_store(&v->is_gone, true);
	while (atomic_load(&v->n_calls))
		co_sleep_ns(NS_PER_MS);
	ashlar_co_detach(v->at);
	list_del(&v->link);
	xfree(v);
}

static int life_co_end(void *arg)
{
	struct life *l = arg;
	int r;

	while (!list_is_empty(&l->g->volumes))
		volume_co_detach(list_first(&l->g->volumes, struct plugin_volume, link));
	r = pools_co_close(l->g, l->e);
	ashlar_co_destroy(l->g->a);
	return r;
}

int plugin_engine_start(const struct plugin_options *o, bool read_only, uint64_t locked_wait_ns, struct plugin_engine **out, struct err *e)
{
	struct real_options ro = { .n_reactors = o->n_reactors, .io = o->io };
	struct plugin_engine *g = xcalloc(1, sizeof(*g));
	struct life l = { g, e };
	int r;

	list_init(&g->volumes);
	g->o = o;
	g->read_only = read_only;
	g->locked_wait_ns = locked_wait_ns;
	r = real_world_create(&ro, &g->w, e);
	if (r < 0) {
		err_default(e, r, "starting the engine");
	} else {
		r = real_world_run(g->w, life_co_begin, &l);
		if (r < 0)
			real_world_destroy(g->w);
	}
	if (r < 0) {
		xfree(g);
		return err_to_errno(r);
	}
	*out = g;
	return 0;
}

int plugin_engine_stop(struct plugin_engine *g, struct err *e)
{
	struct life l = { g, e };
	int r = real_world_run(g->w, life_co_end, &l);

	real_world_destroy(g->w);
	xfree(g);
	return err_to_errno(r);
}

/* ---- exports ---- */

struct list_call {
	struct plugin_engine *g;
	struct ashlar_export_info *v;
	size_t n;
	struct err *e;
};

static int list_co_run(void *arg)
{
	struct list_call *c = arg;

	return ashlar_co_export_list(c->g->a, &c->v, &c->n, c->e);
}

int plugin_engine_list(struct plugin_engine *g, struct ashlar_export_info **out, size_t *n, struct err *e)
{
	struct list_call c = { .g = g, .e = e };
	int r = real_world_run(g->w, list_co_run, &c);
	size_t i;

	if (r < 0)
		return err_to_errno(err_default(e, r, "listing exports"));
	*n = 0;
	for (i = 0; i < c.n; i++)
		if (!c.v[i].hidden)
			c.v[(*n)++] = c.v[i];
	*out = c.v;
	return 0;
}

static void on_gone(void *arg)
{
	atomic_store(&((struct plugin_volume *)arg)->is_gone, true);
}

static void on_resized(void *arg)
{
	/* nbdkit has told its clients the size when they came; ranges are checked against the bdev as it is. */
}

static const struct ashlar_attach_ops attach_ops = { .gone = on_gone, .resized = on_resized };

struct open_call {
	struct plugin_volume *v;
	const char *name;
	struct err *e;
};

static int open_co_run(void *arg)
{
	struct open_call *c = arg;
	int r = ashlar_co_attach(c->v->g->a, c->name, &attach_ops, c->v, &c->v->at, c->e);

	if (r == 0)
		list_push_back(&c->v->g->volumes, &c->v->link);
	return r;
}

int plugin_volume_open(struct plugin_engine *g, const char *name, struct plugin_volume **out, struct err *e)
{
	struct plugin_volume *v = xcalloc(1, sizeof(*v));
	struct open_call c = { v, name, e };
	int r;

	v->g = g;
	snprintf(v->name, sizeof(v->name), "%s", name);
	r = strlen(name) < sizeof(v->name) ? real_world_run(g->w, open_co_run, &c) : -ENOENT;
	if (r < 0) {
		xfree(v);
		(void)err_default(e, r, "opening it");
		(void)err_prefix(e, "%.300s: ", name);
		return err_to_errno(r);
	}
	v->bdev = ashlar_attach_bdev(v->at);
	v->home = ashlar_attach_home(v->at);
	*out = v;
	return 0;
}

static int close_co_run(void *arg)
{
	volume_co_detach(arg);
	return 0;
}

void plugin_volume_close(struct plugin_volume *v)
{
	(void)real_world_run(v->g->w, close_co_run, v);
}

const struct bdev *plugin_volume_bdev(const struct plugin_volume *v)
{
	return v->bdev;
}

const char *plugin_volume_name(const struct plugin_volume *v)
{
	return v->name;
}

bool plugin_volume_is_read_only(const struct plugin_volume *v)
{
	return ashlar_attach_read_only(v->at);
}

/* ---- requests ---- */

struct request {
	struct msg msg;
	struct plugin_volume *v;
	struct io io;
	sem_t ended;
};

static void request_done(struct io *io)
{
	struct request *q = io->owner;

	sem_post(&q->ended);
}

static void request_arrived(struct msg *m)
{
	struct request *q = container_of(m, struct request, msg);
	struct bdev *b = q->v->bdev;
	int r = atomic_load(&q->v->is_gone) ? -ESHUTDOWN : 0;

	if (r == 0 && q->io.op != IO_FLUSH)
		r = bdev_check_range(b, q->io.off_bytes, q->io.len_bytes);
	if (r < 0)
		io_done(&q->io, r);
	else
		bdev_submit(b, &q->io);
}

static int request_run(struct plugin_volume *v, enum io_op op, void *buf, uint64_t off, uint64_t len, unsigned flags)
{
	struct request q = { .v = v, .msg.run = request_arrived };

	sem_init(&q.ended, 0, 0);
	io_prep(&q.io, op, off, len, buf, flags);
	q.io.done = request_done;
	q.io.owner = &q;
	atomic_fetch_add(&v->n_calls, 1);
	reactor_post(v->home, &q.msg);
	wait_for(&q.ended);
	atomic_fetch_sub(&v->n_calls, 1);
	sem_destroy(&q.ended);
	return err_to_errno(q.io.result);
}

/* Payload goes by way of aligned memory, copied in the caller's thread; it is new each time, for a disk that does not answer may
 * keep it (alloc_hold.h). */
static int piece_run(struct plugin_volume *v, enum io_op op, void *buf, uint64_t off, uint64_t len, unsigned flags)
{
	void *aligned = xaligned(4096, len);
	int r;

	if (op == IO_WRITE)
		memcpy(aligned, buf, len);
	r = request_run(v, op, aligned, off, len, flags);
	if (r == 0 && op == IO_READ)
		memcpy(buf, aligned, len);
	xfree(aligned);
	return r;
}

int plugin_volume_io(struct plugin_volume *v, enum io_op op, void *buf, uint64_t off_bytes, uint64_t len_bytes, unsigned flags)
{
	uint64_t max = ALIGN_DOWN((uint64_t)v->bdev->max_bytes, (uint64_t)v->bdev->block_bytes), at, len;
	int r = 0;

	if (op > IO_WRITE)
		return request_run(v, op, NULL, off_bytes, len_bytes, flags);
	for (at = 0; at < len_bytes && r == 0; at += len) {
		len = MIN(max, len_bytes - at);
		r = piece_run(v, op, (char *)buf + at, off_bytes + at, len, flags);
	}
	return r;
}

struct status_call {
	struct plugin_volume *v;
	uint64_t off, len;
	struct bdev_extent *ext;
	size_t *n;
	int result;
	sem_t ended;
};

static void status_co_main(void *arg)
{
	struct status_call *c = arg;

	c->result = atomic_load(&c->v->is_gone) ? -ESHUTDOWN : bdev_check_range(c->v->bdev, c->off, c->len);
	if (c->result == 0)
		c->result = bdev_co_status(c->v->bdev, c->off, c->len, c->ext, c->n);
	sem_post(&c->ended);
}

int plugin_volume_status(struct plugin_volume *v, uint64_t off_bytes, uint64_t len_bytes, struct bdev_extent *ext, size_t *n)
{
	struct status_call c = { .v = v, .off = off_bytes, .len = len_bytes, .ext = ext, .n = n };

	sem_init(&c.ended, 0, 0);
	atomic_fetch_add(&v->n_calls, 1);
	reactor_spawn(v->home, status_co_main, &c, "status");
	wait_for(&c.ended);
	atomic_fetch_sub(&v->n_calls, 1);
	sem_destroy(&c.ended);
	return err_to_errno(c.result);
}
