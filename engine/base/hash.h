/*
 * hash.h: intrusive hash table with chaining; keys are 64-bit numbers (hash_mix() them from more). Grows by itself.
 *
 * The owner keeps the key in the node and compares what else it must. Iteration order is the insertion history's, never
 * a pointer's: the same operations give the same order in every run.
 */
#ifndef ENGINE_BASE_HASH_H
#define ENGINE_BASE_HASH_H

#include "engine/base/base.h"

struct hash_node {
	struct hash_node *next;
	uint64_t key;
};

struct hash {
	struct hash_node **buckets;
	size_t n_buckets; /* power of two */
	size_t count;
};

void hash_init(struct hash *h);
void hash_fini(struct hash *h); /* frees the buckets, not the nodes */
void hash_add(struct hash *h, struct hash_node *n, uint64_t key);
void hash_del(struct hash *h, struct hash_node *n);

static inline uint64_t hash_mix(uint64_t x)
{
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ULL;
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ULL;
	return x ^ (x >> 32);
}

/* First node with this key, or NULL. */
static inline struct hash_node *hash_find(const struct hash *h, uint64_t key)
{
	struct hash_node *n;

	if (!h->n_buckets)
		return NULL;
	for (n = h->buckets[hash_mix(key) & (h->n_buckets - 1)]; n; n = n->next)
		if (n->key == key)
			return n;
	return NULL;
}

/* Next node with the same key as n, or NULL. */
static inline struct hash_node *hash_next(const struct hash_node *n)
{
	uint64_t key = n->key;

	for (n = n->next; n; n = n->next)
		if (n->key == key)
			return (struct hash_node *)n;
	return NULL;
}

/* Calls fn for every node; fn may delete the node it is given (and no other). Stops when fn returns false. */
void hash_each(struct hash *h, bool (*fn)(struct hash_node *n, void *arg), void *arg);

#endif
