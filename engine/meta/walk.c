/*
 * walk.c: every page of an array, for pool check.
 */
#include <string.h>

#include "engine/base/crc32c.h"
#include "engine/meta/meta_internal.h"

struct level {
	struct meta_ptr ptrs[META_FANOUT];
	unsigned next;
	uint64_t addr, number; /* of this page; number: counted at its level */
};

struct walk {
	struct meta_array *a;
	const struct meta_walk *w;
	uint8_t *buf;
	struct level *lv; /* by level, from 1 */
};

static void verify(struct walk *k, const struct meta_ptr *p)
{
	struct meta *m = k->a->m;
	struct hash_node *n = hash_find(&m->pages, p->addr);
	unsigned copy;
	int r;

	if (n && container_of(n, struct mpage, node)->state > PAGE_CLEAN)
		return; /* not on disk yet */
	for (copy = 1; copy <= m->conf.dev->copies; copy++) {
		r = bdev_co_read_copy(m->conf.dev, p->addr * META_PAGE_BYTES, k->buf, META_PAGE_BYTES, copy);
		if (r == -ENODATA)
			continue;
		if (r == 0 && crc32c(0, k->buf, META_PAGE_BYTES) != p->crc)
			r = -ERR_CSUM;
		if (r < 0 && k->w->bad)
			k->w->bad(k->w->arg, p->addr, copy, r);
	}
}

static void leave(struct walk *k, uint64_t addr, unsigned level)
{
	if (k->w->left)
		k->w->left(k->w->arg, addr, level);
}

static int leaf_co_show(struct walk *k, const struct meta_ptr *p, uint64_t leaf)
{
	struct mpage *pg;

	if (!k->w->co_leaf || meta_page_co_get(k->a->m, p, 0, &pg) < 0)
		return 0; /* that it cannot be read has been said */
	memcpy(k->buf, pg->data, META_PAGE_BYTES);
	meta_page_put(k->a->m, pg);
	return k->w->co_leaf(k->w->arg, leaf, k->buf);
}

/* 1: the page has become the one to go through at its level. */
static int enter(struct walk *k, const struct meta_ptr *p, unsigned level, uint64_t number)
{
	struct meta *m = k->a->m;
	struct level *l = &k->lv[level];
	struct mpage *pg;
	unsigned s;
	int r = 0;

	if (meta_space_group_of(m, p->addr) < 0) {
		k->w->bad(k->w->arg, p->addr, 0, -ERR_FORMAT);
		return 0;
	}
	if (!k->w->page(k->w->arg, p->addr, level))
		return 0;
	verify(k, p);
	if (!level)
		r = leaf_co_show(k, p, number);
	if (!level || meta_page_co_get(m, p, level, &pg) < 0) {
		leave(k, p->addr, level);
		return r;
	}
	for (s = 0; s < META_FANOUT; s++)
		l->ptrs[s] = meta_slot_get(pg->data, s);
	meta_page_put(m, pg);
	l->next = 0;
	l->addr = p->addr;
	l->number = number;
	return 1;
}

int meta_array_co_walk(struct meta_array *a, const struct meta_walk *w)
{
	struct walk k = { .a = a, .w = w };
	unsigned top = a->height, level = top;
	struct meta_ptr root = a->root;
	int r;

	if (meta_ptr_is_hole(&root))
		return 0;
	k.lv = xcalloc(top + 1u, sizeof(*k.lv));
	k.buf = xaligned(4096, META_PAGE_BYTES);
	r = enter(&k, &root, level, 0);
	while (r >= 0 && (r || level < top)) {
		struct level *l;

		if (!r)
			level++; /* back at the parent */
		l = &k.lv[level];
		while (l->next < META_FANOUT && meta_ptr_is_hole(&l->ptrs[l->next]))
			l->next++;
		if (l->next == META_FANOUT) {
			leave(&k, l->addr, level);
			r = 0;
			continue;
		}
		level--;
		l->next++;
		r = enter(&k, &l->ptrs[l->next - 1], level, l->number * META_FANOUT + l->next - 1);
	}
	xfree(k.buf);
	xfree(k.lv);
	return r < 0 ? r : 0;
}
