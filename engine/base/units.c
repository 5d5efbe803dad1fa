#include "engine/base/units.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* Reads digits with an optional fraction as value * 10^-scale. */
static const char *decimal_parse(const char *s, unsigned __int128 *value, uint64_t *scale)
{
	const char *start = s;

	*value = 0;
	*scale = 1;
	for (; isdigit((unsigned char)*s); s++) {
		if (*value > UINT64_MAX)
			return NULL;
		*value = *value * 10 + (unsigned)(*s - '0');
	}
	if (s == start)
		return NULL;
	if (*s == '.') {
		for (s++, start = s; isdigit((unsigned char)*s) && s - start < 6; s++, *scale *= 10)
			*value = *value * 10 + (unsigned)(*s - '0');
		if (s == start)
			return NULL;
	}
	return s;
}

int size_parse(const char *text, uint64_t *bytes)
{
	static const char letters[] = "KMGTP";
	unsigned __int128 v;
	uint64_t scale, unit = 1;
	const char *s = decimal_parse(text, &v, &scale), *l;

	if (!s)
		return isdigit((unsigned char)text[0]) ? -ERANGE : -EINVAL;
	if (*s && (l = strchr(letters, toupper((unsigned char)*s)))) {
		uint64_t base = s[1] == 'B' || s[1] == 'b' ? 1000 : 1024;
		long i;

		for (i = 0; i <= l - letters; i++)
			unit *= base;
		s++;
		if (*s == 'i')
			s++;
		if (*s == 'B' || *s == 'b')
			s++;
	} else if (*s == 'B' || *s == 'b') {
		s++;
	}
	if (*s)
		return -EINVAL;
	v = v * unit / scale;
	if (v > INT64_MAX)
		return -ERANGE;
	*bytes = (uint64_t)v;
	return 0;
}

char *size_format(uint64_t bytes, char *buf, size_t len)
{
	static const char letters[] = " KMGTPE";
	unsigned i = 0;
	uint64_t unit = 1;

	while (i < 6 && bytes / unit >= 1024) {
		unit *= 1024;
		i++;
	}
	if (i == 0)
		snprintf(buf, len, "%llu", (unsigned long long)bytes);
	else if (bytes % unit == 0)
		snprintf(buf, len, "%llu%c", (unsigned long long)(bytes / unit), letters[i]);
	else if (bytes / unit < 10)
		snprintf(buf, len, "%.2f%c", (double)bytes / (double)unit, letters[i]);
	else
		snprintf(buf, len, "%.1f%c", (double)bytes / (double)unit, letters[i]);
	return buf;
}

int duration_parse(const char *text, uint64_t *ns)
{
	unsigned __int128 v;
	uint64_t scale, unit = NS_PER_SEC;
	const char *s;

	if (!strcmp(text, "forever")) {
		*ns = UINT64_MAX;
		return 0;
	}
	s = decimal_parse(text, &v, &scale);
	if (!s)
		return -EINVAL;
	if (!strcmp(s, "ms"))
		unit = NS_PER_MS;
	else if (!strcmp(s, "m"))
		unit = 60 * NS_PER_SEC;
	else if (!strcmp(s, "h"))
		unit = 3600 * NS_PER_SEC;
	else if (!strcmp(s, "d"))
		unit = 86400 * NS_PER_SEC;
	else if (*s && strcmp(s, "s"))
		return -EINVAL;
	v = v * unit / scale;
	if (v >= UINT64_MAX)
		return -EINVAL;
	*ns = (uint64_t)v;
	return 0;
}
