/*
 * disk.h: a member of a pool as the world gives it: a raw block device or a file, by O_DIRECT; an export of an NBD server, by a URI
 * (disk_uri.h); or a simulated disk.
 *
 * A disk is opened once per process and may be used from every reactor; a request completes where it was submitted.
 * Buffers must be aligned to block_bytes (use buf.h). Reads and writes of at most max_bytes.
 */
#ifndef ENGINE_IO_DISK_H
#define ENGINE_IO_DISK_H

#include "engine/io/bdev.h"

enum {
	DISK_RDONLY = 1 << 0,
	DISK_NO_LOCK = 1 << 1, /* look at a label while somebody else may have it open */
};

struct disk_ops {
	/* Current reactor. No I/O in flight. Frees. */
	void (*close)(struct disk *d);
	/* Control path. Re-reads the size (a device or file that grew or shrank). */
	int (*refresh)(struct disk *d, struct err *e);
	/* Coroutine, always on the same reactor, about a second at most. Asks the kernel, not the disk. -ENODEV: the device has been
	 * taken away; -ENOENT: the file has been deleted (what it holds is there as long as it is open); -EIO: it has less than
	 * so many bytes. A sentence says which, without the disk's name. 0: nothing is known to be wrong. NULL: it cannot be told. */
	int (*co_alive)(struct disk *d, uint64_t size_bytes, struct err *e);
	/* Coroutine. As disk_co_probe(). NULL: the world knows by the path. */
	int (*co_probe)(struct disk *d, char *what, size_t len, struct err *e);
};

struct disk {
	struct bdev bdev; /* submit is the world's */
	const struct disk_ops *ops;
	struct world *world;
	char *path;
	bool is_block;	 /* block device; else a file, or remote */
	bool is_own;	 /* remote, and its server is this very process, as far as that can be seen */
	uint32_t tail_bytes; /* at its end, behind size_bytes: they make no whole block, and are out of reach */
	uint64_t ident[2]; /* same for two paths to the same object (st_dev, st_ino or st_rdev; the server's address and the export) */
	/* Writes completed and covered by a successful flush, relaxed counters over all reactors: raid skips flushes of disks
	 * with nothing to flush. The world counts a write when it completes, whatever its result, before done. */
	_Atomic uint64_t n_volatile;
	_Atomic uint64_t n_flushed; /* n_volatile as sampled before the newest successful flush; raid advances it */
	_Atomic uint64_t n_writes, n_reads, n_flushes, n_errors, bytes_read, bytes_written;
};

/* Opens and locks (exclusive for writing, shared for DISK_RDONLY; -ERR_LOCKED with a sentence naming who else it may be).
 * Refuses what is neither block device nor regular file. Coroutine: a remote disk is connected to, for five seconds at most (and one
 * whose connection has just broken is first left alone for as long, so that writes that its server still has come to their end).
 * Remote disks cannot be locked. */
static inline int disk_co_open(struct world *w, const char *path, unsigned flags, struct disk **out, struct err *e)
{
	return w->ops->disk_co_open(w, path, flags, out, e);
}

static inline void disk_close(struct disk *d) { d->ops->close(d); }

static inline int disk_co_alive(struct disk *d, uint64_t size_bytes, struct err *e)
{
	return d->ops->co_alive ? d->ops->co_alive(d, size_bytes, e) : 0;
}

/* Foreign signature by libblkid: 1 and its description in `what` ("ext4 file system", "LVM2 member", "GPT partition
 * table"), 0 none found, negative on error. Never writes. Ashlar's own labels are not looked at. */
static inline int disk_probe(struct world *w, const char *path, char *what, size_t len, struct err *e)
{
	return w->ops->disk_probe(w, path, what, len, e);
}

/* Coroutine. The same of a disk that is open, which may be a remote one. */
static inline int disk_co_probe(struct disk *d, char *what, size_t len, struct err *e)
{
	return d->ops->co_probe ? d->ops->co_probe(d, what, len, e) : disk_probe(d->world, d->path, what, len, e);
}

#endif
