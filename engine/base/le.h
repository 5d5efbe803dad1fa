/*
 * le.h: little-endian on-disk integers as structs of bytes: no alignment, no accidental arithmetic.
 */
#ifndef ENGINE_BASE_LE_H
#define ENGINE_BASE_LE_H

#include <stdint.h>
#include <string.h>
#include <endian.h>

typedef struct { uint8_t b[2]; } le16;
typedef struct { uint8_t b[4]; } le32;
typedef struct { uint8_t b[8]; } le64;

static inline uint16_t le16_get(le16 x) { uint16_t v; memcpy(&v, x.b, 2); return le16toh(v); }
static inline uint32_t le32_get(le32 x) { uint32_t v; memcpy(&v, x.b, 4); return le32toh(v); }
static inline uint64_t le64_get(le64 x) { uint64_t v; memcpy(&v, x.b, 8); return le64toh(v); }
static inline le16 le16_make(uint16_t v) { le16 x; v = htole16(v); memcpy(x.b, &v, 2); return x; }
static inline le32 le32_make(uint32_t v) { le32 x; v = htole32(v); memcpy(x.b, &v, 4); return x; }
static inline le64 le64_make(uint64_t v) { le64 x; v = htole64(v); memcpy(x.b, &v, 8); return x; }

#endif
