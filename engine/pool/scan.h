/*
 * scan.h: labels of a list of paths. Private to discovery and assembly.
 *
 * A scan opens each path read-only and without lock, remembers what its label says and closes it again: it may run while
 * somebody else has the disks. Entries keep the order of the paths; an object named by several of them appears once.
 */
#ifndef ENGINE_POOL_SCAN_H
#define ENGINE_POOL_SCAN_H

#include "engine/pool/label.h"

/* A path whose disk has a label: valid, or whole and not to be understood. */
struct scan_disk {
	char *path;
	struct disk *disk; /* NULL: closed */
	uint64_t ident[2];
	uint64_t size_bytes;
	uint32_t block_bytes;
	unsigned damaged;    /* slots */
	bool end_is_blank;   /* label_co_end_is_blank(); only of disks that are open */
	int result;	     /* 0; -ERR_FEATURE, -ERR_FORMAT: its pool cannot be opened */
	struct err why;	     /* of the latter two */
	struct label *label; /* of them only pool, disk, name and generation count */
};

struct scan {
	struct scan_disk *v;
	size_t n;
	size_t n_paths;	  /* looked at, after expansion */
	size_t n_failed;  /* of them not readable, or with damaged labels */
	struct err first; /* why, of the first one */
};

/* One pool among the disks of a scan. */
struct scan_pool {
	struct uuid uuid;
	size_t word; /* index of the disk with the newest label */
	size_t n_disks;
};

/* Coroutine. Fails only if the paths cannot be expanded; what cannot be opened or read is counted. */
int scan_co_run(struct world *w, const char *const *paths, size_t n_paths, struct scan *s, struct err *e) __must_check;
void scan_fini(struct scan *s);
/* Coroutine. Opens one path and reads its label. 0: *d has a label, d->result says which, the disk stays open. -ENOENT: no
 * label there; any other error: why it cannot be known. Nothing is left open then. */
int scan_disk_co_open(struct world *w, const char *path, unsigned flags, struct scan_disk *d, struct err *e) __must_check;
void scan_disk_fini(struct scan_disk *d); /* closes */
/* Pools in the order of their first disk; caller xfree()s. */
size_t scan_pools(const struct scan *s, struct scan_pool **out);

/* Appends to text of that capacity, and never beyond. */
void text_append(char *text, size_t cap, const char *fmt, ...) __printf_like(3, 4);

#endif
