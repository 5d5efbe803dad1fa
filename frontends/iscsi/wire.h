/*
 * wire.h: big-endian integers at any address, as iSCSI and SCSI have them.
 */
#ifndef FRONTENDS_ISCSI_WIRE_H
#define FRONTENDS_ISCSI_WIRE_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t wire_get16(const void *p) { uint16_t v; memcpy(&v, p, 2); return be16toh(v); }
static inline uint32_t wire_get32(const void *p) { uint32_t v; memcpy(&v, p, 4); return be32toh(v); }
static inline uint64_t wire_get64(const void *p) { uint64_t v; memcpy(&v, p, 8); return be64toh(v); }
static inline uint32_t wire_get24(const void *p) { const uint8_t *b = p; return (uint32_t)b[0] << 16 | wire_get16(b + 1); }
static inline uint64_t wire_get48(const void *p) { const uint8_t *b = p; return (uint64_t)wire_get16(b) << 32 | wire_get32(b + 2); }
static inline void wire_put16(void *p, uint16_t v) { v = htobe16(v); memcpy(p, &v, 2); }
static inline void wire_put32(void *p, uint32_t v) { v = htobe32(v); memcpy(p, &v, 4); }
static inline void wire_put64(void *p, uint64_t v) { v = htobe64(v); memcpy(p, &v, 8); }
static inline void wire_put24(void *p, uint32_t v) { uint8_t *b = p; b[0] = (uint8_t)(v >> 16); wire_put16(b + 1, (uint16_t)v); }
static inline void wire_put48(void *p, uint64_t v) { uint8_t *b = p; wire_put16(b, (uint16_t)(v >> 32)); wire_put32(b + 2, (uint32_t)v); }

#endif
