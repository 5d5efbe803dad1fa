#include "tests/lib/thin_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JOURNAL_OFF META_PAGE_BYTES

struct group_rec {
	le64 group;
	uint8_t layout, copies, kind, pad[5];
};

struct owner {
	le64 clusters_total, clusters_used;
};

/* ---- the space ---- */

/* A request on its way down. */
struct space_io {
	struct io io;
	struct io *parent;
	struct thin_rig *rig;
	struct thin_flags_mark *mark;
	uint64_t since;
};

static void space_done(struct io *io)
{
	struct space_io *x = container_of(io, struct space_io, io);
	struct io *parent = x->parent;
	int result = io->result;

	if (io->op == IO_WRITE && !x->rig->conf.unjudged)
		thin_flags_write_end(x->rig->flags, x->mark, io, result);
	else if (io->op == IO_FLUSH && result == 0)
		thin_flags_flush_end(x->rig->flags, x->since);
	xfree(x);
	io_done(parent, result);
}

static struct io *space_io_make(struct thin_rig *r, struct io *parent)
{
	struct space_io *x = xcalloc(1, sizeof(*x));

	x->io = (struct io){ .op = parent->op, .copy = parent->copy, .flags = parent->flags, .iov_n = parent->iov_n,
			     .off_bytes = parent->off_bytes, .len_bytes = parent->len_bytes, .iov = parent->iov,
			     .done = space_done };
	list_init(&x->io.link);
	x->parent = parent;
	x->rig = r;
	if (parent->op == IO_WRITE && !r->conf.unjudged)
		x->mark = thin_flags_write_begin(r->flags, parent);
	else if (parent->op == IO_FLUSH)
		x->since = thin_flags_flush_begin(r->flags);
	return &x->io;
}

static void space_submit(struct bdev *b, struct io *io)
{
	struct thin_rig_space *s = container_of(b, struct thin_rig_space, bdev);
	struct thin_rig *r = s->rig;

	r->n_writes += io->op == IO_WRITE;
	r->n_reads += io->op == IO_READ;
	r->n_flushes += io->op == IO_FLUSH;
	if (io->op != IO_FLUSH) {
		CHECK(io->off_bytes >= r->conf.group_bytes); /* group 0 is not data */
		CHECK(!r->log_group || io->off_bytes / r->conf.group_bytes != r->log_group);
		CHECK(io->off_bytes / r->conf.group_bytes == (io->off_bytes + io->len_bytes - 1) / r->conf.group_bytes);
	}
	if (io->op == IO_WRITE)
		r->bytes_written += io->len_bytes;
	io = space_io_make(r, io);
	if ((io->op == IO_WRITE && (r->hold_writes || r->fail_writes)) || (io->op == IO_READ && r->hold_reads)) {
		list_push_back(&s->held, &io->link);
		return;
	}
	bdev_submit(&r->disk->bdev, io);
}

static const struct bdev_ops space_ops = { .submit = space_submit };

unsigned thin_rig_n_held(struct thin_rig *r)
{
	struct list *head = &r->space[reactor_self()->index].held, *n;
	unsigned k = 0;

	for (n = head->next; n != head; n = n->next)
		k++;
	return k;
}

void thin_rig_release_writes(struct thin_rig *r)
{
	struct list now, *n;

	r->hold_writes = r->hold_reads = false;
	list_init(&now);
	list_splice_back(&now, &r->space[reactor_self()->index].held);
	while ((n = list_pop_front(&now))) {
		struct io *io = list_entry(n, struct io, link);

		if (r->fail_writes && io->op == IO_WRITE)
			io_done(io, -EIO);
		else
			bdev_submit(&r->disk->bdev, io);
	}
}

/* ---- hooks ---- */

static int hook_co_apply(void *ctx, unsigned type, const void *payload, size_t len, uint64_t seq)
{
	const struct group_rec *g = payload;
	struct thin_rig *r = ctx;

	int e;

	if (type != THIN_REC_LEAF_DROP && !r->conf.unjudged) /* how much goes with it is seen afterwards */
		thin_flags_co_record(r->flags, type, payload, len, seq);
	if (type != POOL_REC_FIRST) {
		e = thin_co_apply(r->thin, type, payload, len, seq);
		if (type == THIN_REC_LEAF_DROP && e == 0 && !r->conf.unjudged)
			thin_flags_co_record(r->flags, type, payload, len, seq);
		return e;
	}
	CHECK(len == sizeof(*g));
	return thin_co_apply_group(r->thin, le64_get(g->group), g->kind, (struct thin_class){ g->layout, g->copies });
}

static int hook_co_store(void *ctx, uint8_t *owner)
{
	struct thin_rig *r = ctx;
	struct thin_space s;
	struct owner o;

	thin_space_get(r->thin, &s);
	o.clusters_total = le64_make(s.clusters_total);
	o.clusters_used = le64_make(s.clusters_used);
	memcpy(owner, &o, sizeof(o));
	return thin_co_store(r->thin);
}

static int hook_co_publish(void *ctx, const struct meta_root_info *root)
{
	((struct thin_rig *)ctx)->root = *root;
	return 0;
}

static int hook_co_flush(void *ctx)
{
	struct thin_rig *r = ctx;
	uint64_t since = thin_flags_flush_begin(r->flags);
	int e = bdev_co_flush(&r->disk->bdev);

	r->n_commits++;
	if (e == 0)
		thin_flags_flush_end(r->flags, since);
	return e;
}

static int hook_co_grow(void *ctx)
{
	struct thin_rig *r = ctx;

	if (r->next_group == r->conf.n_groups)
		return -ENOSPC;
	r->meta_groups[r->n_meta_groups++] = r->next_group;
	meta_group_add(r->meta, r->next_group++);
	return 0;
}

static void hook_durable(void *ctx, uint64_t seq)
{
	thin_durable(((struct thin_rig *)ctx)->thin, seq);
}

static void hook_failed(void *ctx, int error, const char *why)
{
	fprintf(stderr, "seed %llu: the store failed: %s: %s\n", (unsigned long long)((struct thin_rig *)ctx)->conf.seed, why,
		err_text(error));
}

static const struct meta_hooks meta_hooks = {
	.co_apply = hook_co_apply,
	.co_store = hook_co_store,
	.co_publish = hook_co_publish,
	.co_flush = hook_co_flush,
	.co_grow = hook_co_grow,
	.durable = hook_durable,
	.failed = hook_failed,
};

static int group_make(struct thin_rig *r, unsigned kind, struct thin_class cls, uint64_t *group)
{
	struct group_rec g = { .layout = cls.layout, .copies = cls.copies, .kind = (uint8_t)kind };

	if (r->next_group + r->conf.reserve_groups >= r->conf.n_groups)
		return -ERR_POOL_FULL;
	*group = r->next_group++;
	g.group = le64_make(*group);
	meta_record(r->meta, POOL_REC_FIRST, &g, sizeof(g));
	return 0;
}

static int hook_co_group_create(void *ctx, struct thin_class cls, uint64_t *group)
{
	return group_make(ctx, THIN_GROUP_DATA, cls, group);
}

int thin_rig_co_log_group(struct thin_rig *r, struct thin_class cls)
{
	int e = group_make(r, THIN_GROUP_LOG, cls, &r->log_group);

	return e < 0 ? e : meta_co_wait_applied(r->meta, meta_last_seq(r->meta));
}

static bool class_redirects(struct thin_class cls)
{
	return cls.layout == THIN_RIG_LAYOUT_PARITY;
}

static const struct thin_hooks thin_hooks = { .co_group_create = hook_co_group_create };

/* ---- world ---- */

static void world_up(struct thin_rig *r)
{
	struct sim_options o = { .seed = rng_next(&r->rng), .n_reactors = r->conf.n_reactors,
				 .co_requests_max = r->conf.co_requests_max, .latency_min_ns = r->conf.latency_min_ns,
				 .latency_max_ns = r->conf.latency_max_ns };
	unsigned i;

	r->hold_writes = r->hold_reads = r->fail_writes = false;
	r->meta = NULL;
	r->thin = NULL;
	alloc_track_begin();
	r->w = sim_world_create(&o, r->ds);
	CHECK(disk_co_open(r->w, "disk0", 0, &r->disk, NULL) == 0);
	for (i = 0; i < r->conf.n_reactors; i++) {
		r->space[i].rig = r;
		r->space[i].bdev = r->disk->bdev;
		r->space[i].bdev.ops = &space_ops;
		list_init(&r->space[i].held);
	}
}

void thin_rig_init(struct thin_rig *r, const struct thin_rig_conf *c)
{
	struct sim_disk_conf d = { .size_bytes = c->group_bytes * c->n_groups, .block_bytes = c->block_bytes };

	memset(r, 0, sizeof(*r));
	r->conf = *c;
	rng_init(&r->rng, c->seed);
	r->ds = sim_disks_create(c->seed);
	sim_disks_add(r->ds, "disk0", &d);
	r->flags = thin_flags_create(c->seed, d.size_bytes, c->cluster_bytes, c->block_bytes);
	world_up(r);
}

void thin_rig_fini(struct thin_rig *r)
{
	sim_world_destroy(r->w);
	alloc_track_drop();
	sim_disks_destroy(r->ds);
	thin_flags_destroy(r->flags);
}

void thin_rig_restart(struct thin_rig *r)
{
	sim_world_destroy(r->w);
	r->leaked = alloc_track_drop();
	thin_flags_world_gone(r->flags, NULL);
	world_up(r);
}

void thin_rig_crash(struct thin_rig *r, enum sim_cut cut)
{
	sim_world_destroy(r->w);
	sim_disks_power_cut(r->ds, cut, &r->rng);
	thin_flags_world_gone(r->flags, r->ds);
	alloc_track_drop();
	world_up(r);
}

int thin_rig_run(struct thin_rig *r, int (*fn)(void *arg), void *arg)
{
	int result = -1, e = sim_run(r->w, fn, arg, &result, 0);

	return e < 0 ? e : result;
}

/* ---- the pool ---- */

static void pool_make(struct thin_rig *r)
{
	struct meta_conf mc = {
		.dev = &r->disk->bdev, .group_bytes = r->conf.group_bytes, .journal_off = JOURNAL_OFF,
		.journal_bytes = r->conf.journal_bytes, .cache_bytes = 4 * MIB, .checkpoint_ns = NS_PER_SEC,
		.hooks = &meta_hooks, .ctx = r,
	};
	struct thin_conf tc = {
		.group_bytes = r->conf.group_bytes, .cluster_bytes = r->conf.cluster_bytes,
		.block_bytes = r->conf.block_bytes, .cache_bytes = r->conf.cache_bytes,
		.journal_bytes = r->conf.journal_bytes, .home = reactor_self(), .hooks = &thin_hooks, .ctx = r,
		.class_redirects = class_redirects,
	};
	unsigned i;

	CHECK(reactor_self()->index == 0);
	mc.pool.b[0] = 1;
	r->meta = tc.meta = meta_open(&mc);
	if (!r->n_meta_groups) {
		r->n_meta_groups = r->next_group = 1;
		r->meta_groups[0] = 0;
	}
	for (i = 0; i < r->n_meta_groups; i++)
		meta_group_add(r->meta, r->meta_groups[i]);
	for (i = 0; i < r->conf.n_reactors; i++)
		tc.space[i] = &r->space[i].bdev;
	r->thin = thin_open(&tc);
}

int thin_rig_co_format(struct thin_rig *r)
{
	int e;

	pool_make(r);
	e = meta_co_format(r->meta);
	if (e == 0)
		e = meta_co_start(r->meta);
	if (e == 0 && !r->conf.unjudged)
		e = thin_flags_co_load(r->flags, r->meta, r->thin, true);
	return e < 0 ? e : thin_co_start(r->thin);
}

int thin_rig_co_open(struct thin_rig *r)
{
	uint8_t owner[META_OWNER_BYTES];
	struct err e = { 0 };
	struct thin_space s = { 0 };
	struct owner o;
	uint64_t n;
	int err;

	pool_make(r);
	err = meta_co_load(r->meta, r->root.addr, r->root.crc, r->root.epoch, owner, &e);
	if (err == 0) {
		memcpy(&o, owner, sizeof(o));
		s.clusters_total = le64_get(o.clusters_total);
		s.clusters_used = le64_get(o.clusters_used);
		thin_space_set(r->thin, &s);
		err = thin_co_load(r->thin, &e);
	}
	if (err == 0)
		err = meta_co_replay(r->meta, &n, &e);
	if (err < 0)
		fprintf(stderr, "seed %llu: opening: %s\n", (unsigned long long)r->conf.seed, e.text);
	if (err == 0) {
		thin_replayed(r->thin);
		err = meta_co_start(r->meta);
	}
	if (err == 0 && !r->conf.unjudged)
		err = thin_flags_co_load(r->flags, r->meta, r->thin, false);
	return err < 0 ? err : thin_co_start(r->thin);
}

int thin_rig_co_close(struct thin_rig *r)
{
	int e;

	thin_co_stop(r->thin);
	e = meta_co_stop(r->meta, true);
	thin_close(r->thin);
	meta_close(r->meta);
	disk_close(r->disk);
	return e;
}

int thin_rig_co_create(struct thin_rig *r, const char *name, uint64_t size_bytes, uint64_t full_wait_ns, struct thin_vol **out)
{
	struct thin_class cls = { r->conf.redirect ? THIN_RIG_LAYOUT_PARITY : 1, 1 };

	return thin_co_volume_create(r->thin, name, size_bytes, cls, full_wait_ns, out);
}

static int attach_there(void *arg)
{
	struct thin_vol *v = arg;
	int r;

	v->open_to_merge = false;
	if (v->open)
		return 0;
	r = thin_volume_co_open(v->thin, v->id, v->size_bytes, v->cls, v->full_wait_ns, thin_vol_is_fixed(v), &v->open);
	if (r == 0)
		thin_volume_set_limits(v->open, &v->limits);
	return r;
}

int thin_rig_co_attach(struct thin_rig *r, struct thin_vol *vol)
{
	int ret;

	vol->n_attached++;
	co_mutex_lock(&vol->admin);
	ret = reactor_co_call(thin_volume_home(r->thin, vol->id), attach_there, vol);
	co_mutex_unlock(&vol->admin);
	return ret;
}

static int detach_there(void *arg)
{
	thin_volume_co_close(arg);
	return 0;
}

void thin_rig_co_detach(struct thin_rig *r, struct thin_vol *vol)
{
	struct thin_volume *v;

	vol->n_attached = 0;
	co_mutex_lock(&vol->admin);
	v = vol->open;
	vol->open = NULL;
	CHECK(!v || reactor_co_call(thin_volume_home(r->thin, vol->id), detach_there, v) == 0);
	co_mutex_unlock(&vol->admin);
}

struct page_seen {
	struct hash_node node;
};

static void check_say(void *arg, const char *sentence)
{
	fprintf(stderr, "seed %llu: check: %s\n", (unsigned long long)((struct thin_rig *)arg)->conf.seed, sentence);
}

/* What is shared is seen once. */
static bool check_page(void *arg, uint64_t addr, unsigned level)
{
	struct page_seen *s;

	if (hash_find(arg, addr))
		return false;
	s = xcalloc(1, sizeof(*s));
	hash_add(arg, &s->node, addr);
	return true;
}

static bool page_fini(struct hash_node *n, void *arg)
{
	xfree(container_of(n, struct page_seen, node));
	return true;
}

static void check_bad(void *arg, uint64_t addr, unsigned copy, int error)
{
	fprintf(stderr, "check: page %llu: %s\n", (unsigned long long)addr, err_text(error));
}

int64_t thin_rig_co_check(struct thin_rig *r)
{
	struct hash pages;
	struct meta_walk walk = { .page = check_page, .bad = check_bad, .arg = &pages };
	struct thin_check c = { .say = check_say, .walk = &walk, .arg = r };
	int64_t n = meta_co_pause(r->meta);

	if (n < 0)
		return n;
	hash_init(&pages);
	n = thin_co_check(r->thin, &c);
	hash_each(&pages, page_fini, NULL);
	hash_fini(&pages);
	meta_resume(r->meta);
	return n;
}
