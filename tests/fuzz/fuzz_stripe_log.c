/*
 * A stripe log from outside, read back. The first byte says how the rest becomes a ring of 128 KiB:
 *
 *   0  as it is;
 *   1  as it is, and then every block that begins with the magic is sealed: pool, epoch and checksums are made right;
 *   2  a list of batches that are put together and sealed (see plan_take()), so that the chain is what is tested.
 *
 * The parser alone gets the bytes too. Reading must end, errors must be sentences, what is given out must be possible and must be
 * there once more at the second reading.
 */
#include <string.h>

#include "engine/base/crc32c.h"
#include "engine/base/units.h"
#include "engine/io/sim.h"
#include "raid/stripe_log_impl.h"
#include "tests/lib/mem_bdev.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RING (128 * KIB)
#define BLOCK ((uint64_t)STRIPE_LOG_BLOCK)
#define EPOCH 7
#define ENTRY_BYTES 8

static uint8_t ring[RING], batch[STRIPE_LOG_BATCH_MAX];
static uint32_t header_crc[256]; /* of planned batches, by number */

/* ---- making rings ---- */

static uint32_t payload_crc(uint64_t pos, uint64_t len)
{
	uint32_t crc = 0;

	for (uint64_t at = BLOCK; at < len; at += BLOCK)
		crc = crc32c(crc, ring + (pos + at) % RING, BLOCK);
	return crc;
}

static void seal(uint64_t pos)
{
	struct stripe_log_head_disk *h = (struct stripe_log_head_disk *)(ring + pos);

	memcpy(h->magic, STRIPE_LOG_MAGIC, sizeof(h->magic));
	h->version = le32_make(STRIPE_LOG_VERSION);
	h->pool = (struct uuid){ { 0 } };
	h->epoch = le64_make(EPOCH);
	h->slice = le32_make(0);
	h->payload_crc = le32_make(payload_crc(pos, MIN((uint64_t)le32_get(h->len_bytes), RING)));
	h->crc = le32_make(stripe_log_head_crc(h));
}

static void seal_all(void)
{
	for (uint64_t pos = 0; pos < RING; pos += BLOCK)
		if (!memcmp(ring + pos, STRIPE_LOG_MAGIC, 8))
			seal(pos);
}

struct plan {
	uint8_t pos, number, oldest, oldest_pos, prev, n_entries, n_cancels, blocks, flags; /* pos, oldest_pos: blocks */
};
enum { PLAN_WRONG_PAYLOAD = 1, PLAN_WRONG_PREV = 2, PLAN_ESCAPE = 4, PLAN_FITS = 8 };

/* Entries of ENTRY_BYTES each: group, stripe, first row and number of rows, columns; bytes beyond the rows, top bits of columns and
 * group. */
static size_t entries_take(const uint8_t *data, size_t size, struct stripe_log_entry_disk *d, unsigned n, uint64_t *payload)
{
	struct stripe_log_entry e;

	for (unsigned i = 0; i < n && size >= ENTRY_BYTES; i++, data += ENTRY_BYTES, size -= ENTRY_BYTES) {
		e = (struct stripe_log_entry){ .group = data[0] | (uint64_t)data[7] << 56, .stripe = data[1],
					       .row_off_bytes = data[2] * 512U, .row_len_bytes = data[3] * 512U + data[5],
					       .cols = data[4] | (uint32_t)data[6] << 24 };
		d[i] = (struct stripe_log_entry_disk){ .group = le64_make(e.group), .stripe = le64_make(e.stripe),
						       .row_off_bytes = le32_make(e.row_off_bytes),
						       .row_len_bytes = le32_make(e.row_len_bytes), .cols = le32_make(e.cols) };
		*payload += stripe_log_entry_bytes(&e);
	}
	return size;
}

/* One batch: struct plan, then its entries. Returns what is left of the input. */
static size_t plan_take(const uint8_t *data, size_t size)
{
	struct stripe_log_head_disk *h = (struct stripe_log_head_disk *)batch;
	uint64_t payload = 0, len, pos;
	struct plan p;

	memcpy(&p, data, sizeof(p));
	memset(batch, p.number, sizeof(batch));
	memset(batch, 0, 2 * BLOCK);
	size = entries_take(data + sizeof(p), size - sizeof(p), (struct stripe_log_entry_disk *)(h + 1), p.n_entries, &payload);
	pos = p.pos % (RING / BLOCK) * BLOCK;
	len = p.blocks * BLOCK;
	if (p.flags & PLAN_FITS)
		len = MIN(stripe_log_batch_bytes(p.n_entries, payload), RING);
	h->batch = le64_make(p.number);
	h->oldest = le64_make(p.oldest);
	h->oldest_pos = le64_make(p.oldest_pos * BLOCK);
	h->prev = le64_make(p.prev);
	h->prev_crc = le32_make(header_crc[p.prev] + (p.flags & PLAN_WRONG_PREV ? 1 : 0));
	h->n_entries = le32_make(p.n_entries);
	h->n_cancels = le32_make(p.n_cancels);
	h->head_bytes = le32_make((uint32_t)stripe_log_head_bytes(p.n_entries));
	h->len_bytes = le32_make((uint32_t)len);
	if (p.flags & PLAN_ESCAPE)
		h->escaped[0] = 2;
	for (uint64_t at = 0; at < MAX(MIN(len, RING), BLOCK); at += BLOCK)
		memcpy(ring + (pos + at) % RING, batch + at, BLOCK);
	seal(pos);
	header_crc[p.number] = le32_get(((struct stripe_log_head_disk *)(ring + pos))->crc);
	if (p.flags & PLAN_WRONG_PAYLOAD)
		ring[(pos + BLOCK + 5) % RING] ^= 1;
	return size;
}

static void ring_make(const uint8_t *data, size_t size)
{
	uint8_t how = data[0];
	size_t left;

	memset(ring, 0, sizeof(ring));
	data++;
	size--;
	if (how < 2) {
		memcpy(ring, data, MIN(size, sizeof(ring)));
		if (how == 1)
			seal_all();
		return;
	}
	memset(header_crc, 0, sizeof(header_crc));
	while (size >= sizeof(struct plan)) {
		left = plan_take(data, size);
		data += size - left;
		size = left;
	}
}

/* ---- reading ---- */

struct sum {
	uint64_t n;
	uint32_t crc;
};

static int each_sum(void *arg, const struct stripe_log_entry *e, const void *payload)
{
	struct sum *s = arg;

	CHECK(stripe_log_entry_is_valid(e) && stripe_log_entry_bytes(e) <= STRIPE_LOG_BATCH_MAX);
	s->crc = crc32c(s->crc, e, offsetof(struct stripe_log_entry, cols) + sizeof(e->cols));
	s->crc = crc32c(s->crc, payload, stripe_log_entry_bytes(e));
	s->n++;
	return 0;
}

static int flush_never(void *ctx)
{
	CHECK(!"a reader flushes nothing");
	return 0;
}

static int co_read_twice(void *arg)
{
	struct mem_bdev_options o = { .size_bytes = RING + BLOCK };
	struct mem_bdev *mem = mem_bdev_create(&o);
	struct stripe_log_conf c = { .dev = mem_bdev_of(mem), .off_bytes = BLOCK, .len_bytes = RING, .epoch = EPOCH,
				     .co_flush = flush_never };
	struct sum first = { 0 }, second = { 0 };
	struct err e = { 0 };
	uint64_t n;
	int r;

	mem_bdev_poke(mem, BLOCK, ring, RING);
	r = stripe_log_co_read(&c, each_sum, &first, &n, &e);
	CHECK(r <= 0 && n == first.n && (r < 0) == (e.text[0] != 0));
	CHECK(r == stripe_log_co_read(&c, each_sum, &second, &n, NULL));
	CHECK(first.n == second.n && first.crc == second.crc);
	mem_bdev_destroy(mem);
	return 0;
}

static void parse(const uint8_t *data, size_t size)
{
	static const struct uuid pool;
	struct stripe_log_head h;

	if (stripe_log_head_check(data, size, &pool, &h) < 0)
		return;
	memset(batch, 0, sizeof(batch));
	memcpy(batch, data, MIN(size, sizeof(batch)));
	CHECK(h.len_bytes <= sizeof(batch) && h.head_bytes <= h.len_bytes);
	(void)!stripe_log_batch_check(batch, &h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sim_options o = { .seed = 1, .n_reactors = 1 };
	struct sim_disks *ds;
	struct world *w;

	parse(data, size);
	if (!size)
		return 0;
	ring_make(data, size);
	for (uint64_t pos = 0; pos < RING; pos += BLOCK)
		parse(ring + pos, RING - pos);
	ds = sim_disks_create(1);
	w = sim_world_create(&o, ds);
	CHECK(sim_run(w, co_read_twice, NULL, NULL, 0) == 0);
	sim_world_destroy(w);
	sim_disks_destroy(ds);
	return 0;
}
