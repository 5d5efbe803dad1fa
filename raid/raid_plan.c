/*
 * A request that spans strips: cut in pieces (one per strip and place), then the pieces of one column that follow each
 * other on it are put together again to one leg, up to the disk's limit. A large sequential request becomes one I/O per
 * column, scattered over the parent's buffers. All memory is taken in two steps whose size the request bounds.
 */
#include "raid/raid_impl.h"

void raid_plan_init(struct raid_plan *p, struct raid_group *g, struct raid_req *q, bool strips)
{
	uint64_t off = q->off_bytes, left = q->parent->len_bytes;
	unsigned cap = (unsigned)(left >> g->strip_shift) + 2;

	p->g = g;
	p->parent = q->parent;
	p->off_bytes = off;
	p->n_pieces = p->n_legs = p->n_iov = p->legs_cap = p->iov_cap = 0;
	p->legs = NULL;
	p->iov = NULL;
	p->pieces = xmalloc(cap * sizeof(*p->pieces));
	while (left) {
		struct raid_piece *piece = &p->pieces[p->n_pieces++];

		CHECK(p->n_pieces <= cap);
		if (strips)
			raid_place(&g->desc, off, left, &piece->place);
		else
			raid_locate(g, off, left, &piece->place);
		piece->off_bytes = off;
		piece->cols = 0;
		off += piece->place.len_bytes;
		left -= piece->place.len_bytes;
	}
}

/* Whether `more` bytes at col_off can join the leg, with at most iov_n more entries. */
static bool leg_takes(const struct raid_leg *l, uint64_t col_off_bytes, unsigned iov_n, uint64_t max_bytes)
{
	return l->col_off_bytes + l->io.len_bytes == col_off_bytes && l->io.len_bytes < max_bytes &&
	       l->io.iov_n + iov_n <= RAID_LEG_IOV_MAX;
}

static struct raid_leg *leg_new(struct raid_plan *p, unsigned col, uint64_t col_off_bytes)
{
	struct raid_leg *l = &p->legs[p->n_legs++];

	CHECK(p->n_legs <= p->legs_cap);
	l->slot = raid_slot(p->g, col);
	l->col = (uint8_t)col;
	l->flags = 0;
	l->col_off_bytes = col_off_bytes;
	io_prep(&l->io, p->parent->op, p->g->desc.cols[col].off_bytes + col_off_bytes, 0, NULL, p->parent->flags);
	l->io.iov = p->iov ? p->iov + p->n_iov : NULL;
	return l;
}

static void leg_grow(struct raid_plan *p, struct raid_leg *l, uint64_t parent_skip, uint64_t len_bytes)
{
	unsigned n;

	l->io.len_bytes += len_bytes;
	if (!p->iov)
		return;
	n = iov_slice(p->parent->iov, p->parent->iov_n, parent_skip, len_bytes, p->iov + p->n_iov,
		      p->iov_cap - p->n_iov);
	CHECK(n > 0);
	p->n_iov += n;
	l->io.iov_n += n;
}

/* Legs of one column. */
static void plan_column(struct raid_plan *p, unsigned col)
{
	uint64_t max = p->g->raid->leg_max_bytes;
	struct raid_leg *l = NULL;

	for (unsigned i = 0; i < p->n_pieces; i++) {
		const struct raid_piece *piece = &p->pieces[i];
		uint64_t done = 0, len;

		if (!(piece->cols & (1ULL << col)))
			continue;
		for (; done < piece->place.len_bytes; done += len) {
			uint64_t at = piece->place.col_off_bytes + done;

			if (!l || !leg_takes(l, at, p->parent->iov_n, max))
				l = leg_new(p, col, at);
			len = MIN(piece->place.len_bytes - done, max - l->io.len_bytes);
			leg_grow(p, l, piece->off_bytes - p->off_bytes + done, len);
		}
	}
}

void raid_plan_legs(struct raid_plan *p)
{
	const struct io *io = p->parent;
	bool payload = io->op == IO_READ || io->op == IO_WRITE;
	unsigned cuts = 0;
	uint64_t cols = 0;

	/* each piece of each column is cut where it begins and at the disk's limit */
	for (unsigned i = 0; i < p->n_pieces; i++) {
		unsigned parts = 2 + (unsigned)(p->pieces[i].place.len_bytes / p->g->raid->leg_max_bytes);

		cuts += parts * (unsigned)__builtin_popcountll(p->pieces[i].cols);
		cols |= p->pieces[i].cols;
	}
	p->legs_cap = cuts;
	p->iov_cap = payload ? cuts + io->iov_n * (unsigned)__builtin_popcountll(cols) : 0;
	p->legs = xmalloc(p->legs_cap * sizeof(*p->legs));
	if (payload)
		p->iov = xmalloc(p->iov_cap * sizeof(*p->iov));
	for (; cols; cols &= cols - 1)
		plan_column(p, (unsigned)__builtin_ctzll(cols));
}

int raid_plan_co_run(struct raid_plan *p)
{
	struct co_join j;
	int r;

	co_join_init(&j);
	for (unsigned i = 0; i < p->n_legs; i++) {
		struct raid_leg *l = &p->legs[i];

		if (p->parent->op == IO_READ)
			l->slot->n_reads++;
		raid_disk_submit_join(p->g->raid, (unsigned)(l->slot - p->g->raid->disks), &l->io, &j, l->flags);
	}
	r = co_join_wait(&j);
	if (p->parent->op == IO_READ)
		for (unsigned i = 0; i < p->n_legs; i++)
			p->legs[i].slot->n_reads--;
	return r;
}

void raid_plan_fini(struct raid_plan *p)
{
	xfree(p->iov);
	xfree(p->legs);
	xfree(p->pieces);
}
