/*
 * check.c: verification of maps, reference counts and counters against each other. Changes nothing.
 *
 * Counts what the maps refer to in memory, one array of counters per group that is referred to, and then compares with the
 * stored counts, group by group.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "thin/home_internal.h"

#define PER_LEAF(type) (META_PAGE_BYTES / sizeof(type))

struct seen_group {
	struct hash_node node; /* by group */
	uint32_t counts[];
};

struct total {
	uint64_t used, subs;
};

/* A map page that has been gone through, and what there was below it. */
struct seen_page {
	struct hash_node node; /* by page number */
	struct total sum;
};

struct checker {
	struct thin *t;
	const struct thin_check *c;
	struct thin_vol *v; /* of the map that is being walked */
	struct hash pages;
	struct total stack[META_HEIGHT_MAX + 2]; /* of the pages on the way down; the first: of the volume */
	unsigned depth;
	struct hash seen;
	int64_t problems;
	uint64_t total, used;
};

static void say(struct checker *k, const char *fmt, ...) __printf_like(2, 3);
static void say(struct checker *k, const char *fmt, ...)
{
	char text[300];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	k->problems++;
	k->c->say(k->c->arg, text);
}

static bool seen_fini(struct hash_node *n, void *arg)
{
	xfree(container_of(n, struct seen_group, node));
	return true;
}

static bool page_fini(struct hash_node *n, void *arg)
{
	xfree(container_of(n, struct seen_page, node));
	return true;
}

static struct seen_group *seen_get(struct checker *k, uint64_t group, bool make)
{
	struct hash_node *n = hash_find(&k->seen, group);
	struct seen_group *g;

	if (n)
		return container_of(n, struct seen_group, node);
	if (!make)
		return NULL;
	g = xcalloc(1, sizeof(*g) + k->t->clusters_per_group * sizeof(uint32_t));
	hash_add(&k->seen, &g->node, group);
	return g;
}

static void refer(struct checker *k, uint64_t cluster)
{
	seen_get(k, cluster / k->t->clusters_per_group, true)->counts[cluster % k->t->clusters_per_group]++;
}

static int check_entry(struct checker *k, uint64_t idx, const struct thin_entry *e, struct total *sum)
{
	struct thin_vol *v = k->v;
	unsigned long long at = idx;
	int r = 0;

	if (!e->own && !e->base && !e->own_mask && !e->base_mask && !e->shared)
		return 0;
	if ((e->own != 0) != (e->own_mask != 0) || (e->base != 0) != (e->base_mask != 0) || (e->base && !e->own) ||
	    (e->own_mask & e->base_mask))
		say(k, "volume %s: map entry %llu has a cluster without valid parts or parts without a cluster", v->name, at);
	if (idx * k->t->conf.cluster_bytes >= v->size_bytes && v->state == THIN_VOLUME_LIVE)
		say(k, "volume %s: map entry %llu lies beyond the end of the volume", v->name, at);
	if (e->own)
		refer(k, e->own);
	if (e->base)
		refer(k, e->base);
	sum->used += (e->own != 0) + (e->base != 0);
	sum->subs += (uint64_t)__builtin_popcount((unsigned)(e->own_mask | e->base_mask));
	if (e->own && k->c->co_data)
		r = k->c->co_data(k->c->arg, e->own, e->own_mask);
	if (r == 0 && e->base && k->c->co_data)
		r = k->c->co_data(k->c->arg, e->base, e->base_mask);
	return r;
}

/* ---- pages, each seen once, however many maps share it ---- */

static bool map_page(void *arg, uint64_t addr, unsigned level)
{
	struct checker *k = arg;
	struct hash_node *n;

	if (k->c->walk->page(k->c->walk->arg, addr, level)) {
		CHECK(k->depth + 1 < ARRAY_LEN(k->stack));
		k->stack[++k->depth] = (struct total){ 0 };
		return true;
	}
	n = hash_find(&k->pages, addr);
	if (n) {
		k->stack[k->depth].used += container_of(n, struct seen_page, node)->sum.used;
		k->stack[k->depth].subs += container_of(n, struct seen_page, node)->sum.subs;
	}
	return false;
}

static void map_left(void *arg, uint64_t addr, unsigned level)
{
	struct checker *k = arg;
	struct seen_page *s = xcalloc(1, sizeof(*s));

	s->sum = k->stack[k->depth--];
	k->stack[k->depth].used += s->sum.used;
	k->stack[k->depth].subs += s->sum.subs;
	hash_add(&k->pages, &s->node, addr);
}

static int map_co_leaf(void *arg, uint64_t leaf, const void *page)
{
	const struct thin_entry_disk *d = page;
	struct checker *k = arg;
	unsigned i;
	int r = 0;

	for (i = 0; i < THIN_MAP_PER_LEAF && r >= 0; i++) {
		struct thin_entry e = thin_entry_load(&d[i]);

		r = check_entry(k, leaf * THIN_MAP_PER_LEAF + i, &e, &k->stack[k->depth]);
	}
	return r < 0 ? r : 0;
}

static void map_bad(void *arg, uint64_t addr, unsigned copy, int error)
{
	struct checker *k = arg;

	k->c->walk->bad(k->c->walk->arg, addr, copy, error);
}

static int check_volume(struct checker *k, struct thin_vol *v)
{
	struct meta_walk w = { .page = map_page, .left = map_left, .co_leaf = map_co_leaf, .bad = map_bad, .arg = k };
	struct total *sum = &k->stack[0];
	int r;

	k->v = v;
	k->depth = 0;
	*sum = (struct total){ 0 };
	r = meta_array_co_walk(&v->map, &w);
	if (r == 0 && v->state != THIN_VOLUME_DELETING && (sum->used != v->used_clusters || sum->subs != v->valid_subs))
		say(k, "volume %s: counters say %llu clusters and %llu subclusters, the map has %llu and %llu", v->name,
		    (unsigned long long)v->used_clusters, (unsigned long long)v->valid_subs, (unsigned long long)sum->used,
		    (unsigned long long)sum->subs);
	return r;
}

/* Stored counts of one group against those seen. */
static int check_group(struct checker *k, uint64_t group, const struct thin_group_disk *st)
{
	uint64_t n = k->t->clusters_per_group, i;
	struct seen_group *g = seen_get(k, group, false);
	uint32_t used = 0;

	for (i = 0; i < n; i++) {
		uint32_t want = g ? g->counts[i] : 0, refs;
		int r = thin_ref_co_get(k->t, group * n + i, &refs);

		if (r < 0)
			return r;
		used += refs != 0;
		if (refs != want)
			say(k, "cluster %llu has a reference count of %u, the maps refer to it %u times",
			    (unsigned long long)(group * n + i), refs, want);
	}
	if (st->kind != THIN_GROUP_DATA && used)
		say(k, "group %llu is not a data group and has %u clusters in use", (unsigned long long)group, used);
	if (used != le32_get(st->used))
		say(k, "group %llu says that %u clusters are in use, there are %u", (unsigned long long)group,
		    le32_get(st->used), used);
	if (st->kind == THIN_GROUP_DATA)
		k->total += n;
	k->used += used;
	if (g) {
		hash_del(&k->seen, &g->node);
		xfree(g);
	}
	return 0;
}

static int check_groups(struct checker *k)
{
	struct thin_group_disk *st = xaligned(16, META_PAGE_BYTES);
	uint64_t leaf = 0, i;
	int r;

	for (;; leaf++) {
		r = meta_array_co_next_leaf(k->t->stat, &leaf);
		if (r == 0)
			r = meta_array_co_leaf(k->t->stat, leaf, st);
		for (i = 0; i < PER_LEAF(*st) && r == 0; i++)
			if (st[i].kind != THIN_GROUP_NONE)
				r = check_group(k, leaf * PER_LEAF(*st) + i, &st[i]);
		if (r < 0)
			break;
	}
	xfree(st);
	return r == -ENOENT ? 0 : r;
}

static bool seen_left(struct hash_node *n, void *arg)
{
	struct checker *k = arg;

	say(k, "group %llu does not exist and maps refer to it", (unsigned long long)n->key);
	return true;
}

int64_t thin_co_check(struct thin *t, const struct thin_check *c)
{
	struct checker k = { .t = t, .c = c };
	struct thin_vol *v;
	int r = 0;

	hash_init(&k.seen);
	hash_init(&k.pages);
	list_for_each (v, &t->vols, link) {
		r = check_volume(&k, v);
		if (r < 0)
			break;
	}
	if (r == 0)
		r = check_groups(&k);
	if (r == 0)
		hash_each(&k.seen, seen_left, &k);
	if (r == 0 && (k.total != t->clusters_total || k.used != t->clusters_used))
		say(&k, "the pool says %llu of %llu clusters are in use, there are %llu of %llu",
		    (unsigned long long)t->clusters_used, (unsigned long long)t->clusters_total, (unsigned long long)k.used,
		    (unsigned long long)k.total);
	hash_each(&k.seen, seen_fini, NULL);
	hash_fini(&k.seen);
	hash_each(&k.pages, page_fini, NULL);
	hash_fini(&k.pages);
	return r < 0 ? r : k.problems;
}
