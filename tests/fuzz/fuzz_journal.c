/*
 * Journal blocks from outside: the parser on the bytes as they are and with the checksum made right; then the bytes as
 * records of a block that the pool expects, so that replay applies them. Input of the latter: per record a byte of type, two
 * of length, the payload.
 */
#include <string.h>

#include "engine/base/crc32c.h"
#include "engine/meta/replay.h"
#include "tests/fuzz/pool_fuzz.h"

static uint8_t buf[JOURNAL_BLOCK_MAX];

static void seal(uint32_t used)
{
	struct journal_block_disk *h = (struct journal_block_disk *)buf;

	h->magic = le32_make(JOURNAL_MAGIC);
	h->used_bytes = le32_make(used);
	h->crc = le32_make(0);
	h->crc = le32_make(crc32c(0, buf, used));
}

static void parse(const uint8_t *data, size_t size)
{
	struct meta_block_expect x = { .epoch = 1 };
	struct journal_block_disk *h = (struct journal_block_disk *)buf;
	uint32_t used;

	memset(buf, 0, sizeof(buf));
	memcpy(buf, data, MIN(size, sizeof(buf)));
	(void)!meta_journal_block_check(buf, MIN(size, sizeof(buf)), &x);
	used = MAX(sizeof(*h), MIN(size, sizeof(buf)));
	h->pool = x.pool;
	h->epoch = le64_make(x.epoch);
	seal(used);
	if (meta_journal_block_check(buf, used, &x) == 0)
		CHECK(meta_journal_block_check(buf, used - 1, &x) < 0);
}

static uint32_t records(const uint8_t *data, size_t size, size_t *at)
{
	uint32_t n = 0;

	while (size >= 3 && *at + 8 + JOURNAL_RECORD_MAX <= sizeof(buf)) {
		size_t len = (data[1] | data[2] << 8) % (JOURNAL_RECORD_MAX + 1), have = MIN(len, size - 3);
		struct journal_record_disk *rec = (struct journal_record_disk *)(buf + *at);

		rec->type = le16_make(data[0]);
		rec->len = le16_make((uint16_t)len);
		memcpy(rec + 1, data + 3, have);
		*at += sizeof(*rec) + ALIGN_UP(len, (size_t)8);
		data += 3 + have;
		size -= 3 + have;
		n++;
	}
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct pool_fuzz_base *b = pool_fuzz_base(true);
	struct journal_block_disk *h = (struct journal_block_disk *)buf;
	size_t at = sizeof(*h);
	struct sim_disks *ds;

	parse(data, size);
	memset(buf, 0, sizeof(buf));
	h->n_records = le32_make(records(data, size, &at));
	h->pool = b->label.pool;
	h->epoch = le64_make(b->label.epoch);
	h->block = b->root.journal_block;
	h->prev_crc = b->root.journal_prev_crc;
	h->first_seq = le64_make(le64_get(b->root.record_seq) + 1);
	seal((uint32_t)at);
	ds = sim_disks_clone(b->ds);
	CHECK(pool_fuzz_poke(b, ds, b->label.journal_off + le64_get(b->root.journal_pos), buf, ALIGN_UP(at, (size_t)512)));
	pool_fuzz_use(ds, size + 1);
	sim_disks_destroy(ds);
	return 0;
}
