/*
 * meta.h: crash-consistent metadata of one pool: persistent sparse arrays, journal, checkpoints.
 *
 * The metadata is a state machine. Its state is a set of sparse arrays (radix trees of checksummed 4 KiB pages, copied on
 * write); what changes it are records, applied strictly in order by one coroutine. A record is durable once the journal
 * block that holds it is (meta_co_commit), or once a checkpoint that includes it is. A checkpoint writes the changed pages
 * to free space and has the owner switch the root atomically (co_publish: the labels). Opening is: the checkpoint's root,
 * then the records of the journal behind it, applied by the same function. So a record needs not be idempotent, and the
 * state after a crash is always that of a prefix of the records, at least up to the newest commit.
 *
 * Data before metadata: a record must be handed in only after the data it refers to has been written; a commit flushes all
 * disks (co_flush) before the journal block goes out with FUA, and so does a checkpoint before it publishes.
 *
 * Context: all on the pool's home reactor; _co_ functions in coroutines. Errors: -ERR_CSUM if no copy of a page verifies;
 * after a failure that leaves the state uncertain the store is failed (meta_is_failed) and answers -ERR_POOL_FAILED.
 */
#ifndef ENGINE_META_META_H
#define ENGINE_META_META_H

#include "engine/base/hash.h"
#include "engine/io/bdev.h"
#include "engine/meta/meta_format.h"

struct meta;

struct meta_ptr {
	uint64_t addr; /* 0: hole */
	uint32_t crc, birth;
};

/* A sparse array. Embedded by its owner; all zero entries read as zeros and cost nothing. */
struct meta_array {
	struct meta *m;
	struct meta_ptr root;
	uint8_t height, entry_log2;
	bool is_map;	     /* root kept by the owner (co_store), not in the root page */
	bool dirty;	     /* has pages of the current epoch */
	uint64_t version;    /* counts changes of shape; readers retry by it */
	struct list link;    /* on the store's list of dirty arrays */
	uint32_t shared_birth; /* pages born up to then may belong to other arrays too; 0: no page does */
	/* Does not suspend; may be NULL; set again after meta_array_load(). A leaf born up to shared_birth has been made
	 * writable: `page` is the copy that will be changed. shared: other arrays go on having the old one. */
	void (*leaf_copied)(struct meta_array *a, void *page, bool shared);
};

struct meta_root_info {
	uint64_t addr;
	uint32_t crc;
	uint64_t checkpoint;
	bool clean; /* close: nothing to replay, nothing to resync */
	uint64_t epoch;
};

struct meta_hooks {
	/* Coroutine. Applies one record to the arrays and to the owner's memory. Also during replay. An error is fatal. */
	int (*co_apply)(void *ctx, unsigned type, const void *payload, size_t len, uint64_t seq);
	/* Coroutine; no record is being applied. Puts what the owner keeps in memory (volume roots, counters) into arrays
	 * and `owner` (META_OWNER_BYTES in the root page). Map arrays have final roots by now. */
	int (*co_store)(void *ctx, uint8_t *owner);
	/* Coroutine. Makes the root durable as the pool's word (labels). */
	int (*co_publish)(void *ctx, const struct meta_root_info *root);
	/* Coroutine. Flushes every disk that has anything to flush. */
	int (*co_flush)(void *ctx);
	/* Coroutine. Adds a metadata group with meta_group_add(); -ENOSPC if there is no room. */
	int (*co_grow)(void *ctx);
	/* Does not suspend. All records up to seq are durable now. */
	void (*durable)(void *ctx, uint64_t seq);
	/* Does not suspend. A bad copy of a page was found and (repaired) rewritten. */
	void (*page_repaired)(void *ctx, uint64_t addr, bool repaired);
	/* Does not suspend. The store has failed. */
	void (*failed)(void *ctx, int error, const char *why);
};

struct meta_conf {
	struct bdev *dev;	 /* the pool's logical space; copies > 1 */
	struct uuid pool;
	uint64_t group_bytes;
	uint64_t journal_off, journal_bytes; /* in the logical space, inside the first metadata group */
	uint64_t cache_bytes;	 /* limit for page memory */
	uint64_t checkpoint_ns;	 /* longest time between checkpoints while there are changes; 0: 10 s */
	bool read_only;
	struct world *world;
	char keep[64];		 /* name of the memory in which the journal's tail outlives a killed process (tail.h); "": none */
	const struct meta_hooks *hooks;
	void *ctx;
};

struct meta *meta_open(const struct meta_conf *c);
/* Names a metadata group: its pages may be used. In label order, before meta_co_load() or meta_co_format(). Later: by
 * co_grow. */
void meta_group_add(struct meta *m, uint64_t group);
unsigned meta_n_groups(const struct meta *m);

/* System arrays, by number; fixed entry size (log2 of bytes, 2..10). Before load or format. */
struct meta_array *meta_system_array(struct meta *m, unsigned id, unsigned entry_log2);
#define META_ARRAY_PAGEREFS 0 /* the store's own */

/* Coroutine. A fresh store: no arrays, empty journal; not durable before the first checkpoint. epoch: 1. */
int meta_co_format(struct meta *m) __must_check;
/* Coroutine. Reads the root page. `owner` gets META_OWNER_BYTES. */
int meta_co_load(struct meta *m, uint64_t root_addr, uint32_t root_crc, uint64_t epoch, uint8_t *owner, struct err *e) __must_check;
/* Coroutine. Applies the journal. *n_records counts. -ERR_CSUM: a damaged block with whole ones behind it: acknowledged
 * changes would be lost, so nothing is dropped silently. */
int meta_co_replay(struct meta *m, uint64_t *n_records, struct err *e) __must_check;
/* Coroutine. Starts applier, committer, checkpointer (not when read-only); new epoch; writes a checkpoint first. */
int meta_co_start(struct meta *m) __must_check;
/* Coroutine. Stops them; with a last checkpoint if the store has not failed (clean: marks the pool clean). */
int meta_co_stop(struct meta *m, bool clean);
/* Frees all. After stop, or when never started. */
void meta_close(struct meta *m);

/* ---- records ---- */

/* Coroutine. Waits until the journal has room for about `bytes` more of records. grow: the caller's records will add
 * pages; -ENOSPC if the store is at its reserve and cannot grow. */
int meta_co_admit(struct meta *m, size_t bytes, bool grow) __must_check;
/* Hands in a record; does not suspend; returns its sequence number. It will be applied in order soon. */
uint64_t meta_record(struct meta *m, unsigned type, const void *payload, size_t len);
/* What a reactor other than home hands in, so that it outlives a kill on its way: any reactor, in order with the messages that carry it.
 * Home, where it has become a record, gives back what this gave. */
struct meta_hand {
	unsigned reactor;
	uint64_t pos; /* 0: there was no room, or nothing is kept */
};
struct meta_hand meta_hand_put(struct meta *m, unsigned type, const void *payload, size_t len);
uint64_t meta_record_by(struct meta *m, unsigned type, const void *payload, size_t len, const struct meta_hand *by);
/* Is the journal's tail kept? */
bool meta_is_kept(const struct meta *m);
/* Coroutine. Waits until records up to seq are applied / durable. Commit asks for it now rather than within a second;
 * it has flushed every disk first. */
int meta_co_wait_applied(struct meta *m, uint64_t seq) __must_check;
int meta_co_commit(struct meta *m, uint64_t seq) __must_check;
uint64_t meta_last_seq(const struct meta *m);
uint64_t meta_applied_seq(const struct meta *m);
uint64_t meta_durable_seq(const struct meta *m);
/* Coroutine. A checkpoint that includes at least all records handed in so far. */
int meta_co_checkpoint(struct meta *m) __must_check;
bool meta_is_failed(const struct meta *m);
void meta_fail(struct meta *m, int error, const char *why);

/* ---- arrays ---- */

void meta_array_init(struct meta_array *a, struct meta *m, unsigned entry_log2);
/* For map arrays, by their owner. */
void meta_array_store(const struct meta_array *a, struct meta_array_disk *out);
int meta_array_load(struct meta_array *a, struct meta *m, const struct meta_array_disk *in) __must_check;
static inline unsigned meta_array_per_leaf(const struct meta_array *a) { return META_PAGE_BYTES >> a->entry_log2; }

/* Coroutine; any time. Copies one entry / one whole leaf page (1: it is a hole, buf zeroed; 0: it is not). */
int meta_array_co_get(struct meta_array *a, uint64_t idx, void *entry) __must_check;
int meta_array_co_leaf(struct meta_array *a, uint64_t leaf, void *page) __must_check;
/* Coroutine. First leaf number >= *leaf that is not a hole: 0, or -ENOENT. */
int meta_array_co_next_leaf(struct meta_array *a, uint64_t *leaf) __must_check;
/* Coroutine; only inside co_apply or co_store. Writes one entry; a leaf that becomes all zeros is freed. */
int meta_array_co_set(struct meta_array *a, uint64_t idx, const void *entry) __must_check;
/* Coroutine, likewise. A pointer to the entry in a page of the current epoch, to be read and changed in place before the
 * next suspension. Never frees the leaf. */
int meta_array_co_edit(struct meta_array *a, uint64_t idx, void **entry) __must_check;
/* Coroutine, likewise. Frees leaf `leaf` and what above it becomes empty. */
int meta_array_co_drop_leaf(struct meta_array *a, uint64_t leaf) __must_check;

/* ---- arrays that share pages (map arrays only; share.c) ---- */

/* Only inside co_apply; does not suspend. dst, which is empty, becomes what src is at this moment. They share every page until
 * one of them changes it: costs the checksums of what src has dirty, whatever its size. */
void meta_array_share(struct meta_array *src, struct meta_array *dst);
/* Likewise. dst, which is empty, takes the tree of src, which is empty then. */
void meta_array_move(struct meta_array *src, struct meta_array *dst);
/* Coroutine, only inside co_apply. Takes leaf `leaf`, which is not a hole, out of the array, or more: the largest subtree with it
 * that other arrays have too. 1: such a subtree is gone from this array, nobody lost anything; 0: the leaf was this array's
 * alone, its contents are in `page`. */
int meta_array_co_cut(struct meta_array *a, uint64_t leaf, void *page) __must_check;
/* Coroutine; any time. As meta_array_co_leaf(); *owner: who else has it. */
enum meta_owner {
	META_OWN,	/* made by this array since it was last shared */
	META_INHERITED, /* older; nobody else has it now */
	META_SHARED,	/* other arrays have it too */
};
int meta_array_co_leaf_owner(struct meta_array *a, uint64_t leaf, void *page, enum meta_owner *owner) __must_check;
/* Coroutine; any time. What differs between two arrays of one origin, without looking at what they share: the next leaf >= *leaf
 * whose page is not the same in both. -ENOENT: there is none. */
int meta_array_co_next_different(struct meta_array *a, struct meta_array *b, uint64_t *leaf) __must_check;

/* Coroutine; any time. The next leaf >= *leaf that no other array has, and its contents. -ENOENT. */
int meta_array_co_next_alone(struct meta_array *a, uint64_t *leaf, void *page) __must_check;
/* Coroutine, under meta_co_pause(). Each leaf that these arrays have, and nobody else, once. */
int meta_co_each_alone(struct meta_array *const *a, unsigned n, int (*co_leaf)(void *arg, const void *page), void *arg) __must_check;

/* ---- for pool check ---- */

/* Coroutine. Walks the pages of an array, verifying each copy of each page on disk that is not newer in memory. Calls
 * page() for each page address (level 0 = leaf); false: what is below has been seen, by way of another array. left(), which may
 * be NULL, after all below a page has been seen (not called where page() said false). bad() for each damaged copy. */
struct meta_walk {
	bool (*page)(void *arg, uint64_t addr, unsigned level);
	void (*left)(void *arg, uint64_t addr, unsigned level);
	/* May be NULL: the contents of a leaf, before left(). */
	int (*co_leaf)(void *arg, uint64_t leaf, const void *page);
	void (*bad)(void *arg, uint64_t addr, unsigned copy, int error);
	void *arg;
};
int meta_array_co_walk(struct meta_array *a, const struct meta_walk *w) __must_check;
/* Coroutine. Stops applying (all handed-in records are in) until resumed: a steady state to look at. */
int meta_co_pause(struct meta *m) __must_check;
void meta_resume(struct meta *m);
/* Reference count of a page as of now, unwritten changes included. */
int meta_co_page_refs(struct meta *m, uint64_t addr, uint32_t *refs) __must_check;
/* Calls each() for every page number of the metadata groups with a count other than zero. Coroutine. */
int meta_co_each_used_page(struct meta *m, void (*each)(void *arg, uint64_t addr, uint32_t refs), void *arg) __must_check;
uint64_t meta_root_addr(const struct meta *m);
/* i-th system array that has been declared, NULL beyond the last. */
struct meta_array *meta_system_array_at(struct meta *m, unsigned i);

struct meta_stats {
	uint64_t cache_bytes, cache_limit_bytes, dirty_bytes;
	uint64_t pages_used, pages_total;
	uint64_t checkpoints, commits, records, page_reads, page_writes, journal_bytes_written, repaired;
	uint64_t journal_used_bytes, journal_bytes;
};
void meta_stats_get(const struct meta *m, struct meta_stats *out);

#endif
