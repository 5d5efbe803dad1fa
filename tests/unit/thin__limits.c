/*
 * Limits of a volume: how much goes through in which time, to the microsecond of simulated time.
 */
#include <inttypes.h>

#include "tests/unit/thin__script.h"

#define SIZE (64 * MIB)

static void script(int (*fn)(void *arg))
{
	struct thin_rig_conf c = conf_of(11);

	script_conf(&c, fn);
}

/* Reads what was never written: no disk is in the way. `depth` at a time, until a time has come. */
struct load {
	struct io io[64];
	uint8_t *buf;
	uint64_t len, until_ns, n, n_ended;
	uint64_t slowest_ns, start_ns[64];
	int result;
	bool stop;
};

static void load_submit(struct load *l, struct io *io)
{
	if (l->stop || reactor_now_ns() >= l->until_ns)
		return;
	io_prep(io, IO_READ, 0, l->len, l->buf, 0);
	io->owner = l;
	l->start_ns[io - l->io] = reactor_now_ns();
	l->n++;
	bdev_submit(bd, io);
}

static void load_done(struct io *io)
{
	struct load *l = io->owner;

	l->n_ended++;
	l->slowest_ns = MAX(l->slowest_ns, reactor_now_ns() - l->start_ns[io - l->io]);
	if (!l->result)
		l->result = io->result;
	load_submit(l, io);
}

static struct load *load_start(uint64_t len, unsigned depth, uint64_t ns)
{
	struct load *l = xcalloc(1, sizeof(*l));
	unsigned i;

	CHECK(depth <= ARRAY_LEN(l->io));
	l->len = len;
	l->buf = buf_alloc(len);
	l->until_ns = reactor_now_ns() + ns;
	for (i = 0; i < depth; i++) {
		l->io[i].done = load_done;
		load_submit(l, &l->io[i]);
	}
	return l;
}

static void load_co_end(struct load *l)
{
	l->stop = true;
	while (l->n != l->n_ended)
		co_sleep_ns(NS_PER_MS);
	EXPECT(l->result == 0);
	buf_free(l->buf, l->len);
	xfree(l);
}

static bool is_of_load(const struct io *io, void *load)
{
	return io->owner == load;
}

/* Somebody goes: what of his requests waits for its turn ends, and those of others take it. */
static int cancel_co(void *arg)
{
	struct thin_volume_stats st;
	struct load *a, *b;
	uint64_t start;

	co_begin(SIZE, 0);
	thin_volume_set_limits(vol->open, &(struct thin_limits){.iops = 10});
	a = load_start(4096, 32, NS_PER_SEC);
	b = load_start(4096, 8, NS_PER_SEC);
	a->stop = b->stop = true;
	start = reactor_now_ns();
	bdev_cancel(bd, is_of_load, a);
	co_sleep_ns(NS_PER_MS); /* one was let through */
	EXPECT(a->n == a->n_ended && a->result == -ECANCELED && b->n_ended == 0);
	thin_volume_stats_get(vol->open, &st);
	EXPECT(st.limit_waiting == 8);
	load_co_end(b);
	EXPECT(reactor_now_ns() - start < NS_PER_SEC);
	buf_free(a->buf, a->len);
	xfree(a);
	return co_end();
}

static void what_is_cancelled_takes_nobodys_turn(void)
{
	script(cancel_co);
}

/* How many of `len` bytes end in that time, with so many at once. */
static uint64_t co_count(uint64_t len, unsigned depth, uint64_t ns)
{
	struct load *l = load_start(len, depth, ns);
	uint64_t n;

	co_sleep_ns(ns);
	n = l->n_ended;
	load_co_end(l);
	return n;
}

static void limits_set(uint32_t iops, uint64_t bps)
{
	thin_volume_set_limits(vol->open, &(struct thin_limits){ .iops = iops, .bps = bps });
}

static bool is_about(uint64_t n, uint64_t want, uint64_t allowed)
{
	if (n + allowed >= want && n <= want + allowed)
		return true;
	printf("# %" PRIu64 " is not about %" PRIu64 "\n", n, want);
	return false;
}

/* A tenth of a second has been saved up, and one goes in debt. */
#define SAVED_NS (100 * NS_PER_MS)
static int rates_co(void *arg)
{
	static const uint32_t iops[] = { 1, 3, 10, 70, 100, 333, 1000, 4999, 5001, 30000, 200000, 1000000 };
	static const uint64_t bps[] = { 64 * KIB, 100000, MIB, 3333333, 10 * MIB, 500 * MIB, 4 * GIB };
	uint64_t ns, want;
	unsigned i, depth;

	co_begin(SIZE, 0);
	for (depth = 1; depth <= 64; depth *= 8) {
		for (i = 0; i < ARRAY_LEN(iops); i++) {
			ns = iops[i] < 100 ? 300 * NS_PER_SEC : 100000 * NS_PER_SEC / iops[i];
			want = iops[i] * (ns + SAVED_NS) / NS_PER_SEC;
			limits_set(iops[i], 0);
			EXPECT(is_about(co_count(512, depth, ns), want, 1 + want / 1000));
		}
		for (i = 0; i < ARRAY_LEN(bps); i++) {
			uint64_t len = depth == 1 ? 512 : 64 * KIB;

			if (len == 512 && bps[i] > 500 * MIB)
				continue; /* one at a time cannot do that */
			ns = MAX(10000 * len * NS_PER_SEC / bps[i], 100 * NS_PER_MS);
			want = bps[i] * ((ns + SAVED_NS) / NS_PER_US) / 1000000 / len;
			limits_set(0, bps[i]);
			EXPECT(is_about(co_count(len, depth, ns), want, 1 + want / 1000));
		}
	}
	return co_end();
}

static void the_rate_over_a_long_time_is_the_limit(void)
{
	script(rates_co);
}

static int both_co(void *arg)
{
	uint64_t n;

	co_begin(SIZE, 0);
	limits_set(1000, 10 * MIB);
	EXPECT(is_about(co_count(512, 8, 10 * NS_PER_SEC), 10100, 5));
	co_sleep_ns(NS_PER_SEC);
	EXPECT(is_about(co_count(64 * KIB, 8, 10 * NS_PER_SEC), 1616, 3));
	/* Bytes were what held, for long: no I/Os have been saved up by that. */
	n = co_count(64 * KIB, 1, 100 * NS_PER_SEC) + co_count(512, 8, NS_PER_SEC);
	EXPECT(is_about(n, 16000 + 1100, 30));
	return co_end();
}

static void the_narrower_of_two_limits_counts(void)
{
	script(both_co);
}

static int bursts_co(void *arg)
{
	co_begin(SIZE, 0);
	thin_volume_set_limits(vol->open, &(struct thin_limits){ .iops = 100, .burst_iops = 1000, .burst_seconds = 10 });
	EXPECT(is_about(co_count(512, 16, 5 * NS_PER_SEC), 5100, 5));
	EXPECT(is_about(co_count(512, 16, 10 * NS_PER_SEC), 4910 + 500, 20)); /* the rest of it, and then no more than the limit */
	EXPECT(is_about(co_count(512, 16, 10 * NS_PER_SEC), 1000, 20));
	co_sleep_ns(9 * NS_PER_SEC); /* 900 saved, enough for one second */
	EXPECT(is_about(co_count(512, 16, NS_PER_SEC), 1000, 30));
	EXPECT(is_about(co_count(512, 16, 10 * NS_PER_SEC), 1000, 20));
	co_sleep_ns(1000 * NS_PER_SEC); /* a long rest is worth one whole burst */
	EXPECT(is_about(co_count(512, 16, 20 * NS_PER_SEC), 10000 + 1000, 60));
	thin_volume_set_limits(vol->open, &(struct thin_limits){ .bps = MIB, .burst_bps = 8 * MIB, .burst_seconds = 4, .iops = 100000 });
	EXPECT(is_about(co_count(64 * KIB, 4, 4 * NS_PER_SEC), 8 * 4 * 16, 4));
	EXPECT(is_about(co_count(64 * KIB, 4, 10 * NS_PER_SEC), 160, 4));
	return co_end();
}

static void bursts_last_as_long_as_declared(void)
{
	script(bursts_co);
}

static int mixed_co(void *arg)
{
	struct load *large, *small;

	co_begin(SIZE, 0);
	limits_set(0, 8 * MIB);
	large = load_start(8 * MIB, 4, 60 * NS_PER_SEC);
	small = load_start(512, 4, 60 * NS_PER_SEC);
	co_sleep_ns(60 * NS_PER_SEC);
	EXPECT(is_about(large->n_ended, 60, 2) && is_about(small->n_ended, 60, 6));
	EXPECT(large->slowest_ns < 6 * NS_PER_SEC && small->slowest_ns < 6 * NS_PER_SEC); /* what stands before them, and no more */
	load_co_end(large);
	load_co_end(small);
	return co_end();
}

static void small_and_large_requests_wait_in_one_line(void)
{
	script(mixed_co);
}

struct order {
	struct io io[100];
	uint64_t end_ns[100];
	unsigned n, n_failed;
};

static void order_done(struct io *io)
{
	struct order *o = io->owner;

	o->end_ns[io - o->io] = reactor_now_ns();
	o->n_failed += io->result < 0;
	o->n++;
}

/* Those that could go at the same time end as it happens. */
static bool is_in_order(const struct order *o)
{
	unsigned i;

	for (i = 0; i < ARRAY_LEN(o->io); i++)
		if (!o->end_ns[i] != (i >= o->n) || (i && i < o->n && o->end_ns[i] + NS_PER_MS < o->end_ns[i - 1]))
			return false;
	return true;
}

static void order_start(struct order *o, void *buf)
{
	unsigned i;

	memset(o, 0, sizeof(*o));
	for (i = 0; i < ARRAY_LEN(o->io); i++) {
		io_prep(&o->io[i], IO_READ, 0, i % 3 ? 512 : 4096, buf, 0);
		o->io[i].done = order_done;
		o->io[i].owner = o;
		bdev_submit(bd, &o->io[i]);
	}
}

static int order_co(void *arg)
{
	struct order *o = xcalloc(1, sizeof(*o));
	struct thin_volume_stats st;
	void *buf = buf_alloc(4096);
	unsigned n;
	int r;

	co_begin(SIZE, 0);
	limits_set(10, 64 * KIB);
	order_start(o, buf);
	co_sleep_ns(3 * NS_PER_SEC);
	EXPECT(is_about(o->n, 31, 1) && !o->n_failed && is_in_order(o));
	EXPECT(bdev_co_flush(bd) == 0 && o->n < 33); /* is not held */
	thin_volume_stats_get(vol->open, &st);
	EXPECT(st.limited == 98 && st.limit_waiting == 100 - o->n && st.limited_ns > 40 * NS_PER_SEC);
	limits_set(100, 0); /* those that wait go by the new limit */
	n = o->n;
	co_sleep_ns(100 * NS_PER_MS);
	EXPECT(is_about(o->n - n, 21, 1) && !o->n_failed && is_in_order(o));
	limits_set(0, 0);
	co_sleep_ns(NS_PER_MS);
	EXPECT(o->n == 100 && !o->n_failed && is_in_order(o));
	limits_set(1, 0);
	order_start(o, buf);
	co_sleep_ns(2 * NS_PER_SEC);
	EXPECT(o->n < 5);
	r = co_end(); /* closing lets go what is held */
	EXPECT(o->n == 100 && !o->n_failed && is_in_order(o));
	buf_free(buf, 4096);
	xfree(o);
	return r;
}

static void held_requests_go_on_in_order(void)
{
	script(order_co);
}

static uint64_t co_timed(int (*fn)(struct bdev *b, uint64_t off, uint64_t len, unsigned flags), uint64_t len, unsigned flags, unsigned n)
{
	uint64_t from;

	co_sleep_ns(100 * NS_PER_SEC);
	from = reactor_now_ns();
	while (n--)
		EXPECT(fn(bd, 0, len, flags) == 0);
	return reactor_now_ns() - from;
}

static int co_one_write(struct bdev *b, uint64_t off, uint64_t len, unsigned flags)
{
	return co_fill(b, off, len, 1, flags);
}

static int costs_co(void *arg)
{
	co_begin(SIZE, 0);
	limits_set(0, MIB);
	EXPECT(co_timed(bdev_co_discard, SIZE, 0, 20) < NS_PER_SEC);
	EXPECT(co_timed(bdev_co_zero, SIZE, 0, 20) < NS_PER_SEC);
	EXPECT(is_about(co_timed(bdev_co_zero, MIB, IO_NO_HOLE, 11), 10 * NS_PER_SEC, NS_PER_SEC / 10));
	EXPECT(is_about(co_timed(co_one_write, MIB, 0, 11), 10 * NS_PER_SEC, NS_PER_SEC / 10));
	limits_set(2, 0);
	EXPECT(is_about(co_timed(bdev_co_discard, SIZE, 0, 21), 10 * NS_PER_SEC, NS_PER_SEC / 10));
	EXPECT(is_about(co_timed(bdev_co_zero, SIZE, 0, 21), 10 * NS_PER_SEC, NS_PER_SEC / 10));
	EXPECT(is_about(co_timed(co_one_write, 4096, IO_FUA, 21), 10 * NS_PER_SEC, NS_PER_SEC / 10));
	return co_end();
}

static void zeroing_and_discarding_cost_an_io(void)
{
	script(costs_co);
}

static int inner_co(void *arg)
{
	struct thin_volume_stats st;
	struct order *o = xcalloc(1, sizeof(*o));
	uint8_t *buf = buf_alloc(4096);
	uint64_t from;
	unsigned i;
	int r;

	co_begin(SIZE, 0);
	limits_set(1, 0);
	order_start(o, buf);
	from = reactor_now_ns();
	for (i = 0; i < 100; i++)
		EXPECT(bdev_co_read(thin_volume_inner(vol->open), 0, buf, 4096) == 0);
	EXPECT(reactor_now_ns() - from < NS_PER_SEC);
	/* Frozen, and smaller after it, while some wait. */
	co_sleep_ns(2 * NS_PER_SEC);
	thin_volume_co_freeze(vol->open, true);
	i = o->n;
	co_sleep_ns(10 * NS_PER_SEC);
	EXPECT(o->n == i);
	thin_volume_thaw(vol->open);
	co_sleep_ns(NS_PER_MS);
	EXPECT(is_about(o->n - i, 10, 1) && !o->n_failed && is_in_order(o));
	EXPECT(thin_volume_co_resize(vol->open, 1024) == 0);
	limits_set(0, 0);
	co_sleep_ns(NS_PER_MS);
	EXPECT(o->n == 100 && o->n_failed > 20); /* the larger ones are beyond its end now */
	thin_volume_stats_get(vol->open, &st);
	EXPECT(st.limit_waiting == 0);
	EXPECT(thin_volume_co_resize(vol->open, SIZE) == 0);
	r = co_end();
	buf_free(buf, 4096);
	xfree(o);
	return r;
}

static void what_is_not_a_clients_is_not_held(void)
{
	script(inner_co);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(the_rate_over_a_long_time_is_the_limit),
		TEST(the_narrower_of_two_limits_counts),
		TEST(bursts_last_as_long_as_declared),
		TEST(small_and_large_requests_wait_in_one_line),
		TEST(held_requests_go_on_in_order),
		TEST(zeroing_and_discarding_cost_an_io),
		TEST(what_is_not_a_clients_is_not_held),
		TEST(what_is_cancelled_takes_nobodys_turn),
		CU_TEST_INFO_NULL,
	};

	return tests_run("thin: limits", tests);
}
