/*
 * discard.c: discard and zero: the map forgets. Whole subclusters lose their bits; what is less than one stays as it is
 * (discard) or is overwritten with zeros where it is valid (zero).
 *
 * Done leaf by leaf, each step under the lock of its clusters; leaves that are not cached and are holes at home cost one
 * question for all of them. Home answers it with all records handed in before, so nothing that has been written is missed.
 *
 * Overwrites do not take the lock. One that is under way when its subcluster's bit is cleared may still reach the old
 * place: a cluster that has lost all bits is kept back until it has ended (grace.c); one that stays mapped stays locked
 * until then, so that the subcluster cannot be filled anew underneath.
 */
#include "thin/volume_internal.h"

#define STEPS_PER_TURN 16
#define NO_HOLE_STEP MIB

/* What clearing `mask` makes of an entry. */
enum clear_result { CLEAR_NOTHING, CLEAR_ALL, CLEAR_PART };

static enum clear_result entry_clear(struct thin_volume *v, struct thin_entry *e, uint16_t mask)
{
	uint16_t own_cleared = e->own_mask & mask;

	if (!((e->own_mask | e->base_mask) & mask))
		return CLEAR_NOTHING;
	e->own_mask &= (uint16_t)~mask;
	e->base_mask &= (uint16_t)~mask;
	if (e->base && !e->base_mask) {
		thin_grace_free(v, e->base);
		e->base = 0;
	}
	if (e->own_mask)
		return own_cleared ? CLEAR_PART : CLEAR_ALL;
	thin_grace_free(v, e->own);
	*e = (struct thin_entry){ .own = e->base, .own_mask = e->base_mask, .shared = e->base != 0 };
	return CLEAR_ALL;
}

/* Does not suspend. [pos, end): whole subclusters of leaf l. True if a cluster lost bits and stays. */
static bool leaf_clear(struct thin_volume *v, struct thin_leaf *l, uint64_t pos, uint64_t end, unsigned *n_records)
{
	struct thin_entry chunk[THIN_REC_MAP_ENTRIES_MAX];
	unsigned n_chunk = 0, n_send = 0;
	bool part = false;
	uint64_t n, first = 0;

	for (; pos < end; pos += n) {
		struct thin_entry_disk *slot = thin_slot(v, l, pos);
		struct thin_entry *e;
		enum clear_result done;

		n = thin_piece(v, pos, end);
		if (n_chunk == THIN_REC_MAP_ENTRIES_MAX) {
			thin_map_hand_in(v, first, chunk, n_send);
			CHECK((*n_records)-- > 0);
			n_chunk = n_send = 0;
		}
		e = &chunk[n_chunk];
		*e = thin_entry_load(slot);
		done = entry_clear(v, e, thin_sub_mask(v, thin_in_cluster(v, pos), n));
		if (!n_chunk && done == CLEAR_NOTHING)
			continue;
		if (!n_chunk)
			first = pos >> v->tr->cluster_shift;
		n_chunk++;
		if (done == CLEAR_NOTHING)
			continue;
		thin_entry_store(e, slot);
		n_send = n_chunk;
		part |= done == CLEAR_PART;
	}
	if (n_send) {
		thin_map_hand_in(v, first, chunk, n_send);
		CHECK((*n_records)-- > 0);
	}
	if (part)
		v->n_cleared = v->n_records; /* until that is durable a crash may bring the bits back */
	thin_grace_kick(v);
	return part;
}

/* Coroutine. [pos, end): whole subclusters within one leaf; `asked` is where the request ends. The volume's last
 * subcluster counts as whole when the volume ends inside of it, but not if it has grown meanwhile. */
static int clear_co_step(struct thin_volume *v, uint64_t pos, uint64_t end, uint64_t asked)
{
	uint64_t first = pos >> v->tr->cluster_shift, last = (end - 1) >> v->tr->cluster_shift;
	unsigned n_records = (unsigned)DIV_UP(last - first + 1, THIN_REC_MAP_ENTRIES_MAX);
	struct range_hold hold;
	struct thin_leaf *l;
	int r = thin_credits_co_take(v->tr, false, n_records);

	if (r < 0)
		return r;
	range_co_lock(&v->alloc_lock, first * THIN_SUBS, (last - first + 1) * THIN_SUBS, false, &hold);
	r = thin_leaf_co_get(v, thin_leaf_of(v, pos), &l);
	if (end > asked && asked < v->bdev.size_bytes)
		end = ALIGN_DOWN(asked, (uint64_t)v->tr->sub_bytes);
	if (r == 0 && leaf_clear(v, l, pos, end, &n_records))
		thin_grace_co_wait(v);
	range_unlock(&v->alloc_lock, &hold);
	thin_credits_put(v->tr, false, n_records);
	return r;
}

/* Coroutine. Where the next leaf is that may have something, at or after pos; end if there is none before it. */
static int clear_co_skip(struct thin_volume *v, uint64_t *pos, uint64_t end)
{
	uint64_t leaf = thin_leaf_of(v, *pos), next = leaf;
	int r;

	if (thin_leaf_is_known(v, leaf))
		return 0;
	r = thin_co_next_leaf(v->t, v->id, &next);
	if (r == -ENOENT) {
		*pos = end;
		return 0;
	}
	if (r == 0 && next > leaf)
		*pos = next > thin_leaf_of(v, end - 1) ? end : next * thin_leaf_bytes(v);
	return r;
}

/* Coroutine. Less than a subcluster. */
static int clear_co_edge(struct thin_volume *v, uint64_t pos, uint64_t end, bool shrinking)
{
	struct iovec zeros = { v->tr->zeros, end - pos };
	struct thin_entry e;
	struct thin_leaf *l;
	int r;

	if (pos >= end)
		return 0;
	r = thin_leaf_co_get(v, thin_leaf_of(v, pos), &l);
	if (r < 0)
		return r;
	e = thin_entry_load(thin_slot(v, l, pos));
	if (!((e.own_mask | e.base_mask) & thin_sub_mask(v, thin_in_cluster(v, pos), 1)))
		return 0;
	if (!shrinking && end > v->bdev.size_bytes)
		return -ERANGE; /* it has shrunk: nothing new may come to be there */
	return thin_co_write(v, pos, end - pos, &zeros, 1);
}

int thin_co_clear(struct thin_volume *v, uint64_t off_bytes, uint64_t len_bytes, bool edges, bool shrinking)
{
	uint64_t sub = v->tr->sub_bytes, off_end = off_bytes + len_bytes, pos = ALIGN_UP(off_bytes, sub), end, stop;
	unsigned steps = 0;
	int r = 0;

	end = off_end >= v->bdev.size_bytes ? ALIGN_UP(off_end, sub) : ALIGN_DOWN(off_end, sub);
	if (edges)
		r = clear_co_edge(v, off_bytes, MIN(pos, off_end), shrinking);
	if (r == 0 && edges && end < off_end && end >= pos)
		r = clear_co_edge(v, end, off_end, shrinking);
	while (r == 0 && pos < end) {
		if (++steps % STEPS_PER_TURN == 0)
			co_yield();
		r = clear_co_skip(v, &pos, end);
		if (r < 0 || pos >= end)
			break;
		stop = MIN(end, thin_leaf_end(v, pos));
		r = clear_co_step(v, pos, stop, off_end);
		pos = stop;
	}
	return r;
}

/* Coroutine. Zeros that keep their space. Goes on where an earlier call found the pool full. */
static int zero_co_write(struct thin_volume *v, struct io *io)
{
	struct thin_req *q = thin_req_of(io);
	struct iovec iov[NO_HOLE_STEP / (64 * KIB)];
	unsigned i;
	int r = 0;

	while (r == 0 && q->done_bytes < io->len_bytes) {
		uint64_t pos = io->off_bytes + q->done_bytes, left = io->len_bytes - q->done_bytes, n, k;

		if (io->off_bytes + io->len_bytes > v->bdev.size_bytes)
			return -ERANGE;
		n = MIN(left, NO_HOLE_STEP - pos % NO_HOLE_STEP);
		for (i = 0, k = n; k; k -= iov[i].iov_len, i++)
			iov[i] = (struct iovec){ v->tr->zeros, MIN(k, 64 * KIB) };
		r = thin_co_write(v, pos, n, iov, i);
		if (r == 0)
			q->done_bytes += n;
	}
	return r;
}

void thin_discard_co_run(void *arg)
{
	struct io *io = arg;
	struct thin_volume *v = thin_req_of(io)->v;
	uint64_t gen = v->tr->space_gen;
	int r;

	if (io->op == IO_ZERO && (io->flags & IO_NO_HOLE))
		r = io->flags & IO_FAST_ZERO ? -EOPNOTSUPP : zero_co_write(v, io);
	else
		r = thin_co_clear(v, io->off_bytes, io->len_bytes, io->op == IO_ZERO, false);
	if (r == -ERR_POOL_FULL && thin_park(v, io, gen))
		return;
	if (r == 0 && (io->flags & IO_FUA))
		r = thin_volume_co_durable(v);
	thin_req_end(io, r);
}
