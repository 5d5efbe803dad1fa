/*
 * Writes of parity layouts: how a request is cut, and stripes that are written whole.
 *
 * A request's whole stripes are written by its own coroutine, its head and tail go to the assembler (stripe_asm.c), which
 * calls back here with all it has of one stripe.
 *
 * Whole stripes. Parity is computed from the payload as it lies, without reading, and each column gets one leg for a run of
 * stripes. A strip is copied only where it is not one aligned piece of one buffer.
 *
 * What a crash leaves. If every byte is IO_FRESH, nobody may read anything of the stripe before a flush has made all of it
 * durable, so it is written in place at once. But an older entry of the log, replayed, would undo a part of it after that
 * flush: if there is one it is cancelled first, and what it was to protect is not needed any more, for nothing of the stripe is.
 * If a byte of it is not fresh, the stripe goes through the log like any other write: its old sectors are being read by
 * somebody, and between the first and the last column they would hang on parity that is neither old nor new. And what is due
 * there (stripe_redo.c) is done before; of a fresh stripe it is dropped.
 */
#include <string.h>

#include "raid/stripe.h"

#define WHOLE_BYTES (4U << 20) /* of data, written at once */

struct whole {
	struct raid_group *g;
	uint64_t stripe;
	unsigned n;
	struct list *pieces;
	bool fresh, fua;
	uint32_t *own;	/* by stripe: positions whose buffer is ours */
	uint8_t **v;	/* by stripe and position */
	uint8_t *zeros; /* a strip of them, if needed */
};

static uint8_t **whole_v(const struct whole *w, unsigned i)
{
	return w->v + (size_t)i * w->g->desc.n_cols;
}

/* ---- payload ---- */

/* Part of the strip that begins at off_bytes (in the group) which the piece covers; false: none. */
static bool piece_cut(const struct stripe_piece *p, uint64_t off_bytes, uint64_t len_bytes, uint64_t *begin, uint64_t *end)
{
	*begin = MAX(off_bytes, p->off_bytes);
	*end = MIN(off_bytes + len_bytes, p->off_bytes + p->len_bytes);
	return *begin < *end;
}

/* The strip as it lies in the only piece that has it; NULL: not in one place, or not aligned. */
static uint8_t *strip_in_place(struct whole *w, uint64_t off_bytes)
{
	uint32_t len = w->g->desc.strip_bytes;
	const struct stripe_piece *p, *only = NULL;
	uint64_t begin, end;
	struct iovec iov;

	list_for_each(p, w->pieces, link)
		if (piece_cut(p, off_bytes, len, &begin, &end)) {
			if (only || end - begin != len)
				return NULL;
			only = p;
		}
	CHECK(only);
	if (only->parent->op == IO_ZERO) {
		if (!w->zeros)
			w->zeros = buf_alloc_zero(len);
		return w->zeros;
	}
	if (iov_slice(only->parent->iov, only->parent->iov_n, only->skip_bytes + (off_bytes - only->off_bytes), len, &iov, 1) != 1)
		return NULL;
	return IS_ALIGNED((uintptr_t)iov.iov_base, PARITY_ALIGN) ? iov.iov_base : NULL;
}

void stripe_piece_copy(const struct stripe_piece *p, uint64_t off_bytes, uint64_t len_bytes, uint8_t *to)
{
	if (p->parent->op == IO_ZERO)
		memset(to, 0, len_bytes);
	else
		iov_to_buf(p->parent->iov, p->parent->iov_n, p->skip_bytes + (off_bytes - p->off_bytes), to, len_bytes);
}

static void whole_strip(struct whole *w, unsigned i, unsigned pos)
{
	uint32_t len = w->g->desc.strip_bytes;
	uint64_t off = (w->stripe + i) * raid_stripe_bytes(w->g) + (uint64_t)pos * len, begin, end;
	uint8_t *strip = strip_in_place(w, off);
	const struct stripe_piece *p;

	if (!strip) {
		strip = buf_alloc(len);
		w->own[i] |= 1U << pos;
		list_for_each(p, w->pieces, link)
			if (piece_cut(p, off, len, &begin, &end))
				stripe_piece_copy(p, begin, end - begin, strip + (begin - off));
	}
	whole_v(w, i)[pos] = strip;
}

static void whole_parity(struct whole *w, unsigned i)
{
	unsigned k = w->g->data_cols, n = w->g->desc.n_cols;
	uint8_t **v = whole_v(w, i);
	void *cols[RAID_COLS_MAX];
	bool zero = true;

	for (unsigned pos = 0; pos < k; pos++)
		zero &= v[pos] == w->zeros;
	for (unsigned pos = k; pos < n; pos++) {
		v[pos] = zero ? w->zeros : buf_alloc(w->g->desc.strip_bytes);
		if (!zero)
			w->own[i] |= 1U << pos;
	}
	for (unsigned pos = 0; pos < n; pos++)
		cols[pos] = v[pos];
	if (!zero)
		parity_gen(k, n - k, w->g->desc.strip_bytes, cols);
}

static void whole_load(struct whole *w)
{
	w->own = xcalloc(w->n, sizeof(*w->own));
	w->v = xcalloc((size_t)w->n * w->g->desc.n_cols, sizeof(*w->v));
	w->zeros = NULL;
	for (unsigned i = 0; i < w->n; i++) {
		for (unsigned pos = 0; pos < w->g->data_cols; pos++)
			whole_strip(w, i, pos);
		whole_parity(w, i);
	}
}

static void whole_fini(struct whole *w)
{
	for (unsigned i = 0; i < w->n; i++)
		for (uint32_t own = w->own[i]; own; own &= own - 1)
			buf_free(whole_v(w, i)[__builtin_ctz(own)], w->g->desc.strip_bytes);
	buf_free(w->zeros, w->g->desc.strip_bytes);
	xfree(w->own);
	xfree(w->v);
}

/* ---- log and place ---- */

/* All columns of the rows of n stripes from the i-th. Takes memory for e and iov; the payload stays where it is. */
static struct stripe_logged whole_entries(const struct whole *w, unsigned i, unsigned n, uint32_t row, uint32_t len)
{
	struct raid_group *g = w->g;
	unsigned n_cols = g->desc.n_cols, n_iov = 0;
	struct stripe_log_entry *e = xmalloc(n * sizeof(*e));
	struct iovec *iov = xmalloc((size_t)n * n_cols * sizeof(*iov));

	for (unsigned k = 0; k < n; k++) {
		uint64_t stripe = w->stripe + i + k;
		unsigned first = stripe_first_col(g, stripe);

		e[k] = (struct stripe_log_entry){ .group = g->desc.group, .stripe = stripe, .row_off_bytes = row,
						  .row_len_bytes = len, .cols = (uint32_t)((1ULL << n_cols) - 1) };
		for (unsigned col = 0; col < n_cols; col++)
			iov[n_iov++] = (struct iovec){ whole_v(w, i + k)[stripe_pos_of(g, first, col)] + row, len };
	}
	return (struct stripe_logged){ .e = e, .n = n, .iov = iov, .iov_n = n_iov };
}

static int whole_co_place(const struct whole *w, unsigned i, unsigned n, uint32_t row, uint32_t len, unsigned flags)
{
	struct raid_group *g = w->g;
	struct stripe_legs l;
	int r;

	stripe_legs_init(&l, g, IO_WRITE, flags, false);
	for (uint64_t cols = stripe_there_cols(g); cols; cols &= cols - 1) {
		unsigned leg = (unsigned)__builtin_ctzll(cols), col = leg < g->desc.n_cols ? leg : (unsigned)g->target_col;

		for (unsigned k = 0; k < n; k++) {
			uint64_t stripe = w->stripe + i + k;
			unsigned pos = stripe_pos_of(g, stripe_first_col(g, stripe), col);

			stripe_legs_add(&l, leg, (stripe << g->strip_shift) + row, whole_v(w, i + k)[pos] + row, len);
		}
	}
	r = stripe_legs_co_run(&l);
	if (r)
		r = stripe_co_settle(&l);
	stripe_legs_fini(&l);
	return r;
}

/* Coroutine. Rows of n stripes from the i-th that fit one append. */
static int whole_co_logged(const struct whole *w, unsigned i, unsigned n, uint32_t row, uint32_t len)
{
	struct stripe_logged a = whole_entries(w, i, n, row, len);
	struct raid_group *g = w->g;
	struct stripe_log_ticket t;
	int r = stripe_log_co_append(g->raid->log, a.e, a.n, a.iov, a.iov_n, &t);

	if (!r) {
		r = whole_co_place(w, i, n, row, len, 0);
		stripe_redo_end(g, &a, &t, r);
	}
	xfree((void *)a.iov);
	xfree((void *)a.e);
	return r;
}

static int whole_co_write_logged(const struct whole *w)
{
	struct raid_group *g = w->g;
	uint32_t strip = g->desc.strip_bytes, rows = stripe_log_rows(g), len;
	unsigned n, at_once = rows < strip ? 1 : (unsigned)(stripe_log_max_bytes(g->raid->log) / ((uint64_t)strip * g->desc.n_cols));
	int r = 0;

	if (!rows)
		return -EOPNOTSUPP;
	at_once = MIN(at_once, STRIPE_LOG_ENTRIES_MAX);
	for (unsigned i = 0; i < w->n && !r; i += n) {
		n = MIN(at_once, w->n - i);
		for (uint32_t row = 0; row < strip && !r; row += len) {
			len = MIN(strip - row, rows);
			r = whole_co_logged(w, i, n, row, len);
		}
	}
	return r;
}

static int whole_co_write_fresh(const struct whole *w)
{
	struct raid_group *g = w->g;
	int r = 0;

	if (!MUTANT(LOG_CANCEL_SKIPPED) && stripe_log_is_live(g->raid->log, g->desc.group, w->stripe, w->n))
		r = stripe_log_co_cancel(g->raid->log, g->desc.group, w->stripe, w->n);
	if (r)
		return r;
	return stripe_unlogged(g, w->stripe, w->n, whole_co_place(w, 0, w->n, 0, g->desc.strip_bytes, w->fua ? IO_FUA : 0));
}

int stripe_co_write_whole(struct raid_group *g, uint64_t stripe, unsigned n, struct list *pieces)
{
	struct whole w = { .g = g, .pieces = pieces, .fresh = true };
	unsigned at_once = (unsigned)MAX(1, WHOLE_BYTES / raid_stripe_bytes(g));
	struct stripe_piece *p;
	int r = 0;

	if (stripe_n_lost(g) > stripe_n_parity(g))
		return -ERR_MISSING;
	list_for_each(p, pieces, link) {
		w.fresh &= (p->parent->flags & IO_FRESH) != 0;
		w.fua |= (p->parent->flags & IO_FUA) != 0;
	}
	if (w.fresh)
		stripe_redo_drop(g, stripe, n); /* now: it could go to the log again, behind the cancel */
	else
		r = stripe_redo_co_stripes(g, stripe, n);
	for (unsigned i = 0; i < n && !r; i += w.n) {
		w.stripe = stripe + i;
		w.n = MIN(at_once, n - i);
		whole_load(&w);
		if (w.fresh || MUTANT(STRIPE_LOG_SKIPPED))
			r = whole_co_write_fresh(&w);
		else
			r = whole_co_write_logged(&w);
		whole_fini(&w);
		g->raid->stats.stripes_full += w.n;
	}
	return r;
}

/* ---- one stripe, whatever there is of it ---- */

/* Do the pieces cover [off, end)? */
static bool pieces_cover(struct list *pieces, uint64_t off_bytes, uint64_t end_bytes)
{
	uint64_t at = off_bytes, sum = 0;
	struct stripe_piece *p;
	bool further = true;

	list_for_each(p, pieces, link)
		sum += p->len_bytes;
	if (sum < end_bytes - off_bytes)
		return false;
	while (at < end_bytes && further) {
		further = false;
		list_for_each(p, pieces, link)
			if (p->off_bytes <= at && p->off_bytes + p->len_bytes > at) {
				at = p->off_bytes + p->len_bytes;
				further = true;
			}
	}
	return at >= end_bytes;
}

int stripe_co_write(struct raid_group *g, uint64_t stripe, struct list *pieces)
{
	uint64_t bytes = raid_stripe_bytes(g);
	int r;

	if (pieces_cover(pieces, stripe * bytes, (stripe + 1) * bytes))
		return stripe_co_write_whole(g, stripe, 1, pieces);
	if (stripe_n_lost(g) > stripe_n_parity(g))
		return -ERR_MISSING;
	r = stripe_co_make_sync(g, stripe, 1);
	return r ? r : stripe_co_write_part(g, stripe, pieces);
}

/* ---- requests ---- */

static void piece_joined(struct stripe_piece *p, int result)
{
	co_join_done(p->owner, result);
}

static void req_piece(struct raid_req *q, struct stripe_piece *p, uint64_t off_bytes, uint64_t end_bytes)
{
	list_init(&p->link);
	p->parent = q->parent;
	p->off_bytes = off_bytes;
	p->len_bytes = end_bytes - off_bytes;
	p->skip_bytes = off_bytes - q->off_bytes;
	p->done = NULL;
}

static void req_hand(struct raid_group *g, struct stripe_piece *p, struct co_join *j)
{
	p->done = piece_joined;
	p->owner = j;
	co_join_add(j);
	stripe_asm_add(g, p);
}

static int req_co_whole(struct raid_group *g, struct stripe_piece *p)
{
	uint64_t bytes = raid_stripe_bytes(g);
	struct raid_locks lk;
	struct list one;
	int r;

	list_init(&one);
	list_push_back(&one, &p->link);
	stripe_asm_enter(g);
	stripe_co_lock(g, p->off_bytes / bytes, p->len_bytes / bytes, false, &lk);
	r = stripe_co_write_whole(g, p->off_bytes / bytes, (unsigned)(p->len_bytes / bytes), &one);
	raid_unlock(&lk);
	stripe_asm_leave(g);
	return r;
}

int stripe_co_write_req(struct raid_group *g, struct raid_req *q)
{
	uint64_t bytes = raid_stripe_bytes(g), off = q->off_bytes, end = off + q->parent->len_bytes;
	uint64_t first = DIV_UP(off, bytes) * bytes, last = end / bytes * bytes;
	struct stripe_piece head, whole, tail;
	struct co_join j;
	int r = 0, e;

	if (q->parent->flags & IO_FAST_ZERO)
		return -EOPNOTSUPP;
	if (!g->raid->log)
		return -ERR_POOL_FULL;
	stripe_asm_note(g, end);
	co_join_init(&j);
	if (off < first) {
		req_piece(q, &head, off, MIN(first, end));
		req_hand(g, &head, &j);
	}
	if (last < end && last >= first) {
		req_piece(q, &tail, last, end);
		req_hand(g, &tail, &j);
	}
	if (first < last) {
		req_piece(q, &whole, first, last);
		r = req_co_whole(g, &whole);
	}
	e = co_join_wait(&j);
	return r ? r : e;
}
