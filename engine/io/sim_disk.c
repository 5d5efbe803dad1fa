/*
 * The set of simulated disks: what outlives a world. See sim_disk.h for what happens to requests.
 */
#include "engine/io/sim_disk.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/hash.h"

struct sim_disks *sim_disks_create(uint64_t seed)
{
	struct sim_disks *ds = sim_alloc(sizeof(*ds));

	ds->pool = sim_pool_create();
	ds->stop_at = UINT64_MAX;
	rng_init(&ds->rng, seed);
	return ds;
}

static void disk_free(struct sim_disk *d)
{
	CHECK(list_is_empty(&d->inflight));
	sim_log_fini(&d->log);
	sim_tree_fini(&d->cache);
	sim_tree_fini(&d->durable);
	free(d->bad);
	free(d->signature);
	free(d->path);
	free(d);
}

void sim_disks_destroy(struct sim_disks *ds)
{
	unsigned i;

	CHECK(ds->n_worlds == 0);
	for (i = 0; i < ds->n; i++)
		disk_free(ds->disks[i]);
	sim_keeps_drop(ds);
	sim_pool_put(ds->pool);
	free(ds);
}

static struct sim_disk *disk_new(struct sim_disks *ds, const char *path)
{
	struct sim_disk *d = sim_alloc(sizeof(*d));

	CHECK(ds->n < SIM_DISKS_MAX);
	d->set = ds;
	d->index = ds->n;
	d->path = sim_strdup(path);
	list_init(&d->inflight);
	sim_tree_init(&d->durable, ds->pool);
	sim_tree_init(&d->cache, ds->pool);
	sim_log_init(&d->log, ds->pool);
	ds->disks[ds->n++] = d;
	return d;
}

unsigned sim_disks_add(struct sim_disks *ds, const char *path, const struct sim_disk_conf *conf)
{
	struct sim_disk *d;

	CHECK(conf->block_bytes == 512 || conf->block_bytes == 4096);
	CHECK(conf->size_bytes > 0 && IS_ALIGNED(conf->size_bytes, conf->block_bytes));
	d = disk_new(ds, path);
	d->size_bytes = conf->size_bytes;
	d->block_bytes = conf->block_bytes;
	d->is_remote = conf->is_remote;
	return d->index;
}

static struct sim_disk *disk_at(const struct sim_disks *ds, unsigned i)
{
	CHECK(i < ds->n);
	return ds->disks[i];
}

struct sim_disk *sim_disk_find(struct sim_disks *ds, const char *path)
{
	unsigned i;

	for (i = 0; i < ds->n; i++)
		if (!ds->disks[i]->removed && strcmp(ds->disks[i]->path, path) == 0)
			return ds->disks[i];
	return NULL;
}

void sim_disk_remove(struct sim_disks *ds, unsigned i)
{
	disk_at(ds, i)->removed = true;
}

void sim_disk_put_back(struct sim_disks *ds, unsigned i)
{
	disk_at(ds, i)->removed = false;
}

void sim_disk_set_path(struct sim_disks *ds, unsigned i, const char *path)
{
	struct sim_disk *d = disk_at(ds, i);
	char *old = d->path;

	d->path = sim_strdup(path);
	free(old);
}

struct sim_faults *sim_disk_faults(struct sim_disks *ds, unsigned i)
{
	return &disk_at(ds, i)->faults;
}

void sim_disk_bad_range(struct sim_disks *ds, unsigned i, uint64_t off_bytes, uint64_t len_bytes)
{
	struct sim_disk *d = disk_at(ds, i);

	if (d->n_bad == d->cap_bad) {
		d->cap_bad = MAX(d->cap_bad * 2, (size_t)8);
		d->bad = sim_realloc(d->bad, d->cap_bad * sizeof(*d->bad));
	}
	d->bad[d->n_bad++] = (struct sim_bad){ off_bytes, off_bytes + len_bytes };
}

void sim_disk_clear_bad(struct sim_disks *ds, unsigned i)
{
	disk_at(ds, i)->n_bad = 0;
}

void sim_disk_set_signature(struct sim_disks *ds, unsigned i, const char *what)
{
	struct sim_disk *d = disk_at(ds, i);
	char *old = d->signature;

	d->signature = what ? sim_strdup(what) : NULL;
	free(old);
}

void sim_disk_peek(struct sim_disks *ds, unsigned i, uint64_t off_bytes, void *buf, size_t len)
{
	struct sim_disk *d = disk_at(ds, i);
	const struct sim_page *pg;
	char *to = buf;
	size_t skip, n;

	CHECK(len <= d->size_bytes && off_bytes <= d->size_bytes - len);
	for (; len; len -= n, off_bytes += n, to += n) {
		skip = off_bytes % SIM_PAGE_BYTES;
		n = MIN(SIM_PAGE_BYTES - skip, len);
		pg = sim_tree_get(&d->durable, off_bytes / SIM_PAGE_BYTES);
		if (pg)
			memcpy(to, pg->data + skip, n);
		else
			memset(to, 0, n);
	}
}

void sim_disk_poke(struct sim_disks *ds, unsigned i, uint64_t off_bytes, const void *buf, size_t len)
{
	struct sim_disk *d = disk_at(ds, i);
	const char *from = buf;
	struct sim_page *pg;
	unsigned mask;
	size_t skip, n;
	uint64_t idx;

	CHECK(len <= d->size_bytes && off_bytes <= d->size_bytes - len);
	for (; len; len -= n, off_bytes += n, from += n) {
		idx = off_bytes / SIM_PAGE_BYTES;
		skip = off_bytes % SIM_PAGE_BYTES;
		n = MIN(SIM_PAGE_BYTES - skip, len);
		mask = SIM_MASK_ALL << (skip / SIM_GRANULE_BYTES);
		mask &= SIM_MASK_ALL >> (SIM_GRANULES - 1 - (skip + n - 1) / SIM_GRANULE_BYTES);
		pg = sim_page_copy(ds->pool, sim_tree_get(&d->cache, idx));
		memcpy(pg->data + skip, from, n);
		sim_log_punch(&d->log, idx, mask);
		sim_tree_merge(&d->durable, idx, pg, mask);
		sim_tree_set(&d->cache, idx, pg);
	}
}

bool sim_disk_is_volatile(struct sim_disks *ds, unsigned i, uint64_t off_bytes)
{
	return sim_log_newest(&disk_at(ds, i)->log, off_bytes / SIM_PAGE_BYTES, off_bytes % SIM_PAGE_BYTES / SIM_GRANULE_BYTES);
}

static void tree_truncate(struct sim_tree *t, uint64_t end)
{
	uint64_t idx;

	for (idx = end; (idx = sim_tree_next(t, idx)) != UINT64_MAX; idx++)
		sim_tree_set(t, idx, NULL);
}

void sim_disk_resize(struct sim_disks *ds, unsigned i, uint64_t size_bytes)
{
	struct sim_disk *d = disk_at(ds, i);
	uint64_t end = DIV_UP(size_bytes, (uint64_t)SIM_PAGE_BYTES);

	CHECK(size_bytes > 0 && IS_ALIGNED(size_bytes, d->block_bytes));
	if (size_bytes < d->size_bytes) {
		sim_log_truncate(&d->log, end);
		tree_truncate(&d->cache, end);
		tree_truncate(&d->durable, end);
	}
	d->size_bytes = size_bytes;
}

uint64_t sim_disk_size(struct sim_disks *ds, unsigned i) { return disk_at(ds, i)->size_bytes; }

bool sim_disk_is_idle(const struct sim_disks *ds, unsigned i)
{
	return list_is_empty(&disk_at(ds, i)->inflight);
}

void sim_disk_restore(struct sim_disks *ds, unsigned i, const struct sim_disks *from)
{
	struct sim_disk *d = disk_at(ds, i);

	CHECK(list_is_empty(&d->inflight));
	CHECK(!from || (from->pool == ds->pool && disk_at(from, i)->size_bytes == d->size_bytes));
	sim_log_clear(&d->log);
	if (from)
		sim_tree_share(&d->durable, &disk_at(from, i)->durable);
	else
		sim_tree_fini(&d->durable);
	sim_tree_share(&d->cache, &d->durable);
	d->n_bad = 0;
	d->incarnation++;
	d->n_writers = d->n_readers = 0;
}

/* ---- forks ---- */

static void disk_clone(struct sim_disks *ds, const struct sim_disk *from)
{
	struct sim_disk *d = disk_new(ds, from->path);
	struct list *n;

	d->signature = from->signature ? sim_strdup(from->signature) : NULL;
	d->size_bytes = from->size_bytes;
	d->block_bytes = from->block_bytes;
	d->is_remote = from->is_remote;
	d->removed = from->removed;
	d->faults = from->faults;
	if (from->n_bad) {
		d->bad = sim_alloc(from->n_bad * sizeof(*d->bad));
		memcpy(d->bad, from->bad, from->n_bad * sizeof(*d->bad));
		d->n_bad = d->cap_bad = from->n_bad;
	}
	sim_tree_share(&d->durable, &from->durable);
	sim_tree_share(&d->cache, &from->cache);
	sim_log_copy(&d->log, &from->log);
	d->seq = from->seq;
	memcpy(d->n_ops, from->n_ops, sizeof(d->n_ops));
	d->bytes_written = from->bytes_written;
	for (n = from->inflight.next; n != &from->inflight; n = n->next)
		sim_req_capture(list_entry(n, struct sim_req, link), d);
}

struct sim_disks *sim_disks_clone(const struct sim_disks *ds)
{
	struct sim_disks *c = sim_alloc(sizeof(*c));
	unsigned i;

	c->pool = sim_pool_get(ds->pool);
	c->rng = ds->rng;
	c->n_events = ds->n_events;
	c->stop_at = UINT64_MAX;
	for (i = 0; i < ds->n; i++)
		disk_clone(c, ds->disks[i]);
	sim_keeps_clone(c, ds);
	return c;
}

/* ---- power cut ---- */

static uint64_t count_units(const struct sim_disks *ds, enum sim_unit unit)
{
	uint64_t n = 0;
	unsigned i;

	for (i = 0; i < ds->n; i++)
		n += sim_log_count(&ds->disks[i]->log, unit);
	return n;
}

/* What is in flight ends here: its payload is taken, its world will not run again. */
static void disk_detach(struct sim_disk *d)
{
	struct list *n;

	while ((n = list_pop_front(&d->inflight)))
		sim_req_capture(list_entry(n, struct sim_req, link), d);
}

static void plan_disk(struct sim_cut_plan *p, struct rng *rng)
{
	static const enum sim_unit units[] = { SIM_UNIT_GRANULE, SIM_UNIT_PAGE, SIM_UNIT_WRITE };

	if (p->cut != SIM_CUT_RANDOM)
		return;
	p->unit = units[rng_below(rng, ARRAY_LEN(units))];
	p->bias = (unsigned)rng_below(rng, 257);
}

void sim_disks_power_cut(struct sim_disks *ds, enum sim_cut cut, struct rng *rng)
{
	struct sim_cut_plan plan = { .cut = cut };
	struct sim_disk *d;
	uint64_t n = 0;
	unsigned i;

	for (i = 0; i < ds->n; i++)
		disk_detach(ds->disks[i]);
	sim_keeps_drop(ds);
	if (cut == SIM_CUT_ALL_BUT_ONE || cut == SIM_CUT_ONLY_ONE) {
		plan.unit = rng_chance(rng, 1, 2) ? SIM_UNIT_GRANULE : SIM_UNIT_WRITE;
		n = count_units(ds, plan.unit);
		plan.one = n ? rng_below(rng, n) : 0;
	}
	for (i = 0; i < ds->n; i++) {
		d = ds->disks[i];
		plan_disk(&plan, rng);
		n = sim_log_count(&d->log, plan.unit);
		sim_log_cut(&d->log, &d->durable, &plan, rng);
		plan.one -= n; /* once it is behind us: a number no log has */
		sim_tree_share(&d->cache, &d->durable);
	}
	ds->stop_at = UINT64_MAX;
}

/* ---- counters ---- */

uint64_t sim_disks_n_events(const struct sim_disks *ds)
{
	return ds->n_events;
}

uint64_t sim_disk_n_ops(const struct sim_disks *ds, unsigned i, enum io_op op)
{
	CHECK((unsigned)op <= IO_ZERO);
	return disk_at(ds, i)->n_ops[op];
}

uint64_t sim_disk_bytes_written(const struct sim_disks *ds, unsigned i)
{
	return disk_at(ds, i)->bytes_written;
}

void sim_disks_stop_at(struct sim_disks *ds, uint64_t n_events)
{
	ds->stop_at = n_events;
}

uint64_t sim_disks_hash(const struct sim_disks *ds)
{
	uint64_t h = 0;
	unsigned i;

	for (i = 0; i < ds->n; i++)
		h = hash_mix(h ^ hash_mix(ds->disks[i]->size_bytes + i) ^ sim_tree_hash(&ds->disks[i]->durable));
	return h;
}
