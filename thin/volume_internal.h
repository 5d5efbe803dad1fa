/*
 * volume_internal.h: what the files of the volume half of thin/ share. All on the volume's home reactor, no locks.
 *
 *   reactor_state.c  what the volumes of one reactor share: leases, record credits, the limit of the leaf cache
 *   leaf.c           the leaf cache
 *   grace.c          when a freed cluster may be handed out again
 *   child.c          requests to the space below, merged where they are neighbours
 *   volume.c         open, close, requests in and out, flush, resize, stats
 *   park.c           writes that wait for space
 *   forward.c        requests that go somewhere else instead
 *   limit.c          requests that a limit holds
 *   share.c          how many requests of a volume are under way while others want something too
 *   compare.c        compare and write
 *   copy.c           copying by sharing clusters
 *   read.c write.c discard.c status.c
 *
 * A request is on one of two paths. The fast one does not suspend, so what it looks up is true until it has submitted;
 * it is counted in the grace period instead of holding a lock. The slow one is a coroutine; if it changes the map it
 * holds alloc_lock (in subclusters; who clears bits locks whole clusters) from lookup to record, and pins its leaves.
 */
#ifndef THIN_VOLUME_INTERNAL_H
#define THIN_VOLUME_INTERNAL_H

#include <stdatomic.h>
#include "thin/thin.h"

#define THIN_REQUEST_BYTES_MAX (32 * MIB)
#define THIN_REQUEST_LEAVES_MAX 18 /* 32 MiB of the smallest clusters (8 KiB), not aligned */
#define THIN_CHILD_IOVS 8
#define THIN_LEASE_BATCH 64
#define THIN_RETRY_NS (10 * NS_PER_MS) /* held writes try again no more often */
#define THIN_REFUSED_NS (100 * NS_PER_MS)

/* A copy of a map leaf, authoritative while it is here: changes go home as records in the same step. */
struct thin_leaf {
	struct hash_node node; /* v->leaves, by number */
	struct thin_volume *v;
	bool used;	  /* since the clock's hand came by */
	bool loading;	  /* entries are not there yet; loaders wait */
	bool dropped;	  /* while it is loading: what comes is of a map that is no more */
	uint64_t share_epoch; /* v's, as of when it was loaded, or marked: if that has moved on, all that it maps is shared */
	uint64_t unshare_gen; /* tr's, as of when `shared` was last known to be exact; 0: never */
	unsigned pins;	  /* not to be evicted */
	/* copy.c: entries say `shared`, and home does not know yet; counts how often that was over */
	unsigned sharing, marks;
	struct list lru;  /* tr->lru */
	struct list link; /* v->leaf_list */
	struct co_queue loaders;
	struct thin_entry_disk entries[THIN_MAP_PER_LEAF];
};

/* Clusters leased for one class, to be used in this order: as they came, so neighbours together. Large writes to layouts
 * that redirect have a pool of their own, of long runs, so that small ones do not make holes in their stripes. */
struct thin_lease_pool {
	struct thin_class cls;
	bool runs;
	uint64_t refused_ns; /* home had none: until then it is not asked again by who can do without */
	uint64_t *clusters;
	unsigned first, n, cap;
	struct co_mutex refill;
};

struct thin_credits {
	unsigned n;
	struct co_mutex refill;
};

struct thin_reactor {
	struct thin *t;
	const struct thin_conf *conf;
	struct bdev *space;
	unsigned cluster_shift, sub_shift;
	uint32_t cluster_bytes, sub_bytes;
	struct list lru; /* of leaves, of all volumes; oldest first */
	unsigned n_leaves, max_leaves;
	struct list pools; /* of struct lease_pool_node */
	struct thin_credits credits[2]; /* by grow */
	struct list free_children;
	struct list volumes;
	unsigned share_max; /* thin_conf's, or its default */
	unsigned n_busy;    /* volumes with something under way */
	uint64_t shared_ns; /* when one of several had nothing any more */
	uint64_t space_gen; /* counts thin_reactor_space_changed() */
	uint64_t unshare_gen; /* counts thin_reactor_unshared(), from 1 */
	_Atomic uint64_t latency[THIN_LATENCY_BUCKETS]; /* requests by how long they took; single writer */
	uint8_t *zeros;	    /* never written */
	size_t zeros_len;
};

struct cluster_list {
	uint64_t *v;
	unsigned n, cap;
};

/*
 * Requests in flight are counted in one of two phases. Clusters that have lost their place in the map gather in `next`;
 * a grace period takes them, switches the phase, and ends when the other phase has run empty: nobody who could have
 * looked them up is left.
 */
struct thin_grace {
	unsigned phase, n[2];
	bool running;
	struct cluster_list next, current;
	struct co_queue next_waiters, current_waiters;
};

struct thin_volume {
	struct bdev bdev; /* first; what clients have */
	struct thin_reactor *tr;
	struct thin_leaf *last; /* of the newest lookup, never loading; or NULL */
	struct hash leaves;
	struct thin_grace grace;
	/* Records handed in; as of the newest successful commit. They begin at 1 and 0: what an earlier opening of the data path
	 * has handed in may not be durable. */
	uint64_t n_records, n_committed;
	uint64_t n_cleared; /* n_records after the newest one that took bits from an own cluster that stays */
	unsigned n_inflight;		 /* requests and calls that have not ended, held ones included */
	bool closing;
	bool no_parking;       /* what waits for space, or would, is sent back */
	uint64_t share_epoch; /* counts snapshots */
	uint8_t gate;	       /* THIN_GATE_*: what is held back */
	unsigned begun;	       /* of clients' requests that are under way: thin_share_weight() of each */
	struct list line;      /* of ios, by io.link: those that wait for that to become less; not empty: begun >= tr->share_max */
	bool is_lining;
	bool detour;	       /* there is one of the next two */
	struct bdev *forward;  /* clients' requests go there; NULL */
	struct thin_limiter *limiter; /* they may have to wait before that, or before anything else; NULL */
	unsigned n_changing; /* requests that may change contents, and have begun */
	struct list leaf_list;
	struct range_lock alloc_lock;
	struct thin *t;
	uint64_t id, full_wait_ns;
	struct thin_lease_pool *pool;
	struct thin_lease_pool *runs; /* whole clusters are redirected; NULL: they are not */
	struct list link; /* tr->volumes */
	bool flushing;
	struct list flushes; /* wait for the next round */
	struct list parked;  /* of ios, by io.link */
	struct list held;    /* likewise; while frozen */
	struct co_queue still; /* n_changing is zero */
	struct bdev inner;     /* the same volume, not subject to `forward` */
	struct timer park_timer;
	bool retry_wanted;
	uint64_t retry_at_ns;
	struct co_queue idle;
	/* compare.c: who compares now; changes that wait for them; changes in flight by phase */
	struct list compares, compare_held;
	struct range_lock compare_lock;
	unsigned n_phase[2];
	uint8_t change_phase;
	struct co_queue phase_empty, thawed; /* a phase is; the gate is open, or it closes down */
	char name[32];
	_Atomic uint64_t reads, writes, bytes_read, bytes_written, fast, slow, redirected, merged, n_parked;
	_Atomic uint64_t n_limited, limited_ns, n_limit_waiting;
	_Atomic bool full_waiting;
};

enum { THIN_GATE_OPEN = 0, THIN_GATE_WRITES = 1, THIN_GATE_ALL = 2 };

/* A client's request while it is here: in io.scratch. */
struct thin_req {
	struct thin_volume *v;
	uint64_t parked_ns;  /* since when it has been held (first time); 0: never */
	uint64_t done_bytes; /* of a long zeroing: where to go on */
	uint32_t pending;    /* children, and whoever is still making more */
	int32_t result;
	bool phase : 1;
	bool counted : 1;      /* in grace.n[phase] */
	bool changing : 1;     /* in n_changing */
	bool inner : 1;	       /* not a client's: by the inner bdev */
	bool stray : 1;	       /* inner, of what was forwarded once: goes where clients' requests go */
	bool in_phase : 1;     /* in n_phase[change_phase] */
	bool change_phase : 1;
	bool begun : 1;	       /* it counts in v->begun */
	uint64_t start_ns;
};
_Static_assert(sizeof(struct thin_req) <= sizeof(((struct io *)0)->scratch), "io.scratch");

static inline struct thin_req *thin_req_of(struct io *io)
{
	return (struct thin_req *)(void *)io->scratch;
}

/* ---- volume.c ---- */
/* Completes a client's request; the volume may be gone at the next turn. */
void thin_req_end(struct io *io, int result);
/* The same at the next turn, for use inside bdev_submit(). */
void thin_req_end_later(struct io *io, int result);
/* Starts (again) the coroutine of a request. */
void thin_req_spawn(struct io *io);
/* A client's request that was held back before it began goes on, as the volume is now. */
void thin_req_go_on(struct io *io);
/* It has not begun, after all; or it has ended. */
void thin_req_unchanging(struct thin_req *q);
/* Coroutine. All that has been completed becomes durable. */
int thin_volume_co_durable(struct thin_volume *v) __must_check;
/* Single writer, read from anywhere. */
static inline void thin_count(_Atomic uint64_t *c, uint64_t n)
{
	atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
}

/* Starts a read of the volume's own, past forward and gate; it counts in j when it ends. */
void thin_volume_start_inner(struct thin_volume *v, struct io *io, struct co_join *j);
/* A client's request that has been held goes on. */
void thin_volume_resume(struct thin_volume *v, struct io *io);

/* ---- compare.c ---- */
int thin_volume_co_compare_write(struct bdev *b, struct bdev_compare *c) __must_check;
/* A client's request, about to begin: true if it has to wait, and has been put into a list. */
bool thin_compare_holds(struct thin_volume *v, struct io *io);
/* It begins; it has ended, or has not begun after all. */
static inline void thin_compare_enter(struct thin_volume *v, struct thin_req *q)
{
	if (q->in_phase || q->inner)
		return;
	q->in_phase = true;
	q->change_phase = v->change_phase;
	v->n_phase[v->change_phase]++;
}
void thin_compare_leave(struct thin_volume *v, struct thin_req *q);

/* A client's request goes to v->forward, in pieces that are not too large for it. */
void thin_forward_submit(struct thin_volume *v, struct io *io);

/* ---- limit.c ---- */
/* A client's request, not a flush. False: it has to wait, and will be given to thin_req_go_on(). */
bool thin_limit_pass(struct thin_volume *v, struct io *io);
/* Those that wait and match() picks go to the end of `to`. */
void thin_limit_pick(struct thin_volume *v, struct list *to, bool (*match)(const struct io *io, void *arg), void *arg);
/* Nothing waits any more, and there are no limits. */
void thin_limit_end(struct thin_volume *v);

/* ---- share.c ---- */
#define THIN_SHARE_MAX 64
static inline unsigned thin_share_weight(const struct io *io)
{
	return io->op > IO_WRITE ? 1 : 1 + (unsigned)(io->len_bytes / (128 * KIB));
}
/* There is much under way. False: it may begin all the same. */
bool thin_share_wait(struct thin_volume *v, struct io *io);
/* Less is under way: who waits goes on. */
void thin_share_next(struct thin_volume *v);
static inline void thin_share_begin(struct thin_volume *v, struct io *io)
{
	thin_req_of(io)->begun = true;
	v->tr->n_busy += !v->begun;
	v->begun += thin_share_weight(io);
}
/* It has ended, or waits for something. */
static inline void thin_share_end(struct thin_volume *v, struct io *io)
{
	if (!thin_req_of(io)->begun)
		return;
	thin_req_of(io)->begun = false;
	v->begun -= thin_share_weight(io);
	if (!v->begun && unlikely(--v->tr->n_busy))
		v->tr->shared_ns = reactor_now_ns();
	if (unlikely(!list_is_empty(&v->line)))
		thin_share_next(v);
}

/* ---- units ---- */
static inline uint64_t thin_leaf_bytes(const struct thin_volume *v)
{
	return (uint64_t)THIN_MAP_PER_LEAF << v->tr->cluster_shift;
}

static inline uint64_t thin_leaf_of(const struct thin_volume *v, uint64_t off_bytes)
{
	return off_bytes >> v->tr->cluster_shift >> 8;
}
_Static_assert(THIN_MAP_PER_LEAF == 1 << 8, "thin_leaf_of");

/* Where the leaf that holds off_bytes ends. */
static inline uint64_t thin_leaf_end(const struct thin_volume *v, uint64_t off_bytes)
{
	return ALIGN_DOWN(off_bytes, thin_leaf_bytes(v)) + thin_leaf_bytes(v);
}

static inline uint64_t thin_in_cluster(const struct thin_volume *v, uint64_t off_bytes)
{
	return off_bytes & (v->tr->cluster_bytes - 1);
}

/* Bytes from pos to end or to the end of pos's cluster. */
static inline uint64_t thin_piece(const struct thin_volume *v, uint64_t pos, uint64_t end)
{
	uint64_t n = v->tr->cluster_bytes - thin_in_cluster(v, pos);

	return MIN(n, end - pos);
}

/* Bits of the subclusters that n bytes at `in` of a cluster touch; n > 0. */
static inline uint16_t thin_sub_mask(const struct thin_volume *v, uint64_t in, uint64_t n)
{
	unsigned first = (unsigned)(in >> v->tr->sub_shift), last = (unsigned)((in + n - 1) >> v->tr->sub_shift);

	return (uint16_t)((2u << last) - (1u << first));
}

static inline struct thin_entry_disk *thin_slot(const struct thin_volume *v, struct thin_leaf *l, uint64_t off_bytes)
{
	return &l->entries[(off_bytes >> v->tr->cluster_shift) % THIN_MAP_PER_LEAF];
}

/* ---- leaf.c ---- */
/* The leaf if it is cached and loaded. Valid until the next suspension. */
struct thin_leaf *thin_leaf_find(struct thin_volume *v, uint64_t leaf);
static inline struct thin_leaf *thin_leaf_peek(struct thin_volume *v, uint64_t leaf)
{
	struct thin_leaf *l = v->last;

	if (likely(l && l->node.key == leaf))
		return l;
	return thin_leaf_find(v, leaf);
}
/* Cached, or being loaded. */
bool thin_leaf_is_known(struct thin_volume *v, uint64_t leaf);
/* Coroutine. Valid until the next suspension, unless pinned (l->pins). */
int thin_leaf_co_get(struct thin_volume *v, uint64_t leaf, struct thin_leaf **out) __must_check;
void thin_leaves_drop(struct thin_volume *v);
/* Coroutine, leaf pinned. Makes `shared` exact. Entries that have lost it can be overwritten. */
int thin_leaf_co_refresh(struct thin_leaf *l) __must_check;
static inline bool thin_leaf_is_exact(const struct thin_leaf *l)
{
	return l->unshare_gen == l->v->tr->unshare_gen;
}
/* Does not suspend. */
void thin_leaves_set_shared(struct thin_volume *v);
/* Does not suspend; nothing is pinned. The map is another one. */
void thin_leaves_forget(struct thin_volume *v);

/* ---- reactor_state.c ---- */
struct thin_lease_pool *thin_lease_pool_get(struct thin_reactor *tr, struct thin_class cls, bool runs);
/* Coroutine. All n or none. -ERR_POOL_FULL from a pool of runs says nothing about the other. */
int thin_lease_co_take(struct thin_reactor *tr, struct thin_lease_pool *p, uint64_t *clusters, unsigned n) __must_check;
/* Unused ones, for others of this reactor: the next that are taken. */
void thin_lease_put(struct thin_lease_pool *p, const uint64_t *clusters, unsigned n);
static inline bool thin_lease_is_refused(const struct thin_lease_pool *p)
{
	return p->refused_ns && reactor_now_ns() < p->refused_ns;
}
/* Coroutine. Permission for n records. */
int thin_credits_co_take(struct thin_reactor *tr, bool grow, unsigned n) __must_check;
void thin_credits_put(struct thin_reactor *tr, bool grow, unsigned n);

/* ---- grace.c ---- */
void thin_grace_init(struct thin_grace *g);
void thin_grace_fini(struct thin_grace *g);
static inline void thin_grace_enter(struct thin_volume *v, struct thin_req *q)
{
	q->phase = v->grace.phase;
	q->counted = true;
	v->grace.n[q->phase]++;
}
void thin_grace_leave(struct thin_volume *v, struct thin_req *q);
/* The map has just lost this cluster; thin_grace_kick() after its record has been handed in. */
void thin_grace_free(struct thin_volume *v, uint64_t cluster);
void thin_grace_kick(struct thin_volume *v);
/* Coroutine. Returns when every request counted now has ended. The caller must not be counted. */
void thin_grace_co_wait(struct thin_volume *v);

/* ---- child.c ---- */
/* A run of bytes, neighbours in the request and in the space. Children count in `parent` or, if that is NULL, in `join`. */
struct thin_run {
	struct thin_volume *v;
	enum io_op op;
	unsigned flags;
	const struct iovec *iov;
	unsigned iov_n;
	struct io *parent;
	struct co_join *join;
	uint64_t phys, skip, len; /* gathered, not submitted; skip: from the start of iov */
};
void thin_run_add(struct thin_run *x, uint64_t phys, uint64_t skip, uint64_t len);
void thin_run_submit(struct thin_run *x);
/* The whole request to one place. hints: what is known of it, beside the client's flags. */
void thin_child_whole(struct thin_volume *v, struct io *parent, uint64_t phys, unsigned hints);
void thin_child_flush(struct thin_volume *v, struct io *parent);
/* pending -= 1 at the next turn. */
void thin_child_nothing(struct thin_volume *v, struct io *parent);
void thin_child_ended(struct io *parent, int result);
void thin_children_free(struct thin_reactor *tr);
/* Coroutine. Copies subclusters from one cluster to another, to the same places in it. flags: IO_FRESH, or nothing. */
int thin_co_copy_subs(struct thin_volume *v, uint64_t from, uint64_t to, uint16_t mask, unsigned flags) __must_check;

/* ---- read.c, write.c, discard.c, status.c, park.c ---- */
/* False: it needs a coroutine. */
bool thin_read_try(struct thin_volume *v, struct io *io);
bool thin_write_try(struct thin_volume *v, struct io *io);
/* Main functions of coroutines; arg: the io. */
void thin_read_co_run(void *arg);
void thin_write_co_run(void *arg);
void thin_discard_co_run(void *arg); /* zero too */

/* Coroutine. iov sums to len_bytes (at most THIN_REQUEST_BYTES_MAX). -ERR_POOL_FULL: nothing has been changed. */
int thin_co_write(struct thin_volume *v, uint64_t off_bytes, uint64_t len_bytes, const struct iovec *iov, unsigned iov_n)
	__must_check;
/* Coroutine. Makes a range read as zeros; not durable. edges: also what is less than a subcluster. shrinking: the range may
 * lie beyond the end, it is what a resize cuts off. */
int thin_co_clear(struct thin_volume *v, uint64_t off_bytes, uint64_t len_bytes, bool edges, bool shrinking) __must_check;
/* Hands in the changed ones of n neighbouring entries as one record; own without bits goes as nothing. */
void thin_map_hand_in(struct thin_volume *v, uint64_t first, struct thin_entry *entries, unsigned n);

/* merge.c. Coroutine. Brings own and base together in the entries of a leaf where that frees a cluster. */
int thin_volume_co_merge(struct thin_volume *v, uint64_t leaf) __must_check;

int thin_volume_co_status(struct thin_volume *v, uint64_t off_bytes, uint64_t len_bytes, struct bdev_extent *ext, size_t *n);

/* A write that found the pool full; gen: tr->space_gen as of before it asked. False: it is to fail now. */
bool thin_park(struct thin_volume *v, struct io *io, uint64_t gen);
void thin_park_space_changed(struct thin_volume *v);
/* Fails those whose time is over, sets the timer. */
void thin_park_check(struct thin_volume *v);
void thin_park_fail_all(struct thin_volume *v, int error);
/* bdev_ops.cancel. */
void thin_volume_cancel(struct bdev *b, bool (*match)(const struct io *io, void *arg), void *arg);
/* Moves those that match() picks to the end of `to`; how many. */
unsigned thin_pick(struct list *from, struct list *to, bool (*match)(const struct io *io, void *arg), void *arg);
/* Frozen: clients' requests that wait for space are held like those that have not begun; strays: and the inner ones, which are now such. */
void thin_park_hold(struct thin_volume *v, bool strays);
void thin_park_timer_fired(struct timer *t);

#endif
