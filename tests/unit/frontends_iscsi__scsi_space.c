/*
 * Thin provisioning thresholds: what initiators hear of a pool that fills up, and what they can choose.
 */
#include "tests/unit/frontends_iscsi__rig.h"
#include "tests/unit/unit.h"

#define WIDE_BYTES GIB
#define MARGIN 6 /* MiB: with the metadata the whole changes a little */
#define LOOK_NS (5 * NS_PER_SEC) /* the pool looks more often than that */

static struct initiator a, b;

static const uint8_t *co_page(struct initiator *i, uint8_t pc)
{
	struct result r = CMD(i, OP_MODE_SENSE_10, 8, (uint8_t)(pc << 6 | 0x1c), 2, 0, 0, 0, B2(255), 0);
	const uint8_t *p = rig.in + 8;

	GOOD(r);
	EXPECT(r.in_len == 8 + 40 && p[0] == 0x5c && p[1] == 2 && be_get16(p + 2) == 36);
	return p;
}

static uint32_t co_threshold(struct initiator *i, unsigned k)
{
	const uint8_t *p = co_page(i, 0) + 16 + 8 * k;

	EXPECT(p[0] == 0x80 && p[1] == 1);
	return be_get32(p + 4);
}

/* MiB that the log says are available. */
static uint32_t co_available(struct initiator *i)
{
	struct result r = CMD(i, OP_LOG_SENSE, 0, 0x0c, 0, 0, 0, 0, B2(64), 0);

	GOOD(r);
	EXPECT(r.in_len == 4 + 24 && rig.in[0] == 0x0c && be_get16(rig.in + 2) == 24);
	EXPECT(be_get16(rig.in + 4) == 1 && rig.in[12] == 2);
	EXPECT(be_get16(rig.in + 16) == 2 && rig.in[24] == 1);
	return be_get32(rig.in + 8);
}

/* Writes into the volume until so many MiB are available. */
static uint64_t co_fill(struct initiator *i, uint64_t lba, uint64_t left)
{
	struct ashlar_pool_info *info = xcalloc(1, sizeof(*info));

	for (ashlar_co_pool_info(rig.p, info); info->free_bytes / MIB > left && lba < WIDE_BYTES / 512; ashlar_co_pool_info(rig.p, info)) {
		GOOD(co_write(i, lba, 256, 7));
		lba += 256;
	}
	EXPECT(info->free_bytes / MIB <= left);
	xfree(info);
	return lba;
}

static uint64_t co_events(const char *type)
{
	struct ashlar_event *v;
	struct err e = { 0 };
	size_t n, i;
	uint64_t k = 0;

	EXPECT(ashlar_co_events(rig.a, 0, 1024, 0, &v, &n, &e) == 0);
	for (i = 0; i < n; i++)
		k += !strcmp(v[i].type, type);
	xfree(v);
	return k;
}

static int fills(void)
{
	uint32_t at[3];
	uint64_t lba;
	unsigned i;

	rig_co_volume("wide", WIDE_BYTES);
	co_login(&a, 1, "wide");
	co_login(&b, 2, "b");
	co_sleep_ns(LOOK_NS);
	for (i = 0; i < 3; i++)
		at[i] = co_threshold(&a, i);
	EXPECT(at[0] > at[1] && at[1] > at[2] && at[2] > 0 && at[0] < co_available(&a));
	/* VPD B2: the exponent of what is counted in */
	GOOD(CMD(&a, OP_INQUIRY, 1, 0xb2, B2(255), 0));
	EXPECT(512U << rig.in[4] == SCSI_THRESHOLD_BYTES);
	lba = co_fill(&a, 0, at[0] + MARGIN);
	co_sleep_ns(LOOK_NS);
	GOOD(CMD(&a, 0, 0, 0, 0, 0, 0));
	EXPECT(co_events("pool.low") == 0);
	for (i = 0; i < 3; i++) {
		a.n_told = 0;
		lba = co_fill(&a, lba, at[i] - MARGIN);
		co_sleep_ns(LOOK_NS);
		EXPECT(a.n_told == 1);
		ATTENTION(ASC_THRESHOLD_REACHED, &a);
		GOOD(CMD(&a, 0, 0, 0, 0, 0, 0));
		ATTENTION(ASC_THRESHOLD_REACHED, &b); /* it has written nothing; the pool is for all */
		GOOD(CMD(&b, 0, 0, 0, 0, 0, 0));
		EXPECT(co_events("pool.low") == i + 1);
		EXPECT(co_available(&b) <= at[i]);
	}
	/* once, until there is room again */
	co_sleep_ns(4 * LOOK_NS);
	GOOD(CMD(&a, 0, 0, 0, 0, 0, 0));
	for (i = 0; i < 4; i++)
		GOOD(CMD(&a, OP_WRITE_SAME_16, 9, B8(65536 * i), B4(65535), 0, 0));
	co_sleep_ns(2 * LOOK_NS);
	GOOD(CMD(&a, 0, 0, 0, 0, 0, 0));
	(void)co_fill(&a, 0, at[0] - MARGIN);
	co_sleep_ns(LOOK_NS);
	ATTENTION(ASC_THRESHOLD_REACHED, &a);
	ATTENTION(ASC_THRESHOLD_REACHED, &b);
	EXPECT(co_events("pool.low") == 4);
	co_logout(&a);
	co_logout(&b);
	return 0;
}

static struct result co_select(struct initiator *i, const uint8_t *page)
{
	uint8_t list[8 + 40] = { 0 };

	memcpy(list + 8, page, 40);
	list[8] &= 0x7f; /* PS */
	return CMD_OUT(i, list, sizeof(list), OP_MODE_SELECT_10, 0x10, 0, 0, 0, 0, 0, B2(sizeof(list)), 0);
}

static int chosen(void)
{
	uint8_t page[40], mask[40];
	uint32_t now;

	rig_co_volume("wide", WIDE_BYTES);
	co_login(&a, 1, "wide");
	co_login(&b, 2, "wide");
	co_sleep_ns(LOOK_NS);
	now = co_available(&a);
	memcpy(mask, co_page(&a, 1), 40);
	EXPECT(mask[16] == 0x80 && mask[17] == 0 && be_get32(mask + 20) == UINT32_MAX);
	memcpy(page, co_page(&a, 0), 40);
	page[16 + 1] = 2; /* the resource cannot be chosen */
	BAD_LIST(co_select(&a, page));
	page[16 + 1] = 1;
	page[4] = 1; /* nor that only one initiator hears of it */
	BAD_LIST(co_select(&a, page));
	page[4] = 0;
	page[3]++;
	BAD_LENGTH(co_select(&a, page)); /* the list has not so much */
	page[3] -= 2;
	EXPECT(co_select(&a, page).status == SCSI_CHECK_CONDITION);
	page[3]++;
	/* the first: reached at once; the second: off; the third stays what it is */
	be_put32(page + 16 + 4, now);
	page[24] = 0;
	GOOD(co_select(&a, page));
	ATTENTION(ASC_THRESHOLD_REACHED, &a);
	ATTENTION(ASC_MODE_PARAMETERS_CHANGED, &b);
	ATTENTION(ASC_THRESHOLD_REACHED, &b);
	EXPECT(!memcmp(co_page(&b, 0), page, 40));
	EXPECT(be_get32(co_page(&b, 2) + 20) < now); /* the default is the pool's */
	GOOD(co_select(&a, page));
	GOOD(CMD(&b, 0, 0, 0, 0, 0, 0)); /* nothing has changed */
	be_put32(page + 16 + 4, 0);
	be_put32(page + 32 + 4, 0);
	GOOD(co_select(&a, page));
	ATTENTION(ASC_MODE_PARAMETERS_CHANGED, &b);
	(void)co_fill(&a, 0, now / 10);
	co_sleep_ns(LOOK_NS);
	GOOD(CMD(&a, 0, 0, 0, 0, 0, 0)); /* nobody wants to hear of it */
	GOOD(CMD(&b, 0, 0, 0, 0, 0, 0));
	/* all pages with all subpages, and no other */
	GOOD(CMD(&a, OP_MODE_SENSE_6, 8, 0x1c, 0xff, 255, 0));
	EXPECT(rig.in[0] == 3 + 12 + 40);
	GOOD(CMD(&a, OP_MODE_SENSE_6, 8, 0x1c, 0, 255, 0));
	EXPECT(rig.in[0] == 3 + 12);
	BAD_CDB(CMD(&a, OP_MODE_SENSE_6, 8, 0x1c, 3, 255, 0));
	co_logout(&a);
	co_logout(&b);
	return 0;
}

static void initiators_hear_of_a_pool_that_fills_up(void) { rig_run(31, 256 * MIB, fills); }
static void initiators_choose_thresholds_of_their_own(void) { rig_run(32, 256 * MIB, chosen); }

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(initiators_hear_of_a_pool_that_fills_up),
		TEST(initiators_choose_thresholds_of_their_own),
		CU_TEST_INFO_NULL,
	};

	return tests_run("scsi_space", tests);
}
