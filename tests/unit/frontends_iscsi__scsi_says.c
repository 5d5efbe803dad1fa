/*
 * What an LU says of itself, what it does about commands that make no sense, and task management.
 */
#include "tests/unit/frontends_iscsi__rig.h"
#include "tests/unit/unit.h"

static struct initiator a, b;

/* ---- INQUIRY ---- */

static const uint8_t *vpd(struct initiator *i, uint8_t page, size_t *len)
{
	GOOD(CMD(i, OP_INQUIRY, 1, page, B2(1024), 0));
	EXPECT(rig.in[0] == 0 && rig.in[1] == page);
	*len = be_get16(rig.in + 2);
	return rig.in + 4;
}

/* The designator of this association and type; NULL. */
static const uint8_t *designator_of(const uint8_t *p, size_t len, unsigned association, unsigned type)
{
	const uint8_t *end = p + len;

	for (; p < end; p += 4 + p[3])
		if ((p[1] >> 4 & 3) == association && (p[1] & 15) == type)
			return p;
	return NULL;
}

static void pages(void)
{
	const uint8_t *p, *d;
	uint8_t naa[8];
	size_t len, i;

	p = vpd(&a, 0, &len);
	EXPECT(len == 7);
	for (i = 1; i < len; i++)
		EXPECT(p[i] > p[i - 1]);
	p = vpd(&a, 0x80, &len);
	EXPECT(len == 36 && p[8] == '-');
	p = vpd(&a, 0x83, &len);
	d = designator_of(p, len, 0, 3);
	EXPECT(d && d[3] == 8 && d[4] >> 4 == 3);
	memcpy(naa, d + 4, 8);
	d = designator_of(p, len, 0, 1);
	EXPECT(d && !memcmp(d + 4, "ASHLAR  ", 8));
	d = designator_of(p, len, 1, 4);
	EXPECT(d && be_get32(d + 4) == 1);
	EXPECT(designator_of(p, len, 1, 5) != NULL);
	d = designator_of(p, len, 1, 8);
	EXPECT(d && !strcmp((const char *)d + 4, "iqn.2026-01.org.ashlar:a,t,0x0001"));
	d = designator_of(p, len, 2, 8);
	EXPECT(d && !strcmp((const char *)d + 4, "iqn.2026-01.org.ashlar:a") && d[3] % 4 == 0);
	p = vpd(&b, 0x83, &len);
	d = designator_of(p, len, 0, 3);
	EXPECT(d && memcmp(naa, d + 4, 8)); /* another volume */
	p = vpd(&a, 0xb0, &len);
	EXPECT(len == 0x3c && p[0] == 1 && p[1] == 255 && be_get32(p + 4) == SCSI_TRANSFER_MAX / 512);
	EXPECT(be_get32(p + 16) == SCSI_UNMAP_BLOCKS_MAX && be_get64(p + 32) == SCSI_SAME_BLOCKS_MAX && be_get32(p + 20) == SCSI_UNMAP_DESCRIPTORS_MAX);
	p = vpd(&a, 0xb1, &len);
	EXPECT(len == 0x3c && be_get16(p) == 1);
	p = vpd(&a, 0xb2, &len);
	EXPECT(len == 4 && p[1] == 0xe4 && p[2] == 2);
	p = vpd(&a, 0x8f, &len);
	EXPECT(len % 4 == 0 && len > 100);
	for (i = 0; i < len; i += 4u + be_get16(p + i + 2)) /* ends where it says */
		EXPECT(i + 4 + be_get16(p + i + 2) <= len);
	EXPECT(i == len);
	BAD_CDB(CMD(&a, OP_INQUIRY, 1, 0xb7, B2(255), 0));
	BAD_CDB(CMD(&a, OP_INQUIRY, 0, 0x80, B2(255), 0));
}

static int inquiries(void)
{
	struct result r;

	co_login_raw(&a, 1, "a");
	co_login(&b, 2, "b");
	r = CMD(&a, OP_INQUIRY, 0, 0, B2(255), 0); /* an attention stays for later */
	EXPECT(r.status == SCSI_GOOD && r.in_len == 96 && rig.in[0] == 0 && rig.in[2] == 6 && rig.in[4] == 91);
	EXPECT(!memcmp(rig.in + 8, "ASHLAR  Thin Volume     0001", 28));
	r = CMD(&a, OP_INQUIRY, 0, 0, B2(5), 0);
	EXPECT(r.in_len == 5);
	r = CMD(&a, OP_INQUIRY, 0, 0, B2(0), 0);
	EXPECT(r.status == SCSI_GOOD && r.in_len == 0);
	pages();
	ATTENTION(ASC_POWER_ON, &a);
	GOOD(CMD(&a, 0, 0, 0, 0, 0, 0));
	/* REQUEST SENSE takes one, too */
	co_logout(&a);
	co_login_raw(&a, 1, "a");
	r = CMD(&a, OP_REQUEST_SENSE, 0, 0, 0, 252, 0);
	EXPECT(r.in_len == 18 && rig.in[0] == 0x70 && rig.in[2] == KEY_UNIT_ATTENTION && rig.in[12] == 0x29);
	r = CMD(&a, OP_REQUEST_SENSE, 1, 0, 0, 252, 0);
	EXPECT(r.in_len == 8 && rig.in[0] == 0x72 && rig.in[1] == KEY_NO_SENSE);
	co_logout(&a);
	co_logout(&b);
	return 0;
}

static int capacities(void)
{
	struct err e = { 0 };
	unsigned told;

	co_login(&a, 1, "a");
	GOOD(CMD(&a, OP_READ_CAPACITY_10, 0, B4(0), 0, 0, 0, 0));
	EXPECT(be_get32(rig.in) == RIG_BLOCKS - 1 && be_get32(rig.in + 4) == 512);
	GOOD(CMD(&a, OP_SERVICE_ACTION_IN_16, SA_READ_CAPACITY_16, B8(0), B4(32), 0, 0));
	EXPECT(be_get64(rig.in) == RIG_BLOCKS - 1 && be_get32(rig.in + 8) == 512 && rig.in[13] == 0 && be_get16(rig.in + 14) == 0xc000);
	EXPECT(CMD(&a, OP_SERVICE_ACTION_IN_16, SA_READ_CAPACITY_16, B8(0), B4(12), 0, 0).in_len == 12);
	told = a.n_told;
	EXPECT(ashlar_co_volume_resize(rig.p, "a", RIG_VOLUME_BYTES * 2, false, &e) == 0);
	EXPECT(a.n_told == told + 1);
	ATTENTION(ASC_CAPACITY_CHANGED, &a);
	GOOD(co_write(&a, RIG_BLOCKS * 2 - 1, 1, 1));
	EXPECT(ashlar_co_volume_resize(rig.p, "a", RIG_VOLUME_BYTES, true, &e) == 0);
	ATTENTION(ASC_CAPACITY_CHANGED, &a);
	BEYOND(co_write(&a, RIG_BLOCKS * 2 - 1, 1, 1));
	/* TiB: 10 bytes cannot say it */
	rig_co_volume("big", 4 * TIB);
	co_login(&b, 2, "big");
	GOOD(CMD(&b, OP_READ_CAPACITY_10, 0, B4(0), 0, 0, 0, 0));
	EXPECT(be_get32(rig.in) == UINT32_MAX);
	GOOD(co_write(&b, 4 * TIB / 512 - 1, 1, 3));
	EXPECT(co_is(&b, 4 * TIB / 512 - 1, 1, 3));
	co_logout(&b);
	co_logout(&a);
	return 0;
}

/* ---- modes ---- */

static int modes(void)
{
	uint8_t list[64];
	struct result r;

	co_login(&a, 1, "a");
	co_login(&b, 2, "a");
	r = CMD(&a, OP_MODE_SENSE_6, 0, 0x3f, 0, 255, 0);
	EXPECT(r.in_len == rig.in[0] + 1u && rig.in[2] == 0x10 && rig.in[3] == 8 && be_get24(rig.in + 9) == 512);
	EXPECT(rig.in[12] == 0x88 && rig.in[14] == 4 && rig.in[12 + 20] == 0x0a);
	r = CMD(&a, OP_MODE_SENSE_10, 0x18, 0x0a, 0, 0, 0, 0, B2(255), 0);
	EXPECT(r.in_len == 8 + 12 && be_get16(rig.in) == 18 && rig.in[8] == 0x0a);
	r = CMD(&a, OP_MODE_SENSE_10, 0x10, 0x0a, 0, 0, 0, 0, B2(255), 0);
	EXPECT(be_get16(rig.in + 6) == 16 && rig.in[4] == 1 && be_get64(rig.in + 8) == RIG_BLOCKS && be_get32(rig.in + 20) == 512);
	r = CMD(&a, OP_MODE_SENSE_6, 8, 0x4a, 0, 255, 0); /* what can be changed */
	EXPECT(rig.in[6] == 4 && rig.in[8] == 8);
	FAILS(KEY_ILLEGAL_REQUEST, ASC_SAVING_NOT_SUPPORTED, CMD(&a, OP_MODE_SENSE_6, 0, 0xca, 0, 255, 0));
	BAD_CDB(CMD(&a, OP_MODE_SENSE_6, 0, 0x19, 0, 255, 0));
	BAD_CDB(CMD(&a, OP_MODE_SENSE_6, 0, 0x08, 1, 255, 0));
	GOOD(CMD(&a, OP_MODE_SENSE_6, 0, 0x3f, 0xff, 255, 0));
	/* software write protection and sense by descriptors, for all */
	memset(list, 0, sizeof(list));
	list[4] = 0x0a;
	list[5] = 0x0a;
	list[6] = 4;
	list[7] = 0x10;
	list[8] = 8;
	GOOD(CMD_OUT(&a, list, 16, OP_MODE_SELECT_6, 0x10, 0, 0, 16, 0));
	r = CMD(&b, 0, 0, 0, 0, 0, 0);
	EXPECT(r.key == KEY_UNIT_ATTENTION && r.asc == ASC_MODE_PARAMETERS_CHANGED && r.sense[0] == 0x72);
	FAILS(KEY_DATA_PROTECT, ASC_SOFTWARE_WRITE_PROTECTED, co_write(&b, 0, 1, 1));
	FAILS(KEY_DATA_PROTECT, ASC_SOFTWARE_WRITE_PROTECTED, CMD(&b, OP_WRITE_SAME_16, 9, B8(0), B4(8), 0, 0));
	FAILS(KEY_DATA_PROTECT, ASC_SOFTWARE_WRITE_PROTECTED, CMD(&b, OP_UNMAP, 0, 0, 0, 0, 0, 0, B2(0), 0));
	GOOD(co_read(&b, 0, 1));
	GOOD(CMD(&b, OP_MODE_SENSE_6, 0, 0x3f, 0, 255, 0));
	EXPECT(rig.in[2] == 0x90);
	r = co_read(&b, RIG_BLOCKS, 1);
	EXPECT(r.sense[0] == 0x72 && r.asc == ASC_LBA_OUT_OF_RANGE);
	BAD_CDB(CMD_OUT(&a, list, 16, OP_MODE_SELECT_6, 0, 0, 0, 16, 0));
	BAD_LENGTH(CMD_OUT(&a, list, 15, OP_MODE_SELECT_6, 0x10, 0, 0, 15, 0));
	list[7] = 0; /* not to be changed */
	BAD_LIST(CMD_OUT(&a, list, 16, OP_MODE_SELECT_6, 0x10, 0, 0, 16, 0));
	list[7] = 0x10;
	list[6] = list[8] = 0;
	GOOD(CMD_OUT(&a, list, 16, OP_MODE_SELECT_6, 0x10, 0, 0, 16, 0));
	FAILS(KEY_UNIT_ATTENTION, ASC_MODE_PARAMETERS_CHANGED, CMD(&b, 0, 0, 0, 0, 0, 0));
	GOOD(co_write(&b, 0, 1, 1));
	GOOD(CMD(&b, OP_MODE_SELECT_10, 0x10, 0, 0, 0, 0, 0, B2(0), 0));
	co_logout(&a);
	co_logout(&b);
	return 0;
}

/* Without the write cache each write is durable by itself. */
static int write_through(void)
{
	uint8_t list[24] = { 0, 0, 0, 0, 0x08, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20 };
	uint64_t flushes;

	co_login(&a, 1, "a");
	GOOD(co_write(&a, 8, 8, 1));
	GOOD(CMD_OUT(&a, list, 24, OP_MODE_SELECT_6, 0x10, 0, 0, 24, 0));
	GOOD(CMD(&a, OP_MODE_SENSE_6, 8, 0x08, 0, 255, 0));
	EXPECT(!(rig.in[6] & 4));
	flushes = sim_disk_n_ops(rig.ds, 0, IO_FLUSH) + sim_disk_n_ops(rig.ds, 1, IO_FLUSH);
	GOOD(co_write(&a, 0, 8, 1)); /* it needs a record that is durable */
	EXPECT(sim_disk_n_ops(rig.ds, 0, IO_FLUSH) + sim_disk_n_ops(rig.ds, 1, IO_FLUSH) > flushes);
	co_logout(&a);
	return 0;
}

static bool co_has_cache(unsigned pc)
{
	GOOD(CMD(&a, OP_MODE_SENSE_6, 8, pc << 6 | 0x08, 0, 255, 0));
	EXPECT(rig.in[4] == 0x88);
	return rig.in[6] & 4;
}

/* Who does not flush, since there is no cache, must not find one after a restart that he does not notice. */
static int saved_modes(void)
{
	uint8_t list[24] = { 0, 0, 0, 0, 0x08, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20 };

	rig.keeps_notes = true;
	rig_co_close();
	EXPECT(rig_co_open() == 0);
	co_login(&a, 1, "a");
	EXPECT(co_has_cache(0) && co_has_cache(3));
	GOOD(CMD_OUT(&a, list, 24, OP_MODE_SELECT_6, 0x10, 0, 0, 24, 0));
	EXPECT(!co_has_cache(0) && co_has_cache(3));
	co_logout(&a);
	co_login(&a, 1, "a"); /* nobody used it meanwhile */
	EXPECT(co_has_cache(0));
	GOOD(CMD_OUT(&a, list, 24, OP_MODE_SELECT_6, 0x11, 0, 0, 24, 0));
	EXPECT(!co_has_cache(0) && !co_has_cache(3) && co_has_cache(2));
	co_logout(&a);
	rig_co_close();
	EXPECT(rig_co_open() == 0);
	co_login(&a, 1, "a");
	EXPECT(!co_has_cache(0) && !co_has_cache(3));
	list[6] = 4;
	GOOD(CMD_OUT(&a, list, 24, OP_MODE_SELECT_6, 0x11, 0, 0, 24, 0));
	co_logout(&a);
	rig_co_close();
	EXPECT(rig_co_open() == 0);
	co_login(&a, 1, "a");
	EXPECT(co_has_cache(0) && co_has_cache(3));
	co_logout(&a);
	rig.keeps_notes = false;
	return 0;
}

/* ---- reports ---- */

static int reports(void)
{
	const struct scsi_op *op;
	struct result r;
	unsigned n = 0, i;
	uint8_t *all;

	co_login(&a, 1, "a");
	r = CMD(&a, OP_MAINTENANCE_IN, SA_REPORT_TARGET_PORT_GROUPS, 0, 0, 0, 0, B4(255), 0, 0);
	EXPECT(r.in_len == 16 && be_get32(rig.in) == 12 && rig.in[4] == 0x80 && be_get16(rig.in + 6) == 1 && rig.in[11] == 1 &&
	       be_get16(rig.in + 14) == 1);
	r = CMD(&a, OP_MAINTENANCE_IN, 0x20 | SA_REPORT_TARGET_PORT_GROUPS, 0, 0, 0, 0, B4(255), 0, 0);
	EXPECT(r.in_len == 20 && rig.in[4] == 0x10);
	r = CMD(&a, OP_MAINTENANCE_IN, SA_REPORT_SUPPORTED_TMF, 0x80, 0, 0, 0, B4(255), 0, 0);
	EXPECT(r.in_len == 16 && rig.in[0] == 0xd8 && rig.in[3] == 0x0c);
	r = CMD(&a, OP_MAINTENANCE_IN, SA_REPORT_SUPPORTED_OPCODES, 0x80, 0, 0, 0, B4(65535), 0, 0);
	all = xmalloc(r.in_len);
	memcpy(all, rig.in, r.in_len);
	EXPECT(r.in_len == 4 + be_get32(all));
	while (scsi_op_at(n))
		n++;
	EXPECT(be_get32(all) == n * 20);
	for (i = 0; (op = scsi_op_at(i)); i++) {
		const uint8_t *d = all + 4 + 20 * i;

		EXPECT(d[0] == op->opcode && be_get16(d + 2) == op->sa && (d[5] & 1) == op->has_sa && be_get16(d + 8) == 0x0a);
		r = CMD(&a, OP_MAINTENANCE_IN, SA_REPORT_SUPPORTED_OPCODES, op->has_sa ? 2 : 1, d[0], d[2], d[3], B4(255), 0, 0);
		EXPECT(r.status == SCSI_GOOD && rig.in[1] == 3 && be_get16(rig.in + 2) == op->cdb_len && rig.in[4] == op->opcode);
		EXPECT(!op->has_sa || (rig.in[5] & 0x1f) == op->sa);
		BAD_CDB(CMD(&a, OP_MAINTENANCE_IN, SA_REPORT_SUPPORTED_OPCODES, op->has_sa ? 1 : 2, d[0], d[2], d[3], B4(255), 0, 0));
		r = CMD(&a, OP_MAINTENANCE_IN, SA_REPORT_SUPPORTED_OPCODES, 3, d[0], d[2], d[3], B4(255), 0, 0);
		EXPECT(r.status == SCSI_GOOD && rig.in[1] == 3);
	}
	xfree(all);
	r = CMD(&a, OP_MAINTENANCE_IN, SA_REPORT_SUPPORTED_OPCODES, 1, 0xc0, 0, 0, B4(255), 0, 0);
	EXPECT(r.status == SCSI_GOOD && r.in_len == 4 && rig.in[1] == 1);
	GOOD(CMD(&a, OP_LOG_SENSE, 0, 0x40, 0, 0, 0, 0, B2(255), 0));
	GOOD(co_write(&a, 0, 8192, 1));
	r = CMD(&a, OP_LOG_SENSE, 0, 0x4c, 0, 0, 0, 0, B2(255), 0);
	EXPECT(r.in_len == 16 && be_get32(rig.in + 8) == 4);
	co_logout(&a);
	return 0;
}

static struct result answer(bool is_mapped, const uint8_t *cdb, size_t n)
{
	static const uint16_t luns[] = { 0, 7, 300 };
	struct scsi_lun_list l = { luns, 3 };
	struct scsi_cmd c = { .cdb_len = (uint16_t)n };
	struct result r = { .status = 0xff };

	memcpy(c.cdb, cdb, n);
	if (!scsi_answer_without_lu(&c, &l, is_mapped))
		return r;
	r = (struct result){ .status = c.status, .in_len = c.in.iov_len, .key = c.sense[2], .asc = be_get16(c.sense + 12) };
	if (c.in.iov_len)
		memcpy(rig.in, c.in.iov_base, c.in.iov_len);
	scsi_cmd_fini(&c);
	return r;
}

#define ANSWER(mapped, ...) answer(mapped, CDB(__VA_ARGS__))

static int without_lu(void)
{
	uint8_t lun[8];
	unsigned i;

	EXPECT(ANSWER(true, OP_REPORT_LUNS, 0, 0, 0, 0, 0, B4(4096), 0, 0).in_len == 32);
	EXPECT(be_get32(rig.in) == 24 && scsi_lun_decode(rig.in + 8) == 0 && scsi_lun_decode(rig.in + 16) == 7 &&
	       scsi_lun_decode(rig.in + 24) == 300);
	EXPECT(ANSWER(false, OP_REPORT_LUNS, 0, 2, 0, 0, 0, B4(4096), 0, 0).in_len == 32);
	EXPECT(ANSWER(false, OP_REPORT_LUNS, 0, 1, 0, 0, 0, B4(4096), 0, 0).in_len == 8);
	EXPECT(ANSWER(false, OP_REPORT_LUNS, 0, 3, 0, 0, 0, B4(4096), 0, 0).asc == ASC_INVALID_FIELD_IN_CDB);
	EXPECT(ANSWER(false, OP_REPORT_LUNS, 0, 0, 0, 0, 0, B4(10), 0, 0).in_len == 10);
	EXPECT(ANSWER(false, OP_INQUIRY, 0, 0, B2(255), 0).in_len == 36 && rig.in[0] == 0x7f);
	EXPECT(ANSWER(false, OP_INQUIRY, 1, 0x83, B2(255), 0).asc == ASC_LUN_NOT_SUPPORTED);
	EXPECT(ANSWER(false, OP_REQUEST_SENSE, 0, 0, 0, 255, 0).status == SCSI_GOOD);
	EXPECT(rig.in[2] == KEY_ILLEGAL_REQUEST && rig.in[12] == 0x25);
	EXPECT(ANSWER(true, 0, 0, 0, 0, 0, 0).status == 0xff);
	for (i = 0; i < 256; i++) { /* nothing else, whatever it is */
		uint8_t cdb[16] = { (uint8_t)i };
		struct result r = answer(false, cdb, 16);

		EXPECT(i == OP_REPORT_LUNS || i == OP_INQUIRY || i == OP_REQUEST_SENSE || r.asc == ASC_LUN_NOT_SUPPORTED);
	}
	for (i = 0; i < 16384; i += 127) {
		scsi_lun_encode((uint16_t)i, lun);
		EXPECT(scsi_lun_decode(lun) == (int)i);
	}
	EXPECT(scsi_lun_decode((const uint8_t[8]){ 0xc1, 1 }) == -1 && scsi_lun_decode((const uint8_t[8]){ 0, 1, 0, 1 }) == -1);
	EXPECT(scsi_lun_decode((const uint8_t[8]){ 0x80, 1 }) == -1 && scsi_lun_decode((const uint8_t[8]){ 1, 1 }) == -1);
	return 0;
}

/* ---- what makes no sense ---- */

/* Every operation, and service action, with CDBs that are random in each of their bits: an answer, always, and sense that fits. */
static int nonsense(void)
{
	const struct scsi_op *op;
	uint8_t cdb[16], bytes[600];
	struct rng rng;
	struct result r;
	unsigned i, k;
	bool known;

	co_login(&a, 1, "a");
	co_login(&b, 2, "b");
	rng_init(&rng, 99);
	for (i = 0; i < 256; i++) {
		for (k = 0; k < 64; k++) {
			rng_fill(&rng, cdb, sizeof(cdb));
			rng_fill(&rng, bytes, sizeof(bytes));
			cdb[0] = (uint8_t)i;
			if (k < 32)
				cdb[1] = (uint8_t)k;
			if (rng_below(&rng, 2))
				memset(cdb + 2, 0, 6); /* a range that may be there */
			if (rng_below(&rng, 2))
				memset(cdb + 6, 0, 4), cdb[12] &= 3, cdb[10] = cdb[11] = 0;
			if (rng_below(&rng, 2))
				cdb[5] = cdb[9] = cdb[11] = cdb[15] = 0;
			op = scsi_op_find(cdb, &known);
			r = co_cdb(&a, cdb, 16, bytes, rng_below(&rng, sizeof(bytes)));
			EXPECT(r.status == SCSI_GOOD || r.status == SCSI_CHECK_CONDITION || r.status == SCSI_RESERVATION_CONFLICT);
			EXPECT(r.status != SCSI_CHECK_CONDITION || (r.sense_len >= 8 && r.key));
			if (!known || i == OP_REPORT_LUNS)
				EXPECT(r.key == KEY_UNIT_ATTENTION || r.asc == ASC_INVALID_OPCODE);
			else if (!op)
				EXPECT(r.key == KEY_UNIT_ATTENTION || r.asc == ASC_INVALID_FIELD_IN_CDB);
			EXPECT(r.key != KEY_HARDWARE_ERROR && r.key != KEY_MEDIUM_ERROR);
			EXPECT(r.in_len <= SCSI_TRANSFER_MAX);
		}
		/* shorter than it should be */
		memset(cdb, 0, sizeof(cdb));
		cdb[0] = (uint8_t)i;
		op = scsi_op_find(cdb, &known);
		if (op && op->cdb_len > 6 && i != OP_REPORT_LUNS)
			EXPECT(co_cdb(&a, cdb, 6, NULL, 0).status != SCSI_GOOD);
	}
	EXPECT(co_is(&b, 0, 8192, 0)); /* nothing of it has come to the other volume */
	co_logout(&a);
	co_logout(&b);
	return 0;
}

static int data_out(void)
{
	static const struct {
		uint8_t cdb[16];
		uint64_t bytes;
	} t[] = {
		{ { OP_WRITE_6, 0, 0, 0, 0 }, 256 * 512 }, { { OP_WRITE_10, 0, 0, 0, 0, 0, 0, 1, 2 }, 258 * 512 },
		{ { OP_WRITE_12, 0, 0, 0, 0, 0, 0, 0, 0, 3 }, 3 * 512 }, { { OP_WRITE_16, [13] = 4 }, 4 * 512 },
		{ { OP_VERIFY_10, 2, [8] = 4 }, 4 * 512 }, { { OP_VERIFY_10, 0, [8] = 4 }, 0 }, { { OP_VERIFY_16, 6, [13] = 4 }, 512 },
		{ { OP_WRITE_SAME_10, [8] = 9 }, 512 }, { { OP_WRITE_SAME_16, 1, [13] = 9 }, 0 }, { { OP_COMPARE_AND_WRITE, [13] = 3 }, 3072 },
		{ { OP_UNMAP, [8] = 24 }, 24 }, { { OP_MODE_SELECT_6, [4] = 12 }, 12 }, { { OP_PERSISTENT_RESERVE_OUT, [8] = 24 }, 24 },
		{ { OP_THIRD_PARTY_COPY_OUT, [13] = 99 }, 99 }, { { OP_READ_10, [8] = 9 }, 0 }, { { OP_INQUIRY, [4] = 99 }, 0 },
		{ { 0xc0 }, UINT64_MAX }, { { OP_PERSISTENT_RESERVE_OUT, 31 }, UINT64_MAX },
	};
	size_t i;

	for (i = 0; i < ARRAY_LEN(t); i++)
		EXPECT(scsi_cdb_data_out(t[i].cdb, 16, 512) == t[i].bytes);
	EXPECT(scsi_cdb_data_out(t[1].cdb, 6, 512) == UINT64_MAX);
	return 0;
}

/* ---- order, and task management ---- */

static int start_only(void *arg)
{
	send_start(arg);
	return 0;
}

static void co_start_at(struct initiator *i, struct send *s)
{
	s->n = i->n;
	(void)reactor_co_call(scsi_nexus_home(i->n), start_only, s);
}

struct tmf {
	struct scsi_nexus *n;
	enum scsi_tmf what;
	struct scsi_cmd *ref;
};

static int tmf_there(void *arg)
{
	struct tmf *t = arg;

	return scsi_co_tmf(t->n, t->what, t->ref);
}

static int co_tmf(struct initiator *i, enum scsi_tmf what, struct scsi_cmd *ref)
{
	struct tmf t = { i->n, what, ref };

	return reactor_co_call(scsi_nexus_home(i->n), tmf_there, &t);
}

static void hang(bool on)
{
	unsigned i;

	for (i = 0; i < RIG_DISKS; i++)
		sim_disk_faults(rig.ds, i)->hang = on;
}

#define READ_AT(lba, attr_) { .c = { .cdb = { OP_READ_16, 0, B8(lba), B4(8), 0, 0 }, .cdb_len = 16, .attr = attr_ } }

/* A stuck disk: what is aborted ends, whatever the disk does; what comes after it waits for nobody. */
static int stuck(void)
{
	struct send s[4] = { READ_AT(0, SCSI_SIMPLE), READ_AT(8, SCSI_ORDERED), READ_AT(16, SCSI_SIMPLE), READ_AT(24, SCSI_HEAD_OF_QUEUE) };
	uint64_t since;
	unsigned i;

	co_login(&a, 1, "a");
	co_login(&b, 2, "a");
	GOOD(co_write(&a, 0, 64, 0x5a));
	hang(true);
	since = reactor_now_ns();
	for (i = 0; i < 4; i++)
		co_start_at(i == 3 ? &b : &a, &s[i]);
	co_sleep_ns(NS_PER_MS);
	EXPECT(!s[0].done && !s[1].done && !s[2].done && !s[3].done);
	EXPECT(co_tmf(&b, SCSI_TMF_ABORT_TASK, &s[0].c) == -ENOENT); /* not its */
	EXPECT(co_tmf(&a, SCSI_TMF_ABORT_TASK, &s[0].c) == 0);
	EXPECT(s[0].done && s[0].r.aborted && !s[1].done);
	EXPECT(co_tmf(&a, SCSI_TMF_ABORT_TASK, &s[0].c) == -ENOENT);
	EXPECT(co_tmf(&a, SCSI_TMF_ABORT_TASK_SET, NULL) == 0);
	EXPECT(s[1].done && s[1].r.aborted && s[2].done && s[2].r.aborted && !s[3].done);
	EXPECT(co_tmf(&a, SCSI_TMF_LUN_RESET, NULL) == 0);
	EXPECT(s[3].done && s[3].r.aborted);
	EXPECT(reactor_now_ns() - since < NS_PER_SEC);
	ATTENTION(ASC_LUN_RESET, &a);
	ATTENTION(ASC_LUN_RESET, &b);
	hang(false);
	EXPECT(co_is(&a, 0, 64, 0x5a));
	co_logout(&a);
	co_logout(&b);
	return 0;
}

/* A write that is aborted is over when the initiator is told so. */
static int stuck_write(void)
{
	struct send s = { .c = { .cdb = { OP_WRITE_16, 0, B8(0), B4(8), 0, 0 }, .cdb_len = 16, .out_bytes = 4096 } };
	uint8_t *buf = xaligned(4096, 4096);
	unsigned i;

	co_login(&a, 1, "a");
	co_login(&b, 2, "a");
	GOOD(co_write(&a, 0, 8, 1));
	memset(buf, 2, 4096);
	s.iov.iov_base = buf;
	for (i = 0; i < RIG_DISKS; i++) {
		sim_disk_faults(rig.ds, i)->stall = 65536;
		sim_disk_faults(rig.ds, i)->stall_ns = NS_PER_SEC;
	}
	co_start_at(&b, &s);
	EXPECT(co_tmf(&a, SCSI_TMF_CLEAR_TASK_SET, NULL) == 0);
	EXPECT(s.done && s.r.aborted);
	for (i = 0; i < RIG_DISKS; i++)
		sim_disk_faults(rig.ds, i)->stall = 0;
	GOOD(co_write(&a, 0, 8, 3));
	co_sleep_ns(5 * NS_PER_SEC);
	EXPECT(co_is(&a, 0, 8, 3));
	ATTENTION(ASC_COMMANDS_CLEARED, &b);
	co_logout(&a);
	co_logout(&b);
	xfree(buf);
	return 0;
}

/* ORDERED: after all before it, before all after it. */
static int order(void)
{
	uint8_t *buf = xaligned(4096, 3 * 4096);
	struct send s[3];
	unsigned k, i;

	co_login(&a, 1, "a");
	for (k = 0; k < 50; k++) {
		for (i = 0; i < 3; i++) {
			memset(buf + i * 4096, (int)(3 * k + i), 4096);
			s[i] = (struct send){ .c = { .cdb = { OP_WRITE_16, 0, B8(i), B4(8), 0, 0 }, .cdb_len = 16, .out_bytes = 4096,
						     .attr = i == 1 ? SCSI_ORDERED : SCSI_SIMPLE } };
			s[i].iov.iov_base = buf + i * 4096;
			co_start_at(&a, &s[i]);
		}
		while (!s[0].done || !s[1].done || !s[2].done)
			co_sleep_ns(NS_PER_US);
		EXPECT(co_is(&a, 0, 1, (uint8_t)(3 * k)) && co_is(&a, 1, 1, (uint8_t)(3 * k + 1)) && co_is(&a, 2, 8, (uint8_t)(3 * k + 2)));
	}
	s[0] = (struct send)READ_AT(0, SCSI_ACA);
	s[0].n = a.n;
	(void)reactor_co_call(scsi_nexus_home(a.n), send_there, &s[0]);
	EXPECT(s[0].r.status == SCSI_CHECK_CONDITION);
	co_logout(&a);
	xfree(buf);
	return 0;
}

/* ---- the pool ---- */

static int full(void)
{
	struct result r = { 0 };
	uint64_t lba;

	rig_co_volume("wide", 4 * GIB);
	co_login(&a, 1, "wide");
	for (lba = 0; lba < 4 * GIB / 512 && r.status == SCSI_GOOD; lba += 8192)
		r = co_write(&a, lba, 8192, 1);
	EXPECT(r.key == KEY_DATA_PROTECT && r.asc == ASC_SPACE_ALLOCATION_FAILED);
	GOOD(CMD(&a, OP_WRITE_SAME_16, 9, B8(0), B4(8192 * 4), 0, 0));
	GOOD(CMD(&a, OP_SYNCHRONIZE_CACHE_10, 0, B4(0), 0, B2(0), 0));
	co_logout(&a);
	return 0;
}

/* A write that waits for space, for ever if need be: aborting it is no matter of space. In one piece, and in several. */
static int full_and_aborted(void)
{
	struct ashlar_volume_spec spec = { .name = "wide", .size_bytes = 4 * GIB, .full_wait_ns = UINT64_MAX };
	uint32_t blocks[] = { 128, 8192 };
	struct err e = { 0 };
	struct send s;
	uint64_t lba = 0, since;
	unsigned i;

	EXPECT(ashlar_co_volume_create(rig.p, &spec, &e) == 0);
	co_login(&a, 1, "wide");
	do { /* until it is full */
		s = (struct send){ .c = { .cdb = { OP_WRITE_16, 0, B8(lba), B4(128), 0, 0 }, .cdb_len = 16, .out_bytes = 64 * KIB } };
		s.iov.iov_base = rig.out;
		co_start_at(&a, &s);
		for (i = 0; i < 1000 && !s.done; i++)
			co_sleep_ns(NS_PER_MS);
		lba += 128;
	} while (s.done && lba < 4 * GIB / 512);
	EXPECT(!s.done);
	EXPECT(co_tmf(&a, SCSI_TMF_ABORT_TASK, &s.c) == 0);
	EXPECT(s.done && s.r.aborted);
	lba -= 128; /* there it has no room */
	while (CMD(&a, OP_TEST_UNIT_READY, 0, 0, 0, 0, 0).status != SCSI_GOOD)
		; /* who fills a pool may hear of that */
	for (i = 0; i < ARRAY_LEN(blocks); i++) {
		s = (struct send){ .c = { .cdb = { OP_WRITE_16, 0, B8(lba), B4(blocks[i]), 0, 0 }, .cdb_len = 16, .out_bytes = blocks[i] * 512 } };
		s.iov.iov_base = rig.out;
		since = reactor_now_ns();
		co_start_at(&a, &s);
		if (i)
			co_sleep_ns(NS_PER_SEC); /* it waits already; the other may not have come so far */
		EXPECT(co_tmf(&a, SCSI_TMF_LUN_RESET, NULL) == 0);
		EXPECT(s.done && s.r.aborted && reactor_now_ns() - since < 2 * NS_PER_SEC);
		ATTENTION(ASC_LUN_RESET, &a);
	}
	co_logout(&a);
	return 0;
}

static bool running;

static void delete_run(void *arg)
{
	struct err e = { 0 };

	EXPECT(ashlar_co_volume_delete(rig.p, "b", true, false, false, NULL, &e) == 0);
	running = false;
}

static int gone(void)
{
	struct err e = { 0 };
	const char *snap[] = { "a@s" };

	co_login(&a, 1, "b");
	EXPECT(ashlar_co_snapshot_create(rig.p, snap, 1, &e) == 0);
	co_login(&b, 2, "a@s");
	FAILS(KEY_DATA_PROTECT, ASC_WRITE_PROTECTED, co_write(&b, 0, 1, 1));
	GOOD(CMD(&b, OP_MODE_SENSE_6, 0, 0x3f, 0, 255, 0));
	EXPECT(rig.in[2] == 0x90);
	co_logout(&b);
	EXPECT(a.n_gone == 0);
	running = true;
	co_spawn(CO_SERVICE, delete_run, NULL, "delete");
	while (!a.n_gone)
		co_sleep_ns(NS_PER_MS);
	FAILS(KEY_ILLEGAL_REQUEST, ASC_LUN_NOT_SUPPORTED, CMD(&a, 0, 0, 0, 0, 0, 0));
	EXPECT(running);
	co_logout(&a);
	while (running)
		co_sleep_ns(NS_PER_MS);
	return 0;
}

static void every_page_is_well_formed(void) { rig_run(1, 512 * MIB, inquiries); }
static void size_and_what_becomes_of_it(void) { rig_run(2, 512 * MIB, capacities); }
static void what_is_saved_outlives_a_restart(void) { rig_run(5, 512 * MIB, saved_modes); }
static void modes_are_for_all(void) { rig_run(3, 512 * MIB, modes); }
static void write_cache_can_be_turned_off(void) { rig_run(4, 512 * MIB, write_through); }
static void opcodes_are_reported_as_they_are(void) { rig_run(5, 512 * MIB, reports); }
static void a_lun_that_is_not_mapped_says_nothing(void) { rig_run(6, 512 * MIB, without_lu); }
static void nonsense_gets_an_answer(void) { rig_run(7, 512 * MIB, nonsense); }
static void data_out_by_the_cdb(void) { rig_run(8, 512 * MIB, data_out); }
static void aborted_reads_end_though_the_disk_is_stuck(void) { rig_run(9, 512 * MIB, stuck); }
static void aborted_writes_do_not_come_later(void) { rig_run(10, 512 * MIB, stuck_write); }
static void ordered_commands_are(void) { rig_run(11, 512 * MIB, order); }
static void a_full_pool_is_a_space_allocation_failure(void) { rig_run(12, 128 * MIB, full); }
static void what_waits_for_space_can_be_aborted(void) { rig_run(14, 128 * MIB, full_and_aborted); }
static void a_volume_that_goes_says_so(void) { rig_run(13, 512 * MIB, gone); }

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(every_page_is_well_formed),
		TEST(size_and_what_becomes_of_it),
		TEST(modes_are_for_all),
		TEST(what_is_saved_outlives_a_restart),
		TEST(write_cache_can_be_turned_off),
		TEST(opcodes_are_reported_as_they_are),
		TEST(a_lun_that_is_not_mapped_says_nothing),
		TEST(nonsense_gets_an_answer),
		TEST(data_out_by_the_cdb),
		TEST(aborted_reads_end_though_the_disk_is_stuck),
		TEST(aborted_writes_do_not_come_later),
		TEST(ordered_commands_are),
		TEST(a_full_pool_is_a_space_allocation_failure),
		TEST(what_waits_for_space_can_be_aborted),
		TEST(a_volume_that_goes_says_so),
		CU_TEST_INFO_NULL,
	};

	return tests_run("scsi_says", tests);
}
