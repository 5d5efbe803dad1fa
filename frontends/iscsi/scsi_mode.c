/*
 * scsi_mode.c: MODE SENSE and MODE SELECT. Four pages: caching, control, informational exceptions, logical block provisioning. What can
 * be changed: the write cache (off: each write is durable when it ends), the format of sense data, software write protection, thresholds
 * of free space. The write cache can be saved (SP): an initiator that does not flush, since there is none, must not find one after a restart.
 */
#include "frontends/iscsi/scsi_internal.h"

#define PAGE_CACHING 0x08
#define PAGE_CONTROL 0x0a
#define PAGE_EXCEPTIONS 0x1c
#define SUBPAGE_PROVISIONING 0x02
#define PAGE_ALL 0x3f
#define SUBPAGE_ALL 0xff
#define PAGE_BYTES_MAX 64
#define MODE_MAX 256
#define SAVED_BYTES 4 /* version, flags, two of zeros */
#define SAVED_VERSION 1
#define SAVED_WRITE_THROUGH 1

enum { PC_CURRENT, PC_CHANGEABLE, PC_DEFAULT, PC_SAVED };

static const struct scsi_mode defaults;

struct page {
	uint8_t code, sub;
};
static const struct page pages[] = {
	{PAGE_CACHING, 0}, {PAGE_CONTROL, 0}, {PAGE_EXCEPTIONS, 0}, {PAGE_EXCEPTIONS, SUBPAGE_PROVISIONING},
};

/* A whole page with its header, in zeros; returns its length. */
static size_t page_put(const struct scsi_lu *lu, const struct page *page, unsigned pc, uint8_t *p)
{
	const struct scsi_mode *m = &lu->mode;
	bool changeable = pc == PC_CHANGEABLE;

	if (pc == PC_DEFAULT)
		m = &defaults;
	else if (pc == PC_SAVED)
		m = &lu->saved;
	p[0] = page->code;
	if (page->sub) {
		p[0] |= 0x40; /* SPF */
		p[1] = page->sub;
		return scsi_threshold_page_put(lu, m, changeable, p);
	}
	switch (page->code) {
	case PAGE_CACHING:
		p[0] |= 0x80; /* PS */
		p[1] = 0x12;
		p[2] = changeable || !m->write_through ? 4 : 0; /* WCE */
		if (!changeable)
			p[12] = 0x20; /* DRA: nothing is read ahead */
		return 0x14;
	case PAGE_CONTROL:
		p[1] = 0x0a;
		p[2] = changeable || m->d_sense ? 4 : 0;
		p[3] = changeable ? 0 : 0x10; /* unrestricted reordering */
		p[4] = changeable || m->swp ? 8 : 0;
		return 0x0c;
	default:
		p[1] = 0x0a;
		return 0x0c;
	}
}

static size_t pages_put(const struct scsi_lu *lu, struct page asked, unsigned pc, uint8_t *p)
{
	size_t at = 0, i;

	for (i = 0; i < ARRAY_LEN(pages); i++)
		if ((asked.code == PAGE_ALL || asked.code == pages[i].code) && (asked.sub == SUBPAGE_ALL || asked.sub == pages[i].sub))
			at += page_put(lu, &pages[i], pc, p + at);
	return at;
}

static bool code_is_known(unsigned code)
{
	size_t i;

	for (i = 0; i < ARRAY_LEN(pages); i++)
		if (code == PAGE_ALL || code == pages[i].code)
			return true;
	return false;
}

static size_t block_descriptor_put(const struct scsi_lu *lu, bool is_long, uint8_t *p)
{
	uint64_t blocks = lu->bdev->size_bytes >> lu->lba_shift;

	if (is_long) {
		be_put64(p, blocks);
		be_put32(p + 12, lu->lba_bytes);
		return 16;
	}
	be_put32(p, (uint32_t)MIN(blocks, UINT32_MAX));
	be_put24(p + 5, lu->lba_bytes);
	return 8;
}

void scsi_run_mode_sense(struct scsi_task *t)
{
	const uint8_t *cdb = scsi_task_cdb(t);
	bool ten = cdb[0] == OP_MODE_SENSE_10, is_long = ten && cdb[1] & 0x10;
	size_t allocation = ten ? be_get16(cdb + 7) : cdb[4], header = ten ? 8 : 4, n = header, blocks = 0, len;
	struct page asked = {cdb[2] & 0x3f, cdb[3]};
	unsigned pc = cdb[2] >> 6;
	struct scsi_lu *lu = t->lu;
	uint8_t specific = (uint8_t)(scsi_write_protection(lu, t->nexus) ? 0x90 : 0x10); /* DPO and FUA are known */
	uint8_t *p;

	if (pc == PC_SAVED && asked.code != PAGE_CACHING && asked.code != PAGE_ALL) {
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_SAVING_NOT_SUPPORTED);
		scsi_task_end_later(t);
		return;
	}
	p = scsi_task_in(t, MODE_MAX);
	if (!(cdb[1] & 8))
		blocks = block_descriptor_put(lu, is_long, p + n);
	n += blocks;
	len = pages_put(lu, asked, pc, p + n);
	if (!len) {
		scsi_bad_cdb(t, code_is_known(asked.code) ? 3 : 2, code_is_known(asked.code) ? 8 : 5);
		scsi_task_end_later(t);
		return;
	}
	n += len;
	if (ten) {
		be_put16(p, (uint16_t)(n - 2));
		p[3] = specific;
		p[4] = is_long;
		be_put16(p + 6, (uint16_t)blocks);
	} else {
		p[0] = (uint8_t)(n - 1);
		p[2] = specific;
		p[3] = (uint8_t)blocks;
	}
	scsi_task_reply(t, n, allocation);
}

/* ---- select ---- */

/* Does the page ask for what can be? at: where it is in the list, for the sense. */
static bool page_check(struct scsi_task *t, const uint8_t *p, size_t len, size_t at)
{
	uint8_t now[PAGE_BYTES_MAX] = {0}, mask[PAGE_BYTES_MAX] = {0}, sub = p[0] & 0x40 ? p[1] : 0, header = p[0] & 0x40 ? 4 : 2;
	size_t i, n;

	for (i = 0; i < ARRAY_LEN(pages) && (pages[i].code != (p[0] & 0x3f) || pages[i].sub != sub); i++)
		;
	if (i == ARRAY_LEN(pages)) {
		scsi_bad_list(t, (unsigned)at, 5);
		return false;
	}
	n = page_put(t->lu, &pages[i], PC_CURRENT, now);
	page_put(t->lu, &pages[i], PC_CHANGEABLE, mask);
	if (len < n) {
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
		return false;
	}
	if (memcmp(p + 1, now + 1, header - 1u)) {
		scsi_bad_list(t, (unsigned)at + 1, 8);
		return false;
	}
	for (i = header; i < n; i++) {
		if ((p[i] ^ now[i]) & (uint8_t)~mask[i]) {
			scsi_bad_list(t, (unsigned)(at + i), 8);
			return false;
		}
	}
	return true;
}

static void page_take(const struct scsi_lu *lu, struct scsi_mode *m, const uint8_t *p)
{
	if (p[0] & 0x40) {
		scsi_threshold_page_take(lu, m, p);
		return;
	}
	switch (p[0] & 0x3f) {
	case PAGE_CACHING:
		m->write_through = !(p[2] & 4);
		break;
	case PAGE_CONTROL:
		m->d_sense = p[2] & 4;
		m->swp = p[4] & 8;
		break;
	default:
		break;
	}
}

/* False after it has set the failure. at: behind the header. */
static bool descriptors_check(struct scsi_task *t, const uint8_t *p, size_t n, size_t len, bool is_long, size_t at)
{
	uint32_t block;

	if (len > n) {
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
		return false;
	}
	if (!len)
		return true;
	block = is_long ? be_get32(p + 12) : be_get24(p + 5);
	if (len != (is_long ? 16 : 8) || block != t->lu->lba_bytes) {
		scsi_bad_list(t, (unsigned)at + (is_long ? 12 : 5), 8);
		return false;
	}
	return true;
}

/* 0: there is not even its header. */
static size_t page_bytes(const uint8_t *p, size_t n)
{
	if (n < 2 || (p[0] & 0x40 && n < 4))
		return 0;
	return p[0] & 0x40 ? 4u + be_get16(p + 2) : 2u + p[1];
}

static bool select_parse(struct scsi_task *t, const uint8_t *p, size_t n, bool ten, struct scsi_mode *to)
{
	size_t at = ten ? 8 : 4, blocks, page;

	if (n < at) {
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
		return false;
	}
	blocks = ten ? be_get16(p + 6) : p[3];
	if (!descriptors_check(t, p + at, n - at, blocks, ten && p[4] & 1, at))
		return false;
	for (at += blocks; at < n; at += page) {
		page = page_bytes(p + at, n - at);
		if (!page || page > n - at) {
			scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
			return false;
		}
		if (!page_check(t, p + at, page, at))
			return false;
		page_take(t->lu, to, p + at);
	}
	return true;
}

/* Coroutine. False after it has set the failure. */
static bool mode_co_save(struct scsi_task *t, const struct scsi_mode *m)
{
	const uint8_t bytes[SAVED_BYTES] = {SAVED_VERSION, m->write_through ? SAVED_WRITE_THROUGH : 0};
	struct scsi_lu *lu = t->lu;
	const struct scsi_store *s = lu->target->store;
	int r;

	if (m->write_through == lu->saved.write_through)
		return true;
	r = s ? s->co_save(s->arg, &lu->uuid, SCSI_KEPT_MODE, bytes, m->write_through ? sizeof(bytes) : 0) : -EOPNOTSUPP;
	if (r < 0) {
		scsi_fail(t, KEY_HARDWARE_ERROR, ASC_INTERNAL_FAILURE);
		return false;
	}
	lu->saved.write_through = m->write_through;
	return true;
}

int scsi_mode_co_load(struct scsi_lu *lu)
{
	const struct scsi_store *s = lu->target->store;
	uint8_t bytes[64];
	size_t n = sizeof(bytes);
	int r = s ? s->co_load(s->arg, &lu->uuid, SCSI_KEPT_MODE, bytes, &n) : -ENOENT;

	if (r == -ENOENT || (r == 0 && !n))
		return 0;
	if (r == 0 && (n < SAVED_BYTES || bytes[0] != SAVED_VERSION))
		r = -ERR_FORMAT;
	if (r == 0) {
		lu->saved.write_through = bytes[1] & SAVED_WRITE_THROUGH;
		lu->mode = lu->saved;
	}
	return r;
}

/* Coroutine. */
void scsi_run_mode_select(struct scsi_task *t)
{
	const uint8_t *cdb = scsi_task_cdb(t);
	bool ten = cdb[0] == OP_MODE_SELECT_10;
	size_t len = ten ? be_get16(cdb + 7) : cdb[4];
	struct scsi_mode to = t->lu->mode;
	uint8_t list[MODE_MAX];

	t->c->want_bytes = len;
	if (t->nexus->conf.read_only) { /* the pages are all sessions' */
		scsi_fail(t, KEY_DATA_PROTECT, ASC_WRITE_PROTECTED);
	} else if (!(cdb[1] & 0x10)) {
		scsi_bad_cdb(t, 1, 4); /* PF */
	} else if (len > sizeof(list)) {
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
	} else if (len && scsi_task_out(t, 0, list, len) < len) {
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
	} else if (len && select_parse(t, list, len, ten, &to) && (!(cdb[1] & 1) || mode_co_save(t, &to))) {
		to = t->lu->mode; /* another command may have changed it while that was saved */
		(void)!select_parse(t, list, len, ten, &to);
		if (memcmp(&to, &t->lu->mode, sizeof(to)))
			scsi_lu_attention(t->lu, t->nexus, ASC_MODE_PARAMETERS_CHANGED);
		t->lu->mode = to;
		if (t->lu->total_bytes)
			scsi_lu_space(t->lu, t->lu->free_bytes, t->lu->total_bytes);
	}
	scsi_task_end_later(t);
}
