/*
 * err.h: errors.
 *
 * Every function that can fail returns 0 or a negative number: -errno, or one of the private codes below (each has a
 * parent errno for whoever does not know it). Control-path functions take a last argument `struct err *` (may be NULL)
 * and put one sentence in it: what failed, on which object, what to do.
 */
#ifndef ENGINE_BASE_ERR_H
#define ENGINE_BASE_ERR_H

#include "engine/base/base.h"

/* X(name, number, parent errno, text) */
#define ERR_TABLE(X)                                                              \
	X(ERR_CSUM, 2001, EIO, "checksum mismatch")                               \
	X(ERR_FORMAT, 2002, EIO, "on-disk structure is not valid")                \
	X(ERR_POOL_FULL, 2003, ENOSPC, "pool is full")                            \
	X(ERR_POOL_FAILED, 2004, EIO, "pool has stopped after a fatal error")     \
	X(ERR_MISSING, 2005, EIO, "not enough disks")                             \
	X(ERR_FEATURE, 2006, EPROTONOSUPPORT, "unknown on-disk feature")          \
	X(ERR_FOREIGN, 2007, EEXIST, "disk holds foreign data")                   \
	X(ERR_LOCKED, 2008, EBUSY, "in use by another process")                   \
	X(ERR_DIVERGED, 2009, EUCLEAN, "disks of the pool ran apart")             \
	X(ERR_DUPLICATE, 2010, EEXIST, "two disks carry the same identity")       \
	X(ERR_STALE, 2011, ESTALE, "disk has missed writes")

enum {
#define X(name, num, parent, text) name = num,
	ERR_TABLE(X)
#undef X
};

struct err {
	int code; /* negative, 0: no error */
	char text[500];
};

/* Stores the sentence (a later call replaces it) and returns `code` (negative). e may be NULL. */
int err_set(struct err *e, int code, const char *fmt, ...) __printf_like(3, 4);
/* Puts a prefix before the text that is there: "opening pool p: <text>". Returns e->code. */
int err_prefix(struct err *e, const char *fmt, ...) __printf_like(2, 3);
/* Fills in a generic sentence if the callee left none. Returns code. */
int err_default(struct err *e, int code, const char *what);

/* Maps a private code to its parent errno; both negative. Plain -errno passes through. */
int err_to_errno(int code);
/* Text for any code. Never NULL. */
const char *err_text(int code);

#endif
