/*
 * home_internal.h: what the files of the home half of thin/ share. All on the pool's home reactor.
 */
#ifndef THIN_HOME_INTERNAL_H
#define THIN_HOME_INTERNAL_H

#include "thin/thin.h"

#define ALLOC_GROUPS_MAX 64 /* bitmaps kept in memory */
#define ALLOC_RUN 16	    /* what counts as a long run of free clusters: more than a stripe, as a rule */
#define ALLOC_RUN_LOADS 8   /* groups looked into in one search for such a run */

/* A cluster about which more is to be known than its reference count. */
struct cluster_note {
	struct hash_node node; /* by cluster */
	struct list link;      /* freed ones, oldest first */
	bool leased;	       /* handed out, no record applied yet */
	bool freed;	       /* count went to zero by record freed_seq */
	bool durable;	       /* that record is durable */
	/* Map entries that have lost it less the releases that have come: each loss is followed, or preceded, by its release. */
	int unreleased;
	uint64_t freed_seq;
};

/* A group that is being allocated from: one bit per cluster, set: not to be handed out. */
struct alloc_group {
	struct hash_node node; /* by group */
	struct list link;      /* LRU */
	struct thin_class cls;
	unsigned n_free, cursor, run_cursor, users;
	bool loading;
	int load_result;
	struct co_queue loaders;
	uint8_t *busy;
};

struct alloc_class {
	struct thin_class cls;
	uint64_t group;	     /* in use, UINT64_MAX: none */
	uint64_t scan;	     /* where the search for a group goes on */
	bool exhausted;	     /* a whole search has found nothing since the last release */
	uint64_t run_group, run_scan; /* the same for leases of runs */
};

struct thin {
	struct thin_conf conf;
	struct meta *m;
	struct meta_array *refs, *volumes, *stat;
	uint64_t clusters_per_group;
	struct hash vols_by_id;
	struct list vols;
	uint64_t next_id;
	unsigned n_live;

	/* Clusters with references more than their stored counts say: leaves that were copied have added them. */
	struct hash deltas;
	unsigned n_deltas;
	uint64_t lost_seq; /* newest record that took a reference from a cluster that has others left */

	struct hash notes;
	struct list freed; /* notes in order of freed_seq */
	struct hash groups;
	struct list groups_lru;
	unsigned n_groups;
	struct alloc_class classes[32];
	unsigned n_classes;
	struct co_mutex alloc_mutex;
	uint64_t clusters_total, clusters_used; /* of data groups, kept by apply; stored in the pool's root */
	bool copied; /* clusters have been shared by a copy since the pool was opened */
	bool full;  /* somebody was refused since space last came */
	bool tight; /* no further group could be made when last tried */
	unsigned n_quarantine; /* notes of freed clusters */
	unsigned n_starving;   /* wait for one of them */
	struct co_queue starving;

	bool started, stopping, replaying;
	struct co_queue reaper; /* deletes leaves of deleted volumes */
	bool reaper_runs;
	struct co_queue reaper_end;
	struct thin_reactor *reactors[REACTORS_MAX];
};

/* alloc.c */
void thin_alloc_init(struct thin *t);
void thin_alloc_fini(struct thin *t);
int thin_alloc_co_lease(struct thin *t, struct thin_class cls, bool runs, uint64_t *clusters, unsigned *n) __must_check;
void thin_alloc_return(struct thin *t, uint64_t cluster);
void thin_alloc_release(struct thin *t, uint64_t cluster);
void thin_alloc_used(struct thin *t, uint64_t cluster);			/* count became 1 */
void thin_alloc_lost(struct thin *t, uint64_t cluster);			/* by an open volume's entry: its release is to come */
int thin_alloc_freed(struct thin *t, uint64_t cluster, uint64_t seq) __must_check; /* count became 0; after thin_alloc_lost() */
bool thin_alloc_is_held(struct thin *t, uint64_t cluster);		/* leased or in quarantine */

/* What thin_n_vols() counts. */
static inline unsigned thin_vol_counts(const struct thin_vol *v)
{
	return v->state == THIN_VOLUME_LIVE && v->kind == THIN_KIND_VOLUME;
}

/* refs.c */
#define THIN_DELTAS_MAX 1024
void thin_refs_init(struct thin *t);
void thin_refs_fini(struct thin *t);
/* Coroutine, inside co_apply. released: (delta < 0) no open volume has it, nobody will say that requests have ended. */
int thin_ref_co_change(struct thin *t, uint64_t cluster, int delta, uint64_t seq, bool released) __must_check;
/* Inside co_apply, does not suspend. The cluster, which has a reference, has one more. */
void thin_ref_add(struct thin *t, uint64_t cluster);
/* Coroutine, inside co_apply or co_store. Stored counts become true. */
int thin_refs_co_fold(struct thin *t) __must_check;
/* Coroutine, any time. */
int thin_ref_co_get(struct thin *t, uint64_t cluster, uint32_t *count) __must_check;

/* family.c: records */
int thin_apply_copy(struct thin *t, const void *payload, size_t len) __must_check;
int thin_apply_rollback(struct thin *t, const void *payload, size_t len) __must_check;
int thin_apply_received(struct thin *t, const void *payload, size_t len) __must_check;
/* Inside co_apply. The snapshot goes, or has gone: whoever began with it began with what it had begun with. */
void thin_prev_forget(struct thin *t, struct thin_vol *snapshot);
/* Inside co_apply. The volumes exchange maps, and what counts of them; the counters of the whole are the caller's. */
void thin_vol_exchange(struct thin *t, struct thin_vol *a, struct thin_vol *b);

/* family.c. Coroutines: on the volume's reactor, if it is open; see thin.h. */
void thin_vol_co_freeze(struct thin *t, struct thin_vol *v, bool reads);
/* With reads. False: somebody has frozen it so already. */
bool thin_vol_co_freeze_unless(struct thin *t, struct thin_vol *v);
/* It has another map, of this size and layout; thaw: it goes on. */
void thin_vol_co_replaced(struct thin *t, struct thin_vol *v, uint64_t size_bytes, struct thin_class cls, bool thaw);

/* move.c: records */
int thin_apply_move(struct thin *t, const void *payload, size_t len) __must_check;

/* apply.c */
struct thin_vol *thin_vol_new(struct thin *t, uint64_t id);
void thin_vol_encode(const struct thin_vol *v, struct thin_volume_disk *d);
int thin_vol_decode(struct thin *t, const struct thin_volume_disk *d, struct thin_vol **out) __must_check;
void thin_vol_free(struct thin *t, struct thin_vol *v);
/* Could this entry have been made by us? From disk, every field is suspect. */
bool thin_entry_is_valid(const struct thin *t, const struct thin_entry *e);

/* merge.c */
/* Coroutine: the reaper's. Goes over the leaves before `end` of the volumes of a family of which something has been deleted. -EAGAIN:
 * there is something else to be deleted first; -EBUSY: a volume is leaving, or the pool stops; else an error: the pool stops. */
int thin_merge_co_family(struct thin *t, uint64_t family, uint64_t end) __must_check;

/* home.c */
/* For a new volume, on the home reactor of `like` if that is not 0. */
uint64_t thin_id_new(struct thin *t, uint64_t like);
void thin_reaper_wake(struct thin *t);
/* Coroutine: the reaper's, between two leaves. The last one has kept it since began_ns: clients of the same disks and the same
 * reactor have their turn now, for several times as long, unless somebody wants the space that it frees. */
void thin_reaper_co_rest(struct thin *t, uint64_t began_ns);
/* Is there something deleted that still has a map? */
bool thin_reaper_has_more(struct thin *t);

/* calls.c */
/* Clusters may have become unshared: volumes that care look again. */
void thin_unshared(struct thin *t);

#endif
