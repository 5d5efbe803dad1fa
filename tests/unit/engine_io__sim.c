/*
 * Simulated disks: contents, buffers, and what is durable when. Faults and the schedule: engine_io__sim_world.c.
 */
#include "tests/unit/engine_io__sim.h"
#include "tests/unit/unit.h"

/* ---- contents ---- */

static int co_write_and_read(void *arg)
{
	uint64_t end = d->bdev.size_bytes;
	struct iovec iov[3];
	uint8_t *buf = buf_alloc(4 * PAGE);
	struct io io;

	EXPECT(read_fill_of(d, 0, PAGE) == 0);
	EXPECT(fill(d, end - MIB, MIB, 7, 0) == 0);
	EXPECT(read_fill_of(d, end - MIB, MIB) == 7);
	EXPECT(read_fill_of(d, end - MIB - PAGE, PAGE) == 0);
	EXPECT(fill(d, GRAN * 3, GRAN * 9, 8, 0) == 0); /* from the middle of a page to the middle of the next */
	EXPECT(read_fill_of(d, GRAN * 3, GRAN * 9) == 8);
	EXPECT(read_fill_of(d, 0, GRAN * 3) == 0);
	EXPECT(read_fill_of(d, GRAN * 12, GRAN * 4) == 0);
	io_prep(&io, IO_READ, GRAN, 4 * PAGE - GRAN * 2, NULL, 0);
	iov[0] = (struct iovec){ buf, GRAN };
	iov[1] = (struct iovec){ buf + GRAN, 2 * PAGE };
	iov[2] = (struct iovec){ buf + GRAN + 2 * PAGE, 2 * PAGE - GRAN * 3 };
	io.iov = iov;
	io.iov_n = 3;
	EXPECT(bdev_co_submit(&d->bdev, &io) == 0);
	EXPECT(is_filled(buf, GRAN * 2, 0) && is_filled(buf + GRAN * 2, GRAN * 9, 8));
	EXPECT(is_filled(buf + GRAN * 11, 4 * PAGE - GRAN * 13, 0));
	EXPECT(bdev_co_zero(&d->bdev, GRAN * 5, GRAN * 5, 0) == 0);
	EXPECT(read_fill_of(d, GRAN * 5, GRAN * 5) == 0);
	EXPECT(read_fill_of(d, GRAN * 10, GRAN * 2) == 8);
	buf_free(buf, 4 * PAGE);
	return 0;
}

static void reads_give_what_was_written_and_zeros_elsewhere(void)
{
	begin(1);
	run(co_write_and_read, NULL);
	end();
	begin_size(2, 1, 1, 16 * TIB, 512);
	run(co_write_and_read, NULL);
	end();
}

static int co_huge(void *arg)
{
	EXPECT(fill(d, 9 * TIB, PAGE, 1, 0) == 0);
	EXPECT(bdev_co_flush(&d->bdev) == 0);
	EXPECT(fill(d, 8 * TIB, PAGE, 3, 0) == 0);
	EXPECT(fill(d, 10 * TIB, PAGE, 2, 0) == 0);
	EXPECT(bdev_co_zero(&d->bdev, 4 * TIB + GRAN, 6 * TIB + GRAN, 0) == 0);
	EXPECT(read_fill_of(d, 9 * TIB, PAGE) == 0);
	EXPECT(read_fill_of(d, 10 * TIB, GRAN * 2) == 0);
	EXPECT(read_fill_of(d, 10 * TIB + GRAN * 2, GRAN * 6) == 2);
	EXPECT(bdev_co_discard(&d->bdev, 0, 16 * TIB, 0) == 0);
	EXPECT(bdev_co_zero(&d->bdev, 0, 16 * TIB, IO_FUA) == 0);
	return 0;
}

static void zeroing_terabytes_costs_nothing_and_leaves_nothing(void)
{
	uint64_t s;

	for (s = 0; s < 20; s++) {
		begin_size(s, 1, 1, 16 * TIB, 512);
		run(co_huge, NULL);
		EXPECT(durable_fill(0, 9 * TIB, PAGE) == 0);
		cut((enum sim_cut)(s % 6)); /* FUA zeros are newer than any write of the log */
		EXPECT(durable_fill(0, 8 * TIB, PAGE) == 0);
		EXPECT(durable_fill(0, 9 * TIB, PAGE) == 0);
		EXPECT(durable_fill(0, 10 * TIB, PAGE) == 0);
		end();
	}
}

static int co_discard(void *arg)
{
	unsigned *seen = arg, i;
	int c;

	EXPECT(fill(d, 0, 64 * PAGE, 5, 0) == 0);
	EXPECT(bdev_co_discard(&d->bdev, GRAN, 64 * PAGE - GRAN, 0) == 0);
	EXPECT(read_fill_of(d, 0, PAGE) == 5); /* not a whole page */
	for (i = 1; i < 64; i++) {
		c = read_fill_of(d, i * PAGE, PAGE);
		EXPECT(c == 0 || c == 5);
		seen[c == 5]++;
	}
	return 0;
}

static void discard_zeros_whole_pages_or_leaves_them(void)
{
	unsigned seen[2] = { 0 };

	begin(4);
	run(co_discard, seen);
	EXPECT(seen[0] > 5 && seen[1] > 5);
	end();
}

/* ---- buffers ---- */

static int co_buffers(void *arg)
{
	unsigned *seen = arg;
	struct bg b;

	bg_start(&b, IO_READ, 0, PAGE, 0, 0);
	EXPECT(is_filled(b.buf, PAGE, 0) || is_filled(b.buf, PAGE, 0xdb)); /* filled at once, or junk */
	seen[((uint8_t *)b.buf)[0] == 0xdb]++;
	EXPECT(bg_wait(&b) == 0);
	EXPECT(is_filled(b.buf, PAGE, 0));
	bg_start(&b, IO_WRITE, 0, PAGE, 1, 0);
	co_sleep_ns(60000);
	if (!b.place) {
		memset(b.buf, 2, PAGE); /* not allowed: and it shows, sometimes */
		EXPECT(bg_wait(&b) == 0);
	}
	memset(b.buf, 3, PAGE);
	seen[2 + read_fill_of(d, 0, PAGE)]++;
	return 0;
}

static void payload_moves_at_any_moment_until_completion_and_not_after(void)
{
	unsigned seen[6] = { 0 };
	uint64_t s;

	for (s = 100; s < 200; s++) {
		begin(s);
		run(co_buffers, seen);
		end();
	}
	EXPECT(seen[0] > 5 && seen[1] > 40);
	EXPECT(seen[3] > 10 && seen[4] > 10 && seen[5] == 0);
}

static int co_order(void *arg)
{
	unsigned *first = arg, i;
	struct bg b[4];

	n_done = 0;
	for (i = 0; i < 4; i++)
		bg_start(&b[i], IO_WRITE, i * PAGE, PAGE, 1, 0);
	for (i = 0; i < 4; i++)
		EXPECT(bg_wait(&b[i]) == 0);
	for (i = 0; i < 4; i++)
		if (b[i].place == 1)
			first[i]++;
	return 0;
}

static void completions_come_in_any_order(void)
{
	unsigned first[4] = { 0 }, i;
	uint64_t s;

	for (s = 0; s < 200; s++) {
		begin(s);
		run(co_order, first);
		end();
	}
	for (i = 0; i < 4; i++)
		EXPECT(first[i] > 20);
}

/* ---- durability: everything against an oracle ---- */

#define O_GRANS 24
#define O_WRITES 60

/* One write of the oracle's workload; times are positions in the order of events. */
struct o_write {
	struct bg bg;
	unsigned g, n;	  /* granules */
	unsigned t_submit, t_done; /* t_done 0: in flight */
	bool fua, is_durable;
};
static struct o_write ow[O_WRITES];
static unsigned n_ow, o_time;

static void o_done(struct io *io)
{
	struct o_write *o = container_of(io->owner, struct o_write, bg);

	bg_done(io);
	o->t_done = ++o_time;
	o->is_durable |= o->fua;
}

static void o_write_start(struct rng *rng)
{
	struct o_write *o = &ow[n_ow];
	struct bg *b = &o->bg;

	memset(o, 0, sizeof(*o));
	o->g = (unsigned)rng_below(rng, O_GRANS);
	o->n = 1 + (unsigned)rng_below(rng, O_GRANS - o->g);
	o->fua = rng_chance(rng, 1, 5);
	o->t_submit = ++o_time;
	b->buf = buf_alloc(o->n * GRAN);
	memset(b->buf, (int)++n_ow, o->n * GRAN); /* value: number from 1 */
	io_prep(&b->io, IO_WRITE, o->g * GRAN, o->n * GRAN, b->buf, o->fua ? IO_FUA : 0);
	b->io.done = o_done;
	b->io.owner = b;
	b->submitted_on = reactor_self();
	bdev_submit(&d->bdev, &b->io);
}

static bool o_has(const struct o_write *o, unsigned g)
{
	return g >= o->g && g < o->g + o->n;
}

/* May granule g hold value v (0: never written)? Not if a write that must be there was submitted after v was done: one
 * that is durable, or (without durable_only) one that was done before time `before`. */
static bool o_allowed(unsigned g, unsigned v, bool durable_only, unsigned before)
{
	unsigned i, done = 0;

	if (v > n_ow || (v && !o_has(&ow[v - 1], g)))
		return false;
	if (v)
		done = ow[v - 1].t_done ? ow[v - 1].t_done : UINT32_MAX;
	for (i = 0; i < n_ow; i++) {
		if (!o_has(&ow[i], g) || ow[i].t_submit < done)
			continue;
		if (durable_only ? ow[i].is_durable : ow[i].t_done && ow[i].t_done < before)
			return false; /* a later one must be seen */
	}
	return true;
}

static void o_check_read(void)
{
	uint8_t *buf = buf_alloc(O_GRANS * GRAN);
	unsigned before = ++o_time, g;

	EXPECT(bdev_co_read(&d->bdev, 0, buf, O_GRANS * GRAN) == 0);
	for (g = 0; g < O_GRANS; g++) {
		EXPECT(is_filled(buf + g * GRAN, GRAN, buf[g * GRAN]));
		EXPECT(o_allowed(g, buf[g * GRAN], false, before));
	}
	buf_free(buf, O_GRANS * GRAN);
}

static void o_flush(void)
{
	bool covered[O_WRITES];
	unsigned i, n = n_ow;

	for (i = 0; i < n; i++)
		covered[i] = ow[i].t_done != 0;
	EXPECT(bdev_co_flush(&d->bdev) == 0);
	for (i = 0; i < n; i++)
		ow[i].is_durable |= covered[i];
}

static int co_oracle(void *arg)
{
	struct rng *rng = arg;

	while (n_ow < O_WRITES) {
		switch (rng_below(rng, 8)) {
		case 0:
			o_flush();
			break;
		case 1:
			o_check_read();
			break;
		case 2:
		case 3:
			co_sleep_ns(rng_below(rng, 100000));
			break;
		default:
			o_write_start(rng);
		}
	}
	return 0;
}

static void o_check_durable(struct sim_disks *set, unsigned changed[2])
{
	uint8_t buf[O_GRANS * GRAN];
	unsigned g;

	sim_disk_peek(set, 0, 0, buf, sizeof(buf));
	for (g = 0; g < O_GRANS; g++) {
		EXPECT(is_filled(buf + g * GRAN, GRAN, buf[g * GRAN]));
		EXPECT(o_allowed(g, buf[g * GRAN], true, 0));
		changed[buf[g * GRAN] && !ow[buf[g * GRAN] - 1].t_done]++;
	}
}

/* The heart of it: concurrent overlapping writes, FUA, flushes and reads, stopped anywhere, cut in every way. */
static void power_cut_leaves_only_what_the_contract_allows(void)
{
	unsigned in_flight_kept[2] = { 0 }, i;
	struct sim_disks *all;
	struct rng rng;
	uint64_t s;

	for (s = 0; s < 600; s++) {
		begin(s);
		rng_init(&rng, s);
		n_ow = o_time = 0;
		sim_disks_stop_at(ds, 1 + rng_below(&rng, 130));
		sim_run(w, co_oracle, &rng, NULL, NS_PER_SEC);
		if (s % 3 == 0) { /* a copy of a running world's disks is as good as the disks */
			all = sim_disks_clone(ds);
			sim_disks_power_cut(all, (enum sim_cut)(s % 6), &rng);
			o_check_durable(all, in_flight_kept);
			sim_disks_destroy(all);
		}
		if (s % 2) {
			world_down();
			cut((enum sim_cut)(s / 2 % 6));
			o_check_durable(ds, in_flight_kept);
			world_up(1);
		} else {
			for (i = 0; i <= SIM_CUT_ONLY_ONE; i++) {
				all = sim_disks_clone(ds);
				sim_disks_power_cut(all, (enum sim_cut)i, &rng);
				o_check_durable(all, in_flight_kept);
				sim_disks_destroy(all);
			}
		}
		end();
	}
	EXPECT(in_flight_kept[1] > 100);
}

static uint8_t settled[O_GRANS * GRAN];

static int co_settled(void *arg)
{
	void *buf = buf_alloc(sizeof(settled));

	EXPECT(bdev_co_read(&d->bdev, 0, buf, sizeof(settled)) == 0);
	memcpy(settled, buf, sizeof(settled));
	return bdev_co_flush(&d->bdev);
}

/* The process dies, the disks stay on: what was completed is there, what was in flight has ended, for good. */
static void crash_without_power_cut_keeps_what_was_completed(void)
{
	uint8_t buf[O_GRANS * GRAN];
	struct rng rng;
	unsigned g;
	uint64_t s;

	for (s = 0; s < 200; s++) {
		begin(s);
		rng_init(&rng, s);
		n_ow = o_time = 0;
		sim_disks_stop_at(ds, 1 + rng_below(&rng, 130));
		sim_run(w, co_oracle, &rng, NULL, NS_PER_SEC);
		world_down();
		sim_disks_stop_at(ds, UINT64_MAX);
		world_up(1);
		run(co_settled, NULL);
		for (g = 0; g < O_GRANS; g++)
			EXPECT(o_allowed(g, settled[g * GRAN], false, ++o_time));
		cut((enum sim_cut)(s % 6));
		sim_disk_peek(ds, 0, 0, buf, sizeof(buf));
		EXPECT(memcmp(buf, settled, sizeof(buf)) == 0);
		end();
	}
}

/* ---- durability, point by point ---- */

static int co_flush_covers(void *arg)
{
	unsigned *uncovered = arg;
	struct bg late, flush;

	EXPECT(fill(d, 0, PAGE, 1, 0) == 0);
	bg_start(&late, IO_WRITE, PAGE, PAGE, 2, 0);
	bg_start(&flush, IO_FLUSH, 0, 0, 0, 0);
	EXPECT(bg_wait(&flush) == 0);
	EXPECT(bg_wait(&late) == 0);
	if (late.place < flush.place)
		++*uncovered; /* completed before the flush did, but not before it was submitted */
	EXPECT(read_fill_of(d, PAGE, PAGE) == 2);
	return 0;
}

static void flush_covers_only_writes_completed_before_its_submission(void)
{
	unsigned before_flush = 0;
	uint64_t s;

	for (s = 0; s < 60; s++) {
		begin(s);
		run(co_flush_covers, &before_flush);
		world_down();
		cut(SIM_CUT_NONE);
		EXPECT(durable_fill(0, 0, PAGE) == 1);
		EXPECT(durable_fill(0, PAGE, PAGE) == 0);
		world_up(1);
		end();
	}
	EXPECT(before_flush > 10);
}

static int co_fua(void *arg)
{
	EXPECT(fill(d, 0, PAGE, 1, 0) == 0);
	EXPECT(fill(d, PAGE, PAGE, 2, IO_FUA) == 0);
	EXPECT(fill(d, 2 * PAGE, PAGE, 3, IO_FUA) == 0);
	EXPECT(bdev_co_zero(&d->bdev, 2 * PAGE, PAGE, IO_FUA) == 0);
	EXPECT(fill(d, GRAN, GRAN, 4, IO_FUA) == 0);
	return 0;
}

static void fua_makes_its_own_write_durable_and_no_other(void)
{
	begin(1);
	run(co_fua, NULL);
	cut(SIM_CUT_NONE);
	EXPECT(durable_fill(0, 0, GRAN) == 0);
	EXPECT(durable_fill(0, GRAN, GRAN) == 4);
	EXPECT(durable_fill(0, 2 * GRAN, PAGE - 2 * GRAN) == 0);
	EXPECT(durable_fill(0, PAGE, PAGE) == 2);
	EXPECT(durable_fill(0, 2 * PAGE, PAGE) == 0);
	end();
}

static int co_eight_pages(void *arg)
{
	unsigned i;

	for (i = 0; i < 8; i++)
		EXPECT(fill(d, i * PAGE, PAGE, 1 + (int)i, 0) == 0);
	return 0;
}

/* After a cut of co_eight_pages(): which granules are there, in order of submission. */
static unsigned cut_eight(uint64_t s, enum sim_cut how, char map[65])
{
	unsigned i, kept = 0;
	int c;

	begin(s);
	run(co_eight_pages, NULL);
	world_down();
	cut(how);
	for (i = 0; i < 64; i++) {
		c = durable_fill(0, i * GRAN, GRAN);
		EXPECT(c == 0 || c == 1 + (int)i / 8);
		kept += c != 0;
		map[i] = c ? '#' : '.';
	}
	map[64] = 0;
	world_up(1);
	end();
	return kept;
}

static void cut_none_loses_and_cut_all_keeps_everything(void)
{
	char map[65];

	EXPECT(cut_eight(1, SIM_CUT_NONE, map) == 0);
	EXPECT(cut_eight(1, SIM_CUT_ALL, map) == 64);
}

static void cut_prefix_keeps_a_prefix_in_submission_order(void)
{
	bool seen[65] = { 0 };
	unsigned kept, sum = 0, i;
	char map[65];
	uint64_t s;

	for (s = 0; s < 300; s++) {
		kept = cut_eight(s, SIM_CUT_PREFIX, map);
		EXPECT(strspn(map, "#") == kept);
		seen[kept] = true;
	}
	for (i = 0; i < 65; i++)
		sum += seen[i];
	EXPECT(sum > 50);
}

static int co_eight_at_once(void *arg)
{
	struct bg b[8];
	unsigned i;

	for (i = 0; i < 8; i++)
		bg_start(&b[i], IO_WRITE, i * PAGE, PAGE, 1, 0);
	for (i = 0; i < 8; i++)
		EXPECT(bg_wait(&b[i]) == 0);
	return 0;
}

static void cut_prefix_goes_by_submission_not_completion(void)
{
	bool lost;
	uint64_t s;
	unsigned i;

	for (s = 0; s < 50; s++) {
		begin(s);
		run(co_eight_at_once, NULL);
		cut(SIM_CUT_PREFIX);
		for (i = lost = 0; i < 64; i++) {
			EXPECT(!lost || durable_fill(0, i * GRAN, GRAN) == 0);
			lost |= durable_fill(0, i * GRAN, GRAN) == 0;
		}
		end();
	}
}

static void cut_all_but_one_and_only_one_take_a_granule_or_a_write(void)
{
	unsigned kept, one = 0, write = 0;
	char map[65];
	uint64_t s;

	for (s = 0; s < 100; s++) {
		kept = cut_eight(s, SIM_CUT_ALL_BUT_ONE, map);
		EXPECT(kept == 63 || (kept == 56 && strstr(map, "........") && strcspn(map, ".") % 8 == 0));
		one += kept == 63;
		kept = cut_eight(s, SIM_CUT_ONLY_ONE, map);
		EXPECT(kept == 1 || (kept == 8 && strstr(map, "########") && strcspn(map, "#") % 8 == 0));
		write += kept == 8;
	}
	EXPECT(one > 20 && one < 80 && write > 20 && write < 80);
}

static void cut_random_tears_pages_and_loses_whole_ones(void)
{
	unsigned torn = 0, whole = 0, page, n, g;
	char map[65];
	uint64_t s;

	for (s = 0; s < 100; s++) {
		cut_eight(s, SIM_CUT_RANDOM, map);
		for (page = 0; page < 8; page++) {
			for (n = g = 0; g < 8; g++)
				n += map[page * 8 + g] == '#';
			torn += n > 0 && n < 8;
			whole += n == 0;
		}
	}
	EXPECT(torn > 100 && whole > 100);
}

static int co_cut_of_many(void *arg)
{
	struct disk *other;
	unsigned i;
	char path[16];

	EXPECT(fill(d, 0, PAGE, 1, 0) == 0);
	for (i = 1; i < 4; i++) {
		snprintf(path, sizeof(path), "disk%u", i);
		EXPECT(disk_co_open(w, path, 0, &other, NULL) == 0);
		EXPECT(fill(other, 0, PAGE, 1, 0) == 0);
		disk_close(other);
	}
	return 0;
}

static void cut_one_is_one_of_all_disks(void)
{
	unsigned i, n, lost[4] = { 0 };
	uint64_t s;

	for (s = 0; s < 40; s++) {
		begin_size(s, 1, 4, DISK_BYTES, 4096);
		run(co_cut_of_many, NULL);
		world_down();
		cut(SIM_CUT_ALL_BUT_ONE);
		for (i = n = 0; i < 4; i++) {
			lost[i] += durable_fill(i, 0, PAGE) != 1;
			n += durable_fill(i, 0, PAGE) != 1;
		}
		EXPECT(n == 1);
		world_up(1);
		end();
	}
	EXPECT(lost[0] && lost[1] && lost[2] && lost[3]);
}

static int co_in_flight(void *arg)
{
	struct bg *b = malloc(sizeof(*b)); /* dropped with the world */

	*(void **)arg = b;
	bg_start(b, IO_WRITE, 0, PAGE, 9, IO_FUA);
	co_sleep_ns(NS_PER_SEC);
	return 0;
}

static void write_in_flight_may_persist_from_submission_on(void)
{
	struct sim_disks *copy, *was;
	void *leak = NULL;
	uint64_t s;

	for (s = 0; s < 20; s++) {
		begin(s);
		sim_disks_stop_at(ds, 1);
		EXPECT(sim_run(w, co_in_flight, &leak, NULL, 0) == -ECANCELED);
		EXPECT(sim_disks_n_events(ds) == 1);
		copy = sim_disks_clone(ds);
		world_down();
		EXPECT(durable_fill(0, 0, PAGE) == 0);
		cut(s % 2 ? SIM_CUT_ALL : SIM_CUT_NONE);
		EXPECT(durable_fill(0, 0, PAGE) == (s % 2 ? 9 : 0));
		was = ds;
		ds = copy; /* where it is in flight too */
		cut(SIM_CUT_ALL);
		EXPECT(durable_fill(0, 0, PAGE) == 9);
		sim_disks_destroy(was);
		world_up(1);
		end();
		free(leak);
	}
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(reads_give_what_was_written_and_zeros_elsewhere),
		TEST(zeroing_terabytes_costs_nothing_and_leaves_nothing),
		TEST(discard_zeros_whole_pages_or_leaves_them),
		TEST(payload_moves_at_any_moment_until_completion_and_not_after),
		TEST(completions_come_in_any_order),
		TEST(power_cut_leaves_only_what_the_contract_allows),
		TEST(crash_without_power_cut_keeps_what_was_completed),
		TEST(flush_covers_only_writes_completed_before_its_submission),
		TEST(fua_makes_its_own_write_durable_and_no_other),
		TEST(cut_none_loses_and_cut_all_keeps_everything),
		TEST(cut_prefix_keeps_a_prefix_in_submission_order),
		TEST(cut_prefix_goes_by_submission_not_completion),
		TEST(cut_all_but_one_and_only_one_take_a_granule_or_a_write),
		TEST(cut_random_tears_pages_and_loses_whole_ones),
		TEST(cut_one_is_one_of_all_disks),
		TEST(write_in_flight_may_persist_from_submission_on),
		CU_TEST_INFO_NULL,
	};

	return tests_run("sim", tests);
}
