/*
 * What lies on a disk already: file systems, RAID and LVM members, swap, encryption, partition tables, by libblkid.
 */
#include <blkid/blkid.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/io/real_priv.h"

static const char *value_of(blkid_probe pr, const char *name)
{
	const char *v;

	return blkid_probe_lookup_value(pr, name, &v, NULL) == 0 ? v : NULL;
}

/* "LVM2_member" and usage "raid" read better as "LVM2 member". */
static void describe(blkid_probe pr, char *what, size_t len)
{
	const char *type = value_of(pr, "TYPE"), *usage = value_of(pr, "USAGE"), *table = value_of(pr, "PTTYPE");
	char *p;

	if (type && usage && !strcmp(usage, "filesystem")) {
		snprintf(what, len, "%s file system", type);
	} else if (type) {
		snprintf(what, len, "%s", type);
		for (p = what; *p; p++)
			if (*p == '_')
				*p = ' ';
	} else if (table) {
		char name[32];

		snprintf(name, sizeof(name), "%s", table);
		for (p = name; *p; p++)
			*p = (char)(*p >= 'a' && *p <= 'z' ? *p - 'a' + 'A' : *p);
		snprintf(what, len, "%s partition table", name);
	} else {
		snprintf(what, len, "unknown signature");
	}
}

int udisk_probe_fd(int fd, const char *path, char *what, size_t len, struct err *e)
{
	blkid_probe pr = blkid_new_probe();
	struct stat st;
	int r;

	if (!pr)
		return err_set(e, -ENOMEM, "cannot look for foreign data on %s: out of memory", path);
	errno = 0;
	if (blkid_probe_set_device(pr, fd, 0, 0) != 0) {
		r = errno ? -errno : -EIO;
		if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size < 1024)
			r = 0; /* too small for any */
		else
			err_set(e, r, "cannot look for foreign data on %s: %s", path, strerror(-r));
		goto out;
	}
	blkid_probe_enable_superblocks(pr, 1);
	blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE | BLKID_SUBLKS_LABEL);
	blkid_probe_enable_partitions(pr, 1);
	r = blkid_do_safeprobe(pr);
	if (r == 0) {
		describe(pr, what, len);
		r = 1;
	} else if (r == 1) {
		r = 0;
	} else if (r == -2) {
		snprintf(what, len, "several signatures");
		r = 1;
	} else {
		r = errno ? -errno : -EIO;
		err_set(e, r, "cannot look for foreign data on %s: %s", path, strerror(-r));
	}
out:
	blkid_free_probe(pr);
	return r;
}

int udisk_probe(struct world *w, const char *path, char *what, size_t len, struct err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), r;

	if (fd < 0) {
		r = -errno;
		return err_set(e, r, "cannot open %s: %s", path, strerror(-r));
	}
	r = udisk_probe_fd(fd, path, what, len, e);
	close(fd);
	return r;
}
