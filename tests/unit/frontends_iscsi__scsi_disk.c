/*
 * The medium: reads, writes, verifies, compares, unmaps, copies, on real volumes.
 */
#include "tests/unit/frontends_iscsi__rig.h"
#include "tests/unit/unit.h"

static struct initiator a, b;

/* ---- reads and writes ---- */

static int all_sizes(void)
{
	co_login(&a, 1, "a");
	memset(rig.out, 0x11, 512);
	GOOD(CMD_OUT(&a, rig.out, 512, OP_WRITE_6, 0, 0, 5, 1, 0));
	memset(rig.out, 0x22, 1024);
	GOOD(CMD_OUT(&a, rig.out, 1024, OP_WRITE_10, 0, B4(6), 0, B2(2), 0));
	memset(rig.out, 0x33, 512);
	GOOD(CMD_OUT(&a, rig.out, 512, OP_WRITE_12, 8, B4(8), B4(1), 0, 0));
	memset(rig.out, 0x44, 512);
	GOOD(CMD_OUT(&a, rig.out, 512, OP_WRITE_16, 0x18, B8(9), B4(1), 0, 0));
	EXPECT(co_is(&a, 4, 1, 0) && co_is(&a, 5, 1, 0x11) && co_is(&a, 6, 2, 0x22) && co_is(&a, 8, 1, 0x33) && co_is(&a, 9, 1, 0x44));
	EXPECT(co_is(&a, 10, 100, 0));
	GOOD(CMD(&a, OP_READ_6, 0, 0, 5, 1, 0));
	EXPECT(rig.in[0] == 0x11 && rig.in[511] == 0x11);
	GOOD(CMD(&a, OP_READ_6, 0, 0, 5, 0, 0)); /* 0: 256 blocks */
	EXPECT(rig.in[512] == 0x22 && rig.in[4 * 512] == 0x44 && rig.in[5 * 512] == 0);
	GOOD(CMD(&a, OP_READ_10, 0x10, B4(6), 0, B2(2), 0));
	GOOD(CMD(&a, OP_READ_12, 8, B4(8), B4(1), 0, 0));
	EXPECT(rig.in[0] == 0x33);
	co_logout(&a);
	return 0;
}

static int long_ones(void)
{
	size_t i;

	co_login(&a, 1, "a");
	for (i = 0; i < SCSI_TRANSFER_MAX; i++)
		rig.out[i] = (uint8_t)(i * 7 + i / 512);
	GOOD(CMD_OUT(&a, rig.out, SCSI_TRANSFER_MAX, OP_WRITE_16, 0, B8(3), B4(SCSI_TRANSFER_MAX / 512), 0, 0));
	GOOD(co_read(&a, 3, SCSI_TRANSFER_MAX / 512));
	EXPECT(!memcmp(rig.in, rig.out, SCSI_TRANSFER_MAX));
	BAD_CDB(co_read(&a, 3, SCSI_TRANSFER_MAX / 512 + 1));
	/* from memory that no disk could take it from */
	memmove(rig.out + 3, rig.out, 8 * KIB);
	{
		struct send s = { .n = a.n, .c = { .cdb = { OP_WRITE_10, 0, B4(100), 0, B2(16), 0 }, .cdb_len = 10, .out_bytes = 8192 } };

		s.iov.iov_base = rig.out + 3;
		(void)reactor_co_call(scsi_nexus_home(a.n), send_there, &s);
		EXPECT(s.r.status == SCSI_GOOD);
	}
	GOOD(co_read(&a, 100, 16));
	EXPECT(!memcmp(rig.in, rig.out + 3, 8192));
	co_logout(&a);
	return 0;
}

static int ends(void)
{
	struct result r;

	co_login(&a, 1, "a");
	GOOD(co_write(&a, RIG_BLOCKS - 1, 1, 1));
	GOOD(co_read(&a, RIG_BLOCKS, 0));
	BEYOND(co_read(&a, RIG_BLOCKS + 1, 0));
	BEYOND(co_read(&a, RIG_BLOCKS, 1));
	BEYOND(co_read(&a, RIG_BLOCKS - 1, 2));
	BEYOND(co_read(&a, UINT64_MAX, 1));
	BEYOND(co_read(&a, 0x8000000000000000, 0));
	BEYOND(co_write(&a, RIG_BLOCKS - 1, 2, 1));
	BEYOND(CMD(&a, OP_SYNCHRONIZE_CACHE_10, 0, B4(RIG_BLOCKS), 0, B2(1), 0));
	GOOD(CMD(&a, OP_SYNCHRONIZE_CACHE_16, 0, B8(0), B4(0), 0, 0));
	BEYOND(CMD(&a, OP_PRE_FETCH_10, 0, B4(RIG_BLOCKS - 1), 0, B2(2), 0));
	GOOD(CMD(&a, OP_PRE_FETCH_16, 2, B8(0), B4(0), 0, 0));
	/* protection information: there is none */
	BAD_CDB(CMD(&a, OP_READ_10, 0x20, B4(0), 0, B2(1), 0));
	/* less data than the CDB says: so much is written, but no parts of blocks; and the residual can be told */
	memset(rig.out, 9, 1024);
	r = CMD_OUT(&a, rig.out, 200, OP_WRITE_10, 0, B4(0), 0, B2(2), 0);
	EXPECT(r.status == SCSI_CHECK_CONDITION && r.asc == ASC_BAD_INFORMATION_UNIT && r.want == 1024);
	EXPECT(co_is(&a, 0, 2, 0));
	r = CMD_OUT(&a, rig.out, 512, OP_WRITE_10, 0, B4(10), 0, B2(2), 0);
	EXPECT(r.status == SCSI_GOOD && r.want == 1024);
	EXPECT(co_is(&a, 10, 1, 9) && co_is(&a, 11, 1, 0));
	/* more: what the CDB says */
	r = CMD_OUT(&a, rig.out, 1024, OP_WRITE_10, 0, B4(0), 0, B2(1), 0);
	EXPECT(r.status == SCSI_GOOD && r.want == 512);
	EXPECT(co_is(&a, 0, 1, 9) && co_is(&a, 1, 1, 0));
	co_logout(&a);
	return 0;
}

/* ---- verify ---- */

static int verifies(void)
{
	struct result r;

	co_login(&a, 1, "a");
	GOOD(co_write(&a, 10, 8, 5));
	GOOD(CMD(&a, OP_VERIFY_10, 0, B4(10), 0, B2(8), 0));
	memset(rig.out, 5, 8 * 512);
	GOOD(CMD_OUT(&a, rig.out, 8 * 512, OP_VERIFY_10, 2, B4(10), 0, B2(8), 0));
	GOOD(CMD_OUT(&a, rig.out, 512, OP_VERIFY_16, 6, B8(10), B4(8), 0, 0));
	rig.out[3 * 512 + 7] = 6;
	r = CMD_OUT(&a, rig.out, 8 * 512, OP_VERIFY_12, 2, B4(10), B4(8), 0, 0);
	EXPECT(r.key == KEY_MISCOMPARE && r.asc == ASC_MISCOMPARE && r.sense[0] == 0xf0 && be_get32(r.sense + 3) == 3 * 512 + 7);
	FAILS(KEY_MISCOMPARE, ASC_MISCOMPARE, CMD_OUT(&a, rig.out, 512, OP_VERIFY_16, 6, B8(17), B4(2), 0, 0));
	BAD_CDB(CMD(&a, OP_VERIFY_10, 4, B4(10), 0, B2(8), 0));
	BEYOND(CMD(&a, OP_VERIFY_10, 0, B4(RIG_BLOCKS), 0, B2(1), 0));
	GOOD(CMD_OUT(&a, rig.out, 8 * 512, OP_WRITE_AND_VERIFY_10, 2, B4(20), 0, B2(8), 0));
	GOOD(CMD_OUT(&a, rig.out, 8 * 512, OP_WRITE_AND_VERIFY_12, 0, B4(30), B4(8), 0, 0));
	GOOD(CMD_OUT(&a, rig.out, 8 * 512, OP_WRITE_AND_VERIFY_16, 2, B8(40), B4(8), 0, 0));
	GOOD(co_read(&a, 20, 8));
	EXPECT(!memcmp(rig.in, rig.out, 8 * 512));
	GOOD(co_read(&a, 40, 8));
	EXPECT(!memcmp(rig.in, rig.out, 8 * 512));
	co_logout(&a);
	return 0;
}

/* ---- COMPARE AND WRITE ---- */

static struct result co_caw(struct initiator *i, uint64_t lba, uint8_t blocks, uint8_t expect, uint8_t data)
{
	memset(rig.out, expect, blocks * 512u);
	memset(rig.out + blocks * 512u, data, blocks * 512u);
	return CMD_OUT(i, rig.out, blocks * 1024u, OP_COMPARE_AND_WRITE, 0, B8(lba), 0, 0, 0, blocks, 0, 0);
}

static int compares(void)
{
	struct result r;

	co_login(&a, 1, "a");
	GOOD(co_caw(&a, 7, 1, 0, 1)); /* nothing has ever been there */
	EXPECT(co_is(&a, 6, 1, 0) && co_is(&a, 7, 1, 1) && co_is(&a, 8, 1, 0));
	r = co_caw(&a, 6, 2, 0, 2);
	EXPECT(r.key == KEY_MISCOMPARE && be_get32(r.sense + 3) == 512);
	EXPECT(co_is(&a, 6, 1, 0) && co_is(&a, 7, 1, 1));
	GOOD(co_caw(&a, 7, 1, 1, 3));
	GOOD(co_caw(&a, 1000, 255, 0, 4));
	EXPECT(co_is(&a, 1000, 255, 4) && co_is(&a, 999, 1, 0) && co_is(&a, 1255, 1, 0));
	GOOD(co_caw(&a, 7, 0, 1, 3));
	BEYOND(co_caw(&a, RIG_BLOCKS - 1, 2, 0, 1));
	r = CMD_OUT(&a, rig.out, 2048, OP_COMPARE_AND_WRITE, 0, B8(7), 0, 0, 0, 1, 0, 0);
	EXPECT(r.status == SCSI_CHECK_CONDITION && r.key == KEY_ILLEGAL_REQUEST);
	r = CMD_OUT(&a, rig.out, 512, OP_COMPARE_AND_WRITE, 0, B8(7), 0, 0, 0, 1, 0, 0);
	EXPECT(r.status == SCSI_CHECK_CONDITION && r.key == KEY_ILLEGAL_REQUEST);
	EXPECT(co_is(&a, 7, 1, 3));
	co_logout(&a);
	return 0;
}

/* Counting up by compare and write from many sides at once, with somebody who does it at the bdev: no step is lost, though others write
 * beside it all the time. */
#define COUNTERS 6
#define COUNTS 40
static unsigned counted, running;
static bool counters_end;

static bool count_cmd(struct initiator *i, uint8_t *buf)
{
	struct send s = { .n = i->n, .c = { .cdb = { OP_READ_16, 0, B8(64), B4(1), 0, 0 }, .cdb_len = 16 }, .in = buf };

	(void)reactor_co_call(scsi_nexus_home(i->n), send_there, &s);
	EXPECT(s.r.status == SCSI_GOOD);
	memcpy(buf + 512, buf, 512);
	be_put64(buf + 512, be_get64(buf) + 1);
	s = (struct send){ .n = i->n, .c = { .cdb = { OP_COMPARE_AND_WRITE, 0, B8(64), 0, 0, 0, 1, 0, 0 }, .cdb_len = 16, .out_bytes = 1024 } };
	s.iov.iov_base = buf;
	(void)reactor_co_call(scsi_nexus_home(i->n), send_there, &s);
	EXPECT(s.r.status == SCSI_GOOD || s.r.key == KEY_MISCOMPARE);
	return s.r.status == SCSI_GOOD;
}

static void counter_run(void *arg)
{
	uint8_t *buf = xaligned(4096, RIG_IN_MAX);
	unsigned n = 0;

	while (n < COUNTS)
		n += count_cmd(arg, buf);
	counted += n;
	xfree(buf);
	running--;
}

/* Bytes 8..: its own, written as any client writes, over and over: who counts must never bring an old one back. */
static void neighbour_run(void *arg)
{
	struct initiator *i = arg;
	uint8_t *buf = xaligned(4096, 4096);
	unsigned n = 0;

	while (!counters_end) {
		struct send s = { .n = i->n, .c = { .cdb = { OP_WRITE_16, 0, B8(65), B4(1), 0, 0 }, .cdb_len = 16, .out_bytes = 512 } };

		memset(buf, (int)++n, 512);
		s.iov.iov_base = buf;
		(void)reactor_co_call(scsi_nexus_home(i->n), send_there, &s);
		EXPECT(s.r.status == SCSI_GOOD);
	}
	EXPECT(co_is(i, 65, 1, (uint8_t)n));
	xfree(buf);
	running--;
}

static int counting(void)
{
	const char *snap[] = { "a@one" };
	struct err e = { 0 };
	unsigned i;

	co_login(&a, 1, "a");
	co_login(&b, 2, "a");
	counted = running = 0;
	counters_end = false;
	for (i = 0; i < COUNTERS; i++, running++)
		co_spawn(CO_SERVICE, counter_run, i % 2 ? &a : &b, "counter");
	running++;
	co_spawn(CO_SERVICE, neighbour_run, &a, "neighbour");
	co_sleep_ns(20 * NS_PER_MS);
	EXPECT(ashlar_co_snapshot_create(rig.p, snap, 1, &e) == 0); /* which freezes it */
	while (running > 1)
		co_sleep_ns(NS_PER_MS);
	counters_end = true;
	while (running)
		co_sleep_ns(NS_PER_MS);
	EXPECT(counted == COUNTERS * COUNTS);
	GOOD(co_read(&a, 64, 1));
	EXPECT(be_get64(rig.in) == COUNTERS * COUNTS);
	co_logout(&a);
	co_logout(&b);
	return 0;
}

/* A plain write, unmap or zeroing beside a compare and write that expects what was there before: whichever is first, what is there in
 * the end is the plain one's. */
struct race {
	struct initiator *i;
	struct send write, caw;
	bool write_first;
};

static int race_there(void *arg)
{
	struct race *x = arg;

	if (x->write_first)
		send_start(&x->write);
	send_start(&x->caw);
	if (!x->write_first)
		send_start(&x->write);
	while (!x->write.done || !x->caw.done)
		co_sleep_ns(NS_PER_US);
	return 0;
}

static int races(void)
{
	uint8_t *buf = xaligned(4096, 4096), *w = xaligned(4096, 512);
	unsigned k, won = 0;
	struct race x;

	co_login(&a, 1, "a");
	for (k = 1; k <= 120; k++) {
		uint64_t lba = k % 5; /* one cluster: some are there, some not */

		GOOD(co_write(&a, lba, 1, 0xaa));
		if (k % 3 == 0)
			GOOD(CMD(&a, OP_SYNCHRONIZE_CACHE_10, 0, B4(0), 0, B2(0), 0));
		memset(buf, 0xaa, 512);
		memset(buf + 512, 0xbb, 512);
		memset(w, k % 4 == 3 ? 0 : 0xcc, 512);
		x = (struct race){ .i = &a, .write_first = k & 1 };
		x.write = (struct send){ .n = a.n, .c = { .cdb = { OP_WRITE_16, 0, B8(lba), B4(1), 0, 0 }, .cdb_len = 16, .out_bytes = 512 } };
		if (k % 4 == 3)
			memcpy(x.write.c.cdb, ((const uint8_t[]){ OP_WRITE_SAME_16, 8, B8(lba), B4(1), 0, 0 }), 16);
		x.write.iov.iov_base = w;
		x.caw = (struct send){ .n = a.n, .c = { .cdb = { OP_COMPARE_AND_WRITE, 0, B8(lba), 0, 0, 0, 1, 0, 0 }, .cdb_len = 16, .out_bytes = 1024 } };
		x.caw.iov.iov_base = buf;
		(void)reactor_co_call(scsi_nexus_home(a.n), race_there, &x);
		EXPECT(x.write.r.status == SCSI_GOOD);
		EXPECT(x.caw.r.status == SCSI_GOOD || x.caw.r.key == KEY_MISCOMPARE);
		won += x.caw.r.status == SCSI_GOOD;
		EXPECT(co_is(&a, lba, 1, w[0]));
	}
	EXPECT(won < k);
	xfree(buf);
	xfree(w);
	co_logout(&a);
	return 0;
}

/* ---- WRITE SAME, UNMAP, GET LBA STATUS ---- */

/* Provisioning status of one LBA, and how far it goes. */
static unsigned co_status(struct initiator *i, uint64_t lba, uint32_t *blocks)
{
	GOOD(CMD(i, OP_SERVICE_ACTION_IN_16, SA_GET_LBA_STATUS, B8(lba), B4(24), 0, 0));
	EXPECT(be_get32(rig.in) == 20 && be_get64(rig.in + 8) == lba);
	*blocks = be_get32(rig.in + 16);
	return rig.in[20];
}

static int same(void)
{
	uint32_t n;

	co_login(&a, 1, "a");
	memset(rig.out, 7, 512);
	GOOD(CMD_OUT(&a, rig.out, 512, OP_WRITE_SAME_10, 0, B4(100), 0, B2(5000), 0));
	EXPECT(co_is(&a, 99, 1, 0) && co_is(&a, 100, 5000, 7) && co_is(&a, 5100, 1, 0));
	GOOD(CMD_OUT(&a, rig.out, 512, OP_WRITE_SAME_16, 8, B8(6000), B4(10), 0, 0)); /* UNMAP of what is not zeros writes */
	EXPECT(co_is(&a, 6000, 10, 7));
	memset(rig.out, 0, 512);
	GOOD(CMD_OUT(&a, rig.out, 512, OP_WRITE_SAME_16, 8, B8(101), B4(1001), 0, 0));
	EXPECT(co_is(&a, 100, 1, 7) && co_is(&a, 101, 1001, 0) && co_is(&a, 1102, 1, 7));
	GOOD(CMD(&a, OP_WRITE_SAME_16, 9, B8(2000), B4(8), 0, 0));
	EXPECT(co_is(&a, 2000, 8, 0) && co_is(&a, 2008, 1, 7));
	EXPECT(co_status(&a, 0, &n) == 1 && n == 96);
	EXPECT(co_status(&a, 96, &n) == 0);
	EXPECT(co_status(&a, 512, &n) == 1);
	BAD_CDB(CMD_OUT(&a, rig.out, 512, OP_WRITE_SAME_10, 0, B4(0), 0, B2(0), 0));
	BAD_CDB(CMD_OUT(&a, rig.out, 512, OP_WRITE_SAME_10, 0x18, B4(0), 0, B2(1), 0));
	BEYOND(CMD_OUT(&a, rig.out, 512, OP_WRITE_SAME_10, 0, B4(RIG_BLOCKS), 0, B2(1), 0));
	FAILS(KEY_ILLEGAL_REQUEST, ASC_BAD_INFORMATION_UNIT, CMD_OUT(&a, rig.out, 1024, OP_WRITE_SAME_10, 8, B4(0), 0, B2(1), 0));
	FAILS(KEY_ILLEGAL_REQUEST, ASC_BAD_INFORMATION_UNIT, CMD_OUT(&a, rig.out, 256, OP_WRITE_SAME_10, 8, B4(0), 0, B2(1), 0));
	BEYOND(CMD(&a, OP_SERVICE_ACTION_IN_16, SA_GET_LBA_STATUS, B8(RIG_BLOCKS), B4(24), 0, 0));
	co_logout(&a);
	return 0;
}

static size_t unmap_list(unsigned n, uint64_t lba, uint32_t blocks, uint32_t step)
{
	unsigned i;

	memset(rig.out, 0, 8 + 16 * n);
	be_put16(rig.out, (uint16_t)(6 + 16 * n));
	be_put16(rig.out + 2, (uint16_t)(16 * n));
	for (i = 0; i < n; i++) {
		be_put64(rig.out + 8 + 16 * i, lba + i * (uint64_t)step);
		be_put32(rig.out + 16 + 16 * i, blocks);
	}
	return 8 + 16 * n;
}

static int unmaps(void)
{
	uint32_t n;
	size_t len;

	co_login(&a, 1, "a");
	GOOD(co_write(&a, 0, 4096, 8));
	len = unmap_list(1, 1, 2047, 0);
	GOOD(CMD_OUT(&a, rig.out, len, OP_UNMAP, 0, 0, 0, 0, 0, 0, B2(len), 0));
	EXPECT(co_is(&a, 0, 1, 8) && co_is(&a, 1, 2047, 0) && co_is(&a, 2048, 2048, 8));
	EXPECT(co_status(&a, 8, &n) == 1 && n == 2040);
	len = unmap_list(SCSI_UNMAP_DESCRIPTORS_MAX, 2048, 1, 2);
	GOOD(CMD_OUT(&a, rig.out, len, OP_UNMAP, 0, 0, 0, 0, 0, 0, B2(len), 0));
	EXPECT(co_is(&a, 2048, 1, 0) && co_is(&a, 2049, 1, 8) && co_is(&a, 2558, 1, 0) && co_is(&a, 2559, 1, 8));
	len = unmap_list(SCSI_UNMAP_DESCRIPTORS_MAX + 1, 2048, 1, 2);
	BAD_LIST(CMD_OUT(&a, rig.out, len, OP_UNMAP, 0, 0, 0, 0, 0, 0, B2(len), 0));
	/* one that is wrong, and nothing is done */
	len = unmap_list(2, 3000, 1, RIG_BLOCKS);
	BEYOND(CMD_OUT(&a, rig.out, len, OP_UNMAP, 0, 0, 0, 0, 0, 0, B2(len), 0));
	EXPECT(co_is(&a, 3000, 1, 8));
	len = unmap_list(1, RIG_BLOCKS, 0, 0);
	GOOD(CMD_OUT(&a, rig.out, len, OP_UNMAP, 0, 0, 0, 0, 0, 0, B2(len), 0));
	GOOD(CMD(&a, OP_UNMAP, 0, 0, 0, 0, 0, 0, B2(0), 0));
	BAD_CDB(CMD_OUT(&a, rig.out, len, OP_UNMAP, 1, 0, 0, 0, 0, 0, B2(len), 0));
	BAD_LENGTH(CMD_OUT(&a, rig.out, 7, OP_UNMAP, 0, 0, 0, 0, 0, 0, B2(7), 0));
	co_logout(&a);
	return 0;
}

static void unmapped_all(void) { rig_run(1, 512 * MIB, unmaps); }
static void writes_of_all_sizes(void) { rig_run(2, 512 * MIB, all_sizes); }
static void transfers_up_to_the_limit(void) { rig_run(3, 512 * MIB, long_ones); }
static void nothing_beyond_the_end(void) { rig_run(4, 512 * MIB, ends); }
static void verify_says_where_it_differs(void) { rig_run(5, 512 * MIB, verifies); }
static void compare_and_write_writes_if_it_is_the_same(void) { rig_run(6, 512 * MIB, compares); }
static void write_same_of_zeros_is_a_hole(void) { rig_run(7, 512 * MIB, same); }

static void no_count_is_lost_whoever_else_writes(void)
{
	uint64_t seed;

	for (seed = 1; seed <= 10; seed++)
		rig_run(seed, 512 * MIB, counting);
}

static void a_write_beside_a_compare_is_never_undone(void)
{
	uint64_t seed;

	for (seed = 1; seed <= 20; seed++)
		rig_run(seed, 512 * MIB, races);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(writes_of_all_sizes),
		TEST(transfers_up_to_the_limit),
		TEST(nothing_beyond_the_end),
		TEST(verify_says_where_it_differs),
		TEST(compare_and_write_writes_if_it_is_the_same),
		TEST(no_count_is_lost_whoever_else_writes),
		TEST(a_write_beside_a_compare_is_never_undone),
		TEST(write_same_of_zeros_is_a_hole),
		TEST(unmapped_all),
		CU_TEST_INFO_NULL,
	};

	return tests_run("scsi_disk", tests);
}
