/*
 * units.h: the only place where units are converted.
 */
#ifndef ENGINE_BASE_UNITS_H
#define ENGINE_BASE_UNITS_H

#include "engine/base/base.h"

#define KIB (1ULL << 10)
#define MIB (1ULL << 20)
#define GIB (1ULL << 30)
#define TIB (1ULL << 40)
#define PIB (1ULL << 50)
#define NS_PER_US 1000ULL
#define NS_PER_MS 1000000ULL
#define NS_PER_SEC 1000000000ULL
#define SECT_BYTES 512ULL
#define PAGE_BYTES 4096ULL

/* "10G", "64KiB", "512", "1.5T": powers of 1024; K, M, G, T, P, each alone or with iB; "KB".. are powers of 1000.
 * Returns 0, or -EINVAL (not a size, negative), -ERANGE (above 2^63-1). */
int size_parse(const char *text, uint64_t *bytes) __must_check;
/* "10G", "1.5T", "0": at most 4 significant digits, as ZFS prints; buf of at least 16 bytes. Returns buf. */
char *size_format(uint64_t bytes, char *buf, size_t len);
/* "30s", "5m", "1h", "forever" (UINT64_MAX), "0". Returns 0 or -EINVAL. */
int duration_parse(const char *text, uint64_t *ns) __must_check;

#endif
