/* Assembly in the real world: files, directories, links, a second process, a file system that somebody still needs. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/units.h"
#include "engine/io/real.h"
#include "engine/pool/assembly.h"
#include "tests/unit/unit.h"

#define FILE_BYTES (8 * MIB)

static char dir[256], file[2][300];
static const char *const files[] = { file[0], file[1] };
static struct world *world;
static struct err why;
static struct assembly *as;

/* No thread may run when a test forks: each process has a world of its own, made late. */
static bool begin_world(void)
{
	struct real_options o = { .n_reactors = 1, .arena_bytes = MIB };

	as = xcalloc(1, sizeof(*as));
	return real_world_create(&o, &world, &why) == 0;
}

static void end_world(void)
{
	real_world_destroy(world);
	xfree(as);
}

static bool make_file(const char *path, size_t size)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	bool ok = fd >= 0 && ftruncate(fd, (off_t)size) == 0;

	if (fd >= 0)
		close(fd);
	return ok;
}

static void make_files(void)
{
	const char *base = getenv("TMPDIR");

	snprintf(dir, sizeof(dir), "%s/ashlar-test-XXXXXX", base ? base : "/var/tmp");
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(dir));
	snprintf(file[0], sizeof(file[0]), "%s/a", dir);
	snprintf(file[1], sizeof(file[1]), "%s/b", dir);
	CU_ASSERT_FATAL(make_file(file[0], FILE_BYTES) && make_file(file[1], FILE_BYTES));
}

static void remove_file(const char *name)
{
	char path[600];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	if (unlink(path) < 0)
		rmdir(path);
}

static void remove_files(void)
{
	static const char *const names[] = { "a", "b", "link", "other", "empty", "sub/a", "sub", ".hidden", "fifo" };
	size_t i;

	for (i = 0; i < ARRAY_LEN(names); i++)
		remove_file(names[i]);
	CU_ASSERT_EQUAL(rmdir(dir), 0);
}

static struct ashlar_pool_spec spec(void)
{
	return (struct ashlar_pool_spec){ .name = "tank", .paths = files, .n_paths = 2, .cluster_bytes = 64 * KIB, .group_bytes = MIB };
}

static int co_create(void *arg)
{
	struct ashlar_pool_spec s = spec();
	unsigned i;
	int r = assembly_co_prepare(world, &s, as, &why);

	if (r < 0)
		return r;
	for (i = 0; i < 2 && r == 0; i++) {
		r = label_co_wipe(as->disks[i].disk);
		if (r == 0)
			r = label_co_write(as->disks[i].disk, &as->label, i, NULL);
	}
	assembly_close(as);
	return r;
}

static int co_prepare(void *arg)
{
	struct ashlar_pool_spec s = spec();
	int r;

	s.force = arg != NULL;
	r = assembly_co_prepare(world, &s, as, &why);
	if (r == 0)
		assembly_close(as);
	return r;
}

static int co_open(void *arg) { return assembly_co_open(world, "tank", files, 2, arg != NULL, as, &why); }

static int co_close(void *arg)
{
	assembly_close(as);
	return 0;
}

static int co_open_close(void *arg)
{
	int r = co_open(arg);

	if (r == 0)
		assembly_close(as);
	return r;
}

static int run(int (*fn)(void *), void *arg)
{
	int r = real_world_run(world, fn, arg);

	if (r < 0 && !why.text[0])
		printf("\n  %s", err_text(r));
	return r;
}

#define YES ((void *)1)

/* Files may lie where there is no O_DIRECT (an old tmpfs): nothing to test there. */
static bool create(void)
{
	int r;

	make_files();
	CU_ASSERT_FATAL(begin_world());
	r = run(co_create, NULL);
	if (r < 0)
		printf("\n  %s", why.text);
	if (r < 0 && strstr(why.text, "O_DIRECT")) {
		end_world();
		remove_files();
		return false;
	}
	CU_ASSERT_EQUAL(r, 0);
	return true;
}

/* ---- a second process ---- */

/* Child: opens, says so, holds until told. */
static void hold(int say, int hear, bool read_only)
{
	char c = 'n';

	if (begin_world() && run(co_open, read_only ? YES : NULL) == 0)
		c = 'y';
	(void)!write(say, &c, 1);
	(void)!read(hear, &c, 1);
	if (c == 'y')
		run(co_close, NULL);
	_exit(0);
}

struct holder {
	pid_t pid;
	int hear, say;
};

static void holder_start(struct holder *h, bool read_only)
{
	int up[2], down[2];
	char c = 0;

	CU_ASSERT_FATAL(pipe(up) == 0 && pipe(down) == 0);
	fflush(stdout);
	h->pid = fork();
	CU_ASSERT_FATAL(h->pid >= 0);
	if (!h->pid) {
		close(down[1]);
		hold(up[1], down[0], read_only);
	}
	close(up[1]);
	close(down[0]);
	h->hear = up[0];
	h->say = down[1];
	CU_ASSERT_EQUAL(read(h->hear, &c, 1), 1);
	CU_ASSERT_EQUAL(c, 'y');
}

static void holder_stop(struct holder *h)
{
	close(h->say); /* it reads the end of file */
	close(h->hear);
	waitpid(h->pid, NULL, 0);
}

static struct ashlar_found *found;
static size_t n_found;

static int co_discover(void *arg)
{
	const char *const where[] = { dir };

	return assembly_co_discover(world, where, 1, &found, &n_found, NULL, &why);
}

static void second_process_is_locked_out(void)
{
	struct holder h;

	if (!create())
		return;
	end_world();
	holder_start(&h, false);
	CU_ASSERT_FATAL(begin_world());
	CU_ASSERT_EQUAL(run(co_open_close, NULL), -ERR_LOCKED);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, file[0]));
	CU_ASSERT_EQUAL(run(co_open_close, YES), -ERR_LOCKED);
	CU_ASSERT_EQUAL(run(co_prepare, YES), -ERR_LOCKED);
	CU_ASSERT_EQUAL(run(co_discover, NULL), 0);
	CU_ASSERT_EQUAL_FATAL(n_found, 1);
	CU_ASSERT_TRUE(found[0].in_use);
	ashlar_found_free(found, n_found);
	holder_stop(&h);
	CU_ASSERT_EQUAL(run(co_open_close, NULL), 0);
	end_world();
	remove_files();
}

static void readers_share_and_keep_writers_out(void)
{
	struct holder h;

	if (!create())
		return;
	end_world();
	holder_start(&h, true);
	CU_ASSERT_FATAL(begin_world());
	CU_ASSERT_EQUAL(run(co_open_close, YES), 0);
	CU_ASSERT_EQUAL(run(co_open_close, NULL), -ERR_LOCKED);
	holder_stop(&h);
	end_world();
	remove_files();
}

static void write_protected_files_open_read_only(void)
{
	if (!create())
		return;
	chmod(file[0], 0400);
	chmod(file[1], 0400);
	CU_ASSERT_EQUAL(run(co_open_close, YES), 0);
	if (geteuid() != 0) {
		CU_ASSERT_EQUAL(run(co_open_close, NULL), -EACCES);
		CU_ASSERT_PTR_NOT_NULL(strstr(why.text, file[0]));
	}
	end_world();
	remove_files();
}

/* ---- directories and links ---- */

static int co_open_dir(void *arg)
{
	const char *const where[] = { dir, file[0] };

	return assembly_co_open(world, NULL, where, 2, false, as, &why);
}

static int co_open_directory_as_disk(void *arg)
{
	const char *const where[] = { dir };
	struct ashlar_pool_spec s = spec();

	s.paths = where;
	s.n_paths = 1;
	return assembly_co_prepare(world, &s, as, &why);
}

static void directories_stand_for_their_files(void)
{
	char path[600], sub[600];

	if (!create())
		return;
	snprintf(path, sizeof(path), "%s/link", dir);
	CU_ASSERT_EQUAL(symlink("a", path), 0);
	snprintf(path, sizeof(path), "%s/other", dir);
	CU_ASSERT_TRUE(make_file(path, 12345));
	snprintf(path, sizeof(path), "%s/empty", dir);
	CU_ASSERT_TRUE(make_file(path, 0));
	snprintf(path, sizeof(path), "%s/fifo", dir);
	CU_ASSERT_EQUAL(mkfifo(path, 0600), 0);
	snprintf(sub, sizeof(sub), "%s/sub", dir);
	CU_ASSERT_EQUAL(mkdir(sub, 0700), 0);
	CU_ASSERT_EQUAL(run(co_discover, NULL), 0);
	CU_ASSERT_EQUAL_FATAL(n_found, 1);
	CU_ASSERT_STRING_EQUAL(found[0].name, "tank");
	CU_ASSERT_EQUAL(found[0].n_present, 2);
	CU_ASSERT_EQUAL(found[0].n_paths, 2);
	CU_ASSERT_FALSE(found[0].in_use);
	ashlar_found_free(found, n_found);
	CU_ASSERT_EQUAL(run(co_open_dir, NULL), 0);
	CU_ASSERT_EQUAL(as->n_present, 2);
	CU_ASSERT_STRING_EQUAL(as->disks[0].disk->path, file[0]);
	run(co_close, NULL);
	CU_ASSERT_EQUAL(run(co_open_directory_as_disk, NULL), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, dir));
	end_world();
	remove_files();
}

static int co_expand_devices(void *arg)
{
	char **paths;
	size_t n, i;
	int r = assembly_expand_paths(world, NULL, 0, &paths, &n, &why);

	if (r < 0)
		return r == -ENOENT || r == -EACCES ? 0 : r; /* no sysfs in this container */
	for (i = 0; i < n; i++) {
		CU_ASSERT_EQUAL(strncmp(paths[i], "/dev/", 5), 0);
		CU_ASSERT(i == 0 || strcmp(paths[i - 1], paths[i]) < 0);
		xfree(paths[i]);
	}
	xfree(paths);
	return 0;
}

static void block_devices_are_listed(void)
{
	CU_ASSERT_FATAL(begin_world());
	CU_ASSERT_EQUAL(run(co_expand_devices, NULL), 0);
	end_world();
}

/* ---- foreign data ---- */

static uint8_t *read_all(const char *path)
{
	uint8_t *p = malloc(FILE_BYTES);
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	CU_ASSERT_EQUAL(read(fd, p, FILE_BYTES), FILE_BYTES);
	close(fd);
	return p;
}

static void file_system_is_refused_and_unchanged(void)
{
	char command[700];
	uint8_t *before, *after;

	make_files();
	snprintf(command, sizeof(command), "PATH=$PATH:/sbin:/usr/sbin mkfs.ext4 -q -F %s >/dev/null 2>&1", file[1]);
	if (system(command) != 0) {
		printf("(no mkfs.ext4: skipped) ");
		remove_files();
		return;
	}
	before = read_all(file[1]);
	CU_ASSERT_FATAL(begin_world());
	why.text[0] = 0;
	CU_ASSERT_EQUAL(run(co_prepare, NULL), -ERR_FOREIGN);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "ext4"));
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, file[1]));
	CU_ASSERT_EQUAL(run(co_prepare, YES), 0); /* and this alone does not write either */
	after = read_all(file[1]);
	CU_ASSERT_EQUAL(memcmp(before, after, FILE_BYTES), 0);
	free(before);
	free(after);
	end_world();
	remove_files();
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(second_process_is_locked_out),
		TEST(readers_share_and_keep_writers_out),
		TEST(write_protected_files_open_read_only),
		TEST(directories_stand_for_their_files),
		TEST(block_devices_are_listed),
		TEST(file_system_is_refused_and_unchanged),
		CU_TEST_INFO_NULL,
	};

	return tests_run("files", tests);
}
