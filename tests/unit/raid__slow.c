/*
 * Disks that are slow or hang: what is answered from elsewhere, when they are put out, and whose memory the kernel may still
 * touch.
 */
#include "tests/unit/raid_rig.h"
#include "tests/unit/unit.h"

#define HEDGE_NS (100 * NS_PER_MS)
#define TIMEOUT_NS (30 * NS_PER_SEC)

static unsigned n_slow[DISKS], n_quick[DISKS];
static int told_error;

static void hook_slow(void *ctx, unsigned disk, bool slow, uint64_t latency_ns)
{
	EXPECT(slow ? latency_ns >= HEDGE_NS : latency_ns < HEDGE_NS);
	if (slow)
		n_slow[disk]++;
	else
		n_quick[disk]++;
}

static int hook_error(void *ctx, unsigned disk, enum io_op op, int error)
{
	told_error = error;
	return hook_disk_error(ctx, disk, op, error);
}

static void run(uint64_t s, const struct shape *shape, void (*co_body)(void))
{
	memset(n_slow, 0, sizeof(n_slow));
	memset(n_quick, 0, sizeof(n_quick));
	told_error = 0;
	rig_run(s, shape, co_body);
}

static void run_redundant(unsigned seeds, void (*co_body)(void))
{
	for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
		for (uint64_t s = 1; s <= seeds; s++)
			if (shapes[i].copies > 1)
				run(s, &shapes[i], co_body);
}

static uint64_t now(void)
{
	return world_now_ns(rig.w);
}

static struct sim_faults *faults(unsigned disk)
{
	return sim_disk_faults(rig.ds, disk);
}

static void stall(unsigned disk, uint64_t ns)
{
	faults(disk)->stall = ns ? 65536 : 0;
	faults(disk)->stall_ns = ns;
}

static struct raid_stats stats(void)
{
	struct raid_stats st;

	raid_stats_get(rig.raid, &st);
	return st;
}

/* An offset in group 0, from `off` on, whose default copy lies on the disk. */
static uint64_t off_on(unsigned disk, uint64_t off)
{
	uint64_t before;

	for (;; off += STRIP_BYTES) {
		before = sim_disk_n_ops(rig.ds, disk, IO_READ);
		EXPECT(verify(off, BLOCK, 0) == 0);
		if (sim_disk_n_ops(rig.ds, disk, IO_READ) != before)
			return off;
	}
}

static void co_wait_idle(unsigned disk)
{
	while (!raid_disk_is_idle(rig.raid, disk))
		co_sleep_ns(10 * NS_PER_MS);
}

static void expect_no_harm(void)
{
	EXPECT(rig.n_repaired == 0 && rig.n_unrepaired == 0 && rig.n_disk_errors == 0);
}

/* ---- hedging ---- */

static void co_stalled(void)
{
	unsigned copies = rig.shape->copies, sets = rig.shape->n_cols / copies;
	uint64_t len[] = { BLOCK, 48 * KIB, 300 * KIB }, t, at;

	EXPECT(fill(0, GROUP_BYTES, 7, 0) == 0);
	for (unsigned i = 0; i < 3 * ARRAY_LEN(len); i++) {
		uint64_t off = i / ARRAY_LEN(len) * STRIP_BYTES;

		for (unsigned d = 0; d < rig.shape->n_cols; d++) /* one good copy of every place */
			if (d % copies != i % copies)
				stall(d, 3 * NS_PER_SEC);
		t = now();
		EXPECT(verify(off, len[i % ARRAY_LEN(len)], 0) == 0);
		/* one copy after the other, and each at most a tick too late; sets of a large read too */
		EXPECT(now() - t <= (copies - 1) * (i % ARRAY_LEN(len) ? sets : 1) * (HEDGE_NS + 15 * NS_PER_MS) + 20 * NS_PER_MS);
		for (unsigned d = 0; d < rig.shape->n_cols; d++)
			stall(d, 0);
		co_sleep_ns(4 * NS_PER_SEC);
		for (unsigned d = 0; d < rig.shape->n_cols; d++)
			EXPECT(raid_disk_is_idle(rig.raid, d));
	}
	EXPECT(stats().hedged >= 3 && stats().timed_out == 0);
	EXPECT(raid_co_compare_range(rig.raid, 0, 0, GROUP_BYTES, &at) == 0);
	expect_no_harm();
}

static void stalled_read_is_answered_from_another_copy(void)
{
	run_redundant(3, co_stalled);
}

/* One copy cannot be read, the other not in time. */
static void co_patience(void)
{
	unsigned bad, late, way;
	uint64_t at, t, off;

	EXPECT(fill(0, GROUP_BYTES, 7, 0) == 0);
	for (way = 0; way < 8; way++) { /* whichever is asked first */
		off = way / 2 * STRIP_BYTES;
		late = locate(off, !(way & 1), &at);
		stall(late, NS_PER_SEC);
		if (rig.shape->copies > 2)
			set_state(locate(off, 2, &at), RAID_DISK_ABSENT);
		bad = locate(off, way & 1, &at);
		sim_disk_bad_range(rig.ds, bad, at, BLOCK);
		t = now();
		EXPECT(verify(off, BLOCK, 0) == 0);
		EXPECT(now() - t >= 800 * NS_PER_MS && now() - t < 3 * NS_PER_SEC);
		stall(late, 0);
		if (rig.shape->copies > 2)
			set_state(locate(off, 2, &at), RAID_DISK_ONLINE);
		co_wait_idle(late);
		EXPECT(verify(off, BLOCK, 1 + (way & 1)) == 0);
		EXPECT(rig.n_repaired == way + 1);
	}
}

static void slow_disk_is_waited_for_when_nobody_else_has_it(void)
{
	run_redundant(3, co_patience);
}

static void co_both_slow(void)
{
	uint64_t copied, t;

	EXPECT(fill(0, GROUP_BYTES, 7, 0) == 0);
	for (unsigned d = 0; d < rig.shape->n_cols; d++)
		stall(d, 400 * NS_PER_MS);
	t = now();
	EXPECT(verify(0, BLOCK, 0) == 0 && verify(0, 300 * KIB, 0) == 0);
	EXPECT(now() - t < 2 * NS_PER_SEC);
	EXPECT(raid_co_resync_range(rig.raid, 0, 0, 64 * KIB, &copied) == 0);
	EXPECT(verify(0, 64 * KIB, 0) == 0);
	expect_no_harm();
}

static void all_copies_slow_is_slow_but_no_error(void)
{
	run_redundant(3, co_both_slow);
}

static void co_paused(void)
{
	struct asked a[16];
	uint64_t pause = rng_chance(&rig.rng, 1, 2) ? 300 * NS_PER_MS : 100 * NS_PER_SEC;

	EXPECT(fill(0, GROUP_BYTES, 7, 0) == 0);
	for (unsigned d = 0; d < rig.shape->n_cols; d++)
		stall(d, 20 * NS_PER_MS);
	for (unsigned i = 0; i < 16; i++)
		ask(&a[i], i % 4 == 3 ? IO_WRITE : IO_READ, i * STRIP_BYTES, BLOCK, 7);
	co_sleep_ns(rng_below(&rig.rng, 30 * NS_PER_MS));
	sim_pause(rig.w, pause);
	for (unsigned i = 0; i < 16; i++)
		EXPECT(asked_wait(&a[i]) == 0);
	EXPECT(stats().hedged == 0 && stats().timed_out == 0);
	expect_no_harm();
}

static void pause_of_the_process_is_no_disks_fault(void)
{
	for (uint64_t s = 1; s <= 40; s++)
		run(s, RAID1, co_paused);
}

/* ---- slow and quick again ---- */

static void co_slow(void)
{
	struct asked a[8];
	uint64_t off[8], before, t, longest = 0;

	EXPECT(fill(0, GROUP_BYTES, 7, 0) == 0);
	for (unsigned i = 0; i < 8; i++)
		off[i] = off_on(0, i ? off[i - 1] + STRIP_BYTES : 0);
	stall(0, 300 * NS_PER_MS);
	for (unsigned i = 0; i < 8; i++)
		ask(&a[i], IO_READ, off[i], BLOCK, 0);
	for (unsigned i = 0; i < 8; i++)
		EXPECT(asked_wait(&a[i]) == 0);
	EXPECT(n_slow[0] == 1 && n_slow[1] == 0);
	before = sim_disk_n_ops(rig.ds, 0, IO_READ);
	for (unsigned i = 0; i < 400; i++) { /* 8 s */
		t = now();
		for (unsigned k = 0; k < 8; k++)
			ask(&a[k], IO_READ, off[k], BLOCK, 0);
		for (unsigned k = 0; k < 8; k++)
			EXPECT(asked_wait(&a[k]) == 0);
		longest = MAX(longest, now() - t);
		co_sleep_ns(20 * NS_PER_MS);
	}
	EXPECT(longest < 2 * HEDGE_NS);
	before = sim_disk_n_ops(rig.ds, 0, IO_READ) - before; /* it is tried now and then, ever less often */
	EXPECT(before >= 2 && before <= 8);
	EXPECT(n_quick[0] == 0);
	stall(0, 0);
	for (unsigned i = 0; i < 600 && !n_quick[0]; i++) {
		EXPECT(verify(off[i % 8], BLOCK, 0) == 0);
		co_sleep_ns(20 * NS_PER_MS);
	}
	EXPECT(n_slow[0] == 1 && n_quick[0] == 1);
	before = sim_disk_n_ops(rig.ds, 0, IO_READ);
	for (unsigned i = 0; i < 40; i++)
		EXPECT(verify(off[i % 8], BLOCK, 0) == 0);
	EXPECT(sim_disk_n_ops(rig.ds, 0, IO_READ) == before + 40);
	expect_no_harm();
}

static void slow_disk_is_avoided_until_it_is_quick_again(void)
{
	for (uint64_t s = 1; s <= 5; s++)
		run(s, RAID1, co_slow);
}

static void co_stuck(void)
{
	uint64_t off, before, t;

	EXPECT(fill(0, GROUP_BYTES, 7, 0) == 0);
	off = off_on(0, 0);
	stall(0, 5 * NS_PER_SEC);
	rig.hung = true; /* for longer than we look */
	EXPECT(verify(off, BLOCK, 0) == 0);
	before = sim_disk_n_ops(rig.ds, 0, IO_READ);
	for (unsigned i = 0; i < 50; i++) { /* one read is enough to know, for now */
		t = now();
		EXPECT(verify(off, BLOCK, 0) == 0);
		EXPECT(now() - t < 5 * NS_PER_MS);
	}
	EXPECT(sim_disk_n_ops(rig.ds, 0, IO_READ) == before);
	EXPECT(n_slow[0] == 0);
	co_sleep_ns(2 * NS_PER_SEC);
	EXPECT(n_slow[0] == 1); /* one that takes so long is */
}

static void disk_with_an_unanswered_read_is_avoided_at_once(void)
{
	for (uint64_t s = 1; s <= 5; s++)
		run(s, RAID1, co_stuck);
}

/* ---- hanging ---- */

static void hang(unsigned disk)
{
	rig.hung = true;
	faults(disk)->hang = true;
}

/* The disk answers all it has, returns, and is brought up to date. */
static void co_return(unsigned disk)
{
	EXPECT(rig.out[disk] && told_error == -ETIMEDOUT);
	EXPECT(!raid_disk_is_idle(rig.raid, disk));
	faults(disk)->hang = false;
	co_wait_idle(disk);
	set_state(disk, RAID_DISK_STALE);
	bring_back(disk);
	expect_equal_columns();
	for (unsigned c = 1; c <= rig.shape->copies; c++)
		EXPECT(verify(0, 64 * KIB, c) == 0);
}

static void co_hung_read(void)
{
	uint64_t t, off;

	EXPECT(fill(0, GROUP_BYTES, 7, 0) == 0);
	off = off_on(0, 0);
	hang(0);
	t = now();
	EXPECT(verify(off, BLOCK, 0) == 0);
	EXPECT(now() - t < 2 * HEDGE_NS && !rig.out[0]);
	co_sleep_ns(t + TIMEOUT_NS - NS_PER_SEC - now());
	EXPECT(!rig.out[0]);
	co_sleep_ns(2 * NS_PER_SEC);
	EXPECT(rig.n_disk_errors == 1);
	co_return(0);
}

static void disk_that_hangs_is_put_out_by_one_read(void)
{
	run_redundant(3, co_hung_read);
}

static void co_hung_write(void)
{
	struct asked a[4];
	uint64_t t;

	EXPECT(fill(0, GROUP_BYTES, 7, 0) == 0);
	hang(0);
	t = now();
	for (unsigned i = 0; i < 4; i++) {
		ask(&a[i], IO_WRITE, i * 3 * STRIP_BYTES, BLOCK, 9);
		memset(rig.model + i * 3 * STRIP_BYTES, 9, BLOCK);
		co_sleep_ns(3 * NS_PER_SEC);
	}
	for (unsigned i = 0; i < 4; i++) {
		EXPECT(asked_wait(&a[i]) == 0);
		EXPECT(a[i].end_ns < t + TIMEOUT_NS + NS_PER_SEC); /* all with the oldest */
		EXPECT(a[i].end_ns >= rig.out_ns || a[i].end_ns < t + 10 * NS_PER_SEC); /* (not on that disk) */
	}
	co_return(0);
}

static void disk_that_hangs_is_put_out_by_writes(void)
{
	run_redundant(3, co_hung_write);
}

static void co_hung_flush(void)
{
	uint64_t t;

	EXPECT(fill(0, GROUP_BYTES, 7, 0) == 0);
	hang(0);
	t = now();
	EXPECT(bdev_co_flush(rig.b) == 0);
	EXPECT(now() - t >= TIMEOUT_NS && now() - t < TIMEOUT_NS + NS_PER_SEC);
	co_return(0);
}

static void disk_that_hangs_is_put_out_by_a_flush(void)
{
	run_redundant(3, co_hung_flush);
}

static void co_needed(void)
{
	uint64_t t = now();

	EXPECT(fill(0, 64 * KIB, 7, 0) == 0);
	rig.disk_error_result = -EIO;
	hang(0);
	EXPECT(verify(0, BLOCK, 0) == -ETIMEDOUT);
	EXPECT(now() - t >= TIMEOUT_NS && now() - t < TIMEOUT_NS + NS_PER_SEC);
	EXPECT(rig.n_disk_errors == 1);
	t = now();
	EXPECT(verify(0, BLOCK, 0) == -ETIMEDOUT && fill(0, BLOCK, 8, 0) == -ETIMEDOUT && verify(0, 64 * KIB, 0) == -ETIMEDOUT);
	EXPECT(now() - t < NS_PER_MS); /* at once */
	faults(0)->hang = false;
	co_wait_idle(0);
	EXPECT(verify(0, 64 * KIB, 0) == 0 && fill(0, BLOCK, 8, 0) == 0 && verify(0, 64 * KIB, 0) == 0);
	EXPECT(rig.n_disk_errors == 1);
	hang(0); /* and again */
	EXPECT(fill(0, BLOCK, 9, 0) == -ETIMEDOUT);
	raid_co_drain(rig.raid);
	EXPECT(rig.n_disk_errors == 2);
	faults(0)->hang = false;
	co_wait_idle(0);
	EXPECT(fill(0, BLOCK, 8, 0) == 0 && verify(0, 64 * KIB, 0) == 0);
}

static void disk_that_cannot_be_put_out_works_again_when_it_has_answered(void)
{
	run(1, &shapes[0], co_needed);
	run(1, &shapes[1], co_needed);
}

static void come_back_stale(unsigned disk)
{
	rig.out[disk] = false;
	set_state(disk, RAID_DISK_STALE);
}

static void co_too_early(void)
{
	uint64_t at;

	EXPECT(fill(0, GROUP_BYTES, 7, 0) == 0);
	hang(0);
	EXPECT(fill(0, BLOCK, 8, 0) == 0 && rig.out[0]);
	come_back_stale(0);
	EXPECT(fill(0, BLOCK, 9, 0) == 0 && rig.out[0]); /* out again, at once */
	EXPECT(now() - rig.out_ns < NS_PER_SEC);
	faults(0)->hang = false;
	co_wait_idle(0);
	come_back_stale(0);
	EXPECT(fill(0, BLOCK, 10, 0) == 0 && !rig.out[0]);
	bring_back(0);
	EXPECT(verify(0, GROUP_BYTES, 1) == 0 && verify(0, GROUP_BYTES, 2) == 0);
	EXPECT(raid_co_compare_range(rig.raid, 0, 0, GROUP_BYTES, &at) == 0);
}

static void disk_gets_no_write_while_an_older_one_may_still_come(void)
{
	for (uint64_t s = 1; s <= 5; s++)
		run(s, RAID1, co_too_early);
}

static void co_gone(void)
{
	EXPECT(fill(0, GROUP_BYTES, 7, 0) == 0);
	faults(0)->gone = true;
	EXPECT(verify(off_on(0, 0), BLOCK, 0) == 0);
	raid_co_drain(rig.raid);
	EXPECT(rig.out[0] && told_error == -ENODEV && rig.n_disk_errors == 1);
	EXPECT(rig.n_repaired == 0 && rig.n_unrepaired == 0);
}

static void disk_that_is_gone_is_put_out_by_one_read(void)
{
	run_redundant(2, co_gone);
}

/* ---- memory ---- */

#define N_OTHERS 200

static uint8_t *others[N_OTHERS];

/* Memory of others, as soon as there is any to be had. */
static void others_take(uint64_t len)
{
	for (unsigned i = 0; i < N_OTHERS; i++) {
		others[i] = buf_alloc(len);
		memset(others[i], 0x77, len);
	}
}

static bool is_all(const uint8_t *p, uint64_t len, uint8_t byte)
{
	return p[0] == byte && !memcmp(p, p + 1, len - 1);
}

static void others_check(uint64_t len)
{
	for (unsigned i = 0; i < N_OTHERS; i++) {
		EXPECT(is_all(others[i], len, 0x77));
		buf_free(others[i], len);
	}
}

static int read_flagged(uint64_t off, void *buf, uint64_t len, unsigned flags)
{
	struct io io;

	io_prep(&io, IO_READ, off, len, buf, flags);
	return bdev_co_submit(rig.b, &io);
}

static void co_own_memory(void)
{
	static const uint64_t lens[] = { BLOCK, 64 * KIB, 256 * KIB };
	uint64_t off;

	EXPECT(fill(0, GROUP_BYTES, 7, 0) == 0);
	off = off_on(0, 0);
	for (unsigned i = 0; i < ARRAY_LEN(lens); i++) {
		uint8_t *buf = buf_alloc(lens[i]);

		faults(0)->hang = true;
		EXPECT(read_flagged(off, buf, lens[i], 0) == 0 && is_all(buf, lens[i], 7));
		EXPECT(!raid_disk_is_idle(rig.raid, 0));
		memset(buf, 0x55, lens[i]); /* it is the client's */
		faults(0)->hang = false;
		co_wait_idle(0);
		EXPECT(is_all(buf, lens[i], 0x55));
		buf_free(buf, lens[i]);
	}
}

static void late_read_does_not_touch_the_clients_memory(void)
{
	run(1, RAID1, co_own_memory);
	run(2, &shapes[4], co_own_memory);
}

static void co_given_up(void)
{
	static const uint64_t lens[] = { BLOCK, 64 * KIB, 256 * KIB };
	uint64_t off, t;

	EXPECT(fill(0, GROUP_BYTES, 7, 0) == 0);
	off = off_on(0, 0);
	for (unsigned i = 0; i < ARRAY_LEN(lens); i++) {
		uint8_t *buf = buf_alloc(lens[i]);

		EXPECT(read_flagged(off, buf, lens[i], IO_MAY_GIVE_UP) == 0 && is_all(buf, lens[i], 7));
		faults(0)->hang = true;
		t = now();
		EXPECT(read_flagged(off, buf, lens[i], IO_MAY_GIVE_UP) == -ETIMEDOUT);
		EXPECT(now() - t < 2 * HEDGE_NS);
		buf_free(buf, lens[i]);
		others_take(lens[i]);
		t = now();
		buf = buf_alloc(lens[i]);
		EXPECT(read_flagged(off, buf, lens[i], 0) == 0 && is_all(buf, lens[i], 7));
		EXPECT(now() - t < 5 * NS_PER_MS); /* it knows where not to go */
		buf_free(buf, lens[i]);
		faults(0)->hang = false;
		co_wait_idle(0);
		others_check(lens[i]);
	}
	expect_no_harm();
}

static void freed_memory_of_a_read_that_was_given_up_is_nobody_elses(void)
{
	run(1, RAID1, co_given_up);
	run(2, &shapes[4], co_given_up);
}

static void co_write_memory(void)
{
	uint64_t at, len = 64 * KIB;
	struct iovec iov[4];
	struct io io;
	uint8_t *buf[4], *got = buf_alloc(len);

	EXPECT(fill(0, GROUP_BYTES, 7, 0) == 0);
	EXPECT(locate(0, 0, &at) == 0);
	hang(0);
	for (unsigned i = 0; i < 4; i++) {
		buf[i] = buf_alloc(len / 4);
		memset(buf[i], 0x11 * ((int)i + 1), len / 4);
		iov[i] = (struct iovec){ buf[i], len / 4 };
	}
	io_prep(&io, IO_WRITE, 0, len, buf[0], 0);
	io.iov = iov;
	io.iov_n = 4;
	EXPECT(bdev_co_submit(rig.b, &io) == 0 && rig.out[0]);
	for (unsigned i = 0; i < 4; i++)
		buf_free(buf[i], len / 4);
	memset(iov, 0, sizeof(iov));
	others_take(len / 4);
	faults(0)->hang = false;
	co_wait_idle(0);
	others_check(len / 4);
	EXPECT(bdev_co_read(&rig.disk[0]->bdev, at, got, len) == 0); /* it has written what it was given, not what came after */
	for (unsigned i = 0; i < 4; i++)
		EXPECT(is_all(got + i * STRIP_BYTES, STRIP_BYTES, (uint8_t)(0x11 * (i + 1))));
	buf_free(got, len);
}

static void late_write_writes_what_it_was_given(void)
{
	run(1, RAID1, co_write_memory);
	run(2, RAID1, co_write_memory);
}

static void co_closed(void)
{
	uint8_t *buf = buf_alloc(BLOCK);
	uint64_t off;

	EXPECT(fill(0, GROUP_BYTES, 7, 0) == 0);
	off = off_on(0, 0);
	hang(0);
	EXPECT(read_flagged(off, buf, BLOCK, IO_MAY_GIVE_UP) == -ETIMEDOUT);
	buf_free(buf, BLOCK);
	EXPECT(verify(off, BLOCK, 0) == 0);
	raid_co_drain(rig.raid);
	raid_close(rig.raid);
	faults(0)->hang = false;
	co_sleep_ns(NS_PER_SEC);
	raid_up();
	for (unsigned i = 0; i < rig.shape->n_cols; i++)
		set_state(i, RAID_DISK_ONLINE);
	EXPECT(verify(off, BLOCK, 0) == 0);
	hang(0);
	EXPECT(verify(off, BLOCK, 0) == 0); /* and the world ends with it */
}

static void instance_is_closed_while_a_disk_hangs(void)
{
	run(1, RAID1, co_closed);
}

/* ---- under load ---- */

static void co_chaos(void)
{
	struct workers ws;

	for (unsigned round = 0; round < 4; round++) {
		unsigned victim = (unsigned)rng_below(&rig.rng, rig.shape->n_cols);
		struct sim_faults *f = faults(victim);

		told_error = 0;
		workers_start(&ws, 600);
		co_sleep_ns(rng_below(&rig.rng, 3 * NS_PER_MS));
		if (rng_chance(&rig.rng, 1, 2)) {
			f->hang = true;
		} else {
			f->stall = (uint32_t)rng_below(&rig.rng, 3000);
			f->stall_ns = rng_below(&rig.rng, 2 * NS_PER_SEC);
			f->read_error = (uint32_t)rng_below(&rig.rng, 500);
		}
		co_sleep_ns(rng_below(&rig.rng, 40 * NS_PER_SEC));
		*f = (struct sim_faults){ 0 };
		workers_wait(&ws);
		co_wait_idle(victim);
		if (rig.out[victim]) {
			set_state(victim, RAID_DISK_STALE);
			workers_start(&ws, 200);
			co_sleep_ns(rng_below(&rig.rng, 3 * NS_PER_MS));
			bring_back(victim);
			workers_wait(&ws);
		}
		verify_all();
		expect_equal_columns();
	}
}

static void slow_and_hanging_disks_cost_no_data(void)
{
	run_redundant(6, co_chaos);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(stalled_read_is_answered_from_another_copy),
		TEST(slow_disk_is_waited_for_when_nobody_else_has_it),
		TEST(all_copies_slow_is_slow_but_no_error),
		TEST(pause_of_the_process_is_no_disks_fault),
		TEST(slow_disk_is_avoided_until_it_is_quick_again),
		TEST(disk_with_an_unanswered_read_is_avoided_at_once),
		TEST(disk_that_hangs_is_put_out_by_one_read),
		TEST(disk_that_hangs_is_put_out_by_writes),
		TEST(disk_that_hangs_is_put_out_by_a_flush),
		TEST(disk_that_cannot_be_put_out_works_again_when_it_has_answered),
		TEST(disk_gets_no_write_while_an_older_one_may_still_come),
		TEST(disk_that_is_gone_is_put_out_by_one_read),
		TEST(late_read_does_not_touch_the_clients_memory),
		TEST(freed_memory_of_a_read_that_was_given_up_is_nobody_elses),
		TEST(late_write_writes_what_it_was_given),
		TEST(instance_is_closed_while_a_disk_hangs),
		TEST(slow_and_hanging_disks_cost_no_data),
		CU_TEST_INFO_NULL,
	};

	rig_hooks.disk_slow = hook_slow;
	rig_hooks.co_disk_error = hook_error;
	return tests_run("raid slow", tests);
}
