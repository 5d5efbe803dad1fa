/*
 * Legs of the parity engine: what is to be read from or written to several columns, gathered first, submitted at once.
 *
 * Settling. When legs of a write fail, the pool decides about each disk. If all of them are durably out, what they hold is not
 * believed again before it has been brought up to date, and parity was computed for the new contents: the write is good if
 * no more columns are lost than there is parity. If the pool refuses, the rows are half written on a disk that stays; with
 * other columns lost, that is damage to data nobody was writing. So the legs are tried once more: what ailed the disk may
 * have passed. Only then is it the write's error; what was logged is due from then on (stripe_redo.c).
 */
#include <string.h>

#include "raid/stripe.h"

/* ---- columns ---- */

static uint64_t group_cols(const struct raid_group *g, bool current)
{
	unsigned n = current ? g->desc.n_cols : raid_n_legs_cols(g);
	uint64_t cols = 0;

	for (unsigned i = 0; i < n; i++)
		if (current ? raid_col_is_current(g, i) : raid_col_is_there(g, i))
			cols |= 1ULL << i;
	if (MUTANT(TARGET_SKIPS_WRITES))
		cols &= (1ULL << g->desc.n_cols) - 1;
	return cols;
}

uint64_t stripe_current_cols(const struct raid_group *g)
{
	return group_cols(g, true);
}

uint64_t stripe_there_cols(const struct raid_group *g)
{
	return group_cols(g, false);
}

unsigned stripe_n_lost(const struct raid_group *g)
{
	return g->desc.n_cols - (unsigned)__builtin_popcountll(stripe_current_cols(g));
}

uint64_t stripe_regions(const struct raid_group *g, uint64_t stripe, uint64_t n)
{
	uint64_t bytes = raid_stripe_bytes(g), off = stripe * bytes;

	return raid_region_mask(&g->desc, off, MIN(n * bytes, g->desc.size_bytes - off));
}

void stripe_co_lock(struct raid_group *g, uint64_t stripe, uint64_t n, bool shared, struct raid_locks *lk)
{
	uint64_t bytes = raid_stripe_bytes(g), off = stripe * bytes;

	raid_co_lock(g, off, MIN(n * bytes, g->desc.size_bytes - off), shared, lk);
}

bool stripe_try_lock(struct raid_group *g, uint64_t stripe, struct raid_locks *lk)
{
	uint64_t bytes = raid_stripe_bytes(g), off = stripe * bytes;

	return raid_try_lock(g, off, MIN(bytes, g->desc.size_bytes - off), false, lk);
}

/* ---- gathering ---- */

void stripe_legs_init(struct stripe_legs *l, struct raid_group *g, enum io_op op, unsigned flags, bool may_hedge)
{
	*l = (struct stripe_legs){ .g = g, .op = op, .flags = flags };
	if (op == IO_READ) /* late ones are never looked at again, see stripe_legs_failed() */
		l->leg_flags = RAID_LEG_DIRECT | RAID_LEG_CHECK_ZEROS | (may_hedge ? RAID_LEG_HEDGE : 0);
}

void stripe_legs_fini(struct stripe_legs *l)
{
	xfree(l->legs);
	xfree(l->iov);
}

static struct stripe_leg *leg_new(struct stripe_legs *l, unsigned col, uint64_t col_off_bytes)
{
	struct stripe_leg *leg;

	if (l->n == l->cap) {
		l->cap = l->cap ? 2 * l->cap : 8;
		l->legs = xrealloc(l->legs, l->cap * sizeof(*l->legs));
	}
	leg = &l->legs[l->n++];
	io_prep(&leg->io, l->op, l->g->desc.cols[col].off_bytes + col_off_bytes, 0, NULL, l->flags);
	leg->iov_at = l->n_iov;
	leg->col = (uint8_t)col;
	return leg;
}

static void leg_grow(struct stripe_legs *l, struct stripe_leg *leg, uint8_t *buf, uint64_t len_bytes)
{
	struct iovec *last = leg->io.iov_n ? &l->iov[l->n_iov - 1] : NULL;

	leg->io.len_bytes += len_bytes;
	if (last && (uint8_t *)last->iov_base + last->iov_len == buf) {
		last->iov_len += len_bytes;
		return;
	}
	if (l->n_iov == l->iov_cap) {
		l->iov_cap = l->iov_cap ? 2 * l->iov_cap : 16;
		l->iov = xrealloc(l->iov, l->iov_cap * sizeof(*l->iov));
	}
	l->iov[l->n_iov++] = (struct iovec){ buf, len_bytes };
	leg->io.iov_n++;
}

void stripe_legs_add(struct stripe_legs *l, unsigned col, uint64_t col_off_bytes, void *buf, uint64_t len_bytes)
{
	uint64_t max = l->g->raid->leg_max_bytes, at = l->g->desc.cols[col].off_bytes + col_off_bytes, part;
	struct stripe_leg *leg = l->n ? &l->legs[l->n - 1] : NULL;

	for (uint64_t done = 0; done < len_bytes; done += part) {
		if (!leg || leg->col != col || leg->io.off_bytes + leg->io.len_bytes != at + done ||
		    leg->io.len_bytes >= max || leg->io.iov_n == RAID_LEG_IOV_MAX)
			leg = leg_new(l, col, col_off_bytes + done);
		part = MIN(len_bytes - done, max - leg->io.len_bytes);
		leg_grow(l, leg, (uint8_t *)buf + done, part);
	}
}

void stripe_legs_add_entry(struct stripe_legs *l, unsigned leg, const struct stripe_log_entry *e, uint8_t *payload)
{
	const struct raid_group *g = l->g;
	unsigned col = leg < g->desc.n_cols ? leg : (unsigned)g->target_col;
	unsigned before = (unsigned)__builtin_popcount(e->cols & ((1U << col) - 1));

	if (e->cols & (1U << col))
		stripe_legs_add(l, leg, (e->stripe << g->strip_shift) + e->row_off_bytes, payload + (size_t)before * e->row_len_bytes,
				e->row_len_bytes);
}

/* ---- running ---- */

static void leg_submit(struct stripe_legs *l, struct stripe_leg *leg, struct co_join *j)
{
	struct raid_group *g = l->g;

	leg->io.result = 0;
	if (!raid_col_is_there(g, leg->col)) {
		leg->io.result = l->op == IO_READ ? -ENODEV : 0;
		return;
	}
	leg->io.iov = l->iov + leg->iov_at;
	raid_disk_submit_join(g->raid, g->desc.cols[leg->col].disk, &leg->io, j, l->leg_flags);
}

static int legs_result(const struct stripe_legs *l)
{
	for (unsigned i = 0; i < l->n; i++)
		if (l->legs[i].io.result)
			return l->legs[i].io.result;
	return 0;
}

int stripe_legs_co_run(struct stripe_legs *l)
{
	struct co_join j;

	co_join_init(&j);
	for (unsigned i = 0; i < l->n; i++) {
		if (l->op == IO_READ)
			raid_slot(l->g, l->legs[i].col)->n_reads++;
		leg_submit(l, &l->legs[i], &j);
	}
	(void)co_join_wait(&j); /* legs that were not submitted count too */
	if (l->op == IO_READ)
		for (unsigned i = 0; i < l->n; i++)
			raid_slot(l->g, l->legs[i].col)->n_reads--;
	return legs_result(l);
}

uint64_t stripe_legs_failed(const struct stripe_legs *l, uint64_t *late)
{
	uint64_t failed = 0;

	*late = 0;
	for (unsigned i = 0; i < l->n; i++) {
		uint64_t bit = 1ULL << l->legs[i].col;

		if (l->legs[i].io.result)
			failed |= bit;
		if (l->legs[i].io.result == -ETIMEDOUT || l->legs[i].io.result == -ENODEV)
			*late |= bit;
	}
	return failed;
}

/* ---- settling ---- */

/* Coroutine. Legs that failed, once more, where the disk is still there. 0: all of them are written now. */
static int settle_co_again(struct stripe_legs *l)
{
	struct raid_group *g = l->g;
	struct co_join j;

	for (unsigned i = 0; i < l->n; i++)
		if (l->legs[i].io.result == -ETIMEDOUT && raid_col_is_there(g, l->legs[i].col))
			return -ETIMEDOUT; /* the first one may still come */
	co_join_init(&j);
	for (unsigned i = 0; i < l->n; i++) {
		struct stripe_leg *leg = &l->legs[i];

		if (leg->col == g->desc.n_cols && !g->target_must)
			leg->io.result = 0; /* the pool has been told, and this is the end of the target */
		else if (leg->io.result)
			leg_submit(l, leg, &j);
	}
	(void)co_join_wait(&j);
	return legs_result(l);
}

int stripe_co_settle(struct stripe_legs *l)
{
	struct raid_group *g = l->g;
	struct raid_outcome o = { 0 };
	uint64_t good;
	int r;

	if (MUTANT(WRITE_ERROR_FORGOTTEN))
		return 0;
	for (unsigned i = 0; i < l->n; i++)
		raid_outcome_add(&o, l->legs[i].col, l->legs[i].io.result);
	r = raid_co_ask_pool(g, IO_WRITE, &o);
	if (r && !settle_co_again(l)) {
		r = 0;
		memset(&o, 0, sizeof(o));
	}
	good = stripe_current_cols(g);
	for (unsigned col = 0; col < g->desc.n_cols; col++)
		if (o.error[col])
			good &= ~(1ULL << col);
	if (!r && g->desc.n_cols - (unsigned)__builtin_popcountll(good) > stripe_n_parity(g))
		r = -EIO;
	return r == -ENODATA ? -EIO : r; /* the callers' word for rows that cannot be read */
}
