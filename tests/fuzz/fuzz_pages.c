/*
 * Damaged metadata: bytes of the root page and of any page below it are changed, with the checksums above made right so that
 * what stands in the page is believed, or not. The first byte of the input: bit 0, the pool as closed or as after a power
 * cut; bit 1, checksums made right. Then five bytes a change: page (2), byte of the page (2), new value (1).
 */
#include <string.h>

#include "engine/base/crc32c.h"
#include "tests/fuzz/pool_fuzz.h"

#define PAGES_MAX 512

struct page {
	uint64_t addr;
	int parent; /* -1: the label */
	unsigned off; /* of the pointer in the parent */
	bool changed;
	uint8_t data[META_PAGE_BYTES];
};

struct tree {
	const struct pool_fuzz_base *b;
	unsigned n;
	struct page pages[PAGES_MAX];
};

static struct tree trees[2], work;

static void page_add(struct tree *t, const struct meta_ptr_disk *ptr, unsigned level, int parent, unsigned off, bool volumes);

static void array_add(struct tree *t, const struct meta_array_disk *a, int parent, unsigned off, bool volumes)
{
	page_add(t, &a->root, a->height, parent, off, volumes);
}

static void page_add(struct tree *t, const struct meta_ptr_disk *ptr, unsigned level, int parent, unsigned off, bool volumes)
{
	struct page *p = &t->pages[t->n];
	int self = (int)t->n;
	unsigned i;

	if (!le64_get(ptr->addr) || t->n == PAGES_MAX)
		return;
	t->n++;
	p->addr = le64_get(ptr->addr);
	p->parent = parent;
	p->off = off;
	CHECK(pool_fuzz_peek(t->b, t->b->ds, p->addr * META_PAGE_BYTES, p->data, META_PAGE_BYTES));
	for (i = 0; level > 0 && i < META_FANOUT; i++)
		page_add(t, (struct meta_ptr_disk *)p->data + i, level - 1, self, i * 16, volumes);
	for (i = 0; level == 0 && volumes && i < META_PAGE_BYTES / sizeof(struct thin_volume_disk); i++)
		array_add(t, &((struct thin_volume_disk *)p->data + i)->map, self,
			  i * (unsigned)sizeof(struct thin_volume_disk) + offsetof(struct thin_volume_disk, map), false);
}

static const struct tree *tree_of(bool clean)
{
	struct tree *t = &trees[clean];
	struct meta_ptr_disk root;
	unsigned i;

	if (t->n)
		return t;
	t->b = pool_fuzz_base(clean);
	root = (struct meta_ptr_disk){ .addr = le64_make(t->b->label.root_addr) };
	page_add(t, &root, 0, -1, 0, false);
	for (i = 0; i < META_ARRAYS_MAX; i++)
		array_add(t, &t->b->root.arrays[i], 0, offsetof(struct meta_root_disk, arrays) + i * 32, i == THIN_ARRAY_VOLUMES);
	return t;
}

/* Children stand behind their parents. */
static void checksums_fix(struct sim_disks *ds)
{
	unsigned i = work.n;

	while (i-- > 0) {
		struct page *p = &work.pages[i], *up = p->parent < 0 ? NULL : &work.pages[p->parent];
		uint32_t crc = crc32c(0, p->data, META_PAGE_BYTES);
		struct meta_ptr_disk *ptr;

		if (!p->changed)
			continue;
		if (!up) {
			pool_fuzz_set_root_crc(work.b, ds, crc);
			continue;
		}
		ptr = (struct meta_ptr_disk *)(up->data + p->off);
		if (le64_get(ptr->addr) != p->addr)
			continue; /* the input has changed it */
		ptr->crc = le32_make(crc);
		up->changed = true;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sim_disks *ds;
	size_t at;
	unsigned i;

	if (!size)
		return 0;
	work = *tree_of(data[0] & 1);
	for (at = 1; at + 5 <= size; at += 5) {
		struct page *p = &work.pages[(data[at] | data[at + 1] << 8) % work.n];

		p->data[(data[at + 2] | data[at + 3] << 8) % META_PAGE_BYTES] = data[at + 4];
		p->changed = true;
	}
	ds = sim_disks_clone(work.b->ds);
	if (data[0] & 2)
		checksums_fix(ds);
	for (i = 0; i < work.n; i++)
		if (work.pages[i].changed)
			CHECK(pool_fuzz_poke(work.b, ds, work.pages[i].addr * META_PAGE_BYTES, work.pages[i].data, META_PAGE_BYTES));
	pool_fuzz_use(ds, size);
	sim_disks_destroy(ds);
	return 0;
}
