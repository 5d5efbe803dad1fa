/*
 * reactor_state.c: what the volumes of one reactor share: leased clusters by class, permissions for records, the limit of
 * the leaf cache. Clusters and permissions are fetched from home in batches, by one coroutine at a time.
 */
#include <string.h>

#include "thin/volume_internal.h"

#define ZEROS_BYTES (64 * KIB)
#define LEAVES_MIN 4
#define CREDITS_MAX 64 /* kept; what is beyond has been granted to requests that did not need it */

struct lease_pool_node {
	struct list link;
	struct thin_lease_pool pool;
};

struct thin_reactor *thin_reactor_create(struct thin *t, unsigned reactor)
{
	struct thin_reactor *tr = xcalloc(1, sizeof(*tr));
	const struct thin_conf *c = thin_conf_of(t);
	unsigned n = c->home->world->n_reactors;

	CHECK(IS_POW2(c->cluster_bytes) && c->cluster_bytes / THIN_SUBS >= c->block_bytes);
	CHECK(c->group_bytes % c->cluster_bytes == 0);
	tr->t = t;
	tr->unshare_gen = 1;
	tr->conf = c;
	tr->share_max = c->share_max ? c->share_max : THIN_SHARE_MAX;
	tr->space = c->space[reactor];
	tr->cluster_bytes = c->cluster_bytes;
	tr->sub_bytes = c->cluster_bytes / THIN_SUBS;
	tr->cluster_shift = (unsigned)__builtin_ctz(tr->cluster_bytes);
	tr->sub_shift = (unsigned)__builtin_ctz(tr->sub_bytes);
	CHECK(THIN_REQUEST_BYTES_MAX / (THIN_MAP_PER_LEAF * (uint64_t)tr->cluster_bytes) + 2 <= THIN_REQUEST_LEAVES_MAX);
	tr->max_leaves = (unsigned)MIN(MAX(c->cache_bytes / n / sizeof(struct thin_leaf), LEAVES_MIN), UINT32_MAX / 4);
	tr->zeros_len = MAX(ZEROS_BYTES, tr->sub_bytes);
	tr->zeros = xaligned(PAGE_BYTES, tr->zeros_len);
	memset(tr->zeros, 0, tr->zeros_len);
	list_init(&tr->lru);
	list_init(&tr->pools);
	list_init(&tr->free_children);
	list_init(&tr->volumes);
	co_mutex_init(&tr->credits[0].refill);
	co_mutex_init(&tr->credits[1].refill);
	return tr;
}

void thin_reactor_destroy(struct thin_reactor *tr)
{
	struct lease_pool_node *n;

	CHECK(list_is_empty(&tr->volumes) && !tr->n_leaves);
	while (!list_is_empty(&tr->pools)) {
		n = list_first(&tr->pools, struct lease_pool_node, link);
		list_del(&n->link);
		xfree(n->pool.clusters);
		xfree(n);
	}
	thin_children_free(tr);
	xfree(tr->zeros);
	xfree(tr);
}

void thin_reactor_space_changed(struct thin_reactor *tr)
{
	struct thin_volume *v;

	tr->space_gen++;
	list_for_each (v, &tr->volumes, link)
		thin_park_space_changed(v);
}

void thin_reactor_unshared(struct thin_reactor *tr)
{
	tr->unshare_gen++;
}

/* ---- leases ---- */

struct thin_lease_pool *thin_lease_pool_get(struct thin_reactor *tr, struct thin_class cls, bool runs)
{
	struct lease_pool_node *n;

	list_for_each (n, &tr->pools, link)
		if (n->pool.cls.layout == cls.layout && n->pool.cls.copies == cls.copies && n->pool.runs == runs)
			return &n->pool;
	n = xcalloc(1, sizeof(*n));
	n->pool.cls = cls;
	n->pool.runs = runs;
	co_mutex_init(&n->pool.refill);
	list_push_back(&tr->pools, &n->link);
	return &n->pool;
}

void thin_reactor_return_leases(struct thin_reactor *tr)
{
	struct lease_pool_node *n;

	list_for_each (n, &tr->pools, link) {
		struct thin_lease_pool *p = &n->pool;
		unsigned k = p->n;

		p->n = 0;
		if (k)
			thin_lease_return(tr->t, p->clusters + p->first, k);
		p->first = 0;
	}
}

/* Makes room for so many before and behind those that are there. */
static void lease_room(struct thin_lease_pool *p, unsigned before, unsigned behind)
{
	if (p->first >= before && p->first + p->n + behind <= p->cap)
		return;
	if (before + p->n + behind > p->cap) {
		p->cap = MAX(before + p->n + behind, 2 * p->cap);
		p->clusters = xrealloc(p->clusters, p->cap * sizeof(*p->clusters));
	}
	memmove(p->clusters + before, p->clusters + p->first, p->n * sizeof(*p->clusters));
	p->first = before;
}

void thin_lease_put(struct thin_lease_pool *p, const uint64_t *clusters, unsigned n)
{
	if (!n)
		return;
	lease_room(p, n, 0);
	p->first -= n;
	p->n += n;
	memcpy(p->clusters + p->first, clusters, n * sizeof(*clusters));
}

static void lease_add(struct thin_lease_pool *p, const uint64_t *clusters, unsigned n)
{
	lease_room(p, 0, n);
	memcpy(p->clusters + p->first + p->n, clusters, n * sizeof(*clusters));
	p->n += n;
}

/* The pool is full: what has been kept for large writes of this class is all there is. False: nothing. */
static bool lease_take_over(struct thin_reactor *tr, struct thin_lease_pool *p)
{
	struct thin_lease_pool *from = thin_lease_pool_get(tr, p->cls, true);

	if (p->runs || !from->n)
		return false;
	lease_add(p, from->clusters + from->first, from->n);
	from->first = from->n = 0;
	return true;
}

int thin_lease_co_take(struct thin_reactor *tr, struct thin_lease_pool *p, uint64_t *clusters, unsigned n)
{
	uint64_t got[THIN_LEASE_BATCH];
	unsigned k;
	int r = 0;

	if (!n)
		return 0;
	co_mutex_lock(&p->refill);
	while (p->n < n) {
		k = THIN_LEASE_BATCH;
		r = thin_co_lease(tr->t, p->cls, p->runs, got, &k);
		if (r < 0) {
			p->refused_ns = reactor_now_ns() + THIN_REFUSED_NS;
			if (r != -ERR_POOL_FULL || !lease_take_over(tr, p))
				break;
			continue;
		}
		CHECK(k >= 1 && k <= THIN_LEASE_BATCH);
		lease_add(p, got, k);
	}
	if (p->n >= n) { /* an error matters only if there is not enough */
		memcpy(clusters, p->clusters + p->first, n * sizeof(*clusters));
		p->first += n;
		p->n -= n;
		r = 0;
	}
	co_mutex_unlock(&p->refill);
	return r;
}

/* ---- permissions for records ---- */

int thin_credits_co_take(struct thin_reactor *tr, bool grow, unsigned n)
{
	struct thin_credits *c = &tr->credits[grow];
	unsigned k;
	int r = 0;

	co_mutex_lock(&c->refill);
	while (c->n < n) {
		k = n - c->n;
		r = thin_co_admit(tr->t, grow, &k);
		if (r < 0)
			break;
		c->n += k;
	}
	if (r == 0)
		c->n -= n;
	co_mutex_unlock(&c->refill);
	return r;
}

void thin_credits_put(struct thin_reactor *tr, bool grow, unsigned n)
{
	struct thin_credits *c = &tr->credits[grow];

	c->n = MIN(c->n + n, CREDITS_MAX);
}
