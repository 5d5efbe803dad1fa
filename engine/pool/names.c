/*
 * names.c: what a pool, volume or snapshot may be called, and what an export may.
 *
 * Names are keys in tables and never become paths; they are printed to terminals and logs, so what is refused is not
 * repeated as it is: bytes that could steer a terminal come out as '?'.
 */
#include <stdio.h>
#include <string.h>

#include "engine/pool/assembly.h"

#define SHOWN_MAX 64

static bool is_name_char(uint8_t c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.' ||
	       c == ':';
}

/* The beginning of a name as it may be printed. */
static const char *shown(const char *name, char buf[SHOWN_MAX + 4])
{
	size_t i;

	for (i = 0; i < SHOWN_MAX && name[i]; i++)
		buf[i] = (uint8_t)name[i] < 0x20 || (uint8_t)name[i] >= 0x7f ? '?' : name[i];
	strcpy(buf + i, name[i] ? "..." : "");
	return buf;
}

static int check_length(const char *what, const char *name, size_t max, struct err *e)
{
	char buf[SHOWN_MAX + 4];

	if (!name || !name[0])
		return err_set(e, -EINVAL, "the %s name is empty: give it 1 to %zu characters", what, max);
	if (strnlen(name, max + 1) > max)
		return err_set(e, -ENAMETOOLONG, "%s name \"%s\" has %zu bytes: at most %zu are allowed", what, shown(name, buf),
			       strlen(name), max);
	return 0;
}

int name_check(const char *what, const char *name, size_t max, struct err *e)
{
	char buf[SHOWN_MAX + 4], ch[16];
	size_t i;
	int r = check_length(what, name, max, e);

	if (r < 0)
		return r;
	if (name[0] == '-' || name[0] == '.')
		return err_set(e, -EINVAL, "%s name \"%s\" starts with '%c': start it with a letter, a digit, '_' or ':'", what,
			       shown(name, buf), name[0]);
	for (i = 0; name[i]; i++) {
		uint8_t c = (uint8_t)name[i];

		if (is_name_char(c))
			continue;
		snprintf(ch, sizeof(ch), c < 0x20 || c >= 0x7f ? "byte 0x%02x" : "'%c'", c);
		return err_set(e, -EINVAL,
			       "%s name \"%s\" has %s at position %zu: only letters, digits, '_', '-', '.' and ':' are allowed", what,
			       shown(name, buf), ch, i + 1);
	}
	return 0;
}

/* One character of UTF-8 (Unicode 15, table 3-7). Returns its length, 0 if it is none. The string ends with NUL, so a
 * character that is cut short fails at the NUL. */
static size_t utf8_next(const uint8_t *s, uint32_t *out)
{
	size_t i, n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
	uint32_t c = n == 1 ? s[0] : n == 2 ? s[0] & 0x1f : n == 3 ? s[0] & 0x0f : s[0] & 0x07;

	for (i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if ((n == 3 && c < 0x800) || (n == 4 && c < 0x10000) || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return 0;
	*out = c;
	return n;
}

/* Controls, and what makes a listing show something else than is there: line separators, direction overrides, the
 * byte-order mark. */
static bool is_forbidden_char(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
	       (c >= 0x2060 && c <= 0x206f) || c == 0xfeff;
}

int export_name_check(const char *name, struct err *e)
{
	char buf[SHOWN_MAX + 4];
	uint32_t c;
	size_t i, n;
	int r = check_length("export", name, ASHLAR_EXPORT_NAME_MAX, e);

	if (r < 0)
		return r;
	for (i = 0; name[i]; i += n) {
		n = utf8_next((const uint8_t *)name + i, &c);
		if (!n)
			return err_set(e, -EINVAL, "export name \"%s\" is not valid UTF-8 at byte %zu", shown(name, buf), i + 1);
		if (is_forbidden_char(c))
			return err_set(e, -EINVAL,
				       "export name \"%s\" has the control character U+%04X at byte %zu: only visible characters are allowed",
				       shown(name, buf), c, i + 1);
	}
	return 0;
}
