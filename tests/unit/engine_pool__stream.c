/* The send stream as values: what is encoded decodes, and whatever is changed, cut, moved or doubled is seen. */
#include <stdio.h>
#include <string.h>

#include "engine/base/crc32c.h"
#include "engine/base/rng.h"
#include "engine/base/units.h"
#include "engine/pool/stream.h"
#include "tests/unit/unit.h"

#define STREAM_MAX (64 * KIB)

static uint8_t stream[STREAM_MAX], payload[16 * KIB];
static size_t stream_len;
static size_t record_at[8]; /* where each begins; the last one is END */
static unsigned n_records;

static struct stream_header header(void)
{
	struct stream_header h = { .guid = { { 1, 2, 3 } }, .base_guid = { { 9 } }, .size_bytes = 10 * MIB + 512, .created_wall_ns = 77,
				   .grain_bytes = 4096, .cluster_bytes = 64 * KIB, .pool = "p", .volume = "v", .snapshot = "s", .base = "b" };

	return h;
}

static void put(const void *buf, size_t len)
{
	CHECK(stream_len + len <= sizeof(stream));
	memcpy(stream + stream_len, buf, len);
	stream_len += len;
}

static void put_record(struct stream_state *s, uint8_t type, uint64_t off, uint64_t len)
{
	struct stream_record_disk d;

	record_at[n_records++] = stream_len;
	stream_record_encode(s, type, off, len, payload, &d);
	put(&d, sizeof(d));
	if (type == STREAM_DATA)
		put(payload, len);
}

static void stream_make(void)
{
	struct stream_header h = header();
	struct stream_header_disk hd;
	struct stream_record_disk d;
	struct stream_end_disk end;
	struct stream_state s;
	struct rng r;

	rng_init(&r, 1);
	rng_fill(&r, payload, sizeof(payload));
	stream_len = n_records = 0;
	stream_header_encode(&h, &hd, &s);
	put(&hd, sizeof(hd));
	put_record(&s, STREAM_DATA, 0, 8192);
	put_record(&s, STREAM_ZERO, 8192, 5 * MIB);
	put_record(&s, STREAM_DATA, 6 * MIB, 4096);
	put_record(&s, STREAM_DATA, 10 * MIB, 512);
	record_at[n_records++] = stream_len;
	stream_end_encode(&s, &d, &end);
	put(&d, sizeof(d));
	put(&end, sizeof(end));
}

/* Reads it as a receiver would. 1: to its end; 0: it is cut; else the error. */
static int stream_read(const uint8_t *p, size_t len, struct stream_state *s)
{
	struct stream_header_disk hd;
	struct stream_record_disk d;
	struct stream_header h;
	struct stream_record rec;
	struct err e = { 0 };
	int r;

	if (len < sizeof(hd))
		return 0;
	memcpy(&hd, p, sizeof(hd));
	r = stream_header_decode(&hd, &h, s, &e);
	p += sizeof(hd);
	len -= sizeof(hd);
	while (r == 0 && len >= sizeof(d)) {
		memcpy(&d, p, sizeof(d));
		r = stream_record_decode(s, &d, &rec, &e);
		p += sizeof(d);
		len -= sizeof(d);
		if (r < 0 || rec.payload_bytes > len)
			break;
		r = stream_payload_check(s, &rec, p, &e);
		p += rec.payload_bytes;
		len -= rec.payload_bytes;
		if (r == 0 && rec.type == STREAM_END)
			return 1;
	}
	CU_ASSERT((r < 0) == (e.text[0] != 0));
	return r;
}

static void what_is_encoded_decodes(void)
{
	struct stream_header h = header(), got;
	struct stream_header_disk hd;
	struct stream_state s;

	stream_make();
	memcpy(&hd, stream, sizeof(hd));
	CU_ASSERT_EQUAL(stream_header_decode(&hd, &got, &s, NULL), 0);
	CU_ASSERT(!memcmp(&h, &got, sizeof(h)));
	CU_ASSERT_EQUAL(stream_read(stream, stream_len, &s), 1);
	CU_ASSERT_EQUAL(s.data_bytes, 8192 + 4096 + 512);
	CU_ASSERT_EQUAL(s.zero_bytes, 5 * MIB);
	CU_ASSERT_EQUAL(s.n_records, 4);
	CU_ASSERT_EQUAL(s.pos_bytes, h.size_bytes);
}

static void every_flipped_bit_is_seen(void)
{
	struct stream_state s;
	size_t i, missed = 0;

	stream_make();
	for (i = 0; i < stream_len * 8; i++) {
		stream[i / 8] ^= (uint8_t)(1u << i % 8);
		missed += stream_read(stream, stream_len, &s) == 1;
		stream[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	CU_ASSERT_EQUAL(missed, 0);
}

static void a_cut_stream_has_no_end(void)
{
	struct stream_state s;
	size_t i, bad = 0;

	stream_make();
	for (i = 0; i < stream_len; i++)
		bad += stream_read(stream, i, &s) != 0;
	CU_ASSERT_EQUAL(bad, 0);
}

/* Records have checksums of their own, which stay right when they are moved: the chain tells. */
static void records_left_out_doubled_or_moved_are_seen(void)
{
	uint8_t *x = xmalloc(2 * STREAM_MAX);
	struct stream_state s;
	unsigned i, k;

	stream_make();
	for (i = 0; i + 1 < n_records; i++) {
		size_t at = record_at[i], len = record_at[i + 1] - at;

		memcpy(x, stream, at); /* left out */
		memcpy(x + at, stream + at + len, stream_len - at - len);
		CU_ASSERT_EQUAL(stream_read(x, stream_len - len, &s), -ERR_CSUM);
		memcpy(x, stream, at + len); /* doubled */
		memcpy(x + at + len, stream + at, stream_len - at);
		CU_ASSERT_EQUAL(stream_read(x, stream_len + len, &s), -ERR_CSUM);
		for (k = i + 1; k + 1 < n_records; k++) { /* a later one in its place */
			size_t len2 = record_at[k + 1] - record_at[k];

			memcpy(x, stream, at);
			memcpy(x + at, stream + record_at[k], len2);
			CU_ASSERT_EQUAL(stream_read(x, at + len2, &s), -ERR_CSUM);
		}
	}
	xfree(x);
}

static int decode_sealed(struct stream_record_disk d, struct stream_state *s)
{
	struct stream_record r;

	d.crc = le32_make(crc32c(s->crc, &d, offsetof(struct stream_record_disk, crc)));
	return stream_record_decode(s, &d, &r, NULL);
}

/* With checksums that are right: somebody means it. */
static void records_that_cannot_be_are_refused(void)
{
	static const struct { uint8_t type; uint64_t off, len; } bad[] = {
		{ 0, 8192, 4096 }, { 4, 8192, 4096 }, { STREAM_DATA, 4096, 4096 }, { STREAM_DATA, 8192, 0 }, { STREAM_ZERO, 8192, 0 },
		{ STREAM_DATA, 8192 + 512, 4096 }, { STREAM_DATA, 8192, 512 }, { STREAM_DATA, 8192, 2 * MIB }, { STREAM_ZERO, 8192, 10 * MIB },
		{ STREAM_ZERO, 1ULL << 63, 1ULL << 63 }, { STREAM_ZERO, 12288, UINT64_MAX - 4095 }, { STREAM_DATA, 10 * MIB + 512, 512 },
		{ STREAM_END, 8192, 32 }, { STREAM_END, 10 * MIB + 512, 31 },
	};
	struct stream_header h = header();
	struct stream_header_disk hd;
	struct stream_state s, x;
	struct stream_record_disk d;
	size_t i;

	stream_header_encode(&h, &hd, &s);
	stream_record_encode(&s, STREAM_DATA, 0, 8192, payload, &d);
	for (i = 0; i < ARRAY_LEN(bad); i++) {
		d = (struct stream_record_disk){ .type = bad[i].type, .off_bytes = le64_make(bad[i].off), .len_bytes = le64_make(bad[i].len) };
		x = s;
		CU_ASSERT_EQUAL(decode_sealed(d, &x), -ERR_FORMAT);
		CU_ASSERT_EQUAL(x.pos_bytes, s.pos_bytes);
	}
	d = (struct stream_record_disk){ .type = STREAM_ZERO, .off_bytes = le64_make(8192), .len_bytes = le64_make(4096) };
	CU_ASSERT_EQUAL(decode_sealed(d, &s), 0);
}

static int header_try(void (*change)(struct stream_header_disk *d))
{
	struct stream_header h = header();
	struct stream_header_disk d;
	struct stream_state s;

	stream_header_encode(&h, &d, &s);
	change(&d);
	d.crc = le32_make(0);
	d.crc = le32_make(crc32c(0, &d, sizeof(d)));
	return stream_header_decode(&d, &h, &s, NULL);
}

static void no_change(struct stream_header_disk *d) {}
static void other_magic(struct stream_header_disk *d) { d->magic[0] = 'B'; }
static void newer(struct stream_header_disk *d) { d->version = le32_make(2); }
static void unknown_feature(struct stream_header_disk *d) { d->incompat = le64_make(1ULL << 40); }
static void harmless_feature(struct stream_header_disk *d) { d->compat = le64_make(1); }
static void no_size(struct stream_header_disk *d) { d->size_bytes = le64_make(0); }
static void huge(struct stream_header_disk *d) { d->size_bytes = le64_make(1ULL << 61); }
static void odd_grain(struct stream_header_disk *d) { d->grain_bytes = le32_make(4097); }
static void odd_start(struct stream_header_disk *d) { d->start_bytes = le64_make(512); }
static void late_start(struct stream_header_disk *d) { d->start_bytes = le64_make(11 * MIB); }
static void no_guid(struct stream_header_disk *d) { memset(&d->guid, 0, sizeof(d->guid)); }
static void own_base(struct stream_header_disk *d) { d->base_guid = d->guid; }
static void long_name(struct stream_header_disk *d) { memset(d->volume, 'x', sizeof(d->volume)); }

static void headers_that_cannot_be_are_refused(void)
{
	static void (*const bad[])(struct stream_header_disk *d) = { no_size, huge, odd_grain, odd_start, late_start, no_guid, own_base,
								     long_name };
	size_t i;

	CU_ASSERT_EQUAL(header_try(no_change), 0);
	CU_ASSERT_EQUAL(header_try(harmless_feature), 0);
	CU_ASSERT_EQUAL(header_try(other_magic), -EPROTO);
	CU_ASSERT_EQUAL(header_try(newer), -ERR_FEATURE);
	CU_ASSERT_EQUAL(header_try(unknown_feature), -ERR_FEATURE);
	for (i = 0; i < ARRAY_LEN(bad); i++)
		CU_ASSERT_EQUAL(header_try(bad[i]), -ERR_FORMAT);
}

static void tokens_are_read_back_and_checked(void)
{
	struct stream_token t = { .guid = { { 0xfe, 1 } }, .base_guid = { { 7 } }, .start_bytes = 5 * GIB }, got;
	char text[STREAM_TOKEN_LEN], x[STREAM_TOKEN_LEN];
	size_t i;

	stream_token_format(&t, text);
	CU_ASSERT_EQUAL(stream_token_parse(text, &got), 0);
	CU_ASSERT(!memcmp(&t, &got, sizeof(t)));
	for (i = 0; i < strlen(text); i++) {
		strcpy(x, text);
		x[i] = x[i] == '4' ? '5' : '4';
		CU_ASSERT_EQUAL(stream_token_parse(x, &got), -EINVAL);
	}
	CU_ASSERT_EQUAL(stream_token_parse("", &got), -EINVAL);
	text[strlen(text) - 1] = '\0';
	CU_ASSERT_EQUAL(stream_token_parse(text, &got), -EINVAL);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(what_is_encoded_decodes),
		TEST(every_flipped_bit_is_seen),
		TEST(a_cut_stream_has_no_end),
		TEST(records_left_out_doubled_or_moved_are_seen),
		TEST(records_that_cannot_be_are_refused),
		TEST(headers_that_cannot_be_are_refused),
		TEST(tokens_are_read_back_and_checked),
		CU_TEST_INFO_NULL,
	};

	return tests_run("engine/pool: stream", tests);
}
