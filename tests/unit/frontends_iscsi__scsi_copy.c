/*
 * Third-party copy: EXTENDED COPY and tokens, and that no session reaches by them what it has no nexus to.
 */
#include "tests/unit/frontends_iscsi__rig.h"
#include "tests/unit/unit.h"

static struct initiator a, b, other;
static uint8_t list[8192];

/* ---- EXTENDED COPY ---- */

static size_t list_begin(unsigned n_targets, struct scsi_nexus *const *targets)
{
	unsigned i;

	memset(list, 0, sizeof(list));
	list[0] = 1; /* list identifier */
	be_put16(list + 2, (uint16_t)(n_targets * 32));
	for (i = 0; i < n_targets; i++) {
		uint8_t *d = list + 16 + 32 * i;

		d[0] = 0xe4;
		d[4] = 1;
		d[5] = 3;
		d[7] = 8;
		memcpy(d + 8, targets[i]->lu->naa, 8);
		be_put24(d + 29, 512);
	}
	return 16 + n_targets * 32u;
}

static size_t segment(size_t at, unsigned from, unsigned to, uint64_t src, uint64_t dst, uint16_t blocks)
{
	uint8_t *d = list + at;

	d[0] = 0x02;
	be_put16(d + 2, 24);
	be_put16(d + 4, (uint16_t)from);
	be_put16(d + 6, (uint16_t)to);
	be_put16(d + 10, blocks);
	be_put64(d + 12, src);
	be_put64(d + 20, dst);
	be_put32(list + 8, be_get32(list + 8) + 28);
	return at + 28;
}

static size_t segment_bytes(size_t at, unsigned from, unsigned to, uint64_t src, uint64_t dst, uint32_t bytes)
{
	uint8_t *d = list + at;

	d[0] = 0x0a;
	be_put16(d + 2, 28);
	be_put16(d + 4, (uint16_t)from);
	be_put16(d + 6, (uint16_t)to);
	be_put32(d + 8, bytes);
	be_put64(d + 12, src);
	be_put64(d + 20, dst);
	be_put32(list + 8, be_get32(list + 8) + 32);
	return at + 32;
}

static struct result co_xcopy(struct initiator *i, size_t len)
{
	return CMD_OUT(i, list, len, OP_THIRD_PARTY_COPY_OUT, 0, 0, 0, 0, 0, 0, 0, 0, 0, B4(len), 0, 0);
}

static struct result co_copy_status(struct initiator *i, uint8_t id)
{
	return CMD(i, OP_THIRD_PARTY_COPY_IN, 0, id, 0, 0, 0, 0, 0, 0, 0, B4(255), 0, 0);
}

#define TARGETS(...) (struct scsi_nexus *const[]){ __VA_ARGS__ }

/* a and b: one session with two LUs; `other` is another's, of the second. */
static void co_all_in(void)
{
	co_login(&a, 1, "a");
	co_login(&b, 1, "b");
	co_login(&other, 2, "b");
}

static void co_all_out(void)
{
	co_logout(&a);
	co_logout(&b);
	co_logout(&other);
}

static int xcopies(void)
{
	size_t n;

	co_all_in();
	GOOD(co_write(&a, 100, 5000, 7));
	GOOD(co_write(&a, 3000, 1, 8));
	GOOD(co_write(&b, 0, 10000, 9));
	n = segment(list_begin(2, TARGETS(a.n, b.n)), 0, 1, 50, 1000, 6000);
	GOOD(co_xcopy(&a, n));
	EXPECT(co_is(&b, 999, 1, 9) && co_is(&b, 1000, 50, 0) && co_is(&b, 1050, 2900, 7) && co_is(&b, 3950, 1, 8) &&
	       co_is(&b, 3951, 2099, 7) && co_is(&b, 6050, 950, 0) && co_is(&b, 7000, 1, 9));
	GOOD(co_copy_status(&a, 1));
	EXPECT(rig.in[4] == 0x81 && be_get16(rig.in + 5) == 1 && be_get32(rig.in + 8) == 6000 * 512);
	/* the manager may be neither end's first; holes come over as holes */
	n = segment(segment(list_begin(2, TARGETS(b.n, a.n)), 0, 0, 7000, 90000, 100), 1, 0, 60000, 7000, 1000);
	GOOD(co_xcopy(&b, n));
	EXPECT(co_is(&b, 90000, 100, 9) && co_is(&b, 7000, 1000, 0));
	GOOD(CMD(&b, OP_SERVICE_ACTION_IN_16, SA_GET_LBA_STATUS, B8(7040), B4(24), 0, 0));
	EXPECT(rig.in[20] == 1);
	/* by bytes */
	n = segment_bytes(list_begin(1, TARGETS(a.n)), 0, 0, 100, 50000, 512 * 3000);
	GOOD(co_xcopy(&a, n));
	EXPECT(co_is(&a, 50000, 2900, 7) && co_is(&a, 52900, 1, 8));
	GOOD(co_xcopy(&a, 0));
	co_all_out();
	return 0;
}

/* 48 MiB, of which the disks see nothing but metadata; then either side changes by itself. */
static int xcopy_shares(void)
{
	uint64_t blocks = 48 * MIB / 512, lba, written, since;
	size_t n;

	co_all_in();
	for (lba = 0; lba < blocks; lba += 8192)
		GOOD(co_write(&a, lba + 3, 8192, (uint8_t)(1 + lba / 8192)));
	GOOD(CMD(&a, OP_SYNCHRONIZE_CACHE_10, 0, B4(0), 0, B2(0), 0));
	written = sim_disk_bytes_written(rig.ds, 0);
	since = reactor_now_ns();
	n = segment_bytes(list_begin(2, TARGETS(a.n, b.n)), 0, 1, 3, 131 + 512, 48 * MIB); /* 128 blocks are a cluster */
	GOOD(co_xcopy(&a, n));
	EXPECT(sim_disk_bytes_written(rig.ds, 0) - written < 4 * MIB);
	EXPECT(reactor_now_ns() - since < NS_PER_SEC);
	GOOD(co_copy_status(&a, 1));
	EXPECT(be_get32(rig.in + 8) == 48 * MIB);
	for (lba = 0; lba < blocks; lba += 8192)
		EXPECT(co_is(&b, lba + 131 + 512, 8192, (uint8_t)(1 + lba / 8192)));
	EXPECT(co_is(&b, 130 + 512, 1, 0) && co_is(&b, 131 + 512 + blocks, 1, 0));
	GOOD(co_write(&a, 1000, 100, 0xaa));
	GOOD(co_write(&b, 30000, 100, 0xbb));
	EXPECT(co_is(&a, 1000, 100, 0xaa) && co_is(&b, 1000, 1000, 1) && co_is(&b, 30000, 100, 0xbb));
	EXPECT(co_is(&a, 29000, 2000, 4));
	n = segment(list_begin(1, TARGETS(a.n)), 0, 0, 0, 128 * 800, 128 * 10); /* within one */
	GOOD(co_xcopy(&a, n));
	EXPECT(co_is(&a, 128 * 800 + 1000, 100, 0xaa) && co_is(&a, 128 * 800, 3, 0));
	co_all_out();
	return 0;
}

/* The session's own LUs alone, with the rights that it has there. */
static int xcopy_reach(void)
{
	size_t n;

	co_all_in();
	GOOD(co_write(&a, 0, 8, 7));
	GOOD(co_write(&b, 0, 8, 1));
	n = segment(list_begin(2, TARGETS(a.n, other.n)), 0, 1, 0, 0, 8);
	FAILS(KEY_COPY_ABORTED, ASC_COPY_TARGET_NOT_REACHABLE, co_xcopy(&other, n)); /* it has no `a` */
	n = segment(list_begin(2, TARGETS(other.n, a.n)), 0, 1, 0, 0, 8);
	FAILS(KEY_COPY_ABORTED, ASC_COPY_TARGET_NOT_REACHABLE, co_xcopy(&other, n));
	EXPECT(co_is(&a, 0, 8, 7) && co_is(&b, 0, 8, 1));
	GOOD(co_copy_status(&other, 1));
	EXPECT(rig.in[4] == 0x82);
	BAD_CDB(co_copy_status(&b, 1)); /* another session's list */
	/* reserved by others: not by way of a copy either */
	GOOD(CMD(&other, OP_RESERVE_6, 0, 0, 0, 0, 0));
	n = segment(list_begin(2, TARGETS(a.n, b.n)), 0, 1, 0, 0, 8);
	FAILS(KEY_COPY_ABORTED, ASC_COPY_TARGET_NOT_REACHABLE, co_xcopy(&a, n));
	n = segment(list_begin(2, TARGETS(b.n, a.n)), 0, 1, 0, 0, 8);
	FAILS(KEY_COPY_ABORTED, ASC_COPY_TARGET_NOT_REACHABLE, co_xcopy(&a, n));
	GOOD(CMD(&other, OP_RELEASE_6, 0, 0, 0, 0, 0));
	EXPECT(co_is(&a, 0, 8, 7) && co_is(&b, 0, 8, 1));
	GOOD(co_xcopy(&a, n));
	EXPECT(co_is(&a, 0, 8, 1));
	co_all_out();
	return 0;
}

static int xcopy_lists(void)
{
	size_t n, i;

	co_all_in();
	n = list_begin(SCSI_COPY_TARGETS_MAX + 1, TARGETS(a.n, a.n, a.n, a.n, a.n));
	FAILS(KEY_ILLEGAL_REQUEST, ASC_TOO_MANY_TARGETS, co_xcopy(&a, segment(n, 0, 0, 0, 8, 1)));
	n = list_begin(1, TARGETS(a.n));
	for (i = 0; i <= SCSI_COPY_SEGMENTS_MAX; i++)
		n = segment(n, 0, 0, 0, 8, 1);
	FAILS(KEY_ILLEGAL_REQUEST, ASC_TOO_MANY_SEGMENTS, co_xcopy(&a, n));
	n = list_begin(1, TARGETS(a.n));
	for (i = 0; i < 40; i++)
		n = segment(n, 0, 0, 0, 8, 1);
	BAD_LENGTH(co_xcopy(&a, n));
	n = segment(list_begin(1, TARGETS(a.n)), 0, 0, 0, 8, 1);
	for (i = 1; i < n; i++)
		BAD_LENGTH(co_xcopy(&a, i));
	list[16] = 0xe0;
	FAILS(KEY_ILLEGAL_REQUEST, ASC_BAD_TARGET_TYPE, co_xcopy(&a, n));
	list[16] = 0xe4;
	list[48] = 0x03;
	FAILS(KEY_ILLEGAL_REQUEST, ASC_BAD_SEGMENT_TYPE, co_xcopy(&a, n));
	n = segment(list_begin(1, TARGETS(a.n)), 0, 1, 0, 8, 1);
	FAILS(KEY_COPY_ABORTED, ASC_COPY_TARGET_NOT_REACHABLE, co_xcopy(&a, n));
	n = segment(list_begin(1, TARGETS(a.n)), 0, 0, 0, RIG_BLOCKS - 1, 2);
	FAILS(KEY_COPY_ABORTED, ASC_NONE, co_xcopy(&a, n));
	n = segment(list_begin(1, TARGETS(a.n)), 0, 0, UINT64_MAX, 0, 2);
	FAILS(KEY_COPY_ABORTED, ASC_NONE, co_xcopy(&a, n));
	GOOD(CMD(&a, OP_THIRD_PARTY_COPY_IN, SA_COPY_PARAMETERS, 0, 0, 0, 0, 0, 0, 0, 0, B4(255), 0, 0));
	EXPECT(be_get32(rig.in) == 43 && be_get16(rig.in + 8) == SCSI_COPY_TARGETS_MAX && be_get32(rig.in + 12) == SCSI_COPY_LIST_MAX);
	BAD_CDB(co_copy_status(&a, 77));
	co_all_out();
	return 0;
}

/* ---- tokens ---- */

static struct result co_populate(struct initiator *i, uint32_t id, uint64_t lba, uint32_t blocks, uint32_t seconds)
{
	memset(list, 0, 48);
	be_put16(list, 46);
	be_put32(list + 4, seconds);
	be_put16(list + 14, 32);
	be_put64(list + 16, lba);
	be_put32(list + 24, blocks);
	be_put64(list + 32, lba + 2 * blocks);
	be_put32(list + 40, blocks);
	return CMD_OUT(i, list, 48, OP_THIRD_PARTY_COPY_OUT, SA_POPULATE_TOKEN, 0, 0, 0, 0, B4(id), B4(48), 0, 0);
}

static struct result co_receive(struct initiator *i, uint32_t id)
{
	return CMD(i, OP_THIRD_PARTY_COPY_IN, SA_RECEIVE_ROD_TOKEN, B4(id), 0, 0, 0, 0, B4(1024), 0, 0);
}

static struct result co_use(struct initiator *i, uint32_t id, const uint8_t *token, uint64_t skip, uint64_t lba, uint32_t blocks, uint8_t bits)
{
	memset(list, 0, 552);
	be_put16(list, 550);
	list[2] = bits;
	be_put64(list + 8, skip);
	memcpy(list + 16, token, 512);
	be_put16(list + 534, 16);
	be_put64(list + 536, lba);
	be_put32(list + 544, blocks);
	return CMD_OUT(i, list, 552, OP_THIRD_PARTY_COPY_OUT, SA_WRITE_USING_TOKEN, 0, 0, 0, 0, B4(id), B4(552), 0, 0);
}

/* Two ranges of 100 blocks, 200 apart. */
static void co_token(uint8_t token[512], uint32_t seconds)
{
	struct result r;

	GOOD(co_populate(&a, 5, 1000, 100, seconds));
	r = co_receive(&a, 5);
	EXPECT(r.status == SCSI_GOOD && rig.in[4] == SA_POPULATE_TOKEN && rig.in[5] == 1 && be_get64(rig.in + 16) == 200);
	EXPECT(be_get32(rig.in + 32) == 514 && r.in_len == 36 + 514);
	memcpy(token, rig.in + 38, 512);
	EXPECT(be_get16(token + 6) == 0x1f8);
}

static int tokens(void)
{
	static const uint8_t zero_token[512] = { 0xff, 0xff, 0, 1, 0, 0, 1, 0xf8 };
	uint8_t t[512], forged[512];

	co_all_in();
	GOOD(co_write(&a, 1000, 100, 1));
	GOOD(co_write(&a, 1100, 100, 2));
	GOOD(co_write(&a, 1200, 100, 3));
	co_token(t, 0);
	GOOD(co_use(&b, 6, t, 0, 5000, 200, 0));
	EXPECT(co_is(&b, 5000, 100, 1) && co_is(&b, 5100, 100, 3) && co_is(&b, 5200, 1, 0));
	GOOD(co_receive(&b, 6));
	EXPECT(rig.in[4] == SA_WRITE_USING_TOKEN && be_get64(rig.in + 16) == 200 && be_get32(rig.in + 32) == 0);
	GOOD(co_use(&b, 7, t, 50, 7000, 300, 0)); /* more than there is: what is moved says so */
	EXPECT(co_is(&b, 7000, 50, 1) && co_is(&b, 7050, 100, 3) && co_is(&b, 7150, 150, 0));
	GOOD(co_receive(&b, 7));
	EXPECT(be_get64(rig.in + 16) == 150);
	BAD_LIST(co_use(&b, 7, t, 200, 7000, 1, 0));
	GOOD(co_use(&b, 8, zero_token, 0, 5050, 100, 0));
	EXPECT(co_is(&b, 5000, 50, 1) && co_is(&b, 5050, 100, 0) && co_is(&b, 5150, 50, 3));
	/* forged, another's, used up, too old */
	memcpy(forged, t, 512);
	forged[140] ^= 1;
	FAILS(KEY_ILLEGAL_REQUEST, ASC_TOKEN_UNKNOWN, co_use(&b, 9, forged, 0, 0, 1, 0));
	FAILS(KEY_ILLEGAL_REQUEST, ASC_TOKEN_UNKNOWN, co_use(&other, 9, t, 0, 0, 1, 0)); /* it does not reach where it is from */
	GOOD(co_use(&b, 9, t, 0, 0, 1, 2));
	FAILS(KEY_ILLEGAL_REQUEST, ASC_TOKEN_UNKNOWN, co_use(&b, 9, t, 0, 0, 1, 0));
	GOOD(co_receive(&b, 9));
	EXPECT(rig.in[5] == 2 && rig.in[13] == 18);
	co_token(t, 10);
	co_sleep_ns(6 * NS_PER_SEC);
	GOOD(co_use(&b, 9, t, 0, 0, 1, 0)); /* each use gives it its time again */
	co_sleep_ns(6 * NS_PER_SEC);
	GOOD(co_use(&b, 9, t, 0, 0, 1, 0));
	co_sleep_ns(11 * NS_PER_SEC);
	FAILS(KEY_ILLEGAL_REQUEST, ASC_TOKEN_EXPIRED, co_use(&b, 9, t, 0, 0, 1, 0));
	BAD_LIST(co_populate(&a, 5, 0, 1, SCSI_TOKEN_SECONDS_MAX + 1));
	BEYOND(co_populate(&a, 5, RIG_BLOCKS, 1, 0));
	BAD_CDB(co_receive(&a, 99));
	BAD_LENGTH(CMD_OUT(&a, list, 10, OP_THIRD_PARTY_COPY_OUT, SA_WRITE_USING_TOKEN, 0, 0, 0, 0, B4(1), B4(10), 0, 0));
	co_all_out();
	return 0;
}

static int many_tokens(void)
{
	uint8_t t[512];
	unsigned i;

	co_all_in();
	co_token(t, 0);
	for (i = 0; i < 3 * SCSI_TOKENS_MAX; i++)
		GOOD(co_populate(&a, i, 0, 8, 0));
	EXPECT(rig.t->n_tokens <= SCSI_TOKENS_MAX);
	FAILS(KEY_ILLEGAL_REQUEST, ASC_TOKEN_UNKNOWN, co_use(&b, 9, t, 0, 0, 1, 0));
	co_all_out();
	return 0;
}

static void copies_between_and_within_volumes(void) { rig_run(1, 512 * MIB, xcopies); }
static void copies_within_a_pool_move_no_data(void) { rig_run(7, 1024 * MIB, xcopy_shares); }
static void copies_reach_what_the_session_reaches(void) { rig_run(2, 512 * MIB, xcopy_reach); }
static void lists_that_are_wrong_copy_nothing(void) { rig_run(3, 512 * MIB, xcopy_lists); }
static void tokens_stand_for_ranges(void) { rig_run(4, 512 * MIB, tokens); }
static void tokens_are_limited(void) { rig_run(5, 512 * MIB, many_tokens); }

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(copies_between_and_within_volumes),
		TEST(copies_within_a_pool_move_no_data),
		TEST(copies_reach_what_the_session_reaches),
		TEST(lists_that_are_wrong_copy_nothing),
		TEST(tokens_stand_for_ranges),
		TEST(tokens_are_limited),
		CU_TEST_INFO_NULL,
	};

	return tests_run("scsi_copy", tests);
}
