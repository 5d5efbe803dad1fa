/*
 * real_keep.c: kept memory of the real world: files of a tmpfs, one page in front of them with the id of the boot.
 *
 * The directory is everybody's (/dev/shm), so a name may have been taken by somebody else: a file that is not the user's own, or that
 * others may write, is not believed. A file system on a disk would do as well: the boot's id tells what a power cut has left.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/io/real_priv.h"

#define HEAD_BYTES 4096
#define BOOT_ID_PATH "/proc/sys/kernel/random/boot_id"
#define BOOT_ID_LEN 36
#define KEEP_MAGIC "ASHLKEEP"

struct keep_head {
	char magic[8];
	char boot[40];
};

static int boot_id(char out[40])
{
	int fd = open(BOOT_ID_PATH, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	memset(out, 0, 40);
	n = read(fd, out, BOOT_ID_LEN);
	close(fd);
	return n == BOOT_ID_LEN ? 0 : -EIO;
}

static int keep_path(char *path, size_t len, const char *name, const char *suffix)
{
	const char *dir = getenv("ASHLAR_KEEP_DIR");

	return (size_t)snprintf(path, len, "%s/ashlar-%s%s", dir && *dir ? dir : "/dev/shm", name, suffix) < len ? 0 : -ENAMETOOLONG;
}

static int file_check(int fd, off_t *size)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_mode & 077 || st.st_nlink != 1)
		return -EPERM;
	*size = st.st_size;
	return st.st_size > HEAD_BYTES ? 0 : -EINVAL;
}

int real_keep_open(struct world *w, const char *name, bool read_only, void **mem, size_t *bytes)
{
	struct keep_head now, *h;
	char path[4096];
	off_t size = 0;
	uint8_t *map = MAP_FAILED;
	int fd, r = keep_path(path, sizeof(path), name, "");

	(void)w;
	if (r == 0)
		r = boot_id(now.boot);
	if (r < 0)
		return r;
	fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = file_check(fd, &size);
	if (r == 0) /* read-only: what is changed is this process's own */
		map = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, read_only ? MAP_PRIVATE : MAP_SHARED, fd, 0);
	close(fd);
	if (r < 0 || map == MAP_FAILED)
		return r < 0 ? r : -ENOMEM;
	h = (struct keep_head *)(void *)map;
	if (memcmp(h->magic, KEEP_MAGIC, sizeof(h->magic)) || memcmp(h->boot, now.boot, sizeof(h->boot))) {
		munmap(map, (size_t)size);
		return -ESTALE;
	}
	*mem = map + HEAD_BYTES;
	*bytes = (size_t)size - HEAD_BYTES;
	return 0;
}

static int file_make(const char *path, size_t size, uint8_t **map)
{
	int fd, r;

	unlink(path); /* of somebody who was killed here */
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	r = -posix_fallocate(fd, 0, (off_t)size); /* a full tmpfs says so now, and not by a signal later */
	if (r == 0) {
		*map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		r = *map == MAP_FAILED ? -errno : 0;
	}
	close(fd);
	return r;
}

int real_keep_create(struct world *w, const char *name, size_t bytes, void **mem)
{
	char path[4096], temp[4096];
	struct keep_head h;
	uint8_t *map;
	int r = keep_path(path, sizeof(path), name, "");

	(void)w;
	memcpy(h.magic, KEEP_MAGIC, sizeof(h.magic));
	if (r == 0)
		r = keep_path(temp, sizeof(temp), name, ".new");
	if (r == 0)
		r = boot_id(h.boot);
	if (r < 0)
		return r;
	r = file_make(temp, HEAD_BYTES + bytes, &map);
	if (r == 0) {
		memcpy(map, &h, sizeof(h));
		if (rename(temp, path) < 0) {
			r = -errno;
			munmap(map, HEAD_BYTES + bytes);
		}
	}
	if (r < 0) {
		unlink(temp);
		return r;
	}
	*mem = map + HEAD_BYTES;
	return 0;
}

void real_keep_close(struct world *w, const char *name, void *mem, size_t bytes, bool forget)
{
	char path[4096];

	(void)w;
	if (forget && keep_path(path, sizeof(path), name, "") == 0)
		unlink(path);
	munmap((uint8_t *)mem - HEAD_BYTES, HEAD_BYTES + bytes);
}
