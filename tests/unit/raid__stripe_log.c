/*
 * The stripe log's promises, one by one. Power cuts against a model: raid__stripe_log_cuts.c.
 */
#include "tests/unit/raid__stripe_log_rig.h"
#include "raid/stripe_log_impl.h"
#include "tests/unit/unit.h"

#define RING (128 * KIB)
#define BLOCK ((uint64_t)STRIPE_LOG_BLOCK)

/* ---- appending ---- */

static void body_round_trip(void)
{
	struct stripe_log_entry e[3] = {
		{ .group = 1, .stripe = 2, .row_off_bytes = 0, .row_len_bytes = 512, .cols = 0x80000001 },
		{ .group = 1, .stripe = 2, .row_off_bytes = 512, .row_len_bytes = 4096, .cols = 7 },
		{ .group = 1, .stripe = 2, .row_off_bytes = 4608, .row_len_bytes = 1024, .cols = 2 },
	};
	struct stripe_log_ticket t[3];
	struct stripe_log_stats st;

	EXPECT(co_recover() == 0 && rig.n_found == 0);
	log_up();
	EXPECT(co_append(1, e, 3, &t[0]) == 0);
	EXPECT(co_append_one(2, 8, 64 * KIB, &t[1]) == 0);
	EXPECT(co_append_one(5, 8, 1024, &t[2]) == 0);
	stripe_log_stats_get(rig.l, &st);
	EXPECT(st.batches == 3 && st.entries == 5 && st.bytes == 64 * KIB + 8 * BLOCK);
	EXPECT(st.bytes == st.used_bytes && rig.n_flushes == 0);
	for (unsigned i = 0; i < 3; i++)
		stripe_log_done(rig.l, &t[i]);
	log_down();
	EXPECT(co_recover() == 0 && FOUND(1, 1, 1, 2, 5));
	for (unsigned i = 0; i < 3; i++)
		EXPECT(entry_is(&rig.found[i].e, &e[i]));
	EXPECT(co_recover() == 0 && FOUND(1, 1, 1, 2, 5));
}

static void what_is_appended_is_found(void)
{
	for (uint64_t s = 1; s <= 10; s++)
		rig_run(s, RING, body_round_trip);
}

static void body_small_requests(void)
{
	rig.dev.max_bytes = 8192;
	body_round_trip();
}

static void a_batch_may_be_longer_than_the_longest_request(void)
{
	rig_run(1, RING, body_small_requests);
}

struct crowd {
	unsigned n, running, len;
	struct co_queue end;
	uint64_t next_id;
};

static void crowd_co_one(void *arg)
{
	struct crowd *c = arg;
	struct stripe_log_ticket t;
	uint64_t id = c->next_id++;

	EXPECT(co_append_one(id, id, c->len, &t) == 0);
	stripe_log_done(rig.l, &t);
	if (--c->running == 0)
		co_queue_wake_all(&c->end);
}

static void crowd_co_run(struct crowd *c)
{
	co_queue_init(&c->end);
	c->running = c->n;
	for (unsigned i = 0; i < c->n; i++)
		co_spawn(CO_SERVICE, crowd_co_one, c, "appender");
	co_queue_wait(&c->end);
}

static void body_group_commit(void)
{
	struct crowd c = { .n = 600, .len = 1024, .next_id = 1 };

	log_up();
	crowd_co_run(&c);
	EXPECT(log_batches() <= 4); /* the first alone, the rest by as many as a batch can hold */
	log_down();
	EXPECT(co_recover() == 0 && rig.n_found == c.n);
	for (size_t i = 0; i < rig.n_found; i++)
		EXPECT(rig.found[i].id == i + 1);
}

static void appends_that_come_meanwhile_share_a_batch(void)
{
	for (uint64_t s = 1; s <= 3; s++)
		rig_run(s, 2 * MIB, body_group_commit);
}

static void body_laps(void)
{
	uint64_t max = stripe_log_max_bytes(rig.l), total = 0, id = 1;
	struct stripe_log_ticket t;

	for (; total < 40 * rig.conf.len_bytes; id++) {
		uint32_t len = 1024 * (1 + (uint32_t)rng_below(&rig.rng, rng_chance(&rig.rng, 1, 2) ? 4 : max / 1024));

		EXPECT(co_append_one(id, id, len, &t) == 0);
		EXPECT(log_used() <= rig.conf.len_bytes);
		stripe_log_done(rig.l, &t);
		total += len;
	}
	EXPECT(rig.n_flushes >= 40 && rig.n_flushes < 40 * 6);
}

static void body_many_laps(void)
{
	uint64_t n, last = 0;

	log_up();
	body_laps();
	n = log_batches();
	log_down();
	EXPECT(co_recover() == 0 && rig.n_found > 0 && rig.n_found < n);
	for (size_t i = 0; i < rig.n_found; i++, last++)
		EXPECT(i == 0 ? (last = rig.found[i].id) > 0 : rig.found[i].id == last);
}

static void the_ring_goes_round_and_flushes_by_itself(void)
{
	for (uint64_t s = 1; s <= 20; s++)
		rig_run(s, RING + s % 4 * 20 * KIB, body_many_laps);
}

/* ---- room ---- */

static bool late_ended;
static int late_result;
static struct stripe_log_ticket late_ticket;

static void late_co_append(void *arg)
{
	late_result = co_append_one(77, 77, 60 * KIB, &late_ticket);
	late_ended = true;
}

static void late_start(void)
{
	late_ended = false;
	co_spawn(CO_SERVICE, late_co_append, NULL, "late append");
	co_sleep_ns(20 * NS_PER_MS);
}

static void body_wait_for_room(void)
{
	struct stripe_log_ticket t[2];

	log_up();
	EXPECT(co_append_one(1, 1, 60 * KIB, &t[0]) == 0);
	EXPECT(co_append_one(2, 2, 32 * KIB, &t[1]) == 0);
	late_start();
	EXPECT(!late_ended && rig.n_flushes == 0); /* a flush would be no use yet */
	stripe_log_done(rig.l, &t[1]);
	co_sleep_ns(20 * NS_PER_MS);
	EXPECT(!late_ended && rig.n_flushes == 0);
	stripe_log_done(rig.l, &t[0]);
	co_sleep_ns(20 * NS_PER_MS);
	EXPECT(late_ended && late_result == 0 && rig.n_flushes == 1);
	EXPECT(co_recover() == 0 && FOUND(77));
	stripe_log_done(rig.l, &late_ticket);
	log_down();
}

static void an_append_waits_until_the_oldest_is_done_and_flushed(void)
{
	for (uint64_t s = 1; s <= 5; s++)
		rig_run(s, RING, body_wait_for_room);
}

static void body_failed_flush(void)
{
	struct stripe_log_ticket t[2];

	log_up();
	rig.flush_result = -EIO;
	EXPECT(co_append_one(1, 1, 60 * KIB, &t[0]) == 0);
	EXPECT(co_append_one(2, 2, 32 * KIB, &t[1]) == 0);
	stripe_log_done(rig.l, &t[0]);
	stripe_log_done(rig.l, &t[1]);
	late_start();
	EXPECT(late_ended && late_result == -EIO && rig.n_flushes > 0);
	stripe_log_done(rig.l, &late_ticket); /* harmless */
	EXPECT(co_append_one(3, 3, 1024, &t[1]) == 0); /* there is room for that */
	EXPECT(co_recover() == 0 && FOUND(1, 2, 3)); /* what a failed flush has not covered is needed */
	stripe_log_done(rig.l, &t[1]);
	rig.flush_result = 0;
	late_start();
	EXPECT(late_ended && late_result == 0);
	EXPECT(co_recover() == 0 && FOUND(77));
	stripe_log_done(rig.l, &late_ticket);
	log_down();
}

static void a_failed_flush_fails_who_waits_for_room_and_frees_nothing(void)
{
	for (uint64_t s = 1; s <= 5; s++)
		rig_run(s, RING, body_failed_flush);
}

static void body_close_while_flushing(void)
{
	struct stripe_log_ticket t[2];

	rig.flush_ns = 5 * NS_PER_MS;
	for (unsigned i = 0; i < 2; i++) {
		log_up();
		EXPECT(co_append_one(1, 1, 60 * KIB, &t[0]) == 0);
		EXPECT(co_append_one(2, 1, 30 * KIB, &t[1]) == 0);
		stripe_log_done(rig.l, &t[1]);
		stripe_log_done(rig.l, &t[0]);
		if (i)
			co_sleep_ns(NS_PER_MS);
		EXPECT(rig.n_flushes == i);
		log_down();
		co_sleep_ns(20 * NS_PER_MS);
		EXPECT(rig.n_flushes == i); /* the first had not begun */
	}
}

static void closing_does_not_wait_for_the_flush(void)
{
	rig_run(1, RING, body_close_while_flushing);
}

/* ---- flushes and what is live ---- */

static void body_flush_before_done(void)
{
	struct stripe_log_ticket t[3];
	uint64_t mark[2];

	log_up();
	EXPECT(co_append_one(1, 1, 1024, &t[0]) == 0);
	EXPECT(co_append_one(2, 2, 1024, &t[1]) == 0);
	mark[0] = stripe_log_flush_begin(rig.l);
	stripe_log_done(rig.l, &t[0]);
	mark[1] = stripe_log_flush_begin(rig.l);
	stripe_log_flush_end(rig.l, mark[0], true); /* began before the writes had ended */
	EXPECT(co_append_one(3, 3, 1024, &t[2]) == 0);
	EXPECT(co_recover() == 0 && FOUND(1, 2, 3));
	stripe_log_flush_end(rig.l, mark[1], false);
	EXPECT(co_append_one(4, 3, 1024, &t[2]) == 0);
	EXPECT(co_recover() == 0 && FOUND(1, 2, 3, 4));
	co_flush_all();
	EXPECT(co_append_one(6, 3, 1024, &t[2]) == 0);
	EXPECT(co_recover() == 0 && FOUND(2, 3, 4, 6)); /* 2 is not done: nothing behind it goes */
}

static void only_a_good_flush_that_began_after_done_frees(void)
{
	rig_run(1, RING, body_flush_before_done);
}

static void body_live(void)
{
	struct stripe_log_ticket t;

	log_up();
	EXPECT(!stripe_log_is_live(rig.l, 9, 0, 1000));
	EXPECT(co_append_one(1, 5, 1024, &t) == 0);
	EXPECT(stripe_log_is_live(rig.l, 9, 5, 1) && stripe_log_is_live(rig.l, 9, 0, UINT64_MAX) &&
	       stripe_log_is_live(rig.l, 9, 4, 2));
	EXPECT(!stripe_log_is_live(rig.l, 9, 6, 1000) && !stripe_log_is_live(rig.l, 8, 5, 1) &&
	       !stripe_log_is_live(rig.l, 9, 0, 5) && !stripe_log_is_live(rig.l, 9, 5, 0));
	stripe_log_done(rig.l, &t);
	co_flush_all();
	EXPECT(stripe_log_is_live(rig.l, 9, 5, 1)); /* nothing on disk says that it is not needed */
	EXPECT(co_recover() == 0 && FOUND(1));
	EXPECT(co_append_one(2, 6, 1024, &t) == 0);
	EXPECT(!stripe_log_is_live(rig.l, 9, 5, 1) && stripe_log_is_live(rig.l, 9, 6, 1));
	EXPECT(co_recover() == 0 && FOUND(2));
	stripe_log_done(rig.l, &t);
	log_down();
}

static void a_stripe_is_live_as_long_as_recovery_would_find_it(void)
{
	rig_run(1, RING, body_live);
}

static void body_cancel(void)
{
	struct stripe_log_ticket t[6];
	uint64_t batches;

	log_up();
	EXPECT(stripe_log_co_cancel(rig.l, 9, 0, 1000) == 0 && log_batches() == 0);
	for (unsigned i = 0; i < 4; i++)
		EXPECT(co_append_one(i + 1, i, 1024, &t[i]) == 0);
	EXPECT(co_append_one(6, 1, 2048, &t[4]) == 0);
	EXPECT(stripe_log_co_cancel(rig.l, 9, 1, 2) == 0);
	batches = log_batches();
	EXPECT(!stripe_log_is_live(rig.l, 9, 1, 2) && stripe_log_is_live(rig.l, 9, 0, 1) && stripe_log_is_live(rig.l, 9, 3, 1));
	EXPECT(co_recover() == 0 && FOUND(1, 4));
	EXPECT(stripe_log_co_cancel(rig.l, 9, 1, 2) == 0 && stripe_log_co_cancel(rig.l, 8, 0, 10) == 0);
	EXPECT(log_batches() == batches);
	EXPECT(co_append_one(7, 2, 1024, &t[5]) == 0);
	EXPECT(stripe_log_is_live(rig.l, 9, 2, 1));
	EXPECT(co_recover() == 0 && FOUND(1, 4, 7));
	EXPECT(stripe_log_co_cancel(rig.l, 9, 0, UINT64_MAX) == 0);
	EXPECT(co_recover() == 0 && rig.n_found == 0);
	for (unsigned i = 0; i < 6; i++)
		stripe_log_done(rig.l, &t[i]);
	log_down();
}

static void body_cancel_many(void)
{
	struct crowd c = { .n = 300, .len = 1024, .next_id = 1 };
	uint64_t batches;

	log_up();
	crowd_co_run(&c);
	batches = log_batches();
	EXPECT(stripe_log_co_cancel(rig.l, 9, 11, 280) == 0);
	EXPECT(log_batches() - batches == DIV_UP(280, STRIPE_LOG_ENTRIES_MAX));
	log_down();
	EXPECT(co_recover() == 0 && rig.n_found == 20 && rig.found[9].id == 10 && rig.found[10].id == 291);
}

static void what_is_cancelled_is_not_found_and_what_follows_is(void)
{
	rig_run(1, RING, body_cancel);
	rig_run(1, 1 * MIB, body_cancel_many);
}

/* ---- writes that fail ---- */

static void faults(uint32_t write_error)
{
	for (unsigned i = 0; i < COPIES; i++)
		sim_disk_faults(rig.ds, i)->write_error = rng_chance(&rig.rng, 1, 2) || i == 0 ? write_error : 0;
}

static void body_failed_write(void)
{
	struct stripe_log_ticket t[4];
	unsigned n_failed = 1 + (unsigned)rng_below(&rig.rng, 3);
	uint32_t len = 1024 * (1 + (uint32_t)rng_below(&rig.rng, 40));

	log_up();
	EXPECT(co_append_one(1, 1, 20 * KIB, &t[0]) == 0);
	EXPECT(co_append_one(2, 2, 20 * KIB, &t[1]) == 0);
	faults(65536);
	for (unsigned i = 0; i < n_failed; i++) {
		EXPECT(co_append_one(11 + i, 11 + i, len, &t[3]) == -EIO && t[3].batch == 0);
		EXPECT(stripe_log_is_live(rig.l, 9, 11 + i, 1)); /* it may be found */
	}
	faults(0);
	EXPECT(co_recover() == 0 && rig.n_found >= 2 && rig.n_found <= 3 && rig.found[1].id == 2);
	EXPECT(rig.n_found == 2 || rig.found[2].id > 10);
	EXPECT(co_append_one(3, 3, 1024 * (1 + (uint32_t)rng_below(&rig.rng, 20)), &t[2]) == 0);
	EXPECT(co_recover() == 0 && FOUND(1, 2, 3)); /* it may not any more */
	EXPECT(co_append_one(4, 4, 4096, &t[3]) == 0);
	stripe_log_done(rig.l, &t[0]);
	co_flush_all();
	EXPECT(co_append_one(6, 4, 4096, &t[0]) == 0);
	EXPECT(co_recover() == 0 && FOUND(2, 3, 4, 6));
	for (unsigned i = 0; i < 4; i++)
		stripe_log_done(rig.l, &t[i]);
	log_down();
}

static void a_failed_write_breaks_no_chain(void)
{
	for (uint64_t s = 1; s <= 50; s++)
		rig_run(s, RING, body_failed_write);
}

/* ---- damage ---- */

static uint64_t place[4]; /* where batches begin, on disk */

/* Batches 1, 2, 3 of 8 KiB; none is done. */
static void co_three(void)
{
	struct stripe_log_ticket t;

	log_up();
	for (unsigned i = 1; i <= 3; i++) {
		place[i] = RING_OFF + log_used();
		EXPECT(co_append_one(i, i, 2048, &t) == 0);
	}
}

static void rot(unsigned copy, uint64_t off)
{
	uint8_t b[512];

	sim_disk_peek(rig.ds, copy, off, b, sizeof(b));
	b[20] ^= 0x10;
	sim_disk_poke(rig.ds, copy, off, b, sizeof(b));
}

static void body_damage_head(void)
{
	co_three();
	rot(0, place[2]);
	EXPECT(co_recover() == 0 && FOUND(1, 2, 3));
	rot(1, place[2]);
	rot(0, place[2]);
	EXPECT(co_recover() == -ERR_CSUM && rig.n_found == 0 && strstr(rig.err.text, "batch 2 is damaged"));
}

static void body_damage_payload(void)
{
	co_three();
	rot(0, place[2] + BLOCK);
	rot(1, place[1] + BLOCK + 512);
	EXPECT(co_recover() == 0 && FOUND(1, 2, 3)); /* each is whole somewhere */
	rot(0, place[1] + BLOCK);
	rot(1, place[1] + BLOCK);
	EXPECT(co_recover() == -ERR_CSUM && rig.n_found == 0 && strstr(rig.err.text, "batch 1 is damaged"));
}

static void body_damage_newest(void)
{
	co_three();
	for (unsigned i = 0; i < COPIES; i++)
		rot(i, place[3] + BLOCK);
	EXPECT(co_recover() == 0 && FOUND(1, 2)); /* cannot be told from a torn one */
	for (unsigned i = 0; i < COPIES; i++)
		rot(i, place[2] + BLOCK);
	EXPECT(co_recover() == -ERR_CSUM); /* but the one before it had been acknowledged */
}

static void body_repair(void)
{
	co_three();
	rot(0, place[1]);
	rot(0, place[2] + BLOCK);
	sim_disk_bad_range(rig.ds, 0, place[3] + 512, 512);
	rig.conf.read_only = true;
	rig.n_writes = 0;
	EXPECT(co_recover() == 0 && FOUND(1, 2, 3) && rig.n_writes == 0);
	rig.conf.read_only = false;
	EXPECT(co_recover() == 0 && FOUND(1, 2, 3) && rig.n_writes == 3);
	rig.away[1] = true;
	EXPECT(co_recover() == 0 && FOUND(1, 2, 3) && rig.n_writes == 4); /* the newest, always */
	rig.away[1] = false;
}

static void body_silent(void)
{
	unsigned n_reads;

	co_three();
	rig.n_reads = 0;
	rig.conf.read_only = true;
	EXPECT(co_recover() == 0 && FOUND(1, 2, 3));
	n_reads = rig.n_reads;
	rig.conf.read_only = false;
	rig.silent[0] = true;
	rig.n_reads = rig.n_writes = 0;
	EXPECT(co_recover() == 0 && FOUND(1, 2, 3));
	EXPECT(rig.n_writes == 3 && rig.n_reads <= n_reads + 3); /* it may have none of them: each is read once more, and written */
	rig.silent[1] = true;
	EXPECT(co_recover() == -EIO);
}

static void body_unreadable(void)
{
	co_three();
	sim_disk_bad_range(rig.ds, 0, 0, DISK_BYTES);
	rig.conf.read_only = true;
	EXPECT(co_recover() == 0 && FOUND(1, 2, 3));
	sim_disk_bad_range(rig.ds, 1, place[2], BLOCK);
	EXPECT(co_recover() == -ERR_CSUM);
	sim_disk_bad_range(rig.ds, 1, 0, DISK_BYTES);
	EXPECT(co_recover() == -EIO);
	rig.away[0] = rig.away[1] = true;
	EXPECT(co_recover() == -EIO);
}

static void damage_on_all_copies_is_reported_and_on_one_repaired(void)
{
	for (uint64_t s = 1; s <= 3; s++) {
		rig_run(s, RING, body_damage_head);
		rig_run(s, RING, body_damage_payload);
		rig_run(s, RING, body_damage_newest);
		rig_run(s, RING, body_repair);
		rig_run(s, RING, body_silent);
		rig_run(s, RING, body_unreadable);
	}
}

/* One copy is away for so many appends, and then read as if it had never been. */
static void body_older_lap(void)
{
	struct stripe_log_ticket t, last = { 0 };
	uint64_t id;
	unsigned n[3] = { 30, (unsigned)rng_below(&rig.rng, 60), 1 };

	log_up();
	for (unsigned phase = 0; phase < 3; phase++) {
		rig.away[0] = phase == 1;
		for (unsigned i = 0; i < n[phase]; i++) {
			id = log_batches() + 1;
			EXPECT(co_append_one(id, id, 1024 * (1 + (uint32_t)rng_below(&rig.rng, 30)), &t) == 0);
			stripe_log_done(rig.l, &last);
			last = t;
		}
	}
	id = log_batches();
	rig.conf.read_only = true;
	EXPECT(co_recover() == 0 && rig.n_found > 0 && rig.found[rig.n_found - 1].id <= id);
	for (size_t i = 1; i < rig.n_found; i++)
		EXPECT(rig.found[i].id > rig.found[i - 1].id);
	stripe_log_done(rig.l, &last);
	log_down();
}

static void a_copy_that_missed_laps_misleads_nobody(void)
{
	for (uint64_t s = 1; s <= 40; s++)
		rig_run(s, RING, body_older_lap);
}

/* ---- what is not ours ---- */

static void body_epochs(void)
{
	struct stripe_log_conf own;
	struct stripe_log_ticket t[2];

	co_three();
	own = rig.conf;
	rig.conf.epoch++;
	EXPECT(co_recover() == 0 && rig.n_found == 0);
	rig.conf = own;
	rig.conf.slice++;
	EXPECT(co_recover() == 0 && rig.n_found == 0);
	rig.conf = own;
	rig.conf.pool.b[3]++;
	EXPECT(co_recover() == 0 && rig.n_found == 0);
	rig.conf = own;
	EXPECT(co_recover() == 0 && FOUND(1, 2, 3));
	rig.conf.epoch++;
	log_up();
	EXPECT(co_append_one(21, 1, 1024, &t[0]) == 0);
	EXPECT(co_recover() == 0 && FOUND(21));
	EXPECT(co_append_one(22, 1, 1024, &t[1]) == 0);
	EXPECT(co_recover() == 0 && FOUND(21, 22));
	rig.conf.epoch--;
	EXPECT(co_recover() < 0 || rig.n_found < 3); /* overwritten by now: whoever asks for it is wrong */
}

static void other_epochs_slices_and_pools_are_not_found(void)
{
	rig_run(1, RING, body_epochs);
}

static const uint8_t *expected;

static int each_forged(void *arg, const struct stripe_log_entry *e, const void *payload)
{
	if (e->stripe != 4)
		return each_found(arg, e, payload);
	EXPECT(!memcmp(payload, expected, entry_bytes(e)));
	return 0;
}

/* A client writes what a later batch would look like, and it goes through the log as payload. */
static void body_forged(void)
{
	struct stripe_log_entry e = { .group = 9, .stripe = 4, .row_len_bytes = 8 * KIB, .cols = 3 };
	uint64_t len = 16 * KIB, n;
	struct stripe_log_ticket t;
	uint8_t *forged = malloc(len), *block = malloc(BLOCK);
	struct stripe_log_head_disk *h = (struct stripe_log_head_disk *)forged;
	struct iovec iov = { forged, len };

	co_three();
	sim_disk_peek(rig.ds, 0, place[3], forged, 2 * BLOCK);
	h->batch = h->oldest = le64_make(1000);
	h->oldest_pos = le64_make(log_used() + BLOCK);
	h->crc = le32_make(stripe_log_head_crc(forged));
	memcpy(forged + 2 * BLOCK, forged, 2 * BLOCK);
	EXPECT(stripe_log_co_append(rig.l, &e, 1, &iov, 1, &t) == 0);
	for (uint64_t at = 0; at < rig.conf.len_bytes; at += BLOCK) {
		struct stripe_log_head out;

		sim_disk_peek(rig.ds, 0, RING_OFF + at, block, BLOCK);
		if (stripe_log_head_check(block, BLOCK, &rig.conf.pool, &out) == 0)
			EXPECT(out.batch <= 4);
	}
	sim_disk_peek(rig.ds, 0, place[3] + 2 * BLOCK, block, BLOCK); /* and comes back as it was */
	h = (struct stripe_log_head_disk *)block;
	EXPECT(h->escaped[0] == 0x0a && le64_get(h->batch) == 4);
	rig.n_found = 0;
	expected = forged;
	EXPECT(stripe_log_co_read(&rig.conf, each_forged, NULL, &n, &rig.err) == 0 && n == 4 && rig.found[2].id == 3);
	free(forged);
	free(block);
}

static void payload_that_looks_like_a_batch_is_payload(void)
{
	rig_run(1, RING, body_forged);
}

/* ---- the parser ---- */

static struct stripe_log_head_disk *whole; /* header and payload of a batch with two entries, one of them a cancel */

static int look(void)
{
	uint64_t payload = le32_get(whole->len_bytes) == BLOCK ? 0 : 2 * BLOCK;
	struct stripe_log_head out;
	int r;

	whole->payload_crc = le32_make(crc32c(0, (uint8_t *)whole + BLOCK, payload));
	whole->crc = le32_make(stripe_log_head_crc(whole));
	r = stripe_log_head_check(whole, BLOCK, &rig.conf.pool, &out);
	return r == 0 ? stripe_log_batch_check(whole, &out) : r;
}

#define BAD(change)                              \
	do {                                     \
		*whole = good;                   \
		memcpy(e, good_e, sizeof(good_e)); \
		EXPECT(look() == 0);             \
		change;                          \
		EXPECT(look() == -ERR_FORMAT);   \
	} while (0)

static void body_fields(void)
{
	struct stripe_log_head_disk good;
	struct stripe_log_entry_disk *e, good_e[2];
	struct stripe_log_ticket t;
	struct stripe_log_head out;

	whole = calloc(1, 3 * BLOCK);
	e = (struct stripe_log_entry_disk *)(whole + 1);
	log_up();
	EXPECT(co_append_one(1, 1, 1024, &t) == 0 && co_append_one(2, 1, 8192, &t) == 0);
	sim_disk_peek(rig.ds, 0, RING_OFF + 2 * BLOCK, whole, 3 * BLOCK);
	EXPECT(le64_get(whole->batch) == 2 && le64_get(whole->prev) == 1 && le64_get(whole->oldest) == 1);
	e[1] = (struct stripe_log_entry_disk){ .group = le64_make(3), .stripe = le64_make(UINT64_MAX) };
	whole->n_entries = le32_make(2);
	whole->n_cancels = le32_make(1);
	good = *whole;
	memcpy(good_e, e, sizeof(good_e));
	EXPECT(look() == 0);
	EXPECT(stripe_log_head_check(whole, BLOCK - 1, &rig.conf.pool, &out) == -ERR_FORMAT);
	BAD(whole->magic[7]++);
	BAD(whole->version = le32_make(2));
	BAD(whole->pool.b[0]++);
	BAD(whole->batch = le64_make(0));
	BAD(whole->oldest = le64_make(0));
	BAD(whole->oldest = le64_make(3));
	BAD(whole->oldest_pos = le64_make(512));
	BAD(whole->prev = le64_make(2));
	BAD(whole->prev = le64_make(0)); /* the oldest is batch 1 */
	BAD(whole->batch = le64_make(9); whole->oldest = le64_make(3));
	BAD(whole->n_entries = le32_make(1017));
	BAD(whole->n_entries = le32_make(1));
	BAD(whole->n_entries = le32_make(3));
	BAD(whole->n_cancels = le32_make(0));
	BAD(whole->n_cancels = le32_make(3));
	BAD(whole->head_bytes = le32_make(8192));
	BAD(whole->len_bytes = le32_make(4096));
	BAD(whole->len_bytes = le32_make(2 << 20));
	BAD(whole->len_bytes = le32_make(3 * 4096 - 512));
	BAD(whole->escaped[0] = 1);
	BAD(whole->escaped[0] = 8);
	BAD(whole->escaped[31] = 0x80);
	BAD(e[0].group = le64_make(1ULL << 60));
	BAD(e[0].row_off_bytes = le32_make(100));
	BAD(e[0].row_off_bytes = le32_make(1 << 30));
	BAD(e[0].row_len_bytes = le32_make(0));
	BAD(e[0].row_len_bytes = le32_make(4096 + 512));
	BAD(e[0].row_len_bytes = le32_make(UINT32_MAX - 511));
	BAD(e[0].cols = le32_make(UINT32_MAX));
	BAD(e[1].group = le64_make(UINT64_MAX));
	BAD(e[1].row_len_bytes = le32_make(512));
	BAD(e[1].row_off_bytes = le32_make(512));
	BAD(e[0].cols = le32_make(0));
	*whole = good;
	EXPECT(look() == -ERR_FORMAT); /* entries are still those of the last change */
	memcpy(e, good_e, sizeof(good_e));
	EXPECT(look() == 0);
	whole->slice = le32_make(9);
	EXPECT(stripe_log_head_check(whole, BLOCK, &rig.conf.pool, &out) == -ERR_CSUM);
	free(whole);
}

static void every_field_from_disk_is_checked(void)
{
	rig_run(1, RING, body_fields);
}

/* Batches whose checksums are right and that do not fit together. */
static void body_impossible(void)
{
	struct stripe_log_head_disk *h = malloc(BLOCK);

	co_three();
	rig.conf.read_only = true;
	for (unsigned what = 0; what < 3; what++) {
		sim_disk_peek(rig.ds, 0, place[3], h, BLOCK);
		rig.away[1] = true;
		if (what == 0)
			h->oldest_pos = le64_make(8 * BLOCK);
		else if (what == 1)
			h->prev = le64_make(1); /* ends where 2 begins */
		else
			h->oldest = le64_make(2); /* which does not lie there */
		if (what == 1) {
			struct stripe_log_head_disk *first = malloc(BLOCK);

			sim_disk_peek(rig.ds, 0, place[1], first, BLOCK);
			h->prev_crc = first->crc;
			free(first);
		}
		h->crc = le32_make(stripe_log_head_crc(h));
		sim_disk_poke(rig.ds, 0, place[3], h, BLOCK);
		EXPECT(co_recover() == -ERR_FORMAT && rig.n_found == 0);
		sim_disk_peek(rig.ds, 1, place[3], h, BLOCK);
		sim_disk_poke(rig.ds, 0, place[3], h, BLOCK);
		EXPECT(co_recover() == 0 && FOUND(1, 2, 3));
	}
	free(h);
}

static void batches_that_do_not_fit_together_are_refused(void)
{
	rig_run(1, RING, body_impossible);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(what_is_appended_is_found),
		TEST(a_batch_may_be_longer_than_the_longest_request),
		TEST(appends_that_come_meanwhile_share_a_batch),
		TEST(the_ring_goes_round_and_flushes_by_itself),
		TEST(an_append_waits_until_the_oldest_is_done_and_flushed),
		TEST(a_failed_flush_fails_who_waits_for_room_and_frees_nothing),
		TEST(closing_does_not_wait_for_the_flush),
		TEST(only_a_good_flush_that_began_after_done_frees),
		TEST(a_stripe_is_live_as_long_as_recovery_would_find_it),
		TEST(what_is_cancelled_is_not_found_and_what_follows_is),
		TEST(a_failed_write_breaks_no_chain),
		TEST(damage_on_all_copies_is_reported_and_on_one_repaired),
		TEST(a_copy_that_missed_laps_misleads_nobody),
		TEST(other_epochs_slices_and_pools_are_not_found),
		TEST(payload_that_looks_like_a_batch_is_payload),
		TEST(every_field_from_disk_is_checked),
		TEST(batches_that_do_not_fit_together_are_refused),
		CU_TEST_INFO_NULL,
	};

	return tests_run("stripe log", tests);
}
