/*
 * engine.h: the engine inside nbdkit, for the plugin (plugin.c), whose threads are not reactors.
 *
 * Reactors run on threads of their own. Every call here comes from a thread of nbdkit's, hops to a reactor and waits for it there;
 * calls of several threads go on at the same time. Errors are 0 or -errno (private codes mapped), with a sentence where there is a
 * `struct err`.
 */
#ifndef FRONTENDS_NBDKIT_ENGINE_H
#define FRONTENDS_NBDKIT_ENGINE_H

#include "engine/io/real.h"
#include "engine/pool/ashlar.h"

struct plugin_options {
	const char *volume; /* POOL/VOL or POOL/VOL@SNAP: only that pool is opened; NULL: all pools on the disks */
	char **disks;
	size_t n_disks;
	unsigned n_reactors; /* 0: one per CPU */
	uint64_t metadata_cache_bytes;
	enum real_io io;
	bool read_only;
	void (*log)(void *arg, const char *line); /* any thread */
};

struct plugin_engine;

/* Opens the pools; on an error nothing is left. A pool that somebody else has is waited for so long. */
int plugin_engine_start(const struct plugin_options *o, bool read_only, uint64_t locked_wait_ns, struct plugin_engine **out, struct err *e)
	__must_check;
/* Closes them, and volumes that are still open. */
int plugin_engine_stop(struct plugin_engine *g, struct err *e);

/* Exports that are not hidden; the caller's, xfree(). */
int plugin_engine_list(struct plugin_engine *g, struct ashlar_export_info **out, size_t *n, struct err *e) __must_check;

struct plugin_volume;
int plugin_volume_open(struct plugin_engine *g, const char *name, struct plugin_volume **out, struct err *e) __must_check;
/* No call for it under way. */
void plugin_volume_close(struct plugin_volume *v);
const struct bdev *plugin_volume_bdev(const struct plugin_volume *v); /* to look at */
const char *plugin_volume_name(const struct plugin_volume *v);
bool plugin_volume_is_read_only(const struct plugin_volume *v);

/* Of any length. read: buf is filled, write: it is written; else NULL. flags: of the engine (IO_FUA, ...). */
int plugin_volume_io(struct plugin_volume *v, enum io_op op, void *buf, uint64_t off_bytes, uint64_t len_bytes, unsigned flags)
	__must_check;
/* As bdev_co_status(). */
int plugin_volume_status(struct plugin_volume *v, uint64_t off_bytes, uint64_t len_bytes, struct bdev_extent *ext, size_t *n)
	__must_check;

#endif
