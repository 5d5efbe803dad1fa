/*
 * stripe_log.c: the log of partial stripes, written.
 *
 * Appends wait in a queue. Whoever finds nobody writing leads: takes what fits from the queue, copies it into one aligned
 * buffer, writes it with FUA, wakes its fellows and hands the lead to the first one that has come meanwhile. So there is one
 * batch in flight, and it holds all that arrived while the one before was written. (Payload is copied once: it comes in
 * small pieces from many callers, and the copy is what the checksum is computed from, whatever the caller's memory does.)
 *
 * Place. The ring is bytes without an end: a batch begins where the one before it ended and goes round at the end of the ring, in
 * two requests. Nothing is skipped, so a batch fits whenever there are enough free bytes. Free is what the newest *durable*
 * batch does not need: from the one it calls `oldest` on everything stays as it is, since a recovery after a torn write goes
 * by the batch before. Hence two tails:
 *
 *     oldest of the newest durable header        first one still needed                  head
 *     | dead: done and flushed, yet a recovery   | live: not done, or not flushed since  | free ...
 *     | would replay it                          |                                       |
 *
 * A batch that is written moves the first to the second. If nobody appends but those who wait for room, a *mark* is written:
 * a batch of one block without entries. One block of the ring is kept for it; since a mark frees at least a block, that block is
 * there again afterwards. Waiting for room needs nothing but flushes and the done() of others.
 *
 * Why replay of dead entries is harmless: they say what was written in place, and everything written there later is in the log
 * behind them, or has cancelled them. That is what is_live() is for, and why it goes by the first tail and not by the second.
 *
 * A write that fails. Its appends fail with it. The head stays, so the next batch takes its place, with the next number (a number
 * is never used twice in an epoch), and names as `prev` the last batch that succeeded. What of the failed one lies on some disk:
 *
 *   - nothing newer is durable: it may be whole on a copy; recovery finds it, and follows its `prev`. Its entries may be
 *     replayed, which is allowed: nothing has been written to these stripes behind its back, since they stay live here;
 *   - the next batch is torn on top of it: one of the two is found, or none; then that one's header is gone too and the chain
 *     ends with the last good batch, or its header is there and says which that was;
 *   - the next batch is whole: it lies where the failed one began. Of that nothing is left but the blocks behind the new
 *     batch's end, and these are no headers: no block that the log writes begins with the magic but headers (see `escaped`).
 *
 * For the same reason a client that writes forged batches into a volume gets nothing: in the ring they are payload.
 *
 * What a power cut leaves: the newest batch torn, or whole on some copies (it was not acknowledged, nothing has been written in
 * place). Anything older is durable on every copy. Recovery: stripe_log_read.c.
 */
#include <string.h>

#include "engine/base/crc32c.h"
#include "engine/io/buf.h"
#include "raid/stripe_log_impl.h"

#define BLOCK ((uint64_t)STRIPE_LOG_BLOCK)
#define BATCH_LEAST (72 * 1024) /* what the longest batch can be at least */

struct batch {
	struct list link; /* in l->batches, by number */
	struct hash_node node;
	uint64_t number, pos, oldest, oldest_pos;
	uint64_t len_bytes;
	uint64_t done_at; /* flushes begun when the last of its appends was done */
	uint32_t n_open;  /* appends not done */
	uint32_t n_kept;  /* of these, those that never will be */
	uint32_t n_entries, n_cancels;
};

/* A stripe that recovery may find, with the newest batch that has it. */
struct live {
	struct hash_node node;
	struct list link; /* in l->stripes, by batch */
	uint64_t group, stripe, batch;
};

/* Whoever waits for it owns it. */
struct append {
	struct list link;
	const struct stripe_log_entry *e;
	const struct iovec *iov;
	uint64_t bytes, batch;
	unsigned n, iov_n;
	bool cancel, ended;
	int result;
	struct co *waiter;
};

struct stripe_log {
	struct stripe_log_conf conf;
	uint64_t batch_max;
	struct list queue; /* of appends */
	bool led;	   /* somebody writes, or waits for room to */
	/* the ring; batches: from the oldest that the newest header names */
	struct list batches, *first_live; /* first_live: the head of the list if there is none */
	struct hash by_number;
	uint64_t head_pos, next, prev;
	uint32_t prev_crc;
	uint64_t used_bytes, live_bytes; /* of all batches, of those from first_live */
	/* flushes: covers batches that were done before it began */
	uint64_t n_begun, flushed;
	bool flushing, closing, keeps;
	int flush_error;
	struct co_queue room;
	struct hash by_stripe;
	struct list stripes;
	struct stripe_log_stats stats;
};

struct stripe_log *stripe_log_open(const struct stripe_log_conf *c)
{
	struct stripe_log *l = xcalloc(1, sizeof(*l));
	uint64_t max = MIN((uint64_t)STRIPE_LOG_BATCH_MAX, MIN(c->len_bytes / 4, (uint64_t)c->dev->max_bytes));

	CHECK(c->len_bytes >= STRIPE_LOG_MIN_BYTES && IS_ALIGNED(c->off_bytes | c->len_bytes, BLOCK) && c->co_flush);
	l->conf = *c;
	l->batch_max = ALIGN_DOWN(MAX(max, (uint64_t)BATCH_LEAST), BLOCK);
	list_init(&l->queue);
	list_init(&l->batches);
	l->first_live = &l->batches;
	hash_init(&l->by_number);
	l->next = 1;
	l->n_begun = 1;
	l->flushed = 1;
	co_queue_init(&l->room);
	hash_init(&l->by_stripe);
	list_init(&l->stripes);
	return l;
}

static void live_free(struct stripe_log *l, struct live *s)
{
	hash_del(&l->by_stripe, &s->node);
	list_del(&s->link);
	xfree(s);
}

static void log_free(struct stripe_log *l)
{
	while (!list_is_empty(&l->stripes))
		live_free(l, list_first(&l->stripes, struct live, link));
	while (!list_is_empty(&l->batches)) {
		struct batch *b = list_first(&l->batches, struct batch, link);

		CHECK(b->n_open == b->n_kept);
		list_del(&b->link);
		xfree(b);
	}
	hash_fini(&l->by_number);
	hash_fini(&l->by_stripe);
	xfree(l);
}

void stripe_log_close(struct stripe_log *l)
{
	CHECK(!l->led && list_is_empty(&l->queue) && !l->closing);
	if (l->flushing)
		l->closing = true; /* who flushes frees */
	else
		log_free(l);
}

uint64_t stripe_log_max_bytes(const struct stripe_log *l)
{
	return l->batch_max - BLOCK;
}

void stripe_log_stats_get(const struct stripe_log *l, struct stripe_log_stats *out)
{
	*out = l->stats;
	out->used_bytes = l->used_bytes;
}

/* ---- stripes that recovery may find ---- */

static struct live *live_find(const struct stripe_log *l, uint64_t group, uint64_t stripe)
{
	struct hash_node *n = hash_find(&l->by_stripe, stripe_log_key(group, stripe));

	for (; n; n = hash_next(n)) {
		struct live *s = container_of(n, struct live, node);

		if (s->group == group && s->stripe == stripe)
			return s;
	}
	return NULL;
}

static void live_set(struct stripe_log *l, const struct stripe_log_entry *e, uint64_t batch)
{
	struct live *s = live_find(l, e->group, e->stripe);

	if (s) {
		list_del(&s->link);
	} else {
		s = xcalloc(1, sizeof(*s));
		s->group = e->group;
		s->stripe = e->stripe;
		hash_add(&l->by_stripe, &s->node, stripe_log_key(e->group, e->stripe));
	}
	s->batch = batch;
	list_push_back(&l->stripes, &s->link);
}

/* Up to cap live stripes of the range whose entries are all older than batch `before`. */
static unsigned live_collect(const struct stripe_log *l, uint64_t group, uint64_t stripe, uint64_t n_stripes, uint64_t before,
			     struct stripe_log_entry *out, unsigned cap)
{
	unsigned n = 0;
	struct live *s;

	if (n_stripes <= l->by_stripe.count) { /* whichever is shorter: the range or the list */
		for (uint64_t i = 0; i < n_stripes && n < cap; i++) {
			s = live_find(l, group, stripe + i);
			if (s && s->batch < before)
				out[n++] = (struct stripe_log_entry){ .group = group, .stripe = stripe + i };
		}
		return n;
	}
	list_for_each (s, &l->stripes, link) {
		if (n == cap || s->batch >= before)
			break;
		if (s->group == group && s->stripe - stripe < n_stripes)
			out[n++] = (struct stripe_log_entry){ .group = group, .stripe = s->stripe };
	}
	return n;
}

bool stripe_log_is_live(const struct stripe_log *l, uint64_t group, uint64_t stripe, uint64_t n_stripes)
{
	struct stripe_log_entry e;

	return live_collect(l, group, stripe, n_stripes, UINT64_MAX, &e, 1) > 0;
}

/* ---- tail and flushes ---- */

static bool batch_is_needed(const struct stripe_log *l, const struct batch *b)
{
	return b->n_open || b->done_at >= l->flushed;
}

static struct batch *first_live(const struct stripe_log *l)
{
	return l->first_live == &l->batches ? NULL : list_entry(l->first_live, struct batch, link);
}

static bool has_dead(const struct stripe_log *l)
{
	return l->first_live != l->batches.next;
}

static void tail_move(struct stripe_log *l)
{
	struct batch *b;

	while ((b = first_live(l)) && !batch_is_needed(l, b)) {
		l->live_bytes -= b->len_bytes;
		l->first_live = b->link.next;
	}
}

static void flush_co_main(void *arg);

/* Does not suspend. Starts a flush if that brings the tail on. */
static void flush_want(struct stripe_log *l)
{
	const struct batch *b = first_live(l);

	if (l->flushing || !b || b->n_open)
		return;
	l->flushing = true;
	co_spawn(CO_SERVICE, flush_co_main, l, "stripe log flush");
}

/* Does not suspend. Somebody holds up the tail: he may do something about it. */
static void press_if_open(const struct stripe_log *l)
{
	const struct batch *b = first_live(l);

	if (b && b->n_open && l->conf.press)
		l->conf.press(l->conf.press_ctx);
}

static void flush_if_half_full(struct stripe_log *l)
{
	if (l->live_bytes <= l->conf.len_bytes / 2)
		return;
	flush_want(l);
	press_if_open(l);
}

static void flush_co_main(void *arg)
{
	struct stripe_log *l = arg;
	uint64_t mark;
	int r = 0;

	if (!l->closing) {
		mark = stripe_log_flush_begin(l);
		r = l->conf.co_flush(l->conf.ctx);
		stripe_log_flush_end(l, mark, r >= 0);
	}
	l->flushing = false;
	if (l->closing) {
		log_free(l);
		return;
	}
	if (r < 0)
		l->flush_error = r;
	else
		flush_if_half_full(l);
	co_queue_wake_all(&l->room);
}

uint64_t stripe_log_flush_begin(struct stripe_log *l)
{
	return ++l->n_begun;
}

void stripe_log_flush_end(struct stripe_log *l, uint64_t mark, bool ok)
{
	CHECK(mark > 1 && mark <= l->n_begun);
	if (!ok || mark <= l->flushed)
		return;
	l->flushed = mark;
	tail_move(l);
	co_queue_wake_all(&l->room);
}

void stripe_log_done(struct stripe_log *l, struct stripe_log_ticket *t)
{
	struct hash_node *n;
	struct batch *b;

	if (!t->batch)
		return;
	n = hash_find(&l->by_number, t->batch);
	CHECK(n);
	t->batch = 0;
	b = container_of(n, struct batch, node);
	CHECK(b->n_open);
	if (--b->n_open) {
		if (b->n_open == b->n_kept) /* whoever waits for the tail to pass waits in vain: tail_is_kept() */
			co_queue_wake_all(&l->room);
		return;
	}
	b->done_at = l->n_begun;
	flush_if_half_full(l);
	co_queue_wake_all(&l->room);
}

void stripe_log_keep(struct stripe_log *l, struct stripe_log_ticket *t)
{
	struct hash_node *n;

	if (!t->batch)
		return;
	n = hash_find(&l->by_number, t->batch);
	CHECK(n);
	t->batch = 0;
	container_of(n, struct batch, node)->n_kept++;
	l->keeps = true;
	co_queue_wake_all(&l->room);
}

bool stripe_log_keeps(const struct stripe_log *l)
{
	return l->keeps;
}

/* ---- one batch ---- */

int stripe_log_ring_co_io(const struct stripe_log_conf *c, enum io_op op, uint64_t pos, void *buf, uint64_t len, unsigned flags,
			  unsigned copy)
{
	uint64_t max = ALIGN_DOWN((uint64_t)c->dev->max_bytes, BLOCK), part;
	struct co_join j;
	struct io *legs;
	unsigned n = 0;
	int r;

	CHECK(max && len && len <= c->len_bytes && pos < c->len_bytes && IS_ALIGNED(pos | len, BLOCK));
	legs = xmalloc((len / max + 3) * sizeof(*legs));
	co_join_init(&j);
	for (; len; len -= part, n++) {
		part = MIN(MIN(len, max), c->len_bytes - pos);
		io_prep(&legs[n], op, c->off_bytes + pos, part, buf, flags);
		legs[n].copy = (uint8_t)copy;
		bdev_submit_join(c->dev, &legs[n], &j);
		pos = (pos + part) % c->len_bytes;
		buf = (uint8_t *)buf + part;
	}
	r = co_join_wait(&j);
	xfree(legs);
	return r;
}

/* The next one, as yet without entries: a mark. */
static struct batch *batch_create(struct stripe_log *l)
{
	struct batch *b = xcalloc(1, sizeof(*b)), *oldest = first_live(l);

	b->number = l->next++;
	b->pos = l->head_pos;
	b->len_bytes = BLOCK;
	b->oldest = oldest ? oldest->number : b->number;
	b->oldest_pos = oldest ? oldest->pos : b->pos;
	return b;
}

/* Takes appends from the queue, as many as one batch and the ring can hold; the first fits. */
static void batch_take(struct stripe_log *l, struct batch *b, struct list *appends)
{
	uint64_t max = MIN(l->batch_max, l->conf.len_bytes - l->used_bytes - BLOCK), bytes = 0;
	struct append *a, *next;

	list_for_each_safe (a, next, &l->queue, link) {
		if (b->n_entries + a->n > STRIPE_LOG_BATCH_ENTRIES ||
		    stripe_log_batch_bytes(b->n_entries + a->n, bytes + a->bytes) > max)
			break;
		list_del(&a->link);
		list_push_back(appends, &a->link);
		a->batch = b->number;
		b->n_entries += a->n;
		if (a->cancel)
			b->n_cancels += a->n;
		else
			b->n_open++;
		bytes += a->bytes;
	}
	CHECK(!list_is_empty(appends));
	b->len_bytes = stripe_log_batch_bytes(b->n_entries, bytes);
}

static void entries_fill(struct stripe_log *l, const struct batch *b, const struct append *a, struct stripe_log_entry_disk *d)
{
	for (unsigned i = 0; i < a->n; i++) {
		d[i] = (struct stripe_log_entry_disk){
			.group = le64_make(a->e[i].group), .stripe = le64_make(a->e[i].stripe),
			.row_off_bytes = le32_make(a->e[i].row_off_bytes), .row_len_bytes = le32_make(a->e[i].row_len_bytes),
			.cols = le32_make(a->e[i].cols),
		};
		if (!a->cancel)
			live_set(l, &a->e[i], b->number);
	}
}

/* Payload that looks like a header is made not to. */
static void escape(struct stripe_log_head_disk *h, uint8_t *batch, uint64_t head_bytes, uint64_t len_bytes)
{
	for (uint64_t i = head_bytes / BLOCK; i < len_bytes / BLOCK; i++) {
		if (memcmp(batch + i * BLOCK, STRIPE_LOG_MAGIC, sizeof(h->magic)))
			continue;
		memset(batch + i * BLOCK, 0, sizeof(h->magic));
		h->escaped[i / 8] |= (uint8_t)(1u << i % 8);
	}
}

/* Entries and payload, then what describes them. Everything that nothing is written to is zeros. */
static void batch_fill(struct stripe_log *l, const struct batch *b, struct list *appends, uint8_t *buf)
{
	struct stripe_log_head_disk *h = (struct stripe_log_head_disk *)buf;
	struct stripe_log_entry_disk *d = (struct stripe_log_entry_disk *)(h + 1);
	uint64_t head = stripe_log_head_bytes(b->n_entries), at = head;
	struct append *a;

	memset(buf, 0, head);
	list_for_each (a, appends, link) {
		entries_fill(l, b, a, d);
		d += a->n;
		iov_to_buf(a->iov, a->iov_n, 0, buf + at, a->bytes);
		at += a->bytes;
	}
	memset(buf + at, 0, b->len_bytes - at);
	memcpy(h->magic, STRIPE_LOG_MAGIC, sizeof(h->magic));
	h->version = le32_make(STRIPE_LOG_VERSION);
	h->pool = l->conf.pool;
	h->epoch = le64_make(l->conf.epoch);
	h->batch = le64_make(b->number);
	h->oldest = le64_make(b->oldest);
	h->oldest_pos = le64_make(b->oldest_pos);
	h->prev = le64_make(l->prev);
	h->prev_crc = le32_make(l->prev_crc);
	h->slice = le32_make(l->conf.slice);
	h->n_entries = le32_make(b->n_entries);
	h->n_cancels = le32_make(b->n_cancels);
	h->head_bytes = le32_make((uint32_t)head);
	h->len_bytes = le32_make((uint32_t)b->len_bytes);
	escape(h, buf, head, b->len_bytes);
	h->payload_crc = le32_make(crc32c(0, buf + BLOCK, b->len_bytes - BLOCK));
	h->crc = le32_make(stripe_log_head_crc(buf));
}

/* The batch is durable: what it no longer needs is free. */
static void batch_commit(struct stripe_log *l, struct batch *b, uint32_t crc)
{
	struct batch *old, *next;

	list_push_back(&l->batches, &b->link);
	hash_add(&l->by_number, &b->node, b->number);
	if (l->first_live == &l->batches)
		l->first_live = &b->link;
	l->head_pos = (b->pos + b->len_bytes) % l->conf.len_bytes;
	l->used_bytes += b->len_bytes;
	l->live_bytes += b->len_bytes;
	CHECK(l->used_bytes <= l->conf.len_bytes);
	l->prev = b->number;
	l->prev_crc = crc;
	list_for_each_safe (old, next, &l->batches, link) {
		if (old->number >= b->oldest)
			break;
		CHECK(&old->link != l->first_live);
		l->used_bytes -= old->len_bytes;
		hash_del(&l->by_number, &old->node);
		list_del(&old->link);
		xfree(old);
	}
	while (!list_is_empty(&l->stripes) && list_first(&l->stripes, struct live, link)->batch < b->oldest)
		live_free(l, list_first(&l->stripes, struct live, link));
	tail_move(l); /* a batch of cancels alone */
	l->stats.batches++;
	l->stats.entries += b->n_entries;
	l->stats.bytes += b->len_bytes;
	flush_if_half_full(l);
}

/* Coroutine, the leader's. */
static int batch_co_write(struct stripe_log *l, struct list *appends, struct batch *b)
{
	uint8_t *buf = buf_alloc(b->len_bytes);
	uint32_t crc;
	int r;

	batch_fill(l, b, appends, buf);
	crc = le32_get(((struct stripe_log_head_disk *)buf)->crc);
	r = stripe_log_ring_co_io(&l->conf, IO_WRITE, b->pos, buf, b->len_bytes, IO_FUA, 0);
	buf_free(buf, b->len_bytes);
	if (r < 0)
		xfree(b);
	else
		batch_commit(l, b, crc);
	return r;
}

/* ---- appending ---- */

static bool first_fits(const struct stripe_log *l)
{
	const struct append *a = list_first(&l->queue, struct append, link);

	return l->used_bytes + stripe_log_batch_bytes(a->n, a->bytes) + BLOCK <= l->conf.len_bytes;
}

uint64_t stripe_log_ring_bytes(const struct stripe_log *l)
{
	return l->conf.len_bytes;
}

bool stripe_log_has_room(const struct stripe_log *l, unsigned n, uint64_t bytes)
{
	uint64_t used = has_dead(l) ? l->live_bytes + BLOCK : l->used_bytes; /* after a mark, which waits for nobody */

	return used + stripe_log_batch_bytes(n, bytes) + BLOCK <= l->conf.len_bytes;
}

bool stripe_log_is_stuck(const struct stripe_log *l)
{
	const struct batch *b = first_live(l);

	return !list_is_empty(&l->queue) && !first_fits(l) && !has_dead(l) && b && b->n_open;
}

/* The oldest live batch will never go. */
static bool tail_is_kept(const struct stripe_log *l)
{
	const struct batch *b = l->first_live == &l->batches ? NULL : list_entry(l->first_live, struct batch, link);

	return b && b->n_kept && b->n_kept == b->n_open;
}

/* Coroutine, the leader's. Returns when the first of the queue fits, or an error. */
static int room_co_make(struct stripe_log *l)
{
	struct list none;
	int r;

	list_init(&none);
	while (!first_fits(l)) {
		if (has_dead(l)) {
			r = batch_co_write(l, &none, batch_create(l));
			if (r < 0)
				return r;
			continue;
		}
		if (tail_is_kept(l))
			return -EIO;
		l->flush_error = 0;
		flush_want(l);
		press_if_open(l);
		co_queue_wait(&l->room);
		if (l->flush_error && !first_fits(l) && !has_dead(l))
			return l->flush_error;
	}
	return 0;
}

static void append_end(struct append *a, int result, const struct append *leader)
{
	a->result = result;
	a->ended = true;
	if (a != leader)
		co_wake(a->waiter);
}

/* Coroutine. Writes the batch that begins with `me`, the first of the queue; then somebody else leads. */
static void lead_co_run(struct stripe_log *l, struct append *me)
{
	struct list appends, *n;
	struct batch *b;
	int r;

	CHECK(l->queue.next == &me->link);
	list_init(&appends);
	r = room_co_make(l);
	if (r < 0) {
		list_splice_back(&appends, &l->queue); /* there is no room for anybody */
	} else {
		b = batch_create(l);
		batch_take(l, b, &appends);
		r = batch_co_write(l, &appends, b);
	}
	while ((n = list_pop_front(&appends)))
		append_end(list_entry(n, struct append, link), r, me);
	CHECK(me->ended);
	l->led = !list_is_empty(&l->queue);
	if (l->led)
		co_wake(list_first(&l->queue, struct append, link)->waiter);
}

/* Coroutine. Returns when a copy of `what` has been written, in the batch *batch, or has failed. */
static int append_co_run(struct stripe_log *l, const struct append *what, uint64_t *batch)
{
	struct append *a = xmalloc(sizeof(*a));
	int r;

	*a = *what;
	list_push_back(&l->queue, &a->link);
	if (l->led) {
		a->waiter = co_self();
		co_suspend();
	}
	if (!a->ended) {
		l->led = true;
		lead_co_run(l, a);
	}
	r = a->result;
	*batch = r < 0 ? 0 : a->batch;
	xfree(a);
	return r;
}

int stripe_log_co_append(struct stripe_log *l, const struct stripe_log_entry *e, unsigned n, const struct iovec *payload,
			 unsigned iov_n, struct stripe_log_ticket *t)
{
	struct append a = { .e = e, .n = n, .iov = payload, .iov_n = iov_n };
	uint64_t given = 0;

	CHECK(n && n <= STRIPE_LOG_ENTRIES_MAX && !l->closing);
	for (unsigned i = 0; i < n; i++) {
		CHECK(stripe_log_entry_is_valid(&e[i]));
		a.bytes += stripe_log_entry_bytes(&e[i]);
	}
	for (unsigned i = 0; i < iov_n; i++)
		given += payload[i].iov_len;
	CHECK(given == a.bytes && a.bytes <= stripe_log_max_bytes(l));
	return append_co_run(l, &a, &t->batch);
}

/* What the cancel in `batch` covers is no longer found; what has come since is. */
static void live_cancelled(struct stripe_log *l, const struct stripe_log_entry *e, unsigned n, uint64_t batch)
{
	for (unsigned i = 0; i < n; i++) {
		struct live *s = live_find(l, e[i].group, e[i].stripe);

		if (s && s->batch < batch)
			live_free(l, s);
	}
}

int stripe_log_co_cancel(struct stripe_log *l, uint64_t group, uint64_t stripe, uint64_t n_stripes)
{
	struct stripe_log_entry *e = xmalloc(STRIPE_LOG_ENTRIES_MAX * sizeof(*e));
	struct append a;
	uint64_t before = l->next, batch;
	int r = 0;

	CHECK(group < STRIPE_LOG_GROUP_LIMIT && !l->closing);
	while (r == 0) {
		a = (struct append){ .e = e, .cancel = true };
		a.n = live_collect(l, group, stripe, n_stripes, before, e, STRIPE_LOG_ENTRIES_MAX);
		if (!a.n)
			break;
		r = append_co_run(l, &a, &batch);
		if (r == 0)
			live_cancelled(l, e, a.n, batch);
	}
	xfree(e);
	return r;
}
