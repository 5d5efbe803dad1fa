/*
 * pace.c: how fast background work may go: one scheduler for all of it.
 *
 * What counts is what clients feel. Each reactor keeps a histogram of how long its volumes' requests took (thin.h); home looks
 * at what has been added in windows of a tenth of a second. Windows without background work say how clients fare by
 * themselves: a smoothed p99, the baseline. A window with it whose p99 is above one and a half times the baseline and a
 * bit halves the rate, down to the floor; any other lets it grow by a quarter, up to the ceiling, and by a 32nd where it has hurt
 * before: if every fourth window were a bad one, that would be their p99. Where hardly anybody
 * asks for anything there is no limit but the ceiling. Work that begins, or goes on after a pause, while clients are there begins at
 * the floor: whoever is only measured cannot be surprised by a tenth of a second at full speed.
 *
 * A request of a client that meets one of ours on the same disk waits for it. So ours are as small as the rate allows: so much that they
 * take a disk some milliseconds at most, if it is worth its rate.
 *
 * Background work may go on for hours, and the baseline becomes old meanwhile: every ten seconds it is held back for a few
 * windows, to look again.
 *
 * All numbers come from the reactors' clocks and counters: in the simulated world the same seed paces the same way.
 */
#include <string.h>

#include "engine/pool/life.h"

#define WINDOW_NS (100 * NS_PER_MS)
#define WINDOW_MAX_NS NS_PER_SEC   /* with few requests a window takes longer, up to this */
#define REQUESTS_MIN 16		   /* fewer say nothing */
#define SLACK_NS (100 * 1000ULL)
#define LOOK_NS (10 * NS_PER_SEC)  /* how often to look how clients fare without us */
#define QUIET_MAX_NS (500 * NS_PER_MS)
#define BURST_NS (20 * NS_PER_MS) /* of the rate, that may be saved up */
#define UNIT_NS (2500 * 1000ULL)  /* at the rate: what is copied at once */
#define UNIT_MIN (64 * KIB)
#define UNLIMITED UINT64_MAX
#define RATE_FREE (1ULL << 40)	   /* a rate beyond it is none */

/* Requests of the window so far, by bucket. */
static uint64_t window_counts(struct ashlar_pool *p, uint64_t *total, uint64_t *delta)
{
	uint64_t n = 0;
	unsigned i;

	memset(total, 0, PACE_BUCKETS * sizeof(*total));
	for (i = 0; i < p->n_reactors; i++)
		thin_latency_add(p->thin, i, total);
	for (i = 0; i < PACE_BUCKETS; i++) {
		delta[i] = total[i] - p->life->pace.counts[i];
		n += delta[i];
	}
	return n;
}

static uint64_t window_p99(const uint64_t *delta, uint64_t n)
{
	uint64_t left = n / 100;
	unsigned i = PACE_BUCKETS;

	while (i-- > 0) {
		if (delta[i] > left)
			break;
		left -= delta[i];
	}
	return thin_latency_bucket_ns(i);
}

static uint64_t rate_now(const struct ashlar_pool *p)
{
	uint64_t ceiling = p->settings.pace_ceiling_bps ? p->settings.pace_ceiling_bps : UNLIMITED;

	return MIN(MAX(p->life->pace.rate_bps, p->settings.pace_floor_bps), ceiling);
}

/* ---- windows ---- */

static void window_begin(struct pool_pace *c, const uint64_t *total)
{
	memcpy(c->counts, total, sizeof(c->counts));
	c->was_active = c->bytes != 0;
	c->bytes = 0;
	c->window_ns = reactor_now_ns();
}

static bool has_clients(const struct pool_pace *c, uint64_t n)
{
	return n && n * WINDOW_MAX_NS >= REQUESTS_MIN * (reactor_now_ns() - c->window_ns);
}

static bool is_asked(const struct pool_pace *c)
{
	return c->used_ns && (reactor_now_ns() - c->used_ns < WINDOW_MAX_NS || !co_queue_is_empty(&c->waiters));
}

static void base_learn(struct pool_pace *c, uint64_t p99)
{
	if (!c->base_ns || p99 < c->base_ns)
		c->base_ns = c->base_ns ? (c->base_ns + p99) / 2 : p99; /* a bad time is soon forgotten */
	else
		c->base_ns = (c->base_ns * 3 + p99) / 4;
	c->looked_ns = reactor_now_ns();
}

static void window_judge(struct ashlar_pool *p, uint64_t p99, uint64_t len_ns)
{
	struct pool_pace *c = &p->life->pace;
	uint64_t done = (uint64_t)((unsigned __int128)c->bytes * NS_PER_SEC / MAX(len_ns, 1));

	if (!c->bytes && !c->was_active) {
		base_learn(c, p99);
	} else if (c->base_ns && p99 > c->base_ns + c->base_ns / 2 + SLACK_NS) {
		c->hurt_bps = MIN(c->rate_bps, done);
		c->rate_bps = MAX(c->hurt_bps / 2, p->settings.pace_floor_bps);
	} else if (c->rate_bps >= RATE_FREE) {
		c->rate_bps = UNLIMITED;
	} else { /* carefully where it hurt not far from here */
		c->rate_bps += c->rate_bps / (c->hurt_bps && c->rate_bps >= c->hurt_bps / 2 ? 32 : 4) + 64 * KIB;
	}
}

/* A window in which background work goes as fast as it may. */
static void tick_running(struct ashlar_pool *p, const uint64_t *total, const uint64_t *delta, uint64_t n)
{
	struct pool_pace *c = &p->life->pace;
	uint64_t now = reactor_now_ns(), len = now - c->window_ns;

	if (n >= REQUESTS_MIN)
		window_judge(p, window_p99(delta, n), len);
	else if (len >= WINDOW_MAX_NS)
		c->rate_bps = UNLIMITED; /* nobody is there to be disturbed */
	else
		return;
	if (n >= REQUESTS_MIN && is_asked(c) && (!c->looked_ns || now - c->looked_ns >= LOOK_NS)) {
		c->quiet_ns = now;
		c->settled = false;
	}
	window_begin(c, total);
	co_queue_wake_all(&c->waiters); /* the rate has changed, perhaps */
}

/* A window in which it is held back: the first one still has what was under way. */
static void tick_quiet(struct pool_pace *c, const uint64_t *total, const uint64_t *delta, uint64_t n)
{
	uint64_t now = reactor_now_ns();

	if (!c->settled) {
		c->settled = true;
		window_begin(c, total);
		return;
	}
	if (n < REQUESTS_MIN && now - c->quiet_ns < QUIET_MAX_NS)
		return;
	if (n >= REQUESTS_MIN)
		base_learn(c, window_p99(delta, n));
	c->looked_ns = now;
	c->quiet_ns = 0;
	c->refilled_ns = now;
	window_begin(c, total);
	co_queue_wake_all(&c->waiters);
}

static void pace_tick(struct timer *t)
{
	struct pool_pace *c = container_of(t, struct pool_pace, timer);
	struct ashlar_pool *p = container_of(c, struct pool_life, pace)->p;
	uint64_t *total = xmalloc(2 * PACE_BUCKETS * sizeof(*total)), *delta = total + PACE_BUCKETS, n;

	n = window_counts(p, total, delta);
	if (c->quiet_ns)
		tick_quiet(c, total, delta, n);
	else
		tick_running(p, total, delta, n);
	xfree(total);
	timer_arm(t, reactor_now_ns() + (is_asked(c) || c->quiet_ns ? WINDOW_NS : WINDOW_MAX_NS));
}

void pool_pace_start(struct ashlar_pool *p)
{
	struct pool_pace *c = &p->life->pace;

	c->rate_bps = UNLIMITED;
	c->window_ns = c->refilled_ns = reactor_now_ns();
	co_queue_init(&c->waiters);
	c->timer.fire = pace_tick;
	timer_arm(&c->timer, reactor_now_ns() + WINDOW_MAX_NS);
}

void pool_pace_stop(struct ashlar_pool *p)
{
	timer_cancel(&p->life->pace.timer);
	co_queue_wake_all(&p->life->pace.waiters);
}

/* ---- the bucket ---- */

/* Background work begins after a pause: the window up to now was without. */
static void pace_wake(struct ashlar_pool *p)
{
	struct pool_pace *c = &p->life->pace;

	uint64_t *total = xmalloc(2 * PACE_BUCKETS * sizeof(*total));
	bool busy = has_clients(c, window_counts(p, total, total + PACE_BUCKETS));

	xfree(total);
	c->used_ns = reactor_now_ns();
	pace_tick(&c->timer);
	if (busy)
		c->rate_bps = p->settings.pace_floor_bps;
}

int pool_co_pace(struct ashlar_pool *p, uint64_t bytes)
{
	struct pool_pace *c = &p->life->pace;

	if (!p->stopping && !is_asked(c))
		pace_wake(p);
	for (;;) {
		uint64_t now = reactor_now_ns(), rate = rate_now(p), wait = UINT64_MAX;

		if (p->stopping || p->failed) /* another daemon may have the disks: nothing more is copied */
			return -ECANCELED;
		c->used_ns = now;
		if (!c->quiet_ns) {
			__int128 have = c->tokens + (__int128)rate * (now - c->refilled_ns) / NS_PER_SEC;

			c->refilled_ns = now;
			c->tokens = (int64_t)MIN(have, (__int128)(MIN(rate, RATE_FREE) / (NS_PER_SEC / BURST_NS) + 1));
			if (c->tokens > 0 || rate == UNLIMITED)
				break;
			wait = now + (uint64_t)((unsigned __int128)(1 - c->tokens) * NS_PER_SEC / rate) + 1;
		}
		(void)!co_queue_wait_until(&c->waiters, wait);
	}
	c->tokens -= (int64_t)bytes;
	c->bytes += bytes;
	return 0;
}

uint64_t pool_pace_unit(const struct ashlar_pool *p, uint64_t most)
{
	uint64_t rate = rate_now(p);

	if (rate >= RATE_FREE)
		return most;
	return MIN(most, MAX(rate * UNIT_NS / NS_PER_SEC / UNIT_MIN * UNIT_MIN, UNIT_MIN));
}
