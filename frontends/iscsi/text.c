#include "frontends/iscsi/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- buffers ---- */

void iscsi_text_free(struct iscsi_text *t)
{
	xfree(t->p);
	*t = (struct iscsi_text){ 0 };
}

static void text_add(struct iscsi_text *t, const void *p, size_t len)
{
	if (t->len + len > t->cap) {
		t->cap = t->len + len + t->cap + 256;
		t->p = xrealloc(t->p, t->cap);
	}
	if (len)
		memcpy(t->p + t->len, p, len);
	t->len += len;
}

int iscsi_text_append(struct iscsi_text *t, const void *p, size_t len)
{
	if (len > ISCSI_TEXT_MAX - t->len)
		return -E2BIG;
	text_add(t, p, len);
	return 0;
}

void iscsi_text_put(struct iscsi_text *t, const char *key, const char *value)
{
	text_add(t, key, strlen(key));
	text_add(t, "=", 1);
	text_add(t, value, strlen(value) + 1);
}

void iscsi_text_putf(struct iscsi_text *t, const char *key, const char *fmt, ...)
{
	char value[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(value, sizeof(value), fmt, ap);
	va_end(ap);
	iscsi_text_put(t, key, value);
}

/* ---- taking it apart ---- */

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool key_is_valid(const char *key)
{
	size_t n = strlen(key), i;

	if (n < 1 || n > ISCSI_TEXT_KEY_MAX)
		return false;
	for (i = 0; i < n; i++)
		if (!is_alnum(key[i]) && !strchr(".-+@_/[]:", key[i]))
			return false;
	return true;
}

static bool key_is_repeated(const struct iscsi_text *t, const uint16_t *keys, unsigned n, const char *key)
{
	unsigned i;

	for (i = 0; i < n; i++)
		if (!strcmp(t->p + keys[i], key))
			return true;
	return false;
}

int iscsi_text_each(struct iscsi_text *t, int (*each)(void *arg, const char *key, const char *value), void *arg)
{
	uint16_t keys[ISCSI_TEXT_KEYS_MAX];
	size_t at = 0, end;
	char *key, *value;
	unsigned n = 0;
	int r;

	if (t->len && t->p[t->len - 1] != '\0')
		return -EINVAL;
	for (; at < t->len; at = end + 1) {
		key = t->p + at;
		end = at + strlen(key);
		if (end == at)
			continue;
		value = strchr(key, '=');
		if (!value || n == ARRAY_LEN(keys))
			return -EINVAL;
		*value++ = '\0';
		if (!key_is_valid(key) || strlen(value) > ISCSI_TEXT_VALUE_MAX || key_is_repeated(t, keys, n, key))
			return -EINVAL;
		keys[n++] = (uint16_t)at;
		r = each(arg, key, value);
		if (r)
			return r;
	}
	return 0;
}

/* ---- values ---- */

bool iscsi_text_list_has(const char *list, const char *word)
{
	size_t n = strlen(word);

	while (*list) {
		if (!strncmp(list, word, n) && (list[n] == ',' || list[n] == '\0'))
			return true;
		list += strcspn(list, ",");
		list += *list == ',';
	}
	return false;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool is_hex(const char *value)
{
	return value[0] == '0' && (value[1] == 'x' || value[1] == 'X');
}

bool iscsi_text_number(const char *value, uint64_t min, uint64_t max, uint64_t *out)
{
	unsigned base = is_hex(value) ? 16 : 10;
	uint64_t v = 0;
	int d;

	value += base == 16 ? 2 : 0;
	if (!*value || strlen(value) > 19)
		return false;
	for (; *value; value++) {
		d = hex_digit(*value);
		if (d < 0 || d >= (int)base || v > (UINT64_MAX - (unsigned)d) / base)
			return false;
		v = v * base + (unsigned)d;
	}
	*out = v;
	return v >= min && v <= max;
}

bool iscsi_text_bool(const char *value, bool *out)
{
	*out = !strcmp(value, "Yes");
	return *out || !strcmp(value, "No");
}

static int binary_hex(const char *v, uint8_t *out, size_t cap, size_t *len)
{
	size_t n = strlen(v), odd = n & 1, i, at; /* odd: the first byte has one digit */
	int d;

	if (!n)
		return -EINVAL;
	if ((n + odd) / 2 > cap)
		return -E2BIG;
	out[0] = 0;
	for (i = 0; i < n; i++) {
		d = hex_digit(v[i]);
		if (d < 0)
			return -EINVAL;
		at = (i + odd) / 2;
		out[at] = (uint8_t)((i + odd) & 1 ? out[at] << 4 | d : d);
	}
	*len = (n + odd) / 2;
	return 0;
}

static int base64_digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static int binary_base64(const char *v, uint8_t *out, size_t cap, size_t *len)
{
	size_t n = strlen(v), i, digits = n;
	uint32_t bits = 0;
	unsigned have = 0;
	int d;

	if (!n || n % 4)
		return -EINVAL;
	while (digits > n - 2 && v[digits - 1] == '=')
		digits--;
	if (digits * 6 / 8 > cap)
		return -E2BIG;
	*len = 0;
	for (i = 0; i < digits; i++) {
		d = base64_digit(v[i]);
		if (d < 0)
			return -EINVAL;
		bits = bits << 6 | (unsigned)d;
		have += 6;
		if (have >= 8) {
			have -= 8;
			out[(*len)++] = (uint8_t)(bits >> have);
		}
	}
	return 0;
}

int iscsi_text_binary(const char *value, uint8_t *out, size_t cap, size_t *len)
{
	if (is_hex(value))
		return binary_hex(value + 2, out, cap, len);
	if (value[0] == '0' && (value[1] == 'b' || value[1] == 'B'))
		return binary_base64(value + 2, out, cap, len);
	return -EINVAL;
}

void iscsi_text_hex(const uint8_t *p, size_t len, char *out)
{
	size_t i;

	out += sprintf(out, "0x");
	for (i = 0; i < len; i++)
		out += sprintf(out, "%02x", p[i]);
}

/* ---- names ---- */

static bool all_hex(const char *s, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (hex_digit(s[i]) < 0)
			return false;
	return s[n] == '\0';
}

static bool is_digits(const char *s, unsigned n)
{
	for (; n; n--, s++)
		if (*s < '0' || *s > '9')
			return false;
	return true;
}

bool iscsi_name_is_valid(const char *name)
{
	size_t n = strlen(name), i;

	if (n > 223)
		return false;
	if (!strncmp(name, "eui.", 4))
		return n == 20 && all_hex(name + 4, 16);
	if (!strncmp(name, "naa.", 4))
		return (n == 20 || n == 36) && all_hex(name + 4, n - 4);
	if (strncmp(name, "iqn.", 4) || !is_digits(name + 4, 4) || name[8] != '-' || !is_digits(name + 9, 2) || name[11] != '.' || n < 13)
		return false;
	for (i = 12; i < n; i++)
		if (!((name[i] >= 'a' && name[i] <= 'z') || is_digits(name + i, 1) || strchr("-.:", name[i])) && (uint8_t)name[i] < 0x80)
			return false;
	return true;
}
