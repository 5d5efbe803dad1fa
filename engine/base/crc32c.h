/*
 * crc32c.h: CRC-32C (Castagnoli, RFC 3720 B.4) by ISA-L. Start value: pass 0 for a fresh sum, or the result of an
 * earlier call to go on. Result is the standard, final-inverted value.
 */
#ifndef ENGINE_BASE_CRC32C_H
#define ENGINE_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t crc32c(uint32_t crc, const void *buf, size_t len);

#endif
