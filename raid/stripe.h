/*
 * stripe.h: what the files of the parity engine (stripe_*.c) share. Nobody else includes it.
 *
 * Words. A stripe has n_cols strips, one on each column. A *position* is a strip's role in its stripe: data 0 .. k-1, P = k,
 * Q = k + 1; which column has it changes from stripe to stripe. A *row* is one block of every strip at the same offset: what
 * parity ties together. All writes of rows, and whatever believes parity, hold the stripe's lock (raid_co_lock() over
 * the whole of it): shared is enough to reconstruct, everything else takes it exclusively. A column is *lost* when it is not
 * current (raid_col_is_current()), whether or not its disk is there.
 *
 * Context: home instance of the group, in a coroutine, in flight in the group; `co` functions suspend.
 */
#ifndef RAID_STRIPE_H
#define RAID_STRIPE_H

#include "raid/parity.h"
#include "raid/raid_impl.h"

/* ---- roles ---- */

static inline unsigned stripe_n_parity(const struct raid_group *g)
{
	return g->desc.n_cols - g->data_cols;
}

/* Column of position 0; position p is p columns further, round the end. */
static inline unsigned stripe_first_col(const struct raid_group *g, uint64_t stripe)
{
	struct raid_place p;

	raid_place(&g->desc, stripe * raid_stripe_bytes(g), 1, &p);
	return p.cols[0];
}

static inline unsigned stripe_col_of(const struct raid_group *g, unsigned first, unsigned pos)
{
	return (first + pos) % g->desc.n_cols;
}

static inline unsigned stripe_pos_of(const struct raid_group *g, unsigned first, unsigned col)
{
	return (col + g->desc.n_cols - first) % g->desc.n_cols;
}

static inline uint32_t stripe_data_mask(const struct raid_group *g)
{
	return (1U << g->data_cols) - 1;
}

/* Bits of positions for bits of columns; a target's bit falls away. */
static inline uint32_t stripe_pos_mask(const struct raid_group *g, unsigned first, uint64_t cols)
{
	unsigned n = g->desc.n_cols;
	uint64_t all = (1ULL << n) - 1;

	cols &= all;
	return (uint32_t)(((cols >> first) | (cols << (n - first))) & all);
}

static inline uint64_t stripe_n_stripes(const struct raid_group *g)
{
	return DIV_UP(g->desc.size_bytes, raid_stripe_bytes(g));
}

/* Columns that serve reads; those that take writes, the target among them; those that take writes without being current. */
uint64_t stripe_current_cols(const struct raid_group *g);
uint64_t stripe_there_cols(const struct raid_group *g);
unsigned stripe_n_lost(const struct raid_group *g);

/* Can one more column be done without? Then its read may be given up early. */
static inline bool stripe_may_hedge(const struct raid_group *g)
{
	return stripe_n_lost(g) < stripe_n_parity(g);
}

/* How to get the contents of positions `want` of a row of which `avail` can be read: the positions to read, and those to give
 * to parity_recover() (0: none). False: there are too few. P is preferred to Q. */
bool stripe_plan(const struct raid_group *g, uint32_t avail, uint32_t want, uint32_t *need, uint32_t *lost);

/* Locks n stripes. */
void stripe_co_lock(struct raid_group *g, uint64_t stripe, uint64_t n, bool shared, struct raid_locks *lk);
/* One stripe, exclusively, if nobody has any of it. */
bool stripe_try_lock(struct raid_group *g, uint64_t stripe, struct raid_locks *lk);

/* Regions of n stripes. */
uint64_t stripe_regions(const struct raid_group *g, uint64_t stripe, uint64_t n);

/* ---- stripe_leg.c: I/O to several columns at once; what follows on a column becomes one request ---- */
struct stripe_leg {
	struct io io;
	uint32_t iov_at;
	uint8_t col;
};

struct stripe_legs {
	struct raid_group *g;
	enum io_op op;
	unsigned flags;
	unsigned leg_flags; /* RAID_LEG_* */
	unsigned n, cap, n_iov, iov_cap;
	struct stripe_leg *legs;
	struct iovec *iov;
};

void stripe_legs_init(struct stripe_legs *l, struct raid_group *g, enum io_op op, unsigned flags, bool may_hedge);
/* Column by column, ascending on each, or little is merged. col may be the target's. */
void stripe_legs_add(struct stripe_legs *l, unsigned col, uint64_t col_off_bytes, void *buf, uint64_t len_bytes);
/* Does all of them. 0 or the first error; each leg keeps its own result. A column that is not there fails a read with -ENODEV, and
 * is left out of a write: what it misses, it misses as a disk that is away. */
int stripe_legs_co_run(struct stripe_legs *l);
/* Columns of which a read has failed, and those of them whose disk just does not serve it (-ETIMEDOUT, -ENODEV): nothing is wrong with
 * the place, but the kernel may still have the request, and the buffer must not be used for anything else. */
uint64_t stripe_legs_failed(const struct stripe_legs *l, uint64_t *late);
void stripe_legs_fini(struct stripe_legs *l);

/* What a log entry has for the column of this leg (the target's: its column's), if anything; payload: as in the log. */
void stripe_legs_add_entry(struct stripe_legs *l, unsigned leg, const struct stripe_log_entry *e, uint8_t *payload);

/* The result of writes that ended like this (stripe_legs_co_run() failed): asks the pool, and where it refuses to do without a
 * disk tries once more. An error: the rows may be wrong. */
int stripe_co_settle(struct stripe_legs *l) __must_check;

/* The result of a write to n stripes that nothing else is known of: with an error their regions are unsync. */
static inline int stripe_unlogged(struct raid_group *g, uint64_t stripe, uint64_t n, int result)
{
	if (unlikely(result))
		g->unsync |= stripe_regions(g, stripe, n);
	return result;
}

/* ---- stripe_redo.c: writes that are in the log and have failed in place ---- */

/* As it was given to the log. */
struct stripe_logged {
	const struct stripe_log_entry *e;
	unsigned n, iov_n;
	const struct iovec *iov;
};

/* What was logged has been written in place, or that has failed: then it is due, and the ticket is held until it has been done.
 * Entries of one stripe follow each other, and none of the stripes had anything due. Stripes locked exclusively; does not suspend. */
void stripe_redo_end(struct raid_group *g, const struct stripe_logged *a, struct stripe_log_ticket *ticket, int result);
/* Stripes locked exclusively: does what is due there. An error (-EIO, -ERR_MISSING): rows of it may be neither old nor new. */
int stripe_redo_co_stripes(struct raid_group *g, uint64_t stripe, uint64_t n) __must_check;
/* Is anything due? What is not known under a lock may change. */
bool stripe_redo_is_due(const struct raid_group *g, uint64_t stripe, uint64_t n);
/* Locks n stripes: shared, or, if something is due there, exclusively. */
void stripe_co_lock_redone(struct raid_group *g, uint64_t stripe, uint64_t n, struct raid_locks *lk);
/* Stripe locked, something due: what the column is to hold in this row (a block), or NULL. *touched: the row is to be changed. */
const uint8_t *stripe_redo_at(const struct raid_group *g, uint64_t stripe, unsigned col, uint32_t row_off_bytes, bool *touched);
/* Stripes locked exclusively, and nothing in them is mapped: nothing is due any more. */
void stripe_redo_drop(struct raid_group *g, uint64_t stripe, uint64_t n);

/* ---- stripe_rows.c: rows of a run of stripes in memory, column by column ---- */
struct stripe_rows {
	struct raid_group *g;
	uint64_t stripe;
	unsigned n;
	uint32_t row_off_bytes, row_len_bytes; /* whole strips if n > 1 */
	uint64_t bad;			       /* columns that are not to be read, or that could not be */
	uint64_t late;			       /* of these: not served, nothing is known against the place */
	uint32_t known;			       /* n == 1, after co_obtain(): positions whose contents are in memory */
	uint8_t *buf[RAID_COLS_MAX + 1];       /* n * row_len_bytes each; NULL: not used */
};

void stripe_rows_init(struct stripe_rows *s, struct raid_group *g, uint64_t stripe, unsigned n, uint32_t row_off_bytes,
		      uint32_t row_len_bytes);
void stripe_rows_fini(struct stripe_rows *s);
/* Where stripe i's rows of a column lie; takes memory for the column if it has none. */
uint8_t *stripe_rows_at(struct stripe_rows *s, unsigned i, unsigned col);
/* Offset on the column. */
static inline uint64_t stripe_rows_off(const struct stripe_rows *s, unsigned i)
{
	return ((s->stripe + i) << s->g->strip_shift) + s->row_off_bytes;
}
/* Reads the columns `cols` as they are; what fails is in bad (and late). Nothing is an error. */
void stripe_rows_co_read(struct stripe_rows *s, uint64_t cols, bool may_hedge);
/* Gets the contents of positions want[i] of each stripe i, from columns that are current and not bad; `stale`: also from
 * those that are there. What fails goes to bad and is done without. -ENODATA: not possible. */
int stripe_rows_co_obtain(struct stripe_rows *s, const uint32_t *want, bool may_hedge, bool stale) __must_check;
/* What -ENODATA of these functions means to a client. */
int stripe_lost_error(const struct raid_group *g);
/* n == 1, after co_obtain(): columns that are bad, not late, and whose contents are now known are written. */
void stripe_rows_co_repair(struct stripe_rows *s);

/* ---- stripe_write.c ---- */

/* What a write has in one stripe, or in a run of whole ones. */
struct stripe_piece {
	struct list link;
	struct io *parent;
	uint64_t off_bytes, len_bytes; /* in the group */
	uint64_t skip_bytes;	       /* where that is in the parent */
	int result;		       /* the assembler's */
	void (*done)(struct stripe_piece *p, int result);
	void *owner;
};

/* Copies the part of a piece that begins at off_bytes of the group. */
void stripe_piece_copy(const struct stripe_piece *p, uint64_t off_bytes, uint64_t len_bytes, uint8_t *to);
/* The request, from admission to result. */
int stripe_co_write_req(struct raid_group *g, struct raid_req *q) __must_check;
/* n whole stripes that the pieces cover; locked. */
int stripe_co_write_whole(struct raid_group *g, uint64_t stripe, unsigned n, struct list *pieces) __must_check;
/* One stripe, part of it (or all); locked. Where pieces overlap, the last one wins. */
int stripe_co_write(struct raid_group *g, uint64_t stripe, struct list *pieces) __must_check;

/* ---- stripe_part.c ---- */
int stripe_co_write_part(struct raid_group *g, uint64_t stripe, struct list *pieces) __must_check;
/* Rows of one update such that any columns of it fit one append to the log; 0: it is too small for this group. */
uint32_t stripe_log_rows(const struct raid_group *g);

/* ---- stripe_asm.c: pieces that arrive put together ---- */
/* Does not suspend, but a coroutine may run inside. p belongs to the assembler until done. */
void stripe_asm_add(struct raid_group *g, struct stripe_piece *p);
/* As raid_parity_try_start(), of a write. */
bool stripe_asm_try(struct raid_group *g, struct raid_req *q);
/* Around writes that do not go through the assembler: pieces are held only while something else is under way. */
void stripe_asm_enter(struct raid_group *g);
void stripe_asm_leave(struct raid_group *g);
/* A write that ends here has arrived: what begins here continues it. */
void stripe_asm_note(struct raid_group *g, uint64_t end_bytes);

/* ---- stripe_sync.c ---- */
/* Stripes locked exclusively: does what is due; if their regions have become unsync since admission, makes them consistent. */
int stripe_co_make_sync(struct raid_group *g, uint64_t stripe, unsigned n) __must_check;

/* Rows as they are on the columns, and as they should be. */
struct stripe_sync {
	struct stripe_rows rows;
	uint64_t read, valid;	     /* columns that have been read; those of them that are current */
	uint8_t *fix[RAID_COLS_MAX]; /* of columns that were not read or are parity in some stripe: what they should hold */
};
void stripe_sync_init(struct stripe_sync *s, struct raid_group *g, uint64_t stripe, unsigned n, uint32_t row_off_bytes,
		      uint32_t row_len_bytes);
void stripe_sync_fini(struct stripe_sync *s);
/* Reads all current columns (and, with `others`, whatever else is there) and computes what was not read and all parity.
 * -ENODATA: too little was read. */
int stripe_sync_co_load(struct stripe_sync *s, bool others) __must_check;
/* The same of current columns but these, which are computed. */
int stripe_sync_co_load_without(struct stripe_sync *s, uint64_t cols) __must_check;
/* Stripe i, by column (target: its column's): what should be there. */
uint8_t *stripe_sync_should(struct stripe_sync *s, unsigned i, unsigned col);
/* Was the column read, and does it hold what it should? */
bool stripe_sync_is_right(struct stripe_sync *s, unsigned i, unsigned col);

/* ---- ranges, in parts that make about 1 MiB with all columns ---- */
struct stripe_range {
	uint64_t stripe;
	unsigned n;
	uint32_t row_off_bytes, row_len_bytes; /* whole strips if n > 1, else what the range touches */
};
/* Stripes at a time. */
unsigned stripe_sync_run(const struct raid_group *g);
/* Rows at a time, where one stripe is more than that. */
uint32_t stripe_sync_rows(const struct raid_group *g);
/* Where the first part of a range of the group ends. */
uint64_t stripe_range_cut(const struct raid_group *g, uint64_t off_bytes, uint64_t end_bytes);
/* The rows of such a part. */
void stripe_range_rows(const struct raid_group *g, uint64_t off_bytes, uint64_t end_bytes, struct stripe_range *out);

#endif
