/*
 * read.c: reads. When the leaves are cached nothing suspends; otherwise a coroutine loads them one after the other and
 * starts the reads of each as it comes. Reads hold no lock: a subcluster's bit is set after its data has been written and
 * its cluster is not handed out again before the read has ended, so each sector is old or new.
 */
#include "thin/volume_internal.h"

/* One cluster's part that does not lie in one place. */
static void read_mixed(struct thin_run *x, const struct thin_entry *e, uint64_t in, uint64_t n, uint64_t skip)
{
	struct thin_reactor *tr = x->v->tr;
	uint64_t end = in + n, k;

	for (; in < end; in += k, skip += k) {
		unsigned bit = 1u << (in >> tr->sub_shift);

		k = MIN(tr->sub_bytes - (in & (tr->sub_bytes - 1)), end - in);
		if (e->own_mask & bit)
			thin_run_add(x, (e->own << tr->cluster_shift) + in, skip, k);
		else if (e->base_mask & bit)
			thin_run_add(x, (e->base << tr->cluster_shift) + in, skip, k);
		else
			iov_zero(x->iov, x->iov_n, skip, k);
	}
}

/* [pos, end) lies in leaf l. */
static void read_leaf(struct thin_run *x, struct thin_leaf *l, uint64_t pos, uint64_t end)
{
	struct thin_volume *v = x->v;
	uint64_t n, start = x->parent->off_bytes;

	for (; pos < end; pos += n) {
		struct thin_entry e = thin_entry_load(thin_slot(v, l, pos));
		uint64_t in = thin_in_cluster(v, pos);
		uint16_t mask;

		n = thin_piece(v, pos, end);
		mask = thin_sub_mask(v, in, n);
		if ((e.own_mask & mask) == mask)
			thin_run_add(x, (e.own << v->tr->cluster_shift) + in, pos - start, n);
		else if (!((e.own_mask | e.base_mask) & mask))
			iov_zero(x->iov, x->iov_n, pos - start, n);
		else
			read_mixed(x, &e, in, n, pos - start);
	}
}

static void read_init(struct thin_volume *v, struct io *io, struct thin_run *x)
{
	struct thin_req *q = thin_req_of(io);

	*x = (struct thin_run){ .v = v, .op = IO_READ, .flags = io->flags & IO_MAY_GIVE_UP, .parent = io };
	x->iov = io->iov;
	x->iov_n = io->iov_n;
	if (!q->counted) /* one in a coroutine has been since it was started */
		thin_grace_enter(v, q);
	q->pending = 1;
}

bool thin_read_try(struct thin_volume *v, struct io *io)
{
	uint64_t pos = io->off_bytes, end = pos + io->len_bytes, in = thin_in_cluster(v, pos), stop;
	struct thin_leaf *l;
	struct thin_run x;

	if (likely(in + io->len_bytes <= v->tr->cluster_bytes)) {
		uint16_t mask = thin_sub_mask(v, in, io->len_bytes);
		struct thin_entry e;

		l = thin_leaf_peek(v, thin_leaf_of(v, pos));
		if (!l)
			return false;
		e = thin_entry_load(thin_slot(v, l, pos));
		if (likely((e.own_mask & mask) == mask)) {
			thin_grace_enter(v, thin_req_of(io));
			thin_child_whole(v, io, (e.own << v->tr->cluster_shift) + in, 0);
			return true;
		}
	} else {
		for (; pos < end; pos = thin_leaf_end(v, pos))
			if (!thin_leaf_peek(v, thin_leaf_of(v, pos)))
				return false;
	}
	read_init(v, io, &x);
	for (pos = io->off_bytes; pos < end; pos = stop) {
		stop = MIN(end, thin_leaf_end(v, pos));
		read_leaf(&x, thin_leaf_peek(v, thin_leaf_of(v, pos)), pos, stop);
	}
	thin_run_submit(&x);
	if (--thin_req_of(io)->pending == 0) { /* nothing but zeros */
		thin_req_of(io)->pending = 1;
		thin_child_nothing(v, io);
	}
	return true;
}

void thin_read_co_run(void *arg)
{
	struct io *io = arg;
	struct thin_volume *v = thin_req_of(io)->v;
	uint64_t pos, end = io->off_bytes + io->len_bytes, stop;
	struct thin_leaf *l;
	struct thin_run x;
	int r = 0;

	read_init(v, io, &x);
	for (pos = io->off_bytes; pos < end; pos = stop) {
		stop = MIN(end, thin_leaf_end(v, pos));
		r = thin_leaf_co_get(v, thin_leaf_of(v, pos), &l);
		if (r < 0)
			break;
		read_leaf(&x, l, pos, stop);
		thin_run_submit(&x);
	}
	thin_child_ended(io, r);
}
