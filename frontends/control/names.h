/*
 * names.h: names and sizes as users give them: what is allowed, and a sentence that says what is not.
 *
 * The engine checks again; these are here so that command line and control socket refuse the same things with the same
 * words before a pool is touched.
 */
#ifndef FRONTENDS_CONTROL_NAMES_H
#define FRONTENDS_CONTROL_NAMES_H

#include "engine/base/err.h"
#include "engine/pool/ashlar.h"

int control_check_pool(const char *name, struct err *e) __must_check;
int control_check_volume(const char *name, struct err *e) __must_check;
int control_check_snapshot(const char *name, struct err *e) __must_check; /* the part behind the '@' */
int control_check_export(const char *name, struct err *e) __must_check;

struct volume_name {
	char pool[ASHLAR_POOL_NAME_MAX + 1];
	char volume[ASHLAR_VOLUME_NAME_MAX + 1];
};
/* "POOL/VOL". -EINVAL with a sentence. */
int control_name_split(const char *text, struct volume_name *out, struct err *e) __must_check;

struct point_name {
	char pool[ASHLAR_POOL_NAME_MAX + 1];
	char volume[ASHLAR_VOLUME_NAME_MAX + 1];
	char snap[ASHLAR_VOLUME_NAME_MAX + 1]; /* "": the volume itself */
	char rest[2 * ASHLAR_VOLUME_NAME_MAX + 2]; /* without the pool, as ashlar.h takes it */
};
/* "POOL/VOL" or "POOL/VOL@SNAP"; the second only. */
int control_point_split(const char *text, struct point_name *out, struct err *e) __must_check;
int control_snapshot_split(const char *text, struct point_name *out, struct err *e) __must_check;

/* The new name of a rename: "NEW" or "POOL/NEW" in the same pool. */
int control_name_split_new(const char *text, const struct volume_name *old, struct volume_name *out, struct err *e) __must_check;
/* A volume's size: not 0, not beyond the limit. */
int control_check_size(uint64_t size_bytes, struct err *e) __must_check;

/* Copies text with control characters and what is not ASCII replaced, cut to len: for quoting in messages. Returns buf. */
char *control_name_quote(const char *text, char *buf, size_t len);

#endif
