/*
 * space.c: which metadata pages are free.
 *
 * Counts of references live in an ordinary array (pagerefs), four bytes for each page of the metadata groups, indexed by
 * (metadata group in label order, page). Changing a count shadows pages of that array, which changes counts: so counts
 * change in memory first, as deltas in notes, and the checkpoint folds them in until none are left; that ends, because
 * each leaf is shadowed at most once per epoch.
 *
 * Allocation never suspends: it takes from a stock of candidates, pages whose count is zero and which no note speaks
 * against; the stock is refilled before each record by scanning. A page freed in epoch E may still be referenced by the
 * checkpoint before E, so it stays in quarantine until checkpoint E is published.
 */
#include <string.h>

#include "engine/meta/meta_internal.h"

#define REFS_PER_LEAF (META_PAGE_BYTES / 4)

void meta_space_init(struct meta *m)
{
	hash_init(&m->notes);
	list_init(&m->candidates);
	m->pages_per_group = m->conf.group_bytes / META_PAGE_BYTES;
	/* The first metadata group starts with page 0, which means "hole", and holds the journal. */
	m->first_page_skip = (m->conf.journal_off + m->conf.journal_bytes) % m->conf.group_bytes / META_PAGE_BYTES;
}

static bool note_fini(struct hash_node *n, void *arg)
{
	xfree(container_of(n, struct page_note, node));
	return true;
}

void meta_space_fini(struct meta *m)
{
	hash_each(&m->notes, note_fini, NULL);
	hash_fini(&m->notes);
}

void meta_group_add(struct meta *m, uint64_t group)
{
	CHECK(m->n_groups < META_GROUPS_MAX);
	m->groups[m->n_groups] = (struct meta_group){ .group = group };
	m->n_groups++;
}

unsigned meta_n_groups(const struct meta *m)
{
	return m->n_groups;
}

int meta_space_group_of(const struct meta *m, uint64_t addr)
{
	uint64_t group = addr / m->pages_per_group;
	unsigned i;

	for (i = 0; i < m->n_groups; i++)
		if (m->groups[i].group == group)
			return i == 0 && addr % m->pages_per_group < m->first_page_skip ? -1 : (int)i;
	return -1;
}

static uint64_t refs_index(const struct meta *m, uint64_t addr)
{
	int g = meta_space_group_of(m, addr);

	CHECK(g >= 0);
	return (uint64_t)g * m->pages_per_group + addr % m->pages_per_group;
}

static struct page_note *note_get(struct meta *m, uint64_t addr)
{
	struct hash_node *n = hash_find(&m->notes, addr);
	struct page_note *note;

	if (n)
		return container_of(n, struct page_note, node);
	note = xcalloc(1, sizeof(*note));
	list_init(&note->link);
	hash_add(&m->notes, &note->node, addr);
	return note;
}

static void note_put(struct meta *m, struct page_note *note)
{
	if (note->delta || note->candidate || note->quarantine)
		return;
	hash_del(&m->notes, &note->node);
	xfree(note);
}

uint64_t meta_space_alloc(struct meta *m)
{
	struct list *l = list_pop_front(&m->candidates);
	struct page_note *note;

	CHECK(l); /* meta_space_co_refill() was asked for less than was used */
	note = container_of(l, struct page_note, link);
	m->n_candidates--;
	note->candidate = false;
	note->delta++;
	m->groups[meta_space_group_of(m, note->node.key)].used++;
	return note->node.key;
}

void meta_space_free(struct meta *m, uint64_t addr)
{
	struct page_note *note = note_get(m, addr);

	note->delta--;
	if (!note->quarantine)
		m->n_quarantined++;
	note->quarantine = m->epoch;
	m->groups[meta_space_group_of(m, addr)].used--;
}

void meta_space_ref(struct meta *m, uint64_t addr, int delta)
{
	struct page_note *note = note_get(m, addr);

	note->delta += delta;
	note_put(m, note);
	m->n_deltas++;
}

static bool note_release(struct hash_node *n, void *arg)
{
	struct meta *m = arg;
	struct page_note *note = container_of(n, struct page_note, node);

	if (note->quarantine && note->quarantine <= m->published) {
		note->quarantine = 0;
		m->n_quarantined--;
		note_put(m, note);
	}
	return true;
}

void meta_space_published(struct meta *m, uint64_t epoch)
{
	CHECK(m->published == epoch);
	hash_each(&m->notes, note_release, m);
}

uint64_t meta_space_free_pages(const struct meta *m)
{
	uint64_t total = m->n_groups * m->pages_per_group - m->first_page_skip, used = m->n_quarantined;
	unsigned i;

	for (i = 0; i < m->n_groups; i++)
		used += m->groups[i].used;
	return total > used ? total - used : 0;
}

/* Takes the free pages of one leaf of the pagerefs array as candidates. */
static int scan_leaf(struct meta *m, unsigned g, uint64_t leaf)
{
	le32 refs[REFS_PER_LEAF];
	uint64_t i, page, n = MIN(m->pages_per_group - leaf * REFS_PER_LEAF, (uint64_t)REFS_PER_LEAF);
	uint64_t first = g == 0 ? m->first_page_skip : 0, per_group = MAX(m->pages_per_group, REFS_PER_LEAF);
	int r;

	if (m->pages_per_group >= REFS_PER_LEAF) {
		r = meta_array_co_leaf(m->pagerefs, g * (per_group / REFS_PER_LEAF) + leaf, refs);
	} else { /* small groups share leaves */
		le32 all[REFS_PER_LEAF];
		uint64_t idx = (uint64_t)g * m->pages_per_group;

		r = meta_array_co_leaf(m->pagerefs, idx / REFS_PER_LEAF, all);
		memcpy(refs, all + idx % REFS_PER_LEAF, n * sizeof(le32));
	}
	if (r < 0)
		return r;
	for (i = 0; i < n; i++) {
		struct hash_node *h;
		struct page_note *note;

		page = m->groups[g].group * m->pages_per_group + leaf * REFS_PER_LEAF + i;
		if (leaf * REFS_PER_LEAF + i < first || le32_get(refs[i]))
			continue;
		h = hash_find(&m->notes, page);
		if (h) { /* taken, in quarantine, or a candidate already; a page freed and released has no note */
			note = container_of(h, struct page_note, node);
			if (note->candidate || note->quarantine || note->delta)
				continue;
		}
		note = note_get(m, page);
		note->candidate = true;
		list_push_back(&m->candidates, &note->link);
		m->n_candidates++;
	}
	return 0;
}

/* Coroutine. At least `want` candidates, growing the metadata if it must. */
int meta_space_co_refill(struct meta *m, size_t want)
{
	uint64_t leaves = DIV_UP(m->pages_per_group, REFS_PER_LEAF), scanned = 0;
	int r;

	while (m->n_candidates < want) {
		if (scanned > leaves * m->n_groups) {
			r = m->conf.hooks->co_grow ? m->conf.hooks->co_grow(m->conf.ctx) : -ENOSPC;
			if (r < 0)
				return r;
			m->scan_group = m->n_groups - 1;
			m->scan_leaf = 0;
			scanned = 0;
		}
		if (m->groups[m->scan_group].used < m->pages_per_group) {
			r = scan_leaf(m, m->scan_group, m->scan_leaf);
			if (r < 0)
				return r;
			scanned++;
		} else {
			m->scan_leaf = leaves - 1;
			scanned += leaves;
		}
		if (++m->scan_leaf == leaves) {
			m->scan_leaf = 0;
			m->scan_group = (m->scan_group + 1) % m->n_groups;
		}
	}
	return 0;
}

static int fold_one(struct meta *m, struct page_note *note)
{
	uint64_t addr = note->node.key;
	void *entry;
	le32 refs;
	int64_t v;
	int r;

	r = meta_array_co_edit(m->pagerefs, refs_index(m, addr), &entry);
	if (r < 0)
		return r;
	/* The edit may have changed deltas, this one too: read it now, and nothing suspends from here. */
	memcpy(&refs, entry, sizeof(refs));
	v = (int64_t)le32_get(refs) + note->delta;
	if (v < 0 || v > UINT32_MAX)
		return -ERR_FORMAT; /* the count was wrong on disk */
	refs = le32_make((uint32_t)v);
	memcpy(entry, &refs, sizeof(refs));
	note->delta = 0;
	note_put(m, note);
	return 0;
}

/* Notes with a delta; such a note cannot go away before it is folded. The caller frees. */
static struct page_note **fold_collect(struct meta *m, size_t *n)
{
	struct page_note **v = xmalloc((m->notes.count + 1) * sizeof(*v)), *note;
	struct hash_node *h;
	size_t i;

	*n = 0;
	for (i = 0; i < m->notes.n_buckets; i++) {
		for (h = m->notes.buckets[i]; h; h = h->next) {
			note = container_of(h, struct page_note, node);
			if (note->delta)
				v[(*n)++] = note;
		}
	}
	return v;
}

int meta_space_co_fold(struct meta *m)
{
	struct page_note **v;
	size_t n, i;
	int r = 0;

	do {
		v = fold_collect(m, &n);
		for (i = 0; i < n && r == 0; i++) {
			r = meta_space_co_refill(m, m->pagerefs->height + 2u);
			if (r == 0)
				r = fold_one(m, v[i]);
		}
		xfree(v);
	} while (n && r == 0);
	if (r == 0)
		m->n_deltas = 0;
	return r;
}

int meta_co_page_refs(struct meta *m, uint64_t addr, uint32_t *refs)
{
	struct hash_node *n;
	le32 v;
	int r;

	if (meta_space_group_of(m, addr) < 0)
		return -ERR_FORMAT;
	r = meta_array_co_get(m->pagerefs, refs_index(m, addr), &v);
	if (r < 0)
		return r;
	n = hash_find(&m->notes, addr);
	*refs = le32_get(v) + (uint32_t)(n ? container_of(n, struct page_note, node)->delta : 0);
	return 0;
}

int meta_co_each_used_page(struct meta *m, void (*each)(void *arg, uint64_t addr, uint32_t refs), void *arg)
{
	uint64_t i, addr;
	uint32_t refs;
	unsigned g;
	int r;

	for (g = 0; g < m->n_groups; g++) {
		for (i = g == 0 ? m->first_page_skip : 0; i < m->pages_per_group; i++) {
			addr = m->groups[g].group * m->pages_per_group + i;
			r = meta_co_page_refs(m, addr, &refs);
			if (r < 0)
				return r;
			if (refs)
				each(arg, addr, refs);
		}
	}
	return 0;
}
