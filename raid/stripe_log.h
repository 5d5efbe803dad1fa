/*
 * stripe_log.h: what closes the write hole of parity layouts. One log per instance that homes parity groups.
 *
 * A ring of *batches* in a range of the logical space (a mirror with enough copies). A batch is one write with FUA: a header
 * block that describes its entries, then their payload: the new contents of rows of a stripe, for each column that the update
 * changes, data and parity alike. Entries that are handed in while a batch is being written go into the next one. One
 * batch is in flight at a time, so that only the newest can be torn, and what is torn was never relied upon.
 *
 * An entry is needed from its append until its in-place writes are durable: done() says that they have completed, and the next
 * good flush that *began* after that lets the tail of the ring pass. When the ring is half full the log flushes by itself.
 * But a recovery still finds it until a later batch that names the new tail is durable: up to then it is *live*.
 *
 * Recovery (stripe_log_co_read) finds the newest whole batch of the epoch; each header names the oldest batch that was needed
 * when it was written, so that the chain from there to the newest is known to be complete, or the log is damaged. Entries
 * are given out oldest first, already without those that a later *cancel* covers. Columns are roles, not disks: a
 * group that has been rebuilt elsewhere since replays all the same; a group that is gone is skipped by the caller
 * (group numbers are never used twice).
 *
 * A whole stripe of fresh data is written without the log. If an older entry of that stripe is live, its replay would undo
 * the write, so stripe_log_co_cancel() goes first; and so before any other write in place that is not logged.
 *
 * The ring must have been zeroed when its space was set aside: a client could have written there what looks like a log.
 * Whoever calls append or cancel holds the stripe against others until it returns, and holds no ticket of another append
 * meanwhile: the ring may be full until that one is done.
 *
 * Context: home reactor of the instance; `co` functions in a coroutine.
 */
#ifndef RAID_STRIPE_LOG_H
#define RAID_STRIPE_LOG_H

#include "engine/base/uuid.h"
#include "engine/io/bdev.h"

struct stripe_log;

#define STRIPE_LOG_COLS_MAX 32
#define STRIPE_LOG_MIN_BYTES (128 * 1024) /* of a ring */
#define STRIPE_LOG_ENTRIES_MAX 120	  /* of one append */

struct stripe_log_conf {
	struct bdev *dev;   /* the logical space, as seen from this reactor */
	uint64_t off_bytes; /* of the ring; a multiple of 4096, as is its length */
	uint64_t len_bytes;
	struct uuid pool;
	uint64_t epoch;
	uint32_t slice; /* which ring of the pool this is */
	bool read_only; /* stripe_log_co_read() repairs nothing: what it gives out must not be written in place */
	/* Coroutine. Flushes every disk; called when the ring fills up. */
	int (*co_flush)(void *ctx);
	void *ctx;
	/* Does not suspend; may be NULL. The ring is half full or fuller, and what stands in its tail's way is not done. */
	void (*press)(void *press_ctx);
	void *press_ctx;
};

struct stripe_log_entry {
	uint64_t group, stripe; /* group < 2^60 */
	uint32_t row_off_bytes, row_len_bytes; /* within the strip; multiples of 512 */
	uint32_t cols;	    /* bit per column whose rows follow, in ascending order, row_len_bytes each; never 0 */
};

/* What an append holds until its in-place writes are over. Owned by the caller. */
struct stripe_log_ticket {
	uint64_t batch;
};

struct stripe_log *stripe_log_open(const struct stripe_log_conf *c);
/* Nothing appended and not done. A flush that the log began may still run: it ends by itself. */
void stripe_log_close(struct stripe_log *l);
/* Largest payload of one append; callers cut. At least 64 KiB. */
uint64_t stripe_log_max_bytes(const struct stripe_log *l);

/* Coroutine. All n entries, in one batch, durable with full redundancy on 0. payload: of all entries, one after the other. On
 * an error nothing may be written in place (the entries may or may not be found by a recovery, and are live until they
 * cannot be). Waits for room; the error of a flush that was to make room is the append's. */
int stripe_log_co_append(struct stripe_log *l, const struct stripe_log_entry *e, unsigned n, const struct iovec *payload,
			 unsigned iov_n, struct stripe_log_ticket *t) __must_check;
/* The in-place writes of the append have completed (or will never be made). Does not suspend. Nothing after a failed append. */
void stripe_log_done(struct stripe_log *l, struct stripe_log_ticket *t);
/* The in-place writes have failed, and no disk has been put out for it: the entry stays live for the next opening's recovery, which
 * the pool must not close clean for (stripe_log_keeps()). When only such entries are left in a full ring, appends fail. */
void stripe_log_keep(struct stripe_log *l, struct stripe_log_ticket *t);
bool stripe_log_keeps(const struct stripe_log *l);
uint64_t stripe_log_ring_bytes(const struct stripe_log *l);
/* Is there room for an append of n entries with so much payload, but for those that are under way? */
bool stripe_log_has_room(const struct stripe_log *l, unsigned n, uint64_t bytes);
/* An append waits for room, and there is none as long as what stands in the tail's way is not done. */
bool stripe_log_is_stuck(const struct stripe_log *l);
/* May a recovery, if it came now, replay an entry of one of the stripes? At times true without need. */
bool stripe_log_is_live(const struct stripe_log *l, uint64_t group, uint64_t stripe, uint64_t n_stripes);
/* Coroutine. Durable on 0: no older entry of these stripes will be replayed. Costs nothing if none is live. */
int stripe_log_co_cancel(struct stripe_log *l, uint64_t group, uint64_t stripe, uint64_t n_stripes) __must_check;

/* Around every flush round of all disks: begin() when the round starts, end(ok) with what begin() returned. */
uint64_t stripe_log_flush_begin(struct stripe_log *l);
void stripe_log_flush_end(struct stripe_log *l, uint64_t mark, bool ok);

struct stripe_log_stats {
	uint64_t batches, entries, bytes; /* of one copy */
	uint64_t used_bytes;
};
void stripe_log_stats_get(const struct stripe_log *l, struct stripe_log_stats *out);

/* Coroutine. Reads a ring that an opening with this epoch left behind: each() for every entry to be replayed, in order; stops at
 * its first error. Every copy of every block is tried (io.copy). -ERR_CSUM with a sentence if the chain has a hole; a ring
 * without any batch of the epoch is empty. Before the first each(), the newest batch and those that some copy does not have are
 * written again, with FUA: else a second crash in the middle of the replay, and the loss of the one disk that had the newest
 * batch, would leave stripes written in part. conf.co_flush is not used. Returns 0 or an error; *n counts entries.
 * payload is aligned to 512. */
int stripe_log_co_read(const struct stripe_log_conf *c,
		       int (*each)(void *arg, const struct stripe_log_entry *e, const void *payload), void *arg, uint64_t *n,
		       struct err *err) __must_check;
struct stripe_log_head {
	uint64_t epoch, batch, oldest; /* its number; the oldest needed when it was written */
	uint64_t oldest_pos;	       /* where that one begins: bytes in the ring */
	uint64_t prev;		       /* the batch before, 0: none */
	uint32_t prev_crc, crc;	       /* of header blocks: that one's, this one's */
	uint32_t slice, n_entries;
	uint32_t n_cancels;
	uint32_t head_bytes;	       /* header blocks: entries may need more than one */
	uint64_t len_bytes;	       /* of the whole batch, a multiple of 4096 */
	uint32_t payload_crc;	       /* of everything after the first block */
};
/* The first block of a batch, parsed: 0, or -ERR_FORMAT / -ERR_CSUM. Every field that can be judged alone is. len: at least
 * 4096, what follows is not looked at. Pure, as is the next; for recovery, fuzzing and dumps. */
int stripe_log_head_check(const void *block, size_t len, const struct uuid *pool, struct stripe_log_head *out) __must_check;
/* The whole batch, h->len_bytes of it: payload and entries are right. Puts back what was escaped. */
int stripe_log_batch_check(void *batch, const struct stripe_log_head *h) __must_check;
/* Entry i of a batch that has been checked. cols 0: a cancel. */
void stripe_log_entry_get(const void *batch, uint32_t i, struct stripe_log_entry *e);

#endif
