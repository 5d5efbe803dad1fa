/*
 * status.c: block status, at the grain of subclusters. What has no bit is a hole and reads as zeros.
 *
 * An answer is of the time of the call: whatever was acknowledged before it has its bits in the cached entries, or at
 * home. It may end early: after a number of leaves it gives what it has.
 */
#include "thin/volume_internal.h"

#define LEAVES_PER_ANSWER 64

struct answer {
	struct bdev_extent *ext;
	size_t n, cap;
};

/* False: no room for it. */
static bool answer_add(struct answer *a, uint64_t len, uint32_t flags)
{
	if (a->n && a->ext[a->n - 1].flags == flags) {
		a->ext[a->n - 1].len_bytes += len;
		return true;
	}
	if (a->n == a->cap)
		return false;
	a->ext[a->n++] = (struct bdev_extent){ .len_bytes = len, .flags = flags };
	return true;
}

static bool answer_cluster(struct thin_volume *v, struct answer *a, const struct thin_entry *e, uint64_t in, uint64_t n)
{
	uint16_t mask = thin_sub_mask(v, in, n), valid = (e->own_mask | e->base_mask) & mask;
	uint64_t end = in + n, k;

	if (!valid || valid == mask)
		return answer_add(a, n, valid ? 0 : BDEV_HOLE | BDEV_ZERO);
	for (; in < end; in += k) {
		k = MIN(v->tr->sub_bytes - (in & (v->tr->sub_bytes - 1)), end - in);
		if (!answer_add(a, k, valid & thin_sub_mask(v, in, k) ? 0 : BDEV_HOLE | BDEV_ZERO))
			return false;
	}
	return true;
}

static bool answer_leaf(struct thin_volume *v, struct answer *a, struct thin_leaf *l, uint64_t pos, uint64_t end)
{
	uint64_t n;

	for (; pos < end; pos += n) {
		struct thin_entry e = thin_entry_load(thin_slot(v, l, pos));

		n = thin_piece(v, pos, end);
		if (!answer_cluster(v, a, &e, thin_in_cluster(v, pos), n))
			return false;
	}
	return true;
}

/* Coroutine. Skips holes that are not cached: *pos goes to where there may be something. */
static int status_co_skip(struct thin_volume *v, struct answer *a, uint64_t *pos, uint64_t end, bool *full)
{
	uint64_t leaf = thin_leaf_of(v, *pos), next = leaf, to;
	int r;

	if (thin_leaf_is_known(v, leaf))
		return 0;
	r = thin_co_next_leaf(v->t, v->id, &next);
	if (r < 0 && r != -ENOENT)
		return r;
	if (r == 0 && next == leaf)
		return 0;
	to = r == -ENOENT || next > thin_leaf_of(v, end - 1) ? end : next * thin_leaf_bytes(v);
	*full = !answer_add(a, to - *pos, BDEV_HOLE | BDEV_ZERO);
	*pos = to;
	return 0;
}

static int status_co_fill(struct thin_volume *v, struct answer *a, uint64_t pos, uint64_t end)
{
	unsigned leaves = 0;
	bool full = false;
	struct thin_leaf *l;
	uint64_t stop;
	int r;

	while (pos < end && leaves++ < LEAVES_PER_ANSWER) {
		r = status_co_skip(v, a, &pos, end, &full);
		if (r < 0 || full || pos >= end)
			return r;
		r = thin_leaf_co_get(v, thin_leaf_of(v, pos), &l);
		if (r < 0)
			return r;
		stop = MIN(end, thin_leaf_end(v, pos));
		if (!answer_leaf(v, a, l, pos, stop))
			return 0;
		pos = stop;
	}
	return 0;
}

int thin_volume_co_status(struct thin_volume *v, uint64_t off_bytes, uint64_t len_bytes, struct bdev_extent *ext, size_t *n)
{
	struct answer a = { .ext = ext, .cap = *n };
	int r;

	CHECK(*n > 0 && len_bytes > 0);
	if (v->closing)
		return -ESHUTDOWN;
	v->n_inflight++;
	r = status_co_fill(v, &a, off_bytes, off_bytes + len_bytes);
	if (--v->n_inflight == 0 && v->closing)
		co_queue_wake_all(&v->idle);
	*n = a.n;
	return r < 0 && !a.n ? r : 0;
}
