/*
 * Text keys, constants, names, and the note in which exports are kept.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frontends/iscsi/exports.h"
#include "frontends/iscsi/text.h"
#include "tests/unit/unit.h"

struct taken {
	char text[4096];
	int stop_at, n;
};

static int take(void *arg, const char *key, const char *value)
{
	struct taken *t = arg;

	snprintf(t->text + strlen(t->text), sizeof(t->text) - strlen(t->text), "%s:%s|", key, value);
	return ++t->n == t->stop_at ? -ENOSPC : 0;
}

/* What it is taken apart into; NULL: it is not text. */
static const char *apart(const char *bytes, size_t len)
{
	static struct taken t;
	struct iscsi_text text = { 0 };
	int r;

	memset(&t, 0, sizeof(t));
	CU_ASSERT(iscsi_text_append(&text, bytes, len) == 0);
	r = iscsi_text_each(&text, take, &t);
	iscsi_text_free(&text);
	return r < 0 ? NULL : t.text;
}
#define APART(literal) apart(literal, sizeof(literal) - 1)
#define IS(literal, want) CU_ASSERT_PTR_NOT_NULL(APART(literal)); CU_ASSERT_STRING_EQUAL(APART(literal), want)
#define IS_NOT(literal) CU_ASSERT_PTR_NULL(APART(literal))

static void pairs_are_taken_in_order(void)
{
	IS("", "");
	IS("A=1\0", "A:1|");
	IS("A=1\0B=\0C=x=y\0", "A:1|B:|C:x=y|");
	IS("\0\0A=1\0\0\0B=2\0\0", "A:1|B:2|");
	IS("X-com.example[7]:a/b@c_d+e=1\0", "X-com.example[7]:a/b@c_d+e:1|");
}

static void what_is_no_text_is_refused(void)
{
	char key[] = "K1234567890123456789012345678901234567890123456789012345678901234=1";
	char *many = malloc(ISCSI_TEXT_KEYS_MAX * 8 + 8);
	size_t n = 0;
	int i;

	IS_NOT("A=1");
	IS_NOT("A\0");
	IS_NOT("=1\0");
	IS_NOT("A=1\0A=2\0");
	IS_NOT("A b=1\0");
	IS_NOT("A\xc3\xa4=1\0");
	CU_ASSERT_PTR_NULL(apart(key, sizeof(key)));
	CU_ASSERT_PTR_NOT_NULL(apart(key + 2, sizeof(key) - 2));
	for (i = 0; i < (int)ISCSI_TEXT_KEYS_MAX + 1; i++)
		n += (size_t)sprintf(many + n, "k%d=", i) + 1;
	CU_ASSERT_PTR_NULL(apart(many, n));
	CU_ASSERT_PTR_NOT_NULL(apart(many, n - 6));
	free(many);
}

static void a_text_has_an_end(void)
{
	struct iscsi_text t = { 0 };
	char part[1000] = { 0 };
	size_t n;

	for (n = 0; iscsi_text_append(&t, part, sizeof(part)) == 0; n += sizeof(part))
		;
	CU_ASSERT(n <= ISCSI_TEXT_MAX && n + sizeof(part) > ISCSI_TEXT_MAX && t.len == n);
	iscsi_text_free(&t);
}

static void who_takes_pairs_may_stop(void)
{
	struct taken t = { .stop_at = 2 };
	struct iscsi_text text = { 0 };

	iscsi_text_put(&text, "A", "1");
	iscsi_text_putf(&text, "B", "%d", 2);
	iscsi_text_put(&text, "C", "3");
	CU_ASSERT(iscsi_text_each(&text, take, &t) == -ENOSPC);
	CU_ASSERT_STRING_EQUAL(t.text, "A:1|B:2|");
	iscsi_text_free(&text);
}

static void lists_have_whole_words(void)
{
	CU_ASSERT(iscsi_text_list_has("None", "None") && iscsi_text_list_has("CRC32C,None", "None") && iscsi_text_list_has("None,X", "None"));
	CU_ASSERT(!iscsi_text_list_has("Nones", "None") && !iscsi_text_list_has("XNone", "None") && !iscsi_text_list_has("", "None"));
	CU_ASSERT(!iscsi_text_list_has("15,25", "5") && iscsi_text_list_has("15,5", "5"));
}

static void numbers_stay_in_their_range(void)
{
	uint64_t n;
	bool b;

	CU_ASSERT(iscsi_text_number("0", 0, 9, &n) && n == 0);
	CU_ASSERT(iscsi_text_number("0x1fF", 0, 1000, &n) && n == 511);
	CU_ASSERT(iscsi_text_number("65535", 1, 65535, &n) && n == 65535);
	CU_ASSERT(!iscsi_text_number("65536", 1, 65535, &n) && !iscsi_text_number("0", 1, 9, &n));
	CU_ASSERT(!iscsi_text_number("", 0, 9, &n) && !iscsi_text_number("0x", 0, 9, &n) && !iscsi_text_number("-1", 0, 9, &n));
	CU_ASSERT(!iscsi_text_number("1a", 0, 99, &n) && !iscsi_text_number("99999999999999999999", 0, UINT64_MAX, &n));
	CU_ASSERT(iscsi_text_bool("Yes", &b) && b && iscsi_text_bool("No", &b) && !b && !iscsi_text_bool("yes", &b));
}

static void binary_constants_are_read_both_ways(void)
{
	uint8_t out[8];
	char hex[32];
	size_t n;

	CU_ASSERT(iscsi_text_binary("0xdeadBEEF", out, sizeof(out), &n) == 0 && n == 4 && !memcmp(out, "\xde\xad\xbe\xef", 4));
	CU_ASSERT(iscsi_text_binary("0xfed", out, sizeof(out), &n) == 0 && n == 2 && !memcmp(out, "\x0f\xed", 2));
	CU_ASSERT(iscsi_text_binary("0bZm9vYg==", out, sizeof(out), &n) == 0 && n == 4 && !memcmp(out, "foob", 4));
	CU_ASSERT(iscsi_text_binary("0bZm9vYmE=", out, sizeof(out), &n) == 0 && n == 5 && !memcmp(out, "fooba", 5));
	CU_ASSERT(iscsi_text_binary("0x112233445566778899", out, sizeof(out), &n) == -E2BIG);
	CU_ASSERT(iscsi_text_binary("0bZm9vYmFyZm9vYmFy", out, sizeof(out), &n) == -E2BIG);
	CU_ASSERT(iscsi_text_binary("0x", out, sizeof(out), &n) == -EINVAL && iscsi_text_binary("0xg1", out, sizeof(out), &n) == -EINVAL);
	CU_ASSERT(iscsi_text_binary("0bZm9", out, sizeof(out), &n) == -EINVAL && iscsi_text_binary("12", out, sizeof(out), &n) == -EINVAL);
	iscsi_text_hex((const uint8_t *)"\0\xff", 2, hex);
	CU_ASSERT_STRING_EQUAL(hex, "0x00ff");
}

static void names_are_iscsi_names(void)
{
	char name[300] = "iqn.2026-01.org.x:";

	CU_ASSERT(iscsi_name_is_valid("iqn.1993-08.org.debian:01:abc") && iscsi_name_is_valid("iqn.2026-01.x"));
	CU_ASSERT(iscsi_name_is_valid("eui.0123456789abcdef") && iscsi_name_is_valid("naa.0123456789abcdef"));
	CU_ASSERT(iscsi_name_is_valid("naa.0123456789abcdef0123456789abcdef"));
	CU_ASSERT(!iscsi_name_is_valid("") && !iscsi_name_is_valid("iqn.") && !iscsi_name_is_valid("iqn.2026-1.x") && !iscsi_name_is_valid("disk"));
	CU_ASSERT(!iscsi_name_is_valid("iqn.2026-01.X") && !iscsi_name_is_valid("iqn.2026-01.a b") && !iscsi_name_is_valid("iqn.2026-01.a,b"));
	CU_ASSERT(!iscsi_name_is_valid("eui.0123456789abcdeg") && !iscsi_name_is_valid("naa.0123") && !iscsi_name_is_valid("eui.0123456789abcdef0"));
	memset(name + strlen(name), 'a', 223 - strlen(name));
	CU_ASSERT(strlen(name) == 223 && iscsi_name_is_valid(name));
	name[223] = 'a';
	CU_ASSERT(!iscsi_name_is_valid(name));
}

/* ---- the note ---- */

static void exports_come_back_as_they_were_kept(void)
{
	struct iscsi_export v[2] = { { .target = "iqn.2026-01.org.x:t", .lun = 7, .read_only = true, .n_initiators = 2 }, { .target = "eui.0123456789abcdef" } }, *back;
	char (*names)[224] = calloc(2, sizeof(*names));
	size_t len, n;
	void *note;

	strcpy(names[0], "iqn.2026-01.org.x:a");
	strcpy(names[1], "iqn.2026-01.org.x:b");
	v[0].initiators = names;
	strcpy(v[0].chap.user, "u=1");
	v[0].chap.len = 12;
	memcpy(v[0].chap.bytes, "\n\0secret=\xff\x80\x01", 12);
	strcpy(v[0].mutual.user, "w");
	v[0].mutual.len = 100;
	note = iscsi_exports_format(v, 2, &len);
	CU_ASSERT_FATAL(iscsi_exports_parse(note, len, &back, &n) == 0 && n == 2);
	CU_ASSERT_STRING_EQUAL(back[0].target, v[0].target);
	CU_ASSERT(back[0].lun == 7 && back[0].read_only && back[0].n_initiators == 2);
	CU_ASSERT(!strcmp(back[0].initiators[1], names[1]));
	CU_ASSERT(!memcmp(&back[0].chap, &v[0].chap, sizeof(v[0].chap)) && !memcmp(&back[0].mutual, &v[0].mutual, sizeof(v[0].mutual)));
	CU_ASSERT(back[1].lun == 0 && !back[1].read_only && !back[1].n_initiators && !*back[1].chap.user);
	iscsi_exports_free(back, n);
	xfree(note);
	free(names);
	CU_ASSERT(iscsi_exports_parse(NULL, 0, &back, &n) == 0 && n == 0);
}

static void notes_that_are_damaged_are_refused(void)
{
	static const char *const bad[] = {
		"x", "ashlar-iscsi 2\n", "ashlar-iscsi 1\ntarget=nothing\n\n", "ashlar-iscsi 1\nlun=1\n\n", "ashlar-iscsi 1\ntarget=iqn.2026-01.x\nlun=99999\n\n",
		"ashlar-iscsi 1\ntarget=iqn.2026-01.x\nwhat=1\n\n", "ashlar-iscsi 1\ntarget=iqn.2026-01.x\nchap-user=u\n\n",
		"ashlar-iscsi 1\ntarget=iqn.2026-01.x\nmutual-user=u\nmutual-secret=0x00\n\n", "ashlar-iscsi 1\ntarget", "ashlar-iscsi 1\ntarget=iqn.2026-01.x",
	};
	struct iscsi_export *v;
	size_t i, n;

	for (i = 0; i < ARRAY_LEN(bad); i++)
		CU_ASSERT(iscsi_exports_parse(bad[i], strlen(bad[i]), &v, &n) == -EINVAL && !v && !n);
	CU_ASSERT(iscsi_exports_parse("ashlar-iscsi 1\n\0", 16, &v, &n) == -EINVAL);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(pairs_are_taken_in_order),
		TEST(what_is_no_text_is_refused),
		TEST(a_text_has_an_end),
		TEST(who_takes_pairs_may_stop),
		TEST(lists_have_whole_words),
		TEST(numbers_stay_in_their_range),
		TEST(binary_constants_are_read_both_ways),
		TEST(names_are_iscsi_names),
		TEST(exports_come_back_as_they_were_kept),
		TEST(notes_that_are_damaged_are_refused),
		CU_TEST_INFO_NULL,
	};

	return tests_run("iSCSI text", tests);
}
