/*
 * array.c: persistent sparse arrays: radix trees of 4 KiB pages, 256 pointers to an interior page, copied on write.
 *
 * The only way to a writable page is to shadow the path to it: each page on it that is not of the current epoch is copied
 * to a fresh address, and its parent, writable by then, points there. So a dirty page's parents are all dirty, and a
 * checkpoint can compute checksums leaves first by following parent links. Checksums in the parents of dirty pages are
 * not valid before that; nobody needs them, since dirty and frozen pages are found in memory by address.
 *
 * There is one writer at a time (whoever holds m->mutate); readers may run meanwhile and see each page as it was at some
 * moment during their walk. A reader that meets a damaged page looks whether the array has changed under it and, if so,
 * starts again from the root.
 */
#include <string.h>

#include "engine/base/crc32c.h"
#include "engine/meta/meta_internal.h"

void meta_ptr_store(const struct meta_ptr *p, struct meta_ptr_disk *out)
{
	out->addr = le64_make(p->addr);
	out->crc = le32_make(p->crc);
	out->birth = le32_make(p->birth);
}

void meta_ptr_load(const struct meta_ptr_disk *in, struct meta_ptr *out)
{
	out->addr = le64_get(in->addr);
	out->crc = le32_get(in->crc);
	out->birth = le32_get(in->birth);
}

void meta_array_init(struct meta_array *a, struct meta *m, unsigned entry_log2)
{
	CHECK(entry_log2 >= 2 && entry_log2 <= 10);
	*a = (struct meta_array){ .m = m, .entry_log2 = (uint8_t)entry_log2, .is_map = true };
	list_init(&a->link);
}

void meta_array_store(const struct meta_array *a, struct meta_array_disk *out)
{
	memset(out, 0, sizeof(*out));
	meta_ptr_store(&a->root, &out->root);
	out->height = a->height;
	out->entry_log2 = a->entry_log2;
	out->shared_birth = le32_make(a->shared_birth);
}

int meta_array_load(struct meta_array *a, struct meta *m, const struct meta_array_disk *in)
{
	if (in->entry_log2 < 2 || in->entry_log2 > 10 || in->height > META_HEIGHT_MAX)
		return -ERR_FORMAT;
	meta_array_init(a, m, in->entry_log2);
	meta_ptr_load(&in->root, &a->root);
	a->height = in->height;
	a->shared_birth = le32_get(in->shared_birth);
	if (a->root.addr >> 48 || (a->root.addr == 0 && (a->root.crc || a->root.birth || a->height)))
		return -ERR_FORMAT;
	return 0;
}

/* Leaves that a tree of this height can hold. */
static uint64_t leaf_capacity(unsigned height)
{
	return height >= 7 ? 1ULL << 56 : 1ULL << (8 * height);
}

struct meta_ptr meta_slot_get(const uint8_t *data, unsigned slot)
{
	struct meta_ptr p;

	meta_ptr_load((const struct meta_ptr_disk *)data + slot, &p);
	return p;
}

static void slot_set(uint8_t *data, unsigned slot, const struct meta_ptr *p)
{
	meta_ptr_store(p, (struct meta_ptr_disk *)data + slot);
}

/* Walks from the root to the leaf: 0 with *out pinned, 1 if it is a hole. */
static int leaf_co_find(struct meta_array *a, uint64_t leaf, struct mpage **out)
{
	struct meta *m = a->m;
	struct meta_ptr p;
	struct mpage *pg;
	uint64_t version;
	unsigned level, tries = 0;
	int r;

again:
	version = a->version;
	p = a->root;
	level = a->height;
	if (meta_ptr_is_hole(&p) || leaf >= leaf_capacity(level))
		return 1;
	for (;; level--) {
		r = p.addr >> 48 ? -ERR_FORMAT : meta_page_co_get(m, &p, level, &pg);
		if (r < 0) {
			if (version != a->version && tries++ < 1000)
				goto again;
			return r;
		}
		if (level == 0)
			break;
		p = meta_slot_get(pg->data, meta_slot_of(leaf, level));
		meta_page_put(m, pg);
		if (meta_ptr_is_hole(&p))
			return 1;
	}
	*out = pg;
	return 0;
}

int meta_array_co_get(struct meta_array *a, uint64_t idx, void *entry)
{
	unsigned per_leaf_log2 = 12u - a->entry_log2;
	size_t size = (size_t)1 << a->entry_log2;
	struct mpage *pg;
	int r = leaf_co_find(a, idx >> per_leaf_log2, &pg);

	if (r < 0)
		return r;
	if (r) {
		memset(entry, 0, size);
		return 0;
	}
	memcpy(entry, pg->data + ((idx & ((1u << per_leaf_log2) - 1)) << a->entry_log2), size);
	meta_page_put(a->m, pg);
	return 0;
}

int meta_array_co_leaf(struct meta_array *a, uint64_t leaf, void *page)
{
	struct mpage *pg;
	int r = leaf_co_find(a, leaf, &pg);

	if (r < 0)
		return r;
	if (r) {
		memset(page, 0, META_PAGE_BYTES);
		return 1;
	}
	memcpy(page, pg->data, META_PAGE_BYTES);
	meta_page_put(a->m, pg);
	return 0;
}

int meta_array_co_next_leaf(struct meta_array *a, uint64_t *leaf)
{
	struct meta *m = a->m;
	uint64_t want = *leaf;

	/* Down as far as there are pages; at a hole, on to the next slot of the deepest page that has one. */
	for (;;) {
		struct meta_ptr p = a->root;
		unsigned level = a->height, s;
		uint64_t span, version = a->version;

		if (meta_ptr_is_hole(&p) || want >= leaf_capacity(level))
			return -ENOENT;
		for (; level > 0; level--) {
			struct mpage *pg;
			int r = meta_page_co_get(m, &p, level, &pg);

			if (r < 0) {
				if (version != a->version)
					break;
				return r;
			}
			span = 1ULL << (8 * (level - 1));
			for (s = meta_slot_of(want, level); s < META_FANOUT; s++) {
				p = meta_slot_get(pg->data, s);
				if (!meta_ptr_is_hole(&p))
					break;
				want = (want / span + 1) * span;
			}
			meta_page_put(m, pg);
			if (s == META_FANOUT)
				break; /* want stands at the next page of the level above */
		}
		if (level == 0) {
			*leaf = want;
			return 0;
		}
	}
}

/* A copy has been made: what the page points to has one referrer more. */
static void children_ref(struct meta *m, const struct mpage *pg)
{
	unsigned s;

	for (s = 0; s < META_FANOUT; s++) {
		struct meta_ptr p = meta_slot_get(pg->data, s);

		if (!meta_ptr_is_hole(&p))
			meta_space_ref(m, p.addr, 1);
	}
}

struct mpage *meta_page_shadow(struct meta_array *a, struct mpage *pg, uint32_t birth, uint32_t refs)
{
	struct mpage *copy;

	if (meta_page_is_mine(a, pg))
		return pg;
	copy = meta_page_new(a->m, a, pg->level, pg->data);
	if (refs > 1) {
		meta_space_ref(a->m, pg->addr, -1);
		if (pg->level)
			children_ref(a->m, pg);
	} else {
		meta_page_drop_addr(a->m, pg->addr);
	}
	if (!pg->level && birth <= a->shared_birth && a->leaf_copied)
		a->leaf_copied(a, copy->data, refs > 1);
	meta_page_put(a->m, pg);
	return copy;
}

void meta_array_point(struct meta_array *a, struct mpage *parent, unsigned slot, struct mpage *child)
{
	struct meta_ptr p = { .addr = child->addr, .birth = child->birth };

	child->parent = parent;
	child->slot = (uint16_t)slot;
	if (parent)
		slot_set(parent->data, slot, &p);
	else
		a->root = p;
	a->version++;
}

/* A level more on top, until the leaf number fits. */
static void tree_grow(struct meta_array *a, uint64_t leaf)
{
	while (leaf >= leaf_capacity(a->height)) {
		struct meta_ptr old = a->root;

		CHECK(a->height < META_HEIGHT_MAX);
		a->height++;
		if (!meta_ptr_is_hole(&old)) {
			struct mpage *pg = meta_page_new(a->m, a, a->height, NULL);
			struct hash_node *n = hash_find(&a->m->pages, old.addr);

			slot_set(pg->data, 0, &old);
			if (n) {
				struct mpage *child = container_of(n, struct mpage, node);

				if (meta_page_is_mine(a, child)) {
					child->parent = pg;
					child->slot = 0;
				}
			}
			meta_array_point(a, NULL, 0, pg);
			meta_page_put(a->m, pg);
		}
	}
}

/*
 * Coroutine, under m->mutate. A writable leaf, pinned. create: holes are filled with zero pages; without it, 1 at a hole.
 * Suspends only to load pages, always before it changes the tree at that level.
 */
static int leaf_co_shadow(struct meta_array *a, uint64_t leaf, bool create, struct mpage **out)
{
	struct meta *m = a->m;
	struct mpage *parent = NULL, *pg;
	struct meta_ptr p;
	unsigned level;
	uint32_t refs = 1;
	int r;

	if (!create && (meta_ptr_is_hole(&a->root) || leaf >= leaf_capacity(a->height)))
		return 1;
	if (leaf >= leaf_capacity(META_HEIGHT_MAX))
		return -ERR_FORMAT; /* an index from disk */
	r = meta_space_co_refill(m, a->height + 8u); /* the path, and the levels that a far index adds */
	if (r < 0)
		return r;
	a->version++;
	tree_grow(a, leaf);
	p = a->root;
	for (level = a->height;; level--) {
		unsigned slot = parent ? meta_slot_of(leaf, level + 1) : 0;

		if (meta_ptr_is_hole(&p)) {
			if (!create) {
				meta_page_put(m, parent);
				return 1;
			}
			pg = meta_page_new(m, a, level, NULL);
		} else {
			r = p.addr >> 48 ? -ERR_FORMAT : meta_page_co_get(m, &p, level, &pg);
			if (r < 0)
				goto out_put;
			r = meta_page_is_mine(a, pg) ? 0 : meta_page_co_refs(a, &p, &refs);
			if (r < 0) {
				meta_page_put(m, pg);
				goto out_put;
			}
			pg = meta_page_shadow(a, pg, p.birth, refs);
		}
		meta_array_point(a, parent, slot, pg);
		if (parent)
			meta_page_put(m, parent);
		if (level == 0)
			break;
		parent = pg;
		p = meta_slot_get(pg->data, meta_slot_of(leaf, level));
	}
	*out = pg;
	return 0;
out_put:
	if (parent)
		meta_page_put(m, parent);
	return r;
}

static bool page_is_zero(const uint8_t *data)
{
	const uint64_t *v = (const uint64_t *)data;
	size_t i;

	for (i = 0; i < META_PAGE_BYTES / 8; i++)
		if (v[i])
			return false;
	return true;
}

void meta_array_punch(struct meta_array *a, struct mpage *parent, unsigned slot)
{
	static const struct meta_ptr hole;
	struct meta *m = a->m;

	a->version++;
	while (parent) {
		struct mpage *pg = parent;

		slot_set(pg->data, slot, &hole);
		if (!page_is_zero(pg->data)) {
			meta_page_put(m, pg);
			return;
		}
		parent = pg->parent;
		slot = pg->slot;
		if (parent)
			parent->pins++;
		meta_page_put(m, pg);
		meta_page_drop_addr(m, pg->addr);
	}
	a->root = hole;
	a->height = 0;
}

/* A dirty leaf has become all zeros: it goes, and so do parents that thereby become empty. Consumes the pin. */
static void leaf_prune(struct meta_array *a, struct mpage *pg)
{
	struct mpage *parent = pg->parent;
	unsigned slot = pg->slot;
	uint64_t addr = pg->addr;

	if (parent)
		parent->pins++;
	meta_page_put(a->m, pg);
	meta_page_drop_addr(a->m, addr);
	meta_array_punch(a, parent, slot);
}

int meta_array_co_edit(struct meta_array *a, uint64_t idx, void **entry)
{
	unsigned per_leaf_log2 = 12u - a->entry_log2;
	struct mpage *pg;
	int r = leaf_co_shadow(a, idx >> per_leaf_log2, true, &pg);

	if (r < 0)
		return r;
	*entry = pg->data + ((idx & ((1u << per_leaf_log2) - 1)) << a->entry_log2);
	meta_page_put(a->m, pg); /* dirty pages stay */
	return 0;
}

int meta_array_co_set(struct meta_array *a, uint64_t idx, const void *entry)
{
	static const uint8_t zeros[1024];
	unsigned per_leaf_log2 = 12u - a->entry_log2;
	size_t size = (size_t)1 << a->entry_log2;
	bool zero = !memcmp(entry, zeros, size);
	struct mpage *pg;
	int r = leaf_co_shadow(a, idx >> per_leaf_log2, !zero, &pg);

	if (r != 0)
		return r < 0 ? r : 0;
	memcpy(pg->data + ((idx & ((1u << per_leaf_log2) - 1)) << a->entry_log2), entry, size);
	if (zero && page_is_zero(pg->data))
		leaf_prune(a, pg);
	else
		meta_page_put(a->m, pg);
	return 0;
}

int meta_array_co_drop_leaf(struct meta_array *a, uint64_t leaf)
{
	struct mpage *pg;
	int r = leaf_co_shadow(a, leaf, false, &pg);

	if (r != 0)
		return r < 0 ? r : 0;
	memset(pg->data, 0, META_PAGE_BYTES);
	leaf_prune(a, pg);
	return 0;
}

static void page_seal(struct mpage *pg)
{
	struct meta_ptr p = { .addr = pg->addr, .crc = crc32c(0, pg->data, META_PAGE_BYTES), .birth = pg->birth };

	if (pg->parent)
		slot_set(pg->parent->data, pg->slot, &p);
	else
		pg->array->root = p;
}

void meta_array_seal_one(struct meta_array *a)
{
	struct mpage *pg;
	unsigned level;

	for (level = 0; a->dirty && level <= a->height; level++)
		list_for_each (pg, &a->m->dirty, link)
			if (pg->array == a && pg->level == level)
				page_seal(pg);
}

/* Checksums of dirty pages, leaves first. No suspension. */
void meta_array_seal(struct meta *m, bool maps)
{
	struct mpage *pg;
	unsigned level, top = 0;

	for (level = 0; level <= top; level++) {
		list_for_each (pg, &m->dirty, link) {
			if (!pg->array || pg->array->is_map != maps)
				continue;
			top = MAX(top, pg->level);
			if (pg->level == level)
				page_seal(pg);
		}
	}
}
