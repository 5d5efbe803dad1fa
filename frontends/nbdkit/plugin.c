/*
 * nbdkit-ashlar-plugin: `nbdkit ashlar POOL/VOL disk=PATH [disk=PATH...]`. The engine runs inside nbdkit, so that all of its filters
 * work on a volume or a snapshot.
 *
 * The pools are opened twice: read-only before nbdkit goes into the background (get_ready), so that whoever started it hears what is
 * wrong; and in the process that serves (after_fork), for threads do not survive a fork. Whoever started it may be told that it is in the
 * background before that, and clients wait until then; what has the pool in between is waited for. They are closed when nbdkit ends
 * (cleanup); if it is killed, the pool recovers when it is opened next, as after a power cut.
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/units.h"
#include "frontends/nbdkit/engine.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL
#define EXTENTS_AT_ONCE 128
#define REQUEST_MAX (32u << 20) /* as other servers have it */
#define READY_WAIT_NS (2 * NS_PER_SEC)	 /* for a pool that a command has for a moment */
#define FORKED_WAIT_NS (20 * NS_PER_SEC) /* it was free a moment ago, and there is nobody any more to hear that it is not */

static struct plugin_options options;
static struct plugin_engine *engine;

static int refuse(int r, const struct err *e)
{
	nbdkit_error("%s", e->text);
	nbdkit_set_error(-r);
	return -1;
}

static int ended(int r)
{
	if (r == 0)
		return 0;
	nbdkit_set_error(r == -ERANGE ? EINVAL : -r);
	return -1;
}

static void on_log(void *arg, const char *line)
{
	nbdkit_error("%s", line); /* what nbdkit shows, or hands to syslog, unasked */
}

/* ---- parameters ---- */

static int config_volume(const char *value)
{
	const char *slash = strchr(value, '/');

	if (!slash || slash == value || !slash[1]) {
		nbdkit_error("volume=%s: give POOL/VOL or POOL/VOL@SNAP", value);
		return -1;
	}
	options.volume = nbdkit_strdup_intern(value);
	return options.volume ? 0 : -1;
}

/* Absolute, for nbdkit leaves the directory. What is no path (nbd://...) stays as it is. */
static int config_disk(const char *value)
{
	char *path = strstr(value, "://") ? NULL : nbdkit_absolute_path(value);

	if (!path && !strstr(value, "://"))
		return -1;
	options.disks = xrealloc(options.disks, (options.n_disks + 1) * sizeof(*options.disks));
	options.disks[options.n_disks++] = xstrdup(path ? path : value);
	free(path);
	return 0;
}

static int config_reactors(const char *value)
{
	if (nbdkit_parse_unsigned("reactors", value, &options.n_reactors) < 0)
		return -1;
	if (options.n_reactors >= 1 && options.n_reactors <= REACTORS_MAX)
		return 0;
	nbdkit_error("reactors must be a number from 1 to %d", REACTORS_MAX);
	return -1;
}

static int config_cache(const char *value)
{
	int64_t n = nbdkit_parse_size(value);

	if (n < 0)
		return -1;
	if ((uint64_t)n < MIB) {
		nbdkit_error("metadata-cache must be at least 1M");
		return -1;
	}
	options.metadata_cache_bytes = (uint64_t)n;
	return 0;
}

static int plugin_config(const char *key, const char *value)
{
	int b;

	if (!strcmp(key, "volume"))
		return config_volume(value);
	if (!strcmp(key, "disk"))
		return config_disk(value);
	if (!strcmp(key, "reactors"))
		return config_reactors(value);
	if (!strcmp(key, "metadata-cache"))
		return config_cache(value);
	if (!strcmp(key, "io")) {
		if (real_io_parse(value, &options.io))
			return 0;
		nbdkit_error("io=%s: it can be uring, aio or auto", value);
		return -1;
	}
	if (!strcmp(key, "read-only")) {
		b = nbdkit_parse_bool(value);
		options.read_only = b > 0;
		return b < 0 ? -1 : 0;
	}
	nbdkit_error("there is no parameter %s; see `nbdkit ashlar --help`", key);
	return -1;
}

static int plugin_config_complete(void)
{
	options.log = on_log;
	if (options.n_disks)
		return 0;
	nbdkit_error("on which disks is the pool? Give disk=PATH for each, or for a directory of them");
	return -1;
}

#define HELP                                                                                             \
	"[volume=]POOL/VOL    what is served; POOL/VOL@SNAP: a snapshot, read-only. Without it clients\n" \
	"                     choose among all volumes and snapshots of the pools on the disks.\n"        \
	"disk=PATH            (required, repeatable) a disk of the pool, or a directory of them.\n"      \
	"read-only=true       open the pool read-only: nothing is written to any disk.\n"                \
	"reactors=N           threads of the engine (default: one per CPU).\n"                           \
	"metadata-cache=SIZE  memory for metadata pages (default: 256M).\n"                              \
	"io=uring|aio|auto    how disks are read and written (default: io_uring if it is allowed)."

static void plugin_dump(void)
{
	printf("ashlar_version=%s\n", ASHLAR_VERSION);
	printf("ashlar_io=uring aio\n");
	printf("ashlar_layouts=single raid0 raid1 raid1-3 raid10 raid10-3 raid5 raid6\n");
}

/* ---- life ---- */

/* Is everything there? */
static int plugin_get_ready(void)
{
	struct plugin_volume *v;
	struct plugin_engine *g;
	struct err e = { 0 }, ignored;
	int r = plugin_engine_start(&options, true, READY_WAIT_NS, &g, &e);

	if (r < 0)
		return refuse(r, &e);
	if (options.volume) {
		r = plugin_volume_open(g, options.volume, &v, &e);
		if (r == 0)
			plugin_volume_close(v);
	}
	(void)plugin_engine_stop(g, &ignored);
	return r < 0 ? refuse(r, &e) : 0;
}

static int plugin_after_fork(void)
{
	struct err e = { 0 };
	int r = plugin_engine_start(&options, options.read_only, FORKED_WAIT_NS, &engine, &e);

	return r < 0 ? refuse(r, &e) : 0;
}

static void plugin_cleanup(void)
{
	struct err e = { 0 };

	if (engine && plugin_engine_stop(engine, &e) < 0)
		nbdkit_error("%s; it recovers when it is opened again", e.text);
	engine = NULL;
}

static void plugin_unload(void)
{
	while (options.n_disks)
		xfree(options.disks[--options.n_disks]);
	xfree(options.disks);
}

/* ---- exports ---- */

/* With a volume given that one and its snapshots are all that can be reached. */
static bool is_served(const char *name)
{
	size_t len;

	if (!options.volume)
		return true;
	len = strlen(options.volume);
	return !strncmp(name, options.volume, len) && (!name[len] || (name[len] == '@' && !strchr(options.volume, '@')));
}

static int plugin_list_exports(int readonly, int is_tls, struct nbdkit_exports *exports)
{
	struct ashlar_export_info *v;
	struct err e = { 0 };
	char what[64], size[16];
	size_t i, n;
	int r = plugin_engine_list(engine, &v, &n, &e);

	if (r < 0)
		return refuse(r, &e);
	for (i = 0; i < n && r == 0; i++) {
		if (!is_served(v[i].name))
			continue;
		snprintf(what, sizeof(what), "%s of %s%s", v[i].is_snapshot ? "snapshot" : "volume",
			 size_format(v[i].size_bytes, size, sizeof(size)), v[i].read_only ? ", read-only" : "");
		r = nbdkit_add_export(exports, v[i].name, what);
	}
	xfree(v);
	return r;
}

/* The volume given, or the only one there is. NULL: none. */
static const char *plugin_default_export(int readonly, int is_tls)
{
	struct ashlar_export_info *v;
	const char *name = NULL;
	struct err e = { 0 };
	size_t i, n;
	unsigned found = 0;

	if (options.volume)
		return options.volume;
	if (plugin_engine_list(engine, &v, &n, &e) < 0)
		return NULL;
	for (i = 0; i < n; i++) {
		if (v[i].is_snapshot)
			continue;
		found++;
		name = v[i].name;
	}
	name = found == 1 ? nbdkit_strdup_intern(name) : NULL;
	xfree(v);
	return name;
}

static void *plugin_open(int readonly)
{
	const char *name = nbdkit_export_name();
	struct plugin_volume *v;
	struct err e = { 0 };
	int r;

	if (name && !*name)
		name = plugin_default_export(readonly, 0);
	if (!name || !is_served(name)) {
		nbdkit_error("there is no export %s here", name ? name : "by default: the client has to name one of several");
		nbdkit_set_error(ENOENT);
		return NULL;
	}
	r = plugin_volume_open(engine, name, &v, &e);
	if (r < 0) {
		(void)refuse(r, &e);
		return NULL;
	}
	return v;
}

static void plugin_close(void *handle)
{
	plugin_volume_close(handle);
}

static const char *plugin_export_description(void *handle)
{
	const struct bdev *b = plugin_volume_bdev(handle);
	char size[16];

	return nbdkit_printf_intern("Ashlar %s %s of %s", strchr(plugin_volume_name(handle), '@') ? "snapshot" : "volume", plugin_volume_name(handle),
				    size_format(b->size_bytes, size, sizeof(size)));
}

static int64_t plugin_get_size(void *handle)
{
	return (int64_t)plugin_volume_bdev(handle)->size_bytes;
}

static int plugin_block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
	const struct bdev *b = plugin_volume_bdev(handle);

	*minimum = b->block_bytes;
	*preferred = MIN(MAX(b->opt_bytes, b->block_bytes), REQUEST_MAX);
	*maximum = REQUEST_MAX;
	return 0;
}

static int plugin_can_write(void *handle)
{
	return !plugin_volume_is_read_only(handle);
}

static int plugin_yes(void *handle)
{
	return 1;
}

static int plugin_no(void *handle)
{
	return 0;
}

static int plugin_can_fua(void *handle)
{
	return NBDKIT_FUA_NATIVE;
}

static int plugin_can_cache(void *handle)
{
	return NBDKIT_CACHE_NATIVE;
}

/* ---- requests ---- */

static unsigned io_flags(uint32_t flags)
{
	return (flags & NBDKIT_FLAG_FUA ? IO_FUA : 0) | (flags & NBDKIT_FLAG_FAST_ZERO ? IO_FAST_ZERO : 0);
}

static int plugin_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	return ended(plugin_volume_io(handle, IO_READ, buf, offset, count, 0));
}

static int plugin_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	return ended(plugin_volume_io(handle, IO_WRITE, (void *)(uintptr_t)buf, offset, count, io_flags(flags)));
}

static int plugin_flush(void *handle, uint32_t flags)
{
	return ended(plugin_volume_io(handle, IO_FLUSH, NULL, 0, 0, 0));
}

static int plugin_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	return ended(plugin_volume_io(handle, IO_DISCARD, NULL, offset, count, io_flags(flags)));
}

static int plugin_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	return ended(plugin_volume_io(handle, IO_ZERO, NULL, offset, count,
				      io_flags(flags) | (flags & NBDKIT_FLAG_MAY_TRIM ? 0 : IO_NO_HOLE)));
}

/* exts NULL: only looked at, which brings the volume's map into memory. */
static int extents_walk(void *handle, uint32_t count, uint64_t offset, bool one, struct nbdkit_extents *exts)
{
	struct bdev_extent ext[EXTENTS_AT_ONCE];
	uint64_t end = offset + count;
	size_t i, n;
	int r;

	while (offset < end) {
		n = one ? 1 : EXTENTS_AT_ONCE;
		r = plugin_volume_status(handle, offset, end - offset, ext, &n);
		if (r < 0)
			return ended(r);
		for (i = 0; i < n; i++) {
			uint32_t type = (ext[i].flags & BDEV_HOLE ? NBDKIT_EXTENT_HOLE : 0) |
					(ext[i].flags & BDEV_ZERO ? NBDKIT_EXTENT_ZERO : 0);

			if (exts && nbdkit_add_extent(exts, offset, ext[i].len_bytes, type) < 0)
				return -1;
			offset += ext[i].len_bytes;
		}
		if (one)
			break;
	}
	return 0;
}

static int plugin_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags, struct nbdkit_extents *exts)
{
	return extents_walk(handle, count, offset, flags & NBDKIT_FLAG_REQ_ONE, exts);
}

static int plugin_cache(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	return extents_walk(handle, count, offset, false, NULL);
}

static struct nbdkit_plugin plugin = {
	.name = "ashlar",
	.longname = "Ashlar volumes",
	.version = ASHLAR_VERSION,
	.description = "thin volumes and snapshots of a pool of disks, with RAID",
	.config = plugin_config,
	.config_complete = plugin_config_complete,
	.config_help = HELP,
	.magic_config_key = "volume",
	.dump_plugin = plugin_dump,
	.unload = plugin_unload,
	.get_ready = plugin_get_ready,
	.after_fork = plugin_after_fork,
	.cleanup = plugin_cleanup,
	.list_exports = plugin_list_exports,
	.default_export = plugin_default_export,
	.export_description = plugin_export_description,
	.open = plugin_open,
	.close = plugin_close,
	.get_size = plugin_get_size,
	.block_size = plugin_block_size,
	.can_write = plugin_can_write,
	.can_flush = plugin_yes,
	.can_trim = plugin_yes,
	.can_zero = plugin_yes,
	.can_fast_zero = plugin_yes,
	.can_extents = plugin_yes,
	.can_multi_conn = plugin_yes,
	.can_fua = plugin_can_fua,
	.can_cache = plugin_can_cache,
	.is_rotational = plugin_no,
	.pread = plugin_pread,
	.pwrite = plugin_pwrite,
	.flush = plugin_flush,
	.trim = plugin_trim,
	.zero = plugin_zero,
	.extents = plugin_extents,
	.cache = plugin_cache,
	.errno_is_preserved = 1,
};

NBDKIT_DLL_PUBLIC struct nbdkit_plugin *plugin_init(void); /* nbdkit's header forgets it */
NBDKIT_REGISTER_PLUGIN(plugin)
