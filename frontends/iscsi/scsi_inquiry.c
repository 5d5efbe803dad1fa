/* scsi_inquiry.c: INQUIRY: what an LU is, and its limits. */
#include <stdio.h>

#include "frontends/iscsi/scsi_internal.h"

#define VENDOR "ASHLAR  "
#define PRODUCT "Thin Volume     "
#define REVISION "0001"

static const uint16_t versions[] = {
	0x00a0, /* SAM-5 */
	0x0960, /* iSCSI */
	0x0460, /* SPC-4 */
	0x04c0, /* SBC-3 */
};

static void standard(struct scsi_task *t, size_t allocation)
{
	uint8_t *p = scsi_task_in(t, 96);
	size_t i;

	p[2] = 6; /* SPC-4 */
	p[3] = 0x12; /* HiSup, response data format 2 */
	p[4] = 96 - 5;
	p[5] = 0x18; /* one implicit ALUA group, third-party copy */
	p[7] = 2; /* CmdQue */
	memcpy(p + 8, VENDOR, 8);
	memcpy(p + 16, PRODUCT, 16);
	memcpy(p + 32, REVISION, 4);
	for (i = 0; i < ARRAY_LEN(versions); i++)
		be_put16(p + 58 + 2 * i, versions[i]);
	scsi_task_reply(t, 96, allocation);
}

/* Fills a page behind its header; returns its length without that. Room: PAGE_MAX. */
#define PAGE_MAX 1024

static size_t vpd_serial(const struct scsi_lu *lu, const struct scsi_nexus *n, uint8_t *p)
{
	char text[UUID_TEXT_LEN];

	uuid_format(&lu->uuid, text);
	memcpy(p, text, UUID_TEXT_LEN - 1);
	return UUID_TEXT_LEN - 1;
}

/* One designator; data of len bytes is at p + 4 already. */
static size_t designator(uint8_t *p, uint8_t set, uint8_t association, uint8_t type, size_t len)
{
	p[0] = (uint8_t)((association ? 0x50 : 0) | set); /* of ports: iSCSI */
	p[1] = (uint8_t)((association ? 0x80 : 0) | association << 4 | type);
	p[3] = (uint8_t)len;
	return 4 + len;
}

/* A SCSI name string: UTF-8, NUL, padded to four. */
static size_t name_string(uint8_t *p, uint8_t association, const char *name, size_t name_len)
{
	size_t len = MIN(ALIGN_UP(name_len + 1, 4), 252);

	memset(p + 4, 0, len);
	memcpy(p + 4, name, MIN(name_len, len - 1));
	return designator(p, 3, association, 8, len);
}

static size_t vpd_identification(const struct scsi_lu *lu, const struct scsi_nexus *n, uint8_t *p)
{
	const char *tpg = strstr(n->conf.target, ",t,");
	size_t at = 0, len;

	memcpy(p + at + 4, lu->naa, 8);
	at += designator(p + at, 1, 0, 3, 8);
	memcpy(p + at + 4, VENDOR, 8);
	len = vpd_serial(lu, n, p + at + 12);
	at += designator(p + at, 2, 0, 1, 8 + len);
	be_put32(p + at + 4, n->conf.port);
	at += designator(p + at, 1, 1, 4, 4);
	be_put32(p + at + 4, n->conf.tpg);
	at += designator(p + at, 1, 1, 5, 4);
	at += name_string(p + at, 1, n->conf.target, strlen(n->conf.target));
	at += name_string(p + at, 2, n->conf.target, tpg ? (size_t)(tpg - n->conf.target) : strlen(n->conf.target));
	return at;
}

static size_t vpd_block_limits(const struct scsi_lu *lu, const struct scsi_nexus *n, uint8_t *p)
{
	uint64_t opt = MAX(lu->bdev->opt_bytes, lu->lba_bytes);

	/* offsets as in the page with its header of 4 */
	p -= 4;
	p[4] = 1; /* WSNZ: a WRITE SAME of "all" is refused */
	p[5] = (uint8_t)MIN(SCSI_CAW_BLOCKS_MAX, SCSI_CAW_BYTES_MAX >> lu->lba_shift);
	be_put16(p + 6, (uint16_t)MAX(1, 4096 >> lu->lba_shift)); /* optimal granularity: a subcluster at least */
	be_put32(p + 8, SCSI_TRANSFER_MAX >> lu->lba_shift);
	be_put32(p + 12, (uint32_t)(opt >> lu->lba_shift));
	be_put32(p + 20, SCSI_UNMAP_BLOCKS_MAX);
	be_put32(p + 24, SCSI_UNMAP_DESCRIPTORS_MAX);
	be_put32(p + 28, (uint32_t)(opt >> lu->lba_shift)); /* unmap granularity */
	be_put32(p + 32, 0x80000000); /* aligned at 0 */
	be_put64(p + 36, SCSI_SAME_BLOCKS_MAX);
	return 0x3c;
}

static size_t vpd_characteristics(const struct scsi_lu *lu, const struct scsi_nexus *n, uint8_t *p)
{
	be_put16(p, 1); /* does not rotate */
	return 0x3c;
}

static size_t vpd_provisioning(const struct scsi_lu *lu, const struct scsi_nexus *n, uint8_t *p)
{
	p[0] = (uint8_t)scsi_threshold_exponent(lu);
	p[1] = 0xe4; /* LBPU, LBPWS, LBPWS10, LBPRZ: zeros */
	p[2] = 2; /* thin */
	return 4;
}

static size_t copy_sas(uint8_t *p, uint8_t opcode, const uint8_t *sas, uint8_t n)
{
	p[0] = opcode;
	p[1] = n;
	memcpy(p + 2, sas, n);
	return 2u + n;
}

/* Third-party copy: what there is of it. */
static size_t vpd_third_party_copy(const struct scsi_lu *lu, const struct scsi_nexus *n, uint8_t *p)
{
	static const uint8_t out[] = {SA_EXTENDED_COPY_LID1, SA_POPULATE_TOKEN, SA_WRITE_USING_TOKEN};
	static const uint8_t in[] = {SA_COPY_STATUS_LID1, SA_COPY_PARAMETERS, SA_COPY_FAILED_DETAILS, SA_RECEIVE_ROD_TOKEN};
	uint8_t *start = p, *list;

	/* block device ROD token limits: ranges, seconds, bytes */
	be_put16(p, 0x0000);
	be_put16(p + 2, 0x20);
	be_put16(p + 10, SCSI_TOKEN_RANGES_MAX);
	be_put32(p + 12, SCSI_TOKEN_SECONDS_MAX);
	be_put32(p + 16, SCSI_TOKEN_SECONDS);
	be_put64(p + 20, SCSI_TOKEN_BYTES_MAX >> lu->lba_shift);
	be_put64(p + 28, SCSI_TOKEN_BYTES_MAX >> lu->lba_shift);
	p += 4 + 0x20;
	/* supported commands */
	be_put16(p, 0x0001);
	list = p + 5;
	list += copy_sas(list, OP_THIRD_PARTY_COPY_OUT, out, sizeof(out));
	list += copy_sas(list, OP_THIRD_PARTY_COPY_IN, in, sizeof(in));
	p[4] = (uint8_t)(list - p - 5);
	list = p + ALIGN_UP((size_t)(list - p), 4);
	be_put16(p + 2, (uint16_t)(list - p - 4));
	p = list;
	/* parameter data */
	be_put16(p, 0x0004);
	be_put16(p + 2, 0x1c);
	be_put16(p + 8, SCSI_COPY_TARGETS_MAX);
	be_put16(p + 10, SCSI_COPY_SEGMENTS_MAX);
	be_put32(p + 12, SCSI_COPY_LIST_MAX);
	p += 4 + 0x1c;
	/* supported descriptors */
	be_put16(p, 0x0008);
	p[4] = 3;
	p[5] = 0x02;
	p[6] = 0x0a;
	p[7] = 0xe4;
	be_put16(p + 2, 4);
	p += 8;
	/* general copy operations */
	be_put16(p, 0x8001);
	be_put16(p + 2, 0x20);
	be_put32(p + 4, SCSI_COPY_LISTS_MAX);
	be_put32(p + 8, SCSI_COPY_LISTS_MAX);
	p[16] = 16; /* data segment granularity: 64 KiB */
	p += 4 + 0x20;
	return (size_t)(p - start);
}

static size_t vpd_supported(const struct scsi_lu *lu, const struct scsi_nexus *n, uint8_t *p);

static const struct {
	uint8_t code;
	size_t (*fill)(const struct scsi_lu *lu, const struct scsi_nexus *n, uint8_t *p);
} pages[] = {
	{0x00, vpd_supported},	 {0x80, vpd_serial},	      {0x83, vpd_identification}, {0x8f, vpd_third_party_copy},
	{0xb0, vpd_block_limits}, {0xb1, vpd_characteristics}, {0xb2, vpd_provisioning},
};

static size_t vpd_supported(const struct scsi_lu *lu, const struct scsi_nexus *n, uint8_t *p)
{
	size_t i;

	for (i = 0; i < ARRAY_LEN(pages); i++)
		p[i] = pages[i].code;
	return i;
}

void scsi_run_inquiry(struct scsi_task *t)
{
	const uint8_t *cdb = scsi_task_cdb(t);
	size_t allocation = be_get16(cdb + 3), i, n;
	uint8_t *p;

	if (cdb[1] & 2) { /* CMDDT, long obsolete */
		scsi_bad_cdb(t, 1, 1);
	} else if (!(cdb[1] & 1)) {
		if (!cdb[2]) {
			standard(t, allocation);
			return;
		}
		scsi_bad_cdb(t, 2, 8);
	} else {
		for (i = 0; i < ARRAY_LEN(pages); i++) {
			if (pages[i].code != cdb[2])
				continue;
			p = scsi_task_in(t, PAGE_MAX);
			n = pages[i].fill(t->lu, t->nexus, p + 4);
			p[1] = cdb[2];
			be_put16(p + 2, (uint16_t)n);
			scsi_task_reply(t, 4 + n, allocation);
			return;
		}
		scsi_bad_cdb(t, 2, 8);
	}
	scsi_task_end_later(t);
}
