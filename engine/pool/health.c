/*
 * health.c: what redundancy there is now, looked up group by group.
 *
 * With every disk ONLINE each group has what its layout promises, and nothing needs to be walked. Otherwise the group table is.
 */
#include <string.h>

#include "engine/pool/life.h"

static bool all_online(const struct ashlar_pool *p)
{
	unsigned i;

	for (i = 0; i < p->n_disks; i++)
		if ((p->disks[i].state != PDISK_ONLINE && p->disks[i].state != PDISK_FREE) || p->disks[i].entering)
			return false;
	return true;
}

/* What a group of this shape can lose when all its disks are there. */
static int desc_promise(const struct raid_desc *d)
{
	unsigned i, k, n = 0;

	if (d->layout == RAID_RAID5 || d->layout == RAID_RAID6)
		return (int)(d->n_cols - raid_data_cols(d));
	for (i = 0; i < d->copies; i++) { /* metadata keeps two copies even on one disk */
		for (k = 0; k < i && d->cols[k].disk != d->cols[i].disk; k++)
			;
		n += k == i;
	}
	return (int)n - 1;
}

struct count {
	const struct ashlar_pool *p;
	struct pool_health *h;
};

/* Of what is durable: a disk that labels do not count on yet is one less. There is one such at a time. */
static int redundancy_of(const struct ashlar_pool *p, const struct raid_desc *d)
{
	int left = raid_desc_redundancy(p->reactors[0].raid, d);
	unsigned i;

	for (i = 0; i < d->n_cols; i++)
		if (p->disks[d->cols[i].disk].entering)
			return left - 1;
	return left;
}

/* While a group changes its place, requests may still go by the old one: only what holds for both counts. */
static int redundancy_now(const struct ashlar_pool *p, const struct raid_desc *d)
{
	struct hash_node *n = hash_find(&p->pgroups, d->group);
	const struct pgroup *g = n ? container_of(n, struct pgroup, node) : NULL;
	int left = redundancy_of(p, d);

	if (g && g->before)
		left = MIN(left, redundancy_of(p, g->before));
	return g ? MIN(left, redundancy_of(p, &g->desc)) : left;
}

static void count_group(struct count *c, const struct raid_desc *d)
{
	int promise = desc_promise(d), left = redundancy_now(c->p, d);
	struct pool_health *h = c->h;
	unsigned i;

	h->n_groups++;
	h->n_lost += left < 0;
	h->n_degraded += left >= 0 && left < promise;
	h->promised = MIN(h->promised, promise);
	h->redundancy = MIN(h->redundancy, left);
	for (i = 0; i < d->n_cols && promise > 0; i++)
		if (c->p->disks[d->cols[i].disk].state != PDISK_ONLINE)
			h->rebuild_left_bytes += d->col_bytes;
}

static int count_record(void *arg, const struct pool_group_disk *rec)
{
	struct count *c = arg;
	struct raid_desc *d = xmalloc(sizeof(*d));
	int r = pool_group_decode(c->p, rec, d, NULL);

	if (r == 0)
		count_group(c, d);
	xfree(d);
	return r;
}

/* Nothing is missing: the least that any layout in use promises. */
static void health_whole(const struct ashlar_pool *p, struct pool_health *h)
{
	uint64_t per_group = p->label->group_bytes / p->label->cluster_bytes;
	struct thin_space space;
	struct thin_vol *v;
	struct raid_desc d;
	unsigned i;

	for (i = 0; i < p->label->n_meta; i++) {
		pool_label_meta_desc(p->label, i, &d);
		h->promised = MIN(h->promised, desc_promise(&d));
	}
	list_for_each (v, thin_vols(p->thin), link)
		if (v->state == THIN_VOLUME_LIVE)
			h->promised = MIN(h->promised,
					  (int)raid_profile_tolerates((struct raid_profile){ v->cls.layout, v->cls.copies }));
	thin_space_get(p->thin, &space);
	h->redundancy = h->promised;
	h->n_groups = space.clusters_total / per_group + p->label->n_meta + (p->label->log_group_plus_1 != 0);
}

/* Coroutine. */
void pool_co_health(struct ashlar_pool *p, struct pool_health *out)
{
	struct count c = { p, out };

	*out = (struct pool_health){ .promised = INT32_MAX, .redundancy = INT32_MAX };
	if (all_online(p))
		health_whole(p, out);
	else if (pool_co_each_group(p, count_record, &c) < 0)
		out->redundancy = -1; /* the table itself cannot be read */
	if (out->promised == INT32_MAX)
		out->promised = 0;
	out->redundancy = MIN(out->redundancy, out->promised);
}
