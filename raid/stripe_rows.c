/*
 * Rows of a run of stripes in memory: read, and what cannot be read reconstructed.
 *
 * A column whose read was late is dropped together with its buffer, since the kernel may still write there; a column that
 * failed is done without as long as there is parity left, and can be rewritten afterwards from what came out.
 */
#include <string.h>

#include "raid/stripe.h"

#define RUN_BYTES (1U << 20)

void stripe_rows_init(struct stripe_rows *s, struct raid_group *g, uint64_t stripe, unsigned n, uint32_t row_off_bytes,
		      uint32_t row_len_bytes)
{
	CHECK(n == 1 || (!row_off_bytes && row_len_bytes == g->desc.strip_bytes));
	CHECK(row_off_bytes + row_len_bytes <= g->desc.strip_bytes);
	memset(s, 0, sizeof(*s));
	s->g = g;
	s->stripe = stripe;
	s->n = n;
	s->row_off_bytes = row_off_bytes;
	s->row_len_bytes = row_len_bytes;
}

/* ---- ranges ---- */

uint32_t stripe_sync_rows(const struct raid_group *g)
{
	uint32_t block = g->raid->conf.block_bytes;

	return MIN(g->desc.strip_bytes, MAX(block, ALIGN_DOWN(RUN_BYTES / g->desc.n_cols, block)));
}

unsigned stripe_sync_run(const struct raid_group *g)
{
	return (unsigned)MAX(1, RUN_BYTES / ((uint64_t)g->desc.strip_bytes * g->desc.n_cols));
}

uint64_t stripe_range_cut(const struct raid_group *g, uint64_t off_bytes, uint64_t end_bytes)
{
	uint64_t bytes = raid_stripe_bytes(g), strip = g->desc.strip_bytes, cut;

	if (stripe_sync_rows(g) < strip)
		cut = MIN((off_bytes / strip + 1) * strip, off_bytes + stripe_sync_rows(g));
	else
		cut = (off_bytes / bytes + stripe_sync_run(g)) * bytes;
	return MIN(cut, end_bytes);
}

void stripe_range_rows(const struct raid_group *g, uint64_t off_bytes, uint64_t end_bytes, struct stripe_range *out)
{
	uint64_t bytes = raid_stripe_bytes(g), stripe = off_bytes / bytes;
	uint32_t strip = g->desc.strip_bytes, begin = strip, end = 0;
	unsigned n = (unsigned)(DIV_UP(end_bytes, bytes) - stripe);
	struct raid_place p;

	*out = (struct stripe_range){ .stripe = stripe, .n = n, .row_len_bytes = strip };
	if (n > 1)
		return;
	for (uint64_t off = off_bytes; off < end_bytes; off += p.len_bytes) {
		uint32_t row;

		raid_place(&g->desc, off, end_bytes - off, &p);
		row = (uint32_t)(p.col_off_bytes & (strip - 1));
		begin = MIN(begin, row);
		end = MAX(end, row + (uint32_t)p.len_bytes);
	}
	out->row_off_bytes = begin;
	out->row_len_bytes = end - begin;
}

/* ---- reading ---- */

static size_t rows_bytes(const struct stripe_rows *s)
{
	return (size_t)s->n * s->row_len_bytes;
}

void stripe_rows_fini(struct stripe_rows *s)
{
	for (unsigned i = 0; i <= RAID_COLS_MAX; i++)
		buf_free(s->buf[i], rows_bytes(s));
}

uint8_t *stripe_rows_at(struct stripe_rows *s, unsigned i, unsigned col)
{
	if (!s->buf[col])
		s->buf[col] = buf_alloc(rows_bytes(s));
	return s->buf[col] + (size_t)i * s->row_len_bytes;
}

/* Coroutine. Takes note of what has failed; true: something has. */
static bool rows_co_run(struct stripe_rows *s, struct stripe_legs *l)
{
	uint64_t failed = 0, late = 0;

	if (stripe_legs_co_run(l))
		failed = stripe_legs_failed(l, &late);
	s->bad |= failed;
	s->late |= late;
	for (; late; late &= late - 1) {
		unsigned col = (unsigned)__builtin_ctzll(late);

		buf_free(s->buf[col], rows_bytes(s));
		s->buf[col] = NULL;
	}
	return failed != 0;
}

void stripe_rows_co_read(struct stripe_rows *s, uint64_t cols, bool may_hedge)
{
	struct stripe_legs l;

	stripe_legs_init(&l, s->g, IO_READ, 0, may_hedge);
	for (; cols; cols &= cols - 1) {
		unsigned col = (unsigned)__builtin_ctzll(cols);

		stripe_legs_add(&l, col, stripe_rows_off(s, 0), stripe_rows_at(s, 0, col), rows_bytes(s));
	}
	rows_co_run(s, &l);
	stripe_legs_fini(&l);
}

bool stripe_plan(const struct raid_group *g, uint32_t avail, uint32_t want, uint32_t *need, uint32_t *lost)
{
	uint32_t data = stripe_data_mask(g), bit_p = data + 1, lost_data = data & ~avail, parity = avail & ~data, use = 0;
	unsigned n_lost = (unsigned)__builtin_popcount(lost_data);

	*need = want;
	*lost = 0;
	if (!(want & ~avail))
		return true;
	for (unsigned i = 0; i < n_lost; i++) {
		if (!parity)
			return false;
		use |= parity & -parity;
		parity &= parity - 1;
	}
	*need = (data & avail) | use | (want & avail);
	*lost = lost_data | (want & ~avail);
	if (lost_data && !(use & bit_p)) /* so that Q is taken */
		*lost |= bit_p;
	return true;
}

int stripe_lost_error(const struct raid_group *g)
{
	return stripe_n_lost(g) > stripe_n_parity(g) ? -ERR_MISSING : -EIO;
}

static void rows_recover(struct stripe_rows *s, unsigned i, uint32_t need, uint32_t lost)
{
	struct raid_group *g = s->g;
	unsigned first = stripe_first_col(g, s->stripe + i);
	void *v[RAID_COLS_MAX] = { NULL };

	for (unsigned pos = 0; pos < g->desc.n_cols; pos++)
		if ((need | lost) & (1U << pos))
			v[pos] = stripe_rows_at(s, i, stripe_col_of(g, first, pos));
	parity_recover(g->data_cols, stripe_n_parity(g), s->row_len_bytes, v, lost);
}

struct obtain {
	struct stripe_rows *s;
	const uint32_t *want;
	uint32_t *need, *lost; /* by stripe */
};

static bool obtain_plan(struct obtain *o, uint64_t avail)
{
	struct raid_group *g = o->s->g;

	for (unsigned i = 0; i < o->s->n; i++) {
		unsigned first = stripe_first_col(g, o->s->stripe + i);

		if (!stripe_plan(g, stripe_pos_mask(g, first, avail), o->want[i], &o->need[i], &o->lost[i]))
			return false;
	}
	return true;
}

/* Coroutine. True: something has failed. */
static bool obtain_co_read(struct obtain *o, bool may_hedge)
{
	struct stripe_rows *s = o->s;
	struct stripe_legs l;
	bool failed;

	stripe_legs_init(&l, s->g, IO_READ, 0, may_hedge);
	for (unsigned col = 0; col < s->g->desc.n_cols; col++)
		for (unsigned i = 0; i < s->n; i++) {
			unsigned pos = stripe_pos_of(s->g, stripe_first_col(s->g, s->stripe + i), col);

			if (o->need[i] & (1U << pos))
				stripe_legs_add(&l, col, stripe_rows_off(s, i), stripe_rows_at(s, i, col), s->row_len_bytes);
		}
	failed = rows_co_run(s, &l);
	stripe_legs_fini(&l);
	return failed;
}

int stripe_rows_co_obtain(struct stripe_rows *s, const uint32_t *want, bool may_hedge, bool stale)
{
	struct obtain o = { .s = s, .want = want };
	uint64_t avail;
	int r = 0;

	o.need = xmalloc(2 * s->n * sizeof(*o.need));
	o.lost = o.need + s->n;
	do {
		avail = (stale ? stripe_there_cols(s->g) : stripe_current_cols(s->g)) & ~s->bad;
		if (!obtain_plan(&o, avail)) {
			r = -ENODATA;
			break;
		}
	} while (obtain_co_read(&o, may_hedge && stripe_may_hedge(s->g)));
	for (unsigned i = 0; i < s->n && !r; i++)
		if (o.lost[i])
			rows_recover(s, i, o.need[i], o.lost[i]);
	if (s->n == 1 && !r)
		s->known = o.need[0] | o.lost[0];
	xfree(o.need);
	return r;
}

/* Coroutine. Writes one column's rows and says what became of it. */
static void rows_co_rewrite(struct stripe_rows *s, unsigned col)
{
	struct raid_group *g = s->g;
	const struct raid_conf *c = &g->raid->conf;
	const struct raid_col *place = &g->desc.cols[col];
	uint64_t off = stripe_rows_off(s, 0);
	struct stripe_legs l;
	int r;

	stripe_legs_init(&l, g, IO_WRITE, 0, false);
	stripe_legs_add(&l, col, off, stripe_rows_at(s, 0, col), s->row_len_bytes);
	r = stripe_legs_co_run(&l);
	stripe_legs_fini(&l);
	if (!r)
		g->raid->stats.repaired++;
	c->hooks->read_repaired(c->ctx, place->disk, place->off_bytes + off, s->row_len_bytes, r);
}

void stripe_rows_co_repair(struct stripe_rows *s)
{
	unsigned first = stripe_first_col(s->g, s->stripe);

	CHECK(s->n == 1);
	for (unsigned col = 0; col < s->g->desc.n_cols; col++) {
		uint32_t bit = 1U << stripe_pos_of(s->g, first, col);

		if ((s->bad & ~s->late & (1ULL << col)) && (s->known & bit) && raid_col_is_current(s->g, col))
			rows_co_rewrite(s, col);
	}
}
