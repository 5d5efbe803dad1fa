/*
 * limit.c: what the clients of a volume may do in a second, and who waits for it.
 *
 * Each limit is a rate with a time `paid_ns`: what has been let through so far is paid for then. A request may go when that time
 * has come for all rates that it counts in, and moves them on by what it costs. So one that is larger than all that may be saved up
 * goes too, those after it pay, and large and small ones wait alike, in the order in which they came. A volume at rest saves up to
 * `save_ns`: paid_ns is never taken to lie further back. Remainders of the division are kept, so the long-run rate is exact.
 *
 * A burst is two rates: the limit, which saves up what the burst takes beyond it in its time, and the burst's own, which saves
 * hardly anything.
 *
 * A request that has waited counts as if it had gone when it might have (not when the timer fired, which is later, and for many
 * at once): so a late timer loses nothing. There is one timer per volume, and it fires at most every LIMIT_TICK_NS.
 */
#include "thin/volume_internal.h"

#define LIMIT_TICK_NS (200 * NS_PER_US)
#define LIMIT_SAVE_NS (100 * NS_PER_MS) /* that a busy machine wakes somebody late takes nothing from him */
#define LIMIT_SAVE_MAX_NS (365 * 24 * 3600 * NS_PER_SEC)
#define LIMIT_COST_MAX_NS (3600 * NS_PER_SEC) /* a zeroing of terabytes holds up the others no longer */

struct limit_rate {
	uint64_t per_s;
	int64_t paid_ns, save_ns;
	uint64_t rest; /* of the last division, below per_s */
	bool is_bytes;
};

struct thin_limiter {
	struct thin_volume *v;
	struct limit_rate rates[4];
	unsigned n;
	struct list waiting; /* of ios, by io.link */
	struct timer timer;
};

static uint64_t rate_cost(const struct limit_rate *r, const struct io *io)
{
	bool moves = io->op <= IO_WRITE || (io->op == IO_ZERO && io->flags & IO_NO_HOLE);

	if (!r->is_bytes)
		return 1;
	return moves ? io->len_bytes : 0;
}

/* When it may go; what is before it in line has been counted. */
static int64_t limit_ready(const struct thin_limiter *l, const struct io *io)
{
	int64_t ns = INT64_MIN;
	unsigned i;

	for (i = 0; i < l->n; i++)
		if (rate_cost(&l->rates[i], io))
			ns = MAX(ns, l->rates[i].paid_ns);
	return ns;
}

static void limit_count(struct thin_limiter *l, const struct io *io, int64_t at_ns)
{
	unsigned i;

	for (i = 0; i < l->n; i++) {
		struct limit_rate *r = &l->rates[i];
		uint64_t cost = rate_cost(r, io);
		unsigned __int128 ns;

		if (!cost)
			continue;
		ns = (unsigned __int128)cost * NS_PER_SEC + r->rest;
		r->rest = (uint64_t)(ns % r->per_s);
		r->paid_ns = MAX(r->paid_ns, at_ns - r->save_ns) + (int64_t)MIN(ns / r->per_s, LIMIT_COST_MAX_NS);
	}
}

static void limit_let_go(struct thin_volume *v, struct io *io, uint64_t now)
{
	struct thin_req *q = thin_req_of(io);

	thin_count(&v->limited_ns, now - q->start_ns);
	thin_count(&v->n_limit_waiting, -1ULL);
	q->start_ns = now; /* how long it takes from here on is the disks' doing */
	thin_req_go_on(io);
}

static void limit_release(struct thin_limiter *l)
{
	uint64_t now = reactor_now_ns();

	while (!list_is_empty(&l->waiting)) {
		struct io *io = list_entry(l->waiting.next, struct io, link);
		int64_t ready = limit_ready(l, io);

		if (ready > (int64_t)now) {
			timer_arm(&l->timer, MAX((uint64_t)ready, now + LIMIT_TICK_NS));
			return;
		}
		list_del(&io->link);
		limit_count(l, io, MAX(ready, (int64_t)thin_req_of(io)->start_ns));
		limit_let_go(l->v, io, now);
	}
	timer_cancel(&l->timer);
}

static void limit_timer_fired(struct timer *t)
{
	limit_release(container_of(t, struct thin_limiter, timer));
}

bool thin_limit_pass(struct thin_volume *v, struct io *io)
{
	struct thin_limiter *l = v->limiter;
	uint64_t now = thin_req_of(io)->start_ns;
	int64_t ready = limit_ready(l, io);

	if (list_is_empty(&l->waiting)) {
		if (ready <= (int64_t)now) {
			limit_count(l, io, (int64_t)now);
			return true;
		}
		timer_arm(&l->timer, MAX((uint64_t)ready, now + LIMIT_TICK_NS));
	}
	list_push_back(&l->waiting, &io->link);
	thin_count(&v->n_limited, 1);
	thin_count(&v->n_limit_waiting, 1);
	return false;
}

void thin_limit_pick(struct thin_volume *v, struct list *to, bool (*match)(const struct io *io, void *arg), void *arg)
{
	struct thin_limiter *l = v->limiter;

	if (!l || list_is_empty(&l->waiting))
		return;
	thin_count(&v->n_limit_waiting, -(uint64_t)thin_pick(&l->waiting, to, match, arg));
	limit_release(l);
}

/* ---- which limits there are ---- */

static void rate_add(struct thin_limiter *l, uint64_t per_s, unsigned __int128 save_ns, bool is_bytes)
{
	struct limit_rate *r = &l->rates[l->n++];

	*r = (struct limit_rate){ .per_s = per_s, .is_bytes = is_bytes, .save_ns = (int64_t)MIN(save_ns, LIMIT_SAVE_MAX_NS) };
	r->paid_ns = (int64_t)reactor_now_ns() - r->save_ns;
}

static void rates_add(struct thin_limiter *l, uint64_t per_s, uint64_t burst, unsigned seconds, bool is_bytes)
{
	unsigned __int128 save_ns = LIMIT_SAVE_NS;

	if (!per_s)
		return;
	if (burst > per_s) {
		save_ns += (unsigned __int128)(burst - per_s) * seconds * NS_PER_SEC / per_s;
		rate_add(l, burst, LIMIT_SAVE_NS, is_bytes);
	}
	rate_add(l, per_s, save_ns, is_bytes);
}

void thin_limit_end(struct thin_volume *v)
{
	struct thin_limiter *l = v->limiter;
	struct list *n;

	if (!l)
		return;
	timer_cancel(&l->timer);
	v->limiter = NULL;
	v->detour = v->forward != NULL;
	while ((n = list_pop_front(&l->waiting)))
		limit_let_go(v, list_entry(n, struct io, link), reactor_now_ns());
	xfree(l);
}

void thin_volume_set_limits(struct thin_volume *v, const struct thin_limits *to)
{
	struct thin_limiter *l = v->limiter;

	if (v->closing)
		return;
	if (!to->iops && !to->bps) {
		thin_limit_end(v);
		return;
	}
	if (!l) {
		l = xcalloc(1, sizeof(*l));
		l->v = v;
		l->timer.fire = limit_timer_fired;
		list_init(&l->waiting);
		v->limiter = l;
		v->detour = true;
	}
	l->n = 0;
	rates_add(l, to->iops, to->burst_iops, to->burst_seconds, false);
	rates_add(l, to->bps, to->burst_bps, to->burst_seconds, true);
	limit_release(l);
}
