#include "engine/base/hash.h"

void hash_init(struct hash *h)
{
	*h = (struct hash){ 0 };
}

void hash_fini(struct hash *h)
{
	xfree(h->buckets);
	*h = (struct hash){ 0 };
}

static void hash_grow(struct hash *h)
{
	size_t n = h->n_buckets ? h->n_buckets * 2 : 16, i;
	struct hash_node **b = xcalloc(n, sizeof(*b)), *node, *next, **tail;

	for (i = 0; i < h->n_buckets; i++) {
		for (node = h->buckets[i]; node; node = next) {
			next = node->next;
			tail = &b[hash_mix(node->key) & (n - 1)];
			while (*tail)
				tail = &(*tail)->next;
			node->next = NULL;
			*tail = node;
		}
	}
	xfree(h->buckets);
	h->buckets = b;
	h->n_buckets = n;
}

void hash_add(struct hash *h, struct hash_node *n, uint64_t key)
{
	struct hash_node **b;

	if (h->count >= h->n_buckets)
		hash_grow(h);
	n->key = key;
	b = &h->buckets[hash_mix(key) & (h->n_buckets - 1)];
	n->next = *b;
	*b = n;
	h->count++;
}

void hash_del(struct hash *h, struct hash_node *n)
{
	struct hash_node **p = &h->buckets[hash_mix(n->key) & (h->n_buckets - 1)];

	while (*p != n) {
		CHECK(*p);
		p = &(*p)->next;
	}
	*p = n->next;
	n->next = NULL;
	h->count--;
}

void hash_each(struct hash *h, bool (*fn)(struct hash_node *n, void *arg), void *arg)
{
	struct hash_node *n, *next;
	size_t i;

	for (i = 0; i < h->n_buckets; i++) {
		for (n = h->buckets[i]; n; n = next) {
			next = n->next;
			if (!fn(n, arg))
				return;
		}
	}
}
