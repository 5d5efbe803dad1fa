/*
 * stream.c: the send stream's encoding and decoding.
 */
#include "engine/pool/stream.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/crc32c.h"

#define SIZE_MAX_BYTES (1ULL << 60)
#define GRAIN_MAX (1u << 20)

/* ---- header ---- */

static uint32_t header_crc(const struct stream_header_disk *d)
{
	struct stream_header_disk x = *d;

	x.crc = le32_make(0);
	return crc32c(0, &x, sizeof(x));
}

static void state_begin(struct stream_state *s, const struct stream_header *h, uint32_t crc)
{
	*s = (struct stream_state){ .size_bytes = h->size_bytes, .pos_bytes = h->start_bytes, .grain_bytes = h->grain_bytes,
				    .crc = crc };
}

void stream_header_encode(const struct stream_header *h, struct stream_header_disk *d, struct stream_state *s)
{
	memset(d, 0, sizeof(*d));
	memcpy(d->magic, STREAM_MAGIC, sizeof(d->magic));
	d->version = le32_make(STREAM_VERSION);
	d->guid = h->guid;
	d->base_guid = h->base_guid;
	d->size_bytes = le64_make(h->size_bytes);
	d->start_bytes = le64_make(h->start_bytes);
	d->created_wall_ns = le64_make(h->created_wall_ns);
	d->grain_bytes = le32_make(h->grain_bytes);
	d->cluster_bytes = le32_make(h->cluster_bytes);
	memcpy(d->pool, h->pool, strnlen(h->pool, sizeof(d->pool) - 1));
	memcpy(d->volume, h->volume, strnlen(h->volume, sizeof(d->volume) - 1));
	memcpy(d->snapshot, h->snapshot, strnlen(h->snapshot, sizeof(d->snapshot) - 1));
	memcpy(d->base, h->base, strnlen(h->base, sizeof(d->base) - 1));
	d->crc = le32_make(header_crc(d));
	state_begin(s, h, le32_get(d->crc));
}

static bool header_is_sane(const struct stream_header_disk *d, const struct stream_header *h)
{
	return h->size_bytes && h->size_bytes <= SIZE_MAX_BYTES && h->start_bytes <= h->size_bytes && IS_POW2(h->grain_bytes) &&
	       h->grain_bytes >= 512 && h->grain_bytes <= GRAIN_MAX && h->size_bytes % 512 == 0 &&
	       (h->start_bytes % h->grain_bytes == 0 || h->start_bytes == h->size_bytes) && !uuid_is_zero(&h->guid) &&
	       !uuid_is_equal(&h->guid, &h->base_guid) && !d->pool[sizeof(d->pool) - 1] && !d->volume[sizeof(d->volume) - 1] &&
	       !d->snapshot[sizeof(d->snapshot) - 1] && !d->base[sizeof(d->base) - 1] && d->snapshot[0];
}

int stream_header_decode(const struct stream_header_disk *d, struct stream_header *h, struct stream_state *s, struct err *e)
{
	if (memcmp(d->magic, STREAM_MAGIC, sizeof(d->magic)) != 0)
		return err_set(e, -EPROTO, "what came is not an ashlar stream: pipe the output of `ashlar send` into it, without anything before");
	if (le32_get(d->version) != STREAM_VERSION)
		return err_set(e, -ERR_FEATURE, "the stream has version %u, and this program knows version %u: use a newer one",
			       le32_get(d->version), STREAM_VERSION);
	if (le32_get(d->crc) != header_crc(d))
		return err_set(e, -ERR_CSUM, "the stream is damaged: the checksum of its header is wrong");
	if (le64_get(d->incompat) & ~STREAM_INCOMPAT_KNOWN)
		return err_set(e, -ERR_FEATURE, "the stream has features that this program does not know (%#llx): use a newer one",
			       (unsigned long long)(le64_get(d->incompat) & ~STREAM_INCOMPAT_KNOWN));
	*h = (struct stream_header){ .guid = d->guid, .base_guid = d->base_guid, .size_bytes = le64_get(d->size_bytes),
				     .start_bytes = le64_get(d->start_bytes), .created_wall_ns = le64_get(d->created_wall_ns),
				     .grain_bytes = le32_get(d->grain_bytes), .cluster_bytes = le32_get(d->cluster_bytes) };
	memcpy(h->pool, d->pool, sizeof(h->pool));
	memcpy(h->volume, d->volume, sizeof(h->volume));
	memcpy(h->snapshot, d->snapshot, sizeof(h->snapshot));
	memcpy(h->base, d->base, sizeof(h->base));
	if (!header_is_sane(d, h))
		return err_set(e, -ERR_FORMAT, "the stream's header has values that cannot be");
	state_begin(s, h, le32_get(d->crc));
	return 0;
}

/* ---- records ---- */

static uint32_t record_crc(const struct stream_state *s, const struct stream_record_disk *d)
{
	return crc32c(s->crc, d, offsetof(struct stream_record_disk, crc));
}

static bool range_is_sane(const struct stream_state *s, uint8_t type, uint64_t off, uint64_t len)
{
	return off >= s->pos_bytes && off < s->size_bytes && len && len <= s->size_bytes - off && off % s->grain_bytes == 0 &&
	       (len % s->grain_bytes == 0 || off + len == s->size_bytes) && (type != STREAM_DATA || len <= STREAM_PAYLOAD_MAX);
}

static void state_take(struct stream_state *s, uint8_t type, uint64_t off, uint64_t len, uint32_t crc)
{
	s->crc = crc;
	if (type == STREAM_END) {
		s->has_ended = true;
		s->pos_bytes = s->size_bytes;
		return;
	}
	s->n_records++;
	s->pos_bytes = off + len;
	if (type == STREAM_DATA)
		s->data_bytes += len;
	else
		s->zero_bytes += len;
}

static void record_seal(struct stream_state *s, struct stream_record_disk *d)
{
	d->crc = le32_make(record_crc(s, d));
	state_take(s, d->type, le64_get(d->off_bytes), le64_get(d->len_bytes), le32_get(d->crc));
}

void stream_record_encode(struct stream_state *s, uint8_t type, uint64_t off_bytes, uint64_t len_bytes, const void *payload,
			  struct stream_record_disk *d)
{
	CHECK(!s->has_ended && type != STREAM_END && range_is_sane(s, type, off_bytes, len_bytes));
	memset(d, 0, sizeof(*d));
	d->type = type;
	d->off_bytes = le64_make(off_bytes);
	d->len_bytes = le64_make(len_bytes);
	if (type == STREAM_DATA)
		d->payload_crc = le32_make(crc32c(0, payload, len_bytes));
	record_seal(s, d);
}

void stream_end_encode(struct stream_state *s, struct stream_record_disk *d, struct stream_end_disk *end)
{
	CHECK(!s->has_ended);
	memset(d, 0, sizeof(*d));
	memset(end, 0, sizeof(*end));
	end->n_records = le64_make(s->n_records);
	end->data_bytes = le64_make(s->data_bytes);
	end->zero_bytes = le64_make(s->zero_bytes);
	d->type = STREAM_END;
	d->off_bytes = le64_make(s->size_bytes);
	d->len_bytes = le64_make(sizeof(*end));
	d->payload_crc = le32_make(crc32c(0, end, sizeof(*end)));
	record_seal(s, d);
}

int stream_record_decode(struct stream_state *s, const struct stream_record_disk *d, struct stream_record *r, struct err *e)
{
	uint64_t off = le64_get(d->off_bytes), len = le64_get(d->len_bytes);
	bool is_sane;

	if (s->has_ended || le32_get(d->crc) != record_crc(s, d))
		return err_set(e, -ERR_CSUM, "the stream is damaged after %" PRIu64 " bytes of the volume: a record's checksum is wrong",
			       s->pos_bytes);
	if (d->type == STREAM_END)
		is_sane = off == s->size_bytes && len == sizeof(struct stream_end_disk);
	else
		is_sane = (d->type == STREAM_DATA || d->type == STREAM_ZERO) && range_is_sane(s, d->type, off, len);
	if (!is_sane || (d->type == STREAM_ZERO && le32_get(d->payload_crc)))
		return err_set(e, -ERR_FORMAT, "the stream has a record that cannot be (type %u, %" PRIu64 " bytes at %" PRIu64 ")", d->type,
			       len, off);
	*r = (struct stream_record){ .type = d->type, .off_bytes = off, .len_bytes = len, .payload_crc = le32_get(d->payload_crc),
				     .payload_bytes = d->type == STREAM_ZERO ? 0 : (uint32_t)len };
	state_take(s, d->type, off, len, le32_get(d->crc));
	return 0;
}

int stream_payload_check(const struct stream_state *s, const struct stream_record *r, const void *payload, struct err *e)
{
	const struct stream_end_disk *end = payload;

	if (crc32c(0, payload, r->payload_bytes) != r->payload_crc)
		return err_set(e, -ERR_CSUM, "the stream is damaged: the checksum of %" PRIu64 " bytes at %" PRIu64 " is wrong", r->len_bytes,
			       r->off_bytes);
	if (r->type == STREAM_END && (le64_get(end->n_records) != s->n_records || le64_get(end->data_bytes) != s->data_bytes ||
				      le64_get(end->zero_bytes) != s->zero_bytes))
		return err_set(e, -ERR_FORMAT, "the stream's totals are not those of its records");
	return 0;
}

/* ---- tokens ---- */

#define TOKEN_BYTES 44 /* two guids, the offset, a checksum of them */

static void token_bytes(const struct stream_token *t, uint8_t b[TOKEN_BYTES])
{
	le64 start = le64_make(t->start_bytes);
	le32 crc;

	memcpy(b, t->guid.b, 16);
	memcpy(b + 16, t->base_guid.b, 16);
	memcpy(b + 32, start.b, 8);
	crc = le32_make(crc32c(0, b, 40));
	memcpy(b + 40, crc.b, 4);
}

char *stream_token_format(const struct stream_token *t, char buf[STREAM_TOKEN_LEN])
{
	uint8_t b[TOKEN_BYTES];
	unsigned i;

	token_bytes(t, b);
	memcpy(buf, "a1-", 3);
	for (i = 0; i < TOKEN_BYTES; i++)
		snprintf(buf + 3 + 2 * i, 3, "%02x", b[i]);
	return buf;
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int stream_token_parse(const char *text, struct stream_token *t)
{
	uint8_t b[TOKEN_BYTES], again[TOKEN_BYTES];
	le64 start;
	unsigned i;

	if (strlen(text) != 3 + 2 * TOKEN_BYTES || memcmp(text, "a1-", 3) != 0)
		return -EINVAL;
	for (i = 0; i < TOKEN_BYTES; i++) {
		int hi = hex_digit(text[3 + 2 * i]), lo = hex_digit(text[4 + 2 * i]);

		if (hi < 0 || lo < 0)
			return -EINVAL;
		b[i] = (uint8_t)(hi << 4 | lo);
	}
	memcpy(t->guid.b, b, 16);
	memcpy(t->base_guid.b, b + 16, 16);
	memcpy(start.b, b + 32, 8);
	t->start_bytes = le64_get(start);
	token_bytes(t, again);
	return memcmp(b, again, TOKEN_BYTES) == 0 ? 0 : -EINVAL;
}
