/*
 * be.h: big-endian integers, as network protocols and SCSI have them: as structs of bytes (see le.h), and at any address.
 */
#ifndef ENGINE_BASE_BE_H
#define ENGINE_BASE_BE_H

#include <stdint.h>
#include <string.h>
#include <endian.h>

typedef struct { uint8_t b[2]; } be16;
typedef struct { uint8_t b[4]; } be32;
typedef struct { uint8_t b[8]; } be64;

static inline uint16_t be_get16(const void *p) { uint16_t v; memcpy(&v, p, 2); return be16toh(v); }
static inline uint32_t be_get32(const void *p) { uint32_t v; memcpy(&v, p, 4); return be32toh(v); }
static inline uint64_t be_get64(const void *p) { uint64_t v; memcpy(&v, p, 8); return be64toh(v); }
static inline uint32_t be_get24(const void *p) { const uint8_t *b = p; return (uint32_t)b[0] << 16 | be_get16(b + 1); }
static inline uint64_t be_get48(const void *p) { const uint8_t *b = p; return (uint64_t)be_get16(b) << 32 | be_get32(b + 2); }
static inline void be_put16(void *p, uint16_t v) { v = htobe16(v); memcpy(p, &v, 2); }
static inline void be_put32(void *p, uint32_t v) { v = htobe32(v); memcpy(p, &v, 4); }
static inline void be_put64(void *p, uint64_t v) { v = htobe64(v); memcpy(p, &v, 8); }
static inline void be_put24(void *p, uint32_t v) { uint8_t *b = p; b[0] = (uint8_t)(v >> 16); be_put16(b + 1, (uint16_t)v); }
static inline void be_put48(void *p, uint64_t v) { uint8_t *b = p; be_put16(b, (uint16_t)(v >> 32)); be_put32(b + 2, (uint32_t)v); }

static inline uint16_t be16_get(be16 x) { return be_get16(x.b); }
static inline uint32_t be32_get(be32 x) { return be_get32(x.b); }
static inline uint64_t be64_get(be64 x) { return be_get64(x.b); }
static inline be16 be16_make(uint16_t v) { be16 x; be_put16(x.b, v); return x; }
static inline be32 be32_make(uint32_t v) { be32 x; be_put32(x.b, v); return x; }
static inline be64 be64_make(uint64_t v) { be64 x; be_put64(x.b, v); return x; }

#endif
