/*
 * A send stream from outside. The first byte says how the rest is read: 0: as it is; else the magic, the version and all
 * checksums are made right on the way, so that the checks of the fields are reached. What decodes obeys the rules, and
 * encodes to the same.
 */
#include <string.h>

#include "engine/base/crc32c.h"
#include "engine/pool/stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	const uint8_t *p;
	size_t left;
	bool seal;
};

static bool take(struct input *in, void *out, size_t len)
{
	if (in->left < len)
		return false;
	memcpy(out, in->p, len);
	in->p += len;
	in->left -= len;
	return true;
}

static void header_seal(struct stream_header_disk *d)
{
	memcpy(d->magic, STREAM_MAGIC, sizeof(d->magic));
	d->version = le32_make(STREAM_VERSION);
	d->crc = le32_make(0);
	d->crc = le32_make(crc32c(0, d, sizeof(*d)));
}

static void record_look(struct input *in, struct stream_state *s, bool *more)
{
	struct stream_record_disk d, again;
	struct stream_state before = *s;
	struct stream_record r;
	struct err e = { 0 };
	const uint8_t *payload;
	size_t n;
	int c;

	*more = take(in, &d, sizeof(d));
	if (!*more)
		return;
	if (in->seal) {
		n = d.type == STREAM_ZERO ? 0 : (size_t)MIN(le64_get(d.len_bytes), (uint64_t)in->left);
		d.payload_crc = le32_make(crc32c(0, in->p, n));
		memset(d.pad, 0, sizeof(d.pad));
		memset(d.pad2, 0, sizeof(d.pad2));
		d.crc = le32_make(crc32c(s->crc, &d, offsetof(struct stream_record_disk, crc)));
	}
	c = stream_record_decode(s, &d, &r, &e);
	CHECK((c < 0) == (e.text[0] != 0));
	*more = c == 0 && r.payload_bytes <= in->left;
	if (!*more)
		return;
	CHECK(r.payload_bytes <= STREAM_PAYLOAD_MAX && s->pos_bytes <= s->size_bytes && s->pos_bytes >= before.pos_bytes);
	payload = in->p;
	in->p += r.payload_bytes;
	in->left -= r.payload_bytes;
	*more = stream_payload_check(s, &r, payload, &e) == 0 && r.type != STREAM_END;
	if (!*more || !in->seal)
		return;
	CHECK(r.off_bytes >= before.pos_bytes && r.len_bytes <= s->size_bytes - r.off_bytes);
	stream_record_encode(&before, r.type, r.off_bytes, r.len_bytes, payload, &again);
	CHECK(!memcmp(&d, &again, sizeof(d)) && !memcmp(&before, s, sizeof(before)));
}

static void token_look(const uint8_t *data, size_t size)
{
	char text[STREAM_TOKEN_LEN] = "", again[STREAM_TOKEN_LEN];
	struct stream_token t;

	memcpy(text, data, MIN(size, sizeof(text) - 1));
	if (stream_token_parse(text, &t) == 0)
		CHECK(!strcmp(stream_token_format(&t, again), text));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { .p = data + 1, .left = size - 1 };
	struct stream_header_disk d;
	struct stream_header h;
	struct stream_state s;
	struct err e = { 0 };
	bool more = true;
	int r;

	if (!size)
		return 0;
	in.seal = data[0] != 0;
	token_look(in.p, in.left);
	if (!take(&in, &d, sizeof(d)))
		return 0;
	if (in.seal)
		header_seal(&d);
	r = stream_header_decode(&d, &h, &s, &e);
	CHECK((r < 0) == (e.text[0] != 0));
	while (r == 0 && more)
		record_look(&in, &s, &more);
	return 0;
}
