/*
 * Batches as they are on disk, judged: pure functions, and a fuzz target. What they are given may be anything.
 */
#include <string.h>

#include "engine/base/crc32c.h"
#include "raid/stripe_log_impl.h"

#define SECT 512U
#define ENTRY_AT(batch, i) \
	((const uint8_t *)(batch) + sizeof(struct stripe_log_head_disk) + (size_t)(i) * sizeof(struct stripe_log_entry_disk))

uint32_t stripe_log_head_crc(const void *block)
{
	const uint8_t zero[4] = { 0 }, *b = block;
	const size_t at = offsetof(struct stripe_log_head_disk, crc);
	uint32_t crc = crc32c(0, b, at);

	crc = crc32c(crc, zero, sizeof(zero));
	return crc32c(crc, b + at + sizeof(zero), STRIPE_LOG_BLOCK - at - sizeof(zero));
}

static bool is_escaped(const struct stripe_log_head_disk *h, uint64_t block)
{
	return h->escaped[block / 8] & (1u << block % 8);
}

/* Only blocks of payload are. */
static bool escapes_are_valid(const struct stripe_log_head_disk *h, const struct stripe_log_head *o)
{
	for (uint64_t i = 0; i < 8 * sizeof(h->escaped); i++)
		if (is_escaped(h, i) && (i < o->head_bytes / STRIPE_LOG_BLOCK || i >= o->len_bytes / STRIPE_LOG_BLOCK))
			return false;
	return true;
}

static bool numbers_are_valid(const struct stripe_log_head *o)
{
	if (!o->batch || !o->oldest || o->oldest > o->batch || o->prev >= o->batch)
		return false;
	if (o->oldest < o->batch && o->prev < o->oldest) /* the chain leads there */
		return false;
	return (o->prev || !o->prev_crc) && IS_ALIGNED(o->oldest_pos, (uint64_t)STRIPE_LOG_BLOCK);
}

static bool sizes_are_valid(const struct stripe_log_head *o)
{
	if (o->n_entries > STRIPE_LOG_BATCH_ENTRIES || o->n_cancels > o->n_entries)
		return false;
	if (o->head_bytes != stripe_log_head_bytes(o->n_entries))
		return false;
	return IS_ALIGNED(o->len_bytes, (uint64_t)STRIPE_LOG_BLOCK) && o->len_bytes >= o->head_bytes &&
	       o->len_bytes <= STRIPE_LOG_BATCH_MAX;
}

int stripe_log_head_check(const void *block, size_t len, const struct uuid *pool, struct stripe_log_head *out)
{
	const struct stripe_log_head_disk *h = block;
	struct stripe_log_head o;

	if (len < STRIPE_LOG_BLOCK || memcmp(h->magic, STRIPE_LOG_MAGIC, sizeof(h->magic)))
		return -ERR_FORMAT;
	if (stripe_log_head_crc(block) != le32_get(h->crc))
		return -ERR_CSUM;
	if (le32_get(h->version) != STRIPE_LOG_VERSION || !uuid_is_equal(&h->pool, pool))
		return -ERR_FORMAT;
	o = (struct stripe_log_head){
		.epoch = le64_get(h->epoch), .batch = le64_get(h->batch), .oldest = le64_get(h->oldest),
		.oldest_pos = le64_get(h->oldest_pos), .prev = le64_get(h->prev), .prev_crc = le32_get(h->prev_crc),
		.crc = le32_get(h->crc), .slice = le32_get(h->slice), .n_entries = le32_get(h->n_entries),
		.n_cancels = le32_get(h->n_cancels), .head_bytes = le32_get(h->head_bytes),
		.len_bytes = le32_get(h->len_bytes), .payload_crc = le32_get(h->payload_crc),
	};
	if (!numbers_are_valid(&o) || !sizes_are_valid(&o) || !escapes_are_valid(h, &o))
		return -ERR_FORMAT;
	*out = o;
	return 0;
}

bool stripe_log_entry_is_valid(const struct stripe_log_entry *e)
{
	return e->group < STRIPE_LOG_GROUP_LIMIT && e->cols && e->row_len_bytes && e->row_len_bytes <= STRIPE_LOG_ROWS_MAX &&
	       e->row_off_bytes <= STRIPE_LOG_ROWS_MAX - e->row_len_bytes && IS_ALIGNED(e->row_off_bytes | e->row_len_bytes, SECT);
}

void stripe_log_entry_get(const void *batch, uint32_t i, struct stripe_log_entry *e)
{
	struct stripe_log_entry_disk d;

	memcpy(&d, ENTRY_AT(batch, i), sizeof(d));
	*e = (struct stripe_log_entry){
		.group = le64_get(d.group), .stripe = le64_get(d.stripe), .row_off_bytes = le32_get(d.row_off_bytes),
		.row_len_bytes = le32_get(d.row_len_bytes), .cols = le32_get(d.cols),
	};
}

/* Every entry can be one, and their payload is what the batch has room for. */
static bool entries_are_valid(const void *batch, const struct stripe_log_head *h)
{
	uint64_t payload = 0;
	uint32_t cancels = 0;
	struct stripe_log_entry e;

	for (uint32_t i = 0; i < h->n_entries; i++) {
		stripe_log_entry_get(batch, i, &e);
		if (!e.cols) {
			if (e.group >= STRIPE_LOG_GROUP_LIMIT || e.row_off_bytes || e.row_len_bytes)
				return false;
			cancels++;
			continue;
		}
		if (!stripe_log_entry_is_valid(&e))
			return false;
		payload += stripe_log_entry_bytes(&e);
	}
	return cancels == h->n_cancels && h->len_bytes == stripe_log_batch_bytes(h->n_entries, payload);
}

int stripe_log_batch_check(void *batch, const struct stripe_log_head *h)
{
	const struct stripe_log_head_disk *d = batch;
	uint8_t *b = batch;

	if (crc32c(0, b + STRIPE_LOG_BLOCK, h->len_bytes - STRIPE_LOG_BLOCK) != h->payload_crc)
		return -ERR_CSUM;
	if (!entries_are_valid(batch, h))
		return -ERR_FORMAT;
	for (uint64_t i = 1; i < h->len_bytes / STRIPE_LOG_BLOCK; i++)
		if (is_escaped(d, i))
			memcpy(b + i * STRIPE_LOG_BLOCK, STRIPE_LOG_MAGIC, sizeof(d->magic));
	return 0;
}
