/*
 * CHAP (RFC 1994, RFC 7143 12.1.3): the peer proves that it knows a secret by a hash of identifier, secret and a challenge; and
 * we do, if it asks and a secret for that has been set. A challenge that is our own, sent back, is refused, and so is one secret
 * for both directions: either would let the peer have us compute its answer.
 */
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdio.h>

#include "frontends/iscsi/conn.h"

#define CHALLENGE_MAX 1024
#define DIGEST_MAX 32

static const struct algorithm {
	unsigned number;
	gnutls_digest_algorithm_t digest;
	unsigned bytes;
} algorithms[] = { /* strongest first */
	{ 8, GNUTLS_DIG_SHA3_256, 32 },
	{ 7, GNUTLS_DIG_SHA256, 32 },
	{ 6, GNUTLS_DIG_SHA1, 20 },
	{ 5, GNUTLS_DIG_MD5, 16 },
};

struct iscsi_chap {
	const struct algorithm *algorithm;
	uint8_t id, challenge[DIGEST_MAX];
	char name[256];
	uint8_t answer[DIGEST_MAX];
	size_t answer_len;
	bool has_name, has_answer, has_id, has_challenge;
	uint8_t their_id, their_challenge[CHALLENGE_MAX];
	size_t their_len;
};

struct iscsi_chap *iscsi_chap_new(struct world *w)
{
	struct iscsi_chap *h = xcalloc(1, sizeof(*h));

	world_random(w, &h->id, sizeof(h->id));
	world_random(w, h->challenge, sizeof(h->challenge));
	return h;
}

void iscsi_chap_free(struct iscsi_chap *h)
{
	xfree(h);
}

unsigned iscsi_chap_choose(struct iscsi_chap *h, const char *list)
{
	char word[8];
	size_t i;

	for (i = 0; i < ARRAY_LEN(algorithms); i++) {
		snprintf(word, sizeof(word), "%u", algorithms[i].number);
		if (!iscsi_text_list_has(list, word) || gnutls_hash_get_len(algorithms[i].digest) != algorithms[i].bytes)
			continue;
		h->algorithm = &algorithms[i];
		return algorithms[i].number;
	}
	return 0;
}

void iscsi_chap_challenge(struct iscsi_chap *h, struct iscsi_text *out)
{
	char hex[2 * DIGEST_MAX + 3];

	iscsi_text_putf(out, "CHAP_A", "%u", h->algorithm->number);
	iscsi_text_putf(out, "CHAP_I", "%u", h->id);
	iscsi_text_hex(h->challenge, h->algorithm->bytes, hex);
	iscsi_text_put(out, "CHAP_C", hex);
}

int iscsi_chap_key(struct iscsi_chap *h, const char *key, const char *value)
{
	uint64_t n;

	if (!strcmp(key, "CHAP_N")) {
		h->has_name = true;
		if (strlen(value) >= sizeof(h->name))
			return -EINVAL;
		memcpy(h->name, value, strlen(value) + 1);
		return 1;
	}
	if (!strcmp(key, "CHAP_R")) {
		h->has_answer = true;
		return iscsi_text_binary(value, h->answer, sizeof(h->answer), &h->answer_len) < 0 ? -EINVAL : 1;
	}
	if (!strcmp(key, "CHAP_I")) {
		h->has_id = true;
		if (!iscsi_text_number(value, 0, 255, &n))
			return -EINVAL;
		h->their_id = (uint8_t)n;
		return 1;
	}
	if (!strcmp(key, "CHAP_C")) {
		h->has_challenge = true;
		return iscsi_text_binary(value, h->their_challenge, sizeof(h->their_challenge), &h->their_len) < 0 ? -EINVAL : 1;
	}
	return 0;
}

bool iscsi_chap_is_answered(const struct iscsi_chap *h)
{
	return h->has_name && h->has_answer && h->has_id == h->has_challenge;
}

static bool answer_compute(const struct algorithm *a, uint8_t id, const struct iscsi_secret *s, const uint8_t *challenge, size_t len,
			   uint8_t *out)
{
	gnutls_hash_hd_t hash;

	if (gnutls_hash_init(&hash, a->digest) < 0)
		return false;
	gnutls_hash(hash, &id, 1);
	gnutls_hash(hash, s->bytes, s->len);
	gnutls_hash(hash, challenge, len);
	gnutls_hash_deinit(hash, out);
	return true;
}

bool iscsi_chap_verify(const struct iscsi_chap *h, const struct iscsi_secret *s)
{
	uint8_t want[64], have[DIGEST_MAX] = { 0 };
	bool ok = answer_compute(h->algorithm, h->id, s, h->challenge, h->algorithm->bytes, want);

	memcpy(have, h->answer, MIN(h->answer_len, sizeof(have)));
	ok &= gnutls_memcmp(want, have, h->algorithm->bytes) == 0;
	ok &= h->answer_len == h->algorithm->bytes;
	ok &= *s->user && !strcmp(h->name, s->user);
	return ok;
}

bool iscsi_chap_wants_mutual(const struct iscsi_chap *h)
{
	return h->has_id && h->has_challenge;
}

int iscsi_chap_prove(const struct iscsi_chap *h, const struct iscsi_secret *s, const struct iscsi_secret *theirs, struct iscsi_text *out)
{
	char hex[2 * DIGEST_MAX + 3];
	uint8_t answer[64];

	if (h->their_len == h->algorithm->bytes && !memcmp(h->their_challenge, h->challenge, h->their_len))
		return -EPERM;
	if (s->len == theirs->len && !memcmp(s->bytes, theirs->bytes, s->len))
		return -EPERM;
	if (!h->their_len || !answer_compute(h->algorithm, h->their_id, s, h->their_challenge, h->their_len, answer))
		return -EINVAL;
	iscsi_text_hex(answer, h->algorithm->bytes, hex);
	iscsi_text_put(out, "CHAP_N", s->user);
	iscsi_text_put(out, "CHAP_R", hex);
	return 0;
}
