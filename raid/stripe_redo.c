/*
 * Writes that went through the log and failed in place, while the pool kept the disk.
 *
 * It may have to: a group without redundancy has a column on the same disk. Then the rows are neither old nor new. Nobody was told
 * that the write is done, but whatever else shares the rows hangs on them: the contents of a lost column, or of one that will
 * be lost after a power cut, when nothing in memory says any more that these rows are wrong.
 *
 * So the write is not over. Its entry stays in the log (the ticket is kept), its contents stay in memory, and they are written
 * again: by whoever needs the stripe next, before he does anything there, and every second by a coroutine of our own. As long
 * as that fails, what needs the stripe's parity is an error, and not a guess. The client has been told of an error, and finds
 * his sectors old or new.
 *
 * If the log fills up meanwhile, the entry must go: the regions are unsync then, which is all that can be said of them.
 */
#include <string.h>

#include "engine/base/units.h"
#include "raid/stripe.h"

#define EVERY_NS NS_PER_SEC
#define ITEMS_MAX 64 /* each of less than 1 MiB */

/* One append; its stripes are done one by one. */
struct redo_ticket {
	struct stripe_log_ticket ticket;
	unsigned n_items;
};

/* What is to be written to one stripe. */
struct redo_item {
	struct list link;
	struct redo_ticket *ticket;
	uint64_t group, stripe;
	struct stripe_log_entry *e;
	unsigned n;
	uint8_t *payload;
	size_t len;
};

struct stripe_redos {
	struct raid *raid;
	struct list items;
	unsigned n_items;
	struct timer timer;
	bool running;
};

static void item_free(struct stripe_redos *s, struct redo_item *it)
{
	list_del(&it->link);
	s->n_items--;
	if (--it->ticket->n_items == 0) {
		stripe_log_done(s->raid->log, &it->ticket->ticket);
		xfree(it->ticket);
	}
	buf_free(it->payload, it->len);
	xfree(it->e);
	xfree(it);
}

static struct redo_item *item_find(const struct stripe_redos *s, uint64_t group, uint64_t stripe, uint64_t n)
{
	struct redo_item *it;

	list_for_each(it, &s->items, link)
		if (it->group == group && it->stripe - stripe < n)
			return it;
	return NULL;
}

bool stripe_redo_is_due(const struct raid_group *g, uint64_t stripe, uint64_t n)
{
	const struct stripe_redos *s = g->raid->redos;

	return unlikely(s && s->n_items) && item_find(s, g->desc.group, stripe, n);
}

/* ---- trying again ---- */

/* Coroutine, stripe locked exclusively. */
static int item_co_write(struct raid_group *g, const struct redo_item *it)
{
	uint8_t *from = it->payload;
	struct stripe_legs l;
	int r;

	stripe_legs_init(&l, g, IO_WRITE, 0, false);
	for (unsigned i = 0; i < it->n; i++) {
		const struct stripe_log_entry *e = &it->e[i];

		stripe_legs_add_entry(&l, e, from);
		from += (size_t)e->row_len_bytes * (unsigned)__builtin_popcount(e->cols);
	}
	r = stripe_legs_co_run(&l);
	if (r)
		r = stripe_co_settle(&l);
	stripe_legs_fini(&l);
	return r;
}

int stripe_redo_co_stripes(struct raid_group *g, uint64_t stripe, uint64_t n)
{
	struct stripe_redos *s = g->raid->redos;
	struct redo_item *it;
	int r;

	/* nobody else does these, or adds any, for we have the lock */
	while (unlikely(s && s->n_items) && (it = item_find(s, g->desc.group, stripe, n))) {
		r = item_co_write(g, it);
		if (r)
			return r;
		item_free(s, it);
	}
	return 0;
}

static bool log_is_half_full(const struct raid *r)
{
	struct stripe_log_stats st;

	stripe_log_stats_get(r->log, &st);
	return st.used_bytes > 2 * stripe_log_max_bytes(r->log);
}

/* Coroutine. The item of one stripe, if it is still there. */
static void redo_co_one(struct stripe_redos *s, uint64_t group, uint64_t stripe)
{
	struct raid_group *g = NULL;
	struct redo_item *it;
	struct raid_locks lk;
	uint8_t epoch;
	int r = raid_group_co_hold(s->raid, group, &g, &epoch);

	if (r) {
		it = item_find(s, group, stripe, 1);
		if (it && (r == -ENOENT || log_is_half_full(s->raid)))
			item_free(s, it);
		return;
	}
	stripe_co_lock(g, stripe, 1, false, &lk);
	r = stripe_redo_co_stripes(g, stripe, 1);
	it = item_find(s, group, stripe, 1);
	if (r && it && log_is_half_full(s->raid)) {
		g->unsync |= stripe_regions(g, stripe, 1);
		item_free(s, it);
	}
	raid_unlock(&lk);
	raid_group_release(g, epoch);
}

static void redo_co_main(void *arg)
{
	struct stripe_redos *s = arg;
	struct raid *r = s->raid;
	struct redo_item *it;
	unsigned n = s->n_items;

	while (n-- && s->n_items) {
		it = list_first(&s->items, struct redo_item, link);
		list_del(&it->link);
		list_push_back(&s->items, &it->link);
		redo_co_one(s, it->group, it->stripe);
	}
	s->running = false;
	if (s->n_items)
		timer_arm(&s->timer, reactor_now_ns() + EVERY_NS);
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
	r->redos = s;
	return s;
}

/* n entries of one stripe; returns the bytes of their payload. */
static size_t item_add(struct stripe_redos *s, struct redo_ticket *t, const struct stripe_log_entry *e, unsigned n,
		       const struct iovec *iov, unsigned iov_n, size_t skip)
{
	struct redo_item *it = xcalloc(1, sizeof(*it));

	for (unsigned i = 0; i < n; i++)
		it->len += (size_t)e[i].row_len_bytes * (unsigned)__builtin_popcount(e[i].cols);
	it->ticket = t;
	it->group = e->group;
	it->stripe = e->stripe;
	it->n = n;
	it->e = xmalloc(n * sizeof(*e));
	memcpy(it->e, e, n * sizeof(*e));
	it->payload = buf_alloc(it->len);
	iov_to_buf(iov, iov_n, skip, it->payload, it->len);
	list_push_back(&s->items, &it->link);
	s->n_items++;
	t->n_items++;
	return it->len;
}

void stripe_redo_add(struct raid_group *g, const struct stripe_log_entry *e, unsigned n, const struct iovec *iov, unsigned iov_n,
		     struct stripe_log_ticket *ticket)
{
	struct stripe_redos *s = redos_get(g->raid);
	struct redo_ticket *t;
	size_t skip = 0;

	if (s->n_items >= ITEMS_MAX) {
		for (unsigned i = 0; i < n; i++)
			g->unsync |= stripe_regions(g, e[i].stripe, 1);
		stripe_log_done(g->raid->log, ticket);
		return;
	}
	t = xcalloc(1, sizeof(*t));
	t->ticket = *ticket;
	for (unsigned i = 0, m; i < n; i += m) {
		for (m = 1; i + m < n && e[i + m].stripe == e[i].stripe; m++)
			;
		skip += item_add(s, t, e + i, m, iov, iov_n, skip);
	}
	if (!s->running && !timer_is_armed(&s->timer))
		timer_arm(&s->timer, reactor_now_ns() + EVERY_NS);
}

void stripe_redo_close(struct raid *r)
{
	struct stripe_redos *s = r->redos;

	if (!s)
		return;
	CHECK(!s->running);
	timer_cancel(&s->timer);
	while (s->n_items) /* the log on disk still has them */
		item_free(s, list_first(&s->items, struct redo_item, link));
	xfree(s);
	r->redos = NULL;
}
