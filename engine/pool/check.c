/*
 * check.c: pool check: every reference, count, checksum and copy, changing nothing.
 *
 * Applying is paused, so that memory holds one state: the newest checkpoint and all records behind it. Pages that are on
 * disk are verified there, copy by copy; pages that have changed since are verified by what refers to them.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "engine/pool/pool_internal.h"

struct page_seen {
	struct hash_node node; /* by page number */
	uint32_t refs;
};

struct check {
	struct ashlar_pool *p;
	const struct ashlar_check_options *o;
	struct hash pages;
	struct hash extents; /* struct page_seen, by extent index: who refers to it */
	int64_t problems;
	uint64_t groups_done, groups_total;
	unsigned n_logs; /* groups for stripe logs */
	uint64_t used[LABEL_DISKS_MAX];
};

static void say(struct check *c, const char *fmt, ...) __printf_like(2, 3);
static void say(struct check *c, const char *fmt, ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	c->problems++;
	if (c->o->say)
		c->o->say(c->o->arg, text);
}

static void thin_say(void *arg, const char *sentence)
{
	struct check *c = arg;

	/* thin_co_check() counts these itself and its count is added */
	if (c->o->say)
		c->o->say(c->o->arg, sentence);
}

/* ---- pages ---- */

/* True: for the first time. */
static bool seen_add(struct hash *h, uint64_t key)
{
	struct hash_node *n = hash_find(h, key);
	struct page_seen *s;

	if (n) {
		container_of(n, struct page_seen, node)->refs++;
		return false;
	}
	s = xcalloc(1, sizeof(*s));
	s->refs = 1;
	hash_add(h, &s->node, key);
	return true;
}

/* What is below a page that snapshots and clones share is seen once. */
static bool walk_page(void *arg, uint64_t addr, unsigned level)
{
	struct check *c = arg;

	return seen_add(&c->pages, addr);
}

static void walk_bad(void *arg, uint64_t addr, unsigned copy, int error)
{
	say(arg, "metadata page %" PRIu64 ", copy %u: %s", addr, copy, err_text(error));
}

static void used_page(void *arg, uint64_t addr, uint32_t refs)
{
	struct check *c = arg;
	struct hash_node *n = hash_find(&c->pages, addr);
	uint32_t seen = n ? container_of(n, struct page_seen, node)->refs : 0;

	if (seen != refs)
		say(c, "metadata page %" PRIu64 " has a reference count of %u, it is referred to %u times", addr, refs, seen);
	if (n) {
		hash_del(&c->pages, n);
		xfree(container_of(n, struct page_seen, node));
	}
}

static bool page_left(struct hash_node *n, void *arg)
{
	struct check *c = arg;

	say(c, "metadata page %" PRIu64 " is in use and counted as free", n->key);
	hash_del(&c->pages, n);
	xfree(container_of(n, struct page_seen, node));
	return true;
}

static int check_pages(struct check *c)
{
	struct ashlar_pool *p = c->p;
	int r;

	seen_add(&c->pages, meta_root_addr(p->meta));
	r = meta_co_each_used_page(p->meta, used_page, c);
	hash_each(&c->pages, page_left, c);
	return r;
}

static int check_system_arrays(struct check *c, const struct meta_walk *w)
{
	struct meta_array *a;
	unsigned i;
	int r = 0;

	for (i = 0; r == 0 && (a = meta_system_array_at(c->p->meta, i)); i++)
		r = meta_array_co_walk(a, w);
	return r;
}

/* ---- groups and extents ---- */

/* Compares the copies of what is valid in a cluster, or parity with the rows of it. What is not valid may differ, nobody reads
 * it: a crash leaves it so, and only what is allocated is resynced. */
static int check_data(void *arg, uint64_t cluster, uint16_t valid)
{
	struct check *c = arg;
	uint64_t bytes = c->p->label->cluster_bytes, sub = bytes / THIN_SUBS, per_group = c->p->label->group_bytes / bytes;
	uint64_t at, group = cluster / per_group, off = cluster % per_group * bytes;
	struct pgroup *g;
	unsigned i, n;
	bool parity;
	int r = pool_co_pgroup_get(c->p, group, &g);

	/* Not in step yet, and known to be; no such group is said elsewhere. */
	if (r < 0 || !raid_profile_tolerates((struct raid_profile){ g->desc.layout, g->desc.copies }) || g->unsync)
		return r == -ENOENT ? 0 : r;
	parity = pool_layout_is_parity(g->desc.layout);
	for (i = 0; i < THIN_SUBS; i += n) {
		for (n = 1; i + n < THIN_SUBS && (valid >> i & 1) == (valid >> (i + n) & 1); n++)
			;
		if (!(valid >> i & 1))
			continue;
		r = raid_co_compare_range(c->p->reactors[0].raid, group, off + i * sub, n * sub, &at);
		if (r == 1)
			say(c, "group %" PRIu64 ": the %s of cluster %" PRIu64 " %s at byte %" PRIu64, group,
			    parity ? "parity" : "copies", cluster, parity ? "is wrong" : "differ", at);
		else if (r < 0)
			say(c, "group %" PRIu64 ": cluster %" PRIu64 " cannot be read: %s", group, cluster, err_text(r));
	}
	return 0;
}

static int check_columns(struct check *c, const struct raid_desc *d)
{
	const struct label *l = c->p->label;
	uint64_t n = d->col_bytes / l->extent_bytes, i, x;
	struct pool_extent_disk ext;
	unsigned col;
	int r;

	for (col = 0; col < d->n_cols; col++) {
		unsigned disk = d->cols[col].disk;
		uint64_t first = (d->cols[col].off_bytes - l->data_off) / l->extent_bytes;

		if (first + n > c->p->disks[disk].extents)
			say(c, "group %" PRIu64 ": column %u lies beyond the end of disk %u", d->group, col, disk);
		for (i = 0; i < n; i++) {
			x = POOL_EXTENT_INDEX(disk, first + i);
			r = meta_array_co_get(c->p->extents, x, &ext);
			if (r < 0)
				return r;
			if (le64_get(ext.group_plus_1) != d->group + 1 || le16_get(ext.col) != col ||
			    le32_get(ext.left) != n - i)
				say(c, "extent %" PRIu64 " of disk %u is not recorded as part of group %" PRIu64, first + i, disk,
				    d->group);
			seen_add(&c->extents, x);
		}
		c->used[disk] += n;
	}
	return 0;
}

static int check_group(void *arg, const struct pool_group_disk *rec)
{
	struct check *c = arg;
	struct raid_desc *d = xmalloc(sizeof(*d));
	struct err e = { 0 };
	int r = pool_group_decode(c->p, rec, d, &e);

	if (r < 0) {
		say(c, "group %" PRIu64 ": %s", le64_get(rec->group), e.text);
		r = 0;
		goto out;
	}
	r = check_columns(c, d);
	if (rec->kind == THIN_GROUP_LOG && c->n_logs++)
		say(c, "group %" PRIu64 " is a second one for stripe logs", d->group);
	if (d->group + 1 == c->p->label->log_group_plus_1 && rec->kind != THIN_GROUP_LOG)
		say(c, "group %" PRIu64 " is not for stripe logs, and the label says it is", d->group);
	if (pool_layout_is_parity(d->layout) && !c->p->label->log_group_plus_1)
		say(c, "group %" PRIu64 " has parity, and the pool has no stripe logs", d->group);
	c->groups_done++;
	if (c->o->progress)
		c->o->progress(c->o->arg, c->groups_done, MAX(c->p->next_group, c->groups_done));
out:
	xfree(d);
	return r;
}

static bool extent_double(struct hash_node *n, void *arg)
{
	struct check *c = arg;
	struct page_seen *s = container_of(n, struct page_seen, node);

	if (s->refs > 1)
		say(c, "extent %u of disk %u belongs to %u groups", (unsigned)n->key, (unsigned)(n->key >> 32), s->refs);
	hash_del(&c->extents, n);
	xfree(s);
	return true;
}

static int check_extents(struct check *c)
{
	struct pool_extent_disk *ext = xaligned(16, META_PAGE_BYTES);
	unsigned per_leaf = META_PAGE_BYTES / sizeof(*ext), i;
	struct pending_run *run;
	uint64_t leaf = 0;
	int r;

	for (;; leaf++) {
		r = meta_array_co_next_leaf(c->p->extents, &leaf);
		if (r == 0)
			r = meta_array_co_leaf(c->p->extents, leaf, ext);
		if (r < 0)
			break;
		for (i = 0; i < per_leaf; i++) {
			uint64_t x = leaf * per_leaf + i;

			if (le64_get(ext[i].group_plus_1) && !hash_find(&c->extents, x))
				say(c, "extent %u of disk %u is taken by group %" PRIu64 ", which does not have it", (unsigned)x,
				    (unsigned)(x >> 32), le64_get(ext[i].group_plus_1) - 1);
		}
	}
	xfree(ext);
	hash_each(&c->extents, extent_double, c);
	for (i = 0; i < c->p->n_disks; i++) {
		uint64_t used = c->p->disks[i].used;

		list_for_each (run, &c->p->pending_runs, link)
			if (run->disk == i)
				used -= run->n;
		if (used != c->used[i])
			say(c, "disk %u: %" PRIu64 " extents are counted as used, groups have %" PRIu64, i, used, c->used[i]);
	}
	return r == -ENOENT ? 0 : r;
}

/* ---- labels ---- */

static int check_labels(struct check *c)
{
	struct label *l = xmalloc(sizeof(*l));
	struct err e;
	unsigned i, damaged;
	int r;

	for (i = 0; i < c->p->n_disks; i++) {
		struct disk *d = c->p->disks[i].disk;

		if (!d || c->p->disks[i].state == PDISK_FAILED) /* that it is damaged is why */
			continue;
		memset(&e, 0, sizeof(e));
		damaged = 0;
		r = label_co_read(d, l, &damaged, &e);
		if (r < 0)
			say(c, "disk %s: %s", d->path, e.text);
		else if (damaged)
			say(c, "disk %s: %u damaged label slots", d->path, damaged);
	}
	xfree(l);
	return 0;
}

static int64_t check_co_paused(struct check *c)
{
	struct meta_walk w = { .page = walk_page, .bad = walk_bad, .arg = c };
	struct thin_check tc = { .say = thin_say, .co_data = c->o->data ? check_data : NULL, .walk = &w, .arg = c };
	int64_t n;
	int r;

	n = thin_co_check(c->p->thin, &tc);
	if (n < 0)
		return n;
	c->problems += n;
	r = check_system_arrays(c, &w);
	if (r == 0)
		r = check_pages(c);
	if (r == 0)
		r = pool_co_each_group(c->p, check_group, c);
	if (r == 0 && c->p->label->log_group_plus_1 && !c->n_logs)
		say(c, "there is no group for stripe logs, and the label names %" PRIu64, c->p->label->log_group_plus_1 - 1);
	if (r == 0)
		r = check_extents(c);
	return r < 0 ? r : 0;
}

static bool seen_fini(struct hash_node *n, void *arg)
{
	xfree(container_of(n, struct page_seen, node));
	return true;
}

int64_t ashlar_co_pool_check(struct ashlar_pool *p, const struct ashlar_check_options *o, struct err *e)
{
	static const struct ashlar_check_options none;
	struct check *c = xcalloc(1, sizeof(*c));
	int64_t r;

	c->p = p;
	c->o = o ? o : &none;
	hash_init(&c->pages);
	hash_init(&c->extents);
	if (p->failed)
		say(c, "the pool has stopped: %s", p->failed_why);
	co_mutex_lock(&p->labels); /* no label is half written while we look */
	r = check_labels(c);
	co_mutex_unlock(&p->labels);
	if (r == 0)
		r = meta_co_pause(p->meta);
	if (r == 0) {
		r = check_co_paused(c);
		meta_resume(p->meta);
	}
	hash_each(&c->pages, seen_fini, NULL);
	hash_fini(&c->pages);
	hash_each(&c->extents, seen_fini, NULL);
	hash_fini(&c->extents);
	if (r < 0)
		err_set(e, (int)r, "pool %s: the check could not be finished: %s", p->label->name, err_text((int)r));
	else
		r = c->problems;
	xfree(c);
	return r;
}
