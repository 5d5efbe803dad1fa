/*
 * share.c: arrays that share pages: what snapshots and clones are made of.
 *
 * Sharing an array is pointing at the same root. From then on the count of a page is the number of pages and roots that
 * point to it; everything below a shared page is shared, whatever its own count says. Who changes a page with a count above
 * one makes a copy, and what the page points to has one referrer more: nothing else is touched, so sharing costs the same
 * whatever the size, and diverging costs a path at a time.
 *
 * Two things tell quickly that a page is nobody else's. A page that is dirty and belongs to the array has been made by it, and
 * not been shared since: sharing seals what is dirty (its checksums are computed, it belongs to no array any more, and who
 * wants to change it makes a copy; it is written by the next checkpoint like the others). And a page born after the array was
 * last shared (births count checkpoints and sharings). All others are looked up.
 */
#include <string.h>

#include "engine/meta/meta_internal.h"

int meta_page_co_refs(struct meta_array *a, const struct meta_ptr *p, uint32_t *refs)
{
	*refs = 1;
	if (p->birth > a->shared_birth)
		return 0;
	return meta_co_page_refs(a->m, p->addr, refs);
}

static void seal(struct meta_array *a)
{
	struct mpage *pg;

	meta_array_seal_one(a);
	list_for_each (pg, &a->m->dirty, link)
		if (pg->array == a)
			pg->array = NULL;
	if (a->dirty) {
		list_del(&a->link);
		a->dirty = false;
	}
}

void meta_array_share(struct meta_array *src, struct meta_array *dst)
{
	struct meta *m = src->m;

	CHECK(src->is_map && dst->is_map && meta_ptr_is_hole(&dst->root) && src->entry_log2 == dst->entry_log2);
	dst->version++;
	if (meta_ptr_is_hole(&src->root))
		return;
	if (src->dirty)
		seal(src);
	dst->root = src->root;
	dst->height = src->height;
	meta_space_ref(m, src->root.addr, 1);
	src->shared_birth = dst->shared_birth = m->birth++;
}

void meta_array_move(struct meta_array *src, struct meta_array *dst)
{
	static const struct meta_ptr hole;

	CHECK(src->is_map && dst->is_map && meta_ptr_is_hole(&dst->root) && src->entry_log2 == dst->entry_log2);
	if (src->dirty)
		seal(src);
	dst->root = src->root;
	dst->height = src->height;
	dst->shared_birth = src->shared_birth;
	src->root = hole;
	src->height = 0;
	src->shared_birth = 0;
	src->version++;
	dst->version++;
}

/* Down to the leaf or the first page that is shared, whichever comes first: *pg pinned, not shadowed; all above it are mine. */
struct cut {
	struct meta_array *a;
	struct mpage *parent, *pg;
	unsigned slot;
	struct meta_ptr p;
	uint32_t refs;
};

/* Coroutine. The page that c->p points to, which is not shared, becomes the parent. */
static void cut_descend(struct cut *c, uint64_t leaf, unsigned level)
{
	c->pg = meta_page_shadow(c->a, c->pg, c->p.birth, c->refs);
	meta_array_point(c->a, c->parent, c->slot, c->pg);
	if (c->parent)
		meta_page_put(c->a->m, c->parent);
	c->parent = c->pg;
	c->slot = meta_slot_of(leaf, level);
	c->p = meta_slot_get(c->parent->data, c->slot);
}

int meta_array_co_cut(struct meta_array *a, uint64_t leaf, void *page)
{
	struct cut c = { .a = a, .p = a->root };
	struct meta *m = a->m;
	unsigned level;
	int r = meta_space_co_refill(m, a->height + 8u);

	for (level = a->height; r == 0; level--) {
		if (meta_ptr_is_hole(&c.p)) {
			r = -ERR_FORMAT;
			break;
		}
		r = meta_page_co_get(m, &c.p, level, &c.pg);
		if (r < 0)
			break;
		c.refs = 1;
		if (!meta_page_is_mine(a, c.pg))
			r = meta_page_co_refs(a, &c.p, &c.refs);
		if (r == 0 && c.refs == 1 && level) {
			cut_descend(&c, leaf, level);
			continue;
		}
		if (r == 0 && c.refs == 1)
			memcpy(page, c.pg->data, META_PAGE_BYTES);
		meta_page_put(m, c.pg);
		if (r < 0)
			break;
		if (c.refs == 1)
			meta_page_drop_addr(m, c.p.addr);
		else
			meta_space_ref(m, c.p.addr, -1);
		meta_array_punch(a, c.parent, c.slot);
		return c.refs > 1;
	}
	if (c.parent)
		meta_page_put(m, c.parent);
	return r;
}

/* The same walk as that of a plain read, with a look at the count of each page on the way. */
static int leaf_co_owner(struct meta_array *a, uint64_t leaf, void *page, enum meta_owner *owner)
{
	struct meta *m = a->m;
	struct meta_ptr p = a->root;
	unsigned level = a->height;
	struct mpage *pg;
	uint32_t refs;
	int r;

	*owner = META_OWN;
	for (;; level--) {
		if (meta_ptr_is_hole(&p) || (level == a->height && leaf >> (8 * level)))
			return 1;
		r = meta_page_co_get(m, &p, level, &pg);
		if (r < 0)
			return r;
		refs = 1;
		if (!meta_page_is_mine(a, pg))
			r = meta_page_co_refs(a, &p, &refs);
		if (r == 0 && refs > 1)
			*owner = META_SHARED;
		if (r == 0 && !level) {
			if (*owner == META_OWN && !meta_page_is_mine(a, pg) && p.birth <= a->shared_birth)
				*owner = META_INHERITED;
			memcpy(page, pg->data, META_PAGE_BYTES);
		} else if (r == 0) {
			p = meta_slot_get(pg->data, meta_slot_of(leaf, level));
		}
		meta_page_put(m, pg);
		if (r < 0 || !level)
			return r;
	}
}

int meta_array_co_leaf_owner(struct meta_array *a, uint64_t leaf, void *page, enum meta_owner *owner)
{
	struct meta_array *refs = a->m->pagerefs;
	uint64_t version, refs_version;
	int r;

	do { /* counts are folded into the array meanwhile, perhaps: what is read must be of one moment */
		version = a->version;
		refs_version = refs->version;
		r = leaf_co_owner(a, leaf, page, owner);
	} while (version != a->version || refs_version != refs->version);
	if (r == 1) {
		memset(page, 0, META_PAGE_BYTES);
		*owner = META_OWN;
	}
	return r;
}

/* ---- what differs ---- */

/* Coroutine. What array a has at page `number` of level `level`: a pointer that is equal for equal contents; a page that is of
 * less height is looked through. */
static int ptr_co_at(struct meta_array *a, unsigned level, uint64_t number, struct meta_ptr *out)
{
	unsigned at = a->height;
	struct meta_ptr p = a->root;
	struct mpage *pg;
	int r;

	*out = (struct meta_ptr){ 0 };
	if (meta_ptr_is_hole(&p) || level > at || (at - level < 8 && number >> (8 * (at - level))))
		return 0;
	for (; at > level; at--) {
		r = meta_page_co_get(a->m, &p, at, &pg);
		if (r < 0)
			return r;
		p = meta_slot_get(pg->data, (unsigned)(number >> (8 * (at - level - 1))) & (META_FANOUT - 1));
		meta_page_put(a->m, pg);
		if (meta_ptr_is_hole(&p))
			return 0;
	}
	*out = p;
	return 0;
}

int meta_array_co_next_different(struct meta_array *a, struct meta_array *b, uint64_t *leaf)
{
	unsigned top = MAX(a->height, b->height), level;
	uint64_t want = *leaf;
	struct meta_ptr x, y;
	int r;

	for (;;) {
		uint64_t va = a->version, vb = b->version;

		if (top < 7 && want >> (8 * top))
			return -ENOENT;
		for (level = top;; level--) {
			r = ptr_co_at(a, level, want >> (8 * level), &x);
			if (r == 0)
				r = ptr_co_at(b, level, want >> (8 * level), &y);
			if (va != a->version || vb != b->version)
				break; /* again */
			if (r < 0)
				return r;
			/* At a level that only the higher one has, the lower one's root is below. */
			if (x.addr == y.addr && (level <= MIN(a->height, b->height) || want >> (8 * level))) {
				want = ((want >> (8 * level)) + 1) << (8 * level);
				break;
			}
			if (!level) {
				*leaf = want;
				return 0;
			}
		}
		top = MAX(a->height, b->height);
	}
}
