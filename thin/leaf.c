/*
 * leaf.c: the leaf cache: copies of map leaves of all volumes of a reactor, within a limit.
 *
 * A change of an entry is handed in as a record in the same step, and home loads a leaf with all records handed in before,
 * so any leaf without pins may be dropped at any time. Pins keep leaves whose entries carry a cluster that has been leased
 * but not recorded yet (write.c), so the limit can be passed by what the requests in flight hold.
 *
 * Eviction is by a clock: a lookup sets one flag, nothing moves.
 */
#include "engine/base/mutant.h"
#include "thin/volume_internal.h"

static struct thin_leaf *leaf_any(struct thin_volume *v, uint64_t leaf)
{
	struct hash_node *n = hash_find(&v->leaves, leaf);

	return n ? container_of(n, struct thin_leaf, node) : NULL;
}

static void leaf_set_shared(struct thin_leaf *l)
{
	unsigned i;

	l->share_epoch = l->v->share_epoch;
	l->unshare_gen = l->v->tr->unshare_gen; /* exact enough */
	for (i = 0; i < THIN_MAP_PER_LEAF; i++) {
		struct thin_entry e = thin_entry_load(&l->entries[i]);

		if (!e.own)
			continue;
		e.shared = true;
		thin_entry_store(&e, &l->entries[i]);
	}
}

/* A snapshot marks nothing: whoever looks a leaf up finds out that it is of before. */
static inline void leaf_freshen(struct thin_leaf *l)
{
	if (unlikely(l->share_epoch != l->v->share_epoch))
		leaf_set_shared(l);
}

struct thin_leaf *thin_leaf_find(struct thin_volume *v, uint64_t leaf)
{
	struct thin_leaf *l = leaf_any(v, leaf);

	if (!l || l->loading)
		return NULL;
	leaf_freshen(l);
	l->used = true;
	v->last = l;
	return l;
}

bool thin_leaf_is_known(struct thin_volume *v, uint64_t leaf)
{
	return leaf_any(v, leaf) != NULL;
}

static void leaf_free(struct thin_leaf *l)
{
	struct thin_volume *v = l->v;

	CHECK(!l->pins && co_queue_is_empty(&l->loaders));
	if (v->last == l)
		v->last = NULL;
	hash_del(&v->leaves, &l->node);
	list_del(&l->lru);
	list_del(&l->link);
	v->tr->n_leaves--;
	xfree(l);
}

/* Makes room for one more, if it can be made. */
static void leaves_trim(struct thin_reactor *tr)
{
	unsigned steps = 2 * tr->n_leaves;
	struct thin_leaf *l;

	while (tr->n_leaves >= tr->max_leaves && steps-- > 0) {
		l = list_first(&tr->lru, struct thin_leaf, lru);
		if (!l->used && !l->pins && !l->loading) {
			leaf_free(l);
			continue;
		}
		l->used = l == l->v->last; /* that one is used without the flag being set */
		list_del(&l->lru);
		list_push_back(&tr->lru, &l->lru);
		if (l->v->last == l)
			l->v->last = NULL;
	}
}

static struct thin_leaf *leaf_new(struct thin_volume *v, uint64_t leaf)
{
	struct thin_leaf *l;

	leaves_trim(v->tr);
	l = xmalloc(sizeof(*l));
	l->v = v;
	l->used = l->loading = true;
	l->pins = 0;
	l->sharing = l->marks = 0;
	l->dropped = false;
	l->share_epoch = v->share_epoch;
	l->unshare_gen = 0;
	co_queue_init(&l->loaders);
	hash_add(&v->leaves, &l->node, leaf);
	list_push_back(&v->tr->lru, &l->lru);
	list_push_back(&v->leaf_list, &l->link);
	v->tr->n_leaves++;
	return l;
}

void thin_leaves_set_shared(struct thin_volume *v)
{
	v->share_epoch++;
	v->last = NULL;
}

void thin_leaves_forget(struct thin_volume *v)
{
	struct thin_leaf *l, *next;

	if (MUTANT(ROLLBACK_KEEPS_LEAVES))
		return;
	list_for_each_safe (l, next, &v->leaf_list, link) {
		l->dropped = l->loading;
		if (!l->loading)
			leaf_free(l);
	}
}

int thin_leaf_co_refresh(struct thin_leaf *l)
{
	struct thin_entry_disk *d = xmalloc(sizeof(l->entries));
	uint64_t gen = l->v->tr->unshare_gen;
	unsigned marks = l->marks, i;
	int r = thin_co_leaf(l->v->t, l->v->id, l->node.key, true, d);

	if (r >= 0 && (l->sharing || l->marks != marks)) { /* it may be of before that: what is shared stays so, for now */
		xfree(d);
		return 0;
	}
	for (i = 0; i < THIN_MAP_PER_LEAF && r == 0; i++) {
		struct thin_entry e = thin_entry_load(&l->entries[i]), x = thin_entry_load(&d[i]);

		if (!e.shared || x.shared || e.own != x.own)
			continue;
		e.shared = false;
		thin_entry_store(&e, &l->entries[i]);
	}
	if (r >= 0)
		l->unshare_gen = gen;
	xfree(d);
	return r < 0 ? r : 0;
}

int thin_leaf_co_get(struct thin_volume *v, uint64_t leaf, struct thin_leaf **out)
{
	struct thin_leaf *l;
	int r;

	while ((l = leaf_any(v, leaf))) {
		if (!l->loading) {
			leaf_freshen(l);
			l->used = true;
			*out = l;
			return 0;
		}
		co_queue_wait(&l->loaders); /* it may be gone then */
	}
	l = leaf_new(v, leaf);
	do {
		l->dropped = false;
		r = thin_co_leaf(v->t, v->id, leaf, false, l->entries);
	} while (l->dropped);
	l->loading = false;
	leaf_freshen(l);
	co_queue_wake_all(&l->loaders);
	if (r < 0) {
		leaf_free(l);
		return r;
	}
	*out = l;
	return 0;
}

void thin_leaves_drop(struct thin_volume *v)
{
	while (!list_is_empty(&v->leaf_list))
		leaf_free(list_first(&v->leaf_list, struct thin_leaf, link));
}
