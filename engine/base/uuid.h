/*
 * uuid.h: 16 bytes of identity. The bytes come from the caller's source of randomness.
 */
#ifndef ENGINE_BASE_UUID_H
#define ENGINE_BASE_UUID_H

#include "engine/base/base.h"

struct uuid {
	uint8_t b[16];
};

#define UUID_TEXT_LEN 37 /* with the NUL */

/* Sets version 4 and variant bits of 16 random bytes. */
void uuid_from_random(struct uuid *u, const uint8_t random[16]);
bool uuid_is_zero(const struct uuid *u);
bool uuid_is_equal(const struct uuid *a, const struct uuid *b);
char *uuid_format(const struct uuid *u, char buf[UUID_TEXT_LEN]);
int uuid_parse(const char *text, struct uuid *u) __must_check;

#endif
