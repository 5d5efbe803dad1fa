/*
 * meta_internal.h: what the files of engine/meta share.
 */
#ifndef ENGINE_META_META_INTERNAL_H
#define ENGINE_META_META_INTERNAL_H

#include "engine/meta/meta.h"
#include "engine/meta/tail.h"

/* A page in memory. Dirty pages of the current epoch may be changed; frozen ones (of the epoch that a checkpoint is
 * writing) and clean ones may not: they are shadowed. */
enum page_state { PAGE_LOADING, PAGE_CLEAN, PAGE_DIRTY, PAGE_FROZEN };

struct mpage {
	struct hash_node node; /* key: addr */
	struct list link;      /* clean: LRU; dirty: m->dirty; frozen: m->frozen */
	uint64_t addr;
	uint8_t *data;
	unsigned pins;
	uint32_t birth; /* dirty, frozen: m->birth when it was made */
	uint8_t state, level;
	bool hashed; /* found by its address; false: superseded, dropped as soon as nobody holds it */
	uint16_t slot;	      /* dirty: place in the parent */
	struct mpage *parent; /* dirty: parent page, dirty as well; NULL: root of array */
	struct meta_array *array; /* dirty: whose it is; NULL: not to be changed any more (shared, or the root page) */
	struct co_queue loaders;
	int load_result;
};

/* What is known about a metadata page number beyond the pagerefs array. */
struct page_note {
	struct hash_node node;
	struct list link;     /* candidate: m->candidates */
	int32_t delta;	      /* not yet in the array */
	bool candidate;	      /* known to be free */
	uint64_t quarantine;  /* freed in this epoch; not to be used before that epoch is published (0: no) */
};

struct meta_group {
	uint64_t group;
	uint32_t used; /* pages */
};


struct journal_extent { /* a block on disk, or being written */
	struct list link;
	uint64_t pos, bytes, block, first_seq, last_seq;
	uint32_t prev_crc;
};

struct journal {
	uint64_t pos;	     /* next block goes here */
	uint64_t block;	     /* its number */
	uint32_t prev_crc;
	struct list blocks;  /* struct journal_extent, oldest first; not yet freed by a checkpoint */
	uint64_t used_bytes;
	struct list unwritten; /* records not yet in a block, a second list of struct pending */
	size_t unwritten_bytes;
	uint64_t last_seq, durable_seq;
	bool commit_wanted;
	struct co_queue committer; /* committer sleeps here */
	struct co_queue waiters;   /* of durable_seq */
	struct co_queue room;	   /* of space */
	uint64_t commits, bytes_written;
};

struct pending { /* one record, on two lists */
	struct list apply_link, write_link;
	uint64_t seq;
	unsigned refs;
	uint16_t type, len;
	uint8_t payload[];
};

struct meta {
	struct meta_conf conf;
	struct meta_array arrays[META_ARRAYS_MAX];
	struct meta_array *pagerefs;
	struct list dirty_arrays;

	/* cache */
	struct hash pages;
	struct list lru; /* oldest first */
	struct list dirty, frozen;
	size_t n_pages, n_dirty, n_frozen, max_pages, max_dirty;
	struct co_queue dirty_room;
	struct list slabs;
	void *free_data; /* freelist of 4 KiB pieces, linked through their first word */

	/* space */
	struct meta_group groups[META_GROUPS_MAX];
	unsigned n_groups;
	uint64_t pages_per_group, first_page_skip;
	struct hash notes;
	struct list candidates;
	size_t n_candidates, n_quarantined, n_deltas; /* deltas: counts changed by sharing, at most, since the last fold */
	unsigned scan_group;
	uint64_t scan_leaf;
	bool growing;

	/* journal and apply */
	struct journal j;
	struct meta_tail *tail;
	struct list to_apply;
	uint64_t applied_seq;
	struct co_queue applier;
	struct co_queue applied_waiters;
	struct co_mutex mutate; /* held while a record is applied, and by the checkpoint while it freezes */

	/* checkpoint */
	uint64_t epoch;	     /* number of the checkpoint being collected = last one + 1 */
	uint32_t birth;	     /* of pages made now; counts checkpoints and sharings */
	uint64_t open_epoch; /* of the journal */
	uint64_t published;  /* newest durable checkpoint */
	uint64_t published_seq;
	uint64_t root_addr;
	uint64_t checkpoint_wanted; /* run until published >= this */
	uint64_t last_checkpoint_ns;
	struct co_queue checkpointer, checkpoint_waiters;
	struct meta_root_disk *root;

	bool started, stopping, failed, clean;
	unsigned services; /* coroutines alive */
	struct co_queue service_end;
	uint64_t page_reads, page_writes, repaired, checkpoints, records;
};

/* cache.c */
int meta_page_co_get(struct meta *m, const struct meta_ptr *p, unsigned level, struct mpage **out) __must_check; /* pinned */
void meta_page_put(struct meta *m, struct mpage *pg);
/* A new dirty page at a fresh address, zeroed or a copy; pinned. Needs a candidate (meta_space_co_refill). */
struct mpage *meta_page_new(struct meta *m, struct meta_array *a, unsigned level, const uint8_t *copy_of);
/* A page is no longer referenced: its address goes to quarantine. */
void meta_page_drop_addr(struct meta *m, uint64_t addr);
void meta_page_written(struct meta *m, struct mpage *pg);
void meta_cache_init(struct meta *m);
void meta_cache_fini(struct meta *m);
void meta_cache_shrink(struct meta *m);
int meta_page_co_read_verified(struct meta *m, const struct meta_ptr *p, uint8_t *data) __must_check;

/* space.c */
void meta_space_init(struct meta *m);
void meta_space_fini(struct meta *m);
int meta_space_co_refill(struct meta *m, size_t want) __must_check;
uint64_t meta_space_alloc(struct meta *m);
/* The last reference is gone. */
void meta_space_free(struct meta *m, uint64_t addr);
/* One more, one less of several. */
void meta_space_ref(struct meta *m, uint64_t addr, int delta);
/* Puts all deltas into the pagerefs array, until there are none. */
int meta_space_co_fold(struct meta *m) __must_check;
void meta_space_published(struct meta *m, uint64_t epoch);
uint64_t meta_space_free_pages(const struct meta *m);
/* Free pages that only changes which add nothing may use: two epochs of dirty pages, and what folding their counts takes. */
static inline uint64_t meta_space_reserve(const struct meta *m) { return 4 * m->max_dirty + 128; }
/* Leaves of the pagerefs array that a checkpoint may have to shadow. */
static inline size_t meta_space_fold_pages(const struct meta *m)
{
	uint64_t leaves = m->n_groups * DIV_UP(m->pages_per_group, META_PAGE_BYTES / 4);

	return MIN(m->n_dirty + m->n_deltas, leaves) + 2 * META_HEIGHT_MAX;
}
int meta_space_group_of(const struct meta *m, uint64_t addr);

/* array.c */
void meta_ptr_store(const struct meta_ptr *p, struct meta_ptr_disk *out);
void meta_ptr_load(const struct meta_ptr_disk *in, struct meta_ptr *out);
static inline bool meta_ptr_is_hole(const struct meta_ptr *p) { return p->addr == 0; }
/* Can this array change the page as it is? */
static inline bool meta_page_is_mine(const struct meta_array *a, const struct mpage *pg)
{
	return pg->state == PAGE_DIRTY && pg->array == a;
}
/* Makes pg (pinned; refs as from meta_page_co_refs()) writable: itself if it is mine, else a copy at a new address. The caller
 * points to it. */
struct mpage *meta_page_shadow(struct meta_array *a, struct mpage *pg, uint32_t birth, uint32_t refs);
/* Puts a hole in place of the page below `parent` (pinned, mine; NULL: the root), prunes what becomes empty, unpins. */
void meta_array_punch(struct meta_array *a, struct mpage *parent, unsigned slot);
void meta_array_point(struct meta_array *a, struct mpage *parent, unsigned slot, struct mpage *child);
static inline unsigned meta_slot_of(uint64_t leaf, unsigned level)
{
	return (unsigned)(leaf >> (8 * (level - 1))) & (META_FANOUT - 1);
}
struct meta_ptr meta_slot_get(const uint8_t *data, unsigned slot);
/* Checksums of dirty pages of one array. */
void meta_array_seal_one(struct meta_array *a);
/* share.c. Coroutine. How many arrays or pages refer to the page that p, of this array, points to. */
int meta_page_co_refs(struct meta_array *a, const struct meta_ptr *p, uint32_t *refs) __must_check;
/* Checksums of all dirty pages of arrays with is_map == maps, leaves first; roots get theirs. */
void meta_array_seal(struct meta *m, bool maps);

/* journal.c */
void meta_journal_init(struct meta *m);
void meta_journal_fini(struct meta *m);
void meta_journal_co_committer(void *arg);
void meta_journal_freed(struct meta *m, uint64_t seq);
/* Where replay must start for a checkpoint that includes all records up to seq. */
void meta_journal_start_of(const struct meta *m, uint64_t seq, uint64_t *pos, uint64_t *block, uint32_t *prev_crc);
void meta_pending_put(struct pending *p);

/* checkpoint.c */
void meta_checkpoint_co_run(void *arg);
void meta_checkpoint_want(struct meta *m);
void meta_apply_co_run(void *arg);
int meta_apply_co_one(struct meta *m, unsigned type, const void *payload, size_t len, uint64_t seq) __must_check;

#endif
