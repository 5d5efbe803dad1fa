#include "engine/base/uuid.h"

#include <stdio.h>
#include <string.h>

void uuid_from_random(struct uuid *u, const uint8_t random[16])
{
	memcpy(u->b, random, 16);
	u->b[6] = (uint8_t)((u->b[6] & 0x0f) | 0x40);
	u->b[8] = (uint8_t)((u->b[8] & 0x3f) | 0x80);
}

bool uuid_is_zero(const struct uuid *u)
{
	static const struct uuid zero;

	return !memcmp(u, &zero, sizeof(zero));
}

bool uuid_is_equal(const struct uuid *a, const struct uuid *b)
{
	return !memcmp(a, b, sizeof(*a));
}

char *uuid_format(const struct uuid *u, char buf[UUID_TEXT_LEN])
{
	unsigned i;
	char *p = buf;

	for (i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		p += sprintf(p, "%02x", u->b[i]);
	}
	return buf;
}

int uuid_parse(const char *text, struct uuid *u)
{
	unsigned i, v;
	int n;

	for (i = 0; i < 16; i++) {
		if ((i == 4 || i == 6 || i == 8 || i == 10) && *text++ != '-')
			return -EINVAL;
		if (sscanf(text, "%2x%n", &v, &n) != 1 || n != 2)
			return -EINVAL;
		u->b[i] = (uint8_t)v;
		text += 2;
	}
	return *text ? -EINVAL : 0;
}
