/*
 * Opening and closing real disks, and their place in the tables of registered files.
 *
 * A reactor registers a disk's file when it first uses it, and its table then holds a reference. Closing gives up the
 * locks at once, takes the file out of the own table, and sends every other reactor a message to do the same; the last
 * one frees. Until then an exclusive block device is still claimed: opening one that is busy waits for disks that are
 * closing, after having done the own part for them.
 */
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "engine/base/units.h"
#include "engine/io/disk_uri.h"
#include "engine/io/real_priv.h"

#define MAX_BYTES (4 * MIB)
#define BUSY_TRIES 200 /* of a millisecond */
#define STAT_NS NS_PER_SEC

/* ---- what sort of thing it is ---- */

/* A number, or -1, from the queue directory of a block device (a partition's is its parent's). */
static long queue_attr(dev_t dev, const char *name, char *text, size_t len)
{
	static const char *const forms[] = { "/sys/dev/block/%u:%u/queue/%s", "/sys/dev/block/%u:%u/../queue/%s" };
	char path[128];
	unsigned i;
	FILE *f;

	for (i = 0; i < ARRAY_LEN(forms); i++) {
		snprintf(path, sizeof(path), forms[i], major(dev), minor(dev), name);
		f = fopen(path, "re");
		if (!f)
			continue;
		if (!fgets(text, (int)len, f))
			text[0] = 0;
		fclose(f);
		return strtol(text, NULL, 10);
	}
	text[0] = 0;
	return -1;
}

static uint32_t file_block_bytes(int fd, void *probe)
{
#ifdef STATX_DIOALIGN
	struct statx stx;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 && (stx.stx_mask & STATX_DIOALIGN) &&
	    stx.stx_dio_offset_align)
		return MAX(stx.stx_dio_offset_align, 512u);
#endif
	return pread(fd, probe, 512, 0) < 0 && errno == EINVAL ? 4096 : 512;
}

static bool is_nowait_ok(int fd, void *probe)
{
	struct iovec iov = { probe, 4096 };

	return preadv2(fd, &iov, 1, 0, RWF_NOWAIT) >= 0 || errno != EOPNOTSUPP;
}

static bool is_in_memory(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

/* A file system that is a process or another machine lets whoever submits wait as long as it does not answer: io_submit(), and
 * io_uring, too, if its files can be polled. */
static void describe_submission(struct udisk *d, void *probe)
{
	d->is_nowait_ok = is_nowait_ok(d->fd, probe);
	d->by_worker = !d->is_nowait_ok && !d->disk.is_block && !is_in_memory(d->fd);
	d->by_aio = !d->by_worker && !(d->is_nowait_ok && d->w->ops->is_nowait_aware);
}

static int disk_size(struct udisk *d, uint64_t *size)
{
	struct stat st;

	if (d->disk.is_block)
		return ioctl(d->fd, BLKGETSIZE64, size) < 0 ? -errno : 0;
	if (fstat(d->fd, &st) < 0)
		return -errno;
	*size = (uint64_t)st.st_size;
	return 0;
}

/* A device of memory: zram, brd, without a write-back cache. For others, that the kernel thinks there is no volatile
 * cache may change while the disk is open, and flushes are left to it. */
static bool is_memory_device(dev_t dev)
{
	char path[64], target[256], text[64], *name;
	ssize_t n;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u", major(dev), minor(dev));
	n = readlink(path, target, sizeof(target) - 1);
	if (n <= 0)
		return false;
	target[n] = 0;
	name = strrchr(target, '/') ? strrchr(target, '/') + 1 : target;
	if (strncmp(name, "zram", 4) && strncmp(name, "ram", 3))
		return false;
	queue_attr(dev, "write_cache", text, sizeof(text));
	return !strncmp(text, "write through", 13);
}

static int describe_block(struct udisk *d, const struct stat *st)
{
	struct bdev *b = &d->disk.bdev;
	unsigned opt = 0;
	char text[64];
	int block = 0;

	if (ioctl(d->fd, BLKSSZGET, &block) < 0)
		return -errno;
	b->block_bytes = (uint32_t)block;
	if (ioctl(d->fd, BLKIOOPT, &opt) < 0)
		opt = 0;
	b->opt_bytes = MAX(opt, 4096u);
	b->can_discard = queue_attr(st->st_rdev, "discard_max_bytes", text, sizeof(text)) > 0;
	d->flush_is_nothing = is_memory_device(st->st_rdev);
	d->disk.ident[0] = st->st_rdev;
	d->disk.ident[1] = UINT64_MAX;
	return 0;
}

static int describe(struct udisk *d, const struct stat *st, struct err *e)
{
	struct bdev *b = &d->disk.bdev;
	void *probe = xaligned(4096, 4096);
	int r = 0;

	if (d->disk.is_block) {
		r = describe_block(d, st);
	} else {
		b->block_bytes = file_block_bytes(d->fd, probe);
		b->opt_bytes = MAX((uint32_t)st->st_blksize, 4096u);
		b->can_discard = true;
		d->flush_is_nothing = is_in_memory(d->fd);
		d->disk.ident[0] = st->st_dev;
		d->disk.ident[1] = st->st_ino;
		d->had_name = st->st_nlink != 0; /* some file systems do not count */
	}
	describe_submission(d, probe);
	xfree(probe);
	if (r == 0)
		r = disk_size(d, &b->size_bytes);
	if (r < 0)
		return err_set(e, r, "cannot find out about %s: %s", d->disk.path, strerror(-r));
	if (b->block_bytes != 512 && b->block_bytes != 4096)
		return err_set(e, -EINVAL, "%s has blocks of %u bytes; only 512 and 4096 are supported", d->disk.path,
			       b->block_bytes);
	d->disk.tail_bytes = (uint32_t)(b->size_bytes % b->block_bytes);
	b->size_bytes -= d->disk.tail_bytes;
	b->max_bytes = MAX_BYTES;
	b->copies = 1;
	b->read_only = d->flags & DISK_RDONLY;
	b->name = d->disk.path;
	return 0;
}

/* ---- locks ---- */

static int refuse_locked(const char *path, bool is_block, struct err *e)
{
	return err_set(e, -ERR_LOCKED, "%s is in use by another process (%s)", path,
		       is_block ? "an ashlar daemon, a mounted file system, swap, LVM or md" : "an ashlar daemon, or qemu");
}

static int disk_lock(struct udisk *d, struct err *e)
{
	struct flock fl = { .l_type = d->flags & DISK_RDONLY ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET };
	int r;

	if (d->flags & DISK_NO_LOCK)
		return 0;
	if (d->disk.is_block)
		r = flock(d->fd, LOCK_NB | (d->flags & DISK_RDONLY ? LOCK_SH : LOCK_EX));
	else
		r = fcntl(d->fd, F_OFD_SETLK, &fl);
	if (r == 0)
		return 0;
	r = -errno;
	if (r == -EAGAIN || r == -EACCES)
		return refuse_locked(d->disk.path, d->disk.is_block, e);
	return err_set(e, r, "cannot lock %s: %s", d->disk.path, strerror(-r));
}

static void disk_unlock(struct udisk *d)
{
	struct flock fl = { .l_type = F_UNLCK, .l_whence = SEEK_SET };

	if (d->flags & DISK_NO_LOCK)
		return;
	if (d->disk.is_block)
		flock(d->fd, LOCK_UN);
	else
		(void)!fcntl(d->fd, F_OFD_SETLK, &fl);
}

/* ---- registered files ---- */

static void slot_alloc(struct real_world *w, struct udisk *d)
{
	int i;

	d->slot = -1;
	pthread_mutex_lock(&w->lock);
	for (i = 0; i < UR_SLOTS && d->slot < 0; i++) {
		if (!w->slots[i]) {
			w->slots[i] = d;
			d->slot = i;
		}
	}
	pthread_mutex_unlock(&w->lock);
}

bool udisk_register(struct ur *u, struct udisk *d)
{
	int fd = d->fd;

	if (!u->files_registered || io_uring_register_files_update(&u->ring, (unsigned)d->slot, &fd, 1) != 1)
		return false;
	u->slots[d->slot].registered = d;
	atomic_store(&d->is_used_by[u->r.index], true);
	return true;
}

/* Takes the file out of this reactor's table. */
static void table_forget(struct ur *u, struct udisk *d)
{
	int none = -1;

	if (d->slot < 0 || u->slots[d->slot].registered != d)
		return;
	io_uring_register_files_update(&u->ring, (unsigned)d->slot, &none, 1);
	u->slots[d->slot].registered = NULL;
}

static void udisk_free(struct udisk *d)
{
	if (d->fd >= 0)
		close(d->fd);
	xfree(d->disk.path);
	xfree(d);
}

void udisk_put(struct udisk *d)
{
	struct real_world *w = d->w;

	if (atomic_fetch_sub(&d->n_users, 1) > 1)
		return;
	pthread_mutex_lock(&w->lock);
	if (d->slot >= 0)
		w->slots[d->slot] = NULL;
	list_del(&d->closing);
	pthread_mutex_unlock(&w->lock);
	udisk_free(d);
}

/* One reactor less that knows the disk. */
static void udisk_forget(struct ur *u, struct udisk *d)
{
	table_forget(u, d);
	udisk_put(d);
}

static void forget_arrived(struct msg *m)
{
	struct ur *u = ur_self();
	struct udisk *d = container_of(m - u->r.index, struct udisk, forget[0]);

	udisk_forget(u, d);
}

static void udisk_close(struct disk *disk)
{
	struct udisk *d = container_of(disk, struct udisk, disk);
	struct real_world *w = d->w;
	struct ur *u = ur_self();
	unsigned i;

	if (u->n_counted)
		ur_publish_counts(u);
	disk_unlock(d);
	table_forget(u, d);
	d->is_closed = true;
	if (!atomic_load(&d->n_works)) { /* else the last of these closes it */
		close(d->fd);
		d->fd = -1;
	}
	pthread_mutex_lock(&w->lock);
	list_push_back(&w->closing, &d->closing);
	pthread_mutex_unlock(&w->lock);
	for (i = 0; i < w->world.n_reactors; i++) {
		if (i == u->r.index || !atomic_load(&d->is_used_by[i]))
			continue;
		atomic_fetch_add(&d->n_users, 1);
		d->forget[i].run = forget_arrived;
		reactor_post(w->world.reactors[i], &d->forget[i]);
	}
	udisk_forget(u, d);
}

/* Does this reactor's part for all disks that are closing; true if there are any. */
static bool help_closing(struct real_world *w)
{
	struct reactor *r = reactor_self();
	struct udisk *d;
	bool any;

	pthread_mutex_lock(&w->lock);
	any = !list_is_empty(&w->closing);
	if (r)
		list_for_each(d, &w->closing, closing)
			table_forget(container_of(r, struct ur, r), d);
	pthread_mutex_unlock(&w->lock);
	return any;
}

/* ---- open, refresh ---- */

static int open_fd(struct udisk *d, struct err *e)
{
	/* When it was read last, nobody wants to know; and a file that is written too would be told at nearly every read. */
	int mode = O_CLOEXEC | O_DIRECT | O_NOATIME | (d->flags & DISK_RDONLY ? O_RDONLY : O_RDWR), tries, r;
	const char *path = d->disk.path;

	if (d->disk.is_block && !(d->flags & (DISK_RDONLY | DISK_NO_LOCK)))
		mode |= O_EXCL;
	for (tries = 0;; tries++) {
		bool closing = help_closing(d->w);

		d->fd = open(path, mode);
		if (d->fd >= 0)
			return 0;
		r = -errno;
		if (r == -EPERM && (mode & O_NOATIME)) { /* it is somebody else's file */
			mode &= ~O_NOATIME;
			continue;
		}
		if (r != -EBUSY || tries >= BUSY_TRIES || (!closing && tries > 5))
			break;
		usleep(1000); /* file references go a moment after the last close */
	}
	if (r == -EBUSY)
		return refuse_locked(path, true, e);
	if (r == -EINVAL)
		return err_set(e, r, "%s cannot be opened for direct I/O: its file system does not support O_DIRECT", path);
	return err_set(e, r, "cannot open %s: %s", path, strerror(-r));
}

static int open_and_check(struct udisk *d, struct err *e)
{
	struct stat st;
	int r;

	if (stat(d->disk.path, &st) < 0) { /* before open(): a FIFO would block, a tape rewind */
		r = -errno;
		return err_set(e, r, "cannot open %s: %s", d->disk.path, strerror(-r));
	}
	if (!S_ISBLK(st.st_mode) && !S_ISREG(st.st_mode))
		return err_set(e, -EINVAL, "%s is neither a block device nor a file", d->disk.path);
	d->disk.is_block = S_ISBLK(st.st_mode);
	r = open_fd(d, e);
	if (r < 0)
		return r;
	if (fstat(d->fd, &st) < 0 || S_ISBLK(st.st_mode) != d->disk.is_block ||
	    !(S_ISBLK(st.st_mode) || S_ISREG(st.st_mode)))
		r = err_set(e, -EINVAL, "%s was replaced while it was opened", d->disk.path);
	if (r == 0)
		r = disk_lock(d, e);
	if (r == 0)
		r = describe(d, &st, e);
	return r;
}

int udisk_co_open(struct world *world, const char *path, unsigned flags, struct disk **out, struct err *e)
{
	struct real_world *w = container_of(world, struct real_world, world);
	struct udisk *d;
	int r;

	if (disk_path_is_uri(path))
		return ndisk_co_open(w, path, flags, out, e);
	d = xcalloc(1, sizeof(*d));
	d->w = w;
	d->fd = -1;
	d->flags = flags;
	work_queue_init(&d->works);
	d->disk.world = world;
	d->disk.path = xstrdup(path);
	list_init(&d->closing);
	co_queue_init(&d->stat_waiters);
	atomic_store(&d->n_users, 1);
	r = open_and_check(d, e);
	if (r < 0) {
		udisk_free(d);
		return r;
	}
	slot_alloc(w, d);
	udisk_init(d);
	*out = &d->disk;
	return 0;
}

static int udisk_refresh(struct disk *disk, struct err *e)
{
	struct udisk *d = container_of(disk, struct udisk, disk);
	uint64_t size;
	int r = disk_size(d, &size);

	if (r < 0)
		return err_set(e, r, "cannot read the size of %s: %s", disk->path, strerror(-r));
	disk->bdev.size_bytes = ALIGN_DOWN(size, (uint64_t)disk->bdev.block_bytes);
	return 0;
}

/* ---- still there? ---- */

/* For a file a thread is asked, the kernel's or one of ours: a file of a network or user-space file system whose server hangs
 * would block whoever calls fstat(). One question at a time per disk. */
static void stat_begin(struct ur *u, struct udisk *d)
{
	d->n_stats_begun++;
	atomic_fetch_add(&d->n_users, 1); /* it must stay until there is an answer */
	u->w->ops->stat(u, d);
}

void udisk_stat_complete(struct ur *u, struct udisk *d, int res)
{
	d->stat_result = res;
	d->stat_bytes = d->stat.stx_size;
	d->stat_has_name = d->stat.stx_nlink || !d->had_name;
	d->n_stats_ended++;
	co_queue_wake_all(&d->stat_waiters);
	udisk_put(d);
}

/* Coroutine. The answer to a question that was asked after this call began. -ETIMEDOUT: there is none. */
static int stat_co_ask(struct udisk *d)
{
	uint64_t end = reactor_now_ns() + STAT_NS;
	unsigned want = d->n_stats_begun + 1;
	int r = 0;

	while ((int)(want - d->n_stats_ended) > 0 && r == 0 && !d->is_closed) {
		if (d->n_stats_begun == d->n_stats_ended)
			stat_begin(ur_self(), d);
		r = co_queue_wait_until(&d->stat_waiters, end);
	}
	if ((int)(want - d->n_stats_ended) <= 0)
		r = d->stat_result;
	else if (r == 0)
		r = -ETIMEDOUT; /* it has been closed */
	return r;
}

static bool is_gone(int error)
{
	return error == -ENODEV || error == -ENXIO || error == -ESTALE || error == -ENOTCONN;
}

/* Coroutine. 1: it cannot be told; requests will. */
static int file_co_alive(struct udisk *d, uint64_t *size, struct err *e)
{
	int r;

	atomic_fetch_add(&d->n_users, 1); /* somebody may close it meanwhile */
	r = stat_co_ask(d);
	*size = d->stat_bytes;
	if (is_gone(r))
		r = err_set(e, -ENODEV, "its file is gone (%s)", strerror(-r));
	else if (r < 0)
		r = 1;
	else if (!d->stat_has_name)
		r = err_set(e, -ENOENT, "its file was deleted");
	udisk_put(d);
	return r;
}

static int udisk_co_alive(struct disk *disk, uint64_t size_bytes, struct err *e)
{
	struct udisk *d = container_of(disk, struct udisk, disk);
	uint64_t size = 0;
	int r;

	if (!disk->is_block)
		r = file_co_alive(d, &size, e);
	else if (disk_size(d, &size) < 0 || !size) /* kept in memory by the kernel */
		r = err_set(e, -ENODEV, "the device is gone");
	else
		r = 0;
	if (r)
		return MIN(r, 0);
	if (size < size_bytes)
		return err_set(e, -EIO, "it has shrunk to %llu bytes", (unsigned long long)size);
	return 0;
}

const struct disk_ops udisk_ops = { .close = udisk_close, .refresh = udisk_refresh, .co_alive = udisk_co_alive };
