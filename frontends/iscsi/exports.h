/*
 * exports.h: what a volume's owner has said about it as an iSCSI LUN: kept with the volume, as its note ASHLAR_NOTE_ISCSI.
 *
 * One export is one LUN of one target, for all initiators or those named. A volume may have several. Of one target and LUN there may
 * be several exports, for different initiators: so each of them can have LUNs of its own. Secrets are kept as they are (CHAP needs
 * them so): who can read a pool's disks can read them. Nothing here prints them.
 *
 * Context: coroutines on reactor 0. docs/format.md has the note's format.
 */
#ifndef FRONTENDS_ISCSI_EXPORTS_H
#define FRONTENDS_ISCSI_EXPORTS_H

#include "engine/pool/ashlar.h"
#include "frontends/iscsi/iscsi.h"

#define ISCSI_INITIATORS_MAX 16U
#define ISCSI_EXPORTS_MAX 16U /* of a volume */
#define ISCSI_IQN_PREFIX "iqn.2026-01.org.ashlar:"

struct iscsi_export {
	char pool[ASHLAR_POOL_NAME_MAX + 1];
	char volume[2 * ASHLAR_VOLUME_NAME_MAX + 2]; /* or VOLUME@SNAP */
	char target[224];
	uint16_t lun;
	bool read_only;
	unsigned n_initiators; /* 0: all */
	char (*initiators)[224];
	struct iscsi_secret chap, mutual;
};

void iscsi_exports_free(struct iscsi_export *v, size_t n);
/* All of them, of a pool or (NULL) of all pools, of a volume or (NULL) of all. */
int iscsi_exports_co_list(struct ashlar *a, struct ashlar_pool *p, const char *volume, struct iscsi_export **out, size_t *n, struct err *e)
	__must_check;
/* As `x` says; pool and volume are set by the call. target "": made of the names of pool and volume, or that of its only export; lun -1: the
 * one it has there, or the lowest that is free. One with the same target and LUN is replaced, whole.
 * *x is as it is kept then. */
int iscsi_export_co_add(struct ashlar_pool *p, const char *volume, struct iscsi_export *x, int lun, struct err *e) __must_check;
/* Those of this target ("": all), of this LUN (-1: all). -ENOENT. */
int iscsi_export_co_remove(struct ashlar_pool *p, const char *volume, const char *target, int lun, struct err *e) __must_check;

/* Checks that say what is wrong. */
int iscsi_export_check_name(const char *name, const char *what, struct err *e) __must_check;
int iscsi_export_check_secret(const struct iscsi_secret *s, const char *what, struct err *e) __must_check;

/* The rules of an engine's exports. */
void iscsi_provider_from_ashlar(struct ashlar *a, struct iscsi_provider *out);

/* The note, both ways; for tests and fuzzers. *out: xmalloc'ed. -EINVAL: it is none. Lines, see docs/format.md. */
int iscsi_exports_parse(const void *note, size_t len, struct iscsi_export **out, size_t *n) __must_check;
void *iscsi_exports_format(const struct iscsi_export *v, size_t n, size_t *len);

#endif
