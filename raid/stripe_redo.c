/*
 * Writes that are in the log and have failed in place, while the pool kept the disk.
 *
 * It may have to: a group without redundancy has a column there. Then the rows are neither old nor new. Nobody was told that the
 * write is done, but whatever shares the rows hangs on them: the contents of a lost column, or of one that is lost in the
 * next power cut, when nothing in memory says any more that these rows are wrong.
 *
 * So the write is not over. Its entry stays in the log (the ticket is held), its contents stay in memory as an *item*, one to a
 * stripe, and they are written again: by whoever needs the stripe next, before he does anything there, under its lock; and
 * every second by a coroutine of our own. As long as that fails, what needs the parity of these rows is an error, and not a
 * guess; all else of the stripe can be read, and what the item has is read from it, so that a sector does not turn from old to
 * new behind a reader's back (other instances read current columns by themselves, and may see that). When it has been written
 * the ticket is done, and the stripe is like any other. When the disk has been put out meanwhile, its column is left out,
 * and the rows are right without it.
 *
 * An item is dropped when nothing depends on its rows: the group is gone; or the whole stripe is written anew, all of it fresh,
 * that is, nothing of it was mapped. Any other write has the item written first, and fails if that fails.
 *
 * What a power cut leaves: the entry, to be replayed. Closing leaves the same, and is not clean (raid_log_keeps()).
 *
 * The log must go on, though a ticket that is held stops its tail. When that gets in the way (stripe_redo_press(), called by the
 * log), we try at once, and what fails is appended again, so that the tail can pass its older entry: nothing else of the stripe
 * has been logged meanwhile, so the order stays right. It is not begun without room, for we hold tickets. If appends, ours
 * perhaps among them, still wait for room PRESS_NS later, all tickets are let go: the items live on in memory, and go back to the log as soon as
 * there is room. A power cut in between finds rows that are neither old nor new: the price of a disk that fails for so long, that
 * cannot be done without, under a load that goes round the ring in that time.
 *
 * Memory. At most ITEMS_MAX items of BYTES_MAX in all. What fails beyond that has its regions unsync; its entry is kept for the
 * next opening where a column is lost, else parity is computed from the data.
 */
#include <string.h>

#include "engine/base/units.h"
#include "raid/stripe.h"

#define EVERY_NS NS_PER_SEC
#define PRESSED_EVERY_NS (20 * NS_PER_MS)
#define APPENDED_EVERY_NS (500 * NS_PER_US) /* after a round that has got something out of the tail's way */
#define PRESS_NS NS_PER_SEC
#define ITEMS_MAX 64
#define BYTES_MAX (16U << 20)

/* One append; its stripes are done one by one. */
struct redo_ticket {
	struct stripe_log_ticket ticket;
	unsigned n_items;
};

/* What is to be written to one stripe. Comes and goes under the stripe's lock, or when nothing of the group is in flight. */
struct redo_item {
	struct list link;
	struct redo_ticket *ticket;
	uint64_t group, stripe;
	struct stripe_log_entry *e;
	unsigned n;
	uint8_t *payload;
	size_t len_bytes;
};

struct stripe_redos {
	struct raid *raid;
	struct list items;
	unsigned n_items;
	size_t n_bytes;
	struct timer timer, press_timer;
	uint64_t pressed_next_ns; /* no round sooner, however pressed */
	bool running, pressed, appended;
};

static uint64_t entry_bytes(const struct stripe_log_entry *e)
{
	return (uint64_t)e->row_len_bytes * (unsigned)__builtin_popcount(e->cols);
}

/* ---- items ---- */

static struct redo_item *item_find(const struct stripe_redos *s, uint64_t group, uint64_t stripe, uint64_t n)
{
	struct redo_item *it;

	list_for_each(it, &s->items, link)
		if (it->group == group && it->stripe - stripe < n)
			return it;
	return NULL;
}

static struct redo_item *item_find_group(const struct stripe_redos *s, uint64_t group)
{
	return item_find(s, group, 0, UINT64_MAX);
}

uint64_t stripe_redo_regions(const struct raid_group *g)
{
	const struct stripe_redos *s = g->raid->redos;
	struct redo_item *it;
	uint64_t mask = 0;

	if (likely(!s || !s->n_items))
		return 0;
	list_for_each(it, &s->items, link)
		if (it->group == g->desc.group)
			mask |= stripe_regions(g, it->stripe, 1);
	return mask;
}

/* Of the group, if it is there. */
static void regions_update(struct stripe_redos *s, uint64_t group)
{
	struct raid_group *g = raid_group_find(s->raid, group);

	if (g && g->state == RAID_GROUP_LOADED)
		g->redo = stripe_redo_regions(g);
}

static void ticket_put(struct stripe_redos *s, struct redo_ticket *t)
{
	if (--t->n_items)
		return;
	stripe_log_done(s->raid->log, &t->ticket);
	xfree(t);
}

/* The ticket is put by the caller. */
static void item_free(struct stripe_redos *s, struct redo_item *it)
{
	list_del(&it->link);
	s->n_items--;
	s->n_bytes -= it->len_bytes;
	buf_free(it->payload, it->len_bytes);
	xfree(it->e);
	xfree(it);
	if (!s->n_items) {
		timer_cancel(&s->timer);
		timer_cancel(&s->press_timer);
	}
}

static void item_end(struct stripe_redos *s, struct redo_item *it)
{
	uint64_t group = it->group;

	ticket_put(s, it->ticket);
	item_free(s, it);
	regions_update(s, group);
}

bool stripe_redo_is_due(const struct raid_group *g, uint64_t stripe, uint64_t n)
{
	return unlikely(g->redo) && item_find(g->raid->redos, g->desc.group, stripe, n);
}

const uint8_t *stripe_redo_at(const struct raid_group *g, uint64_t stripe, unsigned col, uint32_t row_off_bytes, bool *touched)
{
	const struct redo_item *it = item_find(g->raid->redos, g->desc.group, stripe, 1);
	const uint8_t *from = it ? it->payload : NULL;

	*touched = false;
	for (unsigned i = 0; it && i < it->n; from += entry_bytes(&it->e[i]), i++) {
		const struct stripe_log_entry *e = &it->e[i];

		if (row_off_bytes - e->row_off_bytes >= e->row_len_bytes) /* it wraps round below */
			continue;
		*touched = true;
		if (e->cols & (1U << col))
			return from + (size_t)e->row_len_bytes * (unsigned)__builtin_popcount(e->cols & ((1U << col) - 1)) +
			       (row_off_bytes - e->row_off_bytes);
	}
	return NULL;
}

/* ---- trying again ---- */

/* Coroutine, stripe locked exclusively. To what is there now. */
static int item_co_write(struct raid_group *g, const struct redo_item *it)
{
	struct stripe_legs l;
	int r;

	stripe_legs_init(&l, g, IO_WRITE, 0, false);
	for (uint64_t cols = stripe_there_cols(g); cols; cols &= cols - 1) {
		unsigned leg = (unsigned)__builtin_ctzll(cols);
		uint8_t *from = it->payload;

		for (unsigned i = 0; i < it->n; from += entry_bytes(&it->e[i]), i++)
			stripe_legs_add_entry(&l, leg, &it->e[i], from);
	}
	r = stripe_legs_co_run(&l);
	if (r)
		r = stripe_co_settle(&l);
	stripe_legs_fini(&l);
	if (!r && stripe_n_lost(g) > stripe_n_parity(g))
		return -ERR_MISSING; /* what is there has it */
	return r ? -EIO : 0;
}

int stripe_redo_co_stripes(struct raid_group *g, uint64_t stripe, uint64_t n)
{
	struct stripe_redos *s = g->raid->redos;
	struct redo_item *it;
	int r;

	/* nobody else ends these, or adds any, for we have the lock */
	while (unlikely(g->redo) && (it = item_find(s, g->desc.group, stripe, n))) {
		r = item_co_write(g, it);
		if (r)
			return r;
		g->raid->stats.redone++;
		item_end(s, it);
	}
	return 0;
}

void stripe_co_lock_redone(struct raid_group *g, uint64_t stripe, uint64_t n, struct raid_locks *lk)
{
	bool shared;

	for (;;) {
		shared = !stripe_redo_is_due(g, stripe, n);
		stripe_co_lock(g, stripe, n, shared, lk);
		if (!shared || !stripe_redo_is_due(g, stripe, n))
			return;
		raid_unlock(lk);
	}
}

/* Coroutine, stripe locked. Out of the way of the log's tail, or back into the log, if there is room. */
static void item_co_append(struct stripe_redos *s, struct redo_item *it)
{
	struct stripe_log *log = s->raid->log;
	struct iovec iov = { it->payload, it->len_bytes };
	struct redo_ticket *t;

	/* few enough that they do not chase each other round the ring */
	if (s->n_bytes > stripe_log_ring_bytes(log) / 4 || !stripe_log_has_room(log, it->n, it->len_bytes))
		return;
	t = xcalloc(1, sizeof(*t));
	t->n_items = 1;
	if (stripe_log_co_append(log, it->e, it->n, &iov, 1, &t->ticket)) {
		xfree(t);
		return;
	}
	ticket_put(s, it->ticket);
	it->ticket = t;
	s->appended = true;
}

/* Coroutine. The item of one stripe, if it is still there. Whoever has the stripe's lock has done it, or will, and may now wait for
 * room that we are to make: so we do not wait for him. */
static void redo_co_one(struct stripe_redos *s, uint64_t group, uint64_t stripe, bool pressed)
{
	struct raid_group *g = NULL;
	struct redo_item *it;
	struct raid_locks lk;
	uint8_t epoch;
	int r = raid_group_co_hold_stripe(s->raid, group, stripe, &g, &epoch);

	if (r == -ENOENT)
		stripe_redo_forget(s->raid, group);
	if (r)
		return;
	if (stripe_try_lock(g, stripe, &lk)) {
		r = stripe_redo_co_stripes(g, stripe, 1);
		it = r ? item_find(s, group, stripe, 1) : NULL;
		if (it && (pressed || !it->ticket->ticket.batch))
			item_co_append(s, it);
		raid_unlock(&lk);
	}
	raid_group_release(g, epoch);
}

static void press_begin(struct stripe_redos *s)
{
	s->pressed = true;
	if (!timer_is_armed(&s->press_timer))
		timer_arm(&s->press_timer, reactor_now_ns() + PRESS_NS);
}

static void redo_co_main(void *arg)
{
	struct stripe_redos *s = arg;
	struct raid *r = s->raid;
	unsigned n = s->n_items;
	bool pressed = s->pressed;
	struct redo_item *it;

	s->pressed = s->appended = false;
	while (n-- && s->n_items) {
		it = list_first(&s->items, struct redo_item, link);
		list_del(&it->link);
		list_push_back(&s->items, &it->link);
		redo_co_one(s, it->group, it->stripe, pressed);
	}
	s->running = false;
	if (s->n_items && stripe_log_is_stuck(r->log)) /* perhaps by an item of a moment ago: who waits for room has found none to press */
		press_begin(s);
	s->pressed_next_ns = reactor_now_ns() + (s->appended ? APPENDED_EVERY_NS : PRESSED_EVERY_NS);
	if (s->n_items)
		timer_arm(&s->timer, s->pressed ? s->pressed_next_ns : reactor_now_ns() + EVERY_NS);
	if (--r->n_asking == 0)
		co_queue_wake_all(&r->asked);
}

static void redo_fire(struct timer *t)
{
	struct stripe_redos *s = container_of(t, struct stripe_redos, timer);

	s->running = true;
	s->raid->n_asking++;
	co_spawn(CO_SERVICE, redo_co_main, s, "raid stripe redo");
}

/* ---- the log wants room ---- */

static void press_fire(struct timer *t)
{
	struct stripe_redos *s = container_of(t, struct stripe_redos, press_timer);
	struct redo_item *it;

	if (!stripe_log_is_stuck(s->raid->log))
		return;
	list_for_each(it, &s->items, link)
		stripe_log_done(s->raid->log, &it->ticket->ticket);
	timer_arm(t, reactor_now_ns() + PRESS_NS); /* a write under way may hold the tail, and fail, while our own append waits for room */
	if (!s->running)
		timer_arm(&s->timer, reactor_now_ns() + PRESSED_EVERY_NS);
}

void stripe_redo_press(void *ctx)
{
	struct stripe_redos *s = ((struct raid *)ctx)->redos;

	if (likely(!s || !s->n_items))
		return;
	press_begin(s);
	if (!s->running)
		timer_arm(&s->timer, MAX(reactor_now_ns(), s->pressed_next_ns));
}

/* ---- keeping ---- */

static struct stripe_redos *redos_get(struct raid *r)
{
	struct stripe_redos *s = r->redos;

	if (s)
		return s;
	s = xcalloc(1, sizeof(*s));
	s->raid = r;
	list_init(&s->items);
	s->timer.fire = redo_fire;
	s->press_timer.fire = press_fire;
	r->redos = s;
	return s;
}

/* n entries of one stripe; returns the bytes of their payload. */
static size_t item_add(struct stripe_redos *s, struct redo_ticket *t, const struct stripe_logged *a, unsigned at, unsigned n,
		       uint64_t skip)
{
	struct redo_item *it = xcalloc(1, sizeof(*it));

	for (unsigned i = 0; i < n; i++)
		it->len_bytes += entry_bytes(&a->e[at + i]);
	it->ticket = t;
	it->group = a->e[at].group;
	it->stripe = a->e[at].stripe;
	it->n = n;
	it->e = xmalloc(n * sizeof(*it->e));
	memcpy(it->e, a->e + at, n * sizeof(*it->e));
	it->payload = buf_alloc(it->len_bytes);
	iov_to_buf(a->iov, a->iov_n, skip, it->payload, it->len_bytes);
	CHECK(!item_find(s, it->group, it->stripe, 1));
	list_push_back(&s->items, &it->link);
	s->n_items++;
	s->n_bytes += it->len_bytes;
	t->n_items++;
	return it->len_bytes;
}

/* Too many. */
static void redo_give_up(struct raid_group *g, const struct stripe_logged *a, struct stripe_log_ticket *ticket)
{
	for (unsigned i = 0; i < a->n; i++)
		g->unsync |= stripe_regions(g, a->e[i].stripe, 1);
	/* with no column lost parity can be made right from the data; else only the entry tells what the rows should be */
	if (stripe_n_lost(g))
		stripe_log_keep(g->raid->log, ticket);
	else
		stripe_log_done(g->raid->log, ticket);
}

void stripe_redo_end(struct raid_group *g, const struct stripe_logged *a, struct stripe_log_ticket *ticket, int result)
{
	uint64_t skip = 0, bytes = 0;
	struct stripe_redos *s;
	struct redo_ticket *t;

	if (likely(!result)) {
		stripe_log_done(g->raid->log, ticket);
		return;
	}
	s = redos_get(g->raid);
	for (unsigned i = 0; i < a->n; i++)
		bytes += entry_bytes(&a->e[i]);
	if (s->n_items + a->n > ITEMS_MAX || s->n_bytes + bytes > BYTES_MAX) {
		redo_give_up(g, a, ticket);
		return;
	}
	t = xcalloc(1, sizeof(*t));
	t->ticket = *ticket;
	for (unsigned i = 0, n; i < a->n; i += n) {
		for (n = 1; i + n < a->n && a->e[i + n].stripe == a->e[i].stripe; n++)
			;
		skip += item_add(s, t, a, i, n, skip);
	}
	g->redo = stripe_redo_regions(g);
	if (!s->running && !timer_is_armed(&s->timer))
		timer_arm(&s->timer, reactor_now_ns() + EVERY_NS);
}

void stripe_redo_drop(struct raid_group *g, uint64_t stripe, uint64_t n)
{
	struct redo_item *it;

	while (unlikely(g->redo) && (it = item_find(g->raid->redos, g->desc.group, stripe, n)))
		item_end(g->raid->redos, it);
}

void stripe_redo_forget(struct raid *r, uint64_t group)
{
	struct redo_item *it;

	while (r->redos && (it = item_find_group(r->redos, group)))
		item_end(r->redos, it);
}

bool stripe_redo_is_any_due(const struct raid *r)
{
	return r->redos && r->redos->n_items;
}

void stripe_redo_close(struct raid *r)
{
	struct stripe_redos *s = r->redos;

	if (!s)
		return;
	CHECK(!s->running);
	timer_cancel(&s->timer);
	timer_cancel(&s->press_timer);
	while (s->n_items) { /* the log on disk still has them */
		struct redo_item *it = list_first(&s->items, struct redo_item, link);

		stripe_log_keep(r->log, &it->ticket->ticket);
		ticket_put(s, it->ticket);
		item_free(s, it);
	}
	xfree(s);
	r->redos = NULL;
}
