/*
 * Kept memory: found by the next process, and by nobody who should not believe it.
 */
#include <CUnit/Basic.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/io/keep.h"
#include "engine/io/real.h"

#define NAME "01234567-89ab-cdef-0123-456789abcdef"
#define BYTES 100000
#define HEAD 4096

static struct world *w;
static char dir[] = "/tmp/ashlar-keep.XXXXXX";
static char path[sizeof(dir) + 64];

/* What a process has kept that is gone: 0x5a all over. */
static void leave(void)
{
	struct keep k;

	CU_ASSERT_EQUAL_FATAL(keep_create(w, NAME, BYTES, &k), 0);
	CU_ASSERT_FATAL(!*(char *)k.mem && !memcmp(k.mem, (char *)k.mem + 1, BYTES - 1));
	memset(k.mem, 0x5a, BYTES);
	keep_close(&k, false);
}

static bool is_found(void)
{
	struct keep k;
	bool found;

	keep_open(w, NAME, false, &k);
	found = k.mem && k.bytes == BYTES && ((uint8_t *)k.mem)[BYTES - 1] == 0x5a;
	keep_close(&k, false);
	return found;
}

static void poke(size_t at, char byte)
{
	int fd = open(path, O_RDWR);

	CU_ASSERT_FATAL(fd >= 0 && pwrite(fd, &byte, 1, (off_t)at) == 1);
	close(fd);
}

static void what_was_left_is_found_until_it_is_forgotten(void)
{
	struct keep k;

	CU_ASSERT(!is_found());
	leave();
	CU_ASSERT(is_found());
	CU_ASSERT(is_found());
	keep_open(w, NAME, false, &k);
	CU_ASSERT_FATAL(k.mem != NULL);
	keep_close(&k, true);
	CU_ASSERT(!is_found());
	CU_ASSERT_NOT_EQUAL(access(path, F_OK), 0);
}

static void a_process_that_is_killed_leaves_all_it_has_written(void)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		struct keep k;

		if (keep_create(w, NAME, BYTES, &k) < 0)
			_exit(1);
		memset(k.mem, 0x5a, BYTES);
		raise(SIGKILL);
	}
	CU_ASSERT_FATAL(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
	CU_ASSERT(is_found());
}

static void readers_change_nothing(void)
{
	struct keep k;

	leave();
	keep_open(w, NAME, true, &k);
	CU_ASSERT_FATAL(k.mem != NULL);
	memset(k.mem, 0, BYTES);
	keep_close(&k, false);
	CU_ASSERT(is_found());
}

static void what_others_may_have_written_is_not_believed(void)
{
	leave();
	CU_ASSERT_EQUAL(chmod(path, 0620), 0);
	CU_ASSERT(!is_found());
	CU_ASSERT_EQUAL(chmod(path, 0600), 0);
	CU_ASSERT(is_found());
	if (geteuid() == 0) {
		CU_ASSERT_EQUAL(chown(path, 1, 1), 0);
		CU_ASSERT(!is_found());
	}
	unlink(path);
	CU_ASSERT_EQUAL(symlink("/etc/passwd", path), 0);
	CU_ASSERT(!is_found());
	leave(); /* in its place */
	CU_ASSERT(is_found());
	CU_ASSERT_EQUAL(truncate(path, HEAD), 0);
	CU_ASSERT(!is_found());
}

static void another_boot_finds_nothing(void)
{
	leave();
	poke(8 + 3, 'x'); /* no digit of an id */
	CU_ASSERT(!is_found());
	leave();
	poke(0, 'x');
	CU_ASSERT(!is_found());
}

static void where_there_is_no_room_nothing_is_kept(void)
{
	struct keep k;

	setenv("ASHLAR_KEEP_DIR", "/nonexistent", 1);
	CU_ASSERT_EQUAL(keep_create(w, NAME, BYTES, &k), -ENOENT);
	CU_ASSERT_PTR_NULL(k.mem);
	keep_close(&k, true);
	setenv("ASHLAR_KEEP_DIR", dir, 1);
	leave();
	CU_ASSERT(keep_create(w, NAME, (size_t)1 << 60, &k) < 0);
	CU_ASSERT(is_found()); /* the old one stays */
	CU_ASSERT_EQUAL(unlink(path), 0);
	CU_ASSERT_EQUAL(rmdir(dir), 0); /* and nothing lies about */
}

int main(void)
{
	struct real_options o = { .n_reactors = 1 };
	struct err e = { 0 };
	unsigned failures;
	CU_pSuite s;

	if (!mkdtemp(dir) || setenv("ASHLAR_KEEP_DIR", dir, 1) || real_world_create(&o, &w, &e) < 0) {
		fprintf(stderr, "%s\n", e.text);
		return 1;
	}
	snprintf(path, sizeof(path), "%s/ashlar-" NAME, dir);
	CU_initialize_registry();
	s = CU_add_suite("kept memory", NULL, NULL);
#define T(f) CU_add_test(s, #f, f)
	T(what_was_left_is_found_until_it_is_forgotten);
	T(a_process_that_is_killed_leaves_all_it_has_written);
	T(readers_change_nothing);
	T(what_others_may_have_written_is_not_believed);
	T(another_boot_finds_nothing);
	T(where_there_is_no_room_nothing_is_kept);
	CU_basic_run_tests();
	failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	real_world_destroy(w);
	return failures != 0;
}
