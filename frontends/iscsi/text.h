/*
 * text.h: text keys: "key=value" ended by NUL, one after the other, as login and text PDUs have them.
 *
 * What comes in is collected over continued PDUs into one buffer of at most ISCSI_TEXT_MAX bytes and then taken apart in
 * place; what goes out is built in a buffer that grows. No state beyond these. Context: any.
 */
#ifndef FRONTENDS_ISCSI_TEXT_H
#define FRONTENDS_ISCSI_TEXT_H

#include "engine/base/base.h"

#define ISCSI_TEXT_MAX (32U << 10)
#define ISCSI_TEXT_KEY_MAX 63
#define ISCSI_TEXT_KEYS_MAX 256
#define ISCSI_TEXT_VALUE_MAX 8192

struct iscsi_text {
	char *p; /* xmalloc'ed */
	size_t len, cap;
};

void iscsi_text_free(struct iscsi_text *t);
/* -E2BIG: beyond ISCSI_TEXT_MAX; t is unchanged. */
int iscsi_text_append(struct iscsi_text *t, const void *p, size_t len) __must_check;
/* Adds key=value NUL. */
void iscsi_text_put(struct iscsi_text *t, const char *key, const char *value);
void iscsi_text_putf(struct iscsi_text *t, const char *key, const char *fmt, ...) __printf_like(3, 4);

/* Takes t apart: calls each() for every pair, in order. Pads of NULs are skipped. -EINVAL: not text (no '=', key that is
 * empty, too long or has other than letters, digits and ".-+@_/[]:", value too long, no NUL at the end, same key twice,
 * more than ISCSI_TEXT_KEYS_MAX);
 * a result other than 0 of each() ends it and is returned. */
int iscsi_text_each(struct iscsi_text *t, int (*each)(void *arg, const char *key, const char *value), void *arg) __must_check;

/* Does the comma-separated list have the word? */
bool iscsi_text_list_has(const char *list, const char *word);
/* Decimal or 0x constant. False: it is not one, or not in the range. */
bool iscsi_text_number(const char *value, uint64_t min, uint64_t max, uint64_t *out);
bool iscsi_text_bool(const char *value, bool *out);
/* Hex ("0x...") or base64 ("0b...") constant into at most cap bytes. -EINVAL, -E2BIG. */
int iscsi_text_binary(const char *value, uint8_t *out, size_t cap, size_t *len) __must_check;
/* "0x..." of len bytes into out (2 * len + 3). */
void iscsi_text_hex(const uint8_t *p, size_t len, char *out);

/* An iSCSI name in normal form: iqn.YYYY-MM.x[:y], eui.16HEX, naa.16-or-32HEX; at most 223 bytes; lower case. */
bool iscsi_name_is_valid(const char *name);

#endif
