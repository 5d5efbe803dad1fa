/*
 * alone.c: what arrays have for themselves, without looking at what they share with others. For accounting.
 */
#include <string.h>

#include "engine/meta/meta_internal.h"

/* 0: *leaf is one that nobody else has, copied; 1: go on from *leaf, which has moved; -ENOENT: there is no more. */
static int next_alone_co_try(struct meta_array *a, uint64_t *leaf, void *page)
{
	struct meta *m = a->m;
	struct meta_ptr p = a->root;
	unsigned level = a->height;
	uint64_t want = *leaf;
	struct mpage *pg;
	uint32_t refs;
	int r;

	if (meta_ptr_is_hole(&p) || want >> (8 * level))
		return -ENOENT;
	for (;; level--) {
		r = meta_ptr_is_hole(&p) ? 0 : meta_page_co_get(m, &p, level, &pg);
		if (r < 0)
			return r;
		refs = 2;
		if (!meta_ptr_is_hole(&p)) {
			refs = 1;
			if (!meta_page_is_mine(a, pg))
				r = meta_page_co_refs(a, &p, &refs);
			if (r == 0 && refs == 1 && !level)
				memcpy(page, pg->data, META_PAGE_BYTES);
			else if (r == 0 && refs == 1)
				p = meta_slot_get(pg->data, meta_slot_of(want, level));
			meta_page_put(m, pg);
		}
		if (r < 0)
			return r;
		if (refs > 1) { /* nothing of ours alone below */
			*leaf = ((want >> (8 * level)) + 1) << (8 * level);
			return 1;
		}
		if (!level)
			return 0;
	}
}

int meta_array_co_next_alone(struct meta_array *a, uint64_t *leaf, void *page)
{
	struct meta_array *refs = a->m->pagerefs;
	uint64_t version, refs_version, at;
	int r;

	do {
		version = a->version;
		refs_version = refs->version;
		at = *leaf;
		r = next_alone_co_try(a, &at, page);
		if (version != a->version || refs_version != refs->version)
			r = 1; /* again, from where we were */
		else
			*leaf = at;
	} while (r == 1);
	return r;
}

/* ---- sets ---- */

/* A page that several refer to: it is the set's alone once all of them have been met. */
struct met {
	struct hash_node node; /* by page number */
	uint32_t left;
};

struct set_walk {
	struct meta_array *a;
	struct hash met;
	int (*co_leaf)(void *arg, const void *page);
	void *arg;
	struct set_level {
		struct meta_ptr ptrs[META_FANOUT];
		unsigned next;
	} *lv;
};

static bool met_all(struct set_walk *k, uint64_t addr, uint32_t refs)
{
	struct hash_node *n = hash_find(&k->met, addr);
	struct met *m;

	if (n)
		return --container_of(n, struct met, node)->left == 0;
	m = xmalloc(sizeof(*m));
	m->left = refs - 1;
	hash_add(&k->met, &m->node, addr);
	return false;
}

/* 1: its pointers are in k->lv[level]. */
static int set_co_enter(struct set_walk *k, const struct meta_ptr *p, unsigned level)
{
	struct meta *m = k->a->m;
	struct mpage *pg;
	uint32_t refs;
	unsigned s;
	int r = meta_page_co_refs(k->a, p, &refs);

	if (r < 0 || (refs > 1 && !met_all(k, p->addr, refs)))
		return r;
	r = meta_page_co_get(m, p, level, &pg);
	if (r < 0)
		return r;
	if (!level) {
		r = k->co_leaf(k->arg, pg->data);
	} else {
		for (s = 0; s < META_FANOUT; s++)
			k->lv[level].ptrs[s] = meta_slot_get(pg->data, s);
		k->lv[level].next = 0;
		r = 1;
	}
	meta_page_put(m, pg);
	return r;
}

static int set_co_array(struct set_walk *k)
{
	struct meta_ptr root = k->a->root;
	unsigned level = k->a->height, top = level;
	int r;

	if (meta_ptr_is_hole(&root))
		return 0;
	r = set_co_enter(k, &root, level);
	while (r >= 0 && (r || level < top)) {
		struct set_level *l;

		if (!r)
			level++;
		l = &k->lv[level];
		while (l->next < META_FANOUT && meta_ptr_is_hole(&l->ptrs[l->next]))
			l->next++;
		if (l->next == META_FANOUT) {
			r = 0;
			continue;
		}
		level--;
		r = set_co_enter(k, &l->ptrs[l->next++], level);
	}
	return r < 0 ? r : 0;
}

static bool met_fini(struct hash_node *n, void *arg)
{
	xfree(container_of(n, struct met, node));
	return true;
}

int meta_co_each_alone(struct meta_array *const *a, unsigned n, int (*co_leaf)(void *arg, const void *page), void *arg)
{
	struct set_walk k = { .co_leaf = co_leaf, .arg = arg };
	unsigned i;
	int r = 0;

	hash_init(&k.met);
	k.lv = xcalloc(META_HEIGHT_MAX + 1, sizeof(*k.lv));
	for (i = 0; i < n && r == 0; i++) {
		k.a = a[i];
		r = set_co_array(&k);
	}
	hash_each(&k.met, met_fini, NULL);
	hash_fini(&k.met);
	xfree(k.lv);
	return r;
}
