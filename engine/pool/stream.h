/*
 * stream.h: the send stream as values: encoding, and decoding what comes from outside. Pure: no I/O, no suspension.
 *
 * Decoders take anything and look at every field; an error comes with a sentence.
 */
#ifndef ENGINE_POOL_STREAM_H
#define ENGINE_POOL_STREAM_H

#include "engine/base/err.h"
#include "engine/pool/stream_format.h"

struct stream_header {
	struct uuid guid, base_guid;
	uint64_t size_bytes, start_bytes, created_wall_ns;
	uint32_t grain_bytes, cluster_bytes;
	char pool[64], volume[128], snapshot[128], base[128];
};

struct stream_record {
	uint8_t type; /* STREAM_* */
	uint64_t off_bytes, len_bytes;
	uint32_t payload_bytes; /* to be read next */
	uint32_t payload_crc;
};

/* Where one end of a stream is. */
struct stream_state {
	uint64_t size_bytes, pos_bytes; /* what lies before pos has gone by */
	uint32_t grain_bytes, crc;
	uint64_t n_records, data_bytes, zero_bytes;
	bool has_ended; /* END has been coded */
};

/* Both ends: the state after the header. */
void stream_header_encode(const struct stream_header *h, struct stream_header_disk *d, struct stream_state *s);
/* -EPROTO: it is no stream; -ERR_FEATURE: a newer one; -ERR_CSUM: damaged; -ERR_FORMAT: values that cannot be. */
int stream_header_decode(const struct stream_header_disk *d, struct stream_header *h, struct stream_state *s, struct err *e) __must_check;

/* The next record; the range follows the rules (CHECK). payload: of DATA, len_bytes of it. */
void stream_record_encode(struct stream_state *s, uint8_t type, uint64_t off_bytes, uint64_t len_bytes, const void *payload,
			  struct stream_record_disk *d);
/* END, with its payload. */
void stream_end_encode(struct stream_state *s, struct stream_record_disk *d, struct stream_end_disk *end);
/* On success the state has the record, and r->payload_bytes are to be read and given to stream_payload_check() before anything
 * is done. */
int stream_record_decode(struct stream_state *s, const struct stream_record_disk *d, struct stream_record *r, struct err *e) __must_check;
int stream_payload_check(const struct stream_state *s, const struct stream_record *r, const void *payload, struct err *e) __must_check;

/* ---- tokens: where to resume, as text: a word without spaces ---- */
#define STREAM_TOKEN_LEN 96 /* with the NUL */
struct stream_token {
	struct uuid guid, base_guid;
	uint64_t start_bytes;
};
char *stream_token_format(const struct stream_token *t, char buf[STREAM_TOKEN_LEN]);
int stream_token_parse(const char *text, struct stream_token *t) __must_check; /* -EINVAL */

#endif
