#include "engine/base/crc32c.h"

#include <isa-l/crc.h>

uint32_t crc32c(uint32_t crc, const void *buf, size_t len)
{
	/* crc32_iscsi() takes a non-const pointer and an int length, and neither inverts at start nor at the end. */
	const uint8_t *p = buf;

	crc = ~crc;
	while (len) {
		int n = len > (1 << 30) ? (1 << 30) : (int)len;

		crc = crc32_iscsi((unsigned char *)p, n, crc);
		p += n;
		len -= (size_t)n;
	}
	return ~crc;
}
