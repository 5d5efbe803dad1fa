/*
 * write.c: writes.
 *
 * Fast: every touched subcluster is valid in an own cluster that nobody shares: the data goes there, nothing else changes.
 *
 * Slow, step by step, and what a crash leaves at each:
 *   1. Lock the touched subclusters; load and pin their leaves. Clusters that are not there are leased and put into the
 *      cached entry as `own` without a bit. Readers see no bit; another first write to the same cluster sees the own
 *      and uses it too. A crash forgets leases.
 *   2. Write the data. A new subcluster is written whole: what the client does not cover comes from base, or is zeros.
 *      A crash leaves bytes in a cluster that nothing refers to, or in a subcluster without a bit.
 *   3. Set the bits in the cached entries and hand in the records, without suspending in between. A crash before the
 *      record is durable leaves the old map, and so the old contents; after it the data is durable too, because a
 *      commit flushes the disks before it writes.
 * If step 2 fails no bit is set, and clusters left without any go back.
 *
 * Shared: an own cluster that snapshots or clones have too is not touched. The write goes to a new cluster, and the old one
 * becomes its base: nothing is copied. If the entry has a base already, what the write leaves of the two is brought together:
 * the smaller part is copied into the new cluster, so that a read never looks at more than two places. Such a write holds the
 * lock of whole clusters. Whether a cluster is shared the cached leaf says; it may say so although it is not any more, and is
 * asked for the truth at home when that may have changed (thin_leaf_co_refresh()).
 *
 * Redirected: where whole clusters had better not be overwritten (v->runs), each that the request covers wholly and that
 * holds something gets a new cluster, out of a long run. Step 2 writes there, step 3 puts it into the entry. The old one is
 * in use until then, by readers and by overwrites on the fast path: those are under way at the same time as this write, so
 * they may as well have come before it. It goes through grace period and quarantine like any other that the map has lost:
 * the old map, which a crash before the record brings back, still has its data. Where there is no such run, the clusters are
 * written in place: nothing waits or fails because of it.
 *
 * Hints. An overwrite says IO_OVERWRITE. A write to subclusters without a bit says IO_FRESH only if no map that a crash may
 * bring back has the bit: a cluster is leased only after the record that freed it is durable, so one without any bit is
 * fresh; in others a discard may have cleared the bit by a record that is not durable yet (v->n_cleared). What has both
 * kinds says nothing.
 */
#include <string.h>

#include "engine/base/mutant.h"
#include "engine/io/buf.h"
#include "thin/volume_internal.h"

/* ---- without suspension ---- */

static bool write_piece_is_mapped(struct thin_volume *v, uint64_t pos, uint64_t n, uint64_t *phys)
{
	uint64_t in = thin_in_cluster(v, pos);
	uint16_t mask = thin_sub_mask(v, in, n);
	struct thin_leaf *l = thin_leaf_peek(v, thin_leaf_of(v, pos));
	struct thin_entry e;

	if (!l)
		return false;
	e = thin_entry_load(thin_slot(v, l, pos));
	*phys = (e.own << v->tr->cluster_shift) + in;
	return (e.own_mask & mask) == mask && !e.shared;
}

/* Does it cover a whole cluster that should go to a new place? */
static bool write_redirects(const struct thin_volume *v, uint64_t pos, uint64_t end)
{
	uint64_t whole = ALIGN_UP(pos, (uint64_t)v->tr->cluster_bytes);

	return v->runs && whole + v->tr->cluster_bytes <= end && !thin_lease_is_refused(v->runs);
}

bool thin_write_try(struct thin_volume *v, struct io *io)
{
	uint64_t pos = io->off_bytes, end = pos + io->len_bytes, n, phys;
	struct thin_req *q = thin_req_of(io);
	struct thin_run x;

	if ((io->flags & IO_FUA) && v->n_records != v->n_committed)
		return false; /* its mapping may not be durable */
	if (unlikely(write_redirects(v, pos, end)))
		return false;
	n = thin_piece(v, pos, end);
	if (likely(n == io->len_bytes)) {
		if (!write_piece_is_mapped(v, pos, n, &phys))
			return false;
		thin_grace_enter(v, q);
		thin_child_whole(v, io, phys, IO_OVERWRITE);
		return true;
	}
	for (; pos < end; pos += n) {
		n = thin_piece(v, pos, end);
		if (!write_piece_is_mapped(v, pos, n, &phys))
			return false;
	}
	x = (struct thin_run){ .v = v, .op = IO_WRITE, .flags = (io->flags & IO_FUA) | IO_OVERWRITE, .iov = io->iov,
			       .iov_n = io->iov_n, .parent = io };
	thin_grace_enter(v, q);
	q->pending = 1;
	for (pos = io->off_bytes; pos < end; pos += n) {
		n = thin_piece(v, pos, end);
		CHECK(write_piece_is_mapped(v, pos, n, &phys));
		thin_run_add(&x, phys, pos - io->off_bytes, n);
	}
	thin_run_submit(&x);
	if (--q->pending == 0) {
		q->pending = 1;
		thin_child_nothing(v, io);
	}
	return true;
}

/* ---- in a coroutine ---- */

/* The new place of a cluster, and what becomes of the old ones. */
struct write_place {
	uint64_t at; /* cluster of the volume */
	uint64_t cluster, base; /* base: 0: none is left */
	uint16_t base_mask;
	uint16_t copied; /* subclusters that are copied into the new one */
};

struct write_op {
	struct thin_volume *v;
	uint64_t off, end;	   /* what the client writes */
	uint64_t pad_off, pad_end; /* with what goes beside it in new subclusters */
	struct range_hold hold;
	uint64_t first_leaf;
	unsigned n_pinned;
	struct thin_leaf *leaves[THIN_REQUEST_LEAVES_MAX];
	unsigned n_records; /* permitted */
	bool allocated;	    /* entries may carry an own without bits */
	bool redirect;	    /* whole clusters that hold something are moved */
	struct write_place *moved; /* where those go that are not written in place, in their order */
	unsigned n_moved;
	const struct iovec *iov;
	unsigned iov_n;
	struct iovec *iov_made;
	uint8_t *head, *tail; /* contents of base, sub_bytes each; NULL: zeros */
};

static struct thin_entry_disk *write_slot(struct write_op *w, uint64_t pos)
{
	struct thin_leaf *l = w->leaves[thin_leaf_of(w->v, pos) - w->first_leaf];

	return thin_slot(w->v, l, pos);
}

static int write_co_pin(struct write_op *w)
{
	uint64_t leaf, last = thin_leaf_of(w->v, w->end - 1);
	int r;

	w->first_leaf = thin_leaf_of(w->v, w->off);
	CHECK(last - w->first_leaf < THIN_REQUEST_LEAVES_MAX);
	for (leaf = w->first_leaf; leaf <= last; leaf++) {
		r = thin_leaf_co_get(w->v, leaf, &w->leaves[w->n_pinned]);
		if (r < 0)
			return r;
		w->leaves[w->n_pinned++]->pins++;
	}
	return 0;
}

/* Should the cluster at pos be written to a new place? */
static bool write_wants_move(const struct write_op *w, const struct thin_entry *e, uint64_t pos)
{
	uint64_t start = ALIGN_DOWN(pos, (uint64_t)w->v->tr->cluster_bytes);

	if (e->shared && e->own_mask)
		return true;
	return w->redirect && e->own_mask && start >= w->off && start + w->v->tr->cluster_bytes <= w->end;
}

/* Where the cluster at pos goes; NULL: it is written in place. Decided once (write_assign()): meanwhile somebody may find out that
 * it is not shared any more. Nothing else changes until write_map() comes by: nobody else sets or clears a bit of a cluster that
 * is covered wholly, and one that was shared is locked wholly. */
static struct write_place *write_place_of(const struct write_op *w, uint64_t pos)
{
	uint64_t at = pos >> w->v->tr->cluster_shift;
	unsigned lo = 0, hi = w->n_moved;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (w->moved[mid].at == at)
			return &w->moved[mid];
		if (w->moved[mid].at < at)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

/* Coroutine. Do shared clusters stand in the way of this lock? First makes sure that they are shared. */
static int write_co_look(struct write_op *w, bool *shared)
{
	struct thin_volume *v = w->v;
	uint64_t pos, n;
	int r;

	*shared = false;
	for (pos = w->off; pos < w->end; pos += n) {
		struct thin_leaf *l = w->leaves[thin_leaf_of(v, pos) - w->first_leaf];
		struct thin_entry e = thin_entry_load(thin_slot(v, l, pos));

		n = thin_piece(v, pos, w->end);
		if (!e.shared || !e.own)
			continue;
		if (!thin_leaf_is_exact(l)) {
			r = thin_leaf_co_refresh(l);
			if (r < 0)
				return r;
			e = thin_entry_load(thin_slot(v, l, pos));
		}
		*shared |= e.shared;
	}
	return 0;
}

/* What is left of the old places when `mask` of the cluster is written to a new one. */
static void place_plan(struct write_place *p, const struct thin_entry *e, uint16_t mask)
{
	uint16_t own = e->own_mask & (uint16_t)~mask, base = e->base_mask & (uint16_t)~mask;

	if (own && base && __builtin_popcount(own) <= __builtin_popcount(base)) {
		p->copied = own;
		own = 0;
	} else if (own && base) {
		p->copied = base;
		base = 0;
	}
	p->base = own ? e->own : base ? e->base : 0;
	p->base_mask = own | base;
}

struct write_plan {
	unsigned n_missing, n_moved; /* clusters */
	unsigned n_records;	     /* as write_map() will cut them */
};

static void write_plan(struct write_op *w, struct write_plan *p)
{
	unsigned since = THIN_REC_MAP_ENTRIES_MAX;
	uint64_t pos, n;

	*p = (struct write_plan){ 0 };
	for (pos = w->off; pos < w->end; pos += n) {
		struct thin_entry e = thin_entry_load(write_slot(w, pos));
		uint16_t mask;
		bool moves;

		n = thin_piece(w->v, pos, w->end);
		mask = thin_sub_mask(w->v, thin_in_cluster(w->v, pos), n);
		moves = write_wants_move(w, &e, pos);
		p->n_missing += !e.own;
		p->n_moved += moves;
		if (pos % thin_leaf_bytes(w->v) == 0)
			since = THIN_REC_MAP_ENTRIES_MAX; /* records end with their leaf */
		if (since < THIN_REC_MAP_ENTRIES_MAX) {
			since++;
		} else if (moves || (e.own_mask & mask) != mask) {
			p->n_records++;
			since = 1;
		}
	}
}

/* Does not suspend. Returns how many of the clusters were needed. */
static unsigned write_assign(struct write_op *w, const struct write_plan *p, const uint64_t *clusters)
{
	unsigned used = 0;
	uint64_t pos, n;

	w->allocated = p->n_missing != 0;
	w->moved = p->n_moved ? xcalloc(p->n_moved, sizeof(*w->moved)) : NULL;
	for (pos = w->off; pos < w->end; pos += n) {
		struct thin_entry e = thin_entry_load(write_slot(w, pos));

		n = thin_piece(w->v, pos, w->end);
		if (e.own && !write_wants_move(w, &e, pos))
			continue; /* perhaps since a moment ago: somebody else writes beside us */
		CHECK(used < p->n_missing + p->n_moved);
		if (!e.own) {
			e.own = clusters[used++];
			thin_entry_store(&e, write_slot(w, pos));
		} else {
			CHECK(w->n_moved < p->n_moved);
			place_plan(&w->moved[w->n_moved], &e, thin_sub_mask(w->v, thin_in_cluster(w->v, pos), n));
			w->moved[w->n_moved].at = pos >> w->v->tr->cluster_shift;
			w->moved[w->n_moved++].cluster = clusters[used++];
		}
	}
	return used;
}

/* Coroutine. What the plan needs: permission for records, clusters from that pool. */
static int write_co_take(struct write_op *w, const struct write_plan *p, struct thin_lease_pool *pool)
{
	unsigned n = p->n_missing + p->n_moved, used;
	struct thin_volume *v = w->v;
	uint64_t *clusters;
	int r;

	if (p->n_records > w->n_records) {
		r = thin_credits_co_take(v->tr, true, p->n_records - w->n_records);
		if (r < 0)
			return r;
		w->n_records = p->n_records;
	}
	if (!n)
		return 0;
	clusters = xmalloc(n * sizeof(*clusters));
	r = thin_lease_co_take(v->tr, pool, clusters, n);
	if (r == 0) {
		used = write_assign(w, p, clusters);
		thin_lease_put(pool, clusters + used, n - used);
	}
	xfree(clusters);
	return r;
}

/* Coroutine. Every touched cluster has an own after it; those that are moved have their new places. */
static int write_co_allocate(struct write_op *w)
{
	struct thin_volume *v = w->v;
	struct write_plan p;

	w->redirect = write_redirects(v, w->off, w->end) && !MUTANT(JOURNAL_BEFORE_DATA);
	write_plan(w, &p);
	if (w->redirect) {
		if (write_co_take(w, &p, v->runs) == 0)
			return 0;
		w->redirect = false; /* whatever was in the way: it matters only if it is when written in place, too */
		write_plan(w, &p);
	}
	return write_co_take(w, &p, v->pool);
}

/* One end of the request: [from, to) completes a subcluster. Its contents are *buf, or zeros if that stays NULL. */
static int write_co_pad(struct write_op *w, uint64_t sub, uint64_t from, uint64_t to, uint8_t **buf)
{
	struct thin_reactor *tr = w->v->tr;
	struct thin_entry e = thin_entry_load(write_slot(w, sub));
	uint64_t in = thin_in_cluster(w->v, from), cluster;
	uint16_t bit = thin_sub_mask(w->v, in, 1);

	if (!((e.own_mask | e.base_mask) & bit))
		return 0;
	cluster = e.own_mask & bit ? e.own : e.base;
	*buf = buf_alloc(tr->sub_bytes);
	return bdev_co_read(tr->space, (cluster << tr->cluster_shift) + in, *buf, to - from);
}

/* Is the subcluster overwritten where it is? */
static bool write_sub_is_valid(struct write_op *w, uint64_t pos)
{
	struct thin_entry e = thin_entry_load(write_slot(w, pos));

	return (e.own_mask & thin_sub_mask(w->v, thin_in_cluster(w->v, pos), 1)) && !write_place_of(w, pos);
}

/* Coroutine. Widens the request to whole subclusters where they are new. */
static int write_co_pads(struct write_op *w)
{
	struct thin_reactor *tr = w->v->tr;
	uint64_t lo = ALIGN_DOWN(w->off, (uint64_t)tr->sub_bytes), hi = ALIGN_UP(w->end, (uint64_t)tr->sub_bytes);
	struct iovec *v;
	unsigned n = 0;
	int r = 0;

	w->pad_off = lo < w->off && !write_sub_is_valid(w, lo) ? lo : w->off;
	w->pad_end = hi > w->end && !write_sub_is_valid(w, w->end - 1) ? hi : w->end;
	if (w->pad_off < w->off)
		r = write_co_pad(w, lo, w->pad_off, w->off, &w->head);
	if (r == 0 && w->pad_end > w->end)
		r = write_co_pad(w, w->end - 1, w->end, w->pad_end, &w->tail);
	if (r < 0 || (w->pad_off == w->off && w->pad_end == w->end))
		return r;
	v = w->iov_made = xmalloc((w->iov_n + 2) * sizeof(*v));
	if (w->pad_off < w->off)
		v[n++] = (struct iovec){ w->head ? w->head : tr->zeros, w->off - w->pad_off };
	memcpy(v + n, w->iov, w->iov_n * sizeof(*v));
	n += w->iov_n;
	if (w->pad_end > w->end)
		v[n++] = (struct iovec){ w->tail ? w->tail : tr->zeros, w->pad_end - w->end };
	w->iov = v;
	w->iov_n = n;
	return 0;
}

/* What is known of the place that a piece is written to. */
static unsigned write_hint(const struct write_op *w, const struct thin_entry *e, uint64_t pos, uint64_t n)
{
	uint16_t mask = thin_sub_mask(w->v, thin_in_cluster(w->v, pos), n);

	if (write_place_of(w, pos))
		return IO_FRESH;
	if ((e->own_mask & mask) == mask)
		return IO_OVERWRITE;
	if (e->own_mask & mask)
		return 0;
	return !e->own_mask || w->v->n_committed >= w->v->n_cleared ? IO_FRESH : 0;
}

/* Coroutine. What must come together with new data. */
static int write_co_merges(struct write_op *w)
{
	unsigned i;
	int r = 0;

	for (i = 0; i < w->n_moved && r == 0; i++) {
		struct write_place *p = &w->moved[i];
		struct thin_entry e = thin_entry_load(write_slot(w, p->at << w->v->tr->cluster_shift));

		if (p->copied)
			r = thin_co_copy_subs(w->v, p->copied & e.own_mask ? e.own : e.base, p->cluster, p->copied, IO_FRESH);
	}
	return r;
}

static int write_co_data(struct write_op *w)
{
	struct thin_run x = { .v = w->v, .op = IO_WRITE, .iov = w->iov, .iov_n = w->iov_n };
	struct write_place *p;
	struct co_join join;
	uint64_t pos, n;
	unsigned hint;

	co_join_init(&join);
	x.join = &join;
	for (pos = w->pad_off; pos < w->pad_end; pos += n) {
		struct thin_entry e = thin_entry_load(write_slot(w, pos));

		n = thin_piece(w->v, pos, w->pad_end);
		CHECK(e.own);
		hint = write_hint(w, &e, pos, n);
		if (w->v->runs && hint != x.flags)
			thin_run_submit(&x); /* whole stripes must not lose their hint; others do not need it */
		x.flags = x.len ? x.flags & hint : hint;
		p = write_place_of(w, pos);
		thin_run_add(&x, ((p ? p->cluster : e.own) << w->v->tr->cluster_shift) + thin_in_cluster(w->v, pos), pos - w->pad_off, n);
	}
	thin_run_submit(&x);
	return co_join_wait(&join);
}

void thin_map_hand_in(struct thin_volume *v, uint64_t first, struct thin_entry *entries, unsigned n)
{
	unsigned i;

	for (i = 0; i < n; i++)
		if (!entries[i].own_mask)
			entries[i] = (struct thin_entry){ 0 };
	thin_map_set(v->t, v->id, first, entries, n);
	v->n_records++;
}

/* The entry with the bits of a finished write; true if that is a change. */
static bool write_entry_update(struct thin_volume *v, struct thin_entry_disk *slot, uint16_t mask, struct thin_entry *e)
{
	*e = thin_entry_load(slot);
	if ((e->own_mask & mask) == mask)
		return false;
	e->own_mask |= mask;
	e->base_mask &= (uint16_t)~mask;
	if (e->base && !e->base_mask) {
		thin_grace_free(v, e->base);
		e->base = 0;
	}
	thin_entry_store(e, slot);
	return true;
}

/* The entry with the new place of a cluster that is moved; true if that is a change. */
static bool write_entry_move(struct thin_volume *v, struct thin_entry_disk *slot, uint16_t mask, const struct write_place *p,
			     struct thin_entry *e)
{
	*e = thin_entry_load(slot);
	if (e->own == p->cluster)
		return false;
	if (e->own != p->base)
		thin_grace_free(v, e->own);
	if (e->base && e->base != p->base)
		thin_grace_free(v, e->base);
	*e = (struct thin_entry){ .own = p->cluster, .own_mask = mask | p->copied, .base = p->base, .base_mask = p->base_mask };
	thin_entry_store(e, slot);
	return true;
}

/* Does not suspend. */
static void write_map(struct write_op *w)
{
	struct thin_entry chunk[THIN_REC_MAP_ENTRIES_MAX];
	struct thin_volume *v = w->v;
	unsigned n_chunk = 0, n_send = 0; /* from the first changed one; to the last */
	uint64_t pos, n, first = 0;

	for (pos = w->off; pos < w->end; pos += n) {
		struct thin_entry_disk *slot = write_slot(w, pos);
		struct write_place *place;
		uint16_t mask;
		bool changed;

		n = thin_piece(v, pos, w->end);
		if (n_send && (n_chunk == THIN_REC_MAP_ENTRIES_MAX || pos % thin_leaf_bytes(v) == 0)) {
			thin_map_hand_in(v, first, chunk, n_send);
			CHECK(w->n_records-- > 0);
			n_chunk = n_send = 0;
		}
		mask = thin_sub_mask(v, thin_in_cluster(v, pos), n);
		place = write_place_of(w, pos);
		if (place)
			changed = write_entry_move(v, slot, mask, place, &chunk[n_chunk]);
		else
			changed = write_entry_update(v, slot, mask, &chunk[n_chunk]);
		if (!n_chunk && !changed)
			continue;
		if (!n_chunk)
			first = pos >> v->tr->cluster_shift;
		n_chunk++;
		if (changed)
			n_send = n_chunk;
	}
	if (n_send) {
		thin_map_hand_in(v, first, chunk, n_send);
		CHECK(w->n_records-- > 0);
	}
	thin_count(&v->redirected, w->redirect ? w->n_moved : 0);
	thin_grace_kick(v);
}

/* Coroutine, after the lock has been given up. Clusters that no write has completed in go back. */
static void write_co_undo(struct write_op *w)
{
	struct thin_volume *v = w->v;
	uint64_t pos, n;

	for (pos = w->off; pos < w->end; pos += n) {
		uint64_t cluster = pos >> v->tr->cluster_shift;
		struct thin_entry e = thin_entry_load(write_slot(w, pos));
		struct range_hold hold;

		n = thin_piece(v, pos, w->end);
		if (!e.own || e.own_mask)
			continue;
		range_co_lock(&v->alloc_lock, cluster * THIN_SUBS, THIN_SUBS, false, &hold);
		e = thin_entry_load(write_slot(w, pos));
		if (e.own && !e.own_mask) {
			CHECK(!e.base);
			thin_lease_return(v->t, &e.own, 1);
			e = (struct thin_entry){ 0 };
			thin_entry_store(&e, write_slot(w, pos));
		}
		range_unlock(&v->alloc_lock, &hold);
	}
}

/* A guess, so that one lock does: is what is touched within one cluster, known here, and shared? */
static bool write_looks_shared(const struct write_op *w)
{
	struct thin_leaf *l = thin_leaf_peek(w->v, thin_leaf_of(w->v, w->off));
	struct thin_entry e;

	if (!l || thin_piece(w->v, w->off, w->end) != w->end - w->off)
		return false;
	e = thin_entry_load(thin_slot(w->v, l, w->off));
	return e.shared && e.own && thin_leaf_is_exact(l);
}

/* Coroutine. Locks what is touched, whole clusters if some are shared, with the leaves pinned. */
static int write_co_lock(struct write_op *w)
{
	struct thin_volume *v = w->v;
	uint64_t first = w->off >> v->tr->sub_shift, last = (w->end - 1) >> v->tr->sub_shift;
	bool whole = write_looks_shared(w), shared;
	int r;

	if (whole) {
		first = ALIGN_DOWN(first, (uint64_t)THIN_SUBS);
		last |= THIN_SUBS - 1;
	}
	range_co_lock(&v->alloc_lock, first, last - first + 1, false, &w->hold);
	r = write_co_pin(w);
	if (r == 0)
		r = write_co_look(w, &shared);
	if (r < 0 || !shared || whole)
		return r;
	range_unlock(&v->alloc_lock, &w->hold);
	first = ALIGN_DOWN(first, (uint64_t)THIN_SUBS);
	last |= THIN_SUBS - 1;
	range_co_lock(&v->alloc_lock, first, last - first + 1, false, &w->hold);
	return 0;
}

static int write_co_do(struct write_op *w)
{
	int r = write_co_allocate(w);

	if (r == 0)
		r = write_co_pads(w);
	if (r == 0 && MUTANT(JOURNAL_BEFORE_DATA) && !w->n_moved)
		write_map(w);
	if (r == 0)
		r = write_co_merges(w);
	if (r == 0)
		r = write_co_data(w);
	if (r == 0)
		write_map(w);
	return r;
}

/* Clusters that were not used go back. */
static void write_give_back(struct write_op *w)
{
	unsigned i;

	for (i = 0; i < w->n_moved; i++)
		thin_lease_return(w->v->t, &w->moved[i].cluster, 1);
}

int thin_co_write(struct thin_volume *v, uint64_t off_bytes, uint64_t len_bytes, const struct iovec *iov, unsigned iov_n)
{
	struct write_op w = { .v = v, .off = off_bytes, .end = off_bytes + len_bytes, .iov = iov, .iov_n = iov_n };
	int r = write_co_lock(&w);

	if (r == 0)
		r = write_co_do(&w);
	range_unlock(&v->alloc_lock, &w.hold);
	if (r < 0)
		write_give_back(&w);
	if (r < 0 && w.allocated)
		write_co_undo(&w);
	while (w.n_pinned)
		w.leaves[--w.n_pinned]->pins--;
	thin_credits_put(v->tr, true, w.n_records);
	buf_free(w.head, v->tr->sub_bytes);
	buf_free(w.tail, v->tr->sub_bytes);
	xfree(w.iov_made);
	xfree(w.moved);
	return r;
}

void thin_write_co_run(void *arg)
{
	struct io *io = arg;
	struct thin_volume *v = thin_req_of(io)->v;
	uint64_t gen = v->tr->space_gen;
	int r;

	if (io->off_bytes + io->len_bytes > v->bdev.size_bytes)
		r = -ERANGE; /* it has shrunk */
	else
		r = thin_co_write(v, io->off_bytes, io->len_bytes, io->iov, io->iov_n);
	if (r == -ERR_POOL_FULL && thin_park(v, io, gen))
		return;
	if (r == 0 && (io->flags & IO_FUA) && !MUTANT(FUA_WITHOUT_COMMIT))
		r = thin_volume_co_durable(v);
	thin_req_end(io, r);
}
