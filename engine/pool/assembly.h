/*
 * assembly.h: from paths to the disks of one pool: found by label, never by path; anything doubtful is refused with a
 * sentence that says what to do.
 *
 * Rules. The newest label (highest generation of a verified label among the disks present) is the pool's word. A disk that
 * it calls ONLINE and that is there is current, unless its own newest generation is below acked_generation: then it was
 * restored from an older copy and counts as STALE. A disk called OUT and present is STALE. But if a disk that is OUT as
 * of generation g carries a label of generation >= g in which it is itself ONLINE, both sides ran apart: -ERR_DIVERGED,
 * naming both sides' disks and generations. (Unless its label calls online whom the newest calls online, and has
 * acknowledged nothing as new as g: a crash left it a label that nobody else got; then it is STALE. See assembly.c.) Two
 * different objects (disk.ident) with the same disk uuid: -ERR_DUPLICATE, naming both paths. The same object by two paths
 * counts once. A disk of another pool among explicit paths is ignored if the pool is asked for by name, refused (naming both
 * pools) if not. A path that cannot be opened counts as absent, and so does a disk that cannot be used as it is: smaller than its
 * label says, or with larger blocks than the pool has; why[] says so. What its label tells counts nevertheless.
 */
#ifndef ENGINE_POOL_ASSEMBLY_H
#define ENGINE_POOL_ASSEMBLY_H

#include "engine/pool/label.h"

#define ASSEMBLY_WHY_BYTES 200

struct assembly_disk {
	struct disk *disk;	   /* NULL: absent */
	enum raid_disk_state_label { ASM_ABSENT, ASM_STALE, ASM_ONLINE } state;
	uint64_t own_generation;
	unsigned damaged; /* label slots */
	bool is_doubtful; /* it was cut short, or has been (label_co_end_is_blank()): what it holds is not what it was given. The state
			   * is what it would be without that */
	char why[ASSEMBLY_WHY_BYTES]; /* ABSENT: why it is not taken as it is there; "": it is not there */
};

struct assembly {
	struct label label; /* the pool's word */
	struct assembly_disk disks[LABEL_DISKS_MAX];
	unsigned n_present;
	bool read_only;	    /* asked for, or an unknown ro_compat feature */
};

/* Expands directories (their files, not deeper) and, for n_paths 0, all block devices (/sys/class/block, whole disks and
 * partitions without holders); in the simulated world paths are taken as they are. Paths belong to the caller (xfree each
 * and the array). */
int assembly_expand_paths(struct world *w, const char *const *paths, size_t n_paths, char ***out, size_t *n,
			  struct err *e) __must_check;
/* Coroutine. For ashlar_co_discover(). Opens read-only without lock, looks, closes. */
int assembly_co_discover(struct world *w, const char *const *paths, size_t n_paths, struct ashlar_found **out, size_t *n,
			 struct ashlar_looked *looked, struct err *e) __must_check;
/* Coroutine. Opens and locks (read-only: shared, so that nobody writes meanwhile) the disks of pool `name` (NULL: the only
 * one on these paths); labels are read again under the lock; the paths in a->label are where the disks are now. On success
 * *a (big: allocate it) holds open disks; the caller closes them. Does not judge whether enough disks are present: the pool
 * does, it knows its groups. */
int assembly_co_open(struct world *w, const char *name, const char *const *paths, size_t n_paths, bool read_only,
		     struct assembly *a, struct err *e) __must_check;
void assembly_close(struct assembly *a);
/* A disk of the pool that is open now, of entry i, has this label of its own: may it come back? By the rules above. */
int assembly_check_return(const struct label *word, unsigned i, const struct label *own, const struct disk *d, struct err *e) __must_check;

/* Coroutine. For pool create: opens and locks every path, refuses foreign signatures and labels of any pool unless force;
 * locked disks, mounted file systems, too small disks and the same object twice always; changes nothing. Disks are returned
 * open, in order; geometry is chosen and filled in out->label (generation 1) except for meta groups, journal and root (pool
 * create's own work). Disks taken by force may carry labels: label_co_wipe() each before the first one is written. */
int assembly_co_prepare(struct world *w, const struct ashlar_pool_spec *s, struct assembly *out, struct err *e) __must_check;

/* Coroutine. For disk add: likewise, for a pool that is there (name, paths and force of *s): the disks are open in out->disks[], in
 * the order of the paths, and fit the pool's geometry. A disk that once was the pool's, and is none of it, needs no force. */
int assembly_co_prepare_more(struct world *w, const struct ashlar_pool_spec *s, const struct label *pool, struct assembly *out,
			     struct err *e) __must_check;
void assembly_new_uuid(struct world *w, struct uuid *u);

/* Names: 0, or -EINVAL / -ENAMETOOLONG with a sentence. */
int name_check(const char *what, const char *name, size_t max, struct err *e) __must_check;
int export_name_check(const char *name, struct err *e) __must_check;

#endif
