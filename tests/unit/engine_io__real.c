/* The real world, by io_uring, by AIO and by threads alone: reactors in threads, disks as files in a directory on disk and in memory, and a zram disk if allowed. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/aio_abi.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <CUnit/Basic.h>

#include "engine/base/rng.h"
#include "engine/base/units.h"
#include "engine/io/buf.h"
#include "engine/io/disk.h"
#include "engine/io/real_priv.h"

#define FILE_BYTES (8 * MIB)

static struct real_options options;
static struct world *world;
static char dir_disk[64], dir_memory[64];
static unsigned n_at_once = 2;

static char *file_make(const char *dir, const char *name, uint64_t size)
{
	static char path[2][128];
	static int turn;
	char *p = path[turn ^= 1];
	int fd;

	snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
	fd = open(p, O_CREAT | O_RDWR | O_TRUNC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		CHECK(!"cannot make a test file");
	close(fd);
	return p;
}

static int run(int (*fn)(void *arg), void *arg)
{
	struct err e = { 0 };
	int r = real_world_create(&options, &world, &e);

	if (r < 0) {
		fprintf(stderr, "%s\n", e.text);
		return r;
	}
	r = real_world_run(world, fn, arg);
	real_world_destroy(world);
	return r;
}

/* ---- reactors ---- */

static int co_where(void *arg)
{
	*(struct reactor **)arg = reactor_self();
	co_yield();
	co_sleep_ns(1000);
	return 40 + (int)reactor_self()->index;
}

static int co_calls(void *arg)
{
	struct reactor *r;
	unsigned i, k;

	for (k = 0; k < 200; k++) {
		for (i = 0; i < world->n_reactors; i++) {
			CU_ASSERT_EQUAL(reactor_co_call(world->reactors[i], co_where, &r), 40 + (int)i);
			CU_ASSERT_PTR_EQUAL(r, world->reactors[i]);
		}
	}
	return 7;
}

static void calls_run_on_their_reactor(void)
{
	options.n_reactors = 4;
	CU_ASSERT_EQUAL(run(co_calls, NULL), 7);
}

struct ping {
	struct msg msg;
	unsigned hops;
	struct co *waiter;
	struct reactor *home;
};

static void ping_home(struct msg *m)
{
	co_wake(container_of(m, struct ping, msg)->waiter);
}

static void ping_run(struct msg *m)
{
	struct ping *p = container_of(m, struct ping, msg);

	if (--p->hops == 0) {
		m->run = ping_home;
		reactor_post(p->home, m);
		return;
	}
	reactor_post(world->reactors[(reactor_self()->index + 1) % world->n_reactors], m);
}

static void co_ping(void *arg)
{
	struct ping p = { .msg.run = ping_run, .hops = 3000, .waiter = co_self(), .home = reactor_self() };

	reactor_post(world->reactors[1], &p.msg);
	co_suspend();
	CU_ASSERT_EQUAL(p.hops, 0);
	co_join_done(arg, 0);
}

static int co_pings(void *arg)
{
	struct co_join j;
	int i;

	co_join_init(&j);
	for (i = 0; i < 8; i++) {
		co_join_add(&j);
		co_spawn(CO_SERVICE, co_ping, &j, "ping");
	}
	return co_join_wait(&j);
}

static void messages_wake_sleeping_reactors(void)
{
	options.n_reactors = 3;
	CU_ASSERT_EQUAL(run(co_pings, NULL), 0);
}

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

static int co_idle(void *arg)
{
	uint64_t t = reactor_now_ns(), cpu = cpu_ns(); /* sleeps count from the time of this loop */

	co_sleep_ns(300 * NS_PER_MS);
	cpu = cpu_ns() - cpu;
	t = reactor_now_ns() - t;
	CU_ASSERT_TRUE(t >= 300 * NS_PER_MS);
	CU_ASSERT_TRUE(cpu < 20 * NS_PER_MS);
	return 0;
}

static void idle_reactors_use_no_cpu(void)
{
	options.n_reactors = 4;
	CU_ASSERT_EQUAL(run(co_idle, NULL), 0);
}

/* ---- disks ---- */

static int co_disk_basics(void *arg)
{
	struct disk *d;
	struct err e = { 0 };
	char *a = buf_alloc(64 * KIB), *b = buf_alloc(64 * KIB), *plain = xaligned(4096, 64 * KIB);
	struct bdev *bd;
	int r = disk_co_open(world, arg, 0, &d, &e);

	if (r < 0)
		fprintf(stderr, "%s\n", e.text);
	CU_ASSERT_EQUAL_FATAL(r, 0);
	bd = &d->bdev;
	CU_ASSERT_EQUAL(bd->size_bytes, FILE_BYTES);
	CU_ASSERT_TRUE(bd->block_bytes == 512 || bd->block_bytes == 4096);
	memset(a, 0x5a, 64 * KIB);
	CU_ASSERT_EQUAL(bdev_co_write(bd, 128 * KIB, a, 64 * KIB, 0), 0);
	CU_ASSERT_EQUAL(bdev_co_flush(bd), 0);
	CU_ASSERT_EQUAL(bdev_co_read(bd, 128 * KIB, b, 64 * KIB), 0);
	CU_ASSERT_EQUAL(memcmp(a, b, 64 * KIB), 0);
	CU_ASSERT_EQUAL(bdev_co_read(bd, 128 * KIB, plain, 64 * KIB), 0);
	CU_ASSERT_EQUAL(memcmp(a, plain, 64 * KIB), 0);
	memset(a, 0xc3, 4096);
	CU_ASSERT_EQUAL(bdev_co_write(bd, 132 * KIB, a, 4096, IO_FUA), 0);
	CU_ASSERT_EQUAL(bdev_co_read(bd, 128 * KIB, b, 64 * KIB), 0);
	CU_ASSERT_EQUAL(b[4095], 0x5a);
	CU_ASSERT_EQUAL(memcmp(a, b + 4096, 4096), 0);
	memset(a, 0, 64 * KIB);
	CU_ASSERT_EQUAL(bdev_co_zero(bd, 128 * KIB, 16 * KIB, IO_FUA), 0);
	CU_ASSERT_EQUAL(bdev_co_zero(bd, 144 * KIB, 16 * KIB, IO_NO_HOLE), 0);
	CU_ASSERT_EQUAL(bdev_co_read(bd, 128 * KIB, b, 64 * KIB), 0);
	CU_ASSERT_EQUAL(memcmp(a, b, 32 * KIB), 0);
	CU_ASSERT_EQUAL(b[32 * KIB], 0x5a);
	CU_ASSERT_EQUAL(bdev_co_discard(bd, 160 * KIB, 16 * KIB, 0), 0);
	CU_ASSERT_EQUAL(bdev_co_read(bd, 176 * KIB, b, 4096), 0);
	CU_ASSERT_EQUAL(b[0], 0x5a);
	memset(a, 0x77, 64 * KIB);
	CU_ASSERT_EQUAL(bdev_co_write(bd, 2 * MIB, a, 64 * KIB, 0), 0);
	CU_ASSERT_EQUAL(bdev_co_zero(bd, 1 * MIB, 3 * MIB + 4096, IO_NO_HOLE), 0);
	CU_ASSERT_EQUAL(bdev_co_read(bd, 2 * MIB, b, 64 * KIB), 0);
	CU_ASSERT_EQUAL(b[0] | b[64 * KIB - 1], 0);
	r = bdev_co_zero(bd, 0, 4096, IO_FAST_ZERO | IO_NO_HOLE);
	CU_ASSERT_TRUE(r == 0 || r == -EOPNOTSUPP);
	CU_ASSERT_EQUAL(bdev_co_read(bd, FILE_BYTES, b, 4096), -EIO);
	co_yield(); /* counts are published at the end of a loop */
	CU_ASSERT_TRUE(d->n_writes >= 3 && d->n_reads >= 6 && d->n_flushes == 1 && d->n_errors == 1);
	CU_ASSERT_TRUE(d->bytes_written >= 132 * KIB && d->bytes_read >= 5 * 64 * KIB);
	buf_free(a, 64 * KIB);
	buf_free(b, 64 * KIB);
	xfree(plain);
	disk_close(d);
	return 0;
}

static void disk_reads_what_was_written(void)
{
	options.n_reactors = 1;
	CU_ASSERT_EQUAL(run(co_disk_basics, file_make(dir_disk, "a", FILE_BYTES)), 0);
	CU_ASSERT_EQUAL(run(co_disk_basics, file_make(dir_memory, "a", FILE_BYTES)), 0);
}

static int co_vectors(void *arg)
{
	struct disk *d;
	struct iovec v[5];
	struct io io;
	char *b[5], *all = buf_alloc(64 * KIB);
	int i;

	CU_ASSERT_EQUAL_FATAL(disk_co_open(world, arg, 0, &d, NULL), 0);
	for (i = 0; i < 5; i++) {
		b[i] = buf_alloc(8192);
		memset(b[i], 'a' + i, 8192);
		v[i] = (struct iovec){ b[i], i % 2 ? 8192 : 4096 };
	}
	io_prep(&io, IO_WRITE, 40960, 28672, NULL, 0);
	io.iov = v;
	io.iov_n = 5;
	CU_ASSERT_EQUAL(bdev_co_submit(&d->bdev, &io), 0);
	CU_ASSERT_EQUAL(bdev_co_read(&d->bdev, 40960, all, 28672), 0);
	CU_ASSERT_TRUE(all[0] == 'a' && all[4096] == 'b' && all[12287] == 'b' && all[12288] == 'c' && all[28671] == 'e');
	for (i = 0; i < 5; i++)
		memset(b[i], 0, 8192);
	/* the last 16 KiB and beyond the end: a short transfer, then an error, buffers filled so far */
	io_prep(&io, IO_WRITE, FILE_BYTES - 12288, 12288, all, 0);
	CU_ASSERT_EQUAL(bdev_co_submit(&d->bdev, &io), 0);
	io_prep(&io, IO_READ, FILE_BYTES - 12288, 28672, NULL, 0);
	io.iov = v;
	io.iov_n = 5;
	CU_ASSERT_EQUAL(bdev_co_submit(&d->bdev, &io), -EIO);
	CU_ASSERT_TRUE(b[0][0] == 'a' && b[1][8191] == 'b' && b[2][0] == 0);
	for (i = 0; i < 5; i++)
		buf_free(b[i], 8192);
	buf_free(all, 64 * KIB);
	disk_close(d);
	return 0;
}

static void vectors_and_short_transfers(void)
{
	options.n_reactors = 1;
	CU_ASSERT_EQUAL(run(co_vectors, file_make(dir_disk, "v", FILE_BYTES)), 0);
	CU_ASSERT_EQUAL(run(co_vectors, file_make(dir_memory, "v", FILE_BYTES)), 0);
}

/* Many coroutines on several reactors, each with its own blocks, which carry their address and a generation. */
struct load {
	struct disk *d;
	struct reactor *r;
	unsigned n;
	uint64_t seed;
	struct co_join j;
	unsigned index;
};

static void co_load_one(void *arg)
{
	struct load *l = arg;
	unsigned me = l->n++, i, k;
	uint64_t *b = buf_alloc(4096), off, gen[16] = { 0 };
	struct rng rng;
	int r = 0;

	rng_init(&rng, l->seed * 1000 + me);
	for (i = 0; i < 200 && r == 0; i++) {
		k = (unsigned)rng_below(&rng, 16);
		off = ((uint64_t)(l->index * 16 + me) * 16 + k) * 4096;
		if (rng_chance(&rng, 1, 2)) {
			gen[k] = rng_next(&rng);
			b[0] = off;
			b[511] = gen[k];
			r = bdev_co_write(&l->d->bdev, off, b, 4096, rng_chance(&rng, 1, 10) ? IO_FUA : 0);
		} else {
			memset(b, 0xff, 4096);
			r = bdev_co_read(&l->d->bdev, off, b, 4096);
			CU_ASSERT_EQUAL(b[511], gen[k]);
			CU_ASSERT_EQUAL(b[0], gen[k] ? off : 0);
		}
		if (rng_chance(&rng, 1, 40) && r == 0)
			r = bdev_co_flush(&l->d->bdev);
	}
	buf_free(b, 4096);
	co_join_done(&l->j, r);
}

static int co_load(void *arg)
{
	struct load *l = arg;
	int i;

	co_join_init(&l->j);
	for (i = 0; i < 16; i++) {
		co_join_add(&l->j);
		co_spawn(i % 2 ? CO_REQUEST : CO_SERVICE, co_load_one, l, "load");
	}
	return co_join_wait(&l->j);
}

static void co_load_there(void *arg)
{
	struct load *l = arg;

	co_join_done((struct co_join *)(uintptr_t)l->seed, reactor_co_call(l->r, co_load, l));
}

static int co_loads(void *arg)
{
	struct load l[4];
	struct co_join j;
	struct disk *d;
	unsigned i;
	int r;

	CU_ASSERT_EQUAL_FATAL(disk_co_open(world, arg, 0, &d, NULL), 0);
	co_join_init(&j);
	for (i = 0; i < world->n_reactors; i++) {
		l[i] = (struct load){ .d = d, .r = world->reactors[i], .seed = (uint64_t)(uintptr_t)&j, .index = i };
		co_join_add(&j);
		co_spawn(CO_SERVICE, co_load_there, &l[i], "load");
	}
	r = co_join_wait(&j);
	CU_ASSERT_EQUAL(d->n_errors, 0);
	disk_close(d);
	/* the locks are gone at once, though other reactors still have to let go */
	CU_ASSERT_EQUAL_FATAL(disk_co_open(world, arg, 0, &d, NULL), 0);
	disk_close(d);
	return r;
}

static void reactors_share_a_disk(void)
{
	options.n_reactors = 4;
	CU_ASSERT_EQUAL(run(co_loads, file_make(dir_disk, "s", FILE_BYTES)), 0);
	CU_ASSERT_EQUAL(run(co_loads, file_make(dir_memory, "s", FILE_BYTES)), 0);
}

static void works_without_registration_and_aio(void)
{
	bool no_aio = options.no_aio;

	options.n_reactors = 1;
	options.no_register = options.no_aio = true;
	CU_ASSERT_EQUAL(run(co_disk_basics, file_make(dir_disk, "a", FILE_BYTES)), 0);
	CU_ASSERT_EQUAL(run(co_disk_basics, file_make(dir_memory, "a", FILE_BYTES)), 0);
	options.n_reactors = 4;
	CU_ASSERT_EQUAL(run(co_loads, file_make(dir_disk, "a", FILE_BYTES)), 0);
	CU_ASSERT_EQUAL(run(co_loads, file_make(dir_memory, "a", FILE_BYTES)), 0);
	options.no_register = false;
	options.no_aio = no_aio;
}

static int co_locks(void *arg)
{
	struct disk *a, *b, *c;
	struct err e = { 0 };

	CU_ASSERT_EQUAL_FATAL(disk_co_open(world, arg, 0, &a, &e), 0);
	CU_ASSERT_EQUAL(disk_co_open(world, arg, 0, &b, &e), -ERR_LOCKED);
	CU_ASSERT_TRUE(strlen(e.text) > 10);
	CU_ASSERT_EQUAL(disk_co_open(world, arg, DISK_RDONLY, &b, &e), -ERR_LOCKED);
	CU_ASSERT_EQUAL_FATAL(disk_co_open(world, arg, DISK_RDONLY | DISK_NO_LOCK, &b, &e), 0);
	CU_ASSERT_EQUAL(a->ident[0], b->ident[0]);
	CU_ASSERT_EQUAL(a->ident[1], b->ident[1]);
	CU_ASSERT_TRUE(b->bdev.read_only);
	disk_close(a);
	disk_close(b);
	CU_ASSERT_EQUAL_FATAL(disk_co_open(world, arg, DISK_RDONLY, &b, &e), 0);
	CU_ASSERT_EQUAL_FATAL(disk_co_open(world, arg, DISK_RDONLY, &c, &e), 0);
	CU_ASSERT_EQUAL(disk_co_open(world, arg, 0, &a, &e), -ERR_LOCKED);
	disk_close(b);
	disk_close(c);
	CU_ASSERT_EQUAL(disk_co_open(world, "/dev/null", 0, &a, &e), -EINVAL);
	CU_ASSERT_EQUAL(disk_co_open(world, "/nonexistent", 0, &a, &e), -ENOENT);
	CU_ASSERT_EQUAL(disk_co_open(world, "/tmp", 0, &a, &e), -EINVAL);
	return 0;
}

static void disks_are_locked(void)
{
	options.n_reactors = 1;
	CU_ASSERT_EQUAL(run(co_locks, file_make(dir_disk, "l", FILE_BYTES)), 0);
}

static int co_refresh(void *arg)
{
	struct disk *d;

	CU_ASSERT_EQUAL_FATAL(disk_co_open(world, arg, 0, &d, NULL), 0);
	CU_ASSERT_EQUAL(truncate(arg, FILE_BYTES * 2 + 100), 0);
	CU_ASSERT_EQUAL(d->ops->refresh(d, NULL), 0);
	CU_ASSERT_EQUAL(d->bdev.size_bytes, FILE_BYTES * 2);
	disk_close(d);
	return 0;
}

static void size_is_refreshed(void)
{
	options.n_reactors = 1;
	CU_ASSERT_EQUAL(run(co_refresh, file_make(dir_disk, "r", FILE_BYTES)), 0);
}

static int co_alive(void *arg)
{
	struct disk *d;
	struct err e = { 0 };
	unsigned i;

	CU_ASSERT_EQUAL_FATAL(disk_co_open(world, arg, 0, &d, NULL), 0);
	for (i = 0; i < 100; i++)
		CU_ASSERT_EQUAL(disk_co_alive(d, FILE_BYTES, &e), 0);
	CU_ASSERT_EQUAL(truncate(arg, FILE_BYTES + MIB), 0);
	CU_ASSERT_EQUAL(disk_co_alive(d, FILE_BYTES, &e), 0);
	CU_ASSERT_EQUAL(truncate(arg, FILE_BYTES - 4096), 0);
	CU_ASSERT_EQUAL(disk_co_alive(d, FILE_BYTES, &e), -EIO);
	CU_ASSERT_STRING_EQUAL(e.text, "it has shrunk to 8384512 bytes");
	CU_ASSERT_EQUAL(disk_co_alive(d, FILE_BYTES - 4096, &e), 0);
	CU_ASSERT_EQUAL(unlink(arg), 0);
	CU_ASSERT_EQUAL(disk_co_alive(d, FILE_BYTES - 4096, &e), -ENOENT);
	CU_ASSERT_STRING_EQUAL(e.text, "its file was deleted");
	disk_close(d);
	return 0;
}

static void deleted_and_shrunk_files_are_noticed(void)
{
	options.n_reactors = 1;
	CU_ASSERT_EQUAL(run(co_alive, file_make(dir_disk, "alive", FILE_BYTES)), 0);
	CU_ASSERT_EQUAL(run(co_alive, file_make(dir_memory, "alive", FILE_BYTES)), 0);
}

/* What is cut off was no hole: it is not to be taken for zeros. */
static int co_holes(void *arg)
{
	struct disk *d;
	struct bdev_extent ext;
	char *buf = buf_alloc(4096);
	size_t n = 1;

	CU_ASSERT_EQUAL_FATAL(disk_co_open(world, arg, 0, &d, NULL), 0);
	CU_ASSERT_EQUAL(bdev_co_status(&d->bdev, 0, FILE_BYTES, &ext, &n), 0);
	CU_ASSERT_TRUE(n == 1 && ext.len_bytes == FILE_BYTES && ext.flags == (BDEV_HOLE | BDEV_ZERO));
	CU_ASSERT_EQUAL(truncate(arg, FILE_BYTES / 2), 0);
	CU_ASSERT_EQUAL(bdev_co_status(&d->bdev, 0, FILE_BYTES, &ext, &n), 0);
	CU_ASSERT_TRUE(n == 1 && ext.len_bytes == FILE_BYTES / 2 && ext.flags == (BDEV_HOLE | BDEV_ZERO));
	CU_ASSERT_EQUAL(bdev_co_status(&d->bdev, FILE_BYTES / 2, FILE_BYTES / 2, &ext, &n), 0);
	CU_ASSERT_TRUE(n == 1 && ext.len_bytes == FILE_BYTES / 2 && !ext.flags);
	CU_ASSERT_EQUAL(bdev_co_status(&d->bdev, FILE_BYTES - 4096, 4096, &ext, &n), 0);
	CU_ASSERT_TRUE(n == 1 && ext.len_bytes == 4096 && !ext.flags);
	CU_ASSERT_EQUAL(bdev_co_read(&d->bdev, FILE_BYTES - 4096, buf, 4096), -EIO);
	buf_free(buf, 4096);
	disk_close(d);
	return 0;
}

static void what_is_cut_off_a_file_is_no_hole(void)
{
	options.n_reactors = 1;
	CU_ASSERT_EQUAL(run(co_holes, file_make(dir_disk, "hole", FILE_BYTES)), 0);
	CU_ASSERT_EQUAL(run(co_holes, file_make(dir_memory, "hole", FILE_BYTES)), 0);
}

struct asker {
	struct disk *d;
	struct co_join *join;
	int result;
};

static void co_ask(void *arg)
{
	struct asker *a = arg;

	a->result = disk_co_alive(a->d, FILE_BYTES, NULL);
	co_join_done(a->join, 0);
}

/* Many at once share questions, and the disk may be closed under them. */
static int co_ask_and_close(void *arg)
{
	struct asker a[20];
	struct co_join join;
	struct disk *d;
	unsigned round, i;

	for (round = 0; round < 50; round++) {
		CU_ASSERT_EQUAL_FATAL(disk_co_open(world, arg, 0, &d, NULL), 0);
		co_join_init(&join);
		for (i = 0; i < ARRAY_LEN(a); i++) {
			a[i] = (struct asker){ d, &join, -1 };
			co_join_add(&join);
			co_spawn(CO_SERVICE, co_ask, &a[i], "asker");
		}
		co_yield();
		if (round % 2)
			disk_close(d);
		CU_ASSERT_EQUAL(co_join_wait(&join), 0);
		for (i = 0; i < ARRAY_LEN(a); i++)
			CU_ASSERT_EQUAL(a[i].result, 0);
		if (round % 2 == 0)
			disk_close(d);
	}
	return 0;
}

static void a_disk_may_be_closed_while_it_is_asked_about(void)
{
	options.n_reactors = 1;
	CU_ASSERT_EQUAL(run(co_ask_and_close, file_make(dir_disk, "ask", FILE_BYTES)), 0);
}

static void foreign_data_is_found(void)
{
	char what[100], cmd[300], *path = file_make(dir_disk, "p", FILE_BYTES);
	struct err e = { 0 };

	options.n_reactors = 1;
	CU_ASSERT_EQUAL_FATAL(real_world_create(&options, &world, &e), 0);
	CU_ASSERT_EQUAL(disk_probe(world, path, what, sizeof(what), &e), 0);
	snprintf(cmd, sizeof(cmd), "mkswap %s >/dev/null 2>&1 || /sbin/mkswap %s >/dev/null 2>&1", path, path);
	if (system(cmd) == 0) {
		CU_ASSERT_EQUAL(disk_probe(world, path, what, sizeof(what), &e), 1);
		CU_ASSERT_STRING_EQUAL(what, "swap");
	}
	path = file_make(dir_disk, "q", FILE_BYTES);
	snprintf(cmd, sizeof(cmd), "PATH=$PATH:/sbin mkfs.ext4 -q %s >/dev/null 2>&1", path);
	if (system(cmd) == 0) {
		CU_ASSERT_EQUAL(disk_probe(world, path, what, sizeof(what), &e), 1);
		CU_ASSERT_STRING_EQUAL(what, "ext4 file system");
	}
	CU_ASSERT_EQUAL(disk_probe(world, "/nonexistent", what, sizeof(what), &e), -ENOENT);
	real_world_destroy(world);
}

static int number_from(const char *path)
{
	FILE *f = fopen(path, "re");
	int n = -1;

	if (f && fscanf(f, "%d", &n) != 1)
		n = -1;
	if (f)
		fclose(f);
	return n;
}

static bool number_to(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, value, strlen(value)) > 0;

	if (fd >= 0)
		close(fd);
	return ok;
}

static void block_device_in_memory(void)
{
	int n = geteuid() == 0 ? number_from("/sys/class/zram-control/hot_add") : -1;
	char path[100], dev[32], value[32];

	if (n < 0) {
		puts(" (no zram: left out)");
		return;
	}
	snprintf(path, sizeof(path), "/sys/block/zram%d/disksize", n);
	snprintf(value, sizeof(value), "%llu", FILE_BYTES);
	snprintf(dev, sizeof(dev), "/dev/zram%d", n);
	if (number_to(path, value) && access(dev, R_OK | W_OK) == 0) {
		options.n_reactors = 1;
		CU_ASSERT_EQUAL(run(co_disk_basics, dev), 0);
		CU_ASSERT_EQUAL(run(co_locks, dev), 0);
		options.n_reactors = 4;
		snprintf(path, sizeof(path), "/sys/block/zram%d/reset", n);
		snprintf(value, sizeof(value), "1");
		CU_ASSERT_TRUE(number_to(path, value));
		snprintf(path, sizeof(path), "/sys/block/zram%d/disksize", n);
		snprintf(value, sizeof(value), "%llu", FILE_BYTES);
		CU_ASSERT_TRUE(number_to(path, value));
		CU_ASSERT_EQUAL(run(co_loads, dev), 0);
	}
	snprintf(value, sizeof(value), "%d", n);
	CU_ASSERT_TRUE(number_to("/sys/class/zram-control/hot_remove", value));
}

static void worlds_come_and_go(void)
{
	struct world *w[8];
	unsigned i, k;

	options.n_reactors = 2;
	for (k = 0; k < 5; k++) {
		for (i = 0; i < n_at_once; i++)
			CU_ASSERT_EQUAL_FATAL(real_world_create(&options, &w[i], NULL), 0);
		for (i = 0; i < n_at_once; i++)
			real_world_destroy(w[i]);
	}
}

/* AIO's requests to this file are in flight when io_submit() has returned: as they are on disks, and not in memory. */
static bool ends_late(const char *path)
{
	aio_context_t ctx = 0;
	char *b = xaligned(4096, 4096);
	struct timespec none = { 0 };
	struct io_event ev;
	int fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC), n = 0, i;
	struct iocb cb = { .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = (uint32_t)fd, .aio_buf = (uintptr_t)b, .aio_nbytes = 4096 }, *v = &cb;

	memset(b, 1, 4096);
	CHECK(fd >= 0 && pwrite(fd, b, 4096, 0) == 4096 && syscall(SYS_io_setup, 8, &ctx) == 0);
	for (i = 0; i < 20; i++) {
		CHECK(syscall(SYS_io_submit, ctx, 1, &v) == 1);
		if (syscall(SYS_io_getevents, ctx, 0, 1, &ev, &none) == 1)
			n++;
		else
			CHECK(syscall(SYS_io_getevents, ctx, 1, 1, &ev, NULL) == 1);
	}
	syscall(SYS_io_destroy, ctx);
	close(fd);
	xfree(b);
	return n == 0;
}

static int co_one_at_a_time(void *arg)
{
	struct disk *d;
	char *b = buf_alloc(4096);
	bool late;
	int i;

	CU_ASSERT_EQUAL_FATAL(disk_co_open(world, arg, 0, &d, NULL), 0);
	for (i = 0; i < 100; i++)
		CU_ASSERT_EQUAL(bdev_co_read(&d->bdev, 0, b, 4096), 0);
	late = atomic_load(&container_of(d, struct udisk, disk)->aio_late);
	buf_free(b, 4096);
	disk_close(d);
	return late;
}

/* Even if there is never a second request: it would be waited for by the clock. */
static void late_completions_are_noticed(void)
{
	char *path = file_make(dir_disk, "late", FILE_BYTES);
	bool is_late = ends_late(path);

	options.n_reactors = 1;
	if (options.io == REAL_IO_AIO && !options.no_aio && is_late)
		CU_ASSERT_EQUAL(run(co_one_at_a_time, path), true);
	path = file_make(dir_memory, "late", FILE_BYTES);
	CU_ASSERT_EQUAL(run(co_one_at_a_time, path), false);
}

static void remove_dir(const char *dir)
{
	char cmd[100];

	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	if (system(cmd))
		perror("rm");
}

static int by_uring(void)
{
	options = (struct real_options){ .io = REAL_IO_URING };
	return 0;
}

static int by_aio(void)
{
	options = (struct real_options){ .io = REAL_IO_AIO };
	return 0;
}

/* As where neither is allowed. */
static int by_threads(void)
{
	options = (struct real_options){ .io = REAL_IO_AIO, .no_aio = true };
	return 0;
}

static void add_suite(const char *name, CU_InitializeFunc init)
{
	CU_pSuite s = CU_add_suite(name, init, NULL);

#define T(f) CU_add_test(s, #f, f)
	T(calls_run_on_their_reactor);
	T(messages_wake_sleeping_reactors);
	T(idle_reactors_use_no_cpu);
	T(disk_reads_what_was_written);
	T(works_without_registration_and_aio);
	T(vectors_and_short_transfers);
	T(reactors_share_a_disk);
	T(disks_are_locked);
	T(size_is_refreshed);
	T(deleted_and_shrunk_files_are_noticed);
	T(what_is_cut_off_a_file_is_no_hole);
	T(a_disk_may_be_closed_while_it_is_asked_about);
	T(foreign_data_is_found);
	T(late_completions_are_noticed);
	T(block_device_in_memory);
	T(worlds_come_and_go);
}

int main(void)
{
	unsigned failures;

	strcpy(dir_disk, "/var/tmp/ashlar-real-XXXXXX");
	strcpy(dir_memory, "/dev/shm/ashlar-real-XXXXXX");
	CHECK(mkdtemp(dir_disk) && mkdtemp(dir_memory));
	CU_initialize_registry();
	add_suite("uring", by_uring);
	add_suite("aio", by_aio);
	add_suite("threads", by_threads);
	CU_basic_run_tests();
	failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	remove_dir(dir_disk);
	remove_dir(dir_memory);
	return failures != 0;
}
