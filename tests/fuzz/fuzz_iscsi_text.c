/*
 * Text keys as they come with login and text requests, and the note in which exports are kept: what has been read and is
 * written again reads the same.
 */
#include <stdlib.h>
#include <string.h>

#include "frontends/iscsi/exports.h"
#include "frontends/iscsi/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int each(void *arg, const char *key, const char *value)
{
	uint8_t out[64];
	size_t len;
	uint64_t n;
	bool b;

	CHECK(*key && strlen(key) <= ISCSI_TEXT_KEY_MAX && strlen(value) <= ISCSI_TEXT_VALUE_MAX);
	if (iscsi_text_binary(value, out, sizeof(out), &len) == 0)
		CHECK(len <= sizeof(out));
	if (iscsi_text_number(value, 3, 1000, &n))
		CHECK(n >= 3 && n <= 1000);
	(void)iscsi_text_bool(value, &b);
	(void)iscsi_text_list_has(value, key);
	iscsi_text_put(arg, key, value);
	return iscsi_name_is_valid(value) && strlen(value) > 223 ? -EINVAL : 0;
}

static void text(const uint8_t *data, size_t size)
{
	struct iscsi_text in = { 0 }, out = { 0 }, again = { 0 };

	if (iscsi_text_append(&in, data, size) == 0 && iscsi_text_each(&in, each, &out) == 0) {
		struct iscsi_text copy = { 0 };

		CHECK(iscsi_text_append(&copy, out.p, out.len) == 0 && iscsi_text_each(&copy, each, &again) == 0);
		CHECK(again.len == out.len && (!out.len || !memcmp(again.p, out.p, out.len)));
		iscsi_text_free(&copy);
	}
	iscsi_text_free(&in);
	iscsi_text_free(&out);
	iscsi_text_free(&again);
}

static void note(const uint8_t *data, size_t size)
{
	struct iscsi_export *v, *w;
	size_t n, m, len, len2;
	void *p, *q;

	if (iscsi_exports_parse(data, size, &v, &n) < 0)
		return;
	p = iscsi_exports_format(v, n, &len);
	CHECK(iscsi_exports_parse(p, len, &w, &m) == 0 && m == n);
	q = iscsi_exports_format(w, m, &len2);
	CHECK(len == len2 && (!len || !memcmp(p, q, len)));
	xfree(p);
	xfree(q);
	iscsi_exports_free(v, n);
	iscsi_exports_free(w, m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	if (data[0] & 1)
		text(data + 1, size - 1);
	else
		note(data + 1, size - 1);
	return 0;
}
